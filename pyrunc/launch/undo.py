"""The undo stack: each resource registers its release; a failure runs them in reverse order."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Undo:
    """A stack of releases; `run` calls them in reverse order and never raises."""

    __slots__ = ("entries", "problems")

    def __init__(self) -> None:
        self.entries: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        self.problems: list[str] = []  # errors of the releases

    def push(self, release: Callable[..., object], *args: object) -> None:
        """Register a release."""
        self.entries.append((release, args))

    def run(self) -> list[str]:
        """Release everything, newest first.  Returns the errors, for the debug log."""
        while self.entries:
            release, args = self.entries.pop()
            try:
                release(*args)
            except Exception as error:  # the remaining releases must still run
                self.problems.append(f"{release.__name__}: {error}")
        return self.problems

    def holds(self, release: Callable[..., object]) -> bool:
        """Whether a release is registered."""
        return any(entry[0] == release for entry in self.entries)

    def keep(self, *releases: Callable[..., object]) -> None:
        """Drop these releases, so that their resources are kept."""
        self.entries = [entry for entry in self.entries if entry[0] not in releases]

    def forget(self) -> None:
        """Drop all releases, so that all resources are kept."""
        self.entries.clear()
