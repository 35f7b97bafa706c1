"""Entries of the deviations, and how a difference finds its entry."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from integration.differential.compare import Difference
from integration.differential.model import Case

PROGRAM = r"(?:out|exec|terminal) inside(?: \d+)? "  # reports of a container's program
MOUNT = PROGRAM + r"mount \S+(?: #\d+)? "


class Pair(NamedTuple):
    """The input of an entry's condition: the case, the fact, and the values of pyrunc and one peer.

    `company` are the peers that agree with pyrunc. `failed` is set if the first command failed on
    both.
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
        """The environment in the config."""
        return self.config["process"].get("env") or []

    @property
    def program(self) -> str:
        """The program in the config."""
        return str(self.config["process"]["args"][0])

    def has(self, *kinds: str) -> bool:
        """Whether one of the features is of these kinds or their subkinds."""
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

    `fact` is a regular expression for the full name of a fact, `said` one for part of what the peer
    and pyrunc wrote at the fact's step. An entry for both peers says why pyrunc is alone, an entry
    for one peer what that peer does differently.
    """

    name: str
    peers: str
    fact: str
    section: str
    reason: str
    when: Callable[[Pair], bool] = _always
    said: str = ""

    def covers(self, case: Case, one: Difference, peer: str, said: Mapping[str, Sequence[str]]) -> bool:
        """Whether the entry explains the difference from this peer; `said` has each runtime's
        messages by step."""
        if peer not in self.peers.split() or re.fullmatch(self.fact, one.fact) is None:
            return False
        step = re.match(r"step (\d+) ", one.fact)
        if self.said and not _on_terminal(case, int(step[1]) if step else 0):
            texts = [said[name][int(step[1])] if step else "".join(said[name]) for name in (peer, "pyrunc")]
            if re.search(self.said, "\n".join(texts).strip()) is None:
                return False
        company = [name for name in one.values if name not in (*one.against, *one.unknown, "pyrunc")]
        failed = {"pyrunc", peer} <= set(one.failed)
        return self.when(Pair(case, one.fact, one.ours, one.values[peer], company, failed))


def _on_terminal(case: Case, step: int) -> bool:
    """Whether the runtime's messages went to the container's terminal."""
    words = str(case.commands[step])
    terminal = "--tty" in words if "exec" in words else "--detach" not in words and "'run'" in words
    return terminal and ("exec" in words or bool(case.known["process"].get("terminal")))


def explain(
    case: Case, one: Difference, entries: Sequence[Deviation], said: Mapping[str, Sequence[str]]
) -> dict[str, Deviation | None]:
    """The first entry that covers each peer that differs; `said` has each runtime's messages by
    step."""
    return {
        peer: next((entry for entry in entries if entry.covers(case, one, peer, said)), None) for peer in one.against
    }
