"""Waiting for a program in the foreground: signals go to it, its terminal is relayed, its exit code is ours."""

from __future__ import annotations

import posix
from select import POLLIN, poll

from pyrunc import fs, runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from pyrunc.console import Relay
    from pyrunc.notify import Proxy

    class Job(Protocol):
        """A session whose program is about to start."""

        init_pid: int
        pidfd: int
        relay: Relay | None
        signal_fd: int


SIGCHLD, SIGURG, SIGWINCH = 17, 23, 28
_NOT_FORWARDED = (SIGCHLD, SIGURG, SIGWINCH)


class Watch:
    """A `run` or `exec` in the foreground, from before its program starts until its end."""

    __slots__ = ("job", "relay", "signals")

    def __init__(self, job: Job, subreaper: bool = False) -> None:
        self.job = job
        if subreaper:
            runtime.shim()[1].pr_set_child_subreaper(1)
        self.signals = Signals(job.signal_fd)
        self.relay = job.relay

    def wait(self, proxy: Proxy | None) -> int:
        """Wait for the program.  Returns its exit code, 128 + n for signal n."""
        try:
            status = Loop(self.job, self.signals, self.relay, proxy).run()
        finally:
            self.close()
        if posix.WIFSIGNALED(status):
            return 128 + posix.WTERMSIG(status)
        return posix.WEXITSTATUS(status)

    def close(self) -> None:
        """Put the terminal back; idempotent."""
        if self.relay is not None:
            self.relay.close()
            self.relay = None
        self.signals.close()


class Signals:
    """Every signal of ours arrives at a descriptor, so that one poll waits for everything."""

    __slots__ = ("fd", "lib")

    def __init__(self, fd: int) -> None:
        self.lib = runtime.shim()[1]
        self.fd = fd

    def read(self) -> list[int]:
        """The signals that came since the last call."""
        out: list[int] = []
        while (number := self.lib.pr_signalfd_read(self.fd)) > 0:
            out.append(number)
        return out

    def close(self) -> None:
        """Stop reporting; the signals stay blocked, so that none ends us while we clean up."""
        if self.fd >= 0:
            posix.close(self.fd)
            self.fd = -1


class Loop:
    """One poll over init's pidfd, the signal pipe and the relay's descriptors."""

    __slots__ = ("job", "poller", "proxy", "relay", "signals")

    def __init__(self, job: Job, signals: Signals, relay: Relay | None, proxy: Proxy | None) -> None:
        self.job, self.signals, self.relay, self.proxy = job, signals, relay, proxy
        self.poller = poll()
        self.poller.register(job.pidfd, POLLIN)
        self.poller.register(signals.fd, POLLIN)
        if proxy is not None:
            self.poller.register(proxy.fileno(), POLLIN)

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
            if self.proxy is not None and self.proxy.fileno() in ready:
                self.on_notify(self.proxy)
            if self.relay is not None:
                self.relay.handle({fd: event for fd, event in ready.items() if fd in masks})
            if self.job.pidfd in ready:
                if self.relay is not None:
                    self.relay.drain()
                return posix.waitpid(self.job.init_pid, 0)[1]

    def on_notify(self, proxy: Proxy) -> None:
        """sd_notify: READY is told once, then the container may say what it likes."""
        if proxy.take(self.job.init_pid):
            self.poller.unregister(proxy.fileno())
            proxy.close()
            self.proxy = None

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
