"""A runtime that is killed, and racing calls of which exactly one succeeds. For SIGKILL after every
single call see faults/."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.harness import SLOW, Box, Container, wait_until

Make = Callable[..., Container]


def _start(one: Container, *args: str) -> subprocess.Popen[bytes]:
    argv = one.box.runtime.argv("--root", str(one.box.root), *args)
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_listing_during_creation_is_quiet(container: Make, box: Box) -> None:
    one = container("signals", "60")
    one.bundle.save()
    box.root.mkdir(exist_ok=True)
    child = _start(one, "create", "--bundle", str(one.bundle.path), one.id)
    while child.poll() is None:
        listed = box.runtime.call("--root", str(box.root), "list", "-q")
        assert listed.rc == 0
        if box.runtime.is_pyrunc:
            assert listed.err == ""
    assert child.returncode == 0


def test_killed_foreground_run(container: Make, box: Box) -> None:
    one = container("signals", "60")
    one.bundle.save()
    child = _start(one, "run", "--bundle", str(one.bundle.path), one.id)
    wait_until(
        lambda: one.call("state", one.id, check=False).rc == 0 and one.status == "running", "the container to run"
    )
    child.kill()
    child.wait()
    assert one.status in ("running", "stopped")
    one.delete("--force")
    assert not box.leftovers()


def test_created_container_outlives_the_caller(container: Make) -> None:
    one = container("signals", "60")
    one.create(wrap=["/usr/bin/setsid", "-w"])
    assert one.status == "created"
    one.start()
    one.wait_output("ready")


@pytest.mark.pyrunc_only("runc 1.1.5 checks and makes the directory in two steps: two creators can win")
def test_one_creator_wins(container: Make, box: Box) -> None:
    one = container("signals", "60")
    one.bundle.save()
    for _ in range(5):
        children = [_start(one, "create", "--bundle", str(one.bundle.path), one.id) for _ in range(8)]
        codes = [child.wait(20) for child in children]
        assert sorted(codes) == [0] + [1] * 7, codes
        one.delete("--force")
        assert not box.leftovers()


@pytest.mark.pyrunc_only("runc 1.1.5 sometimes fails with ENODEV on cgroup.freeze")
def test_deletes_at_once_all_succeed(container: Make, box: Box) -> None:
    for _ in range(3):
        one = container("signals", "60")
        one.create()
        one.start()
        children = [_start(one, "delete", "--force", one.id) for _ in range(8)]
        assert [child.wait(20) for child in children] == [0] * 8
        assert not box.leftovers()


def test_many_containers(container: Make, box: Box) -> None:
    made = [container("signals", "60") for _ in range(20)]
    for one in made:
        one.create()
    for one in made:
        one.start()
    listed = box.runtime.call("--root", str(box.root), "list", "-q")
    assert sorted(listed.out.split()) == sorted(one.id for one in made)
    for one in made:
        one.delete("--force")
    assert not box.leftovers()


def test_init_that_dies_during_creation(container: Make, box: Box) -> None:
    """If a createRuntime hook kills the container's init, create fails in time and leaves
    nothing."""
    script = "pid=$(tr -d ' \\n' | sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); kill -9 $pid"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}
    one = container("exit", "0", edits={"/hooks/createRuntime": [hook]})
    result = one.create(check=False)
    assert result.rc == 1
    assert result.seconds < 5 * SLOW
    assert not box.leftovers()


def test_create_terminated_during_a_hook(container: Make, box: Box) -> None:
    hook = {"path": "/bin/sleep", "args": ["sleep", "2"]}
    one = container("exit", "0", edits={"/hooks/createRuntime": [hook]})
    one.bundle.save()
    child = _start(one, "create", "--bundle", str(one.bundle.path), one.id)
    wait_until(lambda: _sleeping(child.pid), "the hook to run")
    child.send_signal(signal.SIGTERM)
    code = child.wait(20 * SLOW)
    if box.runtime.is_pyrunc:  # runc continues to the end
        assert code != 0
        assert not (box.root / one.id).exists(), "undone before it ended"
    one.delete("--force")
    for pid, name in box.children().items():  # the hook has no parent any more
        assert "sleep" in name, name
        os.kill(pid, signal.SIGKILL)
    assert not box.leftovers()


def _sleeping(parent: int) -> bool:
    """Whether `parent` has a child that runs sleep."""
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            name, _, rest = Path(f"/proc/{entry}/stat").read_text().rpartition(")")
        except OSError:
            continue
        if name.endswith("(sleep") and int(rest.split()[1]) == parent:
            return True
    return False
