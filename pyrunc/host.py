"""One read-only snapshot of what this host is: kernel, cgroup v2 hierarchy, security modules, our own privileges.

The compiler takes these facts as input, so that a plan is a pure function; nothing below `launch` asks the host again.
"""

from __future__ import annotations

import posix
from posix import O_CLOEXEC, O_RDONLY

from pyrunc import fs

CAP_LAST = 40  # CAP_CHECKPOINT_RESTORE, Linux 5.9: what is assumed where /proc does not say
DEFAULT_MOUNT = "/sys/fs/cgroup"
INITIAL_USERNS = 0xEFFFFFFD  # inode of the first user namespace in nsfs (kernel: PROC_USER_INIT_INO)
_CGROUP2 = b" - cgroup2 "


class HostFacts:
    """The snapshot.  Paths are "" where there is nothing; the security modules are looked up when first asked for.

    cgroup paths (``own_cgroup``, ``cgroup2_root`` and what `cgroup_dir` takes) are those of /proc/self/cgroup; a mount
    may show only the part of the hierarchy below ``cgroup2_root`` (a bind mount inside a container).
    """

    __slots__ = (
        "_apparmor",
        "_cap_last",
        "_rootless",
        "_selinux",
        "arch",
        "cgroup2_mount",
        "cgroup2_root",
        "euid",
        "hybrid",
        "kernel",
        "own_cgroup",
        "prefix",
    )

    def __init__(self) -> None:
        self.euid = 0
        self.arch = "x86_64"
        self.kernel = (0, 0)  # (major, minor)
        self.cgroup2_mount = ""  # where the unified hierarchy is mounted
        self.cgroup2_root = "/"  # which of its cgroups the mount shows as its top (mountinfo field 4)
        self.own_cgroup = "/"  # our cgroup in it
        self.hybrid = False  # mounted, but not at /sys/fs/cgroup: controllers may be in v1 hierarchies
        self.prefix = ""
        self._cap_last: int | None = None
        self._apparmor: bool | None = None
        self._selinux: bool | None = None
        self._rootless: bool | None = None

    @property
    def cap_last(self) -> int:
        """Number of the last capability this kernel knows."""
        if self._cap_last is None:
            try:
                self._cap_last = int(fs.read_file(self.prefix + "/proc/sys/kernel/cap_last_cap", 32))
            except (OSError, ValueError):
                self._cap_last = CAP_LAST
        return self._cap_last

    @cap_last.setter
    def cap_last(self, value: int) -> None:
        self._cap_last = value

    @property
    def apparmor(self) -> bool:
        """Whether AppArmor is enabled."""
        if self._apparmor is None:
            self._apparmor = read(self.prefix + "/sys/module/apparmor/parameters/enabled")[:1] == b"Y"
        return self._apparmor

    @apparmor.setter
    def apparmor(self, value: bool) -> None:
        self._apparmor = value

    @property
    def selinux(self) -> bool:
        """Whether SELinux is enabled: the kernel registers its filesystem only then, mounted or not."""
        if self._selinux is None:
            mounted = fs.exists(self.prefix + "/sys/fs/selinux/enforce")
            self._selinux = mounted or b"\tselinuxfs\n" in read(self.prefix + "/proc/filesystems")
        return self._selinux

    @selinux.setter
    def selinux(self, value: bool) -> None:
        self._selinux = value

    @property
    def rootless(self) -> bool:
        """Whether what only the host's root may do can be missing: another user, or root of a user namespace."""
        if self._rootless is None:
            self._rootless = self.euid != 0 or not initial_userns(self.prefix)
        return self._rootless

    @rootless.setter
    def rootless(self, value: bool) -> None:
        self._rootless = value

    def own_namespace(self, kind: str, path: str) -> bool:
        """Whether ``path`` leads to our own namespace of that type (config.json's name): the same inode of nsfs.

        A path that cannot be looked up is not; joining it will say why.
        """
        name = {"network": "net", "mount": "mnt"}.get(kind, kind)
        try:
            ours, other = posix.stat(f"{self.prefix}/proc/self/ns/{name}"), posix.stat(path)
        except (OSError, ValueError):
            return False
        return ours.st_ino == other.st_ino and ours.st_dev == other.st_dev

    @property
    def memory_nodes(self) -> frozenset[int]:
        """The NUMA nodes that have memory; looked up for linux.memoryPolicy only."""
        from pyrunc.spec.names import listed

        text = read(self.prefix + "/sys/devices/system/node/has_memory").decode("ascii", "replace")
        return frozenset(listed(text, 1023))

    @property
    def resctrl(self) -> str:
        """Where a resctrl file system is mounted, "" for nowhere; looked up for linux.intelRdt only."""
        for line in read(self.prefix + "/proc/self/mountinfo").split(b"\n"):
            if b" - resctrl " in line:
                return self.prefix + unescape(line.split(b" ")[4])
        return ""

    def cgroup_dir(self, path: str) -> str:
        """The directory of a cgroup given by its path in the hierarchy."""
        root = self.cgroup2_root.rstrip("/")
        if root and (path == root or path.startswith(root + "/")):
            path = path[len(root) :]
        return self.cgroup2_mount + path.rstrip("/")


