"""`pyrunc delete`: the processes that it ends, the files that it removes, and the locks that it
waits for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from pyrunc import procfs
from pyrunc.container import lifecycle
from state_support import sleeper
from verb_support import Runtime, gone, runtime

__all__ = ["runtime", "sleeper"]  # fixtures


def test_delete_of_a_stopped_container(runtime: Runtime) -> None:
    runtime.make()
    assert runtime("delete", "c1") == ("", "")
    assert gone(runtime.root)
    runtime.make()  # the id can be used again


def test_delete_of_a_running_container(runtime: Runtime, sleeper: subprocess.Popen[bytes]) -> None:
    runtime.make(pid=sleeper.pid)
    before = runtime.store.open("c1").data
    assert runtime("delete", "c1", rc=1)[1] == "cannot delete container c1 that is not stopped: running"
    assert sleeper.poll() is None and runtime.store.open("c1").data == before
    runtime("delete", "--force", "c1")
    assert gone(runtime.root)
    assert not os.path.exists(f"/proc/{sleeper.pid}") or sleeper.wait(5) == -9


def test_delete_of_a_created_container_kills_it(runtime: Runtime, sleeper: subprocess.Popen[bytes]) -> None:
    container = runtime.make(pid=sleeper.pid, status="created")
    os.mkfifo(container.fifo("start"))
    fd = os.open(container.fifo("start"), os.O_RDWR)  # as init does
    assert json.loads(runtime("state", "c1")[0])["status"] == "created"
    runtime("delete", "c1")
    os.close(fd)
    assert gone(runtime.root) and not procfs.alive(sleeper.pid, container.data["starttime"])


def test_delete_does_not_touch_another_process_with_the_pid(runtime: Runtime, sleeper: subprocess.Popen[bytes]) -> None:
    runtime.make(pid=sleeper.pid, starttime=1)
    runtime.make("c2", pid=sleeper.pid, bootid="another boot")
    runtime("delete", "c1")
    runtime("delete", "-f", "c2")
    assert sleeper.poll() is None and gone(runtime.root)


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"\0" * 100, b'{"id":"c1"}', None])
def test_forced_delete_of_a_damaged_container(
    runtime: Runtime, sleeper: subprocess.Popen[bytes], content: bytes | None
) -> None:
    container = runtime.make(pid=sleeper.pid)
    path = Path(container.dir, "state.json")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert list(runtime.store.list()) == []
    for verb in ("state", "start", "kill", "delete"):
        assert "delete --force" in runtime(verb, "c1", rc=1)[1]
    assert sleeper.poll() is None
    runtime("delete", "--force", "c1")
    assert gone(runtime.root)
    assert not procfs.alive(sleeper.pid, container.data["starttime"])  # intent.json names it


def test_forced_delete_of_an_empty_directory(runtime: Runtime) -> None:
    runtime.root.mkdir(mode=0o700)
    (runtime.root / "c1").mkdir()
    assert "no state.json" in runtime("delete", "c1", rc=1)[1]
    runtime("delete", "--force", "c1")
    assert gone(runtime.root)


def test_ten_concurrent_forced_deletes(runtime: Runtime, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    for _ in range(3):
        child = subprocess.Popen(["sleep", "60"])
        runtime.make(pid=child.pid)
        command = [sys.executable, "-m", "pyrunc", "--root", str(runtime.root), "delete", "--force", "c1"]
        deleters = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE) for _ in range(10)]
        outcomes = [(deleter.communicate(timeout=60)[1], deleter.returncode) for deleter in deleters]
        assert outcomes == [(b"", 0)] * 10
        assert gone(runtime.root)
        assert child.wait(5) == -9


# A pyrunc in the middle of a create: it holds the lock, and on SIGTERM it undoes the create or not.
MAKER = """
import os, signal, sys, time
from pyrunc import state
container = state.Store(sys.argv[1]).reserve("c1")
container.data |= {"bundle": "/b", "cgroup": "", "cgroup_manager": "disabled"}
container.save()
def undo(*_):
    container.destroy()
    os._exit(1)
