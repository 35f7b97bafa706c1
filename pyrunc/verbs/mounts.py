"""`mounts`: add mounts to a container that has been created, and remove them again."""

from __future__ import annotations

from pyrunc import command, state
from pyrunc.errors import UsageError, show
from pyrunc.launch.added_mounts import Mounts
from pyrunc.spec import added_mounts, load

USAGE = "mounts add ID FILE | mounts remove ID FILE"
SUMMARY = "add mounts to a container, or remove those that were added; all of them or none"
ARGS = (3, 3)
FLAGS: tuple[command.Flag, ...] = ()
DETAILS = (
    "FILE is a JSON array of mounts as in /mounts of config.json; - reads stdin. `remove` uses only\n"
    "their destinations. The container is created, running or paused.",
)


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Dispatch."""
    what, id, path = args
    if what not in ("add", "remove"):
        raise UsageError(f"{show(what)}: expected add or remove")
    container = state.Store(state.root_dir(context.root)).open(id)
    entries = added_mounts.parse(load.read_document(added_mounts.SOURCE, path))
    with container:
        mounts = Mounts(container, context.log)
        if what == "add":
            mounts.add(entries)
        else:
            mounts.remove(entries)
    return 0
