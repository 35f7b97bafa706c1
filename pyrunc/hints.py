"""What a user can do about a failure, by op and errno.  Loaded on failure only."""

from __future__ import annotations

from errno import EACCES, EBUSY, EEXIST, EINVAL, ELOOP, ENODEV, ENOENT, ENOSYS, ENOTDIR, EPERM, EROFS, EXDEV

_CAPABILITY = "pyrunc itself needs more privileges here: run it as root, outside of a user namespace"

_HINTS: dict[tuple[str, int], str] = {
    ("RLIMIT", EPERM): "raising a hard limit needs CAP_SYS_RESOURCE, which pyrunc does not have here",
    ("OOM_SCORE", EACCES): "lowering the score needs CAP_SYS_RESOURCE, which pyrunc does not have here",
    ("JOIN_NS", EINVAL): "is the path a namespace of this type?",
    ("JOIN_NS", EPERM): _CAPABILITY,
    ("UNSHARE", EPERM): _CAPABILITY,
    ("UNSHARE", EINVAL): "this kernel lacks one of the namespaces",
    ("CLONE_INIT", ENOSYS): "pyrunc needs Linux 5.12 or later",
    ("CLONE_INIT", EBUSY): "the cgroup has controllers enabled for its children, so it cannot hold processes itself",
    ("ROOT", ENOENT): "relative paths are relative to the bundle",
    ("ROOT", ENOTDIR): "the root filesystem must be a directory",
    ("MOUNT", ENODEV): "`cat /proc/filesystems` lists what this kernel can mount",
    ("MOUNT", ENOENT): "does the source exist on the host?",
    ("MOUNT", EPERM): "a mount that came from another user namespace keeps its flags",
    ("MOUNT", EBUSY): "something is mounted from this source with other options",
    ("MOUNT", EROFS): "the mount point cannot be created in a read-only filesystem",
    ("MOUNT", ELOOP): "proc and sysfs are mounted on ordinary directories only (CVE-2019-19921)",
    ("MOUNT", EXDEV): "the path leads out of the root filesystem",
    ("DEV_NODE", EPERM): "making device nodes needs CAP_MKNOD on the host",
    ("DEV_NODE", EEXIST): "remove the file from the root filesystem, or give the device another path",
    ("CONSOLE", ENOENT): "a terminal needs a devpts mounted at /dev/pts",
    ("SYSCTL", ENOENT): "this kernel has no such setting in the container's namespaces",
    ("SYSCTL", EACCES): "the setting cannot be changed from this namespace",
    ("SYSCTL", EINVAL): "the kernel does not take this value",
    ("APPARMOR", ENOENT): "load the profile with apparmor_parser first",
    ("SECCOMP", EINVAL): "this kernel does not know one of the profile's flags",
    ("SECCOMP", EACCES): "without noNewPrivileges loading a filter needs CAP_SYS_ADMIN",
    ("CAP_BOUND", EPERM): "changing the bounding set needs CAP_SETPCAP",
    ("CAPS", EPERM): "pyrunc can only give capabilities that it has itself",
    ("CHDIR", ENOENT): "the working directory is not accessible in the container's root filesystem",
}


def find(op: str, number: int) -> str:
    """A hint for a failing step (op name of plan.def, or RLIMIT), or ""."""
    return _HINTS.get((op, number), "")
