"""The mounts that CRIU leaves to us and the encoding of its messages, as tables of inputs, results and
calls. golden/checkpoint_tables.txt has the tables.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from pyrunc.checkpoint import messages, mounts, protobuf
from pyrunc.errors import PyruncError, SysError
from pyrunc.host import HostFacts
from spies import Answers, By, alone
from test_results import Call, results
from test_session_steps import Row
from test_steps import Tables, World, calls_of, failed, rows

# -- messages --------------------------------------------------------------------------------------

INNER: Any = {"a": (1, "int"), "b": (2, "text")}
TABLE: Any = {
    "number": (1, "int"), "flag": (2, "bool"), "words": (3, "text"), "inner": (4, INNER), "many": (5, ["int"]),
    "texts": (16, ["text"]), "inners": (2047, [INNER]), "far": ((1 << 29) - 1, "int"),
}  # fmt: skip
ENCODED = [
    "", "0801", "08ff01", "08ffffffffffffffffff01", "0880808080808080808001", "08ffffffffffffffffffff01", "08", "0880",
    "1000", "1001", "1007", "1a0161", "1a02c3a4", "1a01ff", "1a00", "1a0261", "1a", "1a80", "22020805", "220408051201",
    "2200", "2201ff", "28012802", "82010161", "820101618201016d", "fa7f020805", "f8ffffff0f05", "f8ffffff1f05", "0001",
    "0901020304050607080801", "0d010203040801", "0d0102", "090102", "0b", "0c", "0e", "0f", "7801", "7a0161", "0a0161",
    "1801", "2001", "2a0101", "08010802", "808080808001", "80808080808080808001", "8080808080808080808001",
]  # fmt: skip
REQUEST = {
    "type": messages.DUMP, "opts": {"pid": 5, "leave_running": True, "ext_mnt": [{"key": "k", "val": "v"}],
        "external": ["a", "b"], "log_file": None, "config_file": "f"}, "keep_open": False,
}  # fmt: skip
CODING: dict[str, tuple[Call, list[Any]]] = {
    "protobuf.decode": (lambda text: protobuf.decode(TABLE, bytes.fromhex(text)), ENCODED),
    "protobuf.encode": (
        lambda values: protobuf.encode(TABLE, values).hex(),
        [{}, {"number": 0}, {"number": 127}, {"number": 128}, {"number": -1}, {"number": 1 << 63}, {"number": None},
         {"flag": True}, {"flag": False}, {"words": "a\u00e4\udcff"}, {"words": ""}, {"words": "x" * 128},
         {"inner": {"a": 1}}, {"inner": {}}, {"many": [1, 300]}, {"many": []}, {"texts": ["a", ""]},
         {"inners": [{"b": "x"}, {}]}, {"far": 1}, {"other": 1}],
    ),
    "protobuf.varint": (lambda value: protobuf.varint(value).hex(), [0, 1, 127, 128, 255, 16383, 16384, 1 << 35]),
    "protobuf.read_varint": (
        lambda text, at: protobuf.read_varint(bytes.fromhex(text), at),
        [("05", 0), ("8001", 0), ("008001", 1), ("80", 0), ("", 0), ("80" * 9 + "01", 0), ("80" * 10, 0),
         ("ff" * 9 + "7f", 0), ("80" * 9 + "8001", 0)],
    ),
    "protobuf.read_value": (
        lambda wire, text: protobuf.read_value(bytes.fromhex(text), 0, wire),
        [(wire, text) for wire in range(8) for text in ("02616263", "0102030405060708", "01020304", "05", "")],
    ),
    "messages.request": (lambda values: protobuf.encode(messages.REQUEST, values).hex(), [REQUEST]),
    "messages.response": (
        lambda text: protobuf.decode(messages.RESPONSE, bytes.fromhex(text)),
        ["080110012a060a0173100538024a0161", "52080804100122016e2803", "4204080110002202082a"],
    ),
}  # fmt: skip

# -- mounts without a system -----------------------------------------------------------------------


def bind(destination: str, source: str = "/s", *options: str, kind: str = "bind") -> dict[str, Any]:
    """A bind mount."""
    return {"destination": destination, "source": source, "type": kind, "options": list(options)}


def of(*entries: dict[str, Any], **linux: Any) -> mounts.Mounts:
    """The mounts of a configuration."""
    config: Any = {"mounts": list(entries), "linux": linux}
    return mounts.Mounts(config, "/bundle")


def spaces(*kinds: str) -> list[dict[str, str]]:
    """Namespaces; KIND=PATH is one by path."""
    return [{"type": kind, "path": path} if path else {"type": kind} for kind, _, path in
            (one.partition("=") for one in kinds)]  # fmt: skip


def placed(one: mounts.Mounts) -> list[str]:
    """Bind mounts, a line each."""
    return [f"{index} {at} {source} recursive={flags.recursive}" for index, at, source, flags in one.binds()]


NOTIFY = {"defaultAction": "SCMP_ACT_NOTIFY"}
TMPFS = {"destination": "/t/", "type": "tmpfs"}
PLAIN: dict[str, tuple[Call, list[Any]]] = {
    "mounts.init": (
        lambda config: (lambda one: (one.linux, one.tmpfs, one.bundle))(mounts.Mounts(config, "/b")),
        [{}, {"mounts": None}, {"mounts": [TMPFS, {"destination": "/a"}]}, {"linux": {"a": 1}}],
    ),
    "mounts.namespace": (
        lambda kinds: [of(namespaces=spaces(*kinds)).namespace(kind) for kind in ("user", "mount")],
        [([],), (["user"],), (["mount=/m"],), (["user", "mount"],)],
    ),
    "mounts.no namespaces": (lambda linux: of(**linux).namespace("user"), [{}, {"namespaces": None}]),
    "mounts.binds": (
        lambda *entries: placed(of(*entries)),
        [(), (bind("/a"), bind("/b/../c", "s", "rbind")), (bind("/a", "/s", "bind", kind=""),), (TMPFS,),
         (bind("/a", "/s", "remount"),), ({"destination": "/a", "type": "bind", "source": "x"},),
         ({"destination": "/a"},)],
    ),
    "mounts.hierarchies": (
        lambda kinds, *types: of(*({"destination": f"/{t}//x", "type": t} for t in types),
                                 namespaces=spaces(*kinds)).hierarchies(),
        [([], "cgroup", "cgroup2", "proc"), (["cgroup"], "cgroup")],
    ),
    "mounts.nodes": (
        lambda kinds, *paths: of(devices=[{"path": path} for path in paths], namespaces=spaces(*kinds)).nodes(),
        [([],), ([], "/dev/a"), (["user"],), (["user"], "/dev/null", "/dev/b//c")],
    ),
    "mounts.no devices": (lambda linux: of(**linux).nodes(), [{}, {"devices": None}]),
    "mounts.refuse": (
        lambda entries, linux: of(*entries, **linux).refuse(),
        [((), {"namespaces": spaces("mount", *more)} | rest) for more, rest in (
            ((), {}), (("cgroup",), {}), (("cgroup=/c",), {}), (("user", "cgroup=/c"), {}),
            (("network",), {"netDevices": {"e": {}}}), (("network=/n",), {"netDevices": {"e": {}}}),
            ((), {"netDevices": {"e": {}}}), (("network",), {"netDevices": {}}), ((), {"seccomp": NOTIFY}),
            ((), {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}), ((), {"seccomp": None}))]
        + [((), {}), ((), {"namespaces": spaces("user")}), ((bind("/a"), bind("/a", "/s", "idmap")),
            {"namespaces": spaces("mount")})],
    ),
    "mounts.outermost": (mounts.outermost, [([],), (["/a"],), (["/a/", "/a/b", "/ab"],), (["/b", "/a"],), (["/"],),
                                            (["/a/b", "/a"],)]),
    "mounts.below": (
        lambda path, paths: mounts.below(path, mounts.outermost(paths)),
        [(path, paths) for path in ("/a", "/a/b", "/ab", "/b/c/d", "/")
         for paths in ([], ["/a"], ["/a", "/b/c"], ["/"])],
    ),
    "mounts.External": (
        lambda *steps: external(steps),
        [(), (("a", "1"),), (("a", "1"), ("b", "2"), ("a", "3")), (("a", "1"), ("a",)), (("a",),)],
    ),
}  # fmt: skip


def external(steps: tuple[tuple[str, ...], ...]) -> list[dict[str, str]]:
    """The field of a request after these steps: a name and its value, or a name to drop."""
    one = mounts.External()
    for name, *value in steps:
        if value:
            one[name] = value[0]
        else:
            one.drop(name)
    return one.request()


RESULTS = CODING | PLAIN


@pytest.mark.parametrize("name", RESULTS)
def test_results(name: str) -> None:
    call, cases = RESULTS[name]
    transcript.compare("checkpoint_tables", name, results(call, cases))


# -- the calls for mounts --------------------------------------------------------------------------


class Each(By):
    """A result that a function has for each call."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.call = call

    def of(self, args: tuple[Any, ...]) -> Any:
        return self.call(*args)


