"""Device programs of cgroup v2 (bpf(2))."""

from __future__ import annotations

from _struct import unpack

from pyrunc.native.binding import calls, text

_LOG = 4096  # bytes of what the verifier says
_NAME = 16  # BPF_OBJ_NAME_LEN

# (cgroup, program, flags, replaced): BPF_PROG_ATTACH; ``replaced`` is a program for BPF_F_REPLACE,
# else -1.
attach = calls.bpf_prog_attach
# (cgroup, program): BPF_PROG_DETACH.
detach = calls.bpf_prog_detach
# (id): a descriptor of a program.  FileNotFoundError if it has gone.
open_program = calls.bpf_prog_get_fd_by_id


class Refused(OSError):
    """The kernel did not load a program; ``log`` is what its verifier says, "" for nothing."""

    log = ""


def load_device(code: bytes) -> int:
    """Load instructions of 8 bytes as BPF_PROG_TYPE_CGROUP_DEVICE; a descriptor of the program.
    Raises Refused."""
    log = bytearray(_LOG)
    try:
        return calls.bpf_prog_load_device(code, len(code) // 8, log, _LOG)
    except OSError as error:
        refused = Refused(error.errno, error.strerror)
        refused.log = " ".join(text(log).decode("ascii", "replace").split())
        raise refused from None


def attached(cgroup: int, most: int) -> list[int]:
    """The ids of the device programs of this very cgroup. Raises OSError: ENOSPC if there are more
    than ``most``."""
    ids = bytearray(4 * most)
    count = calls.bpf_prog_query(cgroup, ids, most)
    return list(unpack(f"{count}I", ids[: 4 * count]))


def name(program: int) -> str:
    """The name that a program was loaded with.  Raises OSError."""
    room = bytearray(_NAME)
    calls.bpf_prog_name(program, room, _NAME)
    return text(room).decode("ascii", "replace")
