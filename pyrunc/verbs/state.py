"""`state`: print the state of a container as JSON."""

from __future__ import annotations

from pyrunc import command, jsontext, state

USAGE = "state ID"
SUMMARY = "show the state of a container as JSON"
ARGS = (1, 1)
FLAGS: tuple[command.Flag, ...] = ()


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Print the state."""
    container = state.Store(state.root_dir(context.root)).open(args[0])
    return command.out(jsontext.dumps(container.report(), "  ") + "\n")
