"""Rules for `linux` except `resources`, and for the host and domain name."""

from __future__ import annotations

from pyrunc.fs import salted
from pyrunc.spec.names import escape, sysctl_path
from pyrunc.spec.report import NOTHING, numbered
from pyrunc.spec.rules_process import absolute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from pyrunc.spec.report import Report
    from pyrunc.spec.types import Config, Linux, Seccomp

HOST_NAME_MAX = 64  # __NEW_UTS_LEN
NAME_MAX = 255
CGROUP_DEPTH = 128  # mkdir of a cgroup is slow; engines use ten levels at most

# The sysctls of an ipc namespace. A sysctl that belongs to no namespace of the container would
# change the host (CVE-2022-0811).
IPC_SYSCTLS = (
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
)

ERRNO_MAX = 4095  # MAX_ERRNO: the kernel lowers larger values to it
TRACE_MAX = 0xFFFF  # SECCOMP_RET_DATA

# A seccomp filter has at most 4096 instructions (BPF_MAXINSNS). Each system call takes at least
# one, and so does each condition that no two rules share. The profiles of engines have about 450
# system calls and 10 conditions.
SECCOMP_CALLS = SECCOMP_CONDITIONS = 4096
SECCOMP_ARCHES = 32
# libseccomp up to 2.6 counts instructions in 16 bits (struct bpf_program), and corrupts its heap if
# there are more. The first two are upper bounds of what it generates for one architecture.
PER_CALL, PER_CONDITION, COUNTABLE = 2, 8, 0xFFFF


def namespaces(config: Config, report: Report) -> None:
    """Each type at most once; sets ``report.namespaces`` for the other rules."""
    for pointer, entry in numbered(config.get("linux", {}).get("namespaces"), "/linux/namespaces"):
        kind = entry.get("type")
        if kind is None:
            continue
        if kind in report.namespaces:
            report.bad(f"{pointer}/type", "each namespace type once", kind)
            continue
        path = entry.get("path", "")
        report.namespaces[kind] = path
        if path:
            absolute(path, f"{pointer}/path", report)


def check(config: Config, report: Report) -> None:
    """All rules of `linux` except namespaces and resources."""
    names(config, report)
    linux = config.get("linux")
    if linux is None:
        return
    sysctls(config, linux, report)
    devices(linux, report)
    hidden_paths(linux, report)
    mount_namespace(linux, report)
    cgroup_path(linux, report)
    if linux.get("personality", {}).get("flags"):
        report.bad("/linux/personality/flags", "no flags (the specification has none)", linux["personality"]["flags"])
    if linux.get("mountLabel") and report.facts is not None and not report.facts.selinux:
        report.warn("/linux/mountLabel", "no label on a host without SELinux", linux["mountLabel"], "ignored")
    if "intelRdt" in linux:
        from pyrunc.spec import rules_rdt

        rules_rdt.check(linux["intelRdt"], report)
    if "netDevices" in linux:
        from pyrunc.spec import rules_netdev

        rules_netdev.check(linux["netDevices"], report)
    if "memoryPolicy" in linux or "timeOffsets" in linux:
        from pyrunc.spec import rules_scheduling

        if "memoryPolicy" in linux:
            rules_scheduling.memory_policy(linux["memoryPolicy"], report)
        rules_scheduling.time_offsets(linux.get("timeOffsets", {}), report)
    if "seccomp" in linux:
        seccomp(linux["seccomp"], "/linux/seccomp", report)


def names(config: Config, report: Report) -> None:
    """hostname and domainname: without a uts namespace they would change the host's."""
    field: Literal["hostname", "domainname"]
    for field in ("hostname", "domainname"):
        value = config.get(field)
        if not value:
            continue
        if "uts" not in report.namespaces:
            report.bad(f"/{field}", "no name without a uts namespace of the container", value)
        if len(value.encode("utf-8")) > HOST_NAME_MAX:
            report.bad(f"/{field}", f"at most {HOST_NAME_MAX} bytes", value)


