"""`list`: all containers under a state root."""

from __future__ import annotations

from pyrunc import command, log, state
from pyrunc.errors import PyruncError, UsageError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = "list [OPTIONS]"
SUMMARY = "list the containers"
ARGS = (0, 0)
FLAGS: tuple[command.Flag, ...] = (
    ("format", "f", "FORMAT", "str", "table (default) or json"),
    ("quiet", "q", "", "bool", "ids only"),
)
HEADER = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def main(context: command.Context, values: dict[str, Any], args: list[str]) -> int:
    """Print the containers; of those that cannot be read stderr and the log tell."""
    format = values.get("format", "table")
    if format not in ("table", "json"):
        raise UsageError(f"--format {show(format)}: expected table or json")
    store = state.Store(state.root_dir(context.root))
    if context.root and not store.exists():
        raise PyruncError(f"--root {show(context.root)}: there is no such directory")

    def broken(text: str) -> None:
        context.log.warning(text)
        log.say("warning", text)

    containers = list(store.list(broken))
    if values.get("quiet"):
        return command.out("".join(f"{container.id}\n" for container in containers))
    names: dict[int, str] = {}
    reports = [container.report(owner(container.data.get("owner", 0), names)) for container in containers]
    if format == "json":
        return command.out(state.dumps(reports) + "\n")
    return command.out(table(reports))


def owner(uid: int, names: dict[int, str]) -> str:
    """The name of a uid, ``#UID`` without one; ``names`` are those already looked up."""
    if uid not in names:
        from pwd import getpwuid

        try:
            names[uid] = getpwuid(uid).pw_name
        except KeyError:
            names[uid] = f"#{uid}"
    return names[uid]


def table(reports: list[dict[str, Any]]) -> str:
    """The columns of `list`."""
    return columns([HEADER, *(tuple(str(report[key.lower()]) for key in HEADER) for report in reports)])


def columns(rows: list[tuple[str, ...]]) -> str:
    """Columns as Go's tabwriter makes them: at least 12 wide, 3 blanks between."""
    widths = [max(12, max(len(row[column]) for row in rows) + 3) for column in range(len(rows[0]) - 1)]
    lines = ["".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)) + row[-1] for row in rows]
    return "\n".join(lines) + "\n"
