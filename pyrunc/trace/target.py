"""FILE of ``--trace``: opened before anything is done, complete after every write.

A regular file is a document to which several commands append, sequentially or concurrently.
Anything else (a fifo, a terminal, /dev/stderr) is written once, from its beginning.
"""

from __future__ import annotations

import posix
import time
from errno import EAGAIN, ENOSPC
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from posix import O_CLOEXEC, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDWR, O_WRONLY

from pyrunc import fs
from pyrunc.errors import SysError, errno_text
from pyrunc.log import own_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.trace.record import Recorder, Span

_REGULAR, _TYPE = 0o100000, 0o170000
_PATIENCE = 5.0  # seconds to wait for another command's write
_EXPECTED = "expected a trace of pyrunc, an empty file or none"


def open_target(spec: str, where: str) -> Target:
    """Open the target for ``FILE`` or ``otlp:FILE``. Raises SysError."""
    if spec.startswith("otlp:"):
        from pyrunc.trace import otlp

        return otlp.Otlp(spec[5:], where)
    from pyrunc.trace import chrome

    return chrome.Chrome(spec, where)


class Target:
    """Common code of both formats. ``head``, ``between`` and ``tail`` surround the spans."""

    head = between = tail = b""

    def __init__(self, path: str, where: str) -> None:
        """Open or create the file (0600). Raises SysError, also for a file with other content."""
        self.where, self.path = where, path
        self.begun = False  # for non-regular files: the head has been written
        self.broken = False
        self.fd = -1
        try:
            self.fd, self.regular = self.open()
            if self.regular and not self.ours_now():
                raise SysError(where, "", 0, value=path, detail=_EXPECTED)
        except (OSError, OverflowError) as error:
            self.close()
            raise SysError(where, "open", getattr(error, "errno", None) or 9, value=path) from error
        except BaseException:
            self.close()
            raise

    def open(self) -> tuple[int, bool]:
        """The descriptor, and whether it is a regular file. Raises OSError."""
        number = own_number(self.path)
        if number >= 0:
            posix.fstat(number)
            return number, False
        # As for --log: a link is refused, and a fifo without a reader is an error rather than a
        # hang.
        fd = posix.open(self.path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0o600)
        try:
            if posix.fstat(fd).st_mode & _TYPE != _REGULAR:
                return fd, False
            again = posix.open(f"/proc/self/fd/{fd}", O_RDWR | O_CLOEXEC)  # its end must be read
        except BaseException:
            posix.close(fd)
            raise
        posix.close(fd)
        return again, True

    def ours_now(self) -> bool:
        """Check `ours` while no other command is between its events and its tail. Raises
        OSError."""
        self.lock()
        try:
            return self.ours(posix.fstat(self.fd).st_size)
        finally:
            flock(self.fd, LOCK_UN)

    def ours(self, size: int) -> bool:
        """Whether the file was written by a trace. Raises OSError."""
        if not size:
            return True
        tail = self.tail or b"\n"
        if size < len(self.head) + len(tail):
            return False
        start = posix.pread(self.fd, len(self.head), 0)
        return start == self.head and posix.pread(self.fd, len(tail), size - len(tail)) == tail

    # -- writing -----------------------------------------------------------------------------------

    def render(self, recorder: Recorder, spans: Sequence[Span]) -> bytes:
        """The spans in the file's format, without the surrounding text."""
        raise NotImplementedError

    def traceparent(self, number: int) -> str:
        """TRACEPARENT for the children of a span: its number, 0 for the command, -1 - n for step
        n; "" for none."""
        return ""

    def write(self, recorder: Recorder, spans: Sequence[Span]) -> str:
        """Append spans; returns an error message, or "". After an error the file is unchanged."""
        if self.broken:
            return ""
        data = self.render(recorder, spans)
        try:
            if self.regular:
                self.add(data)
            else:
                fs.write_all(self.fd, (self.between if self.begun else self.head) + data)
                self.begun = True
        except OSError as error:
            self.broken = True
            return f"the trace is not written: {errno_text(error.errno or 0)}"
        return ""

    def add(self, data: bytes) -> None:
        """Overwrite the tail. Raises OSError."""
        self.lock()
        try:
            size = posix.fstat(self.fd).st_size
            if not self.ours(size):
                raise OSError(EAGAIN, "another program has written to it")
            at = size - len(self.tail) if size else 0
            data = (self.between if size else self.head) + data + self.tail
            done = 0
            try:
                while done < len(data):
                    written = posix.pwrite(self.fd, data[done:], at + done)
                    if not written:
                        raise OSError(ENOSPC, "")
                    done += written
            except OSError:
                fs.ignore(posix.ftruncate, self.fd, size)
                if size and done:
                    fs.ignore(posix.pwrite, self.fd, self.tail, at)
                raise
        finally:
            flock(self.fd, LOCK_UN)

    def lock(self) -> None:
        """Lock out other commands' writes. Raises OSError."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return flock(self.fd, LOCK_EX | LOCK_NB)
            except OSError as error:
                if error.errno != EAGAIN or time.monotonic() > deadline:
                    raise
                time.sleep(0.002)

    def close(self) -> str:
        """Close the file; returns an error message, or ""."""
        if self.begun and not self.regular and not self.broken and self.tail:
            try:
                fs.write_all(self.fd, self.tail)
            except OSError as error:
                return f"the trace is not written: {errno_text(error.errno or 0)}"
        if own_number(self.path) < 0:
            fs.close(self.fd)
        return ""
