"""The sandbox of these tests: the cases are those of the machine's own engines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from integration.engines import conftest as engines
from integration.engines.debian import DebianHost
from integration.engines.host import Host

RUNC = "/usr/sbin/runc"
ROOT = os.environ.get("PYRUNC_DEBIAN13", "")
WHERE = DebianHost.where if ROOT else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not ROOT and Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.skip(reason="make test-debian13 installs what this needs"))


@contextmanager
def sandbox(name: str) -> Iterator[Host]:
    """A sandbox in Debian 13."""
    with engines.sandbox(name, partial(DebianHost, root=Path(ROOT).resolve())) as made:
        yield made


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest, oci: str) -> Iterator[Host]:
    """The sandbox, removed with everything in it."""
    with sandbox(request.module.__name__.rpartition("test_")[2] + "13-" + oci) as made:
        yield made


@pytest.fixture(scope="module")
def oci_path(oci: str) -> str:
    """The absolute path of the runtime in the sandbox; runc is Debian 13's."""
    return RUNC if oci == "runc" else str(engines.find(oci))
