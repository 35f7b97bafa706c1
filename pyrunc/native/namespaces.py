"""Namespaces: new ones, and joining one."""

from __future__ import annotations

from _struct import unpack

from pyrunc.native.binding import calls

_STAGES = {1: "clone", 2: "uid_map", 3: "gid_map", 4: "open"}

# (fd, type): setns(2); CLONE_NEW*.
setns = calls.setns
# (flags): unshare(2).
unshare = calls.unshare
# (): the pid of a child in a new user namespace without maps, which sleeps for half a minute. One
# at a time.
hold_user_namespace = calls.hold_userns


def user_namespace(uid_map: bytes, gid_map: bytes) -> int:
    """A descriptor of a new user namespace with these maps (``INSIDE OUTSIDE SIZE`` lines).

    Raises OSError, whose strerror is clone, uid_map, gid_map or open.
    """
    stage = bytearray(4)
    try:
        return calls.userns(uid_map, gid_map, stage)
    except OSError as error:
        raise OSError(error.errno, _STAGES.get(unpack("i", stage)[0], "clone")) from None
