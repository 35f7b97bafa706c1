"""A life cycle with the launchers for interpreters that cannot have a static one with a snapshot.

`make test-pythons` builds and tests these as a whole, the shared one included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.harness import REPO, SLOW, Box, Bundle, Runtime

pytestmark = pytest.mark.pyrunc_only("what its executable is linked with is its own business")
LINKED = REPO / "build/meson/pyrunc-linked"
SITE = Path(sysconfig.get_path("platlib"))


def without_snapshot(place: Path) -> Path:
    """The executable before its snapshot was added."""
    if not LINKED.exists():
        pytest.skip("not built with a snapshot")
    return LINKED


def executing(place: Path) -> Path:
    """The launcher that executes an interpreter."""
    path = place / "bin/pyrunc"
    path.parent.mkdir(parents=True)
    (place / "lib").mkdir()
    (place / "lib/pyrunc").symlink_to(SITE)
    values = {"EXECUTABLE": sys.executable, "EXT_SUFFIX": sysconfig.get_config_var("EXT_SUFFIX")}
    values |= {"VERSION": sysconfig.get_python_version()}
    flags = ["-D_GNU_SOURCE", *(f'-DPYTHON_{name}="{value}"' for name, value in values.items())]
    sources = [REPO / "native/launcher" / name for name in ("exec.c", "guard.c", "package_path.c")]
    subprocess.run(["gcc", "-O1", *flags, *sources, "-o", path], check=True)
    return path


@pytest.mark.needs_program("gcc")
@pytest.mark.parametrize("launcher", [without_snapshot, executing])
def test_life_cycle(
    runtime: Runtime, box: Box, bundle: Callable[..., Bundle], launcher: Callable[[Path], Path]
) -> None:
    if not (SITE / "pyrunc").exists():
        pytest.skip("pyrunc is not installed beside this interpreter")
    source = bundle(edits={"/process/args": ["/bin/sleep", "100"]})
    source.save()
    pyrunc = launcher(box.path / "launcher")

    def call(*args: str) -> str:
        argv = [str(pyrunc), "--root", str(box.path / "state"), *args]
        with (box.path / "out").open("w+") as out:  # not a pipe: the container keeps it open
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=60 * SLOW, check=False
            )
            out.seek(0)
            said = out.read()
        assert done.returncode == 0, (args, said)
        return said

    call("create", "--bundle", str(source.path), "one")
    try:
        assert json.loads(call("state", "one"))["status"] == "created"
        call("start", "one")
        assert call("exec", "one", "/bin/echo", "text") == "text\n"
        assert json.loads(call("events", "--stats", "one"))["id"] == "one"
        call("kill", "one", "KILL")
    finally:
        call("delete", "--force", "one")
    assert call("list", "--quiet") == ""
