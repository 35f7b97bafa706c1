"""The times that a traced init sends: each step once and in order, and none to a parent that did
not request them."""

from __future__ import annotations

import errno
import os
import pathlib
import select
import shutil
import struct
import subprocess
import time

import pytest

import init_parent
from init_parent import ALLOW, ERRNO, KILL, Parent, Spawn, fifo_plan, finish, program, shell
from pyrunc import handshake
from pyrunc.plan import TRACE, Plan, ops

init_exe, spawn, fifos = init_parent.init_exe, init_parent.spawn, init_parent.fifos
CLOCK_GETTIME = {"x86_64": 228, "aarch64": 113}[os.uname().machine]
WRITE = {"x86_64": 1, "aarch64": 64}[os.uname().machine]


def traced(what: Plan) -> Plan:
    what.flags = TRACE
    return what


class Times:
    """The start times of the steps, from the records of one init."""

    def __init__(self) -> None:
        self.begin: dict[int, int] = {}
        self.records = 0

    def take(self, data: bytes) -> bool:
        """Whether ``data`` was a record of times."""
        kind, step, err, count = struct.unpack_from("=IIiI", data)
        if kind != handshake.STAMPS:
            return False
        assert err == 0 and 1 <= count <= 26
        times = struct.unpack_from(f"={count}Q", data, 48)
        assert list(times) == sorted(times)
        self.begin.update(enumerate(times, step))
        self.records += 1
        return True


def receive(parent: Parent, times: Times) -> handshake.Record | None:
    """The next record other than times."""
    while True:
        data = parent.sock.recv(handshake.RECORD_SIZE)
        if not data:
            return None
        if not times.take(data):
            return handshake.Record(data)


def conversation(parent: Parent, what: Plan) -> tuple[Times, list[str]]:
    """Run a plan without namespaces, answering every record that requires an answer."""
    times, seen = Times(), []
    parent.plan(what)
    while (record := receive(parent, times)) is not None:
        seen.append(handshake.NAMES[record.type])
        if seen[-1] != "FAIL":
            parent.go()
    return times, seen


def test_every_step_has_its_time(spawn: Spawn) -> None:
    what = Plan()
    for _ in range(60):  # more than two records hold
        what.umask("/process/user/umask", mask=0o22)
    what.sync_ready("(default)")
    before = time.time_ns()
    times, seen = conversation(spawn(), traced(finish(what, ["true"])))
    after = time.time_ns()
    assert seen == ["READY", "CREATED"]
    assert sorted(times.begin) == list(range(len(what.steps)))
    begins = [times.begin[step] for step in sorted(times.begin)]
    assert begins == sorted(begins) and before <= begins[0] and begins[-1] <= after
    assert times.records <= 8, "one record holds many"


def test_a_step_that_takes_long_is_seen(spawn: Spawn) -> None:
    what = Plan()
    what.umask("/process/user/umask", mask=0o22)
    what.hook("/hooks/createContainer/0", path="/bin/sleep", args=["sleep", "0.1"])
    times, _ = conversation(spawn(), traced(finish(what, ["true"])))
    assert 100e6 <= times.begin[2] - times.begin[1] < 5e9


def test_nothing_without_the_flag(spawn: Spawn) -> None:
    times, seen = conversation(spawn(), finish(Plan(), ["true"]))
    assert (times.records, seen) == (0, ["CREATED"])


def test_an_unknown_flag_is_refused(spawn: Spawn) -> None:
    what = finish(Plan(), ["true"])
    what.flags = 4
    assert init_parent.fail(spawn(), what).detail == "unknown flag"


def test_a_failing_step_ends_with_the_failure(spawn: Spawn) -> None:
    what = Plan()
    what.umask("/process/user/umask", mask=0o22)
    what.hook("/hooks/createContainer/0", path="/bin/false", args=["false"])
    times, seen = conversation(spawn(), traced(finish(what, ["true"])))
    assert seen == ["FAIL"]
    assert sorted(times.begin) == [0, 1, 2], "two begins, and the end of the one that failed"


