"""Walk a cgroup and its descendants by descriptors.

The owner of a delegated cgroup can nest others deeper than PATH_MAX or Python's stack allow, so
neither paths nor recursion are used; one descriptor is open at a time.
"""

from __future__ import annotations

import posix
import time
from errno import ENODEV, ENOENT, EOPNOTSUPP, ETIMEDOUT
from posix import O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_RDONLY

from pyrunc import fs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC


def walk(
    directory: str,
    enter: Callable[[int], object] | None,
    leave: Callable[[int, str], object] | None,
    deadline: float,
) -> None:
    """Call ``enter(fd)`` for the directory and each descendant, ``leave(parent fd, name)`` for the
    descendants, deepest first.

    A directory that disappears meanwhile is skipped. Raises OSError: ENOENT if the directory is
    missing, ETIMEDOUT when ``deadline`` (of time.monotonic) passes: a container could create
    cgroups faster than we walk them.
    """
    here = posix.open(directory, _FLAGS)
    try:
        if enter is not None:
            enter(here)
        names: list[str] = []
        todo = [children(here)]
        while todo:
            if time.monotonic() > deadline:
                raise OSError(ETIMEDOUT, "too many cgroups", directory)
            if todo[-1]:
                name = todo[-1].pop()
                try:
                    below = posix.open(name, _FLAGS, dir_fd=here)
                except FileNotFoundError:
                    continue
                posix.close(here)
                here = below
                names.append(name)
                if enter is not None:
                    enter(here)
                todo.append(children(here))
            else:
                todo.pop()
                if names:
                    above = posix.open("..", _FLAGS, dir_fd=here)
                    posix.close(here)
                    here = above
                    name = names.pop()
                    if leave is not None:
                        leave(here, name)
    finally:
        posix.close(here)


def children(directory: int) -> list[str]:
    """The names of the child cgroups; [] if the cgroup was removed."""
    try:
        with posix.scandir(directory) as found:
            return [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def members(directory: str, timeout: float) -> list[int]:
    """The processes of a cgroup and its descendants, in our pid namespace; [] if it is gone. Raises
    OSError."""
    out: list[int] = []
    try:
        walk(directory, lambda fd: out.extend(processes(fd)), None, time.monotonic() + timeout)
    except FileNotFoundError:
        pass
    return list(dict.fromkeys(out))  # a process that moves during the walk is seen twice


def processes(directory: str | int) -> list[int]:
    """The processes of one cgroup in our pid namespace; those outside it (shown as 0) are omitted.

    A threaded cgroup lists only its threads. [] if the cgroup is gone.
    """
    name = "" if isinstance(directory, int) else directory + "/"
    dir_fd = directory if isinstance(directory, int) else None
    for file in ("cgroup.procs", "cgroup.threads"):
        try:
            words = fs.read_file(name + file, dir_fd=dir_fd).split()
            return [int(word) for word in words if word != b"0"]
        except OSError as error:
            if error.errno in (ENOENT, ENODEV):
                return []
            if error.errno != EOPNOTSUPP:
                raise
    return []
