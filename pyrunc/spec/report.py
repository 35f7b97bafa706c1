"""The report that the rules write to, and the form of values in messages."""

from __future__ import annotations

from pyrunc.errors import Capped, Problem, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Protocol, TypeVar

    Item = TypeVar("Item")

    class Facts(Protocol):
        """The facts of a host that validation uses (pyrunc/host.py provides them)."""

        apparmor: bool
        selinux: bool
        cap_last: int
        euid: int

        def own_namespace(self, kind: str, path: str) -> bool:
            """Whether a path leads to the runtime's own namespace of that type."""

        @property
        def memory_nodes(self) -> frozenset[int]:
            """NUMA nodes with memory."""

        @property
        def resctrl(self) -> str:
            """The mount point of resctrl, "" if it is not mounted."""


class Nothing:
    """The value of a missing field."""

    __slots__ = ()


NOTHING = Nothing()


class Report:
    """Problems and warnings found so far, and facts about the config that several rules need."""

    __slots__ = ("facts", "mapped", "namespaces", "problems", "reported", "warnings")

    def __init__(self, facts: Facts | None = None) -> None:
        self.facts = facts
        self.problems = Capped()
        self.warnings = Capped()
        self.reported: tuple[str, ...] = ()  # pointers of values that have the wrong type and are removed
        self.mapped = False  # a mount has an id mapping
        self.namespaces: dict[str, str] = {}  # type -> path, "" for a new one

    def bad(self, pointer: str, expected: str, value: object = NOTHING, hint: str = "") -> None:
        """Record an error, except the absence of a value that had the wrong type."""
        if self.problems.full():
            self.problems.more += 1
        elif pointer not in self.reported:
            self.problems.append(Problem(pointer, expected, describe(value), hint))

    def bad_item(self, pointer: str, index: int, expected: str, value: object, hint: str = "") -> None:
        """Record an error for an item of an array, which may have a million: the pointer is built
        only if the error is kept."""
        if self.problems.full():
            self.problems.more += 1
        else:
            self.bad(f"{pointer}/{index}", expected, value, hint)

    def warn(self, pointer: str, expected: str, value: object = NOTHING, hint: str = "") -> None:
        """Record something that is ignored, or done differently from what the config says."""
        if self.warnings.full():
            self.warnings.more += 1
        else:
            self.warnings.append(Problem(pointer, expected, describe(value), hint))


def describe(value: object) -> str:
    """A value with its JSON type: ``number 7``, ``string "x"``."""
    kind = type(value)
    if value is NOTHING:
        return "nothing"
    if value is None:
        return "null"
    if kind is bool:
        return "boolean true" if value else "boolean false"
    if kind is str:
        return "string " + show(value)
    if kind is int or kind is float:
        return "number " + show(value)
    if isinstance(value, list):
        return f"an array of {len(value)}" if value else "an empty array"
    return "an object"


def numbered(items: Sequence[Item] | None, pointer: str) -> Iterator[tuple[str, Item]]:
    """(pointer, item) for each item of an optional array. An item of the wrong type is None and is
    skipped."""
    if items:
        for index, item in enumerate(items):
            if item is not None:
                yield f"{pointer}/{index}", item
