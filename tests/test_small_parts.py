"""Small functions that several commands use and that no test of a command covers directly."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from typing import Any

import pytest

from pyrunc import host, procfs
from pyrunc.doctor import machine
from pyrunc.errors import PyruncError, UsageError
from pyrunc.launch import seccomp_log
from pyrunc.plan import faults, scheduling
from pyrunc.seccomp_tools import check
from pyrunc.spec import load
from pyrunc.trace import read
from pyrunc.verbs import seccomp

SCHED_ATTR = "=IIQiIQQQII"  # struct sched_attr, include/uapi/linux/sched/types.h
RESET, RECLAIM = 1, 2


@pytest.mark.parametrize(
    ("wanted", "fields"),
    [
        ({"policy": "SCHED_OTHER", "nice": -5}, (0, 0, -5, 0, 0, 0, 0)),
        ({"policy": "SCHED_BATCH", "nice": 19, "priority": 7}, (3, 0, 19, 0, 0, 0, 0)),
        ({"policy": "SCHED_FIFO", "priority": 9, "nice": 3}, (1, 0, 0, 9, 0, 0, 0)),
        ({"policy": "SCHED_RR", "priority": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, (2, RESET, 0, 1, 0, 0, 0)),
        ({"policy": "SCHED_DEADLINE", "nice": 4, "runtime": 1, "deadline": 2, "period": 3}, (6, 0, 0, 0, 1, 2, 3)),
        (
            {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM"]},
            (0, RESET | RECLAIM, 0, 0, 0, 0, 0),
        ),
    ],
)
def test_scheduler_attributes(wanted: Any, fields: tuple[int, ...]) -> None:
    """The last two fields, clamps of utilisation, are not requested."""
    found = struct.unpack(SCHED_ATTR, scheduling.scheduler_attributes(wanted))
    assert found == (struct.calcsize(SCHED_ATTR), *fields, 0, 0) and found[0] == 56


@pytest.mark.parametrize(
    ("args", "failed"),
    [
        ({}, False), ({"exit": 0}, False), ({"exit": 1}, True), ({"signal": 9}, True), ({"error": "x"}, True),
        ({"error": "", "exit": 0, "signal": 0}, False), ({"pointer": "/x"}, False),
    ],
)  # fmt: skip
def test_spans_that_failed(args: dict[str, object], failed: bool) -> None:
    span = read.Span("name", "kind", 3.0, 4.5)
    span.args = args
    assert span.failed() is failed and span.end == 7.5


def test_a_finding_about_a_profile() -> None:
    found = check.Finding("error", "a-code", "/", "the text\n")
    assert found.as_json() == {"level": "error", "code": "a-code", "pointer": "/", "text": "the text\n"}
    assert str(found).startswith("error: /: the text") and str(found).endswith(" [a-code]") and "\n" not in str(found)
    assert check.Finding("note", "b", "/syscalls/0", "t").as_json()["pointer"] == "/syscalls/0"


def test_actions_in_the_kernels_words() -> None:
    """As in /proc/sys/kernel/seccomp/actions_logged, seccomp(2)."""
    names = ["KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "NOTIFY", "TRACE", "LOG", "ALLOW", "NO_SUCH"]
    rules = [{"action": f"SCMP_ACT_{name}", "names": ["a"]} for name in names]
    profile: Any = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
    found = seccomp_log.actions(profile)
    assert found == {"kill_process", "kill_thread", "trap", "errno", "user_notif", "trace", "log"}
    assert seccomp_log.actions({"defaultAction": "SCMP_ACT_ALLOW"}) == set()
    assert seccomp_log.actions({"defaultAction": "SCMP_ACT_TRAP"}) == {"trap"}


def test_processes_below_a_process() -> None:
    script = "import subprocess, sys; child = subprocess.Popen(['sleep', '9']); print(child.pid, flush=True); "
    script += "sys.stdin.read(); child.kill(); child.wait()"
    first = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        below = int(first.stdout.readline())
        assert procfs.descendants(first.pid) == [first.pid, below]
        mine = procfs.descendants(os.getpid())
        assert mine[0] == os.getpid() and {first.pid, below} <= set(mine) and 1 not in mine[1:]
    finally:
        first.communicate()
    assert procfs.descendants(4_000_000) == [4_000_000], "one that is gone has nothing below it"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"0", "?"),
        (b"", "?"),
        (b"futex_wait_queue\n", "futex_wait_queue"),
        (b"X\n", "X"),
        (b"\xff", "\ufffd"),
    ],
)
def test_where_a_process_sleeps(monkeypatch: pytest.MonkeyPatch, text: bytes, shown: str) -> None:
    monkeypatch.setattr(host, "read", {"/proc/7/wchan": text}.__getitem__)
    assert host.waits_in(7) == shown


@pytest.mark.parametrize(("euid", "initial", "privileged"), [(0, True, True), (0, False, False), (5, True, False)])
def test_who_is_the_hosts_root(monkeypatch: pytest.MonkeyPatch, euid: int, initial: bool, privileged: bool) -> None:
    monkeypatch.setattr(machine.Machine, "initial_userns", property(lambda _: initial))
    one = machine.Machine.__new__(machine.Machine)
    one.euid = euid
    assert one.privileged is privileged


@pytest.mark.parametrize(
    ("op", "detail", "hint"),
    [
        ("MOUNT", "tmpfs: Unknown parameter 'sise'", "did you mean size?"),
        ("MOUNT", "tmpfs: Unknown parameter 'zzzzzzzzzz'", ""),
        ("MOUNT", "tmpfs: Bad value for 'size'", ""),
        ("DIR", "tmpfs: Unknown parameter 'sise'", ""),
    ],
)
def test_the_mount_option_that_was_meant(op: str, detail: str, hint: str) -> None:
    assert faults._misspelled(op, detail) == hint


def test_an_option_of_another_seccomp_command() -> None:
    context: Any = None
    with pytest.raises(UsageError, match=r"^--output is not an option of `seccomp check`$"):
        seccomp.main(context, {"output": "x"}, ["check", "p"])


def test_the_largest_document_is_read() -> None:
    assert load.parse_json(b"{}".rjust(load.MAX_BYTES), "config.json") == {}
    with pytest.raises(PyruncError, match="larger than 16 MiB"):
        load.parse_json(b"{}".rjust(load.MAX_BYTES + 1), "config.json")
