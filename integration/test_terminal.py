"""process.terminal: the console socket, and the foreground pty with raw mode, window size and
signals."""

from __future__ import annotations

import array
import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.harness import Box, Container, parse_objects

Make = Callable[..., Container]
Refused = Callable[..., None]
TTY = {"/process/terminal": True}


class Console:
    """The caller's end of a console socket, as in containerd and conmon."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        self.server.settimeout(10)
        self.payload = b""
        self.master = -1
        self.descriptors = 0

    def receive(self) -> int:
        connection, _ = self.server.accept()
        with connection:
            self.payload, control, flags, _ = connection.recvmsg(4096, socket.CMSG_SPACE(64))
            assert not flags & socket.MSG_CTRUNC
            fds = array.array("i")
            for _, _, data in control:
                fds.frombytes(data[: len(data) - len(data) % 4])
            self.descriptors = len(fds)
            self.master = fds[0]
            assert connection.recv(4096) == b"", "one message only"
        return self.master

    def close(self) -> None:
        self.server.close()
        if self.master >= 0:
            os.close(self.master)


@pytest.fixture
def console(box: Box) -> Iterator[Console]:
    made = Console(box.path / "pty.sock")
    yield made
    made.close()


def read_all(master: int, until: Callable[[str], bool] = lambda text: False, timeout: float = 10) -> str:
    """The output of a pty master until it closes (EIO) or the text satisfies `until`."""
    text = b""
    limit = time.monotonic() + timeout
    while time.monotonic() < limit:
        if not select.select([master], [], [], 0.1)[0]:
            continue
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        text += piece
        if until(text.decode(errors="replace")):
            break
    return text.decode(errors="replace")


def test_console_socket(container: Make, console: Console) -> None:
    one = container("report", edits=TTY)
    one.create("--console-socket", str(console.path))
    master = console.receive()
    assert console.descriptors == 1
    assert 0 < len(console.payload) < 4096
    one.start()
    seen = next(item for item in parse_objects(read_all(master)) if item["action"] == "report")
    one.wait()
    tty = seen["tty"]
    assert [tty[str(fd)]["isatty"] for fd in range(3)] == [1, 1, 1]
    assert tty["0"]["link"] == "/dev/pts/0"
    assert tty["foreground_pgrp"] == seen["pid"] == seen["sid"] == 1
    console_node = seen["devices"]["/dev/console"]
    assert (console_node["type"], console_node["major"], console_node["minor"]) == ("c", 136, 0)
    assert set(seen["fds"]) == {"0", "1", "2"}


def test_console_size(container: Make, console: Console) -> None:
    edits = {**TTY, "/process/consoleSize": {"height": 33, "width": 111}}
    one = container("report", edits=edits)
    one.create("--console-socket", str(console.path))
    master = console.receive()
    one.start()
    seen = next(item for item in parse_objects(read_all(master)) if item["action"] == "report")
    assert (seen["tty"]["rows"], seen["tty"]["cols"]) == (33, 111)


def test_console_size_is_ignored_without_a_terminal(container: Make) -> None:
    edits = {"/process/consoleSize": {"height": 33, "width": 111}}
    assert container("say", "fine", edits=edits).run().out == "fine\n"


def test_terminal_belongs_to_the_user(container: Make, console: Console) -> None:
    edits = {**TTY, "/process/user": {"uid": 1000, "gid": 1000}}
    one = container("report", edits=edits)
    one.create("--console-socket", str(console.path))
    master = console.receive()
    one.start()
    seen = next(item for item in parse_objects(read_all(master)) if item["action"] == "report")
    assert seen["tty"]["0"]["uid"] == 1000


def test_input_and_control_keys(container: Make, console: Console) -> None:
    one = container("line", "--", "signals", "60", edits=TTY)
    one.create("--console-socket", str(console.path))
    master = console.receive()
    one.start()
    os.write(master, b"typed\n")
    text = read_all(master, lambda so_far: '"ready"' in so_far)
    assert '"text":"typed' in text
    os.write(master, b"\x03")
    text = read_all(master, lambda so_far: '"number":2' in so_far)
    assert '"number":2' in text, "Ctrl-C is SIGINT in the container's foreground group"
    one.kill("TERM")
    assert one.wait() == 143


@pytest.mark.parametrize("kind", ["link", "dir", "file"])
def test_console_that_the_image_prepared(container: Make, console: Console, box: Box, kind: str) -> None:
    """CVE-2025-52565: /dev/console must be the pty, or create fails; nothing outside the container
    changes."""
    canary = box.path / "canary"
    canary.write_text("untouched")
    one = container("report", edits=TTY)
    mounts = one.bundle.config["mounts"]
    one.bundle.config["mounts"] = [m for m in mounts if m["destination"] not in ("/dev", "/dev/shm", "/dev/mqueue")]
    path = one.bundle.rootfs / "dev/console"
    if kind == "link":
        path.symlink_to(canary)
    elif kind == "dir":
        path.mkdir()
    else:
        path.touch()
    result = one.create("--console-socket", str(console.path), check=False)
    assert canary.read_text() == "untouched"
    if result.rc == 0:
        master = console.receive()
        one.start()
        seen = next(item for item in parse_objects(read_all(master)) if item["action"] == "report")
        node = seen["devices"].get("/dev/console", {})
        assert kind == "link" or (node["type"], node["major"]) == ("c", 136)


@pytest.mark.parametrize(
    ("terminal", "flags", "words"),
    [
        (True, [], "console socket"),
        (False, ["--console-socket", "SOCK"], "console socket"),
        (True, ["--console-socket", "/no/such/socket"], "/no/such/socket"),
        (True, ["--console-socket", "/" + "x" * 120], "console"),
    ],
)
def test_console_options_that_do_not_fit(
    container: Make, box: Box, refused: Refused, terminal: bool, flags: list[str], words: str
) -> None:
    one = container(edits={"/process/terminal": terminal})
    flags = [str(box.path / "none.sock") if flag == "SOCK" else flag for flag in flags]
    refused(one.create(*flags, check=False), "", words)


def test_console_socket_that_is_not_a_socket(container: Make, box: Box, refused: Refused) -> None:
    path = box.path / "file"
    path.touch()
    refused(container(edits=TTY).create("--console-socket", str(path), check=False), "", str(path))


# --- foreground -----------------------------------------------------------------------------------


class Foreground:
    """`run` of a container in the foreground on a pty of the test, as in a user's terminal."""

    def __init__(self, one: Container, rows: int = 24, cols: int = 80) -> None:
        self.one = one
        one.bundle.save()
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
        self.before = termios.tcgetattr(slave)
        argv = one.box.runtime.argv("--root", str(one.box.root), "run", "-b", str(one.bundle.path), one.id)

        def own_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.child = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_terminal)
        one.box.helpers.add(self.child.pid)
        self.slave = slave

    def resize(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def finish(self) -> int:
        try:
            return self.child.wait(10)
        finally:
            self.child.kill()
            self.child.wait()

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def foreground() -> Iterator[Callable[..., Foreground]]:
    made: list[Foreground] = []

    def make(*args: Any, **kwargs: Any) -> Foreground:
        made.append(Foreground(*args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_foreground_output_exit_code_and_restored_mode(container: Make, foreground: Callable[..., Foreground]) -> None:
    run = foreground(
        container(
            "say", "line", "--", "sleep", "0.3", "--", "report", "--", "say", "marker", "--", "exit", "5", edits=TTY
        )
    )
    text = read_all(run.master, lambda so_far: so_far.endswith("marker\r\n"))
    assert run.finish() == 5
    # ONLCR is cleared on the container's pty; ours is raw but keeps OPOST and ONLCR: one carriage
    # return per line
    assert text.startswith("line\r\n")
    seen = next(item for item in parse_objects(text) if item["action"] == "report")
    assert (seen["tty"]["rows"], seen["tty"]["cols"]) == (24, 80)
    assert (seen["tty"]["onlcr"], seen["tty"]["echo"], seen["tty"]["icanon"]) == (0, 1, 1)
    assert seen["tty"]["0"]["link"] == "/dev/pts/0"
    assert termios.tcgetattr(run.slave) == run.before, "the caller's terminal gets its mode back"


def test_foreground_is_raw_while_it_runs(container: Make, foreground: Callable[..., Foreground]) -> None:
    run = foreground(container("signals", "60", edits=TTY))
    read_all(run.master, lambda so_far: '"ready"' in so_far)
    flags = termios.tcgetattr(run.slave)
    assert not flags[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    os.write(run.master, b"\x03")
    text = read_all(run.master, lambda so_far: '"number":2' in so_far)
    assert '"number":2' in text, "Ctrl-C goes to the program, not to the runtime"
    run.child.send_signal(signal.SIGTERM)
    assert run.finish() == 143


def test_foreground_resize(container: Make, foreground: Callable[..., Foreground]) -> None:
    run = foreground(container("signals", "60", edits=TTY))
    read_all(run.master, lambda so_far: '"ready"' in so_far)
    run.resize(50, 132)
    text = read_all(run.master, lambda so_far: '"rows":50' in so_far)
    last = [item for item in parse_objects(text) if item.get("number") == signal.SIGWINCH][-1]
    assert (last["rows"], last["cols"]) == (50, 132)
    run.child.send_signal(signal.SIGTERM)
    assert run.finish() == 143


def test_foreground_passes_signals_on(container: Make, foreground: Callable[..., Foreground]) -> None:
    run = foreground(container("signals", "60", edits=TTY))
    read_all(run.master, lambda so_far: '"ready"' in so_far)
    run.child.send_signal(signal.SIGUSR1)
    assert '"number":10' in read_all(run.master, lambda so_far: '"number":10' in so_far)
    run.child.send_signal(signal.SIGTERM)
    assert run.finish() == 143


def test_foreground_input(container: Make, foreground: Callable[..., Foreground]) -> None:
    run = foreground(container("line", edits=TTY))
    os.write(run.master, b"typed\r")
    text = read_all(run.master, lambda so_far: '"action":"line"' in so_far)
    assert run.finish() == 0
    assert '"text":"typed' in text


def test_foreground_large_output(container: Make, foreground: Callable[..., Foreground]) -> None:
    one = container(edits={**TTY, "/process/args": ["/bin/seq", "1", "50000"]})
    run = foreground(one)
    text = read_all(run.master, lambda so_far: so_far.endswith("\r\n50000\r\n"), timeout=20)
    assert run.finish() == 0
    assert text.split("\r\n")[:-1] == [str(number) for number in range(1, 50001)]


@pytest.mark.pyrunc_only("runc fails to open /dev/tty there, in words that do not say why")
def test_terminal_without_a_terminal(container: Make) -> None:
    """`run` of a bundle with terminal:true from a script: the container has its own pty, and its
    output is ours."""
    one = container("report", "--", "exit", "3", edits=TTY)
    result = one.run(check=False)
    if result.rc == 3:
        assert result.report["tty"]["0"]["isatty"] == 1
    else:
        assert result.rc == 1
        assert len(result.err.splitlines()) == 1
        assert "terminal" in result.err


def test_detached_terminal_needs_a_console_socket(container: Make, refused: Refused) -> None:
    one = container(edits=TTY)
    one.bundle.save()
    result = one.call("run", "--detach", "-b", str(one.bundle.path), one.id, check=False)
    assert "cannot allocate tty if" in result.err or not one.box.runtime.is_pyrunc
    refused(result, "", "console socket")


def test_two_terminals_are_two_instances(container: Make, box: Box) -> None:
    one, two = Console(box.path / "1.sock"), Console(box.path / "2.sock")
    try:
        first, second = container("report", edits=TTY), box.container("report", edits=TTY)
        for made, console in ((first, one), (second, two)):
            made.create("--console-socket", str(console.path))
            console.receive()
            made.start()
            seen = [item for item in parse_objects(read_all(console.master)) if item["action"] == "report"]
            assert json.dumps(seen[0]["tty"]["0"]["link"]) == '"/dev/pts/0"'
            made.wait_status("stopped")
    finally:
        one.close()
        two.close()
