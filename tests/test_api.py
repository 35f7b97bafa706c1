"""The Python API without containers: names, types, documents, streams and its child processes."""

from __future__ import annotations

import doctest
import errno
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from json_type import Json

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import pyrunc
import transcript
from pyrunc import api, cli, errors, procfs, state
from pyrunc.api import aio, children, documents, library, programs, stdio
from pyrunc.api import runtime as runtime_module
from pyrunc.spec import default

kept = transcript.follow(leave=("test_communicate_goes_on_after_a_timeout", "test_a_lost_status"))

ROOT = Path(__file__).resolve().parent.parent

NOTHING: Json = {}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    config = default.config()
    config["hostname"] = "demo"
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


# -- names -----------------------------------------------------------------------------------------


def test_every_name_is_there() -> None:
    for name in api.__all__:
        assert getattr(pyrunc, name) is not None
    for name in ("nothing", "Nothing", "Any"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
            getattr(pyrunc, name)
    for name in ("nothing", "AsyncNothing"):
        with pytest.raises(AttributeError, match=f"module 'pyrunc.api' has no attribute '{name}'"):
            getattr(api, name)


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_command_line_does_not_load_it() -> None:
    code = "import sys, pyrunc; from pyrunc import cli; cli.main(['--version']); print(*sys.modules)"
    loaded = run(code).split()
    assert "pyrunc.cli" in loaded and not {"pyrunc.api", "asyncio", "logging", "threading"} & set(loaded)
    assert "asyncio" not in run("import sys, pyrunc; pyrunc.Runtime; print(*sys.modules)").split()


@pytest.mark.parametrize(
    "first", ["import pyrunc", "import pyrunc.plan", "from pyrunc.plan import Plan", "from pyrunc import plan"]
)
def test_plan_is_a_function_whatever_is_imported_first(bundle: Path, first: str) -> None:
    code = f"{first}\nimport pyrunc, pyrunc.api, pyrunc.plan\nprint(len(pyrunc.plan({str(bundle)!r}).steps))"
    assert int(run(code)) > 20
    code = f"{first}\nfrom pyrunc import plan, Runtime\nprint(len(plan({str(bundle)!r}).steps))"
    assert int(run(code)) > 20


def test_a_callers_program_has_the_right_types(launcher: Path, tmp_path: Path) -> None:
    """The installed package is checked, as a caller's type checker would see it."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("not installed: mypy (make lint-tools)")
    program = ROOT / "tests" / "api_example.py"
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(launcher.parent / "python")]
    done = subprocess.run([*command, program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "contrib/api_reference.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_examples(bundle: Path) -> None:
    finder = doctest.DocTestFinder(recurse=True)
    runner = doctest.DocTestRunner()
    for test in finder.find(documents, globs={"bundle": str(bundle)}):
        runner.run(test)
    assert runner.summarize() == (0, 4)


# -- configurations --------------------------------------------------------------------------------


def test_a_plan_equals_the_command_lines(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan = pyrunc.Runtime(cgroup_manager="disabled").plan(bundle)
    assert cli.main(["--cgroup-manager", "disabled", "plan", "--json", "--bundle", str(bundle), "ID"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert plan.as_json() == printed
    assert [(step.number, step.section, step.op, list(step.policy), step.pointer) for step in plan.steps] == [
        (step["step"], step["section"], step["op"], step["policy"], step["origin"]) for step in printed["steps"]
    ]
    assert "HOSTNAME" in str(plan) and plan.cgroup == ""
    execve = plan.steps[-1]
    assert execve.op == "EXECVE" and execve.arguments["args"] == ["sh"]
    assert [step.pointer for step in plan.of("/mounts/0")] == ["/mounts/0"]  # and not /mounts/01


def test_a_plan_of_a_dict(bundle: Path) -> None:
    config = {**default.config(), "hostname": "other"}
    assert [step.arguments["name"] for step in pyrunc.plan(bundle, config=config).of("/hostname")] == ["other"]
    with pytest.raises(pyrunc.ConfigError) as wrong:
        pyrunc.plan(bundle, config={**config, "hostname": 5})
    assert wrong.value.pointer == "/hostname"
    with pytest.raises(pyrunc.ConfigError, match="cannot be read"):
        pyrunc.plan(bundle / "nowhere")


def test_validate(bundle: Path) -> None:
    good = default.config()
    assert pyrunc.validate(good) == [] == pyrunc.validate(bundle) == pyrunc.validate(bundle / "config.json")
    found = pyrunc.validate({**good, "hostname": 1, "mounts": [{"destination": "x" * 5000}]})
    assert [problem.pointer for problem in found][:1] == ["/hostname"] and len(found) == 3
    assert all(problem.expected for problem in found) and found.more == 0
    many = pyrunc.validate({**good, "mounts": [{}] * 300})
    assert len(many) == 100 and many.more == 200
    odd = pyrunc.validate({**good, "ociVersion": "1.99.0"})
    assert odd == [] and odd.warnings[0].pointer == "/ociVersion"
    labelled = {**good, "process": {**good["process"], "apparmorProfile": "no-such-profile"}}
    assert pyrunc.validate(labelled) == []
    if not os.path.isdir("/sys/kernel/security/apparmor"):
        assert pyrunc.validate(labelled, on_this_host=True)[0].pointer == "/process/apparmorProfile"
    for bad in ({"a": object()}, {"a": {1: 2}}):
        with pytest.raises(pyrunc.UsageError, match="dict of JSON values"):
            pyrunc.validate(bad)
    with pytest.raises(pyrunc.ConfigError, match="cannot be read"):
        pyrunc.validate("/nowhere")


@pytest.mark.parametrize(
    ("error", "pointer", "value", "number", "hint"),
    [
        (errors.SysError("/mounts/1", "fsconfig", 22, value="x=1", hint="h"), "/mounts/1", "x=1", 22, "h"),
        (errors.SysError("/run/pyrunc/c/state.json", "read", 5), "", None, 5, ""),
        (errors.SysError("/root/state/c", "mkdir", errno.ENOSPC), "", None, errno.ENOSPC, ""),
        (errors.SysError("/root/path", "open", 2), "/root/path", None, 2, ""),
        (errors.SysError("--root", "open", 2, value="/x"), "", "/x", 2, ""),
        (errors.ConfigError([errors.Problem("/process/cwd", "a path")]), "/process/cwd", None, 0, ""),
        (errors.ConfigError([errors.Problem("/a", "b", "c", "d"), errors.Problem("/e", "f")]), "/a", "c", 0, "d"),
        (errors.PyruncError("/linux/resources/memory/limit: container init was OOM-killed"),
         "/linux/resources/memory/limit", None, 0, ""),
        (errors.PyruncError('/memory/limit 5: rejecting memory limit 5 <= usage 6'), "/memory/limit", None, 0, ""),
        (errors.StateError("container not running"), "", None, 0, ""),
    ],
)  # fmt: skip
def test_texts_of_errors(error: errors.PyruncError, pointer: str, value: str | None, number: int, hint: str) -> None:
    assert (error.pointer, error.value, error.errno, error.hint) == (pointer, value, number, hint)


def test_arguments_are_checked(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(pyrunc.UsageError, match="cgroup_manager"):
        pyrunc.Runtime(cgroup_manager="v1")  # type: ignore[arg-type]
    with pytest.raises(pyrunc.UsageError, match="rootless"):
        pyrunc.Runtime(rootless=True)  # type: ignore[arg-type]
    runtime = pyrunc.Runtime(root=tmp_path / "none")
    assert runtime.list() == [] == pyrunc.Container.list(runtime)
    with pytest.raises(pyrunc.NotFound):
        runtime.get("x")
    container = pyrunc.Container(runtime, "x")
    with pytest.raises(pyrunc.UsageError, match="not a string"):
        container.exec("ls")
    with pytest.raises(pyrunc.UsageError, match="interval"):
        next(container.events(0))
    for call in (container.start, container.pause, container.processes, container.wait, container.delete):
        with pytest.raises(pyrunc.NotFound):
            call()
    container.delete(force=True)
    assert not runtime.root.endswith("x") and not (tmp_path / "none").exists()


def test_options_that_do_not_exist_are_refused(bundle: Path, tmp_path: Path) -> None:
    runtime = api.Runtime(tmp_path / "root")
    options: dict[str, Any] = {"pidfile": "/run/pid"}
    with pytest.raises(TypeError, match=r"^create\(\) got an unexpected keyword argument 'pidfile'$"):
        runtime.create(bundle, "c1", **options)
    with pytest.raises(TypeError, match=r"^exec\(\) got an unexpected keyword argument 'pidfile'$"):
        api.Container(runtime, "c1").exec(["true"], **options)
    with pytest.raises(TypeError, match="unexpected keyword argument 'pidfile'"):
        aio.AsyncRuntime(**options)
    assert not (tmp_path / "root").exists()


def test_options_of_the_asyncio_runtime_are_those_of_the_runtime() -> None:
    parameters = inspect.signature(api.Runtime).parameters
    assert list(parameters) == ["root", *runtime_module.RuntimeOptions.__annotations__]


def test_the_root_is_looked_up_when_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runtime = pyrunc.Runtime(root="relative")
    monkeypatch.chdir("/")
    assert runtime.root == str(tmp_path / "relative")


def test_a_damaged_state_is_a_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "state.json").write_text("{")
    heard: list[str] = []
    assert pyrunc.Runtime(root=tmp_path, on_warning=heard.append).list() == []
    assert "container bad is damaged" in heard[0]
    with pytest.raises(pyrunc.Damaged):
        pyrunc.Runtime(root=tmp_path).get("bad")


# -- streams and children --------------------------------------------------------------------------


def spawned(script: str, *streams: int) -> programs.Process:
    """A process of this host in place of a container's process."""
    made = stdio.Stdio(*streams)
    theirs = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(made.theirs)]
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", script], os.environ, file_actions=theirs)
    made.close_theirs()
    return programs.Process(("sh", "-c", script), children.Child(pid, os.pidfd_open(pid)), made)


