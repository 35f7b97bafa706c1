"""pyrunc.api without a container: the options of exec field by field, errors of a program, its
streams and its child object."""

from __future__ import annotations

import gc
import inspect
import logging
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import pyrunc
import transcript
from pyrunc import api, host, procfs
from pyrunc.api import aio, children, container, documents, library, programs, runtime, stdio
from pyrunc.errors import PyruncError, SysError, UsageError
from test_api import PIPES, spawned

SHOWN = (
    "root",
    "args",
    "flags",
    "process",
    "document",
    "cgroup",
    "ignore_paused",
    "tools",
    "console_socket",
    "pid_file",
)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({}, {}),
        ({"cwd": "/c"}, {"flags": {"cwd": "/c"}}),
        ({"user": "u"}, {"flags": {"user": "u"}}),
        ({"apparmor": "a"}, {"flags": {"apparmor": "a"}}),
        ({"selinux_label": "l"}, {"flags": {"process-label": "l"}}),
        ({"no_new_privileges": False}, {"flags": {"no-new-privs": False}}),
        ({"tty": True}, {"flags": {"tty": True}}),
        ({"env": {"A": "1", "B": ""}}, {"flags": {"env": ["A=1", "B="]}}),
        ({"capabilities": ("CAP_A",)}, {"flags": {"cap": ["CAP_A"]}}),
        ({"groups": (1, 2)}, {"flags": {"additional-gids": ["1", "2"]}}),
        ({"process": {"args": ["x"]}}, {"process": "process", "document": {"args": ["x"]}}),
        ({"cgroup": "/g"}, {"cgroup": ["/g"]}),
        ({"cgroup": ""}, {}),
        ({"ignore_paused": True}, {"ignore_paused": True}),
        ({"tools": "/t"}, {"tools": "/t"}),
        ({"console_socket": "/s", "pid_file": "/p"}, {"console_socket": "/s", "pid_file": "/p"}),
    ],
)
def test_options_of_exec(tmp_path: Path, options: Any, changed: Any) -> None:
    container = pyrunc.Container(pyrunc.Runtime(root=tmp_path), "c1")
    streams = stdio.Stdio(*[pyrunc.DEVNULL] * 3)
    found = container._execution(["a"], options, streams)
    streams.close()
    flags = {"env": [], "cap": [], "additional-gids": [], **changed.pop("flags", {})}
    defaults: dict[str, Any] = {
        "root": str(tmp_path), "args": ["a"], "process": "", "document": None, "cgroup": [], "ignore_paused": False,
        "tools": "", "console_socket": "", "pid_file": "",
    }  # fmt: skip
    assert {name: getattr(found, name) for name in SHOWN} == defaults | {"flags": flags} | changed
    assert found.id == "c1"


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        ([], {}, "exec: expected arguments, or the option process"),
        (["a"], {"process": {}}, "exec: expected arguments, or the option process"),
        ("ls", {}, "exec: expected a list of arguments, not a string"),
        (["a"], {"tools": ""}, "tools='': expected the absolute path of a directory"),
        (["a"], {"tools": "t"}, "tools='t': expected the absolute path of a directory"),
    ],
)
def test_options_of_exec_that_are_refused(tmp_path: Path, args: Any, options: Any, words: str) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(UsageError) as caught:
        pyrunc.Container(pyrunc.Runtime(root=tmp_path), "c1").exec(args, **options)
    assert str(caught.value) == words and sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        (b"", '["a", "b"] ended with status 3'), (b"one\ntwo\n", '["a", "b"] ended with status 3: two'),
        (b"\xff", '["a", "b"] ended with status 3: \ufffd'), (b" \n", '["a", "b"] ended with status 3'),
    ],
)  # fmt: skip
def test_a_program_that_failed(stderr: bytes, words: str) -> None:
    completed = programs.Completed(("a", "b"), 3, b"out", stderr)
    error = programs.ProgramFailed(completed)
    assert str(error) == words and error.returncode == 3 and error.completed is completed


def test_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[Any] = []

    def execute(self: Any, args: Any, **options: Any) -> Any:
        given.append(options)
        streams = [options[name] for name in ("stdin", "stdout", "stderr")]
        return spawned(args[0], *streams)

    monkeypatch.setattr(pyrunc.Container, "exec", execute)
    one = pyrunc.Container(pyrunc.Runtime(root=tmp_path), "c1")
    done = one.call(["cat; echo e >&2; exit 4"], input=b"in")
    assert (done.returncode, done.stdout, done.stderr) == (4, b"in", b"e\n")
    assert given.pop() == {"stdin": pyrunc.PIPE, "stdout": pyrunc.PIPE, "stderr": pyrunc.PIPE}
    assert one.call(["cat"], check=True, stdout=pyrunc.DEVNULL).stdout == b""
    assert given.pop() == {"stdin": pyrunc.DEVNULL, "stdout": pyrunc.DEVNULL, "stderr": pyrunc.PIPE}
    with pytest.raises(programs.ProgramFailed, match=r"status 4: no$"):
        one.call(["echo no >&2; exit 4"], check=True)
    with pytest.raises(TimeoutError):
        one.call(["sleep 100"], timeout=0.05)


