"""What can be known of a configuration without touching anything: its problems, and the plan."""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyrunc import fs, host
from pyrunc.api import library
from pyrunc.errors import ConfigError, Problem
from pyrunc.plan import Plan as CompiledPlan
from pyrunc.plan import show
from pyrunc.spec import load
from pyrunc.spec import validate as validation

if TYPE_CHECKING:
    from pyrunc.api.runtime import Path

Argument = int | str | bytes | list[str]
"""An argument of a step: a number (flags, ids, descriptor slots), a text, a blob or a list of texts."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a `Plan`.

    ``number`` counts from 1, as in the listing of `pyrunc plan`.  ``section`` is ``"ENTER"``,
    ``"SETUP"``, ``"FINISH"`` or ``"RUN"``; ``op`` is a name of native/plan.def such as ``"MOUNT"``;
    ``policy`` are the names of its policy bits.  ``pointer`` is the JSON pointer of the field that the
    step comes from, or a word in brackets, as ``"(default device)"``, for what every container gets.
    """

    number: int
    section: str
    op: str
    arguments: Mapping[str, Argument]
    policy: tuple[str, ...]
    pointer: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What `create` would do.  ``str()`` of it is the listing of `pyrunc plan`.

    ``cgroup`` is the path inside the hierarchy, "" for none.
    """

    steps: tuple[Step, ...]
    cgroup: str
    warnings: tuple[str, ...]
    _plan: CompiledPlan
    _config: Mapping[str, Any]

    def __str__(self) -> str:
        return show.text(self._plan, self._config)

    def as_json(self) -> dict[str, Any]:
        """All of it in what JSON has: what `pyrunc plan --json` prints.  Blobs are hexadecimal."""
        found: dict[str, Any] = json.loads(json.dumps(show.as_json(self._plan, self._config)))
        return found

    def of(self, pointer: str) -> tuple[Step, ...]:
        """The steps that come from a field or what is below it."""
        return tuple(
            step for step in self.steps if step.pointer == pointer or step.pointer.startswith(pointer.rstrip("/") + "/")
        )


def compiled(job: library.Create) -> Plan:
    """The plan of a job that is not carried out.  Raises ConfigError."""
    job.prepare(for_show=True)
    found = show.as_json(job.plan, job.config)
    steps = tuple(
        Step(
            step["step"],
            step["section"],
            step["op"],
            show.arguments(job.plan, index),
            tuple(step["policy"]),
            step["origin"],
        )
        for index, step in enumerate(found["steps"])
    )
    return Plan(steps, job.plan.cgroup_path, tuple(found["warnings"]), job.plan, job.config)


def plan(bundle: Path = ".", *, config: Mapping[str, Any] | Path | None = None) -> Plan:
    """What `create` would do with a bundle: `Runtime.plan` of ``Runtime()``.

    >>> import pyrunc
    >>> for step in pyrunc.plan(bundle).of("/hostname"):
    ...     print(step.op, step.arguments["name"])
    HOSTNAME demo
    """
    from pyrunc.api.runtime import Runtime

    return Runtime().plan(bundle, config=config)


class Problems(builtins.list[Problem]):
    """The problems of a configuration, in order; empty when there are none.

    ``warnings`` is what would be carried out differently from what the configuration says; ``more`` counts the
    problems beyond the first hundred.
    """

    def __init__(self, problems: Iterable[Problem] = (), more: int = 0) -> None:
        super().__init__(problems)
        self.more = more
        self.warnings: builtins.list[Problem] = []


def validate(config: Mapping[str, Any] | Path, *, on_this_host: bool = False) -> Problems:
    """All problems of a configuration (config.md, config-linux.md), a dict or the path of a config.json or bundle.

    ``on_this_host``: also what this machine and user cannot do.  A problem has a ``pointer`` (RFC 6901), what was
    ``expected`` and ``found``, and a ``hint``, "" for none; ``str()`` of it is one line.  Nothing is touched.

    >>> import pyrunc
    >>> for problem in pyrunc.validate({"ociVersion": "1.0.0", "root": {"path": ""}, "mounts": [{"type": "proc"}]}):
    ...     print(problem)
    /mounts/0/destination: expected string, found nothing
    /root/path: expected a directory other than /, found string ""
    """
    try:
        if isinstance(config, Mapping):
            document, _ = library.parse_config(config)
        else:
            path = os.fspath(config)
            document, _ = load.load_config(fs.join(path, "config.json") if os.path.isdir(path) else path)
        warnings = validation.check(document, facts=host.snapshot() if on_this_host else None)
    except load.Unreadable:
        raise
    except ConfigError as error:
        return Problems(error.problems, error.more)
    except OSError as error:
        raise library.as_error(error) from error
    clean = Problems()
    clean.warnings = list(warnings)
    return clean
