"""The Python API on real containers, in the test's own process. It must return what the command
line prints and leave the process unchanged."""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import pyrunc
from integration.harness import REPO, SLOW, Box, Bundle, wait_until
from pyrunc.api import library

pytestmark = pytest.mark.pyrunc_only("it is pyrunc's API")

Shell = Callable[..., Bundle]
SLEEP = "sleep 1000"


def descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
    return found


@pytest.fixture
def runtime_(box: Box) -> Iterator[pyrunc.Runtime]:
    """A runtime over the test's state root. The test fails if it leaves a descriptor open."""
    before = descriptors()
    gc.freeze()  # the objects of all earlier tests, which would take seconds to visit
    yield pyrunc.Runtime(root=box.root)
    gc.collect()  # referenced by tracebacks of expected errors
    left = {name: target for name, target in descriptors().items() if before.get(name) != target}
    assert not left


@pytest.fixture
def shell(box: Box) -> Shell:
    """``shell(script, edits={pointer: value})``: a bundle whose program is a script."""

    def make(script: str, **edits: Any) -> Bundle:
        bundle = box.bundle(edits={"/process/args": ["/bin/sh", "-c", script], **edits.get("edits", {})})
        bundle.save()
        return bundle

    return make


def cli(box: Box, *args: str, check: bool = True) -> str:
    result = box.runtime.call("--root", str(box.root), *args)
    assert result.rc == 0 or not check, result
    return result.out


def unmountable(bundle: Bundle) -> dict[str, Any]:
    """A configuration that fails inside init after its cgroup has been created."""
    bogus = {"destination": "/m", "type": "tmpfs", "source": "t", "options": ["bogus=1"]}
    linux = {**bundle.config["linux"], "cgroupsPath": bundle.config["linux"]["cgroupsPath"] + "bad"}
    return {**bundle.config, "mounts": [bogus], "linux": linux}


def test_the_command_line_sees_the_same(box: Box, runtime_: pyrunc.Runtime, shell: Shell) -> None:
    bundle = shell(SLEEP, edits={"/annotations": {"a": "b"}})
    name = box.prefix + "x"
    container = runtime_.create(bundle.path, name)
    assert container.state().status == "created"
    state = json.loads(cli(box, "state", name))
    assert state["status"] == "created" and state["pid"] == container.pid and state["annotations"] == {"a": "b"}
    assert container.state() == pyrunc.State(
        oci_version=state["ociVersion"],
        id=name,
        status=state["status"],
        pid=state["pid"],
        bundle=str(bundle.path),
        annotations=state["annotations"],
        rootfs=str(bundle.rootfs),
        created=state["created"],
    )
    cli(box, "start", name)
    assert container.state().status == "running"
    assert [one.id for one in runtime_.list()] == [name] == json.loads(f'["{cli(box, "list", "--quiet").strip()}"]')
    container.pause()
    assert json.loads(cli(box, "state", name))["status"] == "paused"
    cli(box, "resume", name)
    assert container.state().status == "running"
    assert container.processes() == json.loads(cli(box, "ps", "--format", "json", name))
    cli(box, "kill", name, "KILL")
    assert container.wait(10) == 137 == container.returncode
    assert container.state() == runtime_.get(name).state()
    container.delete()
    assert runtime_.list() == [] and cli(box, "list", "--quiet") == ""


def test_a_container_of_the_command_line(box: Box, runtime_: pyrunc.Runtime, shell: Shell) -> None:
    name = box.prefix + "x"
    cli(box, "create", "--bundle", str(shell("exit 3").path), name)
    container = runtime_.get(name)
    with pytest.raises(TimeoutError):
        container.wait(0.05)
    assert container.start() is container
    code = container.wait(10)
    assert code in (None, 3)  # 3 where its creator was our child: we are a subreaper
    container.delete()
    with pytest.raises(pyrunc.NotFound, match="container does not exist"):
        container.state()
    container.delete(force=True)


