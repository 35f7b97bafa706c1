"""``native/init/path.c`` in a root filesystem full of traps: the C unit test, compiled with
sanitizers and run."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import pytest

NATIVE = pathlib.Path(__file__).resolve().parent.parent / "native"
WARNINGS = ["-std=gnu11", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
SANITIZE = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
OWN = ["path", "mount", "source", "copyup", "device", "pivot", "mask", "console", "uts"]

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def compile_to(
    out: pathlib.Path, *sources: pathlib.Path | str, compiler: str = "gcc", flags: list[str] = SANITIZE
) -> None:
    """Compile ``sources`` with all warnings as errors; the compiler's output is the assertion
    message."""
    command = [compiler, *WARNINGS, *flags, "-o", str(out), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def tap(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    base = tmp_path_factory.mktemp("path")
    program, work = base / "test_path", base / "work"
    work.mkdir()
    own = NATIVE / "tests"
    compile_to(program, own / "test_path.c", own / "calls.c", NATIVE / "init" / "path.c", f"@{own}/calls.flags")
    done = subprocess.run([program, work], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.count("\n1..") == 1, done.stdout + done.stderr
    assert (done.returncode == 0) == ("not ok" not in done.stdout), done.stderr
    return done.stdout.splitlines()


def test_every_check_passes(tap: list[str]) -> None:
    assert [line for line in tap if line.startswith("not ok")] == []


def test_no_check_was_left_out(tap: list[str]) -> None:
    plan = re.fullmatch(r"1\.\.(\d+)", tap[-1])
    assert plan is not None
    assert int(plan[1]) > 90
    assert len([line for line in tap if line.startswith("ok ")]) == int(plan[1])


@pytest.mark.parametrize("name", OWN)
def test_no_allocation_and_no_stdio(name: str) -> None:
    """init allocates nothing and formats nothing: the objects' imported symbols prove it."""
    text = (NATIVE / "init" / f"{name}.c").read_text()
    called = set(re.findall(r"\b([a-z_0-9]+)\(", text))
    assert called & {"malloc", "calloc", "realloc", "free", "alloca", "printf", "snprintf", "fopen", "opendir"} == set()


@pytest.mark.parametrize("name", OWN)
def test_no_path_of_procfs_by_name(name: str) -> None:
    """T11 (CVE-2025-52881): nothing below /proc is opened by its absolute path; open_proc is the
    only way."""
    text = re.sub(r"/\*.*?\*/", "", (NATIVE / "init" / f"{name}.c").read_text(), flags=re.S)
    opened = [call for call in re.findall(r"\b\w+\([^;]*\"/proc[^;]*;", text) if not call.startswith("fault(")]
    assert opened == []


@pytest.mark.parametrize("compiler", ["gcc", "musl-gcc"])
def test_compiles_without_a_warning(compiler: str, tmp_path: pathlib.Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    for name in OWN:
        compile_to(tmp_path / f"{name}.o", NATIVE / "init" / f"{name}.c", compiler=compiler, flags=["-O2", "-c"])
