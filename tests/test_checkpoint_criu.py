"""pyrunc.checkpoint.criu against a peer that has queued its packets, and a program named criu."""

from __future__ import annotations

import os
import posix
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from pyrunc.checkpoint import criu, messages, nest, protobuf
from pyrunc.checkpoint.criu import Criu, CriuError
from pyrunc.errors import PyruncError, SysError
from pyrunc.native import processes, sockets


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def debug(self, text: str) -> None:
        self.lines.append(text)


class Peer:
    """Criu, and the other end of its socket."""

    def __init__(self) -> None:
        self.log, self.checks = Log(), 0
        self.criu = Criu(self.log, self.check)  # type: ignore[arg-type]
        self.criu.sock, self.sock = sockets.socketpair()

    def check(self) -> None:
        self.checks += 1

    def says(self, fd: int = -1, **fields: Any) -> None:
        data = protobuf.encode(messages.RESPONSE, fields)
        sockets.send(self.sock, data, [fd] if fd >= 0 else [])

    def got(self) -> list[Any]:
        """All requests so far."""
        out = []
        while True:
            try:
                out.append(protobuf.decode(messages.REQUEST, sockets.receive(self.sock, 65536, 0)))
            except (TimeoutError, BlockingIOError):
                return out


@pytest.fixture
def peer() -> Iterator[Peer]:
    one = Peer()
    yield one
    for fd in {one.criu.sock, one.sock} - {-1}:
        os.close(fd)


# -- requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "number", "error"),
    [
        ({"major": 3, "minor": 15}, 31500, ""),
        ({"major": 4, "minor": 1, "sublevel": 1}, 40101, ""),
        ({"major": 3, "minor": 14, "gitid": "v3.14-2"}, 31500, ""),
        ({"major": 4, "minor": 1, "sublevel": 1, "gitid": "v4"}, 40200, ""),
        ({"major": 3, "minor": 14, "sublevel": 99}, 31499, "criu: version 3.14 is too old"),
        ({"minor": 99}, 9900, "criu: version 0.99 is too old; checkpoint and restore need 3.15 or later"),
        ({"major": 1}, 10000, "criu: version 1.0 is too old"),
    ],
)
def test_versions(peer: Peer, found: dict[str, Any], number: int, error: str) -> None:
    peer.says(type=messages.VERSION, success=True, version=found)
    if error:
        with pytest.raises(PyruncError) as caught:
            peer.criu.prepare()
        assert str(caught.value).startswith(error)
    else:
        peer.criu.prepare()
    assert peer.criu.version == number and peer.log.lines == [f"criu: version {number}"]
    assert peer.got() == [{"type": messages.VERSION, "keep_open": True}]


@pytest.mark.parametrize(
    ("there", "error"),
    [
        ({"mem_track": True, "lazy_pages": True}, ""),
        ({"mem_track": True}, "criu: this kernel or CRIU lacks what is needed userfaultfd (--lazy-pages)"),
        (
            {"mem_track": False, "lazy_pages": True},
            "criu: this kernel or CRIU lacks what is needed to track memory changes (--pre-dump, --parent-path)",
        ),
        (None, "criu: this kernel or CRIU lacks what is needed to track memory"),
    ],
)
def test_features(peer: Peer, there: dict[str, bool] | None, error: str) -> None:
    peer.says(type=messages.VERSION, success=True, version={"major": 4})
    peer.says(type=messages.FEATURE_CHECK, success=True, features=there)
    if error:
        with pytest.raises(PyruncError) as caught:
            peer.criu.prepare(["mem_track", "lazy_pages"])
        assert str(caught.value).startswith(error)
    else:
        peer.criu.prepare(["mem_track", "lazy_pages"])
    wanted = {"mem_track": True, "lazy_pages": True}
    assert peer.got()[1] == {"type": messages.FEATURE_CHECK, "keep_open": True, "features": wanted}


