"""The API for `asyncio`: blocking operations become awaitable.

A call that works in the kernel (create, start, delete ...) runs in a thread of the loop's default
executor. Waiting for a program, its output or events uses no thread. A cancelled call is finished
first and then undone, so it leaves no container or process without an owner.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, TypeVar, Unpack

from pyrunc.api import documents, library
from pyrunc.api.children import Child
from pyrunc.api.container import Container, ExecOptions
from pyrunc.api.programs import Completed, Process, ProgramFailed
from pyrunc.api.runtime import CreateOptions, Runtime, RuntimeOptions
from pyrunc.api.stdio import DEVNULL, PIPE
from pyrunc.api.types import Event, Path, Resources, State, Stats
from pyrunc.container import events as happenings
from pyrunc.errors import PyruncError, UsageError

if TYPE_CHECKING:
    import builtins

T = TypeVar("T")
_BUFFER = 65536


async def _finished(call: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """Run a call in a thread. If cancelled, wait for it and undo it before the cancellation
    continues."""
    future = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await _whatever_comes(future)
        if undo is not None and not future.cancelled() and future.exception() is None:
            await _whatever_comes(asyncio.get_running_loop().run_in_executor(None, undo, future.result()))
        raise


async def _whatever_comes(future: asyncio.Future[T]) -> None:
    """Wait until a future is done, through any number of cancellations."""
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()  # retrieved


async def _readable(fd: int) -> None:
    """Wait until a descriptor is readable. Uses a duplicate, which nothing else watches."""
    loop = asyncio.get_running_loop()
    copy = os.dup(fd)
    try:
        ready = asyncio.Event()
        loop.add_reader(copy, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(copy)
    finally:
        os.close(copy)


async def _ended(child: Child) -> None:
    while not child.poll():
        await _readable(child.fd)


async def _read(stream: BinaryIO | None) -> bytes:
    """Read a pipe to its end. The transport closes it."""
    if stream is None or stream.closed:
        return b""
    reader = asyncio.StreamReader(limit=_BUFFER)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), stream
    )
    try:
        return await reader.read()
    finally:
        transport.close()


async def _write(stream: BinaryIO | None, data: bytes) -> None:
    """Write all input to a pipe, then close it. A program that does not read it is not an error."""
    if stream is None or stream.closed:
        return
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, stream)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    with suppress(OSError):
        writer.write(data)
        await writer.drain()
    writer.close()


async def _communicate(program: Process | Container, child: Child, data: bytes) -> tuple[bytes, bytes]:
    out, err, _ = await asyncio.gather(_read(program.stdout), _read(program.stderr), _write(program.stdin, data))
    await _ended(child)
    return out, err


class AsyncProcess:
    """A `Process` for asyncio. As a context manager it kills the process on exit if it is still
    running, and waits for it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        """The underlying `Process`."""

    @property
    def pid(self) -> int:
        """The process id, in the caller's pid namespace."""
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """0 to 255, 128 + n after signal n; None while it is running."""
        return self.process.returncode

    async def wait(self) -> int:
        """Wait for the end of the process; returns its return code. Raises PyruncError if the
        status is lost."""
        await _ended(self.process._child)
        return self.process.wait(0)

    async def communicate(self, input: bytes = b"") -> tuple[bytes, bytes]:
        """Write ``input`` to stdin, read stdout and stderr to their end, and wait for the end of
        the process.

        Call it once only; use `asyncio.timeout` to limit it.
        """
        return await _communicate(self.process, self.process._child, input)

    def kill(self, signal: int | str = "KILL") -> None:
        """Send a signal; does nothing if the process has ended. Raises PyruncError."""
        self.process.kill(signal)

    async def __aenter__(self) -> AsyncProcess:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await _finished(partial(self.process.__exit__, None, None, None))


