"""Put a snapshot of the started interpreter into the launcher: ``snapshot.py LINKED OUTPUT [--required]``.

LINKED is run as a copy whose ``pyrunc_snapshot.state`` is SNAPSHOT_MAKE (snapshot.h): it starts the interpreter,
imports the hot modules, prints its memory and ends. That is done several times, each at another load address, with
another environment and working directory. A word of memory that is the same each time is a number, one that differs
exactly by the load addresses is an address in the executable or on the heap. Any other word is something that must
not be in a snapshot - an address in libc, a time, a random number - and then there is none: OUTPUT is LINKED as it
is, and starts as any embedded interpreter does (``--required``: it is an error).

In OUTPUT .bss is in the file, and .pyimage holds the heap and the bitmaps of the words that are addresses.
"""

from __future__ import annotations

import array
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

PAGE = 4096
MAKE, READY = 1, 2
NOTHING = 2  # see struct pyrunc_fixup
RUNS, MOST_RUNS = 3, 60
LOAD, NOBITS, PROGBITS, SYMTAB, RELA, RELR = 1, 8, 1, 2, 4, 19
RELATIVE = {62: 8, 183: 1027}  # R_X86_64_RELATIVE, R_AARCH64_RELATIVE
MASK = (1 << 64) - 1


class NoSnapshotError(Exception):
    """Why there is none."""


class Section(NamedTuple):
    """A section header (elf(5))."""

    name: str
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entsize: int


class Elf:
    """A 64-bit little-endian executable."""

    HEADER, SECTION, SEGMENT = "<16sHHIQQQIHHHHHH", "<IIQQQQIIQQ", "<IIQQQQQQ"

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        header = struct.unpack_from(self.HEADER, data)
        if header[0][:6] != b"\x7fELF\x02\x01" or header[2] not in RELATIVE:
            raise NoSnapshotError("not an executable of this kind")
        self.machine = header[2]
        self.phoff, self.shoff, self.phnum, self.shnum, names = header[5], header[6], header[10], header[12], header[13]
        rows = [struct.unpack_from(self.SECTION, data, self.shoff + 64 * number) for number in range(self.shnum)]
        base = rows[names][4]
        self.name_offsets = [row[0] for row in rows]
        self.sections = [Section(self.text(base + row[0]), *row[1:]) for row in rows]

    def text(self, offset: int) -> str:
        return self.data[offset : self.data.index(0, offset)].decode()

    def section(self, name: str) -> Section:
        for one in self.sections:
            if one.name == name:
                return one
        raise NoSnapshotError(f"no section {name}")

    def symbols(self) -> dict[str, tuple[int, int]]:
        """Address and size by name."""
        found = {}
        for table in (one for one in self.sections if one.type == SYMTAB):
            names = self.sections[table.link].offset
            for place in range(table.offset, table.offset + table.size, 24):
                name, _, _, _, value, size = struct.unpack_from("<IBBHQQ", self.data, place)
                found[self.text(names + name)] = (value, size)
        return found

    def offset(self, address: int) -> int:
        """Where in the file an address of a section is."""
        for one in self.sections:
            if one.addr and one.addr <= address < one.addr + one.size and one.type != NOBITS:
                return one.offset + address - one.addr
        raise NoSnapshotError(f"address {address:#x} is not in the file")

    def relocated(self) -> set[int]:
        """Addresses of all words that ld.so writes."""
        found = set()
        for table in self.sections:
            if table.type == RELA:
                found |= {
                    row[0] for row in struct.iter_unpack("<QQq", self.data[table.offset : table.offset + table.size])
                }
            elif table.type == RELR:
                found |= relr(struct.iter_unpack("<Q", self.data[table.offset : table.offset + table.size]))
        return found


