"""The bundle of a case, and snapshots of file trees before and after."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

from integration.differential import model
from integration.differential.model import words

USERS = """root:x:0:0:root:/root:/bin/sh
user:x:1000:1000:user:/home/user:/bin/sh
empty:x:1001:1001:no home::/bin/sh
other:x:1002:1002:home elsewhere:/nowhere/at/all:/bin/sh
"""
GROUPS = "root:x:0:\ntty:x:5:\nuser:x:1000:\nmore:x:2000:user,empty\n"
_DIRS = words(
    """
        bin usr/bin usr/local/bin sbin etc proc sys dev run tmp var/tmp root home/user mnt opt w/log data/nested
        full lib
        """
)
_LINKS = (
    ("link", "data"),
    ("absolute", "/data/nested"),
    ("loop", "loop"),
    ("broken", "missing/below"),
    ("escape", "../../../../w/src/dir"),
    ("link-file", "existing"),
    ("bin/link", "inside"),
    ("bin/far", "/usr/local/bin/other"),
    ("bin/broken", "/no/such/program"),
    ("var/run", "../run"),
)


def build(case: model.Case, program: Path, config: dict[str, Any]) -> None:
    """Write the bundle: config.json and a fresh root filesystem."""
    root = Path(model.ROOTFS)
    for name in _DIRS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp", "w/log"):
        (root / name).chmod(0o1777)
    os.chown(root / "home/user", 1000, 1000)
    (root / "home/user").chmod(0o750)
    first = root / "bin/inside"
    shutil.copy(program, first)
    first.chmod(0o755)
    for name in ("usr/bin/other", "usr/local/bin/other", "usr/bin/inside"):
        os.link(first, root / name)
    for number in (0, 1):
        os.link(first, root / f"bin/hook-startContainer-{number}")
    for name, text, mode in (
        ("bin/plain", "no program\n", 0o644),
        ("bin/noformat", "no format\n", 0o755),
        ("bin/script", "#!/bin/inside by script\n", 0o755),
        ("bin/badscript", "#!/no/such/interpreter\n", 0o755),
        ("bin/empty", "", 0o755),
        ("existing", "existing\n", 0o644),
        ("data/file", "file\n", 0o640),
        ("data/nested/deep", "deep\n", 0o600),
        ("full/file", "full\n", 0o644),
        ("etc/passwd", USERS, 0o644),
        ("etc/group", GROUPS, 0o644),
        ("ask", "\n".join(case.asked()) + "\n", 0o644),
    ):
        (root / name).write_text(text)
        (root / name).chmod(mode)
    shutil.copy(program, root / "bin/private")
    (root / "bin/private").chmod(0o700)
    (root / "bin/directory").mkdir()
    for name, target in _LINKS:
        (root / name).symlink_to(target)
    for feature in case.features:
        for operation, name, *rest in feature.rootfs:
            _operate(root / name.lstrip("/"), operation, rest)
    (Path(model.BUNDLE) / "config.json").write_text(json.dumps(config))


def _operate(path: Path, operation: str, words: list[str]) -> None:
    if operation == "remove":
        remove(path)
    elif operation == "mkdir":
        path.mkdir(parents=True, exist_ok=True)
    elif operation == "chmod":
        path.chmod(int(words[0], 8))
    elif operation == "chown":
        os.chown(path, int(words[0]), int(words[1]), follow_symlinks=False)
    elif operation == "symlink":
        path.symlink_to(words[0])
    elif operation == "write":
        path.write_text(words[0])
    elif operation == "node":
        os.mknod(path, int(words[0], 8) | (stat.S_IFBLK if words[1] == "b" else stat.S_IFCHR), int(words[2]))
    else:
        raise ValueError(operation)


def remove(path: str | Path) -> None:
    """Remove a file or a whole tree; a missing one is not an error."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def tree(top: str, *, everywhere: bool = False) -> dict[str, str]:
    """Every path below `top` (with `everywhere`, also in mounts there): type, mode, owner, size,
    target."""
    found = {}
    device = os.stat(top).st_dev
    for at, dirs, files in os.walk(top):
        for name in dirs + files:
            path = os.path.join(at, name)
            try:
                found[os.path.relpath(path, top)] = describe(path)
                if not everywhere and name in dirs and os.lstat(path).st_dev != device:
                    dirs.remove(name)
            except OSError as error:
                found[os.path.relpath(path, top)] = str(error.strerror)
    return found


def describe(path: str) -> str:
    entry = os.lstat(path)
    text = f"{stat.filemode(entry.st_mode)} {entry.st_uid}:{entry.st_gid}"
    if stat.S_ISLNK(entry.st_mode):
        return f"l {entry.st_uid}:{entry.st_gid} -> {os.readlink(path)}"
    if stat.S_ISREG(entry.st_mode):
        text += f" {entry.st_size}"
    elif stat.S_ISCHR(entry.st_mode) or stat.S_ISBLK(entry.st_mode):
        text += f" {os.major(entry.st_rdev)}:{os.minor(entry.st_rdev)}"
    return text


def changes(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    """The differences by path: the new description, or "gone"."""
    found = {path: text for path, text in after.items() if before.get(path) != text}
    return found | dict.fromkeys(before.keys() - after.keys(), "gone")
