"""linux.resources -> the values for cgroup v2 files, in the order in which they must be written.

A pure function. runtime-spec values have cgroup v1's ranges. The formulas are those of runc, crun
and systemd, so that a container gets the same share from every runtime. Validation reports what v2
lacks (spec/rules_resources).
"""

from __future__ import annotations

from pyrunc.errors import ConfigError, Problem, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from pyrunc.spec.types import BlockIO, Cpu, Memory, Pids, Resources, WeightDevice

    Throttle = Literal[
        "throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice"
    ]

OPTIONAL = 1  # the file may be missing: the value is then the one that applies anyway
LATER = 2  # EINVAL: retry after the others, whose old values may contradict it


class Write:
    """One value for one file; ``pointer`` and ``value`` name the field that requires it and its
    value.

    ``other`` is the (file, text) to use if ``file`` does not exist.
    """

    __slots__ = ("file", "flags", "other", "pointer", "text", "value")

    def __init__(
        self,
        file: str,
        text: str,
        pointer: str,
        value: object,
        flags: int = 0,
        other: tuple[str, str] | None = None,
    ) -> None:
        self.file, self.text, self.pointer, self.value = file, text, pointer, value
        self.flags, self.other = flags, other

    @property
    def controller(self) -> str:
        """The controller that the file belongs to: ``memory`` for memory.max; "" for a file of the
        cgroup core."""
        name = self.file.partition(".")[0]
        return "" if name == "cgroup" else name


def convert(resources: Resources, ptr: str = "/linux/resources") -> list[Write]:
    """Every write for these resources, in order. Raises ConfigError for values that contradict each
    other."""
    out: list[Write] = []
    problems: list[Problem] = []
    if "pids" in resources:
        _pids(out, resources["pids"], f"{ptr}/pids")
    if "memory" in resources:
        _memory(out, resources["memory"], f"{ptr}/memory", problems)
    if "blockIO" in resources:
        _block_io(out, resources["blockIO"], f"{ptr}/blockIO", problems)
    if "cpu" in resources:
        _cpu(out, resources["cpu"], f"{ptr}/cpu", problems)
    for index, item in enumerate(resources.get("hugepageLimits", ())):
        where, value = f"{ptr}/hugepageLimits/{index}/limit", item["limit"]
        out.append(Write(f"hugetlb.{item['pageSize']}.max", str(value), where, value))
        # Reservations as well: otherwise a process that only maps pages can use up those promised
        # to others. Linux 5.7.
        out.append(Write(f"hugetlb.{item['pageSize']}.rsvd.max", str(value), where, value, OPTIONAL))
    for name, limits in resources.get("rdma", {}).items():
        words = [name]
        if "hcaHandles" in limits:
            words.append(f"hca_handle={limits['hcaHandles']}")
        if "hcaObjects" in limits:
            words.append(f"hca_object={limits['hcaObjects']}")
        if len(words) > 1:
            out.append(Write("rdma.max", " ".join(words), f"{ptr}/rdma/{escape(name)}", limits))
    # Last, so that a value given by file name wins.
    for name, text in resources.get("unified", {}).items():
        where = f"{ptr}/unified/{escape(name)}"
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            problems.append(Problem(where, "the name of a file in the container's cgroup", show(name)))
        # One line at a time, as the kernel's parsers of keyed files require; an empty value is also
        # a line.
        lines = [line for line in text.split("\n") if line]
        out += [Write(name, line, where, line) for line in lines or ("",)]
    if problems:
        raise ConfigError(problems)
    return out


def limiting(resources: Resources) -> list[str]:
    """The fields of linux.resources that only a cgroup can satisfy, without ``devices``."""
    out = []
    for key, value in resources.items():
        if key == "devices" or not value:
            continue
        writes = convert({key: value})  # type: ignore[misc]  # of the same member
        if not writes or not all(write.flags & OPTIONAL for write in writes):
            out.append(key)
    return out


def before(file: str, text: str, held: str) -> str:
    """The text that undoes the write of ``text`` to a file with the content ``held``.

    In a keyed file (io.max, io.weight, rdma.max, misc.max) it is the line of the same key; a device
    without one returns to its default.
    """
    lines, words = held.splitlines(), text.split()
    if len(words) > 1:
        for line in lines:
            if line.partition(" ")[0] == words[0]:
                return line
        if ":" in words[0]:
            return f"{words[0]} " + ("rbps=max wbps=max riops=max wiops=max" if file == "io.max" else "default")
    return lines[0] if lines else ""


def escape(key: str) -> str:
    """A key as a JSON pointer token (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def limit(value: int) -> str:
    """A limit in the kernel's form: a negative one is ``max``."""
    return "max" if value < 0 else str(value)


def _pids(out: list[Write], pids: Pids, ptr: str) -> None:
    value = pids["limit"]
    # 0 and 1 mean the same to the kernel, but systemd's TasksMax refuses 0. runc writes 1 as well.
    out.append(Write("pids.max", limit(value or 1), ptr + "/limit", value, OPTIONAL if value < 0 else 0))


