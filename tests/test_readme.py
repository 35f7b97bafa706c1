"""README.md against the code: the table of supported fields, the verbs, and what the links point at."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pyrunc import cli
from pyrunc.errors import ConfigError
from pyrunc.spec import schema, validate

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = {
    match[1]: (match[2].strip(), match[3].strip())
    for match in re.finditer(r"^\| (/\S+) \| ([^|]+) \| ([^|]+) \|$", README, re.M)
}
FIELDS = {pointer for pointer, *_ in schema.fields()}

# A configuration that uses each field the README calls unsupported.
MAPPING = [{"containerID": 0, "hostID": 100000, "size": 10}]
REFUSED: dict[str, dict[str, Any]] = {
    "/process/scheduler": {"process": {"scheduler": {"policy": "SCHED_BATCH"}}},
    "/process/ioPriority": {"process": {"ioPriority": {"class": "IOPRIO_CLASS_IDLE"}}},
    "/process/execCPUAffinity": {"process": {"execCPUAffinity": {"initial": "0"}}},
    "/linux/timeOffsets": {"linux": {"timeOffsets": {"monotonic": {"secs": 1}}}},
    "/linux/netDevices": {"linux": {"netDevices": {"eth0": {"name": "eth1"}}}},
    "/linux/intelRdt": {"linux": {"intelRdt": {"closID": "x"}}},
    "/linux/memoryPolicy": {"linux": {"memoryPolicy": {"mode": "MPOL_LOCAL"}}},
}


def row_of(pointer: str) -> str:
    """The most specific row that covers a field."""
    covering = [row for row in ROWS if pointer == row or pointer.startswith(row + "/")]
    return max(covering, key=len, default="")


def test_every_field_of_the_schema_has_a_row() -> None:
    assert len(FIELDS) > 150
    missing = {pointer for pointer in FIELDS if not row_of(pointer)} - {"/linux"}
    assert not missing


def test_every_row_is_a_field() -> None:
    assert set(ROWS) <= FIELDS


def test_every_proof_exists() -> None:
    for field, (_, proof) in ROWS.items():
        assert (ROOT / proof).is_file(), f"{field}: {proof}"


def test_what_is_refused_is_what_the_table_says() -> None:
    assert {field for field, (support, _) in ROWS.items() if support == "no"} == set(REFUSED)


@pytest.mark.parametrize("field", sorted(REFUSED))
def test_refused_fields_say_so(field: str) -> None:
    config: dict[str, Any] = {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": [{"type": "mount"}]},
    }
    for section, value in REFUSED[field].items():
        config[section] = {**config.get(section, {}), **value} if isinstance(value, dict) else value
    with pytest.raises(ConfigError) as caught:
        validate.check(config)
    said = [p for p in caught.value.problems if "not supported yet" in str(p)]
    assert any(p.pointer.startswith(field.replace("*", "0")) for p in said), caught.value


def test_every_verb_is_named() -> None:
    for verb in cli.VERBS:
        assert f"`{verb}" in README, verb


def test_links_lead_somewhere() -> None:
    for path in ("README.md", "ARCHITECTURE.md", "HACKING.md"):
        text = (ROOT / path).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / target).exists(), f"{path}: {target}"
