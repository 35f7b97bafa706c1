"""The command lines of checkpoint and restore, as options of CRIU's requests."""

from __future__ import annotations

import posix
from fcntl import F_GETFL, fcntl

from pyrunc import fs, host
from pyrunc.checkpoint import messages
from pyrunc.errors import PyruncError, UsageError, show
from pyrunc.spec.names import CLONE_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.checkpoint.protobuf import Fields
    from pyrunc.command import Values

# The options have the names of CRIU's fields, with dashes.
_SWITCHES = (
    "tcp-established", "tcp-skip-in-flight", "tcp-close", "ext-unix-sk", "shell-job", "file-locks", "link-remap",
    "auto-dedup", "lazy-pages", "leave-running",
)  # fmt: skip
_LOG_LEVEL = 4
CONFIG = "/etc/criu/pyrunc.conf"
RUNC_CONFIG = "/etc/criu/runc.conf"


def refuse_rootless() -> None:
    """Raises PyruncError unless we are root of the initial user namespace, which CRIU requires."""
    if posix.geteuid() != 0 or not host.initial_userns():
        raise PyruncError("checkpoint and restore need root in the initial user namespace")


def common(values: Values, annotations: dict[str, str]) -> Fields:
    """The options that a dump and a restore share.  Raises UsageError."""
    out: Fields = {name.replace("-", "_"): True for name in _SWITCHES if values.get(name)}
    mode = values.get("manage-cgroups-mode", "ignore")
    if mode not in messages.CGROUP_MODES:
        raise UsageError(f"--manage-cgroups-mode {show(mode)}: expected {', '.join(messages.CGROUP_MODES)}")
    for name in values.get("empty-ns", ()):
        if name != "network":
            raise UsageError(f"--empty-ns {show(name)}: expected network")
    lock = values.get("network-lock", "")
    if lock:
        if lock not in messages.NETWORK_LOCKS:
            raise UsageError(f"--network-lock {show(lock)}: expected {', '.join(messages.NETWORK_LOCKS)}")
        out["network_lock"] = messages.NETWORK_LOCKS[lock]
    return out | {
        "log_level": _LOG_LEVEL,
        "notify_scripts": True,
        "orphan_pts_master": True,
        # We create the cgroup, its limits and its device program. In any other mode CRIU 4.2 and
        # earlier mount the hierarchy again, which removes nsdelegate and memory_recursiveprot from
        # the host's mount (criu#3029).
        "manage_cgroups": True,
        "manage_cgroups_mode": messages.CGROUP_MODES[mode],
        "empty_ns": CLONE_FLAGS["network"],  # network devices belong to an engine or to /linux/netDevices
        "config_file": config_file(annotations),
    }


def config_file(annotations: dict[str, str]) -> str | None:
    """The file from org.criu.config whose settings override ours; "" for none."""
    if "org.criu.config" in annotations:
        return annotations["org.criu.config"] or None
    return CONFIG if fs.exists(CONFIG) else RUNC_CONFIG


def page_server(text: str) -> Fields:
    """ADDRESS:PORT.  Raises UsageError."""
    address, _, port = text.rpartition(":")
    address = address.removeprefix("[").removesuffix("]") if address.startswith("[") else address
    if not address or not (port.isascii() and port.isdigit()) or not 0 < int(port[:6]) < 65536:
        raise UsageError(f"--page-server {show(text)}: expected ADDRESS:PORT")
    return {"address": address, "port": int(port)}


def status_fd(number: int) -> int:
    """--status-fd: an open, writable descriptor. Raises UsageError."""
    try:
        mode = fcntl(number, F_GETFL) & posix.O_ACCMODE
    except OSError:
        raise UsageError(f"--status-fd {number}: not open") from None
    if mode == posix.O_RDONLY:
        raise UsageError(f"--status-fd {number}: not writable")
    return number
