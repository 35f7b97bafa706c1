"""The derived status of a container, and what /proc shows of its first process."""

from __future__ import annotations

import errno
import os
import posix
import signal
import subprocess
import time
from pathlib import Path

import pytest

from json_type import Json
from pyrunc import fs, procfs, state
from state_support import child_of, made, sleeper, store

__all__ = ["sleeper", "store"]  # fixtures


def test_running_then_zombie_then_gone(store: state.Store) -> None:
    child = subprocess.Popen(["sleep", "60"])
    container = made(store)
    child_of(container, child.pid)
    assert store.open("c1").status() == "running"
    assert store.open("c1").report()["pid"] == child.pid
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert procfs.process_stat(child.pid)[0] == "Z"
    assert store.open("c1").status() == "stopped"
    child.wait()
    assert store.open("c1").status() == "stopped"
    assert store.open("c1").report()["pid"] == 0
    assert store.open("c1").kill_init(0) is False


def test_created_while_the_start_fifo_has_a_reader(store: state.Store, sleeper: subprocess.Popen[bytes]) -> None:
    container = made(store)
    child_of(container, sleeper.pid)
    os.mkfifo(container.fifo("start"))
    assert container.status() == "running"
    fd = os.open(container.fifo("start"), os.O_RDWR)
    assert container.status() == "created"
    os.set_blocking(fd, False)
    with pytest.raises(BlockingIOError):
        os.read(fd, 1)  # asking for the status must not release init
    os.close(fd)
    assert container.status() == "running"


def test_paused_is_a_frozen_cgroup(store: state.Store, sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    (tmp_path / "cgroup.freeze").write_text("1\n")
    container = made(store, cgroup_dir=str(tmp_path), status="running")
    assert container.status() == "stopped"
    child_of(container, sleeper.pid)
    assert container.status() == "paused"
    (tmp_path / "cgroup.freeze").write_text("0\n")
    assert container.status() == "running"
    (tmp_path / "cgroup.freeze").unlink()
    assert container.status() == "running"


@pytest.mark.parametrize("change", [{"starttime": 1}, {"bootid": "other"}, {"pid": 1}, {"pid": 0}, {"pid": -1}])
def test_a_reused_pid_is_a_stopped_container(
    store: state.Store, sleeper: subprocess.Popen[bytes], change: Json
) -> None:
    container = made(store)
    child_of(container, sleeper.pid)
    assert container.status() == "running"
    container.data |= change
    assert container.status() == "stopped"
    assert container.kill_init(signal.SIGKILL) is False
    assert sleeper.poll() is None


def test_creating_as_long_as_its_maker_lives(store: state.Store, sleeper: subprocess.Popen[bytes]) -> None:
    container = made(store, status="creating")
    assert container.status() == "creating"  # this very process
    container.data["runtime"] = {"pid": sleeper.pid, "starttime": procfs.process_stat(sleeper.pid)[1]}
    assert container.status() == "creating"
    container.data["runtime"]["starttime"] += 1
    assert container.status() == "stopped"


def test_a_process_whose_first_thread_has_ended_lives(tmp_path: Path) -> None:
    source = tmp_path / "lead.c"
    source.write_text(
        "#include <pthread.h>\n#include <unistd.h>\nstatic void *other(void *p) { pause(); return p; }\n"
        "int main(void) { pthread_t t; pthread_create(&t, 0, other, 0); pthread_exit(0); }\n"
    )
    subprocess.run(["gcc", "-o", tmp_path / "lead", source, "-lpthread"], check=True)
    with subprocess.Popen([tmp_path / "lead"]) as child:
        try:
            deadline = time.monotonic() + 5
            while procfs.process_stat(child.pid)[0] != "Z" and time.monotonic() < deadline:
                time.sleep(0.01)
            letter, started = procfs.process_stat(child.pid)
            assert letter == "Z" and procfs.alive(child.pid, started)
        finally:
            child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not procfs.alive(child.pid, started)


@pytest.mark.parametrize(
    ("flags", "namespace", "alive"),
    [(0x400140, None, True), (0x40010C, None, True), (0x40010C, FileNotFoundError, False),
     (0x40010C, ProcessLookupError, False), (0x40010C, PermissionError, True), (0x400140, FileNotFoundError, True)],
)  # fmt: skip
def test_a_process_that_waits_for_zombies_of_others_has_ended(
    monkeypatch: pytest.MonkeyPatch, flags: int, namespace: type[OSError] | None, alive: bool
) -> None:
    fields = [b"S", *[b"0"] * 5, str(flags).encode(), *[b"0"] * 10, b"1", b"0", b"77"]
    monkeypatch.setattr(procfs, "stat_fields", lambda pid: fields)

    def readlink(path: str) -> str:
        assert path == "/proc/5/ns/mnt"
        if namespace:
            raise namespace
        return "mnt:[1]"

    monkeypatch.setattr(posix, "readlink", readlink)
    assert procfs.alive(5, 77) is alive and not procfs.alive(5, 78)


def test_names_with_brackets_do_not_confuse_the_start_time(tmp_path: Path) -> None:
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as child:
        try:
            deadline = time.monotonic() + 5
            while b"a) R" not in Path(f"/proc/{child.pid}/stat").read_bytes() and time.monotonic() < deadline:
                time.sleep(0.01)
            letter, started = procfs.process_stat(child.pid)
            up = float(Path("/proc/uptime").read_text().split()[0]) * os.sysconf("SC_CLK_TCK")
            assert letter in "SRD" and up - 6000 < started <= up + 1  # rounded
            assert procfs.alive(child.pid, started) and not procfs.alive(child.pid, started + 1)
        finally:
            child.kill()


def test_kill_init_signals(store: state.Store, sleeper: subprocess.Popen[bytes]) -> None:
    container = made(store)
    child_of(container, sleeper.pid)
    assert container.kill_init(0)
    assert sleeper.poll() is None
    assert container.kill_init(signal.SIGTERM)
    assert sleeper.wait(5) == -signal.SIGTERM


@pytest.mark.parametrize("reached", [True, False])
def test_kill_init_that_the_cgroup_ended(
    store: state.Store, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, reached: bool
) -> None:
    """An engine reaps init as soon as cgroup.kill has ended it: the signal arrived if the cgroup
    was killed by us."""
    container = made(store)
    child_of(container, sleeper.pid)

    def kill_cgroup(_: state.Container, number: int) -> bool:
        sleeper.kill()
        sleeper.wait(5)
        return reached

    monkeypatch.setattr(state.Container, "kill_cgroup", kill_cgroup)
    assert container.kill_init(signal.SIGKILL) is reached


def test_first_in_namespace(sleeper: subprocess.Popen[bytes]) -> None:
    assert not procfs.first_in_namespace(sleeper.pid)  # we are not pid 1
    assert procfs.first_in_namespace(4_000_000)  # gone: nothing remains to be killed


def test_a_process_that_cannot_be_looked_up_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_file(*_: object) -> bytes:
        raise OSError(errno.ENOMEM, "stat")

    monkeypatch.setattr(fs, "read_file", read_file)
    for ask in (lambda: procfs.alive(1, 0), procfs.boot_id, lambda: procfs.never_executed(1)):
        with pytest.raises(OSError, match="stat"):
            ask()


def test_never_executed() -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        assert procfs.never_executed(child)
        os.kill(child, signal.SIGKILL)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert procfs.never_executed(child), "a zombie tells, too"
    finally:
        os.waitpid(child, 0)
    assert not procfs.never_executed(child)


def test_a_program_has_been_executed(sleeper: subprocess.Popen[bytes]) -> None:
    assert not procfs.never_executed(sleeper.pid)