def relr(entries: Any) -> set[int]:
    """The addresses in a table of packed relative relocations: an address, then bitmaps of the 63 words after it."""
    found, place = set(), 0
    for (entry,) in entries:
        if entry & 1:
            found |= {place + 8 * bit for bit in range(63) if entry >> (bit + 1) & 1}
            place += 8 * 63
        else:
            found.add(entry)
            place = entry + 8
    return found


class Dump(NamedTuple):
    """Memory of one run, as words: variables when main() began and when the snapshot was taken, and the heap."""

    bases: tuple[int, int]  # of the executable, of the heap
    start: int  # of the variables, from the load address on
    before: array.array[int]
    pieces: tuple[array.array[int], array.array[int]]


def words(data: bytes) -> array.array[int]:
    """Little-endian 64-bit words."""
    found = array.array("Q")
    found.frombytes(data)
    return found


def take(program: pathlib.Path, number: int) -> Dump:
    """Run the copy; every run differs from the others in what must not matter."""
    environment = {f"SNAPSHOT_{number}": "x" * number * 100} if number else {}
    with tempfile.TemporaryDirectory(prefix="x" * (number + 1)) as place:
        result = subprocess.run(
            [program, *["argument"] * number], cwd=place, env=environment, capture_output=True, check=False, timeout=300
        )
    out = result.stdout
    if result.returncode or len(out) < 40:
        raise NoSnapshotError(
            f"making it failed ({result.returncode}): {result.stderr.decode(errors='replace').strip()}"
        )
    base, start, end, heap, used = struct.unpack_from("<5Q", out)
    size = end - start
    if len(out) != 40 + 2 * size + used:
        raise NoSnapshotError("the memory is not complete")
    variables, stored = words(out[40 + size : 40 + 2 * size]), words(out[40 + 2 * size :])
    return Dump((base, heap), start - base, words(out[40 : 40 + size]), (variables, stored))


def agreeing(program: pathlib.Path) -> list[Dump]:
    """Runs whose load addresses have the same last digits.

    Until it is cleared the cache of methods keeps names alive, and which ones depends on bits 3 to 14 of addresses; so
    does what the blocks are reused for that they are in.
    """
    found: dict[int, list[Dump]] = {}
    for number in range(MOST_RUNS):
        dump = take(program, number)
        alike = found.setdefault(dump.bases[0] & 0x7FFF, [])
        alike.append(dump)
        if len(alike) == RUNS:
            return alike
    raise NoSnapshotError("no load addresses that are alike")