def test_streams_and_status(box: Box, runtime_: pyrunc.Runtime, shell: Shell, tmp_path: Path) -> None:
    bundle = shell("read x; echo got:$x; echo err >&2; exit 7")
    pipes: Any = {"stdin": pyrunc.PIPE, "stdout": pyrunc.PIPE, "stderr": pyrunc.PIPE}
    with runtime_.run(bundle.path, box.prefix + "a", **pipes) as container:
        assert container.communicate(b"hello\n", timeout=10) == (b"got:hello\n", b"err\n")
        assert container.returncode == 7
    with runtime_.run(bundle.path, box.prefix + "b", **{**pipes, "stderr": pyrunc.STDOUT}) as container:
        assert container.communicate(b"y\n", timeout=10) == (b"got:y\nerr\n", b"")
    with open(tmp_path / "out", "wb") as out, runtime_.run(bundle.path, box.prefix + "c", stdout=out) as container:
        assert container.wait(10) == 7
    assert (tmp_path / "out").read_bytes() == b"got:\n"  # stdin is /dev/null
    with pytest.raises(pyrunc.UsageError, match="stdout=-2"):
        runtime_.create(bundle.path, box.prefix + "d", stdout=pyrunc.STDOUT)
    with pytest.raises(pyrunc.SysError) as caught:
        runtime_.create(bundle.path, box.prefix + "d", stdout=1000)
    assert caught.value.errno == errno.EBADF


def test_exec(box: Box, runtime_: pyrunc.Runtime, shell: Shell) -> None:
    with runtime_.run(shell(SLEEP).path, box.prefix + "x") as container:
        done = container.call(["/bin/sh", "-c", "cat; echo $A; pwd; id -u; echo e >&2; exit 4"], input=b"in\n",
                              env={"A": "1"}, cwd="/tmp", user="1000:1000", timeout=10)  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (4, b"in\n1\n/tmp\n1000\n", b"e\n")
        big = os.urandom(1 << 20)
        assert container.call(["/bin/cat"], input=big, timeout=20).stdout == big
        process = {"args": ["/bin/sh", "-c", "pwd"], "cwd": "/usr", "user": {"uid": 0, "gid": 0}}
        assert container.call([], process=process).stdout == b"/usr\n"
        with container.exec(["/bin/cat"], stdin=pyrunc.PIPE, stdout=pyrunc.PIPE) as running:
            assert running.poll() is None and running.pid in container.processes()
            assert running.stdin and running.stdout
            running.stdin.write(b"x")
            running.stdin.close()
            assert running.stdout.read() == b"x"
            assert running.wait(10) == 0 == running.returncode
            running.kill()  # the program has ended
        ended = container.exec(["/bin/sleep", "1000"])
        ended.kill("TERM")
        assert ended.wait(10) == 143
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            container.call(["/bin/sleep", "1000"], timeout=0.2)
        assert time.monotonic() - start < 10 * SLOW and len(container.processes()) == 1
        with pytest.raises(pyrunc.ProgramFailed, match="no good") as failed:
            container.call(["/bin/sh", "-c", "echo no good >&2; exit 9"], check=True)
        assert failed.value.completed.returncode == 9


def test_errors(box: Box, runtime_: pyrunc.Runtime, shell: Shell) -> None:
    bundle = shell(SLEEP)
    name = box.prefix + "x"
    with pytest.raises(pyrunc.SysError) as refused:
        runtime_.create(bundle.path, name, config=unmountable(bundle))
    error = refused.value
    assert (error.pointer, error.value, error.errno) == ("/mounts/0/options", "bogus=1", errno.EINVAL)
    assert "Unknown parameter" in error.detail
    with pytest.raises(pyrunc.ConfigError) as wrong:
        runtime_.create(bundle.path, name, config={"ociVersion": "1.0.0", "root": {"path": 1}, "process": {}})
    assert wrong.value.pointer == wrong.value.problems[0].pointer and len(wrong.value.problems) > 1
    missing = {**bundle.config, "process": {**bundle.config["process"], "args": ["/nothing"]}}
    with pytest.raises(pyrunc.SysError) as absent:
        runtime_.create(bundle.path, name, config=missing)
    assert absent.value.pointer == "/process/args/0" and absent.value.errno == errno.ENOENT
    with pytest.raises(pyrunc.StateError, match="invalid container ID"):
        runtime_.create(bundle.path, "../x")
    with pytest.raises(pyrunc.ConfigError, match="cannot be read"):
        runtime_.create(box.path / "nowhere", name)
    with pytest.raises(pyrunc.UsageError, match="config: expected a dict of JSON values"):
        runtime_.create(bundle.path, name, config={"process": object()})
    assert not [text for text in box.leftovers() if not text.startswith("state .")]
    with runtime_.run(bundle.path, name) as container:
        with pytest.raises(pyrunc.StateError, match="already exists"):
            runtime_.create(bundle.path, name)
        with pytest.raises(pyrunc.StateError, match="not stopped: running"):
            container.delete()
        with pytest.raises(pyrunc.StateError, match="already running"):
            container.start()
        with pytest.raises(pyrunc.SysError) as program:
            container.exec(["/nothing"])
        assert program.value.errno == errno.ENOENT
        with pytest.raises(pyrunc.UsageError):
            container.exec([])
        with pytest.raises(pyrunc.PyruncError, match="unknown signal"):
            container.kill("NOSUCH")
        with pytest.raises(pyrunc.ConfigError) as limits:
            container.update({"memory": {"limit": "much"}})
        assert limits.value.pointer == "/memory/limit"


