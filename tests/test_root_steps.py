"""What the modules at the top of pyrunc/ that have no other table ask of the system, as in test_steps.py:
files, processes, the host and seccomp. golden/root_steps.txt has the tables.
"""

from __future__ import annotations

import errno
import select
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc import fs, host, procfs, seccomp
from pyrunc.errors import PyruncError
from pyrunc.native import libseccomp
from spies import Answers, By, alone
from test_results import results, stat_line
from test_session_steps import Row
from test_steps import Tables, World, calls_of, failed, rows

# -- files -----------------------------------------------------------------------------------------


def found(mode: int, inode: int = 1, uid: int = 0, links: int = 1) -> Any:
    """What stat(2) says of a file."""
    return SimpleNamespace(st_mode=mode, st_ino=inode, st_dev=7, st_uid=uid, st_nlink=links)


FILE, FIFO = found(0o100600), found(0o010600)
BLOCKED = BlockingIOError(errno.EAGAIN, "blocked")
FILES: dict[str, Any] = {
    "posix.open": Answers([21, 22, 23, 24]), "posix.fstat": FILE, "posix.read": Answers([b"abc", b""]),
    "read_fd": b"abc",
    "_remove_entry": True, "posix.listdir": ["a", "b"], "posix.write": 3,
    "read_file": b"pos:\t0\nmnt_id:\t55\nmnt_id:\t6\n",
    "poller.poll": [(5, 1)], "posix.getcwd": "/cwd", "posix.urandom": b"\1\2", "close": None, "_await_writer": None,
}  # fmt: skip


def await_writer(w: World) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "poll", lambda: w.spy("poller"))
        return fs._await_writer(5)


def salted(w: World) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fs, "_salt", "")
        return fs.salted("a"), fs.salted("b")


def read_parts(*parts: Any) -> dict[str, Any]:
    return {"posix.read": Answers(parts)}


