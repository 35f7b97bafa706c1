"""What the drivers of cgroups ask of the kernel and of systemd, as in test_steps.py.
golden/cgroup_steps.txt has the tables.
"""

from __future__ import annotations

import errno
import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc.cgroup import bus, cgroupfs, devices, stats
from pyrunc.container import salvage
from pyrunc.errors import Damaged, PyruncError, SysError
from pyrunc.native import bpf
from pyrunc.native import bus as native_bus
from spies import Answers, By, alone
from test_session_steps import Row
from test_steps import Tables, World, calls_of, failed, rows

# -- cgroupfs --------------------------------------------------------------------------------------


class Write(SimpleNamespace):
    """A limit that is short in a table."""

    called = "write"


def limit(controller: str = "cpu", flags: int = 0, **more: Any) -> Any:
    """A limit to write."""
    return Write(**{"controller": controller, "file": f"{controller}.max", "text": "5", "pointer": f"/{controller}",
                    "value": 5, "flags": flags, "other": None} | more)  # fmt: skip


def driver(name: str, *args: Any, own: str = "", **more: Any) -> Callable[[World], Any]:
    """A call of a method of the driver; ``given`` of WITH are its arguments in place of None."""

    def call(w: World) -> Any:
        facts = SimpleNamespace(
            **{"cgroup2_root": "/", "hybrid": False, "rootless": False} | w.extra.get("facts", {}),
            cgroup_dir=lambda path: "/cg" + path,
        )
        one = w.made(cgroupfs.Cgroupfs, f"{name} dir above top {own}", facts=facts, made=[])
        given = [w.extra["given"] if arg is None else arg for arg in args]
        before = [spies.told(arg) for arg in given]
        found = getattr(one, name)(*given, **more)
        return found, one.made, [spies.told(arg) for arg in given if spies.told(arg) not in before]

    return call


def many(**common: Any) -> Callable[..., list[dict[str, Any]]]:
    """Cases that share their first part."""
    return lambda *cases: [common | case for case in cases]


def with_(value: Any, **more: Any) -> dict[str, Any]:
    """A case with an argument."""
    return {"WITH": {"given": value, **more}}


def walking(w: World) -> Any:
    """A removal that finds two directories."""

    def walk(path: str, enter: object, leave: Callable[[int, str], None], deadline: float) -> None:
        leave(5, "x")
        leave(5, "y")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("pyrunc.cgroup"), "tree", SimpleNamespace(walk=walk))
        return driver("remove_below", "/a", 9.0)(w)


ERRORS = [failed(number) for number in (errno.ENOENT, errno.ENODEV, errno.ENOTDIR, errno.EBUSY, errno.ENOTEMPTY,
    errno.EACCES, errno.EIO, errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL)]  # fmt: skip
