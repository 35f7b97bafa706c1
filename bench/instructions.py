"""Instructions that each verb of pyrunc executes (valgrind --tool=callgrind): exact where wall time is noise.

Only the runtime's own process is counted, not the container's.  ``python -m bench.instructions`` prints a table;
``--keep DIR`` leaves the profiles there for callgrind_annotate.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.measure import ENVIRONMENT, LIMIT, become_subreaper, find, make_bundle

VERBS = ["create", "state", "start", "kill", "delete", "run"]


def one(pyrunc: str, args: list[str], profile: Path) -> str:
    """Instructions of one call, with thin spaces as in 12 345 678, or why there is no count."""
    argv = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", pyrunc, *args]
    errors = profile.with_suffix(".log")
    with errors.open("wb") as sink:  # a file: the container keeps what it is given as stderr
        subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=sink, timeout=LIMIT * 5, check=False,
            env=ENVIRONMENT,
        )  # fmt: skip
    text = errors.read_text(errors="replace")
    found = re.findall(r"Collected : (\d+)", text)
    lines = [line for line in text.splitlines() if line.startswith("pyrunc:")]
    return lines[0] if lines else f"{int(found[-1]):,}".replace(",", " ") if found else "valgrind gave no count"


def count(pyrunc: str, bundle: Path, place: Path) -> dict[str, str]:
    """Of every verb, on a bundle that sleeps; profiles go to `place`."""
    if shutil.which("valgrind") is None:
        return dict.fromkeys(VERBS, "not measured: valgrind is not installed")
    place.mkdir(exist_ok=True)
    ident, root = f"bench{os.getpid()}-callgrind", ["--root", str(place / "root")]
    made = {"create": ["create", "--bundle", str(bundle), ident], "kill": ["kill", ident, "KILL"]}
    results = {}
    for verb in VERBS[:5]:
        results[verb] = one(pyrunc, [*root, *made.get(verb, [verb, ident])], place / f"{verb}.callgrind")
    subprocess.run([pyrunc, *root, "delete", "--force", ident], check=False, timeout=LIMIT)
    quick = place / "quick"
    if not quick.exists():
        make_bundle(place, pyrunc, "quick", ["/bin/true"])
    results["run"] = one(pyrunc, [*root, "run", "--bundle", str(quick), ident], place / "run.callgrind")
    subprocess.run([pyrunc, *root, "delete", "--force", ident], check=False, timeout=LIMIT)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keep", metavar="DIR", type=Path, help="keep the profiles in DIR")
    given = parser.parse_args()
    pyrunc = find("pyrunc")
    if pyrunc is None or os.geteuid() != 0:
        raise SystemExit("bench: needs root and a built pyrunc")
    become_subreaper()
    place = Path(tempfile.mkdtemp(prefix="pybench"))
    try:
        bundle = make_bundle(place, pyrunc, "long", ["/bin/sleep", "1000"])
        target = given.keep or place / "callgrind"
        target.mkdir(parents=True, exist_ok=True)
        for verb, text in count(pyrunc, bundle, target).items():
            print(f"{verb:8} {text}")
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
