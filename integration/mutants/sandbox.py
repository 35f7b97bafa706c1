"""A place in which changed code may run as root: namespaces of its own, everything read-only but a
tmpfs, its own /dev.

A mutant may send SIGKILL to the wrong process, give /dev/null away or remove the wrong cgroup. Here
it can reach neither the machine's processes (pid namespace) nor its files (all mounts are
read-only), devices (nodes of its own), network or cgroups (a cgroup namespace, with cgroup2 mounted
anew).
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path

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
    """A function of libc.  Raises OSError when it fails."""
    result = int(getattr(_libc, name)(*args))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    call("mount", source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None)


def cgroup_mount() -> str:
    """Where cgroup2 is mounted; "" without."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return line.split()[4]
    return ""


class Cgroup:
    """A cgroup for one sandbox, removed with everything below it."""

    def __init__(self, name: str) -> None:
        top = cgroup_mount()
        self.path = Path(top, name) if top else None
        if self.path is not None:
            self.path.mkdir(exist_ok=True)

    def join(self) -> None:
        """Move this process into it."""
        if self.path is not None:
            (self.path / "cgroup.procs").write_text("0")

    def leave_root(self) -> None:
        """Move this process into a leaf: controllers reach the children of a cgroup only when it
        has no process."""
        if self.path is not None:
            leaf = self.path / "leaf"
            leaf.mkdir(exist_ok=True)
            (leaf / "cgroup.procs").write_text("0")

    def remove(self) -> None:
        """End what is in it and remove it; what the kernel still holds after two seconds stays."""
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
    """Get SIGKILL when the parent ends."""
    call("prctl", 1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def build(keep: str) -> None:
    """In the new namespaces, as their first process: every mount. ``keep``: a directory that stays
    writable."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    attr = struct.pack("=QQQQ", MS_RDONLY, 0, 0, 0)
    call("syscall", SYS_MOUNT_SETATTR, -100, b"/", AT_RECURSIVE, attr, len(attr))
    if keep:
        mount(keep, keep, flags=MS_BIND)
        attr = struct.pack("=QQQQ", 0, MS_RDONLY, 0, 0)
        call("syscall", SYS_MOUNT_SETATTR, -100, keep.encode(), 0, attr, len(attr))
    for place in WRITABLE:
        if os.path.isdir(place):
            mount("tmpfs", place, "tmpfs", 0, "mode=1777")  # as on most machines: `doctor` looks at the options
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
    """What the first process of a pid namespace is there for; the status of ``child``."""
    status = 1
    while True:
        try:
            pid, found = os.wait()
        except ChildProcessError:
            return status
        if pid == child:
            return os.waitstatus_to_exitcode(found)


def first_process(work: Callable[[], int], keep: str) -> int:
    """Mounts, then the work in a child: it must not be pid 1, whose signals without a handler are
    lost."""
    build(keep)
    worker = os.fork()
    if worker == 0:
        os.setsid()
        os._exit(work() & 0xFF)
    return reap(worker)


def run(
    work: Callable[[], int],
    cgroup: Cgroup,
    timeout: float,
    keep: str = "",
    stuck: Callable[[], bool] = lambda: False,
) -> int | None:
    """Run a function in a sandbox, in a child; its status, or None when it was ended: after
    ``timeout`` seconds, or because ``stuck``, which is asked every second, says so."""
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
        except BaseException as error:  # the child must not go on as its parent
            os.write(2, f"sandbox: {error}\n".encode())
        os._exit(status & 0xFF)
    return wait(pid, timeout, stuck)


def wait(pid: int, timeout: float, stuck: Callable[[], bool] = lambda: False) -> int | None:
    """The status of a child, None after it was killed for taking too long."""
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
