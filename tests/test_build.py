"""The built products: hardened, complete, small, and static where required."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import pyrunc

ROOT = Path(__file__).resolve().parent.parent
INIT_LIMIT = 100 * 1024  # bytes; every waiting container maps it


def product(pattern: str) -> Path:
    found = sorted(ROOT.glob(pattern))
    if not found:
        pytest.skip("not built: make build")
    return found[-1]


def readelf(path: Path, *options: str) -> str:
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    command = ["readelf", "-W", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


SITE = ".venv/lib/python3*/site-packages/pyrunc"
PRODUCTS = [".venv/bin/pyrunc", f"{SITE}/_shim*.so", f"{SITE}/_reader*.so", f"{SITE}/_init"]


@pytest.mark.parametrize("pattern", PRODUCTS)
def test_hardening(pattern: str) -> None:
    path = product(pattern)
    if pattern != PRODUCTS[0]:  # the launcher: docs/adr/0028-fixed-addresses.md
        assert re.search(r"Type:\s+DYN", readelf(path, "-h")), "not position independent"
    segments = readelf(path, "-l")
    assert "GNU_RELRO" in segments
    stack = re.search(r"GNU_STACK.*", segments)
    assert stack and "RWE" not in stack[0]
    dynamic = readelf(path, "-d")
    assert re.search(r"FLAGS_1.*NOW|BIND_NOW", dynamic), "lazy binding leaves the GOT writable"
    assert "TEXTREL" not in dynamic
    for segment in re.findall(r"LOAD .*", segments):
        assert not ("W" in segment[-16:] and "E" in segment[-16:]), segment


# Our own objects: the launcher and the extension also hold libraries of the distribution, built
# with other flags.
OBJECTS = ["libshim.a.p/*.o", "libreader.a.p/*.o", "pyrunc*.p/*.o"]  # pyrunc-linked: before its snapshot is added


@pytest.mark.parametrize("pattern", OBJECTS)
def test_objects_are_hardened(pattern: str) -> None:
    """Branch protection, stack protector, FORTIFY, asked of what the compiler made."""
    product(f"build/meson/{pattern}")
    objects = sorted(ROOT.glob(f"build/meson/{pattern}"))
    symbols = ""
    for path in objects:
        notes = readelf(path, "-n")
        if "X86" in readelf(path, "-h").upper():
            assert re.search(r"x86 feature:.*IBT.*SHSTK", notes), f"{path.name}: no CET"
        else:
            assert "BTI" in notes, f"{path.name}: no BTI"
        symbols += readelf(path, "-s")
    assert "__stack_chk_fail" in symbols
    assert re.search(r"__\w+_chk\b", symbols.replace("__stack_chk_fail", "")), "FORTIFY replaced no call"


def test_init_has_branch_and_stack_protection() -> None:
    """musl has no FORTIFY, and its start files carry no CET note, so the code itself is checked."""
    path = product(f"{SITE}/_init")
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not installed")
    code = subprocess.run(["objdump", "-d", str(path)], capture_output=True, text=True, check=True).stdout
    landing = len(re.findall(r"\t(?:endbr64|bti\s+c|paciasp)", code))
    assert landing > 40, "indirect branches have no landing pads: at least one for each op's handler"
    flags = (ROOT / "meson.build").read_text()
    assert "init_args" in flags and re.search(r"init_args = .*?\+ hardening \+ strict", flags, re.S)


def test_no_search_path_for_libraries() -> None:
    dynamic = readelf(product(".venv/bin/pyrunc"), "-d")
    if "libpython" in dynamic:
        pytest.skip("linked with a shared libpython that may be anywhere")
    assert "RPATH" not in dynamic and "RUNPATH" not in dynamic


def test_init_is_static_and_small() -> None:
    path = product(f"{SITE}/_init")
    assert "INTERP" not in readelf(path, "-l")
    assert "NEEDED" not in readelf(path, "-d")
    if platform.machine() == "x86_64":  # on arm64 the linker puts holes of up to 64 KiB between segments
        assert path.stat().st_size < INIT_LIMIT
    loaded = [int(row.split()[4], 16) for row in readelf(path, "-l").splitlines() if row.strip().startswith("LOAD")]
    assert 0 < sum(loaded) < INIT_LIMIT
    assert path.stat().st_mode & 0o777 == 0o755


def test_init_refuses_to_run_alone() -> None:
    result = subprocess.run(
        [product(f"{SITE}/_init")], stdin=subprocess.DEVNULL, capture_output=True,
        check=False, timeout=10,
    )  # fmt: skip
    assert result.returncode != 0


def test_every_module_is_installed() -> None:
    site = product(f"{SITE}/__init__.py").parent
    sources = {path.relative_to(ROOT / "pyrunc") for path in (ROOT / "pyrunc").rglob("*.py")}
    installed = {path.relative_to(site) for path in site.rglob("*.py")}
    assert sources == installed
    assert (site / "py.typed").exists()


def test_the_commit_is_known(launcher: Path) -> None:
    """In a checkout; a build from an archive reports an unknown commit."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    if b"_pyrunc_launcher" not in launcher.read_bytes():
        pytest.skip("this launcher executes an interpreter instead of embedding one")
    text = subprocess.run([launcher, "--version"], capture_output=True, text=True, check=True).stdout
    commit = re.search(r"^commit: ([0-9a-f]{40})(-dirty)?$", text, re.MULTILINE)
    assert commit, text
    known = subprocess.run(
        ["git", "-C", ROOT, "cat-file", "-t", commit[1]], capture_output=True, text=True, check=False
    )
    assert known.stdout == "commit\n"


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    meson = (ROOT / "meson.build").read_text(encoding="utf-8")
    assert project["version"] == pyrunc.VERSION
    assert f"version: '{pyrunc.VERSION}'" in meson


def test_make_help_documents_every_target() -> None:
    text = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = "help build demo test engines test-cri lint bench clean install uninstall"
    for target in targets.split():
        assert re.search(rf"^  make {target} +\S", text, re.MULTILINE), target
