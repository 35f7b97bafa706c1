"""Map each line to the tests that reach it, by running every test file in a sandbox. The map is
kept in build/mutants/map.

A test file is run again when it changes. Because sources may change after a recording, their
recorded text is kept; a line that has changed since then maps to its neighbours.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import itertools
import json
import os
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from integration.mutants import of_c, of_shim, parallel, sandbox, worker
from integration.mutants.mutant import Mutant
from integration.mutants.tree import Tree

TIMEOUT = 7200  # for all tests of one file, under the tracer, on a busy machine
FORMAT = 2  # of a recording
# Tests that read init's source reach all of it.
READERS = ("test_descriptors_are_close_on_exec", "test_every_op_has_its_handler")
BEHIND = 4  # lines after a mutant that may be the branch it controls
# Tests of the build, of texts and of the tests do not run mutated code. Cost tests need the
# executable.
LEFT_OUT = {
    "tests/test_assertions.py", "tests/test_budgets.py", "tests/test_build.py", "tests/test_citations.py",
    "tests/test_engines_table.py", "tests/test_layers.py", "tests/test_mutants.py", "tests/test_mutants_shim.py",
    "tests/test_snapshot.py",
    "integration/test_guest.py", "integration/test_input_costs.py", "integration/test_readme_commands.py",
}  # fmt: skip


class Test(NamedTuple):
    """A test that passes in a sandbox."""

    name: str
    seconds: float  # of CPU, of the test and the processes that it starts
    clock: float = 0.0  # from begin to end on an idle machine

    @property
    def file(self) -> str:
        """The test's file."""
        return self.name.split("::")[0]

    @property
    def unit(self) -> bool:
        """Whether the test needs no container."""
        return self.name.startswith("tests/")

    @property
    def native(self) -> bool:
        """Whether the test starts init itself or parts of it, without the runtime."""
        return Path(self.file).name.startswith(("test_init_", "test_native"))


Test.__test__ = False  # type: ignore[attr-defined]  # not a test class


def test_files(tree: Tree) -> list[str]:
    """All test files that can detect mutants."""
    places = ["tests", "integration", "integration/security"]
    found = [str(path.relative_to(tree.root)) for place in places for path in (tree.root / place).glob("test_*.py")]
    # Test files without containers come first, because they are fast.
    return sorted((name for name in found if name not in LEFT_OUT), key=lambda name: (name[0] != "t", name))


def digest(text: bytes) -> str:
    """A short hash of a file's content."""
    return hashlib.sha256(text).hexdigest()[:16]


