"""The mounts of a mount namespace, from /proc/PID/mountinfo (proc_pid_mountinfo(5))."""

from __future__ import annotations

from pyrunc import fs, host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST = 64 << 20  # bytes


class Mount:
    """One mount. ``root`` is the path in its filesystem that is visible at ``point``."""

    __slots__ = ("id", "parent", "point", "private", "root", "type")

    def __init__(self, id: int, parent: int, root: str, point: str, *, private: bool = True, type: str = "") -> None:
        self.id, self.parent, self.root, self.point = id, parent, root, point
        self.private = private  # in no peer group, no slave, and bindable
        self.type = type  # of the filesystem


def parse(text: bytes) -> list[Mount]:
    """The mounts of a mountinfo file, in its order. Lines that have another form are skipped."""
    out = []
    for line in text.split(b"\n"):
        fields = line.split(b" ")
        try:
            dash = fields.index(b"-", 6)  # the end of the optional fields
            id, parent, kind = int(fields[0]), int(fields[1]), fields[dash + 1].decode("utf-8", "replace")
        except (ValueError, IndexError):
            continue
        root, point = host.unescape(fields[3]), host.unescape(fields[4])
        out.append(Mount(id, parent, root, point, private=dash == 6, type=kind))
    return out


def read(pid: int | str = "self") -> list[Mount]:
    """The mounts of a process's mount namespace that are below its root. Raises OSError."""
    return parse(fs.read_file(f"/proc/{pid}/mountinfo", _MOST))


class Tree:
    """Which mount a path leads to."""

    __slots__ = ("children", "points", "root")

    def __init__(self, mounts: Iterable[Mount]) -> None:
        self.points: dict[int, str] = {}  # id -> mount point
        self.children: dict[int, list[int]] = {}
        parents: dict[int, int] = {}
        for mount in mounts:
            self.points[mount.id] = mount.point
            parents[mount.id] = mount.parent
            self.children.setdefault(mount.parent, []).append(mount.id)
        self.root = next((id for id, parent in parents.items() if parent not in parents or parent == id), 0)

    def leads_to(self, path: str) -> int:
        """The id of the mount that an absolute path leads to; 0 if there is none."""
        current = self.root
        while True:
            below = [id for id in self.children.get(current, ()) if id != current and inside(path, self.points[id])]
            if not below:
                return current
            current = min(below, key=lambda id: len(self.points[id]))  # the first on the way; siblings never share one

    def shows(self, id: int) -> bool:
        """Whether the mount is there and nothing covers it."""
        return id in self.points and self.leads_to(self.points[id]) == id


def inside(path: str, point: str) -> bool:
    """Whether a path is at or below a mount point."""
    return point == "/" or path == point or path.startswith(point + "/")
