"""pyrunc.trace: the wrappers of the timed functions one by one, spans of steps, and reading files in
which one member is at its limit."""

from __future__ import annotations

import json
import re
import time
from types import SimpleNamespace
from typing import Any

import pytest

from pyrunc import handshake
from pyrunc.errors import PyruncError
from pyrunc.plan import ops
from pyrunc.plan.encode import MAX_STEPS
from pyrunc.trace import points, read, record, svg
from test_trace import Nowhere, recorder, stamps, two_steps

# -- recording -------------------------------------------------------------------------------------


def test_the_first_spans() -> None:
    made = record.Recorder("create", Nowhere(), 5000, 1000)
    assert [(s.name, s.kind, s.begin, s.end, s.parent) for s in made.spans] == [("start up", "phase", 4000, 5000, 1)]
    assert [(s.name, s.kind, s.begin, s.number, s.parent) for s in made.open] == [
        ("create", "command", 4000, 1, 0),
        ("open the trace", "phase", 5000, 3, 1),
    ]
    assert (made.id, made.failed, made.heard, made.init_pid, made.dropped, made.problem) == ("", -1, 0, 0, 0, "")
    made.ready()
    assert [span.name for span in made.open] == ["create"]


def test_leaving_ends_what_is_inside() -> None:
    made = recorder()
    outer = made.enter("outer", "phase", 10)
    made.enter("inner", "phase", 20)
    made.leave(outer, 15)
    assert [(span.name, span.end) for span in made.spans[-2:]] == [("inner", 20), ("outer", 15)]
    assert made.open == [made.root]
    before = time.time_ns()
    span = made.enter("now", "phase")
    made.leave(span)
    assert before <= span.begin <= span.end <= time.time_ns()


def test_spans_over_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MOST", 5)
    sink = Nowhere()
    made = recorder(sink)
    for number in range(4):
        made.leave(made.enter(f"s{number}", "phase"))
    assert (made.dropped, [span.name for span in made.spans[-2:]]) == (2, ["s0", "s1"])
    assert made.finish() == "" and sink.spans[-1] is made.root and made.root.args == {"dropped": 2}


@pytest.mark.parametrize(
    ("step", "count", "good"),
    [(0, 0, False), (0, 1, True), (0, 26, True), (0, 27, False), (MAX_STEPS, 1, True), (MAX_STEPS + 1, 1, False)],
)
def test_times_from_init(step: int, count: int, good: bool) -> None:
    made = recorder()
    data = stamps(step, *range(1, min(count, 26) + 1))
    data = data[:12] + count.to_bytes(2, "little") + data[14:]
    head = record._HEAD.pack(handshake.STAMPS, step, 0, count)
    data = head + data[len(head) :]
    if not good:
        with pytest.raises(PyruncError, match="unexpected message STAMPS from init: not a list of times"):
            made.times(data)
        return
    made.times(data)
    assert made.begins == {step + number: number + 1 for number in range(count)}


def test_a_time_in_the_future_is_now() -> None:
    made = recorder()
    made.times(stamps(3, 1 << 62, 7))
    assert made.begins[4] == 7 and made.begins[3] <= time.time_ns()


def spans_of(failed: int, error: bool, begins: dict[int, int], heard: int, verb: str = "create") -> list[Any]:
    made = recorder()
    made.verb, made.steps = verb, record.of_plan(two_steps())
    made.failed, made.begins, made.heard = failed, begins, heard
    if error:
        made.root.args["error"] = "x"
    made.spans.clear()
    for _ in range(2):
        made.keep_steps()
    return [(s.name, s.kind, s.lane, s.begin, s.end, s.step, sorted(s.args.items())) for s in made.spans]


