"""The report of each op for each of its failing system calls, one line each in
native/tests/failures.txt.

An omitted check, or an error that is swallowed or attributed to another field, changes a line.
After an intended change run with PYRUNC_UPDATE_GOLDEN=1, then read the diff.
"""

from __future__ import annotations

import errno
import os
import pathlib
import re

import pytest

from integration import machine
from integration.native_fs import (
    NATIVE,
    OBJECTS,
    Script,
    failure,
    readable,
    skip_marks,
)
from integration.native_scenes import LABELS, SCENES
from pyrunc.plan import ops

pytest_plugins = ["integration.native_fs"]
pytestmark = [*skip_marks, pytest.mark.needs_kernel(6, 2)]

GOLDEN = NATIVE / "tests" / "failures.txt"
# Errors that some op explains, works around or treats as an answer.
ANSWERS = [
    errno.EINVAL, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EBUSY, errno.EEXIST, errno.ENODEV,
    errno.ELOOP, errno.EMFILE, errno.ENOSYS, errno.EROFS,
]  # fmt: skip


def way_back(script: Script, calls: list[str]) -> str:
    """What the op does after the failing call. How it closes descriptors is checked by the driver."""
    found = [readable(call) for call in calls if call and call.split(" ")[0] not in ("close", "read")]
    return ", ".join(found).replace(str(script.root), "ROOT")


def outcomes(script: Script, name: str) -> list[str]:
    """The op's report for each failing call: with EIO, and with another error if the report
    differs."""
    prepare, flags = SCENES[name]
    prepare(script)
    plain, found = {}, []
    for number, index, call, after, answer in script.sweep([errno.EIO, *ANSWERS], *flags):
        words = " ".join(filter(None, map(str, failure(answer)))) if answer.startswith("fail") else answer
        words = words.replace(str(script.root), "ROOT")
        if name.startswith("pivot_by_moving"):  # one round for each procfs and sysfs that the machine has mounted
            words = re.sub(r" /(?!proc/thread-self)\S+$", " MOUNT", words)
        code = errno.errorcode[number]
        if number == errno.EIO:
            plain[index] = words
            found.append(f"{name}: {call}: {words}")
            fails = answer.startswith("fail") and not name.startswith("pivot_by_moving")
            back = way_back(script, after) if fails else ""
            found += [f"{name}: {call}: then {back}"] if back else []
        elif index in plain and words != plain[index].replace("EIO", code):  # mounts of the machine may change
            found.append(f"{name}: {call}={code}: {words}")
    return list(dict.fromkeys(found))


def golden(name: str) -> list[str]:
    return [line for line in GOLDEN.read_text().splitlines() if line.startswith(name + ": ")]


@pytest.fixture
def script(plain_driver: pathlib.Path, root: pathlib.Path) -> Script:
    return Script(plain_driver, root)


@pytest.mark.parametrize("name", SCENES)
def test_failures(script: Script, name: str) -> None:
    if name in LABELS and (machine.apparmor_is_on() or os.path.isdir("/sys/fs/selinux")):
        pytest.skip("what a label says depends on the security module that is on")
    found = outcomes(script, name)
    assert found
    if os.environ.get("PYRUNC_UPDATE_GOLDEN"):
        text = GOLDEN.read_text().splitlines() if GOLDEN.exists() else []
        rest = [line for line in text if not line.startswith(name + ": ")]
        order = {scene: number for number, scene in enumerate(SCENES)}
        lines = sorted([*rest, *found], key=lambda line: order.get(line.split(":")[0], -1))
        GOLDEN.write_text("\n".join(line for line in lines if line.split(":")[0] in order) + "\n")
    assert found == golden(name)


def test_few_failures_are_tolerated() -> None:
    """The failing calls are optional; each one was reviewed."""
    tolerated = [line for line in GOLDEN.read_text().splitlines() if line.endswith(": ok") and "=" not in line]
    assert {line.removesuffix(": ok") for line in tolerated} == TOLERATED


CGROUPS = [name for name in SCENES if name.startswith("mount_of_a_cgroup")]
TOLERATED = {
    # without the host's /dev/null only the masking of files fails, later
    "root: open", "root: fstat", "root: open_tree", "root: mount_setattr",
    "root_in_a_mount: open", "root_in_a_mount: fstat", "root_in_a_mount: open_tree", "root_in_a_mount: mount_setattr",
    # then the mount is known only by the id that the kernel may reuse
    "mount_that_is_reported: statx",
    # then a directory above the root filesystem is not recognized as the topmost one
    "root_in_a_mount: statx",
    # the bind mount replaces a filesystem that cannot be mounted for any reason; its message is not
    # needed
    *(f"{name}: {call}" for name in CGROUPS for call in ("fsopen", "fsconfig", "read")),
    # the MOUNT that needs the tree fails, unless the tree is optional
    "open_tree: open_tree", "open_tree: mount_setattr",
    # then it does not count as the requested node, which is mounted over it
    "device_of_the_host: fstat", "device_in_a_user_namespace: fstat", "device_that_was_made_ahead: fstat",
    # then the whole file is read
    "mount_that_copies_up: lseek",
    # the attribute was removed meanwhile
    "mount_that_copies_up: fgetxattr",
    # then the target does not exist on the host
    "device_link: faccessat",
    # stdio keeps the host's /dev/null if the look-up of the container's fails
    "null_of_the_container: openat2", "null_of_the_container: fstat",
}  # fmt: skip


def test_every_op_of_these_files_has_a_scene(script: Script) -> None:
    sources = "".join((NATIVE / "init" / f"{name}.c").read_text() for name in OBJECTS)
    for prepare, _ in SCENES.values():
        prepare(script)
    done = {line.split("\t")[1] for line in script.lines if line.startswith(("op\t", "try\t"))}
    mine = {entry[0] for entry in ops.OPS.values() if f"int op_{entry[0].lower()}(" in sources}
    assert mine - done == {"LEAVE"}  # it makes no other call
