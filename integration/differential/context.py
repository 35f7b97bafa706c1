"""The effect of features drawn earlier on later ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

ALL_NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")

# The `draw` of hypothesis.strategies.composite. Its result has the strategy's type, which mypy
# cannot infer here.
Draw = Callable[[Any], Any]


@dataclass
class Context:
    """A partly drawn case."""

    namespaces: dict[str, str] = field(default_factory=lambda: dict.fromkeys(ALL_NAMESPACES, ""))
    userns: bool = False
    terminal: bool = False
    lasting: bool = False  # the program runs until it is killed
    used: set[str] = field(default_factory=set)

    def own(self, kind: str) -> bool:
        """Whether the container has a new namespace of this kind."""
        return self.namespaces.get(kind) == ""
