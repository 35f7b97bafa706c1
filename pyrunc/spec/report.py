"""What the rules write to, and how a value is shown in a message."""

from __future__ import annotations

from pyrunc.errors import Capped, Problem, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Protocol, TypeVar

    Item = TypeVar("Item")

    class Facts(Protocol):
        """The facts of a host that validation looks at (pyrunc/host.py has them)."""

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
            """Where resctrl is mounted, "" for nowhere."""


class Nothing:
    """The value of a missing field."""

    __slots__ = ()


NOTHING = Nothing()


class Report:
    """Problems and warnings found so far, and what several rules need to know about the config."""

    __slots__ = ("facts", "mapped", "namespaces", "problems", "reported", "warnings")

    def __init__(self, facts: Facts | None = None) -> None:
        self.facts = facts
        self.problems = Capped()
        self.warnings = Capped()
        self.reported: tuple[str, ...] = ()  # pointers of what has the wrong type, and is taken out
        self.mapped = False  # a mount has an id mapping
        self.namespaces: dict[str, str] = {}  # type -> path, "" for a new one

    def bad(self, pointer: str, expected: str, value: object = NOTHING, hint: str = "") -> None:
        """Record an error; but not the absence of what has the wrong type."""
        if self.problems.full():
            self.problems.more += 1
        elif pointer not in self.reported:
            self.problems.append(Problem(pointer, expected, describe(value), hint))

    def bad_item(self, pointer: str, index: int, expected: str, value: object, hint: str = "") -> None:
        """`bad` for an item of an array, whose pointer is only made when it is kept: there may be a million of them."""
        if self.problems.full():
            self.problems.more += 1
        else:
            self.bad(f"{pointer}/{index}", expected, value, hint)

    def warn(self, pointer: str, expected: str, value: object = NOTHING, hint: str = "") -> None:
        """Record something that is carried out differently from what the config says, or not at all."""
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
    """(pointer, item) of each item of an array that may be absent.  An item of a wrong type is None, and left out."""
    if items:
        for index, item in enumerate(items):
            if item is not None:
                yield f"{pointer}/{index}", item
