"""What images ask of the system, as in test_steps.py.
golden/image_steps.txt has the tables.
"""

from __future__ import annotations

import errno
import tarfile
import zlib
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc.errors import PyruncError
from pyrunc.image import accounts, blobs, launch, layer
from pyrunc.image.errors import ImageError
from pyrunc.plan import tools
from spies import Answers
from test_session_steps import Row, both
from test_steps import Tables, World, calls_of, failed, rows

# -- an entry of a layer ---------------------------------------------------------------------------

APPLY: dict[str, Any] = {
    "os.open": 60, "os.listxattr": ["user.old", "security.selinux"], "os.stat": SimpleNamespace(st_mode=0o100644),
    "os.readlink": "/target", "tree.fd": 50, "_check_ids": None,
}  # fmt: skip


class Entry(tarfile.TarInfo):
    """An entry that is short in a table."""

    called = "entry"


def entry(kind: bytes = tarfile.REGTYPE, *, uid: int = 0, attributes: tuple[str, ...] = ()) -> tarfile.TarInfo:
    """An entry with set-user-ID, and a file type that must not reach chmod(2)."""
    found = Entry("name")
    found.type, found.uid, found.gid, found.mode = kind, uid, uid, 0o104755
    found.pax_headers = {f"SCHILY.xattr.{name}": "value" for name in attributes}
    return found


def applying(w: World, own: str) -> Any:
    """A layer that is being applied."""
    return w.made(
        layer.Applier, own, tree=w.spy("tree"), owners=w.extra.get("owners", True), warnings=w.spy("warnings")
    )


ENTRIES = [
    entry(kind, uid=uid, attributes=attributes)
    for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE)
    for uid, attributes in ((0, ()), (5, ("user.a",)))
]
LAYER: dict[str, Row] = {
    "attributes": (lambda w: applying(w, "_attributes")._attributes("parent", "name", w.extra["entry"]), [
        {"WITH": {"kind": one.type, "uid": one.uid, "entry": one, "owners": owners}}
        for one in ENTRIES for owners in (True, False)
    ]),
    "owner_and_mode": (lambda w: applying(w, "_owner_and_mode")._owner_and_mode(60, w.extra["entry"]), [
        {"WITH": {"uid": uid, "entry": entry(uid=uid), "owners": owners}} for uid in (0, 5) for owners in (True, False)
    ]),
    "xattrs": (lambda w: applying(w, "_xattrs")._xattrs(60, entry(), clear=w.extra["clear"]), [
        {"WITH": {"clear": clear}, "os.removexattr": result}
        for clear in (True, False)
        for result in (None, *(failed(number) for number in (errno.EPERM, errno.ENODATA, errno.ENOTSUP, errno.EIO)))
    ]),
    "set_xattrs": (lambda w: applying(w, "_set_xattrs")._set_xattrs(60, entry(attributes=("user.a",
        "security.selinux"))), [
        {"os.setxattr": result}
        for result in (None, *(failed(number) for number in (errno.EPERM, errno.ENOTSUP, errno.EINVAL, errno.EIO)))
    ]),
}  # fmt: skip

# -- files of the image, and its bundle ------------------------------------------------------------


def reading(w: World) -> bytes:
    """The read of a file in the image."""
    found: bytes = accounts.read_in_root(w.spy("tree"), "etc/passwd")
    return found


REGULAR, LINK, FIFO = (SimpleNamespace(st_mode=mode) for mode in (0o100644, 0o120777, 0o010644))
ACCOUNTS: dict[str, Row] = {
    "read_in_root": (reading, [
        {"os.stat": Answers(kinds), "os.readlink": target, "os.open": FileNotFoundError(errno.ENOENT, "x")}
        for kinds, target in (([REGULAR], ""), ([LINK, REGULAR], "/a/b"), ([LINK, REGULAR], "b"), ([FIFO], ""),
            ([LINK], "l"))
    ] + [{"tree.lookup": NotADirectoryError(errno.ENOTDIR, "x")}, {"os.stat": failed(errno.EACCES)}]),
}  # fmt: skip
PULL: dict[str, Any] = {
    "sys.executable": "/python", "interpreter.FROZEN": False, "posix.environ": {b"A": b"b", b"C": b""},
        "processes.spawn_hook": 31, "posix.waitpid": (31, 0),
    "posix.waitstatus_to_exitcode": 0, "locate.store_path": "/store", "locate.absolute": "docker.io/library/x:latest",
    "posix.open": 60, "locate.find": {"chains": ["c"]}, "state.root_dir": "/root", "locate.make_bundle": "/bundle",
    "locate.overlay_options": ["lowerdir=/l"], "posix.isatty": True, "pull": 0, "_make_bundle": True,
}  # fmt: skip
IMAGE = {"image": "x"}


