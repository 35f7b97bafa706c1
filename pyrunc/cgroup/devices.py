"""linux.resources.devices as an eBPF program of type CGROUP_DEVICE (kernel commit ebc614f68736).

The rules are a list in which a later entry overrides an earlier one, separately for each kind of access.  The program
looks at them from the last to the first: an allow takes its kinds of access off what is still asked for, a deny that
meets one ends it.  What remains at the end is decided by the default: deny, unless a wildcard rule allowed everything.
"""

from __future__ import annotations

from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# linux/bpf.h, struct bpf_cgroup_dev_ctx {u32 access_type; u32 major; u32 minor}: access_type = access << 16 | type
BLOCK, CHAR = 1, 2
MKNOD, READ, WRITE = 1, 2, 4
ANY = -1

# (allow, type, major, minor, access): what a container always may, whatever its rules: runc and crun append these, and
# engines count on it (10:200 is /dev/net/tun; making a node is harmless, opening it is what counts).
DEFAULTS = (
    (True, CHAR, ANY, ANY, MKNOD),
    (True, BLOCK, ANY, ANY, MKNOD),
    (True, CHAR, 1, 3, 7),
    (True, CHAR, 1, 8, 7),
    (True, CHAR, 1, 7, 7),
    (True, CHAR, 5, 0, 7),
    (True, CHAR, 1, 5, 7),
    (True, CHAR, 1, 9, 7),
    (True, CHAR, 136, ANY, 7),
    (True, CHAR, 5, 2, 7),
    (True, CHAR, 10, 200, 7),
)

_INSN = Struct("=BBhi")
# opcodes (linux/bpf_common.h, bpf.h)
_LDX_W, _MOV_K, _MOV_X = 0x61, 0xB7, 0xBF
_AND_K, _RSH_K = 0x57, 0x77
_JEQ_K, _JNE32_K, _JSET_K, _EXIT = 0x15, 0x56, 0x45, 0x95
_R0, _R1, _TYPE, _ACCESS, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5


def flatten(rules: list[dict[str, Any]] | None) -> tuple[bool, list[tuple[bool, int, int, int, int]]]:
    """``(default allow, [(allow, type, major, minor, access), ...])`` of the config's rules, defaults appended.

    A rule for all devices of both types makes everything before it moot.
    """
    default, out = False, []
    for rule in rules or ():
        allow = bool(rule.get("allow"))
        kind, access = rule.get("type") or "a", rule.get("access") or "rwm"
        major, minor = rule.get("major"), rule.get("minor")
        major = ANY if major is None else major
        minor = ANY if minor is None else minor
        bits = (MKNOD if "m" in access else 0) | (READ if "r" in access else 0) | (WRITE if "w" in access else 0)
        if kind == "a" and major == minor == ANY and bits == 7:
            default, out = allow, []
            continue
        for number in (BLOCK, CHAR) if kind == "a" else ((BLOCK,) if kind == "b" else (CHAR,)):
            out.append((allow, number, major, minor, bits))
    return default, out + list(DEFAULTS)


def allows_everything(rules: list[dict[str, Any]] | None) -> bool:
    """Whether no program is needed: nothing is denied."""
    default, flat = flatten(rules)
    return default and all(rule[0] for rule in flat)


def _insn(op: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return _INSN.pack(op, dst | src << 4, off, imm - (1 << 32) if imm >= 1 << 31 else imm)


def program(rules: list[dict[str, Any]] | None) -> bytes:
    """The instructions, 8 bytes each."""
    default, flat = flatten(rules)
    out = [
        _insn(_LDX_W, _TYPE, _R1, 0),
        _insn(_MOV_X, _ACCESS, _TYPE),
        _insn(_AND_K, _TYPE, imm=0xFFFF),
        _insn(_RSH_K, _ACCESS, imm=16),
        _insn(_LDX_W, _MAJOR, _R1, 4),
        _insn(_LDX_W, _MINOR, _R1, 8),
    ]
    for allow, kind, major, minor, access in reversed(flat):
        if allow:
            # Nothing left to ask for: allowed.
            body = [
                _insn(_AND_K, _ACCESS, imm=~access & 7),
                _insn(_JNE32_K, _ACCESS, off=2),
                _insn(_MOV_K, _R0, imm=1),
                _insn(_EXIT),
            ]
        else:
            body = [
                _insn(_JSET_K, _ACCESS, off=1, imm=access),
                _insn(0x05, off=2),  # goto the next rule
                _insn(_MOV_K, _R0),
                _insn(_EXIT),
            ]
        tests = [(_TYPE, kind), (_MAJOR, major), (_MINOR, minor)]
        tests = [(register, value) for register, value in tests if value != ANY]
        for index, (register, value) in enumerate(tests):
            out.append(_insn(_JNE32_K, register, off=len(tests) - index - 1 + len(body), imm=value))
        out += body
    out += [_insn(_MOV_K, _R0, imm=1 if default else 0), _insn(_EXIT)]
    return b"".join(out)
