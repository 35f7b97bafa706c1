"""A process in a container that exists: a plan that joins instead of making (`exec`).

The steps of `compile`, without the ones that make namespaces, mounts and devices, and with the clone
into the pid namespace moved to the end: docs/adr/0019-the-joiner.md.  The descriptors of the
namespaces are opened on the host before anything is joined (CVE-2016-9962, CVE-2016-8649).
"""

from __future__ import annotations

from pyrunc.errors import ConfigError
from pyrunc.plan import NO_SLOT, Plan, confine, namespaces, process
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
    from typing import Any

    from pyrunc.host import HostFacts

# The name in /proc/PID/ns of each type of namespace, in the order of setns: see namespaces.JOIN_RANK.
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


class Options:
    """What the command line and the state directory add to the process."""

    __slots__ = (
        "cgroup",
        "cgroup_origin",
        "console",
        "id",
        "joined",
        "listen_fds",
        "no_new_keyring",
        "notify",
        "preserve_fds",
        "rootfs",
    )

    def __init__(self, id: str) -> None:
        self.id = id
        self.joined: list[tuple[str, str]] = []  # (type, path) of the namespaces that are not ours, in setns order
        self.cgroup = ""  # directory of the cgroup to be born in; "": the caller's
        self.cgroup_origin = "/linux/cgroupsPath"  # or the option that names it
        self.rootfs = ""  # host path, for a container without a mount namespace of its own; else ""
        self.console = True  # whether there is a socket for slot "console"
        self.no_new_keyring = False
        self.preserve_fds = self.listen_fds = 0  # numbers of descriptors; the listen ones come first, from 3 on
        self.notify = ""  # never set: a process beside the service does not speak for it


def compile_exec(config: dict[str, Any], program: dict[str, Any], facts: HostFacts, options: Options) -> Plan:
    """The plan that joins the container and becomes ``program``, a valid ``process`` object.

    ``config`` is the container's.  Raises ConfigError, with all problems, for what only shows here.
    """
    plan = Plan()
    plan.npreserve = options.listen_fds + options.preserve_fds
    env = process.environment(program, options)
    terminal = bool(program.get("terminal"))

    _enter(plan, config, program, facts, options)
    _prepare(plan, config, program, facts, options, env)
    # Up to here the container cannot see us: setns(2) of a pid namespace takes effect for the next
    # child.  A process of the container with CAP_SYS_PTRACE can take whatever that child holds, so it
    # is created with the program's ids and capabilities, its filter if possible, and no descriptor of
    # the host.
    plan.clone_init("(default)", policy=P_CLONE_INIT_COMPLETE, cgroup_fd=NO_SLOT)
    plan.setsid("/process/terminal" if terminal else "(default)", policy=P_SETSID_TERMINAL if terminal else 0)
    process.process_limit(plan)
    # Again, if they failed before the clone: the container's /proc has no `self` for a process outside
    # of its pid namespace.
    process.locate(plan, program, env)
    confine.load_filter(plan, config, program)
    process.execute(plan, program, env)
    if plan.problems:
        raise ConfigError(plan.problems)
    return plan


def _enter(plan: Plan, config: dict[str, Any], program: dict[str, Any], facts: HostFacts, options: Options) -> None:
    """ENTER: from the spawned process to one that is in all namespaces of the container but the pid namespace."""
    affinity = program.get("execCPUAffinity") or {}
    if affinity:
        from pyrunc.plan import scheduling

        scheduling.initial_cpus(plan, affinity)
    if options.cgroup:
        # Later the cgroup is out of reach: from inside the user namespace (see userns.place), from inside
        # the cgroup namespace if the hierarchy is mounted with nsdelegate, and behind a filter that
        # forbids clone3.
        slot = plan.fd("cgroup", options.cgroup, options.cgroup_origin)
        plan.place(options.cgroup_origin, cgroup_fd=slot)
    if affinity:
        scheduling.final_cpus(plan, affinity)
    else:
        plan.cpu_final("(default)")
    score = program.get("oomScoreAdj")
    if score is not None:
        plan.oom_score("/process/oomScoreAdj", policy=namespaces.oom_policy(score, facts), value=score)
    plan.dumpable("(default)", value=0)
    listed = (config.get("linux") or {}).get("namespaces") or ()
    pointers = {entry["type"]: f"/linux/namespaces/{index}" for index, entry in enumerate(listed)}
    namespaces.join(plan, options.joined, pointers)


def _prepare(
    plan: Plan,
    config: dict[str, Any],
    program: dict[str, Any],
    facts: HostFacts,
    options: Options,
    env: process.Environment,
) -> None:
    """Everything that needs a privilege or a descriptor of the host; the program's own rights last."""
    if not options.no_new_keyring:
        namespaces.keyring(plan, config, program, options.id)
    # Where the container's /dev is looked up.  "/" is the container's root once its mount namespace is
    # joined.
    plan.root("/root/path", policy=P_ROOT_NO_BIND, path=options.rootfs or "/")
    if options.rootfs:
        plan.pivot("/root/path", policy=P_PIVOT_CHROOT)
    process.terminal(plan, program, options, True, P_CONSOLE_NOT_CONTROLLING)
    confine.drop_privileges(plan, config, program, facts, env, joining=True)
    process.locate(plan, program, env, attempt=True)
    confine.load_filter(plan, config, program, P_SECCOMP_IF_PASSABLE)
