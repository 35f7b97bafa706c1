"""What the Python API asks of the rest of the package, as in test_steps.py. golden/api_steps.txt has the
tables.
"""

from __future__ import annotations

import asyncio
import errno
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc import state
from pyrunc.api import aio, children, container, library, programs
from pyrunc.errors import PyruncError, StateError, SysError, UsageError
from pyrunc.launch import create, session
from pyrunc.launch import exec as execution
from spies import Answers, alone
from test_session_steps import Row
from test_steps import Tables, World, calls_of, failed, rows

# -- a container -----------------------------------------------------------------------------------

REPORT = {"ociVersion": "1.2", "id": "c1", "status": "running", "pid": 41, "bundle": "/b", "rootfs": "/r", "created":
          "now"}  # fmt: skip


class Process(SimpleNamespace):
    """A process that was started."""

    called = "process"


def of_container(name: str, *args: Any, own: str = "", **more: Any) -> Callable[[World], Any]:
    """A call of a method of a container; ``options`` of WITH are given by name."""

    def call(w: World) -> Any:
        runtime = w.spy("runtime", root="/root")
        child = w.spy("child", returncode=7) if w.extra.get("child") else None
        one = w.made(container.Container, f"{name} _opened _locked {own}", runtime=runtime, id="c1", _child=child)
        w.answers["library.opened().open"] = w.container
        w.answers.setdefault("library.Execute", w.spy("job", pidfd=83, init_pid=41, wanted={"args": ["sh", "-c"]}))
        w.answers["exec"] = w.spy("process")
        w.answers["library.open_stdio"] = w.spy("stdio")
        w.answers["process.complete"] = Process(returncode=w.extra.get("status", 0), args=("sh",), stderr=b"")
        w.answers.setdefault("_watched", child)
        found = getattr(one, name)
        found = found(*args, **more, **w.extra.get("options", {})) if callable(found) else found
        found = vars(found) if isinstance(found, programs.Process | library.Execution) else found
        return list(found) if hasattr(found, "__next__") else found, one._child

    return call


