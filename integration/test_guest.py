"""Run the controller tests in a guest if this machine's cgroup v2 has too few controllers."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from integration.vm import tiers
from integration.vm.images import REPO
from integration.vm.machine import Job


@pytest.mark.slow
def test_controllers_in_a_guest() -> None:
    """`python -m integration.vm short`; `make test-vm` runs the full set.

    Skipped if no guest can run, or if the controllers are available here: the tests then run on
    this machine.
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
    """If KVM exists but does not boot, the second attempt is emulated and needs more time."""
    job = Job(["true"], {"PYRUNC_TEST_SLOW": "1", "OTHER": "x y"}, {"PYRUNC_TEST_SLOW": "6"})
    with tarfile.open(fileobj=io.BytesIO(job.tar("nonce", emulated))) as tar:
        command = tar.extractfile("cmd")
        assert command
        lines = command.read().decode().splitlines()
    assert f"export PYRUNC_TEST_SLOW={factor}" in lines
    assert "export OTHER='x y'" in lines
    assert lines[-1] == "exec true"


COVERED = """
import pytest

@pytest.mark.needs_kernel(99, 0)
def test_never(): pass

@pytest.mark.needs_kernel(2, 0)
def test_always(): pass

@pytest.mark.needs_program("sh")
def test_program(): pass
"""


@pytest.mark.parametrize(
    ("cover", "told"),
    [
        ("", ""),
        ("needs_program", ""),
        ("needs_program needs_kernel", "must not be skipped here: test_covered.py::test_never (needs_kernel)"),
        ("needs_cap", "no test ran that is marked needs_cap"),
        ("needs_program:sh", ""),
        ("needs_program:other", "no test ran that is marked needs_program:other"),
    ],
)
def test_a_tier_fails_when_what_it_is_for_was_skipped(tmp_path: Path, cover: str, told: str) -> None:
    (tmp_path / "test_covered.py").write_text(COVERED)
    argv = [sys.executable, "-m", "pytest", "-p", "integration.conftest", "-p", "no:cacheprovider", "--color=no"]
    argv += ["-c", str(REPO / "pyproject.toml"), "--rootdir", str(tmp_path), str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(REPO), "PYTEST_ADDOPTS": "", "PYRUNC_TEST_COVER": cover}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "2 passed, 1 skipped" in done.stdout) == (int(bool(told)), True), done
    assert told in done.stdout
    assert ("NOT COVERED" in done.stdout) == bool(told)
