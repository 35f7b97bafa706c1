"""Check whether a bundle's config.json can run here: compile it as `plan` does, then compare
with the host."""

from __future__ import annotations

import stat
from shlex import quote

from pyrunc import fs, host, seccomp
from pyrunc.cgroup.cgroupfs import Cgroupfs
from pyrunc.cgroup.resources import limiting
from pyrunc.doctor import cgroups, files, kernel, privileges, users
from pyrunc.doctor.findings import Area
from pyrunc.doctor.machine import Machine, system_error
from pyrunc.errors import ConfigError, PyruncError, show
from pyrunc.launch import create
from pyrunc.plan import Plan
from pyrunc.spec import load
from pyrunc.spec.names import CAPABILITIES, CLONE_FLAGS, RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from pyrunc.spec.types import Config, Linux, Process

NOFILE = RLIMITS.index("RLIMIT_NOFILE")
UNLIMITED = (1 << 64) - 1
REALTIME = ("SCHED_FIFO", "SCHED_RR", "SCHED_DEADLINE")


class Wanted:
    """A config and its compilation."""

    def __init__(self, path: str, config: Config, facts: host.HostFacts, plan: Plan) -> None:
        self.path, self.config, self.facts, self.plan = path, config, facts, plan
        self.process: Process = config.get("process") or {"cwd": "/"}
        self.linux: Linux = config.get("linux", {})
        self.user_namespace = any(entry["type"] == "user" for entry in self.linux.get("namespaces", ()))


def check(machine: Machine, opts: create.CreateOptions) -> list[Area]:
    """Everything that can be checked before a create. Raises load.Unreadable without a
    config.json."""
    area = Area("bundle")
    try:
        wanted = Wanted(fs.abspath(opts.bundle), *create.compile_only(opts))
    except load.Unreadable:
        raise
    except ConfigError as error:
        invalid(area, error)
        return [area]
    except PyruncError as error:
        area.problem("config", str(error), "create fails")
        return [area]
    area.ok("config", f"valid; {len(wanted.plan.steps)} steps")
    for text in wanted.plan.warnings:
        area.note("config", str(text), "create continues with this warning")
    for look in (
        resource_limits,
        oom_score,
        controllers,
        capabilities,
        scheduler,
        namespaces,
        id_maps,
        profile,
        labels,
    ):
        look(machine, area, wanted)
    network_devices(machine, area, wanted)
    kernel_parameters(machine, area, wanted)
    files.check(machine, area, wanted.path, wanted.config)
    return [area]


def invalid(area: Area, error: ConfigError) -> None:
    """Every problem of the configuration."""
    for problem in error.problems:
        area.problem("config", str(problem), "create refuses it", f"edit {problem.pointer or '/'} of config.json")
    if error.more:
        area.problem("config", f"and {error.more} more", "create refuses it")


# -- limits ----------------------------------------------------------------------------------------


def resource_limits(machine: Machine, area: Area, wanted: Wanted) -> None:
    """Hard limits above the caller's own: prlimit(2) needs CAP_SYS_RESOURCE in the initial user
    namespace."""
    may_raise = machine.initial_userns and machine.capabilities() & privileges.bit("CAP_SYS_RESOURCE")
    most_files = machine.number("/proc/sys/fs/nr_open")
    problems = 0
    for number, _, hard, origin in wanted.plan.rlimits:
        name = RLIMITS[number]
        _, own = machine.rlimit(number)
        own = UNLIMITED if own < 0 else own
        if number == NOFILE and most_files is not None and hard > most_files:
            problems += 1
            means = "create fails: a limit of open files must not exceed fs.nr_open"
            area.problem("rlimits", f"{origin}/hard is {hard}", means, f"sysctl -w fs.nr_open={min(hard, 1 << 30)}")
        elif hard > own and not may_raise:
            problems += 1
            seen = f"{origin}: {name} {limit_text(hard)}, the caller's hard limit is {limit_text(own)}"
            mend = f"set {origin}/hard to {own}, or Limit{name.removeprefix('RLIMIT_')}= in the unit that starts pyrunc"
            area.problem("rlimits", seen, "create fails (EPERM): CAP_SYS_RESOURCE is missing", mend)
    if wanted.plan.rlimits and not problems:
        area.ok("rlimits", f"{len(wanted.plan.rlimits)} within what the caller can give")


def limit_text(value: int) -> str:
    """A limit for people."""
    return "unlimited" if value == UNLIMITED else str(value)


