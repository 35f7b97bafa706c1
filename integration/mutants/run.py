"""Try a sample of mutants, chosen by a seed, within a time limit. Results are kept, so that a run
resumes where the previous one stopped.

python -m integration.mutants --seed 11 --python 600 --c 150 --seconds 7200
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integration.mutants import collected, of_c, of_python, of_shim, parallel, sandbox, worker
from integration.mutants.cover import Map, Test, digest
from integration.mutants.mutant import ROOT, Mutant, equivalents
from integration.mutants.tree import Tree

BASE = ROOT / "build/mutants"
# Seconds of CPU of tests (as recorded, under a tracer) that one mutant may cost; a survivor uses all
# of them.
BUDGET = 60.0
UNIT = 0.6  # maximum share of the budget for tests without a container
# A test is endless if it uses PATIENCE seconds more than FACTOR times what was recorded, of CPU or of
# the clock that does not run while a process waits for a processor.
FACTOR = 5.0
PATIENCE = 20.0
STARTING = 60.0  # the same, before the first test
PRESENT = 3600.0  # seconds of real time, after which nothing is known about a mutant: the machine is too busy
LEAST = {"Python": 97.0, "C": 92.0, "shim": 92.0}  # percent of the mutants that are not equivalent
ALIVE = ("survived", "unreached", "undecided")
UNITS = "units"  # the status of a mutant that fast tests have not detected, and that is to be tried with the others
SECURE = {"check dropped", "flag dropped", "order", "error swallowed", "statement dropped"}


@dataclass
class Outcome:
    """The result of trying a mutant."""

    status: str  # killed, survived, endless, stillborn, unreached, undecided
    by: str = ""  # the test that failed
    words: str = ""
    tests: int = 0
    seconds: float = 0.0


def chosen(tests: list[Test], budget: float) -> list[str]:
    """As many tests as the budget allows. Tests of one file stay together; the cheapest file comes
    first."""
    found: list[Test] = []
    cost = 0.0
    for test in tests:
        most = budget * UNIT if test.unit else budget
        if cost + test.seconds > most and found:
            continue
        found.append(test)
        cost += test.seconds
    files: dict[str, list[Test]] = defaultdict(list)
    for test in found:
        files[test.file].append(test)
    order = sorted(
        files.values(), key=lambda of_file: (not of_file[0].unit, sum(t.seconds for t in of_file) / len(of_file))
    )
    return [test.name for of_file in order for test in of_file]


def warming(known: Map) -> list[str]:
    """Tests that build what the other tests in their file use."""
    files: dict[str, set[Test]] = defaultdict(set)
    for source, lines in known.lines.items():
        if source.endswith(".c"):
            for tests in lines.values():
                for test in tests:
                    files[test.file].add(test)
    out = []
    for file, tests in sorted(files.items()):
        several = file.startswith("tests/test_native_")  # each test builds its own program
        out += sorted(test.name for test in tests) if several else [min(tests, key=lambda test: test.seconds).name]
    return out


class Progress:
    """Detect a test that uses far more than recorded, from a sandbox's output."""

    def __init__(self, known: Map, fd: int, spent: Callable[[], sandbox.Spent]) -> None:
        self.known, self.fd, self.spent = known, fd, spent
        self.size, self.since, self.limit = 0, spent(), STARTING
        self.endless = False

    def stuck(self) -> bool:
        """Whether the current test is stuck; called periodically."""
        size, now = os.fstat(self.fd).st_size, self.spent()
        if size != self.size:
            last = os.pread(self.fd, size, 0).decode().splitlines()[-1]
            test = self.known.tests.get(json.loads(last).get("begun", "")) if last.endswith("}") else None
            cost = max(test.seconds, test.clock) if test else PATIENCE / FACTOR
            self.size, self.since, self.limit = size, now, PATIENCE + FACTOR * cost
        self.endless = max(now.since(self.since)) > self.limit
        return self.endless


