"""A sandbox for containers: nothing in it can damage the machine, and everything that a runtime
leaves behind is visible.

`enter` moves the process into new mount, pid, network, ipc, uts and cgroup namespaces with a root
filesystem of its own: a tmpfs with read-only binds of the system's programs, a private /dev, and a
private subtree of the unified hierarchy at /sys/fs/cgroup. Its mounts are shared, as under systemd.
The caller becomes pid 1 there, so the kernel kills everything in it when the caller exits.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from integration.differential import model
from integration.harness import REPO, SLOW
from integration.machine import cgroup2_mount, libc

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_NOATIME = 1, 2, 4, 8, 32, 1024
MS_BIND, MS_REC, MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 4096, 16384, 1 << 17, 1 << 18, 1 << 19, 1 << 20
_NEW_MOUNT, _NEW_PID, _NEW_OTHERS = 0x00020000, 0x20000000, 0x40000000 | 0x08000000 | 0x04000000  # net ipc uts
_NEW_CGROUP = 0x02000000
_CLONE = {
    "network": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
    "user": 0x10000000,
    "pid": 0x20000000,
}

# Paths of the system that containers and tests need, read-only.
_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc")
_NODES = (
    ("null", 1, 3, 0o666),
    ("zero", 1, 5, 0o666),
    ("full", 1, 7, 0o666),
    ("random", 1, 8, 0o666),
    ("urandom", 1, 9, 0o666),
    ("tty", 5, 0, 0o666),
    ("ptmx", 5, 2, 0o666),
    ("kmsg", 1, 11, 0o644),
    ("fuse", 10, 229, 0o660),
    ("net/tun", 10, 200, 0o666),
)


def mount(source: str, target: str | Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    text = [value.encode() if value else None for value in (source, str(target), kind)]
    libc("mount", text[0], text[1], text[2], flags, data.encode() if data else None)


def umount(target: str | Path) -> None:
    """Detach a mount and everything mounted below it."""
    libc("umount2", str(target).encode(), 2)


def cgroup_of(name: str) -> Path:
    """The cgroup of a sandbox."""
    hierarchy = cgroup2_mount()
    assert hierarchy, "cgroup v2 is not mounted"
    return hierarchy / f"pyrunc-differential-{name}"


def enter(name: str, more: Sequence[Path]) -> int:
    """Enter the sandbox. Return 0 in the process inside, and in the caller the exit status of that
    process.

    `more` are directories that are needed inside, read-only, at their own paths.
    """
    own = cgroup_of(name)
    own.mkdir()
    try:
        (own / "cgroup.procs").write_text(str(os.getpid()))
        libc("unshare", _NEW_CGROUP)
        (own / "host").mkdir()
        (own / "host/cgroup.procs").write_text(str(os.getpid()))
        libc("unshare", _NEW_PID)
        child = os.fork()
        if child == 0:
            libc("unshare", _NEW_MOUNT | _NEW_OTHERS)
            libc("prctl", 1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
            _new_root(own, more)
            _sources()
            return 0
        _, status = os.waitpid(child, 0)
    finally:
        if os.getpid() != 1:
            (own.parent / "cgroup.procs").write_text(str(os.getpid()))
            leave(own)
    return status or -1


def leave(own: Path) -> None:
    """Kill what runs in a sandbox's cgroup, and remove the cgroup and the root directory."""
    with suppress(OSError):
        os.rmdir(_root_of(own))
    end = time.monotonic() + 5 * SLOW
    while own.exists() and time.monotonic() < end:
        remove_cgroups(own)
        time.sleep(0.01)


def remove_cgroups(group: Path) -> None:
    """Remove a cgroup, its descendants and their processes."""
    kill = group / "cgroup.kill"
    with suppress(OSError):
        kill.write_text("1")
    for at, _, _ in sorted(os.walk(group), key=lambda entry: -len(entry[0])):
        with suppress(OSError):
            os.rmdir(at)


def _root_of(own: Path) -> Path:
    """A directory of the machine on which the sandbox's root is mounted; it is empty for everyone
    else."""
    return Path(f"/tmp/.{own.name}")


def _new_root(own: Path, more: Sequence[Path]) -> None:
    mount("", "/", flags=MS_REC | MS_PRIVATE)
    root = _root_of(own)
    root.mkdir()
    mount("tmpfs", root, "tmpfs", data="mode=755,size=512m")
    for name in _SYSTEM:
        if os.path.islink(f"/{name}"):
            (root / name).symlink_to(os.readlink(f"/{name}"))
        elif os.path.isdir(f"/{name}"):
            _show(Path("/") / name, root)
    for path in (REPO, *more):
        _show(path, root)
    for name, mode in (("tmp", 0o1777), ("run", 0o755), ("root", 0o700), ("var", 0o755), ("old", 0o700)):
        (root / name).mkdir(exist_ok=True)  # the repository may already be mounted there
        (root / name).chmod(mode)
    for name in ("proc", "sys", "dev"):
        (root / name).mkdir()
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", root / "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount_cgroups(root)
    _devices(root / "dev")
    os.chdir(root)
    libc("pivot_root", b".", b"old")
    os.chdir("/")
    umount("/old")
    os.rmdir("/old")
    mount("", "/", flags=MS_REC | MS_SHARED)
    os.umask(0o022)


