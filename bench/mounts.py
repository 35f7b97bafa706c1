"""`mounts add` and `remove` on a running container, beside `exec` of /bin/true in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import OURS, Row, row

if TYPE_CHECKING:
    from bench.series import Series

ROUNDS = 40
EXEC = "exec"


def rows(series: list[Series], place: Path, long: Path) -> list[Row]:
    """The rows of the group "mounts": add, remove, and their ratios to an exec."""
    ours = next(one for one in series if one.name == OURS)
    ident = f"bench{os.getpid()}-mounts"
    file = place / "mounts.json"
    entry = {"destination": "/mnt", "type": "bind", "source": str(place), "options": ["bind", "ro"]}
    file.write_text(json.dumps([entry]))
    samples: dict[str, list[float]] = {"add": [], "remove": [], EXEC: []}
    ours.call("create", "--bundle", str(long), ident)
    try:
        ours.call("start", ident)
        for number in range(-2, ROUNDS):  # the first two warm up
            used = {EXEC: ours.call("exec", ident, "/bin/true").wall}
            for verb in ("add", "remove"):
                used[verb] = ours.call("mounts", verb, ident, str(file)).wall
            if number >= 0:
                for what, spent in used.items():
                    samples[what].append(spent)
    finally:
        ours.call("delete", "--force", ident, expect=None)
        ours.worker.reap()
    return [
        row("mounts", f"mounts {verb}", "ms", {OURS: samples[verb], EXEC: samples[EXEC]}) for verb in ("add", "remove")
    ]
