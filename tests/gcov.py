"""gcov.py DIRECTORY: lines and branches of native/ that programs reached which left their counts (*.gcda) there.

A file is compiled into several programs; a line or branch is reached when one of them did.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections import defaultdict

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main(directory: pathlib.Path) -> int:
    lines: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    branches: dict[str, dict[tuple[int, int], int]] = defaultdict(lambda: defaultdict(int))
    for notes in sorted(directory.glob("*.gcda")):
        command = ["gcov", "--json-format", "--stdout", "--branch-probabilities", str(notes)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=directory)
        for document in done.stdout.splitlines():
            for file in json.loads(document)["files"]:
                path = (ROOT / file["file"]).resolve()
                if not path.is_relative_to(ROOT / "native") or "tests" in path.parts[len(ROOT.parts) :]:
                    continue
                name = str(path.relative_to(ROOT))
                for line in file["lines"]:
                    lines[name][line["line_number"]] += line["count"]
                    for index, branch in enumerate(line["branches"]):
                        branches[name][line["line_number"], index] += branch["count"]
    print(f"{'file':32}{'lines':>7}{'reached':>9}{'branches':>10}{'taken':>7}  never reached")
    sums = [0, 0, 0, 0]
    for name in sorted(lines):
        values = [len(lines[name]), sum(1 for count in lines[name].values() if count)]
        values += [len(branches[name]), sum(1 for count in branches[name].values() if count)]
        sums = [a + b for a, b in zip(sums, values, strict=True)]
        missing = " ".join(str(number) for number, count in sorted(lines[name].items()) if not count)
        print(row(name, values) + "  " + missing)
    print(row("all", sums))
    return 0 if lines else 1


def row(name: str, values: list[int]) -> str:
    have, reached, all_branches, taken = values
    share = f"{100 * reached / max(have, 1):.1f}%", f"{100 * taken / max(all_branches, 1):.1f}%"
    return f"{name:32}{have:>7}{share[0]:>9}{all_branches:>10}{share[1]:>7}"


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve()))
