"""`seccomp`: what a profile does, what a program asks for, and the profile that it needs."""

from __future__ import annotations

from pyrunc import command, runtime
from pyrunc.errors import UsageError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = "seccomp [OPTIONS] explain BUNDLE [SYSCALL...] | seccomp [OPTIONS] check PROFILE"
SUMMARY = "explain or check a seccomp profile"
ARGS = (1, command.ANY_NUMBER)
FLAGS: tuple[command.Flag, ...] = (
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
)
# Subcommand -> its own options, besides --json, and how many arguments it takes.
COMMANDS = {
    "explain": ((), 1, command.ANY_NUMBER),
    "check": (("libc",), 1, 1),
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
    runtime.full()
    return {"explain": explain, "check": check}[name](values, rest)


def explain(values: dict[str, Any], args: list[str]) -> int:
    """`seccomp explain`."""
    import json

    from pyrunc.seccomp_tools import explain, profile

    filter = profile.open_filter(args[0])
    if len(args) > 1:
        found = explain.answers(filter, args[1:])
        document: Any = {"source": filter.source, "calls": [answer.as_json() for answer in found]}
        lines = explain.lines(found)
    else:
        summaries = [explain.Summary(filter, arch) for arch in filter.arches]
        document = {
            "source": filter.source,
            "default": explain.filter_default(filter),
            "architectures": [summary.as_json() for summary in summaries],
        }
        lines = explain.summary_lines(filter, summaries)
    return command.out(json.dumps(document, indent=2) + "\n" if values.get("json") else "\n".join(lines) + "\n")


def check(values: dict[str, Any], args: list[str]) -> int:
    """`seccomp check`: exit status 1 with problems."""
    import json

    from pyrunc.seccomp_tools import check, profile

    filter = profile.open_filter(args[0])
    findings = check.findings(filter, values.get("libc", ""))
    problems = sum(finding.level == "problem" for finding in findings)
    if values.get("json"):
        rows = [finding.as_json() for finding in findings]
        command.out(json.dumps({"source": filter.source, "problems": problems, "findings": rows}, indent=2) + "\n")
    else:
        command.out("".join(f"{finding}\n" for finding in findings) or f"{filter.source}: no findings\n")
    return 1 if problems else 0
