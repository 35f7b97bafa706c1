"""What a user without the host's root has to do without, and how it is said.  Imported only when that is met."""

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
    """Whether a container can be without a cgroup of its own, now that none could be made (``error``).

    It can when its configuration names none and sets no limit; runc's rule.  Device rules do not count: without
    CAP_BPF they cannot be enforced, and without CAP_MKNOD there is nothing to enforce.  Raises PyruncError.
    """
    linux = config.get("linux", {})
    resources = linux.get("resources", {})
    asked = [f"/linux/resources/{key}" for key in limiting(resources)]
    if linux.get("cgroupsPath"):
        asked.insert(0, "/linux/cgroupsPath")
    if asked:
        raise PyruncError(f"{error}; {DELEGATE}, or leave {', '.join(asked)} away") from error
    text = f"{error}; the container runs without a cgroup of its own"
    if any(entry["type"] == "pid" for entry in linux.get("namespaces") or ()):
        log.info(text)  # what a user without a delegated cgroup expects
    else:
        log.warning(f"{text}, and without a pid namespace: kill and delete reach its first process only")
