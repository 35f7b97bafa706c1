"""What hooks, id mappings, the update of limits and the mounts of a restore ask of the system, as in
test_steps.py. golden/host_steps.txt has the tables.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from select import POLLIN
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from plan_support import Facts
from pyrunc import hooks, idmap
from pyrunc.checkpoint import mounts
from pyrunc.container import update
from pyrunc.errors import PyruncError, SysError
from pyrunc.plan.mount_options import Flags
from spies import Answers, By, alone
from test_session_steps import Row
from test_steps import Tables, World, calls_of, failed, rows

# -- id mappings -----------------------------------------------------------------------------------

ONE: Any = [{"containerID": 0, "hostID": 5, "size": 1}]
TWO: Any = [{"containerID": 0, "hostID": 5, "size": 1}, {"containerID": 1, "hostID": 100, "size": 9}]
BOTH: Any = {"uidMappings": TWO, "gidMappings": ONE}


def mount_of(w: World) -> Any:
    """The configuration of an idmapped mount."""
    mount = {"destination": "/d", "options": w.extra.get("options", ["bind"]), **w.extra.get("mount", {})}
    return {"mounts": [{}, mount], **({"linux": w.extra["linux"]} if "linux" in w.extra else {})}


MAPS: dict[str, Any] = {
    "is_self": False, "posix.geteuid": 5, "posix.getegid": 6, "posix.open": 60, "fs.exists": True,
    "mounts.open_tree": 70, "_namespace": 71, "_joined": 72, "fs.read_file": b"0 5 1\n1 100 9\n", "_refused": SysError(
        "/mounts/1", "mount_setattr", 22), "userns.clone_propagation": 0x42, "namespaces.user_namespace": 73,
    "procfs.open_namespace": 74, "_filesystem": "ext4", "fs.mount_id": 9, "mountinfo.read": [
        SimpleNamespace(id=8, type="a"), SimpleNamespace(id=9, type="b")],
}  # fmt: skip
IDS: dict[str, Row] = {
    "write_maps": (alone(idmap, "write_maps", 41, BOTH, "$facts"), [
        {"WITH": {"facts": Facts(euid=euid)}, "is_self": own}
        for euid, own in ((0, False), (5, False), (5, True), (5, Answers([True, False])), (5, Answers([False, True])))
    ]),
    "is_self": (lambda w: [idmap.is_self(wanted, own) for wanted in (ONE, TWO) for own in (5,
        0)],
                [{}]),
    "write": (alone(idmap, "_write", 41, "uid_map", "0 1 2\n3 4 5\n", "/p"), [
        {}, {"posix.open": failed(errno.ENOENT)}, {"posix.write": failed(errno.EPERM)},
            {"posix.write": OSError("none")},
    ]),
    "call_helper": (alone(idmap, "_call_helper", "$name", 41, TWO, "/p"), [
        {"WITH": {"name": name}, "fs.exists": there, "hooks.run_program": result}
        for name, there, result in (
            ("newuidmap", True, None), ("newuidmap", False, None), ("newgidmap", By({"/bin/newgidmap": True}), None),
            ("newuidmap", True, hooks.HookError("no")), ("newgidmap", True, hooks.HookError("no")),
            ("newgidmap", True, SysError("/p", "clone", 11)))
    ]),
    "map_of": (lambda w: [idmap.map_of(41, kind) for kind in ("uid", "gid")], [
        {"fs.read_file": content} for content in (b"0 5 1\n1 100 9\n", b"  0   5  1\n", b"", failed(errno.ESRCH))
    ]),
    "check_joined": (alone(idmap, "check_joined", 41, "$linux"), [
        {"WITH": {"linux": linux}, "map_of": found}
        for linux in ({}, {"uidMappings": TWO}, {"gidMappings": ONE, "uidMappings": TWO}, {"gidMappings": TWO})
        for found in (TWO, ONE, TWO[:0])
    ]),
    "in_a_line": (lambda w: [idmap._in_a_line(entries) for entries in (TWO, ONE, TWO[:0])], [{}]),
    "open_mount": (alone(idmap, "open_mount", mount_of, "/src", "/mounts/1"), [
        {"WITH": given, **more}
        for given, more in (
            ({}, {}), ({"mount": BOTH}, {}), ({"linux": BOTH}, {}), ({"mount": BOTH, "linux": BOTH}, {}),
            ({"options": ["rbind", "ridmap"], "mount": BOTH}, {}), ({}, {"mounts.open_tree": failed(errno.EPERM)}),
            ({}, {"_propagate": SysError("/m", "x", 5)}), ({}, {"_joined": PyruncError("none")}),
            ({"mount": BOTH}, {"mounts.map_ids": failed(errno.EINVAL)}))
    ]),
    "propagate": (alone(idmap, "_propagate", 70, "$linux", "/mounts/1"), [
        {"WITH": {"linux": linux}, "userns.clone_propagation": nibbles, "mounts.set_propagation": result}
        for linux, nibbles, result in (
            ({}, 0x42, None), ({"rootfsPropagation": "shared"}, 0x31, None), ({}, 0, None), ({}, 9,
                failed(errno.EINVAL)))
    ]),
    "namespace": (alone(idmap, "_namespace", BOTH, "/p"), [{}, *({"namespaces.user_namespace": OSError(number, stage)}
        for number, stage in ((1, "uid_map"), (1, "gid_map"), (errno.ENOSPC, "clone"), (5, "open")))]),
    "joined": (alone(idmap, "_joined", "$linux"), [
        {"WITH": {"linux": {"namespaces": spaces}}} for spaces in ([], [{"type": "pid"}, {"type": "user",
            "path": "/n"}])
    ] + [{"WITH": {"linux": {}}}]),
    "refused": (lambda w: str(alone(idmap, "_refused", "/m", "/src", w.extra["number"], {"destination": "/d"})(w)), [
        {"WITH": {"number": number}} for number in (errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.EIO)
    ]),
    "filesystem": (alone(idmap, "_filesystem", "/p"), [
        {}, {"fs.mount_id": 7}, {"posix.open": failed(errno.ENOENT)}, {"fs.mount_id": failed(errno.EIO)},
    ]),
}  # fmt: skip

# -- hooks -----------------------------------------------------------------------------------------

HOOK: Any = {"path": "/bin/h"}
OUTPUT: dict[str, Any] = {
    "hook_failure": "hook failed", "posix.pipe2": (60, 61), "_open_sinks": [70], "_state_file": 62, "_spawn": 41,
        "_pidfd":
    83, "_wait": 0, "posix.open": Answers([70, 71]), "posix.fstat": SimpleNamespace(st_mode=0o100600, st_uid=0),
    "posix.geteuid": 0, "posix.memfd_create": 62, "processes.spawn_hook": 41, "posix.pidfd_open": 83, "posix.waitpid":
    (0, 0), "time.monotonic": 0.0, "_reap": 0, "processes.wait": 7, "posix.environ": {b"A": b"b"},
}  # fmt: skip


def around(w: World) -> Any:
    """The context of the hooks."""
    return hooks.Surroundings("/bundle", w.spy("log"), {"a": "b"})


def waiting(w: World) -> Any:
    """_wait() with a program and its output."""
    program = hooks._Program("/hooks/x/0", HOOK | ({"timeout": w.extra["timeout"]} if "timeout" in w.extra else {}))
    w.answers["poll"] = w.spy("poller")
    output = w.spy("output", fd=60, open=w.extra.get("open", True))
    w.answers["output.text"] = ": text"
    check = w.spy("check") if w.extra.get("check") else None
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_kill", "_reap", "poll"):
            patch.setattr(hooks, name, spies.noting(name, w.notes, w.answers))
        return hooks._wait(program, 83, output, check)


def drained(w: World) -> Any:
    """drain() of an output."""
    one = hooks._Output(60, [70])
    one.tail = w.extra.get("tail", b"")
    one.drain()
    text = one.text()
    return len(one.tail), one.open, len(text), text[:40], len(w.notes)


ENDED = [(83, POLLIN)]
SINKS: list[tuple[Any, Any, Any]] = [
            ((), OUTPUT["posix.fstat"], [70]), (("/b", "/a"), OUTPUT["posix.fstat"], [70, 71]), (("/a", "/a"),
                OUTPUT["posix.fstat"], [70]), (("", "/a"), OUTPUT["posix.fstat"], [70]),
            (("/a",), SimpleNamespace(st_mode=0o010600, st_uid=0), [70]), (("/a",), SimpleNamespace(st_mode=0o020600,
                st_uid=0), [70]), (("/a", "/b"), SimpleNamespace(st_mode=0o100600, st_uid=5), [70]),
            *((("/a", "/b"), OUTPUT["posix.fstat"], [70, failed(number)]) for number in (errno.ELOOP, errno.ENOENT)),
]  # fmt: skip
HOOKS: dict[str, Row] = {
    "program": (lambda w: [spies.state_of(hooks._Program("/p", raw)) for raw in (
        HOOK, HOOK | {"args": []}, HOOK | {"args": ["x", "y"], "env": [], "timeout": 5})], [{}]),
    "errors": (lambda w: [str(one) for words in ("", "words") for program in (hooks._Program("/p", HOOK,
        words),)
        for one in (program.failed("", 5, "v"), program.failed("call", 5, "v"), program.ended("how"), program.ended(
        ""))], [{}]),
    "environment": (lambda w: [hooks._Program("/p", raw).environment() for raw in (HOOK, HOOK | {"env": []},
        HOOK | {
        "env": ["C=d"]})], [{}]),
    "run_hooks": (lambda w: running(w), [
        {"WITH": {"fatal": fatal}, "_run_one": Answers(results)}
        for fatal in (True, False) for results in ([None], [PyruncError("first"), None], [failed(5)])
    ]),
    "run_program": (alone(hooks, "run_program", "/p", HOOK), [{"log.Log": "LOG"}]),
    "run_one": (alone(hooks, "_run_one", hooks._Program("/p", HOOK, "w"), "STATE", around), [
        {}, {"posix.pipe2": failed(errno.EMFILE)}, {"_state_file": failed(errno.ENOMEM)}, {"_spawn": SysError("/p", "x",
            5)}, {"_pidfd": failed(errno.EMFILE)}, {"_wait": 5, "_end": "ended"}, {"_wait": hooks.HookError("late")},
    ]),
    "open_sinks": (alone(hooks, "_open_sinks", "$annotations"), [
        {"WITH": {"annotations": dict(zip(("run.oci.hooks.stdout", "run.oci.hooks.stderr"), paths, strict=False))},
         "posix.fstat": status, "posix.open": Answers(opened)}
        for paths, status, opened in SINKS
    ]),
    "state_file": (alone(hooks, "_state_file", "{}"), [{}, {"fs.write_all": failed(errno.ENOSPC)}, {"fcntl": failed(
        errno.EINVAL)}]),
    "spawn": (lambda w: hooks._spawn(hooks._Program("/p", HOOK | {"args": ["a"], "env": ["E=1"]}, "w"), "/b", 5,
        6),
        [{}, *({"processes.spawn_hook": OSError(2, call)} for call in ("chdir", "execve"))]),
    "pidfd": (alone(hooks, "_pidfd", 41), [
        {}, {"posix.pidfd_open": failed(errno.EMFILE), "posix.waitpid": Answers([(0, 0), (0, 0), (41, 0)])},
    ]),
    "pidfd of one that stays": (lambda w: given_up(w), [{"posix.pidfd_open": failed(errno.EMFILE)}]),
    "drain": (drained, [
        {"posix.read": Answers(reads), "WITH": {"tail": tail}}
        for reads, tail in (
            ([b"a\n b \n\n\xff", b""], b""), ([b"x", BlockingIOError()], b"old"), ([b"x" * 5000, b""], b""), ([b"x"],
                b""),
            ([b"y" * 90, b""], b"x" * 4090), ([b" \n", b""], b""))
    ]),
    "wait": (waiting, [
        {"WITH": extra, "poller.poll": Answers(events), "time.monotonic": Answers(times), **more}
        for extra, events, times, more in (
            ({}, [ENDED], [0.0], {}), ({"check": True}, [[], ENDED], [0.0], {}), ({}, [[(60, 1)], ENDED], [0.0], {}),
            ({"open": False}, [[(60, 1)], [(60, 1), *ENDED]], [0.0], {}), ({"timeout": 2}, [[]], [0.0, 0.5, 2.0], {}),
            ({"timeout": 2, "check": True}, [[], [], ENDED], [0.0, 0.5, 1.0, 1.9, 1.95], {}),
            ({"timeout": 2}, [ENDED], [0.0, 5.0], {}), ({"timeout": 0}, [ENDED], [0.0], {}),
            ({"check": True}, [[]], [0.0], {"check": KeyboardInterrupt()}), ({}, [failed(errno.EINTR)], [0.0], {}),
            ({}, [ENDED], [0.0], {"_reap": failed(errno.ECHILD)}))
    ]),
    "kill": (alone(hooks, "_kill", 83), [{}]),
    "reap": (alone(hooks, "_reap", 83, -1), [
        {"processes.wait": Answers(found)} for found in (
            [5], [InterruptedError(), InterruptedError(), 5], [ChildProcessError()], [TimeoutError()], [failed(5)])
    ]),
    "end": (lambda w: [hooks._end(status) for status in (0, 0x300, 9, 15, 0x8B)], [{}]),
}  # fmt: skip


def running(w: World) -> Any:
    """run_hooks() of two hooks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hooks, "_run_one", spies.noting("_run_one", w.notes, w.answers))
        return hooks.run_hooks("poststop", [HOOK, HOOK], "STATE", around(w), fatal=w.extra["fatal"])


