"""Strict JSON: bytes to Python values, with one reading only.

A runtime must not read a document differently from whoever checked it before (duplicate keys, NUL, lone surrogates and
trailing data are where JSON parsers differ), so everything ambiguous is an error here.  The json module is not
imported on the way: docs/adr/0007-json-scanner.md.
"""

from __future__ import annotations

from pyrunc import fs, runtime
from pyrunc.errors import ConfigError, Problem, PyruncError, errno_text, show
from pyrunc.spec.names import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_BYTES = 16 << 20
MAX_DEPTH = 128  # config.json needs 8; the C scanner recurses and would meet the recursion limit at about 1000

_BLANKS = " \t\n\r"


class Unreadable(ConfigError):
    """The document is not there or cannot be read; there is no pointer to name."""

    def __init__(self, source: str, text: str) -> None:
        PyruncError.__init__(self, f"{source}: {text}")
        self.problems = []
        self.source = source


class _Refused(Exception):
    """A number that JSON or Python would accept and we do not."""


def load_config(path: str) -> tuple[dict[str, Any], bytes]:
    """Read and parse a config.json.  Returns the top-level object and the bytes of the file.

    Raises ConfigError: not there, unreadable, larger than 16 MiB, not strict JSON, not an object.
    """
    source = path.rpartition("/")[2] or path
    try:
        data = fs.read_file(path, MAX_BYTES)
    except OSError as error:
        raise _unreadable(path, source, error) from error
    except ValueError as error:  # NUL in the path
        raise Unreadable(source, f"cannot be read: {show(path)} is no path") from error
    config = parse_json(data, source)
    if type(config) is not dict:
        kind = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(type(config), "a number")
        raise ConfigError([Problem("", "object", kind)], source)
    return config, data


def _unreadable(path: str, source: str, error: OSError) -> Unreadable:
    number = error.errno or 0
    if errno_text(number).startswith("EFBIG"):
        return Unreadable(source, f"{show(path)} is larger than {MAX_BYTES >> 20} MiB")
    hint = ""
    if errno_text(number).startswith(("ENOENT", "ENOTDIR")):
        hint = "; a bundle is a directory with a config.json and a root filesystem (`pyrunc spec` writes one)"
    return Unreadable(source, f"cannot be read: open {show(path)}: {errno_text(number)}{hint}")


def parse_json(data: bytes, source: str) -> Any:
    """Parse one JSON document (RFC 8259), stricter than the json module.

    ``source`` is the name for messages.  Raises ConfigError on: more than 16 MiB, bytes that are not UTF-8, a byte
    order mark, duplicate keys, U+0000 or a lone surrogate in a string or key, NaN and Infinity, numbers beyond a
    double or of more than 4300 digits, nesting deeper than 128, anything after the document.
    """
    if len(data) > MAX_BYTES:
        raise Unreadable(source, f"larger than {MAX_BYTES >> 20} MiB")
    text = _decode(data, source)
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        raise ConfigError([Problem("", f"nesting of at most {MAX_DEPTH} levels", "more")], source)
    duplicates: list[tuple[dict[str, Any], str]] = []

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            duplicates.append((found, _first_duplicate(pairs)))
        return found

    try:
        value, end = _scan(text, members)
    except _Refused as error:
        raise ConfigError([Problem("", "numbers that JSON and this machine have", str(error))], source) from None
    except Exception as error:  # the private scanner's ways to say "malformed" are many (see runtime.json_scanner)
        raise _malformed(text, source, error) from None
    if end != len(text) and text[end:].strip(_BLANKS):
        raise _malformed(text, source, None)
    problems = [_duplicate(value, found, key) for found, key in duplicates]
    # Only an escape can bring these in: raw control characters and encoded surrogates have failed already.
    if b"\\u0000" in data or b"\\ud" in data or b"\\uD" in data:
        _check_strings(value, "", problems)
    if problems:
        raise ConfigError(problems, source)
    return value


def _decode(data: bytes, source: str) -> str:
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError([Problem("line 1 column 1", "UTF-8 text", "a byte order mark")], source)
    try:
        return data.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        found = f"byte 0x{data[error.start]:02x}"
        raise ConfigError([Problem(f"line {line} column {column}", "UTF-8 text", found)], source) from None


def _depth(data: bytes) -> int:
    """How deep arrays and objects nest, counting no further than a little over `MAX_DEPTH`; no recursion.

    First the strings go: without escaped quotes, two quotes with no bracket between them are a string of no interest,
    or the end of one and the start of the next.  Then each pass takes one level off; what is unbalanced is walked.
    """
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in data else data
    bare = bare.translate(bytes.maketrans(b"{}", b"[]"), bytes(c for c in range(256) if c not in b'"{}[]'))
    bare = b"".join(bare.replace(b'""', b"").split(b'"')[::2])
    for level in range(MAX_DEPTH + 2):
        if not bare:
            return level
        left = bare.replace(b"[]", b"")
        if len(left) == len(bare):
            break
        bare = left
    depth = deepest = 0
    for byte in bare:
        depth += 1 if byte == 0x5B else -1
        if depth > deepest:
            deepest = depth
            if deepest > MAX_DEPTH:
                break
    return level + deepest


