"""How much a piece of Python does, without a clock: wall time means nothing on a busy machine; and
the processes that it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

SLOW = float(os.environ.get("PYRUNC_TEST_SLOW", "1"))  # factor for limits of time (integration/README.md)


def calls(function: Callable[[], object]) -> int:
    """The calls, of Python and of built-in functions, that ``function`` makes; the same number each
    time."""
    count = 0

    def note(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


def children() -> set[str]:
    """The children of the main thread.  Another test may have left one, for example a helper of a
    library."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
