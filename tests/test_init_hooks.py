"""Hooks that init executes: their state, environment, time limit and output."""

from __future__ import annotations

import errno
import os
import pathlib
import time

import pytest

import init_parent
from init_parent import (
    ALLOW,
    KILL,
    NUMBERS,
    SHELL,
    Spawn,
    fail,
    fifo_plan,
    finish,
    program,
    run,
    shell,
    wait_closed,
)
from pyrunc import handshake
from pyrunc.plan import Plan, ops

init_exe, spawn, fifos = init_parent.init_exe, init_parent.spawn, init_parent.fifos


def hook_plan(script: str, **kwargs: object) -> Plan:
    plan = Plan()
    plan.hook("/hooks/createContainer/0", path=SHELL, args=shell(script), **kwargs)  # type: ignore[arg-type]
    return finish(plan, ["echo", "ran"])


def test_hook_gets_state_and_environment(spawn: Spawn, tmp_path: pathlib.Path) -> None:
    big = "y" * 200_000  # more than a pipe holds
    state = ['{"annotations":"' + big + '","pid":', "}"]
    parent = spawn()
    args = ["argv0", "-c", f"cat >{tmp_path}/state; exec env >{tmp_path}/env"]
    plan = Plan()
    plan.hook("/hooks/createContainer/0", path=SHELL, args=args, env=["ONLY=this"], state=state)
    assert run(parent, finish(plan, ["echo", "ran"])) == "ran\n"
    assert (tmp_path / "state").read_text() == f"{state[0]}{parent.pid}}}"
    entries = (tmp_path / "env").read_text().split()
    assert "ONLY=this" in entries
    assert set(entries) <= {"ONLY=this", f"PWD={os.getcwd()}", "_=/usr/bin/env", "SHLVL=0"}  # the shell adds its own


def test_hook_starts_in_the_root_filesystem(spawn: Spawn, tmp_path: pathlib.Path) -> None:
    (tmp_path / "rootfs").mkdir()
    plan = Plan()
    plan.root("/root/path", policy=ops.P_ROOT_NO_BIND, path=f"{tmp_path}/rootfs")
    plan.hook("/hooks/createContainer/0", path=SHELL, args=shell("pwd -P; umask; exit 1"))
    assert fail(spawn(), plan).detail == f"exit status 1: {tmp_path}/rootfs 0022"


def test_hook_that_reads_nothing(spawn: Spawn) -> None:
    assert run(spawn(), hook_plan("exit 0", state=["a" * 100_000, ""])) == "ran\n"


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("exit 3", "exit status 3"),
        ("echo one; echo two >&2; exit 1", "exit status 1: one two"),
        ("kill -9 $$", "killed by signal 9"),
        (r"printf ' \n \r\n'; exit 1", "exit status 1"),
        (r"printf 'one\001two \n\n'; exit 1", "exit status 1: one two"),
    ],
)
def test_hook_fails(spawn: Spawn, script: str, text: str) -> None:
    record = fail(spawn(), hook_plan(script))
    assert (record.step, record.err, record.call, record.detail, record.arg) == (0, 0, "hook", text, 1)


def test_hook_output_is_cut_at_the_front(spawn: Spawn) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do printf 'üüüüüüüüüüüüüüüüüüüü%s' $i; done; echo END; exit 1"
    record = fail(spawn(), hook_plan(script))
    assert record.detail.endswith("END")
    assert "�" not in record.detail
    assert len(record.detail) > 90


def test_hook_missing(spawn: Spawn) -> None:
    plan = Plan()
    plan.hook("/hooks/createContainer/0", path="/no/such/hook", args=["x"])
    record = fail(spawn(), finish(plan, ["echo"]))
    assert (record.err, record.call, record.arg) == (errno.ENOENT, "execve", 1)


def test_hook_times_out(spawn: Spawn, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "pid"
    for limit in (300, 1200, 4800, 19200):  # ms; on a loaded machine the shell may be slower
        before = time.monotonic()
        record = fail(
            spawn(),
            hook_plan(f"echo here; sleep 60 & echo $! >{file}.new; mv {file}.new {file}; wait", timeout_ms=limit),
        )
        seconds = time.monotonic() - before
        assert limit / 1000 - 0.01 <= seconds < 55  # poll(2) may return a clock tick early; 60 s would not be a limit
        if file.exists():
            break
    assert (record.err, record.detail) == (0, f"hook timed out after {limit} ms: here")
    # what it started has ended as well
    stray = pathlib.Path("/proc", file.read_text().strip(), "stat")
    deadline = before + 55
    while stray.exists() and stray.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_hook_in_time(spawn: Spawn) -> None:
    assert run(spawn(), hook_plan("sleep 0.05", timeout_ms=30_000)) == "ran\n"


def test_hook_after_start(spawn: Spawn, fifos: tuple[int, int], tmp_path: pathlib.Path) -> None:
    """startContainer: a failure goes into the error fifo."""
    plan = fifo_plan(shell(f"touch {tmp_path}/ran"))
    args = shell(f"ls -l /proc/self/fd >{tmp_path}/fds; exit 5")
    plan.hook("/hooks/startContainer/0", policy=ops.P_HOOK_IN_CONTAINER, path=SHELL, args=args)
    plan.steps[-2:] = plan.steps[:-3:-1]
    parent = spawn()
    parent.plan(plan, fifos)
    parent.adopt()
    wait_closed(parent)
    os.write(fifos[0], b"x")
    record = handshake.Record(os.read(fifos[1], 256))
    assert (record.type, record.step, record.detail) == (handshake.FAIL, 2, "exit status 5")
    assert not (tmp_path / "ran").exists()
    assert f"{tmp_path}/start\n" not in (tmp_path / "fds").read_text()
    assert f"{tmp_path}/error\n" not in (tmp_path / "fds").read_text()


@pytest.mark.parametrize(("forbidden", "mode"), [([], "400"), (["fchmod"], "777")])
def test_state_of_a_hook_behind_the_filter(spawn: Spawn, forbidden: list[str], mode: str) -> None:
    """The state is sealed as for every other hook, unless the profile forbids the required calls:
    it may kill for them."""
    numbers = NUMBERS[os.uname().machine]
    plan = Plan()
    plan.no_new_privs("/process/noNewPrivileges")
    filter = program({numbers[name]: KILL for name in forbidden}, ALLOW)
    ops.Builder.seccomp(plan, "/linux/seccomp", flags=0, filter=filter)
    script = "stat -Lc %a /proc/self/fd/0; if printf x >>/proc/self/fd/0; then echo written; fi; exit 1"
    plan.hook(
        "/hooks/startContainer/0", policy=ops.P_HOOK_IN_CONTAINER, path=SHELL, args=shell(script), state=["x", ""]
    )
    detail = fail(spawn(), finish(plan, ["true"])).detail
    assert mode in detail and ("written" in detail) == bool(forbidden), detail
