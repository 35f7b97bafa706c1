"""The JSON schemas of runtime-spec and their samples: part of the Go module that `make conformance` is built with.

The module cache has them after the first time.  go.mod says which version, go.sum that it is that one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

MODULE = "github.com/opencontainers/runtime-spec"
HERE = Path(__file__).resolve().parent.parent / "integration" / "conformance"
TIMEOUT = 120


@cache
def find() -> tuple[Path, str]:
    """The directory of the schemas and "", or a directory that does not exist and the reason."""
    nowhere = Path("/nonexistent")
    go = shutil.which("go")
    if go is None:
        return nowhere, "Go is not installed: the official schemas are in a Go module"
    try:
        done = subprocess.run(
            [go, "mod", "download", "-json", MODULE],
            cwd=HERE, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return nowhere, f"{MODULE} could not be downloaded within {TIMEOUT} s"
    if done.returncode:
        said = json.loads(done.stdout).get("Error", "") if done.stdout.startswith("{") else done.stderr.strip()
        return nowhere, f"{MODULE} could not be downloaded: {said}"
    return Path(json.loads(done.stdout)["Dir"]) / "schema", ""


OFFICIAL, MISSING = find()
