"""linux.namespaces, and what belongs to one: host and domain name, sysctls, keyring."""

from __future__ import annotations

from pyrunc.plan import NO_SLOT
from pyrunc.plan.ops import P_CLONE_INIT_IN_CGROUP, P_KEYRING_OTHER_SEARCH
from pyrunc.spec.names import CLONE_FLAGS, escape, sysctl_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.context import Context

# The order of setns(2): the user namespace first, because it grants the right to join the others;
# the mount namespace last, because paths are looked up in the current one.
_JOIN_RANK = {"user": 0, "mount": 2}


def join(ctx: Context, joined: list[tuple[str, str]]) -> None:
    """JOIN_NS for these (type, path), in this order."""
    plan, pointers = ctx.plan, ctx.namespaces.pointers
    for kind, path in joined:
        origin = pointers.get(kind, "(default)")
        plan.join_ns(origin, fd=plan.fd("ns", path, origin), nstype=CLONE_FLAGS[kind], path=path)


def join_existing(ctx: Context) -> None:
    """JOIN_NS for namespaces given by path, except one that `clone_first_process` joins."""
    joined = sorted(ctx.namespaces.joined, key=_join_rank)
    if clones_into_cgroup(ctx):
        joined = [entry for entry in joined if entry[0] != "cgroup"]
    join(ctx, joined)


def _join_rank(entry: tuple[str, str]) -> int:
    return _JOIN_RANK.get(entry[0], 1)


def unshare(ctx: Context) -> None:
    """UNSHARE for all new namespaces but the user namespace and the cgroup namespace.

    The root of a cgroup namespace is the cgroup of its creator (cgroup_namespaces(7)), so the first
    process creates it inside the container's cgroup.
    """
    flags = ctx.namespaces.new & ~(CLONE_FLAGS["cgroup"] | CLONE_FLAGS["user"])
    if flags:
        ctx.plan.unshare("/linux/namespaces", flags=flags)


def clones_into_cgroup(ctx: Context) -> bool:
    """Whether CLONE_INIT enters the cgroup; PLACE has done so for a user namespace."""
    return bool(ctx.plan.cgroup_path) and not ctx.namespaces.has("user")


def clone_first_process(ctx: Context) -> None:
    """CLONE_INIT, into the cgroup unless we are in it; then the cgroup namespace, if joined.

    If the hierarchy is mounted with nsdelegate, as systemd does it, a cgroup namespace is a border:
    nothing outside it can be moved from inside, and we are outside until the clone is born in its
    cgroup (clone3: ENOENT).
    """
    plan = ctx.plan
    if clones_into_cgroup(ctx):
        slot = plan.fd("cgroup", plan.cgroup_path, "/linux/cgroupsPath")
        plan.clone_init("/linux/cgroupsPath", policy=P_CLONE_INIT_IN_CGROUP, cgroup_fd=slot)
        join(ctx, [entry for entry in ctx.namespaces.joined if entry[0] == "cgroup"])
    else:
        plan.clone_init("(default)", cgroup_fd=NO_SLOT)


def session_keyring(ctx: Context) -> None:
    """KEYRING: a session keyring of the container, with the label of its processes."""
    if ctx.options.no_new_keyring:
        return
    plan = ctx.plan
    label = ctx.process.get("selinuxLabel")
    if label:
        plan.key_label("/process/selinuxLabel", label=label)
    # Users in whose namespace its owner may be unmapped look it up.
    policy = P_KEYRING_OTHER_SEARCH if ctx.namespaces.has("user") else 0
    plan.keyring("(default)", policy=policy, name=f"_ses.{ctx.options.id}")
    if label:
        plan.key_label("/process/selinuxLabel")


def unshare_cgroup_namespace(ctx: Context) -> None:
    """UNSHARE_CGROUP, now that the first process is in its cgroup."""
    if ctx.namespaces.is_new("cgroup"):
        ctx.plan.unshare_cgroup(ctx.namespaces.pointers["cgroup"])


def loopback(ctx: Context) -> None:
    """LO_UP: the loopback device of a new network namespace is down."""
    if ctx.namespaces.is_new("network"):
        ctx.plan.lo_up(ctx.namespaces.pointers["network"])


def names(ctx: Context) -> None:
    """HOSTNAME and DOMAINNAME."""
    hostname, domainname = ctx.config.get("hostname"), ctx.config.get("domainname")
    if hostname:
        ctx.plan.hostname("/hostname", name=hostname)
    if domainname:
        ctx.plan.domainname("/domainname", name=domainname)


def sysctls(ctx: Context) -> None:
    """SYSCTL for every kernel parameter."""
    for key, value in ctx.linux.get("sysctl", {}).items():
        ctx.plan.sysctl(f"/linux/sysctl/{escape(key)}", key=sysctl_path(key), value=value)
