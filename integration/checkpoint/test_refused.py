"""Refusals before any change, leftovers of a failing CRIU, and hostile directories."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.checkpoint import support
from integration.checkpoint.support import Counter
from integration.harness import Container, wait_until

Make = Callable[..., Counter]


def refused(one: Counter, result: Any, *texts: str) -> None:
    """The command failed with one line, and the container still counts."""
    assert result.rc == 1
    if not one.peer:
        assert len(result.err.splitlines()) == 1, result
        for text in texts:
            assert text in result.err, result
    one.go_on()
    assert one.made.status == "running"


@pytest.mark.parametrize("status", ["created", "stopped"])
def test_only_running_containers(container: Callable[..., Container], status: str) -> None:
    one = container("signals", "60") if status == "created" else container("exit", "0")
    one.create()
    if status == "stopped":
        one.start()
        one.wait()
    result = one.call("checkpoint", "--image-path", str(one.box.path / "i"), one.id, check=False)
    assert result.rc == 1 and f"cannot be checkpointed in {status} state" in result.err
    assert not (one.box.path / "i").exists() or not one.box.runtime.is_pyrunc


@pytest.mark.pyrunc_only("its mount namespace for the tests is made with programs of PATH")
def test_without_criu(container: Callable[..., Container]) -> None:
    one = container("signals", "60")
    one.create()
    one.start()
    flags = ("--image-path", str(one.box.path / "i"))
    result = one.call("checkpoint", *flags, one.id, check=False, env={"PATH": "/nowhere"})
    assert result.rc == 1 and one.status == "running"
    assert "criu: not found in $PATH" in result.err


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--parent-path", "/abs"), "--parent-path"),
        (("--parent-path", "missing"), "invalid --parent-path"),
        (("--manage-cgroups-mode", "x"), "--manage-cgroups-mode"),
        (("--empty-ns", "pid"), "--empty-ns"),
        (("--page-server", "nowhere"), "--page-server"),
        (("--lazy-pages", "--status-fd", "77"), "--status-fd"),
    ],
)
def test_options(counter: Make, flags: tuple[str, ...], text: str) -> None:
    one = counter()
    one.run()
    refused(one, one.checkpoint(*flags, check=False), text)


@pytest.mark.pyrunc_only("quotes the whole log")
def test_the_last_error_of_criu(counter: Make) -> None:
    """The container's stdout is a file outside the container."""
    one = counter()
    one.made.bundle.save()
    with (one.made.box.path / "out").open("wb") as out:
        child = one.spawn("run", "--detach", "--bundle", str(one.made.bundle.path), one.made.id, stdout=out)
        assert child.wait(support.TIMEOUT) == 0
    result = one.checkpoint(check=False)
    assert result.rc == 1 and len(result.err.splitlines()) == 1
    assert "criu dump: Can't lookup mount" in result.err and f"see {one.images}/dump.log" in result.err
    assert one.made.status == "running"


@pytest.mark.pyrunc_only("runc restores it without the mapping")
def test_an_idmapped_mount(counter: Make, tmp_path: Path) -> None:
    ids = [{"containerID": 0, "hostID": 1000, "size": 10}]
    mount = {"destination": "/d", "source": str(tmp_path), "options": ["bind"], "uidMappings": ids, "gidMappings": ids}
    one = counter(edits={"/mounts/-": mount | {"type": "bind"}})
    one.run()
    refused(one, one.checkpoint(check=False), "/mounts/6: CRIU cannot restore an id-mapped mount")
    assert not one.images.exists()


def not_restored(one: Counter, *texts: str) -> None:
    """The command failed with one line, and the container does not exist."""
    assert one.restore(check=False) == 1
    assert one.gone()
    if not one.peer:
        assert len(one.err.splitlines()) == 1, one.err
        for text in texts:
            assert text in one.err


def test_restore_without_a_checkpoint(counter: Make) -> None:
    one = counter()
    one.images.mkdir()
    not_restored(one, "not a checkpoint: inventory.img is missing")


def test_restore_of_a_taken_id(counter: Make) -> None:
    one = counter()
    one.run()
    one.checkpoint("--leave-running")
    assert one.restore(check=False) == 1
    assert "already exists" in one.err
    assert one.made.status == "running"


@pytest.mark.parametrize("name", ["inventory.img", "pstree.img", "core-1.img", "mountpoints-"])
@pytest.mark.parametrize("damage", ["missing", "cut", "zeros"])
def test_damaged_images(counter: Make, name: str, damage: str) -> None:
    one = counter()
    one.run()
    one.checkpoint()
    path = next(path for path in one.images.iterdir() if path.name.startswith(name))
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else bytes(len(data)))
    not_restored(one)


@pytest.mark.pyrunc_only("runc lets CRIU follow the link")
@pytest.mark.parametrize("name", ["restore.log", "stats-restore", "descriptors.json"])
def test_a_link_among_the_images(counter: Make, name: str, tmp_path: Path) -> None:
    """Nothing is written to the link's target."""
    target = tmp_path / "target"
    target.write_text('["/dev/null","/dev/null","/dev/null"]')
    one = counter()
    one.run()
    one.checkpoint()
    (one.images / name).unlink(missing_ok=True)
    (one.images / name).symlink_to(target)
    not_restored(one, name)
    assert target.read_text() == '["/dev/null","/dev/null","/dev/null"]'


