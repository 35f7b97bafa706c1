"""A runtime that is itself in a chroot: what it makes is the same as outside."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.harness import TIMEOUT, Container

Make = Callable[..., Container]
# All of the host's files once more at $1, in a mount namespace of its own; then what follows, in there.
IN_CHROOT = 'at=$1; shift; mount --rbind / "$at" && exec chroot "$at" "$@"'


@pytest.fixture
def chroot(tmp_path: Path) -> list[str]:
    """What to put before a command line to have it run in a chroot."""
    return ["unshare", "--mount", "--propagation", "slave", "/bin/sh", "-c", IN_CHROOT, "sh", str(tmp_path)]


def assert_inside(one: Container, said: str) -> None:
    """What LOOK says in the container's root: nothing is above it."""
    inside, above, inode = said.splitlines()
    assert inside == above and "probe" in inside.split(), said
    assert inode.split() == [str(one.bundle.rootfs.stat().st_ino), "/"]


LOOK = ("/bin/sh", "-c", "echo *; cd ../..; echo *; ls -id /")


@pytest.mark.pyrunc_only("the root of the mount namespace that runc makes in a chroot is the host's")
@pytest.mark.parametrize("flags", [(), ("--no-pivot",)])
def test_the_root_is_the_containers(container: Make, chroot: list[str], flags: tuple[str, ...]) -> None:
    one = container("sleep", "600")
    one.create(*flags, wrap=chroot)
    one.start(wrap=chroot)
    assert_inside(one, one.call("exec", one.id, *LOOK, wrap=chroot).out)
    assert_inside(one, one.call("exec", one.id, *LOOK).out)
    joined = subprocess.run(
        ["nsenter", "-t", str(one.pid), "-m", *LOOK], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert_inside(one, joined.stdout)
