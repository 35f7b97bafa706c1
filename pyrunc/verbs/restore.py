"""`restore`: make a container again from the files of a checkpoint."""

from __future__ import annotations

from pyrunc import command
from pyrunc.verbs import checkpoint

USAGE = "restore [OPTIONS] ID"
SUMMARY = "make a container again from the files of a checkpoint"
ARGS = (1, 1)
STDERR_IS_OURS = True
FLAGS: tuple[command.Flag, ...] = (
    ("bundle", "b", "DIR", "str", "directory of config.json (default: the working directory)"),
    ("config", "f", "FILE", "str", "use FILE, relative to the working directory, and not the bundle's config.json"),
    ("detach", "d", "", "bool", "return when the processes run"),
    ("pid-file", "", "FILE", "str", "write the pid of the container's first process to FILE"),
    ("console-socket", "", "PATH", "str", "unix socket that receives the terminal"),
    *checkpoint.SHARED,
    ("tcp-close", "", "", "bool", "restore TCP connections as closed ones"),
    ("lsm-profile", "", "TYPE:NAME", "str", "profile for the processes: apparmor:NAME or selinux:LABEL"),
    ("lsm-mount-context", "", "CONTEXT", "str", "SELinux context for the mounts"),
    ("no-subreaper", "", "", "bool", "do not adopt orphans of the container"),
    ("no-pivot", "", "", "bool", "accepted for engines; CRIU makes the root filesystem"),
    ("no-new-keyring", "", "", "bool", "accepted for engines; CRIU does not make keyrings"),
    ("preserve-fds", "", "N", "int", "accepted for engines; CRIU restores the descriptors that were open"),
)


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Restore the container."""
    from pyrunc.checkpoint import restore

    return restore.restored(command.run_options(context, args[0], values), values)
