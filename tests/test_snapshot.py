"""The start-up snapshot: its creation, and what it must not contain
(docs/adr/0028-fixed-addresses.md)."""

from __future__ import annotations

import array
import contextlib
import itertools
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyrunc import fs, host
from work import SLOW

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "native" / "launcher"), str(ROOT / "native" / "launcher" / "snapshot")]

import closure  # noqa: E402
import freeze  # noqa: E402
import pyconfig  # noqa: E402
import snapshot  # noqa: E402
import training  # noqa: E402

LINKED = ROOT / "build" / "meson" / "pyrunc-linked"


def control(path: Path) -> int:
    """The state of an executable's snapshot; skip the test if it cannot have one."""
    try:
        elf = snapshot.Elf(path.read_bytes())
    except snapshot.NoSnapshotError:
        pytest.skip("this launcher has no fixed addresses")
    symbol = elf.symbols().get("pyrunc_snapshot")
    if symbol is None:
        pytest.skip("this launcher was built without a snapshot")
    return elf.word(symbol[0])


def test_the_built_launcher_has_one(launcher: Path) -> None:
    """A broken snapshot would only be noticed as a start-up that is three times slower."""
    assert control(launcher) == snapshot.READY


def test_its_interpreter_is_in_the_core_phase(launcher: Path) -> None:
    """A complete interpreter has streams of the building process, and is larger."""
    control(launcher)
    elf = snapshot.Elf(launcher.read_bytes())
    assert elf.word(elf.symbols()["in_core_phase"][0]) & 0xFFFFFFFF == 1


@pytest.fixture
def own_cgroup() -> Iterator[list[str]]:
    """The start of a command line whose process is in a cgroup of its own, if we may make one."""
    path = Path(host.snapshot().cgroup2_mount or "/nonexistent", f"pyrunc-test-{os.getpid()}")
    try:
        path.mkdir()
    except OSError:
        yield []
        return
    yield ["sh", "-c", f'echo 0 >{path}/cgroup.procs && exec "$@"', "sh"]
    for _ in range(500):  # until its last process has been reaped
        with contextlib.suppress(OSError):
            path.rmdir()
            break
        time.sleep(0.02)
    assert not path.exists()


def test_two_snapshots_are_the_same(launcher: Path, tmp_path: Path, own_cgroup: list[str]) -> None:
    """Two snapshots of the same program are equal, byte for byte, whoever makes them."""
    if control(launcher) != snapshot.READY or not LINKED.exists():
        pytest.skip("not built here")
    again = tmp_path / "pyrunc"
    subprocess.run(
        [*own_cgroup, sys.executable, snapshot.__file__, LINKED, again, "--required"], check=True, timeout=120 * SLOW
    )
    assert again.read_bytes() == (LINKED.parent / "pyrunc").read_bytes()
    snapshot.check(LINKED, again)


@pytest.mark.parametrize(
    ("runs", "found", "count"),
    [("aaab", "a", 3), ("abaca", "a", 5), ("abbab", "b", 5), ("abcdbe", "b", 6), ("abcdefg", "a", 6)],
)
def test_training_runs_agree(monkeypatch: pytest.MonkeyPatch, runs: str, found: str, count: int) -> None:
    left = list(runs)
    monkeypatch.setattr(snapshot, "run", lambda *args, **more: left.pop(0).encode())
    training = snapshot.Training.__new__(snapshot.Training)
    training.code = b""
    assert training.levels(Path("program")) == found.encode()
    assert len(runs) - len(left) == count


def heap_of(launcher: Path) -> bytes:
    control(launcher)
    elf = snapshot.Elf(launcher.read_bytes())
    heap = elf.section(".pyheap")
    return bytes(elf.data[heap.offset : heap.offset + heap.size])


