"""What each check of the doctor looks at and reports, as in test_steps.py. golden/doctor_steps.txt has
the tables.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from pyrunc import state
from pyrunc.doctor import bundle, files, findings, leftovers, storage
from pyrunc.errors import ConfigError, Problem, PyruncError, StateError
from pyrunc.spec import load
from pyrunc.spec.names import CAPABILITIES
from spies import Answers, By, alone
from test_session_steps import Row
from test_steps import Tables, World, calls_of, failed, rows

FACTS: dict[str, Any] = {
    "cgroup2_mount": "/cg", "cgroup2_root": "/", "own_cgroup": "/own", "rootless": False, "resctrl": False, "cap_last":
    40, "apparmor": True, "selinux": True, "kernel": (6, 1), "arch": "x86_64", "hybrid": False,
}  # fmt: skip


def host(w: World) -> Any:
    """The host, as far as a case says."""
    given = {"euid": 0, "uid": 0, "egid": 0, "initial_userns": True, "privileged": True, "program": "/usr/bin/pyrunc",
             "root_option": "", "manager": "cgroupfs", "env": {}}  # fmt: skip
    facts = SimpleNamespace(**FACTS | w.extra.get("facts", {}), cgroup_dir=lambda path: "/cg" + path)
    return w.spy("machine", **given | w.extra.get("host", {}), facts=facts)


class Area(findings.Area):
    """An area that is short in a table."""

    called = "area"


def area(w: World) -> Any:
    """An area, whose findings are compared."""
    return Area("area")


def check(module: Any, name: str, *args: Any, keep: str = "") -> Callable[[World], Any]:
    """A call of a check."""
    return alone(module, name, host, area, *args, keep=keep)


def ask(module: Any, name: str, *args: Any, keep: str = "") -> Callable[[World], Any]:
    """A call of a function that reports nothing."""
    return alone(module, name, host, *args, keep=keep)


def quiet(call: Callable[[World], Any]) -> Callable[[World], Any]:
    """A call of which only the result is compared."""

    def without_notes(w: World) -> Any:
        found = call(w)
        w.notes.clear()
        return found

    return without_notes


def user(number: int = 1000, **more: Any) -> dict[str, Any]:
    """A host for a user."""
    return {"euid": number, "uid": number, "egid": number, "privileged": False} | more


# -- leftovers -------------------------------------------------------------------------------------


def known(w: World) -> Any:
    """The known cgroups."""
    return SimpleNamespace(cgroups=set(w.extra.get("cgroups", ())), complete=w.extra.get("complete", True))


def found(w: World) -> Any:
    """A container's directory."""
    root = SimpleNamespace(fd=5, root="/root dir")
    return w.spy("container", id=w.extra.get("id", "c1"), root=root,
                 data={"status": "running", "cgroup": "/c1", "cgroup_dir": "/cg/c1"} | w.data)  # fmt: skip