TREE = Answers([found(0o040700, number) for number in (1, 2, 2, 1)])
FILE_CALLS: dict[str, Row] = {
    "salted": (salted, [{}]),
    "read_file": (alone(fs, "read_file", "/f", 99, 5), [
        {}, {"posix.open": failed(errno.ENOENT)}, {"read_fd": failed(errno.EIO)},
    ]),
    "read_file as usual": (alone(fs, "read_file", "/f"), [{}]),
    "read_fd": (alone(fs, "read_fd", 5, 70000, keep="_is_fifo"), [
        {}, read_parts(b""), read_parts(b"x" * 65536, b"y" * 4464, b""), read_parts(b"x" * 65536, b"y" * 4465),
        read_parts(b"a", b"b", b"c", b""), read_parts(BLOCKED, b"a", BLOCKED, b""), read_parts(failed(errno.EIO)),
        {**read_parts(b"", b"a", b""), "posix.fstat": FIFO}, {**read_parts(b""), "posix.fstat": FIFO},
        {**read_parts(b"a", b""), "posix.fstat": FIFO}, {**read_parts(BLOCKED),
        "_await_writer": failed(errno.ETIMEDOUT)},
    ]),
    "read_fd as usual": (alone(fs, "read_fd", 5), [read_parts(b"x" * (1 << 24), b""),
    read_parts(b"x" * ((1 << 24) + 1))]),
    "_is_fifo": (alone(fs, "_is_fifo", 5), [{"posix.fstat": found(mode)} for mode in (0o010600, 0o030600, 0o100600,
    0)]),
    "_await_writer": (await_writer, [{}, {"poller.poll": []}]),
    "names": (alone(fs, "names", "/d"), [{}, {"posix.open": failed(errno.ENOENT)},
    {"posix.listdir": failed(errno.EIO)}]),
    "write_all": (alone(fs, "write_all", 5, b"abc"), [
        {}, {"posix.write": Answers([1, 2])}, {"posix.write": Answers([0, 2, 1])}, {"posix.write": failed(errno.EIO)},
    ]),
    "write_file": (alone(fs, "write_file", "/f", b"abc", 5), [
        {}, {"posix.open": failed(errno.ENOENT)}, {"write_all": failed(errno.EIO)}, {"posix.close": failed(errno.EIO)},
    ]),
    "write_new": (alone(fs, "write_new", "/f", b"abc"), [
        {}, {"posix.open": failed(errno.EEXIST)}, {"write_all": failed(errno.EIO)}, {"posix.close": failed(errno.EIO)},
    ]),
    **{f"replace_file {name}": (alone(fs, "replace_file", name, b"abc", 0o640, 5), [{}]) for name in ("/d/f", "/f",
    "d/f")},
    "replace_file": (alone(fs, "replace_file", "f", b"abc"), [
        {}, {"posix.open": Answers([failed(errno.EEXIST), 22])}, {"posix.open": failed(errno.EEXIST)},
        {"posix.open": failed(errno.ENOSPC)}, {"posix.open": failed(errno.EEXIST),
        "posix.unlink": failed(errno.EISDIR)},
        {"write_all": failed(errno.EIO)}, {"posix.close": failed(errno.EIO)}, {"posix.rename": failed(errno.EISDIR)},
        {"posix.rename": failed(errno.EISDIR), "posix.unlink": failed(errno.EPERM)},
    ]),
    "remove_tree": (alone(fs, "remove_tree", "t", 5), [
        {}, {"posix.listdir": []}, {"posix.open": failed(errno.ENOENT)}, {"_remove_entry": failed(errno.EPERM)},
        {"posix.listdir": Answers([["a", "b"], []]), "_remove_entry": Answers([False, True]), "posix.fstat": TREE},
        {"posix.listdir": Answers([["a"], ["b"], []]), "_remove_entry": False,
         "posix.fstat": Answers([found(0o040700, number) for number in (1, 2, 2, 1)])},
        {"posix.listdir": Answers([["a"], []]), "_remove_entry": False,
         "posix.fstat": Answers([found(0o040700, number) for number in (1, 3)])},
        {"posix.listdir": Answers([["a"], failed(errno.EIO)]), "_remove_entry": False},
        {"posix.listdir": Answers([["a"], []]), "_remove_entry": False, "posix.open": Answers([21,
        failed(errno.ELOOP)])},
        {"posix.listdir": Answers([["a"], []]), "_remove_entry": False, "posix.rmdir": failed(errno.ENOTEMPTY)},
        {"posix.rmdir": failed(errno.ENOTEMPTY)},
    ]),
    "_remove_entry": (alone(fs, "_remove_entry", "e", 5), [
        {}, {"posix.unlink": failed(errno.EACCES)},
        *({"posix.unlink": failed(first), "posix.rmdir": second} for first in (errno.EISDIR, errno.EPERM)
          for second in (None, *map(failed, (errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY)))),
    ]),
    "mount_id": (alone(fs, "mount_id", 5), [
        {}, {"read_file": b"mnt_id:\t7"}, {"read_file": b"pos:\t0\n"}, {"read_file": b""},
        {"read_file": failed(errno.EIO)},
    ]),
    "exists": (alone(fs, "exists", "/f", keep="is_inconclusive"), [
        {}, *({"posix.stat": failed(number)} for number in (errno.ENOENT, errno.EACCES, errno.ENOMEM, errno.EIO)),
    ]),
    "abspath": (alone(fs, "abspath", "a/../b", keep="join normpath"), [
        {}, {"posix.getcwd": "/"}, {"posix.getcwd": failed(errno.ENOENT)},
    ]),
    "abspath of an absolute path": (alone(fs, "abspath", "/a/./b", keep="join normpath"), [{}]),
    "getenv": (alone(fs, "getenv", "A"), [
        {"posix.environ": value} for value in ({}, {b"A": b""}, {b"A": b"x\xff"}, {b"B": b"y"})
    ]),
}  # fmt: skip

# -- processes -------------------------------------------------------------------------------------

