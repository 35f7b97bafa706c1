"""The benchmark's tables, statistics, goals, page and picture. The measurements themselves are not
tested."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from bench import cri, goals, instructions, page, report, stats, tables
from bench.goals import Goal
from bench.report import Report, Row

ROOT = Path(__file__).resolve().parent.parent
SLOW = float(os.environ.get("PYRUNC_TEST_SLOW", "1"))


def samples(middle: float, count: int = 60) -> list[float]:
    draw = random.Random(middle)
    return [draw.gauss(middle, middle / 20) for _ in range(count)]


def verb(what: str, ours: float, theirs: float, unit: str = "ms") -> Row:
    return report.row("verbs", what, unit, {"pyrunc": samples(ours), "crun": samples(theirs)})


def document(rows: list[Row], idle: str = "99 %") -> Report:
    return {
        "date": "2026-01-02",
        "machine": {"processor": "Example 9000", "cores": "2", "idle before": idle},
        "runtimes": {"crun": "1.28", "pyrunc": "0.1.0", "runc": "1.5.3"},
        "rounds": 60,
        "seconds": 300,
        "remarks": ["crun has no `events --stats`: unknown command"],
        "rows": rows,
        "notes": {"Leftovers of the storm": {"crun": "none | really"}},
    }


class TestStats:
    def test_the_ratio_of_the_medians(self) -> None:
        assert stats.ratio([2.0, 4.0, 90.0], [1.0, 2.0, 3.0])[0] == 2.0

    def test_the_interval_holds_the_ratio_and_narrows_with_rounds(self) -> None:
        widths = []
        for rounds in (10, 200):
            middle, low, high = stats.ratio(samples(2, rounds), samples(4, rounds))
            assert low <= middle <= high
            widths.append(high - low)
        assert widths[1] < widths[0] / 2

    def test_the_same_samples_give_the_same_interval(self) -> None:
        assert stats.ratio(samples(2), samples(3)) == stats.ratio(samples(2), samples(3))

    def test_a_slow_round_of_both_sides_does_not_widen_it(self) -> None:
        slow = [float(1 + number % 7) for number in range(60)]
        middle, low, high = stats.ratio([2 * value for value in slow], slow)
        assert (middle, low, high) == (2.0, 2.0, 2.0)

    def test_sides_of_different_lengths_are_refused(self) -> None:
        with pytest.raises(ValueError, match="shorter"):
            stats.ratio([1.0, 2.0], [1.0])


class TestRow:
    def test_a_runtime_without_samples_is_left_out(self) -> None:
        row = report.row("verbs", "events", "ms", {"pyrunc": [1.0, 2.0, 3.0], "crun": [], "runc": [4.0, 4.0, 4.0]})
        assert row["values"] == {"pyrunc": 2.0, "runc": 4.0}
        assert set(row["ratios"]) == {"runc"}
        assert row["ratios"]["runc"][0] == 0.5


class TestGoals:
    @pytest.mark.parametrize(
        ("ours", "least", "met", "aim"),
        [(0.7, False, True, True), (0.9, False, True, False), (1.1, False, False, False), (1.3, True, True, True)],
    )
    def test_ratio(self, ours: float, least: bool, met: bool, aim: bool) -> None:
        row = report.row("verbs", "state", "ms", {"pyrunc": [ours] * 3, "crun": [1.0] * 3})
        verdict = goals.judge(Goal("verbs", "state", "ms", "crun", 1.0, 1.2 if least else 0.8, least), [row])
        assert (verdict.met, verdict.aim_met) == (met, aim)

    def test_figure_without_a_peer(self) -> None:
        row = report.row("memory", "peak", "MB", {"pyrunc": [9.0], "crun": [3.0]})
        assert goals.judge(Goal("memory", "peak", "MB", "", 8.0), [row]).word() == "**no**"

    def test_an_unmeasured_goal_is_not_met(self) -> None:
        verdict = goals.judge(Goal("verbs", "state", "CPU ms", "crun", 1.0), [verb("state", 1, 2)])
        assert verdict.met is None
        assert verdict.word() == "not measured"

    def test_each_goal_names_a_measure_of_its_own(self) -> None:
        assert len({goal.text() for goal in goals.GOALS}) == len(goals.GOALS) > 25


class TestTables:
    def test_aligned(self) -> None:
        assert tables.aligned([["", "ms"], ["create", "1.5"], ["a", "10"]]) == "         ms\ncreate  1.5\na        10"

    def test_markdown_escapes_bars(self) -> None:
        assert tables.markdown([["a", "b"], ["1|2", "3\n4"]]) == "| a | b |\n|---|---|\n| 1\\|2 | 3 4 |"

    @pytest.mark.parametrize(("value", "text"), [(0.123, "0.12"), (9.5, "9.50"), (12.34, "12.3"), (1234.5, "1234")])
    def test_numbers(self, value: float, text: str) -> None:
        assert page.number(value) == text


class TestPage:
    def test_a_missed_goal_is_reported(self) -> None:
        text = page.page(document([verb("state", 3, 2), verb("start", 1, 2)]))
        lines = [line for line in text.splitlines() if line.startswith(("| state, wall", "| start, wall"))]
        assert [line.split("|")[-2].strip() for line in lines] == ["yes, and the aim", "**no**"]
        assert "1 of 2 goals are met" in text

    def test_figures_ratios_and_what_a_runtime_lacks(self) -> None:
        text = page.page(document([verb("state", 3, 2), report.row("verbs", "events", "ms", {"pyrunc": [4.0]})]))
        assert "| | unit | crun | pyrunc | x crun |".replace("| |", "|  |") in text
        assert "| events | ms | - | 4.00 | - |" in text
        assert "Example 9000" in text and "| crun | 1.28 |" in text and "2026-01-02" in text
        assert "* crun has no `events --stats`" in text and "none \\| really" in text

    @pytest.mark.parametrize(("idle", "warned"), [("93 %", False), ("40 %", True)])
    def test_a_busy_machine_is_reported(self, idle: str, warned: bool) -> None:
        assert ("not idle" in page.page(document([verb("state", 3, 2)], idle))) == warned

    def test_the_page_in_the_tree_is_what_was_measured(self) -> None:
        data = page.read(page.DATA)
        assert page.PAGE.read_text(encoding="utf-8") == page.current() and data is not None
        assert data["rounds"] >= 60
        assert {"crun", "pyrunc", "runc"} <= set(data["runtimes"])
        assert {row["group"] for row in data["rows"]} >= {"verbs", "loaded", "storm", "memory"}

    def test_a_node_has_its_own_date_and_goals(self) -> None:
        cpu = {name: [1.0, 2.0, 3.0] for name in ("crun", "pyrunc")} | {"runc": [2.5, 5.0, 7.5]}
        node = document([report.row("node", "execs, runtime", "CPU s", cpu, sum)]) | {"date": "2026-01-03"}
        text = page.page(document([verb("state", 3, 2)]), node)
        before, _, after = text.partition("## A node of Kubernetes")
        assert "2026-01-02" in before and "2026-01-03" in after and "execs" not in before
        assert "| execs, runtime | CPU s | 6.00 | 6.00 | 15.0 | 1.00 (1.00 to 1.00) | 0.40 (0.40 to 0.40) |" in after
        assert "| execs, runtime, CPU time, x runc | 0.400 | 0.40 to 0.40 | <= 0.4 |  | yes |" in after

    def test_the_readme_shows_the_picture(self) -> None:
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        assert "(bench/results.svg)" in readme and "(bench/RESULTS.md)" in readme
        assert page.PICTURE.exists()


class TestCri:
    """The messages of bench/cri.py; protobuf.dev/programming-guides/encoding has the examples."""

    def test_encode(self) -> None:
        assert cri.encode({1: 150, 2: "testing", 3: {1: 150}}) == b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01"

    def test_repeated(self) -> None:
        assert cri.encode({2: ["a", "b"]}) == b"\x12\x01a\x12\x01b"

    def test_decode(self) -> None:
        message: cri.Message = {1: "out", 3: 300, 4: {1: 0, 2: "x" * 200}}
        found = cri.decode(cri.encode(message))
        assert (found[1], found[3]) == ([b"out"], [300])
        inner = found[4][0]
        assert isinstance(inner, bytes) and cri.decode(inner) == {1: [0], 2: [b"x" * 200]}

    def test_other_types_are_refused(self) -> None:
        with pytest.raises(ValueError, match="field 1 has the type 5"):
            cri.decode(b"\x0d\x00\x00\x00\x00")


DRAW = """
import json, sys
from pathlib import Path
from bench import plot
report = json.load(sys.stdin)
for path in sys.argv[1:]:
    plot.draw(report, Path(path))
