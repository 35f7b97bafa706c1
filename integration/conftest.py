"""Fixtures and marks of the integration tests; what they hand out is defined in harness.py."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration import harness
from integration.harness import Box, Bundle, Container, Holder, Runtime

_counter = itertools.count()
TEST_LIMIT = 120 * harness.SLOW  # one test, seconds

MARKS = {
    "needs_controller(name...)": "skip unless the unified cgroup hierarchy offers these controllers",
    "needs_cap(name...)": "skip unless these capabilities (without CAP_) are in the bounding set",
    "needs_program(name...)": "skip unless these programs are installed",
    "pyrunc_only(reason)": "skip for peers, which deviate here for the reason given",
}


def pytest_configure(config: pytest.Config) -> None:
    for name, text in MARKS.items():
        config.addinivalue_line("markers", f"{name}: {text}")


def _why_not(item: pytest.Item) -> str:
    for mark in item.iter_markers("needs_controller"):
        missing = [name for name in mark.args if name not in harness.controllers()]
        if missing:
            there = " ".join(harness.controllers())
            return f"no {', '.join(missing)} controller on this machine's cgroup v2 (it has: {there})"
    for mark in item.iter_markers("needs_cap"):
        missing = [name for name in mark.args if not harness.has_cap(name)]
        if missing:
            return f"CAP_{', CAP_'.join(missing)} is not in this machine's bounding set"
    for mark in item.iter_markers("needs_program"):
        missing = [name for name in mark.args if shutil.which(name) is None]
        if missing:
            return f"not installed: {', '.join(missing)}"
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = _why_not(item)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    """The runtime under test; skips what needs it when we are not root or it is not there."""
    if os.geteuid() != 0:
        pytest.skip("integration tests need root")
    path = Runtime.find()
    if path is None:
        wanted = os.environ.get("PYRUNC_UNDER_TEST", ".venv/bin/pyrunc")
        pytest.skip(f"the runtime under test is not there: {wanted} (make build, or set PYRUNC_UNDER_TEST)")
    harness.own_mount_namespace()
    harness.become_subreaper()
    return Runtime(path)


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """A short directory: a unix socket's path has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="pyt", dir=os.environ.get("PYRUNC_TEST_TMP")))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def probe(base: Path) -> Path:
    """The static probe program, built from probe/probe.c."""
    source = Path(__file__).parent / "probe" / "probe.c"
    target = base / "probe"
    errors = []
    for compiler in ("musl-gcc", "gcc"):
        if shutil.which(compiler) is None:
            continue
        argv = [
            compiler,
            "-std=gnu11",
            "-Wall",
            "-Wextra",
            "-Wconversion",
            "-Werror",
            "-O1",
            "-static",
            "-o",
            str(target),
        ]
        done = subprocess.run([*argv, str(source)], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode == 0:
            return target
        errors.append(done.stderr)
    pytest.fail(f"cannot build the probe: {errors or 'no C compiler'}")


@pytest.fixture(scope="session")
def rootfs(base: Path, probe: Path) -> Path:
    """The root filesystem that bundles are copied from."""
    return harness.build_template(base, probe)


@pytest.fixture
def box(request: pytest.FixtureRequest, runtime: Runtime, rootfs: Path, base: Path) -> Iterator[Box]:
    """One test's own corner; after the test nothing of it may be left on the host."""
    mark = request.node.get_closest_marker("pyrunc_only")
    if mark and not runtime.is_pyrunc and not os.environ.get("PYRUNC_TEST_ALL"):  # set: check the reasons given
        pytest.skip(f"{runtime.name}: {mark.args[0]}")

    def too_long(_signal: int, _frame: object) -> None:
        raise TimeoutError(f"the test took more than {TEST_LIMIT} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, TEST_LIMIT)
    made = Box(runtime, rootfs, base, f"t{os.getpid():x}n{next(_counter)}")
    yield made
    left = made.close()
    if not runtime.is_pyrunc:  # its own leaks would hide what these tests are calibrated for
        left = [text for text in left if not text.startswith("cgroup")]
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert not left, "left behind: " + "; ".join(left)


@pytest.fixture
def bundle(box: Box) -> Callable[..., Bundle]:
    """``bundle(*probe_actions, edits={pointer: value})`` makes a bundle."""
    return box.bundle


@pytest.fixture
def container(box: Box) -> Callable[..., Container]:
    """``container(*probe_actions, edits={pointer: value})`` makes a bundle and a container for it (not created yet)."""
    return box.container


@pytest.fixture
def holder(box: Box) -> Iterator[Callable[..., Holder]]:
    """``holder("network", "ipc")``: a process in new namespaces, to be joined by path."""
    made: list[Holder] = []

    def make(*kinds: str) -> Holder:
        made.append(Holder(box, kinds))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def refused(box: Box) -> Callable[..., None]:
    """``refused(result, pointer, *texts)``: the call failed as it should, and left nothing.

    The pointer, the texts and the one-line rule are pyrunc's own promises; peers only have to fail.
    """

    def check(result: harness.Result, pointer: str = "", *texts: str) -> None:
        assert result.rc != 0, f"was accepted: {result!r}"
        if box.runtime.is_pyrunc:
            lines = result.err.splitlines()
            assert len(lines) == 1, f"one line on stderr, not {len(lines)}: {result!r}"
            assert lines[0].startswith("pyrunc: "), result
            assert "Traceback" not in result.err, result
            assert pointer in result.err, f"no {pointer} in: {result.err}"
            for text in texts:
                assert text in result.err, f"no {text!r} in: {result.err}"
        left = box.leftovers()
        if not box.runtime.is_pyrunc:  # runc 1.1.5 sometimes loses the race for the rmdir
            left = [text for text in left if not text.startswith("cgroup")]
        assert not left, f"a refused call left: {left}"

    return check
