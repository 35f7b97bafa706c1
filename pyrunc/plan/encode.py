"""Plan -> bytes: the structs of native/init/plan.h, native endian.

A plan is a header, an array of fixed-size steps and a string area. Strings and lists are pooled:
2,000 mounts share a few filesystem types and lists of options.
"""

from __future__ import annotations

from _struct import Struct

from pyrunc.errors import PyruncError
from pyrunc.plan.ops import ABI

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Step = tuple[int, int, tuple[int, ...], tuple[object, ...]]  # op, policy, numbers, strings

MAGIC = 0x4E505250
MAX_STEPS = 16384  # spec.validate.ENTRIES_MAX leaves room for the steps of every plan
MAX_SIZE = 64 << 20
_HEADER = Struct("=8I")
_STEP = Struct("=HH8I4I")
_NUMBERS = tuple((0,) * (8 - used) for used in range(9))  # fills the slots that an op does not use
_STRINGS = tuple((0,) * (4 - used) for used in range(5))
# How many are pooled: a table of strings from a config must stay small, because its author may have
# chosen the keys.
_POOLED = 512
_NUL = "a string in config.json contains a NUL byte"


class Pool:
    """The string area under construction; ``base``, its offset in the plan, aligns blobs."""

    __slots__ = ("base", "blobs", "chunks", "known", "lists", "same", "size")

    def __init__(self, base: int) -> None:
        self.base = base
        self.chunks = [b"\0"]  # offset 0 is the empty string
        self.size = 1
        self.known: dict[str, int] = {"": 0}
        self.lists: dict[str, int] = {}
        # By id(); the entry keeps the list alive. The environment and the state of hooks can be
        # large.
        self.same: dict[int, tuple[list[str], int]] = {}
        self.blobs: dict[bytes, int] = {b"": 0}

    def add(self, value: object) -> int:
        """Offset of a string, a list of strings or a blob, stored once."""
        if isinstance(value, bytes):
            return self.add_blob(value)
        if isinstance(value, list):
            return self.add_list(value)
        text = str(value)
        offset = self.known.get(text)
        if offset is None:
            if "\0" in text:
                raise PyruncError(_NUL)
            offset = self.append(text + "\0")
            if len(self.known) < _POOLED:
                self.known[text] = offset
        return offset

    def add_list(self, value: list[str]) -> int:
        """Offset of a list: its strings, each followed by a NUL."""
        if not value:
            return 0
        same = self.same.get(id(value))
        if same is not None:
            return same[1]
        text = "\0".join(value) + "\0"
        if text.count("\0") != len(value):
            raise PyruncError(_NUL)  # init would see one more item
        offset = self.lists.get(text)
        if offset is None:
            offset = self.append(text)
            if len(self.lists) < _POOLED:
                self.lists[text] = offset
        self.same[id(value)] = (value, offset)
        return offset

    def append(self, text: str) -> int:
        """Append text; returns its offset."""
        offset = self.size
        # surrogateescape: paths of the bundle come from argv, which need not be UTF-8
        data = text.encode("utf-8", "surrogateescape")
        self.chunks.append(data)
        self.size += len(data)
        return offset

    def add_blob(self, value: bytes) -> int:
        """Offset of a blob, 8-aligned in the plan: init passes it to the kernel in place."""
        offset = self.blobs.get(value)
        if offset is None:
            padding = -(self.base + self.size) % 8
            offset = self.size + padding
            if len(self.blobs) < _POOLED:
                self.blobs[value] = offset
            self.chunks += (b"\0" * padding, value, b"\0")
            self.size = offset + len(value) + 1
        return offset


def encode(steps: Sequence[Step], slots: int, npreserve: int, flags: int) -> bytes:
    """The whole plan; ``slots``: how many descriptors go with it, itself included.

    Raises PyruncError for a NUL inside a string, and for a plan beyond the limits of plan.h.
    """
    if len(steps) > MAX_STEPS:
        raise PyruncError(f"config.json makes a plan of {len(steps)} steps, more than {MAX_STEPS}")
    base = _HEADER.size + _STEP.size * len(steps)
    pool = Pool(base)
    add, known, pack = pool.add, pool.known, _STEP.pack
    packed = []
    for op, policy, numbers, strings in steps:
        offsets = [known[item] if type(item) is str and item in known else add(item) for item in strings]
        packed.append(pack(op, policy, *numbers, *_NUMBERS[len(numbers)], *offsets, *_STRINGS[len(offsets)]))
    size = base + pool.size
    if size > MAX_SIZE:
        raise PyruncError(f"config.json makes a plan of {size} bytes, more than {MAX_SIZE}")
    header = _HEADER.pack(MAGIC, ABI, size, len(steps), slots, npreserve, base, flags)
    return b"".join((header, *packed, *pool.chunks))
