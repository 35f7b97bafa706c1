# ruff: noqa: E501
"""The op table.  Generated from native/plan.def by native/gen_plan.py: do not edit."""

from __future__ import annotations

ABI = 0x14c041f7
_NONE: list[str] = []

OP_PLACE = 1
OP_OOM_SCORE = 2
OP_DUMPABLE = 3
OP_OPEN_TREE = 4
OP_ENTER_ROOT = 5
OP_MAKE_NODE = 6
OP_JOIN_NS = 7
OP_UNSHARE_USER = 8
OP_UNSHARE = 9
OP_TIME_OFFSETS = 10
OP_CPU_INITIAL = 11
OP_CLONE_INIT = 12
OP_CPU_FINAL = 13
OP_SETSID = 14
OP_KEYRING = 15
OP_KEY_LABEL = 16
OP_UNSHARE_CGROUP = 17
OP_LO_UP = 18
OP_PROPAGATION = 19
OP_ROOT = 20
OP_MOUNT = 21
OP_UNMOUNT = 22
OP_MOUNT_LABEL = 23
OP_DEV_NODE = 24
OP_DEV_LINK = 25
OP_SYNC_MOUNTED = 26
OP_HOOK = 27
OP_PIVOT = 28
OP_CONSOLE = 29
OP_REOPEN_NULL = 30
OP_REMOUNT_RO = 31
OP_ROOT_RO = 32
OP_ROOT_PROPAGATION = 33
OP_HOSTNAME = 34
OP_DOMAINNAME = 35
OP_SYSCTL = 36
OP_READONLY_PATH = 37
OP_MASK_PATH = 38
OP_APPARMOR = 39
OP_SELINUX = 40
OP_PERSONALITY = 41
OP_SCHEDULER = 42
OP_IO_PRIORITY = 43
OP_MEMORY_POLICY = 44
OP_UMASK = 45
OP_MAKE_CWD = 46
OP_STDIO_OWNER = 47
OP_FIND_HOME = 48
OP_NO_NEW_PRIVS = 49
OP_SYNC_READY = 50
OP_SECCOMP = 51
OP_CAP_BOUND = 52
OP_GROUPS = 53
OP_SET_IDS = 54
OP_CAPS = 55
OP_DROP_ADMIN = 56
OP_RLIMIT = 57
OP_CHDIR = 58
OP_FIND_EXE = 59
OP_JOINABLE = 60
OP_WAIT_START = 61
OP_EXECVE = 62
OP_LEAVE = 63
P_OOM_SCORE_BEST_EFFORT = 0x1
P_OPEN_TREE_RECURSIVE = 0x1
P_UNSHARE_USER_DUMPABLE = 0x1
P_CLONE_INIT_IN_CGROUP = 0x1
P_CLONE_INIT_COMPLETE = 0x2
P_SETSID_TERMINAL = 0x1
P_KEYRING_OTHER_SEARCH = 0x1
P_ROOT_NO_BIND = 0x1
P_ROOT_CWD = 0x2
P_ROOT_SLAVE = 0x4
P_ROOT_CALLERS = 0x8
P_MOUNT_BIND = 0x1
P_MOUNT_RECURSIVE = 0x2
P_MOUNT_REMOUNT = 0x4
P_MOUNT_COPY_UP = 0x8
P_MOUNT_INHERIT_MODE = 0x10
P_MOUNT_PLAIN_DIR = 0x20
P_MOUNT_IN_PROC = 0x40
P_MOUNT_CGROUP = 0x80
P_MOUNT_HOST_BIND = 0x100
P_MOUNT_SOURCE_FD = 0x200
P_MOUNT_NEW_ROOT = 0x400
P_MOUNT_BUILD = 0x800
P_MOUNT_ATTACH = 0x1000
P_MOUNT_REPORT = 0x2000
P_UNMOUNT_UNIQUE = 0x1
P_DEV_NODE_DEFAULT = 0x1
P_DEV_NODE_BIND_HOST = 0x2
P_DEV_NODE_MADE = 0x4
P_DEV_NODE_ANY_MODE = 0x8
P_DEV_NODE_ANY_UID = 0x10
P_DEV_NODE_ANY_GID = 0x20
P_DEV_NODE_THERE = 0x40
P_DEV_LINK_IF_TARGET = 0x1
P_HOOK_IN_CONTAINER = 0x1
P_HOOK_SET_HOME = 0x2
P_PIVOT_MOVE = 0x1
P_PIVOT_CHROOT = 0x2
P_CONSOLE_MOUNT_CONSOLE = 0x1
P_CONSOLE_NOT_CONTROLLING = 0x2
P_SCHEDULER_RESET_ON_FORK = 0x1
P_SCHEDULER_RECLAIM = 0x2
P_SCHEDULER_DL_OVERRUN = 0x4
P_SCHEDULER_KEEP_POLICY = 0x8
P_SCHEDULER_KEEP_PARAMS = 0x10
P_SCHEDULER_UTIL_CLAMP_MIN = 0x20
P_SCHEDULER_UTIL_CLAMP_MAX = 0x40
P_MEMORY_POLICY_NUMA_BALANCING = 0x1
P_MEMORY_POLICY_RELATIVE_NODES = 0x2
P_MEMORY_POLICY_STATIC_NODES = 0x4
P_SECCOMP_LISTENER = 0x1
P_SECCOMP_IF_PASSABLE = 0x2
P_CAPS_FOR_FILTER = 0x1
P_CHDIR_TRY = 0x1
P_FIND_EXE_TRY = 0x1
P_WAIT_START_SOCKET = 0x1
P_EXECVE_SET_HOME = 0x1
P_EXECVE_LISTEN_PID = 0x2

