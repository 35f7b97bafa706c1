"""config.json -> plan, without side effects: the order of all steps of a container.

The four functions below are the four sections of a plan, one line for each topic; the topics have a
file each. `pyrunc plan` prints the result, tests/golden/ has it for some sixty configurations, and
docs/handshake.md draws the synchronization points.
"""

from __future__ import annotations

from pyrunc.plan import devices, hooks, mounts, namespaces, process, scheduling, security, userns
from pyrunc.plan.context import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.host import HostFacts
    from pyrunc.plan import Plan
    from pyrunc.plan.context import Options
    from pyrunc.spec.types import Config, Process


def compile_create(config: Config, facts: HostFacts, options: Options) -> Plan:
    """The plan that creates the container and leaves it waiting for `start`.

    ``config`` has passed spec.validate.check. Raises ConfigError, with all problems that only show
    here.
    """
    program: Process = config.get("process", {})  # type: ignore[assignment]  # empty: none
    ctx = Context(config, program, facts, options)
    ctx.plan.cgroup_path = options.cgroup_path
    ctx.read_mounts()
    hooks.host_side(ctx)
    enter(ctx)
    setup(ctx)
    finish(ctx)
    run(ctx)
    return ctx.compiled()


def enter(ctx: Context) -> None:
    """ENTER: the spawned process, in the caller's namespaces, until it clones pid 1."""
    userns.enter_cgroup(ctx)
    # Before DUMPABLE, after which only root may write oom_score_adj.
    process.oom_score_adj(ctx)
    ctx.plan.dumpable("(default)", value=0)
    # With the caller's rights over the host's mounts and devices, which the user namespace takes
    # away.
    userns.enter_root_directory(ctx)
    ctx.trees = userns.open_trees(ctx)
    ctx.nodes = devices.make_nodes(ctx)
    namespaces.join_existing(ctx)
    userns.unshare(ctx)
    namespaces.unshare(ctx)
    # Between the UNSHARE that creates the time namespace and the clone that enters it.
    scheduling.clock_offsets(ctx)
    namespaces.clone_first_process(ctx)


def setup(ctx: Context) -> None:
    """SETUP: the container's first process, while it still sees the old root."""
    ctx.plan.setsid("(default)")
    namespaces.session_keyring(ctx)
    namespaces.unshare_cgroup_namespace(ctx)
    namespaces.loopback(ctx)
    mounts.limit_propagation(ctx)
    mounts.bind_root(ctx)
    ctx.read_only = mounts.add_mounts(ctx)
    devices.fill_dev(ctx)
    # All that a createRuntime hook may look for is mounted, and the old root is still there
    # (runtime.md, Lifecycle).
    ctx.plan.sync_mounted("(default)")
    hooks.create_container(ctx)
    mounts.leave_old_root(ctx)


def finish(ctx: Context) -> None:
    """FINISH: inside the new root, down to the step that needs the fewest privileges."""
    # These two write to the root filesystem, so they come before the steps that make it read-only.
    process.mounted_terminal(ctx)
    process.make_working_directory(ctx)
    mounts.remount_read_only(ctx)
    namespaces.names(ctx)
    # Before the read-only paths, which usually cover /proc/sys.
    namespaces.sysctls(ctx)
    security.hide_paths(ctx)
    # After the hidden paths: hiding a path clones its mount, which an unbindable mount forbids.
    mounts.root_propagation(ctx)
    mounts.read_only_root(ctx)
    drop_privileges(ctx)
    process.locate(ctx)
    security.allow_exec_to_join(ctx)
    # As late as possible, so that the profile need not allow what set-up does; but before
    # WAIT_START, while the parent is there to fetch a notify descriptor.
    security.load_filter(ctx)


def run(ctx: Context) -> None:
    """RUN: wait for `start`, then become the program."""
    process.wait_for_start(ctx)
    hooks.start_container(ctx)
    process.execute(ctx)


def drop_privileges(ctx: Context, *, clones_later: bool = False) -> None:
    """The middle of FINISH, shared with `exec`: ends with the ids and capabilities of the program.

    ``clones_later``: init clones itself again afterwards (`exec`).
    """
    process.personality(ctx)
    process.umask(ctx)
    process.stdio_owner(ctx)
    process.find_home(ctx)
    # While there are capabilities.
    scheduling.scheduler(ctx, clones_later=clones_later)
    security.labels(ctx)
    security.no_new_privileges(ctx)
    # The parent sets the limits at SYNC_READY: earlier they would apply to set-up itself
    # (RLIMIT_NOFILE, RLIMIT_AS), later init would lack CAP_SYS_RESOURCE. From here on init opens
    # no descriptor.
    process.rlimits(ctx)
    ctx.plan.sync_ready("(default)")
    # Dropping from the bounding set takes CAP_SETPCAP.
    security.bounding_set(ctx)
    process.groups(ctx)
    process.ids(ctx)
    # After the ids: changing those clears the effective and the ambient set (capabilities(7)).
    security.capabilities(ctx)
