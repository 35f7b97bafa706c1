"""The launcher's replacement for libm (native/launcher/libm.c)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "native"


def test_results_are_those_of_libm(tmp_path: Path) -> None:
    """For special values and random ones, to the bit."""
    exe = tmp_path / "libm"
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-builtin", "-fno-math-errno"]
    sources = [NATIVE / "tests" / "test_libm.c", NATIVE / "launcher" / "libm.c"]
    subprocess.run(["gcc", *flags, f"-I{NATIVE}/launcher", "-o", exe, *sources], check=True)
    done = subprocess.run([exe], capture_output=True, text=True, timeout=120, check=False)
    assert not re.search("^not ok", done.stdout, re.M), done.stdout
    assert done.returncode == 0 and re.search(r"^1\.\.\d+$", done.stdout, re.M), done.stdout + done.stderr


def test_the_launcher_does_not_load_it(launcher: Path) -> None:
    """A start looks up one library less: libc."""
    version = subprocess.run([launcher, "--version"], capture_output=True, text=True, check=True).stdout
    if "launcher: static" not in version:
        pytest.skip("a shared libpython needs libm")
    shown = subprocess.run(["readelf", "-dW", launcher], capture_output=True, text=True, check=True).stdout
    assert "libm.so.6" not in re.findall(r"NEEDED.*\[(.*)\]", shown)
