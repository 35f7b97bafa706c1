"""Call a runtime with the caller's settings of a case, in bounded time, and read all of its
output."""

from __future__ import annotations

import array
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from integration.differential import model
from integration.harness import SLOW

LIMIT = 10 * SLOW  # seconds, for one command
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# All signals but those that cannot be changed and glibc's two internal ones.
_DEFAULT = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, 32, 33})


class Done(NamedTuple):
    """One call: the exit status as in a shell (-1 if it did not exit) and the output."""

    rc: int
    out: str
    err: str


def status_of(raw: int) -> int:
    """Convert a wait status to the form that a shell shows."""
    code = os.waitstatus_to_exitcode(raw)
    return code if code >= 0 else 128 - code


class Reader:
    """Descriptors that others write to, and the data received from each.

    Each has its own number, because the kernel reuses the number of a closed descriptor.
    """

    def __init__(self) -> None:
        self.texts: dict[int, bytes] = {}
        self.open: dict[int, int] = {}

    def add(self, fd: int) -> int:
        """Read from this descriptor until its end, then close it. Return the number for
        `finish`."""
        os.set_blocking(fd, False)
        number = len(self.texts)
        self.texts[number] = b""
        self.open[number] = fd
        return number

    def read(self, number: int) -> None:
        """Read what is available."""
        fd = self.open[number]
        while True:
            try:
                piece = os.read(fd, 1 << 16)
            except BlockingIOError:
                return
            except OSError:  # EIO: the terminal has no other open descriptor
                piece = b""
            self.texts[number] += piece
            if not piece:
                del self.open[number]
                os.close(fd)
                return

    def wait(self, pid: int, limit: float) -> int | None:
        """Wait for a child, reading meanwhile. Return its wait status, None if it still runs after
        `limit` seconds."""
        end = time.monotonic() + limit
        poller = select.poll()
        watch = os.pidfd_open(pid)
        poller.register(watch, select.POLLIN)
        numbers = {fd: number for number, fd in self.open.items()}
        for fd in numbers:
            poller.register(fd, select.POLLIN)
        try:
            while True:
                left = end - time.monotonic()
                events = dict(poller.poll(max(left, 0) * 1000)) if left > 0 else {}
                for fd in events.keys() - {watch}:
                    self.read(numbers[fd])
                    if numbers[fd] not in self.open:
                        poller.unregister(fd)
                if watch in events:
                    return os.waitpid(pid, 0)[1]
                if left <= 0:
                    return None
        finally:
            os.close(watch)

    def finish(self, number: int, limit: float = 2.0) -> str:
        """Return everything written to one descriptor, until its end or for `limit` seconds."""
        end = time.monotonic() + limit
        while number in self.open and time.monotonic() < end:
            select.select([self.open[number]], [], [], 0.05)
            self.read(number)
        return self.texts[number].decode(errors="replace")

    def close(self) -> None:
        """Close all open descriptors."""
        for fd in self.open.values():
            os.close(fd)
        self.open.clear()


class Streams(NamedTuple):
    """A child's descriptors 0, 1 and 2; `closing` are closed here once the child has them."""

    fds: tuple[int, int, int]
    closing: Sequence[int] = ()


def environment(caller: dict[str, Any]) -> dict[str, str]:
    """The environment with which a runtime is called."""
    pairs = [PATH, *caller.get("env", ())]
    return dict(pair.partition("=")[::2] for pair in pairs)


def spawn(argv: Sequence[str], streams: Streams, caller: dict[str, Any]) -> int:
    """Start a command with the caller's settings.

    `caller` may set umask, env (a list of NAME=VALUE), ignore and block (signals), and descriptors
    (the number of descriptors open from 3 on).
    """
    actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams.fds)]
    spare = None
    if caller.get("descriptors"):
        spare = os.open(
            "/etc/hostname" if os.path.exists("/etc/hostname") else "/etc/passwd", os.O_RDONLY | os.O_CLOEXEC
        )
        high = fcntl.fcntl(spare, fcntl.F_DUPFD_CLOEXEC, 100)
        os.close(spare)
        spare = high
        actions += [(os.POSIX_SPAWN_DUP2, spare, 3 + number) for number in range(caller["descriptors"])]
    ignored = [signal.Signals(number) for number in caller.get("ignore", ())]
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in ignored]
    mask = os.umask(caller.get("umask", 0o022))
    try:
        return os.posix_spawn(
            argv[0],
            list(argv),
            environment(caller),
            file_actions=actions,
            setsigdef=[number for number in _DEFAULT if number not in ignored],
            setsigmask=list(caller.get("block", ())),
        )
    finally:
        os.umask(mask)
        for number, handler in before:
            signal.signal(number, handler)
        for fd in streams.closing:
            os.close(fd)
        if spare is not None:
            os.close(spare)


class Console:
    """The listening socket of --console-socket, and the terminals received through it."""

    def __init__(self, path: str = model.CONSOLE) -> None:
        with suppress(FileNotFoundError):
            os.unlink(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(path)
        self.socket.listen(4)
        self.socket.settimeout(0.2)

    def receive(self) -> int | None:
        """The master of the terminal, None if nothing was sent."""
        try:
            peer, _ = self.socket.accept()
        except OSError:
            return None
        with peer:
            peer.settimeout(2)
            room = socket.CMSG_SPACE(8 * struct.calcsize("i"))
            try:
                _, ancillary, _, _ = peer.recvmsg(4096, room)
            except OSError:
                return None
        found = array.array("i")
        for _, kind, data in ancillary:
            if kind == socket.SCM_RIGHTS:
                found.frombytes(data[: len(data) - len(data) % found.itemsize])
        for extra in found[1:]:
            os.close(extra)
        return found[0] if found else None

    def close(self) -> None:
        """Stop listening."""
        self.socket.close()


def window(fd: int) -> list[int]:
    """Rows and columns of a terminal."""
    return list(struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))))[:2]
