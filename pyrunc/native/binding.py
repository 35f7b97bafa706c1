"""The functions of the shim: builtin in the launcher, through cffi in any other interpreter.

Both take numbers, bytes, buffers, lists of bytes and None for NULL, and raise OSError for
``-errno`` (native/shim/gen_calls.py).
"""

from __future__ import annotations

from pyrunc.interpreter import FROZEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.native.prototypes import Prototypes


def _bind() -> Prototypes:
    if FROZEN:
        import _pyrunc_launcher

        builtin: Prototypes = _pyrunc_launcher
        return builtin
    from pyrunc.native import foreign

    return foreign.calls


calls = _bind()


def text(memory: bytearray) -> bytes:
    """The bytes of a buffer up to the first NUL."""
    return bytes(memory).partition(b"\0")[0]