def oom_score(machine: Machine, area: Area, wanted: Wanted) -> None:
    """Lowering the score needs CAP_SYS_RESOURCE."""
    score = wanted.process.get("oomScoreAdj")
    own = machine.number("/proc/self/oom_score_adj") or 0
    may_lower = machine.initial_userns and machine.capabilities() & privileges.bit("CAP_SYS_RESOURCE")
    if score is not None and score < own and not may_lower:
        means = "create fails (EACCES): CAP_SYS_RESOURCE is missing"
        area.problem("oom-score", f"/process/oomScoreAdj {score}, the caller has {own}", means, f"set it to {own}")


def controllers(machine: Machine, area: Area, wanted: Wanted) -> None:
    """Limits need their controllers in the parent of the container's cgroup."""
    resources = wanted.linux.get("resources", {})
    path = wanted.plan.cgroup_path
    if not path:
        asked = ", ".join(f"/linux/resources/{key}" for key in limiting(resources))
        if asked:
            area.problem("cgroup", "the container gets no cgroup", f"create refuses {asked}", "mount cgroup v2")
        return
    driver = Cgroupfs(machine.facts)
    try:
        needed = driver.needed(resources, "/linux/resources")
        if needed:
            driver.check_available(path, needed)
        if fs.exists(driver.dir(path)):
            driver.check_usable(path)
    except PyruncError as error:
        area.problem("cgroup", str(error), "create fails", offering(machine, error))
    else:
        seen = f"{path}, with {' '.join(sorted(needed))}" if needed else f"{path}, without limits"
        area.ok("cgroup", seen)


def offering(machine: Machine, error: PyruncError) -> str:
    """The command that makes a missing controller available."""
    if "controller is not available" not in str(error):
        return ""
    bound = sorted(cgroups.bound_to_v1(machine) & set(cgroups.CONTROLLERS))
    return f"boot with cgroup_no_v1={','.join(bound)} on the kernel's command line" if bound else ""


# -- privileges ------------------------------------------------------------------------------------


def capabilities(machine: Machine, area: Area, wanted: Wanted) -> None:
    """Without a user namespace, a container can have only the caller's privileges."""
    sets = wanted.process.get("capabilities", {})
    kind: Literal["bounding", "effective", "inheritable", "permitted", "ambient"]
    asked: set[str] = set()
    for kind in ("bounding", "effective", "inheritable", "permitted", "ambient"):
        asked.update(name for name in sets.get(kind, ()) if name in CAPABILITIES)
    if wanted.user_namespace:
        return
    held = machine.capabilities("CapPrm")
    lacking = sorted(name for name in asked if not held & privileges.bit(name))
    lacking = [name for name in lacking if CAPABILITIES.index(name) <= machine.facts.cap_last]
    if lacking:
        seen = f"/process/capabilities has {', '.join(lacking)}, which the caller lacks"
        area.problem("capabilities", seen, "create fails (EPERM)", "remove them from /process/capabilities")
    elif asked:
        area.ok("capabilities", f"the caller has all {len(asked)}")


def scheduler(machine: Machine, area: Area, wanted: Wanted) -> None:
    """Realtime classes and lower nice values need CAP_SYS_NICE."""
    plan = wanted.process.get("scheduler")
    if not plan or (machine.initial_userns and machine.capabilities() & privileges.bit("CAP_SYS_NICE")):
        return
    if plan.get("policy") in REALTIME or (plan.get("nice") or 0) < 0:
        seen = f"/process/scheduler requests {show(plan.get('policy'))}, nice {plan.get('nice') or 0}"
        area.problem("scheduler", seen, "create fails (EPERM): CAP_SYS_NICE is missing", "remove /process/scheduler")


def namespaces(machine: Machine, area: Area, wanted: Wanted) -> None:
    """New namespaces are probed; namespaces to join must exist."""
    good = []
    for index, entry in enumerate(wanted.linux.get("namespaces") or ()):
        kind, path = entry["type"], entry.get("path")
        pointer = f"/linux/namespaces/{index}"
        if path and not machine.exists(path):
            area.problem("namespaces", f"{pointer}/path {show(path)} does not exist", "create fails")
            continue
        result = 0 if path else machine.works("NAMESPACES", CLONE_FLAGS[kind])[0]
        if result < 0:
            means = f"create fails{kernel.why(machine, result, '5.6')}"
            area.problem("namespaces", f"{pointer}: {kind}: {system_error(result)}", means, f"remove {pointer}")
            continue
        good.append(kind)
    if good:
        area.ok("namespaces", " ".join(good))
    if not wanted.user_namespace and machine.euid != 0:
        means = "create fails: users other than root need a user namespace"
        area.problem("namespaces", f"none of type user, for uid {machine.euid}", means, "pyrunc spec --rootless")


