"""`pyrunc` with a directory in place of a resctrl filesystem: ``fake_resctrl.py DIRECTORY
ARGS...``.

It emulates what the kernel does and a directory does not: a new group contains its files, and is
removed together with them.
"""

from __future__ import annotations

import os
import posix
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

REPO = Path(__file__).resolve().parent.parent
CLASSES = 4  # further groups are refused, as by hardware


def populate(group: Path, *, monitor: bool) -> None:
    """The files of a new group."""
    (group / "tasks").write_text("")
    if not monitor:
        (group / "schemata").write_text("    MB:0=100;1=100\n    L3:0=7ff;1=7ff\n")
        (group / "mon_groups").mkdir()


def make(root: Path) -> Path:
    """A new filesystem with only the default class."""
    root.mkdir()
    (root / "info").mkdir()
    populate(root, monitor=False)
    return root


def mkdir(path: str, mode: int) -> None:
    """mkdir(2) on resctrl."""
    group = Path(path)
    monitor = group.parent.name == "mon_groups"
    if len([entry for entry in group.parent.iterdir() if entry.is_dir()]) >= CLASSES + 2:
        raise OSError(28, "No space left on device")
    os.mkdir(path, mode)
    populate(group, monitor=monitor)


def rmdir(path: str) -> None:
    """rmdir(2) on resctrl removes a group with its content."""
    os.stat(path)
    shutil.rmtree(path)


def patched() -> Any:
    """`posix` as seen by pyrunc.cgroup.rdt."""
    return SimpleNamespace(**{**vars(posix), "mkdir": mkdir, "rmdir": rmdir})


if __name__ == "__main__":
    sys.path.insert(0, str(REPO))
    from pyrunc import __main__, host
    from pyrunc.cgroup import rdt

    fake = sys.argv[1]
    host.HostFacts.resctrl = property(lambda facts: fake)  # type: ignore[assignment, method-assign]
    setattr(rdt, "posix", patched())  # noqa: B010
    sys.exit(__main__.run(sys.argv[2:]))
