"""Compare the facts of a case between runtimes, and find the outliers.

Pure. Two runtimes are compared up to the first step at which only one of them fails; everything
later is a consequence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from integration.differential.observe import PRESENT, Facts

OURS = "pyrunc"
ABSENT = "(absent)"
SAME, DIFFERENT, UNKNOWN = "same", "different", "unknown"


class Difference(NamedTuple):
    """One fact and its value from each runtime; `against` are the peers whose value differs from
    ours."""

    fact: str
    values: Mapping[str, Any]
    against: tuple[str, ...]
    unknown: tuple[str, ...] = ()  # peers that cannot be compared
    failed: tuple[str, ...] = ()  # runtimes whose first command failed

    @property
    def alone(self) -> bool:
        """Whether every peer differs from pyrunc."""
        return not self.unknown and len(self.against) == len(self.values) - 1

    @property
    def ours(self) -> Any:
        """pyrunc's value."""
        return self.values[OURS]

    @property
    def shape(self) -> str:
        """The fact without numbers and paths, for grouping."""
        return shape(self.fact)


def shape(fact: str) -> str:
    """The name of a fact without the parts that differ from case to case."""
    text = re.sub(r"^step \d+ ", "step ", fact)
    text = re.sub(r"^hook ([A-Za-z]+)-\d\S*", r"hook \1", text)
    text = re.sub(r"#\d+", "#", text)
    return re.sub(r"(?<= )\.?/\S*|(?<=^rootfs )\S+", "PATH", text)


def group_of(fact: str) -> str:
    """The hook or program that reported the fact, if its presence is itself a fact."""
    match = re.match(r"(hook \S+|(?:out|exec|terminal) inside(?: \d+)?) (.*)", fact)
    return match[1] if match and match[2] != PRESENT else ""


def failed_at(facts: Facts) -> dict[int, str]:
    """The outcome of each step: its status, reduced to ok, fails or hangs where the number is
    arbitrary."""
    found = {}
    for fact, value in facts.items():
        match = re.match(r"step (\d+) \S+ rc$", fact)
        if match:
            found[int(match[1])] = "ok" if value == 0 else "hangs" if value == -1 else "fails"
    return found


def _limit(one: Facts, two: Facts) -> int:
    """The first step whose outcome differs, or a number beyond all steps."""
    left, right = failed_at(one), failed_at(two)
    return next((number for number in sorted(left) if left[number] != right.get(number)), 1 << 30)


def _within(fact: str, limit: int) -> bool:
    match = re.match(r"step (\d+) \S+ (.*)", fact)
    if match:
        number = int(match[1])
        return number < limit or (number == limit and match[2] == "rc")
    return limit == 1 << 30 or (fact.startswith("left ") and fact not in ("left sources", "left files"))


def relation(fact: str, one: Facts, two: Facts, limit: int) -> str:
    """Whether two runtimes agree on a fact; unknown if one failed earlier than the other."""
    group = group_of(fact)
    if not _within(fact, limit) or (group and not (f"{group} {PRESENT}" in one and f"{group} {PRESENT}" in two)):
        return UNKNOWN
    return SAME if one.get(fact, ABSENT) == two.get(fact, ABSENT) else DIFFERENT


def differences(found: Mapping[str, Facts]) -> list[Difference]:
    """All differences; `found` has the facts of pyrunc and of one or more peers."""
    ours = found[OURS]
    peers = [name for name in found if name != OURS]
    limits = {name: _limit(ours, found[name]) for name in peers}
    failed = tuple(name for name, facts in found.items() if failed_at(facts).get(0) == "fails")
    out = []
    for fact in dict.fromkeys(fact for facts in found.values() for fact in facts):
        relations = {name: relation(fact, ours, found[name], limits[name]) for name in peers}
        against = tuple(name for name in peers if relations[name] == DIFFERENT)
        if against:
            values = {name: facts.get(fact, ABSENT) for name, facts in found.items()}
            unknown = tuple(name for name in peers if relations[name] == UNKNOWN)
            out.append(Difference(fact, values, against, unknown, failed))
    return out


def first(out: Sequence[Difference]) -> list[Difference]:
    """Keep only the outcome of a step that failed on one side, without its consequences."""
    steps = [one for one in out if re.match(r"step \d+ \S+ rc$", one.fact)]
    return steps[:1] or list(out)
