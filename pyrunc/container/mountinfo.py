"""The mounts of a mount namespace (/proc/PID/mountinfo), and which of them a path leads to."""

from __future__ import annotations

from pyrunc import fs, host

_MOST = 64 << 20  # bytes


class Table:
    """The mounts that a process can reach, by id."""

    __slots__ = ("children", "points", "root")

    def __init__(self, text: bytes) -> None:
        self.points: dict[int, str] = {}  # id -> mount point
        self.children: dict[int, list[int]] = {}
        parents: dict[int, int] = {}
        for line in text.split(b"\n"):
            fields = line.split(b" ", 5)
            if len(fields) == 6:
                id, parent = int(fields[0]), int(fields[1])
                self.points[id] = host.unescape(fields[4])
                parents[id] = parent
                self.children.setdefault(parent, []).append(id)
        self.root = next((id for id, parent in parents.items() if parent not in parents or parent == id), 0)

    def leads_to(self, path: str) -> int:
        """The id of the mount that has the object at an absolute path, 0 if there is no mount."""
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


def read(pid: int) -> Table:
    """The mounts of a process.  Raises OSError."""
    return Table(fs.read_file(f"/proc/{pid}/mountinfo", _MOST))
