"""A session whose init fails while the parent is working."""

from __future__ import annotations

import errno
import os
import pathlib
import posix
import socket
import stat
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from json_type import Json

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from plan_support import compiled
from pyrunc import handshake as h
from pyrunc.container import lifecycle
from pyrunc.errors import PyruncError, SysError
from pyrunc.idmap import map_of
from pyrunc.launch import exec, run, session, spawn
from pyrunc.log import Log
from pyrunc.spec.mappings import host_id

kept = transcript.follow()

HOST = SysError("/linux/resources/devices", "bpf(PROG_ATTACH)", errno.ENOENT)


def record(kind: int, *, step: int = 0, err: int = 0, value: int = 0, detail: bytes = b"") -> bytes:
    return struct.pack("=IIiIHHI24s208s", kind, step, err, value, 0, 0, 0, b"call", detail)


def test_an_exec_that_fails_leaves_no_descriptor(tmp_path: pathlib.Path) -> None:
    one = exec.Exec(exec.ExecOptions(id="c1", log=Log()))
    fds = [os.open(tmp_path, os.O_PATH) for _ in range(4)]
    one.ns_fds, one.cgroup_fd, one.pidfd, one.listener = {"/proc/1/ns/net": fds[0]}, fds[1], fds[2], fds[3]
    one.abandon()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


class Given:
    """Pipes in place of our stdio, and the users that they were given to."""

    def __init__(self) -> None:
        self.owners: list[tuple[int, int]] = []

    def own(self, uid: int, gid: int) -> None:
        self.owners.append((uid, gid))


def test_pipes_belong_to_the_user_of_the_program_as_the_host_knows_it() -> None:
    one, given = session.InitSession(Log()), Given()
    one.streams = given  # type: ignore[assignment]
    maps = {
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 5}],
        "gidMappings": [{"containerID": 0, "hostID": 2000, "size": 5}],
    }
    mapped: Json = {"linux": maps}
    plain: Json = {"linux": {}}
    joined: Json = {"linux": {"namespaces": [{"type": "pid"}, {"type": "user", "path": "/proc/5/ns/user"}]}}
    nobody: Json = {}
    user: Json = {"user": {"uid": 3, "gid": 4}}
    one.own_streams(mapped, nobody)
    one.own_streams(mapped, user)
    for pid in (0, os.getpid()):
        one.own_streams(plain, user, pid)  # init gives these away
    one.own_streams(joined, user)  # no process yet whose maps could be read
    one.own_streams(joined, user, os.getpid())
    one.own_streams(mapped, user, os.getpid())
    own = [host_id(map_of(os.getpid(), kind), inside) for kind, inside in (("uid", 3), ("gid", 4))]
    assert given.owners == [(1000, 2000), (1003, 2004), tuple(own), (1003, 2004)]