def resolved(root: int, path: str) -> Any:
    """A path in the root filesystem; what is "bad" cannot be opened."""
    return failed(errno.ELOOP) if "bad" in path else f"/r{path}"


def at(point: str, number: int = 1, *, private: bool = False) -> Any:
    """A mount."""
    return SimpleNamespace(point=point, id=number, private=private)


def info(mode: int = 0o040755, dev: int = 1, ino: int = 2) -> Any:
    """What stat(2) says."""
    return SimpleNamespace(st_mode=mode, st_dev=dev, st_ino=ino)


SYSTEM: dict[str, Any] = {
    "fs.salted": Each(lambda name: name), "rootfs.resolved": Each(resolved), "rootfs.kind": By({"/d": "dir", None:
        "file"}),
    "mountinfo.read": [at("/r/rec/x"), at("/y")], "posix.stat": info(), "posix.fstat": info(), "posix.open": 60,
    "posix.readlink": "/host/dir/sub", "fs.mount_id": 1, "posix.statvfs": SimpleNamespace(f_flag=0),
    "rootfs.open_root": 50, "fs.write_new": None, "native.mount": None, "native.unmount": None, "posix.mkdir": None,
}  # fmt: skip
FILE = info(0o100644)


def host() -> HostFacts:
    """A host with a hierarchy of cgroups."""
    facts = HostFacts()
    facts.cgroup2_mount, facts.kernel = "/cg", (6, 8)
    return facts


