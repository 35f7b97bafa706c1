"""The Python API: mounts for a running container, and programs for one process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import pyrunc
from integration.harness import Box
from integration.test_api import SLEEP, Shell, descriptors, runtime_, shell
from integration.test_api_asyncio import Run, run

__all__ = ["run", "runtime_", "shell"]  # fixtures
pytestmark = pytest.mark.pyrunc_only("it is pyrunc's API")


@pytest.fixture
def entry(box: Box) -> dict[str, object]:
    source = box.path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    return {"destination": "/data", "source": str(source), "options": ["bind", "ro"]}


def test_mounts(box: Box, runtime_: pyrunc.Runtime, shell: Shell, entry: dict[str, object]) -> None:
    with runtime_.run(shell(SLEEP).path, box.prefix + "x") as container:
        before = descriptors()
        with pytest.raises(pyrunc.ConfigError) as raised:
            container.add_mounts([entry, {"destination": "/x"}])
        assert raised.value.pointer == "/1/type" and raised.value.source == "mounts"
        with pytest.raises(pyrunc.UsageError, match="mounts: expected a list"):
            container.add_mounts([{"destination": object()}])
        container.add_mounts([entry])
        assert container.call(["/bin/cat", "/data/file"]).stdout == b"content"
        assert json.loads(container.state().annotations["org.pyrunc.mounts"]) == [entry]
        container.remove_mounts([{"destination": "/data"}])
        assert container.call(["/bin/ls", "/data"]).stdout == b""
        with pytest.raises(pyrunc.ConfigError):
            container.remove_mounts([entry])
        assert descriptors() == before


def test_asyncio(box: Box, shell: Shell, run: Run, entry: dict[str, object]) -> None:
    bundle = shell(SLEEP)

    async def test(runtime: pyrunc.AsyncRuntime) -> None:
        async with await runtime.run(bundle.path, box.prefix + "x") as container:
            await container.add_mounts([entry])
            assert (await container.call(["/bin/cat", "/data/file"])).stdout == b"content"
            await container.remove_mounts([entry])

    run(test)


def test_tools(box: Box, runtime_: pyrunc.Runtime, shell: Shell) -> None:
    tools = box.path / "tools"
    (tools / "bin").mkdir(parents=True)
    bundle = shell(SLEEP)
    shutil.copy(Path(bundle.rootfs) / "bin" / "cat", tools / "bin" / "own-name", follow_symlinks=True)
    (tools / "text").write_text("hello")
    with runtime_.run(bundle.path, box.prefix + "x") as container:
        found = container.call(["/bin/sh", "-c", "command -v own-name; cat /proc/fs/nfsd/text"], tools=str(tools))
        assert found.stdout == b"/proc/fs/nfsd/bin/own-name\nhello"
        with pytest.raises(pyrunc.SysError):
            container.call(["own-name"])
        with pytest.raises(pyrunc.UsageError, match="tools"):
            container.exec(["/bin/true"], tools="relative")
