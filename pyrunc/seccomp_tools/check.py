"""`seccomp check`: find parts of a valid profile that do not do what they seem to do."""

from __future__ import annotations

import posix

from pyrunc import build, hints
from pyrunc.errors import UsageError, printable, show
from pyrunc.seccomp_tools import calls, profile
from pyrunc.seccomp_tools.outcomes import Call, interesting, outcomes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyrunc.seccomp_tools.calls import Arch
    from pyrunc.seccomp_tools.profile import Filter
    from pyrunc.spec.types import SyscallArg, SyscallRule

PROBLEM, NOTE = "problem", "note"
MOST = 1000  # findings
_LISTED = 8  # names per finding
_PASS = (*profile.PASSING, "SCMP_ACT_NOTIFY")  # largest number that a profile can know
_KILLS = ("SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP")

# Calls of kernels after libseccomp 2.5.4, which profiles list in advance.
_NEWER = frozenset(
    (
        "statmount", "listmount", "lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules", "mseal", "setxattrat",
        "getxattrat", "listxattrat", "removexattrat", "open_tree_attr", "file_getattr", "file_setattr", "uretprobe",
        "uprobe", "listns", "riscv_hwprobe",
    )
)  # fmt: skip

# Calls before main() in a dynamically linked program and at exit: alternatives, and whether the
# program needs them. A libc's mere attempts must not kill it. Measured;
# integration/test_seccomp_check.py repeats the measurement.
START_UP = {
    "glibc": (
        (("execve",), True), (("brk",), False), (("mmap", "mmap2"), True), (("access", "faccessat"), False),
        (("openat", "open"), True), (("newfstatat", "fstat", "fstatat64", "statx"), True), (("close",), True),
        (("read",), True), (("pread64",), True), (("arch_prctl",), True), (("set_tid_address",), False),
        (("set_robust_list",), False), (("rseq",), False), (("mprotect",), True), (("prlimit64",), False),
        (("munmap",), False), (("getrandom",), False), (("exit_group",), False),
    ),
    "musl": (
        (("execve",), True), (("arch_prctl",), True), (("set_tid_address",), False), (("brk",), False),
        (("mmap", "mmap2"), False), (("mprotect",), True), (("exit_group",), False),
    ),
    "none": ((("execve",), True), (("exit_group",), False)),
}  # fmt: skip


class Finding:
    """A finding of `check`."""

    __slots__ = ("code", "level", "pointer", "text")

    def __init__(self, level: str, code: str, pointer: str, text: str) -> None:
        self.level, self.code, self.pointer, self.text = level, code, pointer, text

    def __str__(self) -> str:
        return printable(f"{self.level}: {self.pointer}: {self.text} [{self.code}]")

    def as_json(self) -> dict[str, str]:
        """The four fields."""
        return {"level": self.level, "code": self.code, "pointer": self.pointer, "text": self.text}


def findings(filter: Filter, libc: str = "") -> list[Finding]:
    """Problems and notes in document order, at most `MOST`. Raises UsageError for an unknown
    libc."""
    needed = START_UP.get(libc or own_libc())
    if needed is None:
        raise UsageError(f"--libc {show(libc)}: expected {', '.join(list(START_UP)[:-1])} or {list(START_UP)[-1]}")
    found = list(_engine_fields(filter))
    checker = _Rules(filter)
    for index in range(len(filter.rules)):
        if len(found) >= MOST:
            break
        found += checker.rule(index)
    found += _start_up(filter, needed, libc or own_libc())
    return found[:MOST]


