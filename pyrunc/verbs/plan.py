"""`plan`: print the steps of a create without running them. Needs no privileges."""

from __future__ import annotations

import posix

from pyrunc import command, fs, jsontext
from pyrunc.errors import ConfigError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.types import Config

MOST = 32768  # a longer listing is useless; together with the error it stays below 64 KiB in any encoding
USAGE = "plan [OPTIONS]"
SUMMARY = "print the steps that would create a container (or run a process in it), each with its config field"
ARGS = (0, 1)
WIDTH = 100  # width of a listing for a file or a pipe
FLAGS: tuple[command.Flag, ...] = (
    ("bundle", "b", "DIR", "str", "directory of config.json (default: the working directory)"),
    ("config", "f", "FILE", "str", "use FILE, relative to the working directory, instead of the bundle's config.json"),
    ("exec", "", "FILE", "str", "show what `exec --process FILE` would do in such a container"),
    ("json", "", "", "bool", "as JSON"),
    ("no-pivot", "", "", "bool", "show what `create --no-pivot` would do"),
)


def listed(error: ConfigError) -> str:
    """The problems, one per line; after ``MOST`` characters, or a hundred problems, only a count of
    the rest."""
    text, left = "", len(error.problems) + error.more
    for problem in error.problems:
        if len(text) < MOST:
            text += f"{printable(str(problem))}\n"
            left -= 1
    return f"{text}and {left} more\n" if left else text


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Print the plan, or every problem of the configuration, one per line."""
    from pyrunc.launch import create, exec
    from pyrunc.plan import show

    opts = command.create_options(context, args[0] if args else "ID", values)
    try:
        config, facts, plan = create.compile_only(opts)
        shown: Config | None = config
        if values.get("exec"):
            plan = exec.compile_only(config, facts, opts.id, fs.abspath(values["exec"]), plan.cgroup_path)
            shown = None  # its limits are the container's
    except ConfigError as error:
        if len(error.problems) > 1:
            fs.ignore(fs.write_all, 2, listed(error).encode("utf-8", "replace"))
        raise
    if values.get("json"):
        return command.out(jsontext.dumps(show.as_json(plan, shown), "  ") + "\n")
    return command.out(show.fitted(plan, shown, *appearance()))


def appearance() -> tuple[int, bool]:
    """Width of the listing, and whether to use colours: the terminal's, otherwise 100 columns
    without.

    NO_COLOR follows no-color.org: present and not empty.
    """
    try:
        columns = posix.get_terminal_size(1).columns
    except OSError:
        return WIDTH, False
    return columns or WIDTH, not fs.getenv("NO_COLOR") and fs.getenv("TERM") not in ("", "dumb")
