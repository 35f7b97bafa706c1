"""`pyrunc doctor` agrees with create, changes nothing and is fast."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import resource
import shutil
import struct
import subprocess
import termios
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from integration.config import DELETE
from integration.harness import SLOW, Box, Container, Result

Make = Callable[..., Container]
pytestmark = pytest.mark.pyrunc_only("peers have no such verb")

CPU_SECONDS = 0.5
# System calls that change a filesystem, a mount, a cgroup, a clock, an id or another process.
CHANGES = (
    "mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat creat mknod mknodat"
    " chmod fchmod fchmodat chown fchown lchown fchownat truncate ftruncate utime utimes utimensat setxattr lsetxattr"
    " fsetxattr mount umount2 pivot_root move_mount chroot sethostname setdomainname settimeofday clock_settime reboot"
    " swapon swapoff init_module finit_module delete_module add_key keyctl setns setuid setgid setpriority"
    " sched_setattr prlimit64 setrlimit tkill tgkill open openat bpf"
)
HARMLESS_BPF = ("BPF_PROG_LOAD", "BPF_PROG_QUERY", "BPF_PROG_GET_FD_BY_ID", "BPF_OBJ_GET_INFO_BY_FD")


def doctor(one: Container, *flags: str, wrap: Sequence[str] = ()) -> tuple[Result, dict[str, Any]]:
    """The result and the JSON document; the state root is the box's."""
    one.bundle.save()
    result = one.call("doctor", "--json", *flags, check=False, wrap=wrap)
    document = json.loads(result.out)
    assert (result.rc, result.err) == (int(document["status"] == "problem"), ""), result
    return result, document


def of_bundle(document: dict[str, Any], status: str = "problem") -> list[dict[str, str]]:
    """The findings about the bundle."""
    return [row for row in document["findings"] if row["area"] == "bundle" and row["status"] == status]


def test_a_good_bundle_on_this_host(container: Make) -> None:
    one = container("report")
    result, document = doctor(one, "--bundle", str(one.bundle.path))
    assert of_bundle(document) == []
    one.create()
    problems = [row for row in document["findings"] if row["status"] == "problem"]
    assert result.rc == bool(problems) == (document["status"] == "problem")
    assert {row["area"] for row in document["findings"]} >= {"bundle", "kernel", "cgroups", "users", "privileges"}


