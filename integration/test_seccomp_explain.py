"""`seccomp explain` and `seccomp check` agree with the kernel."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.harness import TIMEOUT, Box, Container
from integration.test_readme_commands import block
from integration.test_seccomp import ALLOW, EQUAL, ERRNO, call, profile, rule
from pyrunc.seccomp_tools import check

Make = Callable[..., Container]
pytestmark = pytest.mark.pyrunc_only("no other runtime explains profiles")


def seccomp(box: Box, *args: str) -> Any:
    result = box.runtime.call("seccomp", *args, "--json")
    assert result.err == "", result
    return json.loads(result.out)


def test_explain_agrees_with_the_kernel(container: Make, box: Box) -> None:
    """Tests each rule, the default action, and calls newer than the profile."""
    rules = [
        rule("getpriority", errnoRet=95, args=[EQUAL]),
        rule("getpriority", errnoRet=96, args=[{**EQUAL, "value": 2}]),
        rule("getsid", errnoRet=97),
        rule("dup", "SCMP_ACT_LOG"),
    ]
    calls = [("getpriority", 1), ("getpriority", 2), ("getpriority", 0), ("getsid", 0), ("dup", 99), ("chdir", 0)]
    actions: list[str] = []
    for name, value in calls:
        actions += [*call(name, value, 0), "--"]
    one = container(*actions[:-1], edits=profile(*rules))
    got = [item["errno"] for item in one.run().objects]
    words = [f"{name}({value}, 0)" for name, value in calls]
    answers = seccomp(box, "explain", str(one.bundle.path), *words)["calls"]
    said = [answer["outcomes"][0] for answer in answers]
    assert [item["errno"] for item in said] == [95, 96, None, 97, None, None]
    assert [item["rule"].removeprefix("/linux/seccomp") for item in said] == [
        "/syscalls/0", "/syscalls/1", "/defaultAction", "/syscalls/2", "/syscalls/3", "/defaultAction",
    ]  # fmt: skip
    assert [item["action"] for item in said] == [ERRNO, ERRNO, ALLOW, ERRNO, "SCMP_ACT_LOG", ALLOW]
    assert got == [95, 96, 0, 97, 9, 14], "EBADF and EFAULT: those went through"


def with_libraries(one: Container, program: Path) -> None:
    """Copy a program and the libraries that it is linked with into the root filesystem."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for path in [str(program), *re.findall(r"(/\S+) \(0x", listed)]:
        inside = one.bundle.rootfs / ("prog" if path == str(program) else path.lstrip("/"))
        inside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, inside)


@pytest.mark.needs_program("gcc", "strace", "ldd")
@pytest.mark.parametrize("linked", ["dynamic", "static"])
def test_calls_of_a_start_up(container: Make, tmp_path: Path, linked: str) -> None:
    """The table of `check` lists every call that a program makes at start-up, and those that must
    not fail."""
    if check.own_libc() != "glibc":
        pytest.skip("this host's libc is not glibc")
    source, program = tmp_path / "p.c", tmp_path / "p"
    source.write_text("int main(void) { return 7; }\n")
    subprocess.run(["gcc", *(["-static"] if linked == "static" else []), "-o", program, source], check=True)
    trace = subprocess.run(["strace", program], capture_output=True, text=True, timeout=TIMEOUT, check=False).stderr
    calls = set(re.findall(r"^(\w+)\(", trace, re.MULTILINE))
    known = {name: fatal for names, fatal in check.START_UP["glibc"] for name in names}
    if linked == "static":
        known["readlink"] = known["readlinkat"] = False  # for the program's directory
    assert calls <= set(known), "calls that the table does not have"
    needed = {name for name in calls if known[name]}
    assert {"execve", "mprotect"} <= needed < calls
    one = container(edits={"/process/args": ["/prog"]})
    with_libraries(one, program)
    assert one.run(check=False).rc == 7
    for name in sorted(calls):
        one.bundle.config["linux"]["seccomp"] = profile(rule(name))["/linux/seccomp"]
        assert (one.run(check=False).rc == 7) == (name not in needed), name


def test_the_examples_of_the_readme(container: Make, box: Box) -> None:
    one = container(edits=profile(rule("mount")))
    one.bundle.save()
    (box.path / "bundle").symlink_to(one.bundle.path)
    lines = block("## Seccomp profiles")
    assert len(lines) == 4
    env = {**os.environ, "PATH": f"{Path(box.runtime.path).parent}:{os.environ['PATH']}"}
    script = "set -ex\n" + "\n".join(lines)
    done = subprocess.run(["sh", "-c", script], cwd=box.path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert "by /linux/seccomp/syscalls/0" in done.stdout and "socket" in done.stdout