class Piece:
    """Variables or heap: what the runs have in common."""

    def __init__(self, image: Image, number: int) -> None:
        self.number = number
        runs = [dump.pieces[number] for dump in image.dumps]
        self.words = array.array("Q", runs[0])
        size = (len(self.words) + 63) // 64 * 8
        self.bits = (bytearray(size), bytearray(size))
        self.strange: list[int] = []
        for index, values in enumerate(zip(*runs, strict=True)):
            same = values.count(values[0]) == len(values)
            base, target = (NOTHING, values[0]) if same else image.target(values)
            if number == 0 and image.dumps[0].start + 8 * index in image.relocated:
                # ld.so writes it: only what start-up has changed since must be written again.
                if all(dump.before[index] == dump.pieces[0][index] for dump in image.dumps):
                    continue
                if base >= 0:
                    image.fixups += [number, 8 * index, base, target]
            elif base in (0, 1):
                self.words[index] = target
                self.bits[base][index // 8] |= 1 << index % 8
            if base < 0:
                self.strange.append(8 * index)
        if self.strange:
            self.strange = self.unexplained(image, [run.tobytes() for run in (self.words, *runs)])

    def unexplained(self, image: Image, memory: list[bytes]) -> list[int]:
        """What is left after addresses that are not at a multiple of 8: the caches within byte code."""
        left, done = [], -8
        for place in self.strange:
            for at in range(max(place - 6, 0), place + 8, 2):
                if at == done:
                    break
                base, target = image.target([int.from_bytes(one[at : at + 8], "little") for one in memory[1:]])
                if base >= 0:
                    image.fixups += [self.number, at, base, target]
                    memory[0] = memory[0][:at] + target.to_bytes(8, "little") + memory[0][at + 8 :]
                    done = at
                    break
            else:
                left.append(place)
        self.words = words(memory[0])
        return left


class Image:
    """All of it."""

    def __init__(self, dumps: list[Dump], relocated: set[int]) -> None:
        self.dumps, self.relocated = dumps, relocated
        self.fixups: list[int] = []  # four numbers each (struct pyrunc_fixup)
        if any(len({dump.bases[number] for dump in dumps}) < len(dumps) for number in (0, 1)):
            raise NoSnapshotError("runs have the same load address (address space randomization is off)")
        if len({(dump.start, len(dump.pieces[0]), len(dump.pieces[1])) for dump in dumps}) > 1:
            raise NoSnapshotError("the runs differ in the memory they use")
        self.limits = (dumps[0].start + 8 * len(dumps[0].pieces[0]), 8 * len(dumps[0].pieces[1]))
        self.pieces = [Piece(self, number) for number in (0, 1)]

    def target(self, values: Sequence[int]) -> tuple[int, int]:
        """Which base the values of the runs count from, and how far from there; (-1, 0) when they do not."""
        for number in (0, 1):
            target = values[0] - self.dumps[0].bases[number]
            if 0 <= target <= self.limits[number] and all(
                value - dump.bases[number] == target for value, dump in zip(values, self.dumps, strict=True)
            ):
                return number, target
        return -1, 0

    def describe(self, elf: Elf) -> str:
        """Which words cannot be explained, for the build's log."""
        symbols = [(value, size, name) for name, (value, size) in elf.symbols().items()]
        lines = [f"heap+{place:#x}" for place in self.pieces[1].strange]
        for place in self.pieces[0].strange:
            address = self.dumps[0].start + place
            inside = [f"{name}+{address - value}" for value, size, name in symbols if value <= address < value + size]
            lines.append(inside[0] if inside else f"{address:#x}")
        return f"{len(lines)} words are neither numbers nor addresses: {', '.join(lines[:20])}"


def build(elf: Elf, image: Image) -> bytes:
    """The executable with the memory in it."""
    space = elf.section(".pyimage")
    start = image.dumps[0].start
    content = bytearray()

    def add(data: bytes) -> int:
        content.extend(data)
        return space.addr + len(content) - len(data)

    control = [READY, start, add(image.pieces[1].words.tobytes())]
    for piece in image.pieces:
        control += [len(piece.words), *(add(bytes(bits)) for bits in piece.bits)]
    control += [add(array.array("Q", image.fixups).tobytes()), len(image.fixups) // 4]
    if len(content) > space.size:
        raise NoSnapshotError("larger than the space for it")
    # What follows the last segment that is loaded moves to make room for .bss and .pyimage.
    rows = [elf.phoff + 56 * number for number in range(elf.phnum)]
    segments = [(row, list(struct.unpack_from(elf.SEGMENT, elf.data, row))) for row in rows]
    row, segment = max((pair for pair in segments if pair[1][0] == LOAD), key=lambda pair: pair[1][3])
    shift = segment[2] - segment[3]  # from an address to a place in the file
    old_end, end = segment[2] + segment[5], space.addr + len(content)
    moved = (end + shift - old_end + PAGE - 1) // PAGE * PAGE
    out = bytearray(elf.data[:old_end]) + bytes(moved) + elf.data[old_end:]
    segment[5] = segment[6] = end - segment[3]  # without the rest of .pyimage, which would count as memory
    struct.pack_into(elf.SEGMENT, out, row, *segment)
    variables = bytearray(image.pieces[0].words.tobytes())
    for place in (address - start for address in image.relocated):  # ld.so's words keep what the linker put there
        if 0 <= place < len(variables):
            variables[place : place + 8] = out[place + start + shift : place + start + shift + 8]
    out[start + shift : start + shift + len(variables)] = variables
    out[space.addr + shift : end + shift] = content
    struct.pack_into(f"<{len(control)}Q", out, elf.symbols()["pyrunc_snapshot"][0] + shift, *control)
    return with_headers(elf, out, shift, moved, len(content))


def with_headers(elf: Elf, out: bytearray, shift: int, moved: int, used: int) -> bytes:
    """The section headers anew, at the end: .bss and .pyimage have content, the rest of .pyimage is one more."""
    bss, space = elf.section(".bss"), elf.section(".pyimage")
    headers = []
    for one, name in zip(elf.sections, elf.name_offsets, strict=True):
        place = one.addr + shift
        if one == bss:
            headers.append((name, *one._replace(type=PROGBITS, offset=place)[1:]))
        elif one == space:
            headers.append((name, *one._replace(type=PROGBITS, offset=place, size=used)[1:]))
        else:
            headers.append((name, *one._replace(offset=one.offset + (moved if one.offset >= bss.offset else 0))[1:]))
    rest = space._replace(addr=space.addr + used, offset=space.addr + used + shift, size=space.size - used, align=1)
    headers.append((elf.name_offsets[elf.sections.index(space)], *rest[1:]))
    out += bytes(-len(out) % 8)
    struct.pack_into("<Q", out, 40, len(out))
    struct.pack_into("<H", out, 60, len(headers))
    for header in headers:
        out += struct.pack(elf.SECTION, *header)
    return bytes(out)


def make(linked: pathlib.Path) -> bytes:
    """The executable with a snapshot.  Raises NoSnapshotError."""
    elf = Elf(linked.read_bytes())
    control = elf.symbols().get("pyrunc_snapshot")
    if control is None:
        raise NoSnapshotError("it cannot have one")
    with tempfile.TemporaryDirectory() as place:
        copy = pathlib.Path(place) / "pyrunc"
        data = bytearray(elf.data)
        struct.pack_into("<Q", data, elf.offset(control[0]), MAKE)
        copy.write_bytes(data)
        copy.chmod(0o700)
        dumps = agreeing(copy)
    image = Image(dumps, elf.relocated())
    if any(piece.strange for piece in image.pieces):
        raise NoSnapshotError(image.describe(elf))
    return build(elf, image)


def check(linked: pathlib.Path, output: pathlib.Path) -> None:
    """Both must do the same, in the core phase and after it.  Raises NoSnapshotError."""
    for arguments in (["help"], ["--no-such-option"], ["spec", "--bundle", "."], ["plan", "--bundle", "."]):
        answers = []
        for program in (linked, output):
            with tempfile.TemporaryDirectory() as place:
                for args in (["spec"], arguments) if arguments[0] == "plan" else (arguments,):
                    done = subprocess.run(
                        [program.absolute(), *args],
                        cwd=place,
                        env={"A": "b"},
                        capture_output=True,
                        check=False,
                        timeout=300,
                    )
                made = [path.read_bytes() for path in sorted(pathlib.Path(place).iterdir())]
                answers.append((done.returncode, done.stdout.replace(place.encode(), b""), done.stderr, made))
        if answers[0] != answers[1]:
            raise NoSnapshotError(f"`pyrunc {' '.join(arguments)}` gives {answers[1][:3]}, not {answers[0][:3]}")


def main() -> None:
    """Write OUTPUT, with a snapshot or without."""
    linked, output = map(pathlib.Path, sys.argv[1:3])
    try:
        output.write_bytes(make(linked))
        output.chmod(0o755)
        check(linked, output)
    except (NoSnapshotError, OSError, subprocess.TimeoutExpired) as error:
        print(f"no start-up snapshot: {error}", file=sys.stderr)
        if "--required" in sys.argv:
            sys.exit(1)
        shutil.copyfile(linked, output)
    output.chmod(0o755)


if __name__ == "__main__":
    main()