BROKEN: list[tuple[str, dict[str, Any], str]] = [  # the fault, edits, the check that finds it
    ("root", {"/root/path": "gone"}, "root"),
    ("program", {"/process/args": ["/gone"]}, "program"),
    ("not a program", {"/process/args": ["/etc/passwd"]}, "program"),
    ("source", {"/mounts/-": {"destination": "/a", "source": "gone", "options": ["bind"]}}, "mounts"),
    ("hook", {"/hooks": {"createRuntime": [{"path": "/gone"}]}}, "hooks"),
    ("files", {"/process/rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1 << 40}]}, "rlimits"),
    ("sysctl", {"/linux/sysctl": {"net.core.gone": "1"}}, "sysctl"),
    ("namespace", {"/linux/namespaces/1": {"type": "network", "path": "/gone"}}, "namespaces"),
    ("device", {"/linux/netDevices": {"gone0": {}}}, "net-devices"),
    ("cwd", {"/process/cwd": DELETE}, "config"),
    ("agent", {"/linux/seccomp": {
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/gone",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    }}, "seccomp"),
]  # fmt: skip


@pytest.mark.parametrize(("edits", "check"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_create_agrees(edits: dict[str, Any], check: str, container: Make) -> None:
    """A problem that doctor reports prevents this bundle from starting, and doctor reports no
    other."""
    one = container("report", edits=edits)
    result, document = doctor(one, "--bundle", str(one.bundle.path))
    assert result.rc == 1 and {row["check"] for row in of_bundle(document)} == {check}
    assert "" not in {row["means"] for row in of_bundle(document)}
    assert one.create(check=False).rc != 0


def test_start_agrees(container: Make) -> None:
    """Faults that only execve(2) finds: a missing interpreter, a file of another type."""
    for content in ("#!/gone\n", "neither\n"):
        one = container("report", edits={"/process/args": ["/program"]})
        (one.bundle.rootfs / "program").write_text(content)
        (one.bundle.rootfs / "program").chmod(0o755)
        _, document = doctor(one, "--bundle", str(one.bundle.path))
        (row,) = of_bundle(document)
        assert row["check"] == "program" and row["means"].startswith("start fails: ")
        one.create()
        assert one.start(check=False).rc != 0


@pytest.mark.root
def test_a_hard_limit_beyond_the_callers(container: Make) -> None:
    """The runtime lacks CAP_SYS_RESOURCE, as on some machines."""
    setpriv = shutil.which("setpriv")
    assert setpriv
    wrap = [setpriv, "--bounding-set=-sys_resource", "prlimit", "--nofile=1000:1000"]
    limit = {"/process/rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 2000}]}
    one = container("report", edits=limit)
    _, document = doctor(one, "--bundle", str(one.bundle.path), wrap=wrap)
    (row,) = of_bundle(document)
    assert row["seen"].startswith("/process/rlimits/0: RLIMIT_NOFILE 2000, the caller's hard limit is 1000")
    failed = one.create(check=False, wrap=wrap)
    assert failed.rc == 1 and "/process/rlimits/0" in failed.err


def snapshot(box: Box) -> dict[str, Any]:
    """Everything that doctor might change: the box's files, mounts, this test's cgroups, children,
    limits and ids."""
    files = {}
    for at, directories, names in os.walk(box.path):
        for name in [*directories, *names]:
            found = os.lstat(f"{at}/{name}")
            files[f"{at}/{name}"] = (found.st_mode, found.st_uid, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    unified = next(
        line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line
    )
    return {
        "files": files,
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "cgroups": sorted(name for name in os.listdir(unified) if name.startswith(box.prefix)),
        "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text(),
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")},
    }


def test_nothing_is_touched(container: Make, box: Box) -> None:
    """A running, a stopped and a damaged container, and a bundle to check."""
    running, stopped, damaged = (container("sleep", "30000") for _ in range(3))
    for one in (running, stopped, damaged):
        one.create()
        one.start()
    stopped.kill("KILL")
    stopped.wait_status("stopped")
    file = Path(box.root, damaged.id, "state.json")
    kept = file.read_bytes()
    file.write_bytes(b"{")
    try:
        before = snapshot(box)
        result = running.call("doctor", "--json", "--bundle", str(running.bundle.path), check=False)
        assert snapshot(box) == before
    finally:
        file.write_bytes(kept)
    document = json.loads(result.out)
    found = {row["seen"].split()[0]: row for row in document["findings"] if row["area"] == "leftovers"}
    assert f"{stopped.id} is stopped" in {row["seen"] for row in found.values()}
    assert any(damaged.id in row["seen"] and row["status"] == "problem" for row in document["findings"])
    assert not any(f"{running.id} " in row["seen"] for row in found.values())


@pytest.mark.needs_program("strace")
def test_no_system_call_changes_anything(container: Make, box: Box, tmp_path: Path) -> None:
    """Doctor opens files for reading, except for namespaces of its children; it creates, removes
    and changes nothing."""
    one = container("report")
    one.bundle.save()
    trace = tmp_path / "trace"
    wrap = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=?" + ",?".join(CHANGES.split())]
    result = box.runtime.call("doctor", "--bundle", str(one.bundle.path), wrap=wrap)
    assert result.rc == (" 0 problems" not in result.out.splitlines()[-1])
    if not trace.exists() or "openat(" not in trace.read_text():
        pytest.skip("strace cannot trace here")
    calls = re.findall(r"^\d+ +(\w+)\((.*)$", trace.read_text(), re.M)
    assert len(calls) > 100
    assert [call for call in calls if not harmless(*call)] == []


def harmless(name: str, rest: str) -> bool:
    """Whether a call only reads, or affects only the calling process."""
    if name in ("open", "openat"):
        if re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", rest):
            return bool(re.search(r'"/proc/\d+/(uid_map|gid_map|setgroups)"|"/dev/null"', rest))
        return True
    if name == "bpf":
        return rest.startswith(HARMLESS_BPF)
    if name in ("prlimit64", "setrlimit"):  # a read, or a limit that the sandboxed profile compiler sets for itself
        return rest.startswith("0, ") or name == "setrlimit"
    return False


def test_it_is_quick(container: Make, box: Box) -> None:
    """Measure processor time, which other work on the machine does not change."""
    one = container("report")
    one.bundle.save()
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        box.runtime.call("doctor", "--bundle", str(one.bundle.path))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < CPU_SECONDS * SLOW, times


@pytest.mark.root
def test_as_another_user(container: Make, box: Box) -> None:
    """A user without a state root, privileges and perhaps subordinate ids gets a complete
    answer."""
    one = container("report")
    one.bundle.save()
    for parent in Path(os.path.realpath(box.runtime.path)).parents:
        if not parent.stat().st_mode & 0o005:
            pytest.skip(f"{parent} is closed to other users")
    wrap = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    command = [*wrap, box.runtime.path, "doctor", "--json", "--bundle", str(one.bundle.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20 * SLOW, env={}, cwd="/")
    assert done.returncode == 1 and done.stderr == ""
    rows = {(row["area"], row["check"]): row for row in json.loads(done.stdout)["findings"]}
    assert rows["storage", "state-root"]["mend"] == "export XDG_RUNTIME_DIR=/run/user/$(id -u)"
    assert rows["bundle", "namespaces"]["status"] == "problem"


def test_width_and_colour(box: Box) -> None:
    """Doctor prints colors on a terminal, but not to a pipe or with NO_COLOR."""
    for extra, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        env = {"PATH": "/usr/bin:/bin", "TERM": "xterm", **extra}
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
        child = subprocess.Popen([*box.runtime.argv("doctor")], stdout=slave, stdin=slave, stderr=slave, env=env)
        os.close(slave)
        text = b""
        try:
            while data := os.read(master, 65536):
                text += data
        except OSError:  # EIO: the other end is closed
            pass
        os.close(master)
        assert (b"\33[" in text) == coloured
        lines = re.sub("\33\\[\\d*m", "", text.decode(errors="replace")).splitlines()
        assert child.wait(20 * SLOW) == (" 0 problems" not in lines[-1])
        assert max(len(line) for line in lines if "->" not in line) <= 60
    assert "\33" not in box.runtime.call("doctor").out
