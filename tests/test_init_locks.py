"""Second lines of defence: with each of these, it takes another mistake before something of the
host is within reach.

Each is one line of init whose absence no container would notice.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import pathlib
import signal
import socket
import stat
from collections.abc import Callable, Iterator

import pytest

import init_parent
from init_parent import Parent, Spawn, as_user, fail, finish, needs_root, run, shell, status_of
from pyrunc import handshake
from pyrunc.plan import Plan, ops

init_exe, spawn, fifos = init_parent.init_exe, init_parent.spawn, init_parent.fifos

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWPID = 0x20000, 0x4000000, 0x20000000
CAP_NET_RAW, CAP_NET_ADMIN = 13, 12
KERNEL_SIGNALS = range(1, 65)
libc = ctypes.CDLL(None, use_errno=True)


def descriptors(pid: int) -> dict[int, tuple[str, bool]]:
    """The target of each descriptor of a process, and whether it is close-on-exec."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        info = pathlib.Path(f"/proc/{pid}/fdinfo/{name}").read_text()
        flags = int(info.split("flags:")[1].split()[0], 8)
        found[int(name)] = (os.readlink(f"/proc/{pid}/fd/{name}"), bool(flags & os.O_CLOEXEC))
    return found


# --- descriptors ----------------------------------------------------------------------------------


def leaky(pid: int) -> dict[int, str]:
    """The descriptors above stdio that an execve would pass on."""
    found = descriptors(pid)
    assert len(found) > 5, found
    return {fd: target for fd, (target, cloexec) in found.items() if fd > 2 and not cloexec}


@needs_root
@pytest.mark.parametrize("moment", ["map", "mounted", "ready"])
def test_every_descriptor_is_close_on_exec(spawn: Spawn, tmp_path: pathlib.Path, moment: str) -> None:
    """CVE-2024-21626: descriptors that came with the plan and those that init opens, at each point
    where it waits."""
    plan = Plan()
    plan.fd("ns", "", "")
    if moment == "map":
        plan.unshare_user("/linux/namespaces/0")
    plan.unshare("/linux/namespaces", flags=CLONE_NEWNS)
    plan.propagation("(default)", propagation=8 | 2)
    plan.root("/root", path=str(tmp_path))
    plan.mount("/mounts/0", fstype="tmpfs", source="tmpfs", dest="/dev")
    if moment == "mounted":
        plan.sync_mounted("(default)")
    plan.pivot("(default)")
    plan.sync_ready("(default)")
    parent = spawn()
    directory = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
    parent.plan(plan, (directory,))
    os.close(directory)
    parent.expect({"map": handshake.MAP, "mounted": handshake.MOUNTED, "ready": handshake.READY}[moment])
    assert leaky(parent.pid) == {}
    assert "/etc" in {target for target, _ in descriptors(parent.pid).values()}


def test_files_of_the_host_cannot_be_read(spawn: Spawn) -> None:
    """The descriptors are O_PATH: a process that takes one over cannot list a directory of the
    host."""
    plan = Plan()
    plan.sync_ready("(default)")
    parent = spawn()
    parent.plan(plan)
    parent.expect(handshake.READY)
    found = {}
    for name in os.listdir(f"/proc/{parent.pid}/fd"):
        info = pathlib.Path(f"/proc/{parent.pid}/fdinfo/{name}").read_text()
        if int(name) > 2:
            found[os.readlink(f"/proc/{parent.pid}/fd/{name}")] = int(info.split("flags:")[1].split()[0], 8)
    assert found["/proc"] & os.O_PATH and found["/dev/null"] & os.O_PATH


def test_every_preserved_descriptor_goes_on_and_nothing_else(spawn: Spawn) -> None:
    plan = Plan()
    plan.npreserve = 1
    plan.fd("ns", "", "")
    plan.sync_ready("(default)")
    directory = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
    parent = spawn(npreserve=1, preserved=(directory,))
    parent.plan(plan, (directory,))
    os.close(directory)
    parent.expect(handshake.READY)
    assert leaky(parent.pid) == {3: "/etc"}


