"""Evaluate a compiled filter: the instructions that seccomp(2) accepts and libseccomp emits."""

from __future__ import annotations

from _struct import Struct, unpack_from

# code of struct sock_filter: <linux/bpf_common.h>
_LD_ABS, _AND, _JA, _RET = 0x20, 0x54, 0x05, 0x06
_JEQ, _JGT, _JGE, _JSET = 0x15, 0x25, 0x35, 0x45

_INSTRUCTION = Struct("HBBI")  # struct sock_filter
DATA = Struct("IIQ6Q")  # struct seccomp_data: nr, arch, instruction_pointer, args

ACTION, VALUE = 0xFFFF0000, 0xFFFF  # SECCOMP_RET_ACTION_FULL, SECCOMP_RET_DATA


class Program:
    """A filter, as `seccomp.compile_filter` returns it."""

    __slots__ = ("steps",)

    def __init__(self, program: bytes) -> None:
        self.steps: list[tuple[int, int, int, int]] = list(_INSTRUCTION.iter_unpack(program))

    def answer(self, data: bytes) -> int:
        """Return SECCOMP_RET_* with its data for a struct seccomp_data.

        Jumps only lead forward, so evaluation ends. Raises ValueError for an instruction that
        libseccomp does not emit.
        """
        accumulator, at = 0, 0
        while True:
            code, if_true, if_false, k = self.steps[at]
            at += 1
            if code == _JEQ:
                at += if_true if accumulator == k else if_false
            elif code == _JGE:
                at += if_true if accumulator >= k else if_false
            elif code == _LD_ABS:
                accumulator = unpack_from("I", data, k)[0]
            elif code == _JGT:
                at += if_true if accumulator > k else if_false
            elif code == _JSET:
                at += if_true if accumulator & k else if_false
            elif code == _JA:
                at += k
            elif code == _AND:
                accumulator &= k
            elif code == _RET:
                return k
            else:
                raise ValueError(f"instruction {at - 1} of the filter has the code {code:#x}")
