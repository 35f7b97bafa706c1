"""Sweep every position, every shape, and every verb that reads it. Print exceeded limits; the exit
status is then 1.

``--match TEXT`` selects cases, ``--seconds N`` limits the time, and ``--part I/N`` selects every
N-th case.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from integration.input_costs import documents, measure
from pyrunc.spec import schema


class Sweep:
    """A bundle, a container to modify, and the findings."""

    def __init__(self, program: str, place: pathlib.Path) -> None:
        self.program, self.place, self.root = program, place, str(place / "root")
        self.secret = measure.hash_secret(program)
        self.keys = measure.colliding(self.secret or "00" * 16, place)
        self.bundle = self.make_bundle()
        self.id, self.beside = f"costs{os.getpid()}", f"costs{os.getpid()}-beside"
        self.worst: dict[str, measure.Usage] = {}

    def make_bundle(self) -> dict[str, Any]:
        """Create a root filesystem with busybox, and return a config that works."""
        bin = self.place / "bundle" / "rootfs" / "bin"
        bin.mkdir(parents=True)
        for name in ("proc", "sys", "dev"):
            (bin.parent / name).mkdir()
        busybox = shutil.which("busybox") or ""
        shutil.copy(busybox, bin / "busybox")
        for applet in ("true", "sleep"):
            (bin / applet).symlink_to("busybox")
        measure.run(self.program, self.root, "spec", "--bundle", str(self.place / "bundle"))
        config: dict[str, Any] = json.loads((self.place / "bundle" / "config.json").read_text())
        config["process"] |= {"terminal": False, "args": ["/bin/sleep", "1000000"]}
        return config

    def run(self, *args: str) -> measure.Usage:
        usage = measure.run(self.program, self.root, *args)
        verb = usage.verb.split()[0]
        if verb not in self.worst or usage.cpu > self.worst[verb].cpu:
            self.worst[verb] = usage
        return usage

    # -- documents, and the verbs that read them ---------------------------------------------------

    def configs(self, data: bytes, turn: int = 0) -> Iterator[measure.Usage]:
        """Run the verbs that read a config.json; each case adds one of the read-only verbs."""
        bundle = str(self.place / "bundle")
        (self.place / "bundle" / "config.json").write_bytes(data)
        yield self.run("plan", *(("--json",) if turn % 2 else ()), "--bundle", bundle)
        made = self.run("create", "--bundle", bundle, self.id)
        yield made
        if made.status == 0:
            yield self.run("list", *(("-q",), ("-f", "json"), ())[turn % 3])
            yield self.run("state", self.id)
            yield self.run("start", self.id)
            yield self.run("exec", self.id, "/bin/true")
            yield self.run("kill", self.id, "KILL")
        yield self.run("delete", "--force", self.id)

    def processes(self, data: bytes, turn: int = 0) -> Iterator[measure.Usage]:
        """Run `exec` with a process.json in an existing container."""
        (self.place / "process.json").write_bytes(data)
        yield self.run("exec", "--process", str(self.place / "process.json"), self.beside)

    def resources(self, data: bytes, turn: int = 0) -> Iterator[measure.Usage]:
        """Run `update` with a resources document."""
        (self.place / "resources.json").write_bytes(data)
        yield self.run("update", "--resources", str(self.place / "resources.json"), self.beside)

    def start_beside(self) -> None:
        """Start the container for `exec` and `update`."""
        (self.place / "bundle" / "config.json").write_text(json.dumps(self.bundle))
        for args in (("create", "--bundle", str(self.place / "bundle"), self.beside), ("start", self.beside)):
            usage = self.run(*args)
            if usage.status:
                raise RuntimeError(usage.err)

    def readers(self) -> list[tuple[dict[str, Any], Any, Any]]:
        """A valid document, its node, and its readers."""
        process = {"cwd": "/", "args": ["/bin/true"], "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
        return [
            (self.bundle, schema.CONFIG, self.configs),
            (process, schema.PROCESS, self.processes),
            ({}, schema.RESOURCES, self.resources),
        ]

    def cases(self) -> Iterator[tuple[documents.Case, Any]]:
        """Every document with its readers."""
        for base, node, verbs in self.readers():
            for case in documents.Documents(base, node, self.keys).cases():
                yield case, verbs

    def check(self, case: documents.Case, verbs: Any, turn: int = 0) -> list[str]:
        """The exceeded limits."""
        data = case.build()
        return [text for usage in verbs(data, turn) for text in usage.wrong(case.items, len(data))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--match", default="", help="only cases with this in their name")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--part", default="1/1", metavar="I/N")
    parser.add_argument("--program", default=str(measure.ROOT / ".venv/bin/pyrunc"))
    given = parser.parse_args()
    first, step = map(int, given.part.split("/"))
    began, done, bad = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory(prefix="pyinput", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as place:
        sweep = Sweep(given.program, pathlib.Path(place))
        sweep.start_beside()
        try:
            every = [pair for pair in sweep.cases() if given.match in f"{pair[1].__name__} {pair[0].name}"]
            for turn, (case, verbs) in list(enumerate(every))[first - 1 :: step]:
                if time.monotonic() - began > given.seconds:
                    print(f"ended after {given.seconds:g} s, {len(every) - done * step} cases are left")
                    break
                found = sweep.check(case, verbs, turn)
                done += 1
                for text in found:
                    bad += 1
                    print(f"{verbs.__name__} {case.name}: {text}", flush=True)
        finally:
            measure.run(given.program, sweep.root, "delete", "--force", sweep.beside)
    for verb, usage in sorted(sweep.worst.items()):
        print(f"{verb:8} at most {usage.cpu:.2f} s, in a call with {usage.memory >> 10} MiB: {usage.err[:100].strip()}")
    print(f"{done} documents in {time.monotonic() - began:.0f} s, {bad} beyond a limit")
    return 1 if bad or not done else 0


if __name__ == "__main__":
    sys.exit(main())
