"""`exec --tools` (T43): a directory of the host for one process, which a hostile container neither
sees nor changes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from integration.harness import Box, Container, Result
from integration.security.support import Make, mountinfo, tree

PLACE = "/proc/fs/nfsd"
pytestmark = pytest.mark.pyrunc_only("other runtimes have no such option")


@pytest.fixture
def tools(box: Box) -> Path:
    """A directory with a shell."""
    busybox = shutil.which("busybox")
    assert busybox
    path = box.path / "tools"
    path.mkdir()
    for name in ("sh", "cat", "ls", "touch", "sleep", "mount"):
        shutil.copy(busybox, path / name)
    return path


def started(container: Make, propagation: str = "") -> Container:
    one = container("sleep", "600", edits={"/linux/rootfsPropagation": propagation} if propagation else None)
    one.create()
    one.start()
    return one


def lent(one: Container, tools: Path, *args: str) -> Result:
    return one.call("exec", "--tools", str(tools), one.id, *args, check=False)


@pytest.mark.row("T43")
@pytest.mark.parametrize("propagation", ["", "rshared", "rslave"])
def test_the_container_does_not_see_it(container: Make, box: Box, tools: Path, propagation: str) -> None:
    """Neither while the process runs nor after it; the image is not touched."""
    one = started(container, propagation)
    inside = Path(f"/proc/{one.pid}/mountinfo")
    before, host, image = inside.read_text(), mountinfo(), tree(one.bundle.rootfs)
    file = box.path / "pid"
    one.call("exec", "-d", "--pid-file", str(file), "--tools", str(tools), one.id, "sleep", "600")
    own = Path(f"/proc/{file.read_text()}/mountinfo").read_text()
    assert f" {PLACE} " in own
    assert inside.read_text() == before and mountinfo() == host, "the mount is not the process's alone"
    assert os.listdir(f"/proc/{one.pid}/root{PLACE}") == []
    os.kill(int(file.read_text()), 9)
    assert inside.read_text() == before and tree(one.bundle.rootfs) == image


@pytest.mark.row("T43")
def test_the_directory_of_the_host_cannot_be_changed(container: Make, tools: Path) -> None:
    (tools / "set-user-id").touch()
    (tools / "set-user-id").chmod(0o4755)
    before = tree(tools)
    one = started(container)
    result = lent(one, tools, "sh", "-c", f"touch {PLACE}/new; cat /proc/self/mountinfo")
    assert tree(tools) == before, "the host's directory was changed"
    (line,) = [line for line in result.out.splitlines() if f" {PLACE} " in line]
    assert {"ro", "nosuid", "nodev"} <= set(line.split()[5].split(",")), "programs with more rights, or devices"


@pytest.mark.row("T43")
def test_nothing_else_of_the_host_is_there(container: Make, tools: Path) -> None:
    """Neither what is above the directory, nor mounts below it, nor the rest of its filesystem."""
    (tools / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "secret", str(tools / "below")], check=True)
    try:
        (tools / "below/secret").write_text("secret")
        one = started(container)
        result = lent(one, tools, "sh", "-c", f"ls {PLACE}/below; ls {PLACE}/..; cat /proc/self/mountinfo")
    finally:
        subprocess.run(["umount", "-l", str(tools / "below")], check=True)
    listed = [line for line in result.out.splitlines() if " - " not in line]
    assert "secret" not in result.out, "a mount of the host"
    assert "nfsd" in listed and "mounts.json" not in listed and "tools" not in listed
    mine = Path(f"/proc/{one.pid}/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in result.out.splitlines() if " - " in line]
    assert sorted(points) == sorted([*(line.split()[4] for line in mine), PLACE]), "mounts of the host"


@pytest.mark.row("T43")
@pytest.mark.row("T05")
@pytest.mark.parametrize("trap", ["/bin", "/etc/passwd"])
def test_proc_of_the_container_is_a_trap(container: Make, tools: Path, trap: str) -> None:
    """The container has put something over /proc/fs; the tools are not mounted behind it."""
    one = started(container)
    script = f"mount --bind {trap} {PLACE}" if trap == "/etc/passwd" else f"mount --bind {trap} /proc/fs"
    subprocess.run(["nsenter", "-t", str(one.pid), "-m", "sh", "-c", script], check=False, capture_output=True)
    before = tree(one.bundle.rootfs)
    lent(one, tools, "sh", "-c", "true")
    assert tree(one.bundle.rootfs) == before, "a mount point was made in the image"
