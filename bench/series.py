"""One column of the benchmark: a runtime in one place, and one life of a container with it."""

from __future__ import annotations

import os
from pathlib import Path

from bench.measure import Peer, Worker

# Verbs that a runtime may lack (crun has no `events`), on a running container.
OPTIONAL = {
    "exec": ["exec", "ID", "/bin/true"],
    "ps": ["ps", "ID"],
    "events": ["events", "--stats", "ID"],
}
SUM = "create+start+kill+delete"


class Series:
    """One column: a runtime in one place."""

    def __init__(self, name: str, peer: Peer, worker: Worker, root: Path) -> None:
        self.name, self.peer, self.worker, self.root = name, peer, worker, root
        self.missing: dict[str, str] = {}  # optional verbs that it does not have, and what it says

    def call(self, *args: str, expect: int | None = 0) -> float:
        return self.worker.run([self.peer.path, "--root", str(self.root), *args], expect)

    def round(self, quick: Path, long: Path, number: int) -> dict[str, float]:
        """One life; times by verb."""
        ident = f"bench{os.getpid()}-{self.root.name}-{number}"
        times = {"run": self.call("run", "--bundle", str(quick), ident)}
        times["create"] = self.call("create", "--bundle", str(long), ident)
        times["state"] = self.call("state", ident)
        times["start"] = self.call("start", ident)
        for verb, args in OPTIONAL.items():
            if verb not in self.missing:
                times[verb] = self.call(*[ident if word == "ID" else word for word in args])
        times["kill"] = self.call("kill", ident, "KILL")
        self.worker.reap()
        times["delete"] = self.call("delete", ident)
        times[SUM] = sum(times[verb] for verb in ("create", "start", "kill", "delete"))
        return times


def probe(series: Series, long: Path) -> None:
    """Find out which of the optional verbs there are.  Raises RuntimeError when even `create` does not work."""
    ident = f"bench{os.getpid()}-{series.root.name}-probe"
    series.call("create", "--bundle", str(long), ident)
    series.call("start", ident)
    for verb, args in OPTIONAL.items():
        try:
            series.call(*[ident if word == "ID" else word for word in args])
        except RuntimeError as error:
            series.missing[verb] = str(error).rpartition("exit code ")[2]
    series.call("delete", "--force", ident)
    series.worker.reap()


def usable(series: Series, quick: Path, long: Path) -> str:
    """Why a runtime cannot be measured here, '' when it can; also warms the caches."""
    try:
        probe(series, long)
        for number in range(3):
            series.round(quick, long, -1 - number)
    except RuntimeError as error:
        for last in ("-1", "probe"):
            series.call("delete", "--force", f"bench{os.getpid()}-{series.root.name}-{last}", expect=None)
        text = str(error)
        if series.name == "crun" and ("rlimit" in text or "RESOURCE" in text):
            text += " (crun 1.8 raises limits first, which needs CAP_SYS_RESOURCE: see bench/peers.sh for a newer one)"
        return text
    return ""
