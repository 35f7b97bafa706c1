"""Shortage in the interpreter itself: a failing allocation, an address space limit, a missing
standard library.

The points look like those of system calls (`points.Point`), with these instead of an errno:

    NOMEM    one allocation of the runtime's process fails, and no other
    NOMEMS   that allocation and the next `BURST` fail, so that handling the first failure fails again
    SPACE    `ulimit -v`, with KiB instead of the call's number; child processes inherit the limit
    NOLIB    no file of the Python installation used for the build can be found
    FULL     a filesystem that the command writes to has room for as many pages (thread 0) or files (thread 1)
             as the call's number; only scenes that have one do this
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

from integration.faults.points import HERE, Call, Point

BURST = 50
EVERY = 5  # every fifth allocation starts a burst
NEVER = 1 << 40
# KiB of address space: with less than the first value the loader cannot map the executable; with
# the last value all commands work.
LEAST, MOST, STEP = 30 << 10, 110 << 10, 1 << 10
KINDS = {"NOMEM": "malloc", "NOMEMS": "malloc", "SPACE": "ulimit -v", "NOLIB": "library", "FULL": "tmpfs"}


@cache
def build(directory: str) -> str:
    """Compile the library that makes allocations fail. Raises AssertionError with the compiler's
    output."""
    target = f"{directory}/nomem.so"
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    argv = ["gcc", *flags, "-o", target, str(HERE / "nomem.c"), "-ldl"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def failing(directory: str, log: Path, first: int, count: int) -> dict[str, str]:
    """The environment in which allocations fail."""
    return {"LD_PRELOAD": build(directory), "NOMEM": f"{log} {first} {count}"}


def around(point: Point, directory: str, log: Path) -> tuple[list[str], dict[str, str]]:
    """The prefix of a point's command line, and its additional environment."""
    if point.error == "NOLIB":
        return without_library(directory), {}
    if point.error == "SPACE":
        return ["prlimit", f"--as={point.call.index << 10}"], {}
    if point.error == "FULL":
        return [], {}
    return [], failing(directory, log, point.call.index, 1 if point.error == "NOMEM" else BURST)


def excused(point: Point, problem: str) -> bool:
    """Whether a problem is excused. Cleanup needs some memory, so after a burst a failed command
    may leave something, or may have done its work.

    It must still not report false success, hang or crash, and `delete --force` must clean up
    everything.
    """
    return point.error == "NOMEMS" and problem.startswith(("left by", "failed, but"))


def outcome(log: Path) -> tuple[int, int]:
    """The number of allocations and of failed ones; zeros if the process did not exit normally."""
    words = log.read_text().split() if log.exists() else []
    return (int(words[0]), int(words[1])) if len(words) == 2 else (0, 0)


def of_memory(scene: str, allocations: int) -> list[Point]:
    """R10: every allocation fails, alone and with those that follow it."""
    calls = [Call(0, number, "malloc") for number in range(1, allocations + 1)]
    return [Point(scene, call, "NOMEM") for call in calls] + [Point(scene, call, "NOMEMS") for call in calls[::EVERY]]


def of_space(scene: str) -> list[Point]:
    """R11: a series of limits."""
    return [Point(scene, Call(0, space, "ulimit -v"), "SPACE") for space in range(LEAST, MOST + 1, STEP)]


def of_library(scene: str) -> list[Point]:
    """R12: one point."""
    return [Point(scene, Call(0, 0, "library"), "NOLIB")]


@cache
def without_library(directory: str) -> list[str]:
    """The prefix of a command line that hides every file and package of the Python interpreter used
    for the build."""
    empty = Path(directory) / "empty"
    empty.mkdir(exist_ok=True)
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    places |= {f"{sys.base_prefix}/lib/python3", f"{sys.base_prefix}/local/lib/python{sysconfig.get_python_version()}"}
    places = {place for place in places if os.path.isdir(place)}
    outermost = [place for place in places if not any(place.startswith(other + "/") for other in places)]
    covers = [f"mount --bind '{empty}' '{place}'" for place in sorted(outermost)]
    assert covers
    script = " && ".join([*covers, f"! test -e {sysconfig.get_path('stdlib')}/os.py", 'exec "$@"'])
    return ["/usr/bin/unshare", "-m", "--propagation", "slave", "/bin/sh", "-c", script, "sh"]
