"""The benchmark: interleaved rounds of every runtime, medians, ratios, goals.

It prints tables; ``--json FILE`` writes the results for machines, ``--write`` the page
bench/RESULTS.md.

A round runs, for each runtime in turn: `run` of /bin/true, and create, state, start, exec, ps,
events, kill and delete of a container that sleeps. The order of the runtimes rotates, so that a
slow second of the machine does not affect only one of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bench import checkpoint, instructions, memory, mounts, page, report, scale, storm, unusual, userns
from bench.goals import GOALS, judge
from bench.load import busy
from bench.measure import Peer, Worker, enter_private_namespace, find, make_bundle, tmpfs
from bench.report import OURS, Report, Row
from bench.series import SUM, VERBS, Series, Usage, usable
from bench.tables import aligned, section

# Names that the page uses, and the executables that they stand for: the first that exists.
RUNTIMES = {"crun": ["crun"], OURS: [OURS], "runc": ["runc-new", "runc"]}
Samples = dict[str, dict[str, list[Usage]]]


def collect(series: list[Series], quick: Path, long: Path, rounds: int) -> Samples:
    """All samples, by runtime and verb."""
    samples: Samples = {one.name: {verb: [] for verb in [*VERBS, SUM]} for one in series}
    for number in range(rounds):
        turn = number % len(series)
        for one in series[turn:] + series[:turn]:
            for verb, used in one.round(quick, long, number).items():
                samples[one.name][verb].append(used)
    return samples


def rows_of(group: str, samples: Samples) -> list[Row]:
    """A row for each verb: wall time, then CPU time."""
    walls = [
        report.row(group, verb, "ms", {name: [used.wall for used in found[verb]] for name, found in samples.items()})
        for verb in [*VERBS, SUM]
    ]
    cpus = [
        report.row(group, verb, "CPU ms", {name: [used.cpu for used in found[verb]] for name, found in samples.items()})
        for verb in [*VERBS, SUM]
    ]
    return walls + cpus


def show(title: str, rows: list[Row], names: list[str]) -> None:
    """Print rows: the figures of every runtime, and pyrunc's ratios."""
    peers = [name for name in names if any(name in row["ratios"] for row in rows)]
    table = [["", "", *names, *(f"x {name}" for name in peers)]]
    for row in rows:
        cells = [page.number(row["values"][name]) if name in row["values"] else "-" for name in names]
        cells += [f"{row['ratios'][name][0]:.2f}" if name in row["ratios"] else "-" for name in peers]
        table.append([row["what"], row["unit"], *cells])
    section(title, aligned(table))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100, help="rounds of the comparison (100)")
    parser.add_argument("--loaded-rounds", type=int, default=60, help="rounds on busy cores (60)")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    parser.add_argument("--write", action="store_true", help="write bench/RESULTS.md, results.json and results.svg")
    parser.add_argument("--only", default=",".join(RUNTIMES), metavar="NAMES", help="runtimes to compare, with commas")
    parser.add_argument("--quick", action="store_true", help="the comparison only")
    parser.add_argument("--containers", type=int, default=200, help="containers of the storm (200)")
    parser.add_argument("--at-once", type=int, default=8, help="how many of them at a time (8)")
    return parser.parse_args()


def set_up(
    place: Path, worker: Worker, only: str, quick: Path, long: Path
) -> tuple[list[Series], dict[str, str], list[str]]:
    """The runtimes that can be measured here, their versions, and remarks about the others."""
    series, versions, remarks = [], {}, []
    for name in only.split(","):
        path = next(filter(None, map(find, RUNTIMES[name])), None)
        if path is None:
            remarks.append(f"{name}: not found")
            continue
        peer = Peer(name, path)
        one = Series(name, peer, worker, place / name)
        why = usable(one, quick, long)
        if why:
            remarks.append(f"{name} {peer.version} cannot be measured here: {why}")
            continue
        versions[name] = peer.version
        remarks += [f"{name} has no `{verb}`: {text}" for verb, text in one.missing.items()]
        series.append(one)
    return series, versions, remarks


