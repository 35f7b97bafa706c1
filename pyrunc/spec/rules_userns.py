"""Rules for user namespaces, id mappings and idmapped mounts. Only imported if there are any."""

from __future__ import annotations

from pyrunc.spec.mappings import is_single, map_id, text
from pyrunc.spec.report import NOTHING, numbered
from pyrunc.spec.rules_linux import of_the_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from pyrunc.spec.mappings import Mappings
    from pyrunc.spec.report import Report
    from pyrunc.spec.types import Config, Linux

    Kind = Literal["uid", "gid"]
    Field = Literal["uidMappings", "gidMappings"]
    Maps = dict[Kind, Mappings]

# kernel/user_namespace.c: extents of a map, and bytes of a write (one page)
MAX_EXTENTS = 340
MAX_TEXT = 4095
LAST = 0xFFFFFFFF  # (uid_t)-1 is not a valid id, so no range may reach it

_FIELDS: tuple[tuple[Kind, Field], ...] = (("uid", "uidMappings"), ("gid", "gidMappings"))


def check(config: Config, report: Report) -> None:
    """All of these rules."""
    linux = config.get("linux", {})
    unmapped: Maps = {kind: linux.get(field, []) for kind, field in _FIELDS}
    for _, field in _FIELDS:
        if linux.get(field):
            extents(linux[field], f"/linux/{field}", report)
    if "user" not in report.namespaces:
        for _, field in _FIELDS:
            if linux.get(field):
                report.bad(f"/linux/{field}", "no mappings without a user namespace of the container", linux[field])
        if report.facts is not None and report.facts.euid != 0:
            hint = "only root can do without; `pyrunc spec --rootless` writes a config that has one"
            report.bad("/linux/namespaces", "a user namespace", config.get("linux", {}).get("namespaces"), hint)
    elif report.namespaces["user"] == "" or any(unmapped.values()):
        for kind, field in _FIELDS:
            if not unmapped[kind]:
                report.bad(f"/linux/{field}", "at least one mapping for the new user namespace", NOTHING)
            elif not broken(unmapped[kind]) and map_id(unmapped[kind], 0) < 0:
                report.bad(f"/linux/{field}", "a mapping for id 0, which sets the container up", unmapped[kind])
    maps = usable(linux)
    if "user" in report.namespaces and maps:
        user(config, maps, report)
        devices(linux, maps, report)
    mounts(config, report)


def mounts(config: Config, report: Report, at: str = "/mounts") -> None:
    """The rules for `mounts`; ``at`` is the pointer of the array."""
    linux = config.get("linux", {})
    maps = usable(linux)
    if "user" in report.namespaces and maps:
        mount_data(config, maps, report, at)
    idmapped_mounts(config, linux, report, at)


def usable(linux: Linux) -> Maps:
    """The mappings of the container that are complete."""
    found: Maps = {kind: linux.get(field, []) for kind, field in _FIELDS}
    return {kind: entries for kind, entries in found.items() if entries and not broken(entries)}


def broken(mappings: Mappings) -> bool:
    """Whether an entry lacks a field, or there are too many entries; both are reported already."""
    if len(mappings) > MAX_EXTENTS:
        return True
    return any(entry is None or len(entry.keys() & {"containerID", "hostID", "size"}) < 3 for entry in mappings)


def extents(mappings: Mappings, pointer: str, report: Report) -> None:
    """Mappings for which the kernel only reports EINVAL."""
    if len(mappings) > MAX_EXTENTS:
        report.bad(pointer, f"at most {MAX_EXTENTS} mappings", mappings)
        return
    if broken(mappings):
        return
    if len(text(mappings)) > MAX_TEXT:
        report.bad(pointer, f"mappings of at most {MAX_TEXT} characters in the format of /proc/PID/uid_map", mappings)
    field: Literal["containerID", "hostID"]
    for here, entry in numbered(mappings, pointer):
        if entry["size"] == 0:
            report.bad(f"{here}/size", "a size of at least 1", 0)
        for field in ("containerID", "hostID"):
            if entry[field] + entry["size"] > LAST:
                report.bad(f"{here}/{field}", f"a range of ids below {LAST}", entry[field], f"size {entry['size']}")
    for field in ("containerID", "hostID"):
        spans = sorted((entry[field], entry["size"], index) for index, entry in enumerate(mappings))
        for number, after in enumerate(spans[1:]):
            before = spans[number]
            if after[0] < before[0] + before[1]:
                hint = f"mapping {before[2]} has {before[0]} to {before[0] + before[1] - 1}"
                report.bad(f"{pointer}/{after[2]}/{field}", "ranges that do not overlap", after[0], hint)


