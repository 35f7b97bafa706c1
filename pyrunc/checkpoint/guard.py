"""Thaw a container that was frozen for CRIU, even if pyrunc is killed meanwhile.

CRIU freezes a cgroup itself if it is not frozen, but looks for the result only every 100 ms
(freeze_processes in CRIU's seize.c). So the container is frozen before CRIU is asked. CRIU thaws it
for the dump, and finally restores the state that it found, so that pyrunc must thaw it then. If
pyrunc cannot, the guard does: a fork that waits for the end of pyrunc and of criu.

Python has a single thread here.
"""

from __future__ import annotations

import posix
from posix import O_CLOEXEC
from select import POLLIN, poll

from pyrunc import fs
from pyrunc.signals import SIGKILL

_NAME = b"criu-guard"  # in `ps`


class Guard:
    """The process; without one, nothing may be frozen."""

    __slots__ = ("pid", "pipe")

    def __init__(self) -> None:
        self.pid, self.pipe = 0, -1

    def start(self, criu: int, directory: str) -> None:
        """Guard the cgroup in ``directory`` until `dismiss`; ``criu`` is a child. Raises OSError."""
        ended = posix.pidfd_open(criu)
        try:
            wait, self.pipe = posix.pipe2(O_CLOEXEC)
            try:
                self.pid = posix.fork()
                if not self.pid:
                    try:
                        _watch(wait, ended, directory)
                    finally:
                        posix._exit(0)
            finally:
                fs.close(wait)
        finally:
            fs.close(ended)

    def dismiss(self) -> None:
        """End it, because the cgroup is as it should be. Idempotent."""
        if self.pid:
            fs.ignore(_end, self.pid)
            self.pid = 0
        if self.pipe >= 0:
            fs.close(self.pipe)
            self.pipe = -1


def _end(pid: int) -> None:
    """Kill a child and reap it.  Raises OSError: one that was not killed is not waited for."""
    posix.kill(pid, SIGKILL)
    posix.waitpid(pid, 0)


def _watch(wait: int, ended: int, directory: str) -> None:
    """In the fork: thaw the cgroup after the ends of pyrunc and criu."""
    fs.ignore(posix.setsid)  # signals for our process group are not for the guard
    fs.ignore(fs.write_file, "/proc/self/comm", _NAME)
    # criu must see our end on its socket, and the caller on its pipes.
    for name in fs.names("/proc/self/fd"):
        if int(name) not in (wait, ended):
            fs.close(int(name))
    posix.read(wait, 1)  # the end of pyrunc
    poller = poll()
    poller.register(ended, POLLIN)
    poller.poll()
    fs.ignore(fs.write_file, f"{directory}/cgroup.freeze", b"0")
