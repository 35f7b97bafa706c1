"""Try mutants with fast tests only, in processes forked from one that has collected the tests.

Those are the unit tests for Python, and the tests that start init themselves for C. A mutant inside a
Python function needs no import: the function's code object is replaced. That takes a tenth of the
time of `worker.test_mutant`, which starts pytest for each mutant. A mutant of a module or a class
body, and one that no fast test detects, is left to the complete run.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from integration.mutants import recorder, sandbox, worker
from integration.mutants.cover import Test
from integration.mutants.mutant import Mutant
from integration.mutants.tree import Tree

Place = tuple[str, int]  # a function's qualified name and its first line
# A test is endless if it uses PATIENCE seconds more than FACTOR times what was recorded, of CPU or of
# the clock that does not run while a process waits for a processor.
PATIENCE = 10.0
FACTOR = 5.0


def functions(code: CodeType) -> dict[Place, CodeType]:
    """The code objects in a code object, at any depth."""
    found: dict[Place, CodeType] = {}
    for one in code.co_consts:
        if isinstance(one, CodeType):
            found[one.co_qualname, one.co_firstlineno] = one
            found |= functions(one)
    return found


def content(code: CodeType) -> tuple[object, ...]:
    """What a code object does, without the functions in it and without line numbers."""
    consts = tuple(one.co_qualname if isinstance(one, CodeType) else repr(one) for one in code.co_consts)
    return code.co_code, consts, code.co_names, code.co_varnames, code.co_freevars


def changed_code(mutant: Mutant) -> dict[Place, CodeType] | None:
    """The code of the changed function and of the one around it; None if an import is needed."""
    before, after = (compile(text, mutant.file, "exec", dont_inherit=True) for text in (mutant.source, mutant.changed))
    old, new = functions(before), functions(after)
    places = [place for place, code in old.items() if place in new and content(code) != content(new[place])]
    of_functions = all(old[place].co_flags & 2 for place in places)  # CO_NEWLOCALS: no class body
    if content(before) != content(after) or not places or not of_functions:
        return None
    outer = {place[0].split(".<locals>")[0] for place in places}
    return {place: code for place, code in new.items() if place in places or place[0] in outer}


Results = Callable[[Mutant, str], None]
STILLBORN = "stillborn"  # in place of a test's name: the mutant does not compile


def promising(tests: list[Test], kills: Counter[str]) -> list[str]:
    """Sort tests by how many mutants they have detected. Tests of one file stay together, because they
    share what they have built; the file that detects most per second comes first."""
    files: dict[str, list[Test]] = defaultdict(list)
    for test in tests:
        files[test.file].append(test)

    def rate(of_file: list[Test]) -> float:
        found = sum(kills[test.name] for test in of_file)
        return (found + 0.5) / (sum(test.seconds for test in of_file) + 0.5)

    order = sorted(files.values(), key=rate, reverse=True)
    return [test.name for of_file in order for test in sorted(of_file, key=lambda test: -kills[test.name])]


class Told:
    """The names of tests, as a sandbox reports them at their begin; detects one that does not end."""

    def __init__(self, fd: int, costs: dict[str, float], spent: Callable[[], sandbox.Spent]) -> None:
        os.set_blocking(fd, False)
        self.fd, self.costs, self.spent = fd, costs, spent
        self.names: list[str] = []
        self.since = spent()

    def read(self) -> list[str]:
        """All names so far."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.fd, 1 << 16):
                self.names += data.decode().splitlines()
                self.since = self.spent()
        return self.names

    def stuck(self) -> bool:
        """Whether the current test is endless; called periodically."""
        cost = self.costs.get(self.read()[-1], 0.0) if self.read() else PATIENCE
        return max(self.spent().since(self.since)) > PATIENCE + FACTOR * cost


