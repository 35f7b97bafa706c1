"""`trace show`: display the recording of ``--trace FILE``."""

from __future__ import annotations

import posix

from pyrunc import command, fs, jsontext
from pyrunc.errors import SysError, UsageError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.trace.draw import Style

USAGE = "trace show [OPTIONS] FILE"
SUMMARY = "show where the commands in a --trace file spent their time"
ARGS = (1, 2)
FLAGS: tuple[command.Flag, ...] = (
    ("svg", "", "FILE", "str", "write a picture to FILE"),
    ("json", "", "", "bool", "print the commands and their parts as JSON; times in microseconds"),
    ("all", "a", "", "bool", "also show parts below 1 % of their command"),
)
WIDTH = 100


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Print the commands, or write the picture."""
    if args[0] != "show" or len(args) != 2:
        raise UsageError(f"{show(' '.join(args))}: expected show FILE")
    from pyrunc.trace import draw, read

    found = read.load(args[1])
    everything = values.get("all", False)
    if values.get("svg"):
        from pyrunc.trace import svg

        try:
            fs.replace_file(values["svg"], svg.picture(found, everything).encode("utf-8"), 0o644)
        except OSError as error:
            raise SysError("--svg", "write", error.errno or 0, value=values["svg"]) from error
        if not values.get("json"):
            return 0
    if values.get("json"):
        return command.out(jsontext.dumps(read.as_json(found), "  ") + "\n")
    return command.out(draw.draw(found, style(), everything))


def style() -> Style:
    """Properties of the terminal: width, colours unless NO_COLOR is set, block characters if the
    locale has them."""
    from pyrunc.trace.draw import Style

    try:
        width = posix.get_terminal_size(1).columns or WIDTH
        colour = not fs.getenv("NO_COLOR") and fs.getenv("TERM") not in ("", "dumb")
    except OSError:
        width, colour = WIDTH, False
    locale = fs.getenv("LC_ALL") or fs.getenv("LC_CTYPE") or fs.getenv("LANG")
    return Style(width, colour, locale.lower().replace("-", "").endswith("utf8"))
