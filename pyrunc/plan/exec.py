"""A process in an existing container: a plan that joins what `create` has made.

The steps of plan/create.py without those that create namespaces, mounts and devices, and with the
clone into the pid namespace moved to the end: docs/adr/0019-the-joiner.md. The descriptors of the
namespaces are opened on the host before anything is joined (CVE-2016-9962, CVE-2016-8649).
"""

from __future__ import annotations

from pyrunc.plan import NO_SLOT, namespaces, process, scheduling, security
from pyrunc.plan.context import Context
from pyrunc.plan.create import drop_privileges
from pyrunc.plan.ops import (
    P_CLONE_INIT_COMPLETE,
    P_CONSOLE_NOT_CONTROLLING,
    P_PIVOT_CHROOT,
    P_ROOT_NO_BIND,
    P_SECCOMP_IF_PASSABLE,
    P_SETSID_TERMINAL,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.host import HostFacts
    from pyrunc.plan import Plan
    from pyrunc.plan.context import Options
    from pyrunc.spec.types import Config, Process

# The name in /proc/PID/ns of each type of namespace, in the order of setns(2): see
# namespaces._JOIN_RANK.
NAMESPACES = {
    "user": "user",
    "cgroup": "cgroup",
    "ipc": "ipc",
    "network": "net",
    "pid": "pid",
    "time": "time",
    "uts": "uts",
    "mount": "mnt",
}


def compile_exec(config: Config, program: Process, facts: HostFacts, options: Options) -> Plan:
    """The plan that joins the container and becomes ``program``, a valid ``process`` object.

    ``config`` is the container's. Raises ConfigError, with all problems that only show here.
    """
    ctx = Context(config, program, facts, options)
    enter(ctx)
    finish(ctx)
    run(ctx)
    return ctx.compiled()


def enter(ctx: Context) -> None:
    """From the spawned process to one in all namespaces of the container but its pid namespace."""
    scheduling.initial_cpus(ctx)
    enter_cgroup(ctx)
    scheduling.final_cpus(ctx)
    process.oom_score_adj(ctx)
    ctx.plan.dumpable("(default)", value=0)
    if ctx.options.tools:
        from pyrunc.plan import tools

        tools.join(ctx)
    else:
        namespaces.join(ctx, ctx.options.joined)
    namespaces.session_keyring(ctx)
    enter_root(ctx)
    if ctx.options.tools:
        tools.attach(ctx)


def finish(ctx: Context) -> None:
    """All that needs a privilege or a descriptor of the host; the program's own privileges last."""
    process.terminal(ctx, P_CONSOLE_NOT_CONTROLLING)
    drop_privileges(ctx, clones_later=True)
    process.locate(ctx, retried=True)
    security.load_filter(ctx, P_SECCOMP_IF_PASSABLE)


def run(ctx: Context) -> None:
    """Become a process of the container, then the program."""
    # Up to here the container cannot see us: setns(2) of a pid namespace takes effect for the next
    # child. A process of the container with CAP_SYS_PTRACE can take whatever that child holds, so
    # it is created with the program's ids and capabilities, its filter if possible, and no
    # descriptor of the host.
    ctx.plan.clone_init("(default)", policy=P_CLONE_INIT_COMPLETE, cgroup_fd=NO_SLOT)
    new_session(ctx)
    process.process_limit(ctx)
    # Again, if they failed before the clone: the container's /proc has no `self` for a process
    # outside its pid namespace, and some filters forbid the clone.
    process.locate(ctx)
    security.load_filter(ctx)
    process.execute(ctx)


def enter_cgroup(ctx: Context) -> None:
    """PLACE.

    Later the cgroup is out of reach: from inside the user namespace (see userns.enter_cgroup), from
    inside the cgroup namespace if the hierarchy is mounted with nsdelegate, and behind a filter
    that forbids clone3.
    """
    options = ctx.options
    if options.cgroup:
        slot = ctx.plan.fd("cgroup", options.cgroup, options.cgroup_origin)
        ctx.plan.place(options.cgroup_origin, cgroup_fd=slot)


def enter_root(ctx: Context) -> None:
    """ROOT: where /dev is looked up.

    "/" is the container's root once its mount namespace has been joined.
    """
    rootfs = ctx.options.rootfs
    ctx.plan.root("/root/path", policy=P_ROOT_NO_BIND, path=rootfs or "/")
    if rootfs:
        ctx.plan.pivot("/root/path", policy=P_PIVOT_CHROOT)


def new_session(ctx: Context) -> None:
    """SETSID, which takes the terminal if there is one."""
    if ctx.process.get("terminal"):
        ctx.plan.setsid("/process/terminal", policy=P_SETSID_TERMINAL)
    else:
        ctx.plan.setsid("(default)")
