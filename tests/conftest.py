"""Shared parts of the unit tests: the paths of the checkout and of the build products."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pyrunc import errors, log, state
from pyrunc.cgroup import bus
from pyrunc.spec import schema

ROOT = Path(__file__).resolve().parent.parent
LAUNCHER = ROOT / ".venv" / "bin" / "pyrunc"


@pytest.fixture(scope="session")
def launcher() -> Path:
    """The built executable; skips the test if nothing was built."""
    if not LAUNCHER.exists():
        pytest.skip("not built: make build")
    return LAUNCHER


def of_the_schema(node: schema.Node, tokens: list[str]) -> bool:
    """Whether a split JSON pointer names a position that is possible in a document of this kind."""
    if not tokens:
        return True
    if node[0] == "object":
        return tokens[0] in node[1] and of_the_schema(node[1][tokens[0]], tokens[1:])
    if node[0] == "array":
        return tokens[0].isdigit() and of_the_schema(node[1], tokens[1:])
    return node[0] == "map" and of_the_schema(node[1], tokens[1:])


@pytest.fixture(autouse=True)
def problems_name_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check in every test that no error refers its reader to a position that no document has."""
    made = errors.Problem.__init__
    linux = schema.CONFIG[1]["linux"]
    documents = (
        schema.CONFIG,
        schema.CONFIG[1]["process"],
        schema.CONFIG[1]["mounts"],
        linux[1]["resources"],
        linux[1]["seccomp"],
    )

    def checked(self: errors.Problem, pointer: str, *args: Any, **more: Any) -> None:
        made(self, pointer, *args, **more)
        source = sys._getframe(1).f_code.co_filename
        if source.startswith(f"{ROOT}/pyrunc/") and not source.endswith("/load.py") and pointer.startswith("/"):
            tokens = pointer.split("/")[1:] if pointer != "/" else []  # "/" is the whole document
            if tokens[:2] == ["linux", "timeOffsets"]:
                tokens = tokens[:2]  # the error may be about the clock's name
            assert any(of_the_schema(node, tokens) for node in documents), pointer

    monkeypatch.setattr(errors.Problem, "__init__", checked)


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    """Fail a test that leaves descriptors open; in a complete run they would exceed the 1024 that
    select(2) can watch.

    A log, a state root, a container's lock and a connection to systemd stay open until their
    process ends. This fixture closes those of a test.
    """
    logs: list[int] = []
    held: list[state.Store | state.Container] = []
    managers: list[bus.Manager] = []
    open_log, connect = log._open, bus.Manager.connect
    init_store, init_container = state.Store.__init__, state.Container.__init__

    def recorded_log(path: str) -> int:
        logs.append(open_log(path))
        return logs[-1]

    def recorded_store(self: state.Store, root: str) -> None:
        init_store(self, root)
        held.append(self)

    def recorded_container(self: state.Container, store: state.Store, id: str) -> None:
        init_container(self, store, id)
        held.append(self)

    def recorded_manager(self: bus.Manager, user: bool) -> Any:
        handle = connect(self, user)
        managers.append(self)
        return handle

    before = set(os.listdir("/proc/self/fd"))
    with pytest.MonkeyPatch.context() as patch:  # not the test's own, which it may undo
        patch.setattr(log, "_open", recorded_log)
        patch.setattr(state.Store, "__init__", recorded_store)
        patch.setattr(state.Container, "__init__", recorded_container)
        patch.setattr(bus.Manager, "connect", recorded_manager)
        yield
    for manager in managers:
        manager.close()
    for fd in logs + [one.fd for one in held if one.fd >= 0]:
        with suppress(OSError):
            os.close(fd)
    left = {}
    for name in set(os.listdir("/proc/self/fd")) - before:
        with suppress(FileNotFoundError):  # the descriptor of the listing itself
            left[name] = os.readlink(f"/proc/self/fd/{name}")
    assert not left
