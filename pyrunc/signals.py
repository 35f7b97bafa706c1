"""Signal names and numbers: ``9``, ``KILL``, ``sigkill``, ``RTMIN+3``."""

from __future__ import annotations

from pyrunc.errors import PyruncError, show

# signal(7), x86 and arm: the position is the number, starting at 1. Python's own table does not
# exist in the core phase.
NAMES = (
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
)  # fmt: skip
ALIASES = {"IOT": 6, "CLD": 17, "POLL": 29}
SIGKILL, SIGTERM, SIGXCPU, SIGSYS = 9, 15, 24, 31
RTMIN, RTMAX = 34, 64  # libc's numbers: it reserves the kernel's first two


def number(text: str) -> int:
    """The number of a signal; 0 only tests whether the process exists.  Raises PyruncError."""
    if text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= RTMAX:
        return int(text)
    short = text.upper().removeprefix("SIG") if text.isascii() else ""  # U+0131 becomes "I" in upper case
    if short in NAMES:
        return NAMES.index(short) + 1
    if short in ALIASES:
        return ALIASES[short]
    for base, start, sign in (("RTMIN", RTMIN, 1), ("RTMAX", RTMAX, -1)):
        offset = short.removeprefix(base)
        if offset == "" and short == base:
            return start
        if short.startswith(base) and offset[0] == ("+" if sign > 0 else "-"):
            digits = offset[1:]
            if digits.isascii() and digits.isdigit() and len(digits) < 3 and int(digits) <= RTMAX - RTMIN:
                return start + sign * int(digits)
    raise PyruncError(f"unknown signal {show(text)}{_expected(text, short)}")


def _expected(text: str, short: str) -> str:
    """The signal that a misspelled word probably means."""
    if text.removeprefix("-").isdigit():
        return f": expected a number from 0 to {RTMAX}"
    from pyrunc import hints

    known = (*NAMES, *ALIASES, "RTMIN", "RTMAX")
    return hints.did_you_mean(short, known) or ": expected a number or a name such as TERM, SIGTERM or RTMIN+3"


def described(value: int) -> str:
    """The name of a signal; for SIGSYS, which seccomp sends, with the text of strsignal(3)."""
    return name(value) + (" (bad system call)" if value == SIGSYS else "")


def name(value: int) -> str:
    """The name of a signal: ``SIGKILL`` for 9, ``SIGRTMIN+1`` for 35."""
    if 1 <= value <= len(NAMES):
        return "SIG" + NAMES[value - 1]
    return f"SIGRTMIN+{value - RTMIN}" if RTMIN <= value <= RTMAX else f"signal {value}"