class First:
    """A first process that ends within a second."""

    returncode = 7

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def poll(self) -> None:
        self.calls.append("poll")

    def wait(self, timeout: float | None) -> bool:
        self.calls.append(timeout)
        return timeout != 0.5


def test_the_end_of_a_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = pyrunc.Container(pyrunc.Runtime(root=tmp_path), "c1")
    assert one.returncode is None
    child: Any = First()
    monkeypatch.setattr(one, "_watched", lambda: child)
    assert one.wait() == 7 and one.wait(3.0) == 7 and child.calls == [None, 3.0]
    with pytest.raises(TimeoutError, match=r"^container c1 has not stopped within 0\.5 s$"):
        one.wait(0.5)
    one._child = child
    assert one.returncode == 7 and child.calls[-1] == "poll"
    monkeypatch.setattr(one, "_watched", lambda: None)
    assert one.wait() is None


# -- processes -------------------------------------------------------------------------------------


def test_a_process() -> None:
    with spawned("exec sleep 100", *PIPES) as process:
        assert repr(process) == f"<Process {process.pid} ['sh', '-c', 'exec sleep 100'] returncode=None>"
        assert process.returncode is None and process.poll() is None and process.__enter__() is process
        assert f"Pid:\t{process.pid}\n" in Path(f"/proc/self/fdinfo/{process.fileno()}").read_text()
        with pytest.raises(TimeoutError, match=rf"^process {process.pid} has not ended within 0\.01 s$"):
            process.wait(0.01)
        with pytest.raises(SysError, match=rf"^process {process.pid}: pidfd_send_signal: EINVAL"):
            process.kill(999)
        process.kill(signal.SIGTERM)
        assert process.wait(10) == 143
        process.kill("TERM")  # it has ended
    assert process.fileno() == -1 and process.stdin is not None and process.stdin.closed
    with spawned("exec sleep 100", *PIPES) as process:
        process.kill("USR1")
        assert process.wait(10) == 138
        process.close()
        assert process.stdout is not None and process.stdout.closed


def test_an_error_in_the_block_is_raised() -> None:
    with pytest.raises(KeyError), spawned("exec sleep 100", *PIPES) as process:
        raise KeyError
    assert process.returncode == 137


def test_output_after_the_input_is_closed() -> None:
    with spawned("exec <&-; sleep 0.05; echo out", *PIPES) as process:
        assert process.communicate(b"x" * 300000, timeout=10) == (b"out\n", b"")
    with spawned("echo a; echo b >&2", pyrunc.DEVNULL, pyrunc.PIPE, pyrunc.PIPE) as process:
        assert process.stdin is None and process.communicate() == (b"a\n", b"b\n") == process.communicate()
    with spawned("exec >&- 2>&-; exec sleep 100", *PIPES) as process, pytest.raises(TimeoutError):
        process.communicate(timeout=0.05)
    begun = time.monotonic()
    with spawned("exec sleep 100", *PIPES) as process:
        with pytest.raises(TimeoutError, match="the program has not closed its output"):
            process.communicate(timeout=0.05)
        assert time.monotonic() - begun >= 0.05


def test_a_base_without_streams() -> None:
    one = programs.Program()
    assert (one.stdin, one.stdout, one.stderr) == (None, None, None)
    with pytest.raises(NotImplementedError):
        one.wait()


# -- children --------------------------------------------------------------------------------------


def child(status: int = 0) -> tuple[int, int]:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"exit {status}"], os.environ)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid, procfs.process_stat(pid)[1]


def test_a_child_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(library, "reaped", told.append)
    pid, start = child(9)
    one = children.known(pid, start)
    assert one is not None and (one.ended, one.returncode) == (False, None)
    one.close()
    assert one.fd >= 0  # it is not known to have ended
    assert one.poll() and one.poll() and (one.ended, one.returncode) == (True, 9) and told == [pid]
    assert one.wait(None) and one.wait(0)
    fd = one.fd
    one.close()
    one.close()
    assert one.fd == -1 and not Path(f"/proc/self/fd/{fd}").exists()
    assert children.known(pid, start + 7) is None


