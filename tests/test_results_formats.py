"""Parsers and formatters over tables of inputs, as in test_results.py: plans, cgroups, seccomp and
images. golden/results_formats.txt has every result."""

from __future__ import annotations

import errno
import os
import posix
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from plan_support import Facts, options
from pyrunc import fs, handshake, seccomp
from pyrunc.cgroup import bus, systemd
from pyrunc.cgroup import path_for as cgroup_path_for
from pyrunc.cgroup.resources import Write
from pyrunc.container import events, update
from pyrunc.errors import SysError
from pyrunc.image import accounts, convert, credentials, descriptor, limits, locate, reference
from pyrunc.launch import create, exec, spawn
from pyrunc.plan import Plan, faults, mount_options, ops, show
from pyrunc.plan import create as plan_create
from pyrunc.seccomp_tools import calls, decode
from pyrunc.spec import mappings, names
from test_results import results
from test_sweep import RICH, USER, VERSIONS

Call = Callable[..., Any]
NO = 0xFFFFFFFF  # no descriptor
NODE = {"path": "/dev/a b", "kind": 0o020000, "major": 1, "minor": 2, "mode": 0o640, "uid": 0, "gid": 0, "label": ""}
MOUNT = {"source": "/s", "fstype": "", "dest": "/d", "attr_set": 0, "attr_clr": 0, "implied": 0, "rec_set": 0,
         "rec_clr": 0, "propagation": 0, "data": [], "tree": 0}  # fmt: skip
WORDS = ["", "a", "a b", 'a"b', "a'b", "a\\b", "$a", "`a`", "a\nb", "\u00e4", "\x7f", "a\tb"]
CLASSES = {"kind": 0, "level": 0, "runtime": 0, "deadline": 0, "period": 0}


def formatted(name: str, args: dict[str, Any], **changes: Any) -> str:
    """A step's arguments in the listing of `plan`."""
    return show._FORMATS[name](args | changes)


def step(name: str, args: dict[str, Any], field: str) -> Call:
    """The same as a function of one argument."""
    return lambda value: formatted(name, args, **{field: value})


def wrote(file: str, text: str, other: tuple[str, str] | None = None) -> dict[str, Any]:
    """The systemd properties of one write."""
    return systemd.properties([Write(file, text, "/p", 5, other=other)])


def record(op: int, err: int, detail: str = "", call: str = "call", arg: int = 0, item: int = 0) -> handshake.Record:
    """A failure of step 0."""
    packed = handshake._RECORD.pack(handshake.FAIL, op, err, 0, arg, item, 0, call.encode(), detail.encode())
    return handshake.Record(packed)


LATE = [
    [0, "/process/args", "FIND_EXE", ["sh", "/bin"]], [1, "/process/args", "EXECVE", [["a", "b"], ["c"]]],
    [2, "/process/cwd", "CHDIR", ["/w"]], [3, "/mounts/0", "MOUNT", ["src", "ext4", "/dst", ["x", "y"]]],
    [4, "/hooks/startContainer/1/path", "HOOK", ["/bin/h", ["h"], ["A=b"]]], [5, "(default)", "MOUNT", ["s", "t",
    "/d", []]],
    [6, "/process/user", "GROUPS", [b"1234"]],
]  # fmt: skip


def told(number: int, **more: Any) -> str:
    """The error of a step after `create` has ended."""
    return str(faults.error(LATE, record(number, **more)))


MORE: list[dict[str, Any]] = [
    {}, {"size": -1}, {"size": "5"}, {"size": True}, {"annotations": {"a": "b"}}, {"annotations": {"a": 5}},
    {"annotations": []}, {"annotations": None}, {"platform": {"os": "linux", "architecture": "arm64"}},
    {"platform": None}, {"artifactType": "x/y"}, {"artifactType": None}, {"data": "YQ=="}, {"data": "!"}, {"data": 5},
    {"urls": ["x"]}, {"mediaType": None}, {"digest": 5},
]  # fmt: skip
VOLUMES: list[dict[str, Any]] = [{}, {"/a": {}}, {"a": {}}, {"/a\0": {}}, {"/b": {}, "/a": {}}]

