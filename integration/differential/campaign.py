"""A complete run: run cases on all runtimes, explain or keep every difference, count what was
drawn."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from integration.differential import compare, crun, deviations, generator, pool, reduce, refusals, runc
from integration.differential.compare import Difference
from integration.differential.entries import Deviation, explain
from integration.differential.model import Case

KEPT = 3  # cases kept for one kind of difference
LOOKS = 2  # repetitions of a case with an unexplained difference
OURS = (*refusals.PYRUNC, *deviations.ALL)
THEIRS = (*refusals.RUNC, *refusals.CRUN, *runc.ALL, *crun.ALL)
ENTRIES = (*OURS, *THEIRS)
Answer = dict[str, Any]


@dataclass
class Unexplained:
    """A difference that no deviation matches: the reduced case, and the command that shows it."""

    case: Case
    difference: Difference
    small: Case | None = None

    def text(self) -> str:
        """A description for the terminal."""
        kind, number, *_, seed = self.case.name.split()
        lines = [f"{self.difference.fact} in {self.case.name}, not as {' and '.join(self.difference.against)}"]
        lines += [f"    {name}: {value!r}" for name, value in self.difference.values.items()]
        option = "--sequence" if kind == "sequence" else "--case"
        lines.append(f"    again: python -m integration.differential {option} {number} --seed {seed} --show")
        small = self.small or self.case
        lines += [
            f"    {feature.kind}: {json.dumps(feature.edits)} {json.dumps(feature.caller)}"
            for feature in small.features
        ]
        lines.append(f"    {json.dumps(small.commands)}")
        return "\n".join(lines)


@dataclass
class Results:
    """The results of a run."""

    counts: Counter[str] = field(default_factory=Counter)  # cases by feature
    cases: Counter[str] = field(default_factory=Counter)  # cases by kind: config, sequence
    compared: int = 0  # number of facts
    matched: Counter[str] = field(default_factory=Counter)  # cases by deviation
    differences: Counter[str] = field(default_factory=Counter)  # alone, or by peer
    unexplained: list[Unexplained] = field(default_factory=list)
    passing: list[Unexplained] = field(default_factory=list)  # not reproduced
    errors: list[str] = field(default_factory=list)
    shapes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # of unexplained differences


def cases(seed: int, configs: int, sequences: int, first: int = 0) -> Iterator[Case]:
    """The first cases of a seed, of both kinds."""
    for kind, count in (("config", configs), ("sequence", sequences)):
        number = first
        while number < first + count:
            batch = generator.batch(seed, kind, number // generator.BATCH)
            wanted = batch[number % generator.BATCH :][: first + count - number]
            yield from wanted
            number += max(len(wanted), 1)


def unexplained(case: Case, answer: Answer, results: Results | None = None) -> list[Difference]:
    """The differences of one case that the entries do not explain for every peer. Counts into
    `results`."""
    left: list[Difference] = []
    matched: set[str] = set()
    for one in compare.differences(answer["facts"]):
        known = explain(case, one, ENTRIES, answer["said"])
        matched.update(entry.name for entry in known.values() if entry)
        if not all(known.values()):
            left.append(one)
        if results:
            results.differences["alone" if one.alone else " ".join(one.against)] += 1
    if results:
        results.compared += max((len(facts) for facts in answer["facts"].values()), default=0)
        results.matched.update(matched)
    return compare.first(left)


class Campaign:
    """Run cases and fill `results`."""

    def __init__(self, program: Path, peers: dict[str, str], jobs: int) -> None:
        self.program, self.peers, self.jobs = program, peers, jobs
        self.results = Results()
        self.reducing = True

    def run(self, todo: Iterable[Case], kept: TextIO | None = None) -> Results:
        """Run all cases, and write each answer to `kept`."""

        def answers() -> Iterator[tuple[Case, Answer]]:
            for case, answer in pool.answers(todo, self.program, self.peers, self.jobs):
                if kept:
                    kept.write(json.dumps([case.dump(), answer]) + "\n")
                    kept.flush()
                yield case, answer

        return self.judge(answers())

    def judge(self, answers: Iterable[tuple[Case, Answer]]) -> Results:
        """Explain the differences in these answers; run cases with unexplained ones again."""
        suspects: list[Case] = []
        for case, answer in answers:
            self.results.cases[case.name.partition(" ")[0]] += 1
            self.results.counts.update(set(case.kinds))
            if "error" in answer or unexplained(case, answer, self.results):
                suspects.append(case)
        worker = pool.Worker(self.program, self.peers)
        try:
            for case in sorted(suspects, key=lambda one: one.name):
                self._again(case, worker)
        finally:
            worker.close()
        return self.results

    def _again(self, case: Case, worker: pool.Worker) -> None:
        """Repeat the case. Differences that do not reappear depend on timing; the others are
        reduced."""
        left: list[Difference] = []
        for _ in range(LOOKS):
            answer = worker.ask(case)
            if "error" in answer:
                self.results.errors.append(f"{case.name}: {answer['error']}")
                return
            left = unexplained(case, answer)
            if not left:
                self.results.passing.append(Unexplained(case, Difference("(nothing again)", {}, ())))
                return
        for one in left:
            shapes = self.results.shapes[" ".join(one.against)]
            shapes[one.shape] += 1
            entry = Unexplained(case, one)
            if shapes[one.shape] <= KEPT:
                self.results.unexplained.append(entry)
            if self.reducing and shapes[one.shape] == 1:
                entry.small = reduce.reduce(case, lambda small, one=one: self._shows(small, one, worker))  # type: ignore[misc]

    @staticmethod
    def _shows(case: Case, wanted: Difference, worker: pool.Worker) -> bool:
        answer = worker.ask(case)
        if "error" in answer:
            return False
        return any((one.shape, one.against) == (wanted.shape, wanted.against) for one in unexplained(case, answer))


def kept(lines: Iterable[str]) -> Iterator[tuple[Case, Answer]]:
    """The answers that a run has kept."""
    for line in lines:
        case, answer = json.loads(line)
        yield Case.load(case), answer


def silent(results: Results) -> list[Deviation]:
    """Deviations that no case matched."""
    return [one for one in ENTRIES if not results.matched[one.name]]
