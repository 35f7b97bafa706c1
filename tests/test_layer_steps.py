"""What a session does outside its conversation, and what an entry of a layer does, as in test_steps.py.
golden/layer_steps.txt has the tables (PYRUNC_UPDATE_GOLDEN=1 rewrites them; then review the diff).
"""

from __future__ import annotations

import errno
import io
import itertools
import tarfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc import handshake
from pyrunc.errors import PyruncError, SysError
from pyrunc.fs import salted
from pyrunc.image import layer, tree
from pyrunc.image.errors import ImageError
from pyrunc.launch import session
from spies import Answers
from test_image_steps import Entry
from test_session_steps import OPTS, PLAN, Loose, Row, talking
from test_steps import Tables, World, calls_of, failed, rows

# -- a session -------------------------------------------------------------------------------------

TALK: dict[str, Any] = {
    "poll": None, "has_ended": False, "premature_end": PyruncError("ended"), "no_answer": PyruncError("no answer"),
    "where": "WHERE", "plan.encode": b"blob", "files.memfd_sealed": 71, "open_slot": Answers([72, 73]), "catch_signals":
        spies.Spy("interrupts", [], {}), "of_init": PyruncError("of init"), "step_error": PyruncError("the step"),
    "steps": None, "raise_interrupted": None, "check_spawned": None, "setting": "SETTING", "explain.program": "why",
    "faults.error": PyruncError("fault"), "state.root_dir": "/root", "Interrupts": "INTERRUPTS",
}  # fmt: skip


def executed(w: World) -> Any:
    """execute(), and the session after it."""
    w.answers["catch_signals"] = w.spy("interrupts")
    one = w.made(Loose, "execute", stuck=w.extra.get("stuck", ""), interrupts=None)
    return one.execute(), one.interrupts


def handled(w: World) -> Any:
    """The handlers by name."""
    one = w.made(Loose, "*")
    return {name: call.__name__ for name, call in session.InitSession.handlers(one).items()}


def raised(w: World) -> Any:
    """The methods that a session has to define."""
    one = w.made(Loose, "*")
    return [spies.record(getattr(session.InitSession, name), (one, *args), [])
            for name, *args in (("steps", None), ("close",), ("setting",))]  # fmt: skip


TERMINALS = [
    {"WITH": {"terminal": terminal, "detached": detached, "@opts": OPTS["@opts"] | {"console_socket": socket}}}
    for terminal in (True, False) for detached in (True, False) for socket in ("", "/s")
]  # fmt: skip
POLLS: tuple[Any, ...] = ([1], [[], 1], [[]], [[], [], [1]])
WARN = SimpleNamespace(type=handshake.WARN, step=1)
ERRORS = [OSError(2, "x", "/path"), OSError(2, "x", b"/p\xff"), OSError(2, "x"), OSError("none"), OSError(2, "x", "")]
CONVERSATION: dict[str, Row] = {
    "execute": (executed, [
        {"steps": error, "WITH": {"stuck": stuck}, "check_spawned": spawned}
        for error in (None, PyruncError("p"), failed(errno.EIO), OSError("none"), ValueError("v"), KeyboardInterrupt())
        for stuck, spawned in (("", None), ("a child stays", None), ("a child stays", SysError("init", "execve", 2)))
    ] + [{"steps": ValueError("v"), "raise_interrupted": PyruncError("interrupted")}]),
    "abandon": (talking("abandon"), [{}]),
    "handlers": (handled, [{}]),
    "to be defined": (raised, [{}]),
    "check_terminal": (talking("check_terminal", "$terminal", "$detached"), TERMINALS),
    "catch_signals": (talking("catch_signals"), [{}]),
    "open_store": (talking("open_store"), [{"WITH": {"@opts": OPTS["@opts"] | {"root": "/r"}}}]),
    "await_clone": (talking("await_clone", "$timeout", "@interrupts"), [
        {"WITH": {"timeout": timeout}, "poller.poll": Answers(polls), "has_ended": ended}
        for timeout in (-1, 0, 500, 501, 1000) for polls in POLLS for ended in (False, True)
        if timeout >= 0 or polls != [[]] or ended
    ]),
    "no_answer": (talking("no_answer"), [{}, {"SELF": {"init_pid": 0}}]),
    "send_plan": (talking("send_plan"), [
        {}, {"send_opened": PyruncError("gone")}, {"fill_filter": PyruncError("profile")},
    ]),
    "send_opened": (talking("send_opened", b"blob"), [
        {"WITH": {"@plan": PLAN | {"fds": fds}}} | case
        for fds in ([], [("ns", "/a", "/o"), ("console", "", "/p")])
        for case in ({}, {"files.memfd_sealed": failed(errno.EMFILE)}, {"open_slot": Answers([72,
            failed(errno.ENOENT)])},
                     {"send": PyruncError("gone")})
    ]),
    "on_warn": (talking("on_warn", WARN), [{"SELF": {"warnings": count}} for count in (0, 64, 65, 66)]),
    "step_error": (talking("step_error", WARN), [{}]),
    "explain": (talking("explain", "sh", 2), [{}]),
    "muted": (lambda w: [talking("muted", status)(w) for status in (0, 1 << 8, 4, 5, 9, 0x84)], [
        {"WITH": {"@plan": PLAN | {"seccomp": profile}}} for profile in (None, {"x": 1})
    ]),
    "write_pid_file": (lambda w: session.write_pid_file("/pid", 41), [{}, {"fs.replace_file": failed(errno.EACCES)}]),
    "as_sys_error": (lambda w: [str(session.as_sys_error(error)) for error in ERRORS], [{}]),
    "describe": (lambda w: [session.describe(SimpleNamespace(type=kind, step=step))  # type: ignore[arg-type]
                            for kind in sorted(handshake.NAMES) for step in (0, 7, handshake.NO_STEP)], [{}]),
    "options": (lambda w: spies.state_of(session.SessionOptions("c1", w.spy("log"))), [{}]),
}  # fmt: skip

