"""User namespaces: steps that need the caller's rights, which the namespace takes away."""

from __future__ import annotations

from pyrunc.plan.mount_options import PRIVATE, RECURSIVE, SHARED, SLAVE, absolute
from pyrunc.plan.ops import P_OPEN_TREE_RECURSIVE, P_UNSHARE_USER_DUMPABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.context import Context

MAX_SLOTS = 250  # MAX_FDS of native/init/init.h
OWN_SLOTS = 50  # reserved for the descriptors that come with the plan


def enter_cgroup(ctx: Context) -> None:
    """PLACE: enter the cgroup as the caller; CLONE_INIT's child is born in its parent's."""
    plan = ctx.plan
    if plan.cgroup_path and ctx.namespaces.has("user"):
        plan.place("/linux/cgroupsPath", cgroup_fd=plan.fd("cgroup", plan.cgroup_path, "/linux/cgroupsPath"))


def enters_root(ctx: Context) -> bool:
    """Whether ENTER_ROOT opens the root directory, before the user namespace is entered."""
    return ctx.namespaces.has("user") and ctx.namespaces.is_new("mount")


def enter_root_directory(ctx: Context) -> None:
    """ENTER_ROOT: inside, root may be unable to reach the directory; unshare(2) keeps the cwd."""
    if enters_root(ctx):
        ctx.plan.enter_root("/root", path=absolute(ctx.options.bundle, ctx.config["root"]["path"]))


def open_trees(ctx: Context) -> dict[str, int]:
    """OPEN_TREE for every bind mount; returns the slot of each clone by the pointer of its mount.

    Only for root: cloning mounts of the caller's namespace takes CAP_SYS_ADMIN in it, and what
    another user can reach the container's root can reach as well. An idmapped mount comes with the
    plan instead.
    """
    trees: dict[str, int] = {}
    if not enters_root(ctx) or ctx.facts.euid != 0:
        return trees
    bundle, notify = ctx.options.bundle, ctx.options.notify
    wanted = [
        (mount.pointer, absolute(bundle, mount.source), mount.flags.recursive)
        for mount in ctx.mounts
        if mount.is_new_bind() and not mount.is_idmapped()
    ]
    if notify:
        wanted.append(("(NOTIFY_SOCKET)", notify, False))
    propagation = clone_propagation(ctx.linux.get("rootfsPropagation", ""))
    slot = MAX_SLOTS
    for pointer, path, recursive in wanted[: MAX_SLOTS - OWN_SLOTS]:  # the rest must be reachable
        slot -= 1
        policy = P_OPEN_TREE_RECURSIVE if recursive else 0
        ctx.plan.open_tree(pointer, policy=policy, slot=slot, propagation=propagation, path=path)
        trees[pointer] = slot
    return trees


def clone_propagation(name: str) -> int:
    """The propagation of a clone of a host mount, as in a new mount namespace.

    In a mount namespace that another user namespace owns, a shared mount is a slave of the host's
    (mount_namespaces(7)); "shared" then makes it a peer of its own copies only.
    """
    if name in ("shared", "rshared"):
        return RECURSIVE | SLAVE | (RECURSIVE | SHARED) << 4
    return RECURSIVE | (PRIVATE if name in ("private", "rprivate") else SLAVE)


def unshare(ctx: Context) -> None:
    """UNSHARE_USER, after everything that can be joined with the caller's rights."""
    if ctx.namespaces.is_new("user"):
        ctx.plan.new_userns = True
        policy = P_UNSHARE_USER_DUMPABLE if ctx.facts.euid != 0 else 0
        ctx.plan.unshare_user(ctx.namespaces.pointers["user"], policy=policy)
