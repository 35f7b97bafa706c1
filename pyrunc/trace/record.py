"""Events with times: spans of the runtime, and init's steps from the times that it sent.

Times are nanoseconds since 1970 (CLOCK_REALTIME, the same clock as init's).
"""

from __future__ import annotations

import posix
import time
from _struct import Struct
from sys import byteorder

from pyrunc import handshake
from pyrunc.errors import PyruncError, brief
from pyrunc.plan import ops
from pyrunc.plan.encode import MAX_STEPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from pyrunc.plan import Plan
    from pyrunc.plan.faults import Late
    from pyrunc.spec.types import Hook

    class Sink(Protocol):
        """The destination of spans."""

        def write(self, recorder: Recorder, spans: Sequence[Span]) -> str:
            """Write completed spans; returns an error message, or ""."""

        def close(self) -> str:
            """Close the sink."""

        def traceparent(self, number: int) -> str:
            """TRACEPARENT for the children of a span."""


MOST = 20_000  # spans of the runtime; up to 16,000 hooks are possible
TEXT = 400  # characters of one value
WORDS = 16  # of a command line
_HEAD, _TIMES = Struct("=IIiI"), 48  # struct msg of plan.h: up to value, and the offset of detail
_MOST_TIMES = 26
RUNTIME, INIT = "runtime", "init"  # lanes
# The string of a step that describes it. Never the options of a mount or an environment, which may
# contain secrets.
_ABOUT = ("dest", "file", "path", "key", "name", "cwd", "profile", "label")
_SECTIONS = {"ENTER": 0, "SETUP": 1, "FINISH": 2, "RUN": 3}


class Span:
    """A span; ``kind`` is command, phase, step, cgroup, hook, dbus, wait or write."""

    __slots__ = ("args", "begin", "end", "kind", "lane", "name", "number", "parent", "step")

    def __init__(self, number: int, parent: int, name: str, kind: str, begin: int) -> None:
        self.number, self.parent = number, parent  # parent 0: none
        self.name, self.kind = name, kind
        self.begin = self.end = begin
        self.args: dict[str, object] = {}
        self.lane = RUNTIME
        self.step = -1  # number of the plan's step


class Recorder:
    """The trace of one command."""

    __slots__ = (
        "begins",
        "count",
        "dropped",
        "failed",
        "heard",
        "id",
        "init_pid",
        "open",
        "pid",
        "problem",
        "root",
        "sink",
        "spans",
        "steps",
        "told",
        "verb",
    )

    def __init__(self, verb: str, sink: Sink, began: int, worked: int) -> None:
        """``began``: when the verb was known; ``worked``: the CPU time until then, in
        nanoseconds."""
        self.verb, self.id, self.pid = verb, "", posix.getpid()
        self.sink = sink
        self.spans: list[Span] = []  # completed, but not yet written
        self.open: list[Span] = []
        self.count = self.dropped = 0
        self.begins: dict[int, int] = {}  # step -> its begin, according to init
        self.heard = 0  # time of init's last message
        self.init_pid = 0
        self.steps: Steps | None = None
        self.failed = -1  # the step at which init failed
        self.told = False  # the steps have become spans
        self.problem = ""
        # The age of a process is known only to 10 ms, its CPU time exactly.
        self.root = self.enter(verb, "command", began - worked)
        self.leave(self.enter("start up", "phase", began - worked), began)
        self.enter("open the trace", "phase", began)

    def enter(self, name: str, kind: str, begin: int = 0) -> Span:
        """Begin a span, inside the one that began last."""
        self.count += 1
        parent = self.open[-1].number if self.open else 0
        span = Span(self.count, parent, name, kind, begin or time.time_ns())
        self.open.append(span)
        return span

    def ready(self) -> None:
        """The trace is open, and the functions are replaced."""
        self.leave(self.open[-1])

    def leave(self, span: Span, end: int = 0) -> None:
        """End a span, and all spans inside it."""
        while self.open:
            last = self.open.pop()
            last.end = end or time.time_ns()
            self.keep(last)
            if last is span:
                break

    def keep(self, span: Span) -> None:
        """Store a completed span."""
        span.end = max(span.end, span.begin)  # the clock may have been set meanwhile
        if self.count - self.dropped <= MOST or span is self.root:
            self.spans.append(span)
        else:
            self.dropped += 1

    # -- init --------------------------------------------------------------------------------------

    def times(self, data: bytes) -> None:
        """A STAMPS record. Raises PyruncError if init would not send it."""
        _, step, _, count = _HEAD.unpack_from(data)
        if not 0 < count <= _MOST_TIMES or step > MAX_STEPS:
            raise PyruncError("unexpected message STAMPS from init: not a list of times")
        for number in range(count):
            at = _TIMES + 8 * number
            # A process in the container may have written it.
            self.begins[step + number] = min(int.from_bytes(data[at : at + 8], byteorder), time.time_ns())

    def hear(self, record: handshake.Record | None) -> None:
        """Record a message from init, or its end."""
        self.heard = time.time_ns()
        if record is not None and record.type == handshake.FAIL:
            self.failed = record.step

    def keep_steps(self) -> None:
        """Turn the steps into spans, once. Steps that a filter kept init from timing have no
        duration."""
        if self.told or self.steps is None or not self.begins:
            return
        self.told = True
        done = self.failed if self.failed >= 0 else max(self.begins)
        if self.failed < 0 and "error" not in self.root.args:
            done = MAX_STEPS
        section: Span | None = None
        before = min(self.begins.values())
        for row in self.steps.rows:
            if row.index > done:
                break
            section, before = self.keep_step(row, section, before)

    def keep_step(self, row: Step, section: Span | None, before: int) -> tuple[Span, int]:
        """One step, inside its section of the plan; also returns its end."""
        name, place = ops.OPS[row.op][0], ops.OPS[row.op][1]
        begin = self.begins.get(row.index, 0)
        end = self.begins.get(row.index + 1, 0)
        if begin and not end and row.index == (self.failed if self.failed >= 0 else self.steps_end()):
            end = self.heard
        if section is None or (name != "HOOK" and _SECTIONS[place] > _SECTIONS[section.name]):
            place = "RUN" if name == "HOOK" and self.verb == "start" else place
            section = self.step_span(place, "phase", begin or before, self.root.number)
        span = self.step_span(f"{name} {row.about}" if row.about else name, "step", begin or before, section.number)
        span.step, span.end = row.index, max(end, span.begin)
        span.args = {"pointer": row.origin, "step": row.index + 1, **row.args}
        if not begin or not end:
            span.args["untimed"] = True
        elif name == "HOOK" and row.index != self.failed:
            span.args["exit"] = 0
        section.end = max(section.end, span.end)
        return section, span.end

    def steps_end(self) -> int:
        """The last step that this command observes."""
        rows = self.steps.rows if self.steps is not None else []
        return rows[-1].index if rows else -1

    def step_span(self, name: str, kind: str, begin: int, parent: int) -> Span:
        """A span in init's lane."""
        self.count += 1
        span = Span(self.count, parent, brief(name, TEXT), kind, begin)
        span.lane = INIT
        self.spans.append(span)
        return span

    # -- output ------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write completed spans, because the next step may take long."""
        self.keep_steps()
        spans, self.spans = self.spans, []
        if spans:
            self.problem = self.sink.write(self, spans) or self.problem

    def finish(self) -> str:
        """End the command; returns an error about the trace, or ""."""
        if self.dropped:
            self.root.args["dropped"] = self.dropped
        self.leave(self.root)
        self.flush()
        return self.sink.close() or self.problem


