"""linux.resources -> cgroup v2 files: the conversion vectors."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import transcript
from json_type import Json
from pyrunc.cgroup import resources
from pyrunc.cgroup.resources import LATER, OPTIONAL, convert, cpu_weight, io_weight
from pyrunc.errors import ConfigError
from pyrunc.spec.types import Resources

kept = transcript.follow("pyrunc.cgroup.resources")


def files(given: Json) -> list[tuple[str, str]]:
    return [(write.file, write.text) for write in convert(given)]


@pytest.mark.parametrize(
    ("shares", "weight"),
    [
        (0, 0), (1, 1), (2, 1), (3, 2), (10, 4), (102, 17), (128, 21), (256, 35), (512, 59), (1024, 100), (2048, 174),
        (4096, 303), (10240, 639), (102400, 4429), (262143, 10000), (262144, 10000), (1 << 40, 10000),
    ],
)  # fmt: skip
def test_cpu_weight(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight


@given(st.integers(3, 262143))
def test_cpu_weight_is_the_formula(shares: int) -> None:
    log2 = math.log2(shares)
    exact = 10 ** ((log2 * log2 + 125 * log2) / 612 - 7 / 34)
    assert abs(cpu_weight(shares) - math.ceil(exact - 1e-9)) == 0


@given(st.integers(0, 262143))
def test_cpu_weight_never_falls(shares: int) -> None:
    assert cpu_weight(shares) <= cpu_weight(shares + 1)


@pytest.mark.parametrize(("weight", "expected"), [(10, 1), (100, 910), (500, 4950), (1000, 10000)])
def test_io_weight(weight: int, expected: int) -> None:
    assert io_weight(weight) == expected


@pytest.mark.parametrize(
    ("limit", "expected"), [(-1, [("pids.max", "max")]), (0, [("pids.max", "1")]), (100, [("pids.max", "100")])]
)
def test_pids(limit: int, expected: list[tuple[str, str]]) -> None:
    assert files({"pids": {"limit": limit}}) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, []),
        ({"devices": [{"allow": False}]}, []),
        ({"pids": {"limit": -1}, "memory": {"limit": -1, "swap": -1}, "cpu": {"quota": -1}}, []),
        ({"pids": {"limit": 0}}, ["pids"]),
        ({"pids": {"limit": 7}, "memory": {"limit": -1, "reservation": 4096}}, ["pids", "memory"]),
        ({"cpu": {"quota": 5000}}, ["cpu"]),
        ({"cpu": {"period": 5000}}, ["cpu"]),
        ({"unified": {"pids.max": "max"}}, ["unified"]),  # config-linux.md: MUST be an error without its controller
        ({"network": {"classID": 1}}, ["network"]),
    ],
)
def test_what_limits(given: Json, expected: list[str]) -> None:
    """A value that equals the default of a cgroup without the controller is not a limit."""
    assert resources.limiting(given) == expected


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ({}, []),
        ({"limit": 0, "swap": 0, "reservation": 0}, []),
        ({"limit": 33554432}, [("memory.max", "33554432")]),
        ({"limit": 33554432, "swap": 67108864}, [("memory.swap.max", "33554432"), ("memory.max", "33554432")]),
        ({"limit": 1000, "swap": 1000}, [("memory.swap.max", "0"), ("memory.max", "1000")]),
        ({"limit": 1000, "swap": -1}, [("memory.swap.max", "max"), ("memory.max", "1000")]),
        ({"limit": 1000, "swap": 0}, [("memory.max", "1000")]),
        ({"swap": -1}, [("memory.swap.max", "max")]),
        ({"limit": -1}, [("memory.swap.max", "max"), ("memory.max", "max")]),
        ({"limit": -1, "swap": 0}, [("memory.swap.max", "max"), ("memory.max", "max")]),
        ({"limit": -1, "swap": -1}, [("memory.swap.max", "max"), ("memory.max", "max")]),
        ({"reservation": 5000}, [("memory.low", "5000")]),
        ({"limit": 9000, "reservation": -1}, [("memory.max", "9000"), ("memory.low", "max")]),
        ({"kernel": 1, "kernelTCP": 2, "swappiness": 60, "disableOOMKiller": True}, []),
    ],
)
def test_memory(memory: Json, expected: list[tuple[str, str]]) -> None:
    assert files({"memory": memory}) == expected


@pytest.mark.parametrize(
    ("memory", "text"),
    [
        ({"swap": 1000}, "unable to set swap limit without memory limit"),
        ({"limit": -1, "swap": 1000}, "unable to set swap limit without memory limit"),
        ({"limit": 1000, "swap": 999}, "/linux/resources/memory/swap: expected at least the memory limit 1000"),
    ],
)
def test_memory_contradictions(memory: Json, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        convert({"memory": memory})


def test_a_missing_swap_file_matters_only_for_a_real_limit() -> None:
    """Without swap there is no memory.swap.max; "none" and "unlimited" are both true there
    already."""
    flags = {swap: convert({"memory": {"limit": 1000, "swap": swap}})[0].flags for swap in (1000, -1, 1500)}
    assert flags == {1000: OPTIONAL, -1: OPTIONAL, 1500: 0}


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        ({"shares": 1024}, [("cpu.weight", "100")]),
        ({"shares": 0}, []),
        ({"quota": 50000}, [("cpu.max", "50000 100000")]),
        ({"quota": 50000, "period": 20000}, [("cpu.max", "50000 20000")]),
        ({"period": 20000}, [("cpu.max", "max 20000")]),
        ({"quota": -1}, [("cpu.max", "max 100000")]),
        ({"quota": -1, "period": 0}, [("cpu.max", "max 100000")]),
        ({"quota": 0, "period": 0}, []),
        ({"burst": 1000, "quota": 5000}, [("cpu.max.burst", "1000"), ("cpu.max", "5000 100000")]),
        ({"burst": 0}, [("cpu.max.burst", "0")]),
        ({"idle": 1}, [("cpu.idle", "1")]),
        ({"idle": 0, "shares": 2048}, [("cpu.idle", "0"), ("cpu.weight", "174")]),
        ({"cpus": "0-1,3", "mems": "0"}, [("cpuset.cpus", "0-1,3"), ("cpuset.mems", "0")]),
        ({"cpus": "", "mems": ""}, []),
    ],
)
def test_cpu(cpu: Json, expected: list[tuple[str, str]]) -> None:
    assert files({"cpu": cpu}) == expected


def test_burst_is_repeated_after_a_quota_that_was_too_small_for_it() -> None:
    assert convert({"cpu": {"burst": 1000, "quota": 5000}})[0].flags == LATER
    assert convert({"cpu": {"burst": 0}})[0].flags == OPTIONAL


@pytest.mark.parametrize(
    ("cpu", "pointer"),
    [({"burst": 6000, "quota": 5000}, "/linux/resources/cpu/burst"), ({"idle": 1, "shares": 2}, "/cpu/shares")],
)
def test_cpu_contradictions(cpu: Json, pointer: str) -> None:
    with pytest.raises(ConfigError, match=pointer):
        convert({"cpu": cpu})


def test_block_io() -> None:
    got = convert(
        {
            "blockIO": {
                "weight": 500,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 100}, {"major": 8, "minor": 1}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 601}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 602}, {"major": 8, "minor": 16, "rate": 0}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 603}],
            }
        }
    )
    assert [(write.file, write.text, write.other) for write in got] == [
        ("io.bfq.weight", "500", ("io.weight", "4950")),
        ("io.bfq.weight", "8:0 100", ("io.weight", "8:0 910")),
        ("io.max", "8:0 rbps=600", None),
        ("io.max", "8:0 wbps=601", None),
        ("io.max", "8:0 riops=602", None),
        ("io.max", "8:16 riops=max", None),
        ("io.max", "8:0 wiops=603", None),
    ]
    assert [write.pointer for write in got][-2:] == [
        "/linux/resources/blockIO/throttleReadIOPSDevice/1/rate",
        "/linux/resources/blockIO/throttleWriteIOPSDevice/0/rate",
    ]
    assert files({"blockIO": {"weight": 0}}) == []


def test_leaf_weights() -> None:
    with pytest.raises(ConfigError) as caught:
        convert({"blockIO": {"leafWeight": 10, "weightDevice": [{"major": 8, "minor": 0, "leafWeight": 20}]}})
    pointers = [problem.pointer for problem in caught.value.problems]
    assert pointers == ["/linux/resources/blockIO/leafWeight", "/linux/resources/blockIO/weightDevice/0/leafWeight"]


def test_huge_pages_limit_use_and_reservations() -> None:
    got = convert({"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}, {"pageSize": "1GB", "limit": 0}]})
    assert [(write.file, write.text, write.flags) for write in got] == [
        ("hugetlb.2MB.max", "4194304", 0),
        ("hugetlb.2MB.rsvd.max", "4194304", OPTIONAL),
        ("hugetlb.1GB.max", "0", 0),
        ("hugetlb.1GB.rsvd.max", "0", OPTIONAL),
    ]
    assert got[0].controller == "hugetlb" and got[2].pointer == "/linux/resources/hugepageLimits/1/limit"


def test_rdma() -> None:
    got = files({"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 0}, "x": {}}})
    assert got == [("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000"), ("rdma.max", "mlx4_0 hca_object=0")]


def test_unified_comes_last_line_by_line_and_takes_any_key() -> None:
    got = convert(
        {
            "unified": {"io.max": "8:0 rbps=1\n8:16 rbps=2\n", "future.thing": "a|b", "cgroup.freeze": "", "m~x": "1"},
            "pids": {"limit": 5},
        }
    )
    assert [(write.file, write.text) for write in got] == [
        ("pids.max", "5"),
        ("io.max", "8:0 rbps=1"),
        ("io.max", "8:16 rbps=2"),
        ("future.thing", "a|b"),
        ("cgroup.freeze", ""),
        ("m~x", "1"),
    ]
    assert [write.controller for write in got] == ["pids", "io", "io", "future", "", "m~x"]
    assert got[-1].pointer == "/linux/resources/unified/m~0x"


@pytest.mark.parametrize("key", ["../cgroup.procs", "a/b", "", ".", "..", "memory.max\0"])
def test_unified_keys_stay_in_the_directory(key: str) -> None:
    with pytest.raises(ConfigError, match="/linux/resources/unified/"):
        convert({"unified": {key: "1"}})


def test_order_of_everything() -> None:
    """memory.swap.max before memory.max, cpu.idle before cpu.weight; unified overrides."""
    got = files(
        {
            "unified": {"memory.max": "1"},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "cpu": {"shares": 2, "cpus": "0"},
            "blockIO": {"weight": 10},
            "memory": {"limit": 2},
            "pids": {"limit": 1},
            "rdma": {"d": {"hcaHandles": 1}},
            "network": {},
            "devices": [],
        }
    )
    assert [name for name, _ in got] == [
        "pids.max", "memory.max", "io.bfq.weight", "cpu.weight", "cpuset.cpus", "hugetlb.2MB.max",
        "hugetlb.2MB.rsvd.max", "rdma.max", "memory.max",
    ]  # fmt: skip


@pytest.mark.parametrize(("quota", "burst", "good"), [(1, 1, True), (1, 2, False), (-1, 9, True), (0, 9, True)])
def test_a_burst_is_at_most_the_quota(quota: int, burst: int, good: bool) -> None:
    given: Resources = {"cpu": {"quota": quota, "burst": burst}}
    if good:
        assert ("cpu.max.burst", str(burst)) in files(given)
        return
    with pytest.raises(ConfigError, match=f"at most the quota {quota}"):
        convert(given)


def test_pointer_prefix_and_all_problems_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        convert({"memory": {"swap": 5}, "cpu": {"quota": 1000, "burst": 2000}}, "")
    assert [p.pointer for p in caught.value.problems] == ["/memory/swap", "/cpu/burst"]


def test_escape() -> None:
    assert resources.escape("a/b~c") == "a~1b~0c"
