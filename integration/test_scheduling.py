"""process.scheduler, process.ioPriority, linux.memoryPolicy, linux.timeOffsets, and the initial
CPUs of a container."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.harness import Box, Container

Make = Callable[..., Container]
Refused = Callable[..., None]
IOPRIO_GET = {"x86_64": "252", "aarch64": "31"}[platform.machine()]
OLD_RUNC = "runc older than 1.2 ignores the field"
TIME = {"/linux/namespaces/-": {"type": "time"}}


def _scheduling(report: dict[str, Any]) -> tuple[int, int, int]:
    """(class, nice, realtime priority) from the stat file in the report, see proc_pid_stat(5)."""
    fields = report["stat"].rpartition(") ")[2].split()
    return int(fields[41 - 3]), int(fields[19 - 3]), int(fields[40 - 3])


def _realtime_is_possible() -> bool:
    """cgroup v1's cpu controller grants realtime by cgroup, and this cgroup's share may be zero."""
    code = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))"
    return subprocess.run(["python3", "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.pyrunc_only(OLD_RUNC)
@pytest.mark.parametrize(
    ("scheduler", "seen"),
    [
        ({"policy": "SCHED_OTHER"}, (0, 0, 0)),
        ({"policy": "SCHED_OTHER", "nice": 19}, (0, 19, 0)),
        ({"policy": "SCHED_BATCH", "nice": 5}, (3, 5, 0)),
        ({"policy": "SCHED_IDLE"}, (5, 0, 0)),
    ],
)
def test_scheduler(container: Make, scheduler: dict[str, Any], seen: tuple[int, int, int]) -> None:
    edits = {"/process/scheduler": scheduler, "/process/user": {"uid": 1000, "gid": 1000}}
    assert _scheduling(container(edits=edits).run().report) == seen


@pytest.mark.pyrunc_only(OLD_RUNC)
@pytest.mark.needs_cap("SYS_NICE")
@pytest.mark.parametrize(("policy", "number"), [("SCHED_FIFO", 1), ("SCHED_RR", 2)])
def test_realtime_scheduler(container: Make, policy: str, number: int) -> None:
    if not _realtime_is_possible():
        pytest.skip("realtime classes are refused here (cpu.rt_runtime_us of cgroup v1)")
    scheduler = {"policy": policy, "priority": 7, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    made = container("report", edits={"/process/scheduler": scheduler})
    assert _scheduling(made.run().report) == (number, 0, 7)


@pytest.mark.pyrunc_only(OLD_RUNC)
@pytest.mark.needs_cap("SYS_NICE")
def test_deadline_scheduler(container: Make, refused: Refused) -> None:
    scheduler = {"policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 30_000_000, "period": 30_000_000}
    made = container(edits={"/process/scheduler": scheduler})
    result = made.run(check=False)
    if result.rc == 0:
        assert _scheduling(result.report)[0] == 6
    else:  # this machine's cpusets may leave no root domain that admits it
        assert "/process/scheduler: sched_setattr: E" in result.err


@pytest.mark.pyrunc_only(OLD_RUNC)
def test_scheduler_that_the_kernel_does_not_have(container: Make, refused: Refused) -> None:
    refused(
        container(edits={"/process/scheduler": {"policy": "SCHED_ISO"}}).create(check=False),
        "/process/scheduler",
        "EINVAL",
        "reserved",
    )


@pytest.mark.pyrunc_only(OLD_RUNC)
@pytest.mark.parametrize(
    ("priority", "value"),
    [
        ({"class": "IOPRIO_CLASS_BE", "priority": 7}, 2 << 13 | 7),
        ({"class": "IOPRIO_CLASS_RT", "priority": 0}, 1 << 13),
        ({"class": "IOPRIO_CLASS_IDLE", "priority": 4}, 3 << 13 | 4),
    ],
)
def test_io_priority(container: Make, priority: dict[str, Any], value: int) -> None:
    made = container("syscall", IOPRIO_GET, "1", "0", edits={"/process/ioPriority": priority})
    assert made.run().objects[0]["ret"] == value


@pytest.mark.pyrunc_only(OLD_RUNC)
@pytest.mark.parametrize(
    ("policy", "seen"),
    [
        ({"mode": "MPOL_BIND", "nodes": "0"}, "bind:0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "bind=static:0"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}, "interleave=relative:0"),
        ({"mode": "MPOL_PREFERRED", "nodes": "0"}, "prefer:0"),
        ({"mode": "MPOL_PREFERRED"}, "local"),
        ({"mode": "MPOL_LOCAL"}, "local"),
        ({"mode": "MPOL_DEFAULT"}, "default"),
    ],
)
def test_memory_policy(container: Make, policy: dict[str, Any], seen: str) -> None:
    if not Path("/proc/self/numa_maps").exists():
        pytest.skip("this kernel was built without NUMA")
    made = container("read", "/proc/self/numa_maps", edits={"/linux/memoryPolicy": policy})
    words = {line.split()[1] for line in made.run().objects[0]["text"].splitlines()}
    assert words == {seen}


@pytest.mark.pyrunc_only(OLD_RUNC)
def test_memory_policy_with_a_node_that_is_not_there(container: Make, refused: Refused) -> None:
    made = container(edits={"/linux/memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0,1023"}})
    refused(made.create(check=False), "/linux/memoryPolicy/nodes", "that this host has", "0,1023")


@pytest.mark.pyrunc_only(OLD_RUNC)
def test_time_offsets(container: Make) -> None:
    offsets = {"monotonic": {"secs": 86400, "nanosecs": 500}, "boottime": {"secs": 1_000_000}}
    made = container("report", "--", "read", "/proc/uptime", edits={**TIME, "/linux/timeOffsets": offsets})
    found = made.run()
    lines = [line.split() for line in found.report["timens_offsets"].splitlines()]
    assert lines == [["monotonic", "86400", "500"], ["boottime", "1000000", "0"]]
    (read,) = [item for item in found.objects if item["action"] == "read"]
    host = float(Path("/proc/uptime").read_text().split()[0])
    assert 0 <= host + 1_000_000 - float(read["text"].split()[0]) < 60
    assert Path("/proc/self/timens_offsets").read_text().split()[1] == "0"


@pytest.mark.pyrunc_only(OLD_RUNC)
def test_negative_time_offset(container: Make) -> None:
    edits = {**TIME, "/linux/timeOffsets": {"monotonic": {"secs": -1, "nanosecs": 999_999_999}}}
    lines = container(edits=edits).run().report["timens_offsets"].split("\n")
    assert lines[0].split() == ["monotonic", "-1", "999999999"]


@pytest.mark.pyrunc_only(OLD_RUNC)
@pytest.mark.parametrize("secs", [-(10**9), 2**62])
def test_time_offset_out_of_range(container: Make, refused: Refused, secs: int) -> None:
    edits = {**TIME, "/linux/timeOffsets": {"monotonic": {"secs": 1}, "boottime": {"secs": secs}}}
    refused(
        container(edits=edits).create(check=False), "/linux/timeOffsets", f"boottime {secs} 0", "ERANGE", "negative"
    )


@pytest.mark.pyrunc_only("runc before 1.2 keeps the caller's cpus")
def test_the_callers_cpus_are_not_inherited(container: Make, box: Box) -> None:
    """The affinity of a caller must not bind its containers."""
    count = len(os.sched_getaffinity(0))
    if count < 2:
        pytest.skip("this machine has one cpu")
    first = min(os.sched_getaffinity(0))
    found = container().run(preexec=lambda: os.sched_setaffinity(0, {first}))
    assert found.report["cpus"] >= count


# -- exec ------------------------------------------------------------------------------------------

CPUS = sorted(os.sched_getaffinity(0))
two_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="this machine has one cpu")


def _exec(container: Make, **fields: Any) -> dict[str, Any]:
    """The report of a process that is executed in a container whose first process has these
    fields."""
    made = container("sleep", "600", edits={f"/process/{name}": value for name, value in fields.items()})
    made.create()
    made.start()
    return made.call("exec", made.id, "/probe", "report").report


def _allowed(report: dict[str, Any]) -> str:
    (line,) = [line for line in report["status"].splitlines() if line.startswith("Cpus_allowed_list:")]
    return str(line.split()[1])


@two_cpus
@pytest.mark.pyrunc_only(OLD_RUNC)
@pytest.mark.parametrize(
    ("affinity", "seen"),
    [({"initial": "0"}, "0"), ({"final": "1"}, "1"), ({"initial": "0", "final": "1"}, "1"), ({"initial": "1"}, "1")],
)
def test_exec_affinity(container: Make, affinity: dict[str, str], seen: str) -> None:
    assert _allowed(_exec(container, execCPUAffinity=affinity)) == seen


@two_cpus
@pytest.mark.pyrunc_only(OLD_RUNC)
def test_exec_affinity_is_not_for_the_first_process(container: Make) -> None:
    assert container(edits={"/process/execCPUAffinity": {"initial": "0", "final": "0"}}).run().report["cpus"] >= 2


@pytest.mark.pyrunc_only(OLD_RUNC)
def test_exec_with_cpus_that_are_not_there(container: Make) -> None:
    made = container("sleep", "600", edits={"/process/execCPUAffinity": {"final": "8191"}})
    made.create()
    made.start()
    for _ in range(5):  # its init must be reaped at once, or the container could not end
        result = made.call("exec", made.id, "/probe", "report", check=False)
        assert result.rc == 255
        assert "/process/execCPUAffinity/final: sched_setaffinity: EINVAL" in result.err
    made.delete("--force")


@pytest.mark.pyrunc_only(OLD_RUNC)
def test_exec_has_the_class_of_the_first_process(container: Make) -> None:
    report = _exec(container, scheduler={"policy": "SCHED_BATCH", "nice": 3})
    assert _scheduling(report) == (3, 3, 0)


@pytest.mark.pyrunc_only(OLD_RUNC)
def test_time_offsets_in_a_user_namespace(container: Make) -> None:
    """The file is opened with the runtime's original rights, by the process that is already in the
    cgroup."""
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    edits = {
        "/linux/namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "user", "time")],
        "/linux/uidMappings": mapping,
        "/linux/gidMappings": mapping,
        "/linux/timeOffsets": {"boottime": {"secs": 1000}},
    }
    made = container(edits=edits)
    made.bundle.rootfs.parent.chmod(0o755)
    lines = made.run().report["timens_offsets"].splitlines()
    assert [line.split() for line in lines] == [["monotonic", "0", "0"], ["boottime", "1000", "0"]]