FILES: dict[str, Any] = {
    "needed": {}, "make": True, "missing": ["/b"], "mkdir": True, "words": ["cpu", "io"], "pairs": {}, "pids": [5, 6],
    "posix.open": 60, "fs.exists": False, "unavailable": PyruncError("unavailable"), "fs.read_file": b"a 1 b x c 3 d",
    "hints.find": "HINT", "enable_all": "", "write": None, "survivors": ", SURVIVORS",
    "wait_event": True, "frozen": False, "time.monotonic": 0.0, "rmdir": True, "remove_below": True, "is_empty": True,
    "host.read": b"sh\n", "host.waits_in": "a wait", "tree.members": [7], "explain": SysError("/x", "write", 5),
}  # fmt: skip
LEFT = {"cpu": limit(), "io": limit("io"), "pids": limit("pids")}
LIMITS: list[dict[str, Any]] = [
    {}, {"devices": [{"allow": True}]}, {"cpu": {}}, {"cpu": {"shares": 5, "quota": 7}, "pids": {"limit": 3}},
    {"memory": {"limit": -1}}, {"memory": {"limit": 4096}, "unified": {"foo.max": "1", "io.x": "2"}},
]  # fmt: skip
CGROUPFS: dict[str, Row] = {
    "top": (lambda w: [driver("top")(w), driver("above", "/a/b")(w), driver("above", "/a")(w)], [
        {}, {"WITH": {"facts": {"cgroup2_root": ""}}}, {"WITH": {"facts": {"cgroup2_root": "/top"}}},
    ]),
    "missing": (driver("missing", "/a/b/c"), [
        {"fs.exists": found} for found in (True, False, By({"/cg/a/b": True}), By({"/cg/a": True}))
    ]),
    "create": (driver("create", None, {"cpu": 1}), [
        with_(path) | case
        for path in ("/a", "/a/b")
        for case in (
            {}, {"needed": {"cpu": "w"}}, {"make": False}, {"posix.open": failed(errno.ENOENT)},
            {"check_usable": PyruncError("in use")}, {"enable": KeyboardInterrupt()}, {"make_threaded": failed(5)},
            {"needed": {"cpu": "w"}, "check_available": PyruncError("no")})
    ]),
    "create below the mount's root": (driver("create", "/top/a", {}), [{"WITH": {"facts": {"cgroup2_root": "/top"}}}]),
    "needed": (lambda w: driver("needed", w.extra["limits"], "/ptr")(w), [
        {"WITH": {"limits": limits}} for limits in LIMITS
    ]),
    "check_available": (driver("check_available", "/a/b/c", LEFT), many(unavailable=PyruncError("u"))(
        {}, {"words": ["cpu", "io", "pids"]}, {"fs.exists": By({"/cg/a": True})}, {"fs.exists": True})),
    "unavailable": (driver("unavailable", [limit(), limit("io")], "/a", None, "", own="unavailable"), [
        with_([]), with_(["x", "y"]), with_([], facts={"hybrid": True}),
    ]),
    "unavailable for a reason": (driver("unavailable", [limit()], "/a", [], None), [
        with_("a reason"), with_("a reason", facts={"hybrid": True}),
    ]),
    "make": (driver("make", "/a/b", []), [
        {"mkdir": Answers(found), "missing": missing}
        for found, missing in (
            ([True], []), ([False], []), ([failed(errno.ENOENT), True, True], ["/a"]),
            ([failed(errno.ENOENT)] * 30, ["/a"]), ([failed(errno.ENOENT), SysError("/a", "mkdir", 13)], ["/a"]),
            ([*[failed(errno.ENOENT)] * 14, True], ["/a"]), ([*[failed(errno.ENOENT)] * 15, True], ["/a"]))
    ]),
    "mkdir": (driver("mkdir", "/a", ["x"]), [
        {"posix.mkdir": found} for found in (None, failed(errno.EEXIST), MemoryError(), *ERRORS)
    ]),
    "unmake": (driver("unmake", ["/a", "/a/b", "/a/b/c"]), [
        {"posix.rmdir": Answers(found)} for found in (
            [None], [failed(errno.ENOENT)], [None, failed(errno.EBUSY), None], [failed(errno.EBUSY)])
    ]),
    "check_usable": (driver("check_usable", "/a"), [
        {"pairs": found, "pids": pids} for found, pids in (
            ({}, []), ({"populated": 0, "frozen": 0}, []), ({"populated": 1}, [5, 6]), ({"populated": 1}, []),
            ({"frozen": 1}, []))
    ]),
    "make_threaded": (driver("make_threaded", "/a", None), [
        with_(needed) | {"words": words}
        for words in ([], ["domain"], ["threaded"], ["domain", "invalid"], ["domain", "threaded"])
        for needed in ({}, {"cpu": limit(), "pids": limit("pids")}, {"io": limit("io"), "cpu": limit()})
    ]),
    "enable": (driver("enable", None, LEFT), [
        with_(path, facts={"cgroup2_root": top}) | {"words": Answers(words), "enable_all": Answers(why)}
        for path, top, words, why in (
            ("/a/b", "/", [["cpu"], ["cpu"]], [""]), ("/a/b", "/", [["x"], [], ["cpu", "io", "pids"]], [""]),
            ("/a/b/c", "/", [["x"], [], ["cpu"]], ["first", ""]), ("/a", "/", [["x"], []], ["", "second"]),
            ("/top/a", "/top", [["x"], []], ["why"]), ("/other/a", "/top", [["x"], []], ["why"]))
    ]),
    "enable_all": (driver("enable_all", "/a"), [
        {"words": Answers(words), "fs.write_file": Answers(writes)}
        for words, writes in (
            ([["cpu"], ["cpu"]], [None]), ([[], ["cpu", "io"]], [None]), ([["cpu"], ["cpu", "io"]], [None]),
            ([[], ["cpu", "io"]], [failed(errno.EBUSY), None, failed(errno.EBUSY)]),
            ([[], ["cpu", "io"]], [failed(errno.EBUSY), failed(errno.EIO), None]))
    ]),
    "apply": (driver("apply", "/a", None), [
        with_(limits) | {"write": Answers(writes)}
        for limits in ({}, {"devices": [1]}, {"cpu": {"quota": 5, "burst": 3}}, {"memory": {"limit": -1, "swap": -1}})
        for writes in ([None], [failed(errno.ENOENT)], [failed(errno.EINVAL), None, None, None],
                       [failed(errno.EINVAL)] * 9, [failed(errno.EIO)])
    ]),
    "values": (driver("values", "/a", None), [
        with_(limits) | {"fs.read_file": Answers(reads)}
        for limits in ({"cpu": {"quota": 5, "shares": 8}}, {"memory": {"limit": -1, "swap": -1}}, {"blockIO": {
            "weight": 7}})
        for reads in ([b"a \xff"], [failed(errno.ENOENT)], [failed(errno.ENOENT), b"b"], [failed(errno.EIO), b"c"])
    ]),
    "restore": (driver("restore", "/a", [("f1", "t"), ("f2", "\udcff"), ("f3", "")]), [
        {"fs.write_file": Answers(writes)} for writes in (
            [None], [failed(5), None], [failed(5), None, None, failed(5)], [failed(5)])
    ]),
    "write": (driver("write", "/d", None), [
        with_(write) | {"fs.write_file": Answers(writes)}
        for write in (limit(), limit(text=""), limit(text="\udcff"), limit(other=("old", "6")))
        for writes in ([None], [failed(errno.ENOENT), None], [failed(errno.EINVAL)])
    ]),
    "explain": (driver("explain", "/a", None, own="explain"), []),
    "oom_kills": (driver("oom_kills", "/a"), [
        {"pairs": found} for found in ({}, {"oom_kill": 3}, {"oom": 3}, SysError("/a", "read", 5))
    ]),
    "is frozen": (driver("frozen", "/a"), [
        {"pairs": found} for found in ({}, {"frozen": 1}, {"frozen": 0}, {"frozen": 2})
    ]),
    "is_empty": (driver("is_empty", "/a"), [{"pairs": found} for found in ({}, {"populated": 1}, {"populated": 0})]),
    "words": (driver("words", "/a", "f"), [{"fs.read_file": found} for found in (b"a  b\n", b"", b"\xff", *ERRORS)]),
    "pairs": (driver("pairs", "/a", "f", own="words"), [{}]),
    "pids": (driver("pids", "/a"), [{}, {"tree.members": failed(errno.EIO)}]),
    "freeze": (driver("freeze", "/a"), [
        {}, {"wait_event": False}, {"set_freeze": PyruncError("no")}, {"wait_event": KeyboardInterrupt()},
    ]),
    "thaw": (driver("thaw", "/a"), [{}, {"wait_event": False}, {"set_freeze": PyruncError("no")}]),
    "set_freeze": (driver("set_freeze", "/a", b"1", "freeze"), [{}, {"write_freeze": failed(errno.ENOENT)}]),
    "write_freeze": (driver("write_freeze", "/a", b"1"), [{}]),
    "wait_event": (driver("wait_event", "/a", "k", None, 3.0), [
        with_(value) | {"pairs": Answers(found), "time.monotonic": Answers(times)}
        for value, found, times in (
            (0, [{}], [0.0]), (1, [{}, {"k": 1}], [0.0]), (1, [{}], [1.0, 4.0, 4.01]), (0, [{"k": 1}, {"k": 0}], [0.0]),
            (1, [*[{}] * 12, {"k": 1}], [0.0]))
    ]),
    "kill": (driver("kill", "/a", None), [
        with_(signal) | {"fs.write_file": result} for signal in (9, 15) for result in (None, *ERRORS)
    ]),
    "kill of one that stays": (driver("kill", "/a", 9, stays=True), [{}]),
    "kill_each": (driver("kill_each", "/a", 15), [
        {"pids": Answers(pids), "frozen": frozen, "posix.kill": Answers(kills), "time.monotonic": Answers(times)}
        for pids, frozen, kills, times in (
            ([[]], False, [None], [0.0]), ([[5]], False, [None], [0.0]), ([[5], [5], [5, 6], [6]], True, [None], [0.0]),
            ([[5, 6]], False, [failed(errno.EPERM), None], [0.0]), ([[5, 6]], False, [failed(errno.EPERM), failed(
                errno.ESRCH)], [0.0]), ([[5, 6]], True, [failed(errno.ESRCH)], [0.0]),
            ([[5], [6], [7]], False, [None], [0.0, 4.9, 5.0]), ([[5], [6], [7]], False, [None], [0.0, 5.0]))
    ]),
    "remove": (driver("remove", "/a/b/c", 2.0, None), [
        with_(made) | {"rmdir": Answers(removed), "remove_below": below, "is_empty": Answers(empty), "time.monotonic":
                       Answers(times)}
        for made, removed, below, empty, times in (
            (None, [True], True, [True], [0.0]), (None, [False, True], True, [True], [0.0]),
            (None, [False, False, True], True, [True], [0.0]), (None, [False, True], False, [True], [0.0]),
            (None, [False], False, [True], [1.0, 3.0, 3.1]), (["/a", "/a/b", "/a/b/c"], [True], True, [True], [0.0]),
            (["/a", "/a/b"], [True, False], True, [True], [0.0]), (["/a", "/x", "/a/b/cd"], [True], True, [True],
                [0.0]),
            (["/a"], [True], True, [False, True], [0.0]), ([], [True], False, [True], [1.0, 3.1]),
            (None, [False] * 20 + [True], False, [True], [0.0]))
    ]),
    "rmdir": (driver("rmdir", "/a"), [{"posix.rmdir": found} for found in (None, *ERRORS)]),
    "remove_below": (driver("remove_below", "/a", 9.0), [{"tree.walk": found} for found in (
        None, *ERRORS, failed(errno.ETIMEDOUT))]),
    "remove_below of children": (
        walking, [{"posix.rmdir": Answers(results)} for results in (
            [None], [failed(errno.ENOENT)], [failed(errno.EBUSY)], [None, failed(errno.ENOTEMPTY)], [failed(5)])]),
    "survivors": (driver("survivors", "/a"), [
        {"pids": pids, "host.read": text} for pids, text in (([], b""), ([5], b"s\xffh\n"), ([5, 6, 7], b"\n"))
    ]),
    "devices": (driver("devices", 5, [], "/p"), [
        {"WITH": {"facts": {"rootless": rootless}}, "devices.attach": result}
        for rootless in (True, False) for result in (None, *(SysError("/p", "bpf", number) for number in (1, 13, 22)))
    ]),
    "devices of an update": (driver("devices", 5, None, replace=True), [
        with_(None, facts={"rootless": True}) | {"devices.attach": SysError("/p", "bpf", 1)}, with_([1]),
    ]),
}  # fmt: skip
CGROUPFS["explain"] = (lambda w: driver("explain", "/a", limit(w.extra["controller"]), w.extra["number"])(w), [
    {"WITH": {"controller": controller, "number": number}}
    for controller in ("cpu", "memory", "new") for number in (errno.ENOENT, errno.EINVAL, errno.EIO)
])  # fmt: skip


