"""`pyrunc` with a directory in the place of a resctrl file system: ``fake_resctrl.py DIRECTORY ARGS...``.

What the kernel does there and a directory does not: a new group has its files, and goes away together with them.
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
CLASSES = 4  # a group more than that is refused, as hardware does


def populate(group: Path, *, monitor: bool) -> None:
    """The files of a new group."""
    (group / "tasks").write_text("")
    if not monitor:
        (group / "schemata").write_text("    MB:0=100;1=100\n    L3:0=7ff;1=7ff\n")
        (group / "mon_groups").mkdir()


def make(root: Path) -> Path:
    """A new file system with only the default class in it."""
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
    """rmdir(2) on resctrl: with all that is in the group."""
    os.stat(path)
    shutil.rmtree(path)


def patched() -> Any:
    """`posix` as pyrunc.cgroup.rdt is to see it."""
    return SimpleNamespace(**{**vars(posix), "mkdir": mkdir, "rmdir": rmdir})


if __name__ == "__main__":
    sys.path.insert(0, str(REPO))
    from pyrunc import __main__, host
    from pyrunc.cgroup import rdt

    fake = sys.argv[1]
    host.HostFacts.resctrl = property(lambda facts: fake)  # type: ignore[assignment, method-assign]
    rdt.posix = patched()
    sys.exit(__main__.run(sys.argv[2:]))
