"""OpenTelemetry: OTLP JSON lines in the format of its file exporter, in TRACEPARENT's trace."""

from __future__ import annotations

import posix

from pyrunc import VERSION, fs
from pyrunc.jsontext import dumps
from pyrunc.trace.chrome import clean
from pyrunc.trace.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.trace.record import Recorder, Span

_INTERNAL, _ERROR = 1, 2  # SPAN_KIND_INTERNAL, STATUS_CODE_ERROR
_STEP = 1 << 63  # the upper half of the span ids is for steps, whose hooks need an id before the steps end
_HEX = frozenset("0123456789abcdef")


class Otlp(Target):
    """One ExportTraceServiceRequest per line."""

    head = b'{"resourceSpans":'

    def __init__(self, path: str, where: str) -> None:
        super().__init__(path, where)
        self.trace, self.parent = parse(fs.getenv("TRACEPARENT"))
        if not self.trace:
            self.trace = posix.urandom(16).hex()
        self.base = int.from_bytes(posix.urandom(8), "big") | 1  # never 0, the invalid id

    def span_id(self, number: int) -> str:
        """The span id for a number: -1 - n for step n, 0 for the command."""
        if number < 0:
            return f"{(self.base ^ (-1 - number)) | _STEP:016x}"
        return f"{(self.base + 2 * max(number, 1)) & ~_STEP & (1 << 64) - 1:016x}"

    def traceparent(self, number: int) -> str:
        """W3C Trace Context, level 1."""
        return f"00-{self.trace}-{self.span_id(number)}-01"

    def render(self, recorder: Recorder, spans: Sequence[Span]) -> bytes:
        """One line. ``head`` is the part of it that `write` prepends to the first line."""
        resource: dict[str, object] = {
            "service.name": "pyrunc",
            "service.version": VERSION,
            "process.pid": recorder.pid,
        }
        if recorder.id:
            resource["container.id"] = recorder.id
        scope = {"scope": {"name": "pyrunc"}, "spans": [self.span(span) for span in spans]}
        row = {"resource": {"attributes": attributes(resource)}, "scopeSpans": [scope]}
        return (dumps([row]) + "}\n").encode("ascii")

    between = head

    def span(self, span: Span) -> dict[str, object]:
        """One span."""
        own = -1 - span.step if span.step >= 0 else span.number
        parent = self.span_id(span.parent) if span.parent else self.parent
        out: dict[str, object] = {"traceId": self.trace, "spanId": self.span_id(own)}
        if parent:
            out["parentSpanId"] = parent
        out |= {"name": clean(span.name), "kind": _INTERNAL}
        out |= {"startTimeUnixNano": str(span.begin), "endTimeUnixNano": str(span.end)}
        out["attributes"] = attributes({"pyrunc.kind": span.kind, "pyrunc.lane": span.lane, **span.args})
        if "error" in span.args:
            out["status"] = {"code": _ERROR, "message": clean(span.args["error"])}
        return out


def attributes(found: dict[str, object]) -> list[dict[str, object]]:
    """A list of OTLP's KeyValue."""
    return [{"key": key, "value": any_value(clean(value))} for key, value in found.items()]


def any_value(value: object) -> dict[str, object]:
    """OTLP's AnyValue; 64-bit numbers are strings in JSON."""
    if type(value) is bool:
        return {"boolValue": value}
    if type(value) is int:
        return {"intValue": str(value)}
    if type(value) is list:
        return {"arrayValue": {"values": [any_value(item) for item in value]}}
    return {"stringValue": str(value)}


def parse(text: str) -> tuple[str, str]:
    """The trace and the parent in TRACEPARENT; ("", "") if it is invalid, as Trace Context
    requires."""
    parts = text.split("-")
    if [len(part) for part in parts[:4]] != [2, 32, 16, 2] or (parts[0] == "00" and len(parts) > 4):
        return "", ""
    version, trace, parent, _ = parts[:4]
    if version == "ff" or not _HEX.issuperset("".join(parts[:4])) or not trace.strip("0") or not parent.strip("0"):
        return "", ""
    return trace, parent