def test_a_failing_create_kills_no_other_container(box: Box, runtime_: pyrunc.Runtime, shell: Shell) -> None:
    """The processes that wait for `start` are named pyrunc-init and are children of this thread."""
    bundle = shell(SLEEP)
    waiting = [runtime_.create(shell(SLEEP).path, f"{box.prefix}w{number}") for number in range(2)]
    for _ in range(3):
        with pytest.raises(pyrunc.SysError):
            runtime_.create(bundle.path, box.prefix + "bad", config=unmountable(bundle))
    assert [one.state().status for one in waiting] == ["created", "created"]
    for one in waiting:
        with one:
            assert one.start().state().status == "running"


def test_threads(box: Box, runtime_: pyrunc.Runtime, shell: Shell) -> None:
    """Eight threads create containers in two state roots while others fail."""
    bundles = [shell("read x; echo $x") for _ in range(8)]
    other = pyrunc.Runtime(root=box.path / "root2")
    errors: list[BaseException] = []
    done: list[bytes] = []

    def work(number: int) -> None:
        try:
            runtime = (runtime_, other)[number % 2]
            bundle = bundles[number]
            for turn in range(3):
                name = f"{box.prefix}n{number}t{turn}"
                with runtime.run(bundle.path, name, stdin=pyrunc.PIPE, stdout=pyrunc.PIPE) as container:
                    assert container.call(["/bin/hostname"], timeout=30 * SLOW).stdout == b"box\n"
                    with pytest.raises(pyrunc.SysError):
                        runtime.create(bundle.path, name + "bad", config=unmountable(bundle))
                    done.append(container.communicate(f"{number}.{turn}\n".encode(), timeout=30 * SLOW)[0])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100 * SLOW)
    assert not errors
    assert sorted(done) == sorted(f"{n}.{t}\n".encode() for n in range(8) for t in range(3))
    assert os.listdir(other.root) == []


def own_state() -> dict[str, Any]:
    """Process-wide state that a library must not change."""
    status = Path("/proc/self/status").read_text()
    umask = os.umask(0)
    os.umask(umask)
    kept = ("SigBlk", "SigIgn", "SigCgt", "Threads", "NoNewPrivs", "Seccomp", "CapEff", "Uid", "Gid", "Groups")
    return {
        "status": [line for line in status.splitlines() if line.startswith(kept)],
        "cwd": os.getcwd(),
        "umask": umask,
        "handlers": [signal.getsignal(number) for number in signal.valid_signals()],
        "namespaces": [os.readlink(f"/proc/self/ns/{name}") for name in sorted(os.listdir("/proc/self/ns"))],
        "cgroup": Path("/proc/self/cgroup").read_text(),
        "environment": dict(os.environ),
        "limits": Path("/proc/self/limits").read_text(),
    }