signal.signal(signal.SIGTERM, undo if sys.argv[2] == "polite" else signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("manner", ["polite", "stubborn"])
def test_forced_delete_stops_a_create(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, manner: str) -> None:
    monkeypatch.setattr(lifecycle, "PATIENCE", (0.1, 0.5, 5.0))
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", MAKER, str(runtime.root), manner]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as maker:
        assert maker.stdout and maker.stdout.readline() == b"ready\n"
        assert json.loads(runtime("state", "c1")[0])["status"] == "creating"
        assert runtime("delete", "c1", rc=1)[1] == "cannot delete container c1 that is not stopped: creating"
        try:
            runtime("delete", "--force", "c1")
            assert maker.wait(5) == (1 if manner == "polite" else -signal.SIGKILL)
        finally:
            maker.kill()
    assert gone(runtime.root)


def test_forced_delete_never_signals_a_program_that_uses_pyrunc_as_a_library(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "PATIENCE", (0.1, 0.1, 0.1))
    root = Path(__file__).resolve().parent.parent
    code = MAKER.replace("container.save()", 'container.data["runtime"]["library"] = True\ncontainer.save()')
    command = [sys.executable, "-c", code, str(runtime.root), "polite"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as maker:
        try:
            assert maker.stdout and maker.stdout.readline() == b"ready\n"
            assert "in use by another pyrunc" in runtime("delete", "--force", "c1", rc=1)[1]
            assert maker.poll() is None
        finally:
            maker.kill()
    runtime("delete", "--force", "c1")


def test_a_create_that_was_killed_is_stopped_and_can_be_deleted(runtime: Runtime) -> None:
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", MAKER, str(runtime.root), "stubborn"]
    for force in ([], ["--force"]):
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as maker:
            assert maker.stdout and maker.stdout.readline() == b"ready\n"
            maker.kill()
        assert json.loads(runtime("state", "c1")[0])["status"] == "stopped"
        assert "stopped" in runtime("start", "c1", rc=1)[1]
        runtime("delete", *force, "c1")
        assert gone(runtime.root)


def test_a_forced_delete_gives_up_on_a_lock_that_nobody_lets_go(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "PATIENCE", (0.1, 0.1, 0.1))
    container = runtime.make()
    container.lock()
    assert "in use by another pyrunc" in runtime("delete", "--force", "c1", rc=1)[1]
    container.unlock()
    runtime("delete", "--force", "c1")


def test_delete_waits_for_a_verb_that_is_about_to_finish(runtime: Runtime) -> None:
    container = runtime.make()
    container.lock()
    timer = threading.Timer(0.2, container.unlock)
    timer.start()
    start = time.monotonic()
    runtime("delete", "c1")
    timer.join()
    assert 0.1 < time.monotonic() - start < 5 and gone(runtime.root)


def test_poststop_hooks_run_after_all_else_and_only_warn(runtime: Runtime, tmp_path: Path) -> None:
    def hook(body: str) -> dict[str, Any]:
        return {"path": "/bin/sh", "args": ["sh", "-c", body]}

    seen = tmp_path / "seen"
    listed = [hook("echo sorry >&2; exit 3"), hook(f"cat >{seen}; ls {runtime.root} >>{seen}")]
    runtime.make(bundle=str(tmp_path), hooks={"poststop": listed})
    runtime("delete", "c1")
    first, *rest = seen.read_text().splitlines()
    shown = json.loads(first.partition("}}")[0] + "}}")
    assert (shown["status"], shown["pid"], shown["id"]) == ("stopped", 0, "c1")
    assert "c1" not in rest
    log = Path(str(runtime.root) + ".log").read_text()
    assert "level=warning" in log and "/hooks/poststop/0" in log and "sorry" in log and "level=error" not in log
