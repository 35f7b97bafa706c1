"""Pipes between the caller's stdio and a program in the foreground that has no terminal.

As in runc, the program never holds the caller's terminal (whose mode, size and input it could
take), nor a file of the host. `foreground` runs the loop, as it does for the terminal's
`console.Relay`; nothing here blocks or raises OSError.
"""

from __future__ import annotations

import posix
from errno import EAGAIN
from posix import O_CLOEXEC
from select import POLLIN, POLLOUT

from pyrunc import fs

_CHUNK = 65536  # what a pipe holds
_SAFE = 4096  # PIPE_BUF: so much can be written without blocking to what poll(2) calls writable
_REGULAR = 0o100000


class Pump:
    """One direction: what is read from ``source`` is written to ``target``."""

    __slots__ = ("data", "inward", "most", "source", "target")

    def __init__(self, source: int, target: int, inward: bool) -> None:
        self.source, self.target, self.inward = source, target, inward  # -1: closed
        self.data = b""  # read, not written yet
        # Our end of a pipe does not block, and a file never does. The caller's own descriptors stay
        # unchanged, because other processes use them as well.
        self.most = _CHUNK if inward or posix.fstat(target).st_mode & 0o170000 == _REGULAR else _SAFE

    def masks(self, wanted: dict[int, int]) -> None:
        """What to poll for now: to write what is there before more is read."""
        if self.data:
            wanted[self.target] = POLLOUT
        elif self.source >= 0:
            wanted[self.source] = POLLIN

    def handle(self, ready: dict[int, int]) -> None:
        """Move bytes for the descriptors that poll(2) reported."""
        if self.source in ready and not self.data:
            try:
                self.data = posix.read(self.source, _CHUNK)
            except OSError as error:
                if error.errno == EAGAIN:
                    return
            if not self.data:
                self.end()
            elif self.most == _CHUNK:
                self.write()
        elif self.target in ready and self.data:
            self.write()

    def write(self) -> None:
        """Write what the target takes now.  When it takes nothing any more, the other side is to know."""
        try:
            self.data = self.data[posix.write(self.target, self.data[: self.most]) :]
        except OSError as error:
            if error.errno != EAGAIN:
                self.data = b""
                self.end()

    def end(self) -> None:
        """Close our end of the pipe: the program reads the end of its input, or gets SIGPIPE for its output."""
        ours = self.target if self.inward else self.source
        if ours >= 0:
            fs.ignore(posix.close, ours)
        self.data = b""
        self.source = self.target = -1


class Streams:
    """The pipes of one program."""

    __slots__ = ("pumps", "theirs")

    def __init__(self, piped: list[int]) -> None:
        """Make a pipe for each of ``piped``, some of 0, 1 and 2.  Raises OSError (EMFILE)."""
        self.theirs = [-1, -1, -1]  # the program's ends, until `close_theirs`
        self.pumps: list[Pump] = []
        for fd in piped:
            read_end, write_end = posix.pipe2(O_CLOEXEC)
            self.theirs[fd] = write_end if fd else read_end
            self.pumps.append(Pump(read_end, fd, False) if fd else Pump(0, write_end, True))
            posix.set_blocking(read_end if fd else write_end, False)

    def close_theirs(self) -> None:
        """After the clone of the program's process: it alone must hold its ends, or the output
        would never end."""
        for fd in self.theirs:
            if fd >= 0:
                posix.close(fd)
        self.theirs = [-1, -1, -1]

    def own(self, uid: int, gid: int) -> None:
        """Give the pipes to a user, by the ids of the host; -1 leaves one as it is."""
        for pump in self.pumps:
            fs.ignore(posix.fchown, pump.target if pump.inward else pump.source, uid, gid)

    def masks(self) -> dict[int, int]:
        """What to poll for now; empty when all is done."""
        wanted: dict[int, int] = {}
        for pump in self.pumps:
            pump.masks(wanted)
        return wanted

    def handle(self, ready: dict[int, int]) -> None:
        """Move bytes for the descriptors that poll(2) reported."""
        for pump in self.pumps:
            pump.handle(ready)

    def close_input(self) -> None:
        """The program has ended: nobody reads any more."""
        for pump in self.pumps:
            if pump.inward:
                pump.end()

    def close(self) -> None:
        """Close everything of ours; idempotent."""
        self.close_theirs()
        for pump in self.pumps:
            pump.end()
