"""Semantics of older versions of the specification."""

from __future__ import annotations

from typing import Any

import pytest

import transcript
from json_type import Json
from pyrunc.spec import older

kept = transcript.follow()


@pytest.mark.parametrize(
    ("version", "limit", "expected"),
    [
        ("1.0.0", 0, -1),
        ("1.0.2-dev", 0, -1),  # podman 4
        ("1.2.1", 0, -1),
        ("1.3.0", 0, 0),
        ("1.3.0-rc.1", 0, 0),
        ("1.4.0", 0, 0),
        ("1.0.0", 7, 7),
        ("1.0.0", -1, -1),
        ("1.0.0", None, None),
    ],
)
def test_pids_limit_0(version: str, limit: int | None, expected: int | None) -> None:
    """0 means no limit before 1.3.0, where it is a limit."""
    config: Json = {"ociVersion": version, "linux": {"resources": {"pids": {"limit": limit}}}}
    older.adapt(config)
    assert config["linux"]["resources"]["pids"]["limit"] == expected


@pytest.mark.parametrize("linux", [{}, {"resources": {}}, {"resources": {"pids": {}}}])
def test_nothing_to_adapt(linux: dict[str, Any]) -> None:
    config: Json = {"ociVersion": "1.0.0", "linux": linux}
    older.adapt(config)
    assert config == {"ociVersion": "1.0.0", "linux": linux}
