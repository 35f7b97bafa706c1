"""The systemd driver: systemd creates the container's cgroup as a transient scope and knows its
limits.

A scope is created around a process: ours is `enter`, the host-side half of init, which waits for
its plan at that time. systemd moves it into the new cgroup. `enter` clones the container's first
process there and exits. From then on the scope lives as long as the container
(docs/adr/0011-systemd-driver.md).

systemd gets the limits in the call that starts the scope, so that a daemon-reload writes the same
values. The cgroupfs code also writes them, because not every file has a property. Devices are
controlled by our own eBPF program: DeviceAllow= does not support an order of rules.
"""

from __future__ import annotations

import posix
from posix import O_CLOEXEC, O_DIRECTORY, O_PATH

from pyrunc import fs, host
from pyrunc.cgroup import ScopeRequest, bus
from pyrunc.cgroup.cgroupfs import REMOVE_TIMEOUT, Cgroupfs
from pyrunc.errors import Capped, ConfigError, Problem, PyruncError, SysError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cgroup.bus import Value
    from pyrunc.cgroup.resources import Write
    from pyrunc.host import HostFacts
    from pyrunc.spec.types import Resources

POINTER = "/linux/cgroupsPath"
SUBGROUP = "run.oci.systemd.subgroup"
PROPERTY = "org.systemd.property."
INFINITY = (1 << 64) - 1
MAX_CPUS = 8192
# Until init is alone, the cgroup also holds `enter`, its clone in a user namespace, and their
# zombies.
ENTERING = 4
_SUFFIXES = {"K": 10, "M": 20, "G": 30, "T": 40, "P": 50}
# cgroup file -> property; all of them limits: a number or "max"
_LIMITS = {
    "memory.max": "MemoryMax",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
}
# Properties that some supported version of systemd does not know for a scope. They are dropped if
# it says so, because the files are written in any case. AllowedCPUs 244, CPUQuotaPeriodUSec 242,
# CPUWeight 0 252, OOMPolicy 253, CollectMode 236.
_NEWER = ("AllowedCPUs", "AllowedMemoryNodes", "CPUQuotaPeriodUSec", "CPUWeight", "OOMPolicy", "CollectMode")


UNIT_MAX = 255  # characters of a unit's name
PROPERTIES_MAX = 256  # in annotations; systemd has fewer


# -- names -----------------------------------------------------------------------------------------


def path_for(config_path: str, id: str, facts: HostFacts, annotations: dict[str, str]) -> str:
    """The cgroup of a container whose linux.cgroupsPath is ``slice:prefix:name``, absolute inside
    the hierarchy.

    The default is ``:pyrunc:ID``. Raises ConfigError, PyruncError (the user's systemd cannot be
    reached).
    """
    parts = (config_path or f":pyrunc:{id}").split(":")
    if len(parts) != 3 or not parts[2] or "/" in config_path:
        raise problem("slice:prefix:name (the systemd driver's form)", config_path)
    user = is_user(facts)
    slice_, prefix, name = parts[0] or ("user.slice" if user else "system.slice"), parts[1], parts[2]
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    if len(unit) > UNIT_MAX:
        raise problem(f"a unit name of at most {UNIT_MAX} characters", unit)
    path = manager_path(facts, user) + expand(slice_, config_path) + "/" + unit
    sub = annotations.get(SUBGROUP, "")
    if not sub:
        return path
    if "/" in sub or sub in (".", "..") or not sub.isprintable():
        where = "/annotations/" + SUBGROUP
        raise ConfigError([Problem(where, "the name of a cgroup below the scope's", show(sub))])
    return f"{path}/{sub}"


def problem(expected: str, found: str) -> ConfigError:
    """The error for an invalid cgroupsPath."""
    return ConfigError([Problem(POINTER, expected, show(found))])


def expand(slice_: str, config_path: str) -> str:
    """A slice's cgroup below the manager's: ``a-b.slice`` -> ``/a.slice/a-b.slice``; "" for the
    root slice, ``-``.

    Raises ConfigError for an invalid slice name (systemd.slice(5)).
    """
    if slice_ in ("-", "-.slice"):
        return ""
    stem = slice_.removesuffix(".slice")
    if len(slice_) > UNIT_MAX:
        raise problem(f"a slice of at most {UNIT_MAX} characters", slice_)
    if stem == slice_ or not stem or "" in stem.split("-"):
        raise problem("a slice such as a-b.slice before the first colon", config_path)
    out, at = "", stem.find("-")
    while at >= 0:
        out += f"/{stem[:at]}.slice"
        at = stem.find("-", at + 1)
    return f"{out}/{slice_}"


