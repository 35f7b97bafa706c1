"""`run` and `exec` in the foreground without a terminal: pipes connect the caller's stdio and the
program."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from integration.harness import SLOW, Box, Container
from integration.test_exec import started

Make = Callable[..., Container]
BIG = 10_000_000


@pytest.fixture(params=["run", "exec"])
def argv(request: pytest.FixtureRequest, container: Make) -> Iterator[Callable[..., list[str]]]:
    """``argv(program, *arguments)``: the command line that executes it in a container, by either
    verb."""

    def make(*args: str) -> list[str]:
        if request.param == "exec":
            one = started(container)
            verb = ["exec", one.id, *args]
        else:
            one = container(edits={"/process/args": list(args)})
            one.bundle.save()
            verb = ["run", "-b", str(one.bundle.path), one.id]
        return one.box.runtime.argv("--root", str(one.box.root), *verb)

    yield make


@contextmanager
def running(box: Box, argv: list[str], **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(argv, **more)
    box.helpers.add(child.pid)
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        for file in (child.stdin, child.stdout, child.stderr):
            if file:
                file.close()


def test_large_input_and_output(argv: Callable[..., list[str]], box: Box) -> None:
    data = os.urandom(BIG)
    with running(box, argv("/bin/cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        out, _ = child.communicate(data, timeout=60 * SLOW)
        assert child.returncode == 0
    assert out == data


def test_files(argv: Callable[..., list[str]], box: Box) -> None:
    source, target = box.path / "in", box.path / "out"
    source.write_bytes(os.urandom(BIG))
    command = argv("/bin/cat")
    with (
        source.open("rb") as stdin,
        target.open("wb") as stdout,
        running(box, command, stdin=stdin, stdout=stdout) as child,
    ):
        assert child.wait(60 * SLOW) == 0
    assert target.read_bytes() == source.read_bytes()


def test_stdout_and_stderr_stay_apart(argv: Callable[..., list[str]], box: Box) -> None:
    script = "echo out; echo err >&2; exit 3"
    with running(box, argv("/bin/sh", "-c", script), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        out, err = child.communicate(timeout=10 * SLOW)
        assert (out, err, child.returncode) == (b"out\n", b"err\n", 3)


def test_end_of_input(argv: Callable[..., list[str]], box: Box) -> None:
    with running(box, argv("/bin/wc", "-l"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(b"one\n")
        child.stdin.flush()
        time.sleep(0.3)
        assert child.poll() is None
        child.stdin.write(b"two\n")
        child.stdin.close()
        assert child.stdout.read().strip() == b"2"
        assert child.wait(10 * SLOW) == 0


def test_the_program_does_not_hold_the_callers_files(argv: Callable[..., list[str]], box: Box) -> None:
    files = [box.path / name for name in ("0", "1", "2")]
    files[0].write_text("")
    script = "readlink /proc/self/fd/0; readlink /proc/self/fd/1; readlink /proc/self/fd/2"
    command = argv("/bin/sh", "-c", script)
    with (
        files[0].open("rb") as stdin,
        files[1].open("wb") as stdout,
        files[2].open("wb") as stderr,
        running(box, command, stdin=stdin, stdout=stdout, stderr=stderr) as child,
    ):
        assert child.wait(10 * SLOW) == 0, files[2].read_text()
    assert [line.partition(":")[0] for line in files[1].read_text().split()] == ["pipe"] * 3


def test_the_callers_terminal_stays_the_callers(argv: Callable[..., list[str]], box: Box) -> None:
    """CVE-2017-5226: the program does not get a terminal, so nothing can be typed into it."""
    master, slave = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    try:
        command = argv("/bin/sh", "-c", "tty; read line; echo got $line; test -t 1 || echo none")
        with running(box, command, stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_terminal) as child:
            os.write(master, b"typed\n")
            assert child.wait(10 * SLOW) == 0
        text = os.read(master, 65536).decode()
    finally:
        os.close(master)
        os.close(slave)
    for words in ("not a tty", "got typed", "none"):
        assert words in text


def test_a_user_can_open_its_stdout_again(container: Make) -> None:
    """A program could not open /dev/stdout if it were another user's pipe; programs log to it."""
    one = started(container, edits={"/process/user": {"uid": 1000, "gid": 1000}})
    result = one.call("exec", one.id, "/bin/sh", "-c", "echo again > /proc/self/fd/1")
    assert result.out == "again\n"


def test_nobody_reads_the_output(argv: Callable[..., list[str]], box: Box) -> None:
    with running(box, argv("/bin/yes"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.read(4) == b"y\ny\n"
        child.stdout.close()
        # the signal does not kill pid 1 of a namespace, but its write(2) fails
        assert child.wait(10 * SLOW) in (128 + signal.SIGPIPE, 1)


def test_closed_stdio(argv: Callable[..., list[str]], box: Box) -> None:
    command = ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *argv("/bin/sh", "-c", "cat; echo x; exit 4")]
    with running(box, command) as child:
        assert child.wait(10 * SLOW) == 4


def test_output_of_what_is_left_behind_is_waited_for(container: Make, box: Box) -> None:
    """As in runc, output ends when no process can write to it any more."""
    one = started(container)
    argv = one.box.runtime.argv("--root", str(box.root), "exec", one.id, "/bin/sh", "-c", "(sleep 0.7; echo late) &")
    with running(box, argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        out, _ = child.communicate(timeout=10 * SLOW)
        assert (out, child.returncode) == (b"late\n", 0)


@pytest.mark.pyrunc_only("runc does not react to signals any more then")
def test_a_signal_ends_that_waiting(container: Make, box: Box) -> None:
    one = started(container)
    argv = one.box.runtime.argv(
        "--root", str(box.root), "exec", one.id, "/bin/sh", "-c", "echo now; sleep 600 & exit 6"
    )
    with running(box, argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"now\n"
        time.sleep(0.3)
        assert child.poll() is None
        child.send_signal(signal.SIGTERM)
        assert child.wait(10 * SLOW) == 6


def test_no_busy_loop(argv: Callable[..., list[str]], box: Box) -> None:
    """Unread input and closed output must not be polled forever."""
    command = argv("/bin/sh", "-c", "exec >&- 2>&-; sleep 1.5")
    with running(box, command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        time.sleep(1)
        pids = [child.pid, *children(child.pid)]
        spent = sum(ticks(pid) for pid in pids)
        assert child.wait(10 * SLOW) == 0
    assert spent < 60, f"{spent} ticks of processor time"


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_left_behind_processes_of_a_run_are_killed(container: Make) -> None:
    """Without a pid namespace, processes that the program leaves belong to the container and must
    not block `run`."""
    namespaces = [{"type": kind} for kind in ("mount", "uts", "ipc")]
    one = container(edits={"/linux/namespaces": namespaces, "/process/args": ["/bin/sh", "-c", "sleep 600 & exit 9"]})
    assert one.run(check=False).rc == 9
    if one.box.runtime.is_pyrunc:  # runc has its own view of the hierarchy here
        assert not one.cgroup.exists()
