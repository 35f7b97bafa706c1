"""Starting programs, and what is done to processes."""

from __future__ import annotations

from _struct import pack, unpack

from pyrunc.native.binding import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_STAGES = {1: "dup2", 2: "chdir", 3: "execve"}

# (pidfd, signal): pidfd_send_signal(2).  ProcessLookupError if it has ended.
pidfd_send_signal = calls.pidfd_send_signal
# (pidfd, number): a copy of a descriptor of another process, close-on-exec.
pidfd_getfd = calls.pidfd_getfd
# (pidfd, timeout_ms): reap a child; its wait status. TimeoutError, ChildProcessError,
# InterruptedError.
wait = calls.wait_pid_timeout
# (pid, timeout_ms): wait for the end of a child without reaping it; < 0: no limit. Raises as `wait`
# does.
await_end = calls.await_end
# (pid, resource, soft, hard): prlimit(2).
prlimit = calls.prlimit
# (pid, attr): sched_setattr(2) with the kernel's struct sched_attr, which begins with its own size.
sched_setattr = calls.sched_setattr
# (on): PR_SET_CHILD_SUBREAPER.
set_child_subreaper = calls.set_child_subreaper


# Raises OSError if the child of `spawn_init` failed after the return.
spawn_error = calls.spawn_error


def spawn_init(
    exe: int, sock: int, preserved: int, stdio: Sequence[int] = (), *, joins: bool = False, ahead: bool = False
) -> int:
    """Execute ``exe`` as pyrunc-init; its pid. It is a child, with an empty environment and default
    signals.

    It inherits stdio and the ``preserved`` descriptors from 3 on; ``sock`` comes next. ``stdio``:
    three descriptors above 2 that take the place of 0, 1 and 2; -1 is inherited. Raises OSError:
    EBADF if one to be preserved is not open. ``joins``: its plan joins a container, so it leaves
    our session at once. ``ahead``: return before the child has executed ``exe``; init has to reset
    signals itself, and `spawn_error` reports a failure.
    """
    call = calls.spawn_init_ahead if ahead else calls.spawn_init
    return call(exe, sock, preserved, joins, pack("3i", *stdio) if stdio else None)


def spawn_hook(
    path: bytes, argv: list[bytes], envp: list[bytes], *, cwd: bytes | None = None, stdin: int = -1, out: int = -1
) -> int:
    """Execute a program on the host with exactly these arguments and this environment; the pid of
    the child.

    ``out`` is stdout and stderr; -1 is /dev/null. It gets no other descriptor, and default signals.
    Raises OSError, whose strerror is dup2, chdir, execve or clone.
    """
    stage = bytearray(4)
    try:
        return calls.spawn_hook(path, argv, envp, cwd, stdin, out, stage)
    except OSError as error:
        raise OSError(error.errno, _STAGES.get(unpack("i", stage)[0], "clone")) from None
