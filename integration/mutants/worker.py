"""The work in a sandbox: apply the change, and run tests until one fails."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import hypothesis.database  # imported before the fork, because reading it takes longer than most tests
import hypothesis.strategies  # noqa: F401
import jsonschema  # noqa: F401
import pytest
from _pytest.runner import runtestprotocol

from integration.mutants import of_shim, recorder, sandbox
from integration.mutants.mutant import Mutant
from integration.mutants.tree import Tree

STILLBORN = 77  # the changed C code does not compile
SLOW = 2.0  # seconds of CPU of a test under the tracer
OPTIONS = ["-q", "-p", "no:cacheprovider"]
OWN = ("integration", "pyrunc", "tests", "native", "contrib", "bench")


class Watcher:
    """Report which test fails, and which is running."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def tell(self, **what: Any) -> None:
        """Write one line of JSON."""
        os.write(self.fd, (json.dumps(what) + "\n").encode())

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Report the start of a test."""
        self.tell(begun=nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run a failing test without a container a second time; others are repeated in another
        sandbox."""
        if not item.nodeid.startswith("tests/"):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if any(report.failed for report in reports):
            item._initrequest()  # type: ignore[attr-defined]
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Report a failed phase."""
        if report.failed:
            self.tell(failed=report.nodeid, words=str(report.longreprtext)[-600:])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Report a file that could not be imported."""
        if report.failed:
            self.tell(failed=report.nodeid, words=str(report.longreprtext)[-600:])


class Only:
    """Deselect all tests except the given ones, which need not exist."""

    def __init__(self, names: list[str]) -> None:
        self.place = {name: number for number, name in enumerate(names)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Select the tests in the requested order."""
        items[:] = sorted((one for one in items if one.nodeid in self.place), key=lambda one: self.place[one.nodeid])


def settle(tree: Tree, env: dict[str, str]) -> None:
    """Switch from the checkout to the copy; no module of ours that was imported before may
    remain."""
    for name in [name for name in sys.modules if name.split(".")[0] in OWN]:
        del sys.modules[name]
    os.environ.update(env)
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    os.chdir(tree.root)
    sys.path[:] = [str(tree.root), *(path for path in sys.path if (path and "site-packages" in path) or "/usr" in path)]
    sys.dont_write_bytecode = True
    os.makedirs(recorder.PLACE, exist_ok=True)
    null = os.open("/dev/null", os.O_RDWR)
    log = os.open(f"{recorder.PLACE}/log", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)


def change(tree: Tree, mutant: Mutant, env: dict[str, str]) -> int:
    """Bind-mount the changed file over the copy's, and rebuild init or the shim for C. Returns 0 or
    STILLBORN."""
    put(tree.root / mutant.file, mutant.changed.encode())
    if mutant.file.startswith(of_shim.PLACE):
        out = Path(recorder.PLACE, "_shim.so")
        if tree.build_shim(mutant.file, out):
            return STILLBORN
        sandbox.mount(str(out), str(tree.extension), flags=sandbox.MS_BIND)
    elif mutant.file.endswith(".c"):
        out = Path(recorder.PLACE, "_init")
        if tree.build_init(out, env):
            return STILLBORN
        sandbox.mount(str(out), str(tree.root / "pyrunc/_init"), flags=sandbox.MS_BIND)
    return 0


def put(target: Path, data: bytes) -> None:
    """Replace the content of a read-only file."""
    path = Path(recorder.PLACE, target.name)
    path.write_bytes(data)
    sandbox.mount(str(path), str(target), flags=sandbox.MS_BIND)


def test_mutant(tree: Tree, mutant: Mutant | None, tests: list[str], fd: int) -> int:
    """Run the tests on a mutant and return pytest's status; 0 means that no test detected it."""
    env = tree.environment(tree.objects, Path("/tmp/objects"))
    settle(tree, env)
    if mutant is not None and change(tree, mutant, env):
        return STILLBORN
    watcher = Watcher(fd)
    options = [*OPTIONS, "-x", "--hypothesis-seed=0"]
    status = int(pytest.main([*options, *tests], plugins=[watcher]))
    if status != pytest.ExitCode.USAGE_ERROR:
        return status
    # A test in the map no longer exists, which must not count as a failure.
    status = int(pytest.main([*options, *files_of(tests)], plugins=[watcher, Only(tests)]))
    return 0 if status == pytest.ExitCode.NO_TESTS_COLLECTED else status


def files_of(tests: list[str]) -> list[str]:
    """The files of these tests, as far as they exist."""
    return [file for file in dict.fromkeys(name.partition("::")[0] for name in tests) if os.path.exists(file)]


def fill(tree: Tree, tests: list[str]) -> int:
    """Run tests to fill the cache of objects. With a stale map, some of them may no longer exist."""
    settle(tree, tree.environment(tree.objects))
    return int(pytest.main([*OPTIONS, "--hypothesis-seed=0", *files_of(tests)], plugins=[Only(tests)]))


def untraced(names: list[str], timer: recorder.Timer) -> None:
    """Measure slow tests again without the tracer, which slows some down by a factor of twenty."""
    slow = [name for name in names if timer.spent[name].cpu > SLOW]
    if not slow:
        return
    os.unlink(f"{recorder.PLACE}/current")  # the runtime's own tracer
    again = recorder.Timer()
    pytest.main([*OPTIONS, "--hypothesis-seed=0", *slow], plugins=[again])
    timer.spent |= {name: min(timer.spent[name], again.spent.get(name, timer.spent[name])) for name in slow}


def record(tree: Tree, file: str, fd: int) -> int:
    """Run the tests of one file and record which lines each reaches; the result is written to
    ``fd``."""
    env = tree.environment(tree.counted, blocks=True)
    settle(tree, env)
    recorder.prepare()
    built = Path(recorder.PLACE, "_init")
    if tree.build_init(built, env):
        return STILLBORN
    sandbox.mount(str(built), str(tree.root / "pyrunc/_init"), flags=sandbox.MS_BIND)
    import coverage

    counted = coverage.Coverage(data_file=None, config_file=False, include=[f"{tree.root}/pyrunc/*"])
    counted.start()
    plugin = recorder.Recorder(tree.root, counted)
    status = int(pytest.main([*OPTIONS, "--hypothesis-seed=0", file], plugins=[plugin]))
    counted.stop()
    untraced([name for name, outcome in plugin.outcomes.items() if outcome == "passed"], plugin.timer)
    found = {"status": status, **plugin.result(), "log": Path(recorder.PLACE, "log").read_text()[-3000:]}
    data = json.dumps(found).encode()
    while data:
        data = data[os.write(fd, data) :]
    return 0