# -- systemd's bus ---------------------------------------------------------------------------------

BUS: dict[str, Any] = {
    "fs.getenv": "", "fs.encode": b"ENC", "addresses": [("unix:path=/a", False), ("unix:path=/b", True)],
    "bus.call": None, "reply.read_text": b"/job\xff", "reply": None,
}  # fmt: skip


def peer() -> native_bus.PeerError:
    """A refusal."""
    return native_bus.PeerError("org.name", "words")


def manager(name: str, *args: Any, own: str = "") -> Callable[[World], Any]:
    """A call of a method of the manager, whose connection is a spy."""

    def call(w: World) -> Any:
        w.answers["call"] = w.answers.get("refused") or w.spy("reply")
        w.answers["connection"] = w.spy("bus")
        w.answers["Bus"] = w.answers.get("opened") or w.spy("bus")
        one = w.made(bus.Manager, f"{name} {own}", bus=w.spy("bus") if w.extra.get("open", True) else None)
        given = w.given(args)
        given = [w.spy(arg[1:]) if isinstance(arg, str) and arg[:1] == "@" else arg for arg in given]
        found = getattr(one, name)(*given)
        held = one.bus
        one.bus = None  # before its end
        return found, held

    return call


VALUES = [
    ("s", "text"), ("o", "/o"), ("g", "a"), ("d", 1.5), *((kind, 7) for kind in "ybnqiuxt"), ("b", True), ("ay", b"\1"),
    ("ay", [1, 2]), ("v", ("s", "x")), ("as", ["a", "b"]), ("a{sv}", {"k": ("u", 5)}), ("(su)", ("a", 1)), ("h", 5),
    ("(su)", ("a",)), ("(s)", ("a", "b")), ("z", 1), ("aay", [b"\2"]), ("X", 1),
]  # fmt: skip
CALLS: dict[str, Row] = {
    "addresses": (alone(bus, "addresses", "$user"), [
        {"WITH": {"user": user}, "fs.getenv": By(env), "escape": "ESC"}
        for user, env in (
            (False, {None: ""}), (False, {"DBUS_SYSTEM_BUS_ADDRESS": "x"}), (True, {None: ""}),
            (True, {"XDG_RUNTIME_DIR": "/r", None: ""}), (True, {"XDG_RUNTIME_DIR": "/r", None: "y"}),
            (True, {"XDG_RUNTIME_DIR": "", None: "y"}))
    ]),
    "escape": (alone(bus, "escape", "x"), [{"fs.encode": text} for text in (b"/a-b_c\\*.9Z", b"a b\xff\xe9",
        b"\0%,=")]),
    "connect": (manager("connect", "$user"), [
        {"WITH": {"user": user}, "addresses": found, "opened": opened}
        for user in (True, False)
        for found, opened in (
            (BUS["addresses"], None), (BUS["addresses"][1:], None), ([], None),
            *((BUS["addresses"], failed(number)) for number in (
                *bus._GONE, errno.ENOPKG, errno.EIO, errno.ETIMEDOUT)))
    ]),
    "connect without a listener": (manager("connect", False), [{"listen": SysError("a", "b", errno.ENOENT)}]),
    "close": (manager("close"), [{"WITH": {"open": opened}} for opened in (True, False)]),
    "listen": (manager("listen"), [{}]),
    "call": (manager("call", "Member", ("s", "x"), ("u", 5)), [
        {"bus.call": found} for found in ("REPLY", peer(), failed(errno.ETIMEDOUT))
    ] + [{"bus.message": failed(errno.ENOMEM)}, {"add": ValueError("v")}]),
    "connection": (manager("connection"), [{"WITH": {"open": opened}} for opened in (True, False)]),
    "order": (manager("order", "Member", ("s", "x")), [{}]),
    "job": (manager("job", "Member", ("s", "x")), [
        {"bus.wait_job": found} for found in ("done", "failed", TimeoutError(), failed(errno.ECONNRESET))
    ] + [{"reply.read_text": failed(errno.EINVAL)}]),
    "add": (manager("add", "@message", "$kind", "$value", own="add"), [
        {"WITH": {"kind": kind, "value": value}} for kind, value in VALUES
    ] + [{"WITH": {"kind": "s", "value": "x"}, "message.add_text": failed(errno.EINVAL)}]),
    "start_transient": (manager("start_transient", "u", [("a", ("s", "b"))]), [{}]),
    "stop": (manager("stop", "u"), [
        {"job": found} for found in (None, *(bus.BusError("c", name, "w") for name in (bus.NO_SUCH_UNIT, "x")))
    ]),
    "reset_failed": (manager("reset_failed", "u"), [
        {"order": found} for found in (None, *(bus.BusError("c", name, "w") for name in (bus.NO_SUCH_UNIT, "x")))
    ]),
    "set_properties": (manager("set_properties", "u", [("a", ("s", "b"))]), [{}]),
    "attach": (manager("attach", "u", "/sub", 5), [{}]),
    "control_group": (manager("control_group"), [{}, {"reply.enter": failed(5)}, {"reply.read_text": failed(5)}]),
    "error": (lambda w: [(str(one), one.name) for one in (bus.BusError("c", "n", "w"), bus.BusError("c", "n", ""))],
              [{}]),
    "split": (lambda w: [bus.split(text) for text in ("", "s", "sa(sv)u", "aas(s(u))a{sv}x", "a{s(ii)}")], [{}]),
}  # fmt: skip

