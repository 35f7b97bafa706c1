"""The terminal relay, with a pty in place of the container's and another (or a pipe) in place of
the caller's."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import threading
import time
from collections.abc import Iterator

import pytest

import transcript
from pyrunc.launch import console

kept = transcript.follow()


@pytest.fixture
def fds() -> Iterator[list[int]]:
    """Descriptors to close at the end; -1 where a test has closed one."""
    opened: list[int] = []
    yield opened
    for fd in opened:
        try:
            os.close(fd)
        except OSError:
            pass


def open_pty(fds: list[int]) -> tuple[int, int]:
    master, slave = pty.openpty()
    fds += [slave]
    return master, slave


def pump(relay: console.Relay, seconds: float = 0.3) -> int:
    """Run the foreground loop for a while; return the number of its iterations."""
    turns, deadline = 0, time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        poller = select.poll()
        for fd, mask in relay.masks().items():
            poller.register(fd, mask)
        ready = dict(poller.poll(left * 1000))
        if ready:
            turns += 1
        relay.handle(ready)
    return turns


def test_bytes_go_both_ways(fds: list[int]) -> None:
    master, slave = open_pty(fds)
    in_r, in_w = os.pipe()
    out_r, out_w = os.pipe()
    fds += [in_r, in_w, out_r, out_w]
    relay = console.Relay(master, in_r, out_w)
    os.write(in_w, b"typed\n")
    os.write(slave, b"shown\n")
    pump(relay)
    assert os.read(slave, 100) == b"typed\n"
    seen = os.read(out_r, 100)
    assert b"shown\n" in seen and b"shown\r\n" not in seen  # ONLCR is off
    relay.close()


def test_nothing_is_lost_at_the_end(fds: list[int]) -> None:
    master, slave = pty.openpty()
    in_r, in_w = os.pipe()
    out_r, out_w = os.pipe()
    fds += [in_r, in_w, out_r]
    relay = console.Relay(master, in_r, out_w)
    size = 3_000_000
    block = bytes(range(65, 91)) * 100

    def container() -> None:
        left = size
        while left:
            left -= os.write(slave, block[: min(left, len(block))])
        os.close(slave)

    seen = bytearray()

    def reader() -> None:
        while data := os.read(out_r, 65536):
            seen.extend(data)

    threads = [threading.Thread(target=container), threading.Thread(target=reader)]
    for thread in threads:
        thread.start()
    while threads[0].is_alive():
        pump(relay, 0.05)
    relay.drain()
    os.close(out_w)
    threads[1].join()
    relay.close()
    assert len(seen) == size
    assert set(seen) == set(block)


def test_output_after_the_end_while_another_process_keeps_the_terminal(fds: list[int]) -> None:
    master, slave = open_pty(fds)
    in_r, in_w = os.pipe()
    out_r, out_w = os.pipe()
    fds += [in_r, in_w, out_r, out_w]
    relay = console.Relay(master, in_r, out_w)
    os.write(slave, b"last words\n")
    start = time.monotonic()
    relay.drain()
    assert time.monotonic() - start < 3
    assert os.read(out_r, 100) == b"last words\n"
    relay.close()


def test_no_busy_loop_when_all_is_closed(fds: list[int]) -> None:
    master, slave = pty.openpty()
    in_r, in_w = os.pipe()
    out_r, out_w = os.pipe()
    fds += [in_r, out_r, out_w]
    relay = console.Relay(master, in_r, out_w)
    os.close(in_w)
    os.close(slave)
    assert pump(relay) < 10
    assert relay.masks() == {}
    relay.close()


def test_no_busy_loop_with_a_reader_that_is_stuck(fds: list[int]) -> None:
    master, slave = open_pty(fds)
    in_r, in_w = os.pipe()
    out_r, out_w = os.pipe()
    fds += [in_r, in_w, out_r, out_w]
    os.set_blocking(out_w, False)
    while True:
        try:
            os.write(out_w, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(out_w, True)
    relay = console.Relay(master, in_r, out_w)
    os.write(slave, b"waits\n")
    assert pump(relay) < 10
    os.close(slave)  # from now on the master reports POLLHUP, whatever events are requested
    assert pump(relay) < 10
    os.read(out_r, 1 << 20)
    pump(relay)
    assert os.read(out_r, 100).endswith(b"waits\n")
    relay.close()


def test_a_reader_that_is_gone_does_not_stop_the_container(fds: list[int]) -> None:
    master, slave = open_pty(fds)
    in_r, in_w = os.pipe()
    out_r, out_w = os.pipe()
    fds += [in_r, in_w, out_w]
    os.close(out_r)
    relay = console.Relay(master, in_r, out_w)
    os.set_blocking(slave, False)
    written = 0
    for _ in range(100):
        written += os.write(slave, b"x" * 1000)
        pump(relay, 0.005)
    assert written == 100_000  # more than a terminal and a pipe hold
    relay.close()


def test_the_end_of_input_is_reported(fds: list[int]) -> None:
    master, slave = open_pty(fds)
    in_r, in_w = os.pipe()
    out_r, out_w = os.pipe()
    fds += [in_r, out_r, out_w]
    relay = console.Relay(master, in_r, out_w)
    os.write(in_w, b"all\n")
    os.close(in_w)
    pump(relay)
    os.set_blocking(slave, False)
    assert os.read(slave, 100) == b"all\n"
    assert os.read(slave, 100) == b""
    relay.close()


def test_raw_mode_and_back(fds: list[int]) -> None:
    master, _slave = open_pty(fds)
    ours, caller = pty.openpty()
    fds += [ours, caller]
    before = termios.tcgetattr(caller)
    relay = console.Relay(master, caller, caller)
    raw = termios.tcgetattr(caller)
    assert not raw[3] & (termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
    assert not raw[0] & (termios.ICRNL | termios.IXON)
    assert raw[1] & termios.OPOST and raw[1] & termios.ONLCR  # the container's ONLCR is off
    relay.close()
    assert termios.tcgetattr(caller) == before
    relay.close()


def test_the_shared_descriptors_stay_blocking(fds: list[int]) -> None:
    master, _slave = open_pty(fds)
    ours, caller = pty.openpty()
    fds += [ours, caller]
    relay = console.Relay(master, caller, caller)
    assert os.get_blocking(caller) and not os.get_blocking(master)
    relay.close()


def test_sizes(fds: list[int]) -> None:
    master, slave = open_pty(fds)
    ours, caller = pty.openpty()
    null = os.open("/dev/null", os.O_RDWR)
    fds += [ours, caller, null]

    def size() -> tuple[int, ...]:
        return struct.unpack("HHHH", fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8)))

    fcntl.ioctl(caller, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    relay = console.Relay(os.dup(master), null, caller)
    assert size()[:2] == (30, 100)
    fcntl.ioctl(caller, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    relay.resize()
    assert size()[:2] == (40, 120)
    fcntl.ioctl(caller, termios.TIOCSWINSZ, bytes(8))
    relay.resize()
    assert size()[:2] == (40, 120)  # 0 x 0 means unknown
    relay.close()
    os.close(master)


def test_receive_master(fds: list[int]) -> None:
    pytest.importorskip("pyrunc._shim", reason="the extension is not built")
    import socket

    from pyrunc.errors import PyruncError

    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, two:
        master, _slave = open_pty(fds)
        socket.send_fds(one, [b"/dev/ptmx"], [master])
        os.close(master)
        got = console.receive_master(two.fileno())
        fds.append(got)
        assert os.isatty(got) and not os.get_inheritable(got)
        one.send(b"no descriptor")
        with pytest.raises(PyruncError, match="no terminal"):
            console.receive_master(two.fileno())