def sizes() -> tuple[int, int, int]:
    """HEAP_SHORT_SIZE, HEAP_LONG_SIZE and HEAP_READ_SIZE of heap.h."""
    header = (ROOT / "native" / "launcher" / "snapshot" / "heap.h").read_text()
    short, long, read = (
        int(number) << int(shift)
        for name in ("HEAP_SHORT_SIZE", "HEAP_LONG_SIZE", "HEAP_READ_SIZE")
        for number, shift in re.findall(rf"{name} = (\d+) << (\d+)", header)
    )
    return short, long, read


def test_blocks_that_are_written_to_are_together(launcher: Path) -> None:
    """Few pages are copied.  A region without content means that the training run found nothing,
    and a full one that it no longer separates anything."""
    heap, (short, long, _) = heap_of(launcher), sizes()
    used = len(heap[:short].rstrip(b"\0")), len(heap[short : short + long].rstrip(b"\0"))
    assert 16 << 10 < used[0] < short // 2
    assert 64 << 10 < used[1] < long * 3 // 4
    assert len(heap) > short + long + (1 << 20)


def test_blocks_that_are_only_read_are_together(launcher: Path) -> None:
    """Few pages of the rest are mapped.  Their region has room left, and the rest is much
    larger."""
    heap, (short, long, read) = heap_of(launcher), sizes()
    used = heap[short + long : short + long + read].rstrip(b"\0")
    assert 128 << 10 < len(used) < read // 2
    assert len(heap) > short + long + read + (2 << 20)


def test_code_of_verbs_is_together(launcher: Path) -> None:
    """Few pages of the code are mapped (native/launcher/verbs.ld)."""
    control(launcher)
    elf = snapshot.Elf(launcher.read_bytes())
    if ".text.verbs" not in [one.name for one in elf.sections]:
        pytest.skip("this linker keeps its own order")
    hot, rest = elf.section(".text.verbs"), elf.section(".text")
    assert hot.size < 2 * rest.size
    for name in ("_PyEval_EvalFrameDefault", "PyDict_GetItemWithError", "_PyType_Lookup"):
        assert hot.addr <= elf.symbols()[name][0] < hot.addr + hot.size


