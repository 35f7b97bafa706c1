"""`resume`: thaw a paused container."""

from __future__ import annotations

from pyrunc import command, state
from pyrunc.container import lifecycle

USAGE = "resume ID"
SUMMARY = "resume all processes of a paused container"
ARGS = (1, 1)
STDERR_IS_OURS = True
FLAGS: tuple[command.Flag, ...] = ()


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Thaw the container; returns when its processes are running."""
    with state.Store(state.root_dir(context.root)).open(args[0]) as container:
        lifecycle.resume(container)
    return 0
