"""What the state of a container, systemd's cgroup driver, the walk in a root filesystem and the command line
ask of the system, as in test_steps.py. golden/state_steps.txt has the tables.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc import cli, command, state
from pyrunc.cgroup import ScopeRequest, bus, systemd
from pyrunc.checkpoint import rootfs
from pyrunc.command import UnknownOption
from pyrunc.errors import PyruncError, UsageError
from pyrunc.state import container
from spies import Answers
from test_session_steps import Row, both, method
from test_steps import Tables, World, calls_of, failed, rows

# -- the state of a container ----------------------------------------------------------------------

STATE: dict[str, Any] = {
    "open_init": 9, "this_boot": True, "status": "running", "keeps_cgroup": False, "kill_cgroup": True,
        "fs.exists": True,
    "driver.pids": [5], "first_in_namespace": False, "open_process": 9, "process_stat": ("S", 77), "boot_id": "boot",
    "alive": True, "init_alive": True, "frozen": False, "creating": False, "posix.geteuid": 1000, "posix.open": 60,
    "posix.getpid": 31, "fs.read_file": b"0\n", "flock": None, "time.monotonic": Answers([0.0, 1.0, 2.0, 3.0]),
    "posix.stat": SimpleNamespace(st_ino=5), "posix.fstat": SimpleNamespace(st_ino=5, st_mode=0o100600, st_mtime=0,
        st_size=99),
    "posix.listdir": [], "time.time": 1000.0, "dumps": "{}", "fs.read_fd": b"{}", "has": False,
        "cgroup_directory": "/cg/c1",
    "fifo": "/state/c1/start", "read": {"id": "c1"}, "read_bytes": b"{}", "posix.pread": b"x", "document.now": "now",
    "document.oci_state": "STATE", "document.parse": {"id": "c1"}, "host.snapshot": None,
}  # fmt: skip
DATA: dict[str, Any] = {"pid": 41, "starttime": 77, "status": "running", "cgroup": "/c1", "cgroup_made": ["/c1"]}


def contained(name: str, *args: Any, **more: Any) -> Callable[[World], Any]:
    """A call of a method of a container."""

    def call(w: World) -> Any:
        facts = SimpleNamespace(
            cgroup_dir=lambda path: f"/other{path}", cgroup2_mount=w.extra.get("mount", "/sys/fs/cgroup")
        )
        if w.answers["host.snapshot"] is None:
            w.answers["host.snapshot"] = facts
        one = w.made(container.Container, name, id="c1", fd=w.extra.get("fd", 8), root=w.spy("root", fd=7),
            dir="/state/c1",
                     data=DATA | w.extra.get("data", {}), backed_up=False)  # fmt: skip
        found = getattr(one, name)(
            *(w.extra[arg[1:]] if arg in ("$number", "$status", "$kind") else arg for arg in args), **more
        )
        return found, one.fd, one.data, one.backed_up

    return call


CONTAINER: dict[str, Row] = {
    "kill_init": (contained("kill_init", "$number"), [
        both({"WITH": {"number": number}}, case)
        for number, case in (
            (15, {}), (9, {}), (9, {"first_in_namespace": True}), (9, {"kill_cgroup": False}), (15, {"open_init": -1}),
            (15, {"open_init": 0}), (15, {"this_boot": False}),
            *((number, {"processes.pidfd_send_signal": error, "kill_cgroup": killed})
              for number in (9, 15) for error in (failed(errno.ESRCH), failed(errno.EPERM)) for killed in (True,
                  False)),
        )
    ]),
    "kill_cgroup": (contained("kill_cgroup", "$number"), [
        {"WITH": {"number": number, "data": data}, "cgroup.open_driver().pids": pids, "this_boot": boot}
        for number, data, pids, boot in (
            (9, {}, [5], True), (15, {}, [5], True), (9, {}, [], True), (9, {"cgroup": ""}, [5], True), (9, {}, [5],
                False),
            (15, {"cgroup_manager": "systemd"}, [5], True),
        )
    ]),
    "keeps_cgroup": (contained("keeps_cgroup"), [
        {"WITH": {"data": {"cgroup_made": made}}} for made in (None, [], ["/c1"], ["/other"])
    ]),
    "report": (contained("report", "root"), [
        {"WITH": {"data": data}, "status": status}
        for status in ("running", "stopped")
        for data in ({}, {"annotations": {"a": "b"}, "bundle": "/b", "rootfs": "/r", "created": "t",
            "ociVersion": "1.0"},
                     {"mounts": [{"entry": {"destination": "/m"}, "pending": False}]},
                     {"mounts": [{"entry": {"destination": "/m"}, "pending": True}], "annotations": {"a": "b"}},
                     {"mounts": [{"entry": {"destination": "/m"}, "pending": False}], "annotations": {"a": "b"}})
    ]),
    "oci_state": (contained("oci_state", "$status"), [
        {"WITH": {"status": status, "data": data}}
        for status in ("stopped", "created", "running") for data in ({}, {"bundle": "/b", "annotations": {"a": "b"}})
    ]),
    "open_init": (contained("open_init"), [{}]),
    "set_init": (contained("set_init", 43), [{}]),
    "describe_intent": (contained("describe_intent", config={
        "root": {"path": "rootfs"}, "annotations": {"a": "b"}, "process": {}, "hooks": {"poststart": [1],
            "poststop": [2]}},
        bundle="/b", cgroup="/c", cgroup_dir="/sys/c", cgroup_manager="systemd", late=[["l"]]), [{}]),
    "describe_intent without": (contained("describe_intent", config={"hooks": {"prestart": [1]}}, bundle="/b",
        cgroup="",
                                          cgroup_dir="", cgroup_manager="disabled", late=[]), [{}]),
    "save": (contained("save"), [
        {}, {"WITH": {"data": {"pid": 0}}}, {"posix.link": failed(errno.EEXIST)}, {"posix.link": failed(errno.ENOSPC)},
        {"fs.replace_file": failed(errno.ENOSPC)}, {"dumps": "x" * (64 << 20)}, {"dumps": "x" * ((64 << 20) + 1)},
    ]),
    "status": (contained("status"), [
        {"WITH": {"data": {"status": kept}}} | case
        for kept, case in (
            ("creating", {"creating": True}), ("creating", {}), ("running", {}), ("created", {}), ("created",
                {"frozen": True}),
            ("running", {"init_alive": False}), ("created", {"posix.open": failed(errno.ENXIO)}),
            ("created", {"posix.open": failed(errno.EMFILE)}), ("created", {"fs.is_inconclusive": False,
                                                                            "posix.open": failed(errno.ENOENT)}),
        )
    ]),
    "frozen": (contained("frozen"), [
        {"fs.read_file": text, "fs.is_inconclusive": lost}
        for text, lost in ((b"0\n", False), (b"1\n", False), (failed(errno.ENOENT), False), (failed(errno.EMFILE),
            True))
    ] + [{"cgroup_directory": ""}]),
    "cgroup_directory": (contained("cgroup_directory"), [
        {"WITH": {"data": {"cgroup_dir": directory, "cgroup": path}, "mount": mount}, "fs.exists": there}
        for directory, path, mount, there in (
            ("", "/c1", "/m", False), ("/cg/c1", "/c1", "/m", True), ("/cg/c1", "/c1", "/m", False), ("/cg/c1", "",
                "/m", False),
            ("/cg/c1", "/c1", "", False),
        )
    ]),
    "creating": (contained("creating"), [
        {"WITH": {"data": {"status": status, "runtime": runtime}}, "alive": alive}
        for status, runtime, alive in (("creating", {"pid": 5, "starttime": 6}, True), ("creating", {"pid": 5}, False),
                                       ("creating", None, True), ("running", {"pid": 5}, True))
    ]),
    "init_alive": (contained("init_alive"), [{"alive": alive, "this_boot": boot}
                                             for alive in (True, False) for boot in (True, False)]),
    "this_boot": (contained("this_boot"), [{"WITH": {"data": {"bootid": boot}}} for boot in ("", "boot", "older")]),
    "acquire": (contained("acquire", 5.0), [
        {}, {"WITH": {"fd": -1}}, {"WITH": {"fd": 0}}, {"WITH": {"fd": -1}, "_wait_for": state.NotFound("c1")},
        *({"WITH": {"fd": -1}, "posix.open": failed(number)} for number in (errno.ENOENT, errno.ENOTDIR, errno.EMFILE)),
    ]),
    "_wait_for": (contained("_wait_for", 8, 2.0), [
        {"flock": Answers(found)} | case
        for found, case in (
            ([None], {}), ([failed(errno.EWOULDBLOCK), None], {}), ([failed(errno.EWOULDBLOCK)] * 9, {}),
            ([failed(errno.EINTR)], {}), ([None], {"posix.stat": SimpleNamespace(st_ino=6)}),
            ([None], {"posix.stat": failed(errno.ENOENT)}),
            ([failed(errno.EWOULDBLOCK)] * 9, {"time.monotonic": Answers([0.0, *[1.0] * 7, 2.0])}),
        )
    ]),
    "unlock": (contained("unlock"), [{"WITH": {"fd": fd}} for fd in (8, 0, -1)]),
    "destroy": (contained("destroy"), [
        {}, {"WITH": {"fd": -1}}, {"posix.rmdir": failed(errno.ENOENT)}, {"posix.rmdir": failed(errno.ENOTEMPTY)},
        {"posix.listdir": Answers([["state.json", "start", "deep"], ["intent.json", "x"], []]), "posix.unlink":
         Answers([None, IsADirectoryError(), None, IsADirectoryError(), None])},
        {"posix.listdir": ["d"], "posix.unlink": IsADirectoryError(errno.EISDIR, "x")},
    ]),
    "abandoned": (contained("abandoned"), [
        {"acquire": error, "posix.listdir": names, "time.time": now, "fs.is_inconclusive": lost}
        for error, names, now, lost in (
            (None, [], 0.5, False), (None, [], 1e6, False), (None, ["state.json"], 0.5, False), (state.Busy("b"), [],
                0, False),
            (failed(errno.ELOOP), [], 0, False), (failed(errno.EMFILE), [], 0, True),
        )
    ]),
    "load": (contained("load"), [
        {"read": found, "fs.exists": there}
        for found, there in (
            ({"id": "c1"}, True), (ValueError("v"), True), (failed(errno.ENOENT), True), (failed(errno.ENOENT), False),
            (failed(errno.ENOTDIR), True), (failed(errno.EIO), True),
        )
    ]),
    "looks_whole": (contained("looks_whole"), [
        {"posix.open": failed(errno.ENOENT)}, {"posix.pread": failed(errno.ESPIPE)},
        *({"posix.pread": Answers([head, tail]), "posix.fstat": SimpleNamespace(st_size=size)}
          for head in (b'{"version":1,"id":"c1",', b"other") for tail in (b"}", b" ") for size in (23, 24)),
    ]),
    "read_bytes": (contained("read_bytes", "f"), [
        {}, {"posix.fstat": SimpleNamespace(st_mode=0o040700)}, {"fs.read_fd": failed(errno.EFBIG)},
          {"fs.read_fd": failed(5)},
        *({"posix.open": failed(number)} for number in (errno.ELOOP, errno.ENXIO, errno.EACCES)),
    ]),
    "has": (contained("has", "f"), [
        {}, *({"posix.stat": failed(errno.ENOENT), "fs.is_inconclusive": lost} for lost in (True, False))
    ]),
}  # fmt: skip

# -- systemd's driver ------------------------------------------------------------------------------


def facts_of(**values: Any) -> Any:
    """Facts about a host."""
    return SimpleNamespace(**values)


UNIT = "/user.slice/pyrunc-c1.scope"
SYSTEMD: dict[str, Any] = {
    "host.initial_userns": True, "host.read": b"0::/user.slice/pyrunc-c1.scope\n", "needed": {}, "limits": {},
        "posix.open": 60,
    "described": {"Slice": ("s", "x")}, "missing": ["/m"], "dir": "/cg/dir", "fs.exists": True, "without": False,
    "bus.Manager().control_group": "/user@1000.service/", "annotated": {},
}  # fmt: skip


def driver(name: str, *args: Any, **more: Any) -> Callable[[World], Any]:
    """A call of a method of the driver."""

    def call(w: World) -> Any:
        facts = SimpleNamespace(prefix="", euid=w.extra.get("euid", 0))
        one = w.made(systemd.Systemd, name, facts=facts, link=w.spy("manager"), fresh="", late={}, made=[])
        given = [w.extra["arg"] if arg == "$arg" else arg for arg in args]
        return getattr(one, name)(*given, **more), one.fresh, one.late, one.made

    return call


EXISTS = bus.BusError("start", bus.UNIT_EXISTS, "exists")
OTHER = bus.BusError("start", "org.other", "Cannot set property X")
REQUEST = ScopeRequest("c1", 31, {"a": "b"})
DRIVER: dict[str, Row] = {
    "is_user": (lambda w: systemd.is_user(facts_of(prefix="/p", euid=w.extra["euid"])),
        [
        {"WITH": {"euid": euid}, "host.initial_userns": initial} for euid in (0, 5) for initial in (True, False)
    ]),
    "manager_path": (lambda w: systemd.manager_path(facts_of(prefix="/p"), w.extra["user"]),
        [
        {"WITH": {"user": True}}, {"WITH": {"user": True}, "bus.Manager().control_group": PyruncError("lost")},
        *({"WITH": {"user": False}, "host.read": text} for text in (b"0::/init.scope\n", b"0::/a/init.scope\n",
          b"0::/\n")),
    ]),
    "move_into_scope": (
        lambda w: systemd.move_into_scope(f"{UNIT}/sub", "/x", 31, facts_of(prefix="", euid=w.extra["euid"])),
            [
            {"WITH": {"euid": 0}}, {"WITH": {"euid": 5}}, {"WITH": {"euid": 5},
              "bus.Manager().attach": PyruncError("no")},
        ]),
    "create": (driver("create", "$arg", {"cpu": {}}, request=REQUEST), [
        {"WITH": {"arg": path}} | case
        for path in (UNIT, f"{UNIT}/sub")
        for case in ({}, {"needed": {"cpu": 1}}, {"limits": {"TasksMax": ("t", 3)}}, {"limits": {"TasksMax": ("t", 4)}},
                     {"check_place": PyruncError("elsewhere")}, {"posix.open": failed(errno.ENOENT)})
    ]),
    "create without a request": (driver("create", UNIT, {}), [{}]),
    "described": (driver("described", "$arg", "user.slice", 31, "c1"), [
        {"WITH": {"arg": unit}} for unit in ("pyrunc-c1.scope", "pyrunc-c1.slice")
    ]),
    "start": (driver("start", "u.scope", {"X": 1}), [
        {"manager.start_transient": Answers(found), "without": without}
        for found, without in (
            ([None], False), ([EXISTS, None], False), ([EXISTS, EXISTS], False), ([OTHER, None], True), ([OTHER],
                False),
            ([PyruncError("lost")], False),
        )
    ]),
    "check_place": (driver("check_place", UNIT, 31, "$arg"), [
        {"WITH": {"arg": unit}, "host.read": text}
        for unit in ("u.scope", "u.slice") for text in (f"0::{UNIT}\n".encode(), b"0::/\n")
    ]),
    "nest": (driver("nest", f"{UNIT}/sub", 31), [{}]),
    "set_properties": (driver("set_properties", "u.scope", "$arg"), [
        {"WITH": {"arg": asked}, "manager.set_properties": Answers(found), "without": without}
        for asked, found, without in (({}, [None], False), ({"X": 1}, [None], False), ({"X": 1}, [OTHER, None], True),
                                      ({"X": 1}, [OTHER], False))
    ]),
    "stop": (driver("stop", "u.scope"), [{}, {"manager.stop": PyruncError("gone")},
        {"manager.reset_failed": PyruncError("no")}]),
    "missing": (driver("missing", "$arg"), [{"WITH": {"arg": path}} for path in (UNIT, f"{UNIT}/sub")]),
}  # fmt: skip

# -- a path in a root filesystem -------------------------------------------------------------------

FILE, DIRECTORY, LINK = (SimpleNamespace(st_mode=mode) for mode in (0o100644, 0o040755, 0o120777))
WALK: dict[str, Any] = {
    "posix.dup": 50, "posix.open": Answers([61, 62, 63, 64, 65]), "posix.fstat": DIRECTORY, "posix.readlink": "/etc",
    "enter": 60,
}  # fmt: skip


def walked(name: str, *args: Any) -> Callable[[World], Any]:
    """A call of a method of a walk that is below the root."""
    return method(rootfs.Walk, name, *args, own=name, fds=[50, 51], parts=["a"], links=0, make="", todo=[])


PATHS: dict[str, Row] = {
    "init": (lambda w: spies.state_of(rootfs.Walk(5, "dir")), [{}]),
    "go": (lambda w: (lambda one: (one.go(w.extra["path"]).path, one.fds, one.parts, one.links))(rootfs.Walk(5)), [
        {"WITH": {"path": path}, "posix.fstat": Answers(kinds), "posix.readlink": target}
        for path, kinds, target in (
            ("/a/b", [DIRECTORY], ""), ("a//./b/../c", [DIRECTORY], ""), ("../../a", [DIRECTORY], ""), ("/a", [FILE],
                ""),
            ("/a/b", [FILE], ""), ("/a/l/c", [DIRECTORY, LINK, DIRECTORY], "/x/y"), ("/a/l", [DIRECTORY, LINK, FILE],
                "../z"),
            ("/l", [LINK] * 99, "l"),
        )
    ]),
    "enter": (walked("enter", "part"), [
        {"posix.open": Answers(opens), "SELF": {"make": make, "todo": todo}, "posix.mkdir": made}
        for opens, make, todo, made in (
            ([60], "", [], None), ([failed(errno.ENOENT), 61], "", [], None), ([failed(errno.ENOENT), 61], "dir", [],
                None),
            ([failed(errno.EACCES), 61], "dir", [], None), ([failed(errno.ENOENT), 61, 62], "file", [], None),
            ([failed(errno.ENOENT), 61], "file", ["x"], None), ([failed(errno.ENOENT), 61], "dir", [],
                failed(errno.EEXIST)),
            ([failed(errno.ENOENT), 61], "dir", [], failed(errno.EROFS)),
        )
    ]),
    "follow": (walked("follow", 60), [
        {"posix.readlink": target, "SELF": {"links": links, "todo": ["x"] * parts}}
        for target, links, parts in (("/b//./c", 0, 1), ("../b", 0, 1), ("b", 38, 1), ("b", 39, 1), ("b", 40, 1))
    ] + [{"posix.readlink": failed(errno.EINVAL)}]),
    "follow of many": (lambda w: (lambda one: one.follow(60))(  # the parts are not shown
        w.made(rootfs.Walk, "follow", fds=[50], parts=[], links=0, todo=["x"] * w.extra["parts"])), [
        {"WITH": {"parts": parts}} for parts in (4096, 4097)
    ]),
    "close": (walked("close"), [{}]),
    "resolved": (lambda w: rootfs.resolved(5, "/a/b"), [
        {}, *({"posix.open": failed(number)} for number in (errno.ENOENT, errno.ENOTDIR, errno.EACCES))
    ]),
    "kind": (lambda w: rootfs.kind(5, "/a"), [
        *({"posix.fstat": found} for found in (DIRECTORY, FILE)),
        *({"posix.open": failed(number)} for number in (errno.ENOENT, errno.ENOTDIR, errno.EACCES)),
    ]),
    "open_root": (lambda w: rootfs.open_root("/r"), [{}]),
}  # fmt: skip

# -- the command line ------------------------------------------------------------------------------

VERB: Any = SimpleNamespace(
    FLAGS=(("all", "a", "", "bool", "all of them"), ("name", "", "N", "str", "a name")), USAGE="verb [OPTIONS] ID",
        ARGS=(1, 2),
    SUMMARY="does it", main=lambda context, values, args: (sorted(values), args), DETAILS=("one\ntwo", "three"),
    STDERR_IS_OURS=True, __name__="verb",
)  # fmt: skip
PLAIN: Any = SimpleNamespace(FLAGS=(), USAGE="plain", ARGS=(0, 0), SUMMARY="plain", main=lambda *given: 5)
COMMANDS: dict[str, Any] = {
    "load_verb": VERB, "out": 0, "run_verb": 6, "fail": 7, "parse": None, "trace.traced": 8, "version_text": "VERSION",
    "licenses_text": "LICENSES", "help_for": 9, "posix.environ": {},
}  # fmt: skip


def main_of(w: World) -> Any:
    """main(), with the functions that it calls replaced."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("load_verb", "run_verb", "fail", "version_text", "licenses_text", "help_for"):
            patch.setattr(cli, name, spies.noting(name, w.notes, w.answers))
        w.answers["Context"] = w.spy("context", log=w.spy("log"))
        return cli.main(["argv"])


