"""A caller's program, which `mypy --strict` must find nothing wrong with; it is not executed
(tests/test_api.py)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import assert_type

import pyrunc
from pyrunc import PIPE, AsyncRuntime, Container, Runtime


def synchronous(bundle: Path) -> int:
    runtime = Runtime(root=bundle / "state", cgroup_manager="systemd", on_warning=print)
    with runtime.run(bundle, "demo", stdout=PIPE, stderr=pyrunc.STDOUT, config={"ociVersion": "1.0.0"}) as container:
        assert_type(container, Container)
        state = container.state()
        assert_type(state, pyrunc.State)
        if state.status == "running":
            container.update({"memory": {"limit": 1 << 30}, "pids": {"limit": 100}})
        with container.exec(["/bin/sh"], stdin=PIPE, env={"A": "1"}, user="1000:1000") as process:
            assert_type(process.wait(5.0), int)
        done = container.call(["/bin/true"], timeout=1.5, check=True, cwd="/")
        assert_type(done.stdout, bytes)
        for event in container.events(interval=1.0):
            if event.stats is not None:
                print(event.stats["memory"]["usage"]["usage"], event.stats["cpu"]["usage"]["total"])
        assert_type(container.communicate(b"input"), tuple[bytes, bytes])
        return container.wait() or 0


def configurations(bundle: Path) -> None:
    for problem in pyrunc.validate(bundle, on_this_host=True):
        print(problem.pointer, problem.expected, problem.hint)
    for step in pyrunc.plan(bundle).of("/mounts"):
        assert_type(step, pyrunc.Step)
        print(step.number, step.op, step.arguments["dest"])
    try:
        Container.list(Runtime())
    except pyrunc.SysError as error:
        print(error.pointer, error.value, error.errno, error.hint)


async def asynchronous(bundle: Path) -> None:
    async with await AsyncRuntime().run(bundle, "demo") as container, asyncio.timeout(5):
        done = await container.call(["/bin/true"], input=b"x")
        assert_type(done, pyrunc.Completed)
        async for event in container.events():
            assert_type(event, pyrunc.Event)
        assert_type(await container.wait(), int | None)