class _Context:
    """What `_json.make_scanner` reads its settings from."""

    __slots__ = ("object_pairs_hook",)

    strict = True
    object_hook = None
    parse_int = int

    def __init__(self, members: Callable[[list[tuple[str, Any]]], dict[str, Any]]) -> None:
        self.object_pairs_hook = members

    @staticmethod
    def parse_float(text: str) -> float:
        """A finite double; 1e999 would become infinity."""
        value = float(text)
        if value - value != 0.0:
            raise _Refused(text if len(text) <= 40 else text[:37] + "...")
        return value

    @staticmethod
    def parse_constant(name: str) -> float:
        """NaN, Infinity, -Infinity: JavaScript has them, JSON has not."""
        raise _Refused(name)


def _scan(text: str, members: Callable[[list[tuple[str, Any]]], dict[str, Any]]) -> tuple[Any, int]:
    start = 0
    while text.startswith(("\n", " ", "\r", "\t"), start):
        start += 1
    try:
        make_scanner = runtime.json_scanner()
    except ImportError:
        return _scan_slowly(text, start, members)
    return make_scanner(_Context(members))(text, start)


def _scan_slowly(text: str, start: int, members: Callable[[list[tuple[str, Any]]], dict[str, Any]]) -> tuple[Any, int]:
    """The same with the json module, for an interpreter without the C scanner."""
    runtime.full()
    from json import JSONDecoder

    decoder = JSONDecoder(
        object_pairs_hook=members, parse_float=_Context.parse_float, parse_constant=_Context.parse_constant
    )
    return decoder.raw_decode(text, start)


# What json says -> what it expected and what it found.
_WORDS = {
    "Extra data": ("end of the document", "more data"),
    "Unterminated string starting at": ("a closing quote", "an unterminated string"),
    "Invalid control character at": ("no control character in a string", "one"),
    "Invalid \\escape": ("an escape that JSON has", "another"),
    "Invalid \\uXXXX escape": ("four hexadecimal digits", "something else"),
    "Illegal trailing comma before end of object": ("no comma before }", "one"),
    "Illegal trailing comma before end of array": ("no comma before ]", "one"),
}


def _malformed(text: str, source: str, cause: Exception | None) -> ConfigError:
    """Parse again with json, which knows line and column."""
    if isinstance(cause, (MemoryError, RecursionError)):
        return Unreadable(source, f"cannot be parsed: {type(cause).__name__}")
    runtime.full()
    import json

    if not text.strip(_BLANKS):
        return ConfigError([Problem("", "a JSON document", "nothing")], source)
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        message = error.msg.rstrip(": ")
        expected, found = _WORDS.get(message, (message.removeprefix("Expecting "), ""))
        if not found:
            rest = text[error.pos : error.pos + 20]
            found = show(rest) if rest else "end of file"
        return ConfigError([Problem(f"line {error.lineno} column {error.colno}", expected, found)], source)
    except ValueError:  # the interpreter's limit on the digits of an integer
        return ConfigError([Problem("", "numbers of at most 4300 digits", "a longer one")], source)
    except RecursionError as error:
        return Unreadable(source, f"cannot be parsed: {type(error).__name__}")
    return Unreadable(source, f"cannot be parsed: {type(cause).__name__}: {cause}")


def _first_duplicate(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return key
        seen.add(key)
    raise AssertionError("no duplicate")


def _duplicate(root: Any, found: dict[str, Any], key: str) -> Problem:
    where = _find(root, found) or ""  # an object inside a value that a duplicate hides has no pointer
    return Problem(f"{where}/{escape(key)}", f"key {show(key)} once", "it again")


def _find(root: Any, wanted: dict[str, Any]) -> str | None:
    """JSON pointer of the very object ``wanted``; no recursion."""
    stack = [("", root)]
    while stack:
        pointer, value = stack.pop()
        if value is wanted:
            return pointer
        if type(value) is dict:
            stack.extend((f"{pointer}/{escape(key)}", item) for key, item in value.items())
        elif type(value) is list:
            stack.extend((f"{pointer}/{index}", item) for index, item in enumerate(value))
    return None


def _check_strings(value: Any, pointer: str, problems: list[Problem]) -> None:
    """Report U+0000 (C would cut the string there) and lone surrogates (os.fsencode would make raw bytes of them)."""
    if type(value) is str:
        wrong = _wrong_character(value)
        if wrong:
            problems.append(Problem(pointer, "text without NUL and lone surrogates", wrong))
    elif type(value) is dict:
        for key, item in value.items():
            wrong = _wrong_character(key)
            here = f"{pointer}/{escape(key)}"
            if wrong:
                problems.append(Problem(here, "a key without NUL and lone surrogates", wrong))
            _check_strings(item, here, problems)
    elif type(value) is list:
        for index, item in enumerate(value):
            _check_strings(item, f"{pointer}/{index}", problems)


def _wrong_character(text: str) -> str:
    if text.isascii() and "\0" not in text:
        return ""
    for char in text:
        if char == "\0" or 0xD800 <= ord(char) <= 0xDFFF:
            return f"U+{ord(char):04X}"
    return ""
