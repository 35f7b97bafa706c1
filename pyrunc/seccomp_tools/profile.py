"""A profile with its compiled program: the action for a call, and the rule that decides."""

from __future__ import annotations

import posix

from pyrunc import fs, seccomp
from pyrunc.errors import ConfigError, Problem, PyruncError, errno_name, show
from pyrunc.seccomp_tools import calls
from pyrunc.seccomp_tools.bpf import ACTION, DATA, VALUE, Program
from pyrunc.spec import load, rules_linux, schema
from pyrunc.spec.report import Report
from pyrunc.spec.structure import structure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.seccomp_tools.calls import Arch
    from pyrunc.spec.types import Seccomp, SyscallArg, SyscallRule

ALLOW, LOG, ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_ERRNO"
PASSING = (ALLOW, LOG)
_ACTIONS = {value: name for name, value in seccomp.ACTIONS.items()}  # KILL_THREAD replaces the older KILL
_ENOSYS = seccomp.ACTIONS[ERRNO] | seccomp.ENOSYS
_NO_ARGS = (0, 0, 0, 0, 0, 0)


class Verdict:
    """The decision for a call, and its reason."""

    __slots__ = ("action", "errno", "pointer", "why")

    def __init__(self, answer: int, pointer: str, why: str = "") -> None:
        self.action = _ACTIONS.get(answer & ACTION, f"action {answer & ACTION:#x}")  # SCMP_ACT_*
        self.errno: int | None = answer & VALUE if self.action in seccomp.WITH_ERRNO else None
        self.pointer = pointer  # of the rule, /defaultAction, /architectures, or the profile itself
        self.why = why  # in words, if the pointer does not suffice

    @property
    def passes(self) -> bool:
        """Whether the call is executed."""
        return self.action in PASSING

    @property
    def text(self) -> str:
        """``SCMP_ACT_ERRNO EPERM``."""
        if self.errno is None:
            return self.action
        return f"{self.action} {errno_name(self.errno) if self.action == ERRNO else self.errno}"

    def as_json(self) -> dict[str, object]:
        """Action, errno (null for actions without one), rule, why."""
        return {"action": self.action, "errno": self.errno, "rule": self.pointer, "why": self.why}


class Filter:
    """A valid profile, compiled.

    ``base``: the JSON pointer of the profile in its document.
    """

    __slots__ = ("_naming", "arches", "base", "default", "native", "profile", "program", "rules", "source")

    def __init__(self, profile: Seccomp, base: str, source: str) -> None:
        """Compile a profile. Raises ConfigError if libseccomp cannot compile it, PyruncError."""
        self.profile, self.base, self.source = profile, base, source
        self.rules = profile.get("syscalls", [])
        known = calls.all_arches()
        self.native = calls.native()
        names = dict.fromkeys([self.native.name, *profile.get("architectures", ())])
        try:
            program, _, _ = seccomp.compile_filter(profile, cache_dir=seccomp.cache_dir())
        except ConfigError as error:
            for problem in error.problems:
                problem.pointer = base + problem.pointer.removeprefix(seccomp.POINTER)
            raise ConfigError(error.problems, source) from error
        self.arches = [known[name] for name in names]
        self.program = Program(program)
        self.default = seccomp.encode_action(profile["defaultAction"], profile.get("defaultErrnoRet"))
        self._naming: dict[str, list[int]] = {}
        for index, rule in enumerate(self.rules):
            for name in dict.fromkeys(rule["names"]):
                self._naming.setdefault(name, []).append(index)

    def pointer(self, index: int) -> str:
        """The name of a rule's action."""
        return f"{self.base}/syscalls/{index}"

    def answer(self, audit: int, number: int, args: Sequence[int] = _NO_ARGS) -> int:
        """The compiled filter's SECCOMP_RET_* for a call in the kernel's numbering."""
        return self.program.answer(DATA.pack(number & 0xFFFFFFFF, audit, 0, *args))

    def naming(self, arch: Arch, number: int, first: int = 0) -> list[int]:
        """The rules that name a call, in order; ``first``: its first argument."""
        found: set[int] = set()
        for name in arch.names_of(number, first):
            found.update(self._naming.get(name, ()))
        return sorted(found)

    def action(self, index: int) -> int:
        """SECCOMP_RET_* with its data for a rule."""
        rule = self.rules[index]
        return seccomp.encode_action(rule["action"], rule.get("errnoRet"))

    def decide(self, audit: int, number: int, args: Sequence[int] = _NO_ARGS) -> Verdict:
        """The decision for a call in the kernel's numbering: AUDIT_ARCH_*, number, six arguments.

        The action comes from the compiled filter. The rule is the first one that names the call,
        whose conditions are met and that has this action: libseccomp merges rules and does not
        report which one it used.
        """
        answer = self.answer(audit, number, args)
        arch = calls.arch_of(self.arches, audit, number)
        if arch is None:
            return Verdict(answer, f"{self.base}/architectures", "an architecture that the profile does not have")
        for index in self.naming(arch, number, args[0]):
            if self.action(index) == answer and met(self.rules[index], args):
                return Verdict(answer, self.pointer(index))
        if answer == self.default:
            return Verdict(answer, f"{self.base}/defaultAction", "no rule for it")
        if answer == _ENOSYS:
            return Verdict(answer, self.base or "/", "newer than every call that the profile names")
        return Verdict(answer, self.base or "/")