FIELDS = stat_line().rpartition(b")")[2].split()
PROCESSES: dict[str, Any] = {
    "fs.names": ["10", "self", "2", "1", "3x", "4"], "posix.open": Answers([21, 22]), "alive": True,
    "posix.pidfd_open": 31, "files.filesystem_type": 0x6E736673, "fs.is_inconclusive": False, "fs.read_file": b"",
    "stat_fields": By({1: [b"S", b"0"], 2: [b"S", b"1"], 4: [], 10: [b"S", b"2"], None: [b"S", b"4"]}),
    "processes": [1, 2, 4, 10, 11],
}  # fmt: skip
PROCESS_CALLS: dict[str, Row] = {
    "processes": (alone(procfs, "processes"), [{}, {"fs.names": failed(errno.EIO)}]),
    "descendants": (alone(procfs, "descendants", 1), [{}, {"processes": []}, {"stat_fields": failed(errno.ENOMEM)}]),
    "descendants of another": (alone(procfs, "descendants", 4), [{}]),
    "open_process": (alone(procfs, "open_process", 5, 99), [
        {}, {"alive": False}, {"alive": failed(errno.ENOMEM)}, {"posix.pidfd_open": failed(errno.ESRCH)},
        {"posix.pidfd_open": failed(errno.EMFILE)}, {"posix.pidfd_open": 0},
    ]),
    "open_process of the first": (alone(procfs, "open_process", 1, 99), [{}]),
    "open_namespace": (alone(procfs, "open_namespace", "/n", "/linux/namespaces/0/path"), [
        {}, {"files.filesystem_type": 1}, {"posix.open": failed(errno.ENOENT)}, {"posix.open": Answers([21,
        failed(errno.EIO)])},
        {"files.filesystem_type": failed(errno.EIO)}, {"posix.open": OSError("without a number")},
    ]),
    "stat_fields": (alone(procfs, "stat_fields", 5), [
        {"fs.read_file": stat_line()}, {"fs.read_file": failed(errno.ESRCH)},
        {"fs.read_file": failed(errno.ENOMEM), "fs.is_inconclusive": True},
    ]),
    "boot_id": (alone(procfs, "boot_id"), [{"fs.read_file": b"abc\n"}, {"fs.read_file": b"\xff"}]),
    "first_in_namespace": (alone(procfs, "first_in_namespace", 5), [{"fs.read_file": b"NSpid:\t5\t1\nNSpid:\t5\t2\n"}]),
    "kill_headless": (alone(procfs, "kill_headless", [5, 6, 7]), [
        {"stat_fields": Answers([[], stat_line(state="Z", threads=2).rpartition(b")")[2].split(), FIELDS])},
        {"stat_fields": Answers([failed(errno.ENOMEM), stat_line(state="Z", threads=2).rpartition(b")")[2].split(),
        FIELDS]),
         "posix.kill": failed(errno.EPERM)},
    ]),
}  # fmt: skip

# -- the host --------------------------------------------------------------------------------------

V2, OTHER = b"30 20 0:26 / /sys/fs/cgroup rw - cgroup2 c rw\n", b"31 20 0:26 /sub /mnt/a\\040b rw - cgroup2 c rw\n"
V1 = b"29 20 0:25 / /sys/fs/cgroup rw - tmpfs t rw\n"
HOST: dict[str, Any] = {
    "posix.uname": SimpleNamespace(machine="arm", release="6.1.0-x"), "posix.geteuid": 5, "posix.open": 21,
    "kernel_version": (6, 1), "own_cgroup": "/own", "read": b"0::/own\n", "fs.is_inconclusive": False,
    "fs.exists": True, "posix.stat": SimpleNamespace(st_ino=0xEFFFFFFD), "fs.read_file": b"text",
}  # fmt: skip


def hierarchy(w: World) -> Any:
    facts = host.HostFacts()
    facts.prefix = "/p"
    host.find_cgroup2(facts, 21)
    return facts.cgroup2_mount, facts.cgroup2_root, facts.hybrid


def taken(w: World) -> Any:
    """A snapshot; the search for the hierarchy says that it is mounted from this cgroup."""

    def find(facts: host.HostFacts, fd: int) -> None:
        w.notes.append(f"find_cgroup2({fd})")
        facts.cgroup2_root = w.extra.get("root", "/")
        if "error" in w.extra:
            raise w.extra["error"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "find_cgroup2", find)
        for name in ("read", "own_cgroup", "kernel_version"):
            patch.setattr(host, name, spies.noting(name, w.notes, w.answers))
        facts = host.snapshot("/p")
    own = (
        facts.prefix,
        facts.euid,
        facts.arch,
        facts.kernel,
        facts.own_cgroup,
        facts.cgroup2_root,
        facts.cgroup2_mount,
    )
    return own, facts.hybrid


