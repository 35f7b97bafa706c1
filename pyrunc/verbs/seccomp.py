"""`seccomp`: what a profile does, which calls a program makes, and the profile that it needs."""

from __future__ import annotations

from pyrunc import command, interpreter
from pyrunc.errors import UsageError, show

USAGE = "seccomp explain [--json] BUNDLE [SYSCALL...] | seccomp check [OPTIONS] PROFILE"
USAGE += " | seccomp trace [OPTIONS] [-- COMMAND [ARG...]] | seccomp record [OPTIONS] [-- COMMAND [ARG...]]"
SUMMARY = "explain or check a seccomp profile, trace the system calls of a container, or record a profile"
ARGS = (1, command.ANY_NUMBER)
STDERR_IS_OURS = True
FLAGS: tuple[command.Flag, ...] = (
    ("bundle", "b", "DIR", "str", "trace, record: directory of config.json (default: the working directory)"),
    ("output", "o", "FILE", "str", "trace, record: write to FILE (default: stderr for trace, stdout for record)"),
    ("denied", "", "", "bool", "trace: only calls that the bundle's profile would deny"),
    ("libc", "", "NAME", "str", "check: the C library whose start-up needs calls (default: this host's)"),
    ("json", "", "", "bool", "print JSON"),
)
DETAILS = (
    """\
explain: the action for system calls and the rule that decides, on each architecture of the profile.  A SYSCALL is a
name, a number on this machine, NAME(ARG, ...) with arguments, or a line of the audit log with arch= and syscall=.
Without one: how many calls get which action.""",
    """\
check: names that do not exist, rules that others hide, conditions that are never or always true, and calls that
are denied although every program needs them to start.  PROFILE is a bundle, a config.json or a file with a profile.
The exit status is 1 for problems, but not for notes.""",
    """\
trace: run the bundle in the foreground, with COMMAND in place of /process/args if given, and print every system
call of its processes: time, pid, process, call, and the action and rule of the bundle's profile.  Every call
proceeds.  The first lines are calls of pyrunc's init after it loaded the filter.""",
    """\
record: run it the same way and write the smallest profile that allows the recorded calls.  If FILE exists, the
profile also allows what FILE allows.  Names count for every architecture in the profile.""",
    """\
To log denied calls without tracing, use `run --seccomp-log`, `create --seccomp-log` or the annotation
org.pyrunc.seccomp_log=true in config.json.  `ausearch -m SECCOMP`, or dmesg if auditd is not running, shows the
lines; pass one as the SYSCALL of explain.""",
    """\
A traced container cannot have a seccomp agent or load a filter with a listener itself, and `exec` into it fails.
Tracing can make a call fail with EINTR if a signal arrives whose handler lacks SA_RESTART.  The exit status is the
program's.""",
)
# Subcommand -> its own options, besides --json, and the number of its arguments.
COMMANDS = {
    "explain": ((), 1, command.ANY_NUMBER),
    "check": (("libc",), 1, 1),
    "trace": (("bundle", "output", "denied"), 0, command.ANY_NUMBER),
    "record": (("bundle", "output"), 0, command.ANY_NUMBER),
}


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Dispatch."""
    name, rest = args[0], args[1:]
    if name not in COMMANDS:
        raise UsageError(f"{show(name)}: expected {', '.join(list(COMMANDS)[:-1])} or {list(COMMANDS)[-1]}")
    flags, least, most = COMMANDS[name]
    for flag in values:
        if flag not in (*flags, "json"):
            raise UsageError(f"--{flag} is not an option of `seccomp {name}`")
    if not least <= len(rest) <= most:
        raise UsageError(f"{name}: expected {'at least ' if most > least else ''}{least} argument, got {len(rest)}")
    interpreter.complete()
    from pyrunc.seccomp_tools import commands

    run = {"explain": commands.explain, "check": commands.check, "trace": commands.trace, "record": commands.record}
    return run[name](context, values, rest)
