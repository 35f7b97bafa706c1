"""What an entry of the deviations is, and how it is found for a difference."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from integration.differential.compare import Difference
from integration.differential.model import Case

PROGRAM = r"(?:out|exec|terminal) inside(?: \d+)? "  # what a container's program reports
MOUNT = PROGRAM + r"mount \S+(?: #\d+)? "


class Pair(NamedTuple):
    """What an entry's condition looks at: the case, the fact, and what pyrunc and one peer have.

    `company` are the peers that do what pyrunc does; `failed`: the first command failed with both.
    """

    case: Case
    fact: str
    ours: Any
    theirs: Any
    company: Sequence[str] = ()
    failed: bool = False

    @property
    def config(self) -> dict[str, Any]:
        """The case's config.json."""
        return self.case.known

    @property
    def env(self) -> list[str]:
        """The environment that the config gives."""
        return self.config["process"].get("env") or []

    @property
    def program(self) -> str:
        """The program that the config names."""
        return str(self.config["process"]["args"][0])

    def has(self, *kinds: str) -> bool:
        """Whether one of the features is of these kinds, or below them."""
        return any(f"{feature.kind}.".startswith(f"{kind}.") for feature in self.case.features for kind in kinds)

    @property
    def options(self) -> list[list[str]]:
        """The options of each mount."""
        return [entry.get("options") or [] for entry in self.config.get("mounts") or ()]


def _always(pair: Pair) -> bool:
    return True


@dataclass(frozen=True)
class Deviation:
    """One known difference between pyrunc and `peers` (separated by blanks).

    `fact` is a regular expression for the whole of a fact's name, `said` one for a part of what the
    peer and pyrunc wrote at the fact's step. With both peers it says why pyrunc is alone; with one,
    what that peer does differently.
    """

    name: str
    peers: str
    fact: str
    section: str
    reason: str
    when: Callable[[Pair], bool] = _always
    said: str = ""

    def covers(self, case: Case, one: Difference, peer: str, said: Mapping[str, Sequence[str]]) -> bool:
        """Whether it explains the difference from this peer; `said` are each runtime's messages by
        step."""
        if peer not in self.peers.split() or re.fullmatch(self.fact, one.fact) is None:
            return False
        step = re.match(r"step (\d+) ", one.fact)
        if self.said and not (step and _on_terminal(case, int(step[1]))):
            texts = [said[name][int(step[1])] if step else "".join(said[name]) for name in (peer, "pyrunc")]
            if re.search(self.said, "\n".join(texts).strip()) is None:
                return False
        company = [name for name in one.values if name not in (*one.against, *one.unknown, "pyrunc")]
        failed = {"pyrunc", peer} <= set(one.failed)
        return self.when(Pair(case, one.fact, one.ours, one.values[peer], company, failed))


def _on_terminal(case: Case, step: int) -> bool:
    """The runtime's messages went to the container's terminal."""
    words = str(case.commands[step])
    terminal = "--tty" in words if "exec" in words else "--detach" not in words and "'run'" in words
    return terminal and ("exec" in words or bool(case.known["process"].get("terminal")))


def explain(
    case: Case, one: Difference, entries: Sequence[Deviation], said: Mapping[str, Sequence[str]]
) -> dict[str, Deviation | None]:
    """For each peer that differs the first entry that covers it; `said` are each runtime's messages
    by step."""
    return {
        peer: next((entry for entry in entries if entry.covers(case, one, peer, said)), None) for peer in one.against
    }
