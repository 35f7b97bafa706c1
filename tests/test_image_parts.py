"""pyrunc.image: accounts, attributes of entries, trees, streams and documents at their limits."""

from __future__ import annotations

import io
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from image_support import digest, entry
from pyrunc.image import accounts, blobs, layer, manifest
from pyrunc.image.descriptor import Descriptor
from pyrunc.image.errors import ImageError
from pyrunc.image.limits import Limits
from pyrunc.image.tree import Directory, Tree

HEX = "sha256:" + "a" * 64


@pytest.fixture
def tree(tmp_path: Path) -> Any:
    (tmp_path / "r/etc").mkdir(parents=True)
    fd = os.open(tmp_path / "r", os.O_RDONLY)
    made = Tree(fd, 5)
    yield made
    made.close()
    os.close(fd)


# -- accounts --------------------------------------------------------------------------------------

USERS = """\
root:x:0:0:r:/root:/bin/sh
short:x:1
joe:x:7:8
bad:x:y:1::/b
bad:x:9:z::/b
bad:x:10:11::/b
7:x:20:21::/seven
big:x:4294967294:4294967295::
max:x:4294967294:4294967294::/m
"""
GROUPS = """\
joe:x:8:
wheel:x:30:root,joe
staff:x:x:joe
more:x:2:joe,x
three:x:31
own:x:8:joe
last:x:40:xjoe
"""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", (0, 0, [], "/root")),
        ("root", (0, 0, [30], "/root")),
        ("joe", (7, 8, [2, 30], "")),
        ("bad", (10, 11, [], "/b")),
        ("7", (7, 8, [], "")),
        ("99", (99, 0, [], "")),
        ("joe:wheel", (7, 30, [], "")),
        ("joe:5", (7, 5, [], "")),
        ("20:three", (20, 31, [], "/seven")),
        ("99:98", (99, 98, [], "")),
        ("max", (4294967294, 4294967294, [], "/m")),
        ("4294967294:4294967294", (4294967294, 4294967294, [], "/m")),
        ("0000000007", (7, 8, [], "")),
    ],
)
def test_users(tree: Tree, tmp_path: Path, text: str, wanted: Any) -> None:
    (tmp_path / "r/etc/passwd").write_text(USERS)
    (tmp_path / "r/etc/group").write_text(GROUPS)
    found = accounts.find(text, tree)
    assert (found.uid, found.gid, found.additional_gids, found.home) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("joe:", "/config/User: expected USER[:GROUP]"),
        ("none", '/config/User: no user "none" in'),
        ("big", '/config/User: no user "big" in'),
        ("joe:none", '/config/User: no group "none" in'),
        ("joe:staff", '/config/User: no group "staff" in'),
        ("4294967295", '/config/User: no user "4294967295" in'),
        ("00000000007", "/config/User: no user"),
        ("\u0663", "/config/User: no user"),
    ],
)
def test_users_that_are_unknown(tree: Tree, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "r/etc/passwd").write_text(USERS)
    (tmp_path / "r/etc/group").write_text(GROUPS)
    with pytest.raises(ImageError) as caught:
        accounts.find(text, tree)
    assert str(caught.value).startswith(words)


def test_an_image_without_accounts(tree: Tree) -> None:
    assert accounts.find("", tree) == accounts.User() == accounts.User(0, 0, [], "")