def user(config: Config, maps: Maps, report: Report) -> None:
    """The ids of the program must be mapped."""
    who = config.get("process", {}).get("user", {})
    for field in ("uid", "gid"):
        if field in maps and map_id(maps[field], who.get(field, 0)) < 0:
            report.bad(f"/process/user/{field}", f"an id mapped by /linux/{field}Mappings", who.get(field, 0))
    if "gid" in maps:
        for pointer, gid in numbered(who.get("additionalGids"), "/process/user/additionalGids"):
            if map_id(maps["gid"], gid) < 0:
                report.bad(pointer, "an id mapped by /linux/gidMappings", gid)
    rootless = report.facts is not None and report.facts.euid != 0
    if rootless and who.get("additionalGids") and is_single(maps.get("gid", ())):
        # Such a map is written without newgidmap, so setgroups must be denied (CVE-2014-8989).
        hint = "map more groups than your own, which newgidmap does"
        report.bad("/process/user/additionalGids", "no additional groups", who["additionalGids"], hint)


def mount_data(config: Config, maps: Maps, report: Report, at: str) -> None:
    """uid= and gid= of a new filesystem, for which the kernel only reports EINVAL."""
    for pointer, mount in numbered(config.get("mounts"), at):
        names = mount.get("options", ())
        if "bind" in names or "rbind" in names:
            continue
        for here, option in numbered(names, f"{pointer}/options"):
            kind, _, value = option.partition("=")
            if kind not in maps or not value.isascii() or not value.isdigit():
                continue
            if len(value) > 10 or map_id(maps[kind], int(value)) < 0:
                report.bad(here, f"an id mapped by /linux/{kind}Mappings", option)


def devices(linux: Linux, maps: Maps, report: Report) -> None:
    """The owner of a device node must be mapped (config-linux.md, Devices)."""
    for pointer, device in numbered(linux.get("devices"), "/linux/devices"):
        for kind, mappings in maps.items():
            value = device.get(kind)
            if value is not None and map_id(mappings, value) < 0:
                report.bad(f"{pointer}/{kind}", f"an id mapped by /linux/{kind}Mappings", value)


def idmapped_mounts(config: Config, linux: Linux, report: Report, at: str) -> None:
    """The options idmap and ridmap, and the mappings of mounts."""
    joined = report.namespaces.get("user") or ""
    # A joined namespace has mappings, whether or not config.json repeats them.
    container = (linux.get("uidMappings") and linux.get("gidMappings")) or (
        joined and not of_the_host("user", joined, report)
    )
    for pointer, mount in numbered(config.get("mounts"), at):
        names = mount.get("options", ())
        asked = next((name for name in names if name in ("idmap", "ridmap")), "")
        own = [field for _, field in _FIELDS if mount.get(field)]
        if not asked and not own:
            continue
        where = f"{pointer}/options" if asked else f"{pointer}/{own[0]}"
        value = asked or mount[own[0]]
        if not ("bind" in names or "rbind" in names) or "remount" in names:
            # A filesystem that is mounted in the user namespace already has the container's ids.
            report.bad(where, "a bind mount for an id mapping", value)
        if len(own) == 1:
            other = "gidMappings" if own == ["uidMappings"] else "uidMappings"
            report.bad(f"{pointer}/{other}", f"mappings, because there are {own[0]}", NOTHING)
        for field in own:
            extents(mount[field], f"{pointer}/{field}", report)
        if not own and not container:
            hint = (
                "neither the mount nor the container has uidMappings and gidMappings, nor does it join a user namespace"
            )
            report.bad(where, "mappings for it", value, hint)
        if report.facts is not None and report.facts.euid != 0:
            report.bad(where, "no idmapped mount", value, "creating one requires root on the host")