# -- statistics and devices ------------------------------------------------------------------------

STAT: dict[str, Any] = {
    "posix.open": 60, "_cpu": {"C": 1}, "_memory": {"M": 1}, "_pids": {"P": 1}, "_block_io": {"B": 1}, "_huge_pages":
    {"H": 1}, "_pressure": {}, "fs.read_file": b"x\xff\n", "tree.processes": [5, 6],
}  # fmt: skip


def part(name: str) -> Callable[[World], Any]:
    """A part of the statistics."""
    return alone(stats, name, 60, keep="number pairs omit_empty _entry _short")


def texts(**files: str) -> dict[str, Any]:
    """Content of files."""
    return {"text": By({name.replace("_", ".", 1): text for name, text in files.items()} | {None: ""})}


MEMORY = {"memory_stat": "file 7\nanon 8\n", "memory_current": "100\n", "memory_max": "200\n", "memory_peak": "150\n"}
PRESSURE = "some avg10=1.50 avg60=2.00 avg300=0.00 total=7\nfull avg10=0.10 other=5 total=1\n"
STATISTICS: dict[str, Row] = {
    "read": (alone(stats, "read", "$directory"), [
        {"WITH": {"directory": "/d"}}, {"WITH": {"directory": ""}},
        {"WITH": {"directory": "/d"}, "posix.open": failed(errno.ENOENT)},
        {"WITH": {"directory": "/d"}, "_memory": SysError("m", "read", 5)},
    ]),
    "text": (alone(stats, "text", 60, "f"), [{}, *({"fs.read_file": error} for error in ERRORS)]),
    "number": (lambda w: [stats.number(text) for text in ("max\n", " 5 ", "", "x", "-1", "5 6")], [{}]),
    "pairs": (lambda w: [stats.pairs(text) for text in ("", "a 1\nb max\nc\nd x\n", "a 1 2")], [{}]),
    "omit_empty": (lambda w: stats.omit_empty(a=0, b=1, c="", d={}, e=[1]), [{}]),
    "cpu": (part("_cpu"), [
        {"text": ""},
            {"text": "usage_usec 5\nsystem_usec 2\nuser_usec 3\nnr_periods 7\nnr_throttled 4\nthrottled_usec 9"},
        {"text": "usage_usec 5\nnr_bursts 2\n", "_pressure": {"some": 1}},
    ]),
    "memory": (part("_memory"), [
        {**texts(**MEMORY | more), "_pressure": pressure}
        for more, pressure in (
            ({"memory_stat": ""}, {}), ({"memory_stat": ""}, {"some": 1}), ({}, {}), ({}, {"full": 2}),
            ({"memory_swap.current": "10", "memory_swap.max": "20"}, {}), ({"memory_stat": "anon 8\n"}, {}),
            ({"memory_swap.current": "10", "memory_swap.max": "max"}, {}), ({"memory_swap.current": "0"}, {}),
            ({"memory_swap.current": "10", "memory_swap.max": "20", "memory_max": "max"}, {}),
            ({"memory_peak": "", "memory_current": "0"}, {}))
    ]),
    "pids": (part("_pids"), [texts(), texts(pids_current="5", pids_max="max"), texts(pids_current="5", pids_max="9"),
                             texts(pids_current="0", pids_max="")]),
    "block_io": (part("_block_io"), [
        {"text": "8:0 rbytes=1 wbytes=2 rios=3 wios=0 dbytes=4\n0:5 rios=6\n7:1\n", "_pressure": pressure}
        for pressure in ({}, {"some": 1})
    ] + [{"text": ""}]),
    "huge_pages": (part("_huge_pages"), [
        {**texts(**{"hugetlb_2MB.current": "5", "hugetlb_1GB.rsvd.current": "7", "hugetlb_1GB.events": "max 3\nx 4"}),
         "posix.scandir": None}
    ]),
    "pressure": (alone(stats, "_pressure", 60, "cpu.pressure", keep="_short"), [{"text": text} for text in ("",
        PRESSURE, "full avg10=3.00 total=2")]),
}  # fmt: skip


