"""The pipes of a program in the foreground, without a program."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

import transcript
from pyrunc.launch.streams import Pump, Streams

kept = transcript.follow()


@pytest.fixture
def fds() -> Iterator[list[int]]:
    made: list[int] = []
    yield made
    for fd in made:
        try:
            os.close(fd)
        except OSError:
            pass


def pipe(fds: list[int]) -> tuple[int, int]:
    pair = os.pipe()
    fds += pair
    return pair


def step(pump: Pump, times: int = 1) -> None:
    """Run the loop's pending work without waiting."""
    for _ in range(times):
        wanted: dict[int, int] = {}
        pump.masks(wanted)
        poller = select.poll()
        for fd, mask in wanted.items():
            poller.register(fd, mask)
        pump.handle(dict(poller.poll(0)))


def outward(fds: list[int]) -> tuple[Pump, int, int]:
    """A pump for output, the program's end and the caller's reader."""
    read_end, program = pipe(fds)
    reader, caller = pipe(fds)
    os.set_blocking(read_end, False)
    return Pump(read_end, caller, False), program, reader


def test_output_arrives_and_ends(fds: list[int]) -> None:
    pump, program, reader = outward(fds)
    os.write(program, b"hello")
    step(pump, 2)
    assert os.read(reader, 100) == b"hello"
    os.close(program)
    step(pump)
    wanted: dict[int, int] = {}
    pump.masks(wanted)
    assert wanted == {}, "nothing is polled after the end"


def test_no_more_is_read_than_can_be_written(fds: list[int]) -> None:
    pump, program, reader = outward(fds)
    os.set_blocking(pump.target, False)
    while True:  # the caller's pipe is full
        try:
            os.write(pump.target, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(pump.target, True)
    os.write(program, b"late")
    step(pump, 3)
    assert pump.data == b"late"
    wanted: dict[int, int] = {}
    pump.masks(wanted)
    assert wanted == {pump.target: select.POLLOUT}
    while len(os.read(reader, 1 << 20)) == 1 << 20:
        pass
    step(pump)
    assert os.read(reader, 100).endswith(b"late")


def test_a_pipe_gets_no_more_than_it_takes_without_blocking(fds: list[int], tmp_path: Path) -> None:
    pump, program, reader = outward(fds)
    os.write(program, b"y" * 10000)
    step(pump, 2)
    assert len(os.read(reader, 1 << 20)) == 4096
    with (tmp_path / "file").open("wb") as file:
        pump = Pump(pump.source, file.fileno(), False)
        os.write(program, b"z" * 10000)
        step(pump)
        assert (tmp_path / "file").stat().st_size == 10000


def test_the_program_notices_a_closed_reader(fds: list[int]) -> None:
    pump, program, reader = outward(fds)
    os.close(reader)
    os.write(program, b"x")
    step(pump, 2)
    with pytest.raises(BrokenPipeError):
        os.write(program, b"y")
    assert (pump.source, pump.target) == (-1, -1)


def inward(fds: list[int]) -> tuple[Pump, int, int]:
    """A pump for input, the caller's writer and the program's end."""
    source, caller = pipe(fds)
    program, target = pipe(fds)
    os.set_blocking(target, False)
    return Pump(source, target, True), caller, program


def test_input_arrives_and_ends(fds: list[int]) -> None:
    pump, caller, program = inward(fds)
    os.write(caller, b"typed")
    step(pump)
    assert os.read(program, 100) == b"typed"
    os.close(caller)
    step(pump)
    assert os.read(program, 100) == b""


def test_input_that_nobody_reads(fds: list[int]) -> None:
    pump, caller, program = inward(fds)
    os.close(program)
    os.write(caller, b"x")
    step(pump)
    assert pump.target == -1


@pytest.mark.parametrize("mode", [os.O_WRONLY, os.O_DIRECTORY])
def test_input_that_cannot_be_read_is_at_its_end(fds: list[int], tmp_path: Path, mode: int) -> None:
    path = tmp_path if mode == os.O_DIRECTORY else tmp_path / "file"
    if mode == os.O_WRONLY:
        path.touch()
    pump, _, program = inward(fds)
    fds.append(os.open(path, mode))
    pump.source = fds[-1]
    step(pump)
    assert os.read(program, 100) == b""


def test_ends_of_the_program_are_closed_once() -> None:
    made = Streams([0, 2])
    assert made.theirs[1] == -1
    assert [fd > 2 for fd in made.theirs] == [True, False, True]
    kept = made.theirs[2]
    made.cloned()
    made.cloned()
    assert made.theirs == [-1, -1, kept]
    made.drain()
    assert made.theirs == [-1] * 3 and made.pumps[0].target == -1 and made.pumps[1].source >= 0
    made.close()
    made.close()
    assert made.masks() == {}


def test_output_ends_with_the_program() -> None:
    """Its early end is not reported: on busy cores the program would wait while we are woken."""
    made = Streams([1])
    [pump] = made.pumps
    program = os.dup(made.theirs[1])
    made.cloned()
    os.write(program, b"x")
    os.close(program)
    assert os.read(pump.source, 2) == b"x"
    poller = select.poll()
    poller.register(pump.source, select.POLLIN)
    assert poller.poll(0) == []
    made.drain()
    assert poller.poll(0) == [(pump.source, select.POLLHUP)]
    made.close()
