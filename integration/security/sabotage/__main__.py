"""``python -m integration.security.sabotage [ROW...]``: prove that the security tests can fail;
writes PROOF.md."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from integration.security.rows import ROWS
from integration.security.sabotage import TABLE
from integration.security.sabotage.row import Sabotage

REPO = Path(__file__).resolve().parents[3]
HERE = "integration/security"
PROOF = REPO / HERE / "PROOF.md"
RESULTS = REPO / "build/proof.json"  # so that a part of the table can be run again
LIMIT = 1200  # one build, or one test, seconds on a busy machine


class Scratch:
    """A copy of the sources with a build of its own."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.prefix = top / "prefix"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=REPO, capture_output=True, text=True, check=True
        )
        for name in listed.stdout.split("\0"):
            if name and (REPO / name).is_file():
                (top / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPO / name, top / name)
        os.umask(0o022)
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # meson and ninja
        self._run("meson", "setup", "build", ".", f"--prefix={self.prefix}")
        self.build()
        package = next(path.parent for path in self.prefix.glob("lib/**/_init"))
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        backend = Path(sysconfig.get_path("platlib"), f"_cffi_backend{suffix}")
        if backend.exists():
            shutil.copy(backend, package.parent)

    def _run(self, *argv: str) -> None:
        done = subprocess.run(argv, cwd=self.top, capture_output=True, text=True, timeout=LIMIT, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(argv)}:\n{(done.stdout + done.stderr)[-3000:]}")

    def build(self) -> None:
        """Build what has changed, and install it below the prefix."""
        self._run("ninja", "-C", "build", "install")

    def apply(self, sabotage: Sabotage) -> dict[Path, str]:
        """Make the edits; what the files were before."""
        before: dict[Path, str] = {}
        for name, old, new in sabotage.edits:
            path = self.top / name
            text = path.read_text()
            if text.count(old) != 1:
                raise SystemExit(f"{sabotage.row}: {name} has {text.count(old)} times, not once:\n{old}")
            before.setdefault(path, text)
            path.write_text(text.replace(old, new))
        return before

    def test(self, name: str) -> tuple[int, str]:
        """Exit status of pytest, and what it printed."""
        env = {**os.environ, "PYRUNC_UNDER_TEST": str(self.prefix / "bin/pyrunc")}
        argv = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"{HERE}/{name}"]
        done = subprocess.run(
            argv, cwd=self.top, env=env, capture_output=True, text=True, timeout=LIMIT, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, done.stdout


def prove(scratch: Scratch, sabotage: Sabotage) -> str:
    """The failing assertion of the sabotaged build. Raises SystemExit when the test did not fail as
    it should."""
    before = scratch.apply(sabotage)
    try:
        scratch.build()
        status, text = scratch.test(sabotage.test)
    finally:
        for path, content in before.items():
            path.write_text(content)
        Path("/dev/shm/pyrunc.lock").unlink(missing_ok=True)
    lines = [line[1:].strip() for line in text.splitlines() if re.match(r"E  ", line)]
    source = [line[1:].strip() for line in text.splitlines() if line.startswith(">  ")]
    if status != 1 or sabotage.words not in text or not lines:
        raise SystemExit(f"{sabotage.row}: {sabotage.test} did not fail as it should ({status}):\n{text[-3000:]}")
    seen = next((line for line in lines + source if sabotage.words in line), lines[0])
    seen = re.sub(r"/tmp/pyt\w+|t[0-9a-f]+n\d+\w*", "...", seen)
    return seen.removeprefix("AssertionError: ")[:110]


def key(sabotage: Sabotage) -> str:
    """What a result is kept under: another edit is another sabotage."""
    return json.dumps([sabotage.row, sabotage.edits, sabotage.test])


def main() -> None:
    wanted = set(sys.argv[1:])
    results: dict[str, str] = json.loads(RESULTS.read_text()) if wanted and RESULTS.exists() else {}
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="pyp") as name:
        Path(name).chmod(0o755)
        scratch = Scratch(Path(name))
        for sabotage in TABLE:
            if wanted and sabotage.row not in wanted:
                continue
            try:
                seen = prove(scratch, sabotage)
            except (SystemExit, subprocess.TimeoutExpired) as error:
                failed.append(sabotage.row)
                print(error, flush=True)
                continue
            print(f"{sabotage.row}: {sabotage.what}: fails as it should: {seen}", flush=True)
            results[key(sabotage)] = seen
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(results))
    if failed:
        raise SystemExit(f"not proven: {' '.join(failed)}")
    missing = [sabotage.row for sabotage in TABLE if key(sabotage) not in results]
    if missing:
        print(f"not run yet: {' '.join(missing)}")
    else:
        write([(sabotage, results[key(sabotage)]) for sabotage in TABLE])
        print(f"{len(TABLE)} sabotages, each seen by its test: {PROOF.relative_to(REPO)}")


def write(found: list[tuple[Sabotage, str]]) -> None:
    """PROOF.md."""
    lines = [
        "# Proof that the tests can fail",
        "",
        "Written by `make prove-security`; do not edit. Each change was applied to a scratch copy, and the test",
        "failed as shown. `sabotage/__init__.py` contains the changes.",
        "",
        "| row | guards against | change | test | failing assertion |",
        "|---|---|---|---|---|",
    ]
    for sabotage, seen in found:
        cells = [sabotage.row, ROWS[sabotage.row], sabotage.what, f"`{sabotage.test}`", f"`{seen}`"]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    PROOF.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
