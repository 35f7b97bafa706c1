"""The picture of the comparison: bars by verb and runtime, as SVG (matplotlib, of the extra
"bench")."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.report import OURS, Report, Row
from bench.series import VERBS

COLOURS = {OURS: "#2f6fbb", "crun": "#e08a1e", "runc": "#8a8f98"}
PANELS = {"ms": "wall time, ms", "CPU ms": "CPU time of the whole tree, ms"}
WIDTH = 0.8  # of all bars of a verb together


def draw(report: Report, path: Path) -> None:
    """Write the picture. Raises ImportError if matplotlib is not installed."""
    import matplotlib

    matplotlib.use("svg")
    # Text stays text, and the same figures give the same file.
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "pyrunc", "font.size": 9}
    from matplotlib import pyplot

    names = [name for name in (OURS, "crun", "runc") if name in report["runtimes"]]
    figure, axes = pyplot.subplots(2, 1, figsize=(9, 6), layout="constrained")
    for axis, (unit, label) in zip(axes, PANELS.items(), strict=True):
        rows = [row for row in report["rows"] if row["group"] == "verbs" and row["unit"] == unit]
        panel(axis, [row for row in rows if row["what"] in VERBS], names)
        axis.set_ylabel(label)
    labels = [f"{name} {report['runtimes'][name]}" for name in names]
    figure.legend(axes[0].containers, labels, loc="outside upper center", ncols=len(names), frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def panel(axis: Any, rows: list[Row], names: list[str]) -> None:
    """The bars of one unit. `axis` is matplotlib's, which is not installed where types are
    checked."""
    width = WIDTH / len(names)
    for number, name in enumerate(names):
        places = [index + (number - (len(names) - 1) / 2) * width for index in range(len(rows))]
        heights = [row["values"].get(name, 0.0) for row in rows]
        bars = axis.bar(places, heights, width * 0.92, color=COLOURS[name])
        axis.bar_label(bars, [f"{height:.1f}" if height else "" for height in heights], fontsize=6.5, padding=1)
    axis.set_xticks(range(len(rows)), [row["what"] for row in rows])
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.01)
