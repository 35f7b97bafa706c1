"""User namespaces: groups, the cgroup hierarchy, and the helpers that map ids (T18, T19, T36)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from integration.config import DELETE
from integration.harness import Box, Container, errno_of
from integration.machine import parse_mountinfo
from integration.security.support import Make
from integration.test_userns import CGROUP, KINDS, edits, own

USER = 1000


def _become() -> None:
    os.setgroups([USER, 27])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)


def _unprivileged(container: Make, box: Box, size: int, *actions: str) -> Container:
    """A container of an unprivileged user, who maps `size` ids starting at the user's own."""
    maps = [{"containerID": 0, "hostID": USER, "size": size}]
    changes: dict[str, Any] = edits({"/linux/resources": DELETE, "/linux/cgroupsPath": DELETE, "/mounts": []})
    one = container(*actions, edits={**changes, "/linux/uidMappings": maps, "/linux/gidMappings": maps})
    one.bundle.config["mounts"] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    ]
    own(one, USER)
    box.root.mkdir(mode=0o700)
    os.chown(box.root, USER, USER)
    return one


@pytest.mark.row("T18")
@pytest.mark.pyrunc_only("runc 1.1.5 needs a cgroup that the user may write")
def test_groups_cannot_be_dropped_without_privilege(container: Make, box: Box) -> None:
    """CVE-2014-8989: a process that drops a group to which a file denies access gains access."""
    one = _unprivileged(container, box, 1, "read", "/proc/self/setgroups", "--", "report")
    result = one.run(globals_=["--cgroup-manager", "disabled"], preexec=_become)
    os.chown(box.root, 0, 0)  # the fixture inspects it as root
    assert result.objects[0]["text"] == "deny\n"
    assert len(result.report["groups"]) == 2, "the caller's groups must stay: both, as the overflow id"


@pytest.mark.row("T19")
@pytest.mark.parametrize("kind", ["cgroup", "bind"])
def test_the_hosts_cgroups_are_read_only(container: Make, kind: str) -> None:
    """CVE-2023-25809: a user namespace without a cgroup namespace exposed the host's hierarchy
    writable."""
    more = {"/mounts/-": CGROUP}
    kinds = [name for name in KINDS if name != "cgroup"] if kind == "bind" else KINDS
    actions = ("mkdir", "/sys/fs/cgroup/evil", "--", "write", "/sys/fs/cgroup/cgroup.procs", "1", "--", "report")
    one = own(container(*actions, edits=edits(more, kinds=kinds)))
    result = one.run(check=False)
    if result.rc != 0:
        assert "cgroup" in result.err
        return
    if kind == "bind":
        made, written = result.objects[:2]
        assert errno_of(made) in ("EROFS", "EACCES", "EPERM"), made
        assert errno_of(written) in ("EROFS", "EACCES", "EPERM"), written
        (mount,) = [m for m in parse_mountinfo(result.report["mountinfo"]) if m.dest == "/sys/fs/cgroup"]
        assert "ro" in mount.options, "writable where a part is delegated to the user"
    else:
        assert "/.." not in result.report["cgroup"].split("0::")[1].splitlines()[0]


@pytest.mark.row("T36")
@pytest.mark.pyrunc_only("runc 1.1.5 needs a cgroup that the user may write")
def test_helpers_are_not_looked_up_in_path(container: Make, box: Box) -> None:
    """CVE-2018-6556, CVE-2022-47952: an attacker's newuidmap came first in PATH."""
    evil, marker = box.path / "evil", box.path / "marker"
    evil.mkdir()
    for name in ("newuidmap", "newgidmap"):
        (evil / name).write_text(f"#!/bin/sh\necho {name} >>{marker}\n")
        (evil / name).chmod(0o755)
    box.path.chmod(0o777)
    one = _unprivileged(container, box, 2, "exit", "0")
    one.run(globals_=["--cgroup-manager", "disabled"], preexec=_become, check=False, env={"PATH": f"{evil}:/bin"})
    os.chown(box.root, 0, 0)
    assert not marker.exists(), Path(marker).read_text()
