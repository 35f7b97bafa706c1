"""``--log``: one line per event, in the two shapes engines parse (docs/callers.md, Log); and warnings on stderr.

containerd decodes every line of the file as JSON and reports the last one of level error, so a
failing command writes exactly one such line, whole, in one write(2).

A warning goes to the file, and to stderr when that is a terminal.  Without ``--log`` it goes to
stderr in any case, but not where an engine merges stderr with what it parses, or with the output
of the container (docs/adr/0022-stderr.md).
"""

from __future__ import annotations

import posix
import time
from posix import O_APPEND, O_CLOEXEC, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_WRONLY

from pyrunc import fs
from pyrunc.errors import SysError, brief, printable
from pyrunc.jsontext import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.errors import Capped

_STDERR = 2
LINE = 15000  # characters of one line, of up to four bytes each
_MOST = 24576  # characters of warnings on stderr, which callers keep in memory


def say(level: str, text: str) -> None:
    """One line on stderr: ``pyrunc: error: TEXT``.  A stderr that is closed or full changes nothing.

    Scripts, and youki's tests, know a failure by the word `error`.
    """
    line = f"pyrunc: {level}: {brief(text, LINE)}\n".encode("utf-8", "replace")
    fs.ignore(fs.write_all, _STDERR, line)


class Log:
    """Where messages go: the file of ``--log``, and stderr.

    ``stderr_is_ours``: nobody takes what is on stderr for the answer of the command, or for the
    program's output.
    """

    __slots__ = ("debugging", "fd", "json", "said", "stderr_is_ours", "to_file")

    def __init__(self, path: str = "", format: str = "text", debug: bool = False) -> None:
        """Open the log (0600, appending).  ``format`` is text or json.  Raises SysError."""
        self.json = format == "json"
        self.debugging = debug
        self.to_file = self.stderr_is_ours = False
        self.said = 0  # characters of warnings on stderr
        self.fd = _STDERR
        path = path.removeprefix("file:")  # crun's spelling
        if path:
            self.fd = _open(path)
            self.to_file = True

    def debug(self, text: str) -> None:
        """For ``--debug`` only."""
        if self.debugging:
            self._write("debug", text)

    def info(self, text: str) -> None:
        """Worth knowing, nothing to do about it."""
        if self.debugging or self.to_file:
            self._write("info", text)

    def warning(self, text: str, *, aloud: bool = False) -> None:
        """Something has no effect, or not all of it; ``aloud``: on stderr whatever else reads that."""
        if self.debugging or self.to_file:
            self._write("warning", text)
            if self.fd == _STDERR:
                return
        if aloud or posix.isatty(_STDERR) or (self.stderr_is_ours and not self.to_file):
            self._say_warning(text)

    def _say_warning(self, text: str) -> None:
        """Write to stderr, bounded: 16,000 hooks can fail."""
        if self.said < _MOST:
            text = brief(text, 4096)
            say("warning", text)
            self.said += len(text)
            if self.said >= _MOST:
                say("warning", "what else there is to warn of is left out here")

    def warnings(self, found: Capped, source: str) -> None:
        """All warnings about a document."""
        for one in found:
            self.warning(f"{source}: {one}")
        if found.more:
            self.warning(f"{source}: and {found.more} more")

    def error(self, text: str) -> None:
        """Why the command fails; into the file only: the caller says it on stderr in its own shape."""
        if self.to_file:
            self._write("error", text)

    def _write(self, level: str, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = printable(text)
        if self.json:
            line = f'{{"level":"{level}","msg":{quote(text)},"time":"{stamp}"}}\n'
        else:
            escaped = text.replace("\\", "\\\\").replace('"', '\\"')
            line = f'time="{stamp}" level={level} msg="{escaped}"\n'
        # A full disk must not make a working command fail, nor hide the error being reported.
        fs.ignore(fs.write_all, self.fd, line.encode("utf-8"))


def own_number(path: str) -> int:
    """The descriptor of ours that a path names, -1 for any other path.

    runc's own default is spelled /dev/stderr; these names are links that O_NOFOLLOW would refuse.
    """
    number = {"/dev/stdout": "1", "/dev/stderr": "2"}.get(path, "")
    for prefix in ("/dev/fd/", "/proc/self/fd/"):
        if path.startswith(prefix):
            number = path[len(prefix) :]
    return int(number[:20]) if number.isascii() and number.isdigit() else -1


def _open(path: str) -> int:
    """The descriptor to append to.  Raises SysError."""
    number = own_number(path)
    try:
        if number >= 0:
            posix.fstat(number)
            return number
        # O_NONBLOCK: a fifo without a reader is an error, not a hang.  It has no effect on files.
        return posix.open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0o600)
    except (OSError, OverflowError) as error:
        number_of = getattr(error, "errno", None) or 9  # EBADF
        raise SysError("--log", "open", number_of, value=path) from error
