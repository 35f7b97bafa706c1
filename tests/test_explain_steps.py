"""What explain.py asks of the system, as in test_steps.py, and files at which its answer changes.
golden/explain_steps.txt has the results.
"""

from __future__ import annotations

import errno
import os
import posix
import select
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from pyrunc import explain, fs
from pyrunc.plan.tools import search_path
from spies import Answers
from test_explain_files import setting
from test_session_steps import Row, method
from test_steps import Tables, World, calls_of, failed, rows

DIRECTORY, LINK, FILE = (SimpleNamespace(st_mode=mode, st_uid=0, st_gid=0) for mode in (0o040755, 0o120777, 0o100644))
SYSTEM: dict[str, Any] = {
    "posix.pipe2": (6, 7), "posix.fork": 44, "posix.read": b"\xffwhy", "posix._exit": SystemExit("left"),
    "poller.poll": [(6, 1)], "program": "an answer \udcff", "posix.open": Answers([21, 22, 23, 24, 25, 26]),
    "posix.dup": Answers([20, 29]), "posix.fstat": DIRECTORY, "posix.readlink": "x", "posix.pread": b"bytes",
}  # fmt: skip


def bounded(w: World) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "poll", lambda: w.spy("poller"))
        return explain.bounded(w.spy("setting"), "/x", 2)


def tree(name: str, *args: Any) -> Any:
    """A call of a method of a `Tree` that has found nothing yet."""
    attributes = {"root": 8, "fd": -1, "path": "", "denied": "", "uid": 5, "gid": 6, "groups": {6}, "overrides": False}
    return method(explain.Tree, name, *args, own="_walk read _close find may __init__", **attributes)


SETTING = SimpleNamespace(
    ids=lambda: (5, 6), additional_gids=lambda: [7], process={"capabilities": {"effective": ["CAP_DAC_OVERRIDE"]}},
    mounts=["m"], root="/root",
)  # fmt: skip
CALLS: dict[str, Row] = {
    "bounded": (bounded, [
        {}, {"posix.fork": 0}, {"poller.poll": []}, {"processes.await_end": failed(errno.ETIMEDOUT)},
        {"posix.waitpid": failed(errno.ECHILD)}, {"posix.fork": failed(errno.EAGAIN)},
        {"posix.fork": 0, "program": failed(errno.EIO)}, {"posix.fork": failed(errno.EAGAIN), "posix.pipe2": (0, 1)},
        {"posix.fork": failed(errno.EAGAIN), "posix.pipe2": (1, 0)},
    ]),
    "Tree": (tree("__init__", "$setting"), [
        {"WITH": {"setting": SETTING}},
        {"WITH": {"setting": SimpleNamespace(**vars(SETTING) | {"process": {}})}},
        {"WITH": {"setting": SETTING}, "posix.open": failed(errno.ENOTDIR)},
    ]),
    "Tree.find": (tree("find", "/a/b"), [
        {}, {"SELF": {"fd": 0}}, {"SELF": {"fd": 1, "denied": "x"}}, {"posix.open": failed(errno.ENOENT)},
    ]),
    "Tree._walk": (tree("_walk", "$path"), [
        {"WITH": {"path": path}, "posix.fstat": Answers(found), "posix.readlink": Answers(links)}
        for path, found, links in (
            ("/a/b", [DIRECTORY], []), ("a/./b/", [DIRECTORY], []), ("/..", [DIRECTORY], []),
            ("/a/../b", [DIRECTORY], []), ("/", [DIRECTORY], []), ("/a/l/b", [DIRECTORY, LINK, DIRECTORY], ["x/./y"]),
            ("/a/l/b", [DIRECTORY, LINK, DIRECTORY], ["/x//y"]), ("/a/l", [DIRECTORY, LINK, DIRECTORY], [".."]),
        )
    ] + [
        {"WITH": {"path": "/a"}, "posix.open": failed(errno.EIO)},
        {"WITH": {"path": "/a"}, "posix.fstat": failed(errno.EIO)},
        {"WITH": {"path": "/a"}, "posix.fstat": LINK, "posix.readlink": failed(errno.EIO)},
    ]),
    "Tree.read": (tree("read", 3, 5), [
        {"SELF": {"fd": 9}, "posix.fstat": FILE}, {"SELF": {"fd": 9}},
        {"SELF": {"fd": 9}, "posix.fstat": FILE, "posix.pread": failed(errno.EIO)},
        {"SELF": {"fd": 9}, "posix.fstat": FILE, "posix.open": failed(errno.EACCES)},
    ]),
}  # fmt: skip
TABLES: Tables = [("pyrunc.explain", CALLS, SYSTEM, ("program",))]


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("explain_steps", name, calls_of(module, name, TABLES))


# -- files -----------------------------------------------------------------------------------------


def elf(wide: bool, size: int, count: int, *segments: bytes, length: int = 0, pad: int = 0) -> bytes:
    """A little-endian ELF file of machine 1 with these numbers in its header."""
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    if wide:
        head = struct.pack("<HHIQQQIHHHHHH", 3, 1, 1, 0, 64, 0, 0, 64, size, count, 0x1111, 0, 0)
    else:
        head = struct.pack("<HHIIIIIHHHHHH", 3, 1, 1, 0, 52, 0, 0, 52, size, count, 0x1111, 0, 0)
    return (ident + head + b"".join(segments)).ljust(pad, b"\0")[: length or None]


