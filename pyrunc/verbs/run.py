"""`run`: create and start, in the foreground unless --detach."""

from __future__ import annotations

from pyrunc import command
from pyrunc.launch import run
from pyrunc.verbs import create as create_verb

USAGE = "run [OPTIONS] ID | run [OPTIONS] --image IMAGE ID [COMMAND [ARG...]]"
SUMMARY = "create and start a container; exit with its program's status"
ARGS = (1, 1)
STOP_AT_FIRST = create_verb.STOP_AT_FIRST
STDERR_IS_OURS = True
FLAGS: tuple[command.Flag, ...] = (
    *create_verb.FLAGS,
    ("detach", "d", "", "bool", "return as soon as the program runs"),
    ("keep", "", "", "bool", "do not delete the container when its program ends"),
    ("no-subreaper", "", "", "bool", "do not adopt orphans of the container"),
)


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Run the container."""
    opts = command.run_options(context, args[0], values)
    if "image" not in values:
        return run.run(opts)
    from pyrunc.image import launch as from_image

    return from_image.launched(context, values, opts, args[1:], run.run)
