"""A process in a container that exists: a plan that joins instead of making (`exec`).

The same steps in the same order as `compile`, without the ones that make namespaces, mounts and devices.  The
descriptors of the namespaces are opened on the host before anything is joined (CVE-2016-9962, CVE-2016-8649).
"""

from __future__ import annotations

from pyrunc.errors import ConfigError
from pyrunc.plan import Plan, confine, namespaces, process
from pyrunc.plan.ops import P_CLONE_INIT_KEEP_CPUS, P_PIVOT_CHROOT, P_ROOT_NO_BIND

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

    _enter(plan, config, program, facts, options)
    plan.setsid("(default)")
    if not options.no_new_keyring:
        namespaces.keyring(plan, config, program, options.id)
    # Where the container's /dev is looked up.  "/" is the container's since the mount namespace was joined.
    plan.root("/root/path", policy=P_ROOT_NO_BIND, path=options.rootfs or "/")
    if options.rootfs:
        plan.pivot("/root/path", policy=P_PIVOT_CHROOT)
    process.terminal(plan, program, options, set_up_dev=True, can_mount=False)
    confine.confine(plan, config, program, facts, env)
    process.execute(plan, program, env)
    if plan.problems:
        raise ConfigError(plan.problems)
    return plan


def _enter(plan: Plan, config: dict[str, Any], program: dict[str, Any], facts: HostFacts, options: Options) -> None:
    """ENTER: from the spawned process to a process of the container."""
    affinity, keep = program.get("execCPUAffinity"), 0
    if affinity:
        from pyrunc.plan import scheduling

        # Before the cgroup is entered, in whichever way.
        keep = P_CLONE_INIT_KEEP_CPUS if scheduling.initial_cpus(plan, affinity) else 0
    in_userns = any(kind == "user" for kind, _ in options.joined)
    if options.cgroup and in_userns:
        # From inside the user namespace the cgroup is out of reach (see userns.place).
        slot = plan.fd("cgroup", options.cgroup, options.cgroup_origin)
        plan.place(options.cgroup_origin, cgroup_fd=slot)
    score = program.get("oomScoreAdj")
    if score is not None:
        plan.oom_score("/process/oomScoreAdj", policy=namespaces.oom_policy(score, facts), value=score)
    plan.dumpable("(default)", value=0)
    listed = (config.get("linux") or {}).get("namespaces") or ()
    pointers = {entry["type"]: f"/linux/namespaces/{index}" for index, entry in enumerate(listed)}
    cgroup = "" if in_userns else options.cgroup
    namespaces.join(plan, [entry for entry in options.joined if not (cgroup and entry[0] == "cgroup")], pointers)
    namespaces.clone_init(plan, (cgroup, options.cgroup_origin), options.joined, pointers, keep)
    if affinity:
        scheduling.final_cpus(plan, affinity)
