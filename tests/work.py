"""How much a piece of Python does, in calls or in CPU time of a known machine: wall time means
nothing on a busy one; and the processes that it starts."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def _unit() -> float:
    """The CPU seconds that 100,000 rounds of a loop take now."""
    started = time.process_time()
    sum(number * number for number in range(100_000))
    return time.process_time() - started


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Fail if the block takes more than ``seconds`` of CPU time, of a machine on which the loop of
    `_unit` takes 12 ms.  A slower or emulated machine, or one whose cores others use as well, gets
    more.  The collector is off in the block: it would visit the objects of all tests."""
    collected = gc.isenabled()
    gc.disable()
    started = time.process_time()
    try:
        yield
    finally:
        taken = time.process_time() - started
        if collected:
            gc.enable()
    if taken >= seconds:
        slower = max(_unit(), _unit(), 0.012) / 0.012
        assert taken < seconds * slower, f"{taken:.2f} s of CPU time, expected less than {seconds} s x {slower:.2f}"


def children() -> set[str]:
    """The children of the main thread.  Another test may have left one, for example a helper of a
    library."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
