"""The files of a checkpoint: the directory of images, the work directory with CRIU's log, and
descriptors.json."""

from __future__ import annotations

import posix
from errno import EEXIST, ELOOP, ENOENT
from posix import O_CLOEXEC, O_CREAT, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_TRUNC, O_WRONLY

from pyrunc import fs, jsontext
from pyrunc.checkpoint import protobuf
from pyrunc.checkpoint.criu import HARMLESS
from pyrunc.checkpoint.messages import INVENTORY
from pyrunc.errors import PyruncError, SysError, UsageError, brief, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.command import Values
DEFAULT = "checkpoint"  # in the working directory, as in runc
DESCRIPTORS = "descriptors.json"
_INVENTORY = "inventory.img"
_DIRECTORY = O_RDONLY | O_DIRECTORY | O_CLOEXEC
_MOST = 64 << 10  # bytes of descriptors.json or inventory.img
_EMPTY = (
    b"FAILED.", b"failed with -1", b": Unable to open fd=", b" exited, status=", b"): `- ", b"cgroupd: recv req error",
)  # fmt: skip
_OUTSIDE = "Can't lookup mount="
_HARMLESS = HARMLESS.encode()
_TAIL = 1 << 20  # bytes of a log that are searched for the last error
_TYPE, _REGULAR = 0o170000, 0o100000  # of st_mode (inode(7))


