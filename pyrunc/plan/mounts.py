"""The root filesystem, the mounts, and the propagation around them."""

from __future__ import annotations

from pyrunc.plan.mount_options import (
    NODEV,
    NOEXEC,
    NOSUID,
    PRIVATE,
    PROPAGATIONS,
    RDONLY,
    RECURSIVE,
    SLAVE,
    UNBINDABLE,
    absolute,
    meant,
)
from pyrunc.plan.ops import (
    P_MOUNT_BIND,
    P_MOUNT_CGROUP,
    P_MOUNT_COPY_UP,
    P_MOUNT_HOST_BIND,
    P_MOUNT_IN_PROC,
    P_MOUNT_INHERIT_MODE,
    P_MOUNT_NEW_ROOT,
    P_MOUNT_PLAIN_DIR,
    P_MOUNT_RECURSIVE,
    P_MOUNT_REMOUNT,
    P_MOUNT_SOURCE_FD,
    P_PIVOT_CHROOT,
    P_PIVOT_MOVE,
    P_ROOT_CALLERS,
    P_ROOT_CWD,
    P_ROOT_SLAVE,
)
from pyrunc.plan.userns import enters_root
from pyrunc.spec.mappings import host_id
from pyrunc.spec.rules_mounts import PROC_FILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.host import HostFacts
    from pyrunc.plan import Plan
    from pyrunc.plan.context import Context, Namespaces
    from pyrunc.plan.mount_options import Mount

MAX_PROPAGATIONS = 8  # in a u32
_CGROUP_TYPES = ("cgroup", "cgroup2")
# Filesystems that show a namespace: its type, and where the host has them.
_OF_NAMESPACES = {"proc": ("pid", "/proc"), "mqueue": ("ipc", "/dev/mqueue"), "sysfs": ("network", "/sys")}
# The policy determines their labels; there, a context= option is an error or has no effect.
_UNLABELLED = ("proc", "sysfs", "cgroup", "cgroup2", "mqueue")


# -- the root filesystem ---------------------------------------------------------------------------


def limit_propagation(ctx: Context) -> None:
    """PROPAGATION: what the copied mounts of the host pass on.

    Before anything is mounted: later it would be a leak (runc 1.2).
    """
    plan = ctx.plan
    if not ctx.namespaces.has("mount"):
        plan.callers_mounts = True
        return
    name = ctx.linux.get("rootfsPropagation")
    if not name:
        plan.propagation("(default)", propagation=RECURSIVE | SLAVE)
        return
    pointer = "/linux/rootfsPropagation"
    value = PROPAGATIONS[name]
    if value & ~RECURSIVE == PRIVATE and ctx.options.no_pivot:
        # Without pivot_root the old root stays mounted below; the host's unmounts would not reach a
        # private one.
        plan.refuse(pointer, "another value together with --no-pivot", f'"{name}"')
    if value & ~RECURSIVE == UNBINDABLE:
        # Only for the container's own root (root_propagation): nothing could be bound from an
        # unbindable host root.
        value = RECURSIVE | SLAVE
    plan.propagation(pointer, propagation=value)


def bind_root(ctx: Context) -> None:
    """ROOT; for a container of an image also the overlay on top of the root directory."""
    plan, overlay = ctx.plan, ctx.options.overlay
    rootfs = absolute(ctx.options.bundle, ctx.config["root"]["path"])
    policy = _root_policy(ctx)
    plan.root("/root", policy=policy, path=rootfs)
    if overlay:
        if plan.callers_mounts:
            plan.refuse("/linux/namespaces", "a mount namespace for a container of an image")
        plan.mount("(--image)", policy=P_MOUNT_NEW_ROOT, fstype="overlay", source="overlay", dest="/", data=overlay)
        # The second ROOT takes the overlay, which now covers the directory.
        plan.root("/root", policy=policy & ~P_ROOT_CWD, path=rootfs)


