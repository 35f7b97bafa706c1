"""The effects of a plan on the program that init executes: environment, descriptors, hooks,
filters, credentials."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import select
import shutil
import signal
import stat
import struct
import subprocess
import time

import pytest

import init_parent
from init_parent import (
    SHELL,
    Spawn,
    as_user,
    fail,
    fifo_plan,
    finish,
    needs_root,
    run,
    shell,
    status_of,
    wait_closed,
)
from pyrunc import handshake
from pyrunc.plan import Plan, ops

init_exe, spawn, fifos = init_parent.init_exe, init_parent.spawn, init_parent.fifos


# --- what reaches the program ----------------------------------------------------------------------------------


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


# --- the working directory and the program ---------------------------------------------------------------------


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


# --- hooks -----------------------------------------------------------------------------------------------------


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


# --- seccomp ---------------------------------------------------------------------------------------------------

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
NUMBERS = {
    "x86_64": {"read": 0, "write": 1, "close": 3, "execve": 59, "exit_group": 231, "getcwd": 79, "fchmod": 91},
    "aarch64": {"read": 63, "write": 64, "close": 57, "execve": 221, "exit_group": 94, "getcwd": 17, "fchmod": 52},
}
NUMBERS["x86_64"]["exit"], NUMBERS["aarch64"]["exit"] = 60, 93


def program(rules: dict[int, int], default: int) -> bytes:
    """A classic BPF program: load the number, compare with each, return."""
    code = [struct.pack("=HBBI", 0x20, 0, 0, 0)]
    for number, action in rules.items():
        code += [struct.pack("=HBBI", 0x15, 0, 1, number), struct.pack("=HBBI", 0x06, 0, 0, action)]
    return b"".join([*code, struct.pack("=HBBI", 0x06, 0, 0, default)])


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


# --- credentials and namespaces (root) -------------------------------------------------------------------------

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x4000000, 0x20000000, 0x40000000
CAP_CHOWN, CAP_NET_RAW, CAP_SETPCAP, CAP_SETUID = 1 << 0, 1 << 13, 1 << 8, 1 << 7


@needs_root
def test_credentials(spawn: Spawn) -> None:
    caps = CAP_CHOWN | CAP_NET_RAW
    plan = as_user(Plan(), 1234, 5678, [7, 70000], caps, ambient=CAP_NET_RAW)
    status = dict(line.split(":", 1) for line in run(spawn(), finish(plan, ["cat", "/proc/self/status"])).splitlines())
    assert status["Uid"].split() == ["1234"] * 4
    assert status["Gid"].split() == ["5678"] * 4
    assert status["Groups"].split() == ["7", "70000"]
    assert int(status["CapBnd"], 16) == int(status["CapInh"], 16) == caps
    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == int(status["CapAmb"], 16) == CAP_NET_RAW


@needs_root
def test_ambient_that_cannot_be_is_a_warning(spawn: Spawn) -> None:
    plan = Plan()
    plan.caps("/process/capabilities", effective=0, permitted=CAP_CHOWN, inheritable=0, ambient=CAP_CHOWN)
    parent = spawn()
    parent.plan(finish(plan, shell("exit 0")))
    record = parent.expect(handshake.WARN)
    assert (record.err, record.step) == (errno.EPERM, 0)
    assert "capability 0" in record.detail
    parent.expect(handshake.CREATED)


@needs_root
def test_capability_that_the_caller_lacks(spawn: Spawn) -> None:
    plan = Plan()
    plan.caps("/process/capabilities", effective=0, permitted=CAP_SETPCAP, inheritable=0, ambient=0)
    plan.caps("/process/capabilities", effective=0, permitted=CAP_CHOWN, inheritable=0, ambient=0)
    record = fail(spawn(), plan)
    assert (record.err, record.step) == (errno.EPERM, 1)
    assert "lacks capability 0" in record.detail


@needs_root
def test_cwd_of_root_for_a_user(spawn: Spawn) -> None:
    """A directory that only root may enter is entered before the ids change, as in the other
    runtimes."""
    private = pathlib.Path(f"/run/pyrunc-test-{os.getpid()}")
    private.mkdir(mode=0o700)
    try:
        plan = as_user(Plan(), 1234, 1234, [], 0)
        plan.chdir("/process/cwd", cwd=str(private))
        assert run(spawn(), finish(plan, shell("readlink /proc/self/cwd"))) == f"{private}\n"
        # without root's attempt it fails
        plan = as_user(Plan(), 1234, 1234, [], 0)
        plan.chdir("/process/cwd", cwd=f"{private}/missing")
        assert fail(spawn(), plan).err == errno.EACCES
    finally:
        private.rmdir()


@needs_root
def test_program_that_the_user_may_not_run(spawn: Spawn, tmp_path: pathlib.Path) -> None:
    prog = tmp_path / "prog"
    prog.write_text("#!/bin/sh\n")
    prog.chmod(0o700)
    tmp_path.chmod(0o755)
    for parent_dir in tmp_path.parents[:-2]:
        parent_dir.chmod(0o755)
    plan = as_user(Plan(), 1234, 1234, [], 0)
    plan.find_exe("/process/args/0", file="prog", path=f"{tmp_path}:/bin")
    record = fail(spawn(), plan)
    assert (record.err, record.detail) == (errno.EACCES, "permission denied")


@needs_root
def test_new_namespaces(spawn: Spawn) -> None:
    plan = Plan()
    plan.unshare("/linux/namespaces", flags=CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWNET)
    plan.clone_init("(default)")
    plan.setsid("(default)")
    plan.keyring("(default)", name="_ses.pyrunc-test")
    plan.lo_up("(default)")
    plan.hook("/hooks/createContainer/0", path=SHELL, args=shell("grep -q '^{.pid.:1}$'"), state=['{"pid":', "}"])
    script = "echo $$; cat /sys/class/net/lo/flags /proc/net/dev | wc -l; ip link show lo 2>/dev/null; true"
    parent = spawn()
    parent.plan(finish(plan, shell(script)))
    pid = parent.adopt()
    parent.expect(handshake.CREATED)
    flags = subprocess.run(
        ["nsenter", "-t", str(pid), "-n", "cat", "/proc/net/if_inet6", "/proc/net/route"], capture_output=True
    )
    own = {name: os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "uts", "net", "pid", "ipc")}
    theirs = {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in own}
    assert {name for name in own if own[name] == theirs[name]} == {"ipc"}
    assert flags.returncode == 0
    assert b" lo\n" in flags.stdout  # an address is there only when the interface is up
    parent.go()
    assert parent.output().split("\n")[0] == "1"
    assert parent.wait(pid) == 0


@needs_root
def test_join_namespaces(spawn: Spawn) -> None:
    holder = subprocess.Popen(["unshare", "-u", "-n", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE)
    assert holder.stdout
    holder.stdout.readline()
    fds = [os.open(f"/proc/{holder.pid}/ns/{name}", os.O_RDONLY) for name in ("uts", "net")]
    try:
        plan = Plan()
        for kind, path in ((CLONE_NEWUTS, "uts"), (CLONE_NEWNET, "net")):
            plan.join_ns("/linux/namespaces/0", fd=plan.fd("ns", path, ""), nstype=kind, path=path)
        plan.clone_init("(default)")
        finish(plan, shell("readlink /proc/self/ns/uts /proc/self/ns/net"))
        parent = spawn()
        parent.plan(plan, tuple(fds))
        parent.adopt()
        parent.expect(handshake.CREATED)
        parent.go()
        want = [os.readlink(f"/proc/{holder.pid}/ns/{name}") for name in ("uts", "net")]
        assert parent.output().split() == want
        # and the wrong type is distinguished from the right one
        plan = Plan()
        plan.join_ns("/linux/namespaces/0", fd=plan.fd("ns", "x", ""), nstype=CLONE_NEWPID, path="x")
        record = fail(spawn(), plan, (fds[0],))
        assert (record.err, record.detail) == (errno.EINVAL, "invalid argument: not a namespace of type pid")
    finally:
        for fd in fds:
            os.close(fd)
        holder.kill()
        holder.wait()
        holder.stdout.close()


@needs_root
def test_join_user_namespace_and_one_that_it_does_not_own(spawn: Spawn) -> None:
    """runc issue 4466: the network namespace is the host's, and cannot be joined after the user
    namespace."""
    holders = [
        subprocess.Popen(["unshare", *args, "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE)
        for args in (["-U", "-r", "-u"], ["-n"])
    ]
    fds = []
    try:
        for holder in holders:
            assert holder.stdout
            holder.stdout.readline()
        places = [
            (holders[0], "user", 0x10000000),
            (holders[1], "net", CLONE_NEWNET),
            (holders[0], "uts", CLONE_NEWUTS),
        ]
        plan = Plan()
        for holder, name, kind in places:
            fds.append(os.open(f"/proc/{holder.pid}/ns/{name}", os.O_RDONLY))
            plan.join_ns("/linux/namespaces/0", fd=plan.fd("ns", name, ""), nstype=kind, path=name)
        want = [os.readlink(f"/proc/{holder.pid}/ns/{name}") for holder, name, _ in places]
        names = " ".join(f"/proc/self/ns/{name}" for _, name, _ in places)
        assert run(spawn(), finish(plan, shell(f"readlink {names}; id -u")), tuple(fds)).split() == [*want, "0"]
    finally:
        for fd in fds:
            os.close(fd)
        for holder in holders:
            holder.kill()
            holder.communicate()


@needs_root
def test_user_namespace(spawn: Spawn) -> None:
    plan = Plan()
    plan.dumpable("(default)", value=0)
    plan.unshare_user("/linux/namespaces/0")
    plan.unshare("/linux/namespaces", flags=CLONE_NEWUTS)
    plan.clone_init("(default)")
    finish(plan, shell("id -u; id -g; id -G; cat /proc/self/uid_map"))
    parent = spawn()
    parent.plan(plan)
    parent.expect(handshake.MAP)
    proc = pathlib.Path(f"/proc/{parent.pid}")
    (proc / "gid_map").write_text("0 200000 10")
    (proc / "uid_map").write_text("0 100000 10")
    parent.go()
    pid = parent.adopt()
    parent.expect(handshake.CREATED)
    environ = proc.parent / str(pid) / "environ"
    assert environ.stat().st_uid == 0  # not dumpable: the files are root's, not the user's
    parent.go()
    assert parent.output().split() == ["0", "0", "0", "0", "100000", "10"]


@needs_root
@pytest.mark.parametrize("policy", [0, ops.P_UNSHARE_USER_DUMPABLE])
def test_dumpable_only_for_a_parent_that_is_not_root(spawn: Spawn, policy: int) -> None:
    """CVE-2016-9962: while the maps are written, only such a parent needs access."""
    plan = as_user(Plan(), 1234, 1234, [], 0)
    plan.dumpable("(default)", value=0)
    plan.unshare_user("/linux/namespaces/0", policy=policy)
    finish(plan, shell("true"))
    parent = spawn()
    parent.plan(plan)
    parent.expect(handshake.MAP)
    # The files of a process that is not dumpable belong to root.
    assert pathlib.Path(f"/proc/{parent.pid}/uid_map").stat().st_uid == (1234 if policy else 0)
    parent.sock.close()
    assert parent.wait(parent.pid) == 1


@needs_root
def test_place_in_a_directory_that_is_not_a_cgroup(spawn: Spawn, tmp_path: pathlib.Path) -> None:
    """Nothing continues outside the cgroup, and no process remains."""
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    parent = spawn()
    plan = Plan()
    plan.place("/linux/cgroupsPath", cgroup_fd=plan.fd("cgroup", "", ""))
    finish(plan, shell("exit 0"))
    parent.plan(plan, (fd,))
    os.close(fd)
    record = parent.expect(handshake.FAIL)
    assert (record.call, record.err) == ("clone3", errno.EBADF)
    assert parent.wait(parent.pid) == 1


@needs_root
def test_place(spawn: Spawn, tmp_path: pathlib.Path) -> None:
    """The cgroup cannot be entered from inside the user namespace; the process that was placed
    continues there."""
    mounts = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
    root = next((pathlib.Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)
    if root is None:
        pytest.skip("no cgroup2 hierarchy here")
    group = root / f"pyrunc-place-{os.getpid()}"
    group.mkdir()
    fd = os.open(group, os.O_PATH | os.O_DIRECTORY)
    parent = spawn()
    try:
        plan = Plan()
        plan.place("/linux/cgroupsPath", cgroup_fd=plan.fd("cgroup", "", ""))
        plan.unshare_user("/linux/namespaces/0")
        plan.clone_init("(default)")
        finish(plan, shell("grep ^0: /proc/self/cgroup"))
        parent.plan(plan, (fd,))
        placed = parent.expect(handshake.PLACED).value
        assert parent.wait(parent.pid) == 0
        parent.pid = placed
        parent.children.append(placed)
        parent.go()
        parent.expect(handshake.MAP)
        for kind in ("gid", "uid"):
            pathlib.Path(f"/proc/{placed}/{kind}_map").write_text("0 100000 10")
        parent.go()
        parent.adopt()
        parent.expect(handshake.CREATED)
        parent.go()
        assert parent.output().strip().endswith(group.name)
    finally:
        os.close(fd)
        for pid in parent.children:
            os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 10
        while group.exists() and time.monotonic() < end:
            with contextlib.suppress(OSError):
                group.rmdir()
            time.sleep(0.01)


@needs_root
def test_what_only_the_caller_may_enter(spawn: Spawn, tmp_path: pathlib.Path) -> None:
    """A bind's source and the root filesystem are below a directory with mode 0700; root of a user
    namespace uses them."""
    secret = tmp_path / "secret"
    (secret / "root" / "old").mkdir(parents=True)
    (secret / "root" / "at").mkdir()
    (secret / "volume").mkdir()
    (secret / "volume" / "file").write_text("reached\n")
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    shutil.copy(busybox, secret / "root" / "busybox")
    secret.chmod(0o700)
    plan = Plan()
    plan.enter_root("/root", path=str(secret / "root"))
    plan.open_tree("/mounts/0", slot=200, propagation=8 | 2, path=str(secret / "volume"))
    plan.open_tree("/mounts/1", slot=201, propagation=8 | 2, path=str(secret / "missing"))
    plan.unshare_user("/linux/namespaces/0")
    plan.unshare("/linux/namespaces", flags=CLONE_NEWNS)
    plan.propagation("(default)", propagation=8 | 2)
    plan.root("/root", policy=ops.P_ROOT_CWD, path=str(secret / "root"))
    plan.mount("/mounts/0", policy=ops.P_MOUNT_BIND, tree=200, source=str(secret / "volume"), dest="/at")
    plan.pivot("(default)")
    finish(plan, ["/busybox", "cat", "/at/file"])
    parent = spawn()
    parent.plan(plan)
    parent.expect(handshake.MAP)
    for kind in ("gid", "uid"):
        pathlib.Path(f"/proc/{parent.pid}/{kind}_map").write_text("0 100000 10")
    parent.go()
    parent.expect(handshake.CREATED)
    parent.go()
    assert parent.output() == "reached\n"


@needs_root
def test_unshare_names_the_namespace(spawn: Spawn) -> None:
    plan = as_user(Plan(), 1234, 1234, [], 0)
    plan.unshare("/linux/namespaces", flags=CLONE_NEWUTS | CLONE_NEWNET)
    record = fail(spawn(), plan)
    assert (record.err, record.call) == (errno.EPERM, "unshare")
    assert record.detail == "operation not permitted: network namespace"


@needs_root
def test_cwd_outside_the_root(spawn: Spawn, tmp_path: pathlib.Path) -> None:
    """CVE-2024-21626 with a descriptor that the caller preserved: the kernel reports it as
    unreachable, and so do we."""
    shutil.copy(shutil.which("busybox") or "/bin/busybox", tmp_path / "busybox")
    (tmp_path / "proc").mkdir()
    outside = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
    plan = Plan()
    plan.npreserve = 1
    plan.unshare("/linux/namespaces", flags=CLONE_NEWNS | CLONE_NEWPID)
    plan.clone_init("(default)")
    plan.propagation("(default)", propagation=8 | 3)  # recursive, private
    plan.root("/root", path=str(tmp_path))
    plan.mount("/mounts/0", fstype="proc", source="proc", dest="/proc")
    plan.pivot("(default)")
    plan.chdir("/process/cwd", cwd="/proc/self/fd/3")
    parent = spawn(npreserve=1, preserved=(outside,))
    os.close(outside)
    parent.plan(plan)
    parent.adopt()
    record = parent.expect(handshake.FAIL)
    assert (record.step, record.err, record.call) == (6, errno.EACCES, "chdir")
    assert "outside of the container's root" in record.detail
