"""Applying layers to a tree: image-spec layer.md, and attacks of hostile archives."""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import stat
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import crowded
import transcript
from image_support import digest, entry, hard_link, link, tar
from pyrunc.fs import salted
from pyrunc.image import blobs, layer
from pyrunc.image.descriptor import Descriptor
from pyrunc.image.errors import ImageError
from pyrunc.image.limits import Limits
from pyrunc.image.manifest import Layer
from pyrunc.image.tree import Tree

kept = transcript.follow()

pytestmark = pytest.mark.root

Entries = list[tuple[tarfile.TarInfo, bytes]]


def described(data: bytes, blob: bytes | None = None, compression: str = "") -> tuple[Layer, io.BytesIO]:
    stored = data if blob is None else blob
    found = Descriptor("layer", digest(stored), len(stored))
    return Layer(found, digest(data), digest(data), compression), io.BytesIO(stored)


class Root:
    """A root filesystem for layers; it stays open until the test ends."""

    made: ClassVar[list[Root]] = []

    def __init__(self, path: Path, limits: Limits | None = None, *, owners: bool = True, devices: bool = True) -> None:
        self.path = path / "root"
        self.path.mkdir()
        (path / "outside").write_text("outside")
        self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self.limits = limits or Limits()
        self.warnings = layer.Warnings()
        self.tree = Tree(self.fd, self.limits.depth)
        totals = layer.Totals(self.limits)
        self.applier = layer.Applier(self.tree, totals, self.warnings, owners=owners, devices=devices)
        self.made.append(self)

    def apply(self, *layers: Entries) -> Root:
        for entries in layers:
            self.apply_bytes(tar(entries))
        return self

    def apply_bytes(self, data: bytes, blob: bytes | None = None, compression: str = "") -> None:
        stream = blobs.LayerStream(*described(data, blob, compression), self.limits)
        try:
            self.applier.apply(stream)
        finally:
            stream.close()

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*"))

    def __truediv__(self, name: str) -> Path:
        return self.path / name


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while Root.made:
        root = Root.made.pop()
        root.tree.close()
        os.close(root.fd)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


def test_types_and_attributes(root: Root) -> None:
    root.apply(
        [
            entry("./"),
            entry("etc/", mode=0o750, uid=5, gid=6),
            entry("etc/file", b"text", mode=0o4755, uid=1000, gid=100),
            link("link", "/etc/file"),
            hard_link("etc/second", "etc/file"),
            entry("fifo", type=tarfile.FIFOTYPE, mode=0o640),
            entry("null", type=tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3),
        ]
    )
    found = os.stat(root / "etc/file")
    # Set the owner first: chown clears set-user-ID.
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid, found.st_nlink) == (0o4755, 1000, 100, 2)
    assert found.st_mtime == 1_000_000_000 and (root / "etc/file").read_bytes() == b"text"
    directory = os.stat(root / "etc")
    assert (directory.st_mode & 0o7777, directory.st_uid, directory.st_gid) == (0o750, 5, 6)
    assert directory.st_mtime == 1_000_000_000  # although files were created in it afterwards
    assert os.readlink(root / "link") == "/etc/file"
    assert os.lstat(root / "link").st_mtime == 1_000_000_000
    assert stat.S_ISFIFO(os.stat(root / "fifo").st_mode)
    null = os.stat(root / "null")
    assert stat.S_ISCHR(null.st_mode) and null.st_rdev == os.makedev(1, 3) and null.st_mode & 0o777 == 0o666


def test_times_have_nanoseconds(root: Root) -> None:
    root.apply([entry("file", b"", pax_headers={"mtime": "1234567890.123456789", "atime": "1111111111.000000001"})])
    found = os.stat(root / "file")
    assert found.st_mtime_ns == 1234567890123456789 and found.st_atime_ns == 1111111111000000001


def test_xattrs(root: Root) -> None:
    capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    headers = {"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.security.selinux": "x:y:z"}
    root.apply([entry("ping", b"x", pax_headers=headers)])
    assert os.getxattr(root / "ping", "security.capability") == capability.encode()
    assert "security.selinux" not in os.listxattr(root / "ping")


