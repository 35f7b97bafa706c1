"""`exec`: a process of ours enters a container whose processes may already be hostile (T01-T03,
T13-T15, T24, T26, T31)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from integration.harness import Box, Container
from integration.machine import CAP_BIT
from integration.security.support import ROUNDS, Make, Trace, bind
from integration.security.test_leaks import INHERIT, check_exe
from integration.test_exec import run, started


@pytest.fixture
def running(container: Make) -> Container:
    return started(container)


@pytest.mark.row("T01")
@pytest.mark.pyrunc_only("runc 1.1.5's is a file of a detached mount, without seals")
def test_entering_process_is_a_sealed_copy(running: Container, box: Box) -> None:
    """CVE-2019-5736: check the executable of an `exec`ed process while it is still ours."""
    argv = box.runtime.argv("--root", str(box.root), "exec", running.id, "/probe", "say", "x")
    seen = 0
    for _ in range(20 * ROUNDS):
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        while child.poll() is None:
            for pid in children.read_text().split():
                seen += _looked_at(int(pid))
        if seen:
            break
    assert seen, "never met"


def _looked_at(pid: int) -> bool:
    """Check a child of the runtime, unless it has executed another program."""
    try:
        if not os.readlink(f"/proc/{pid}/exe").startswith("/memfd:pyrunc-init"):
            return False
        check_exe(pid)
    except OSError:
        return False
    return True


@pytest.mark.row("T01")
@pytest.mark.parametrize("path", ["/proc/self/exe", "/link"])
def test_exec_of_our_own_program(container: Make, path: str) -> None:
    one = container("sleep", "600")
    (one.bundle.rootfs / "link").symlink_to("/proc/self/exe")
    one.create()
    one.start()
    result = run(one, path, check=False)
    assert result.rc != 0 and not result.out
    assert not one.box.runtime.is_pyrunc or "permission denied" in result.err


@pytest.mark.row("T01")
def test_exec_of_the_first_process_is_the_containers_program(running: Container) -> None:
    """It never executes the runtime that started the container."""
    result = run(running, "/proc/1/exe", "read", "/proc/self/comm")
    (comm,) = result.objects
    assert comm["text"] == "exe\n"
    sums = run(running, "/bin/sh", "-c", "wc -c </proc/1/exe; wc -c </probe").out.split()
    assert sums[0] == sums[1]


@pytest.mark.row("T02")
@pytest.mark.row("T24")
@pytest.mark.needs_program("strace")
@pytest.mark.pyrunc_only("about the order of pyrunc's own calls")
def test_order_of_entering(running: Container, box: Box) -> None:
    """The process is not dumpable, and the host's procfs is open, before it joins the first
    namespace."""
    trace = Trace(box, "prctl,setns,open,openat")
    run(running, "/probe", "say", "x", wrap=tuple(trace.wrap))
    lines = trace.lines
    joins = [index for index, line in enumerate(lines) if " setns(" in line]
    guards = [index for index, line in enumerate(lines) if "PR_SET_DUMPABLE, SUID_DUMP_DISABLE" in line]
    procs = [index for index, line in enumerate(lines) if re.search(r'"/proc", O_.*PATH', line)]
    assert len(joins) >= 5
    assert guards and guards[0] < joins[0], lines
    assert procs and max(procs) < joins[0], lines


@pytest.mark.row("T02")
@pytest.mark.needs_program("strace")
@pytest.mark.pyrunc_only("about the order of pyrunc's own calls")
@pytest.mark.parametrize("userns", [False, True], ids=["host-ids", "user-namespace"])
def test_not_dumpable_again_after_each_change_of_ids(container: Make, box: Box, userns: bool) -> None:
    """A change of ids sets dumpable to fs.suid_dumpable, and 1 exposes us to every process with the
    same ids."""
    edits: dict[str, Any] = {"/process/user": {"uid": 1000, "gid": 1000}}
    if userns:
        maps = [{"containerID": 0, "hostID": 200000, "size": 2000}]
        edits |= {"/linux/namespaces/-": {"type": "user"}, "/linux/uidMappings": maps, "/linux/gidMappings": maps}
    one = started(container, edits=edits)
    trace = Trace(box, "prctl,setresuid,clone,clone3,execve")
    run(one, "/probe", "say", "x", wrap=tuple(trace.wrap))
    changes = [index for index, line in enumerate(trace.lines) if " setresuid(" in line]
    assert len(changes) == 1 + userns
    for index in changes:
        pid = trace.lines[index].split()[0]
        following = next(line for line in trace.lines[index + 1 :] if line.startswith(f"{pid} "))
        assert "PR_SET_DUMPABLE, SUID_DUMP_DISABLE" in following, trace.lines[index : index + 4]


@pytest.mark.row("T02")
@pytest.mark.row("T26")
@pytest.mark.pyrunc_only("looks for pyrunc's own process")
def test_nothing_of_an_entering_process_can_be_read(container: Make, box: Box) -> None:
    """CVE-2016-9962: root of the container inspects all processes while others enter."""
    watcher = container("watch", "6")
    watcher.create()
    watcher.start()
    for _ in range(40 * ROUNDS):
        if run(watcher, "/probe", "say", "x", check=False).rc != 0:
            break  # the watcher has exited
    watcher.wait(30)
    (seen,) = watcher.objects
    assert seen["looks"] > 10, "the watcher never met one of our processes"
    assert seen["seen"] == 0, seen["found"]


@pytest.mark.row("T03")
@pytest.mark.parametrize("preserved", [0, 5])
def test_working_directory_is_never_a_leaked_descriptor(container: Make, preserved: int) -> None:
    """CVE-2024-21626 for `exec --cwd`; with --preserve-fds the caller even passes the host's
    directories on purpose."""
    one = container("sleep", "600")
    for number in range(3, 13):
        (one.bundle.rootfs / f"link{number}").symlink_to(f"/proc/self/fd/{number}")
    one.create()
    one.start()
    for number in range(3, 13):
        for place in (f"/proc/self/fd/{number}", f"/link{number}", f"/proc/self/fd/{number}/.."):
            actions = ("stat", "./hostname", "--", "stat", "./etc/hostname", "--", "stat", "./cgroup.procs")
            flags = ("--cwd", place, *(("--preserve-fds", str(preserved)) if preserved else ()))
            result = run(one, "/probe", *actions, flags=flags, wrap=tuple(INHERIT), check=False)
            if result.rc == 0:
                assert not [item for item in result.objects if item["errno"] == 0], f"{place}: {result!r}"
            elif one.box.runtime.is_pyrunc:
                assert len(result.err.splitlines()) == 1 and "Traceback" not in result.err, result


@pytest.mark.row("T13")
@pytest.mark.parametrize("user", [(), ("--user", "1000")], ids=["root", "1000"])
def test_added_capability_is_not_inheritable(running: Container, user: tuple[str, ...]) -> None:
    caps = run(running, "/probe", "report", flags=("--cap", "CAP_NET_RAW", *user)).report["caps"]
    assert (caps["inheritable"], caps["ambient"]) == (0, 0)
    assert caps["bounding"] & CAP_BIT["CAP_NET_RAW"]


@pytest.mark.row("T14")
def test_user_is_a_number(running: Container) -> None:
    passwd = running.bundle.rootfs / "etc/passwd"
    passwd.unlink()
    passwd.write_text("1000:x:0:0:root:/evil:/bin/sh\n1000:0:x:0:0::/evil:/bin/sh\n")
    seen = run(running, "/probe", "report", flags=("--user", "1000")).report
    assert seen["uid"] == [1000] * 3
    assert seen["gid"] == [0] * 3  # --user without a gid keeps the container's
    assert "HOME=/evil" not in seen["env"]


USERS = [
    ("1", [1, 0]), ("1:2", [1, 2]), ("0", [0, 0]), ("65534:65534", [65534, 65534]), ("4294967294", [4294967294, 0]),
    *[(text, None) for text in (
        "1:", ":1", ":", "+1", " 1", "1 ", "-1", "4294967295", "4294967296", "8589934592", "18446744073709551616",
        "root", "", "1e3", "0x1", "1.0", "1:2:3", "1:-1", "1:4294967295", "1:root", "\u0661", "1\n", "1,2",
    )],
]  # fmt: skip


@pytest.mark.row("T15")
@pytest.mark.parametrize(("text", "ids"), USERS, ids=[repr(text) for text, _ in USERS])
def test_user_option(running: Container, text: str, ids: list[int] | None) -> None:
    """CVE-2026-30892: `-u 1` became 0. runc 1.1.5 parses "" and 4294967296 as 0, and crun 1.27 parses
    -1 as 0."""
    if not running.box.runtime.is_pyrunc and (ids is None or ids[0] > 2**31):
        pytest.skip("runc 1.1.5 takes it")
    result = run(running, "/probe", "report", flags=("--user", text), check=False)
    if ids is None:
        assert result.rc == 255 and not result.out, result
        assert "user" in result.err and len(result.err.splitlines()) == 1, result
    else:
        seen = result.report
        assert (seen["uid"], seen["gid"]) == ([ids[0]] * 3, [ids[1]] * 3)


@pytest.mark.row("T15")
@pytest.mark.pyrunc_only("runc 1.1.5 reads it with strconv")
def test_leading_zeros_are_not_octal(running: Container) -> None:
    result = run(running, "/probe", "report", flags=("--user", "010"), check=False)
    assert result.rc == 255 or result.report["uid"] == [10] * 3


@pytest.mark.row("T24")
@pytest.mark.parametrize("flag", ["--apparmor", "--process-label"])
def test_label_with_a_fake_procfs(container: Make, box: Box, flag: str) -> None:
    """CVE-2015-1334: the container's /proc is a tmpfs that accepts every write; the label is
    applied or refused."""
    if not box.runtime.is_pyrunc:
        pytest.skip("runc 1.1.5 ignores labels where the module is not enabled")
    fake = box.path / "fake"
    for name in ("self/attr/apparmor", "thread-self/attr/apparmor", "1/attr"):
        (fake / name).mkdir(parents=True)
    for name in ("self/attr/exec", "thread-self/attr/exec", "thread-self/attr/apparmor/exec", "1/attr/exec"):
        (fake / name).write_text("untouched")
    one = container("sleep", "600", edits={"/linux/maskedPaths": [], "/linux/readonlyPaths": []})
    one.bundle.config["mounts"] = [m for m in one.bundle.config["mounts"] if m["destination"] != "/proc"]
    one.bundle.config["mounts"].append(bind("/fake", fake))
    (one.bundle.rootfs / "proc").rmdir()
    (one.bundle.rootfs / "proc").symlink_to("/fake")
    one.create()
    one.start()
    result = run(one, "/probe", "say", "x", flags=(flag, "some_label"), check=False)
    assert result.rc == 255 and not result.out, result
    assert {path.read_text() for path in fake.rglob("exec")} == {"untouched"}


@pytest.mark.row("T31")
@pytest.mark.parametrize("path", ["../..", "..", "/..", "a/../..", "/../..", "a/.."])
def test_cgroup_option_never_climbs(running: Container, path: str) -> None:
    result = run(running, "/probe", "report", flags=("--cgroup", path), check=False)
    if running.box.runtime.is_pyrunc:
        assert result.rc == 255 and not result.out, result
        assert 'bad sub cgroup path: expected one without ".."' in result.err, result
    elif result.rc == 0:  # if it is the container's own cgroup
        assert running.cgroup.name in result.report["cgroup"] or "0::/\n" in result.report["cgroup"]


@pytest.mark.row("T26")
def test_no_descriptor_of_entering_stays(running: Container) -> None:
    seen = run(running, "/probe", "report", wrap=tuple(INHERIT)).report
    assert set(seen["fds"]) == {"0", "1", "2"}
