"""Resolve paths in a root filesystem with hostile content, by descriptors, one component at a time.

openat2(2) with RESOLVE_IN_ROOT does the same, but the resolved path of a destination is needed here
as well, because CRIU identifies a mount by it.
"""

from __future__ import annotations

import posix
from errno import EEXIST, ELOOP, ENOENT, ENOTDIR
from posix import O_CLOEXEC, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_PATH, O_WRONLY

from pyrunc import fs

_MAX_LINKS = 40  # path_resolution(7)
_MAX_PARTS = 4096
_TYPE, _LINK, _DIR = 0o170000, 0o120000, 0o040000  # of st_mode (inode(7))


class Walk:
    """A walk from the root; `fd` (O_PATH) is the current object, `parts` its path below the
    root."""

    __slots__ = ("fds", "links", "make", "parts", "todo")

    def __init__(self, root: int, make: str = "") -> None:
        """``make``: "dir" or "file", the kind of object to create if the path is missing, with its
        parents."""
        self.fds = [posix.dup(root)]  # of each directory on the path, so that ".." cannot leave the root
        self.parts: list[str] = []
        self.links, self.make = 0, make
        self.todo: list[str]

    @property
    def path(self) -> str:
        """The current path, absolute inside the root."""
        return "/" + "/".join(self.parts)

    @property
    def fd(self) -> int:
        """The current object's descriptor."""
        return self.fds[-1]

    def go(self, path: str) -> Walk:
        """Resolve ``path``. Raises OSError; the caller closes the walk in any case."""
        self.todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
        while self.todo:
            part = self.todo.pop()
            if part == "..":
                if len(self.fds) > 1:
                    fs.close(self.fds.pop())
                    self.parts.pop()
                continue
            fd = self.enter(part)
            found = posix.fstat(fd).st_mode & _TYPE
            if found == _LINK:
                self.follow(fd)
                continue
            self.fds.append(fd)
            self.parts.append(part)
            if self.todo and found != _DIR:
                raise NotADirectoryError(ENOTDIR, "")
        return self

    def enter(self, part: str) -> int:
        """Enter one component, creating it if allowed. Raises OSError."""
        flags = O_PATH | O_NOFOLLOW | O_CLOEXEC
        try:
            return posix.open(part, flags, dir_fd=self.fd)
        except FileNotFoundError:
            if not self.make:
                raise
        try:
            if self.todo or self.make == "dir":
                posix.mkdir(part, 0o755, dir_fd=self.fd)
            else:
                fs.close(posix.open(part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o644, dir_fd=self.fd))
        except OSError as error:
            if error.errno != EEXIST:
                raise
        return posix.open(part, flags, dir_fd=self.fd)

    def follow(self, fd: int) -> None:
        """Prepend the target of a link to the rest of the path; takes ownership of ``fd``."""
        try:
            target = posix.readlink("", dir_fd=fd)
        finally:
            fs.close(fd)
        self.links += 1
        if self.links > _MAX_LINKS or len(self.todo) > _MAX_PARTS:
            raise OSError(ELOOP, "")
        if target.startswith("/"):
            while len(self.fds) > 1:
                fs.close(self.fds.pop())
            self.parts.clear()
        self.todo += [part for part in target.split("/") if part not in ("", ".")][::-1]

    def close(self) -> None:
        """Close every descriptor; idempotent."""
        while self.fds:
            fs.close(self.fds.pop())

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def resolved(root: int, path: str) -> str:
    """The path below the root to which ``path`` resolves; unchanged if it is missing. Raises
    OSError (ELOOP)."""
    with Walk(root) as walk:
        try:
            return walk.go(path).path
        except FileNotFoundError:
            return path
        except NotADirectoryError:
            return path


def kind(root: int, path: str) -> str:
    """ "dir", "file" (anything else), or "" if it is missing.  Raises OSError."""
    with Walk(root) as walk:
        try:
            walk.go(path)
        except OSError as error:
            if error.errno in (ENOENT, ENOTDIR):
                return ""
            raise
        return "dir" if posix.fstat(walk.fd).st_mode & _TYPE == _DIR else "file"


def open_root(path: str) -> int:
    """Open the root itself. Raises OSError."""
    return posix.open(path, O_PATH | O_DIRECTORY | O_CLOEXEC)
