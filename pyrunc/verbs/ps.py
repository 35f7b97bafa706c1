"""`ps`: list the processes of a container by their host pids."""

from __future__ import annotations

import posix

from pyrunc import command, fs, jsontext, state
from pyrunc.container import processes
from pyrunc.errors import PyruncError, UsageError, errno_text, printable, show

USAGE = "ps [OPTIONS] ID [PS OPTIONS]"
SUMMARY = "list the processes of a container; options after ID go to ps(1) (default -ef)"
ARGS = (1, command.ANY_NUMBER)
STOP_AT_FIRST = True  # `ps ID -aux`
FLAGS: tuple[command.Flag, ...] = (
    ("format", "f", "FORMAT", "str", "table (default: lines of ps(1)) or json (an array of pids)"),
)
SIGPIPE = 13  # Python ignores these signals, and ps would inherit that


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Print the processes; an empty list is not an error."""
    format = values.get("format", "table")
    if format not in ("table", "json"):
        raise UsageError(f"--format {show(format)}: expected table or json")
    container = state.Store(state.root_dir(context.root)).open(args[0])
    pids, where = processes.pids(container)
    if where:
        context.log.warning(f"container {container.id} has no cgroup of its own: these are the processes of {where}")
    if format == "json":
        return command.out(jsontext.dumps(pids) + "\n")
    return command.out(table(run_ps(args[1:] or ["-ef"]), set(pids)))


def run_ps(options: list[str]) -> str:
    """The output of the host's ps(1). Raises PyruncError."""
    reader, writer = posix.pipe()
    try:
        actions = [(posix.POSIX_SPAWN_DUP2, writer, 1), (posix.POSIX_SPAWN_DUP2, writer, 2)]
        pid = posix.posix_spawnp("ps", ["ps", *options], posix.environ, file_actions=actions, setsigdef=[SIGPIPE])
    except OSError as error:
        posix.close(reader)
        number = error.errno or 0
        raise PyruncError(f"cannot execute ps: {errno_text(number)}; install procps, or use --format json") from error
    finally:
        posix.close(writer)
    try:
        text = fs.read_fd(reader).decode("utf-8", "surrogateescape")
    finally:
        posix.close(reader)
        status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    if status != 0:
        first = next((line for line in text.splitlines() if line.strip()), "")
        raise PyruncError(f"ps {' '.join(options)} failed with status {status}: {printable(first.strip())}")
    return text


def table(text: str, pids: set[int]) -> str:
    """The header, and the lines whose PID column holds one of ``pids``. Raises PyruncError without
    that column."""
    header, *lines = text.splitlines() or [""]
    titles = header.split()
    if "PID" not in titles:
        raise PyruncError(f"the output of ps has no PID column: {printable(header)}")
    column, end = titles.index("PID"), header.find("PID") + 3
    return "".join(f"{line}\n" for line in [header, *(line for line in lines if pid_of(line, column, end) in pids)])


def pid_of(line: str, column: int, end: int) -> int:
    """The pid in a line: the field of that number, or, if another field contains blanks, the text
    that ends below the title."""
    fields = line.split()
    below = line[:end].split()
    for word in (fields[column] if column < len(fields) else "", below[-1] if below else ""):
        if word.isascii() and word.isdigit():
            return int(word)
    return -1
