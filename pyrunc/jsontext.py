"""JSON that pyrunc writes, and reads back."""

from __future__ import annotations

from pyrunc import interpreter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def quote(text: str) -> str:
    """``text`` as a JSON string in ASCII; a byte that was not UTF-8 (surrogateescape) stays a lone surrogate."""
    return interpreter.json_writer()(text)


def dumps(value: object, indent: str = "") -> str:
    """A JSON document of dicts, lists, strings, numbers, booleans and None; compact without ``indent``.

    ``indent`` is the text of one level.  Raises TypeError for anything else.
    """
    return interpreter.json_writer()(value, indent)


def loads(data: bytes) -> Any:  # the caller names the type of the document that it has written
    """Parse a document that `dumps` wrote.  Raises ValueError, without details: nobody edits these files."""
    try:
        return interpreter.json_reader()(data, True)
    except ValueError:
        raise ValueError("not JSON") from None