def test_spans_of_steps() -> None:
    assert spans_of(-1, False, {}, 9) == []
    sections = [(s[0], s[3], s[4]) for s in spans_of(-1, False, {0: 10, 1: 20}, 50) if s[1] == "phase"]
    steps = [(s[0], s[3], s[4], s[6]) for s in spans_of(-1, False, {0: 10, 1: 20}, 50) if s[1] == "step"]
    assert sections[0][1:] == (10, 20) and sections[-1][2] == 50 and all(len(s) == 3 for s in sections)
    assert steps == [
        ("HOSTNAME h", 10, 20, [("pointer", "/hostname"), ("step", 1)]),
        ("EXECVE sh", 20, 50, [("pointer", "/process/args"), ("step", 2)]),
    ]
    failed = [(s[0], s[3], s[4]) for s in spans_of(0, True, {0: 10}, 30) if s[1] == "step"]
    assert failed == [("HOSTNAME h", 10, 30)]
    lost = [(s[0], s[4], dict(s[6]).get("untimed")) for s in spans_of(-1, True, {0: 10}, 30) if s[1] == "step"]
    assert lost == [("HOSTNAME h", 10, True)]
    untimed = [
        (s[0], s[3], s[4], dict(s[6]).get("untimed")) for s in spans_of(-1, False, {0: 10}, 30) if s[1] == "step"
    ]
    assert untimed == [("HOSTNAME h", 10, 10, True), ("EXECVE sh", 10, 10, True)]
    assert {s[2] for s in spans_of(-1, False, {0: 10}, 30)} == {"init"}


def test_a_step_of_a_plan() -> None:
    words = [str(number) for number in range(17)]
    assert record.words(words) == [*words[:16], "... 1 more"] and record.words(words[:16]) == words[:16]
    assert record.words([]) == [] and len(record.words(["x" * 1000])[0]) <= record.TEXT
    rows = record.of_plan(two_steps()).rows
    assert [(row.index, row.origin, row.about, row.args) for row in rows] == [
        (0, "/hostname", "h", {}),
        (1, "/process/args", "sh", {}),
    ]


def test_steps_that_start_releases() -> None:
    late: Any = [
        [4, "/x", "WAIT_START", []],
        [5, "/hooks/startContainer/0", "HOOK", []],
        [6, "/y", "NO_SUCH", []],
        [7, "/hooks/startContainer/1", "HOOK", []],
        [8, "/hooks/startContainer/2", "HOOK", []],
    ]
    hooks: Any = [{"path": "/a", "args": ["a", "b"]}, {"path": "/b"}]
    rows = record.of_state(late, hooks).rows
    assert [(row.index, row.origin, row.args.get("argv")) for row in rows[:2]] == [
        (5, "/hooks/startContainer/0", ["a", "b"]),
        (7, "/hooks/startContainer/1", ["/b"]),
    ]
    assert len(rows) == 3 and rows[2].args["argv"] not in (["a", "b"], ["/b"])
    made = recorder()
    assert made.steps_end() == -1 and points.ops_of(made) == 0
    made.steps = record.of_state(late, hooks)
    assert made.steps_end() == 8 and points.ops_of(made) == 3
    made.steps = record.of_state([], [])
    assert made.steps_end() == -1


def test_problems_of_the_sink() -> None:
    class Broken(Nowhere):
        said = ["first", ""]  # noqa: RUF012
        closing = ""

        def write(self, recorder: record.Recorder, spans: Any) -> str:
            return self.said.pop(0)

        def close(self) -> str:
            return self.closing

    made = recorder(Broken())
    made.flush()
    assert made.spans == [] and made.problem == "first"
    made.flush()  # nothing to write
    assert made.finish() == "first"
    made = recorder(Broken())
    Broken.said, Broken.closing = ["", ""], "closing"
    assert made.finish() == "closing"


# -- the wrappers ----------------------------------------------------------------------------------


def last(made: record.Recorder) -> tuple[str, str, dict[str, object]]:
    span = made.spans[-1]
    return span.name, span.kind, span.args


@pytest.mark.parametrize(
    ("path", "data", "wanted"),
    [
        (
            "/sys/fs/cgroup/a/cgroup.procs",
            b"1\n",
            ("write cgroup.procs", "cgroup", {"path": "/sys/fs/cgroup/a/cgroup.procs", "value": "1"}),
        ),
        (
            "/run/x/state.json",
            b" \xff",
            ("write state.json", "write", {"path": "/run/x/state.json", "value": "\ufffd"}),
        ),
        ("name", b"", ("write name", "write", {"path": "name", "value": ""})),
    ],
)
def test_what_is_written(path: str, data: bytes, wanted: Any) -> None:
    made = recorder()
    call = points.timed(made, lambda *args: 5, "write", "write", points.DETAILS["write_file"])
    assert call(path, data) == 5 and last(made) == wanted


