"""Memory: the peak of one runtime process by verb, and the process that waits for `start`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import OURS, Row, row

if TYPE_CHECKING:
    from bench.series import Series

VERBS = ("run", "create", "state", "start", "exec", "kill", "delete")
ROUNDS = 5


def peaks(series: Series, quick: Path, long: Path) -> dict[str, list[float]]:
    """Peak resident MB of the runtime's process, by verb."""
    found: dict[str, list[float]] = {verb: [] for verb in VERBS}
    for number in range(ROUNDS):
        ident = f"bench{os.getpid()}-{series.root.name}-peak{number}"
        more = {"run": ["--bundle", str(quick)], "create": ["--bundle", str(long)]}
        for verb in VERBS:
            tail = {"exec": ["/bin/true"], "kill": ["KILL"]}.get(verb, [])
            argv = [series.peer.path, "--root", str(series.root), verb, *more.get(verb, []), ident, *tail]
            found[verb].append(series.worker.peak(argv) / 1024)
            if verb == "kill":
                series.worker.reap()
    return found


def waiting(series: Series, long: Path) -> dict[str, int]:
    """Resident KiB, proportional KiB and threads of the process between create and start."""
    ident = f"bench{os.getpid()}-{series.root.name}-waiting"
    series.call("create", "--bundle", str(long), "--pid-file", str(series.pid_file), ident)
    try:
        pid = series.pid_file.read_text()
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
    finally:
        series.call("delete", "--force", ident)
        series.worker.reap()
        series.pid_file.unlink(missing_ok=True)
    return {
        "rss": int(re.findall(r"^Rss:\s+(\d+)", rollup, re.MULTILINE)[0]),
        "pss": int(re.findall(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[0]),
        "threads": int(re.findall(r"Threads:\s+(\d+)", status)[0]),
    }


def rows(series: list[Series], quick: Path, long: Path) -> list[Row]:
    """The rows of the group "memory"."""
    by_name = {one.name: peaks(one, quick, long) for one in series}
    out = [
        row("memory", f"peak of {verb}", "MB", {name: found[verb] for name, found in by_name.items()}) for verb in VERBS
    ]
    largest = {name: [max(map(max, found.values()))] for name, found in by_name.items()}
    out.append(row("memory", "peak of the largest verb", "MB", largest))
    created = {one.name: waiting(one, long) for one in sorted(series, key=lambda one: one.name != OURS)}
    for key, what, unit in (("rss", "RSS", "KiB"), ("pss", "PSS", "KiB"), ("threads", "threads", "threads")):
        values = {one.name: [float(created[one.name][key])] for one in series}
        out.append(row("memory", f"waiting process, {what}", unit, values))
    return out
