"""The last valid and the first invalid value of every number and length that a rule limits."""

from __future__ import annotations

from typing import Any

import pytest

from broken_configs import changed
from pyrunc.errors import ConfigError
from pyrunc.spec import validate

L, R, S = "/linux", "/linux/resources", "/process/scheduler"
DEADLINE = {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 3000, "period": 4000}
FIFO = {"policy": "SCHED_FIFO", "priority": 1}
PAGES, BIND, X86 = {"limit": 1}, {"mode": "MPOL_BIND"}, "SCMP_ARCH_X86"
CONDITION = {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}

Changes = list[tuple[str, Any]]


def rule(names: int, conditions: int = 0) -> dict[str, Any]:
    """A rule of a seccomp profile."""
    return {"names": ["read"] * names, "action": "SCMP_ACT_LOG", "args": [CONDITION] * conditions}


def profile(**changes: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", **changes}


def one(where: str, pointer: str, good: Any, bad: Any) -> Any:
    """A field with the last value that is accepted, ``good``, and the first that is not,
    ``bad``."""
    return pytest.param([(where, good)], [(where, bad)], pointer, id=f"{pointer} {str(bad)[:20]}")


ROWS = [
    one("/hostname", "/hostname", "h" * 64, "h" * 65),
    one("/hostname", "/hostname", "\u00e4" * 32, "\u00e4" * 33),
    one("/domainname", "/domainname", "d" * 64, "d" * 65),
    one("/process/args", "/process/args/1", ["x", "a" * 131071], ["x", "a" * 131072]),
    one("/process/env", "/process/env/0", ["A=" + "\u00e4" * 65534], ["A=" + "\u00e4" * 65535]),
    one("/process/env", "/process/env/0", ["A="], ["=A"]),
    one("/process/user/additionalGids", "/process/user/additionalGids", [1] * 65536, [1] * 65537),
    one("/process/cwd", "/process/cwd", "/" + "c" * 4094, "/" + "c" * 4095),
    one("/process/rlimits/0/soft", "/process/rlimits/0/soft", 20, 21),
    one(f"{R}/memory", f"{R}/memory/swap", {"limit": 2, "swap": 2}, {"limit": 2, "swap": 1}),
    one(f"{R}/memory", f"{R}/memory/swap", {"swap": 0}, {"swap": 1}),
    one(f"{R}/memory", f"{R}/memory/swap", {"limit": 1, "swap": 1}, {"limit": 0, "swap": 1}),
    one(f"{R}/cpu", f"{R}/cpu/period", {"period": 1000}, {"period": 999}),
    one(f"{R}/cpu", f"{R}/cpu/period", {"period": 1000000}, {"period": 1000001}),
    one(f"{R}/cpu", f"{R}/cpu/quota", {"quota": 1000}, {"quota": 999}),
    one(f"{R}/cpu", f"{R}/cpu/quota", {"quota": 0}, {"quota": 1}),
    one(f"{R}/cpu", f"{R}/cpu/burst", {"quota": 2000, "burst": 2000}, {"quota": 2000, "burst": 2001}),
    one(f"{R}/cpu", f"{R}/cpu/idle", {"idle": 1}, {"idle": 2}),
    one(f"{R}/blockIO", f"{R}/blockIO/weight", {"weight": 10}, {"weight": 9}),
    one(f"{R}/blockIO", f"{R}/blockIO/weight", {"weight": 1000}, {"weight": 1001}),
    one(f"{R}/unified", f"{R}/unified/" + "n" * 256, {"n" * 255: "1"}, {"n" * 256: "1"}),
    one(f"{R}/unified", f"{R}/unified/memory.high", {"memory.high": "1" * 65536}, {"memory.high": "1" * 65537}),
    one(f"{R}/unified", f"{R}/unified", {f"a.{n}": "1" for n in range(1000)}, {f"a.{n}": "1" for n in range(1001)}),
    one(f"{R}/hugepageLimits", f"{R}/hugepageLimits/0/pageSize", *([PAGES | {"pageSize": s}] for s in ("1KB", "0KB"))),
    one("/process/scheduler", f"{S}/nice", *({"policy": "SCHED_OTHER", "nice": n} for n in (-20, -21))),
    one("/process/scheduler", f"{S}/nice", *({"policy": "SCHED_BATCH", "nice": n} for n in (19, 20))),
    one("/process/scheduler", f"{S}/priority", FIFO, FIFO | {"priority": 0}),
    one("/process/scheduler", f"{S}/priority", FIFO | {"priority": 99}, FIFO | {"priority": 100}),
    one("/process/scheduler", f"{S}/runtime", DEADLINE | {"runtime": 1024}, DEADLINE | {"runtime": 1023}),
    one("/process/scheduler", f"{S}/deadline", DEADLINE | {"deadline": 2000}, DEADLINE | {"deadline": 1999}),
    one("/process/scheduler", f"{S}/period", DEADLINE | {"period": 3000}, DEADLINE | {"period": 2999}),
    one("/process/scheduler", f"{S}/period", DEADLINE | {"period": 0}, DEADLINE | {"period": 1}),
    one("/process/scheduler", f"{S}/period", *(DEADLINE | {"period": n} for n in (2**63 - 1, 2**63))),
    one("/process/execCPUAffinity", "/process/execCPUAffinity/initial", {"initial": "8191"}, {"initial": "8192"}),
    one(f"{L}/memoryPolicy", f"{L}/memoryPolicy/nodes", *(BIND | {"nodes": n} for n in ("1023", "1024"))),
    one(f"{L}/cgroupsPath", f"{L}/cgroupsPath", "/" + "g" * 255, "/" + "g" * 256),
    one(f"{L}/cgroupsPath", f"{L}/cgroupsPath", "/g" * 128, "/g" * 129),
    one(f"{L}/cgroupsPath", f"{L}/cgroupsPath", "/" * 32760 + "g" * 8, "/" * 32761 + "g" * 8),
    one(f"{L}/seccomp", f"{L}/seccomp/architectures", *(profile(architectures=[X86] * n) for n in (32, 33))),
    one(f"{L}/seccomp", f"{L}/seccomp/syscalls", profile(syscalls=[rule(4096)]), profile(syscalls=[rule(4097)])),
    one(f"{L}/seccomp", f"{L}/seccomp/syscalls", *(profile(syscalls=[rule(n, 4), rule(1, 4)]) for n in (1023, 1024))),
    one(
        f"{L}/seccomp", f"{L}/seccomp/defaultErrnoRet",
        *(profile(defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=n) for n in (4095, 4096)),
    ),
    *(
        one(f"{L}/intelRdt", f"{L}/intelRdt/{field}", *({field: start + "0" * n} for n in (65533, 65534)))
        for field, start in (("l3CacheSchema", "L3:"), ("memBwSchema", "MB:"))
    ),
]  # fmt: skip


def refused(changes: Changes) -> list[str]:
    """The pointers of all problems."""
    try:
        validate.check(changed(*changes))
    except ConfigError as error:
        return [problem.pointer for problem in error.problems]
    return []


@pytest.mark.parametrize(("good", "bad", "pointer"), ROWS)
def test_boundary(good: Changes, bad: Changes, pointer: str) -> None:
    assert refused(good) == []
    assert pointer in refused(bad)


@pytest.mark.parametrize(
    "scheduler",
    [
        {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 3000},
        {"policy": "SCHED_OTHER"},
        {"policy": "SCHED_FIFO", "priority": 1},
        {"policy": "SCHED_IDLE", "nice": 3},
    ],
)
def test_optional_fields_of_a_scheduler(scheduler: dict[str, Any]) -> None:
    changes = [("/process/scheduler", scheduler)]
    assert refused(changes) == [] and validate.check(changed(*changes)) == []


MAPPED = [(f"{L}/namespaces/-", {"type": "user"})]


def mapping(*extents: tuple[int, int, int]) -> Changes:
    found = [dict(zip(("containerID", "hostID", "size"), extent, strict=True)) for extent in extents]
    return [*MAPPED, (f"{L}/uidMappings", found), (f"{L}/gidMappings", found)]


@pytest.mark.parametrize(
    ("good", "bad", "pointer"),
    [
        (mapping((0, 0, 2**32 - 1)), mapping((0, 1, 2**32 - 1)), f"{L}/uidMappings/0/hostID"),
        (mapping((0, 0, 70), (100, 100, 1)), mapping((0, 0, 70), (100, 100, 0)), f"{L}/uidMappings/1/size"),
        (mapping((0, 0, 70), (70, 100, 9)), mapping((0, 0, 70), (69, 100, 9)), f"{L}/uidMappings/1/containerID"),
        (mapping((0, 0, 70), (100, 70, 9)), mapping((0, 0, 70), (100, 69, 9)), f"{L}/gidMappings/1/hostID"),
        (mapping((0, 0, 70)), mapping((1, 0, 70)), f"{L}/uidMappings"),
        (mapping((0, 0, 2)), mapping((0, 0, 1)), "/process/user/additionalGids/0"),
        (
            mapping((0, 0, 70), *((n, n, 1) for n in range(1000, 1339))),
            mapping((0, 0, 70), *((n, n, 1) for n in range(1000, 1340))),
            f"{L}/uidMappings",
        ),
    ],
)
def test_boundary_of_mappings(good: Changes, bad: Changes, pointer: str) -> None:
    assert refused(good) == []
    assert pointer in refused(bad)


@pytest.mark.parametrize(
    ("stack", "most"), [(None, 6 << 20), (2**40, 6 << 20), (24 << 20, 6 << 20), (16 << 20, 4 << 20), (1000, 131072)]
)
def test_arguments_and_environment_together(stack: int | None, most: int) -> None:
    """Each string counts with its NUL and its pointer; a small stack limit applies to them as well
    (execve(2))."""
    limits = [{"type": "RLIMIT_STACK", "soft": stack, "hard": 2**41}] if stack else []
    pieces = [f"A={'x' * 65525}"] * (most // 65536 - 1)
    for more, pointers in ((0, []), (1, ["/process/args"])):
        last = most - len(pieces) * 65536 - len("/bin/true") - 9 - 9
        changes: Changes = [("/process/rlimits", limits), ("/process/env", [*pieces, "A=" + "x" * (last - 2 + more)])]
        assert refused(changes) == pointers