# -- an entry of a layer ---------------------------------------------------------------------------

KINDS: dict[str, Any] = {
    "file": tarfile.REGTYPE, "directory": tarfile.DIRTYPE, "link": tarfile.LNKTYPE, "symlink": tarfile.SYMTYPE,
    "fifo": tarfile.FIFOTYPE, "char": tarfile.CHRTYPE, "block": tarfile.BLKTYPE, "odd": b"Z",
}  # fmt: skip
DIRECTORY, REGULAR = (SimpleNamespace(st_mode=mode, st_dev=1, st_ino=2) for mode in (0o040755, 0o100644))
LAYER: dict[str, Any] = {
    "os.open": 60, "os.stat": DIRECTORY, "tree.fd": 50, "_times": (1, 2), "os.makedev": 77, "tree.remove": True,
        "os.close":
        None, "tree.max_depth": 9, "write_all": None,
}  # fmt: skip


def entry(kind: str = "file", *, name: str = "a/b", link: str = "t/x", size: int = 3) -> tarfile.TarInfo:
    """An entry."""
    found = Entry(name)
    found.type, found.linkname, found.size, found.devmajor, found.devminor = KINDS[kind], link, size, 5, 6
    return found


LIMITS: Any = SimpleNamespace(header=100, name=20, depth=4, entries=3, bytes=10)


def applying(w: World, own: str) -> Any:
    """A layer that is being applied."""
    totals = w.spy("totals")
    return w.made(layer.Applier, own, tree=w.spy("tree", root=w.spy("root"), max_depth=9), limits=LIMITS, totals=totals,
                  owners=True, devices=w.extra.get("devices", True), warnings=w.spy("warnings"))  # fmt: skip


def parent_of(w: World, **attributes: Any) -> Any:
    """A directory with children."""
    return w.spy(
        "parent",
        children={salted("name"): tree.Directory("old", None)} if w.extra.get("known") else {},
        made=w.extra.get("made", set()),
        **attributes,
    )


def named(w: World) -> Any:
    """What `_entry` makes of a name and a kind."""
    return applying(w, "_entry")._entry(w.spy("tar"), w.extra["entry"])


def content(w: World) -> Any:
    """_file() of an entry with this content."""
    found = w.extra["entry"]
    if w.extra.get("sparse"):
        found.sparse = [(0, 1)]
    w.answers["tar.extractfile"] = SimpleNamespace(read=spies.noting("read", w.notes, w.answers))
    return applying(w, "_file")._file(w.spy("tar"), w.spy("parent"), "name", found)


def entries(w: World) -> Any:
    """_entries(), and what may be read after each."""
    stream = w.spy("stream", delivered=1000)
    found = [*w.extra["entries"], None]
    tar = SimpleNamespace(next=lambda: found.pop(0))
    return applying(w, "_entries")._entries(tar, stream)


def whole(w: World) -> Any:
    """apply() of a stream."""
    return applying(w, "apply").apply(w.spy("stream", delivered=w.extra.get("delivered", 0)))


class Short(tree.Directory):
    """A directory that is short in a table: its keys are different in each run."""

    called = "parent"


def directory(w: World) -> Any:
    """_directory(), and the children after it."""
    parent = parent_of(w, parent=None)
    deep = w.extra.get("deep", 0)
    if deep:
        parent = None
        for number in range(deep + 1):
            parent = Short(f"d{number}", parent)
    applying(w, "_directory")._directory(parent, "name", entry("directory"))
    child = parent.children[salted("name")]
    return child.name, child.mtime, len(parent.children)


