"""pyrunc.seccomp_tools.decode: each kind of argument, each flag, each table."""

from __future__ import annotations

import os
import posix

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from pyrunc.errors import show
from pyrunc.seccomp_tools import calls, decode

NATIVE = calls.native()


@pytest.mark.parametrize(
    ("kind", "value", "bits", "text"),
    [
        ("d", 0x100000003, 64, "3"), ("d", 2**32 - 1, 64, "-1"), ("d", 2**64 - 100, 64, "AT_FDCWD"),
        ("d", 2**32 - 100, 32, "AT_FDCWD"), ("d", 2**31 - 1, 64, "2147483647"), ("d", 2**31, 64, "-2147483648"),
        ("i", 0x100000003, 64, "4294967299"), ("i", 2**32 - 1, 64, "-1"), ("i", 2**64 - 5, 64, "-5"),
        ("i", 2**63, 64, str(-(2**63))), ("i", 2**32 - 5, 32, "-5"), ("i", 2**31, 32, str(-(2**31))),
        ("i", 2**32 - 100, 64, "-100"), ("i", 2**33 - 1, 64, str(2**33 - 1)), ("i", 0, 64, "0"),
        ("m", 0o100644, 64, "0100644"), ("m", 0o7755 | 1 << 20, 64, "07755"),
        ("P", 0, 64, "PROT_NONE"), ("P", 7, 64, "PROT_READ|PROT_WRITE|PROT_EXEC"), ("P", 2, 64, "PROT_WRITE"),
        ("P", 8, 64, "PROT_NONE"), ("S", 0, 64, "0"), ("S", 1, 64, "SIGHUP"), ("S", 64, 64, "SIGRTMIN+30"),
        ("S", 65, 64, "65"), ("x", 255, 64, "0xff"), ("p", 0, 64, "NULL"), ("p", 1, 64, "0x1"),
        ("O", 1 << 40 | os.O_RDWR, 64, "O_RDWR"),
    ],
)  # fmt: skip
def test_an_argument(kind: str, value: int, bits: int, text: str) -> None:
    assert decode._argument(kind, value, bits, decode.Memory(os.getpid())) == text


NAMED = (
    "CREAT", "EXCL", "NOCTTY", "TRUNC", "APPEND", "NONBLOCK", "SYNC", "DSYNC", "DIRECTORY", "NOFOLLOW", "CLOEXEC",
    "TMPFILE", "DIRECT", "NOATIME", "PATH",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_flags_of_open(name: str) -> None:
    assert decode.open_flags(getattr(os, f"O_{name}")) == f"O_RDONLY|O_{name}"


def test_access_modes() -> None:
    assert [decode.open_flags(mode) for mode in range(4)] == ["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"]
    assert decode.open_flags(os.O_WRONLY | 1 << 31) == "O_WRONLY|0x80000000"
    assert decode.open_flags(os.O_CREAT | os.O_EXCL | 1 << 31) in (
        "O_RDONLY|O_CREAT|O_EXCL|0x80000000", "O_RDONLY|O_EXCL|O_CREAT|0x80000000",
    )  # fmt: skip


def test_a_call_without_a_table() -> None:
    assert decode.words("io_setup", (0, 1, 0, 2, 0, 0), 64, 0) == "io_setup(0x0, 0x1, 0x0, 0x2)"
    assert decode.words("io_setup", (0,) * 6, 64, 0) == "io_setup()"


def test_every_table_of_arguments() -> None:
    """The number and the kind of arguments: a value shows how each kind is formatted."""
    shapes = {name: decode.words(name, (0,) * 6, 64, 0) for name in sorted(decode._KINDS)}
    values = {"d": "0", "p": "NULL", "O": "O_RDONLY", "m": "00", "i": "0", "S": "0", "P": "PROT_NONE", "x": "0x0"}
    for name, kinds in decode._KINDS.items():
        assert shapes[name] == f"{name}({', '.join(values[kind] for kind in kinds)})"
        assert len(kinds) <= 6
    known = {NATIVE.name_of(number) for number in range(1000)} | {
        name for arch in calls.all_arches().values() for number in range(500) if (name := arch.name_of(number))
    }
    assert set(decode._KINDS) <= known


# -- strings ---------------------------------------------------------------------------------------


class Process:
    """The memory of a process whose text begins at an address; ``most`` bytes are read at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, text: bytes, start: int, most: int = 1 << 20) -> None:
        self.calls: list[tuple[object, ...]] = []

        def pread(fd: int, size: int, address: int) -> bytes:
            self.calls.append((fd, size, address))
            return text[address - start :][: min(size, most)]

        def opened(path: str, flags: int) -> int:
            self.calls.append((path, flags == os.O_RDONLY | os.O_CLOEXEC))
            return 0

        monkeypatch.setattr(posix, "open", opened)
        monkeypatch.setattr(posix, "pread", pread)
        monkeypatch.setattr(posix, "close", lambda fd: self.calls.append(("close", fd)))


LIMIT = b"x" * 1000


@pytest.mark.parametrize(
    ("text", "start", "most", "found", "reads"),
    [
        (b"abc\0def", 0x1000, 99, '"abc"', [(0, 256, 0x1000)]),
        (b"\0", 0x1000, 99, '""', [(0, 256, 0x1000)]),
        (b"a\xff\0", 0x1000, 99, '"a\\\\xff"', [(0, 256, 0x1000)]),
        (b"a" * 20 + b"\0", 0x1FF0, 99, f'"{"a" * 20}"', [(0, 16, 0x1FF0), (0, 256 - 16, 0x2000)]),
        (LIMIT, 0x1000, 256, f"{show('x' * 256)}...", [(0, 256, 0x1000)]),
        (LIMIT, 0x1000, 200, f"{show('x' * 256)}...", [(0, 256, 0x1000), (0, 56, 0x1000 + 200)]),
        (b"ab", 0x1000, 99, '"ab"...', [(0, 256, 0x1000), (0, 254, 0x1002)]),
    ],
)
def test_a_string_in_memory(
    monkeypatch: pytest.MonkeyPatch, text: bytes, start: int, most: int, found: str, reads: list[tuple[int, int, int]]
) -> None:
    process = Process(monkeypatch, text, start, most)
    assert decode.words("symlink", (start, start, 0, 0, 0, 0), 64, 41) == f"symlink({found}, {found})"
    assert process.calls == [("/proc/41/mem", True), *reads, *reads, ("close", 0)]


def test_memory_is_closed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(monkeypatch, b"", 0)
    memory = decode.Memory(41)
    memory.close()
    assert memory.string(0) == '""...'
    memory.close()
    memory.close()
    assert process.calls == [("/proc/41/mem", True), (0, 256, 0), ("close", 0)]
    monkeypatch.setattr(decode, "_argument", lambda *args: args[3].string(0) and 1 // 0)
    with pytest.raises(ZeroDivisionError):
        decode.words("chdir", (1, 0, 0, 0, 0, 0), 64, 41)
    assert process.calls[-1] == ("close", 0)
