"""linux.intelRdt: groups of the resctrl filesystem (cache and memory bandwidth), as config-linux.md
requires.

Loaded only for a container that has the field. The groups of a container are a `Record`, which its
state keeps.
"""

from __future__ import annotations

import posix
from errno import EEXIST, ENOENT, ENOSPC
from posix import O_CLOEXEC, O_NOFOLLOW, O_WRONLY

from pyrunc import fs
from pyrunc.errors import PyruncError, SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, NotRequired, TypedDict

    from pyrunc.spec.types import IntelRdt

    class Record(TypedDict):
        """The groups of one container, kept in its state under "rdt"."""

        root: str  # mount point
        group: str
        made: list[str]  # directories to remove, innermost first
        new_class: NotRequired[str]  # a class with a name of its own that `apply` created


POINTER = "/linux/intelRdt"
_GROUPS = "the hardware has a fixed number of groups (info/L3/num_closids, info/L3_MON/num_rmids)"
_SCHEMATA = "`cat info/last_cmd_status` in the resctrl file system may say more"


def plan(wanted: IntelRdt, id: str, root: str) -> Record:
    """The changes that `apply` would make for ``linux.intelRdt``; read-only.

    ``root`` is the mount point of resctrl. Raises SysError for a named class that does not exist.
    """
    clos = wanted.get("closID", "")
    group = root if clos == "/" else f"{root}/{clos or id}"
    exists = fs.exists(group)
    if clos and not exists and not lines(wanted):
        detail = "there is no such class, and no schema to make it with"
        raise SysError(f"{POINTER}/closID", "", ENOENT, value=clos, detail=detail)
    made = []
    if wanted.get("enableMonitoring"):
        made.append(f"{group}/mon_groups/{id}")
    if not clos and not exists:
        made.append(group)
    return {"root": root, "group": group, "made": made}


def lines(wanted: IntelRdt) -> list[tuple[str, str]]:
    """(JSON pointer, line) for each line of the schemata file, in the required order: l3,
    bandwidth, rest."""
    found = []
    name: Literal["l3CacheSchema", "memBwSchema"]
    for name in ("l3CacheSchema", "memBwSchema"):
        found += [(f"{POINTER}/{name}", line) for line in wanted.get(name, "").split("\n") if line.strip()]
    for index, line in enumerate(wanted.get("schemata", ())):
        found.append((f"{POINTER}/schemata/{index}", line))
    return found


def apply(wanted: IntelRdt, record: Record, pid: int) -> None:
    """Create the groups, write the schemata, add the process. Raises SysError, PyruncError.

    `remove` undoes a partial result, including a named class if this call created it.
    """
    group = record["group"]
    fresh = _make(group, record)
    if fresh and group not in record["made"]:
        record["new_class"] = group
    schema = lines(wanted)
    if not fresh and wanted.get("closID"):
        # Other processes may use it: its schemata must equal the requested ones, and only
        # `schemata` may change them.
        compare(group, [entry for entry in schema if not entry[0].startswith(f"{POINTER}/schemata/")])
        schema = [entry for entry in schema if entry[0].startswith(f"{POINTER}/schemata/")]
    write_schemata(record, schema)
    join(record, pid)
    if wanted.get("enableMonitoring"):
        monitor = record["made"][0]
        try:
            posix.mkdir(monitor, 0o755)
        except OSError as error:
            if error.errno == EEXIST:
                record["made"].remove(monitor)
            raise _unmade("enableMonitoring", monitor, error) from error
        _write(f"{monitor}/tasks", str(pid), f"{POINTER}/enableMonitoring")


def _make(group: str, record: Record) -> bool:
    """Create a group; returns whether it is new."""
    if fs.exists(group):
        if group in record["made"]:  # another process has created it since `plan`
            record["made"].remove(group)
        return False
    try:
        posix.mkdir(group, 0o755)
    except OSError as error:
        raise _unmade("closID", group, error) from error
    return True


def _unmade(field: str, path: str, error: OSError) -> SysError:
    """The error for a group that cannot be created."""
    hint = _GROUPS if error.errno == ENOSPC else ""
    return SysError(f"{POINTER}/{field}", "mkdir", error.errno or 0, value=path, hint=hint)


def join(record: Record, pid: int) -> None:
    """Add a process to the container's groups (`exec`). Raises SysError."""
    _write(f"{record['group']}/tasks", str(pid), POINTER)


def write_schemata(record: Record, wanted: list[tuple[str, str]]) -> None:
    """Write lines, each with the pointer it came from, to the container's class. Raises
    SysError."""
    for pointer, line in wanted:
        _write(f"{record['group']}/schemata", line + "\n", pointer)


def schemata(group: str) -> str:
    """The text of a group's schemata file; `update` writes it back if it fails."""
    return fs.read_file(f"{group}/schemata", 65536).decode("ascii", "replace")


def compare(group: str, wanted: list[tuple[str, str]]) -> None:
    """Raises PyruncError for a line whose values differ from the class's, compared as numbers."""
    if not wanted:
        return
    text = schemata(group)
    have: dict[str, dict[str, int]] = {}
    for line in text.splitlines():
        name, values = parse(line)
        have[name] = values
    for pointer, line in wanted:
        name, values = parse(line)
        there = have.get(name, {})
        if not values or any(there.get(domain) != value for domain, value in values.items()):
            now = next((item.strip() for item in text.splitlines() if parse(item)[0] == name), "nothing")
            raise PyruncError(f"{pointer}: the class {group} exists with {now}, not with {line.strip()}")


def parse(line: str) -> tuple[str, dict[str, int]]:
    """``L3:0=7f0;1=1f`` -> ("L3", {"0": 0x7f0, "1": 0x1f}); bandwidths are decimal. Malformed text
    has no values."""
    name, _, rest = line.strip().partition(":")
    values = {}
    for part in rest.split(";"):
        domain, _, value = part.strip().partition("=")
        try:
            values[domain.strip()] = int(value.strip(), 10 if name == "MB" else 16)
        except ValueError:
            return name, {}
    return name, values


def remove(record: Record) -> None:
    """Remove the groups that were created for this container; its processes are gone. Raises
    SysError."""
    for path in record["made"]:
        try:
            posix.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise SysError(POINTER, "rmdir", error.errno or 0, value=path) from error


def undo(record: Record) -> None:
    """`remove` after a failed create: also removes a named class that it created, unless others use
    it."""
    remove(record)
    group = record.get("new_class")
    if group:
        pids = fs.read_file(f"{group}/tasks", 65536).split()
        if not [pid for pid in pids if fs.exists(f"/proc/{int(pid)}")]:
            posix.rmdir(group)


def _write(path: str, text: str, pointer: str) -> None:
    """Write with one write(2), which the kernel accepts or refuses as a whole."""
    try:
        fd = posix.open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW)
        try:
            posix.write(fd, text.encode("ascii", "backslashreplace"))
        finally:
            posix.close(fd)
    except OSError as error:
        hint = _SCHEMATA if path.endswith("/schemata") else ""
        value = text.strip()
        raise SysError(pointer, "write", error.errno or 0, value=value, hint=hint).within(path) from error
