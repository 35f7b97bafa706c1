"""`checkpoint`: write the processes of a container to files with CRIU."""

from __future__ import annotations

from pyrunc import command, state

USAGE = "checkpoint [OPTIONS] ID"
SUMMARY = "write a container's processes to files, from which restore makes it again"
ARGS = (1, 1)
STDERR_IS_OURS = True
# Of both verbs; restore.py has the rest of its own.
SHARED: tuple[command.Flag, ...] = (
    ("image-path", "", "DIR", "str", "directory of the images (default: checkpoint)"),
    ("work-path", "", "DIR", "str", "directory of CRIU's log and statistics (default: that of the images)"),
    ("parent-path", "", "DIR", "str", "images of an earlier pre-dump, relative to --image-path"),
    ("tcp-established", "", "", "bool", "allow established TCP connections"),
    ("ext-unix-sk", "", "", "bool", "allow connections of unix sockets to the outside"),
    ("shell-job", "", "", "bool", "allow processes of the caller's terminal session"),
    ("file-locks", "", "", "bool", "handle file locks"),
    ("manage-cgroups-mode", "", "MODE", "str", "what CRIU does in cgroups: ignore (default), soft, full or strict"),
    ("empty-ns", "", "network", "multi", "accepted; a network namespace is always restored without its devices"),
    ("auto-dedup", "", "", "bool", "free the memory pages of the parent's images that are in this one"),
    ("lazy-pages", "", "", "bool", "restore memory pages when they are used"),
    ("network-lock", "", "METHOD", "str", "lock connections with iptables (default), nftables or skip"),
)
FLAGS: tuple[command.Flag, ...] = (
    *SHARED,
    ("leave-running", "", "", "bool", "do not delete the container"),
    ("pre-dump", "", "", "bool", "only write memory pages, for a later checkpoint with --parent-path"),
    ("page-server", "", "ADDRESS:PORT", "str", "send memory pages to a page server"),
    ("status-fd", "", "N", "int", "with --lazy-pages: write a NUL to this descriptor when the pages can be fetched"),
    ("tcp-skip-in-flight", "", "", "bool", "skip TCP connections that are not established yet"),
    ("link-remap", "", "", "bool", "link files that were deleted, where that is possible"),
)
DETAILS = (
    "The container is deleted afterwards, unless it is to be left running.  CRIU's messages are in dump.log.\n"
    "Processes that `exec` has started are not dumped.",
    "Settings in /etc/criu/pyrunc.conf, or runc.conf there, or the file that the annotation org.criu.config names,\n"
    "have precedence over these options.",
)


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Checkpoint the container."""
    from pyrunc.checkpoint import dump

    with state.Store(state.root_dir(context.root)).open(args[0]) as container:
        dump.checkpoint(container, values, context.log)
    return 0
