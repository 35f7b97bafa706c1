"""Fuzz targets about images: layers onto a tree, and the documents that lead to them."""

from __future__ import annotations

import io
import os
import pathlib
import tarfile
from contextlib import suppress
from typing import Any

import image_support
from fuzz.draw import Draw
from pyrunc import fs
from pyrunc.errors import UsageError
from pyrunc.image import layer, manifest, reference, sources
from pyrunc.image.blobs import LayerStream
from pyrunc.image.descriptor import Descriptor, Platform
from pyrunc.image.errors import ImageError
from pyrunc.image.limits import Limits
from pyrunc.image.tree import Tree

NAMES = [
    "a", "b", "a/", "/", "..", "../", "./", "//", "a/b", "b/a", "link", "link/", "up", "up/x", ".wh.a", ".wh.",
    ".wh..wh..opq", "a/.wh.b", "link/.wh.x", ".wh...", "\udcff", "\u00e9", "outside", "x" * 300,
]  # fmt: skip
TARGETS = ["a", "b", "/", "..", "../..", "../outside", "/outside", "link", "up", ".", "a/../../..", ""]
TYPES = [
    tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE,
    tarfile.CONTTYPE, tarfile.AREGTYPE, b"Z", b"S", b"x", b"L",
]  # fmt: skip
HEADERS = [
    "SCHILY.xattr.user.a",
    "LIBARCHIVE.xattr.user.b",
    "mtime",
    "atime",
    "size",
    "path",
    "GNU.sparse.major",
    "uid",
]
VALUES = ["", "1", "-1.5", "1e9", "AA==", "999999999999999999999", "../outside", "\u00e9"]
LIMITS = Limits(bytes=1 << 20, entries=64, depth=8, name=128, header=1 << 16)


class Stream(LayerStream):
    """The bytes themselves: the threads and the digests are not what is fuzzed."""

    def __init__(self, data: bytes) -> None:
        self.buffer, self.offset, self.ended, self.delivered, self.allowance = data, 0, False, 0, -1
        self.limits = LIMITS

    def _get(self, queue: Any) -> bytes:
        return b""

    plain = raw = None  # type: ignore[assignment]

    def finish(self) -> None:
        pass


def archive(draw: Draw) -> bytes:
    """A tar of odd entries, one byte of it changed now and then."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=draw.pick((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))) as tar:
        for _ in range(draw.below(8)):
            info = tarfile.TarInfo(draw.text(NAMES, 3) or "a")
            info.type, info.mode = draw.pick(TYPES), draw.number(2) & 0o7777
            info.linkname = draw.text(TARGETS, 2)
            info.size = draw.below(600) if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE) else 0
            info.mtime, info.devmajor, info.devminor = draw.number(4), 1, draw.below(16)
            if draw.one_in(4):
                info.pax_headers = {draw.pick(HEADERS): draw.pick(VALUES)}
            with suppress(ValueError, UnicodeError, tarfile.TarError, KeyError):
                tar.addfile(info, io.BytesIO(bytes(info.size)))
    data = bytearray(out.getvalue())
    for _ in range(draw.below(4)):
        if data:
            data[draw.number(3) % len(data)] = draw.number(1)
    return bytes(data)


class Layers:
    """Layers onto a root whose surroundings must stay as they are."""

    directory: pathlib.Path

    def __call__(self, data: bytes) -> None:
        draw = Draw(data)
        root = self.directory / "root"
        root.mkdir(parents=True)
        (self.directory / "outside").write_text("outside")
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        above = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        tree = Tree(fd, LIMITS.depth)
        applier = layer.Applier(tree, layer.Totals(LIMITS), layer.Warnings(), owners=False, devices=False)
        try:
            for _ in range(1 + draw.below(2)):
                applier.apply(Stream(draw.rest() if draw.one_in(8) else archive(draw)))
        except ImageError as error:
            assert str(error).isprintable() and len(str(error)) < 4096, error
        finally:
            tree.close()
            os.close(fd)
        assert sorted(os.listdir(self.directory)) == ["outside", "root"]
        assert (self.directory / "outside").read_text() == "outside"
        assert os.stat(self.directory / "outside").st_nlink == 1
        fs.remove_tree("root", above)
        os.close(above)


class Memory(sources.Source):
    """Documents by digest."""

    name = "memory"

    def __init__(self, blobs: dict[str, bytes], listed: list[Descriptor]) -> None:
        self.blobs, self.listed = blobs, listed

    def index(self) -> list[Descriptor]:
        return self.listed

    def open(self, wanted: Descriptor) -> io.BytesIO:
        if wanted.digest not in self.blobs:
            raise ImageError("no such blob")
        return io.BytesIO(self.blobs[wanted.digest])


PIECES = [
    '"schemaVersion":2', '"mediaType":"' + image_support.MANIFEST + '"', '"mediaType":"' + image_support.INDEX + '"',
    '"config":{"mediaType":"' + image_support.CONFIG + '","digest":"' + image_support.digest(b"{}") + '","size":2}',
    '"layers":[]', '"manifests":[]', '"layers":[{"mediaType":"x"}]', '"artifactType":"x"', '"rootfs":{"type":"layers"}',
    '"os":"linux"', '"architecture":"amd64"', '"manifests":[{"digest":"sha256:00"}]', '"config":null', ",", "{", "}",
]  # fmt: skip


def documents(data: bytes) -> None:
    """Any document as an index, a manifest or a configuration: an image, or one error."""
    draw = Draw(data)
    text = draw.rest() if draw.one_in(4) else ("{" + draw.text(PIECES, 12) + "}").encode()
    media_type = draw.pick((image_support.MANIFEST, image_support.INDEX))
    found = Descriptor(media_type, image_support.digest(text), len(text))
    source = Memory({found.digest: text, image_support.digest(b"{}"): b"{}"}, [found])
    try:
        manifest.resolve(source, Platform("linux", "amd64"))
    except ImageError as error:
        assert str(error).isprintable(), error
    for call in (reference.parse_registry, reference.split_tag):
        with suppress(UsageError, ValueError):
            call(text.decode("utf-8", "replace"))