HOST_CALLS: dict[str, Row] = {
    "snapshot": (taken, [
        {}, {"WITH": {"root": "/.."}}, {"WITH": {"root": "/../a"}}, {"WITH": {"root": "/a"}},
        {"WITH": {"root": "/..a"}},
        {"posix.open": failed(errno.ENOENT)}, {"posix.open": failed(errno.ENOMEM), "fs.is_inconclusive": True},
        {"WITH": {"error": failed(errno.EIO)}}, {"read": failed(errno.ENOMEM)},
    ]),
    "find_cgroup2": (hierarchy, [
        {"posix.read": Answers([*parts, b""]), "fs.exists": exists}
        for parts in ([], [V1, V2], [V2 + OTHER], [OTHER + V2], [OTHER], [OTHER + OTHER.replace(b"/mnt", b"/x")],
        [V2[:30], V2[30:]],
                      [V2[:-1]], [V1 + V2[:9], V2[9:] + OTHER], [b"cgroup2 \n" + V1])
        for exists in (True, False)
    ]),
    "find_cgroup2 behind another": (hierarchy, [
        {"posix.read": Answers([OTHER + V2, b""]), "fs.exists": By({"/p/sys/fs/cgroup/cgroup.controllers": False,
        None: True})},
        {"posix.read": Answers([V2 + OTHER, b""]), "fs.exists": By({"/p/sys/fs/cgroup/cgroup.controllers": False,
        None: True})},
        {"posix.read": failed(errno.EIO)},
    ]),
    "initial_userns": (alone(host, "initial_userns", "/p"), [
        {}, {"posix.stat": SimpleNamespace(st_ino=0xEFFFFFFE)}, {"posix.stat": failed(errno.ENOENT)},
        {"posix.stat": failed(errno.ENOMEM), "fs.is_inconclusive": True},
    ]),
    "waits_in": (alone(host, "waits_in", 5), [
        {"read": text} for text in (b"0", b"do_wait", b"", b"\xff0\n", b"0do_wait0\n", b"00")
    ]),
    "read": (alone(host, "read", "/f"), [{}, {"fs.read_file": failed(errno.ENOMEM), "fs.is_inconclusive": True}]),
}  # fmt: skip

# -- seccomp ---------------------------------------------------------------------------------------

DIGEST, PROGRAM = b"d" * 32, b"p" * 16
CACHED = seccomp._header(DIGEST, PROGRAM) + PROGRAM
DIRECTORY = found(0o040700)
PROFILE: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/l", "listenerMetadata": "m"}
SECCOMP: dict[str, Any] = {
    "posix.open": Answers([21, 22, 23]), "posix.fstat": DIRECTORY, "posix.geteuid": 0, "fs.read_fd": CACHED,
    "posix.listdir": ["a"] * 3, "_digest": DIGEST, "_make_cache": 25, "_open_cache": 26, "_architectures": [3],
    "libseccomp.version": 0x20600, "libseccomp.arch": By({b"": 62, b"x86": 3, b"x32": 4, b"arm": 3, None: 62}),
    "_recall": b"", "_compile": PROGRAM, "notifies": True, "filter_flags": 4, "_header": b"header",
    "take_listener": 33, "posix.readlink": "anon_inode:seccomp notify", "processes.pidfd_getfd": 34,
    "_process_state": b"0123456789", "sockets.connect": 35, "sockets.send_descriptor": 10, "sockets.send": 3,
    "fs.getenv": "/run/user/5", "libseccomp.usable": True, "libseccomp.knows_flag": True, "build.libseccomp": "2.6",
    "libseccomp.compile": PROGRAM,
}  # fmt: skip
NAMES = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86"]


def compiled(w: World) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_open_cache", "_architectures", "_digest", "_recall", "_compile", "_remember"):
            patch.setattr(seccomp, name, spies.noting(name, w.notes, w.answers))
        return seccomp.compile_filter({"defaultAction": "SCMP_ACT_KILL"}, cache_dir=w.extra.get("cache", "/cache"))


def stat_of(**changes: Any) -> dict[str, Any]:
    return {"posix.fstat": SimpleNamespace(**vars(FILE) | changes)}


