"""What pyrunc does before init can need it: init's start, and a plan without MOUNTED and READY."""

from __future__ import annotations

import errno
import os
import posix
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from json_type import Json

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from plan_support import compiled, names
from pyrunc import handshake
from pyrunc.errors import PyruncError, SysError
from pyrunc.launch import channel, create, exec, run, session
from pyrunc.log import Log
from pyrunc.plan import AHEAD, Plan, ops

# Only the first call of a process returns early, so each case is a process of its own.
SPAWN = """
import os
from pyrunc._shim import ffi, lib

def image(content):
    return lib.pr_memfd_sealed(b"t", content, len(content), 1)

def pair():
    out = ffi.new("int[2]")
    assert lib.pr_socketpair(out, 3) == 0
    return out[0], out[1]

def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
SHELL_SCRIPT = b"#!/bin/sh\\n"
CASES = {
    # A program that cannot be executed is reported later, and its end closes the socket.
    "fails": """
ours, theirs = pair()
pid = lib.pr_spawn_init_ahead(image(b"not a program"), theirs, 0, 0, ffi.NULL)
os.close(theirs)
assert pid > 0, pid
assert os.read(ours, 1) == b""
assert end(pid) == 127
print(lib.pr_spawn_error())
""",
    "socket": """
pid = lib.pr_spawn_init_ahead(image(b"not a program"), 900, 0, 0, ffi.NULL)
assert end(pid) == 127
print(lib.pr_spawn_error())
""",
    # The second child of a process is waited for.
    "second": """
ours, theirs = pair()
bad = image(b"not a program")
assert end(lib.pr_spawn_init_ahead(bad, theirs, 0, 0, ffi.NULL)) == 127
print(lib.pr_spawn_init_ahead(bad, theirs, 0, 0, ffi.NULL))
""",
    "count": "print(lib.pr_spawn_init_ahead(0, 0, -1, 0, ffi.NULL), lib.pr_spawn_error())",
    # A child that is killed first says nothing.
    "works": """
ours, theirs = pair()
log = os.open("/dev/null", os.O_RDWR)
with open("/bin/true", "rb") as file:
    exe = image(file.read())
pid = lib.pr_spawn_init_ahead(exe, theirs, 0, 0, ffi.new("int[3]", [-1, log, log]))
os.close(theirs)
os.close(exe)  # the child has its own
assert os.read(ours, 1) == b""
assert end(pid) == 0
print(lib.pr_spawn_error())
""",
}


@pytest.mark.parametrize(
    ("case", "printed"),
    [
        ("fails", f"{-errno.ENOEXEC}"),
        ("socket", f"{-errno.EBADF}"),
        ("second", f"{-errno.ENOEXEC}"),
        ("count", f"{-errno.EINVAL} 0"),
        ("works", "0"),
    ],
)
def test_init_is_started_without_waiting_for_it(case: str, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SPAWN + CASES[case]], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout.strip(), done.stderr) == (printed, "")


@pytest.mark.parametrize("found", [None, SysError("init", "posix_spawn", errno.EACCES)])
@pytest.mark.parametrize("heard", [False, True])
def test_a_failed_start_of_init_is_the_reason(
    monkeypatch: pytest.MonkeyPatch, found: SysError | None, heard: bool
) -> None:
    """A consequence is, for example, systemd's error that it cannot move the process to the scope."""

    class Fails(session.InitSession):
        def steps(self, interrupts: object) -> None:
            raise PyruncError("no such process")

        def close(self) -> None:
            pass

    monkeypatch.setattr(session, "spawn_error", lambda: found)
    one = Fails(Log())
    one.protocol.heard = heard
    with pytest.raises(PyruncError) as raised:
        one.execute()
    expected = found if found is not None and not heard else None
    assert (raised.value is expected) if expected is not None else str(raised.value) == "no such process"


@pytest.mark.parametrize(
    ("limits", "preserved", "harmless"),
    [
        ([], 0, True),
        ([("RLIMIT_NOFILE", 1024)], 0, True),
        ([("RLIMIT_NOFILE", 1023)], 0, False),
        ([("RLIMIT_NOFILE", 1024)], 1, False),
        ([("RLIMIT_NOFILE", 1025)], 1, True),
        ([("RLIMIT_CORE", 0)], 0, True),
        ([("RLIMIT_CORE", 0), ("RLIMIT_NOFILE", 64)], 0, False),
        ([("RLIMIT_FSIZE", 1 << 40)], 0, False),
        ([("RLIMIT_AS", 1 << 40)], 0, False),
        ([("RLIMIT_NPROC", 1 << 20)], 0, False),
    ],
)
def test_limits_that_do_not_limit_set_up(limits: list[tuple[str, int]], preserved: int, harmless: bool) -> None:
    opts = exec.ExecOptions("c1", Log())
    opts.preserve_fds = preserved
    one = exec.Exec(opts)
    rlimits: Json = [{"type": name, "soft": value, "hard": value} for name, value in limits]
    one.plan = compiled({"process": {"args": ["prog"], "rlimits": rlimits}})
    assert one.harmless_limits() is harmless


