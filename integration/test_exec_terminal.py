"""`exec` with a terminal: a console socket, or a terminal in the foreground."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from integration.harness import (
    Box,
    Container,
    parse_objects,
)
from integration.test_exec import Make, process_file, run, started
from integration.test_terminal import Console, read_all


def test_console_socket_as_conmon_calls(container: Make, box: Box) -> None:
    one = started(container)
    console = Console(box.path / "exec.sock")
    try:
        path = process_file(one, terminal=True, consoleSize={"height": 30, "width": 90})
        pid_file = box.path / "exec.pid"
        flags = ("--pid-file", str(pid_file), "--process", path, "--detach", "--tty")
        one.call("exec", *flags, "--console-socket", str(console.path), one.id)
        master = console.receive()
        assert console.descriptors == 1
        seen = next(item for item in parse_objects(read_all(master)) if item["action"] == "report")
        assert [seen["tty"][str(fd)]["isatty"] for fd in range(3)] == [1, 1, 1]
        assert (seen["tty"]["rows"], seen["tty"]["cols"]) == (30, 90)
        assert seen["tty"]["foreground_pgrp"] == seen["pid"]
        assert os.waitstatus_to_exitcode(os.waitpid(int(pid_file.read_text()), 0)[1]) == 0
    finally:
        console.close()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("-d", "-t"), "cannot allocate tty if"),
        (("-d", "--console-socket", "/x"), "cannot use console socket if"),
        (("-t", "--console-socket", "/x"), "cannot use console socket if"),
        (("--console-socket", "/x"), "cannot use console socket if"),
        (("-d", "-t=false", "--console-socket", "/x"), "cannot use console socket if"),
    ],
)
def test_terminal_matrix(container: Make, flags: tuple[str, ...], words: str) -> None:
    one = started(container)
    result = run(one, "/probe", "report", flags=flags, check=False)
    assert result.rc == 255
    assert words in result.err


class Interactive:
    """`exec -t` on a pty of the test, as on a user's terminal."""

    def __init__(self, one: Container, *args: str) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(24, 80)
        self.before = termios.tcgetattr(self.slave)
        argv = one.box.runtime.argv("--root", str(one.box.root), "exec", "-t", one.id, *args)

        def own_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        tty = self.slave
        self.child = subprocess.Popen(argv, preexec_fn=own_terminal, stdin=tty, stdout=tty, stderr=tty)
        one.box.helpers.add(self.child.pid)

    def resize(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def interactive() -> Iterator[Callable[..., Interactive]]:
    made: list[Interactive] = []

    def make(*args: Any) -> Interactive:
        made.append(Interactive(*args))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_terminal(container: Make, interactive: Callable[..., Interactive]) -> None:
    one = started(container)
    shell = interactive(one, "/probe", "report", "--", "line", "--", "exit", "5")
    text = read_all(shell.master, lambda so_far: '"report"' in so_far and so_far.endswith("\n"))
    seen = next(item for item in parse_objects(text) if item["action"] == "report")
    assert [seen["tty"][str(fd)]["isatty"] for fd in range(3)] == [1, 1, 1]
    assert (seen["tty"]["rows"], seen["tty"]["cols"]) == (24, 80)
    assert seen["tty"]["foreground_pgrp"] == seen["sid"] == seen["pid"]
    os.write(shell.master, b"typed\r")
    assert '"text":"typed' in read_all(shell.master, lambda so_far: '"action":"line"' in so_far)
    assert shell.child.wait(10) == 5
    assert termios.tcgetattr(shell.slave) == shell.before, "the caller's terminal gets its mode back"


def test_terminal_size_and_signals(container: Make, interactive: Callable[..., Interactive]) -> None:
    one = started(container)
    shell = interactive(one, "/probe", "signals", "60")
    read_all(shell.master, lambda so_far: '"ready"' in so_far)
    shell.resize(50, 132)
    assert '"rows":50' in read_all(shell.master, lambda so_far: '"rows":50' in so_far)
    os.write(shell.master, b"\x03")
    assert '"number":2' in read_all(shell.master, lambda so_far: '"number":2' in so_far), "Ctrl-C goes to the program"
    shell.child.send_signal(signal.SIGTERM)
    assert shell.child.wait(10) == 143


def test_failing_program_gives_the_terminal_back(container: Make, interactive: Callable[..., Interactive]) -> None:
    one = started(container)
    shell = interactive(one, "/nonexist")
    assert shell.child.wait(10) == 255
    assert termios.tcgetattr(shell.slave) == shell.before
    assert "no such file or directory" in read_all(shell.master, lambda so_far: "directory" in so_far)
