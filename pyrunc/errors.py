"""Errors: which field, which value, which call, why, and what to do about it.

Every error that a user can get is a `PyruncError`. Its `str()` is the line on stderr and in
``--log``.
"""

from __future__ import annotations

from errno import errorcode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Not the texts of strerror(3): engines search our stderr. podman turns every "no such file or
# directory" into exit status 127 (command not found), so only the search for the program may print
# these words (docs/callers.md, Words).
_TEXT = {
    "ENOENT": "path not found",
    "EPERM": "operation not permitted",
    "EACCES": "permission denied",
    "EEXIST": "exists already",
    "ENOTDIR": "not a directory",
    "EISDIR": "is a directory",
    "EINVAL": "invalid argument",
    "EBUSY": "busy",
    "ENOSPC": "no space left on device",
    "EROFS": "read-only file system",
    "ELOOP": "too many symbolic links, or one where none is allowed",
    "EXDEV": "crosses a mount point or leaves the root filesystem",
    "ENODEV": "no such device or filesystem type",
    "ENOSYS": "not implemented by this kernel",
    "EMFILE": "too many open files in this process (see ulimit -n)",
    "ENFILE": "too many open files in the system",
    "ENOMEM": "out of memory",
    "ETXTBSY": "text file busy",
    "ENOEXEC": "exec format error",
    "E2BIG": "argument list too long",
    "ENAMETOOLONG": "file name too long",
    "ESRCH": "no such process",
    "EAGAIN": "resource temporarily unavailable",
    "ETIMEDOUT": "timed out",
    "EOPNOTSUPP": "not supported",
    "EIO": "input/output error",
    "EFBIG": "file too large",
    "ECONNREFUSED": "connection refused",
    "EPIPE": "broken pipe",
}


def errno_name(number: int) -> str:
    """The name of an errno, as ``ENOENT``; ``errno 999`` if libc does not know it."""
    return errorcode.get(number, f"errno {number}")


def errno_text(number: int) -> str:
    """Name and text of an errno: ``ENOENT: path not found``."""
    name = errno_name(number)
    text = _TEXT.get(name)
    return f"{name}: {text}" if text else name


def printable(text: str) -> str:
    """``text`` as one line without control characters, because errors are shown on terminals."""
    if text.isprintable():
        return text
    # These loops run in C: `plan` shows complete values, which may be long.
    wrong = [c for c in set(text) if not c.isprintable()]
    if len(wrong) > 64:
        return text.translate({ord(c): f"\\u{ord(c):04x}" for c in wrong})
    for c in wrong:
        text = text.replace(c, f"\\u{ord(c):04x}")
    return text


def brief(text: str, most: int = 200) -> str:
    """``text`` as one printable line of at most ``most`` characters."""
    line = printable(text[: most + 1])
    return line if len(line) <= most else line[: most - 3] + "..."


def show(value: object) -> str:
    """A config value as JSON, cut to one line; does not need the json module."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if type(value) is str:
        text = '"' + printable(value[:200].replace("\\", "\\\\").replace('"', '\\"')) + '"'
    elif type(value) is list:
        text = "[" + ", ".join(show(item) for item in value[:8]) + (", ...]" if len(value) > 8 else "]")
    elif type(value) is dict:
        text = "{" + ", ".join(f"{show(key)}: {show(value[key])}" for key in list(value)[:8])
        text += ", ...}" if len(value) > 8 else "}"
    else:
        text = str(value)
    return text if len(text) <= 200 else text[:197] + "..."


def hook_failure(kind: str, index: int) -> str:
    """The start of an error about a hook; scripts and runc's own tests search for these words."""
    return f"error running {kind} hook #{index}"


def frames(error: BaseException) -> str:
    """The traceback of an exception, without the traceback module, which the core phase lacks."""
    lines = []
    entry = error.__traceback__
    while entry is not None:
        code = entry.tb_frame.f_code
        lines.append(f"  {code.co_filename}:{entry.tb_lineno} in {code.co_name}\n")
        entry = entry.tb_next
    return "".join(lines) + f"{type(error).__name__}: {printable(str(error))}\n"


