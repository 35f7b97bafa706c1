"""A cgroup's usage in the format of runc's ``events --stats``, read file by file.

A missing file means a missing controller and leaves zeros; runc's omitempty decides which zeros are
shown. Names and units follow cgroup v1, because callers parse them.
"""

from __future__ import annotations

import posix
from errno import EINVAL, ENODEV, ENOENT, EOPNOTSUPP
from posix import O_CLOEXEC, O_DIRECTORY, O_PATH

from pyrunc import fs
from pyrunc.cgroup import tree
from pyrunc.errors import PyruncError, SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    Stats = dict[str, object]  # as `events` prints them; pyrunc/api/types.py names the members

UNLIMITED = (1 << 64) - 1  # for "max", as in runc
_CPUSET = (
    "cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab",
    "memory_pressure", "sched_load_balance", "sched_relax_domain_level",
)  # fmt: skip
# io.stat key -> table of v1, operation
_IO = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}


def read(directory: str) -> Stats:
    """The ``data`` of a stats event. Times in nanoseconds, sizes in bytes. Raises PyruncError
    without a cgroup."""
    if not directory:
        raise PyruncError("the container has no cgroup to measure (--cgroup-manager disabled)")
    try:
        fd = posix.open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC)
    except OSError as error:
        raise SysError(directory, "open", error.errno or 0).within("cgroup") from error
    try:
        return {
            "cpu": _cpu(fd),
            "cpuset": dict.fromkeys(_CPUSET, 0),  # v2 has none of these
            "memory": _memory(fd),
            "pids": _pids(fd),
            "blkio": _block_io(fd),
            "hugetlb": _huge_pages(fd),
            "intel_rdt": {},
            "network_interfaces": None,
        }
    finally:
        posix.close(fd)


def text(directory: int, file: str) -> str:
    """A file of the cgroup; "" if it is missing or disabled (PSI switched off). Raises SysError."""
    try:
        return fs.read_file(file, 1 << 20, dir_fd=directory).decode("ascii", "replace")
    except OSError as error:
        if error.errno in (ENOENT, ENODEV, EOPNOTSUPP, EINVAL):
            return ""
        raise SysError(f"cgroup file {file}", "read", error.errno or 0) from error


def number(value: str) -> int:
    """A value of a file; ``max`` is `UNLIMITED`, a missing or invalid value is 0."""
    value = value.strip()
    return UNLIMITED if value == "max" else int(value) if value.isdigit() else 0


def pairs(content: str) -> dict[str, int]:
    """A flat-keyed file (cpu.stat, memory.stat, *.events)."""
    out = {}
    for line in content.splitlines():
        key, _, value = line.partition(" ")
        out[key] = number(value)
    return out


def omit_empty(**values: object) -> Stats:
    """The values that are neither zero nor empty, as Go's omitempty keeps them."""
    return {key: value for key, value in values.items() if value}


def _cpu(fd: int) -> Stats:
    found = pairs(text(fd, "cpu.stat"))  # the first three exist without the controller as well

    def nanoseconds(key: str) -> int:
        return found.get(key, 0) * 1000

    usage = omit_empty(total=nanoseconds("usage_usec"))
    usage |= {"kernel": nanoseconds("system_usec"), "user": nanoseconds("user_usec")}
    throttling = omit_empty(
        periods=found.get("nr_periods", 0),
        throttledPeriods=found.get("nr_throttled", 0),
        throttledTime=nanoseconds("throttled_usec"),
    )
    return {"usage": usage, "throttling": throttling, **omit_empty(psi=_pressure(fd, "cpu.pressure"))}


def _memory(fd: int) -> Stats:
    raw = pairs(text(fd, "memory.stat"))
    if not raw:
        nothing = _entry(0, 0, 0)
        entries = {"usage": nothing, "swap": nothing, "kernel": nothing, "kernelTCP": nothing}
        return {**entries, **omit_empty(psi=_pressure(fd, "memory.pressure"))}
    usage, limit = number(text(fd, "memory.current")), number(text(fd, "memory.max"))
    swap = text(fd, "memory.swap.current")
    if swap:  # v1 reports memory plus swap
        swap_limit = number(text(fd, "memory.swap.max"))
        unlimited = UNLIMITED in (limit, swap_limit)
        swap_entry = _entry(UNLIMITED if unlimited else limit + swap_limit, usage + number(swap), 0)
    else:
        swap_entry = _entry(usage=usage, limit=limit, most=0)  # not accounted: all zero
    return {
        **omit_empty(cache=raw.get("file", 0)),
        "usage": _entry(limit, usage, number(text(fd, "memory.peak"))),  # Linux 5.19
        "swap": swap_entry,
        "kernel": _entry(0, 0, 0),
        "kernelTCP": _entry(0, 0, 0),
        "raw": raw,
        **omit_empty(psi=_pressure(fd, "memory.pressure")),
    }


def _entry(limit: int, usage: int, most: int) -> Stats:
    return {"limit": limit, **omit_empty(usage=usage, max=most), "failcnt": 0}


def _pids(fd: int) -> Stats:
    current = text(fd, "pids.current")
    if not current:
        return omit_empty(current=len(tree.processes(fd)))
    limit = number(text(fd, "pids.max"))
    return omit_empty(current=number(current), limit=0 if limit == UNLIMITED else limit)


def _block_io(fd: int) -> Stats:
    out: dict[str, list[Stats]] = {}
    for line in text(fd, "io.stat").splitlines():
        device, *words = line.split()
        major, _, minor = device.partition(":")
        for word in words:
            key, _, value = word.partition("=")
            if key in _IO:
                table, operation = _IO[key]
                entry = omit_empty(major=number(major), minor=number(minor), op=operation, value=number(value))
                out.setdefault(table, []).append(entry)
    return {**out, **omit_empty(psi=_pressure(fd, "io.pressure"))}


def _huge_pages(fd: int) -> Stats:
    """Usage per page size. If the kernel accounts for reservations they count, because limits apply
    to them."""
    out: Stats = {}
    with posix.scandir(f"/proc/self/fd/{fd}") as found:
        names = sorted(entry.name for entry in found if entry.name.startswith("hugetlb."))
    for name in names:
        size, _, rest = name.removeprefix("hugetlb.").partition(".")
        if rest != "current":
            continue
        usage = text(fd, f"hugetlb.{size}.rsvd.current") or text(fd, name)
        events = pairs(text(fd, f"hugetlb.{size}.events"))
        out[size] = {**omit_empty(usage=number(usage)), "failcnt": events.get("max", 0)}
    return out


def _pressure(fd: int, file: str) -> Stats:
    """Pressure stall information: ``some avg10=0.00 avg60=0.00 avg300=0.00 total=0`` and the same
    for ``full``."""
    nothing: dict[str, float] = {"avg10": 0, "avg60": 0, "avg300": 0, "total": 0}
    out: Stats = {}
    for line in text(fd, file).splitlines():
        kind, *words = line.split()
        values = dict(nothing)
        for word in words:
            key, _, value = word.partition("=")
            if key in values:
                values[key] = int(value) if key == "total" else _short(float(value))
        out[kind] = values
    return {"some": out.get("some", nothing), "full": out.get("full", nothing)} if out else {}


def _short(value: float) -> float:
    """A number in Go's form: 0 for 0.0."""
    return int(value) if value == int(value) else value