class AsyncContainer:
    """A `Container` for asyncio. As a context manager it deletes the container by force on exit."""

    def __init__(self, container: Container) -> None:
        self.container = container
        """The underlying `Container`."""

    def __repr__(self) -> str:
        return f"<Async{repr(self.container)[1:]}"

    @property
    def id(self) -> str:
        """The container's id."""
        return self.container.id

    async def state(self) -> State:
        """See `Container.state`."""
        return await _finished(self.container.state)

    async def stats(self) -> Stats:
        """See `Container.stats`."""
        return await _finished(self.container.stats)

    async def processes(self) -> builtins.list[int]:
        """See `Container.processes`."""
        return await _finished(self.container.processes)

    async def start(self) -> AsyncContainer:
        """See `Container.start`."""
        await _finished(self.container.start)
        return self

    async def exec(self, args: Sequence[str] = (), **options: Unpack[ExecOptions]) -> AsyncProcess:
        """See `Container.exec`. If cancelled, the process is killed."""

        def undo(process: Process) -> None:
            process.__exit__(None, None, None)

        return AsyncProcess(await _finished(partial(self.container.exec, args, **options), undo))

    async def call(
        self, args: Sequence[str], *, input: bytes = b"", check: bool = False, **options: Unpack[ExecOptions]
    ) -> Completed:
        """See `Container.call`. If cancelled (`asyncio.timeout`), the program is killed."""
        options.setdefault("stdin", PIPE if input else DEVNULL)
        options.setdefault("stdout", PIPE)
        options.setdefault("stderr", PIPE)
        async with await self.exec(args, **options) as process:
            out, err = await process.communicate(input)
            completed = Completed(process.process.args, await process.wait(), out, err)
        if check and completed.returncode:
            raise ProgramFailed(completed)
        return completed

    async def kill(self, signal: int | str = "TERM", *, all: bool = False) -> None:
        """See `Container.kill`."""
        await _finished(partial(self.container.kill, signal, all=all))

    async def pause(self) -> None:
        """See `Container.pause`."""
        await _finished(self.container.pause)

    async def resume(self) -> None:
        """See `Container.resume`."""
        await _finished(self.container.resume)

    async def update(self, resources: Resources | Mapping[str, object]) -> None:
        """See `Container.update`."""
        await _finished(partial(self.container.update, resources))

    async def add_mounts(self, mounts: Sequence[Mapping[str, object]]) -> None:
        """See `Container.add_mounts`."""
        await _finished(partial(self.container.add_mounts, mounts))

    async def remove_mounts(self, mounts: Sequence[Mapping[str, object]]) -> None:
        """See `Container.remove_mounts`."""
        await _finished(partial(self.container.remove_mounts, mounts))

    async def delete(self, *, force: bool = False) -> None:
        """See `Container.delete`."""
        await _finished(partial(self.container.delete, force=force))

    async def wait(self) -> int | None:
        """See `Container.wait`."""
        child = await _finished(self.container._watched)
        if child is None:
            return None
        await _ended(child)
        return child.returncode

    async def communicate(self, input: bytes = b"") -> tuple[bytes, bytes]:
        """See `Container.communicate`. Call it once only; use `asyncio.timeout` to limit it."""
        child = await _finished(self.container._watched)
        if child is None:
            raise PyruncError(f"container {self.id} has stopped, and something else has waited for it")
        return await _communicate(self.container, child, input)

    async def events(self, interval: float = 5.0) -> AsyncIterator[Event]:
        """See `Container.events`. ``aclose()`` of the iterator releases its descriptors."""
        if interval <= 0:
            raise UsageError(f"interval={interval}: expected more than 0 seconds")
        messages = self.container.runtime._messages()
        with library.opened(self.container.runtime.root) as store:
            watch = happenings.Watch(store.open(self.id))
            poller = select.epoll()
            try:
                poller.register(watch.pidfd, select.EPOLLIN)
                if watch.fd >= 0:
                    poller.register(watch.fd, select.EPOLLPRI)
                due = time.monotonic() + interval
                while True:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(max(0.0, due - time.monotonic())):
                            await _readable(poller.fileno())
                    for event in watch.news():
                        yield Event(event["type"], event["id"])
                    if happenings.ended(watch.pidfd):
                        return
                    if time.monotonic() >= due:
                        due = max(due + interval, time.monotonic())
                        for event in happenings.sample([watch.container], messages):
                            yield Event(event["type"], event["id"], event["data"])
            finally:
                poller.close()
                watch.close()

    async def __aenter__(self) -> AsyncContainer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await _finished(partial(self.container.__exit__, None, None, None))


class AsyncRuntime:
    """A `Runtime` for asyncio. ``options`` are its ``cgroup_manager``, ``rootless`` and
    ``on_warning``."""

    def __init__(self, root: Path = "", **options: Unpack[RuntimeOptions]) -> None:
        self.runtime = Runtime(root, **options)
        """The underlying `Runtime`."""

    async def create(self, bundle: Path, id: str, **options: Unpack[CreateOptions]) -> AsyncContainer:
        """See `Runtime.create`. If cancelled, the container is deleted."""

        def undo(container: Container) -> None:
            container.__exit__(None, None, None)

        return AsyncContainer(await _finished(partial(self.runtime.create, bundle, id, **options), undo))

    async def run(self, bundle: Path, id: str, **options: Unpack[CreateOptions]) -> AsyncContainer:
        """See `Runtime.run`. If cancelled, the container is deleted."""

        def undo(container: Container) -> None:
            container.__exit__(None, None, None)

        return AsyncContainer(await _finished(partial(self.runtime.run, bundle, id, **options), undo))

    async def get(self, id: str) -> AsyncContainer:
        """See `Runtime.get`."""
        return AsyncContainer(await _finished(partial(self.runtime.get, id)))

    async def list(self) -> builtins.list[AsyncContainer]:
        """See `Runtime.list`."""
        return [AsyncContainer(container) for container in await _finished(self.runtime.list)]

    async def plan(self, bundle: Path = ".", *, config: Mapping[str, object] | Path | None = None) -> documents.Plan:
        """See `Runtime.plan`."""
        return await _finished(partial(self.runtime.plan, bundle, config=config))