def test_files_in_the_root(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = tmp_path / "r"
    before = sorted(os.listdir("/proc/self/fd"))
    (top / "etc/f").write_text("f")
    for name, target in (
        ("abs", "/etc/f"),
        ("rel", "f"),
        ("up", "../../etc/f"),
        ("gone", "none"),
        ("loop", "loop"),
        ("under", "f/x"),
    ):
        (top / "etc" / name).symlink_to(target)
    for number in range(41):
        (top / f"etc/l{number}").symlink_to(f"l{number + 1}" if number < 40 else "f")
    os.mkfifo(top / "etc/fifo")
    for name, data in (
        ("f", b"f"),
        ("abs", b"f"),
        ("rel", b"f"),
        ("up", b"f"),
        ("gone", b""),
        ("none", b""),
        ("under", b""),
        ("l2", b"f"),
    ):
        assert accounts.read_in_root(tree, f"etc/{name}") == data
    assert accounts.read_in_root(tree, "etc/f/x") == accounts.read_in_root(tree, "none/x") == b""
    for name in ("loop", "l1", "l0"):
        with pytest.raises(ImageError, match="too many symbolic links"):
            accounts.read_in_root(tree, f"etc/{name}")
    for name in ("etc/fifo", "etc"):
        with pytest.raises(ImageError, match=rf"^/{name}: not a regular file$"):
            accounts.read_in_root(tree, name)
    monkeypatch.setattr(accounts, "MAX_FILE", 1)
    assert accounts.read_in_root(tree, "etc/f") == b"f"
    (top / "etc/f").write_text("ff")
    with pytest.raises(ImageError, match=r"^/etc/f: larger than 0 MiB$"):
        accounts.read_in_root(tree, "etc/f")
    tree.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


# -- entries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "default", "wanted"),
    [
        (None, 1.5, 1_500_000_000),
        (None, -2.0, -2_000_000_000),
        ("3", 0.0, 3_000_000_000),
        ("3.", 0.0, 3_000_000_000),
        ("3.25", 0.0, 3_250_000_000),
        ("3.123456789987", 0.0, 3_123_456_789),
        ("-3.25", 0.0, -3_250_000_000),
        ("-0.5", 0.0, -500_000_000),
        ("x", 4.0, 4_000_000_000),
        ("3.x", 4.0, 4_000_000_000),
        ("\u0663", 4.0, 4_000_000_000),
        ("3.\u0663", 4.0, 4_000_000_000),
        ("--3", 4.0, 4_000_000_000),
        ("", 4.0, 4_000_000_000),
        ("9" * 12, 0.0, int("9" * 12) * 10**9),
        (None, 2.0**40 - 1, int((2.0**40 - 1) * 10**9)),
        (None, 1 - 2.0**40, int((1 - 2.0**40) * 10**9)),
    ],
)
def test_times(text: str | None, default: float, wanted: int) -> None:
    assert layer._nanoseconds(text, default) == wanted


@pytest.mark.parametrize(
    ("text", "default"),
    [("1" * 13, 0.0), (None, 2.0**40), (None, -(2.0**40)), (None, float("nan")), ("-" + "1" * 13, 0.0)],
)
def test_times_that_are_refused(text: str | None, default: float) -> None:
    with pytest.raises(ImageError, match="a time of"):
        layer._nanoseconds(text, default)


def test_access_times() -> None:
    info = entry("x", b"")[0]
    assert layer._times(info) == (10**18, 10**18)
    info.pax_headers = {"mtime": "5.5"}
    assert layer._times(info) == (5_500_000_000, 5_500_000_000)
    info.pax_headers = {"mtime": "5.5", "atime": "6.25"}
    assert layer._times(info) == (6_250_000_000, 5_500_000_000)
    info.pax_headers = {"atime": "x"}
    assert layer._times(info) == (10**18, 10**18)


def test_extended_attributes_of_an_entry() -> None:
    info = entry("x", b"")[0]
    info.pax_headers = {
        "SCHILY.xattr.user.a": "1\udcff",
        "LIBARCHIVE.xattr.user.a": "Mg==",
        "LIBARCHIVE.xattr.user.b": "Mg",
        "path": "x",
        "LIBARCHIVE.xattr.user.c": "",
    }
    assert layer.xattrs(info) == {"user.a": b"1\xff", "user.b": b"2", "user.c": b""}
    for text in ("M", "M!==", "\u0663\u0663\u0663\u0663"):
        info.pax_headers = {"LIBARCHIVE.xattr.user.a": text}
        with pytest.raises(ImageError, match=r'^the pax header "LIBARCHIVE\.xattr\.user\.a" is not base64$'):
            layer.xattrs(info)


def test_names_of_entries() -> None:
    most = Limits(name=6, depth=3)
    cases = {
        "": [],
        ".": [],
        "/a//b/": ["a", "b"],
        "a/../b": ["b"],
        "../a": ["a"],
        "a/..": [],
        "a/b/c": ["a", "b", "c"],
        "./.././": [],
    }
    assert {name: layer.split(name, Limits(depth=3)) for name in cases} == cases
    assert layer.split("abcdef", most) == ["abcdef"]
    for name, words in (
        ("abcdefg", "a name of more than 6 bytes"),
        ("a/b/c/d", "a name of more"),
        ("a\0", "a name with a NUL byte"),
    ):
        with pytest.raises(ImageError, match=words):
            layer.split(name, most)
    with pytest.raises(ImageError, match=r"^more than 3 nested directories \(--limit depth=\.\.\.\)$"):
        layer.split("a/b/c/d", Limits(depth=3))
    with pytest.raises(ImageError) as caught:
        layer.split("x" * 100, most)
    assert str(caught.value).startswith(f'entry "{"x" * 64}": ')


