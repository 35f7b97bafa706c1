"""A storm of containers: many, several at a time, and their leftovers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from bench.series import Series


def measure(series: Series, bundle: Path, count: int, at_once: int) -> str:
    """Containers per second, the peak memory of one runtime process, and leftovers: state,
    cgroups, processes."""
    prefix = f"bench{os.getpid()}-{series.root.name}-storm"
    argv = [series.peer.path, "--root", str(series.root), "run", "--bundle", str(bundle), prefix + "{}"]
    result = series.worker.storm(argv, count, at_once)
    series.worker.reap()
    left = leftovers(series.root, prefix)
    for number in range(count):
        if any(f"{prefix}{number}" in name for name in left):
            series.call("delete", "--force", f"{prefix}{number}", expect=None)
    text = f"{count / result['seconds']:.1f} a second, at most {result['peak_kib']} KiB each, {len(left)} leftovers"
    if result["failed"]:
        text += f", {result['failed']} FAILED: {result['text'][-100:]}"
    return text


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
