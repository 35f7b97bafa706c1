"""The process of an `exec`: a process.json, or the container's own process changed by the command
line.

Both result in an object like config.json's ``process`` that passes the same rules.
"""

from __future__ import annotations

from pyrunc.errors import ConfigError, Problem, UsageError
from pyrunc.spec import names, rules_process
from pyrunc.spec.report import Report, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal

    from pyrunc.errors import Capped
    from pyrunc.spec.report import Facts
    from pyrunc.spec.types import Capabilities, Process, User

    Values = Mapping[str, Any]  # as command.Values

# Fields that a process.json inherits from the container if they are absent, as in runc. Limits are
# not among them, nor is noNewPrivileges, which is omitted when it is false.
_INHERITED = (
    "capabilities",
    "apparmorProfile",
    "selinuxLabel",
    "oomScoreAdj",
    "scheduler",
    "ioPriority",
    "execCPUAffinity",
)


def parse(data: bytes, source: str) -> Process:
    """Parse a process.json. Raises ConfigError with every type error; `check` applies the rules."""
    from pyrunc.spec import load, schema, structure

    process: Process = load.parse_json(data, source)
    report = Report()
    known: Process = structure.structure(schema.PROCESS, process, "/process", report.problems)
    if type(known) is not dict:
        raise ConfigError([Problem("", "object", describe(process))], source)
    if report.problems:
        report.reported = tuple(problem.pointer for problem in report.problems)
        if not report.problems.full():
            rules_process.check(known, report)
        raise ConfigError(report.problems, source)
    return process


def inherit(process: Process, container: Process) -> Process:
    """Complete a process.json with the members that it inherits from the container's process."""
    out: Process = {**process}
    for name in _INHERITED:
        # An empty label counts as absent; an empty object does not: {} as capabilities means none.
        if out.get(name, "") == "" and name in container:
            out[name] = container[name]  # type: ignore[literal-required]  # of the same member
    user: User = {**out.get("user", {})}
    own = container.get("user", {})
    if "umask" not in user and "umask" in own:
        user["umask"] = own["umask"]
    out["user"] = user
    return out


def build(container: Process, args: list[str], flags: Values) -> Process:
    """The container's own process with the arguments and flags of the command line. Raises
    UsageError."""
    out: Process = {**container}
    out["args"] = args
    out["cwd"] = flags.get("cwd") or out.get("cwd") or "/"
    out["env"] = [*out.get("env", ()), *flags.get("env", ())]
    out["terminal"] = bool(flags.get("tty"))  # not inherited: the container's own terminal is in use
    if "no-new-privs" in flags:
        out["noNewPrivileges"] = flags["no-new-privs"]
    if flags.get("apparmor"):
        out["apparmorProfile"] = flags["apparmor"]
    if flags.get("process-label"):
        out["selinuxLabel"] = flags["process-label"]
    if flags.get("cap"):
        out["capabilities"] = _with_caps(out.get("capabilities", {}), flags["cap"])
    out["user"] = _user({**out.get("user", {})}, flags)
    return out


def _with_caps(sets: Capabilities, added: list[str]) -> Capabilities:
    """Add capabilities, but never to the inheritable set: files could then give them to any user
    (CVE-2022-29162)."""
    out: Capabilities = {**sets}
    kind: Literal["bounding", "effective", "permitted"]
    for kind in ("bounding", "effective", "permitted"):
        out[kind] = [*out.get(kind, ()), *added]
    if out.get("inheritable"):
        out["ambient"] = [*out.get("ambient", ()), *added]
    return out


def _user(user: User, flags: Values) -> User:
    """Parse --user and --additional-gids.

    Only plain numbers: a name would be looked up in a file that the container controls
    (CVE-2016-3697), and a lenient parser once turned "1" into 0 (CVE-2026-30892).
    """
    option = "--user"
    try:
        if "user" in flags:
            user["uid"], gid = names.parse_user(flags["user"])
            if gid is not None:
                user["gid"] = gid
        option = "--additional-gids"
        more = [names.parse_id(text) for text in flags.get("additional-gids", ())]
    except UsageError as error:
        raise UsageError(f"{option} {error}") from None
    if more:
        user["additionalGids"] = [*user.get("additionalGids", ()), *more]
    return user


def check(process: Process, facts: Facts, source: str) -> Capped:
    """Apply the rules of `process` (runtime-spec), and those of this host. Returns the warnings.
    Raises ConfigError."""
    report = Report(facts)
    rules_process.check(process, report)
    if report.problems:
        raise ConfigError(report.problems, source)
    return report.warnings
