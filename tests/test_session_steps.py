"""What a session asks of the system, as in test_steps.py: the conversation with init, the terminal, the
pipes, the wait in the foreground, network devices. golden/session_steps.txt has the tables.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from select import POLLHUP, POLLIN, POLLNVAL, POLLOUT
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc import handshake
from pyrunc.errors import PyruncError, SysError
from pyrunc.launch import channel, console, foreground, netdev, session, spawn, streams
from pyrunc.launch.channel import NoRecordError, SlowStartError
from spies import Answers
from test_steps import Tables, World, calls_of, failed, rows

Row = tuple[Callable[[World], Any], list[dict[str, Any]]]
TERMINAL: dict[str, Any] = {
    "posix.read": b"bytes", "posix.write": 5, "poll": None, "time.monotonic": 0.0, "terminals.size": (24, 80),
    "terminals.make_raw": b"mode", "sockets.receive_descriptor": (b"", 5), "fs.ignore": None,
}  # fmt: skip


def method(kind: type[Any], name: str, *args: Any, own: str = "*", **attributes: Any) -> Callable[[World], Any]:
    """A call of a method; the result, and the object after it. "$x" as an argument means ``x`` of WITH, "@x" a spy."""

    def call(w: World) -> Any:
        def given(value: Any) -> Any:
            if isinstance(value, str) and value[:1] == "@":
                return w.spy(value[1:], **w.extra.get(value, {}))
            return w.extra.get(value[1:]) if isinstance(value, str) and value[:1] == "$" else value

        w.answers.setdefault("poll", None)
        if w.answers["poll"] is None:
            w.answers["poll"] = w.spy("poller")
        one = w.made(kind, own, **{key: given(value) for key, value in attributes.items()})
        before = spies.state_of(one)
        found = getattr(one, name)(*map(given, args))
        return found, spies.attributes(one, before)

    return call


def both(first: dict[str, Any], second: Any) -> dict[str, Any]:
    """Two parts of a case."""
    return {**first, **second}


def all_streams(one: Any) -> Any:
    """Everything that streams can do, in order."""
    first = one.theirs, [spies.state_of(pump) for pump in one.pumps], one.masks()
    for call in (lambda: one.own(5, 6), lambda: one.handle({}), one.cloned, one.drain, one.close):
        call()
    return *first, one.theirs


def masks_of(one: Any) -> dict[int, int]:
    """What a pump wants to poll."""
    wanted: dict[int, int] = {}
    one.masks(wanted)
    return wanted


# -- a terminal ------------------------------------------------------------------------------------

RELAY: dict[str, Any] = {
    "master": 9, "stdin": 0, "stdout": 1, "input": b"", "output": b"", "master_open": True, "stdin_open": True,
    "stdout_open": True, "saved": b"mode",
}  # fmt: skip


def relay(name: str, *args: Any) -> Callable[[World], Any]:
    """A call of a method of a relay."""
    return method(console.Relay, name, *args, **RELAY)


CONSOLE: dict[str, Row] = {
    "receive_master": (lambda w: console.receive_master(7), [
        {"sockets.receive_descriptor": found}
        for found in ((b"", 5), (b"", 0), (b"", -1), Answers([InterruptedError(), (b"", 5)]), failed(errno.EPIPE))
    ]),
    "init": (lambda w: spies.state_of(console.Relay(9)), [
        {}, {"terminals.make_raw": failed(errno.ENOTTY)},
        *({"terminals.size": found} for found in (
            (0, 0), (0, 80), (24, 0), failed(errno.ENOTTY), Answers([failed(errno.ENOTTY), (1, 2)]))),
    ]),
    "masks": (relay("masks"), [
        {"SELF": {"stdin_open": stdin, "master_open": master, "input": given, "output": output}}
        for stdin, master, given, output in itertools.product((True, False), (True, False), (b"", b"i"), (b"", b"o"))
    ]),
    "handle": (relay("handle", "$ready"), [
        both({"WITH": {"ready": ready}}, case)
        for ready, case in (
            ({0: POLLIN}, {}), ({0: POLLIN}, {"posix.read": b""}), ({0: POLLNVAL}, {}), ({0: POLLIN | POLLHUP}, {}),
            ({0: POLLIN}, {"posix.read": failed(errno.EIO)}), ({1: POLLOUT}, {"SELF": {"output": b"output"}}),
            *(({1: POLLOUT}, {"SELF": {"output": b"output"}, "posix.write": failed(number)})
              for number in (errno.EAGAIN, errno.EPIPE)),
            ({1: POLLOUT}, {"SELF": {"output": b"output", "stdout_open": False}}), ({9: POLLOUT}, {}),
            ({9: POLLOUT}, {"SELF": {"input": b"input!"}}), ({9: POLLIN}, {"SELF": {"input": b"input!"}}),
            *(({9: POLLOUT}, {"SELF": {"input": b"input!"}, "posix.write": failed(number)})
              for number in (errno.EAGAIN, errno.EIO, errno.EPERM)),
            *(({9: POLLIN}, {"poller.poll": ready}) for ready in ([], [(1, POLLOUT)])),
            *(({9: POLLIN}, {"posix.read": found}) for found in (b"", failed(errno.EAGAIN), failed(errno.EIO))),
            ({9: POLLIN}, {"SELF": {"output": b"output"}}), ({9: POLLHUP}, {}), ({9: POLLIN | POLLOUT}, {}),
        )
    ]),
    "drain": (relay("drain"), [
        {"posix.read": Answers(reads), "poller.poll": Answers(polls), "time.monotonic": Answers(times)} | case
        for reads, polls, times, case in (
            ([b"a", b"b", failed(errno.EIO)], [[]], [0.0], {}), ([b"a", failed(errno.EAGAIN)], [[], [1]], [0.0], {}),
            ([failed(errno.EAGAIN), b"a", b""], [[1], []], [0.0], {}), ([b"a"], [[1]], [0.0, 1.0, 2.0, 2.5], {}),
            ([b"a", b""], [[]], [0.0], {"fs.write_all": failed(errno.EPIPE)}), ([b""], [[]], [0.0],
                {"SELF": {"output": b"o"}}),
            ([b"a", b""], [[]], [0.0], {"SELF": {"stdout_open": False}}), ([b"a"], [[]], [0.0],
                {"SELF": {"master_open": False}}),
        )
    ]),
    "close": (relay("close"), [{"SELF": given} for given in ({}, {"saved": None}, {"master": -1}, {"master": 0})]),
}  # fmt: skip

# -- pipes and the wait in the foreground ----------------------------------------------------------

PUMP: dict[str, Any] = {"source": 5, "target": 6, "inward": True, "data": b"", "most": 65536}
PIPES: dict[str, Any] = {
    "posix.fstat": SimpleNamespace(st_mode=0o010600), "posix.pipe2": Answers([(11, 12), (13, 14), (15, 16)]),
    "posix.read": b"bytes", "posix.write": 5, "fs.ignore": None,
}  # fmt: skip
STREAMS: dict[str, Row] = {
    "pump": (lambda w: spies.state_of(streams.Pump(5, 6, w.extra["inward"])), [
        {"WITH": {"inward": inward}, "posix.fstat": SimpleNamespace(st_mode=mode)}
        for inward in (True, False) for mode in (0o100644, 0o010600, 0o020600)
    ]),
    "pump's masks": (lambda w: masks_of(w.made(streams.Pump, "*", **PUMP)),
                     [{"SELF": given} for given in ({}, {"data": b"d"}, {"source": -1}, {"source": 0})]),
    "pump.handle": (method(streams.Pump, "handle", "$ready", **PUMP), [
        both({"WITH": {"ready": ready}}, case)
        for ready, case in (
            ({5: POLLIN}, {}), ({5: POLLIN}, {"SELF": {"most": 4096}}), ({5: POLLIN}, {"SELF": {"data": b"d"}}),
            *(({5: POLLIN}, {"posix.read": found}) for found in (b"", failed(errno.EAGAIN), failed(errno.EIO))),
            ({6: POLLOUT}, {}), ({6: POLLOUT}, {"SELF": {"data": b"data!!", "most": 5}}), ({7: POLLIN}, {}),
            *(({6: POLLOUT}, {"SELF": {"data": b"data", "inward": inward}, "posix.write": failed(number)})
              for number in (errno.EAGAIN, errno.EPIPE) for inward in (True, False)),
        )
    ]),
    "pump.end": (method(streams.Pump, "end", **PUMP), [{"SELF": given} for given in (
        {}, {"inward": False}, {"target": -1}, {"target": 0}, {"inward": False, "source": -1})]),
    "streams": (lambda w: all_streams(streams.Streams(w.extra["piped"])),
        [{"WITH": {"piped": piped}} for piped in ([], [0], [1], [2], [0, 1, 2])]),
}  # fmt: skip
WAITING: dict[str, Any] = {
    "posix.waitpid": (41, 3 << 8), "signals.read": [], "relay.masks": {1: POLLIN}, "streams.masks": {1: POLLIN},
    "proxy.fileno": 77, "proxy.take": True, "fs.ignore": None, "Signals": None, "posix.waitid": None,
}  # fmt: skip
GIVEN: dict[str, Any] = {"@session": {"pidfd": 51, "init_pid": 41, "relay": None}, "@signals": {"fd": 61}}
LOOP: dict[str, Any] = {
    "session": "@session",
    "signals": "@signals",
    "relay": "@relay",
    "proxy": "@proxy",
    "poller": "@poller",
}


def ended(*statuses: Any) -> dict[str, Any]:
    """Polls that report these descriptors, one after another."""
    return {"poller.poll": Answers([[(fd, POLLIN) for fd in fds] for fds in statuses]), "WITH": GIVEN}


WAIT: dict[str, Row] = {
    "watch": (lambda w: spies.state_of(foreground.Watch(w.spy("session", channel=w.spy("channel", signal_fd=61),
        relay="R",
                                                            streams="S"), w.extra["reaps"])), [
        {"WITH": {"reaps": reaps}} for reaps in (True, False)
    ]),
    "watch.wait": (method(foreground.Watch, "wait", "@proxy", session="@session", signals="@signals", relay="@relay",
                          streams="@streams", loop=None), [
        *(ended([51]) | {"posix.waitpid": (41, status)} for status in (0, 3 << 8, 9, 0x8B)),
        ended([51]) | {"SELF": {"relay": None}}, {"WITH": GIVEN, "poller.poll": failed(errno.EBADF)},
    ]),
    "watch.drain": (method(foreground.Watch, "drain", signals="@signals", relay=None, streams="@streams",
        loop="@loop"), [
        {}, {"SELF": {"loop": None}}, {"SELF": {"streams": None}}, {"loop.drain": PyruncError("p")},
    ]),
    "watch.close": (method(foreground.Watch, "close", signals="@signals", relay="@relay", streams="@streams"), [
        {}, {"SELF": {"relay": None, "streams": None}},
    ]),
    "signals.close": (method(foreground.Signals, "close", fd=61), [{"SELF": {"fd": fd}} for fd in (61, 0, -1)]),
    "run": (method(foreground.Loop, "run", **LOOP), [
        ended([51]), ended([1], [51]), ended([77], [51]), ended([77], [51]) | {"proxy.take": False},
        ended([77], [51]) | {"SELF": {"proxy": None}}, ended([61], [51]) | {"signals.read": [15]},
        ended([51]) | {"SELF": {"relay": None}},
    ]),
    "drain": (method(foreground.Loop, "drain", "@streams", **LOOP), [
        ended([1], [1]) | {"streams.masks": Answers([{1: POLLIN}, {1: POLLIN}, {}])},
            ended([1]) | {"streams.masks": {}},
        *(ended([61]) | {"signals.read": Answers([[number], [1]])} for number in (1, 2, 3, 15, 10)),
        ended([1]) | {"SELF": {"proxy": None}, "streams.masks": {}},
    ]),
    "on_signals": (method(foreground.Loop, "on_signals", "$numbers", **LOOP), [
        {"WITH": both(GIVEN, {"numbers": [number]})} for number in (1, 2, 10, 15, 17, 23, 28, 34)
    ] + [{"WITH": {"@session": both(GIVEN["@session"], {"relay": SimpleNamespace(resize=lambda: int("x"))}),
        "numbers": [28]}}]),
    "reap_orphans": (method(foreground.Loop, "reap_orphans", **LOOP), [
        {"posix.waitid": Answers(found), "WITH": GIVEN}
        for found in ([None], [ChildProcessError()], [SimpleNamespace(si_pid=0)], [SimpleNamespace(si_pid=41)],
                      [SimpleNamespace(si_pid=40), SimpleNamespace(si_pid=42), None])
    ]),
}  # fmt: skip

# -- the conversation with init --------------------------------------------------------------------

RECORD = SimpleNamespace(type=handshake.WARN, step=handshake.NO_STEP, value=43, call="c", err=1)
CONVERSATION: dict[str, Any] = {
    "listen_fds": 2, "spawn_init": (71, 72, 31), "is_null": False, "foreground": False, "activated": 2, "posix.dup": 81,
    "sockets.socketpair": (91, 92), "connect": 93, "stray_children": [], "unknown_children": [5], "reap": 0,
        "where": "WHERE",
    "procfs.never_executed": False, "procfs.open_namespace": 94, "driver.oom_kills": 0, "has_ended": False,
    "seccomp.compile_filter": (b"f", 1), "seccomp.cache_dir": "/cache", "step_error": PyruncError("the step"),
    "premature_end": PyruncError("ended"), "no_answer": PyruncError("no answer"), "step_limit": 1500,
        "hints.find": "HINT",
    "handlers": {}, "spawn_error": None, "channel.send": True, "channel.receive": RECORD,
    "channel.queued": [], "of_init": PyruncError("of init"), "reason": PyruncError("the reason"),
        "explain.killed": "by the profile",
    "setting": SimpleNamespace(linux={}),
}  # fmt: skip
PLAN: dict[str, Any] = {"cgroup_path": "", "seccomp": None, "rlimits": [], "steps": [1, 2]}
SESSION: dict[str, Any] = {
    "log": "@log", "undo": "@undo", "protocol": "@protocol", "channel": "@channel", "pidfd": 51, "cgroup_fd": 61,
    "enter_pid": 31, "init_pid": 41, "interrupts": "@interrupts", "console": -1, "relay": None, "listen_fds": 0,
    "streams": None, "stuck": "", "warnings": 0, "opts": "@opts", "driver": "@driver", "plan": "@plan",
}  # fmt: skip
OPTS = {"@opts": {"console_socket": "", "pidfd_socket": "", "preserve_fds": 3}, "@plan": PLAN, "@channel": {"fd": 71}}


class Loose(session.InitSession):
    """A session whose methods can be replaced, and which is short in a table."""

    called = "session"


def talking(name: str, *args: Any, own: str = "") -> Callable[[World], Any]:
    """A call of a method of a session."""
    call = method(Loose, name, *args, own=f"{name} {own}", **SESSION)

    def prepared(w: World) -> Any:
        w.extra = OPTS | w.extra
        return call(w)

    return prepared


def plan(**changes: Any) -> dict[str, Any]:
    """A case with another plan."""
    return {"WITH": {"@plan": PLAN | changes}}


def options(**changes: Any) -> dict[str, Any]:
    """A case with other options."""
    return {"WITH": {"@opts": OPTS["@opts"] | changes}}


def clone_awaited(w: World) -> Any:
    """await_clone(), whose poll is noted."""
    with pytest.MonkeyPatch.context() as patch:
        w.answers["poll"] = w.spy("poller")
        patch.setattr("select.poll", spies.noting("poll", w.notes, w.answers))
        return talking("await_clone", w.extra["timeout"], "@interrupts")(w)


PIPED = {"SELF": {"streams": spies.Spy("streams", [], {}, theirs=[1, 2, 3])}}
IDS = [{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 100000, "size": 65536}]
RLIMITS = [(7, 9, 10, "/process/rlimits/0"), (6, 5, 5, "/process/rlimits/1")]
TALK: dict[str, Row] = {
    "init": (lambda w: spies.state_of(session.InitSession(w.spy("log"))), [{}]),
    "handlers": (lambda w: (w.answers.pop("handlers"), talking("handlers")(w)), [{}]),
    "steps": (talking("steps", "@interrupts"), [{}]),
    "close": (talking("close"), [{}]),
    "setting": (talking("setting"), [{}]),
    "abandon": (talking("abandon"), [{}, {"kill_children": MemoryError()}]),
    "await_clone": (clone_awaited, [
        {"WITH": {"timeout": timeout}, "poller.poll": Answers(polls), "has_ended": ended}
        for timeout, polls, ended in (
            (-1, [[1]], True), (-1, [[], [], [], [1]], False), (-1, [[], []], True), (-1, [[], [1]], True),
            (0, [[]], False), (1000, [[], [], [1]], False), (1001, [[], [], [1]], False),
        )
    ]),
    "spawn": (talking("spawn"), [{}, PIPED, {"activated": 0}, PIPED | {"start_init": failed(errno.EAGAIN)}]),
    "start_init": (talking("start_init", [1, 2], 5), [{}]),
    "check_spawned": (talking("check_spawned", "error"), [
        {"spawn_error": error, "WITH": {"@protocol": {"heard": heard}}}
        for heard in (False, True) for error in (None, SysError("init", "execve", 2))
    ]),
    "open_stdio": (talking("open_stdio"), [
        {"foreground": shown, "is_null": Answers(null)}
        for shown in (True, False) for null in ([True], [False], [True, False, True])
    ]),
    "activated": (talking("activated"), [{}]),
    "foreground": (talking("foreground"), [{}]),
    "own_streams": (talking("own_streams", "$config", "$process"), [
        case | {"WITH": {"config": {"linux": linux}, "process": {"user": user}}}
        for case in ({}, PIPED)
        for linux, user in (({}, {}), ({"uidMappings": IDS}, {}),
                            ({"uidMappings": IDS, "gidMappings": IDS[1:]}, {"uid": 5, "gid": 6}))
    ]),
    "close_streams": (talking("close_streams"), [{}, PIPED]),
    "attach_terminal": (talking("attach_terminal"), [{}, {"SELF": {"console": 0}}]),
    "kill_children": (talking("kill_children"), [
        {}, {"SELF": {"init_pid": 0}}, {"SELF": {"enter_pid": 0}}, {"stray_children": Answers([[31, 7], [8]])},
    ]),
    "kill_child": (talking("kill_child", 7), [
        {}, {"reap": PyruncError("stays")}, {"reap": failed(errno.ECHILD)}, {"posix.kill": failed(errno.ESRCH)},
    ]),
    "reap_enter": (talking("reap_enter"), [{}]),
    "stray_children": (talking("stray_children"), [{}]),
    "converse": (talking("converse", "@interrupts"), [
        {"WITH": {"@protocol": {"state": state, "deferred": deferred}}, "protocol.feed": feed, "receive": record,
         "handlers": {"warn": lambda what: None}, "send_plan": sent}
        for state, deferred, record, feed, sent in (
            (handshake.DONE, [], RECORD, [], None), (handshake.SETUP, [], None, [], None),
            (handshake.CLONED, [], None, [], None), (handshake.ENTERING, [], None, [], None),
            (handshake.JOINED, [], None, [], None), (handshake.SETUP, [1], None, [], None),
            (handshake.SETUP, [], RECORD, handshake.ProtocolError("bad"), None),
            (handshake.SETUP, [], Answers([RECORD, None]), [("warn", RECORD)], None),
            (handshake.SETUP, [], None, [], PyruncError("plan")), (handshake.SETUP, [], None, [],
                failed(errno.EPIPE)),
        )
    ]),
    "reason": (talking("reason", PyruncError("a consequence")), [
        {"WITH": {"@protocol": {"state": state}}, "channel.queued": queued, "on_fail": PyruncError("its own")}
        for state, queued in (
            (handshake.DONE, [None]), (handshake.FAILED, [None]), (handshake.SETUP, []), (handshake.SETUP, [None]),
            (handshake.SETUP, [RECORD]), (handshake.SETUP, [RECORD, SimpleNamespace(type=handshake.FAIL)]),
        )
    ]),
    "await_enter": (talking("await_enter"), [{}]),
    "check_executed": (talking("check_executed"), [{}, {"procfs.never_executed": True}]),
    "step_limit": (talking("step_limit"), [{"plan.has_hooks": has} for has in (True, False)]),
    "receive": (talking("receive", "$timeout", "@interrupts"), [
        {"WITH": {"timeout": timeout}, "channel.receive": found}
        for timeout, found in ((5, RECORD), (0, NoRecordError()), (5, NoRecordError()), (-1, NoRecordError()),
                               (5, SlowStartError(15)))
    ]),
    "send": (talking("send", 5, 6), [{}, {"channel.send": False}]),
    "on_placed": (talking("on_placed", RECORD), [{}]),
    "follow_clone": (talking("follow_clone", 33), [{}]),
    "fill_filter": (talking("fill_filter"), [{}, plan(seccomp={"x": 1})]),
    "open_slot": (talking("open_slot", "$kind", "/ns", "/linux/namespaces/0"), [
        {"WITH": {"kind": kind}, "open_console": 95} for kind in ("cgroup", "console", "ns")
    ]),
    "open_console": (talking("open_console"), [
        {}, options(console_socket="/s"), {"sockets.socketpair": failed(errno.EMFILE)},
    ]),
    "on_ready": (talking("on_ready", RECORD), [{}]),
    "harmless_limits": (talking("harmless_limits"), [
        plan(rlimits=[(resource, soft, soft, "")]) | {"SELF": {"listen_fds": 2}}
        for resource, soft in ((4, 0), (7, 1023), (7, 1028), (7, 1029), (7, 1030), (6, 1 << 20))
    ]),
    "set_limits": (talking("set_limits", 41, "$put_off"), [
        {"WITH": {"@plan": PLAN | {"rlimits": RLIMITS}, "put_off": off}, "processes.prlimit": Answers(found)}
        for off in (-1, 6) for found in ([None], [failed(errno.EPERM)], [None, failed(errno.EPERM)])
    ]),
    "send_pidfd": (talking("send_pidfd"), [
        {}, options(pidfd_socket="/s"), options(pidfd_socket="/s") | {"sockets.send_descriptor": failed(errno.EPIPE)},
    ]),
    "on_fail": (talking("on_fail", RECORD), [
        plan(cgroup_path=path) | {"driver.oom_kills": kills, "step_error": Answers([PyruncError("e")])}
        for path, kills in (("", 1), ("/c", 0), ("/c", 1))
    ]),
    "premature_end": (talking("premature_end", own="muted"), [
        plan(cgroup_path=path, seccomp=profile) | {
            "driver.oom_kills": kills, "reap": found, "SELF": {"init_pid": init}, "killer": "SIGKILL",
            "WITH": {"@plan": PLAN | {"cgroup_path": path, "seccomp": profile}, "@protocol": {"state": "X"}}}
        for path, profile, kills, found, init in (
            ("/c", None, 1, 0, 41), ("/c", None, 0, 9, 41), ("", None, 0, 1 << 8, 0), ("", {"x": 1}, 0, 1 << 8, 41),
            ("", {"x": 1}, 0, 4, 41), ("", {"x": 1}, 0, 5, 41), ("", {"x": 1}, 0, 9, 41),
            ("", None, 0, PyruncError("lives"), 41), ("", None, 0, failed(errno.ECHILD), 0),
        )
    ]),
    "killer": (talking("killer", "$number"), [{"WITH": {"number": number}} for number in (9, 31)]),
}  # fmt: skip

# -- network devices -------------------------------------------------------------------------------

NET: dict[str, Any] = {
    "host.links": {"eth0": (5, 1), "lo": (1, 9), "down": (6, 0)}, "inside.links": {"lo": (1, 9), "eth0": (15, 1)},
    "host.addresses": ["address"], "posix.fstat": Answers([SimpleNamespace(st_dev=1, st_ino=2),
                                                          SimpleNamespace(st_dev=1, st_ino=3)]),
}  # fmt: skip
MOVE: dict[str, Any] = {"log": "@log", "host": "@host", "inside": "@inside", "devices": []}
NAMESPACES = {"@host": {"fd": 21}, "@inside": {"fd": 22}}


def device(**changes: Any) -> Any:
    """A device on its way."""
    one = netdev.Device("eth0", changes.pop("wanted", "net0"), 5, changes.pop("up", True), ["address"])
    one.moved = changes.pop("moved", 0)
    return one


def namespace(name: str, *args: Any) -> Callable[[World], Any]:
    """A method of a namespace, whose requests are noted."""

    def call(w: World) -> Any:
        one = w.made(
            netdev.Namespace, name + " set_link", fd=21, sock=22, sequence=0, link_message=dict, address_message=dict
        )
        return getattr(one, name)(*args)

    return call


def entry(**changes: Any) -> Any:
    """An answer of RTM_GETADDR."""
    values = {"index": 5, "flags": 128, "scope": 0, "family": 2, "prefixlen": 24} | changes
    attributes = {"IFA_ADDRESS": "a", "IFA_LOCAL": "l", "IFA_FLAGS": values.pop("wide", None)}

    class Entry(dict[str, Any]):
        def get_attr(self, name: str) -> Any:
            return attributes.get(name)

    return Entry(values)


WANTED: list[dict[str, dict[str, str]]] = [
    {"eth0": {"name": "net0"}}, {"eth0": {}}, {"lo": {}}, {"none": {}}, {"down": {}}, {"down": {"name": "eth0"}},
    {"a/b": {}},
]  # fmt: skip
DEVICES: dict[str, Row] = {
    "check": (method(netdev.Move, "_check", "$wanted", **MOVE), [
        {"WITH": both(NAMESPACES, {"wanted": wanted})}
        for wanted in WANTED
    ]),
    "move": (method(netdev.Move, "_move", "$device", **MOVE), [
        {"WITH": NAMESPACES | {"device": device(wanted=wanted)}, "inside.links": links} | case
        for wanted, links, case in (
            ("net0", {"net0": (15, 1)}, {}), ("net%d", {"pyrunc-5": (15, 1)}, {}),
            ("net0", {"eth0": (15, 1)}, {"host.set_link": failed(errno.EEXIST), "host.links": {}}),
            ("net0", {"eth0": (15, 1)}, {"host.set_link": failed(errno.EBUSY)}),
        )
    ]),
    "restore": (method(netdev.Move, "restore", **MOVE), [
        {"WITH": NAMESPACES, "SELF": {"devices": [device(moved=moved, up=up), device(moved=16)]}} | case
        for moved, up, case in ((15, True, {}), (15, False, {}), (0, True, {}), (15, True,
            {"inside.set_link": failed(errno.EBUSY)}))
    ]),
    "all": (method(netdev.Move, "all", {"eth0": {"name": "net0"}}, own="all", **MOVE), [
        {"WITH": NAMESPACES, "_check": [device()]} | case
        for case in ({}, {"_move": failed(errno.EBUSY)}, {"_move": PyruncError("p")},
                     {"posix.fstat": SimpleNamespace(st_dev=1, st_ino=2)},
                     {"posix.fstat": Answers([SimpleNamespace(st_dev=1, st_ino=2), SimpleNamespace(st_dev=2,
                       st_ino=2)])})
    ]),
    "set_link": (namespace("set_link", 5, [("IFLA_IFNAME", "x")]), [{}]),
    "set_up": (namespace("set_up", 5, [{"family": 2}, {"family": 10}], True), [{}]),
    "set_up of a device that is down": (namespace("set_up", 5, [], False), [{}]),
    "addresses": (namespace("addresses", 5), [
        {"request": [entry(**changes)]}
        for changes in ({}, {"index": 6}, {"scope": 253}, {"flags": 0}, {"wide": 0x80 | 0x200}, {"wide": 0x200},
                        {"wide": 0xFFFF})
    ]),
}  # fmt: skip

# -- init's process and socket ---------------------------------------------------------------------

SPAWN: dict[str, Any] = {
    "interpreter.init_image": b"image", "files.memfd_sealed": 61, "sockets.socketpair": (71, 72), "sockets.connect": 81,
    "processes.spawn_init": 31, "hints.find": "HINT", "posix.fstat": SimpleNamespace(st_rdev=0x103, st_mode=0o020666),
    "posix.getpid": 31, "interpreter.FROZEN": False,
}  # fmt: skip
STARTING: dict[str, Row] = {
    "spawn_init": (lambda w: spawn.spawn_init([1, 2, 3], 5, True), [
        {}, {"sockets.socketpair": (0, 0), "processes.spawn_init": PyruncError("p")},
          {"files.memfd_sealed": failed(errno.EMFILE)},
        {"sockets.socketpair": failed(errno.EMFILE)}, {"processes.spawn_init": failed(errno.EAGAIN)},
    ]),
    "spawn_error": (lambda w: spawn.spawn_error(), [{}, {"processes.spawn_error": failed(errno.ENOEXEC)}]),
    "connect": (lambda w: spawn.connect("--console-socket", "/s"), [{}, {"sockets.connect": failed(errno.ENOENT)}]),
    "is_null": (lambda w: spawn.is_null(0), [
        {"posix.fstat": SimpleNamespace(st_rdev=device, st_mode=mode)}
        for device in (0x103, 0x104) for mode in (0o020666, 0o060666)
    ]),
    "listen_fds": (lambda w: spawn.listen_fds(), [
        {"fs.getenv": Answers(found)} for found in (["3", "31"], ["3", "32"], ["x", "31"], ["", ""], ["3", ""])
    ]),
    "check_preserved": (lambda w: spawn.check_preserved(2), [{}, {"posix.fstat": Answers([None,
        failed(errno.EBADF)])}]),
}  # fmt: skip
RAW = b"r" * handshake.RECORD_SIZE
SOCKET: dict[str, Any] = {
    "sockets.receive": RAW, "_await_record": True, "signals.signalfd": 91, "poll": None, "signals.read": [15],
    "of_init": PyruncError("of init"),
}  # fmt: skip


def channel_of(name: str, *args: Any) -> Callable[[World], Any]:
    """A call of a method of a channel."""
    return method(channel.Channel, name, *args, own=name, fd=71, signal_fd=-1)


CHANNEL: dict[str, Row] = {
    "close": (channel_of("close"), [{"SELF": {"fd": fd}} for fd in (71, 0, -1)]),
    "block_signals": (channel_of("block_signals"), [{}, {"signals.signalfd": failed(errno.EMFILE)}]),
    "receive": (channel_of("receive", "$timeout", "$interrupts"), [
        {"WITH": {"timeout": timeout}, "SELF": {"signal_fd": fd}, "sockets.receive": Answers(found),
          "_await_record": waits}
        for timeout, fd, found, waits in (
            (5, -1, [RAW], True), (5, -1, [b""], True), (5, 91, [RAW], True), (5, 91, [RAW], False), (0, 0, [RAW],
                False),
            (5, 0, [RAW], False), (5, -1, [TimeoutError()], True), (5, -1, [InterruptedError(), RAW], True),
            (5, -1, [failed(errno.ECONNRESET), RAW], True), (5, -1, [failed(errno.EIO)], True),
        )
    ]),
    "interrupted": (channel_of("receive", 5, "@interrupts"), [{"sockets.receive": Answers([InterruptedError(), b""])}]),
    "queued": (lambda w: list(w.made(channel.Channel, "queued", fd=71).queued(3)), [
        {"sockets.receive": Answers(found)}
        for found in ([RAW], [b""], [RAW, b""], [failed(errno.ECONNRESET), RAW], [RAW, failed(errno.EAGAIN)])
    ]),
    "send": (channel_of("send", 5, 6, [7]), [
        {}, *({"sockets.send": failed(number)} for number in (errno.EPIPE, errno.ECONNRESET, errno.ENOBUFS)),
    ]),
}  # fmt: skip
TABLES: Tables = [
    ("pyrunc.launch.console", CONSOLE, TERMINAL, ("poll",)),
    ("pyrunc.launch.streams", STREAMS, PIPES, ()),
    ("pyrunc.launch.foreground", WAIT, WAITING, ("poll",)),
    ("pyrunc.launch.session", TALK, CONVERSATION, (
        "listen_fds", "check_preserved", "connect", "is_null", "of_init", "spawn_error", "spawn_init",
            "unknown_children",
        "await_end", "has_ended", "reap", "where")),
    ("pyrunc.launch.netdev", DEVICES, NET, ()),
    ("pyrunc.launch.spawn", STARTING, SPAWN, ()),
    ("pyrunc.launch.channel", CHANNEL, SOCKET, ("of_init",)),
]  # fmt: skip


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("session_steps", f"{module.rpartition('.')[2]}.{name}", calls_of(module, name, TABLES))
