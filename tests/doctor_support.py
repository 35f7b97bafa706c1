"""Shared parts of the doctor's tests: a host made of files below a directory, and probes with known
results."""

from __future__ import annotations

import errno
import os
import re
import resource
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import transcript
from pyrunc.doctor.findings import Area, Finding
from pyrunc.doctor.machine import Machine
from pyrunc.spec.names import CAPABILITIES

ALL_CAPS = (1 << len(CAPABILITIES)) - 1
STATUS = """\
CapInh:\t0000000000000000
CapPrm:\t{caps:016x}
CapEff:\t{caps:016x}
CapBnd:\t{caps:016x}
NoNewPrivs:\t{nnp}
Seccomp:\t{seccomp}
"""
MOUNTINFO = """\
23 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
24 23 0:5 / /proc rw - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
"""
ALL_CONTROLLERS = "cpuset cpu io memory hugetlb pids rdma\n"
FILESYSTEMS = "".join(
    f"nodev\t{name}\n" for name in ("proc", "sysfs", "tmpfs", "devpts", "mqueue", "overlay", "cgroup2")
)
# A host without problems.
HEALTHY = {
    "/proc/self/mountinfo": MOUNTINFO,
    "/proc/self/cgroup": "0::/system.slice/a.service\n",
    "/proc/self/status": STATUS.format(caps=ALL_CAPS, nnp=0, seccomp=0),
    "/proc/self/oom_score_adj": "0\n",
    "/proc/filesystems": FILESYSTEMS,
    "/proc/cgroups": "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\n",
    "/proc/loadavg": "0.00 0.00 0.00 1/100 4711\n",
    "/proc/uptime": "1000.00 1000.00\n",
    "/proc/key-users": "    0:    10 9/9 9/1000000 200/25000000\n",
    "/proc/sys/fs/file-nr": "100\t0\t10000\n",
    "/proc/sys/fs/mount-max": "100000\n",
    "/proc/sys/fs/nr_open": "1048576\n",
    "/proc/sys/fs/inotify/max_user_instances": "8192\n",
    "/proc/sys/kernel/osrelease": "6.12.0\n",
    "/proc/sys/kernel/cap_last_cap": f"{len(CAPABILITIES) - 1}\n",
    "/proc/sys/kernel/keys/root_maxkeys": "1000000\n",
    "/proc/sys/kernel/pid_max": "32768\n",
    "/proc/sys/kernel/threads-max": "100000\n",
    "/proc/sys/kernel/pty/nr": "1\n",
    "/proc/sys/kernel/pty/max": "4096\n",
    "/proc/sys/kernel/yama/ptrace_scope": "1\n",
    "/proc/sys/net/ipv4/ip_forward": "1\n",
    "/proc/sys/vm/memfd_noexec": "0\n",
    "/sys/fs/cgroup/cgroup.controllers": ALL_CONTROLLERS,
    "/sys/fs/cgroup/system.slice/cgroup.controllers": ALL_CONTROLLERS,
    "/sys/fs/cgroup/system.slice/cgroup.procs": "",
    "/sys/fs/cgroup/system.slice/cgroup.subtree_control": "",
    "/sys/fs/cgroup/system.slice/a.service/cgroup.controllers": ALL_CONTROLLERS,
    "/sys/fs/cgroup/system.slice/a.service/cgroup.kill": "",
    "/sys/fs/cgroup/system.slice/a.service/memory.max": "max\n",
    "/sys/fs/cgroup/system.slice/a.service/memory.swap.max": "max\n",
    "/sys/kernel/security/lsm": "lockdown,capability,landlock,yama\n",
}