PIPES = (pyrunc.PIPE, pyrunc.PIPE, pyrunc.PIPE)


def test_communicate() -> None:
    data = os.urandom(1 << 20)
    with spawned("cat; echo end >&2; exit 3", *PIPES) as process:
        assert process.communicate(data) == (data, b"end\n")
        assert process.wait() == 3 == process.returncode == process.poll()
        assert process.stdin and process.stdin.closed
    with spawned("exit 0", *PIPES) as process:
        assert process.communicate(data) == (b"", b"")  # nobody reads its input
    with spawned("echo a; kill -TERM $$", pyrunc.DEVNULL, pyrunc.PIPE, pyrunc.STDOUT) as process:
        assert process.complete() == pyrunc.Completed(("sh", "-c", "echo a; kill -TERM $$"), 143, b"a\n", b"")


def test_communicate_goes_on_after_a_timeout() -> None:
    with spawned("echo first; sleep 0.4; echo second", *PIPES) as process:
        with pytest.raises(TimeoutError):
            process.communicate(timeout=0.1)
        assert process.poll() is None
        with pytest.raises(TimeoutError):
            process.wait(0.01)
        assert process.communicate(timeout=10) == (b"first\nsecond\n", b"")


def test_a_process_is_killed_on_exit() -> None:
    with spawned("sleep 1000", *PIPES) as process:
        pass
    assert process.returncode == 137 and not Path(f"/proc/{process.pid}").exists()


