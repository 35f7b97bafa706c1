"""linux.seccomp on the host: compile a profile to BPF, cache it, send the listener to its agent.

libseccomp compiles profiles in a sandboxed child (native/shim/sandbox.h), because it is not
designed for hostile profiles (docs/adr/0018-profile-compiler.md). spec.rules_linux limits their
size before.

Programs are cached because engines send the same profile for every container, and libseccomp needs
20 ms to compile it.  A cached program restricts a container, so the cache is used only if nobody
else can write to its directory, and its key is a hash of all inputs.
"""

from __future__ import annotations

import posix
from _struct import Struct, pack
from errno import E2BIG, EAGAIN, ECHILD, EDOM, EINTR, EINVAL, ENOMEM, EPIPE, ESRCH, ETIMEDOUT
from posix import O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY

from pyrunc import SPEC_VERSION, build, fs
from pyrunc.errors import ConfigError, Problem, PyruncError, SysError, errno_text, show
from pyrunc.jsontext import dumps
from pyrunc.native import libseccomp, processes, sockets
from pyrunc.plan.security import SECCOMP_FLAGS, filter_flags, notifies
from pyrunc.signals import SIGKILL, SIGXCPU

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.types import Seccomp

POINTER = "/linux/seccomp"

# SECCOMP_RET_* of <linux/seccomp.h>, equal to libseccomp's SCMP_ACT_*
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
EPERM, ENOSYS = 1, 38  # EPERM is the default of errnoRet (config-linux.md)

OPERATORS = {  # enum scmp_compare
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}

NO_PROFILE: Seccomp = {"defaultAction": "SCMP_ACT_ALLOW"}  # for a container without a filter
NEW_LISTENER = 1 << 3

PROGRAM_MAX = 4096 * 8  # BPF_MAXINSNS instructions

# native/shim/seccomp.h
_HEAD = Struct("8I")  # struct pr_seccomp_head
_RULE = Struct("IIII")  # struct pr_seccomp_rule
_ARG = Struct("IIQQ")  # struct pr_seccomp_arg
ARCH, RULE, DEATH, NO_ANSWER = 2, 3, 5, 7  # stages of pr_seccomp_compile that failed
# native/shim/sandbox.h
CPU_SECONDS = 5
MEMORY = "256 MiB"

# The cache.  FORMAT is part of the hash: increment it if the same input compiles differently.
FORMAT = 2
MAGIC = b"pyruncBPF\x00\x00\x01"
CACHE_MAX = 64  # programs; when the cache is full, all are dropped
_DIGEST = 32


class FlatProfile:
    """A profile in the format of native/shim/seccomp.h."""

    __slots__ = ("archs", "args", "default", "enosys", "names", "rules")

    def __init__(self, profile: Seccomp, archs: list[int]) -> None:
        self.default = encode_action(profile["defaultAction"], profile.get("defaultErrnoRet"))
        # A profile that allows by default also allows new calls; a tracer handles them itself.
        permissive = profile["defaultAction"] in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
        self.enosys = not permissive and self.default != ACTIONS["SCMP_ACT_ERRNO"] | ENOSYS
        self.archs = pack(f"{len(archs)}I", *archs)
        rules, names, args = [], [], []
        for rule in profile.get("syscalls", ()):
            conditions = rule.get("args", ())
            used = [condition["index"] for condition in conditions]
            # A libseccomp rule allows one condition per argument; as in runc, several mean "or".
            either = len(set(used)) != len(used)
            action = encode_action(rule["action"], rule.get("errnoRet"))
            rules.append(_RULE.pack(action, len(rule["names"]), len(conditions), either))
            names += rule["names"]
            for condition in conditions:
                value, second = condition["value"], condition.get("valueTwo", 0)
                args.append(_ARG.pack(condition["index"], OPERATORS[condition["op"]], value, second))
        self.rules = b"".join(rules)
        self.names = "\0".join(names).encode("utf-8") + b"\0" if names else b""
        self.args = b"".join(args)

    def encode(self, version: int) -> bytes:
        """Encode struct pr_seccomp_head and the data that follows it, which is also the cache key.

        It contains all inputs of the program, with the sizes first, so that it is unambiguous.
        ``version`` is the version of libseccomp.
        """
        sizes = (len(self.args), len(self.rules), len(self.archs), len(self.names))
        head = _HEAD.pack(FORMAT, version, self.default, self.enosys, *sizes)
        return b"".join((head, self.args, self.rules, self.archs, self.names))