HOOK: Json = [{"path": "/bin/true"}]


@pytest.mark.parametrize(
    ("config", "waits"),
    [
        ({}, True),
        ({"linux": {"resources": {"devices": [{"allow": False, "access": "rwm"}]}}}, True),
        ({"linux": {"resources": {"pids": {"limit": 5}}}}, False),
        ({"linux": {"intelRdt": {"closID": "a"}}}, False),
        ({"linux": {"netDevices": {"eth9": {}}}}, False),
        ({"hooks": {"poststart": HOOK, "poststop": HOOK, "startContainer": HOOK}}, True),
        ({"hooks": {"prestart": HOOK}}, False),
        ({"hooks": {"createRuntime": HOOK}}, False),
        ({"hooks": {"createContainer": HOOK}}, False),
    ],
)
def test_init_waits_if_there_is_something_to_do(config: dict[str, Any], waits: bool) -> None:
    one = create.Create(create.CreateOptions("c1", Log()))
    one.plan = compiled({"process": {"args": ["prog"]}, **config})
    one.linux = config.get("linux", {})
    one.container = SimpleNamespace(data={})  # type: ignore[assignment]
    assert one.only_waits() is waits
    one.container.data["root_below"] = 5
    assert not one.only_waits()
    del one.container.data["root_below"]
    one.plan.cgroup_owner = 0
    assert not one.only_waits()


@pytest.mark.parametrize("limit", [1024, 512])
@pytest.mark.parametrize("waits_later", [False, True])
def test_the_go_to_ready_waits_for_the_pid_in_the_state(
    monkeypatch: pytest.MonkeyPatch, limit: int, waits_later: bool
) -> None:
    """Unless init needs an answer to CREATED, which comes later."""
    said: list[object] = []
    one: Any = run.Run(run.RunOptions("c1", Log())) if waits_later else create.Create(create.CreateOptions("c1", Log()))
    data: dict[str, object] = {}
    one.container = SimpleNamespace(data=data, set_init=data.setdefault, save=lambda: said.append("saved"))
    rlimits: Json = [{"type": "RLIMIT_NOFILE", "soft": limit, "hard": limit}]
    one.linux, one.plan = {}, compiled({"process": {"args": ["prog"], "rlimits": rlimits}})
    one.plan.fds, one.plan.cgroup_path, one.enter_pid = [], "", 77
    monkeypatch.setattr(create.Create, "send", lambda self, kind, *rest: said.append(handshake.NAMES[kind]))
    monkeypatch.setattr(create.Create, "set_limits", lambda self, pid: said.append(f"limits of {pid}"))
    one.send_plan()
    one.on_pid(handshake.Record(handshake.encode(handshake.PID, os.getpid())))
    posix.close(one.pidfd)
    if limit == 1024:
        assert said == ["limits of 77", "PLAN", *(["GO", "saved"] if waits_later else ["saved", "GO"])]
        assert one.plan.flags == AHEAD
        assert one.protocol.transitions is (handshake.RUN_AHEAD if waits_later else handshake.CREATE_AHEAD)
    else:
        assert said == ["PLAN", "saved"]
        assert one.plan.flags == 0 and one.protocol.transitions is handshake.CREATE


@pytest.mark.parametrize("kind", [create.Create, run.Run])
@pytest.mark.parametrize("op", ["PLACE", "UNSHARE_USER"])
def test_the_go_to_ready_is_not_the_answer_to_an_earlier_record(
    monkeypatch: pytest.MonkeyPatch, kind: Any, op: str
) -> None:
    """`enter` would go on without its cgroup, or without the maps of its user namespace."""
    said: list[object] = []
    one: Any = kind((run.RunOptions if kind is run.Run else create.CreateOptions)("c1", Log()))
    data: dict[str, object] = {}
    one.container = SimpleNamespace(data=data, set_init=data.setdefault, save=lambda: said.append("saved"))
    maps = [{"containerID": 0, "hostID": 5, "size": 1}]
    linux: Json = {"namespaces": [{"type": "user"}], "uidMappings": maps, "gidMappings": maps}
    one.linux, one.plan = {}, compiled({"linux": linux} if op == "UNSHARE_USER" else {})
    if op == "PLACE":
        one.plan.steps.insert(0, (ops.OP_PLACE, *one.plan.steps[0][1:]))
    assert op in names(one.plan) and one.plan.has(getattr(ops, f"OP_{op}"))
    assert not one.plan.has(ops.OP_SYNC_READY)  # not of `enter`
    one.plan.fds, one.plan.cgroup_path, one.enter_pid = [], "", 77
    monkeypatch.setattr(create.Create, "send", lambda self, kind, *rest: said.append(handshake.NAMES[kind]))
    monkeypatch.setattr(create.Create, "set_limits", lambda self, pid: None)
    monkeypatch.setattr(Plan, "encode", lambda self: b"")
    one.send_plan()
    assert said == ["PLAN"] and one.protocol.transitions is handshake.CREATE_AHEAD
    one.on_pid(handshake.Record(handshake.encode(handshake.PID, os.getpid())))
    posix.close(one.pidfd)
    assert said == ["PLAN", "saved", "GO"]


