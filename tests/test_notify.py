"""sd_notify: the container's messages reach the host with the pid that the host sees."""

from __future__ import annotations

import array
import os
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import transcript
from pyrunc import notify
from pyrunc.errors import SysError

kept = transcript.follow()


class Manager:
    """The host's service manager."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.settimeout(10)
        self.sock.bind(address)

    def receive(self) -> tuple[bytes, list[int]]:
        data, ancillary, _, _ = self.sock.recvmsg(4096, socket.CMSG_SPACE(16))
        fds: list[int] = []
        for _, _, payload in ancillary:
            fds += array.array("i", payload)
        return data, fds


@pytest.fixture
def init() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"])
    yield child
    child.kill()
    child.wait()


def say(directory: Path, text: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        fd = os.open(directory, os.O_PATH)
        sock.connect(f"/proc/self/fd/{fd}/{notify.SOCKET}")
        os.close(fd)
        sock.send(text)


def wait_in_thread(proxy: notify.Proxy, pid: int) -> tuple[threading.Thread, list[object]]:
    pidfd = os.pidfd_open(pid)
    results: list[object] = []

    def wait() -> None:
        try:
            results.append(proxy.wait(pidfd, pid))
        except Exception as error:
            results.append(error)
        os.close(pidfd)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread, results


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_pid_and_barrier(tmp_path: Path, init: subprocess.Popen[bytes], abstract: bool) -> None:
    address = f"@pyrunc-test-{os.getpid()}" if abstract else str(tmp_path / "host.sock")
    manager = Manager("\0" + address[1:] if abstract else address)
    directory = tmp_path / "notify"
    notify.prepare(str(directory))
    proxy = notify.Proxy(str(directory), address)
    thread, results = wait_in_thread(proxy, init.pid)
    say(directory, b"STATUS=not yet")
    say(directory, b"STATUS=now\nREADY=1\nMAINPID=1\n")
    assert manager.receive() == (b"READY=1", [])
    assert manager.receive() == (b"MAINPID=%d" % init.pid, [])
    data, fds = manager.receive()
    assert data == b"BARRIER=1" and len(fds) == 1
    thread.join(0.3)
    assert thread.is_alive()  # until the manager closes it
    os.close(fds[0])
    thread.join(5)
    assert results == [True]
    proxy.close()


def test_the_end_of_the_container_ends_the_wait(tmp_path: Path, init: subprocess.Popen[bytes]) -> None:
    directory = tmp_path / "notify"
    notify.prepare(str(directory))
    proxy = notify.Proxy(str(directory), str(tmp_path / "host.sock"))
    thread, results = wait_in_thread(proxy, init.pid)
    init.kill()
    thread.join(5)
    assert results == [False]
    proxy.close()


def test_ready_then_exit_is_ready(tmp_path: Path, init: subprocess.Popen[bytes]) -> None:
    manager = Manager(str(tmp_path / "host.sock"))
    directory = tmp_path / "notify"
    notify.prepare(str(directory))
    proxy = notify.Proxy(str(directory), str(tmp_path / "host.sock"))
    say(directory, b"READY=1")
    init.kill()
    os.waitid(os.P_PID, init.pid, os.WEXITED | os.WNOWAIT)
    thread, results = wait_in_thread(proxy, init.pid)
    assert manager.receive()[0] == b"READY=1"
    manager.receive()
    os.close(manager.receive()[1][0])
    thread.join(5)
    assert results == [True]
    proxy.close()


def test_modes_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        notify.prepare(str(tmp_path / "notify"))
        proxy = notify.Proxy(str(tmp_path / "notify"), "@x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "notify").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "notify" / notify.SOCKET).stat().st_mode) == 0o777
    proxy.close()


def test_a_directory_deeper_than_sun_path(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100) / ("e" * 64) / "notify"
    directory.parent.mkdir(parents=True)
    notify.prepare(str(directory))
    first = notify.Proxy(str(directory), "@x")
    second = notify.Proxy(str(directory), "@x")  # a socket that `create` or a killed `start` left is not in the way
    first.close()
    second.close()


def test_descriptors_from_the_container_do_not_arrive(tmp_path: Path, init: subprocess.Popen[bytes]) -> None:
    directory = tmp_path / "notify"
    notify.prepare(str(directory))
    proxy = notify.Proxy(str(directory), str(tmp_path / "host.sock"))
    read_end, write_end = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(str(directory / notify.SOCKET))
        socket.send_fds(sock, [b"STATUS=x"], [write_end])
    os.close(write_end)
    thread, _results = wait_in_thread(proxy, init.pid)
    os.set_blocking(read_end, True)
    assert os.read(read_end, 1) == b""  # the last copy was dropped
    init.kill()
    thread.join(5)
    os.close(read_end)
    proxy.close()


def test_errors_name_the_socket(tmp_path: Path, init: subprocess.Popen[bytes]) -> None:
    with pytest.raises(SysError, match="bind: ENOENT"):
        notify.Proxy(str(tmp_path / "no"), "@x")
    directory = tmp_path / "notify"
    notify.prepare(str(directory))
    with pytest.raises(SysError, match="mkdir: EEXIST"):
        notify.prepare(str(directory))
    proxy = notify.Proxy(str(directory), str(tmp_path / "nobody.sock"))
    thread, results = wait_in_thread(proxy, init.pid)
    say(directory, b"READY=1")
    thread.join(5)
    assert isinstance(results[0], SysError) and "NOTIFY_SOCKET" in str(results[0])
    proxy.close()
