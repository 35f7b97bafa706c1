"""native/shim/sandbox.c: the child that compiles seccomp profiles, with hostile work in place of
libseccomp's."""

from __future__ import annotations

import math
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from work import SLOW

NATIVE = pathlib.Path(__file__).resolve().parent.parent / "native"
SOURCES = [NATIVE / "shim" / f"{name}.c" for name in ("sandbox", "spawn", "image", "signals", "shim")]
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
# A second is enough here. A guest also counts the time that its emulated processor waits for a real one.
FLAGS += [f"-DSANDBOX_CPU_SECONDS={math.ceil(SLOW)}"]
BUILDS = {"plain": ["-O2"], "sanitized": ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]}


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@pytest.mark.parametrize("build", BUILDS)
def test_abilities_of_a_child(build: str, tmp_path: pathlib.Path) -> None:
    """The child may answer and end. It gets no other system call, memory or time, and cannot affect
    its parent."""
    program = tmp_path / "test_sandbox"
    headers = [f"-I{NATIVE / 'shim'}", f"-I{NATIVE / 'tests'}"]
    command = ["gcc", *FLAGS, *BUILDS[build], *headers, "-o", program, NATIVE / "tests/test_sandbox.c", *SOURCES]
    subprocess.run([str(part) for part in command], check=True)
    # The leak checker runs at _exit, which needs calls that the child may not make.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([program], capture_output=True, text=True, timeout=120 * SLOW, env=environment, check=False)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("not ok", "#"))]
    assert not failed, "\n".join(failed)
    assert done.returncode == 0, done.stderr
    count = len(re.findall(r"^ok \d+ - ", done.stdout, re.M))
    assert count > 70
    assert done.stdout.endswith(f"1..{count}\n")


def test_python_knows_the_limits() -> None:
    """The limits in the messages are those of the header."""
    from pyrunc import seccomp

    text = (NATIVE / "shim/sandbox.h").read_text()
    seconds = re.search(r"define SANDBOX_CPU_SECONDS +(\d+)", text)
    mebibytes = re.search(r"define SANDBOX_MEMORY +\((\d+)UL << 20\)", text)
    assert seconds and int(seconds[1]) == seccomp.CPU_SECONDS
    assert mebibytes and f"{mebibytes[1]} MiB" == seccomp.MEMORY
