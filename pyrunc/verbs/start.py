"""`start`: execute the program of a created container."""

from __future__ import annotations

from pyrunc import command, state
from pyrunc.container import lifecycle

USAGE = "start ID"
SUMMARY = "execute the program of a created container"
ARGS = (1, 1)
STDERR_IS_OURS = True
FLAGS: tuple[command.Flag, ...] = ()


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Start the container; returns when its program has been executed."""
    with state.Store(state.root_dir(context.root)).open(args[0]) as container:
        lifecycle.start(container, context.log)
    return 0
