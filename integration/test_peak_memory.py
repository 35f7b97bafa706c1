"""The memory of pyrunc's own process: no verb has a peak of 8 MB.

Most of it is pages of the executable's file. Therefore the peak grows if the training run of the
snapshot (native/launcher/snapshot/training.py) no longer does what verbs do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.measure import Worker, make_bundle
from integration.harness import Runtime

MOST = 7.5  # MB
# A verb for people may take more than one that an engine calls for each container.
SHORT = 5.8


@pytest.fixture
def worker() -> Iterator[Worker]:
    one = Worker(private=True)
    yield one
    one.close()


@pytest.mark.pyrunc_only("the limit is pyrunc's")
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="CPython 3.13 and later need up to 12 MB")
def test_no_verb_needs_much_memory(worker: Worker, tmp_path: Path, runtime: Runtime) -> None:
    quick = make_bundle(tmp_path, runtime.path, "quick", ["/bin/true"])
    long = make_bundle(tmp_path, runtime.path, "long", ["/bin/sleep", "1000"])
    ident = f"peak-{tmp_path.name}"
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
