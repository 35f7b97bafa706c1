"""The session of `mounts add` around its commit, without init."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pyrunc.errors import PyruncError
from pyrunc.launch.added_mounts import Add
from pyrunc.launch.session import InitSession


@pytest.fixture
def adding(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Three mounts that init reports as attached; the container has those of ``points``."""
    target = SimpleNamespace(id="c", data={}, save=lambda: None)
    log = SimpleNamespace(debug=lambda text: None)
    config: Any = {}
    one: Any = Add(target, config, [], log)  # type: ignore[arg-type]
    one.added = [{"entry": {}, "id": number, "unique": 0, "at": "", "pending": True} for number in (1, 2, 3)]
    points = {1: "/a", 2: "/b", 3: "/c"}
    monkeypatch.setattr(Add, "table", lambda self: SimpleNamespace(points=points))
    monkeypatch.setattr(Add, "send", lambda self, word: None)
    return SimpleNamespace(one=one, points=points, target=target)


def test_all_are_pending_until_the_state_is_written(adding: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not pending would not be undone."""
    del adding.points[2]
    with pytest.raises(PyruncError, match=r"/1/destination: the container has detached it again"):
        adding.one.on_ready(None)
    assert [mount["pending"] for mount in adding.one.added] == [True] * 3
    adding.points[2] = "/b"

    def fails() -> None:
        raise MemoryError

    monkeypatch.setattr(adding.target, "save", fails)
    with pytest.raises(MemoryError):
        adding.one.on_ready(None)
    assert [mount["pending"] for mount in adding.one.added] == [True] * 3
    monkeypatch.setattr(adding.target, "save", lambda: None)
    adding.one.on_ready(None)
    assert [(mount["at"], mount["pending"]) for mount in adding.one.added] == [
        ("/a", False), ("/b", False), ("/c", False),
    ]  # fmt: skip


@pytest.mark.parametrize("error", [MemoryError, OSError, PyruncError])
def test_a_failure_after_the_state_is_written(
    adding: Any, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def execute(self: InitSession) -> None:
        raise error

    monkeypatch.setattr(InitSession, "execute", execute)
    with pytest.raises(error):
        adding.one.execute()
    adding.one.committed = True
    adding.one.execute()