def listed(w: World) -> Any:
    """The huge pages of a directory with files of all kinds."""
    names = ["hugetlb.2MB.current", "hugetlb.1GB.max", "hugetlb.1GB.current", "cpu.max", "hugetlb.1GB.rsvd.current",
             "xhugetlb.4MB.current"]  # fmt: skip
    w.answers["posix.scandir"] = w.spy("found")
    w.answers["found"] = None

    class Found:
        called = "found"

        def __enter__(self) -> Any:
            return [SimpleNamespace(name=name) for name in names]

        def __exit__(self, *what: object) -> None:
            w.notes.append("closed")

    w.answers["posix.scandir"] = Found()
    return part("_huge_pages")(w)


STATISTICS["huge_pages"] = (listed, STATISTICS["huge_pages"][1])
NO_SPACE = [bpf.Refused(number, "text", "x" * 300) for number in (errno.E2BIG, errno.EFAULT, errno.EPERM)]
BPF: dict[str, Any] = {
    "allows_everything": False, "program": b"code", "bpf.load_device": 70, "_attached": [71], "bpf.attached": [1, 2],
    "bpf.open_program": Answers([81, 82]),
}  # fmt: skip
RULES: list[Any] = [
    None, [], [{"allow": True, "access": "rwm"}], [{"allow": False, "access": "rwm", "type": "a"}],
    *([{"allow": allow, "access": access, **more}] for allow in (True, False) for access, more in (
        ("rwm", {"type": "c", "major": 1, "minor": 3}), ("r", {"type": "b"}), ("wm", {"major": 5}), ("m", {"minor": 7}),
        ("w", {}), ("rwm", {"type": "b", "major": 8}))),
    *([{"allow": True, "access": access}] for access in ("", "x", "a", "rwx", "ra")),
    [{"allow": True, "access": "r", "type": "c"}, {"allow": False, "access": "rwm"}, {"allow": True, "access": "m"}],
]  # fmt: skip
DEVICES: dict[str, Row] = {
    "flatten": (alone(devices, "flatten", "$rules"), [{"WITH": {"rules": rules}} for rules in RULES]),
    "allows_everything": (alone(devices, "allows_everything", "$rules", keep="flatten"), [
        {"WITH": {"rules": rules}} for rules in RULES[:6]
    ]),
    "program": (alone(devices, "program", "$rules", keep="flatten _insn"),
        [{"WITH": {"rules": rules}} for rules in RULES
        if not rules or rules[0]["access"] in ("rwm", "r", "wm", "m", "w")]),
    "attach": (lambda w: alone(devices, "attach", 5, [1, 2], "/p")(w), [
        {}, {"allows_everything": True}, {"bpf.attach": failed(errno.EINVAL)},
        *({"bpf.load_device": error} for error in NO_SPACE),
    ]),
    "replace": (lambda w: replaced(w), [
        {}, {"allows_everything": True}, {"_attached": []}, {"_attached": [71, 72]},
            {"bpf.attach": failed(errno.EINVAL)},
        {"_attached": SysError("/p", "bpf", 1)}, {"_attached": [71, 72], "_detach": SysError("/p", "bpf", 1)},
    ]),
    "attached": (alone(devices, "_attached", 5, "/p"), [
        {}, {"bpf.attached": failed(errno.EPERM)}, {"bpf.open_program": Answers([failed(errno.ENOENT), 82])},
        {"bpf.open_program": Answers([81, failed(errno.EPERM)])},
    ]),
    "detach": (alone(devices, "_detach", 5, [71, 72, 73], "/p"), [
        {"bpf.detach": Answers(found)} for found in (
            [None], [failed(errno.ENOENT)], [failed(errno.EPERM), None], [None, failed(errno.EINVAL), failed(2)])
    ]),
}  # fmt: skip


