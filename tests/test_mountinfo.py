"""The table of mounts; tests/golden/results.txt has which of them a path leads to."""

from __future__ import annotations

import os
from pathlib import Path

from pyrunc import fs, mountinfo
from pyrunc.mountinfo import Mount

LINES = b"""\
1 0 0:1 / / rw,noatime - ext4 /dev/x rw
2 1 0:2 / /a\\040b\\134 rw master:3 - tmpfs t rw
3 1 0:3 /sub /- rw shared:1 master:2 - tmpfs - rw
4 3 0:4 / /\xff rw unbindable - fuse.x\xff x rw
"""


def shown(mount: Mount) -> tuple[int, int, str, str, bool, str]:
    return mount.id, mount.parent, mount.root, mount.point, mount.private, mount.type


def test_lines() -> None:
    assert [shown(mount) for mount in mountinfo.parse(LINES)] == [
        (1, 0, "/", "/", True, "ext4"),
        (2, 1, "/", "/a b\\", False, "tmpfs"),
        (3, 1, "/sub", "/-", False, "tmpfs"),
        (4, 3, "/", "/\udcff", False, "fuse.x\ufffd"),
    ]


def test_other_lines_are_skipped() -> None:
    """A container can answer for the files of its processes (FUSE on /proc)."""
    for line in (b"", b"short line", b"1 0 0:1 / / rw", b"x 0 0:1 / / rw - a b c", b"1 0 0:1 / / rw -", b"- " * 9):
        assert mountinfo.parse(line + b"\n" + LINES)[0].id == 1 and len(mountinfo.parse(line)) == 0


def test_the_mounts_of_a_process(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH)
    (own,) = [mount for mount in mountinfo.read() if mount.id == fs.mount_id(fd)]
    os.close(fd)
    assert mountinfo.inside(str(tmp_path), own.point)
    assert [shown(mount) for mount in mountinfo.read(os.getpid())] == [shown(mount) for mount in mountinfo.read()]
