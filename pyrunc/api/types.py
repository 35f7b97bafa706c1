"""Types of the API's arguments and results: states, statistics, events, resources."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

Path = str | os.PathLike[str]
Status = Literal["creating", "created", "running", "paused", "stopped"]


@dataclass(frozen=True, slots=True)
class State:
    """The state of a container (runtime.md, "State"), as printed by `pyrunc state`.

    ``pid`` is 0 once it has stopped; ``created`` is RFC 3339 in UTC, with nanoseconds.
    """

    oci_version: str
    id: str
    status: Status
    pid: int
    bundle: str
    annotations: Mapping[str, str]
    rootfs: str
    created: str


class CpuUsage(TypedDict, total=False):
    """CPU time, in nanoseconds."""

    total: int
    kernel: int
    user: int


class Throttling(TypedDict, total=False):
    """Effects of the CPU quota; ``throttledTime`` in nanoseconds."""

    periods: int
    throttledPeriods: int
    throttledTime: int


class Pressure(TypedDict):
    """Pressure stall information: percentages of the last 10, 60 and 300 s; ``total`` in
    microseconds."""

    avg10: float
    avg60: float
    avg300: float
    total: int


class Pressures(TypedDict):
    """The time during which some, or all, processes were waiting."""

    some: Pressure
    full: Pressure


class CpuStats(TypedDict, total=False):
    """cpu.stat and cpu.pressure of the cgroup."""

    usage: CpuUsage
    throttling: Throttling
    psi: Pressures


class MemoryEntry(TypedDict, total=False):
    """Bytes; ``limit`` is 2**64 - 1 if there is none."""

    limit: int
    usage: int
    max: int
    failcnt: int


class MemoryStats(TypedDict, total=False):
    """memory.current, memory.max, memory.stat (``raw``) ...; ``swap`` is memory plus swap, as in
    cgroup v1."""

    cache: int
    usage: MemoryEntry
    swap: MemoryEntry
    kernel: MemoryEntry
    kernelTCP: MemoryEntry
    raw: dict[str, int]
    psi: Pressures


class PidsStats(TypedDict, total=False):
    """Number of processes and threads; ``limit`` is absent if there is none."""

    current: int
    limit: int


class BlkioEntry(TypedDict, total=False):
    """Bytes or operations of a device; ``op`` is Read or Write."""

    major: int
    minor: int
    op: str
    value: int


class BlkioStats(TypedDict, total=False):
    """io.stat and io.pressure of the cgroup."""

    ioServiceBytesRecursive: list[BlkioEntry]
    ioServicedRecursive: list[BlkioEntry]
    psi: Pressures


class Stats(TypedDict):
    """A container's usage: the ``data`` of a stats event of `pyrunc events`, with runc's names.

    A field that is zero, or whose controller is missing, may be absent.
    """

    cpu: CpuStats
    cpuset: dict[str, int]
    memory: MemoryStats
    pids: PidsStats
    blkio: BlkioStats
    hugetlb: dict[str, dict[str, int]]
    intel_rdt: dict[str, object]
    network_interfaces: None


@dataclass(frozen=True, slots=True)
class Event:
    """An event: statistics, once per interval, or ``oom``, a process killed by the OOM killer."""

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
    """New limits: ``linux.resources`` of config-linux.md. Absent fields keep their value."""

    cpu: CpuResources
    memory: MemoryResources
    pids: PidsResources
    blockIO: Mapping[str, object]
    hugepageLimits: Sequence[Mapping[str, object]]
    devices: Sequence[Mapping[str, object]]
    unified: Mapping[str, str]
