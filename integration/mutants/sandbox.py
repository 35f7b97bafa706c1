"""A sandbox in which changed code may run as root: private namespaces, a read-only filesystem
except for a tmpfs, and a private /dev.

A mutant may send SIGKILL to the wrong process, chown /dev/null or remove the wrong cgroup. In the
sandbox it cannot reach the machine's processes (pid namespace), files (all mounts are read-only),
devices (private nodes), network or cgroups (a cgroup namespace with a new cgroup2 mount).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 1 << 18
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x20000, 0x2000000, 0x4000000, 0x8000000, 0x20000000, 0x40000000,
)  # fmt: skip
ALL = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
AT_RECURSIVE, SYS_MOUNT_SETATTR = 0x8000, 442
NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
WRITABLE = ("/tmp", "/run", "/var/tmp")

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *args: object) -> int:
    """Call a libc function. Raises OSError if it fails."""
    result = int(getattr(_libc, name)(*args))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Call mount(2)."""
    call("mount", source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None)


def cgroup_mount() -> str:
    """The mount point of cgroup2; "" if it is not mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return line.split()[4]
    return ""


class Spent(NamedTuple):
    """What a sandbox has used, in seconds."""

    cpu: float  # of all its processes
    clock: float  # elapsed time, without the time in which one of them waited for a processor

    def since(self, start: Spent) -> Spent:
        """What has been used after ``start``."""
        return Spent(self.cpu - start.cpu, self.clock - start.clock)


def spent(cgroup: str) -> Spent:
    """What the processes in a cgroup have used. Without cgroup2 ("") it is what this process and
    its children have used.

    Neither figure depends on how busy the machine is: pressure stall information says how long
    processes were runnable and did not run (Documentation/accounting/psi.rst).
    """
    now = time.monotonic()
    if not cgroup:
        return Spent(sum(os.times()[:4]), now)
    usage = Path(cgroup, "cpu.stat").read_text().split()[1]
    try:
        stalled = Path(cgroup, "cpu.pressure").read_text().partition("total=")[2].split()[0]
    except OSError:  # a kernel without CONFIG_PSI, or psi=0
        stalled = "0"
    return Spent(int(usage) / 1e6, now - int(stalled) / 1e6)


class Cgroup:
    """A cgroup for one sandbox, removed with its descendants."""

    def __init__(self, name: str) -> None:
        top = cgroup_mount()
        self.path = Path(top, name) if top else None
        if self.path is not None:
            self.path.mkdir(exist_ok=True)

    def spent(self) -> Spent:
        """What the sandbox has used."""
        return spent(str(self.path or ""))

    def join(self) -> None:
        """Move this process into the cgroup."""
        if self.path is not None:
            (self.path / "cgroup.procs").write_text("0")

    def leave_root(self) -> None:
        """Move this process into a leaf: controllers can be enabled for children only if the cgroup
        has no process."""
        if self.path is not None:
            leaf = self.path / "leaf"
            leaf.mkdir(exist_ok=True)
            (leaf / "cgroup.procs").write_text("0")

    def remove(self) -> None:
        """Kill the processes in the cgroup and remove it. What the kernel still holds after two
        seconds remains."""
        if self.path is None:
            return
        deadline = time.monotonic() + 2
        while self.path.exists() and time.monotonic() < deadline:
            for at, names, _ in os.walk(self.path, topdown=False):
                try:
                    if not names or at:
                        Path(at, "cgroup.kill").write_text("1")
                    os.rmdir(at)
                except OSError:
                    continue
            time.sleep(0.01)


def end_with_parent() -> None:
    """Request SIGKILL when the parent ends."""
    call("prctl", 1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def build(keep: str) -> None:
    """Set up every mount, as the first process of the new namespaces. The directory ``keep``
    remains writable."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    attr = struct.pack("=QQQQ", MS_RDONLY, 0, 0, 0)
    call("syscall", SYS_MOUNT_SETATTR, -100, b"/", AT_RECURSIVE, attr, len(attr))
    if keep:
        mount(keep, keep, flags=MS_BIND)
        attr = struct.pack("=QQQQ", 0, MS_RDONLY, 0, 0)
        call("syscall", SYS_MOUNT_SETATTR, -100, keep.encode(), 0, attr, len(attr))
    for place in WRITABLE:
        if os.path.isdir(place):
            mount("tmpfs", place, "tmpfs", 0, "mode=1777")  # as on most machines; `doctor` checks the options
    mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=755")
    for name, (major, minor) in NODES.items():
        os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
        os.chmod(f"/dev/{name}", 0o666)
    for name, target in LINKS.items():
        os.symlink(target, f"/dev/{name}")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"/dev/{name}")
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV)
    mount("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    top = cgroup_mount()
    if top:
        call("umount2", top.encode(), 2)
        mount("cgroup2", top, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.system("ip link set lo up 2>/dev/null")


def reap(child: int) -> int:
    """Reap children as the first process of a pid namespace until ``child`` ends, and return its
    status."""
    status = 1
    while True:
        try:
            pid, found = os.wait()
        except ChildProcessError:
            return status
        if pid == child:
            return os.waitstatus_to_exitcode(found)


def new_session(group: Path = Path("/proc/self/autogroup")) -> None:
    """Start a session. The kernel groups processes by session for scheduling, and a new group has
    no priority of its own (sched(7), The autogroup feature), so take over the caller's."""
    priority = ""
    with contextlib.suppress(OSError):  # a kernel without CONFIG_SCHED_AUTOGROUP
        priority = group.read_text().rpartition(" ")[2]
    os.setsid()
    if priority:  # the file is empty in a session that is as old as the machine
        with contextlib.suppress(OSError):
            group.write_text(priority)


def first_process(work: Callable[[], int], keep: str) -> int:
    """Set up the mounts, then run the work in a child: pid 1 ignores signals without a handler."""
    build(keep)
    worker = os.fork()
    if worker == 0:
        new_session()
        os._exit(work() & 0xFF)
    return reap(worker)


def run(
    work: Callable[[], int],
    cgroup: Cgroup,
    timeout: float,
    keep: str = "",
    stuck: Callable[[], bool] = lambda: False,
) -> int | None:
    """Run a function in a sandbox, in a child. Returns its status, or None if it was killed: after
    ``timeout`` seconds, or because ``stuck``, which is called every second, returned true."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            end_with_parent()
            cgroup.join()
            call("unshare", ALL)
            cgroup.leave_root()
            first = os.fork()
            if first == 0:
                end_with_parent()
                os._exit(first_process(work, keep))
            status = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
        except BaseException as error:  # the child must not continue as its parent
            os.write(2, f"sandbox: {error}\n".encode())
        os._exit(status & 0xFF)
    return wait(pid, timeout, stuck)


def wait(pid: int, timeout: float, stuck: Callable[[], bool] = lambda: False) -> int | None:
    """Wait for a child and return its status, or None if it took too long and was killed."""
    fd = os.pidfd_open(pid)
    try:
        import select

        poller = select.poll()
        poller.register(fd, select.POLLIN)
        end = time.monotonic() + timeout
        while not (over := poller.poll(1000)) and time.monotonic() < end and not stuck():
            pass
        late = not over
        if late:
            os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return None if late else status
    finally:
        os.close(fd)
