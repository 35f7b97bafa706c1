"""The caller's privileges: capabilities, securebits, no_new_privs, and security modules."""

from __future__ import annotations

import os
from shlex import quote

from pyrunc.doctor.findings import Area
from pyrunc.doctor.machine import Machine
from pyrunc.spec.names import CAPABILITIES

# Without these capabilities of the host's root no container starts, or none with common fields.
NEEDED = {
    "CAP_SYS_ADMIN": "namespaces and mounts cannot be created",
    "CAP_SETUID": "the user of the program cannot be set",
    "CAP_SETGID": "the groups of the program cannot be set",
    "CAP_SETPCAP": "the bounding set of the program cannot be reduced",
    "CAP_MKNOD": "device nodes cannot be created",
    "CAP_CHOWN": "files and terminals cannot be given to the container's user",
    "CAP_DAC_OVERRIDE": "files of other users cannot be reached",
    "CAP_SYS_CHROOT": "the root filesystem cannot be entered",
    "CAP_KILL": "processes of other users cannot be signalled",
}
USEFUL = {
    "CAP_SYS_RESOURCE": "hard limits cannot be raised and oomScoreAdj cannot be lowered",
    "CAP_NET_ADMIN": "netDevices, and network sysctls of containers, are refused",
    "CAP_SYS_NICE": "realtime schedulers and lower nice values are refused",
    "CAP_SYS_PTRACE": "`exec` into containers of other users may fail",
    "CAP_BPF": "",  # CAP_SYS_ADMIN suffices as well
    "CAP_SYS_TIME": "offsets of time namespaces are refused",
}
SECUREBITS = {  # linux/securebits.h: name -> (bit, effect on containers); the next higher bit locks it
    "noroot": (0, "root of a container gets no capabilities from execve"),
    "no_setuid_fixup": (2, "a change of the user does not change the capabilities"),
    "keep_caps": (4, "capabilities are kept when the user changes, until the next execve"),
    "no_cap_ambient_raise": (6, "ambient capabilities are refused"),
}
_RUNTIME_TYPE = "container_runtime_exec_t"


def check(machine: Machine) -> list[Area]:
    """Check the caller and the security modules."""
    caller, lsm = Area("privileges"), Area("security modules")
    capabilities(machine, caller)
    no_new_privileges(machine, caller)
    securebits(machine, caller)
    modules(machine, lsm)
    apparmor(machine, lsm)
    selinux(machine, lsm)
    lockdown(machine, lsm)
    yama(machine, lsm)
    return [caller, lsm]


def bit(name: str) -> int:
    """The bit of a capability in a mask."""
    return 1 << CAPABILITIES.index(name)


def capabilities(machine: Machine, area: Area) -> None:
    """The effective set of root; other users get all capabilities in their user namespace."""
    if not machine.privileged:
        who = "root of a user namespace" if machine.euid == 0 else f"uid {machine.euid}"
        area.ok("capabilities", f"{who}: pyrunc works rootless")
        return
    effective = machine.capabilities()
    lacking = [name for name in NEEDED if not effective & bit(name)]
    for name in lacking:
        means = NEEDED[name]
        area.problem("capabilities", f"{name} is missing", means, "run pyrunc as root outside a container")
    missing = [name for name in USEFUL if not effective & bit(name)]
    if "CAP_BPF" in missing and effective & bit("CAP_SYS_ADMIN"):
        missing.remove("CAP_BPF")
    for name in missing:
        area.note("capabilities", f"{name} is missing", USEFUL[name])
    if not lacking and not missing:
        area.ok("capabilities", "everything that containers need")
    bounding = machine.capabilities("CapBnd")
    gone = [
        name for index, name in enumerate(CAPABILITIES) if index <= machine.facts.cap_last and not bounding >> index & 1
    ]
    if gone:
        means = "a config that asks for one of these without a user namespace is refused"
        area.note("bounding-set", f"without {' '.join(gone)}", means)


def no_new_privileges(machine: Machine, area: Area) -> None:
    """no_new_privs disables set-user-ID programs, so newuidmap does not work."""
    if machine.status("NoNewPrivs") != "1":
        area.ok("no-new-privileges", "not set")
        return
    means = "set-user-ID programs do nothing in containers"
    if machine.euid != 0:
        means = "newuidmap and newgidmap cannot write maps; set-user-ID programs do nothing in containers"
    area.note(
        "no-new-privileges", "set for the caller, and so for all containers", means, "systemctl: NoNewPrivileges=no"
    )


