"""What the API hands out and takes: states, statistics, events, resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

Status = Literal["creating", "created", "running", "paused", "stopped"]


@dataclass(frozen=True, slots=True)
class State:
    """What a container is doing (runtime.md, "State"), as `pyrunc state` prints it.

    ``pid`` is 0 once it has stopped; ``created`` is RFC 3339 in UTC, with nanoseconds.
    """

    oci_version: str
    id: str
    pid: int
    status: Status
    bundle: str
    rootfs: str
    created: str
    annotations: Mapping[str, str]


class CpuUsage(TypedDict, total=False):
    """CPU time, in nanoseconds."""

    total: int
    kernel: int
    user: int


class Throttling(TypedDict, total=False):
    """What the CPU quota did; ``throttledTime`` in nanoseconds."""

    periods: int
    throttledPeriods: int
    throttledTime: int


class Pressure(TypedDict):
    """Pressure stall information: percentages of the last 10, 60 and 300 s; ``total`` in microseconds."""

    avg10: float
    avg60: float
    avg300: float
    total: int


class Pressures(TypedDict):
    """The time in which some, or all, processes were waiting."""

    some: Pressure
    full: Pressure


class CpuStats(TypedDict, total=False):
    """cpu.stat and cpu.pressure of the cgroup."""

    usage: CpuUsage
    throttling: Throttling
    psi: Pressures


class MemoryEntry(TypedDict, total=False):
    """Bytes; ``limit`` is 2**64 - 1 without one."""

    limit: int
    usage: int
    max: int
    failcnt: int


class MemoryStats(TypedDict, total=False):
    """memory.current, memory.max, memory.stat (``raw``) ...; ``swap`` is memory plus swap, as in cgroup v1."""

    cache: int
    usage: MemoryEntry
    swap: MemoryEntry
    kernel: MemoryEntry
    kernelTCP: MemoryEntry
    raw: dict[str, int]
    psi: Pressures


class PidsStats(TypedDict, total=False):
    """Number of processes and threads; ``limit`` is missing without one."""

    current: int
    limit: int


class Stats(TypedDict):
    """What a container uses: the ``data`` of a stats event of `pyrunc events`, whose names callers of runc know.

    A field that is zero, or whose controller is missing, may be missing.
    """

    cpu: CpuStats
    cpuset: dict[str, int]
    memory: MemoryStats
    pids: PidsStats
    blkio: dict[str, Any]
    hugetlb: dict[str, dict[str, int]]
    intel_rdt: dict[str, Any]
    network_interfaces: None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: statistics, each interval, or ``oom``, a process that the OOM killer took."""

    type: Literal["stats", "oom"]
    id: str
    stats: Stats | None = None


class CpuResources(TypedDict, total=False):
    """config-linux.md, "CPU".  Times in microseconds."""

    shares: int
    quota: int
    period: int
    burst: int
    idle: int
    cpus: str
    mems: str


class MemoryResources(TypedDict, total=False):
    """config-linux.md, "Memory".  Bytes; -1 removes a limit."""

    limit: int
    reservation: int
    swap: int
    checkBeforeUpdate: bool


class PidsResources(TypedDict):
    """config-linux.md, "PIDs".  -1: unlimited."""

    limit: int


class Resources(TypedDict, total=False):
    """New limits: ``linux.resources`` of config-linux.md.  What is left out stays as it is."""

    cpu: CpuResources
    memory: MemoryResources
    pids: PidsResources
    blockIO: Mapping[str, Any]
    hugepageLimits: Sequence[Mapping[str, Any]]
    devices: Sequence[Mapping[str, Any]]
    unified: Mapping[str, str]
