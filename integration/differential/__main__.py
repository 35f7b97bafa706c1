"""Run the differential test, or one case of it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from integration.differential import campaign, compare, entries, generator, pool, report
from integration.differential.model import Case
from integration.harness import REPO

BUILD = REPO / "build/differential"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m integration.differential", description=__doc__)
    parser.add_argument("--configs", type=int, default=5000, help="how many configs")
    parser.add_argument("--sequences", type=int, default=1000, help="how many sequences of commands")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number to begin with")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", type=Path, help="write the page about the run to this file")
    parser.add_argument("--keep", type=Path, help="write every case and its answers to this file")
    parser.add_argument("--replay", type=Path, help="explain the answers in a file of --keep; nothing is drawn")
    parser.add_argument("--no-reduce", action="store_true", help="do not make cases smaller")
    parser.add_argument("--case", type=int, help="only this config")
    parser.add_argument("--sequence", type=int, help="only this sequence")
    parser.add_argument("--file", type=Path, help="only the case in this file, a line of JSON as --show prints it")
    parser.add_argument("--show", action="store_true", help="print the case, what was said and every difference")
    return parser.parse_args()


def show(case: Case, program: Path, peers: dict[str, str]) -> int:
    """Print one case with everything known about it."""
    print(case.dump())
    print(json.dumps(case.config(), indent=1))
    worker = pool.Worker(program, peers)
    try:
        answer = worker.ask(case)
    finally:
        worker.close()
    if "error" in answer:
        print(answer["error"])
        return 1
    for name, said in answer["said"].items():
        for step, (command, text) in enumerate(zip(case.commands, said, strict=True)):
            rc = answer["facts"][name].get(f"step {step} {command[0]} rc")
            print(f"{name} step {step} {command[0]}: {rc} {text}")
    left = campaign.unexplained(case, answer)
    for one in compare.differences(answer["facts"]):
        known = entries.explain(case, one, campaign.ENTRIES, answer["said"])
        marks = [
            f"{peer}: {entry.name if entry else 'UNEXPLAINED' if one in left else 'follows'}"
            for peer, entry in known.items()
        ]
        print(f"{one.fact} [{'; '.join(marks)}]")
        for name, value in one.values.items():
            print(f"    {name}: {value!r}")
    return int(bool(left))


def version(path: str) -> str:
    """The last word of the first line of ``--version``."""
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.splitlines()[0].rpartition(" ")[2]


def main() -> int:
    args = options()
    peers = pool.runtimes()
    program = pool.build_program(BUILD)
    if len(peers) < 2:
        print("no peer: bench/peers.sh gets runc and crun", file=sys.stderr)
        return 1
    for number, kind in ((args.case, "config"), (args.sequence, "sequence")):
        if number is not None:
            return show(generator.case(args.seed, kind, number), program, peers)
    if args.file:
        return show(Case.load(args.file.read_text()), program, peers)
    start = time.monotonic()
    work = campaign.Campaign(program, peers, args.jobs)
    work.reducing = not args.no_reduce
    if args.replay:
        with args.replay.open() as lines:
            results = work.judge(campaign.kept(lines))
    else:
        with args.keep.open("w") if args.keep else nullcontext() as file:
            results = work.run(campaign.cases(args.seed, args.configs, args.sequences, args.first), file)
    text = report.page(results, {name: version(path) for name, path in peers.items()}, args.seed)
    if args.table:
        args.table.write_text(text)
    print(text)
    for entry in results.unexplained:
        print(entry.text())
    for message in results.errors:
        print("ERROR", message)
    print(f"{dict(results.cases)} in {time.monotonic() - start:.0f} s")
    return int(bool(results.unexplained or results.errors))


if __name__ == "__main__":
    sys.exit(main())
