"""A root filesystem under construction, accessed by descriptors of its directories, with links
resolved inside it.

No other process works on the directory (its parent has mode 0700), but its content comes from an
image, and a link may lead anywhere. So no path of more than one component is ever passed to the
kernel, and a component that is a link is read and followed here, below the root.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from errno import ELOOP, ENOENT, ENOTDIR, EXDEV

from pyrunc import fs
from pyrunc.fs import salted
from pyrunc.image.errors import ImageError

MAX_LINKS = 40  # path_resolution(7)
_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Directory:
    """A directory in the tree. ``made`` holds the names in it that the current layer created or
    replaced."""

    __slots__ = ("children", "made", "mtime", "name", "parent")

    def __init__(self, name: str, parent: Directory | None) -> None:
        self.name, self.parent = name, parent
        # Keyed by salted names, because names come from an image (docs/adr/0014-json-reader.md).
        self.children: dict[str, Directory] = {}  # opened directories
        self.made: set[str] = set()
        self.mtime: tuple[int, int] | None = None  # (atime, mtime) in ns, set when the layer is complete

    def path(self) -> str:
        """Relative to the root, for messages."""
        parts = []
        at: Directory | None = self
        while at is not None and at.parent is not None:
            parts.append(at.name)
            at = at.parent
        return "/".join(reversed(parts)) or "."

    def depth(self) -> int:
        """The number of parent directories."""
        count, at = 0, self.parent
        while at is not None:
            count, at = count + 1, at.parent
        return count


class Tree:
    """Walks the tree. Raises OSError for the kernel's errors and ImageError for impossible
    paths."""

    def __init__(self, fd: int, max_depth: int) -> None:
        self.root = Directory("", None)
        self.root_fd = fd
        self.device = os.fstat(fd).st_dev
        self.max_depth = max_depth
        self.max_open = 2 * max_depth + 64  # two chains down to the deepest directory stay open at once
        self.fds: OrderedDict[Directory, int] = OrderedDict()

    def close(self) -> None:
        """Close all directories but the root."""
        while self.fds:
            fs.close(self.fds.popitem()[1])

    def fd(self, directory: Directory) -> int:
        """A descriptor of a directory, valid until the next call that opens one."""
        if directory.parent is None:
            return self.root_fd
        found = self.fds.get(directory)
        if found is not None:
            self.fds.move_to_end(directory)
            return found
        found = os.open(directory.name, _DIR, dir_fd=self.fd(directory.parent))
        self.fds[directory] = found
        if len(self.fds) > self.max_open:
            fs.close(self.fds.popitem(last=False)[1])
        return found

    def forget(self, parent: Directory, name: str) -> None:
        """Close everything open in a directory that is about to be removed."""
        gone = parent.children.pop(salted(name), None)
        pending = [gone] if gone is not None else []
        while pending:
            at = pending.pop()
            pending += at.children.values()
            fd = self.fds.pop(at, None)
            if fd is not None:
                fs.close(fd)

    # -- resolving ---------------------------------------------------------------------------------

    def lookup(self, parts: list[str], *, make: bool = True) -> Directory:
        """The directory at a path, with links followed inside the root.

        ``make``: create missing parts (mode 0755) and replace parts that are not directories;
        otherwise these are ENOENT or ENOTDIR.
        """
        at = self.root
        pending = list(reversed(parts))
        links = 0
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                at = at.parent or at
                continue
            child = at.children.get(salted(name))
            if child is not None:
                at = child
                continue
            target = self._step(at, name, make)
            if target is not None:
                links += 1
                if links > MAX_LINKS:
                    raise OSError(ELOOP, "too many symbolic links")
                if target.startswith("/"):
                    at = self.root
                pending += reversed(target.split("/"))
                continue
            child = Directory(name, at)
            if child.depth() > self.max_depth:
                raise ImageError(f"more than {self.max_depth} nested directories (--limit depth=...)")
            at.children[salted(name)] = child
            at = child
        return at

    def _step(self, at: Directory, name: str, make: bool) -> str | None:
        """The target of a link; None for a directory, which is created if necessary."""
        fd = self.fd(at)
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            if not make:
                raise
        else:
            if stat.S_ISLNK(found.st_mode):
                return os.readlink(name, dir_fd=fd)
            if stat.S_ISDIR(found.st_mode):
                if found.st_dev != self.device:
                    raise OSError(EXDEV, "a mount point")
                return None
            if not make:
                raise OSError(ENOTDIR, "not a directory")
            os.unlink(name, dir_fd=fd)
        self.mkdir(at, name)
        return None

    def mkdir(self, at: Directory, name: str) -> None:
        """Create a directory that no entry of the layer describes (yet)."""
        fd = self.fd(at)
        self.touch(at)
        os.mkdir(name, 0o755, dir_fd=fd)
        os.chmod(name, 0o755, dir_fd=fd)  # whatever the umask  # noqa: S103  # nosec B103
        self.mark(at, name)

    def child(self, at: Directory, name: str) -> Directory | None:
        """The directory of this name, not through a link; None for anything else."""
        found = at.children.get(salted(name))
        if found is None and stat.S_ISDIR(os.stat(name, dir_fd=self.fd(at), follow_symlinks=False).st_mode):
            found = at.children[salted(name)] = Directory(name, at)
        return found

    # -- changing ----------------------------------------------------------------------------------

    def touch(self, directory: Directory) -> None:
        """Remember the times of a directory before its content changes."""
        if directory.mtime is None:
            found = os.stat(self.fd(directory))
            directory.mtime = (found.st_atime_ns, found.st_mtime_ns)

    def remove(self, at: Directory, name: str) -> bool:
        """Remove a file or a whole directory; False if it is missing."""
        fd = self.fd(at)
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if error.errno == ENOENT:
                return False
            raise
        self.touch(at)
        if stat.S_ISDIR(found.st_mode):
            self.forget(at, name)
            fs.remove_tree(name, fd)
        else:
            os.unlink(name, dir_fd=fd)
        at.made.discard(salted(name))
        return True

    def clear_lower(self, at: Directory) -> None:
        """Apply an opaque whiteout: remove lower layers' entries of a directory, and keep this
        layer's."""
        pending = [at]
        while pending:
            directory = pending.pop()
            for name in os.listdir(self.fd(directory)):
                if salted(name) not in directory.made:
                    self.remove(directory, name)
                    continue
                child = self.child(directory, name)
                if child is not None:
                    pending.append(child)

    def mark(self, at: Directory, name: str) -> None:
        """Record that the layer has an entry here: the entry and its parents no longer belong to
        lower layers alone."""
        at.made.add(salted(name))
        while at.parent is not None and salted(at.name) not in at.parent.made:
            at.parent.made.add(salted(at.name))
            at = at.parent

    def end_layer(self) -> None:
        """Set the times of changed directories, innermost first, and forget which layer owns
        what."""
        pending, found = [self.root], list[tuple[Directory, tuple[int, int]]]()
        while pending:
            directory = pending.pop()
            pending += directory.children.values()
            directory.made.clear()
            if directory.mtime is not None:
                found.append((directory, directory.mtime))
                directory.mtime = None
        for directory, times in reversed(found):
            os.utime(self.fd(directory), ns=times)
