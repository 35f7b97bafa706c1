"""Explanations of failures, and suggestions for misspelled words."""

from __future__ import annotations

import errno
import posix

import pytest

import transcript
import work
from pyrunc import fs, hints

kept = transcript.follow("pyrunc.hints")

WORDS = ("start", "state", "create", "delete", "--bundle", "KILL", "USR1", "USR2", "nosuid")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("strat", "; did you mean start?"),  # a swap counts as one mistake
        ("stat", "; did you mean start or state?"),
        ("craete", "; did you mean create?"),
        ("delet", "; did you mean delete?"),
        ("nosiud", "; did you mean nosuid?"),
        ("--bundel", "; did you mean --bundle?"),
        ("USR", "; did you mean USR1 or USR2?"),
        ("KIL", "; did you mean KILL?"),
        ("start", ""),  # known: not misspelled
        ("dlet", ""),  # two mistakes in a short word
        ("deleting", ""),
        ("frobnicate", ""),
        ("k", ""),
        ("", ""),
    ],
)
def test_did_you_mean(word: str, expected: str) -> None:
    assert hints.did_you_mean(word, WORDS) == expected


def test_at_most_three_are_named() -> None:
    assert hints.did_you_mean("ax", [f"a{letter}" for letter in "bcdef"]) == "; did you mean ab or ac or ad?"


def test_long_words_cost_nothing() -> None:
    def nearest(size: int) -> int:
        return work.calls(lambda: hints.did_you_mean("x" * size, ["x" * (size + 1), *WORDS]))

    assert hints.did_you_mean("x" * 1_000_000, ["x" * 1_000_001, *WORDS]) == ""
    assert nearest(1_000_000) == nearest(1000)


SETTINGS = {
    "/proc/sys/kernel/unprivileged_userns_clone": b"1\n",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": b"0\n",
}


@pytest.mark.parametrize(
    ("uid", "changed", "words"),
    [
        (1000, {}, "in a chroot"),
        (1000, {"unprivileged_userns_clone": b"0\n"}, "unprivileged_userns_clone is 0"),
        (1000, {"apparmor_restrict_unprivileged_userns": b"1\n"}, "apparmor_restrict_unprivileged_userns is 1"),
        (0, {"unprivileged_userns_clone": b"0\n"}, "in a chroot"),  # it does not concern root
    ],
)
def test_a_setting_is_blamed_only_when_it_forbids(
    monkeypatch: pytest.MonkeyPatch, uid: int, changed: dict[str, bytes], words: str
) -> None:
    settings = SETTINGS | {f"/proc/sys/kernel/{name}": value for name, value in changed.items()}
    monkeypatch.setattr(posix, "geteuid", lambda: uid)
    monkeypatch.setattr(fs, "read_file", lambda path, limit: settings[path])
    assert words in hints.find("UNSHARE_USER", errno.EPERM)
    assert ("/proc/sys" in hints.find("UNSHARE_USER", errno.EPERM)) == ("chroot" not in words)


def test_kernels_without_these_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(path: str, limit: int) -> bytes:
        raise FileNotFoundError(errno.ENOENT, path)

    monkeypatch.setattr(posix, "geteuid", lambda: 1000)
    monkeypatch.setattr(fs, "read_file", absent)
    assert "in a chroot" in hints.find("UNSHARE_USER", errno.EPERM)
    assert hints.find("UNSHARE_USER", errno.ENOSPC) and hints.find("NO SUCH OP", errno.EPERM) == ""
