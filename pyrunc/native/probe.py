"""What works on this host, for `doctor`: tried out in a child that leaves nothing behind."""

from __future__ import annotations

from pyrunc.native.binding import calls

PROBES = {  # PR_PROBE_* of shim.h
    "NAMESPACES": 0,
    "MOUNT_API": 1,
    "OPENAT2": 2,
    "CLONE_INTO_CGROUP": 3,
    "SECCOMP_NOTIFY": 4,
    "LANDLOCK": 5,
}
_IDS_ROOM = 65536  # bytes of the answer of libsubid


def probe(what: str, flags: int) -> int:
    """Run a probe in new namespaces (CLONE_NEW*): returns 0, or its version. Raises OSError.

    The errno comes from the failed call; EPIPE if the child was killed.
    """
    return calls.probe(PROBES[what], flags)


def subordinate_ids(owner: bytes, groups: bool) -> bytes:
    """The ids of a user as libsubid knows them, NSS included: ``START COUNT`` lines.

    Raises OSError: ENOPKG if there is no libsubid, or it crashed; TimeoutError.
    """
    room = bytearray(_IDS_ROOM)
    length = calls.subids(owner, groups, room, _IDS_ROOM)
    return bytes(room[1:length])
