"""F9: command lines, through `cli.main`, with verbs that only note what they were called with."""

from __future__ import annotations

import types
from typing import Any

import pytest

from fuzz.draw import Draw
from pyrunc import cli, command, fs, log
from pyrunc.errors import UsageError

WORDS = (
    "--", "-", "", "-d", "--detach", "--detach=false", "--detach=maybe", "--bundle", "--bundle=/b", "-b", "/b",
    "--pid-file=", "--root", "/r", "--log", "/l", "--log-format=json", "--log-format", "--debug", "-h", "--help",
    "--version", "-v", "help", "id", "c1", "KILL", "--preserve-fds", "3", "--preserve-fds=99999999999", "-1",
    "--user", "0:0", "--env", "A=B", "-e", "--unknown", "---", "--=", "-=x", "--force", "-f", "--all", "--format",
    "json", "--process", "--cap", "CAP_X", "\udcff", "\n", "--rootless", "--rootless=auto", "--systemd-cgroup",
    "--cgroup-manager", "disabled", "--resources", "-r",
)  # fmt: skip

called: list[tuple[str, dict[str, Any], list[str]]] = []
written: list[tuple[int, bytes]] = []
loaded: dict[str, Any] = {name: cli.load_verb(name) for name in cli.VERBS}


class NoLog:
    """A log that opens no file."""

    def __init__(self, *_: object) -> None:
        self.lines: list[str] = []

    def error(self, text: str) -> None:
        assert text.isprintable()


def stand_in(name: str) -> types.SimpleNamespace:
    """A verb that parses like the real one and does nothing."""
    if name not in loaded:
        raise UsageError("unknown command")
    real = loaded[name]

    def main(context: object, values: dict[str, Any], args: list[str]) -> int:
        called.append((name, values, args))
        return 0

    kept = {key: getattr(real, key) for key in ("ARGS", "USAGE", "SUMMARY", "FLAGS")}
    optional = {key: getattr(real, key) for key in ("STOP_AT_FIRST", "FAILURE") if hasattr(real, key)}
    return types.SimpleNamespace(main=main, **kept, **optional)


def isolate(patch: pytest.MonkeyPatch) -> None:
    """No verb, no log file, no output."""
    patch.setattr(cli, "load_verb", stand_in)
    patch.setattr(log, "Log", NoLog)
    patch.setattr(fs, "write_all", lambda fd, data: written.append((fd, data)))


def check(draw: Draw) -> None:
    """One command line."""
    words = [draw.pick(cli.VERBS)] if draw.one_in(2) else []
    while draw.more() and len(words) < 12:
        words.append(draw.text(WORDS, 3) if draw.one_in(4) else draw.pick(WORDS))
    called.clear()
    written.clear()
    status = cli.main(words)
    assert status in (0, 1, 3, 255)
    errors = [data for fd, data in written if fd == 2]
    if status:
        line = errors[0]  # with --debug the traceback is the second
        assert len(errors) == 1 or (len(errors) == 2 and any("debug" in word for word in words))
        assert line.startswith(b"pyrunc: error: ") and line.endswith(b"\n") and line.count(b"\n") == 1
        assert b"internal error" not in line
        assert not called
        return
    assert not errors
    for name, values, args in called:
        # Said in the plainest way it means the same.
        flags = [*loaded[name].FLAGS, ("help", "h", "", "bool", "")]
        plain: list[str] = []
        for key, value in values.items():
            plain += [f"--{key}={text}" for text in (value if type(value) is list else [str(value)])]
        assert command.parse([*plain, "--", *args], flags, False) == (values, args)
