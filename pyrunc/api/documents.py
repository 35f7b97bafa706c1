"""The problems and the plan of a configuration, without changing anything."""

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
    from pyrunc.api.types import Path
    from pyrunc.spec.types import Config

Argument = int | str | bytes | list[str]
"""An argument of a step: a number (flags, ids, descriptor slots), a string, a blob or a list of
strings."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a `Plan`.

    ``number`` counts from 1, as in the output of `pyrunc plan`. ``section`` is ``"ENTER"``,
    ``"SETUP"``, ``"FINISH"`` or ``"RUN"``; ``op`` is a name of native/plan.def such as ``"MOUNT"``;
    ``policy`` are the names of its policy bits. ``pointer`` is the JSON pointer of the field that
    the step comes from, or a word in brackets such as ``"(default device)"`` for steps that every
    container gets.
    """

    number: int
    section: str
    op: str
    arguments: Mapping[str, Argument]
    policy: tuple[str, ...]
    pointer: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a `create`. ``str()`` of it is the output of `pyrunc plan`.

    ``cgroup`` is the path inside the hierarchy, or "".
    """

    steps: tuple[Step, ...]
    cgroup: str
    warnings: tuple[str, ...]
    _plan: CompiledPlan
    _config: Config

    def __str__(self) -> str:
        return show.text(self._plan, self._config)

    def as_json(self) -> dict[str, Any]:  # JSON; a narrower type would break callers
        """The plan as JSON types: the content of `pyrunc plan --json`. Blobs are hexadecimal."""
        return dict(json.loads(json.dumps(show.as_json(self._plan, self._config))))

    def of(self, pointer: str) -> tuple[Step, ...]:
        """The steps that come from a field or from anything below it."""
        return tuple(
            step for step in self.steps if step.pointer == pointer or step.pointer.startswith(pointer.rstrip("/") + "/")
        )


def compiled(job: library.Create) -> Plan:
    """The plan of a job that is not executed. Raises ConfigError."""
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


def plan(bundle: Path = ".", *, config: Mapping[str, object] | Path | None = None) -> Plan:
    """The steps of a `create` with this bundle: `Runtime.plan` of ``Runtime()``.

    >>> import pyrunc
    >>> for step in pyrunc.plan(bundle).of("/hostname"):
    ...     print(step.op, step.arguments["name"])
    HOSTNAME demo
    """
    from pyrunc.api.runtime import Runtime

    return Runtime().plan(bundle, config=config)


class Problems(builtins.list[Problem]):
    """The problems of a configuration, in order; empty if there are none.

    ``warnings`` lists fields that would be ignored or applied differently; ``more`` counts the
    problems beyond the first hundred.
    """

    def __init__(self, problems: Iterable[Problem] = (), more: int = 0) -> None:
        super().__init__(problems)
        self.more = more
        self.warnings: builtins.list[Problem] = []


def validate(config: Mapping[str, object] | Path, *, on_this_host: bool = False) -> Problems:
    """All problems of a configuration: a dict, or the path of a config.json or a bundle.

    The rules are those of config.md and config-linux.md. ``on_this_host`` adds what this machine or
    user does not support. A problem has a ``pointer`` (RFC 6901), what was ``expected`` and
    ``found``, and a ``hint``, which may be ""; ``str()`` of it is one line. Nothing is changed.

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
