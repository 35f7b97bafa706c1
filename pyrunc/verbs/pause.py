"""`pause`: freeze every process of a container."""

from __future__ import annotations

from pyrunc import command, state
from pyrunc.container import lifecycle

USAGE = "pause ID"
SUMMARY = "suspend all processes of a running container"
ARGS = (1, 1)
STDERR_IS_OURS = True
FLAGS: tuple[command.Flag, ...] = ()


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Freeze the container; returns when all its processes are frozen."""
    with state.Store(state.root_dir(context.root)).open(args[0]) as container:
        lifecycle.pause(container)
    return 0
