"""The writer of traces: the table of timed functions, the file in each format, and the records that
init may send."""

from __future__ import annotations

import errno
import json
import os
import posix
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pyrunc import handshake
from pyrunc.container import lifecycle
from pyrunc.errors import PyruncError, SysError
from pyrunc.launch import create, exec, run, session
from pyrunc.plan import TRACE as TRACED
from pyrunc.plan import Plan, ops
from pyrunc.trace import chrome, otlp, points, record, target

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = 'a"b\\c\n\x1b[31m\u202e\udcff<script>'


class Nowhere:
    """A sink that stores its input."""

    def __init__(self) -> None:
        self.spans: list[record.Span] = []

    def write(self, recorder: record.Recorder, spans: Any) -> str:
        self.spans += spans
        return ""

    def close(self) -> str:
        return ""

    def traceparent(self, number: int) -> str:
        return ""


def recorder(sink: Any = None) -> record.Recorder:
    made = record.Recorder("create", sink or Nowhere(), time.time_ns(), 1_000_000)
    made.ready()
    return made


def one_command(sink: Any, name: str = "part") -> None:
    """A command with one part and two steps."""
    made = recorder(sink)
    span = made.enter(name, "phase")
    span.args["value"] = name
    made.leave(span)
    made.steps = record.of_plan(two_steps())
    made.times(stamps(0, made.root.begin, made.root.begin + 5000))
    made.hear(None)
    made.root.args["exit"] = 0
    assert made.finish() == ""


def two_steps() -> Plan:
    what = Plan()
    what.hostname("/hostname", name="h")
    what.execve("/process/args", args=["sh", "-c", "secret"], env=["A=secret"])
    return what


def stamps(step: int, *times: int) -> bytes:
    head = struct.pack("=IIiIHHI24s", handshake.STAMPS, step, 0, len(times), 0, 0, 0, b"")
    return head + struct.pack(f"={len(times)}Q", *times).ljust(208, b"\0")


# -- the table -------------------------------------------------------------------------------------


def test_everything_is_put_in_place_and_back() -> None:
    before = [(points.owner_of(module, name), module, name) for module, name, _, _ in points.POINTS]
    values = [vars(owner)[last] for (owner, last), _, _ in before]
    try:
        points.install(recorder())
        replaced = [vars(owner)[last] for (owner, last), _, _ in before]
        assert replaced and [now for now, then in zip(replaced, values, strict=True) if now is then] == []
        assert lifecycle.RELEASE == b"1" and handshake.Record.__module__ == "pyrunc.trace.points"
    finally:
        points.remove()
    assert [vars(owner)[last] for (owner, last), _, _ in before] == values
    assert lifecycle.RELEASE == b"0" and handshake.Record.__module__ == "pyrunc.handshake"
    assert len(values) > 60 and len({(module, name) for module, name, _, _ in points.POINTS}) == len(values)


def test_every_action_of_the_handshake_is_in_the_table() -> None:
    named = {name for _, name, _, _ in points.POINTS}
    kinds = (session.InitSession, create.Create, run.Run, exec.Exec)
    actions = {f"{kind.__name__}.{name}" for kind in kinds for name in vars(kind) if name.startswith("on_")}
    assert actions and actions <= named, actions - named


def test_a_name_that_is_gone_is_noticed() -> None:
    with pytest.raises(AttributeError, match="no_such_function"):
        points.replace("launch.session", "InitSession.no_such_function", lambda found: found)


def test_nothing_of_it_is_imported_without_the_option() -> None:
    code = "import sys; from pyrunc.__main__ import run; run(['--root', '/nonexistent', 'start', 'x']); "
    code += "print([name for name in sys.modules if name.startswith('pyrunc.trace')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_nothing_of_it_is_in_the_snapshot() -> None:
    sys.path.insert(0, str(ROOT / "native" / "launcher"))
    try:
        import closure
        import freeze
        import pyconfig
    finally:
        sys.path.pop(0)
    modules = [(name, path) for name, path in __import__("test_layers").MODULES.items()]
    chosen = freeze.preloadable(modules, closure.BUILTIN | {*pyconfig.lacks()})
    assert "pyrunc.launch.create" in chosen and not [name for name in chosen if name.startswith("pyrunc.trace")]


def test_a_plan_is_the_same_without_a_trace() -> None:
    """With a trace, only the flag differs."""
    plain = two_steps().encode()
    made = recorder()
    traced = points.planned(made, lambda: two_steps())()
    data = traced.encode()
    assert plain[28:32] == bytes(4) and data[28:32] == struct.pack("=I", TRACED)
    assert data[:28] + data[32:] == plain[:28] + plain[32:]


def test_a_call_to_systemd_is_named() -> None:
    sink = Nowhere()
    made = recorder(sink)
    job = points.timed(made, lambda *_: None, "dbus", "job=", points.DETAILS["Manager.job"])
    call = points.timed(made, job, "dbus", "=", points.DETAILS["Manager.call"])
    call(None, "StartTransientUnit", ("s", "x.scope"))
    made.finish()
    assert [(span.name, span.kind) for span in sink.spans if span.kind == "dbus"] == [
        ("job StartTransientUnit", "dbus"),
        ("StartTransientUnit", "dbus"),
    ]