def test_a_failed_training_is_reported(launcher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The snapshot of a launcher whose verbs cannot be run is one without training."""
    if control(launcher) != snapshot.READY or not LINKED.exists():
        pytest.skip("not built here")
    broken = tmp_path / "broken"  # it cannot write a bundle
    broken.write_text("#!/bin/sh\necho no bundle >&2\nexit 3\n")
    broken.chmod(0o755)
    elf = snapshot.Elf(LINKED.read_bytes())
    elf.drop_constructor(snapshot.NEEDLESS, "snapshot_nothing")
    start, memory = snapshot.trained(elf, broken, snapshot.copy_that_makes_one(elf, tmp_path))
    assert start and len(memory) > 1 << 20
    lines = capfd.readouterr().err.splitlines()
    assert re.fullmatch("the start-up snapshot is untrained: .* returned non-zero exit status 3.*", lines[-1])


def test_nothing_of_the_training_is_left(launcher: Path) -> None:
    """Verbs that ran before the snapshot leave no path, state or secret in it."""
    heap = heap_of(launcher)
    for text in (b"/cgroup/id", b"root/id", training.STARTED.encode(), b"pyrunc-plan\0time"):
        assert text not in heap
    assert b"is_inconclusive" in heap


def test_variables_of_modules_are_as_imported() -> None:
    """A salt that the build chose would make the hashes of every launcher predictable (ADR 14)."""
    before = training.globals_of_modules()
    known = training.sizes_of(before)
    old = fs._salt
    vars(fs).update(_salt="guessed", left="over")
    training.forget(before, known)
    assert fs._salt is old and not hasattr(fs, "left")
    cache = {("pyrunc.fs", "cache"): 1}
    with pytest.raises(RuntimeError, match="fills a cache"):
        training.forget(before, known | cache)
    sys.modules["pyrunc.late"] = fs
    try:
        with pytest.raises(RuntimeError, match=r"imported by a verb.*pyrunc\.late"):
            training.forget(before, known)
    finally:
        del sys.modules["pyrunc.late"]


def test_segments_suit_the_largest_pages(launcher: Path) -> None:
    """A snapshot works with any page size of the processor's: the file is mapped as it is."""
    control(launcher)
    largest = {"aarch64": 65536}.get(os.uname().machine, 4096)
    elf = snapshot.Elf(launcher.read_bytes())
    rows = [struct.unpack_from(elf.SEGMENT, elf.data, elf.phoff + 56 * number) for number in range(elf.phnum)]
    loaded = [row for row in rows if row[0] == snapshot.LOAD]
    assert len(loaded) > 3
    for row in loaded:
        assert row[7] % largest == 0 and (row[2] - row[3]) % largest == 0, row
    pages = [(row[3] // largest, (row[3] + row[6] - 1) // largest) for row in sorted(loaded, key=lambda row: row[3])]
    assert [pair for pair in itertools.pairwise(pages) if pair[0][1] >= pair[1][0]] == [], "segments share a page"
    assert elf.symbols()["pyrunc_heap"][0] % largest == 0


def test_without_small_pages_there_is_no_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dump = snapshot.Dump(0x1000, 0x2000, 1, snapshot.words(bytes(16)))
    dumps = [dump, dump._replace(stack=2)]
    asked = []

    def take(copy: Path, number: int, request: bytes) -> snapshot.Dump:
        asked.append(request)
        return dumps[number]

    monkeypatch.setattr(os, "sysconf", lambda name: 65536)
    monkeypatch.setattr(snapshot, "take", take)
    elf: Any = SimpleNamespace(written_by_loader=dict)
    assert snapshot.trained(elf, tmp_path / "linked", tmp_path / "copy") == (0x1000, bytes(16))
    assert asked == [bytes(24)] * 2


def test_sections_are_whole(launcher: Path) -> None:
    """The file's content is in a section, so that strip(1) and debuggers understand it."""
    control(launcher)
    elf = snapshot.Elf(launcher.read_bytes())
    # .tbss, of thread variables, takes no room.
    sections = [one for one in elf.sections if one.addr and not (one.flags & 0x400 and one.type == snapshot.NOBITS)]
    sections.sort(key=lambda one: one.addr)
    for one, following in itertools.pairwise(sections):
        assert one.addr + one.size <= following.addr, (one, following)
    assert elf.section(".bss").type == snapshot.PROGBITS
    assert [one.type for one in sections if one.name == ".pyheap"] == [snapshot.PROGBITS]


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
    """A fact that a module collects at import would be the build machine's in every process."""
    package = ROOT / "pyrunc"
    modules = [(freeze.module_name(package, path), path) for path in sorted(package.rglob("*.py"))]
    names = freeze.preloadable(modules, closure.BUILTIN | {*pyconfig.lacks()})  # the launcher has these
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
        "q/__init__": "import json\n",
        "q/inside": "import sys\n",
    }
    (package / "q").mkdir()
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    modules = [(freeze.module_name(package, path), path) for path in sorted(package.rglob("*.py"))]
    assert freeze.preloadable(modules) == ["p", "p.other", "p.plain"]


def test_a_constructor_is_replaced(launcher: Path) -> None:
    """CPython 3.13 links mimalloc, whose constructor sets random numbers that nobody uses."""
    control(launcher)
    elf = snapshot.Elf(launcher.read_bytes())
    symbols, table = elf.symbols(), elf.section(".init_array")
    first = int.from_bytes(elf.data[table.offset :][:8], "little")
    name = next(name for name, (value, _) in symbols.items() if value == first)
    elf.drop_constructor("no_such_function", "snapshot_nothing")
    assert int.from_bytes(elf.data[table.offset :][:8], "little") == first
    elf.drop_constructor(name, "snapshot_nothing")
    assert int.from_bytes(elf.data[table.offset :][:8], "little") == symbols["snapshot_nothing"][0]
    assert snapshot.NEEDLESS not in symbols or symbols[snapshot.NEEDLESS][0] != first


# -- what two runs have in common ------------------------------------------------------------------


class FakeElf(snapshot.Elf):
    """An executable with one variable that the loader writes."""

    def __init__(self, mask: int = (1 << 64) - 1) -> None:
        self.mask = mask

    def written_by_loader(self) -> dict[int, int]:
        return {0x1008: self.mask}

    def word(self, address: int) -> int:
        return 77

    def symbols(self) -> dict[str, tuple[int, int]]:
        return {"counter": (0x1010, 8)}


def dump(*values: int, stack: int, heap: int = 0x1018) -> snapshot.Dump:
    return snapshot.Dump(0x1000, heap, stack, array.array("Q", values))


def test_memory_is_taken_as_it_is() -> None:
    """Memory equals the file except for the loader's writes."""
    runs = [dump(1, 1000 + stack, 3, stack=stack) for stack in (1, 2)]
    assert array.array("Q", snapshot.common(FakeElf(), runs)).tolist() == [1, 77, 3]


def test_a_variable_beside_a_small_one_of_libc_is_kept() -> None:
    """in_core_phase was lost when it shared a word with __libc_single_threaded, a byte."""
    runs = [dump(1, 0x5_0000_0001 + stack, 3, stack=stack) for stack in (1, 2)]
    assert array.array("Q", snapshot.common(FakeElf(0xFFFFFFFF), runs)).tolist() == [1, 0x5_0000_004D, 3]
    with pytest.raises(snapshot.NoSnapshotError, match=r"^1 words differ"):
        snapshot.common(FakeElf(0xFFFFFFFF << 32), runs)


def test_the_loader_writes_no_more_than_its_objects(launcher: Path) -> None:
    control(launcher)
    found = snapshot.Elf(launcher.read_bytes()).written_by_loader()
    assert {mask for mask in found.values() if mask != (1 << 64) - 1} >= {0xFF}  # __libc_single_threaded
    for address, mask in found.items():
        assert address % 8 == 0 and 0 < mask < 1 << 64, hex(address)


def test_a_word_that_varies_is_refused() -> None:
    """A time, a random number, an address in libc or on the stack; the message names the
    variable."""
    with pytest.raises(snapshot.NoSnapshotError, match=r"^1 words differ from process to process: counter\+0$"):
        snapshot.common(FakeElf(), [dump(1, 2, 3, stack=1), dump(1, 2, 4, stack=2)])
    with pytest.raises(snapshot.NoSnapshotError, match=r"heap\+0x0$"):
        snapshot.common(FakeElf(), [dump(1, 2, 3, stack=1, heap=0x1010), dump(1, 2, 4, stack=2, heap=0x1010)])


def test_different_sizes_are_refused() -> None:
    with pytest.raises(snapshot.NoSnapshotError, match="memory they use"):
        snapshot.common(FakeElf(), [dump(1, 2, 3, stack=1), dump(1, 2, stack=2)])


def test_without_address_randomization_there_is_none() -> None:
    with pytest.raises(snapshot.NoSnapshotError, match="randomization"):
        snapshot.common(FakeElf(), [dump(1, stack=1), dump(1, stack=1)])


def test_a_program_with_random_addresses_is_refused() -> None:
    with pytest.raises(snapshot.NoSnapshotError, match="fixed addresses"):
        snapshot.Elf(Path("/bin/sh").resolve().read_bytes())


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
    sources = [ROOT / "native" / "tests" / "test_heap.c", rooms / "heap.c", rooms / "training.c"]
    command = ["gcc", *flags, f"-I{rooms}", "-o", exe, *sources, "-pthread"]
    subprocess.run(command, check=True)  # type: ignore[arg-type]
    done = subprocess.run([exe], capture_output=True, text=True, timeout=120, check=False)
    assert not re.search("^not ok", done.stdout, re.M), done.stdout
    assert done.returncode == 0 and re.search(r"^1\.\.\d+$", done.stdout, re.M), done.stdout + done.stderr
