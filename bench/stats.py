"""Medians, and ratios of medians with an interval that shows how far the noise reaches."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence

RESAMPLES = 1000
CONFIDENCE = 0.95
Statistic = Callable[[Sequence[float]], float]


def ratio(ours: Sequence[float], theirs: Sequence[float], of: Statistic = statistics.median) -> list[float]:
    """The ratio of the medians, or of another statistic, and the low and the high end of its 95 %
    interval.

    The interval is a bootstrap over rounds. The n-th samples of both sides are from the same round,
    so a slow round affects both sides of the ratio. The same samples always give the same interval.
    Raises ValueError if the sides have different numbers of samples.
    """
    pairs = list(zip(ours, theirs, strict=True))
    middle = of(ours) / of(theirs)
    draw = random.Random(len(pairs))
    found = []
    for _ in range(RESAMPLES):
        drawn = draw.choices(pairs, k=len(pairs))
        found.append(of([pair[0] for pair in drawn]) / of([pair[1] for pair in drawn]))
    found.sort()
    outside = round(RESAMPLES * (1 - CONFIDENCE) / 2)
    return [middle, found[outside], found[-1 - outside]]
