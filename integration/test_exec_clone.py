"""`exec` clones into the pid namespace last. The program must not notice."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from integration.harness import Container
from integration.test_exec import process_file, run, started, status_field
from integration.test_seccomp import profile, rule

Make = Callable[..., Container]
SETSID = {"x86_64": 112, "aarch64": 157}[os.uname().machine]


@pytest.mark.pyrunc_only("runc has a second process of that user while it executes the program")
def test_limit_of_processes_has_room_for_it(container: Make) -> None:
    """The user's limit is one process, and the program is that process."""
    one = started(container)
    limits = [{"type": "RLIMIT_NPROC", "soft": 1, "hard": 1}]
    file = process_file(one, user={"uid": 42420, "gid": 0}, rlimits=limits)
    seen = run(one, flags=("--process", file)).report
    assert seen["rlimits"]["RLIMIT_NPROC"] == [1, 1]


@pytest.mark.parametrize("nnp", [True, False])
def test_profile_that_forbids_what_exec_itself_needs(container: Make, nnp: bool) -> None:
    """The container's filter may forbid anything: it is loaded when the runtime has no more calls
    to make."""
    names = ["clone", "clone3", "fork", "vfork", "setsid"]
    edits = {**profile(*(rule(name) for name in names)), "/process/noNewPrivileges": nnp}
    one = started(container, edits=edits)
    result = run(one, "/probe", "report", "--", "syscall", str(SETSID))
    assert status_field(result.report, "Seccomp") == "2"
    assert result.objects[1]["errno"] == errno.EPERM


@pytest.mark.parametrize("place", ["/proc/self/root/tmp", "/proc/thread-self/cwd"])
def test_working_directory_by_way_of_proc(container: Make, place: str) -> None:
    """The container's procfs resolves `self` only for processes of its pid namespace."""
    one = started(container)
    found = run(one, "/probe", "report", flags=("--cwd", place)).report["cwd"]
    assert found == ("/tmp" if "tmp" in place else "/")
