"""The same for `asyncio`: what waits is awaited.

A call that works in the kernel (create, start, delete ...) runs in a thread of the loop's default
executor; waiting for a program, its output and events costs no thread.  A call that is cancelled is
finished first, and then undone: a container or process that nobody has got is not left behind.
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
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, Unpack

from pyrunc.api import documents, library
from pyrunc.api.children import Child
from pyrunc.api.container import Container, ExecOptions
from pyrunc.api.programs import Completed, Process, ProgramFailed
from pyrunc.api.runtime import CgroupManager, CreateOptions, Path, Rootless, Runtime
from pyrunc.api.stdio import DEVNULL, PIPE
from pyrunc.api.types import Event, Resources, State, Stats
from pyrunc.container import events as happenings
from pyrunc.errors import PyruncError, UsageError

if TYPE_CHECKING:
    import builtins

T = TypeVar("T")
_LIMIT = 65536


async def _finished(call: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """Run a call in a thread.  Cancelled, it is waited for and undone before the cancellation goes on."""
    future = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await _whatever_comes(future)
        if undo is not None and not future.cancelled() and future.exception() is None:
            await _whatever_comes(asyncio.get_running_loop().run_in_executor(None, undo, future.result()))
        raise


async def _whatever_comes(future: asyncio.Future[Any]) -> None:
    """Wait until a future is done, through any number of cancellations."""
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()  # seen


async def _readable(fd: int) -> None:
    """Until a descriptor is readable.  Works on a copy, which nobody else watches."""
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
    """All of a pipe.  The transport closes it."""
    if stream is None or stream.closed:
        return b""
    reader = asyncio.StreamReader(limit=_LIMIT)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), stream
    )
    try:
        return await reader.read()
    finally:
        transport.close()


async def _write(stream: BinaryIO | None, data: bytes) -> None:
    """All of a pipe's input, then its end.  A program that does not read it is not an error."""
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
    """A `Process` for asyncio.  As a context manager it is killed on exit, if it still runs, and waited for."""

    def __init__(self, process: Process) -> None:
        self.process = process
        """The process itself."""

    @property
    def pid(self) -> int:
        """The process id, in the caller's pid namespace."""
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """0 to 255, 128 + n after signal n; None while it runs."""
        return self.process.returncode

    async def wait(self) -> int:
        """Wait for the end of the process; its return code.  Raises PyruncError when that is lost."""
        await _ended(self.process._child)
        return self.process.wait(0)

    async def communicate(self, input: bytes = b"") -> tuple[bytes, bytes]:
        """Write ``input`` to stdin, read stdout and stderr to their end, and wait for the end of the process.

        To be called once; `asyncio.timeout` limits it.
        """
        return await _communicate(self.process, self.process._child, input)

    def kill(self, signal: int | str = "KILL") -> None:
        """Send a signal; nothing happens when the process has ended.  Raises PyruncError."""
        self.process.kill(signal)

    async def __aenter__(self) -> AsyncProcess:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await _finished(partial(self.process.__exit__, None, None, None))


class AsyncContainer:
    """A `Container` for asyncio.  As a context manager it is deleted on exit, by force."""

    def __init__(self, container: Container) -> None:
        self.container = container
        """The container itself."""

    def __repr__(self) -> str:
        return f"<Async{repr(self.container)[1:]}"

    @property
    def id(self) -> str:
        """The container's id."""
        return self.container.id

    async def state(self) -> State:
        """As `Container.state`."""
        return await _finished(self.container.state)

    async def stats(self) -> Stats:
        """As `Container.stats`."""
        return await _finished(self.container.stats)

    async def processes(self) -> builtins.list[int]:
        """As `Container.processes`."""
        return await _finished(self.container.processes)

    async def start(self) -> AsyncContainer:
        """As `Container.start`."""
        await _finished(self.container.start)
        return self

    async def exec(self, args: Sequence[str] = (), **options: Unpack[ExecOptions]) -> AsyncProcess:
        """As `Container.exec`; cancelled, the process is killed."""

        def undo(process: Process) -> None:
            process.__exit__(None, None, None)

        return AsyncProcess(await _finished(partial(self.container.exec, args, **options), undo))

    async def call(
        self, args: Sequence[str], *, input: bytes = b"", check: bool = False, **options: Unpack[ExecOptions]
    ) -> Completed:
        """As `Container.call`; cancelled (`asyncio.timeout`), the program is killed."""
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
        """As `Container.kill`."""
        await _finished(partial(self.container.kill, signal, all=all))

    async def pause(self) -> None:
        """As `Container.pause`."""
        await _finished(self.container.pause)

    async def resume(self) -> None:
        """As `Container.resume`."""
        await _finished(self.container.resume)

    async def update(self, resources: Resources | Mapping[str, Any]) -> None:
        """As `Container.update`."""
        await _finished(partial(self.container.update, resources))

    async def delete(self, *, force: bool = False) -> None:
        """As `Container.delete`."""
        await _finished(partial(self.container.delete, force=force))

    async def wait(self) -> int | None:
        """As `Container.wait`."""
        child = await _finished(self.container._watched)
        if child is None:
            return None
        await _ended(child)
        return child.returncode

    async def communicate(self, input: bytes = b"") -> tuple[bytes, bytes]:
        """As `Container.communicate`, to be called once; `asyncio.timeout` limits it."""
        child = await _finished(self.container._watched)
        if child is None:
            raise PyruncError(f"container {self.id} has stopped, and something else has waited for it")
        return await _communicate(self.container, child, input)

    async def events(self, interval: float = 5.0) -> AsyncIterator[Event]:
        """As `Container.events`; ``aclose()`` of the iterator gives up its descriptors."""
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
    """A `Runtime` for asyncio, with the same parameters."""

    def __init__(
        self,
        root: Path = "",
        cgroup_manager: CgroupManager = "cgroupfs",
        rootless: Rootless = "auto",
        on_warning: Callable[[str], object] | None = None,
    ) -> None:
        self.runtime = Runtime(root, cgroup_manager, rootless, on_warning)
        """The runtime itself."""

    async def create(self, bundle: Path, id: str, **options: Unpack[CreateOptions]) -> AsyncContainer:
        """As `Runtime.create`; cancelled, the container is deleted."""

        def undo(container: Container) -> None:
            container.__exit__(None, None, None)

        return AsyncContainer(await _finished(partial(self.runtime.create, bundle, id, **options), undo))

    async def run(self, bundle: Path, id: str, **options: Unpack[CreateOptions]) -> AsyncContainer:
        """As `Runtime.run`; cancelled, the container is deleted."""

        def undo(container: Container) -> None:
            container.__exit__(None, None, None)

        return AsyncContainer(await _finished(partial(self.runtime.run, bundle, id, **options), undo))

    async def get(self, id: str) -> AsyncContainer:
        """As `Runtime.get`."""
        return AsyncContainer(await _finished(partial(self.runtime.get, id)))

    async def list(self) -> builtins.list[AsyncContainer]:
        """As `Runtime.list`."""
        return [AsyncContainer(container) for container in await _finished(self.runtime.list)]

    async def plan(self, bundle: Path = ".", *, config: Mapping[str, Any] | Path | None = None) -> documents.Plan:
        """As `Runtime.plan`."""
        return await _finished(partial(self.runtime.plan, bundle, config=config))
