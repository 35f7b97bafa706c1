"""`exec` and cgroups: sub-cgroups, and a first process that has left the container's cgroup."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.harness import Container, wait_until
from integration.machine import cgroup2_mount
from integration.test_exec import detached, end, run, started

Make = Callable[..., Container]


@pytest.mark.pyrunc_only("runc 1.1.5 has it, but with its own view of the hierarchy")
def test_sub_cgroup(container: Make) -> None:
    one = started(container)
    (one.cgroup / "sub/inner").mkdir(parents=True)
    pid = detached(one, "/probe", "sleep", "600", flags=("--cgroup", "sub/inner"))
    assert str(pid) in (one.cgroup / "sub/inner/cgroup.procs").read_text().split()
    end(pid)
    pid = detached(one, "/probe", "sleep", "600", flags=("--cgroup", "cpu,memory:/sub"))
    assert str(pid) in (one.cgroup / "sub/cgroup.procs").read_text().split()
    end(pid)


@pytest.mark.parametrize("path", ["..", "../..", "sub/../..", "/..", "nosuch", "memory:../x"])
def test_sub_cgroups_that_are_none(container: Make, path: str) -> None:
    one = started(container)
    result = run(one, "/probe", "report", flags=("--cgroup", path), check=False)
    assert result.rc == 255
    if one.box.runtime.is_pyrunc:
        assert "--cgroup" in result.err


def enable_below(one: Container) -> None:
    """Enable a controller for children of the container's cgroup, which then accepts no
    processes."""
    mount = cgroup2_mount()
    assert mount
    domain = [
        name for name in (mount / "cgroup.controllers").read_text().split() if name in ("hugetlb", "memory", "io")
    ]
    if not domain:
        pytest.skip("no domain controller on this machine's cgroup v2")
    try:
        (one.cgroup / "cgroup.subtree_control").write_text("+" + domain[0])
    except OSError as error:
        pytest.skip(f"cannot enable {domain[0]} below: {error}")


def test_controllers_enabled_below(container: Make) -> None:
    """As with systemd in a container: its own cgroup accepts no processes, so exec uses init's
    cgroup."""
    one = started(container)
    inner = one.cgroup / "init.scope"
    inner.mkdir()
    (inner / "cgroup.procs").write_text(str(one.pid))
    enable_below(one)
    pid = detached(one, "/probe", "sleep", "600")
    assert str(pid) in (inner / "cgroup.procs").read_text().split()
    end(pid)


@contextmanager
def moved(one: Container) -> Iterator[Path]:
    """A container whose first process is in a cgroup outside the container's, as moved by a service
    manager."""
    other = one.cgroup.with_name(one.cgroup.name + "x")
    one.box.own_cgroups.add(other)
    other.mkdir()
    try:
        (other / "cgroup.procs").write_text(str(one.pid))
        yield other
    finally:
        (other / "cgroup.kill").write_text("1")
        one.wait()
        wait_until(lambda: "populated 0" in (other / "cgroup.events").read_text(), "the end of all in it")
        other.rmdir()


@pytest.mark.pyrunc_only("runc 1.5 does it; runc 1.1 makes the cgroup again, without limits; crun fails")
def test_a_cgroup_that_is_gone(container: Make) -> None:
    """The new process joins the first one's cgroup and is subject to the same limits."""
    one = started(container)
    with moved(one) as other:
        one.cgroup.rmdir()
        pid = detached(one, "/probe", "sleep", "600")
        assert str(pid) in (other / "cgroup.procs").read_text().split()
        if one.box.runtime.is_pyrunc:
            assert sorted(json.loads(one.call("ps", "--format", "json", one.id).out)) == sorted([one.pid, pid])
        end(pid)
        for path in ("/", "sub"):
            result = run(one, "/probe", "report", flags=("--cgroup", path), check=False)
            assert result.rc == 255, "asked for a cgroup, it must not get another one"
            if one.box.runtime.is_pyrunc:
                assert "--cgroup" in result.err, result.err


@pytest.mark.pyrunc_only("crun fails; runc 1.5 ignores --all and signals the first process")
def test_kill_all_where_the_cgroup_is_gone(container: Make) -> None:
    """The first process still gets the signal: success without an effect would be a lie."""
    one = started(container)
    with moved(one) as other:
        one.cgroup.rmdir()
        one.call("kill", "--all", one.id, "KILL")
        wait_until(lambda: "populated 0" in (other / "cgroup.events").read_text(), "its end")
        assert one.status == "stopped"


@pytest.mark.pyrunc_only("runc refuses it as well; crun takes another one")
def test_an_explicit_cgroup_that_takes_no_processes(container: Make) -> None:
    """With --cgroup / the process does not join the first one's cgroup."""
    one = started(container)
    inner = one.cgroup / "init.scope"
    inner.mkdir()
    (inner / "cgroup.procs").write_text(str(one.pid))
    enable_below(one)
    result = run(one, "/probe", "report", flags=("--cgroup", "/"), check=False)
    assert result.rc == 255
    assert '--cgroup "/": clone3: EBUSY' in result.err, result.err
