"""Instructions that each verb of pyrunc executes (valgrind --tool=callgrind): exact where wall time
is noisy.

Only the runtime's own process is counted, without init. ``python -m bench.instructions`` prints a
table; ``--keep DIR`` leaves the profiles there for callgrind_annotate.
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

VERBS = ["create", "run", "exec", "state", "start", "kill", "delete"]
SPAWNS = "unexpectedly in state spawned"  # valgrind's error for executing init from a memfd, which it does not support


def one(pyrunc: str, args: list[str], profile: Path) -> str:
    """Instructions of one call as 12 345 678, or the reason why there is no count."""
    argv = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", pyrunc, *args]
    errors = profile.with_suffix(".log")
    with errors.open("w") as sink:
        subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=sink,
            timeout=LIMIT * 5,
            check=False,
            env=ENVIRONMENT,
        )
    text = errors.read_text(errors="replace")
    found = re.findall(r"Collected : (\d+)", text)
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


def count(pyrunc: str, bundle: Path, place: Path) -> dict[str, str]:
    """The counts of every verb, on a bundle that sleeps; profiles go to `place`."""
    if shutil.which("valgrind") is None:
        return dict.fromkeys(VERBS, "not measured: valgrind is not installed")
    place.mkdir(parents=True, exist_ok=True)
    ident, root = f"bench{os.getpid()}-callgrind", ["--root", str(place / "root")]

    def plain(*args: str) -> None:
        quiet = subprocess.DEVNULL
        subprocess.run([pyrunc, *root, *args], check=True, stdin=quiet, stdout=quiet, stderr=quiet, timeout=LIMIT)

    results = {}
    for verb in ("create", "run"):
        results[verb] = one(pyrunc, [*root, verb, "--bundle", str(bundle), ident], place / f"{verb}.callgrind")
        plain("delete", "--force", ident)
    plain("create", "--bundle", str(bundle), ident)
    for verb in ("exec", "state", "start", "kill", "delete"):
        args = [verb, ident, *{"kill": ["KILL"], "exec": ["/bin/true"]}.get(verb, [])]
        results[verb] = one(pyrunc, [*root, *args], place / f"{verb}.callgrind")
        if verb == "kill":
            plain("delete", "--force", ident)  # whether or not valgrind executed it
            plain("create", "--bundle", str(bundle), ident)
    plain("delete", "--force", ident)
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
        for verb, text in count(pyrunc, bundle, given.keep or place / "callgrind").items():
            print(f"{verb:8} {text}")
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
