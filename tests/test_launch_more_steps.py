"""What the smaller parts of launch ask of the system, as in test_steps.py: mounts of a running container,
netlink, namespaces to join, tools, the end of children. golden/launch_more_steps.txt has the tables.
"""

from __future__ import annotations

import errno
import itertools
import sys
from collections.abc import Callable
from struct import pack
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc import idmap
from pyrunc.errors import ConfigError, PyruncError, SysError
from pyrunc.launch import added_mounts, ending, joined, netdev, rootless, seccomp_log, tools
from pyrunc.launch.netdev import NLM_F_ACK_TLVS
from pyrunc.launch.session import InitSession
from pyrunc.launch.undo import Undo
from spies import Answers
from test_session_steps import Row, both
from test_steps import Tables, World, calls_of, failed, rows

# -- mounts of a running container -----------------------------------------------------------------


def added(number: int, *, at: str = "", pending: bool = False, unique: int = 0, to: str = "") -> dict[str, Any]:
    """A mount in the state."""
    entry = {"destination": to or f"/m{number}", "type": "bind"}
    return {"entry": entry, "id": 100 + number, "unique": unique, "at": at or f"/m{number}", "pending": pending}


MOUNTING: dict[str, Any] = {
    "host.snapshot": "FACTS", "rules.check": ["w"], "plans.compile_add": SimpleNamespace(warnings=["p"]),
        "rules.SOURCE":
        "mounts",
    "plans.compile_remove": "PLAN", "options": "OPTIONS", "joined.open_namespaces": [("user", "/u"), ("net", "/n"),
        ("mount", "/m")],
    "mountinfo.read": [SimpleNamespace(id=101, point="/p1"), SimpleNamespace(id=102, point="")], "target.save": None,
    "table": SimpleNamespace(points={101: "/p1", 102: "/p2"}, shows=lambda number: number == 101), "commit": None,
    "load.load_config": ({"mounts": []}, b""), "plans.SHOWS": {"proc": "pid", "mqueue": "ipc"}, "idmap.open_mount": 66,
    "container.status": "running", "fs.ignore": None, "added_now": [], "choose": ["c"], "spawn": None,
}  # fmt: skip


def session(w: World, kind: type[Any], own: str, **attributes: Any) -> Any:
    """A session whose methods are noted but for ``own``."""
    data = {"pid": 41, "cgroup": "/c1", "bundle": "/bundle"} | w.extra.get("data", {})
    return w.made(
        kind, own, target=w.spy("target", id="c1", data=data), config={"c": 1}, log=w.spy("log"), ns_fds={"/u": 81,
            "/m": 82},
        committed=False, enter_pid=31, channel=w.spy("channel", fd=71), opts="OPTS", **attributes,
    )  # fmt: skip


def after(one: Any, result: Any) -> Any:
    """A result, and what the call has changed."""
    names = ("committed", "ns_fds", "plan", "added", "chosen", "places", "results", "entries")
    return result, {name: getattr(one, name) for name in names if hasattr(one, name)}, one.target.data


def adding(name: str, *args: Any) -> Callable[[World], Any]:
    """A call of a method of an addition."""

    def call(w: World) -> Any:
        w.extra = {"record": None} | w.extra
        entries = w.extra.get("entries", [{"type": "bind"}, {"type": "proc"}, {}])
        one = session(w, added_mounts.Add, name, entries=entries, added=w.extra.get("added", []))
        return after(one, getattr(one, name)(*w.given(args)))

    return call


def removing(name: str, *args: Any) -> Callable[[World], Any]:
    """A call of a method of a removal."""

    def call(w: World) -> Any:
        w.extra = {"record": None} | w.extra
        chosen = w.extra.get("chosen", [added(1), added(2)])
        one = session(w, added_mounts.Remove, name, chosen=chosen, places=w.extra.get("places", ["/p1", "/p2"]),
                      results=w.extra.get("results", []))  # fmt: skip
        one.target.data["mounts"] = [added(0), *chosen]
        return after(one, getattr(one, name)(*w.given(args)))

    return call


def executed(w: World) -> Any:
    """execute() of a session that fails before or after the state is written."""
    one = session(w, added_mounts.MountSession, "execute")
    one.committed = w.extra["committed"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InitSession, "execute", spies.noting("execute", w.notes, w.answers))
        return one.execute()