class Map:
    """All recordings."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.place = tree.base / "map"
        self.sources = self.place / "sources"
        self.sources.mkdir(parents=True, exist_ok=True)
        self.lines: dict[str, dict[int, set[Test]]] = defaultdict(lambda: defaultdict(set))
        self.importers: dict[str, set[str]] = defaultdict(set)  # source -> test files that import it
        self.tests: dict[str, Test] = {}
        self.failing: list[str] = []

    # -- recording ---------------------------------------------------------------------------------

    def path(self, file: str) -> Path:
        """The path of a test file's recording."""
        return self.place / (file.replace("/", ".") + ".json")

    def stale(self) -> list[str]:
        """Test files without a recording of their current content and of `FORMAT`."""
        out = []
        for file in test_files(self.tree):
            try:
                known = json.loads(self.path(file).read_text())
            except (OSError, ValueError):
                known = {}
            if (known.get("digest"), known.get("format")) != (digest((self.tree.root / file).read_bytes()), FORMAT):
                out.append(file)
        return out

    def record(self, jobs: int, end: float) -> None:
        """Run the stale test files until `end`."""
        todo = itertools.takewhile(lambda _: time.monotonic() < end, self.stale())
        for file, said in parallel.each(todo, self.record_one, jobs, str(self.place)):
            print(f"map: {file}: {said}", flush=True)

    def record_one(self, file: str) -> str:
        """Run one test file and return a summary."""
        sources = {}
        for path in [*(self.tree.root / "pyrunc").rglob("*.py"), *(self.tree.root / "native/init").glob("*.c")]:
            data = path.read_bytes()
            sources[str(path.relative_to(self.tree.root))] = digest(data)
            (self.sources / digest(data)).write_bytes(data)
        cgroup = sandbox.Cgroup(f"pyrunc-mutants-{os.getpid()}-{digest(file.encode())[:6]}")
        with tempfile.TemporaryFile(dir=self.place) as out:
            status = sandbox.run(
                lambda: worker.record(self.tree, file, out.fileno()), cgroup, TIMEOUT, str(self.tree.counted)
            )
            cgroup.remove()
            out.seek(0)
            text = out.read()
        if status or not text:
            return f"not recorded (status {status})"
        found = json.loads(text)
        found |= {"format": FORMAT, "digest": digest((self.tree.root / file).read_bytes()), "sources": sources}
        self.path(file).write_text(json.dumps(found))
        wrong = [name for name, outcome, *_ in found["tests"] if outcome == "failed"]
        passed = sum(outcome == "passed" for _, outcome, *_ in found["tests"])
        said = f"{passed} passed, {len(wrong)} failed {' '.join(wrong[:3])}"
        return said if passed else f"{said}: {found['log'][-500:]}"

    # -- reading -----------------------------------------------------------------------------------

    def load(self) -> Map:
        """Read all recordings."""
        for file in test_files(self.tree):
            path = self.path(file)
            if not path.exists():
                continue
            found = json.loads(path.read_text())
            tests = [Test(name, *cost) if outcome == "passed" else None for name, outcome, *cost in found["tests"]]
            self.failing += [name for name, outcome, *_ in found["tests"] if outcome == "failed"]
            self.tests |= {test.name: test for test in tests if test}
            for source in found["imports"]:
                self.importers[source].add(file)
            self.words(file)  # computed before the processes of single mutants fork
            sets = [{test for index in one if (test := tests[index])} for one in found["sets"]]
            for source, of_lines in found["lines"].items():
                places = self.moved(source, found["sources"])
                for line, number in of_lines.items():
                    for now, there in places(int(line)):
                        self.lines[now][there] |= sets[number]
        return self

    def moved(self, source: str, sources: dict[str, str]) -> Callable[[int], list[tuple[str, int]]]:
        """A function that maps a recorded line to its current positions, in the same file or in new
        files."""
        old = str(self.sources / sources.get(source, ""))
        if (self.tree.root / source).is_file():
            table = _table(old, str(self.tree.root / source)) if source in sources else {}
            return lambda line: [(source, table.get(line, line))]
        now = {str(path.relative_to(self.tree.root)) for path in self.tree.root.glob("pyrunc/**/*.py")}
        new = sorted(now - sources.keys()) if source in sources else []
        tables = [(name, _kept(old, str(self.tree.root / name))) for name in new]
        return lambda line: [(name, table[line]) for name, table in tables if line in table]

    # -- choosing ----------------------------------------------------------------------------------

    def reaching(self, mutant: Mutant) -> list[Test]:
        """The tests that reach a mutant's line, else its function, else its module. Tests without a
        container come first, and within each group those that target the mutant."""
        return sorted(self.near(mutant), key=lambda test: not test.unit)

    def near(self, mutant: Mutant) -> list[Test]:
        """The same tests, but those that target the mutant come first; cheap ones precede expensive
        ones."""
        if mutant.file.startswith(of_shim.PLACE):
            return self.of_shim(mutant)
        lines = self.lines.get(mutant.file, {})
        found: set[Test] = set()
        if mutant.scope or mutant.file.endswith(".c"):
            found = union(lines, range(mutant.line, mutant.last_line + 1) if mutant.scope else macro_lines(mutant))
            near = union(lines, scope_lines(mutant))
            if mutant.file.endswith(".c") or not found:
                about = self.about(mutant, near)
                readers = [test for test in self.tests.values() if test.name.endswith(READERS)]
                rest = self.ordered(about & found, mutant) + self.ordered(about - found, mutant)
                rest += self.ordered(found - about) + self.ordered(near - found)
                # The tracer does not follow a fork: such code has only the tests of its module.
                rest = rest or (self.of_module(mutant) if mutant.file.endswith(".py") else [])
                return list(dict.fromkeys([*(readers if mutant.file.endswith(".c") else ()), *rest]))
            about = self.about(mutant, found)
            return self.ordered(about, mutant) + self.ordered(found - about)
        return spread(self.of_module(mutant))

    def of_shim(self, mutant: Mutant) -> list[Test]:
        """The tests that call a function of the shim, or reach the Python code that does. Those that
        name it come first, then their files."""
        functions, names, places = of_shim.in_python(mutant, self.tree.root)
        found = {test for file, numbers in places.items() for test in union(self.lines.get(file, {}), numbers)}
        importing = {file for module, _ in names for file in self.importers[f"pyrunc/native/{module}.py"]}
        wrappers = {name for _, name in names}
        stem = Path(mutant.file).stem
        naming, own = set(), set()
        for test in self.tests.values():
            words = self.words(test.file)
            of_test = words.get(_function(test), set())
            if of_test & functions or (test.file in importing and of_test & wrappers):
                naming.add(test)
            elif any(functions & each for each in words.values()) or stem in _shim_sources(self.tree.root / test.file):
                own.add(test)
        return self.ordered(naming, mutant) + self.ordered(own) + self.ordered(found - naming - own)

    def ordered(self, tests: set[Test], mutant: Mutant | None = None) -> list[Test]:
        """Sort tests by cost. Among those that target the mutant, the tests in its module's own
        file come first."""
        stem = Path(mutant.file).stem if mutant else ""
        own = {test for test in tests if stem and stem in Path(test.file).stem}
        return spread(sorted(own, key=_cheap)) + spread(sorted(tests - own, key=_cheap))

    def about(self, mutant: Mutant, tests: set[Test]) -> set[Test]:
        """The tests that target the mutant. Thousands may run through a line, and the time for a
        mutant is limited.

        Such a test names the function, or reaches lines after the mutant that most tests do not
        reach.
        """
        name = mutant.scope.rpartition(".")[2]
        naming = {test for test in tests if name and name in self.words(test.file).get(_function(test), set())}
        lines = self.lines.get(mutant.file, {})
        for line in range(mutant.line + 1, mutant.last_line + BEHIND):
            few = lines.get(line, set()) & tests
            if len(few) < len(tests) / 2:
                naming |= few
        return naming

    def words(self, file: str) -> dict[str, set[str]]:
        """The names in each function of a test file."""
        return _words(str(self.tree.root / file))

    def of_module(self, mutant: Mutant) -> list[Test]:
        """Tests for a module-level table: first those named after the module, then all that execute
        it."""
        used = union(self.lines.get(mutant.file, {}), itertools.count(1))
        stem = Path(mutant.file).stem
        close = [
            test
            for test in self.tests.values()
            if stem.strip("_") in test.name and test.file in self.importers[mutant.file]
        ]
        importing = [test for test in self.tests.values() if test.file in self.importers[mutant.file]]
        chosen = dict.fromkeys([*sorted(close, key=_cheap), *sorted(used, key=_cheap), *sorted(importing, key=_cheap)])
        return list(chosen)


