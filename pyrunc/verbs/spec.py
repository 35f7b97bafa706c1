"""`spec`: write a config.json to start from."""

from __future__ import annotations

import posix

from pyrunc import SPEC_VERSION, command, fs, state
from pyrunc.errors import PyruncError, SysError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = "spec [OPTIONS]"
SUMMARY = "write a config.json with sensible defaults; an existing one is left alone"
ARGS = (0, 0)
FLAGS: tuple[command.Flag, ...] = (
    ("bundle", "b", "DIR", "str", "directory to write config.json to (default: the working directory)"),
    ("rootless", "", "", "bool", "for use without root: a user namespace in which root is you"),
)

SHM = "/dev/shm"  # a mount point of the container  # noqa: S108  # nosec B108
_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
# What the kernel shows of the host and a container has no business with: the list that the engines use (moby
# oci/defaults.go), with the later additions /proc/interrupts and powercap (CVE-2020-8694).
MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def mount(destination: str, type: str, source: str, *options: str) -> dict[str, Any]:
    """One entry of mounts."""
    return {"destination": destination, "type": type, "source": source, "options": list(options)}


def default() -> dict[str, Any]:
    """The configuration: a shell on a read-only root filesystem with namespaces, masks and few capabilities."""
    hidden = ("nosuid", "noexec", "nodev")
    pty = ("newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
    return {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: list(_CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "pyrunc",
        "mounts": [
            mount("/proc", "proc", "proc", *hidden),
            mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", *pty),
            mount(SHM, "tmpfs", "shm", *hidden, "mode=1777", "size=65536k"),
            mount("/dev/mqueue", "mqueue", "mqueue", *hidden),
            mount("/sys", "sysfs", "sysfs", *hidden, "ro"),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", *hidden, "relatime", "ro"),
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": MASKED,
            "readonlyPaths": READONLY,
        },
    }


def rootless(config: dict[str, Any]) -> dict[str, Any]:
    """Changed for a user other than root, as runc does it.

    The network is the host's, because nobody else would set one up, and with it the sysfs; devpts gets no group that is
    not mapped; limits need a delegated cgroup, so there are none.
    """
    linux = config["linux"]
    linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "network"] + [{"type": "user"}]
    for kind, own in (("uid", posix.geteuid()), ("gid", posix.getegid())):
        linux[f"{kind}Mappings"] = [{"containerID": 0, "hostID": own, "size": 1}]
    del linux["resources"]
    for entry in config["mounts"]:
        if entry["destination"] == "/sys":
            entry |= {"type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}
        entry["options"] = [name for name in entry["options"] if not name.startswith(("uid=", "gid="))]
    return config


def main(context: command.Context, values: dict[str, Any], args: list[str]) -> int:
    """Write config.json."""
    config = rootless(default()) if values.get("rootless") else default()
    path = fs.join(values.get("bundle") or ".", "config.json")
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise PyruncError(f"file {show(path)} exists; remove it first") from None
    except OSError as error:
        raise SysError("--bundle", "open", error.errno or 0, value=path) from error
    try:
        fs.write_all(fd, (state.dumps(config, "\t") + "\n").encode("ascii"))
    finally:
        posix.close(fd)
    return 0
