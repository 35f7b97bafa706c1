"""Users and groups by name, from the image's own /etc/passwd and /etc/group (image-spec:
conversion.md, "User")."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from pyrunc.errors import show
from pyrunc.image.errors import ImageError
from pyrunc.image.tree import Tree

MAX_FILE = 8 << 20
MAX_GROUPS = 65536  # NGROUPS_MAX
MAX_ID = 0xFFFFFFFE


@dataclass(slots=True)
class User:
    """The value of config.json's process.user, and the home directory for HOME."""

    uid: int = 0
    gid: int = 0
    additional_gids: list[int] = field(default_factory=list)
    home: str = ""


def find(text: str, tree: Tree) -> User:
    """Parse ``user``, ``uid``, ``user:group``, ``uid:gid`` and mixtures; "" is root. Raises
    ImageError for an unknown name.

    A number needs no entry. Supplementary groups apply only to a user given by name without a
    group.
    """
    name, colon, group = text.partition(":")
    if colon and not group:
        raise ImageError(f"/config/User: expected USER[:GROUP], found {show(text)}")
    user = User()
    row: list[str] | None = None
    number = _number(name) if name else 0
    for entry in _rows(tree, "etc/passwd", 4):
        uid, gid = _number(entry[2]), _number(entry[3])
        if uid is not None and gid is not None and (entry[0] == name if number is None else uid == number):
            row = entry
            break
    if number is None and row is None:
        raise ImageError(f"/config/User: no user {show(name)} in the image's /etc/passwd")
    user.uid = number if number is not None else _id(row, 2)
    if row is not None:
        user.gid = _id(row, 3)
        user.home = row[5] if len(row) > 5 else ""
    if group:
        found = _number(group)
        user.gid = found if found is not None else _group(tree, group)
    elif number is None:
        user.additional_gids = _memberships(tree, name, user.gid)
    return user


def _id(row: list[str] | None, column: int) -> int:
    return (_number(row[column]) if row is not None else None) or 0  # find() accepts only rows with a number


def _group(tree: Tree, name: str) -> int:
    for entry in _rows(tree, "etc/group", 3):
        gid = _number(entry[2])
        if entry[0] == name and gid is not None:
            return gid
    raise ImageError(f"/config/User: no group {show(name)} in the image's /etc/group")


def _memberships(tree: Tree, name: str, primary: int) -> list[int]:
    found = {
        gid
        for entry in _rows(tree, "etc/group", 4)
        if name in entry[3].split(",") and (gid := _number(entry[2])) is not None and gid != primary
    }
    return sorted(found)[:MAX_GROUPS]


def _number(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MAX_ID:
        return int(text)
    return None


def _rows(tree: Tree, path: str, least: int) -> list[list[str]]:
    """The lines of a file of the image, split at colons; [] if the file is missing. Raises
    ImageError."""
    data = read_in_root(tree, path)
    rows = [line.split(":") for line in data.decode("utf-8", "surrogateescape").splitlines()]
    return [row for row in rows if len(row) >= least]


def read_in_root(tree: Tree, path: str) -> bytes:
    """Read a regular file of the image, with links resolved inside it; b"" if it is missing.
    Raises ImageError, OSError."""
    for _ in range(40):
        *parts, name = path.split("/")
        try:
            parent = tree.lookup(parts, make=False)
            at = tree.fd(parent)
            found = os.stat(name, dir_fd=at, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                target = os.readlink(name, dir_fd=at)
                path = target.lstrip("/") if target.startswith("/") else f"{parent.path()}/{target}"
                continue
            if not stat.S_ISREG(found.st_mode):
                raise ImageError(f"/{path}: not a regular file")
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        except (FileNotFoundError, NotADirectoryError):
            return b""
        with open(fd, "rb") as stream:
            data = stream.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise ImageError(f"/{path}: larger than {MAX_FILE >> 20} MiB")
        return data
    raise ImageError(f"/{path}: too many symbolic links")
