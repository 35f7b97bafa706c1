"""Credentials, namespaces and the cgroup of the program that init executes. The tests need root."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import time

import pytest

import init_parent
from init_parent import (
    ALLOW,
    ERRNO,
    NUMBERS,
    SHELL,
    Spawn,
    as_user,
    fail,
    finish,
    needs_root,
    program,
    run,
    shell,
)
from pyrunc import handshake
from pyrunc.plan import Plan, ops

init_exe, spawn, fifos = init_parent.init_exe, init_parent.spawn, init_parent.fifos


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
@pytest.mark.parametrize("policy", [0, ops.P_KEYRING_OTHER_SEARCH])
def test_permissions_of_a_keyring_with_a_long_name(spawn: Spawn, policy: int) -> None:
    """Of the longest id; the kernel describes the keyring only if there is room for all."""
    plan, name = Plan(), "_ses." + f"{policy}-{os.getpid()}-".ljust(242, "x")
    plan.keyring("(default)", policy=policy, name=name)
    shown = run(spawn(), finish(plan, shell(f"grep {name} /proc/keys")))
    assert shown.split()[4] == ("3f130008" if policy else "3f1b0000")
    for length, call in ((490, "plan"), (491, "keyctl")):
        plan = Plan()
        plan.keyring("(default)", name="y" * length)
        record = fail(spawn(), plan)  # a plan without a program always fails
        assert (record.call, record.err) == (call, errno.ENOEXEC if call == "plan" else errno.ENAMETOOLONG)


def test_stdin_that_is_no_terminal(spawn: Spawn) -> None:
    plan = Plan()
    plan.setsid("(default)", policy=ops.P_SETSID_TERMINAL)
    record = fail(spawn(), plan)
    assert (record.call, record.err, record.step) == ("TIOCSCTTY", errno.ENOTTY, 0)


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
def test_join_a_user_namespace_and_a_foreign_one(spawn: Spawn) -> None:
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
@pytest.mark.parametrize("groups", [[], [7]])
def test_groups_that_a_user_namespace_denies(spawn: Spawn, groups: list[int]) -> None:
    """Only groups that the program does not get are worth a warning."""
    plan = Plan()
    plan.unshare_user("/linux/namespaces/0")
    plan.groups("/process/user/additionalGids", gids=struct.pack(f"={len(groups)}I", *groups))
    parent = spawn()
    parent.plan(finish(plan, ["true"]))
    parent.expect(handshake.MAP)
    for name, text in (("setgroups", "deny"), ("gid_map", "0 200000 10"), ("uid_map", "0 100000 10")):
        pathlib.Path(f"/proc/{parent.pid}/{name}").write_text(text)
    parent.go()
    if groups:
        record = parent.expect(handshake.WARN)
        assert (record.call, record.err, record.step) == ("setgroups", errno.EPERM, 1)
        assert record.detail == "denied in this user namespace: no additional groups"
    parent.expect(handshake.CREATED)


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
def test_directories_that_only_the_caller_may_enter(spawn: Spawn, tmp_path: pathlib.Path) -> None:
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


def test_unshare_with_an_error_that_needs_no_words(spawn: Spawn) -> None:
    """The plan's filter makes unshare(2) fail as it does without memory."""
    unshare = program({NUMBERS[os.uname().machine]["unshare"]: ERRNO | errno.ENOMEM}, ALLOW)
    plan = Plan()
    plan.no_new_privs("/process/noNewPrivileges")
    ops.Builder.seccomp(plan, "/linux/seccomp", flags=0, filter=unshare)
    plan.unshare("/linux/namespaces", flags=CLONE_NEWUTS | CLONE_NEWNET)
    record = fail(spawn(), plan)
    assert (record.err, record.call, record.arg) == (errno.ENOMEM, "unshare", 0)
    assert record.detail in ("uts namespace", "network namespace")


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
    assert "outside the container's root" in record.detail
