"""OCI images: unpacking one beside umoci and podman, and the second `run --image` beside a plain
`run`.

    .venv/bin/python -m bench.images                 # as root; umoci and podman where they are installed
    .venv/bin/python -m bench.images --size 100 --rounds 1

The image has five gzip layers with files of this system, 400 MB altogether. Everything is whole
processes, interleaved; CPU time and the peak of resident memory are those of the process and of all
that it waited for.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import shutil
import statistics
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.measure import Worker, make_bundle

LAYERS = 5
PLACES = ("usr/lib", "usr/share", "usr/bin", "var/lib", "etc", "usr/include", "usr/local")
OCI = "application/vnd.oci.image."
GOALS = {"umoci": 1.0, "podman": 1.2}  # pyrunc's time as a fraction of theirs
GOAL_SECOND, GOAL_MEMORY = 1.3, 150  # multiple of a plain run; MiB
LIMIT = 600  # seconds for one command


class Usage(NamedTuple):
    """Resources that a process and its children used."""

    wall: float  # seconds
    cpu: float
    memory: float  # MiB, of the largest; at least the size of the Python that started it


def measure(worker: Worker, argv: list[str]) -> Usage:
    """Run a command.  Raises RuntimeError if it fails."""
    used = worker.usage(argv, limit=LIMIT)
    return Usage(used["ms"] / 1e3, used["cpu_ms"] / 1e3, used["peak_kib"] / 1024)


def files() -> Iterator[str]:
    """Regular files, directories and links of this system, always in the same order."""
    for place in PLACES:
        for at, directories, names in os.walk(f"/{place}"):
            directories.sort()
            yield at
            for name in sorted(names):
                path = f"{at}/{name}"
                if os.path.islink(path) or os.path.isfile(path):
                    yield path


def layers(size: int) -> Iterator[bytes]:
    """Tars of ``size`` MB altogether."""
    source = files()
    for _ in range(LAYERS):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in source:
                try:
                    archive.add(path, recursive=False)
                except OSError:
                    continue  # gone, or unreadable for us
                if out.tell() >= size * 1_000_000 // LAYERS:
                    break
        yield out.getvalue()


def make_layout(path: Path, contents: Iterator[bytes], config: dict[str, Any]) -> Path:
    """An image layout with one image, tagged x."""
    (path / "blobs/sha256").mkdir(parents=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(kind: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (path / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": OCI + kind, "digest": f"sha256:{digest}", "size": len(data)}

    listed, ids = [], []
    for content in contents:
        ids.append("sha256:" + hashlib.sha256(content).hexdigest())
        listed.append(blob("layer.v1.tar+gzip", gzip.compress(content, 6, mtime=0)))
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    rootfs = {"type": "layers", "diff_ids": ids}
    document = {"os": "linux", "architecture": architecture, "config": config, "rootfs": rootfs}
    described = blob("config.v1+json", json.dumps(document).encode())
    manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": described, "layers": listed}
    entry = blob("manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {"org.opencontainers.image.ref.name": "x"}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return path


def unpackers(pyrunc: str, layout: Path, place: Path) -> dict[str, Callable[[int], list[str]]]:
    """How each installed program unpacks the image, the n-th time."""
    found: dict[str, Callable[[int], list[str]]] = {
        "pyrunc": lambda number: [pyrunc, "unpack", "--quiet", f"{layout}:x", str(place / f"pyrunc{number}")]
    }
    if umoci := shutil.which("umoci"):
        found["umoci"] = lambda number: [umoci, "unpack", "--image", f"{layout}:x", str(place / f"umoci{number}")]
    if podman := shutil.which("podman"):
        found["podman"] = lambda number: [
            *(podman, "--root", str(place / f"podman{number}"), "--runroot", str(place / f"podman-run{number}")),
            *("--storage-driver", "vfs", "pull", "--quiet", f"oci:{layout}:x"),
        ]
    return found


def median(found: list[Usage]) -> Usage:
    return Usage(*(statistics.median(column) for column in zip(*found, strict=True)))


def unpacking(worker: Worker, pyrunc: str, place: Path, size: int, rounds: int) -> None:
    """Print the table of `unpack`."""
    layout = make_layout(place / "layout", layers(size), {"Cmd": ["/bin/sh"]})
    tools = unpackers(pyrunc, layout, place)
    used: dict[str, list[Usage]] = {name: [] for name in tools}
    for number in range(rounds):
        for name, argv in tools.items():
            used[name].append(measure(worker, argv(number)))
            os.sync()  # one program's dirty pages must not be written back during the next one
            for left in place.glob(f"{name}*{number}"):
                shutil.rmtree(left)
    ours = median(used["pyrunc"])
    print(f"an image of {size} MB in {LAYERS} layers, {rounds} rounds, medians")
    print("          wall s   CPU s   peak MiB   pyrunc's wall   CPU")
    for name, found in used.items():
        theirs = median(found)
        text = f"{name:8} {theirs.wall:7.2f} {theirs.cpu:7.2f} {theirs.memory:10.0f}"
        if name in GOALS:
            ratios = ours.wall / theirs.wall, ours.cpu / theirs.cpu
            text += f" {ratios[0]:14.2f} {ratios[1]:6.2f}  {verdict(ratios[0], GOALS[name])}"
        else:
            text += f"  {verdict(ours.memory, GOAL_MEMORY)}"
        print(text)


def verdict(value: float, goal: float) -> str:
    return f"{'pass' if value <= goal else 'MISS'}: goal {goal:g}"


def second_start(worker: Worker, pyrunc: str, place: Path, rounds: int) -> None:
    """Print the row of the second `run --image`: the image is in the store, and each container
    is new."""
    bundle = make_bundle(place, pyrunc, "plain", ["/bin/true"])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(bundle / "rootfs", ".")
    layout = make_layout(place / "small", iter([out.getvalue()]), {"Cmd": ["/bin/true"]})
    root = ["--root", str(place / "root")]
    image = [pyrunc, *root, "run", "--store", str(place / "store"), "--image", f"{layout}:x"]
    measure(worker, [*image, "first"])
    used: dict[str, list[Usage]] = {"run": [], "run --image": []}
    for number in range(rounds):
        used["run"].append(measure(worker, [pyrunc, *root, "run", "--bundle", str(bundle), f"plain{number}"]))
        used["run --image"].append(measure(worker, [*image, f"image{number}"]))
    plain, ours = median(used["run"]), median(used["run --image"])
    print(f"the second start of an image, {rounds} rounds, medians")
    ratio = ours.wall / plain.wall
    print(f"run          {plain.wall * 1000:6.2f} ms wall {plain.cpu * 1000:6.2f} ms CPU")
    print(
        f"run --image  {ours.wall * 1000:6.2f} ms wall {ours.cpu * 1000:6.2f} ms CPU:"
        f" {ratio:.2f} and {ours.cpu / plain.cpu:.2f} times  {verdict(ratio, GOAL_SECOND)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pyrunc", default=".venv/bin/pyrunc")
    parser.add_argument("--size", type=int, default=400, help="MB of the large image")
    parser.add_argument("--rounds", type=int, default=3, help="of unpacking; the second start has 40 times as many")
    parser.add_argument("--place", help="where to unpack; default: a temporary directory")
    options = parser.parse_args()
    pyrunc = os.path.abspath(options.pyrunc)
    worker = Worker(private=False)  # before anything is read: a process counts the memory of its parent at the fork
    with tempfile.TemporaryDirectory(prefix="pybench", dir=options.place) as place:
        second_start(worker, pyrunc, Path(place), 40 * options.rounds)
        unpacking(worker, pyrunc, Path(place), options.size, options.rounds)
    worker.close()


if __name__ == "__main__":
    main()
