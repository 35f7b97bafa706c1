"""The error of a container that does not start is one line with the field, the cause and, if
possible, the remedy."""

from __future__ import annotations

import re
import subprocess

import pytest

from integration import failures, failures_running
from integration.checkpoint import support
from integration.harness import Box
from integration.machine import cgroup2_mount

pytestmark = pytest.mark.pyrunc_only("the lines are ours")


@pytest.mark.parametrize("name", failures.CASES)
def test_line(name: str, box: Box) -> None:
    change, line = failures.CASES[name]
    bundle = box.bundle()
    root = bundle.path / "rootfs"
    change(bundle.config, root)
    failed = box.container(bundle=bundle).run(check=False)
    assert failed.rc == 1
    assert re.fullmatch(f"pyrunc: error: {failures.expected(line, root)}\n", failed.err), failed.err


@pytest.mark.parametrize("name", failures_running.CASES)
def test_line_of_a_running_container(name: str, box: Box) -> None:
    attempt, line, _ = failures_running.CASES[name]
    if name in failures_running.NEED_CRIU and (reason := support.why_not()):
        pytest.skip(reason)
    made = box.container()
    failed = attempt(made)
    assert failed.rc in (1, 255)
    assert re.fullmatch(f"pyrunc: error: {failures_running.expected(line, made)}\n", failed.err), failed.err


def test_start(box: Box) -> None:
    """A failing `start` also examines the file, although its creator has ended."""
    bundle = box.bundle()
    failures.missing_interpreter(bundle.config, bundle.path / "rootfs")
    made = box.container(bundle=bundle)
    made.create()
    failed = made.start(check=False)
    assert failed.rc == 1 and 'the interpreter "/bin/bash" of its #! line does not exist' in failed.err


def test_exec(box: Box) -> None:
    """The path below the running container's root is examined, including the mounts on it."""
    bundle = box.bundle("sleep", "60")
    mounts = bundle.config["mounts"]
    source = box.path / "tools"
    source.mkdir()
    (source / "tool").write_text("#!/usr/bin/perl\n")
    (source / "tool").chmod(0o755)
    (source / "closed").mkdir(0o700)
    (source / "closed/tool").symlink_to("/probe")
    mounts.append({"destination": "/tools", "type": "bind", "source": str(source), "options": ["bind"]})
    made = box.container(bundle=bundle)
    made.create()
    made.start()
    failed = made.call("exec", made.id, "/tools/tool", check=False)
    assert failed.rc == 255 and 'the interpreter "/usr/bin/perl" of its #! line does not exist' in failed.err
    failed = made.call("exec", "--user", "1000:1000", made.id, "/tools/closed/tool", check=False)
    assert (
        failed.rc == 255
        and '"/tools/closed" has mode 0700 and belongs to 0:0: 1000:1000 may not search it' in failed.err
    )


def test_links_end_at_the_root(box: Box) -> None:
    """The host's own files are never examined: an image may contain links to anywhere."""
    bundle = box.bundle()
    root = bundle.path / "rootfs"
    (box.path / "secret").write_text("#!/host\n")
    (root / "escape").symlink_to(f"/../../../../../..{box.path}")
    (root / "loop").symlink_to("loop")
    for name, text in (("/escape/secret", '"/escape" does not exist'), ("/loop", "")):
        bundle.config["process"]["args"] = [name]
        failed = box.container(bundle=bundle).run(check=False)
        assert failed.rc == 1 and text in failed.err and failed.err.count("\n") == 1, failed.err
        assert "/host" not in failed.err


def test_missing_controller(box: Box) -> None:
    mount = cgroup2_mount()
    assert mount
    if "memory" in (mount / "cgroup.controllers").read_text().split():
        pytest.skip("this host has the memory controller")
    made = box.container(edits={"/linux/resources": {"memory": {"limit": 1 << 24}}})
    failed = made.run(check=False)
    assert "/linux/resources/memory/limit" in failed.err and "the memory controller is not available in" in failed.err


def test_no_more_cgroups(box: Box) -> None:
    """The limit is cgroup.max.descendants of a parent."""
    mount = cgroup2_mount()
    assert mount
    parent = mount / f"{box.prefix}full"
    parent.mkdir()
    box.own_cgroups.add(parent)
    try:
        (parent / "cgroup.max.descendants").write_text("0")
        failed = box.container(edits={"/linux/cgroupsPath": f"/{parent.name}/c"}).run(check=False)
        assert failed.rc == 1 and "/linux/cgroupsPath" in failed.err and "cgroup.max.descendants" in failed.err
    finally:
        parent.rmdir()


def test_no_more_user_namespaces(box: Box) -> None:
    """Test inside a namespace whose limit is 0, so that the host's limit does not change."""
    ids = [{"containerID": 0, "hostID": 0, "size": 1}]
    bundle = box.bundle(edits={"/linux/uidMappings": ids, "/linux/gidMappings": ids})
    bundle.config["linux"]["namespaces"].append({"type": "user"})
    bundle.config["mounts"] = [entry for entry in bundle.config["mounts"] if entry["type"] != "devpts"]
    bundle.save()
    script = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
    argv = [box.runtime.path, "--root", str(box.root), "run", "--bundle", str(bundle.path), f"{box.prefix}u"]
    failed = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", script, "sh", *argv], capture_output=True, text=True, timeout=30, check=False
    )
    assert failed.returncode == 1
    assert "ENOSPC" in failed.stderr and "/proc/sys/user/max_user_namespaces is reached" in failed.stderr


def test_few_descriptors(box: Box) -> None:
    bundle = box.bundle()
    bundle.save()
    argv = [box.runtime.path, "--root", str(box.root), "run", "--bundle", str(bundle.path), f"{box.prefix}f"]
    for limit in range(4, 12):
        failed = subprocess.run(
            ["prlimit", f"--nofile={limit}:{limit}", *argv], capture_output=True, text=True, timeout=30, check=False
        )
        assert failed.returncode == 1 and failed.stderr.count("\n") == 1
        assert "EMFILE: too many open files in this process (see ulimit -n)" in failed.stderr


def test_the_table_has_every_case() -> None:
    text = failures.ERRORS.read_text()
    for name in failures.CASES:
        assert f"### {failures.title(name)}\n" in text
