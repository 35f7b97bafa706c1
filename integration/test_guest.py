"""The controller tests in a guest, when this machine's cgroup v2 has too few controllers: one boot, a few minutes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from integration.vm import tiers
from integration.vm.images import REPO


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
