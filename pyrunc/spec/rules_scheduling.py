"""Rules for scheduler, ioPriority, execCPUAffinity, memoryPolicy and timeOffsets.

Only loaded for a config with one of these fields.
"""

from __future__ import annotations

from pyrunc.spec.names import escape, listed
from pyrunc.spec.report import NOTHING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from pyrunc.spec.report import Report
    from pyrunc.spec.types import MemoryPolicy, Process, Scheduler, TimeOffsets

FAIR = ("SCHED_OTHER", "SCHED_BATCH", "SCHED_IDLE")  # with a nice value
REALTIME = ("SCHED_FIFO", "SCHED_RR")  # with a priority
NICE_MIN, NICE_MAX = -20, 19
PRIORITY_MIN, PRIORITY_MAX = 1, 99
RUNTIME_MIN = 1024  # ns; kernel/sched/deadline.c, DL_SCALE
TIME_MAX = (1 << 63) - 1  # ns; the kernel treats larger values as negative

CPUS_MAX = 8191  # the largest NR_CPUS
NODES_MAX = 1023  # the largest MAX_NUMNODES

WITHOUT_NODES = ("MPOL_DEFAULT", "MPOL_LOCAL")
WITH_NODES = ("MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE")

CLOCKS: tuple[Literal["monotonic"], Literal["boottime"]] = ("monotonic", "boottime")
NANOSECONDS = 1_000_000_000


def process(program: Process, report: Report) -> None:
    """`process.scheduler` and `process.execCPUAffinity`; `ioPriority` needs only its types."""
    scheduler = program.get("scheduler")
    if scheduler and scheduler.get("policy"):
        _scheduler(scheduler, report)
    affinity = program.get("execCPUAffinity", {})
    name: Literal["initial", "final"]
    for name in ("initial", "final"):
        text = affinity.get(name, "")
        if text and not listed(text, CPUS_MAX):
            report.bad(f"/process/execCPUAffinity/{name}", f"a list such as 0-3,7 of cpus up to {CPUS_MAX}", text)


def _scheduler(scheduler: Scheduler, report: Report) -> None:
    pointer, policy = "/process/scheduler", scheduler["policy"]
    nice, priority = scheduler.get("nice", 0), scheduler.get("priority", 0)
    if policy in FAIR and not NICE_MIN <= nice <= NICE_MAX:
        report.bad(f"{pointer}/nice", f"integer from {NICE_MIN} to {NICE_MAX}", nice)
    elif nice and policy not in FAIR:
        report.warn(f"{pointer}/nice", f"0 for {policy}", nice, "ignored")
    if policy in REALTIME:
        if not PRIORITY_MIN <= priority <= PRIORITY_MAX:
            value = scheduler.get("priority", NOTHING)
            report.bad(f"{pointer}/priority", f"integer from {PRIORITY_MIN} to {PRIORITY_MAX} for {policy}", value)
    elif priority:
        report.bad(f"{pointer}/priority", f"0 for {policy}, only SCHED_FIFO and SCHED_RR have priorities", priority)
    if policy == "SCHED_DEADLINE":
        _deadline(scheduler, pointer, report)
    else:
        name: Literal["runtime", "deadline", "period"]
        for name in ("runtime", "deadline", "period"):
            if scheduler.get(name):
                report.bad(f"{pointer}/{name}", f"0 for {policy}, it belongs to SCHED_DEADLINE", scheduler[name])


