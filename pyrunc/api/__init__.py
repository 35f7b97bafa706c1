"""The Python API of pyrunc; ``import pyrunc`` has all of these names, and loads this package when
one is used.

    import pyrunc

    runtime = pyrunc.Runtime()
    with runtime.run("bundle", "demo") as container:
        print(container.call(["/bin/hostname"]).stdout)

It does what the verbs do, by the same code, in the calling program's process: docs/api.md.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pyrunc.plan  # noqa: F401
from pyrunc.api.container import Container, ExecOptions
from pyrunc.api.documents import Argument, Plan, Problems, Step, plan, validate
from pyrunc.api.programs import Completed, Process, ProgramFailed
from pyrunc.api.runtime import CreateOptions, Runtime
from pyrunc.api.stdio import DEVNULL, INHERIT, PIPE, STDOUT
from pyrunc.api.types import Event, Resources, State, Stats
from pyrunc.errors import Busy, ConfigError, Damaged, NotFound, Problem, PyruncError, StateError, SysError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyrunc.api.aio import AsyncContainer, AsyncProcess, AsyncRuntime
    from pyrunc.api.types import Path

__all__ = [
    "DEVNULL", "INHERIT", "PIPE", "STDOUT", "Argument", "AsyncContainer", "AsyncProcess", "AsyncRuntime", "Busy",
    "Completed", "ConfigError", "Container", "CreateOptions", "Damaged", "Event", "ExecOptions", "NotFound", "Plan",
    "Problem", "Problems", "Process", "ProgramFailed", "PyruncError", "Resources", "Runtime", "State",
    "StateError", "Stats", "Step", "SysError", "UsageError", "plan", "validate",
]  # fmt: skip


class _Callable(ModuleType):
    """``pyrunc.plan`` is also the compiler's package; importing it would hide the function of
    that name."""

    def __call__(self, bundle: Path = ".", *, config: Mapping[str, object] | Path | None = None) -> Plan:
        return plan(bundle, config=config)


sys.modules["pyrunc.plan"].__class__ = _Callable


def __getattr__(name: str) -> Any:  # classes
    """Names that need asyncio."""
    if name.startswith("Async") and name in __all__:
        from pyrunc.api import aio

        return getattr(aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
