"""The C decoder of plans as a process: native/tests/plan_dump.c over native/init/plan_load.c, with
the sanitizers."""

from __future__ import annotations

import ctypes
import pathlib
import struct
import subprocess
from typing import Any

from pyrunc.plan import Plan, ops

NATIVE = pathlib.Path(__file__).resolve().parents[2] / "native"
FLAGS = ("-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def build(out: pathlib.Path) -> None:
    """Compile the decoder."""
    sources = (NATIVE / "tests" / "plan_dump.c", NATIVE / "init" / "plan_load.c")
    subprocess.run(["gcc", *FLAGS, f"-I{NATIVE / 'init'}", "-o", out, *sources], check=True)


_libc = ctypes.CDLL(None)


class Decoder:
    """Ask it with `decode`; close it at the end."""

    def __init__(self, program: pathlib.Path) -> None:
        # Without random addresses: with as many random bits as newer kernels have, older sanitizers
        # find no room.
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=lambda: _libc.personality(0x0040000)
        )

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(10) == 0

    def decode(self, plan: bytes) -> bytes:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(struct.pack("=I", len(plan)) + plan)
        self.process.stdin.flush()
        (size,) = struct.unpack("=I", self.process.stdout.read(4))
        return self.process.stdout.read(size)


def strings(value: Any) -> bytes:
    items = value if type(value) is list else [value]
    raw = [item if type(item) is bytes else item.encode("utf-8", "surrogateescape") for item in items]
    return struct.pack("=I", len(raw)) + b"".join(struct.pack("=I", len(item)) + item for item in raw)


def expected(plan: Plan) -> bytes:
    """What the decoder should say of a plan."""
    out = [struct.pack("=iII", 0, 1 + len(plan.fds), plan.npreserve)]
    for op, policy, numbers, texts in plan.steps:
        numbers = (*numbers, *(0,) * (8 - len(numbers)))
        # A blob that the filter is put into later is empty until then.
        values = [strings(text) for text in texts]
        out.append(struct.pack("=HH8I", op, policy, *numbers) + b"".join(values) + b"\0\0\0\0" * (4 - len(values)))
        assert ops.OPS[op]
    return b"".join(out)