METADATA: list[Any] = [{}, {"listenerMetadata": ""}, PROFILE]
SECCOMP_CALLS: dict[str, Row] = {
    "compile_filter": (compiled, [
        {}, {"WITH": {"cache": ""}}, {"_open_cache": -1}, {"_open_cache": 0}, {"_recall": b"known"},
        {"_compile": PyruncError("no")}, {"_compile": PyruncError("no"), "_open_cache": -1}, {"notifies": False},
    ]),
    "_architectures": (alone(seccomp, "_architectures", {"architectures": NAMES}, keep="_arch_name"), [
        {}, {"libseccomp.arch": By({b"": 62, b"arm": failed(errno.EINVAL), None: 3})},
    ]),
    "_architectures without": (alone(seccomp, "_architectures", {}), [{}]),
    "_compile": (alone(seccomp, "_compile", b"encoded", {}, [3]), [
        {}, {"libseccomp.compile": libseccomp.Failure(errno.ENOMEM, "x"), "_failed": PyruncError("failed")},
    ]),
    "usable_architectures": (alone(seccomp, "usable_architectures", keep="_arch_name"), [
        {"libseccomp.arch": By({b"x86": failed(errno.EINVAL), b"arm": failed(errno.EINVAL), b"mips": 8, None: 62}),
         "libseccomp.usable": By({8: False, None: True})},
    ]),
    "usable_flags": (alone(seccomp, "usable_flags"), [{}, {"libseccomp.knows_flag": False}]),
    "cache_dir": (alone(seccomp, "cache_dir"), [
        {}, *({"posix.geteuid": 5, "fs.getenv": place} for place in ("", "run", "/run/user/5")),
    ]),
    "_open_cache": (alone(seccomp, "_open_cache", "/c"), [
        {}, {"posix.open": failed(errno.ENOENT)}, {"posix.open": failed(errno.ENOTDIR)},
        {"posix.fstat": failed(errno.EIO)},
        {"posix.open": failed(errno.ENOENT), "_make_cache": failed(errno.EACCES)}, {"posix.geteuid": 5},
        *({"posix.fstat": found(mode)} for mode in (0o040701, 0o041700, 0o040600)),
    ]),
    "_make_cache": (alone(seccomp, "_make_cache", "/c", 64), [
        {}, {"posix.mkdir": failed(errno.EEXIST)}, {"posix.mkdir": failed(errno.EACCES)},
        {"posix.open": failed(errno.ELOOP)},
    ]),
    "_recall": (alone(seccomp, "_recall", 5, DIGEST, keep="_header"), [
        {**stat_of(), "fs.read_fd": data}
        for data in (CACHED, b"", CACHED[:-8], CACHED + b"x", CACHED[:-16], b"X" + CACHED[1:], CACHED[:47], CACHED[:48])
    ] + [
        stat_of(), stat_of(st_mode=0o100644), stat_of(st_mode=0o010600), stat_of(st_uid=5), stat_of(st_nlink=2),
        stat_of(st_nlink=0), {"posix.open": failed(errno.ENOENT)}, {"posix.fstat": failed(errno.EIO)},
        {**stat_of(), "fs.read_fd": failed(errno.EFBIG)},
    ]),
    "_remember": (alone(seccomp, "_remember", 5, DIGEST, PROGRAM), [
        {}, {"posix.listdir": ["a"] * 63}, {"posix.listdir": ["a", "b"] * 32}, {"posix.listdir": failed(errno.EIO)},
        {"fs.replace_file": failed(errno.ENOSPC)},
    ]),
    "send_listener": (alone(seccomp, "send_listener", 4, 5, PROFILE, 41, "{}"), [
        {}, {"hand_over": PyruncError("no")}, {"take_listener": PyruncError("no")},
    ]),
    "take_listener": (alone(seccomp, "take_listener", 4, 5, PROFILE), [
        {}, {"posix.readlink": "anon_inode:[eventfd]"},
        *({"processes.pidfd_getfd": failed(number)} for number in (errno.ESRCH, errno.EBADF)),
        {"processes.pidfd_getfd": OSError("without a number")},
    ]),
    "take_listener without a path": (alone(seccomp, "take_listener", 4, 5, {}), [{}]),
    "hand_over": (alone(seccomp, "hand_over", 33, PROFILE, 41, "{}"), [
        {}, {"sockets.connect": failed(errno.ENOENT)}, {"sockets.send_descriptor": 4}, {"sockets.send_descriptor": 9},
        {"sockets.send_descriptor": 4, "sockets.send": Answers([5, 1])},
        {"sockets.send_descriptor": 4, "sockets.send": 0}, {"sockets.send_descriptor": failed(errno.EAGAIN)},
        {"sockets.send_descriptor": failed(errno.EPIPE)}, {"sockets.send_descriptor": OSError("without a number")},
        {"sockets.connect": OSError("without a number")},
    ]),
    "_process_state": (lambda w: [
        seccomp._process_state(one, 41, '{"a": 1}') for one in METADATA
    ], [{}]),
}  # fmt: skip
TABLES: Tables = [
    ("pyrunc.fs", FILE_CALLS, FILES, ()),
    ("pyrunc.procfs", PROCESS_CALLS, PROCESSES, ()),
    ("pyrunc.host", HOST_CALLS, HOST, ()),
    ("pyrunc.seccomp", SECCOMP_CALLS, SECCOMP, ("notifies", "filter_flags")),
]


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("root_steps", f"{module.removeprefix('pyrunc.')}.{name}", calls_of(module, name, TABLES))


