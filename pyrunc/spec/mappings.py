"""Id mappings of user namespaces: lists of objects with containerID, hostID and size, as config.json has them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    Mappings = list[dict[str, int]]


def map_id(mappings: Mappings, inside: int) -> int:
    """The id outside of the namespace for one inside of it; -1 when it is not mapped."""
    for entry in mappings:
        offset = inside - entry["containerID"]
        if 0 <= offset < entry["size"]:
            return entry["hostID"] + offset
    return -1


def text(mappings: Mappings) -> str:
    """What is written to uid_map and gid_map (user_namespaces(7))."""
    return "".join(f"{entry['containerID']} {entry['hostID']} {entry['size']}\n" for entry in mappings)


def parse(data: str) -> Mappings:
    """The content of uid_map or gid_map.  Raises ValueError."""
    out = []
    for line in data.splitlines():
        inside, outside, size = line.split()
        out.append({"containerID": int(inside), "hostID": int(outside), "size": int(size)})
    return out


def merged(mappings: Mappings) -> list[tuple[int, int, int]]:
    """Sorted (inside, outside, size) with neighbours joined: equal for mappings that map equally."""
    out: list[tuple[int, int, int]] = []
    for item in sorted((entry["containerID"], entry["hostID"], entry["size"]) for entry in mappings):
        if out and (out[-1][0] + out[-1][2], out[-1][1] + out[-1][2]) == item[:2]:
            out[-1] = (out[-1][0], out[-1][1], out[-1][2] + item[2])
        else:
            out.append(item)
    return out
