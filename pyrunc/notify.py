"""sd_notify between a service in the container and the service manager of the host (features.md 4.1).

The container gets a socket of its own at /run/notify/notify.sock and never the host's: its READY is passed on with the
pid that the host knows.  The socket's directory is ``ROOT/ID/notify``, bound read-only into the container.
"""

from __future__ import annotations

import posix
import time
from errno import ETIMEDOUT
from posix import O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_PATH
from select import POLLERR, POLLHUP, POLLIN, poll

from pyrunc import fs, runtime
from pyrunc.errors import SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOCKET = "notify.sock"
PEER_SECONDS = 10.0  # as PR_PEER_SECONDS of native/shim/shim.h
BARRIER_SECONDS = 30.0  # as sd_notify_barrier(3) suggests
_LIMIT = 64 << 10  # bytes of one datagram


def prepare(directory: str) -> None:
    """Make the directory that is bound into the container.  Raises SysError."""
    try:
        posix.mkdir(directory, 0o755)
        posix.chmod(directory, 0o755)  # whatever the umask: the service need not be root  # nosec B103
    except OSError as error:
        raise SysError(directory, "mkdir", error.errno or 0) from error


class Proxy:
    """Receives what the container says and tells the host."""

    __slots__ = ("host", "sock")

    def __init__(self, directory: str, host: str) -> None:
        """Bind the socket in ``directory``; ``host`` is NOTIFY_SOCKET, a path or ``@abstract``.  Raises SysError."""
        runtime.full()
        import socket

        self.host = host
        self.sock: Any = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        fd = -1
        try:
            # sun_path holds 107 bytes, less than containerd's roots need; a path through the descriptor is short.
            fd = posix.open(directory, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
            path = f"/proc/self/fd/{fd}/{SOCKET}"
            fs.ignore(posix.unlink, path)
            self.sock.bind(path)
            posix.chmod(path, 0o777)  # for whatever user the service is; ROOT is 0700  # nosec B103
        except OSError as error:
            self.sock.close()
            raise SysError(f"{directory}/{SOCKET}", "bind", error.errno or 0) from error
        finally:
            if fd >= 0:
                posix.close(fd)

    def wait(self, pidfd: int, pid: int) -> bool:
        """Wait until the container is ready and tell the host; False when it ended before.  Raises SysError.

        As runc does, only READY is passed on, then MAINPID, then the barrier, so that the manager has read both
        before the sender is gone.
        """
        poller = poll()
        poller.register(pidfd, POLLIN)
        poller.register(self.sock.fileno(), POLLIN)
        while True:
            ready = [fd for fd, _ in poller.poll()]
            if self.sock.fileno() in ready:
                if self.take(pid):
                    return True
            elif pidfd in ready:
                return False

    def fileno(self) -> int:
        """The descriptor to poll for input."""
        return int(self.sock.fileno())

    def take(self, pid: int) -> bool:
        """Read one datagram; True when it said READY and the host was told.  Raises SysError."""
        # recv, not recvmsg: descriptors that the container attaches are dropped by the kernel.
        for line in self.sock.recv(_LIMIT).split(b"\n"):
            if line.startswith(b"READY="):
                self._tell(line, pid)
                return True
        return False

    def _tell(self, line: bytes, pid: int) -> None:
        import socket

        address = "\0" + self.host[1:] if self.host.startswith("@") else self.host
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as host:
                host.settimeout(PEER_SECONDS)  # a full queue that nobody reads
                host.connect(fs.encode(address))
                host.send(line)
                host.send(b"MAINPID=%d" % pid)
                _barrier(host)
        except OSError as error:
            raise SysError("NOTIFY_SOCKET", "send", error.errno or ETIMEDOUT, value=self.host) from error

    def close(self) -> None:
        """Release the socket; its file goes with the state directory."""
        self.sock.close()


def _barrier(host: Any) -> None:
    """sd_notify_barrier(3): the manager closes the descriptor once it has handled all before it."""
    import socket

    read_end, write_end = posix.pipe2(O_CLOEXEC)
    try:
        try:
            socket.send_fds(host, [b"BARRIER=1"], [write_end])
        finally:
            posix.close(write_end)
        poller = poll()
        poller.register(read_end, POLLHUP | POLLERR)
        deadline = time.monotonic() + BARRIER_SECONDS
        while not poller.poll(100) and time.monotonic() < deadline:
            pass
    finally:
        posix.close(read_end)
