"""What the code says in each case of a test, kept in a text file: a change of any word, number or order is noticed.

The words are free to change: PYRUNC_UPDATE_GOLDEN=1 writes the cases that are run; then read the diff.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent / "golden"


def _blocks(path: Path) -> dict[str, list[str]]:
    """Case -> its lines."""
    found: dict[str, list[str]] = {}
    if path.exists():
        for block in path.read_text(encoding="utf-8").split("== ")[1:]:
            case, *lines = block.rstrip("\n").split("\n")
            found[case] = lines
    return found


def compare(file: str, case: str, lines: Iterable[str]) -> None:
    """One case of ``golden/FILE.txt``."""
    path = GOLDEN / f"{file}.txt"
    # A line cannot look like the head of a case, and has no blanks at its end that an editor would remove.
    got = ["  " + line.replace("== ", "=: ").rstrip() for text in lines for line in text.split("\n")]
    got = [line if line.strip() else "  ." for line in got]
    known = _blocks(path)
    if os.environ.get("PYRUNC_UPDATE_GOLDEN"):
        known[case] = got
        text = "\n".join(f"== {name}\n" + "".join(f"{line}\n" for line in known[name]) for name in sorted(known))
        path.write_text(text, encoding="utf-8")
    assert got == known.get(case), f"{case}: not as in {path}; when the change is meant: PYRUNC_UPDATE_GOLDEN=1"
