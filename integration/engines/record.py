"""Observations of each case with each engine and runtime, and the table of them (ENGINES.md)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEAD = """# Engines, case by case

Written by `make engines` and by the targets for other engines (`make help`); do not edit. Each case
is one test that runs on runc and on pyrunc. "seen" is the behaviour observed with both; "ok" means
that it is the expected behaviour. `make test` includes the cases of the engines that the
distribution packages. critest's specs belong to Kubernetes, and the client tests to containerd; one
that fails with both runtimes lacks an image or a controller here.
"""

Seen = dict[str, Any]


class Record:
    """Results by engine, case and runtime."""

    def __init__(self) -> None:
        self.versions: dict[str, dict[str, str]] = {}  # by engine, then by program
        self.rows: dict[str, dict[str, dict[str, Seen]]] = {}

    def add(self, engine: str, case: str, runtime: str, outcome: str, seen: list[str], reason: str = "") -> None:
        """Add one result; `outcome` is passed, failed or skipped."""
        cell = {"outcome": outcome, "seen": seen, "reason": reason}
        self.rows.setdefault(engine, {}).setdefault(case, {})[runtime] = cell

    def other(self, engine: str, case: str, runtime: str) -> tuple[str, list[str]] | None:
        """The name and the observations of another runtime that passed this case."""
        for name, cell in self.rows.get(engine, {}).get(case, {}).items():
            if name != runtime and cell["outcome"] == "passed":
                return name, cell["seen"]
        return None

    def save(self, path: Path) -> None:
        """Write a JSON file, or replace the results of the same engines in it."""
        merge(path, {"versions": self.versions, "rows": self.rows})


def merge(path: Path, found: dict[str, Any]) -> None:
    """Write results to a JSON file, or replace the results of the same engines in it."""
    data = json.loads(path.read_text()) if path.exists() else {"versions": {}, "rows": {}}
    for kind in ("versions", "rows"):
        data[kind].update(found[kind])
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


def save_scale(path: Path, title: str, rows: list[list[str]]) -> None:
    """Replace the figures of ``engines.scale`` in a file that Record has written."""
    data = json.loads(path.read_text())
    data["scale"] = {"title": title, "rows": rows}
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


def scale(data: dict[str, Any]) -> list[str]:
    """The table of the figures of ``engines.scale``."""
    if "scale" not in data:
        return []
    head, *rows = data["scale"]["rows"]
    lines = ["", f"## {data['scale']['title']}", "", "`make scale-engines`.", ""]
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def cell_text(cells: dict[str, Seen], runtime: str) -> str:
    """One cell of the table."""
    cell = cells.get(runtime)
    if cell is None:
        return "not run"
    if cell["outcome"] == "skipped":
        return f"skipped: {cell['reason']}"
    return "ok" if cell["outcome"] == "passed" else "**failed**"


def summary(data: dict[str, Any]) -> list[str]:
    """The table of engines, as in the README: versions, cases that could run here, cases with the
    expected result."""
    lines = ["| engine | versions | cases | with runc | with pyrunc |", "|---|---|---|---|---|"]
    for engine, cases in sorted(data["rows"].items()):
        versions = ", ".join(f"{name} {version}" for name, version in sorted(data["versions"][engine].items()))
        ran = [cells for cells in cases.values() if any(cell["outcome"] != "skipped" for cell in cells.values())]
        good = [sum(cells.get(name, {}).get("outcome") == "passed" for cells in ran) for name in ("runc", "pyrunc")]
        lines.append(f"| {engine} | {versions} | {len(ran)} | {good[0]} | {good[1]} |")
    return lines


def table(data: dict[str, Any]) -> str:
    """The whole file: the summary, then a table for each engine."""
    lines = [HEAD, *summary(data)]
    for engine, cases in sorted(data["rows"].items()):
        runtimes = sorted({name for cells in cases.values() for name in cells}, reverse=True)
        lines += [
            "",
            f"## {engine}",
            "",
            "| case | " + " | ".join(runtimes) + " | seen |",
            "|---" * (len(runtimes) + 2) + "|",
        ]
        for case, cells in cases.items():
            texts = [cell_text(cells, name) for name in runtimes]
            seen: list[str] = next((cell["seen"] for cell in cells.values() if cell["seen"]), [])
            what = "; ".join(seen).replace("|", "\\|").replace("\n", " ")
            lines.append(f"| {case} | " + " | ".join(texts) + f" | {what} |")
    return "\n".join(lines + scale(data)) + "\n"


def write(results: Path, repo: Path) -> None:
    """Write ENGINES.md, and the summary into the README's section on engines."""
    data = json.loads(results.read_text(encoding="utf-8"))
    (repo / "integration/ENGINES.md").write_text(table(data), encoding="utf-8")
    readme = repo / "README.md"
    before, title, after = readme.read_text(encoding="utf-8").partition("## Works with\n")
    section, mark, rest = after.partition("\n## ")
    lines = section.splitlines()
    rows = [number for number, line in enumerate(lines) if line.startswith("|")]
    lines[rows[0] : rows[-1] + 1] = summary(data)
    readme.write_text(before + title + "\n".join(lines) + "\n" + mark + rest, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(__file__).parents[2])