def _deadline(scheduler: Scheduler, pointer: str, report: Report) -> None:
    """1024 ns <= runtime <= deadline <= period; the kernel only reports EINVAL (sched(7))."""
    runtime, deadline = scheduler.get("runtime", 0), scheduler.get("deadline", 0)
    period = scheduler.get("period", 0)
    if not RUNTIME_MIN <= runtime <= TIME_MAX:
        value = scheduler.get("runtime", NOTHING)
        report.bad(f"{pointer}/runtime", f"from {RUNTIME_MIN} to {TIME_MAX} ns", value)
        return  # the other limits depend on it
    if not runtime <= deadline <= TIME_MAX:
        value = scheduler.get("deadline", NOTHING)
        report.bad(f"{pointer}/deadline", f"from the runtime {runtime} to {TIME_MAX} ns", value)
        return
    if period and not deadline <= period <= TIME_MAX:
        report.bad(f"{pointer}/period", f"0, or from the deadline {deadline} to {TIME_MAX} ns", period)


def memory_policy(policy: MemoryPolicy, report: Report) -> None:
    """`linux.memoryPolicy`; each problem has the words that scripts and runc's tests match."""
    _memory_policy(policy, report)
    for problem in report.problems:
        field = problem.pointer.removeprefix("/linux/memoryPolicy/").partition("/")[0]
        if field in ("mode", "nodes", "flags") and problem.pointer.startswith("/linux/memoryPolicy/"):
            words = f"invalid memory policy {field.removesuffix('s')}"
            problem.hint = f"{words}: {problem.hint}" if problem.hint else words


def _memory_policy(policy: MemoryPolicy, report: Report) -> None:
    """Nodes that each mode requires, flags that exclude each other, and nodes that exist."""
    pointer, mode, text = "/linux/memoryPolicy", policy.get("mode"), policy.get("nodes", "")
    nodes = listed(text, NODES_MAX) if text else []
    if text and not nodes:
        report.bad(f"{pointer}/nodes", f"a list such as 0-3,7 of nodes up to {NODES_MAX}", text)
        return
    if mode in WITHOUT_NODES and nodes:
        report.bad(f"{pointer}/nodes", f"no nodes for {mode}", text, f"mode requires 0 nodes but got {len(nodes)}")
    elif mode in WITH_NODES and not nodes:
        report.bad(f"{pointer}/nodes", f"at least one node for {mode}", policy.get("nodes", NOTHING))
    flags = policy.get("flags", ())
    fixed = [name for name in ("MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES") if name in flags]
    if len(fixed) == 2:
        report.bad(f"{pointer}/flags", "one of MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES", flags)
    elif fixed and not nodes:
        report.bad(f"{pointer}/flags", f"nodes beside {fixed[0]}", flags)
    if "MPOL_F_NUMA_BALANCING" in flags and mode not in ("MPOL_BIND", "MPOL_PREFERRED_MANY"):
        report.bad(f"{pointer}/flags", f"no MPOL_F_NUMA_BALANCING for {mode}", flags)
    if nodes and report.facts is not None and "MPOL_F_RELATIVE_NODES" not in flags:
        there = report.facts.memory_nodes
        missing = [node for node in nodes if node not in there]
        if missing:
            known = ",".join(map(str, sorted(there)))
            report.bad(f"{pointer}/nodes", f"nodes that this host has (with memory: {known or 'none'})", text)


def time_offsets(offsets: TimeOffsets, report: Report) -> None:
    """`linux.timeOffsets`: two clocks, and only for a new time namespace."""
    if not offsets:
        return
    pointer = "/linux/timeOffsets"
    if report.namespaces.get("time", NOTHING) != "":
        joined = "time" in report.namespaces
        hint = "the offsets of a namespace that is joined are set already" if joined else ""
        report.bad(pointer, "a new time namespace in /linux/namespaces", offsets, hint)
    # The keys are names of clocks: an unknown one is an unsupported value, not a field of a later
    # version.
    for name in offsets:
        if name not in CLOCKS:
            report.bad(f"{pointer}/{escape(name)}", "the clock monotonic or boottime", name)
    for clock in CLOCKS:
        nanoseconds = offsets.get(clock, {}).get("nanosecs", 0)
        if nanoseconds >= NANOSECONDS:
            report.bad(f"{pointer}/{clock}/nanosecs", f"integer from 0 to {NANOSECONDS - 1}", nanoseconds)