def given_up(w: World) -> Any:
    """How often the end of a hook is looked for."""
    try:
        return hooks._pidfd(41)
    finally:
        w.notes[:] = [f"{w.notes.count('time.sleep(0.01)')} times"]


# -- limits ----------------------------------------------------------------------------------------

FLAGS: list[dict[str, Any]] = [
    {}, {"memory": ""}, {"cpuset-cpus": ""}, {"cpuset-cpus": "0-3", "cpuset-mems": "0"}, {"memory": 5},
    *({flag: "7"} for flag, _, _, _ in update.FIELDS), *({flag: "x"} for flag in ("memory", "cpu-quota")),
]  # fmt: skip
SIZES = ("-1", " -1 ", "5", "5k", "5K", "1.5GiB", "100 kb", "64m", "b", "", "k", "5i", "5ib", "5x", "1.", ".5",
    "1.5", "1.x", "9" * 18,
    "9" * 19, "5t", "5p", "5e", "\u212a", "1.000000000000000000009k", "5kib", "5 b", "5bb", "-2", "0.5k")  # fmt: skip
NUMBERS = ("5", "-5", "", "-", "x", "1" * 19, "1" * 20, "--5", "\u0665", "1.5")
MEMORY: dict[str, Any] = {"limit": 100, "swap": 200}
SECTIONS: Any = [
    {}, {"memory": {"limit": 0, "swap": 0, "reservation": 0, "kernel": 0}}, {"memory": {"limit": -1}},
    {"memory": {"limit": -1, "swap": 5}}, {"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": "",
        "burst":
        0}}, {"cpu": {"idle": 1}}, {"cpu": {"idle": 0, "shares": 7}}, {"cpu": {"idle": 1, "shares": 0}}, {"blockIO": {
        "weight": 0, "leafWeight": 0}}, {"blockIO": {"weight": 0}}, {"devices": []}, {"hugepageLimits": []},
            {"unknown": 1},
    {"pids": {"limit": 0}}, {"unified": {}},
]  # fmt: skip
PAGES = [{"pageSize": "2MB", "limit": 1}]
UPDATE: dict[str, Any] = {
    "container.status": "running", "stored": {"memory": MEMORY, "devices": ["d"]}, "asked": {"memory": {"limit": 5}},
    "merge": {"M": 1}, "lifecycle.driver_of": None, "posix.open": 60, "driver.values": [("f", "v")], "driver.restore": [
        "file"], "fs.read_file": b"150\n", "load.load_config": ({}, b""), "load.parse_json": {},
            "load.read_document": b"D",
    "rdt_class": {"group": "/g"}, "rdt.schemata": "a\nb\n", "parse": "PARSED",
}  # fmt: skip