# code -> (name, section, ((arg, kind, pointer suffix, number slot, string slot), ...), policy bit names)
OPS: dict[int, tuple[str, str, tuple[tuple[str, str, str, int, int], ...], tuple[str, ...]]] = {
    1: ("PLACE", "ENTER", (("cgroup_fd", "fd", "", 0, -1),), ()),
    2: ("OOM_SCORE", "ENTER", (("value", "i32", "", 0, -1),), ("BEST_EFFORT",)),
    3: ("DUMPABLE", "ENTER", (("value", "u32", "", 0, -1),), ()),
    4: ("OPEN_TREE", "ENTER", (("slot", "fd", "", 0, -1), ("propagation", "u32", "", 1, -1), ("path", "str", "source", -1, 0),), ("RECURSIVE",)),
    5: ("ENTER_ROOT", "ENTER", (("path", "str", "path", -1, 0),), ()),
    6: ("MAKE_NODE", "ENTER", (("number", "u32", "", 0, -1), ("kind", "u32", "", 1, -1), ("mode", "u32", "", 2, -1), ("major", "u32", "", 3, -1), ("minor", "u32", "", 4, -1), ("uid", "u32", "", 5, -1), ("gid", "u32", "", 6, -1), ("path", "str", "path", -1, 0), ("label", "str", "", -1, 1),), ()),
    7: ("JOIN_NS", "ENTER", (("fd", "fd", "", 0, -1), ("nstype", "u32", "", 1, -1), ("path", "str", "path", -1, 0),), ()),
    8: ("UNSHARE_USER", "ENTER", (), ("DUMPABLE",)),
    9: ("UNSHARE", "ENTER", (("flags", "u32", "", 0, -1),), ()),
    10: ("TIME_OFFSETS", "ENTER", (("offsets", "list", "", 0, 0),), ()),
    11: ("CPU_INITIAL", "ENTER", (("cpus", "blob", "", 0, 0),), ()),
    12: ("CLONE_INIT", "ENTER", (("cgroup_fd", "fd", "", 0, -1),), ("IN_CGROUP", "COMPLETE",)),
    13: ("CPU_FINAL", "SETUP", (("cpus", "blob", "", 0, 0),), ()),
    14: ("SETSID", "SETUP", (), ("TERMINAL",)),
    15: ("KEYRING", "SETUP", (("name", "str", "", -1, 0),), ("OTHER_SEARCH",)),
    16: ("KEY_LABEL", "SETUP", (("label", "str", "", -1, 0),), ()),
    17: ("UNSHARE_CGROUP", "SETUP", (), ()),
    18: ("LO_UP", "SETUP", (), ()),
    19: ("PROPAGATION", "SETUP", (("propagation", "u32", "", 0, -1),), ()),
    20: ("ROOT", "SETUP", (("path", "str", "path", -1, 0),), ("NO_BIND", "CWD", "SLAVE", "CALLERS",)),
    21: ("MOUNT", "SETUP", (("attr_set", "u32", "", 0, -1), ("attr_clr", "u32", "", 1, -1), ("implied", "u32", "", 2, -1), ("rec_set", "u32", "", 3, -1), ("rec_clr", "u32", "", 4, -1), ("propagation", "u32", "", 5, -1), ("tree", "fd", "", 6, -1), ("fstype", "str", "type", -1, 0), ("source", "str", "source", -1, 1), ("dest", "str", "destination", -1, 2), ("data", "list", "options", 7, 3),), ("BIND", "RECURSIVE", "REMOUNT", "COPY_UP", "INHERIT_MODE", "PLAIN_DIR", "IN_PROC", "CGROUP", "HOST_BIND", "SOURCE_FD", "NEW_ROOT", "BUILD", "ATTACH", "REPORT",)),
    22: ("UNMOUNT", "SETUP", (("id", "u64", "", 0, -1), ("dest", "str", "destination", -1, 0),), ("UNIQUE",)),
    23: ("MOUNT_LABEL", "SETUP", (("dest", "str", "destination", -1, 0), ("label", "str", "", -1, 1),), ()),
    24: ("DEV_NODE", "SETUP", (("kind", "u32", "", 0, -1), ("mode", "u32", "", 1, -1), ("major", "u32", "", 2, -1), ("minor", "u32", "", 3, -1), ("uid", "u32", "", 4, -1), ("gid", "u32", "", 5, -1), ("number", "u32", "", 6, -1), ("path", "str", "path", -1, 0),), ("DEFAULT", "BIND_HOST", "MADE", "ANY_MODE", "ANY_UID", "ANY_GID", "THERE",)),
    25: ("DEV_LINK", "SETUP", (("target", "str", "", -1, 0), ("path", "str", "", -1, 1),), ("IF_TARGET",)),
    26: ("SYNC_MOUNTED", "SETUP", (), ()),
    27: ("HOOK", "SETUP", (("timeout_ms", "u32", "", 0, -1), ("path", "str", "path", -1, 0), ("args", "list", "", 1, 1), ("env", "list", "", 2, 2), ("state", "list", "", 3, 3),), ("IN_CONTAINER", "SET_HOME",)),
    28: ("PIVOT", "SETUP", (), ("MOVE", "CHROOT",)),
    29: ("CONSOLE", "FINISH", (("fd", "fd", "", 0, -1), ("rows", "u32", "", 1, -1), ("cols", "u32", "", 2, -1), ("uid", "u32", "", 3, -1), ("gid", "u32", "", 4, -1),), ("MOUNT_CONSOLE", "NOT_CONTROLLING",)),
    30: ("REOPEN_NULL", "FINISH", (), ()),
    31: ("REMOUNT_RO", "FINISH", (("attr_set", "u32", "", 0, -1), ("dest", "str", "destination", -1, 0),), ()),
    32: ("ROOT_RO", "FINISH", (), ()),
    33: ("ROOT_PROPAGATION", "FINISH", (("propagation", "u32", "", 0, -1),), ()),
    34: ("HOSTNAME", "FINISH", (("name", "str", "", -1, 0),), ()),
    35: ("DOMAINNAME", "FINISH", (("name", "str", "", -1, 0),), ()),
    36: ("SYSCTL", "FINISH", (("key", "str", "", -1, 0), ("value", "str", "", -1, 1),), ()),
    37: ("READONLY_PATH", "FINISH", (("path", "str", "", -1, 0),), ()),
    38: ("MASK_PATH", "FINISH", (("path", "str", "", -1, 0),), ()),
    39: ("APPARMOR", "FINISH", (("profile", "str", "", -1, 0),), ()),
    40: ("SELINUX", "FINISH", (("label", "str", "", -1, 0),), ()),
    41: ("PERSONALITY", "FINISH", (("persona", "u32", "", 0, -1),), ()),
    42: ("SCHEDULER", "FINISH", (("kind", "u32", "", 0, -1), ("level", "i32", "", 1, -1), ("runtime", "u64", "", 2, -1), ("deadline", "u64", "", 4, -1), ("period", "u64", "", 6, -1),), ("RESET_ON_FORK", "RECLAIM", "DL_OVERRUN", "KEEP_POLICY", "KEEP_PARAMS", "UTIL_CLAMP_MIN", "UTIL_CLAMP_MAX",)),
    43: ("IO_PRIORITY", "FINISH", (("kind", "u32", "", 0, -1), ("level", "u32", "", 1, -1),), ()),
    44: ("MEMORY_POLICY", "FINISH", (("mode", "u32", "", 0, -1), ("nodes", "blob", "", 1, 0),), ("NUMA_BALANCING", "RELATIVE_NODES", "STATIC_NODES",)),
    45: ("UMASK", "FINISH", (("mask", "u32", "", 0, -1),), ()),
    46: ("MAKE_CWD", "FINISH", (("cwd", "str", "", -1, 0),), ()),
    47: ("STDIO_OWNER", "FINISH", (("uid", "u32", "", 0, -1), ("gid", "u32", "", 1, -1),), ()),
    48: ("FIND_HOME", "FINISH", (("uid", "u32", "", 0, -1),), ()),
    49: ("NO_NEW_PRIVS", "FINISH", (), ()),
    50: ("SYNC_READY", "FINISH", (), ()),
    51: ("SECCOMP", "FINISH", (("flags", "u32", "", 0, -1), ("filter", "blob", "", 1, 0),), ("LISTENER", "IF_PASSABLE",)),
    52: ("CAP_BOUND", "FINISH", (("mask", "u64", "", 0, -1),), ()),
    53: ("GROUPS", "FINISH", (("gids", "blob", "", 0, 0),), ()),
    54: ("SET_IDS", "FINISH", (("uid", "u32", "", 0, -1), ("gid", "u32", "", 1, -1),), ()),
    55: ("CAPS", "FINISH", (("effective", "u64", "", 0, -1), ("permitted", "u64", "", 2, -1), ("inheritable", "u64", "", 4, -1), ("ambient", "u64", "", 6, -1),), ("FOR_FILTER",)),
    56: ("DROP_ADMIN", "FINISH", (), ()),
    57: ("RLIMIT", "FINISH", (("resource", "u32", "", 0, -1), ("soft", "u64", "", 1, -1), ("hard", "u64", "", 3, -1),), ()),
    58: ("CHDIR", "FINISH", (("cwd", "str", "", -1, 0),), ("TRY",)),
    59: ("FIND_EXE", "FINISH", (("file", "str", "", -1, 0), ("path", "str", "", -1, 1),), ("TRY",)),
    60: ("JOINABLE", "FINISH", (), ()),
    61: ("WAIT_START", "RUN", (("start_fd", "fd", "", 0, -1), ("error_fd", "fd", "", 1, -1),), ("SOCKET",)),
    62: ("EXECVE", "RUN", (("args", "list", "", 0, 0), ("env", "list", "", 1, 1),), ("SET_HOME", "LISTEN_PID",)),
    63: ("LEAVE", "RUN", (), ()),
}


