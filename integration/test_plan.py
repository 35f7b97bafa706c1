"""`pyrunc plan` prints the steps, needs no root and changes nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.harness import Box, Container, Result

Make = Callable[..., Container]
pytestmark = pytest.mark.pyrunc_only("peers have no such verb")


def _plan(one: Container, *flags: str) -> Result:
    """Run `plan` as nobody, in a directory that nobody can only read."""
    one.bundle.save()
    assert shutil.which("setpriv")
    wrap = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return one.box.runtime.call("plan", "--bundle", str(one.bundle.path), *flags, wrap=wrap, cwd="/", env={})


def _tree(path: Path) -> list[str]:
    return sorted(f"{at}/{name}" for at, dirs, files in os.walk(path) for name in dirs + files)


@pytest.fixture(autouse=True)
def reachable(box: Box) -> None:
    """nobody must be able to execute the runtime, which a checkout below /root prevents."""
    for parent in Path(os.path.realpath(box.runtime.path)).parents:
        if not parent.stat().st_mode & 0o005:
            pytest.skip(f"{parent} is closed to other users")


def test_text(container: Make) -> None:
    one = container("report")
    result = _plan(one)
    assert (result.rc, result.err) == (0, "")
    lines = result.out.splitlines()
    for word in ("UNSHARE", "CLONE_INIT", "MOUNT", "PIVOT", "CAPS", "EXECVE", "/mounts/0", "/process/args"):
        assert any(word in line for line in lines), word
    order = [
        next(number for number, line in enumerate(lines) if word in line)
        for word in ("CLONE_INIT", "MOUNT", "PIVOT", "EXECVE")
    ]
    assert order == sorted(order)


def test_json(container: Make) -> None:
    result = _plan(container("report"), "--json")
    assert result.rc == 0
    assert "EXECVE" in json.dumps(json.loads(result.out))


def test_nothing_is_touched(container: Make, box: Box) -> None:
    one = container("report", edits={"/mounts/-": {"destination": "/new/dir", "type": "tmpfs", "source": "x"}})
    one.bundle.save()
    before = _tree(one.bundle.path)
    assert _plan(one).rc == 0
    assert _tree(one.bundle.path) == before
    assert not box.leftovers()


def test_all_mistakes_are_reported(container: Make) -> None:
    edits: dict[str, Any] = {f"/mounts/{number}/options": 5 for number in range(6)}
    edits["/linux/maskedPaths"] = [f"relative{number}" for number in range(30)]
    result = _plan(container("report", edits=edits))
    assert result.rc == 1
    for number in range(6):
        assert f"/mounts/{number}/options" in result.err
    assert "/linux/maskedPaths/29" in result.err


def test_mode_of_the_callers_program_does_not_matter(container: Make) -> None:
    """Whether args[0] exists is only known inside the root filesystem, so plan does not check
    it."""
    one = container("report", edits={"/process/args": ["nonesuch"]})
    assert _plan(one).rc == 0
