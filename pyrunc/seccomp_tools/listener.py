"""A seccomp notify descriptor from the supervisor's side (seccomp_unotify(2))."""

from __future__ import annotations

import posix
from _struct import Struct
from errno import EINTR, ENOENT
from fcntl import ioctl

# <linux/seccomp.h>; the numbers are the same on every architecture with seccomp notification
_RECV = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV
_SEND = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND
_ID_VALID = 0x40082102  # SECCOMP_IOCTL_NOTIF_ID_VALID
_SET_FLAGS = 0x40082104  # SECCOMP_IOCTL_NOTIF_SET_FLAGS, Linux 6.6
_SYNC_WAKE_UP = 1  # SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE

_NOTIF = Struct("QIIIIQ6Q")  # struct seccomp_notif with its struct seccomp_data
_RESP = Struct("QqiI")  # struct seccomp_notif_resp


class Notification:
    """A call that waits for an answer."""

    __slots__ = ("args", "audit", "id", "number", "pid")

    def __init__(self, data: bytes) -> None:
        fields = _NOTIF.unpack(data)
        self.id: int = fields[0]
        self.pid: int = fields[1]  # the thread's, in our pid namespace
        self.number: int = fields[3]
        self.audit: int = fields[4]  # AUDIT_ARCH_*
        self.args: tuple[int, ...] = fields[6:]


class Listener:
    """The descriptor."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd
        try:
            # The two processes alternate, and switching is cheaper on one CPU.
            ioctl(fd, _SET_FLAGS, _SYNC_WAKE_UP)
        except OSError:
            pass  # an older kernel, which works equally well without it

    def receive(self) -> Notification | None:
        """The next call; None if the call that poll(2) reported was interrupted. Raises OSError."""
        buffer = bytearray(_NOTIF.size)
        try:
            ioctl(self.fd, _RECV, buffer)
        except OSError as error:
            if error.errno in (ENOENT, EINTR):
                return None
            raise
        return Notification(bytes(buffer))

    def go_on(self, call: Notification) -> None:
        """Let the kernel execute the call. A call whose process ended or was interrupted no
        longer exists."""
        try:
            ioctl(self.fd, _SEND, _RESP.pack(call.id, 0, 0, _CONTINUE))
        except OSError as error:
            if error.errno != ENOENT:
                raise

    def waits(self, call: Notification) -> bool:
        """Whether the process still waits for the answer; if so, data read from it before
        belongs to the call."""
        try:
            ioctl(self.fd, _ID_VALID, call.id.to_bytes(8, "little"))
        except OSError:
            return False
        return True

    def close(self) -> None:
        """From now on every notified call fails with ENOSYS."""
        posix.close(self.fd)
