"""Wait for a foreground program: forward signals, relay its terminal, return its exit code."""

from __future__ import annotations

import posix
from select import POLLIN, poll

from pyrunc import fs
from pyrunc.native import processes, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from pyrunc.launch.channel import Channel
    from pyrunc.launch.console import Relay
    from pyrunc.launch.streams import Streams
    from pyrunc.notify import Proxy

    class Session(Protocol):
        """A session whose program is about to start."""

        channel: Channel
        init_pid: int
        pidfd: int
        relay: Relay | None
        streams: Streams | None


SIGCHLD, SIGURG, SIGWINCH = 17, 23, 28
_NOT_FORWARDED = (SIGCHLD, SIGURG, SIGWINCH)
_ENDING = frozenset((1, 2, 3, 15))  # SIGHUP, SIGINT, SIGQUIT, SIGTERM: end `drain`


class Watch:
    """A `run` or `exec` in the foreground, from before its program starts until it exits."""

    __slots__ = ("loop", "relay", "session", "signals", "streams")

    def __init__(self, session: Session, subreaper: bool = False) -> None:
        self.session = session
        if subreaper:
            processes.set_child_subreaper(1)
        self.signals = Signals(session.channel.signal_fd)
        self.relay, self.streams = session.relay, session.streams
        self.loop: Loop | None = None

    def wait(self, proxy: Proxy | None) -> int:
        """Wait for the program to exit and close its terminal.

        Returns its exit code, 128 + n for signal n.
        """
        self.loop = Loop(self.session, self.signals, self.relay or self.streams, proxy)
        try:
            status = self.loop.run()
        except BaseException:
            self.close()
            raise
        if self.relay is not None:
            self.relay.drain()
            self.relay.close()
            self.relay = None
        if posix.WIFSIGNALED(status):
            return 128 + posix.WTERMSIG(status)
        return posix.WEXITSTATUS(status)

    def drain(self) -> None:
        """Copy output until EOF, after `wait` and after the container's processes were killed.

        As in runc, EOF comes when no process has the pipes open, so a background process that
        outlives the program delays it.  A terminating signal ends the drain.
        """
        try:
            if self.streams is not None and self.loop is not None:
                self.streams.drain()
                self.loop.drain(self.streams)
        finally:
            self.close()

    def close(self) -> None:
        """Restore the terminal and close the pipes; idempotent."""
        if self.relay is not None:
            self.relay.close()
            self.relay = None
        if self.streams is not None:
            self.streams.close()
            self.streams = None
        self.signals.close()


class Signals:
    """A signalfd for all our signals, so that one poll waits for everything."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self) -> list[int]:
        """The signals that arrived since the last call."""
        return signals.read(self.fd)

    def close(self) -> None:
        """Close the signalfd.  Signals stay blocked, so that none ends us during cleanup."""
        if self.fd >= 0:
            posix.close(self.fd)
            self.fd = -1


class Loop:
    """One poll over init's pidfd, the signals and the descriptors of the terminal or the pipes."""

    __slots__ = ("poller", "proxy", "relay", "session", "signals")

    def __init__(self, session: Session, signals: Signals, relay: Relay | Streams | None, proxy: Proxy | None) -> None:
        self.session, self.signals, self.relay, self.proxy = session, signals, relay, proxy
        self.poller = poll()
        self.poller.register(session.pidfd, POLLIN)
        self.poller.register(signals.fd, POLLIN)
        if proxy is not None:
            self.poller.register(proxy.fileno(), POLLIN)

    def run(self) -> int:
        """Wait until init exits, and return its wait status."""
        while True:
            ready, _ = self.wait()
            if self.proxy is not None and self.proxy.fileno() in ready:
                self.on_notify(self.proxy)
            if self.session.pidfd in ready:
                self.poller.unregister(self.session.pidfd)
                return posix.waitpid(self.session.init_pid, 0)[1]

    def drain(self, streams: Streams) -> None:
        """Wait until all pipes reach EOF or a terminating signal arrives."""
        if self.proxy is not None:
            self.poller.unregister(self.proxy.fileno())
        while streams.masks():
            if _ENDING.intersection(self.wait()[1]):
                return

    def wait(self) -> tuple[dict[int, int], list[int]]:
        """Poll once, forward signals and bytes.  Returns what poll(2) reported, and the signals."""
        masks = self.relay.masks() if self.relay is not None else {}
        for fd, mask in masks.items():
            self.poller.register(fd, mask)
        ready: dict[int, int] = dict(self.poller.poll())
        for fd in masks:
            self.poller.unregister(fd)
        signals = self.signals.read() if self.signals.fd in ready else []
        self.on_signals(signals)
        if self.relay is not None:
            self.relay.handle({fd: event for fd, event in ready.items() if fd in masks})
        return ready, signals

    def on_notify(self, proxy: Proxy) -> None:
        """Forward READY of sd_notify once; later messages of the container are ignored."""
        if proxy.take(self.session.init_pid):
            self.poller.unregister(proxy.fileno())
            proxy.close()
            self.proxy = None

    def on_signals(self, numbers: list[int]) -> None:
        """Handle signals: forward them, resize the terminal, or reap orphans."""
        for number in numbers:
            if number == SIGWINCH:
                if self.session.relay is not None:
                    self.session.relay.resize()
            elif number == SIGCHLD:
                self.reap_orphans()
            elif number not in _NOT_FORWARDED:
                fs.ignore(processes.pidfd_send_signal, self.session.pidfd, number)

    def reap_orphans(self) -> None:
        """Reap orphans, except init.

        As subreaper we inherit the orphans of a container without a pid namespace.
        """
        while True:
            try:
                found = posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in (0, self.session.init_pid):
                return
            fs.ignore(posix.waitpid, found.si_pid, posix.WNOHANG)
