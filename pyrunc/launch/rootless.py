"""Restrictions of rootless containers and their messages; imported only when they apply."""

from __future__ import annotations

from pyrunc.cgroup.resources import limiting
from pyrunc.errors import PyruncError, SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.log import Log
    from pyrunc.spec.types import Config

DELEGATE = (
    "no cgroup is delegated to this user: start pyrunc from one that is (systemd-run --user --scope -p Delegate=yes"
    " pyrunc ...)"
)


def check_no_cgroup(config: Config, error: SysError, log: Log) -> None:
    """Check that a container can run without a cgroup, after creating one failed with ``error``.

    As in runc, it can if its configuration has no cgroupsPath and sets no limit.  Device rules are
    ignored: they cannot be enforced without CAP_BPF, and need not be without CAP_MKNOD.  Raises
    PyruncError.
    """
    linux = config.get("linux", {})
    resources = linux.get("resources", {})
    asked = [f"/linux/resources/{key}" for key in limiting(resources)]
    if linux.get("cgroupsPath"):
        asked.insert(0, "/linux/cgroupsPath")
    if asked:
        raise PyruncError(f"{error}; {DELEGATE}, or remove {', '.join(asked)}") from error
    text = f"{error}; the container runs without a cgroup of its own"
    if any(entry["type"] == "pid" for entry in linux.get("namespaces") or ()):
        log.info(text)  # expected without a delegated cgroup
    else:
        log.warning(f"{text}, and without a pid namespace: kill and delete reach its first process only")
