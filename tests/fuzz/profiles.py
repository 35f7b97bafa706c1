"""F7: seccomp profiles from JSON text to a program, by way of the bounds, the child and
libseccomp."""

from __future__ import annotations

import os
import struct
from typing import Any

import seccomp_support as emulator
import work
from fuzz import configs
from fuzz.draw import Draw
from pyrunc import seccomp
from pyrunc.errors import PyruncError
from pyrunc.native import libseccomp
from pyrunc.plan.security import SECCOMP_FLAGS
from pyrunc.spec import load, validate

SECONDS = 2.0  # of our own processor time; the child has a limit of its own

CALLS = ("read", "write", "getpid", "personality", "openat2", "clone3", "no_such_call", "socketcall", "\u00e9")
ARCHES = tuple("SCMP_ARCH_" + name for name in ("X86_64", "X86", "X32", "AARCH64", "ARM", "S390X", "NONE"))
TIMES = (*[1] * 20, 2, 8, 64, 600, 5000)
WORDS = struct.Struct("<HBBI")  # struct sock_filter
LOADS, JUMPS, RETURN, AND = {0x20}, {0x05, 0x15, 0x25, 0x35, 0x45}, 0x06, 0x54


def profile(draw: Draw) -> dict[str, Any]:
    """A linux.seccomp of the right types, mostly; now and then with a lot of something."""
    actions = tuple(seccomp.ACTIONS)
    default = draw.pick(actions)
    if default == "SCMP_ACT_NOTIFY" and not draw.one_in(4):
        default = "SCMP_ACT_ERRNO"
    out: dict[str, Any] = {"defaultAction": default}
    if draw.one_in(3 if default in seccomp.WITH_ERRNO else 30):
        out["defaultErrnoRet"] = draw.pick((0, 1, 38, 4095, 65535, 65536, 2**32 - 1))
    if draw.one_in(3):
        out["architectures"] = [draw.pick(ARCHES) for _ in range(draw.below(4))] * draw.pick((1, 1, 1, 20))
    if draw.one_in(3):
        out["flags"] = [draw.pick(tuple(SECCOMP_FLAGS)) for _ in range(draw.below(3))]
    if not draw.one_in(8):
        out["listenerPath"] = "/run/agent"
    out["syscalls"] = []
    for _ in range(draw.below(5)):
        called = [draw.pick(CALLS) for _ in range(1 + draw.below(3))] + [""] * draw.one_in(40)
        rule: dict[str, Any] = {"names": called, "action": draw.pick(actions)}
        if draw.one_in(4 if rule["action"] in seccomp.WITH_ERRNO else 30):
            rule["errnoRet"] = draw.number(draw.pick((1, 1, 2, 3)))
        if draw.one_in(2):
            rule["args"] = [condition(draw) for _ in range(draw.below(4))] * draw.pick((1, 1, 1, 1, 40))
        times = draw.pick(TIMES)
        out["syscalls"] += [{**rule, "names": called * times}] if draw.one_in(2) else spread(rule, times)
    return out


def condition(draw: Draw) -> dict[str, Any]:
    """One comparison of an argument."""
    value, second = draw.number(8), draw.number(8)
    index = draw.below(6) if not draw.one_in(40) else 6
    return {"index": index, "op": draw.pick(tuple(seccomp.OPERATORS)), "value": value, "valueTwo": second}


def spread(rule: dict[str, Any], times: int) -> list[dict[str, Any]]:
    """A rule many times, each with other values."""
    if "args" not in rule:
        return [rule] * times
    return [
        {**rule, "args": [{**one, "value": (one["value"] + n * 0x100000001) % 2**64} for one in rule["args"]]}
        for n in range(times)
    ]


def check(program: bytes) -> None:
    """As the kernel does before it loads a filter: seccomp_check_filter, bpf_check_classic."""
    code = list(WORDS.iter_unpack(program))
    assert 0 < len(code) <= 4096
    for at, (operation, true, false, value) in enumerate(code):
        if operation in LOADS:
            assert value % 4 == 0 and value < 64
        elif operation == 0x05:
            assert at + 1 + value < len(code)
        elif operation in JUMPS:
            assert at + 1 + max(true, false) < len(code)
        else:
            assert operation in (RETURN, AND)
    assert code[-1][0] == RETURN


def decide(program: bytes, given: dict[str, Any]) -> None:
    """Every decision is one of the profile's."""
    possible = {
        seccomp.encode_action(given["defaultAction"], given.get("defaultErrnoRet")),
        emulator.ENOSYS,
        emulator.KILL,
    }
    possible |= {seccomp.encode_action(rule["action"], rule.get("errnoRet")) for rule in given.get("syscalls") or ()}
    for nr, arch in ((0, emulator.NATIVE), (135, emulator.NATIVE), (9999, emulator.NATIVE), (3, emulator.I386)):
        for value in (0, 2**64 - 1):
            assert emulator.run(program, nr, *[value] * 6, arch=arch) in possible


def from_json(data: bytes, host: Any) -> None:
    """A profile becomes a program that the kernel would load, or an error in one line; libseccomp
    does not crash."""
    draw = Draw(data)
    document: Any = {**configs.documents()[0], "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}}
    document["linux"]["seccomp"] = profile(draw)
    if draw.one_in(3):
        known = [place for place in configs.places(document) if place[:2] == ("linux", "seccomp") and len(place) > 2]
        document = configs.mutate(draw, document, known[draw.below(len(known))])
    text = configs.document_bytes(draw, document)
    with work.at_most(SECONDS):
        try:
            config = load.parse_json(text, "config.json")
            validate.check(config, facts=host)
            given = config["linux"].get("seccomp")
            if given:
                program, flags, _ = seccomp.compile_filter(given)
                assert 0 <= flags < 1 << 32
                check(program)
                decide(program, given)
        except PyruncError as error:
            said = str(error)
            assert said and said.isprintable(), said
            assert "crashed" not in said and "no valid answer" not in said, said


def description(data: bytes) -> None:
    """Whatever the child is given, it answers or dies, and takes nothing and nobody with it."""
    draw = Draw(data)
    parts = [bytes(draw.number(1) for _ in range(draw.below(5) * unit)) for unit in (24, 16, 4)]
    names = b"".join(draw.pick(CALLS).encode() + b"\0" for _ in range(draw.below(4)))
    if draw.one_in(2):  # rules that have this many names
        parts[1] = struct.pack("IIII", draw.number(4), names.count(b"\0"), len(parts[0]) // 24, draw.below(2))
    sizes = [len(part) for part in (*parts, names)]
    head = struct.pack("8I", 0, 0, draw.number(4), draw.below(2), *sizes)
    blob = head + b"".join(parts) + names if draw.one_in(2) else draw.rest()
    try:
        compiled = libseccomp.compile(blob, seccomp.PROGRAM_MAX)
    except libseccomp.Failure as error:
        assert 0 < (error.errno or 0) < 4096 and 1 <= error.stage <= 5, error.stage
    else:
        assert 0 < len(compiled) <= seccomp.PROGRAM_MAX
        check(compiled)
    try:
        assert os.waitpid(-1, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        pass
