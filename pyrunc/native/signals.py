"""The signals of the pyrunc process itself."""

from __future__ import annotations

from pyrunc.native.binding import calls

# (): record SIGHUP, SIGINT, SIGQUIT and SIGTERM instead of dying; an interrupted wait raises
# InterruptedError.
catch = calls.signals_catch
# (): the last recorded signal, or 0.
caught = calls.signals_caught
# (): restore the previous dispositions.
restore = calls.signals_restore
# (): block every signal except those of a fault, and return a descriptor that reports them.
signalfd = calls.signalfd


def read(fd: int) -> list[int]:
    """The numbers of the signals in a `signalfd`, without SIGPIPE from our own writes."""
    found: list[int] = []
    try:
        while True:
            found.append(calls.signalfd_read(fd))
    except OSError:
        return found
