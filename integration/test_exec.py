"""`exec`: the properties of an additional process, the ways to request it, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.config import DEFAULT_CAPS, DELETE, PATH_ENV
from integration.harness import Box, Container, Result, parse_objects, wait_until
from integration.machine import CAP_BIT, own_bounding_caps
from integration.test_fds import LISTEN, passing
from integration.test_seccomp import Agent, agent, call, profile, rule

__all__ = ["agent"]  # a fixture

Make = Callable[..., Container]
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")


def started(container: Make, *, edits: dict[str, Any] | None = None) -> Container:
    """A container whose first process sleeps."""
    one = container("sleep", "600", edits=edits)
    one.create()
    one.start()
    return one


def run(one: Container, *args: str, flags: tuple[str, ...] = (), check: bool = True, **more: Any) -> Result:
    return one.call("exec", *flags, one.id, *args, check=check, **more)


def process_file(one: Container, **changes: Any) -> str:
    """A process.json as engines write it: the complete process of config.json with changes."""
    process = {**one.bundle.config["process"], "args": ["/probe", "report"], **changes}
    path = one.box.path / "process.json"
    path.write_text(json.dumps({key: value for key, value in process.items() if value is not DELETE}))
    return str(path)


def status_field(report: dict[str, Any], name: str) -> str:
    for line in report["status"].splitlines() if isinstance(report["status"], str) else report["status"]:
        if line.startswith(name + ":"):
            return str(line.split(":", 1)[1].strip())
    raise AssertionError(f"no {name} in {report['status']}")


# --- what it gets ---------------------------------------------------------------------------------


def test_it_is_in_the_container(container: Make) -> None:
    one = started(container)
    seen = run(one, "/probe", "report").report
    init = {kind: os.readlink(f"/proc/{one.pid}/ns/{kind}") for kind in NAMESPACES}
    assert {kind: seen["ns"][kind] for kind in NAMESPACES} == init
    assert seen["pid"] > 1
    assert seen["sid"] == seen["pid"], "a session of its own"
    assert seen["cwd"] == "/"
    assert set(seen["fds"]) == {"0", "1", "2"}
    assert seen["umask"] == 0o022
    assert seen["groups"] == []


def test_it_is_in_the_containers_cgroup(container: Make) -> None:
    one = started(container)
    pid = detached(one, "/probe", "sleep", "600")
    mine = [line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::")]
    init = [line for line in Path(f"/proc/{one.pid}/cgroup").read_text().splitlines() if line.startswith("0::")]
    assert mine == init
    assert str(pid) in (one.cgroup / "cgroup.procs").read_text().split()
    end(pid)


def detached(one: Container, *args: str, flags: tuple[str, ...] = ()) -> int:
    """The host pid of a detached process."""
    path = one.box.path / "exec.pid"
    path.unlink(missing_ok=True)
    run(one, *args, flags=("--detach", "--pid-file", str(path), *flags), out=one.out_file, err=one.err_file)
    text = path.read_text()
    assert text.isdigit(), f"digits only, no newline: {text!r}"
    return int(text)


def end(pid: int) -> None:
    """Kill and reap a detached process, as a shim does; the container's pid namespace cannot end
    before that."""
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("nnp", [True, False])
def test_the_containers_confinement(container: Make, nnp: bool) -> None:
    edits = {
        **profile(rule("getpriority", errnoRet=38)),
        "/process/noNewPrivileges": nnp,
        "/process/user": {"uid": 1000, "gid": 1001, "additionalGids": [5, 6]},
        "/process/rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}],
        "/process/oomScoreAdj": 321,
        "/process/env": [PATH_ENV, "A=1"],
        "/process/cwd": "/tmp",
    }
    one = started(container, edits=edits)
    seen = run(one, "/probe", "report").report
    assert status_field(seen, "Seccomp") == "2"
    assert status_field(seen, "NoNewPrivs") == str(int(nnp))
    assert (seen["uid"], seen["gid"], sorted(seen["groups"])) == ([1000] * 3, [1001] * 3, [5, 6])
    assert seen["rlimits"]["RLIMIT_NOFILE"] == [100, 200]
    assert int(seen["oom_score_adj"]) == 321
    assert {"A=1", PATH_ENV, "HOME=/home/user"} <= set(seen["env"])
    assert seen["cwd"] == "/tmp"
    first = parse_objects(run(one, "/probe", *call("getpriority")).out)
    assert first[0]["errno"] == 38


@pytest.mark.pyrunc_only("runc 1.1.5 leaves the caller's")
def test_umask_is_the_containers(container: Make) -> None:
    one = started(container, edits={"/process/user/umask": 0o27})
    assert run(one, "/probe", "report").report["umask"] == 0o27


def test_capabilities_are_the_containers(container: Make) -> None:
    one = started(container)
    seen = run(one, "/probe", "report").report
    want = sum(CAP_BIT[name] for name in one.bundle.config["process"]["capabilities"]["effective"])
    assert int(status_field(seen, "CapEff"), 16) == want
    assert int(status_field(seen, "CapBnd"), 16) == want
    assert int(status_field(seen, "CapInh"), 16) == 0


def test_cap_is_not_inheritable(container: Make) -> None:
    """CVE-2022-29162."""
    one = started(container)
    seen = run(one, "/probe", "report", flags=("--cap", "CAP_NET_RAW")).report
    for kind, want in (("CapEff", 1), ("CapPrm", 1), ("CapBnd", 1), ("CapInh", 0), ("CapAmb", 0)):
        assert bool(int(status_field(seen, kind), 16) & CAP_BIT["CAP_NET_RAW"]) == bool(want), kind


def test_host_namespaces(container: Make) -> None:
    """Without its own pid, network ... namespaces the container shares the caller's, and so does
    the process."""
    one = started(container, edits={"/linux/namespaces": [{"type": "mount"}], "/hostname": DELETE})
    seen = run(one, "/probe", "report").report
    for kind in ("pid", "net", "ipc", "uts", "cgroup"):
        assert seen["ns"][kind] == os.readlink(f"/proc/self/ns/{kind}")
    assert seen["ns"]["mnt"] == os.readlink(f"/proc/{one.pid}/ns/mnt")


@pytest.mark.pyrunc_only("runc leaves the process in the caller's root then")
def test_no_mount_namespace(container: Make) -> None:
    edits = {"/linux/namespaces": [{"type": "pid"}], "/hostname": DELETE, "/mounts": []}
    edits |= {"/linux/maskedPaths": DELETE, "/linux/readonlyPaths": DELETE}
    one = started(container, edits=edits)
    result = run(one, "/probe", "stat", "/probe")
    assert result.objects[0]["ino"] == os.stat(one.bundle.rootfs / "probe").st_ino


def test_created_container(container: Make) -> None:
    """`exec` works before `start`: engines prepare containers this way."""
    one = container("sleep", "600")
    one.create()
    assert run(one, "/probe", "say", "early").out == "early\n"
    assert one.status == "created"


# --- how it ends ----------------------------------------------------------------------------------


def test_exit_codes(container: Make) -> None:
    one = started(container)
    assert run(one, "/probe", "exit", "7", check=False).rc == 7
    assert run(one, "/bin/sh", "-c", "kill -9 $$", check=False).rc == 137
    assert run(one, "/bin/sh", "-c", "kill -TERM $$", check=False).rc == 143


@pytest.mark.parametrize("detach", [(), ("--detach",)], ids=["foreground", "detached"])
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nonexist"], ["nonexist", "executable file not found in $PATH"]),
        (["/nonexist"], ["/nonexist", "no such file or directory"]),
        (["/etc/passwd"], ["/etc/passwd", "permission denied"]),
        (["/run.sh"], ["exec /run.sh: no such file or directory"]),
    ],
)
def test_missing_programs(
    container: Make, box: Box, args: list[str], words: list[str], detach: tuple[str, ...]
) -> None:
    """podman and containerd map these words, on stderr and in the log, to exit codes 127 and
    126."""
    one = started(container)
    script = one.bundle.rootfs / "run.sh"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    if args == ["/run.sh"] and not box.runtime.is_pyrunc:
        # The peers do not wait for execve: the words are only on the stderr of the process.
        result = run(one, *args, check=False)
        assert words[0] in result.err or box.runtime.name == "crun"
        return
    log = box.path / "log.json"
    pid_file = box.path / "never.pid"
    flags = (*detach, "--pid-file", str(pid_file))
    more = ("--log", str(log), "--log-format", "json")
    result = one.call("exec", *flags, one.id, *args, check=False, globals_=more)
    assert result.rc == 255
    last = json.loads(log.read_text().splitlines()[-1])
    assert last["level"] == "error"
    for word in words:
        assert word in last["msg"]
        assert word in result.err or not box.runtime.is_pyrunc
    assert not pid_file.exists()


def test_a_missing_working_directory(container: Make) -> None:
    """podman and docker exit with 127 if they find these words."""
    one = started(container)
    result = run(one, "/probe", "report", flags=("--cwd", "/nonexistent"), check=False)
    assert result.rc == 255
    assert "/nonexistent" in result.err and "no such file or directory" in result.err.lower()


def test_states_that_accept_no_process(container: Make, box: Box) -> None:
    one = container("exit", "0")
    one.create()
    one.start()
    one.wait()
    result = run(one, "/probe", "report", check=False)
    assert result.rc == 255
    assert "cannot exec in a stopped container" in result.err
    result = box.runtime.call("--root", str(box.root), "exec", "nobody", "true")
    assert result.rc == 255
    assert "does not exist" in result.err


def test_paused(container: Make) -> None:
    one = started(container)
    (one.cgroup / "cgroup.freeze").write_text("1")
    wait_until(lambda: "frozen 1" in (one.cgroup / "cgroup.events").read_text(), "frozen")
    result = run(one, "/probe", "report", check=False)
    assert result.rc == 255
    assert "cannot exec in a paused container (use --ignore-paused to override)" in result.err
    argv = one.box.runtime.argv(
        "--root", str(one.box.root), "exec", "--ignore-paused", one.id, "/probe", "say", "thawed"
    )
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    one.box.helpers.add(child.pid)
    try:
        time.sleep(0.3)
        assert child.poll() is None, "it waits"
        (one.cgroup / "cgroup.freeze").write_text("0")
        assert child.communicate(timeout=10)[0] == b"thawed\n"
        assert child.returncode == 0
    finally:
        child.kill()
        child.wait()


def frozen(one: Container, *args: str) -> tuple[subprocess.Popen[bytes], int]:
    """Run an exec whose process is created frozen; return the caller and the host pid of the
    process."""
    (one.cgroup / "cgroup.freeze").write_text("1")
    wait_until(lambda: "frozen 1" in (one.cgroup / "cgroup.events").read_text(), "frozen")
    argv = one.box.runtime.argv("--root", str(one.box.root), "exec", "--ignore-paused", one.id, *args)
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    one.box.helpers.add(child.pid)

    def others() -> list[int]:
        pids = [int(word) for word in (one.cgroup / "cgroup.procs").read_text().split()]
        return [pid for pid in pids if pid != one.pid]

    return child, wait_until(others, "the process in its cgroup")[0]


@pytest.mark.pyrunc_only("runc's process is another program of its own")
def test_nothing_of_the_host_can_be_written_through_it(container: Make) -> None:
    """CVE-2019-5736: the process that enters executes a sealed copy in memory and is not dumpable
    (CVE-2016-9962)."""
    one = started(container)
    child, pid = frozen(one, "/probe", "say", "x")
    try:
        assert os.readlink(f"/proc/{pid}/exe") == "/memfd:pyrunc-init (deleted)"
        with pytest.raises(OSError):
            os.close(os.open(f"/proc/{pid}/exe", os.O_WRONLY))
        assert os.stat(f"/proc/{pid}/environ").st_uid == 0
        (one.cgroup / "cgroup.freeze").write_text("0")
        assert child.communicate(timeout=10)[0] == b"x\n"
    finally:
        child.kill()
        child.communicate()


@pytest.mark.pyrunc_only("an interrupted runc leaves its process")
def test_interrupted_before_the_program_runs(container: Make) -> None:
    one = started(container)
    child, pid = frozen(one, "/probe", "say", "x")
    try:
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=10)
        assert child.returncode == 255
        assert b"interrupted by signal 15" in err
        assert not Path(f"/proc/{pid}").exists()
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("privileged", [False, True])
def test_ways_out_cannot_be_seen_from_inside(container: Make, privileged: bool) -> None:
    """CVE-2016-9962: the process is protected as soon as it is in the pid namespace, even if the
    container may trace every process."""
    caps = own_bounding_caps() if privileged else DEFAULT_CAPS
    edits = {f"/process/capabilities/{kind}": caps for kind in ("bounding", "effective", "permitted")}
    one = container(edits={**edits, "/process/args": ["/bin/sh", "-c", WATCH]})
    one.create()
    one.start()
    for _ in range(40):
        run(one, "/bin/true")
    seen = (one.bundle.rootfs / "seen").read_text().splitlines()
    assert seen, "it has looked"
    ways = ("mnt:", "net:", "pid:", "uts:", "cgroup:")
    # The container's own cgroup namespace is entered last, from inside (plan/exec.py): it grants
    # access to nothing.
    own = os.readlink(f"/proc/{one.pid}/ns/cgroup")
    assert own != os.readlink("/proc/self/ns/cgroup")
    assert not [link for link in seen if link.startswith(ways) and link != own]


WATCH = "while :; do ls -l /proc/[0-9]*/fd/* 2>/dev/null | sed -n 's/.* -> //p' >> /seen; done"


@pytest.mark.pyrunc_only("runc 1.1.5 does not end there")
def test_seccomp_agent(container: Make, agent: Agent) -> None:
    """Each process has its own listener."""
    edits = profile(rule("sethostname", "SCMP_ACT_NOTIFY"), listenerPath=str(agent.path), listenerMetadata="meta")
    one = container("sleep", "600", edits=edits)
    one.create()
    one.start()
    first, second = agent.document, Agent(one.box.path / "agent2.sock", 96)
    (one.box.path / "agent.sock").unlink()
    os.rename(second.path, agent.path)
    try:
        result = run(one, "/probe", "sethostname", "x", "--", "report")
        assert result.objects[0]["errno"] == 96
        assert (second.descriptors, second.document["metadata"]) == (1, "meta")
        assert second.document["state"]["pid"] == first["pid"] == one.pid
        assert second.document["state"]["status"] == "running"
        assert second.document["pid"] != one.pid
    finally:
        second.path = agent.path
        second.close()


def test_detached_leaves_no_process(container: Make, box: Box) -> None:
    one = started(container)
    before = set(box.children())
    pid = detached(one, "/probe", "sleep", "600")
    assert set(box.children()) - before == {pid}, "the process is its caller's subreaper's child, and no helper stays"
    end(pid)


def test_end_of_the_container_ends_it(container: Make) -> None:
    one = started(container)
    argv = one.box.runtime.argv(
        "--root", str(one.box.root), "exec", one.id, "/probe", "say", "runs", "--", "sleep", "600"
    )
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    one.box.helpers.add(child.pid)
    assert child.stdout
    try:
        assert child.stdout.readline() == b"runs\n"
        one.kill("KILL")
        assert child.wait(10) == 137
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_signals_are_passed_on(container: Make) -> None:
    one = started(container)
    argv = one.box.runtime.argv("--root", str(one.box.root), "exec", one.id, "/probe", "signals", "60")
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    one.box.helpers.add(child.pid)
    assert child.stdout
    try:
        assert '"ready"' in child.stdout.readline()
        child.send_signal(signal.SIGUSR1)
        assert '"number":10' in child.stdout.readline()
        child.send_signal(signal.SIGTERM)
        child.stdout.read()
        assert child.wait(10) == 143
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


# --- descriptors ----------------------------------------------------------------------------------


def test_preserve_fds(container: Make, box: Box) -> None:
    one = started(container)
    with passing(box, 4) as inherit:
        seen = run(one, "/probe", "report", flags=("--preserve-fds", "2"), **inherit).report["fds"]
    assert set(seen) == {"0", "1", "2", "3", "4"}
    assert seen["4"].endswith("inherited1")


@pytest.mark.pyrunc_only("runc passes them to init only")
def test_listen_fds(container: Make) -> None:
    """Socket activation of a process other than init: its pid is not 1."""
    one = started(container)
    seen = run(one, "/probe", "report", wrap=["/bin/sh", "-c", LISTEN, "sh"]).report
    assert {"LISTEN_FDS=2", f"LISTEN_PID={seen['pid']}"} <= set(seen["env"])
    assert set(seen["fds"]) == {"0", "1", "2", "3", "4"}


def test_leaked_descriptors(container: Make, box: Box) -> None:
    one = started(container)
    with passing(box, 5) as inherit:
        assert set(run(one, "/probe", "report", **inherit).report["fds"]) == {"0", "1", "2"}


@pytest.mark.parametrize("number", [3, 5, 7, 8, 9, 10])
def test_cwd_through_a_descriptor_never_leads_out(container: Make, number: int) -> None:
    """CVE-2024-21626."""
    one = started(container)
    opened = os.open("/etc", os.O_RDONLY)
    try:
        flags = ("--cwd", f"/proc/self/fd/{number}")
        result = run(one, "/probe", "stat", ".", flags=flags, check=False, pass_fds=[opened])
    finally:
        os.close(opened)
    assert result.rc != 0 or result.objects[0]["dev"] != os.stat("/etc").st_dev


@pytest.mark.pyrunc_only("runc 1.1.5 has no --pidfd-socket")
def test_pidfd_socket(container: Make, box: Box) -> None:
    one = started(container)
    path = box.path / "pidfd.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(10)
        pid = detached(one, "/probe", "sleep", "600", flags=("--pidfd-socket", str(path)))
        connection, _ = server.accept()
        with connection:
            _, fds, _, _ = socket.recv_fds(connection, 64, 1)
    info = Path(f"/proc/self/fdinfo/{fds[0]}").read_text()
    os.close(fds[0])
    end(pid)
    assert f"Pid:\t{pid}\n" in info
