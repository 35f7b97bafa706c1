"""The content of a trace: the table of timed functions, and one command of each kind in both
formats, with a clock that the test sets."""

from __future__ import annotations

import errno
import json
import posix
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import transcript
from json_type import Json
from pyrunc import handshake
from pyrunc.errors import PyruncError
from pyrunc.plan import TRACE, Plan, ops
from pyrunc.trace import chrome, draw, otlp, points, read, record, svg
from test_trace import Nowhere, stamps

START = 1_700_000_000_000_000_000


class Clock:
    """Each reading of the clock takes a microsecond."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        self.now += 1000
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """Times, process ids and random numbers are the same in every run."""
    made = Clock()
    monkeypatch.setattr(time, "time_ns", made)
    monkeypatch.setattr(posix, "getpid", lambda: 77)
    monkeypatch.setattr(posix, "urandom", lambda size: bytes(range(1, size + 1)))
    for module in (chrome, otlp):
        monkeypatch.setattr(module, "VERSION", "1.2.3")
    monkeypatch.setenv("TRACEPARENT", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    yield made
    points.remove()


def everything() -> Plan:
    """A step of each section, hooks, and secrets that must not appear."""
    what = Plan()
    hook: Json = {"args": ["one", "two"], "env": ["TRACEPARENT=old", "A=1"], "path": "/bin/one"}
    what.hostname("/hostname", name="h")
    what.hook("/hooks/createContainer/0", **hook)
    what.umask("/process/user/umask", mask=0o22)
    what.wait_start("(default)", start_fd=0, error_fd=1)
    what.hook("/hooks/startContainer/0", **hook)
    what.execve("/process/args", args=["sh", "-c", "secret"], env=["A=secret"])
    return what


def command(sink: Any, verb: str, ending: str) -> record.Recorder:
    """One command with a phase, a call that fails, and steps."""
    made = record.Recorder(verb, sink, START - 5000, 3000)
    made.ready()
    made.id, made.init_pid = "c1", 99
    made.root.args["id"] = "c1"

    def fails(path: str, data: bytes) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    with pytest.raises(OSError, match="Invalid"):
        points.timed(made, fails, "write", "=", points.DETAILS["write_file"])("/sys/fs/cgroup/c/cpu.max", b" max\n")
    what = everything()
    made.steps = record.of_plan(what) if verb == "create" else record.of_state(LATE, HOOKS["hooks"]["startContainer"])
    first = made.steps.rows[0].index
    times = [START + 10_000 * number for number in range(1, len(made.steps.rows) + 1)]
    if ending == "untimed":
        made.times(stamps(first, *times[:1]))
    elif ending != "silent":
        made.times(stamps(first, *times))
    if ending == "fail":
        head = struct.pack("=IIiIHHI24s208s", handshake.FAIL, first + 1, 1, 0, 0, 0, 0, b"", b"")
        made.hear(handshake.Record(head))
        made.root.args["error"] = "it failed"
    else:
        made.hear(None)
        made.root.args["exit"] = 0
    assert made.finish() == ""
    return made


LATE = [
    [3, "(default)", "WAIT_START", []],
    [4, "/hooks/startContainer/0", "HOOK", ["/bin/one", "one", "A=secret", "{}"]],
    [5, "/process/args", "EXECVE", ["/bin/sh", "A=secret"]],
]
HOOKS: Json = {"hooks": {"startContainer": [{"path": "/bin/one", "args": ["one", "two"]}]}}


@pytest.mark.parametrize("verb", ["create", "start"])
@pytest.mark.parametrize("ending", ["well", "fail", "untimed", "silent"])
def test_both_formats(tmp_path: Path, verb: str, ending: str) -> None:
    lines = []
    for name, kind in (("chrome", chrome.Chrome), ("otlp", otlp.Otlp)):
        path = tmp_path / name
        command(kind(str(path), "--trace"), verb, ending)
        document = json.loads(path.read_text())
        rows = document["traceEvents"] if name == "chrome" else [document]
        lines += [json.dumps(row) for row in rows]
        assert "secret" not in path.read_text()
    traces = [read.load(str(tmp_path / name)) for name in ("chrome", "otlp")]
    assert len(traces[0]) == len(traces[1]) == 1
    lines.append(json.dumps(read.as_json(traces[0])))
    for everything_shown in (False, True):
        style = draw.Style(60 if everything_shown else 100, everything_shown, not everything_shown)
        lines += draw.draw(traces[0], style, everything_shown).split("\n")
        if ending == "fail":
            lines += svg.picture(traces[0], everything_shown).split("\n")
    transcript.compare("trace", f"{verb}, {ending}", lines)


def test_the_table() -> None:
    """People and their tools search for these names."""
    transcript.compare("trace", "points", sorted({f"{kind} | {title}" for _, _, kind, title in points.POINTS}))


class Program:
    """The attributes of a hook that a trace uses."""

    path, args = "/bin/" + "x" * 100, ["a", "b"]

    def __init__(self, pointer: str) -> None:
        self.pointer = pointer

    def environment(self) -> list[bytes]:
        return [b"TRACEPARENT=old", b"A=1"]


CALLS: dict[str, tuple[Any, ...]] = {
    "write_file": ("/proc/1/uid_map", b"0 0 1\n\xff"),
    "_run_one": (Program("/hooks/prestart/0"),),
    "run_hooks": ("prestart",),
    "Manager.call": (None, "StopUnit"),
    "Manager.job": (None, ""),
}


def test_details() -> None:
    sink = Nowhere()
    made = record.Recorder("create", sink, START, 0)
    for name in sorted(points.DETAILS):
        points.timed(made, lambda *_: None, "kind", "title =", points.DETAILS[name])(*CALLS.get(name, (None, "/c/g")))
    points.timed(made, lambda *_: None, "kind", "=", points.DETAILS["_run_one"])(Program("/process/args"))
    points.timed(made, lambda *_: None, "kind", "=", points.DETAILS["write_file"])("/sys/fs/cgroup/memory.max", b"1")
    made.finish()
    rows = [f"{span.name} | {span.kind} | {json.dumps(span.args)}" for span in sink.spans]
    transcript.compare("trace", "details", rows)


@pytest.mark.parametrize(
    ("status", "wanted"), [(0, {"exit": 0}), (3 << 8, {"exit": 3}), (9, {"signal": 9}), (0x89, {"signal": 9})]
)
def test_the_end_of_a_hook(status: int, wanted: dict[str, int]) -> None:
    made = record.Recorder("create", Nowhere(), START, 0)
    span = made.enter("hook", "hook")
    assert points.hook_ended(made, lambda *_: status)(Program("/hooks/x")) == status
    assert span.args == wanted


def test_hooks_get_the_span_that_they_are_in(tmp_path: Path) -> None:
    sink = otlp.Otlp(str(tmp_path / "t"), "--trace")
    made = record.Recorder("create", sink, START, 0)
    span = made.enter("hook", "hook")
    parent = f"00-{sink.trace}-{sink.span_id(span.number)}-01".encode()
    environment = points.hook_environment(made, Program.environment)
    assert environment(Program("/hooks/prestart/0")) == [b"A=1", b"TRACEPARENT=" + parent]
    assert environment(Program("/process")) == [b"TRACEPARENT=old", b"A=1"]
    made.sink = Nowhere()
    assert environment(Program("/hooks/prestart/0")) == [b"TRACEPARENT=old", b"A=1"]
    plan = points.planned(record.Recorder("create", sink, START, 0), everything)()
    assert plan.flags == TRACE
    found = {index: row[3][2] for index, row in enumerate(plan.steps) if row[0] == ops.OP_HOOK}
    assert found == {
        1: ["A=1", f"TRACEPARENT=00-{sink.trace}-{sink.span_id(-2)}-01"],
        4: ["A=1", f"TRACEPARENT=00-{sink.trace}-{sink.span_id(0)}-01"],
    }
    assert [row[2][2] for row in plan.steps if row[0] == ops.OP_HOOK] == [2, 2], "how many there are"
    untold = points.planned(record.Recorder("create", Nowhere(), START, 0), everything)()
    assert untold.steps == everything().steps
    sink.close()


class Session:
    """A session with init."""

    init_pid, enter_pid = 0, 55

    def __init__(self) -> None:
        self.plan = everything()


@pytest.mark.parametrize("last", [None, handshake.READY])
def test_messages_between_times(last: int | None) -> None:
    sink = Nowhere()
    made = record.Recorder("create", sink, START, 0)
    made.steps = record.of_plan(everything())
    plain = None if last is None else struct.pack("=IIiIHHI24s208s", last, 1, 0, 0, 0, 0, 0, b"", b"")
    told = [stamps(0, START), stamps(1, START + 1), plain]
    # `Record` is replaced in a trace: it keeps the times.
    kept = points.watching(made, handshake.Record)
    answer = points.received(made, lambda *_: (data := told.pop(0)) and kept(data))(Session(), 1, None)
    assert (answer is None) == (last is None) and told == []
    assert made.begins == {0: START, 1: START + 1} and made.init_pid == 55 and made.heard
    made.finish()
    assert [span.name for span in sink.spans if span.kind == "wait"] == [
        f"wait for {'the execve' if last is None else 'READY'}"
    ]


def test_one_message_before_there_is_a_plan() -> None:
    made = record.Recorder("create", Nowhere(), START, 0)
    with pytest.raises(PyruncError, match="does not stop sending times"):
        points.received(made, lambda *_: handshake.Record(stamps(0, 1)))(Session(), 1, None)


@pytest.mark.parametrize("config", [b"{}", b"{", b"[]", None, json.dumps(HOOKS).encode()])
def test_facts_of_the_plan_at_start(config: bytes | None) -> None:
    made = record.Recorder("start", Nowhere(), START, 0)

    class Container:
        def __init__(self) -> None:
            self.data = {"pid": 5, "late": LATE}

        def read_bytes(self, name: str) -> bytes:
            assert name == "config.json"
            if config is None:
                raise FileNotFoundError
            return config

    assert points.released(made, lambda container, *args: b"x" + args[0])(Container(), b"y") == b"xy"
    assert made.init_pid == 5 and made.steps is not None
    assert [row.index for row in made.steps.rows] == [4, 5]
    assert made.steps.rows[0].args["argv"] == (["one", "two"] if config and len(config) > 9 else ["one"])


def test_the_container_of_a_verb() -> None:
    import types

    module = types.ModuleType("verb")
    module.main = lambda context, values, args: (context, values, args)  # type: ignore[attr-defined]
    made = record.Recorder("kill", Nowhere(), START, 0)
    points.on_verb(made, module)
    assert module.main(1, 2, ["c" * 100, "KILL"]) == (1, 2, ["c" * 100, "KILL"])
    assert made.id.startswith("ccc") and len(made.id) == 80
    assert made.root.name == f"kill {made.id}" and made.root.args == {"id": made.id}
    made.id = ""
    assert module.main(1, 2, []) == (1, 2, []) and made.id == ""


def recorder() -> record.Recorder:
    """A recorder that is ready."""
    made = record.Recorder("create", Nowhere(), START, 0)
    made.ready()
    return made


def test_the_command_stays_in_a_long_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps have a limit of their own."""
    monkeypatch.setattr(record, "MOST", 4)
    made = recorder()
    outer = made.enter("outer", "phase")
    made.enter("inner", "phase")
    made.enter("innermost", "phase")
    made.leave(outer)
    assert [one.name for one in made.spans] == ["start up", "open the trace", "outer"] and made.dropped == 2
    made.times(stamps(0, START + 1000))
    made.steps = record.of_plan(everything())
    made.flush()
    made.leave(made.root)
    assert [one.name for one in made.spans] == ["create"]


def test_times_without_a_plan() -> None:
    made = recorder()
    made.times(stamps(0, START + 1000))
    made.keep_steps()
    assert [one.name for one in made.spans] == ["start up", "open the trace"] and not made.told


def test_a_hook_belongs_to_the_section_before_it() -> None:
    made, plan = recorder(), Plan()
    plan.oom_score("/process/oomScoreAdj", value=5)
    plan.hook("/hooks/createRuntime/0", path="/bin/h", args=["h"], env=[])
    plan.hostname("/hostname", name="host")
    made.times(stamps(0, START + 1000))
    made.steps = record.of_plan(plan)
    made.keep_steps()
    found = [one.name for one in made.spans if one.kind in ("phase", "step")]
    assert found == ["start up", "open the trace", "ENTER", "OOM_SCORE", "HOOK /bin/h", "FINISH", "HOSTNAME host"]
