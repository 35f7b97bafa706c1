"""linux.resources.devices as an eBPF program of type CGROUP_DEVICE (kernel commit ebc614f68736).

The rules are a list in which a later entry overrides an earlier one, separately for each kind of
access. The program evaluates them from the last to the first. An allow rule removes its kinds of
access from those still requested; a deny rule that matches any of them ends the evaluation. The
default decides the rest: deny, unless a wildcard rule allowed everything (GHSA-g54h-m393-cpwq: a
list of allow rules must never become a list of deny rules).
"""

from __future__ import annotations

from _struct import Struct
from errno import E2BIG, EFAULT

from pyrunc import fs
from pyrunc.errors import ConfigError, Problem, SysError, show
from pyrunc.native import bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.types import DeviceRule

    Rule = tuple[bool, int, int, int, int]  # allow, type, major, minor, access

# linux/bpf.h, struct bpf_cgroup_dev_ctx {u32 access_type; u32 major; u32 minor}: access_type =
# access << 16 | type
BLOCK, CHAR = 1, 2
MKNOD, READ, WRITE = 1, 2, 4
ALL = 7
ANY = -1
_TYPES = {"a": ANY, "b": BLOCK, "c": CHAR}

# Always allowed, whatever the rules say: runc and crun append these, and engines rely on it.
# Creating a node is harmless; what matters is opening it. 10:200 is /dev/net/tun.
DEFAULTS: tuple[Rule, ...] = (
    (True, ANY, ANY, ANY, MKNOD),
    (True, CHAR, 10, 200, ALL),
    (True, CHAR, 5, 2, ALL),  # ptmx
    (True, CHAR, 136, ANY, ALL),  # pts
    (True, CHAR, 1, 9, ALL),  # urandom
    (True, CHAR, 1, 5, ALL),  # zero
    (True, CHAR, 5, 0, ALL),  # tty
    (True, CHAR, 1, 7, ALL),  # full
    (True, CHAR, 1, 8, ALL),  # random
    (True, CHAR, 1, 3, ALL),  # null
)

# opcodes (linux/bpf_common.h, linux/bpf.h), registers, and struct bpf_insn as one 64-bit number
_LDX_W, _MOV_K, _MOV_X, _AND_K, _RSH_K = 0x61, 0xB7, 0xBF, 0x57, 0x77
_JA, _JNE32_K, _JSET_K, _EXIT = 0x05, 0x56, 0x45, 0x95
_R0, _CTX, _TYPE, _ACCESS = 0, 1, 2, 3

_ALLOW_MULTI, _REPLACE = 2, 4  # linux/bpf.h: BPF_F_*
_MAX_PROGRAMS = 64  # BPF_CGROUP_MAX_PROGS