def own_libc() -> str:
    """This host's."""
    try:
        return "glibc" if (posix.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc") else "musl"
    except (OSError, ValueError):
        return "musl"


def _engine_fields(filter: Filter) -> Iterable[Finding]:
    """Fields of engines' profiles that the runtime-spec lacks, and that are therefore ignored."""
    for name in ("archMap", "defaultErrno"):
        if name in filter.profile:
            text = "only engines know this field; a runtime ignores it"
            yield Finding(PROBLEM, "engine-field", f"{filter.base}/{name}", text)
    for index, rule in enumerate(filter.rules):
        for name in ("includes", "excludes", "minKernel"):
            if rule.get(name):
                text = "only engines know this field; a runtime applies the rule in any case"
                yield Finding(PROBLEM, "engine-field", f"{filter.pointer(index)}/{name}", text)


class _Rules:
    """The checks of single rules."""

    __slots__ = ("calls", "filter", "known", "seen")

    def __init__(self, filter: Filter) -> None:
        self.filter = filter
        self.seen: set[tuple[str, int]] = set()  # (name, action) without conditions
        self.known: list[str] = []
        self.calls: dict[tuple[str, int], Call] = {}

    def rule(self, index: int) -> list[Finding]:
        """Check one rule."""
        rule, pointer = self.filter.rules[index], self.filter.pointer(index)
        found = [*self.conditions(rule, pointer)]
        if self.filter.action(index) == self.filter.default:
            found.append(Finding(NOTE, "default", pointer, "its action is the default action: it changes nothing"))
        else:
            found += self.shadowed(index)
        return [*found, *self.names(index), *self.parts(index)]

    # -- names -------------------------------------------------------------------------------------

    def names(self, index: int) -> Iterable[Finding]:
        """Unknown and duplicate names."""
        rule, pointer = self.filter.rules[index], self.filter.pointer(index)
        again, places = [], set()
        for place, name in enumerate(rule["names"]):
            if all(arch.number(name) == calls.UNKNOWN for arch in self.filter.arches):
                yield self.unknown(name, f"{pointer}/names/{place}")
            key = (name, self.filter.action(index))
            if name in places or key in self.seen:
                again.append(name)
            places.add(name)
            if not rule.get("args"):
                self.seen.add(key)
        if again:
            yield Finding(NOTE, "repeated", pointer, f"this rule or an earlier one already has: {some(again)}")

    def unknown(self, name: str, pointer: str) -> Finding:
        """A name that libseccomp ignores."""
        version = build.libseccomp()
        if name in _NEWER:
            return Finding(NOTE, "newer-name", pointer, f"{show(name)} is newer than libseccomp {version}: ignored")
        if not self.known:
            self.known = sorted({name for arch in self.filter.arches for name in arch.table().values()})
        meant = hints.did_you_mean(name, self.known)
        text = f"libseccomp {version} knows no system call {show(name)}: ignored{meant}"
        return Finding(PROBLEM, "unknown-name", pointer, text)

    # -- effects -----------------------------------------------------------------------------------

    def call(self, arch: Arch, number: int) -> Call:
        """The rules of one call, prepared once."""
        key = (arch.name, number)
        found = self.calls.get(key)
        if found is None:
            found = self.calls[key] = Call(self.filter, arch, number)
        return found

    def shadowed(self, index: int) -> Iterable[Finding]:
        """Names for which another rule always decides."""
        rule, pointer = self.filter.rules[index], self.filter.pointer(index)
        by: dict[str, list[str]] = {}
        absent = []
        for name in dict.fromkeys(rule["names"]):
            here = [(arch, arch.number(name)) for arch in self.filter.arches]
            here = [(arch, number) for arch, number in here if number >= 0]
            if not here:
                absent.append(name)
            elif not any(self.call(arch, number).effective(index) for arch, number in here):
                args = next(self.call(*here[0]).meeting(index), None)
                if args is not None:  # otherwise a condition is never true, which is reported separately
                    by.setdefault(self.call(*here[0]).decide(args).pointer, []).append(name)
        for other, names in by.items():
            text = f"{other} overrides this rule for {some(names)}"
            yield Finding(PROBLEM, "shadowed", pointer, text)
        if len(absent) == len(set(rule["names"])) and all(self.elsewhere(name) for name in absent):
            yield Finding(NOTE, "other-architecture", pointer, f"no architecture of the profile has {some(absent)}")

    def elsewhere(self, name: str) -> bool:
        """Whether any architecture has a call."""
        return any(arch.number(name) != calls.UNKNOWN for arch in self.filter.arches)

    # -- conditions --------------------------------------------------------------------------------

    def conditions(self, rule: SyscallRule, pointer: str) -> Iterable[Finding]:
        """Conditions that are never or always true, and "or" where "and" is expected."""
        conditions = rule.get("args") or ()
        for place, condition in enumerate(conditions):
            wide = {truth(condition, 64)}
            narrow = {truth(condition, arch.bits) for arch in self.filter.arches}
            here = f"{pointer}/args/{place}"
            words = profile.words([condition])
            if wide == {False}:
                yield Finding(PROBLEM, "dead-condition", here, f"{words} is never true")
            elif wide == {True}:
                yield Finding(PROBLEM, "dead-condition", here, f"{words} is always true")
            elif False in narrow:
                yield Finding(NOTE, "dead-condition", here, f"{words} is never true on 32-bit architectures")
            elif condition.get("valueTwo") and condition["op"] != "SCMP_CMP_MASKED_EQ":
                yield Finding(NOTE, "unused-value", f"{here}/valueTwo", "only SCMP_CMP_MASKED_EQ has a second value")
        if profile.either(conditions):
            text = "two conditions on one argument: any condition of the rule is enough, as in runc"
            yield Finding(NOTE, "alternatives", f"{pointer}/args", text)

    def parts(self, index: int) -> Iterable[Finding]:
        """Conditions that 32-bit x86 programs can bypass."""
        rule = self.filter.rules[index]
        x86 = next((arch for arch in self.filter.arches if arch.parts(arch.number("socketcall"))), None)
        if x86 is None or not rule.get("args"):
            return
        for via in ("socketcall", "ipc"):
            inside = [name for name in rule["names"] if name in x86.parts(x86.number(via)).values()]
            if inside:
                text = f"32-bit x86 programs reach {some(inside)} through {via}(2), whose arguments no filter can see"
                yield Finding(NOTE, "conditions-bypassed", f"{self.filter.pointer(index)}/args", text)


def truth(condition: SyscallArg, bits: int) -> bool | None:
    """Whether a condition is always (True) or never (False) true for arguments of that many
    bits."""
    values = interesting([condition], (1 << bits) - 1)
    results = {profile.holds(condition, value) for value in values}
    return results.pop() if len(results) == 1 else None


def some(names: Sequence[str]) -> str:
    """``a, b and 3 more``."""
    text = ", ".join(name if name.isidentifier() else show(name) for name in names[:_LISTED])
    return f"{text} and {len(names) - _LISTED} more" if len(names) > _LISTED else text


# -- what programs need ----------------------------------------------------------------------------


def _start_up(filter: Filter, needed: Sequence[tuple[Sequence[str], bool]], libc: str) -> Iterable[Finding]:
    """Denied calls without which no program starts, on this machine's architecture."""
    of = {"none": "any program"}.get(libc, f"{libc}'s start-up")
    for names, fatal in needed:
        numbers = [(name, filter.native.number(name)) for name in names]
        found = [(name, outcomes(filter, filter.native, number)) for name, number in numbers if number >= 0]
        if not found or any(one.verdict.action in _PASS for _, several in found for one in several):
            continue
        verdict = found[0][1][0].verdict
        if fatal or verdict.action in _KILLS:
            alternatives = " or ".join(name for name, _ in found)
            text = f"{of} needs {alternatives}, which gets {verdict.text}"
            yield Finding(PROBLEM, "start-up", verdict.pointer, text)
