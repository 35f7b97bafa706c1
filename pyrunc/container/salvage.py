"""Recover the resources of a container with a damaged state.json, for `delete --force`.

Sources, best first: intent.json; the cgroup of the first process, found by pid and start time in
the damaged files or as the process that waits for `start`; a cgroup in the damaged files; the
cgroupsPath of config.json.  If nothing is known, the container is kept: its processes may be alive.
"""

from __future__ import annotations

import posix
from posix import O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK, O_WRONLY

from pyrunc import cgroup, fs, host, jsontext, procfs
from pyrunc.errors import Damaged, PyruncError, SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.host import HostFacts
    from pyrunc.state import Container
    from pyrunc.state.document import Process

    Clues = dict[str, Any]  # members of a damaged state, with the types of _KINDS

# Names that `create` may create before it saves its first state.
_FIRST = frozenset((".state.json.tmp", "notify"))
_KINDS = (("pid", int), ("starttime", int), ("bootid", str), ("cgroup", str), ("cgroup_made", list))
_WALK_SECONDS = 10.0


def recover(container: Container) -> None:
    """Fill ``container.data`` with the resources to remove.

    Raises Damaged if they are unknown, SysError or MemoryError if they cannot be determined now.
    """
    container.data = {"id": container.id, "status": "running", "pid": 0, "cgroup": ""}
    if _FIRST.issuperset(fs.names(container.dir)):
        return
    found: list[Clues] = []
    for name in ("state.json", "intent.json"):
        try:
            container.data = container.read(name)
            return
        except (ValueError, FileNotFoundError):
            found.append(clues(content(container, name)))
        except OSError as error:
            raise SysError(f"{container.dir}/{name}", "read", error.errno or 0) from error
    if any(earlier_boot(clue) for clue in found):
        return
    facts = host.snapshot()
    process = first_process(container, found)
    if process is not None:
        container.data |= {"pid": process["pid"], "starttime": process["starttime"]}
    path = choose(container, found, facts)
    container.data |= {"cgroup": path, "cgroup_made": made(path, found) if path else []}
    if not path:
        check_alone(container, found)


def keep(container: Container) -> None:
    """Save the recovered state, because its sources may be gone if this `delete` is killed."""
    try:
        container.save()
    except PyruncError:
        pass  # for example a full disk, or a directory of that name


def content(container: Container, name: str) -> bytes:
    """The content of a file in the state directory, b"" if there is none.  Raises SysError."""
    try:
        return container.read_bytes(name)
    except (ValueError, FileNotFoundError):
        return b""
    except OSError as error:
        raise SysError(f"{container.dir}/{name}", "read", error.errno or 0) from error


def clues(text: bytes) -> Clues:
    """The members of a damaged state that have the right type.

    In a file that is no longer JSON, they are adjacent and before any free text, because
    `Container.reserve` writes them in this order.
    """
    data = parsed(text)
    if type(data) is not dict:
        start = text.find(b'"pid":')
        end = text.find(b',"runtime":', start)
        data = parsed(b"{" + text[start:end] + b"}") if 0 <= start < end else None
    return {key: data[key] for key, kind in _KINDS if type(data.get(key)) is kind} if type(data) is dict else {}


def parsed(text: bytes) -> object:
    """A parsed JSON document, or None."""
    try:
        return jsontext.loads(text)
    except ValueError:
        return None


def earlier_boot(clue: Clues) -> bool:
    """Whether the container is from an earlier boot, so that it has no processes or cgroups."""
    return bool(clue.get("bootid")) and clue["bootid"] != procfs.boot_id()


# -- its processes ---------------------------------------------------------------------------------


def first_process(container: Container, found: list[Clues]) -> Process | None:
    """Pid and start time of the container's first process, or None if it is not alive."""
    for clue in found:
        # A start time identifies a process only within a boot.
        if clue.get("bootid") and procfs.alive(clue.get("pid"), clue.get("starttime")):
            return {"pid": clue["pid"], "starttime": clue["starttime"]}
    pid = waiting_process(container)
    return {"pid": pid, "starttime": procfs.process_stat(pid)[1]} if pid else None