def securebits(machine: Machine, area: Area) -> None:
    """Containers inherit the securebits(7); /proc does not show them."""
    bits = machine.securebits()
    if bits is None:
        means = "the securebits of the caller, which containers inherit, are not checked"
        mend = "pip install 'pyrunc[doctor]' (it needs libcap-dev)"
        area.note("securebits", "python-prctl is not installed", means, mend)
        return
    for name, (number, means) in SECUREBITS.items():
        if bits >> number & 1:
            seen = f"{name} is set{' and locked' if bits >> number + 1 & 1 else ''}"
            report = area.problem if name == "noroot" and machine.euid == 0 else area.note
            report("securebits", seen, means, "start pyrunc from a process without it: capsh --secbits=0 -- -c ...")
    if not bits:
        area.ok("securebits", "none is set")


# -- security modules ------------------------------------------------------------------------------


def modules(machine: Machine, area: Area) -> None:
    """Which modules are active."""
    text = machine.text("/sys/kernel/security/lsm", 4096).strip()
    if text:
        area.ok("active", text.replace(",", " "))
    else:
        known = [name for name, on in (("apparmor", machine.facts.apparmor), ("selinux", machine.facts.selinux)) if on]
        area.ok("active", f"securityfs is not mounted; {' and '.join(known) or 'neither apparmor nor selinux'} found")


def apparmor(machine: Machine, area: Area) -> None:
    """Whether profiles can be used, and whether the caller is confined."""
    if not machine.facts.apparmor:
        area.ok("apparmor", "not enabled: configs with /process/apparmorProfile are refused")
        return
    area.ok("apparmor", "enabled")
    if not machine.find("apparmor_parser"):
        means = "engines cannot load the profiles that they name in configs"
        area.note("apparmor", "apparmor_parser is not installed", means, "apt-get install apparmor")
    current = machine.text("/proc/self/attr/apparmor/current", 4096) or machine.text("/proc/self/attr/current", 4096)
    current = current.strip("\0\n ")
    if current and not current.startswith("unconfined"):
        means = "what the profile denies to pyrunc fails with EACCES"
        area.note("apparmor", f"pyrunc is confined by {current}", means, f"aa-complain {quote(current.split(' ')[0])}")


def selinux(machine: Machine, area: Area) -> None:
    """The mode, and the type of pyrunc's executable, which determines the domain it runs in."""
    if not machine.facts.selinux:
        area.ok("selinux", "not enabled: configs with /process/selinuxLabel are refused")
        return
    enforcing = machine.number("/sys/fs/selinux/enforce")
    area.ok("selinux", {0: "permissive", 1: "enforcing"}.get(-1 if enforcing is None else enforcing, "enabled"))
    label = file_label(machine.place(machine.program))
    if label and label.split(":")[2:3] != [_RUNTIME_TYPE]:
        report = area.problem if enforcing else area.note
        means = "pyrunc does not enter the domain of container runtimes, and may be denied access"
        report("selinux", f"{machine.program} is {label}", means, f"chcon -t {_RUNTIME_TYPE} {quote(machine.program)}")


def file_label(path: str) -> str:
    """The SELinux label of a file, "" without one."""
    try:
        return os.getxattr(path, "security.selinux").decode("utf-8", "replace").rstrip("\0")
    except OSError:
        return ""


def lockdown(machine: Machine, area: Area) -> None:
    """kernel_lockdown(7): confidentiality disables bpf's reading helpers, which pyrunc does not
    use."""
    text = machine.text("/sys/kernel/security/lockdown", 256)
    mode = text.partition("[")[2].partition("]")[0]
    if mode:
        area.ok("lockdown", mode)


def yama(machine: Machine, area: Area) -> None:
    """Scope 3 blocks ptrace even with CAP_SYS_PTRACE, so criu cannot dump."""
    scope = machine.number("/proc/sys/kernel/yama/ptrace_scope")
    if scope == 3:
        means = "no process can be traced: checkpoint and debuggers in containers fail, until the next boot"
        area.note("yama", "kernel.yama.ptrace_scope is 3", means)
    elif scope is not None:
        area.ok("yama", f"kernel.yama.ptrace_scope is {scope}")
