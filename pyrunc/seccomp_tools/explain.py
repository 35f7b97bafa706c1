"""`seccomp explain`: what a profile does with system calls, and which rule decides."""

from __future__ import annotations

import re

from pyrunc import hints
from pyrunc.errors import UsageError, show
from pyrunc.seccomp_tools import calls
from pyrunc.seccomp_tools.outcomes import Outcome, outcomes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyrunc.seccomp_tools.calls import Arch
    from pyrunc.seccomp_tools.profile import Filter

MOST = 256  # system calls per command line
WIDTH = 100
LISTED = 96  # names per action; beyond that only a count


class Answer:
    """One call on one architecture."""

    __slots__ = ("arch", "name", "number", "outcomes")

    def __init__(self, name: str, arch: Arch | None, number: int, found: list[Outcome]) -> None:
        self.name, self.arch, self.number = name, arch, number
        self.outcomes = found  # empty: the architecture lacks the call

    def as_json(self) -> dict[str, object]:
        """Name, architecture, number (null if the architecture lacks it), outcomes."""
        return {
            "name": self.name,
            "arch": self.arch.name if self.arch else None,
            "number": self.number if self.number >= 0 else None,
            "outcomes": [outcome.as_json() for outcome in self.outcomes],
        }


def answers(filter: Filter, words: Sequence[str]) -> list[Answer]:
    """Evaluate the profile for the calls of a command line. Raises UsageError.

    A word is a name, a number on this machine's architecture, ``NAME(1, 0x2)`` with arguments, or a
    line of the audit log.
    """
    if len(words) > MOST:
        raise UsageError(f"expected at most {MOST} system calls, got {len(words)}")
    joined = " ".join(words)
    if "syscall=" in joined:
        return [_audited(filter, joined)]
    found: list[Answer] = []
    for word in words:
        found += _called(filter, word)
    return found