def _insn(op: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> int:
    return op | dst << 8 | src << 12 | off << 16 | (imm & 0xFFFFFFFF) << 32


def flatten(rules: list[DeviceRule] | None, ptr: str = "/linux/resources/devices") -> tuple[bool, list[Rule]]:
    """``(default allow, [(allow, type, major, minor, access), ...])`` of the config's rules, with
    the defaults appended.

    A rule for all devices overrides everything before it. Raises ConfigError for an empty or
    unknown access: a rule without access is meaningless, and runc also refuses it.
    """
    default = False
    out: list[Rule] = []
    for index, rule in enumerate(rules or ()):
        allow, access = rule["allow"], rule.get("access", "")
        kind = _TYPES[rule.get("type", "a")]
        if access.strip("rwma") or not access.strip("a"):
            raise ConfigError([Problem(f"{ptr}/{index}/access", "a combination of r, w and m", show(access))])
        major, minor = rule.get("major", ANY), rule.get("minor", ANY)
        bits = (MKNOD if "m" in access else 0) | (READ if "r" in access else 0) | (WRITE if "w" in access else 0)
        if kind == major == minor == ANY and bits == ALL:
            default, out = allow, []
        else:
            out.append((allow, kind, major, minor, bits))
    out += DEFAULTS
    return default, out


def allows_everything(rules: list[DeviceRule] | None, ptr: str = "/linux/resources/devices") -> bool:
    """Whether no program is needed because nothing is denied (a privileged container)."""
    default, flat = flatten(rules, ptr)
    return default and all(rule[0] for rule in flat)


def program(rules: list[DeviceRule] | None, ptr: str = "/linux/resources/devices") -> bytes:
    """The instructions, 8 bytes each. Raises ConfigError as `flatten` does.

    Major and minor are loaded again for each comparison. A register that lives longer would carry
    "equals 1" or "not 1" into the next rule, and the verifier would walk the rest of the program
    once per rule (from 1000 rules on: E2BIG, more than a million steps).
    """
    default, flat = flatten(rules, ptr)
    out = [
        _insn(_LDX_W, _TYPE, _CTX, 0),
        _insn(_MOV_X, _ACCESS, _TYPE),
        _insn(_AND_K, _TYPE, imm=0xFFFF),
        _insn(_RSH_K, _ACCESS, imm=16),
    ]
    verdict = (_insn(_MOV_K, _R0, imm=0), _insn(_MOV_K, _R0, imm=1))
    leave, load_major, load_minor = _insn(_EXIT), _insn(_LDX_W, _R0, _CTX, 4), _insn(_LDX_W, _R0, _CTX, 8)
    for allow, kind, major, minor, access in reversed(flat):
        if not allow:
            body = [_insn(_JSET_K, _ACCESS, off=1, imm=access), _insn(_JA, off=2), verdict[0], leave]
        elif access == ALL:
            body = [verdict[1], leave]
        else:  # allowed if nothing else is requested
            body = [_insn(_AND_K, _ACCESS, imm=ALL & ~access), _insn(_JNE32_K, _ACCESS, off=2), verdict[1], leave]
        if minor != ANY:
            body[:0] = [load_minor, _insn(_JNE32_K, _R0, off=len(body), imm=minor)]
        if major != ANY:
            body[:0] = [load_major, _insn(_JNE32_K, _R0, off=len(body), imm=major)]
        if kind != ANY:
            body.insert(0, _insn(_JNE32_K, _TYPE, off=len(body), imm=kind))
        out += body
    out += [verdict[default], leave]
    return Struct(f"<{len(out)}Q").pack(*out)


def attach(
    cgroup_fd: int,
    rules: list[DeviceRule] | None,
    ptr: str = "/linux/resources/devices",
    *,
    replace: bool = False,
) -> None:
    """Attach the program for these rules to a cgroup, given by a descriptor of its directory.

    ``replace`` detaches the programs that were attached before (an update of the rules); otherwise
    they stay active. The programs of the cgroups above always stay active. Raises SysError,
    ConfigError.
    """
    if allows_everything(rules, ptr):
        if replace:
            _detach(cgroup_fd, _attached(cgroup_fd, ptr), ptr)
        return
    code = program(rules, ptr)
    try:
        new = bpf.load_device(code)
    except bpf.Refused as error:
        hint = f"too many rules ({len(rules or ())})" if error.errno in (E2BIG, EFAULT) else ""
        words = "" if hint else error.log[-200:]
        raise SysError(ptr, "bpf(PROG_LOAD)", error.errno or 0, detail=words, hint=hint) from error
    old: list[int] = []
    try:
        old = _attached(cgroup_fd, ptr) if replace else []
        flags, replaced = (_ALLOW_MULTI | _REPLACE, old[0]) if len(old) == 1 else (_ALLOW_MULTI, -1)
        try:
            bpf.attach(cgroup_fd, new, flags, replaced)
        except OSError as error:
            raise SysError(ptr, "bpf(PROG_ATTACH)", error.errno or 0) from error
        if replaced < 0:  # after the new one is attached, so that the cgroup is never without a program
            gone, old = old, []
            _detach(cgroup_fd, gone, ptr)
    finally:
        for fd in old:
            fs.close(fd)
        fs.close(new)


def _attached(cgroup_fd: int, ptr: str) -> list[int]:
    """Descriptors of the device programs attached to this cgroup itself. Raises SysError."""
    fds: list[int] = []
    try:
        for number in bpf.attached(cgroup_fd, _MAX_PROGRAMS):
            try:
                fds.append(bpf.open_program(number))
            except FileNotFoundError:
                pass  # it was detached meanwhile; any other would stay active
    except OSError as error:
        for fd in fds:
            fs.close(fd)
        raise SysError(ptr, str(error.strerror), error.errno or 0) from error
    return fds


def _detach(cgroup_fd: int, programs: list[int], ptr: str) -> None:
    """Detach programs and close their descriptors.  Raises SysError."""
    failed = 0
    for fd in programs:
        try:
            bpf.detach(cgroup_fd, fd)
        except FileNotFoundError:
            pass  # detached meanwhile
        except OSError as error:
            failed = error.errno or 0
        finally:
            fs.close(fd)
    if failed:
        raise SysError(ptr, "bpf(PROG_DETACH)", failed)