def encode_action(name: str, number: int | None) -> int:
    if name in WITH_ERRNO:
        return ACTIONS[name] | (EPERM if number is None else number & 0xFFFF)
    return ACTIONS[name]


def compile_filter(profile: Seccomp, *, cache_dir: str = "") -> tuple[bytes, int, bool]:
    """Compile ``linux.seccomp``, which spec.validate has checked.

    Returns the program (``struct sock_filter[]``), its SECCOMP_FILTER_FLAG_* without NEW_LISTENER,
    and whether it notifies.  ``cache_dir`` is created if it does not exist; "" disables the cache.

    Raises ConfigError if libseccomp does not support an architecture or a rule, or if the program
    has more than 4096 instructions; PyruncError if a limit is exceeded or libseccomp crashes;
    InterruptedError.
    """
    archs = _architectures(profile)
    encoded = FlatProfile(profile, archs).encode(libseccomp.version())
    flags, listener = filter_flags(profile), notifies(profile)
    directory = _open_cache(cache_dir) if cache_dir else -1
    if directory < 0:
        return _compile(encoded, profile, archs), flags, listener
    try:
        digest = _digest(pack("q", libseccomp.arch(b"")) + encoded)
        program = _recall(directory, digest)
        if not program:
            program = _compile(encoded, profile, archs)
            _remember(directory, digest, program)
    finally:
        posix.close(directory)
    return program, flags, listener


def _architectures(profile: Seccomp) -> list[int]:
    """libseccomp's tokens of the non-native architectures, without duplicates.

    Raises ConfigError.
    """
    native = libseccomp.arch(b"")
    tokens: list[int] = []
    for index, name in enumerate(profile.get("architectures", ())):
        try:
            token = libseccomp.arch(_arch_name(name))
        except OSError:
            expected = f"an architecture of libseccomp {build.libseccomp()}"
            raise ConfigError([Problem(f"{POINTER}/architectures/{index}", expected, show(name))]) from None
        if token != native and token not in tokens:
            tokens.append(token)
    return tokens


def _arch_name(name: str) -> bytes:
    """libseccomp's name of SCMP_ARCH_*."""
    return name.removeprefix("SCMP_ARCH_").lower().encode("utf-8")


def _compile(encoded: bytes, profile: Seccomp, archs: list[int]) -> bytes:
    """Compile the program in the child.  Raises the errors of `compile_filter`."""
    try:
        return libseccomp.compile(encoded, PROGRAM_MAX)
    except libseccomp.Failure as error:
        raise _failed(error, profile, archs) from error


def _failed(error: libseccomp.Failure, profile: Seccomp, archs: list[int]) -> PyruncError | OSError:
    """The error that the child reported, or the error for its death."""
    number, stage = error.errno or 0, error.stage
    if stage == NO_ANSWER:
        return SysError(POINTER, str(error.strerror), number).within("compiling the profile")
    if stage < DEATH and number == ENOMEM:
        return _death(f"compiling the profile takes more memory than it may ({MEMORY})", limit=True)
    if stage < DEATH:
        return ConfigError([_problem(error, profile, archs)])
    if number == EINTR:
        return InterruptedError(EINTR, "compiling the profile")
    if number == ECHILD:
        return _ended(error.index)
    if number == ETIMEDOUT:
        return _death("compiling the profile did not end in time")
    return _death("libseccomp gave no valid answer for the profile")


def _ended(status: int) -> PyruncError:
    """The error for a child that did not answer, by its wait status."""
    if not posix.WIFSIGNALED(status):
        return _death(f"compiling the profile ended with status {posix.WEXITSTATUS(status)}")
    number = posix.WTERMSIG(status)
    if number == SIGXCPU:
        return _death(f"compiling the profile takes more than {CPU_SECONDS} s of processor time", limit=True)
    from pyrunc import signals

    how = "was killed" if number == SIGKILL else "crashed"
    return _death(f"libseccomp {how} while compiling the profile ({signals.name(number)})")


