"""`exec`: run another process in a container."""

from __future__ import annotations

from pyrunc import command, fs
from pyrunc.errors import UsageError, show
from pyrunc.launch import exec

USAGE = "exec [OPTIONS] ID COMMAND [ARGUMENTS] | exec [OPTIONS] --process FILE ID"
SUMMARY = "run another process in a container; exit with its status"
ARGS = (1, command.ANY_NUMBER)
STOP_AT_FIRST = True  # the id is followed by a separate command line
FAILURE = 255  # as in runc; lets callers distinguish it from the program's own status 1
FLAGS: tuple[command.Flag, ...] = (
    ("process", "p", "FILE", "str", "the process as a JSON object like /process of config.json"),
    ("detach", "d", "", "bool", "return as soon as the program runs"),
    ("tty", "t", "", "bool", "give the process a terminal"),
    ("console-socket", "", "PATH", "str", "unix socket that receives the terminal"),
    ("pid-file", "", "FILE", "str", "write the pid of the process to FILE"),
    ("pidfd-socket", "", "PATH", "str", "unix socket that receives a pidfd of the process"),
    ("preserve-fds", "", "N", "int", "pass N more descriptors, starting at 3, to the process"),
    ("cwd", "", "DIR", "str", "working directory in the container"),
    ("env", "e", "NAME=VALUE", "multi", "add to the environment"),
    ("user", "u", "UID[:GID]", "str", "user and group, as numbers"),
    ("additional-gids", "g", "GID", "multi", "add a supplementary group"),
    ("cap", "c", "CAP", "multi", "add a capability to the bounding, effective and permitted sets"),
    ("no-new-privs", "", "", "bool", "the process cannot gain privileges"),
    ("apparmor", "", "PROFILE", "str", "AppArmor profile"),
    ("process-label", "", "LABEL", "str", "SELinux label"),
    ("cgroup", "", "[CTRL:]PATH", "multi", "run in this cgroup below the container's, which must exist"),
    ("tools", "", "DIR", "str", "bind this directory of the host for the process alone, and look programs up there"),
    ("ignore-paused", "", "", "bool", "accept a paused container; the process waits until it is resumed"),
)


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Run the process."""
    opts = exec.ExecOptions(args[0], context.log)
    opts.root, opts.args, opts.flags = context.root, args[1:], values
    if values.get("process"):
        opts.process = fs.abspath(values["process"])
    elif not opts.args:
        raise UsageError("expected a command or --process FILE")
    opts.detach, opts.ignore_paused = values.get("detach", False), values.get("ignore-paused", False)
    opts.pid_file, opts.console_socket = values.get("pid-file", ""), values.get("console-socket", "")
    opts.pidfd_socket, opts.preserve_fds = values.get("pidfd-socket", ""), values.get("preserve-fds", 0)
    opts.cgroup, opts.tools = values.get("cgroup", []), values.get("tools", "")
    if "tools" in values and not opts.tools.startswith("/"):
        raise UsageError(f"--tools {show(opts.tools)}: expected the absolute path of a directory")
    return exec.execute(opts)
