"""Instructions that each verb of pyrunc executes (valgrind --tool=callgrind): exact where wall time
is noisy.

Only the runtime's own process is counted, without init. ``python -m bench.instructions`` prints the
counts; ``--keep DIR`` leaves the profiles there for callgrind_annotate. ``--json FILE`` writes them
to a file. ``--than FILE --at-most 1.15`` compares them with those in a file, and fails if a verb
executes more than 1.15 times as many. ``--table FILE...`` prints files as a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.measure import ENVIRONMENT, LIMIT, become_subreaper, find, make_bundle

VERBS = ["create", "run", "exec", "state", "start", "kill", "delete"]
SPAWNS = (
    "init ended unexpectedly in state "  # valgrind's error for executing init from a memfd, which it does not support
)


def one(pyrunc: str, args: list[str], profile: Path, *, children: bool = False) -> str:
    """Instructions of one call as 12 345 678, or the reason why there is no count.

    ``children``: also those of the programs that the process executes.
    """
    argv = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", pyrunc, *args]
    if children:  # a profile for each process: only the last program of ours is counted
        argv[2:3] = [f"--callgrind-out-file={profile}.%p", "--trace-children=yes"]
    errors = profile.with_suffix(".log")
    with errors.open("w") as sink:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=sink, env=ENVIRONMENT
        )
        try:
            process.wait(LIMIT * 5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    text = errors.read_text(errors="replace")
    found = re.findall(rf"^=={process.pid}== Collected : (\d+)", text, re.M)
    lines = [line for line in text.splitlines() if line.startswith("pyrunc:")]
    if not found:
        return "valgrind gave no count"
    number = f"{int(found[-1]):,}".replace(",", " ")
    if not lines:
        return number
    if SPAWNS in lines[0]:
        return f"{number} (until init is spawned: valgrind cannot execute from a memfd)"
    if "ENOSYS" in lines[0]:
        return f"{number} (until a system call that this valgrind does not know)"
    return lines[0]


def count(pyrunc: str, bundle: Path, place: Path, *, children: bool = False) -> dict[str, str]:
    """The counts of every verb, on a bundle that sleeps; profiles go to `place`."""

    def counted(verb: str, *args: str) -> str:
        return one(pyrunc, [*root, verb, *args], place / f"{verb}.callgrind", children=children)

    if shutil.which("valgrind") is None:
        return dict.fromkeys(VERBS, "not measured: valgrind is not installed")
    place.mkdir(parents=True, exist_ok=True)
    ident, root = f"bench{os.getpid()}-callgrind", ["--root", str(place / "root")]

    def plain(*args: str) -> None:
        quiet = subprocess.DEVNULL
        subprocess.run([pyrunc, *root, *args], check=True, stdin=quiet, stdout=quiet, stderr=quiet, timeout=LIMIT)

    results = {}
    for verb in ("create", "run"):
        results[verb] = counted(verb, "--bundle", str(bundle), ident)
        plain("delete", "--force", ident)
    plain("create", "--bundle", str(bundle), ident)
    for verb in ("exec", "state", "start", "kill", "delete"):
        results[verb] = counted(verb, ident, *{"kill": ["KILL"], "exec": ["/bin/true"]}.get(verb, []))
        if verb == "kill":
            plain("delete", "--force", ident)  # whether or not valgrind executed it
            plain("create", "--bundle", str(bundle), ident)
    plain("delete", "--force", ident)
    return results


def number(text: str) -> int:
    """The number at the start of a count; 0 if there is none."""
    found = re.match(r"\d[\d ]*", text)
    return int(found[0].replace(" ", "")) if found else 0


def too_many(counts: dict[str, int], model: dict[str, int], factor: float) -> list[str]:
    """The verbs that execute more than `factor` times the instructions of the model, or have no
    count, each with its ratio."""
    return [
        f"{verb}: {counts.get(verb, 0) / model[verb]:.3f}"
        for verb in VERBS
        if not 0 < counts.get(verb, 0) <= factor * model[verb]
    ]


def table(paths: list[Path]) -> str:
    """Counts of several files as rows in Markdown, in millions."""
    lines = ["| | " + " | ".join(VERBS) + " |", "|---" * (len(VERBS) + 1) + "|"]
    for path in (path for path in paths if path.exists()):
        counts = json.loads(path.read_text())
        cells = [f"{counts[verb] / 1e6:.2f}" if counts.get(verb) else "-" for verb in VERBS]
        lines.append(f"| {path.stem} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compare(counts: dict[str, int], path: Path, factor: float) -> int:
    """Print how the counts compare with those in a file. Returns the exit status."""
    if not path.exists():
        print(f"FAILED there is nothing to compare with: {path}")
        return 1
    model = json.loads(path.read_text())
    print("times those of", path.stem, *(f"{verb}:{counts.get(verb, 0) / model[verb]:.2f}" for verb in VERBS))
    wrong = too_many(counts, model, factor)
    if wrong:
        print(f"FAILED not at most {factor} times:", ", ".join(wrong))
    return int(bool(wrong))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keep", metavar="DIR", type=Path, help="keep the profiles in DIR")
    parser.add_argument("--children", action="store_true", help="count programs that are executed, for launcher=exec")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the counts to FILE")
    parser.add_argument("--than", metavar="FILE", type=Path, help="compare with the counts in FILE")
    parser.add_argument("--at-most", metavar="FACTOR", type=float, default=1.0, help="fail above this ratio")
    parser.add_argument("--table", metavar="FILE", type=Path, nargs="+", help="only print these files as a table")
    given = parser.parse_args()
    if given.table:
        print(table(given.table))
        return 0
    pyrunc = find("pyrunc")
    if pyrunc is None or os.geteuid() != 0:
        raise SystemExit("bench: needs root and a built pyrunc")
    become_subreaper()
    place = Path(tempfile.mkdtemp(prefix="pybench"))
    try:
        bundle = make_bundle(place, pyrunc, "long", ["/bin/sleep", "1000"])
        texts = count(pyrunc, bundle, given.keep or place / "callgrind", children=given.children)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    for verb, text in texts.items():
        print(f"{verb:8} {text}")
    counts = {verb: number(text) for verb, text in texts.items()}
    if given.json:
        given.json.write_text(json.dumps(counts))
    return compare(counts, given.than, given.at_most) if given.than else 0


if __name__ == "__main__":
    sys.exit(main())
