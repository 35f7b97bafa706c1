"""The errors of a session whose init is silent, ends, warns endlessly or is from another build."""

from __future__ import annotations

import errno
import inspect
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from plan_support import compiled
from pyrunc import fs, handshake, state
from pyrunc.api import aio
from pyrunc.api.container import Container
from pyrunc.api.runtime import Runtime
from pyrunc.container import events, lifecycle, salvage
from pyrunc.errors import PyruncError, SysError
from pyrunc.launch import channel, ending, session
from pyrunc.log import Log
from pyrunc.native import processes
from pyrunc.verbs import ps


class Heard(Log):
    """A log that keeps its lines."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def warning(self, text: str, *, aloud: bool = False) -> None:
        self.lines.append(text)

    def debug(self, text: str) -> None:
        self.lines.append(text)


class Loose(session.InitSession):
    """A session whose methods a test can replace."""


def made(kills: int = 0, **patch: Any) -> Any:
    """A session with a plan, whose container's cgroup has seen this many OOM kills."""
    one: Any = Loose(Heard())
    one.plan = compiled(patch or None)
    one.plan.cgroup_path = "/c" if kills else ""
    one.driver = SimpleNamespace(oom_kills=lambda path: kills)
    return one


def record(kind: int, *, step: int = handshake.NO_STEP, err: int = 0, value: int = 0, detail: str = "") -> Any:
    return SimpleNamespace(type=kind, step=step, err=err, value=value, call="call", detail=detail, number=0)


def ended(body: str) -> int:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", body], {})
    ending.await_end(pid)
    return pid


@pytest.mark.parametrize(("init", "enter", "named"), [(7, 0, 7), (0, 8, 8), (7, 8, 7)])
def test_who_did_not_answer(monkeypatch: pytest.MonkeyPatch, init: int, enter: int, named: int) -> None:
    monkeypatch.setattr(session, "where", lambda pid: f"<{pid}>")
    one = made()
    one.init_pid, one.enter_pid = init, enter
    assert str(one.no_answer()) == f"container init did not answer within 120 s: <{named}>"


@pytest.mark.parametrize("fails", [False, True])
def test_a_record_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    sent: list[object] = []

    def send(self: object, kind: int, value: int, fds: list[int]) -> bool:
        sent.append((kind, value, fds))
        return not fails

    monkeypatch.setattr(channel.Channel, "send", send)
    one = made()
    if fails:
        with pytest.raises(PyruncError, match="container init ended unexpectedly in state"):
            one.send(handshake.GO)
    else:
        one.send(handshake.GO)
        one.send(handshake.PLAN, 5, [6])
        assert sent == [(handshake.GO, 0, []), (handshake.PLAN, 5, [6])]


def test_warnings_of_init_have_an_end() -> None:
    one = made()
    one.step_error = lambda record: PyruncError("careful")
    most = len(one.plan.steps) + 64
    for _ in range(most):
        one.on_warn(record(handshake.WARN))
    assert one.log.lines == ["careful"] * most
    with pytest.raises(PyruncError, match=r"^container init sends too many warnings$"):
        one.on_warn(record(handshake.WARN))


@pytest.mark.parametrize(
    ("kills", "words"), [(0, "wrong"), (1, "wrong; container init was OOM-killed (memory limit too low?)")]
)
def test_a_failure_of_init(kills: int, words: str) -> None:
    one = made(kills)
    one.step_error = lambda record: PyruncError("wrong")
    with pytest.raises(PyruncError) as caught:
        one.on_fail(record(handshake.FAIL))
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("body", "profile", "words"),
    [
        ("exit 3", False, ""), ("kill -9 $$", False, ": killed by SIGKILL"),
        ("kill -9 $$", True, ": killed by SIGKILL"),
        ("exit 3", True, "; /linux/seccomp has to allow read, write, execve and exit_group"),
        ("kill -ILL $$", True, "; /linux/seccomp has to allow"),
        ("kill -TRAP $$", True, "; /linux/seccomp has to allow"),
        ("kill -ILL $$", False, ": killed by SIGILL"), ("kill -TERM $$", True, ": killed by SIGTERM"),
    ],
)  # fmt: skip
def test_an_init_that_is_gone(body: str, profile: bool, words: str) -> None:
    one = made()
    one.plan.seccomp = {"defaultAction": "SCMP_ACT_ALLOW"} if profile else None
    one.init_pid = ended(body)
    text = str(one.premature_end())
    assert text.startswith(f"container init ended unexpectedly in state {one.protocol.state}") and words in text
    assert ("/linux/seccomp" in text) == (profile and ("exit" in body or "ILL" in body or "TRAP" in body))
    assert one.init_pid == 0
    assert "OOM" in str(made(1).premature_end()) and str(made(1).premature_end()).startswith(
        "/linux/resources/memory/limit"
    )


def test_an_enter_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    one = made()
    one.enter_pid = pid = ended("exit 0")
    assert str(one.premature_end()).endswith(f"in state {one.protocol.state}") and one.enter_pid == pid

    def stays(pid: int) -> int:
        raise PyruncError("it does not end")

    monkeypatch.setattr(session, "reap", stays)
    assert str(one.premature_end()).endswith("; it does not end")


def test_the_plan_and_its_descriptors_are_sent_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    one = made()
    one.plan.fds = [("ns", "/proc/self/ns/net", "/linux/namespaces/0")]
    seen: list[Any] = []

    def send(kind: int, value: int, fds: list[int]) -> None:
        seen.append((kind, value, os.pread(fds[0], 1 << 20, 0), os.readlink(f"/proc/self/fd/{fds[1]}"), fds))

    one.send = send
    one.send_plan()
    blob = one.plan.encode()
    ((kind, size, data, link, fds),) = seen
    assert (kind, size, data) == (handshake.PLAN, len(blob), bytes(blob)) and link.startswith("net:[")
    for fd in fds:
        with pytest.raises(OSError):
            os.fstat(fd)