def updated(w: World) -> Any:
    """update() of a container."""
    w.answers["lifecycle.driver_of"] = w.spy("driver")
    w.answers["change_schemata"] = w.spy("put_back")
    one = w.container
    one.data["cgroup_dir"] = "/cg/c1"
    call = alone(update, "update", one, {"memory": {}}, w.spy("log"), w.extra.get("schemata"), keep="typed")
    w.answers["check"] = dict(w.extra.get("check", {"memory": {"limit": 5}}))
    try:
        return call(w), one.data
    finally:
        w.notes.append(f"resources {one.data.get('resources')}")


def schemata(w: World) -> Any:
    """change_schemata(), and its undo."""
    call = alone(update, "change_schemata", w.container, {"l3": "x\n\n y ", "mb": "z"}, w.spy("log"))
    back = call(w)
    w.notes.append("back:")
    return back()


PAIRS: Any = (
        ({}, {}), ({"memory": MEMORY}, {"memory": {"limit": 5}}), ({}, {"memory": MEMORY}), ({"memory": None},
            {"memory":
        MEMORY}), ({"hugepageLimits": PAGES}, {"hugepageLimits": [{"pageSize": "1GB", "limit": 3}]}),
            ({"hugepageLimits":
        PAGES}, {"hugepageLimits": [{"pageSize": "2MB", "limit": 9}]}), ({}, {"hugepageLimits": PAGES}),
        ({"devices": [1]}, {"devices": [2]}), ({"blockIO": {"weight": 5, "t": [{"major": 1, "minor": 2, "rate": 3}]}},
        {"blockIO": {"t": [{"major": 1, "minor": 2, "rate": 9}, {"major": 1, "minor": 3, "rate": 1}]}}),
        ({}, {"blockIO": {"t": [{"major": 1, "minor": 2}], "weight": 7}}))  # fmt: skip
