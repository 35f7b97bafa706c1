"""What the watch of containers asks of the system, and what the smaller functions of pyrunc.container
call, as in test_steps.py. golden/container_steps.txt has the tables.
"""

from __future__ import annotations

import errno
import types
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc import state
from pyrunc.container import events, lifecycle, processes, salvage
from pyrunc.errors import PyruncError, StateError, SysError
from spies import Answers, By
from test_steps import Tables, World, calls_of, failed, rows

Row = tuple[Callable[[World], Any], list[dict[str, Any]]]
STATUSES = ("creating", "created", "running", "paused", "stopped")


def watching(name: str, *args: Any) -> Callable[[World], Any]:
    """A call of a method of a watch, and the watch after it."""

    def call(w: World) -> Any:
        values = {"container": w.spy("container", id="c1"), "pidfd": 11, "fd": 21, "kills": 3}
        one = w.made(events.Watch, name, **values)
        found = getattr(one, name)(*args)
        return list(found) if isinstance(found, types.GeneratorType) else found, one.pidfd, one.fd, one.kills

    return call


def several(w: World) -> list[Any]:
    """Watches of several containers, made one after another."""
    return [
        w.spy(name, pidfd=pidfd, fd=fd, container=f"container of {name}")
        for name, pidfd, fd in (("first", 11, 21), ("second", 12, -1), ("third", 13, 0))
    ]


def followed(w: World) -> Any:
    """The events of two containers, up to the error."""
    first, second = several(w)[:2]
    w.answers["Watch"] = Answers([first, w.extra.get("error", second)])
    out = []
    try:
        for event in events.watch(["c1", "c2"], 2.0, "LOG"):  # type: ignore[list-item, arg-type]
            w.notes.append(f"event {event}")
            out.append(event)
            if len(out) == w.extra.get("stop"):
                break
    except StateError as error:
        out.append(error)  # type: ignore[arg-type]
    return len(out)


def waited(w: World) -> None:
    """wait() for these times."""
    for seconds in w.extra["seconds"]:
        events.wait(several(w)[: w.extra["count"]], seconds)


def opened(w: World) -> Any:
    """open_all() of these ids."""
    found, problems = events.open_all(w.spy("store"), w.extra["ids"])
    return len(found), problems


EVENTS: dict[str, Any] = {
    "container.status": "running", "container.open_init": 9, "posix.open": 21, "oom_kills": 5, "stats.read": "STATS",
    "stats.pairs": {"oom_kill": 7}, "fs.read_fd": b"oom_kill 7\n\xff", "posix.lseek": 0,
}  # fmt: skip
PARTS: dict[str, Row] = {
    "measure": (lambda w: events.measure(w.container), [
        *({"container.status": status} for status in STATUSES), {"DATA": {"cgroup_dir": "/cg/c1"}},
        {"DATA": {"cgroup_dir": None}}, {"stats.read": PyruncError("gone")},
    ]),
    "init": (lambda w: spies.state_of(events.Watch(w.container)), [
        *({"container.status": status} for status in STATUSES), {"DATA": {"cgroup_dir": "/cg/c1"}},
        *({"container.open_init": fd} for fd in (0, -1)), {"posix.open": failed(errno.ENOENT)},
        {"posix.lseek": failed(errno.ENODEV)},
    ]),
    "oom_kills": (watching("oom_kills"), [
        {}, {"SELF": {"fd": -1}}, {"SELF": {"fd": 0}}, {"stats.pairs": {}}, {"posix.lseek": failed(errno.ENODEV)},
        {"fs.read_fd": failed(errno.ENODEV)},
    ]),
    "news": (watching("news"), [{"oom_kills": count} for count in (2, 3, 4, 9)]),
    "close": (watching("close"), [{"SELF": {"pidfd": pidfd, "fd": fd}} for pidfd in (11, 0, -1) for fd in (21, 0, -1)]),
    "wait": (waited, [
        {"WITH": {"count": 0, "seconds": [0.0, 0.0005, 0.999, 1.0, 2.5, 1e6, 1073741.822, 1073741.823, 1e9]}},
        {"WITH": {"count": 3, "seconds": [1.5]}},
    ]),
    "ended": (lambda w: events.ended(11), [{"select.poll().poll": found} for found in ([], [(11, 1)])]),
    "open_all": (opened, [
        {"WITH": {"ids": ids}, "store.open": By({"gone": state.NotFound("gone"), "bad": StateError("is bad"), None: 1})}
        for ids in ([], ["a"], ["gone"], ["bad"], ["a", "gone", "bad", "b"])
    ] + [{"WITH": {"ids": ["a"]}, "store.open": SysError("/a", "open", errno.EIO)}]),
}  # fmt: skip
LOOP: dict[str, Any] = {
    "first.news": ["news of first"], "second.news": [], "sample": ["sample"], "wait": None,
    "measure": {"type": "stats"}, "watch": ["one", "two"],
}  # fmt: skip
WHOLE: dict[str, Row] = {
    "watch": (followed, [
        {"ended": Answers(ends), "time.monotonic": Answers(times), "WITH": {"stop": stop}}
        for ends, times, stop in (
            ([True, True], [10.0, 10.5, 11.0], 0), ([False, True, True], [10.0, 10.5, 11.0, 11.5, 12.0, 12.5], 0),
            ([True, False, True], [10.0, 10.0, 12.0, 12.5, 13.0, 14.1, 14.2, 14.2], 0),
            ([False, False, True, True], [10.0, 13.0, 19.0, 19.5, 20.0], 0), ([False], [10.0, 10.5], 1),
            ([False], [10.0, 10.5, 12.0, 12.0], 2),
        )
    ] + [{"WITH": {"error": StateError("stopped")}}]),
    "sample": (lambda w: list(events.sample([w.container, w.container], w.spy("log"))), [
        {}, {"measure": Answers([PyruncError("gone"), {"type": "stats"}])}, {"measure": StateError("stopped")},
    ]),
    "follow": (lambda w: events.follow(["c1"], 3.0, w.spy("emit"), "LOG"), [{}]),  # type: ignore[list-item, arg-type]
}  # fmt: skip
MEMBERS: dict[str, Any] = {
    "container.this_boot": True, "container.cgroup_directory": "/cg/c1", "fs.exists": True, "tree.members": [1, 2],
    "container.init_alive": True, "procfs.pid_namespace": By({"self": 1, 41: 2, 5: 2, 6: 1, None: 0}),
    "procfs.processes": [5, 6, 7], "procfs.descendants": [41, 42],
}  # fmt: skip
PIDS: dict[str, Row] = {
    "pids": (lambda w: processes.pids(w.container), [
        {}, {"container.this_boot": False}, {"tree.members": failed(errno.ENODEV)}, {"fs.exists": False},
        {"fs.exists": False, "container.init_alive": False}, {"container.cgroup_directory": ""},
        {"container.cgroup_directory": "", "container.init_alive": False},
        {"container.cgroup_directory": "", "procfs.pid_namespace": 1},
    ]),
}  # fmt: skip
RESTED: dict[str, Any] = {
    "container.init_alive": False, "container.this_boot": True, "container.keeps_cgroup": False, "fs.exists": True,
    "fs.getenv": "/host", "posix.waitpid": (0, 0),
}  # fmt: skip
SMALL: dict[str, Row] = {
    "remove": (lambda w: lifecycle.remove(w.container, w.spy("log"), driver=w.spy("driver")), [
        {}, {"fs.exists": False}, {"DATA": {"cgroup_dir": "/cg/c1"}}, {"container.this_boot": False},
    ]),
    "notify_proxy": (lambda w: lifecycle.notify_proxy(w.container), [
        {"fs.getenv": host, "DATA": {"notify": given}} for host in ("/host", "") for given in ("/n", "", None)
    ]),
    "reap": (lambda w: lifecycle.reap(41), [{}, {"posix.waitpid": failed(errno.ECHILD)}]),
}  # fmt: skip
TABLES: Tables = [
    ("pyrunc.container.events", PARTS, EVENTS, ()),
    ("pyrunc.container.processes", PIDS, MEMBERS, ()),
    ("pyrunc.container.lifecycle", SMALL, RESTED, ("driver_of", "kill_and_wait")),
]  # fmt: skip
SECOND: Tables = [("pyrunc.container.events", WHOLE, LOOP, ("Watch", "wait", "ended", "sample", "measure", "watch"))]


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    lines = calls_of(module, name, TABLES, more=["pyrunc.cgroup.tree"])
    transcript.compare("container_steps", f"{module.rpartition('.')[2]}.{name}", lines)


