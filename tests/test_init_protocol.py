"""The handshake between init and its parent: each message, each possible end, and the wait for
start."""

from __future__ import annotations

import array
import errno
import os
import pathlib
import select
import socket
import struct
import subprocess
import time

import pytest

import init_parent
from init_parent import (
    SHELL,
    TIMEOUT,
    Spawn,
    fail,
    fifo_plan,
    finish,
    move_up,
    needs_root,
    shell,
    status_of,
    wait_closed,
)
from pyrunc import handshake
from pyrunc.plan import AHEAD, Plan, ops

init_exe, spawn, fifos = init_parent.init_exe, init_parent.spawn, init_parent.fifos


# --- the handshake --------------------------------------------------------------------------------


def test_run_through_clone(spawn: Spawn) -> None:
    parent = spawn()
    plan = Plan()
    plan.clone_init("(default)")
    plan.setsid("(default)")
    parent.plan(finish(plan, shell('echo "$0 $A $#"; echo "$$ $(cut -d " " -f 6 /proc/$$/stat)"'), ["A=b c"]))
    pid = parent.adopt()
    parent.expect(handshake.CREATED)
    parent.go()
    assert parent.recv() is None  # execve closed the socket
    assert parent.output() == f"{SHELL} b c 0\n{pid} {pid}\n"  # it is the leader of its own session
    assert parent.wait(pid) == 0


