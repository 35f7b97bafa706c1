"""The other end of init's handshake, in a few lines of Python: fixtures and plans for the tests of
init.

The plans need no namespace of their own, so most tests run without root.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import functools
import os
import pathlib
import select
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from pyrunc import handshake
from pyrunc.plan import Plan, ops

SOURCES = sorted((pathlib.Path(__file__).parent.parent / "native" / "init").glob("*.c"))
MUSL_GCC = shutil.which("musl-gcc")
SHELL = "/bin/sh"
TIMEOUT = 10.0 * float(os.environ.get("PYRUNC_TEST_SLOW", "1"))
FLAGS = ["-std=gnu11", "-Os", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-static", "-s", "-Wl,--gc-sections"]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@functools.cache
def build(directory: pathlib.Path) -> str:
    """init, as the package builds it but for the hardening flags; once for all test modules."""
    if MUSL_GCC is None:
        pytest.skip("musl-gcc is not installed")
    out = directory / "pyrunc-init"
    subprocess.run([MUSL_GCC, *FLAGS, "-o", out, *SOURCES], check=True)
    return str(out)


@pytest.fixture(scope="session")
def init_exe(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(tmp_path_factory.getbasetemp())


class Parent:
    """The other end of the handshake."""

    def __init__(
        self,
        exe: str,
        npreserve: int = 0,
        preserved: tuple[int, ...] = (),
        wrap: list[str] | None = None,
        *,
        joins: bool = False,
    ) -> None:
        """``wrap``: the arguments of ``exe`` when that is a program which executes init, the last
        of them."""
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(TIMEOUT)
        self.out, out = os.pipe()
        # Above everything that the file actions target, so that no dup2 runs over the source of a
        # later one.
        moved = [move_up(os.dup(fd)) for fd in (theirs.fileno(), out, *preserved)]
        actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, moved[1], 1),
            (os.POSIX_SPAWN_DUP2, moved[1], 2),
        ]
        actions += [(os.POSIX_SPAWN_DUP2, fd, 3 + i) for i, fd in enumerate(moved[2:])]
        actions.append((os.POSIX_SPAWN_DUP2, moved[0], 3 + npreserve))
        argv = [*(wrap or ["pyrunc-init"]), str(npreserve), *(["joins"] if joins else [])]
        self.pid = os.posix_spawn(exe, argv, {}, file_actions=actions)
        self.children = [self.pid]
        self.sent: Plan | None = None
        self.early: list[handshake.Record] = []  # what init wrote before enter reported its pid
        theirs.close()
        for fd in (out, *moved):
            os.close(fd)

    def recv(self) -> handshake.Record | None:
        """The next record; None at EOF."""
        if self.early:
            return self.early.pop(0)
        try:
            data = self.sock.recv(handshake.RECORD_SIZE)
        except ConnectionResetError:
            return None
        record = handshake.Record(data) if data else None
        if record is not None and record.type in (handshake.FAIL, handshake.WARN):
            assert record.item == 0 or record.call == "write"  # of the only list, TIME_OFFSETS
            if self.sent is not None and 0 <= record.step < len(self.sent.steps):
                assert record.arg <= len(self.sent.steps[record.step][3])  # it names a string of the step
        elif record is not None and record.type != handshake.STAMPS:
            assert record.err == 0  # only a failure has one
        return record

    def expect(self, kind: int) -> handshake.Record:
        record = self.recv()
        assert record is not None, f"EOF instead of {handshake.NAMES[kind]}"
        assert record.type == kind, f"{handshake.NAMES[record.type]}: {record.call}: {record.err}: {record.detail}"
        return record

    def go(self) -> None:
        self.sock.send(handshake.encode(handshake.GO))

    def send_plan(self, blob: bytes, fds: tuple[int, ...] = ()) -> None:
        memfd = os.memfd_create("plan")
        os.write(memfd, blob)
        rights = array.array("i", [memfd, *fds])
        try:
            self.sock.sendmsg(
                [handshake.encode(handshake.PLAN, len(blob))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            )
        finally:
            os.close(memfd)

    def plan(self, plan: Plan, fds: tuple[int, ...] = ()) -> None:
        self.sent = plan
        self.send_plan(plan.encode(), fds)

    def adopt(self) -> int:
        """After PID: enter is gone with 0, and init is our child."""
        # Nothing orders enter's PID and what init writes to the same socket (docs/handshake.md).
        early = []
        record = self.recv()
        while record is not None and record.type != handshake.PID:
            assert record.type != handshake.FAIL, f"{record.call}: {record.err}: {record.detail}"
            early.append(record)
            record = self.recv()
        assert record is not None, "EOF instead of PID"
        self.early = early
        pid = record.value
        assert self.wait(self.pid) == 0
        self.children = [pid]
        return pid

    def wait(self, pid: int) -> int:
        """Exit code of a child (negative: signal), within a bounded time."""
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            got, status = os.waitpid(pid, os.WNOHANG)
            if got:
                self.children.remove(pid)
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        raise AssertionError(f"process {pid} did not end")

    def output(self) -> str:
        """What the program wrote, until it closed its stdout."""
        chunks: list[bytes] = []
        while True:
            assert select.select([self.out], [], [], TIMEOUT)[0], "no output"
            chunk = os.read(self.out, 65536)
            if not chunk:
                return b"".join(chunks).decode()
            chunks.append(chunk)

    def close(self) -> None:
        self.sock.close()
        os.close(self.out)
        for pid in list(self.children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def move_up(fd: int) -> int:
    """The same descriptor at a number from 100 on."""
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)
    os.close(fd)
    return high


Spawn = Callable[..., Parent]


@pytest.fixture
def spawn(init_exe: str) -> Iterator[Spawn]:
    parents: list[Parent] = []

    def start(**kwargs: object) -> Parent:
        parents.append(Parent(init_exe, **kwargs))  # type: ignore[arg-type]
        return parents[-1]

    yield start
    for parent in parents:
        parent.close()


@pytest.fixture
def fifos(tmp_path: pathlib.Path) -> Iterator[tuple[int, int]]:
    fds = []
    for name in ("start", "error"):
        os.mkfifo(tmp_path / name)
        fds.append(os.open(tmp_path / name, os.O_RDWR | os.O_CLOEXEC))
    yield fds[0], fds[1]
    for fd in fds:
        os.close(fd)


def finish(plan: Plan, args: list[str], env: list[str] | None = None, *, home: bool = False, policy: int = 0) -> Plan:
    """The last steps of `run`."""
    plan.find_exe("/process/args/0", file=args[0], path="/usr/bin:/bin")
    plan.wait_start("(default)", policy=ops.P_WAIT_START_SOCKET, start_fd=0xFFFFFFFF, error_fd=0xFFFFFFFF)
    policy |= ops.P_EXECVE_SET_HOME if home else 0
    plan.execve("/process/args", policy=policy, args=args, env=env or [])
    return plan


def as_user(plan: Plan, uid: int, gid: int, groups: list[int], caps: int, ambient: int = 0) -> Plan:
    plan.cap_bound("/process/capabilities/bounding", mask=caps)
    plan.groups("/process/user/additionalGids", gids=struct.pack(f"={len(groups)}I", *groups))
    plan.set_ids("/process/user", uid=uid, gid=gid)
    plan.caps("/process/capabilities", effective=caps, permitted=caps, inheritable=caps, ambient=ambient)
    return plan


def fifo_plan(args: list[str]) -> Plan:
    plan = Plan()
    plan.clone_init("(default)")
    start = plan.fd("start", "", "")
    plan.wait_start("(default)", start_fd=start, error_fd=plan.fd("error", "", ""))
    plan.execve("/process/args", args=args, env=[])
    return plan


def shell(script: str) -> list[str]:
    return [SHELL, "-c", script]


def run(parent: Parent, plan: Plan, fds: tuple[int, ...] = ()) -> str:
    """A plan from PLAN to the end of its program; returns what that wrote."""
    parent.plan(plan, fds)
    parent.expect(handshake.CREATED)
    parent.go()
    assert parent.recv() is None
    text = parent.output()
    assert parent.wait(parent.children[0]) == 0
    return text


def fail(parent: Parent, plan: Plan, fds: tuple[int, ...] = ()) -> handshake.Record:
    """A plan that fails before CREATED; returns the record."""
    parent.plan(plan, fds)
    record = parent.expect(handshake.FAIL)
    assert parent.recv() is None
    assert parent.wait(parent.children[0]) == 1
    return record


def status_of(pid: int) -> dict[str, str]:
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def wait_closed(parent: Parent) -> None:
    """CREATED is sent, then the socket closed: EOF says that init is in its final state."""
    parent.expect(handshake.CREATED)
    assert parent.recv() is None


# --- seccomp filters ------------------------------------------------------------------------------

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
NUMBERS = {
    "x86_64": {"read": 0, "write": 1, "close": 3, "execve": 59, "exit_group": 231, "getcwd": 79, "fchmod": 91},
    "aarch64": {"read": 63, "write": 64, "close": 57, "execve": 221, "exit_group": 94, "getcwd": 17, "fchmod": 52},
}
NUMBERS["x86_64"] |= {"exit": 60, "unshare": 272, "rt_sigaction": 13}
NUMBERS["aarch64"] |= {"exit": 93, "unshare": 97, "rt_sigaction": 134}


def program(rules: dict[int, int], default: int) -> bytes:
    """A classic BPF program: load the number, compare with each, return."""
    code = [struct.pack("=HBBI", 0x20, 0, 0, 0)]
    for number, action in rules.items():
        code += [struct.pack("=HBBI", 0x15, 0, 1, number), struct.pack("=HBBI", 0x06, 0, 0, action)]
    return b"".join([*code, struct.pack("=HBBI", 0x06, 0, 0, default)])
