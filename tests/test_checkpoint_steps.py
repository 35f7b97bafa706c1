"""What checkpoint and restore ask of CRIU and of the system around it, as in test_steps.py: the
process of CRIU and its messages, the files of a checkpoint, the guard, options and mounts.
golden/checkpoint_steps.txt has the tables.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc.checkpoint import criu, guard, images, messages, options
from pyrunc.errors import PyruncError
from spies import Answers, By, alone
from test_session_steps import Row
from test_steps import Tables, World, calls_of, failed, rows

FILE, DIRECTORY, LINK, FIFO = 0o100600, 0o040700, 0o120777, 0o010600


def info(mode: int = FILE, **more: int) -> Any:
    """What stat(2) says."""
    return SimpleNamespace(**{"st_mode": mode, "st_nlink": 1, "st_size": 5, "st_dev": 1, "st_ino": 2} | more)


ERRORS = [failed(number) for number in (errno.ENOENT, errno.EEXIST, errno.EACCES, errno.ENOTDIR, errno.EIO)]

# -- criu ------------------------------------------------------------------------------------------

CRIU: dict[str, Any] = {
    "fs.getenv": "/a:/b", "posix.stat": info(), "posix.access": True, "posix.environ": {b"A": b"b"}, "find": "/criu",
    "socketpair": (5, 6), "_open_descriptors": [3, 5, 6, 104, 105], "fcntl": Answers([*range(104, 120)]),
    "posix.posix_spawn": 31, "protobuf.encode": b"request", "protobuf.decode": {"type": 1}, "has_ended": False,
    "sockets.receive_descriptor": (b"data", -1), "send": None, "receive": ({"type": 1, "success": True}, -1),
    "posix.waitpid": (31, 256), "wait": 256, "finish": 0, "sockets.socketpair": (5, 6), "posix.dup": 8,
    "fs.names": ["0", "2", "3", "9", "10"], "ended": criu.CriuError("ended"), "broken": PyruncError("broken"),
    "posix.POSIX_SPAWN_CLOSE": 1, "posix.POSIX_SPAWN_DUP2": 2, "refusal": criu.CriuError("refused"),
}  # fmt: skip


def changing(
    one: Callable[[World, str], Any], label: str, name: str, *args: Any, **more: Any
) -> Callable[[World], Any]:
    """A call of a method; what it changes in its object is noted, also if it fails."""

    def call(w: World) -> Any:
        made = one(w, name)
        before = spies.state_of(made)
        try:
            return getattr(made, name)(*w.given(args), **more)
        finally:
            w.notes.extend(f"{label}: {line}" for line in spies.attributes(made, before))

    return call


def process(w: World, name: str) -> Any:
    """A running criu."""
    attributes = {"sock": 5, "pid": 31, "version": 0, "group": False, "log": w.spy("log"), "check": w.spy("check")}
    return w.made(criu.Criu, name, **attributes)


speaking = partial(changing, process, "criu")


def heard(w: World) -> Any:
    """A handler that may fail."""
    return spies.noting("notified", w.notes, w.answers)


def conversation(w: World) -> Any:
    """converse() with these replies."""
    notified = heard(w) if w.extra.get("heard", True) else None
    return speaking("converse", 1, notified, w.extra.get("until", ""))(w)


NOTE = {"type": messages.NOTIFY, "notify": {"script": "s", "pid": 9}}
DONE = ({"type": 1, "success": True, "x": 5}, -1)
AGAIN = [BlockingIOError(), TimeoutError(), InterruptedError()]
PROCESS: dict[str, Row] = {
    "find": (lambda w: criu.find(), [
        {}, {"fs.getenv": ""}, {"fs.getenv": ":/b"}, {"posix.stat": info(DIRECTORY)}, {"posix.access": False},
        {"posix.stat": Answers([failed(errno.ENOENT), info()])}, {"posix.stat": Answers([info(FIFO), info(0o100000)])},
        {"posix.access": By({"/b/criu": True, None: False})}, {"posix.stat": failed(errno.EACCES)},
    ]),
    "environment": (lambda w: criu.environment(), [{}, {"posix.environ": {b"PATH": b"/own", b"B": b""}}]),
    "init": (lambda w: spies.state_of(criu.Criu(w.spy("log"), w.spy("check"))), [{}]),
    "spawn": (speaking("spawn", (0, 1, 2), "$extra"), [
        {"WITH": {"extra": ()}}, {"WITH": {"extra": (8, 9)}}, {"WITH": {"extra": ()}, "find": PyruncError("no criu")},
        {"WITH": {"extra": ()}, "posix.posix_spawn": failed(errno.ENOEXEC)},
        {"WITH": {"extra": ()}, "fcntl": Answers([104, failed(errno.EMFILE)])},
        {"WITH": {"extra": ()}, "_open_descriptors": failed(errno.EMFILE)},
    ]),
    "prepare": (speaking("prepare", "$features"), [
        {"WITH": {"features": features}, "ask": Answers([{"version": version}, {"features": there}])}
        for version, features, there in (
            ({}, (), {}), (None, (), {}), ({"major": 3, "minor": 15}, (), {}), ({"major": 3, "minor": 14}, (), {}),
            ({"major": 3, "minor": 14, "sublevel": 99}, (), {}), ({"major": 4, "minor": 1, "sublevel": 7}, (), {}),
            ({"major": 3, "minor": 14, "sublevel": 5, "gitid": "v"}, (), {}), ({"major": 4, "gitid": ""}, (), {}),
            ({"minor": 99}, (), {}), ({"major": 4}, ("mem_track",), {"mem_track": True}),
            ({"major": 4}, ("mem_track", "lazy_pages"), {"mem_track": True}), ({"major": 4}, ("mem_track",), None),
            ({"major": 4}, ("mem_track", "lazy_pages"), {"mem_track": False, "lazy_pages": True}))
    ] + [{"WITH": {"features": None}, "ask": PyruncError("ended")}]),
    "ask": (speaking("ask", {"type": 5}, "N", "U"), [{"converse": {"reply": 1}}, {"send": PyruncError("broken")}]),
    "ask without a handler": (speaking("ask", {"type": 5}), [{"converse": {"reply": 1}}]),
    "go_on": (speaking("go_on", 2, "N"), [{"converse": {"reply": 1}}, {"send": PyruncError("broken")}]),
    "converse": (conversation, [
        {"receive": Answers(replies), "WITH": more} | case
        for replies, more, case in (
            ([DONE], {}, {}), ([({"type": 1, "success": True}, 0)], {}, {}), ([({"type": 1, "success": True}, 7)], {},
                {}),
            ([({"type": 1}, -1)], {}, {}), ([({"success": True}, -1)], {}, {}), ([({"type": 2, "success": True}, 7)],
                {}, {}),
            ([(NOTE, -1), (NOTE, 7), DONE], {}, {}), ([(NOTE, 7), DONE], {"heard": False}, {}),
            ([(NOTE, 7), DONE], {}, {"notified": PyruncError("of the handler")}),
            ([({"type": 6}, -1), DONE], {}, {}), ([(NOTE, 7), DONE], {"until": "s"}, {}),
            ([(NOTE, 7), DONE], {"until": "t"}, {}), ([({"type": 6}, -1), DONE], {"until": "s"}, {}))
    ]),
    "send": (speaking("send", {"type": 1}), [
        {"sockets.send": Answers(results)} | case
        for results, case in (
            ([None], {}), ([failed(errno.EMSGSIZE), None], {}), ([failed(errno.EMSGSIZE), failed(errno.ENOBUFS)], {}),
            ([failed(errno.EPIPE)], {}), ([failed(errno.EMSGSIZE), None], {"make_room": failed(errno.EPERM)}))
    ]),
    "receive": (speaking("receive"), [
        {"sockets.receive_descriptor": Answers(results), "has_ended": Answers(over), "check": check} | case
        for results, over, check, case in (
            ([(b"d", 7)], [False], None, {}), ([(b"", -1)], [False], None, {}), ([*AGAIN, (b"d", -1)], [False], None,
                {}),
            ([TimeoutError(), (b"d", -1)], [True], None, {}), ([TimeoutError()], [False, True], None, {}),
            ([failed(errno.ECONNRESET)], [False], None, {}), ([(b"d", 7)], [False], PyruncError("interrupted"), {}),
            ([TimeoutError()], [False], PyruncError("interrupted"), {}),
            ([(b"d", 7)], [False], None, {"protobuf.decode": ValueError("bad")}),
            ([(b"d", 0)], [False], None, {"protobuf.decode": ValueError("bad")}),
            ([(b"d", -1)], [False], None, {"protobuf.decode": ValueError("bad")}))
    ]),
    "broken": (speaking("broken", "send", "$error"), [
        {"WITH": {"error": error}, "has_ended": over, "SELF": {"pid": pid}}
        for error in (failed(errno.EPIPE), failed(errno.ECONNRESET), failed(errno.EIO), OSError("none"))
        for over, pid in ((False, 31), (True, 31), (False, 0))
    ]),
    "ended": (lambda w: (found := speaking("ended")(w), found.ended), [
        {"wait": status} for status in (0, 1 << 8, 9, 6 | 0x80, 255 << 8)
    ]),
    "finish": (speaking("finish"), [
        {"SELF": {"sock": sock, "pid": pid}} for sock, pid in ((5, 31), (-1, 31), (0, 31), (5, 0))
    ]),
    "wait": (speaking("wait"), [
        {"processes.await_end": Answers(ends), "SELF": {"group": group}} | case
        for group in (True, False)
        for ends, case in (
            ([None], {}), ([TimeoutError(), InterruptedError(), None], {}), ([TimeoutError()], {}),
            ([*[TimeoutError()] * 19, None], {}), ([ChildProcessError()], {}),
            ([None], {"posix.waitpid": ChildProcessError()}))
    ]),
    "wait without a process": (speaking("wait"), [{"SELF": {"pid": 0}}]),
    "wait for one that was not clean": (speaking("wait", clean=False), [{"SELF": {"group": group}} for group in (True,
        False)]),
    "kill": (speaking("kill"), [{"SELF": {"group": group, "pid": pid}} for group in (True, False) for pid in (31, 0)]),
    "refusal": (alone(criu, "refusal", "$reply"), [
        {"WITH": {"reply": reply}} for reply in (
            {}, {"cr_errmsg": " why \n"}, {"cr_errmsg": "x" * 300}, {"cr_errno": 2}, {"cr_errno": -2}, {"cr_errno": 1},
            {"cr_errmsg": "why", "cr_errno": 13}, {"cr_errmsg": "a rlimit: b", "cr_errno": 13},
            {"cr_errmsg": "a rlimit: b"}, {"cr_errmsg": None, "cr_errno": None})
    ]),
    "socketpair": (alone(criu, "socketpair"), [{}, {"sockets.socketpair": failed(errno.EMFILE)}]),
    "open_descriptors": (alone(criu, "_open_descriptors"), [
        {}, {"posix.fstat": Answers([failed(errno.EBADF), info()])}, {"fs.names": failed(errno.ENOENT)},
        {"posix.fstat": Answers([info(), failed(errno.EBADF), info()])},
    ]),
}  # fmt: skip

# -- the guard -------------------------------------------------------------------------------------

GUARD: dict[str, Any] = {
    "posix.pidfd_open": 60, "posix.pipe2": (61, 62), "posix.fork": 77, "posix._exit": SystemExit(),
    "fs.names": ["0", "3", "61", "60"], "poll": spies.Spy("poller", [], {}), "posix.waitpid": (77, 0),
}  # fmt: skip


def guarding(name: str, *args: Any) -> Callable[[World], Any]:
    """A call of the guard, and what it holds then."""

    def call(w: World) -> Any:
        one = w.made(guard.Guard, f"{name} start", pid=0, pipe=-1)
        try:
            return getattr(one, name)(*args)
        finally:
            w.notes.append(f"pid={one.pid} pipe={one.pipe}")

    return call


def watching(w: World) -> Any:
    """The guard's own process."""
    w.answers["poll"] = w.spy("poller")
    return guard._watch(61, 60, "/cg/c1")