def _root_policy(ctx: Context) -> int:
    """Policy of ROOT.

    The container's root receives mounts of the host only if rootfsPropagation is (r)slave. Without
    the field it is private, although the other copied mounts are slaves: a mount that the host
    makes in the root filesystem would appear in a running container. Without a mount namespace
    everything is mounted in the caller's, below this one bind; pyrunc/rootmount.py removes it.
    """
    if not ctx.namespaces.has("mount"):
        return P_ROOT_CALLERS
    slave = ctx.linux.get("rootfsPropagation") in ("slave", "rslave")
    return (P_ROOT_CWD if enters_root(ctx) else 0) | (P_ROOT_SLAVE if slave else 0)


def leave_old_root(ctx: Context) -> None:
    """PIVOT."""
    if not ctx.namespaces.has("mount"):
        ctx.plan.pivot("/root/path", policy=P_PIVOT_CHROOT)
    else:
        ctx.plan.pivot("/root/path", policy=P_PIVOT_MOVE if ctx.options.no_pivot else 0)


def remount_read_only(ctx: Context) -> None:
    """REMOUNT_RO for the mounts that had to be filled first."""
    for mount in ctx.read_only:
        ctx.plan.remount_ro(mount.pointer, attr_set=RDONLY, dest=mount.destination)


def root_propagation(ctx: Context) -> None:
    """ROOT_PROPAGATION: linux.rootfsPropagation for the container's own, already private root.

    Slave goes no deeper than the root: the mounts below have the propagation that their own options
    request.
    """
    name = ctx.linux.get("rootfsPropagation")
    if name and name not in ("private", "rprivate"):
        value = SLAVE if name in ("slave", "rslave") else PROPAGATIONS[name]
        ctx.plan.root_propagation("/linux/rootfsPropagation", propagation=value)


def read_only_root(ctx: Context) -> None:
    """ROOT_RO."""
    if ctx.config["root"].get("readonly"):
        ctx.plan.root_ro("/root/readonly")


# -- the entries of `mounts` -----------------------------------------------------------------------


def add_mounts(ctx: Context) -> list[Mount]:
    """MOUNT for every entry of `mounts`; returns those to make read-only once they are filled."""
    read_only = []
    for mount in ctx.mounts:
        flags = mount.flags
        _separate_from_host(ctx, mount)
        if flags.bind or flags.remount:
            flags.change(ctx.facts, replace=flags.remount)
        else:
            flags.fold()
        if flags.set & RDONLY and is_filled_first(mount):
            flags.set &= ~RDONLY
            read_only.append(mount)
        if flags.remount:
            _remount(ctx.plan, mount)
        elif flags.bind:
            _bind(ctx, mount)
        else:
            _filesystem(ctx, mount)
    if ctx.options.notify:
        _notify_socket(ctx)
    return read_only


def _separate_from_host(ctx: Context, mount: Mount) -> None:
    """Keep a mount from being a peer of the host's, which no option requests."""
    flags = mount.flags
    if ctx.plan.callers_mounts:
        if not flags.remount:
            # As in a new mount namespace. In a peer of the host's mount, later mounts would appear
            # on the host, and what is unmounted with the container would be gone there.
            flags.propagation.insert(0, RECURSIVE | SLAVE)
    elif ctx.linux.get("rootfsPropagation") and mount.is_new_bind() and not (flags.propagation or mount.is_idmapped()):
        # rootfsPropagation is about the root. It leaves the copied mounts of the host shared with
        # it, for binds that request "shared". From one that does not, a mask would appear on the
        # host and stay there.
        flags.propagation = [RECURSIVE | SLAVE]


def _emit(plan: Plan, mount: Mount, policy: int, data: list[str], tree: int = 0) -> None:
    """The step, with what the functions below have made of the entry."""
    flags = mount.flags
    if len(flags.propagation) > MAX_PROPAGATIONS:
        found = str(len(flags.propagation))
        plan.refuse(f"{mount.pointer}/options", f"at most {MAX_PROPAGATIONS} propagation options", found)
        return
    plan.mount(
        mount.pointer,
        policy=policy,
        attr_set=flags.set,
        attr_clr=flags.clr,
        implied=flags.implied,
        rec_set=flags.rec_set,
        rec_clr=flags.rec_clr,
        propagation=flags.nibbles(),
        tree=tree,
        fstype=mount.fstype,
        source=mount.source,
        dest=mount.destination,
        data=data,
    )


