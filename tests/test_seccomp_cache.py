"""The cache of compiled seccomp programs."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from pyrunc import seccomp
from seccomp_support import (
    NEWEST,
    profile,
    rule,
)


def no_compiler(*_: Any) -> bytes:
    raise AssertionError("compiled again")


def test_a_hit_needs_no_libseccomp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    given_profile = profile(rule("getpid"), NEWEST)
    first = seccomp.compile_filter(given_profile, cache_dir=str(cache))
    assert first == seccomp.compile_filter(given_profile)
    assert cache.stat().st_mode & 0o7777 == 0o700
    (file,) = cache.iterdir()
    assert file.stat().st_mode & 0o7777 == 0o600
    monkeypatch.setattr(seccomp, "_compile", no_compiler)
    assert seccomp.compile_filter(given_profile, cache_dir=str(cache)) == first
    # Flags and the listener's path do not belong to the program.
    again = seccomp.compile_filter(given_profile | {"flags": ["SECCOMP_FILTER_FLAG_LOG"]}, cache_dir=str(cache))
    assert again == (first[0], 2, False)


DIFFERENT = [
    profile(rule("getpid"), NEWEST),
    profile(rule("getpid"), NEWEST, defaultErrnoRet=5),
    profile(rule("getpid"), NEWEST, defaultAction="SCMP_ACT_KILL"),
    profile(rule("getpid"), NEWEST, defaultErrnoRet=errno.ENOSYS),
    profile(rule("getpid"), NEWEST, architectures=["SCMP_ARCH_ARM"]),
    profile(rule("getpid read"), NEWEST),
    profile(rule("getpid"), rule("read"), NEWEST),
    profile(rule("getpid", "SCMP_ACT_LOG"), NEWEST),
    profile(rule("getpid", "SCMP_ACT_ALLOW", (0, "SCMP_CMP_EQ", 0)), NEWEST),
    profile(rule("getpid", "SCMP_ACT_ALLOW", (1, "SCMP_CMP_EQ", 0)), NEWEST),
    profile(rule("getpid", "SCMP_ACT_ALLOW", (0, "SCMP_CMP_NE", 0)), NEWEST),
    profile(rule("getpid", "SCMP_ACT_ALLOW", (0, "SCMP_CMP_EQ", 1)), NEWEST),
    profile(rule("getpid", "SCMP_ACT_ALLOW", (0, "SCMP_CMP_MASKED_EQ", 1, 1)), NEWEST),
    profile(rule("getpid", "SCMP_ACT_ALLOW", (0, "SCMP_CMP_MASKED_EQ", 1, 0)), NEWEST),
    profile(rule("getpid", "SCMP_ACT_ERRNO", errnoRet=3), NEWEST),
]


def test_profiles_do_not_share_a_program(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for each in DIFFERENT:
        assert seccomp.compile_filter(each, cache_dir=str(cache))[0] == seccomp.compile_filter(each)[0]
    assert len(list(cache.iterdir())) == len(DIFFERENT)


def tampered(path: Path) -> list[Any]:
    """Ways to change a cached file; each must lead to a new compilation."""

    def rewrite(change: Any) -> Any:
        return lambda: path.write_bytes(change(bytearray(path.read_bytes())))

    def flip(at: int) -> Any:
        def change(data: bytearray) -> bytearray:
            data[at] ^= 1
            return data

        return rewrite(change)

    def link() -> None:
        path.rename(path.with_name("real"))
        path.symlink_to("real")

    def fifo() -> None:
        path.unlink()
        os.mkfifo(path, 0o600)

    def directory() -> None:
        path.unlink()
        path.mkdir(0o600)

    return [
        *(flip(at) for at in (0, 12, 20, 47, 48, 55, -1)),
        rewrite(lambda data: data[:-8]),
        rewrite(lambda data: data[:-1]),
        rewrite(lambda data: data + data[-8:]),
        rewrite(lambda data: data[:48]),
        rewrite(lambda data: b""),
        rewrite(lambda data: data + b"\0" * 40000),
        lambda: path.chmod(0o644),
        lambda: path.chmod(0o4600),
        lambda: os.link(path, path.with_name("other")),
        link,
        fifo,
        directory,
        lambda: os.chown(path, 1, -1) if os.geteuid() == 0 else path.chmod(0o640),
    ]


@pytest.mark.parametrize("way", range(len(tampered(Path("/")))))
def test_a_changed_file_is_not_taken(way: int, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    given_profile = profile(rule("getpid"), NEWEST)
    good = seccomp.compile_filter(given_profile, cache_dir=str(cache))
    (file,) = cache.iterdir()
    tampered(file)[way]()
    directory = os.open(cache, os.O_RDONLY)
    try:
        assert seccomp._recall(directory, bytes.fromhex(file.name)) == b""
    finally:
        os.close(directory)
    assert seccomp.compile_filter(given_profile, cache_dir=str(cache)) == good


def test_a_file_under_another_name_is_not_taken(tmp_path: Path) -> None:
    """A program that was cached for one profile, renamed to another profile's name."""
    cache = tmp_path / "cache"
    seccomp.compile_filter(DIFFERENT[0], cache_dir=str(cache))
    (allowed,) = cache.iterdir()
    strict = profile(rule("read"), NEWEST)
    expected = seccomp.compile_filter(strict, cache_dir=str(cache))
    (other,) = (path for path in cache.iterdir() if path != allowed)
    allowed.replace(other)
    assert seccomp.compile_filter(strict, cache_dir=str(cache)) == expected


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o702, 0o1700, 0o500])
def test_a_directory_that_others_can_use_is_left_alone(tmp_path: Path, mode: int) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(mode)
    assert seccomp.compile_filter(DIFFERENT[0], cache_dir=str(cache)) == seccomp.compile_filter(DIFFERENT[0])
    assert list(cache.iterdir()) == []


def test_no_directory(tmp_path: Path) -> None:
    expected = seccomp.compile_filter(DIFFERENT[0])
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").write_bytes(b"")
    for name in ("missing/deeper", "link", "file"):
        assert seccomp.compile_filter(DIFFERENT[0], cache_dir=str(tmp_path / name)) == expected
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs chown")
def test_a_directory_of_another_user(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(0o700)
    os.chown(cache, 1, -1)
    seccomp.compile_filter(DIFFERENT[0], cache_dir=str(cache))
    assert list(cache.iterdir()) == []


def test_the_cache_does_not_grow_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "CACHE_MAX", 4)
    cache = tmp_path / "cache"
    for number in range(12):
        seccomp.compile_filter(profile(NEWEST, defaultErrnoRet=number), cache_dir=str(cache))
        assert 1 <= len(list(cache.iterdir())) <= 4


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import posix

    monkeypatch.setattr(posix, "geteuid", lambda: 0)
    assert seccomp.cache_dir() == "/run/pyrunc.seccomp"
    monkeypatch.setattr(posix, "geteuid", lambda: 1000)
    for value, expected in ((b"/run/user/1000", "/run/user/1000/pyrunc.seccomp"), (b"", ""), (b"relative", "")):
        monkeypatch.setitem(posix.environ, b"XDG_RUNTIME_DIR", value)
        assert seccomp.cache_dir() == expected
