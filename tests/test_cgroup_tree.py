"""Walks of cgroups that are created and removed meanwhile, in directories that imitate a
hierarchy."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pyrunc import fs
from pyrunc.cgroup import tree

FOREVER = time.monotonic() + 1e6


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A cgroup with three children, each with two of its own."""
    for name in ("a", "b", "c"):
        for below in ("x", "y"):
            (tmp_path / "top" / name / below).mkdir(parents=True)
    (tmp_path / "top" / "cgroup.procs").touch()
    (tmp_path / "top" / "link").symlink_to(tmp_path)
    return tmp_path / "top"


def walked(top: Path, also: Callable[[str], None] = lambda _: None) -> tuple[list[str], list[str]]:
    """The cgroups that were entered and those that were left, relative to the top."""
    entered, left = [], []

    def name(fd: int, last: str = "") -> str:
        return os.path.relpath(os.path.join(os.readlink(f"/proc/self/fd/{fd}"), last), top)

    def enter(fd: int) -> None:
        entered.append(name(fd))
        also(entered[-1])

    tree.walk(str(top), enter, lambda fd, last: left.append(name(fd, last)), FOREVER)
    return entered, left


ALL = {".", "a", "a/x", "a/y", "b", "b/x", "b/y", "c", "c/x", "c/y"}


def test_every_cgroup_once_and_what_is_below_first(top: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    entered, left = walked(top)
    assert sorted(entered) == sorted(ALL)
    assert sorted(left) == sorted(ALL - {"."})
    for name in ALL - {"."}:
        parent = os.path.dirname(name) or "."
        assert entered.index(parent) < entered.index(name)
        assert parent == "." or left.index(name) < left.index(parent)
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("which", [0, 1])
def test_one_that_vanishes_does_not_end_the_walk(top: Path, which: int) -> None:
    """Whichever sibling comes first, and whether the one that vanishes would have been the second
    or the last."""
    gone: list[str] = []

    def vanish(name: str) -> None:
        if name in ("a", "b", "c") and not gone:
            gone.append(sorted({"a", "b", "c"} - {name})[which])
            for below in ("x", "y", ""):
                (top / gone[0] / below).rmdir()

    entered, _ = walked(top, vanish)
    assert len(gone) == 1
    assert sorted(entered) == sorted(name for name in ALL if name.split("/")[0] != gone[0])


def test_one_that_vanishes_while_we_are_in_it(top: Path) -> None:
    def vanish(name: str) -> None:
        if name == "b":
            for below in ("x", "y", ""):
                (top / "b" / below).rmdir()

    entered, left = walked(top, vanish)
    assert sorted(entered) == sorted(ALL - {"b/x", "b/y"})
    assert "b" in left


def test_nothing_is_followed_out_of_the_hierarchy(top: Path) -> None:
    assert "link" not in walked(top)[0]
    with pytest.raises(OSError) as raised:
        tree.walk(str(top / "link"), None, None, FOREVER)
    assert raised.value.errno in (errno.ENOTDIR, errno.ELOOP)


def test_deeper_than_a_path_may_be(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    fd, depth = os.open(tmp_path / "deep", os.O_RDONLY), 400
    for _ in range(depth):
        os.mkdir("n" * 20, dir_fd=fd)
        below = os.open("n" * 20, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    left: list[str] = []

    def remove(parent: int, name: str) -> None:
        left.append(name)
        os.rmdir(name, dir_fd=parent)

    tree.walk(str(tmp_path / "deep"), None, remove, FOREVER)
    assert len(left) == depth
    assert os.listdir(tmp_path / "deep") == []


def test_the_walk_ends_at_its_deadline(top: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="too many cgroups") as raised:
        tree.walk(str(top), None, None, time.monotonic() - 1)
    assert (raised.value.errno, raised.value.filename) == (errno.ETIMEDOUT, str(top))
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_failing_step_leaves_no_descriptor(top: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "no")

    for enter, leave in ((fail, None), (None, fail)):
        with pytest.raises(OSError):
            tree.walk(str(top), enter, leave, FOREVER)
    assert sorted(os.listdir("/proc/self/fd")) == before


# --- processes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [errno.ENOENT, errno.ENODEV])
def test_processes_of_one_that_is_gone(monkeypatch: pytest.MonkeyPatch, gone: int) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise OSError(gone, "")

    monkeypatch.setattr(fs, "read_file", fail)
    assert tree.processes("/c") == []


@pytest.mark.parametrize("by_fd", [False, True])
def test_a_threaded_cgroup_lists_its_threads(monkeypatch: pytest.MonkeyPatch, by_fd: bool) -> None:
    asked = []

    def answer(name: str, *_: object, dir_fd: int | None = None) -> bytes:
        asked.append((name, dir_fd))
        if name.endswith("cgroup.procs"):
            raise OSError(errno.EOPNOTSUPP, "")
        return b"7\n0\n10\n"

    monkeypatch.setattr(fs, "read_file", answer)
    assert tree.processes(5 if by_fd else "/c") == [7, 10]
    prefix, fd = ("", 5) if by_fd else ("/c/", None)
    assert asked == [(prefix + "cgroup.procs", fd), (prefix + "cgroup.threads", fd)]


def test_processes_that_cannot_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise OSError(errno.ENOMEM, "")

    monkeypatch.setattr(fs, "read_file", fail)
    with pytest.raises(OSError):
        tree.processes("/c")


def test_members_of_all_below_once(top: Path, tmp_path: Path) -> None:
    for name, pids in (("", "1\n2\n"), ("a", "2\n3\n"), ("c/y", "0\n4\n")):
        (top / name / "cgroup.procs").write_text(pids)
    assert sorted(tree.members(str(top), 10)) == [1, 2, 3, 4]
    assert tree.members(str(tmp_path / "missing"), 10) == []
    with pytest.raises(OSError) as raised:
        tree.members(str(top), -1)
    assert raised.value.errno == errno.ETIMEDOUT