@pytest.fixture
def own_cgroup() -> Iterator[int]:
    """A descriptor of our own cgroup in the unified hierarchy."""
    mounts = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
    root = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), None)
    if root is None:
        pytest.skip("no cgroup2 hierarchy here")
    own = next(line[3:] for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::")
    fd = os.open(root + own, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@needs_root
@pytest.mark.parametrize("placed", [False, True])
def test_cgroup_descriptor_is_closed_at_once(spawn: Spawn, own_cgroup: int, placed: bool) -> None:
    """It gives access to every cgroup of the host."""
    plan = Plan()
    cgroup = plan.fd("cgroup", "", "")
    if placed:
        plan.place("/linux/cgroupsPath", cgroup_fd=cgroup)
    else:
        plan.clone_init("(default)", policy=ops.P_CLONE_INIT_IN_CGROUP, cgroup_fd=cgroup)
    plan.sync_mounted("(default)")
    parent = spawn()
    parent.plan(plan, (own_cgroup,))
    pid = parent.expect(handshake.PLACED).value if placed else parent.adopt()
    if placed:
        assert parent.wait(parent.pid) == 0
        parent.children = [pid]
        parent.go()
    parent.expect(handshake.MOUNTED)
    targets = [target for target, _ in descriptors(pid).values()]
    assert "/proc" in targets
    assert os.readlink(f"/proc/self/fd/{own_cgroup}") not in targets


@needs_root
def test_namespace_descriptors_are_closed_once_joined(spawn: Spawn) -> None:
    """CVE-2016-9962, CVE-2016-8649: a process that can trace us finds no way to another
    namespace."""
    names = ["uts", "ipc"]
    fds = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in names]
    plan = Plan()
    for name, kind in zip(names, (CLONE_NEWUTS, 0x08000000), strict=True):
        plan.join_ns("/linux/namespaces/0", fd=plan.fd("ns", name, ""), nstype=kind, path=name)
    plan.sync_mounted("(default)")
    parent = spawn()
    parent.plan(plan, tuple(fds))
    for fd in fds:
        os.close(fd)
    parent.expect(handshake.MOUNTED)
    assert [target for target, _ in descriptors(parent.pid).values() if target.startswith(("uts:", "ipc:"))] == []


@needs_root
def test_first_try_of_the_working_directory_sees_no_descriptor_of_the_host(spawn: Spawn) -> None:
    """CVE-2024-21626: a directory that root enters before the ids change stays entered, so no
    descriptor may be open by then.

    The path goes through a directory that the user may not search; otherwise the second try would
    report that the descriptor is gone.
    """
    private = pathlib.Path(f"/run/pyrunc-test-{os.getpid()}")
    private.mkdir(mode=0o700)
    directory = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(3, 12):
            plan = Plan()
            plan.fd("ns", "", "")
            as_user(plan, 1234, 1234, [], 0)
            plan.chdir("/process/cwd", cwd=f"{private}/../../proc/self/fd/{number}")
            record = fail(spawn(), finish(plan, ["pwd"]), (directory,))
            assert (record.call, record.err) == ("chdir", errno.EACCES)
    finally:
        os.close(directory)
        private.rmdir()


# --- what the caller left on ----------------------------------------------------------------------


def ignore(sig: int, on: bool) -> None:
    """Calls rt_sigaction(2) directly: libc reserves two or three signals."""
    action = (ctypes.c_uint64 * 4)(1 if on else 0, 0, 0, 0)  # SIG_IGN or SIG_DFL, no flags, no mask
    number = 13 if os.uname().machine == "x86_64" else 134
    libc.syscall(number, sig, action, None, 8)


def test_no_signal_stays_ignored_or_blocked(spawn: Spawn) -> None:
    """This includes the signals that libc reserves, and the last one."""
    taken = {sig: signal.getsignal(sig) for sig in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)}
    others = [sig for sig in KERNEL_SIGNALS if sig not in (*taken, signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD)]
    for sig in others:
        ignore(sig, True)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, 64})
    try:
        before = int(status_of(os.getpid())["SigIgn"], 16)
        parent = spawn()
    finally:
        for sig in others:
            ignore(sig, False)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        for sig, handler in taken.items():
            signal.signal(sig, handler)
    plan = Plan()
    plan.sync_ready("(default)")
    assert {sig for sig in KERNEL_SIGNALS if before >> sig - 1 & 1} >= set(others)
    parent.plan(finish(plan, shell("exit 0")))
    parent.expect(handshake.READY)
    status = status_of(parent.pid)
    assert (int(status["SigIgn"], 16), int(status["SigBlk"], 16), int(status["SigCgt"], 16)) == (0, 0, 0)


