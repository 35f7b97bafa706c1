"""The end of a plan that joins a container: the state of the process that CLONE_INIT creates, and
what is deferred to it."""

from __future__ import annotations

import errno
import os
import pathlib
import resource
import time

import pytest

import init_parent
from init_parent import ALLOW, ERRNO, Parent, Spawn, fail, finish, needs_root, program, run, shell, status_of
from pyrunc import handshake
from pyrunc.plan import Plan, ops
from pyrunc.spec.names import CLONE_FLAGS

init_exe, spawn = init_parent.init_exe, init_parent.spawn

CLONE_NEWPID, CLONE_NEWUTS = CLONE_FLAGS["pid"], CLONE_FLAGS["uts"]
COMPLETE = {"policy": ops.P_CLONE_INIT_COMPLETE, "cgroup_fd": 0xFFFFFFFF}
CAP_CHOWN, CAP_SYS_ADMIN = 1, 1 << 21
NUMBERS = {
    "x86_64": {"clone": 56, "setsid": 112, "capset": 126, "read": 0, "prlimit64": 302, "clone3": 435, "setuid": 105},
    "aarch64": {"clone": 220, "setsid": 157, "capset": 91, "read": 63, "prlimit64": 261, "clone3": 435, "setuid": 146},
}[os.uname().machine]


def filter_step(plan: Plan, blob: bytes, policy: int = 0) -> None:
    ops.Builder.seccomp(plan, "/linux/seccomp", policy=policy, flags=0, filter=blob)


def caps_step(plan: Plan, mask: int) -> None:
    plan.caps("/process/capabilities", policy=ops.P_CAPS_FOR_FILTER, effective=mask, permitted=mask)


def located(plan: Plan, file: str = "true") -> None:
    plan.chdir("/process/cwd", policy=ops.P_CHDIR_TRY, cwd="/")
    plan.find_exe("/process/args/0", policy=ops.P_FIND_EXE_TRY, file=file, path="/usr/bin:/bin")


def executed(plan: Plan, args: list[str]) -> Plan:
    plan.execve("/process/args", args=args, env=[])
    return plan


def waiting(parent: Parent, plan: Plan) -> int:
    """The pid of the process that waits for the GO after PID."""
    parent.plan(plan)
    return parent.adopt()


def test_it_waits_with_nothing_but_the_socket(spawn: Spawn) -> None:
    plan = Plan()
    plan.dumpable("(default)", value=0)
    plan.root("/root/path", policy=ops.P_ROOT_NO_BIND, path="/")
    plan.clone_init("(default)", **COMPLETE)
    parent = spawn()
    pid = waiting(parent, executed(plan, ["/bin/true"]))
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2", "3"]
    assert os.readlink(f"/proc/{pid}/fd/3").startswith("socket:")
    assert os.getsid(pid) != os.getsid(0), "of the caller's session, whose terminal it could open"
    parent.go()
    assert parent.recv() is None
    assert parent.wait(pid) == 0


def test_the_callers_session_is_left_before_the_plan_arrives(spawn: Spawn) -> None:
    parent = spawn(joins=True)
    limit = time.monotonic() + init_parent.TIMEOUT
    while os.getsid(parent.pid) != parent.pid and time.monotonic() < limit:
        time.sleep(0.001)
    assert os.getsid(parent.pid) == parent.pid
    plan = Plan()
    plan.clone_init("(default)", **COMPLETE)
    pid = waiting(parent, executed(plan, ["/bin/true"]))
    assert os.getsid(pid) == parent.pid
    parent.go()
    assert parent.wait(pid) == 0


@needs_root
@pytest.mark.parametrize(("flags", "leaves"), [(0, True), (CLONE_NEWUTS, True), (CLONE_NEWPID, False)])
def test_the_callers_session_is_left_before_a_clone_that_others_see(spawn: Spawn, flags: int, leaves: bool) -> None:
    """A new pid namespace has no other processes; there SETSID is enough."""
    plan = Plan()
    plan.unshare("/linux/namespaces", flags=flags)
    plan.clone_init("(default)")
    plan.sync_mounted("(default)")
    plan.setsid("(default)")
    parent = spawn()
    parent.plan(executed(plan, ["/bin/true"]))
    pid = parent.adopt()
    parent.expect(handshake.MOUNTED)
    assert os.getsid(pid) == (parent.pid if leaves else os.getsid(0))
    parent.go()
    assert parent.recv() is None
    assert parent.wait(pid) == 0


