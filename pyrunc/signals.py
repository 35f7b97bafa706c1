"""Signal names and numbers, as people and engines write them: ``9``, ``KILL``, ``SIGKILL``, ``sigkill``, ``RTMIN+3``."""

from __future__ import annotations

import _signal

from pyrunc.errors import PyruncError, show

LAST = 64


def number(text: str) -> int:
    """The number of a signal; 0 only asks whether the process is there.  Raises PyruncError."""
    if text.isascii() and text.isdigit():
        if len(text) < 4 and int(text) <= LAST:
            return int(text)
        raise PyruncError(f"unknown signal {show(text)}")
    short = text.upper().removeprefix("SIG")
    for base, sign in (("RTMIN", "+"), ("RTMAX", "-")):
        head, found, offset = short.partition(sign)
        if head == base and found and offset.isascii() and offset.isdigit() and len(offset) < 3:
            value = _signal.SIGRTMIN + int(offset) if sign == "+" else _signal.SIGRTMAX - int(offset)
            if _signal.SIGRTMIN <= value <= _signal.SIGRTMAX:
                return int(value)
    # SIG_IGN, SIG_BLOCK and their like are in the same module and no signals.
    value = getattr(_signal, "SIG" + short, None) if short.isalnum() else None
    if type(value) is not int:
        raise PyruncError(f"unknown signal {show(text)}")
    return value


def name(value: int) -> str:
    """``SIGKILL`` for 9; ``signal 35`` for one without a name of its own."""
    for text in dir(_signal):
        if text.startswith("SIG") and text[3] != "_" and text not in ("SIGCLD", "SIGPOLL", "SIGIOT"):
            if getattr(_signal, text) == value:
                return text
    return f"signal {value}"
