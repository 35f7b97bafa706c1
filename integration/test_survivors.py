"""`delete --force` of what cannot be killed: an end after a bounded time, and an error that names who is still there.

A process that stands in a freezer of cgroup v1 takes no signal before it is thawed, like one in uninterruptible sleep.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.harness import SLOW, Box, Container, parse_mountinfo

Make = Callable[..., Container]
BOUND = 35 * SLOW  # seconds: 10 for init, 10 for the cgroup, and a slow machine


class Freezer:
    """A freezer of our own; `thaw` lets everything in it go on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def freeze(self, pid: int) -> None:
        (self.path / "cgroup.procs").write_text(str(pid))
        (self.path / "freezer.state").write_text("FROZEN")
        limit = time.monotonic() + 5 * SLOW
        while (self.path / "freezer.state").read_text() != "FROZEN\n":
            assert time.monotonic() < limit
            time.sleep(0.01)

    def thaw(self) -> None:
        (self.path / "freezer.state").write_text("THAWED")


@pytest.fixture
def freezer(box: Box) -> Iterator[Freezer]:
    mounts = [mount for mount in parse_mountinfo(Path("/proc/self/mountinfo").read_text()) if mount.fstype == "cgroup"]
    found = next((mount.dest for mount in mounts if "freezer" in mount.super), None)
    if found is None:
        pytest.skip("no freezer of cgroup v1 on this machine: nothing else makes a process that SIGKILL does not end")
    made = Freezer(Path(found) / box.prefix)
    yield made
    made.thaw()
    limit = time.monotonic() + 5 * SLOW
    while (made.path / "cgroup.procs").read_text() and time.monotonic() < limit:
        time.sleep(0.02)
    made.path.rmdir()


def forced(one: Container) -> tuple[int, str]:
    result = one.delete("--force", check=False, timeout=BOUND)
    assert result.seconds < BOUND
    return result.rc, result.err


@pytest.mark.pyrunc_only("runc's words differ")
def test_an_init_that_does_not_end(container: Make, freezer: Freezer, box: Box) -> None:
    one = container("signals", "60")
    one.create()
    one.start()
    one.wait_output("ready")
    freezer.freeze(one.pid)
    rc, err = forced(one)
    assert rc == 1 and err.startswith(f"pyrunc: error: container init still running: pid {one.pid} waits in "), err
    assert err.strip().split()[-1] not in ("", "0") and err.count("\n") == 1
    assert one.status == "running", "the state is there, so that the call can be repeated"
    freezer.thaw()
    one.delete("--force")
    assert not box.leftovers()


@pytest.mark.pyrunc_only("runc's words differ")
def test_another_process_that_does_not_end(container: Make, freezer: Freezer, box: Box) -> None:
    """Without a pid namespace the end of init does not take the others along."""
    one = container("fork", "1", "--", "signals", "60")
    spaces = one.bundle.config["linux"]["namespaces"]
    one.bundle.config["linux"]["namespaces"] = [space for space in spaces if space["type"] != "pid"]
    one.create()
    one.start()
    one.wait_output("ready")
    child = int(Path(f"/proc/{one.pid}/task/{one.pid}/children").read_text())
    freezer.freeze(child)
    rc, err = forced(one)
    assert rc == 1 and "is still in use after" in err and f"process {child} (probe), which waits in " in err, err
    assert one.status == "stopped"
    freezer.thaw()
    one.delete("--force")
    assert not box.leftovers()


@pytest.mark.pyrunc_only("crun never returns, runc's words differ")
def test_a_foreign_process_goes_with_the_cgroup(container: Make, box: Box) -> None:
    """Whatever was put into a container's cgroup is part of it."""
    import subprocess

    one = container("signals", "60")
    one.create()
    one.start()
    one.wait_output("ready")
    child = subprocess.Popen(["/bin/sleep", "60"])
    box.helpers.add(child.pid)
    try:
        (one.cgroup / "cgroup.procs").write_text(str(child.pid))
        one.delete("--force")
        assert child.wait(5) == -9
    finally:
        child.kill()
        child.wait()
    one.delete("--force")  # again: nothing there, no error
    assert not box.leftovers()
