"""A runtime that runs in a chroot creates the same containers as outside."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.harness import TIMEOUT, Container

Make = Callable[..., Container]
# Bind all of the host's files at $1 in a private mount namespace, then run the rest there.
IN_CHROOT = 'at=$1; shift; mount --rbind / "$at" && exec chroot "$at" "$@"'


@pytest.fixture
def chroot(tmp_path: Path) -> list[str]:
    """The arguments that run a command line in a chroot."""
    return ["unshare", "--mount", "--propagation", "slave", "/bin/sh", "-c", IN_CHROOT, "sh", str(tmp_path)]


def assert_inside(one: Container, said: str) -> None:
    """The output of LOOK in the container's root: nothing is above it."""
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


def test_no_setting_is_blamed_for_what_a_chroot_forbids(container: Make, chroot: list[str]) -> None:
    """The kernel's create_user_ns() refuses a user namespace in a chroot, whatever the caller and
    the settings."""
    one = container("exit", "0")
    linux = one.bundle.config["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 100_000, "size": 65536}]
    result = one.create(check=False, wrap=chroot)
    assert result.rc == 1
    if one.box.runtime.is_pyrunc:
        assert "unshare: EPERM" in result.err and "in a chroot" in result.err
    assert "/proc/sys" not in result.err
