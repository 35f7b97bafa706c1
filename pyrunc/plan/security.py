"""What confines the program: hidden paths, labels, seccomp, capabilities."""

from __future__ import annotations

from pyrunc.fs import salted
from pyrunc.plan.ops import P_CAPS_FOR_FILTER, P_SECCOMP_LISTENER, Builder
from pyrunc.spec.names import CAPABILITIES
from pyrunc.spec.rules_process import CAP_BITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.context import Context
    from pyrunc.spec.types import Seccomp

# SECCOMP_FILTER_FLAG_* of seccomp(2). TSYNC is ignored: init has one thread.
SECCOMP_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 1 << 5,
}
SPEC_ALLOW, WAIT_KILLABLE_RECV = 1 << 2, 1 << 5


def hide_paths(ctx: Context) -> None:
    """READONLY_PATH and MASK_PATH; each path once, however often an engine lists it."""
    plan, linux = ctx.plan, ctx.linux
    for name, paths, emit in (
        ("readonlyPaths", linux.get("readonlyPaths", ()), plan.readonly_path),
        ("maskedPaths", linux.get("maskedPaths", ()), plan.mask_path),
    ):
        seen: set[str] = set()
        for index, path in enumerate(paths):
            key = salted(path)
            if key not in seen:
                seen.add(key)
                emit(f"/linux/{name}/{index}", path=path)


def labels(ctx: Context) -> None:
    """APPARMOR and SELINUX: labels for the execve.

    validate.check refuses them on a host without the module.
    """
    profile, label = ctx.process.get("apparmorProfile"), ctx.process.get("selinuxLabel")
    if profile and (profile != "unconfined" or ctx.facts.apparmor):
        ctx.plan.apparmor("/process/apparmorProfile", profile=profile)
    if label:
        ctx.plan.selinux("/process/selinuxLabel", label=label)


def no_new_privileges(ctx: Context) -> None:
    """NO_NEW_PRIVS."""
    if ctx.process.get("noNewPrivileges"):
        ctx.plan.no_new_privs("/process/noNewPrivileges")


def notifies(profile: Seccomp) -> bool:
    """Whether a rule asks an agent (SCMP_ACT_NOTIFY; never the default action)."""
    return any(rule["action"] == "SCMP_ACT_NOTIFY" for rule in profile.get("syscalls", ()))


def filter_flags(profile: Seccomp) -> int:
    """SECCOMP_FILTER_FLAG_* for seccomp(2), without NEW_LISTENER."""
    names = profile.get("flags")
    if names is None:
        return SPEC_ALLOW  # as in runc: no speculative-store mitigation unless it is requested
    flags = 0
    for name in names:
        flags |= SECCOMP_FLAGS[name]
    # Without a listener the kernel answers EINVAL to a flag that has no effect then.
    return flags if notifies(profile) else flags & ~WAIT_KILLABLE_RECV


def filter_takes_admin(ctx: Context) -> bool:
    """Whether loading the filter takes CAP_SYS_ADMIN: without no_new_privs it does (seccomp(2))."""
    return bool(ctx.linux.get("seccomp")) and not ctx.process.get("noNewPrivileges")


def load_filter(ctx: Context, policy: int = 0) -> None:
    """SECCOMP, and DROP_ADMIN for the capability that loading the filter took.

    The step is a placeholder: Plan.set_filter adds the program, which is compiled while init starts
    up.
    """
    plan, profile = ctx.plan, ctx.linux.get("seccomp")
    if not profile:
        return
    plan.seccomp = profile
    policy |= P_SECCOMP_LISTENER if notifies(profile) else 0
    # `plan.seccomp` is the profile, hence the unbound call
    Builder.seccomp(plan, "/linux/seccomp", policy=policy, flags=filter_flags(profile))
    if filter_takes_admin(ctx):
        plan.drop_admin("(default)")


def allow_exec_to_join(ctx: Context) -> None:
    """JOINABLE: a user other than root may join a container that waits for `start` (`exec`).

    Not after an early filter, which may kill us for the prctl; not before SET_IDS, which resets
    dumpable; and not while CAP_SYS_ADMIN was not dropped for the filter.
    """
    if ctx.facts.euid != 0 and not filter_takes_admin(ctx):
        ctx.plan.joinable("(default)")


def _mask(names: list[str], last: int) -> int:
    """A capability set as a mask, without unknown names, of which validation warns."""
    mask = 0
    for name in names:
        bit = CAP_BITS.get(name, last + 1)
        if bit <= last:
            mask |= 1 << bit
    return mask


def bounding_set(ctx: Context) -> None:
    """CAP_BOUND. Without `capabilities` the set becomes empty."""
    sets = ctx.process.get("capabilities", {})
    origin = "/process/capabilities/bounding" if sets else "(default)"
    ctx.plan.cap_bound(origin, mask=_mask(sets.get("bounding", []), ctx.facts.cap_last))


def capabilities(ctx: Context) -> None:
    """CAPS: the other four sets."""
    plan, last, pointer = ctx.plan, ctx.facts.cap_last, "/process/capabilities"
    sets = ctx.process.get("capabilities", {})
    bounding, effective = _mask(sets.get("bounding", []), last), _mask(sets.get("effective", []), last)
    permitted, inheritable = _mask(sets.get("permitted", []), last), _mask(sets.get("inheritable", []), last)
    ambient = _mask(sets.get("ambient", []), last)
    # For these two capset(2) reports EPERM, and not which of them it is.
    if effective & ~permitted:
        plan.refuse(f"{pointer}/effective", "a subset of permitted", cap_names(effective & ~permitted))
    if inheritable & ~bounding:
        plan.refuse(f"{pointer}/inheritable", "a subset of bounding", cap_names(inheritable & ~bounding))
    lost = ambient & ~(inheritable & permitted)
    for name in cap_names(lost).split(", ") if lost else ():
        # runc's words
        plan.warn(f"{pointer}/ambient", f"can't raise ambient capability {name}: it must be permitted and inheritable")
    plan.caps(
        pointer if sets else "(default)",
        policy=P_CAPS_FOR_FILTER if filter_takes_admin(ctx) else 0,
        effective=effective,
        permitted=permitted,
        inheritable=inheritable,
        ambient=ambient & ~lost,
    )


def cap_names(mask: int) -> str:
    """``CAP_KILL, CAP_CHOWN`` for a mask, lowest bit first; an unknown bit as its number."""
    names = []
    for bit in range(mask.bit_length()):
        if mask >> bit & 1:
            names.append(CAPABILITIES[bit] if bit < len(CAPABILITIES) else str(bit))
    return ", ".join(names)