def test_a_directory_that_is_there_keeps_its_content_and_gets_new_attributes(root: Root) -> None:
    root.apply(
        [entry("d/", mode=0o700, pax_headers={"SCHILY.xattr.user.old": "1"}), entry("d/kept", b"")],
        [entry("d/", mode=0o755, pax_headers={"SCHILY.xattr.user.new": "2"})],
    )
    assert (root / "d/kept").exists() and os.stat(root / "d").st_mode & 0o7777 == 0o755
    assert os.listxattr(root / "d") == ["user.new"]


@pytest.mark.parametrize("old", [entry("x/"), entry("x", b"old"), link("x", "/outside"), link("x", "y")])
@pytest.mark.parametrize("new", [entry("x/"), entry("x", b"new"), link("x", "z"), entry("x", type=tarfile.FIFOTYPE)])
def test_an_entry_replaces_what_is_there(
    root: Root, old: tuple[tarfile.TarInfo, bytes], new: tuple[tarfile.TarInfo, bytes]
) -> None:
    below = [entry("x/child", b"")] if old[0].isdir() else []
    root.apply([entry("y", b"target"), old, *below], [new])
    mode = os.lstat(root / "x").st_mode
    checks = {tarfile.DIRTYPE: stat.S_ISDIR, tarfile.REGTYPE: stat.S_ISREG, tarfile.SYMTYPE: stat.S_ISLNK}
    assert checks.get(new[0].type, stat.S_ISFIFO)(mode)
    assert (root / "x/child").exists() == (old[0].isdir() and new[0].isdir())
    assert (root / "y").read_bytes() == b"target"


def test_a_file_that_is_replaced_leaves_its_hard_links(root: Root) -> None:
    root.apply([entry("a", b"old"), hard_link("b", "a")], [entry("a", b"new")])
    assert (root / "a").read_bytes() == b"new" and (root / "b").read_bytes() == b"old"


def test_hard_link_into_a_lower_layer(root: Root) -> None:
    root.apply([entry("a", b"x")], [hard_link("d/b", "./a"), hard_link("a", "a")])
    assert os.stat(root / "a").st_ino == os.stat(root / "d/b").st_ino


# -- whiteouts -------------------------------------------------------------------------------------

LOWER: Entries = [entry("a/"), entry("a/x", b""), entry("a/d/"), entry("a/d/y", b""), entry("b", b"")]


def test_whiteout_of_a_file_and_of_a_directory(root: Root) -> None:
    root.apply(LOWER, [entry(".wh.b", b""), entry("a/.wh.d", b"")])
    assert root.names() == ["a", "a/x"]


@pytest.mark.parametrize("first", [True, False])
def test_whiteout_does_not_hide_its_own_layer(root: Root, first: bool) -> None:
    change: Entries = [entry("a/.wh.d", b""), entry("a/d/"), entry("a/d/new", b"")]
    root.apply(LOWER, change if first else [*change[1:], change[0]])
    assert root.names() == ["a", "a/d", "a/d/new", "a/x", "b"]


@pytest.mark.parametrize("first", [True, False])
def test_opaque_whiteout_at_any_place(root: Root, first: bool) -> None:
    change: Entries = [entry("a/.wh..wh..opq", b""), entry("a/d/z", b""), entry("a/new", b"")]
    root.apply(LOWER, change if first else [*change[1:], change[0]])
    assert root.names() == ["a", "a/d", "a/d/z", "a/new", "b"]


def test_opaque_whiteout_of_a_directory_that_the_layer_only_mentions(root: Root) -> None:
    root.apply(LOWER, [entry("a/d/", mode=0o711), entry("a/.wh..wh..opq", b"")])
    assert root.names() == ["a", "a/d", "b"]


def test_whiteouts_that_hide_nothing(root: Root) -> None:
    root.apply(
        LOWER, [entry("none/.wh.x", b""), entry("b/.wh.x", b""), entry(".wh..wh.plnk/", b""), entry(".wh.zz", b"")]
    )
    assert root.names() == ["a", "a/d", "a/d/y", "a/x", "b"]


@pytest.mark.parametrize("name", [".wh.", "a/.wh.", ".wh..", ".wh..."])
def test_whiteout_of_no_name(root: Root, name: str) -> None:
    with pytest.raises(ImageError, match="whiteout"):
        root.apply(LOWER, [entry(name, b"")])


