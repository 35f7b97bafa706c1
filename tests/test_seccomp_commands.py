"""What the commands of `pyrunc seccomp` ask of the other modules, and what they print, as in
test_steps.py. golden/seccomp_commands.txt has the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc.errors import PyruncError
from pyrunc.seccomp_tools import commands, trace
from test_session_steps import Row
from test_steps import Tables, World, calls_of, each, rows

LATE = [f"pyrunc.seccomp_tools.{name}" for name in ("explain", "check", "profile", "record", "trace")]
ALL: dict[str, Any] = {
    "command.out": 0, "posix.getpid": 77, "command.run_options": SimpleNamespace(bundle="/b"),
    "fs.join": "/b/config.json", "profile.read": ({"defaultAction": "A"}, "/linux/seccomp", "config.json"),
    "trace.create": 9, "record.earlier": "EARLIER", "explain.lines": ["first", "second"],
    "explain.summary_lines": ["default", "rest"], "explain.filter_default": "SCMP_ACT_ALLOW",
}  # fmt: skip
# What the methods of new objects return.
OBJECTS: dict[str, Any] = {
    "explain.Summary().as_json": {"arch": "X"}, "trace.Tracer().run": 5, "trace.Printer().summary": "SUMMARY",
    "record.Recorder().calls": {"a": 1}, "record.Recorder().profile": {"defaultAction": "D"},
}  # fmt: skip
STOPPED = {"trace.Tracer().run": PyruncError("no")}


class Entry:
    """An answer or a finding."""

    called = "row"

    def __init__(self, level: str) -> None:
        self.level = level

    def as_json(self) -> dict[str, str]:
        return {"level": self.level}

    def __str__(self) -> str:
        return f"{self.level}: text"


def command(name: str) -> Callable[[World], Any]:
    """A call of a command with options and arguments."""

    def call(w: World) -> Any:
        filter = w.spy("filter", source="p.json", arches=["A", "B"])
        w.answers |= {"profile.open_filter": filter, "profile.Filter": filter} | OBJECTS | w.extra.get("objects", {})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trace, "Tracer", spies.noting("trace.Tracer", w.notes, w.answers))
            return getattr(commands, name)(w.spy("context"), w.extra.get("values", {}), w.extra.get("args", ["p"]))

    return call


given = partial(each, "values")  # a case for each set of options
NO_PROFILE = (None, "/linux/seccomp", "config.json")
FOUND = [Entry("problem"), Entry("note"), Entry("problem")]
COMMANDS: dict[str, Row] = {
    "explain": (command("explain"), [
        {"WITH": {"values": values, "args": args}, "explain.answers": [Entry("a")]}
        for values in ({}, {"json": True}) for args in (["p"], ["p", "read"], ["p", "read", "write"])
    ]),
    "check": (command("check"), [
        *given({}, {"json": True}, {"libc": "musl"}, **{"check.findings": FOUND}),
        *given({}, {"json": True}, **{"check.findings": []}), *given({}, **{"check.findings": [Entry("note")]}),
        *given({}, **{"check.findings": PyruncError("no")}),
    ]),
    "options": (lambda w: commands.options(w.spy("context"), w.extra["values"]), given({}, {"bundle": "/b", "x": 1})),
    "trace": (command("trace"), [
        *given({}, {"json": True, "output": "/o"}, {"denied": True}, {"bundle": "/c", "output": "/o"}),
        *given({}, {"denied": True}, **{"profile.read": NO_PROFILE}), {"WITH": {"objects": STOPPED}},
    ]),
    "record": (command("record"), [
        *given({}, {"json": True}, {"output": "/o"}, {"output": "/o", "json": True}),
        {"WITH": {"values": {"output": "/o"}, "objects": STOPPED}},
    ]),
}  # fmt: skip
TABLES: Tables = [("pyrunc.seccomp_tools.commands", COMMANDS, ALL, ())]


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("seccomp_commands", name, calls_of(module, name, TABLES, LATE))
