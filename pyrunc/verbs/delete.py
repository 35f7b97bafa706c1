"""`delete`: remove a container and everything that create acquired."""

from __future__ import annotations

from pyrunc import command, state
from pyrunc.container import lifecycle

USAGE = "delete [OPTIONS] ID"
SUMMARY = "delete a container that has stopped or was never started"
ARGS = (1, 1)
STDERR_IS_OURS = True
FLAGS: tuple[command.Flag, ...] = (
    ("force", "f", "", "bool", "kill a running container first; an unknown id is not an error"),
)


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Delete the container."""
    store = state.Store(state.root_dir(context.root))
    if values.get("force"):
        lifecycle.delete_by_force(store, args[0], context.log)
    else:
        lifecycle.delete(store.open(args[0]), context.log)
    return 0