def test_whiteout_below_a_link_hides_in_the_root(root: Root, tmp_path: Path) -> None:
    root.apply([entry("real/"), entry("real/x", b""), link("l", "/real"), link("up", str(tmp_path))])
    root.apply([entry("l/.wh.x", b""), entry("up/.wh.outside", b"")])
    assert root.names() == ["l", "real", "up"]
    assert (tmp_path / "outside").exists()


# -- where entries go ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../escape", "/../escape", "a/../../escape", "./../../../../escape", "//escape", "a/./../escape"]
)
def test_names_stay_in_the_root(root: Root, name: str) -> None:
    root.apply([entry(name, b"x")])
    assert (root / "escape").read_bytes() == b"x"


@pytest.mark.parametrize("target", ["/", "..", "../..", "/..", "l2", "/tmp/..", "../../../../.."])
def test_parents_that_are_links_stay_in_the_root(root: Root, tmp_path: Path, target: str) -> None:
    root.apply([link("l2", "/"), entry("sub/"), link("sub/l", target), entry("sub/l/new", b"x")])
    found = [path for path in root.path.rglob("new") if not path.is_symlink()]
    assert found and not (tmp_path / "new").exists() and not Path("/new").exists()


def test_a_dangling_parent_is_created_in_the_root(root: Root) -> None:
    root.apply([link("l", "/var/other"), entry("l/file", b"x")])
    assert (root / "var/other/file").read_bytes() == b"x" and (root / "l").is_symlink()


def test_a_parent_that_is_a_file_is_replaced(root: Root) -> None:
    root.apply([entry("x", b"")], [entry("x/y/z", b"")])
    assert root.names() == ["x", "x/y", "x/y/z"] and os.stat(root / "x").st_mode & 0o7777 == 0o755


def test_link_loop(root: Root) -> None:
    with pytest.raises(ImageError, match=r'entry "a/file": ELOOP'):
        root.apply([link("a", "b"), link("b", "a"), entry("a/file", b"")])


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (hard_link("x", "missing"), "does not exist"),
        (hard_link("x", "etc"), "is a directory"),
        (hard_link("x", "/"), "link to the root"),
        (hard_link("x", "../../../outside"), "does not exist"),
        (link("/", "x"), "root of the image must be a directory"),
        (entry("x", type=tarfile.SYMTYPE, linkname=""), "without a target"),
        (entry("x" * 5000, b""), "a name of more than 4096 bytes"),
        (entry("d/" * 300 + "f", b""), "more than 256 nested directories"),
        (entry("x", b"", mtime=2**62), "a time of"),
        (entry("x", b"", mtime=2**40), "a time of"),
        (entry("x", b"", mtime=-(2**40)), "a time of"),
    ],
)
def test_entries_that_are_refused(root: Root, bad: tuple[tarfile.TarInfo, bytes], text: str) -> None:
    with pytest.raises(ImageError, match=text):
        root.apply([entry("etc/"), bad])


def test_hard_link_to_a_link_is_one_to_the_link(root: Root, tmp_path: Path) -> None:
    root.apply([link("l", str(tmp_path / "outside")), hard_link("x", "l")])
    assert os.readlink(root / "x") == str(tmp_path / "outside")
    assert os.stat(tmp_path / "outside").st_nlink == 1


def test_without_owners_and_devices(tmp_path: Path) -> None:
    root = Root(tmp_path, owners=False, devices=False)
    root.apply([entry("f", b"", uid=7), entry("dev", type=tarfile.BLKTYPE, devmajor=8), entry("g", b"", gid=7)])
    found = os.stat(root / "dev")
    assert stat.S_ISREG(found.st_mode) and found.st_mode & 0o7777 == 0 and os.stat(root / "f").st_uid == os.geteuid()
    assert len(root.warnings.lines()) == 2 and any("(2 files)" in line for line in root.warnings.lines())


@pytest.mark.parametrize("seconds", [2**40, -(2**40), 1e300, float("inf"), float("nan")])
def test_times_that_no_file_has(seconds: float) -> None:
    with pytest.raises(ImageError, match="a time of"):
        layer._nanoseconds(None, seconds)
    assert layer._nanoseconds(None, 2**40 - 1) == -layer._nanoseconds(None, 1 - 2**40) == (2**40 - 1) * 10**9


