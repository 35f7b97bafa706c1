"""`exec --tools`: programs of the host for one process, in a mount namespace of its own.

The container's root filesystem may be read-only and may lack every directory that could be a mount
point, and a directory created for the purpose would be visible to the container.  Every procfs has
an empty directory for mounts, /proc/fs/nfsd, which the kernel keeps for the configuration of an NFS
server: docs/adr/0032-tools.md.
"""

from __future__ import annotations

from pyrunc.plan import namespaces
from pyrunc.plan.mount_options import NODEV, NOSUID, PRIVATE, RDONLY, RECURSIVE
from pyrunc.plan.ops import (
    P_MOUNT_ATTACH,
    P_MOUNT_BIND,
    P_MOUNT_BUILD,
    P_MOUNT_IN_PROC,
    P_MOUNT_PLAIN_DIR,
    P_MOUNT_RECURSIVE,
    P_MOUNT_SOURCE_FD,
)
from pyrunc.plan.userns import MAX_SLOTS
from pyrunc.spec.names import CLONE_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.context import Context

PLACE = "/proc/fs/nfsd"
_ORIGIN = "--tools"
_FLAGS = RDONLY | NOSUID | NODEV
_SLOT = MAX_SLOTS - 1


def search_path(path: str) -> str:
    """PATH with the directories of the tools first."""
    return f"{PLACE}/bin:{PLACE}/usr/bin:{PLACE}:{path}"


def join(ctx: Context) -> None:
    """JOIN_NS; then a private copy of the container's mounts.

    Root opens the directory on the host, with an id mapping if needed.  Another user may do so only
    in the container's user namespace, in a copy of the host's mounts, as in `create`.
    """
    plan, joined = ctx.plan, ctx.options.joined
    if ctx.facts.euid == 0:
        namespaces.join(ctx, joined)
    else:
        namespaces.join(ctx, [entry for entry in joined if entry[0] != "mount"])
        plan.unshare(_ORIGIN, flags=CLONE_FLAGS["mount"])
        _mount(ctx, P_MOUNT_BUILD | P_MOUNT_RECURSIVE, _SLOT)
        namespaces.join(ctx, [entry for entry in joined if entry[0] == "mount"])
    plan.unshare(_ORIGIN, flags=CLONE_FLAGS["mount"])
    # Otherwise the mount below would propagate to the container, if its root is shared.
    plan.propagation(_ORIGIN, propagation=RECURSIVE | PRIVATE)


def attach(ctx: Context) -> None:
    """MOUNT of the directory."""
    if ctx.facts.euid == 0:
        _mount(ctx, P_MOUNT_SOURCE_FD, ctx.plan.fd("tools", ctx.options.tools, _ORIGIN))
    else:
        _mount(ctx, P_MOUNT_ATTACH, _SLOT)


def _mount(ctx: Context, policy: int, slot: int) -> None:
    """MOUNT: without symbolic links on the way, and allowed in /proc."""
    ctx.plan.mount(
        _ORIGIN,
        policy=policy | P_MOUNT_BIND | P_MOUNT_IN_PROC | P_MOUNT_PLAIN_DIR,
        attr_set=_FLAGS,
        rec_set=_FLAGS,
        propagation=RECURSIVE | PRIVATE,
        tree=slot,
        source=ctx.options.tools,
        dest=PLACE,
    )