@pytest.mark.parametrize("name", WHOLE)
def test_the_calls_of_a_watch(name: str) -> None:
    functions = tuple(other for other in SECOND[0][3] if other != name)
    tables: Tables = [(SECOND[0][0], WHOLE, LOOP, functions)]
    transcript.compare("container_steps", f"events.{name}", calls_of(SECOND[0][0], name, tables))


DURATIONS = [
    "", "+", " 5s", "5s ", "5 s", "0", "+0", "-0", "5s", "+5s", "1m30s", "1.5h", ".5s", "5.s", ".", ".s", "5", "s",
    "5x", "5ms", "250ms", "5us", "5\u00b5s", "5\u03bcs", "5ns", "1h1m1s1ms", "1..5s", "1.2.3s", "00s", "-5s", "++5s",
    "5Xs", "1s5", "123456789012345678s", "1234567890123456789s", "5S", "0s", "1h-5s",
]  # fmt: skip


def test_durations() -> None:
    lines = [f"{word}: {events.duration(word)}" for word in DURATIONS]
    transcript.compare("container_steps", "events.duration", lines, cut=True)


def test_why_a_program_was_not_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyrunc import explain
    from pyrunc.spec import load

    asked: list[Any] = []
    config = {"process": {"cwd": "/w"}, "linux": {"seccomp": {}}}

    def loaded(path: str) -> Any:
        asked.append(path)
        return config, b"{}"

    def program(setting: Any, name: str, number: int) -> str:
        asked.append((setting.linux, setting.process, setting.root, name, number))
        return "why"

    monkeypatch.setattr(load, "load_config", loaded)
    monkeypatch.setattr(explain, "program", program)
    container: Any = SimpleNamespace(dir="/state/c1", data={"rootfs": "/rootfs"})
    assert lifecycle.explain(container, "sh", 2) == "why"
    assert asked == ["/state/c1/config.json", ({"seccomp": {}}, {"cwd": "/w"}, "/rootfs", "sh", 2)]


def test_which_cgroups_can_be_a_containers() -> None:
    facts: Any = SimpleNamespace(cgroup2_mount="/cg", cgroup2_root="/ns", own_cgroup="/a/b")
    paths = ("/", "", "a", "/ns", "/a", "/a/b", "/a/b/c", "/a/bc", "/a/", "/a//c", "/a/../c", "/x\0", "/x")
    possible = ["/a/b/c", "/a/bc", "/x"]
    assert [path for path in paths if salvage.is_possible(path, facts)] == possible
    facts.cgroup2_mount = ""
    assert not any(salvage.is_possible(path, facts) for path in possible)
