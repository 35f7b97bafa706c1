"""What `pyrunc.Runtime` asks of the rest of the package, as in test_steps.py. golden/api_runtime.txt has the
tables.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from pyrunc import state
from pyrunc.api import runtime
from pyrunc.errors import PyruncError, StateError, SysError
from test_session_steps import Row
from test_steps import Tables, World, calls_of, each, failed, rows


class Listing:
    """A store with a container, and one whose state cannot be used."""

    def __init__(self, problem: PyruncError | None) -> None:
        self.problem = problem

    def __enter__(self) -> Listing:
        return self

    def __exit__(self, *what: object) -> None:
        pass

    def list(self, broken: Callable[[PyruncError], None]) -> list[Any]:
        if self.problem is not None:
            broken(self.problem)
        return [SimpleNamespace(id="c1"), SimpleNamespace(id="c2")]


def of_runtime(name: str, *args: Any, own: str = "") -> Callable[[World], Any]:
    """A call of a method of a runtime; ``options`` of WITH are given by name."""

    def call(w: World) -> Any:
        messages = w.spy("messages", found=["w1"])
        w.answers |= {
            "library.Creation": w.spy("opts", messages=messages), "_creation": w.spy("opts", messages=messages),
            "library.Create": w.spy("job", pidfd=83, container=SimpleNamespace(data={"pid": 41, "starttime": 7})),
            "library.open_stdio": w.spy("stdio"), "_messages": messages, "create": w.spy("container"),
            "library.opened": Listing(w.extra.get("problem")),
        }  # fmt: skip
        one = w.made(runtime.Runtime, f"{name} {own}", root="/root", cgroup_manager="systemd", rootless="true",
                     on_warning="WARN")  # fmt: skip
        return getattr(one, name)(*args, **w.extra.get("options", {}))

    return call


given = partial(each, "options")  # a case for each set of options


def made(w: World) -> Any:
    """A new runtime."""
    one = runtime.Runtime(**w.extra["options"])
    return vars(one), repr(one)


STREAMS = {"stdin": 5, "stdout": 6, "stderr": 7}
CREATION = [
    {}, {"config": {"a": 1}}, {"config": "c.json"}, {"console_socket": "/s"}, {"pid_file": "/p"},
    {"pidfd_socket": "/f"}, {"no_pivot": True}, {"no_new_keyring": True},
]  # fmt: skip
RUNTIME: dict[str, Row] = {
    "init": (made, given(
        {}, {"root": "r", "on_warning": 5},
        *({"cgroup_manager": name} for name in ("cgroupfs", "systemd", "disabled", "v1")),
        *({"rootless": name} for name in ("auto", "true", "false", "yes")))),
    "messages": (of_runtime("_messages"), [{}]),
    "create": (of_runtime("create", "/b", "c1"), [
        *given({}, STREAMS), *given({}, **{"job.execute": failed(errno.EIO)}),
        *given({}, **{"job.execute": StateError("taken")}), *given({}, **{"state.check_id": PyruncError("bad")}),
    ]),
    "creation": (lambda w: of_runtime("_creation", "/b", "c1", w.extra["creation"], "STDIO")(w), [
        {"WITH": {"creation": options}} for options in CREATION
    ]),
    "run": (of_runtime("run", "/b", "c1"), [
        *given({}, {"no_pivot": True}), *given({}, **{"container.start": StateError("no")}),
        *given({}, **{"container.start": KeyboardInterrupt()}),
    ]),
    "get": (of_runtime("get", "c1"), [{}]),
    "list": (of_runtime("list"), [
        {"WITH": {"problem": problem}} for problem in (None, state.Damaged("damaged"), SysError("a", "read", 5))
    ]),
    "plan": (of_runtime("plan"), [
        *given({}, {"bundle": "/b", "config": {"a": 1}}), *given({}, **{"documents.compiled": failed(errno.EIO)}),
    ]),
}  # fmt: skip
COMMON: dict[str, Any] = {"fs.abspath": "/abs", "documents.compiled": "PLAN"}
TABLES: Tables = [("pyrunc.api.runtime", RUNTIME, COMMON, ("Container",))]


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("api_runtime", name, calls_of(module, name, TABLES))