def test_enter_is_the_clone_in_the_cgroup() -> None:
    one = made()
    sent: list[int] = []
    one.send = lambda kind, value=0, fds=None: sent.append(kind)
    one.enter_pid = pid = ended("exit 0")
    one.on_placed(record(handshake.PLACED, value=4711))
    assert one.enter_pid == 4711 and sent == [handshake.GO]
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


@pytest.mark.parametrize("refused", [False, True])
def test_limits_that_init_sets_itself(monkeypatch: pytest.MonkeyPatch, refused: bool) -> None:
    asked: list[tuple[int, ...]] = []

    def prlimit(*args: int) -> None:
        asked.append(args)
        if refused and args[1] == 6:
            raise OSError(errno.EPERM, "")

    monkeypatch.setattr(processes, "prlimit", prlimit)
    one = made()
    one.plan.rlimits = [(7, 1, 2, "/process/rlimits/0"), (6, 3, 4, "/process/rlimits/1")]
    one.set_limits(5, put_off=6)
    most = 0xFFFFFFFFFFFFFFFF
    assert asked == [(5, 7, 1, 2), (5, 6, most, most)]
    if refused:
        with pytest.raises(SysError) as caught:
            one.set_limits(5)
        assert str(caught.value).startswith("/process/rlimits/1") and caught.value.errno == errno.EPERM
    else:
        one.set_limits(5)
        assert asked[2:] == [(5, 7, 1, 2), (5, 6, 3, 4)]


def test_the_console_of_a_foreground_program() -> None:
    one = made()
    one.opts = SimpleNamespace(console_socket="")
    theirs = one.open_slot("console", "", "")
    assert one.console >= 0 and theirs != one.console
    os.close(theirs)
    os.close(one.console)


def test_whether_a_child_has_ended() -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 0"], {})
    ending.await_end(pid)
    assert ending.has_ended(pid) is True
    os.waitpid(pid, 0)
    assert ending.has_ended(pid) is False


# -- fifos and files in the state directory --------------------------------------------------------


class Fifos:
    """A created container with its two fifos."""

    def __init__(self, top: Path) -> None:
        self.id, self.dir, self.data = "c1", str(top), {"pid": 0, "process": True}
        for name in ("start", "error", "other"):
            os.mkfifo(top / name)
        self.top = top

    def status(self) -> str:
        return "created"

    def fifo(self, kind: str) -> str:
        return f"{self.dir}/{kind}"

    def link(self, kind: str) -> None:
        (self.top / kind).unlink()
        (self.top / kind).symlink_to(self.top / "other")


@pytest.mark.parametrize("kind", ["start", "error"])
def test_a_fifo_that_is_a_link_is_not_followed(tmp_path: Path, kind: str) -> None:
    one: Any = Fifos(tmp_path)
    one.link(kind)
    fds = [os.open(tmp_path / name, os.O_RDWR | os.O_NONBLOCK) for name in ("start", "error", "other")]
    with pytest.raises(OSError) as caught:
        lifecycle.start(one, Log(), notify=False)
    assert caught.value.errno == errno.ELOOP
    if kind == "start":
        assert salvage.waiting_process(one) == 0
    for fd in fds:
        os.close(fd)


def test_a_link_in_the_state_directory_is_there(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o700)
    store = state.Store(str(tmp_path))
    store.exists()
    (tmp_path / "c1").mkdir()
    one = state.Container(store, "c1")
    assert one.has("a") is False
    (tmp_path / "c1/a").symlink_to("nowhere")
    assert one.has("a") is True


def test_statistics_of_a_container_without_a_cgroup(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def read(directory: object) -> dict[str, int]:
        asked.append(directory)
        return {"a": 1}

    monkeypatch.setattr("pyrunc.cgroup.stats.read", read)
    for data in ({}, {"cgroup_dir": None}, {"cgroup_dir": "/d"}):
        one: Any = SimpleNamespace(id="c1", data=data, status=lambda: "running")
        assert events.measure(one) == {"type": "stats", "id": "c1", "data": {"a": 1}}
    assert asked == ["", "", "/d"]


def test_ps_knows_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ps").symlink_to(os.path.realpath(sys.executable))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ps.run_ps(["-ISc", "import sys; print(sys.orig_argv[0], sys.orig_argv[1])"]) == "ps -ISc\n"


# -- two forms of one API --------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "theirs"), [(aio.AsyncContainer, Container), (aio.AsyncRuntime, Runtime)])
def test_calls_for_asyncio_have_the_same_parameters(ours: Any, theirs: Any) -> None:
    compared = 0
    for name in (name for name in vars(theirs) if not name.startswith("_") and name in vars(ours)):
        first, second = getattr(theirs, name), getattr(ours, name)
        if inspect.isfunction(first) and inspect.isfunction(second):
            known, found = inspect.signature(first).parameters, inspect.signature(second).parameters
            defaults = {key: one.default for key, one in known.items()}
            assert {key: one.default for key, one in found.items() if key in defaults} == {
                key: value for key, value in defaults.items() if key in found
            }, name
            compared += 1
    assert compared >= 4


@pytest.mark.parametrize(("name", "number"), [("HUP", signal.SIGHUP), ("TERM", signal.SIGTERM), ("9", 9)])
def test_an_end_is_not_mistaken(name: str, number: int) -> None:
    pid = ended(f"kill -{name} $$")
    status = ending.reap(pid)
    assert os.WTERMSIG(status) == number and fs.exists("/proc/self")
