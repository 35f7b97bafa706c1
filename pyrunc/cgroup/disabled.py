"""The driver for ``--cgroup-manager disabled``: the container stays in the caller's cgroup, and no
limit can be set."""

from __future__ import annotations

from pyrunc.errors import ConfigError, Problem, PyruncError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cgroup import ScopeRequest
    from pyrunc.spec.types import DeviceRule, Resources


class Disabled:
    """Creates nothing, and refuses limits, because a missing limit is worse than an error."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def missing(self, path: str) -> list[str]:
        return []

    def create(
        self, path: str, resources: Resources, ptr: str = "/linux/resources", request: ScopeRequest | None = None
    ) -> int:
        self.apply(path, resources, ptr)
        return -1

    def apply(self, path: str, resources: Resources, ptr: str = "/linux/resources") -> None:
        if not any(value for key, value in resources.items() if key != "devices"):
            return
        from pyrunc.cgroup.resources import limiting

        asked = limiting(resources)
        if asked:
            hint = "cgroups are disabled (--cgroup-manager disabled, or no cgroup2 mount)"
            raise ConfigError([Problem(f"{ptr}/{key}", "nothing", "a limit", hint) for key in asked])

    def values(self, path: str, resources: Resources, ptr: str = "/linux/resources") -> list[tuple[str, str]]:
        self.apply(path, resources, ptr)
        return []

    def restore(self, path: str, values: list[tuple[str, str]]) -> list[str]:
        return []

    def devices(self, cgroup_fd: int, rules: list[DeviceRule] | None, ptr: str = "", *, replace: bool = False) -> None:
        if replace:
            raise PyruncError(f"{ptr}: the container has no cgroup to attach device rules to")

    def pids(self, path: str) -> list[int]:
        return []

    def kill(self, path: str, signal: int, *, stays: bool = False) -> None:
        return None

    def freeze(self, path: str) -> None:
        raise PyruncError("the container has no cgroup to freeze (--cgroup-manager disabled)")

    def thaw(self, path: str) -> None:
        raise PyruncError("the container has no cgroup to thaw (--cgroup-manager disabled)")

    def frozen(self, path: str) -> bool:
        return False

    def oom_kills(self, path: str) -> int:
        return 0

    def remove(self, path: str, timeout: float = 0.0, made: list[str] | None = None) -> None:
        return None
