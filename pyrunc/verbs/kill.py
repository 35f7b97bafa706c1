"""`kill`: send a signal to a container."""

from __future__ import annotations

from pyrunc import command, signals, state
from pyrunc.container import lifecycle

USAGE = "kill [OPTIONS] ID [SIGNAL]"
SUMMARY = "send a signal (default SIGTERM) to the container's first process"
ARGS = (1, 2)
STDERR_IS_OURS = True
FLAGS: tuple[command.Flag, ...] = (
    ("all", "a", "", "bool", "signal every process of the container, even if the first one has ended"),
)


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Send the signal."""
    number = signals.number(args[1] if len(args) > 1 else "TERM")
    container = state.Store(state.root_dir(context.root)).open(args[0])
    lifecycle.kill(container, number, everyone=values.get("all", False))
    return 0
