"""The schema table against a value: types, ranges, required fields."""

from __future__ import annotations

from pyrunc.errors import Problem
from pyrunc.spec.names import escape
from pyrunc.spec.report import describe
from pyrunc.spec.schema import STRING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.spec.schema import Node


def structure(node: Node, value: Any, pointer: str, problems: list[Problem]) -> None:
    """Compare a value with its node of the table and add what does not fit to ``problems``."""
    kind = node[0]
    if kind == "object":
        if type(value) is not dict:
            problems.append(Problem(pointer, "object", describe(value)))
            return
        fields = node[1]
        for key, item in value.items():
            child = fields.get(key)
            if child is not None:
                structure(child, item, f"{pointer}/{key}", problems)
        for key in node[2]:
            if key not in value:
                problems.append(Problem(f"{pointer}/{key}", expectation(fields[key]), "nothing"))
    elif kind == "array":
        if type(value) is not list:
            problems.append(Problem(pointer, "array", describe(value)))
            return
        item_node = node[1]
        strings = item_node is STRING
        for index, item in enumerate(value):
            if not (strings and type(item) is str):
                structure(item_node, item, f"{pointer}/{index}", problems)
    elif kind == "map":
        if type(value) is not dict:
            problems.append(Problem(pointer, "object", describe(value)))
            return
        item_node = node[1]
        strings = item_node is STRING
        for key, item in value.items():
            if not (strings and type(item) is str):
                structure(item_node, item, f"{pointer}/{escape(key)}", problems)
            if not key:
                problems.append(Problem(pointer, "keys that are not empty", 'key ""'))
    elif not fits(node, value):
        problems.append(Problem(pointer, expectation(node), describe(value)))


def fits(node: Node, value: Any) -> bool:
    """Whether a string, number or boolean is what its node says.  True is no integer, 1.0 is none either."""
    kind = node[0]
    if kind == "string":
        return type(value) is str and (node[1] is None or value in node[1])
    if kind == "integer":
        return type(value) is int and node[1] <= value <= node[2]
    return type(value) is bool


def expectation(node: Node) -> str:
    """A node in words, for messages."""
    kind: str = node[0]
    if kind == "string" and node[1] is not None:
        return "one of " + ", ".join(node[1])
    if kind == "integer":
        return f"integer from {node[1]} to {node[2]}"
    return "object" if kind == "map" else kind


def prune(node: Node, value: Any) -> Any:
    """A copy without the values that do not fit: fields are gone, items are None (indexes must not move)."""
    kind = node[0]
    if kind == "object":
        return {
            key: prune(node[1][key], item)
            for key, item in value.items()
            if key in node[1] and _kept(node[1][key], item)
        }
    if kind == "map":
        return {key: prune(node[1], item) for key, item in value.items() if key and _kept(node[1], item)}
    if kind == "array":
        return [prune(node[1], item) if _kept(node[1], item) else None for item in value]
    return value


def _kept(node: Node, value: Any) -> bool:
    kind = node[0]
    if kind in ("object", "map"):
        return type(value) is dict
    return type(value) is list if kind == "array" else fits(node, value)
