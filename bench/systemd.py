"""The cost of `run` with the systemd cgroup driver, compared with runc: ``python -m
bench.systemd``, systemd being init.

`run` of /bin/true, with and without limits, interleaved; the order of the runtimes alternates.
Prints medians and the ratio. ``make bench-systemd`` does this in a guest if systemd is not this
machine's init. Both runtimes are then emulated, and only the ratio is meaningful.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.measure import Peer, Worker, find, make_bundle
from bench.tables import aligned, section

FACTOR = 1.0  # the project's goal
LIMITS: dict[str, Any] = {
    "memory": {"limit": 64 << 20},
    "cpu": {"quota": 50_000, "period": 100_000},
    "pids": {"limit": 100},
}
Times = dict[str, dict[str, list[float]]]


def bundles(place: Path, pyrunc: str) -> dict[str, Path]:
    """One bundle without limits and one with, otherwise equal."""
    made = {"run": make_bundle(place, pyrunc, "plain", ["/bin/true"])}
    made["run with limits"] = make_bundle(place, pyrunc, "limited", ["/bin/true"])
    path = made["run with limits"] / "config.json"
    config = json.loads(path.read_text())
    config["linux"]["resources"] |= LIMITS
    path.write_text(json.dumps(config, indent=2))
    return made


def collect(peers: list[Peer], worker: Worker, place: Path, made: dict[str, Path], rounds: int) -> Times:
    """Milliseconds, by row and runtime. The first two rounds warm up and do not count."""
    times: Times = {row: {peer.name: [] for peer in peers} for row in made}
    for number in range(-2, rounds):
        turn = number % len(peers)
        for peer in peers[turn:] + peers[:turn]:
            for row, bundle in made.items():
                ident = f"bench{os.getpid()}-{row.replace(' ', '-')}{number + 2}"
                common = ["--root", str(place / peer.name), "--systemd-cgroup"]
                spent = worker.run([peer.path, *common, "run", "--bundle", str(bundle), ident])
                if number >= 0:
                    times[row][peer.name].append(spent)
    return times


def report(times: Times, names: list[str]) -> str:
    """Medians, minimum times, and the ratio of the medians to runc's."""
    rows = [["ms", *(f"{name} {what}" for name in names for what in ("median", "least")), "ratio"]]
    for row, found in times.items():
        cells = [f"{value(found[name]):.1f}" for name in names for value in (statistics.median, min)]
        ratio = statistics.median(found["pyrunc"]) / statistics.median(found["runc"])
        rows.append([row, *cells, f"{ratio:.2f} ({'pass' if ratio <= FACTOR else 'MISS'}: goal {FACTOR})"])
    return aligned(rows)


def main() -> None:
    """Measure and print; the exit status does not depend on the goal."""
    parser = argparse.ArgumentParser(prog="bench.systemd", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25, help="rounds that count (25)")
    given = parser.parse_args()
    if os.geteuid() != 0 or not os.path.isdir("/run/systemd/system"):
        sys.exit("bench.systemd: needs root, and systemd as init")
    found = {name: find(name) for name in ("runc", "pyrunc")}
    peers = [Peer(name, path) for name, path in found.items() if path]
    if len(peers) < len(found):
        sys.exit(f"bench.systemd: not found: {', '.join(name for name, path in found.items() if not path)}")
    place = Path(tempfile.mkdtemp(prefix="pybench"))
    worker = Worker(private=False)
    try:
        times = collect(peers, worker, place, bundles(place, peers[-1].path), given.rounds)
    finally:
        worker.close()
        shutil.rmtree(place, ignore_errors=True)
    title = f"--systemd-cgroup, {given.rounds} rounds, " + ", ".join(f"{peer.name} {peer.version}" for peer in peers)
    section(title, report(times, [peer.name for peer in peers]))


if __name__ == "__main__":
    main()
