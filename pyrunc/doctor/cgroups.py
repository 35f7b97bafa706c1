"""The cgroup hierarchy, its controllers, delegation to the caller; systemd and its bus."""

from __future__ import annotations

import os
import socket
from shlex import quote

from pyrunc import fs
from pyrunc.cgroup import bus
from pyrunc.doctor.findings import PROBLEM, Area
from pyrunc.doctor.machine import Machine

# controller -> the fields of linux.resources that are refused without it
CONTROLLERS = {
    "cpu": "cpu", "cpuset": "cpu.cpus and cpu.mems", "io": "blockIO", "memory": "memory", "pids": "pids",
    "hugetlb": "hugepageLimits", "rdma": "rdma",
}  # fmt: skip
EXPECTED = ("cpu", "cpuset", "io", "memory", "pids")  # engines set limits for these
CONNECT_SECONDS = 0.1
_DROP_IN = "/etc/systemd/system/user@.service.d"
_DELEGATION = "systemd-run --user --scope -p Delegate=yes pyrunc ..."


def check(machine: Machine) -> list[Area]:
    """Hierarchy and systemd."""
    cgroups, systemd = Area("cgroups"), Area("systemd")
    if hierarchy(machine, cgroups):
        controllers(machine, cgroups)
        if cgroups.findings[0].status != PROBLEM:
            delegation(machine, cgroups)
        files(machine, cgroups)
    manager(machine, systemd)
    return [cgroups, systemd]


def hierarchy(machine: Machine, area: Area) -> bool:
    """The mount point of the unified hierarchy; False without one."""
    facts = machine.facts
    if not facts.cgroup2_mount:
        means = "only containers without limits can run, with --cgroup-manager disabled"
        area.problem("hierarchy", "no cgroup v2 is mounted", means, "mount -t cgroup2 none /sys/fs/cgroup")
        return False
    fields = next((line for line in machine.mounts() if line[4] == facts.cgroup2_mount and "cgroup2" in line), [])
    read_only = len(fields) > 5 and "ro" in fields[5].split(",")
    if read_only:
        means = "cgroups cannot be created: this is the mount of a container"
        area.problem(
            "hierarchy", f"{facts.cgroup2_mount} is read-only", means, "start the container with a writable one"
        )
    elif facts.hybrid:
        means = "controllers that cgroup v1 has cannot be used: limits for them are refused"
        mend = "boot with systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1=all on the kernel's command line"
        area.note("hierarchy", f"hybrid: cgroup v2 at {facts.cgroup2_mount}", means, mend)
    else:
        area.ok("hierarchy", f"cgroup v2 at {facts.cgroup2_mount}, the caller is in {facts.own_cgroup}")
    return True


def parent(machine: Machine) -> str:
    """The cgroup in which a container without linux.cgroupsPath is created
    (pyrunc.cgroup.path_for)."""
    facts = machine.facts
    top = facts.cgroup2_root.rstrip("/")
    above = facts.own_cgroup.rpartition("/")[0]
    return above if above.startswith(top + "/") else top or "/"


def words(machine: Machine, path: str, file: str) -> list[str]:
    """The content of a cgroup file, split at blanks."""
    return machine.text(f"{machine.facts.cgroup_dir(path)}/{file}", 65536).split()


def controllers(machine: Machine, area: Area) -> None:
    """The controllers at the top of the hierarchy, and those that v1 has."""
    top = machine.facts.cgroup2_root or "/"
    offered = words(machine, top, "cgroup.controllers")
    bound = bound_to_v1(machine)
    missing = [name for name in EXPECTED if name not in offered]
    if not missing:
        area.ok("controllers", " ".join(offered))
        return
    seen = f"{' '.join(offered) or 'none'}; not {' '.join(missing)}"
    fields = ", ".join(f"/linux/resources/{CONTROLLERS[name]}" for name in missing)
    taken = [name for name in missing if name in bound]
    means = f"{fields} are refused"
    mend = ""
    if taken:
        means += f"; cgroup v1 has {' '.join(taken)}"
        mend = f"boot with cgroup_no_v1={','.join(taken)} on the kernel's command line"
    elif machine.exists(f"{machine.facts.cgroup_dir(top)}/cgroup.events"):  # the real top lacks this file
        means += "; the cgroup above this one does not pass them on"
        mend = f"on the host, in that cgroup: echo {' '.join('+' + name for name in missing)} > cgroup.subtree_control"
    area.note("controllers", seen, means, mend)


def bound_to_v1(machine: Machine) -> set[str]:
    """The controllers in a v1 hierarchy: those in /proc/cgroups with a hierarchy other than 0."""
    rows = [line.split() for line in machine.text("/proc/cgroups").split("\n") if line[:1] not in ("#", "")]
    found = {row[0] for row in rows if len(row) > 1 and row[1] != "0"}
    return {"io" if name == "blkio" else name for name in found}


