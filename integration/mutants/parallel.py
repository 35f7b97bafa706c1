"""Run work in several processes, each forked from one that has imported everything and has no
threads."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TypeVar

from integration.mutants import sandbox

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(items: Iterable[Item], work: Callable[[Item], Result], jobs: int, place: str) -> Iterator[tuple[Item, Result]]:
    """Yield every item with the result of ``work`` as it arrives; take an item when a process is
    free.

    ``place`` is a directory for the processes' answers. Raises RuntimeError if one ends without an
    answer.
    """
    queue = iter(items)
    running: dict[int, tuple[Item, IO[bytes]]] = {}
    more = True
    while True:
        while more and len(running) < jobs:
            try:
                item = next(queue)
            except StopIteration:
                more = False
                break
            answer = tempfile.TemporaryFile(dir=place)  # noqa: SIM115
            pid = os.fork()
            if pid == 0:
                _child(item, work, answer.fileno())
            running[pid] = (item, answer)
        if not running:
            return
        pid, status = os.wait()
        if pid not in running:
            continue
        item, written = running.pop(pid)
        with written:
            written.seek(0)
            data = written.read()
        if not data:
            raise RuntimeError(f"a process ended with status {status} and without an answer")
        yield item, pickle.loads(data)  # noqa: S301  # from our own child


def _child(item: Item, work: Callable[[Item], Result], fd: int) -> None:
    """Run one item in its process, which ends with its parent."""
    try:
        sandbox.end_with_parent()
        data = pickle.dumps(work(item))
        while data:
            data = data[os.write(fd, data) :]
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
    os._exit(1)
