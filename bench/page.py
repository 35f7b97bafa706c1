"""bench/RESULTS.md: what a run found, as a page for readers.

.venv/bin/python -m bench.page          # write it again from bench/results.json
"""

from __future__ import annotations

import json
from pathlib import Path

from bench.goals import GOALS, NODE_GOALS, Goal, Verdict, judge
from bench.report import Report, Row
from bench.tables import markdown

HERE = Path(__file__).resolve().parent
DATA, PAGE, PICTURE = HERE / "results.json", HERE / "RESULTS.md", HERE / "results.svg"
NODE = HERE / "node.json"

INTRODUCTION = """\
# Benchmark results

`make bench` writes this page, its figures ([results.json](results.json)) and the picture; [README.md](README.md)
explains how they are measured. Nobody edits the page by hand.

Each figure is the median of whole processes, from the start of the runtime to its end. "CPU" is the user and
system time of the runtime and of everything that it starts. `x crun` is pyrunc's figure divided by crun's: below
1, pyrunc is faster. The range behind it is the 95 % interval of the ratio, by bootstrap over the rounds; two
ratios whose intervals overlap do not differ. A goal is met if the ratio itself reaches the limit. An
aim is what the project wants beyond the goal. The machine decides: only a run on an idle one counts.
"""
TITLES = {
    "verbs": (
        "Verbs",
        "`run` and `exec` start `/bin/true`; the other verbs act on a container that sleeps. The state is on a tmpfs.",
    ),
    "loaded": ("Verbs while every core has two busy processes", "The same rounds beside processes that only compute."),
    "storm": ("Storm", "`run` of `/bin/true`, many containers, several at a time."),
    "memory": (
        "Memory",
        "The peak is that of the runtime's own process when it exits. The waiting process is the one between create"
        " and start.",
    ),
    "checkpoint": (
        "Checkpoint and restore",
        "`checkpoint` and `restore --detach` of the sleeping container, and `checkpoint` of a container with 200 MB of"
        " dirty memory beside `criu dump` alone.",
    ),
    "mounts": (
        "Mounts of a running container",
        "One bind mount; `exec` is pyrunc's own, of `/bin/true` in the same container. No other runtime has the verb.",
    ),
    "scale": (
        "Scale",
        "500 containers that sleep. `x alone` divides the time of a verb beside them by its time without them; `last`"
        " and `first fifth` are of the 500 as they are created and deleted. The memory of the machine is what it has"
        " less of for each container, runtimes and kernel included.",
    ),
}
NODE_INTRODUCTION = """\
## A node of Kubernetes

`make bench-node` measures this separately: a containerd with each runtime in turn, driven through CRI as kubelet
drives it. It starts pods of one container one after the other, then executes `/bin/true` in them, ten times a
second. The runtime's CPU time is the sum of all its processes, of the containers' and of `/bin/true`; the last two are
the same for all runtimes. The children of containerd are the CNI plugins and the programs that start the shims.
"""
IDLE = 90  # percent; below it other programs were running


def page(report: Report, node: Report | None = None) -> str:
    """The whole text; `node` is what bench/node.py found, which is measured separately."""
    parts = [INTRODUCTION, conditions(report), goals(report, GOALS), "![bars by verb and runtime](results.svg)"]
    for group, (title, explanation) in TITLES.items():
        rows = [row for row in report["rows"] if row["group"] == group]
        if rows:
            parts.append(f"## {title}\n\n{explanation}\n\n{figures(report, rows)}")
    for title, cells in report["notes"].items():
        parts.append(f"## {title}\n\n" + markdown([["", "found"], *([name, text] for name, text in cells.items())]))
    if node:
        parts.append(NODE_INTRODUCTION)
        parts += [conditions(node, "execs"), goals(node, NODE_GOALS, "###"), figures(node, node["rows"])]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def conditions(report: Report, rounds: str = "rounds") -> str:
    """Date, machine, versions, and whether the machine was idle."""
    facts = report["machine"]
    rows = [["", ""], ["date", report["date"]]]
    rows += [[name, text] for name, text in facts.items()]
    rows += [[name, version] for name, version in report["runtimes"].items()]
    rows.append([rounds, str(report["rounds"])])
    rows.append(["duration", f"{report['seconds']} s"])
    text = markdown(rows)
    if int(facts["idle before"].split()[0]) < IDLE:
        text += "\n\n**The machine was not idle: other programs were running. Wall times and ratios are not reliable.**"
    if report["remarks"]:
        text += "\n\n" + "\n".join(f"* {remark}" for remark in report["remarks"])
    return text


def goals(report: Report, wanted: list[Goal], level: str = "##") -> str:
    """Each goal, and whether it is met."""
    verdicts = [judge(goal, report["rows"]) for goal in wanted]
    counted = [verdict for verdict in verdicts if verdict.met is not None]
    met = sum(verdict.met is True for verdict in counted)
    head = ["goal", "measured", "interval", "to reach", "aim", "met"]
    text = f"{level} Goals\n\n{met} of {len(counted)} goals are met"
    lacking = len(verdicts) - len(counted)
    text += f"; {lacking} were not measured.\n\n" if lacking else ".\n\n"
    return text + markdown([head, *map(_goal, verdicts)])


def _goal(verdict: Verdict) -> list[str]:
    goal = verdict.goal
    sign = ">=" if goal.least else "<="
    return [
        goal.text(),
        "-" if verdict.figure is None else f"{verdict.figure:.3f}" if goal.peer else number(verdict.figure),
        f"{verdict.interval[0]:.2f} to {verdict.interval[1]:.2f}" if verdict.interval else "",
        f"{sign} {goal.reach:g}",
        "" if goal.aim is None else f"{sign} {goal.aim:g}",
        verdict.word(),
    ]


def number(value: float) -> str:
    """Three digits that count, and all digits before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def figures(report: Report, rows: list[Row]) -> str:
    """One line for each measure: the figure of every runtime, and pyrunc's ratios."""
    names = [name for name in report["runtimes"] if any(name in row["values"] for row in rows)]
    names += sorted({name for row in rows for name in row["values"]} - set(names))
    peers = [name for name in names if any(name in row["ratios"] for row in rows)]
    table = [["", "unit", *names, *(f"x {name}" for name in peers)]]
    for row in rows:
        cells = [number(row["values"][name]) if name in row["values"] else "-" for name in names]
        for name in peers:
            found = row["ratios"].get(name)
            cells.append(f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})" if found else "-")
        table.append([row["what"], row["unit"], *cells])
    return markdown(table)


def write(report: Report) -> None:
    """Write the data, the page, and the picture if matplotlib is installed."""
    from bench.plot import draw

    DATA.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(report, read(NODE)))
    draw(report, PICTURE)


def write_node(report: Report) -> None:
    """Write what bench/node.py found, and the page."""
    NODE.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(current())


def current() -> str:
    """The page of the figures in the tree."""
    measured = read(DATA)
    assert measured is not None
    return page(measured, read(NODE))


def read(path: Path) -> Report | None:
    """The figures of an earlier run."""
    if not path.exists():
        return None
    found: Report = json.loads(path.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    PAGE.write_text(current())
