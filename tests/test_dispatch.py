"""Every session handles each record that its protocol allows, and undoes everything on any other
record."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from plan_support import compiled
from pyrunc import handshake as h
from pyrunc.api import library
from pyrunc.checkpoint import restore
from pyrunc.errors import PyruncError
from pyrunc.launch import added_mounts, create, exec, run, session
from pyrunc.log import Log
from pyrunc.seccomp_tools import contained


def record(kind: int, value: int = 0) -> bytes:
    return struct.pack("=IIiIHHI24s208s", kind, 0, errno.EACCES, value, 0, 0, 0, b"call", b"what init says")


NO_STREAMS: Any = None
NO_CONFIG: Any = {}
TARGET: Any = SimpleNamespace(id="c1")
# Each existing class of session, and how to create one.
KINDS: dict[str, Callable[[], session.InitSession]] = {
    "create": lambda: create.Create(create.CreateOptions("c1", Log())),
    "run": lambda: run.Run(run.RunOptions("c1", Log())),
    "exec": lambda: exec.Exec(exec.ExecOptions("c1", Log())),
    "api create": lambda: library.Create(library.Creation("c1", library.Messages(), NO_STREAMS)),
    "api exec": lambda: library.Execute(library.Execution("c1", library.Messages(), NO_STREAMS)),
    "mounts add": lambda: added_mounts.Add(TARGET, NO_CONFIG, [], Log()),
    "mounts remove": lambda: added_mounts.Remove(TARGET, NO_CONFIG, [], Log()),
    "mounts add, api": lambda: library.AddMounts(TARGET, NO_CONFIG, [], Log()),
    "mounts remove, api": lambda: library.RemoveMounts(TARGET, NO_CONFIG, [], Log()),
    "restore": lambda: restore.Restore(run.RunOptions("c1", Log()), {}),
    "seccomp run": lambda: contained.TracedRun(run.RunOptions("c1", Log()), -1, []),
}
PATHS = {  # the records that lead to each state
    (h.ENTERING, "create"): (), (h.ENTERING, "exec"): (),
    (h.SETUP, "create"): (h.PID,),
    (h.FINISH, "create"): (h.PID, h.MOUNTED),
    (h.LATE, "create"): (h.PID, h.MOUNTED, h.READY),
    (h.JOINED, "exec"): (h.READY,),
    (h.CLONED, "exec"): (h.READY, h.PID),
    (h.ENTERING, "mounts"): (),
    (h.FINISH, "mounts"): (h.MOUNTED,),
}  # fmt: skip


def every_class(of: type[Any]) -> Iterator[type[Any]]:
    for kind in of.__subclasses__():
        if kind.__module__.startswith("pyrunc."):
            yield kind
            yield from every_class(kind)


def test_no_kind_of_session_is_left_out() -> None:
    complete = {kind for kind in every_class(session.InitSession) if kind.transitions}
    assert complete == {type(make()) for make in KINDS.values()}


@pytest.mark.parametrize("name", KINDS)
def test_each_action_of_the_protocol_has_a_handler(name: str) -> None:
    one = KINDS[name]()
    actions = {action for action, _ in one.transitions.values()} - {h.DEFER}
    assert one.handlers().keys() == actions and len(actions) >= 5


@pytest.mark.parametrize("name", KINDS)
def test_a_handler_that_a_subclass_replaces_is_called(name: str) -> None:
    one = KINDS[name]()
    handlers = one.handlers()
    assert handlers == {action: getattr(one, f"on_{action}") for action in handlers}


class Undone:
    """A session with a real handshake only: its init is a child that sleeps."""

    def __init__(self, name: str, last: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.last = last  # the number of the record whose handler fails
        self.session: Any = KINDS[name]()
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.child = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
        self.handled: list[str] = []
        self.released: list[str] = []
        kind = type(self.session)
        handlers = {action: self.noting(action) for action in self.session.handlers()}
        monkeypatch.setattr(kind, "handlers", lambda _: handlers)
        monkeypatch.setattr(kind, "steps", lambda _, interrupts: self.steps(interrupts))
        monkeypatch.setattr(kind, "stray_children", lambda _: [])
        monkeypatch.setattr(kind, "send_plan", lambda _: None)

    def noting(self, action: str) -> Callable[[h.Record], None]:
        def handler(record: h.Record) -> None:
            self.handled.append(action)
            if len(self.handled) > self.last:
                raise PyruncError(f"the handler of {action} was called")

        return handler

    def steps(self, interrupts: Any) -> None:
        one = self.session
        one.plan = compiled({"process": {"args": ["prog"]}})
        one.plan.cgroup_path = ""
        one.enter_pid, one.channel.fd = self.child, self.ours.detach()
        one.undo.push(self.released.append, "undone")
        one.converse(interrupts)

    def finish(self) -> None:
        self.theirs.close()
        try:
            os.kill(self.child, 9)
            os.waitpid(self.child, 0)
        except (ChildProcessError, ProcessLookupError):
            pass


@pytest.fixture
def undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int], Undone]]:
    made: list[Undone] = []

    def make(name: str, last: int) -> Undone:
        made.append(Undone(name, last, monkeypatch))
        return made[-1]

    yield make
    for one in made:
        one.finish()


def protocol_of(name: str) -> str:
    return "exec" if name.endswith("exec") else "mounts" if name.startswith("mounts") else "create"


STATES = [(name, state) for name in KINDS for state, protocol in PATHS if protocol == protocol_of(name)]


@pytest.mark.parametrize(("name", "state"), STATES)
def test_any_record_in_any_state(undone: Callable[[str, int], Undone], name: str, state: str) -> None:
    """The record reaches its handler or ends the session: one line, the child reaped, the socket
    closed, the undo stack run."""
    path = PATHS[state, protocol_of(name)]
    for kind in sorted(h.NAMES):
        one = undone(name, len(path))
        found = one.session.transitions.get((state, kind))
        if found and found[0] == h.DEFER:
            continue  # waits for the pid (tests/test_handshake.py)
        for data in (*path, kind):
            one.theirs.send(record(data))
        with pytest.raises(PyruncError) as raised:
            one.session.execute()
        if found is None:
            assert str(raised.value) == f"unexpected message {h.NAMES[kind]} from init in state {state}"
            assert len(one.handled) == len(path)
        else:
            assert str(raised.value) == f"the handler of {found[0]} was called"
        assert one.released == ["undone"] and one.session.channel.fd == -1
        assert one.session.enter_pid == one.session.init_pid == 0
        with pytest.raises(ChildProcessError):
            os.waitpid(one.child, os.WNOHANG)
        assert one.theirs.recv(1) == b"", "our end is closed"
