"""Pipes between the caller's stdio and a foreground program without a terminal.

As in runc, the program never holds a file of the host or the caller's terminal, whose mode, size
and input it could take. `foreground` runs the loop, as for `console.Relay`; nothing here blocks or
raises OSError.
"""

from __future__ import annotations

import posix
from errno import EAGAIN
from posix import O_CLOEXEC
from select import POLLIN, POLLOUT

from pyrunc import fs

_CHUNK = 65536  # the default capacity of a pipe
_SAFE = 4096  # PIPE_BUF: a write of this size to a writable pipe does not block
_REGULAR = 0o100000


class Pump:
    """One direction: copies ``source`` to ``target``."""

    __slots__ = ("data", "inward", "most", "source", "target")

    def __init__(self, source: int, target: int, inward: bool) -> None:
        self.source, self.target, self.inward = source, target, inward  # -1: closed
        self.data = b""  # read but not yet written
        # Our end of a pipe does not block, and a file never does. The caller's own descriptors stay
        # unchanged, because other processes use them as well.
        self.most = _CHUNK if inward or posix.fstat(target).st_mode & 0o170000 == _REGULAR else _SAFE

    def masks(self, wanted: dict[int, int]) -> None:
        """Add the descriptor to poll; pending data is written before more is read."""
        if self.data:
            wanted[self.target] = POLLOUT
        elif self.source >= 0:
            wanted[self.source] = POLLIN

    def handle(self, ready: dict[int, int]) -> None:
        """Copy bytes of the descriptors that poll(2) reported."""
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
        """Write as much as the target accepts.  If it is closed, close the source as well."""
        try:
            self.data = self.data[posix.write(self.target, self.data[: self.most]) :]
        except OSError as error:
            if error.errno != EAGAIN:
                self.data = b""
                self.end()

    def end(self) -> None:
        """Close our end of the pipe: the program reads EOF, or gets SIGPIPE for its output."""
        ours = self.target if self.inward else self.source
        if ours >= 0:
            fs.ignore(posix.close, ours)
        self.data = b""
        self.source = self.target = -1


class Streams:
    """The pipes of one program."""

    __slots__ = ("pumps", "theirs")

    def __init__(self, piped: list[int]) -> None:
        """Create a pipe for each of ``piped``, a subset of 0, 1 and 2.  Raises OSError (EMFILE)."""
        self.theirs = [-1, -1, -1]  # the program's ends, until `cloned` or `drain`
        self.pumps: list[Pump] = []
        for fd in piped:
            read_end, write_end = posix.pipe2(O_CLOEXEC)
            self.theirs[fd] = write_end if fd else read_end
            self.pumps.append(Pump(read_end, fd, False) if fd else Pump(0, write_end, True))
            posix.set_blocking(read_end if fd else write_end, False)

    def cloned(self) -> None:
        """The program has its ends.  Keep those for output until `drain`.

        Otherwise poll(2) would report the end of the output in the middle of the program's exit,
        and on busy cores the program would wait for a time slice again.
        """
        if self.theirs[0] >= 0:
            posix.close(self.theirs[0])
            self.theirs[0] = -1

    def drain(self) -> None:
        """The program has ended: close its input, and let its output reach EOF."""
        self.close_theirs()
        for pump in self.pumps:
            if pump.inward:
                pump.end()

    def close_theirs(self) -> None:
        """Close our copies of the program's ends."""
        for fd in self.theirs:
            if fd >= 0:
                posix.close(fd)
        self.theirs = [-1, -1, -1]

    def own(self, uid: int, gid: int) -> None:
        """Change the owner of the pipes to host ids; -1 keeps an id."""
        for pump in self.pumps:
            fs.ignore(posix.fchown, pump.target if pump.inward else pump.source, uid, gid)

    def masks(self) -> dict[int, int]:
        """The descriptors and events to poll; empty after EOF of all pipes."""
        wanted: dict[int, int] = {}
        for pump in self.pumps:
            pump.masks(wanted)
        return wanted

    def handle(self, ready: dict[int, int]) -> None:
        """Copy bytes of the descriptors that poll(2) reported."""
        for pump in self.pumps:
            pump.handle(ready)

    def close(self) -> None:
        """Close all pipes; idempotent."""
        self.close_theirs()
        for pump in self.pumps:
            pump.end()
