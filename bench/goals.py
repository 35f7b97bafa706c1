"""The project's goals, and what a run says about them."""

from __future__ import annotations

from typing import NamedTuple

from bench.report import OURS, Row, find
from bench.series import SUM

SHORT = ("start", "state", "kill", "delete")
VERBS = (*SHORT, "exec", "create", "run", "ps -f json", SUM)


class Goal(NamedTuple):
    """A limit for pyrunc's ratio to a peer's figure, or for pyrunc's own figure if there is no
    peer."""

    group: str
    what: str
    unit: str
    peer: str
    reach: float
    aim: float | None = None
    least: bool = False  # the figure must reach the limit instead of staying below it

    def text(self) -> str:
        """The measure and what it is compared with."""
        kind = {"ms": "wall time", "CPU ms": "CPU time", "CPU s": "CPU time"}.get(self.unit, self.unit)
        place = {"verbs": "", "loaded": " on busy cores", "scale": " with 500 containers", "mounts": "", "node": ""}
        text = self.what + place.get(self.group, f" ({self.group})")
        return ", ".join(filter(None, [text, kind, f"x {self.peer}" if self.peer else ""]))


GOALS = [
    *(Goal("verbs", verb, "ms", "crun", 1.0, 0.8) for verb in SHORT),
    *(Goal("verbs", verb, "CPU ms", "crun", 0.9, 0.8) for verb in SHORT),
    Goal("verbs", "exec", "ms", "crun", 1.0, 0.9),
    Goal("verbs", "exec", "CPU ms", "crun", 1.0, 0.9),
    *(Goal("verbs", verb, "ms", "crun", 1.05, 0.9) for verb in ("create", "run")),
    Goal("verbs", SUM, "ms", "crun", 1.0, 0.85),
    Goal("verbs", "ps -f json", "ms", "crun", 1.2, 1.0),
    Goal("storm", "containers", "a second", "crun", 0.95, 1.2, least=True),
    *(Goal("loaded", verb, "ms", "crun", 1.0) for verb in VERBS),
    Goal("memory", "peak of the largest verb", "MB", "", 8.0, 5.0),
    Goal("memory", "waiting process, PSS", "KiB", "", 108.0),
    *(Goal("scale", verb, "x alone", "", 1.2) for verb in VERBS),
    Goal("scale", "create + start, last fifth", "x first fifth", "", 1.2),
    Goal("scale", "delete --force, last fifth", "x first fifth", "", 1.2),
    Goal("scale", "cgroups left", "", "", 0.0),
    Goal("mounts", "mounts add", "ms", "exec", 1.2),
    Goal("checkpoint", "checkpoint + restore", "ms", "runc", 1.0),
    Goal("checkpoint", "dump of 200 MB of dirty memory", "ms", "criu", 1.1),
]
# Of bench/node.py: containerd, fifty pods, ten execs a second.
NODE_GOALS = [
    Goal("node", "execs, runtime", "CPU s", "runc", 0.4),
    Goal("node", "execs, runtime", "CPU s", "crun", 1.0),
    Goal("node", "start of the pods, runtime", "CPU s", "runc", 0.4),
    Goal("node", "start of the pods, runtime", "CPU s", "crun", 1.0),
    Goal("node", "start of a pod, p99", "ms", "runc", 1.0),
]


class Verdict(NamedTuple):
    """A goal and the figure that it is judged by; `met` is None if nothing was measured."""

    goal: Goal
    figure: float | None
    interval: tuple[float, float] | None
    met: bool | None
    aim_met: bool | None

    def word(self) -> str:
        """What the page says."""
        if self.met is None:
            return "not measured"
        if not self.met:
            return "**no**"
        return "yes, and the aim" if self.aim_met else "yes"


def judge(goal: Goal, rows: list[Row]) -> Verdict:
    """Compare the median with the limit. The interval does not decide; the page shows it."""
    row = find(rows, goal.group, goal.what, goal.unit)
    if row is None or (goal.peer and goal.peer not in row["ratios"]) or OURS not in row["values"]:
        return Verdict(goal, None, None, None, None)
    if goal.peer:
        figure, low, high = row["ratios"][goal.peer]
        interval = (low, high)
    else:
        figure, interval = row["values"][OURS], None

    def reached(limit: float) -> bool:
        return figure >= limit if goal.least else figure <= limit

    aim = None if goal.aim is None else reached(goal.aim)
    return Verdict(goal, figure, interval, reached(goal.reach), aim)
