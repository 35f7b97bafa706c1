"""Container processes that are children of the calling program: their end and their exit status."""

from __future__ import annotations

import math
import os
import select
import threading
import time
import weakref
from contextlib import suppress

from pyrunc import procfs
from pyrunc.api import library

_MOST_MS = 1 << 30  # limit of one poll(2)
_children: weakref.WeakValueDictionary[tuple[int, int], Child] = weakref.WeakValueDictionary()
_knowing = threading.Lock()
_forgotten: set[int] = set()  # abandoned children; reaped at the next opportunity


class Child:
    """One process, watched through a pidfd that is closed with the object at the latest.

    ``returncode`` is known once the process has ended, if it was a child of ours: 0 to 255, 128 + n
    after signal n.
    """

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid, self.fd = pid, pidfd
        self.returncode: int | None = None
        self.ended = False
        self._lock = threading.Lock()
        self._close = weakref.finalize(self, _drop, pid, pidfd)
        self._close.atexit = False

    def poll(self) -> bool:
        """Whether the process has ended; reaps it then. Never blocks."""
        with self._lock:
            if not self.ended:
                self._collect()
            return self.ended

    def _collect(self) -> None:
        try:
            found = os.waitid(os.P_PIDFD, self.fd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:  # not a child of ours, or already reaped by other code
            self.ended = bool(_poll(self.fd, 0))
            return
        if found is not None:
            self.ended = True
            self.returncode = found.si_status if found.si_code == os.CLD_EXITED else 128 + found.si_status
            library.reaped(self.pid)

    def wait(self, timeout: float | None) -> bool:
        """Wait at most ``timeout`` seconds (None: forever); returns whether the process has
        ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.poll():
            left = _MOST_MS
            if deadline is not None:
                seconds = deadline - time.monotonic()
                if seconds <= 0:
                    return False
                left = min(math.ceil(seconds * 1000), _MOST_MS)
            fd = self.fd
            if fd >= 0:
                _poll(fd, left)
        return True

    def close(self) -> None:
        """Close the pidfd of a process that has ended; idempotent."""
        with self._lock:
            if self.ended and self._close.detach():
                os.close(self.fd)
                self.fd = -1


def _poll(fd: int, milliseconds: int) -> list[tuple[int, int]]:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return poller.poll(milliseconds)


def _drop(pid: int, fd: int) -> None:
    """Abandon a child: reap it if it has ended, otherwise keep it for later."""
    try:
        found = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
        if found is None:
            _forgotten.add(pid)
        else:
            library.reaped(pid)
    except OSError:
        pass
    finally:
        with suppress(OSError):
            os.close(fd)


def reap_forgotten() -> None:
    """Collect abandoned children that have ended, as `subprocess` does."""
    for pid in list(_forgotten):
        try:
            ended = os.waitpid(pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            ended = True
        if ended:
            _forgotten.discard(pid)
            library.reaped(pid)


def known(pid: int, starttime: int, pidfd: int = -1) -> Child | None:
    """The child object of a process, shared by all callers; None if the process is gone.

    Takes ownership of ``pidfd``. Raises OSError.
    """
    with _knowing:
        child = _children.get((pid, starttime))
        if child is None:
            if pidfd < 0:
                pidfd = _open(pid, starttime)
            if pidfd < 0:
                return None
            child = _children[pid, starttime] = Child(pid, pidfd)
            _forgotten.discard(pid)
        elif pidfd >= 0:
            os.close(pidfd)
        return child


def _open(pid: int, starttime: int) -> int:
    """A pidfd of exactly this process, even if it is a zombie; -1 if it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    if procfs.process_stat(pid)[1] == starttime:
        return fd
    os.close(fd)
    return -1
