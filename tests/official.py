"""The JSON schemas of runtime-spec and of image-spec with their samples, which come as Go modules.

The module cache has them after the first time. runtime-spec is the one that `make conformance` is
built with: go.mod says which version, go.sum that it is that one.
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
def find(module: str, checksum: str = "") -> tuple[Path, str]:
    """The directory of a module and "", or a directory that does not exist and the reason.

    ``checksum``: what go.sum would say, for a module that go.mod does not name.
    """
    nowhere = Path("/nonexistent")
    go = shutil.which("go")
    if go is None:
        return nowhere, "Go is not installed: the official schemas are in a Go module"
    try:
        done = subprocess.run(
            [go, "mod", "download", "-json", module],
            cwd=HERE, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return nowhere, f"{module} could not be downloaded within {TIMEOUT} s"
    if done.returncode:
        said = json.loads(done.stdout).get("Error", "") if done.stdout.startswith("{") else done.stderr.strip()
        return nowhere, f"{module} could not be downloaded: {said}"
    answer = json.loads(done.stdout)
    if checksum and answer["Sum"] != checksum:
        return nowhere, f"{module} has the checksum {answer['Sum']}, expected {checksum}"
    return Path(answer["Dir"]), ""


_RUNTIME, MISSING = find(MODULE)
OFFICIAL = _RUNTIME / "schema"
