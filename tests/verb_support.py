"""The command line with its own state root."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from json_type import Json
from pyrunc import cli, state


class Runtime:
    """The command line with its own state root."""

    def __init__(self, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.root, self.capfd = root, capfd
        self.store = state.Store(str(root))

    def __call__(self, *argv: str, rc: int = 0) -> tuple[str, str]:
        """Run one command; returns stdout and stderr."""
        status = cli.main(["--root", str(self.root), "--log", str(self.root) + ".log", *argv])
        out, err = self.capfd.readouterr()
        assert status == rc, err
        if rc == 0:
            assert err == ""
        else:
            assert err.startswith("pyrunc: error: ") and err.count("\n") == 1
        return out, err.removeprefix("pyrunc: error: ").removesuffix("\n")

    def make(self, id: str = "c1", pid: int = 0, **changes: Any) -> state.Container:
        """A container as `create` leaves it; ``pid`` is init's pid."""
        container = self.store.reserve(id)
        hooks = changes.pop("hooks", {})
        config: Json = {"root": {"path": "rootfs"}, "annotations": {"k": "v"}, "process": {}, "hooks": hooks}
        container.describe_intent(
            config=config, bundle="/b", cgroup="", cgroup_dir="", cgroup_manager="disabled", late=[]
        )
        if pid:
            container.set_init(pid)
        data: Json = {"status": "running", "created": "2026-11-23T15:23:58.327213653Z"} | changes
        container.data |= data
        container.save()
        container.unlock()
        return container


@pytest.fixture
def runtime(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Runtime:
    return Runtime(tmp_path / "root", capfd)


def gone(root: Path) -> bool:
    return os.listdir(root) == []