def test_a_timed_function_that_fails() -> None:
    made = recorder()

    def fails(error: Exception) -> None:
        raise error

    call = points.timed(made, fails, "phase", "title=", None)
    for error in (PyruncError("no"), OSError(1, "x")):
        with pytest.raises(type(error)):
            call(error)
        assert last(made) == ("title", "phase", {"error": str(error)})
    with pytest.raises(KeyError):
        call(KeyError("a"))
    assert last(made) == ("title", "phase", {}) and made.open == [made.root]


@pytest.mark.parametrize(("pointer", "kind"), [("/hooks/poststart/0", "hook"), ("(seccomp)", "phase")])
def test_details_of_hooks(pointer: str, kind: str) -> None:
    made = recorder()
    program = SimpleNamespace(pointer=pointer, path="/bin/x", args=["x", "y"])
    points.timed(made, lambda *args: None, "hook", "hook", points.DETAILS["_run_one"])(program)
    assert last(made) == ("/bin/x", kind, {"pointer": pointer, "argv": ["x", "y"]})
    points.timed(made, lambda *args: None, "phase", "x", points.DETAILS["run_hooks"])("poststart")
    assert last(made)[0] == "poststart hooks"
    for name in ("Manager.call", "Manager.job"):
        points.timed(made, lambda *args: None, "dbus", "systemd", points.DETAILS[name])(None, "Start")
        assert last(made)[0] == "systemd Start"


def test_details_of_cgroups() -> None:
    made = recorder()
    named = {name for _, name, kind, title in points.POINTS if kind == "cgroup" and title.endswith("=")}
    assert named and named <= set(points.DETAILS)
    points.timed(made, lambda *args: None, "cgroup", "make=", points.DETAILS[min(named)])(None, "/a")
    assert last(made) == ("make", "cgroup", {"cgroup": "/a"})


@pytest.mark.parametrize(
    ("status", "wanted"), [(0, {"exit": 0}), (0x300, {"exit": 3}), (9, {"signal": 9}), (0x8B, {"signal": 11})]
)
def test_the_status_of_a_hook(status: int, wanted: dict[str, int]) -> None:
    made = recorder()
    span = made.enter("hook", "hook")
    assert points.hook_ended(made, lambda program, *args: status)("p", 1) == status and span.args == wanted


@pytest.mark.parametrize(
    ("parent", "pointer", "added"), [("p", "/hooks/x", True), ("", "/hooks/x", False), ("p", "/y", False)]
)
def test_the_parent_of_a_hook(parent: str, pointer: str, added: bool) -> None:
    made = recorder()
    asked: list[int] = []
    made.sink = SimpleNamespace(traceparent=lambda number: asked.append(number) or parent)  # type: ignore[func-returns-value]
    call = points.hook_environment(made, lambda program: [b"A=1", b"TRACEPARENT=old"])
    found = call(SimpleNamespace(pointer=pointer))
    assert found == ([b"A=1", b"TRACEPARENT=p"] if added else [b"A=1", b"TRACEPARENT=old"]) and asked == [1]


def test_hooks_of_a_plan_get_their_parent() -> None:
    made = recorder()
    asked: list[int] = []

    def traceparent(number: int) -> str:
        asked.append(number)
        return f"n{number}"

    made.sink = SimpleNamespace(traceparent=traceparent)
    plan: Any = SimpleNamespace(
        steps=[
            (ops.OP_HOOK, 0, (1, 1, 2, 0), ("/a", ["a"], ["X=1", "TRACEPARENT=old"], ["t"])),
            (ops.OP_HOSTNAME, 0, (), ("h",)),
            (ops.OP_WAIT_START, ops.P_WAIT_START_SOCKET, (), ()),
            (ops.OP_HOOK, 2, (1, 0, 0, 0), ("/b", None, None, None)),
            (ops.OP_WAIT_START, 0, (), ()),
            (ops.OP_HOOK, 0, (1, 0, 0, 0), ("/c", [], [], [])),
        ]
    )
    points.pass_on(made, plan)
    assert plan.steps[0] == (ops.OP_HOOK, 0, (1, 1, 2, 1), ("/a", ["a"], ["X=1", "TRACEPARENT=n-1"], ["t"]))
    assert plan.steps[3] == (ops.OP_HOOK, 2, (1, 0, 1, 0), ("/b", [], ["TRACEPARENT=n-4"], []))
    assert plan.steps[5][3][2] == ["TRACEPARENT=n0"] and asked == [-1, -2, -3, -4, 0, 0]
    before = list(plan.steps)
    made.sink = SimpleNamespace(traceparent=lambda number: "")
    points.pass_on(made, plan)
    assert plan.steps == before


