"""Propagation of mounts between the host and a container, with and without a user namespace.

runc and crun behave the same unless a test says otherwise.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.harness import Box, Container
from integration.test_mounts import mount, mounted, mounts_of
from integration.test_userns import edits, own

Make = Callable[..., Container]


@pytest.mark.parametrize("more", [{}, edits()], ids=["plain", "userns"])
@pytest.mark.parametrize("value", ["", "private", "rprivate"])
def test_every_mount_of_a_plain_container_is_private(
    container: Make, box: Box, value: str, more: dict[str, Any]
) -> None:
    """The host's mounts are shared here, as under systemd; masks and device nodes are binds of
    them."""
    changes = {**more, **({"/linux/rootfsPropagation": value} if value else {})}
    one = container("report", edits=changes)
    if more:
        own(one)
    seen = mounts_of(one.run().report)
    if more and box.runtime.name == "runc":
        # The device nodes that the runtime binds are slaves.
        seen = {dest: found for dest, found in seen.items() if not dest.startswith("/dev/") or found.root == "/"}
    assert {dest: found.shared for dest, found in seen.items() if found.shared} == {}


@pytest.mark.parametrize("more", [{}, edits()], ids=["plain", "userns"])
def test_later_mounts_of_the_host_stay_outside(container: Make, box: Box, more: dict[str, Any]) -> None:
    read, write = os.pipe()
    one = container("line", "--", "report", edits=more)
    if more:
        own(one)
    target = one.bundle.rootfs / "mnt"
    try:
        one.create(stdin=read)
        one.start()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(target)], check=True)
        os.write(write, b"go\n")
        one.wait()
    finally:
        os.close(read)
        os.close(write)
        subprocess.run(["umount", str(target)], check=True)
    assert "/mnt" not in mounts_of(one.report)


def test_a_slave_root_receives_what_the_host_mounts(container: Make, box: Box) -> None:
    if box.runtime.name == "crun":
        pytest.skip("the root of crun's containers is always private")
    read, write = os.pipe()
    one = container("line", "--", "report", edits={"/linux/rootfsPropagation": "rslave"})
    target = one.bundle.rootfs / "mnt"
    try:
        one.create(stdin=read)
        one.start()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(target)], check=True)
        os.write(write, b"go\n")
        one.wait()
    finally:
        os.close(read)
        os.close(write)
        subprocess.run(["umount", str(target)], check=True)
    assert "/mnt" in mounts_of(one.report)


@pytest.mark.pyrunc_only("runc and crun leave the mask on the host")
@pytest.mark.parametrize("value", ["private", "slave", "shared", "rshared"])
def test_a_mask_in_a_bind_stays_inside(container: Make, box: Box, value: str) -> None:
    """The bind has no propagation option: rootfsPropagation alone does not make it a peer of the
    host's mount."""
    source = box.path / "source"
    with mounted(source):
        (source / "secret").mkdir()
        before = Path("/proc/self/mountinfo").read_text()
        changes = {
            "/mounts/-": mount("/mnt", str(source), "rbind"),
            "/linux/rootfsPropagation": value,
            "/linux/maskedPaths": ["/mnt/secret"],
        }
        one = container("report", edits=changes)
        seen = mounts_of(one.run().report)
        assert "/mnt/secret" in seen
        assert Path("/proc/self/mountinfo").read_text() == before
    assert "master:" in seen["/mnt"].shared, seen["/mnt"]