class Runner:
    """Try mutants in sandboxes."""

    def __init__(self, tree: Tree, known: Map, budget: float) -> None:
        self.tree, self.known, self.budget = tree, known, budget
        self.done: set[str] = set()  # keys of mutants that were tried with fast tests

    def fast(self, mutant: Mutant) -> list[Test]:
        """The fast tests for a mutant: all that start init itself, or unit tests within the budget."""
        tests = self.known.reaching(mutant)
        if mutant.file.endswith(".c"):
            return [test for test in tests if test.native]
        return [self.known.tests[name] for name in chosen([test for test in tests if test.unit], self.budget)]

    def slow(self, mutant: Mutant) -> list[str]:
        """The other tests for it, within the budget."""
        tests = self.known.reaching(mutant)
        if mutant.file.endswith(".c"):
            return chosen([test for test in tests if not test.native], self.budget)
        return [name for name in chosen(tests, self.budget) if not self.known.tests[name].unit]

    def warm(self) -> None:
        """Compile the objects of all programs that tests build from init's sources, unless they
        exist."""
        sources = [*self.tree.root.glob("native/*/*.[ch]"), *self.tree.root.glob("native/*/*.flags")]
        stamp = digest(
            b"".join(path.read_bytes() for path in sorted(sources)) + repr(sorted(self.known.tests)).encode()
        )
        done = self.tree.objects / "complete"
        if done.exists() and done.read_text() == stamp:
            return
        names = warming(self.known)
        cgroup = sandbox.Cgroup(f"pyrunc-mutants-{os.getpid()}")
        sandbox.run(lambda: worker.fill(self.tree, names), cgroup, 1200, str(self.tree.objects))
        cgroup.remove()
        done.write_text(stamp)

    def attempt(self, mutant: Mutant) -> Outcome:
        """Run all stages for one mutant."""
        tried = mutant.key in self.done
        names = self.slow(mutant) if tried else chosen(self.known.reaching(mutant), self.budget)
        if not names:
            return Outcome("survived" if tried else "unreached")
        start = time.monotonic()
        found = self.once(mutant, names)
        # A flaky test must not count: it has to fail again (worker.py repeats unit tests), and to
        # pass without the change at the same time.
        while found.by:
            twice = found.status == "killed" and found.by.startswith("tests/")
            again = twice or self.once(mutant, [found.by]).status != "survived"
            if again and self.once(None, [found.by]).status == "survived":
                break
            names = [name for name in names if name != found.by]
            found = self.once(mutant, names) if names else Outcome("survived")
        found.tests, found.seconds = len(names), time.monotonic() - start
        return found

    def once(self, mutant: Mutant | None, names: list[str]) -> Outcome:
        """Run the tests in one sandbox."""
        cgroup = sandbox.Cgroup(f"pyrunc-mutants-{os.getpid()}")
        with tempfile.TemporaryFile(dir=self.tree.base) as out:
            work = lambda: worker.test_mutant(self.tree, mutant, names, out.fileno())  # noqa: E731
            progress = Progress(self.known, out.fileno(), cgroup.spent)
            status = sandbox.run(work, cgroup, PRESENT, stuck=progress.stuck)
            cgroup.remove()
            out.seek(0)
            told = [json.loads(line) for line in out.read().decode().splitlines()]
        failed = next((entry for entry in told if "failed" in entry), None)
        begun = [entry["begun"] for entry in told if "begun" in entry]
        if status == worker.STILLBORN:
            return Outcome("stillborn")
        if failed is not None:
            name = failed["failed"]
            if "::" not in name:  # the file could not be imported
                name = next((test for test in names if test.startswith(f"{name}::")), "")
            return Outcome("killed", name, failed["words"])
        if status is None:
            return Outcome("endless" if progress.endless else "undecided", begun[-1] if begun else "")
        return Outcome("survived" if status == 0 else "killed", "", "" if status == 0 else f"status {status}")


