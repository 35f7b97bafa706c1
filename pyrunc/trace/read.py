"""Read a trace for `trace show`: the commands in a file, each with nested spans.

Both formats are supported. The content is untrusted: everything is bounded, and the first
unexpected item is reported. Times are in microseconds.
"""

from __future__ import annotations

from pyrunc import fs, interpreter
from pyrunc.errors import PyruncError, SysError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Fields = dict[str, Any]  # of a span as it was read

MOST_BYTES = 64 << 20
MOST_TIME = 1e17  # above it, the sum of two is not a valid time
DEPTH = 40
_SLACK = 1.0  # the precision of a double for current times is a quarter of a microsecond
RUNTIME_LANE, INIT_LANE = "pyrunc", "init"


class Span:
    """Something that took time, and its parts."""

    __slots__ = ("args", "begin", "kind", "length", "name", "parts", "pid", "tid")

    def __init__(self, name: str, kind: str, begin: float, length: float) -> None:
        self.name, self.kind, self.begin, self.length = name, kind, begin, length
        self.pid = self.tid = 0
        self.args: dict[str, object] = {}
        self.parts: list[Span] = []

    @property
    def end(self) -> float:
        """Its end."""
        return self.begin + self.length

    def failed(self) -> bool:
        """Whether it caused an error."""
        return bool(self.args.get("error") or self.args.get("exit") or self.args.get("signal"))


class Command:
    """One command of a trace: its own span, and the lanes of the runtime and of init."""

    __slots__ = ("ended", "lanes", "whole")

    def __init__(self, whole: Span, ended: bool) -> None:
        self.whole = whole
        self.ended = ended  # False: killed, or still running when the file was read
        self.lanes: list[tuple[str, list[Span]]] = []


def load(path: str) -> list[Command]:
    """The commands in a file, in the order of their begin. Raises SysError, PyruncError."""
    try:
        data = fs.read_file(path, MOST_BYTES)
    except OSError as error:
        raise SysError(path, "read", error.errno or 0) from error
    try:
        spans, names = events(data)
    except WrongError as error:
        raise PyruncError(f"{show(path)}: {error}") from None
    found = commands(spans, names)
    if not found:
        raise PyruncError(f"{show(path)}: expected a trace of pyrunc, found no event with a duration")
    return found


class WrongError(Exception):
    """An unexpected item, and its position."""


def events(data: bytes) -> tuple[list[Span], dict[int, str]]:
    """The spans in no particular order, and the names of processes. Raises WrongError."""
    if data.startswith(b'{"resourceSpans"'):
        return otlp(data), {}
    document = parsed(data, "/")
    listed = document.get("traceEvents") if type(document) is dict else document
    if type(listed) is not list:
        raise WrongError("expected an object with traceEvents, or lines of OTLP")
    spans: list[Span] = []
    names: dict[int, str] = {}
    for index, event in enumerate(listed):
        where = f"/traceEvents/{index}"
        if type(event) is not dict:
            raise WrongError(f"{where}: expected an object, found {show(event)}")
        args = event.get("args", {})
        if type(args) is not dict:
            raise WrongError(f"{where}/args: expected an object, found {show(args)}")
        if event.get("ph") == "M" and event.get("name") == "process_name" and type(event.get("pid")) is int:
            names[event["pid"]] = str(args.get("name"))
        if event.get("ph") != "X":
            continue
        begin, length = number(event, "ts", where), number(event, "dur", where)
        span = Span(text(event, "name", where), str(event.get("cat", "")), begin, length)
        span.pid, span.tid, span.args = int(number(event, "pid", where)), int(number(event, "tid", where)), args
        spans.append(span)
    return spans, names


def parsed(data: bytes, where: str) -> Any:  # whoever reads a member checks its type
    """One JSON document.  Raises WrongError."""
    try:
        return interpreter.json_reader()(data)
    except ValueError as error:
        offset = error.args[0] if error.args and type(error.args[0]) is int else -1
        found = f", found something else at byte {offset}" if offset >= 0 else " with strings that are text"
        raise WrongError(f"{where}: expected JSON{found}") from None


def text(event: Fields, key: str, where: str) -> str:
    """A string of an event.  Raises WrongError."""
    value = event.get(key)
    if type(value) is not str:
        raise WrongError(f"{where}/{key}: expected a string, found {show(value)}")
    return value


def number(event: Fields, key: str, where: str) -> float:
    """A number of an event.  Raises WrongError."""
    value = event.get(key)
    if (type(value) is not int and type(value) is not float) or not 0 <= value < MOST_TIME:
        raise WrongError(f"{where}/{key}: expected a number from 0 to 1e17, found {show(value)}")
    return float(value)