def test_the_span_has_the_error_of_its_call() -> None:
    sink = Nowhere()
    made = recorder(sink)

    def fails(path: str, data: bytes) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    with pytest.raises(OSError, match="Invalid"):
        points.timed(made, fails, "write", "=", points.DETAILS["write_file"])("/sys/fs/cgroup/c/cpu.max", b"max\n")
    made.finish()
    [span] = [span for span in sink.spans if span.name == "write cpu.max"]
    assert (span.kind, span.args["value"]) == ("cgroup", "max") and "Invalid" in str(span.args["error"])


# -- what init says --------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "count"), [(0, 0), (0, 27), (0, 1 << 31), (16385, 1), (0xFFFFFFFF, 1)])
def test_a_list_of_times_that_is_none(step: int, count: int) -> None:
    data = bytearray(stamps(0, 1))
    struct.pack_into("=I", data, 4, step)
    struct.pack_into("=I", data, 12, count)
    with pytest.raises(PyruncError, match="STAMPS"):
        recorder().times(bytes(data))


def test_times_are_never_of_the_future_nor_backwards() -> None:
    sink = Nowhere()
    made = recorder(sink)
    made.steps = record.of_plan(two_steps())
    made.times(stamps(0, 1 << 63, 5))
    made.hear(None)
    made.finish()
    steps = [span for span in sink.spans if span.kind == "step"]
    assert len(steps) == 2 and all(0 <= span.begin <= span.end <= time.time_ns() for span in steps)


def test_records_without_end_are_an_error() -> None:
    made = recorder()
    made.steps = record.of_plan(two_steps())

    class Session:
        init_pid, enter_pid, plan = 1, 0, two_steps()

    def call(*_: object) -> handshake.Record:
        return handshake.Record(stamps(0, 1))

    with pytest.raises(PyruncError, match="container init does not stop sending times"):
        points.received(made, call)(Session(), 0, None)
    with pytest.raises(PyruncError, match="container init does not stop sending times"):
        points.read_late(made, lambda fd: stamps(0, 1))(3)


def test_steps_after_a_failure_are_not_there() -> None:
    sink = Nowhere()
    made = recorder(sink)
    made.steps = record.of_plan(two_steps())
    made.times(stamps(0, 1000, 2000))
    # However the session receives it: with a GO that came too late, it reads it from the queue.
    points.watching(made, handshake.Record)(struct.pack("=IIiIHHI24s208s", handshake.FAIL, 0, 1, 0, 0, 0, 0, b"", b""))
    made.root.args["error"] = "x"
    made.finish()
    assert [(span.name, span.end - span.begin) for span in sink.spans if span.kind == "step"] == [("HOSTNAME h", 1000)]


def test_the_steps_of_start() -> None:
    late = [
        [7, "(default)", "WAIT_START", []],
        [8, "/hooks/startContainer/0", "HOOK", ["/h", "h", "A=secret", "{}"]],
        [9, "/process/args", "EXECVE", ["/bin/sh", "A=secret"]],
        [10, "x", "NO_SUCH_OP", []],
    ]
    rows = record.of_state(late, [{"path": "/h", "args": ["h", "one"]}]).rows
    assert [(row.index, ops.OPS[row.op][0], row.about, row.args) for row in rows] == [
        (8, "HOOK", "/h", {"argv": ["h", "one"]}),
        (9, "EXECVE", "/bin/sh", {}),
    ]
    assert record.of_state(late, []).rows[0].args == {"argv": ["h"]}


def test_kept_results_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MOST", 10)
    sink = Nowhere()
    made = recorder(sink)
    for _ in range(100):
        made.leave(made.enter("x" * 100000, "phase"))
    made.finish()
    assert len(sink.spans) <= 11 and sink.spans[-1] is made.root
    dropped = made.root.args["dropped"]
    assert isinstance(dropped, int) and dropped > 80
    assert len(record.words(["x" * 100000] * 1000)) == 17
    assert max(len(word) for word in record.words(["x" * 100000] * 1000)) <= 400


# -- the file --------------------------------------------------------------------------------------