INIT = "pyrunc-init\n"
STAT = "7 (a) b) " + " ".join(str(number) for number in range(100, 130))
LEFT: dict[str, Any] = {
    "command": "COMMAND",
    "time.process_time": 0.0, "os.listdir": ["b", "a"], "state.root_dir": "/root", "machine.names": [], "os.open": 60,
    "populated": False, "machine.place": "/place", "os.readlink": "/memfd:pyrunc-init (deleted)", "os.sysconf": 100,
    "container.abandoned": True, "container.this_boot": True, "container.creating": False,
    "os.stat": SimpleNamespace(st_ino=77),
}  # fmt: skip
LEFTOVERS: dict[str, Row] = {
    "check": (ask(leftovers, "check"), [
        {}, {"state.root_dir": PyruncError("no root")}, {"WITH": {"facts": {"cgroup2_mount": ""}}},
    ]),
    "states": (check(leftovers, "states", "/root", known), [
        {}, {"state.root_dir": "/x"}, {"time.process_time": Answers([1.0, 1.05, 1.051])}, {"os.listdir": []},
        {"time.process_time": Answers([1.0, 1.051])},
    ]),
    "command": (ask(leftovers, "command", "delete", "c 1"), [{}, {"WITH": {"host": {"root_option": "/r"}}}]),
    "one_state": (check(leftovers, "one_state", found, known), [
        {}, {"state.check_id": StateError("no id")}, {"container.load": state.NotFound("c1")},
        *({"container.load": StateError("damaged"), "container.abandoned": gone} for gone in (True, False)),
    ]),
    "stray": (alone(leftovers, "stray", area, found), [
        {}, {"os.stat": failed(errno.ENOENT)}, {"WITH": {"id": "a b"}}, {"WITH": {"id": "a\nb"}},
    ]),
    "judge": (check(leftovers, "judge", found), [
        {"container.this_boot": boot, "DATA": {"status": status}, "container.creating": creating,
         "container.init_alive": alive, "populated": full}
        for boot, status, creating, alive, full in (
            (False, "running", False, False, False), (True, "creating", True, False, False),
            (True, "creating", False, False, False), (True, "running", False, True, False),
            (True, "running", False, False, True), (True, "running", False, False, False))
    ]),
    "other_roots": (ask(leftovers, "other_roots", "$root", known), [
        {"WITH": {"root": root, "host": {"uid": 7}}, "time.process_time": Answers(times), "machine.text": text,
         "machine.names": By({"/run/docker/runtime-runc": ["moby"], "/run/docker/runtime-runc/moby": ["c3"],
                              "/run/pyrunc": ["c1"], "/run/user/7/pyrunc": ["c2"], None: []})}
        for root, times, text in (
            ("/root", [0.0], '{"cgroup": "/a"}'), ("/run/pyrunc", [0.0], '{"cgroup": "/a"}'), ("/root", [0.0], "x"),
            ("/root", [0.0], '{"cgroup": "/\udcff"}'), ("/root", [0.0], "[]"), ("/root", [0.0], '{"cgroup": 5}'),
            ("/root", [0.0, 0.05, 0.051], '{"cgroup": "/a"}'), ("/root", [0.0], '{"other": "/a"}'))
    ]),
    "processes": (check(leftovers, "processes"), [
        {"machine.names": ["5", "self", "6"], "machine.text": text, "is_init": init, "age": age, "orphaned": orphaned,
         "time.process_time": Answers(times)}
        for text, init, age, orphaned, times in (
            (INIT, True, 11.0, True, [0.0]), ("pyrunc-init2\n", True, 11.0, True, [0.0]),
            (INIT, False, 11.0, True, [0.0]), (INIT, True, 10.0, True, [0.0]), (INIT, True, 11.0, False, [0.0]),
            (INIT, True, 11.0, True, [0.0, 0.05, 0.051]))
    ]),
    "is_init": (ask(leftovers, "is_init", 7), [{}, {"os.readlink": "/bin/sh"}, {"os.readlink": failed(errno.EACCES)}]),
    "age": (ask(leftovers, "age", 7), [
        {"machine.text": By({"/proc/uptime": uptime, "/proc/7/stat": text})}
        for uptime, text in (("1000.5 3\n", STAT), ("", STAT), ("1000.5 3", ""), ("9 9", "7 (a) " + "1 " * 19),
                             ("9 9", "7 (a) " + "1 " * 20))
    ]),
    "orphaned": (ask(leftovers, "orphaned", 7), [
        {"os.listdir": names, "os.readlink": Answers(links)}
        for names, links in (
            (["0", "1"], ["/x", "/root/c1/start (deleted)"]), (["0"], ["/root/c1/error (deleted)"]),
            (["0"], ["/root/c1/start"]), (["0", "1"], [failed(errno.ENOENT), "/r/start (deleted)"]), ([], ["/x"]),
            ([str(number) for number in range(65)], [*["/x"] * 63, "/r/start (deleted)"]),
            ([str(number) for number in range(65)], [*["/x"] * 64, "/r/start (deleted)"]))
    ] + [{"os.listdir": failed(errno.EACCES)}]),
    "cgroups": (check(leftovers, "cgroups", known), [
        {"WITH": {"complete": complete, "cgroups": ["/top/a"], "facts": {"cgroup2_root": top}}, "walk": walked,
         "populated": By({"/place/b": True, None: False}), "is_pyruncs": By({"/place/c": False, None: True}),
         "time.process_time": Answers(times)}
        for complete, top, walked, times in (
            (False, "/", ["/place/a"], [0.0]),
            (True, "/", ["/place/a", "/place/b", "/place/c", "/place/d e"], [0.0]),
            (True, "/top", ["/place/a"], [0.0]), (True, "/top/", ["/place/f"], [0.0]),
            (True, "/", ["/place/d", "/place/e"], [0.0, 0.05, 0.051]))
    ]),
    "cgroups of a large tree": (quiet(check(leftovers, "cgroups", known)), [
        {"WITH": {}, "walk": [f"/place/{number}" for number in range(count)], "is_pyruncs": False}
        for count in (5000, 5001)
    ]),
    "is_pyruncs": (alone(leftovers, "is_pyruncs", "$directory"), [
        {"WITH": {"directory": "/a/" + name}, "os.open": opened, "programs": names}
        for name, opened, names in (
            ("pyrunc-c1.scope", 60, []), ("pyrunc-c1", 60, []), ("c1.scope", 60, []), ("c", 60, ["pyrunc_devices"]),
            ("c", failed(errno.ENOENT), ["pyrunc_devices"]), ("c", 60, failed(errno.EPERM)))
    ]),
    "programs": (alone(leftovers, "programs", 60), [
        {"bpf.attached": attached, "bpf.open_program": Answers(opened), "bpf.name": Answers(names)}
        for attached, opened, names in (
            ([7, 8], [70, 80], ["a", "b"]), (failed(errno.EPERM), [70], ["a"]),
            ([7, 8], [failed(errno.ENOENT), 80], ["b"]), ([7, 8], [70, 80], [failed(errno.EPERM), "b"]))
    ]),
}  # fmt: skip

