"""The caller's terminal joined to the container's: `run` with process.terminal and no console socket."""

from __future__ import annotations

import posix
from errno import EAGAIN, EIO
from select import POLLHUP, POLLIN, POLLOUT

from pyrunc import runtime
from pyrunc.errors import PyruncError, SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHUNK = 65536
RECEIVE_TIMEOUT_MS = 10_000


def receive_master(sock: int) -> int:
    """The pty master that init sent over our end of the console socket.  Raises PyruncError."""
    ffi, lib = runtime.shim()
    data, fd = ffi.new("char[4096]"), ffi.new("int*", -1)
    got = lib.pr_recv_fd(sock, data, 4096, RECEIVE_TIMEOUT_MS, fd)
    if got < 0:
        raise SysError("/process/terminal", "recvmsg", -got)
    if fd[0] < 0:
        raise PyruncError("/process/terminal: init sent no terminal")
    return int(fd[0])


class Relay:
    """Bytes both ways between our stdin/stdout and the master, never blocking, nothing lost at the end.

    The caller's terminal is put into raw mode and restored by `close`; output processing of the container's terminal
    is off (ONLCR), because the caller's terminal does it again.
    """

    __slots__ = ("blocking", "eof", "hung_up", "master", "saved", "to_master", "to_stdout")

    def __init__(self, master: int) -> None:
        runtime.full()
        self.master = master
        self.to_master = b""
        self.to_stdout = b""
        self.eof = False  # our stdin ended
        self.hung_up = False  # the last process of the container closed its side
        self.saved: list[Any] | None = None
        posix.set_blocking(master, False)
        clear_onlcr(master)
        self.blocking = [(fd, posix.get_blocking(fd)) for fd in (0, 1)]
        self.raw()
        self.resize()

    def raw(self) -> None:
        """Raw mode on our own terminal, when stdin is one."""
        if posix.isatty(0):
            import termios
            import tty

            self.saved = termios.tcgetattr(0)
            tty.setraw(0)

    def resize(self) -> None:
        """Give the container's terminal the size of ours."""
        ffi, lib = runtime.shim()
        size = ffi.new("unsigned short[4]")
        for fd in (0, 1, 2):
            if lib.pr_get_winsize(fd, size) >= 0 and (size[0] or size[1]):
                lib.pr_set_winsize(self.master, size[0], size[1])
                return

    def masks(self) -> dict[int, int]:
        """What to poll for, by descriptor; a side that is full is not read from, so nothing spins."""
        out: dict[int, int] = {}
        if not self.hung_up:
            mask = (POLLIN if len(self.to_stdout) < CHUNK else 0) | (POLLOUT if self.to_master else 0)
            out[self.master] = mask
        if not self.eof and len(self.to_master) < CHUNK:
            out[0] = POLLIN
        if self.to_stdout:
            out[1] = POLLOUT
        return out

    def handle(self, ready: dict[int, int]) -> None:
        """Move what can be moved."""
        if ready.get(0, 0):
            self.read_stdin()
        if ready.get(self.master, 0) & (POLLIN | POLLHUP):
            self.read_master()
        if self.to_master and ready.get(self.master, 0) & POLLOUT:
            self.to_master = self.to_master[written(self.master, self.to_master) :]
        if self.to_stdout and ready.get(1, 0):
            self.to_stdout = self.to_stdout[written(1, self.to_stdout) :]

    def read_stdin(self) -> None:
        """Input for the container; at its end the terminal is told so with its EOF character (^D)."""
        try:
            data = posix.read(0, CHUNK)
        except OSError as error:
            if error.errno == EAGAIN:
                return
            data = b""
        if not data:
            self.eof = True
            data = b"\x04"
        self.to_master += data

    def read_master(self) -> None:
        """Output of the container; EIO is how a pty master says that nobody has the other side open."""
        try:
            data = posix.read(self.master, CHUNK)
        except OSError as error:
            if error.errno == EAGAIN:
                return
            if error.errno != EIO:
                raise
            data = b""
        if not data:
            self.hung_up = True
        self.to_stdout += data

    def drain(self) -> None:
        """The program has ended: what it wrote last is still in the pty."""
        while not self.hung_up:
            before = len(self.to_stdout)
            self.read_master()
            if len(self.to_stdout) == before:
                break
        while self.to_stdout:
            done = written(1, self.to_stdout)
            if not done:
                break
            self.to_stdout = self.to_stdout[done:]

    def close(self) -> None:
        """Put the caller's terminal back."""
        if self.saved is not None:
            import termios

            termios.tcsetattr(0, termios.TCSADRAIN, self.saved)
        posix.close(self.master)


def clear_onlcr(fd: int) -> None:
    """Line feeds leave the container's terminal as they are: ours adds the carriage return (runc does the same)."""
    import termios

    attributes = termios.tcgetattr(fd)
    attributes[1] &= ~termios.ONLCR
    termios.tcsetattr(fd, termios.TCSANOW, attributes)


def written(fd: int, data: bytes) -> int:
    """Bytes that the descriptor took; everything when nobody reads it any more, so that the container is not stopped."""
    try:
        return posix.write(fd, data)
    except BlockingIOError:
        return 0
    except OSError:
        return len(data)
