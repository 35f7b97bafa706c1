"""The launcher's modules in place of an interpreter's shared libraries: _struct, fcntl, select.

The standard library's are the model.
"""

from __future__ import annotations

import errno
import fcntl
import importlib.machinery
import importlib.util
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

LAUNCHER = Path(__file__).resolve().parent.parent / "native" / "launcher"
pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
CODES = {"": "xcbB?hHiIlLqQnNefdspP", "<": "xcbB?hHiIlLqQefdsp"}


def build(name: str, place: Path) -> ModuleType:
    """The module from its C file, as an extension. Other tests keep the interpreter's own: a module
    with single-phase initialization puts itself into `sys.modules` (PEP 489)."""
    library = place / f"{name}.so"
    include = ["-I", str(LAUNCHER), "-isystem", sysconfig.get_path("include")]
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-shared", "-fPIC"]
    command = ["gcc", *flags, *include, str(LAUNCHER / f"{name.strip('_')}.c"), "-lm", "-o", str(library)]
    subprocess.run(command, check=True)
    loader = importlib.machinery.ExtensionFileLoader(name, str(library))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, name, importlib.import_module(name))
        return importlib.util.module_from_spec(spec)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return build("_struct", tmp_path_factory.mktemp("struct"))


@pytest.fixture(scope="module")
def own_fcntl(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return build("fcntl", tmp_path_factory.mktemp("fcntl"))


@pytest.fixture(scope="module")
def own_select(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return build("select", tmp_path_factory.mktemp("select"))


def outcome(module: Any, function: str, *args: Any) -> Any:
    """The result, or the kind of the error."""
    try:
        return getattr(module, function)(*args)
    except (module.error, OverflowError, TypeError, ValueError) as error:
        return "error" if isinstance(error, module.error) else type(error)


def random_format(chance: random.Random) -> str:
    order = chance.choice(["", "@", "=", "<", ">", "!"])
    codes = CODES["" if order in ("", "@") else "<"]
    words = [chance.choice(["", "0", "1", "3", "12"]) + chance.choice(codes) for _ in range(chance.randrange(7))]
    return order + " ".join(word for word in words if word != "0p")  # 3.11 cannot unpack it


@pytest.mark.parametrize("seed", range(4))
def test_any_format(ours: Any, seed: int) -> None:
    """Any bytes in any format, there and back, at any offset."""
    chance = random.Random(seed)
    for _ in range(2500):
        form = random_format(chance)
        size = struct.calcsize(form)
        assert ours.calcsize(form) == ours.Struct(form).size == size, form
        data = chance.randbytes(size)
        values = struct.unpack(form, data)
        assert repr(ours.unpack(form, data)) == repr(values), form  # NaN differs from itself
        assert ours.pack(form, *values) == struct.pack(form, *values), form
        offset = chance.randrange(-size - 3, 4)
        larger = bytes(3) + data
        for function, args in (("unpack_from", (larger, offset)), ("unpack", (larger,))):
            assert repr(outcome(ours, function, form, *args)) == repr(outcome(struct, function, form, *args)), form
        buffers = bytearray(size + 3), bytearray(size + 3)
        results = [
            outcome(module, "pack_into", form, buffer, offset, *values)
            for module, buffer in zip((ours, struct), buffers, strict=True)
        ]
        assert results[0] == results[1] and buffers[0] == buffers[1], form


NUMBERS = [0, 1, -1, True, 1.5, b"x", b"", b"longer than it", bytearray(b"yz"), "text", None, *(
    sign * (1 << bits) + more for bits in (7, 8, 15, 16, 31, 32, 63, 64, 70) for sign in (1, -1) for more in (-1, 0)
)]  # fmt: skip


@pytest.mark.parametrize("order", ["", "<", ">"])
def test_any_value(ours: Any, order: str) -> None:
    """What does not fit is an error, and the same values fit."""
    cases = []
    for code in CODES["" if not order else "<"].replace("x", ""):
        for value in NUMBERS:
            if code == "P" and isinstance(value, int) and value < 0:
                continue  # the standard library converts it to an address
            for count in ("", "4", "0"):
                values = [value] * (1 if code in "sp" else int(count or 1))
                cases.append((order + count + code, *values))
    wrong = [case for case in cases if outcome(ours, "pack", *case) != outcome(struct, "pack", *case)]
    assert len(cases) > 1000 and wrong == []


@pytest.mark.parametrize("form", ["3", "y", "=n", "i i3", "99999999999999999999i", "9223372036854775807i", "i\0"])
def test_wrong_formats(ours: Any, form: str) -> None:
    assert outcome(ours, "calcsize", form) == "error" == outcome(struct, "calcsize", form)


def test_the_rest_of_the_interface(ours: Any) -> None:
    """As the standard library's own modules use it."""
    layout = ours.Struct(format=b"<IH")
    assert (layout.format, layout.size) == ("<IH", 6)
    assert layout.unpack_from(buffer=b"...\1\0\0\0\2\0", offset=3) == (1, 2)
    assert list(layout.iter_unpack(layout.pack(1, 2) + layout.pack(3, 4))) == [(1, 2), (3, 4)]
    for wrong in (b"x", b"x" * 7):
        assert outcome(layout_of(ours, layout), "iter_unpack", wrong) == "error"
    assert outcome(ours, "pack", "i") == outcome(ours, "pack", "i", 1, 2) == "error"
    assert outcome(ours, "Struct", 1) is TypeError and outcome(ours, "unpack", "i") is TypeError
    assert ours._clearcache() is None
    names = {"Struct", "calcsize", "error", "iter_unpack", "pack", "pack_into", "unpack", "unpack_from"}
    assert names <= set(vars(ours)) and set(struct.__all__) == names


def layout_of(module: Any, layout: Any) -> Any:
    """The methods of a layout, with the error of its module."""
    return type("Methods", (), {"iter_unpack": staticmethod(layout.iter_unpack), "error": module.error})


def test_locks(own_fcntl: Any, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
    try:
        assert own_fcntl.flock(first, own_fcntl.LOCK_EX | own_fcntl.LOCK_NB) is None
        with pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_SH | fcntl.LOCK_NB)
        own_fcntl.flock(first, own_fcntl.LOCK_UN)
        fcntl.flock(second, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            own_fcntl.flock(first, own_fcntl.LOCK_EX | own_fcntl.LOCK_NB)
    finally:
        os.close(first)
        os.close(second)


def test_calls_with_numbers_and_buffers(own_fcntl: Any) -> None:
    ours_, theirs = os.pipe()
    try:
        with os.fdopen(own_fcntl.fcntl(ours_, own_fcntl.F_DUPFD_CLOEXEC, 10), "rb") as copy:
            assert copy.fileno() >= 10 and not os.get_inheritable(copy.fileno())
            assert own_fcntl.fcntl(copy, own_fcntl.F_GETFL) == fcntl.fcntl(copy, fcntl.F_GETFL)
        os.write(theirs, b"seven b")
        room, waiting = bytearray(4), 0x541B  # FIONREAD
        assert own_fcntl.ioctl(ours_, waiting, room) == 0 and struct.unpack("i", room) == (7,)
        assert own_fcntl.ioctl(ours_, waiting, bytes(4)) == struct.pack("i", 7)
        room = bytearray(4)
        assert own_fcntl.ioctl(ours_, waiting, room, False) == struct.pack("i", 7) and room == bytearray(4)
        with pytest.raises(OSError) as failed:
            own_fcntl.fcntl(1 << 20, own_fcntl.F_GETFD)
        assert failed.value.errno == errno.EBADF
        for wrong in (bytes(1025), "text"):
            with pytest.raises((ValueError, TypeError)):
                own_fcntl.ioctl(ours_, waiting, wrong)
    finally:
        os.close(ours_)
        os.close(theirs)


def test_constants(own_fcntl: Any) -> None:
    found = {name: value for name, value in vars(own_fcntl).items() if name.isupper()}
    assert len(found) == 18
    known = {name: value for name, value in vars(fcntl).items() if name in found}
    assert known == {name: found[name] for name in known} and len(known) > 12


def test_poll(own_select: Any) -> None:
    """The same answers as the standard library's for a pipe in every state."""
    reader, writer = os.pipe()
    pollers = [own_select.poll(), select.poll()]
    try:
        for change in ("register", "modify"):
            for poller in pollers:
                getattr(poller, change)(reader, select.POLLIN | select.POLLPRI)
                getattr(poller, change)(writer, select.POLLOUT)
            assert pollers[0].poll() == pollers[1].poll() == [(writer, select.POLLOUT)]
        os.write(writer, b"x")
        assert sorted(pollers[0].poll(1000)) == sorted(pollers[1].poll(1000))
        for poller in pollers:
            poller.unregister(writer)
        os.close(writer)
        assert pollers[0].poll(None) == pollers[1].poll() == [(reader, select.POLLIN | select.POLLHUP)]
        for poller in pollers:
            with pytest.raises(KeyError):
                poller.unregister(writer)
            with pytest.raises(FileNotFoundError):
                poller.modify(writer, 0)
        os.read(reader, 2)
        pollers[0].register(reader, 0)
        assert pollers[0].poll(0) == [(reader, select.POLLHUP)]
    finally:
        os.close(reader)
    assert pollers[0].poll() == [(reader, select.POLLNVAL)]


def test_a_time_limit(own_select: Any) -> None:
    """It is not shorter than what was asked for, and a signal does not end it."""
    signals = []
    before = signal.signal(signal.SIGALRM, lambda *_: signals.append(1))
    started = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert own_select.poll().poll(50.5) == [] and signals == [1]
        assert own_select.select([], [], [], 0.02) == ([], [], [])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started >= 0.07
    with pytest.raises(OverflowError):
        own_select.poll().poll(1e300)
    with pytest.raises(TypeError):
        own_select.poll().poll("soon")


def test_many_files(own_select: Any) -> None:
    pipes = [os.pipe() for _ in range(40)]
    try:
        poller = own_select.poll()
        for reader, writer in pipes:
            poller.register(reader, select.POLLIN)
            os.write(writer, b"x" * (reader % 2))
        full = [reader for reader, _ in pipes if reader % 2]
        assert [fd for fd, _ in poller.poll(0)] == full
        readers, writers = map(list, zip(*pipes, strict=True))
        assert own_select.select(readers, writers[:3], readers) == (full, writers[:3], [])
    finally:
        for pair in pipes:
            os.close(pair[0])
            os.close(pair[1])