# -- files -----------------------------------------------------------------------------------------

REGULAR, DIRECTORY, SOCKET, PLAIN = (
    SimpleNamespace(st_mode=mode, st_dev=3, st_ino=4) for mode in (0o100755, 0o040755, 0o140755, 0o100644)
)
DISKS = [
    ["1", "0", "8:1", "/", place, "rw", "-", kind]
    for place, kind in (("/", "ext4"), ("/a", "xfs"), ("/a/b/", "tmpfs"), ("/dX", "xfs"))
]
TREE: dict[str, Any] = {"path": "/bin/sh", "fd": 9}
ELF = b"\x7fELF" + b"\0" * 14 + b"\x3e\0"
FILES: dict[str, Any] = {
    "machine.mounts": DISKS, "machine.stat": DIRECTORY, "os.statvfs": SimpleNamespace(f_flag=0), "machine.place": "/p",
    "os.fstat": REGULAR, "remount": "REMOUNT", "machine.text": "nodev\tproc\n\text4\n", "machine.exists": True,
    "fs.normpath": Answers(["/bundle/x"]), "fs.join": "/bundle/x", "explain.candidates": ["/bin/sh"], "emulated": False,
    "tree.find": True, "explain.interpreter_of": "/bin/sh", "explain.machine_of": 62, "machine.names": [],
}  # fmt: skip


def config(**values: Any) -> dict[str, Any]:
    """A configuration."""
    return {"root": {"path": "rootfs"}} | values


def head(text: bytes, **more: Any) -> dict[str, Any]:
    """A case for a program that begins so."""
    return {"tree.read": text} | more