def waiting_process(container: Container) -> int:
    """The pid of the process that waits for `start`, or 0: only this process has the fifo open."""
    try:
        fd = posix.open(container.fifo("start"), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW)
    except OSError as error:
        if fs.is_inconclusive(error):
            raise
        return 0
    try:
        fifo = posix.fstat(fd)
        own = posix.getpid()
        for pid in procfs.processes():
            if pid != own and has_open(pid, fifo):
                return pid
    finally:
        posix.close(fd)
    return 0


def has_open(pid: int, file: posix.stat_result) -> bool:
    """Whether a process has a file open; False if it has ended or belongs to another user."""
    try:
        descriptors = fs.names(f"/proc/{pid}/fd")
    except OSError as error:
        if fs.is_inconclusive(error):
            raise
        return False
    for fd in descriptors:
        try:
            found = posix.stat(f"/proc/{pid}/fd/{fd}")
        except OSError as error:
            if fs.is_inconclusive(error):
                raise
            continue
        if (found.st_ino, found.st_dev) == (file.st_ino, file.st_dev):
            return True
    return False


# -- its cgroup ------------------------------------------------------------------------------------


def choose(container: Container, found: list[Clues], facts: HostFacts) -> str:
    """The container's cgroup: the first candidate that exists, or "".

    If neither a candidate nor a process exists, it is the first candidate; a rootless container may
    have had no cgroup.
    """
    pid = container.data["pid"]
    candidates: list[str] = [
        *(clue["cgroup"] for clue in found if clue.get("cgroup")),
        cgroup_of(pid, facts) if pid else "",
        asked_for(container, facts),
    ]
    candidates = [path for path in candidates if is_possible(path, facts)]
    for path in candidates:
        if fs.exists(facts.cgroup_dir(path)):
            return path
    return candidates[0] if candidates and not pid and not facts.rootless else ""


def made(path: str, found: list[Clues]) -> list[str]:
    """The cgroups that `create` has created, including the container's."""
    for clue in found:
        listed: list[str] = clue.get("cgroup_made", [])
        if path in listed and all(type(above) is str and (path + "/").startswith(above + "/") for above in listed):
            return listed
    return [path]


def is_possible(path: str, facts: HostFacts) -> bool:
    """Whether a path can be a container's cgroup: not the root, and not one that contains us."""
    if not path.startswith("/") or path != fs.normpath(path) or "\0" in path or path in ("/", facts.cgroup2_root):
        return False
    return bool(facts.cgroup2_mount) and not (facts.own_cgroup + "/").startswith(path + "/")


def cgroup_of(pid: int, facts: HostFacts) -> str:
    """The cgroup of a process, or "" if it has processes of other pid namespaces."""
    from pyrunc.cgroup import tree

    path = host.own_cgroup(host.read(f"/proc/{pid}/cgroup", strict=True))
    if not is_possible(path, facts):
        return ""
    theirs = procfs.pid_namespace(pid)
    shared = theirs == procfs.pid_namespace("self")
    members = tree.members(facts.cgroup_dir(path), _WALK_SECONDS)
    alone = all(member == pid or (not shared and procfs.pid_namespace(member) == theirs) for member in members)
    return path if alone else ""


def asked_for(container: Container, facts: HostFacts) -> str:
    """The cgroup of config.json, or "" if its path is relative to the cgroup of `create`."""
    try:
        config = jsontext.loads(content(container, "config.json"))
        path, annotations = config["linux"]["cgroupsPath"], config.get("annotations") or {}
        if path[:1] == "/":
            return cgroup.path_for(path, container.id, facts, "cgroupfs")
        return cgroup.path_for(path, container.id, facts, "systemd", annotations) if path.count(":") == 2 else ""
    except (ValueError, TypeError, LookupError, AttributeError):
        return ""
    except SysError:
        raise
    except PyruncError:  # a path that no driver accepts
        return ""


def check_alone(container: Container, found: list[Clues]) -> None:
    """Raises Damaged unless the container needs no cgroup: its processes end with the first."""
    pid = container.data["pid"]
    if pid and procfs.first_in_namespace(pid):
        return
    # The state says: no cgroup (--cgroup-manager disabled), and the first process has ended.
    if not pid and any(clue.get("cgroup") == "" and clue.get("pid", 0) > 0 and "starttime" in clue for clue in found):
        return
    why = f"process {pid} shares its cgroup and its pid namespace" if pid else "nothing says which cgroup it has"
    raise Damaged(
        f"the state of container {container.id} is damaged, and {why}: make sure that its processes have ended,"
        f" then remove {container.dir}"
    )
