"""Find tests that can hardly fail by their source.

Every path through a test must reach an assertion: one below ``if``, or in a loop over a possibly
empty iterable, is not enough.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for folder in ("tests", "integration") for path in (ROOT / folder).rglob("*.py"))
TESTS = [path for path in FILES if path.name.startswith("test_")]

# Calls of functions that are passed in: they raise or assert if a check fails.
CHECKING = {"refused", "run", "create", "start", "call", "wait", "validate"}
# Wrappers of a loop's iterable that do not change its length.
SAME_LENGTH = {"enumerate", "zip", "sorted", "reversed", "list", "tuple", "items", "keys", "values", "split", "product"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def checking() -> frozenset[str]:
    """Functions of the tests that themselves assert or raise something."""
    found = set(CHECKING)
    for path in FILES:
        for node in ast.walk(tree(path)):
            helper = isinstance(node, ast.FunctionDef) and not node.name.startswith("test_")
            if helper and any(isinstance(part, ast.Assert | ast.Raise) for part in ast.walk(node)):
                found.add(getattr(node, "name", ""))
    return frozenset(found)


def called(node: ast.expr) -> str:
    """The last part of the name of the called function."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def never_empty(node: ast.expr) -> bool:
    """A literal, a constant of the module, a range, or one of these wrapped."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
        return bool(ast.unparse(node).strip("()[]{}, "))
    if isinstance(node, ast.Constant):
        return bool(node.value)
    if isinstance(node, ast.Name | ast.Attribute):
        return called(node).isupper()
    if isinstance(node, ast.Subscript):
        return never_empty(node.value)
    if isinstance(node, ast.BinOp):
        return never_empty(node.left) or never_empty(node.right)
    if isinstance(node, ast.Call) and called(node.func) == "range":
        return True
    if isinstance(node, ast.Call) and called(node.func) in SAME_LENGTH:
        parts = list(node.args) or [node.func.value if isinstance(node.func, ast.Attribute) else node]
        return all(part is not node and never_empty(part) for part in parts)
    return False


def checks(statements: list[ast.stmt]) -> bool:
    """Whether executing these statements always checks something."""
    return any(check(statement) for statement in statements)


def check(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assert | ast.Raise):
        return True
    if isinstance(node, ast.With):
        return any("raises" in ast.unparse(item) for item in node.items) or checks(node.body)
    if isinstance(node, ast.If):
        return checks(node.body) and checks(node.orelse)
    if isinstance(node, ast.Try):
        handled = all(checks(handler.body) for handler in node.handlers)
        return (checks(node.body + node.orelse) and handled) or checks(node.finalbody)
    if isinstance(node, ast.For):
        return calls_a_check(node.iter) or (never_empty(node.iter) and checks(node.body))
    if isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Return):
        return calls_a_check(node)
    return False


def calls_a_check(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Call) and called(part.func) in checking() for part in ast.walk(node))


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_surely_checks_something(path: Path) -> None:
    assert [f"{node.name} (line {node.lineno})" for node in functions(path) if not checks(node.body)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_assertion_is_true_of_nothing_or_of_anything(path: Path) -> None:
    """``assert all(...)`` of an empty list; an exit status that may be success or failure."""
    found = []
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Assert):
            continue
        for part in ast.walk(node.test):
            if isinstance(part, ast.Call) and called(part.func) == "all" and part is node.test:
                found.append(f"all() in line {node.lineno}")
            if (
                isinstance(part, ast.Compare)
                and called(part.left) in ("rc", "returncode")
                and either(part.comparators[0])
            ):
                found.append(f"0 or not 0 in line {node.lineno}")
    assert found == []


def either(node: ast.expr) -> bool:
    """A literal collection of 0 and of other numbers."""
    if not isinstance(node, ast.Tuple | ast.List | ast.Set):
        return False
    values = {part.value for part in node.elts if isinstance(part, ast.Constant) and type(part.value) is int}
    return len(values) > 1 and 0 in values


# --- the check itself -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "good"),
    [
        ("assert x", True),
        ("with pytest.raises(ValueError):\n  f()", True),
        ("if x:\n  assert y", False),
        ("if x:\n  assert y\nelse:\n  assert z", True),
        ("for a in b():\n  assert a", False),
        ("for a in (1, 2):\n  assert a", True),
        ("for a in ():\n  assert a", False),
        ("for a, b in zip(A, B):\n  assert a", True),
        ("for a in B.items():\n  assert a", True),
        ("for a in b.items():\n  assert a", False),
        ("try:\n  f()\nexcept OSError:\n  assert x", False),
        ("try:\n  f()\nexcept OSError:\n  assert x\nelse:\n  assert y", True),
        ("refused(x)", True),
        ("print(x)", False),
    ],
)
def test_what_checks(body: str, good: bool) -> None:
    assert checks(ast.parse(body).body) == good