def _death(what: str, *, limit: bool = False) -> PyruncError:
    hint = "; use fewer conditions on arguments, or fewer architectures" if limit else ""
    return PyruncError(f"{POINTER}: {what}{hint}")


def _problem(error: libseccomp.Failure, profile: Seccomp, archs: list[int]) -> Problem:
    """The part of the profile that libseccomp rejected; the child's indexes are not trusted."""
    number, stage, index, name = error.errno or 0, error.stage, error.index, error.name
    rules = profile.get("syscalls", ())
    if stage == ARCH and 0 <= index < len(archs):
        expected = (
            "architectures of this machine's byte order" if number == EDOM else "architectures that libseccomp takes"
        )
        return Problem(f"{POINTER}/architectures", expected, f"{errno_text(number)} for token {archs[index]:#x}")
    if stage == RULE and 0 <= index < len(rules) and 0 <= name < len(rules[index]["names"]):
        rule = rules[index]
        found = f"{errno_text(number)} for {show(rule['names'][name])} with {rule['action']}"
        return Problem(f"{POINTER}/syscalls/{index}", "a rule that libseccomp and this kernel accept", found)
    if number == E2BIG:
        return Problem(POINTER, f"a program of at most {PROGRAM_MAX // 8} instructions", "a longer one")
    return Problem(POINTER, "a profile that libseccomp accepts", errno_text(number))


def usable_architectures() -> list[str]:
    """The architectures that libseccomp and this machine support, for `features`.

    Raises MemoryError.
    """
    from pyrunc.spec.schema import SECCOMP_ARCHES

    found = []
    for name in SECCOMP_ARCHES:
        try:
            token = libseccomp.arch(_arch_name(name))
        except OSError:
            continue  # unknown to this libseccomp
        if libseccomp.usable(token):
            found.append(name)
    return found


def usable_flags() -> list[str]:
    """The seccomp flags that this kernel supports, for `features`."""
    with_listener = {SECCOMP_FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]: NEW_LISTENER}
    return [
        name for name, bit in SECCOMP_FLAGS.items() if not bit or libseccomp.knows_flag(bit | with_listener.get(bit, 0))
    ]


# -- cache -----------------------------------------------------------------------------------------


def cache_dir() -> str:
    """The cache directory: /run/pyrunc.seccomp for root, else below XDG_RUNTIME_DIR, or "".

    It is not below the state root, where every name is a container's id.  Both are lost at reboot.
    """
    if posix.geteuid() == 0:
        return "/run/pyrunc.seccomp"
    runtime_dir = fs.getenv("XDG_RUNTIME_DIR")
    return f"{runtime_dir}/pyrunc.seccomp" if runtime_dir.startswith("/") else ""


def _digest(data: bytes) -> bytes:
    try:
        from _blake2 import blake2b  # importing hashlib takes 3 ms, because of OpenSSL
    except ImportError:  # Debian's static library of Python 3.14 lacks it
        from _sha2 import sha256  # type: ignore[import-not-found]  # mypy knows 3.11

        return bytes(sha256(data).digest()[:_DIGEST])
    return blake2b(data, digest_size=_DIGEST).digest()


def _open_cache(path: str) -> int:
    """Open or create the cache directory; -1 if it cannot be trusted."""
    flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
    try:
        try:
            directory = posix.open(path, flags)
        except FileNotFoundError:
            directory = _make_cache(path, flags)
    except OSError:
        return -1
    try:
        found = posix.fstat(directory)
    except OSError:
        posix.close(directory)
        return -1
    if found.st_uid == posix.geteuid() and found.st_mode & 0o7777 == 0o700:
        return directory
    posix.close(directory)
    return -1


def _make_cache(path: str, flags: int) -> int:
    """Create and open the cache directory.  Raises OSError."""
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:  # another process has created it
        return posix.open(path, flags)
    directory = posix.open(path, flags)
    # Independent of the caller's umask, because later callers use the directory.
    fs.ignore(posix.fchmod, directory, 0o700)
    return directory


