"""Layers as streams: what the decompressors and the two threads of a layer make of whole, damaged and
large data. golden/image_streams.txt has the tables.
"""

from __future__ import annotations

import gzip
import importlib
import io
import itertools
import zlib
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from pyrunc.image import blobs, descriptor, manifest
from pyrunc.image.errors import ImageError
from pyrunc.image.limits import Limits
from test_results import results

WHOLE = gzip.compress(b"text" * 9, mtime=0)
PIECES: list[tuple[str, bytes]] = [
    ("one", WHOLE), ("two", WHOLE + gzip.compress(b"more", mtime=0)), ("padded", WHOLE + bytes(9)),
    ("padded between", WHOLE + bytes(3) + WHOLE), ("cut", WHOLE[:-1]), ("empty", b""), ("zeros", bytes(4)),
    ("garbage", b"no gzip stream"), ("garbage after", WHOLE + b"x"), ("nothing inside", gzip.compress(b"", mtime=0)),
    ("zlib", zlib.compress(b"text")), ("large", gzip.compress(bytes(blobs.CHUNK * 2 + 1), mtime=0)),
]  # fmt: skip


def unpacked(engine: Any, data: bytes, size: int) -> str:
    """What a decompressor makes of data that comes in pieces; it returns pieces as well."""
    out = [engine.feed(data[at : at + size]) for at in range(0, len(data), size)]
    engine.end()
    flat = list(itertools.chain(*out))
    joined = b"".join(flat)
    assert max(map(len, flat), default=0) <= blobs.CHUNK
    return f"{len(joined)} bytes {joined[:8]!r}"


def test_streams_of_gzip() -> None:
    def call(name: str, size: int) -> str:
        return unpacked(blobs.Gzip(), dict(PIECES)[name], size)

    cases = [(name, size) for name, _ in PIECES for size in (1 << 20, 7, 1) if name != "large" or size != 1]
    transcript.compare("image_streams", "gzip", results(call, cases))


def test_streams_of_zstd() -> None:
    try:
        zstd: Any = importlib.import_module("compression.zstd")
    except ImportError:
        zstd = pytest.importorskip("backports.zstd")
    whole = zstd.compress(b"text" * 9)
    given = {
        "one": whole, "two": whole + zstd.compress(b"more"), "cut": whole[:-1], "empty": b"", "garbage": b"no zstd",
        "garbage after": whole + b"xxxxx", "large": zstd.compress(bytes(blobs.CHUNK * 2 + 1)), "nothing inside":
            zstd.compress(b""),
    }  # fmt: skip
    found = {}
    for name, data in given.items():
        for size in (1 << 20, 7):
            try:
                found[name, size] = unpacked(blobs.Zstd(), data, size)
            except ImageError as error:
                found[name, size] = str(error).partition(":")[0]
    assert found["one", 1 << 20] == found["one", 7] == "36 bytes b'texttext'"
    assert found["two", 1 << 20] == found["two", 7] == "40 bytes b'texttext'"
    for size in (1 << 20, 7):
        assert found["cut", size] == found["empty", size] == "the zstd stream is truncated"
        assert found["garbage", size] == found["garbage after", size] == "not a zstd stream"
        assert found["nothing inside", size].startswith("0 bytes")
        assert found["large", size].startswith(f"{blobs.CHUNK * 2 + 1} bytes")


def streamed(data: bytes, *, size: int | None = None, diff: bytes = b"", kind: str = "", **limits: int) -> Any:
    """The stream of a layer, whose blob's descriptor says ``size``."""
    size = len(data) if size is None else size
    blob = descriptor.Descriptor(descriptor.OCI + "layer.v1.tar", descriptor.digest_of(data), size)
    layer = manifest.Layer(blob, descriptor.digest_of(diff or data), "chain", kind)
    return blobs.LayerStream(layer, io.BytesIO(data), Limits(**limits))


def read_all(data: bytes, step: int = 3, **more: Any) -> str:
    """What a reader of a layer gets."""
    stream, out = streamed(data, **more), []
    try:
        while piece := stream.read(step):
            out.append(piece)
        assert stream.read(step) == b"" and stream.ended
        stream.finish()
    finally:
        stream.close()
    assert max(map(len, out), default=0) <= step and stream.delivered == sum(map(len, out))
    return f"{b''.join(out)[:8]!r} {stream.delivered}"


def test_streams_of_layers() -> None:
    zeros = gzip.compress(bytes(17 << 20), mtime=0)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("plain", {"data": b"abcdefgh"}), ("empty", {"data": b""}), ("longer", {"data": b"abc", "size": 2}),
        ("shorter", {"data": b"abc", "size": 4}), ("gzip", {"data": WHOLE, "diff": b"text" * 9, "kind": "gzip"}),
        ("another tar", {"data": b"abc", "diff": b"abd"}), ("cut", {"data": WHOLE[:-1], "kind": "gzip"}),
        ("too large", {"data": b"abcd", "bytes": 3}), ("as large as allowed", {"data": b"abc", "bytes": 3}),
        ("a bomb", {"data": zeros, "kind": "gzip", "ratio": 1, "step": 1 << 20}),
        ("no bomb", {"data": zeros, "kind": "gzip", "diff": bytes(17 << 20), "ratio": 2000, "step": 1 << 20}),
    ]  # fmt: skip
    lines = results(lambda name: read_all(**dict(cases)[name]), [name for name, _ in cases])
    transcript.compare("image_streams", "layers", lines)


def test_what_may_be_read_of_a_layer() -> None:
    stream = streamed(b"abcdefgh")
    stream.allowance = 3
    assert stream.read(3) == b"abc"
    with pytest.raises(ImageError, match="an extended header of more than 1048576 bytes"):
        stream.read(1)
    stream.finish()
    stream.close()
    assert not any(thread.is_alive() for thread in stream.threads) and stream.blob.closed
    with pytest.raises(blobs._Stopped):
        stream._get(stream.plain)
    with pytest.raises(blobs._Stopped):
        stream._put(stream.plain, b"x")


def test_a_layer_whose_threads_are_stopped() -> None:
    stream = streamed(b"abc" * blobs.CHUNK * blobs.AHEAD)
    stream.close()
    assert not any(thread.is_alive() for thread in stream.threads)