@contextlib.contextmanager
def ambient(*caps: int) -> Iterator[None]:
    """Capabilities in this thread's inheritable and ambient sets, as a service manager sets
    them."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    before = list(data)
    for cap in caps:
        data[2] |= 1 << cap
    assert libc.capset(header, data) == 0
    for cap in caps:
        assert libc.prctl(47, 2, cap, 0, 0) == 0  # PR_CAP_AMBIENT, RAISE
    try:
        yield
    finally:
        data[:] = before
        libc.capset(header, data)


@needs_root
def test_ambient_capabilities_of_the_caller_do_not_come_along(spawn: Spawn) -> None:
    wanted = 1 << CAP_NET_RAW | 1 << CAP_NET_ADMIN
    with ambient(CAP_NET_RAW, CAP_NET_ADMIN):
        parent = spawn()
        assert int(status_of(parent.pid)["CapAmb"], 16) == wanted
    plan = Plan()
    plan.caps("/process/capabilities", effective=wanted, permitted=wanted, inheritable=wanted, ambient=1 << CAP_NET_RAW)
    plan.sync_ready("(default)")
    parent.plan(plan)
    parent.expect(handshake.READY)
    assert int(status_of(parent.pid)["CapAmb"], 16) == 1 << CAP_NET_RAW


# --- what init believes ---------------------------------------------------------------------------


@pytest.fixture
def behind(init_exe: str, tmp_path: pathlib.Path) -> Iterator[Callable[[str], Parent]]:
    """Start init in a mount namespace that a shell command has prepared."""
    parents = []

    def start(command: str) -> Parent:
        script = tmp_path / "wrap"
        script.write_text(
            f'#!/bin/sh\nexec unshare -m --propagation private sh -c \'{command} && exec "$@"\' sh {init_exe} "$@"\n'
        )
        script.chmod(0o755)
        parents.append(Parent(str(script)))
        return parents[-1]

    yield start
    for parent in parents:
        parent.close()


@needs_root
@pytest.mark.parametrize(
    ("command", "err", "text"),
    [
        ("mount -t tmpfs t /proc", errno.EXDEV, "/proc of the host is not a procfs"),
        ("mount --bind /dev/zero /dev/null", errno.ENODEV, "/dev/null of the host is not the device 1:3"),
        ("mount --bind /etc/passwd /dev/null", errno.ENODEV, "/dev/null of the host is not the device 1:3"),
        ("mount -t tmpfs t /dev", errno.ENOENT, "/dev/null of the host"),
    ],
)
def test_host_without_what_init_relies_on(behind: Callable[[str], Parent], command: str, err: int, text: str) -> None:
    """CVE-2025-52881, CVE-2025-31133: every write below /proc, and every mask, depends on these
    two."""
    record = fail(behind(command), finish(Plan(), ["true"]))
    assert (record.err, record.detail, record.step) == (err, text, 0xFFFFFFFF)


@needs_root
@pytest.mark.parametrize(("before", "home"), [(0, "/found"), (1 << 20, "/")])
def test_passwd_is_read_up_to_a_limit(
    behind: Callable[[str], Parent], tmp_path: pathlib.Path, before: int, home: str
) -> None:
    """The image controls the file; what follows the entry does not matter."""
    text = "#" * before + "\nx:x:54321:0::/found:/bin/sh\n"
    (tmp_path / "passwd").write_text(text.ljust(3 << 20, "#"))
    plan = Plan()
    plan.find_home("/process/user/uid", uid=54321)
    parent = behind(f"mount --bind {tmp_path}/passwd /etc/passwd")
    assert run(parent, finish(plan, ["env"], home=True)) == f"HOME={home}\n"


@needs_root
@pytest.mark.parametrize("kind", ["block", "link"])
def test_host_null_of_another_kind(behind: Callable[[str], Parent], tmp_path: pathlib.Path, kind: str) -> None:
    """The device number is not enough, and a link is not followed."""
    if kind == "block":
        os.mknod(tmp_path / "null", stat.S_IFBLK | 0o666, os.makedev(1, 3))
        command = f"mount --bind {tmp_path}/null /dev/null"
    else:
        command = "mknod /tmp/null$$ c 1 3 && mount -t tmpfs t /dev && mv /tmp/null$$ /dev/real && ln -s real /dev/null"
    assert fail(behind(command), finish(Plan(), ["true"])).err == errno.ENODEV


def test_message_without_descriptors_or_of_another_kind(spawn: Spawn) -> None:
    for data, word in ((handshake.encode(handshake.PLAN, 5), "without"), (handshake.encode(handshake.GO), "other")):
        parent = spawn()
        parent.sock.send(data)
        record = parent.expect(handshake.FAIL)
        assert (record.err, record.call) == (errno.EPROTO, "recvmsg")
        assert word in record.detail


def test_more_descriptors_than_there_are_slots(spawn: Spawn) -> None:
    parent = spawn()
    with open("/dev/null") as null:
        socket.send_fds(parent.sock, [handshake.encode(handshake.PLAN, 5)], [null.fileno()] * 253)
    record = parent.expect(handshake.FAIL)
    assert (record.err, record.detail) == (errno.EMSGSIZE, "more descriptors than a plan may have")


@pytest.mark.parametrize("wrong", ["nfds", "npreserve", "size", "empty", "short"])
def test_plan_for_something_else(spawn: Spawn, wrong: str) -> None:
    plan = finish(Plan(), ["true"])
    if wrong == "nfds":
        plan.fd("ns", "", "")
    plan.npreserve = wrong == "npreserve"
    blob = plan.encode()
    parent = spawn()
    memfd = os.memfd_create("plan")
    os.write(memfd, blob[:-1] if wrong == "short" else blob)
    size = {"size": len(blob) + 1, "empty": 0}.get(wrong, len(blob))
    socket.send_fds(parent.sock, [handshake.encode(handshake.PLAN, size)], [memfd])
    os.close(memfd)
    record = parent.expect(handshake.FAIL)
    assert (record.err, record.call) == (errno.EINVAL, "plan_check")
    text = "number of descriptors" if wrong in ("nfds", "npreserve") else "the announced size"
    assert text in record.detail


@pytest.mark.parametrize("argument", ["", "x", "1x", "1/", ":", "-1", " 1", "99999999999"])
def test_bad_number_of_preserved_descriptors(init_exe: str, argument: str) -> None:
    """Nothing is known then, not even the peer to report to: nothing is written to any descriptor."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    high = fcntl.fcntl(theirs, fcntl.F_DUPFD, 200)
    actions = [(os.POSIX_SPAWN_DUP2, high, fd) for fd in range(3, 100)]  # more than the value of any character
    try:
        pid = os.posix_spawn(init_exe, ["pyrunc-init", argument], {}, file_actions=actions)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
        with pytest.raises(BlockingIOError):
            ours.recv(1)
        pid = os.posix_spawn(init_exe, ["pyrunc-init", "0", "0"], {}, file_actions=actions)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
        with pytest.raises(BlockingIOError):
            ours.recv(1)
    finally:
        os.close(high)
        ours.close()
        theirs.close()