def test_commands_add_up(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    for number in range(3):
        one_command(target.open_target(str(file), "--trace"), f"part {number}")
        events = json.loads(file.read_text())["traceEvents"]
        names = [event["name"] for event in events if event["name"].startswith("part")]
        assert names == [f"part {n}" for n in range(number + 1)]
    spans = [event for event in events if event["ph"] == "X"]
    assert {event["cat"] for event in spans} == {"command", "phase", "step"}
    assert {" ".join(sorted(event)) for event in spans} == {"args cat dur name ph pid tid ts"}
    assert "secret" not in file.read_text()


@pytest.mark.parametrize("make", [chrome.Chrome, otlp.Otlp])
def test_hostile_names(make: type[target.Target], tmp_path: Path) -> None:
    file = tmp_path / "t"
    one_command(make(str(file), "--trace"), HOSTILE)
    data = file.read_bytes()
    assert data.isascii() and b"\x1b" not in data and b"\\udc" not in data
    for line in data.splitlines() if make is otlp.Otlp else [data]:
        assert "<script>" in json.dumps(json.loads(line))


@pytest.mark.parametrize("prefix", ["", "otlp:"])
@pytest.mark.parametrize("content", ["{}", "x", '{"traceEvents":[', '{"traceEvents":[\n\n', "\n]}\n", "\0" * 5000])
def test_files_that_are_not_traces_are_left_alone(prefix: str, content: str, tmp_path: Path) -> None:
    file = tmp_path / "t"
    file.write_text(content)
    with pytest.raises(SysError, match="expected a trace of pyrunc"):
        target.open_target(f"{prefix}{file}", "--trace")
    assert file.read_text() == content


@pytest.mark.parametrize("done", [0, 1, 3, 100])
def test_a_full_disk_leaves_the_file_as_it_was(done: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "t.json"
    one_command(target.open_target(str(file), "--trace"))
    before = file.read_bytes()
    calls = []
    real = os.pwrite

    def pwrite(fd: int, data: bytes, at: int) -> int:
        calls.append(at)
        if len(calls) == 1 and done:
            return real(fd, data[:done], at)
        if len(calls) <= 2 and (len(calls) == 2 or not done):
            raise OSError(errno.ENOSPC, "")
        return real(fd, data, at)

    sink = target.open_target(str(file), "--trace")
    monkeypatch.setattr(posix, "pwrite", pwrite)
    made = recorder(sink)
    assert "ENOSPC" in made.finish()
    assert file.read_bytes() == before


def test_files_of_other_programs_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    sink = target.open_target(str(file), "--trace")
    file.write_text("mine")
    assert "EAGAIN" in recorder(sink).finish()
    assert file.read_text() == "mine"


@pytest.mark.parametrize("prefix", ["", "otlp:"])
def test_a_pipe_gets_a_whole_document(prefix: str) -> None:
    read_end, write_end = os.pipe()
    sink = target.open_target(f"{prefix}/dev/fd/{write_end}", "--trace")
    made = recorder(sink)
    made.leave(made.enter("one", "phase"))
    made.flush()
    assert made.finish() == ""
    os.close(write_end)
    data = os.read(read_end, 65536)
    os.close(read_end)
    if prefix:
        assert len([json.loads(line) for line in data.splitlines()]) == 2
    else:
        assert {event["name"] for event in json.loads(data)["traceEvents"]} >= {"one", "create", "start up"}


def test_many_writers(tmp_path: Path) -> None:
    file = tmp_path / "t.json"

    def work() -> None:
        for _ in range(4):
            one_command(target.open_target(str(file), "--trace"))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sum(event["name"] == "create" for event in json.loads(file.read_text())["traceEvents"]) == 12


def test_a_name_with_the_prefix_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one_command(target.open_target("./otlp:x", "--trace"))
    assert json.loads((tmp_path / "otlp:x").read_text())["traceEvents"]


# -- OpenTelemetry ---------------------------------------------------------------------------------

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"00-{TRACE}-{PARENT}-01", (TRACE, PARENT)),
        (f"00-{TRACE}-{PARENT}-00", (TRACE, PARENT)),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-brings", (TRACE, PARENT)),
        (f"00-{TRACE}-{PARENT}-01-more", ("", "")),
        (f"ff-{TRACE}-{PARENT}-01", ("", "")),
        (f"00-{TRACE.upper()}-{PARENT}-01", ("", "")),
        (f"00-{'0' * 32}-{PARENT}-01", ("", "")),
        (f"00-{TRACE}-{'0' * 16}-01", ("", "")),
        (f"00-{TRACE}-{PARENT}", ("", "")),
        ("", ("", "")),
        ("-" * 100000, ("", "")),
    ],
)
def test_traceparent(text: str, found: tuple[str, str]) -> None:
    assert otlp.parse(text) == found


def test_span_ids_are_all_different(tmp_path: Path) -> None:
    sink = otlp.Otlp(str(tmp_path / "t"), "--trace")
    numbers = [*range(1, 20000), *range(-16385, 0)]
    ids = {sink.span_id(number) for number in numbers}
    assert len(ids) == len(numbers) and all(len(one) == 16 and one.strip("0") for one in ids)
    assert sink.span_id(0) == sink.span_id(1)
    sink.close()


def test_values() -> None:
    assert otlp.attributes({"a": 1, "b": True, "c": ["x", 2]}) == [
        {"key": "a", "value": {"intValue": "1"}},
        {"key": "b", "value": {"boolValue": True}},
        {"key": "c", "value": {"arrayValue": {"values": [{"stringValue": "x"}, {"intValue": "2"}]}}},
    ]
