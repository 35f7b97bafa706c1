"""cgroup v2: the path of a container's cgroup, and the drivers that create, limit, watch and remove
it.

A driver takes paths inside the hierarchy (``/a/b``), never directories of the filesystem; only the
driver knows where the hierarchy is mounted. `cgroupfs` creates directories, `systemd` requests a
scope from systemd, and ``disabled`` is for hosts where cgroups cannot be used.
"""

from __future__ import annotations

from pyrunc import fs
from pyrunc.errors import ConfigError, Problem, PyruncError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from pyrunc.host import HostFacts
    from pyrunc.spec.types import DeviceRule, Resources

    class Driver(Protocol):
        """The interface of every driver. Paths are inside the hierarchy; pointers name the field a
        limit came from."""

        made: list[str]  # the cgroups that `create` made, outermost first

        def missing(self, path: str) -> list[str]:
            """Ancestors (and the path itself) that do not exist yet, outermost first."""

        def create(self, path: str, resources: Resources, ptr: str = ..., request: ScopeRequest | None = ...) -> int:
            """Create the cgroup; returns a descriptor of its directory. systemd needs to know whose
            it is."""

        def apply(self, path: str, resources: Resources, ptr: str = ...) -> None:
            """Write the limits; in a running container only the given ones change (memory and cpu
            are given whole)."""

        def values(self, path: str, resources: Resources, ptr: str = ...) -> list[tuple[str, str]]:
            """Read the current values of everything these limits change. Raises as `apply` does if
            one is missing."""

        def restore(self, path: str, values: list[tuple[str, str]]) -> list[str]:
            """Restore what `values` returned as far as possible; returns what could not be
            restored."""

        def devices(
            self, cgroup_fd: int, rules: list[DeviceRule] | None, ptr: str = ..., *, replace: bool = ...
        ) -> None:
            """Attach the device program; ``replace``: instead of the attached ones."""

        def pids(self, path: str) -> list[int]:
            """All processes in the cgroup and below, in our pid namespace."""

        def kill(self, path: str, signal: int, *, stays: bool = ...) -> None:
            """Signal all of them; ``stays``: the cgroup will not be removed."""

        def freeze(self, path: str) -> None:
            """Freeze all of them, and wait until they are frozen."""

        def thaw(self, path: str) -> None:
            """Thaw all of them."""

        def frozen(self, path: str) -> bool:
            """Whether the cgroup is frozen."""

        def oom_kills(self, path: str) -> int:
            """The number of processes that the OOM killer killed."""

        def remove(self, path: str, timeout: float = ..., made: list[str] | None = ...) -> None:
            """Remove the cgroup, its descendants, and those of its ancestors that are in
            ``made``."""


class ScopeRequest:
    """What systemd needs for a scope besides its limits: the container, and the scope's first
    process."""

    __slots__ = ("annotations", "id", "pid")

    def __init__(self, id: str, pid: int, annotations: dict[str, str]) -> None:
        self.id, self.pid, self.annotations = id, pid, annotations


MANAGERS = ("cgroupfs", "systemd", "disabled")


def path_for(
    config_path: str, id: str, facts: HostFacts, manager: str, annotations: dict[str, str] | None = None
) -> str:
    """The container's cgroup, absolute inside the hierarchy; "" if it gets none.

    An absolute ``linux.cgroupsPath`` starts at the top of the mount. A relative one, or the
    container's id without one, starts at the parent of our own cgroup, as in runc on v2. Ours has
    processes, so it cannot offer controllers (cgroups(7), "no internal processes"). Raises
    ConfigError for a path that climbs out.
    """
    if manager == "disabled" or not facts.cgroup2_mount:
        return ""
    if manager == "systemd":
        from pyrunc.cgroup import systemd

        return systemd.path_for(config_path, id, facts, annotations or {})
    if ".." in config_path.split("/"):
        raise ConfigError([Problem("/linux/cgroupsPath", 'a path without ".."', show(config_path))])
    if "\0" in config_path or "\n" in config_path:  # cgroup_mkdir() refuses a newline with EINVAL
        expected = "a path without NUL bytes and newlines"
        raise ConfigError([Problem("/linux/cgroupsPath", expected, show(config_path))])
    if config_path.count(":") == 2 and "/" not in config_path:
        hint = "slice:prefix:name is the systemd driver's form"
        raise ConfigError([Problem("/linux/cgroupsPath", "a path", show(config_path), hint)])
    base = top = facts.cgroup2_root.rstrip("/")
    if not config_path.startswith("/"):
        parent = facts.own_cgroup.rpartition("/")[0]
        if parent.startswith(top + "/"):
            base = parent
    path = base + fs.normpath(f"/{config_path or id}")
    if path == base + "/":
        raise ConfigError([Problem("/linux/cgroupsPath", "a cgroup of its own for the container", show(config_path))])
    return path


def open_driver(manager: str, facts: HostFacts) -> Driver:
    """The driver with this name. Raises PyruncError if it is unknown or unsupported."""
    if manager == "cgroupfs":
        if not facts.cgroup2_mount:
            raise PyruncError("no cgroup v2 hierarchy is mounted here (in this mount namespace)")
        from pyrunc.cgroup.cgroupfs import Cgroupfs

        return Cgroupfs(facts)
    if manager == "disabled":
        from pyrunc.cgroup.disabled import Disabled

        return Disabled()
    if manager == "systemd":
        from pyrunc.cgroup.systemd import Systemd

        return Systemd(facts)
    raise PyruncError(f"--cgroup-manager {show(manager)}: expected one of {', '.join(MANAGERS)}")