TABLES: dict[str, tuple[Call, list[Any]]] = {
    # -- the listing of a plan
    "show._quoted": (show._quoted, WORDS),
    "show._paint": (show._paint, [(w, a, c) for w in ("", "x") for a in ("", "1") for c in (False, True)]),
    "show._wrap": (
        show._wrap,
        [("", 5, " "), ("abc", 3, " "), ("abcd", 3, " "), ("ab cd", 3, " "), ("ab  cd", 3, " "), ("ab   cd ef", 4, " "),
         (" abcd", 3, " "), ("abcdefghij", 4, " "), ("/a/b/c/d", 4, "/"), ("/abcdef/g", 4, "/"), ("a b c d e f", 4,
         " "),
         ("a   b   c", 4, " "), ("abc ", 3, " "), ("a//b", 3, "/"), ("aa bb cc", 5, " "), ("aaaa bb", 4, " ")],
    ),
    "show._limit": (show._limit, [0, 1, (1 << 64) - 1, (1 << 64) - 2]),
    "show._slot": (show._slot, [0, 1, NO, NO - 1]),
    "show._flag_names": (show._flag_names, [0, *(1 << bit for bit in range(7, 32)), 0x7C020000]),
    "show._attributes": (
        show._attributes,
        [(on, off, "r") for on in (0, 1, 2, 4, 8, 0x10, 0x20, 0x80, 0x200000, 0x2F) for off in (0, 1, 0x70, 0x8F)],
    ),
    "show._propagations": (show._propagations, [0, *range(1, 5), *range(9, 13), 0x12, 0x129]),
    "show._caps": (show._caps, [0, 1, 2, 3, (1 << 41) - 1, (1 << 40) - 1, 1 << 40, 0x21]),
    "show._numbers": (show._numbers, [b"", b"\0", b"\x01", b"\x80", b"\x05\x01", b"\0\0\x02"]),
    "show._gids": (lambda data: show._gids({"gids": data}), [b"", struct.pack("=I", 5), struct.pack("=II", 0, NO)]),
    "show.MOUNT source": (step("MOUNT", MOUNT, "source"), ["", "a b", "tmpfs"]),
    "show.MOUNT type": (step("MOUNT", MOUNT, "fstype"), ["", "tmpfs", "/s"]),
    "show.MOUNT type without source": (step("MOUNT", {**MOUNT, "source": ""}, "fstype"), ["", "tmpfs"]),
    "show.MOUNT implied": (step("MOUNT", MOUNT, "implied"), [0, 1]),
    "show.MOUNT set": (step("MOUNT", {**MOUNT, "implied": 1}, "attr_set"), [0, 1, 0x20, 0x10]),
    "show.MOUNT recursive": (step("MOUNT", {**MOUNT, "rec_clr": 2}, "rec_set"), [0, 1, 2]),
    "show.MOUNT data": (step("MOUNT", MOUNT, "data"), [[], ["ro", "mode=1", "a b", "lazytime"]]),
    "show.MOUNT tree": (step("MOUNT", MOUNT, "tree"), [0, 1]),
    "show.DEV_NODE kind": (step("DEV_NODE", NODE, "kind"), [0o020000, 0o060000, 0o010000]),
    "show.DEV_NODE uid": (step("DEV_NODE", NODE, "uid"), [0, 5]),
    "show.DEV_NODE gid": (step("DEV_NODE", NODE, "gid"), [0, 5]),
    "show.DEV_NODE mode": (step("DEV_NODE", NODE, "mode"), [0, 0o7, 0o1777]),
    "show.MAKE_NODE label": (step("MAKE_NODE", NODE, "label"), ["", "a:b"]),
    "show.CONSOLE": (
        lambda rows, cols, fd: formatted("CONSOLE", {"fd": fd, "uid": 1, "gid": 2, "rows": rows, "cols": cols}),
        [(0, 0, NO), (1, 0, 2), (0, 1, 2), (3, 4, 2)],
    ),
    "show.WAIT_START": (
        lambda start, error: formatted("WAIT_START", {"start_fd": start, "error_fd": error}), [(NO, 1), (1, NO), (1,
            2)]),
    "show.CLONE_INIT": (lambda fd: formatted("CLONE_INIT", {"cgroup_fd": fd}), [NO, 0, 5]),
    "show.CPU_FINAL": (lambda mask: formatted("CPU_FINAL", {"cpus": mask}), [b"", b"\x03"]),
    "show.CPU_INITIAL": (lambda mask: formatted("CPU_INITIAL", {"cpus": mask}), [b"", b"\x03"]),
    "show.MEMORY_POLICY": (
        lambda mode, nodes: formatted("MEMORY_POLICY", {"mode": mode, "nodes": nodes}),
        [(mode, nodes) for mode in range(7) for nodes in (b"", b"\x05")],
    ),
    "show.IO_PRIORITY": (lambda kind: formatted("IO_PRIORITY", {"kind": kind, "level": 4}), [1, 2, 3]),
    "show.SCHEDULER": (
        lambda kind, level, runtime, deadline, period: formatted(
            "SCHEDULER",
            {"kind": kind, "level": level, "runtime": runtime, "deadline": deadline, "period": period},
        ),
        [*((kind, 3, 0, 0, 0) for kind in range(7)), (6, 3, 1, 2, 3), (0, -5, 0, 7, 0)],
    ),
    "show.SECCOMP": (
        lambda flags, program: formatted("SECCOMP", {"flags": flags, "filter": program}),
        [*((1 << bit, b"") for bit in range(7)), (0, bytes(16)), (6, bytes(8))],
    ),
    "show.HOOK": (
        lambda args, timeout, env: formatted("HOOK", {"path": "/h", "args": args, "timeout_ms": timeout, "env": env}),
        [(["/h"], 0, []), (["h"], 0, []), (["/h", "a b"], 5000, ["A=b c"]), (["/h"], 1999, [])],
    ),
    "show.CAPS": (
        lambda e, p, i, a: formatted("CAPS", {"effective": e, "permitted": p, "inheritable": i, "ambient": a}),
        [(0, 0, 0, 0), (1, 1, 0, 0), (1, 2, 4, 8), (1, 1, 1, 1), ((1 << 41) - 1, 0, 1, 0)],
    ),
    "show.EXECVE": (
        lambda args, env: formatted("EXECVE", {"args": args, "env": env}), [(["a"], []), (["a", "b c"], ["X=y z"])]),
    "show.RLIMIT": (
        lambda number: formatted("RLIMIT", {"resource": number, "soft": 1, "hard": (1 << 64) - 1}), list(range(16))),
    "show.PERSONALITY": (lambda value: formatted("PERSONALITY", {"persona": value}), [0, 8]),
    "show._host_hook": (
        show._host_hook,
        [{"path": "/h"}, {"path": "/h", "args": ["x", "y z"]}, {"path": "/h", "timeout": 5}, {"path": "/h",
        "env": ["A=b c"]}],
    ),
    "show._generic": (show._generic, [{"a": 1, "b": "x y", "c": ["d", "e f"], "f": ""}, {}]),
    # -- errors of steps
    "faults, programs": (
        lambda step, err, detail: told(step, err=err, detail=detail),
        [(step, err, detail) for step in (0, 1, 2) for err in (2, 13, 8, 5) for detail in ("", "exec /run.sh")],
    ),
    "faults, arguments": (lambda arg, item: told(3, err=22, arg=arg, item=item), [(a,
    i) for a in range(6) for i in (0, 1, 2)]),
    "faults, other steps": (lambda step: told(step, err=22), list(range(4, 9))),
    "faults, details": (
        lambda detail: told(4, err=0, detail=detail, call="hook"),
        ["", "capability 3", "capability 99", "capability x", "a capability 0", "killed by signal 9",
         "killed by signal 31: out", "was killed by signal 9", "exit status 5: b"],
    ),
    "faults, hooks": (lambda call: told(4, err=2, call=call), ["", "hook", "execve"]),
    "faults, options": (
        lambda detail: told(3, err=22, detail=detail),
        ["tmpfs: Unknown parameter 'siz'", "Unknown parameter 'zzzz'", "Unknown parameter",
        "Unknown parameter 'nosuid"],
    ),
    "faults, explained": (
        lambda step, detail, words: str(faults.error(LATE, record(step, 2, detail), lambda name, number: words + name)),
        [(step, detail, words) for step in (0, 1, 3) for detail in ("", "exec /x") for words in ("", "why ")],
    ),
    # -- paths and names
    "mount_options.clean": (
        mount_options.clean,
        ["/", "/a", "a", "", "//", "/a/", "/a//b", "/a/./b", "/.a", "/a/..", "/..", "/a.b", "a/../../b", "/a/.",
        "/a/.b"],
    ),
    "mount_options.absolute": (mount_options.absolute, [("/b", "/a"), ("/b", "a"), ("/b", "")]),
    "cgroup.path_for": (
        lambda path, own, top, **more: cgroup_path_for(
            path, "id", Facts(own_cgroup=own, cgroup2_root=top), more.get("manager", "cgroupfs")
        ),
        [(path, own, top)
         for path in ("", "/", "/a/b", "a", "a/b/", "/a/../b", "..", "a\nb", "a\0b", "a:b:c", "/a:b:c", "a:b", "//a",
             ".")
         for own, top in (("/", "/"), ("/u/s", "/"), ("/u/s", "/u"), ("/u/s", "/x"), ("/u", "/u"))],
    ),
    "systemd.path_for": (
        lambda path, sub: systemd.path_for(path, "id", Facts(), {"run.oci.systemd.subgroup": sub} if sub else {}),
        [*((path, "") for path in ("", ":a:b", "x.slice:a:b", "a-b.slice:p:n", "a-b.slice::n", ":p:n.slice", "::",
        ":a:", "a:b",
           "a:b:c:d", "/x:a:b", "-:a:b", "-.slice:a:b", "x:a:b", ".slice:a:b", "a--b.slice:a:b", "-a.slice:a:b",
           ":p:" + "n" * 247, ":p:" + "n" * 248, "a" * 249 + ".slice:a:b", "a" * 250 + ".slice:a:b")),
         *((":a:b", sub) for sub in ("s", "a/b", ".", "..", "a\nb", "..."))],
    ),
    "systemd.names": (
        systemd.names,
        ["/a.slice/b.scope", "/a.slice/b.scope/sub", "/b.scope", "/a/b.scope", "/a.slice", "/a.slice/b.slice",
        "/a/b", "/a", ""],
    ),
    "systemd.number": (
        systemd.number,
        ["max", "", "0", "5", "5K", "5k", "5M", "5G", "5T", "5P", "5E", "5x", "K", "-1", "\u0661", "9" * 19,
        "9" * 20, "max "],
    ),
    "systemd.bitmask": (
        systemd.bitmask,
        ["0", "0-3", "0-3,8", "3-1", "", ",", "a", "1-", "-1", "0-", " 1 , 2 ", "8191", "8192", "0-8191", "0-8192",
        "\u0661",
         "1-\u0661", "\u0661-5", "1-2-3", "1" * 19, "1" * 20, "7", "15,16", "0x1"],
    ),
    "systemd.properties": (
        wrote,
        [("memory.max", "max"), ("memory.max", "4096"), ("memory.max", "x"), ("cpu.idle", "1"), ("cpu.idle", "0"),
         ("cpu.max", "max"), ("cpu.max", "max 5000"), ("cpu.max", "50000 100000"), ("cpu.max", "1 100000"),
         ("cpu.max", "x 1"),
         ("cpu.max", "5 0"), ("cpu.max", "5 x"), ("cpu.max", "33333 100000"), ("cpu.max", "10000"), ("cpuset.cpus",
         "0-3"),
         ("cpuset.cpus", ""), ("cpuset.mems", "1"), ("io.weight", "default 100"), ("io.weight", "50"), ("io.weight",
         "x"),
         ("io.weight", "0"), ("io.bfq.weight", "7", ("io.weight", "default 9")), ("memory.oom.group", "1"),
         ("memory.oom.group", "0"), ("pids.max", "5"), ("cpu.weight", "7"), ("memory.high", "1K"), ("memory.low", "2"),
         ("memory.min", "3"), ("memory.swap.max", "4"), ("other", "1")],
    ),
    "bus.escape": (bus.escape, ["/run/a", "a b", "\u00e4", "a-_/\\*.Z9", "a,b;c=d", "\udcff", "~"]),
    "bus.BusError": (lambda *given: str(bus.BusError(*given)), [("c", "n", "w"), ("c", "n", "")]),
    "update.size": (
        update.size,
        ["-1", " -1 ", "0", "1", "64m", "64M", "64mb", "64MB", "64MiB", "64mib", "64ib", "64i", "b", "B", "1b",
        "1 b", "100 kb",
         "1.5GiB", "1.5", "1.", ".5", "1.x", "1k", "1g", "1t", "1p", "1e", "k", "", "-2", "1\u212a", "9" * 18, "9" * 19,
         "0.999999999999999999999k", "1 k b", "1kk", "1.5.5"],
    ),
    "update.number": (update.number, ["0", "-1", "5", "--1", "-", "", "\u0661", "9" * 19, "9" * 20, "+1", "1.5"]),
    "update.asked": (
        update.asked,
        [{}, {"memory": {}}, {"devices": []}, {"memory": {"limit": -1}}, {"memory": {"limit": -1, "swap": 5}},
         {"memory": {"limit": 0}}, {"memory": {"limit": 5}}, {"cpu": {"idle": 1}}, {"cpu": {"idle": 1, "shares": 5}},
         {"cpu": {"idle": 0, "shares": 0}}, {"cpu": {"shares": 0}}, {"cpu": {"quota": 0}}, {"pids": {"limit": 0}},
         {"unknown": 5}, {"blockIO": {"weight": 0}}, {"cpu": {"burst": 0, "quota": 5}}, {"memory": {"swap": 0,
         "limit": 0}}],
    ),
    "update.merge": (
        update.merge,
        [({}, {"memory": {"limit": 5}}), ({"memory": {"limit": 1, "swap": 2}}, {"memory": {"limit": 5}}),
         ({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}, {"hugepageLimits": [{"pageSize": "2MB", "limit": 2},
           {"pageSize": "1GB", "limit": 3}]}), ({}, {"hugepageLimits": [{"pageSize": "2MB", "limit": 2}]}),
         ({"blockIO": {"weight": 5, "weightDevice": [{"major": 8, "minor": 0, "weight": 1}]}},
          {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 2}, {"major": 8, "minor": 1,
          "weight": 3}]}}),
         ({}, {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 2}]}}),
         ({"devices": [1]}, {"devices": []}), ({"unified": {"a": "b"}}, {"unified": {"c": "d"}}), ({"cpu": None},
         {"cpu": {"a": [1]}})],
    ),
    "update.from_flags": (
        update.from_flags,
        [{}, *({flag: text} for flag, *_ in update.FIELDS for text in ("", "5", "-1", "x", "5m")), {"memory": 5}],
    ),
    "events.duration": (
        events.duration,
        ["5s", "1m30s", "1.5h", "250ms", "1us", "1\u00b5s", "1\u03bcs", "1ns", "0", "+0", "+5s", "-5s", "", "+", "5",
        "s", ".s", ".5s", "5.s",
         "1..5s", "1.5.5s", "5x", "5 s", "1" * 18 + "s", "1" * 19 + "s", "5s ", "1h2", "00s"],
    ),
    "exec.sub_cgroup": (
        exec.sub_cgroup,
        [([],), (["a"],), (["/a/"],), (["a", "a"],), (["a", "/a"],), (["a", "b"],), (["cpu:a"],), (["cpu,memory:a"],),
         ([":a"],), (["cpu,:a"],), ([".."],), (["a/../b"],), (["a\nb"],), (["a\0b"],), (["/"],), (["", "a"],), (["a",
         ""],),
         (["a..b"],), (["x:y:z"],)],
    ),
    "create.has_userns": (create.has_userns, [{}, {"linux": {"namespaces": [{"type": "user"}]}},
    {"linux": {"namespaces": [{}]}}]),
    "spawn.of_init": (
        lambda number, call: str(spawn.of_init(OSError(number, call))),
        [(errno.EACCES, "memfd_create"), (errno.EAGAIN, "posix_spawn"), (errno.EIO, "read"), (0, "")],
    ),
    "mappings.is_single": (mappings.is_single, [([],), ([{"size": 1}],), ([{"size": 2}],), ([{"size": 1}] * 2,)]),
    # -- seccomp
    "decode.open_flags": (decode.open_flags, [0, 1, 2, 3, 0o100, 0o100101, 0o2000000, 0o4010000, 0o20200000, 1 << 30,
    1 << 31]),
    "decode._signed": (
        decode._signed,
        [(value, bits) for value in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x1FFFFFFFF, (1 << 64) - 1, 1 << 63)
         for bits in (32, 64)],
    ),
    "decode._argument": (
        lambda kind, value: decode._argument(kind, value, 64, decode.Memory(0)),
        [(kind, value) for kind in "dipmOPSx" for value in (0, 1, 9, 64, 65, 0o644, 7, (1 << 32) - 100,
        (1 << 64) - 100)],
    ),
    "decode.words": (
        lambda name, args: decode.words(name, args, 64, 0),
        [("openat", (0xFFFFFF9C, 0, 0o100, 0o644)), ("kill", (5, 9, 0)), ("", ()), ("", (1, 0, 0)), ("nosuch", (1, 2,
        0)),
         ("nosuch", (0, 0)), ("mmap", (0, 4096, 3, 2, 0xFFFFFFFF, 0)), ("mprotect", (4096, 1, 0)), ("chmod", (0,
         0o755))],
    ),
    "calls.Arch": (
        lambda name, number: (
            (arch := calls.all_arches()[name]).audit, arch.short, arch.bits, arch.name_of(number), arch.number("read"),
            arch.number("no_such"), arch.number("bind"), arch.parts(number), arch.names_of(number, 2), arch._base(),
        ),
        [(f"SCMP_ARCH_{name}", number) for name in ("X86_64", "X86", "X32", "AARCH64", "MIPS") for number in (0, 102,
        117)],
    ),
    # -- images
    "accounts._number": (accounts._number, ["", "0", "5", "-1", "\u0661", "x", "9" * 10, "4294967295", "4294967294",
    "0" * 11]),
    "limits.parse": (
        lambda text: vars_of(limits.parse([text])),
        [*(f"{name}={value}" for name in ("bytes", "depth", "nosuch") for value in ("1", "1k", "1K",
        "1m", "1g", "1t", "0",
           "", "k", "-1", "x", "1kk", "9" * 15, "9" * 16, "\u0661")), "size", "=5"],
    ),
    "reference.parse_registry": (
        lambda text: vars_of(reference.parse_registry(text)),
        ["host/a", "host/a:t", "host:5000/a:t", "a", "/a", "host/", "host/A", "host/a:", "host/a:t/b",
        "host/a@sha256:" + "a" * 64,
         "host/a@sha256:x", "host/a:t@sha256:" + "a" * 64, "host/" + "a" * 255, "host/" + "a" * 256, "ho st/a",
         "host/a:-t",
         "host/a:" + "t" * 128, "host/a:" + "t" * 129, "host/a//b", "host/a/b/c", "docker.io/a", "[::1]:5/a",
         "host/a@", "h/a:@"],
    ),
    "locate.encode_reference": (locate.encode_reference, ["a/b:c", "A-b_c.d", "\u00e4", "", "a%b", "x" * 300, "@:"]),
    "locate.encode_digest": (locate.encode_digest, ["sha256:abc", "x"]),
    "locate.short": (locate.short, ["sha256:0123456789abcdef", "sha256:ab"]),
    "locate.absolute": (
        lambda *given: locate.absolute(*given).replace(os.getcwd(), "CWD"), [("oci:a", "x"), ("oci-archive:/a", ""),
            ("docker-archive:a:t", ""), ("host/a", "p"),
            ("docker:a", "")]),
    "manifest.Platform": (
        lambda text: vars_of(descriptor.Platform(*text.split("/"))),
        ["linux/amd64", "linux/arm64/v8", "linux/arm/v7"],
    ),
    "descriptor.check_digest": (
        descriptor.check_digest,
        ["sha256:" + "a" * 64, "sha256:" + "a" * 63, "sha256:" + "A" * 64, "sha512:" + "a" * 128, "md5:" + "a" * 32,
        "", None, 5,
         "sha256", "sha256:", ":a", "sha384:" + "a" * 96, "sha256:" + "g" * 64],
    ),
    "descriptor.check_media_type": (
        lambda text: descriptor.check_media_type(text, "what"), ["a/b", "a", "", None, "a/b/c", "a/b+c", "a /b",
            "a/" + "b" * 130]),
    "descriptor.parse": (
        lambda entry: transcript.shown(descriptor.parse(entry, "/p"), 3),
        [{"mediaType": "a/b", "digest": "sha256:" + "a" * 64, "size": 5} | more
         for more in MORE],
    ),
    "convert._strings": (
        lambda value: convert._strings({"a": value}, "a"), [None, [], ["x"], "x", [5], ["x", 5], {}, {"k": "v"}]),
    "convert._string": (lambda value: convert._string({"a": value}, "a", "/w"), [None, "", "x", 5, []]),
    "convert._object": (lambda value: convert._object({"a": value}, "a", "/w"), [None, {}, {"a": 1}, [], "x"]),
    "convert._features": (
        lambda value: convert._features({"os.features": value}), [None, [], ["a"], "a", [5], {"a": 1}, "", 0, {}]),
    "convert._volumes": (
        lambda volumes, kind: convert._volumes(volumes, kind),
        [(volumes, kind) for volumes in VOLUMES for kind in ("tmpfs", "ignore", "none")],
    ),
    "credentials._row": (
        lambda row: vars_of(credentials._row(row, "file", "host")),
        [{"auth": "YTpi"}, {"auth": "YQ=="}, {"auth": "!"}, {"auth": "YTpi!"}, {"auth": "YT\r\npi"},
         {"auth": "/w=="}, {"auth": ""}, {"identitytoken": "t"}, {"username": "u", "password": "p"},
         {"auth": "YTpi", "username": "u", "password": "p"}, {"auth": "Og=="}, {"auth": 5}, {}, {"auth": "YTpiOmM="}],
    ),
    "names.cpus": (
        lambda text: sorted(names.listed(text, 9)),
        ["", "0", "0-3", "3-0", "9", "10", "0-9", "0-10", "1,3", "1,,3", " 1", "a", "1-", "-1", "\u0661", "1-\u0661",
        "0000001",
         "00000001", "1\n"],
    ),
}  # fmt: skip


