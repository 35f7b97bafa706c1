"""Every state of the handshake with every message, and the record codec."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from pyrunc import handshake as h

ROOT = Path(__file__).resolve().parent.parent
PLAN_H = (ROOT / "native" / "init" / "plan.h").read_text(encoding="utf-8")


def record(
    kind: int, *, step: int = 0, err: int = 0, value: int = 0, call: bytes = b"", detail: bytes = b""
) -> h.Record:
    return h.Record(struct.pack("=IIiIHHI24s208s", kind, step, err, value, 0, 0, 0, call, detail))


def test_message_numbers_are_those_of_the_header() -> None:
    body = re.search(r"enum msg_type \{(.*?)\};", PLAN_H, re.S)
    assert body
    names = re.findall(r"^\s*MSG_(\w+)", body[1], re.M)
    assert {name: number for number, name in enumerate(names, 2)} == {name: n for n, name in h.NAMES.items()}


def test_records_of_the_parent_are_a_kind_and_a_number() -> None:
    record = h.Record(h.encode(h.PLAN, 77))
    assert (record.type, record.step, record.value) == (h.PLAN, h.NO_STEP, 77)
    assert (record.err, record.arg, record.item, record.call, record.detail) == (0, 0, 0, "", "")
    assert h.encode(h.GO)[4:] == h.encode(h.PLAN, 0)[4:]


def test_record_layout_equals_the_headers() -> None:
    assert "sizeof(struct msg) == 256" in PLAN_H and h.RECORD_SIZE == 256
    r = record(h.FAIL, step=7, err=22, value=5, call=b"fsconfig", detail=b"tmpfs: Unknown parameter")
    assert (r.type, r.step, r.err, r.value, r.call, r.detail) == (
        h.FAIL, 7, 22, 5, "fsconfig", "tmpfs: Unknown parameter",
    )  # fmt: skip
    assert h.Record(h.encode(h.GO)).type == h.GO
    with pytest.raises(ValueError, match="256"):
        h.Record(b"x" * 255)


# The protocols written by hand: the answer of each state to each message; absent messages are
# rejected.
EXPECTED = {
    "CREATE": {
        "entering": {
            "PLACED": ("placed", "entering"),
            "MAP": ("map_ids", "entering"),
            "PID": ("pid", "setup"),
            "MOUNTED": ("defer", "entering"),
        },
        "setup": {"MOUNTED": ("mounted", "finish")},
        "finish": {"READY": ("ready", "late")},
        "late": {"SECCOMP": ("seccomp", "late"), "CREATED": ("created", "done")},
    },
    "JOIN": {
        "entering": {"PLACED": ("placed", "entering"), "READY": ("ready", "joined")},
        "joined": {"SECCOMP": ("seccomp", "joined"), "PID": ("pid", "cloned")},
        "cloned": {"SECCOMP": ("seccomp", "cloned")},
    },
    "CREATE_AHEAD": {
        "entering": {"PLACED": ("placed", "entering"), "MAP": ("map_ids", "entering"), "PID": ("pid", "late")},
        "late": {"SECCOMP": ("seccomp", "late"), "CREATED": ("created", "done")},
    },
    "RUN_AHEAD": {
        "entering": {
            "PLACED": ("placed", "entering"),
            "MAP": ("map_ids", "entering"),
            "PID": ("pid", "late"),
            "SECCOMP": ("defer", "entering"),
            "CREATED": ("defer", "entering"),
        },
        "late": {"SECCOMP": ("seccomp", "late"), "CREATED": ("created", "done")},
    },
    "JOIN_AHEAD": {
        "joined": {"SECCOMP": ("seccomp", "joined"), "PID": ("pid", "cloned")},
        "cloned": {"SECCOMP": ("seccomp", "cloned")},
    },
    "PLACE_AHEAD": {
        "placing": {
            "PLACED": ("placed", "joined"),
            "SECCOMP": ("defer", "placing"),
            "PID": ("defer", "placing"),
        },
        "joined": {"SECCOMP": ("seccomp", "joined"), "PID": ("pid", "cloned")},
        "cloned": {"SECCOMP": ("seccomp", "cloned")},
    },
    "MOUNTS": {
        "entering": {"TREE": ("tree", "entering"), "MOUNTED": ("mounted", "finish")},
        "finish": {"TREE": ("tree", "finish"), "READY": ("ready", "done")},
    },
}


@pytest.mark.parametrize("table", EXPECTED)
@pytest.mark.parametrize("state", h.STATES)
@pytest.mark.parametrize("kind", sorted(h.NAMES))
def test_every_state_with_every_message(table: str, state: str, kind: int) -> None:
    name = h.NAMES[kind]
    expected = EXPECTED[table].get(state, {}).get(name)
    if name == "WARN" and state in EXPECTED[table]:
        expected = ("warn", state)
    if name == "FAIL" and state in EXPECTED[table]:
        expected = ("fail", "failed")
    protocol = h.Protocol(getattr(h, table))
    protocol.state = state
    if expected is None:
        with pytest.raises(h.ProtocolError, match=name):
            protocol.feed(record(kind))
        assert protocol.state == state
        return
    actions = protocol.feed(record(kind))
    assert protocol.state == expected[1]
    assert [action for action, _ in actions] == ([] if expected[0] == "defer" else [expected[0]])


def test_init_may_overtake_enter() -> None:
    protocol = h.Protocol(h.CREATE)
    assert protocol.feed(record(h.MOUNTED)) == []
    assert [action for action, _ in protocol.feed(record(h.PID, value=42))] == ["pid", "mounted"]


def test_init_of_a_run_may_overtake_enter() -> None:
    protocol = h.Protocol(h.RUN_AHEAD)
    assert protocol.feed(record(h.CREATED)) == []
    assert [action for action, _ in protocol.feed(record(h.PID, value=42))] == ["pid", "created"]
    assert protocol.state == h.DONE


def test_the_clone_in_the_cgroup_may_overtake_enter() -> None:
    protocol = h.Protocol(h.PLACE_AHEAD, h.PLACING)
    for kind in (h.SECCOMP, h.PID):
        assert protocol.feed(record(kind)) == [] and protocol.state == h.PLACING
    assert [action for action, _ in protocol.feed(record(h.PLACED, value=42))] == ["placed", "seccomp", "pid"]
    assert protocol.state == h.CLONED and not protocol.deferred


def test_a_whole_exec() -> None:
    protocol = h.Protocol(h.JOIN)
    seen = []
    for kind in (h.PLACED, h.WARN, h.READY, h.SECCOMP, h.PID):
        seen += [action for action, _ in protocol.feed(record(kind))]
    assert seen == ["placed", "warn", "ready", "seccomp", "pid"]
    assert protocol.state == h.CLONED  # EOF means a successful execve


def test_a_whole_create() -> None:
    protocol = h.Protocol(h.CREATE)
    seen = []
    for kind in (h.MAP, h.PID, h.MOUNTED, h.WARN, h.READY, h.SECCOMP, h.CREATED):
        seen += [action for action, _ in protocol.feed(record(kind))]
    assert seen == ["map_ids", "pid", "mounted", "warn", "ready", "seccomp", "created"]
    assert protocol.state == h.DONE


def test_a_create_without_mounted_and_ready() -> None:
    protocol = h.Protocol(h.CREATE_AHEAD)
    seen = []
    for kind in (h.MAP, h.PID, h.WARN, h.SECCOMP, h.CREATED):
        seen += [action for action, _ in protocol.feed(record(kind))]
    assert seen == ["map_ids", "pid", "warn", "seccomp", "created"]
    assert protocol.state == h.DONE
