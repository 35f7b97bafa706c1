"""What recording a trace does for each kind of input: spans, steps, the table of what is timed, and the
two formats. golden/trace_steps.txt has the results (PYRUNC_UPDATE_GOLDEN=1 rewrites them; then review
the diff).
"""

from __future__ import annotations

import errno
import itertools
import json
import posix
import struct
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from json_type import Json
from pyrunc import handshake, state, trace
from pyrunc.container import lifecycle
from pyrunc.errors import PyruncError
from pyrunc.plan import Plan, ops
from pyrunc.plan.encode import MAX_STEPS
from pyrunc.trace import chrome, otlp, points, record, target
from spies import Answers
from test_session_steps import Row
from test_steps import Tables, World, calls_of, failed, rows
from test_trace import stamps
from test_trace_shown import outcome


def kept(case: str, results: Iterable[object]) -> None:
    """Compare with the transcript."""
    spies.compare("trace_steps", case, results)


# -- recording -------------------------------------------------------------------------------------


class Clock:
    """Each reading takes a nanosecond."""

    def __init__(self) -> None:
        self.now = 1000

    def __call__(self) -> int:
        self.now += 1
        return self.now


class Sink:
    """A sink that keeps what it gets."""

    def __init__(self, parent: str = "") -> None:
        self.spans: list[Any] = []
        self.parent, self.problems = parent, ["", "first", ""]
        self.closing = ""

    def write(self, recorder: Any, spans: Any) -> str:
        self.spans.append([one.name for one in spans])
        return self.problems.pop(0) if self.problems else ""

    def close(self) -> str:
        return self.closing

    def traceparent(self, number: int) -> str:
        return f"{self.parent}{number}" if self.parent else ""


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times, process ids and random numbers are the same in every run."""
    monkeypatch.setattr(time, "time_ns", Clock())
    monkeypatch.setattr(posix, "getpid", lambda: 77)
    monkeypatch.setattr(posix, "urandom", lambda size: bytes(range(1, size + 1)))
    for module in (chrome, otlp):
        monkeypatch.setattr(module, "VERSION", "1.2.3")


def recorder(verb: str = "create", sink: Any = None) -> record.Recorder:
    """A recorder that is ready."""
    made = record.Recorder(verb, sink or Sink(), 900, 100)
    made.ready()
    return made


def shown_record(one: record.Span) -> object:
    """All of a span."""
    return [one.number, one.parent, one.name, one.kind, one.begin, one.end, one.lane, one.step, one.args]


def shown_recorder(made: record.Recorder) -> list[object]:
    """All of a recorder."""
    names = ("verb", "id", "pid", "count", "dropped", "begins", "heard", "init_pid", "failed", "told", "problem")
    spans = [shown_record(one) for one in made.spans]
    return [{name: getattr(made, name) for name in names}, *spans, [one.name for one in made.open]]


HOOK: Json = {"args": ["h", "one"], "env": ["TRACEPARENT=old", "A=1", "XTRACEPARENT=x"], "path": "/bin/h"}


def plan_of(*, socket: bool = False) -> Plan:
    """Steps of each section, with hooks on both sides of the wait."""
    made = Plan()
    made.oom_score("/process/oomScoreAdj", value=5)
    made.hostname("/hostname", name="host")
    made.hook("/hooks/createContainer/0", **HOOK)
    made.mask_path("/linux/maskedPaths/0", path="/proc/kcore")
    made.umask("/process/user/umask", mask=0o22)
    made.wait_start("(default)", start_fd=0, error_fd=1, policy=ops.P_WAIT_START_SOCKET if socket else 0)
    made.hook("/hooks/startContainer/0", **HOOK | {"args": ["h", *(f"w{n}" for n in range(20))]})
    made.execve("/process/args", args=["sh", "-c", "secret"], env=["A=secret"])
    return made


STEPS: dict[str, Any] = {
    "all timed": {"times": {n: 100 + 10 * n for n in range(9)}},
    "some": {"times": {1: 110, 2: 120, 5: 150}},
    "the first": {"times": {0: 100}},
    "failed": {"times": {0: 100, 1: 110, 2: 120}, "failed": 2, "error": "e"},
    "failed before the error is known": {"times": {0: 100, 1: 110, 2: 120, 3: 130}, "failed": 2},
    "failed at the first before the error is known": {"times": {0: 100, 1: 110}, "failed": 0},
    "failed at the first": {"times": {0: 100}, "failed": 0, "error": "e"},
    "failed behind the times": {"times": {0: 100, 1: 110}, "failed": 4, "error": "e"},
    "an error that init did not send": {"times": {0: 100, 1: 110, 2: 120}, "error": "e"},
    "backwards": {"times": {0: 500, 1: 400, 2: 300, 3: 600}},
    "none": {"times": {}},
    "told before": {"times": {0: 100}, "told": True},
}


@pytest.mark.parametrize("verb", ["create", "run", "start"])
@pytest.mark.parametrize("name", STEPS)
def test_spans_of_steps(name: str, verb: str) -> None:
    given = STEPS[name]
    made = recorder(verb)
    plan = plan_of()
    if verb == "start":
        late = [[5, "w", "WAIT_START", []], [6, "/hooks/startContainer/0", "HOOK", ["/bin/h", "h"]],
                [6, "?", "UNKNOWN", []], [7, "/process/args", "EXECVE", ["/bin/sh"]]]  # fmt: skip
        made.steps = record.of_state(late, [HOOK])
    elif verb == "run":
        plan.steps = [step for step in plan.steps if step[0] != ops.OP_WAIT_START]
        made.steps = record.of_plan(plan)
    else:
        made.steps = record.of_plan(plan)
    first = 6 if verb == "start" else 0
    made.begins = {first + number: at for number, at in given["times"].items()}
    made.failed = given["failed"] + first if "failed" in given else -1
    made.heard = 777
    made.told = given.get("told", False)
    if "error" in given:
        made.root.args["error"] = given["error"]
    rows_ = [[r.index, r.origin, r.op, r.about, r.args] for r in made.steps.rows]
    end = made.steps_end()
    made.keep_steps()
    kept(f"steps of {verb}, {name}", [rows_, end, *shown_recorder(made)])


def test_recorders() -> None:
    lines: list[object] = []
    made = record.Recorder("kill", Sink(), 900, 100)
    lines += shown_recorder(made)
    made.ready()
    lines += shown_recorder(made)
    outer = made.enter("outer", "phase")
    inner = made.enter("inner", "hook", 5)
    made.leave(outer, 3)
    lines += [*shown_recorder(made), shown_record(inner), made.steps_end()]
    made.leave(made.enter("late", "wait"))
    made.hear(None)
    lines.append([made.heard, made.failed])
    for kind in (handshake.PID, handshake.FAIL):
        made.hear(handshake.Record(struct.pack("=IIiIHHI24s208s", kind, 3, 1, 0, 0, 0, 0, b"", b"")))
        lines.append([made.heard, made.failed])
    made.flush()
    made.flush()
    made.enter("open", "phase")
    made.flush()
    lines += [*shown_recorder(made), made.sink.spans]  # type: ignore[attr-defined]
    lines += [made.finish(), made.sink.spans, *shown_recorder(made)]  # type: ignore[attr-defined]
    closing = Sink()
    closing.closing = "not closed"
    lines.append(recorder(sink=closing).finish())
    kept("recorders", lines)


@pytest.mark.parametrize("most", [1, 3, 4, 5, 9])
def test_dropped_spans(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MOST", most)
    made = recorder()
    for number in range(6):
        made.leave(made.enter(f"s{number}", "phase"))
        if number == 2:
            made.flush()
    kept(f"at most {most} spans", [made.finish(), made.sink.spans, *shown_recorder(made)])  # type: ignore[attr-defined]


def test_steps_and_words() -> None:
    lines: list[object] = []
    strings: Any
    hooks: Any
    for op, row in sorted(ops.OPS.items()):
        count = 1 + max([arg[4] for arg in row[2]], default=-1)
        for strings in (
            [f"s{n}" for n in range(count)],
            [["a", "b"]] * count,
            [],
            [5] * count,
            [""] * count,
            [[]] * count,
        ):
            step = record.Step(op, "/o", op, strings)
            lines.append([row[0], step.index, step.origin, step.op, step.about, step.args])
    for socket in (False, True):
        lines.append([[r.index, r.origin, r.op, r.about, r.args] for r in record.of_plan(plan_of(socket=socket)).rows])
    for name in ("UMASK", "HOOK", "EXECVE", "HOSTNAME"):
        for verb in ("start", "run"):
            made = recorder(verb)
            made.begins, made.steps = {9: 100}, record.of_state([[9, "/o", name, ["a"]]], [])
            made.flush()
            lines += [made.sink.spans, *shown_recorder(made)]  # type: ignore[attr-defined]
    late: Any = [[3, 5, "HOOK", []], [4, "x", "WAIT_START", []], [5, "y", "NONE", []], [6, "z", "HOOK", ["p", "q"]],
                 [7, "/process/args", "EXECVE", [["sh"]]]]  # fmt: skip
    for hooks in (
        [],
        [HOOK],
        [{"path": "/p"}],
        [{"path": "/p", "args": []}],
        [HOOK, {"path": "/q", "args": ["q"]}, HOOK],
    ):
        lines.append([[r.index, r.origin, r.op, r.about, r.args] for r in record.of_state(late, hooks).rows])
    lines += [record.words([f"w{n}" for n in range(count)]) for count in (0, 1, 15, 16, 17, 18)]
    lines.append(record.words(["x" * 500, 5, None]))
    kept("steps and words", lines)


def test_lists_of_times() -> None:
    lines: list[object] = []
    for step, count in itertools.product((0, 3, MAX_STEPS, MAX_STEPS + 1), (0, 1, 2, 26, 27)):
        made = recorder()
        data = stamps(step, *(10 + n for n in range(min(count, 26))))
        data = struct.pack("=IIiI", handshake.STAMPS, step, 0, count) + data[16:]
        lines.append([step, count, outcome(made.times, data), made.begins])
    kept("lists of times", lines)


# -- what is timed ---------------------------------------------------------------------------------


def cleared() -> list[object]:
    """What was replaced, and everything put back."""
    found: list[object] = [[str(getattr(owner, "__name__", owner)), name] for owner, name, _ in points._replaced]
    points.remove()
    return found


def test_what_is_replaced() -> None:
    lines: list[object] = [list(row) for row in points.POINTS]
    lines += sorted(f"{name}: {call.__name__}" for name, call in points.DETAILS.items())
    try:
        points.install(recorder())
        lines.append([str(handshake.Record), lifecycle.RELEASE])
    finally:
        lines += cleared()
    lines.append([str(handshake.Record), lifecycle.RELEASE])
    lines += [outcome(points.set_value, state.Store, name, 5) for name in ("absent", "__class__")]
    lines.append(cleared())
    kept("what is replaced", lines)


class Called:
    """A call with a result or an error."""

    def __init__(self, result: object) -> None:
        self.result, self.given = result, []  # type: ignore[var-annotated]

    def __call__(self, *args: object, **more: object) -> object:
        self.given.append([args, more])
        found = self.result.pop(0) if type(self.result) is list else self.result
        if isinstance(found, BaseException):
            raise found
        return found


def test_a_timed_call() -> None:
    lines: list[object] = []
    for title, result, details in (
        ("t=", 5, None), ("t", PyruncError("p" * 500), None), ("t", failed(errno.EIO), None),
        ("t", ValueError("v"), None),
        ("t=", 5, lambda span_, args: span_.args.update(given=args)),
    ):  # fmt: skip
        made, call = recorder(), Called(result)
        try:
            lines.append(points.timed(made, call, "kind", title, details)(1, two=2))
        except (PyruncError, OSError, ValueError) as error:
            lines.append(type(error).__name__)
        lines += [call.given, *shown_recorder(made)]
    kept("a timed call", lines)


def program(pointer: str, **more: Any) -> Any:
    """A hook."""
    return SimpleNamespace(path="/bin/" + "p" * 100, args=["a"] * 20, pointer=pointer, **more)


def test_details_of_every_kind() -> None:
    cases: list[tuple[str, tuple[object, ...]]] = [
        *(("write_file", (path, data)) for path in ("/a/cgroup.procs", "/a/cpu.max", "/a/pids", "pids.max",
                                                    "/" + "l" * 500, "/x/memory.", "/cpu.d/x")
          for data in (b" 1\n", b"\xff", b"v" * 500)),
        *((name, (None, path)) for name in points.DETAILS if name.startswith(("Cgroupfs", "Systemd"))
          for path in ("/c", "/" + "c" * 500)),
        *(("_run_one", (program(pointer),)) for pointer in ("/hooks/prestart/0", "/seccomp", "")),
        ("run_hooks", ("prestart",)), ("Manager.call", (None, "StopUnit")), ("Manager.job", (None, "")),
    ]  # fmt: skip
    lines = []
    for name, args in cases:
        one = record.Span(1, 0, "job", "write", 5)
        points.DETAILS[name](one, args)
        lines.append([name, one.name, one.kind, one.args])
    kept("details", lines)


def test_hooks_in_a_trace() -> None:
    lines: list[object] = []
    for status in (0, 9, 127, 128, 256, 0x7F00, 0xFF00, 139):
        made = recorder()
        made.enter("hook", "hook")
        lines.append([points.hook_ended(made, Called(status))(program("/hooks/x"), 5), made.open[-1].args])
    for parent, pointer in itertools.product(("", "p"), ("/hooks/prestart/0", "/x/hooks/", "")):
        made = recorder(sink=Sink(parent))
        made.enter("hook", "hook")
        found = [b"TRACEPARENT=old", b"A=1", b"XTRACEPARENT=x"]
        lines.append(points.hook_environment(made, Called([found]))(program(pointer)))
    for parent, socket in itertools.product(("", "p"), (False, True)):
        made = recorder(sink=Sink(parent))
        plan = plan_of(socket=socket)
        made_plan = points.planned(made, Called([plan]))(1, two=2)
        assert made_plan is plan and made.steps is not None
        lines += [plan.flags, len(made.steps.rows), *(list(step) for step in plan.steps)]
    lines += [points.words_of(value) for value in (["a"], "a", None, ("a",))]
    kept("hooks", lines)


def message(kind: int, step: int = 0) -> handshake.Record:
    """A record of init."""
    count = 1 if kind == handshake.STAMPS else 0
    return handshake.Record(struct.pack("=IIiIHHI24s208s", kind, step, 0, count, 0, 0, 0, b"", b""))


def test_messages_of_init() -> None:
    lines: list[object] = []
    answers: Any
    for steps, answers, pids in itertools.product(
        (None, 0, 3), ([handshake.PID], [handshake.STAMPS, handshake.FAIL], [None], [handshake.STAMPS, None]),
        ((5, 6), (0, 6), (0, 0)),
    ):  # fmt: skip
        made, call = recorder(), Called([message(kind) if kind is not None else None for kind in answers])
        made.init_pid = 4
        made.steps = None if steps is None else record.Steps([])
        session = SimpleNamespace(plan=SimpleNamespace(steps=[0] * (steps or 0)), init_pid=pids[0], enter_pid=pids[1])
        found = outcome(points.received(made, call), session, 9, None)
        lines.append([found if isinstance(found, str) else getattr(found, "type", None), len(call.given), made.init_pid,
                      [shown_record(one) for one in made.spans], made.failed, made.heard])  # fmt: skip
    for steps in (0, 3):
        made, call = recorder(), Called(message(handshake.STAMPS))
        made.steps = record.Steps([])
        session = SimpleNamespace(plan=SimpleNamespace(steps=[0] * steps), init_pid=1, enter_pid=0)
        lines.append([outcome(points.received(made, call), session, 9, None), len(call.given), call.given[0][0][1:]])
    for answers in ([b""], [handshake.STAMPS, handshake.FAIL], [handshake.STAMPS, b""], [handshake.STAMPS] * 70):
        made = recorder()
        made.steps = record.Steps([None] * 2) if len(answers) < 9 else None  # type: ignore[list-item]
        data = [one if isinstance(one, bytes) else raw(one) for one in answers]
        call = Called(data)
        lines.append([outcome(points.read_late(made, call), 5), len(call.given), made.failed, made.heard,
                      [shown_record(one) for one in made.spans], points.ops_of(made)])  # fmt: skip
    made = recorder()
    kind = points.watching(made, handshake.Record)
    for data_ in (stamps(3, 10, 11), raw(handshake.FAIL, 6), raw(handshake.PID, 7)):
        lines.append([kind(data_).type, made.begins, made.failed, made.heard])
    kept("messages of init", lines)


def raw(kind: int, step: int = 0) -> bytes:
    """The bytes of a record."""
    return struct.pack("=IIiIHHI24s208s", kind, step, 0, 1 if kind == handshake.STAMPS else 0, 0, 0, 0, b"", b"")


def test_start_and_the_rest() -> None:
    lines: list[object] = []
    late = [[6, "/hooks/startContainer/0", "HOOK", ["/bin/h", "h"]], [7, "/process/args", "EXECVE", ["/bin/sh"]]]
    for text, data in itertools.product(
        (b"{}", b"[]", b"x", failed(errno.ENOENT), json.dumps({"hooks": {"startContainer": [HOOK]}}).encode()),
        ({"pid": 41}, {"pid": 41, "late": late}),
    ):
        made, call = recorder(), Called([b"data"])
        container: Any = SimpleNamespace(data=data, read_bytes=Called([text]))
        found = points.released(made, call)(container, 1)
        assert made.steps is not None
        lines.append([found, made.init_pid, container.read_bytes.given, call.given[0][0][1:],
                      [[r.index, r.origin, r.about, r.args] for r in made.steps.rows]])  # fmt: skip
    made, call = recorder(), Called([5])
    lines.append([points.flushed(made, call)(1, 2), call.given, made.sink.spans])  # type: ignore[attr-defined]
    for args in ([], ["c1"], ["c" * 200, "x"]):
        made = recorder()
        module: Any = SimpleNamespace(main=Called([7]))
        main = module.main
        points.on_verb(made, module)
        lines.append([module.main("context", "values", args), main.given, made.id, made.root.name, made.root.args])
        points.remove()
        assert module.main is main
    kept("start and the rest", lines)


# -- files -----------------------------------------------------------------------------------------


def test_texts_of_formats() -> None:
    lines: list[object] = [
        otlp.parse(text)
        for text in (
            f"{version}-{trace}-{parent}-{flags}{more}"
            for version, trace, parent, flags, more in itertools.product(
                ("00", "01", "ff", "0"), ("a" * 32, "0" * 32, "A" * 32, "a" * 31), ("b" * 16, "0" * 16, "b" * 17),
                ("01", "g1", "1"), ("", "-x"))
        )
    ]  # fmt: skip
    values: list[object] = [True, False, 0, 1 << 60, "a", "\udcff", "é", ["a", "\udcff", 1, True], [], None, 1.5]
    lines += [otlp.any_value(value) for value in values] + [chrome.clean(value) for value in values]
    lines += [chrome.micro(ns) for ns in (0, 1, 999, 1000, 1001, 1234567)]
    kept("texts of formats", lines)


@pytest.mark.parametrize("kind", ["chrome", "otlp"])
def test_what_is_written(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    lines: list[object] = []
    for parent, id_, init in itertools.product(("", f"00-{'a' * 32}-{'b' * 16}-01"), ("", "c1"), (0, 99)):
        monkeypatch.setenv("TRACEPARENT", parent)
        made: Any = {"chrome": chrome.Chrome, "otlp": otlp.Otlp}[kind](str(tmp_path / "trace"), "--trace")
        one = recorder(sink=made)
        one.id, one.init_pid, one.steps = id_, init, record.of_plan(plan_of())
        one.spans[-1].args = {"error": "é\udcff", "l": ["x", 5], "b": True, "n": 5}
        for again in range(3):
            if again:
                one.begins = {0: 100, 1: 1234567, 2: 1300000}
            one.keep_steps()
            lines += made.render(one, one.spans).decode().split("\n")
        lines += [made.traceparent(number) for number in (-3, -1, 0, 1, 2)]
        made.close()
        lines += [made.head, made.between, made.tail]
    kept(f"what {kind} writes", lines)


FILES: dict[str, Any] = {
    "posix.open": Answers([50, 51]), "posix.fstat": SimpleNamespace(st_mode=0o100600, st_size=100), "own_number": -1,
    "posix.pread": Answers([b"HEAD", b"TL"]), "posix.pwrite": Answers([3, 99]), "flock": None, "_errors": None,
    "time.monotonic": Answers([0.0, 1.0, 9.0]), "open": (52, True), "ours": True, "ours_now": True,
}  # fmt: skip


def file_of(w: World, own: str) -> Any:
    """A target."""
    texts = {"head": b"HEAD", "between": b",", "tail": w.extra.get("tail", b"TL")}
    kind = type("Target", (target.Target,), texts)
    return w.made(kind, own, fd=52, regular=w.extra.get("regular", True), path="/trace", where="--trace",
                  begun=w.extra.get("begun", False), broken=w.extra.get("broken", False))  # fmt: skip


def after(one: Any, result: Any) -> Any:
    """A result, and what the call has changed."""
    return result, one.begun, one.broken


def opened(w: World) -> Any:
    """A target that is opened."""
    own = {
        name: (lambda self, name=name: spies.noting(name, w.notes, w.answers)())
        for name in ("open", "ours_now", "close")
    }
    one: Any = type("Target", (target.Target,), own)("/trace", "--trace")
    return one.fd, one.regular, one.begun, one.broken, one.where, one.path


STAT = {mode: SimpleNamespace(st_mode=mode, st_size=100) for mode in (0o100600, 0o010600, 0o020600, 0o120777)}
TARGET: dict[str, Row] = {
    "open_target": (lambda w: target.open_target(w.extra["spec"], "--trace"), [
        {"WITH": {"spec": spec}} for spec in ("/a", "otlp:/a", "otlp", "")
    ]),
    "init": (opened, [
        {}, {"open": (52, False)}, {"ours_now": False}, {"open": failed(errno.EACCES)}, {"open": OverflowError("big")},
        {"ours_now": failed(errno.EIO)}, {"open": KeyboardInterrupt()}, {"open": OSError("none")},
    ]),
    "open": (lambda w: file_of(w, "open").open(), [
        {}, {"own_number": 0}, {"own_number": 5}, {"own_number": 5, "posix.fstat": failed(errno.EBADF)},
        *({"posix.fstat": found} for found in STAT.values()), {"posix.fstat": failed(errno.EIO)},
        {"posix.open": Answers([50, failed(errno.EACCES)])}, {"posix.open": failed(errno.ENXIO)},
    ]),
    "ours_now": (lambda w: file_of(w, "ours_now").ours_now(), [{}, {"ours": False}, {"ours": failed(errno.EIO)},
        {"lock": failed(errno.EAGAIN)}]),
    "ours": (lambda w: file_of(w, "ours").ours(w.extra["size"]), [
        *({"WITH": {"size": size}} for size in (0, 1, 5, 6, 7)),
        {"WITH": {"size": 9}, "posix.pread": Answers([b"HEAX", b"TL"])},
        {"WITH": {"size": 9}, "posix.pread": Answers([b"HEAD", b"TX"])},
        *({"WITH": {"size": size, "tail": b""}, "posix.pread": Answers([b"HEAD", end])}
          for size, end in ((4, b""), (9, b"\n"), (9, b"x"))),
    ]),
    "write": (lambda w: after(one := file_of(w, "write"), one.write("recorder", ["span"])), [
        {"WITH": {"regular": regular, "begun": begun, "broken": broken}, "render": b"DATA"}
        for regular in (True, False) for begun in (True, False) for broken in (True, False)
    ] + [{"render": b"DATA", "add": failed(errno.ENOSPC)}, {"render": b"DATA", "add": OSError("none")},
         {"WITH": {"regular": False}, "render": b"DATA", "fs.write_all": failed(errno.EPIPE)}]),
    "add": (lambda w: file_of(w, "add").add(b"DATA"), [
        {}, {"posix.fstat": SimpleNamespace(st_size=0)}, {"ours": False}, {"lock": failed(errno.EAGAIN)},
        {"posix.pwrite": Answers([3, failed(errno.ENOSPC)])}, {"posix.pwrite": failed(errno.ENOSPC)},
        {"posix.pwrite": Answers([3, 0])}, {"posix.pwrite": 0},
        {"posix.fstat": SimpleNamespace(st_size=0), "posix.pwrite": Answers([3, failed(errno.ENOSPC)])},
    ]),
    "lock": (lambda w: file_of(w, "lock").lock(), [
        {}, {"flock": Answers([failed(errno.EAGAIN), None])}, {"flock": failed(errno.EAGAIN)},
        {"flock": failed(errno.EIO)},
    ]),
    "close": (lambda w: after(one := file_of(w, "close"), one.close()), [
        {"WITH": {"regular": regular, "begun": begun, "broken": broken}, "own_number": number}
        for regular in (True, False) for begun in (True, False) for broken in (True, False) for number in (-1, 0, 5)
    ] + [{"WITH": {"regular": False, "begun": True}, "fs.write_all": failed(errno.EPIPE)},
         {"WITH": {"regular": False, "begun": True, "tail": b""}}]),
    "render": (lambda w: target.Target.traceparent(file_of(w, "traceparent"), 5), [{}]),
}  # fmt: skip


def run_verb(w: World) -> Any:
    """traced() with a verb, and what the command's span has."""
    root = SimpleNamespace(args={})
    w.answers["record.Recorder"] = w.spy("recorder", root=root)
    verb: Any = SimpleNamespace(__name__=f"pyrunc.verbs.{w.extra['verb']}")
    try:
        found = trace.traced(verb, w.spy("context", log=w.spy("log")), ["a"], w.extra["spec"], spies.noting(
            "run_verb", w.notes, w.answers))  # fmt: skip
    finally:
        w.notes.append(f"args: {root.args}")
    return found


