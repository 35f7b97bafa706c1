"""The processes of a container: those in its cgroup, or an approximation without a cgroup."""

from __future__ import annotations

from pyrunc import fs, procfs
from pyrunc.errors import SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.state import Container

TIMEOUT = 10.0  # seconds for the walk through a tree of cgroups


def pids(container: Container) -> tuple[list[int], str]:
    """The container's pids in our pid namespace, and their source ("" for the cgroup).

    Raises OSError if they cannot be determined now, SysError.
    """
    if not container.this_boot():
        return [], ""
    directory = container.cgroup_directory()
    if directory and (fs.exists(directory) or not container.init_alive()):
        from pyrunc.cgroup import tree

        try:
            return tree.members(directory, TIMEOUT), ""
        except OSError as error:
            raise SysError(directory, "read", error.errno or 0).within("cgroup.procs") from error
    # The container has no cgroup, or a service manager in it has moved its processes and removed
    # it.
    if not container.init_alive():
        return [], ""
    init = container.data["pid"]
    own, theirs = procfs.pid_namespace("self"), procfs.pid_namespace(init)
    if own != theirs:
        return [pid for pid in procfs.processes() if procfs.pid_namespace(pid) == theirs], "its pid namespace"
    return procfs.descendants(init), "the descendants of its first process"