TAR_ERRORS = (tarfile.ReadError("empty file"), tarfile.ReadError("bad"), tarfile.HeaderError("h"), EOFError("e"),
              UnicodeDecodeError("utf-8", b"x", 0, 1, "r"), ValueError("v"), OverflowError("o"),
                  ImageError("i"))  # fmt: skip
APPLY: dict[str, Row] = {
    "apply": (whole, [
        {}, *({"_entries": error, "WITH": {"delivered": delivered}} for error in TAR_ERRORS for delivered in (0, 5)),
        {"tarfile.open": tarfile.ReadError("empty file")},
    ]),
    "entries": (entries, [
        *({"WITH": {"entries": [entry(kind, size=size)]}} for kind in ("file", "symlink") for size in (5, -5)),
        *({"WITH": {"entries": [entry(), entry()]}, "_entry": error}
          for error in (failed(errno.ENOSPC), OSError("none"), ImageError("i"), tarfile.ReadError("r"))),
    ]),
    "entry": (named, [
        {"WITH": {"entry": entry(kind, name=name)}}
        for kind, name in (("directory", "./"), ("file", "/"), ("file", "a"), ("directory", "a/b/"), ("link", "a/b"),
                           ("symlink", "../a"), ("file", ".wh.x"), ("file", "a/.wh..wh..opq"), ("char", "d"))
    ]),
    "whiteout": (lambda w: applying(w, "_whiteout")._whiteout(["a", w.extra["name"]]), [
        *({"WITH": {"name": name}, "tree.lookup": found}
          for name in (".wh.", ".wh..wh..opq", ".wh.x", ".wh..", ".wh...", ".wh..wh.plnk", ".wh....")
          for found in (spies.Spy("parent", [], {}, made=set()), FileNotFoundError(), NotADirectoryError(),
                        failed(errno.EIO))),
        *({"WITH": {"name": ".wh.x"}, "tree.lookup": spies.Spy("parent", [], {}, made={salted("x")}),
            "tree.child": child}
          for child in (None, "CHILD")),
    ]),
    "directory": (directory, [
        {}, {"os.stat": REGULAR}, {"os.stat": FileNotFoundError()}, {"os.stat": failed(errno.EIO)},
        *({"WITH": {"deep": deep}} for deep in (7, 8, 9)),
        {"WITH": {"known": True}},
    ]),
    "hard_link": (lambda w: applying(w, "_hard_link")._hard_link(w.spy("parent"), "name", w.extra["entry"]), [
        {"WITH": {"entry": entry("link", link=link)}, "os.stat": Answers(stats)} | case
        for link, stats, case in (
            ("/", [REGULAR], {}), ("t/x", [DIRECTORY], {}), ("t/x", [REGULAR, REGULAR], {}),
            ("t/x", [REGULAR, SimpleNamespace(st_mode=0o100644, st_dev=2, st_ino=2)], {}),
            ("t/x", [REGULAR, SimpleNamespace(st_mode=0o100644, st_dev=1, st_ino=3)], {}),
            ("t/x", [REGULAR, FileNotFoundError()], {}), ("x", [FileNotFoundError()], {}),
            ("t/x", [REGULAR], {"tree.lookup": NotADirectoryError()}), ("x", [REGULAR], {"tree.lookup": failed(5)}),
        )
    ]),
    "other": (lambda w: applying(w, "_other")._other(w.spy("tar"), w.spy("parent"), "name", w.extra["entry"]), [
        {"WITH": {"entry": entry(kind, link=link), "devices": devices}, "tree.remove": removed}
        for kind, link, devices, removed in (
            *((kind, "t", devices, removed) for kind in KINDS for devices in (True, False) for removed in (True,
                False)),
            ("symlink", "", True, True), ("symlink", "a\0b", True, True))
    ]),
    "file": (content, [
        {"WITH": {"entry": entry(size=size), "sparse": sparse}, "read": Answers(reads)} | case
        for size, sparse, reads, case in (
            (3, False, [b"abc", b""], {}), (5, False, [b"abc", b"de", b""], {}), (4, False, [b"abc", b""], {}),
            (6, True, [b"\0\0\0", b"abc", b""], {}), (6, True, [b"abc", b"\0\0\0", b""], {}), (3, False, [b"\0\0\0",
                b""], {}),
            (3, False, [b"abc", b""], {"write_all": failed(errno.ENOSPC)}),
        )
    ]),
}  # fmt: skip
TABLES: Tables = [
    ("pyrunc.launch.session", CONVERSATION, TALK, ("has_ended", "raise_interrupted", "where", "of_init")),
    ("pyrunc.image.layer", APPLY, LAYER, ("_times", "write_all")),
]


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    lines = calls_of(module, name, with_poll(name))
    transcript.compare("layer_steps", f"{module.removeprefix('pyrunc.')}.{name}", lines)


