"""gcov.py DIRECTORY...: lines and branches of native/ that programs reached which left their counts
(*.gcda) there.

A file is compiled into several programs; a line or branch is reached when one of them did.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections import defaultdict

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main(directories: list[pathlib.Path]) -> int:
    lines: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    branches: dict[str, dict[int, list[int]]] = defaultdict(dict)
    for notes in [path for directory in directories for path in sorted(directory.glob("*.gcda"))]:
        command = ["gcov", "--json-format", "--stdout", "--branch-probabilities", str(notes)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=notes.parent)
        for document in map(json.loads, done.stdout.splitlines()):
            for file in document["files"]:
                path = pathlib.Path(document["current_working_directory"], file["file"]).resolve()
                if not path.is_relative_to(ROOT / "native") or path.parent.name in ("tests", "coverage"):
                    continue
                name = str(path.relative_to(ROOT))
                for line in file["lines"]:
                    number, counts = line["line_number"], [branch["count"] for branch in line["branches"]]
                    lines[name][number] += line["count"]
                    # If flags made other branches of a line, the first program's count.
                    known = branches[name].setdefault(number, counts)
                    if known is not counts and len(known) == len(counts):
                        branches[name][number] = [a + b for a, b in zip(known, counts, strict=True)]
    print(f"{'file':32}{'lines':>7}{'reached':>9}{'branches':>10}{'taken':>7}  never reached")
    sums = [0, 0, 0, 0]
    for name in sorted(lines):
        taken = [count for counts in branches[name].values() for count in counts]
        values = [len(lines[name]), sum(1 for count in lines[name].values() if count)]
        values += [len(taken), sum(1 for count in taken if count)]
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
    sys.exit(main([pathlib.Path(name).resolve() for name in sys.argv[1:]]))
