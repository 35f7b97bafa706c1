"""A state root for tests, and containers as `create` leaves them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from json_type import Json
from pyrunc import state


@pytest.fixture
def store(tmp_path: Path) -> state.Store:
    return state.Store(str(tmp_path / "root"))


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"])
    yield child
    child.kill()
    child.wait()


def made(store: state.Store, id: str = "c1", **changes: Any) -> state.Container:
    """A container as `create` leaves it, without a process."""
    container = store.reserve(id)
    config: Json = {"root": {"path": "rootfs"}, "annotations": {"a": "1"}, "process": {}}
    container.describe_intent(
        config=config,
        bundle="/b",
        cgroup="",
        cgroup_dir="",
        cgroup_manager="disabled",
        late=[],
    )
    data: Json = {"status": "created"} | changes
    container.data |= data
    container.save()
    container.unlock()
    return container


def child_of(container: state.Container, pid: int) -> None:
    container.lock()
    container.set_init(pid)
    container.save()
    container.unlock()
