"""Sysctls, limits of the kernel and of the caller, and their current use."""

from __future__ import annotations

import resource
from collections.abc import Callable
from shlex import quote

from pyrunc.doctor.findings import Area
from pyrunc.doctor.machine import Machine

NEAR = 0.9  # of a limit
FEW_FILES = 1024
FEW_PROCESSES = 1024
FEW_WATCHES = 128  # the kernel's default of max_user_instances


def check(machine: Machine) -> list[Area]:
    """Sysctls, usage, rlimits, and the limits of the caller's cgroup."""
    area = Area("limits")
    for name in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"):
        forbidden(machine, area, name)
    memfd(machine, area)
    forwarding(machine, area)
    for look in (processes, files, mounts, keys, terminals):
        filled(machine, area, look)
    watches(machine, area)
    rlimits(machine, area)
    own_cgroup(machine, area)
    hidden_processes(machine, area)
    return [area]


def forbidden(machine: Machine, area: Area, kind: str) -> None:
    """A limit of 0 on a type of namespace; the probes report other obstacles."""
    name = f"user.max_{kind}_namespaces"
    if machine.number("/proc/sys/" + name.replace(".", "/")) == 0:
        means = f"no {kind} namespace can be created, not even by root"
        area.problem("namespaces", f"{name} is 0", means, f"sysctl -w {name}=10000")


def memfd(machine: Machine, area: Area) -> None:
    """vm.memfd_noexec=2: init is then executed from a private mount, which needs root."""
    value = machine.number("/proc/sys/vm/memfd_noexec")
    if value != 2:
        area.ok("memfd", "memfds can be executed")
    elif machine.euid == 0:
        area.ok("memfd", "vm.memfd_noexec is 2; root does not need memfds")
    else:
        means = "this user cannot run containers: init is executed from a memfd"
        area.problem("memfd", "vm.memfd_noexec is 2", means, "sysctl -w vm.memfd_noexec=1")


def forwarding(machine: Machine, area: Area) -> None:
    """Sysctls for the bridges of engines; pyrunc itself creates no networks."""
    if machine.number("/proc/sys/net/ipv4/ip_forward") == 0:
        means = "containers behind an engine bridge cannot reach any network; engines usually set it"
        area.note("forwarding", "net.ipv4.ip_forward is 0", means, "sysctl -w net.ipv4.ip_forward=1")


# -- usage: (check, used, limit, effect of reaching the limit, fix), or None if it is unknown
# ---------

Use = tuple[str, int, int, str, str]


def filled(machine: Machine, area: Area, look: Callable[[Machine], Use | None]) -> None:
    """A kernel table that is nearly full."""
    found = look(machine)
    if found is None:
        return
    check, used, limit, means, mend = found
    seen = f"{used} of {limit}"
    if used >= limit:
        area.problem(check, seen, means, mend)
    elif used >= NEAR * limit:
        area.note(check, seen, f"soon {means}", mend)
    else:
        area.ok(check, seen)


def processes(machine: Machine) -> Use | None:
    """Threads, compared with kernel.pid_max and kernel.threads-max."""
    fields = machine.text("/proc/loadavg", 256).split()
    limits = [machine.number(f"/proc/sys/kernel/{name}") for name in ("pid_max", "threads-max")]
    known = [limit for limit in limits if limit]
    if len(fields) < 4 or not fields[3].rpartition("/")[2].isdecimal() or not known:
        return None
    limit = min(known)
    name = "pid_max" if limit == limits[0] else "threads-max"
    mend = f"sysctl -w kernel.{name}={limit * 4}"
    return "processes", int(fields[3].rpartition("/")[2]), limit, "no process can be started (EAGAIN)", mend


def files(machine: Machine) -> Use | None:
    """Open files, compared with fs.file-max."""
    fields = machine.text("/proc/sys/fs/file-nr", 256).split()
    if len(fields) != 3 or not all(field.isdecimal() for field in fields):
        return None
    limit = int(fields[2])
    return "files", int(fields[0]), limit, "no file can be opened (ENFILE)", f"sysctl -w fs.file-max={limit * 2}"


def mounts(machine: Machine) -> Use | None:
    """Mounts in the caller's namespace, compared with fs.mount-max."""
    limit = machine.number("/proc/sys/fs/mount-max")
    if not limit:
        return None
    return (
        "mounts",
        len(machine.mounts()),
        limit,
        "no mount can be created (ENOSPC)",
        f"sysctl -w fs.mount-max={limit * 2}",
    )


