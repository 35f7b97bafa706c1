"""native/shim: each function on the real kernel. Root is needed only where stated."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import work

shim = pytest.importorskip("pyrunc._shim", reason="not built: make build")
ffi: Any = shim.ffi
lib: Any = shim.lib

F_GET_SEALS = 1034
SEALED = 1 | 2 | 4 | 8  # SEAL SHRINK GROW WRITE

# Reports what it finds: arguments, environment, open descriptors, signal state; then the message on
# the socket.
REPORTER = r"""
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
extern char **environ;
int main(int argc, char **argv)
{
    char out[4096], line[256];
    int n = snprintf(out, sizeof out, "argv=");
    for (int i = 0; i < argc; i++)
        n += snprintf(out + n, sizeof out - (size_t)n, "%s ", argv[i]);
    n += snprintf(out + n, sizeof out - (size_t)n, "env=%d fds=", environ[0] != NULL);
    for (int fd = 0; fd < 600; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            n += snprintf(out + n, sizeof out - (size_t)n, "%d,", fd);
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "SigIgn", 6) || !strncmp(line, "SigBlk", 6))
            n += snprintf(out + n, sizeof out - (size_t)n, " %.6s=%lld", line, strtoll(line + 7, NULL, 16));
    send(3 + atoi(argv[1]), out, (size_t)n, 0);
    return 7;
}
"""


@pytest.fixture(scope="module")
def reporter(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The program above as bytes."""
    compiler = shutil.which("musl-gcc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    directory = tmp_path_factory.mktemp("reporter")
    (directory / "r.c").write_text(REPORTER, encoding="ascii")
    subprocess.run([compiler, "-static", "-o", directory / "r", directory / "r.c"], check=True)
    return (directory / "r").read_bytes()


@pytest.fixture(autouse=True)
def no_leak() -> Iterator[None]:
    """No test leaves a descriptor open."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def reap(pid: int, timeout_ms: int = 5000) -> int:
    pidfd = lib.pr_pidfd_open(pid)
    assert pidfd >= 0
    try:
        return int(lib.pr_wait_pid_timeout(pidfd, timeout_ms))
    finally:
        os.close(pidfd)


def pair(min_fd: int = 3) -> tuple[int, int]:
    out = ffi.new("int[2]")
    assert lib.pr_socketpair(out, min_fd) == 0
    return out[0], out[1]


# -- descriptors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("executable", [0, 1])
def test_memfd_is_sealed(executable: int) -> None:
    data = os.urandom(100_000)
    fd = lib.pr_memfd_sealed(b"test", data, len(data), executable)
    assert fd >= 0
    assert fcntl.fcntl(fd, F_GET_SEALS) & SEALED == SEALED
    assert fcntl.fcntl(fd, fcntl.F_GETFD) == fcntl.FD_CLOEXEC
    assert os.pread(fd, len(data) + 1, 0) == data
    for attempt in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 1), lambda: fcntl.fcntl(fd, 1033, 0)):
        with pytest.raises(PermissionError):
            attempt()
    os.close(fd)


def test_socketpair_is_above_the_preserved_numbers() -> None:
    ends = pair(200)
    for fd in ends:
        assert fd >= 200
        assert fcntl.fcntl(fd, fcntl.F_GETFD) == fcntl.FD_CLOEXEC
        os.close(fd)


def test_socketpair_leaves_nothing_when_the_number_is_too_high() -> None:
    assert lib.pr_socketpair(ffi.new("int[2]"), 1 << 30) == -errno.EINVAL


def test_fs_type() -> None:
    assert lib.pr_fs_type(b"/proc") == 0x9FA0
    assert lib.pr_fs_type(b"/no/such/path") == -errno.ENOENT


# -- messages --------------------------------------------------------------------------------------


def test_message_with_descriptors_and_end() -> None:
    a, b = pair()
    read, write = os.pipe()
    assert lib.pr_send(a, b"plan", 4, [read, write, write], 3) == 4
    os.close(read)
    buffer, fd = ffi.new("char[256]"), ffi.new("int *", 99)
    assert lib.pr_recv_fd(b, buffer, 256, 1000, fd) == 4
    assert ffi.buffer(buffer, 4)[:] == b"plan"
    assert fcntl.fcntl(fd[0], fcntl.F_GETFD) == fcntl.FD_CLOEXEC
    os.write(write, b"x")
    assert os.read(fd[0], 1) == b"x"
    os.close(write)
    assert os.read(fd[0], 1) == b""  # the two others were closed on receipt
    os.close(fd[0])
    os.close(a)
    assert lib.pr_recv(b, buffer, 256, 1000) == 0
    os.close(b)


def test_receive_errors() -> None:
    a, b = pair()
    buffer = ffi.new("char[16]")
    start = time.monotonic()
    assert lib.pr_recv(b, buffer, 16, 50) == -errno.ETIMEDOUT
    assert time.monotonic() - start >= 0.045
    assert lib.pr_send(a, b"x" * 17, 17, ffi.NULL, 0) == 17
    assert lib.pr_recv(b, buffer, 16, 50) == -errno.EMSGSIZE
    os.close(b)
    assert lib.pr_send(a, b"x", 1, ffi.NULL, 0) == -errno.EPIPE  # and no SIGPIPE
    os.close(a)


def test_a_handler_interrupts_a_receive() -> None:
    a, b = pair()
    former = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        assert lib.pr_recv(b, ffi.new("char[16]"), 16, 5000) == -errno.EINTR
    finally:
        signal.signal(signal.SIGALRM, former)
    os.close(a)
    os.close(b)


@pytest.mark.parametrize("depth", [0, 30])
def test_unix_socket_of_any_path_length(tmp_path: Path, depth: int) -> None:
    directory = tmp_path / "/".join(["deep-dir"] * depth)
    directory.mkdir(parents=True, exist_ok=True)
    path = str(directory / "socket").encode()
    assert (len(path) > 107) == bool(depth)
    listener = lib.pr_listen_unix(path, 1, 0o666)
    assert listener >= 0
    assert os.stat(path).st_mode & 0o777 == 0o666
    client = lib.pr_connect_unix(path)
    assert client >= 0
    server, _ = socket.socket(fileno=os.dup(listener)).accept()
    assert lib.pr_send_fd(client, b"console", 7, 0) == 7
    assert server.recv(16) == b"console"
    server.close()
    os.close(client)
    os.close(listener)


def test_unix_socket_errors(tmp_path: Path) -> None:
    assert lib.pr_connect_unix(bytes(tmp_path / "none")) == -errno.ENOENT
    assert lib.pr_connect_unix(b"") == -errno.ENOENT
    assert lib.pr_connect_unix(bytes(tmp_path) + b"/" + b"x" * 200) == -errno.ENAMETOOLONG
    assert lib.pr_connect_unix_type(b"@pyrunc-test-no-such", 2) == -errno.ECONNREFUSED


# -- processes -------------------------------------------------------------------------------------


def spawn(image: bytes, exe_fd: int, sock_fd: int, npreserve: int, joins: bool = False) -> tuple[str, int]:
    """Spawn with the image and the socket at chosen numbers; returns the report and the exit
    status."""
    a, b = pair(300)
    memfd = lib.pr_memfd_sealed(b"t", image, len(image), 1)
    spare = fcntl.fcntl(memfd, fcntl.F_DUPFD_CLOEXEC, 320)  # out of the way of the numbers under test
    os.close(memfd)
    moved = os.dup2(spare, exe_fd, inheritable=False)
    sock = os.dup2(b, sock_fd, inheritable=False)
    os.close(spare)
    os.close(b)
    try:
        pid = lib.pr_spawn_init(moved, sock, npreserve, joins, ffi.NULL)
    finally:
        os.close(moved)
        os.close(sock)
    assert pid > 0
    buffer = ffi.new("char[4096]")
    got = lib.pr_recv(a, buffer, 4096, 5000)
    os.close(a)
    return ffi.buffer(buffer, max(got, 0))[:].decode(), reap(pid)


@pytest.fixture
def ignored() -> Iterator[None]:
    """The two signals that glibc reserves are ignored, as its posix_spawn leaves them (for example
    below make)."""
    number = {"x86_64": 13, "aarch64": 134}[os.uname().machine]  # rt_sigaction
    libc, former = ctypes.CDLL(None), [ctypes.create_string_buffer(32) for _ in (32, 33)]
    action = struct.pack("@QQQQ", signal.SIG_IGN, 0, 0, 0)
    for sig, old in zip((32, 33), former, strict=True):
        assert libc.syscall(number, sig, action, old, ctypes.c_long(8)) == 0
    yield
    for sig, old in zip((32, 33), former, strict=True):
        assert libc.syscall(number, sig, old, None, ctypes.c_long(8)) == 0


@pytest.mark.usefixtures("ignored")
@pytest.mark.parametrize(("exe", "sock"), [(270, 271), (271, 270), (203, 270), (270, 203), (203, 204), (204, 203)])
def test_spawn_init_whatever_the_numbers_are(reporter: bytes, exe: int, sock: int) -> None:
    """The image or the socket may have the number that the other one is to get."""
    assert lib.pr_close_range(3, 0xFFFFFFFF, 4) == 0
    opened = []
    for fd in range(3, 203):
        try:
            os.fstat(fd)
        except OSError:
            os.dup2(0, fd, inheritable=False)
            opened.append(fd)
    former = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        report, status = spawn(reporter, exe, sock, 200)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGUSR1, former)
        for fd in opened:
            os.close(fd)
    assert os.waitstatus_to_exitcode(status) == 7
    fds = ",".join(map(str, range(204)))
    assert report == f"argv=pyrunc-init 200 env=0 fds={fds}, SigBlk=0 SigIgn=0"


def test_spawn_init_keeps_nothing_else(reporter: bytes) -> None:
    assert lib.pr_close_range(3, 0xFFFFFFFF, 4) == 0  # as the launcher does: the caller's become close-on-exec
    report, status = spawn(reporter, 60, 61, 0)
    assert "argv=pyrunc-init 0 env=0 fds=0,1,2,3, " in report
    assert os.waitstatus_to_exitcode(status) == 7


def test_spawn_init_says_that_it_joins(reporter: bytes) -> None:
    report, status = spawn(reporter, 60, 61, 0, joins=True)
    assert "argv=pyrunc-init 0 joins env=0 " in report
    assert os.waitstatus_to_exitcode(status) == 7


def test_spawn_init_reports_errors(reporter: bytes) -> None:
    a, b = pair()
    children = work.children()
    bad = lib.pr_memfd_sealed(b"t", b"not a program", 13, 1)
    assert lib.pr_spawn_init(bad, b, 0, 0, ffi.NULL) == -errno.ENOEXEC
    good = lib.pr_memfd_sealed(b"t", reporter, len(reporter), 1)
    assert lib.pr_spawn_init(good, b, 500, 0, ffi.NULL) == -errno.EBADF  # the process does not have that many open
    assert lib.pr_spawn_init(good, b, -1, 0, ffi.NULL) == -errno.EINVAL
    for fd in (a, b, bad, good):
        os.close(fd)
    assert work.children() == children


def strings(*words: bytes) -> tuple[Any, list[Any]]:
    kept = [ffi.new("char[]", word) for word in words]
    return ffi.new("char *[]", [*kept, ffi.NULL]), kept


def test_spawn_hook(tmp_path: Path) -> None:
    argv, keep1 = strings(b"sh", b"-c", b"cat; pwd; env; ls -l /proc/self/fd | grep -c :; echo error >&2")
    envp, keep2 = strings(b"A=1")
    stray = os.dup(0)
    os.set_inheritable(stray, True)
    read, write = os.pipe()
    stdin_read, stdin_write = os.pipe()
    os.write(stdin_write, b"state\n")
    os.close(stdin_write)
    stage = ffi.new("int *")
    pid = lib.pr_spawn_hook(b"/bin/sh", argv, envp, bytes(tmp_path), stdin_read, write, stage)
    assert pid > 0 and stage[0] == 0
    for fd in (write, stdin_read, stray):
        os.close(fd)
    with os.fdopen(read) as output:
        lines = output.read().splitlines()
    assert os.waitstatus_to_exitcode(reap(pid)) == 0
    assert lines[0] == "state" and lines[1] == str(tmp_path) and "A=1" in lines and lines[-1] == "error"
    assert not [line for line in lines if line.startswith(("PATH", "HOME"))]
    assert lines[-2] == "4"  # 0, 1, 2, and ls's own directory
    assert keep1 and keep2


@pytest.mark.parametrize(
    ("path", "cwd", "stage", "error"),
    [
        (b"/no/such/hook", None, 3, errno.ENOENT),
        (b"/etc/passwd", None, 3, errno.EACCES),
        (b"/bin/sh", b"/no/such/dir", 2, errno.ENOENT),
    ],
)
def test_spawn_hook_says_which_call_failed(path: bytes, cwd: bytes | None, stage: int, error: int) -> None:
    argv, _keep = strings(b"x")
    where = ffi.new("int *")
    assert lib.pr_spawn_hook(path, argv, argv + 1, cwd or ffi.NULL, -1, -1, where) == -error
    assert where[0] == stage


def test_wait_and_signal() -> None:
    child = subprocess.Popen(["sleep", "60"])
    pidfd = lib.pr_pidfd_open(child.pid)
    assert lib.pr_wait_pid_timeout(pidfd, 20) == -errno.ETIMEDOUT
    assert lib.pr_pidfd_send_signal(pidfd, signal.SIGTERM) == 0
    status = lib.pr_wait_pid_timeout(pidfd, 5000)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM
    assert lib.pr_wait_pid_timeout(pidfd, 100) == -errno.ECHILD
    assert lib.pr_pidfd_send_signal(pidfd, 0) == -errno.ESRCH
    os.close(pidfd)
    child.returncode = 0


def test_pidfd_getfd_of_ourselves() -> None:
    read, write = os.pipe()
    pidfd = lib.pr_pidfd_open(os.getpid())
    copy = lib.pr_pidfd_getfd(pidfd, read)
    if copy == -errno.EPERM:
        copy = os.dup(read)  # a sandbox's filter; the test proves nothing here
    os.write(write, b"x")
    assert os.read(copy, 1) == b"x"
    assert lib.pr_pidfd_getfd(pidfd, 1 << 20) < 0
    for fd in (read, write, pidfd, copy):
        os.close(fd)


def test_await_end_leaves_the_child_to_be_reaped() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert lib.pr_await_end(child.pid, 50) == -errno.ETIMEDOUT
        child.kill()
        assert lib.pr_await_end(child.pid, 5000) == 0
        assert lib.pr_await_end(child.pid, 0) == 0
        assert child.wait() == -signal.SIGKILL
        assert lib.pr_await_end(child.pid, 0) == -errno.ECHILD
    finally:
        child.kill()
        child.wait()


def test_sched_setattr_of_another_process() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        batch = struct.pack("=IIQiIQQQII", 56, os.SCHED_BATCH, 0, 5, 0, 0, 0, 0, 0, 0)
        assert lib.pr_sched_setattr(child.pid, batch) == 0
        assert os.sched_getscheduler(child.pid) == os.SCHED_BATCH
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == 5
        unknown = struct.pack("=IIQiIQQQII", 56, 99, 0, 0, 0, 0, 0, 0, 0, 0)
        assert lib.pr_sched_setattr(child.pid, unknown) == -errno.EINVAL
    finally:
        child.kill()
        child.wait()


def test_prlimit() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert lib.pr_prlimit(child.pid, resource.RLIMIT_NOFILE, 17, 23) == 0
        assert resource.prlimit(child.pid, resource.RLIMIT_NOFILE) == (17, 23)
        assert lib.pr_prlimit(child.pid, resource.RLIMIT_NOFILE, 24, 23) == -errno.EINVAL
        infinity = (1 << 64) - 1
        assert lib.pr_prlimit(child.pid, resource.RLIMIT_CPU, infinity, infinity) == 0
    finally:
        child.kill()
        child.wait()


def test_winsize() -> None:
    master, slave = os.openpty()
    assert lib.pr_set_winsize(master, 24, 81) == 0
    size = ffi.new("unsigned short[4]")
    assert lib.pr_get_winsize(slave, size) == 0
    assert list(size[0:2]) == [24, 81]
    os.close(master)
    os.close(slave)
    null = os.open("/dev/null", os.O_RDONLY)
    assert lib.pr_get_winsize(null, size) == -errno.ENOTTY
    os.close(null)


# -- device programs -------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")
def test_device_program_load_and_verifier_words() -> None:
    good = bytes.fromhex("b7000000010000009500000000000000")  # r0 = 1; exit
    log = ffi.new("char[4096]")
    fd = lib.pr_bpf_prog_load_device(good, 2, log, 4096)
    if fd in (-errno.EPERM, -errno.ENOSYS):
        pytest.skip("bpf(2) is not available here")
    assert fd >= 0 and ffi.string(log) == b""
    os.close(fd)
    bad = bytes.fromhex("9500000000000000")  # exit without a value in r0
    assert lib.pr_bpf_prog_load_device(bad, 1, log, 4096) == -errno.EACCES
    assert b"R0" in ffi.string(log)
    assert lib.pr_bpf_prog_load_device(good, 0, log, 4096) == -errno.EINVAL
    assert lib.pr_bpf_prog_get_fd_by_id(0xFFFFFFF0) == -errno.ENOENT
