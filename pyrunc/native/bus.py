"""A D-Bus client: libsystemd's sd-bus, which is loaded when the first connection is opened."""

from __future__ import annotations

from _struct import unpack

from pyrunc.native.binding import calls, text

_ERROR = 1024  # bytes of a peer's error


class PeerError(OSError):
    """The peer answered with an error: ``name`` is D-Bus's, ``words`` are the peer's."""

    name = words = ""


class Message:
    """A method call to be filled, or a reply to be read; sd-bus's own, until `free`. Methods raise
    OSError."""

    __slots__ = ("_handle",)

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def free(self) -> None:
        """Release it."""
        calls.bus_free(self._handle)

    def add_text(self, kind: bytes, value: bytes) -> None:
        """Append a value of type s, o or g."""
        calls.bus_add_text(self._handle, kind, value)

    def add_number(self, kind: bytes, value: int) -> None:
        """Append a value of type y, b, n, q, i, u, x or t."""
        calls.bus_add_number(self._handle, kind, value & 0xFFFFFFFFFFFFFFFF)

    def add_real(self, value: float) -> None:
        """Append a value of type d."""
        calls.bus_add_real(self._handle, value)

    def add_bytes(self, value: bytes) -> None:
        """Append a value of type ay."""
        calls.bus_add_bytes(self._handle, value, len(value))

    def open_container(self, kind: bytes, contents: bytes) -> None:
        """Begin an array (a), struct (r), entry (e) or variant (v) of this content."""
        calls.bus_open_container(self._handle, kind, contents)

    def close_container(self) -> None:
        """End the innermost container."""
        calls.bus_close_container(self._handle)

    def enter(self, kind: bytes, contents: bytes) -> None:
        """Read on in a container."""
        calls.bus_enter(self._handle, kind, contents)

    def read_text(self, kind: bytes, most: int) -> bytes:
        """The next value, of type s, o or g. Raises OSError: EMSGSIZE if it is longer than
        ``most``."""
        room = bytearray(most)
        calls.bus_read_text(self._handle, kind, room, most)
        return text(room)


class Bus:
    """A connection.  Methods raise OSError."""

    __slots__ = ("_handle",)

    def __init__(self, address: bytes, broker: bool) -> None:
        """Connect to an address of D-Bus; ``broker``: a bus daemon is on the other side, which is
        to be greeted.

        Raises OSError: ENOPKG if there is no libsystemd.
        """
        self._handle = 0
        slot = bytearray(8)
        calls.bus_open(address, broker, slot)
        self._handle = _number(slot)

    def close(self) -> None:
        """Close it; idempotent."""
        handle, self._handle = self._handle, 0
        calls.bus_close(handle)

    def message(self, service: bytes, path: bytes, interface: bytes, member: bytes) -> Message:
        """A method call to be filled."""
        slot = bytearray(8)
        calls.bus_message(self._handle, service, path, interface, member, slot)
        return Message(_number(slot))

    def call(self, message: Message, timeout_us: int) -> Message:
        """Send a message and wait for the reply.  Raises PeerError, TimeoutError."""
        slot, error = bytearray(8), bytearray(_ERROR)
        try:
            calls.bus_call(self._handle, message._handle, timeout_us, error, _ERROR, slot)
        except OSError as failed:
            name, _, words = text(error).decode("utf-8", "replace").partition("\n")
            if not name:
                raise
            refused = PeerError(failed.errno, failed.strerror)
            refused.name, refused.words = name, words
            raise refused from None
        return Message(_number(slot))

    def wait_job(self, job: bytes, timeout_ms: int) -> str:
        """The result of a job ("done" ...), once systemd signals it. Raises TimeoutError,
        InterruptedError."""
        room = bytearray(64)
        calls.bus_wait_job(self._handle, job, timeout_ms, room, 64)
        return text(room).decode("ascii", "replace")


def _number(slot: bytearray) -> int:
    found: int = unpack("Q", slot)[0]
    return found
