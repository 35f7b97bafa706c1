"""What features drawn earlier mean for later ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

ALL_NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")

# The `draw` of hypothesis.strategies.composite: its result's type is the strategy's, which mypy
# cannot know here.
Draw = Callable[[Any], Any]


@dataclass
class Context:
    """A case as far as it has been drawn."""

    namespaces: dict[str, str] = field(default_factory=lambda: dict.fromkeys(ALL_NAMESPACES, ""))
    userns: bool = False
    terminal: bool = False
    lasting: bool = False  # the program stays until it is killed
    used: set[str] = field(default_factory=set)

    def own(self, kind: str) -> bool:
        """A new namespace of this kind."""
        return self.namespaces.get(kind) == ""
