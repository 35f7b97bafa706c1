"""Print the arguments of a system call in words, as far as that is cheap."""

from __future__ import annotations

import posix
from posix import O_CLOEXEC, O_RDONLY

from pyrunc import signals
from pyrunc.errors import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT = 256  # bytes of a path to read
_PAGE = 4096
AT_FDCWD = -100

# The type of each argument: d descriptor, p path, O open flags, m mode, i number, S signal, P
# protection, x anything.
_KINDS = {
    "read": "dxi", "write": "dxi", "readv": "dxi", "writev": "dxi", "pread64": "dxii", "pwrite64": "dxii",
    "open": "pOm", "creat": "pm", "openat": "dpOm", "openat2": "dpxi", "close": "d", "close_range": "ddx",
    "stat": "px", "lstat": "px", "fstat": "dx", "stat64": "px", "lstat64": "px", "fstat64": "dx",
    "newfstatat": "dpxx", "fstatat64": "dpxx", "statx": "dpxxx", "statfs": "px", "fstatfs": "dx",
    "access": "pi", "faccessat": "dpi", "faccessat2": "dpix", "chdir": "p", "fchdir": "d", "chroot": "p",
    "mkdir": "pm", "mkdirat": "dpm", "rmdir": "p", "unlink": "p", "unlinkat": "dpx", "rename": "pp",
    "renameat": "dpdp", "renameat2": "dpdpx", "link": "pp", "linkat": "dpdpx", "symlink": "pp", "symlinkat": "pdp",
    "readlink": "pxi", "readlinkat": "dpxi", "mknod": "pmx", "mknodat": "dpmx", "chmod": "pm", "fchmod": "dm",
    "fchmodat": "dpm", "chown": "pii", "lchown": "pii", "fchown": "dii", "fchownat": "dpiix", "truncate": "pi",
    "ftruncate": "di", "execve": "pxx", "execveat": "dpxxx", "mount": "pppxx", "umount2": "px", "pivot_root": "pp",
    "utimensat": "dpxx", "getxattr": "ppxi", "lgetxattr": "ppxi", "setxattr": "ppxix", "lsetxattr": "ppxix",
    "inotify_add_watch": "dpx", "memfd_create": "px", "swapon": "px", "swapoff": "p", "acct": "p",
    "mmap": "xiPxdi", "mmap2": "xiPxdi", "mprotect": "xiP", "munmap": "xi", "brk": "x", "mremap": "xiixx",
    "madvise": "xii", "ioctl": "dxx", "fcntl": "dix", "fcntl64": "dix", "dup": "d", "dup2": "dd", "dup3": "ddO",
    "pipe": "x", "pipe2": "xO", "lseek": "dii", "getdents64": "dxi", "fsync": "d", "fdatasync": "d", "flock": "di",
    "socket": "iii", "bind": "dxi", "connect": "dxi", "listen": "di", "accept": "dxx", "accept4": "dxxx",
    "sendto": "dxixxi", "recvfrom": "dxixxx", "sendmsg": "dxx", "recvmsg": "dxx", "shutdown": "di",
    "setsockopt": "diixi", "getsockopt": "diixx", "socketpair": "iiix", "epoll_ctl": "didx", "epoll_wait": "dxii",
    "epoll_pwait": "dxiixi", "eventfd2": "ix", "kill": "iS", "tkill": "iS", "tgkill": "iiS", "rt_sigaction": "Sxxi",
    "rt_sigprocmask": "ixxi", "clone": "xxxxx", "clone3": "xi", "wait4": "ixxx", "waitid": "iixxx", "exit": "i",
    "exit_group": "i", "setuid": "i", "setgid": "i", "setreuid": "ii", "setregid": "ii", "setresuid": "iii",
    "setresgid": "iii", "setgroups": "ix", "setpgid": "ii", "getpgid": "i", "prctl": "ixxxx", "arch_prctl": "xx",
    "personality": "x", "ptrace": "iixx", "unshare": "x", "setns": "dx", "umask": "m", "sethostname": "xi",
    "getpriority": "ii", "setpriority": "iii", "prlimit64": "iixx", "getrlimit": "ix", "setrlimit": "ix",
    "getrandom": "xix", "futex": "xiixxi", "sched_setaffinity": "iix", "sched_getaffinity": "iix", "alarm": "i",
    "getpid": "", "getppid": "", "gettid": "", "getuid": "", "geteuid": "", "getgid": "", "getegid": "",
    "fork": "", "vfork": "", "setsid": "", "sync": "", "pause": "", "sched_yield": "", "getpgrp": "", "munlockall": "",
    "rt_sigreturn": "", "set_tid_address": "x", "set_robust_list": "xi", "rseq": "xixx", "uname": "x", "poll": "xii",
}  # fmt: skip