# -- OpenTelemetry ---------------------------------------------------------------------------------


def otlp(data: bytes) -> list[Span]:
    """The spans of OTLP lines. Raises WrongError."""
    spans: list[Span] = []
    for row, line in enumerate(data.splitlines(), 1):
        where = f"line {row}"
        try:
            for resource in parsed(line, where)["resourceSpans"]:
                about = plain(resource["resource"]["attributes"])
                for scope in resource["scopeSpans"]:
                    spans += [otlp_span(span, int(about["process.pid"]), where) for span in scope["spans"]]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise WrongError(f"{where}: expected spans that pyrunc wrote") from None
    return spans


def otlp_span(span: Fields, pid: int, where: str) -> Span:
    """One span.  Raises WrongError, KeyError, TypeError, ValueError."""
    begin, end = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
    times = {"ts": begin / 1000, "dur": (end - begin) / 1000}
    args = plain(span["attributes"])
    kind = str(args.pop("pyrunc.kind"))
    made = Span(text(span, "name", where), kind, number(times, "ts", where), number(times, "dur", where))
    made.pid, made.tid, made.args = pid, pid if args.pop("pyrunc.lane") == "runtime" else -1, args
    return made


def plain(attributes: list[Fields]) -> Fields:
    """Convert KeyValues to a dictionary."""
    return {str(entry["key"]): plain_value(entry["value"]) for entry in attributes}


def plain_value(value: Fields) -> object:
    """An AnyValue."""
    if "intValue" in value:
        return int(value["intValue"])
    if "arrayValue" in value:
        return [str(item.get("stringValue")) for item in value["arrayValue"]["values"]]
    return value["boolValue"] if "boolValue" in value else str(value["stringValue"])


# -- nesting
# --------------------------------------------------------------------------------------------------


def commands(spans: list[Span], names: dict[int, str]) -> list[Command]:
    """Every command with its spans."""
    of_process: dict[int, list[Span]] = {}
    for span in spans:
        of_process.setdefault(span.pid, []).append(span)
    found: list[Command] = []
    for pid, own in of_process.items():
        # Several processes may have had the same pid, one after another.
        own.sort(key=lambda span: (span.begin, -span.length, span.kind != "command"))
        groups: list[tuple[Command, list[Span]]] = []
        for span in own:
            if span.kind == "command":
                groups.append((Command(span, True), []))
            elif not groups or span.begin > groups[-1][0].whole.end + _SLACK:
                # The command's own span comes last, at its end.
                name = names.get(pid, f"process {pid}").removeprefix("pyrunc ")
                whole = Span(name, "command", span.begin, max(one.end for one in own) - span.begin)
                whole.pid = pid
                groups.append((Command(whole, False), [span]))
            else:
                groups[-1][1].append(span)
        for command, members in groups:
            fill(command, members)
            found.append(command)
    return sorted(found, key=lambda command: command.whole.begin)


def fill(command: Command, members: list[Span]) -> None:
    """Sort the spans of a command into lanes."""
    for lane, runtime_s in ((RUNTIME_LANE, True), (INIT_LANE, False)):
        own = [span for span in members if (span.tid == span.pid) == runtime_s]
        if own:
            command.lanes.append((lane, nest(own)))


def nest(spans: list[Span]) -> list[Span]:
    """Nest spans by containment."""
    top: list[Span] = []
    open_: list[Span] = []
    for span in sorted(spans, key=lambda one: (one.begin, -one.length)):
        while open_ and open_[-1].end <= span.begin + (_SLACK if span.length > _SLACK else 0):
            open_.pop()
        (open_[-1].parts if open_ else top).append(span)
        if len(open_) < DEPTH:
            open_.append(span)
    return top


def as_json(found: list[Command]) -> dict[str, object]:
    """The commands in the format of `trace show --json`; times in microseconds, relative to the
    first command."""
    zero = found[0].whole.begin

    def row(span: Span) -> dict[str, object]:
        out: dict[str, object] = {"name": span.name, "kind": span.kind, "begin": round(span.begin - zero, 3)}
        out |= {"length": round(span.length, 3), "args": span.args}
        return out | {"parts": [row(part) for part in span.parts]}

    rows = []
    for command in found:
        lanes = [{"lane": lane, "parts": [row(span) for span in spans]} for lane, spans in command.lanes]
        whole = row(command.whole) | {"pid": command.whole.pid, "ended": command.ended, "lanes": lanes}
        del whole["parts"]
        rows.append(whole)
    return {"commands": rows}