def delegation(machine: Machine, area: Area) -> None:
    """Whether the caller may create cgroups at the containers' place and enable controllers
    there."""
    place = parent(machine)
    directory = machine.facts.cgroup_dir(place)
    needed = [directory, f"{directory}/cgroup.procs", f"{directory}/cgroup.subtree_control"]
    denied = [path for path in needed if not machine.access(path, os.W_OK)]
    if denied:
        means = "a container cannot have a cgroup of its own, and no limits"
        report = area.note if machine.facts.rootless else area.problem
        mend = _DELEGATION if machine.facts.rootless else f"mount -o remount,rw {quote(machine.facts.cgroup2_mount)}"
        report("delegation", f"{denied[0]} is not writable", means, mend)
        return
    if not machine.facts.rootless:
        area.ok("delegation", f"containers go below {place}")
        return
    offered = words(machine, place, "cgroup.controllers")
    missing = [name for name in ("cpu", "memory", "pids") if name not in offered]
    if missing:
        means = f"limits for {' '.join(missing)} are refused"
        lines = r"printf '[Service]\nDelegate=cpu cpuset io memory pids\n'"
        mend = f"mkdir -p {_DROP_IN}; {lines} > {_DROP_IN}/delegate.conf; systemctl daemon-reload"
        area.note("delegation", f"{place} offers {' '.join(offered) or 'no controllers'}", means, mend)
    else:
        area.ok("delegation", f"{place} is delegated, with {' '.join(offered)}")


def files(machine: Machine, area: Area) -> None:
    """Features of newer kernels and options: cgroup.kill, memory.oom.group, swap accounting; the
    size of the tree."""
    place = own_or_child(machine)
    directory = machine.facts.cgroup_dir(place)
    if place in ("", "/"):
        return
    if not machine.exists(f"{directory}/cgroup.kill"):
        means = "`kill --all` and `delete --force` signal one process at a time; cgroup.kill needs Linux 5.14"
        area.note("cgroup-kill", f"{directory} has no cgroup.kill", means)
    else:
        area.ok("cgroup-kill", "cgroup.kill is available")
    if "memory" in words(machine, place, "cgroup.controllers") and machine.exists(f"{directory}/memory.max"):
        if machine.exists(f"{directory}/memory.swap.max"):
            area.ok("swap", "swap is accounted")
        else:
            means = "/linux/resources/memory/swap is refused"
            area.note("swap", "swap is not accounted", means, "boot with swapaccount=1 on the kernel's command line")


def own_or_child(machine: Machine) -> str:
    """A cgroup other than the top, which lacks some files: the caller's own, or any below the
    top, or ""."""
    own = machine.facts.own_cgroup
    if own != "/":
        return own
    top = machine.facts.cgroup_dir("/")
    return next((f"/{name}" for name in machine.names(top, 1000) if machine.exists(f"{top}/{name}/cgroup.events")), "")


# -- systemd ---------------------------------------------------------------------------------------


def manager(machine: Machine, area: Area) -> None:
    """Whether systemd is running, its library is installed, and a bus answers."""
    wanted = machine.manager == "systemd"
    report = area.problem if wanted else area.note
    if not machine.exists("/run/systemd/system"):
        if wanted:
            means = "--systemd-cgroup cannot be used; the cgroupfs driver can"
            area.problem("manager", "systemd is not running here", means, "omit --systemd-cgroup")
        else:
            area.ok("manager", "systemd is not running here; the cgroupfs driver does not need it")
        return
    area.ok("manager", "systemd runs")
    if not library(machine):
        means = "--systemd-cgroup needs libsystemd.so.0"
        report("library", "libsystemd.so.0 is not installed", means, "apt-get install libsystemd0")
    else:
        area.ok("library", "libsystemd.so.0 is installed")
    reach(machine, area, wanted)


def library(machine: Machine) -> bool:
    """Whether the dynamic loader would find libsystemd.so.0 in its usual directories."""
    triplet = {"aarch64": "aarch64-linux-gnu"}.get(machine.facts.arch, "x86_64-linux-gnu")
    places = (f"/usr/lib/{triplet}", f"/lib/{triplet}", "/usr/lib64", "/lib64", "/usr/lib", "/lib")
    return any(machine.exists(f"{place}/libsystemd.so.0") for place in places)


def reach(machine: Machine, area: Area, wanted: bool) -> None:
    """The sockets of the systemd driver, in its order: connect and close."""
    user = machine.facts.rootless
    tried = []
    for address, _ in bus.addresses(user):
        path = address.partition("unix:path=")[2].partition(",")[0]
        if not path:
            continue
        error = connect(machine.place(path))
        if not error:
            area.ok("bus", f"{path} answers")
            return
        tried.append(f"{path}: {error}")
    means = "--systemd-cgroup cannot be used"
    mend = "systemctl start dbus.socket"
    if user:
        mend = "loginctl enable-linger $USER; export XDG_RUNTIME_DIR=/run/user/$(id -u)"
    report = area.problem if wanted else area.note
    report("bus", "; ".join(tried) or "neither XDG_RUNTIME_DIR nor DBUS_SESSION_BUS_ADDRESS is set", means, mend)


def connect(path: str) -> str:
    """Connect to a unix socket and close it; returns "" or the error."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(CONNECT_SECONDS)
        try:
            client.connect(fs.encode(path))
        except TimeoutError:
            return "no answer"
        except OSError as error:
            return error.strerror or str(error)
    return ""
