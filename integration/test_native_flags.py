"""The system calls of each filesystem op of init, with their flags and names, in order:
native/tests/flags.txt.

A missing flag may have no visible effect: O_NOFOLLOW without a race, O_PATH for root, a mask of
statx. After an intended change run with PYRUNC_UPDATE_GOLDEN=1, then read the diff.
"""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Iterator

import pytest

from integration import machine
from integration.native_fs import NATIVE, Script, lines, readable, skip_marks
from integration.native_scenes import LABELS, SCENES

pytest_plugins = ["integration.native_fs"]
pytestmark = [*skip_marks, pytest.mark.needs_kernel(6, 2), pytest.mark.needs_arch("x86_64")]

GOLDEN = NATIVE / "tests" / "flags.txt"


@pytest.fixture
def script(plain_driver: pathlib.Path, root: pathlib.Path) -> Script:
    return Script(plain_driver, root)


def calls_of(script: Script, name: str) -> Iterator[str]:
    """The calls of the last op of a scene. How often mountinfo is read depends on the machine."""
    prepare, flags = SCENES[name]
    prepare(script)
    text = script.run("-T", *flags)[-1].replace(str(script.root), "ROOT")
    found = itertools.groupby(map(readable, lines(text)))
    calls = [call for call, several in found for call in ([call] if call == "read" else several)]
    if name.startswith("pivot_by_moving"):  # one round for each procfs and sysfs that the machine has mounted
        calls = list(dict.fromkeys(calls))
    for call in calls:
        yield f"{name}: {call}"


@pytest.mark.parametrize("name", SCENES)
def test_flags(script: Script, name: str) -> None:
    modules = machine.apparmor_is_on() or os.path.isdir("/sys/fs/selinux")
    if modules and name in {*LABELS, "mount_that_copies_up"}:
        pytest.skip("what is written depends on the security module that is on")
    found = list(calls_of(script, name))
    assert found
    text = GOLDEN.read_text().splitlines() if GOLDEN.exists() else []
    if os.environ.get("PYRUNC_UPDATE_GOLDEN"):
        kept = {scene: [line for line in text if line.startswith(scene + ": ")] for scene in SCENES}
        kept[name] = found
        GOLDEN.write_text("".join(line + "\n" for scene in kept.values() for line in scene))
        return
    assert found == [line for line in text if line.startswith(name + ": ")]
