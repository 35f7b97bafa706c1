"""Events of containers until they stop: periodic statistics, and kills by the OOM killer."""

from __future__ import annotations

import posix
import select
import time
from posix import O_CLOEXEC, O_RDONLY

from pyrunc import fs, state
from pyrunc.cgroup import stats
from pyrunc.errors import PyruncError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Literal, NotRequired, TypedDict

    from pyrunc.log import Log
    from pyrunc.state import Container

    class Event(TypedDict):
        """An event as `events` prints it."""

        type: Literal["stats", "oom"]
        id: str
        data: NotRequired[Any]  # statistics; pyrunc/api/types.py defines the members

    Emit = Callable[[Event], object]

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def duration(text: str) -> float | None:
    """Parse a Go duration (``5s``, ``1m30s``, ``1.5h``, ``250ms``).  Returns seconds, or None."""
    rest = text.removeprefix("+")
    if rest == "0":
        return 0.0
    total = 0.0
    while rest:
        end = next((at for at, char in enumerate(rest) if char not in "0123456789."), len(rest))
        digits, rest = rest[:end], rest[end:]
        end = next((at for at, char in enumerate(rest) if char in "0123456789."), len(rest))
        unit, rest = rest[:end], rest[end:]
        if unit not in _UNITS or digits.count(".") > 1 or not digits.strip(".") or len(digits) > 18:
            return None
        total += float(digits) * _UNITS[unit] / 10**9
    return total if text.removeprefix("+") else None


def measure(container: Container) -> Event:
    """The stats event of a container.  Raises StateError if it has stopped, PyruncError."""
    if container.status() in ("stopped", "creating"):
        raise StateError("container not running")
    data = stats.read(container.data.get("cgroup_dir") or "")
    return {"type": "stats", "id": container.id, "data": data}


class Watch:
    """A watched container.

    ``fd`` becomes ready when memory.events changes; it is -1 without a memory controller.
    """

    __slots__ = ("container", "fd", "kills", "pidfd")

    def __init__(self, container: Container) -> None:
        """Open the descriptors.  Raises StateError if the container has stopped, OSError."""
        self.container, self.fd, self.kills = container, -1, 0
        self.pidfd = container.open_init() if container.status() not in ("stopped", "creating") else -1
        if self.pidfd < 0:
            raise StateError("container not running")
        try:
            self.fd = posix.open(container.data.get("cgroup_dir", "") + "/memory.events", O_RDONLY | O_CLOEXEC)
        except OSError:
            pass
        self.kills = self.oom_kills()

    def oom_kills(self) -> int:
        """The number of OOM kills so far.  The read also re-arms the descriptor."""
        if self.fd < 0:
            return 0
        try:
            posix.lseek(self.fd, 0, 0)
            return stats.pairs(fs.read_fd(self.fd, 65536).decode("ascii", "replace")).get("oom_kill", 0)
        except OSError:  # the cgroup was removed
            posix.close(self.fd)
            self.fd = -1
            return self.kills

    def news(self) -> Iterator[Event]:
        """Yield one event if there were OOM kills since the last call."""
        before, self.kills = self.kills, self.oom_kills()
        if self.kills > before:
            yield {"type": "oom", "id": self.container.id}

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self.pidfd, self.fd):
            if fd >= 0:
                posix.close(fd)
        self.pidfd = self.fd = -1


def follow(containers: list[Container], interval: float, emit: Emit, log: Log) -> None:
    """Pass the events of `watch` to ``emit``.  Raises StateError."""
    for event in watch(containers, interval, log):
        emit(event)


def watch(containers: list[Container], interval: float, log: Log) -> Iterator[Event]:
    """Yield events until all containers have stopped, with statistics every ``interval`` seconds.

    Raises StateError.
    """
    watches: list[Watch] = []
    try:
        for container in containers:
            watches.append(Watch(container))
        due = time.monotonic() + interval
        while watches:
            wait(watches, max(0.0, due - time.monotonic()))
            for one in list(watches):
                yield from one.news()
                if ended(one.pidfd):
                    watches.remove(one)
                    one.close()
            if time.monotonic() >= due:
                due = max(due + interval, time.monotonic())
                yield from sample([one.container for one in watches], log)
    finally:
        for one in watches:
            one.close()


def wait(watches: list[Watch], seconds: float) -> None:
    """Wait until a container ends, memory.events changes (POLLPRI), or ``seconds`` pass."""
    poller = select.poll()
    for watch in watches:
        poller.register(watch.pidfd, select.POLLIN)
        if watch.fd >= 0:
            poller.register(watch.fd, select.POLLPRI)
    poller.poll(min(int(seconds * 1000) + 1, 1 << 30))


def ended(pidfd: int) -> bool:
    """Whether the process of a pidfd has ended."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


def sample(containers: list[Container], log: Log) -> Iterator[Event]:
    """Yield the statistics of each container; only log failures: it may be stopping."""
    for container in containers:
        try:
            event = measure(container)
        except PyruncError as error:
            log.warning(f"no statistics of container {container.id}: {error}")
        else:
            yield event


def open_all(store: state.Store, ids: list[str]) -> tuple[list[Container], list[str]]:
    """Open containers by id.  Returns them, and an error for each that cannot be opened."""
    found, problems = [], []
    for id in ids:
        try:
            found.append(store.open(id))
        except state.NotFound as error:  # the message contains the id
            problems.append(str(error))
        except StateError as error:
            problems.append(f"{id}: {error}" if len(ids) > 1 else str(error))
    return found, problems