def of_interpreter(error: BaseException) -> str:
    """The meaning of an exception that the interpreter raises by itself, or ""."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and str(error) == "can't allocate lock"):
        return "out of memory"
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return "cannot start a thread (too little memory, or too many processes)"
    # CPython failed without setting an exception, which happens when it runs out of memory.
    return "out of memory (or a defect of the interpreter)" if isinstance(error, SystemError) else ""


# The first step of JSON pointers into config.json, process.json and the resources of `update`,
# which distinguishes a pointer from the path of a file.
_FIELDS = frozenset((
    "ociVersion", "process", "root", "hostname", "domainname", "mounts", "hooks", "annotations", "linux",
    "memory", "cpu", "pids", "blockIO", "hugepageLimits", "unified", "devices", "network", "rdma",
))  # fmt: skip


def pointer_of(text: str) -> str:
    """The JSON pointer at the start of a text, "" if there is none."""
    word = text.partition(" ")[0].rstrip(":")
    first = word[1:].partition("/")[0] if word.startswith("/") else ""
    if first == "root" and word not in ("/root", "/root/path", "/root/readonly"):
        return ""  # the path of a file
    return word if first in _FIELDS else ""


class PyruncError(Exception):
    """A failure that is reported to the user.

    ``exit_code`` is the status of the command line; ``errno`` is the system call's, or 0; ``value``
    is the value found; ``hint`` is a suggestion. Unknown parts are empty, or None for ``value``.
    """

    exit_code = 1
    errno = 0
    value: str | None = None
    hint = ""

    @property
    def pointer(self) -> str:
        """The JSON pointer (RFC 6901) of the field that caused the failure, or ""."""
        return pointer_of(str(self))


class Problem:
    """One thing wrong with a document.

    ``pointer`` (RFC 6901, or a line and column) is its place; ``expected`` and ``found`` are words;
    ``hint`` is a suggestion, or "".  ``str()`` returns one line.
    """

    __slots__ = ("expected", "found", "hint", "pointer")

    def __init__(self, pointer: str, expected: str, found: str = "", hint: str = "") -> None:
        self.pointer = pointer
        self.expected = expected
        self.found = found
        self.hint = hint

    def __str__(self) -> str:
        text = f"{brief(self.pointer) or '/'}: expected {self.expected}"
        if self.found:
            text += f", found {self.found}"
        return f"{text} ({self.hint})" if self.hint else text


class Capped(list):  # type: ignore[type-arg]  # a hot module avoids typing.Generic
    """A list that keeps the first hundred items; ``more`` counts the rest.

    A document may have a million problems.  Nobody reads that many, and they would take a GiB.
    """

    MOST = 100

    def __init__(self) -> None:
        super().__init__()
        self.more = 0

    def append(self, item: object) -> None:
        """Keep an item, or count it."""
        if len(self) < self.MOST:
            super().append(item)
        else:
            self.more += 1

    def full(self) -> bool:
        """Whether further items are only counted, so that there is no need to create one."""
        return len(self) >= self.MOST


class ConfigError(PyruncError):
    """config.json, or ``source``, is invalid; ``problems`` lists the problems found in one pass.

    ``more`` is the number of problems after the first hundred.  ``pointer``, ``value`` and ``hint``
    are those of the first problem.  An unreadable document has no problems.
    """

    SHOWN = 20  # a one-line message stays readable; `pyrunc plan` prints up to 100

    def __init__(self, problems: Sequence[Problem], source: str = "config.json", more: int = 0) -> None:
        self.problems = list(problems)
        self.more = more or getattr(problems, "more", 0)
        self.source = source
        if self.problems:
            self.value, self.hint = self.problems[0].found or None, self.problems[0].hint
        shown = "; ".join(printable(str(p)) for p in self.problems[: self.SHOWN])
        left = len(self.problems[self.SHOWN :]) + self.more
        super().__init__(f"{source}: {shown}; and {left} more" if left else f"{source}: {shown}")

    @property
    def pointer(self) -> str:
        """The pointer of the first problem."""
        return self.problems[0].pointer if self.problems else ""


class SysError(PyruncError):
    """A system call failed on behalf of a config field or of an operation.

    ``where`` is a JSON pointer, a path, an option or a word; ``call`` is the system call. ``str()``
    is ``WHERE "VALUE" (CONTEXT): CALL: ERRNO: text; hint``; each part may be missing. ``detail``
    replaces our text for the errno if the kernel gave its own (the log of fsconfig(2)).
    """

    context = ""

    def __init__(
        self, where: str, call: str, number: int, *, value: str | None = None, detail: str = "", hint: str = ""
    ) -> None:
        super().__init__(where, call, number)
        self.where, self.call, self.errno = where, call, number
        self.value, self.detail, self.hint = value, detail, hint

    def within(self, context: str) -> SysError:
        """Set the context within ``where``, a file or a step, and return the error."""
        self.context = context
        return self

    def __str__(self) -> str:
        text = brief(self.where)
        if self.value is not None:
            text += " " + show(self.value)
        if self.context:
            text += f" ({brief(self.context)})"
        if self.call:
            text += f": {self.call}"
        if self.errno:
            text += f": {errno_name(self.errno) if self.detail else errno_text(self.errno)}"
        if self.detail:
            text += f": {brief(self.detail, 2000)}"
        return f"{text}; {self.hint}" if self.hint else text

    @property
    def pointer(self) -> str:
        """The field of config.json, or "" if ``where`` is something else."""
        return pointer_of(self.where)


class StateError(PyruncError):
    """The container is not in a state that allows the operation, or there is no such container."""


class NotFound(StateError):
    """There is no such container."""

    def __init__(self, id: str) -> None:
        super().__init__(f"container does not exist: {id}")  # containerd and CRI-O search for the first words


class Damaged(StateError):
    """The state of a container is not JSON, or JSON that is not ours.

    Lack of memory or descriptors and I/O errors are not damage: a `delete` that treated them as
    such would lose a running container.
    """


class Busy(StateError):
    """Another pyrunc holds the lock of the container."""


class UsageError(PyruncError):
    """The command line is wrong."""