def sysctls(config: Config, linux: Linux, report: Report) -> None:
    """Only sysctls of the container's namespaces, in either spelling, and each at most once."""
    seen: set[str] = set()
    for key in linux.get("sysctl", {}):
        pointer = f"/linux/sysctl/{escape(key)}"
        path = sysctl_path(key)
        if not path:
            report.bad(pointer, "a sysctl such as net.ipv4.ip_forward or net/ipv4/ip_forward", key)
            continue
        if salted(path) in seen:
            report.bad(pointer, "each sysctl once", key)
        seen.add(salted(path))
        wrong = _sysctl_owner(path, report)
        if path == "kernel/domainname" and config.get("domainname"):
            wrong = "the field domainname or this sysctl, not both"  # the later one would win silently
        if wrong:
            report.bad(pointer, wrong, key)


def _sysctl_owner(path: str, report: Report) -> str:
    """What is required to write ``path``; "" if it may be written."""
    if path == "kernel/hostname":
        return "the field hostname instead of a sysctl"
    if path.startswith("net/"):
        kind = "network"
    elif path in IPC_SYSCTLS or path.startswith("fs/mqueue/"):
        kind = "ipc"
    elif path == "kernel/domainname":
        kind = "uts"
    elif path.startswith("user/"):
        kind = "user"
    else:
        return "a sysctl that belongs to a namespace (net.*, fs.mqueue.*, the ipc ones, kernel.domainname)"
    if kind not in report.namespaces:
        return f"a {kind} namespace of the container for this sysctl"
    if of_the_host(kind, report.namespaces[kind], report):
        return f"no such sysctl in the {kind} namespace of the host"
    return ""


def of_the_host(kind: str, path: str, report: Report) -> bool:
    """Whether a namespace that is joined by path is our own, under any name."""
    if not path:
        return False
    if path.startswith(("/proc/self/ns/", "/proc/thread-self/ns/", "/proc/1/ns/")):
        return True
    return report.facts is not None and report.facts.own_namespace(kind, path)


def devices(linux: Linux, report: Report) -> None:
    """Absolute paths, and numbers except for a fifo."""
    for pointer, device in numbered(linux.get("devices"), "/linux/devices"):
        path = device.get("path")
        absolute(path, f"{pointer}/path", report)
        if path is not None and path.startswith("/") and not path.strip("/"):
            report.bad(f"{pointer}/path", "a path below /", path)
        kind = device.get("type")
        if kind is not None and kind != "p":
            for field in ("major", "minor"):
                if field not in device:
                    report.bad(f"{pointer}/{field}", f"a number for a device of type {kind}")


def hidden_paths(linux: Linux, report: Report) -> None:
    """maskedPaths and readonlyPaths are absolute."""
    field: Literal["maskedPaths", "readonlyPaths"]
    for field in ("maskedPaths", "readonlyPaths"):
        for pointer, path in numbered(linux.get(field), f"/linux/{field}"):
            absolute(path, pointer, report)


def mount_namespace(linux: Linux, report: Report) -> None:
    """What a container without a mount namespace cannot have: it mounts in the caller's."""
    if "mount" in report.namespaces:
        return
    if linux.get("rootfsPropagation"):
        value = linux["rootfsPropagation"]
        report.bad("/linux/rootfsPropagation", "no propagation without a mount namespace of the container", value)
    if "user" in report.namespaces:
        # mount(2) takes CAP_SYS_ADMIN in the user namespace that owns the mount namespace.
        hint = "the root of a user namespace may mount only in a mount namespace of its own"
        report.bad("/linux/namespaces", "a mount namespace beside the user namespace", linux["namespaces"], hint)


def cgroup_path(linux: Linux, report: Report) -> None:
    """No "..", which could lead to another container's cgroup (peers normalize it silently)."""
    path = linux.get("cgroupsPath")
    if not path:
        return
    expected = f"at most {CGROUP_DEPTH} levels with names of at most {NAME_MAX} bytes"
    if len(path) > CGROUP_DEPTH * (NAME_MAX + 1):
        report.bad("/linux/cgroupsPath", expected, f"{path[:20]}...", f"{len(path)} characters")
        return
    names = [name.encode("utf-8") for name in path.split("/") if name]
    if b".." in names:
        report.bad("/linux/cgroupsPath", 'a path without ".."', path)
    if len(names) > CGROUP_DEPTH or any(len(name) > NAME_MAX for name in names):
        report.bad("/linux/cgroupsPath", expected, f"{path[:20]}...", f"{len(names)} levels")


