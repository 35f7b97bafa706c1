"""What to do about it: a hint for an operation and an errno.  Loaded only when something has failed."""

from __future__ import annotations

# (op of native/plan.def or name of a host-side operation, errno name) -> hint
_HINTS = {
    ("RLIMIT", "EPERM"): "raising a limit above pyrunc's own hard limit needs CAP_SYS_RESOURCE",
    ("RLIMIT", "EINVAL"): "the soft limit must not exceed the hard one, nor RLIMIT_NOFILE fs.nr_open",
    ("JOIN_NS", "EINVAL"): "the path is not a namespace of this type, or it is a user or time namespace we are in",
    ("JOIN_NS", "EPERM"): "joining needs CAP_SYS_ADMIN in the user namespace that owns the target",
    ("JOIN_NS", "EUSERS"): "too many nested namespaces",
    ("UNSHARE", "EPERM"): "creating namespaces needs root, or a new user namespace first",
    ("UNSHARE", "EINVAL"): "this kernel does not have one of the namespace types",
    ("UNSHARE", "ENOSPC"): "a limit in /proc/sys/user/max_*_namespaces is reached",
    ("UNSHARE_USER", "ENOSPC"): "/proc/sys/user/max_user_namespaces is reached",
    ("UNSHARE_USER", "EPERM"): "this host does not allow unprivileged user namespaces",
    ("CLONE_INIT", "EBUSY"): "the cgroup has controllers enabled for its children, so it cannot hold a process",
    ("CLONE_INIT", "EAGAIN"): "a limit on processes is reached: pids.max of a cgroup, RLIMIT_NPROC or kernel.pid_max",
    ("CLONE_INIT", "EOPNOTSUPP"): "the cgroup is threaded or invalid (cgroup.type)",
    ("KEYRING", "EDQUOT"): "the key quota is used up (kernel.keys.root_maxkeys); --no-new-keyring does without",
    ("MOUNT", "ENODEV"): "the kernel does not know this filesystem type (/proc/filesystems)",
    ("MOUNT", "EPERM"): "not allowed in this user namespace, or a locked flag would be cleared",
    ("MOUNT", "EBUSY"): "the source is in use, or mounted elsewhere with other options",
    ("MOUNT", "ENOTBLK"): "this filesystem type needs a block device as source",
    ("MOUNT", "ENOTDIR"): "one of source and destination is a directory, the other is not",
    ("MOUNT", "ELOOP"): "the destination leads through a symbolic link that is not allowed there",
    ("MOUNT", "EXDEV"): "the destination leaves the root filesystem",
    ("DEV_NODE", "EPERM"): "making device nodes needs CAP_MKNOD in the initial user namespace",
    ("DEV_NODE", "EEXIST"): "something else is at this path already",
    ("PIVOT", "EINVAL"): "the root filesystem may be on the initial ramfs: try --no-pivot",
    ("SYSCTL", "ENOENT"): "this kernel has no such sysctl, or the module that brings it is not loaded",
    ("SYSCTL", "EACCES"): "the sysctl is read-only or not namespaced",
    ("SYSCTL", "EINVAL"): "the kernel refuses the value",
    ("APPARMOR", "ENOENT"): "the profile is not loaded (apparmor_parser -r)",
    ("SECCOMP", "EINVAL"): "a filter flag is newer than this kernel",
    ("SECCOMP", "EACCES"): "loading a filter needs CAP_SYS_ADMIN or noNewPrivileges",
    ("SECCOMP", "EBUSY"): "another filter of this process has a listener already",
    ("CAP_BOUND", "EPERM"): "dropping from the bounding set needs CAP_SETPCAP",
    ("CAPS", "EPERM"): "a capability is not in pyrunc's own permitted or bounding set",
    ("SET_IDS", "EINVAL"): "the uid or gid is not mapped in the user namespace",
    ("SET_IDS", "EAGAIN"): "RLIMIT_NPROC of that user is reached",
    ("GROUPS", "EINVAL"): "a gid is not mapped in the user namespace",
    ("OOM_SCORE", "EACCES"): "lowering oom_score_adj needs CAP_SYS_RESOURCE",
    ("HOSTNAME", "EPERM"): "setting it needs CAP_SYS_ADMIN over the uts namespace",
    ("EXECVE", "ENOEXEC"): "not a program for this machine, or a script without #!",
    ("EXECVE", "E2BIG"): "/process/args and /process/env together are too long",
    ("FIND_EXE", "EACCES"): "the file is not executable, or a directory above it cannot be searched",
    ("CGROUP", "EROFS"): "the cgroup file system is mounted read-only here",
    ("CGROUP", "EACCES"): "the cgroup is not delegated to this user",
    ("CGROUP", "ENOENT"): "the controller is not available in this cgroup (cgroup.controllers)",
    ("CGROUP", "EBUSY"): "processes in a parent cgroup keep its controllers from being enabled",
}


def find(op: str, number: int) -> str:
    """The hint for an operation and an errno, ``""`` when we know none."""
    from errno import errorcode

    return _HINTS.get((op, errorcode.get(number, "")), "")
