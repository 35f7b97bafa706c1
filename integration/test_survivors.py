"""Processes that survive the end of a container's first process, or the attempt to end it: which
ones are killed, awaited and named.

A process frozen by cgroup v1 takes no signal before it is thawed, like one in uninterruptible
sleep.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.harness import SLOW, Box, Container, Runtime, wait_until
from integration.machine import libc, parse_mountinfo

Make = Callable[..., Container]
BOUND = 35 * SLOW  # seconds: 10 for init, 10 for the cgroup, and a margin for a slow machine


class Freezer:
    """A freezer that the test creates; `thaw` releases everything in it."""

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


@pytest.fixture(scope="module")
def hierarchy(runtime: Runtime, base: Path) -> Iterator[Path]:
    """The freezer of cgroup v1: nothing else creates a process that SIGKILL does not end."""
    mounts = [mount for mount in parse_mountinfo(Path("/proc/self/mountinfo").read_text()) if mount.fstype == "cgroup"]
    found = next((mount.dest for mount in mounts if "freezer" in mount.super), None)
    if found is not None:
        yield Path(found)
        return
    own = base / "freezer"  # on pure cgroup v2 its hierarchy can simply be mounted
    own.mkdir()
    try:
        libc("mount", b"none", str(own).encode(), b"cgroup", 0, b"freezer")
    except OSError as error:
        pytest.skip(f"no freezer of cgroup v1 in this kernel: {error}")
    yield own
    libc("umount2", str(own).encode(), 0)


@pytest.fixture
def freezer(hierarchy: Path, box: Box) -> Iterator[Freezer]:
    made = Freezer(hierarchy / box.prefix)
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
    """Without a pid namespace, the end of init does not kill the other processes."""
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
    """Every process in a container's cgroup is part of the container."""
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
    one.delete("--force")  # a second delete is not an error
    assert not box.leftovers()


def orphaned(container: Make) -> tuple[Container, int]:
    """A container whose first process is dead while another process, in our pid namespace, still
    runs."""
    one = container("fork", "1", "--", "signals", "60")
    spaces = one.bundle.config["linux"]["namespaces"]
    one.bundle.config["linux"]["namespaces"] = [space for space in spaces if space["type"] != "pid"]
    one.create()
    one.start()
    one.wait_output("ready")
    child = int(Path(f"/proc/{one.pid}/task/{one.pid}/children").read_text())
    os.kill(one.pid, signal.SIGKILL)
    one.wait()
    assert one.status == "stopped"
    return one, child


@pytest.mark.pyrunc_only("runc does it; crun looks at the first process alone")
def test_kill_of_what_outlived_the_first_process(container: Make, box: Box) -> None:
    one, child = orphaned(container)
    one.kill("KILL")
    wait_until(lambda: child not in box.children(), "the end of the other process")
    one.delete()
    assert not box.leftovers()


@pytest.mark.pyrunc_only("runc says 0 as long as there is a cgroup")
def test_kill_when_nothing_is_left(container: Make, box: Box) -> None:
    one, child = orphaned(container)
    other = one.kill("TERM", check=False)
    assert (other.rc, other.err) == (1, "pyrunc: error: container not running\n") and child in box.children()
    one.kill("KILL")
    wait_until(lambda: child not in box.children(), "the end of the other process")
    again = one.kill("KILL", check=False)
    assert (again.rc, again.err) == (1, "pyrunc: error: container not running\n")
    one.kill("--all", "KILL")  # containerd sends it in any case
    one.delete()


def test_delete_does_not_wait_for_zombies_that_others_must_reap(container: Make, box: Box) -> None:
    """The end of a pid namespace's first process waits for them: this process is their parent and
    does not reap them meanwhile."""
    one = container("signals", "60")
    one.create()
    pid_file = box.path / "sleep.pid"
    one.call("exec", "--detach", "--pid-file", str(pid_file), one.id, "/probe", "sleep", "600")
    joined = int(pid_file.read_text())
    start = time.monotonic()
    one.delete("--force")
    assert time.monotonic() - start < 5 * SLOW
    assert Path(f"/proc/{joined}/stat").read_text().split()[2] == "Z", "it was not reaped: that is what is tested"
    assert not list(box.root.glob(one.id)) and not one.cgroup.exists()
    assert not box.leftovers()


@pytest.mark.pyrunc_only("runc says running")
def test_a_container_whose_end_waits_for_zombies_is_stopped(container: Make, box: Box) -> None:
    one = container("signals", "60")
    one.create()
    pid_file = box.path / "sleep.pid"
    one.call("exec", "--detach", "--pid-file", str(pid_file), one.id, "/probe", "sleep", "600")
    os.kill(one.pid, signal.SIGKILL)
    wait_until(lambda: Path(f"/proc/{pid_file.read_text()}/stat").read_text().split()[2] == "Z", "the zombie")
    one.wait_status("stopped")
    assert Path(f"/proc/{one.pid}/stat").read_text().split()[2] == "S", "it waits: that is what is tested"
    assert one.start(check=False).err == "pyrunc: error: cannot start a container that has stopped\n"
    one.delete()
    assert not box.leftovers()
