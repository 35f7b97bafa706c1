"""Connections, file locks and terminals that a container shares with the outside."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from integration.checkpoint import support
from integration.checkpoint.support import Counter, until
from integration.harness import Holder, wait_until
from integration.machine import libc

Make = Callable[..., Counter]
PORT = 7000
CLIENT = f"({support.COUNT}) | nc 127.0.0.1 {PORT}; echo closed; while :; do sleep 1; done"
LOCKS = ("nftables", "iptables", "skip")
tcp = pytest.mark.skipif(bool(support.why_no_tcp()), reason=support.why_no_tcp())


@contextmanager
def network_of(net: Holder) -> Iterator[None]:
    """Create this thread's sockets in the namespace."""
    own, other = (os.open(path, os.O_RDONLY) for path in ("/proc/thread-self/ns/net", net.path("network")))
    try:
        libc("setns", other, 0)
        yield
    finally:
        libc("setns", own, 0)
        os.close(own)
        os.close(other)


class Echo:
    """A server in a network namespace that returns what it receives."""

    def __init__(self, net: Holder) -> None:
        subprocess.run(["nsenter", f"--net={net.path('network')}", "ip", "link", "set", "lo", "up"], check=True)
        with network_of(net):
            self.listener = socket.create_server(("127.0.0.1", PORT))
        self.connection: socket.socket | None = None
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        with suppress(OSError):
            self.connection, _ = self.listener.accept()
            while data := self.connection.recv(4096):
                self.connection.sendall(data)

    def close(self) -> None:
        for one in (self.connection, self.listener):
            if one is not None:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
        self.thread.join(support.TIMEOUT)


@pytest.fixture
def connected(counter: Make, holder: Callable[..., Holder]) -> Iterator[Counter]:
    """A container that counts over a connection to a server in its existing network namespace."""
    net = holder("network")
    echo = Echo(net)
    yield counter(CLIENT, edits={"/linux/namespaces/1": {"type": "network", "path": net.path("network")}})
    echo.close()


@tcp
def test_a_connection_is_refused_without_the_flag(connected: Counter) -> None:
    one = connected
    one.run()
    result = one.checkpoint(check=False)
    assert result.rc == 1 and "onnected TCP socket" in result.err + one.log("dump.log")
    one.go_on()


@tcp
@pytest.mark.parametrize("lock", ["", *LOCKS])
def test_a_connection_survives(connected: Counter, lock: str) -> None:
    one = connected
    if lock and one.peer:
        pytest.skip("runc has no --network-lock")
    flags = ("--tcp-established", *(("--network-lock", lock) if lock else ()))
    one.run()
    one.checkpoint(*flags)
    last = one.numbers[-1]
    one.restore(*flags)
    one.go_on()
    # With "skip" the kernel answers for a closed socket, so the connection may be lost.
    assert lock == "skip" or "closed" not in one.out
    assert lock == "skip" or one.numbers == list(range(last + 1, one.numbers[-1] + 1))


@tcp
@pytest.mark.pyrunc_only("runc has no --tcp-close")
def test_a_connection_can_be_closed(connected: Counter) -> None:
    """The connection is restored closed, and the program sees its end."""
    one = connected
    one.run()
    one.checkpoint("--tcp-established")
    one.restore("--tcp-close")
    wait_until(lambda: "closed" in one.out, "the end of the connection", support.TIMEOUT)
    assert one.made.status == "running"


@tcp
def test_a_connection_in_flight(counter: Make, holder: Callable[..., Holder]) -> None:
    """A connection that is not yet accepted is in the backlog of the container's socket."""
    net = holder("network")
    subprocess.run(["nsenter", f"--net={net.path('network')}", "ip", "link", "set", "lo", "up"], check=True)
    edits = {"/linux/namespaces/1": {"type": "network", "path": net.path("network")}}
    one = counter(f"nc -l -p {PORT} </dev/zero >/dev/null & sleep 0.5; kill -STOP $!; {support.COUNT}", edits=edits)
    one.run()

    def connect() -> socket.socket | None:
        with network_of(net), suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", PORT))
        return None

    with wait_until(connect, "a listener"):
        result = one.checkpoint("--tcp-established", check=False)
        assert result.rc == 1 and "n-flight connection" in result.err + one.log("dump.log")
        one.go_on()
        one.checkpoint("--tcp-established", "--tcp-skip-in-flight")
        last = one.numbers[-1]
        one.restore("--tcp-established")
        one.go_on()
        assert one.numbers[0] == last + 1


def test_a_file_lock(counter: Make, client: Path) -> None:
    one = counter()
    one.runs(client, "lock", "/lock")
    one.run()
    result = one.checkpoint(check=False)
    assert result.rc == 1 and "ile lock" in result.err + one.log("dump.log")
    one.go_on()
    one.checkpoint("--file-locks")
    one.restore("--file-locks")
    one.go_on()
    with (one.made.bundle.rootfs / "lock").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_unix_socket_of_the_host(counter: Make, holder: Callable[..., Holder], client: Path, tmp_path: Path) -> None:
    """A datagram socket that is connected to a socket outside, as for syslog(3).

    CRIU looks for the peer in the container's network namespace, and connects to the name that the
    peer was bound to.
    """
    net = holder("network")
    space = {"/linux/namespaces/1": {"type": "network", "path": net.path("network")}}
    mount = {"destination": str(tmp_path), "source": str(tmp_path), "type": "bind", "options": ["bind"]}
    with network_of(net):
        server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with server:
        server.bind(str(tmp_path / "log"))
        server.setblocking(False)
        one = counter(edits={"/mounts/-": mount, **space})
        one.runs(client, "unix", str(tmp_path / "log"))
        one.run()
        result = one.checkpoint(check=False)
        assert result.rc == 1 and "xternal socket" in result.err + one.log("dump.log")
        one.go_on()
        one.checkpoint("--ext-unix-sk")
        received(server)
        last = one.numbers[-1]
        one.restore("--ext-unix-sk")
        one.go_on()
        assert received(server)[0] == one.numbers[0] == last + 1


def received(server: socket.socket) -> list[int]:
    """The numbers that arrived."""
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(int(server.recv(100)))
    return found


@pytest.mark.pyrunc_only("CRIU opens a terminal that nobody has at the other end")
def test_the_terminal_of_the_caller(counter: Make) -> None:
    """--shell-job: stdio is a terminal outside the container; a restore uses the terminal of its
    caller."""
    one = counter()
    one.made.bundle.save()

    def call(verb: str, *flags: str) -> tuple[int, int]:
        ours, theirs = os.openpty()
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        rc = one.started(verb, *flags, check=False, **streams)
        os.close(theirs)
        return rc, ours

    rc, ours = call("run")
    assert rc == 0
    until(ours, b"3\r\n")
    assert one.checkpoint(check=False).rc == 1
    assert one.made.status == "running"
    one.checkpoint("--shell-job")
    last = int(until(ours, b"\n").split()[-1])
    os.close(ours)
    rc, ours = call("restore", *one.flags(), "--shell-job")
    assert rc == 0, one.log("restore.log")
    assert int(until(ours, b"\r\n").split()[0]) > last
    os.close(ours)
