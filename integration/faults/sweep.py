"""Sweep all points of all scenes: R1 errors, R2 kills of the runtime, R3 kills of what it starts,
R10 to R12.

    python -m integration.faults.sweep [--seconds S] [--jobs N] [--kind error,memory ...] [--scenes A,B] [--most N]

Results are appended to ``build/faults/RUNTIME.jsonl``, one line per point. A point that already has
a result from the same executable is skipped, so a stopped sweep can be resumed. The exit status is
1 if any point has a problem.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from integration import harness, machine
from integration.faults import points, rich_scenes, scarcity, scenes
from integration.faults.points import Point
from integration.faults.scenes import Sandbox, Scene

RESULTS = harness.REPO / "build/faults"
KINDS = ("error", "kill", "init", "memory", "space", "library", "criu", "full")


def points_of(scene: Scene, kinds: list[str] | tuple[str, ...]) -> list[Point]:
    """Every point of a scene."""
    kinds = [kind for kind in kinds if kind in scene.kinds]
    traced = {"error", "kill", "init"}.intersection(kinds)
    calls = points.after_start(scene.trace(), programs=scene.pyrunc) if traced else []
    found: list[Point] = []
    if "error" in kinds:
        found += points.of_errors(scene.name, calls)
    if "kill" in kinds:
        found += points.of_kills(scene.name, calls, inside=False)
    if "init" in kinds and scene.kills_init:
        found += points.of_kills(scene.name, calls, inside=True)
    return found + (scarce_points(scene, kinds) if scene.pyrunc else []) + scene.more_points(kinds)


def scarce_points(scene: Scene, kinds: list[str] | tuple[str, ...]) -> list[Point]:
    """The points of the interpreter itself; peers have none."""
    kinds = [kind for kind in kinds if kind in scene.kinds]
    found = scarcity.of_memory(scene.name, scene.allocations()) if "memory" in kinds else []
    found += scarcity.of_space(scene.name) if "space" in kinds else []
    return found + (scarcity.of_library(scene.name) if "library" in kinds else [])


def kind_of(point: Point) -> str:
    """The point's kind, one of `KINDS`."""
    scarce = {
        "NOMEM": "memory",
        "NOMEMS": "memory",
        "SPACE": "space",
        "NOLIB": "library",
        "FULL": "full",
        "CRIU": "criu",
    }
    return scarce.get(point.error) or ("error" if point.error else "kill" if point.call.own else "init")


def identity(path: str) -> str:
    """An identifier of the executable that the results are about."""
    return hashlib.sha256(Path(os.path.realpath(path)).read_bytes()).hexdigest()[:12]


def row(point: Point, build: str, done: scenes.Outcome, problems: list[str]) -> dict[str, Any]:
    """One line of the results."""
    word = "fault" if problems else "missed" if not done.hit else "clean" if done.rc else "tolerated"
    return {
        "key": point.key, "build": build, "scene": point.scene, "kind": kind_of(point), "error": point.error,
        "thread": point.call.thread, "index": point.call.index, "call": done.hit or point.call.name, "rc": done.rc,
        "seconds": round(done.seconds, 3), "result": word, "problems": problems, "err": done.err[:300],
    }  # fmt: skip


def done_before(path: Path, build: str) -> set[str]:
    """The points that this executable has passed; points with a problem are repeated."""
    if not path.exists():
        return set()
    rows = (json.loads(line) for line in path.read_text().splitlines())
    return {row["key"] for row in rows if row["build"] == build and row["result"] != "fault"}


def work(base: Path, options: argparse.Namespace, runtime: harness.Runtime) -> int:
    """Try one worker's share of every scene's points until the deadline. Returns the number of
    problems."""
    share, shares = map(int, options.share.split("/"))
    out = RESULTS / f"{runtime.name}.jsonl"
    build = identity(runtime.path)
    passed = done_before(out, build)
    probe = base / "probe"
    harness.build_probe(probe)
    template = harness.build_template(base, probe)
    wanted = [kind for kind in rich_scenes.ALL if not options.scenes or kind.name in options.scenes.split(",")]
    end, faults = time.monotonic() + options.seconds, 0
    for number, kind in enumerate(wanted):
        sandbox = Sandbox(runtime, template, base, f"f{os.getpid():x}s{number}")
        scene = kind(sandbox)
        chosen = points.shuffled(points_of(scene, options.kind.split(",")), share, shares)
        todo = [point for point in chosen if point.key not in passed][: options.most or None]
        until = time.monotonic() + (end - time.monotonic()) / (len(wanted) - number)
        for at, point in enumerate(todo):
            if time.monotonic() > until:
                print(f"{scene.name}: {len(todo) - at} of {len(todo)} points not done: no time", flush=True)
                break
            done, problems = scene.attempt(point)
            with out.open("a") as file:
                file.write(json.dumps(row(point, build, done, problems)) + "\n")
            if problems:
                faults += 1
                print(f"{point.key} {done.hit}: {'; '.join(problems)[:600]} (said: {done.err[:200]!r})", flush=True)
        scene.close()
        sandbox.sweep_up()
        shutil.rmtree(sandbox.path, ignore_errors=True)
    return faults


def settle(runtime: harness.Runtime) -> None:
    """Enter a new namespace, become a subreaper, and mount cgroup v2 where a peer looks for it."""
    machine.own_mount_namespace()
    machine.become_subreaper()
    if runtime.prefix:
        runtime.prefix = []
        machine.libc("umount2", b"/sys/fs/cgroup", 2)  # MNT_DETACH, only in our namespace
        machine.libc("mount", b"none", b"/sys/fs/cgroup", b"cgroup2", 0, None)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--share", default="")
    parser.add_argument("--kind", default=",".join(KINDS))
    parser.add_argument("--scenes", default="")
    parser.add_argument("--most", type=int, default=0, help="points of each scene and worker; 0: all")
    options = parser.parse_args()
    names = [kind.name for kind in rich_scenes.ALL]
    if unknown := set(options.scenes.split(",")) - {"", *names}:
        parser.error(f"--scenes: no such scene: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    if not options.share:
        argv = [sys.executable, "-m", "integration.faults.sweep", *sys.argv[1:], "--share"]
        workers = [subprocess.Popen([*argv, f"{n}/{options.jobs}"]) for n in range(options.jobs)]
        return max(worker.wait() for worker in workers)
    path = harness.Runtime.find()
    assert path, "the runtime under test is not there (make build)"
    runtime = harness.Runtime(path)
    settle(runtime)
    base = Path(tempfile.mkdtemp(prefix="pyf"))
    base.chmod(0o755)
    try:
        return 1 if work(base, options, runtime) else 0
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