def test_files_of_other_users_are_counted(tmp_path: Path) -> None:
    ids = [(0, 0), (1, 0), (1, 0), (1, 0), (0, 1), (0, 1), (0, 1), (0, 1), (7, 0), (0, 0)]
    root = Root(tmp_path, owners=False)
    root.apply([entry(f"f{number}", b"", uid=uid, gid=gid) for number, (uid, gid) in enumerate(ids)])
    assert root.warnings.lines() == ["files of other users are owned by root: no subordinate ids (8 files)"]


def test_sparse_files_keep_their_holes(root: Root, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with open(big, "wb") as stream:
        stream.write(b"head")
        stream.seek(64 << 20)
        stream.write(b"tail")
    import subprocess

    subprocess.run(["tar", "-C", str(tmp_path), "--sparse", "-cf", str(tmp_path / "s.tar"), "big"], check=True)
    data = (tmp_path / "s.tar").read_bytes()
    assert len(data) < 1 << 20
    root.apply_bytes(data)
    found = os.stat(root / "big")
    assert found.st_size == (64 << 20) + 4 and found.st_blocks * 512 < 8 << 20
    with open(root / "big", "rb") as stream:
        assert stream.read(4) == b"head" and stream.seek(-4, 2) and stream.read() == b"tail"


# -- bombs, and blobs that lie ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "entries", "text"),
    [
        ({"entries": 3}, [entry(f"f{n}", b"") for n in range(5)], "more than 3 entries"),
        ({"bytes": 1000}, [entry("f", b"x" * 2000)], "more than 1000 bytes"),
        ({"depth": 3}, [entry("a/b/c/d/e/f", b"")], "more than 3 nested directories"),
        ({"name": 10}, [entry("a" * 20, b"")], "more than 10 bytes"),
        ({"header": 1000}, [entry("a", b"", pax_headers={"SCHILY.xattr.user.x": "y" * (8 << 20)})], "extended header"),
    ],
)
def test_limits(tmp_path: Path, change: dict[str, int], entries: Entries, text: str) -> None:
    root = Root(tmp_path, dataclasses.replace(Limits(), **change))
    with pytest.raises(ImageError, match=text):
        root.apply(entries)


@pytest.mark.parametrize(
    ("change", "good", "bad"),
    [
        ({"entries": 3}, [entry(f"f{n}", b"") for n in range(3)], [entry(f"f{n}", b"") for n in range(4)]),
        ({"bytes": 20000}, [entry("f", b"x" * 20000)], [entry("f", b"x" * 20001)]),
        ({"name": 50}, [entry("n" * 50, b"")], [entry("n" * 51, b"")]),
        ({"depth": 5}, [entry("d/" * 5)], [entry("d/" * 6)]),
    ],
)
def test_boundaries_of_limits(tmp_path: Path, change: dict[str, int], good: Entries, bad: Entries) -> None:
    root = Root(tmp_path, dataclasses.replace(Limits(), **change))
    for entries, refused in ((good, False), (bad, True)):
        totals = layer.Totals(root.limits)
        applier = layer.Applier(root.tree, totals, root.warnings, owners=True, devices=True)
        data = tar(entries)
        stream = blobs.LayerStream(*described(data), Limits())
        try:
            if refused:
                with pytest.raises(ImageError, match=f"more than {next(iter(change.values()))} "):
                    applier.apply(stream)
            else:
                applier.apply(stream)
        finally:
            stream.close()


def test_depth_through_links_counts(tmp_path: Path) -> None:
    root = Root(tmp_path, Limits(depth=8))
    entries: Entries = [entry("d/" * 7)]
    for _ in range(8):
        entries += [link("l", "d/" * 7 + "e"), entry("l/" + "d/" * 7)]
    with pytest.raises(ImageError, match="more than 8 nested directories"):
        root.apply(entries)


def test_ratio(tmp_path: Path) -> None:
    data = tar([entry("zeros", bytes(64 << 20))])
    root = Root(tmp_path, Limits(ratio=100))
    with pytest.raises(ImageError, match="unpacks to more than"):
        root.apply_bytes(data, gzip.compress(data), "gzip")


