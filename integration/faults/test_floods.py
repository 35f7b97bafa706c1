"""Small floods; `make floods` runs them with the target counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration import harness
from integration.faults import floods


@pytest.mark.slow
@pytest.mark.parametrize("name", floods.FLOODS)
def test_flood(name: str, runtime: harness.Runtime, rootfs: Path, base: Path) -> None:
    """A flood has no problems; the duration of `list` is recorded, not limited."""
    if not runtime.is_pyrunc:
        pytest.skip("peers fail at many of these: `make reliability` counts them")
    tally = floods.run(name, runtime, rootfs, base, full=False, seconds=60 * harness.SLOW)
    assert not tally.wrong, "\n".join(tally.wrong)
    assert tally.done >= 4
