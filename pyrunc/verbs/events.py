"""`events`: statistics and OOM kills of containers."""

from __future__ import annotations

from pyrunc import command, jsontext, state
from pyrunc.container import events
from pyrunc.errors import PyruncError, StateError, UsageError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.api.types import Stats

USAGE = "events [OPTIONS] ID [ID ...]"
SUMMARY = "print statistics and OOM kills of containers as JSON lines, until they stop"
ARGS = (1, command.ANY_NUMBER)
FLAGS: tuple[command.Flag, ...] = (
    ("stats", "", "", "bool", "print current statistics and exit"),
    ("interval", "", "DURATION", "str", "interval between statistics, such as 500ms or 1m30s (default 5s)"),
    ("format", "f", "FORMAT", "str", "json (default), or table with --stats"),
)
HEADER = ("ID", "CPU TIME", "THROTTLED", "MEMORY", "LIMIT", "SWAP", "PIDS", "READ", "WRITTEN")


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Print the events. With several containers, print those that can be read, then fail for the
    others."""
    format, once = values.get("format", "json"), values.get("stats", False)
    if format not in ("table", "json"):
        raise UsageError(f"--format {show(format)}: expected json or table")
    if format == "table" and not once:
        raise UsageError("--format table: only with --stats")
    text = values.get("interval", "5s")
    interval = events.duration(text)
    if interval is None:
        raise UsageError(f"--interval {show(text)}: expected a duration such as 5s, 1m30s or 250ms")
    if interval <= 0:
        raise UsageError("--interval: duration must be greater than 0")
    containers, problems = events.open_all(state.Store(state.root_dir(context.root)), args)
    if not once:
        if problems:
            raise StateError("; ".join(problems))
        events.follow(containers, interval, emit, context.log)
        return 0
    shown = []
    for container in containers:
        try:
            shown.append(events.measure(container))
        except PyruncError as error:
            problems.append(f"{container.id}: {error}" if len(args) > 1 else str(error))
    if format == "table":
        command.out(table(shown))
    else:
        command.out("".join(jsontext.dumps(event) + "\n" for event in shown))
    if problems:
        raise StateError("; ".join(problems))
    return 0


def emit(event: events.Event) -> None:
    """One line."""
    command.out(jsontext.dumps(event) + "\n")


def table(shown: list[events.Event]) -> str:
    """One line per container for people; "-" if a controller is missing."""
    from pyrunc.verbs import list as listing

    return listing.columns([HEADER, *(row(event["id"], event["data"]) for event in shown)])


def row(id: str, data: Stats) -> tuple[str, ...]:
    """The cells of a container."""
    cpu, memory, pids = data["cpu"], data["memory"], data["pids"]
    throttled = cpu["throttling"].get("throttledTime")
    used = memory["usage"].get("usage", 0)
    moved = {
        op: sum(entry.get("value", 0) for entry in data["blkio"]["ioServiceBytesRecursive"] if entry["op"] == op)
        for op in ("Read", "Write")
        if "ioServiceBytesRecursive" in data["blkio"]
    }
    return (
        id,
        seconds(cpu["usage"].get("total", 0)),
        "-" if throttled is None else seconds(throttled),
        size(used) if "raw" in memory else "-",
        limit(memory["usage"]["limit"]) if "raw" in memory else "-",
        size(max(memory["swap"].get("usage", 0) - used, 0)) if "raw" in memory else "-",
        f"{pids.get('current', 0)}" + (f" / {pids['limit']}" if "limit" in pids else ""),
        size(moved["Read"]) if moved else "-",
        size(moved["Write"]) if moved else "-",
    )


def seconds(nanoseconds: int) -> str:
    """``1.234s``."""
    return f"{nanoseconds // 10**9}.{nanoseconds // 10**6 % 1000:03d}s"


def limit(value: int) -> str:
    """A limit; ``max`` without one."""
    return "max" if value >= 1 << 63 else size(value)


def size(value: int) -> str:
    """Bytes with a binary unit, three digits or so: ``17B``, ``1.5MiB``."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = max(0, (value.bit_length() - 1) // 10) if value else 0
    if power == 0:
        return f"{value}{units[0]}"
    tenths = value * 10 >> 10 * power
    return f"{tenths // 10}{units[power]}" if tenths >= 1000 else f"{tenths // 10}.{tenths % 10}{units[power]}"
