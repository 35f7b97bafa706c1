"""Many containers at once: what they cost, and whether verbs become slower: ``python -m
bench.scale``.

For each runtime in turn: rounds of every verb with no other container, then with `--containers`
others that sleep, then with none again. Both ends are the baseline, so that a change of the
machine's speed does not look like one of the runtime's.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from bench.measure import Worker, enter_private_namespace, find, make_bundle, tmpfs
from bench.report import Row
from bench.series import SUM, VERBS, Series, Usage
from bench.tables import aligned, section
from integration.machine import pss_kib

COUNT = 500
ROUNDS = 20
MEASURED = [*VERBS, SUM]
GROWTH = "x alone"  # the unit of a ratio: with the others to without
CPU = ", CPU"
LINEAR = 1.2  # how much a verb may slow down
Found = dict[str, tuple[str, float]]  # measure: unit, figure


class Fleet:
    """Many sleeping containers of one runtime."""

    def __init__(self, series: Series, quick: Path, long: Path) -> None:
        self.series, self.quick, self.long = series, quick, long
        self.prefix = f"bench{os.getpid()}-{series.root.name}-fleet"
        self.ids: list[str] = []
        self.pids: list[int] = []

    def grow(self, count: int) -> list[float]:
        """Create and start containers; milliseconds of each pair of calls."""
        times = []
        pid_file = self.series.root.with_suffix(".fleet")
        for _ in range(count):
            ident = f"{self.prefix}{len(self.ids)}"
            self.ids.append(ident)
            made = self.plain("create", "--bundle", str(self.long), "--pid-file", str(pid_file), ident)
            times.append(made + self.plain("start", ident))
            self.pids.append(int(pid_file.read_text()))
        return times

    def clear(self) -> list[float]:
        """Delete them all; milliseconds of each `delete --force`."""
        times = []
        while self.ids:
            times.append(self.plain("delete", "--force", self.ids.pop()))
        self.series.worker.reap()
        return times

    def plain(self, *args: str) -> float:
        """Milliseconds of one call."""
        return self.series.worker.run([self.series.peer.path, "--root", str(self.series.root), *args])

    def rounds(self, first: int, count: int) -> dict[str, list[Usage]]:
        """What every verb uses, in lives of one more container."""
        used: dict[str, list[Usage]] = {verb: [] for verb in MEASURED}
        for number in range(first, first + count):
            for verb, spent in self.series.round(self.quick, self.long, number).items():
                used[verb].append(spent)
        return used

    def list(self) -> Usage:
        """The medians of five `list`."""
        used = [self.series.call("list") for _ in range(5)]
        return Usage(*(statistics.median(values) for values in zip(*used, strict=True)))

    def state_kib(self) -> float:
        """The size of the state directory, in KiB for each container."""
        files = [path.lstat() for path in self.series.root.rglob("*")]
        return sum(file.st_blocks for file in files) / 2 / len(self.ids)

    def pss_kib(self) -> float:
        """The median of the proportional memory of the containers' processes."""
        return statistics.median(map(pss_kib, self.pids))

    def cgroups(self) -> int:
        """How many cgroups have the name of one of them."""
        return sum(self.prefix in name for _, names, _ in os.walk("/sys/fs/cgroup") for name in names)