def snapshot(prefix: str = "") -> HostFacts:
    """The facts of this host; tests put ``prefix`` before /proc and /sys.

    Missing files are not an error. Raises OSError if a fact cannot be determined (ENOMEM): without
    its hierarchy a container's cgroup would be overlooked and left behind.
    """
    facts = HostFacts()
    name = posix.uname()
    facts.prefix = prefix
    facts.euid = posix.geteuid()
    facts.arch = name.machine
    facts.kernel = kernel_version(name.release)
    try:
        mountinfo = posix.open(prefix + "/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)
    except OSError as error:
        if fs.is_inconclusive(error):
            raise
        return facts
    try:
        find_cgroup2(facts, mountinfo)
    finally:
        posix.close(mountinfo)
    facts.own_cgroup = own_cgroup(read(prefix + "/proc/self/cgroup", strict=True))
    if facts.cgroup2_root.startswith("/.."):
        # The mount shows more than our cgroup namespace; where we are in it cannot be known.
        facts.cgroup2_root = facts.own_cgroup = "/"
    return facts


def initial_userns(prefix: str = "") -> bool:
    """Whether we are in the initial user namespace, so that root has its rights over the host.

    The maps do not say: systemd maps every id to itself in other namespaces as well (PrivateUsers=full).  A kernel
    without user namespaces has no such file.  Raises OSError if it cannot be known (ENOMEM).
    """
    try:
        return posix.stat(prefix + "/proc/self/ns/user").st_ino == INITIAL_USERNS
    except OSError as error:
        if fs.is_inconclusive(error):
            raise
        return True


def waits_in(pid: int) -> str:
    """The kernel function that a process sleeps in (/proc/PID/wchan); "?" when it runs, is gone, or may not be seen."""
    return read(f"/proc/{pid}/wchan").decode("ascii", "replace").strip("0\n") or "?"


def read(path: str, *, strict: bool = False) -> bytes:
    """Read a whole file; b"" if it is unreadable; ``strict``: raise OSError unless it is
    missing."""
    try:
        return fs.read_file(path)
    except OSError as error:
        if strict and fs.is_inconclusive(error):
            raise
        return b""


def kernel_version(release: str) -> tuple[int, int]:
    """``6.1.0-13-amd64`` -> (6, 1)."""
    numbers = []
    for part in release.split(".")[:2]:
        digits = ""
        for char in part:
            if char not in "0123456789":
                break
            digits += char
        numbers.append(int(digits or 0))
    return numbers[0], numbers[1] if len(numbers) > 1 else 0


def find_cgroup2(facts: HostFacts, mountinfo: int) -> None:
    """The unified hierarchy, wherever it is mounted; /sys/fs/cgroup is preferred when there are several.

    On a hybrid host it is at /sys/fs/cgroup/unified, beside the v1 controllers.  A mount that another one covers is
    still listed: only one whose files can be seen counts.  The descriptor is read a page at a time and no further than
    needed, because a node with thousands of mounts needs milliseconds to print them, and this one comes early.
    """
    rest = b""
    while chunk := posix.read(mountinfo, 65536):
        lines, _, rest = (rest + chunk).rpartition(b"\n")
        at = lines.find(_CGROUP2)
        while at >= 0:
            fields = lines[lines.rfind(b"\n", 0, at) + 1 : at].split(b" ")
            mount = unescape(fields[4])
            default = mount == DEFAULT_MOUNT
            if (default or not facts.cgroup2_mount) and fs.exists(f"{facts.prefix}{mount}/cgroup.controllers"):
                facts.cgroup2_mount, facts.cgroup2_root = mount, unescape(fields[3])
                facts.hybrid = not default
                if default:
                    return
            at = lines.find(_CGROUP2, at + 1)


def unescape(field: bytes) -> str:
    r"""A mountinfo path: blanks and backslashes are written as octal (``\040``, proc(5))."""
    if b"\\" in field:
        parts = field.split(b"\\")
        field = parts[0] + b"".join(bytes((int(part[:3], 8),)) + part[3:] for part in parts[1:])
    return field.decode("utf-8", "surrogateescape")


def own_cgroup(text: bytes) -> str:
    """Our path in the unified hierarchy: the ``0::`` line of /proc/self/cgroup (cgroups(7)).

    Above the root of our cgroup namespace it starts with ``/..``; then it is taken for the top.
    """
    for line in text.split(b"\n"):
        if line.startswith(b"0::"):
            path = line[3:].decode("utf-8", "surrogateescape")
            return "/" if path.startswith("/..") else path
    return "/"
