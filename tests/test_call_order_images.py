"""The system calls of checkpoints and images, and what each failing call leads to, as in
test_call_order.py."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from pyrunc.checkpoint import images, rootfs
from pyrunc.errors import PyruncError
from pyrunc.image import tree as image_tree
from test_call_order import compare, left_in

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="flags differ between machines"),
]


@pytest.fixture(autouse=True)
def ordinary_umask() -> Any:
    """Modes depend on it."""
    mask = os.umask(0o22)
    yield
    os.umask(mask)


# -- checkpoints -----------------------------------------------------------------------------------


def images_in(place: Path, **values: str) -> images.Images:
    """The directories of a checkpoint."""
    return images.Images({"image-path": f"{place}/images/deep", **values}, "dump.log")


def written_images(place: Path) -> Any:
    """Write descriptors.json, and read it again."""
    made = images_in(place)
    try:
        made.open(make=True)
        made.write_descriptors(["a", "b", "pipe:[5]"])
        Path(made.path, "inventory.img").write_text("")
        return made.read_descriptors()
    finally:
        made.close()


def logged_failure(place: Path) -> Any:
    """The error of a dump whose log has one."""
    made = images_in(place)
    try:
        made.open(make=True)
        return str(made.failure("dump", "criu: why")), str(made.failure("dump", "criu: why", logged=False))
    finally:
        made.close()


def opened_images(made: images.Images, make: bool) -> int:
    """Open the directories, and close them as `checkpoint` does in any case."""
    try:
        made.open(make=make)
        return made.fd
    finally:
        made.close()


IMAGES: dict[str, Callable[[Path], Any]] = {
    "write and read": written_images,
    "failure": logged_failure,
    "images that are missing": lambda place: opened_images(images_in(place), make=False),
    "a parent that is missing": lambda place: opened_images(images_in(place, **{"parent-path": "../gone"}), make=True),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str, tmp_path: Path) -> None:
    def scene(place: Path) -> Callable[[], Any]:
        return lambda: IMAGES[name](place)

    compare(f"images: {name}", (images,), tmp_path, scene)


LOG = b"""\
(00.1) first
(00.2) Error (criu/a.c:1): the reason
(00.3) Error (criu/b.c:2): rlimit: harmless
(00.4) Error (criu/c.c:3): it FAILED.
(00.5) Error (criu/d.c:4): x: Unable to open fd=3
"""
LOGS = {
    "whole": LOG, "one line": b"(00.2) Error (criu/a.c:1): the reason", "nothing": b"", "no errors": b"(00.1) first\n",
    "cut": LOG + b"(00.6) Error (criu/e.c:5): only ha", "only empty ones": b"(00.4) Error (c:3): it FAILED.\n",
    "only harmless": b"(00.3) Error (criu/b.c:2): rlimit: harmless\n", "bytes": b"(00.2) Error (a.c:1): \xff\n",
    "long": b"(00.0) Error (a.c:1): too far\n" + b"x" * (1 << 20), "no end": b"(00.2) Error (a.c:1)\n",
}  # fmt: skip


def test_the_last_error_of_a_log(tmp_path: Path) -> None:
    lines = []
    made = images_in(tmp_path)
    made.open(make=True)
    for name, data in LOGS.items():
        Path(made.log).write_bytes(data)
        lines.append(
            f"{name}: {made.last_error()!r} {made.failure('dump', 'criu: why')!s}".replace(str(tmp_path), "TOP")
        )
    Path(made.log).unlink()
    lines.append(str(made.failure("dump", "")).replace(str(tmp_path), "TOP"))
    for text in ("[]", '["a","b"]', '["a","b",1]', '["a","b","c","d"]', "{}", "[", '["a","b","c"]', "null"):
        Path(made.path, "inventory.img").write_text("")
        Path(made.path, "descriptors.json").write_text(text)
        try:
            lines.append(str(made.read_descriptors()))
        except PyruncError as error:
            lines.append(str(error).replace(str(tmp_path), "TOP"))
    made.close()
    for free in (0, 1):
        for files in (0, 5):
            for spare in (0, 1):
                found = SimpleNamespace(f_bavail=free, f_files=files, f_favail=spare)
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(images, "posix", SimpleNamespace(fstatvfs=lambda fd, found=found: found))
                    lines.append(f"{free} {files} {spare}: {images.is_full(0)}")
    transcript.compare("call_order", "the last error of a log", lines)


def test_paths_in_a_root(tmp_path: Path) -> None:
    """Links, `..`, missing and created parts; nothing leads out of the root."""
    paths = ["/", "a", "/a/b", "a/../..", "link", "link/b", "up", "loop", "file", "file/x", "none", "none/x", "deep/er",
             "absolute/b", "a/./b", "dangling"]  # fmt: skip
    lines = []
    for make in ("", "dir", "file"):
        for path in paths:
            place = tmp_path / f"{make}{paths.index(path)}"
            (place / "root/a/b").mkdir(parents=True)
            for name, to in (
                ("link", "a"),
                ("up", "../../.."),
                ("loop", "loop"),
                ("absolute", "/a"),
                ("dangling", "gone"),
            ):
                (place / "root" / name).symlink_to(to)
            (place / "root/file").write_text("")
            fd = os.open(place / "root", os.O_PATH | os.O_DIRECTORY)
            told = []
            for call, more in ((walked, (make,)), (rootfs.resolved, ()), (rootfs.kind, ())):
                try:
                    told.append(str(call(fd, path, *more)))
                except OSError as error:
                    told.append(errno.errorcode[error.errno or 0])
            os.close(fd)
            lines.append(f"{make} {path}: {told} {[one for one in left_in(place / 'root') if '120777' not in one]}")
    transcript.compare("call_order", "paths in a root", lines)


def walked(root: int, path: str, make: str = "") -> str:
    """Where a walk ends."""
    with rootfs.Walk(root, make) as walk:
        return walk.go(path).path


# -- the tree of an image --------------------------------------------------------------------------


def looked_up(place: Path, path: str, make: bool) -> str:
    """Where a path of an image leads."""
    fd = os.open(place / "root", os.O_RDONLY | os.O_DIRECTORY)
    made = None
    try:
        made = image_tree.Tree(fd, 4)
        at = made.lookup(path.split("/"), make=make)
        made.mark(at, "entry")
        at.mtime = (1_000_000_000, 2_000_000_000)
        made.end_layer()
        first = os.stat(made.fd(at)).st_mtime_ns
        os.utime(made.fd(at), ns=(5, 5))
        made.end_layer()  # nothing is left to set
        return f"{at.path()} depth {at.depth()} {first} {os.stat(made.fd(at)).st_mtime_ns} {sorted(at.made)}"
    finally:
        if made is not None:
            made.close()
        os.close(fd)


@pytest.mark.parametrize("make", [False, True])
@pytest.mark.parametrize(
    "path",
    ["", "a", "a/b", "a/../..", "link/b", "up/a", "loop", "file", "file/x", "none/x", "absolute/b", "1/2/3/4/5/6"],
)
def test_the_tree_of_an_image(path: str, make: bool, tmp_path: Path) -> None:
    def scene(place: Path) -> Callable[[], Any]:
        (place / "root/a/b").mkdir(parents=True)
        for name, to in (("link", "a"), ("up", "../../.."), ("loop", "loop"), ("absolute", "/a")):
            (place / "root" / name).symlink_to(to)
        (place / "root/file").write_text("")
        return lambda: looked_up(place, path, make)

    compare(f"an image's {path}, {make}", (image_tree,), tmp_path, scene, (errno.EIO,))
