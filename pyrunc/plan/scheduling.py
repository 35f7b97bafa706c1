"""Scheduling class, I/O priority, memory policy, CPU affinity, and the offsets of clocks."""

from __future__ import annotations

from _struct import pack

from pyrunc.spec.names import listed
from pyrunc.spec.rules_scheduling import CPUS_MAX, NODES_MAX, REALTIME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan.context import Context
    from pyrunc.spec.types import Scheduler

# SCHED_* of sched(7)
CLASSES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,  # reserved: no released kernel has it, so the running kernel decides
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
    """The bit mask of a list such as ``0-3,7``, in whole u64s.

    The form of sched_setaffinity(2) and set_mempolicy(2).
    """
    bits = 0
    for number in listed(text, highest):
        bits |= 1 << number
    return bits.to_bytes(-(-bits.bit_length() // 64) * 8, "little")  # x86_64, arm64


def clock_offsets(ctx: Context) -> None:
    """TIME_OFFSETS."""
    offsets = ctx.linux.get("timeOffsets", {})
    clocks = (("monotonic", offsets.get("monotonic")), ("boottime", offsets.get("boottime")))
    lines = [
        f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}" for clock, offset in clocks if offset is not None
    ]
    if lines:
        ctx.plan.time_offsets("/linux/timeOffsets", offsets=lines)


def scheduler(ctx: Context, *, clones_later: bool) -> None:
    """SCHEDULER, IO_PRIORITY and MEMORY_POLICY.

    If init clones itself afterwards, the host side sets the scheduling class at SYNC_READY: a clone
    does not inherit SCHED_DEADLINE, nor anything after SCHED_RESET_ON_FORK.
    """
    wanted = ctx.process.get("scheduler")
    if wanted:
        if clones_later:
            ctx.plan.sched_attr = scheduler_attributes(wanted)
        else:
            kind, flags, level, runtime, deadline, period = _scheduler(wanted)
            ctx.plan.scheduler(
                "/process/scheduler",
                policy=flags,
                kind=kind,
                level=level,
                runtime=runtime,
                deadline=deadline,
                period=period,
            )
    _io_priority(ctx)
    _memory_policy(ctx)


def scheduler_attributes(wanted: Scheduler) -> bytes:
    """process.scheduler as struct sched_attr of sched_setattr(2)."""
    kind, flags, level, runtime, deadline, period = _scheduler(wanted)
    nice, priority = (0, level) if wanted["policy"] in REALTIME else (level, 0)
    return pack("=IIQiIQQQII", 56, kind, flags, nice, priority, runtime, deadline, period, 0, 0)


def _scheduler(wanted: Scheduler) -> tuple[int, int, int, int, int, int]:
    """SCHED_*, SCHED_FLAG_*, priority or nice value, runtime, deadline, period."""
    flags = 0
    for name in wanted.get("flags", ()):
        flags |= SCHEDULER_FLAGS[name]
    policy = wanted["policy"]
    level = wanted.get("priority", 0) if policy in REALTIME else wanted.get("nice", 0)
    times = (wanted.get("runtime", 0), wanted.get("deadline", 0), wanted.get("period", 0))
    return (CLASSES[policy], flags, 0 if policy == "SCHED_DEADLINE" else level, *times)


def _io_priority(ctx: Context) -> None:
    priority = ctx.process.get("ioPriority")
    if priority:
        level = priority.get("priority", 0)
        ctx.plan.io_priority("/process/ioPriority", kind=IO_CLASSES[priority["class"]], level=level)


def _memory_policy(ctx: Context) -> None:
    policy = ctx.linux.get("memoryPolicy")
    if policy:
        flags = 0
        for name in policy.get("flags", ()):
            flags |= MEMORY_FLAGS[name]
        nodes = mask(policy.get("nodes", ""), NODES_MAX)
        ctx.plan.memory_policy("/linux/memoryPolicy", policy=flags, mode=MEMORY_MODES[policy["mode"]], nodes=nodes)


def initial_cpus(ctx: Context) -> None:
    """CPU_INITIAL: execCPUAffinity.initial, before the cgroup is entered by whatever step."""
    cpus = ctx.process.get("execCPUAffinity", {}).get("initial")
    if cpus:
        ctx.plan.cpu_initial("/process/execCPUAffinity/initial", cpus=mask(cpus, CPUS_MAX))


def final_cpus(ctx: Context) -> None:
    """CPU_FINAL: execCPUAffinity.final, the first step inside the cgroup.

    Without the field the kernel decides (config.md). With neither of the two a mask that the
    caller set is reset, as far as the cgroup allows.
    """
    affinity = ctx.process.get("execCPUAffinity", {})
    cpus = affinity.get("final")
    if cpus:
        ctx.plan.cpu_final("/process/execCPUAffinity/final", cpus=mask(cpus, CPUS_MAX))
    elif not affinity.get("initial"):
        ctx.plan.cpu_final("(default)")
