"""The relay between the caller's terminal and the container's pty in the foreground.

`Relay` has no loop of its own.  The foreground loop polls the descriptors of `masks` together with
the signals and the pidfd of init.
"""

from __future__ import annotations

import posix
import time
from errno import EAGAIN, EIO
from select import POLLIN, POLLNVAL, POLLOUT, poll

from pyrunc import fs
from pyrunc.errors import PyruncError, SysError
from pyrunc.native import sockets, terminals

_EOF = b"\x04"  # VEOF of a new terminal
_CHUNK = 4096  # PIPE_BUF: a write of this size to a writable pipe does not block
_DRAIN_QUIET_MS = 100  # after the exit, silence of this length ends the drain
_DRAIN_SECONDS = 2.0
_RECEIVE_TIMEOUT_MS = 10_000


def receive_master(sock: int) -> int:
    """Receive the pty master that init sends over ``sock``.  Raises PyruncError."""
    while True:
        try:
            _, fd = sockets.receive_descriptor(sock, _CHUNK, _RECEIVE_TIMEOUT_MS)
        except InterruptedError:
            continue
        except OSError as error:
            raise SysError("/process/terminal", "recvmsg", error.errno or 0) from error
        if fd < 0:
            raise PyruncError("/process/terminal: init sent no terminal")
        return fd


class Relay:
    """Copy stdin to the pty and the pty to stdout; the caller's terminal is raw until `close`."""

    __slots__ = (
        "input",
        "master",
        "master_open",
        "output",
        "saved",
        "stdin",
        "stdin_open",
        "stdout",
        "stdout_open",
    )

    def __init__(self, master: int, stdin: int = 0, stdout: int = 1) -> None:
        """Take ownership of ``master``.  Raises OSError."""
        self.master, self.stdin, self.stdout = master, stdin, stdout
        self.input = self.output = b""  # read but not yet written
        self.master_open = self.stdin_open = self.stdout_open = True
        posix.set_blocking(master, False)  # not stdio, which the caller's shell shares
        # Readers of our stdout through a pipe expect newlines without carriage returns.
        fs.ignore(terminals.clear_onlcr, master)
        self.resize()
        # Raw mode keeps the caller's output processing, because the container's pty has no ONLCR.
        self.saved: bytes | None = None
        try:
            self.saved = terminals.make_raw(stdin)
        except OSError:
            pass  # not a terminal

    def resize(self) -> None:
        """Copy the size of the caller's terminal, if any, instead of /process/consoleSize."""
        for fd in (self.stdin, self.stdout, 2):
            try:
                rows, columns = terminals.size(fd)
            except OSError:
                continue  # not a terminal
            if rows or columns:  # 0 x 0 means that the size is unknown
                fs.ignore(terminals.set_size, self.master, rows, columns)
            return

    def masks(self) -> dict[int, int]:
        """The descriptors and events to poll.  A direction with unwritten bytes does not read."""
        wanted: dict[int, int] = {}
        if self.stdin_open and self.master_open and not self.input:
            wanted[self.stdin] = POLLIN
        if self.master_open:
            mask = (0 if self.output else POLLIN) | (POLLOUT if self.input else 0)
            if mask:  # with an empty mask, poll(2) would report POLLHUP forever
                wanted[self.master] = mask
        if self.output:
            wanted[self.stdout] = POLLOUT
        return wanted

    def handle(self, ready: dict[int, int]) -> None:
        """Copy bytes of the descriptors that poll(2) reported.  Does not block or raise OSError."""
        if self.stdin in ready:
            self.input = self._read(self.stdin) if not ready[self.stdin] & POLLNVAL else b""
            if not self.input:
                self.stdin_open = False
                self.input = _EOF  # a program that reads the terminal would never see EOF
        if self.stdout in ready:
            self._write_out()
        events = ready.get(self.master, 0)
        if events & POLLOUT and self.input:
            self._write_in()
        if events & ~POLLOUT and not self.output:
            self._read_master()
            self._write_out_if_ready()

    def _read(self, fd: int) -> bytes:
        try:
            return posix.read(fd, _CHUNK)
        except OSError:
            return b""

    def _read_master(self) -> bool:
        """Fill ``output``; False if there is no data.

        EIO means that no process has the slave open.
        """
        try:
            self.output = posix.read(self.master, _CHUNK)
        except OSError as error:
            if error.errno != EAGAIN:
                self.master_open = False
            return False
        if not self.output:
            self.master_open = False
        return bool(self.output)

    def _write_in(self) -> None:
        try:
            self.input = self.input[posix.write(self.master, self.input) :]
        except OSError as error:
            if error.errno != EAGAIN:
                self.input = b""
                self.master_open = error.errno != EIO

    def _write_out_if_ready(self) -> None:
        """Write now if possible: stdout is nearly always writable, and this saves a poll."""
        if self.output:
            now = poll()
            now.register(self.stdout, POLLOUT)
            if now.poll(0):
                self._write_out()

    def _write_out(self) -> None:
        try:
            if self.stdout_open:
                self.output = self.output[posix.write(self.stdout, self.output) :]
        except OSError as error:
            if error.errno == EAGAIN:
                return
            self.stdout_open = False  # no reader; discard further output
        if not self.stdout_open:
            self.output = b""

    def drain(self) -> None:
        """Copy the remaining output after init has exited.

        It ends at EIO.  If a process that outlives init keeps the terminal open, it ends after a
        silence or a deadline.
        """
        waiter = poll()
        waiter.register(self.master, POLLIN)
        deadline = time.monotonic() + _DRAIN_SECONDS
        while True:
            if self.output:
                if self.stdout_open:
                    try:
                        fs.write_all(self.stdout, self.output)
                    except OSError:
                        self.stdout_open = False
                self.output = b""
            if not self.master_open or time.monotonic() > deadline:
                return
            if not self._read_master() and self.master_open and not waiter.poll(_DRAIN_QUIET_MS):
                return

    def close(self) -> None:
        """Restore the caller's terminal and close the master."""
        if self.saved is not None:
            fs.ignore(terminals.restore, self.stdin, self.saved)  # fails after a hangup
            self.saved = None
        if self.master >= 0:
            posix.close(self.master)
            self.master = -1
            self.master_open = False
