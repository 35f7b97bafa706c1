"""Hints for a failed operation, by op and errno.  Imported only after a failure."""

from __future__ import annotations

import posix
from errno import EPERM, errorcode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_CAPABILITY = "pyrunc itself needs more privileges here: run it as root, outside a user namespace"

_PLACE = "to move a process into a cgroup takes write access to both and to what is above them: start pyrunc from the"
_PLACE += " part of the hierarchy that is delegated (systemd-run --user --scope -p Delegate=yes pyrunc ...)"

# (op of native/plan.def; or RLIMIT, CGROUP or a call of the shim; errno) -> hint
_HINTS = {
    ("memfd_create", "EACCES"): "vm.memfd_noexec is 2 on this host, and only root can avoid executing a memfd",
    ("posix_spawn", "EAGAIN"): "a limit on processes is reached: RLIMIT_NPROC, or pids.max of the caller's cgroup",
    ("posix_spawn", "ENOMEM"): "memory is short, or a limit on it is reached: memory.max of the caller's cgroup",
    ("RLIMIT", "EPERM"): "raising a hard limit needs CAP_SYS_RESOURCE, which pyrunc does not have here",
    ("RLIMIT", "EINVAL"): "a soft limit must not exceed the hard one, nor RLIMIT_NOFILE fs.nr_open",
    ("OOM_SCORE", "EACCES"): "lowering the score needs CAP_SYS_RESOURCE, which pyrunc does not have here",
    ("PLACE", "EACCES"): _PLACE,
    ("PLACE", "EPERM"): _PLACE,
    ("PLACE", "EBUSY"): "the cgroup has controllers enabled for its children, so it cannot hold processes itself",
    ("PLACE", "EOPNOTSUPP"): "the cgroup is threaded or invalid (cgroup.type)",
    ("ENTER_ROOT", "ENOENT"): "relative paths are relative to the bundle",
    ("JOIN_NS", "EINVAL"): "the path is not a namespace of this type, or a user or time namespace that we cannot join",
    ("JOIN_NS", "EPERM"): _CAPABILITY,
    ("UNSHARE", "EPERM"): _CAPABILITY,
    ("UNSHARE", "EINVAL"): "this kernel lacks one of the namespaces",
    ("UNSHARE", "ENOSPC"): "a limit in /proc/sys/user/max_*_namespaces is reached",
    ("UNSHARE_USER", "ENOSPC"): "/proc/sys/user/max_user_namespaces is reached",
    ("TIME_OFFSETS", "ERANGE"): "the offset is added to the host's clock, and the result must not be negative",
    ("TIME_OFFSETS", "EPERM"): "setting the clocks of a time namespace needs CAP_SYS_TIME",
    ("CPU_INITIAL", "EINVAL"): "`cat /sys/devices/system/cpu/online` lists the cpus of this host",
    ("CPU_FINAL", "EINVAL"): "the cpus must be among those of the container's cpuset",
    ("SCHEDULER", "EPERM"): "realtime classes and lower nice values need CAP_SYS_NICE (and cpu.rt_runtime_us of v1)",
    ("SCHEDULER", "EINVAL"): "this kernel does not support the class, or a flag with it (SCHED_ISO is only reserved)",
    ("SCHEDULER", "EBUSY"): "the host lacks cpu time for the deadline, or cpusets partition its cpus",
    ("SCHEDULER", "EOPNOTSUPP"): "this kernel was built without utilization clamps",
    ("IO_PRIORITY", "EPERM"): "IOPRIO_CLASS_RT needs CAP_SYS_ADMIN or CAP_SYS_NICE",
    ("IO_PRIORITY", "ENOSYS"): "this kernel was built without block devices",
    ("MEMORY_POLICY", "EINVAL"): "no node is in the container's cpuset, or this kernel is too old for the mode",
    ("MEMORY_POLICY", "ENOSYS"): "this kernel was built without NUMA",
    ("CLONE_INIT", "ENOSYS"): "pyrunc needs Linux 5.12 or later",
    ("CLONE_INIT", "EBUSY"): "the cgroup has controllers enabled for its children, so it cannot hold processes itself",
    ("CLONE_INIT", "EAGAIN"): "a limit on processes is reached: pids.max of a cgroup, RLIMIT_NPROC or kernel.pid_max",
    ("CLONE_INIT", "EOPNOTSUPP"): "the cgroup is threaded or invalid (cgroup.type)",
    ("KEYRING", "EDQUOT"): "the key quota is used up (kernel.keys.root_maxkeys); --no-new-keyring avoids a new one",
    ("ROOT", "ENOENT"): "relative paths are relative to the bundle",
    ("ROOT", "ENOTDIR"): "the root filesystem must be a directory",
    ("MOUNT", "ENODEV"): "`cat /proc/filesystems` lists what this kernel can mount",
    ("MOUNT", "ENOENT"): "does the source exist on the host?",
    ("MOUNT", "EPERM"): "a mount from another user namespace keeps its flags, and proc, sysfs and mqueue"
    " show namespaces that the user namespace must own",
    ("MOUNT", "EBUSY"): "something is mounted from this source with other options",
    ("MOUNT", "EROFS"): "the mount point cannot be created in a read-only filesystem",
    ("MOUNT", "ELOOP"): "proc and sysfs are mounted on ordinary directories only (CVE-2019-19921)",
    ("MOUNT", "EXDEV"): "the path leads out of the root filesystem",
    ("MOUNT", "ENOTBLK"): "this filesystem type needs a block device as source",
    ("DEV_NODE", "EPERM"): "creating device nodes needs CAP_MKNOD on the host",
    ("DEV_NODE", "EEXIST"): "remove the file from the root filesystem, or give the device another path",
    ("PIVOT", "EINVAL"): "the root filesystem may be on the initial ramfs: try --no-pivot",
    ("CONSOLE", "ENOENT"): "a terminal needs a devpts mounted at /dev/pts",
    ("SYSCTL", "ENOENT"): "this kernel has no such setting in the container's namespaces",
    ("SYSCTL", "EACCES"): "the setting cannot be changed from this namespace",
    ("SYSCTL", "EINVAL"): "the kernel does not accept this value",
    ("APPARMOR", "ENOENT"): "load the profile with apparmor_parser first",
    ("SECCOMP", "EINVAL"): "this kernel does not know one of the profile's flags",
    ("SECCOMP", "EACCES"): "without noNewPrivileges loading a filter needs CAP_SYS_ADMIN",
    ("SECCOMP", "EBUSY"): "another filter of this process already has a listener",
    ("CAP_BOUND", "EPERM"): "changing the bounding set needs CAP_SETPCAP",
    ("CAPS", "EPERM"): "pyrunc can only grant capabilities that it has itself",
    ("SET_IDS", "EINVAL"): "the uid or gid is not mapped in the user namespace",
    ("SET_IDS", "EAGAIN"): "RLIMIT_NPROC of that user is reached",
    ("GROUPS", "EINVAL"): "a gid is not mapped in the user namespace",
    ("HOSTNAME", "EPERM"): "setting it needs CAP_SYS_ADMIN over the uts namespace",
    ("CHDIR", "ENOENT"): "the working directory is not accessible in the container's root filesystem",
    ("EXECVE", "ENOEXEC"): "not a program for this machine, or a script without #!",
    ("EXECVE", "E2BIG"): "/process/args and /process/env together are too long",
    ("FIND_EXE", "EACCES"): "the file is not executable, or a directory above it cannot be searched",
    ("CGROUP", "EAGAIN"): "a cgroup above allows no more: cgroup.max.descendants or cgroup.max.depth",
    ("CGROUP", "EROFS"): "the cgroup file system is mounted read-only here",
    ("CGROUP", "EACCES"): "the cgroup is not delegated to this user",
    ("CGROUP", "EBUSY"): "controllers cannot be enabled in a parent cgroup that contains processes",
}


