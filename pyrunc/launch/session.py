"""A session with one init process: spawn it, drive the handshake, report errors.

`create` creates a container, `run` also starts it, and `exec` adds a process to one.  They differ
in the plan and in the actions at the sync points, which `handlers` of each class lists.
"""

from __future__ import annotations

import posix
from errno import ESRCH

from pyrunc import errors, fs, handshake, procfs, state
from pyrunc.errors import PyruncError, SysError
from pyrunc.launch.channel import Channel, NoRecordError, SlowStartError
from pyrunc.launch.ending import Interrupts, await_end, has_ended, raise_interrupted, reap, unknown_children, where
from pyrunc.launch.spawn import check_preserved, connect, is_null, listen_fds, of_init, spawn_error, spawn_init
from pyrunc.launch.undo import Undo
from pyrunc.native import files, processes, sockets
from pyrunc.plan.process import RLIMIT_CORE, RLIMIT_NOFILE
from pyrunc.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar

    from pyrunc.cgroup import Driver
    from pyrunc.explain import Setting
    from pyrunc.launch.console import Relay
    from pyrunc.launch.streams import Streams
    from pyrunc.log import Log
    from pyrunc.plan import Plan
    from pyrunc.spec.types import Config, Process

    Handlers = dict[str, Callable[[handshake.Record], None]]

# A step that takes longer is hung, for example on a dead network filesystem.  A plan with hooks in
# the container has no limit here: a hook has its own timeout or none.
STEP_TIMEOUT_MS = 120_000
WAIT_FOREVER = -1
_PENDING = 64  # records init can queue: warnings, and one that awaits an answer
_LOOK_MS = 500  # interval of the checks that enter is alive
_WARNINGS = 64  # a step warns once, CAPS once for each capability
_INFINITY = 0xFFFFFFFFFFFFFFFF
_SETUP_FDS = 1024  # init opens fewer
_TRAPS = frozenset((4, 5))  # SIGILL, SIGTRAP: __builtin_trap of x86_64 and of arm64


class SessionOptions:
    """Options of all commands that start a process; paths are as on the command line."""

    __slots__ = ("console_socket", "id", "log", "pid_file", "pidfd_socket", "preserve_fds", "root")

    def __init__(self, id: str, log: Log) -> None:
        self.id = id
        self.log = log
        self.root = ""
        self.pid_file = self.console_socket = self.pidfd_socket = ""
        self.preserve_fds = 0


