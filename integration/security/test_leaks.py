"""What a container could obtain: our program, descriptors, the caller's terminal, files in shared
directories (T01-T03, T23, T26, T28, T37)."""

from __future__ import annotations

import fcntl
import os
import platform
import pty
import re
import socket
import stat
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.harness import TIMEOUT, Box, Container, Holder, errno_of, wait_until
from integration.security.support import ROUNDS, Make, Refused, Trace

SEALS = {"seal": 0x1, "shrink": 0x2, "grow": 0x4, "write": 0x8}  # linux/fcntl.h, F_SEAL_*
F_GET_SEALS = 1034
IOCTL = {"x86_64": "16", "aarch64": "29"}.get(platform.machine(), "")
TIOCSTI = "0x5412"


# --- T01 ------------------------------------------------------------------------------------------


def check_exe(pid: int) -> None:
    """CVE-2019-5736: the container can open the target of /proc/PID/exe, so it must not be a file
    of the host."""
    exe = f"/proc/{pid}/exe"
    target = os.readlink(exe)
    assert not os.path.exists(target), f"a file of the host: {target}"
    with pytest.raises(OSError):
        os.close(os.open(exe, os.O_WRONLY))
    fd = os.open(exe, os.O_RDONLY)
    try:
        seals = fcntl.fcntl(fd, F_GET_SEALS)  # EINVAL if it is not a memfd
    finally:
        os.close(fd)
    missing = [name for name, bit in SEALS.items() if not seals & bit]
    assert not missing, f"not sealed against {missing}"


@pytest.mark.row("T01")
@pytest.mark.pyrunc_only("runc 1.1.5's is a file of a detached mount, without seals")
def test_program_that_waits_is_a_sealed_copy(container: Make) -> None:
    one = container("exit", "0")
    one.create()
    check_exe(one.pid)


# A pid namespace has its own setting, and its processes end with it.
NO_MEMFD = 'echo 2 >/proc/sys/vm/memfd_noexec && exec "$@"'
OPEN_EXE = """
set -e; bundle=$1 id=$2; shift 2
echo 2 >/proc/sys/vm/memfd_noexec
"$@" create --bundle $bundle --pid-file $bundle/pid $id </dev/null >/dev/null 2>&1
pid=$(cat $bundle/pid)
readlink /proc/$pid/exe
exec 7</proc/$pid/exe
"$@" delete --force $id
if (: >>/proc/self/fd/7) 2>&1; then echo written; fi
"""


