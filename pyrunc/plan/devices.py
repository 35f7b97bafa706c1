"""Device nodes and the links of /dev: the defaults every container has, then linux.devices."""

from __future__ import annotations

from pyrunc.plan.mounts import clean
from pyrunc.plan.ops import P_DEV_LINK_IF_TARGET, P_DEV_NODE_BIND_HOST, P_DEV_NODE_DEFAULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.plan import Plan

S_IFIFO, S_IFCHR, S_IFBLK = 0o010000, 0o020000, 0o060000
KINDS = {"c": S_IFCHR, "u": S_IFCHR, "b": S_IFBLK, "p": S_IFIFO}
MODE = 0o666

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


def compile_devices(plan: Plan, linux: dict[str, Any], set_up_dev: bool, in_userns: bool = False) -> None:
    """DEV_NODE and DEV_LINK.

    Without ``set_up_dev`` /dev is bound from outside, usually the host's own: no defaults and no links go there, and
    what linux.devices lists there is compared, but keeps the mode and owner it has (policy DEFAULT).  In a user
    namespace no device can be made: the nodes are the host's, bound.
    """
    host = P_DEV_NODE_BIND_HOST if in_userns else 0
    configured = linux.get("devices") or ()
    taken = {path for entry in configured if (path := clean(entry["path"])) in _OURS}
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
        path = entry["path"]
        # /dev/ptmx leads to the container's own devpts, whatever node an engine lists for its device rules (runc).
        at = clean(path)
        if at != "/dev/ptmx":
            foreign = not set_up_dev and at.startswith("/dev/")
            policy = (P_DEV_NODE_DEFAULT if foreign else 0) | (host if entry["type"] != "p" else 0)
            _node(plan, f"/linux/devices/{index}", entry, path, policy)
    if set_up_dev:
        for target, link in LINKS:
            if link == "/dev/ptmx" or link not in taken:
                plan.dev_link("(default device)", target=target, path=link)
        if "/dev/core" not in taken:
            plan.dev_link("(default device)", policy=P_DEV_LINK_IF_TARGET, target="/proc/kcore", path="/dev/core")


def _node(plan: Plan, pointer: str, entry: dict[str, Any], path: str, policy: int) -> None:
    kind = KINDS[entry["type"]]
    mode = entry.get("fileMode")
    fifo = kind == S_IFIFO  # has no numbers; runtime-tools sends some all the same
    plan.dev_node(
        pointer,
        policy=policy,
        kind=kind,
        # podman sends st_mode as it is, with the file type in it
        mode=MODE if mode is None else mode & 0o7777,
        major=0 if fifo else entry.get("major") or 0,
        minor=0 if fifo else entry.get("minor") or 0,
        uid=entry.get("uid") or 0,
        gid=entry.get("gid") or 0,
        path=path,
    )
