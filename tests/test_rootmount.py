"""The mount of a container without a mount namespace, by the mount table;
integration/test_callers_mounts.py mounts."""

from __future__ import annotations

import os
import posix
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyrunc import fs, rootmount
from pyrunc.errors import PyruncError, SysError
from pyrunc.mountinfo import Mount

ROOT, DATA, BIND, OVER = 20, 21, 50, 60
TABLE = {
    ROOT: Mount(ROOT, 1, "/", "/"),
    DATA: Mount(DATA, ROOT, "/@data", "/data"),
    BIND: Mount(BIND, DATA, "/@data/b/rootfs", "/data/b/rootfs"),
    OVER: Mount(OVER, BIND, "/", "/data/b/rootfs"),
}


class Library:
    """Fakes of the shim's calls with their answers."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.answer = 0

    def set_propagation(self, fd: int, flag: int) -> None:
        self.calls.append(f"propagation {flag:#x}")

    def unmount(self, path: bytes, flags: int) -> None:
        self.calls.append(f"umount {flags}")
        if self.answer:  # -errno
            raise OSError(-self.answer, os.strerror(-self.answer))


Remove = Callable[..., list[str]]


@pytest.fixture
def remove(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Remove:
    """``remove(top, below, own, without=[ids])``: the calls made if mount ``top`` is seen at the
    path."""

    def made(top: int, below: int, own: int, without: tuple[int, ...] = (), answer: int = 0) -> list[str]:
        library = Library()
        library.answer = answer
        table = {mount: entry for mount, entry in TABLE.items() if mount not in without}
        monkeypatch.setattr(fs, "mount_id", lambda fd: top)
        monkeypatch.setattr(rootmount, "_by_id", lambda: table)
        monkeypatch.setattr(rootmount, "mounts", library)
        rootmount.remove(str(tmp_path), below, own)
        return library.calls

    return made


DONE = ["propagation 0x40000", "umount 2"]


@pytest.mark.parametrize(
    ("top", "below", "own", "calls"),
    [
        (BIND, DATA, BIND, DONE),
        (BIND, DATA, 0, DONE),  # a create that was killed
        (DATA, DATA, 0, []),  # a create that was killed before the mount
        (DATA, DATA, BIND, []),  # unmounted by another process
        (OVER, DATA, 0, []),  # not a mount that we create
        (BIND, BIND, BIND, []),  # a reused id
    ],
)
def test_removed_privileges(remove: Remove, top: int, below: int, own: int, calls: list[str]) -> None:
    without = () if BIND in (top, below) else (BIND,)
    assert remove(top, below, own, without=without) == calls


def test_one_that_is_covered(remove: Remove) -> None:
    with pytest.raises(PyruncError, match="another mount covers the one of this container"):
        remove(OVER, DATA, BIND)


def test_one_whose_parent_is_out_of_sight(remove: Remove) -> None:
    """In a chroot the mount is recognized by its id alone."""
    assert remove(BIND, DATA, BIND, without=(DATA,)) == DONE
    assert remove(BIND, DATA, 0, without=(DATA,)) == []


def test_a_refusal_of_the_kernel_is_an_error(remove: Remove) -> None:
    assert remove(BIND, DATA, BIND, answer=-22) == DONE  # EINVAL: unmounted meanwhile
    with pytest.raises(SysError, match=r"/root/path .* umount2: EPERM"):
        remove(BIND, DATA, BIND, answer=-1)


def test_a_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = str(tmp_path / "missing")
    assert rootmount.mount_id(missing) == 0
    rootmount.remove(missing, DATA, BIND)

    def no_descriptors(*args: Any) -> int:
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr(posix, "open", no_descriptors)
    with pytest.raises(OSError, match="Too many open files"):
        rootmount.remove(missing, DATA, BIND)


def test_ids_are_those_of_mountinfo(tmp_path: Path) -> None:
    found = rootmount._by_id()[rootmount.mount_id(str(tmp_path))]
    assert str(tmp_path).startswith(found.point)
