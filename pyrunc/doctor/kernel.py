"""The kernel: its version, and its features as the probes find them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from errno import E2BIG, EINVAL, ENOSYS, EOPNOTSUPP

from pyrunc.doctor.findings import Area
from pyrunc.doctor.machine import Machine, system_error
from pyrunc.errors import errno_name
from pyrunc.native import bpf, mounts
from pyrunc.native.namespaces import user_namespace
from pyrunc.spec.names import CLONE_FLAGS

FLOOR = (5, 12)  # docs/adr/0005-kernel-floor.md
ARCHITECTURES = ("x86_64", "aarch64")
ABSENT = (E2BIG, EINVAL, ENOSYS, EOPNOTSUPP)  # errnos of a kernel that lacks a feature
_SECCOMP = "a seccomp filter of the caller denies it; start pyrunc outside the container it is in"
_ALLOW_ALL = bytes.fromhex("b7000000010000009500000000000000")  # r0 = 1; exit


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature that a probe of the shim tests. Without a required one, no container starts."""

    check: str
    probe: str
    flags: int
    since: str
    means: str  # the effect of its absence
    required: bool


FEATURES = (
    Feature("mount-api", "MOUNT_API", 0, "5.12", "the mounts of a container cannot be made", True),
    Feature("openat2", "OPENAT2", 0, "5.6", "paths in a container are resolved more slowly", False),
    Feature("clone-into-cgroup", "CLONE_INTO_CGROUP", 0, "5.7", "no process can be started in a cgroup", True),
    Feature("seccomp-notify", "SECCOMP_NOTIFY", 0, "5.0", "profiles with SCMP_ACT_NOTIFY are refused", False),
    Feature(
        "time-namespace", "NAMESPACES", CLONE_FLAGS["time"], "5.6", "configs with a time namespace are refused", False
    ),
    Feature("landlock", "LANDLOCK", 0, "5.13", "programs in containers cannot restrict themselves with it", False),
)


def check(machine: Machine) -> list[Area]:
    """Version, machine and features."""
    area = Area("kernel")
    version(machine, area)
    for feature in FEATURES:
        try_feature(machine, feature, area)
    namespaces(machine, area)
    idmapped_mounts(machine, area, "/")
    device_programs(machine, area)
    filesystems(machine, area)
    return [area]


def version(machine: Machine, area: Area) -> None:
    """The minimum version (ADR 5)."""
    release = machine.text("/proc/sys/kernel/osrelease", 256).strip() or ".".join(map(str, machine.facts.kernel))
    seen = f"Linux {release} on {machine.facts.arch}"
    if machine.facts.kernel < FLOOR:
        area.problem("version", seen, f"pyrunc needs Linux {FLOOR[0]}.{FLOOR[1]} or later", "boot a newer kernel")
    elif machine.facts.arch not in ARCHITECTURES:
        area.problem("version", seen, f"pyrunc supports {' and '.join(ARCHITECTURES)}")
    else:
        area.ok("version", seen)


def try_feature(machine: Machine, feature: Feature, area: Area) -> None:
    """One row of `FEATURES`."""
    result, inside = machine.works(feature.probe, feature.flags)
    if result >= 0:
        seen = f"version {result}" if feature.probe == "LANDLOCK" else "works"
        area.ok(feature.check, f"{seen}, in a user namespace" if inside else seen)
        return
    report = area.problem if feature.required else area.note
    report(feature.check, system_error(result), f"{feature.means}{why(machine, result, feature.since)}")


def why(machine: Machine, result: int, since: str) -> str:
    """Why a probe failed, as the end of a sentence."""
    name = errno_name(-result)
    numbers = tuple(int(part) for part in since.split("."))
    if -result in ABSENT:
        if machine.facts.kernel < numbers:
            return f"; it needs Linux {since}"
        if name == "ENOSYS" and machine.status("Seccomp") == "2":
            return f"; {_SECCOMP}"
        return "; this kernel was built or booted without it"
    if name == "EPERM":
        return f"; {_SECCOMP}" if machine.status("Seccomp") == "2" else "; the caller lacks the privileges for it"
    if name == "ENOSPC":
        return "; a limit in /proc/sys/user is reached"
    return ""


