"""What parsers of small texts should say, said another way: regular expressions and exact
fractions."""

from __future__ import annotations

import re
from fractions import Fraction

from pyrunc.signals import ALIASES, NAMES

NUMBER = re.compile(r"[0-9]+")
ID = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_+.-]{0,241}")
USER = re.compile(r"([0-9]{1,20})(?::([0-9]{1,20}))?")
SIGNAL = re.compile(r"(?:SIG)?(?:(RTMIN|RTMAX)(?:([+-])([0-9]{1,2}))?|([A-Z0-9]+))", re.IGNORECASE | re.ASCII)
_B = r"[\s\x1c-\x1f]*"  # what str.strip takes off
SIZE = re.compile(rf"{_B}([0-9]{{1,18}})(?:\.([0-9]+))?{_B}(?:([kmgtp])(i?))?{_B}(b?){_B}", re.IGNORECASE | re.ASCII)
DURATION = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h)")
UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
# The pattern that semver.org suggests.
SEMVER = re.compile(
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(?:-((?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?"
)


def signal(text: str) -> int | None:
    if NUMBER.fullmatch(text):
        return int(text) if len(text) < 4 and int(text) <= 64 else None
    found = SIGNAL.fullmatch(text)
    if not found:
        return None
    base, sign, digits, name = found.groups()
    if base:
        up = base.upper() == "RTMIN"
        if sign and (sign == "+") != up:
            return None
        offset = int(digits or 0)
        return None if offset > 30 else 34 + offset if up else 64 - offset
    name = name.upper()
    if name in NAMES:
        return NAMES.index(name) + 1
    return ALIASES.get(name)


def user(text: str) -> tuple[int, int | None] | None:
    found = USER.fullmatch(text)
    if not found or any(part and int(part) > 2**32 - 2 for part in found.groups()):
        return None
    return int(found[1]), None if found[2] is None else int(found[2])


def size(text: str) -> int | None:
    if text.strip() == "-1":
        return -1
    found = SIZE.fullmatch(text)
    if not found:
        return None
    scale: int = 1024 ** " kmgtp".index((found[3] or " ").lower())
    return int(found[1]) * scale + int(Fraction(int((found[2] or "0")[:18]), 10 ** len((found[2] or "0")[:18])) * scale)


def cpu_list(text: str) -> bool:
    for part in text.strip(" \t\n").split(","):
        found = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part)
        if not found or (found[2] and int(found[1]) > int(found[2])):
            return False
    return True


def duration(text: str) -> Fraction | None:
    """Go's time.ParseDuration without the sign "-", in nanoseconds."""
    rest = text[1:] if text.startswith("+") else text
    if rest == "0":
        return Fraction(0)
    total, at = Fraction(0), 0
    while at < len(rest):
        found = DURATION.match(rest, at)
        if not found:
            return None
        digits = re.match(r"[0-9.]+", found[0])
        assert digits
        # The longest unit: the "m" of "ms" is none.
        unit = re.match(r"[^0-9.]+", rest[at + digits.end() :])
        if not unit or unit[0] not in UNITS or digits.end() > 18:
            return None
        total += Fraction(digits[0] if digits[0][-1] != "." else digits[0] + "0") * UNITS[unit[0]]
        at += digits.end() + unit.end()
    return total if rest else None


def version(text: str) -> tuple[int, int, int] | None:
    found = SEMVER.fullmatch(text)
    if not found or any(len(part) > 9 for part in found.groups()[:3]):
        return None
    return int(found[1]), int(found[2]), int(found[3])


def normpath(path: str) -> str:
    """As os.path.normpath, but two slashes at the front are one."""
    import posixpath

    return posixpath.normpath("/" + path.lstrip("/") if path.startswith("/") else path)
