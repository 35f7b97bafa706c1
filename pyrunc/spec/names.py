"""Names with rules of their own: container ids, users, capabilities, rlimits, sysctls, CPU lists,
JSON pointers."""

from __future__ import annotations

from pyrunc.errors import UsageError, show

# The position is the bit number (capability.h).
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)

# CLONE_NEW* of clone(2) by the types of linux.namespaces (config-linux.md, Namespaces)
CLONE_FLAGS = {
    "time": 0x00000080,
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "network": 0x40000000,
}

# The position is the resource number (asm-generic/resource.h; the same on x86_64 and arm64).
RLIMITS = (
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
)

# The id becomes the name of a directory and a cgroup (255 bytes) and, between `pyrunc-` and
# `.scope`, the name of a systemd unit (also 255 bytes).
ID_MAX = 242

LIST_MAX = 65536  # characters of a CPU list; a list of all 8192 CPUs that a kernel supports takes 40,000
PATH_MAX = 4096  # with the NUL (linux/limits.h); every call answers ENAMETOOLONG to a longer path

UID_MAX = 0xFFFFFFFE  # (uid_t)-1 means "do not change" to setresuid(2) and chown(2)


def valid_id(id: str) -> str | None:
    """Why ``id`` cannot be a container id, or None if it can:
    ``[A-Za-z0-9_+][A-Za-z0-9_+.-]{0,241}``.

    A leading "." would hide the directory, and "." and ".." are not names; a leading "-" would look
    like an option.
    """
    if not id:
        return "container id cannot be empty"
    if len(id) > ID_MAX:
        return f"invalid container id: longer than {ID_MAX} characters"
    for char in id:
        if not (char.isascii() and (char.isalnum() or char in "_+.-")):
            return f"invalid container id {show(id)}: only letters, digits and _ + . - are allowed"
    if id[0] in ".-":
        return f'invalid container id {show(id)}: it cannot begin with "{id[0]}"'
    return None


def parse_user(text: str) -> tuple[int, int | None]:
    """``UID[:GID]`` -> (uid, gid or None). Raises UsageError.

    Digits only: no names, signs, blanks or empty parts, and nothing that wraps around to another id
    (CVE-2026-30892, CVE-2024-40635; peers ran ``4294967296`` and the empty string as root).
    """
    uid, colon, gid = text.partition(":")
    try:
        return parse_id(uid), parse_id(gid) if colon else None
    except UsageError:
        raise UsageError(f"{show(text)}: expected UID or UID:GID, numbers from 0 to {UID_MAX}") from None


def parse_id(text: str) -> int:
    """Parse a user or group id in decimal digits, as strictly as `parse_user`. Raises
    UsageError."""
    if text.isascii() and text.isdigit() and len(text) <= 20:
        number = int(text)
        if number <= UID_MAX:
            return number
    raise UsageError(f"{show(text)}: expected a number from 0 to {UID_MAX}")


def sysctl_path(key: str) -> str:
    """A sysctl key as the path below /proc/sys, e.g. ``net/ipv4/ip_forward``; ``""`` if it is
    invalid.

    The first separator decides (sysctl.d(5)): after a "/" dots belong to names; after a "." a "/"
    represents a dot in a name, as in ``net.ipv4.conf.eth0/100.rp_filter``. A path cannot leave
    /proc/sys: "..", "." and empty names are refused in both forms.
    """
    for char in key:
        if char in "./":
            if char == ".":
                key = key.translate({0x2E: "/", 0x2F: "."})
            break
    parts = key.split("/") if len(key) < PATH_MAX else ()
    if len(parts) < 2 or "" in parts or "." in parts or ".." in parts or "\n" in key:
        return ""
    return key


def cpu_list(text: str) -> bool:
    """Whether ``text`` is a list of numbers and ranges as cpuset.cpus and cpuset.mems take it:
    ``0-3,7``."""
    if len(text) > LIST_MAX:
        return False
    for part in text.strip(" \t\n").split(","):  # including the blanks that the kernel strips
        first, dash, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and len(first) < 7):
            return False
        if dash and not (last.isascii() and last.isdigit() and len(last) < 7 and int(first) <= int(last)):
            return False
    return True


def listed(text: str, highest: int) -> list[int]:
    """The numbers of a list such as ``0-3,7``, without duplicates, in order.

    [] if the list is invalid or has a number above ``highest``.
    """
    bits = 0
    if not cpu_list(text):
        return []
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        end = int(last if dash else first)
        if end > highest:
            return []
        bits |= (2 << end) - (1 << int(first))
    return [number for number in range(bits.bit_length()) if bits >> number & 1]


def version(text: str) -> tuple[int, int, int] | None:
    """Major, minor and patch of a SemVer 2.0.0 version, or None if it is invalid."""
    core, plus, build = text.partition("+")
    core, dash, pre = core.partition("-")
    numbers = core.split(".")
    if len(numbers) != 3 or not all(_number(n) for n in numbers):
        return None
    if plus and not all(_label(part) for part in build.split(".")):
        return None
    parts = pre.split(".") if dash else []
    if not all(_label(part) and (part == "0" or part[0] != "0" or not part.isdigit()) for part in parts):
        return None
    return int(numbers[0]), int(numbers[1]), int(numbers[2])


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10 and (text == "0" or text[0] != "0")


def _label(text: str) -> bool:
    return text.isascii() and text.replace("-", "0").isalnum()


def escape(key: str) -> str:
    """Escape a key for a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1") if "~" in key or "/" in key else key
