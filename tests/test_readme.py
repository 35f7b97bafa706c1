"""README.md against the code: the table of supported fields, the verbs, and the targets of
links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import field_map
from pyrunc import cli
from pyrunc.spec import schema

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = {match[1]: (match[2].strip(), match[3].strip()) for match in field_map.ROW.finditer(README)}
FIELDS = {pointer for pointer, *_ in schema.fields()}


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


def test_every_row_has_its_code() -> None:
    """The last column is current; ``PYTHONPATH=tests:. .venv/bin/python -m field_map`` writes
    it."""
    assert field_map.table(README) == README
    listed = dict(field_map.columns())
    assert listed["/mounts"].startswith("`spec/rules_mounts`") and "`plan/mounts`" in listed["/mounts"]
    assert len(listed) == len(ROWS) and "" not in listed.values()
    files = {name for column in listed.values() for name in re.findall(r"`([^`]+)`", column)}
    assert {name for name in files if not (ROOT / f"pyrunc/{name}.py").is_file()} == set()


def test_no_field_is_left_out() -> None:
    assert {support.partition(";")[0].partition(",")[0] for support, _ in ROWS.values()} == {"yes"}


def test_every_verb_is_named() -> None:
    for verb in cli.VERBS:
        assert f"`{verb}" in README, verb


@pytest.mark.parametrize("path", ["README.md", "ARCHITECTURE.md", "HACKING.md"])
def test_links_lead_somewhere(path: str) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", (ROOT / path).read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_hardening_is_there() -> None:
    """integration/security/HARDENING.md: every line names existing files and tests."""
    text = (ROOT / "integration/security/HARDENING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| ([^|]+) \| ([^|]+)::(\w+) \|$", text, re.M)
    assert len(rows) == sum(line.startswith("| ") and "::" in line for line in text.splitlines()) > 40
    for item, places, file, test in rows:
        for place in places.split(", "):
            assert (ROOT / place).is_file(), f"{item}: {place}"
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{item}: {file}::{test}"
