"""Size budgets of the house (HACKING.md): files, functions."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path
    for folder in ("pyrunc", "native", "tests", "integration", "bench")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".c", ".h") and "__pycache__" not in path.parts
)
GENERATED = {"ops.py", "plan_ops.h", "types.py"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_over_800_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 800


def function_lengths() -> list[tuple[int, str]]:
    out = []
    for path in SOURCES:
        if path.suffix == ".py" and path.name not in GENERATED:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    out.append(((node.end_lineno or 0) - node.lineno + 1, f"{path.relative_to(ROOT)}:{node.name}"))
        elif path.suffix == ".c":
            out += c_functions(path)
    return out


def c_functions(path: Path) -> list[tuple[int, str]]:
    """Functions of our K&R style: an opening brace alone in column 0 to a closing one in column 0."""
    out, start, head = [], 0, ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line == "{":
            start = number
        elif line.startswith("}") and start:
            out.append((number - start + 1, f"{path.relative_to(ROOT)}:{head}"))
            start = 0
        elif line and not line.startswith((" ", "\t", "}", "#", "/")):
            head = line.split("(")[0].split()[-1]
    return out


def test_functions_are_short() -> None:
    lengths = function_lengths()
    assert len(lengths) > 100
    longest = sorted(lengths, reverse=True)[:10]
    assert longest[0][0] <= 120, longest
    long = [entry for entry in lengths if entry[0] > 60]
    assert len(long) <= 0.03 * len(lengths), sorted(long, reverse=True)


@pytest.mark.parametrize("path", sorted((ROOT / "pyrunc" / "verbs").glob("*.py")), ids=lambda p: p.name)
def test_a_verb_is_at_most_120_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 120


def lines_with_any() -> list[tuple[str, str, str]]:
    """(place, line above, line) of each line of pyrunc/ that has the word."""
    found = []
    for path in sorted((ROOT / "pyrunc").rglob("*.py")):
        if path.name not in GENERATED:
            above = ""
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if re.search(r"\bAny\b", line):
                    found.append((f"{path.relative_to(ROOT)}:{number}", above, line))
                above = line
    return found


def test_any_is_rare_and_has_a_reason() -> None:
    found = lines_with_any()
    assert 10 < len(found) < 60
    assert not [
        place
        for place, above, line in found
        if not re.match(r"\s*(from|import) ", line) and "#" not in line and not above.lstrip().startswith("#")
    ]
