"""Containers without a mount namespace: they mount in the caller's namespace, and the mounts are
removed with the container."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.harness import Box, Container, errno_of, wait_until
from integration.machine import parse_mountinfo
from integration.test_mounts import mount, mounted, tmpfs
from integration.test_terminal import Console, read_all

Make = Callable[..., Container]
Refused = Callable[..., None]
pytestmark = pytest.mark.pyrunc_only("runc and crun leave all mounts behind, and runc makes the host's / a slave")

KINDS = ("pid", "network", "ipc", "uts", "cgroup")
WITHOUT = {"/linux/namespaces": [{"type": kind} for kind in KINDS]}


def table() -> list[tuple[str, str, str]]:
    """(mount point, type, propagation) of every mount here; peer groups only by kind, because their
    numbers change."""
    found = parse_mountinfo(Path("/proc/self/mountinfo").read_text())
    return sorted((m.dest, m.fstype, " ".join(word.split(":")[0] for word in m.shared.split())) for m in found)


def below(one: Container) -> list[str]:
    """The container's view of the places in the root filesystem that a test mounts on."""
    root = str(one.bundle.rootfs)
    return [m[0].removeprefix(root) or "/" for m in table() if m[0] == root or m[0].startswith(root + "/")]


def test_everything_is_mounted_and_taken_away(container: Make, box: Box) -> None:
    before = table()
    one = container("report", "--", "read", "/proc/keys", "--", "write", "/proc/sys/kernel/pid_max", "1", edits=WITHOUT)
    one.create()
    assert {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/sys", "/proc/keys", "/proc/sys"} <= set(below(one))
    assert os.stat(f"/proc/{one.pid}/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino
    # The bind itself is as shared as its parent was; mounts below it belong to the container alone.
    new = [found for found in table() if found not in before]
    assert [found[2] for found in new] == [""] * len(new), new
    one.start()
    assert one.wait() == 0, one.err
    assert one.report["devices"]["/dev/null"]["minor"] == 3
    assert (one.objects[1]["text"], errno_of(one.objects[2])) == ("", "EROFS")
    one.delete()
    assert table() == before
    assert os.listdir(one.bundle.rootfs / "dev") == []


@pytest.mark.parametrize("force", [True, False])
def test_of_a_container_that_runs_or_was_never_started(container: Make, box: Box, force: bool) -> None:
    before = table()
    one = container("signals", "60", edits=WITHOUT)
    one.create()
    if force:
        one.start()
        one.wait_output("ready")
    one.delete(*(["--force"] if force else []))
    assert table() == before


def test_run_and_exec(container: Make) -> None:
    before = table()
    one = container("signals", "60", edits={**WITHOUT, "/mounts/-": tmpfs("/mnt", "size=64k")})
    one.create()
    one.start()
    one.wait_output("ready")
    inside = one.call("exec", one.id, "/probe", "write", "/mnt/x", "y", "--", "ls", "/mnt", "--", "stat", "/dev/null")
    assert [item.get("names") or item["errno"] for item in inside.objects] == [0, ["x"], 0]
    one.delete("--force")
    container("report", edits=WITHOUT).run()
    assert table() == before


def test_mounts_of_the_host_are_not_reached(container: Make, box: Box) -> None:
    """A bind of a shared mount would be its peer: mounts and unmounts below it would reach the
    host."""
    source = box.path / "source"
    with mounted(source), mounted(source / "inner"):
        before = table()
        one = container("signals", "60", edits={**WITHOUT, "/mounts/-": mount("/mnt", str(source), "rbind")})
        one.bundle.config["mounts"] += [
            tmpfs("/mnt/inner", "size=64k"),
            mount("/again", str(source), "rbind", "rshared"),
            tmpfs("/again/inner", "size=64k"),
        ]
        one.create()
        assert [m for m in table() if not m[0].startswith(str(one.bundle.rootfs))] == before
        one.delete("--force")
        assert table() == before


def test_a_mount_of_the_host_comes_and_goes(container: Make, box: Box) -> None:
    source = box.path / "source"
    with mounted(source):
        (source / "later").mkdir()
        one = container("signals", "60", edits={**WITHOUT, "/mounts/-": mount("/mnt", str(source), "rbind")})
        one.create()
        with mounted(source / "later"):
            assert "/mnt/later" in below(one)
        assert "/mnt/later" not in below(one)
        one.delete("--force")


@pytest.mark.parametrize(
    "more",
    [
        {"/process/args": ["/no/such/program"]},
        {"/mounts/-": mount("/mnt", "/no/such/source", "bind")},
        {"/hooks": {"createRuntime": [{"path": "/bin/false"}]}},
        {"/hooks": {"createContainer": [{"path": "/bin/false"}]}},
        {"/root/path": "absent"},
    ],
    ids=["program", "mount", "createRuntime", "createContainer", "root"],
)
def test_a_create_that_fails_leaves_nothing(container: Make, refused: Refused, more: dict[str, Any]) -> None:
    before = table()
    refused(container(edits={**WITHOUT, **more}).create(check=False))
    assert table() == before


def test_a_create_that_is_killed(container: Make, box: Box) -> None:
    """The state does not contain the mount's id yet; being a bind of the directory onto itself is
    enough."""
    before = table()
    hook = [{"path": "/bin/sleep", "args": ["sleep", "30"]}]
    one = container("exit", "0", edits={**WITHOUT, "/hooks": {"createRuntime": hook}})
    one.bundle.save()
    argv = box.runtime.argv("--root", str(box.root), "create", "--bundle", str(one.bundle.path), one.id)
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: "/sys" in below(one), "its mounts")
    child.kill()
    child.wait()
    one.delete("--force")
    for pid in box.children():
        os.kill(pid, signal.SIGKILL)  # our own hook
    assert table() == before


def test_a_root_filesystem_that_is_a_mount_already(container: Make, box: Box) -> None:
    """An engine's overlay, or a bind created by another program, stays mounted."""
    one = container("ls", "/", edits=WITHOUT)
    subprocess.run(["mount", "--bind", str(one.bundle.rootfs), str(one.bundle.rootfs)], check=True)
    try:
        before = table()
        assert "probe" in one.run().objects[0]["names"]
        assert table() == before
    finally:
        subprocess.run(["umount", str(one.bundle.rootfs)], check=True)


def test_a_mount_that_is_already_unmounted(container: Make) -> None:
    before = table()
    one = container("exit", "0", edits=WITHOUT)
    one.create()
    subprocess.run(["umount", "--recursive", "--lazy", str(one.bundle.rootfs)], check=True)
    assert table() == before
    one.delete()
    assert table() == before


def test_two_containers_of_one_root_filesystem(container: Make, box: Box) -> None:
    """The first container's mount is below the second one's and cannot be reached by a path."""
    before = table()
    first = container("exit", "0", edits=WITHOUT)
    second = container("exit", "0", bundle=box.bundle(edits=WITHOUT))
    second.bundle.config["root"]["path"] = str(first.bundle.rootfs)
    first.create()
    second.create()
    refused = first.delete(check=False)
    assert refused.rc == 1 and "another mount covers" in refused.err, refused
    second.delete()
    first.delete("--force")
    assert table() == before


def test_a_terminal(container: Make, box: Box) -> None:
    one = container("stat", "/dev/console", edits={**WITHOUT, "/process/terminal": True})
    console = Console(box.path / "console")
    try:
        one.create("--console-socket", str(console.path))
        console.receive()
        one.start()
        text = read_all(console.master)
    finally:
        console.close()
    assert '"type":"c"' in text.replace(" ", ""), text
    one.wait()
    one.delete()


def test_mounts_in_other_namespaces_also_go(container: Make, box: Box) -> None:
    """The bind itself is mounted on a shared mount of the host and propagates to its peers and
    slaves."""
    other = subprocess.Popen(["unshare", "-m", "--propagation", "slave", "sleep", "600"], stdin=subprocess.DEVNULL)
    box.helpers.add(other.pid)
    try:
        info = Path(f"/proc/{other.pid}/mountinfo")
        ours = os.stat("/proc/self/ns/mnt").st_ino
        wait_until(lambda: os.stat(f"/proc/{other.pid}/ns/mnt").st_ino != ours, "a new mount namespace")
        wait_until(lambda: "sleep" in Path(f"/proc/{other.pid}/comm").read_text(), "its program")
        before = [(m.dest, m.fstype) for m in parse_mountinfo(info.read_text())]
        one = container("signals", "60", edits=WITHOUT)
        one.create()
        seen = [m.dest for m in parse_mountinfo(info.read_text()) if m.dest.startswith(str(one.bundle.rootfs))]
        assert seen == [str(one.bundle.rootfs)]
        one.delete()
        assert [(m.dest, m.fstype) for m in parse_mountinfo(info.read_text())] == before
    finally:
        other.kill()
        other.wait()


def test_a_read_only_root(container: Make) -> None:
    one = container("write", "/x", "y", "--", "write", "/dev/shm/x", "y", edits={**WITHOUT, "/root/readonly": True})
    root, shm = one.run().objects
    assert (errno_of(root), errno_of(shm)) == ("EROFS", "")
    (one.bundle.rootfs / "x").write_text("the host's own view is not read-only")


def test_a_user_namespace_needs_a_mount_namespace(container: Make, refused: Refused) -> None:
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    edits = {"/linux/namespaces": [*WITHOUT["/linux/namespaces"], {"type": "user"}]}
    edits |= {"/linux/uidMappings": maps, "/linux/gidMappings": maps}  # type: ignore[dict-item]
    refused(container(edits=edits).create(check=False), "/linux/namespaces", "a mount namespace beside")
