"""Chrome's trace event format, which Perfetto reads: one complete event per span, in
microseconds."""

from __future__ import annotations

from pyrunc import VERSION
from pyrunc.jsontext import dumps, quote
from pyrunc.trace.record import INIT
from pyrunc.trace.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.trace.record import Recorder, Span


class Chrome(Target):
    """The object format: ``traceEvents``, closed after every write."""

    head, between, tail = b'{"traceEvents":[\n', b",\n", b"\n]}\n"

    def __init__(self, path: str, where: str) -> None:
        super().__init__(path, where)
        self.named: set[int] = set()  # tracks whose name has been written

    def render(self, recorder: Recorder, spans: Sequence[Span]) -> bytes:
        """One event per line, the names of new tracks first."""
        lines: list[str] = []
        if recorder.pid not in self.named:
            lines.append(self.name(recorder, "process_name", f"pyrunc {recorder.root.name}", recorder.pid))
            lines.append(self.name(recorder, "thread_name", f"pyrunc {VERSION}", recorder.pid))
        # Two consecutive processes share one track: enter has exited before init has a step of its
        # own.
        init = recorder.init_pid or 1
        if init not in self.named and any(span.lane == INIT for span in spans):
            lines.append(self.name(recorder, "thread_name", "init", init))
        for span in spans:
            track = init if span.lane == INIT else recorder.pid
            length = span.end - span.begin
            args = {key: clean(value) for key, value in span.args.items()}
            lines.append(
                f'{{"name":{quote(str(clean(span.name)))},"cat":"{span.kind}","ph":"X","ts":{micro(span.begin)}'
                f',"dur":{micro(length)},"pid":{recorder.pid},"tid":{track},"args":{dumps(args)}}}'
            )
        return ",\n".join(lines).encode("ascii")

    def name(self, recorder: Recorder, what: str, name: str, track: int) -> str:
        """A metadata event."""
        self.named.add(track)
        label = quote(str(clean(name)))
        return f'{{"name":"{what}","ph":"M","pid":{recorder.pid},"tid":{track},"args":{{"name":{label}}}}}'


def micro(ns: int) -> str:
    """Nanoseconds as microseconds."""
    return f"{ns // 1000}.{ns % 1000:03d}"


def clean(value: object) -> object:
    """Bytes of a path that are not UTF-8 are lone surrogates, which other JSON readers reject."""
    if type(value) is str:
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if type(value) is list:
        return [clean(item) for item in value]
    return value