def handled(w: World) -> Any:
    """The names of the handlers."""
    one = session(w, added_mounts.MountSession, "handlers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InitSession, "handlers", lambda self: {"placed": 1, "warn": 2, "tree": 3})
        return one.handlers()


def slot(w: World) -> Any:
    """open_slot() of both classes."""
    kind = w.extra["of"]
    one = session(w, kind, "open_slot", entries=["E"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InitSession, "open_slot", spies.noting("open_slot", w.notes, w.answers))
        patch.setattr(idmap, "open_mount", spies.noting("idmap.open_mount", w.notes, w.answers))
        return one.open_slot(w.extra["kind"], "/u", "/origin"), one.ns_fds


def read_table(w: World) -> Any:
    """table(), with a Tree that is noted."""
    return session(w, added_mounts.MountSession, "table").table()


RECORD = SimpleNamespace(value=101, call="77")
SESSION: dict[str, Row] = {
    "handlers": (handled, [{}]),
    "execute": (executed, [
        {"WITH": {"committed": committed}, "execute": error}
        for committed in (True, False)
        for error in (None, MemoryError(), failed(errno.EIO), PyruncError("p"), ValueError("v"))
    ]),
    "commit": (lambda w: after(one := session(w, added_mounts.MountSession, "commit"), one.commit()), [
        {}, {"target.save": failed(errno.ENOSPC)}, {"send": PyruncError("gone")},
    ]),
    "steps": (lambda w: session(w, added_mounts.MountSession, "steps").steps("INTERRUPTS"), [{}]),
    "close": (lambda w: after(one := session(w, added_mounts.MountSession, "close"), one.close()), [{}]),
    "activated": (lambda w: session(w, added_mounts.MountSession, "activated").activated(), [{}]),
    "options": (lambda w: spies.state_of(session(w, added_mounts.MountSession, "options").options(w.extra["shown"])), [
        {"WITH": {"shown": {"net"}}}, {"WITH": {"shown": set()}}, {"WITH": {"shown": {"net"}, "data": {"bundle": ""}}},
        {"WITH": {"shown": {"net"}}, "joined.open_namespaces": []},
        {"WITH": {"shown": {"net"}}, "joined.open_namespaces": [("user", "/u"), ("net", "/n")]},
    ]),
    "open_slot": (slot, [{"WITH": {"of": kind, "kind": of}} for kind in (added_mounts.MountSession, added_mounts.Add)
                         for of in ("ns", "idmap", "other")]),
    "table": (read_table, [{}, {"mountinfo.read": failed(errno.ENOENT)}]),
    "prepare": (adding("prepare"), [{}]),
    "on_tree": (adding("on_tree", "$record"), [
        {"WITH": {"record": SimpleNamespace(value=5, call=call), "added": [added(n) for n in range(count)]}}
        for call in ("77", "", "7x") for count in (0, 2, 3)
    ]),
    "on_mounted": (adding("on_mounted", "$record"), [
        {"WITH": {"added": [added(1)]}}, {"WITH": {"added": [added(1)], "data": {"mounts": [added(0)]}}},
    ]),
    "on_ready": (adding("on_ready", "$record"), [
        {"WITH": {"added": [added(1, pending=True), added(2, pending=True)]}},
        {"WITH": {"added": [added(1, pending=True), added(3, pending=True)]}},
        {"WITH": {"added": [added(1, pending=True)]}, "commit": failed(errno.ENOSPC)},
    ]),
}  # fmt: skip
READY = [
    {"WITH": {"chosen": [added(number, unique=unique)], "places": [place], "results": [result]}}
    for number, unique, place, result in (
        (1, 0, "/p1", True), (1, 0, "/p1", False), (1, 5, "/p1", False), (1, 5, "/x", False), (2, 5, "/p2", False),
        (3, 0, "/p3", False), (3, 5, "/p3", True),
    )
]  # fmt: skip
REMOVAL: dict[str, Row] = {
    "prepare": (removing("prepare"), [{}, {"mountinfo.read": failed(errno.ENOENT)},
                                      {"WITH": {"chosen": [added(1), added(2), {**added(3), "at": ""}]}}]),
    "on_mounted": (removing("on_mounted", "$record"), [
        {}, {"WITH": {"places": ["/p1", "/other"]}}, {"WITH": {"chosen": [added(5)], "places": ["/other"]}},
    ]),
    "on_tree": (removing("on_tree", "$record"), [
        {"WITH": {"record": SimpleNamespace(value=value)}} for value in (0, 1, 2)
    ]),
    "on_ready": (removing("on_ready", "$record"), READY),
}  # fmt: skip


def all_mounts(w: World, own: str) -> Any:
    """The mounts of a container."""
    w.answers["Add"], w.answers["Remove"] = w.spy("add"), w.spy("remove")
    kinds = {"adding": w.spy("Add"), "removing": w.spy("Remove")}
    made = type("Mounts", (added_mounts.Mounts,), kinds)
    w.data["mounts"] = w.extra.get("mounts", [])
    return w.made(made, own, container=w.container, log=w.spy("log"), config={"c": 1})


def of_mounts(name: str, *args: Any) -> Callable[[World], Any]:
    """A call of a method."""
    return lambda w: getattr(all_mounts(w, name), name)(*args)


MOUNTS: dict[str, Row] = {
    "init": (lambda w: spies.state_of(added_mounts.Mounts(w.container, w.spy("log"))), [{}]),
    "add": (of_mounts("add", [{"destination": "/a"}]), [
        {}, {"add.execute": PyruncError("p")}, {"add.execute": KeyboardInterrupt()}, {"usable": PyruncError("stopped")},
        {"recover": PyruncError("r")},
    ]),
    "add nothing": (lambda w: all_mounts(w, "add").add([]), [{}]),
    "remove": (of_mounts("remove", [{"destination": "/a"}, {"destination": "/b"}]), [{}, {"choose": []}]),
    "added_now": (of_mounts("added_now"), [{}, {"WITH": {"mounts": [added(1)]}}]),
    "usable": (of_mounts("usable"), [
        {"container.status": status} for status in ("created", "running", "paused", "stopped", "creating")
    ]),
    "recover": (of_mounts("recover"), [
        {"added_now": [added(number, pending=pending) for number, pending in enumerate(mounts)]}
        for mounts in ([], [False], [True], [True, False, True])
    ]),
    "salvage": (of_mounts("salvage"), [
        {"recover": found} for found in (None, PyruncError("p"), failed(errno.EIO), ValueError("v"))
    ]),
    "detach": (of_mounts("detach", ["c"]), [
        {"remove.execute": Answers([*(added_mounts.MovedError() for _ in range(count)), None])} for count in range(4)
    ]),
}  # fmt: skip


def test_which_mounts_are_chosen() -> None:
    config: Any = {"mounts": [{"destination": "/proc/"}, {"destination": "/config/a"}]}
    same = [added(1, at="/a", to="/a"), added(2, at="/b", to="/b/"), added(3, at="/a", to="/a")]
    nested = [
        added(1, at="/a", to="/a"),
        added(2, at="/a/b", to="/a/b"),
        added(3, at="/ab", to="/ab"),
        added(4, at="/x", to="/l"),
    ]
    lines = []
    for mounts, wanted in itertools.product(
        ([], same, nested, nested[::-1]),
        ([], ["/a"], ["/a/"], ["/a", "/a"], ["/a", "/a", "/a"], ["/b", "/a"], ["/a/b"], ["/a/b", "/a"], ["/a", "/ab"],
         ["/x"], ["/l"], ["/proc"], ["/none", "/config/a/", "/b"]),
    ):  # fmt: skip
        try:
            found = str([mount["id"] for mount in added_mounts.choose(mounts, wanted, config)])
        except ConfigError as error:
            found = str(error)
        lines.append(f"{[mount['at'] for mount in mounts]} {wanted}: {found}")
    transcript.compare("launch_more_steps", "choose", lines, cut=True)


# -- netlink ---------------------------------------------------------------------------------------


class Message(dict[str, Any]):
    """A message of pyroute2: its content is what was parsed."""

    called = "message"

    def __init__(self, body: bytes = b"") -> None:
        super().__init__(header={}, body=body, index=len(body), flags=7)
        self.data = bytearray(b"data")

    def encode(self) -> None:
        """Append what would be sent."""
        self.data += repr((self["header"], self.get("index"), self.get("attrs"), self.get("change"))).encode()

    def decode(self) -> None:
        self["decoded"] = True

    def get_attr(self, name: str) -> Any:
        return f"{name} of {len(self['body'])}"


def answer(kind: int, body: bytes = b"", *, sequence: int = 4, flags: int = 0, length: int = -1) -> bytes:
    """A message of the kernel, padded."""
    data = pack("=IHHII", 16 + len(body) if length < 0 else length, kind, flags, sequence, 0) + body
    return data + bytes(-len(data) % 4)


def refusal(number: int, words: bytes = b"", *, flags: int = 0, echoed: bytes = b"", other: bytes = b"") -> bytes:
    """An NLMSG_ERROR, with an extended acknowledgement for ``words``."""
    body = pack("=i", -number) + pack("=IHHII", 16 + len(echoed), 16, 0, 4, 0) + echoed + bytes(-len(echoed) % 4)
    if other:
        body += pack("=HH", 4 + len(other), 2) + other + bytes(-len(other) % 4)
    if words:
        body += pack("=HH", 4 + len(words), 1) + words + bytes(-len(words) % 4)
    return answer(2, body, flags=flags)


class Quiet(netdev.Namespace):
    """A namespace that is not closed by the garbage collector."""

    called = "namespace"

    def __del__(self) -> None:
        pass


def requested(w: World) -> Any:
    """The results of a request."""
    one = w.made(Quiet, "request", fd=21, sock=22, sequence=3, link_message=Message)
    found = one.request(18, 0x300, Message())
    return [(entry["body"], entry["decoded"]) for entry in found], one.sequence


def opened(w: World) -> Any:
    """A namespace, and what closing it does."""
    one = Quiet("/proc/41/ns/net")
    first = spies.state_of(one)
    one.close()
    return first, spies.state_of(one)


def closed(w: World) -> Any:
    """close() with these descriptors."""
    one = w.made(Quiet, "close", fd=21, sock=22)
    one.close()
    return one.fd, one.sock


def asked(name: str, *args: Any, **more: Any) -> Callable[[World], Any]:
    """A method that sends a request."""
    return lambda w: getattr(w.made(Quiet, name, fd=21, sock=22, sequence=3, link_message=Message,
                                    address_message=Message), name)(*args, **more)  # fmt: skip


def moved(w: World) -> Any:
    """move(), with its class replaced."""
    w.answers["Move"] = w.spy("job")
    return netdev.move({"eth0": {}}, 41, w.spy("log"))


NETLINK: dict[str, Any] = {
    "_messages": (Message, Message), "posix.open": 21, "sockets.netlink_in": 22, "posix.read": Answers([answer(3)]),
    "posix.write": 5, "Namespace": None,
}  # fmt: skip
DONE, OK = answer(3), refusal(0)
NAMESPACE: dict[str, Row] = {
    "init": (opened, [{}, {"sockets.netlink_in": failed(errno.EPERM)}, {"posix.open": failed(errno.ENOENT)}]),
    "close": (closed, [{"SELF": {"fd": fd, "sock": sock}} for fd in (21, 0, -1) for sock in (22, 0, -1)]),
    "request": (requested, [
        {"posix.read": Answers(found)}
        for found in (
            [DONE], [OK], [answer(16, b"body"), DONE], [answer(16, b"one") + answer(16, b"two!!"), answer(16) + DONE],
            [answer(16, b"x", sequence=3), DONE], [answer(16, b"b") + DONE + answer(16, b"late")],
                [refusal(errno.EPERM)],
            [answer(16, b"z", length=0), DONE], [answer(16, b"z", length=5) + DONE, DONE], [DONE[:15], DONE],
            [answer(16, b"abcd", length=9999), DONE], [answer(2, pack("=i", 0),
                sequence=9), DONE],
        )
    ]),
    "links": (asked("links"), [{"request": [Message(b"one"), Message(b"three")]}, {"request": []}]),
    "set_link": (asked("set_link", 5, [("A", 1)]), [{}]),
    "set_link up": (asked("set_link", 5, [], up=True), [{}]),
    "move": (moved, [{}]),
}  # fmt: skip


def test_errors_of_netlink() -> None:
    lines = []
    for number, words, flags, echoed, other in itertools.product(
        (0, 1, 17), (b"", b"Why not\0", b"\xff"), (0, 0x100, 0x200, 0x300), (b"", b"abc", b"abcd"), (b"", b"o", b"fore")
    ):
        data = refusal(number, words, flags=flags, echoed=echoed, other=other)
        try:
            netdev._check_ack(data, flags)
            found = "no error"
        except netdev.NetlinkError as error:
            found = f"{error.errno} {error.args}"
        lines.append(f"{number} {words!r} {flags} {echoed!r} {other!r}: {found}")
    for more in (pack("=HH", 6, 2) + b"xy", pack("=HH", 4, 1), pack("=HH", 4, 0xC001), b"abc"):
        data = refusal(errno.EPERM, b"Words\0", flags=NLM_F_ACK_TLVS)
        with pytest.raises(netdev.NetlinkError) as raised:
            netdev._check_ack(data + more, NLM_F_ACK_TLVS)
        lines.append(f"{more!r} after the words: {raised.value.args}")
    errors: list[BaseException] = [ValueError("v"), OSError("none"), netdev.NetlinkError(0, "x"), KeyboardInterrupt(),
              *(netdev.NetlinkError(number, words) for number in (1, 16, 17, 19, 22, 5) for words in ("",
                  "Some Words")),
              OSError(errno.EPERM, "Operation Not permitted")]  # fmt: skip
    for given in errors:
        made = netdev._as_sys_error(given, "/p", "eth0")
        lines.append(f"{given!r}: {type(made).__name__} {made}")
    for args in (("eth0", "net%d", 5, True), ("a/b~c", "x", 0, False)):
        lines.append(str(spies.state_of(netdev.Device(*args, []))))
    transcript.compare("launch_more_steps", "errors of netlink", lines, cut=True)


def test_a_namespace_that_was_not_opened_has_nothing_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    monkeypatch.setattr(netdev, "_messages", lambda: (dict, dict))
    with pytest.raises(FileNotFoundError):
        netdev.Namespace("/none/ns/net")
    assert ignored == []


# -- the rest --------------------------------------------------------------------------------------

END: dict[str, Any] = {
    "signals.caught": 0, "processes.await_end": None, "await_end": None, "where": "WHERE", "posix.waitpid": (41, 9),
    "host.read": Answers([b"7 8 9\n", b"pyrunc-init\n", b"other\n", b"pyrunc-init\n"]), "host.waits_in": "a wait",
}  # fmt: skip


def caught(w: World) -> Any:
    """What the signals of a session do."""
    one = ending.Interrupts()
    found = [one.caught, spies.record(one.check, (), [])]
    one.restore()
    for error in (ValueError("v"), PyruncError("p")):
        found.append(spies.record(lambda error=error: ending.raise_interrupted(one, error), (), []))
    return found


ENDS: Any = [{"processes.await_end": Answers(found)} for found in (
    [None], [InterruptedError(), None], [InterruptedError(), InterruptedError(), None], [TimeoutError()],
    [ChildProcessError()], [failed(errno.EINVAL)],
)]  # fmt: skip
CHILDREN: dict[str, Row] = {
    "interrupts": (caught, [{}, {"signals.caught": 15}, {"signals.restore": failed(errno.EINVAL)}]),
    "unknown_children": (lambda w: ending.unknown_children(), [{}, {"host.read": b""}]),
    "where": (lambda w: ending.where(41), [{"host.read": text} for text in (b"init\n", b"", b"\xff\n")]),
    "await_end": (lambda w: ending.await_end(41, w.spy("interrupts")), ENDS),
    "await_end without interrupts": (lambda w: ending.await_end(41), ENDS),
    "has_ended": (lambda w: ending.has_ended(41), [{}, {"processes.await_end": TimeoutError()},
                                                   {"processes.await_end": failed(errno.ECHILD)}]),
    "reap": (lambda w: ending.reap(41, w.spy("interrupts")), [{}, {"posix.waitpid": ChildProcessError()}]),
}  # fmt: skip
OURS = SimpleNamespace(st_ino=1, st_dev=1)
JOIN: dict[str, Any] = {
    "posix.open": Answers(list(range(60, 80))), "fs.exists": True, "procfs.alive": True, "container.status": "running",
    "exec.NAMESPACES": {"user": "user", "cgroup": "cgroup", "mount": "mnt"},
}  # fmt: skip


def stats(*theirs: Any) -> Answers:
    """Pairs of our namespaces and theirs."""
    return Answers([one for found in theirs for one in (OURS, found)])


def joining(w: World) -> Any:
    """The namespaces to join, and their descriptors."""
    fds: dict[str, int] = {}
    w.data["starttime"] = 77
    return joined.open_namespaces(w.container, fds, "exec"), fds


OTHER, DEVICE = SimpleNamespace(st_ino=2, st_dev=1), SimpleNamespace(st_ino=1, st_dev=2)
SPACES: dict[str, Row] = {
    "open_namespaces": (joining, [
        {"posix.stat": stats(OTHER, DEVICE, OTHER)}, {"posix.stat": stats(OURS, OTHER, OURS)},
        {"posix.stat": stats(OTHER, failed(errno.ENOENT), OTHER)},
        {"posix.stat": Answers([OURS, OTHER, FileNotFoundError(), OURS, OTHER])},
        {"posix.stat": FileNotFoundError(), "fs.exists": False}, {"posix.stat": ProcessLookupError()},
        {"posix.stat": stats(OTHER, OTHER, OTHER), "posix.open": PermissionError(errno.EACCES, "x")},
        {"posix.stat": stats(OTHER), "posix.open": PermissionError(errno.EPERM, "x"), "container.status": "created"},
        {"posix.stat": stats(OTHER, OTHER, OTHER), "procfs.alive": False}, {"posix.stat": failed(errno.EIO)},
    ]),
}  # fmt: skip
MOUNT = {"mounts": [{"destination": "/x"}, {"destination": "/proc/"}]}


def tooled(w: World) -> Any:
    """prepare() of tools, and the options after it."""
    options: Any = SimpleNamespace(joined=w.extra.get("joined", [("user", "/u"), ("mount", "/m")]), tools="")
    process: Any = {"args": ["x"], **w.extra.get("process", {})}
    return tools.prepare("/tools", w.extra.get("config", MOUNT), process, options), options.tools, process


PROGRAMS: list[dict[str, Any]] = [
            {"joined": []}, {"joined": [("mount", "/m"), ("user", "/u")]}, {"config": {}},
            {"config": {"mounts": [{"destination": "/proc/x"}]}}, {"process": {"env": ["A=1", "PATH=/a",
                "PATH=/b:/c"]}},
            {"process": {"env": ["XPATH=/a"]}}, {"process": {"env": ["PATH="]}},
]  # fmt: skip
TOOLS: dict[str, Row] = {
    "prepare": (tooled, [
        {}, {"posix.stat": failed(errno.ENOENT)},
        *({"posix.stat": SimpleNamespace(st_mode=mode)} for mode in (0o100755, 0o120777, 0o060755)),
        *({"WITH": changed} for changed in PROGRAMS),
    ]),
    "open_tree": (lambda w: tools.open_tree("/tools", "/proc/41/ns/user"), [
        {"posix.stat": Answers([SimpleNamespace(st_ino=1), SimpleNamespace(st_ino=2)]), "mounts.map_ids": result}
        for result in (None, *map(failed, (errno.EINVAL, errno.EPERM, errno.EIO)))
    ] + [{"posix.stat": SimpleNamespace(st_ino=1)}, {"mounts.open_tree": failed(errno.ENOENT)},
         {"posix.stat": failed(errno.ESRCH)}]),
}  # fmt: skip
TABLES: Tables = [
    ("pyrunc.launch.added_mounts", SESSION | {f"remove.{name}": row for name, row in REMOVAL.items()}
     | {f"mounts.{name}": row for name, row in MOUNTS.items()}, MOUNTING, ()),
    ("pyrunc.launch.netdev", NAMESPACE, NETLINK, ("_messages", "Move")),
    ("pyrunc.launch.ending", {name: row for name, row in CHILDREN.items() if "await" in name}, END, ("where",)),
    ("pyrunc.launch.joined", SPACES, JOIN, ()),
    ("pyrunc.launch.tools", TOOLS, {"posix.stat": SimpleNamespace(st_mode=0o040755), "posix.open": 60,
                                    "mounts.open_tree": 61}, ()),
]  # fmt: skip


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("launch_more_steps", f"{module.removeprefix('pyrunc.')}.{name}", calls_of(module, name, TABLES))


@pytest.mark.parametrize("name", [name for name in CHILDREN if "await" not in name])
def test_children(name: str) -> None:
    """await_end() is replaced here, and where() is not."""
    tables: Tables = [("pyrunc.launch.ending", CHILDREN, END, ("await_end",))]
    if name == "has_ended":
        tables = [("pyrunc.launch.ending", CHILDREN, END, ())]
    transcript.compare("launch_more_steps", f"launch.ending.{name}", calls_of("pyrunc.launch.ending", name, tables))


def test_undo() -> None:
    notes: list[str] = []

    def named(name: str, error: BaseException | None = None) -> Callable[..., object]:
        def release(*args: object) -> None:
            notes.append(f"{name} {args}")
            if error is not None:
                raise error

        release.__name__ = name
        return release

    one, two, bad = named("one"), named("two"), named("bad", ValueError("v"))
    made = Undo()
    made.push(one, 1, 2)
    made.push(bad)
    made.push(two)
    made.push(one)
    assert (made.holds(one), made.holds(named("one"))) == (True, False)
    made.keep(two)
    assert [entry[0].__name__ for entry in made.entries] == ["one", "bad", "one"]
    assert made.run() == ["bad: v"] and notes == ["one ()", "bad ()", "one (1, 2)"]
    assert made.entries == [] and made.run() == ["bad: v"]
    made.push(one)
    made.forget()
    assert made.run() == ["bad: v"] and not made.holds(one)
    made.push(named("stops", KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        made.run()


# -- rootless, and the log of seccomp --------------------------------------------------------------


def test_a_container_without_a_cgroup() -> None:
    lines = []
    pid = {"namespaces": [{"type": "mount"}, {"type": "pid"}]}
    for linux in (None, {}, pid, {"namespaces": None}, {"cgroupsPath": ""}, {"cgroupsPath": "/c"},
                  {"resources": {"memory": {"limit": 5}}}, {"resources": {"devices": [{"allow": False}]}} | pid,
                  {"resources": {"memory": {"limit": 5}, "pids": {"limit": 5}}, "cgroupsPath": "/c"}):  # fmt: skip
        notes: list[str] = []
        config: Any = {} if linux is None else {"linux": linux}
        args = (config, SysError("/c", "mkdir", errno.EACCES), spies.Spy("log", notes, {}))
        lines += [f"case {linux}", *spies.record(rootless.check_no_cgroup, args, notes)]
    transcript.compare("launch_more_steps", "check_no_cgroup", lines)


RULES = [
    {"action": "SCMP_ACT_ERRNO"},
    {"action": "SCMP_ACT_KILL"},
    {"action": "SCMP_ACT_NOTIFY"},
    {"action": "SCMP_ACT_NONE"},
]
LOGGED: Row = (
    lambda w: seccomp_log.wanted(w.extra["config"], w.extra["option"], w.spy("log") if w.extra["log"] else None),
    [
        {"WITH": {"config": both({"annotations": {seccomp_log.ANNOTATION: value}} if value is not None else {},
                                 {"linux": {"seccomp": profile}} if profile is not None else {}),
                  "option": option, "log": log}, "fs.read_file": text}
        for value, profile, option, log, text in (
            (None, None, False, True, b""), (None, None, True, True, b""), ("true", None, False, True, b""),
            ("true", None, False, False, b""), ("false", {"defaultAction": "SCMP_ACT_KILL"}, False, True, b""),
            ("yes", None, False, True, b""), (True, None, False, True, b""), ("", None, False, True, b""),
            *((value, {"defaultAction": action, "syscalls": RULES}, option, log, text)
              for value, option, log in (("true", False, True), (None, True, True), ("true", True, False))
              for action in ("SCMP_ACT_ALLOW", "SCMP_ACT_KILL_PROCESS")
              for text in (b"errno kill_thread user_notif", b"", b"\xff errno\n", failed(errno.ENOENT))),
        )
    ],
)  # fmt: skip


def test_whether_seccomp_logs() -> None:
    tables: Tables = [("pyrunc.launch.seccomp_log", {"wanted": LOGGED}, {"seccomp.ACTIONS": ACTIONS}, ())]
    lines = calls_of("pyrunc.launch.seccomp_log", "wanted", tables)
    for flags in (None, [], ["SECCOMP_FILTER_FLAG_TSYNC"]):
        config: Any = {
            "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"} | ({} if flags is None else {"flags": flags})}
        }
        seccomp_log.add(config)
        lines.append(str(config["linux"]["seccomp"]["flags"]))
    transcript.compare("launch_more_steps", "seccomp_log", lines, cut=True)


ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_PROCESS": 1,
    "SCMP_ACT_ERRNO": 2,
    "SCMP_ACT_NOTIFY": 3,
    "SCMP_ACT_ALLOW": 4,
}
