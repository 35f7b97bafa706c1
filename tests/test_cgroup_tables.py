"""Limits as writes, groups of resctrl, and the drivers that create nothing or ask systemd, as tables
of inputs and calls. golden/cgroup_tables.txt has the tables.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc import cgroup
from pyrunc.cgroup import cgroupfs, delegate, disabled, rdt, resources, systemd
from pyrunc.errors import PyruncError, SysError
from spies import Answers, By, alone
from test_results import Call, results
from test_session_steps import Row
from test_steps import Tables, World, calls_of, failed, rows

# -- limits ----------------------------------------------------------------------------------------

DEVICE: dict[str, Any] = {"major": 8, "minor": 1}
LIMITS: list[dict[str, Any]] = [
    {}, {"pids": {"limit": 0}}, {"pids": {"limit": 1}}, {"pids": {"limit": -1}}, {"network": {"classID": 1}},
    *({"memory": {"limit": limit, "swap": swap}}
      for limit, swap in ((0, 0), (0, -1), (0, 1), (-1, 0), (-1, -1), (-1, 1), (1, 0), (1, 1), (2, 1), (5, 7),
                          (7, -2))),
    {"memory": {"reservation": -1}}, {"memory": {"reservation": 3, "limit": 5}}, {"memory": {}},
    *({"blockIO": {"weight": weight}} for weight in (0, 10, 11, 1000)),
    {"blockIO": {"weightDevice": [DEVICE, DEVICE | {"weight": 10}, DEVICE | {"leafWeight": 9}], "leafWeight": 8}},
    {"blockIO": {"leafWeight": 0, "throttleReadBpsDevice": [DEVICE | {"rate": 0}, DEVICE | {"rate": 5}]}},
    {"blockIO": {name: [DEVICE | {"rate": 7}] for name, _ in resources._THROTTLE}},
    *({"cpu": {"idle": idle, "shares": shares}} for idle in (0, 1) for shares in (0, 2, 1024)),
    *({"cpu": {"quota": quota, "burst": burst}} for quota in (-1, 0, 5) for burst in (0, 5, 6)),
    *({"cpu": {"quota": quota, "period": period}} for quota in (-1, 0, 5) for period in (0, 7)),
    {"cpu": {"cpus": "0", "mems": ""}}, {"cpu": {"cpus": "", "mems": "1"}},
    {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]},
    {"rdma": {"a": {}, "b/~": {"hcaHandles": 0}, "c": {"hcaObjects": 1}, "d": {"hcaHandles": 2, "hcaObjects": 3}}},
    *({"unified": {name: "5"}} for name in ("", "/", "a/b", "a\0", ".", "..", "...", "a", "~")),
    *({"unified": {"f": text}} for text in ("", "\n", "a\n\nb", "a\n", " ")),
]  # fmt: skip
HELD = ["", "max\n", "5\n6\n", "8:0 rbps=1\n8:1 wbps=2\n", "default 100\n8:1 200\n", "8:10 x\n8:1\n"]
FORMULAS: dict[str, tuple[Call, list[Any]]] = {
    "resources.convert": (
        lambda given: [*written(resources.convert(given)), *written(resources.convert(given, ""))], LIMITS
    ),
    "resources.limiting": (resources.limiting, [one | {"devices": [1], "network": {}} for one in LIMITS[:40]]),
    "resources.before": (
        resources.before,
        [(file, text, held) for file in ("io.max", "io.weight", "memory.max")
         for text in ("5", "8:1 rbps=5", "8:2 wbps=5", "default 5", "x y", "") for held in HELD],
    ),
    "resources.cpu_weight": (resources.cpu_weight, [0, 1, 2, 3, 4, 1023, 1024, 1025, 2048, 262143, 262144, 262145]),
    "resources.controller": (
        lambda file: resources.Write(file, "", "", 0).controller, ["memory.max", "cgroup.type", "cgroups.x", "x", ""]
    ),
    "rdt.lines": (
        rdt.lines,
        [{}, {"l3CacheSchema": "L3:0=f"}, {"l3CacheSchema": "a\n\n b \n", "memBwSchema": "c"},
         {"schemata": ["x\ny", ""], "memBwSchema": " "}],
    ),
    "rdt.parse": (
        rdt.parse,
        ["L3:0=7f0;1=1f", "MB:0=10;1=20", "MB:0=1f", " L3 : 0 = f ", "L3:0", "L3:", "L3", "", "L3:0=x;1=f", "L3:0=0xF",
         "MBX:0=10", "L3:0=f;0=e"],
    ),
    "systemd.expand": (
        lambda name: systemd.expand(name, "path"),
        ["-", "-.slice", "a.slice", "a-b.slice", "a-b-c.slice", ".slice", "a", "a.slicex", "-a.slice", "a--b.slice",
         "a-.slice", "x" * 249 + ".slice", "x" * 250 + ".slice"],
    ),
    "systemd.cpu_max": (
        lambda text: quota(text),
        ["max", "max 5", "5", "5 0", "5 x", "x 5", "50000 100000", "1 100000", "1000 100000", "1001 100000", "3 7",
         "1K 1K", "0 5", ""],
    ),
    "systemd.annotated": (
        systemd.annotated,
        [{}, {"other": "5"}, {"org.systemd.property.Abc": "5", "x": "y"}, {"org.systemd.property.": "5"},
         {"org.systemd.property.Ab/c": "5", "org.systemd.property.Abc": "bare"},
         {f"org.systemd.property.A{'b' * n}": "5" for n in range(2, 258)},
         {f"org.systemd.property.{n}": "5" for n in range(257)}],
    ),
    "cgroup.path_for": (
        lambda path, manager, places: cgroup.path_for(path, "c1", facts(**places), manager),
        [(path, manager, {"cgroup2_mount": mount, "cgroup2_root": top, "own_cgroup": own})
         for path, manager, mount, top, own in (
             ("/a", "disabled", "/m", "/", "/o/p"), ("/a", "cgroupfs", "", "/", "/o/p"),
             *((path, "cgroupfs", "/m", "/", "/o/p") for path in (
                 "", "/", "a", "/a", "/a//b/", "/a/../b", "..", "a..b", "a\0", "a\n", "a:b:c", "/a:b:c", "a:b",
                 "a:b:c:d", ".", "/.")),
             ("", "cgroupfs", "/m", "/top", "/top/x/y"), ("a", "cgroupfs", "/m", "/top", "/topx/y"),
             ("a", "cgroupfs", "/m", "/top", "/top"), ("/a", "cgroupfs", "/m", "/top/", "/top/x"),
             ("a", "cgroupfs", "/m", "/", "/p"), ("", "cgroupfs", "/m", "/", ""))],
    ),
    "cgroup.open_driver": (
        lambda manager, mount: type(cgroup.open_driver(manager, facts(cgroup2_mount=mount))).__name__,
        [(manager, mount) for manager in (*cgroup.MANAGERS, "", "other") for mount in ("/m", "")],
    ),
    "cgroup.ScopeRequest": (lambda *given: spies.state_of(cgroup.ScopeRequest(*given)), [("id", 5, {"a": "b"})]),
    "disabled": (
        lambda name, *given: getattr(disabled.Disabled(), name)(*given),
        [(name, "/a", limits, *more)
         for limits in ({}, {"pids": {"limit": 5}}, {"devices": [1]}, {"pids": {"limit": -1}, "cpu": {"cpus": "0"}})
         for name, *more in (("create",), ("apply",), ("values",), ("apply", ""), ("create", ""), ("values", ""))]
        + [("missing", "/a"), ("restore", "/a", [("f", "t")]), ("devices", 5, []), ("pids", "/a"), ("kill", "/a", 9),
           ("freeze", "/a"), ("thaw", "/a"), ("frozen", "/a"), ("oom_kills", "/a"), ("remove", "/a")],
    ),
    "disabled, devices of an update": (
        lambda: disabled.Disabled().devices(5, [], "/p", replace=True), [()],
    ),
    "disabled, init": (lambda: vars(disabled.Disabled()), [()]),
}  # fmt: skip


def facts(**places: Any) -> Any:
    """The host."""
    return SimpleNamespace(**places)


def quota(text: str) -> dict[str, Any]:
    """The properties of a quota."""
    out: dict[str, Any] = {}
    systemd.cpu_max(out, text)
    return out


def written(writes: list[resources.Write]) -> list[str]:
    """Writes, a line each."""
    return [f"{one.file} {one.text!r} {one.pointer} {one.value} {one.flags} {one.other}" for one in writes]


@pytest.mark.parametrize("name", FORMULAS)
def test_results(name: str) -> None:
    call, cases = FORMULAS[name]
    transcript.compare("cgroup_tables", name, results(call, cases))


# -- calls -----------------------------------------------------------------------------------------

GROUP: dict[str, Any] = {
    "fs.exists": False, "posix.open": 60, "posix.write": None, "fs.read_file": b"L3:0=f;1=ff\nMB:0=10\n",
    "lines": [("/linux/intelRdt/l3CacheSchema", "L3:0=f"), ("/linux/intelRdt/schemata/0", "L2:0=1")], "_make": True,
    "schemata": "L3:0=f;1=ff\nMB:0=10\n",
}  # fmt: skip


def kept(*made: str, **more: str) -> dict[str, Any]:
    """A record."""
    return {"root": "/r", "group": "/r/g", "made": list(made), **more}


MONITOR = "/r/g/mon_groups/c1"
APPLIED: list[tuple[Any, Any, bool, dict[str, Any]]] = [
    ({}, kept("/r/g"), True, {}), ({}, kept(), True, {}), ({}, kept(), False, {}),
    ({"closID": "g"}, kept(), False, {}), ({"closID": "g"}, kept(), True, {}),
    ({"closID": "g"}, kept(), False, {"compare": PyruncError("differs")}),
    ({"enableMonitoring": True}, kept(MONITOR, "/r/g"), True, {}),
    *(({"enableMonitoring": True}, kept(MONITOR, "/r/g"), True, {"posix.mkdir": error})
      for error in (failed(errno.EEXIST), failed(errno.ENOSPC), OSError("none"))),
]  # fmt: skip
RDT: dict[str, Row] = {
    "plan": (alone(rdt, "plan", "$wanted", "c1", "/r"), [
        {"WITH": {"wanted": wanted}, "fs.exists": there, "lines": schema}
        for wanted in ({}, {"closID": "g"}, {"closID": "/"}, {"enableMonitoring": True},
                       {"closID": "g", "enableMonitoring": True})
        for there in (True, False) for schema in ([], [("p", "l")])
    ]),
    "apply": (alone(rdt, "apply", "$wanted", "$record", 41), [
        {"WITH": {"wanted": wanted, "record": record}, "_make": fresh, **case}
        for wanted, record, fresh, case in APPLIED
    ]),
    "make": (alone(rdt, "_make", "/r/g", "$record"), [
        {"WITH": {"record": kept(*made)}, "fs.exists": there, "posix.mkdir": result}
        for made in ((), ("/r/g",), (MONITOR, "/r/g"))
        for there, result in ((True, None), (False, None), (False, failed(errno.ENOSPC)), (False, OSError("none")))
    ]),
    "join": (alone(rdt, "join", kept(), 41), [{}]),
    "write_schemata": (alone(rdt, "write_schemata", kept(), [("p1", "a"), ("p2", "b")]), [
        {}, {"_write": SysError("p1", "write", 22)},
    ]),
    "schemata": (alone(rdt, "schemata", "/r/g"), [{}, {"fs.read_file": b"a\xff"}]),
    "compare": (alone(rdt, "compare", "/r/g", "$wanted", keep="parse"), [
        {"WITH": {"wanted": wanted}} for wanted in (
            [], [("p", "L3:0=f")], [("p", "L3:0=f;1=ff"), ("q", "MB:0=10")], [("p", "L3:0=e")], [("p", "L3:2=f")],
            [("p", "L3:0=f"), ("q", " MB:0=11 ")], [("p", "L2:0=f")], [("p", "L3:x")], [("p", "MB:0=10;1=10")])
    ]),
    "remove": (alone(rdt, "remove", kept("/r/g/m", "/r/g")), [
        {"posix.rmdir": Answers(found)} for found in (
            [None], [failed(errno.ENOENT)], [failed(errno.EBUSY)], [None, failed(errno.EPERM)], [OSError("none")])
    ]),
    "undo": (alone(rdt, "undo", "$record"), [
        {"WITH": {"record": record}, "fs.read_file": pids, "fs.exists": there}
        for record in (kept(), kept(new_class="/r/n"))
        for pids, there in ((b"", False), (b"5\n6\n", False), (b"5\n6\n", By({"/proc/6": True, None: False})))
    ]),
    "write": (alone(rdt, "_write", "$path", "t\u00e4\n", "/p"), [
        {"WITH": {"path": "/r/g/schemata"}} | case
        for case in ({}, {"posix.open": failed(errno.ENOENT)}, {"posix.write": failed(errno.EINVAL)},
                     {"posix.write": OSError("none")})
    ] + [{"WITH": {"path": path}, "posix.write": failed(errno.EINVAL)} for path in ("/r/g/tasks", "/schemata/x")]),
}  # fmt: skip
GIVE: dict[str, Row] = {
    "give": (alone(delegate, "give", "/cg/a", 1000), [
        {"posix.chown": Answers(results)} | case
        for results, case in (
            ([None], {}), ([None], {"fs.read_file": failed(errno.ENOENT)}), ([failed(errno.ENOENT)], {}),
            ([None, failed(errno.ENOENT)], {}), ([None, failed(errno.EPERM)], {}), ([None], {"fs.read_file": b""}),
            ([None], {"fs.read_file": b"a ../b c\n"}), ([OSError("none")], {}))
    ]),
}  # fmt: skip
PATH = "/system.slice/pyrunc-c1.scope"


def driving(name: str, *args: Any) -> Callable[[World], Any]:
    """A call of a method of systemd's driver, and its attributes then."""

    def call(w: World) -> Any:
        host = facts(prefix="/prefix", cgroup_dir=lambda path: "/cg" + path, euid=0)
        own = name if name == "manager" else f"{name} manager dir"
        one = w.made(systemd.Systemd, own, facts=host, made=[], link=w.extra.get("link", w.spy("link")),
                     fresh="", late={})  # fmt: skip
        given = w.given(args)
        before = spies.state_of(one)
        with pytest.MonkeyPatch.context() as patch:
            for method in ("apply", "remove"):
                noted = spies.noting(f"cgroupfs.{method}", w.notes, w.answers)
                patch.setattr(cgroupfs.Cgroupfs, method, staticmethod(noted))
            try:
                found = getattr(one, name)
                return found(*given) if name != "manager" else found
            finally:
                w.notes.extend(f"driver: {line}" for line in spies.attributes(one, before))

    return call


