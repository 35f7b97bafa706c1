"""Keys that collide in a dict of this interpreter, as an attacker who knows its seed would
choose them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

SHIFT = 5  # PERTURB_SHIFT of CPython's Objects/dictobject.c


def probes(text: str, mask: int) -> Iterator[int]:
    """The places of a dict with `mask` + 1 slots where a key is looked for, one after the other."""
    perturb = hash(text) & (1 << 64) - 1
    place = perturb & mask
    while True:
        yield place
        perturb >>= SHIFT
        place = (place * 5 + perturb + 1) & mask


def keys(size: int, count: int) -> list[str]:
    """So many keys for a dict of `size` slots (a power of two), few of which find a free one soon.

    Once nothing is left of the hash every key goes along one and the same cycle of places: that is
    filled in its order, so that all keys which come late walk to its end.
    """
    mask, place = size - 1, 0
    used: set[int] = set()
    found: list[str] = []
    candidates = (f"k{number}" for number in itertools.count())
    first: dict[int, str] = {}  # by the place that a key takes in an empty dict
    while len(first) < size:
        text = next(candidates)
        first.setdefault(next(probes(text, mask)), text)
    while len(found) < count * 4 // 5:
        found.append(first[place])
        used.add(place)
        place = (place * 5 + 1) & mask
    while len(found) < count:
        text = next(candidates)
        if all(where in used for where in itertools.islice(probes(text, mask), 13)):
            found.append(text)
            used.add(next(where for where in probes(text, mask) if where not in used))
    return found


def steps(chosen: list[str], size: int) -> int:
    """How many occupied places a dict of `size` slots looks at while the keys are put into it."""
    used: set[int] = set()
    total = 0
    for text in chosen:
        for where in probes(text, size - 1):
            if where not in used:
                used.add(where)
                break
            total += 1
    return total