class InitSession:
    """One init process, from its spawn until it waits for `start` or executes the program.

    Actions that assume a process of our own for this session are separate methods, which
    `pyrunc.api` overrides: `catch_signals`, `open_stdio`, `activated`, `stray_children`,
    `open_store`.
    """

    __slots__ = (
        "cgroup_fd",
        "channel",
        "console",
        "driver",
        "enter_pid",
        "init_pid",
        "interrupts",
        "listen_fds",
        "log",
        "pidfd",
        "plan",
        "protocol",
        "relay",
        "streams",
        "stuck",
        "undo",
        "warnings",
    )

    transitions: ClassVar[handshake.Transitions] = {}  # the records allowed in each state
    joins: ClassVar[bool] = False  # whether the plan joins a container
    opts: SessionOptions
    driver: Driver
    plan: Plan

    def __init__(self, log: Log) -> None:
        self.log = log
        self.undo = Undo()
        self.protocol = handshake.Protocol(self.transitions)
        self.channel = Channel()
        self.pidfd = self.cgroup_fd = -1
        self.enter_pid = self.init_pid = 0
        self.interrupts: Interrupts | None = None
        self.console = -1  # our end of the console socket of a foreground terminal
        self.relay: Relay | None = None  # of a foreground terminal
        self.listen_fds = 0
        self.streams: Streams | None = None  # pipes that replace our stdio in the foreground
        self.stuck = ""  # describes a child that could not be killed
        self.warnings = 0  # WARN records received so far

    def execute(self) -> None:
        """Run `steps`.  Raises PyruncError after everything has been undone."""
        interrupts = self.interrupts = self.catch_signals()
        try:
            try:
                self.steps(interrupts)
            except OSError as error:
                raise as_sys_error(error) from error
        except BaseException as error:
            self.abandon()
            raise_interrupted(interrupts, error)
            self.check_spawned(error)
            if self.stuck and isinstance(error, PyruncError):
                raise PyruncError(f"{error}; {self.stuck}") from error
            raise
        finally:
            self.interrupts = None
            interrupts.restore()

    def steps(self, interrupts: Interrupts) -> None:
        """Do the work of the command, up to a process that waits or runs.

        Raises PyruncError, OSError.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close the descriptors of the session."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Undo what `steps` has done so far: end init, then release what is held."""
        self.channel.close()
        try:
            self.kill_children()
        finally:
            self.undo.run()
            self.close()

    def handlers(self) -> Handlers:
        """The method that handles each action of ``transitions``."""
        return {
            "placed": self.on_placed,
            "ready": self.on_ready,
            "warn": self.on_warn,
            "fail": self.on_fail,
        }

    def check_terminal(self, terminal: bool, detached: bool) -> None:
        """Check the terminal options (docs/callers.md), with runc's messages.

        Raises UsageError.
        """
        if detached and terminal and not self.opts.console_socket:
            raise errors.UsageError("cannot allocate tty if pyrunc will detach without setting console socket")
        if self.opts.console_socket and not (detached and terminal):
            raise errors.UsageError("cannot use console socket if pyrunc will not detach or allocate tty")

    def catch_signals(self) -> Interrupts:
        """Catch the terminating signals until the session ends."""
        return Interrupts()

    def open_store(self) -> state.Store:
        """The state store of ``--root``."""
        return state.Store(state.root_dir(self.opts.root))

    # -- the process -------------------------------------------------------------------------------

    def spawn(self) -> None:
        """Start init from its sealed memfd; it inherits the handshake socket and preserved
        descriptors."""
        self.listen_fds = self.activated()
        preserved = self.listen_fds + self.opts.preserve_fds
        check_preserved(preserved)
        self.open_stdio()
        if self.streams is None:
            self.start_init([], preserved)
            return
        self.undo.push(self.close_streams)
        try:
            self.start_init(self.streams.theirs, preserved)
        finally:
            self.streams.cloned()

    def start_init(self, stdio: list[int], preserved: int) -> None:
        """Spawn init and close its end of the socket, which would hide its end of file."""
        self.channel.fd, theirs, self.enter_pid = spawn_init(stdio, preserved, self.joins)
        posix.close(theirs)

    def check_spawned(self, error: BaseException) -> None:
        """Raises SysError if init was not executed, which `spawn` does not wait for.

        ``error`` is a consequence, for example systemd's error for a process that does not exist.
        """
        if not self.protocol.heard:
            own = spawn_error()
            if own is not None:
                raise own from error

    def open_stdio(self) -> None:
        """Create pipes for stdio in the foreground: the program must not hold a terminal or file of
        the host."""
        piped = [fd for fd in (0, 1, 2) if not is_null(fd)] if self.foreground() else []
        if piped:
            from pyrunc.launch import streams

            self.streams = streams.Streams(piped)

    def activated(self) -> int:
        """The number of sockets that a service manager passed for the container."""
        return listen_fds()

    def foreground(self) -> bool:
        """Whether the command waits for the program to exit."""
        return False

    def own_streams(self, config: Config, process: Process, pid: int = 0) -> None:
        """Give the pipes to the program's user, who must be able to reopen /dev/stdout; init may
        not in its user namespace.  Without mappings in the config those of ``pid`` apply.
        """
        if self.streams is None:
            return
        linux = config.get("linux", {})
        uids, gids = linux.get("uidMappings"), linux.get("gidMappings")
        if not uids and pid and any(entry["type"] == "user" for entry in linux.get("namespaces", ())):
            from pyrunc import idmap

            uids, gids = idmap.map_of(pid, "uid"), idmap.map_of(pid, "gid")
        if uids:
            from pyrunc.spec.mappings import host_id

            user = process.get("user", {})
            self.streams.own(host_id(uids, user.get("uid") or 0), host_id(gids, user.get("gid") or 0))

    def close_streams(self) -> None:
        """Close the pipes; a program with a terminal does not use them."""
        if self.streams is not None:
            self.streams.close()
            self.streams = None

    def attach_terminal(self) -> None:
        """Receive the terminal of a foreground program before init executes it.

        The terminal must be in raw mode before the program writes its first line.
        """
        if self.console >= 0:
            from pyrunc.launch import console

            self.relay = console.Relay(console.receive_master(self.console))
            self.undo.push(self.relay.close)

    def kill_children(self) -> None:
        """Kill and reap `enter` and init; a process that does not end is reported."""
        known = [pid for pid in (self.init_pid, self.enter_pid) if pid]
        for pid in known:
            self.kill_child(pid)
        self.init_pid = self.enter_pid = 0
        for _ in range(2):  # a clone may itself have cloned before it was killed
            for pid in self.stray_children():
                if pid not in known:
                    self.kill_child(pid)

    def stray_children(self) -> list[int]:
        """Clones of a parent that was killed before it reported their pid."""
        return unknown_children()

    def kill_child(self, pid: int) -> None:
        """Kill and reap a child."""
        try:
            posix.kill(pid, SIGKILL)
            reap(pid)
        except PyruncError as error:
            self.stuck = str(error)
        except OSError:
            pass  # already reaped

    def reap_enter(self) -> None:
        """Reap `enter` after its last record.  Raises PyruncError if it does not end."""
        reap(self.enter_pid, self.interrupts)
        self.enter_pid = 0

    # -- the handshake -----------------------------------------------------------------------------

    def converse(self, interrupts: Interrupts) -> None:
        """Drive the handshake until init waits for `start` or has executed the program."""
        try:
            self.send_plan()
        except (PyruncError, OSError) as error:
            raise self.reason(error) from error
        timeout, handlers = self.step_limit(), self.handlers()
        while self.protocol.state != handshake.DONE:
            if self.protocol.deferred:
                self.await_enter()
            elif self.protocol.state in (handshake.ENTERING, handshake.JOINED):
                self.await_clone(timeout, interrupts)
            record = self.receive(0 if self.protocol.deferred else timeout, interrupts)
            if record is None:
                if self.protocol.state == handshake.CLONED:  # exec: no `start` follows
                    self.check_executed()
                    return
                raise self.premature_end()
            try:
                actions = self.protocol.feed(record)
            except handshake.ProtocolError as error:
                raise PyruncError(str(error)) from error
            for action, what in actions:
                self.log.debug(f"init: {describe(what)}")
                try:
                    handlers[action](what)
                except (PyruncError, OSError) as error:
                    raise self.reason(error) from error
            interrupts.check()

    def reason(self, error: PyruncError | OSError) -> PyruncError | OSError:
        """The error to report for a failed handler: init's own, if init failed first.

        init continues while a handler runs.  If init fails, systemd removes its empty cgroup
        immediately, and the handler's writes to the cgroup fail as a consequence.
        """
        if self.protocol.state in (handshake.DONE, handshake.FAILED):
            return error  # init waits for `start`, or this is its own error
        for record in self.channel.queued(_PENDING + len(self.plan.steps)):  # includes STAMPS
            if record is None:
                return self.premature_end()
            if record.type == handshake.FAIL:
                try:
                    self.on_fail(record)
                except PyruncError as own:
                    return own
        return error  # init is running, or waits for our answer

    def await_enter(self) -> None:
        """Wait for `enter` to exit after it reports the pid of init.

        If `enter` is killed before the report, init waits for the GO to a record that is deferred
        until the pid is known.  Without this wait, both sides would block forever.
        """
        await_end(self.enter_pid, self.interrupts)

    def await_clone(self, timeout: int, interrupts: Interrupts) -> None:
        """ENTERING, JOINED: wait for a record while `enter` may be about to clone.

        If `enter` is killed before it reports the pid, its clone waits for our GO and keeps the
        socket open, so both sides would block forever.  Raises PyruncError in this case, and
        after ``timeout`` ms.
        """
        from select import POLLIN, poll

        poller = poll()
        poller.register(self.channel.fd, POLLIN)
        waited = 0
        while not poller.poll(_LOOK_MS):
            interrupts.check()
            waited += _LOOK_MS
            if has_ended(self.enter_pid) and not poller.poll(0):
                raise self.premature_end()
            if 0 <= timeout <= waited:
                raise self.no_answer()

    def check_executed(self) -> None:
        """After EOF: raises PyruncError if init was killed before its execve."""
        if procfs.never_executed(self.init_pid):
            raise self.premature_end()

    def step_limit(self) -> int:
        """The time limit between two records of init, in ms."""
        return WAIT_FOREVER if self.plan.has_hooks() else STEP_TIMEOUT_MS

    def receive(self, timeout: int, interrupts: Interrupts | None) -> handshake.Record | None:
        """The next record; None at EOF.  Raises PyruncError if none arrives in ``timeout`` ms."""
        try:
            return self.channel.receive(timeout, interrupts)
        except NoRecordError:
            raise self.premature_end() if timeout == 0 else self.no_answer() from None
        except SlowStartError as slow:
            raise PyruncError(f"interrupted by signal {slow.number}: {where(self.init_pid)}") from None

    def no_answer(self) -> PyruncError:
        """The error for a step that exceeds its time limit."""
        process = where(self.init_pid or self.enter_pid)
        return PyruncError(f"container init did not answer within {STEP_TIMEOUT_MS // 1000} s: {process}")

    def send(self, kind: int, value: int = 0, fds: list[int] | None = None) -> None:
        """Send a record with descriptors attached.  Raises PyruncError if init is gone."""
        if not self.channel.send(kind, value, fds or []):
            raise self.premature_end()

    def send_plan(self) -> None:
        """Send the plan and its descriptors, even if `enter` has not been executed yet: on busy
        cores a wait for it would cost a time slice."""
        self.fill_filter()
        self.send_opened(self.plan.encode())

    def send_opened(self, blob: bytes) -> None:
        """Open the descriptors of a plan and send them with it."""
        opened: list[int] = []
        try:
            try:
                opened.append(files.memfd_sealed(b"pyrunc-plan", blob))
            except OSError as error:
                raise of_init(error) from error
            for kind, value, origin in self.plan.fds:
                opened.append(self.open_slot(kind, value, origin))
            self.send(handshake.PLAN, len(blob), opened)
        finally:
            for fd in opened:
                posix.close(fd)

    def on_placed(self, record: handshake.Record) -> None:
        """PLACED: the process has cloned itself into the cgroup; the clone is now `enter`."""
        self.follow_clone(record.value)
        self.send(handshake.GO)

    def follow_clone(self, pid: int) -> None:
        """Reap `enter`: it has cloned itself, and the clone is now `enter`."""
        before, self.enter_pid = self.enter_pid, pid
        reap(before, self.interrupts)

    def fill_filter(self) -> None:
        """Compile the seccomp profile while init starts on another core."""
        if self.plan.seccomp is not None:
            from pyrunc import seccomp

            self.plan.set_filter(*seccomp.compile_filter(self.plan.seccomp, cache_dir=seccomp.cache_dir()))

    def open_slot(self, kind: str, value: str, origin: str) -> int:
        """Open a descriptor for the plan.  Raises SysError with the pointer of its field."""
        if kind == "cgroup":
            return posix.dup(self.cgroup_fd)
        if kind == "console":
            return self.open_console()
        return procfs.open_namespace(value, origin + "/path")

    def open_console(self) -> int:
        """Open the socket that receives the pty master: the caller's, or our own socketpair."""
        if self.opts.console_socket:
            return connect("--console-socket", self.opts.console_socket)
        try:
            self.console, theirs = sockets.socketpair()
        except OSError as error:
            raise of_init(error) from error
        self.undo.push(posix.close, self.console)
        return theirs

    def on_ready(self, record: handshake.Record) -> None:
        """READY: set rlimits on behalf of init, which may lack CAP_SYS_RESOURCE.

        Not earlier: RLIMIT_NOFILE would have limited the descriptors of init.
        """
        self.set_limits(self.init_pid)
        self.send(handshake.GO)

    def harmless_limits(self) -> bool:
        """Whether the plan's rlimits may be set before READY, because they do not limit set-up."""
        preserved = self.opts.preserve_fds + self.listen_fds
        for resource, soft, _, _ in self.plan.rlimits:
            if resource != RLIMIT_CORE and (resource != RLIMIT_NOFILE or soft < _SETUP_FDS + preserved):
                return False
        return True

    def set_limits(self, pid: int, put_off: int = -1) -> None:
        """Set the plan's rlimits; only raise ``put_off``, which init sets itself.

        Raises SysError.
        """
        for resource, soft, hard, origin in self.plan.rlimits:
            if resource == put_off:
                soft = hard = _INFINITY  # if this is refused, init can still lower the limit
            try:
                processes.prlimit(pid, resource, soft, hard)
            except OSError as error:
                if resource != put_off:
                    from pyrunc import hints

                    hint = hints.find("RLIMIT", error.errno or 0)
                    raise SysError(origin, "prlimit", error.errno or 0, hint=hint) from error

    def send_pidfd(self) -> None:
        """--pidfd-socket: one SCM_RIGHTS message with init's pidfd, in runc's format."""
        path = self.opts.pidfd_socket
        if not path:
            return
        fd = connect("--pidfd-socket", path)
        try:
            sockets.send_descriptor(fd, b"pidfd", self.pidfd)
        except OSError as error:
            raise of_init(error) from error
        finally:
            posix.close(fd)

    # -- what init reports -------------------------------------------------------------------------

    def on_warn(self, record: handshake.Record) -> None:
        """WARN: init continues.

        The number is limited because the container may control this process.
        """
        self.warnings += 1
        if self.warnings > len(self.plan.steps) + _WARNINGS:
            raise PyruncError("container init sends too many warnings")
        self.log.warning(str(self.step_error(record)))

    def on_fail(self, record: handshake.Record) -> None:
        """FAIL: init has failed and exits.  Raises PyruncError."""
        error = self.step_error(record)
        if self.plan.cgroup_path and self.driver.oom_kills(self.plan.cgroup_path):
            raise PyruncError(f"{error}; container init was OOM-killed (memory limit too low?)")
        raise error

    def step_error(self, record: handshake.Record) -> PyruncError:
        """The error of a FAIL or WARN record, with the pointer of its field in config.json."""
        from pyrunc.plan import faults

        return faults.error(self.plan, record, self.explain)

    def explain(self, name: str, number: int) -> str:
        """Why a program could not be executed.  Raises OSError, PyruncError."""
        from pyrunc import explain

        return explain.program(self.setting(), name, number)

    def setting(self) -> Setting:
        """The root, process and config that explain a failed execve."""
        raise NotImplementedError

    def premature_end(self) -> PyruncError:
        """The error for EOF without FAIL: init was killed.  Names the signal, if known."""
        if self.plan.cgroup_path and self.driver.oom_kills(self.plan.cgroup_path):
            return PyruncError("/linux/resources/memory/limit: container init was OOM-killed (memory limit too low?)")
        text = f"container init ended unexpectedly in state {self.protocol.state}"
        pid = self.init_pid or self.enter_pid
        try:
            status = reap(pid)
            if posix.WIFSIGNALED(status):
                text += f": killed by {self.killer(posix.WTERMSIG(status))}"
            text += self.muted(status)
        except PyruncError as error:
            return PyruncError(f"{text}; {error}")  # the socket is closed, but the process is alive
        except OSError:
            pass
        self.init_pid = 0 if pid == self.init_pid else self.init_pid
        return PyruncError(text)

    def killer(self, number: int) -> str:
        """The name of a signal, and its likely cause during start."""
        from pyrunc import signals

        text = signals.described(number)
        if number == signals.SIGSYS:
            from pyrunc import explain

            text += f": {explain.killed(self.setting().linux)}"
        return text

    def muted(self, status: int) -> str:
        """A note if the seccomp profile kept init from reporting an error.

        init traps if the profile denies exit_group.
        """
        if self.plan.seccomp is None or not (posix.WIFEXITED(status) or posix.WTERMSIG(status) in _TRAPS):
            return ""
        return "; /linux/seccomp has to allow read, write, execve and exit_group: init ended without reporting an error"


# -- helpers ---------------------------------------------------------------------------------------


def as_sys_error(error: OSError) -> SysError:
    """A SysError for an OSError of our own, with its path."""
    name = error.filename
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    return SysError(str(name or "pyrunc"), "", error.errno or ESRCH)


def describe(record: handshake.Record) -> str:
    """A record as text for the debug log; steps are numbered as in `pyrunc plan`."""
    name = handshake.NAMES[record.type]
    return name if record.step == handshake.NO_STEP else f"{name} at step {record.step + 1}"


def write_pid_file(path: str, pid: int) -> None:
    """Write the pid atomically, without a newline: go-runc parses the raw bytes.

    Raises SysError.
    """
    try:
        fs.replace_file(path, str(pid).encode(), 0o644)
    except OSError as error:
        raise SysError("--pid-file", "open", error.errno or 0, value=path) from error