COMMAND_LINE: dict[str, Row] = {
    "main": (main_of, [
        *({"parse": (values, rest)} for values, rest in (
            ({}, ["verb", "a", "b"]), ({"debug": True}, ["verb"]), ({"version": True}, []), ({"licenses": True}, []),
            ({"help": True}, []), ({"help": True}, ["verb"]), ({}, []), ({}, ["help"]), ({}, ["help", "verb"]), ({},
                ["h", "x"]),
            ({"trace": "/t"}, ["verb", "a"]), ({"trace": ""}, ["verb", "a"]),
        )),
        {"parse": ({}, ["plain"]), "load_verb": PLAIN}, {"parse": UsageError("wrong")}, {"parse": ({}, ["verb"]),
          "run_verb":
         KeyboardInterrupt()}, {"parse": ({"debug": True}, ["verb"]), "run_verb": PyruncError("p")},
    ]),
    "parse_global": (lambda w: cli.parse_global(["argv"]), [
        {"parse": ({"debug": True}, ["x"])},
        *({"parse": UnknownOption(name, "-" + name, ())} for name in ("detach", "d", "none", "")),
    ]),
    "run_verb": (lambda w: cli.run_verb(w.extra["verb"], w.spy("context"), ["argv"]), [
        {"WITH": {"verb": verb}, "parse": found}
        for verb, found in (
            *((VERB, ({"all": True}, args)) for args in ([], ["a"], ["a", "b"], ["a", "b", "c"])), (VERB,
              ({"help": True}, [])),
            (PLAIN, ({}, [])), (PLAIN, ({}, ["a"])), (VERB, UnknownOption("root", "--root", ())),
            (VERB, UnknownOption("no", "--no", ())),
            (SimpleNamespace(**vars(PLAIN) | {"STOP_AT_FIRST": "all"}), ({"all": True}, ["a"] * 5)),
            (SimpleNamespace(**vars(PLAIN) | {"STOP_AT_FIRST": "all"}), ({}, ["a"] * 5)),
        )
    ]),
    "help_for": (lambda w: cli.help_for(w.extra["args"]), [{"WITH": {"args": args}} for args in ([], ["help"], ["h"],
        ["kill"])]),
    "verb_help": (lambda w: [cli.verb_help(VERB), cli.verb_help(PLAIN)], [{}]),
    "arguments": (lambda w: [cli.arguments(least, most) for least, most in
                             itertools.product((0, 1, 2), (0, 1, 2, 3, command.ANY_NUMBER)) if least <= most], [{}]),
}  # fmt: skip
TABLES: Tables = [
    ("pyrunc.state.container", CONTAINER, STATE, (
        "open_process", "process_stat", "alive", "boot_id", "first_in_namespace", "flock", "kill_headless", "dumps",
            "check_id")),
    ("pyrunc.cgroup.systemd", DRIVER, SYSTEMD, ("without", "annotated")),
    ("pyrunc.checkpoint.rootfs", PATHS, WALK, ()),
    ("pyrunc.cli", COMMAND_LINE, COMMANDS, ("parse", "out", "Context")),
]  # fmt: skip


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("state_steps", f"{module.removeprefix('pyrunc.')}.{name}", calls_of(module, name, TABLES))
