"""Who owns a container's cgroup (config-linux.md, "Cgroup ownership"): what lets a service manager inside work."""

from __future__ import annotations

import posix
from errno import ENOENT

from pyrunc import fs
from pyrunc.errors import SysError

DELEGATE = "/sys/kernel/cgroup/delegate"
FALLBACK = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")  # where the kernel does not list them


def give(directory: str, uid: int) -> None:
    """Make ``uid`` (a user of the host) the owner of a cgroup and of the files that delegation is made of.

    Limits stay root's: they are files of the parent's.  Files that this kernel does not have are skipped.
    Raises SysError.
    """
    try:
        names = fs.read_file(DELEGATE, 65536).decode("ascii").split()
    except OSError:
        names = list(FALLBACK)
    for name in ["", *names]:
        if "/" in name:
            continue
        path = f"{directory}/{name}" if name else directory
        try:
            posix.chown(path, uid, -1)
        except OSError as error:
            if error.errno == ENOENT and name:
                continue
            raise SysError("/linux/cgroupsPath", "chown", error.errno or 0, value=path) from error