def options(**values: Any) -> Any:
    """The options of a container."""
    given = {
        "id": "c1",
        "root": "",
        "console_socket": "",
        "detach": False,
        "bundle": "",
        "image_bundle": "",
        "overlay": [],
    }
    return SimpleNamespace(**given | values)


def bundled(w: World) -> Any:
    """_make_bundle(), and what it has put into the options."""
    opts = options(**w.extra.get("opts", {}))
    return launch._make_bundle("/store", "ref", w.extra.get("values", IMAGE), opts, ["sh"]), vars(opts)


def prepared(w: World) -> Any:
    """prepare(), with the functions that it calls replaced."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("pull", "_make_bundle"):
            patch.setattr(launch, name, spies.noting(name, w.notes, w.answers))
        return launch.prepare(w.spy("context"), w.extra["values"], options(), ["sh"])


LAUNCH: dict[str, Row] = {
    "pull": (lambda w: launch.pull(w.spy("context", root=w.extra.get("root", "")), w.extra["values"], "/store"), [
        {"WITH": {"values": IMAGE}}, {"WITH": {"values": IMAGE, "root": "/r"}}, *(
            {"WITH": {"values": both(IMAGE, {name: value})}}
            for name, value in (("platform", "linux/arm64"), ("authfile", "/a"), ("cert-dir", "/c"), ("mirror", ["a",
                "b"]),
                                ("plain-http", True), ("pull", "always"))),
        {"WITH": {"values": IMAGE}, "processes.spawn_hook": failed(errno.ENOENT)},
        *({"WITH": {"values": IMAGE}, "posix.waitstatus_to_exitcode": code} for code in (1, -9)),
    ]),
    "prepare": (prepared, [
        {"WITH": {"values": both(IMAGE, values)}} | both(more, {})
        for values, more in (
            ({}, {}), ({"bundle": "/b"}, {}), ({"config": "/c"}, {}), ({"pull": "often"}, {}), ({"pull": "never"}, {}),
            ({"pull": "never"}, {"_make_bundle": False}), ({"pull": "always"}, {}), ({},
                {"_make_bundle": Answers([False, True])}),
            ({}, {"_make_bundle": False}), ({}, {"_make_bundle": False, "pull": 5}),
        )
    ]),
    "make_bundle": (bundled, [
        {}, {"locate.find": None}, {"posix.open": failed(errno.ENOENT)}, {"locate.make_bundle": PyruncError("full")},
        {"WITH": {"opts": {"detach": True}}}, {"WITH": {"opts": {"console_socket": "/s"}}},
        {"WITH": {"values": both(IMAGE, {"tty": False})}}, {"WITH": {"values": both(IMAGE, {"tty": True})}},
        {"posix.isatty": Answers([True, False])}, {"posix.isatty": False},
    ]),
}  # fmt: skip

# -- programs of the host in a container -----------------------------------------------------------


def joining(w: World, call: Any) -> Any:
    """A context of the compiler."""
    ctx: Any = w.spy("ctx", plan=w.spy("plan"), facts=SimpleNamespace(euid=w.extra["euid"]),
                     options=SimpleNamespace(joined=[("user", "/u"), ("mount", "/m"), ("net", "/n")],
                         tools="/t"))  # fmt: skip
    return call(ctx)


TOOLS: dict[str, Row] = {
    "join": (lambda w: joining(w, tools.join), [{"WITH": {"euid": euid}} for euid in (0, 5)]),
    "attach": (lambda w: joining(w, tools.attach), [{"WITH": {"euid": euid}} for euid in (0, 5)]),
}  # fmt: skip
TABLES: Tables = [
    ("pyrunc.image.layer", LAYER, APPLY, ("_check_ids",)),
    ("pyrunc.image.accounts", ACCOUNTS, {"tree.fd": 50, "tree.lookup().path": "etc"}, ()),
    ("pyrunc.image.launch", LAUNCH, PULL, ("flock",)),
    ("pyrunc.plan.tools", TOOLS, {"plan.fd": 9}, ()),
]


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("image_steps", f"{module.removeprefix('pyrunc.')}.{name}", calls_of(module, name, TABLES))


@pytest.mark.parametrize("wbits", [15, -15, 31])
def test_a_stream_of_zlib_is_not_gzip(wbits: int) -> None:
    packer = zlib.compressobj(wbits=wbits)
    data = packer.compress(b"text") + packer.flush()
    if wbits == 31:
        assert blobs.Gzip().feed(data) == [b"text"]
        return
    with pytest.raises(ImageError, match="not a gzip stream"):
        blobs.Gzip().feed(data)
