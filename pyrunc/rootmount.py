"""The mount at the root filesystem of a container without a mount namespace.

Such a container inherits the caller's mount namespace (config-linux.md), and its mounts are created
there (config.md), below a bind mount of the root filesystem onto itself. Unmounting this bind mount
removes all of them (runtime.md, Delete: "MUST delete the resources that were created").
"""

from __future__ import annotations

import posix
from errno import EINVAL
from posix import O_CLOEXEC, O_DIRECTORY

from pyrunc import fs
from pyrunc.errors import PyruncError, SysError
from pyrunc.native import mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.mountinfo import Mount

MNT_DETACH = 2
MS_PRIVATE = 1 << 18


def mount_id(path: str) -> int:
    """The id of the mount that contains a directory, 0 if it does not exist.  Raises OSError."""
    fd = _open(path)
    if fd < 0:
        return 0
    try:
        return fs.mount_id(fd)
    finally:
        posix.close(fd)


def remove(rootfs: str, below: int, own: int) -> None:
    """Remove the bind at ``rootfs`` with all mounts in it; does nothing if it is gone.

    ``below`` is the id of the mount that was there before, ``own`` the id of the bind, or 0 if
    unknown. Raises PyruncError if another mount covers it, SysError.
    """
    fd = _open(rootfs)
    if fd < 0:
        return
    try:
        top = fs.mount_id(fd)
        if top != (own or top) or top == below:
            listed = _by_id()
            if own != top and own in listed and top in listed and listed[own].point == listed[top].point:
                raise PyruncError(f"{rootfs}: another mount covers the one of this container; unmount it first")
            return
        if not own and not _is_self_bind(_by_id(), top):
            return  # another program's mount
        # Otherwise the unmount would propagate to peers, for example to the host's /dev/pts.
        try:
            mounts.set_propagation(fd, MS_PRIVATE)
            mounts.unmount(fs.encode(f"/proc/self/fd/{fd}"), MNT_DETACH)
        except OSError as error:
            if error.errno != EINVAL:
                raise SysError("/root/path", "umount2", error.errno or 0, value=rootfs) from error
    finally:
        posix.close(fd)


def _open(path: str) -> int:
    """Open a directory; -1 if it does not exist.  Raises OSError if that is unknown."""
    try:
        return posix.open(path, posix.O_PATH | O_DIRECTORY | O_CLOEXEC)
    except OSError as error:
        if fs.is_inconclusive(error):
            raise
        return -1


def _by_id() -> dict[int, Mount]:
    """All mounts of this namespace. Raises OSError."""
    from pyrunc import mountinfo

    return {mount.id: mount for mount in mountinfo.read()}


def _is_self_bind(listed: dict[int, Mount], id: int) -> bool:
    """Whether a mount is a bind of the directory that it covers."""
    mount = listed.get(id)
    above = listed.get(mount.parent) if mount else None
    if mount is None or above is None:
        return False
    inside = mount.point[len(above.point) :] if above.point != "/" else mount.point
    return fs.normpath(f"{above.root}/{inside}") == mount.root
