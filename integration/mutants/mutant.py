"""A single source change, its identity, and how dangerous it would be if no test detected it."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# The danger of each kind of mistake.
KINDS = {
    "check dropped": 4, "flag dropped": 4, "order": 4, "error swallowed": 4,
    "statement dropped": 3, "handler dropped": 3, "argument dropped": 3, "condition negated": 3, "operand dropped": 3,
    "comparison": 2, "and/or": 2, "operator": 2, "call dropped": 2, "element dropped": 2, "result dropped": 2,
    "constant": 1, "slice": 1, "loop": 1,
}  # fmt: skip
# The distance of a file from the boundary between container and host; 3 for files not listed.
FILES = {
    "native/init/path.c": 10, "native/init/cred.c": 10, "native/init/mask.c": 9, "native/init/pivot.c": 9,
    "native/init/device.c": 9, "native/init/mount.c": 9, "native/init/main.c": 8, "native/init/enter.c": 8,
    "native/init/seccomp.c": 8, "native/init/lsm.c": 8, "native/init/plan_load.c": 8, "native/init/hook.c": 7,
    "native/init/console.c": 7, "native/init/source.c": 7, "native/init/run.c": 7, "native/init/copyup.c": 6,
    "native/init/uts.c": 6, "native/init/lookup.c": 5, "native/init/fsapi.c": 9,
    "pyrunc/launch/session.py": 8, "pyrunc/launch/exec.py": 8, "pyrunc/launch/create.py": 8,
    "pyrunc/state/container.py": 8,
    "pyrunc/launch/run.py": 8, "pyrunc/launch/spawn.py": 8, "pyrunc/launch/channel.py": 8, "pyrunc/launch/ending.py": 8,
    "pyrunc/seccomp.py": 7, "pyrunc/idmap.py": 7, "pyrunc/hooks.py": 7,
    "pyrunc/cgroup/devices.py": 8, "pyrunc/cgroup/tree.py": 6,
    "pyrunc/cgroup/cgroupfs.py": 6, "pyrunc/cgroup/delegate.py": 6, "pyrunc/plan/mounts.py": 7,
    "pyrunc/plan/mount_options.py": 7, "pyrunc/plan/process.py": 7,
    "pyrunc/plan/security.py": 7, "pyrunc/plan/create.py": 8, "pyrunc/plan/exec.py": 8,
    "pyrunc/plan/userns.py": 7, "pyrunc/plan/namespaces.py": 7,
    "pyrunc/container/lifecycle.py": 6, "pyrunc/launch/undo.py": 6, "pyrunc/fs.py": 6, "pyrunc/launch/rootless.py": 6,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A change that replaces ``source[start:end]`` by ``text``."""

    file: str  # relative to the checkout
    scope: str  # the function or class, "" at module level
    kind: str  # of KINDS
    start: int
    end: int
    text: str
    source: str

    @property
    def line(self) -> int:
        """The line number of the change, from 1."""
        return self.source.count("\n", 0, self.start) + 1

    @property
    def last_line(self) -> int:
        """The last line of the replaced text."""
        return self.source.count("\n", 0, max(self.start, self.end - 1)) + 1

    @cached_property
    def changed(self) -> str:
        """The complete text of the changed file."""
        return self.source[: self.start] + self.text + self.source[self.end :]

    @cached_property
    def lines(self) -> tuple[str, str]:
        """The changed lines, before and after, each joined into one line without indentation."""
        begin = self.source.rfind("\n", 0, self.start) + 1
        stop = self.source.find("\n", self.end)
        stop = len(self.source) if stop < 0 else stop
        after = self.source[begin : self.start] + self.text + self.source[self.end : stop]
        return squeeze(self.source[begin:stop]), squeeze(after)

    @cached_property
    def key(self) -> str:
        """The mutant's identity, which does not depend on line numbers."""
        before, after = self.lines
        text = "\0".join((self.file, self.scope, before, after))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def danger(self) -> int:
        """The danger by which survivors are sorted, the worst first."""
        return KINDS[self.kind] * FILES.get(self.file, 3)

    def __str__(self) -> str:
        before, after = self.lines
        return f"{self.file}:{self.line} {self.scope} [{self.kind}] {self.key}\n  - {before}\n  + {after}"


def squeeze(text: str) -> str:
    """Replace each run of whitespace with a single space."""
    return " ".join(text.split())


def unique(mutants: Iterable[Mutant]) -> list[Mutant]:
    """Drop no-op mutants and duplicates: those that change the same lines of the same function in
    the same way."""
    found: dict[str, Mutant] = {}
    for mutant in mutants:
        if mutant.lines[0] != mutant.lines[1]:
            found.setdefault(mutant.key, mutant)
    return list(found.values())


def equivalents(path: Path = HERE / "equivalent.toml") -> dict[str, str]:
    """Map the keys of mutants that behave like the original to reasons.

    An entry identifies content: the file, the function, and the lines before and after. It becomes
    stale when one of them changes.
    """
    found = {}
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("equivalent", []):
        text = "\0".join((entry["file"], entry["scope"], squeeze(entry["before"]), squeeze(entry["after"])))
        found[hashlib.sha256(text.encode()).hexdigest()[:12]] = entry["reason"]
    return found