@needs_root
def test_namespace_descriptors_are_closed(spawn: Spawn) -> None:
    """A process of the container that can trace us must not find a way to namespaces and cgroups
    (CVE-2016-9962)."""
    paths = ["/proc/self/ns/uts", "/proc/self/ns/mnt"]
    fds = tuple(os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths)
    parent = spawn()
    plan = Plan()
    for kind, path in ((0x04000000, paths[0]), (0x00020000, paths[1])):
        plan.join_ns("", fd=plan.fd("ns", path, ""), nstype=kind, path=path)
    plan.clone_init("(default)")
    plan.sync_ready("(default)")
    parent.plan(finish(plan, shell("exit 0")), fds)
    for fd in fds:
        os.close(fd)
    pid = parent.adopt()
    parent.expect(handshake.READY)
    links = [os.readlink(entry) for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
    assert links
    assert not [link for link in links if link.startswith(("uts:", "mnt:"))], links
    parent.go()
    parent.expect(handshake.CREATED)
    parent.go()
    assert parent.wait(pid) == 0


def test_sync_points(spawn: Spawn) -> None:
    parent = spawn()
    plan = Plan()
    plan.sync_mounted("(default)")
    plan.sync_ready("(default)")
    parent.plan(finish(plan, shell("exit 0")))
    assert parent.expect(handshake.MOUNTED).step == 0
    parent.go()
    assert parent.expect(handshake.READY).step == 1
    parent.go()
    assert parent.expect(handshake.CREATED).step == 3
    parent.go()
    assert parent.recv() is None
    assert parent.wait(parent.pid) == 0


def test_ahead_only_the_go_to_ready_is_awaited(spawn: Spawn, tmp_path: pathlib.Path) -> None:
    parent = spawn()
    plan = Plan()
    plan.flags = AHEAD
    plan.sync_mounted("(default)")
    plan.make_cwd("/process/cwd", cwd=f"{tmp_path}/made")
    plan.sync_ready("(default)")
    parent.plan(finish(plan, shell("exit 0")))
    end = time.monotonic() + TIMEOUT
    while not (tmp_path / "made").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    parent.sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        parent.recv()
    parent.sock.settimeout(TIMEOUT)
    parent.go()
    assert parent.expect(handshake.CREATED).step == 4
    parent.go()
    assert parent.recv() is None
    assert parent.wait(parent.pid) == 0


@pytest.mark.parametrize("when", ["spawned", "pid", "ahead", "mounted", "ready", "created"])
def test_parent_dies(spawn: Spawn, when: str, tmp_path: pathlib.Path) -> None:
    parent = spawn()
    plan = Plan()
    plan.clone_init("(default)")
    plan.sync_mounted("(default)")
    plan.sync_ready("(default)")
    finish(plan, shell(f"touch {tmp_path}/started"))
    if when in ("pid", "ahead"):
        plan.flags = AHEAD
    if when != "spawned":
        parent.plan(plan)
        parent.adopt()
        if when == "ahead":
            parent.go()
        for kind in (handshake.MOUNTED, handshake.READY, handshake.CREATED) if not plan.flags else ():
            parent.expect(kind)
            if handshake.NAMES[kind].lower() == when:
                break
            parent.go()
    parent.sock.close()
    assert parent.wait(parent.children[0]) == 1
    assert not (tmp_path / "started").exists()


@needs_root
def test_parent_dies_before_created(spawn: Spawn, fifos: tuple[int, int]) -> None:
    """No `start` can come then. The first process of a namespace gets no SIGPIPE."""
    plan = Plan()
    plan.unshare("/linux/namespaces", flags=0x20000000)  # CLONE_NEWPID
    plan.clone_init("(default)")
    plan.sync_ready("(default)")
    start = plan.fd("start", "", "")
    plan.wait_start("(default)", start_fd=start, error_fd=plan.fd("error", "", ""))
    plan.execve("/process/args", args=shell("exit 0"), env=[])
    parent = spawn()
    parent.plan(plan, fifos)
    pid = parent.adopt()
    parent.expect(handshake.READY)
    parent.sock.shutdown(socket.SHUT_RD)  # before the GO, or CREATED may be sent first
    parent.go()
    assert parent.wait(pid) == 1


def test_parent_dies_during_hook(spawn: Spawn, tmp_path: pathlib.Path) -> None:
    parent = spawn()
    plan = Plan()
    plan.hook("/hooks/createContainer/0", path=SHELL, args=shell(f"echo $$ >{tmp_path}/pid; exec sleep 60"))
    parent.plan(finish(plan, shell("exit 0")))
    end = time.monotonic() + TIMEOUT
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    parent.sock.close()
    assert parent.wait(parent.pid) == 1
    assert not pathlib.Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_parent_that_answers_no_more(spawn: Spawn) -> None:
    """Init ends without a word, also where the parent could still read one."""
    plan = Plan()
    plan.sync_mounted("(default)")
    parent = spawn()
    parent.plan(plan)
    parent.expect(handshake.MOUNTED)
    parent.sock.shutdown(socket.SHUT_WR)
    assert parent.recv() is None
    assert parent.wait(parent.pid) == 1


@pytest.mark.parametrize("kind", [handshake.PLAN, handshake.GO + 1, 0])
def test_wrong_message_for_go(spawn: Spawn, kind: int) -> None:
    parent = spawn()
    plan = Plan()
    plan.sync_mounted("(default)")
    parent.plan(finish(plan, shell("exit 0")))
    parent.expect(handshake.MOUNTED)
    parent.sock.send(handshake.encode(kind))
    record = parent.expect(handshake.FAIL)
    assert (record.err, record.step) == (errno.EPROTO, 0)


def test_wrong_message_for_plan(spawn: Spawn) -> None:
    parent = spawn()
    parent.go()
    record = parent.expect(handshake.FAIL)
    assert (record.err, record.step) == (errno.EPROTO, handshake.NO_STEP)


# --- bad plans ------------------------------------------------------------------------------------


def good_blob() -> bytes:
    return finish(Plan(), shell("exit 0")).encode()


@pytest.mark.parametrize(
    ("offset", "value", "err", "text"),
    [
        (0, 1, errno.EPROTO, "not a plan of this build"),
        (4, 1, errno.EPROTO, "not a plan of this build"),
        (8, 17, errno.EINVAL, "size"),
        (12, 0, errno.EINVAL, "no steps"),
        (12, 65537, errno.EINVAL, "no steps"),
        (16, 2, errno.EINVAL, "a different number of descriptors"),
        (20, 1, errno.EINVAL, "a different number of descriptors"),
        (24, 40, errno.EINVAL, "string area"),
        (32, 0, errno.EINVAL, "unknown op"),
        (32, ops.OP_FIND_EXE | 1 << 31, errno.EINVAL, "unknown policy bit"),
        (32 + 36, 1 << 20, errno.EINVAL, "outside the string area"),
    ],
)
def test_bad_plan(spawn: Spawn, offset: int, value: int, err: int, text: str) -> None:
    blob = bytearray(good_blob())
    struct.pack_into("=I", blob, offset, value)
    parent = spawn()
    parent.send_plan(bytes(blob))
    record = parent.expect(handshake.FAIL)
    assert record.err == err
    assert text in record.detail
    assert record.step == (0 if offset >= 32 else handshake.NO_STEP)
    assert parent.wait(parent.pid) == 1


def test_plan_shorter_than_announced(spawn: Spawn) -> None:
    parent = spawn()
    memfd = os.memfd_create("plan")
    rights = array.array("i", [memfd])
    parent.sock.sendmsg([handshake.encode(handshake.PLAN, 4096)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    os.close(memfd)
    assert "size" in parent.expect(handshake.FAIL).detail


def test_plan_without_descriptors(spawn: Spawn) -> None:
    parent = spawn()
    parent.sock.send(handshake.encode(handshake.PLAN, 100))
    assert parent.expect(handshake.FAIL).err == errno.EPROTO


def test_too_many_descriptors(spawn: Spawn) -> None:
    parent = spawn()
    parent.send_plan(good_blob(), (0,) * 252)
    assert parent.expect(handshake.FAIL).err == errno.EMSGSIZE


def test_plan_without_end(spawn: Spawn) -> None:
    plan = Plan()
    plan.umask("(default)", mask=0o22)
    record = fail(spawn(), plan)
    assert (record.step, record.err) == (1, errno.ENOEXEC)


@pytest.mark.parametrize("argv", [[], [""], ["x"], ["-1"], ["1 "], ["99999999999"], ["0", "0"], ["0"]])
def test_not_started_by_pyrunc(init_exe: str, argv: list[str]) -> None:
    done = subprocess.run([init_exe, *argv], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


# --- waiting for start ----------------------------------------------------------------------------


def test_waiting_process(spawn: Spawn, fifos: tuple[int, int], tmp_path: pathlib.Path) -> None:
    """It is small, has one thread, and holds only its stdio and the two fifos."""
    leaked = os.open("/etc", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    plan = fifo_plan(shell("exit 7"))
    plan.fd("ns", "", "")
    plan.fds.sort(key=lambda item: item[0] == "ns")
    parent = spawn()
    os.close(leaked)
    parent.plan(plan, (*fifos, parent.out))
    pid = parent.adopt()
    wait_closed(parent)
    links = {name: os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    assert links.pop("0") == "/dev/null"
    assert links.pop("1") == links.pop("2")
    assert sorted(links.values()) == [str(tmp_path / "error"), str(tmp_path / "start")]
    status = status_of(pid)
    assert status["Name"] == "pyrunc-init"
    assert status["Threads"] == "1"
    assert int(status["SigIgn"], 16) == int(status["SigBlk"], 16) == int(status["SigCgt"], 16) == 0
    rss = sum(
        int(line.split()[1])
        for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines()
        if line.startswith("Rss:")
    )
    assert rss <= 128
    os.write(fifos[0], b"x")
    assert parent.wait(pid) == 7


def test_start_success_is_eof(spawn: Spawn, fifos: tuple[int, int], tmp_path: pathlib.Path) -> None:
    parent = spawn()
    plan = fifo_plan(shell("sleep 60"))
    parent.plan(plan, fifos)
    parent.adopt()
    wait_closed(parent)
    # As `start` does: once we close our writing end, only init holds one.
    error = os.open(tmp_path / "error", os.O_RDONLY | os.O_NONBLOCK)
    os.dup2(error, fifos[1])
    os.set_blocking(error, True)
    start = os.open(tmp_path / "start", os.O_WRONLY | os.O_NONBLOCK)
    os.write(start, b"x")
    assert select.select([error], [], [], TIMEOUT)[0]
    assert os.read(error, 256) == b""
    os.close(error)
    os.close(start)


def test_start_fifo_is_closed_before_execve(spawn: Spawn, fifos: tuple[int, int], tmp_path: pathlib.Path) -> None:
    """A reader of the start fifo means "created"; execve(2) closes the error fifo first or last."""
    parent = spawn()
    parent.plan(fifo_plan(["/nonexistent"]), fifos)
    pid = parent.adopt()
    wait_closed(parent)
    full = os.open(tmp_path / "error", os.O_WRONLY | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(full, bytes(4096))  # so init blocks when it reports the failed execve
    start = os.open(tmp_path / "start", os.O_WRONLY | os.O_NONBLOCK)
    os.dup2(start, fifos[0])
    os.write(start, b"x")
    limit = time.monotonic() + TIMEOUT
    with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
        while time.monotonic() < limit:
            os.close(os.open(tmp_path / "start", os.O_WRONLY | os.O_NONBLOCK))
    assert status_of(pid)["State"].startswith(("S", "R"))
    os.close(full)
    os.close(start)
    while os.read(fifos[1], 65536)[-256:].count(0) == 256:
        pass
    assert parent.wait(pid) == 1


def test_start_failure_is_a_record(spawn: Spawn, fifos: tuple[int, int]) -> None:
    parent = spawn()
    parent.plan(fifo_plan(["/nonexistent"]), fifos)
    pid = parent.adopt()
    wait_closed(parent)
    os.write(fifos[0], b"x")
    record = handshake.Record(os.read(fifos[1], 256))
    assert (record.type, record.step, record.err, record.call) == (handshake.FAIL, 2, errno.ENOENT, "execve")
    assert record.detail == "exec /nonexistent"  # the parent adds the text of the errno
    assert (record.arg, record.item) == (1, 0)
    assert parent.wait(pid) == 1


def test_start_that_cannot_be_read_starts_nothing(spawn: Spawn, fifos: tuple[int, int], tmp_path: pathlib.Path) -> None:
    writer = os.open(tmp_path / "start", os.O_WRONLY)
    parent = spawn()
    parent.plan(fifo_plan(shell(f"touch {tmp_path}/started")), (writer, fifos[1]))
    os.close(writer)
    pid = parent.adopt()
    assert parent.wait(pid) == 1
    record = handshake.Record(os.read(fifos[1], handshake.RECORD_SIZE))
    assert (record.type, record.call, record.err, record.detail) == (handshake.FAIL, "read", errno.EBADF, "start fifo")
    assert not (tmp_path / "started").exists()


def test_start_without_program(spawn: Spawn, fifos: tuple[int, int]) -> None:
    parent = spawn()
    plan = fifo_plan([])
    plan.steps.pop()
    parent.plan(plan, fifos)
    parent.adopt()
    wait_closed(parent)
    os.write(fifos[0], b"x")
    assert handshake.Record(os.read(fifos[1], 256)).err == errno.ENOEXEC


def test_wait_start_without_fifos(spawn: Spawn) -> None:
    plan = Plan()
    plan.wait_start("(default)", start_fd=1, error_fd=2)
    assert fail(spawn(), plan).err == errno.EBADF


@needs_root
def test_closed_stdio_is_filled(init_exe: str) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(TIMEOUT)
    high = move_up(theirs.detach())
    closed = [(os.POSIX_SPAWN_CLOSE, fd) for fd in (0, 1, 2)]
    pid = os.posix_spawn(init_exe, ["pyrunc-init", "0"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, high, 3), *closed])
    os.close(high)
    end = time.monotonic() + TIMEOUT
    # Until then it also has what this process was started with.
    while set(os.listdir(f"/proc/{pid}/fd")) != {"0", "1", "2", "3"} and time.monotonic() < end:
        time.sleep(0.01)
    assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)] == ["/dev/null"] * 3
    ours.close()
    os.waitpid(pid, 0)
