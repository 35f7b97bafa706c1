"""Scenes of `mounts add`, `mounts remove` and `exec --tools`: each does all of its work or none,
and nothing remains."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from integration.faults import scenes
from integration.faults.points import Point
from integration.faults.scenes import Outcome, Sandbox
from integration.machine import parse_mountinfo

PLACES = ["/data", "/scratch", "/scratch/below"]


class Mounts(scenes.Inside):
    """A container with or without three added mounts."""

    kills_init = True

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        source = sandbox.path / "source"
        source.mkdir()
        bind = {"source": str(source), "options": ["bind"]}
        tmpfs = {"destination": PLACES[1], "type": "tmpfs", "source": "tmpfs"}
        self.file, self.none, self.left = (sandbox.path / f"{name}.json" for name in ("mounts", "none", "left"))
        self.file.write_text(
            json.dumps([{"destination": PLACES[0], **bind}, tmpfs, {"destination": PLACES[2], **bind}])
        )
        self.none.write_text("[]")

    def present(self) -> list[str]:
        """The added mounts that the container has."""
        found = parse_mountinfo(Path(f"/proc/{self.one.pid}/mountinfo").read_text())
        return [mount.dest for mount in found if mount.dest in PLACES]

    def noted(self) -> list[str]:
        """The added mounts that `state` shows."""
        text = self.one.state().get("annotations", {}).get("org.pyrunc.mounts", "[]")
        return [mount["destination"] for mount in json.loads(text)]

    def judge(self, point: Point, done: Outcome) -> list[str]:
        problems = [] if done.rc == 0 or (point.call.own and not point.error) else self.spoke(done)
        next_one = self.one.call("mounts", "add", self.one.id, str(self.none), check=False)
        if next_one.rc != 0:
            problems.append(f"the next `mounts` fails: {next_one!r}")
        present, noted = self.present(), self.noted()
        if noted != present:
            problems.append(f"half done: {present} mounted, {noted} in the state")
        elif present not in ([], PLACES):
            problems.append(f"left by the failed command: mounts {present}")
        return problems + self.claims(done, present)

    def claims(self, done: Outcome, present: list[str]) -> list[str]:
        """The problems if the exit status is wrong."""
        raise NotImplementedError

    def clean(self) -> list[str]:
        if self.running and self.present():
            wanted = [mount for mount in json.loads(self.file.read_text()) if mount["destination"] in self.noted()]
            self.left.write_text(json.dumps(wanted))
            result = self.one.call("mounts", "remove", self.one.id, str(self.left), check=False)
            if result.rc != 0 or self.present():
                return [f"cannot be removed: {result!r}", *super().clean()]
        return super().clean()


class Add(Mounts):
    """`mounts add`: exit 0 only with all mounts, another status only with none."""

    name = "mounts-add"

    def command(self) -> list[str]:
        return self.argv("mounts", "add", self.one.id, str(self.file))

    def claims(self, done: Outcome, present: list[str]) -> list[str]:
        if done.rc == 0:
            return [] if present else ["exit 0, but nothing is mounted"]
        killed = done.rc is not None and done.rc >= 128  # possibly after the commit
        return [f"failed, but mounted: status {done.rc}"] if present and not killed else []


class Remove(Mounts):
    """`mounts remove`: exit 0 only if all mounts are gone."""

    name = "mounts-remove"

    def before(self) -> None:
        super().before()
        if not self.present():
            self.one.call("mounts", "add", self.one.id, str(self.file))

    def command(self) -> list[str]:
        return self.argv("mounts", "remove", self.one.id, str(self.file))

    def claims(self, done: Outcome, present: list[str]) -> list[str]:
        return ["exit 0, but still mounted"] if done.rc == 0 and present else []


class ExecTools(scenes.Exec):
    """`exec --tools`: no mount and no file remains in the container."""

    name = "exec-tools"

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.tools = sandbox.path / "tools"
        (self.tools / "bin").mkdir(parents=True)
        shutil.copy(self.one.bundle.rootfs / "probe", self.tools / "bin" / "own-name")

    def before(self) -> None:
        super().before()
        self.mounts = Path(f"/proc/{self.one.pid}/mountinfo").read_text()
        self.files = sorted(os.listdir(self.one.bundle.rootfs))

    def command(self) -> list[str]:
        return self.argv("exec", "--tools", str(self.tools), self.one.id, "own-name", "exit", "77")

    def clean(self) -> list[str]:
        problems = super().clean()
        if Path(f"/proc/{self.one.pid}/mountinfo").read_text() != self.mounts:
            problems.append("a mount is left in the container")
        if sorted(os.listdir(self.one.bundle.rootfs)) != self.files:
            problems.append("a file is left in the root filesystem")
        return problems


ALL: tuple[type[scenes.Scene], ...] = (Add, Remove, ExecTools)
