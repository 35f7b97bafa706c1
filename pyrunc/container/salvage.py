"""What a container may have left whose state.json is not ours: for `delete --force`.

Clues, from the best to the worst: intent.json; a pid and start time in what is left of the texts, or the process that
still waits for `start`, and the cgroup of this very process; a cgroup in the texts; the one that config.json asks for.
A container of which nothing is known stays where it is: to remove it would be to say that its processes are gone.
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

# What a `create` makes before it saves its first state, when nothing else exists yet.
_FIRST = frozenset((".state.json.tmp", "notify"))
_KINDS = (("pid", int), ("starttime", int), ("bootid", str), ("cgroup", str), ("cgroup_made", list))
_WALK_SECONDS = 10.0


def recover(container: Container) -> None:
    """Fill ``container.data`` with what has to be removed.

    Raises Damaged when that cannot be found out, SysError or MemoryError when it cannot be known now.
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
    """Save what was found out: should this `delete` be killed, the next one finds no process that leads to the rest."""
    try:
        container.save()
    except PyruncError:
        pass  # a full disk, a directory in the place of the file


def content(container: Container, name: str) -> bytes:
    """The bytes of one of our files, b"" when there are none.  Raises SysError."""
    try:
        return container.read_bytes(name)
    except (ValueError, FileNotFoundError):
        return b""
    except OSError as error:
        raise SysError(f"{container.dir}/{name}", "read", error.errno or 0) from error


def clues(text: bytes) -> Clues:
    """The members of a damaged state that still have the right type.

    In a text that is not JSON any more, `Container.reserve` has put these next to each other and before all free text.
    """
    data = parsed(text)
    if type(data) is not dict:
        start = text.find(b'"pid":')
        end = text.find(b',"runtime":', start)
        data = parsed(b"{" + text[start:end] + b"}") if 0 <= start < end else None
    return {key: data[key] for key, kind in _KINDS if type(data.get(key)) is kind} if type(data) is dict else {}


def parsed(text: bytes) -> object:
    """A JSON document, None when it is not one."""
    try:
        return jsontext.loads(text)
    except ValueError:
        return None


def earlier_boot(clue: Clues) -> bool:
    """Whether the container is known to be one of an earlier boot: nothing of it is left then."""
    return bool(clue.get("bootid")) and clue["bootid"] != procfs.boot_id()


# -- its processes ------------------------------------------------------------------------------------------------


def first_process(container: Container, found: list[Clues]) -> Process | None:
    """Pid and start time of the container's first process, None unless it is alive."""
    for clue in found:
        # Without the boot a start time proves nothing.
        if clue.get("bootid") and procfs.alive(clue.get("pid"), clue.get("starttime")):
            return {"pid": clue["pid"], "starttime": clue["starttime"]}
    pid = waiting_process(container)
    return {"pid": pid, "starttime": procfs.process_stat(pid)[1]} if pid else None


def waiting_process(container: Container) -> int:
    """The process that waits for `start`, 0 without one: it has the fifo open, which nobody else can."""
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
    """Whether a process has a file open; False when it has ended, or belongs to another user."""
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


# -- its cgroup ---------------------------------------------------------------------------------------------------


def choose(container: Container, found: list[Clues], facts: HostFacts) -> str:
    """The container's cgroup: of the candidates the first that exists, "" without one.

    Where none exists, and no process either, the container had the first one; but a user's may have had none.
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
    """Which cgroups `create` made on the way to the container's; that one for sure."""
    for clue in found:
        listed: list[str] = clue.get("cgroup_made", [])
        if path in listed and all(type(above) is str and (path + "/").startswith(above + "/") for above in listed):
            return listed
    return [path]


def is_possible(path: str, facts: HostFacts) -> bool:
    """Whether a path can be a container's cgroup: neither the top of the hierarchy nor one that we are in ourselves."""
    if not path.startswith("/") or path != fs.normpath(path) or "\0" in path or path in ("/", facts.cgroup2_root):
        return False
    return bool(facts.cgroup2_mount) and not (facts.own_cgroup + "/").startswith(path + "/")


def cgroup_of(pid: int, facts: HostFacts) -> str:
    """The cgroup of a process, "" when others are in it than those of its own pid namespace."""
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
    """The cgroup that config.json asks for; "" when it is relative to what only the caller of `create` knew."""
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
    except PyruncError:  # a path that no driver takes
        return ""


def check_alone(container: Container, found: list[Clues]) -> None:
    """Without a cgroup: Damaged is raised unless all processes are gone, or go with the first one."""
    pid = container.data["pid"]
    if pid and procfs.first_in_namespace(pid):
        return
    # The state of a container without a cgroup (--cgroup-manager disabled) whose first process has ended.
    if not pid and any(clue.get("cgroup") == "" and clue.get("pid", 0) > 0 and "starttime" in clue for clue in found):
        return
    why = f"process {pid} shares its cgroup and its pid namespace" if pid else "nothing says which cgroup it has"
    raise Damaged(
        f"the state of container {container.id} is damaged, and {why}: make sure that its processes have ended,"
        f" then remove {container.dir}"
    )