def test_a_session_that_cannot_be_made(spawn: Spawn) -> None:
    """The clone would stay in the session of the process that cloned it."""
    plan = Plan()
    plan.no_new_privs("/process/noNewPrivileges")
    filter_step(plan, program({NUMBERS["setsid"]: ERRNO | errno.EPERM}, ALLOW))
    plan.clone_init("(default)", **COMPLETE)
    plan.setsid("/process/terminal")
    parent = spawn(joins=True)
    pid = waiting(parent, executed(plan, ["/bin/true"]))
    parent.go()
    record = parent.expect(handshake.FAIL)
    assert (record.call, record.err) == ("setsid", errno.EPERM)
    assert parent.wait(pid) == 1


def test_it_ends_with_its_parent(spawn: Spawn) -> None:
    plan = Plan()
    plan.clone_init("(default)", **COMPLETE)
    parent = spawn()
    pid = waiting(parent, executed(plan, ["/bin/true"]))
    parent.sock.shutdown(2)
    assert parent.wait(pid) == 1


@pytest.mark.parametrize(
    ("forbidden", "early"),
    [([], True), (["clone3", "setuid"], True), (["clone"], False), (["setsid"], False), (["read"], False)],
)
def test_filter_is_loaded_before_the_clone_where_it_can_be(spawn: Spawn, forbidden: list[str], early: bool) -> None:
    """Otherwise it is loaded after the clone, so that every profile that `create` accepts works for
    `exec`."""
    blob = program({NUMBERS[name]: ERRNO | errno.EPERM for name in forbidden}, ALLOW)
    plan = Plan()
    plan.no_new_privs("/process/noNewPrivileges")
    located(plan, "cat")
    filter_step(plan, blob, ops.P_SECCOMP_IF_PASSABLE)
    plan.clone_init("(default)", **COMPLETE)
    plan.setsid("(default)")
    filter_step(plan, blob)
    parent = spawn()
    pid = waiting(parent, executed(plan, ["cat", "/proc/self/status"]))
    assert status_of(pid)["Seccomp"] == ("2" if early else "0")
    parent.go()
    assert parent.recv() is None
    text = parent.output()
    if "read" not in forbidden:  # the program needs it
        assert "Seccomp:\t2" in text and "Seccomp_filters:\t1" in text
    parent.wait(pid)


@needs_root
def test_capability_for_the_filter_that_is_not_ours(spawn: Spawn) -> None:
    """Then SECCOMP reports what it requires."""
    plan = Plan()
    plan.caps("/process/capabilities", effective=CAP_CHOWN, permitted=CAP_CHOWN)
    caps_step(plan, CAP_CHOWN)
    filter_step(plan, program({}, ALLOW))
    record = fail(spawn(), finish(plan, ["true"]))
    assert (record.call, record.err) == ("seccomp", errno.EACCES)
    assert "CAP_SYS_ADMIN" in record.detail


@needs_root
@pytest.mark.parametrize("forbidden", [[], ["clone"]])
def test_capability_for_the_filter_goes_with_it(spawn: Spawn, forbidden: list[str]) -> None:
    """Without no_new_privs the kernel requires CAP_SYS_ADMIN: it is kept only if the filter is
    loaded after the clone."""
    blob = program({NUMBERS[name]: ERRNO | errno.EPERM for name in forbidden}, ALLOW)
    plan = Plan()
    plan.set_ids("/process/user", uid=1000, gid=1000)
    caps_step(plan, CAP_CHOWN)
    located(plan, "cat")
    filter_step(plan, blob, ops.P_SECCOMP_IF_PASSABLE)
    plan.drop_admin("(default)")
    plan.clone_init("(default)", **COMPLETE)
    filter_step(plan, blob)
    plan.drop_admin("(default)")
    parent = spawn()
    pid = waiting(parent, finish(plan, ["cat", "/proc/self/status"]))
    wanted = CAP_CHOWN | (CAP_SYS_ADMIN if forbidden else 0)
    status = status_of(pid)
    assert (int(status["CapPrm"], 16), int(status["CapEff"], 16)) == (wanted, wanted)
    parent.go()
    parent.expect(handshake.CREATED)
    status = status_of(pid)
    assert (int(status["CapPrm"], 16), int(status["CapEff"], 16)) == (CAP_CHOWN, CAP_CHOWN)
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "0")
    parent.go()
    assert parent.recv() is None


