"""libseccomp."""

from __future__ import annotations

from _struct import unpack

from pyrunc.native.binding import calls, text

# (): libseccomp's version, major * 65536 + minor * 256 + micro.
version = calls.seccomp_version
# (name): libseccomp's token of an architecture, b"" for the native one. Raises OSError: EINVAL if
# it is unknown.
arch = calls.seccomp_arch
# (token, name): the number of a system call; negative if the architecture does not have it, -1 if
# none has.
number = calls.seccomp_number


def knows_flag(flag: int) -> bool:
    """Whether this kernel knows SECCOMP_FILTER_FLAG_* bits, which may have to be asked for
    together."""
    return calls.seccomp_flag(flag) > 0


def usable(token: int) -> bool:
    """Whether a filter for this machine can have an architecture.  Raises MemoryError."""
    try:
        return calls.seccomp_arch_usable(token) > 0
    except OSError:
        raise MemoryError from None


def name(token: int, number: int) -> str:
    """The name of a system call, "" if libseccomp does not know it."""
    room = bytearray(64)
    try:
        length = calls.seccomp_name(token, number, room, 64)
    except OSError:
        return ""
    return room[:length].decode("ascii")


class Failure(OSError):
    """A profile was not compiled: ``stage``, ``index`` and ``name`` are the report of
    pr_seccomp_compile.

    ``strerror`` is the name of the call that failed if there was no answer from the child.
    """

    stage = index = name = 0


def compile(profile: bytes, most: int) -> bytes:
    """Compile an encoded profile in a child; the program, of at most ``most`` bytes. Raises
    Failure.

    What the child says is not checked.
    """
    program, report = bytearray(most), bytearray(12)
    try:
        size = calls.seccomp_compile(profile, len(profile), program, most, report)
    except OSError as error:
        failure = Failure(error.errno, text(program).decode("ascii", "replace"))
        failure.stage, failure.index, failure.name = unpack("3i", report)
        raise failure from None
    return bytes(program[:size])
