"""The log as engines read it: whole lines, strict times, and nothing unrequested on stderr."""

from __future__ import annotations

import json
import os
import posix
import re
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pyrunc.errors import SysError
from pyrunc.log import Log

RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")
TEXT = re.compile(r'time="([^"]+)" level=(debug|info|warning|error) msg="((?:[^"\\]|\\.)*)"')
NASTY = 'a "quoted" \\ back\nline\ttab\x1b[31mred \udcff é \u2028 \U0001f600 \x7f'


def check_time(text: str) -> None:
    assert RFC3339.fullmatch(text), text
    seen = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - seen).total_seconds()) < 10


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    log = Log(str(path), "json", debug=True)
    for level in ("debug", "info", "warning", "error"):
        getattr(log, level)(NASTY)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    for line, level in zip(lines, ("debug", "info", "warning", "error"), strict=True):
        entry = json.loads(line)
        assert list(entry) == ["level", "msg", "time"]
        assert entry["level"] == level
        assert entry["msg"].startswith('a "quoted" \\ back\\u000aline')
        assert "é" in entry["msg"] and "\x1b" not in entry["msg"]
        check_time(entry["time"])
    assert lines[0].startswith('{"level":"debug","msg":"')


def test_text_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    Log(str(path), "text").error(NASTY)
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n") and text.count("\n") == 1
    match = TEXT.fullmatch(text[:-1])
    assert match
    check_time(match[1])
    assert match[2] == "error"
    assert re.sub(r"\\(.)", r"\1", match[3]).startswith('a "quoted" \\ back')


def test_file_is_private_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    before = os.umask(0)
    try:
        Log(str(path)).error("one")
    finally:
        os.umask(before)
    Log("file:" + str(path)).error("two")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [TEXT.fullmatch(line)[3] for line in path.read_text().splitlines()] == ["one", "two"]  # type: ignore[index]


def test_debug_only_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log(str(path))
    log.debug("no")
    log.warning("yes")
    assert [TEXT.fullmatch(line)[3] for line in path.read_text().splitlines()] == ["yes"]  # type: ignore[index]


@pytest.mark.parametrize(("debug", "expected"), [(False, []), (True, ["debug", "info", "warning"])])
def test_without_a_file_only_debug_reaches_stderr(
    capfd: pytest.CaptureFixture[str], debug: bool, expected: list[str]
) -> None:
    log = Log("", "text", debug)
    for level in ("debug", "info", "warning", "error"):
        getattr(log, level)("x")
    out, err = capfd.readouterr()
    assert out == ""
    assert [TEXT.fullmatch(line)[2] for line in err.splitlines()] == expected  # type: ignore[index]


def test_with_a_file_nothing_reaches_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = Log(str(tmp_path / "log"), "json", debug=True)
    for level in ("debug", "info", "warning", "error"):
        getattr(log, level)("x")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"])
def test_names_of_stderr(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    Log(name, "json").error("x")
    assert json.loads(capfd.readouterr().err)["msg"] == "x"


def test_places_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("")
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "fifo")
    for name, errno in (("link", "ELOOP"), ("no/log", "ENOENT"), (".", "EISDIR"), ("fifo", "ENXIO")):
        with pytest.raises(SysError, match=f"^--log .*: open: {errno}"):
            Log(str(tmp_path / name))
    for name in ("/dev/fd/999", "/dev/fd/99999999999999999999"):
        with pytest.raises(SysError, match="EBADF"):
            Log(name)
    assert (tmp_path / "real").read_text() == ""


def test_a_full_disk_does_not_matter() -> None:
    Log("/dev/full").error("x")


def test_concurrent_writers_do_not_mix_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"

    def write(letter: str) -> None:
        log = Log(str(path), "json")
        for _ in range(50):
            log.error(letter * 3000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = [json.loads(line)["msg"] for line in path.read_text().splitlines()]
    assert len(entries) == 200 and all(entry == entry[0] * 3000 for entry in entries)


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("to_file", [False, True])
def test_where_a_warning_goes(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    to_file: bool,
    ours: bool,
    terminal: bool,
) -> None:
    """A warning always goes to the log. It goes to stderr if a person reads that, or if stderr is
    the only place and the caller does not merge it."""
    monkeypatch.setattr(posix, "isatty", lambda fd: terminal and fd == 2)
    path = tmp_path / "log"
    log = Log(str(path) if to_file else "")
    log.stderr_is_ours = ours
    log.warning("some\nthing")
    log.info("nothing to do about it")
    heard = terminal or (ours and not to_file)
    assert capfd.readouterr().err == ("pyrunc: warning: some\\u000athing\n" if heard else "")
    assert not to_file or path.read_text().count("level=warning") == 1
    log.warning("aloud", aloud=True)
    assert capfd.readouterr().err == "pyrunc: warning: aloud\n"


@pytest.mark.parametrize("path", ["", "/dev/stderr"])
def test_a_warning_is_on_stderr_once(capfd: pytest.CaptureFixture[str], path: str) -> None:
    log = Log(path, debug=True)
    log.stderr_is_ours = True
    log.warning("once")
    text = capfd.readouterr().err
    assert text.count("once") == 1 and "level=warning" in text
