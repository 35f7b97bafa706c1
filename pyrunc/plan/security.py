"""What confines the program: hidden paths, labels, seccomp, capabilities."""

from __future__ import annotations

from pyrunc.fs import salted
from pyrunc.plan.ops import P_SECCOMP_LISTENER, Builder
from pyrunc.spec.names import CAPABILITIES
from pyrunc.spec.rules_process import CAP_BITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.host import HostFacts
    from pyrunc.plan import Plan

SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")

# SECCOMP_FILTER_FLAG_* of seccomp(2).  TSYNC stands for nothing here: init has one thread.
SECCOMP_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 1 << 5,
}
SPEC_ALLOW = 1 << 2


def hide_paths(plan: Plan, linux: dict[str, Any]) -> None:
    """Read-only and masked paths; each path once, however often an engine lists it."""
    for name, emit in (("readonlyPaths", plan.readonly_path), ("maskedPaths", plan.mask_path)):
        seen: set[str] = set()
        for index, path in enumerate(linux.get(name) or ()):
            key = salted(path)
            if key not in seen:
                seen.add(key)
                emit(f"/linux/{name}/{index}", path=path)


def labels(plan: Plan, process: dict[str, Any], facts: HostFacts) -> None:
    """LSM labels for the execve.  validate.check has refused them on a host without the module."""
    profile = process.get("apparmorProfile")
    if profile and (profile != "unconfined" or facts.apparmor):
        plan.apparmor("/process/apparmorProfile", profile=profile)
    if process.get("selinuxLabel"):
        plan.selinux("/process/selinuxLabel", label=process["selinuxLabel"])


def notifies(profile: dict[str, Any]) -> bool:
    """Whether a rule asks an agent (SCMP_ACT_NOTIFY; never the default action)."""
    return any(rule.get("action") == "SCMP_ACT_NOTIFY" for rule in profile.get("syscalls") or ())


def seccomp(plan: Plan, linux: dict[str, Any], policy: int = 0) -> None:
    """The place of the filter; the program itself comes with Plan.set_filter, compiled while init starts up."""
    profile = linux.get("seccomp")
    if not profile:
        return
    plan.seccomp = profile
    names = profile.get("flags")
    flags = SPEC_ALLOW  # without `flags`, as runc has it: no speculative-store mitigation that nobody asked for
    if names is not None:
        flags = 0
        for name in names:
            flags |= SECCOMP_FLAGS[name]
    # `plan.seccomp` is the profile, hence the unbound call
    policy |= P_SECCOMP_LISTENER if notifies(profile) else 0
    Builder.seccomp(plan, "/linux/seccomp", policy=policy, flags=flags)


def _mask(process: dict[str, Any], name: str, facts: HostFacts) -> int:
    """One capability set as a mask.  What we or the kernel do not know is left out; validation has warned of it."""
    mask = 0
    for cap in (process.get("capabilities") or {}).get(name) or ():
        bit = CAP_BITS.get(cap, facts.cap_last + 1)
        if bit <= facts.cap_last:
            mask |= 1 << bit
    return mask


def bounding_set(plan: Plan, process: dict[str, Any], facts: HostFacts) -> None:
    """Drop from the bounding set while CAP_SETPCAP is still there.  Without `capabilities` nothing stays."""
    origin = "/process/capabilities/bounding" if process.get("capabilities") else "(default)"
    plan.cap_bound(origin, mask=_mask(process, "bounding", facts))


def capabilities(plan: Plan, process: dict[str, Any], facts: HostFacts, policy: int = 0) -> None:
    """The other four sets, after the ids: changing those clears effective and ambient (capabilities(7))."""
    bounding = _mask(process, "bounding", facts)
    effective, permitted, inheritable, ambient = (_mask(process, name, facts) for name in SETS[1:])
    pointer = "/process/capabilities"
    # capset(2) would say EPERM to these two, and not which.
    if effective & ~permitted:
        plan.refuse(f"{pointer}/effective", "a subset of permitted", cap_names(effective & ~permitted))
    if inheritable & ~bounding:
        plan.refuse(f"{pointer}/inheritable", "a subset of bounding", cap_names(inheritable & ~bounding))
    lost = ambient & ~(inheritable & permitted)
    for name in cap_names(lost).split(", ") if lost else ():
        # runc's words
        plan.warn(f"{pointer}/ambient", f"can't raise ambient capability {name}: it must be permitted and inheritable")
    plan.caps(
        pointer if process.get("capabilities") else "(default)",
        policy=policy,
        effective=effective,
        permitted=permitted,
        inheritable=inheritable,
        ambient=ambient & ~lost,
    )


def cap_names(mask: int) -> str:
    """``CAP_KILL, CAP_CHOWN`` of a mask, lowest bit first; an unknown bit as its number."""
    names = []
    for bit in range(mask.bit_length()):
        if mask >> bit & 1:
            names.append(CAPABILITIES[bit] if bit < len(CAPABILITIES) else str(bit))
    return ", ".join(names)
