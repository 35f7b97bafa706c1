"""The handshake with init, as data: which message is allowed in which state, and the parent's
action.

The picture is in docs/handshake.md, the wire structs in native/init/plan.h. This module does no
I/O: `Protocol` receives each record and returns the name of the action, so that a test can walk
every state with every message.
"""

from __future__ import annotations

from _struct import Struct

# enum msg_type of plan.h
PLAN = 2
MAP = 3
PID = 4
MOUNTED = 5
READY = 6
SECCOMP = 7
CREATED = 8
GO = 9
WARN = 10
FAIL = 11
PLACED = 12
STAMPS = 13  # only from a traced init; pyrunc/trace/ removes them
TREE = 14

NAMES = {
    PLAN: "PLAN",
    MAP: "MAP",
    PID: "PID",
    MOUNTED: "MOUNTED",
    READY: "READY",
    SECCOMP: "SECCOMP",
    CREATED: "CREATED",
    GO: "GO",
    WARN: "WARN",
    FAIL: "FAIL",
    PLACED: "PLACED",
    STAMPS: "STAMPS",
    TREE: "TREE",
}

# States of the parent, named after what it waits for.
PLACING, ENTERING, SETUP, FINISH, JOINED, CLONED, LATE, DONE, FAILED = (
    "placing",  # `exec`: the clone of PLACE does not wait for us
    "entering",
    "setup",
    "finish",
    "joined",  # `exec`: enter is set up, outside the container's pid namespace
    "cloned",  # `exec`: the process is visible in the container
    "late",
    "done",
    "failed",
)
STATES = (PLACING, ENTERING, SETUP, FINISH, JOINED, CLONED, LATE, DONE, FAILED)

# (state, message) -> (action, next state).  A missing pair is a protocol error: init is of another
# build, or not ours.  DEFER: enter and the process that it has cloned write to the same socket
# without synchronization, so the clone's first records can arrive before enter's PID or PLACED.
# They wait for the pid.
DEFER = "defer"
Transitions = dict[tuple[str, int], tuple[str, str]]
CREATE: Transitions = {
    (ENTERING, PLACED): ("placed", ENTERING),
    (ENTERING, MAP): ("map_ids", ENTERING),
    (ENTERING, PID): ("pid", SETUP),
    (ENTERING, MOUNTED): (DEFER, ENTERING),
    (SETUP, MOUNTED): ("mounted", FINISH),
    (FINISH, READY): ("ready", LATE),
    (LATE, SECCOMP): ("seccomp", LATE),
    (LATE, CREATED): ("created", DONE),
}
# The same without MOUNTED and READY (PLAN_AHEAD): init sends nothing before the parent, which has
# seen PID, lets it pass READY.
CREATE_AHEAD: Transitions = {
    (ENTERING, PLACED): ("placed", ENTERING),
    (ENTERING, MAP): ("map_ids", ENTERING),
    (ENTERING, PID): ("pid", LATE),
    (LATE, SECCOMP): ("seccomp", LATE),
    (LATE, CREATED): ("created", DONE),
}
# `run`: the GO to READY is sent with the plan, because init also waits for the answer to CREATED.
RUN_AHEAD: Transitions = {
    **CREATE_AHEAD,
    (ENTERING, SECCOMP): (DEFER, ENTERING),
    (ENTERING, CREATED): (DEFER, ENTERING),
}
# A plan that joins a container, without READY: its GO, and that to PLACED, are sent with the plan.
# The clone only continues or fails.  Begins as JOINED.
JOIN_AHEAD: Transitions = {
    (JOINED, SECCOMP): ("seccomp", JOINED),
    (JOINED, PID): ("pid", CLONED),
    (CLONED, SECCOMP): ("seccomp", CLONED),
}
# The same with READY, which enter itself sends.
JOIN: Transitions = {
    **JOIN_AHEAD,
    (ENTERING, PLACED): ("placed", ENTERING),
    (ENTERING, READY): ("ready", JOINED),
}
# A plan with PLACE: the clone does not wait for us, and may be faster than the report about it.
# Begins as PLACING.
PLACE_AHEAD: Transitions = {
    **JOIN_AHEAD,
    (PLACING, PLACED): ("placed", JOINED),
    (PLACING, SECCOMP): (DEFER, PLACING),
    (PLACING, PID): (DEFER, PLACING),
}
# Mounts of an existing container: enter itself does all of it, and exits.
MOUNTS: Transitions = {
    (ENTERING, TREE): ("tree", ENTERING),
    (ENTERING, MOUNTED): ("mounted", FINISH),
    (FINISH, TREE): ("tree", FINISH),
    (FINISH, READY): ("ready", DONE),
}
for _table, _states in (
    (CREATE, (ENTERING, SETUP, FINISH, LATE)),
    (CREATE_AHEAD, (ENTERING, LATE)),
    (RUN_AHEAD, (ENTERING, LATE)),
    (JOIN, (ENTERING, JOINED, CLONED)),
    (JOIN_AHEAD, (JOINED, CLONED)),
    (PLACE_AHEAD, (PLACING, JOINED, CLONED)),
    (MOUNTS, (ENTERING, FINISH)),
):
    for _state in _states:
        _table[_state, WARN] = ("warn", _state)
        _table[_state, FAIL] = ("fail", FAILED)

_RECORD = Struct("=IIiIHHI24s208s")
RECORD_SIZE = _RECORD.size
NO_STEP = 0xFFFFFFFF


class Record:
    """A message.  ``step`` may be NO_STEP; ``arg`` is the failing string slot plus 1, or 0."""

    __slots__ = ("arg", "call", "detail", "err", "item", "step", "type", "value")

    def __init__(self, data: bytes) -> None:
        """Decode 256 bytes.  Raises ValueError if the size differs."""
        if len(data) != RECORD_SIZE:
            raise ValueError(f"a handshake record has {RECORD_SIZE} bytes, not {len(data)}")
        kind, step, err, value, arg, item, _, call, detail = _RECORD.unpack(data)
        self.type: int = kind
        self.step: int = step
        self.err: int = err
        self.value: int = value
        self.arg: int = arg
        self.item: int = item
        self.call: str = call.partition(b"\0")[0].decode("utf-8", "replace")
        self.detail: str = detail.partition(b"\0")[0].decode("utf-8", "replace")


def encode(kind: int, value: int = 0) -> bytes:
    """Encode a record of the parent: PLAN or GO."""
    return _RECORD.pack(kind, NO_STEP, 0, value, 0, 0, 0, b"", b"")


class ProtocolError(Exception):
    """The state does not allow this message."""


class Protocol:
    """The parent's side of one handshake."""

    __slots__ = ("deferred", "heard", "state", "transitions")

    def __init__(self, transitions: Transitions, state: str = ENTERING) -> None:
        self.transitions = transitions
        self.state = state
        self.heard = False  # init has sent a record
        self.deferred: list[Record] = []

    def feed(self, record: Record) -> list[tuple[str, Record]]:
        """Process a record, and return the actions to run, in order.  Raises ProtocolError."""
        self.heard = True
        found = self.transitions.get((self.state, record.type))
        if found is None:
            name = NAMES.get(record.type, str(record.type))
            raise ProtocolError(f"unexpected message {name} from init in state {self.state}")
        action, self.state = found
        if action == DEFER:
            self.deferred.append(record)
            return []
        actions = [(action, record)]
        if action in ("pid", "placed") and self.deferred:
            waiting, self.deferred = self.deferred, []
            for late in waiting:
                actions += self.feed(late)
        return actions
