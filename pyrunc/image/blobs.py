"""A layer as a stream of its uncompressed tar, hashed twice on the way: as stored and as unpacked.

Two threads stay a few chunks ahead of the reader: one reads and hashes the blob, the other
decompresses and hashes the tar. zlib and hashlib release the GIL, so on two cores both overlap with
writing files.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from queue import Empty, Full, Queue
from typing import IO, Any, Protocol

from pyrunc.image import descriptor
from pyrunc.image.errors import ImageError
from pyrunc.image.limits import Limits
from pyrunc.image.manifest import Layer

CHUNK = 256 << 10
AHEAD = 16  # chunks: 4 MiB in each queue
_RATIO_FROM = 16 << 20  # a small layer of zeros is not a bomb

_END = b""


class Decompressor(Protocol):
    """The common interface of zlib, zstd and identity."""

    def feed(self, data: bytes) -> list[bytes]:
        """The uncompressed output for some input, in pieces of at most a few CHUNKs."""

    def end(self) -> None:
        """Check that the stream is complete. Raises ImageError."""


class Identity:
    """No compression."""

    def feed(self, data: bytes) -> list[bytes]:
        return [data]

    def end(self) -> None:
        return None


class Gzip:
    """RFC 1952: several members form one stream; zeros after the last are padding."""

    def __init__(self) -> None:
        self.engine = zlib.decompressobj(31)
        self.inside = True  # within a member; a stream has at least one

    def feed(self, data: bytes) -> list[bytes]:
        out = []
        while data:
            if not self.inside:
                data = data.lstrip(b"\0")
                if not data:
                    break
                self.inside = True
            try:
                piece = self.engine.decompress(data, CHUNK)
            except zlib.error as error:
                raise ImageError(f"not a gzip stream: {error}") from error
            if piece:
                out.append(piece)
            if self.engine.eof:
                data, self.engine, self.inside = self.engine.unused_data, zlib.decompressobj(31), False
            else:
                data = self.engine.unconsumed_tail
        return out

    def end(self) -> None:
        if self.inside:
            raise ImageError("the gzip stream is truncated")


class Zstd:
    """RFC 8878, by Python 3.14's module or its backport."""

    def __init__(self) -> None:
        try:
            try:
                from compression import zstd  # type: ignore[import-not-found, unused-ignore]
            except ImportError:
                from backports import zstd  # type: ignore[import-not-found, no-redef, unused-ignore]
        except ImportError as error:
            hint = "install backports.zstd (pip install 'pyrunc[image]')"
            raise ImageError(f"zstd layers need a zstd module: {hint}") from error
        self.make: Callable[[], Any] = zstd.ZstdDecompressor  # of either module, and perhaps without types
        self.failure: type[Exception] = zstd.ZstdError
        self.engine: Any = None  # of `make`
        self.frames = 0

    def feed(self, data: bytes) -> list[bytes]:
        out = []
        try:
            while data or (self.engine is not None and not self.engine.needs_input and not self.engine.eof):
                if self.engine is None:
                    self.engine = self.make()
                piece = self.engine.decompress(data, CHUNK)
                data = b""
                if piece:
                    out.append(piece)
                if self.engine.eof:
                    data, self.engine, self.frames = self.engine.unused_data, None, self.frames + 1
                elif self.engine.needs_input:
                    break
        except self.failure as error:
            raise ImageError(f"not a zstd stream: {error}") from error
        return out

    def end(self) -> None:
        if self.engine is not None or not self.frames:
            raise ImageError("the zstd stream is truncated")


_ENGINES: dict[str, Callable[[], Decompressor]] = {"": Identity, "gzip": Gzip, "zstd": Zstd}