def test_notifications_are_answered_until_the_reply(peer: Peer) -> None:
    reader, writer = os.pipe()
    peer.says(type=messages.NOTIFY, success=True, notify={"script": "one", "pid": 7}, fd=writer)
    peer.says(type=messages.NOTIFY, success=True)
    peer.says(type=messages.RESTORE, success=True, restore={"pid": 9})
    os.close(writer)
    told: list[Any] = []

    def notified(script: str, pid: int, fd: int) -> None:
        told.append((script, pid, fd >= 0))
        if fd >= 0:
            os.write(fd, b"x")

    answer = {"type": messages.NOTIFY, "notify_success": True}
    assert peer.criu.ask({"type": messages.RESTORE, "opts": {}}, notified)["restore"] == {"pid": 9}
    assert told == [("one", 7, True), ("", 0, False)] and peer.log.lines == ["criu: one", "criu: "]
    assert peer.got() == [{"type": messages.RESTORE, "opts": {}}, answer, answer]
    assert os.read(reader, 9) == b"x" and os.read(reader, 9) == b""  # the received descriptor is closed
    os.close(reader)
    assert peer.checks == 3  # for signals, with each packet


def test_a_restore_stops_at_a_notification(peer: Peer) -> None:
    for script in ("setup-namespaces", "post-restore"):
        peer.says(type=messages.NOTIFY, success=True, notify={"script": script})
    peer.says(type=messages.RESTORE, success=True)
    answer = {"type": messages.NOTIFY, "notify_success": True}
    assert peer.criu.ask({"type": messages.RESTORE}, None, "post-restore") == {}
    assert peer.got() == [{"type": messages.RESTORE}, answer]
    assert peer.criu.go_on(messages.RESTORE, None) == {"type": messages.RESTORE, "success": True}
    assert peer.got() == [answer]


def test_an_error_of_a_handler_closes_the_descriptor(peer: Peer) -> None:
    reader, writer = os.pipe()
    peer.says(type=messages.NOTIFY, success=True, notify={"script": "x"}, fd=writer)
    os.close(writer)

    def notified(script: str, pid: int, fd: int) -> None:
        raise PyruncError("no")

    with pytest.raises(PyruncError, match=r"^no$"):
        peer.criu.ask({"type": messages.DUMP}, notified)
    assert os.read(reader, 9) == b"" and peer.got() == [{"type": messages.DUMP}]
    os.close(reader)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({"type": messages.DUMP, "success": False}, "criu: failed"),
        ({"type": messages.DUMP}, "criu: failed"),
        ({"type": messages.DUMP, "success": False, "cr_errmsg": " why \n"}, "criu: why"),
        ({"type": messages.DUMP, "success": False, "cr_errno": 1}, "criu: EPERM: operation not permitted"),
        (
            {"type": messages.DUMP, "success": False, "cr_errno": 2, "cr_errmsg": "why"},
            "criu: why: ENOENT: path not found",
        ),
        ({"type": messages.DUMP, "success": False, "cr_errno": -1, "cr_errmsg": "why"}, "criu: why"),
        ({"type": messages.RESTORE, "success": True}, "criu: a reply of type 2 to type 1"),
    ],
)
def test_replies_that_are_failures(peer: Peer, reply: dict[str, Any], words: str) -> None:
    peer.says(**reply)
    with pytest.raises(CriuError) as caught:
        peer.criu.ask({"type": messages.DUMP})
    assert str(caught.value) == words


def test_an_unreadable_message(peer: Peer) -> None:
    reader, writer = os.pipe()
    sockets.send(peer.sock, b"\x0b", [writer])
    os.close(writer)
    with pytest.raises(CriuError, match=r"^criu: unreadable message: .*wire type 3"):
        peer.criu.ask({"type": messages.DUMP})
    assert os.read(reader, 1) == b""
    os.close(reader)


# -- the end ---------------------------------------------------------------------------------------


def child(status: int = 0, number: int = 0) -> int:
    pid = os.fork()
    if pid == 0:
        if number:
            os.kill(os.getpid(), number)
        os._exit(status)
    return pid


