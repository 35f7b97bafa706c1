"""Fixtures of the engine tests: the runtimes to compare, the image, the sandbox, and the
observations.

Each test runs once for each of ``PYRUNC_ENGINE_RUNTIMES`` (default: ``runc pyrunc``, where pyrunc
is what ``PYRUNC_UNDER_TEST`` names), in this order, each with its own engine. What a test passes to
``seen`` must be the same for all of them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from integration import harness
from integration.engines import image, record
from integration.engines.host import Host

RECORD = pytest.StashKey[record.Record]()
NAMES = os.environ.get("PYRUNC_ENGINE_RUNTIMES", "runc pyrunc").split()


def find(name: str) -> str | None:
    """The absolute path of a runtime, or None."""
    if name != "pyrunc":
        return shutil.which(name)
    return harness.Runtime.find()


@pytest.fixture(scope="module", params=NAMES)
def oci(request: pytest.FixtureRequest) -> str:
    """The name of the runtime under the engine."""
    if os.geteuid() != 0:
        pytest.skip("engine tests need root")
    reason = image.require()
    if reason:
        pytest.skip(reason)
    if find(request.param) is None:
        pytest.skip(f"{request.param} is not there")
    return str(request.param)


@pytest.fixture(scope="module")
def oci_path(oci: str) -> str:
    """The absolute path of the runtime."""
    return str(find(oci))


@pytest.fixture(scope="session")
def images() -> Iterator[tuple[Path, Path]]:
    """The image as an OCI archive and as a docker archive."""
    folder = Path(tempfile.mkdtemp(prefix="pyi", dir=os.environ.get("PYRUNC_TEST_TMP")))
    yield image.build(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest, oci: str) -> Iterator[Host]:
    """The sandbox, removed with everything in it."""
    with sandbox(request.module.__name__.rpartition("test_")[2] + "-" + oci) as made:
        yield made


@contextmanager
def sandbox(name: str, make: Callable[[Path, str], Host] = Host) -> Iterator[Host]:
    """A sandbox for the duration of a ``with``."""
    folder = Path(tempfile.mkdtemp(prefix="pye", dir=os.environ.get("PYRUNC_TEST_TMP")))
    folder.chmod(0o755)
    made = make(folder, name)
    try:
        yield made
    finally:
        made.close()
        if not os.environ.get("PYRUNC_TEST_KEEP"):
            shutil.rmtree(folder, ignore_errors=True)


class Seen:
    """Collect the observations of a test."""

    def __init__(self) -> None:
        self.list: list[str] = []

    def __call__(self, **values: Any) -> None:
        self.list += [f"{name.replace('_', ' ')}: {plain(value)}" for name, value in values.items()]


def plain(value: Any) -> str:
    """A readable form of a value: lists without brackets, yes and no."""
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


@pytest.fixture
def seen(request: pytest.FixtureRequest, engine: Any, oci: str) -> Iterator[Seen]:
    """``seen(rc=3, out="x")`` records values that must be the same with each runtime."""
    made = Seen()
    case = case_of(request.node)
    request.node.seen = (engine.label, case, oci, made)
    request.config.stash[RECORD].versions[engine.label] = engine.versions
    yield made
    other = request.config.stash[RECORD].other(engine.label, case, oci)
    if other and getattr(request.node, "passed", False):
        assert made.list == other[1], f"{oci} and {other[0]} differ"


def case_of(item: pytest.Item) -> str:
    """The name of a case: ``test_read_only`` is "read only"."""
    return getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RECORD] = record.Record()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function, call: pytest.CallInfo[None]) -> Any:
    report = yield
    seen = getattr(item, "seen", None)
    label, spec = getattr(item.module, "LABEL", ""), getattr(item, "callspec", None)
    if seen is None and report.skipped and label and spec:
        seen = (label, case_of(item), spec.params["oci"], Seen())
    if report.when == "call":
        item.passed = report.passed  # type: ignore[attr-defined]
    if seen and (report.when == "call" or not report.passed):
        engine, case, oci, made = seen
        reason = report.longrepr[2].removeprefix("Skipped: ") if report.skipped else ""
        item.config.stash[RECORD].add(engine, case, oci, report.outcome, made.list, reason)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = os.environ.get("PYRUNC_ENGINES_RECORD")
    whole = (
        session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not session.config.option.keyword
    )
    if target and whole:  # a selection of cases is not a result
        session.config.stash[RECORD].save(Path(target))
