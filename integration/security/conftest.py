"""The mark that ties a test to its row, and a check that no program of the host has changed."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.harness import Runtime


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(id...): the rows of rows.py that the test guards")


def host_programs(runtime: Runtime) -> dict[Path, str]:
    """Every file that a runtime process executes or maps on the host, with its SHA-256."""
    launcher = Path(os.path.realpath(runtime.path))
    files = {launcher, Path(os.path.realpath(sys.executable))}
    for package in launcher.parent.parent.glob("lib/**/pyrunc"):
        files |= {path for path in package.rglob("*") if path.suffix in (".so", ".py") or path.name == "_init"}
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


@pytest.fixture(scope="session", autouse=True)
def unchanged_programs(runtime: Runtime) -> Iterator[None]:
    """T01 (CVE-2019-5736): the host's programs are unchanged, whatever the containers of these
    tests tried."""
    before = host_programs(runtime)
    yield
    assert host_programs(runtime) == before
