"""Thirty images with random layers: pyrunc, umoci and podman unpack the same tree."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.harness import REPO, SLOW, Box
from integration.test_images import Entries, described

sys.path.insert(0, str(REPO / "tests"))
from image_support import Layout, entry, link, tar

pytestmark = pytest.mark.pyrunc_only("images are the business of engines elsewhere")
IMAGES = 30
LAYERS = 4


class Model:
    """The tree of the layers so far, from which the next entries are chosen."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.directories = [""]
        self.files: dict[str, dict[str, Any]] = {}  # with their attributes

    def path(self) -> str:
        directory = self.chance.choice(self.directories)
        return f"{directory}{self.chance.choice('abcdefgh')}{self.chance.randrange(4)}"

    def attributes(self, *, special: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = {
            "mode": self.chance.choice((0o644, 0o755, 0o4755, 0o2711, 0o1777, 0o400)),
            "uid": self.chance.choice((0, 0, 1, 1000, 65534)),
            "gid": self.chance.choice((0, 5, 1000)),
            "mtime": self.chance.randrange(1, 1 << 31),
        }
        if self.chance.random() < 0.2 and not special:  # user.* is for files and directories only (xattr(7))
            found["pax_headers"] = {"SCHILY.xattr.user.note": f"v{self.chance.random()}"}
        return found

    def drop(self, path: str) -> None:
        self.directories = [name for name in self.directories if not name.startswith(f"{path}/")] or [""]
        self.files = {
            name: found for name, found in self.files.items() if name != path and not name.startswith(f"{path}/")
        }

    def layer(self) -> Entries:
        """Random unambiguous entries: no path occurs twice, and parents come before their
        children."""
        entries: Entries = [entry("./", mode=0o755, mtime=1)]
        mine: set[str] = set()
        lower_files, lower_directories = list(self.files), [name for name in self.directories if name]

        def fresh(path: str) -> bool:
            # A name of this layer, or one in a directory that this layer replaced, would be
            # ambiguous.
            return not any(path == name or path.startswith(f"{name}/") or name.startswith(f"{path}/") for name in mine)

        for directory in lower_directories:
            if self.chance.random() < 0.3 and fresh(directory[:-1]):
                entries.append(entry(directory, **self.attributes()))
        for _ in range(self.chance.randrange(4, 16)):
            kind, path = self.chance.random(), self.path()
            if not fresh(path) or path in [name[:-1] for name in self.directories]:
                continue
            mine.add(path)
            self.drop(path)
            if kind < 0.35:
                entries.append(entry(f"{path}/", **self.attributes()))
                self.directories.append(f"{path}/")
                mine.discard(path)  # later entries may be below it
                continue
            if kind < 0.7:
                found = self.attributes()
                entries.append(entry(path, self.chance.randbytes(self.chance.randrange(5000)), **found))
                self.files[path] = found
            elif kind < 0.8:
                entries.append(link(path, self.chance.choice(("/etc/x", "a0", "../b1", "nowhere"))))
            elif kind < 0.9 and self.files:
                target = self.chance.choice(list(self.files))
                # As tar writes it, with the target's attributes: only podman applies them.
                entries.append(entry(path, type=tarfile.LNKTYPE, linkname=target, **self.files[target]))
                self.files[path] = self.files[target]
            elif kind < 0.95:
                entries.append(entry(path, type=tarfile.FIFOTYPE, **self.attributes(special=True)))
            else:
                device: dict[str, Any] = {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}
                entries.append(entry(path, **device, **self.attributes(special=True)))
        for path in lower_files:
            if self.chance.random() < 0.2 and fresh(path) and path in self.files:
                directory, _, name = path.rpartition("/")
                entries.append(entry(f"{directory}/.wh.{name}" if directory else f".wh.{name}", b""))
                self.drop(path)
                mine.add(path)
        if lower_directories and self.chance.random() < 0.5:
            directory = self.chance.choice(lower_directories)
            if fresh(directory[:-1]) and not any(
                item.name.startswith(directory.rstrip("/")) for item, _ in entries if item.name != "."
            ):
                entries.append(entry(directory, **self.attributes()))
                entries.append(entry(f"{directory}.wh..wh..opq", b""))
                self.drop(directory[:-1])
                self.directories.append(directory)
        return entries


def make(path: Path) -> Layout:
    layout = Layout(path)
    for seed in range(IMAGES):
        model = Model(seed)
        layers = [tar(model.layer()) for _ in range(LAYERS)]
        compress = "gzip" if seed % 2 else ""
        layout.tag(layout.image(layers, {"Cmd": ["x"]}, compress=compress), f"n{seed}")
    return layout


@pytest.fixture(scope="module")
def layout(base: Path) -> Layout:
    return make(base / "thirty")


def plain_directories(found: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """Remove the known differences of podman's vfs driver: it copies the layers below and loses the
    times of directories; a directory that occurs again keeps the extended attributes of the layers
    below (umoci removes them)."""
    return {name: (*row[:4], 0, *row[5:7], {}) if stat.S_ISDIR(row[0]) else row for name, row in found.items()}


Other = Callable[[Layout, int, Path], Path]


def by_umoci(layout: Layout, seed: int, path: Path) -> Path:
    words = ["umoci", "unpack", "--image", f"{layout.path}:n{seed}", str(path)]
    subprocess.run(words, check=True, capture_output=True, timeout=120 * SLOW)
    return path / "rootfs"


def by_podman(layout: Layout, seed: int, path: Path) -> Path:
    podman = ["podman", "--root", str(path / "root"), "--runroot", str(path / "run"), "--storage-driver", "vfs"]

    def said(*args: str) -> str:
        done = subprocess.run([*podman, *args], capture_output=True, text=True, timeout=120 * SLOW, check=False)
        assert done.returncode == 0, done
        return done.stdout.strip()

    return Path(said("image", "mount", said("pull", "-q", f"oci:{layout.path}:n{seed}")))


@pytest.fixture
def scratch(box: Box) -> Iterator[Path]:
    (box.path / "other").mkdir()
    yield box.path / "other"


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(by_umoci, marks=pytest.mark.needs_program("umoci")),
        pytest.param(by_podman, marks=pytest.mark.needs_program("podman")),
    ],
)
def test_trees(box: Box, layout: Layout, scratch: Path, other: Other) -> None:
    sizes = []
    for seed in range(IMAGES):
        bundle = box.path / f"ours{seed}"
        done = box.runtime.call("unpack", f"{layout.path}:n{seed}", str(bundle), timeout=60 * SLOW)
        assert done.rc == 0, done
        ours = described(bundle / "rootfs")
        where = scratch / str(seed)
        where.mkdir()
        theirs = described(other(layout, seed, where))
        if other is by_podman:
            ours, theirs = plain_directories(ours), plain_directories(theirs)
        assert ours.keys() == theirs.keys(), f"image {seed}"
        different = {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}
        assert different == {}, f"image {seed}"
        sizes.append(len(ours))
    assert sum(sizes) / IMAGES > 10 and min(sizes) > 2  # empty images would agree as well


