"""Faults in `checkpoint` and `restore`: a container keeps running or is gone, and no criu process
remains."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from integration.checkpoint import support
from integration.faults.points import Point
from integration.faults.scenes import Outcome, Sandbox, Scene
from integration.harness import SLOW

COMPLETE = ("inventory.img", "descriptors.json", "pstree.img")
NULL = Path("/dev/null")


class Checkpoint(Scene):
    """`checkpoint` of a running container."""

    name = "checkpoint"
    kinds = frozenset(("error", "kill")) if not support.why_not() else frozenset[str]()

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.one = self.container("signals", "60")
        self.images = sandbox.path / "images"

    def before(self) -> None:
        subprocess.run(["rm", "-rf", str(self.images)], check=True)
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
        # CRIU's last step is to kill the processes; later steps can fail.
        if status != "running" and not (status in ("stopped", "gone") and self.complete()):
            problems.append(f"the container is {status}")
        return problems if point.call.own and not point.error else problems + self.spoke(done)

    def status(self) -> str:
        """The status that `state` reports; "gone" without a readable state."""
        result = self.one.call("state", self.one.id, check=False)
        return str(json.loads(result.out)["status"]) if result.rc == 0 else "gone"

    def without_criu(self) -> list[str]:
        """Wait for criu to end; it survives the injector."""
        limit = time.monotonic() + 5 * SLOW
        while True:
            left = [name for name in self.sandbox.children().values() if name.startswith("criu")]
            if not left or time.monotonic() > limit:
                return [f"criu remains: {name}" for name in left]
            time.sleep(0.02)

    def clean(self) -> list[str]:
        return self.delete(self.one)


class Restore(Checkpoint):
    """`restore --detach`."""

    name = "restore"

    def before(self) -> None:
        if self.complete():
            return
        super().before()
        self.one.call("checkpoint", "--image-path", str(self.images), self.one.id, env=support.environment())

    def command(self) -> list[str]:
        bundle = ("--bundle", str(self.one.bundle.path))
        return self.argv("restore", "--detach", "--image-path", str(self.images), *bundle, self.one.id)

    def judge(self, point: Point, done: Outcome) -> list[str]:
        problems = self.without_criu()
        if done.rc == 0:
            status = self.status()
            return problems + ([] if status == "running" else [f"exit 0, but the container is {status}"])
        if point.call.own and not point.error:
            return problems
        return problems + self.spoke(done) + [f"failed, but left: {text}" for text in self.sandbox.leftovers()]


ALL: tuple[type[Scene], ...] = (Checkpoint, Restore)
