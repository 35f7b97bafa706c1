"""Limits on images, which are untrusted data. --limit changes each of them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pyrunc.errors import UsageError, show


@dataclass(slots=True)
class Limits:
    """The defaults exceed every image in use, and stay below what harms a machine."""

    bytes: int = 64 << 30  # of all files of all layers, uncompressed
    entries: int = 4_000_000  # of all layers
    ratio: int = 1_000  # uncompressed to compressed bytes of a layer above 16 MiB (zlib's best is 1032)
    depth: int = 256  # nesting of directories
    name: int = 4096  # bytes of a path (PATH_MAX)
    header: int = 1 << 20  # bytes of extended headers of one entry: xattrs, long names


def parse(options: list[str]) -> Limits:
    """Parse ``NAME=NUMBER`` options; the number may end in k, m or g. Raises UsageError."""
    limits = Limits()
    names = [field.name for field in fields(Limits)]
    for option in options:
        name, _, text = option.partition("=")
        digits = text.rstrip("kKmMgG")
        shift = {"k": 10, "m": 20, "g": 30}.get(text[len(digits) :].lower(), 0)
        valid = digits.isascii() and digits.isdigit() and len(digits) < 16 and len(text) - len(digits) <= 1
        if name not in names or not valid:
            raise UsageError(f"--limit {show(option)}: expected NAME=NUMBER, NAME one of {', '.join(names)}")
        setattr(limits, name, int(digits) << shift)
    return limits
