"""Modules that a static libpython lacks (native/launcher/inittab.py), and the launcher's
replacements."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAUNCHER = ROOT / "native" / "launcher"
sys.path.insert(0, str(LAUNCHER))

import inittab  # noqa: E402

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
NAMES = ["sha224", "sha256", "sha384", "sha512"]

CODE = """
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.ExtensionFileLoader("_sha2", sys.argv[1])
_sha2 = importlib.util.module_from_spec(importlib.util.spec_from_loader("_sha2", loader))
for line in sys.stdin:
    name, *parts = line.split()
    hash = getattr(_sha2, name)()
    for part in parts:
        hash.update(bytes.fromhex(part))
    copy = hash.copy()
    hash.update(b"more")
    once = getattr(_sha2, name)(bytes.fromhex("".join(parts)), usedforsecurity=False)
    assert once.digest() == copy.digest() != hash.digest()
    print(copy.hexdigest(), copy.name, copy.digest_size, copy.block_size)
"""


@pytest.fixture(scope="module")
def own_sha2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("sha2") / "_sha2.so"
    include = ["-I", str(LAUNCHER), "-isystem", sysconfig.get_path("include")]
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, *include, str(LAUNCHER / "sha2.c"), "-o", library], check=True)
    return library


@pytest.mark.parametrize("name", NAMES)
def test_our_hashes_are_those_of_the_standard_library(own_sha2: Path, name: str) -> None:
    """Every length around a block, in pieces of random sizes."""
    chance = random.Random(name)
    lines, expected = [], []
    for length in [*range(300), 4096, 100_000]:
        data, parts = chance.randbytes(length), list[bytes]()
        while (done := sum(map(len, parts))) < length:
            parts.append(data[done : done + chance.randrange(1, 2 * length)])
        lines.append(" ".join([name, *(part.hex() for part in parts)]))
        model = hashlib.new(name, data)
        expected.append(f"{model.hexdigest()} {name} {model.digest_size} {model.block_size}")
    text = "\n".join(lines) + "\n"
    done_ = subprocess.run(
        [sys.executable, "-Ic", CODE, own_sha2], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert done_.returncode == 0, done_.stderr
    assert done_.stdout.splitlines() == expected


def archive(place: Path, sources: dict[str, str]) -> Path:
    """A static library of these C files, in a directory with a table of three modules."""
    for name, text in sources.items():
        source = place / f"{name}.c"
        source.write_text(text)
        subprocess.run(["gcc", "-c", source, "-o", source.with_suffix(".o")], check=True)
    library = place / "libpython.a"
    subprocess.run(["ar", "rc", library, *(place / f"{name}.o" for name in sources)], check=True)
    (place / "config.c").write_text('    {"good", PyInit_good},\n    {"bad", PyInit_bad},\n    {"sys", NULL},\n')
    return library


def test_a_module_that_cannot_be_linked_is_left_out(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    sources = {
        "main": "void *PyInit_good(void); void *PyInit_bad(void);"
        "void *t[] = {PyInit_good, PyInit_bad}; void Py_Initialize(void) {}",
        "good": "void *PyInit_good(void) { return 0; }",
        "bad": "void absent(void); void *PyInit_bad(void) { absent(); return 0; }",
    }
    library, output = archive(tmp_path, sources), tmp_path / "inittab.o"
    monkeypatch.setattr(sys, "argv", ["inittab.py", str(library), str(output), "gcc", "--", "m"])
    inittab.main()
    assert capsys.readouterr().out == "bad\n"
    assert output.exists()
    table = output.with_suffix(".c").read_text()
    assert '{"good", PyInit_good}' in table and '{"sys", NULL}' in table and "bad" not in table


def test_a_whole_archive_loses_nothing(tmp_path: Path) -> None:
    library = archive(tmp_path, {"main": "void Py_Initialize(void) {}"})
    assert inittab.undefined(library, ["gcc"], ["m"]) == set()
    assert inittab.users(library, set()) == set()


@pytest.mark.parametrize("name", NAMES)
def test_the_small_hashlib(name: str) -> None:
    code = (
        "import sys, types, hashlib; sys.modules.setdefault('_sha2', hashlib); sys.path.insert(0, sys.argv[1]);"
        "import hashlib_sha2 as small; print(small.new(sys.argv[2], b'x').hexdigest())\n"
        "try:\n    small.new('md5')\nexcept ValueError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-Ic", code, LAUNCHER, name], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == [hashlib.new(name, b"x").hexdigest(), "unsupported hash type md5"]