class Loop:
    """A pytest plugin that runs mutants instead of the session's tests."""

    def __init__(
        self, tree: Tree, tests: dict[Mutant, list[Test]], kills: Counter[str], results: Results, end: float
    ) -> None:
        self.tree, self.tests, self.kills, self.results, self.end = tree, tests, kills, results, end
        self.env = tree.environment(tree.objects, Path("/tmp/objects"))
        self.costs = {test.name: max(test.seconds, test.clock) for of_one in tests.values() for test in of_one}
        self.failed = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failed phase."""
        if report.failed:
            self.failed = report.nodeid

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try each mutant."""
        items = {item.nodeid: item for item in session.items}
        live: dict[tuple[str, Place], list[FunctionType]] = defaultdict(list)
        for one in gc.get_objects():
            if isinstance(one, FunctionType):
                code = one.__code__
                live[code.co_filename, (code.co_qualname, code.co_firstlineno)].append(one)
        gc.collect()
        gc.freeze()
        for mutant, tests in self.tests.items():
            if time.monotonic() > self.end:
                break
            in_c = mutant.file.endswith(".c")
            codes = {} if in_c else changed_code(mutant)
            names = promising(tests, self.kills) if in_c else [test.name for test in tests]
            chosen = [items[name] for name in names if name in items]
            if codes is not None and chosen:
                name = self.attempt(mutant, codes, chosen, live)
                self.kills[name] += 1
                self.results(mutant, name)
        return True

    def attempt(
        self,
        mutant: Mutant,
        codes: dict[Place, CodeType],
        chosen: list[pytest.Item],
        live: dict[tuple[str, Place], list[FunctionType]],
    ) -> str:
        """The test that fails twice with the mutant and passes without it; "" if there is none, and
        STILLBORN."""
        path = str(self.tree.root / mutant.file)
        placed = {(path, place): code for place, code in codes.items()}
        while True:
            name = self.once(mutant, chosen, placed, live)
            if name in ("", STILLBORN):
                return name
            alone = [item for item in chosen if item.nodeid == name]
            if self.once(mutant, alone, placed, live) and not self.once(None, alone, {}, live):
                return name
            chosen = [item for item in chosen if item.nodeid != name]

    def once(
        self,
        mutant: Mutant | None,
        chosen: list[pytest.Item],
        codes: dict[tuple[str, Place], CodeType],
        live: dict[tuple[str, Place], list[FunctionType]],
    ) -> str:
        """Run the tests in a sandbox; the one that failed, or during which it was killed."""
        reader, writer = os.pipe()

        def work() -> int:
            os.makedirs(recorder.PLACE, exist_ok=True)
            null = os.open("/dev/null", os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            if mutant is not None and worker.change(self.tree, mutant, self.env):
                return worker.STILLBORN
            for key, code in codes.items():
                for function in live.get(key, ()):
                    if len(function.__code__.co_freevars) == len(code.co_freevars):
                        function.__code__ = code.replace(co_filename=key[0])
            for index, item in enumerate(chosen):
                os.write(writer, f"{item.nodeid}\n".encode())
                following = chosen[index + 1] if index + 1 < len(chosen) else None
                item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
                if self.failed:
                    return 1
            return 0

        cgroup = sandbox.Cgroup(f"pyrunc-mutants-{os.getpid()}")
        told = Told(reader, self.costs, cgroup.spent)
        status = sandbox.run(work, cgroup, 900, stuck=told.stuck)
        names = told.read()
        cgroup.remove()
        os.close(writer)
        os.close(reader)
        if status == worker.STILLBORN and not names:
            return STILLBORN
        return names[-1] if status != 0 and names else ""


def run(tree: Tree, tests: dict[Mutant, list[Test]], kills: Counter[str], results: Results, end: float) -> None:
    """Try the mutants in order until ``end``, each with its tests. ``kills`` says how many mutants each
    test has detected before. ``results`` is called in the child, with each mutant that was tried and
    the test, "" or STILLBORN."""
    files = sorted({test.file for of_one in tests.values() for test in of_one})
    if not files:
        return
    child = os.fork()
    if child == 0:
        loop = Loop(tree, tests, kills, results, end)
        worker.settle(tree, loop.env)
        names = [file for file in files if (tree.root / file).exists()]
        status = pytest.main([*worker.OPTIONS, "-s", "--hypothesis-seed=0", *names], plugins=[loop])
        os._exit(int(status) & 0xFF)
    status = os.waitpid(child, 0)[1]
    if status:
        raise RuntimeError(f"the process that has collected the tests ended with status {status}")
