"""Shared parts of the compiler's tests: a stub of the host, and the cases of tests/golden/."""

from __future__ import annotations

import copy
import json
import pathlib
from typing import Any

from json_type import Json
from pyrunc.host import HostFacts
from pyrunc.plan import Plan, ops
from pyrunc.plan.context import Options
from pyrunc.plan.create import compile_create

GOLDEN = pathlib.Path(__file__).parent / "golden"


class Facts(HostFacts):
    """An ordinary host."""

    memory_nodes = frozenset({0, 1, 3})
    resctrl = "/sys/fs/resctrl"

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        self.prefix = "/nowhere"  # unset values must not come from this machine
        self.euid, self.rootless, self.arch, self.kernel = 0, False, "x86_64", (6, 1)
        self.cgroup2_mount, self.cgroup2_root, self.own_cgroup = "/sys/fs/cgroup", "/", "/"
        self.cap_last, self.apparmor, self.selinux, self.hybrid = 40, False, False, False
        for name, value in changes.items():
            assert hasattr(self, name)
            setattr(self, name, value)


def merge(base: Json, patch: Json) -> Json:
    """Merge as in RFC 7396: null deletes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def base(name: str) -> Json:
    """One of the two configurations that the cases change: "default" or "bare"."""
    return json.loads((GOLDEN / f"_{name}.json").read_text(encoding="utf-8"))


def case_names() -> list[str]:
    return sorted(path.stem for path in GOLDEN.glob("[!_]*.json"))


def load_case(name: str) -> tuple[Json, Facts, Options]:
    """Config, facts and options of a case."""
    case = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return merge(base(case["base"]), case["config"]), Facts(**case.get("facts", {})), options(**case.get("options", {}))


def options(**changes: Any) -> Options:
    """Options of a container "c1" in the bundle /b."""
    made = Options("c1", "/b")
    for name, value in changes.items():
        setattr(made, name, tuple(value) if name.endswith("_state") else value)
    return made


def compiled(patch: dict[str, Any] | None = None, *, facts: Facts | None = None, **changes: Any) -> Plan:
    """The plan of the bare configuration with a patch applied."""
    return compile_create(merge(base("bare"), patch or {}), facts or Facts(), options(**changes))


def names(plan: Plan) -> list[str]:
    """Op names in order."""
    return [ops.OPS[step[0]][0] for step in plan.steps]


def steps(plan: Plan, op: str) -> list[dict[str, Any]]:
    """All steps of one op: arguments by name, plus "policy" (set of names) and "origin"."""
    from pyrunc.plan import show

    found = []
    for index, (code, policy, _, _) in enumerate(plan.steps):
        name, _, _, bits = ops.OPS[code]
        if name == op:
            flags = {bit for shift, bit in enumerate(bits) if policy >> shift & 1}
            found.append({**show.arguments(plan, index), "policy": flags, "origin": plan.origins[index]})
    return found


def step(plan: Plan, op: str) -> dict[str, Any]:
    """The only step of an op."""
    (only,) = steps(plan, op)
    return only
