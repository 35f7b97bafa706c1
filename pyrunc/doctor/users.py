"""User namespaces, and the ids that the caller may map besides its own."""

from __future__ import annotations

import pwd
from shlex import quote

from pyrunc import idmap
from pyrunc.doctor import kernel
from pyrunc.doctor.findings import Area
from pyrunc.doctor.machine import Machine, system_error
from pyrunc.errors import errno_name
from pyrunc.spec.names import CLONE_FLAGS

ENOUGH = 65536  # number of ids that an image may use
LOOKED_THROUGH = 256 << 10  # bytes of subuid(5) that are searched for overlaps
SETTINGS = (
    ("kernel.unprivileged_userns_clone", 0),  # Debian's
    ("kernel.apparmor_restrict_unprivileged_userns", 1),  # Ubuntu's
)
_HELPERS = "apt-get install uidmap"


def check(machine: Machine) -> list[Area]:
    """User namespaces, subordinate ids, the setuid helpers."""
    area = Area("users")
    user_namespace(machine, area)
    if machine.euid != 0:
        helpers(machine, area)
        for groups in (False, True):
            subordinate(machine, area, groups)
    elif not machine.initial_userns:
        mapped(machine, area)
    return [area]


def user_namespace(machine: Machine, area: Area) -> None:
    """Whether the caller can create one; users other than root cannot run anything without it."""
    result = machine.probe("NAMESPACES", CLONE_FLAGS["user"])
    if result >= 0:
        if machine.euid == 0:
            area.ok("user-namespaces", "work")
        else:
            inside = machine.probe("NAMESPACES", CLONE_FLAGS["user"] | CLONE_FLAGS["mount"])
            restricted(machine, area) if inside < 0 else area.ok("user-namespaces", "work")
        return
    report = area.note if machine.privileged else area.problem
    means = "containers with a user namespace cannot be run"
    if not machine.privileged:
        means = "no container can be run by this user"
    mend = ""
    if errno_name(-result) == "ENOSPC":
        mend = "sysctl -w user.max_user_namespaces=10000"
    else:
        mend = forbidding(machine) if machine.euid != 0 else ""
        means += kernel.why(machine, result, "3.8")
        if not mend and errno_name(-result) == "EPERM":
            means += "; the kernel forbids it in a chroot, and an LSM may forbid it"
    report("user-namespaces", system_error(result), means, mend)


def forbidding(machine: Machine) -> str:
    """The command that re-enables user namespaces for users, or ""."""
    for name, value in SETTINGS:
        if machine.number("/proc/sys/" + name.replace(".", "/")) == value:
            return f"sysctl -w {name}={1 - value}"
    return ""


def restricted(machine: Machine, area: Area) -> None:
    """A namespace without privileges: AppArmor's restriction of unprivileged user namespaces."""
    means = "this user cannot run containers: an LSM removes all capabilities in user namespaces"
    area.problem("user-namespaces", "can be created, but give no capabilities", means, forbidding(machine))


def helpers(machine: Machine, area: Area) -> None:
    """newuidmap and newgidmap, which write users' maps, must be installed and be setuid or have
    file capabilities."""
    for name in ("newuidmap", "newgidmap"):
        path = next((f"{place}/{name}" for place in idmap.HELPER_DIRS if machine.is_program(f"{place}/{name}")), "")
        if not path:
            means = "no ids beyond the user's own can be mapped"
            area.note("helpers", f"{name} is not installed", means, _HELPERS)
            continue
        found = machine.stat(path)
        if found is not None and not found.st_mode & 0o4000 and not has_capabilities(machine.place(path)):
            means = "it cannot write the maps: it is not setuid and has no file capabilities"
            area.problem("helpers", f"{path} has no privileges", means, f"chmod u+s {path}")
        else:
            area.ok("helpers", path)


