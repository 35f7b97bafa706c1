"""The system calls of each filesystem op of init, with their flags, in order:
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
from integration.native_fs import NATIVE, Script, lines, skip_marks
from integration.test_native_faults import LABELS, SCENES

pytest_plugins = ["integration.native_fs"]
pytestmark = [*skip_marks, pytest.mark.needs_kernel(6, 2), pytest.mark.needs_arch("x86_64")]

GOLDEN = NATIVE / "tests" / "flags.txt"
OPEN_FLAGS = {
    "O_WRONLY": 1, "O_RDWR": 2, "O_CREAT": 0o100, "O_EXCL": 0o200, "O_NOCTTY": 0o400, "O_TRUNC": 0o1000,
    "O_APPEND": 0o2000, "O_NONBLOCK": 0o4000, "O_DIRECTORY": 0o200000, "O_NOFOLLOW": 0o400000, "O_CLOEXEC": 0o2000000,
    "O_PATH": 0o10000000,
}  # fmt: skip


@pytest.fixture
def script(plain_driver: pathlib.Path, root: pathlib.Path) -> Script:
    return Script(plain_driver, root)


def readable(call: str) -> str:
    """The flags of open by name."""
    name, *words = call.split(" ")
    if name in ("open", "openat", "openat2"):
        number = int(words[0], 16)
        names = [flag for flag, bit in OPEN_FLAGS.items() if number & bit]
        left = number & ~sum(OPEN_FLAGS.values())
        words[0] = "|".join([*names, *([hex(left)] if left else [])]) or "O_RDONLY"
    return " ".join([name, *words])


def calls_of(script: Script, name: str) -> Iterator[str]:
    """The calls of the last op of a scene; repeated calls are one line."""
    prepare, flags = SCENES[name]
    prepare(script)
    calls = [call for call, _ in itertools.groupby(map(readable, lines(script.run("-T", *flags)[-1])))]
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
