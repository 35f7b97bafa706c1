"""A row of the table of sabotages."""

from __future__ import annotations

from typing import NamedTuple


class Sabotage(NamedTuple):
    """``edits``: (file, text that is there once, what takes its place); ``words``: of the failing
    assertion."""

    row: str
    what: str
    edits: list[tuple[str, str, str]]
    test: str
    words: str
