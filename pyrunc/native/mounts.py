"""Mounts: detached clones with mapped ids, and those for the layers of an image."""

from __future__ import annotations

from pyrunc.native.binding import calls

# (path, recursive): a descriptor of a detached clone of the mount at a path, or of the mounts below
# it as well.
open_tree = calls.open_tree
# (tree, recursive, userns): make a clone an idmapped mount, with the mapping of a user namespace.
map_ids = calls.mount_idmap
# (tree, flag): MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE for a clone and all mounts below
# it.
set_propagation = calls.mount_propagation
# (source, target, type, flags, data): mount(2); ``data`` may be longer than fsconfig(2) takes.
mount = calls.mount
# (target, flags): umount2(2).
unmount = calls.umount
