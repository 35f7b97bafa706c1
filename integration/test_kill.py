"""`kill`, and `delete` of containers with processes."""

from __future__ import annotations

import signal

import pytest

from integration.harness import Box, wait_until
from integration.test_lifecycle import Make


def test_kill_of_a_stopped_container(container: Make) -> None:
    one = container("exit", "0")
    one.create()
    one.start()
    one.wait()
    result = one.kill("KILL", check=False)
    assert result.rc == 1
    assert "container not running" in result.err


def test_kill_all_of_a_stopped_container(container: Make) -> None:
    """containerd's CRI sends ``kill --all ID 9`` after init has ended: the remaining processes of
    the cgroup die, without an error."""
    one = container("exit", "0")
    one.create()
    one.start()
    one.wait()
    assert one.call("kill", "--all", one.id, "9").err == ""
    assert one.call("kill", "-a", one.id, "9").err == ""


@pytest.mark.parametrize("given", ["USR1", "SIGUSR1", "usr1", "sigusr1", "10"])
def test_kill_takes_names_and_numbers(container: Make, given: str) -> None:
    one = container("signals", "60")
    one.create()
    one.start()
    one.wait_output("ready")
    one.kill(given)
    one.wait_output('"number":10')


def test_kill_zero_only_checks(container: Make) -> None:
    one = container("signals", "60")
    one.create()
    one.start()
    one.kill("0")
    assert one.status == "running"


@pytest.mark.parametrize("given", ["65", "BOGUS", "-1", "SIG", "1.5", "99999999999999999999"])
def test_kill_with_an_unknown_signal(container: Make, given: str) -> None:
    one = container("signals", "60")
    one.create()
    one.start()
    result = one.call("kill", one.id, given, check=False)
    assert result.rc == 1
    assert one.status == "running"


def test_kill_reaches_a_created_container(container: Make) -> None:
    one = container("exit", "0")
    one.create()
    one.kill("KILL")
    assert one.wait() == 128 + signal.SIGKILL
    one.wait_status("stopped")
    assert one.start(check=False).rc == 1
    one.delete()


@pytest.mark.parametrize("given", ["HUP", "INT", "QUIT", "TERM"])
@pytest.mark.parametrize("filter", ["none", "early", "late"])
def test_signals_end_a_created_container_as_they_end_a_program(
    container: Make, box: Box, given: str, filter: str
) -> None:
    """The kernel drops signals to a pid 1 without handlers, even while the container waits for
    start."""
    if box.runtime.name == "crun":
        pytest.skip("crun's init ignores all but KILL while it waits")
    one = container("exit", "0")
    if filter != "none":
        one.bundle.config["process"]["noNewPrivileges"] = filter == "late"
        calls = {"names": ["rt_sigaction", "rt_sigreturn"], "action": "SCMP_ACT_ERRNO"}
        if not box.runtime.is_pyrunc:  # their init is not a Go program
            calls = {"names": ["chroot"], "action": "SCMP_ACT_ERRNO"}
        one.bundle.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [calls]}
    one.create()
    one.kill("0")
    assert one.status == "created"
    one.kill(given)
    code = one.wait()
    if box.runtime.is_pyrunc:
        assert code == 128 + getattr(signal, f"SIG{given}")
    one.wait_status("stopped")
    assert one.start(check=False).rc == 1
    one.delete()


def test_a_programs_own_signals_do_not_end_a_created_container(container: Make) -> None:
    """These signals do not end the waiting process, and the program can handle its own after
    `start`."""
    one = container("signals", "60")
    one.create()
    for given in ("USR1", "WINCH", "CHLD", "CONT"):
        one.kill(given)
    assert one.status == "created"
    one.start()
    one.wait_output("ready")
    one.kill("INT")
    one.wait_output('"number":2')
    assert one.status == "running"


def test_delete_of_a_running_container(container: Make) -> None:
    one = container("signals", "60")
    one.create()
    one.start()
    result = one.delete(check=False)
    assert result.rc == 1
    assert f"cannot delete container {one.id} that is not stopped: running" in result.err
    assert one.status == "running"
    one.delete("--force")
    assert one.call("state", one.id, check=False).rc == 1


def test_delete_of_a_created_container(container: Make, box: Box) -> None:
    one = container("exit", "0")
    one.create()
    one.delete()
    assert not box.leftovers()


@pytest.mark.parametrize("verb", [("start",), ("state",), ("kill",), ("delete",)])
def test_a_missing_container(box: Box, verb: tuple[str, ...]) -> None:
    result = box.runtime.call("--root", str(box.root), *verb, "nothing-here")
    assert result.rc == 1
    assert "does not exist" in result.err
    assert "no such file" not in result.err, "podman would call that `command not found`"


def test_forced_delete_of_a_missing_container_is_fine(box: Box) -> None:
    result = box.runtime.call("--root", str(box.root), "delete", "--force", "nothing-here")
    assert (result.rc, result.err) == (0, "")


def test_forced_delete_kills_the_whole_container(container: Make, box: Box) -> None:
    one = container("fork", "3", "--", "signals", "60")
    one.create()
    one.start()
    one.wait_output("ready")
    assert len((one.cgroup / "cgroup.procs").read_text().split()) == 4
    one.delete("--force")
    assert not box.leftovers()


@pytest.mark.pyrunc_only(
    "runc 1.1.5 kills only init when the pid namespace is the host's; the spec's `delete` removes all"
)
def test_delete_without_pid_namespace_leaves_no_process(container: Make, box: Box) -> None:
    one = container("fork", "3", "--", "exit", "0")
    spaces = one.bundle.config["linux"]["namespaces"]
    one.bundle.config["linux"]["namespaces"] = [item for item in spaces if item["type"] != "pid"]
    one.create()
    one.start()
    one.wait()
    assert one.status == "stopped"
    one.delete()
    assert not box.leftovers()


@pytest.mark.pyrunc_only(
    "runc 1.1.5 signals only init; KILL of a container without its own pid namespace must reach all of it"
)
def test_kill_without_pid_namespace_reaches_all(container: Make) -> None:
    one = container("fork", "3", "--", "signals", "60")
    spaces = one.bundle.config["linux"]["namespaces"]
    one.bundle.config["linux"]["namespaces"] = [item for item in spaces if item["type"] != "pid"]
    one.create()
    one.start()
    one.wait_output("ready")
    one.kill("KILL")
    wait_until(lambda: not (one.cgroup / "cgroup.procs").read_text(), "every process of the cgroup to end")