def _remount(plan: Plan, mount: Mount) -> None:
    """Change an existing mount: its attributes, and without `bind` the filesystem's options."""
    flags = mount.flags
    if flags.copy_up:
        plan.refuse(f"{mount.pointer}/options", '"tmpcopyup" on a new tmpfs only')
    if flags.bind:
        _warn_of_data(plan, mount)
        _emit(plan, mount, P_MOUNT_REMOUNT | P_MOUNT_BIND, [])
    else:
        _emit(plan, mount, P_MOUNT_REMOUNT, flags.super_flags() + flags.data)


def _bind(ctx: Context, mount: Mount) -> None:
    """A bind mount; the filesystem type is ignored, and "proc" makes init require a procfs."""
    plan, flags = ctx.plan, mount.flags
    mount.source = absolute(ctx.options.bundle, mount.source)
    mount.fstype = ""
    if flags.copy_up:
        plan.refuse(f"{mount.pointer}/options", '"tmpcopyup" on a tmpfs only')
    policy = P_MOUNT_BIND | (P_MOUNT_RECURSIVE if flags.recursive else 0)
    if mount.at == "/proc":
        policy |= P_MOUNT_PLAIN_DIR
        mount.fstype = "proc"
    elif mount.at in PROC_FILES:
        policy |= P_MOUNT_IN_PROC
    _warn_of_data(plan, mount)
    tree = ctx.trees.get(mount.pointer, 0)
    if mount.is_idmapped():
        # mount_setattr(2) requires CAP_SYS_ADMIN over the filesystem, so the host side makes the
        # mount.
        policy, tree = policy | P_MOUNT_SOURCE_FD, plan.fd("idmap", mount.source, mount.pointer)
        flags.propagation = flags.propagation or [RECURSIVE | PRIVATE]  # the host's later ones have other owners
    _emit(plan, mount, policy, [], tree)


def _warn_of_data(plan: Plan, mount: Mount) -> None:
    """Warn of options for a filesystem, which engines and the conformance suite send with binds."""
    data = mount.flags.data
    if data:
        words = ", ".join(data) + meant(data)
        plan.warn(f"{mount.pointer}/options", f"no effect on a bind mount: {words}")


def _filesystem(ctx: Context, mount: Mount) -> None:
    """A new filesystem."""
    plan, flags, fstype = ctx.plan, mount.flags, mount.fstype
    if flags.copy_up and fstype != "tmpfs":
        plan.refuse(f"{mount.pointer}/options", '"tmpcopyup" on a tmpfs only', f'type "{fstype}"')
    if fstype in _CGROUP_TYPES:
        _cgroup(ctx, mount)
        return
    policy = 0
    data = flags.super_flags() + flags.data
    if fstype in ("proc", "sysfs"):
        policy = P_MOUNT_PLAIN_DIR
    elif fstype == "tmpfs":
        policy = P_MOUNT_COPY_UP if flags.copy_up else 0
        if not any(item.startswith("mode=") for item in data):
            policy |= P_MOUNT_INHERIT_MODE
    host = host_source(fstype, ctx.facts, ctx.namespaces)
    if host:
        policy |= P_MOUNT_HOST_BIND
        mount.source = host
    if flags.set & RDONLY:
        # As mount(2) does: a superblock that is not read-only cannot open a read-only device.
        data.insert(0, "ro")
    label = ctx.linux.get("mountLabel", "") if ctx.facts.selinux else ""
    if label and fstype not in _UNLABELLED:
        # Without quotes: fsconfig(2) takes one value, so there is no comma to protect.
        data.append(f"context={label}")
    _emit(plan, mount, policy, data)
    if label and fstype == "mqueue" and not host:
        plan.mount_label("/linux/mountLabel", dest=mount.destination, label=label)