def keys(machine: Machine) -> Use | None:
    """Keys of the caller; each container has a session keyring (keyrings(7))."""
    limit = machine.number(f"/proc/sys/kernel/keys/{'root_maxkeys' if machine.uid == 0 else 'maxkeys'}")
    for line in machine.text("/proc/key-users", 65536).split("\n"):
        uid, _, rest = line.partition(":")
        fields = rest.split()
        if uid.strip() == str(machine.uid) and limit and len(fields) > 2:
            used = fields[2].partition("/")[0]
            name = "root_maxkeys" if machine.uid == 0 else "maxkeys"
            means = "create fails at the session keyring (EDQUOT); --no-new-keyring avoids it"
            return (
                "keys",
                int(used) if used.isdecimal() else 0,
                limit,
                means,
                f"sysctl -w kernel.keys.{name}={limit * 10}",
            )
    return None


def terminals(machine: Machine) -> Use | None:
    """Pseudo-terminals, compared with kernel.pty.max."""
    used, limit = (machine.number(f"/proc/sys/kernel/pty/{name}") for name in ("nr", "max"))
    if used is None or not limit:
        return None
    return "terminals", used, limit, "containers with a terminal fail (ENOSPC)", f"sysctl -w kernel.pty.max={limit * 2}"


# -- limits ----------------------------------------------------------------------------------------


def watches(machine: Machine, area: Area) -> None:
    """inotify instances are counted per user, and containers without a user namespace share one
    user."""
    instances = machine.number("/proc/sys/fs/inotify/max_user_instances")
    if instances is None:
        return
    if instances <= FEW_WATCHES:
        means = "containers of one user share them: on a host with many, programs that watch files fail with EMFILE"
        mend = "sysctl -w fs.inotify.max_user_instances=8192"
        area.note("inotify", f"fs.inotify.max_user_instances is {instances}", means, mend)
    else:
        area.ok("inotify", f"fs.inotify.max_user_instances is {instances}")


def rlimits(machine: Machine, area: Area) -> None:
    """The caller's limits, which containers without /process/rlimits inherit."""
    for check, number, few in (
        ("rlimit-nofile", resource.RLIMIT_NOFILE, FEW_FILES),
        ("rlimit-nproc", resource.RLIMIT_NPROC, FEW_PROCESSES),
    ):
        soft, hard = machine.rlimit(number)
        seen = f"soft {limit_text(soft)}, hard {limit_text(hard)}"
        if 0 <= hard < few:
            letter = "n" if number == resource.RLIMIT_NOFILE else "u"
            area.note(
                check,
                seen,
                "containers inherit it",
                f"ulimit -H{letter} {few * 16}; or in a unit: Limit{check[7:].upper()}=",
            )
        else:
            area.ok(check, seen)


def limit_text(value: int) -> str:
    """A limit in the notation of ulimit(1)."""
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def own_cgroup(machine: Machine, area: Area) -> None:
    """pids.max and memory of the caller's cgroup, which spawning init counts against."""
    place = machine.facts.cgroup_dir(machine.facts.own_cgroup) if machine.facts.cgroup2_mount else ""
    for file, used, check, means in (
        ("pids.max", "pids.current", "cgroup-pids", "pyrunc cannot start a process (EAGAIN)"),
        ("memory.max", "memory.current", "cgroup-memory", "pyrunc may be killed for lack of memory"),
    ):
        limit, now = (machine.number(f"{place}/{name}") for name in (file, used)) if place else (None, None)
        if limit is not None and now is not None:
            mend = f"echo max > {quote(f'{place}/{file}')}"
            filled(machine, area, lambda _, use=(check, now, limit, means, mend): use)  # type: ignore[misc]


def hidden_processes(machine: Machine, area: Area) -> None:
    """/proc with hidepid, or partly covered by mounts: a user namespace then cannot mount a new
    one."""
    covered = []
    for fields in machine.mounts():
        if fields[4] == "/proc":
            options = fields[-1].split(",") + fields[5].split(",")
            hide = next((option for option in options if option.startswith("hidepid=")), "hidepid=0")
            if machine.euid != 0 and hide not in ("hidepid=0", "hidepid=off"):
                means = "the processes of other users are hidden: their leftovers are not found"
                area.note("proc", f"/proc is mounted with {hide}", means)
        elif fields[4].startswith("/proc/") and fields[4] != "/proc/sys/fs/binfmt_misc":
            covered.append(fields[4])
    if covered and not machine.privileged:
        means = "the kernel lets no user namespace mount a procfs while parts of this one are covered (EPERM)"
        mend = "run the outer container with unmasked paths: podman run --security-opt unmask=ALL"
        area.problem("proc", f"mounts over {', '.join(covered[:4])}", means, mend)