def vars_of(value: Any) -> str:
    """The members of an object."""
    return transcript.shown(value, 4)


@pytest.mark.parametrize("name", TABLES)
def test_results(name: str) -> None:
    transcript.compare("results_formats", name, results(*TABLES[name]))


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("name", ["rich", "user"])
def test_listing(name: str, width: int, colour: bool) -> None:
    """Every word of a long listing, for terminals of different widths."""
    document = RICH if name == "rich" else USER
    plan = plan_create.compile_create(document, VERSIONS[name], options(cgroup_path="/a/b", preserve_fds=1))
    lines = show.fitted(plan, document if width != 40 else None, width, colour).replace("\33", "ESC").splitlines()
    transcript.compare("results_formats", f"the listing of {name}, {width} {colour}", lines)


@pytest.mark.parametrize("name", ["rich", "user"])
def test_listing_as_json(name: str) -> None:
    document = RICH if name == "rich" else USER
    plan = plan_create.compile_create(document, VERSIONS[name], options(cgroup_path="/a"))
    found = show.as_json(plan, document)
    lines = [
        f"{key}: {line}" for key, value in found.items() for line in (value if isinstance(value, list) else [value])
    ]
    transcript.compare("results_formats", f"the JSON of {name}", [*lines, show.text(plan, document)])
    assert show.as_json(Plan())["steps"] == [] and found["abi"] == ops.ABI


