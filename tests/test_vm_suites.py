"""Guests with the Python of another Debian suite: PYRUNC_VM_SUITE."""

import pytest

from integration.vm import foreign, images


@pytest.mark.parametrize(
    ("suite", "version", "zstd"), [("bookworm", "3.11", True), ("trixie", "3.13", True), ("testing", "3.14", False)]
)
def test_suite(monkeypatch: pytest.MonkeyPatch, suite: str, version: str, zstd: bool) -> None:
    """Requirements are those of the guest's Python: 3.14 has zstd in its library (PEP 784)."""
    monkeypatch.setenv("PYRUNC_VM_SUITE", suite)
    assert foreign.python() == version
    names = [one.partition(">")[0] for one in foreign.requirements()]
    assert ("backports.zstd" in names) == zstd
    assert {"pyroute2", "cffi"} <= set(names)


def test_unknown_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite whose Python is not known is an error."""
    monkeypatch.setenv("PYRUNC_VM_SUITE", "sid")
    with pytest.raises(images.Unavailable, match="PYRUNC_VM_SUITE=sid: not one of bookworm, trixie, testing"):
        foreign.python()


def test_own_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable a guest has this machine's suite."""
    monkeypatch.delenv("PYRUNC_VM_SUITE", raising=False)
    monkeypatch.setattr(images, "release", lambda: "trixie")
    assert foreign.python() == "3.13"
