"""A `criu swrk` process: spawn it, send requests over its socket, answer its notifications, reap
it."""

from __future__ import annotations

import posix
from errno import ECONNRESET, EMSGSIZE, EPIPE
from fcntl import F_DUPFD_CLOEXEC, fcntl

from pyrunc import fs, interpreter
from pyrunc.checkpoint import messages, protobuf
from pyrunc.errors import PyruncError, SysError, brief, errno_text
from pyrunc.launch.ending import has_ended
from pyrunc.native import processes, sockets
from pyrunc.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrunc.checkpoint.protobuf import Fields
    from pyrunc.log import Log

    # A notification's name, the pid it concerns (0: none), and the descriptor sent with it (-1:
    # none).
    Handler = Callable[[str, int, int], object]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OLDEST = 31500  # 3.15: external pid namespaces, "status-ready"
SOCKET = 3  # the number of the socket in criu
ARGV = ["criu", "swrk", str(SOCKET)]
EXTRA = SOCKET + 1  # the first of the additional descriptors in criu
_ABOVE = 100  # descriptors are first moved above the numbers they will get
_REPLY = 64 << 10
_SO_SNDBUFFORCE = 32  # the socket module has no name for it
_OVERHEAD = 4096  # the kernel's own data beside a packet
_LOOK_MS = 500  # between two checks for a signal
_END_MS = 10_000
_SIGNALS = range(1, 65)
_UNSETTABLE = (9, 19, 32, 33)  # SIGKILL, SIGSTOP, and two that libc reserves for its threads
_TYPE, _REGULAR = 0o170000, 0o100000  # of st_mode (inode(7))
HARMLESS = " rlimit: "  # in CRIU's first error, which it reports without CAP_SYS_RESOURCE
_FEATURES = {
    "mem_track": "to track memory changes (--pre-dump, --parent-path)",
    "lazy_pages": "userfaultfd (--lazy-pages)",
}


def find() -> str:
    """The path of the criu program. Raises PyruncError if there is none."""
    for directory in (fs.getenv("PATH") or PATH).split(":"):
        path = f"{directory or '.'}/criu"
        try:
            regular = posix.stat(path).st_mode & _TYPE == _REGULAR
        except OSError:
            continue
        if regular and posix.access(path, posix.X_OK):
            return path
    raise PyruncError("criu: not found in $PATH; checkpoint and restore need CRIU 3.15 or later")


def environment() -> dict[bytes, bytes]:
    """The environment of criu: ours, with a PATH."""
    return {b"PATH": fs.encode(PATH), **posix.environ}