def is_user(facts: HostFacts) -> bool:
    """Whether the container belongs to a user's systemd: we are not root, or only root of a user
    namespace."""
    return facts.euid != 0 or not host.initial_userns(facts.prefix)


def manager_path(facts: HostFacts, user: bool) -> str:
    """The cgroup that contains systemd's units, "" for the top. Raises PyruncError."""
    if user:
        manager = bus.Manager(user=True)
        try:
            return manager.control_group().rstrip("/")
        finally:
            manager.close()
    return host.own_cgroup(host.read(facts.prefix + "/proc/1/cgroup")).removesuffix("/init.scope").rstrip("/")


def move_into_scope(path: str, below: str, pid: int, facts: HostFacts) -> None:
    """Have a user's systemd move a process to its container's cgroup, or to the one ``below`` it
    (``/name``).

    The user's systemd asks the system's for what it may not do itself. Does nothing if we are there
    already. Raises PyruncError.
    """
    if not is_user(facts):
        return
    scope, unit, _ = names(path)
    manager = bus.Manager(user=True)
    try:
        manager.attach(unit, path[len(scope) :] + below, pid)
    finally:
        manager.close()


def names(path: str) -> tuple[str, str, str]:
    """The unit's own cgroup, the unit and its slice, from a path that `path_for` returned."""
    parts = path.split("/")
    for at in (len(parts) - 1, len(parts) - 2):
        if parts[at].endswith((".scope", ".slice")):
            above = parts[at - 1]
            return "/".join(parts[: at + 1]), parts[at], above if above.endswith(".slice") else "-.slice"
    raise PyruncError(f"{path} is not the cgroup of a scope")


# -- properties ------------------------------------------------------------------------------------


def properties(writes: list[Write]) -> dict[str, Value]:
    """The systemd properties for these limits; the last write for a property wins.

    They come from the cgroup's files, so that the fields of linux.resources and `unified` take the
    same way. Values that have no property, or cannot be parsed, are only written to the file.
    """
    out: dict[str, Value] = {}
    for write in writes:
        file, text = write.file, write.text
        if file in _LIMITS:
            value = number(text)
            if value is not None:
                out[_LIMITS[file]] = ("t", value)
        elif file == "cpu.idle" and text == "1":
            out["CPUWeight"] = ("t", 0)  # "idle", systemd 252
        elif file == "cpu.max":
            cpu_max(out, text)
        elif file in ("cpuset.cpus", "cpuset.mems"):
            mask = bitmask(text)
            if mask:
                out["AllowedCPUs" if file == "cpuset.cpus" else "AllowedMemoryNodes"] = ("ay", mask)
        elif file in ("io.weight", "io.bfq.weight"):
            weight = number((write.other[1] if write.other else text).removeprefix("default "))
            if weight:
                out["IOWeight"] = ("t", weight)
        elif file == "memory.oom.group":
            out["OOMPolicy"] = ("s", "kill" if text == "1" else "continue")
    return out


def number(text: str) -> int | None:
    """A limit as the kernel reads it: digits with K, M, G ..., or ``max``; None for anything
    else."""
    if text == "max":
        return INFINITY
    shift = _SUFFIXES.get(text[-1:].upper(), 0)
    digits = text[:-1] if shift else text
    return int(digits) << shift if digits.isascii() and digits.isdigit() and len(digits) < 20 else None