def test_waiting_for_a_child_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "100"], os.environ)
    one = children.Child(pid, os.pidfd_open(pid))
    polled: list[int] = []
    real = children._poll

    def polls(fd: int, most: int) -> list[tuple[int, int]]:
        polled.append(most)
        if most > 1000:
            os.kill(pid, 9)
        return real(fd, 1)

    monkeypatch.setattr(children, "_poll", polls)
    assert one.wait(0.02) is False and polled and all(1 <= most <= 20 for most in polled) and one.wait(0) is False
    assert one.wait(1e9) and polled[-1] == 1 << 30
    assert one.returncode == 137
    one.close()


def test_the_child_of_another() -> None:
    """Its end is seen, and its status is not."""
    pid = os.getppid()
    one = children.Child(pid, os.pidfd_open(pid))
    assert not one.poll() and one.returncode is None
    del one
    gc.collect()
    assert pid not in children._forgotten


def test_abandoned_children(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(library, "reaped", told.append)
    pid, start = child()
    children.known(pid, start)  # nobody keeps it
    gc.collect()
    assert told == [pid] and pid not in children._forgotten and not Path(f"/proc/{pid}").exists()
    pid, _ = child()
    children._forgotten.add(pid)
    gone, _ = child()
    os.waitpid(gone, 0)
    children._forgotten.add(gone)
    children.reap_forgotten()
    assert sorted(told[1:]) == sorted([pid, gone]) and not {pid, gone} & children._forgotten


def test_a_descriptor_is_taken_over() -> None:
    pid, start = child()
    fds = [os.pidfd_open(pid) for _ in range(2)]
    one = children.known(pid, start, fds[0])
    assert one is not None and one.fd == fds[0]
    assert children.known(pid, start, fds[1]) is one and not Path(f"/proc/self/fd/{fds[1]}").exists()
    assert one.poll()
    one.close()


# -- streams and messages --------------------------------------------------------------------------


def test_the_streams_of_the_caller(tmp_path: Path) -> None:
    with open(tmp_path / "f", "w+b") as file:
        made = stdio.Stdio(file, file.fileno(), pyrunc.PIPE)
        assert [os.readlink(f"/proc/self/fd/{fd}") for fd in made.theirs[:2]] == [str(tmp_path / "f")] * 2
        assert made.ours[:2] == [-1, -1] and made.ours[2] >= 0
        made.close()
    made = stdio.Stdio(pyrunc.PIPE, pyrunc.DEVNULL, pyrunc.INHERIT)
    os.write(made.ours[0], b"in")
    assert os.read(made.theirs[0], 9) == b"in" and os.path.sameopenfile(made.theirs[2], 2)
    assert os.readlink(f"/proc/self/fd/{made.theirs[1]}") == "/dev/null"
    os.write(made.theirs[1], b"x")
    made.close()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        wanted = [pyrunc.DEVNULL] * 3
        wanted[number] = -7
        with pytest.raises(UsageError) as caught:
            stdio.Stdio(*wanted)
        assert str(caught.value) == f"{name}=-7: expected a descriptor, a file, PIPE, DEVNULL or INHERIT"


def test_messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "pyrunc")
    heard: list[str] = []
    one = library.Messages(heard.append)
    one.debug("d %s")
    one.info("i")
    one.error("e")
    for number in range(library._WARNINGS + 1):
        one.warning(f"w{number}")
    assert one.found == [f"w{number}" for number in range(library._WARNINGS)] and len(heard) == library._WARNINGS + 1
    rows = [(record.name, record.levelname, record.getMessage()) for record in caplog.records[:4]]
    assert rows == [("pyrunc", level, text) for level, text in
                    (("DEBUG", "d %s"), ("INFO", "i"), ("ERROR", "e"), ("WARNING", "w0"))]  # fmt: skip
    library.Messages().warning("x")
    none = library._NoSignals()
    none.check()
    none.restore()
    assert none.caught == 0


def test_sessions_need_the_status_of_children() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(UsageError, match="SIGCHLD is ignored in this process"):
            library.Library.execute(SimpleNamespace())  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGCHLD, before)
    with pytest.raises(PyruncError):
        raise library.as_error(OSError(2, "x"))


def test_reading_what_is_there() -> None:
    one = programs.Program()
    reader, writer = os.pipe()
    with open(reader, "rb") as one.stdout:
        os.set_blocking(reader, False)
        assert one._receive(one.stdout) is False and one._read["stdout"] == []
        os.write(writer, b"ab")
        assert one._receive(one.stdout) is False and one._read == {"stdout": [b"ab"], "stderr": []}
        os.close(writer)
        assert one._receive(one.stdout) is True and b"".join(one._read["stdout"]) == b"ab"


