"""`list`: its formats, and what it ignores or rejects."""

from __future__ import annotations

import json

import pytest

from integration.harness import Box, Result
from integration.test_lifecycle import Make


def _list(box: Box, *flags: str) -> Result:
    return box.runtime.call("--root", str(box.root), "list", *flags)


def test_list(container: Make, box: Box) -> None:
    box.root.mkdir()
    assert json.loads(_list(box, "-f", "json").out or "null") in (None, [])
    one, two = container("signals", "60"), box.container("exit", "0")
    one.create()
    two.create()
    two.start()
    two.wait()
    rows = json.loads(_list(box, "-f", "json").out)
    assert {row["id"]: row["status"] for row in rows} == {one.id: "created", two.id: "stopped"}
    assert {row["owner"] for row in rows} == {"root"}
    assert sorted(_list(box, "-q").out.split()) == sorted([one.id, two.id])
    table = _list(box).out.splitlines()
    assert table[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert len(table) == 3
    starts = [table[0].index(word) for word in table[0].split()]
    row = next(line for line in table if line.startswith(one.id))
    assert row[starts[1] :].split()[0] == str(one.pid)
    assert row[starts[2] :].startswith("created")
    assert row[starts[5] :].startswith("root")


def test_list_ignores_stray_files(container: Make, box: Box) -> None:
    one = container("signals", "60")
    one.create()
    (box.root / "stray").write_text("")
    try:
        assert _list(box, "-q").out.split() == [one.id]
    finally:
        (box.root / "stray").unlink()


@pytest.mark.pyrunc_only("runc 1.1.5 shows an empty list; newer ones fail")
def test_list_of_a_missing_explicit_root_is_an_error(box: Box) -> None:
    assert box.runtime.call("--root", str(box.path / "not-there"), "list").rc != 0