def union(lines: dict[int, set[Test]], numbers: Iterable[int]) -> set[Test]:
    """The tests that reach any of these lines."""
    wanted = None if isinstance(numbers, itertools.count) else set(numbers)
    out: set[Test] = set()
    for line, tests in lines.items():
        if wanted is None or line in wanted:
            out |= tests
    return out


@cache
def _shim_sources(path: Path) -> set[str]:
    """The shim's sources that a test file compiles into programs of its own."""
    text = path.read_text()
    return set(re.findall(r'"(\w+)"', text)) if re.search(r"""["/ ]shim["/]""", text) else set()


def _function(test: Test) -> str:
    return test.name.split("::")[-1].partition("[")[0]


@cache
def _words(path: str) -> dict[str, set[str]]:
    text = Path(path).read_text()
    lines = text.splitlines()
    return {
        node.name: set(re.findall(r"[A-Za-z_]\w*", "\n".join(lines[node.lineno - 1 : node.end_lineno])))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def _cheap(test: Test) -> tuple[bool, float, str]:
    return not test.unit, test.seconds, test.name


def spread(tests: list[Test]) -> list[Test]:
    """The tests in the same order, except that those that differ only in their parameters are
    spread out."""
    rounds: dict[str, int] = defaultdict(int)
    numbered = []
    for position, test in enumerate(tests):
        name = test.name.partition("[")[0]
        numbered.append(((not test.unit, rounds[name] // 2, position), test))
        rounds[name] += 1
    return [test for _, test in sorted(numbered, key=lambda entry: entry[0])]


@cache
def _table(old: str, new: str) -> dict[int, int]:
    """Map old lines to new lines; a changed line maps to its replacement."""
    before, after = Path(old).read_text().splitlines(), Path(new).read_text().splitlines()
    if before == after:
        return {}
    table = {}
    for _, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        for line in range(a, b):
            table[line + 1] = min(c + line - a, max(d - 1, c)) + 1
    return table


@cache
def _kept(old: str, new: str) -> dict[int, int]:
    """Map old lines to new lines for code that moved to another file: only runs of several equal
    lines."""
    before, after = Path(old).read_text().splitlines(), Path(new).read_text().splitlines()
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    return {a + step + 1: b + step + 1 for a, b, size in blocks if size > 2 for step in range(size)}


def scope_lines(mutant: Mutant) -> range:
    """The lines of the function that contains a mutant."""
    if mutant.file.endswith(".c"):
        return _c_scopes(mutant.file, mutant.source).get(mutant.scope, range(0))
    return _python_scopes(mutant.source).get(mutant.scope, range(0))


def macro_lines(mutant: Mutant) -> list[int]:
    """The lines outside all functions that use a mutant's macro, and adjacent lines, because a
    block is identified by the line of one of its statements."""
    text = mutant.source.splitlines()
    match = re.match(r"#define (\w+)", text[mutant.line - 1])
    word = re.compile(rf"\b{match[1]}\b") if match else None
    users = [number for number, line in enumerate(text, 1) if word and word.search(line) and line[:1] != "#"]
    return [number + step for number in users for step in (-1, 0, 1)]


@cache
def _c_scopes(file: str, source: str) -> dict[str, range]:
    finder = of_c.Finder(file, source)

    def line(index: int) -> int:
        return source.count("\n", 0, finder.tokens[index].start) + 1

    return {name: range(line(begin) - 1, line(end) + 1) for name, begin, end in finder.functions()}


@cache
def _python_scopes(source: str) -> dict[str, range]:
    out = {}

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                out[name] = range(child.lineno, (child.end_lineno or 0) + 1)
                walk(child, name + ".")
            else:
                walk(child, prefix)

    walk(ast.parse(source), "")
    return out