def compressed(kind: str, data: bytes) -> bytes:
    if kind == "gzip":
        return gzip.compress(data[:5000]) + gzip.compress(data[5000:]) + bytes(512)
    if kind == "zstd":
        zstd = pytest.importorskip("backports.zstd")
        result: bytes = zstd.compress(data[:5000]) + zstd.compress(data[5000:])
        return result
    return data


@pytest.mark.parametrize("kind", ["", "gzip", "zstd"])
def test_compression(root: Root, kind: str) -> None:
    data = tar([entry(f"f{n}", bytes([n]) * 10_000) for n in range(20)]) + bytes(10240)
    root.apply_bytes(data, compressed(kind, data), kind)
    assert len(root.names()) == 20


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@pytest.mark.parametrize("size", [1, 7, 300])
def test_streams_that_come_in_pieces(kind: str, size: int) -> None:
    data = bytes(range(256)) * 40
    blob = compressed(kind, data)
    engine = blobs._ENGINES[kind]()
    found = [piece for at in range(0, len(blob), size) for piece in engine.feed(blob[at : at + size])]
    engine.end()
    assert b"".join(found) == data


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@pytest.mark.parametrize("cut", [1, 100])
def test_truncated_streams(root: Root, kind: str, cut: int) -> None:
    data = tar([entry("f", os.urandom(100_000))])
    blob = compressed(kind, data).rstrip(b"\0")[:-cut]
    with pytest.raises(ImageError, match="truncated"):
        root.apply_bytes(data, blob, kind)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_not_compressed_at_all(root: Root, kind: str) -> None:
    if kind == "zstd":
        pytest.importorskip("backports.zstd")
    with pytest.raises(ImageError, match=f"not a {kind} stream"):
        root.apply_bytes(b"", b"plain text, long enough to be read as a header", kind)


def test_a_tar_that_ends_early(root: Root) -> None:
    data = tar([entry("f", b"x" * 100_000)])[:50_000]
    with pytest.raises(ImageError, match=r"unexpected end|ends after"):
        root.apply_bytes(data)


def test_an_empty_layer(root: Root) -> None:
    root.apply_bytes(tar([]))
    root.apply_bytes(b"")
    assert root.names() == []


def lying(root: Root, **change: Any) -> None:
    data = tar([entry("f", b"x")])
    described_layer, blob = described(data)
    stream = blobs.LayerStream(dataclasses.replace(described_layer, **change), blob, root.limits)
    try:
        root.applier.apply(stream)
    finally:
        stream.close()


def test_a_reader_that_gives_up_ends_the_threads(root: Root) -> None:
    """Though nothing takes what they have."""
    data = bytes(64 * blobs.CHUNK)
    stream = blobs.LayerStream(*described(data), root.limits)
    while not stream.plain.full() or not stream.raw.full():
        time.sleep(0.01)
    stream.close()
    for thread in stream.threads:
        thread.join(5)
        assert not thread.is_alive()


def test_blobs_that_differ_from_their_descriptors(root: Root) -> None:
    size = len(tar([entry("f", b"x")]))
    wrong = "sha256:" + "0" * 64
    right = digest(tar([entry("f", b"x")]))
    with pytest.raises(ImageError, match="the uncompressed tar has the digest"):
        lying(root, diff_id=wrong)
    with pytest.raises(ImageError, match="the blob has the digest"):
        lying(root, blob=Descriptor("layer", wrong, size))
    with pytest.raises(ImageError, match="its descriptor"):
        lying(root, blob=Descriptor("layer", right, size + 1))
    with pytest.raises(ImageError, match="larger than"):
        lying(root, blob=Descriptor("layer", right, size - 1))


def test_names_of_an_image_key_no_table_as_they_are(root: Root) -> None:
    """A user who knows the launcher's hash seed could choose names that collide in a table."""
    chosen = crowded.keys(256, 170)
    root.apply([entry(f"d/{name}/") for name in chosen])
    directory = root.tree.root.children[salted("d")]
    assert set(directory.children) == {salted(name) for name in chosen}
    assert crowded.steps(list(directory.children), 256) < 4 * len(chosen) < crowded.steps(chosen, 256) / 2
    root.tree.mark(directory, chosen[0])
    assert directory.made == {salted(chosen[0])}