@needs_root
def test_capability_for_the_filter_never_stays(spawn: Spawn) -> None:
    plan = Plan()
    caps_step(plan, CAP_CHOWN)
    plan.drop_admin("(default)")  # no filter was loaded
    plans = [finish(plan, ["true"])]
    for last in (finish, executed):
        plan = Plan()
        caps_step(plan, CAP_CHOWN)
        plans.append(last(plan, ["/bin/true"]))
    for plan in plans:
        record = fail(spawn(), plan)
        assert (record.err, record.arg, record.detail) == (errno.EPERM, 0, "CAP_SYS_ADMIN was not dropped")


@needs_root
def test_container_that_has_the_capability_keeps_it(spawn: Spawn) -> None:
    plan = Plan()
    caps_step(plan, CAP_CHOWN | CAP_SYS_ADMIN)
    plan.drop_admin("(default)")
    plan.clone_init("(default)", **COMPLETE)
    parent = spawn()
    pid = waiting(parent, finish(plan, ["true"]))
    assert int(status_of(pid)["CapPrm"], 16) == CAP_CHOWN | CAP_SYS_ADMIN
    parent.go()
    parent.expect(handshake.CREATED)


@needs_root
def test_profile_that_forbids_capset_says_so(spawn: Spawn) -> None:
    plan = Plan()
    caps_step(plan, CAP_CHOWN)
    filter_step(plan, program({NUMBERS["capset"]: ERRNO | errno.EPERM}, ALLOW))
    plan.drop_admin("(default)")
    record = fail(spawn(), finish(plan, ["true"]))
    assert (record.err, record.call) == (errno.EPERM, "capset")
    assert "the seccomp profile must allow capset" in record.detail


def test_missing_files_are_looked_up_again(spawn: Spawn, tmp_path: pathlib.Path) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\npwd\n")
    (tmp_path / "program").chmod(0o755)
    plan = Plan()
    plan.chdir("/process/cwd", policy=ops.P_CHDIR_TRY, cwd="/nowhere")
    plan.find_exe("/process/args/0", policy=ops.P_FIND_EXE_TRY, file="./program", path="")
    plan.chdir("/process/cwd", cwd=str(tmp_path))
    plan.find_exe("/process/args/0", file="./program", path="")
    plan.chdir("/process/cwd", cwd="/not/looked/at")
    assert run(spawn(), finish(plan, ["./program"])) == f"{tmp_path}\n"


def test_the_second_failure_counts(spawn: Spawn) -> None:
    plan = Plan()
    plan.chdir("/process/cwd", policy=ops.P_CHDIR_TRY, cwd="/nowhere")
    plan.chdir("/process/cwd", cwd="/nowhere")
    record = fail(spawn(), finish(plan, ["true"]))
    assert (record.step, record.err) == (1, errno.ENOENT)
    plan = Plan()
    plan.find_exe("/process/args/0", policy=ops.P_FIND_EXE_TRY, file="/nowhere", path="")
    plan.find_exe("/process/args/0", file="/nowhere", path="")
    record = fail(spawn(), finish(plan, ["true"]))
    assert (record.step, record.err) == (1, errno.ENOENT)


@needs_root
def test_working_directory_that_was_not_entered_is_left(spawn: Spawn, tmp_path: pathlib.Path) -> None:
    """A directory outside the root that was entered in the first attempt must not be visible as
    ours to other processes."""
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    outside = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    plan = Plan()
    plan.npreserve = 1
    plan.unshare("/linux/namespaces", flags=0x20000)
    plan.propagation("(default)", propagation=3)
    plan.root("/root/path", path=str(root))
    plan.mount("/mounts/0", fstype="proc", source="proc", dest="/proc")
    plan.pivot("/root/path")
    plan.chdir("/process/cwd", policy=ops.P_CHDIR_TRY, cwd="/proc/self/fd/3")
    plan.clone_init("(default)", **COMPLETE)
    parent = spawn(npreserve=1, preserved=(outside,))
    os.close(outside)
    pid = waiting(parent, executed(plan, ["/bin/true"]))
    assert os.stat(f"/proc/{pid}/cwd").st_ino == os.stat(root).st_ino


def test_limit_set_by_init(spawn: Spawn) -> None:
    plan = Plan()
    plan.rlimit("/process/rlimits/0", resource=resource.RLIMIT_CORE, soft=5, hard=7)
    text = run(spawn(), finish(plan, shell("grep -i core /proc/self/limits")))
    assert text.split()[4:6] == ["5", "7"]
    plan = Plan()
    plan.rlimit("/process/rlimits/0", resource=resource.RLIMIT_CORE, soft=7, hard=5)
    record = fail(spawn(), finish(plan, ["true"]))
    assert (record.err, record.call) == (errno.EINVAL, "prlimit")
