"""Architectures and system calls by name and number, according to libseccomp."""

from __future__ import annotations

from pyrunc.native import libseccomp
from pyrunc.spec.schema import SECCOMP_ARCHES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

X32_BIT = 0x40000000  # __X32_SYSCALL_BIT
# libseccomp's token for x32, whose calls the kernel reports as x86_64 with X32_BIT in the number.
_X32, _X86_64, X86 = 0x4000003E, 0xC000003E, 0x40000003
_LAST = 1024  # no architecture has numbers further above its base
_64_BIT = 0x80000000  # __AUDIT_ARCH_64BIT
UNKNOWN = -1  # a name that libseccomp does not know; other negative numbers mean "not on this architecture"

# socketcall(2) and ipc(2) of 32-bit x86: a rule for `socket` also covers socketcall(SYS_SOCKET).
_SOCKETCALL = (
    "", "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv",
    "sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg",
    "sendmmsg",
)  # fmt: skip
_IPC = {
    1: "semop", 2: "semget", 3: "semctl", 4: "semtimedop", 11: "msgsnd", 12: "msgrcv", 13: "msgget", 14: "msgctl",
    21: "shmat", 22: "shmdt", 23: "shmget", 24: "shmctl",
}  # fmt: skip


class Arch:
    """One architecture of a filter."""

    __slots__ = ("_names", "_numbers", "name", "token")

    def __init__(self, name: str, token: int) -> None:
        self.name = name  # SCMP_ARCH_*
        self.token = token  # libseccomp's token, equal to the AUDIT_ARCH except for x32
        self._names: dict[int, str] = {}
        self._numbers: dict[str, int] = {}

    @property
    def audit(self) -> int:
        """AUDIT_ARCH_* of <linux/audit.h>, the value that a filter receives."""
        return _X86_64 if self.token == _X32 else self.token

    @property
    def short(self) -> str:
        """``x86_64``."""
        return self.name.removeprefix("SCMP_ARCH_").lower()

    @property
    def bits(self) -> int:
        """The size of an argument, in bits."""
        return 64 if self.token & _64_BIT or self.token == _X32 else 32

    def number(self, name: str) -> int:
        """The number of a call; negative if this architecture lacks it (`UNKNOWN`: all lack it)."""
        found = self._numbers.get(name)
        if found is None:
            found = libseccomp.number(self.token, name.encode("utf-8"))
            if found < UNKNOWN and self.token == X86:
                # A function of socketcall(2) or ipc(2) may also be a call of its own, which
                # libseccomp covers as well.
                found = next((nr for nr, known in self.table().items() if known == name), found)
            self._numbers[name] = found
        return found

    def name_of(self, number: int) -> str:
        """The name of a call, or "" if libseccomp does not know it."""
        found = self._names.get(number)
        if found is None:
            found = libseccomp.name(self.token, number) if number < 1 << 31 else ""
            if len(self._names) < 4 * _LAST:  # a program can use any number
                self._names[number] = found
        return found

    def names_of(self, number: int, first: int) -> tuple[str, ...]:
        """Every name by which a rule can refer to a call; ``first``: its first argument."""
        own, part = self.name_of(number), self.parts(number).get(first & 0xFFFF, "")
        return (own, part) if part else (own,) if own else ()

    def parts(self, number: int) -> dict[int, str]:
        """The meanings of the first argument of socketcall(2) and ipc(2); {} for every other
        call."""
        if self.token != X86:
            return {}
        return {"socketcall": dict(enumerate(_SOCKETCALL[1:], 1)), "ipc": _IPC}.get(self.name_of(number), {})

    def table(self) -> dict[int, str]:
        """Every call in order of its number."""
        base = X32_BIT if self.token == _X32 else self._base()
        found = ((number, self.name_of(number)) for number in range(base, base + _LAST))
        return {number: name for number, name in found if name}

    def _base(self) -> int:
        """The lowest number: MIPS has 4000, 5000 and 6000 for its three ABIs."""
        number = libseccomp.number(self.token, b"read")
        return number - number % 1000


def all_arches() -> dict[str, Arch]:
    """Every architecture that this libseccomp supports, by name."""
    found = {}
    for name in SECCOMP_ARCHES:
        try:
            found[name] = Arch(name, libseccomp.arch(name.removeprefix("SCMP_ARCH_").lower().encode("ascii")))
        except OSError:
            continue  # this libseccomp does not know it
    return found


def native() -> Arch:
    """This machine's."""
    token = libseccomp.arch(b"")
    return next(arch for arch in all_arches().values() if arch.token == token)


def arch_of(arches: Iterable[Arch], audit: int, number: int) -> Arch | None:
    """The architecture of a call reported by the kernel; None if the profile does not list it."""
    token = _X32 if audit == _X86_64 and number & X32_BIT else audit
    return next((arch for arch in arches if arch.token == token), None)
