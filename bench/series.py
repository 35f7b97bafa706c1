"""One column of the benchmark: a runtime in one place, and one life of a container with it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from bench.measure import LIMIT, Peer, Worker

# Verbs that a runtime may lack (crun has no `events`), on a running container.
OPTIONAL = {
    "exec": ["exec", "ID", "/bin/true"],
    "ps -f json": ["ps", "--format", "json", "ID"],
    "events --stats": ["events", "--stats", "ID"],
}
VERBS = ["run", "create", "start", "state", *OPTIONAL, "kill", "delete"]
SUM = "create + start + kill + delete"


class Usage(NamedTuple):
    """Milliseconds of a call: from the start of the runtime to its end, and on the processor."""

    wall: float
    cpu: float

    def __add__(self, other: object) -> Usage:
        assert isinstance(other, Usage)
        return Usage(self.wall + other.wall, self.cpu + other.cpu)


class Series:
    """One column: a runtime in one place. `root` is its state root."""

    def __init__(self, name: str, peer: Peer, worker: Worker, root: Path) -> None:
        self.name, self.peer, self.worker, self.root = name, peer, worker, root
        self.pid_file = root.with_suffix(".pid")
        self.missing: dict[str, str] = {}  # optional verbs that it does not have, and what it says

    def call(self, *args: str, expect: int | None = 0) -> Usage:
        """Run one verb. Raises RuntimeError if its exit status is not `expect`."""
        argv = [self.peer.path, "--root", str(self.root), *args]
        used = self.worker.usage(argv, expect, pid_file=str(self.pid_file))
        return Usage(used["ms"], used["cpu_ms"])

    def round(self, quick: Path, long: Path, number: int) -> dict[str, Usage]:
        """One life of a container; what each verb used."""
        ident = f"bench{os.getpid()}-{self.root.name}-{number}"
        used = {"run": self.call("run", "--bundle", str(quick), ident)}
        used["create"] = self.call("create", "--bundle", str(long), "--pid-file", str(self.pid_file), ident)
        used["state"] = self.call("state", ident)
        used["start"] = self.call("start", ident)
        for verb, args in OPTIONAL.items():
            if verb not in self.missing:
                used[verb] = self.call(*[ident if word == "ID" else word for word in args])
        pid = int(self.pid_file.read_text())
        used["kill"] = self.call("kill", ident, "KILL") + Usage(0.0, self.worker.reap(pid))
        self.pid_file.unlink()
        used["delete"] = self.call("delete", ident)
        used[SUM] = used["create"] + used["start"] + used["kill"] + used["delete"]
        return used

    def clear(self) -> None:
        """Delete what a failed measurement has left."""
        for ident in os.listdir(self.root) if self.root.exists() else ():
            argv = [self.peer.path, "--root", str(self.root), "delete", "--force", ident]
            subprocess.run(argv, capture_output=True, timeout=LIMIT, check=False)


def probe(series: Series, long: Path) -> None:
    """Find out which of the optional verbs there are. Raises RuntimeError when even `create` does
    not work."""
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
