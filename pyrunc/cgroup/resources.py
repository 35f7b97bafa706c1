"""linux.resources -> what to write into which cgroup v2 file: pure, in order (features: conversions of runtime-spec fields).

v1 values have other ranges than v2's; the formulas are those that the systemd and runc projects agreed on, so that a container
gets the same share from every runtime.
"""

from __future__ import annotations

from pyrunc.errors import ConfigError, Problem, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OPTIONAL = 1  # the file may be missing: some kernels or schedulers do not have it
UNIFIED = 2  # named by the user: any file, any number of lines


class Write:
    """One value for one file; ``pointer`` and ``value_of`` say which field asked for it and with what value."""

    __slots__ = ("file", "flags", "pointer", "text", "value_of")

    def __init__(self, file: str, text: str, pointer: str, value_of: object, flags: int = 0) -> None:
        self.file, self.text, self.pointer, self.value_of, self.flags = file, text, pointer, value_of, flags

    @property
    def controller(self) -> str:
        """The controller that the file belongs to: ``memory`` for memory.max; "" for the cgroup's own files."""
        name = self.file.partition(".")[0]
        return "" if name == "cgroup" else name


def limit(value: int) -> str:
    """A limit as the kernel wants it: negative is ``max``."""
    return "max" if value < 0 else str(value)


def cpu_weight(shares: int) -> int:
    """cpu.shares (2..262144) -> cpu.weight (1..10000), 1024 -> 100; 0 stays unset.

    ceil(10 ^ ((L^2 + 125 L) / 612 - 7/34)) with L = log2(shares): the middle of both scales meets, which the older linear
    formula (39 for 1024) missed.
    """
    if shares == 0:
        return 0
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log2 = _log2(shares)
    exponent = (log2 * log2 + 125 * log2) / 612.0 - 7.0 / 34.0
    value = 10.0**exponent
    # The formula meets integers exactly at its fixed points (1024 -> 100): a rounding error must not become a step up.
    return int(value + 1 - 1e-9)


def _log2(value: int) -> float:
    """Base-2 logarithm, to float precision; `math` is a shared object in some interpreters, and this is called once."""
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


def io_weight(weight: int) -> int:
    """blockIO.weight (10..1000) -> io.weight (1..10000)."""
    return 1 + (weight - 10) * 9999 // 990


def convert(resources: dict[str, Any], ptr: str = "/linux/resources") -> list[Write]:
    """Every write for these resources, in the order they must happen.  Raises ConfigError for values that contradict."""
    out: list[Write] = []
    problems: list[Problem] = []
    _pids(out, resources.get("pids") or {}, ptr + "/pids")
    _cpu(out, resources.get("cpu") or {}, ptr + "/cpu", problems)
    _memory(out, resources.get("memory") or {}, ptr + "/memory", problems)
    _block_io(out, resources.get("blockIO") or {}, ptr + "/blockIO", problems)
    for index, item in enumerate(resources.get("hugepageLimits") or ()):
        where, value = f"{ptr}/hugepageLimits/{index}", item["limit"]
        out.append(Write(f"hugetlb.{item['pageSize']}.max", str(value), where, value))
        # Reservations too: otherwise a process that only maps can use up what others were promised (spec, 1.1).
        out.append(Write(f"hugetlb.{item['pageSize']}.rsvd.max", str(value), where, value, OPTIONAL))
    for name, item in (resources.get("rdma") or {}).items():
        words = [f"{key}={item[field]}" for key, field in (("hca_handle", "hcaHandles"), ("hca_object", "hcaObjects")) if item.get(field) is not None]  # fmt: skip
        if words:
            out.append(Write("rdma.max", f"{name} {' '.join(words)}", f"{ptr}/rdma/{escape(name)}", item))
    for name, text in (resources.get("unified") or {}).items():
        where = f"{ptr}/unified/{escape(name)}"
        out += [Write(name, line, where, text, UNIFIED) for line in text.split("\n") if line or "\n" not in text]
    if problems:
        raise ConfigError(problems)
    return out


