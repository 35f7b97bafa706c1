"""What the checks of the host look at and report, as in test_doctor_steps.py. golden/doctor_host_steps.txt has
the tables.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from pyrunc.doctor import cgroups, findings, kernel, limits, machine, privileges, run
from pyrunc.doctor import users as doctor_users
from pyrunc.errors import PyruncError
from pyrunc.spec import load
from pyrunc.spec.names import CAPABILITIES
from spies import Answers, By, Spy, alone
from test_doctor_steps import DIRECTORY, DISKS, PLAIN, REGULAR, area, ask, check, host, status, user
from test_session_steps import Row
from test_steps import Tables, World, calls_of, failed, rows

# -- the machine, and what all checks share --------------------------------------------------------

LISTED = [("a", "ok", "s", "", ""), ("a", "note", "s", "means it", ""), ("check-b", "note", "t u", "means it", "rm x")]
OTHER = ("c", "problem", "x" * 20 + " " + "y-z " * 20, "means it", "")


def reported(rows: list[tuple[str, str, str, str, str]], second: int = 99) -> list[findings.Finding]:
    """Findings, in two areas."""
    return [findings.Finding("one" if at < second else "two", *row) for at, row in enumerate(rows)]


def many(counts: dict[str, int]) -> Any:
    """Findings of one check, more than are listed."""
    one = findings.Area("area")
    for kind, count in counts.items():
        for number in range(count):
            getattr(one, kind)("c", *[f"{kind} {number}"] if kind == "ok" else [f"{kind} {number}", "means", "mend"])
    one.ok("other", "x" * 700)
    return one.done()[18:], one.done()[18:]


TEXT: dict[str, Row] = {
    "area": (lambda w: [many(counts) for counts in (
        {"ok": 20}, {"ok": 21}, {"ok": 25, "note": 1}, {"ok": 20, "note": 2, "problem": 1})], [{}]),
    "as_json": (lambda w: [findings.as_json(reported(LISTED[:count])) for count in range(4)]
                + [findings.as_json(reported([*LISTED, OTHER]))], [{}]),
    "as_text": (lambda w: findings.as_text(w.extra["list"], w.extra["width"], w.extra["colour"]), [
        {"WITH": {"list": found_, "width": width, "colour": colour}}
        for found_, width, colour in (
            ([], 80, False), (reported(LISTED), 80, False), (reported(LISTED), 80, True), (reported(LISTED, 1), 10,
                                                                                           False),
            (reported([*LISTED, OTHER], 2), 40, False), (reported([OTHER, *LISTED]), 41, True),
            (reported([("c" * 30, "ok", "s", "m" * 50, "->")]), 60, False),
            (reported([("c" * 30, "problem", "s", "m" * 50, "->")]), 61, True),
            *((reported([("c" * length, "note", "word " * 20, "m n " * 20, "do")]), width, False)
              for length in (2, 12, 13, 14, 20) for width in (42, 45, 54, 55)))
    ]),
    "wrapped": (lambda w: [findings._wrapped(*given, width, "   ") for width in (10, 20) for given in (
        ("head ", ""), ("", ""), ("head ", "a  b-c-d word"), ("head ", "word " * 5))], [{}]),
}  # fmt: skip
SUBJECTS: dict[str, Any] = {f"{name}.check": [] for name, _ in run.CHECKS}


def subject(w: World) -> Any:
    """A subject with two areas."""
    areas = [findings.Area("one"), findings.Area("two")]
    areas[0].ok("a", "b")
    areas[1].note("c", "d", "e")
    w.answers["looked"] = w.answers.get("looked", areas)
    return lambda machine: w.spy("looked")(machine)


def examined(w: World) -> Any:
    """All checks, each noted by its name."""

    def guarded(name: str, check: object, machine: object) -> list[str]:
        w.notes.append(f"guarded {name}")
        return [name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "guarded", guarded)
        return run.examine("MACHINE", w.extra["opts"])  # type: ignore[arg-type]


RUN: dict[str, Row] = {
    "examine": (examined, [{"WITH": {"opts": opts}} for opts in (None, "opts")]),
    "guarded": (lambda w: run.guarded("name", subject(w), "MACHINE"), [  # type: ignore[arg-type]
        {}, *({"looked": error} for error in (
            load.Unreadable("config.json", "lost"), PyruncError("broken"), failed(errno.EIO), OSError("no number"),
                ValueError("v"))),
    ]),
    "subjects": (lambda w: [(name, f"{look.__module__}.{look.__name__}") for name, look in run.CHECKS], [{}]),
}  # fmt: skip
MOUNTS = "1 0 8:1 / / rw - ext4 a\n2 0 8:2 / /x rw ext4 a\n3 0 0 / - b\n1 2 - 4 5 6 7\n"
MACHINE: dict[str, Any] = {
    "host.snapshot": "FACTS", "own_program": "/bin/pyrunc", "os.geteuid": 1, "os.getegid": 2, "os.getuid": 3,
    "host.initial_userns": True, "os.open": 60, "os.read": Answers([b"abc", b"\xff", b""]),
    "os.stat": SimpleNamespace(st_mode=0o100755), "interpreter.FROZEN": True, "os.readlink": "/self/exe",
    "probe.probe": 5, "os.environ": {"A": "b"},
}  # fmt: skip


def this(method: str, *args: Any, own: str = "") -> Callable[[World], Any]:
    """A call of a method of the machine."""

    def call(w: World) -> Any:
        one = w.made(machine.Machine, f"{method} {own}", prefix="/p", facts="FACTS", euid=0, _mounts=None,
                     _nss_hangs=False, probe=w.spy("probe"))  # fmt: skip
        found_ = getattr(one, method)
        given = w.given(args)
        return found_(*given) if callable(found_) else found_, one._nss_hangs

    return call


def chunks(w: World) -> Any:
    """The sizes of the reads of a large file."""
    w.answers["os.read"] = Answers([b"x" * size for size in w.extra["sizes"]])
    found_ = this("text", "/f", 70000)(w)
    w.notes[:] = [note for note in w.notes if "read" in note]
    return len(found_[0])


THIS: dict[str, Row] = {
    "init": (lambda w: vars(machine.Machine("/p", probe="PROBE")), [{}]),  # type: ignore[arg-type]
    "init with an environment": (lambda w: machine.Machine(env={}).env, [{}]),
    "try_out": (alone(machine, "try_out", "WHAT", 5), [{}, {"probe.probe": failed(errno.EPERM)}, {"probe.probe":
                                                                                              OSError("no number")}]),
    "initial_userns": (this("initial_userns"), [{}]),
    "text": (this("text", "/f", "$most", own="place"), [
        {"WITH": {"most": most}, "os.open": opened, "os.read": Answers(reads)}
        for most, opened, reads in (
            (100, 60, [b"abc", b"\xff", b""]), (4, 60, [b"abc", b"d", b"e"]), (3, 60, [b"abc", b"d"]),
            (100, 60, [b"a", failed(errno.EIO)]), (100, failed(errno.ENOENT), [b"a"]), (100, ValueError("NUL"), [b"a"]),
            (0, 60, [b"a"]), (1, 60, [b"a", b"b"]))
    ]),
    "text in pieces": (chunks, [{"WITH": {"sizes": [65536, 4464, 1]}}]),
    "number": (this("number", "/f"), [{"text": text} for text in ("5\n", "", "x", "7 8", "-3")]),
    "exists": (this("exists", "/f"), [{"stat": found_} for found_ in (None, REGULAR)]),
    "stat": (this("stat", "/f", own="place"), [{}, {"os.stat": failed(errno.ENOENT)}, {"os.stat": ValueError("NUL")}]),
    "access": (this("access", "/f", 2, own="place"), [
        {"os.access": found_} for found_ in (True, False, failed(errno.EIO), ValueError("NUL"))
    ]),
    "names": (this("names", "/f", own="place"), [
        {"os.scandir": error} for error in (failed(errno.ENOENT), ValueError("NUL"))
    ]),
    "is_program": (this("is_program", "/f"), [
        {"stat": found_} for found_ in (None, REGULAR, PLAIN, DIRECTORY, status(0o100001), status(0o100010))
    ]),
    "find": (this("find", "prog", "/more"), [
        {"is_program": found_} for found_ in (False, By({"/usr/bin/prog": True, None: False}), By({
            "/more/prog": True, None: False}), True)
    ]),
    "mounts": (lambda w: (lambda one: (one.mounts(), one.mounts()))(
        w.made(machine.Machine, "mounts", _mounts=None)), [{"text": MOUNTS}]),
    "status": (this("status", "$name"), [
        {"WITH": {"name": name}, "text": "Seccomp:\t2\nCapEff:\t00ff\nOdd: a: b\n"} for name in ("Seccomp", "Cap",
                                                                                            "Odd")
    ]),
    "capabilities": (this("capabilities", "$which"), [
        {"WITH": {"which": "CapPrm"}, "status": text} for text in ("", "00ff", "x")
    ]),
    "rlimit": (this("rlimit", 7), [{"resource.getrlimit": (1, 2)}]),
    "subordinate_ids": (this("subordinate_ids", "me", "$groups"), [
        {"WITH": {"groups": groups}, "probe.subordinate_ids": found_, "SELF": {"_nss_hangs": hangs}}
        for groups, found_, hangs in (
            (True, b"1 2\n3 4\n", False), (False, b"1 2 3\nx\n5 6\n", False), (False, b"", True),
            (False, failed(errno.ETIMEDOUT), False), (False, failed(errno.ENOENT), False))
    ]),
    "works": (this("works", "WHAT", "$flags"), [
        {"WITH": {"flags": flags}, "probe": Answers(results)}
        for flags, results in ((0, [0]), (0, [5]), (0, [-errno.ENOSYS]), (0, [-errno.EPERM, 5]), (0, [-errno.EPERM, 0]),
                               (0, [-errno.EPERM, -errno.EINVAL]), (0x10000000, [-errno.EPERM]), (0x80, [-1, 0]))
    ]),
    "own_program": (alone(machine, "own_program"), [
        {}, {"interpreter.FROZEN": False}, {"os.readlink": failed(errno.ENOENT)},
    ]),
    "system_error": (lambda w: machine.system_error(-errno.EPERM), [{}]),
}  # fmt: skip

# -- privileges and users --------------------------------------------------------------------------

ALL = (1 << len(CAPABILITIES)) - 1


def without(*names: str) -> int:
    """All capabilities but these."""
    return ALL & ~sum(1 << CAPABILITIES.index(name) for name in names)


HELD: dict[str, Any] = {
    "machine.capabilities": ALL, "machine.status": "0", "machine.securebits": 0, "machine.text": "",
        "machine.number": 1,
    "machine.find": "/sbin/apparmor_parser", "machine.place": "/place", "file_label": "", "os.getxattr": b"a:b:c\0",
}  # fmt: skip
PRIVILEGES: dict[str, Row] = {
    "check": (lambda w: [one.name for one in ask(privileges, "check")(w)], [{}]),
    "bit": (lambda w: [privileges.bit(name) for name in CAPABILITIES], [{}]),
    "capabilities": (check(privileges, "capabilities", keep="bit"), [
        {}, {"WITH": {"host": {"privileged": False}}}, {"WITH": {"host": {"privileged": False, "euid": 1}}},
        *({"machine.capabilities": By({"CapBnd": ALL, None: without(name)})} for name in
          (*privileges.NEEDED, *privileges.USEFUL)),
        {"machine.capabilities": By({"CapBnd": ALL, None: without("CAP_BPF", "CAP_SYS_ADMIN", "CAP_KILL")})},
        *({"machine.capabilities": By({"CapBnd": without("CAP_SYS_TIME", "CAP_KILL", CAPABILITIES[40]), None: ALL}),
           "WITH": {"facts": {"cap_last": last}}} for last in (39, 40)),
    ]),
    "no_new_privileges": (check(privileges, "no_new_privileges"), [
        {"machine.status": text, "WITH": {"host": {"euid": euid}}} for text in ("0", "1") for euid in (0, 1)
    ]),
    "securebits": (check(privileges, "securebits"), [
        {"machine.securebits": bits, "WITH": {"host": {"euid": euid}}}
        for bits, euid in ((None, 0), (0, 0), *((1 << number, 0) for number in range(8)), (255, 0), (3, 5), (1, 5))
    ]),
    "modules": (check(privileges, "modules"), [
        {"machine.text": text, "WITH": {"facts": {"apparmor": apparmor, "selinux": selinux}}}
        for text, apparmor, selinux in (("a,b\n", True, True), ("", True, True), (" ", False, True), ("", True, False),
                                        ("", False, False))
    ]),
    "apparmor": (check(privileges, "apparmor"), [
        {"machine.text": By(texts), "machine.find": parser, "WITH": {"facts": {"apparmor": on}}}
        for on, parser, texts in (
            (False, "", {None: ""}), (True, "", {None: ""}), (True, "/p", {None: "unconfined\n"}),
            (True, "/p", {None: "pro;file (enforce)\n\0"}),
            (True, "/p", {"/proc/self/attr/apparmor/current": "", None: "other (complain)\n"}),
            (True, "/p", {"/proc/self/attr/apparmor/current": "\0\n ", None: "other"}))
    ]),
    "selinux": (check(privileges, "selinux"), [
        {"machine.number": enforcing, "file_label": label, "WITH": {"facts": {"selinux": on}}}
        for on, enforcing, label in (
            (False, 1, ""), *((True, number, "u:r:bin_t:s0") for number in (0, 1, 2, None)), (True, 1, ""), (True, 1,
                "u:r"),
            (True, 1, "u:r:container_runtime_exec_t:s0"), (True, 1, "u:r:container_runtime_exec_t"))
    ]),
    "file_label": (alone(privileges, "file_label", "/f"), [
        {}, {"os.getxattr": b"\xff\0\0"}, {"os.getxattr": failed(errno.ENODATA)},
    ]),
    "lockdown": (check(privileges, "lockdown"), [
        {"machine.text": text} for text in ("", "[none] integrity confidentiality\n", "none [integrity] x\n", "none")
    ]),
    "yama": (check(privileges, "yama"), [{"machine.number": number} for number in (None, 0, 1, 2, 3, 4)]),
}  # fmt: skip
SUBUID = "me:100:10\nother:105:3\n1000:500:20\nbad\n:a:b\nx:1:y\nx:y:1\nother:120:5:6\n" + "a" * 200 + ":1:2\n"
PEOPLE: dict[str, Any] = {
    "machine.probe": 5, "kernel.why": "; why", "machine.number": None, "forbidding": "", "machine.is_program": True,
    "machine.stat": SimpleNamespace(st_mode=0o104755), "machine.place": "/place", "has_capabilities": False,
    "user_name": "me", "in_file": [(100, 70000)], "machine.text": SUBUID, "nss_source": "files",
    "machine.subordinate_ids": None, "pwd.getpwuid": SimpleNamespace(pw_name="me"), "idmap.HELPER_DIRS": ("/usr/bin",
                                                                                                    "/bin"),
}  # fmt: skip
SETTINGS = ("/proc/sys/kernel/unprivileged_userns_clone", "/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
USERS: dict[str, Row] = {
    "check": (lambda w: [one.name for one in ask(doctor_users, "check")(w)], [
        {"WITH": {"host": host_}} for host_ in ({}, user(), {"initial_userns": False}, user(initial_userns=False))
    ]),
    "user_namespace": (check(doctor_users, "user_namespace"), [
        {"WITH": {"host": host_}, "machine.probe": Answers(results), "forbidding": mend}
        for host_ in ({}, {"privileged": False}, user())
        for results, mend in (
            ([5], ""), ([5, 5], ""), ([0, 0], ""), ([0, -1], ""), ([-errno.ENOSPC], "x"), ([-errno.EPERM], ""),
            ([-errno.EPERM], "sysctl"), ([-errno.EINVAL], ""))
    ]),
    "forbidding": (ask(doctor_users, "forbidding"), [
        {"machine.number": By(values)} for values in (
            {None: None}, {SETTINGS[0]: 0, SETTINGS[1]: 0}, {SETTINGS[0]: 1, SETTINGS[1]: 1},
            {SETTINGS[0]: 1, SETTINGS[1]: 0})
    ]),
    "restricted": (check(doctor_users, "restricted"), [{}]),
    "helpers": (check(doctor_users, "helpers"), [
        {}, {"machine.is_program": False}, {"machine.is_program": By({"/bin/newgidmap": True, None: False})},
        *({"machine.stat": found_, "has_capabilities": capable}
          for found_ in (None, SimpleNamespace(st_mode=0o100755), SimpleNamespace(st_mode=0o103755))
          for capable in (True, False)),
    ]),
    "subordinate": (check(doctor_users, "subordinate", "$groups"), [
        {"WITH": {"groups": groups}, "in_file": ranges, "nss_source": source, "machine.subordinate_ids": served}
        for groups, ranges, source, served in (
            (False, [(1, 65536)], "files", None), (True, [(1, 65535)], "files", None), (False, [(1, 60000), (2, 5536)],
            "files", [(5, 6)]), (True, [], "files", None), (False, [], "files", [(5, 70000)]), (True, [], "sss", None),
            (False, [(1, 65536)], "sss", None), (True, [(1, 5)], "sss", [(7, 65536)]), (False, [(1, 5)], "sss", []))
    ]),
    "user_name": (alone(doctor_users, "user_name", 7), [
        {}, {"pwd.getpwuid": KeyError()}, {"pwd.getpwuid": failed(errno.EIO)},
    ]),
    "nss_source": (ask(doctor_users, "nss_source"), [
        {"machine.text": text}
        for text in ("", "passwd: sss\nsubid: sss files # x\n", "# subid: x\n", "subid:\nsubid: b\n", " subid : c")
    ]),
    "in_file": (lambda w: doctor_users.in_file(SUBUID, {"me", "1000"}), [{}]),
    "entries": (lambda w: [doctor_users.entries(text) for text in (
        SUBUID, "a:1:2:3", "a:1", "a" * 195 + ":1:2", "a" * 196 + ":1:2", "a:-1:2", "a:1: 2")], [{}]),
    "overlaps": (check(doctor_users, "overlaps", "/etc/subuid", "$ranges", keep="entries"), [
        {"WITH": {"ranges": ranges, "host": user()}} for ranges in (
            [(100, 5)], [(100, 6)], [(107, 9)], [(108, 9)], [(104, 1), (106, 1)], [(1, 1)] * 16 + [(105, 1)],
            [(1, 1)] * 15 + [(105, 1)], [(500, 20)], [(100, 100)])
    ]),
    "mapped": (check(doctor_users, "mapped"), [
        {"machine.text": text} for text in ("", "0 5 1\n", "0 5 1\n1 10 1\n", "0 5\n0 5 x\n0 5 6 7\n", "0 0 9\n1 1 2\n")
    ]),
}  # fmt: skip

# -- the kernel, cgroups, limits -------------------------------------------------------------------

SYSTEM: dict[str, Any] = {
    "machine.text": "", "machine.works": (0, False), "machine.status": "0", "why": "; why", "machine.mounts": DISKS,
    "mounts.open_tree": 60, "mounts.map_ids": 0, "map_ids": 0, "bpf.load_device": 61, "load_device_program": 0,
    "filesystem_at": "ext4", "os.fsencode": b"/path",
}  # fmt: skip
ERRNOS = [0, *(-getattr(errno, name) for name in ("E2BIG", "EINVAL", "ENOSYS", "EOPNOTSUPP", "EPERM", "ENOSPC", "EIO"))]
KERNEL: dict[str, Row] = {
    "check": (lambda w: [one.name for one in ask(kernel, "check")(w)], [{}]),
    "features": (lambda w: [[getattr(one, name) for name in ("check", "probe", "flags", "since", "required")]
                            for one in kernel.FEATURES], [{}]),
    "version": (check(kernel, "version"), [
        {"WITH": {"facts": {"kernel": version, "arch": arch}}, "machine.text": text}
        for version, arch, text in (
            ((5, 12), "x86_64", "5.12.0-x\n"), ((5, 11), "x86_64", ""), ((6, 1), "s390x", ""), ((6, 1), "aarch64", ""))
    ]),
    "try_feature": (alone(kernel, "try_feature", host, "$feature", area), [
        {"WITH": {"feature": kernel.FEATURES[number]}, "machine.works": result}
        for number in (0, 1, 5) for result in ((0, False), (7, True), (-1, False))
    ]),
    "why": (ask(kernel, "why", "$result", "6.2"), [
        {"WITH": {"result": result, "facts": {"kernel": version}}, "machine.status": filtered}
        for result in ERRNOS for version in ((6, 1), (6, 2)) for filtered in ("0", "2")
    ]),
    "namespaces": (check(kernel, "namespaces"), [
        {"machine.works": result} for result in
        ((0, False), (5, True), (-errno.ENOSPC, False), (-errno.EPERM, False))
    ]),
    "idmapped_mounts": (check(kernel, "idmapped_mounts", "/x", "$check"), [
        {"WITH": {"check": "mounts"}, "map_ids": result} for result in ERRNOS
    ]),
    "idmapped_mounts of the root": (check(kernel, "idmapped_mounts", "/"), [{}]),
    "map_ids": (alone(kernel, "map_ids", "/x"), [
        {"mounts.open_tree": failed(errno.ENOSYS)}, {"mounts.open_tree": OSError("no number")},
    ]),
    "filesystem_at": (ask(kernel, "filesystem_at", "$path"), [
        {"WITH": {"path": path}, "machine.mounts": table}
        for path, table in (
            *((path, DISKS) for path in ("/x", "/a", "/ab", "/a/b/c", "/a/b", "/a/bc", "")), ("/a", []),
            ("/a/b/c", [*DISKS, ["", "", "", "", "/", "", "-", "late"]]),
            ("/a/b/c", [*DISKS, ["", "", "", "", "/a/b", "", "-", "over"]]))
    ]),
    "device_programs": (check(kernel, "device_programs"), [
        {"load_device_program": result, "WITH": {"host": {"privileged": privileged}}}
        for result in (0, 1, -errno.EPERM) for privileged in (True, False)
    ]),
    "load_device_program": (alone(kernel, "load_device_program"), [
        {}, {"bpf.load_device": failed(errno.EPERM)}, {"bpf.load_device": OSError("no number")},
    ]),
    "filesystems": (check(kernel, "filesystems"), [
        {"machine.text": "".join(f"nodev\t{name}\n" for name in names.split())}
        for names in ("proc sysfs tmpfs devpts mqueue overlay", "proc sysfs tmpfs devpts mqueue", "overlay", "",
                      "sysfs tmpfs overlay")
    ]),
}  # fmt: skip
CG: dict[str, Any] = {
    "hierarchy": True, "machine.mounts": [["1", "0", "0:5", "/", "/cg", "rw,nosuid", "-", "cgroup2"]], "words": ["cpu"],
    "bound_to_v1": set(), "machine.exists": True, "machine.access": True, "parent": "/a", "machine.text": "a b\n",
    "own_or_child": "/own", "machine.names": ["a", "b"], "library": True, "bus.addresses": [("unix:path=/s,x=y", "a")],
    "connect": "", "machine.place": "/place/s", "fs.encode": b"/s", "cgroups": "",
}  # fmt: skip
EVERY = ["cpu", "cpuset", "io", "memory", "pids"]


def subjects(w: World) -> Any:
    """The check of both, after a finding."""

    def hierarchy(machine: Any, area: Any) -> bool:
        w.notes.append("hierarchy")
        getattr(area, w.extra["report"])("x", "y", *["z"] * (w.extra["report"] != "ok"))
        return bool(w.extra["mounted"])

    with pytest.MonkeyPatch.context() as patch:
        for name in ("controllers", "delegation", "files", "manager"):
            patch.setattr(cgroups, name, lambda *given, name=name: w.notes.append(name))
        patch.setattr(cgroups, "hierarchy", hierarchy)
        return [(one.name, one.done()) for one in cgroups.check(host(w))]


CGROUPS: dict[str, Row] = {
    "check": (subjects, [
        {"WITH": {"report": report, "mounted": mounted}}
        for report, mounted in (("ok", True), ("problem", True), ("note", True), ("problem", False))
    ]),
    "hierarchy": (check(cgroups, "hierarchy"), [
        {"WITH": {"facts": {"cgroup2_mount": mount, "hybrid": hybrid}}, "machine.mounts": table}
        for mount, hybrid, table in (
            ("", False, []), ("/cg", False, []), ("/cg", True, CG["machine.mounts"]), ("/cg", False,
                CG["machine.mounts"]),
            *(("/cg", False, [line]) for line in (
                ["1", "0", "0:5", "/", "/cg", "nosuid,ro", "-", "cgroup2"], ["1", "0", "0", "/", "/cg", "ro", "-",
                    "tmpfs"],
                ["1", "0", "0:5", "/", "/other", "ro", "-", "cgroup2"], ["", "", "", "", "/cg", "ro"],
                ["cgroup2", "", "", "", "/cg", "ro"], ["cgroup2", "", "", "", "/cg"])))
    ]),
    "parent": (ask(cgroups, "parent"), [
        {"WITH": {"facts": {"cgroup2_root": top, "own_cgroup": own}}}
        for top, own in (("/", "/a/b"), ("/", "/a"), ("/", "/"), ("/top", "/top/a/b"), ("/top", "/topper/a"),
                         ("/top/", "/top/a"), ("/top", "/top"))
    ]),
    "words": (ask(cgroups, "words", "/a", "file"), [{}]),
    "controllers": (check(cgroups, "controllers"), [
        {"WITH": {"facts": {"cgroup2_root": top}}, "words": offered, "bound_to_v1": bound, "machine.exists": below}
        for top, offered, bound, below in (
            ("/", [*EVERY, "x"], set(), True), ("", EVERY[1:], set(), True), ("/", EVERY[:2], {"io", "x"}, True),
            ("/", [], set(), True), ("/", ["x"], set(), False), ("/top", EVERY[:4], {"pids"}, False))
    ]),
    "bound_to_v1": (ask(cgroups, "bound_to_v1"), [
        {"machine.text": text} for text in ("", "#name\t1\ncpu\t0\t1\t1\nblkio\t3\t1\t1\nmemory 4\nx\n")
    ]),
    "delegation": (check(cgroups, "delegation"), [
        {"WITH": {"facts": {"rootless": rootless}}, "words": offered, "machine.access": access}
        for rootless in (True, False)
        for offered, access in (
            (EVERY, True), (["memory"], True), ([], True), (EVERY, False),
            (EVERY, By({"/cg/a/cgroup.subtree_control": False, None: True})),
            (EVERY, By({"/cg/a/cgroup.procs": False, None: True})))
    ]),
    "files": (check(cgroups, "files"), [
        {"own_or_child": own, "words": offered, "machine.exists": By({f"/cg{own}/{name}": True for name in names})}
        for own, offered, names in (
            ("", [], []), ("/", ["memory"], []), ("/own", [], ["cgroup.kill"]), ("/own", ["memory"], []),
            ("/own", ["memory"], ["memory.max"]), ("/own", ["memory"], ["memory.max", "memory.swap.max"]),
            ("/own", ["cpu"], ["memory.max"]))
    ]),
    "own_or_child": (ask(cgroups, "own_or_child"), [
        {"WITH": {"facts": {"own_cgroup": own}}, "machine.exists": By({"/cg//b/cgroup.events": there})}
        for own, there in (("/a", True), ("/", True), ("/", False))
    ]),
    "manager": (check(cgroups, "manager"), [
        {"WITH": {"host": {"manager": manager}}, "machine.exists": runs, "library": library}
        for manager in ("systemd", "cgroupfs") for runs in (True, False) for library in (True, False)
    ]),
    "library": (ask(cgroups, "library"), [
        {"WITH": {"facts": {"arch": arch}}, "machine.exists": By({f"{place}/libsystemd.so.0": True})}
        for arch, place in (("x86_64", "/none"), ("aarch64", "/none"), ("x86_64", "/usr/lib64"), ("riscv64", "/none"))
    ]),
    "reach": (check(cgroups, "reach", "$wanted"), [
        {"WITH": {"wanted": wanted_, "facts": {"rootless": rootless}}, "bus.addresses": addresses, "connect": answer}
        for wanted_, rootless, addresses, answer in (
            (True, False, [("unix:path=/s,x=y", 1)], ""), (True, False, [("unix:path=/s", 1), ("unix:path=/t", 2)],
                "no"),
            (False, True, [("tcp:host=x", 1)], ""), (False, False, [("", 1), ("unix:path=/s", 1)], "no answer"),
            (True, True, [], ""))
    ]),
}  # fmt: skip
USED: dict[str, Any] = {
    "machine.number": None, "machine.text": "", "machine.mounts": [], "machine.rlimit": (5, 5), "machine.status": "",
    "resource.getrlimit": (1, 2),
}  # fmt: skip


def of_limits(name: str, values: list[Any], answer: str = "machine.number", **hosts: Any) -> Row:
    """The check of a number."""
    return check(limits, name), [{answer: value, "WITH": {"host": given}} for value in values for given in
                                 (hosts.get("hosts") or [{}])]  # fmt: skip


PROC = [["1", "0", "0:5", "/", place, options, "-", "proc", "proc", super_] for place, options, super_ in (
    ("/proc", "rw", "rw,hidepid=2"), ("/proc", "rw,hidepid=invisible", "rw"), ("/proc", "rw", "rw,hidepid=0"),
    ("/proc", "rw", "hidepid=off"), ("/proc", "rw", "rw"), ("/proc/sys/fs/binfmt_misc", "rw", "rw"),
    ("/proc/acpi", "ro", "rw"), ("/procs", "rw", "hidepid=2"))]  # fmt: skip
LIMITS: dict[str, Row] = {
    "check": (lambda w: [one.name for one in ask(limits, "check")(w)], [{}]),
    "forbidden": (check(limits, "forbidden", "mnt"), [{"machine.number": number} for number in (None, 0, 1)]),
    "memfd": of_limits("memfd", [None, 0, 1, 2, 3], hosts=[{}, user()]),
    "forwarding": of_limits("forwarding", [None, 0, 1]),
    "filled": (check(limits, "filled", "$look"), [
        {"WITH": {"look": Spy("look", [], {"look": use})}}
        for use in (None, *(("check", used, 100, "it fails", "mend") for used in (0, 89, 90, 91, 99, 100, 101)))
    ]),
    "processes": (ask(limits, "processes"), [
        {"machine.text": text, "machine.number": By({"/proc/sys/kernel/pid_max": most, "/proc/sys/kernel/threads-max":
                                                    threads})}
        for text, most, threads in (
            ("0 0 0 1/100 7", 50, 60), ("0 0 0 1/100 7", 60, 50), ("0 0 0 1/100", 60, None), ("0 0 0", 60, 50),
            ("0 0 0 1/x 7", 60, 50), ("0 0 0 1/100 7", None, None), ("0 0 0 1/100 7", 0, 50), ("0 0 0 5", 9, 9))
    ]),
    "files": (ask(limits, "files"), [{"machine.text": text} for text in ("1 0 9", "1 0", "1 0 x", "x 0 9", "1 0 9 4")]),
    "mounts": (ask(limits, "mounts"), [
        {"machine.number": number, "machine.mounts": [["x"]] * 3} for number in (None, 0, 5)
    ]),
    "keys": (ask(limits, "keys"), [
        {"machine.text": text, "machine.number": By({"/proc/sys/kernel/keys/root_maxkeys": 100,
                                                    "/proc/sys/kernel/keys/maxkeys": number}), "WITH": {"host": host_}}
        for text, number, host_ in (
            ("    0:    10 9/9 5/1000 200/9\n 1000: 1 2/3 7/200 3/4\n", 50, {}),
            ("    0:    10 9/9 5/1000 200/9\n 1000: 1 2/3 7/200 3/4\n", 50, user()),
            ("    0:    10 9/9\n 1000: 1 2/3 x/200\n", 50, user()), (" 1000: 1 2/3\n", 50, user()),
            (" 1000: 1 2/3 4/5\n", None, user()), (" 10001: 1 2/3 4/5\n", 9, user()))
    ]),
    "terminals": (ask(limits, "terminals"), [
        {"machine.number": By({"/proc/sys/kernel/pty/nr": used, "/proc/sys/kernel/pty/max": most})}
        for used, most in ((0, 5), (None, 5), (3, None), (3, 0), (5, 1))
    ]),
    "watches": of_limits("watches", [None, 0, 127, 128, 129]),
    "rlimits": (check(limits, "rlimits", keep="limit_text"), [
        {"machine.rlimit": found_} for found_ in ((5, 0), (5, 1023), (5, 1024), (-1, -1), (1023, 9999))
    ]),
    "own_cgroup": (check(limits, "own_cgroup"), [
        {"machine.number": By({f"/cg/own/{name}": number for name, number in values.items()}),
         "WITH": {"facts": {"cgroup2_mount": mount, "own_cgroup": "/own"}}}
        for values, mount in (
            ({"pids.max": 10, "pids.current": 5, "memory.max": 7, "memory.current": 6}, "/cg"),
            ({"pids.max": 10, "memory.current": 6}, "/cg"), ({"pids.max": 10, "pids.current": 5}, ""))
    ]),
    "hidden_processes": (check(limits, "hidden_processes"), [
        {"machine.mounts": [line], "WITH": {"host": host_}}
        for line in PROC for host_ in ({}, user(), {"privileged": False})
    ] + [{"machine.mounts": [PROC[6]] * 5, "WITH": {"host": user()}}]),
}  # fmt: skip
TABLES: Tables = [
    ("pyrunc.doctor.findings", TEXT, {}, ()),
    ("pyrunc.doctor.run", RUN, SUBJECTS, ()),
    ("pyrunc.doctor.machine", THIS, MACHINE, ()),
    ("pyrunc.doctor.privileges", PRIVILEGES, HELD, ()),
    ("pyrunc.doctor.users", USERS, PEOPLE, ()),
    ("pyrunc.doctor.kernel", KERNEL, SYSTEM, ()),
    ("pyrunc.doctor.cgroups", CGROUPS, CG, ()),
    ("pyrunc.doctor.limits", LIMITS, USED, ()),
]


@rows(TABLES)
def test_the_calls_of_a_check_of_the_host(module: str, name: str) -> None:
    transcript.compare("doctor_host_steps", f"{module.rpartition('.')[2]}.{name}", calls_of(module, name, TABLES))