@pytest.mark.parametrize("kind", [create.Create, run.Run])
@pytest.mark.parametrize("reaped", [False, True])
def test_enter_is_reaped_when_init_waits(
    monkeypatch: pytest.MonkeyPatch, kind: type[create.Create], reaped: bool
) -> None:
    said: list[object] = []
    one: Any = kind(SimpleNamespace(id="c1", log=Log(), pid_file="", pidfd_socket=""))  # type: ignore[arg-type]
    one.container = SimpleNamespace(data={}, save=lambda: said.append("saved"))
    one.enter_pid = 0 if reaped else os.posix_spawn("/bin/true", ["true"], {})
    enter = one.enter_pid
    one.on_created(handshake.Record(handshake.encode(handshake.CREATED)))
    assert said == ["saved"] and one.enter_pid == 0
    if enter:
        with pytest.raises(ChildProcessError):
            os.waitpid(enter, os.WNOHANG)


class Joining(exec.Exec):
    """An exec whose records are kept."""

    def __init__(self, plan: Plan, data: dict[str, object]) -> None:
        super().__init__(exec.ExecOptions("c1", Log()))
        self.plan, self.container = plan, SimpleNamespace(data=data)  # type: ignore[assignment]
        self.said: list[object] = []

    def send(self, kind: int, value: int = 0, fds: list[int] | None = None) -> None:
        self.said.append(handshake.NAMES[kind])

    def set_limits(self, pid: int, put_off: int = -1) -> None:
        self.said.append("limits")

    def follow_clone(self, pid: int) -> None:
        pass


READY = handshake.Record(handshake.encode(handshake.READY))


@pytest.mark.parametrize(
    ("place", "data", "said", "transitions"),
    [
        (False, {}, ["limits", "PLAN", "GO"], handshake.JOIN_AHEAD),
        (False, {"rdt": {}}, ["limits", "PLAN", "GO"], handshake.JOIN_AHEAD),
        (True, {}, ["limits", "PLAN", "GO", "GO"], handshake.PLACE_AHEAD),
    ],
)
def test_an_exec_gets_its_go_behind_the_plan(
    place: bool, data: dict[str, object], said: list[str], transitions: handshake.Transitions
) -> None:
    plan = compiled({"process": {"args": ["prog"]}})
    plan.fds = []
    if place:  # the process that continues is not the one that reads the plan
        plan.place("(default)", cgroup_fd=0)
        plan.steps.insert(0, plan.steps.pop())
    one = Joining(plan, data)
    one.send_plan()
    assert one.said == said
    assert plan.flags == AHEAD and one.protocol.transitions is transitions
    one.said = []
    one.on_placed(READY)
    assert one.said == []


@pytest.mark.parametrize("place", [False, True])
def test_an_exec_waits_for_its_rdt_class(monkeypatch: pytest.MonkeyPatch, place: bool) -> None:
    plan = compiled({"process": {"args": ["prog"]}})
    plan.fds = []
    if place:
        plan.place("(default)", cgroup_fd=0)
    one = Joining(plan, {"rdt": {"group": "/sys/fs/resctrl/a"}})
    monkeypatch.setattr("pyrunc.cgroup.rdt.join", lambda record, pid: one.said.append("rdt"))
    one.send_plan()
    assert one.said == ["PLAN"] and plan.flags == 0 and one.protocol.transitions is handshake.JOIN
    one.on_placed(READY)
    one.on_ready(READY)
    assert one.said == ["PLAN", "GO", "rdt", "limits", "GO"]


@pytest.mark.parametrize("looks", [False, True])
def test_an_unread_go_does_not_hide_the_error_of_init(looks: bool) -> None:
    """The kernel answers the first read with ECONNRESET if the peer has closed its end with an
    unread record."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.send(handshake.encode(handshake.GO))
    theirs.send(handshake.encode(handshake.FAIL, 7))
    theirs.close()
    one = channel.Channel()
    one.fd = ours.detach()
    if looks:
        found = list(one.queued(8))
    else:
        found = [one.receive(1000, None), one.receive(1000, None)]
    one.close()
    assert [record and record.value for record in found] == [7, None]


def test_a_run_saves_its_state_before_the_program_starts_and_not_again(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[object] = []
    data: dict[str, object] = {"status": "creating"}
    one: Any = run.Run(run.RunOptions("c1", Log()))
    one.container = SimpleNamespace(data=data, save=lambda: saved.append(data["status"]))
    one.plan = compiled({"process": {"args": ["prog"]}})
    monkeypatch.setattr(run.Run, "receive", lambda self, timeout, interrupts: None)
    monkeypatch.setattr(run.Run, "check_executed", lambda self: None)
    one.on_created(handshake.Record(handshake.encode(handshake.CREATED)))
    assert saved == ["running"]
    one.await_program(None)
    assert saved == ["running"]