def _memory(out: list[Write], memory: Memory, ptr: str, problems: list[Problem]) -> None:
    value, swap, low = memory.get("limit", 0), memory.get("swap", 0), memory.get("reservation", 0)
    if not swap and value == -1:
        swap = -1  # as in v1: without a memory limit and a swap setting, swap is unlimited as well
    where = ptr + "/swap"
    if swap < 0:
        text = "max"
    elif swap and value <= 0:
        hint = "unable to set swap limit without memory limit"
        problems.append(Problem(where, "a memory limit beside it", str(swap), hint))
    elif swap and swap < value:
        problems.append(Problem(where, f"at least the memory limit {value} (it is memory plus swap)", str(swap)))
    else:
        text = str(swap - value)
    if swap and not problems:
        # A kernel without swap has no such file; "none" and "unlimited" are both true there
        # already.
        out.append(Write("memory.swap.max", text, where, swap, OPTIONAL if text in ("0", "max") else 0))
    if value:
        out.append(Write("memory.max", limit(value), ptr + "/limit", value, OPTIONAL if value < 0 else 0))
    if low:
        out.append(Write("memory.low", limit(low), ptr + "/reservation", low))


_THROTTLE: tuple[tuple[Throttle, str], ...] = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)


def _block_io(out: list[Write], block: BlockIO, ptr: str, problems: list[Problem]) -> None:
    # With the BFQ scheduler the file has v1's range; otherwise the io.cost controller's file
    # applies.
    weight = block.get("weight", 0)
    if weight:
        other = ("io.weight", str(io_weight(weight)))
        out.append(Write("io.bfq.weight", str(weight), ptr + "/weight", weight, 0, other))
    holders: list[tuple[BlockIO | WeightDevice, str]] = [(block, ptr)]
    for index, item in enumerate(block.get("weightDevice", ())):
        where, number = f"{ptr}/weightDevice/{index}", f"{item['major']}:{item['minor']}"
        holders.append((item, where))
        weight = item.get("weight", 0)
        if weight:
            other = ("io.weight", f"{number} {io_weight(weight)}")
            out.append(Write("io.bfq.weight", f"{number} {weight}", where + "/weight", weight, 0, other))
    for holder, where in holders:
        leaf = holder.get("leafWeight")
        if leaf:
            problems.append(Problem(where + "/leafWeight", "nothing, cgroup v2 has no leaf weights", show(leaf)))
    for field, key in _THROTTLE:
        for index, device in enumerate(block.get(field, ())):
            rate = device["rate"] or "max"  # 0 removes a limit in v1; io.max answers ERANGE
            text = f"{device['major']}:{device['minor']} {key}={rate}"
            out.append(Write("io.max", text, f"{ptr}/{field}/{index}/rate", device["rate"]))


def io_weight(weight: int) -> int:
    """blockIO.weight (10..1000) -> io.weight (1..10000)."""
    return 1 + (weight - 10) * 9999 // 990


def _cpu(out: list[Write], cpu: Cpu, ptr: str, problems: list[Problem]) -> None:
    idle, shares = cpu.get("idle"), cpu.get("shares", 0)
    if idle is not None:  # before the weight, which an idle cgroup refuses
        out.append(Write("cpu.idle", str(idle), ptr + "/idle", idle))
    if shares:
        if idle == 1:
            problems.append(Problem(ptr + "/shares", "0 beside idle 1, which has the lowest weight", str(shares)))
        out.append(Write("cpu.weight", str(cpu_weight(shares)), ptr + "/shares", shares))
    quota, period, burst = cpu.get("quota", 0), cpu.get("period", 0), cpu.get("burst")
    if burst and 0 < quota < burst:
        problems.append(Problem(ptr + "/burst", f"at most the quota {quota}", str(burst)))
    if burst is not None:
        # burst <= quota must hold after each write: write the burst first if both shrink, last if
        # they grow.
        flags = LATER if burst else OPTIONAL  # Linux 5.14
        out.append(Write("cpu.max.burst", str(burst), ptr + "/burst", burst, flags))
    if quota or period:
        where, value = ("/quota", quota) if quota else ("/period", period)
        flags = OPTIONAL if quota < 0 else 0
        out.append(Write("cpu.max", f"{limit(quota or -1)} {period or 100000}", ptr + where, value, flags))
    field: Literal["cpus", "mems"]
    for field in ("cpus", "mems"):
        if cpu.get(field):
            out.append(Write(f"cpuset.{field}", cpu[field], f"{ptr}/{field}", cpu[field]))


def cpu_weight(shares: int) -> int:
    """cpu.shares (2..262144) -> cpu.weight (1..10000), 1024 -> 100; 0 stays unset.

    ceil(10 ^ ((L^2 + 125 L) / 612 - 7/34)) with L = log2(shares) maps minimum, default and maximum
    of the scales to each other. The older linear formula gave 39 for 1024.
    """
    if shares == 0:
        return 0
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log2 = _log2(shares)
    value = float(10.0 ** ((log2 * log2 + 125 * log2) / 612 - 7 / 34))
    # Where the formula yields an integer (1024 -> 100), a rounding error must not round up to the
    # next one.
    return int(value + 1 - 1e-9)


def _log2(value: int) -> float:
    """Base-2 logarithm to float precision. `math` is a shared object in some interpreters, and this
    is called once."""
    whole = value.bit_length() - 1
    fraction, bit = value / (1 << whole), 0.5
    result = float(whole)
    while bit > 1e-17:
        fraction *= fraction
        if fraction >= 2.0:
            fraction /= 2.0
            result += bit
        bit /= 2.0
    return result
