"""`create`: everything up to, and not including, the user's program."""

from __future__ import annotations

from pyrunc import command, launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = "create [OPTIONS] ID"
SUMMARY = "create a container, which then waits for start"
ARGS = (1, 1)
FLAGS: tuple[command.Flag, ...] = (
    ("bundle", "b", "DIR", "str", "directory of config.json (default: the working directory)"),
    ("config", "f", "FILE", "str", "the configuration, relative to the bundle or absolute (default config.json)"),
    ("console-socket", "", "PATH", "str", "unix socket that receives the terminal"),
    ("pidfd-socket", "", "PATH", "str", "unix socket that receives a pidfd of the container's first process"),
    ("pid-file", "", "FILE", "str", "write the pid of the container's first process to FILE"),
    ("no-pivot", "", "", "bool", "move the root instead of pivot_root(2), for a root filesystem on a ramdisk"),
    ("no-new-keyring", "", "", "bool", "keep the caller's session keyring"),
    ("preserve-fds", "", "N", "int", "pass N more descriptors, from 3 on, to the container"),
)


def main(context: command.Context, values: dict[str, Any], args: list[str]) -> int:
    """Create the container."""
    launch.create(command.created_by(context, args[0], values))
    return 0