def _recall(directory: int, digest: bytes) -> bytes:
    """Read a program from the cache; empty if it does not exist or is not as we write it."""
    try:
        fd = posix.open(digest.hex(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, dir_fd=directory)
    except OSError:
        return b""
    try:
        found = posix.fstat(fd)
        if found.st_mode != 0o100600 or found.st_uid != posix.geteuid() or found.st_nlink != 1:
            return b""
        data = fs.read_fd(fd, len(MAGIC) + 4 + _DIGEST + PROGRAM_MAX)
    except OSError:
        return b""
    finally:
        posix.close(fd)
    program = data[len(MAGIC) + 4 + _DIGEST :]
    if not program or len(program) % 8 or data[: -len(program)] != _header(digest, program):
        return b""
    return program


def _header(digest: bytes, program: bytes) -> bytes:
    """Magic, length, and a hash of input and program: a truncated or renamed file is rejected."""
    return MAGIC + pack("I", len(program)) + _digest(digest + program)


def _remember(directory: int, digest: bytes, program: bytes) -> None:
    """Cache a program; a missing cache is not an error."""
    try:
        names = posix.listdir(directory)
        if len(names) >= CACHE_MAX:
            for name in names:
                fs.ignore(lambda name=name: posix.unlink(name, dir_fd=directory))
        fs.replace_file(digest.hex(), _header(digest, program) + program, 0o600, directory)
    except OSError:
        pass


# -- listener --------------------------------------------------------------------------------------


def send_listener(pidfd: int, number: int, profile: Seccomp, pid: int, status: str) -> None:
    """Take the notify descriptor ``number`` from init and send it to the agent at ``listenerPath``.

    ``status`` is the container's state as JSON, with the status "creating".  Each call sends the
    container process state (config-linux.md) over its own connection, with the descriptor in the
    first message.  Raises SysError, also if the agent does not receive it within ten seconds.
    """
    listener = take_listener(pidfd, number, profile)
    try:
        hand_over(listener, profile, pid, status)
    finally:
        posix.close(listener)


def take_listener(pidfd: int, number: int, profile: Seccomp) -> int:
    """Take the notify descriptor ``number`` from init.

    Raises SysError, also if the profile has no listenerPath.
    """
    path = profile.get("listenerPath", "")
    if not path:
        raise SysError(POINTER, "pidfd_getfd", EINVAL, detail="init reports a listener, but the profile has none")
    try:
        listener = processes.pidfd_getfd(pidfd, number)
    except OSError as error:
        hint = "container init was killed" if error.errno == ESRCH else ""
        raise SysError(f"{POINTER}/listenerPath", "pidfd_getfd", error.errno or 0, value=path, hint=hint) from error
    # The container may control the process that sent the number: pass on notify descriptors only.
    if posix.readlink(f"/proc/self/fd/{listener}") != "anon_inode:seccomp notify":
        posix.close(listener)
        raise SysError(POINTER, "pidfd_getfd", EINVAL, detail="init reports a file that is not a notify descriptor")
    return listener


def hand_over(listener: int, profile: Seccomp, pid: int, status: str) -> None:
    """Send the notify descriptor of process ``pid`` to the agent (see `send_listener`).

    Raises SysError.
    """
    path = profile.get("listenerPath", "")
    message = _process_state(profile, pid, status)
    try:
        sock = sockets.connect(fs.encode(path))
    except OSError as error:
        hint = "failed to connect with seccomp agent"  # scripts search for these words of runc
        raise SysError(f"{POINTER}/listenerPath", "connect", error.errno or 0, value=path, hint=hint) from error
    try:
        sent = sockets.send_descriptor(sock, message, listener)
        while sent < len(message):  # large annotations may need several writes
            more = sockets.send(sock, message[sent:])
            if not more:
                raise OSError(EPIPE, "sendmsg")
            sent += more
    except OSError as error:
        number = ETIMEDOUT if error.errno == EAGAIN else error.errno or 0
        raise SysError(f"{POINTER}/listenerPath", "sendmsg", number, value=path) from error
    finally:
        posix.close(sock)


def _process_state(profile: Seccomp, pid: int, status: str) -> bytes:
    """The container process state; ``status`` is inserted as JSON."""
    head = dumps({"ociVersion": SPEC_VERSION, "fds": ["seccompFd"], "pid": pid})
    metadata = profile.get("listenerMetadata")
    middle = f',"metadata":{dumps(metadata)}' if metadata else ""
    return f'{head[:-1]}{middle},"state":{status}}}'.encode()