def test_the_process_stays_as_it_was(
    box: Box, runtime_: pyrunc.Runtime, shell: Shell, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    heard: list[str] = []
    runtime = pyrunc.Runtime(root=box.root, on_warning=heard.append)
    odd = {"/linux/resources/memory": {"kernel": 1 << 20}}
    before = own_state()
    with caplog.at_level(logging.WARNING), runtime.run(shell(SLEEP, edits=odd).path, box.prefix + "x") as container:
        container.call(["/bin/true"])
        container.pause()
        container.resume()
        container.kill("KILL")
        container.wait(10)
    assert own_state() == before
    assert capfd.readouterr() == ("", "")
    assert container.warnings == heard and "/linux/resources/memory/kernel" in heard[0]
    assert heard[0] in caplog.text


def test_messages_of_a_service_manager_are_not_taken(
    box: Box, runtime_: pyrunc.Runtime, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    import posix

    for name, value in (("NOTIFY_SOCKET", "/nowhere"), ("LISTEN_FDS", "5"), ("LISTEN_PID", str(os.getpid()))):
        monkeypatch.setitem(posix.environ, name.encode(), value.encode())
    with runtime_.run(shell("env; ls /proc/self/fd").path, box.prefix + "x", stdout=pyrunc.PIPE) as container:
        out = container.communicate(timeout=10)[0]
    assert b"LISTEN" not in out and b"NOTIFY" not in out and out.endswith(b"0\n1\n2\n3\n")


def test_descriptors_stay_here(box: Box, runtime_: pyrunc.Runtime, shell: Shell) -> None:
    kept = os.open("/etc", os.O_RDONLY)
    os.set_inheritable(kept, True)
    try:
        with runtime_.run(shell("ls -l /proc/self/fd").path, box.prefix + "x", stdout=pyrunc.PIPE) as container:
            assert b"etc" not in container.communicate(timeout=10)[0]
    finally:
        os.close(kept)


@pytest.mark.parametrize("closed", [(0,), (0, 1, 2)])
def test_a_program_without_stdio(box: Box, shell: Shell, closed: tuple[int, ...]) -> None:
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
for fd in map(int, sys.argv[5].split(",")):
    os.close(fd)
import pyrunc
with pyrunc.Runtime(root=sys.argv[2]).run(sys.argv[3], sys.argv[4], stdout=pyrunc.PIPE) as container:
    ok = container.communicate(timeout=20)[0] == b"out\\n" and container.returncode == 5
os._exit(0 if ok else 1)
"""
    numbers = ",".join(map(str, closed))
    argv = [sys.executable, "-c", code, str(REPO), str(box.root), str(shell("echo out; exit 5").path), box.prefix + "x"]
    assert subprocess.run([*argv, numbers], check=False, timeout=60 * SLOW).returncode == 0


def test_sigchld_ignored(box: Box, runtime_: pyrunc.Runtime, shell: Shell) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(pyrunc.UsageError, match="SIGCHLD is ignored"):
            runtime_.create(shell(SLEEP).path, box.prefix + "x")
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_an_exception_from_a_signal_handler_undoes(
    box: Box, runtime_: pyrunc.Runtime, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "100"]}]}

    def interrupted(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupted)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            runtime_.create(shell(SLEEP, edits={"/hooks": hook}).path, box.prefix + "x")
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert not box.leftovers()


def state_of(pid: int) -> str:
    """The letter of a process's state (proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_text().split()[2]


@contextmanager
def sleeping_fork(box: Box, seconds: float) -> Iterator[None]:
    """Fork a process that sleeps; nothing in the block may wait for its end."""
    pid = os.fork()
    if pid == 0:
        time.sleep(seconds)
        os._exit(0)
    box.helpers.add(pid)
    try:
        yield
        assert state_of(pid) == "S"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_forked_process_keeps_nothing(box: Box, runtime_: pyrunc.Runtime, shell: Shell) -> None:
    """A process forked while another thread creates inherits neither the container's lock nor its
    pipe."""
    hook = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1"]}]}
    bundle = shell("echo out", edits={"/hooks": hook})
    made: list[pyrunc.Container] = []
    thread = threading.Thread(
        target=lambda: made.append(runtime_.create(bundle.path, box.prefix + "x", stdout=pyrunc.PIPE))
    )
    thread.start()
    wait_until(lambda: (box.root / (box.prefix + "x")).exists(), "the container's directory")
    wait_until(lambda: box.cgroups(), "the hook")
    with sleeping_fork(box, 60):
        thread.join(20 * SLOW)
        with made[0] as container:
            container.start()
            assert container.wait(10) == 0
            container.delete()
            assert container.stdout and container.stdout.read(3) == b"out"


def test_a_process_forked_while_the_plan_is_sent_keeps_nothing(
    box: Box, runtime_: pyrunc.Runtime, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`start` waits for the end of a fifo that the creator opens for init."""
    opened = threading.Event()
    open_slot = library.Create.open_slot

    def slow(self: library.Create, kind: str, value: str, origin: str) -> int:
        fd = open_slot(self, kind, value, origin)
        if kind == "error":
            opened.set()
            time.sleep(0.3)
        return fd

    monkeypatch.setattr(library.Create, "open_slot", slow)
    bundle = shell("exit 3")
    made: list[pyrunc.Container] = []
    thread = threading.Thread(target=lambda: made.append(runtime_.create(bundle.path, box.prefix + "x")))
    thread.start()
    assert opened.wait(20 * SLOW)
    with sleeping_fork(box, 20 * SLOW):
        thread.join(20 * SLOW)
        with made[0] as container:
            container.start()
            assert container.wait(10) == 3


def test_a_program_that_nobody_waits_for_is_reaped(box: Box, runtime_: pyrunc.Runtime, shell: Shell) -> None:
    with runtime_.run(shell(SLEEP).path, box.prefix + "x") as container:
        pid = container.exec(["/bin/sleep", "0.2"]).pid
        wait_until(lambda: state_of(pid) == "Z", "the end of it")
        container.call(["/bin/true"])
        assert not Path(f"/proc/{pid}").exists()


def test_a_status_that_another_wait_took(box: Box, runtime_: pyrunc.Runtime, shell: Shell) -> None:
    with runtime_.run(shell(SLEEP).path, box.prefix + "x") as container:
        process = container.exec(["/bin/true"])
        with suppress(ChildProcessError):  # so that one of them certainly inherits it
            os.waitpid(process.pid, 0)
        with pytest.raises(pyrunc.PyruncError, match=r"status of process .* is lost"):
            process.wait(10)
        first = container.pid  # 0 once the process has ended
        os.kill(first, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(first, 0)
        assert container.wait(10) is None


def test_events_and_stats(box: Box, runtime_: pyrunc.Runtime, shell: Shell) -> None:
    with runtime_.run(shell(SLEEP).path, box.prefix + "x") as container:
        assert container.stats()["pids"]["current"] == 1
        happened = []
        for event in container.events(0.05):
            happened.append(event)
            if len(happened) == 2:
                container.kill("KILL")
        assert {event.type for event in happened} == {"stats"} and happened[0].id == container.id
        assert happened[0].stats and "usage" in happened[0].stats["cpu"]
        with pytest.raises(pyrunc.StateError, match="not running"):
            container.stats()
        with pytest.raises(pyrunc.StateError):
            next(container.events())


def test_update(box: Box, runtime_: pyrunc.Runtime, shell: Shell) -> None:
    with runtime_.run(shell(SLEEP).path, box.prefix + "x") as container:
        write = ["/bin/sh", "-c", ": >/kmsg"]
        container.call(["/bin/mknod", "/kmsg", "c", "1", "11"], check=True)
        assert container.call(write).returncode != 0
        container.update({"devices": [{"allow": True, "access": "rw", "type": "c", "major": 1, "minor": 11}]})
        container.call(write, check=True)
        stored = json.loads((box.root / container.id / "state.json").read_text())["resources"]
        assert stored["devices"][0]["minor"] == 11


@pytest.mark.needs_controller("pids")
def test_update_of_a_limit(box: Box, runtime_: pyrunc.Runtime, shell: Shell) -> None:
    with runtime_.run(shell(SLEEP).path, box.prefix + "x") as container:
        container.update({"pids": {"limit": 20}})
        assert container.stats()["pids"]["limit"] == 20


def test_user_namespace(box: Box, runtime_: pyrunc.Runtime, shell: Shell) -> None:
    """The program owns its pipes, so it can open /dev/stdout."""
    ids = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    edits = {"/linux/uidMappings": ids, "/linux/gidMappings": ids, "/linux/namespaces/-": {"type": "user"}}
    bundle = shell("echo a >/dev/stdout; id -u", edits=edits)
    os.chmod(bundle.path, 0o755)
    with runtime_.run(bundle.path, box.prefix + "x", stdout=pyrunc.PIPE) as container:
        assert container.communicate(timeout=10)[0] == b"a\n0\n"


def test_an_interpreter_of_the_virtual_environment(box: Box, shell: Shell, tmp_path: Path) -> None:
    """`pip install .` installs everything that is needed: neither the source tree nor the
    executable is used."""
    code = """
import sys, pyrunc
assert "site-packages" in pyrunc.__file__, pyrunc.__file__
with pyrunc.Runtime(root=sys.argv[1]).run(sys.argv[2], sys.argv[3], stdout=pyrunc.PIPE) as container:
    print(container.communicate(timeout=20), container.returncode)
"""
    argv = [
        str(REPO / ".venv/bin/python"),
        "-I",
        "-c",
        code,
        str(box.root),
        str(shell("echo hi").path),
        box.prefix + "x",
    ]
    done = subprocess.run(argv, cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60 * SLOW, check=False)
    assert (done.returncode, done.stdout) == (0, "(b'hi\\n', b'') 0\n"), done.stderr
