"""README.md and integration/ENGINES.md agree with the recorded results of the engine tests."""

from __future__ import annotations

import json
from pathlib import Path

from integration.engines import record

ROOT = Path(__file__).resolve().parent.parent
RESULTS = json.loads((ROOT / "integration/engines/results.json").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_case_table_is_what_was_recorded() -> None:
    assert (ROOT / "integration/ENGINES.md").read_text(encoding="utf-8") == record.table(RESULTS)


def test_the_table_in_the_readme_is_what_was_recorded() -> None:
    section = README.partition("## Works with\n")[2].partition("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("|")] == record.summary(RESULTS)


def test_pyrunc_does_whatever_runc_does() -> None:
    assert len(RESULTS["rows"]) >= 8
    for engine, cases in RESULTS["rows"].items():
        assert len(cases) > 5, engine
        for case, cells in cases.items():
            if cells.get("runc", {}).get("outcome") == "passed":
                assert cells["pyrunc"]["outcome"] == "passed", (engine, case)
                assert cells["pyrunc"]["seen"] == cells["runc"]["seen"], (engine, case)


def test_every_spec_of_the_critest_list_was_passed() -> None:
    cases = RESULTS["rows"]["critest on containerd 2.x"]
    wanted = (ROOT / "integration/engines/critest.txt").read_text(encoding="utf-8").splitlines()
    assert len(wanted) == 61
    for name in wanted:
        assert cases[name.removeprefix("[It] [k8s.io] ")]["pyrunc"]["outcome"] == "passed", name