LIMITS: dict[str, Row] = {
    "from_flags": (lambda w: update.from_flags(w.extra["flags"]), [{"WITH": {"flags": flags}} for flags in FLAGS]),
    "size": (lambda w: [update.size(text) for text in SIZES], [{}]),
    "number": (lambda w: [update.number(text) for text in NUMBERS], [{}]),
    "from_file": (alone(update, "from_file", "/p"), [{}]),
    "asked": (lambda w: [update.asked(one) for one in SECTIONS], [{}]),
    "merge": (lambda w: [update.merge(old, new) for old, new in PAIRS], [{}]),
    "check": (lambda w: update.check(w.extra["pair"][0], w.extra["pair"][1], w.spy("log")), [
        {"WITH": {"pair": pair}} for pair in (
            ({}, {}), ({"memory": {"limit": 5}}, {"memory": {"limit": 5, "swap": 3}, "pids": {"limit": 1}}),
            ({"pids": {"limit": 7}}, {"pids": {"limit": 7}, "cpu": {"quota": 5}}), ({"memory": {"limit": "x"}},
                {"memory":
            {"limit": "x"}}), ({"cpu": {"burst": 9}}, {"cpu": {"burst": 9, "quota": 5000}}))
    ]),
    "stored": (lambda w: update.stored(w.container), [
        {"DATA": {"resources": {"a": 1}}}, {"DATA": {"resources": {}}}, {}, {"load.load_config": ({"linux": {}}, b"")},
        {"load.load_config": ({"linux": {"resources": {"b": 2}}}, b"")},
    ]),
    "update": (updated, [
        {}, *({"container.status": status} for status in ("stopped", "creating", "created", "paused")),
        {"DATA": {"cgroup": None}}, {"WITH": {"check": {"devices": ["new"]}}}, {"WITH": {"check": {"devices": ["d"]}}},
        {"WITH": {"check": {"devices": ["new"]}}, "DATA": {"cgroup": ""}}, {"WITH": {"schemata": {"l3": "x"}}},
        {"WITH": {"check": {"memory": {"checkBeforeUpdate": True}}}},
        {"WITH": {"check": {"devices": ["new"]}, "schemata": {"l3": "x"}}, "container.save": PyruncError("full")},
        {"change": KeyboardInterrupt()}, {"WITH": {"check": {"devices": ["n"]}}, "posix.open": failed(errno.ENOENT)},
        {"WITH": {"check": {"devices": ["n"]}}, "posix.open": 0, "change": PyruncError("no")},
    ]),
    "change": (lambda w: update.change(w.spy("driver"), "/c1", 60, {"memory": {}}, w.extra["rules"]), [
        {"WITH": {"rules": rules}} for rules in (None, [], ["r"])
    ]),
    "put_rules_back": (lambda w: update.put_rules_back(w.spy("driver"), 60, w.extra["old"], w.spy("log")), [
        {"WITH": {"old": {"devices": ["d"]}}}, {"WITH": {"old": {}}}, {"WITH": {"old": {}},
            "driver.devices": PyruncError(
            "no")},
    ]),
    "check_usage": (lambda w: update.check_usage("/cg", w.extra["limits"]), [
        {"WITH": {"limits": limits}, "fs.read_file": text}
        for limits, text in (
            ({}, b"150"), ({"limit": 150}, b"150"), ({"limit": 151}, b"150"), ({"swap": 150, "limit": 1}, b"150"),
                ({"limit":
            -1, "swap": 0}, b"150"), ({"limit": 1}, failed(errno.ENOENT)), ({"limit": 1}, b"x"), ({"limit": 1}, b"1"))
    ]),
    "rdt_class": (lambda w: update.rdt_class(w.container, ["l3", "mb"]), [{}, {"DATA": {"rdt": {"group": "/g"}}}]),
    "change_schemata": (schemata, [
        {"rdt.write_schemata": Answers(found)} for found in (
            [None], [PyruncError("bad"), None], [PyruncError("bad"), PyruncError("worse")], [None, PyruncError("late")])
    ]),
}  # fmt: skip