SCOPE: dict[str, Any] = {
    "fs.exists": True, "limits": {"TasksMax": ("t", 5)}, "stop": "", "bus.Manager": "MANAGER",
    "host.initial_userns": True, "properties": {"A": ("t", 1)},
}  # fmt: skip
SYSTEMD: dict[str, Row] = {
    "manager": (driving("manager"), [
        {}, {"WITH": {"link": None}}, {"WITH": {"link": None}, "fs.exists": False},
        {"WITH": {"link": None}, "host.initial_userns": False},
    ]),
    "limits": (driving("limits", "$limits", "/p"), [
        {"WITH": {"limits": {}}}, {"WITH": {"limits": {"devices": [1]}}}, {"WITH": {"limits": {"pids": {}}}},
        {"WITH": {"limits": {"pids": {"limit": 5}}}}, {"WITH": {"limits": {"devices": [1], "memory": {"limit": 7}}}},
    ]),
    "apply": (driving("apply", PATH, {"pids": {"limit": 5}}, "/p"), [
        {}, {"SELF": {"fresh": PATH, "late": {"TasksMax": ("t", 1)}}}, {"SELF": {"fresh": "/other"}},
        {"fs.exists": False}, {"cgroupfs.apply": SysError("/p", "write", 5)},
        {"SELF": {"fresh": PATH}, "cgroupfs.apply": SysError("/p", "write", 5)},
    ]),
    "apply with the field of linux.resources": (driving("apply", PATH, {}), [{}, {"SELF": {"fresh": PATH}}]),
    "remove": (driving("remove", "$path", 2.0, [PATH]), [
        {"WITH": {"path": path}} | case
        for path in (PATH, PATH + "/sub")
        for case in ({}, {"fs.exists": False}, {"stop": "why"}, {"cgroupfs.remove": PyruncError("in use")},
                     {"stop": "why", "cgroupfs.remove": PyruncError("in use")},
                     {"fs.exists": False, "stop": "why", "cgroupfs.remove": PyruncError("in use")})
    ]),
    "remove by default": (driving("remove", PATH), [{}]),
}  # fmt: skip
TABLES: Tables = [
    ("pyrunc.cgroup.rdt", RDT, GROUP, ()),
    ("pyrunc.cgroup.delegate", GIVE, {"fs.read_file": b"cgroup.procs\ncgroup.threads\n", "posix.chown": None}, ()),
    ("pyrunc.cgroup.systemd", SYSTEMD, SCOPE, ()),
]


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("cgroup_tables", f"{module.removeprefix('pyrunc.')}.{name}", calls_of(module, name, TABLES))
