"""The state directory: who owns an id, what was created for it, and the container's status.

``ROOT/ID/`` holds ``state.json`` (ours), ``config.json`` (the bytes that were used), the fifos
``start`` and ``error``, ``notify/`` and ``intent.json`` (an older copy of state.json, which `delete
--force` uses if state.json is damaged). The exclusive mkdir of ``ROOT/ID`` takes the id; a flock on
it orders the verbs. The status is derived from the process each time and never taken from the file
alone: a reboot, a SIGKILL and pid reuse make the file wrong.
"""

from __future__ import annotations

from pyrunc.errors import Busy, Damaged, NotFound
from pyrunc.state.container import LOCK_TIMEOUT, Container
from pyrunc.state.document import check_id, now, oci_state, split_state
from pyrunc.state.root import root_dir
from pyrunc.state.store import Store

__all__ = [
    "LOCK_TIMEOUT",
    "Busy",
    "Container",
    "Damaged",
    "NotFound",
    "Store",
    "check_id",
    "now",
    "oci_state",
    "root_dir",
    "split_state",
]