# -- mounts of a restore ---------------------------------------------------------------------------


FUNCTIONS = (
    "HostMounts", "bind", "remount", "staged", "surrounded", "attributes", "submounts", "mount_empty", "is_directory",
)  # fmt: skip


def mounted(name: str, *args: Any, own: str = "") -> Callable[[World], Any]:
    """A call of a method of the mounts."""

    def call(w: World) -> Any:
        config = w.extra.get("config", {})
        one = w.made(mounts.Mounts, f"{name} {own}", config=config, linux=config.get("linux", {}), bundle="/bundle",
                     tmpfs=["/tmp/"])  # fmt: skip
        given = [mounts.External() if arg == "OUT" else w.extra[arg[1:]] if isinstance(arg, str) and arg[:1] == "$" else
                 arg for arg in args]  # fmt: skip
        w.answers["rootfs.Walk"] = w.spy("walk", fd=9)
        with pytest.MonkeyPatch.context() as patch:
            for other in FUNCTIONS:
                patch.setattr(mounts, other, spies.noting(other, w.notes, w.answers))
            found = getattr(one, name)(*given)
        return found, [arg.request() for arg in given if isinstance(arg, mounts.External)]

    return call


def flags(*options: str) -> Flags:
    """Options of a mount."""
    return Flags([*options])


