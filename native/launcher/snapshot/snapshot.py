"""Put a snapshot of the started interpreter into the launcher.

``snapshot.py LINKED OUTPUT [--required]`` runs a copy of LINKED whose ``pyrunc_snapshot`` is
SNAPSHOT_MAKE (snapshot.h).  The copy starts the interpreter, imports the hot modules, runs the
verbs of training.py, prints its memory and exits.  A first run finds the blocks of the heap that
the verbs write to, and the other runs place these together.  The variables and the heap of the copy
have fixed addresses, so the memory can be used unchanged.  The snapshot is taken twice, with
different environments, directories, and addresses of libraries and stack.  A word that differs is
an address in libc, a time or a random number, and must not be in a snapshot.  In this case OUTPUT
is a copy of LINKED and starts like any embedded interpreter; with ``--required`` it is an error.

In OUTPUT .bss and the used part of .pyheap have content.
"""

from __future__ import annotations
import __future__

import array
import collections
import ctypes
import json
import marshal
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
from typing import NamedTuple

PAGE = 4096
MAKE, READY = 1, 2
ATTEMPTS = 2  # the second one is for a machine that was too slow for a time limit
AGREE, VOTES = 3, 6  # training runs that must agree, and runs at most
TIMEOUT = 120  # seconds, for one run
LOAD, NOBITS, PROGBITS, SYMTAB, RELA = 1, 8, 1, 2, 4
EXECUTABLE = 2  # ET_EXEC
# The constructor of mimalloc, which CPython links from 3.13 on and pyrunc's interpreter does not
# use. It would set random numbers before each start.
NEEDLESS = "_mi_process_init"
MACHINES = {62: 5, 183: 1024}  # x86_64, aarch64 -> the type of a relocation that copies an object


class NoSnapshotError(Exception):
    """The reason why there is no snapshot."""


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
        if header[0][:6] != b"\x7fELF\x02\x01" or header[1] != EXECUTABLE or header[2] not in MACHINES:
            raise NoSnapshotError("not an executable with fixed addresses")
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
        """Return address and size of each symbol."""
        found = {}
        for table in (one for one in self.sections if one.type == SYMTAB):
            names = self.sections[table.link].offset
            for place in range(table.offset, table.offset + table.size, 24):
                name, _, _, _, value, size = struct.unpack_from("<IBBHQQ", self.data, place)
                found[self.text(names + name)] = (value, size)
        return found

    def word(self, address: int) -> int:
        """Return the initial value of a variable."""
        inside = [one for one in self.sections if one.addr <= address < one.addr + one.size and one.type != NOBITS]
        return int.from_bytes(self.data[self.offset(address) :][:8], "little") if inside else 0

    def drop_constructor(self, name: str, instead: str) -> None:
        """Call another function instead of a constructor."""
        symbols, table = self.symbols(), self.section(".init_array")
        for place in range(table.offset, table.offset + table.size, 8):
            if name in symbols and struct.unpack_from("<Q", self.data, place)[0] == symbols[name][0]:
                struct.pack_into("<Q", self.data, place, symbols[instead][0])

    def offset(self, address: int) -> int:
        """Return the file offset of an address in a section."""
        for one in self.sections:
            if one.addr and one.addr <= address < one.addr + one.size and one.type != NOBITS:
                return one.offset + address - one.addr
        raise NoSnapshotError(f"address {address:#x} is not in the file")

    def written_by_loader(self) -> dict[int, int]:
        """Return the words that ld.so writes: address -> mask of the bytes.

        These are addresses in libraries, and copies of their objects, which may be smaller than a
        word: a variable of the executable can share a word with libc's __libc_single_threaded.
        """
        found: dict[int, int] = {}
        for table in (one for one in self.sections if one.type == RELA):
            names = self.sections[table.link]
            for place, info, _ in struct.iter_unpack("<QQq", self.data[table.offset : table.offset + table.size]):
                size = 8
                if info & 0xFFFFFFFF == MACHINES[self.machine]:
                    (size,) = struct.unpack_from("<Q", self.data, names.offset + 24 * (info >> 32) + 16)
                for address in range(place & ~7, place + size, 8):
                    first, end = max(place, address) - address, min(place + size, address + 8) - address
                    found[address] = found.get(address, 0) | (1 << 8 * end) - (1 << 8 * first)
        return found


class Dump(NamedTuple):
    """The memory of one run."""

    start: int  # the address of the first variable
    heap: int
    stack: int
    memory: array.array[int]  # words, to the end of the used part of the heap


def words(data: bytes) -> array.array[int]:
    """Split bytes into little-endian 64-bit words."""
    found = array.array("Q")
    found.frombytes(data)
    return found


