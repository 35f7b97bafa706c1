"""The benchmark: interleaved rounds of every runtime, medians, ratios, goals.

It prints tables; ``--json FILE`` writes the results for machines.

A round runs, for each runtime in turn: `run` of /bin/true, and create, state, start, kill and
delete of a container that sleeps. The order of the runtimes rotates, so that a slow second of the
machine does not affect only one of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import instructions, storm, userns
from bench.measure import REPO, Peer, Worker, find, interpreter, make_bundle
from bench.series import SUM, Series, usable

VERBS = ["run", "create", "start", "state", "exec", "ps", "events", "kill", "delete"]
Samples = dict[str, dict[str, list[float]]]

# (what, series, verb, compared with, factor): the project's goals
GOALS = [
    ("run /bin/true", "pyrunc", "run", "runc", 0.55),
    ("run /bin/true", "pyrunc", "run", "crun", 1.3),
    ("create", "pyrunc", "create", "runc", 0.55),
    ("create", "pyrunc", "create", "crun", 1.3),
    ("start", "pyrunc", "start", "runc", 1.4),
    ("state", "pyrunc", "state", "runc", 1.4),
    ("kill", "pyrunc", "kill", "runc", 1.4),
    ("delete", "pyrunc", "delete", "runc", 1.4),
    (SUM, "pyrunc", SUM, "runc", 0.8),
    ("exec /bin/true", "pyrunc", "exec", "runc", 0.6),
    ("state", "pyrunc", "state", "python -ISc pass", 1.3),
]


def collect(series: list[Series], python: str, worker: Worker, quick: Path, long: Path, rounds: int) -> Samples:
    """All samples, by series and verb."""
    samples: Samples = {one.name: {verb: [] for verb in [*VERBS, SUM]} for one in series}
    samples["python -ISc pass"] = {"state": []}
    for number in range(rounds):
        turn = number % len(series)
        for one in series[turn:] + series[:turn]:
            for verb, value in one.round(quick, long, number).items():
                samples[one.name][verb].append(value)
        samples["python -ISc pass"]["state"].append(worker.run([python, "-I", "-S", "-c", "pass"]))
    return samples


def created(series: Series, long: Path) -> dict[str, int]:
    """Resident KiB and threads of the process that waits between create and start."""
    ident = f"bench{os.getpid()}-rss"
    pid_file = series.root / "rss.pid"
    series.root.mkdir(exist_ok=True)
    series.call("create", "--bundle", str(long), "--pid-file", str(pid_file), ident)
    try:
        status = Path(f"/proc/{pid_file.read_text()}/status").read_text()
    finally:
        series.call("delete", "--force", ident)
        series.worker.reap()
        pid_file.unlink()
    return {
        "rss_kib": int(re.findall(r"VmRSS:\s+(\d+)", status)[0]),
        "threads": int(re.findall(r"Threads:\s+(\d+)", status)[0]),
    }


def big_config(series: list[Series], place: Path, pyrunc: str) -> dict[str, float]:
    """Milliseconds of `create` with 10 MB of annotations, the median of three (of one if it
    takes seconds)."""
    annotations = {f"org.example.key{number:06}": "v" * 75 for number in range(100_000)}
    bundle = make_bundle(place, pyrunc, "big", ["/bin/true"], annotations=annotations)
    times: dict[str, list[float]] = {}
    for number in range(3):
        for one in series:
            if times.get(one.name, [0.0])[0] > 5000:
                continue
            ident = f"bench{os.getpid()}-big{number}"
            times.setdefault(one.name, []).append(one.call("create", "--bundle", str(bundle), ident))
            one.call("delete", "--force", ident)
            one.worker.reap()
    return {name: statistics.median(values) for name, values in times.items()}


def many_binds(series: list[Series], place: Path, pyrunc: str) -> dict[str, str]:
    """`run` with 2 000 bind mounts under RLIMIT_NOFILE 1024: milliseconds, or the reason for a
    failure."""
    bundle = make_bundle(place, pyrunc, "binds", ["/bin/true"])
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    config["root"]["readonly"] = False
    for number in range(2000):
        entry = {"destination": f"/mnt/{number}", "type": "bind", "source": str(place), "options": ["bind", "ro"]}
        config["mounts"].append(entry)
    path.write_text(json.dumps(config))
    results = {}
    limited = ["/bin/sh", "-c", 'ulimit -n 1024; exec "$@"', "sh"]
    for one in series:
        argv = [*limited, one.peer.path, "--root", str(one.root), "run", "-b", str(bundle), f"bench{os.getpid()}-binds"]
        try:
            results[one.name] = f"{one.worker.run(argv):.0f} ms"
        except RuntimeError as error:
            results[one.name] = "fails: " + str(error).rpartition(": ")[2][-100:]
            one.call("delete", "--force", f"bench{os.getpid()}-binds", expect=None)
    return results


def smallest_memory(series: list[Series], place: Path, pyrunc: str) -> dict[str, str]:
    """The smallest memory.max (KiB, to 64 KiB) under which `run /bin/true` works, by bisection."""
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    if not controllers.exists() or "memory" not in controllers.read_text().split():
        return {one.name: "not measured: no memory controller on cgroup v2" for one in series}
    bundle = make_bundle(place, pyrunc, "memory", ["/bin/true"])
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    results = {}
    for one in series:
        low, high = 0, 64 << 10
        while high - low > 64:
            middle = (low + high) // 2
            config["linux"]["resources"]["memory"] = {"limit": middle << 10}
            path.write_text(json.dumps(config))
            try:
                one.call("run", "--bundle", str(bundle), f"bench{os.getpid()}-memory")
                high = middle
            except RuntimeError:
                low = middle
                one.call("delete", "--force", f"bench{os.getpid()}-memory", expect=None)
        results[one.name] = f"{high} KiB"
    return results


IMPORTS = """
import sys
sys.path[:0] = {path!r}
before = set(sys.modules)
from pyrunc.__main__ import run
status = run({argv!r})
new = set(sys.modules) - before
sys.stderr.write("\\n%d %d" % (len(new), len([name for name in new if not name.startswith("pyrunc")])))
"""


def imports(place: Path, pyrunc: str, long: Path) -> dict[str, str]:
    """Modules that each verb imports in a plain interpreter: all of them, and those outside
    pyrunc."""
    site = subprocess.run(
        [str(REPO / ".venv/bin/python"), "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    counts = {}
    root, ident = place / "imports", f"bench{os.getpid()}-imports"
    errors = place / "imports.err"  # a file, because the container keeps its stderr open
    for verb in ("create", "state", "start", "kill", "delete"):
        more = ["--bundle", str(long)] if verb == "create" else []
        argv = ["--root", str(root), verb, *more, ident, *(["KILL"] if verb == "kill" else [])]
        code = IMPORTS.format(path=[site], argv=argv)
        with errors.open("w") as sink:
            command = [interpreter(), "-I", "-S", "-c", code]
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, timeout=60, check=False)
        text = errors.read_text().strip()
        numbers = text.rpartition("\n")[2].split()
        counts[verb] = f"{numbers[0]} ({numbers[1]} foreign)" if len(numbers) == 2 else text[-100:]
    subprocess.run([pyrunc, "--root", str(root), "delete", "--force", ident], check=False, timeout=60)
    return counts


def table(rows: list[list[str]]) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    return "\n".join(lines)


def medians_table(samples: Samples, names: list[str]) -> str:
    """Median milliseconds by verb and series, and the ratio to runc."""
    head = ["median ms"]
    for name in names:
        head += [name] + (["/runc"] if name != "runc" and "runc" in names else [])
    rows = [head]
    for verb in [*VERBS, SUM]:
        row = [verb]
        for name in names:
            if not samples[name][verb] or ("runc" in names and not samples["runc"][verb]):
                value = statistics.median(samples[name][verb] or [0.0])
                row += [f"{value:.2f}" if value else "-", *([] if name == "runc" or "runc" not in names else ["-"])]
                continue
            value = statistics.median(samples[name][verb])
            row.append(f"{value:.2f}")
            if name != "runc" and "runc" in names:
                row.append(f"{value / statistics.median(samples['runc'][verb]):.2f}")
        rows.append(row)
    return table(rows)


def judge(samples: Samples) -> list[dict[str, Any]]:
    """Each goal with the measured ratio; `met` is None if there was nothing to compare with."""
    results: list[dict[str, Any]] = []
    for what, series, verb, other, factor in GOALS:
        if not samples.get(other, {}).get(verb) or not samples.get(series, {}).get(verb):
            results.append({"goal": f"{what} <= {factor} x {other}", "ratio": None, "met": None})
            continue
        ratio = statistics.median(samples[series][verb]) / statistics.median(samples[other][verb])
        results.append({"goal": f"{what} <= {factor} x {other}", "ratio": round(ratio, 3), "met": ratio <= factor})
    return results


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="rounds of the comparison (60)")
    parser.add_argument("--json", metavar="FILE", help="write all samples and results there")
    parser.add_argument(
        "--only", default="", metavar="NAMES", help="runtimes to compare, with commas (runc,runc-new,crun,pyrunc)"
    )
    parser.add_argument("--quick", action="store_true", help="the comparison only")
    parser.add_argument("--containers", type=int, default=200, help="containers of the parallel run (200)")
    parser.add_argument("--at-once", type=int, default=8, help="how many of them at a time (8)")
    return parser.parse_args()


def set_up(place: Path, only: str, quick: Path, long: Path) -> tuple[list[Series], Worker, Worker, list[str]]:
    """The columns that can be measured here, the two workers, and remarks about the others."""
    inside, outside = Worker(private=True), Worker(private=False)
    wanted = only.split(",") if only else ["runc", "runc-new", "crun", "pyrunc"]
    series, remarks = [], []
    for name in wanted:
        path = find(name)
        if path is None:
            remarks.append(f"{name}: not found")
            continue
        peer = Peer(name, path)
        places = [(name, inside)]
        if name == "pyrunc" and inside.moved:
            places.append(("pyrunc native", outside))
        for label, worker in places:
            one = Series(label, peer, worker, place / label.replace(" ", "-"))
            why = usable(one, quick, long)
            if why:
                remarks.append(f"{label} {peer.version} cannot be measured here: {why}")
            else:
                remarks.append(f"{label}: {peer.version}, {path}")
                remarks += [f"{label} has no `{verb}` here: {text}" for verb, text in one.missing.items()]
                series.append(one)
    return series, inside, outside, remarks


def section(title: str, body: str) -> None:
    print(f"\n{title}\n{body}", flush=True)


def extras(
    series: list[Series], place: Path, pyrunc: str, quick: Path, long: Path, given: argparse.Namespace
) -> dict[str, Any]:
    """Everything except the comparison, printed as it is measured."""
    found: dict[str, Any] = {}

    def show(title: str, key: str, measure: Callable[[], dict[str, Any]]) -> None:
        found[key] = measure()
        section(title, "\n".join(f"  {name:14} {value}" for name, value in found[key].items()))

    show(
        f"{given.containers} containers, {given.at_once} at a time: `run` of /bin/true",
        "storm",
        lambda: {one.name: storm.measure(one, quick, given.containers, given.at_once) for one in series},
    )
    show(
        "waiting process between create and start", "created", lambda: {one.name: created(one, long) for one in series}
    )
    show(
        "create with a 10 MB config",
        "big_config_ms",
        lambda: {k: f"{v:.0f}" for k, v in big_config(series, place, pyrunc).items()},
    )
    show("run with 2000 bind mounts, RLIMIT_NOFILE 1024", "many_binds", lambda: many_binds(series, place, pyrunc))
    show(
        "run /bin/true with a user namespace",
        "userns",
        lambda: userns.measure(series, place, pyrunc, quick, given.rounds),
    )
    show("smallest memory.max for /bin/true", "smallest_memory", lambda: smallest_memory(series, place, pyrunc))
    show("modules imported by pyrunc", "imports", lambda: imports(place, pyrunc, long))
    show(
        "instructions of pyrunc (callgrind)",
        "instructions",
        lambda: instructions.count(pyrunc, long, place / "callgrind"),
    )
    return found


def main() -> None:
    """Measure, print, and write JSON on request; the exit status does not depend on the goals."""
    given = options()
    if os.geteuid() != 0:
        sys.exit("bench: needs root, as every runtime does here")
    pyrunc = find("pyrunc")
    if pyrunc is None:
        sys.exit("bench: no pyrunc: run `make build` first, or set PYRUNC")
    place = Path(tempfile.mkdtemp(prefix="pybench"))
    try:
        quick = make_bundle(place, pyrunc, "quick", ["/bin/true"])
        long = make_bundle(place, pyrunc, "long", ["/bin/sleep", "1000"])
        series, inside, outside, remarks = set_up(place, given.only, quick, long)
        print(f"{platform.machine()}, Linux {platform.release()}, {os.cpu_count()} CPUs, {given.rounds} rounds")
        print("\n".join(remarks))
        samples = collect(series, interpreter(), inside, quick, long, given.rounds)
        section("whole process, interleaved", medians_table(samples, [one.name for one in series]))
        python = statistics.median(samples["python -ISc pass"]["state"])
        print(f"python -I -S -c pass: {python:.2f} ms")
        goals = judge(samples)
        words = {True: "pass", False: "MISS", None: "not compared"}
        section("goals", "\n".join(f"  {words[goal['met']]:12} {goal['goal']}: {goal['ratio']}" for goal in goals))
        found: dict[str, Any] = {"samples": samples, "goals": goals, "remarks": remarks}
        if not given.quick:
            found |= extras(series, place, pyrunc, quick, long, given)
        if given.json:
            Path(given.json).write_text(json.dumps(found, indent=1))
        inside.close()
        outside.close()
    finally:
        shutil.rmtree(place, ignore_errors=True)
