"""The parent's end of the socket to init: one record in, one record out.

What the records mean is in `pyrunc.handshake`; who answers them is in `pyrunc.launch.session`.
"""

from __future__ import annotations

from pyrunc import fs, handshake
from pyrunc.launch.spawn import of_init
from pyrunc.native import signals, sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrunc.launch.ending import Interrupts

# A signal that arrives while the program starts is forwarded to it, unless the start takes longer.
START_TIMEOUT_MS = 1_000
_TERMINATING = frozenset((1, 2, 3, 15))  # SIGHUP, SIGINT, SIGQUIT, SIGTERM


class NoRecordError(Exception):
    """No record arrived in time."""


class SlowStartError(Exception):
    """A signal arrived, and the program did not start soon after it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Channel:
    """A SOCK_SEQPACKET socket; ``signal_fd`` is a signalfd, once our signals are for the program in the foreground."""

    __slots__ = ("fd", "signal_fd")

    def __init__(self) -> None:
        self.fd = self.signal_fd = -1

    def close(self) -> None:
        """Close the socket; idempotent.  At its EOF an init that is still setting up exits."""
        if self.fd >= 0:
            fs.close(self.fd)
            self.fd = -1

    def block_signals(self) -> None:
        """Block all signals and keep them: one that arrives while the program starts is for the program."""
        self.signal_fd = signal_descriptor()

    def receive(self, timeout: int, interrupts: Interrupts | None) -> handshake.Record | None:
        """The next record; None at EOF.  ``timeout`` is in ms, negative for none.

        Raises NoRecordError on timeout, PyruncError and SlowStartError for a signal, SysError.
        """
        if self.signal_fd >= 0 and timeout and not self._await_record(timeout):
            raise NoRecordError
        while True:
            try:
                data = sockets.receive(self.fd, handshake.RECORD_SIZE, timeout)
            except InterruptedError:
                if interrupts is not None:
                    interrupts.check()
            except TimeoutError:
                raise NoRecordError from None
            except ConnectionResetError:  # init died with a record of ours unread
                return None
            except OSError as error:
                raise of_init(error) from error
            else:
                return handshake.Record(data) if data else None

    def queued(self, most: int) -> Iterator[handshake.Record | None]:
        """Up to ``most`` records that have arrived; None, as the last, for EOF."""
        for _ in range(most):
            try:
                data = sockets.receive(self.fd, handshake.RECORD_SIZE, 0)
            except ConnectionResetError:
                data = b""
            except OSError:
                return
            if not data:
                yield None
                return
            yield handshake.Record(data)

    def send(self, kind: int, value: int, fds: list[int]) -> bool:
        """Send a record with descriptors attached; False if init is gone.  Raises SysError."""
        try:
            sockets.send(self.fd, handshake.encode(kind, value), fds)
        except (BrokenPipeError, ConnectionResetError):
            return False
        except OSError as error:
            raise of_init(error) from error
        return True

    def _await_record(self, timeout: int) -> bool:
        """Wait for a record or EOF while our signals are blocked; False on timeout.  Raises SlowStartError."""
        from select import POLLIN, poll

        poller = poll()
        poller.register(self.fd, POLLIN)
        poller.register(self.signal_fd, POLLIN)
        while ready := poller.poll(None if timeout < 0 else timeout):
            if any(fd == self.fd for fd, _ in ready):
                return True
            poller.unregister(self.signal_fd)
            if poller.poll(START_TIMEOUT_MS):
                return True  # the signal stays pending, for the foreground loop to forward
            for number in signals.read(self.signal_fd):
                if number in _TERMINATING:
                    raise SlowStartError(number)
            poller.register(self.signal_fd, POLLIN)
        return False


def signal_descriptor() -> int:
    """Block our signals; the descriptor that reports them.  Raises SysError."""
    try:
        return signals.signalfd()
    except OSError as error:
        raise of_init(error) from error