class Training:
    """training.py and its directory, which has the same length in every run."""

    def __init__(self, place: str, program: pathlib.Path) -> None:
        self.place = pathlib.Path(place)
        for name in ("bundle", "bundle/rootfs", "cgroup"):
            (self.place / name).mkdir()
        (self.place / "cgroup.subtree_control").touch()
        subprocess.run([program, "spec", "--bundle", self.place / "bundle"], check=True, timeout=300)
        config = self.place / "bundle/config.json"
        document = json.loads(config.read_text())
        document["process"]["terminal"] = False
        config.write_text(json.dumps(document, indent=2))
        source = pathlib.Path(__file__).with_name("training.py").read_text()
        source = source.replace('PLACE = "/"', f"PLACE = {place!r}").replace("from __future__ import annotations", "")
        flags = __future__.annotations.compiler_flag  # without an import, which would stay in memory
        module = compile(source, "training.py", "exec", flags=flags, optimize=2)
        self.code = marshal.dumps(module)

    def request(self, *, train: bool = False, levels: bytes = b"") -> bytes:
        """What a run of the copy reads from stdin: `request` of snapshot.c."""
        return struct.pack("<3Q", train, len(levels), len(self.code)) + levels + self.code

    def levels(self, program: pathlib.Path) -> bytes:
        """Return the level of each block.  Raises NoSnapshotError.

        About one run in twenty on a busy machine differs from the others, because what is alive at a
        moment depends on time, and two of these may be equal.
        """
        found: collections.Counter[bytes] = collections.Counter()
        for _ in range(VOTES):
            levels = run(program, 0, self.request(train=True), fixed=True)
            found[levels] += 1
            if found[levels] == AGREE:
                break
        return found.most_common(1)[0][0]


def fix_addresses() -> None:
    """Let the program that we execute have the same addresses each time.

    The slots of CPython's method cache depend on addresses, and a new entry writes to the name in
    the old one.  Some sandboxes forbid it: then two builds may differ in the place of a block.
    """
    ctypes.CDLL(None).personality(0x0040000)  # ADDR_NO_RANDOMIZE


def run(program: pathlib.Path, number: int, request: bytes, *, fixed: bool = False) -> bytes:
    """Run the copy.  Each run differs in everything that must not affect the snapshot.

    `fixed`: not in addresses.
    """
    environment = {f"SNAPSHOT_{number}": "x" * number * 100} if number else {}
    with tempfile.TemporaryDirectory(prefix="x" * (number + 1)) as place:
        result = subprocess.run(
            [program, *["argument"] * number],
            cwd=place,
            env=environment,
            input=request,
            capture_output=True,
            check=False,
            timeout=TIMEOUT,
            preexec_fn=fix_addresses if fixed else None,
        )
    if result.returncode:
        raise NoSnapshotError(
            f"making it failed ({result.returncode}): {result.stderr.decode(errors='replace').strip()}"
        )
    return result.stdout


def take(program: pathlib.Path, number: int, request: bytes) -> Dump:
    """Return the memory of one run."""
    out = run(program, number, request)
    if len(out) < 32:
        raise NoSnapshotError("the memory is not complete")
    start, heap, used, stack = struct.unpack_from("<4Q", out)
    if len(out) != 32 + heap - start + used:
        raise NoSnapshotError("the memory is not complete")
    return Dump(start, heap, stack, words(out[32:]))


def common(elf: Elf, dumps: list[Dump]) -> bytes:
    """Return the memory that the runs share.  Bytes that ld.so writes keep the file's value."""
    first, second = dumps
    if first.stack == second.stack:
        raise NoSnapshotError("address space randomization is off, so that libc's addresses look like numbers")
    if first[:2] != second[:2] or len(first.memory) != len(second.memory):
        raise NoSnapshotError("the runs differ in the memory they use")
    loaders = elf.written_by_loader()
    strange = []
    for index, (one, other) in enumerate(zip(first.memory, second.memory, strict=True)):
        address = first.start + 8 * index
        mask = loaders.get(address, 0)
        if mask:
            first.memory[index] = elf.word(address) & mask | one & ~mask
        if one != other and (one ^ other) & ~mask:
            strange.append(address)
    if strange:
        raise NoSnapshotError(describe(elf, first.heap, strange))
    return first.memory.tobytes()


def describe(elf: Elf, heap: int, strange: list[int]) -> str:
    """Describe the words that differ between processes, for the build log."""
    symbols = [(value, size, name) for name, (value, size) in elf.symbols().items()]
    lines = []
    for address in strange[:20]:
        inside = [f"{name}+{address - value}" for value, size, name in symbols if value <= address < value + size]
        lines.append(f"heap+{address - heap:#x}" if address >= heap else inside[0] if inside else f"{address:#x}")
    return f"{len(strange)} words differ from process to process: {', '.join(lines)}"


