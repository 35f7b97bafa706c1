"""Terminals: sizes and modes."""

from __future__ import annotations

from _struct import unpack

from pyrunc.native.binding import calls

_MODE = 64  # PR_TERMINAL of shim.h

# (fd, rows, columns).
set_size = calls.set_winsize
# (fd): newlines stay newlines on their way out of this terminal.
clear_onlcr = calls.terminal_clear_onlcr


def size(fd: int) -> tuple[int, int]:
    """Rows and columns.  Raises OSError: ENOTTY if it is not a terminal."""
    out = bytearray(8)
    calls.get_winsize(fd, out)
    return unpack("4H", out)[:2]


def make_raw(fd: int) -> bytes:
    """Make a terminal raw (cfmakeraw(3)), but for its output processing; the former mode, for
    `restore`.

    Raises OSError: ENOTTY if it is not a terminal.
    """
    mode = bytearray(_MODE)
    calls.terminal_raw(fd, mode, _MODE)
    return bytes(mode)


def restore(fd: int, mode: bytes) -> None:
    """Put a former mode back, once all output is written.  Raises OSError."""
    calls.terminal_restore(fd, mode, len(mode))
