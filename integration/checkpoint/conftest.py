"""The counting container of the checkpoint tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.checkpoint import support
from integration.checkpoint.support import Counter
from integration.harness import Container


@pytest.fixture(scope="session")
def criu() -> None:
    """Skip tests that need CRIU if it cannot be used."""
    reason = support.why_not()
    if reason:
        pytest.skip(reason)


@pytest.fixture
def counter(criu: None, container: Callable[..., Container]) -> Iterator[Callable[..., Counter]]:
    """``counter(edits={pointer: value}, script=...)``: a container that counts, not yet started."""
    made: list[Counter] = []

    def make(script: str = support.COUNT, **kwargs: object) -> Counter:
        made.append(Counter(container(**kwargs), script))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def client(base: Path) -> Path:
    """The program of client.c, built unless PYRUNC_TEST_CLIENT names a prebuilt one."""
    built = os.environ.get("PYRUNC_TEST_CLIENT", "")
    target = base / "client"
    if built:
        shutil.copy(built, target)
    else:
        support.build_client(target)
    return target
