"""User namespaces: what is opened before one is entered, and who is who in it.  Not imported without one."""

from __future__ import annotations

from pyrunc.plan import devices
from pyrunc.plan.mounts import PRIVATE, RECURSIVE, SHARED, SLAVE, clean
from pyrunc.plan.ops import P_OPEN_TREE_RECURSIVE, P_UNSHARE_USER_DUMPABLE
from pyrunc.spec.mappings import map_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.host import HostFacts
    from pyrunc.plan import Plan
    from pyrunc.plan.create import Options
    from pyrunc.plan.namespaces import Namespaces

MAX_SLOTS = 250  # MAX_FDS of native/init/init.h
OWN_SLOTS = 50  # left to the descriptors that come with the plan


def place(plan: Plan, spaces: Namespaces) -> None:
    """PLACE: into the cgroup first of all, as the caller; CLONE_INIT's child is born where its parent is."""
    if plan.cgroup_path:
        slot = plan.fd("cgroup", plan.cgroup_path, "/linux/cgroupsPath")
        plan.place("/linux/cgroupsPath", cgroup_fd=slot)
        spaces.placed = True


def open_outside(plan: Plan, config: dict[str, Any], facts: HostFacts, options: Options, spaces: Namespaces) -> None:
    """OPEN_TREE for every bind mount, and ENTER_ROOT.

    Not for a user other than root: to clone mounts of the caller's namespace takes CAP_SYS_ADMIN in it, and what such
    a user can reach the container's root can reach as well.
    """
    if not spaces.is_new("mount"):
        return
    root: str = config["root"]["path"]
    plan.enter_root("/root", path=root if root.startswith("/") else f"{options.bundle}/{root}")
    spaces.root_in_cwd = True
    if facts.euid != 0:
        return
    slot = MAX_SLOTS
    propagation = clone_propagation((config.get("linux") or {}).get("rootfsPropagation") or "")
    wanted = [
        (f"/mounts/{index}", *source)
        for index, mount in enumerate(config.get("mounts") or ())
        if (source := bind_source(mount, options.bundle))
    ]
    if options.notify:
        wanted.append(("(NOTIFY_SOCKET)", options.notify, False))
    for pointer, path, recursive in wanted:
        slot -= 1
        if slot < OWN_SLOTS:
            break  # the rest has to be within reach
        policy = P_OPEN_TREE_RECURSIVE if recursive else 0
        plan.open_tree(pointer, policy=policy, slot=slot, propagation=propagation, path=path)
        spaces.trees[pointer] = slot


def nodes(plan: Plan, config: dict[str, Any], facts: HostFacts, spaces: Namespaces) -> None:
    """MAKE_NODE for linux.devices, with the ids that their owners have on the host.

    Only who may call mknod(2) can do without the host's nodes, whose owner and mode are not ours to change.  Without
    mappings in config.json the host's ids of a namespace that is joined are not known.
    """
    linux = config["linux"]
    uids, gids = linux.get("uidMappings"), linux.get("gidMappings")
    if facts.rootless or not spaces.is_new("mount") or not uids or not gids:
        return
    label = (linux.get("mountLabel") or "") if facts.selinux else ""
    bound = any(clean(mount["destination"]) == "/dev" and is_bind(mount) for mount in config.get("mounts") or ())
    for index, entry in enumerate(linux.get("devices") or ()):
        at = clean(entry["path"])
        if entry["type"] == "p" or at == "/dev/ptmx" or (bound and at.startswith("/dev/")):
            continue
        plan.make_node(
            f"/linux/devices/{index}",
            number=index,
            uid=host_id(uids, entry.get("uid") or 0),
            gid=host_id(gids, entry.get("gid") or 0),
            path=entry["path"],
            label=label,
            **devices.numbers(entry),
        )
        spaces.nodes.add(index)


def is_bind(mount: dict[str, Any]) -> bool:
    """Whether an entry of `mounts` is a new bind mount."""
    names = mount.get("options") or ()
    return (mount.get("type") == "bind" or "bind" in names or "rbind" in names) and "remount" not in names


def bind_source(mount: dict[str, Any], bundle: str) -> tuple[str, bool] | None:
    """(path, recursive) of a bind mount without an id mapping of its own (that one comes with the plan), else None."""
    names = mount.get("options") or ()
    if not is_bind(mount) or mount.get("uidMappings") or "idmap" in names or "ridmap" in names:
        return None
    source: str = mount["source"]
    return (source if source.startswith("/") else f"{bundle}/{source}"), "rbind" in names


def clone_propagation(name: str) -> int:
    """What a clone of a host mount needs to be what the new mount namespace would have made of it.

    In one that another user namespace owns a shared mount is a slave of the host's (mount_namespaces(7)); "shared"
    then makes it a peer of its own copies only.
    """
    if name in ("shared", "rshared"):
        return RECURSIVE | SLAVE | (RECURSIVE | SHARED) << 4
    return RECURSIVE | (PRIVATE if name in ("private", "rprivate") else SLAVE)


def enter(plan: Plan, facts: HostFacts, spaces: Namespaces) -> None:
    """UNSHARE_USER, after everything that can be joined with the caller's rights."""
    plan.new_userns = True
    plan.unshare_user(spaces.pointers["user"], policy=P_UNSHARE_USER_DUMPABLE if facts.euid != 0 else 0)


def host_id(mappings: list[dict[str, int]], inside: int) -> int:
    """The id outside of the user namespace; the same number without mappings, -1 for one that is not mapped."""
    return map_id(mappings, inside) if mappings else inside
