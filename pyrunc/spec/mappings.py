"""Id mappings of user namespaces and mounts, with containerID, hostID and size."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.spec.types import IdMapping, Mount

    Mappings = Sequence[IdMapping]


def map_id(mappings: Mappings, inside: int) -> int:
    """The id outside the namespace of an id inside it, -1 if it is not mapped."""
    for entry in mappings:
        offset = inside - entry["containerID"]
        if 0 <= offset < entry["size"]:
            return entry["hostID"] + offset
    return -1


def host_id(mappings: Mappings | None, inside: int) -> int:
    """`map_id` for a container, which shares the host's ids if it has no mappings."""
    return map_id(mappings, inside) if mappings else inside


def has_host_id(mappings: Mappings | None, outside: int) -> bool:
    """Whether an id of the host is mapped; without mappings every id is."""
    if not mappings:
        return True
    return any(0 <= outside - entry["hostID"] < entry["size"] for entry in mappings)


def is_single(mappings: Mappings) -> bool:
    """Whether a single id is mapped: a user may write such a map without newuidmap."""
    return len(mappings) == 1 and mappings[0]["size"] == 1


def is_idmapped(mount: Mount) -> bool:
    """Whether an entry of `mounts` requests an idmapped mount."""
    if mount.get("uidMappings") or mount.get("gidMappings"):
        return True
    options = mount.get("options", ())
    return "idmap" in options or "ridmap" in options


def text(mappings: Mappings) -> str:
    """The content of uid_map or gid_map (user_namespaces(7))."""
    return "".join(f"{entry['containerID']} {entry['hostID']} {entry['size']}\n" for entry in mappings)


def parse(data: str) -> list[IdMapping]:
    """The mappings in the content of uid_map or gid_map. Raises ValueError."""
    out: list[IdMapping] = []
    for line in data.splitlines():
        inside, outside, size = line.split()
        out.append({"containerID": int(inside), "hostID": int(outside), "size": int(size)})
    return out


def merged(mappings: Mappings) -> list[tuple[int, int, int]]:
    """Sorted (inside, outside, size) with adjacent ranges joined: equal results have equal
    effects."""
    out: list[tuple[int, int, int]] = []
    for item in sorted((entry["containerID"], entry["hostID"], entry["size"]) for entry in mappings):
        if out and (out[-1][0] + out[-1][2], out[-1][1] + out[-1][2]) == item[:2]:
            out[-1] = (out[-1][0], out[-1][1], out[-1][2] + item[2])
        else:
            out.append(item)
    return out
