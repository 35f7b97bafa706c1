"""A blob that is being downloaded: read while it grows, resumed if the connection breaks."""

from __future__ import annotations

import io
import os
import tempfile
import threading
import time
from typing import IO, Protocol

import urllib3

from pyrunc.image.descriptor import Descriptor
from pyrunc.image.errors import ImageError

TRIES = 5  # without progress
CHUNK = 256 << 10


def spool() -> str | None:
    """The directory for blobs: $TMPDIR, or file-hierarchy(7)'s place for large files."""
    return None if os.environ.get("TMPDIR") or not os.path.isdir("/var/tmp") else "/var/tmp"  # noqa: S108  # nosec B108


class Fetch(Protocol):
    """Request a blob from an offset on."""

    def __call__(self, wanted: Descriptor, offset: int, /) -> urllib3.BaseHTTPResponse: ...


class Download:
    """A thread that writes a blob to an unnamed file, never more than its descriptor's size."""

    def __init__(self, wanted: Descriptor, fetch: Fetch) -> None:
        self.wanted, self.fetch = wanted, fetch
        self.file = tempfile.TemporaryFile(dir=spool())  # noqa: SIM115  # closed by close()
        self.size = 0
        self.failure: BaseException | None = None
        self.done = self.stopped = False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._download()
        except BaseException as error:
            self.failure = error
        with self.changed:
            self.done = True
            self.changed.notify_all()

    def _download(self) -> None:
        tries = 0
        while self.size < self.wanted.size and not self.stopped:
            before = self.size
            try:
                self._once()
            except (urllib3.exceptions.HTTPError, OSError) as error:
                tries = 0 if self.size > before else tries + 1
                if tries >= TRIES:
                    raise ImageError(f"{self.wanted.short}: the connection broke {TRIES} times: {error}") from error
                time.sleep(0.1 * 2**tries)
                continue
            if self.size == before:
                raise ImageError(f"{self.wanted.short}: {before} bytes; its descriptor says {self.wanted.size}")

    def _once(self) -> None:
        """Send one request that continues where the last one ended."""
        response = self.fetch(self.wanted, self.size)
        try:
            skip = self.size if response.status == 200 else 0  # a registry that ignores Range starts from the beginning
            while not self.stopped:
                data = response.read(CHUNK)
                if not data:
                    return
                if skip:
                    data, skip = data[skip:], max(0, skip - len(data))
                if self.size + len(data) > self.wanted.size:
                    raise ImageError(f"{self.wanted.short}: more than the {self.wanted.size} bytes of its descriptor")
                self.file.write(data)
                self.file.flush()
                with self.changed:
                    self.size += len(data)
                    self.changed.notify_all()
        finally:
            response.close()

    def open(self) -> IO[bytes]:
        """A stream of the blob; it waits for data that has not arrived yet."""
        return io.BufferedReader(_Reader(self), CHUNK)

    def read_at(self, offset: int, size: int) -> bytes:
        """Read bytes at an offset; b"" at the end. Raises ImageError."""
        with self.changed:
            while offset >= self.size and not self.done:
                self.changed.wait(1.0)
            if offset >= self.size:
                if self.failure is not None:
                    raise self.failure
                return b""
            size = min(size, self.size - offset)
        return os.pread(self.file.fileno(), size, offset)

    def close(self) -> None:
        """Stop and release the file."""
        self.stopped = True
        self.thread.join(timeout=5)
        if not self.thread.is_alive():
            self.file.close()


class _Reader(io.RawIOBase):
    """The raw stream under `Download.open`."""

    def __init__(self, download: Download) -> None:
        self.download, self.offset = download, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self.download.read_at(self.offset, len(buffer))
        buffer[: len(data)] = data
        self.offset += len(data)
        return len(data)