class Step:
    """A step of a plan in the form of a trace."""

    __slots__ = ("about", "args", "index", "op", "origin")

    def __init__(self, index: int, origin: str, op: int, strings: Sequence[object]) -> None:
        self.index, self.origin, self.op = index, origin, op
        named = {arg[0]: strings[arg[4]] for arg in ops.OPS[op][2] if 0 <= arg[4] < len(strings)}
        self.about = next((str(named[name]) for name in _ABOUT if type(named.get(name)) is str), "")
        self.args: dict[str, object] = {}
        if op == ops.OP_HOOK:
            given = named.get("args")
            self.args["argv"] = words(given) if type(given) is list else [brief(str(given), TEXT)]
        elif op == ops.OP_EXECVE:
            given = named.get("args")
            self.about = str(given[0]) if type(given) is list and given else str(given)


class Steps:
    """The steps that one command observes."""

    __slots__ = ("rows",)

    def __init__(self, rows: list[Step]) -> None:
        self.rows = rows


def of_plan(plan: Plan) -> Steps:
    """The whole plan; up to the wait for `start` unless this command continues there."""
    rows: list[Step] = []
    for index, (op, policy, _, strings) in enumerate(plan.steps):
        rows.append(Step(index, plan.origins[index], op, strings))
        if op == ops.OP_WAIT_START and not policy & ops.P_WAIT_START_SOCKET:
            break
    return Steps(rows)


def of_state(late: Late, hooks: list[Hook]) -> Steps:
    """The steps that `start` releases, from `Plan.late_origins` and the hooks of config.json."""
    codes = {row[0]: op for op, row in ops.OPS.items()}
    rows: list[Step] = []
    for index, origin, name, strings in late:
        if name == "WAIT_START" or name not in codes:
            continue
        step = Step(index, str(origin), codes[name], strings)
        if name == "HOOK" and len(rows) < len(hooks):
            step.args["argv"] = words(hooks[len(rows)].get("args") or [hooks[len(rows)]["path"]])
        rows.append(step)
    return Steps(rows)


def words(argv: Sequence[object]) -> list[str]:
    """A command line of bounded length."""
    out = [brief(str(word), TEXT) for word in argv[:WORDS]]
    return [*out, f"... {len(argv) - WORDS} more"] if len(argv) > WORDS else out