class Watched:
    """The supervisor of a program that has ended, and its container."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.said.append(name)


def test_a_run_gives_the_terminal_back_if_the_container_cannot_be_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def remove(container: object, log: Log, *, driver: object) -> None:
        said.append(f"with {driver}")
        raise PyruncError("it is busy")

    monkeypatch.setattr(lifecycle, "remove", remove)
    one: Any = run.Run(run.RunOptions("c1", Log()))
    one.watch = one.container = Watched(said)
    one.driver = "its driver"
    with pytest.raises(PyruncError, match="it is busy"):
        one.wait()
    assert said[-3:] == ["lock", "with its driver", "close"] and "drain" not in said


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOENT, "cgroup is gone"),
        (errno.ENODEV, "cgroup is gone"),
        (errno.EMFILE, "open"),
        (errno.EACCES, "open"),
    ],
)
def test_only_a_missing_cgroup_is_gone(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    class Container:
        data: ClassVar = {"cgroup": "/box"}

        def cgroup_directory(self) -> str:
            return "/sys/fs/cgroup/box"

    def fails(*args: object, **more: object) -> int:
        raise OSError(number, "")

    one = exec.Exec(exec.ExecOptions("c1", Log()))
    one.container = Container()  # type: ignore[assignment]
    monkeypatch.setattr(exec, "takes_processes", lambda base: True)
    monkeypatch.setattr(posix, "open", fails)
    with pytest.raises(SysError) as raised:
        one.open_cgroup()
    monkeypatch.undo()
    assert raised.value.errno == number and words in str(raised.value) and "/box" in str(raised.value)
    assert ("is gone" in str(raised.value)) == (words == "cgroup is gone")


def test_a_child_that_has_ended_is_not_killed() -> None:
    one = session.InitSession(Log())
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    one.kill_child(pid)
    assert one.stuck == ""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    one.kill_child(pid)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_only_the_device_counts_as_null(tmp_path: pathlib.Path) -> None:
    names = ["/dev/null", "/dev/zero", "/dev/full", "/dev", __file__]
    if os.geteuid() == 0:
        os.mknod(tmp_path / "block", stat.S_IFBLK | 0o600, os.makedev(1, 3))
        names.append(str(tmp_path / "block"))
    found = []
    for name in names:
        fd = os.open(name, os.O_PATH)
        found += [name] if spawn.is_null(fd) else []
        os.close(fd)
    assert found == ["/dev/null"]


class Fake(session.InitSession):
    """A session whose PID handler fails; ``queued`` holds the records that init has sent by
    then."""

    transitions = h.CREATE

    def __init__(self, theirs: socket.socket, queued: list[bytes], *, ended: bool) -> None:
        super().__init__(Log())
        self.plan = compiled({"process": {"args": ["prog"]}})
        self.plan.cgroup_path = ""
        self.theirs, self.queued, self.ended = theirs, queued, ended

    def handlers(self) -> Any:
        return {"pid": self.on_pid}

    def send_plan(self) -> None:
        pass

    def on_pid(self, record: h.Record) -> None:
        self.init_pid = record.value
        for data in self.queued:
            self.theirs.send(data)
        if self.ended:
            self.theirs.close()
        raise HOST


class Quiet:
    """No signal ever arrives."""

    def check(self) -> None:
        return None


@pytest.fixture
def child() -> Iterator[int]:
    """The pid of an init that has ended."""
    pid = os.posix_spawn("/bin/false", ["false"], {})
    yield pid
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


MOUNTED = record(h.MOUNTED)
WARN = record(h.WARN, err=errno.EPERM, detail=b"a warning")
FAIL = record(h.FAIL, step=0, err=errno.EACCES, detail=b"what init says")


@pytest.mark.parametrize(
    ("queued", "ended", "words"),
    [
        ([FAIL], True, "what init says"),
        ([FAIL], False, "what init says"),
        ([WARN, MOUNTED, FAIL], True, "what init says"),
        ([], True, "container init ended unexpectedly"),
        ([WARN], True, "container init ended unexpectedly"),
        ([], False, "bpf(PROG_ATTACH)"),  # it is running
        ([MOUNTED], False, "bpf(PROG_ATTACH)"),  # it waits for an answer
        ([WARN] * 100, False, "bpf(PROG_ATTACH)"),  # and nothing reads forever
    ],
)
def test_inits_own_failure_is_the_reason(child: int, queued: list[bytes], ended: bool, words: str) -> None:
    """systemd removes the cgroup of an init that has ended, and attaching to it fails with
    ENOENT."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made: Any = Fake(theirs, queued, ended=ended)
    made.channel.fd = ours.fileno()
    theirs.send(record(h.PID, value=child))
    with pytest.raises(PyruncError) as caught:
        made.converse(Quiet())
    assert words in str(caught.value)
    assert caught.value is HOST or caught.value.__cause__ is HOST
    theirs.close()
    ours.close()


@pytest.mark.parametrize(("step", "words"), [(h.NO_STEP, "MAP"), (0, "MAP at step 1"), (41, "MAP at step 42")])
def test_steps_in_the_debug_log_are_those_of_the_listing(step: int, words: str) -> None:
    assert session.describe(h.Record(record(h.MAP, step=step))) == words


def test_an_end_of_init_that_stays_open_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its copy in our process would hide the end of file when init ends; the child is known by
    then."""

    def fails(fd: int) -> None:
        raise OSError(errno.EIO, "")

    monkeypatch.setattr(session, "spawn_init", lambda stdio, preserved, joins: (7, 8, 4242))
    monkeypatch.setattr(posix, "close", fails)
    stub = SimpleNamespace(channel=SimpleNamespace(fd=-1), enter_pid=0, joins=False)
    with pytest.raises(OSError, match=r"^\[Errno 5\]"):
        session.InitSession.start_init(stub, [], 0)  # type: ignore[arg-type]
    assert (stub.channel.fd, stub.enter_pid) == (7, 4242)