_CALL = re.compile(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*")


def _called(filter: Filter, word: str) -> list[Answer]:
    """Evaluate one word on every architecture of the profile."""
    match = _CALL.fullmatch(word)
    if match is None:
        raise UsageError(f"{show(word)}: expected a system call, such as mount, 165 or socket(40, 1)")
    name, listed = match[1], match[2]
    args = _arguments(listed, word) if listed is not None else None
    numeric = name.isdigit() and len(name) < 11
    if not numeric and all(arch.number(name) == calls.UNKNOWN for arch in filter.arches):
        known = sorted(set(filter.native.table().values()))
        raise UsageError(f"{show(name)} is not a system call{hints.did_you_mean(name, known)}")
    found = []
    for arch in [filter.native] if numeric else filter.arches:
        number = int(name) if numeric else arch.number(name)
        label = (arch.name_of(number) or name) if numeric else name
        found.append(Answer(label, arch, number, _found(filter, arch, number, args)))
    return found


def _found(filter: Filter, arch: Arch, number: int, args: tuple[int, ...] | None) -> list[Outcome]:
    if number < 0:
        return []
    if args is None:
        return outcomes(filter, arch, number)
    return [Outcome(filter.decide(arch.audit, number, tuple(value & ((1 << arch.bits) - 1) for value in args)))]


def _arguments(text: str, word: str) -> tuple[int, ...]:
    """``1, 0x2`` as six numbers; missing ones are 0."""
    try:
        values = [int(part, 0) for part in text.split(",")] if text.strip() else []
    except ValueError:
        raise UsageError(f"{show(word)}: expected numbers as arguments") from None
    if len(values) > 6 or any(not -(1 << 63) <= value < 1 << 64 for value in values):
        raise UsageError(f"{show(word)}: expected at most six arguments of 64 bits")
    return (*values, *[0] * (6 - len(values)))


def _audited(filter: Filter, line: str) -> Answer:
    """Parse a SECCOMP or SYSCALL record of the audit log: ``arch=c000003e syscall=165``, optionally
    with a0 to a3.

    Raises UsageError.
    """
    fields = dict(re.findall(r"\b(arch|syscall|a[0-3])=([0-9a-fA-F]{1,16})\b", line))
    if not fields.get("syscall", "").isdecimal():
        raise UsageError(f"{show(line)}: expected a line of the audit log with arch=HEX syscall=NUMBER")
    number = int(fields["syscall"])
    audit = int(fields.get("arch", f"{filter.native.audit:x}"), 16)
    if number >= 1 << 32 or audit >= 1 << 32:
        raise UsageError(f"{show(line)}: expected numbers of 32 bits")
    arch = calls.arch_of(filter.arches, audit, number)
    given = [fields.get(f"a{index}") for index in range(4)]
    args = (*(int(value or "0", 16) for value in given), 0, 0)
    if arch is not None and None in given:
        return Answer(arch.name_of(number) or str(number), arch, number, outcomes(filter, arch, number))
    other = arch or calls.arch_of(calls.all_arches().values(), audit, number)
    name = (other.name_of(number) if other else "") or str(number)
    return Answer(name, other, number, [Outcome(filter.decide(audit, number, args))])


# -- text ------------------------------------------------------------------------------------------


def lines(found: Sequence[Answer]) -> list[str]:
    """Answers as text: the call, then one line per architecture and outcome."""
    text, last = [], ""
    heads = [f"  {one.arch.short if one.arch else '?'} {one.number if one.number >= 0 else ''}" for one in found]
    width = max(map(len, heads), default=0)
    for answer, head in zip(found, heads, strict=True):
        if answer.name != last:
            text.append(answer.name)
            last = answer.name
        if not answer.outcomes:
            text.append(f"{head:{width}}  not on this architecture")
        for outcome in answer.outcomes:
            verdict = outcome.verdict
            when = f"  {outcome.when if outcome.when == 'otherwise' else 'if ' + outcome.when}" if outcome.when else ""
            why = f" ({verdict.why})" if verdict.why else ""
            text.append(f"{head:{width}}  {verdict.text}{when}  by {verdict.pointer}{why}")
            head = ""
    return text


class Summary:
    """The profile's decisions for every call of one architecture."""

    __slots__ = ("arch", "by_action", "conditional")

    def __init__(self, filter: Filter, arch: Arch) -> None:
        self.arch = arch
        self.by_action: dict[str, list[str]] = {}  # action in words -> names
        self.conditional: list[str] = []
        for number, name in arch.table().items():
            found = outcomes(filter, arch, number)
            if len({outcome.verdict.text for outcome in found}) > 1:
                self.conditional.append(name)
            else:
                self.by_action.setdefault(found[0].verdict.text, []).append(name)

    def as_json(self) -> dict[str, object]:
        """Names by action, and names for which the arguments decide."""
        return {"arch": self.arch.name, "actions": self.by_action, "conditional": self.conditional}


def summary_lines(filter: Filter, summaries: Iterable[Summary]) -> list[str]:
    """The profile in about a dozen lines; long lists are only counted."""
    default = filter.decide(0, 0xFFFF).text
    text = [f"default: {filter_default(filter)}", f"other architectures: {default}"]
    for summary in summaries:
        text.append(f"{summary.arch.short}:")
        groups = sorted(summary.by_action.items(), key=lambda group: -len(group[1]))
        for action, names in [*groups, ("depends on arguments", summary.conditional)]:
            if names:
                text.append(f"  {action}: {len(names)}")
                text += wrapped(names) if len(names) <= LISTED else []
    return text


def filter_default(filter: Filter) -> str:
    """The default action, in words."""
    from pyrunc.seccomp_tools.profile import Verdict

    return Verdict(filter.default, "").text


def wrapped(names: Iterable[str]) -> list[str]:
    """Names in lines of at most `WIDTH` columns."""
    text, line = [], "   "
    for name in names:
        if len(line) + len(name) >= WIDTH:
            text.append(line)
            line = "   "
        line += " " + name
    return [*text, line]
