"""Signals of pyrunc itself."""

from __future__ import annotations

from pyrunc.native.binding import calls

# (): note SIGHUP, SIGINT, SIGQUIT and SIGTERM instead of ending; a wait that one interrupts raises InterruptedError.
catch = calls.signals_catch
# (): the last one that was noted, 0 without any.
caught = calls.signals_caught
# (): the former dispositions.
restore = calls.signals_restore
# (): block every signal but those of a fault, and return a descriptor that reports them.
signalfd = calls.signalfd


def read(fd: int) -> list[int]:
    """The numbers of the signals that a `signalfd` has to report, but no SIGPIPE of our own writes."""
    found: list[int] = []
    try:
        while True:
            found.append(calls.signalfd_read(fd))
    except OSError:
        return found
