"""The Python API under asyncio, on real containers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import pyrunc
from integration.harness import SLOW, Box
from integration.test_api import SLEEP, Shell, runtime_, shell  # noqa: F401

pytestmark = pytest.mark.pyrunc_only("it is pyrunc's API")

Run = Callable[[Callable[[pyrunc.AsyncRuntime], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def run(box: Box, runtime_: pyrunc.Runtime) -> Run:  # noqa: F811
    """``run(test)``: a coroutine with a runtime, in a loop of its own."""

    def call(test: Callable[[pyrunc.AsyncRuntime], Coroutine[Any, Any, None]]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(60 * SLOW):
                await test(pyrunc.AsyncRuntime(root=box.root))

        asyncio.run(limited())

    return call


def test_life(box: Box, shell: Shell, run: Run) -> None:  # noqa: F811
    bundle = shell("read x; echo got:$x; exit 7")

    async def test(runtime: pyrunc.AsyncRuntime) -> None:
        pipes: Any = {"stdin": pyrunc.PIPE, "stdout": pyrunc.PIPE}
        async with await runtime.create(bundle.path, box.prefix + "x", **pipes) as container:
            assert (await container.state()).status == "created"
            await container.start()
            done = await container.call(["/bin/cat"], input=b"x" * 300000)
            assert done.stdout == b"x" * 300000 and done.returncode == 0
            await container.pause()
            await container.resume()
            assert [one.id for one in await runtime.list()] == [container.id]
            assert (await container.stats())["pids"]["current"] == 1
            assert await container.processes() == [container.container.pid]
            assert await container.communicate(b"hello\n") == (b"got:hello\n", b"")
            assert await container.wait() == 7
        with pytest.raises(pyrunc.NotFound):
            await runtime.get(container.id)
        assert (await runtime.plan(bundle.path)).steps

    run(test)


def test_waiting_costs_no_thread(box: Box, shell: Shell, run: Run) -> None:  # noqa: F811
    """Forty programs are waited for concurrently in a loop whose executor has far fewer threads."""
    bundle = shell(SLEEP)

    async def test(runtime: pyrunc.AsyncRuntime) -> None:
        async with await runtime.run(bundle.path, box.prefix + "x") as container:
            processes = [await container.exec(["/bin/cat"], stdin=pyrunc.PIPE, stdout=pyrunc.PIPE) for _ in range(40)]
            waiting: list[asyncio.Task[Any]]
            waiting = [asyncio.create_task(process.communicate(b"x")) for process in processes[1:]]
            waiting.append(asyncio.create_task(processes[0].wait()))
            assert await container.state()  # the executor is free
            assert processes[0].process.stdin
            processes[0].process.stdin.close()
            done = await asyncio.gather(*waiting)
            assert done == [(b"x", b"")] * 39 + [0]
            assert {process.returncode for process in processes} == {0}
            for process in processes:
                await process.__aexit__(None, None, None)
        assert threading.active_count() < 40

    run(test)


def test_cancelled(box: Box, shell: Shell, run: Run) -> None:  # noqa: F811
    hook = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "0.5"]}]}
    slow, quick = shell(SLEEP, edits={"/hooks": hook}), shell(SLEEP)

    async def test(runtime: pyrunc.AsyncRuntime) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await runtime.create(slow.path, box.prefix + "slow")
        assert await runtime.list() == []
        async with await runtime.run(quick.path, box.prefix + "x") as container:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await container.call(["/bin/sleep", "1000"])
            assert len(await container.processes()) == 1
            task = asyncio.create_task(container.wait())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await container.kill("KILL")
            assert await container.wait() == 137

    run(test)


def test_events(box: Box, shell: Shell, run: Run) -> None:  # noqa: F811
    bundle = shell(SLEEP)

    async def test(runtime: pyrunc.AsyncRuntime) -> None:
        async with await runtime.run(bundle.path, box.prefix + "x") as container:
            seen = []
            async for event in container.events(0.05):
                seen.append(event)
                if len(seen) == 2:
                    await container.kill("KILL")
            assert {event.type for event in seen} == {"stats"} and seen[0].stats
            with pytest.raises(pyrunc.UsageError):
                async for _ in container.events(0):
                    pass
            with pytest.raises(pyrunc.ConfigError):
                await container.update({"pids": {"limit": "x"}})

    run(test)
