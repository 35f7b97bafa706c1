"""The README's first commands work unchanged."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from integration.harness import REPO, SLOW, Box

pytestmark = pytest.mark.pyrunc_only("it is pyrunc's README")


def block(after: str) -> list[str]:
    """The commands of the first shell block after a sentence."""
    text = (REPO / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```sh\n(.*?)```", text[text.index(after) :], re.DOTALL)
    assert found
    return [line for line in found.group(1).splitlines() if line.strip()]


def test_from_python(box: Box) -> None:
    """Run them with the installed package and the interpreter of the virtual environment."""
    text = (REPO / "README.md").read_text(encoding="utf-8")
    found = re.search(r"## From Python\n.*?```python\n(.*?)```", text, re.DOTALL)
    assert found
    code = found[1].replace("Runtime()", f"Runtime(root={str(box.root)!r})").replace('"demo"', f'"{box.prefix}demo"')
    bundle = box.bundle(edits={"/process/args": ["/busybox", "sleep", "1000"]})
    (bundle.rootfs / "busybox").symlink_to("/bin/busybox")
    bundle.save()
    argv = [str(REPO / ".venv/bin/python"), "-I", "-c", code, str(bundle.path)]
    done = subprocess.run(argv, cwd=box.path, capture_output=True, text=True, timeout=30 * SLOW, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.endswith(" MOUNT /proc") for line in lines), lines
    assert lines[-3:-1] == ["0 b'1000\\n' running", "137"]
    assert lines[-1].startswith("/hostname config.json: /hostname: expected string, found number 5"), lines


def test_by_hand(box: Box) -> None:
    """On a terminal, as a person would run them: the last command is a shell, which gets a command
    and exits."""
    lines = block("By hand, with any root filesystem")
    assert lines[0].startswith("make build && export PATH=") and len(lines) == 6
    bin_directory = Path(box.runtime.path).parent
    script = "set -e\n" + "\n".join(lines[1:]).replace("pyrunc run demo", f"pyrunc run {box.prefix}demo")
    env = {**os.environ, "PATH": f"{bin_directory}:{os.environ['PATH']}", "XDG_RUNTIME_DIR": str(box.path)}
    master, slave = pty.openpty()
    try:
        child = subprocess.Popen(
            ["sh", "-c", script], cwd=box.path, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True
        )
        os.close(slave)
        os.write(master, b"echo in:$HOSTNAME-$((6*7)); exit 5\n")
        seen = b""
        try:
            while data := os.read(master, 4096):
                seen += data
        except OSError:  # EIO: the other end is closed
            pass
        assert child.wait(20 * SLOW) == 5, seen.decode(errors="replace")
    finally:
        os.close(master)
    assert b"-42" in seen and b"EXECVE" in seen, seen.decode(errors="replace")


def test_when_a_container_does_not_start(box: Box) -> None:
    """The commands print the lines that the README shows below them."""
    lines = block("### When a container does not start")
    assert [line.split("#")[0].strip() for line in lines if line.startswith("pyrunc doctor")] == [
        "pyrunc doctor",
        "pyrunc doctor --bundle broken",
    ]
    env = {**os.environ, "PATH": f"{Path(box.runtime.path).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", "\n".join(lines)], cwd=box.path, env=env, capture_output=True, text=True, timeout=30 * SLOW
    )
    assert (done.returncode, done.stderr) == (1, "")
    text = (REPO / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```\n(bundle\n.*?)```", text, re.DOTALL)
    assert found
    shown = found.group(1).splitlines()
    assert len(shown) == 5 and [line for line in shown if line not in done.stdout.splitlines()] == []
