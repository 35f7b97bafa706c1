"""Mounts of a container that has been created: add some, or detach some that were added.

The mounts are those of plan/mounts.py, each in two steps: BUILD outside, where the sources are, and
ATTACH inside, where the destinations are.  No process of the container can see init, because it
does not enter the container's pid namespace: docs/adr/0031-added-mounts.md.
"""

from __future__ import annotations

from pyrunc.plan import mounts, namespaces, userns
from pyrunc.plan.context import Context
from pyrunc.plan.ops import OP_MOUNT, P_MOUNT_ATTACH, P_MOUNT_BUILD, P_MOUNT_REPORT, P_ROOT_NO_BIND, P_UNMOUNT_UNIQUE
from pyrunc.plan.userns import MAX_SLOTS
from pyrunc.spec.names import CAPABILITIES, CLONE_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyrunc.host import HostFacts
    from pyrunc.plan import Plan
    from pyrunc.plan.context import Options
    from pyrunc.spec.types import Config, Mount, Process

    Step = tuple[int, int, tuple[int, ...], tuple[object, ...]]

# The namespace that a new filesystem of this type shows.
SHOWS = {"sysfs": "network", "mqueue": "ipc", "cgroup": "cgroup", "cgroup2": "cgroup"}
_TREE = 6  # the number slot of MOUNT's tree
# To attach and detach mounts, and to create missing mount points.
_NEEDED = ("CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER")
_NO_PROCESS: Process = {}  # type: ignore[typeddict-item]  # no program is executed


def compile_add(config: Config, entries: list[Mount], facts: HostFacts, options: Options) -> Plan:
    """The plan that adds ``entries``, valid mounts, to the container of ``config``.

    ``options.joined`` has its user and mount namespace, and those of `SHOWS`. Raises ConfigError.
    """
    ctx = Context({**config, "mounts": entries}, _NO_PROCESS, facts, options)
    plan = ctx.plan
    plan.cgroup_path = options.cgroup_path
    ctx.read_mounts("")
    plan.dumpable("(default)", value=0)
    ctx.trees = userns.open_trees(ctx)
    namespaces.join(ctx, [entry for entry in options.joined if entry[0] != "mount"])
    # Also without a user namespace: a clone takes its propagation from the copy, as in `create`.
    plan.unshare("(default)", flags=CLONE_FLAGS["mount"])
    mounts.limit_propagation(ctx)
    first = len(plan.steps)
    ctx.read_only = mounts.add_mounts(ctx)
    later = _build(ctx, first)
    plan.cgroup_path = ""  # no cgroup is entered
    # The parent writes the state before the first mount appears in the container.
    plan.sync_mounted("(default)")
    enter(ctx)
    for (op, policy, numbers, strings), origin in later:
        plan.steps.append((op, policy, numbers, strings))
        plan.origins.append(origin)
    mounts.remount_read_only(ctx)
    leave(plan)
    return ctx.compiled()


def compile_remove(config: Config, found: Iterable[tuple[int, int, str]], facts: HostFacts, options: Options) -> Plan:
    """The plan that detaches mounts: (id, unique id or 0, path inside the container), in this
    order."""
    ctx = Context(config, _NO_PROCESS, facts, options)
    plan = ctx.plan
    plan.dumpable("(default)", value=0)
    namespaces.join(ctx, [entry for entry in options.joined if entry[0] != "mount"])
    enter(ctx)
    plan.sync_mounted("(default)")
    for id, unique, path in found:
        plan.unmount("(state)", policy=P_UNMOUNT_UNIQUE if unique else 0, id=unique or id, dest=path)
    leave(plan)
    return ctx.compiled()


def enter(ctx: Context) -> None:
    """JOIN_NS, ROOT, CAPS: from the host's mounts to the container's, with few capabilities."""
    namespaces.join(ctx, [entry for entry in ctx.options.joined if entry[0] == "mount"])
    ctx.plan.root("/root", policy=P_ROOT_NO_BIND, path="/")
    mask = 0
    for name in _NEEDED:
        mask |= 1 << CAPABILITIES.index(name)
    ctx.plan.caps("(default)", effective=mask, permitted=mask)


def leave(plan: Plan) -> None:
    """SYNC_READY, LEAVE: the parent looks at the mounts and writes the state, then init exits."""
    plan.sync_ready("(default)")
    plan.leave("(default)")


def _build(ctx: Context, first: int) -> list[tuple[Step, str]]:
    """Change the steps from ``first`` on to BUILD; returns those for the inside, with origins."""
    plan, later = ctx.plan, []
    slot = min(ctx.trees.values(), default=MAX_SLOTS)
    steps: Sequence[Step] = plan.steps[first:]
    origins = plan.origins[first:]
    del plan.steps[first:], plan.origins[first:]
    for (op, policy, numbers, strings), origin in zip(steps, origins, strict=True):
        if op != OP_MOUNT:  # a label, which is set by path
            later.append(((op, policy, numbers, strings), origin))
            continue
        tree = numbers[_TREE]
        if not tree:
            slot -= 1
            tree = slot
        numbers = (*numbers[:_TREE], tree, *numbers[_TREE + 1 :])
        plan.steps.append((op, policy | P_MOUNT_BUILD | P_MOUNT_REPORT, numbers, strings))
        plan.origins.append(origin)
        later.append(((op, policy | P_MOUNT_ATTACH, numbers, strings), origin))
    return later
