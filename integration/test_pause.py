"""`pause`, `resume` and `ps`, and the effect of other verbs on a paused container."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.harness import Box, Container

Make = Callable[..., Container]


@pytest.fixture
def one(container: Make) -> Iterator[Container]:
    """A running container with three processes."""
    made = container("fork", "2", "--", "signals", "60")
    made.create()
    made.start()
    made.wait_output("ready")
    yield made
    freeze = made.cgroup / "cgroup.freeze"
    if freeze.exists():
        freeze.write_text("0")


def frozen(one: Container) -> bool:
    return "frozen 1" in (one.cgroup / "cgroup.events").read_text()


def test_pause_and_resume(one: Container) -> None:
    assert one.call("pause", one.id).err == ""
    assert frozen(one) and one.status == "paused"
    assert one.state()["pid"] == one.pid
    one.call("resume", one.id)
    assert not frozen(one) and one.status == "running"


def test_twice_is_an_error(one: Container) -> None:
    again = one.call("resume", one.id, check=False)
    assert again.rc == 1 and "container not paused" in again.err
    one.call("pause", one.id)
    again = one.call("pause", one.id, check=False)
    assert again.rc == 1 and frozen(one)
    if one.box.runtime.is_pyrunc:
        assert again.err == "pyrunc: error: container is already paused\n"


def test_a_created_container_is_paused_and_started_later(container: Make, box: Box) -> None:
    one = container("report")
    one.create()
    one.call("pause", one.id)
    assert frozen(one)
    if box.runtime.name != "crun":  # whose status is "created" until start, which it lets through
        assert one.status == "paused"
        refused = one.start(check=False)
        assert refused.rc == 1 and "cannot start a container in the paused state" in refused.err
    one.call("resume", one.id)
    assert not frozen(one) and one.status == "created"
    one.start()
    assert one.wait() == 0
    assert one.report["uid"] == [0, 0, 0]


def test_a_paused_container_that_was_not_started_is_deleted_by_force(container: Make, box: Box) -> None:
    one = container("exit", "0")
    one.create()
    one.call("pause", one.id)
    if box.runtime.name != "crun":
        refused = one.delete(check=False)
        assert refused.rc == 1 and "paused" in refused.err
    one.delete("--force")


def test_a_stopped_container(container: Make) -> None:
    one = container("exit", "0")
    one.create()
    one.start()
    one.wait()
    for verb in ("pause", "resume"):
        result = one.call(verb, one.id, check=False)
        assert result.rc == 1
        if one.box.runtime.is_pyrunc:
            assert "container not " in result.err


def test_delete_of_a_paused_container_needs_force(one: Container, box: Box) -> None:
    one.call("pause", one.id)
    refused = one.delete(check=False)
    assert refused.rc == 1 and "paused" in refused.err
    assert frozen(one)
    one.delete("--force")
    assert not box.leftovers()


def test_kill_reaches_a_paused_container(one: Container) -> None:
    one.call("pause", one.id)
    one.kill("KILL")
    assert one.wait() == 128 + 9
    one.wait_status("stopped")
    one.delete()


def test_another_signal_waits_for_resume(one: Container) -> None:
    one.call("pause", one.id)
    one.kill("USR1")
    time.sleep(0.05)
    assert '"signal"' not in one.out
    one.call("resume", one.id)
    one.wait_output('"signal"')


@pytest.mark.pyrunc_only("runc thaws it")
def test_kill_all_of_a_paused_container_leaves_it_paused(one: Container) -> None:
    one.call("pause", one.id)
    one.call("kill", "--all", one.id, "USR1")
    assert frozen(one)
    one.call("resume", one.id)
    one.wait_output('"signal"')


# -- ps --------------------------------------------------------------------------------------------


def pids(one: Container) -> list[int]:
    result = one.call("ps", "--format", "json", one.id)
    assert result.err == "" and result.out.count("\n") <= 1
    listed = json.loads(result.out)
    assert isinstance(listed, list)
    return listed


def test_ps_json(one: Container) -> None:
    inside = [int(word) for word in (one.cgroup / "cgroup.procs").read_text().split()]
    assert len(inside) == 3 and sorted(pids(one)) == sorted(inside)
    assert one.call("ps", "-f", "json", one.id).out.strip() == one.call("ps", "--format=json", one.id).out.strip()


def test_ps_has_those_of_cgroups_below(one: Container) -> None:
    below = one.cgroup / "inner/deeper"
    below.mkdir(parents=True)
    moved = next(pid for pid in pids(one) if pid != one.pid)
    (below / "cgroup.procs").write_text(str(moved))
    assert moved in pids(one) and len(pids(one)) == 3


@pytest.mark.needs_program("ps")
@pytest.mark.parametrize(
    "options", [(), ("-aux",), ("-ef",), ("-o", "comm,pid,ppid"), ("-e", "-o", "pid")], ids=" ".join
)
def test_ps_table(one: Container, options: tuple[str, ...]) -> None:
    if options == ("-o", "comm,pid,ppid"):
        options = ("-e", *options)
    result = one.call("ps", one.id, *options)
    header, *lines = result.out.splitlines()
    assert "PID" in header.split() and result.err == ""
    column = header.split().index("PID")
    assert sorted(int(line.split()[column]) for line in lines) == sorted(pids(one))
    assert one.call("ps", "--format", "table", one.id, *options).out.splitlines()[0].split() == header.split()


@pytest.mark.needs_program("ps")
def test_ps_of_a_stopped_container_is_the_header(container: Make) -> None:
    one = container("exit", "0")
    one.create()
    one.start()
    one.wait()
    result = one.call("ps", one.id)
    assert len(result.out.splitlines()) == 1 and "PID" in result.out
    if one.box.runtime.is_pyrunc:
        assert one.call("ps", "-f", "json", one.id).out == "[]\n"


def test_ps_that_fails(one: Container) -> None:
    assert one.call("ps", "--format", "yaml", one.id, check=False).rc == 1
    if one.box.runtime.is_pyrunc:
        result = one.call("ps", one.id, "--bogus", check=False)
        assert (
            result.rc == 1 and result.err.startswith("pyrunc: error: ps --bogus failed") and result.err.count("\n") == 1
        )
        result = one.call("ps", one.id, "-o", "comm", check=False)
        assert result.rc == 1 and "no PID column" in result.err
        result = one.call("ps", one.id, check=False, env={"PATH": "/nonexistent"})
        assert result.rc == 1 and "cannot execute ps" in result.err
        assert "no such file" not in result.err


@pytest.mark.pyrunc_only("an option of crun")
@pytest.mark.parametrize("own", [True, False], ids=["own pid namespace", "host's"])
def test_ps_without_a_cgroup(container: Make, box: Box, own: bool) -> None:
    one = container("fork", "2", "--", "signals", "60")
    if not own:
        spaces = one.bundle.config["linux"]["namespaces"]
        one.bundle.config["linux"]["namespaces"] = [space for space in spaces if space["type"] != "pid"]
    one.bundle.save()
    pid_file = box.path / "pid"
    options = ["--cgroup-manager", "disabled"]
    arguments = ("--pid-file", str(pid_file), "-b", str(one.bundle.path), one.id)
    one.call("create", *arguments, globals_=options, out=one.out_file, err=one.err_file)
    one.pid = int(pid_file.read_text())
    one.start()
    one.wait_output("ready")
    log = box.path / "log"
    children = Path(f"/proc/{one.pid}/task/{one.pid}/children").read_text().split()
    out = one.call("ps", "-f", "json", one.id, globals_=["--log", str(log)]).out
    assert sorted(json.loads(out)) == sorted([one.pid, *map(int, children)]) and len(children) == 2
    assert "has no cgroup" in log.read_text()
    result = one.call("pause", one.id, check=False)
    assert result.rc == 1 and "no cgroup" in result.err
    for child in children:  # without a cgroup and a pid namespace no other process ends them
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), 9)


# -- kill --all ------------------------------------------------------------------------------------


def test_kill_all_when_init_is_dead(container: Make, box: Box) -> None:
    """containerd's CRI plugin sends it after init has ended, and it must kill the remaining
    processes."""
    one = container("exit", "0")
    one.create()
    one.start()
    one.wait()
    one.wait_status("stopped")
    child = subprocess.Popen(["/bin/sleep", "60"])
    box.helpers.add(child.pid)
    try:
        if one.box.runtime.is_pyrunc:
            (one.cgroup / "cgroup.procs").write_text(str(child.pid))
        assert one.call("kill", "--all", one.id, "9").rc == 0
        if one.box.runtime.is_pyrunc:
            assert child.wait(5) == -9
        assert one.call("kill", "-a", one.id, "KILL").rc == 0
    finally:
        child.kill()
        child.wait()
    refused = one.kill("KILL", check=False)
    assert refused.rc == 1 and "container not running" in refused.err
