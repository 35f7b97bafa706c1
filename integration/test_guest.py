"""The controller tests in a guest, when this machine's cgroup v2 has too few controllers; how they get there."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile

import pytest

from integration.vm import tiers
from integration.vm.images import REPO
from integration.vm.machine import Job


@pytest.mark.slow
def test_controllers_in_a_guest() -> None:
    """`python -m integration.vm short`; `make test-vm` has the whole of it.

    Skipped with the reason when no guest can be had, and where the controllers are here: then the tests just ran.
    """
    if os.environ.get("PYRUNC_UNDER_TEST"):
        pytest.skip("the guest has pyrunc only")
    if not tiers.why_not_native("short", tiers.TIERS["short"]):
        pytest.skip("not needed: this machine has every controller")
    argv = [sys.executable, "-m", "integration.vm", "short"]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, timeout=2400, check=False)
    if done.returncode == tiers.UNAVAILABLE:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-4000:]


@pytest.mark.parametrize(("emulated", "factor"), [(False, "1"), (True, "6")])
def test_time_limits_go_with_how_the_guest_really_runs(emulated: bool, factor: str) -> None:
    """Where KVM is there but does not boot, the second attempt is emulated: it needs the time of that."""
    job = Job(["true"], {"PYRUNC_TEST_SLOW": "1", "OTHER": "x y"}, {"PYRUNC_TEST_SLOW": "6"})
    with tarfile.open(fileobj=io.BytesIO(job.tar("nonce", emulated))) as tar:
        command = tar.extractfile("cmd")
        assert command
        lines = command.read().decode().splitlines()
    assert f"export PYRUNC_TEST_SLOW={factor}" in lines
    assert "export OTHER='x y'" in lines
    assert lines[-1] == "exec true"