@pytest.mark.parametrize("traced_create", [False, True])
@pytest.mark.parametrize("traced_start", [False, True])
def test_start_asks_for_times_of_its_own(
    spawn: Spawn, fifos: tuple[int, int], traced_create: bool, traced_start: bool
) -> None:
    what = fifo_plan(["/bin/true"])
    hook = what.steps.pop(), what.origins.pop()
    what.hook("/hooks/startContainer/0", path="/bin/sleep", args=["sleep", "0.05"])
    what.steps.append(hook[0])
    what.origins.append(hook[1])
    parent, times = spawn(), Times()
    parent.plan(traced(what) if traced_create else what, fifos)
    records = []
    while (record := receive(parent, times)) is not None:
        records.append(record)
        if record.type == handshake.PID:
            assert parent.wait(parent.pid) == 0
            parent.children = [record.value]
    assert sorted(handshake.NAMES[record.type] for record in records) == ["CREATED", "PID"]
    assert sorted(times.begin) == ([0, 1] if traced_create else [])
    os.write(fifos[0], b"1" if traced_start else b"0")
    assert parent.wait(parent.children[0]) == 0
    data = os.read(fifos[1], 65536) if select.select([fifos[1]], [], [], 0)[0] else b""
    late = Times()
    assert [at for at in range(0, len(data), 256) if not late.take(data[at : at + 256])] == []
    wanted = {2, 3} | ({1} if traced_create else set())
    assert set(late.begin) == (wanted if traced_start else set())
    if traced_start:
        assert late.begin[3] - late.begin[2] >= 50e6


def test_a_start_that_asks_for_nothing_hears_only_of_the_failure(spawn: Spawn, fifos: tuple[int, int]) -> None:
    parent = spawn()
    parent.plan(traced(fifo_plan(["/no/such/program"])), fifos)
    times, records = Times(), []
    while (record := receive(parent, times)) is not None:
        records.append(record)
    os.write(fifos[0], b"0")
    found = handshake.Record(os.read(fifos[1], 65536))
    assert (handshake.NAMES[found.type], found.err) == ("FAIL", errno.ENOENT)


@pytest.mark.parametrize("action", [KILL, ERRNO | errno.EPERM])
@pytest.mark.parametrize("number", [CLOCK_GETTIME, WRITE])
def test_a_filter_that_forbids_what_times_need_ends_them(spawn: Spawn, number: int, action: int) -> None:
    """A container must not be killed because it is traced."""
    what = Plan()
    what.no_new_privs("/process/noNewPrivileges")
    what.find_exe("/process/args/0", file="true", path="/usr/bin:/bin")
    what.wait_start("(default)", policy=ops.P_WAIT_START_SOCKET, start_fd=0xFFFFFFFF, error_fd=0xFFFFFFFF)
    ops.Builder.seccomp(what, "/linux/seccomp", flags=0, filter=program({number: action}, ALLOW))
    what.execve("/process/args", args=["true"], env=[])
    parent = spawn()
    times, seen = conversation(parent, traced(what))
    assert seen == ["CREATED"]
    assert sorted(times.begin) == [0, 1, 2, 3]
    assert parent.wait(parent.pid) == 0


def test_the_system_calls_are_the_same(init_exe: str, tmp_path: pathlib.Path) -> None:
    """Times add a few writes and nothing else; without them, strace sees the same calls as
    before."""
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-qq", "-o", "/dev/null", "true"], check=False).returncode:
        pytest.skip("strace is not installed, or cannot trace here")
    logs = []
    for flags in (0, TRACE):
        log = tmp_path / f"log{flags}"
        parent = Parent(strace, wrap=["strace", "-qq", "-o", str(log), init_exe])
        what = Plan()
        for _ in range(30):
            what.umask("/process/user/umask", mask=0o22)
        what = finish(what, shell("exit 0"))
        what.flags = flags
        conversation(parent, what)
        parent.close()
        before = log.read_text().partition('execve("/bin/sh"')[0].splitlines()
        logs.append([line.partition("(")[0] for line in before if not line.startswith(("+++", "---"))])
    plain, stamped = logs
    assert plain.count("write") == 1 and plain.count("umask") > 30
    left = list(stamped)
    for call in plain:
        left.remove(call)
    # musl 1.2.3 does not find the vDSO of a current arm64 kernel, and asks the kernel for the time.
    clock = {"clock_gettime"} if os.uname().machine == "aarch64" else set()
    assert {"write"} <= set(left) <= {"write"} | clock and left.count("write") <= 5, left
