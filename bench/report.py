"""What a run of the benchmark found, as one document: rows of figures, and remarks."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from bench import stats
from bench.measure import REPO

OURS = "pyrunc"


class Row(TypedDict):
    """One measure of every runtime. `ratios` are pyrunc's to each peer: the ratio and its
    interval."""

    group: str
    what: str
    unit: str
    values: dict[str, float]
    ratios: dict[str, list[float]]


class Report(TypedDict):
    """A whole run."""

    date: str
    machine: dict[str, str]
    runtimes: dict[str, str]  # name: version
    rounds: int
    seconds: int
    remarks: list[str]
    rows: list[Row]
    notes: dict[str, dict[str, str]]  # title: runtime or verb: text


def row(
    group: str,
    what: str,
    unit: str,
    samples: Mapping[str, Sequence[float]],
    of: stats.Statistic = statistics.median,
) -> Row:
    """Medians of each runtime's samples, or another statistic, and pyrunc's ratios; a runtime
    without samples is left out."""
    there = {name: values for name, values in samples.items() if values}
    return {
        "group": group,
        "what": what,
        "unit": unit,
        "values": {name: of(values) for name, values in there.items()},
        "ratios": {
            name: stats.ratio(there[OURS], values, of)
            for name, values in there.items()
            if OURS in there and name != OURS and len(values) == len(there[OURS])
        },
    }


def find(rows: list[Row], group: str, what: str, unit: str) -> Row | None:
    """The row of one measure."""
    for one in rows:
        if (one["group"], one["what"], one["unit"]) == (group, what, unit):
            return one
    return None


def machine() -> dict[str, str]:
    """The facts about this machine that the figures depend on."""
    processor = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    system = re.search(r'^PRETTY_NAME="?([^"\n]*)', Path("/etc/os-release").read_text(), re.MULTILINE)
    return {
        "processor": processor[1] if processor else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "architecture": platform.machine(),
        "memory": f"{int(memory[1]) / (1 << 20):.0f} GiB" if memory else "unknown",
        "kernel": platform.release(),
        "system": system[1] if system else "unknown",
        "idle before": f"{idle():.0f} %",
    }


def idle(seconds: float = 2.0) -> float:
    """How much of the processors' time is idle, in percent, measured now."""

    def times() -> list[int]:
        return [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]

    before = times()
    time.sleep(seconds)
    spent = [now - then for now, then in zip(times(), before, strict=True)]
    return 100 * (spent[3] + spent[4]) / max(1, sum(spent))  # idle and iowait: proc_stat(5)


def commit() -> str:
    """The commit of this tree, with a plus sign if files have changed since; "" outside git."""
    described = ["git", "-C", str(REPO), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(described, capture_output=True, text=True, check=False).stdout.strip()


def today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())