def id_maps(machine: Machine, area: Area, wanted: Wanted) -> None:
    """A user may map the user's own id, and the ids granted by /etc/subuid, /etc/subgid or NSS."""
    if machine.euid == 0:
        return
    field: Literal["uidMappings", "gidMappings"]
    for field, groups, own in (("uidMappings", False, machine.euid), ("gidMappings", True, machine.egid)):
        maps = wanted.linux.get(field, ())
        if not maps:
            continue
        name = users.user_name(machine.uid)
        file = "/etc/subgid" if groups else "/etc/subuid"
        ranges = users.in_file(machine.text(file), {name, str(machine.uid)})
        ranges += machine.subordinate_ids(name, groups) or []
        bad = [index for index, one in enumerate(maps) if not covered(one["hostID"], one["size"], [*ranges, (own, 1)])]
        for index in bad:
            one = maps[index]
            seen = f"/linux/{field}/{index}: {one['hostID']}+{one['size']} is not given to {name} in {file}"
            option = "--add-subgids" if groups else "--add-subuids"
            mend = f"usermod {option} {one['hostID']}-{one['hostID'] + one['size'] - 1} {quote(name)}"
            area.problem("id-maps", seen, "create fails: the kernel, or the helper, refuses the map", mend)
        if not bad:
            area.ok("id-maps", f"/linux/{field} is within what {name} may map")


def covered(first: int, size: int, ranges: list[tuple[int, int]]) -> bool:
    """Whether all ids are in one of the ranges, as newuidmap(1) requires."""
    return any(start <= first and first + size <= start + count for start, count in ranges)


def profile(machine: Machine, area: Area, wanted: Wanted) -> None:
    """linux.seccomp, compiled as in create but without the cache; the agent that it notifies."""
    found = wanted.linux.get("seccomp")
    if not found:
        return
    try:
        program, _, listener = seccomp.compile_filter(found)
    except PyruncError as error:
        area.problem("seccomp", str(error), "create refuses the profile", "edit /linux/seccomp")
        return
    area.ok("seccomp", f"compiled to {len(program) // 8} instructions")
    missing = [name for name in found.get("flags") or () if name not in seccomp.usable_flags()]
    if missing:
        means = "create fails (EINVAL): this kernel does not support them"
        area.problem("seccomp", f"/linux/seccomp/flags has {' '.join(missing)}", means, "remove them")
    path = found.get("listenerPath") or ""
    there = machine.stat(path) if path else None
    if listener and (there is None or not stat.S_ISSOCK(there.st_mode)):
        means = "create fails: no seccomp agent listens there"
        area.problem(
            "seccomp",
            f"/linux/seccomp/listenerPath {show(path)} is not a socket",
            means,
            "start the seccomp agent first",
        )


def labels(machine: Machine, area: Area, wanted: Wanted) -> None:
    """The AppArmor profile must have been loaded."""
    name = wanted.process.get("apparmorProfile")
    if not name or name == "unconfined" or not machine.facts.apparmor:
        return
    loaded = machine.text("/sys/kernel/security/apparmor/profiles")
    if loaded and not any(line.rpartition(" (")[0] == name for line in loaded.split("\n")):
        means = "create fails (ENOENT)"
        area.problem("apparmor", f"profile {show(name)} is not loaded", means, "apparmor_parser -r /etc/apparmor.d/...")
    elif loaded:
        area.ok("apparmor", f"profile {show(name)} is loaded")


# -- devices and parameters ------------------------------------------------------------------------


def network_devices(machine: Machine, area: Area, wanted: Wanted) -> None:
    """linux.netDevices are moved out of the caller's network namespace."""
    for name in wanted.linux.get("netDevices") or ():
        if machine.exists(f"/sys/class/net/{name}"):
            area.ok("net-devices", name)
        else:
            area.problem("net-devices", f"no device {show(name)}", "create fails (ENODEV)")


def kernel_parameters(machine: Machine, area: Area, wanted: Wanted) -> None:
    """linux.sysctl, except the container's own devices, which are unknown here; intelRdt needs
    its filesystem."""
    for name in wanted.linux.get("sysctl", {}):
        path = "/proc/sys/" + (name if "/" in name else name.replace(".", "/"))
        if "/conf/" not in path and "/neigh/" not in path and not machine.exists(path):
            seen = f"/linux/sysctl has {show(name)}, which is not in /proc/sys"
            area.problem("sysctl", seen, "create fails (ENOENT): this kernel, or a module, lacks it", "remove it")
    if wanted.linux.get("intelRdt") is not None and not wanted.facts.resctrl:
        mend = "mount -t resctrl resctrl /sys/fs/resctrl"
        area.problem("intel-rdt", "resctrl is not mounted", "create refuses /linux/intelRdt", mend)
