"""The parent's end of the socket to init: one record in, one record out.

`pyrunc.handshake` defines the records; `pyrunc.launch.session` handles them.
"""

from __future__ import annotations

from pyrunc import fs, handshake
from pyrunc.launch.spawn import of_init
from pyrunc.native import signals, sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrunc.launch.ending import Interrupts

# A signal during the start is forwarded to the program, unless the start takes longer than this.
START_TIMEOUT_MS = 1_000
_TERMINATING = frozenset((1, 2, 3, 15))  # SIGHUP, SIGINT, SIGQUIT, SIGTERM


class NoRecordError(Exception):
    """The time limit for a record expired."""


class SlowStartError(Exception):
    """A signal arrived, and the program did not start within START_TIMEOUT_MS."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Channel:
    """A SOCK_SEQPACKET socket.

    ``signal_fd`` is a signalfd, open once signals are to be forwarded to a foreground program.
    """

    __slots__ = ("fd", "signal_fd")

    def __init__(self) -> None:
        self.fd = self.signal_fd = -1

    def close(self) -> None:
        """Close the socket; idempotent.  init exits at EOF, unless its setup is complete."""
        if self.fd >= 0:
            fs.close(self.fd)
            self.fd = -1

    def block_signals(self) -> None:
        """Block all signals; those that arrive during the start stay pending for the program."""
        self.signal_fd = signal_descriptor()

    def receive(self, timeout: int, interrupts: Interrupts | None) -> handshake.Record | None:
        """The next record; None at EOF.  ``timeout`` is in ms; negative means no limit.

        Raises NoRecordError after the timeout, PyruncError and SlowStartError for a signal,
        SysError.
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
            except ConnectionResetError:
                # init has ended with an unread record of ours. The kernel reports that first, and
                # once: what init sent, and the end of file, are still to come.
                continue
            except OSError as error:
                raise of_init(error) from error
            else:
                return handshake.Record(data) if data else None

    def queued(self, most: int) -> Iterator[handshake.Record | None]:
        """Up to ``most`` records that have already arrived, and None last at EOF."""
        for _ in range(most):
            try:
                data = sockets.receive(self.fd, handshake.RECORD_SIZE, 0)
            except ConnectionResetError:  # see `receive`
                continue
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
        """Wait for a record or EOF with signals blocked; False after the timeout.

        Raises SlowStartError.
        """
        from select import POLLIN, poll

        poller = poll()
        poller.register(self.fd, POLLIN)
        poller.register(self.signal_fd, POLLIN)
        while ready := poller.poll(None if timeout < 0 else timeout):
            if any(fd == self.fd for fd, _ in ready):
                return True
            poller.unregister(self.signal_fd)
            if poller.poll(START_TIMEOUT_MS):
                return True  # the foreground loop forwards the pending signal
            for number in signals.read(self.signal_fd):
                if number in _TERMINATING:
                    raise SlowStartError(number)
            poller.register(self.signal_fd, POLLIN)
        return False


def signal_descriptor() -> int:
    """Block all signals and return a signalfd for them.  Raises SysError."""
    try:
        return signals.signalfd()
    except OSError as error:
        raise of_init(error) from error
