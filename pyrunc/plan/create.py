"""config.json -> plan, without touching anything: the order of everything that happens to a container.

The order is the point of this file; the topics have theirs.  `pyrunc plan` prints the result, tests/golden/ holds it
for some sixty configurations, and docs/handshake.md draws the synchronisation points.
"""

from __future__ import annotations

from pyrunc.errors import ConfigError
from pyrunc.plan import NO_SLOT, Plan, confine, devices, hooks, mounts, namespaces, process, security
from pyrunc.plan.ops import P_CONSOLE_MOUNT_CONSOLE, P_WAIT_START_SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.host import HostFacts


class Options:
    """What the command line and the state directory add to config.json.  Paths are absolute, on the host."""

    __slots__ = (
        "bundle",
        "cgroup_path",
        "console",
        "create_state",
        "id",
        "listen_fds",
        "no_new_keyring",
        "no_pivot",
        "notify",
        "overlay",
        "preserve_fds",
        "start_state",
        "wait",
    )

    def __init__(self, id: str, bundle: str) -> None:
        self.id = id
        self.bundle = bundle  # relative paths of config.json start here
        self.cgroup_path = ""  # absolute inside the v2 hierarchy; "": no cgroup of its own
        self.console = True  # whether there is a socket for slot "console", should process.terminal need one
        self.no_pivot = self.no_new_keyring = False
        self.preserve_fds = self.listen_fds = 0  # numbers of descriptors; the listen ones come first, from 3 on
        self.notify = ""  # directory to bind at /run/notify; "": none
        self.overlay: list[str] = []  # mount options of an overlay on top of the root directory; []: none
        self.wait = "fifo"  # how init waits for start: "fifo" (create) or "socket" (run)
        # The state JSON before and after the pid, for the hooks inside the container, which see another pid than we do.
        self.create_state: tuple[str, str] = ("", "")
        self.start_state: tuple[str, str] = ("", "")


def compile_create(config: dict[str, Any], facts: HostFacts, options: Options) -> Plan:
    """The plan that makes the container and leaves it waiting for start.

    ``config`` has passed spec.validate.check.  Raises ConfigError, with all problems, for what only shows here.
    """
    plan = Plan()
    plan.cgroup_path = options.cgroup_path
    plan.npreserve = options.listen_fds + options.preserve_fds
    linux = config.get("linux") or {}
    program = config.get("process") or {}
    spaces = namespaces.Namespaces(linux)
    hooks.host_side(plan, config.get("hooks") or {})
    env = process.environment(program, options)

    namespaces.enter(plan, config, program, facts, options, spaces)
    mounted = _set_up(plan, config, linux, facts, options, spaces)
    if spaces.cgroup_writable and plan.cgroup_path:
        _own_cgroup(plan, linux, program, facts)
    _finish(plan, config, linux, program, facts, options, spaces, env, mounted)
    _run(plan, config, program, options, env)
    if plan.problems:
        raise ConfigError(plan.problems)
    return plan


def _own_cgroup(plan: Plan, linux: dict[str, Any], program: dict[str, Any], facts: HostFacts) -> None:
    """config-linux.md, "Cgroup ownership": what is mounted writable, in an own namespace, belongs to the user."""
    from pyrunc.plan import userns

    uid = userns.host_id(linux.get("uidMappings") or [], (program.get("user") or {}).get("uid") or 0)
    if uid not in (-1, facts.euid):
        plan.cgroup_owner = uid


def _set_up(
    plan: Plan,
    config: dict[str, Any],
    linux: dict[str, Any],
    facts: HostFacts,
    options: Options,
    spaces: namespaces.Namespaces,
) -> mounts.Mounted:
    """SETUP: pid 1 with the old root in sight."""
    namespaces.set_up(plan, config, spaces, options)
    mounted = mounts.compile_mounts(plan, config, linux, facts, options, spaces)
    devices.compile_devices(plan, linux, spaces, mounted.set_up_dev)
    # Everything a createRuntime hook may look for is mounted, and the old root is still there (runtime.md, Lifecycle).
    plan.sync_mounted("(default)")
    hooks.create_container(plan, config.get("hooks") or {}, options.create_state)
    mounts.pivot(plan, options, spaces)
    return mounted


def _finish(
    plan: Plan,
    config: dict[str, Any],
    linux: dict[str, Any],
    program: dict[str, Any],
    facts: HostFacts,
    options: Options,
    spaces: namespaces.Namespaces,
    env: process.Environment,
    mounted: mounts.Mounted,
) -> None:
    """FINISH: inside the new root, from the most privileged step to the least."""
    on_console = P_CONSOLE_MOUNT_CONSOLE if mounted.set_up_dev else 0
    process.terminal(plan, program, options, mounted.set_up_dev, on_console)
    # What still writes comes before what makes read-only: the console's mount point, the working directory.
    process.make_cwd(plan, program)
    mounts.remount_read_only(plan, mounted)
    namespaces.names_and_sysctls(plan, config, linux)
    security.hide_paths(plan, linux)
    # Not before: what is unbindable cannot be cloned, and hiding a path clones it.
    mounts.root_propagation(plan, linux)
    if (config.get("root") or {}).get("readonly"):
        plan.root_ro("/root/readonly")
    confine.confine(plan, config, program, facts, env, joinable=facts.euid != 0)


def _run(
    plan: Plan, config: dict[str, Any], program: dict[str, Any], options: Options, env: process.Environment
) -> None:
    """RUN: wait for start, then become the program.  Without a process there is nothing to become (runtime.md)."""
    if options.wait == "socket":
        plan.wait_start("(default)", policy=P_WAIT_START_SOCKET, start_fd=NO_SLOT, error_fd=NO_SLOT)
    else:
        start = plan.fd("start", "", "(default)")
        plan.wait_start("(default)", start_fd=start, error_fd=plan.fd("error", "", "(default)"))
    if program:
        hooks.start_container(plan, config.get("hooks") or {}, options.start_state, env)
        process.execute(plan, program, env)