def cpu_max(out: dict[str, Value], text: str) -> None:
    """cpu.max: the quota per second, which systemd rounds to hundredths of a processor, and the
    period."""
    quota, _, period = text.partition(" ")
    length = number(period) if period else 100_000
    amount = number(quota)
    if not length or amount is None:
        return
    if amount != INFINITY:
        amount = -(-amount * 1_000_000 // length)
        amount = -(-amount // 10_000) * 10_000  # upwards: the exact value is in the file
    out["CPUQuotaPerSecUSec"] = ("t", amount)
    out["CPUQuotaPeriodUSec"] = ("t", length)


def bitmask(text: str) -> bytes:
    """A list such as ``0-3,8`` as a bit mask, lowest bit first; b"" for an invalid list."""
    bits = 0
    for part in text.strip().split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdigit() and last.isdigit() and first.isascii() and last.isascii() and len(first + last) < 20):
            return b""
        low, high = int(first), int(last)
        if not low <= high < MAX_CPUS:
            return b""
        bits |= ((1 << (high - low + 1)) - 1) << low
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def annotated(annotations: dict[str, str]) -> dict[str, Value]:
    """Properties from ``org.systemd.property.NAME`` annotations. Raises ConfigError with every
    problem."""
    out: dict[str, Value] = {}
    problems = Capped()
    properties = [key for key in annotations if key.startswith(PROPERTY)]
    if len(properties) > PROPERTIES_MAX:
        found = str(len(properties))
        raise ConfigError([Problem("/annotations", f"at most {PROPERTIES_MAX} properties of systemd", found)])
    for key in properties:
        from pyrunc.cgroup import gvariant

        text = annotations[key]
        try:
            name, value = gvariant.as_property(key[len(PROPERTY) :], text)
            out[name] = value
        except ValueError as error:
            problems.append(Problem("/annotations/" + key.replace("/", "~1"), str(error), show(text)))
    if problems:
        raise ConfigError(problems)
    return out


# -- the driver ------------------------------------------------------------------------------------


class Systemd(Cgroupfs):
    """A scope for each container; `Cgroupfs` watches, freezes and kills. Paths come from
    `path_for`."""

    __slots__ = ("fresh", "late", "link")

    def __init__(self, facts: HostFacts) -> None:
        super().__init__(facts)
        self.link: bus.Manager | None = None
        self.fresh = ""  # the cgroup whose limits systemd received when it created it
        self.late: dict[str, Value] = {}  # limits for systemd once init is alone in the cgroup

    @property
    def manager(self) -> bus.Manager:
        """The connection, opened on first use. Raises PyruncError."""
        if self.link is None:
            if not fs.exists(self.facts.prefix + "/run/systemd/system"):
                hint = "systemd is not this host's init (no /run/systemd/system)"
                raise PyruncError(f"the systemd cgroup driver cannot be used: {hint}; omit --systemd-cgroup")
            self.link = bus.Manager(is_user(self.facts))
        return self.link

    def missing(self, path: str) -> list[str]:
        """The cgroups that `create` makes. Slices belong to systemd, which removes the empty
        ones."""
        scope = names(path)[0]
        return [scope] if scope == path else [scope, path]

    def create(
        self, path: str, resources: Resources, ptr: str = "/linux/resources", request: ScopeRequest | None = None
    ) -> int:
        """Start the scope around the process of ``request``; returns a descriptor of the cgroup's
        directory.

        A failure stops the scope again. Raises as `Cgroupfs.create` does, BusError (systemd
        refused).
        """
        scope, unit, slice_ = names(path)
        needed = self.needed(resources, ptr)
        if needed:
            self.check_available(path, needed)
        request = request or ScopeRequest("", 0, {})
        member = request.pid
        asked = self.described(unit, slice_, member, request.id)
        limits = self.limits(resources, ptr)
        tasks = limits.get("TasksMax")
        if tasks is not None and int(tasks[1]) < ENTERING:
            self.late["TasksMax"] = limits.pop("TasksMax")
        asked.update(limits)
        asked.update(annotated(request.annotations))
        self.check_usable(path)
        self.start(unit, asked)
        try:
            self.check_place(scope, member, unit)
            if scope != path:
                self.nest(path, member)
            self.enable(path, needed)
            fd = posix.open(self.dir(path), O_PATH | O_DIRECTORY | O_CLOEXEC)
        except OSError as error:
            self.stop(unit)
            raise SysError(POINTER, "", error.errno or 0, value=path) from error
        except BaseException:
            self.stop(unit)
            raise
        self.made, self.fresh = self.missing(path), path
        return fd

    def described(self, unit: str, slice_: str, member: int, id: str) -> dict[str, Value]:
        """The properties that do not come from the configuration."""
        out: dict[str, Value] = {"Description": ("s", f"container {id}")}
        if unit.endswith(".slice"):
            # systemd adds no processes to a slice; the container's first process is cloned into its
            # cgroup.
            out["Wants"] = ("as", [slice_])
        else:
            out["Slice"] = ("s", slice_)
            out["PIDs"] = ("au", [member])
            out["Delegate"] = ("b", True)  # the container may create cgroups; systemd leaves them alone
            out["CollectMode"] = ("s", "inactive-or-failed")  # a failed unit does not keep its name
        for name in ("CPU", "IO", "Memory", "Tasks"):
            out[name + "Accounting"] = ("b", True)
        out["DefaultDependencies"] = ("b", False)  # a shutdown does not stop it before the engine
        return out

    def limits(self, resources: Resources, ptr: str) -> dict[str, Value]:
        """Properties for linux.resources.  Raises ConfigError."""
        if not any(value for key, value in resources.items() if key != "devices"):
            return {}
        from pyrunc.cgroup import resources as conversion

        return properties(conversion.convert(resources, ptr))

    def start(self, unit: str, asked: dict[str, Value]) -> None:
        """Call StartTransientUnit without the properties that this systemd lacks. Raises
        PyruncError, BusError."""
        # Report an error of the connection itself before any request is sent.
        manager, again = self.manager, True
        while True:
            try:
                return manager.start_transient(unit, list(asked.items()))
            except bus.BusError as error:
                if error.name == bus.UNIT_EXISTS:
                    if not again:
                        text = f"{POINTER} {show(unit)}: systemd has a unit of this name already"
                        raise PyruncError(text) from error
                    again = False
                    manager.reset_failed(unit)  # of an older container; a running unit is not affected
                elif not without(asked, str(error)):
                    raise
            except PyruncError:
                self.stop(unit)  # it may start later
                raise

    def check_place(self, scope: str, member: int, unit: str) -> None:
        """Raises PyruncError unless the process is in the expected cgroup."""
        if unit.endswith(".slice"):
            return
        place = host.own_cgroup(host.read(f"{self.facts.prefix}/proc/{member}/cgroup"))
        if place != scope:
            raise PyruncError(f"systemd put {unit} into the cgroup {place}, not {scope}")

    def nest(self, path: str, member: int) -> None:
        """Create the cgroup below the scope's and move the process there, so that the scope can
        enable controllers."""
        fs.ignore(posix.mkdir, self.dir(path), 0o755)
        fs.write_file(self.dir(path) + "/cgroup.procs", str(member).encode())

    def apply(self, path: str, resources: Resources, ptr: str = "/linux/resources") -> None:
        """Write every limit, then report to systemd only what the kernel accepted.

        systemd writes its files some time after it has answered. Raises as `Cgroupfs.apply` does,
        BusError, PyruncError (the unit is gone).
        """
        unit = names(path)[1]
        if self.fresh == path:
            self.fresh = ""
            super().apply(path, resources, ptr)
            self.set_properties(unit, self.late)
            return
        asked = self.limits(resources, ptr)
        if not fs.exists(self.dir(path)):
            raise PyruncError(f"{unit} no longer has a cgroup: was it stopped?")
        super().apply(path, resources, ptr)
        self.set_properties(unit, asked)

    def set_properties(self, unit: str, asked: dict[str, Value]) -> None:
        """Call SetUnitProperties without the properties that this systemd lacks. Raises
        PyruncError, BusError."""
        while asked:
            try:
                self.manager.set_properties(unit, list(asked.items()))
                return
            except bus.BusError as error:
                if not without(asked, str(error)):
                    raise

    def stop(self, unit: str) -> str:
        """Stop a unit and reset its failed state; returns the reason for a failure."""
        try:
            self.manager.stop(unit)
            self.manager.reset_failed(unit)
        except PyruncError as error:
            return str(error)
        return ""

    def remove(self, path: str, timeout: float = REMOVE_TIMEOUT, made: list[str] | None = None) -> None:
        """Stop the scope, then remove the rest of its cgroup. Raises as `Cgroupfs.remove` does.

        systemd ends a scope by itself when its last process has ended; then there is nothing to
        request. If systemd cannot be reached, the cgroup is removed anyway, and systemd will
        notice.
        """
        scope, unit, _ = names(path)
        why = self.stop(unit) if fs.exists(self.dir(scope)) else ""
        try:
            super().remove(path, timeout, made)
        except PyruncError as error:
            if why:
                raise PyruncError(f"{error}; {why}") from error
            raise


def without(asked: dict[str, Value], words: str) -> bool:
    """Drop the property that an error names if systemd may lack it; returns whether there was
    one."""
    for name in _NEWER:
        if name in asked and name in words:
            del asked[name]
            return True
    return False
