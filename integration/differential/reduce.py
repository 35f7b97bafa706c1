"""Reduce a case that still shows the same difference: features, then commands, then parts of
values."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from integration.differential.model import Case, Feature

LIMIT = 60  # runs of a case


def smaller(case: Case) -> Iterator[Case]:
    """Every case that is smaller by one part, large parts first."""
    for index in range(len(case.features)):
        yield case.without(features=[index])
    for index in reversed(range(1, len(case.commands))):
        yield case.without(commands=[index])
    for index, feature in enumerate(case.features):
        for edits in _less(list(feature.edits), 0):
            if edits:
                yield _replaced(case, index, dataclasses.replace(feature, edits=edits))
    for index, command in enumerate(case.commands):
        for rest in _less(list(command[1:]), 0):
            if len(rest) == len(command) - 1:
                commands = [*case.commands[:index], [command[0], *rest], *case.commands[index + 1 :]]
                yield Case(case.name, case.features, commands)


def _replaced(case: Case, index: int, feature: Feature) -> Case:
    return Case(case.name, [*case.features[:index], feature, *case.features[index + 1 :]], case.commands)


def _less(value: Any, depth: int) -> Iterator[Any]:
    """The value without one member, at any depth."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            if depth != 1:  # an edit is a pair
                yield value[:index] + value[index + 1 :]
            for less in _less(item, depth + 1):
                yield [*value[:index], less, *value[index + 1 :]]
    elif isinstance(value, dict):
        for key, item in value.items():
            yield {name: copy.copy(other) for name, other in value.items() if name != key}
            for less in _less(item, depth + 1):
                yield value | {key: less}


def reduce(case: Case, shows: Callable[[Case], bool], limit: int = LIMIT) -> Case:
    """The smallest case found within `limit` calls of `shows`."""
    left = limit
    again = True
    while again:
        again = False
        for candidate in smaller(case):
            if left <= 0:
                return case
            left -= 1
            if shows(candidate):
                case, again = candidate, True
                break
    return case