def seccomp(profile: Seccomp, pointer: str, report: Report) -> None:
    """Errors that libseccomp does not report, or reports without saying where."""
    default = profile.get("defaultAction")
    if default == "SCMP_ACT_NOTIFY":
        # init would wait for an agent that does not have the descriptor yet.
        hint = "SCMP_ACT_NOTIFY cannot be used as default action"
        report.bad(f"{pointer}/defaultAction", "an action other than SCMP_ACT_NOTIFY", default, hint)
    if "defaultErrnoRet" in profile:
        _errno(profile["defaultErrnoRet"], default, f"{pointer}/defaultErrnoRet", report)
    if "listenerMetadata" in profile and not profile.get("listenerPath"):
        report.bad(f"{pointer}/listenerMetadata", "nothing here without listenerPath", profile["listenerMetadata"])
    notifies = False
    named = conditions = 0
    for here, rule in numbered(profile.get("syscalls"), f"{pointer}/syscalls"):
        action = rule.get("action")
        calls = rule.get("names")
        notify = action == "SCMP_ACT_NOTIFY"
        if calls:
            named += len(calls)
            conditions += len(calls) * len(rule.get("args", ()))
            if "" in calls or (notify and "write" in calls):
                _names(calls, f"{here}/names", notify, report)
        elif calls is not None:
            report.bad(f"{here}/names", "at least one string", calls)
        if "errnoRet" in rule:
            _errno(rule["errnoRet"], action, f"{here}/errnoRet", report)
        notifies = notifies or notify
    if notifies and not profile.get("listenerPath"):
        value = profile.get("listenerPath", NOTHING)
        report.bad(f"{pointer}/listenerPath", "the path of a socket for SCMP_ACT_NOTIFY", value)
    _size(profile, pointer, report, named, conditions)


def _names(calls: list[str], pointer: str, notify: bool, report: Report) -> None:
    """Report the wrong names of a rule. Only called if there are any: engines list 400 names."""
    for place, name in numbered(calls, pointer):
        if not name:
            report.bad(place, "the name of a system call", name)
        elif name == "write" and notify:
            # init reports the number of the notify descriptor with write(2), behind the filter.
            hint = "SCMP_ACT_NOTIFY cannot be used for the write syscall"
            report.bad(place, "a system call other than write", name, hint)


def _size(profile: Seccomp, pointer: str, report: Report, named: int, conditions: int) -> None:
    """A size that libseccomp can handle; conditions count once per system call of their rule."""
    arches = profile.get("architectures", ())
    if len(arches) > SECCOMP_ARCHES:
        report.bad(f"{pointer}/architectures", f"at most {SECCOMP_ARCHES} architectures", len(arches))
    if named > SECCOMP_CALLS:
        expected = f"at most {SECCOMP_CALLS} names in all rules: a filter has no more instructions"
        report.bad(f"{pointer}/syscalls", expected, named)
    elif conditions > SECCOMP_CONDITIONS:
        expected = f"at most {SECCOMP_CONDITIONS} conditions for all system calls: a filter has no more instructions"
        report.bad(f"{pointer}/syscalls", expected, conditions)
    else:
        size = (PER_CALL * named + PER_CONDITION * conditions) * (len(set(arches)) + 1)
        if size > COUNTABLE:
            expected = f"at most {COUNTABLE} instructions for all architectures"
            hint = f"{PER_CALL} for a system call and {PER_CONDITION} for a condition, for each architecture"
            report.bad(f"{pointer}/syscalls", expected, size, hint)


def _errno(value: int, action: str | None, pointer: str, report: Report) -> None:
    """An errno only with an action that returns one, and in range."""
    if action is None:
        return
    if action not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        report.bad(pointer, f"nothing here for {action}", value)
    else:
        limit = ERRNO_MAX if action == "SCMP_ACT_ERRNO" else TRACE_MAX
        if value > limit:
            report.bad(pointer, f"integer from 0 to {limit}", value)