def test_waiting_for_init() -> None:
    made = recorder()
    stamp, pid = SimpleNamespace(type=handshake.STAMPS), SimpleNamespace(type=handshake.PID)
    answers: list[Any] = [stamp, pid]
    session: Any = SimpleNamespace(init_pid=0, enter_pid=7, plan=SimpleNamespace(steps=[1]))
    call = points.received(made, lambda self, timeout, interrupts: answers.pop(0))
    made.steps = record.of_plan(two_steps())
    assert call(session, 1, None) is pid and made.init_pid == 7
    assert last(made) == (f"wait for {handshake.NAMES[handshake.PID]}", "wait", {})
    answers, session.init_pid = [None], 8
    assert call(session, 1, None) is None and made.init_pid == 8 and last(made)[0] == "wait for the execve"
    answers = [stamp] * 66
    with pytest.raises(PyruncError, match="container init does not stop sending times"):
        call(session, 1, None)
    assert answers == []
    answers = [*[stamp] * 65, pid]
    assert call(session, 1, None) is pid
    made.steps, answers = None, [stamp, pid]
    with pytest.raises(PyruncError, match="does not stop"):
        call(session, 1, None)
    assert answers == [pid] and made.open == [made.root]


def test_the_verb_names_its_container() -> None:
    made = recorder()
    module: Any = SimpleNamespace(main=lambda context, values, args: args)
    points.on_verb(made, module)
    assert module.main(1, 2, []) == [] and made.id == "" and made.root.name == "create"
    assert module.main(1, 2, ["c1", "x"]) == ["c1", "x"]
    assert (made.id, made.root.name, made.root.args) == ("c1", "create c1", {"id": "c1"})
    points.remove()
    assert module.main(1, 2, ["c2"]) == ["c2"] and made.id == "c1"


@pytest.mark.parametrize(
    "text", [b'{"hooks": {"startContainer": [{"path": "/a"}]}}', b"[]", b"{", b'{"hooks": {}}', None]
)
def test_the_rest_as_start_sees_it(text: bytes | None) -> None:
    made = recorder()

    def read_bytes(name: str) -> bytes:
        assert name == "config.json"
        if text is None:
            raise OSError(2, "")
        return text

    late = [[5, "/hooks/startContainer/0", "HOOK", []]]
    container: Any = SimpleNamespace(data={"pid": 9, "late": late}, read_bytes=read_bytes)
    assert points.released(made, lambda container, *args: b"x")(container, 1) == b"x"
    assert made.init_pid == 9 and made.steps is not None
    argv = made.steps.rows[0].args["argv"]
    assert (argv == ["/a"]) is (text is not None and b"/a" in text)


# -- reading ---------------------------------------------------------------------------------------


def event(**more: Any) -> dict[str, Any]:
    return {"name": "x", "cat": "phase", "ph": "X", "ts": 1, "dur": 2, "pid": 3, "tid": 4, **more}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "/: expected JSON, found something else at byte 1"),
        ("3", "expected an object with traceEvents"),
        ({"traceEvents": {}}, "expected an object with traceEvents"),
        ([1], "/traceEvents/0: expected an object, found 1"),
        ([event(), event(args=[])], "/traceEvents/1/args: expected an object, found []"),
        ([event(ts=-1)], "/traceEvents/0/ts: expected a number from 0 to 1e17, found -1"),
        ([event(ts=1e17)], "/traceEvents/0/ts: expected a number"),
        ([event(dur=True)], "/traceEvents/0/dur: expected a number"),
        ([event(dur=None)], "/traceEvents/0/dur: expected a number"),
        ([event(pid="1")], "/traceEvents/0/pid: expected"),
        ([event(tid=[])], "/traceEvents/0/tid: expected"),
        ([event(name=3)], "/traceEvents/0/name: expected a string, found 3"),
    ],
)
def test_events_that_are_refused(document: Any, words: str) -> None:
    data = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(read.WrongError) as caught:
        read.events(data.encode())
    assert str(caught.value).startswith(words)