def test_addresses_of_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    for runtime in ("", "/run/user/5", "/a b"):
        for session in ("", "unix:path=/s"):
            for system in ("", "unix:path=/y"):
                values = {
                    "XDG_RUNTIME_DIR": runtime,
                    "DBUS_SESSION_BUS_ADDRESS": session,
                    "DBUS_SYSTEM_BUS_ADDRESS": system,
                }
                monkeypatch.setattr(posix, "environ", {k.encode(): v.encode() for k, v in values.items()})
                lines += [f"{values}: {bus.addresses(user)}" for user in (False, True)]
    transcript.compare("results_formats", "addresses of systemd", lines)


def test_socket_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    for count in ("", "0", "3", "x", "-1"):
        for pid in ("", "77", "78", "077"):
            monkeypatch.setattr(posix, "environ", {b"LISTEN_FDS": count.encode(), b"LISTEN_PID": pid.encode()})
            monkeypatch.setattr(posix, "getpid", lambda: 77)
            lines.append(f"{count} {pid}: {spawn.listen_fds()}")
    transcript.compare("results_formats", "socket activation", lines)


def test_files_with_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    names_ = ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "HOME", "DOCKER_CONFIG", "XDG_CONFIG_HOME")
    for name in names_:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 5)
    lines.append(str([credentials.auth_files(""), credentials.auth_files("/chosen")]))
    for name in names_:
        monkeypatch.setenv(name, f"/of/{name}")
        lines.append(f"{name}: {credentials.auth_files('')} {credentials.auth_files('/chosen')}")
    transcript.compare("results_formats", "files with credentials", lines)