@pytest.mark.parametrize(
    ("uid", "gid", "good"),
    [
        (0, 0, True),
        (0xFFFFFFFE, 0xFFFFFFFE, True),
        (0xFFFFFFFF, 0, False),
        (0, 0xFFFFFFFF, False),
        (-1, 0, False),
        (0, -1, False),
    ],
)
def test_owners(uid: int, gid: int, good: bool) -> None:
    info = entry("x", b"", uid=uid, gid=gid)[0]
    if good:
        layer._check_ids(info)
        return
    with pytest.raises(ImageError, match=rf"^an owner of {uid}:{gid}$"):
        layer._check_ids(info)


def test_warnings_and_totals() -> None:
    warnings = layer.Warnings()
    for text in ("a", "b", "a"):
        warnings.add(text)
    assert warnings.lines() == ["a (2 files)", "b (1 file)"]
    totals = layer.Totals(Limits(bytes=10, entries=2))
    totals.entry(10)
    totals.entry(0)
    with pytest.raises(ImageError, match=r"^more than 2 entries \(--limit entries=\.\.\.\)$"):
        totals.entry(0)
    totals = layer.Totals(Limits(bytes=10, entries=2))
    with pytest.raises(ImageError, match=r"^more than 10 bytes of files \(--limit bytes=\.\.\.\)$"):
        totals.entry(11)


# -- trees -----------------------------------------------------------------------------------------


def test_directories() -> None:
    root = Directory("", None)
    deep = Directory("b", Directory("a", root))
    assert (root.path(), deep.path(), root.depth(), deep.depth()) == (".", "a/b", 0, 2)


def test_looking_up(tree: Tree, tmp_path: Path) -> None:
    top = tmp_path / "r"
    (top / "a/b").mkdir(parents=True)
    (top / "f").touch()
    for name, target in (("abs", "/a/b"), ("rel", "a/./b"), ("up", "../../a"), ("loop", "loop"), ("gone", "n/m")):
        (top / name).symlink_to(target)
    for number in range(41):
        (top / f"l{number}").symlink_to(f"l{number + 1}" if number < 40 else "a")
    for parts, path in (
        (["a", "b"], "a/b"),
        ([], "."),
        (["..", "a"], "a"),
        (["a", "", ".", "..", "a"], "a"),
        (["abs"], "a/b"),
        (["rel"], "a/b"),
        (["up", "b"], "a/b"),
        (["a", "b", "..", "..", "abs"], "a/b"),
        (["l1"], "a"),
    ):
        assert tree.lookup(parts, make=False).path() == path
    assert tree.lookup(["a"]) is tree.lookup(["a"])
    for parts, error in ((["n"], FileNotFoundError), (["f"], NotADirectoryError), (["gone"], FileNotFoundError)):
        with pytest.raises(error):
            tree.lookup(parts, make=False)
    for name in ("loop", "l0"):
        with pytest.raises(OSError, match="too many symbolic links"):
            tree.lookup([name])
    old = os.umask(0o77)
    try:
        assert tree.lookup(["gone", "x"]).path() == "n/m/x" and tree.lookup(["f", "y"]).path() == "f/y"
    finally:
        os.umask(old)
    for name in ("n", "n/m", "n/m/x", "f", "f/y"):
        assert stat.S_IMODE((top / name).stat().st_mode) == 0o755
    assert tree.lookup(list("12345")).depth() == 5
    with pytest.raises(ImageError, match=r"^more than 5 nested directories"):
        tree.lookup(list("123456"))


def test_open_directories_are_bounded(tree: Tree, tmp_path: Path) -> None:
    tree.max_open = 3
    made = [tree.lookup([str(number)]) for number in range(5)]
    fds = [tree.fd(one) for one in made]
    assert len(tree.fds) == 3 and list(tree.fds) == made[2:]
    assert tree.fd(made[2]) == fds[2] and next(iter(tree.fds)) is made[3]  # used again: it stays longer
    tree.forget(tree.root, "4")
    assert list(tree.fds) == [made[3], made[2]] and not Path(f"/proc/self/fd/{fds[4]}").exists()
    tree.forget(tree.root, "none")
    assert tree.fd(tree.root) == tree.root_fd


