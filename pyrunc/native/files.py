"""Sealed files in memory, and types of filesystems."""

from __future__ import annotations

from pyrunc.native.binding import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.native.prototypes import Buffer


def memfd_sealed(name: bytes, data: Buffer, *, executable: bool = False) -> int:
    """A descriptor of a file with this content, which nobody can change.  Raises OSError.

    Where memfds cannot be executed, an executable one is a file of a read-only mount, which takes
    CAP_SYS_ADMIN.
    """
    return calls.memfd_sealed(name, data, len(data), executable)


# (fd): f_type of fstatfs(2), 0x63677270 for cgroup2.
filesystem_type = calls.fs_type_fd