def test_the_place_of_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    for euid in (0, 5):
        monkeypatch.setattr(posix, "geteuid", lambda euid=euid: euid)
        for data in ("", "/data"):
            for home in ("", "/home/u"):
                monkeypatch.setattr(posix, "environ", {b"XDG_DATA_HOME": data.encode(), b"HOME": home.encode()})
                found = results(locate.store_path, ["", "/chosen"])
                lines += [f"{euid} {data} {home}: {line}" for line in found]
    transcript.compare("results_formats", "the place of a store", lines)


@pytest.mark.parametrize("mode", [0o40700, 0o40755, 0o40775, 0o40777, 0o40722])
@pytest.mark.parametrize("uid", [0, 5])
def test_a_store_that_others_could_write(mode: int, uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "geteuid", lambda: 5)
    found = posix.stat_result((mode, 1, 1, 1, uid, 0, 0, 0, 0, 0))
    if uid == 5 and mode in (0o40700, 0o40755):
        return locate.check("/s", found)
    with pytest.raises(Exception, match="/s"):
        locate.check("/s", found)
    return None


def test_spooling(monkeypatch: pytest.MonkeyPatch) -> None:
    """$TMPDIR decides, otherwise /var/tmp if there is one."""
    from pyrunc.image import download

    for chosen in ("", "/t"):
        monkeypatch.setenv("TMPDIR", chosen)
        for there in (False, True):
            monkeypatch.setattr(os.path, "isdir", lambda path, there=there: there and path == "/var/tmp")
            assert download.spool() == ("/var/tmp" if there and not chosen else None)


def test_a_connection_that_fails(tmp_path: Path) -> None:
    with pytest.raises(SysError) as caught:
        spawn.connect("--console-socket", f"{tmp_path}/gone")
    assert (caught.value.errno, caught.value.value) == (errno.ENOENT, f"{tmp_path}/gone")
    assert str(caught.value).startswith("--console-socket ") and seccomp.MAGIC and fs.normpath("/")
