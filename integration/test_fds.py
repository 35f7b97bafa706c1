"""Descriptors and sockets of a container: inherited, preserved and leaked ones, LISTEN_FDS,
sd_notify and the pidfd socket."""

from __future__ import annotations

import array
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from integration.harness import Box, Container, Result

Make = Callable[..., Container]
Refused = Callable[..., None]


@contextmanager
def passing(box: Box, count: int, first: int = 3) -> Iterator[dict[str, Any]]:
    """Arguments for a call that inherits `count` open files from fd 3 on; a wrapper shell opens
    them."""
    files = []
    for index in range(count):
        path = box.path / f"inherited{index}"
        path.write_text(f"content{index}")
        files.append(path)
    redirections = " ".join(f"{first + index}<{path}" for index, path in enumerate(files))
    yield {"wrap": ["/bin/sh", "-c", f'exec "$@" {redirections}', "sh"]}


def opened(report: dict[str, Any]) -> dict[int, str]:
    return {int(number): target for number, target in report["fds"].items()}


def test_only_stdio_reaches_the_program(container: Make, box: Box) -> None:
    with passing(box, 5) as inherit:
        assert set(opened(container().run(**inherit).report)) == {0, 1, 2}


def test_leaked_descriptors_are_gone_while_created(container: Make, box: Box) -> None:
    """CVE-2024-21626: the waiting process has no descriptor of the caller or of the host's tree."""
    one = container("exit", "0")
    with passing(box, 5) as inherit:
        one.create(**inherit)
    links = {name: os.readlink(f"/proc/{one.pid}/fd/{name}") for name in os.listdir(f"/proc/{one.pid}/fd")}
    assert not [target for target in links.values() if "inherited" in target], links
    host = [target for target in links.values() if target.startswith("/") and "/dev/null" not in target]
    kept = {str(one.out_file), str(one.err_file)}
    allowed = {str(box.root / one.id / name) for name in ("start", "error", "exec.fifo")}
    assert set(host) <= kept | allowed, links


@pytest.mark.parametrize("verb", ["create", "run"])
def test_preserve_fds(container: Make, box: Box, verb: str) -> None:
    one = container("report", "--", "read", "/proc/self/fd/3", "--", "read", "/proc/self/fd/4")
    with passing(box, 4) as inherit:
        if verb == "run":
            result: Result | Container = one.run("--preserve-fds", "2", **inherit)
        else:
            one.create("--preserve-fds", "2", **inherit)
            one.start()
            one.wait()
            result = one
    assert set(opened(result.report)) == {0, 1, 2, 3, 4}
    assert opened(result.report)[3].endswith("inherited0")
    assert opened(result.report)[4].endswith("inherited1")


@pytest.mark.pyrunc_only("runc 1.1.5 does not check")
def test_preserve_fds_that_are_not_open(container: Make, box: Box, refused: Refused) -> None:
    one = container()
    with passing(box, 1) as inherit:
        refused(one.create("--preserve-fds", "2", check=False, **inherit), "", "preserve-fds")


@pytest.mark.pyrunc_only("runc 1.1.5 takes -1")
@pytest.mark.parametrize("value", ["-1", "x", "99999999999"])
def test_bad_preserve_fds(container: Make, refused: Refused, value: str) -> None:
    refused(container().create("--preserve-fds", value, check=False), "", "preserve-fds")


LISTEN = 'export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=a:b; exec "$@" 3</etc/hostname 4</etc/hosts 5</etc/passwd'


def test_listen_fds(container: Make) -> None:
    seen = container().run(wrap=["/bin/sh", "-c", LISTEN, "sh"]).report
    assert {"LISTEN_FDS=2", "LISTEN_PID=1"} <= set(seen["env"])
    assert [opened(seen).get(number) for number in (3, 4, 5)] == ["/etc/hostname", "/etc/hosts", None]


@pytest.mark.pyrunc_only("runc says 1 whatever the pid is")
def test_listen_pid_without_a_pid_namespace(container: Make) -> None:
    namespaces = [{"type": kind} for kind in ("mount", "uts", "ipc", "network")]
    seen = container(edits={"/linux/namespaces": namespaces}).run(wrap=["/bin/sh", "-c", LISTEN, "sh"]).report
    assert {"LISTEN_FDS=2", f"LISTEN_PID={seen['pid']}"} <= set(seen["env"])


def test_listen_fds_and_preserved_ones(container: Make) -> None:
    seen = container().run("--preserve-fds", "1", wrap=["/bin/sh", "-c", LISTEN, "sh"]).report
    assert [opened(seen).get(number) for number in (3, 4, 5)] == ["/etc/hostname", "/etc/hosts", "/etc/passwd"]


