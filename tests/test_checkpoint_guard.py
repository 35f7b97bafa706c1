"""pyrunc.checkpoint.guard with a directory in place of a cgroup, and processes that are killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from pyrunc.checkpoint.guard import Guard


def forked(work: Callable[[], object]) -> int:
    """A child that works, then waits to be killed."""
    pid = os.fork()
    if not pid:
        try:
            work()
            signal.pause()
        finally:
            os._exit(1)
    return pid


def killed(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def guards() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            found += [path.parent.name] if path.read_text() == "criu-guard\n" else []
        except OSError:
            continue
    return found


def frozen(place: Path) -> Path:
    file = place / "cgroup.freeze"
    file.write_text("1")
    return file


def test_a_killed_pyrunc(tmp_path: Path) -> None:
    """The cgroup is thawed, but only after criu has ended, which may freeze it again. The pipes of
    the caller are closed before that."""
    file, criu, before = frozen(tmp_path), forked(lambda: None), guards()
    reader, writer = os.pipe()
    ours = forked(lambda: Guard().start(criu, str(tmp_path)))
    os.close(writer)
    while len(guards()) == len(before):
        time.sleep(0.01)
    killed(ours)
    assert os.read(reader, 1) == b""
    time.sleep(0.1)
    assert file.read_text() == "1"
    killed(criu)
    limit = time.monotonic() + 20
    while file.read_text() != "0" and time.monotonic() < limit:
        time.sleep(0.01)
    assert file.read_text() == "0"
    os.close(reader)


def test_a_guard_that_is_dismissed(tmp_path: Path) -> None:
    """It ends at once, and changes nothing."""
    before = sorted(os.listdir("/proc/self/fd"))
    file, criu, guard = frozen(tmp_path), forked(lambda: None), Guard()
    guard.start(criu, str(tmp_path))
    pid = guard.pid
    guard.dismiss()
    assert not Path(f"/proc/{pid}").exists()
    guard.dismiss()
    killed(criu)
    assert file.read_text() == "1" and sorted(os.listdir("/proc/self/fd")) == before


def test_a_guard_that_was_killed(tmp_path: Path) -> None:
    file, criu, guard = frozen(tmp_path), forked(lambda: None), Guard()
    guard.start(criu, str(tmp_path))
    os.kill(guard.pid, signal.SIGKILL)
    guard.dismiss()
    killed(criu)
    assert file.read_text() == "1" and guard.pipe == -1


def test_a_guard_that_cannot_be_started(tmp_path: Path) -> None:
    """There is nothing to dismiss."""
    before, guard = sorted(os.listdir("/proc/self/fd")), Guard()
    try:
        guard.start(1 << 30, str(tmp_path))
    except OSError:
        guard.dismiss()
    assert guard.pid == 0 and sorted(os.listdir("/proc/self/fd")) == before