class Criu:
    """One criu process, from spawn to exit."""

    __slots__ = ("check", "group", "log", "pid", "sock", "version")

    def __init__(self, log: Log, check: Callable[[], None]) -> None:
        """``check`` is called while we wait for criu; it raises to abort the wait."""
        self.log, self.check = log, check
        self.sock, self.pid, self.version = -1, 0, 0
        self.group = False  # it leads a process group

    def spawn(self, stdio: Sequence[int], extra: Sequence[int] = ()) -> None:
        """Spawn it with three descriptors as stdio, and ``extra`` as EXTRA and up. Raises
        PyruncError, OSError."""
        path = find()
        self.sock, theirs = socketpair()
        moved: list[int] = []
        try:
            wanted = (*stdio, theirs, *extra)
            moved += [fcntl(fd, F_DUPFD_CLOEXEC, _ABOVE + len(wanted)) for fd in wanted]
            # Callers leave descriptors open that we must not pass on.
            actions: list[tuple[int, ...]] = [
                (posix.POSIX_SPAWN_CLOSE, fd) for fd in _open_descriptors() if fd not in moved
            ]
            actions += [(posix.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(moved)]
            self.pid = posix.posix_spawn(
                path,
                ARGV,
                environment(),
                file_actions=actions,
                setpgroup=0,  # ^C is for us: a killed criu may leave its code in the processes
                setsigmask=(),
                setsigdef=[number for number in _SIGNALS if number not in _UNSETTABLE],
            )
            self.group = True
        finally:
            for fd in (theirs, *moved):
                fs.close(fd)  # with the server's end open here, criu's exit would not be an EOF

    # -- requests ----------------------------------------------------------------------------------

    def prepare(self, features: Sequence[str] = ()) -> None:
        """Check the version, and features of the kernel. Raises PyruncError if one is too old or
        missing."""
        found = self.ask({"type": messages.VERSION, "keep_open": True}).get("version") or {}
        self.version = found.get("major", 0) * 10000 + found.get("minor", 0) * 100 + found.get("sublevel", 0)
        if found.get("gitid"):
            self.version = self.version // 100 * 100 + 100  # built between two releases
        self.log.debug(f"criu: version {self.version}")
        if self.version < OLDEST:
            name = f"{found.get('major', 0)}.{found.get('minor', 0)}"
            raise PyruncError(f"criu: version {name} is too old; checkpoint and restore need 3.15 or later")
        if features:
            wanted = dict.fromkeys(features, True)
            answer = self.ask({"type": messages.FEATURE_CHECK, "keep_open": True, "features": wanted})
            there = answer.get("features") or {}
            for name in features:
                if not there.get(name):
                    raise PyruncError(f"criu: this kernel or CRIU lacks what is needed {_FEATURES[name]}")

    def ask(self, request: Fields, notified: Handler | None = None, until: str = "") -> Fields:
        """Send a request; returns its reply, or {} at the notification ``until``, which `go_on`
        answers.

        Raises CriuError if criu fails, SysError, and what ``notified`` raises.
        """
        self.send(request)
        return self.converse(request["type"], notified, until)

    def go_on(self, kind: int, notified: Handler | None) -> Fields:
        """Answer the notification that `ask` stopped at; returns the reply.  Raises as `ask`
        does."""
        self.send({"type": messages.NOTIFY, "notify_success": True})
        return self.converse(kind, notified, "")

    def converse(self, kind: int, notified: Handler | None, until: str) -> Fields:
        """Answer notifications until the reply comes."""
        while True:
            reply, fd = self.receive()
            try:
                if reply.get("type") != messages.NOTIFY:
                    if not reply.get("success"):
                        raise refusal(reply)
                    if reply.get("type") != kind:
                        raise CriuError(f"criu: a reply of type {reply.get('type')} to type {kind}")
                    return reply
                told = reply.get("notify") or {}
                script: str = told.get("script", "")
                self.log.debug(f"criu: {brief(script)}")
                if notified is not None:
                    notified(script, told.get("pid", 0), fd)
            finally:
                if fd >= 0:
                    fs.close(fd)
            if until and script == until:
                return {}
            self.send({"type": messages.NOTIFY, "notify_success": True})

    def send(self, request: Fields) -> None:
        """Send a request as one packet. Raises PyruncError."""
        data = protobuf.encode(messages.REQUEST, request)
        try:
            try:
                sockets.send(self.sock, data)
            except OSError as error:  # there is an entry for each bind mount
                if error.errno != EMSGSIZE:
                    raise
                make_room(self.sock, len(data))
                sockets.send(self.sock, data)
        except OSError as error:
            raise self.broken("send", error) from error

    def receive(self) -> tuple[Fields, int]:
        """Receive a packet and the descriptor sent with it, or -1. Raises PyruncError."""
        data, fd, over = b"", -1, False
        while True:
            try:
                data, fd = sockets.receive_descriptor(self.sock, _REPLY, 0 if over else _LOOK_MS)
                break
            except (TimeoutError, InterruptedError, BlockingIOError):
                self.check()
                if over:
                    break
                # EOF is not enough: processes that a killed criu was restoring hold its end of the
                # socket.
                over = has_ended(self.pid)
            except OSError as error:
                raise self.broken("receive", error) from error
        try:
            self.check()
            if not data:
                raise self.ended()
            return _decoded(data), fd
        except BaseException:
            if fd >= 0:
                fs.close(fd)
            raise

    def broken(self, call: str, error: OSError) -> PyruncError:
        """The error for a failed call on the socket; `ended` would wait for a criu that waits for us."""
        if self.pid and error.errno not in (EPIPE, ECONNRESET) and not has_ended(self.pid):
            return SysError("criu", call, error.errno or 0)
        return self.ended()

    def ended(self) -> CriuError:
        """The error for a criu that ended without a reply."""
        status = self.wait(clean=False)
        if posix.WIFSIGNALED(status):
            from pyrunc.signals import described

            error = CriuError(f"criu was killed by {described(posix.WTERMSIG(status))}")
        else:
            error = CriuError(f"criu ended without a reply (exit status {posix.WEXITSTATUS(status)})")
        error.ended = True
        return error

    # -- the end -----------------------------------------------------------------------------------

    def finish(self) -> int:
        """Close the socket, which ends criu, and return its wait status. Raises PyruncError if it
        does not end."""
        if self.sock >= 0:
            fs.close(self.sock)
            self.sock = -1
        return self.wait() if self.pid else 0

    def wait(self, *, clean: bool = True) -> int:
        """The wait status of a criu that is about to exit; if it does not do so in a ``clean`` way,
        its children must be killed. Raises PyruncError if it does not exit."""
        pid = self.pid
        if not pid:
            return 0
        for _ in range(_END_MS // _LOOK_MS):
            try:
                processes.await_end(pid, _LOOK_MS)
            except (TimeoutError, InterruptedError):
                continue
            except ChildProcessError:
                pass
            break
        else:
            raise CriuError(f"criu (pid {pid}) did not exit")
        if self.group and not clean:
            fs.ignore(posix.killpg, pid, SIGKILL)  # before the pid can be reused
        self.pid = 0
        try:
            return posix.waitpid(pid, 0)[1]
        except ChildProcessError:
            return 0

    def kill(self) -> None:
        """Kill it in any state; idempotent. Raises PyruncError if it does not end."""
        if self.pid:
            fs.ignore(posix.killpg if self.group else posix.kill, self.pid, SIGKILL)
        self.finish()


class CriuError(PyruncError):
    """CRIU failed while it worked on a request; its log may contain the reason, unless it has
    ``ended`` before its reply."""

    ended = False


def refusal(reply: Fields) -> CriuError:
    """The error for a reply that reports a failure."""
    text = (reply.get("cr_errmsg") or "").strip()
    text = "" if HARMLESS in text else brief(text)
    number = reply.get("cr_errno") or 0
    reason = ": ".join(part for part in (text, errno_text(number) if number > 0 else "") if part)
    return CriuError(f"criu: {reason or 'failed'}")


def _decoded(data: bytes) -> Fields:
    """A message of criu. Raises CriuError."""
    try:
        return protobuf.decode(messages.RESPONSE, data)
    except ValueError as error:
        raise CriuError(f"criu: unreadable message: {error}") from error


def socketpair() -> tuple[int, int]:
    """Both ends of a socket for criu.  Raises SysError."""
    try:
        return sockets.socketpair()
    except OSError as error:
        raise SysError("criu", "socketpair", error.errno or 0) from error


def make_room(sock: int, size: int) -> None:
    """Let a socket send packets of this size, also if net.core.wmem_max is less. Raises OSError."""
    interpreter.complete()
    from socket import SOL_SOCKET, socket

    with socket(fileno=posix.dup(sock)) as same:
        same.setsockopt(SOL_SOCKET, _SO_SNDBUFFORCE, size + _OVERHEAD)


def _open_descriptors() -> list[int]:
    """Our descriptors above stdio. Raises OSError."""
    found = []
    for name in fs.names("/proc/self/fd"):
        fd = int(name)
        if fd > 2:
            try:
                posix.fstat(fd)
            except OSError:
                continue  # the descriptor of the listing itself
            found.append(fd)
    return found
