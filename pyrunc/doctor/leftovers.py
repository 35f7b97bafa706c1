"""Leftovers of containers: incomplete states, processes and cgroups, each with the command that
removes it.

All names may come from other users, and there may be thousands of each. So names are quoted, and a
search ends after `SECONDS`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from shlex import quote

from pyrunc import jsontext, state
from pyrunc.doctor.findings import Area
from pyrunc.doctor.machine import Machine
from pyrunc.errors import PyruncError, StateError, show
from pyrunc.native import bpf

SECONDS = 0.05  # CPU time of each search
CGROUPS_MOST = 5000
OLD = 10.0  # seconds after which a process of init cannot belong to a create in progress
INIT = "pyrunc-init"
PROGRAM = "pyrunc_devices"  # the name of the device program (native/shim/bpf.c)
# Where engines keep the state of their runtimes.
OTHER_ROOTS = (
    "/run/containerd/runc",
    "/run/docker/runtime-pyrunc",
    "/run/docker/runtime-runc",
    "/run/docker/containerd",
)


class Known:
    """The cgroups of all containers that have a state."""

    def __init__(self) -> None:
        self.cgroups: set[str] = set()
        self.complete = True


def check(machine: Machine) -> list[Area]:
    """States come first: they identify the owners of processes and cgroups."""
    area = Area("leftovers")
    known = Known()
    try:
        root = state.root_dir(machine.root_option)
    except PyruncError:
        root = ""  # `storage` reports it
    if root:
        states(machine, area, root, known)
    other_roots(machine, root, known)
    processes(machine, area)
    if machine.facts.cgroup2_mount:
        cgroups(machine, area, known)
    if not area.findings:
        area.ok("leftovers", "none")
    return [area]


# -- states ----------------------------------------------------------------------------------------


def states(machine: Machine, area: Area, root: str, known: Known) -> None:
    """Every directory of the state root."""
    store = state.Store(root)
    try:
        if not store.exists():
            return
    except PyruncError:
        return  # `storage` reports it
    try:
        names = sorted(os.listdir(store.fd))
        end = time.process_time() + SECONDS
        for index, name in enumerate(names):
            if time.process_time() > end:
                known.complete = False
                seen = f"the first {index} of {len(names)} entries of {root}"
                area.note("states", seen, "the others were not checked, to be done in time", command(machine, "list"))
                break
            one_state(machine, area, state.Container(store, name), known)
    finally:
        os.close(store.fd)
        store.fd = -1


def command(machine: Machine, *words: str) -> str:
    """A command line of this pyrunc with the same state root."""
    root = ["--root", machine.root_option] if machine.root_option else []
    return " ".join(quote(word) for word in (machine.program, *root, *words))


def one_state(machine: Machine, area: Area, container: state.Container, known: Known) -> None:
    """Read a directory, and check whether the container is complete."""
    id = container.id
    try:
        state.check_id(id)
    except StateError:
        stray(area, container)
        return
    try:
        container.load()
    except state.NotFound:
        return
    except StateError as error:
        if container.abandoned():
            area.problem(
                "states", str(error), "the container cannot be used", command(machine, "delete", "--force", id)
            )
        return
    known.cgroups.add(container.data["cgroup"])
    judge(machine, area, container)


def stray(area: Area, container: state.Container) -> None:
    """An object that pyrunc does not create."""
    try:
        inode = os.stat(container.id, dir_fd=container.root.fd, follow_symlinks=False).st_ino
    except OSError:
        return
    path = f"{container.root.root}/{container.id}"
    mend = f"rm -r {quote(path)}"
    if not path.isprintable():  # it cannot be typed
        mend = f"find {quote(container.root.root)} -maxdepth 1 -inum {inode} -exec rm -r {{}} +"
    area.note(
        "states", f"{show(container.id)} in {container.root.root} is not a container's", "pyrunc ignores it", mend
    )


def judge(machine: Machine, area: Area, container: state.Container) -> None:
    """A readable state whose container is partly or completely gone."""
    id, data = container.id, container.data
    remove = command(machine, "delete", "--force", id)
    if not container.this_boot():
        area.note("states", f"{id} is from before the last boot", "only its id is taken", remove)
    elif data["status"] == "creating":
        if not container.creating():
            area.problem(
                "states", f"{id} was only partly created when its pyrunc was killed", "its id is taken", remove
            )
    elif not container.init_alive():
        if populated(data.get("cgroup_dir", "")):
            means = "its first process has ended, but others still run in its cgroup"
            area.problem("processes", f"{id} has processes in cgroup {data['cgroup']}", means, remove)
        else:
            area.note(
                "states", f"{id} is stopped", "it waits for its caller to delete it", command(machine, "delete", id)
            )


def populated(directory: str) -> bool:
    """Whether a cgroup directory has processes in it or below."""
    try:
        with open(directory + "/cgroup.events", encoding="ascii") as file:
            return "populated 1\n" in file.read(4096)
    except (OSError, ValueError):
        return False


def other_roots(machine: Machine, root: str, known: Known) -> None:
    """The cgroups of containers in engines' state roots, which are not leftovers."""
    end = time.process_time() + SECONDS
    places = ["/run/pyrunc", f"/run/user/{machine.uid}/pyrunc"]
    for top in OTHER_ROOTS:
        places += [f"{top}/{name}" for name in machine.names(top, 100)]
    for place in places:
        if place == root:
            continue
        for name in machine.names(place):
            if time.process_time() > end:
                known.complete = False
                return
            try:
                found = jsontext.loads(machine.text(f"{place}/{name}/state.json").encode("utf-8", "surrogateescape"))
            except ValueError:
                continue
            if type(found) is dict and type(found.get("cgroup")) is str:
                known.cgroups.add(found["cgroup"])


