"""The effects of a plan on the program that init executes: environment, descriptors, signals,
working directory."""

from __future__ import annotations

import errno
import os
import pathlib
import signal
import stat

import pytest

import init_parent
from init_parent import (
    SHELL,
    Spawn,
    fail,
    finish,
    run,
    shell,
)
from pyrunc.plan import Plan, ops

init_exe, spawn, fifos = init_parent.init_exe, init_parent.spawn, init_parent.fifos


# --- what reaches the program ---------------------------------------------------------------------


def test_signals_are_default(spawn: Spawn) -> None:
    """This includes the last one, which libc does not count: an ignored signal stays ignored across
    execve."""
    numbers = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD})
    assert {1, 64} <= set(numbers)
    old = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGRTMIN})
    try:
        parent = spawn()
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1, signal.SIGRTMIN})
    text = run(parent, finish(Plan(), ["cat", "/proc/self/status"]))
    masks = dict(line.split(":\t") for line in text.splitlines() if line.startswith("Sig") and line[3] != "Q")
    assert int(masks["SigIgn"], 16) == int(masks["SigBlk"], 16) == 0


def test_preserved_descriptors(spawn: Spawn, tmp_path: pathlib.Path) -> None:
    files = []
    for name in ("first", "second"):
        (tmp_path / name).write_text(name)
        files.append(os.open(tmp_path / name, os.O_RDONLY))
    plan = Plan()
    plan.npreserve = 2
    # The hook must not get them.
    plan.hook("/hooks/createContainer/0", path=SHELL, args=shell(f"ls /proc/self/fd >{tmp_path}/hook"))
    parent = spawn(npreserve=2, preserved=tuple(files))
    text = run(parent, finish(plan, shell("cat <&3; cat <&4; echo; exec ls /proc/self/fd")))
    for fd in files:
        os.close(fd)
    # 5 is the directory that ls reads
    assert text.split() == ["firstsecond", "0", "1", "2", "3", "4", "5"]
    assert (tmp_path / "hook").read_text().split() == ["0", "1", "2", "3"]


def test_no_descriptor_leaks(spawn: Spawn) -> None:
    assert run(spawn(), finish(Plan(), ["ls", "/proc/self/fd"])).split() == ["0", "1", "2", "3"]


def test_environment_is_the_list(spawn: Spawn) -> None:
    env = ["B=2", "A=1", "EMPTY=", "B=3"]
    assert run(spawn(), finish(Plan(), ["env"], env)).split("\n") == [*env, ""]


def test_home_is_looked_up(spawn: Spawn) -> None:
    plan = Plan()
    plan.find_home("/process/user/uid", uid=0)
    want = next(line for line in pathlib.Path("/etc/passwd").read_text().splitlines() if line.split(":")[2] == "0")
    text = run(spawn(), finish(plan, ["env"], ["A=1"], home=True))
    assert text.split("\n") == ["A=1", "HOME=" + want.split(":")[5], ""]


def test_home_of_an_unknown_user_is_root(spawn: Spawn) -> None:
    plan = Plan()
    plan.find_home("/process/user/uid", uid=4123456789)
    assert run(spawn(), finish(plan, ["env"], home=True)) == "HOME=/\n"


def test_listen_pid_is_the_programs_own(spawn: Spawn) -> None:
    """sd_listen_fds(3) compares it with getpid(2)."""
    plan = Plan()
    plan.setsid("(default)")
    env = ["A=1", "LISTEN_PID=1", "LISTEN_PIDS=1"]
    plan = finish(plan, shell('test $$ = "$LISTEN_PID" && echo "$A $LISTEN_PIDS"'), env, policy=ops.P_EXECVE_LISTEN_PID)
    assert run(spawn(), plan) == "1 1\n"


def test_umask(spawn: Spawn) -> None:
    plan = Plan()
    plan.umask("/process/user/umask", mask=0o27)
    assert run(spawn(), finish(plan, shell("umask"))) == "0027\n"
    assert run(spawn(), finish(Plan(), shell("umask"))) == "0022\n"


def test_personality(spawn: Spawn) -> None:
    plan = Plan()
    plan.personality("/linux/personality", persona=0x0040000)  # ADDR_NO_RANDOMIZE
    assert run(spawn(), finish(plan, ["cat", "/proc/self/personality"])) == "00040000\n"


def test_no_new_privs_and_dumpable(spawn: Spawn) -> None:
    plan = Plan()
    plan.dumpable("(default)", value=0)
    plan.no_new_privs("/process/noNewPrivileges")
    text = run(spawn(), finish(plan, ["cat", "/proc/self/status"]))
    assert "NoNewPrivs:\t1" in text


def test_oom_score(spawn: Spawn) -> None:
    plan = Plan()
    plan.oom_score("/process/oomScoreAdj", value=987)
    assert run(spawn(), finish(plan, ["cat", "/proc/self/oom_score_adj"])) == "987\n"


# --- the working directory and the program --------------------------------------------------------


def test_chdir(spawn: Spawn, tmp_path: pathlib.Path) -> None:
    plan = Plan()
    plan.make_cwd("/process/cwd", cwd=f"{tmp_path}/a/b")
    plan.chdir("/process/cwd", cwd=f"{tmp_path}/a/b")
    assert run(spawn(), finish(plan, ["pwd", "-P"])) == f"{tmp_path}/a/b\n"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755


@pytest.mark.parametrize(("name", "err"), [("missing", errno.ENOENT), ("file", errno.ENOTDIR)])
def test_chdir_fails(spawn: Spawn, tmp_path: pathlib.Path, name: str, err: int) -> None:
    (tmp_path / "file").touch()
    plan = Plan()
    plan.chdir("/process/cwd", cwd=str(tmp_path / name))
    record = fail(spawn(), plan)
    assert (record.err, record.call, record.arg) == (err, "chdir", 1)


def test_chdir_through_descriptors_of_init(spawn: Spawn) -> None:
    """CVE-2024-21626: whatever number is tried, no descriptor of ours can be entered."""
    for number in range(3, 12):
        plan = Plan()
        plan.fd("ns", "", "")
        plan.chdir("/process/cwd", cwd=f"/proc/self/fd/{number}")
        directory = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
        try:
            assert fail(spawn(), plan, (directory,)).err in (errno.ENOENT, errno.ENOTDIR)
        finally:
            os.close(directory)


@pytest.mark.parametrize(
    ("file", "err", "text"),
    [
        ("no-such-program", errno.ENOENT, "executable file not found in $PATH"),
        ("", errno.ENOENT, "executable file not found in $PATH"),
        ("/no/such/program", errno.ENOENT, "no such file or directory"),
        ("/etc", errno.EACCES, "permission denied: is a directory"),
        ("/etc/passwd", errno.EACCES, "permission denied"),
        ("/etc/passwd/x", errno.ENOTDIR, ""),
    ],
)
def test_program_is_missing(spawn: Spawn, file: str, err: int, text: str) -> None:
    record = fail(spawn(), finish(Plan(), [file]))
    assert (record.step, record.err, record.detail, record.arg) == (0, err, text, 1)


def test_program_relative_to_cwd(spawn: Spawn, tmp_path: pathlib.Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "prog").symlink_to("/bin/echo")
    plan = Plan()
    plan.chdir("/process/cwd", cwd=str(tmp_path))
    assert run(spawn(), finish(plan, ["bin/prog", "x"])) == "x\n"
