"""Golden plans of `mounts add` and `mounts remove` (tests/golden/mounts/*.json), and their
order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from json_type import Json
from plan_support import GOLDEN, Facts, base, merge, names, steps
from pyrunc.errors import ConfigError
from pyrunc.plan import Plan, show
from pyrunc.plan.added_mounts import compile_add, compile_remove
from pyrunc.plan.context import Options
from pyrunc.plan.exec import NAMESPACES
from pyrunc.spec import rules_mounts
from pyrunc.spec.types import Mount
from test_plan_golden import MOUNTS_BITS, MOUNTS_OPS, compare, covered

CASES = sorted(path.stem for path in (GOLDEN / "mounts").glob("*.json"))
BIND: Mount = {"destination": "/data", "source": "/srv", "options": ["bind", "ro"]}
SCRATCH: Mount = {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]}


def added(case: Json) -> Plan:
    config = merge(base(case.get("base", "default")), case.get("config", {}))
    options = Options("c1", "/b")
    options.cgroup_path = case.get("cgroup", "/c1")
    options.joined = [(kind, f"/proc/7/ns/{NAMESPACES[kind]}") for kind in case.get("joined", ["mount"])]
    if "remove" in case:
        return compile_remove(config, [tuple(entry) for entry in case["remove"]], Facts(), options)
    return compile_add(config, case["add"], Facts(**case.get("facts", {})), options)


def load(name: str) -> tuple[Json]:
    return (json.loads((GOLDEN / "mounts" / f"{name}.json").read_text(encoding="utf-8")),)


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    try:
        text = show.text(added(*load(name)))
    except ConfigError as error:
        text = "".join(f"refused {problem}\n" for problem in error.problems)
    compare(GOLDEN / "mounts" / f"{name}.plan", text)


def test_ops_of_mounts_are_covered() -> None:
    seen, bits = covered(load, CASES, added)
    assert seen >= MOUNTS_OPS and bits >= MOUNTS_BITS


def test_everything_is_built_before_anything_of_the_container_is_entered() -> None:
    """Mounts are attached only after the parent has written the intent."""
    plan = added({"add": [BIND, SCRATCH], "joined": ["user", "mount"]})
    order = names(plan)
    kinds = [step["policy"] & {"BUILD", "ATTACH"} for step in steps(plan, "MOUNT")]
    assert kinds == [{"BUILD"}, {"BUILD"}, {"ATTACH"}, {"ATTACH"}]
    inside = [index for index, name in enumerate(order) if name == "JOIN_NS"][-1]
    mounts = [index for index, name in enumerate(order) if name == "MOUNT"]
    assert mounts[1] < order.index("SYNC_MOUNTED") < inside < mounts[2]
    assert order.index("DUMPABLE") < order.index("JOIN_NS")
    assert order[-2:] == ["SYNC_READY", "LEAVE"]


def test_few_capabilities_are_left_before_the_container_is_looked_at() -> None:
    plan = added({"add": [BIND]})
    order = names(plan)
    assert order.index("ROOT") < order.index("CAPS") < [i for i, name in enumerate(order) if name == "MOUNT"][1]
    (caps,) = steps(plan, "CAPS")
    assert caps["permitted"] == caps["effective"] == 1 << 21 | 1 << 1 | 1 << 2 | 1 << 3


def test_each_mount_has_a_slot_of_its_own() -> None:
    entries: list[Any] = [BIND, SCRATCH, {**BIND, "destination": "/more"}]
    for joined in (["mount"], ["user", "mount"]):
        config: Json = {"linux": {"namespaces": [{"type": kind} for kind in joined]}}
        found = steps(added({"add": entries, "joined": joined, "config": config}), "MOUNT")
        slots = [step["tree"] for step in found]
        assert slots[:3] == slots[3:] and len(set(slots)) == 3 and 0 not in slots


@pytest.mark.parametrize(
    ("destination", "at"),
    [("/proc", True), ("proc", True), ("/a/../proc/", True), ("/proc/sys", False), ("/procs", False), ("", False)],
)
def test_destinations_at_proc(destination: str, at: bool) -> None:
    assert rules_mounts.is_at_proc({"destination": destination}) is at
    long: Any = {"destination": "/" * 4096 + "proc"}  # PATH_MAX
    assert rules_mounts.is_at_proc(long) is rules_mounts.is_at_proc({}) is False  # type: ignore[typeddict-item]
