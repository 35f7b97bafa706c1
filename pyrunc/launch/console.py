"""The terminal of a foreground `run`: bytes between the caller's terminal and the container's pty, sizes, raw mode.

`Relay` owns no loop: the foreground loop polls what `masks` asks for, so that the terminal, the signals and the end of
the container are waited for in one place.
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
_CHUNK = 4096  # PIPE_BUF: so much can be written without blocking to a pipe that is reported writable
_DRAIN_QUIET_MS = 100  # no output for so long after the end means that there is none
_DRAIN_SECONDS = 2.0
_RECEIVE_TIMEOUT_MS = 10_000


def receive_master(sock: int) -> int:
    """Take the pty's master that init sent over ``sock``.  Raises PyruncError."""
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
    """Copies stdin to the master and the master to stdout; the caller's terminal is raw until `close`."""

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
        """Takes over ``master``.  Raises OSError."""
        self.master, self.stdin, self.stdout = master, stdin, stdout
        self.input = self.output = b""  # read, not written yet
        self.master_open = self.stdin_open = self.stdout_open = True
        posix.set_blocking(master, False)  # ours alone; stdio is shared with the caller's shell and stays as it is
        # The container's newlines stay newlines: whoever reads our stdout through a pipe wants no carriage returns.
        fs.ignore(terminals.clear_onlcr, master)
        self.resize()
        # The caller's output processing stays, because the container's has no ONLCR.
        self.saved: bytes | None = None
        try:
            self.saved = terminals.make_raw(stdin)
        except OSError:
            pass  # not a terminal

    def resize(self) -> None:
        """Give the container's terminal the size of the caller's; without one it keeps /process/consoleSize."""
        for fd in (self.stdin, self.stdout, 2):
            try:
                rows, columns = terminals.size(fd)
            except OSError:
                continue  # not a terminal
            if rows or columns:  # a terminal that does not know its size reports 0 x 0
                fs.ignore(terminals.set_size, self.master, rows, columns)
            return

    def masks(self) -> dict[int, int]:
        """What to poll for now.  A direction that has bytes to write does not read more."""
        wanted: dict[int, int] = {}
        if self.stdin_open and self.master_open and not self.input:
            wanted[self.stdin] = POLLIN
        if self.master_open:
            mask = (0 if self.output else POLLIN) | (POLLOUT if self.input else 0)
            if mask:  # if polled for nothing, it would report POLLHUP forever
                wanted[self.master] = mask
        if self.output:
            wanted[self.stdout] = POLLOUT
        return wanted

    def handle(self, ready: dict[int, int]) -> None:
        """Move bytes for the descriptors that poll(2) reported.  Never blocks, never raises OSError."""
        if self.stdin in ready:
            self.input = self._read(self.stdin) if not ready[self.stdin] & POLLNVAL else b""
            if not self.input:
                self.stdin_open = False
                self.input = _EOF  # else what reads from a pipe through a terminal would never see its end
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
        """Fill ``output``; False when there was nothing.  EIO is the end: nobody has the other side open."""
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
        """Spare a turn of the loop: terminals are writable nearly always."""
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
            self.stdout_open = False  # the reader is gone; the container goes on, its output goes nowhere
        if not self.stdout_open:
            self.output = b""

    def drain(self) -> None:
        """After the end of the container: pass on all it has written.

        The end is EIO.  A process that outlives init may keep the terminal open: then silence or the clock ends it.
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
        """Give the caller the terminal back as it was."""
        if self.saved is not None:
            fs.ignore(terminals.restore, self.stdin, self.saved)  # fails where it was hung up
            self.saved = None
        if self.master >= 0:
            posix.close(self.master)
            self.master = -1
            self.master_open = False
