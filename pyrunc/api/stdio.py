"""The stdin, stdout and stderr of a program, and our ends of its pipes."""

from __future__ import annotations

import fcntl
import os
from typing import BinaryIO, Final, Protocol

from pyrunc import fs
from pyrunc.errors import UsageError
from pyrunc.launch import streams

PIPE: Final = -1
"""A new pipe, whose other end is an attribute of the container or process."""
STDOUT: Final = -2
"""For stderr: the same as stdout."""
DEVNULL: Final = -3
"""/dev/null, the default: nothing of the calling program enters the container."""
INHERIT: Final = -4
"""The calling program's own descriptor 0, 1 or 2."""

_NAMES = ("stdin", "stdout", "stderr")


class HasFileno(Protocol):
    """An open file, socket or pipe."""

    def fileno(self) -> int:
        """Its descriptor."""


Stream = int | HasFileno
"""A descriptor, an object with one, or `PIPE`, `STDOUT`, `DEVNULL`, `INHERIT`."""


class Stdio(streams.Streams):
    """The three streams of one program. The program's ends are closed once it has them."""

    __slots__ = ("__weakref__", "ours")

    def __init__(self, stdin: Stream, stdout: Stream, stderr: Stream) -> None:
        """Raises UsageError, OSError (EBADF, EMFILE)."""
        self.pumps = []
        self.theirs, self.ours = [-1, -1, -1], [-1, -1, -1]
        try:
            for number, wanted in enumerate((stdin, stdout, stderr)):
                self._open(number, wanted if isinstance(wanted, int) else wanted.fileno())
        except BaseException:
            self.close()
            raise

    def _open(self, number: int, wanted: int) -> None:
        opened = -1
        if wanted == PIPE:
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            opened, self.ours[number] = (write_end, read_end) if number else (read_end, write_end)
        elif wanted == DEVNULL:
            opened = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        elif wanted == STDOUT and number == 2:
            wanted = self.theirs[1]
        elif wanted == INHERIT:
            wanted = number
        elif wanted < 0:
            raise UsageError(f"{_NAMES[number]}={wanted}: expected a descriptor, a file, PIPE, DEVNULL or INHERIT")
        try:
            # Not 0, 1 or 2, even if the calling program has closed some of these: the spawned child
            # overwrites them.
            self.theirs[number] = fcntl.fcntl(opened if opened >= 0 else wanted, fcntl.F_DUPFD_CLOEXEC, 3)
        finally:
            if opened >= 0:
                fs.close(opened)

    def cloned(self) -> None:
        """The program has its ends.  The caller waits for their EOF."""
        self.close_theirs()

    def own(self, uid: int, gid: int) -> None:
        """Change the owner of the pipes to host ids; -1 keeps the current one."""
        for fd in self.ours:
            if fd >= 0:
                fs.ignore(os.fchown, fd, uid, gid)

    def take(self) -> tuple[BinaryIO | None, BinaryIO | None, BinaryIO | None]:
        """Files for our ends of the pipes; None for other streams."""
        taken: list[BinaryIO | None] = [None, None, None]
        for number, fd in enumerate(self.ours):
            if fd >= 0:
                taken[number] = open(fd, "rb" if number else "wb")  # noqa: SIM115
                self.ours[number] = -1
        return taken[0], taken[1], taken[2]

    def close(self) -> None:
        """Close everything that was not taken over; idempotent."""
        self.close_theirs()
        for number, fd in enumerate(self.ours):
            if fd >= 0:
                fs.close(fd)
                self.ours[number] = -1
