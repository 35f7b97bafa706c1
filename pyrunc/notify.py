"""sd_notify between a service in the container and the service manager of the host
(docs/callers.md).

The container never gets the host's socket, but its own at /run/notify/notify.sock.  Its READY is
forwarded with the pid on the host.  The directory of the socket is ``ROOT/ID/notify``, bind-mounted
read-only into the container.
"""

from __future__ import annotations

import posix
import time
from errno import EAGAIN, ETIMEDOUT
from posix import O_CLOEXEC
from select import POLLERR, POLLHUP, POLLIN, poll

from pyrunc import fs
from pyrunc.errors import SysError
from pyrunc.native import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SOCKET = "notify.sock"
BARRIER_SECONDS = 30.0  # as sd_notify_barrier(3) suggests
_SOCK_DGRAM = 2
_LIMIT = 64 << 10  # bytes of one datagram
_TICK_MS = 500  # interval of the calls of `check`


def prepare(directory: str) -> None:
    """Create the directory for the bind mount.  Raises SysError."""
    try:
        posix.mkdir(directory, 0o755)
        posix.chmod(directory, 0o755)  # not subject to the umask: the service may not be root  # nosec B103
    except OSError as error:
        raise SysError(directory, "mkdir", error.errno or 0) from error


class Proxy:
    """Receive the container's messages and notify the host."""

    __slots__ = ("host", "sock")

    def __init__(self, directory: str, host: str) -> None:
        """Bind the socket in ``directory``.  Raises SysError.

        ``host`` is NOTIFY_SOCKET, a path or ``@abstract``.
        """
        self.host = host
        path = f"{directory}/{SOCKET}"
        fs.ignore(posix.unlink, path)
        # The service may run as any user; ROOT has mode 0700.
        try:
            self.sock = sockets.listen(fs.encode(path), sockets.SOCK_DGRAM, 0o777)
        except OSError as error:
            raise SysError(path, "bind", error.errno or 0) from error

    def wait(self, pidfd: int, pid: int, check: Callable[[], None] | None = None) -> bool:
        """Wait until the container is ready and notify the host; False if it ended before.

        ``check`` is called during the wait and may raise to end it.  Raises SysError.

        As in runc, we send READY, MAINPID and a barrier, so that the manager has read both messages
        before we exit.
        """
        poller = poll()
        poller.register(pidfd, POLLIN)
        poller.register(self.sock, POLLIN)
        while True:
            ready = [fd for fd, _ in poller.poll(None if check is None else _TICK_MS)]
            if check is not None:
                check()
            if self.sock in ready:
                if self.take(pid):
                    return True
            elif pidfd in ready:
                return False

    def fileno(self) -> int:
        """The descriptor to poll for input."""
        return self.sock

    def take(self, pid: int) -> bool:
        """Read a datagram; True if it contained READY and the host was notified.

        Raises SysError.
        """
        # read, not recvmsg: the kernel drops descriptors that the container attaches.
        for line in posix.read(self.sock, _LIMIT).split(b"\n"):
            if line.startswith(b"READY="):
                self._tell(line, pid)
                return True
        return False

    def _tell(self, line: bytes, pid: int) -> None:
        try:
            host = sockets.connect_type(fs.encode(self.host), sockets.SOCK_DGRAM)
        except OSError as error:
            raise SysError("NOTIFY_SOCKET", "connect", error.errno or 0, value=self.host) from error
        try:
            posix.write(host, line)
            posix.write(host, b"MAINPID=%d" % pid)
            _barrier(host)
        except OSError as error:
            number = ETIMEDOUT if error.errno == EAGAIN else error.errno or 0  # the queue is full
            raise SysError("NOTIFY_SOCKET", "send", number, value=self.host) from error
        finally:
            posix.close(host)

    def close(self) -> None:
        """Close the socket; idempotent.  Its file is removed with the state directory."""
        if self.sock >= 0:
            posix.close(self.sock)
            self.sock = -1


def _barrier(host: int) -> None:
    """Wait until the manager has handled all earlier messages (sd_notify_barrier(3))."""
    message = b"BARRIER=1"
    read_end, write_end = posix.pipe2(O_CLOEXEC)
    try:
        try:
            sockets.send_descriptor(host, message, write_end)
        finally:
            posix.close(write_end)
        poller = poll()
        poller.register(read_end, POLLHUP | POLLERR)
        deadline = time.monotonic() + BARRIER_SECONDS
        while not poller.poll(100) and time.monotonic() < deadline:
            pass
    finally:
        posix.close(read_end)