def facts() -> Any:
    """The host."""
    return SimpleNamespace(cgroup2_mount="/cg", kernel=(6, 1))


PLACES: dict[str, Any] = {
    "namespace": False, "rootfs.resolved": "/at", "mountinfo.read": [SimpleNamespace(point=point, id=number) for number,
        point in enumerate(("/at/x", "/other", "/stage/0/sub", "/stage/0", "/stagex/y"))], "rootfs.kind": "file",
    "binds": [(0, "/d", "/src", flags("rbind")), (2, "/e", "/src2", flags("bind", "ro"))], "hierarchies": ["/sys/cg"],
    "nodes": ["/dev/n"], "staged": Answers(["/stage/null", "/stage/notify", "/stage/0", "/stage/2"]), "surrounded": ("",
        ""), "submounts": {"/stage/0": ["/sub"]}, "attributes": 0, "rootfs.open_root": 60, "below_tmpfs": False,
    "is_directory": True, "posix.open": 60, "posix.readlink": "/mnt/a/src", "fs.mount_id": 3, "posix.fstat":
    SimpleNamespace(st_dev=1, st_ino=2, st_mode=0o040755), "posix.stat": SimpleNamespace(st_dev=1, st_ino=2,
        st_mode=0o040755), "posix.statvfs": SimpleNamespace(f_flag=0x200F), "hostmounts": None,
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "mounts": [{"destination": "/d", "source": "src", "type": "bind", "options": ["rbind"]}, {"destination": "/p",
        "type":
        "proc"}, {"destination": "/e/", "source": "/src2", "options": ["bind", "ro"]}, {"destination": "/sys/cg",
            "type":
        "cgroup"}, {"destination": "/r", "options": ["bind", "remount"], "source": "/x"}, {"destination": "/tmp/in"}],
    "linux": {"devices": [{"path": "/dev/n/"}], "maskedPaths": ["/m1", "/m2"]},
}  # fmt: skip