BIND = {"source": "src", "destination": "/d", "options": ["bind"]}
ID_MAPPED = BIND | {"uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}
OF_FILES: dict[str, Row] = {
    "check": (check(files, "check", "/bundle", "$config"), [
        {"WITH": {"config": config()}}, {"WITH": {"config": config(root={"path": ""})}},
        {"WITH": {"config": config()}, "root_filesystem": False},
    ]),
    "root_filesystem": (check(files, "root_filesystem", "/b/root fs", "$config"), [
        {"WITH": {"config": config(root={"readonly": readonly})}, "machine.stat": kind,
         "os.statvfs": SimpleNamespace(f_flag=flags)}
        for readonly, kind, flags in (
            (False, None, 0), (False, REGULAR, 0), (False, DIRECTORY, 0), (False, DIRECTORY, os.ST_NOEXEC | 1),
            (False, DIRECTORY, os.ST_RDONLY | os.ST_NOSUID), (True, DIRECTORY, os.ST_RDONLY),
            (True, DIRECTORY, os.ST_RDONLY | os.ST_NOSUID), (False, DIRECTORY, os.ST_NOSUID))
    ]),
    "remount": (ask(files, "remount", "$path", "suid"), [
        {"WITH": {"path": path}} for path in ("/x", "/a", "/ab", "/a/b/c", "/a/b", "/a/bc")
    ]),
    "program": (check(files, "program", "/root", "$config"), [
        {"WITH": {"config": config(process=process and {"args": ["sh"]}, mounts=[{"destination": place} for place in
                                   mounted]), "spies": {"explain.Tree": TREE}},
         "fs.normpath": Answers(listed), "explain.candidates": listed, "tree.find": there, "os.fstat": kind}
        for process, mounted, listed, there, kind in (
            (None, [], ["/bin/sh"], True, REGULAR), (True, [], ["/bin/sh"], True, REGULAR),
            (True, ["/bin"], ["/bin/sh"], True, REGULAR), (True, ["/bin/"], ["/usr/sh"], True, REGULAR),
            (True, ["/bi"], ["/bin/sh"], True, REGULAR), (True, ["/bin/sh"], ["/bin/sh"], True, REGULAR),
            (True, ["/usr/"], ["/usr/sh"], True, REGULAR), (True, ["/X/"], ["/X"], True, REGULAR),
            (True, [], ["/bin/sh"], False, REGULAR), (True, [], ["/bin/sh"], True, DIRECTORY),
            (True, [], ["/a/sh", "/b/sh"], By({"/b/sh": True, None: False}), REGULAR),
            (True, [], ["/a/sh", "/b/sh"], False, REGULAR))
    ]),
    "judge": (check(files, "judge", "/ro ot", lambda w: w.spy("tree", **TREE), "$found"), [
        {"WITH": {"found": REGULAR}} | case
        for case in (
            head(b""), {"tree.read": failed(errno.EACCES)}, head(b"#!/bin/sh"), head(b"#!x", **{"tree.find": False}),
            head(b"#!x", **{"explain.interpreter_of": ""}), head(b"#!x", **{"os.fstat": DIRECTORY}), head(ELF),
            head(ELF[:19]), head(ELF, **{"explain.machine_of": 183}), head(b"\x7fELF" * 4), head(b"text" * 5),
            head(b"x"), head(b"#"), head(ELF, **{"explain.machine_of": 9999}),
            head(ELF, **{"explain.machine_of": 183, "emulated": True}))
    ] + [
        {"WITH": {"found": found}, "tree.read": ELF}
        for found in (PLAIN, SimpleNamespace(st_mode=0o100100), SimpleNamespace(st_mode=0o104010),
                      SimpleNamespace(st_mode=0o100001), SimpleNamespace(st_mode=0o104000))
    ] + [{"WITH": {"found": REGULAR, "facts": {"arch": "s390x"}}, "tree.read": ELF}]),
    "emulated": (ask(files, "emulated"), [
        {"machine.names": names} for names in ([], ["status"], ["status", "qemu-aarch64"], ["xqemu-a"])
    ]),
    "mounts": (check(files, "mounts", "/bundle", "$config"), [
        {"WITH": {"config": config(mounts=mounts)}, "machine.stat": kind}
        for mounts, kind in (
            (None, DIRECTORY), ([], DIRECTORY), ([BIND], DIRECTORY), ([BIND], None),
            ([BIND | {"options": ["rbind"]}], None), ([BIND | {"options": [], "type": "bind"}], None),
            ([{"destination": "/d", "type": "bind"}], None), ([BIND | {"options": ["ro"], "type": "proc"}], None),
            ([{"destination": "/d", "type": "none"}, {"destination": "/d", "type": "cgroup"}], None),
            ([{"destination": "/d", "type": "my fs"}, BIND], DIRECTORY), ([{"destination": "/d"}], None),
            ([ID_MAPPED, ID_MAPPED], DIRECTORY), ([ID_MAPPED], None), ([{"destination": "/d", "type": "ext4"}], None))
    ]),
    "hooks": (check(files, "hooks", "$config"), [
        {"WITH": {"config": config(hooks={kind: [{"path": "/ho ok"}, {"path": "/b"}] for kind in kinds})},
         "machine.is_program": good, "machine.exists": there}
        for kinds, good, there in (
            ([], True, True), (files.HOST_HOOKS, True, True), (["startContainer"], False, True),
            (["poststop", "createRuntime", "prestart"], False, True), (["poststop"], By({"/b": True, None: False}),
                                                                       False))
    ] + [{"WITH": {"config": config()}}]),
}  # fmt: skip

# -- a bundle --------------------------------------------------------------------------------------

CHECKED: dict[str, Any] = {
    "machine.capabilities": (1 << 41) - 1, "machine.number": 1000, "fs.abspath": "/bundle",
    "machine.rlimit": (5, 100), "machine.works": (0, False), "machine.exists": True, "machine.stat": SOCKET,
    "offering": "OFFER", "cgroups.bound_to_v1": {"io", "cpu", "perf_event"}, "users.user_name": "me", "fs.exists": True,
    "users.in_file": [(100, 10)], "machine.subordinate_ids": [(200, 5)], "covered": False, "kernel.why": "; why",
    "seccomp.compile_filter": (b"x" * 24, 0, True), "seccomp.usable_flags": ["A"],
        "machine.text": "p (enforce)\nq r (c)",
    "cgroups.CONTROLLERS": {"cpu": "", "io": "", "pids": ""},
}  # fmt: skip


def wanted(w: World) -> Any:
    """A config and its compilation."""
    plan = SimpleNamespace(rlimits=w.extra.get("rlimits", []), cgroup_path=w.extra.get("path", "/c1"))
    given = {"process": w.extra.get("process", {}), "linux": w.extra.get("linux", {})}
    return SimpleNamespace(**given, plan=plan, user_namespace=w.extra.get("userns", False),
                           facts=SimpleNamespace(**FACTS | w.extra.get("facts", {})))  # fmt: skip


def checked(w: World) -> Any:
    """The check of a whole bundle, without the subjects."""
    plan = SimpleNamespace(steps=[1, 2], warnings=["w1", "w2"])
    compiled: Any = ({"linux": {"namespaces": [{"type": "user"}]}}, "FACTS", plan)
    w.answers.setdefault("create.compile_only", compiled)
    found = ask(bundle, "check", SimpleNamespace(bundle="b"))(w)
    return [one.done() for one in found]


def made(**values: Any) -> Any:
    """The attributes of a config and its compilation."""
    return vars(bundle.Wanted("/p", values, "FACTS", "PLAN"))  # type: ignore[arg-type]


def limits_of(number: int, hard: int) -> list[Any]:
    """The plan of one limit."""
    return [(number, 5, hard, "/process/rlimits/0")]


MAP = [{"containerID": 0, "hostID": 100, "size": 10}, {"containerID": 10, "hostID": 7, "size": 2}]
SETS = {"capabilities": {kind: [CAPABILITIES[index]] for index, kind in enumerate(
    ("bounding", "effective", "inheritable", "permitted", "ambient"))}}  # fmt: skip
KINDS = [{"type": "user"}, {"type": "network", "path": "/n"}, {"type": "pid", "path": ""}]
DRIVERS: list[dict[str, Any]] = [
    {"cgroupfs.needed": {}},
    {"cgroupfs.needed": {"pids": "/x", "cpu": "/y"}},
    {"cgroupfs.needed": {"cpu": "/y"}, "cgroupfs.check_available": PyruncError("none")},
    {"cgroupfs.needed": {}, "fs.exists": False},
    {"cgroupfs.needed": {}, "cgroupfs.check_usable": PyruncError("threaded")},
    {"cgroupfs.needed": {}, "cgroupfs.check_usable": PyruncError("threaded"), "fs.exists": False},
]
DEVICES: list[Any] = [None, {"eth0": {}, "eth1": {}}]
BUNDLE: dict[str, Row] = {
    "check": (checked, [
        {}, *({"create.compile_only": error} for error in (
            PyruncError("no rootfs"), load.Unreadable("config.json", "lost"), ConfigError([Problem("/a", "b")]))),
    ]),
    "wanted": (lambda w: [made(), made(process={"cwd": "/x"}, linux={"namespaces": [{"type": "pid"}]}),
                          made(linux={"namespaces": [{"type": "user"}]})], [{}]),
    "invalid": (alone(bundle, "invalid", area, "$error"), [
        {"WITH": {"error": ConfigError([Problem("/a", "b", "c"), Problem("", "object")], more=more)}} for more in (0, 7)
    ]),
    "resource_limits": (check(bundle, "resource_limits", wanted, keep="limit_text"), [
        {"WITH": {"rlimits": limits_of(number, hard), "host": {"initial_userns": initial}}, "machine.rlimit": (1, own),
         "machine.number": most, "machine.capabilities": held}
        for number, hard, initial, own, most, held in (
            (7, 100, True, 100, 1000, 0), (7, 101, True, 100, 1000, 0), (7, 101, True, 100, 1000, 1 << 24),
            (7, 101, False, 100, 1000, 1 << 24), (7, 1000, False, -1, 1000, 0), (7, 1001, False, -1, 1000, 1 << 24),
            (7, 1 << 40, True, -1, 1000, 0), (7, 1 << 64 - 1, True, -1, None, 0), (6, 2000, True, -1, 1000, 0),
            (6, (1 << 64) - 1, True, 100, 1000, 0), (6, 1, True, 0, 1000, 0))
    ] + [{}]),
    "limit_text": (lambda w: [bundle.limit_text(value) for value in (0, 5, (1 << 64) - 1, (1 << 64) - 2)], [{}]),
    "oom_score": (check(bundle, "oom_score", wanted), [
        {"WITH": {"process": process, "host": {"initial_userns": initial}}, "machine.number": own,
         "machine.capabilities": held}
        for process, initial, own, held in (
            ({}, True, 5, 0), ({"oomScoreAdj": 4}, True, 5, 0), ({"oomScoreAdj": 5}, True, 5, 0),
            ({"oomScoreAdj": 4}, False, 5, 1 << 24), ({"oomScoreAdj": 4}, True, 5, 1 << 24),
            ({"oomScoreAdj": 0}, True, None, 0), ({"oomScoreAdj": -1}, True, None, 0))
    ]),
    "controllers": (check(bundle, "controllers", wanted), [
        {"WITH": {"path": path, "linux": linux, "spies": {"Cgroupfs": {}}}} | case
        for path in ("", "/c1") for linux in ({}, {"resources": {"cpu": {"shares": 5}, "pids": {"limit": 3}}})
        for case in DRIVERS
    ]),
    "offering": (ask(bundle, "offering", "$error"), [
        {"WITH": {"error": PyruncError(text)}, "cgroups.bound_to_v1": bound}
        for text, bound in (("the controller is not available", {"io", "cpu", "perf_event"}), ("other", {"io"}),
                            ("the controller is not available", {"perf_event"}))
    ]),
    "capabilities": (check(bundle, "capabilities", wanted), [
        {"WITH": {"process": process, "userns": userns, "facts": {"cap_last": last}}, "machine.capabilities": held}
        for process, userns, last, held in (
            ({}, False, 40, 0), (SETS, False, 40, 31), (SETS, False, 40, 15), (SETS, False, 40, 0), (SETS, True, 40, 0),
            (SETS, False, 2, 0), (SETS, False, 3, 7), ({"capabilities": {"bounding": ["CAP_NEW"]}}, False, 40, 0))
    ]),
    "scheduler": (check(bundle, "scheduler", wanted), [
        {"WITH": {"process": {"scheduler": plan}, "host": {"initial_userns": initial}}, "machine.capabilities": held}
        for plan, initial, held in (
            (None, True, 0), ({"policy": "SCHED_FIFO"}, True, 1 << 23), ({"policy": "SCHED_FIFO"}, False, 1 << 23),
            *((one, True, 0) for one in ({"policy": "SCHED_FIFO"}, {"policy": "SCHED_RR"}, {"policy": "SCHED_DEADLINE"},
                                         {"policy": "SCHED_OTHER"}, {"policy": "SCHED_OTHER", "nice": -1},
                                         {"policy": "SCHED_OTHER", "nice": 1}, {"policy": "SCHED_BATCH", "nice": 0})))
    ] + [{}]),
    "namespaces": (check(bundle, "namespaces", wanted), [
        {"WITH": {"linux": {"namespaces": spaces}, "host": host_, "userns": userns}, "machine.works": (result, False),
         "machine.exists": there}
        for spaces, host_, userns, result, there in (
            (None, {}, True, 0, True), (KINDS, {}, True, 0, True), (KINDS, {}, True, -1, True),
            (KINDS, {}, True, 0, False), (KINDS, user(), False, 0, True), (KINDS, user(), True, 1, True),
            (KINDS, {}, False, 0, True))
    ]),
    "id_maps": (check(bundle, "id_maps", wanted), [
        {"WITH": {"linux": linux, "host": host_}, "covered": covered, "machine.subordinate_ids": served}
        for linux, host_, covered, served in (
            ({"uidMappings": MAP}, {}, False, []), ({"uidMappings": MAP}, user(), False, None),
            ({"gidMappings": MAP}, user(), False, [(200, 5)]), ({"uidMappings": MAP, "gidMappings": MAP}, user(), True,
                                                                []), ({}, user(), False, []))
    ]),
    "covered": (lambda w: [bundle.covered(first, size, [(10, 5), (20, 2)]) for first, size in (
        (10, 5), (10, 6), (9, 2), (14, 1), (15, 1), (20, 2), (21, 2), (14, 7))], [{}]),
    "profile": (check(bundle, "profile", wanted), [
        {"WITH": {"linux": {"seccomp": profile}}, "seccomp.compile_filter": compiled, "machine.stat": kind}
        for profile, compiled, kind in (
            (None, (b"", 0, False), SOCKET), ({"x": 1}, PyruncError("no syscall"), SOCKET),
            ({"flags": ["A", "B", "C"]}, (b"x" * 24, 0, False), None), ({"flags": ["A"]}, (b"x" * 16, 0, True), None),
            ({"listenerPath": "/s"}, (b"x" * 16, 0, True), SOCKET), ({"listenerPath": "/s"}, (b"", 0, True), REGULAR),
            ({"listenerPath": "/s"}, (b"", 0, True), None), ({"listenerPath": "/s"}, (b"", 0, False), None))
    ]),
    "labels": (check(bundle, "labels", wanted), [
        {"WITH": {"process": {"apparmorProfile": name}, "host": {}, "facts": {"apparmor": on}}, "machine.text": text}
        for name, on, text in (
            ("", True, "p (enforce)"), ("unconfined", True, "p (enforce)"), ("lost", False, "p (enforce)"),
            ("lost", True, ""), ("lost", True, "p (enforce)\nq r (complain)"),
            ("q r", True, "p (enforce)\nq r (complain)"), ("p", True, "p (a) (enforce)"), ("p (a)", True, "p (a) (x)"))
    ]),
    "network_devices": (check(bundle, "network_devices", wanted), [
        {"WITH": {"linux": {"netDevices": devices}}, "machine.exists": By({"/sys/class/net/eth0": True, None: False})}
        for devices in DEVICES
    ]),
    "kernel_parameters": (check(bundle, "kernel_parameters", wanted), [
        {"WITH": {"linux": linux, "facts": {"resctrl": resctrl}}, "machine.exists": False}
        for linux, resctrl in (
            ({}, False), ({"sysctl": {"net.ipv4.ip_forward": "1", "net/ipv4/a.b": "1"}}, False),
            ({"sysctl": {"net.ipv4.conf.eth0.x": "1", "net.ipv4.neigh.eth0.x": "1", "a.confx.b": "1"}}, False),
            ({"intelRdt": {}}, False), ({"intelRdt": {}}, True), ({"intelRdt": None}, False))
    ]),
}  # fmt: skip

# -- storage ---------------------------------------------------------------------------------------


def status(mode: int, uid: int = 0) -> SimpleNamespace:
    """A result of lstat()."""
    return SimpleNamespace(st_mode=mode, st_uid=uid)


def disk(free: int, files_: int = 5000, left: int = 5000) -> SimpleNamespace:
    """A result of statvfs()."""
    return SimpleNamespace(f_bavail=free, f_frsize=4096, f_files=files_, f_favail=left)


STORED: dict[str, Any] = {
    "state.root_dir": "/root", "machine.place": "/place", "os.lstat": status(0o040700), "machine.access": True,
    "mount_of": "MOUNT", "os.statvfs": disk(5000), "user_name": "me", "machine.exists": True, "root_of": "/root",
    "machine.mounts": DISKS, "machine.find": "/usr/sbin/criu", "criu_version": (3, 17),
    "subprocess.run": SimpleNamespace(stdout=b"Version: 3.18\n"),
}  # fmt: skip
STORAGE: dict[str, Row] = {
    "check": (lambda w: [one.done() for one in ask(storage, "check")(w)], [{}, {"root_of": ""}]),
    "root_of": (check(storage, "root_of"), [
        {}, {"state.root_dir": PyruncError("XDG_RUNTIME_DIR is not set")}, {"state.root_dir": PyruncError("relative")},
    ]),
    "state_root": (check(storage, "state_root", "/ro ot"), [
        {"WITH": {"host": {"euid": 5}}, "os.lstat": found_, "machine.access": writable}
        for found_, writable in (
            (status(0o040700, 5), True), (status(0o040700, 5), False), (failed(errno.ENOENT), True),
            (ValueError("NUL"), True), (status(0o120777, 5), True), (status(0o100600, 5), True),
            (status(0o040700, 6), True), (status(0o040720, 5), True), (status(0o040702, 5), True),
            (status(0o041755, 5), True), (status(0o043722, 5), True))
    ]),
    "missing_root": (check(storage, "missing_root", "$root"), [
        {"WITH": {"root": root}, "machine.exists": By({"/a": True, "/": True, None: False}), "machine.access": writable}
        for root in ("/a/b/c d", "/x/y", "relative") for writable in (True, False)
    ]),
    "mount_of": (ask(storage, "mount_of", "$path"), [
        {"WITH": {"path": path}} for path in ("/x", "/a", "/ab", "/a/b/c", "/a/b", "/a/bc", "/d/e", "/dX/e")
    ]),
    "room": (check(storage, "room", "/ro ot"), [
        {"os.statvfs": found_} for found_ in (
            failed(errno.EACCES), disk(4096), disk(4095), disk(5000, 1, 999), disk(5000, 1, 1000), disk(5000, 0, 0))
    ]),
    # The id has no name on any machine.
    "lingering": (check(storage, "lingering", "$root"), [
        {"WITH": {"host": user(4000000), "root": root}, "machine.exists": By({
            "/run/systemd/system": systemd, "/var/lib/systemd/linger/4000000": lingers})}
        for root, systemd, lingers in (
            ("/run/user/4000000/pyrunc", True, False), ("/run/user/4000000/pyrunc", True, True),
            ("/run/user/4000000/pyrunc", False, False), ("/run/user/40000001/pyrunc", True, False),
            ("/run/x", True, False))
    ]),
    "criu": (check(storage, "criu"), [
        {"machine.find": path, "criu_version": version, "WITH": {"host": {"privileged": privileged}}}
        for path, version, privileged in (
            ("", None, True), ("/criu", subprocess.TimeoutExpired("criu", 1), True), ("/criu", None, True),
            ("/criu", (3, 15), True), ("/criu", (3, 16), True), ("/criu", (4, 0), False))
    ]),
    "criu_version": (alone(storage, "criu_version", "/criu"), [
        {"subprocess.run": found_ if isinstance(found_, Exception) else SimpleNamespace(stdout=found_)}
        for found_ in (b"Version: 3.18\n", b"x\nVersion: 4.1.2\n", b"xVersion: 1.2", b"\xff", failed(errno.ENOEXEC),
                       b" " * 4094 + b"\nVersion: 4.1", b" " * 4083 + b"\nVersion: 4.123")
    ]),
}  # fmt: skip

TABLES: Tables = [
    ("pyrunc.doctor.leftovers", LEFTOVERS, LEFT, ()),
    ("pyrunc.doctor.files", OF_FILES, FILES, ()),
    ("pyrunc.doctor.bundle", BUNDLE, CHECKED, ("Cgroupfs",)),
    ("pyrunc.doctor.storage", STORAGE, STORED, ()),
]


@rows(TABLES)
def test_the_calls_of_a_check(module: str, name: str) -> None:
    transcript.compare("doctor_steps", f"{module.rpartition('.')[2]}.{name}", calls_of(module, name, TABLES))