class LayerStream:
    """A readable stream of one layer's tar. ``read`` raises ImageError for any fault of the blob.

    The content is unverified until `finish` has returned.
    """

    def __init__(self, layer: Layer, blob: IO[bytes], limits: Limits) -> None:
        self.layer, self.blob, self.limits = layer, blob, limits
        self.raw: Queue[bytes | BaseException] = Queue(AHEAD)
        self.plain: Queue[bytes | BaseException] = Queue(AHEAD)
        self.stopped = threading.Event()
        self.buffer = b""
        self.offset = 0
        self.ended = False
        self.delivered = 0
        self.allowance = -1  # how many bytes of the stream the tar reader may read; -1: no limit
        self.blob_hash = descriptor.hasher(layer.blob.digest)
        self.tar_hash = descriptor.hasher(layer.diff_id)
        self.engine = _ENGINES[layer.compression]()
        self.threads = [
            threading.Thread(target=self._guard, args=(work, queue), daemon=True)
            for work, queue in ((self._fetch, self.raw), (self._decompress, self.plain))
        ]
        for thread in self.threads:
            thread.start()

    # -- the threads -------------------------------------------------------------------------------

    def _guard(self, work: Callable[[], None], queue: Queue[bytes | BaseException]) -> None:
        """Run a thread's work, and pass any exception to the reader."""
        try:
            work()
            self._put(queue, _END)
        except _Stopped:
            pass
        except BaseException as error:
            try:
                self._put(queue, error)
            except _Stopped:
                pass

    def _put(self, queue: Queue[bytes | BaseException], item: bytes | BaseException) -> None:
        while not self.stopped.is_set():
            try:
                return queue.put(item, timeout=0.5)
            except Full:
                continue
        raise _Stopped

    def _get(self, queue: Queue[bytes | BaseException]) -> bytes:
        while not self.stopped.is_set():
            try:
                item = queue.get(timeout=0.5)
            except Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            return item
        raise _Stopped

    def _fetch(self) -> None:
        """Read the blob, never more than its descriptor promises."""
        left = self.layer.blob.size
        while data := self.blob.read(min(CHUNK, left + 1)):
            left -= len(data)
            if left < 0:
                raise ImageError(f"larger than the {self.layer.blob.size} bytes of its descriptor")
            self.blob_hash.update(data)
            self._put(self.raw, data)
        if left:
            raise ImageError(f"{self.layer.blob.size - left} bytes; its descriptor says {self.layer.blob.size}")

    def _decompress(self) -> None:
        """Decompress, within the limits."""
        bound = min(self.limits.bytes, max(_RATIO_FROM, self.layer.blob.size * self.limits.ratio))
        total = 0
        while data := self._get(self.raw):
            for piece in self.engine.feed(data):
                total += len(piece)
                if total > bound:
                    raise ImageError(
                        f"unpacks to more than {bound} bytes (--limit bytes={self.limits.bytes}"
                        f" --limit ratio={self.limits.ratio})"
                    )
                self.tar_hash.update(piece)
                self._put(self.plain, piece)
        self.engine.end()

    # -- the reader --------------------------------------------------------------------------------

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes; b"" at the end. Raises ImageError."""
        if self.offset >= len(self.buffer):
            if self.ended:
                return b""
            self.buffer, self.offset = self._get(self.plain), 0
            if not self.buffer:
                self.ended = True
                return b""
        data = self.buffer[self.offset : self.offset + size]
        self.offset += len(data)
        self.delivered += len(data)
        if 0 <= self.allowance < self.delivered:
            raise ImageError(f"an extended header of more than {self.limits.header} bytes (--limit header=...)")
        return data

    def finish(self) -> None:
        """Read to the end and compare both digests; tar and gzip may be padded, and padding counts.

        Raises ImageError.
        """
        self.allowance = -1
        while self.read(CHUNK):
            pass
        for what, check, wanted in (
            ("blob", self.blob_hash, self.layer.blob.digest),
            ("uncompressed tar", self.tar_hash, self.layer.diff_id),
        ):
            found = f"{wanted.partition(':')[0]}:{check.hexdigest()}"
            if found != wanted:
                raise ImageError(f"the {what} has the digest {found}, expected {wanted}")

    def close(self) -> None:
        """End the threads and close the blob."""
        self.stopped.set()
        for thread in self.threads:
            thread.join(timeout=5)
        self.blob.close()


class _Stopped(Exception):
    """The reader has closed the stream."""