def given(options: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A case with options."""
    return {"WITH": {"options": options, **more}}


OPTIONS: list[dict[str, Any]] = [
    {}, {"cwd": "/w", "user": "5:6", "apparmor": "p", "selinux_label": "l", "no_new_privileges": True, "tty": True},
    {"env": {"A": "b", "C": "d"}}, {"capabilities": ("CAP_KILL",)}, {"groups": [5, 6]}, {"process": {"cwd": "/"}},
    {"cgroup": "sub"}, {"cgroup": ""}, {"ignore_paused": True}, {"tools": "/t"}, {"tools": "t"}, {"tools": ""},
    {"console_socket": "/s"}, {"pid_file": "/p"},
]  # fmt: skip
CONTAINER: dict[str, Any] = {
    "container.report": REPORT, "processes.pids": ([5, 6], "x"), "happenings.measure": {"data": {"cpu": 1}},
    "happenings.watch": [{"type": "oom", "id": "c1"}, {"type": "stats", "id": "c1", "data": {"cpu": 1}}],
    "_execution": "OPTS", "stdio.take": (1, 2, 3), "signals.number": 15, "library.to_json": b"json", "_find_child":
    None, "updates.parse": {"cpu": {}}, "added_mounts.parse": ["m"], "children.known": None, "child.wait": True,
    "child.poll": True,
}  # fmt: skip
METHODS: dict[str, Row] = {
    "state": (of_container("state"), [{}, {"container.report": REPORT | {"annotations": {"a": "b"}}},
                                      {"container.report": REPORT | {"annotations": None}}]),
    "processes": (of_container("processes"), [{}]),
    "stats": (of_container("stats"), [{}]),
    "events": (of_container("events"), [{}, *(given({"interval": number}) for number in (0, -1, 0.5))]),
    "start": (of_container("start"), [{}, {"lifecycle.start": StateError("no")}]),
    "exec": (of_container("exec"), [
        {**given({"args": args, **options}), **more}
        for args, options, more in (
            (["sh"], {}, {}), ([], {}, {}), (["sh"], {"process": {}}, {}), ([], {"process": {"cwd": "/"}}, {}),
            ("sh", {}, {}), (["sh"], {"stdin": 5, "stdout": 6, "stderr": 7}, {}), (["sh"], {},
                {"job.execute": failed(errno.EIO)}), (["sh"], {}, {"job.execute": StateError("paused")}))
    ]),
    "execution": (of_container("_execution", ["sh"]), [
        {"WITH": {"options": {"options": options, "stdio": "STDIO"}}} for options in OPTIONS
    ]),
    "call": (of_container("call", ["sh"]), [
        given(options, status=status)
        for options, status in (
            ({}, 0), ({"input": b"x", "timeout": 3.0}, 0), ({"check": True}, 0), ({"check": True}, 5), ({}, 5),
            ({"stdin": 5, "stdout": 6, "stderr": 7}, 0))
    ]),
    "kill": (of_container("kill"), [{}, *(given(options) for options in (
        {"signal": 9}, {"signal": "HUP", "all": True}, {"signal": signal.SIGUSR1}))]),
    **{name: (of_container(name), [{}]) for name in ("pause", "resume")},
    "update": (of_container("update", {"cpu": {}}), [{}]),
    "add_mounts": (of_container("add_mounts", ({"destination": "/d"},)), [{}]),
    "remove_mounts": (of_container("remove_mounts", ({"destination": "/d"},)), [{}]),
    "delete": (of_container("delete"), [
        {"WITH": {"options": {"force": force}, "child": child}, "child.poll": ended, **more}
        for force, child, ended, more in (
            (False, False, True, {}), (True, True, True, {}), (True, True, False, {}),
            (False, True, True, {"lifecycle.delete": StateError("runs")}))
    ]),
    "find_child": (of_container("_find_child"), [{"_watched": error} for error in (None, StateError("lost"), SysError(
        "a", "b", 5))]),
    "returncode": (of_container("returncode"), [{"WITH": {"child": child}} for child in (True, False)]),
    "wait": (of_container("wait"), [
        {"WITH": {"child": child, "options": {"timeout": timeout}}, "child.wait": ended}
        for child, timeout, ended in ((False, None, True), (True, None, True), (True, 0.5, False))
    ]),
    "watched": (of_container("_watched"), [
        {"WITH": {"child": True}}, {"DATA": {"starttime": 7}}, {}, {"children.known": "CHILD"},
    ]),
    "pid": (of_container("pid"), [{"state": SimpleNamespace(pid=41)}]),
    "enter": (of_container("__enter__"), [{}]),
    "exit": (of_container("__exit__", None, None, None), [{}]),
    "repr": (of_container("__repr__"), [{}]),
}  # fmt: skip

# -- for asyncio -----------------------------------------------------------------------------------


class Held(SimpleNamespace):
    """The module asyncio with a noted timeout()."""


def patched(w: World, patch: pytest.MonkeyPatch, names: str) -> None:
    """Replace coroutines; the calls for a thread happen at once, and are undone."""

    async def finished(call: Callable[[], Any], undo: Callable[[Any], object] | None = None) -> Any:
        found = call()
        if undo is not None:
            w.notes.append("undo:")
            undo(found)
        return found

    def coroutine(name: str) -> Callable[..., Any]:
        async def call(*args: Any) -> Any:
            return spies.noting(name, w.notes, w.answers)(*args)

        return call

    class Timeout:
        def __init__(self, seconds: float) -> None:
            w.notes.append(f"timeout({seconds})")

        async def __aenter__(self) -> None:
            pass

        async def __aexit__(self, *what: object) -> None:
            pass

    for name in names.split():
        patch.setattr(aio, name, finished if name == "_finished" else coroutine(name))
    patch.setattr(aio, "asyncio", Held(**vars(asyncio) | {"timeout": Timeout}))


def waited(call: Callable[[World], Any], names: str = "_finished _communicate _ended _readable") -> Callable[..., Any]:
    """The result of a coroutine, or the items of an asynchronous iterator."""

    async def of(w: World) -> Any:
        found = call(w)
        if hasattr(found, "__anext__"):
            return [item async for item in found]
        found = await found
        kinds = aio.AsyncProcess | aio.AsyncContainer
        return vars(found) if isinstance(found, kinds) else [
            vars(one) for one in found] if isinstance(found, list) else found  # fmt: skip

    def run(w: World) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patched(w, patch, names)
            return asyncio.run(of(w))

    return run


def asked(name: str, *args: Any, **more: Any) -> Callable[..., Any]:
    """A coroutine of a container."""

    def call(w: World) -> Any:
        process = w.spy("process", args=("sh",), _child="CHILD", stdin=1, stdout=2, stderr=3)
        w.answers["container.exec"] = process
        w.answers["process.wait"] = w.extra.get("status", 0)
        w.answers["library.opened().open"] = "FOUND"
        w.answers["happenings.Watch"] = w.spy("watch", pidfd=5, fd=w.extra.get("fd", 6), container="CONTAINER")
        inner = w.spy("container", id="c1", runtime=w.spy("runtime", root="/root"))
        one = aio.AsyncContainer(inner)
        w.notes.clear()
        return getattr(one, name)(*args, **more, **w.extra.get("options", {}))

    return waited(call)


def of_process(name: str, *args: Any) -> Callable[..., Any]:
    """A coroutine of a process."""
    return waited(lambda w: getattr(aio.AsyncProcess(w.spy("process", _child="CHILD")), name)(*args))


def of_runtime(name: str, *args: Any) -> Callable[..., Any]:
    """A coroutine of a runtime."""

    def call(w: World) -> Any:
        w.answers["Runtime"] = w.spy("runtime")
        w.answers["runtime.list"] = [w.spy("c1"), w.spy("c2")]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(aio, "Runtime", spies.noting("Runtime", w.notes, w.answers))
            one = aio.AsyncRuntime("/root", rootless="true")
        return getattr(one, name)(*args, **w.extra.get("options", {}))

    return waited(call)


CHILD: Any = "CHILD"
ASYNC: dict[str, Any] = {
    "container._watched": None, "_communicate": (b"out", b"err"), "watch.news": Answers([[{"type": "oom", "id": "c1"}],
        []]), "happenings.ended": Answers([False, False, True]), "time.monotonic": Answers([0.0, 1.0, 5.0, 6.0, 11.0]),
    "happenings.sample": [{"type": "stats", "id": "c1", "data": {"cpu": 1}}],
}  # fmt: skip
AIO: dict[str, Row] = {
    **{name: (asked(name), [{}]) for name in ("state", "stats", "processes", "start", "pause", "resume")},
    "exec": (asked("exec", ["sh"]), [{}, given({"cwd": "/"})]),
    "call": (asked("call", ["sh"]), [
        given(options, status=status)
        for options, status in (
            ({}, 0), ({"input": b"x"}, 0), ({"check": True}, 0), ({"check": True}, 5), ({}, 5),
            ({"stdin": 5, "stdout": 6, "stderr": 7}, 0))
    ]),
    "kill": (asked("kill"), [{}, given({"signal": "HUP", "all": True})]),
    "update": (asked("update", {"cpu": {}}), [{}]),
    "add_mounts": (asked("add_mounts", ["m"]), [{}]),
    "remove_mounts": (asked("remove_mounts", ["m"]), [{}]),
    "delete": (asked("delete"), [{}, given({"force": True})]),
    "wait": (asked("wait"), [{}, {"container._watched": SimpleNamespace(returncode=5)}]),
    "communicate": (asked("communicate"), [{}, {"container._watched": "CHILD"}, {"container._watched": "CHILD"} | given(
        {"input": b"x"})]),
    "events": (asked("events"), [
        {}, given({"interval": 0}), given({"interval": -1.0}), given({"interval": 1.0}), given({"interval": 2.0}),
        given({}, fd=-1), given({}, fd=0), {"happenings.ended": True},
    ]),
    "exit": (asked("__aexit__", None, None, None), [{}]),
    "enter": (asked("__aenter__"), [{}]),
    "properties": (lambda w: [getattr(aio.AsyncProcess(w.spy("process", pid=41, returncode=5)), name) for name in (
        "pid", "returncode")] + [repr(aio.AsyncContainer(w.spy("container")))], [{}]),
    "end of a process": (of_process("wait"), [{"process.wait": 5}]),
    "communicate with a process": (of_process("communicate", b"x"), [{}]),
    "kill of a process": (lambda w: aio.AsyncProcess(w.spy("process")).kill(), [{}]),
    "exit of a process": (of_process("__aexit__", None, None, None), [{}]),
    **{f"{name} of a runtime": (of_runtime(name, "/b", "c1"), [{}, given({"rootless": 1})]) for name in ("create",
        "run")},
    "get": (of_runtime("get", "c1"), [{}]),
    "list": (of_runtime("list"), [{}]),
    "plan": (of_runtime("plan"), [{}, given({"bundle": "/b", "config": {"a": 1}})]),
    "together": (waited(lambda w: aio._communicate(
        w.spy("program", stdin=1, stdout=2, stderr=3), CHILD, b"data"), "_read _write _ended"),
            [
        {"_read": Answers([b"out", b"err"])},
    ]),
}  # fmt: skip

# -- a session in a library ------------------------------------------------------------------------


@contextmanager
def held(**values: Any) -> Iterator[None]:
    """What the library knows of sessions and children."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(library, f"_{name}", value)
        yield


def in_library(kind: type[Any], name: str, *args: Any, own: str = "") -> Callable[[World], Any]:
    """A call of a method, whose base class is noted."""

    def call(w: World) -> Any:
        values = {"channel": w.spy("channel"), "opts": SimpleNamespace(stdio="STDIO", document=w.extra.get("document"),
                  root="/root"), "pidfd": w.extra.get("pidfd", 83), "cgroup_fd": w.extra.get("cgroup_fd", 84),
                  "container": w.spy("container", root=w.spy("root"), data={}) if w.extra.get("made",
                      True) else None}  # fmt: skip
        values["container"] and values["container"].data.update(runtime={})
        one = w.made(kind, f"{name} {own}", **values)
        own_state = {"sessions": w.spy("sessions"), "reported": w.spy("reported"), "spawning": w.spy("lock")}
        with held(**own_state), pytest.MonkeyPatch.context() as patch:
            for base in (session.InitSession, create.Create, execution.Exec):
                for method in {"execute", "spawn", "stray_children", "take_id", "read_config", "on_pid"} & {
                    *vars(base)
                }:
                    full = f"super().{method}"
                    patch.setattr(base, method, staticmethod(spies.noting(full, w.notes, w.answers)))
            w.answers["reported.__contains__"] = False
            found = getattr(one, name)(*w.given(args))
        w.notes.append(f"runtime {values['container'].data['runtime'] if values['container'] else None}")
        return found, getattr(one, "pidfd", None), getattr(one, "cgroup_fd", None), getattr(one, "streams", None)

    return call


def messages(w: World) -> Any:
    """The messages of an operation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "_logger", w.spy("logger"))
        one = library.Messages(w.spy("warn") if w.extra["call"] else None)
        for number in range(w.extra["count"]):
            one.warning(f"w{number}", aloud=True)
        one.debug("d")
        one.info("i")
        one.error("e")
        return len(one.found), one.found[-1:]


def used(manager: Callable[..., Any], *args: Any) -> Callable[[World], Any]:
    """The body of a context manager, which may fail."""

    def call(w: World) -> Any:
        with manager(*(w.container if arg == "CONTAINER" else arg for arg in args)):
            w.notes.append("body")
            if w.extra.get("fails"):
                raise w.extra["fails"]

    return call


def forked(w: World) -> Any:
    """The child of a fork, and what it still knows."""
    known: dict[str, Any] = {"sessions": {w.spy("job")}, "locked": {w.spy("container")}, "streams": {w.spy("stdio")},
                             "reported": {5}}  # fmt: skip
    with held(**known, spawning=w.spy("lock")):
        library._forked()
    return known


def gone(w: World) -> Any:
    """The children that are known after one was reaped, and the strays of a session."""
    one = w.made(library.Library, "stray_children")
    known = {5, 6}
    with held(reported=known), pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.InitSession, "stray_children", staticmethod(lambda: [4, 5, 6]))
        library.reaped(5)
        return known, one.stray_children()


def closing(w: World) -> Any:
    """open() of a store that is closed when it fails."""
    one = w.made(library._ClosingStore, "open")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state.Store, "open", staticmethod(spies.noting("super().open", w.notes, w.answers)))
        return one.open("c1")


ANY: Any = ("LOG", "STDIO")
LIBRARY: dict[str, Any] = {"signal.getsignal": signal.SIG_DFL, "super().stray_children": [1, 2], "to_json": b"json",
    "load.parse_json": {"a": 1}, "exec_process.parse": "PARSED", "exec_process.inherit": "PROCESS", "jsontext.dumps":
    "{}"}  # fmt: skip
SESSIONS: dict[str, Row] = {
    "execute": (in_library(library.Library, "execute"), [
        {}, {"signal.getsignal": signal.SIG_IGN}, {"super().execute": PyruncError("no")}, {"settle":
            KeyboardInterrupt()},
    ]),
    "release": (in_library(library.Library, "release"), [
        {"WITH": {"pidfd": pidfd, "cgroup_fd": cgroup, "made": made}}
        for pidfd, cgroup, made in ((83, 84, True), (-1, -1, True), (0, 0, False), (83, -1, False))
    ]),
    "catch_signals": (in_library(library.Library, "catch_signals"), [{}]),
    "activated": (in_library(library.Library, "activated"), [{}]),
    "spawn": (in_library(library.Library, "spawn"), [{}]),
    "adopted": (in_library(library.Library, "adopted", 5), [{}]),
    "settle": (in_library(library.Create, "settle"), [{}]),
    "open_stdio": (in_library(library.Create, "open_stdio"), [{}]),
    "has_notify_socket": (in_library(library.Create, "has_notify_socket"), [{}]),
    "take_id": (in_library(library.Create, "take_id"), [{}]),
    "on_pid": (in_library(library.Create, "on_pid", SimpleNamespace(value=43)), [{}]),
    "read_config": (in_library(library.Create, "read_config", "/c"), [{}, {"WITH": {"document": {}}}]),
    "streams of exec": (in_library(library.Execute, "open_stdio"), [{}]),
    "pid of exec": (in_library(library.Execute, "on_pid", SimpleNamespace(value=43)), [{}]),
    "store of exec": (in_library(library.Execute, "open_store"), [{}]),
    "read_process": (in_library(library.Execute, "read_process", "OWN"), [
        {}, {"WITH": {"document": {"cwd": "/"}}}, {"WITH": {"document": {"cwd": {1}}}}]),
    "fork": (forked, [{}]),
    "reaped": (gone, [{}]),
    "open of a store": (closing, [{}, {"super().open": StateError("none")}, {"super().open": KeyboardInterrupt()}]),
    "messages": (messages, [{"WITH": {"call": call, "count": count}} for call, count in ((True, 2), (False, 101))]),
    "opened": (used(library.opened, "/root"), [
        {}, {"WITH": {"fails": failed(errno.EIO)}}, {"WITH": {"fails": StateError("no")}},
    ]),
    "options": (lambda w: [spies.state_of(kind("c1", *ANY)) for kind in (library.Creation, library.Execution)], [{}]),
    "check_options": (lambda w: library.check_options("exec", w.extra["options"], container.ExecOptions), [
        given({}), given({"cwd": 1}), given({"cwd": 1, "bad": 2}),
    ]),
    "open_stdio of a call": (alone(library, "open_stdio", 1, 2, 3), [{"Stdio": failed(errno.EMFILE)}]),
    "to_json": (lambda w: library.to_json(w.extra["value"], "what"), [
        {"WITH": {"value": value}} for value in ({}, {"a": "\u00e9"}, [1], {"a": {1, 2}}, [object()])
    ]),
    "parse_config": (alone(library, "parse_config", {"a": 1}), [{}, {"to_json": UsageError("u")}]),
}  # fmt: skip

# -- programs and children -------------------------------------------------------------------------

STREAM = SimpleNamespace(closed=False, fileno=lambda: 9)


class Pipe(SimpleNamespace):
    """A pipe by its name."""

    def __repr__(self) -> str:
        return str(self.name)


def talking(w: World) -> Any:
    """communicate() of a program with three pipes."""
    pipes = {name: w.spy(name, closed=name in w.extra.get("closed", ())) for name in ("stdin", "stdout", "stderr")}
    for number, name in enumerate(pipes):
        w.answers[f"{name}.fileno"] = 60 + number
    one = w.made(programs.Program, "communicate _send _receive", **pipes | dict.fromkeys(w.extra.get("none", ())),
                 _read={"stdout": [], "stderr": []}, _unsent=memoryview(b""), _begun=False)  # fmt: skip
    w.answers["selectors.PollSelector().get_map"] = Answers([True] * w.extra.get("rounds", 1) + [{}])
    ready = [[(SimpleNamespace(fileobj=pipes[name]), 1) for name in names.split()] for names in w.extra["ready"]]
    w.answers["selectors.PollSelector().select"] = Answers(ready)
    return one.communicate(w.extra.get("input", b"in"), w.extra.get("timeout")), one._unsent.tobytes(), one._begun


def of_child(name: str, *args: Any, own: str = "") -> Callable[[World], Any]:
    """A call of a method of a program's process."""

    def call(w: World) -> Any:
        child = w.spy("child", returncode=w.extra.get("code", 7), fd=83, pid=41)
        one = w.made(programs.Process, f"{name} {own}", _child=child, args=("sh",))
        found = getattr(one, name)
        return found(*w.given(args)) if callable(found) else found

    return call


PROGRAMS: dict[str, Row] = {
    "communicate": (talking, [
        {"WITH": {"ready": ready, "rounds": len(ready), **more}, "os.write": Answers(writes), "os.read": Answers(reads),
         "time.monotonic": Answers(times)}
        for ready, writes, reads, times, more in (
            (["stdin stdout stderr"], [2], [b""], [0.0], {}), (["stdin", "stdin"], [1, 1], [b""], [0.0], {}),
            (["stdout", "stdout stderr", "stderr"], [1], [b"a", b"b", b"c", b""], [0.0], {}),
            (["stdin", "stdout"], [BlockingIOError()], [BlockingIOError()], [0.0], {}),
            (["stdin"], [BrokenPipeError()], [b""], [0.0], {}), ([""], [1], [b""], [1.0, 1.0, 3.0], {"timeout": 2.0}),
            (["", "stdout"], [1], [b""], [1.0, 1.0, 2.9, 3.5], {"timeout": 2.0}),
            (["stdout"], [1], [b"x"], [1.0, 1.0, 9.0], {"timeout": 2.0}), ([""], [1], [b""], [0.0], {}),
            ([""], [1], [b""], [0.0], {"closed": ["stdout"], "none": ["stdin"]}))
    ]),
    "left": (lambda w: [programs._left(deadline) for deadline in (None, 3.0, 9.0)], [{"time.monotonic": 5.0}]),
    "wait": (of_child("wait", 0.5), [
        {"child.wait": False}, {"child.wait": True}, {"child.wait": True, "WITH": {"code": None}},
    ]),
    "kill": (of_child("kill", "$signal"), [
        {"WITH": {"signal": number}, "child.poll": Answers(ended), "processes.pidfd_send_signal": result}
        for number, ended, result in (
            (9, [False], None), ("HUP", [False], None), (9, [True], None), (9, [False, True], failed(errno.ESRCH)),
            (9, [False, False], failed(errno.EPERM)))
    ]),
    "properties": (of_child("returncode"), [{}, {"WITH": {"code": None}}]),
    "pid": (of_child("pid"), [{}]),
    "fileno": (of_child("fileno"), [{}]),
    "repr": (of_child("__repr__", own="pid"), [{}]),
    "complete": (of_child("complete", b"in", 0.5), [{"communicate": (b"out", b"err"), "wait": 5}]),
    "close": (of_child("close"), [{}]),
    "exit": (of_child("__exit__", None, None, None), [{"child.poll": ended} for ended in (True, False)]),
    "failed": (lambda w: [str(programs.ProgramFailed(programs.Completed(("a b", "c"), 5, b"o", err))) for err in (
        b"", b" \n", b"first\nlast \xff\n", b"x" * 900)], [{}]),
}  # fmt: skip


def child_of(name: str, *args: Any, own: str = "") -> Callable[[World], Any]:
    """A call of a method of a child."""

    def call(w: World) -> Any:
        one = w.made(children.Child, f"{name} {own}", pid=41, fd=w.extra.get("fd", 83), returncode=None,
                     ended=w.extra.get("ended", False), _lock=w.spy("lock"), _close=w.spy("finalizer"))  # fmt: skip
        return getattr(one, name)(*w.given(args)), one.ended, one.returncode, one.fd

    return call


def forgotten(w: World) -> Any:
    """reap_forgotten() with three children."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(children, "_forgotten", {5})
        children.reap_forgotten()
        return children._forgotten


def shared(w: World) -> Any:
    """known() of a child."""
    table = {(41, 7): w.spy("other")} if w.extra.get("other") else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(children, "_children", table)
        patch.setattr(children, "_forgotten", {41, 42})
        patch.setattr(children, "_knowing", w.spy("lock"))
        for name in ("_open", "Child"):
            patch.setattr(children, name, spies.noting(name, w.notes, w.answers))
        return children.known(41, 7, w.extra["pidfd"]), table, children._forgotten


EXITED = SimpleNamespace(si_status=5, si_code=1)
CHILDREN: dict[str, Row] = {
    "poll": (child_of("poll"), [{"WITH": {"ended": ended}} for ended in (True, False)]),
    "collect": (child_of("_collect"), [
        {"os.waitid": found, "_poll": []} for found in (None, EXITED, SimpleNamespace(si_status=9, si_code=2))
    ] + [{"os.waitid": ChildProcessError(), "_poll": ready} for ready in ([], [(83, 1)])]),
    "wait": (child_of("wait", "$timeout"), [
        {"WITH": {"timeout": timeout, "fd": fd}, "poll": Answers(ended), "time.monotonic": Answers(times)}
        for timeout, fd, ended, times in (
            (None, 83, [True], [0.0]), (None, 83, [False, True], [0.0]), (2.0, 83, [False, True], [1.0, 1.5]),
            (2.0, 83, [False], [1.0, 3.0]), (2.0, 83, [False], [1.0, 2.9999, 3.1]), (1e9, 83, [False, True], [0.0]),
            (None, -1, [False, True], [0.0]), (None, 0, [False, True], [0.0]))
    ]),
    "close": (child_of("close"), [
        {"WITH": {"ended": ended}, "finalizer.detach": held} for ended in (True, False) for held in (True, None)
    ]),
    "poll of a descriptor": (lambda w: children._poll(5, 70), [{}]),
    "drop": (lambda w: children._drop(41, 83), [
        {"os.waitid": found} for found in (EXITED, failed(errno.ECHILD))
    ] + [{"os.waitid": EXITED, "os.close": failed(errno.EBADF)}]),
    "reap_forgotten": (forgotten, [{"os.waitpid": found} for found in ((0, 0), (5, 0), ChildProcessError())]),
    "known": (shared, [
        {"WITH": {"pidfd": pidfd, "other": other}, "_open": opened}
        for pidfd in (-1, 0, 83) for other in (True, False) for opened in (90, 0, -1)
    ]),
    "open": (alone(children, "_open", 41, 7), [
        {"os.pidfd_open": fd, "procfs.process_stat": ("S", start)}
        for fd, start in ((83, 7), (83, 8), (ProcessLookupError(), 7))
    ]),
}  # fmt: skip
TABLES: Tables = [
    ("pyrunc.api.container", METHODS, CONTAINER, ()),
    ("pyrunc.api.aio", AIO, ASYNC, ()),
    ("pyrunc.api.library", SESSIONS, LIBRARY, ("Stdio",)),
    ("pyrunc.api.programs", PROGRAMS, {"signals.number": 1}, ()),
    ("pyrunc.api.children", CHILDREN, {}, ("_poll",)),
]


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("api_steps", f"{module.rpartition('.')[2]}.{name}", calls_of(module, name, TABLES))