def extras(
    series: list[Series], place: Path, pyrunc: str, quick: Path, long: Path, given: argparse.Namespace
) -> tuple[list[Row], dict[str, dict[str, str]]]:
    """Everything except the comparison, printed as it is measured: rows and notes."""
    names = [one.name for one in series]
    with busy() as count:
        rows = rows_of("loaded", collect(series, quick, long, given.loaded_rounds))
    show(f"the same beside {count} processes that compute, {given.loaded_rounds} rounds", rows, names)
    storms, left = storm.rows(series, quick, given.containers, given.at_once)
    title = f"{given.containers} containers, {given.at_once} at a time: `run` of /bin/true"
    show(title, storms, names)
    memories = memory.rows(series, quick, long)
    show("memory", memories, names)
    points, why = checkpoint.rows(series, place, pyrunc, long)
    show("checkpoint and restore", points, [*names, "criu"])
    added = mounts.rows(series, place, long)
    show("mounts beside exec", added, [OURS, mounts.EXEC])
    crowds = scale.rows(series, quick, long)
    show(f"{scale.COUNT} containers at once", crowds, names)
    notes = {"Leftovers of the storm": left}
    if why:
        notes["Checkpoint and restore"] = why

    def note(title: str, measure: Callable[[], dict[str, str]]) -> None:
        notes[title] = measure()
        section(title, "\n".join(f"  {name:14} {value}" for name, value in notes[title].items()))

    note("`create` with a config of 10 MB", lambda: unusual.big_config(series, place, pyrunc))
    note("`run` with 2000 bind mounts, RLIMIT_NOFILE 1024", lambda: unusual.many_binds(series, place, pyrunc))
    note(
        "`run` of /bin/true with a user namespace",
        lambda: userns.measure(series, place, pyrunc, quick, given.rounds // 2),
    )
    note("Smallest memory.max for /bin/true", lambda: unusual.smallest_memory(series, place, pyrunc))
    note("Modules that pyrunc imports in a plain interpreter", lambda: unusual.imports(place, pyrunc, long))
    note("Instructions of pyrunc (callgrind)", lambda: instructions.count(pyrunc, long, place / "callgrind"))
    return rows + storms + memories + points + added + crowds, notes


def measure(place: Path, pyrunc: str, given: argparse.Namespace) -> Report:
    """Measure and print."""
    facts, begin = report.machine(), time.monotonic()
    facts["commit"] = report.commit()
    quick = make_bundle(place, pyrunc, "quick", ["/bin/true"])
    long = make_bundle(place, pyrunc, "long", ["/bin/sleep", "1000"])
    with tmpfs(place / "state") as state, closing(Worker(private=False)) as worker:
        series, versions, remarks = set_up(state, worker, given.only, quick, long)
        if OURS not in versions:
            sys.exit("bench: " + "\n".join(remarks))
        print(*(f"{name}: {text}" for name, text in (facts | versions).items()), *remarks, sep="\n")
        notes: dict[str, dict[str, str]] = {}
        try:
            rows = rows_of("verbs", collect(series, quick, long, given.rounds))
            show(f"whole process, interleaved, {given.rounds} rounds", rows, list(versions))
            if not given.quick:
                more, notes = extras(series, place, pyrunc, quick, long, given)
                rows += more
        finally:
            for one in series:
                one.clear()
    return {
        "date": report.today(),
        "machine": facts,
        "runtimes": versions,
        "rounds": given.rounds,
        "seconds": round(time.monotonic() - begin),
        "remarks": remarks,
        "rows": rows,
        "notes": notes,
    }


def main() -> None:
    """Measure, print, and write on request; the exit status does not depend on the goals."""
    given = options()
    if os.geteuid() != 0:
        sys.exit("bench: needs root, as every runtime does here")
    pyrunc = find("pyrunc")
    if pyrunc is None:
        sys.exit("bench: no pyrunc: run `make build` first, or set PYRUNC")
    enter_private_namespace()
    place = Path(tempfile.mkdtemp(prefix="pybench"))
    try:
        found = measure(place, pyrunc, given)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    verdicts = [judge(goal, found["rows"]) for goal in GOALS]
    head = ["goals", "measured", "to reach", "met"]
    lines = [
        [one.goal.text(), "-" if one.figure is None else page.number(one.figure), f"{one.goal.reach:g}", one.word()]
        for one in verdicts
    ]
    section("", aligned([head, *lines]))
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1))
    if given.write:
        page.write(found)
        print(f"\nwrote {page.PAGE.name}, {page.DATA.name} and {page.PICTURE.name}; {found['seconds']} s")