def with_poll(name: str) -> Tables:
    """The tables; await_clone() imports select inside."""
    if name != "await_clone":
        return TABLES
    call, cases = CONVERSATION["await_clone"]

    def polling(w: World) -> Any:
        import select

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(select, "poll", lambda: w.spy("poller"))
            return call(w)

    module, table, common, functions = TABLES[0]
    return [(module, table | {"await_clone": (polling, cases)}, common, functions), *TABLES[1:]]


# -- functions without a system --------------------------------------------------------------------


def outcome(call: Callable[..., object], *args: object) -> str:
    """A result, or the error."""
    try:
        return spies.told(call(*args))
    except ImageError as error:
        return f"ImageError: {error}"


def test_names_and_attributes_of_entries() -> None:
    names = [
        "",
        "a",
        "/a//b/./c/",
        "../../a",
        "a/../b",
        "a/../..",
        "a\0b",
        "n" * 20,
        "n" * 21,
        "a/b/c/d",
        "a/b/c/d/e",
        "a/..",
    ]
    lines = [f"{name!r}: {outcome(layer.split, name, LIMITS)}" for name in names]
    headers: list[dict[str, str]] = [
        {}, {"SCHILY.xattr.user.a": "v\udcff", "other": "x", "SCHILY.xattr.": "empty"},
            {"LIBARCHIVE.xattr.user.a": "dg"},
        {"LIBARCHIVE.xattr.user.a": "dmFs"}, {"LIBARCHIVE.xattr.user.a": "d"}, {"LIBARCHIVE.xattr.user.a": "*"},
        {"SCHILY.xattr.user.a": "first", "LIBARCHIVE.xattr.user.a": "dg"}, {"LIBARCHIVE.xattr.user.a": ""},
    ]  # fmt: skip
    for header in headers:
        one = entry()
        one.pax_headers = header
        lines.append(f"{header}: {outcome(layer.xattrs, one)}")
    times: list[Any] = [None, "0", "5", "-5", "5.5", "-5.25", "5.", ".5", "", "x", "5.x", "1e5", "-", "9" * 12,
        "9" * 13,
                        "1.1234567899", "5.000000001", "\u0665"]  # fmt: skip
    for mtime, atime in itertools.product(times, (None, "7.5", "x")):
        one = entry()
        one.mtime = 3
        one.pax_headers = {name: text for name, text in (("mtime", mtime), ("atime", atime)) if text is not None}
        lines.append(f"{mtime!r} {atime!r}: {outcome(layer._times, one)}")
    for seconds in (2**40, 2**40 - 1, -(2**40), 1 - 2**40, 1.5, float("nan"), float("inf")):
        lines.append(f"{seconds}: {outcome(layer._nanoseconds, None, seconds)}")
    for uid, gid in itertools.product((-1, 0, 5, 0xFFFFFFFE, 0xFFFFFFFF), repeat=2):
        one = entry()
        one.uid, one.gid = uid, gid
        lines.append(f"{uid}:{gid}: {outcome(layer._check_ids, one)}")
    transcript.compare("layer_steps", "names and attributes", lines, cut=True)


def test_totals_and_warnings() -> None:
    lines = []
    for sizes in ([0, 0, 0, 0], [10], [11], [5, 5, 1], [5, 5]):
        totals = layer.Totals(LIMITS)
        lines += [f"{sizes}", *(outcome(totals.entry, size) for size in sizes), f"{totals.entries} {totals.bytes}"]
    warnings = layer.Warnings()
    for text in ("one", "two", "one"):
        warnings.add(text)
    lines += [*warnings.lines(), *layer.Warnings().lines()]
    one = layer.Applier("TREE", layer.Totals(LIMITS), warnings, owners=True, devices=False)  # type: ignore[arg-type]
    lines.append(spies.told([one.tree, one.owners, one.devices, one.limits is LIMITS, one.warnings is warnings]))
    transcript.compare("layer_steps", "totals and warnings", lines)


def test_what_write_all_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    sizes = [3, 1, 100]

    def write(fd: int, data: memoryview) -> int:
        return out.write(bytes(data[: sizes.pop(0)]))

    monkeypatch.setattr(layer, "os", SimpleNamespace(write=write))
    layer.write_all(5, b"some bytes")
    assert out.getvalue() == b"some bytes"
    layer.write_all(5, b"")
