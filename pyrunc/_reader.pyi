"""Types of native/reader: strict JSON in one pass, both ways."""

from typing import Any

def read_json(data: bytes, ours: bool = False, /) -> Any:
    """One JSON document (RFC 8259); a member that is null is left out, as if it were absent.

    Raises ValueError with ``(offset, word)`` for what is malformed: the place in bytes, and a word that
    `pyrunc.spec.load` has sentences for.  Raises ValueError with ``(faults, count)`` for content that is refused:
    at most 100 of ``count`` entries ``(path, kind, found)``, where path is a list of keys and indexes, and kind is
    ``text`` or ``key`` (U+0000 or a lone surrogate), ``duplicate``, or ``crowd``: keys that were chosen to collide
    in a dict.  Raises MemoryError.

    ``ours``: a file that pyrunc wrote, where null and lone surrogates mean something, and of any number of values.
    """

def write_json(value: object, indent: str = "", /) -> str:
    """A JSON document of dicts with str keys, lists, tuples, str, int, finite float, bool and None, in ASCII.

    ``indent`` is the text of one level; without it there are no blanks.  A lone surrogate stays one, as an escape.
    Raises TypeError for anything else, MemoryError, RecursionError.
    """
