"""A cgroup around a caller with too little memory, too few processes, or just enough memory to
force reclaim.

The cgroup is in cgroup v2 if the controller is there, otherwise in the controller's mounted v1
hierarchy. Only this directory is ever changed.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from integration import machine
from integration.faults.scenes import Sandbox

READERS = 4
# The limit of each controller and its count of refusals, in v2 and in v1.
FILES = {
    ("memory", 2): ("memory.max", "memory.events"),
    ("memory", 1): ("memory.limit_in_bytes", "memory.failcnt"),
    ("pids", 2): ("pids.max", "pids.events"),
    ("pids", 1): ("pids.max", "pids.events"),
}


@cache
def hierarchy(controller: str) -> tuple[Path, int] | None:
    """The hierarchy with a controller, and its cgroup version; None if there is none.

    The path goes through a descriptor, because for peers something else is mounted over it later
    (`sweep.settle`).
    """
    found = _mounted(controller)
    if found is None:
        return None
    return Path(f"/proc/{os.getpid()}/fd/{os.open(found[0], os.O_PATH | os.O_DIRECTORY)}"), found[1]


def _mounted(controller: str) -> tuple[Path, int] | None:
    root = machine.cgroup2_mount()
    if root and controller in (root / "cgroup.subtree_control").read_text().split():
        return root, 2
    for mount in machine.parse_mountinfo(Path("/proc/self/mountinfo").read_text()):
        if mount.fstype == "cgroup" and controller in mount.super and "rw" in mount.options:
            return Path(mount.dest), 1
    return None


class LimitedGroup:
    """A cgroup with a limit."""

    def __init__(self, controller: str, name: str, limit: int) -> None:
        found = hierarchy(controller)
        assert found, f"no {controller} controller"
        self.controller, (self.top, self.version) = controller, found
        self.path = self.top / name
        self.path.mkdir()
        self.former = self.top  # destination of its remaining processes
        limit_file, self.events = FILES[controller, self.version]
        (self.path / limit_file).write_text(str(limit))

    def enter(self) -> None:
        """Move the calling process with all its threads into the cgroup."""
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if self.controller in controllers.split(",") or (self.version == 2 and not controllers):
                self.former = Path(f"{self.top}{path}")
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def hits(self) -> int:
        """The number of times the limit was hit."""
        words = (self.path / self.events).read_text().split()
        return int(words[words.index("max") + 1] if "max" in words else words[0])

    def remove(self) -> None:
        """Move the remaining processes out and remove the cgroup, which succeeds only some time
        after the end of a process."""
        for _ in range(200):
            for pid in (self.path / "cgroup.procs").read_text().split():
                try:
                    (self.former / "cgroup.procs").write_text(pid)
                except ProcessLookupError:
                    pass
            try:
                self.path.rmdir()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError(f"{self.path} stays busy")


@contextmanager
def reclaiming(sandbox: Sandbox, limit: int, seconds: float) -> Iterator[Callable[[], int]]:
    """Run every call of the runtime in a cgroup that is full of page cache, so that every page must
    be reclaimed first.

    Yields a function that returns how often the limit was hit. If reclaim is too slow, the kernel
    kills one of the readers, which are restarted. The harness itself remains outside.
    """
    group = LimitedGroup("memory", sandbox.prefix + "pressure", limit)
    filler = sandbox.path / "filler"
    with filler.open("wb") as file:
        file.truncate(2 * limit)  # zeros fill the cache as well as any data
    enter = f"echo 0 >{group.path}/cgroup.procs"
    read = f'{enter}; echo 1000 >/proc/self/oom_score_adj; exec cat "{filler}" >/dev/null'
    loop = f"while :; do sh -c '{read}'; done 2>/dev/null"
    loops = [["timeout", f"{seconds + 600:.0f}", "/bin/sh", "-c", loop]] * READERS
    readers = [subprocess.Popen(argv, stdin=subprocess.DEVNULL) for argv in loops]
    sandbox.helpers.update(reader.pid for reader in readers)
    prefix, sandbox.runtime.prefix = sandbox.runtime.prefix, ["/bin/sh", "-c", f'{enter} && exec "$@"', "sh"]
    try:
        yield group.hits
    finally:
        sandbox.runtime.prefix = prefix
        for reader in readers:
            reader.terminate()
            reader.wait()
        group.remove()
        filler.unlink()
