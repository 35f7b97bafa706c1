"""The C unit tests of init, compiled with the sanitizers, and the rules that its sources keep."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent
INIT = ROOT / "native" / "init"
C_TESTS = ROOT / "native" / "tests"
GCC = shutil.which("gcc")
FLAGS = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", f"-I{INIT}", f"-I{C_TESTS}"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.mark.skipif(GCC is None, reason="gcc is not installed")
@pytest.mark.parametrize(
    ("test", "sources"),
    [("test_plan_load", ["plan_load", "run", "report"]), ("test_lookup", ["lookup", "report"])],
)
def test_c_unit(test: str, sources: list[str], tmp_path: pathlib.Path) -> None:
    """Compile one C test with what it tests, run it, and look at its TAP output as well as its exit status."""
    assert GCC
    exe, work = tmp_path / test, tmp_path / "work"
    work.mkdir()
    files = [C_TESTS / f"{test}.c", *(INIT / f"{name}.c" for name in sources)]
    subprocess.run([GCC, *FLAGS, *SANITIZERS, "-o", exe, *files], check=True)
    args = [str(work)] if test == "test_lookup" else []
    done = subprocess.run([exe, *args], capture_output=True, text=True, timeout=60)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("not ok", "#"))]
    assert not failed, "\n".join(failed)
    assert done.returncode == 0, done.stderr
    count = len(re.findall(r"^ok \d+ - ", done.stdout, re.M))
    assert count > 10
    assert done.stdout.endswith(f"1..{count}\n")


def test_every_op_has_its_handler() -> None:
    """A row of plan.def without a handler, or with another op's, would only be seen when a plan uses it."""
    rows = [line.split("|")[0].strip() for line in (ROOT / "native" / "plan.def").read_text().splitlines()]
    names = [name for name in rows if re.fullmatch(r"[A-Z_]+", name)]
    table = dict(re.findall(r"\[OP_(\w+)\] = op_(\w+),", (INIT / "main.c").read_text()))
    assert len(names) > 40
    assert table == {name: name.lower() for name in names}


def test_no_allocation_and_no_stdio() -> None:
    """init allocates nothing and formats nothing with stdio: it must not fail, grow or wait where nobody expects it."""
    for path in INIT.glob("*.c"):
        code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
        found = re.search(r"\b(malloc|calloc|realloc|strdup|asprintf|s?n?printf|fopen|system|getenv)\s*\(", code)
        assert not found, f"{path.name}: {found.group(0) if found else ''}"


def test_descriptors_are_close_on_exec() -> None:
    """Every descriptor that init opens is close-on-exec from its first moment (CVE-2024-21626)."""
    for path in INIT.glob("*.c"):
        code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
        for call in re.findall(r"\b(?:open|openat|socket|sys_memfd_create|sys_fsopen|sys_fsmount)\([^;]*;", code):
            # In main.c: stdin, stdout or stderr itself, which is to survive.
            if call.startswith('open("/dev/null", O_RDWR)'):
                continue
            assert "CLOEXEC" in call or "F_DUPFD" in call, f"{path.name}: {call}"
