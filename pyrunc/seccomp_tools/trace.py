"""Run a container that notifies us of every system call, and let each call proceed.

Three processes are needed, because a container must not outlive the process that answers. Without a
listener each of its calls fails with ENOSYS, even exit(2), so it could only spin.

    the tracer     has the listener, answers, prints; the parent of the other two
    the container  an ordinary `run` (contained.py); handles the terminal, signals and the exit status
    the guard      waits for the tracer's end, and deletes the container by force unless the tracer did

They are forks instead of separate programs because all three need the command line. Python has one
thread at that moment, and none of it enters the container (docs/adr/0002-exec-first.md).
"""

from __future__ import annotations

import posix
import time
from errno import EPIPE
from select import POLLIN, poll

from pyrunc import log, state
from pyrunc.container import lifecycle
from pyrunc.errors import PyruncError, SysError
from pyrunc.launch.channel import signal_descriptor
from pyrunc.native import processes, sockets
from pyrunc.seccomp_tools import calls, contained, decode
from pyrunc.seccomp_tools.listener import Listener
from pyrunc.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from pyrunc.launch.run import RunOptions
    from pyrunc.seccomp_tools.listener import Notification
    from pyrunc.seccomp_tools.profile import Filter, Verdict

    class Sink(Protocol):
        """What to do with the calls."""

        def seen(self, call: Notification) -> None:
            """Handle one call while its process waits for the answer. Raises PyruncError."""


SIGCHLD, SIGWINCH = 17, 28
SI_KERNEL = 0x80
_MESSAGE = 8192
_AT_ONCE = 64  # calls handled before other events are checked
_SETTLE_MS = 5000


class Tracer:
    """The tracer's side."""

    __slots__ = ("args", "container", "control", "error", "guard", "leash", "listener", "opts", "signals", "sink")

    def __init__(self, opts: RunOptions, args: list[str], sink: Sink) -> None:
        self.opts, self.args, self.sink = opts, args, sink
        self.container = self.guard = 0  # pids
        self.control = self.leash = self.signals = -1
        self.listener: Listener | None = None
        self.error = ""

    def run(self) -> int:
        """Run the program to its end; returns its exit status, 128 + n for signal n. Raises
        PyruncError.

        Leaves nothing of the container behind.
        """
        try:
            self.fork()
            code = self.serve()
        except BaseException:
            self.delete()
            raise
        finally:
            self.close()
        if self.error:
            raise PyruncError(self.error)
        return code

    # -- processes ---------------------------------------------------------------------------------

    def fork(self) -> None:
        """Start the guard first: from then on the container cannot outlive us unattended. Raises
        SysError, OSError."""
        self.control, theirs = sockets.socketpair()
        watched, self.leash = posix.pipe2(posix.O_CLOEXEC)
        self.guard = posix.fork()
        if not self.guard:
            leave(lambda: guard(watched, self.opts))
        posix.close(watched)
        self.container = posix.fork()
        if not self.container:
            posix.close(self.leash)
            posix.close(self.control)
            leave(lambda: contained.run(self.opts, theirs, self.args))
        posix.close(theirs)
        self.signals = signal_descriptor()

    def delete(self) -> None:
        """After an error: kill the container and remove what exists of it."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        if self.container:
            store = state.Store(state.root_dir(self.opts.root))
            lifecycle.delete_by_force(store, self.opts.id, self.opts.log)
            # It notices and restores the terminal; one still in setup has been signalled to undo
            # it.
            try:
                processes.await_end(self.container, _SETTLE_MS)
            except OSError:
                posix.kill(self.container, SIGKILL)
            posix.waitpid(self.container, 0)
            lifecycle.delete_by_force(store, self.opts.id, self.opts.log)
            self.container = 0

    def close(self) -> None:
        """Release everything; the guard exits without doing anything."""
        for fd in (self.control, self.signals):
            if fd >= 0:
                posix.close(fd)
        if self.listener is not None:
            self.listener.close()
        if self.guard:
            try:
                posix.write(self.leash, b".")
            except OSError:
                pass  # it was killed
            posix.waitpid(self.guard, 0)
        if self.leash >= 0:
            posix.close(self.leash)

    # -- the loop ----------------------------------------------------------------------------------

    def serve(self) -> int:
        """Answer calls until the container's process has ended. Raises PyruncError, OSError."""
        poller, pidfd = poll(), posix.pidfd_open(self.container)
        try:
            for fd in (pidfd, self.signals, self.control):
                poller.register(fd, POLLIN)
            while True:
                ready = dict(poller.poll())
                if self.listener is not None and self.listener.fd in ready:
                    self.answer(self.listener, poller)
                if self.signals in ready:
                    self.pass_on()
                if self.control in ready:
                    self.take(poller)
                if pidfd in ready:
                    return self.reap()
        finally:
            posix.close(pidfd)

    def reap(self) -> int:
        """The exit status of the container's process. Raises PyruncError if it was killed."""
        status = posix.waitpid(self.container, 0)[1]
        self.container = 0
        if not posix.WIFSIGNALED(status):
            return posix.WEXITSTATUS(status)
        store = state.Store(state.root_dir(self.opts.root))
        lifecycle.delete_by_force(store, self.opts.id, self.opts.log)
        raise PyruncError(f"the process that runs the container was killed by signal {posix.WTERMSIG(status)}")

    def take(self, poller: poll) -> None:
        """Handle a message of the container's process."""
        try:
            data, fd = sockets.receive_descriptor(self.control, _MESSAGE, 0)
        except OSError:
            data, fd = b"", -1
        if data[:1] == contained.ERROR:
            self.error = data[1:].decode("utf-8", "replace")
        elif data == contained.LISTENER and fd >= 0:
            self.listener = Listener(fd)
            poller.register(self.listener.fd, POLLIN)
        elif not data:
            poller.unregister(self.control)

    def answer(self, listener: Listener, poller: poll) -> None:
        """Let the waiting calls proceed."""
        look = poll_of(listener.fd)
        for _ in range(_AT_ONCE):
            events = look.poll(0)
            if not events:
                return
            if not events[0][1] & POLLIN:  # POLLHUP: no process uses the filter any more
                poller.unregister(listener.fd)
                listener.close()
                self.listener = None
                return
            call = listener.receive()
            if call is not None:
                self.sink.seen(call)
                listener.go_on(call)

    def pass_on(self) -> None:
        """Forward signals that were sent only to us to the container's process, which passes them
        on.

        A terminal's signals reach both.
        """
        import signal

        known = signal.valid_signals()
        while (info := signal.sigtimedwait(known, 0)) is not None:
            if info.si_code != SI_KERNEL and info.si_signo not in (SIGCHLD, SIGWINCH):
                try:
                    posix.kill(self.container, info.si_signo)
                except ProcessLookupError:
                    return


