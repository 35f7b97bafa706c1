"""The container that the checkpoint tests count with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from integration.checkpoint import support
from integration.checkpoint.support import Counter
from integration.harness import Container


@pytest.fixture(scope="session")
def criu() -> None:
    """Skips what needs CRIU where it cannot be used."""
    reason = support.why_not()
    if reason:
        pytest.skip(reason)


@pytest.fixture
def counter(criu: None, container: Callable[..., Container]) -> Iterator[Callable[..., Counter]]:
    """``counter(edits={pointer: value}, script=...)``: a container that counts (not started)."""
    made: list[Counter] = []

    def make(script: str = support.COUNT, **kwargs: object) -> Counter:
        made.append(Counter(container(**kwargs), script))
        return made[-1]

    yield make
    for one in made:
        one.close()