class Made(Machine):
    """A host below a directory that replaces every answer of the real one."""

    def __init__(self, top: Path, probe: Callable[[str, int], int]) -> None:
        self.prefixed: tuple[str, ...] = ("/",)
        super().__init__(str(top), {}, probe)
        self.euid = self.egid = self.uid = self.facts.euid = 0
        self.facts.kernel, self.facts.arch = (6, 12), "x86_64"
        self.facts.rootless = False
        self.program = "/usr/local/bin/pyrunc"
        self.denied: set[str] = set()
        self.limits: dict[int, tuple[int, int]] = {}
        self.bits: int | None = 0
        self.ids: list[tuple[int, int]] | None = []

    def access(self, path: str, mode: int) -> bool:
        return self.exists(path) and path not in self.denied

    def place(self, path: str) -> str:
        return self.prefix + path if path.startswith(self.prefixed) else path

    def subordinate_ids(self, owner: str, groups: bool) -> list[tuple[int, int]] | None:
        return self.ids

    def rlimit(self, number: int) -> tuple[int, int]:
        return self.limits.get(number, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def securebits(self) -> int | None:
        return self.bits

    def become(self, uid: int) -> None:
        """Switch to another user, who works rootless."""
        self.euid = self.egid = self.uid = self.facts.euid = uid
        self.facts.rootless = True


def works(what: str, flags: int) -> int:
    """A probe for which everything works."""
    return 7 if what == "LANDLOCK" else 0


def fails(number: int, *whats: str, mask: int = 0) -> Callable[[str, int], int]:
    """A probe for which some things fail with an errno: those named, or all that unshare a flag of
    ``mask``."""

    def probe(what: str, flags: int) -> int:
        return -number if what in whats or flags & mask else works(what, flags)

    return probe


def made(top: Path, files: Mapping[str, str | None] = {}, probe: Callable[[str, int], int] = works) -> Made:
    """A `HEALTHY` host with some files replaced, or removed if None."""
    for name, text in {**HEALTHY, **files}.items():
        path = top / name.lstrip("/")
        if text is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return Made(top, probe)


def program_at(top: Path, *paths: str) -> None:
    """Create executable files."""
    for path in paths:
        target = top / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("#!/bin/sh\nexit 1\n")
        target.chmod(0o755)


def statuses(findings: list[Finding]) -> dict[str, str]:
    """The worst status of each check."""
    order = ["ok", "note", "problem"]
    out: dict[str, str] = {}
    for one in findings:
        out[one.check] = max(out.get(one.check, "ok"), one.status, key=order.index)
    return out


def only(findings: list[Finding], check: str) -> Finding:
    """The only finding of a check that is not ok, or its only finding."""
    mine = [one for one in findings if one.check == check]
    bad = [one for one in mine if one.status != "ok"] or mine
    assert len(bad) == 1, findings
    return bad[0]


# Tests whose findings depend on directory order, on time, or on the machine.
UNSTEADY = {"test_hostile_names", "test_thousands", "test_room", "test_linger", "test_state_root", "test_criu"}
LOOKED: list[Finding] = []  # by the running test


def flat(areas: list[Area]) -> list[Finding]:
    """All findings."""
    found = [finding for area in areas for finding in area.done()]
    LOOKED.extend(found)
    return found


@pytest.fixture(autouse=True)
def complete(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Compare all findings of a test with a transcript, in addition to its assertions: a new
    finding or a different wording fails the test.

    The explanation (`means`) is excluded, because it is prose.
    """
    LOOKED.clear()
    yield
    if not LOOKED or request.node.originalname in UNSTEADY or os.geteuid():
        return
    module = request.node.module.__name__.removeprefix("test_")
    lines = []
    for one in LOOKED:
        mend = f"\n    -> {one.mend}" if one.mend else ""
        text = f"{one.status:7} {one.area}: {one.check}: {one.seen}{' (+)' if one.means else ''}{mend}"
        text = text.replace(str(tmp_path), "TOP")
        text = re.sub(r"[\d.]+ ([KMGT]iB)", r"N \1", text) if "storage: " in text else text  # depends on the machine
        lines.append(re.sub(rf"\b{os.getpid()}\b", "OWN", text) if module == "doctor_leftovers" else text)
    transcript.compare(module, request.node.name, lines)


def tree(top: str) -> Iterator[tuple[str, int, int, int]]:
    """Every file below a directory: path, mode, size, mtime."""
    for at, directories, files in os.walk(top):
        for name in [*directories, *files]:
            found = os.lstat(f"{at}/{name}")
            yield f"{at}/{name}", found.st_mode, found.st_size, found.st_mtime_ns


ENOSYS, EPERM, ENOSPC, EINVAL = errno.ENOSYS, errno.EPERM, errno.ENOSPC, errno.EINVAL
