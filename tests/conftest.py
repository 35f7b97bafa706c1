"""What the unit tests share: where the checkout is, and where a build put its products."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAUNCHER = ROOT / ".venv" / "bin" / "pyrunc"


@pytest.fixture(scope="session")
def launcher() -> Path:
    """The built executable; skips what needs it where nothing was built."""
    if not LAUNCHER.exists():
        pytest.skip("not built: make build")
    return LAUNCHER
