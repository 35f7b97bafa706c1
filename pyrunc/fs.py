"""Small file helpers that need only `posix`.

``import os`` takes 1.2 ms in the embedded interpreter, and hot modules need nothing that it adds
(docs/adr/0006-core-phase.md).
"""

from __future__ import annotations

import posix
from errno import EEXIST, EINTR, EIO, EISDIR, EMFILE, ENFILE, ENOMEM, ENOSPC, ENOTDIR, ENOTEMPTY, EPERM
from posix import (
    O_CLOEXEC,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_NOCTTY,
    O_NOFOLLOW,
    O_NONBLOCK,
    O_RDONLY,
    O_WRONLY,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


WRITER_MS = 10_000  # how long a fifo that we were given may be without a writer
_salt = ""


def salted(text: str) -> str:
    """``text`` as the key of a dict or set whose keys come from outside: see
    docs/adr/0014-json-reader.md.

    The launcher's hash seed is public. With 128 random bits in front, collisions are as hard to
    find as with a random seed.
    """
    global _salt
    if not _salt:
        _salt = posix.urandom(16).hex()
    return _salt + text


def read_file(path: str, limit: int = 16 << 20, dir_fd: int | None = None) -> bytes:
    """The content of a file, at most ``limit`` bytes. Raises OSError: EFBIG if the file is larger,
    ETIMEDOUT for a fifo or terminal that nobody writes to for `WRITER_MS`.
    """
    fd = posix.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, dir_fd=dir_fd)
    try:
        return read_fd(fd, limit)
    finally:
        close(fd)


def read_fd(fd: int, limit: int = 16 << 20) -> bytes:
    """Read ``fd`` to its end, at most ``limit`` bytes.  Raises OSError: EFBIG if there is more."""
    chunks: list[bytes] = []
    left = limit
    while True:
        try:
            chunk = posix.read(fd, 65536 if left > 65536 else left + 1)
        except BlockingIOError:
            _await_writer(fd)
            continue
        if not chunk:
            if not chunks and _is_fifo(fd):
                _await_writer(fd)  # at its end, or not opened for writing yet
                chunks.append(b"")
                continue
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        left -= len(chunk)
        if left < 0:
            from errno import EFBIG

            raise OSError(EFBIG, f"larger than {limit} bytes")
        chunks.append(chunk)


def _is_fifo(fd: int) -> bool:
    return posix.fstat(fd).st_mode & 0o170000 == 0o010000


def _await_writer(fd: int) -> None:
    """Wait until there is something to read or all writers are gone.

    Raises OSError (ETIMEDOUT).
    """
    from select import POLLIN, poll

    poller = poll()
    poller.register(fd, POLLIN)
    if not poller.poll(WRITER_MS):
        from errno import ETIMEDOUT

        raise OSError(ETIMEDOUT, "no process writes to it")


