"""Commands that only read exit with 0 only if the answer is complete; `delete --force` handles
damaged states."""

from __future__ import annotations

import json
from pathlib import Path

from integration.faults.points import Point
from integration.faults.scenes import Create, Delete, Inside, Kill, Outcome, Scene


class Reading(Inside):
    """A command about one running container that prints a text."""

    words: tuple[str, ...] = ()  # in every correct answer

    def output(self) -> Path:
        return self.sandbox.path / "reading.out"

    def arguments(self) -> list[str]:
        """Verb, options and arguments."""
        raise NotImplementedError

    def command(self) -> list[str]:
        self.output().write_text("")
        return self.argv(*self.arguments())

    def judge(self, point: Point, done: Outcome) -> list[str]:
        if done.rc != 0:
            return self.spoke(done) if point.error else []
        found = self.output().read_text()
        missing = [word for word in self.wanted() if word not in found]
        return [f"exit 0, but {missing} is not in {found[:300]!r}"] if missing else []

    def wanted(self) -> list[str]:
        """The words that every correct answer contains."""
        return list(self.words)


class List(Reading):
    """`list`: exit 0 only with every container."""

    name = "list"

    def arguments(self) -> list[str]:
        return ["list"]

    def wanted(self) -> list[str]:
        return [self.one.id, str(self.one.pid), "running"]


class ListIds(List):
    """`list -q`."""

    name = "list-ids"

    def arguments(self) -> list[str]:
        return ["list", "--quiet"]

    def wanted(self) -> list[str]:
        return [f"{self.one.id}\n"]


class Stats(Reading):
    """`events --stats`."""

    name = "stats"
    words = ('"type":"stats"', '"pids":{"current":1', '"hugetlb"')

    def arguments(self) -> list[str]:
        return ["events", "--stats", self.one.id]


class Features(Reading):
    """`features`, on which engines rely."""

    name = "features"
    words = ('"SCMP_ARCH_X86"', '"SECCOMP_FILTER_FLAG_TSYNC"', '"tmpcopyup"')

    def arguments(self) -> list[str]:
        return ["features"]


class Plan(Reading):
    """`plan --json`."""

    name = "plan"
    words = ('"EXECVE"', '"/process')

    def arguments(self) -> list[str]:
        return ["plan", "--json", "--bundle", str(self.one.bundle.path)]


class Version(Reading):
    """`--version`."""

    name = "version"
    words = ("pyrunc version", "libseccomp: ")

    def arguments(self) -> list[str]:
        return ["--version"]


class DeleteDamaged(Delete):
    """`delete --force` with a damaged state.json: intent.json lists what to remove."""

    name = "delete-damaged"

    def before(self) -> None:
        super().before()
        self.damage(self.sandbox.root / self.one.id)

    def damage(self, directory: Path) -> None:
        """Damage the state."""
        (directory / "state.json").write_bytes(b"\0" * 100)


class DeleteLost(DeleteDamaged):
    """`delete --force` if only the pid is left: the process identifies the cgroup."""

    name = "delete-lost"

    def damage(self, directory: Path) -> None:
        data = json.loads((directory / "state.json").read_text())
        del data["cgroup"]
        (directory / "state.json").write_text(json.dumps(data))
        (directory / "intent.json").unlink()
        config = json.loads((directory / "config.json").read_text())
        del config["linux"]["cgroupsPath"]
        (directory / "config.json").write_text(json.dumps(config))


LARGE = {"/annotations": {f"key {number}": "x" * 100 for number in range(50_000)}}


class KillLarge(Kill):
    """`kill` with a state so large that it may not fit in memory."""

    name = "kill-large"
    edits = LARGE
    kinds = frozenset(("space",))


class ListLarge(List):
    """`list` with such a state."""

    name = "list-large"
    edits = LARGE
    kinds = frozenset(("space",))


class DeleteLarge(Delete):
    """`delete --force` with such a state."""

    name = "delete-large"
    edits = LARGE
    kinds = frozenset(("space",))


class CreateLarge(Create):
    """`create` of such a container."""

    name = "create-large"
    edits = LARGE
    kinds = frozenset(("space",))


ALL: tuple[type[Scene], ...] = (
    List, ListIds, Stats, Features, Plan, Version, DeleteDamaged, DeleteLost, KillLarge, ListLarge, DeleteLarge,
    CreateLarge,
)  # fmt: skip