@pytest.mark.row("T01")
@pytest.mark.needs_kernel(6, 3)
def test_where_no_memfd_can_be_executed(container: Make) -> None:
    """vm.memfd_noexec=2: the waiting process executes a file that is read-only for everyone."""
    own_pids = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "/bin/sh", "-c"]
    one = container("report")
    assert one.run(wrap=[*own_pids, NO_MEMFD, "sh"]).report["pid"] == 1
    box = one.box
    argv = [*own_pids, OPEN_EXE, "sh", str(one.bundle.path), one.id, *box.runtime.argv("--root", str(box.root))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    exe, said = done.stdout.splitlines()
    assert done.returncode == 0 and "Read-only file system" in said, done
    assert not Path(exe.removesuffix(" (deleted)")).is_file()


@pytest.mark.row("T01")
@pytest.mark.parametrize("path", ["/proc/self/exe", "/proc/1/exe", "/link"])
@pytest.mark.parametrize("arguments", [[], ["0"]])
def test_container_cannot_run_our_program(container: Make, refused: Refused, path: str, arguments: list[str]) -> None:
    """CVE-2019-5736 again: the image's program is a link to the running executable."""
    one = container(edits={"/process/args": [path, *arguments]})
    (one.bundle.rootfs / "link").symlink_to("/proc/self/exe")
    result = one.create(check=False)
    if one.box.runtime.is_pyrunc:
        refused(result, "/process/args/0", "permission denied")
    elif result.rc == 0:
        one.start(check=False)
        assert one.out == ""


# --- T02, T26 -------------------------------------------------------------------------------------


def _joining(container: Make, holder: Callable[..., Holder], *kinds: str) -> Container:
    """A container that joins namespaces; the joining process runs the same program as `exec`."""
    held = holder(*kinds)
    one = container("report")
    for entry in one.bundle.config["linux"]["namespaces"]:
        if entry["type"] in kinds:
            entry["path"] = held.path(entry["type"])
    return one


@pytest.mark.row("T02")
@pytest.mark.needs_program("strace")
@pytest.mark.pyrunc_only("about the order of pyrunc's own calls")
def test_not_dumpable_before_the_first_namespace_is_joined(
    container: Make, box: Box, holder: Callable[..., Holder]
) -> None:
    """CVE-2016-9962: processes already in the namespace could ptrace us from the first moment."""
    one = _joining(container, holder, "pid", "ipc", "network")
    trace = Trace(box, "prctl,setns")
    one.run(wrap=trace.wrap)
    # The mount namespace is our own: joining it leaves a chroot.
    joins = [index for index, line in enumerate(trace.lines) if " setns(" in line and "CLONE_NEWNS" not in line]
    guards = [index for index, line in enumerate(trace.lines) if "PR_SET_DUMPABLE, SUID_DUMP_DISABLE" in line]
    assert len(joins) == 3, trace.lines
    assert guards and guards[0] < joins[0], trace.lines
    assert not [line for line in trace.lines[joins[0] :] if "PR_SET_DUMPABLE, SUID_DUMP_USER" in line]


@pytest.mark.row("T02")
@pytest.mark.pyrunc_only("looks for pyrunc's own process")
def test_nothing_of_a_joining_process_can_be_read(container: Make, box: Box) -> None:
    """The same from the other side: root of a container inspects all processes while others join
    its pid namespace."""
    watcher = container("watch", "8")
    watcher.create()
    path = f"/proc/{watcher.pid}/ns/pid"
    watcher.start()
    for _ in range(15 * ROUNDS):
        one = container("exit", "0")
        one.bundle.config["linux"]["namespaces"][0]["path"] = path
        if one.create(check=False).rc == 0:  # fails if the watcher has exited, and the namespace with it
            one.delete("--force")
            os.waitpid(one.pid, 0)  # a pid namespace ends only after its zombies are reaped, and these are ours
    watcher.wait(30)
    (seen,) = watcher.objects
    assert seen["looks"] > 10, "the watcher never met one of our processes"
    assert seen["seen"] == 0, seen["found"]


@pytest.mark.row("T26")
def test_nothing_opened_before_joining_stays_open(container: Make, box: Box, holder: Callable[..., Holder]) -> None:
    """CVE-2016-8649: the process inside inherited the host's procfs, opened before setns."""
    one = _joining(container, holder, "ipc", "network", "uts")
    one.create()
    directory = Path(f"/proc/{one.pid}/fd")
    links = {int(path.name): os.readlink(path) for path in directory.iterdir()}
    strange = [target for number, target in links.items() if stat.S_ISDIR((directory / str(number)).stat().st_mode)]
    assert not strange, f"directories are open: {strange}"
    one.start()
    one.wait()
    assert set(one.report["fds"]) == {"0", "1", "2"}


# --- T03 ------------------------------------------------------------------------------------------

# Descriptors 3 to 12 without close-on-exec, of directories and a file of the host.
OPEN_HOST = 'exec 3</etc 4</ 5</sys/fs/cgroup 6</root 7</etc 8</etc/passwd 9</proc && exec "$@"'
INHERIT = ["/bin/bash", "-c", OPEN_HOST, "bash"]


def _outside(one: Container) -> bool:
    """Whether the program's working directory is outside its own tree: it finds the host's
    /etc/hostname."""
    seen = one.objects
    return any(item["errno"] == 0 for item in seen if item["action"] == "stat")


@pytest.mark.row("T03")
@pytest.mark.parametrize("how", ["/proc/self/fd/{}", "/proc/thread-self/fd/{}", "/link{}"])
def test_working_directory_is_never_a_leaked_descriptor(container: Make, how: str) -> None:
    """CVE-2024-21626: `cwd` named a descriptor of the runtime, and so a directory of the host."""
    for number in range(3, 13):
        one = container("stat", "./hostname", "--", "stat", "./etc/hostname", "--", "stat", "./cgroup.procs")
        one.bundle.config["process"]["cwd"] = how.format(number)
        (one.bundle.rootfs / f"link{number}").symlink_to(f"/proc/self/fd/{number}")
        result = one.run(wrap=INHERIT, check=False)
        assert result.rc != 0 or not _outside(one), f"descriptor {number}: {result!r}"
        assert not [item for item in result.objects if item["errno"] == 0], f"descriptor {number}: {result!r}"


@pytest.mark.row("T03")
@pytest.mark.pyrunc_only("runc 1.1.5 does not look where it is after chdir")
def test_working_directory_outside_is_refused(container: Make, refused: Refused) -> None:
    """Even if the caller passes it on purpose: the kernel reports it as "(unreachable)", which is
    checked."""
    one = container(edits={"/process/cwd": "/proc/self/fd/3"})
    refused(one.create("--preserve-fds", "1", wrap=INHERIT, check=False), "/process/cwd")


@pytest.mark.row("T03")
def test_nothing_of_the_caller_is_open_while_created(container: Make) -> None:
    """crun keeps descriptors 7 and 8 open until start."""
    one = container("report")
    one.create(wrap=INHERIT)
    links = [os.readlink(path) for path in Path(f"/proc/{one.pid}/fd").iterdir() if int(path.name) > 2]
    host = [target for target in links if target.startswith(("/etc", "/sys", "/root", "/proc")) or target == "/"]
    assert not host, links
    one.start()
    one.wait()
    assert set(one.report["fds"]) == {"0", "1", "2"}


# --- T23 ------------------------------------------------------------------------------------------


@pytest.mark.row("T23")
@pytest.mark.needs_program("strace")
def test_no_abstract_socket(container: Make, box: Box) -> None:
    """CVE-2020-15257: an abstract socket has no permissions, and is reachable from a container on
    the host's network."""
    one = container("exit", "0", edits={"/process/terminal": True})
    servers = []
    for name in ("console", "pidfd"):
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(box.path / name))
        server.listen()
        servers.append(server)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(box.path / "notify"))
    flags = ["--console-socket", str(box.path / "console")]
    if box.runtime.is_pyrunc:
        flags += ["--pidfd-socket", str(box.path / "pidfd")]
    trace = Trace(box, "bind,connect,sendto,sendmsg")
    env = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(box.path / "notify")}
    one.create(*flags, wrap=trace.wrap, env=env)
    lines = trace.lines
    for server in (*servers, notify):
        server.close()
    assert [line for line in lines if str(box.path) in line], f"nothing was traced: {lines}"
    assert not [line for line in lines if re.search(r"sun_path=@", line)]


