"""Facts about this machine, and private copies of resources that tests must not change."""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

_CAPS = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
CAP_BIT = {"CAP_" + name: 1 << bit for bit, name in enumerate(_CAPS.split())}  # linux/capability.h

_libc = ctypes.CDLL(None, use_errno=True)


def libc(name: str, *args: Any) -> int:
    """Call a libc function that returns -1 and sets errno on failure. Raises OSError on failure."""
    rc = int(getattr(_libc, name)(*args))
    if rc < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return rc


def own_mount_namespace() -> None:
    """Move this process into a private mount namespace whose mounts are shared, as on a host that
    runs systemd.

    Other programs' mounts then cannot disturb the comparison of mountinfo. A mount that a runtime
    lets propagate to its host becomes visible, even on a machine whose mounts happen to be private.
    """
    libc("unshare", 0x00020000)  # CLONE_NEWNS
    libc("mount", None, b"/", None, 0x4000 | (1 << 18), None)  # MS_REC|MS_PRIVATE
    libc("mount", None, b"/", None, 0x4000 | (1 << 20), None)  # MS_REC|MS_SHARED
    own_devices()


def own_devices() -> None:
    """Mount private nodes over those in /dev that containers get as stdio or as bind mounts.

    A runtime that changes their owner or mode must not affect the machine.
    """
    with tempfile.TemporaryDirectory(prefix="pytdev") as place:
        libc("mount", b"none", place.encode(), b"tmpfs", 0, b"mode=755")
        for name in ("null", "zero", "full", "random", "urandom"):
            node, theirs = os.path.join(place, name), os.path.join("/dev", name)
            os.mknod(node, stat.S_IFCHR | 0o666, os.stat(theirs).st_rdev)
            os.chmod(node, 0o666)
            libc("mount", node.encode(), theirs.encode(), None, 0x1000, None)  # MS_BIND
        libc("umount2", place.encode(), 2)  # MNT_DETACH


def become_subreaper() -> None:
    """Become a subreaper, like a shim or conmon, so that orphans (a container's init after
    `create`) become our children."""
    libc("prctl", 36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


class Mount(NamedTuple):
    """One line of mountinfo; `shared` is the optional fields joined, '' for a private mount."""

    id: int
    parent: int
    device: str
    root: str
    dest: str
    options: list[str]
    shared: str
    fstype: str
    source: str
    super: list[str]


def _unescape(field: str) -> str:
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def parse_mountinfo(text: str) -> list[Mount]:
    """All mounts of a mountinfo file (proc_pid_mountinfo(5)), in mount order."""
    mounts = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        one = left.split(" ")
        two = right.split(" ")
        mounts.append(
            Mount(
                int(one[0]),
                int(one[1]),
                one[2],
                _unescape(one[3]),
                _unescape(one[4]),
                one[5].split(","),
                " ".join(one[6:]),
                two[0],
                _unescape(two[1]),
                two[2].split(","),
            )
        )
    return mounts


def children(pid: int) -> list[int]:
    """The pids of the children of all threads of a process. A process that has exited has none."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(text) for path in found for text in path.read_text().split()]


def pss_kib(pid: int | str) -> int:
    """The proportional set size of a process. Raises OSError if it has exited, IndexError if it is a
    zombie."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)[0])


def cgroup2_mount() -> Path | None:
    """The mount point of the unified hierarchy, or None."""
    for mount in parse_mountinfo(Path("/proc/self/mountinfo").read_text()):
        if mount.fstype == "cgroup2":
            return Path(mount.dest)
    return None


def controllers() -> list[str]:
    """Controllers of the unified hierarchy's root."""
    root = cgroup2_mount()
    return (root / "cgroup.controllers").read_text().split() if root else []


def has_cap(name: str) -> bool:
    """Whether a capability (without ``CAP_``) is in our bounding set."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return bool(int(line.split()[1], 16) & CAP_BIT["CAP_" + name])
    return False


def own_bounding_caps() -> list[str]:
    """Full names of the capabilities in our bounding set."""
    return [name for name in CAP_BIT if has_cap(name[4:])]


def sysctl_as_it_is(key: str) -> str:
    """This machine's value of the sysctl that a key in any notation refers to, or "1".

    For keys that must be refused: if one is accepted by mistake, the machine does not change.
    """
    parts = [part for part in re.split(r"[./+]+", key) if part]
    for start in range(len(parts) - 1):
        path = Path("/proc/sys", *parts[start:])
        if path.exists():
            return path.read_text().strip()
    return "1"


def kernel() -> tuple[int, int]:
    """The running kernel's version."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(itertools.takewhile(str.isdigit, minor)) or 0)


def systemd_runs() -> bool:
    """Whether systemd is this machine's init (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def tracks_dirty_memory() -> bool:
    """Whether the kernel tracks written pages (CONFIG_MEM_SOFT_DIRTY); it then shows a flag for new
    areas."""
    return b" sd " in Path("/proc/self/smaps").read_bytes()


def apparmor_is_on() -> bool:
    """Whether AppArmor is in the kernel and enabled."""
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    return enabled.exists() and enabled.read_text().startswith("Y")


def systemd_user() -> int:
    """The uid of a user other than root whose systemd instance has a bus; 0 if there is none."""
    for path in sorted(Path("/run/user").glob("*/bus")) if os.path.isdir("/run/user") else ():
        uid = int(path.parent.name)
        if uid:
            return uid
    return 0