def test_events_at_their_limits() -> None:
    spans, names = read.events(
        json.dumps(
            [
                event(ts=0, dur=0.5, args={"a": 1}),
                event(ph="i", name=3),
                {"ph": "M", "name": "process_name", "pid": 3, "args": {"name": "n"}},
                {"ph": "M", "name": "process_name", "pid": "3", "args": {"name": "m"}},
                {"ph": "M", "name": "thread_name", "pid": 3, "args": {"name": "o"}},
                {"ph": "X", "name": "process_name", "ts": 9e16, "dur": 1, "pid": 5, "tid": 6},
                {"ph": "M", "name": "process_name", "pid": 7},
            ]
        ).encode()
    )
    rows = [(s.name, s.kind, s.begin, s.length, s.end, s.pid, s.tid, s.args) for s in spans]
    assert rows == [("x", "phase", 0.0, 0.5, 0.5, 3, 4, {"a": 1}), ("process_name", "", 9e16, 1.0, 9e16 + 1, 5, 6, {})]
    assert names == {3: "n", 7: "None"}


@pytest.mark.parametrize(
    ("args", "failed"),
    [
        ({}, False),
        ({"error": "x"}, True),
        ({"exit": 1}, True),
        ({"exit": 0}, False),
        ({"signal": 9}, True),
        ({"error": ""}, False),
    ],
)
def test_spans_that_failed(args: dict[str, Any], failed: bool) -> None:
    span = read.Span("x", "hook", 0, 1)
    span.args = args
    assert span.failed() is failed


