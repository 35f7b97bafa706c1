"""Waiting for a container in the foreground: signals go to it, its terminal is relayed, its exit code is ours."""

from __future__ import annotations

import _signal
import posix
from posix import O_CLOEXEC, O_NONBLOCK
from select import POLLIN, poll

from pyrunc import fs, lifecycle, runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.console import Relay
    from pyrunc.launch import Job

SIGCHLD, SIGURG, SIGWINCH = 17, 23, 28
# What cannot be caught, what means ourselves (faults of this process), and what is handled here.
_NOT_FORWARDED = {4, 5, 7, 8, 9, 11, 19, SIGCHLD, SIGURG, SIGWINCH, 32, 33}


def wait(job: Job) -> int:
    """Wait for the program of a `run`, remove its container (unless --keep), return its exit code (128 + n for signal n)."""
    if not job.opts.no_subreaper:
        runtime.shim()[1].pr_set_child_subreaper(1)
    signals = Signals()
    relay = open_relay(job)
    try:
        status = Loop(job, signals, relay).run()
    finally:
        if relay is not None:
            relay.close()
        signals.close()
    if not job.opts.keep:
        job.container.lock()
        lifecycle.remove(job.container, job.log)
    if posix.WIFSIGNALED(status):
        return 128 + posix.WTERMSIG(status)
    return posix.WEXITSTATUS(status)


def open_relay(job: Job) -> Relay | None:
    """The relay between the caller's terminal and the container's, when the container has one."""
    if job.console < 0:
        return None
    from pyrunc import console

    return console.Relay(console.receive_master(job.console))


class Signals:
    """Every signal of ours arrives as a byte in a pipe, so that one poll waits for everything."""

    __slots__ = ("reader", "writer")

    def __init__(self) -> None:
        self.reader, self.writer = posix.pipe2(O_CLOEXEC | O_NONBLOCK)
        _signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
        for number in _signal.valid_signals():
            if int(number) not in _NOT_FORWARDED - {SIGCHLD, SIGWINCH}:
                try:
                    _signal.signal(number, _note)
                except (OSError, ValueError):
                    pass  # reserved by libc

    def read(self) -> bytes:
        """The signals that came since the last call, one byte each."""
        try:
            return posix.read(self.reader, 4096)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Stop noting signals; their dispositions stay caught, so that none ends us while we clean up."""
        _signal.set_wakeup_fd(-1)
        posix.close(self.reader)
        posix.close(self.writer)


def _note(number: int, frame: object) -> None:
    """A handler must exist for the wake-up byte to be written."""


class Loop:
    """One poll over init's pidfd, the signal pipe and the relay's descriptors."""

    __slots__ = ("job", "poller", "relay", "signals")

    def __init__(self, job: Job, signals: Signals, relay: Relay | None) -> None:
        self.job, self.signals, self.relay = job, signals, relay
        self.poller = poll()
        self.poller.register(job.pidfd, POLLIN)
        self.poller.register(signals.reader, POLLIN)

    def run(self) -> int:
        """Until init has ended; returns its wait status."""
        while True:
            masks = self.relay.masks() if self.relay is not None else {}
            for fd, mask in masks.items():
                self.poller.register(fd, mask)
            ready = dict(self.poller.poll())
            for fd in masks:
                self.poller.unregister(fd)
            if self.signals.reader in ready:
                self.on_signals(self.signals.read())
            if self.relay is not None:
                self.relay.handle({fd: event for fd, event in ready.items() if fd in masks})
            if self.job.pidfd in ready:
                if self.relay is not None:
                    self.relay.drain()
                return posix.waitpid(self.job.init_pid, 0)[1]

    def on_signals(self, numbers: bytes) -> None:
        """Forward, resize or reap."""
        for number in numbers:
            if number == SIGWINCH:
                if self.relay is not None:
                    self.relay.resize()
            elif number == SIGCHLD:
                self.reap_orphans()
            elif number not in _NOT_FORWARDED:
                fs.ignore(_signal.pidfd_send_signal, self.job.pidfd, number)

    def reap_orphans(self) -> None:
        """As subreaper we inherit what a container without a pid namespace leaves; init itself is waited for in `run`."""
        while True:
            try:
                found = posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in (0, self.job.init_pid):
                return
            fs.ignore(posix.waitpid, found.si_pid, posix.WNOHANG)