def segment(wide: bool, kind: int, offset: int, size: int) -> bytes:
    """A program header; the members after the size have all bits set."""
    if wide:
        return struct.pack("<IIQQQQQQ", kind, 4, offset, 0, 0, size, (1 << 64) - 1, (1 << 64) - 1)
    return struct.pack("<IIIIIIII", kind, offset, 0, 0, size, (1 << 32) - 1, (1 << 32) - 1, (1 << 32) - 1)


def files() -> dict[str, bytes]:
    """Programs, by what is special about them."""
    made = {"script": b"#!/no/such -x\n", "bytes in a script": b"#!/\xff\n", "text": b"echo", "X first": b"XX#!/a"}
    for wide in (False, True):
        step, bits = (56, "64") if wide else (32, "32")
        one = segment(wide, 3, 400, 8)
        made |= {
            f"{bits}, header only": elf(wide, step, 0),
            f"{bits}, 51 bytes": elf(wide, step, 0, length=51),
            f"{bits}, 52 bytes": elf(wide, step, 0, length=52),
            f"{bits}, 53 bytes": elf(wide, step, 0, length=53),
            f"{bits}, loader": elf(wide, step, 1, one, pad=400) + b"/none\0\0\0",
            f"{bits}, bytes in the loader": elf(wide, step, 1, one, pad=400) + b"/\xff\0\0\0\0\0\0",
            f"{bits}, X at the end of the loader": elf(wide, step, 1, one, pad=400) + b"/noneXX\0",
            f"{bits}, empty loader": elf(wide, step, 1, one, pad=400) + bytes(8),
            f"{bits}, no segment counts": elf(wide, step, 0, one, pad=400) + b"/none\0\0\0",
            f"{bits}, second segment": elf(wide, step, 2, segment(wide, 1, 400, 8), one, pad=400) + b"/none\0\0\0",
            f"{bits}, second of one": elf(wide, step, 1, segment(wide, 1, 400, 8), one, pad=400) + b"/none\0\0\0",
            f"{bits}, segments of size 0": elf(wide, 0, 9, one, pad=400) + b"/none\0\0\0",
            f"{bits}, segment at the end": elf(wide, step, 1, one),
            f"{bits}, loader of 4097": elf(wide, step, 1, segment(wide, 3, 400, 4097), pad=400) + b"/" + b"n" * 4100,
        }
    return made


def test_formats_of_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "NATIVE", {})
    lines = []
    with explain.Tree(setting(tmp_path)) as one:
        for name, data in files().items():
            (tmp_path / "f").write_bytes(data)
            assert one.find("/f")
            lines.append(f"{name}: {explain._format(one)}")
    transcript.compare("explain_steps", "formats", lines, cut=True)


def test_programs_on_a_mount_with_noexec() -> None:
    """The last mount of a path decides."""
    mounts: list[Any] = [
        {"destination": place, "options": ["noexec"] if place[-1] == "n" else []} for place in ("/", "/n", "/n/x",
        "/X", "/aX/n")
    ]  # fmt: skip
    paths = ["/n/a", "/n", "/n/x/a", "/n/xa", "/na", "/XX/a", "/X/n", "/aX/n/b", "/a", "/"]
    found = [f"{path}: {explain._noexec(mounts, path)}" for path in paths]
    slashes: list[Any] = [{"destination": "/nX/", "options": ["noexec"]}, {"destination": "/y"}]
    found += [f"{path}: {explain._noexec(slashes, path)}" for path in ("/nX/a", "/n/a", "/nX", "/y/a")]
    transcript.compare("explain_steps", "noexec", found)


def test_programs_that_are_missing(tmp_path: Path) -> None:
    deep = "/d" * 70
    os.makedirs(str(tmp_path) + "/d" * 63)
    lines = []
    for name, process in (
        ("x", {}), ("x", {"env": [f"PATH={search_path('/bin')}"]}), ("sub/x", {}), ("sub/x", {"cwd": "/d"}),
        ("/none/a/x", {}), ("/d/none/x", {}), ("/d/x", {}), ("/dev/null", {}), ("d/none/x", {"cwd": "/d"}),
        (f"{deep}/x", {}), ("/d" * 64, {}), ("/d" * 65, {}),
    ):  # fmt: skip
        with explain.Tree(setting(tmp_path, process)) as one:
            given: Any = process
            lines.append(f"{name[:20]} {process}: {explain._missing(one, given, name)}")
    transcript.compare("explain_steps", "missing", lines, cut=True)


def test_a_missing_program_that_exists_is_not_missing(tmp_path: Path) -> None:
    """ENOENT for an existing file is explained by its format alone, whatever the host has."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").touch()
    (tmp_path / "etc/passwd").write_bytes(elf(True, 56, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explain, "NATIVE", {})
        patch.setattr(fs, "exists", lambda path: True)
        assert explain.program(setting(tmp_path), "/etc/passwd", errno.ENOENT) == ""
        assert explain.program(setting(tmp_path), "/etc/none", errno.ENOENT).startswith("it exists on the host")


def test_links_in_directories(tmp_path: Path) -> None:
    """An absolute link leads to the root filesystem from every directory, a relative one stays in its own."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/f").touch()
    (tmp_path / "a/abs").symlink_to("/a/b")
    (tmp_path / "a/rel").symlink_to("b")
    (tmp_path / "a/X").symlink_to("X")
    with explain.Tree(setting(tmp_path)) as one:
        assert [one.find(path) and one.path for path in ("/a/abs/f", "/a/rel/f", "/a/abs", "/a/X",
        "/a/rel/../abs/f")] == [
            "/a/b/f", "/a/b/f", "/a/b", False, "/a/b/f"]  # fmt: skip
        assert posix.fstat(one.fd).st_size == 0
