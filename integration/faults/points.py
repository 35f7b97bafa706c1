"""Points at which a command can fail: its system calls, and the errors that make sense for each.

A point is one call of one thread of one command. A fault is an errno instead of the call, or
SIGKILL after it. A dry run under `inject.c` lists the calls.
"""

from __future__ import annotations

import errno
import hashlib
import random
import re
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


# Calls of the loader and the C library before main, which we do not control. The first other call
# ends this phase.
_START = _set(
    """
    execve brk mmap mprotect munmap openat read pread64 close newfstatat fstat arch_prctl set_tid_address
    set_robust_list rseq access getrandom prlimit64 readlink readlinkat faccessat
    """
)
# Calls that cannot fail, or whose failure cannot be reported.
_CANNOT = _set(
    """
    exit exit_group rt_sigreturn getpid gettid getppid getuid geteuid getgid getegid umask alarm brk sched_yield
    set_tid_address execve arch_prctl
    """
)
_INTERRUPTED = _set(
    """
    read write readv writev pread64 pwrite64 open openat wait4 waitid poll ppoll flock futex connect accept4
    recvmsg sendmsg recvfrom sendto epoll_wait epoll_pwait clock_nanosleep nanosleep select pselect6 fcntl_lock
    """
)
_DISK = _set(
    """
    open openat write pwrite64 mkdir mkdirat rename renameat renameat2 link linkat symlink symlinkat mknod
    mknodat unlink unlinkat rmdir ftruncate
    """
)
_SPACE = _DISK - {"unlink", "unlinkat", "rmdir"}
_READS = _set("read pread64 getdents64")
_SCARCE = {"malloc": ["NOMEM", "NOMEMS"], "ulimit -v": ["SPACE"], "library": ["NOLIB"], "tmpfs": ["FULL"]}
CRIU = "CRIU"  # instead of an errno: SIGKILL of criu after one of its calls
_DESCRIPTORS = _set(
    """
    open openat openat2 dup dup3 fcntl socket socketpair pipe2 memfd_create pidfd_open pidfd_getfd signalfd4
    eventfd2 epoll_create1 fsopen fsmount fspick open_tree accept4 bpf timerfd_create
    """
)

# Prefixes of a point's problems, and the kinds of fault they report.
KINDS_OF_FAULT = {
    "does not end": "hang",
    "crash, traceback, internal error": ("said ", "killed by signal"),
    "something left by a failed command": "left by the",
    "something left after `delete --force`": "after delete --force",
    "`delete --force` fails": "delete --force:",
    "exit 0, and not done": "exit 0, but",
    "no message": ("failed without", "the message does not"),
    "not tried again after EINTR": "not tried again",
    "failed, and done": "failed, but",
    "processes left in the container": "processes in the container",
}


class Call(NamedTuple):
    """One system call of a dry run; ``own`` if the runtime's process made it, not one that it
    started."""

    thread: int
    index: int  # type: ignore[assignment]  # in place of tuple.index()
    name: str
    own: bool = True


class Point(NamedTuple):
    """One fault for one command; ``error`` is an errno's name, "" for SIGKILL."""

    scene: str
    call: Call
    error: str

    @property
    def key(self) -> str:
        """The point's identity in a results file."""
        return f"{self.scene}/{self.error or 'KILL'}/{self.call.thread}/{self.call.index}"


@cache
def build(directory: str) -> str:
    """Compile the injector. Raises AssertionError with the compiler's output."""
    target = f"{directory}/inject"
    argv = ["gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-o", target, str(HERE / "inject.c")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@cache
def names() -> dict[int, str]:
    """Map this machine's system call numbers to names."""
    argv = ["gcc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return {int(number): name for name, number in re.findall(r"#define __NR_(\w+) (\d+)", text)}


@cache
def numbers() -> dict[str, int]:
    """Map system call names to numbers."""
    return {name: number for number, name in names().items()}


def read_calls(path: Path) -> list[Call]:
    """The calls that the injector recorded, in order."""
    calls = []
    for line in path.read_text().splitlines():
        thread, index, number, own = map(int, line.split())
        calls.append(Call(thread, index, names().get(number, str(number)), own == 1))
    return calls


def after_start(calls: Iterable[Call], *, programs: bool = True) -> list[Call]:
    """The calls without those of the first thread's loader and C library.

    ``programs``: omit the calls of a program that another thread executes by name, because it
    belongs to the container (init itself has no name).
    """
    out = []
    begun = False
    theirs = set()
    for call in calls:
        begun = begun or (call.thread == 0 and call.name not in _START)
        if call.index > 0 and (call.thread > 0 or begun) and call.thread not in theirs:
            out.append(call)
        if programs and not call.own and call.name == "execve":
            theirs.add(call.thread)
    return out


def errors_of(name: str) -> list[str]:
    """The errors to inject into a call: ENOMEM for every call that can fail; for `scarcity`, its
    pseudo-errors."""
    if name in _SCARCE:
        return _SCARCE[name]
    if name in _CANNOT or not name:
        return []
    out = ["ENOMEM"]
    out += ["EINTR"] if name in _INTERRUPTED else []
    out += ["EIO"] if name in _DISK or name in _READS else []
    out += ["ENOSPC"] if name in _SPACE else []
    out += ["EMFILE"] if name in _DESCRIPTORS else []
    return out


def is_possible(error: str, name: str) -> bool:
    """Whether a fault can happen to a call; SIGKILL always can."""
    return error in ("", CRIU) or error in errors_of(name)


def of_errors(scene: str, calls: Sequence[Call]) -> list[Point]:
    """R1: every sensible error in every call of every thread."""
    return [Point(scene, call, error) for call in calls for error in errors_of(call.name)]


def of_kills(scene: str, calls: Sequence[Call], *, inside: bool) -> list[Point]:
    """R2: SIGKILL of the runtime after each of its calls. With ``inside``, R3: SIGKILL of the
    processes that it starts."""
    return [Point(scene, call, "") for call in calls if call.own != inside]


def shuffled(points: Sequence[Point], share: int = 0, shares: int = 1) -> list[Point]:
    """One share of the points in a fixed, shuffled order, so that any prefix is a sample."""
    chosen = [p for p in points if int(hashlib.sha256(p.key.encode()).hexdigest(), 16) % shares == share]
    random.Random(5).shuffle(chosen)
    return chosen


def number(error: str) -> int:
    """The number of an errno, 0 for any other name."""
    return int(getattr(errno, error, 0))
