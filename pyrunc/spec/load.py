"""Strict JSON: bytes to Python values, with exactly one interpretation.

A runtime must not read a document differently from the program that checked it. JSON parsers differ
in duplicate keys, NUL, lone surrogates and trailing data, so everything ambiguous is an error. The
reader itself is native/reader (docs/adr/0014-json-reader.md); this module reads files and explains
what is wrong with them.
"""

from __future__ import annotations

from pyrunc import fs, interpreter
from pyrunc.errors import ConfigError, Problem, PyruncError, SysError, errno_text, show
from pyrunc.spec.names import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.spec.types import Config

MAX_BYTES = 16 << 20
MAX_DEPTH = 128  # READER_DEPTH of native/reader/reader.h
MAX_VALUES = 1 << 19  # READER_VALUES: strings, numbers, arrays, objects ... of one document
MAX_DIGITS = 4300  # READER_DIGITS

_BLANKS = " \t\n\r"


class Unreadable(ConfigError):
    """The document is missing or unreadable, so there is no JSON pointer."""

    def __init__(self, source: str, text: str) -> None:
        PyruncError.__init__(self, f"{source}: {text}")
        self.problems = []
        self.source = source


def load_config(path: str) -> tuple[Config, bytes]:
    """Read and parse a config.json. Returns the top-level object and the bytes of the file.

    The members are not checked yet. Raises ConfigError if the file is missing, unreadable, larger
    than 16 MiB, not strict JSON, or not an object.
    """
    source = path.rpartition("/")[2] or path
    try:
        data = fs.read_file(path, MAX_BYTES)
    except OSError as error:
        raise _unreadable(path, source, error) from error
    except ValueError as error:  # NUL in the path
        raise Unreadable(source, f"cannot be read: {show(path)} is not a path") from error
    config: Config = parse_json(data, source)
    if type(config) is not dict:
        kind = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(type(config), "a number")
        raise ConfigError([Problem("", "object", kind)], source)
    return config, data


def read_document(source: str, path: str) -> bytes:
    """The document in a file, or stdin (``-``), of at most MAX_BYTES.  Raises SysError."""
    try:
        return fs.read_fd(0, MAX_BYTES) if path == "-" else fs.read_file(path, MAX_BYTES)
    except OSError as error:
        raise SysError(source, "open", error.errno or 0, value=path) from error


def _unreadable(path: str, source: str, error: OSError) -> Unreadable:
    number = error.errno or 0
    if errno_text(number).startswith("EFBIG"):
        return Unreadable(source, f"{show(path)} is larger than {MAX_BYTES >> 20} MiB")
    hint = ""
    if errno_text(number).startswith(("ENOENT", "ENOTDIR")):
        hint = "; a bundle is a directory with a config.json and a root filesystem (`pyrunc spec` writes one)"
    return Unreadable(source, f"cannot be read: open {show(path)}: {errno_text(number)}{hint}")


def parse_json(data: bytes, source: str) -> Any:  # the caller names the type that it goes on to check
    """Parse one JSON document (RFC 8259), stricter than the json module. A member that is null
    counts as absent.

    ``source`` is its name in messages. Raises ConfigError for: more than 16 MiB or 524,288 values,
    bytes that are not UTF-8, a byte order mark, duplicate keys, keys that were chosen to collide in
    a hash table, U+0000 or a lone surrogate in a string or key, NaN and Infinity, numbers beyond a
    double or of more than 4300 characters, nesting deeper than 128, anything after the document.
    Raises MemoryError.
    """
    if len(data) > MAX_BYTES:
        raise Unreadable(source, f"larger than {MAX_BYTES >> 20} MiB")
    try:
        return interpreter.json_reader()(data)
    except ValueError as error:
        first, second = error.args
    if type(second) is str:
        raise ConfigError([_malformed(data, first, second)], source)
    raise ConfigError([_content(*fault) for fault in first], source, more=second - len(first))


# The reader's message -> what was expected and what was found; "" for the text at that position.
_WORDS = {
    "value": ("value", ""),
    "key": ("property name enclosed in double quotes", ""),
    "colon": ("':' delimiter", ""),
    "comma": ("',' delimiter", ""),
    "comma}": ("no comma before }", "one"),
    "comma]": ("no comma before ]", "one"),
    "end": ("end of the document", "more data"),
    "open": ("a closing quote", "an unterminated string"),
    "control": ("no control character in a string", "one"),
    "escape": ("an escape that JSON has", "another"),
    "hex": ("four hexadecimal digits", "something else"),
    "digits": (f"numbers of at most {MAX_DIGITS} digits", "a longer one"),
    "depth": (f"nesting of at most {MAX_DEPTH} levels", "more"),
    "values": (f"at most {MAX_VALUES} values in a document", "more"),
}


def _malformed(data: bytes, offset: int, word: str) -> Problem:
    """The problem at a position of a text."""
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return Problem("line 1 column 1", "UTF-8 text", "a byte order mark")
    try:
        text = data.decode("utf-8", "strict")
        offset = len(data[:offset].decode("utf-8", "strict"))
    except UnicodeDecodeError as error:  # reported first: the text before it may only look malformed
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        return Problem(f"line {line} column {column}", "UTF-8 text", f"byte 0x{data[error.start]:02x}")
    if word == "value" and not text.strip(_BLANKS):
        return Problem("", "a JSON document", "nothing")
    if word == "constant":
        end = offset
        while text[end : end + 1] not in ("", ",", "]", "}", " ", "\n", "\r", "\t") and end < offset + 41:
            end += 1
        found = text[offset:end] if end <= offset + 40 else text[offset : offset + 37] + "..."
        expected = "numbers that JSON and this machine have"
    else:
        expected, found = _WORDS[word]
        found = found or (show(text[offset : offset + 20]) if offset < len(text) else "end of file")
    line = text.count("\n", 0, offset) + 1
    return Problem(f"line {line} column {offset - text.rfind(chr(10), 0, offset)}", expected, found)


def _content(path: list[str | int], kind: str, found: str) -> Problem:
    """The problem with a value or a key."""
    pointer = "".join(f"/{escape(step) if type(step) is str else step}" for step in path)
    if kind == "duplicate":
        return Problem(pointer, f"key {show(path[-1])} once", "it again")
    if kind == "crowd":
        return Problem(pointer, "keys that hash tables can tell apart", f"{found} keys chosen to collide")
    return Problem(pointer, ("a key" if kind == "key" else "text") + " without NUL and lone surrogates", found)
