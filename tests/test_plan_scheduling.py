"""Scheduling fields: masks, the system calls of init, and the order around the cgroup."""

from __future__ import annotations

import os
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import init_parent
from init_parent import Spawn, fail, finish, run, shell
from plan_support import Facts, compiled, names, step
from pyrunc.errors import ConfigError
from pyrunc.plan import Plan, ops, scheduling
from pyrunc.spec import schema, validate
from pyrunc.spec.names import listed
from pyrunc.spec.types import Config, Process

init_exe, spawn = init_parent.init_exe, init_parent.spawn


@given(st.sets(st.integers(0, 1023), min_size=1))
def test_mask_has_the_bits_of_the_list(numbers: set[int]) -> None:
    text = ",".join(map(str, numbers))
    made = scheduling.mask(text, 1023)
    assert len(made) % 8 == 0
    assert {bit for bit in range(len(made) * 8) if made[bit // 8] >> bit % 8 & 1} == numbers
    assert set(listed(text, 1023)) == numbers


@pytest.mark.parametrize(
    ("text", "numbers"), [("0-3,7", [0, 1, 2, 3, 7]), ("5", [5]), ("", []), ("x", []), ("0-1024", []), ("1024", [])]
)
def test_lists(text: str, numbers: list[int]) -> None:
    assert listed(text, 1023) == numbers


def test_tables_match_the_schema() -> None:
    nodes: tuple[schema.Node, ...] = (schema.SCHEDULER, schema.MEMORY_POLICY, schema.PROCESS)
    scheduler, policy, process = (node[1] for node in nodes)
    assert set(scheduling.CLASSES) == set(scheduler["policy"][1])
    assert set(scheduling.SCHEDULER_FLAGS) == set(scheduler["flags"][1][1])
    assert set(scheduling.IO_CLASSES) == set(process["ioPriority"][1]["class"][1])
    assert set(scheduling.MEMORY_MODES) == set(policy["mode"][1])
    assert set(scheduling.MEMORY_FLAGS) == set(policy["flags"][1][1])


def test_flags_match_the_policy_bits() -> None:
    for table, op, prefix in (
        (scheduling.SCHEDULER_FLAGS, "SCHEDULER", "SCHED_FLAG_"),
        (scheduling.MEMORY_FLAGS, "MEMORY_POLICY", "MPOL_F_"),
    ):
        bits = {name: getattr(ops, f"P_{op}_{name.removeprefix(prefix)}") for name in table}
        assert len(bits) > 2
        assert bits == table


def test_clocks_are_set_before_a_process_is_in_the_namespace() -> None:
    namespaces = [{"type": "mount"}, {"type": "time"}]
    plan = compiled({"linux": {"namespaces": namespaces, "timeOffsets": {"boottime": {"secs": -5}}}})
    order = names(plan)
    assert order.index("UNSHARE") < order.index("TIME_OFFSETS") < order.index("CLONE_INIT")
    assert step(plan, "TIME_OFFSETS")["offsets"] == ["boottime -5 0"]


def test_first_process_has_no_affinity() -> None:
    """execCPUAffinity is not applicable to the container's init process (config.md)."""
    plan = compiled({"process": {"execCPUAffinity": {"initial": "0", "final": "0"}}})
    assert not {"CPU_INITIAL", "CPU_FINAL"} & set(names(plan))
    assert not step(plan, "CLONE_INIT")["policy"]


@pytest.mark.parametrize(("nodes", "missing"), [("0-1", False), ("0,3", False), ("2", True), ("0-2", True)])
def test_nodes_must_exist(nodes: str, missing: bool) -> None:
    config: Config = {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "linux": {"memoryPolicy": {"mode": "MPOL_INTERLEAVE", "nodes": nodes}},
    }
    validate.check(config)  # nothing known about the host
    if not missing:
        validate.check(config, facts=Facts())
        return
    with pytest.raises(ConfigError, match="with memory: 0,1,3"):
        validate.check(config, facts=Facts())
    config["linux"]["memoryPolicy"]["flags"] = ["MPOL_F_RELATIVE_NODES"]
    validate.check(config, facts=Facts())


def test_ignored_nice_value_is_a_warning() -> None:
    process: Process = {"cwd": "/", "args": ["x"], "scheduler": {"policy": "SCHED_FIFO", "priority": 1, "nice": 5}}
    (warning,) = validate.check({"ociVersion": "1.3.0", "root": {"path": "r"}, "process": process})
    assert warning.pointer == "/process/scheduler/nice"


# -- init ------------------------------------------------------------------------------------------


def test_init_sets_the_scheduling_class(spawn: Spawn) -> None:
    plan = Plan()
    plan.scheduler("", kind=scheduling.CLASSES["SCHED_BATCH"], level=3)
    plan.io_priority("", kind=2, level=6)
    stat = run(spawn(), finish(plan, ["cat", "/proc/self/stat"])).rpartition(") ")[2].split()
    assert (stat[41 - 3], stat[19 - 3]) == ("3", "3")


def test_init_reports_the_class_that_it_cannot_set(spawn: Spawn) -> None:
    plan = Plan()
    plan.scheduler("", kind=99)
    record = fail(spawn(), finish(plan, shell("true")))
    assert (record.step, record.call, record.err) == (0, "sched_setattr", 22)


def test_init_sets_the_affinity(spawn: Spawn) -> None:
    last = max(os.sched_getaffinity(0))
    plan = Plan()
    plan.cpu_initial("", cpus=scheduling.mask(str(last), 8191))
    plan.clone_init("", policy=ops.P_CLONE_INIT_COMPLETE, cgroup_fd=0xFFFFFFFF)
    finish(plan, ["grep", "Cpus_allowed_list", "/proc/self/status"])
    parent = spawn()
    parent.plan(plan)
    parent.adopt()
    parent.go()
    parent.recv()
    parent.go()
    assert parent.output().split()[1] == str(last)


def test_init_resets_the_affinity_by_default(spawn: Spawn) -> None:
    """Like CLONE_INIT for `create`."""
    plan = Plan()
    plan.cpu_initial("", cpus=scheduling.mask(str(max(os.sched_getaffinity(0))), 8191))
    plan.cpu_final("")
    parent = spawn()
    text = run(parent, finish(plan, ["grep", "Cpus_allowed_list", "/proc/self/status"]))
    with open("/sys/devices/system/cpu/online") as file:
        assert text.split()[1] == file.read().strip()


def test_init_keeps_the_affinity_with_initial_only(spawn: Spawn) -> None:
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("one cpu")
    os.sched_setaffinity(0, {min(before)})
    try:
        parent = spawn()
    finally:
        os.sched_setaffinity(0, before)
    plan = Plan()
    plan.clone_init("", cgroup_fd=0xFFFFFFFF)
    finish(plan, ["nproc"])
    parent.plan(plan)
    parent.adopt()
    parent.recv()
    parent.go()
    assert int(parent.output()) >= len(before)


@pytest.mark.parametrize("op", ["cpu_initial", "cpu_final"])
def test_missing_cpus(spawn: Spawn, op: str) -> None:
    plan = Plan()
    getattr(plan, op)("", cpus=scheduling.mask("8191", 8191))
    record = fail(spawn(), finish(plan, shell("true")))
    assert (record.call, record.err) == ("sched_setaffinity", 22)
    assert "online" in record.detail


@pytest.mark.skipif(not pathlib.Path("/proc/self/numa_maps").exists(), reason="this kernel was built without NUMA")
def test_init_sets_the_memory_policy(spawn: Spawn) -> None:
    plan = Plan()
    plan.memory_policy("", mode=scheduling.MEMORY_MODES["MPOL_BIND"], nodes=scheduling.mask("0", 1023))
    lines = run(spawn(), finish(plan, ["cat", "/proc/self/numa_maps"])).splitlines()
    assert {line.split()[1] for line in lines} == {"bind:0"}


@pytest.mark.skipif(not pathlib.Path("/proc/self/numa_maps").exists(), reason="this kernel was built without NUMA")
def test_the_highest_node_of_a_mask(spawn: Spawn) -> None:
    """The kernel uses one bit less than the given number; without any, MPOL_PREFERRED is the
    local node."""
    if pathlib.Path("/sys/devices/system/node/node63").exists():
        pytest.skip("this machine has it")
    plan = Plan()
    plan.memory_policy("", mode=scheduling.MEMORY_MODES["MPOL_PREFERRED"], nodes=scheduling.mask("63", 1023))
    record = fail(spawn(), finish(plan, ["true"]))
    assert (record.call, record.err) == ("set_mempolicy", 22)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(not pathlib.Path("/proc/self/timens_offsets").exists(), reason="no time namespaces here")
def test_init_sets_clocks(spawn: Spawn) -> None:
    plan = Plan()
    plan.dumpable("", value=0)
    plan.unshare("", flags=0x80)
    plan.time_offsets("", offsets=["monotonic 7 1", "boottime 9 0"])
    plan.clone_init("", cgroup_fd=0xFFFFFFFF)
    finish(plan, ["cat", "/proc/self/timens_offsets"])
    parent = spawn()
    parent.plan(plan)
    parent.adopt()
    parent.recv()
    parent.go()
    assert parent.output().split() == ["monotonic", "7", "1", "boottime", "9", "0"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(not pathlib.Path("/proc/self/timens_offsets").exists(), reason="no time namespaces here")
def test_init_reports_a_clock_that_it_cannot_set(spawn: Spawn) -> None:
    plan = Plan()
    plan.unshare("", flags=0x80)
    plan.time_offsets("", offsets=["monotonic 7 1", "boottime -999999999 0"])
    record = fail(spawn(), finish(plan, shell("true")))
    assert (record.call, record.err, record.arg, record.item) == ("write", 34, 1, 1)
