"""Spawn init from its sealed memfd, with the descriptors it inherits."""

from __future__ import annotations

import posix

from pyrunc import fs, interpreter
from pyrunc.errors import SysError, UsageError
from pyrunc.native import files, processes, sockets


def spawn_init(stdio: list[int], preserved: int, joins: bool) -> tuple[int, int, int]:
    """Start init with the handshake socket and ``preserved`` descriptors from 3 on.

    ``stdio``: its descriptors 0, 1 and 2; if empty, it inherits ours. ``joins``: its plan joins a
    container. Returns our end of the socket, init's end, which the caller has to close, and the
    pid. Raises SysError.
    """
    image = interpreter.init_image()
    memfd = ours = theirs = -1
    try:
        memfd = files.memfd_sealed(b"pyrunc-init", image, executable=True)
        ours, theirs = sockets.socketpair(4 + preserved)
        # Another program that uses our API may have threads, and their memory is not ours to share.
        pid = processes.spawn_init(memfd, theirs, preserved, stdio, joins=joins, ahead=interpreter.FROZEN)
        return ours, theirs, pid
    except BaseException as error:
        if ours >= 0:
            fs.close(ours)
            fs.close(theirs)
        if isinstance(error, OSError):
            raise of_init(error) from error
        raise
    finally:
        fs.close(memfd)


def spawn_error() -> SysError | None:
    """Why the spawned process did not become init, if that is known."""
    try:
        processes.spawn_error()
    except OSError as error:
        return of_init(error)
    return None


def connect(option: str, path: str) -> int:
    """Connect to the socket of an option.  Raises SysError."""
    try:
        return sockets.connect(fs.encode(path))
    except OSError as error:
        raise SysError(option, "connect", error.errno or 0, value=path) from error


def of_init(error: OSError) -> SysError:
    """The SysError of a system call that starts init or communicates with it."""
    from pyrunc import hints

    call, number = str(error.strerror), error.errno or 0
    return SysError("init", call, number, hint=hints.find(call, number))


def is_null(fd: int) -> bool:
    """Whether a descriptor is /dev/null, which is safe to pass on."""
    found = posix.fstat(fd)
    return found.st_rdev == 0x103 and found.st_mode & 0o170000 == 0o020000


def listen_fds() -> int:
    """LISTEN_FDS of socket activation if LISTEN_PID is our pid (sd_listen_fds(3)), else 0."""
    count, pid = fs.getenv("LISTEN_FDS"), fs.getenv("LISTEN_PID")
    if count.isdigit() and pid == str(posix.getpid()):
        return int(count)
    return 0


def check_preserved(count: int) -> None:
    """Check that all descriptors to pass on are open, before we open any.  Raises UsageError."""
    for fd in range(3, 3 + count):
        try:
            posix.fstat(fd)
        except OSError:
            raise UsageError(f"--preserve-fds: descriptor {fd} is not open") from None