def test_writing_what_fits() -> None:
    one = programs.Program()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    one._unsent = memoryview(bytes(1 << 20))
    with open(writer, "wb", buffering=0) as stream:
        while one._send(stream) is False and len(one._unsent) > (1 << 20) - 65536:
            pass
        left = len(one._unsent)
        while os.get_blocking(writer) is False and one._send(stream) is False and len(one._unsent) != left:
            left = len(one._unsent)
        assert 0 < left < 1 << 20 and one._send(stream) is False and len(one._unsent) == left  # it is full
        one._unsent = one._unsent[:10]
        os.read(reader, 65536)
        assert one._send(stream) is True and not one._unsent
        os.close(reader)
        one._unsent = memoryview(b"x")
        assert one._send(stream) is True  # nobody reads it


def test_a_child_is_not_reaped_when_the_program_exits() -> None:
    """At exit, other code may already have been unloaded."""
    reader, writer = os.pipe()
    child = children.Child(4_000_000, reader)
    assert not child._close.atexit
    child.ended = True
    child.close()
    assert child.fd == -1 and not child._close.alive
    os.close(writer)


# -- plans, problems, lists ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("/mounts", ["/mounts/0", "/mounts/0/options/1", "/mounts/01"]),
        ("/mounts/", ["/mounts/0", "/mounts/0/options/1", "/mounts/01"]),
        ("/mounts/0", ["/mounts/0", "/mounts/0/options/1"]),
        ("/annotations/aX", ["/annotations/aX/b"]),
        ("/annotations", ["/annotations/aX/b"]),
        ("/mount", []),
        ("/", ["/mounts/0", "/mounts/0/options/1", "/mounts/01", "/annotations/aX/b"]),
    ],
)
def test_steps_of_a_field(pointer: str, found: list[str]) -> None:
    pointers = ("(default)", "/mounts/0", "/mounts/0/options/1", "/mounts/01", "/annotations/aX/b")
    steps = tuple(documents.Step(0, "SETUP", "MOUNT", {}, (), one) for one in pointers)
    unused: Any = None
    assert [step.pointer for step in documents.Plan(steps, "", (), unused, unused).of(pointer)] == found


def test_an_error_of_the_kernel_while_validating(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot() -> None:
        raise OSError(5, "Input/output error", "/proc/cpuinfo")

    monkeypatch.setattr(host, "snapshot", snapshot)
    with pytest.raises(SysError, match="/proc/cpuinfo"):
        pyrunc.validate({"ociVersion": "1.0.0", "root": {"path": "/r"}}, on_this_host=True)


def test_the_containers_of_a_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    class Listing:
        def __init__(self, *names: str) -> None:
            self.names = names or ("default",)

        def list(self) -> list[str]:
            return [*self.names]

    monkeypatch.setattr("pyrunc.api.runtime.Runtime", Listing)
    given: Any = Listing("a", "b")
    found: list[Any] = [pyrunc.Container.list(given), pyrunc.Container.list()]
    assert found == [["a", "b"], ["default"]]


# -- the surface -----------------------------------------------------------------------------------

CLASSES: list[type] = [
    runtime.Runtime, container.Container, programs.Process, programs.Program, aio.AsyncRuntime, aio.AsyncContainer,
    aio.AsyncProcess, documents.Problems, library.Messages,
]  # fmt: skip


def parameters(call: Any) -> str:
    """The names and the defaults of a call's parameters."""
    found = inspect.signature(call).parameters.values()
    return ", ".join(
        f"{one.kind.name.lower()} {one.name}" + ("" if one.default is one.empty else f"={one.default!r}")
        for one in found
        if one.name != "self"
    )


def test_names_and_defaults() -> None:
    """A change of one is a change for callers."""
    lines = [
        *sorted(api.__all__),
        f"pyrunc.plan: {parameters(api._Callable.__call__)}",
        f"plan: {parameters(documents.plan)}",
    ]
    lines.append(f"validate: {parameters(documents.validate)}")
    kind: Any
    for kind in CLASSES:
        calls = {name: value for name, value in sorted(vars(kind).items()) if inspect.isfunction(value)}
        lines += [f"{kind.__name__}.{name}: {parameters(call)}" for name, call in calls.items() if name[0] != "_"]
        lines.append(f"{kind.__name__}: {parameters(kind.__init__)}")
    transcript.compare("api_names", "names and defaults", lines)


def test_bases_are_initialized() -> None:
    messages, problems = library.Messages(), documents.Problems([api.Problem("/a", "b", "c")])
    assert not (messages.debugging or messages.to_file or messages.json)
    assert [one.pointer for one in problems] == ["/a"] and problems.more == 0
    one = container.Container(runtime.Runtime(), "c1")
    assert (one.stdin, one.stdout, one.stderr) == (None, None, None)
    assert any(isinstance(one, logging.NullHandler) for one in logging.getLogger("pyrunc").handlers)