def names(directory: str) -> list[str]:
    """The names in a directory.

    Raises OSError, but not EINTR, which `posix.listdir` raises for a path.
    """
    fd = posix.open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    try:
        return posix.listdir(fd)
    finally:
        close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``, also if the kernel writes less at a time.  Raises OSError."""
    done = posix.write(fd, data)
    while done < len(data):
        done += posix.write(fd, data[done:])


def write_file(path: str, data: bytes, dir_fd: int | None = None) -> None:
    """Write to an existing file with one write(2), as cgroup and /proc files require.

    Raises OSError.
    """
    fd = posix.open(path, O_WRONLY | O_CLOEXEC, dir_fd=dir_fd)
    try:
        write_all(fd, data)
    finally:
        posix.close(fd)


def write_new(path: str, data: bytes) -> None:
    """Create a file in a private directory, not atomically.  Raises OSError."""
    fd = posix.open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
    try:
        write_all(fd, data)
    finally:
        posix.close(fd)


def replace_file(name: str, data: bytes, mode: int = 0o600, dir_fd: int | None = None) -> None:
    """Create or replace ``name`` atomically: write ``.NAME.tmp`` beside it, then rename. Raises
    OSError.

    A temporary file that a killed process left behind is replaced; nothing else may use such names.
    """
    head, _, tail = name.rpartition("/")
    temporary = f"{head}/.{tail}.tmp" if head or name.startswith("/") else f".{tail}.tmp"
    flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
    try:
        fd = posix.open(temporary, flags, mode, dir_fd=dir_fd)
    except FileExistsError:
        posix.unlink(temporary, dir_fd=dir_fd)
        fd = posix.open(temporary, flags, mode, dir_fd=dir_fd)
    try:
        try:
            write_all(fd, data)
        finally:
            posix.close(fd)
        posix.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError:
        try:
            posix.unlink(temporary, dir_fd=dir_fd)
        except OSError:
            pass  # the first error is the one to report
        raise


def remove_tree(name: str, dir_fd: int) -> None:
    """Remove a directory tree of any depth without following links.  Raises OSError.

    It keeps one descriptor open, because a container's tree may be deeper than the limit on
    descriptors. On the way up, `..` must be the directory that we came from.
    """
    flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
    above: list[tuple[str, list[str], tuple[int, int]]] = []  # a name, the names left beside it, the directory
    fd = posix.open(name, flags, dir_fd=dir_fd)
    try:
        names = posix.listdir(fd)
        while True:
            while names:
                entry = names.pop()
                if _remove_entry(entry, fd):
                    continue
                here = posix.fstat(fd)
                below = posix.open(entry, flags, dir_fd=fd)
                posix.close(fd)
                above.append((entry, names, (here.st_dev, here.st_ino)))
                fd = below
                names = posix.listdir(fd)
            if not above:
                break
            entry, names, place = above.pop()
            up = posix.open("..", flags, dir_fd=fd)
            posix.close(fd)
            fd = up
            here = posix.fstat(fd)
            if (here.st_dev, here.st_ino) != place:
                raise OSError(EIO, "a directory was moved during its removal")
            posix.rmdir(entry, dir_fd=fd)
    finally:
        posix.close(fd)
    posix.rmdir(name, dir_fd=dir_fd)


def _remove_entry(entry: str, fd: int) -> bool:
    """Remove a file or an empty directory; False if the directory is not empty.  Raises OSError."""
    try:
        posix.unlink(entry, dir_fd=fd)
        return True
    except OSError as error:  # EISDIR on Linux's own filesystems, EPERM on some others (POSIX)
        if error.errno not in (EISDIR, EPERM):
            raise
        refused = error
    try:
        posix.rmdir(entry, dir_fd=fd)
        return True
    except OSError as error:
        if error.errno == ENOTDIR:
            raise refused from None
        if error.errno not in (ENOTEMPTY, EEXIST):
            raise
    return False


def ignore(call: Callable[..., object], *args: object) -> None:
    """Call and ignore an OSError: for clean-up, where the first error is the one to report."""
    try:
        call(*args)
    except OSError:
        pass


def close(fd: int) -> None:
    """Close a descriptor that was not written to, so that a failure has no consequence."""
    ignore(posix.close, fd)


def mount_id(fd: int) -> int:
    """The id of the mount that a descriptor is in (proc_pid_fdinfo(5)), 0 if the kernel does not say.
    Raises OSError."""
    for line in read_file(f"/proc/self/fdinfo/{fd}", 4096).split(b"\n"):
        if line.startswith(b"mnt_id:"):
            return int(line[7:])
    return 0


def exists(path: str) -> bool:
    """Whether ``path`` exists; follows links.

    Raises OSError if that is unknown (`is_inconclusive`).
    """
    try:
        posix.stat(path)
    except OSError as error:
        if is_inconclusive(error):
            raise
        return False
    return True


def is_inconclusive(error: OSError) -> bool:
    """Whether an error says nothing about the object: memory, descriptors or a disk failed instead.

    It must never be taken for "does not exist" or "has ended": a `delete` would leave something
    behind.
    """
    return error.errno in (ENOMEM, EIO, EINTR, EMFILE, ENFILE, ENOSPC)


def normpath(path: str) -> str:
    """``path`` without ``//``, ``.`` and resolvable ``..``, lexically; an absolute path stays below
    ``/``."""
    absolute = path.startswith("/")
    out: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            out.append(part)
        elif out and out[-1] != "..":
            out.pop()
        elif not absolute:
            out.append("..")
    text = "/".join(out)
    return "/" + text if absolute else text or "."


def join(base: str, path: str) -> str:
    """``path`` if it is absolute, otherwise ``base``/``path``."""
    if path.startswith("/"):
        return path
    return f"{base}{path}" if base.endswith("/") else f"{base}/{path}"


def abspath(path: str) -> str:
    """``path`` made absolute against the working directory, lexically clean.

    Raises OSError (cwd deleted).
    """
    return normpath(path if path.startswith("/") else join(posix.getcwd(), path))


def encode(path: str) -> bytes:
    """A path as the kernel takes it: reverses the surrogateescape decoding of argv."""
    return path.encode("utf-8", "surrogateescape")


def getenv(name: str) -> str:
    """An environment variable, ``""`` if unset: engines pass variables that are set but empty
    (docs/callers.md)."""
    return posix.environ.get(name.encode(), b"").decode("utf-8", "surrogateescape")