def mount_cgroups(root: Path = Path("/")) -> None:
    """Mount the sandbox's subtree of the unified hierarchy where runtimes look for it."""
    mount("cgroup2", root / "sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _show(path: Path, root: Path) -> None:
    target = root / str(path).lstrip("/")
    target.mkdir(parents=True, exist_ok=True)
    mount(str(path), target, flags=MS_BIND | MS_REC)
    mount("", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def _devices(dev: Path) -> None:
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=755")
    for name, major, minor, mode in _NODES:
        node = dev / name
        node.parent.mkdir(exist_ok=True)
        os.mknod(node, stat.S_IFCHR | mode, os.makedev(major, minor))
        node.chmod(mode)
    for name in ("pts", "shm", "mqueue"):
        (dev / name).mkdir()
    mount("devpts", dev / "pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    mount("tmpfs", dev / "shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    mount("mqueue", dev / "mqueue", "mqueue")
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (dev / name).symlink_to(target)


def _sources() -> None:
    """Create the sources of the cases' bind mounts: every type of file, and mounts with all flags
    and propagation types."""
    src = Path(model.SOURCES)
    for path in (model.WORK, model.LOG, model.NAMESPACES, model.SOURCES):
        Path(path).mkdir()
    Path(model.LOG).chmod(0o777)
    for name, mode in (
        ("dir", 0o755),
        ("private", 0o700),
        ("private/dir", 0o755),
        ("owned", 0o750),
        ("sticky", 0o1777),
    ):
        (src / name).mkdir()
        (src / name).chmod(mode)
        (src / name / "text").write_text(f"{name}\n")
    os.chown(src / "owned", 1000, 1000)
    (src / "dir/sub").mkdir()
    (src / "file").write_text("file\n")
    (src / "secret").write_text("secret\n")
    (src / "secret").chmod(0o600)
    shutil.copy("/usr/bin/true", src / "program")
    os.mkfifo(src / "fifo")
    os.mknod(src / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(src / "block", stat.S_IFBLK | 0o600, os.makedev(7, 9))
    (src / "link").symlink_to("dir")
    (src / "link-file").symlink_to(f"{model.SOURCES}/file")
    for name, flags in (
        ("flags", MS_NOSUID | MS_NODEV | MS_NOEXEC),
        ("ro", MS_RDONLY | MS_NOSUID),
        ("noatime", MS_NOATIME),
        ("unbindable", 0),
        ("slave", 0),
        ("alone", 0),
        ("tree", 0),
    ):
        (src / name).mkdir()
        mount("tmpfs", src / name, "tmpfs", flags & ~MS_RDONLY, "mode=755")
        (src / name / "text").write_text(f"{name}\n")
        if flags & MS_RDONLY:
            mount("", src / name, flags=MS_REMOUNT | MS_BIND | flags)
    for name in ("one", "two"):
        (src / "tree" / name).mkdir()
        mount("tmpfs", src / "tree" / name, "tmpfs", MS_NOSUID if name == "one" else 0, "mode=755")
    mount("", src / "tree/two", flags=MS_REMOUNT | MS_BIND | MS_RDONLY)
    mount("", src / "unbindable", flags=MS_UNBINDABLE)
    mount("", src / "slave", flags=MS_SLAVE)
    mount("", src / "alone", flags=MS_PRIVATE)
    for name in ("lower", "upper", "workdir"):
        (src / name).mkdir()
    (src / "lower/text").write_text("lower\n")


READ_ONLY = ("ro", "tree/two")  # mounts in the sources


@contextmanager
def writable_sources() -> Iterator[None]:
    """Make read-only sources writable, so that files created through other mounts can be
    removed."""
    for name in READ_ONLY:
        mount("", f"{model.SOURCES}/{name}", flags=MS_REMOUNT | MS_BIND)
    try:
        yield
    finally:
        for name in READ_ONLY:
            flags = MS_NOSUID if name == "ro" else 0
            mount("", f"{model.SOURCES}/{name}", flags=MS_REMOUNT | MS_BIND | MS_RDONLY | flags)


holders: list[int] = []  # first processes of pid namespaces, which cannot be joined without one


def new_namespace(kind: str) -> str:
    """Create a namespace and keep it with a bind mount below /w/ns. Return the target of its
    /proc/PID/ns/KIND link."""
    file = {"network": "net"}.get(kind, kind)
    link = {"pid": "pid_for_children"}.get(kind, file)
    target = Path(model.NAMESPACES) / file
    if not os.path.ismount(model.NAMESPACES):
        mount("tmpfs", model.NAMESPACES, "tmpfs")
        mount("", model.NAMESPACES, flags=MS_PRIVATE)  # nsfs files can be bound only where nothing propagates
    target.touch()
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            libc("unshare", _CLONE[kind])
            holder = os.fork() if kind == "pid" else -1
            if holder == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)
                while True:
                    signal.pause()
            os.write(ready[1], holder.to_bytes(4, "big", signed=True))
            os.read(go[0], 1)
        finally:
            os._exit(0)
    try:
        holder = int.from_bytes(os.read(ready[0], 4), "big", signed=True)
        if holder > 0:
            holders.append(holder)
        if kind == "user":
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{child}/{name}").write_text(model.USER_MAP)
        mount(f"/proc/{child}/ns/{link}", target, flags=MS_BIND)
    finally:
        os.write(go[1], b"x")
        os.waitpid(child, 0)
        for fd in (*ready, *go):
            os.close(fd)
    return f"{file}:[{os.stat(target).st_ino}]"


def drop_namespaces() -> None:
    """Release the namespaces created by `new_namespace`."""
    while holders:
        holder = holders.pop()
        os.kill(holder, signal.SIGKILL)
        end = time.monotonic() + 5
        while os.waitpid(-1, os.WNOHANG)[0] != holder:  # it exits after all others in its namespace, which are ours
            assert time.monotonic() < end, "a pid namespace does not end"
            time.sleep(0.002)
    if os.path.ismount(model.NAMESPACES):
        umount(model.NAMESPACES)