@pytest.mark.parametrize(
    ("status", "number", "words"),
    [
        (3, 0, "criu ended without a reply (exit status 3)"), (0, 0, "criu ended without a reply (exit status 0)"),
        (0, signal.SIGKILL, "criu was killed by SIGKILL"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("closed", [True, False])
def test_a_criu_that_ends(peer: Peer, status: int, number: int, words: str, closed: bool) -> None:
    """Its end of the socket may stay open in processes that it was restoring."""
    peer.criu.pid = child(status, number)
    os.waitid(os.P_PID, peer.criu.pid, os.WEXITED | os.WNOWAIT)
    if closed:
        os.close(peer.sock)
        peer.sock = -1
    with pytest.raises(CriuError) as caught:
        peer.criu.ask({"type": messages.DUMP})
    assert str(caught.value) == words and peer.criu.pid == 0


def test_a_criu_that_does_not_read_is_not_waited_for(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    def fails(sock: int, data: bytes) -> int:
        sent.append(len(data))
        raise OSError(90, "")

    monkeypatch.setattr(sockets, "send", fails)
    monkeypatch.setattr(criu, "make_room", lambda sock, size: sent.append(-size))
    peer.criu.pid = os.fork()
    if peer.criu.pid == 0:
        signal.pause()
        os._exit(0)
    with pytest.raises(SysError, match=r"^criu: send: EMSGSIZE"):
        peer.criu.send({"type": messages.DUMP})
    assert peer.criu.pid > 0 and sent == [2, -2, 2]
    peer.criu.kill()
    assert peer.criu.pid == 0 and peer.criu.sock == -1
    peer.criu.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="SO_SNDBUFFORCE needs CAP_NET_ADMIN")
def test_a_request_with_thousands_of_mounts(peer: Peer) -> None:
    """It is longer than the packets that a socket usually takes (net.core.wmem_max)."""
    entries = [{"key": f"/a/long/name/of/a/mount/{number}", "val": "x" * 60} for number in range(8000)]
    request = {"type": messages.RESTORE, "opts": {"ext_mnt": entries}}
    peer.criu.send(request)
    assert protobuf.decode(messages.REQUEST, sockets.receive(peer.sock, 1 << 20, 0)) == request


def test_finish_returns_the_status_once(peer: Peer) -> None:
    peer.criu.pid = child(5)
    assert os.waitstatus_to_exitcode(peer.criu.finish()) == 5
    assert peer.criu.sock == -1 and peer.criu.finish() == 0 and peer.criu.wait() == 0
    peer.criu.pid = child()
    os.waitpid(peer.criu.pid, 0)  # reaped by another part of the program
    assert peer.criu.finish() == 0 and peer.criu.pid == 0


def test_a_criu_that_does_not_exit(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[int, int]] = []

    def waits(pid: int, most: int) -> None:
        tried.append((pid, most))
        raise TimeoutError if len(tried) % 2 else InterruptedError

    monkeypatch.setattr(processes, "await_end", waits)
    peer.criu.pid = 77
    with pytest.raises(CriuError, match=r"^criu \(pid 77\) did not exit$"):
        peer.criu.wait()
    assert sum(most for _, most in tried) == 10_000 and {pid for pid, _ in tried} == {77} and peer.criu.pid == 77


def test_signals_are_looked_for_while_criu_works(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []

    def waits(sock: int, most: int, limit: int) -> tuple[bytes, int]:
        limits.append(limit)
        raise TimeoutError

    def check() -> None:
        peer.checks += 1
        if peer.checks == 3:
            raise PyruncError("interrupted")

    monkeypatch.setattr(sockets, "receive_descriptor", waits)
    monkeypatch.setattr(criu, "has_ended", lambda pid: False)
    peer.criu.check = check
    with pytest.raises(PyruncError, match="interrupted"):
        peer.criu.receive()
    assert limits == [500, 500, 500]


# -- the program -----------------------------------------------------------------------------------

SCRIPT = """#!/bin/sh
found=$(echo "$0|$*|$PATH|$KEPT"; for fd in /proc/$$/fd/*; do echo "${fd##*/} $(readlink $fd)"; done)
echo "$found" >OUT.new
mv OUT.new OUT
exit 4
"""


def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A criu that writes its arguments, environment and descriptors to a file."""
    (tmp_path / "criu").write_text(SCRIPT.replace("OUT", f"{tmp_path}/out"))
    (tmp_path / "criu").chmod(0o755)
    monkeypatch.setitem(posix.environ, b"PATH", f"{tmp_path}:/usr/bin:/bin".encode())
    monkeypatch.setitem(posix.environ, b"KEPT", b"yes")
    return tmp_path / "out"


def test_what_criu_inherits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = program(tmp_path, monkeypatch)
    opened = {name: os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("a", "b", "c", "secret")}
    os.set_inheritable(opened["secret"], True)
    before = sorted(os.listdir("/proc/self/fd"))
    one = Criu(Log(), lambda: None)  # type: ignore[arg-type]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        one.spawn((opened["a"], opened["a"], opened["b"]), (opened["c"],))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1 and not os.get_inheritable(one.sock)
    assert os.waitstatus_to_exitcode(one.finish()) == 4 and sorted(os.listdir("/proc/self/fd")) == before
    first, *fds = out.read_text().splitlines()
    assert first == f"{tmp_path}/criu|swrk 3|{tmp_path}:/usr/bin:/bin|yes"
    found = dict(line.split(" ", 1) for line in fds)
    assert [found[n].rpartition("/")[2] for n in "0124"] == ["a", "a", "b", "c"]
    assert found["3"].startswith("socket:") and not any("secret" in target for target in found.values())
    for number in opened.values():
        os.close(number)


def test_where_criu_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(posix.environ, b"PATH", raising=False)
    assert criu.environment()[b"PATH"] == b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    monkeypatch.setattr(criu, "PATH", f"{tmp_path}/none:{tmp_path}")
    (tmp_path / "criu").write_text("")
    with pytest.raises(PyruncError, match=r"^criu: not found in \$PATH; checkpoint and restore need CRIU 3\.15"):
        criu.find()  # it is not executable
    (tmp_path / "criu").chmod(0o755)
    assert criu.find() == f"{tmp_path}/criu"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(posix.environ, b"PATH", b"/nowhere:")  # an empty entry is the working directory
    assert criu.find() == "./criu"


def test_no_socket_for_criu(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> tuple[int, int]:
        raise OSError(24, "")

    monkeypatch.setattr(sockets, "socketpair", fails)
    with pytest.raises(SysError, match=r"^criu: socketpair: EMFILE") as caught:
        criu.socketpair()
    assert caught.value.errno == 24


# -- the fork of a restore -------------------------------------------------------------------------


def test_a_nest_that_is_closed_ends_its_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch)
    one = nest.Nest("/r", "/top/c1/criu", "/top", cgroup_namespace=False)
    before = sorted(os.listdir("/proc/self/fd"))
    one.fork((0, 1, 2), (), lambda root: [])
    assert one.release >= 0 and one.report >= 0 and len(os.listdir("/proc/self/fd")) == len(before) + 2
    one.close()
    assert (one.release, one.report) == (-1, -1) and sorted(os.listdir("/proc/self/fd")) == before
    assert os.waitstatus_to_exitcode(os.waitpid(one.pid, 0)[1]) == 127
    one.close()


def test_the_places_of_a_nest() -> None:
    one = nest.Nest("/r", "/top/c1/criu", "/top", cgroup_namespace=False)
    assert one.root == "/top/rootfs"
    cases = {"/top/c1/criu/null": "/top/null", "/dev/x": "/dev/x", "/top/c1/criux": "/top/c1/criux"}
    assert {path: one.final(path) for path in cases} == cases


def test_an_error_of_the_nest_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch)
    for error, words in ((PyruncError("/mounts/0: no"), "/mounts/0: no"), (ValueError("odd"), "criu: odd")):
        one = nest.Nest("/r", str(tmp_path / "stage"), str(tmp_path), cgroup_namespace=False)

        def leave(error: Exception = error) -> list[int]:
            raise error

        monkeypatch.setattr(nest.Nest, "leave", lambda self, leave=leave: leave())
        one.fork((0, 1, 2), (), lambda root: [])
        with pytest.raises(PyruncError) as caught:
            one.go()
        assert str(caught.value) == words and one.release == -1
        assert os.waitstatus_to_exitcode(os.waitpid(one.pid, 0)[1]) == 127


def test_a_nest_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch)
    one = nest.Nest("/r", str(tmp_path / "stage"), str(tmp_path), cgroup_namespace=False)
    one.fork((0, 1, 2), (), lambda root: [])
    os.kill(one.pid, signal.SIGKILL)
    os.waitpid(one.pid, 0)
    with pytest.raises(PyruncError, match=r"^criu was killed before it was executed$"):
        one.go()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("own", [False, True])
def test_a_nest_executes_criu_in_its_own_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    """CRIU must find the root filesystem and the staged mounts below ``top``, and nothing else of
    ours."""
    for name in ("bin", "root/below", "top/c1/criu", "images", "work"):
        (tmp_path / name).mkdir(parents=True)
    out = program(tmp_path / "bin", monkeypatch)
    files = {name: os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("in", "secret")}
    images = os.open(tmp_path / "images", os.O_RDONLY)
    os.set_inheritable(files["secret"], True)
    top, stage = str(tmp_path / "top"), str(tmp_path / "top/c1/criu")
    one = nest.Nest(str(tmp_path / "root"), stage, top, cgroup_namespace=own)
    one.directories = ((str(tmp_path / "images"), images),)
    mine = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "cgroup")}

    def look(root: int) -> list[dict[str, str]]:
        seen = {kind: str(os.readlink(f"/proc/self/ns/{kind}") != mine[kind]) for kind in mine}
        os.mkdir(f"{stage}/made")
        lines = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {stage}" in line]
        tmpfs = any(" - tmpfs " in line and line.split()[4] == stage for line in lines)
        root_line = next(line for line in lines if line.split()[4] == f"{stage}/rootfs").split(" - ")[0]
        private = "shared:" not in root_line and "master:" not in root_line
        facts = seen | {"below": str(os.listdir(f"/proc/self/fd/{root}")), "tmpfs": str(tmpfs), "private": str(private)}
        return [facts | {"val": stage}]

    one.fork((files["in"],) * 3, (), look)
    found, sock = one.go()
    os.close(sock)
    end = time.monotonic() + 10
    while not out.exists() and time.monotonic() < end:
        time.sleep(0.01)
    os.waitpid(one.pid, 0)
    seen = {"mnt": "True", "cgroup": str(own), "below": "['below']", "tmpfs": "True", "private": "True"}
    assert found == [seen | {"val": stage}]
    fds = dict(line.split(" ", 1) for line in out.read_text().splitlines()[1:])
    assert [fds[n].rpartition("/")[2] for n in "012"] == ["in"] * 3 and fds["3"].startswith("socket:")
    assert fds["4"] == str(tmp_path / "images") and not any("secret" in target for target in fds.values())
    assert os.listdir(stage) == []  # our namespace saw nothing of it
    for fd in (*files.values(), images):
        os.close(fd)


def test_a_directory_that_was_exchanged(tmp_path: Path) -> None:
    one = nest.Nest("/r", "/s", "/t", cgroup_namespace=False)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    again = one.reopened(str(tmp_path / "a"), fd)
    assert os.path.samestat(os.fstat(again), os.fstat(fd)) and not os.get_inheritable(again)
    with pytest.raises(PyruncError, match=r"/b: another directory since it was opened$"):
        one.reopened(str(tmp_path / "b"), fd)
    os.close(again)
    os.close(fd)