def build(elf: Elf, start: int, memory: bytes) -> bytes:
    """Return the executable with the memory in it."""
    # Move everything after the last loaded segment to make room for .bss and the heap.
    rows = [elf.phoff + 56 * number for number in range(elf.phnum)]
    segments = [(row, list(struct.unpack_from(elf.SEGMENT, elf.data, row))) for row in rows]
    row, segment = max((pair for pair in segments if pair[1][0] == LOAD), key=lambda pair: pair[1][3])
    shift = segment[2] - segment[3]  # from an address to a file offset
    old_end, end = segment[2] + segment[5], start + len(memory)
    moved = (end + shift - old_end + PAGE - 1) // PAGE * PAGE
    out = bytearray(elf.data[:old_end]) + bytes(moved) + elf.data[old_end:]
    segment[5] = end - segment[3]
    segment[6] = segment[5]
    struct.pack_into(elf.SEGMENT, out, row, *segment)
    out[start + shift : end + shift] = memory
    struct.pack_into("<Q", out, elf.symbols()["pyrunc_snapshot"][0] + shift, READY)
    return with_headers(elf, out, shift, moved, end - elf.section(".pyheap").addr)


def with_headers(elf: Elf, out: bytearray, shift: int, moved: int, used: int) -> bytes:
    """Append new section headers: .bss and .pyheap have content."""
    bss, space = elf.section(".bss"), elf.section(".pyheap")
    headers = []
    for one, name in zip(elf.sections, elf.name_offsets, strict=True):
        place = one.addr + shift
        if one == bss:
            headers.append((name, *one._replace(type=PROGBITS, offset=place)[1:]))
        elif one == space:
            headers.append((name, *one._replace(type=PROGBITS, offset=place, size=used)[1:]))
        else:
            headers.append((name, *one._replace(offset=one.offset + (moved if one.offset >= bss.offset else 0))[1:]))
    out += bytes(-len(out) % 8)
    struct.pack_into("<Q", out, 40, len(out))
    struct.pack_into("<H", out, 60, len(headers))
    for header in headers:
        out += struct.pack(elf.SECTION, *header)
    return bytes(out)


def make(linked: pathlib.Path) -> bytes:
    """Return the executable with a snapshot.  Raises NoSnapshotError."""
    elf = Elf(linked.read_bytes())
    if "pyrunc_snapshot" not in elf.symbols():
        raise NoSnapshotError("it cannot have one")
    elf.drop_constructor(NEEDLESS, "snapshot_nothing")
    with tempfile.TemporaryDirectory() as place:
        return build(elf, *trained(elf, linked, copy_that_makes_one(elf, pathlib.Path(place))))


def copy_that_makes_one(elf: Elf, place: pathlib.Path) -> pathlib.Path:
    """Return a copy of the launcher in a directory whose `pyrunc_snapshot` is MAKE."""
    copy = place / "pyrunc"
    data = bytearray(elf.data)
    struct.pack_into("<Q", data, elf.offset(elf.symbols()["pyrunc_snapshot"][0]), MAKE)
    copy.write_bytes(data)
    copy.chmod(0o700)
    return copy


def trained(elf: Elf, linked: pathlib.Path, copy: pathlib.Path) -> tuple[int, bytes]:
    """Return the address of the first variable and the memory, after a training run.

    If the verbs of training.py fail here, the snapshot is one without training: start-up then costs
    a third more, and `make build` says so in its last line.  With the larger pages of some arm64
    kernels a page for each block would take gigabytes.
    """
    small = os.sysconf("SC_PAGESIZE") == PAGE
    reason = "" if small else f"the kernel's pages are not of {PAGE} bytes"
    for _ in range(ATTEMPTS if small else 0):
        try:
            with tempfile.TemporaryDirectory(prefix="pyrunc") as place:
                training = Training(place, linked.absolute())
                levels = training.levels(copy)
                dumps = [take(copy, number, training.request(levels=levels)) for number in range(2)]
            return dumps[0].start, common(elf, dumps)
        except (NoSnapshotError, OSError, subprocess.SubprocessError) as error:
            reason = " ".join(str(error).split())
            print(f"training failed: {reason}", file=sys.stderr)
    print(f"the start-up snapshot is untrained: {reason}", file=sys.stderr)
    dumps = [take(copy, number, struct.pack("<3Q", 0, 0, 0)) for number in range(2)]
    return dumps[0].start, common(elf, dumps)


def check(linked: pathlib.Path, output: pathlib.Path) -> None:
    """Check that both behave the same, in the core phase and after it.  Raises NoSnapshotError."""
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
    """Write OUTPUT, with or without a snapshot."""
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
