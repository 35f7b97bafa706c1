"""Shared parts of the tests of spec/: what rules report of documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import transcript
from plan_support import Facts
from pyrunc.errors import ConfigError
from pyrunc.spec import report, validate

Rule = Callable[[Any, report.Report], object]
compare = partial(transcript.compare, cut=True)

ROOT, USER = Facts(), Facts(euid=1000, rootless=True)
OWN = ("/run/own/net", "/run/own/user")


class Host(Facts):
    """A host that knows its own namespaces by other names."""

    def own_namespace(self, kind: str, path: str) -> bool:
        return path in OWN


def told(value: Any) -> str:
    """A document on one line."""
    return transcript.short(json.dumps(value, default=repr))[:60]


def said(found: report.Report) -> str:
    """What a rule has reported."""
    lines = [*map(str, found.problems), *(f"warning {one}" for one in found.warnings), *["mapped"] * found.mapped]
    return "; ".join(lines) or "-"


def rules(rule: Rule, cases: Iterable[Any], *, facts: Any = None, spaces: Iterable[str] = ()) -> list[str]:
    """What a rule reports of which cases, in a container with these namespaces ("kind" or "kind=path")."""
    seen: dict[str, list[str]] = {}
    for case in cases:
        found = report.Report(facts)
        found.namespaces = {kind: path for kind, _, path in (one.partition("=") for one in spaces)}
        result = rule(case, found)
        seen.setdefault(f"{'' if result is None else f'{result}: '}{said(found)}", []).append(told(case))
    return [f"{words} <- {' | '.join(given)}" for words, given in seen.items()]


def outcome(config: Any, facts: Any) -> str:
    """Everything that is said of a whole document."""
    try:
        return "; ".join(f"warning {one}" for one in validate.check(config, facts=facts)) or "-"
    except ConfigError as error:
        return "; ".join(map(str, error.problems)) + (f" and {error.more}" if error.more else "")


def linux(**members: Any) -> Any:
    return {"linux": members}


def extent(inside: int, outside: int, size: int) -> Any:
    return {"containerID": inside, "hostID": outside, "size": size}


WHOLE, ONE, HIGH = [extent(0, 1000, 70)], [extent(0, 1000, 1)], [extent(5, 1000, 70)]
