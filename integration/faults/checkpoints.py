"""Faults in `checkpoint` and `restore`: a container keeps running or is gone, and no criu process
remains.

In addition to the faults of every scene, criu is killed, and the filesystem that criu writes to has
room for fewer pages or files than it needs. criu makes thousands of calls, so it is killed around
each of its notifications, and after every `BETWEEN`th other call.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from integration.checkpoint import support
from integration.faults import points
from integration.faults.points import Call, Point
from integration.faults.scenes import Outcome, Sandbox, Scene
from integration.harness import SLOW

COMPLETE = ("inventory.img", "descriptors.json", "pstree.img")
NULL = Path("/dev/null")
KINDS = frozenset(("error", "kill", "criu", "full"))
BETWEEN = 25
TALK = ("recvfrom", "recvmsg")  # criu waits for an answer
PROBE = "/tmp/.criu."
PAGE = 4096
PLENTY = (64 << 20) // PAGE


class Checkpoint(Scene):
    """`checkpoint` of a running container."""

    name = "checkpoint"
    kinds = KINDS if not support.why_not() else frozenset[str]()

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.one = self.container("signals", "60")
        self.disk = sandbox.path / "disk"  # criu writes to it
        self.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", str(self.disk)], check=True)
        sandbox.mounts = sandbox._mounts()
        self.images = self.disk / "images"
        self.pages = self.files = PLENTY

    def close(self) -> list[str]:
        subprocess.run(["umount", "-l", str(self.disk)], check=True)
        self.sandbox.mounts = self.sandbox._mounts()
        return []

    def empty(self) -> None:
        """Empty the disk, and give it the room of the point."""
        for path in self.disk.iterdir():
            shutil.rmtree(path)
        room = f"remount,size={self.pages * PAGE},nr_inodes={self.files}"
        subprocess.run(["mount", "-o", room, str(self.disk)], check=True)

    def attempt(self, point: Point) -> tuple[Outcome, list[str]]:
        if point.error == "FULL":
            self.pages, self.files = (PLENTY, point.call.index) if point.call.thread else (point.call.index, PLENTY)
        try:
            done, problems = super().attempt(point)
        finally:
            self.pages = self.files = PLENTY
        # Without a tmpfs at /run CRIU probes the kernel at every start, with mounts of its own.
        killed = point.error == points.CRIU
        return done, [text for text in problems if not (killed and PROBE in text)]

    def more_points(self, kinds: Sequence[str]) -> list[Point]:
        found: list[Point] = []
        if "criu" in kinds:
            found += [Point(self.name, call, points.CRIU) for call in chosen(self.trace("trace-criu"))]
        if "full" in kinds:
            self.before()
            done = self.sandbox.inject(self.command(), "trace", None)
            assert done.rc == 0, done
            used = os.statvfs(self.disk)
            assert not self.clean()
            for thread, most in enumerate((used.f_blocks - used.f_bfree, used.f_files - used.f_ffree)):
                found += [Point(self.name, Call(thread, n, "tmpfs"), "FULL") for n in range(1, most + 1)]
        return found

    def before(self) -> None:
        self.empty()
        self.one.create(save=False, out=NULL, err=NULL)  # CRIU cannot dump files of the host
        self.one.start()

    def command(self) -> list[str]:
        return self.argv("checkpoint", "--image-path", str(self.images), self.one.id)

    def complete(self) -> bool:
        """Whether the images are complete."""
        return all((self.images / name).exists() for name in COMPLETE)

    def judge(self, point: Point, done: Outcome) -> list[str]:
        problems = self.without_criu()
        if done.rc == 0:
            if "pyrunc: warning: container" not in done.err:  # as in runc, a failed deletion is only a warning
                problems += [f"exit 0, but left: {text}" for text in self.sandbox.leftovers()]
            return problems + ([] if self.complete() else ["exit 0, but the images are not complete"])
        status = self.status()
        # CRIU's last step is to kill the processes; later steps can fail. If it is killed while a process
        # executes its code, that process is lost.
        lost = point.error == points.CRIU and status == "stopped" and "may have ended with it" in done.err
        if status != "running" and not lost and not (status in ("stopped", "gone") and self.complete()):
            problems.append(f"the container is {status}")
        elif status == "running" and point.error and not self.ends():
            problems.append("the container does not go on: it does not end from SIGTERM")
        return problems if point.call.own and not point.error else problems + self.spoke(done)

    def status(self) -> str:
        """The status that `state` reports; "gone" without a readable state."""
        result = self.one.call("state", self.one.id, check=False)
        return str(json.loads(result.out)["status"]) if result.rc == 0 else "gone"

    def ends(self) -> bool:
        """Whether the program handles SIGTERM, by which it ends."""
        self.one.kill("TERM", check=False)
        limit = time.monotonic() + 5 * SLOW
        while time.monotonic() < limit:
            if self.status() == "stopped":
                return True
            time.sleep(0.005)
        return False

    def without_criu(self) -> list[str]:
        """Wait for criu and the guard to end, which survive the injector."""
        limit = time.monotonic() + 5 * SLOW
        while True:
            left = [name for name in self.sandbox.children().values() if not name.startswith("/probe")]
            if not left or time.monotonic() > limit:
                return [f"a process remains: {name}" for name in left]
            time.sleep(0.02)

    def clean(self) -> list[str]:
        return self.delete(self.one)


class Restore(Checkpoint):
    """`restore --detach`, with its log on the disk."""

    name = "restore"

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.images = sandbox.path / "images"

    def before(self) -> None:
        if not self.complete():
            super().before()
            self.one.call("checkpoint", "--image-path", str(self.images), self.one.id, env=support.environment())
        self.empty()

    def command(self) -> list[str]:
        paths = ("--image-path", str(self.images), "--work-path", str(self.disk / "work"))
        return self.argv("restore", "--detach", *paths, "--bundle", str(self.one.bundle.path), self.one.id)

    def judge(self, point: Point, done: Outcome) -> list[str]:
        problems = self.without_criu()
        if done.rc == 0:
            status = self.status()
            if status != "running":
                return [*problems, f"exit 0, but the container is {status}"]
            return problems if self.ends() else [*problems, "exit 0, but the program does not end from SIGTERM"]
        if point.call.own and not point.error:
            return problems
        return problems + self.spoke(done) + [f"failed, but left: {text}" for text in self.sandbox.leftovers()]


def chosen(calls: Sequence[Call]) -> list[Call]:
    """The calls of criu after which it is killed."""
    near = {number + offset for number, call in enumerate(calls) if call.name in TALK for offset in (-1, 0)}
    return [call for number, call in enumerate(calls) if number in near or number % BETWEEN == 0]


ALL: tuple[type[Scene], ...] = (Checkpoint, Restore)
