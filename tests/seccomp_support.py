"""Seccomp profiles for tests, and an emulator of classic BPF."""

from __future__ import annotations

import errno
import platform
import struct
from pathlib import Path
from typing import Any

from json_type import Json
from pyrunc import seccomp

ROOT = Path(__file__).resolve().parent.parent
PLACES = (ROOT / "integration" / "bundles", ROOT.parent / "shared" / "bundles")
BUNDLES = {path.stem: path for place in PLACES for path in place.glob("**/*.json")}

KILL_PROCESS, KILL, TRAP, ERRNO = 0x80000000, 0, 0x30000, 0x50000
NOTIFY, TRACE, LOG, ALLOW = 0x7FC00000, 0x7FF00000, 0x7FFC0000, 0x7FFF0000
EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS

X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
NATIVE = {"x86_64": X86_64, "aarch64": AARCH64}[platform.machine()]
X32 = 0x40000000
NUMBERS: dict[int, dict[str, int]] = {
    X86_64: {"read": 0, "write": 1, "getpid": 39, "personality": 135, "clone3": 435, "openat2": 437},
    I386: {"read": 3, "write": 4, "getpid": 20, "personality": 136, "clone3": 435, "openat2": 437, "socketcall": 102},
    AARCH64: {"read": 63, "write": 64, "getpid": 172, "personality": 92, "clone3": 435, "openat2": 437},
    ARM: {"read": 3, "write": 4, "getpid": 20, "personality": 136, "openat2": 437, "set_tls": 0xF0005},
}
NR = NUMBERS[NATIVE]


def run(program: bytes, nr: int, *args: int, arch: int = NATIVE, steps: list[int] | None = None) -> int:
    """The value that the kernel's classic BPF returns for a system call: struct seccomp_data is nr,
    arch, ip, args."""
    data = struct.pack("<IIQ6Q", nr & 0xFFFFFFFF, arch, 0, *(*args, 0, 0, 0, 0, 0, 0)[:6])
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = executed = 0
    k: int
    while True:
        executed += 1
        op, jump_true, jump_false, k = code[at]  # IndexError: the kernel would reject the program
        at += 1
        if op == 0x20:  # ld [k]
            assert k % 4 == 0
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif op == 0x54:  # and #k
            accumulator &= k
        elif op == 0x05:  # ja
            at += k
        elif op in (0x15, 0x25, 0x35, 0x45):  # jeq, jgt, jge, jset
            taken = {
                0x15: accumulator == k,
                0x25: accumulator > k,
                0x35: accumulator >= k,
                0x45: bool(accumulator & k),
            }[op]
            at += jump_true if taken else jump_false
        elif op == 0x06:  # ret #k
            if steps is not None:
                steps.append(executed)
            return k
        else:
            raise AssertionError(f"an instruction {op:#x} that nobody expected")


def profile(*syscalls: Json, **fields: Any) -> Json:
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(syscalls), **fields}


def rule(names: str, action: str = "SCMP_ACT_ALLOW", *args: tuple[Any, ...], **fields: Any) -> Json:
    conditions = [dict(zip(("index", "op", "value", "valueTwo"), arg, strict=False)) for arg in args]
    return {"names": names.split(), "action": action, "args": conditions, **fields}


def compiled(*syscalls: Json, **fields: Any) -> bytes:
    program = seccomp.compile_filter(profile(*syscalls, **fields))[0]
    assert program
    assert len(program) % 8 == 0
    return program


NEWEST = rule("openat2")  # so that the ENOSYS check does not matter