"""


def test_the_picture_has_bars_for_each_verb_and_runtime(tmp_path: Path) -> None:
    """Runs in its own process, because matplotlib keeps its fonts open."""
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed: make bench-tools")
    rows = [verb(what, 3.25, 2, unit) for what in ("state", "start") for unit in ("ms", "CPU ms")]
    files = [tmp_path / "a.svg", tmp_path / "b.svg"]
    argv = [sys.executable, "-c", DRAW, *map(str, files)]
    subprocess.run(argv, input=json.dumps(document(rows)), text=True, cwd=ROOT, check=True, timeout=60 * SLOW)
    assert files[0].read_bytes() == files[1].read_bytes()
    nodes = xml.etree.ElementTree.parse(files[0]).iter()
    texts = ["".join(node.itertext()).strip() for node in nodes if node.tag.endswith("}text")]
    for wanted in ("state", "start", "pyrunc 0.1.0", "crun 1.28", "wall time, ms"):
        assert wanted in texts, texts
    assert sum(text.startswith("3.") for text in texts) >= 4


def test_instructions_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A verb that executes more than allowed, or has no count, fails."""
    model = dict.fromkeys(instructions.VERBS, 1000)
    path = tmp_path / "3.11.json"
    assert instructions.compare(model, path, 1.15) == 1
    path.write_text(json.dumps(model))
    assert instructions.compare(dict.fromkeys(instructions.VERBS, 1150), path, 1.15) == 0
    capsys.readouterr()
    assert instructions.compare({**model, "run": 1151, "kill": 0}, path, 1.15) == 1
    assert "FAILED not at most 1.15 times: run: 1.151, kill: 0.000" in capsys.readouterr().out
    assert instructions.number("3 170 654 (until init is spawned)") == 3170654
    assert instructions.number("valgrind gave no count") == 0
    path.write_text(json.dumps({**model, "run": 3174099, "exec": 0}))
    assert instructions.table([path, tmp_path / "absent.json"]).splitlines()[2:] == [
        "| 3.11 | 0.00 | 3.17 | - | 0.00 | 0.00 | 0.00 | 0.00 |"
    ]
