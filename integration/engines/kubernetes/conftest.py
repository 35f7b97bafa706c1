"""Fixtures of the cluster tests: one cluster for all of them, and pods of the class under test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.engines import conftest as engines
from integration.engines.kubernetes.cluster import Cluster
from integration.engines.kubernetes.pods import Pods
from integration.harness import REPO

BINS = os.path.abspath(os.environ["PYRUNC_ENGINES_BIN"]) if "PYRUNC_ENGINES_BIN" in os.environ else ""


def runc() -> str | None:
    """The newest runc available: Debian's cannot give a pod a user namespace."""
    newest = REPO / "build/peers/bin/runc-new"
    return str(newest) if newest.exists() else shutil.which("runc")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not BINS and Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.skip(reason="make test-kubernetes builds what this needs"))


@pytest.fixture(scope="session")
def engine() -> Iterator[Cluster]:
    """The cluster."""
    newest, ours = runc(), engines.find("pyrunc")
    if newest is None or ours is None:
        pytest.skip("pyrunc and runc are needed")
    with engines.sandbox("kubernetes") as host:
        yield Cluster(host, Path(BINS), {"pyrunc": ours, "runc": newest})


@pytest.fixture(params=engines.NAMES)
def oci(request: pytest.FixtureRequest) -> str:
    """The RuntimeClass. Each case runs with all of them before the next case."""
    return str(request.param)


@pytest.fixture
def pods(request: pytest.FixtureRequest, engine: Cluster, oci: str) -> Iterator[Pods]:
    """Pods of the class under test, removed afterwards."""
    case = engines.case_of(request.node).replace(" ", "-")[:40]
    made = Pods(engine, oci, f"{case}-{oci}")
    yield made
    made.remove()
