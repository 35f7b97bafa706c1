"""Medians, and ratios of medians with an interval that shows how far the noise reaches."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

RESAMPLES = 1000
CONFIDENCE = 0.95


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """The ratio of the medians, and the low and the high end of its 95 % interval.

    The interval is a bootstrap over rounds. The n-th samples of both sides are from the same round,
    so a slow round affects both sides of the ratio. The same samples always give the same interval.
    Raises ValueError if the sides have different numbers of samples.
    """
    pairs = list(zip(ours, theirs, strict=True))
    middle = statistics.median(ours) / statistics.median(theirs)
    draw = random.Random(len(pairs))
    found = []
    for _ in range(RESAMPLES):
        drawn = draw.choices(pairs, k=len(pairs))
        found.append(statistics.median(pair[0] for pair in drawn) / statistics.median(pair[1] for pair in drawn))
    found.sort()
    outside = round(RESAMPLES * (1 - CONFIDENCE) / 2)
    return [middle, found[outside], found[-1 - outside]]
