"""Checks of a value against the schema table: types, ranges, required fields."""

from __future__ import annotations

from pyrunc.errors import Problem
from pyrunc.spec.names import escape
from pyrunc.spec.report import NOTHING, describe
from pyrunc.spec.schema import STRING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.errors import Capped
    from pyrunc.spec.schema import Node


def structure(node: Node, value: object, pointer: str, problems: Capped) -> Any:  # has the type of the node
    """Compare a value with its node of the table and append each mismatch to ``problems``.

    Returns a value that the rules can use: the value itself, a copy without the mismatches, or
    `NOTHING` if the value itself does not fit. A mismatching member is removed; an item of an array
    becomes None, because indexes must not move.
    """
    kind = node[0]
    if kind == "object":
        if type(value) is dict:
            found, fields = value, node[1]
            for key, item in value.items():
                child = fields.get(key)
                if child is not None and not (child is STRING and type(item) is str):
                    fit = structure(child, item, f"{pointer}/{key}", problems)
                    if fit is not item:
                        found = _with(found, value, key, fit)
            for key in node[2]:
                if key not in value:
                    if problems.full():
                        problems.more += 1
                    else:
                        problems.append(Problem(f"{pointer}/{key}", expectation(fields[key]), "nothing"))
            return found
    elif kind == "array":
        if type(value) is list:
            return _items(node[1], value, pointer, problems)
    elif kind == "map":
        if type(value) is dict:
            return _entries(node[1], value, pointer, problems)
    elif fits(node, value):
        return value
    if problems.full():
        problems.more += 1
    else:
        problems.append(Problem(pointer, expectation(node), describe(value)))
    return NOTHING


def _items(node: Node, value: list[object], pointer: str, problems: Capped) -> list[object]:
    """The items of an array."""
    strings, found = node is STRING, value
    for index, item in enumerate(value):
        if not (strings and type(item) is str):
            fit = structure(node, item, f"{pointer}/{index}", problems)
            if fit is not item:
                found = list(value) if found is value else found
                found[index] = None if fit is NOTHING else fit
    return found


def _entries(node: Node, value: dict[str, object], pointer: str, problems: Capped) -> dict[str, object]:
    """The entries of a map with arbitrary keys."""
    strings, found = node is STRING, value
    for key, item in value.items():
        if not (strings and type(item) is str):
            fit = structure(node, item, f"{pointer}/{escape(key)}", problems)
            if fit is not item:
                found = _with(found, value, key, fit)
        if not key:
            problems.append(Problem(pointer, "keys that are not empty", 'key ""'))
            found = _with(found, value, key, NOTHING)
    return found


def _with(found: dict[str, object], value: dict[str, object], key: str, fit: object) -> dict[str, object]:
    """``found`` with a key changed or removed; copies ``value`` before the first change."""
    if found is value:
        found = dict(value)
    if fit is NOTHING:
        found.pop(key, None)
    else:
        found[key] = fit
    return found


def fits(node: Node, value: object) -> bool:
    """Whether a string, number or boolean has its node's type. True and 1.0 are not integers."""
    kind = node[0]
    if kind == "string":
        return type(value) is str and (node[1] is None or value in node[1])
    if kind == "integer":
        return type(value) is int and node[1] <= value <= node[2]
    return type(value) is bool


def expectation(node: Node) -> str:
    """The description of a node, for messages."""
    kind: str = node[0]
    if kind == "string" and node[1] is not None:
        return "one of " + ", ".join(filter(None, node[1]))
    if kind == "integer":
        return f"integer from {node[1]} to {node[2]}"
    return "object" if kind == "map" else kind


def without_unknown(node: Node, value: Any) -> Any:  # likewise
    """A valid value without the members that the specification does not define."""
    kind = node[0]
    if kind == "object":
        return {key: without_unknown(node[1][key], item) for key, item in value.items() if key in node[1]}
    if kind == "map":
        return {key: without_unknown(node[1], item) for key, item in value.items()}
    if kind == "array":
        return [without_unknown(node[1], item) for item in value]
    return value
