"""Every row has a test, and every mark names a row."""

from __future__ import annotations

import ast
from pathlib import Path

from integration.security.rows import ROWS
from integration.security.sabotage import TABLE

HERE = Path(__file__).parent


def marked() -> dict[str, list[str]]:
    """Row -> the tests that guard it, as ``file::function``."""
    found: dict[str, list[str]] = {}
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.row":
                    for argument in mark.args:
                        found.setdefault(ast.literal_eval(argument), []).append(f"{path.name}::{node.name}")
    return found


def test_every_row_has_a_test() -> None:
    assert set(ROWS) == {f"T{number:02}" for number in range(1, 44)}
    assert set(marked()) <= set(ROWS), "a mark without a row"
    assert set(ROWS) == set(marked()), "a row without a test"


def test_every_sabotage_still_fits() -> None:
    """The text that `make prove-security` removes occurs exactly once; otherwise a row would
    silently remain unproven."""
    wrong = []
    for sabotage in TABLE:
        texts: dict[str, str] = {}
        for name, old, new in sabotage.edits:
            text = texts.setdefault(name, (HERE.parents[1] / name).read_text())
            if text.count(old) != 1:
                wrong.append(f"{sabotage.row}, {sabotage.what}: {name} has it {text.count(old)} times")
            texts[name] = text.replace(old, new)
        assert sabotage.test in {name for names in marked().values() for name in names}, sabotage.test
    assert not wrong, wrong