# --- T28 ------------------------------------------------------------------------------------------


@pytest.mark.row("T28")
@pytest.mark.skipif(not IOCTL, reason="the number of ioctl(2) is not known for this machine")
@pytest.mark.parametrize("verb", ["create", "run"])
def test_the_callers_terminal_is_not_the_containers(container: Make, box: Box, verb: str) -> None:
    """CVE-2017-5226, CVE-2016-10124: TIOCSTI on an inherited terminal types into the caller's
    shell.

    `create` passes the caller's stdio on; `run` in the foreground replaces it by a pipe, which is
    not a terminal.
    """
    master, slave = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    try:
        one = container("report", "--", "syscall", IOCTL, "0", TIOCSTI, ":x")
        result: Any = one
        if verb == "create":
            one.create(stdin=slave, preexec=own_terminal)
            one.start()
            one.wait()
        else:
            result = one.run(stdin=slave, preexec=own_terminal)
        seen = result.report
        assert seen["sid"] == seen["pid"], "the session is the caller's"
        assert seen["stat"].rpartition(")")[2].split()[4] == "0", "it has a controlling terminal"
        (typed,) = [item for item in result.objects if item["action"] == "syscall"]
        assert errno_of(typed) in (("EPERM", "EIO") if verb == "create" else ("ENOTTY",)), typed
        os.set_blocking(slave, False)
        with pytest.raises(BlockingIOError):
            os.read(slave, 10)
    finally:
        os.close(slave)
        os.close(master)


# --- T37 ------------------------------------------------------------------------------------------

SHARED = ("/tmp/", "/var/tmp/", "/dev/shm/")
MAKING = "openat,open,creat,mkdir,mkdirat,mknod,mknodat,symlink,symlinkat,link,linkat,rename,renameat,renameat2,bind"


@pytest.mark.row("T37")
@pytest.mark.needs_program("strace")
def test_nothing_is_created_in_shared_directories(container: Make, box: Box) -> None:
    """CVE-2019-12439: a predictable name in /tmp belongs to the user who creates it first."""
    one = container("exit", "0", edits={"/mounts/-": {"destination": "/up", "type": "tmpfs", "options": ["tmpcopyup"]}})
    (one.bundle.rootfs / "up").mkdir()
    (one.bundle.rootfs / "up/file").write_text("x")
    one.bundle.save()
    env = {"PATH": os.environ["PATH"], "TMPDIR": str(box.path / "elsewhere")}
    made = []
    traced = 0
    for verb in ("create", "start", "state", "list", "delete"):
        trace = Trace(box, MAKING)
        own = ["--bundle", str(one.bundle.path), one.id] if verb == "create" else [] if verb == "list" else [one.id]
        one.call(verb, *own, wrap=trace.wrap, env=env)
        if verb == "start":
            wait_until(lambda: one.status == "stopped", "the program's end")
        for line in trace.lines:
            traced += 1
            paths = re.findall(r'"(/[^"]*)"', line)
            makes = " open" not in line or "O_CREAT" in line or "O_TMPFILE" in line
            made += [line for path in paths if makes and path.startswith(SHARED) and not path.startswith(str(box.path))]
    assert traced > 20
    assert not made
    assert not (box.path / "elsewhere").exists()
