"""Many containers in one current containerd, with runc and with pyrunc: rates, memory, and
leftovers.

.venv/bin/python -m integration.engines.scale --containers 500
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from bench.tables import aligned, section
from integration import machine
from integration.engines import image, record
from integration.engines.conftest import NAMES, find, sandbox
from integration.engines.containerd import OFF_2, Containerd
from integration.engines.host import Host

Figures = dict[str, str]
ROUNDS = 10


def pss_kib(name: str, word: str) -> list[int]:
    """The proportional set size of a program's processes that have `word` in their command line."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if os.path.basename(words[0]) == name and any(word in one for one in words):
                found.append(machine.pss_kib(place.name))
        except (OSError, IndexError):  # the process has exited
            continue
    return found


def seconds(engine: Containerd, *args: str) -> float:
    """The duration of one call of ctr, which must succeed."""
    begin = time.monotonic()
    done = engine.ctr(*args)
    assert done.rc == 0, done
    return time.monotonic() - begin


def verbs(engine: Containerd) -> dict[str, float]:
    """The median durations of commands that call the runtime for the first container, in
    milliseconds."""
    commands: dict[str, list[tuple[str, ...]]] = {
        "exec": [("task", "exec", "--exec-id", "e", "s0", "/bin/true")],
        "pause and resume": [("task", "pause", "s0"), ("task", "resume", "s0")],
        "kill": [("task", "kill", "-s", "CONT", "s0")],
        "ps": [("task", "ps", "s0")],
    }
    return {
        name: 1000 * statistics.median(sum(seconds(engine, *one) for one in calls) for _ in range(ROUNDS))
        for name, calls in commands.items()
    }


def state_kib(host: Host) -> int:
    """The disk space of the runtime's state directories."""
    done = host.call("du", "-sk", "/run/containerd/runc")
    return int(done.out.split()[0])


def measure(engine: Containerd, count: int) -> Figures:
    """Run, list, exec in and remove `count` containers."""
    made, gone = [], []
    for number in range(count):
        begin = time.monotonic()
        done = engine.detached(f"s{number}", "/bin/sleep", "100000")
        assert done.rc == 0, done
        made.append(time.monotonic() - begin)
        if number == 0:
            alone = verbs(engine)
    part = max(1, count // 5)
    crowded = verbs(engine)
    root = Path(engine.host.path)
    shims = pss_kib("containerd-shim-runc-v2", str(root))
    state = state_kib(engine.host)
    listed = 1000 * seconds(engine, "task", "ls")
    for number in range(count):
        begin = time.monotonic()
        done = engine.remove(f"s{number}")
        assert done.rc == 0, done
        gone.append(time.monotonic() - begin)
    left = [path for path in engine.host.cgroups() if re.search(r"/s\d+$", str(path))]
    figures = {
        "run, a second": f"{count / sum(made):.2f}",
        "run, last fifth x first fifth": f"{statistics.median(made[-part:]) / statistics.median(made[:part]):.2f}",
    }
    for name, value in crowded.items():
        figures |= {f"{name}, ms": f"{value:.1f}", f"{name}, x alone": f"{value / alone[name]:.2f}"}
    return figures | {
        "list, ms": f"{listed:.1f}",
        "state, KiB a container": f"{state / count:.1f}",
        "shim, PSS KiB": f"{statistics.median(shims):.0f}" if shims else "-",
        "remove, a second": f"{count / sum(gone):.2f}",
        "remove, last fifth x first fifth": f"{statistics.median(gone[-part:]) / statistics.median(gone[:part]):.2f}",
        "cgroups left": str(len(left)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--containers", type=int, default=500, help="containers at once (500)")
    given = parser.parse_args()
    reason = image.require()
    bins = os.environ.get("PYRUNC_ENGINES_BIN", "")
    if reason or os.geteuid() != 0 or not bins:
        raise SystemExit(f"engines.scale: needs root and what make scale-engines builds {reason}")
    folder = Path(tempfile.mkdtemp(prefix="pyi"))
    found: dict[str, Figures] = {}
    try:
        archive, _ = image.build(folder)
        for name in NAMES:
            path = find(name)
            if path is None:
                continue
            with sandbox(f"scale-{name}") as host:
                host.env["PATH"] = f"{bins}:{host.env['PATH']}"
                engine = Containerd(host, path, off=OFF_2, folder=f"{bins}/")
                engine.load(archive)
                found[f"{name} ({engine.version})"] = measure(engine, given.containers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    whats = list(next(iter(found.values())))
    title = f"{given.containers} containers of containerd, through ctr"
    rows = [["", *found], *([what, *(figures[what] for figures in found.values())] for what in whats)]
    section(title, aligned(rows))
    target = os.environ.get("PYRUNC_ENGINES_RECORD")
    if target:
        record.save_scale(Path(target), title, rows)


if __name__ == "__main__":
    main()
