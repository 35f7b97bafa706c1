"""The start-up snapshot: how it is made, and what may not be in it (docs/adr/0010-start-up-snapshot.md)."""

from __future__ import annotations

import array
import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "native" / "launcher"), str(ROOT / "native" / "launcher" / "snapshot")]

import freeze  # noqa: E402
import snapshot  # noqa: E402

LINKED = ROOT / "build" / "meson" / "pyrunc-linked"


def control(path: Path) -> int:
    """The state of an executable's snapshot; skips where it can have none."""
    elf = snapshot.Elf(path.read_bytes())
    symbol = elf.symbols().get("pyrunc_snapshot")
    if symbol is None:
        pytest.skip("this launcher was built without a snapshot")
    offset = elf.offset(symbol[0])
    return int.from_bytes(elf.data[offset : offset + 8], "little")


def test_the_built_launcher_has_one(launcher: Path) -> None:
    """Whatever broke it would show only as a start-up that is three times as slow."""
    assert control(launcher) == snapshot.READY


def test_two_snapshots_are_the_same(launcher: Path, tmp_path: Path) -> None:
    """Made of the same program they are equal, but for what the digits of the load address decide."""
    if control(launcher) != snapshot.READY or not LINKED.exists():
        pytest.skip("not built here")
    again = tmp_path / "pyrunc"
    subprocess.run([sys.executable, snapshot.__file__, LINKED, again, "--required"], check=True, timeout=120)
    assert again.stat().st_size == launcher.stat().st_size
    snapshot.check(LINKED, again)


def test_sections_are_whole(launcher: Path) -> None:
    """What is in the file is in a section, so that strip(1) and debuggers understand it."""
    control(launcher)
    elf = snapshot.Elf(launcher.read_bytes())
    sections = sorted((one for one in elf.sections if one.addr), key=lambda one: one.addr)
    for one, following in itertools.pairwise(sections):
        assert one.addr + one.size <= following.addr, (one, following)
    assert elf.section(".bss").type == snapshot.PROGBITS
    assert [one.type for one in sections if one.name == ".pyimage"] == [snapshot.PROGBITS, snapshot.NOBITS]


PURE = """
import __future__, _struct, errno, fcntl, importlib.util, posix, select, sys, time
sys.path.append({root!r})

def forbidden(name):
    def call(*args, **kwargs):
        raise AssertionError(f"{{name}} when a module is imported")
    return call

real = dict(vars(posix))
for module in (posix, time):
    for name, value in list(vars(module).items()):
        if type(value).__name__ == "builtin_function_or_method":
            setattr(module, name, forbidden(module.__name__ + "." + name))
posix.environ.clear()


class Finder:  # importlib's own one looks at directories
    util = importlib.util

    def find_spec(self, name, path=None, target=None):
        for tail, package in (("/__init__.py", True), (".py", False)):
            place = {root!r} + "/" + name.replace(".", "/") + tail
            try:
                fd = real["open"](place, 0)
            except OSError:
                continue
            text = b"".join(iter(lambda: real["read"](fd, 65536), b""))
            real["close"](fd)
            self.sources[name] = (compile(text, place, "exec"), place)
            return self.util.spec_from_loader(name, self, is_package=package)

    sources = {{}}

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        code, module.__file__ = self.sources[module.__name__]
        exec(code, module.__dict__)


sys.meta_path.insert(0, Finder())
for name in {names!r}:
    __import__(name)
"""


def test_importing_asks_the_system_nothing() -> None:
    """What a module finds out when it is imported would be what the building machine said, for ever."""
    package = ROOT / "pyrunc"
    modules = [(freeze.module_name(package, path), path) for path in sorted(package.rglob("*.py"))]
    names = freeze.preloadable(modules)
    hot = {"pyrunc.cli", "pyrunc.launch.create", "pyrunc.verbs.state", "pyrunc.plan.create", "pyrunc.seccomp"}
    assert hot <= set(names)
    code = PURE.format(root=str(ROOT), names=names)
    result = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr


def test_a_module_with_a_foreign_import_stays_out(tmp_path: Path) -> None:
    package = tmp_path / "p"
    package.mkdir()
    files = {
        "__init__": "",
        "plain": "import sys\nfrom p import other\ndef f():\n    import json\n",
        "other": "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    import typing\n",
        "foreign": "try:\n    import json\nexcept ImportError:\n    pass\n",
        "behind": "from p.foreign import json\n",
    }
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    modules = [(freeze.module_name(package, path), path) for path in sorted(package.rglob("*.py"))]
    assert freeze.preloadable(modules) == ["p", "p.other", "p.plain"]