def poll_of(fd: int) -> poll:
    """Poll one descriptor."""
    poller = poll()
    poller.register(fd, POLLIN)
    return poller


def leave(work: Callable[[], int | None]) -> None:
    """Run the work of a fork and exit in any case."""
    code = 1
    try:
        code = work() or 0
    finally:
        posix._exit(code)


def guard(watched: int, opts: RunOptions) -> None:
    """Wait for a message of the tracer, or its end; then delete the container by force."""
    posix.setsid()  # out of reach of a terminal's signals
    null = posix.open("/dev/null", posix.O_RDWR)
    for fd in (0, 1, 2):
        posix.dup2(null, fd)
    posix.closerange(3, watched)
    posix.closerange(watched + 1, 1 << 30)
    if not posix.read(watched, 1):
        quiet = log.Log("", "text", False)
        lifecycle.delete_by_force(state.Store(state.root_dir(opts.root)), opts.id, quiet)


# -- output ----------------------------------------------------------------------------------------


class Printer:
    """Prints one line per call."""

    __slots__ = ("as_json", "denied", "fd", "filter", "known", "listed", "names", "out", "start", "stopped", "total")

    def __init__(self, filter: Filter | None, fd: int, *, as_json: bool, denied: bool) -> None:
        """``filter``: the bundle's, or None; ``denied``: only calls that it would deny."""
        self.filter, self.fd, self.as_json, self.denied = filter, fd, as_json, denied
        self.known = list(calls.all_arches().values())
        self.names: dict[int, str] = {}  # names of processes
        self.start = time.monotonic()
        self.total = self.stopped = 0

    def seen(self, call: Notification) -> None:
        """Print the call."""
        arch = calls.arch_of(self.known, call.audit, call.number)
        name = arch.name_of(call.number) if arch else ""
        verdict = self.filter.decide(call.audit, call.number, call.args) if self.filter is not None else None
        self.total += 1
        if verdict is not None and not verdict.passes:
            self.stopped += 1
        if not self.denied or (verdict is not None and not verdict.passes):
            text = decode.words(name or f"syscall_{call.number}", call.args, arch.bits if arch else 64, call.pid)
            self.print(call, arch.name if arch else f"{call.audit:#x}", name, text, verdict)
        if name in ("execve", "execveat", "prctl"):  # the process may have another name next time
            self.names.pop(call.pid, None)

    def print(self, call: Notification, arch: str, name: str, text: str, verdict: Verdict | None) -> None:
        """One line.  Raises SysError."""
        comm = self.process(call.pid)
        seconds = time.monotonic() - self.start
        if self.as_json:
            import json

            row: dict[str, object] = {"time": round(seconds, 6), "pid": call.pid, "comm": comm, "arch": arch}
            row |= {"number": call.number, "name": name, "args": list(call.args), "text": text}
            row |= verdict.as_json() if verdict is not None else {"action": None, "errno": None, "rule": "", "why": ""}
            line = json.dumps(row)
        else:
            shown = "" if arch == calls.native().name else f" [{arch.removeprefix('SCMP_ARCH_').lower()}]"
            line = f"{seconds:10.6f} {call.pid} {comm}: {text}{shown}"
            if verdict is not None:
                line += f"  {verdict.text}  {verdict.pointer}"
        write(self.fd, line + "\n")

    def process(self, pid: int) -> str:
        """The name of a process."""
        found = self.names.get(pid)
        if found is None:
            from pyrunc import host

            if len(self.names) > 4096:
                self.names.clear()
            found = host.read(f"/proc/{pid}/comm").decode("utf-8", "replace").strip() or "?"
            self.names[pid] = found
        return found

    def summary(self) -> str:
        """The last line."""
        if self.filter is None:
            return f"{self.total} calls; the bundle has no seccomp profile"
        return f"{self.total} calls, {self.stopped} of which the profile would deny"


def create(path: str) -> int:
    """Open the file for the trace. Raises SysError."""
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_APPEND | posix.O_CLOEXEC
    try:
        return posix.open(path, flags, 0o644)
    except OSError as error:
        raise SysError("--output", "open", error.errno or 0, value=path) from error


def write(fd: int, text: str) -> None:
    """Write everything. Raises SysError if the reader is gone or the disk is full."""
    from pyrunc import fs

    try:
        fs.write_all(fd, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise SysError("--output", "write", error.errno or EPIPE) from error
