"""Which processes belong to a container: those of its cgroup, or what can be said without one."""

from __future__ import annotations

import posix

from pyrunc import fs
from pyrunc.errors import SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.state import Container

TIMEOUT = 10.0  # seconds for the walk through a tree of cgroups


def pids(container: Container) -> tuple[list[int], str]:
    """The processes in our pid namespace, and where they were looked for ("" for the cgroup).  Raises SysError."""
    if not container.this_boot():
        return [], ""
    directory = container.cgroup_directory()
    if directory:
        from pyrunc.cgroup import tree

        try:
            return tree.members(directory, TIMEOUT), ""
        except OSError as error:
            raise SysError(directory, "read", error.errno or 0, context="cgroup.procs") from error
    if not container.init_alive():
        return [], ""
    init = container.data["pid"]
    own, theirs = _namespace("self"), _namespace(init)
    if own != theirs:
        return [pid for pid in _processes() if _namespace(pid) == theirs], "its pid namespace"
    return _descendants(init), "the descendants of its first process"


def _processes() -> list[int]:
    return sorted(int(name) for name in posix.listdir("/proc") if name.isdigit())


def _namespace(pid: int | str) -> str:
    try:
        return posix.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _descendants(first: int) -> list[int]:
    """A process and all below it; one whose parent has ended is not found."""
    below: dict[int, list[int]] = {}
    for pid in _processes():
        try:
            parent = int(fs.read_file(f"/proc/{pid}/stat", 65536).rpartition(b")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        below.setdefault(parent, []).append(pid)
    out = [first]
    for pid in out:
        out += below.get(pid, ())
    return out