class Results:
    """The results file: one line of JSON for each tried mutant."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        self.read()

    def read(self) -> None:
        """Read what this process and others have added."""
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                row = json.loads(line)
                self.rows[row["key"]] = row

    def add(self, mutant: Mutant, found: Outcome) -> None:
        """Record a result."""
        before, after = mutant.lines
        row = {
            "key": mutant.key, "file": mutant.file, "line": mutant.line, "scope": mutant.scope, "kind": mutant.kind,
            "before": before, "after": after, "status": found.status, "by": found.by, "words": found.words,
            "tests": found.tests, "seconds": round(found.seconds, 1),
        }  # fmt: skip
        self.rows[mutant.key] = row
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def sample(mutants: list[Mutant], seed: int, secure: bool) -> list[Mutant]:
    """Order the mutants by a seed; with ``secure`` every other one is of a security-relevant kind.

    A mutant's position depends only on the mutant itself, so a change of the source changes as
    little of a sample as possible.
    """
    shuffled = sorted(mutants, key=lambda mutant: hashlib.sha256(f"{seed} {mutant.key}".encode()).digest())
    if not secure:
        return shuffled
    first = [mutant for mutant in shuffled if mutant.kind in SECURE]
    second = [mutant for mutant in shuffled if mutant.kind not in SECURE]
    out = [one for pair in zip(first, second, strict=False) for one in pair]
    return out + first[len(second) :] + second[len(first) :]


def wanted(options: argparse.Namespace) -> dict[str, tuple[list[Mutant], int]]:
    """The ordered mutants of each part, and how many of them to try."""
    out = {}
    languages = (("C", of_c, options.c), ("shim", of_shim, options.shim), ("Python", of_python, options.python))
    for name, source, count in languages:
        found = [mutant for mutant in source.everything() if not options.only or options.only in mutant.file]
        if options.key:
            found = [mutant for mutant in found if mutant.key in options.key.split(",")]
        out[name] = sample(found, options.seed, secure=name != "Python"), count
    return out


class Trial:
    """The first ``count`` mutants of a language that compile."""

    def __init__(
        self, name: str, mutants: list[Mutant], count: int, results: Results, options: argparse.Namespace
    ) -> None:
        self.name, self.mutants, self.count, self.results, self.options = name, mutants, count, results, options
        self.skip = equivalents()
        self.taken: list[Mutant] = []

    def todo(self) -> Iterator[Mutant]:
        """The mutants without a result."""
        for mutant in self.mutants:
            if len(self.taken) >= self.count or time.monotonic() > self.options.end:
                return
            known = self.results.rows.get(mutant.key, {}).get("status", "")
            if known == "stillborn" or (mutant.file.endswith(".py") and not of_python.sound(mutant)):
                continue
            self.taken.append(mutant)
            again = known in ("", UNITS) or (self.options.again and known in ALIVE)
            if again and mutant.key not in self.skip:
                yield mutant

    def with_fast(self, runner: Runner) -> None:
        """Try the mutants with fast tests first, in half of the time."""
        tests = {mutant: runner.fast(mutant) for mutant in self.todo() if mutant.key not in self.results.rows}
        self.taken.clear()
        kills = Counter(row["by"] for row in self.results.rows.values())

        def add(mutant: Mutant, by: str) -> None:
            status = collected.STILLBORN if by == collected.STILLBORN else "killed" if by else UNITS
            self.results.add(mutant, Outcome(status, by, tests=len(tests[mutant])))

        now = time.monotonic()
        collected.run(runner.tree, tests, kills, add, now + (self.options.end - now) / 2)
        self.results.read()
        runner.done |= {key for key, row in self.results.rows.items() if row["status"] == UNITS}

    def run(self, runner: Runner) -> None:
        """Try the mutants."""
        if self.options.units or self.name == "C":
            self.with_fast(runner)
        for mutant, found in parallel.each(self.todo(), runner.attempt, self.options.jobs, str(runner.tree.base)):
            self.results.add(mutant, found)
            if found.status == "stillborn":
                self.taken.remove(mutant)
            elif found.status in ALIVE:
                print(f"{found.status} ({found.tests} tests, {found.seconds:.0f} s): {mutant}", flush=True)

    def judged(self) -> dict[Mutant, str]:
        """The results of the mutants that are not equivalent. One that only the fast tests had time
        for, and did not detect, counts as undecided."""
        rows = {key: row["status"] for key, row in self.results.rows.items()}
        rows = {key: "undecided" if status == UNITS else status for key, status in rows.items()}
        return {m: rows[m.key] for m in self.taken if m.key not in self.skip and m.key in rows}

    @property
    def score(self) -> float:
        """The percentage of them that tests detected."""
        found = list(self.judged().values())
        return 100.0 * sum(status not in ALIVE for status in found) / max(len(found), 1)

    def by_module(self) -> list[str]:
        """The figures of each module with survivors, the worst first."""
        files: dict[str, list[str]] = defaultdict(list)
        for mutant, status in self.judged().items():
            files[mutant.file].append(status)
        alive = {file: sum(word in ALIVE for word in words) for file, words in files.items()}
        order = sorted(files, key=lambda file: (-alive[file] / len(files[file]), file))
        return [
            f"{len(files[file]) - alive[file]:4} of {len(files[file]):3} killed: {file}"
            for file in order
            if alive[file]
        ]

    def summary(self) -> str:
        """The survivors, the most dangerous first, and the figures."""
        found = self.judged()
        alive = sorted((m for m, word in found.items() if word in ALIVE), key=lambda m: -m.danger)
        out = [f"{mutant.danger:3} {mutant}" for mutant in alive] + self.by_module()
        same = sum(mutant.key in self.skip for mutant in self.taken)
        out.append(
            f"{self.name}: {len(self.taken)} mutants, {same} equivalent, {len(found) - len(alive)} of {len(found)}"
            f" killed: {self.score:.1f} % (at least {LEAST[self.name]:.0f} %)"
        )
        return "\n".join(out)


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--python", type=int, default=600, help="how many of them")
    parser.add_argument("--c", type=int, default=150)
    parser.add_argument("--shim", type=int, default=0, help="mutants of the shim's C code")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds of tests for one mutant")
    parser.add_argument("--only", default="", help="a part of the file's name")
    parser.add_argument("--base", type=Path, default=BASE, help="the directory of the copy, the map and the results")
    parser.add_argument("--key", default="", help="certain mutants")
    parser.add_argument("--again", action="store_true", help="try survivors of before once more")
    parser.add_argument("--map", action="store_true", help="record what tests reach, and stop")
    parser.add_argument("--stale", action="store_true", help="take the map as it is")
    parser.add_argument(
        "--units", action="store_true", help="in Python, first unit tests of many mutants in one process"
    )
    options = parser.parse_args(argv)
    options.base = options.base.resolve()  # the processes in a sandbox change their directory
    options.end = time.monotonic() + options.seconds
    return options


def stale(mutants: list[Mutant]) -> list[str]:
    """Entries of equivalent.toml that match no mutant."""
    known = {mutant.key for mutant in mutants}
    words = "equivalent.toml has an entry whose lines have changed: "
    return [words + reason for key, reason in equivalents().items() if key not in known]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns 1 if fewer mutants are killed than `LEAST` requires."""
    options = parse(sys.argv[1:] if argv is None else argv)
    if os.geteuid() != 0:
        raise SystemExit("mutants run as root, in namespaces of their own")
    tree = Tree(options.base)
    tree.refresh()
    known = Map(tree)
    if not options.stale:
        known.record(options.jobs, options.end)
    if options.map:
        return 1 if known.stale() else 0
    runner = Runner(tree, known.load(), options.budget)
    results = Results(options.base / "results.jsonl")
    trials = []
    everything = wanted(options)
    if options.c:
        runner.warm()
    gc.collect()
    gc.freeze()
    for name, (mutants, count) in everything.items():
        if count:
            trials.append(Trial(name, mutants, count, results, options))
            trials[-1].run(runner)
    print("\n".join(trial.summary() for trial in trials))
    if not options.only and not options.key:
        print("\n".join(stale([mutant for mutants, _ in everything.values() for mutant in mutants])))
    return 1 if any(trial.score < LEAST[trial.name] for trial in trials) else 0


if __name__ == "__main__":
    sys.exit(main())