class Images:
    """The open directories that --image-path, --work-path and --parent-path name."""

    __slots__ = ("fd", "log", "parent", "path", "work", "work_fd")

    def __init__(self, values: Values, log: str) -> None:
        """``log`` is the name of CRIU's log file."""
        self.path = fs.abspath(values.get("image-path") or DEFAULT)
        self.work = fs.abspath(values["work-path"]) if values.get("work-path") else self.path
        self.parent: str = values.get("parent-path", "")
        self.log = f"{self.work}/{log}"
        self.fd = self.work_fd = -1

    def open(self, *, make: bool) -> None:
        """Open both directories; ``make``: create those that are missing. Raises UsageError,
        SysError, PyruncError."""
        self.fd = _open(self.path, "--image-path", make)
        self.work_fd = self.fd if self.work == self.path else _open(self.work, "--work-path", True)
        self.check_parent()
        # CRIU opens its files by name. A symbolic link, or a file with another name, would be
        # overwritten at its target.
        for name in (self.log.rpartition("/")[2], "stats-dump", "stats-restore"):
            _refuse_link(self.work_fd, self.work, name)

    def check_parent(self) -> None:
        """Check --parent-path: it is relative to the images and must exist. Raises UsageError."""
        if not self.parent:
            return
        if self.parent.startswith("/"):
            raise UsageError("--parent-path must be relative to --image-path")
        try:
            fs.close(posix.open(self.parent, _DIRECTORY, dir_fd=self.fd))
        except OSError as error:
            raise SysError(
                "invalid --parent-path", "open", error.errno or 0, value=f"{self.path}/{self.parent}"
            ) from error

    def close(self) -> None:
        """Close both; idempotent."""
        for fd in {self.fd, self.work_fd} - {-1}:
            fs.close(fd)
        self.fd = self.work_fd = -1

    # -- descriptors.json --------------------------------------------------------------------------

    def write_descriptors(self, targets: list[str]) -> None:
        """Record what stdin, stdout and stderr were at `create`. Raises SysError."""
        try:
            fs.ignore(posix.unlink, f"{self.path}/{DESCRIPTORS}")  # removes a link, not its target
            flags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC
            fd = posix.open(DESCRIPTORS, flags, 0o600, dir_fd=self.fd)
            try:
                fs.write_all(fd, jsontext.dumps(targets).encode("ascii"))
            finally:
                posix.close(fd)
        except OSError as error:
            raise SysError(f"{self.path}/{DESCRIPTORS}", "write", error.errno or 0) from error

    def read_descriptors(self) -> list[str]:
        """Read what `write_descriptors` wrote; the file may come from another user. Raises
        PyruncError."""
        for name in (_INVENTORY, DESCRIPTORS):
            try:
                posix.stat(name, dir_fd=self.fd)
            except OSError as error:
                raise PyruncError(f"--image-path {show(self.path)}: not a checkpoint: {name} is missing") from error
        where = f"{self.path}/{DESCRIPTORS}"
        try:
            found = jsontext.loads(self.read(DESCRIPTORS))
        except ValueError as error:
            raise PyruncError(f"{where}: {error}") from error
        if type(found) is not list or len(found) != 3 or any(type(item) is not str for item in found):
            raise PyruncError(f"{where}: expected an array of three strings, found {show(found)}")
        return found

    def security_module(self) -> int:
        """The module whose labels the images have: 0 for none, or one of `messages`. Raises
        PyruncError."""
        data = self.read(_INVENTORY)
        try:  # a magic number, the size of the message, and the message
            size = int.from_bytes(data[4:8], "little")
            found: int = protobuf.decode(INVENTORY, data[8 : 8 + size]).get("lsmtype", 0)
        except ValueError as error:
            raise PyruncError(f"{self.path}/{_INVENTORY}: {error}") from error
        return found

    def read(self, name: str) -> bytes:
        """Read a small file of the directory, which may come from another user. Raises
        PyruncError."""
        where = f"{self.path}/{name}"
        try:
            fd = posix.open(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, dir_fd=self.fd)
            try:
                if posix.fstat(fd).st_mode & _TYPE != _REGULAR:
                    raise PyruncError(f"{where}: not a regular file")
                return fs.read_fd(fd, _MOST)
            finally:
                fs.close(fd)
        except OSError as error:
            raise SysError(where, "read", error.errno or 0) from error

    # -- CRIU's log --------------------------------------------------------------------------------

    def failure(self, verb: str, reason: str, *, logged: bool = True) -> PyruncError:
        """The error for a failed CRIU: the last error in its log if it can have logged one, and the
        path of the log."""
        last = (logged and self.last_error()) or reason.removeprefix("criu: ") or "failed"
        hint = "; no space is left there" if logged and any(map(is_full, {self.fd, self.work_fd} - {-1})) else ""
        if last.startswith(_OUTSIDE):
            hint = "; a file that was opened outside of the container cannot be dumped: use pipes or /dev/null"
        return PyruncError(f"criu {verb}: {brief(last, 400)}; see {self.log}{hint}")

    def last_error(self) -> str:
        """The last line of the log that reports an error, without its timestamp; "" if there is
        none."""
        try:
            fd = posix.open(self.log, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
        except OSError:
            return ""
        try:
            size = posix.fstat(fd).st_size
            data = posix.pread(fd, _TAIL, max(size - _TAIL, 0))
        except OSError:
            return ""
        finally:
            fs.close(fd)
        # The last line may be incomplete if the disk is full.
        found = data.split(b"\n")
        lines = [line for line in found[:-1] or found if b"Error (" in line and _HARMLESS not in line]
        # The very last ones only say that it failed, not why; and what other processes notice then.
        telling = [line for line in lines if not any(text in line for text in _EMPTY)] or lines
        if not telling:
            return ""
        return telling[-1].decode("utf-8", "replace").partition("): ")[2].strip()


def is_full(fd: int) -> bool:
    """Whether nothing can be written to the filesystem of a directory."""
    try:
        found = posix.fstatvfs(fd)
    except OSError:
        return False
    return not found.f_bavail or (found.f_files > 0 and not found.f_favail)  # some have no limit of files


def _open(path: str, option: str, make: bool) -> int:
    """Open the directory that an option names. Raises SysError."""
    try:
        if make:
            _make(path)
        return posix.open(path, _DIRECTORY)
    except OSError as error:
        raise SysError(option, "open", error.errno or 0, value=path) from error


def _make(path: str) -> None:
    """Create a directory with mode 0700, and its ancestors. Raises OSError."""
    try:
        posix.mkdir(path, 0o700)
    except OSError as error:
        if error.errno == ENOENT and path != "/":
            _make(path.rpartition("/")[0] or "/")
            posix.mkdir(path, 0o700)
        elif error.errno != EEXIST:
            raise


def _refuse_link(fd: int, directory: str, name: str) -> None:
    """Raises SysError if a file that CRIU will write is not a regular file with a single name."""
    try:
        found = posix.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError as error:
        if error.errno == ENOENT:
            return
        raise SysError(f"{directory}/{name}", "stat", error.errno or 0) from error
    if found.st_mode & _TYPE != _REGULAR or found.st_nlink != 1:
        number = ELOOP if found.st_mode & _TYPE == 0o120000 else EEXIST
        raise SysError(f"{directory}/{name}", "", number, detail="expected a regular file with a single link")
