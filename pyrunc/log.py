"""``--log``, in the two formats that engines parse (docs/callers.md, Log), and warnings on stderr.

containerd decodes every line of the file as JSON and reports the last one of level error, so a
failing command writes exactly one such line, whole, in one write(2).

A warning is written to the file, and to stderr if it is a terminal. Without ``--log``, it is always
written to stderr, except for commands whose stderr engines parse or mix with the container's output
(docs/adr/0022-stderr.md).
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
    """Write a line to stderr: ``pyrunc: error: TEXT``.  Failures are ignored.

    Scripts and youki's tests search for the word `error`.
    """
    line = f"pyrunc: {level}: {brief(text, LINE)}\n".encode("utf-8", "replace")
    fs.ignore(fs.write_all, _STDERR, line)


class Log:
    """Writes messages to the file of ``--log`` and to stderr.

    ``stderr_is_ours``: callers do not parse stderr as a result of the command or as the program's
    output.
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
        """Log a message if ``--debug`` is set."""
        if self.debugging:
            self._write("debug", text)

    def info(self, text: str) -> None:
        """Log a message that requires no action."""
        if self.debugging or self.to_file:
            self._write("info", text)

    def warning(self, text: str, *, aloud: bool = False) -> None:
        """Log that something has no effect or fails.  ``aloud``: write it to stderr in any case."""
        if self.debugging or self.to_file:
            self._write("warning", text)
            if self.fd == _STDERR:
                return
        if aloud or posix.isatty(_STDERR) or (self.stderr_is_ours and not self.to_file):
            self._say_warning(text)

    def _say_warning(self, text: str) -> None:
        """Write to stderr; limited, because 16,000 hooks can fail."""
        if self.said < _MOST:
            text = brief(text, 4096)
            say("warning", text)
            self.said += len(text)
            if self.said >= _MOST:
                say("warning", "further warnings are omitted")

    def warnings(self, found: Capped, source: str) -> None:
        """Log the warnings about a document."""
        for one in found:
            self.warning(f"{source}: {one}")
        if found.more:
            self.warning(f"{source}: and {found.more} more")

    def error(self, text: str) -> None:
        """Log an error to the file only: the caller writes it to stderr in another format."""
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
    """The descriptor that a path such as /dev/stderr names, -1 for other paths.

    The default of runc is /dev/stderr.  These paths are links, which O_NOFOLLOW refuses.
    """
    number = {"/dev/stdout": "1", "/dev/stderr": "2"}.get(path, "")
    for prefix in ("/dev/fd/", "/proc/self/fd/"):
        if path.startswith(prefix):
            number = path[len(prefix) :]
    return int(number[:20]) if number.isascii() and number.isdigit() else -1


def _open(path: str) -> int:
    """Open the file for appending.  Raises SysError."""
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
