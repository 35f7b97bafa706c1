"""`list`: all containers under a state root."""

from __future__ import annotations

from pyrunc import command, state
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
    """Print the containers; those that cannot be read are left out."""
    format = values.get("format", "table")
    if format not in ("table", "json"):
        raise UsageError(f"--format {show(format)}: expected table or json")
    store = state.Store(state.root_dir(context.root))
    if context.root and not store.exists():
        raise PyruncError(f"--root {show(context.root)}: there is no such directory")
    containers = list(store.list())
    if values.get("quiet"):
        return command.out("".join(f"{container.id}\n" for container in containers))
    reports = [container.report(owner(container.data.get("owner", 0))) for container in containers]
    if format == "json":
        return command.out(state.dumps(reports) + "\n")
    return command.out(table(reports))


def owner(uid: int) -> str:
    """The name of a uid, ``#UID`` without one."""
    from pwd import getpwuid

    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def table(reports: list[dict[str, Any]]) -> str:
    """Columns as Go's tabwriter makes them: at least 12 wide, 3 blanks between."""
    rows = [HEADER, *(tuple(str(report[key.lower()]) for key in HEADER) for report in reports)]
    widths = [max(12, max(len(row[column]) for row in rows) + 3) for column in range(len(HEADER) - 1)]
    lines = ["".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)) + row[-1] for row in rows]
    return "\n".join(lines) + "\n"
