"""All possible outcomes of one system call, over all values of its arguments.

The compiled filter is evaluated for arguments at and next to the values in conditions, because its
answer can change only there. The number of evaluations is bounded; a rule that none of them
triggers counts as ineffective.
"""

from __future__ import annotations

from itertools import islice, product

from pyrunc.seccomp_tools import profile
from pyrunc.seccomp_tools.profile import Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyrunc.seccomp_tools.calls import Arch
    from pyrunc.seccomp_tools.profile import Filter
    from pyrunc.spec.types import SyscallArg, SyscallRule

    Args = tuple[int, ...]

_MOST = 64  # evaluations per rule
_OF_A_CALL = 4096  # for all rules of one call, but at least two per rule
_UNLIKELY = 0x5A5A5A5A5A5A5A5A  # values that conditions rarely contain


class Outcome:
    """An outcome of a call, and its conditions."""

    __slots__ = ("verdict", "when")

    def __init__(self, verdict: Verdict, when: str = "") -> None:
        self.verdict = verdict
        self.when = when  # conditions, "otherwise", or "" for always

    def as_json(self) -> dict[str, object]:
        """The verdict and ``when``."""
        return {**self.verdict.as_json(), "when": self.when}


class Call:
    """One call on one architecture, with the rules that name it."""

    __slots__ = ("arch", "conditional", "filter", "number", "rules", "values")

    def __init__(self, filter: Filter, arch: Arch, number: int) -> None:
        self.filter, self.arch, self.number = filter, arch, number
        self.rules = filter.naming(arch, number)
        self.conditional = [index for index in self.rules if filter.rules[index].get("args")]
        conditions = [one for index in self.conditional for one in filter.rules[index]["args"]]
        mask = (1 << arch.bits) - 1
        self.values = [interesting([one for one in conditions if one["index"] == arg], mask) for arg in range(6)]

    def answer(self, args: Args) -> int:
        """The filter's architecture."""
        return self.filter.answer(self.arch.audit, self.number, args)

    def meeting(self, index: int) -> Iterator[Args]:
        """Arguments that satisfy a rule; the other arguments have values that few conditions
        contain."""
        return islice(self._meeting(self.filter.rules[index]), max(2, min(_MOST, _OF_A_CALL // len(self.rules))))

    def _meeting(self, rule: SyscallRule) -> Iterator[Args]:
        conditions = rule.get("args") or ()
        for chosen in [[one] for one in conditions] if profile.either(conditions) else [conditions]:
            lists: list[list[int]] = [one[:1] for one in self.values]
            for condition in chosen:
                arg = condition["index"]
                lists[arg] = [value for value in self.values[arg] if profile.holds(condition, value)]
            yield from product(*lists)

    def effective(self, index: int) -> bool:
        """Whether a rule decides any case."""
        action = self.filter.action(index)
        return any(self.answer(args) == action for args in self.meeting(index))

    def other(self) -> Args | None:
        """Arguments that no rule with conditions covers; None if there seem to be none."""
        rules = [self.filter.rules[index] for index in self.conditional]
        for args in islice(product(*self.values), max(2, min(_MOST, _OF_A_CALL // (len(rules) or 1)))):
            if not any(profile.met(rule, args) for rule in rules):
                return args
        return None

    def decide(self, args: Args) -> Verdict:
        """The verdict for these arguments."""
        return self.filter.decide(self.arch.audit, self.number, args)


def outcomes(filter: Filter, arch: Arch, number: int) -> list[Outcome]:
    """The outcomes of a call, in the order of the rules; at least one."""
    parts = arch.parts(number)
    if parts:
        return _of_parts(filter, arch, number, parts)
    call = Call(filter, arch, number)
    found = [
        Outcome(
            Verdict(filter.action(index), filter.pointer(index)), profile.words(filter.rules[index].get("args", ()))
        )
        for index in call.conditional
        if call.effective(index)
    ]
    args = call.other()
    if args is not None:
        found.append(Outcome(call.decide(args), "otherwise" if found else ""))
    return found or [Outcome(call.decide(next(product(*call.values))))]


def _of_parts(filter: Filter, arch: Arch, number: int, parts: dict[int, str]) -> list[Outcome]:
    """socketcall(2), ipc(2): one outcome per function that differs from the unknown ones."""
    other = filter.decide(arch.audit, number, (0xFFFF, 0, 0, 0, 0, 0))
    found = []
    for part, name in parts.items():
        verdict = filter.decide(arch.audit, number, (part, 0, 0, 0, 0, 0))
        if verdict.text != other.text:
            found.append(Outcome(verdict, f"arg0 == {part} ({name})"))
    found.append(Outcome(other, "otherwise" if found else ""))
    return found


def interesting(conditions: Sequence[SyscallArg], mask: int) -> list[int]:
    """The values of an argument at which a condition changes, starting with one that satisfies
    few conditions."""
    if not conditions:
        return [0]
    found: dict[int, None] = {}
    for condition in conditions:
        value = condition["value"]
        if condition["op"] == "SCMP_CMP_MASKED_EQ":
            wanted = condition.get("valueTwo", 0)
            near = [wanted, wanted | ~value, wanted ^ (value & -value), wanted ^ value]
        else:
            near = [value, value - 1, value + 1]
        found.update((one & mask, None) for one in near)
    found.update({0: None, mask: None, _UNLIKELY & mask: None})
    edges = [_UNLIKELY & mask, 0, mask, *islice(found, 8)]
    first = min(edges, key=lambda value: sum(profile.holds(one, value) for one in conditions))
    return [first, *(value for value in found if value != first)]