GUARDING: dict[str, Row] = {
    "init": (lambda w: spies.state_of(guard.Guard()), [{}]),
    "start": (guarding("start", 31, "/cg/c1"), [
        {}, {"posix.fork": 0}, {"posix.pidfd_open": failed(errno.ESRCH)}, {"posix.pipe2": failed(errno.EMFILE)},
        {"posix.fork": failed(errno.EAGAIN)}, {"posix.fork": 0, "fs.names": failed(errno.EMFILE)},
    ]),
    "dismiss": (guarding("dismiss"), [
        {"SELF": {"pid": pid, "pipe": pipe}} for pid, pipe in ((77, 62), (0, 62), (77, -1), (77, 0), (0, -1), (1, 5))
    ]),
    "watch": (watching, [{}, {"fs.names": ["9"]}, {"fs.names": failed(errno.ENOENT)}]),
}  # fmt: skip

# -- the files of a checkpoint ---------------------------------------------------------------------

IMAGES: dict[str, Any] = {
    "fs.abspath": By({"checkpoint": "/cwd/checkpoint", "/images": "/images", "w": "/cwd/w", None: "/other"}),
    "posix.open": Answers([50, 51]), "posix.fstat": info(), "posix.stat": info(), "fs.read_fd": b'["a", "b", "c"]',
    "read": b'["a", "b", "c"]', "last_error": "", "is_full": False, "posix.pread": b"",
    "fs.ignore": None, "posix.mkdir": None, "protobuf.decode": {"lsmtype": 1}, "_make": None,
}  # fmt: skip


