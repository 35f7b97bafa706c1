"""Golden plans: what each configuration of tests/golden/ compiles to, as `pyrunc plan` prints it.

``PYRUNC_UPDATE_GOLDEN=1 pytest tests/test_plan_golden.py`` rewrites the .plan files; read the diff.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import pytest

from plan_support import GOLDEN, Facts, case_names, load_case, options
from pyrunc.errors import ConfigError
from pyrunc.host import HostFacts
from pyrunc.plan import ops, show
from pyrunc.plan.context import Options
from pyrunc.plan.create import compile_create
from pyrunc.spec.types import Config

# Ops and policy bits that only golden/exec/ has: test_plan_exec requires them.
EXEC_OPS = {"CPU_INITIAL", "CPU_FINAL", "RLIMIT"}
EXEC_BITS = {
    ("CLONE_INIT", "COMPLETE"),
    ("SETSID", "TERMINAL"),
    ("CONSOLE", "NOT_CONTROLLING"),
    ("SECCOMP", "IF_PASSABLE"),
    ("CHDIR", "TRY"),
    ("FIND_EXE", "TRY"),
}
# Ops and policy bits that only golden/mounts/ has: test_plan_added_mounts requires them.
MOUNTS_OPS = {"UNMOUNT", "LEAVE"}
MOUNTS_BITS = {("MOUNT", "REPORT"), ("MOUNT", "BUILD"), ("MOUNT", "ATTACH"), ("UNMOUNT", "UNIQUE")}
BUNDLES = pathlib.Path(__file__).parent.parent / "integration" / "bundles"
RECORDED = sorted(path.stem for path in BUNDLES.glob("*.json"))


def listing(config: Config, facts: HostFacts, opts: Options) -> str:
    try:
        return show.text(compile_create(config, facts, opts), config)
    except ConfigError as error:
        return "".join(f"refused {problem}\n" for problem in error.problems)


def compare(path: pathlib.Path, text: str) -> None:
    if os.environ.get("PYRUNC_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", case_names())
def test_golden(name: str) -> None:
    compare(GOLDEN / f"{name}.plan", listing(*load_case(name)))


@pytest.mark.parametrize("name", case_names())
def test_names_of_refused_cases(name: str) -> None:
    refused = (GOLDEN / f"{name}.plan").read_text(encoding="utf-8").startswith("refused ")
    assert refused == name.endswith("-refused")


@pytest.mark.parametrize("name", [name for name in case_names() if not name.endswith("-refused")])
def test_cases_are_valid_configurations(name: str) -> None:
    """The golden plan of an invalid configuration would prove nothing."""
    validate = pytest.importorskip("pyrunc.spec.validate")
    config, facts, _ = load_case(name)
    validate.check(config, facts=facts)


# The engines' privileged containers list some two hundred devices; one of them is enough.
@pytest.mark.parametrize("name", [n for n in RECORDED if "privileged" not in n or n.startswith("containerd2")])
def test_recorded_bundles(name: str) -> None:
    """Configurations recorded from containerd, podman and docker."""
    config = json.loads((BUNDLES / f"{name}.json").read_text(encoding="utf-8"))
    opts = options(cgroup_path="/" + config["linux"].get("cgroupsPath", "x").lstrip("/"))
    compare(GOLDEN / f"bundle-{name}.plan", listing(config, Facts(), opts))


def test_every_plan_has_a_case() -> None:
    known = set(case_names()) | {f"bundle-{name}" for name in RECORDED}
    if not RECORDED:
        known |= {path.stem for path in GOLDEN.glob("bundle-*.plan")}
    assert {path.stem for path in GOLDEN.glob("*.plan")} <= known


def test_every_op_and_policy_is_covered() -> None:
    """Golden plans contain every op of plan.def, and every policy bit that the compiler sets."""
    later_bits = {("ROOT", "NO_BIND")}  # of `exec`
    seen, bits = covered(load_case, case_names(), compile_create)
    assert {row[0] for row in ops.OPS.values()} - seen == EXEC_OPS | MOUNTS_OPS
    assert {(row[0], bit) for row in ops.OPS.values() for bit in row[3]} - bits <= later_bits | EXEC_BITS | MOUNTS_BITS


def covered(load: Any, names: list[str], compile_: Any) -> tuple[set[str], set[tuple[str, str]]]:
    """The ops and the policy bits in the plans of some cases."""
    seen, bits = set(), set()
    for name in names:
        try:
            plan = compile_(*load(name))
        except ConfigError:
            continue
        for code, policy, _, _ in plan.steps:
            op, _, _, known = ops.OPS[code]
            seen.add(op)
            bits |= {(op, bit) for shift, bit in enumerate(known) if policy >> shift & 1}
    return seen, bits
