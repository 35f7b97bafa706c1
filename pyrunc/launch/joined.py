"""The namespaces of a container's first process, opened to join them."""

from __future__ import annotations

import posix
from posix import O_CLOEXEC, O_RDONLY

from pyrunc import fs, procfs
from pyrunc.errors import StateError, SysError
from pyrunc.plan import exec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc import state


def open_namespaces(container: state.Container, fds: dict[str, int], verb: str) -> list[tuple[str, str]]:
    """Open the namespaces of init that differ from ours.  Raises StateError if init has ended.

    Returns (type, path) in the order of setns(2); ``fds`` receives the descriptor of each path.
    The pid is checked before and after: if it was reused in between, the namespaces would belong to
    another process.
    """
    data = container.data
    pid = data["pid"]
    found: list[tuple[str, str]] = []
    try:
        for kind, name in exec.NAMESPACES.items():
            path = f"/proc/{pid}/ns/{name}"
            try:
                ours, theirs = posix.stat(f"/proc/thread-self/ns/{name}"), posix.stat(path)
            except FileNotFoundError:
                if fs.exists(f"/proc/{pid}/ns"):
                    continue  # the kernel lacks this type
                raise
            if ours.st_ino != theirs.st_ino or ours.st_dev != theirs.st_dev:
                fds[path] = posix.open(path, O_RDONLY | O_CLOEXEC)
                found.append((kind, path))
    except (FileNotFoundError, ProcessLookupError):
        raise StateError(f"cannot {verb} in a stopped container") from None
    except PermissionError as error:
        detail = "permission denied: it belongs to another user"
        if container.status() == "created":
            detail = "permission denied: a seccomp filter without noNewPrivileges keeps it closed until `start`"
        raise SysError(path, "open", error.errno or 0, detail=detail) from error
    if not procfs.alive(pid, data.get("starttime")):
        raise StateError(f"cannot {verb} in a stopped container")
    return found
