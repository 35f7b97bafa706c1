"""The drop-in files of contrib/ for the tests, with the path of the runtime under test."""

from __future__ import annotations

from integration.harness import REPO

INSTALLED = "/usr/local/bin/pyrunc"


def drop_in(name: str, path: str) -> str:
    """The text of one drop-in file, for the runtime at `path`."""
    text = (REPO / "contrib" / name).read_text(encoding="utf-8")
    assert INSTALLED in text, f"contrib/{name} names no {INSTALLED}"
    return text.replace(INSTALLED, path)
