"""The lowest layer: errors, fs, undo."""

from __future__ import annotations

import errno
import os
import posix
import resource
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrunc import errors, fs
from pyrunc.launch.undo import Undo


def test_sys_error_line() -> None:
    error = errors.SysError(
        "/mounts/1/options",
        "fsconfig",
        errno.EINVAL,
        value="bogus=1",
        detail="tmpfs: Unknown parameter 'bogus'",
    ).within("/dev")
    assert str(error) == "/mounts/1/options \"bogus=1\" (/dev): fsconfig: EINVAL: tmpfs: Unknown parameter 'bogus'"


def test_enoent_does_not_say_what_podman_takes_for_a_missing_command() -> None:
    assert "no such file" not in str(errors.SysError("/root/path", "open", errno.ENOENT, value="/x")).lower()


@given(st.text())
def test_errors_are_one_printable_line(text: str) -> None:
    line = str(errors.SysError("/hostname", "sethostname", errno.EPERM, value=text, detail=text).within(text))
    assert line.isprintable()
    assert str(errors.ConfigError([errors.Problem("/hostname", "a name", errors.show(text))])).isprintable()


@pytest.mark.parametrize(
    ("base", "path", "joined"),
    [("/a", "b", "/a/b"), ("/a/", "b", "/a/b"), ("/", "b", "/b"), ("/a", "/b", "/b"), ("a", "", "a/")],
)
def test_join(base: str, path: str, joined: str) -> None:
    assert fs.join(base, path) == joined


def test_config_error_counts_what_it_does_not_show() -> None:
    problems = [errors.Problem(f"/mounts/{i}", "object", "null") for i in range(25)]
    text = str(errors.ConfigError(problems))
    assert "/mounts/19:" in text and "/mounts/20:" not in text and text.endswith("and 5 more")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        (7, "7"),
        ('a"b\\', '"a\\"b\\\\"'),
        ([1, "x"], '[1, "x"]'),
        ({"a": []}, '{"a": []}'),
        (list(range(8)), "[0, 1, 2, 3, 4, 5, 6, 7]"),
        (list(range(9)), "[0, 1, 2, 3, 4, 5, 6, 7, ...]"),
        (dict.fromkeys("abcdefgh", 1), '{"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1, "g": 1, "h": 1}'),
        (dict.fromkeys("abcdefghi", 1), '{"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1, "g": 1, "h": 1, ...}'),
        ("x" * 198, '"' + "x" * 198 + '"'),
        ("x" * 199, '"' + "x" * 196 + "..."),
        ("x" * 300, '"' + "x" * 196 + "..."),
    ],
)
def test_show(value: object, shown: str) -> None:
    assert errors.show(value) == shown


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b"])).map("/".join), st.booleans())
def test_normpath_agrees_with_os(path: str, absolute: bool) -> None:
    path = "/" + path.lstrip("/") if absolute else path.lstrip("/")
    assert fs.normpath(path) == os.path.normpath(path)


def test_replace_file_survives_a_leftover(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    (tmp_path / ".state.json.tmp").write_text("half")
    fs.replace_file(str(target), b"one")
    fs.replace_file(str(target), b"two", 0o644)
    assert target.read_bytes() == b"two" and os.listdir(tmp_path) == ["state.json"]
    fd = os.open(tmp_path, os.O_RDONLY)
    fs.replace_file("state.json", b"three", dir_fd=fd)
    os.close(fd)
    assert target.read_bytes() == b"three"


def test_replace_file_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError):
        fs.replace_file(str(tmp_path / "taken"), b"x")
    assert os.listdir(tmp_path) == ["taken"]


def test_read_file_limit(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * 100_000)
    assert len(fs.read_file(str(big), 100_000)) == 100_000
    with pytest.raises(OSError, match="larger") as caught:
        fs.read_file(str(big), 99_999)
    assert caught.value.errno == errno.EFBIG


def test_undo_runs_backwards_and_goes_on_after_a_failure() -> None:
    seen: list[str] = []

    def bad() -> None:
        raise OSError("no")

    undo = Undo()
    undo.push(seen.append, "first")
    undo.push(bad)
    undo.push(seen.append, "last")
    assert undo.run() == ["bad: no"]
    assert seen == ["last", "first"]
    undo.push(seen.append, "kept")
    undo.forget()
    undo.run()
    assert "kept" not in seen


@pytest.mark.parametrize("held", [False, True], ids=["no-writer", "silent-writer"])
def test_fifo_that_nobody_writes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, held: bool) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    monkeypatch.setattr(fs, "WRITER_MS", 100)
    writer = os.open(path, os.O_RDWR) if held else -1
    with pytest.raises(TimeoutError):
        fs.read_file(str(path))
    if held:
        os.close(writer)


@pytest.mark.parametrize("late", [0.0, 0.2])
@pytest.mark.parametrize("text", [b"", b"x" * 200_000])
def test_fifo_is_read_to_its_end(tmp_path: Path, late: float, text: bytes) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)

    def write() -> None:
        with open(path, "wb", buffering=0) as file:
            file.write(text[:10])
            time.sleep(late)
            file.write(text[10:])

    writer = threading.Timer(late, write)
    writer.start()
    assert fs.read_file(str(path)) == text
    writer.join()


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE, errno.EIO])
def test_exists_does_not_guess(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def stat(path: str) -> None:
        raise OSError(number, path)

    monkeypatch.setattr(posix, "stat", stat)
    with pytest.raises(OSError, match="/x"):
        fs.exists("/x")


def test_exists_says_no() -> None:
    assert not fs.exists("/nonexistent/a")
    assert not fs.exists("/dev/null/a")


def test_remove_tree_is_deeper_than_there_are_descriptors(tmp_path: Path) -> None:
    depth = 1200
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    top = os.open(tmp_path, os.O_RDONLY)
    os.mkdir("tree", dir_fd=top)
    os.symlink("/", "tree/link", dir_fd=top)
    at = os.open("tree", os.O_RDONLY, dir_fd=top)
    for _ in range(depth):
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=at))
        os.mkdir("side", dir_fd=at)
        os.mkdir("down", dir_fd=at)
        below = os.open("down", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    before = set(os.listdir("/proc/self/fd"))
    try:
        fs.remove_tree("tree", top)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert os.listdir(tmp_path) == [] and set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(FileNotFoundError):
        fs.remove_tree("tree", top)
    os.close(top)


def test_remove_tree_says_what_it_cannot_remove(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    top = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(NotADirectoryError):
        fs.remove_tree("file", top)
    (tmp_path / "tree").mkdir()
    (tmp_path / "link").symlink_to("tree")
    with pytest.raises(OSError, match="Not a directory"):
        fs.remove_tree("link", top)
    assert (tmp_path / "tree").is_dir()
    os.close(top)
