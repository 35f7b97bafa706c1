"""Many containers in one containerd, with runc and with pyrunc: rates, memory, and leftovers.

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
from integration.engines import image
from integration.engines.conftest import NAMES, find, sandbox
from integration.engines.containerd import Containerd

Figures = dict[str, str]
EXECS = 10


def pss_kib(name: str, word: str) -> list[int]:
    """The proportional set size of a program's processes that have `word` in their command line."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if os.path.basename(words[0]) == name and any(word in one for one in words):
                found.append(int(re.findall(r"^Pss:\s+(\d+)", (place / "smaps_rollup").read_text(), re.MULTILINE)[0]))
        except (OSError, IndexError):  # the process has exited
            continue
    return found


def seconds(engine: Containerd, *args: str) -> float:
    """The duration of one call of ctr, which must succeed."""
    begin = time.monotonic()
    done = engine.ctr(*args)
    assert done.rc == 0, done
    return time.monotonic() - begin


def execs(engine: Containerd) -> float:
    """The median duration of an exec in the first container, in milliseconds."""
    args = ("task", "exec", "--exec-id", "e", "s0", "/bin/true")
    return 1000 * statistics.median(seconds(engine, *args) for _ in range(EXECS))


def measure(engine: Containerd, count: int) -> Figures:
    """Run, list, exec in and remove `count` containers."""
    made, gone = [], []
    for number in range(count):
        begin = time.monotonic()
        done = engine.detached(f"s{number}", "/bin/sleep", "100000")
        assert done.rc == 0, done
        made.append(time.monotonic() - begin)
        if number == 0:
            alone = execs(engine)
    part = max(1, count // 5)
    crowded = execs(engine)
    root = Path(engine.host.path)
    shims = pss_kib("containerd-shim-runc-v2", str(root))
    listed = 1000 * seconds(engine, "task", "ls")
    for number in range(count):
        begin = time.monotonic()
        done = engine.remove(f"s{number}")
        assert done.rc == 0, done
        gone.append(time.monotonic() - begin)
    left = [path for path in engine.host.cgroups() if re.search(r"/s\d+$", str(path))]
    return {
        "run, a second": f"{count / sum(made):.2f}",
        "run, last fifth x first fifth": f"{statistics.median(made[-part:]) / statistics.median(made[:part]):.2f}",
        "exec, ms": f"{crowded:.1f}",
        "exec, x alone": f"{crowded / alone:.2f}",
        "list, ms": f"{listed:.1f}",
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
    if reason or shutil.which("ctr") is None or shutil.which("containerd") is None or os.geteuid() != 0:
        raise SystemExit(f"engines.scale: needs root, containerd and ctr {reason}")
    folder = Path(tempfile.mkdtemp(prefix="pyi"))
    found: dict[str, Figures] = {}
    try:
        archive, _ = image.build(folder)
        for name in NAMES:
            path = find(name)
            if path is None:
                continue
            with sandbox(f"scale-{name}") as host:
                engine = Containerd(host, path, off=["io.containerd.grpc.v1.cri"])
                engine.load(archive)
                found[f"{name} ({engine.version})"] = measure(engine, given.containers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    whats = list(next(iter(found.values())))
    rows = [["", *found], *([what, *(figures[what] for figures in found.values())] for what in whats)]
    section(f"{given.containers} containers of containerd, through ctr", aligned(rows))


if __name__ == "__main__":
    main()