def met(rule: SyscallRule, args: Sequence[int]) -> bool:
    """Whether the arguments of a call satisfy a rule.

    Conditions on the same argument are alternatives, as in runc; see `seccomp.FlatProfile`.
    """
    conditions = rule.get("args") or ()
    results = [holds(condition, args[condition["index"]]) for condition in conditions]
    return any(results) if either(conditions) else all(results)


def either(conditions: Sequence[SyscallArg]) -> bool:
    """Whether one satisfied condition of a rule is enough."""
    return len({condition["index"] for condition in conditions}) != len(conditions)


def holds(condition: SyscallArg, value: int) -> bool:
    """Whether one condition holds for an argument."""
    op, wanted = condition["op"], condition["value"]
    if op == "SCMP_CMP_MASKED_EQ":
        return bool(value & wanted == condition.get("valueTwo", 0))
    results = {
        "SCMP_CMP_NE": value != wanted,
        "SCMP_CMP_LT": value < wanted,
        "SCMP_CMP_LE": value <= wanted,
        "SCMP_CMP_EQ": value == wanted,
        "SCMP_CMP_GE": value >= wanted,
        "SCMP_CMP_GT": value > wanted,
    }
    return bool(results[op])


_SIGNS = {
    "SCMP_CMP_NE": "!=",
    "SCMP_CMP_LT": "<",
    "SCMP_CMP_LE": "<=",
    "SCMP_CMP_EQ": "==",
    "SCMP_CMP_GE": ">=",
    "SCMP_CMP_GT": ">",
}


def words(conditions: Sequence[SyscallArg]) -> str:
    """The conditions of a rule: ``arg0 == 1 and arg1 & 0xf == 2``."""
    texts = []
    for condition in conditions:
        name, value = f"arg{condition['index']}", number(condition["value"])
        if condition["op"] == "SCMP_CMP_MASKED_EQ":
            texts.append(f"{name} & {condition['value']:#x} == {condition.get('valueTwo', 0):#x}")
        else:
            texts.append(f"{name} {_SIGNS[condition['op']]} {value}")
    return (" or " if either(conditions) else " and ").join(texts)


def number(value: int) -> str:
    """A number for people: small ones in decimal."""
    return str(value) if value < 4096 else hex(value)


# -- documents -------------------------------------------------------------------------------------


def read(path: str) -> tuple[Seccomp | None, str, str]:
    """Read the profile of a bundle, of a config.json, or a profile file: (profile, its pointer, the
    file's name).

    None if the configuration has none. Raises ConfigError.
    """
    name = fs.abspath(path)
    if is_directory(name):
        name = fs.join(name, "config.json")
    document, _ = load.load_config(name)
    source = name.rpartition("/")[2]
    if "linux" not in document and "ociVersion" not in document:
        return valid(document, "", source), "", source
    linux = document.get("linux", {})
    if type(linux) is not dict:
        raise ConfigError([Problem("/linux", "object", show(linux))], source)
    profile = linux.get("seccomp")
    return valid(profile, seccomp.POINTER, source) if profile else None, seccomp.POINTER, source


def is_directory(path: str) -> bool:
    """Whether a path is a directory; an inaccessible path is not."""
    try:
        return posix.stat(path).st_mode & 0o170000 == 0o040000
    except (OSError, ValueError):
        return False


def valid(profile: object, pointer: str, source: str) -> Seccomp:
    """The profile, validated as `create` does. Raises ConfigError."""
    report = Report()
    found: Seccomp = structure(schema.SECCOMP, profile, pointer, report.problems)
    if not report.problems:
        rules_linux.seccomp(found, pointer, report)
    if report.problems:
        raise ConfigError(report.problems, source)
    return profile  # type: ignore[return-value]  # has been checked


def open_filter(path: str) -> Filter:
    """The compiled profile of a bundle, config.json or file.  Raises ConfigError, PyruncError."""
    profile, base, source = read(path)
    if not profile:
        raise PyruncError(f"{source}: {seccomp.POINTER} is missing: every system call is allowed")
    return Filter(profile, base, source)