TRACED: dict[str, Row] = {
    "traced": (run_verb, [
        *({"WITH": {"verb": verb, "spec": spec}} for verb in ("create", "state") for spec in ("", "/f")),
        *({"WITH": {"verb": "run", "spec": ""}, "run_verb": error} for error in (
            PyruncError("p" * 500), ValueError("v"), KeyboardInterrupt())),
        {"WITH": {"verb": "run", "spec": "/f"}, "recorder.finish": "not written"},
        {"WITH": {"verb": "run", "spec": ""}, "recorder.finish": "not written", "run_verb": PyruncError("p")},
        {"WITH": {"verb": "run", "spec": ""}, "target.open_target": PyruncError("no file")},
        {"WITH": {"verb": "run", "spec": ""}, "points.install": failed(errno.EIO)},
    ]),
}  # fmt: skip
RUNNING: dict[str, Any] = {
    "run_verb": 5, "time.time_ns": 1000, "time.process_time_ns": 7, "fs.getenv": "/env", "target.open_target": "FILE",
    "recorder.finish": "",
}  # fmt: skip
TABLES: Tables = [
    ("pyrunc.trace.target", TARGET, FILES, ("flock", "own_number")), ("pyrunc.trace", TRACED, RUNNING, ()),
]  # fmt: skip


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare(
        "trace_steps",
        f"{module.removeprefix('pyrunc.')}.{name}",
        calls_of(module, name, TABLES, [f"pyrunc.trace.{one}" for one in ("points", "record", "target")]),
    )
