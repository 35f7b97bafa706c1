"""The state root: where it is, and who else could write to it."""

from __future__ import annotations

import posix
from posix import O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_RDONLY

from pyrunc import fs, host
from pyrunc.errors import PyruncError, SysError, show

DIR_FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC


def root_dir(option: str) -> str:
    """The state root: ``--root``, else /run/pyrunc for root, else $XDG_RUNTIME_DIR/pyrunc. Raises
    PyruncError.

    As in runc, root of a user namespace counts as an ordinary user unless $USER is root.
    """
    if option:
        root = fs.abspath(option)
        if root == "/":
            raise PyruncError('--root "/": the root directory itself cannot hold state')
        return root
    # conmon sets it to an empty string for root: empty means unset (docs/callers.md).
    runtime_dir = fs.getenv("XDG_RUNTIME_DIR")
    if posix.geteuid() == 0 and not (runtime_dir and fs.getenv("USER") != "root" and not host.initial_userns()):
        return "/run/pyrunc"
    if not runtime_dir:
        raise PyruncError("XDG_RUNTIME_DIR is not set: choose a state directory with --root DIR")
    return fs.abspath(runtime_dir) + "/pyrunc"


class Root:
    """The state root, which has a directory for each container.  It is opened when first needed."""

    __slots__ = ("fd", "root")

    def __init__(self, root: str) -> None:
        self.root = root
        self.fd = -1

    def open_root(self, make: bool = False) -> bool:
        """Open the root; False if it does not exist. Raises PyruncError if other users could tamper
        with it."""
        if self.fd >= 0:
            return True
        try:
            fd = posix.open(self.root, DIR_FLAGS)
        except FileNotFoundError:
            if not make:
                return False
            fd = self._make()
        except OSError as error:
            hint = "the state root must be a directory and no symbolic link"
            raise SysError("--root", "open", error.errno or 0, value=self.root, hint=hint) from error
        try:
            found = posix.fstat(fd)
        except BaseException:
            fs.close(fd)
            raise
        # A user who can write here decides which pid `kill` signals and what `delete` removes
        # (CVE-2015-1331).
        if found.st_uid != posix.geteuid() or found.st_mode & 0o022:
            posix.close(fd)
            raise PyruncError(
                f"--root {show(self.root)}: must belong to uid {posix.geteuid()} and be writable by nobody else"
                f" (owner {found.st_uid}, mode {found.st_mode & 0o7777:04o})"
            )
        self.fd = fd
        return True

    def _make(self) -> int:
        """Create the root with mode 0700, and its parents.

        It is sticky below XDG_RUNTIME_DIR, where old files are pruned otherwise (XDG Base Directory
        Specification).
        """
        try:
            at = self.root.find("/", 1)
            while at > 0:
                if not fs.exists(self.root[:at]):
                    _mkdir(self.root[:at], 0o755)
                at = self.root.find("/", at + 1)
            _mkdir(self.root, 0o700)
            fd = posix.open(self.root, DIR_FLAGS)
            try:
                posix.fchmod(fd, 0o1700 if posix.geteuid() else 0o700)  # whatever the umask
            except BaseException:
                fs.close(fd)
                raise
            return fd
        except OSError as error:
            raise SysError("--root", "mkdir", error.errno or 0, value=self.root) from error

    def close(self) -> None:
        """Close the root.  It is opened again when needed."""
        if self.fd >= 0:
            fs.close(self.fd)
            self.fd = -1

    def exists(self) -> bool:
        """Whether the root exists.  Raises PyruncError if other users could tamper with it."""
        return self.open_root()


def _mkdir(path: str, mode: int) -> None:
    try:
        posix.mkdir(path, mode)
    except FileExistsError:
        pass