_ACCESS = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")
_NAMES = (
    "O_CREAT", "O_EXCL", "O_NOCTTY", "O_TRUNC", "O_APPEND", "O_NONBLOCK", "O_SYNC", "O_DSYNC", "O_DIRECTORY",
    "O_NOFOLLOW", "O_CLOEXEC", "O_TMPFILE", "O_DIRECT", "O_NOATIME", "O_PATH",
)  # fmt: skip
# Values on this machine; longer masks first, because O_TMPFILE contains O_DIRECTORY.
_OPEN = sorted(((getattr(posix, name), name) for name in _NAMES), key=lambda flag: -flag[0].bit_count())
_PROT = ((1, "PROT_READ"), (2, "PROT_WRITE"), (4, "PROT_EXEC"))


def words(name: str, args: Sequence[int], bits: int, pid: int) -> str:
    """Format a call: ``openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC, 0)``.

    ``pid``: the process whose memory contains the strings; unreadable ones are printed as
    addresses.
    """
    kinds = _KINDS.get(name)
    if kinds is None:
        given = list(args)
        while given and not given[-1]:
            given.pop()
        return f"{name or '?'}({', '.join(map(hex, given))})"
    texts = []
    memory = Memory(pid)
    try:
        for kind, value in zip(kinds, args, strict=False):
            texts.append(_argument(kind, value, bits, memory))
    finally:
        memory.close()
    return f"{name}({', '.join(texts)})"


def _argument(kind: str, value: int, bits: int, memory: Memory) -> str:
    if kind in ("d", "i"):
        signed = _signed(value, 32 if kind == "d" else bits)
        return "AT_FDCWD" if kind == "d" and signed == AT_FDCWD else str(signed)
    if kind == "p":
        text = memory.string(value) if value else None
        return "NULL" if not value else hex(value) if text is None else text
    if kind == "m":
        return f"0{value & 0o177777:o}"
    if kind == "O":
        return open_flags(value & 0xFFFFFFFF)
    if kind == "P":
        names = [text for bit, text in _PROT if value & bit]
        return "|".join(names) or "PROT_NONE"
    if kind == "S":
        return signals.name(value) if 0 < value < 65 else str(value)
    return hex(value)


def _signed(value: int, bits: int) -> int:
    """A register as a signed number; descriptors and flags are ints, so the upper half is
    ignored."""
    value &= (1 << bits) - 1
    if value >> 31 == 1:  # a negative int without sign extension
        return value - (1 << 32)
    return value - (1 << bits) if value >> (bits - 1) else value


def open_flags(flags: int) -> str:
    """``O_RDWR|O_CLOEXEC``."""
    names, rest = [_ACCESS[flags & 3]], flags & ~3
    for bit, name in _OPEN:
        if rest & bit == bit:
            names.append(name)
            rest &= ~bit
    return "|".join([*names, hex(rest)] if rest else names)


class Memory:
    """The memory of a process that is waiting for us."""

    __slots__ = ("fd", "pid")

    def __init__(self, pid: int) -> None:
        self.pid, self.fd = pid, -1

    def string(self, address: int) -> str | None:
        """The text at an address in quotes, at most `TEXT` bytes; None if it cannot be read."""
        try:
            if self.fd < 0:
                self.fd = posix.open(f"/proc/{self.pid}/mem", O_RDONLY | O_CLOEXEC)
            data = b""
            while b"\0" not in data and len(data) < TEXT:
                # One page at a time, because the next one may be unmapped.
                size = min(TEXT - len(data), _PAGE - address % _PAGE)
                piece = posix.pread(self.fd, size, address)
                if not piece:
                    break
                data += piece
                address += len(piece)
        except (OSError, OverflowError):
            return None
        text, end, _ = data.partition(b"\0")
        return show(text.decode("utf-8", "backslashreplace")) + ("" if end else "...")

    def close(self) -> None:
        """Release the descriptor."""
        if self.fd >= 0:
            posix.close(self.fd)
            self.fd = -1
