"""Size budgets of the code base (HACKING.md): files, functions, parameters, Any."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path
    for folder in ("pyrunc", "native", "tests", "integration", "bench", "contrib")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".c", ".h") and "__pycache__" not in path.parts
)
GENERATED = {
    "native/init/plan_ops.h", "native/shim/calls.h", "pyrunc/native/prototypes.py", "pyrunc/plan/ops.py",
    "pyrunc/spec/types.py",
}  # fmt: skip
# Tables of data that two files would not make clearer: known deviations of other runtimes.
TABLES = {"integration/differential/crun.py", "integration/differential/refusals.py"}
TESTS = re.compile(r"(tests|integration)/(.*/)?test_\w+\.py")

# Functions with more than six parameters because they pass them all on.
LISTS = {"native/shim/spawn.c:pr_spawn_hook", "native/tests/calls.c:call"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_over_600_lines(path: Path) -> None:
    limit = 800 if name_of(path) in TABLES else 600
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


Function = tuple[str, int, int]  # place, lines, parameters


def functions() -> list[Function]:
    """The functions of all hand-written files."""
    out = []
    for path in SOURCES:
        if name_of(path) in GENERATED:
            continue
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = (node.end_lineno or 0) - node.lineno + 1
                    out.append((f"{name_of(path)}:{node.name}", lines, parameters(node.args)))
        elif path.suffix == ".c":
            out += c_functions(name_of(path), path.read_text(encoding="utf-8"))
    return out


def parameters(args: ast.arguments) -> int:
    """The number of parameters that a caller has to know. A keyword-only parameter with a default
    does not count."""
    named = sum(default is None for default in args.kw_defaults)
    listed = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    return len(listed) + named - (listed[:1] in (["self"], ["cls"]))


def c_functions(name: str, text: str) -> list[Function]:
    """Functions of our K&R style: an opening brace alone in column 0 to a closing one in column
    0."""
    out, start, head = [], 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if line == "{":
            start = number
        elif line.startswith("}") and start:
            declared = re.sub(r"\([^()]*\)", "", head.partition("(")[2].rpartition(")")[0])  # function pointers
            out.append(
                (f"{name}:{head.split('(')[0].split()[-1].lstrip('*')}", number - start + 1, declared.count(",") + 1)
            )
            start = 0
        elif line and not line.startswith((" ", "\t", "}", "#", "/")):
            head = line
        elif not start:
            head += line
    return out


def test_functions_are_short() -> None:
    found = functions()
    assert len(found) > 3000
    assert not [(place, lines) for place, lines, _ in found if lines > 60]


def test_functions_have_few_parameters() -> None:
    found = [entry for entry in functions() if not TESTS.fullmatch(entry[0].partition(":")[0])]
    assert max(count for _, _, count in found) >= 5
    assert {place for place, _, count in found if count > 6} == LISTS


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("static int f(int a, int b)\n{\n    return 0;\n}\n", [("x.c:f", 3, 2)]),
        ("int *g(int (*call)(int, int),\n       void *p)\n{\n}\n", [("x.c:g", 2, 2)]),
    ],
)
def test_functions_of_c_are_counted(text: str, want: list[Function]) -> None:
    assert c_functions("x.c", text) == want


@pytest.mark.parametrize("path", sorted((ROOT / "pyrunc" / "verbs").glob("*.py")), ids=lambda p: p.name)
def test_a_verb_is_at_most_120_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 120


def lines_with_any() -> list[tuple[str, str, str]]:
    """(place, line above, line) of each line of pyrunc/ that contains the word."""
    found = []
    for path in sorted((ROOT / "pyrunc").rglob("*.py")):
        if name_of(path) not in GENERATED:
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
