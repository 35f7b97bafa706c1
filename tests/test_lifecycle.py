"""Undoing a failed command when memory is short (pyrunc/container/lifecycle.py, Create.forget)."""

from __future__ import annotations

from typing import Any

import pytest

import transcript
from pyrunc.container import lifecycle
from pyrunc.errors import SysError
from pyrunc.launch import create
from pyrunc.launch.undo import Undo

kept = transcript.follow()


class Said:
    """A log that keeps its warnings."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str) -> None:
        self.lines.append(text)


class Named:
    """The part of a container that is used."""

    id = "c1"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def destroy(self) -> None:
        self.calls.append("destroy")

    def unlock(self) -> None:
        self.calls.append("unlock")


@pytest.mark.parametrize(
    ("errors", "calls", "warnings"),
    [
        ([], 1, []),
        ([MemoryError()] * 5, 6, []),
        ([MemoryError(), OSError(16, "x"), MemoryError()], 2, ["container c1: [Errno 16] x"]),
        ([SysError("/x", "rmdir", 16)], 1, ["container c1: /x: rmdir: EBUSY: busy"]),
    ],
)
def test_the_end_is_tried_again(errors: list[BaseException], calls: int, warnings: list[str]) -> None:
    """The end is retried only after a MemoryError, because unwinding the stack has freed memory."""
    left, done = list(errors), []

    def end(container: Any) -> None:
        done.append(container)
        if left:
            raise left.pop(0)

    container: Any = Named()
    log: Any = Said()
    lifecycle.insist(end, container, log)
    assert (len(done), log.lines) == (calls, warnings)


def test_the_end_is_not_tried_forever() -> None:
    done: list[object] = []

    def end(container: Any) -> None:
        done.append(container)
        raise MemoryError

    container: Any = Named()
    log: Any = Said()
    lifecycle.insist(end, container, log)
    assert 10 < len(done) < 1000


@pytest.mark.parametrize("problem", [True, False])
def test_leftovers_can_be_found(problem: bool) -> None:
    """The state directory stays for `delete --force` if an earlier step could not be undone."""

    def release() -> None:
        if problem:
            raise OSError(16, "busy")

    job: Any = object.__new__(create.Create)
    job.undo, job.container = Undo(), Named()
    job.undo.push(job.forget)
    job.undo.push(release)
    assert bool(job.undo.run()) == problem
    assert job.container.calls == (["unlock"] if problem else ["destroy"])
