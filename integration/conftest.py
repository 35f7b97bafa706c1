"""Fixtures and marks of the integration tests; their types are defined in harness.py."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration import harness, machine
from integration.harness import Box, Bundle, Container, Holder, Runtime

_counter = itertools.count()
# runc 1.1.5 sometimes loses a race when it removes a cgroup; crun keeps a directory for masks in
# its state root.
PEERS_LEAVE = ("cgroup", "state .empty-directory")
TEST_LIMIT = 120 * harness.SLOW  # seconds per test

# Marks that this run must cover: if one of them is skipped, or none runs, the run fails.
# MARK:ARGUMENT stands for the tests whose mark has that argument.
COVER = os.environ.get("PYRUNC_TEST_COVER", "").split()
_covers: dict[str, list[str]] = {}  # test -> its marks that are in COVER
_covered: dict[str, int] = dict.fromkeys(COVER, 0)
_skipped: list[str] = []


def _why_not(item: pytest.Item) -> str:
    for mark in item.iter_markers("needs_controller"):
        missing = [name for name in mark.args if name not in machine.controllers()]
        if missing:
            there = " ".join(machine.controllers())
            return f"no {', '.join(missing)} controller on this machine's cgroup v2 (it has: {there})"
    for mark in item.iter_markers("needs_cap"):
        missing = [name for name in mark.args if not machine.has_cap(name)]
        if missing:
            return f"CAP_{', CAP_'.join(missing)} is not in this machine's bounding set"
    for mark in item.iter_markers("needs_program"):
        missing = [name for name in mark.args if shutil.which(name) is None]
        if missing:
            return f"not installed: {', '.join(missing)}"
    for mark in item.iter_markers("needs_kernel"):
        if machine.kernel() < mark.args:
            return f"Linux {'.'.join(map(str, mark.args))} is needed, this is {os.uname().release}"
    for mark in item.iter_markers("needs_arch"):
        if os.uname().machine not in mark.args:
            return f"for {', '.join(mark.args)}, this is {os.uname().machine}"
    if item.get_closest_marker("needs_systemd") and not machine.systemd_runs():
        return "systemd is not this machine's init"
    if item.get_closest_marker("needs_dirty_tracking") and not machine.tracks_dirty_memory():
        return "this kernel does not track written pages (CONFIG_MEM_SOFT_DIRTY)"
    if item.get_closest_marker("needs_apparmor") and not machine.apparmor_is_on():
        return "AppArmor is not on in this kernel"
    if item.get_closest_marker("needs_selinux") and not os.path.isdir("/sys/fs/selinux"):
        return "SELinux is not on in this kernel"
    if item.get_closest_marker("needs_systemd_user") and not machine.systemd_user():
        return "no user has a running systemd --user (loginctl enable-linger)"
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = _why_not(item)
    if reason:
        pytest.skip(reason)


def _has(item: pytest.Item, wanted: str) -> bool:
    name, _, argument = wanted.partition(":")
    return any(not argument or argument in mark.args for mark in item.iter_markers(name))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    _covers.update((item.nodeid, [wanted for wanted in COVER if _has(item, wanted)]) for item in items)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for mark in _covers.get(report.nodeid, ()):
        if report.skipped:
            _skipped.append(f"{report.nodeid} ({mark})")
        elif report.when == "call":
            _covered[mark] += 1


def _uncovered() -> list[str]:
    return [f"no test ran that is marked {mark}" for mark, count in _covered.items() if not count] + [
        f"must not be skipped here: {name}" for name in _skipped
    ]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.option.collectonly:
        return
    if _uncovered() and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for text in _uncovered():
        terminalreporter.write_line("NOT COVERED: " + text, red=True)


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    """The runtime under test; skips tests that need it without root, or if it is missing."""
    if os.geteuid() != 0:
        pytest.skip("integration tests need root")
    path = Runtime.find()
    if path is None:
        wanted = os.environ.get("PYRUNC_UNDER_TEST", ".venv/bin/pyrunc")
        pytest.skip(f"the runtime under test is not there: {wanted} (make build, or set PYRUNC_UNDER_TEST)")
    machine.own_mount_namespace()
    machine.become_subreaper()
    return Runtime(path)


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """A short directory, because a unix socket's path has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="pyt", dir=os.environ.get("PYRUNC_TEST_TMP")))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def probe(base: Path) -> Path:
    """The static probe program, built from probe/probe.c unless PYRUNC_TEST_PROBE names a
    prebuilt one."""
    target = base / "probe"
    built = os.environ.get("PYRUNC_TEST_PROBE", "")
    if built:
        shutil.copy(built, target)
    else:
        harness.build_probe(target)
    return target


@pytest.fixture(scope="session")
def rootfs(base: Path, probe: Path) -> Path:
    """The root filesystem that bundles are copied from."""
    return harness.build_template(base, probe)


@pytest.fixture
def box(request: pytest.FixtureRequest, runtime: Runtime, rootfs: Path, base: Path) -> Iterator[Box]:
    """The resources of one test; fails the test if it leaves anything on the host."""
    mark = request.node.get_closest_marker("pyrunc_only")
    if mark and not runtime.is_pyrunc and not os.environ.get("PYRUNC_TEST_ALL"):  # if set, check the given reasons
        pytest.skip(f"{runtime.name}: {mark.args[0]}")

    def too_long(_signal: int, _frame: object) -> None:
        raise TimeoutError(f"the test took more than {TEST_LIMIT} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, TEST_LIMIT)
    made = Box(runtime, rootfs, base, f"t{os.getpid():x}n{next(_counter)}")
    yield made
    left = made.close()
    if not runtime.is_pyrunc:  # leaks of other runtimes are not ours to report
        left = [text for text in left if not text.startswith(PEERS_LEAVE)]
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert not left, "left behind: " + "; ".join(left)


@pytest.fixture
def bundle(box: Box) -> Callable[..., Bundle]:
    """``bundle(*probe_actions, edits={pointer: value})`` creates a bundle."""
    return box.bundle


@pytest.fixture
def container(box: Box) -> Callable[..., Container]:
    """``container(*probe_actions, edits={pointer: value})`` creates a bundle and a container
    object for it."""
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
    """Check with ``refused(result, pointer, *texts)`` that the call failed as expected and left
    nothing.

    The pointer, the texts and the one-line rule are pyrunc's own promises; other runtimes only need
    to fail.
    """

    def check(result: harness.Result, pointer: str = "", *texts: str) -> None:
        assert result.rc != 0, f"was accepted: {result!r}"
        if box.runtime.is_pyrunc:
            lines = result.err.splitlines()
            assert len(lines) == 1, f"one line on stderr, not {len(lines)}: {result!r}"
            assert lines[0].startswith("pyrunc: error: "), result
            assert "Traceback" not in result.err, result
            assert pointer in result.err, f"no {pointer} in: {result.err}"
            for text in texts:
                assert text in result.err, f"no {text!r} in: {result.err}"
        left = box.leftovers()
        if not box.runtime.is_pyrunc:
            left = [text for text in left if not text.startswith(PEERS_LEAVE)]
        assert not left, f"a refused call left: {left}"

    return check