def otlp(**more: Any) -> dict[str, Any]:
    attributes = [
        {"key": key, "value": {"stringValue": value}}
        for key, value in (("pyrunc.kind", "k"), ("pyrunc.lane", "runtime"))
    ]
    values = [
        {"intValue": "7"},
        {"boolValue": False},
        {"arrayValue": {"values": [{"stringValue": "a"}, {}]}},
        {"stringValue": 5},
    ]
    attributes += [{"key": f"v{number}", "value": value} for number, value in enumerate(values)]  # type: ignore[dict-item]
    span = {"name": "n", "startTimeUnixNano": "5000", "endTimeUnixNano": "9000", "attributes": attributes, **more}
    resource = {"attributes": [{"key": "process.pid", "value": {"intValue": "3"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}


def test_lines_of_opentelemetry() -> None:
    spans, names = read.events(json.dumps(otlp()).encode() + b"\n" + json.dumps(otlp(name="m")).encode())
    assert names == {} and [span.name for span in spans] == ["n", "m"]
    first = spans[0]
    assert (first.kind, first.begin, first.length, first.pid, first.tid) == ("k", 5.0, 4.0, 3, 3)
    assert first.args == {"v0": 7, "v1": False, "v2": ["a", "None"], "v3": "5"}
    line = json.dumps(otlp()).encode()
    assert read.events(line.replace(b'"runtime"', b'"init"'))[0][0].tid == -1
    for old, new in (
        (b'"5000"', b'"x"'),
        (b"scopeSpans", b"other"),
        (b"process.pid", b"pid"),
        (b"pyrunc.kind", b"kind"),
    ):
        with pytest.raises(read.WrongError, match=r"^line 2: expected spans that pyrunc wrote"):
            read.events(line + b"\n" + line.replace(old, new))
    with pytest.raises(read.WrongError, match=r"^line 1/dur: expected a number"):
        read.events(json.dumps(otlp(endTimeUnixNano="4000")).encode())
    with pytest.raises(read.WrongError, match=r"^line 1/name: expected a string"):
        read.events(json.dumps(otlp(name=4)).encode())


def of(*rows: tuple[str, str, float, float, int]) -> Any:
    """as_json of spans of one process, (name, kind, begin, length, thread)."""
    spans = []
    for name, kind, begin, length, thread in rows:
        span = read.Span(name, kind, begin, length)
        span.pid, span.tid = 3, thread
        spans.append(span)

    def brief(part: Any) -> Any:
        return (part["name"], part["begin"], part["length"], [brief(one) for one in part["parts"]])

    found = read.as_json(read.commands(spans, {3: "pyrunc create c"}))["commands"]
    return [
        (
            row["name"],
            row["begin"],
            row["length"],
            row["ended"],
            row["pid"],
            [(lane["lane"], [brief(part) for part in lane["parts"]]) for lane in row["lanes"]],
        )
        for row in found  # type: ignore[attr-defined]
    ]


def test_nesting() -> None:
    whole = ("c", "command", 10.0, 100.0, 3)
    parts = [
        ("a", "phase", 10.0, 50.0, 3),
        ("b", "step", 20.0, 10.0, 3),
        ("d", "step", 30.0, 10.0, 3),
        ("e", "phase", 60.0, 50.0, 3),
    ]
    inits = [("i", "step", 15.0, 5.0, 9), ("j", "step", 20.0, 0.0, 9)]
    lanes = [
        ("pyrunc", [("a", 0.0, 50.0, [("b", 10.0, 10.0, []), ("d", 20.0, 10.0, [])]), ("e", 50.0, 50.0, [])]),
        ("init", [("i", 5.0, 5.0, []), ("j", 10.0, 0.0, [])]),
    ]
    assert of(*inits, *parts[::-1], whole) == [("c", 0.0, 100.0, True, 3, lanes)]
    # A command that was killed has no span of its own.
    assert of(*parts[:1]) == [("create c", 0.0, 50.0, False, 3, [("pyrunc", [("a", 0.0, 50.0, [])])])]
    # Another process with the same pid, later.
    late = of(
        whole, parts[0], ("x", "phase", 111.5, 5.0, 3), ("y", "command", 200.0, 1.0, 3), ("z", "phase", 111.0, 2.0, 3)
    )
    assert [(row[0], row[1], row[3]) for row in late] == [
        ("c", 0.0, True),
        ("create c", 101.5, False),
        ("y", 190.0, True),
    ]
    assert [part[0] for part in late[0][5][0][1]] == ["a", "z"] and late[1][2] == 201.0 - 111.5


def test_deep_nesting_is_bounded() -> None:
    rows = [("c", "command", 0.0, 1000.0, 3), *[("s", "phase", float(n), 900.0 - 2 * n, 3) for n in range(60)]]
    depth, at = 0, of(*rows)[0][5][0][1]
    while at:
        depth, at = depth + 1, at[0][3]
    assert depth == read.DEPTH + 1


def test_empty_files_are_no_traces(tmp_path: Any) -> None:
    (tmp_path / "t").write_text("[]")
    with pytest.raises(PyruncError, match="expected a trace of pyrunc, found no event with a duration"):
        read.load(str(tmp_path / "t"))
    with pytest.raises(PyruncError, match="/none: read: ENOENT"):
        read.load("/none")


# -- drawing ---------------------------------------------------------------------------------------


def test_every_kind_has_its_colour() -> None:
    """Those that the style does not know are drawn as phases."""
    kinds = ("command", "phase", "step", "cgroup", "write", "hook", "dbus", "wait", "failed", "odd")
    whole = read.Span("c", "command", 0.0, 100.0)
    spans = [read.Span(f"s{n}", kind, 10.0 * n, 9.0) for n, kind in enumerate(kinds)]
    command = read.Command(whole, True)
    command.lanes = [("pyrunc", spans)]
    picture = svg.picture([command], True)
    drawn = re.findall(r'<rect class="(\w+)" x=', picture)
    assert [kind for kind in drawn if kind in kinds][-len(kinds) :] == [*kinds[:-1], "phase"]
    styled = set(re.findall(r"\.(\w+)", picture.partition("</style>")[0]))
    assert set(kinds[:-1]) <= styled
