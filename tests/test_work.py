"""A limit of CPU time holds on a machine of any speed."""

from __future__ import annotations

import gc
import time

import pytest

import work


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_more_than_a_limit_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_unit", lambda: 0.012)
    with pytest.raises(AssertionError, match=r"expected less than 0\.01 s x 1\.00"), work.at_most(0.01):
        burn(0.02)


def test_a_slow_machine_gets_more(monkeypatch: pytest.MonkeyPatch) -> None:
    units = [12.0, 0.012]
    monkeypatch.setattr(work, "_unit", units.pop)
    with work.at_most(0.01):
        burn(0.02)
    assert units == []


def test_an_error_ends_the_block_and_is_not_hidden() -> None:
    with pytest.raises(ValueError, match="mine"), work.at_most(0):
        raise ValueError("mine")
    assert gc.isenabled()


def test_garbage_of_other_tests_does_not_count() -> None:
    with work.at_most(60):
        assert not gc.isenabled()
    assert gc.isenabled()
