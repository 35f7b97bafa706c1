"""How a session ends early: signals, and children that are killed, reaped or stuck."""

from __future__ import annotations

import posix

from pyrunc.errors import PyruncError
from pyrunc.native import processes, signals

# For a process that was killed or is about to exit.  A process that takes longer is stuck in the
# kernel, for example on a FUSE server, where signals do not reach it.
END_TIMEOUT_MS = 5_000


class Interrupts:
    """Catch SIGINT, SIGTERM, SIGHUP and SIGQUIT.

    They are handled between two steps, never during an undo.
    """

    __slots__ = ()

    def __init__(self) -> None:
        signals.catch()

    @property
    def caught(self) -> int:
        """The signal that arrived, or 0."""
        return signals.caught()

    def check(self) -> None:
        """Raises PyruncError if a signal arrived."""
        if self.caught:
            raise PyruncError(f"interrupted by signal {self.caught}")

    def restore(self) -> None:
        """Restore the previous dispositions, if the kernel allows it.

        A failure is not an error: the work is done, and this process is about to exit.
        """
        try:
            signals.restore()
        except OSError:
            pass


def raise_interrupted(interrupts: Interrupts, error: BaseException) -> None:
    """Raises PyruncError if a signal arrived and ``error`` is not already a PyruncError."""
    if interrupts.caught and not isinstance(error, PyruncError):
        raise PyruncError(f"interrupted by signal {interrupts.caught}") from error


def unknown_children() -> list[int]:
    """Children of this thread that have init's name.

    One may be frozen in its cgroup, and a zombie in the container's pid namespace would keep that
    namespace's first process from ending. The caller may have left us other children (`sh -c 'job &
    exec pyrunc ...'`), which we must not touch.
    """
    from pyrunc import host

    listed = host.read("/proc/thread-self/children").split()  # empty without CONFIG_PROC_CHILDREN
    return [int(pid) for pid in listed if host.read(f"/proc/{int(pid)}/comm") == b"pyrunc-init\n"]


def where(pid: int) -> str:
    """Text for messages: ``process 4711 (pyrunc-init) waits in request_wait_answer``."""
    from pyrunc import host

    name = host.read(f"/proc/{pid}/comm").decode("utf-8", "replace").strip() or "?"
    return f"process {pid} ({name}) waits in {host.waits_in(pid)}"


def await_end(pid: int, interrupts: Interrupts | None = None) -> None:
    """Wait for a child to exit, without reaping it.

    Raises PyruncError after END_TIMEOUT_MS, OSError.
    """
    while True:
        try:
            processes.await_end(pid, END_TIMEOUT_MS)
        except InterruptedError:
            if interrupts is not None:
                interrupts.check()
        except TimeoutError:
            raise PyruncError(f"a child process did not exit: {where(pid)}") from None
        except ChildProcessError:
            return  # other code in this process has reaped it
        else:
            return


def has_ended(pid: int) -> bool:
    """Whether an unreaped child has ended."""
    try:
        processes.await_end(pid, 0)
    except OSError:
        return False
    return True


def reap(pid: int, interrupts: Interrupts | None = None) -> int:
    """Wait for a child to exit and reap it. Returns its wait status, 0 if other code has reaped it.

    Raises PyruncError if it does not end in time, OSError.
    """
    await_end(pid, interrupts)
    try:
        return posix.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0