def find(op: str, number: int) -> str:
    """The hint for a failed operation and its errno, or ``""``."""
    if (op, number) == ("UNSHARE_USER", EPERM):
        return _no_user_namespace()
    return _HINTS.get((op, errorcode.get(number, "")), "")


# Settings that restrict user namespaces to root, and the value that does.
_USERNS_SETTINGS = (
    ("/proc/sys/kernel/unprivileged_userns_clone", b"0"),  # Debian's
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", b"1"),  # Ubuntu's
)


def _no_user_namespace() -> str:
    """Why unshare(CLONE_NEWUSER) is not permitted; names the setting of this host, if any."""
    from pyrunc import fs

    if posix.geteuid() != 0:
        for path, forbids in _USERNS_SETTINGS:
            try:
                if fs.read_file(path, 64).strip() == forbids:
                    return f"{path} is {forbids.decode()}: only root may create user namespaces"
            except OSError:
                continue  # the kernel lacks this setting
    # create_user_ns() of kernel/user_namespace.c
    return "the kernel forbids it in a chroot, and to an unmapped user; a seccomp filter or an LSM may also forbid it"


# -- misspelled words ------------------------------------------------------------------------------

_LONGEST = 32  # length limit of compared words; no known word is longer


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion of similar words (``; did you mean start or state?``), or ""."""
    if len(word) < 2:
        return ""  # similar to every short word
    limit = 1 if len(word) < 6 else 2
    found: dict[int, list[str]] = {}
    for candidate in known:
        found.setdefault(_distance(word, candidate, limit), []).append(candidate)
    best = min(found, default=limit + 1)
    return f"; did you mean {' or '.join(found[best][:3])}?" if 0 < best <= limit else ""


def _distance(left: str, right: str, limit: int) -> int:
    """The edit distance of two words, with swaps as one edit; at most ``limit`` + 1."""
    if abs(len(left) - len(right)) > limit or len(left) > _LONGEST:
        return limit + 1
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, char in enumerate(left, 1):
        before, last, row = row, before, [i]
        for j, other in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (char != other))
            if i > 1 and j > 1 and char == right[j - 2] and left[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
