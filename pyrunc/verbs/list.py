"""`list`: list all containers under a state root."""

from __future__ import annotations

from pyrunc import command, jsontext, log, state
from pyrunc.errors import PyruncError, SysError, UsageError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyrunc.state.document import Report

USAGE = "list [OPTIONS]"
SUMMARY = "list the containers"
ARGS = (0, 0)
FLAGS: tuple[command.Flag, ...] = (
    ("format", "f", "FORMAT", "str", "table (default) or json"),
    ("quiet", "q", "", "bool", "ids only"),
)
HEADER = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Print the containers; report unreadable ones on stderr.

    Returns 1 if the list may lack a running container because its state cannot be read at the
    moment. A damaged state is only a warning.
    """
    format = values.get("format", "table")
    if format not in ("table", "json"):
        raise UsageError(f"--format {show(format)}: expected table or json")
    store = state.Store(state.root_dir(context.root))
    if context.root and not store.exists():
        raise PyruncError(f"--root {show(context.root)}: it does not exist")
    complete = True

    def broken(error: PyruncError) -> None:
        nonlocal complete
        if isinstance(error, state.Damaged):
            context.log.warning(str(error), aloud=True)
            return
        complete = False
        context.log.error(str(error))
        log.say("error", str(error))

    if values.get("quiet"):
        text = "".join(f"{container.id}\n" for container in store.list(broken, content=False))
    else:
        shown = reports(store, broken)
        text = jsontext.dumps(shown) + "\n" if format == "json" else table(shown)
    command.out(text)
    return 0 if complete else 1


def reports(store: state.Store, broken: Callable[[PyruncError], object]) -> list[Report]:
    """The entries of the containers; errors of unreadable ones are appended to ``broken``."""
    names: dict[int, str] = {}
    out = []
    for container in store.list(broken):
        try:
            out.append(container.report(owner(container.data.get("owner", 0), names)))
        except OSError as error:
            broken(SysError(f"container {container.id}", "", error.errno or 0))
    return out


def owner(uid: int, names: dict[int, str]) -> str:
    """The name of a uid, or ``#UID``; ``names`` caches previous lookups."""
    if uid not in names:
        from pwd import getpwuid

        try:
            names[uid] = getpwuid(uid).pw_name
        except KeyError:
            names[uid] = f"#{uid}"
    return names[uid]


def table(reports: Sequence[Mapping[str, object]]) -> str:
    """The columns of `list`."""
    return columns([HEADER, *(tuple(str(report[key.lower()]) for key in HEADER) for report in reports)])


def columns(rows: list[tuple[str, ...]]) -> str:
    """Columns in the format of Go's tabwriter: at least 12 wide, 3 blanks between."""
    widths = [max(12, max(len(row[column]) for row in rows) + 3) for column in range(len(rows[0]) - 1)]
    lines = ["".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)) + row[-1] for row in rows]
    return "\n".join(lines) + "\n"