def staging(name: str, *args: Any) -> Callable[[World], Any]:
    """A call of a method; "$mounts" is the configuration of the case."""

    def call(w: World) -> Any:
        w.answers["rootfs.Walk"] = w.spy("walk", fd=70)
        out = mounts.External()
        given = [out if arg == "$out" else arg() if callable(arg) else arg for arg in args]
        found = getattr(of(*w.extra.get("mounts", ()), **w.extra.get("linux", {})), name)(*given)
        return (found, out.request()) if out.entries else found

    return call


def with_(*entries: dict[str, Any], **linux: Any) -> dict[str, Any]:
    """A case with this configuration."""
    return {"WITH": {"mounts": entries, "linux": linux}}


MIXED = [bind("/a"), bind("/rec", "dir", "rbind", "ro"), TMPFS, bind("/b", "/s", "ro", "nosuid")]
USER = spaces("user", "mount")
ALL: dict[str, Any] = {
    "namespaces": spaces("mount"), "devices": [{"path": "/dev/x"}], "maskedPaths": ["/d", "/f"],
}  # fmt: skip
HIERARCHY = {"destination": "/sys/fs/cgroup", "type": "cgroup"}
STAGE: dict[str, Row] = {
    "dumped": (staging("dumped", 50, 41), [
        with_(), with_(*MIXED, HIERARCHY, **ALL), with_(bind("/bad")), with_(maskedPaths=None),
        with_(*MIXED) | {"mountinfo.read": failed(errno.ENOENT)},
        with_(bind("/rec", "/s", "rbind"), {"destination": "/r/rec/x", "type": "tmpfs"}),
    ]),
    "restored": (staging("restored", 50, "/top/c1/criu/places", host, "/n"), [
        with_(), with_(*MIXED, HIERARCHY, **ALL), with_(maskedPaths=["/bad"]) | {"posix.mkdir": None},
        with_(bind("/a")) | {"mountinfo.read": failed(errno.EIO)}, {"native.mount": failed(errno.EPERM)},
    ]),
    "stage_binds": (staging("stage_binds", 50, "/st", host, "$out"), [
        with_(), with_(*MIXED), with_(*MIXED, namespaces=USER), with_(bind("/bad")),
        with_(*MIXED) | {"mountinfo.read": Answers([[at("/host", 1)], [at("/st/1/x"), at("/st/1"), at("/st/0/y")]])},
        with_(bind("/a", "/s", "rbind"), namespaces=USER) | {"mountinfo.read": [at("/st/0/x"), at("/st/0/x/y")]},
        *(with_(bind("/a", "/s", *options), namespaces=USER) | {"posix.statvfs": SimpleNamespace(f_flag=flags)}
          for options in ((), ("ro",), ("rw",), ("exec", "nodev"), ("relatime",)) for flags in (0, 15)),
    ]),
    "make_places": (staging("make_places", 50, "/scratch"), [
        with_(), with_(bind("/a")), with_() | {"posix.mkdir": failed(errno.EEXIST)},
        with_() | {"native.mount": failed(errno.EPERM)}, with_() | {"rootfs.open_root": failed(errno.EACCES)},
    ]),
    "make_each_place": (staging("make_each_place", 50), [
        with_(*MIXED, HIERARCHY, bind("/t/below"), {"destination": "/p", "type": "proc"}, bind("/c", "/s", "remount")),
        with_(bind("/sys", "/s", kind="cgroup2")), with_(bind("/a")) | {"posix.stat": FILE},
    ]),
    "make_place": (staging("make_place", 50, 3, "/a/b", "/s"), [
        {}, {"posix.stat": FILE}, {"posix.stat": failed(errno.ENOENT)}, {"walk.go": failed(errno.ELOOP)},
        {"walk.go": OSError("none")}, {"native.mount": failed(errno.EPERM)},
    ]),
    "make_place without a source": (staging("make_place", 50, 3, "/a/b", ""), [{}]),
}  # fmt: skip


