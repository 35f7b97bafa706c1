"""Seccomp filters that init installs before the program."""

from __future__ import annotations

import errno
import os
import pathlib
import select
import signal

import pytest

import init_parent
from init_parent import (
    ALLOW,
    ERRNO,
    KILL,
    NUMBERS,
    Spawn,
    fail,
    finish,
    needs_root,
    program,
    run,
    status_of,
    wait_closed,
)
from pyrunc import handshake
from pyrunc.plan import Plan, ops

CLONE_NEWPID = 0x20000000
init_exe, spawn, fifos = init_parent.init_exe, init_parent.spawn, init_parent.fifos


def test_nothing_but_read_write_close_after_the_filter(spawn: Spawn, fifos: tuple[int, int]) -> None:
    numbers = NUMBERS[os.uname().machine]
    allowed = {numbers[name]: ALLOW for name in ("read", "write", "close", "execve")}
    plan = Plan()
    plan.clone_init("(default)")
    plan.no_new_privs("/process/noNewPrivileges")
    plan.find_exe("/process/args/0", file="cat", path="/usr/bin:/bin")
    ops.Builder.seccomp(plan, "/linux/seccomp", flags=0, filter=program(allowed, KILL))
    start = plan.fd("start", "", "")
    plan.wait_start("(default)", start_fd=start, error_fd=plan.fd("error", "", ""))
    plan.execve("/process/args", args=["cat"], env=["A=1"])
    parent = spawn()
    parent.plan(plan, fifos)
    pid = parent.adopt()
    wait_closed(parent)
    assert status_of(pid)["Seccomp"] == "2"
    os.write(fifos[0], b"x")
    assert parent.wait(pid) == -signal.SIGSYS  # the program's first call, brk or the like: so execve was reached
    assert not select.select([fifos[1]], [], [], 0)[0]


@pytest.mark.parametrize("forbidden", [("execve", "write", "exit", "exit_group"), ()], ids=["exit", "everything"])
def test_filter_that_forbids_exit(spawn: Spawn, forbidden: tuple[str, ...]) -> None:
    """The C library repeats exit(2) until it succeeds: the process would run forever without a
    report."""
    rules = {NUMBERS[os.uname().machine][name]: ERRNO | errno.ENOSYS for name in forbidden}
    plan = Plan()
    plan.no_new_privs("/process/noNewPrivileges")
    plan.find_exe("/process/args/0", file="cat", path="/usr/bin:/bin")
    filter = program(rules, ALLOW if rules else ERRNO | errno.ENOSYS)
    ops.Builder.seccomp(plan, "/linux/seccomp", flags=0, filter=filter)
    plan.execve("/process/args", args=["cat"], env=[])
    parent = spawn()
    parent.plan(plan)
    assert parent.recv() is None
    assert -parent.wait(parent.children[0]) in (signal.SIGILL, signal.SIGTRAP)


def test_filter_that_forbids_one_way_to_exit(spawn: Spawn) -> None:
    """The status is the usual one."""
    plan = Plan()
    plan.no_new_privs("/process/noNewPrivileges")
    rules = {NUMBERS[os.uname().machine]["exit_group"]: ERRNO | errno.ENOSYS}
    ops.Builder.seccomp(plan, "/linux/seccomp", flags=0, filter=program(rules, ALLOW))
    assert fail(spawn(), plan).call == "plan"  # it has no end


@needs_root
def test_first_process_that_cannot_handle_signals(spawn: Spawn) -> None:
    """Nobody could stop the created container."""
    plan = Plan()
    plan.unshare("/linux/namespaces", flags=CLONE_NEWPID)
    plan.clone_init("(default)")
    plan.setsid("(default)")
    plan.no_new_privs("/process/noNewPrivileges")
    rules = {NUMBERS[os.uname().machine]["rt_sigaction"]: ERRNO | errno.EIO}
    ops.Builder.seccomp(plan, "/linux/seccomp", flags=0, filter=program(rules, ALLOW))
    plan.sync_ready("(default)")
    parent = spawn()
    parent.plan(plan)
    pid = parent.adopt()
    parent.expect(handshake.READY)
    parent.go()
    record = parent.expect(handshake.FAIL)
    assert (record.err, record.call, record.detail, record.arg) == (errno.EIO, "rt_sigaction", "", 0)
    assert parent.wait(pid) == 1


def test_filter_without_getcwd_is_an_error(spawn: Spawn, tmp_path: pathlib.Path) -> None:
    numbers = NUMBERS[os.uname().machine]
    for cwd, ok in ((str(tmp_path), False), ("/", True)):
        plan = Plan()
        plan.no_new_privs("/process/noNewPrivileges")
        filter = program({numbers["getcwd"]: ERRNO | errno.EPERM}, ALLOW)
        ops.Builder.seccomp(plan, "/linux/seccomp", flags=0, filter=filter)
        plan.chdir("/process/cwd", cwd=cwd)
        finish(plan, ["echo", "ok"])
        if ok:
            assert run(spawn(), plan) == "ok\n"
        else:
            assert "getcwd" in fail(spawn(), plan).detail


@pytest.mark.parametrize("blob", [b"", b"\0" * 7, b"\0" * 8 * 4097, b"\xff" * 8])
def test_bad_filter(spawn: Spawn, blob: bytes) -> None:
    plan = Plan()
    plan.no_new_privs("/process/noNewPrivileges")
    ops.Builder.seccomp(plan, "/linux/seccomp", flags=0, filter=blob)
    record = fail(spawn(), plan)
    assert (record.err, record.call) == (errno.EINVAL, "seccomp")


def test_unknown_filter_flag_is_an_error(spawn: Spawn) -> None:
    plan = Plan()
    plan.no_new_privs("/process/noNewPrivileges")
    ops.Builder.seccomp(plan, "/linux/seccomp", flags=1 << 30, filter=program({}, ALLOW))
    assert "filter flags" in fail(spawn(), plan).detail


def test_listener(spawn: Spawn) -> None:
    plan = Plan()
    plan.no_new_privs("/process/noNewPrivileges")
    ops.Builder.seccomp(plan, "/linux/seccomp", policy=ops.P_SECCOMP_LISTENER, flags=1, filter=program({}, ALLOW))
    parent = spawn()
    parent.plan(finish(plan, ["ls", "/proc/self/fd"]))
    number = parent.expect(handshake.SECCOMP).value
    assert os.readlink(f"/proc/{parent.pid}/fd/{number}") == "anon_inode:seccomp notify"
    parent.go()
    parent.expect(handshake.CREATED)
    assert not os.path.lexists(f"/proc/{parent.pid}/fd/{number}")
    parent.go()
    assert parent.output().split() == ["0", "1", "2", "3"]
