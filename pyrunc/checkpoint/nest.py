"""The criu of a restore: a fork that joins the container's cgroup and leaves our namespaces before
its execve.

Python has a single thread here, and none of its memory reaches the container.
"""

from __future__ import annotations

import posix
from fcntl import F_DUPFD_CLOEXEC, fcntl

from pyrunc import fs, jsontext
from pyrunc.checkpoint import criu, rootfs
from pyrunc.errors import PyruncError, SysError
from pyrunc.native import mounts, namespaces, signals, sockets
from pyrunc.spec.names import CLONE_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    External = list[dict[str, str]]  # the ext_mnt of a restore
    Look = Callable[[int], External]

_MS_BIND_RECURSIVE, _MS_SLAVE_RECURSIVE = 0x1000 | 0x4000, 0x80000 | 0x4000
_MS_UNBINDABLE, _MS_PRIVATE = 0x20000, 0x40000
_ABOVE = 200
_MOST = 16 << 20
_GET_MS = 1000
_ROOT = "rootfs"
_TMP = "/tmp/"  # noqa: S108  # nosec B108 - only compared and mounted on
_FAILED = 127


class Nest:
    """The forked process, until its execve.

    ``stage`` is an empty directory below ``top``. In the fork's mount namespace it becomes a tmpfs
    that holds the root filesystem and everything that CRIU binds from, and replaces ``top``: root
    of a user namespace cannot enter our state directory, and CRIU wants a root filesystem with
    nothing hidden below it.
    """

    __slots__ = ("cgroup_namespace", "directories", "named", "pid", "release", "report", "rootfs", "stage", "top")

    def __init__(self, rootfs: str, stage: str, top: str, *, cgroup_namespace: bool) -> None:
        self.rootfs, self.stage, self.top, self.cgroup_namespace = rootfs, stage, top, cgroup_namespace
        self.directories: Sequence[tuple[str, int]] = ()
        self.named: Sequence[str] = ()  # other paths that criu opens
        self.pid = 0
        self.release = self.report = -1

    def fork(self, stdio: Sequence[int], extra: Sequence[int], look: Look) -> None:
        """Fork; the child waits for `go`.

        The child calls ``look`` with a descriptor of the mounted root; `go` returns its result.
        criu gets ``stdio``, its socket, ``extra``, and `directories`, pairs of a path and its
        descriptor, opened in its own mount namespace: it cannot mount anything on those of ours.
        Raises PyruncError, OSError.
        """
        path = criu.find()
        self.release, wait = criu.socketpair()
        self.report, told = posix.pipe2(posix.O_CLOEXEC)
        self.pid = posix.fork()
        if not self.pid:
            try:
                fs.close(self.release)
                self.become(path, (wait, told), stdio, extra, look)
            finally:
                posix._exit(_FAILED)
        for fd in (wait, told):
            fs.close(fd)

    def become(
        self, path: str, channels: tuple[int, int], stdio: Sequence[int], extra: Sequence[int], look: Look
    ) -> None:
        """In the child: wait, leave the namespaces, report, execute criu."""
        wait, told = channels
        try:
            if posix.read(wait, 1) != b"g":
                return
            opened = self.leave()
            root = rootfs.open_root(f"{self.stage}/{_ROOT}")
            found = look(root)
            self.mount("none", self.stage, b"", _MS_PRIVATE, b"")
            self.mount(self.stage, self.top, b"", _MS_BIND_RECURSIVE, b"")
            # CRIU creates directories in /tmp, which it does not remove if it is killed.
            used = (path, self.top, *self.named, *(entry["val"] for entry in found))
            if not any(name.startswith(_TMP) for name in used):
                self.mount("none", _TMP, b"tmpfs", 0, b"mode=1777")
            # CRIU takes the numbers of directories for those of the process that created its
            # socket.
            ours, theirs = criu.socketpair()
            sockets.send_descriptor(wait, b"s", ours)
            fs.write_all(told, jsontext.dumps({"found": found}).encode("ascii"))
            moved = [fcntl(fd, F_DUPFD_CLOEXEC, _ABOVE) for fd in (*stdio, theirs, *extra, *opened)]
            told = fcntl(told, F_DUPFD_CLOEXEC, _ABOVE)
            signals.restore()
            for number, fd in enumerate(moved):
                posix.dup2(fd, number)
            # Callers leave descriptors open that we must not pass on; higher ones have
            # close-on-exec.
            for fd in range(len(moved), _ABOVE):
                fs.close(fd)
            posix.execve(path, criu.ARGV, criu.environment())
        except BaseException as error:
            text = str(error) if isinstance(error, PyruncError) else f"criu: {error}"
            fs.ignore(fs.write_all, told, jsontext.dumps({"error": text}).encode("ascii"))

    def leave(self) -> list[int]:
        """Unshare the mount namespace and mount the root filesystem in `stage`; returns
        `directories` as they are here. Raises SysError."""
        try:
            namespaces.unshare(CLONE_FLAGS["mount"] | (CLONE_FLAGS["cgroup"] if self.cgroup_namespace else 0))
        except OSError as error:
            raise SysError("criu", "unshare", error.errno or 0) from error
        self.mount("none", "/", b"", _MS_SLAVE_RECURSIVE, b"")
        opened = [self.reopened(path, fd) for path, fd in self.directories]
        self.mount("none", self.stage, b"tmpfs", 0, b"mode=0755")
        # A recursive bind of a directory above must not copy what is staged: each bind would double
        # the number of mounts.
        self.mount("none", self.stage, b"", _MS_UNBINDABLE, b"")
        place = f"{self.stage}/{_ROOT}"
        posix.mkdir(place, 0o755)
        self.mount(self.rootfs, place, b"", _MS_BIND_RECURSIVE, b"")
        root = rootfs.open_root(place)
        try:
            mounts.set_propagation(root, _MS_PRIVATE)
        except OSError as error:
            raise SysError("/root/path", "mount_setattr", error.errno or 0, value=self.rootfs) from error
        finally:
            fs.close(root)
        return opened

    def reopened(self, path: str, fd: int) -> int:
        """A directory by its path in this mount namespace; it must be the one that is open. Raises
        PyruncError, OSError."""
        again = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        here, there = posix.fstat(again), posix.fstat(fd)
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            fs.close(again)
            raise PyruncError(f"{path}: another directory since it was opened")
        return again

    def mount(self, source: str, target: str, kind: bytes, flags: int, data: bytes) -> None:
        """mount(2).  Raises SysError."""
        try:
            mounts.mount(fs.encode(source), fs.encode(target), kind, flags, data)
        except OSError as error:
            raise SysError(target, "mount", error.errno or 0, value=source) from error

    def final(self, path: str) -> str:
        """The path at which criu finds something that is staged at a path in `stage`."""
        return self.top + path[len(self.stage) :] if path.startswith(self.stage + "/") else path

    @property
    def root(self) -> str:
        """The path at which criu finds the root filesystem."""
        return f"{self.top}/{_ROOT}"

    def go(self) -> tuple[External, int]:
        """Let the child continue to its execve; returns the result of ``look`` and our end of
        criu's socket. Raises PyruncError."""
        try:
            sockets.send(self.release, b"g")
            told = jsontext.loads(fs.read_fd(self.report, _MOST))
            if "error" in told:
                raise PyruncError(told["error"])
            _, sock = sockets.receive_descriptor(self.release, 1, _GET_MS)
        except (OSError, ValueError):
            raise PyruncError("criu was killed before it was executed") from None
        finally:
            self.close()
        found: External = told["found"]
        return found, sock

    def close(self) -> None:
        """Close our ends of its pipes, which ends a child that still waits. Idempotent."""
        for fd in (self.release, self.report):
            if fd >= 0:
                fs.close(fd)
        self.release = self.report = -1