def hosts(w: World) -> Any:
    """The mounts of the host."""
    return mounts.HostMounts()


FUNCTIONS: dict[str, Row] = {
    "submounts": (alone(mounts, "submounts", "/st"), [
        {"mountinfo.read": points} for points in (
            [], [at("/st"), at("/st/0"), at("/st/0/a"), at("/st/0/a/b"), at("/st/1/c"), at("/stx/0/a"),
                 at("/x/st/0/a")])
    ]),
    "any_below": (lambda w: [mounts.HostMounts().any_below(path) for path in ("/a", "/a/b", "/ab", "/z", "/r/rec")], [
        {}, {"mountinfo.read": [at("/a/b", 1), at("/ab", 2), at("/a", 3)]}, {"mountinfo.read": []},
    ]),
    "bind": (alone(mounts, "bind", "/p", "/s", b"/t", 0x4000), [{}, {"native.mount": failed(errno.EPERM)}]),
    "mount_empty": (alone(mounts, "mount_empty", "/e"), [{}, {"native.mount": failed(errno.EPERM)}]),
    "staged": (alone(mounts, "staged", "/st", "n", "/s", "/p", 5, keep="is_directory"), [
        {}, {"posix.stat": FILE}, {"posix.stat": failed(errno.ENOENT)}, {"posix.mkdir": failed(errno.EEXIST)},
        {"posix.stat": FILE, "fs.write_new": failed(errno.ENOSPC)},
    ]),
    "surrounded": (alone(mounts, "surrounded", hosts, "/place", "/s", "/p"), [
        {"mountinfo.read": points} | case
        for points, case in (
            ([at("/host")], {}), ([at("/")], {}), ([], {}), ([at("/host", private=True)], {}),
            ([at("/host/dir/sub")], {}),
            ([at("/host"), at("/host/dir/sub/x", 2)], {}), ([at("/hos")], {}), ([at("/host/")], {}),
            ([at("/host")], {"posix.open": failed(errno.ENOENT)}), ([at("/host")], {"posix.stat": info(ino=3)}),
            ([at("/host")], {"posix.stat": info(dev=3)}), ([at("/host")], {"fs.mount_id": 2}),
            ([at("/host")], {"bind": SysError("/p", "mount", 1)}),
            ([at("/host")], {"posix.stat": failed(errno.ENOENT)}),
            ([at("/host")], {"posix.readlink": failed(errno.EACCES)}))
    ]),
    "remount": (alone(mounts, "remount", "/p", "$flags"), [
        *({"WITH": {"flags": flags}} for flags in (0, 1, 2, 4, 8, 15, 16, 0x200000, 0x20000F)),
        {"WITH": {"flags": 1}, "native.mount": failed(errno.EPERM)},
    ]),
    "attributes": (alone(mounts, "attributes", "/p"), [
        {"posix.statvfs": SimpleNamespace(f_flag=flags)} for flags in (0, 1, 2, 4, 8, 15, 16, 0x1000, 0x2000, 0x3FFF)
    ]),
    "is_directory": (alone(mounts, "is_directory", "/p"), [
        {"posix.stat": info(mode)} for mode in (0o040000, 0o100000, 0o120777, 0o060000, 0o020000)
    ]),
}  # fmt: skip
TABLES: Tables = [("pyrunc.checkpoint.mounts", STAGE | FUNCTIONS, SYSTEM, ())]


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("checkpoint_tables", f"calls of mounts.{name}", calls_of(module, name, TABLES))


def test_an_error_of_ours_is_left_alone() -> None:
    with pytest.raises(PyruncError, match="/linux/namespaces: CRIU needs a mount namespace"):
        of().refuse()