def replaced(w: World) -> Any:
    """attach(replace=True)."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("allows_everything", "program", "_attached", "_detach"):
            patch.setattr(devices, name, spies.noting(name, w.notes, w.answers))
        return devices.attach(5, [1, 2], "/p", replace=True)  # type: ignore[list-item]


# -- a damaged state -------------------------------------------------------------------------------

BOOT, START = {"bootid": "b"}, {"pid": 5, "starttime": 7}
SAVED: dict[str, Any] = {
    "fs.names": ["state.json"], "container.read": ValueError("bad"), "content": b"text", "clues": {"pid": 5},
    "earlier_boot": False, "host.snapshot": "FACTS", "first_process": None, "choose": "/c", "made": ["/c"],
    "container.read_bytes": b"bytes", "procfs.boot_id": "b", "procfs.alive": True, "waiting_process": 0,
    "procfs.process_stat": ("S", 77), "posix.open": 60, "posix.fstat": SimpleNamespace(st_ino=1, st_dev=2),
    "posix.getpid": 4, "procfs.processes": [3, 4, 5], "has_open": False, "fs.is_inconclusive": False,
    "posix.stat": SimpleNamespace(st_ino=1, st_dev=2), "cgroup_of": "/of", "asked_for": "/asked", "is_possible": True,
    "fs.exists": False, "host.read": b"0::/a\n", "procfs.pid_namespace": Answers([9, 9, 9]), "tree.members": [5],
    "cgroup.path_for": "/for", "procfs.first_in_namespace": False, "container.fifo": "/fifo",
}  # fmt: skip
PLACES = {"cgroup2_mount": "/m", "own_cgroup": "/own/x", "cgroup2_root": "/top", "rootless": False}


def facts(w: World) -> Any:
    """The host."""
    return SimpleNamespace(**PLACES | w.extra.get("facts", {}), cgroup_dir=lambda path: "/cg" + path)


def kept(w: World) -> Any:
    """The damaged container, without the members of a state."""
    one = w.container
    one.data.clear()
    one.data.update({"pid": w.extra.get("pid", 5)})
    return one


def salvaged(name: str, *args: Any) -> Callable[[World], Any]:
    """A call, and what it has found."""

    def call(w: World) -> Any:
        one = kept(w)
        given = [one if arg is kept else arg for arg in args]
        return alone(salvage, name, *given)(w), one.data

    return call


LISTED: list[list[dict[str, Any]]] = [
    [], [{}], [{"cgroup_made": ["/a", "/a/b"]}], [{"cgroup_made": ["/a"]}], [{"cgroup_made": ["/x", "/a/b"]}],
    [{"cgroup_made": [5, "/a/b"]}], [{"cgroup_made": ["/aa", "/a/b"]}], [{}, {"cgroup_made": ["/a/b"]}],
]  # fmt: skip
SALVAGE: dict[str, Row] = {
    "recover": (salvaged("recover", kept), [
        {}, {"fs.names": []}, {"fs.names": ["notify", ".state.json.tmp"]}, {"container.read": {"id": "c"}},
        {"container.read": Answers([ValueError("bad"), {"id": "i"}])}, {"container.read": failed(errno.ENOENT)},
        {"container.read": failed(errno.EIO)}, {"earlier_boot": True}, {"earlier_boot": Answers([False, True])},
        {"first_process": START}, {"choose": ""}, {"choose": "", "check_alone": Damaged("d")},
    ]),
    "keep": (salvaged("keep", kept), [{}, {"container.save": PyruncError("full")}, {"container.save": MemoryError()}]),
    "content": (salvaged("content", kept, "f"), [
        {"container.read_bytes": found} for found in (b"x", ValueError("large"), *ERRORS)
    ]),
    "clues": (lambda w: [salvage.clues(text) for text in (
        b"", b"{}", b"[]", b'{"pid": 5, "starttime": 7, "bootid": "b", "cgroup": "/c", "cgroup_made": ["/c"], "x": 1}',
        b'{"pid": "5", "starttime": true, "bootid": 5, "cgroup": null, "cgroup_made": {}}',
        b'{"x": 1,"pid":5,"starttime":7,"runtime": {', b'"pid":5,"runtime":', b',"runtime":"pid":5', b'x"pid":5',
        b'"pid":5,"starttime":,"runtime":{')], [{}]),
    "earlier_boot": (alone(salvage, "earlier_boot", "$clue"), [
        {"WITH": {"clue": clue}} for clue in ({}, {"bootid": ""}, {"bootid": "b"}, {"bootid": "c"})
    ]),
    "first_process": (salvaged("first_process", kept, "$found"), [
        {"WITH": {"found": found}, "procfs.alive": alive, "waiting_process": pid}
        for found, alive, pid in (
            ([], True, 0), ([START], True, 0), ([START, BOOT | START], True, 0), ([BOOT | START], False, 0),
            ([BOOT | START], False, 8), ([BOOT], Answers([False]), 9))
    ]),
    "waiting_process": (salvaged("waiting_process", kept), [
        {}, {"has_open": By({5: True, None: False})}, {"has_open": By({4: True, None: False})}, {"has_open": True},
        {"has_open": failed(errno.EMFILE)},
        *({"posix.open": failed(errno.ENXIO), "fs.is_inconclusive": unknown} for unknown in (True, False)),
    ]),
    "has_open": (alone(salvage, "has_open", 5, "$file"), [
        {"WITH": {"file": SimpleNamespace(st_ino=1, st_dev=2)}, "fs.names": names, "posix.stat": stat,
         "fs.is_inconclusive": unknown}
        for names, stat, unknown in (
            ([], None, False), (["0", "3"], Answers([SimpleNamespace(st_ino=1, st_dev=3), SimpleNamespace(st_ino=2,
                st_dev=2)]), False), (["0"], SimpleNamespace(st_ino=1, st_dev=2), False),
            (failed(errno.EACCES), None, False), (failed(errno.ENOMEM), None, True),
            (["0", "1"], Answers([failed(2), SimpleNamespace(st_ino=1, st_dev=2)]), False), (["0"], failed(12), True))
    ]),
    "choose": (lambda w: alone(salvage, "choose", kept(w), "$found", facts)(w), [
        {"WITH": {"found": found, "pid": pid, "facts": {"rootless": rootless}}, "fs.exists": there, "is_possible":
         possible}
        for found, pid, rootless, there, possible in (
            ([], 0, False, False, True), ([{"cgroup": "/1"}, {"cgroup": ""}, {"cgroup": "/2"}], 5, False, False, True),
            ([{"cgroup": "/1"}], 0, False, False, True), ([{"cgroup": "/1"}], 0, True, False, True),
            ([{"cgroup": "/1"}], 5, False, By({"/cg/of": True}), True), ([{"cgroup": "/1"}], 0, False, True, True),
            ([{"cgroup": "/1"}], 0, False, True, By({"/asked": True})), ([{"cgroup": "/1"}], 0, False, True, False))
    ]),
    "made": (lambda w: [salvage.made("/a/b", found) for found in LISTED], [{}]),
    "is_possible": (lambda w: [salvage.is_possible(path, facts(w)) for path in (
        "", "a", "/", "/top", "/a/../b", "/a\0b", "/a", "/own", "/own/x", "/own/x/y", "/ow", "/own/xy", "/top/a")], [
        {"fs.normpath": "/a"}, {"WITH": {"facts": {"cgroup2_mount": ""}}},
    ]),
    "cgroup_of": (alone(salvage, "cgroup_of", 5, facts), [
        {"is_possible": possible, "procfs.pid_namespace": By(spaces), "tree.members": members}
        for possible, spaces, members in (
            (False, {None: 9}, [5]), (True, {None: 9}, [5]), (True, {None: 9}, [5, 6]), (True, {"self": 8, None: 9}, [5,
                6]), (True, {"self": 8, 6: 7, None: 9}, [5, 6]), (True, {"self": 8, None: 9}, []))
    ]),
    "asked_for": (salvaged("asked_for", kept, facts), [
        {"content": text, "cgroup.path_for": found}
        for text, found in (
            (b"", "/f"), (b"{}", "/f"), (b"[]", "/f"), (b'{"linux": {"cgroupsPath": "/a:b:c"}}', "/f"),
            (b'{"linux": {"cgroupsPath": "a:b:c"}, "annotations": {"x": "y"}}', "/f"),
            (b'{"linux": {"cgroupsPath": "a:b:c"}, "annotations": null}', "/f"),
            (b'{"linux": {"cgroupsPath": "a/b"}}', "/f"), (b'{"linux": {"cgroupsPath": ""}}', "/f"),
            (b'{"linux": {"cgroupsPath": 5}}', "/f"), (b'{"linux": {"cgroupsPath": "/a"}}', PyruncError("no")),
            (b'{"linux": {"cgroupsPath": "/a"}}', SysError("a", "b", 5)), (b'{"linux": 5}', "/f"))
    ]),
    "check_alone": (lambda w: alone(salvage, "check_alone", kept(w), "$found")(w), [
        {"WITH": {"pid": pid, "found": found}, "procfs.first_in_namespace": first}
        for pid, found, first in (
            (5, [], True), (5, [], False), (0, [], True), (0, [{"cgroup": "", "pid": 5, "starttime": 7}], False),
            (0, [{"cgroup": "", "pid": 1, "starttime": 7}], False), (0, [{"cgroup": "", "pid": 0, "starttime": 7}],
                False), (0, [{"cgroup": "", "pid": 5}], False), (0, [{"cgroup": "/c", "pid": 5, "starttime": 7}],
                    False),
            (0, [{"cgroup": "", "starttime": 7}], False), (5, [{"cgroup": "", "pid": 5, "starttime": 7}], False))
    ]),
}  # fmt: skip
LATE = ("pyrunc.cgroup.tree", "pyrunc.cgroup.devices", "pyrunc.procfs")
TABLES: Tables = [
    ("pyrunc.cgroup.cgroupfs", CGROUPFS, FILES, ()),
    ("pyrunc.cgroup.bus", CALLS, BUS, ("Bus",)),
    ("pyrunc.cgroup.stats", STATISTICS, STAT, ()),
    ("pyrunc.cgroup.devices", DEVICES, BPF, ()),
    ("pyrunc.container.salvage", SALVAGE, SAVED, ()),
]


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("cgroup_steps", f"{module.removeprefix('pyrunc.')}.{name}", calls_of(module, name, TABLES, LATE))
