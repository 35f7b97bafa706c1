"""Keep every core busy while something is measured."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from bench.measure import die_with_parent

PER_CORE = 2


@contextmanager
def busy(per_core: int = PER_CORE) -> Iterator[int]:
    """Run `per_core` processes for each core that only compute. Yields their number."""
    pids = []
    try:
        for _ in range(per_core * len(os.sched_getaffinity(0))):
            pids.append(_compute())
        yield len(pids)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _compute() -> int:
    """Start one process; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        die_with_parent()
        while True:
            pass
    finally:
        os._exit(1)
