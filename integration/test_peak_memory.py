"""The memory of pyrunc's own process: no verb has a peak of 8 MB.

Most of it is pages of the executable's file. Therefore the peak grows if the training run of the
snapshot (native/launcher/snapshot/training.py) no longer does what verbs do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.measure import Worker, make_bundle
from integration.harness import Runtime

# MB; a verb for people may take more than one that an engine calls for each container. Code of
# CPython 3.14 is larger, and so is the libc of Debian testing.
MOST, SHORT = (7.9, 6.4) if sys.version_info >= (3, 14) else (7.5, 5.8)


@pytest.fixture
def worker() -> Iterator[Worker]:
    one = Worker(private=True)
    yield one
    one.close()


def forget(path: str) -> None:
    """Let the kernel read a file again. Linux 6.18 maps whole folios, and those of a file that was
    just written are large: 5 MB more of an executable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


@pytest.mark.pyrunc_only("the limit is pyrunc's")
def test_no_verb_needs_much_memory(worker: Worker, tmp_path: Path, runtime: Runtime) -> None:
    quick = make_bundle(tmp_path, runtime.path, "quick", ["/bin/true"])
    long = make_bundle(tmp_path, runtime.path, "long", ["/bin/sleep", "1000"])
    ident = f"peak-{tmp_path.name}"
    forget(runtime.path)
    peaks = {}

    def measure(verb: str, *args: str) -> None:
        peaks[verb] = worker.peak([runtime.path, "--root", str(tmp_path / "root"), verb, *args]) / 1024

    measure("run", "--bundle", str(quick), ident)
    measure("create", "--bundle", str(long), ident)
    try:
        measure("state", ident)
        measure("start", ident)
        measure("exec", ident, "/bin/true")
        measure("kill", ident, "KILL")
        worker.reap()
    finally:
        measure("delete", "--force", ident)
    assert max(peaks.values()) <= MOST, peaks
    assert max(peaks["state"], peaks["start"]) <= SHORT, peaks