def test_a_hostile_root_filesystem(counter: Make, tmp_path: Path) -> None:
    """Mount points are created inside the root, wherever links in it lead."""
    outside = tmp_path / "outside"
    outside.mkdir()
    one = counter()
    one.run()
    one.checkpoint()
    rootfs = one.made.bundle.rootfs
    os.symlink(f"../../../../../../../../..{outside}", rootfs / "evil")
    os.symlink(str(outside), rootfs / "worse")
    one.made.bundle.config["mounts"] += [
        {"destination": "/evil/a/b", "source": "/tmp", "type": "bind", "options": ["bind"]},
        {"destination": "/worse/c", "source": "/etc/passwd", "type": "bind", "options": ["bind"]},
        {"destination": "/evil/d", "source": "proc", "type": "proc"},
    ]
    one.restore(check=False)
    assert os.listdir(outside) == []
    if not one.peer:
        assert (rootfs / str(outside).lstrip("/") / "a/b").is_dir()


@pytest.mark.pyrunc_only("leaves the cgroup frozen")
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.2, 0.3, 0.4])
def test_a_killed_criu_does_not_stop_the_container(counter: Make, delay: float) -> None:
    one = counter()
    one.run()
    argv = one.made.box.runtime.argv("--root", str(one.made.box.root), "checkpoint", *one.flags(), one.made.id)
    child = subprocess.Popen(argv, env=support.environment(), stderr=subprocess.PIPE, text=True)
    criu = wait_until(lambda: children(child.pid), "criu")[0]
    support.settle(delay)
    with contextlib.suppress(ProcessLookupError):
        os.kill(criu, signal.SIGKILL)
    _, err = child.communicate(timeout=support.TIMEOUT)
    if child.returncode == 0:  # the checkpoint was already complete
        assert one.gone()
        return
    assert "criu" in err and len(err.splitlines()) == 1
    if one.made.status == "running":  # CRIU had not killed the processes that it dumped
        one.go_on()
        one.checkpoint()


def children(pid: int) -> list[int]:
    """The children of a process."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@pytest.mark.pyrunc_only("leaves processes")
@pytest.mark.parametrize("who", ["criu", "runtime"])
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.15, 0.2, 0.3])
def test_a_killed_restore_leaves_nothing(counter: Make, who: str, delay: float) -> None:
    one = counter()
    one.run()
    one.checkpoint()
    flags = (*one.flags(), "--detach", "--bundle", str(one.made.bundle.path), one.made.id)
    child = one.spawn("restore", *flags)
    criu = wait_until(lambda: children(child.pid) or [-1] * (child.poll() is not None), "criu")[0]
    support.settle(delay)
    if who == "criu" and criu > 0:
        with contextlib.suppress(ProcessLookupError):
            os.kill(criu, signal.SIGKILL)
    elif who == "runtime":
        child.kill()
    code = child.wait(support.TIMEOUT)
    if who == "criu":
        assert (code == 1 and one.gone() and "criu" in one.err) or (code == 0 and one.made.status == "running")
    one.made.delete("--force")
    assert one.gone()


@pytest.mark.pyrunc_only("its criu uses the host's /tmp")
@pytest.mark.parametrize("where", ["/run", "/tmp"])
def test_a_criu_without_the_hosts_tmp(container: Callable[..., Container], where: str) -> None:
    """CRIU leaves directories there when it is killed. The state directory has to stay visible."""
    place = Path(tempfile.mkdtemp(prefix="pyt", dir=where))
    try:
        program, seen, images = place / "criu", place / "seen", place / "images"
        program.write_text(f'#!/bin/sh\ngrep " /tmp " /proc/self/mountinfo >{seen}\n')
        program.chmod(0o755)
        images.mkdir()
        (images / "inventory.img").touch()
        (images / "descriptors.json").write_text('["","",""]')
        one = container()
        one.bundle.save()
        one.box.root = place / "root"
        flags = ("--image-path", str(images), "--bundle", str(one.bundle.path))
        environment = {"PATH": f"{place}:{os.environ['PATH']}"}
        result = one.call("restore", "--detach", *flags, one.id, check=False, env=environment)
        assert result.rc == 1 and "criu ended without a reply" in result.err
        assert (" - tmpfs none " in seen.read_text()) == (where == "/run")
        assert not list(one.box.root.iterdir())
    finally:
        shutil.rmtree(place)


def test_no_room_for_the_images(counter: Make) -> None:
    one = counter()
    one.run()
    one.images.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(one.images)], check=True)
    try:
        refused(one, one.checkpoint(check=False), "criu dump")
    finally:
        subprocess.run(["umount", str(one.images)], check=True)


def test_features_report_it(counter: Make) -> None:
    one = counter()
    document = json.loads(one.made.box.runtime.call("features").out)
    assert document["annotations"]["org.opencontainers.runc.checkpoint.enabled"] == "true"
