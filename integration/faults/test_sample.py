"""A sample of the sweep (`make faults` runs all of it) that starts with the points of former
defects."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import harness
from integration.faults import points, rich_scenes, sweep
from integration.faults.points import Point
from integration.faults.scenes import Sandbox, Scene

# Seconds for all scenes together, divided by weight; a scene with more points has a higher weight.
SECONDS = float(os.environ.get("PYRUNC_FAULT_SECONDS", "40"))
WEIGHT = {"create": 3, "create-rich": 2, "create-user": 3, "create-joined": 2, "run": 2, "exec-detach": 2}

# Former defects: scene, error ("" for SIGKILL), thread, call. Every run includes up to three points
# of each.
KNOWN = [
    ("create", "EIO", 0, "openat"),  # the directory that reserves the id remained
    ("create", "ENOMEM", 0, "read"),  # no start time of init in the state: the container counted as stopped
    ("create", "EMFILE", 2, "openat2"),  # HOME=/ because no descriptor was left
    ("create-rich", "ENOMEM", 0, "close"),  # failed after the commit: the container remained
    ("create-user", "EINTR", 0, "write"),  # the id maps of a mount's user namespace
    ("create-user", "", 0, "clone"),  # the process that holds the namespace remained, with our locks, for 20 s
    ("create-user", "ENOMEM", 0, "kill"),  # if it could not be killed, no other process ended it
    ("create-user", "ENOMEM", 4, "openat2"),  # a tmpfs without the mode of its directory
    ("create-user", "ENOMEM", 3, "fsopen"),  # no tmpfs for a device: the host's node was used
    ("create-user", "ENOMEM", 4, "prctl"),  # fewer ambient capabilities than requested and possible
    ("create-joined", "EINTR", 0, "connect"),
    ("create-rich", "ENOMEM", 2, "fstat"),  # /dev/null, not recognized as such, was given to the user
    ("start-rich", "ENOMEM", 0, "pipe2"),  # failed without a pipe for a poststart hook, but the program ran
    ("start", "EIO", 0, "read"),  # failed, but the program ran
    ("start", "ENOMEM", 0, "close"),
    ("run", "ENOSPC", 0, "openat"),  # no mountinfo, so no hierarchy, so nothing was removed
    ("exec", "EIO", 1, "write"),  # enter could not report the pid: both sides waited forever
    ("exec", "ENOMEM", 2, "read"),  # init ended without a record: mistaken for the program's start
    ("exec-detach", "", 1, "clone3"),  # enter was killed after it had created init: both sides waited forever
    ("exec-detach", "", 2, "capset"),  # killed between the last record and execve: mistaken for the program's start
    ("exec-detach", "", 2, "chdir"),
    ("kill", "ENOMEM", 0, "openat"),
    ("state", "ENOMEM", 0, "openat"),  # a process with an unreadable stat is not stopped
    ("state", "EIO", 0, "read"),
    ("pause", "EIO", 0, "read"),  # failed, but stayed frozen
    ("update", "ENOMEM", 0, "bpf"),  # the old program could not be opened and stayed attached
    ("update", "ENOMEM", 0, "close"),  # failed after all work was done
    ("mounts-remove", "EMFILE", 1, "openat2"),  # a mount that could not be looked at counted as gone
    ("delete", "EMFILE", 0, "openat"),
    ("delete", "ENOMEM", 0, "newfstatat"),
    ("delete", "EIO", 0, "rmdir"),  # the cgroups above the container's own remained
]


@pytest.fixture(params=rich_scenes.ALL, ids=lambda kind: kind.name)
def scene(request: pytest.FixtureRequest, runtime: harness.Runtime, rootfs: Path, base: Path) -> Iterator[Scene]:
    if not runtime.is_pyrunc:
        pytest.skip("peers leak at many points: `make reliability` counts them")
    suffix = "s" if "scarcity" in request.node.name else ""
    sandbox = Sandbox(runtime, rootfs, base, f"f{os.getpid():x}{request.param.name.replace('-', '')}{suffix}")
    made = request.param(sandbox)
    yield made
    made.close()
    sandbox.sweep_up()


def known(scene: Scene, found: list[Point]) -> list[Point]:
    """The former defects of this scene; of many similar points, the last ones."""
    out: list[Point] = []
    for name, error, thread, call in KNOWN:
        alike = [p for p in found if p.error == error and p.call.thread == thread and p.call.name == call]
        if name == scene.name:
            assert alike, f"no such point any more: {(name, error, thread, call)}"
            out += alike[-3:]
    return out


@pytest.mark.slow
@pytest.mark.needs_arch("x86_64", "aarch64")
def test_faults(scene: Scene) -> None:
    """No tested point causes a hang, a traceback, leftovers or false success."""
    if "error" not in scene.kinds:
        pytest.skip("this scene is about memory")
    found = sweep.points_of(scene, ("error", "kill", "init"))
    first = known(scene, found)
    total = sum(WEIGHT.get(kind.name, 1) for kind in rich_scenes.ALL)
    end = time.monotonic() + SECONDS * WEIGHT.get(scene.name, 1) / total
    wrong, hit = [], 0
    for number, point in enumerate(first + points.shuffled(found)):
        if number >= len(first) and time.monotonic() > end:
            break
        # On a busy machine a run polls more often than the dry run or less often, and its calls shift.
        for _ in range(3 if number < len(first) else 1):
            done, problems = scene.attempt(point)
            if problems:
                wrong.append(f"{point.key} {done.hit}: {'; '.join(problems)} (said: {done.err!r})")
            if done.hit or problems:
                break
        hit += bool(done.hit)
    assert not wrong, "\n".join(wrong)
    assert hit >= len(first) / 2, "most points were not reached: the calls of a dry run are not those of a run"


@pytest.mark.slow
@pytest.mark.needs_arch("x86_64", "aarch64")
def test_scarcity(scene: Scene) -> None:
    """The same holds with too little memory for the interpreter, and without its library."""
    if "space" not in scene.kinds:
        pytest.skip("this scene needs the standard library")
    memory, space = (points.shuffled(sweep.scarce_points(scene, [kind])) for kind in ("memory", "space"))
    mixed = [point for pair in itertools.zip_longest(memory, space) for point in pair if point]
    total = sum(WEIGHT.get(kind.name, 1) for kind in rich_scenes.ALL)
    end = time.monotonic() + SECONDS / 3 * WEIGHT.get(scene.name, 1) / total
    wrong, hit, done_at_least = [], 0, 6
    for number, point in enumerate(sweep.scarce_points(scene, ["library"]) + mixed):
        if number >= done_at_least and time.monotonic() > end:
            break
        done, problems = scene.attempt(point)
        hit += bool(done.hit)
        if problems:
            wrong.append(f"{point.key} {done.hit}: {'; '.join(problems)} (said: {done.err!r})")
    assert not wrong, "\n".join(wrong)
    assert hit >= 4, "allocations do not fail"
