"""From a field of config.json to the code: which file has its rule, which emits its steps, which
ops these are.

    PYTHONPATH=tests:. .venv/bin/python -m field_map

writes the last column of the table in README.md. Rules are found by the configs of
broken_configs.py and who complains about them, steps by the golden configs and the origins of what
they compile to.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from broken_configs import BROKEN, changed
from plan_support import case_names, load_case
from pyrunc.errors import ConfigError
from pyrunc.plan import ops
from pyrunc.plan.create import compile_create
from pyrunc.spec import validate
from pyrunc.spec.report import Report

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
ROW = re.compile(r"^\| (/\S+) \| ([^|]+) \| ([^|]+) \|(?: ([^|]*) \|)?$", re.M)

# Fields that are not steps of init: who carries them out.
ELSEWHERE = {
    "/annotations": "hooks",
    "/hooks": "hooks",
    "/linux/netDevices": "launch/netdev",
    "/linux/cgroupsPath": "cgroup/__init__",
    "/linux/resources": "cgroup/resources",
    "/linux/resources/devices": "cgroup/devices",
    "/linux/uidMappings": "idmap",
    "/linux/gidMappings": "idmap",
    "/linux/seccomp": "seccomp",
    "/linux/intelRdt": "cgroup/rdt",
    "/mounts/*/uidMappings": "idmap",
    "/mounts/*/gidMappings": "idmap",
    "/process/execCPUAffinity": "plan/scheduling",
}
_TABLE = {"spec/structure", "spec/validate"}  # these go by the schema's table


def module(path: str) -> str:
    """``spec/rules_mounts`` of a file of pyrunc."""
    return str(Path(path).relative_to(ROOT / "pyrunc").with_suffix(""))


def rules() -> dict[str, set[str]]:
    """Pointer -> the files that complain about it, but for the types and ranges of the schema's
    table."""
    found: dict[str, set[str]] = {}
    bad = Report.bad

    def recorded(self: Report, pointer: str, *args: Any, **kwargs: Any) -> None:
        frame = sys._getframe(1)
        while frame.f_back is not None and module(frame.f_code.co_filename) == "spec/report":  # bad_item calls bad
            frame = frame.f_back
        name = module(frame.f_code.co_filename)
        if name not in _TABLE:
            found.setdefault(pointer, set()).add(name)
        bad(self, pointer, *args, **kwargs)

    Report.bad = recorded  # type: ignore[method-assign]  # put back below
    try:
        for changes, _, _ in BROKEN:
            try:
                validate.check(changed(*changes))
            except ConfigError:
                pass
    finally:
        Report.bad = bad  # type: ignore[method-assign]
    return found


def emitters() -> dict[str, set[str]]:
    """Op -> the files of plan/ that emit it."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "pyrunc/plan").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        for name, *_ in ops.OPS.values():
            if path.name != "ops.py" and re.search(rf"\b(?:plan|Builder)\.{name.lower()}\b", text):
                found.setdefault(name, set()).add(f"plan/{path.stem}")
    return found


def steps() -> dict[str, set[str]]:
    """Origin -> ops, over all golden configs."""
    found: dict[str, set[str]] = {}
    for name in case_names():
        if name.endswith("-refused"):
            continue
        plan = compile_create(*load_case(name))
        for step, origin in zip(plan.steps, plan.origins, strict=True):
            found.setdefault(origin, set()).add(ops.OPS[step[0]][0])
    return found


def covers(row: str, pointer: str, rows: list[str]) -> bool:
    """Whether a pointer belongs to a row, and to none that is more specific."""
    here = re.sub(r"/\d+(?=/|$)", "/*", pointer)

    def inside(candidate: str) -> bool:
        return here == candidate or here.startswith(candidate + "/")

    return inside(row) and not any(inside(other) and len(other) > len(row) for other in rows)


def columns() -> Iterator[tuple[str, str]]:
    """Each row of the table with its code."""
    rows = [match[1] for match in ROW.finditer(README.read_text(encoding="utf-8"))]
    complaints, origins, files = rules(), steps(), emitters()
    for row in rows:
        names = {name for pointer, found in complaints.items() if covers(row, pointer, rows) for name in found}
        found = {op for origin, listed in origins.items() if covers(row, origin, rows) for op in listed}
        parts = [*sorted(names or {"spec/schema"})]
        if row in ELSEWHERE:
            parts.append(ELSEWHERE[row])
        if found:
            listed = sorted({name for op in found for name in files.get(op, ())} - set(parts))
            parts += listed
        text = " ".join(f"`{part}`" for part in parts)
        yield row, text + (f": {' '.join(sorted(found))}" if found else "")


def table(text: str) -> str:
    """README.md with its column."""
    code = dict(columns())
    return ROW.sub(lambda match: f"| {match[1]} | {match[2]} | {match[3]} | {code[match[1]]} |", text)


if __name__ == "__main__":
    README.write_text(table(README.read_text(encoding="utf-8")), encoding="utf-8")
