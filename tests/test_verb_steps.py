"""What each command does with each of its options: the calls, with the option and without it.
golden/verb_steps.txt has the tables (PYRUNC_UPDATE_GOLDEN=1 rewrites them; then review the diff).
"""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc import cli, command
from spies import Spy

# Commands whose work is in their module, which other tests cover.
OTHERS = {"doctor", "features", "images", "plan", "seccomp", "spec", "trace"}
VALUES: dict[str, Any] = {"str": "/text", "int": 3, "bool": True, "multi": ["one", "two"]}
LATE = ["pyrunc.checkpoint.dump", "pyrunc.checkpoint.restore", "pyrunc.image.launch"]
ANSWERS: dict[str, Any] = {
    "state.Store().list": [], "state.Store().exists": True, "events.open_all": ([], []), "command.out": 0,
        "exec.execute": 7,
    "processes.pids": ([5], ""), "events.duration": 5.0, "posix.pipe": (5, 6), "fs.read_fd": b"PID\n5\n",
        "restore.restored": 8,
    "posix.environ": {}, "posix.waitpid": (0, 0), "posix.waitstatus_to_exitcode": 0, "run.run": 9,
        "launch.launched": 10,
        "fs.abspath": "/abs",
    "state.Store().open().report": {"id": "c1"},
}  # fmt: skip
MORE: dict[str, list[tuple[dict[str, Any], list[str]]]] = {
    "exec": [({"process": "p.json"}, ["c1"]), ({}, ["c1"]), ({"tools": "relative"}, ["c1", "sh"])],
    "kill": [({}, ["c1"]), ({}, ["c1", "9"]), ({"all": True}, ["c1", "HUP"]), ({}, ["c1", "NO"])],
    "list": [({"format": format}, []) for format in ("table", "json")] + [({"quiet": True, "format": "json"}, [])],
    "ps": [({"format": format}, ["c1", "-o", "pid"]) for format in ("table", "json")],
    "events": [
        ({"format": "table"}, ["c1"]), ({"format": "table", "stats": True}, ["c1"]), ({"format": "json",
            "stats": True}, ["a"]),
    ],
    "run": [({"image": "i"}, ["c1", "sh"])],
    "create": [({"image": "i"}, ["c1", "sh"])],
}  # fmt: skip


def calls(verb: str, values: dict[str, Any], args: list[str]) -> list[str]:
    """What a command calls with these options and arguments."""
    notes: list[str] = []
    answers = dict(ANSWERS)
    with pytest.MonkeyPatch.context() as patch:
        module = spies.replace(patch, f"pyrunc.verbs.{verb}", notes, answers, late=LATE)
        context: Any = Spy("context", notes, answers, root="/root", log=Spy("log", notes, answers))
        lines = spies.record(module.main, (context, values, args), notes)
    return [f"case {spies.told(values)} {args}", *lines]


@pytest.mark.parametrize("verb", [verb for verb in cli.VERBS if verb not in OTHERS])
def test_what_a_command_does_with_its_options(verb: str) -> None:
    flags = importlib.import_module(f"pyrunc.verbs.{verb}").FLAGS
    args = ["c1", "a", "b"][: {"exec": 3, "mounts": 3, "unpack": 2}.get(verb, 1)]
    cases: list[tuple[dict[str, Any], list[str]]] = [({}, args)]
    cases += [({flag[0]: VALUES[flag[3]]}, args) for flag in flags]
    cases += MORE.get(verb, [])
    transcript.compare("verb_steps", verb, [line for case in cases for line in calls(verb, *case)])


@pytest.mark.parametrize("verb", ["create", "run"])
def test_options_that_become_those_of_a_session(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "posix", SimpleNamespace(getcwd=lambda: "/here"))
    context: Any = SimpleNamespace(root="/root", cgroup_manager="systemd", rootless="true", log=None)
    make = command.create_options if verb == "create" else command.run_options
    before = spies.state_of(make(context, "c1", {}))
    lines = [f"{name} = {value}" for name, value in before.items()]
    for name, _, _, kind, _ in importlib.import_module(f"pyrunc.verbs.{verb}").FLAGS:
        made = make(context, "c1", {name: VALUES[kind]})
        lines += [f"--{name}: {line}" for line in spies.attributes(made, before)]
    transcript.compare("verb_steps", f"options of {verb}", lines)
