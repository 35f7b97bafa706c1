"""The default configuration, which `spec` writes and which completes images: restrictive, but
enough for a shell."""

from __future__ import annotations

from pyrunc import SPEC_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    from pyrunc.spec.types import Config, IdMapping, Mount, NamespaceType

    class Mappings(TypedDict):
        """The mappings of a user namespace."""

        uidMappings: list[IdMapping]
        gidMappings: list[IdMapping]


SHM = "/dev/shm"  # a mount point of the container  # noqa: S108  # nosec B108
_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
# Files of the host that a container must not see: the list of the engines (moby oci/defaults.go)
# with the later additions /proc/interrupts and powercap (CVE-2020-8694).
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
_NAMESPACES: tuple[NamespaceType, ...] = ("pid", "network", "ipc", "uts", "mount", "cgroup")
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def mount(destination: str, type: str, source: str, *options: str) -> Mount:
    """An entry of mounts."""
    return {"destination": destination, "type": type, "source": source, "options": list(options)}


def config() -> Config:
    """The configuration: a shell on a read-only root filesystem with namespaces, masks and few
    capabilities."""
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
            "capabilities": {
                "bounding": list(_CAPABILITIES),
                "effective": list(_CAPABILITIES),
                "permitted": list(_CAPABILITIES),
            },
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
            "namespaces": [{"type": kind} for kind in _NAMESPACES],
            "maskedPaths": MASKED,
            "readonlyPaths": READONLY,
        },
    }


def own_ids(uid: int, gid: int) -> Mappings:
    """The mappings that a user may write without newuidmap: root inside is the user outside."""
    return {
        "uidMappings": [{"containerID": 0, "hostID": uid, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": gid, "size": 1}],
    }


def rootless(config: Config, mappings: Mappings) -> Config:
    """Adapt the configuration for a user other than root, as in runc.

    It shares the host's network, because no other program would set one up, and with it the sysfs.
    devpts gets no unmapped group. There are no limits, because they need a delegated cgroup.
    """
    linux = config["linux"]
    linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "network"] + [{"type": "user"}]
    linux["uidMappings"], linux["gidMappings"] = mappings["uidMappings"], mappings["gidMappings"]
    del linux["resources"]
    for entry in config["mounts"]:
        if entry["destination"] == "/sys":
            entry |= {"type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}
        entry["options"] = [name for name in entry["options"] if not name.startswith(("uid=", "gid="))]
    return config
