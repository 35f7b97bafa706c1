"""`update`: change the limits of a container."""

from __future__ import annotations

from pyrunc import command, state
from pyrunc.container import update

USAGE = "update [OPTIONS] ID"
SUMMARY = "change the limits and device rules of a container"
ARGS = (1, 1)
STDERR_IS_OURS = True
FLAGS: tuple[command.Flag, ...] = (
    ("resources", "r", "FILE", "str", "a LinuxResources object as JSON (-: standard input), instead of other options"),
    ("blkio-weight", "", "N", "str", "weight for block devices, 10 to 1000"),
    ("cpu-period", "", "USEC", "str", "period of the CPU quota"),
    ("cpu-quota", "", "USEC", "str", "CPU time per period, for all CPUs together; -1: unlimited"),
    ("cpu-burst", "", "USEC", "str", "unused CPU time that may be spent beyond the quota"),
    ("cpu-share", "", "N", "str", "weight for CPU time, 2 to 262144"),
    ("cpu-rt-period", "", "USEC", "str", "refused unless 0: cgroup v2 has no realtime limits"),
    ("cpu-rt-runtime", "", "USEC", "str", "refused unless 0: cgroup v2 has no realtime limits"),
    ("cpu-idle", "", "N", "str", "1: use only idle CPU time"),
    ("cpuset-cpus", "", "LIST", "str", "CPUs to use, such as 0-3,7"),
    ("cpuset-mems", "", "LIST", "str", "memory nodes to use"),
    ("kernel-memory", "", "BYTES", "str", "ignored with a warning: cgroup v2 has no such limit"),
    ("kernel-memory-tcp", "", "BYTES", "str", "ignored with a warning: cgroup v2 has no such limit"),
    ("memory", "", "BYTES", "str", "memory limit, with k, m or g; -1: unlimited"),
    ("memory-reservation", "", "BYTES", "str", "soft limit: memory below it is protected from reclaim"),
    ("memory-swap", "", "BYTES", "str", "limit of memory plus swap; -1: unlimited"),
    ("pids-limit", "", "N", "str", "number of processes; -1: unlimited"),
    ("l3-cache-schema", "", "TEXT", "str", "L3 cache allocation of a container with intelRdt"),
    ("mem-bw-schema", "", "TEXT", "str", "memory bandwidth allocation of a container with intelRdt"),
)


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Update the container."""
    container = state.Store(state.root_dir(context.root)).open(args[0])
    source = values.get("resources")
    schemata: dict[str, str] = {}
    if source:
        for name in values:
            if name != "resources":
                context.log.warning(f"update: --{name} is ignored with --resources")
        resources = update.from_file(source)
    else:
        schemata = {name: values[name] for name in ("l3-cache-schema", "mem-bw-schema") if values.get(name)}
        if schemata:
            update.rdt_class(container, list(schemata))
        resources = update.from_flags(values)
    with container:
        update.update(container, resources, context.log, schemata)
    return 0
