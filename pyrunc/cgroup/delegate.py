"""Ownership of a container's cgroup (config-linux.md, "Cgroup ownership"), which a service manager
inside needs."""

from __future__ import annotations

import posix
from errno import ENOENT

from pyrunc import fs
from pyrunc.errors import SysError

DELEGATE = "/sys/kernel/cgroup/delegate"
FALLBACK = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")  # if the kernel does not list them


def give(directory: str, uid: int) -> None:
    """Give ``uid`` (a user of the host) the cgroup and the files that delegation consists of.

    The files with limits belong to the parent and stay root's. Files that this kernel lacks are
    skipped. Raises SysError.
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
