"""Building blocks of floods: cheap containers, commands that run concurrently, and a tally."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from integration.config import default_config, edit
from integration.faults.scenes import LIMIT, NOISE, Sandbox
from integration.harness import Bundle, Container, end_of


class Light(Bundle):
    """A bundle of a single file: the root filesystem is the sandbox's template."""

    def __init__(self, sandbox: Sandbox, name: str, *actions: str, edits: dict[str, Any] | None = None) -> None:
        self.sandbox, self.name = sandbox, name
        self.path = sandbox.path / f"bundle-{name}"
        self.path.mkdir()
        self.rootfs = sandbox.template
        self.config = default_config(f"/{sandbox.prefix}{name}")
        self.config["root"]["path"] = str(self.rootfs)
        self.config["process"]["args"] = ["/probe", *(actions or ("signals", "600"))]
        edit(self.config, edits or {})
        self.save()

    def container(self) -> Container:
        """The container of this bundle."""
        return Container(self.sandbox, f"{self.sandbox.prefix}{self.name}", self)


class Tally:
    """The number of rounds, their problems, and other figures."""

    def __init__(self) -> None:
        self.done = self.bad = 0
        self.wrong: list[str] = []
        self.figures: dict[str, Any] = {}

    def rounds(self, count: int, seconds: float) -> Iterator[int]:
        """Count from 0 to `count`, or until `seconds` have passed."""
        end = time.monotonic() + seconds
        for number in range(count):
            if time.monotonic() > end:
                return
            yield number

    def note(self, problems: list[str], about: str = "") -> None:
        """Record one round."""
        self.done += 1
        self.bad += bool(problems)
        self.wrong += [f"{about}: {text}" if about else text for text in problems]


class End(NamedTuple):
    """The end of one of many commands; rc is None if it hung."""

    rc: int | None
    err: str

    @property
    def problems(self) -> list[str]:
        """Hangs, crashes and unexpected output."""
        out = ["hang"] if self.rc is None else [f"killed by signal {-self.rc}"] if self.rc < 0 else []
        return out + [f"said {word!r}: {self.err}" for word in NOISE if word in self.err]


def together(argvs: Sequence[list[str]], sandbox: Sandbox) -> list[End]:
    """Start all command lines at once and wait for them."""
    env = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")}
    running = []
    for argv in argvs:
        err = tempfile.TemporaryFile()  # noqa: SIM115
        null = subprocess.DEVNULL
        running.append((subprocess.Popen(argv, stdin=null, stdout=null, stderr=err, env=env), err))
    ends = []
    limit = time.monotonic() + LIMIT
    for child, err in running:
        try:
            rc: int | None = end_of(child, max(0.1, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            rc = None
        err.seek(0)
        ends.append(End(rc, err.read().decode(errors="replace")))
        err.close()
    return ends


def judge_end(sandbox: Sandbox, one: Container) -> list[str]:
    """Run `delete --force` and check that it leaves nothing."""
    try:
        result = one.delete("--force", check=False, timeout=2 * LIMIT)
    except AssertionError as error:
        return [f"hang: {error}"]
    problems = [f"delete --force: {result!r}"] if result.rc else []
    problems += [f"after delete --force: {text}" for text in sandbox.leftovers()]
    if problems:
        sandbox.sweep_up()
    return problems
