"""Hooks that run in the runtime's namespaces: prestart, createRuntime, poststart, poststop.

A hook gets the arguments of config.json, the state on stdin, and the bundle as its working
directory.  Without ``env`` in config.json it inherits our environment, as in runc and crun, because
hooks need a PATH; it never gets the container's environment (CVE-2025-23266).  Its output is kept
for the error message.
"""

from __future__ import annotations

import posix
import time
from errno import ECHILD, ELOOP, EPERM, ETIMEDOUT
from fcntl import fcntl
from posix import O_APPEND, O_CLOEXEC, O_CREAT, O_NOFOLLOW, O_WRONLY
from select import POLLIN, poll

from pyrunc import fs
from pyrunc.errors import PyruncError, SysError, hook_failure, show
from pyrunc.native import processes
from pyrunc.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyrunc.log import Log
    from pyrunc.spec.types import Hook

S_IFMT, S_IFREG, S_IFIFO = 0o170000, 0o100000, 0o010000
TAIL = 4096  # bytes of a hook's output in an error message
_TICK_MS = 500  # interval of the calls of `check` while a hook runs
_ADD_SEALS, _ALL_SEALS = 1033, 0xF  # F_ADD_SEALS; seal, shrink, grow, write (linux/fcntl.h)
_KILL_WAIT_MS = 5000  # a killed hook may be stuck in the kernel


class HookError(PyruncError):
    """A hook failed; the message contains its pointer, path, exit status and output."""


class _Program:
    """A program to run: a hook, or a helper program without ``words``."""

    __slots__ = ("args", "env", "path", "pointer", "timeout", "words")

    def __init__(self, pointer: str, raw: Hook, words: str = "") -> None:
        self.pointer, self.words = pointer, words
        self.path = raw["path"]
        self.args: list[str] = raw.get("args") or [self.path]
        self.env = raw.get("env")
        self.timeout: float | None = raw.get("timeout")

    def failed(self, call: str, number: int, value: str) -> SysError:
        """The error for a failed system call."""
        return SysError(self.pointer, ": ".join(part for part in (self.words, call) if part), number, value=value)

    def ended(self, how: str) -> HookError:
        """The error for a program that failed."""
        return HookError(": ".join(part for part in (f"{self.pointer} {show(self.path)}", self.words, how) if part))

    def environment(self) -> list[bytes]:
        """The environment of config.json, which may be empty, or else ours."""
        if self.env is None:
            return [name + b"=" + value for name, value in posix.environ.items()]
        return [fs.encode(item) for item in self.env]


class Surroundings:
    """The context of a container's hooks.

    ``check`` is called while a hook runs, and may raise to stop it.
    """

    __slots__ = ("annotations", "bundle", "check", "log")

    def __init__(self, bundle: str, log: Log, annotations: dict[str, str] | None = None) -> None:
        self.bundle, self.log, self.annotations = bundle, log, annotations or {}
        self.check: Callable[[], None] | None = None


def run_hooks(kind: str, hooks: Sequence[Hook], state: str, around: Surroundings, *, fatal: bool) -> None:
    """Run the hooks of a kind in order, with ``state`` (JSON) on stdin.

    With ``fatal``, the first failure raises PyruncError.  Otherwise failures are warnings, and all
    hooks run (poststop; runtime.md, lifecycle 13).
    """
    for index, hook in enumerate(hooks):
        pointer = f"/hooks/{kind}/{index}"
        around.log.debug(f"{pointer}: running {hook['path']}")
        try:
            _run_one(_Program(pointer, hook, hook_failure(kind, index)), state, around)
        except PyruncError as error:
            if fatal:
                raise
            around.log.warning(str(error))


def run_program(pointer: str, program: Hook) -> None:
    """Run a helper program like a hook without a state: with its ``env`` and a timeout.

    Raises HookError, which contains the output, SysError.
    """
    from pyrunc.log import Log

    _run_one(_Program(pointer, program), "", Surroundings("/", Log()))


def _run_one(program: _Program, state: str, around: Surroundings) -> None:
    sinks = _open_sinks(around.annotations)
    read_end = -1
    try:
        read_end, write_end = posix.pipe2(O_CLOEXEC | posix.O_NONBLOCK)
        try:
            posix.set_blocking(write_end, True)
            stdin = _state_file(state)
            try:
                pid = _spawn(program, around.bundle, stdin, write_end)
            finally:
                fs.close(stdin)  # ignores errors: the running hook must be waited for
        finally:
            fs.close(write_end)
        pidfd = _pidfd(pid)
        try:
            output = _Output(read_end, sinks)
            status = _wait(program, pidfd, output, around.check)
        finally:
            fs.close(pidfd)
    except OSError as error:
        raise program.failed("", error.errno or 0, program.path) from error
    finally:
        fs.close(read_end)
        for sink in sinks:
            fs.close(sink)
    if status:
        raise program.ended(_end(status) + output.text())


def _open_sinks(annotations: dict[str, str]) -> list[int]:
    """Open the files that get a copy of the hooks' output (crun's annotations).

    Raises SysError.
    """
    flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | posix.O_NONBLOCK
    paths = {annotations[key] for key in ("run.oci.hooks.stdout", "run.oci.hooks.stderr") if annotations.get(key)}
    sinks: list[int] = []
    for path in sorted(paths):
        try:
            sinks.append(posix.open(path, flags, 0o600))
            found = posix.fstat(sinks[-1])
            # The annotation may come from the author of a pod: refuse devices and files of others.
            if found.st_mode & S_IFMT not in (S_IFREG, S_IFIFO) or found.st_uid != posix.geteuid():
                raise PermissionError(EPERM, "")
        except OSError as error:
            for sink in sinks:
                posix.close(sink)
            detail = "expected a file or fifo of our own, and no symbolic link" if error.errno in (EPERM, ELOOP) else ""
            where = "/annotations/run.oci.hooks.stdout"
            raise SysError(where, "open", error.errno or 0, value=path, detail=detail) from error
    return sinks