def test_a_lost_status() -> None:
    process = spawned("exit 5", pyrunc.DEVNULL, pyrunc.DEVNULL, pyrunc.DEVNULL)
    os.waitpid(process.pid, 0)
    with pytest.raises(pyrunc.PyruncError, match="is lost"):
        process.wait(5)
    process.kill()


def test_threads_wait_for_one_process() -> None:
    process = spawned("sleep 0.2; exit 4", pyrunc.DEVNULL, pyrunc.DEVNULL, pyrunc.DEVNULL)
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(process.wait(10))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert codes == [4] * 8


def test_children_that_nobody_looks_at() -> None:
    pid = spawned("sleep 0.2", pyrunc.DEVNULL, pyrunc.DEVNULL, pyrunc.DEVNULL).pid
    assert pid in children._forgotten
    deadline = time.monotonic() + 10
    while pid in children._forgotten and time.monotonic() < deadline:
        children.reap_forgotten()
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


def test_one_child_object_for_all() -> None:
    process = spawned("sleep 1000", pyrunc.DEVNULL, pyrunc.DEVNULL, pyrunc.DEVNULL)
    start = procfs.process_stat(process.pid)[1]
    first, second = children.known(process.pid, start), children.known(process.pid, start)
    assert first is not None and first is second and children.known(process.pid, start + 1) is None
    process.kill()
    assert first.wait(10) and first.returncode == 137


