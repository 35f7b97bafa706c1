"""The host side of `exec --tools`: check and open the directory, and put it into PATH."""

from __future__ import annotations

import posix
from errno import EINVAL, EPERM
from posix import O_CLOEXEC, O_RDONLY

from pyrunc import fs
from pyrunc.errors import StateError, SysError, UsageError, show
from pyrunc.native import mounts
from pyrunc.plan.environment import DEFAULT_PATH
from pyrunc.plan.mount_options import clean
from pyrunc.plan.tools import search_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.context import Options
    from pyrunc.spec.types import Config, Process

_TYPE, _DIRECTORY = 0o170000, 0o040000  # of st_mode (inode(7))


def prepare(directory: str, config: Config, process: Process, options: Options) -> Process:
    """Set ``options.tools``; returns the process with the tools in its PATH.

    Raises UsageError for a directory that is not one, StateError for a container that has no place
    for it.
    """
    try:
        is_directory = posix.stat(directory).st_mode & _TYPE == _DIRECTORY
    except OSError as error:
        raise SysError("--tools", "stat", error.errno or 0, value=directory) from error
    if not is_directory:
        raise UsageError(f"--tools {show(directory)}: expected a directory, found another kind of file")
    if not options.joined or options.joined[-1][0] != "mount":
        raise StateError("--tools: the container has no mount namespace of its own, so every process would see them")
    if not any(clean(mount["destination"]) == "/proc" for mount in config.get("mounts", ())):
        raise StateError("--tools: the container has no /proc, where the directory is mounted")
    options.tools = directory
    paths = [entry[5:] for entry in process.get("env", ()) if entry.startswith("PATH=")]
    path = "PATH=" + search_path(paths[-1] if paths else DEFAULT_PATH)
    return {**process, "env": [*process.get("env", ()), path]}


def open_tree(directory: str, userns: str) -> int:
    """A detached clone of the directory's mount; ``userns`` is the user namespace of the container.

    In a user namespace of its own, root of the host is unmapped, so the clone gets an id mapping.
    A filesystem without support for one is bound as it is: the programs then belong to nobody.
    Raises SysError.
    """
    try:
        tree = mounts.open_tree(fs.encode(directory), False)
    except OSError as error:
        raise SysError("--tools", "open_tree", error.errno or 0, value=directory) from error
    try:
        if posix.stat(userns).st_ino != posix.stat("/proc/self/ns/user").st_ino:
            _map_ids(tree, userns)
    except OSError as error:
        posix.close(tree)
        hint = "idmapped mounts need Linux 5.12"
        raise SysError("--tools", "mount_setattr", error.errno or 0, value=directory, hint=hint) from error
    return tree


def _map_ids(tree: int, userns: str) -> None:
    """Map the ids, if the filesystem allows it.  Raises OSError."""
    fd = posix.open(userns, O_RDONLY | O_CLOEXEC)
    try:
        mounts.map_ids(tree, False, fd)
    except OSError as error:
        if error.errno not in (EINVAL, EPERM):
            raise
    finally:
        posix.close(fd)