# -- processes -------------------------------------------------------------------------------------


def processes(machine: Machine, area: Area) -> None:
    """Processes of init whose container's state is gone; no command will start or end them."""
    end = time.process_time() + SECONDS
    for name in machine.names("/proc", 1 << 20):
        if time.process_time() > end:
            area.note(
                "processes", f"those up to {name}", "the others were not checked, to be done in time", f"pgrep {INIT}"
            )
            return
        if not name.isdecimal() or machine.text(f"/proc/{name}/comm", 64) != INIT + "\n":
            continue
        pid = int(name)
        if is_init(machine, pid) and age(machine, pid) > OLD and orphaned(machine, pid):
            means = "it belongs to a container whose state is gone, and waits forever"
            area.problem("processes", f"process {pid} ({INIT})", means, f"kill -KILL {pid}")


def is_init(machine: Machine, pid: int) -> bool:
    """Whether it executes pyrunc's memfd; any process can take the name."""
    try:
        return INIT in os.readlink(machine.place(f"/proc/{pid}/exe"))
    except OSError:
        return False


def age(machine: Machine, pid: int) -> float:
    """Seconds since a process started; 0 if it is gone."""
    uptime = machine.text("/proc/uptime", 64).split()
    fields = machine.text(f"/proc/{pid}/stat", 4096).rpartition(")")[2].split()
    if not uptime or len(fields) < 20:
        return 0.0
    return float(uptime[0]) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def orphaned(machine: Machine, pid: int) -> bool:
    """Whether the start fifo that a process waits on was removed. Without a fifo, a runtime is
    still setting it up."""
    place = machine.place(f"/proc/{pid}/fd")
    try:
        descriptors = os.listdir(place)[:64]
    except OSError:
        return False
    links = []
    for descriptor in descriptors:
        try:
            links.append(os.readlink(f"{place}/{descriptor}"))
        except OSError:
            continue
    return any(link.endswith(("/start (deleted)", "/error (deleted)")) for link in links)


# -- cgroups ---------------------------------------------------------------------------------------


def cgroups(machine: Machine, area: Area, known: Known) -> None:
    """Cgroups that pyrunc created, without processes and without a container."""
    if not known.complete:
        area.note("cgroups", "not checked", "not all states were read, so their owners are unknown")
        return
    end = time.process_time() + SECONDS
    top = machine.facts.cgroup2_root.rstrip("/")
    mount = machine.place(machine.facts.cgroup2_mount)
    for count, directory in enumerate(walk(mount)):
        if count >= CGROUPS_MOST or time.process_time() > end:
            area.note("cgroups", f"the first {count}", "the others were not checked, to be done in time")
            return
        path = top + directory[len(mount) :]
        if path in known.cgroups or populated(directory) or not is_pyruncs(directory):
            continue
        means = "no known container owns it; rmdir refuses a cgroup in use"
        area.note("cgroups", f"{path} is empty", means, f"rmdir {quote(directory)}")


def walk(top: str) -> Iterator[str]:
    """The directories below, breadth first, because containers are near the top."""
    todo = [top]
    for directory in todo:
        try:
            with os.scandir(directory) as entries:
                below = sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
        except OSError:
            continue
        yield from below
        if len(todo) < CGROUPS_MOST:
            todo += below


def is_pyruncs(directory: str) -> bool:
    """Whether a cgroup has pyrunc's device program, or is a scope of pyrunc."""
    name = directory.rpartition("/")[2]
    if name.startswith("pyrunc-") and name.endswith(".scope"):
        return True
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return PROGRAM in programs(fd)
    finally:
        os.close(fd)


def programs(cgroup: int) -> list[str]:
    """The names of the device programs attached to a cgroup; [] if the caller may not query
    them."""
    try:
        numbers = bpf.attached(cgroup, 16)
    except OSError:
        return []
    out: list[str] = []
    for number in numbers:
        try:
            fd = bpf.open_program(number)
        except OSError:
            continue  # it no longer exists
        try:
            out.append(bpf.name(fd))
        except OSError:
            pass  # it has no name that the caller may see
        finally:
            os.close(fd)
    return out