def test_listen_fds_for_another_process(container: Make) -> None:
    seen = container().run(wrap=["/bin/sh", "-c", LISTEN.replace("=$$", "=1"), "sh"]).report
    assert set(opened(seen)) == {0, 1, 2}
    assert not [entry for entry in seen["env"] if entry.startswith("LISTEN_")]


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_closed_stdio(container: Make, closed: list[int]) -> None:
    """If the caller has no stdio, descriptors of the runtime must not become 0, 1 or 2 of the
    container."""
    redirections = " ".join(f"{number}>&-" for number in closed)
    one = container("report")
    result = one.run(wrap=["/bin/sh", "-c", f'exec "$@" {redirections}', "sh"], check=False)
    assert result.rc == 0
    if 1 not in closed:
        targets = opened(result.report)
        assert set(targets) <= {0, 1, 2}
        for number in closed:
            assert targets.get(number, "/dev/null").startswith(("/dev/null", "pipe:")), targets


def test_deleted_working_directory(container: Make, box: Box) -> None:
    one = container("say", "fine")
    gone = box.path / "gone"
    gone.mkdir()
    script = f'cd {gone} && rmdir {gone} && exec "$@"'
    assert one.run(wrap=["/bin/sh", "-c", script, "sh"]).out == "fine\n"


# --- sd_notify ------------------------------------------------------------------------------------


class Supervisor:
    """systemd's end of NOTIFY_SOCKET: collect datagrams, and answer the barrier by closing its
    descriptor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while not self.stop.is_set():
            if not select.select([self.socket], [], [], 0.05)[0]:
                continue
            data, control, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(64))
            self.lines += data.decode().splitlines()
            for _, _, payload in control:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % 4])
                for number in fds:
                    os.close(number)

    def close(self) -> None:
        self.stop.set()
        self.thread.join(5)
        self.socket.close()


@pytest.fixture
def supervisor(box: Box) -> Iterator[Supervisor]:
    made = Supervisor(box.path / "notify.sock")
    yield made
    made.close()


def _notify_env(supervisor: Supervisor) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(supervisor.path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def test_notify_through_start(container: Make, supervisor: Supervisor) -> None:
    one = container("report", "--", "notify", "STATUS=x", "--", "notify", "READY=1", "--", "signals", "60")
    env = _notify_env(supervisor)
    one.create(env=env)
    one.start(env=env)
    one.wait_output("ready")
    assert "READY=1" in supervisor.lines
    assert f"MAINPID={one.pid}" in supervisor.lines
    assert "NOTIFY_SOCKET=/run/notify/notify.sock" in one.report["env"]
    assert "/run/notify" in one.report["mountinfo"]
    assert str(supervisor.path) not in str(one.report["env"]), "the host's socket is not the container's business"


def test_start_waits_until_ready(container: Make, supervisor: Supervisor) -> None:
    one = container("sleep", "0.7", "--", "notify", "READY=1", "--", "signals", "60")
    env = _notify_env(supervisor)
    one.create(env=env)
    result = one.start(env=env)
    assert result.seconds > 0.5
    assert "READY=1" in supervisor.lines


@pytest.mark.pyrunc_only("runc 1.1.5 waits for ever while nobody reaps the dead init")
def test_start_does_not_wait_for_the_dead(container: Make, supervisor: Supervisor) -> None:
    one = container("sleep", "0.1", "--", "exit", "0")
    env = _notify_env(supervisor)
    one.create(env=env)
    one.start(env=env, check=False, timeout=8)
    assert "READY=1" not in supervisor.lines


def test_notify_through_run(container: Make, supervisor: Supervisor) -> None:
    one = container("notify", "READY=1", "--", "sleep", "0.3")
    one.run(env=_notify_env(supervisor), check=False)
    assert "READY=1" in supervisor.lines


# --- --pidfd-socket -------------------------------------------------------------------------------


@pytest.mark.pyrunc_only("newer than runc 1.1.5")
def test_pidfd_socket(container: Make, box: Box) -> None:
    path = box.path / "pidfd.sock"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    server.settimeout(10)
    one = container("signals", "60")
    one.create("--pidfd-socket", str(path))
    connection, _ = server.accept()
    with server, connection:
        payload, control, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(64))
        assert payload
        fds = array.array("i")
        for _, _, data in control:
            fds.frombytes(data[: len(data) - len(data) % 4])
        assert len(fds) == 1
        info = Path(f"/proc/self/fdinfo/{fds[0]}").read_text()
        assert f"Pid:\t{one.pid}\n" in info
        os.close(fds[0])


@pytest.mark.pyrunc_only("newer than runc 1.1.5")
def test_pidfd_socket_that_is_not_there(container: Make, box: Box, refused: Refused) -> None:
    refused(container().create("--pidfd-socket", str(box.path / "none"), check=False), "", str(box.path / "none"))