def files(w: World, name: str) -> Any:
    """The files of a checkpoint, with their descriptors."""
    attributes = {"fd": 20, "work_fd": 21, "path": "/images", "work": "/logs", "log": "/logs/x.log", "parent": ""}
    return w.made(images.Images, name, **attributes)


filed = partial(changing, files, "images")


def error_in_log(*lines: str) -> bytes:
    """A log of CRIU."""
    return "".join(f"(00.01) {line}\n" for line in lines).encode("utf-8", "surrogateescape")


LOGS = [
    b"", b"no newline", error_in_log("Warn (a.c:1): w"), error_in_log("Error (a.c:1): first", "Error (a.c:2): second"),
    error_in_log("Error (a.c:1): the reason ", "Error (a.c:2): Dumping FAILED."),
    error_in_log("Error (a.c:2): FAILED."),
    error_in_log("Error (a.c:1): why", *(f"Error (a.c:2): {text}" for text in (
        "x failed with -1", "a: Unable to open fd=3", "1 exited, status=1", "x): `- 2", "cgroupd: recv req error"))),
    error_in_log("Error (a.c:1): why", "Error (a.c:2): a rlimit: b"), error_in_log("Error (a.c:2): a rlimit: b"),
    error_in_log("Error (a.c:1): whole") + b"(00.02) Error (a.c:2): half", b"(00.02) Error (a.c:2): half",
    error_in_log("Error (a.c:1): \udcff"), error_in_log("Error (a.c:1) without"),
    error_in_log("Error (a.c:1): a): b"),
]  # fmt: skip
FILES: dict[str, Row] = {
    "init": (lambda w: spies.state_of(images.Images(w.extra["values"], "dump.log")), [
        {"WITH": {"values": values}} for values in (
            {}, {"image-path": "/images"}, {"image-path": ""}, {"work-path": "w"}, {"work-path": ""},
            {"image-path": "/images", "work-path": "w", "parent-path": "../p"})
    ]),
    "open": (filed("open", make=True), [
        {}, {"SELF": {"work": "/images", "log": "/images/x.log"}}, {"check_parent": PyruncError("parent")},
        {"posix.stat": info(LINK)}, {"posix.open": Answers([50, failed(errno.EACCES)])},
    ]),
    "open of a restore": (filed("open", make=False), [{}]),
    "check_parent": (filed("check_parent"), [
        {}, {"SELF": {"parent": "/p"}}, {"SELF": {"parent": "../p"}},
        {"SELF": {"parent": "p"}, "posix.open": failed(errno.ENOENT)},
        {"SELF": {"parent": "p"}, "posix.open": OSError("none")},
    ]),
    "close": (filed("close"), [
        {"SELF": {"fd": fd, "work_fd": work}} for fd, work in ((20, 20), (-1, -1), (0, -1), (-1, 1), (1, 1))
    ]),
    "write_descriptors": (filed("write_descriptors", ["/dev/null", "pipe:[1]", "\u00e4"]), [
        {}, {"posix.open": failed(errno.ENOSPC)}, {"fs.write_all": failed(errno.ENOSPC)}, {"fs.write_all": OSError()},
    ]),
    "read_descriptors": (filed("read_descriptors"), [
        {"read": text} for text in (b'["a", "b", "c"]', b"[]", b'["a", "b"]', b'["a", "b", "c", "d"]', b"{}", b"x",
                                    b'["a", "b", 5]', b'["a", null, "c"]', b'"abc"')
    ] + [{"posix.stat": failed(errno.ENOENT)}, {"posix.stat": Answers([info(), failed(errno.EACCES)])}]),
    "security_module": (filed("security_module"), [
        {"read": data, "protobuf.decode": found} for data, found in (
            (b"MAGIC\0\0\0abc", {"lsmtype": 2}), (b"MAGI\2\0\0\0abc", {}), (b"MAGI\0\1\0\0" + b"x" * 300, {}),
            (b"", {}), (b"MAGI\1\0\0\0a", ValueError("bad")))
    ]),
    "read": (filed("read", "x.img"), [
        {}, *({"posix.fstat": info(mode)} for mode in (DIRECTORY, LINK, FIFO, 0o100000)),
        {"posix.open": failed(errno.ELOOP)}, {"fs.read_fd": failed(errno.EFBIG)}, {"posix.open": OSError("none")},
    ]),
    "failure": (filed("failure", "dump", "$reason"), [
        {"WITH": {"reason": reason}, "last_error": last, "is_full": full, "SELF": {"work_fd": work}}
        for reason, last, full, work in (
            ("criu: no", "", False, 21), ("criu was killed", "", False, 21), ("", "", False, 21),
            ("criu: no", "the last", False, 21), ("criu: no", "Can't lookup mount=5 x", False, 21),
            ("criu: no", "x" * 500, True, 20), ("x", "Can't lookup mount=5", True, 20), ("x", "", True, -1),
            ("x", "", By({21: True, None: False}), 21), ("x", "", By({20: True, None: False}), 21))
    ]),
    "failure before a log": (filed("failure", "restore", "criu: no", logged=False), [
        {"last_error": "the last", "is_full": True}, {"last_error": ""},
    ]),
    "last_error": (filed("last_error"), [
        *({"posix.pread": log} for log in LOGS),
        *({"posix.fstat": info(st_size=size)} for size in (0, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20)),
        {"posix.open": failed(errno.ENOENT)}, {"posix.fstat": failed(errno.EIO)}, {"posix.pread": failed(errno.EIO)},
    ]),
    "is_full": (alone(images, "is_full", 5), [
        {"posix.fstatvfs": SimpleNamespace(f_bavail=blocks, f_files=files, f_favail=free)}
        for blocks, files, free in ((1, 1, 1), (0, 1, 1), (1, 1, 0), (1, 0, 0), (1, 2, 0), (1, 2, 1), (0, 0, 0))
    ] + [{"posix.fstatvfs": failed(errno.EIO)}]),
    "open of a directory": (alone(images, "_open", "/images", "--image-path", "$make"), [
        *({"WITH": {"make": make}} for make in (True, False)), {"WITH": {"make": True}, "_make": failed(errno.EROFS)},
        {"WITH": {"make": False}, "posix.open": failed(errno.ENOTDIR)},
        {"WITH": {"make": False}, "posix.open": OSError("none")},
    ]),
    "make": (alone(images, "_make", "$path", keep="_make"), [
        {"WITH": {"path": path}, "posix.mkdir": Answers(results)}
        for path in ("/a/b/c", "/a", "/", "a")
        for results in ([None], [failed(errno.ENOENT), None], [failed(errno.EEXIST)], [failed(errno.EACCES)],
                        [failed(errno.ENOENT), failed(errno.ENOENT), None, None, failed(errno.EEXIST)],
                        [failed(errno.ENOENT), None, failed(errno.EEXIST)])
    ]),
    "refuse_link": (alone(images, "_refuse_link", 21, "/logs", "dump.log"), [
        *({"posix.stat": info(mode, st_nlink=links)} for mode, links in (
            (FILE, 1), (FILE, 2), (FILE, 0), (LINK, 1), (LINK, 0), (FIFO, 1), (DIRECTORY, 2), (0o120000 | 0o20000, 1))),
        *({"posix.stat": error} for error in (*ERRORS, OSError("none"))),
    ]),
}  # fmt: skip

