"""Scheduling class, I/O priority, memory policy, cpus and clocks.  Loaded only for a config that has one of these."""

from __future__ import annotations

from _struct import pack

from pyrunc.spec.names import listed
from pyrunc.spec.rules_scheduling import CLOCKS, CPUS_MAX, NODES_MAX, REALTIME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.plan import Plan

# SCHED_* of sched(7)
CLASSES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,  # reserved: no released kernel has it, so this one's answer decides
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
# SCHED_FLAG_* of sched_setattr(2); the bits of the step's policy are the same
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}  # ioprio_set(2)
# MPOL_* of set_mempolicy(2)
MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
# MPOL_F_* >> 13; the bits of the step's policy are these
MEMORY_FLAGS = {"MPOL_F_NUMA_BALANCING": 1, "MPOL_F_RELATIVE_NODES": 2, "MPOL_F_STATIC_NODES": 4}


def mask(text: str, highest: int) -> bytes:
    """The bit mask of a list such as ``0-3,7`` as sched_setaffinity(2) and set_mempolicy(2) take it: whole u64s."""
    bits = 0
    for number in listed(text, highest):
        bits |= 1 << number
    return bits.to_bytes(-(-bits.bit_length() // 64) * 8, "little")  # both architectures are little-endian


def time_offsets(plan: Plan, offsets: dict[str, Any]) -> None:
    """linux.timeOffsets, between the UNSHARE that makes the namespace and the clone that enters it."""
    lines = []
    for clock in CLOCKS:
        if clock in offsets:
            offset = offsets[clock]
            lines.append(f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}")
    if lines:
        plan.time_offsets("/linux/timeOffsets", offsets=lines)


def set_up(plan: Plan, linux: dict[str, Any], process: dict[str, Any]) -> None:
    """process.scheduler, process.ioPriority and linux.memoryPolicy, while there are capabilities."""
    if process.get("scheduler"):
        kind, flags, level, runtime, deadline, period = _scheduler(process["scheduler"])
        plan.scheduler(
            "/process/scheduler",
            policy=flags,
            kind=kind,
            level=level,
            runtime=runtime,
            deadline=deadline,
            period=period,
        )
    inherited(plan, linux, process)


def scheduler_attributes(scheduler: dict[str, Any] | None) -> bytes:
    """process.scheduler as struct sched_attr of sched_setattr(2), for the host side; empty without one."""
    if not scheduler:
        return b""
    kind, flags, level, runtime, deadline, period = _scheduler(scheduler)
    nice, priority = (0, level) if scheduler["policy"] in REALTIME else (level, 0)
    return pack("=IIQiIQQQII", 56, kind, flags, nice, priority, runtime, deadline, period, 0, 0)


def _scheduler(scheduler: dict[str, Any]) -> tuple[int, int, int, int, int, int]:
    """SCHED_*, SCHED_FLAG_*, priority or nice value, runtime, deadline, period."""
    flags = 0
    for name in scheduler.get("flags") or ():
        flags |= SCHEDULER_FLAGS[name]
    policy = scheduler["policy"]
    level = scheduler.get("priority" if policy in REALTIME else "nice", 0)
    times = (scheduler.get("runtime", 0), scheduler.get("deadline", 0), scheduler.get("period", 0))
    return (CLASSES[policy], flags, 0 if policy == "SCHED_DEADLINE" else level, *times)


def inherited(plan: Plan, linux: dict[str, Any], process: dict[str, Any]) -> None:
    """process.ioPriority and linux.memoryPolicy, which a clone takes along."""
    priority = process.get("ioPriority")
    if priority:
        level = priority.get("priority", 0)
        plan.io_priority("/process/ioPriority", kind=IO_CLASSES[priority["class"]], level=level)
    policy = linux.get("memoryPolicy")
    if policy:
        flags = 0
        for name in policy.get("flags") or ():
            flags |= MEMORY_FLAGS[name]
        nodes = mask(policy["nodes"], NODES_MAX) if policy.get("nodes") else b""
        plan.memory_policy("/linux/memoryPolicy", policy=flags, mode=MEMORY_MODES[policy["mode"]], nodes=nodes)


def initial_cpus(plan: Plan, affinity: dict[str, Any]) -> None:
    """execCPUAffinity.initial: before the cgroup is entered, in whichever way."""
    if affinity.get("initial"):
        plan.cpu_initial("/process/execCPUAffinity/initial", cpus=mask(affinity["initial"], CPUS_MAX))


def final_cpus(plan: Plan, affinity: dict[str, Any]) -> None:
    """execCPUAffinity.final: the first thing inside the cgroup; without it the kernel decides (config.md).

    With neither of the two a mask of the caller's is undone, as far as the cgroup allows.
    """
    if affinity.get("final"):
        plan.cpu_final("/process/execCPUAffinity/final", cpus=mask(affinity["final"], CPUS_MAX))
    elif not affinity.get("initial"):
        plan.cpu_final("(default)")