class Builder:
    """The steps of a plan: (op, policy, numbers, strings), and the JSON pointer of each."""

    __slots__ = ("origins", "steps")

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, tuple[int, ...], tuple[object, ...]]] = []
        self.origins: list[str] = []

    def place(self, origin: str, *, cgroup_fd: int = 0) -> None:
        """Continue as a clone that starts in the cgroup: from inside a user namespace this process could not move there."""
        self.origins.append(origin)
        self.steps.append((1, 0, (cgroup_fd,), ()))

    def oom_score(self, origin: str, *, policy: int = 0, value: int = 0) -> None:
        """Write /proc/self/oom_score_adj; before DUMPABLE 0, which makes the file root-only."""
        self.origins.append(origin)
        self.steps.append((2, policy, (value & 0xFFFFFFFF,), ()))

    def dumpable(self, origin: str, *, value: int = 0) -> None:
        """Prctl(PR_SET_DUMPABLE); 0 before any namespace is joined (CVE-2016-9962)."""
        self.origins.append(origin)
        self.steps.append((3, 0, (value,), ()))

    def open_tree(self, origin: str, *, policy: int = 0, slot: int = 0, propagation: int = 0, path: str = "") -> None:
        """Clone the source of a bind mount with the caller's credentials, for a MOUNT inside a user namespace that cannot reach it; that MOUNT reports a failure."""
        self.origins.append(origin)
        self.steps.append((4, policy, (slot, propagation), (path,)))

    def enter_root(self, origin: str, *, path: str = "") -> None:
        """Make the root filesystem the working directory with the caller's credentials: unshare(2) keeps it."""
        self.origins.append(origin)
        self.steps.append((5, 0, (), (path,)))

    def make_node(self, origin: str, *, number: int = 0, kind: int = 0, mode: int = 0, major: int = 0, minor: int = 0, uid: int = 0, gid: int = 0, path: str = "", label: str = "") -> None:
        """Create a device node on a filesystem of our own with the caller's credentials, for a DEV_NODE inside a user namespace, where mknod(2) is denied; ids are the host's; label: its SELinux context; that DEV_NODE reports a lack of permission."""
        self.origins.append(origin)
        self.steps.append((6, 0, (number, kind, mode, major, minor, uid, gid), (path, label)))

    def join_ns(self, origin: str, *, fd: int = 0, nstype: int = 0, path: str = "") -> None:
        """Setns(fd slot, CLONE_NEW* type)."""
        self.origins.append(origin)
        self.steps.append((7, 0, (fd, nstype), (path,)))

    def unshare_user(self, origin: str, *, policy: int = 0) -> None:
        """Unshare(CLONE_NEWUSER), ask the parent to write the maps, become root inside; DUMPABLE: the parent is not root, and can write the maps only while the process is dumpable."""
        self.origins.append(origin)
        self.steps.append((8, policy, (), ()))

    def unshare(self, origin: str, *, flags: int = 0) -> None:
        """Unshare(CLONE_NEW* flags); pid and time apply to the next child."""
        self.origins.append(origin)
        self.steps.append((9, 0, (flags,), ()))

    def time_offsets(self, origin: str, *, offsets: list[str] = _NONE) -> None:
        """Write `CLOCK SECONDS NANOSECONDS` lines to timens_offsets, for the time namespace that the next child enters."""
        self.origins.append(origin)
        self.steps.append((10, 0, (len(offsets),), (offsets,)))

    def cpu_initial(self, origin: str, *, cpus: bytes = b"") -> None:
        """Sched_setaffinity(2) before the cgroup is entered (process.execCPUAffinity)."""
        self.origins.append(origin)
        self.steps.append((11, 0, (len(cpus),), (cpus,)))

    def clone_init(self, origin: str, *, policy: int = 0, cgroup_fd: int = 0) -> None:
        """Clone3(CLONE_PARENT, with IN_CGROUP also CLONE_INTO_CGROUP), report the pid, exit; the child continues on every cpu of its cgroup; COMPLETE: no descriptors of the host to close and no cpus to choose, use clone(2), and the child waits for GO."""
        self.origins.append(origin)
        self.steps.append((12, policy, (cgroup_fd,), ()))

    def cpu_final(self, origin: str, *, cpus: bytes = b"") -> None:
        """Sched_setaffinity(2) inside the cgroup (process.execCPUAffinity); empty: every cpu of the cgroup."""
        self.origins.append(origin)
        self.steps.append((13, 0, (len(cpus),), (cpus,)))

    def setsid(self, origin: str, *, policy: int = 0) -> None:
        """Create a session, so that no terminal of the caller is reachable (CVE-2017-5226); TERMINAL: stdin becomes its controlling terminal."""
        self.origins.append(origin)
        self.steps.append((14, policy, (), ()))

    def keyring(self, origin: str, *, policy: int = 0, name: str = "") -> None:
        """Join a new session keyring; ENOSYS and EPERM are ignored; OTHER_SEARCH: for users of a user namespace."""
        self.origins.append(origin)
        self.steps.append((15, policy, (), (name,)))

    def key_label(self, origin: str, *, label: str = "") -> None:
        """SELinux: the label of keys created from here on; empty: restore the kernel's choice."""
        self.origins.append(origin)
        self.steps.append((16, 0, (), (label,)))

    def unshare_cgroup(self, origin: str) -> None:
        """Unshare(CLONE_NEWCGROUP), only inside the final cgroup."""
        self.origins.append(origin)
        self.steps.append((17, 0, (), ()))

    def lo_up(self, origin: str) -> None:
        """Set the loopback interface of a new network namespace up."""
        self.origins.append(origin)
        self.steps.append((18, 0, (), ()))

    def propagation(self, origin: str, *, propagation: int = 0) -> None:
        """Propagation of / in the new mount namespace (MS_SLAVE, MS_PRIVATE ...)."""
        self.origins.append(origin)
        self.steps.append((19, 0, (propagation,), ()))

    def root(self, origin: str, *, policy: int = 0, path: str = "") -> None:
        """Bind the root filesystem onto itself (pivot_root needs a mount) and open it; NO_BIND: only open it (`exec`); CWD: it is the working directory; SLAVE: make it a slave of the host's mount instead of private; CALLERS: the mount namespace is the caller's, whose mounts keep their propagation."""
        self.origins.append(origin)
        self.steps.append((20, policy, (), (path,)))

    def mount(self, origin: str, *, policy: int = 0, attr_set: int = 0, attr_clr: int = 0, implied: int = 0, rec_set: int = 0, rec_clr: int = 0, propagation: int = 0, tree: int = 0, fstype: str = "", source: str = "", dest: str = "", data: list[str] = _NONE) -> None:
        """Mount a filesystem or a bind at dest inside the root filesystem; implied: attributes to clear unless locked; tree: slot of a detached tree that replaces an unreachable source (SOURCE_FD: it is the source); BUILD: leave the new mount detached in the slot; REPORT: and report its id; ATTACH: attach the mount in the slot; a later failure detaches it again."""
        self.origins.append(origin)
        self.steps.append((21, policy, (attr_set, attr_clr, implied, rec_set, rec_clr, propagation, tree, len(data)), (fstype, source, dest, data)))

    def unmount(self, origin: str, *, policy: int = 0, id: int = 0, dest: str = "") -> None:
        """Detach the mount at dest if it has this id, and report whether it had; UNIQUE: the id is not reused by the kernel."""
        self.origins.append(origin)
        self.steps.append((22, policy, (id & 0xFFFFFFFF, id >> 32), (dest,)))

    def mount_label(self, origin: str, *, dest: str = "", label: str = "") -> None:
        """SELinux: label the root of a filesystem without the context= option (mqueue)."""
        self.origins.append(origin)
        self.steps.append((23, 0, (), (dest, label)))

    def dev_node(self, origin: str, *, policy: int = 0, kind: int = 0, mode: int = 0, major: int = 0, minor: int = 0, uid: int = 0, gid: int = 0, number: int = 0, path: str = "") -> None:
        """Create a device node (kind: S_IFCHR, S_IFBLK, S_IFIFO); a different existing node is an error, with THERE also a missing one; BIND_HOST: bind the host's node, MADE: or the one of MAKE_NODE with this number; a bound node must match mode, uid and gid, unless DEFAULT or the ANY bit is set."""
        self.origins.append(origin)
        self.steps.append((24, policy, (kind, mode, major, minor, uid, gid, number), (path,)))

    def dev_link(self, origin: str, *, policy: int = 0, target: str = "", path: str = "") -> None:
        """Create a symbolic link in /dev; IF_TARGET: only if the target exists on the host."""
        self.origins.append(origin)
        self.steps.append((25, policy, (), (target, path)))

    def sync_mounted(self, origin: str) -> None:
        """Report the mounts to the parent, which sets limits and runs prestart and createRuntime hooks."""
        self.origins.append(origin)
        self.steps.append((26, 0, (), ()))

    def hook(self, origin: str, *, policy: int = 0, timeout_ms: int = 0, path: str = "", args: list[str] = _NONE, env: list[str] = _NONE, state: list[str] = _NONE) -> None:
        """Run a hook with the state JSON as its stdin: state[0] + our pid + state[1]; SET_HOME: as in EXECVE."""
        self.origins.append(origin)
        self.steps.append((27, policy, (timeout_ms, len(args), len(env), len(state)), (path, args, env, state)))

    def pivot(self, origin: str, *, policy: int = 0) -> None:
        """Pivot_root into the root filesystem; MOVE: MS_MOVE + chroot (--no-pivot); CHROOT: only chroot (the mount namespace is the caller's)."""
        self.origins.append(origin)
        self.steps.append((28, policy, (), ()))

    def console(self, origin: str, *, policy: int = 0, fd: int = 0, rows: int = 0, cols: int = 0, uid: int = 0, gid: int = 0) -> None:
        """Open a pty, send its master over the socket in slot fd, make it stdio and the controlling terminal; MOUNT_CONSOLE: bind it to /dev/console; NOT_CONTROLLING: SETSID makes it the controlling terminal."""
        self.origins.append(origin)
        self.steps.append((29, policy, (fd, rows, cols, uid, gid), ()))

    def reopen_null(self, origin: str) -> None:
        """Replace the host's /dev/null as stdio by the container's."""
        self.origins.append(origin)
        self.steps.append((30, 0, (), ()))

    def remount_ro(self, origin: str, *, attr_set: int = 0, dest: str = "") -> None:
        """Make a mount read-only that had to be filled first."""
        self.origins.append(origin)
        self.steps.append((31, 0, (attr_set,), (dest,)))

    def root_ro(self, origin: str) -> None:
        """Make the root mount read-only."""
        self.origins.append(origin)
        self.steps.append((32, 0, (), ()))

    def root_propagation(self, origin: str, *, propagation: int = 0) -> None:
        """Propagation of the container's / (linux.rootfsPropagation)."""
        self.origins.append(origin)
        self.steps.append((33, 0, (propagation,), ()))

    def hostname(self, origin: str, *, name: str = "") -> None:
        """Sethostname(2)."""
        self.origins.append(origin)
        self.steps.append((34, 0, (), (name,)))

    def domainname(self, origin: str, *, name: str = "") -> None:
        """Setdomainname(2)."""
        self.origins.append(origin)
        self.steps.append((35, 0, (), (name,)))

    def sysctl(self, origin: str, *, key: str = "", value: str = "") -> None:
        """Write /proc/sys/KEY through the private procfs descriptor (CVE-2025-52881)."""
        self.origins.append(origin)
        self.steps.append((36, 0, (), (key, value)))

    def readonly_path(self, origin: str, *, path: str = "") -> None:
        """Bind a path onto itself and make it read-only; skip a missing path."""
        self.origins.append(origin)
        self.steps.append((37, 0, (), (path,)))

    def mask_path(self, origin: str, *, path: str = "") -> None:
        """Hide a file behind /dev/null (checked to be 1:3, CVE-2025-31133), a directory behind an empty read-only tmpfs; skip a missing path."""
        self.origins.append(origin)
        self.steps.append((38, 0, (), (path,)))

    def apparmor(self, origin: str, *, profile: str = "") -> None:
        """Label for the next execve, through the private procfs descriptor (CVE-2019-16884)."""
        self.origins.append(origin)
        self.steps.append((39, 0, (), (profile,)))

    def selinux(self, origin: str, *, label: str = "") -> None:
        """Label for the next execve, through the private procfs descriptor."""
        self.origins.append(origin)
        self.steps.append((40, 0, (), (label,)))

    def personality(self, origin: str, *, persona: int = 0) -> None:
        """Personality(2)."""
        self.origins.append(origin)
        self.steps.append((41, 0, (persona,), ()))

    def scheduler(self, origin: str, *, policy: int = 0, kind: int = 0, level: int = 0, runtime: int = 0, deadline: int = 0, period: int = 0) -> None:
        """Sched_setattr(2); kind is SCHED_*, level the nice value or, for SCHED_FIFO and SCHED_RR, the priority; times in ns; the policy bits are SCHED_FLAG_*."""
        self.origins.append(origin)
        self.steps.append((42, policy, (kind, level & 0xFFFFFFFF, runtime & 0xFFFFFFFF, runtime >> 32, deadline & 0xFFFFFFFF, deadline >> 32, period & 0xFFFFFFFF, period >> 32), ()))

    def io_priority(self, origin: str, *, kind: int = 0, level: int = 0) -> None:
        """Ioprio_set(2) for the container's first process and its children."""
        self.origins.append(origin)
        self.steps.append((43, 0, (kind, level), ()))

    def memory_policy(self, origin: str, *, policy: int = 0, mode: int = 0, nodes: bytes = b"") -> None:
        """Set_mempolicy(2); nodes is its bit mask."""
        self.origins.append(origin)
        self.steps.append((44, policy, (mode, len(nodes)), (nodes,)))

    def umask(self, origin: str, *, mask: int = 0) -> None:
        """Umask(2)."""
        self.origins.append(origin)
        self.steps.append((45, 0, (mask,), ()))

    def make_cwd(self, origin: str, *, cwd: str = "") -> None:
        """Create the working directory if it is missing (0755), as in runc."""
        self.origins.append(origin)
        self.steps.append((46, 0, (), (cwd,)))

    def stdio_owner(self, origin: str, *, uid: int = 0, gid: int = 0) -> None:
        """Fchown stdio to the user; EPERM and EROFS are ignored, /dev/null is skipped."""
        self.origins.append(origin)
        self.steps.append((47, 0, (uid, gid), ()))

    def find_home(self, origin: str, *, uid: int = 0) -> None:
        """Look up HOME in the container's /etc/passwd for EXECVE; default /."""
        self.origins.append(origin)
        self.steps.append((48, 0, (uid,), ()))

    def no_new_privs(self, origin: str) -> None:
        """Prctl(PR_SET_NO_NEW_PRIVS)."""
        self.origins.append(origin)
        self.steps.append((49, 0, (), ()))

    def sync_ready(self, origin: str) -> None:
        """Report the end of setup to the parent, which sets rlimits and writes the state."""
        self.origins.append(origin)
        self.steps.append((50, 0, (), ()))

    def seccomp(self, origin: str, *, policy: int = 0, flags: int = 0, filter: bytes = b"") -> None:
        """Load the filter, unless it is loaded; LISTENER: report the number of the notify descriptor; IF_PASSABLE: only load a filter that lets init finish the plan, otherwise leave it to the next SECCOMP."""
        self.origins.append(origin)
        self.steps.append((51, policy, (flags, len(filter)), (filter,)))

    def cap_bound(self, origin: str, *, mask: int = 0) -> None:
        """Drop every capability outside the mask from the bounding set."""
        self.origins.append(origin)
        self.steps.append((52, 0, (mask & 0xFFFFFFFF, mask >> 32), ()))

    def groups(self, origin: str, *, gids: bytes = b"") -> None:
        """Setgroups(2) with exactly these (native-endian u32 each); skipped if setgroups is denied."""
        self.origins.append(origin)
        self.steps.append((53, 0, (len(gids),), (gids,)))

    def set_ids(self, origin: str, *, uid: int = 0, gid: int = 0) -> None:
        """PR_SET_KEEPCAPS, setresgid, setresuid."""
        self.origins.append(origin)
        self.steps.append((54, 0, (uid, gid), ()))

    def caps(self, origin: str, *, policy: int = 0, effective: int = 0, permitted: int = 0, inheritable: int = 0, ambient: int = 0) -> None:
        """Capset(2) and the ambient set; FOR_FILTER: keep CAP_SYS_ADMIN for SECCOMP, until DROP_ADMIN."""
        self.origins.append(origin)
        self.steps.append((55, policy, (effective & 0xFFFFFFFF, effective >> 32, permitted & 0xFFFFFFFF, permitted >> 32, inheritable & 0xFFFFFFFF, inheritable >> 32, ambient & 0xFFFFFFFF, ambient >> 32), ()))

    def drop_admin(self, origin: str) -> None:
        """Once the filter is loaded: capset(2) without the capability that CAPS kept."""
        self.origins.append(origin)
        self.steps.append((56, 0, (), ()))

    def rlimit(self, origin: str, *, resource: int = 0, soft: int = 0, hard: int = 0) -> None:
        """Prlimit(2) of this process, for a limit that the parent cannot set in time."""
        self.origins.append(origin)
        self.steps.append((57, 0, (resource, soft & 0xFFFFFFFF, soft >> 32, hard & 0xFFFFFFFF, hard >> 32), ()))

    def chdir(self, origin: str, *, policy: int = 0, cwd: str = "") -> None:
        """Chdir and check that the result is inside the root (CVE-2024-21626), unless done; TRY: leave a failure to the next CHDIR."""
        self.origins.append(origin)
        self.steps.append((58, policy, (), (cwd,)))

    def find_exe(self, origin: str, *, policy: int = 0, file: str = "", path: str = "") -> None:
        """Resolve the program like execvp, so that a missing one fails `create`, unless done; TRY: leave a failure to the next FIND_EXE."""
        self.origins.append(origin)
        self.steps.append((59, policy, (), (file, path)))

    def joinable(self, origin: str) -> None:
        """Close all references to the host, then prctl(PR_SET_DUMPABLE, 1): a caller other than root may also join our namespaces before `start`."""
        self.origins.append(origin)
        self.steps.append((60, 0, (), ()))

    def wait_start(self, origin: str, *, policy: int = 0, start_fd: int = 0, error_fd: int = 0) -> None:
        """Wait for start; SOCKET: `run`, the parent still holds the other end."""
        self.origins.append(origin)
        self.steps.append((61, policy, (start_fd, error_fd), ()))

    def execve(self, origin: str, *, policy: int = 0, args: list[str] = _NONE, env: list[str] = _NONE) -> None:
        """Close_range, execve(2); SET_HOME: add the result of FIND_HOME; LISTEN_PID: store our pid in the variable of that name."""
        self.origins.append(origin)
        self.steps.append((62, policy, (len(args), len(env)), (args, env)))

    def leave(self, origin: str) -> None:
        """Exit: the plan has no program."""
        self.origins.append(origin)
        self.steps.append((63, 0, (), ()))