def escape(key: str) -> str:
    """A key as a JSON pointer token (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _pids(out: list[Write], pids: dict[str, Any], ptr: str) -> None:
    value = pids.get("limit")
    if value is not None:
        # 0 would forbid the container's own first process; systemd's TasksMax has no 0 either, so runc and youki write 1.
        out.append(Write("pids.max", "1" if value == 0 else limit(value), ptr + "/limit", value))


def _cpu(out: list[Write], cpu: dict[str, Any], ptr: str, problems: list[Problem]) -> None:
    if cpu.get("idle") is not None:  # before the weight: writing 0 to cpu.idle resets it
        out.append(Write("cpu.idle", str(cpu["idle"]), ptr + "/idle", cpu["idle"]))
    weight = cpu_weight(cpu.get("shares") or 0)
    if weight:
        out.append(Write("cpu.weight", str(weight), ptr + "/shares", cpu["shares"]))
    quota, period, burst = cpu.get("quota") or 0, cpu.get("period") or 0, cpu.get("burst")
    if burst and quota > 0 and burst > quota:
        problems.append(Problem(ptr + "/burst", "at most the quota", f"{burst} > {quota}"))
    change = Write("cpu.max", f"{limit(quota or -1)} {period or 100000}", ptr + ("/quota" if quota else "/period"), quota or period)  # fmt: skip
    if quota or period:
        out.append(change)
    if burst is not None:
        # The kernel wants burst <= quota at every moment; a fresh cgroup has no quota, so the quota goes first.
        out.append(Write("cpu.max.burst", str(burst), ptr + "/burst", burst))
    for field in ("cpus", "mems"):
        if cpu.get(field):
            out.append(Write(f"cpuset.{field}", cpu[field], f"{ptr}/{field}", cpu[field]))


def _memory(out: list[Write], memory: dict[str, Any], ptr: str, problems: list[Problem]) -> None:
    value, swap = memory.get("limit") or 0, memory.get("swap")
    if swap is None and value == -1:
        swap = -1  # no memory limit without saying anything of swap: no swap limit either
    if swap:
        _swap(out, value, swap, ptr, problems)
    if value:
        out.append(Write("memory.max", limit(value), ptr + "/limit", value))
    if memory.get("reservation"):
        out.append(Write("memory.low", limit(memory["reservation"]), ptr + "/reservation", memory["reservation"]))


def _swap(out: list[Write], value: int, swap: int, ptr: str, problems: list[Problem]) -> None:
    """memory.swap is memory plus swap; memory.swap.max is swap alone."""
    where = ptr + "/swap"
    if swap < 0:
        text = "max"
    elif value <= 0:
        problems.append(Problem(where, "a memory limit beside it", str(swap), "unable to set swap limit without memory limit"))  # fmt: skip
        return
    elif swap < value:
        problems.append(Problem(where, "at least the memory limit", f"{swap} < {value}"))
        return
    else:
        text = str(swap - value)
    # A kernel without swap accounting has no file; no swap and any amount of it are both the case there.
    out.append(Write("memory.swap.max", text, where, swap, OPTIONAL if text in ("0", "max") else 0))


_THROTTLE = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)


def _block_io(out: list[Write], block: dict[str, Any], ptr: str, problems: list[Problem]) -> None:
    weight = block.get("weight") or 0
    if weight:
        # With the BFQ scheduler its own file has the v1 range; `fs2` takes the first of the two that exists.
        out.append(Write("io.bfq.weight|io.weight", f"{weight}|{io_weight(weight)}", ptr + "/weight", weight))
    if block.get("leafWeight"):
        problems.append(Problem(ptr + "/leafWeight", "nothing", show(block["leafWeight"]), "cgroup v2 has no leaf weights"))  # fmt: skip
    for index, item in enumerate(block.get("weightDevice") or ()):
        where = f"{ptr}/weightDevice/{index}"
        if item.get("leafWeight"):
            problems.append(Problem(where + "/leafWeight", "nothing", show(item["leafWeight"]), "cgroup v2 has no leaf weights"))  # fmt: skip
        if item.get("weight"):
            out.append(Write("io.bfq.weight", f"{item['major']}:{item['minor']} {item['weight']}", where, item["weight"]))  # fmt: skip
    for field, key in _THROTTLE:
        for index, item in enumerate(block.get(field) or ()):
            text = f"{item['major']}:{item['minor']} {key}={item['rate']}"
            out.append(Write("io.max", text, f"{ptr}/{field}/{index}", item["rate"]))