@pytest.mark.needs_program("podman", "buildah")
def test_the_round_trip_of_podman_save(box: Box, rootfs: Path) -> None:
    """`podman run` and a container of the saved image show the same tree."""
    podman = [
        "podman",
        "--root",
        str(box.path / "podman"),
        "--runroot",
        str(box.path / "run"),
        "--storage-driver",
        "vfs",
    ]
    (box.path / "Containerfile").write_text(
        "FROM scratch\nCOPY . /\nENV A=1 B='two words'\nWORKDIR /home\nUSER user\nLABEL l=v\n"
        'ENTRYPOINT ["/probe", "report"]\n'
    )
    build = [*podman, "build", "-q", "-f", str(box.path / "Containerfile"), "-t", "localhost/probe:1", str(rootfs)]
    subprocess.run(build, check=True, capture_output=True, timeout=120 * SLOW)
    archive = str(box.path / "saved.tar")
    for format in ("docker-archive", "oci-archive"):
        Path(archive).unlink(missing_ok=True)
        save = [*podman, "save", "-q", "--format", format, "-o", archive, "localhost/probe:1"]
        subprocess.run(save, check=True, capture_output=True, timeout=120 * SLOW)
        bundle = box.path / format
        done = box.runtime.call("unpack", archive, str(bundle), timeout=60 * SLOW)
        assert done.rc == 0, done
        config = json.loads((bundle / "config.json").read_text())
        assert config["annotations"]["l"] == "v"
        run = box.runtime.call("--root", str(box.root), "run", "-b", str(bundle), f"{box.prefix}{format[:3]}")
        assert run.rc == 0, run
        report = run.report
        assert (report["uid"], report["gid"], report["cwd"]) == ([1000] * 3, [1000] * 3, "/home"), report
        assert {"A=1", "B=two words"} <= set(report["env"])
    assert os.path.exists(archive)