def has_capabilities(path: str) -> bool:
    """Whether a file has file capabilities (setcap(8))."""
    from os import getxattr

    try:
        return bool(getxattr(path, "security.capability"))
    except OSError:
        return False


def subordinate(machine: Machine, area: Area, groups: bool) -> None:
    """Ids in /etc/subuid or /etc/subgid, and from NSS if libsubid is installed."""
    file = "/etc/subgid" if groups else "/etc/subuid"
    name = user_name(machine.uid)
    ranges = in_file(machine.text(file), {name, str(machine.uid)})
    source = file
    if nss_source(machine) != "files" or not ranges:
        served = machine.subordinate_ids(name, groups)
        if served is None and nss_source(machine) != "files":
            means = f"the ids that {nss_source(machine)} serves are not seen"
            area.note("subordinate-ids", "libsubid is missing, or does not answer", means, "getsubids $USER")
        elif served:
            ranges, source = served, f"libsubid ({nss_source(machine)})"
    total = sum(count for _, count in ranges)
    option = "--add-subgids" if groups else "--add-subuids"
    mend = f"usermod {option} 100000-165535 {quote(name)}"
    kind = "gids" if groups else "uids"
    if not total:
        means = f"only the user's own id can be mapped: images with files of other {kind} cannot be used"
        area.note("subordinate-ids", f"{name} has no subordinate {kind} in {source}", means, mend)
    elif total < ENOUGH:
        means = f"images may use {ENOUGH}"
        area.note("subordinate-ids", f"{name} has {total} subordinate {kind} ({source})", means, mend)
    else:
        area.ok("subordinate-ids", f"{name} has {total} subordinate {kind} ({source})")
    overlaps(machine, area, file, ranges)


def user_name(uid: int) -> str:
    """The name of a user, or the number if there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return str(uid)


def nss_source(machine: Machine) -> str:
    """The source of subordinate ids in nsswitch.conf(5); "files" by default."""
    for line in machine.text("/etc/nsswitch.conf", 65536).split("\n"):
        key, _, value = line.partition("#")[0].partition(":")
        if key.strip() == "subid" and value.split():
            return value.split()[0]
    return "files"


def in_file(text: str, owners: set[str]) -> list[tuple[int, int]]:
    """The ranges of one user in subuid(5) or subgid(5)."""
    found = []
    for owner, first, count in entries(text):
        if owner in owners:
            found.append((first, count))
    return found


def entries(text: str) -> list[tuple[str, int, int]]:
    """All lines of subuid(5): owner, first id, number; malformed lines are omitted."""
    out = []
    for line in text.split("\n"):
        parts = line.split(":")
        if len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal() and len(line) < 200:
            out.append((parts[0], int(parts[1]), int(parts[2])))
    return out


def overlaps(machine: Machine, area: Area, file: str, ranges: list[tuple[int, int]]) -> None:
    """Ids that another user may also map, or that belong to an account: the container would own
    its files."""
    own = {user_name(machine.uid), str(machine.uid)}
    others = [entry for entry in entries(machine.text(file, LOOKED_THROUGH)) if entry[0] not in own]
    for first, count in ranges[:16]:
        for owner, start, number in others:
            if start < first + count and first < start + number:
                means = "each can read and change the files of the other's containers"
                seen = f"{file}: {first}+{count} overlaps {start}+{number} of {owner}"
                area.problem("overlapping-ids", seen, means, f"edit {file}")
                break


def mapped(machine: Machine, area: Area) -> None:
    """How many ids root of a user namespace can assign."""
    total = 0
    for line in machine.text("/proc/self/uid_map", 65536).split("\n"):
        numbers = line.split()
        if len(numbers) == 3 and numbers[2].isdecimal():
            total += int(numbers[2])
    if total < 2:
        means = "containers can map only this one: images with files of other users cannot be used"
        area.note("mapped-ids", f"{total} id in this user namespace", means)
    else:
        area.ok("mapped-ids", f"{total} ids in this user namespace")
