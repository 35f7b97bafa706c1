"""Device nodes and the links of /dev: the defaults every container has, then linux.devices."""

from __future__ import annotations

from pyrunc.plan.mounts import clean
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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.plan import Plan
    from pyrunc.plan.namespaces import Namespaces

S_IFIFO, S_IFCHR, S_IFBLK = 0o010000, 0o020000, 0o060000
KINDS = {"c": S_IFCHR, "u": S_IFCHR, "b": S_IFBLK, "p": S_IFIFO}
MODE = 0o666
# What an entry may leave open, and the policy bit for it.
_OPEN = (("fileMode", P_DEV_NODE_ANY_MODE), ("uid", P_DEV_NODE_ANY_UID), ("gid", P_DEV_NODE_ANY_GID))

# (path, major, minor): config-linux.md, Default Devices; console comes with the terminal, ptmx is a link
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
# What a config may have its own idea of.
_OURS = ("/dev/core", *(path for path, _, _ in DEFAULTS), *(link for _, link in LINKS))


def compile_devices(plan: Plan, linux: dict[str, Any], spaces: Namespaces, set_up_dev: bool) -> None:
    """DEV_NODE and DEV_LINK.

    Without ``set_up_dev`` /dev is bound from outside, usually the host's own: nothing is created there, because it
    would stay on the host, and what linux.devices lists there must be there with any mode and owner (policy DEFAULT
    and THERE).  In a user namespace mknod(2) is refused: the defaults are the host's, bound, and the others were made
    before (userns.nodes).
    """
    host = P_DEV_NODE_BIND_HOST if spaces.has("user") else 0
    configured = linux.get("devices") or ()
    taken = {clean(entry["path"]) for entry in configured}
    if set_up_dev:
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
        # /dev/ptmx leads to the container's own devpts, whatever node an engine lists for its device rules (runc).
        if at != "/dev/ptmx":
            made = index in spaces.nodes
            plan.dev_node(
                f"/linux/devices/{index}",
                policy=_policy(entry, host, made, foreign=not set_up_dev and at.startswith("/dev/")),
                number=index if made else 0,
                uid=entry.get("uid") or 0,
                gid=entry.get("gid") or 0,
                path=entry["path"],
                **numbers(entry),
            )
    if set_up_dev:
        for target, link in LINKS:
            if link == "/dev/ptmx" or link not in taken:
                plan.dev_link("(default device)", target=target, path=link)
        if "/dev/core" not in taken:
            plan.dev_link("(default device)", policy=P_DEV_LINK_IF_TARGET, target="/proc/kcore", path="/dev/core")


def _policy(entry: dict[str, Any], host: int, made: bool, foreign: bool) -> int:
    """Policy of DEV_NODE for an entry of linux.devices; ``foreign``: its directory is not ours to fill."""
    if foreign:
        return P_DEV_NODE_DEFAULT | P_DEV_NODE_THERE
    if entry["type"] == "p":  # mknod(2) makes them everywhere
        return 0
    policy = host | (P_DEV_NODE_MADE if made else 0)
    for field, bit in _OPEN:
        if entry.get(field) is None:
            policy |= bit
    return policy


def numbers(entry: dict[str, Any]) -> dict[str, int]:
    """``kind``, ``mode``, ``major`` and ``minor`` of an entry of linux.devices, as the steps have them."""
    kind, mode = KINDS[entry["type"]], entry.get("fileMode")
    fifo = kind == S_IFIFO  # has no numbers; runtime-tools sends some all the same
    return {
        "kind": kind,
        # podman sends st_mode as it is, with the file type in it
        "mode": MODE if mode is None else mode & 0o7777,
        "major": 0 if fifo else entry.get("major") or 0,
        "minor": 0 if fifo else entry.get("minor") or 0,
    }
