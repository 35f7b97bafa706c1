"""Device nodes and the links of /dev: the defaults that every container has, then linux.devices."""

from __future__ import annotations

from pyrunc.plan.mount_options import clean
from pyrunc.plan.ops import (
    P_DEV_LINK_IF_TARGET,
    P_DEV_NODE_ANY_GID,
    P_DEV_NODE_ANY_MODE,
    P_DEV_NODE_ANY_UID,
    P_DEV_NODE_BIND_HOST,
    P_DEV_NODE_DEFAULT,
    P_DEV_NODE_MADE,
    P_DEV_NODE_THERE,
)
from pyrunc.spec.mappings import host_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.context import Context
    from pyrunc.spec.types import Device

S_IFIFO, S_IFCHR, S_IFBLK = 0o010000, 0o020000, 0o060000
KINDS = {"c": S_IFCHR, "u": S_IFCHR, "b": S_IFBLK, "p": S_IFIFO}
MODE = 0o666

# (path, major, minor): config-linux.md, Default Devices; console comes with the terminal, ptmx is a
# link
DEFAULTS = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)


def make_nodes(ctx: Context) -> set[int]:
    """MAKE_NODE for linux.devices; returns the indexes of these devices.

    The ids of their owners are those on the host. mknod(2) is refused in a user namespace, and the
    owner and mode of the host's nodes are not ours to change, so whoever may call it does so
    before. The host's ids are only known if config.json has the mappings.
    """
    linux, made = ctx.linux, set[int]()
    uids, gids = linux.get("uidMappings"), linux.get("gidMappings")
    spaces = ctx.namespaces
    if not spaces.has("user") or ctx.facts.rootless or not spaces.is_new("mount") or not uids or not gids:
        return made
    label = linux.get("mountLabel", "") if ctx.facts.selinux else ""
    for index, entry in enumerate(linux.get("devices", ())):
        at = clean(entry["path"])
        if entry["type"] == "p" or at == "/dev/ptmx" or (at.startswith("/dev/") and not ctx.fills_dev):
            continue
        ctx.plan.make_node(
            f"/linux/devices/{index}",
            number=index,
            uid=host_id(uids, entry.get("uid", 0)),
            gid=host_id(gids, entry.get("gid", 0)),
            path=entry["path"],
            label=label,
            **numbers(entry),
        )
        made.add(index)
    return made


def fill_dev(ctx: Context) -> None:
    """DEV_NODE and DEV_LINK.

    If /dev is bound from outside it is usually the host's own: nothing is created there, because it
    would stay on the host, and what linux.devices lists there must exist with any mode and owner
    (policy DEFAULT and THERE). In a user namespace the default devices are the host's, bound, and
    the others come from `make_nodes`.
    """
    plan, fills_dev = ctx.plan, ctx.fills_dev
    host = P_DEV_NODE_BIND_HOST if ctx.namespaces.has("user") else 0
    configured = ctx.linux.get("devices", ())
    taken = {clean(entry["path"]) for entry in configured}
    if fills_dev:
        for path, major, minor in DEFAULTS:
            if path not in taken:
                plan.dev_node(
                    "(default device)",
                    policy=P_DEV_NODE_DEFAULT | host,
                    kind=S_IFCHR,
                    mode=MODE,
                    major=major,
                    minor=minor,
                    path=path,
                )
    for index, entry in enumerate(configured):
        at = clean(entry["path"])
        # /dev/ptmx is the container's own devpts, whatever node an engine lists for its device
        # rules (as in runc).
        if at != "/dev/ptmx":
            made = index in ctx.nodes
            foreign = not fills_dev and at.startswith("/dev/")
            plan.dev_node(
                f"/linux/devices/{index}",
                policy=P_DEV_NODE_DEFAULT | P_DEV_NODE_THERE if foreign else _policy(entry, host, made),
                number=index if made else 0,
                uid=entry.get("uid", 0),
                gid=entry.get("gid", 0),
                path=entry["path"],
                **numbers(entry),
            )
    if fills_dev:
        for target, link in LINKS:
            if link == "/dev/ptmx" or link not in taken:
                plan.dev_link("(default device)", target=target, path=link)
        if "/dev/core" not in taken:
            plan.dev_link("(default device)", policy=P_DEV_LINK_IF_TARGET, target="/proc/kcore", path="/dev/core")


def _policy(entry: Device, host: int, made: bool) -> int:
    """Policy of DEV_NODE for an entry of linux.devices; absent fields may have any value."""
    if entry["type"] == "p":  # mknod(2) may create fifos everywhere
        return 0
    return (
        host
        | (P_DEV_NODE_MADE if made else 0)
        | (P_DEV_NODE_ANY_MODE if "fileMode" not in entry else 0)
        | (P_DEV_NODE_ANY_UID if "uid" not in entry else 0)
        | (P_DEV_NODE_ANY_GID if "gid" not in entry else 0)
    )


def numbers(entry: Device) -> dict[str, int]:
    """``kind``, ``mode``, ``major`` and ``minor`` of a step for an entry of linux.devices."""
    kind = KINDS[entry["type"]]
    fifo = kind == S_IFIFO  # has no numbers; runtime-tools sends some all the same
    return {
        "kind": kind,
        # podman sends all of st_mode, with the file type
        "mode": entry.get("fileMode", MODE) & 0o7777,
        "major": 0 if fifo else entry.get("major", 0),
        "minor": 0 if fifo else entry.get("minor", 0),
    }