def namespaces(machine: Machine, area: Area) -> None:
    """Probe each type of namespace; the user namespace has a separate subject."""
    missing = []
    for kind, flag in CLONE_FLAGS.items():
        if kind not in ("user", "time"):
            result, _ = machine.works("NAMESPACES", flag)
            if result < 0:
                missing.append((kind, result))
    if not missing:
        area.ok("namespaces", "cgroup, ipc, mount, network, pid and uts work")
    for kind, result in missing:
        means = f"configs with a {kind} namespace cannot be run{why(machine, result, '4.6')}"
        limit = f"/proc/sys/user/max_{ {'mount': 'mnt', 'network': 'net'}.get(kind, kind) }_namespaces"
        mend = f"sysctl -w user.{limit.rpartition('/')[2]}=10000" if errno_name(-result) == "ENOSPC" else ""
        area.problem("namespaces", f"{kind}: {system_error(result)}", means, mend)


def idmapped_mounts(machine: Machine, area: Area, path: str, check: str = "idmapped-mounts") -> None:
    """Whether the filesystem at a path supports idmapped mounts, tried on a detached clone."""
    result = map_ids(path)
    where = f"{path} ({filesystem_at(machine, path)})"
    if result >= 0:
        area.ok(check, f"work on {where}")
        return
    name = errno_name(-result)
    if name == "EPERM":
        means = "the caller may not create idmapped mounts: mounts with uidMappings are refused"
    elif name == "EINVAL":
        means = f"this kernel cannot map the ids of this filesystem: mounts with uidMappings from {path} are refused"
    else:
        means = f"mounts with uidMappings are refused{why(machine, result, '5.12')}"
    area.note(check, f"{where}: {name}", means)


def map_ids(path: str) -> int:
    """0, or ``-errno`` of the failed call."""
    opened: list[int] = []
    try:
        opened.append(mounts.open_tree(os.fsencode(path), False))
        opened.append(user_namespace(b"0 1 1\n", b"0 1 1\n"))
        return mounts.map_ids(opened[0], False, opened[1])
    except OSError as error:
        return -(error.errno or 0)
    finally:
        for fd in opened:
            os.close(fd)


def filesystem_at(machine: Machine, path: str) -> str:
    """The filesystem type of the mount with the longest matching path, or "?"."""
    best, kind = -1, "?"
    for fields in machine.mounts():
        place = fields[4].rstrip("/")
        if (path == place or path.startswith(place + "/")) and len(place) >= best:
            best, kind = len(place), fields[fields.index("-") + 1]
    return kind


def device_programs(machine: Machine, area: Area) -> None:
    """The eBPF program for a container's device rules: load it and drop it, without attaching
    it."""
    result = load_device_program()
    if result >= 0:
        area.ok("device-programs", "eBPF programs of cgroups can be loaded")
    elif not machine.privileged:
        means = "containers get no device rules; users cannot create device nodes in any case"
        area.note("device-programs", system_error(result), means)
    else:
        means = f"no container can be created with a cgroup of its own{why(machine, result, '4.15')}"
        mend = "start pyrunc with CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN; the kernel needs CONFIG_CGROUP_BPF"
        area.problem("device-programs", system_error(result), means, mend)


def load_device_program() -> int:
    """0, or ``-errno``."""
    try:
        os.close(bpf.load_device(_ALLOW_ALL))
    except OSError as error:
        return -(error.errno or 0)
    return 0


def filesystems(machine: Machine, area: Area) -> None:
    """Filesystems that default configs and images use. Modules that are not loaded yet are not
    listed."""
    known = {line.split("\t")[-1] for line in machine.text("/proc/filesystems").split("\n")}
    missing = [name for name in ("proc", "sysfs", "tmpfs", "devpts", "mqueue") if name not in known]
    for name in missing:
        area.problem("filesystems", f"{name} is not supported by this kernel", "default configs mount it")
    if "overlay" not in known:
        means = "`run --image` needs it; the kernel loads the module when root first mounts an overlay"
        area.note("filesystems", "overlay is not loaded", means, "modprobe overlay")
    elif not missing:
        area.ok("filesystems", "proc, sysfs, tmpfs, devpts, mqueue and overlay are known")
