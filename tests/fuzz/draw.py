"""Choices out of bytes: what lets a fuzzer of bytes, and hypothesis, make structured inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Reads choices from ``data``; behind its end every choice is the first one."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def more(self) -> bool:
        return self.at < len(self.data)

    def number(self, size: int) -> int:
        """An unsigned number of ``size`` bytes."""
        chunk = self.data[self.at : self.at + size]
        self.at += size
        return int.from_bytes(chunk, "little")

    def below(self, limit: int) -> int:
        return self.number(1 if limit <= 256 else 3) % limit

    def pick(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def one_in(self, chances: int) -> bool:
        """Once in so many times; never behind the end."""
        return self.below(chances) == chances - 1

    def rest(self) -> bytes:
        chunk = self.data[self.at :]
        self.at = len(self.data)
        return chunk

    def text(self, pieces: Sequence[str], most: int) -> str:
        """Up to ``most`` of the pieces, end to end; sometimes a character of any kind between
        them."""
        out = []
        for _ in range(self.below(most + 1)):
            if self.one_in(16):
                code = self.number(3) % 0x110000
                out.append("?" if 0xD800 <= code <= 0xDFFF else chr(code))
            else:
                out.append(self.pick(pieces))
        return "".join(out)
