"""Unix sockets: messages with descriptors, connecting by long paths; and netlink in another network
namespace."""

from __future__ import annotations

from _struct import pack, unpack

from pyrunc.native.binding import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SOCK_STREAM, SOCK_DGRAM = 1, 2

# (path): a stream socket connected to ``path``, close-on-exec. TimeoutError after 10 s, and a send
# fails with BlockingIOError after as long (PR_PEER_SECONDS).
connect = calls.connect_unix
# (path, type): likewise for any type of socket; a path that begins with "@" is abstract.
connect_type = calls.connect_unix_type
# (path, type, mode): a socket bound to a new file of this mode, close-on-exec; except SOCK_DGRAM it
# listens.
listen = calls.listen_unix
# (fd): a NETLINK_ROUTE socket in a network namespace, given by a descriptor; close-on-exec.
netlink_in = calls.netlink_in


def socketpair(least: int = 0) -> tuple[int, int]:
    """A SOCK_SEQPACKET pair, close-on-exec, both numbered ``least`` or higher.  Raises OSError."""
    pair = bytearray(8)
    calls.socketpair(pair, least)
    return unpack("2i", pair)


def send(sock: int, message: bytes, fds: Sequence[int] = ()) -> int:
    """Send a message with at most 250 descriptors, never raising SIGPIPE; the number of bytes sent.
    Raises OSError."""
    return calls.send(sock, message, len(message), pack(f"{len(fds)}i", *fds), len(fds))


def send_descriptor(sock: int, message: bytes, fd: int) -> int:
    """Send at least one byte with one descriptor; the number of bytes sent.  Raises OSError."""
    return calls.send_fd(sock, message, len(message), fd)


def receive(sock: int, most: int, timeout_ms: int) -> bytes:
    """A message, b"" at the end; descriptors that come with it are closed. ``timeout_ms`` < 0: no
    limit.

    Raises OSError: TimeoutError, InterruptedError (a signal handler ran), EMSGSIZE (it is longer
    than ``most``).
    """
    buffer = bytearray(most)
    return bytes(buffer[: calls.recv(sock, buffer, most, timeout_ms)])


def receive_descriptor(sock: int, most: int, timeout_ms: int) -> tuple[bytes, int]:
    """A message, and the first descriptor that came with it, -1 without one; any others are closed.

    Raises OSError as `receive` does.
    """
    buffer, fd = bytearray(most), bytearray(4)
    got = calls.recv_fd(sock, buffer, most, timeout_ms, fd)
    return bytes(buffer[:got]), unpack("i", fd)[0]
