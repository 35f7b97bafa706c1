"""The few things of cffi's ``ffi`` that hot verbs use, on memory of Python's own.

Inside the launcher the functions of the shim are builtin (native/launcher/gen_calls.py) and take bytes and buffers;
with this in place of ``ffi`` the same code runs on them and on cffi.  Only `interpreter.quick` hands it out; for a
list of texts see `interpreter.texts`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FORMATS = {"int": "i", "uint32_t": "I", "uint64_t": "Q", "unsigned short": "H", "char": "B"}  # of memoryview.cast
_SIZES = {"i": 4, "I": 4, "Q": 8, "H": 2, "B": 1}


class Ffi:
    """``ffi``, for arrays of numbers and of bytes."""

    NULL = None

    @staticmethod
    def new(kind: str, init: Any = None) -> Any:
        """``int[2]``, ``int[]`` with a list or a length, ``char[]``, ``int *``: zeroed, or with these values."""
        base, _, count = kind.partition("[")
        format: Any = _FORMATS[base.rstrip(" *")]
        values = list(init) if isinstance(init, list | tuple) else []
        if "*" in base:
            length, values = 1, [] if init is None else [init]
        elif count != "]":
            length = int(count[:-1])
        else:
            length = init if isinstance(init, int) else len(values)
        memory = memoryview(bytearray(length * _SIZES[format])).cast(format)
        for index, value in enumerate(values):
            memory[index] = value
        return memory

    @staticmethod
    def from_buffer(data: Any) -> Any:
        """What supports the buffer protocol, as it is."""
        return data

    @staticmethod
    def buffer(memory: memoryview, size: int) -> bytes:
        """The first bytes."""
        return bytes(memory.cast("B")[:size])

    @staticmethod
    def string(memory: memoryview) -> bytes:
        """The bytes up to the first NUL."""
        return bytes(memory).partition(b"\0")[0]


class Legacy:
    """The functions of the shim by their former names, with ``-errno`` instead of OSError."""

    def __getattr__(self, name: str) -> Any:
        from pyrunc.native.binding import calls

        function = getattr(calls, name[3:])

        def call(*args: Any) -> int:
            try:
                result: int = function(*args)
            except OSError as error:
                return -(error.errno or 0)
            return result

        return call
