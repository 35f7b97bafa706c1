"""The awaitable parts of `pyrunc.api.aio` with real pipes and threads, and `Stdio` with its calls."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import itertools
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from pyrunc import fs
from pyrunc.api import aio, stdio
from pyrunc.errors import UsageError


def timed(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine for at most 20 seconds."""

    async def limited() -> Any:
        async with asyncio.timeout(20):
            return await main()

    return asyncio.run(limited())


def descriptors() -> set[str]:
    """The open descriptors of this process."""
    return set(os.listdir("/proc/self/fd"))


# -- calls in threads ------------------------------------------------------------------------------


class Slow:
    """A call that ends when it is allowed to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun, self.allowed = threading.Event(), threading.Event()
        self.error = error
        self.undone: list[object] = []

    def __call__(self) -> str:
        self.begun.set()
        assert self.allowed.wait(20)
        if self.error is not None:
            raise self.error
        return "result"

    async def begin(self, undo: bool = True) -> asyncio.Task[str]:
        """A task that runs the call."""
        task = asyncio.create_task(aio._finished(self, self.undone.append if undo else None))
        while not self.begun.is_set():
            await asyncio.sleep(0.001)
        return task


def test_a_call_that_is_not_cancelled() -> None:
    slow, failing = Slow(), Slow(ValueError("v"))
    slow.allowed.set()
    failing.allowed.set()
    assert timed(lambda: aio._finished(slow, slow.undone.append)) == "result"
    with pytest.raises(ValueError, match="v"):
        timed(lambda: aio._finished(failing, failing.undone.append))
    assert slow.undone == failing.undone == []


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(
    ("error", "undo", "undone"),
    [(None, True, ["result"]), (None, False, []), (ValueError("v"), True, [])],
)
def test_a_cancelled_call_is_finished_and_undone(
    times: int, error: Exception | None, undo: bool, undone: list[object]
) -> None:
    slow, done = Slow(error), []

    async def main() -> None:
        task = await slow.begin(undo)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.01)
            done.append(task.done())
        slow.allowed.set()
        await task

    with pytest.raises(asyncio.CancelledError):
        timed(main)
    assert done == [False] * times and slow.undone == undone


def test_an_undo_that_fails_is_not_reported() -> None:
    slow, reports = Slow(), []

    def undo(result: object) -> None:
        raise ValueError("undo")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: reports.append(context))
        task = asyncio.create_task(aio._finished(slow, undo))
        while not slow.begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.sleep(0.01)
        slow.allowed.set()
        await asyncio.wait([task])
        gc.collect()

    timed(main)
    assert reports == []


# -- pipes -----------------------------------------------------------------------------------------


def pipe() -> tuple[BinaryIO, BinaryIO]:
    """Both ends of a pipe, as files."""
    reader, writer = os.pipe()
    return os.fdopen(reader, "rb"), os.fdopen(writer, "wb")


def test_waiting_for_a_descriptor() -> None:
    reader, writer = os.pipe()

    async def main(cancel: bool) -> list[object]:
        before = descriptors()
        task = asyncio.create_task(aio._readable(reader))
        await asyncio.sleep(0.02)
        early = task.done()
        if cancel:
            task.cancel()
        else:
            os.write(writer, b"x")
        await asyncio.wait([task])
        return [early, task.cancelled(), descriptors() == before]

    assert timed(lambda: main(True)) == [False, True, True]
    assert timed(lambda: main(False)) == [False, False, True]
    assert os.read(reader, 5) == b"x"
    os.close(reader)
    os.close(writer)


def test_waiting_for_one_descriptor_after_another() -> None:
    """The second duplicate has the number of the first."""
    pipes = [os.pipe() for _ in range(2)]
    os.write(pipes[0][1], b"x")

    async def main() -> bool:
        await aio._readable(pipes[0][0])
        task = asyncio.create_task(aio._readable(pipes[1][0]))
        await asyncio.sleep(0.02)
        early = task.done()
        os.write(pipes[1][1], b"x")
        await task
        return early

    assert timed(main) is False
    for fd in itertools.chain(*pipes):
        os.close(fd)


def test_waiting_for_a_child() -> None:
    class Child:
        fd = 7
        polls = 0

        def poll(self) -> bool:
            self.polls += 1
            return self.polls == 3

    asked: list[int] = []

    async def readable(fd: int) -> None:
        asked.append(fd)

    child: Any = Child()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aio, "_readable", readable)
        timed(lambda: aio._ended(child))
    assert asked == [7, 7]


@pytest.mark.parametrize("size", [0, 5, 300_000])
def test_all_of_a_pipe_is_read_and_written(size: int) -> None:
    async def main() -> tuple[bytes, bool, bool]:
        source, target = pipe()
        got, _ = await asyncio.gather(aio._read(source), aio._write(target, b"d" * size))
        await asyncio.sleep(0)  # transports close their files in a callback
        return got, source.closed, target.closed

    assert timed(main) == (b"d" * size, True, True)


def test_a_pipe_that_is_full() -> None:
    async def main() -> tuple[bool, int]:
        source, target = pipe()
        task = asyncio.create_task(aio._write(target, b"d" * 300_000))
        await asyncio.sleep(0.02)
        early = task.done()
        got = await aio._read(source)
        await task
        return early, len(got)

    assert timed(main) == (False, 300_000)


def test_reading_that_is_cancelled() -> None:
    async def main() -> tuple[bool, bool]:
        source, target = pipe()
        task = asyncio.create_task(aio._read(source))
        await asyncio.sleep(0.02)
        before = source.closed
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        target.close()
        return before, source.closed

    assert timed(main) == (False, True)


def test_pipes_that_are_not_there() -> None:
    async def main() -> list[object]:
        source, target = pipe()
        source.close()
        await aio._write(target, b"d" * 300_000)  # nobody reads it
        await asyncio.sleep(0)
        closed = target.closed
        await aio._write(target, b"closed")
        await aio._write(None, b"none")
        return [closed, await aio._read(source), await aio._read(None)]

    assert timed(main) == [True, b"", b""]


# -- the streams of a program ----------------------------------------------------------------------


def test_where_streams_lead(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = descriptors()
    with path.open("wb") as file:
        made = stdio.Stdio(stdio.PIPE, file, stdio.STDOUT)
        targets = [os.readlink(f"/proc/self/fd/{fd}") for fd in made.theirs]
        assert targets[1:] == [str(path)] * 2 and os.readlink(f"/proc/self/fd/{made.ours[0]}") == targets[0]
        assert made.ours[1:] == [-1, -1] and min(made.theirs) >= 3 and made.pumps == []
        assert not any(os.get_inheritable(fd) for fd in (*made.theirs, made.ours[0]))
        os.write(made.ours[0], b"in")
        assert os.read(made.theirs[0], 9) == b"in"
        made.cloned()
        assert made.theirs == [-1, -1, -1]
        with pytest.raises(BrokenPipeError):
            os.write(made.ours[0], b"nobody has the other end")
        made.close()
        made.close()
        assert made.ours == [-1, -1, -1]
    assert descriptors() == before


def test_streams_that_are_taken() -> None:
    before = descriptors()
    made = stdio.Stdio(stdio.PIPE, stdio.PIPE, stdio.DEVNULL)
    os.write(made.theirs[1], b"out")
    made.own(-1, -1)
    stdin, stdout, stderr = made.take()
    assert made.ours == [-1, -1, -1] and stderr is None and made.take() == (None, None, None)
    assert stdin is not None and stdout is not None
    stdin.write(b"in")
    stdin.close()
    assert os.read(made.theirs[0], 9) == b"in" and os.read(made.theirs[0], 9) == b""
    made.close()
    assert stdout.read() == b"out"
    stdout.close()
    assert descriptors() == before


@pytest.mark.parametrize(
    ("streams", "words"),
    [
        ((stdio.STDOUT, stdio.DEVNULL, stdio.DEVNULL), "stdin=-2"),
        ((stdio.DEVNULL, stdio.STDOUT, stdio.DEVNULL), "stdout=-2"),
        ((stdio.PIPE, stdio.PIPE, -5), "stderr=-5"),
    ],
)
def test_streams_that_are_refused(streams: Any, words: str) -> None:
    before = descriptors()
    with pytest.raises(UsageError) as raised:
        stdio.Stdio(*streams)
    assert str(raised.value) == f"{words}: expected a descriptor, a file, PIPE, DEVNULL or INHERIT"
    with pytest.raises(OSError):
        stdio.Stdio(stdio.PIPE, 999_999, stdio.PIPE)
    assert descriptors() == before


def test_the_owner_of_the_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []
    made = stdio.Stdio(stdio.PIPE, stdio.DEVNULL, stdio.PIPE)
    monkeypatch.setattr(os, "fchown", lambda fd, uid, gid: asked.append((fd, uid, gid)))
    made.own(5, 6)
    assert asked == [(made.ours[0], 5, 6), (made.ours[2], 5, 6)]
    made.close()


def test_a_descriptor_of_the_calling_program() -> None:
    made = stdio.Stdio(0, stdio.DEVNULL, stdio.DEVNULL)
    assert os.path.sameopenfile(made.theirs[0], 0) and made.theirs[0] >= 3
    made.close()


def test_streams_while_a_standard_stream_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is opened then gets its number."""
    asked: list[tuple[object, ...]] = []
    closed: list[int] = []

    def duplicate(*args: object) -> int:
        asked.append(args)
        return 70

    monkeypatch.setattr(fcntl, "fcntl", duplicate)
    monkeypatch.setattr(fs, "close", closed.append)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda path, flags: 0)
        made = stdio.Stdio(stdio.DEVNULL, stdio.DEVNULL, stdio.DEVNULL)
        patch.setattr(os, "fchown", lambda *args: asked.append(args))
        patch.setattr(stdio, "open", lambda *args: args, raising=False)
        made.ours = [0, -1, -1]
        made.own(5, 6)
        assert asked.pop() == (0, 5, 6)
        made.ours = [0, -1, -1]
        taken: tuple[Any, ...] = made.take()
        assert taken == ((0, "wb"), None, None) and made.ours == [-1, -1, -1]
    assert made.theirs == [70] * 3 and asked == [(0, fcntl.F_DUPFD_CLOEXEC, 3)] * 3 and closed == [0] * 3
    made.theirs, made.ours = [-1, -1, -1], [-1, -1, 0]
    made.close()
    assert closed[-1] == 0 and made.ours == [-1, -1, -1]