# -- telling numbers from addresses ------------------------------------------------------------------------

BASES = [(0x55AA00000000, 0x7F0000200000), (0x56BB00008000, 0x7E0000400000), (0x55CC00010000, 0x7D0000600000)]
START = 0x1000


def dumps(*rows: tuple[object, ...], heap: tuple[tuple[object, ...], ...] = ()) -> list[snapshot.Dump]:
    """Three runs; a row is one word: (number,), ("exe", n), ("heap", n), or a number for each run."""

    def word(row: tuple[object, ...], run: int) -> int:
        if row[0] in ("exe", "heap"):
            return BASES[run][row[0] == "heap"] + int(str(row[1]))
        return int(str(row[run % len(row)]))

    return [
        snapshot.Dump(
            BASES[run],
            START,
            array.array("Q", [0] * len(rows)),
            (array.array("Q", [word(row, run) for row in rows]), array.array("Q", [word(row, run) for row in heap])),
        )
        for run in range(3)
    ]


def test_numbers_and_addresses() -> None:
    image = snapshot.Image(dumps((7,), ("exe", 0x1008), ("heap", 8), heap=(("exe", 0), (9,))), set())
    variables, heap = image.pieces
    assert list(variables.words) == [7, 0x1008, 8]
    assert [bits[0] for bits in variables.bits] == [0b010, 0b100]
    assert list(heap.words) == [0, 9]
    assert [bits[0] for bits in heap.bits] == [0b1, 0]
    assert not image.fixups and not variables.strange and not heap.strange


def test_a_word_that_varies_is_refused() -> None:
    """A time, a random number, an address in libc or on the stack."""
    image = snapshot.Image(dumps((1, 2, 3), (5,)), set())
    assert image.pieces[0].strange == [0]


def test_an_address_outside_the_memory_is_refused() -> None:
    """brk's heap can be at a fixed distance from the executable."""
    image = snapshot.Image(dumps(("exe", 0x1000000), (5,)), set())
    assert image.pieces[0].strange == [0]


def test_what_the_linker_writes_is_left_to_it() -> None:
    made = dumps(("exe", 0x1000), ("exe", 0x1008), (3,))
    for dump in made:
        dump.before[0] = dump.pieces[0][0]  # unchanged since main() began
    image = snapshot.Image(made, {START, START + 8, START + 16})
    assert image.fixups == [0, 8, 0, 0x1008, 0, 16, snapshot.NOTHING, 3]
    assert bytes(image.pieces[0].bits[0]).strip(b"\0") == b""


@pytest.mark.parametrize("at", [2, 4, 6])
def test_addresses_that_are_not_aligned(at: int) -> None:
    """The inline caches of byte code."""
    made = dumps((0,), heap=((0,), (0,), (0,)))
    for dump in made:
        data = bytearray(24)
        data[8 + at : 16 + at] = (dump.bases[0] + 0x1008).to_bytes(8, "little")
        dump.pieces[1][:] = array.array("Q", bytes(data))
    image = snapshot.Image(made, set())
    assert image.fixups == [1, 8 + at, 0, 0x1008]
    assert not image.pieces[1].strange
    assert image.pieces[1].words.tobytes()[8 + at : 16 + at] == (0x1008).to_bytes(8, "little")


def test_without_address_randomization_there_is_none() -> None:
    made = dumps((1,))
    with pytest.raises(snapshot.NoSnapshotError, match="randomization"):
        snapshot.Image([made[0], made[0]], set())


def test_packed_relocations() -> None:
    assert snapshot.relr([(0x100,), (0b1011,), (0x1000,)]) == {0x100, 0x108, 0x118, 0x1000}


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_heap(tmp_path: Path) -> None:
    """The allocator, in C."""
    rooms, exe = ROOT / "native" / "launcher" / "snapshot", tmp_path / "heap"
    wrap = "-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=free"
    flags = [
        "-std=gnu11",
        "-D_GNU_SOURCE",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fno-builtin",
        wrap,
    ]
    sources = [ROOT / "native" / "tests" / "test_heap.c", rooms / "heap.c"]
    command = ["gcc", *flags, f"-I{rooms}", "-o", exe, *sources, "-pthread"]
    subprocess.run(command, check=True)  # type: ignore[arg-type]
    done = subprocess.run([exe], capture_output=True, text=True, timeout=120, check=False)
    assert not re.search("^not ok", done.stdout, re.M), done.stdout
    assert done.returncode == 0 and re.search(r"^1\.\.\d+$", done.stdout, re.M), done.stdout + done.stderr
