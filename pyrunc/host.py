"""One read-only snapshot of what this host is: kernel, cgroup v2 hierarchy, security modules, our own privileges.

The compiler takes these facts as input, so that a plan is a pure function; nothing below `launch` asks the host again.
"""

from __future__ import annotations

import posix

from pyrunc import fs

CAP_LAST = 40  # CAP_CHECKPOINT_RESTORE, Linux 5.9: what is assumed where /proc does not say
_CGROUP2 = b" - cgroup2 "


class HostFacts:
    """The snapshot.  Paths are "" where there is nothing; ``apparmor`` and ``selinux`` are looked up when first asked for."""

    __slots__ = ("_apparmor", "_cap_last", "_selinux", "arch", "cgroup2_mount", "cgroup2_root", "euid", "hybrid", "kernel", "own_cgroup", "prefix")  # fmt: skip

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

    @property
    def cap_last(self) -> int:
        """Number of the last capability this kernel knows."""
        if self._cap_last is None:
            try:
                self._cap_last = int(fs.read_file(self.prefix + "/proc/sys/kernel/cap_last_cap", 32))
            except (OSError, ValueError):
                self._cap_last = CAP_LAST
        return self._cap_last

    @property
    def apparmor(self) -> bool:
        """Whether AppArmor is enabled."""
        if self._apparmor is None:
            try:
                self._apparmor = fs.read_file(self.prefix + "/sys/module/apparmor/parameters/enabled", 16)[:1] == b"Y"
            except OSError:
                self._apparmor = False
        return self._apparmor

    @property
    def selinux(self) -> bool:
        """Whether SELinux is enabled: its filesystem is there (selinux(8))."""
        if self._selinux is None:
            self._selinux = fs.exists(self.prefix + "/sys/fs/selinux/enforce")
        return self._selinux

    def cgroup_dir(self, path: str) -> str:
        """The directory of a cgroup given by its path in the hierarchy; the mount may show only a part of it."""
        root = self.cgroup2_root.rstrip("/")
        if root and (path == root or path.startswith(root + "/")):
            path = path[len(root) :]
        return self.cgroup2_mount + path.rstrip("/")


def snapshot(prefix: str = "") -> HostFacts:
    """The facts of this host; ``prefix`` stands before /proc and /sys in tests.  Never raises: what is missing is absent."""
    facts = HostFacts()
    name = posix.uname()
    facts.prefix = prefix
    facts.euid = posix.geteuid()
    facts.arch = name.machine
    facts.kernel = kernel_version(name.release)
    find_cgroup2(facts, read(prefix + "/proc/self/mountinfo"))
    facts.own_cgroup = own_cgroup(read(prefix + "/proc/self/cgroup"))
    return facts


def read(path: str) -> bytes:
    """A whole file, b"" when it cannot be read."""
    try:
        return fs.read_file(path)
    except OSError:
        return b""


def kernel_version(release: str) -> tuple[int, int]:
    """``6.1.0-13-amd64`` -> (6, 1)."""
    numbers = []
    for part in release.split(".")[:2]:
        digits = ""
        for char in part:
            if not char.isdigit():
                break
            digits += char
        numbers.append(int(digits or 0))
    return numbers[0], numbers[1] if len(numbers) > 1 else 0


def find_cgroup2(facts: HostFacts, mountinfo: bytes) -> None:
    """The unified hierarchy, wherever it is mounted; /sys/fs/cgroup is preferred when there are several.

    On a hybrid host it is at /sys/fs/cgroup/unified, beside the v1 controllers.
    """
    at = mountinfo.find(_CGROUP2)
    while at >= 0:
        start = mountinfo.rfind(b"\n", 0, at) + 1
        fields = mountinfo[start:at].split(b" ")
        mount = unescape(fields[4])
        if not facts.cgroup2_mount or mount == "/sys/fs/cgroup":
            facts.cgroup2_mount, facts.cgroup2_root = mount, unescape(fields[3])
        at = mountinfo.find(_CGROUP2, at + 1)
    facts.hybrid = bool(facts.cgroup2_mount) and facts.cgroup2_mount != "/sys/fs/cgroup"


def unescape(field: bytes) -> str:
    r"""A mountinfo path: blanks and backslashes are written as octal (``\040``, proc(5))."""
    if b"\\" in field:
        parts = field.split(b"\\")
        field = parts[0] + b"".join(bytes((int(part[:3], 8),)) + part[3:] for part in parts[1:])
    return field.decode("utf-8", "surrogateescape")


def own_cgroup(text: bytes) -> str:
    """Our path in the unified hierarchy: the ``0::`` line of /proc/self/cgroup (cgroups(7))."""
    for line in text.split(b"\n"):
        if line.startswith(b"0::"):
            return line[3:].decode("utf-8", "surrogateescape")
    return "/"
