"""Waiting for a container in the foreground: signals go to it, its terminal is relayed, its exit code is ours."""

from __future__ import annotations

import posix
from select import POLLIN, poll

from pyrunc import fs, lifecycle, runtime
from pyrunc.errors import SysError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.console import Relay
    from pyrunc.launch import Job

SIGCHLD, SIGURG, SIGWINCH = 17, 23, 28
_NOT_FORWARDED = (SIGCHLD, SIGURG, SIGWINCH)


def wait(job: Job) -> int:
    """Wait for the program of a `run` and remove its container (unless --keep).

    Returns the program's exit code, 128 + n for signal n.
    """
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
    """Every signal of ours arrives at a descriptor, so that one poll waits for everything."""

    __slots__ = ("fd", "lib")

    def __init__(self) -> None:
        self.lib = runtime.shim()[1]
        fd = self.lib.pr_signalfd()
        if fd < 0:
            raise SysError("pyrunc", "signalfd", -fd)
        self.fd = fd

    def read(self) -> list[int]:
        """The signals that came since the last call."""
        out: list[int] = []
        while (number := self.lib.pr_signalfd_read(self.fd)) > 0:
            out.append(number)
        return out

    def close(self) -> None:
        """Stop reporting; the signals stay blocked, so that none ends us while we clean up."""
        posix.close(self.fd)


class Loop:
    """One poll over init's pidfd, the signal pipe and the relay's descriptors."""

    __slots__ = ("job", "poller", "relay", "signals")

    def __init__(self, job: Job, signals: Signals, relay: Relay | None) -> None:
        self.job, self.signals, self.relay = job, signals, relay
        self.poller = poll()
        self.poller.register(job.pidfd, POLLIN)
        self.poller.register(signals.fd, POLLIN)

    def run(self) -> int:
        """Until init has ended; returns its wait status."""
        while True:
            masks = self.relay.masks() if self.relay is not None else {}
            for fd, mask in masks.items():
                self.poller.register(fd, mask)
            ready = dict(self.poller.poll())
            for fd in masks:
                self.poller.unregister(fd)
            if self.signals.fd in ready:
                self.on_signals(self.signals.read())
            if self.relay is not None:
                self.relay.handle({fd: event for fd, event in ready.items() if fd in masks})
            if self.job.pidfd in ready:
                if self.relay is not None:
                    self.relay.drain()
                return posix.waitpid(self.job.init_pid, 0)[1]

    def on_signals(self, numbers: list[int]) -> None:
        """Forward, resize or reap."""
        for number in numbers:
            if number == SIGWINCH:
                if self.relay is not None:
                    self.relay.resize()
            elif number == SIGCHLD:
                self.reap_orphans()
            elif number not in _NOT_FORWARDED:
                self.signals.lib.pr_pidfd_send_signal(self.job.pidfd, number)

    def reap_orphans(self) -> None:
        """As subreaper we inherit what a container without a pid namespace leaves; `run` waits for init itself."""
        while True:
            try:
                found = posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in (0, self.job.init_pid):
                return
            fs.ignore(posix.waitpid, found.si_pid, posix.WNOHANG)
