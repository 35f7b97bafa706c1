"""`seccomp`: what a profile does, what a program asks for, and the profile that it needs."""

from __future__ import annotations

from pyrunc import command, interpreter
from pyrunc.errors import UsageError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = "seccomp explain [--json] BUNDLE [SYSCALL...] | seccomp check [OPTIONS] PROFILE"
USAGE += " | seccomp trace [OPTIONS] [-- COMMAND [ARG...]] | seccomp record [OPTIONS] [-- COMMAND [ARG...]]"
SUMMARY = "explain or check a seccomp profile, trace the system calls of a container, or record a profile"
ARGS = (1, command.ANY_NUMBER)
STDERR_IS_OURS = True
FLAGS: tuple[command.Flag, ...] = (
    ("bundle", "b", "DIR", "str", "trace, record: directory of config.json (default: the working directory)"),
    ("output", "o", "FILE", "str", "trace, record: write to FILE (default: stderr for trace, stdout for record)"),
    ("denied", "", "", "bool", "trace: only calls that the bundle's profile would not let pass"),
    ("libc", "", "NAME", "str", "check: the C library whose start-up needs calls (default: this host's)"),
    ("json", "", "", "bool", "print JSON"),
)
DETAILS = (
    """\
explain: the action that system calls get and the rule it comes from, on each architecture of the profile.  A
SYSCALL is a name, a number of this machine, NAME(ARG, ...) with arguments, or a line of the audit log with arch=
and syscall=.  Without one: how many calls get which action.""",
    """\
check: names that do not exist, rules that others hide, conditions that are never or always true, and calls that
get refused although no program starts without them.  PROFILE is a bundle, a config.json or a file with a profile.
Problems make the exit status 1, notes do not.""",
    """\
trace: run the bundle in the foreground, with COMMAND in place of /process/args if there is one, and print every
system call of its processes: time, pid, process, call, and what the bundle's profile would have done by which
rule.  Every call is let go on.  The first lines are those of pyrunc's init after it has loaded the filter.""",
    """\
record: run it the same way and write the smallest profile that lets pass what was seen.  If FILE is there, the
profile also lets pass what it has.  Names count for every architecture in the profile.""",
    """\
The kernel's own log needs no tracing: `run --seccomp-log`, `create --seccomp-log` or the annotation
org.pyrunc.seccomp_log=true in config.json.  `ausearch -m SECCOMP`, or dmesg where auditd does not run, shows the
lines; quote one as the SYSCALL of explain.""",
    """\
A container that is traced cannot have a seccomp agent or load a filter with a listener itself, and `exec` into
it fails.  A signal whose handler has no SA_RESTART can make a call fail with EINTR that otherwise would not.
The exit status is the program's.""",
)
# Subcommand -> its own options, besides --json, and how many arguments it takes.
COMMANDS = {
    "explain": ((), 1, command.ANY_NUMBER),
    "check": (("libc",), 1, 1),
    "trace": (("bundle", "output", "denied"), 0, command.ANY_NUMBER),
    "record": (("bundle", "output"), 0, command.ANY_NUMBER),
}


def main(context: command.Context, values: dict[str, Any], args: list[str]) -> int:
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
