"""The device program: an emulated eBPF machine compared with a naive evaluation of the rules."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import transcript
from json_type import Json
from pyrunc.cgroup import devices
from pyrunc.errors import ConfigError
from pyrunc.spec.types import DeviceRule

kept = transcript.follow("pyrunc.cgroup.devices")

DENY_ALL: DeviceRule = {"allow": False, "access": "rwm"}
ALLOW_ALL: DeviceRule = {"allow": True, "access": "rwm"}
M32, M64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


def run(code: bytes, kind: int, major: int, minor: int, access: int) -> int:
    """Execute with the semantics of Documentation/bpf/standardization/instruction-set.rst; returns
    r0."""
    context = struct.pack("<III", access << 16 | kind, major, minor)
    registers: list[int | None] = [None] * 11
    registers[1] = 0  # address of the context
    at = steps = 0
    while True:
        steps += 1
        assert steps < 100_000
        op, regs, off, imm = struct.unpack_from("<BBhi", code, at * 8)
        dst, src = regs & 15, regs >> 4
        at += 1
        if op == 0x95:
            assert registers[0] is not None, "exit without a verdict"
            return registers[0]
        if op == 0x05:
            at += off
        elif op == 0x61:
            assert src == 1 and registers[1] == 0, "loads are from the context"
            registers[dst] = struct.unpack_from("<I", context, off)[0]
        elif op == 0xBF:
            assert registers[src] is not None
            registers[dst] = registers[src]
        elif op == 0xB7:
            registers[dst] = imm & M64
        else:
            value = registers[dst]
            assert value is not None, f"register {dst} is used before it is set"
            if op == 0x57:
                registers[dst] = value & (imm & M64)
            elif op == 0x77:
                registers[dst] = value >> imm
            elif op == 0x56:
                at += off if value & M32 != imm & M32 else 0
            elif op == 0x45:
                at += off if value & (imm & M64) else 0
            else:
                raise AssertionError(f"opcode {op:#x}")
        assert 0 <= at < len(code) // 8, "jump out of the program"


def naive(rules: list[Json], kind: str, major: int, minor: int, access: str) -> bool:
    """The last rule for a kind of access decides; the default accesses of every container are
    added."""
    basics = {("c", 1, n) for n in (3, 5, 7, 8, 9)} | {("c", 5, 0), ("c", 5, 2), ("c", 10, 200)}
    if (kind, major, minor) in basics or (kind, major) == ("c", 136):
        return True
    verdict = {"r": False, "w": False, "m": False}
    for rule in rules:
        fits = rule.get("type", "a") in ("a", kind)
        fits = fits and rule.get("major", -1) in (-1, major) and rule.get("minor", -1) in (-1, minor)
        if fits:
            verdict.update(dict.fromkeys(rule["access"], rule["allow"]))
    return all(verdict[one] for one in access if one != "m")


def emulated(rules: list[Json] | None, kind: str, major: int, minor: int, access: str) -> bool:
    bits = sum({"m": 1, "r": 2, "w": 4}[one] for one in access)
    result = run(devices.program(rules), {"b": 1, "c": 2}[kind], major, minor, bits)
    return {0: False, 1: True}[result]


NUMBERS = st.sampled_from([0, 1, 3, 5, 136, 200, 4095, 0x7FFFFFFF, 0xFFFFFFFF])
ACCESS = st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm", "mwr"])
RULES = st.lists(
    st.fixed_dictionaries(
        {"allow": st.booleans(), "access": ACCESS},
        optional={
            "type": st.sampled_from(["a", "b", "c"]),
            "major": st.just(-1) | NUMBERS,
            "minor": st.just(-1) | NUMBERS,
        },
    ),
    max_size=8,
)


@settings(max_examples=600, deadline=None)
@given(RULES, st.sampled_from(["b", "c"]), NUMBERS, NUMBERS, st.sampled_from(["r", "w", "m", "rw", "rwm"]))
def test_program_does_what_the_list_says(rules: list[Json], kind: str, major: int, minor: int, access: str) -> None:
    assert emulated(rules, kind, major, minor, access) == naive(rules, kind, major, minor, access)


@settings(max_examples=200, deadline=None)
@given(RULES, st.sampled_from(["b", "c"]), NUMBERS, NUMBERS)
def test_no_program_only_where_nothing_is_denied(rules: list[Json], kind: str, major: int, minor: int) -> None:
    assert naive(rules, kind, major, minor, "rwm") or not devices.allows_everything(rules)


@pytest.mark.parametrize(
    "rules", [None, [], [DENY_ALL], [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}]]
)
def test_default_is_deny(rules: list[Json] | None) -> None:
    """GHSA-g54h-m393-cpwq: no rules, or only allow rules, must not become a list of deny rules."""
    assert not devices.allows_everything(rules)
    assert not emulated(rules, "b", 8, 0, "r")
    assert not emulated(rules, "c", 1, 1, "rw")  # /dev/mem
    assert emulated(rules, "b", 8, 0, "m")  # creating a node is harmless
    for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, 0), (136, 99), (10, 200)):
        assert emulated(rules, "c", major, minor, "rwm")
        assert not emulated(rules, "b", major, minor, "r")
    for major, minor in ((1, 4), (1, 11), (5, 1), (10, 229), (135, 0)):
        assert not emulated(rules, "c", major, minor, "r")


@pytest.mark.parametrize(
    ("rules", "everything"),
    [
        ([ALLOW_ALL], True),
        ([{"allow": True, "type": "a", "major": -1, "minor": -1, "access": "mrw"}], True),
        ([{"allow": True, "access": "rwma"}], True),
        ([{"allow": True, "access": "rwa"}], False),
        ([DENY_ALL, ALLOW_ALL], True),
        ([{"allow": False, "type": "c", "access": "r"}, ALLOW_ALL], True),
        ([ALLOW_ALL, DENY_ALL], False),
        ([ALLOW_ALL, {"allow": False, "type": "b", "major": 8, "minor": 0, "access": "w"}], False),
        ([{"allow": True, "type": "a", "major": 1, "access": "rwm"}], False),
        ([{"allow": True, "access": "rw"}], False),
    ],
)
def test_privileged_needs_no_program(rules: list[Json], everything: bool) -> None:
    assert devices.allows_everything(rules) is everything


def test_the_defaults_come_last() -> None:
    """As in runc and crun: no rule can take /dev/null away."""
    assert emulated(
        [ALLOW_ALL, {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "rwm"}], "c", 1, 3, "rw"
    )


def test_read_and_write_may_come_from_two_rules() -> None:
    """crun's program matches whole requests: two rules that allow r and w separately do not allow
    O_RDWR there."""
    one = {"allow": True, "type": "c", "major": 60, "minor": 1}
    rules = [DENY_ALL, {**one, "access": "r"}, {**one, "access": "w"}]
    assert emulated(rules, "c", 60, 1, "rw")
    denied = [ALLOW_ALL, {"allow": False, "type": "c", "major": 60, "minor": 1, "access": "w"}]
    assert not emulated(denied, "c", 60, 1, "rw") and emulated(denied, "c", 60, 1, "r")


@pytest.mark.parametrize("rule", [{"allow": True, "access": ""}, {"allow": True}, {"allow": False, "access": "rx"}])
def test_bad_access(rule: Json) -> None:
    with pytest.raises(ConfigError, match="/linux/resources/devices/1/access"):
        devices.program([DENY_ALL, rule])


def test_a_wildcard_shortens_the_program() -> None:
    """Engines send the wildcard first; rules before one have no effect and cost nothing."""
    many: list[DeviceRule] = [{"allow": True, "type": "c", "major": n, "minor": n, "access": "rw"} for n in range(500)]
    assert devices.program([*many, DENY_ALL]) == devices.program([DENY_ALL]) == devices.program([])
    assert len(devices.program([])) <= 8 * 80
    assert len(devices.program(many)) < 8 * (80 + 500 * 10)