def _state_file(state: str) -> int:
    """Create a memfd with the state: a hook that does not read it cannot block us or cause EPIPE.

    It is sealed and has mode 0400, so that the hook cannot change it.
    """
    fd = posix.memfd_create("pyrunc-state", posix.MFD_CLOEXEC | posix.MFD_ALLOW_SEALING)
    try:
        fs.write_all(fd, state.encode("ascii"))
        posix.lseek(fd, 0, 0)
        posix.fchmod(fd, 0o400)
        fcntl(fd, _ADD_SEALS, _ALL_SEALS)
    except OSError:
        posix.close(fd)
        raise
    return fd


def _spawn(program: _Program, bundle: str, stdin: int, out: int) -> int:
    """Start the program and return its pid.  Raises SysError."""
    argv, envp = [fs.encode(item) for item in program.args], program.environment()
    try:
        return processes.spawn_hook(fs.encode(program.path), argv, envp, cwd=fs.encode(bundle), stdin=stdin, out=out)
    except OSError as error:
        call = str(error.strerror)
        value = bundle if call == "chdir" else program.path
        raise program.failed(call, error.errno or 0, value) from error


def _pidfd(pid: int) -> int:
    """Open a pidfd of the hook.  Raises OSError after killing the hook."""
    try:
        return posix.pidfd_open(pid)
    except OSError:
        posix.kill(pid, SIGKILL)  # an unreaped child: the pid cannot be reused
        for _ in range(_KILL_WAIT_MS // 10):
            if posix.waitpid(pid, posix.WNOHANG)[0]:
                break
            time.sleep(0.01)
        raise


class _Output:
    """The last `TAIL` bytes of a hook's output."""

    __slots__ = ("fd", "open", "sinks", "tail")

    def __init__(self, fd: int, sinks: list[int]) -> None:
        self.fd, self.sinks, self.open = fd, sinks, True
        self.tail = b""

    def drain(self) -> None:
        """Read the available output.

        Bounded, so that an endless writer does not delay the timeout.
        """
        for _ in range(64):
            try:
                data = posix.read(self.fd, 65536)
            except BlockingIOError:
                return
            if not data:
                self.open = False
                return
            self.tail = (self.tail + data)[-TAIL:]
            for sink in self.sinks:
                fs.ignore(fs.write_all, sink, data)

    def text(self) -> str:
        """``: `` and the output as one line, or ``""``."""
        lines = [line.strip() for line in self.tail.decode("utf-8", "replace").splitlines()]
        joined = " / ".join(line for line in lines if line)
        return f": {joined}" if joined else ""


def _wait(program: _Program, pidfd: int, output: _Output, check: Callable[[], None] | None) -> int:
    """Wait for the hook and collect its output.  Returns the wait status.

    The output may stay open after the hook has exited, because of a daemon that it has started.
    Raises HookError after the timeout, OSError.
    """
    poller = poll()
    poller.register(pidfd, POLLIN)
    poller.register(output.fd, POLLIN)
    timeout = program.timeout
    deadline = time.monotonic() + timeout if timeout else None
    try:
        while True:
            wait_ms = -1 if check is None else _TICK_MS
            if deadline is not None:
                left = max(int((deadline - time.monotonic()) * 1000) + 1, 0)
                wait_ms = left if wait_ms < 0 else min(left, wait_ms)
            events = poller.poll(wait_ms)
            ready = [fd for fd, _ in events]
            if output.fd in ready:
                output.drain()
                if not output.open:
                    poller.unregister(output.fd)
            if pidfd in ready:
                break
            if deadline is not None and time.monotonic() >= deadline:
                _kill(pidfd)
                output.drain()
                raise program.ended(f"timed out after {timeout} s, killed{output.text()}")
            if check is not None:
                check()
        output.drain()
        return _reap(pidfd, -1)
    except BaseException:
        _kill(pidfd)
        raise


def _kill(pidfd: int) -> None:
    """Kill and reap the hook, if it is alive."""
    fs.ignore(processes.pidfd_send_signal, pidfd, SIGKILL)
    fs.ignore(_reap, pidfd, _KILL_WAIT_MS)


def _reap(pidfd: int, timeout_ms: int) -> int:
    """Reap the hook and return its wait status.

    Raises OSError; ECHILD if the kernel has reaped it because the caller ignores SIGCHLD.
    """
    while True:
        try:
            return processes.wait(pidfd, timeout_ms)
        except InterruptedError:
            continue
        except ChildProcessError:
            raise OSError(ECHILD, "its exit status is lost") from None
        except TimeoutError:
            raise OSError(ETIMEDOUT, "it did not exit") from None


def _end(status: int) -> str:
    """A wait status as text: ``exit status 3`` or ``killed by SIGTERM``."""
    if posix.WIFEXITED(status):
        return f"exit status {posix.WEXITSTATUS(status)}"
    from pyrunc.signals import described

    return f"killed by {described(posix.WTERMSIG(status))}"