# -- options ---------------------------------------------------------------------------------------

GIVEN: dict[str, Any] = {
    "posix.geteuid": 0, "host.initial_userns": True, "fs.exists": False, "fcntl": 1, "posix.O_ACCMODE": 3,
    "posix.O_RDONLY": 0, "config_file": "FILE",
}  # fmt: skip
SWITCHES = dict.fromkeys(options._SWITCHES, True)
OPTIONS: dict[str, Row] = {
    "refuse_rootless": (alone(options, "refuse_rootless"), [
        {"posix.geteuid": uid, "host.initial_userns": initial}
        for uid, initial in ((0, True), (0, False), (1, True), (1, False))
    ]),
    "common": (alone(options, "common", "$values", {"a": "b"}), [
        {"WITH": {"values": values}} for values in (
            {}, SWITCHES, dict.fromkeys(options._SWITCHES, False), {"shell-job": True},
            *({"manage-cgroups-mode": mode} for mode in ("ignore", "soft", "full", "strict", "", "x")),
            {"empty-ns": []}, {"empty-ns": ["network"]}, {"empty-ns": ["network", "ipc"]},
            *({"network-lock": lock} for lock in ("", "iptables", "nftables", "skip", "x")))
    ]),
    "config_file": (alone(options, "config_file", "$given"), [
        {"WITH": {"given": given}, "fs.exists": there}
        for given in ({}, {"org.criu.config": ""}, {"org.criu.config": "/f"}, {"other": "/f"}) for there in (True,
            False)
    ]),
    "page_server": (alone(options, "page_server", "$text"), [
        {"WITH": {"text": text}} for text in (
            "a:1", "a:65535", "a:65536", "a:0", "a:", ":1", "", "a", "[::1]:80", "::1:80", "[a:1", "a]:1", "[]:1",
            "a:+1", "a:1x", "a:\u0661", "a:0000001", "a:000001", "a: 1", "a:655350", "a:1000001")
    ]),
    "status_fd": (alone(options, "status_fd", 12), [
        {"fcntl": flags} for flags in (0, 1, 2, 0o100000, 0o100001, 0o100002, failed(errno.EBADF))
    ]),
}  # fmt: skip

TABLES: Tables = [
    ("pyrunc.checkpoint.criu", PROCESS, CRIU, ("fcntl", "has_ended", "make_room")),
    ("pyrunc.checkpoint.guard", GUARDING, GUARD, ("poll",)),
    ("pyrunc.checkpoint.images", FILES, IMAGES, ()),
    ("pyrunc.checkpoint.options", OPTIONS, GIVEN, ("fcntl",)),
]


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    lines = calls_of(module, name, TABLES)
    transcript.compare("checkpoint_steps", f"{module.rpartition('.')[2]}.{name}", lines)