@pytest.mark.parametrize("wanted", [(-9, -3, -3), (-2, -3, -3), (-3, -2, -3)])
def test_streams_that_are_none(wanted: tuple[int, int, int]) -> None:
    with pytest.raises(pyrunc.UsageError, match="expected a descriptor"):
        stdio.Stdio(*wanted)
    with pytest.raises(pyrunc.SysError):
        library.open_stdio(999, -1, -1)


def test_streams(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as file:
        made = stdio.Stdio(pyrunc.INHERIT, file, pyrunc.STDOUT)
    assert os.readlink(f"/proc/self/fd/{made.theirs[2]}") == str(tmp_path / "out")
    assert min(made.theirs) > 2 and not any(os.get_inheritable(fd) for fd in made.theirs)
    assert os.path.sameopenfile(made.theirs[0], 0)
    made.close()
    made.close()


@pytest.fixture
def forked() -> Callable[[Any], int]:
    """``forked(call)``: the exit status of a forked process that calls it."""

    def fork(call: Any) -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(call())
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return fork


def test_locks_do_not_outlive_a_fork(tmp_path: Path, forked: Any) -> None:
    tmp_path.chmod(0o700)
    container = state.Store(str(tmp_path)).reserve("c1")
    container.describe_intent(config=NOTHING, bundle="/b", cgroup="", cgroup_dir="", cgroup_manager="disabled", late=[])
    container.save()
    container.unlock()
    with library.locked(container):
        fd = container.fd
        assert forked(lambda: int(container.fd != -1 or os.path.exists(f"/proc/self/fd/{fd}"))) == 0
        assert container.fd == fd
        assert forked(lambda: int(library._spawning.locked())) == 0
    assert not library._locked


def test_pipes_do_not_outlive_a_fork(forked: Any) -> None:
    """A reader of the pipe would wait for the end of the forked process."""
    made = library.open_stdio(pyrunc.DEVNULL, pyrunc.PIPE, pyrunc.STDOUT)
    try:
        assert forked(lambda: int(made.theirs != [-1, -1, -1])) == 0
        assert min(made.theirs) > 2
    finally:
        made.close()


def test_a_forked_process_has_no_children(forked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_reported", {4_000_000})
    assert forked(lambda: 5 if not library._reported and library._spawning.acquire(blocking=False) else 1) == 5
    assert library._reported == {4_000_000} and not library._spawning.locked()


def test_no_fork_while_only_a_local_variable_knows_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    class Stream:
        def fileno(self) -> int:
            seen.append(library._spawning.locked())
            return 1

    library.open_stdio(Stream(), pyrunc.DEVNULL, pyrunc.DEVNULL).close()
    job = library.Create.__new__(library.Create)
    job.plan = cast("Any", SimpleNamespace(fds=[("error", "", "")]))
    job.channel = cast("Any", SimpleNamespace(send=lambda *_: Stream().fileno()))
    monkeypatch.setattr(library.Create, "open_slot", lambda *_: os.open("/dev/null", os.O_RDONLY))
    job.send_opened(b"")
    assert seen == [True, True] and not library._spawning.locked()