def test_changes_of_a_layer(tree: Tree, tmp_path: Path) -> None:
    top = tmp_path / "r"
    os.utime(top / "etc", ns=(111, 222))
    at = tree.lookup(["etc"])
    (top / "etc/f").touch()
    (top / "etc/d/e").mkdir(parents=True)
    os.utime(top / "etc", ns=(111, 222))
    assert tree.remove(at, "none") is False and at.mtime is None
    assert tree.remove(at, "f") and at.mtime == (111, 222) and tree.remove(at, "d")
    at.mtime = (5, 6)
    tree.touch(at)
    assert at.mtime == (5, 6)
    tree.mkdir(at, "new")
    (top / "etc/lower/x").mkdir(parents=True)
    (top / "etc/new/own").mkdir()
    tree.mark(tree.lookup(["etc", "new"]), "own")
    (top / "etc/new/lower").touch()
    tree.clear_lower(at)
    assert sorted(str(path.relative_to(top)) for path in top.rglob("*")) == ["etc", "etc/new", "etc/new/own"]
    assert tree.child(at, "new") is tree.child(at, "new")
    (top / "etc/link").symlink_to("new")
    assert tree.child(at, "link") is None
    tree.end_layer()
    found = (top / "etc").stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (5, 6) and at.made == set() and at.mtime is None
    tree.clear_lower(at)
    assert os.listdir(top / "etc") == []


# -- streams ---------------------------------------------------------------------------------------


def stream(data: bytes, *, blob: bytes | None = None, size: int = -1, **most: int) -> blobs.LayerStream:
    stored = data if blob is None else blob
    found = Descriptor("layer", digest(stored), len(stored) if size < 0 else size)
    return blobs.LayerStream(manifest.Layer(found, digest(data), HEX, ""), io.BytesIO(stored), Limits(**most))


def test_reading_a_layer() -> None:
    one = stream(b"0123456789")
    assert all(thread.daemon for thread in one.threads) and len(one.threads) == 2
    assert (one.read(3), one.read(0), one.read(100), one.delivered) == (b"012", b"", b"3456789", 10)
    assert one.read(1) == b"" == one.read(1) and one.ended
    one.finish()
    one.close()
    assert not any(thread.is_alive() for thread in one.threads) and one.blob.closed
    one.close()


@pytest.mark.parametrize(("allowance", "good"), [(-1, True), (5, True), (4, False), (0, False)])
def test_allowances(allowance: int, good: bool) -> None:
    one = stream(b"0123456789", header=7)
    one.allowance = allowance
    if good:
        assert one.read(5) == b"01234"
    else:
        with pytest.raises(ImageError, match=r"^an extended header of more than 7 bytes \(--limit header=\.\.\.\)$"):
            one.read(5)
    one.close()


@pytest.mark.parametrize(
    ("size", "words"),
    [(9, "larger than the 9 bytes of its descriptor"), (11, "10 bytes; its descriptor says 11"), (10, "")],
)
def test_sizes_of_blobs(size: int, words: str) -> None:
    one = stream(b"0123456789", size=size)
    if words:
        with pytest.raises(ImageError, match=rf"^{words}$"):
            one.finish()
    else:
        one.finish()
    one.close()


def test_digests_of_blobs() -> None:
    for found, what in ((stream(b"a", blob=b"b"), "uncompressed tar"), (stream(b"a"), "blob")):
        if what == "blob":
            object.__setattr__(found.layer.blob, "digest", HEX)
        with pytest.raises(ImageError, match=rf"^the {what} has the digest sha256:[0-9a-f]{{64}}, expected sha256:"):
            found.finish()
        found.close()


def test_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "_RATIO_FROM", 8)
    for count, ratio, most, good in (
        (8, 0, 99, True),
        (9, 0, 99, False),
        (20, 2, 99, True),
        (20, 2, 20, True),
        (20, 2, 19, False),
    ):
        one = stream(b"x" * count, ratio=ratio, bytes=most)
        if good:
            one.finish()
        else:
            bound = min(most, max(8, count * ratio))
            with pytest.raises(
                ImageError, match=rf"^unpacks to more than {bound} bytes \(--limit bytes={most} --limit ratio={ratio}\)"
            ):
                one.finish()
        one.close()


def test_a_stream_that_nobody_reads_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "CHUNK", 1)
    one = stream(b"x" * 1000)
    end = time.monotonic() + 10
    while not (one.plain.full() and one.raw.full()) and time.monotonic() < end:
        time.sleep(0.001)
    assert one.plain.qsize() == one.raw.qsize() == blobs.AHEAD == 16
    one.close()
    with pytest.raises(blobs._Stopped):
        one._get(one.raw)
    assert threading.active_count() >= 1 and not any(thread.is_alive() for thread in one.threads)


def test_errors_of_the_blob_reach_the_reader() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "broken")

    found = Descriptor("layer", HEX, 3)
    one = blobs.LayerStream(manifest.Layer(found, HEX, HEX, ""), Broken(), Limits())
    with pytest.raises(OSError, match="broken"):
        one.read(1)
    one.close()
