"""`unpack` and `images pull` exit with 0 and the whole tree, or leave nothing and let the next call
succeed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from integration.faults.points import Point
from integration.faults.scenes import Outcome, Sandbox, Scene
from integration.test_images import CHANGES, HIDDEN, ODD, described

from image_support import Layout, tar  # isort: skip  # integration.test_images sets the path

CONFIG = {"Cmd": ["sh"], "User": "1000:5", "Env": ["PATH=/bin"], "Volumes": {"/lower": {}}}


class Unpack(Scene):
    """`unpack` of two layers with whiteouts, links, devices and attributes."""

    name = "unpack"
    kinds = frozenset(("error", "kill"))

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.place = sandbox.path / "made"
        layout = Layout(sandbox.path / "layout")
        layout.tag(layout.image([tar(ODD), tar(CHANGES)], CONFIG, compress="gzip"), "odd")
        self.image = f"{layout.path}:odd"
        first, second = self.made(), self.made()
        # Objects that no layer entry names get the current time.
        self.expected = {name: value for name, value in first.items() if second.get(name) == value}
        self.names = set(first)
        assert len(self.expected) > len(first) / 2 and set(second) == self.names

    def made(self) -> dict[str, Any]:
        """The result of the command without a fault."""
        self.before()
        result = self.sandbox.runtime.call(*self.arguments())
        assert result.rc == 0, result
        return self.found()

    def before(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()

    def arguments(self) -> list[str]:
        """Options, verb and arguments."""
        root = str(self.sandbox.root)
        return ["--root", root, "unpack", "--quiet", "--volumes", "bind", self.image, str(self.place / "bundle")]

    def command(self) -> list[str]:
        return self.sandbox.runtime.argv(*self.arguments())

    def found(self) -> dict[str, Any]:
        """The content of the target directory."""
        return described(self.place)

    def judge(self, point: Point, done: Outcome) -> list[str]:
        killed = not point.error
        if done.rc == 0:
            return self.differences("exit 0, but")
        problems = [] if killed else self.left()
        if not killed and len(done.err.splitlines()) != 1:
            problems.append(f"not one line: {done.err!r}")
        if killed and os.path.exists(self.place / "bundle"):
            return self.differences("killed after the bundle was there, but")
        again = self.sandbox.runtime.call(*self.arguments())
        if again.rc != 0:
            return [*problems, f"the next call fails: {again!r}"]
        return problems + self.differences("after the next call") + self.hidden()

    def differences(self, when: str) -> list[str]:
        """The differences from the result without a fault."""
        found = self.found()
        wrong = [name for name, value in self.expected.items() if found.get(name) != value]
        wrong += sorted(set(found) ^ self.names)
        return [f"{when} {', '.join(wrong[:10])} is not as it should be"] if wrong else []

    def left(self) -> list[str]:
        """The leftovers of a failed command."""
        names = os.listdir(self.place)
        return [f"left by the failed command: {names}"] if names else []

    def hidden(self) -> list[str]:
        """Unfinished objects."""
        names = [str(path) for path in self.place.rglob(f"{HIDDEN}*")]
        return [f"nobody removes {names}"] if names else []

    def clean(self) -> list[str]:
        shutil.rmtree(self.place, ignore_errors=True)
        return self.sandbox.leftovers()


class Pull(Unpack):
    """`images pull` into an empty store; afterwards `images list` and `images prune --all` work."""

    name = "pull"

    def arguments(self) -> list[str]:
        return ["--root", str(self.sandbox.root), "images", "--store", str(self.place), "--quiet", "pull", self.image]

    def found(self) -> dict[str, Any]:
        """The content of the target directory, without the time in the image's document."""
        found: dict[str, Any] = described(self.place)
        for name in [name for name in found if name.startswith("images/")]:
            document = json.loads((self.place / name).read_bytes())
            del document["created"]
            found[name] = document
        for name in ("layers", "images", "refs", "l", "containers", "lock"):
            found[name] = name in found
        return found

    def left(self) -> list[str]:
        """The leftovers, except complete layers, which the next call uses."""
        found = sorted(str(path.relative_to(self.place)) for path in self.place.glob("*/.*"))
        refs, images = len(list(self.place.glob("refs/*"))), len(list(self.place.glob("images/*")))
        problems = [f"left by the failed command: {found}"] if found else []
        return [*problems, "a reference to no image"] if refs > images else problems

    def hidden(self) -> list[str]:
        call, store = (
            self.sandbox.runtime.call,
            ["--root", str(self.sandbox.root), "images", "--store", str(self.place)],
        )
        listed = call(*store, "--json", "list")
        problems = super().hidden()
        if listed.rc != 0 or [row["layers"] for row in json.loads(listed.out or "[]")] != [2]:
            problems.append(f"images list: {listed!r}")
        pruned = call(*store, "--all", "prune")
        rest = sorted(str(Path(at) / name) for at, _, names in os.walk(self.place) for name in names)
        if pruned.rc != 0 or rest != [str(self.place / "lock")]:
            problems.append(f"images prune: {pruned!r} leaves {rest}")
        return problems


ALL: tuple[type[Scene], ...] = (Unpack, Pull)
