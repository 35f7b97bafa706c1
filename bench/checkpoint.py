"""Checkpoint and restore of a container that sleeps, and a checkpoint of much dirty memory beside
`criu dump` alone."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import ENVIRONMENT, make_bundle
from bench.report import OURS, Row, row

if TYPE_CHECKING:
    from bench.series import Series

CRIU = "criu"
SUM = "checkpoint + restore"
DIRTY = "dump of 200 MB of dirty memory"
ROUNDS, DIRTY_ROUNDS = 30, 15
# The pipe takes 64 KiB of what dd has read into memory; dd then blocks.
PROGRAM = "dd if=/dev/zero bs=200M count=2 2>/dev/null | sleep 1000"
# Otherwise CRIU changes the options of the host's cgroup2 (checkpoint-restore/criu#3029).
IGNORE = ("--manage-cgroups-mode", "ignore")

Samples = dict[str, list[float]]


class Subject:
    """A container of one runtime that is checkpointed again and again. Images are on a tmpfs."""

    def __init__(self, series: Series, bundle: Path) -> None:
        self.series, self.bundle = series, bundle
        self.id = f"bench{os.getpid()}-{series.root.name}-{bundle.name}"
        self.images = series.root.with_suffix(f".{bundle.name}")
        self.pid_file = series.root.with_suffix(f".{bundle.name}-pid")

    def run(self) -> None:
        """Start it. Its stderr must be a file that CRIU finds by its path, so it is not the
        worker's."""
        argv = [self.series.peer.path, "--root", str(self.series.root), "run", "--detach", "--bundle", str(self.bundle)]
        argv += ["--pid-file", str(self.pid_file), self.id]
        self.series.worker.run(["/bin/sh", "-c", 'exec "$@" 2>/dev/null', "sh", *argv])

    def call(self, verb: str, *flags: str) -> float:
        """Milliseconds of a checkpoint or a restore. Raises RuntimeError."""
        argv = [self.series.peer.path, "--root", str(self.series.root), verb, *IGNORE, *flags]
        return self.series.worker.run([*argv, "--image-path", str(self.images), self.id])

    def both(self) -> dict[str, float]:
        """Milliseconds of a checkpoint, of the restore, and of both."""
        shutil.rmtree(self.images, ignore_errors=True)
        used = {"checkpoint": self.call("checkpoint")}
        used["restore"] = self.call("restore", "--detach", "--bundle", str(self.bundle))
        return {**used, SUM: sum(used.values())}

    def dump(self) -> float:
        """Milliseconds of a checkpoint that leaves it running."""
        shutil.rmtree(self.images, ignore_errors=True)
        return self.call("checkpoint", "--leave-running")

    def dump_plain(self) -> float:
        """Milliseconds of `criu dump` of the same processes."""
        shutil.rmtree(self.images, ignore_errors=True)
        self.images.mkdir()
        pid = self.pid_file.read_text()
        argv = [str(criu()), "dump", "--tree", pid, "--images-dir", str(self.images), "--leave-running"]
        argv += ["--root", str(self.bundle / "rootfs"), "--empty-ns", "net", "--manage-cgroups=ignore"]
        argv += ["--log-file", "dump.log", *external(pid)]
        return self.series.worker.run(argv)

    def delete(self) -> None:
        self.series.call("delete", "--force", self.id, expect=None)
        shutil.rmtree(self.images, ignore_errors=True)


def criu() -> Path | None:
    """The executable of bench/criu.sh or of the system."""
    found = shutil.which(CRIU, path=ENVIRONMENT["PATH"])
    return Path(found) if found else None


def external(pid: str) -> list[str]:
    """Options for the mounts of files of the host, which CRIU does not recreate: masked paths."""
    options = []
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        place = left.split()[4]
        if right.startswith("devtmpfs ") or (place.startswith("/proc/") and left.split()[3] == "/null"):
            options += ["--external", f"mnt[{place}]:{place}"]
    return options


def sleeping(series: list[Series], long: Path) -> list[Row]:
    """Checkpoint and restore, interleaved. Raises RuntimeError."""
    subjects = [Subject(one, long) for one in series]
    samples: dict[str, Samples] = {what: {one.name: [] for one in series} for what in ("checkpoint", "restore", SUM)}
    try:
        for subject in subjects:
            subject.run()
        for number in range(-2, ROUNDS):  # the first two warm up
            turn = number % len(subjects)
            for subject in subjects[turn:] + subjects[:turn]:
                for what, used in subject.both().items():
                    if number >= 0:
                        samples[what][subject.series.name].append(used)
    finally:
        for subject in subjects:
            subject.delete()
        series[0].worker.reap()
    return [row("checkpoint", what, "ms", found) for what, found in samples.items()]


def dirty(series: list[Series], place: Path, pyrunc: str) -> Row:
    """A dump of dirty memory by each runtime, and by criu alone of pyrunc's container. Raises
    RuntimeError."""
    bundle = make_bundle(place, pyrunc, "dirty", ["/bin/sh", "-c", PROGRAM])
    (bundle / "rootfs/bin/dd").symlink_to("busybox")
    subjects = [Subject(one, bundle) for one in series]
    ours = next(one for one in subjects if one.series.name == OURS)
    ways = {one.series.name: one.dump for one in subjects} | {CRIU: ours.dump_plain}
    samples: Samples = {name: [] for name in ways}
    try:
        for subject in subjects:
            subject.run()
            _wait_for_memory(subject.pid_file.read_text())
        order = list(ways)
        for number in range(-1, DIRTY_ROUNDS):
            turn = number % len(order)
            for name in order[turn:] + order[:turn]:
                used = ways[name]()
                if number >= 0:
                    samples[name].append(used)
    finally:
        for subject in subjects:
            subject.delete()
        series[0].worker.reap()
    return row("checkpoint", DIRTY, "ms", samples)


def _wait_for_memory(pid: str) -> None:
    """Wait until a child of the container's first process has read its 200 MB."""
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        for stat in Path("/proc").glob("[0-9]*/status"):
            try:
                text = stat.read_text()
            except OSError:
                continue
            if f"\nPPid:\t{pid}\n" in text and int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) > 200_000:
                return
        time.sleep(0.05)
    raise RuntimeError("dd has not filled its memory")


def rows(series: list[Series], place: Path, pyrunc: str, long: Path) -> tuple[list[Row], dict[str, str]]:
    """The rows of the group "checkpoint", and why something was not measured."""
    if criu() is None:
        return [], {CRIU: "not found: bench/criu.sh gets one"}
    those = [one for one in series if one.name != "crun"]  # it needs libcriu, which is not unpacked
    found, why = [], {}
    try:
        found += sleeping(those, long)
    except RuntimeError as error:
        why[SUM] = str(error)[-300:]
    try:
        found.append(dirty(those, place, pyrunc))
    except RuntimeError as error:
        why[DIRTY] = str(error)[-300:]
    return found, why