def surrounding(w: World) -> Any:
    """surrounded() with the mounts of the host."""
    mount = w.extra.get("mount", SimpleNamespace(point="/mnt/a", private=False))
    host = w.spy("host", by_id={3: mount} if mount else {})
    w.answers["host.any_below"] = w.extra.get("below", False)
    return alone(mounts, "surrounded", host, "/stage/0", "/src", "/mounts/0/source")(w)


MOUNTS: dict[str, Row] = {
    "binds": (lambda w: [(*row[:3], row[3].recursive, row[3].set) for row in mounted("binds")(w)[0]], [
        {"WITH": {"config": CONFIG}}, {"WITH": {"config": {"mounts": None}}}, {},
    ]),
    "hierarchies": (mounted("hierarchies"), [{"WITH": {"config": CONFIG}, "namespace": own} for own in (True, False)]),
    "nodes": (mounted("nodes"), [{"WITH": {"config": CONFIG}, "namespace": own} for own in (True, False)] + [{}]),
    "namespace": (mounted("namespace", "user"), [
        {"WITH": {"config": {"linux": {"namespaces": spaces}}}} for spaces in (None, [{"type": "pid"}],
            [{"type": "user"}])
    ]),
    "dumped": (mounted("dumped", 50, 41), [
        {"WITH": {"config": CONFIG}}, {"WITH": {"config": CONFIG}, "rootfs.kind": "dir"},
            {"rootfs.resolved": failed(5)},
        {"WITH": {"config": CONFIG}, "rootfs.resolved": By({"/d": "/p", None: "/z"})},
    ]),
    "restored": (mounted("restored", 50, "/state/c1/criu", facts(), "/notify"), [
        {"WITH": {"config": CONFIG}}, {}, {"stage_binds": failed(errno.ENOMEM)},
    ]),
    "stage_binds": (lambda w: mounted("stage_binds", 50, "/stage", Facts(), "OUT")(w), [
            {"staged": Answers(["/stage/0", "/stage/2"])}, {"namespace": True, "staged": Answers(["/stage/0",
                "/stage/2"])}, {"surrounded": ("/place", "/within")}, {"rootfs.resolved": failed(errno.ENOENT)},
            {"attributes": 0xF, "staged": "/stage/0", "binds": [(0, "/d/", "/s", flags("bind", "nodev", "exec"))]},
            {"staged": "/stage/0", "rootfs.resolved": "/", "binds": [(0, "/", "/s", flags("rbind"))]}]),
    "make_places": (mounted("make_places", 50, "/scratch"), [
        {}, {"bind": SysError("a", "mount", 1)}, {"make_each_place": PyruncError("no")},
            {"rootfs.open_root": failed(5)},
    ]),
    "make_each_place": (mounted("make_each_place", 50), [
        {"WITH": {"config": CONFIG}}, {"WITH": {"config": CONFIG}, "below_tmpfs": By({"/tmp/in": True})}, {},
    ]),
    "make_place": (mounted("make_place", 50, 3, "/d", "$source"), [
        {"WITH": {"source": source}, "is_directory": kind, "walk.go": result}
        for source, kind, result in (
            ("", True, None), ("/s", True, None), ("/s", False, None), ("/s", failed(errno.ENOENT), None),
            ("/s", True, failed(errno.EACCES)), ("/s", True, OSError("none")))
    ]),
    "below_tmpfs": (mounted("below_tmpfs", "$path"), [{"WITH": {"path": path}} for path in ("/tmp", "/tmp/x",
        "/tmpx")]),
    "refuse": (mounted("refuse"), [
        {"WITH": {"config": config}, "namespace": own}
        for config, own in (
            ({}, True), ({}, False), ({"mounts": [{}, {"destination": "/d", "options": ["idmap"]}]}, True),
            ({"linux": {"namespaces": [{"type": "pid"}, {"type": "cgroup", "path": "/c"}]}}, True),
            ({"linux": {"namespaces": [{"type": "cgroup"}]}}, True),
            *(({"linux": {"netDevices": {"a": {}}, "namespaces": [{"type": "network", **more}]}}, True) for more in (
                {}, {"path": "/n"})), ({"linux": {"netDevices": {"a": {}}}}, True),
            ({"linux": {"namespaces": [{"type": "network"}]}}, True),
            *(({"linux": {"seccomp": {"defaultAction": action}}}, True) for action in ("SCMP_ACT_NOTIFY",
                "SCMP_ACT_ALLOW")))
    ]),
    "submounts": (alone(mounts, "submounts", "/stage"), [{}]),
    "outermost": (lambda w: [mounts.outermost(paths) for paths in ([], ["/a", "/b/", "/a/c", "/ab"], ["/"], ["/a/",
        "/a"]
        )] + [mounts.below(path, ["/a/", "/c/"]) for path in ("/a", "/a/b", "/ab", "/b/c", "/c/d", "/", "/z")], [{}]),
    "host mounts": (lambda w: (lambda one: (one.points, sorted(one.by_id), [one.any_below(path) for path in (
        "/at", "/stage", "/stage/0", "/o", "/stage/0/sub", "/zz")]))(mounts.HostMounts()), [{}]),
    "bind": (alone(mounts, "bind", "/p", "/s", b"/t", 0x4000), [{}, {"native.mount": failed(errno.EPERM)}]),
    "mount_empty": (alone(mounts, "mount_empty", "/t"), [{}, {"native.mount": failed(errno.EPERM)}]),
    "staged": (alone(mounts, "staged", "/stage", "n", "/s", "/p", 5), [
        {}, {"is_directory": False}, {"is_directory": failed(errno.ENOENT)}, {"posix.mkdir": failed(errno.EEXIST)},
    ]),
    "surrounded": (surrounding, [
        {}, {"posix.open": failed(errno.ENOENT)}, {"WITH": {"mount": None}}, {"WITH": {"below": True}},
        {"WITH": {"mount": SimpleNamespace(point="/mnt/a", private=True)}}, {"posix.readlink": "/mnt/a"},
        {"posix.readlink": "/mnt/ab"}, {"WITH": {"mount": SimpleNamespace(point="/", private=False)}},
        *({"posix.stat": SimpleNamespace(st_dev=dev, st_ino=ino)} for dev, ino in ((1, 3), (2, 2))),
        {"posix.mkdir": failed(errno.EEXIST)},
    ]),
    "remount": (alone(mounts, "remount", "/m", "$wanted"), [
        {"WITH": {"wanted": wanted}} for wanted in (0, 0xF, 0x200001, 0x100000)
    ] + [{"WITH": {"wanted": 1}, "native.mount": failed(errno.EPERM)}]),
    "attributes": (alone(mounts, "attributes", "/m"), [
        {"posix.statvfs": SimpleNamespace(f_flag=number)} for number in (0, 0xF, 0x2000, 0x1F0, 0x200F)
    ]),
    "is_directory": (alone(mounts, "is_directory", "/m"), [
        {"posix.stat": SimpleNamespace(st_mode=mode)} for mode in (0o040755, 0o100644, 0o060600)
    ]),
}  # fmt: skip
LATE = ("pyrunc.plan.userns",)
TABLES: Tables = [
    ("pyrunc.idmap", IDS, MAPS, ()),
    ("pyrunc.hooks", HOOKS, OUTPUT, ("hook_failure", "fcntl")),
    ("pyrunc.container.update", LIMITS, UPDATE, ()),
    ("pyrunc.checkpoint.mounts", MOUNTS, PLACES, ()),
]  # fmt: skip


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("host_steps", f"{module.removeprefix('pyrunc.')}.{name}", calls_of(module, name, TABLES, LATE))
