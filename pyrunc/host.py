"""A read-only snapshot of the host: kernel, cgroup v2 hierarchy, security modules, privileges.

These facts are an input of the compiler, which makes a plan a pure function. Nothing below `launch`
queries the host again.
"""

from __future__ import annotations

import posix
from posix import O_CLOEXEC, O_RDONLY

from pyrunc import fs

CAP_LAST = 40  # CAP_CHECKPOINT_RESTORE, Linux 5.9: the default without /proc
DEFAULT_MOUNT = "/sys/fs/cgroup"
INITIAL_USERNS = 0xEFFFFFFD  # inode of the first user namespace in nsfs (kernel: PROC_USER_INIT_INO)
_CGROUP2 = b" - cgroup2 "


class HostFacts:
    """The snapshot.  Missing paths are "".  Security modules are looked up on first use.

    cgroup paths (``own_cgroup``, ``cgroup2_root`` and the argument of `cgroup_dir`) are relative to
    the root in /proc/self/cgroup.  In a container, the mount may contain only the part of the
    hierarchy below ``cgroup2_root``.
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
        self.cgroup2_mount = ""  # mount point of the unified hierarchy
        self.cgroup2_root = "/"  # the cgroup at the root of this mount (mountinfo field 4)
        self.own_cgroup = "/"  # our cgroup in the hierarchy
        self.hybrid = False  # mounted, but not at /sys/fs/cgroup: controllers may be in v1 hierarchies
        self.prefix = ""
        self._cap_last: int | None = None
        self._apparmor: bool | None = None
        self._selinux: bool | None = None
        self._rootless: bool | None = None

    @property
    def cap_last(self) -> int:
        """The number of the last capability of this kernel."""
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
        """Whether SELinux is enabled, which is when the kernel registers its filesystem."""
        if self._selinux is None:
            mounted = fs.exists(self.prefix + "/sys/fs/selinux/enforce")
            self._selinux = mounted or b"\tselinuxfs\n" in read(self.prefix + "/proc/filesystems")
        return self._selinux

    @selinux.setter
    def selinux(self, value: bool) -> None:
        self._selinux = value

    @property
    def rootless(self) -> bool:
        """Whether we may lack privileges of the host's root: as a user, or in a user namespace."""
        if self._rootless is None:
            self._rootless = self.euid != 0 or not initial_userns(self.prefix)
        return self._rootless

    @rootless.setter
    def rootless(self, value: bool) -> None:
        self._rootless = value

    def own_namespace(self, kind: str, path: str) -> bool:
        """Whether ``path`` is our own namespace of a type (by its name in config.json).

        Returns False if the lookup fails, because joining the namespace reports the reason.
        """
        name = {"network": "net", "mount": "mnt"}.get(kind, kind)
        try:
            ours, other = posix.stat(f"{self.prefix}/proc/self/ns/{name}"), posix.stat(path)
        except (OSError, ValueError):
            return False
        return ours.st_ino == other.st_ino and ours.st_dev == other.st_dev

    @property
    def memory_nodes(self) -> frozenset[int]:
        """The NUMA nodes with memory; read only for linux.memoryPolicy."""
        from pyrunc.spec.names import listed

        text = read(self.prefix + "/sys/devices/system/node/has_memory").decode("ascii", "replace")
        return frozenset(listed(text, 1023))

    @property
    def resctrl(self) -> str:
        """The mount point of resctrl, or ""; read only for linux.intelRdt."""
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
        # The mount is outside our cgroup namespace, so our position in it is unknown.
        facts.cgroup2_root = facts.own_cgroup = "/"
    return facts


def initial_userns(prefix: str = "") -> bool:
    """Whether we are in the initial user namespace, where root has privileges over the host.

    The id maps are not sufficient: PrivateUsers=full of systemd maps every id to itself in another
    namespace. A kernel without user namespaces lacks the file. Raises OSError if the answer cannot
    be determined (ENOMEM).
    """
    try:
        return posix.stat(prefix + "/proc/self/ns/user").st_ino == INITIAL_USERNS
    except OSError as error:
        if fs.is_inconclusive(error):
            raise
        return True


def waits_in(pid: int) -> str:
    """The kernel function in which a process sleeps (/proc/PID/wchan), or "?" if unknown."""
    return read(f"/proc/{pid}/wchan").decode("ascii", "replace").strip("0\n") or "?"


def read(path: str, *, strict: bool = False) -> bytes:
    """Read a file; b"" if it is unreadable.  With ``strict``, raises inconclusive OSErrors."""
    try:
        return fs.read_file(path)
    except OSError as error:
        if strict and fs.is_inconclusive(error):
            raise
        return b""


def kernel_version(release: str) -> tuple[int, int]:
    """Parse a release: ``6.1.0-13-amd64`` -> (6, 1)."""
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
    """Find a mount of the unified hierarchy, preferably /sys/fs/cgroup.

    On a hybrid host it is /sys/fs/cgroup/unified, beside the v1 controllers.  Covered mounts are
    also listed, so the files of the mount must be visible.  The descriptor is read in parts until
    the mount is found: listing thousands of mounts takes milliseconds, and this mount comes early.
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
    r"""Decode a mountinfo path, in which blanks and backslashes are octal (``\040``, proc(5))."""
    if b"\\" in field:
        parts = field.split(b"\\")
        field = parts[0] + b"".join(bytes((int(part[:3], 8),)) + part[3:] for part in parts[1:])
    return field.decode("utf-8", "surrogateescape")


def own_cgroup(text: bytes) -> str:
    """Our path in the unified hierarchy: the ``0::`` line of /proc/self/cgroup (cgroups(7)).

    A path outside our cgroup namespace starts with ``/..``; it is treated as the root.
    """
    for line in text.split(b"\n"):
        if line.startswith(b"0::"):
            path = line[3:].decode("utf-8", "surrogateescape")
            return "/" if path.startswith("/..") else path
    return "/"
