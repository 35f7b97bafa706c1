"""JSON documents that pyrunc writes and reads."""

from __future__ import annotations

from pyrunc import interpreter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def quote(text: str) -> str:
    """``text`` as a JSON string in ASCII; a surrogateescaped byte becomes a lone surrogate."""
    return interpreter.json_writer()(text)


def dumps(value: object, indent: str = "") -> str:
    """Encode dicts, lists, strings, numbers, booleans and None as JSON.

    ``indent`` is the text of one level; without it, the document is compact. Raises TypeError for
    anything else.
    """
    return interpreter.json_writer()(value, indent)


def loads(data: bytes) -> Any:  # the caller names the type of the document that it has written
    """Parse a document of `dumps`.

    Raises ValueError, without details: nobody edits these files.
    """
    try:
        return interpreter.json_reader()(data, True)
    except ValueError:
        raise ValueError("not JSON") from None
