"""Each edit of `make prove-security` still applies to the sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration.security.rows import ROWS
from integration.security.sabotage import TABLE, Sabotage

ROOT = Path(__file__).resolve().parent.parent
SECURITY = ROOT / "integration/security"


def unusable(edits: list[tuple[str, str, str]]) -> list[str]:
    """The edits, applied one after the other, whose text does not occur exactly once."""
    texts: dict[str, str] = {}
    found = []
    for name, old, new in edits:
        text = texts.get(name) or (ROOT / name).read_text()
        if text.count(old) != 1:
            found.append(f"{name}: {old!r}")
        texts[name] = text.replace(old, new)
    return found


@pytest.mark.parametrize("sabotage", TABLE, ids=[f"{row.row}-{number}" for number, row in enumerate(TABLE)])
def test_edits_apply(sabotage: Sabotage) -> None:
    assert not unusable(sabotage.edits)
    file, _, name = sabotage.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (SECURITY / file).read_text()
    assert sabotage.row in ROWS


def test_an_edit_that_does_not_apply_is_found() -> None:
    assert unusable([("README.md", "no such text", "")])
