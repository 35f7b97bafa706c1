"""No two files contain the same run of lines: shared code is in one module that both import."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable

import pytest

from test_budgets import GENERATED, SOURCES, name_of

RUN = 6
Line = tuple[int, str]  # number, text without indentation
# Test modules may repeat each other; the modules that they share may not.
CODE = [
    path
    for path in SOURCES
    if name_of(path) not in GENERATED and not path.name.startswith("test_") and not path.match("native/tests/*")
]


def lines_of(text: str, suffix: str) -> list[Line]:
    """The lines that count: without blank lines, imports, comments and lone brackets."""
    left_out: set[int] = set()
    if suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if number not in left_out]
    return [
        (number, line)
        for number, line in lines
        if any(char.isalnum() for char in line) and not line.startswith(("#", "//", "/*", "* "))
    ]


def repeated(files: Iterable[tuple[str, list[Line]]]) -> list[str]:
    """The first lines of runs that two files share, one for each pair of files."""
    places: defaultdict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, lines in files:
        for at in range(len(lines) - RUN + 1):
            places[tuple(line for _, line in lines[at : at + RUN])].append((name, lines[at][0]))
    found: dict[tuple[str, str], str] = {}
    for where in places.values():
        first = where[0]
        for other in where[1:]:
            if other[0] != first[0]:
                found.setdefault((first[0], other[0]), f"{first[0]}:{first[1]} and {other[0]}:{other[1]}")
    return sorted(found.values())


def test_no_six_equal_lines_in_two_files() -> None:
    files = [(name_of(path), lines_of(path.read_text(encoding="utf-8"), path.suffix)) for path in CODE]
    assert len(files) > 400
    assert not repeated(files)


@pytest.mark.parametrize(
    ("second", "found"),
    [
        ("    a = 1\n    b = 2\n\n    c = 3\n    # why\n    d = 4\n    e = 5\n    f = 6\n", ["x.py:1 and y.py:1"]),
        ("a = 1\nb = 2\nc = 3\nd = 4\ne = 5\ng = 6\n", []),
        ("from m import (\n    a,\n    b,\n)\na = 1\nb = 2\nc = 3\nd = 4\ne = 5\n", []),
    ],
    ids=["equal", "five lines", "imports"],
)
def test_runs_are_found(second: str, found: list[str]) -> None:
    first = "a = 1\nb = 2\nc = 3\nd = 4\ne = 5\nf = 6\n"
    second = second if not second.startswith(" ") else "if x:\n" + second
    got = repeated([("x.py", lines_of(first, ".py")), ("y.py", lines_of(second, ".py"))])
    assert [text.replace("y.py:2", "y.py:1") for text in got] == found
