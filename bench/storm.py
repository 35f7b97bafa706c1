"""A storm of containers: many, several at a time, and their leftovers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench.report import Row, row

if TYPE_CHECKING:
    from pathlib import Path

    from bench.series import Series

ROUNDS = 3


def measure(series: Series, bundle: Path, count: int, at_once: int, number: int) -> tuple[float, float, str]:
    """Containers per second, CPU milliseconds of one with everything it started, and what went
    wrong: failures, and leftovers in the state directory, cgroups and processes."""
    prefix = f"bench{os.getpid()}-{series.root.name}-storm{number}-"
    argv = [series.peer.path, "--root", str(series.root), "run", "--bundle", str(bundle), prefix + "{}"]
    result = series.worker.storm(argv, count, at_once)
    series.worker.reap()
    left = leftovers(series.root, prefix)
    for one in range(count):
        if any(f"{prefix}{one}" in name for name in left):
            series.call("delete", "--force", f"{prefix}{one}", expect=None)
    text = f"{len(left)} leftovers" if left else ""
    if result["failed"]:
        text += f" {result['failed']} failed: {result['text'][-100:]}"
    return count / result["seconds"], 1e3 * result["cpu_seconds"] / count, text.strip()


def rows(series: list[Series], bundle: Path, count: int, at_once: int) -> tuple[list[Row], dict[str, str]]:
    """The rows of the group "storm", and what went wrong by runtime."""
    rates: dict[str, list[float]] = {one.name: [] for one in series}
    spent: dict[str, list[float]] = {one.name: [] for one in series}
    wrong: dict[str, str] = {}
    for number in range(ROUNDS):
        for one in series:
            rate, cpu, text = measure(one, bundle, count, at_once, number)
            rates[one.name].append(rate)
            spent[one.name].append(cpu)
            wrong[one.name] = wrong.get(one.name) or text
    found = [row("storm", "containers", "a second", rates), row("storm", "one container", "CPU ms", spent)]
    return found, {name: text or "no failures, no leftovers" for name, text in wrong.items()}


def leftovers(root: Path, prefix: str) -> list[str]:
    """Names in the state directory and of cgroups, and processes, that belong to these
    containers."""
    found = [name for name in os.listdir(root) if name.startswith(prefix)] if root.exists() else []
    for _, names, _ in os.walk("/sys/fs/cgroup"):
        found += [name for name in names if prefix in name]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                line = file.read()
        except OSError:
            continue
        if prefix.encode() in line and int(pid) != os.getpid():
            found.append(f"process {pid}")
    return found