def _cgroup(ctx: Context, mount: Mount) -> None:
    """The cgroup v2 hierarchy, for both names of the type."""
    plan, spaces, flags = ctx.plan, ctx.namespaces, mount.flags
    mount.source = cgroup_source(plan.cgroup_path, ctx.facts, spaces)
    data = flags.super_flags() + flags.data
    if spaces.has("user") and not spaces.has("cgroup"):
        # It shows more than the container's own cgroup, and a user to whom a part of that is
        # delegated is the container's root (CVE-2023-25809).
        flags.set |= RDONLY
    if spaces.is_new("cgroup") and not flags.set & RDONLY and mount.at == "/sys/fs/cgroup":
        _own_cgroup(ctx)
    if mount.source and not spaces.has("cgroup") and not data:
        # A new mount from the initial cgroup namespace sets the options of the whole hierarchy to
        # its own: it clears nsdelegate and favordynmods on the host, and clearing the latter waits
        # for an RCU grace period of 10 ms (kernel: apply_cgroup_root_flags). The bind shows the
        # same tree and changes nothing.
        flags.change(ctx.facts, replace=True)
        flags.propagation = flags.propagation or [PRIVATE]  # like a new mount
        mount.fstype = ""
        _emit(plan, mount, P_MOUNT_BIND, [])
    else:
        mount.fstype = "cgroup2"
        # Never with "ro": the whole host shares the superblock.
        _emit(plan, mount, P_MOUNT_CGROUP, data)


def _own_cgroup(ctx: Context) -> None:
    """Give the cgroup to the container's user (config-linux.md, "Cgroup ownership").

    It is mounted writable, in a cgroup namespace of its own.
    """
    uid = host_id(ctx.linux.get("uidMappings"), ctx.user.get("uid", 0))
    if ctx.plan.cgroup_path and uid not in (-1, ctx.facts.euid):
        ctx.plan.cgroup_owner = uid


def _notify_socket(ctx: Context) -> None:
    """Bind the directory of the sd_notify socket, as systemd does; plan.environment names it."""
    ctx.plan.mount(
        "(NOTIFY_SOCKET)",
        policy=P_MOUNT_BIND,
        attr_set=RDONLY | NOSUID | NODEV | NOEXEC,
        propagation=RECURSIVE | SLAVE if ctx.plan.callers_mounts else 0,
        tree=ctx.trees.get("(NOTIFY_SOCKET)", 0),
        source=ctx.options.notify,
        dest="/run/notify",
    )


def host_source(fstype: str, facts: HostFacts, spaces: Namespaces) -> str:
    """The host's mount to bind if a new proc, sysfs or mqueue is refused (EPERM), or "".

    The kernel refuses those of the caller's namespaces. Not with a joined pid or ipc namespace,
    where the host's mount shows other processes. In a sysfs only the network devices differ.
    """
    kind, path = _OF_NAMESPACES.get(fstype, ("", ""))
    if not kind or spaces.is_new(kind) or (fstype != "sysfs" and spaces.has(kind)):
        return ""
    return path if spaces.has("user") or facts.rootless else ""


def is_filled_first(mount: Mount) -> bool:
    """Whether a read-only mount is filled first: a tmpfs with mounts, /dev with nodes."""
    flags = mount.flags
    return mount.at == "/dev" or (mount.fstype == "tmpfs" and not flags.bind and not flags.remount)


def cgroup_source(cgroup_path: str, facts: HostFacts, spaces: Namespaces) -> str:
    """The host's directory to bind if a cgroup2 mount is refused (EPERM, EBUSY), or "".

    It shows what a mount would show: the container's own cgroup with a cgroup namespace, the
    hierarchy without.
    """
    mount: str = facts.cgroup2_mount
    if not mount or not spaces.has("cgroup"):
        return mount
    path, root = cgroup_path or facts.own_cgroup, facts.cgroup2_root
    if root not in ("", "/"):  # the host's mount shows only a part of the hierarchy
        if path != root and not path.startswith(root + "/"):
            return ""
        path = path[len(root) :]
    return mount + path.rstrip("/")