# -- results ---------------------------------------------------------------------------------------


same = partial(transcript.compare, "root_steps")


def test_errors_of_the_profile_compiler() -> None:
    rule: Any = {"names": ["a", "b"], "action": "SCMP_ACT_LOG"}
    profile: Any = {"syscalls": [rule, rule]}

    def said(number: int, stage: int, index: int, name: int) -> Any:
        error = libseccomp.Failure(number, "call")
        error.stage, error.index, error.name = stage, index, name
        return repr(seccomp._failed(error, profile, [3, 4]))

    cases = [
        (number, stage, index, name)
        for number, stage, index, name in (
            *((number, stage, 0, 0) for number in (errno.EINVAL, errno.ENOMEM, errno.EDOM, errno.E2BIG)
              for stage in range(8)),
            *((errno.EINVAL, 2, index, 0) for index in (-1, 1, 2)), *((errno.EINVAL, 3, index, 0) for index in (-1,
            1, 2)),
            *((errno.EINVAL, 3, 1, name) for name in (-1, 1, 2)), (errno.EINTR, 5, 0, 0), (errno.ETIMEDOUT, 5, 0, 0),
            *((errno.ECHILD, 5, status, 0) for status in (0, 0x100, 0x500, 9, 24, 11, 25)), (0, 3, 0, 0), (0, 7, 0, 0),
        )
    ]  # fmt: skip
    same("errors of the profile compiler", results(said, cases))


def test_encoded_profiles() -> None:
    def encoded(profile: Any) -> Any:
        flat = seccomp.FlatProfile(profile, [3, 4])
        parts = [flat.default, flat.enosys, flat.archs.hex(), flat.rules.hex(), flat.names, flat.args.hex()]
        return *parts, flat.encode(0x20600).hex()

    one, two = (
        {"index": 0, "value": 5, "op": "SCMP_CMP_EQ"},
        {"index": 1, "value": 6, "valueTwo": 7, "op": "SCMP_CMP_MASKED_EQ"},
    )
    profiles: list[Any] = [
        *({"defaultAction": f"SCMP_ACT_{name}"} for name in ("ALLOW", "LOG", "TRACE", "KILL", "ERRNO")),
        *({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": number} for number in (0, 1, 38, 65536 + 38)),
        {"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 38}, {"defaultAction": "SCMP_ACT_KILL",
        "defaultErrnoRet": 5},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["a", "b"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7, "args": [one, two]},
            {"names": ["c"], "action": "SCMP_ACT_LOG", "args": [one, one]}, {"names": ["\u00e4"],
            "action": "SCMP_ACT_KILL"}]},
    ]  # fmt: skip
    same("encoded profiles", results(encoded, profiles))


def test_header_of_the_cache() -> None:
    """Programs that an older version has cached stay valid, and a program is bound to its input."""
    head = seccomp._header(DIGEST, PROGRAM)
    assert head[:16] == b"pyruncBPF\0\0\1" + (16).to_bytes(4, "little") and len(head) == 16 + 32
    for other in (seccomp._header(b"e" * 32, PROGRAM), seccomp._header(DIGEST, b"q" * 16)):
        assert other[:16] == head[:16] and other[16:] != head[16:]