def available_kib() -> int:
    """The memory that the machine has left."""
    return int(re.findall(r"^MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)[0])


def slowdown(slow: list[float], fast: list[float]) -> float:
    return statistics.median(slow) / statistics.median(fast)


def measure(series: Series, quick: Path, long: Path, count: int, rounds: int) -> Found:
    """All figures of one runtime. Raises RuntimeError if a call fails."""
    fleet = Fleet(series, quick, long)
    found: Found = {}
    try:
        fleet.grow(1)
        alone, short = fleet.rounds(0, rounds), fleet.list()
        before = available_kib()
        made = fleet.grow(count - 1)
        found["memory of the machine"] = ("KiB each", (before - available_kib()) / (count - 1))
        crowded, full = fleet.rounds(rounds, rounds), fleet.list()
        found["memory of the process, PSS"] = ("KiB each", fleet.pss_kib())
        found["state directory"] = ("KiB each", fleet.state_kib())
        part = max(1, count // 5)
        found["create + start"] = ("a second", 1000 * len(made) / sum(made))
        found["create + start, last fifth"] = ("x first fifth", slowdown(made[-part:], made[:part]))
        found["list"] = ("ms", full.wall)
        found["list, each container"] = ("ms", (full.wall - short.wall) / (count - 1))
        found["list, each container, CPU"] = ("ms", (full.cpu - short.cpu) / (count - 1))
        begin = time.monotonic()
        gone = fleet.clear()
        found["delete --force"] = ("a second", len(gone) / (time.monotonic() - begin))
        found["delete --force, last fifth"] = ("x first fifth", slowdown(gone[-part:], gone[:part]))
        found["cgroups left"] = ("", float(fleet.cgroups()))
        fleet.grow(1)
        for verb, spent in fleet.rounds(2 * rounds, rounds).items():
            alone[verb] += spent
    finally:
        fleet.clear()
    for verb in MEASURED:
        if alone[verb]:
            wall = slowdown([used.wall for used in crowded[verb]], [used.wall for used in alone[verb]])
            cpu = slowdown([used.cpu for used in crowded[verb]], [used.cpu for used in alone[verb]])
            found[verb] = (GROWTH, wall)
            found[verb + CPU] = (GROWTH, cpu)
    return found


def rows(series: list[Series], quick: Path, long: Path, count: int = COUNT, rounds: int = ROUNDS) -> list[Row]:
    """The rows of the group "scale"."""
    found = {one.name: measure(one, quick, long, count, rounds) for one in series}
    names = list(dict.fromkeys(what for values in found.values() for what in values))
    out = []
    for what in names:
        unit = next(values[what][0] for values in found.values() if what in values)
        figures = {name: values[what][1] for name, values in found.items() if what in values}
        out.append(Row(group="scale", what=what, unit=unit, values=figures, ratios={}))
    return out


def main() -> None:
    """Measure and print; the exit status is 1 if a verb of pyrunc uses more CPU time than LINEAR
    allows. Wall times are only comparable on an idle machine."""
    from bench.compare import RUNTIMES, set_up
    from bench.page import number
    from bench.report import OURS

    parser = argparse.ArgumentParser(prog="bench.scale", description=__doc__)
    parser.add_argument("--containers", type=int, default=COUNT, help=f"containers at once ({COUNT})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds of the verbs ({ROUNDS})")
    parser.add_argument("--only", default=",".join(RUNTIMES), metavar="NAMES", help="runtimes to compare, with commas")
    given = parser.parse_args()
    pyrunc = find(OURS)
    if pyrunc is None or os.geteuid() != 0:
        sys.exit("bench.scale: needs root and a built pyrunc")
    enter_private_namespace()
    place = Path(tempfile.mkdtemp(prefix="pybench"))
    try:
        quick = make_bundle(place, pyrunc, "quick", ["/bin/true"])
        long = make_bundle(place, pyrunc, "long", ["/bin/sleep", "100000"])
        with tmpfs(place / "state") as state, closing(Worker(private=False)) as worker:
            series, versions, remarks = set_up(state, worker, given.only, quick, long)
            try:
                found = rows(series, quick, long, given.containers, given.rounds)
            finally:
                for one in series:
                    one.clear()
    finally:
        shutil.rmtree(place, ignore_errors=True)
    head = [["", "", *(f"{name} {version}" for name, version in versions.items())]]
    lines = [
        [
            one["what"],
            one["unit"],
            *(number(one["values"][name]) if name in one["values"] else "-" for name in versions),
        ]
        for one in found
    ]
    section(f"{given.containers} containers at once", aligned([*head, *lines]))
    print(*remarks, sep="\n")
    those = [one for one in found if one["unit"] == GROWTH and one["what"].endswith(CPU)]
    slow = [one["what"] for one in those if one["values"].get(OURS, 0) > LINEAR]
    if slow:
        sys.exit(f"bench.scale: more than {LINEAR} times with {given.containers} containers: {', '.join(slow)}")


if __name__ == "__main__":
    main()
