"""A process of ours inside a container: spawn init, drive the handshake with it, report what goes wrong.

`create` makes a container this way, `run` starts it as well, `exec` adds a process to one.  They differ in their plan
and in what they do at the sync points: `handlers` of each class is the table of that.
"""

from __future__ import annotations

import posix
from errno import ESRCH

from pyrunc import errors, fs, handshake, procfs, state
from pyrunc.errors import PyruncError, SysError
from pyrunc.launch.channel import Channel, NoRecordError, SlowStartError
from pyrunc.launch.ending import Interrupts, await_end, has_ended, raise_interrupted, reap, unknown_children, where
from pyrunc.launch.spawn import check_preserved, connect, is_null, listen_fds, of_init, spawn_init
from pyrunc.launch.undo import Undo
from pyrunc.native import files, processes, sockets
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

# A step of init that takes longer is hung (on a dead network filesystem, for example).  Hooks inside the container
# have their own time limits or none, so a plan with hooks has no limit here.
STEP_TIMEOUT_MS = 120_000
WAIT_FOREVER = -1
_PENDING = 64  # records of init that can be queued: warnings, and the one that it waits for an answer to
_LOOK_MS = 500  # between two looks whether a process that should speak is still there
_WARNINGS = 64  # a step warns once, CAPS once for each capability
_INFINITY = 0xFFFFFFFFFFFFFFFF
_TRAPS = frozenset((4, 5))  # SIGILL, SIGTRAP: __builtin_trap of x86_64 and of arm64


class SessionOptions:
    """The options of every command that starts a process; paths are as on the command line."""

    __slots__ = ("console_socket", "id", "log", "pid_file", "pidfd_socket", "preserve_fds", "root")

    def __init__(self, id: str, log: Log) -> None:
        self.id = id
        self.log = log
        self.root = ""
        self.pid_file = self.console_socket = self.pidfd_socket = ""
        self.preserve_fds = 0


class InitSession:
    """One init at work, from its spawn to its wait for start.

    Everything that a process may do only because it exists for this one session is in a method of its own, which
    `pyrunc.api` replaces: `catch_signals`, `open_stdio`, `activated`, `stray_children`, `open_store`.
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

    transitions: ClassVar[handshake.Transitions] = {}  # which records may come, and when
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
        self.streams: Streams | None = None  # pipes in place of our stdio, for a program in the foreground
        self.stuck = ""  # a process of ours that cannot be killed
        self.warnings = 0  # WARN records received so far

    def execute(self) -> None:
        """Carry out `steps`.  Raises PyruncError with everything undone."""
        interrupts = self.interrupts = self.catch_signals()
        try:
            try:
                self.steps(interrupts)
            except OSError as error:
                raise as_sys_error(error) from error
        except BaseException as error:
            self.abandon()
            raise_interrupted(interrupts, error)
            if self.stuck and isinstance(error, PyruncError):
                raise PyruncError(f"{error}; {self.stuck}") from error
            raise
        finally:
            self.interrupts = None
            interrupts.restore()

    def steps(self, interrupts: Interrupts) -> None:
        """From the command line to a process that waits or runs.  Raises PyruncError, OSError."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Undo what `steps` has done so far."""
        raise NotImplementedError

    def handlers(self) -> Handlers:
        """What answers each action of ``transitions``."""
        return {
            "send_plan": self.on_send_plan,
            "placed": self.on_placed,
            "ready": self.on_ready,
            "warn": self.on_warn,
            "fail": self.on_fail,
        }

    def check_terminal(self, terminal: bool, detached: bool) -> None:
        """The terminal matrix of docs/callers.md, in runc's words.  Raises UsageError."""
        if detached and terminal and not self.opts.console_socket:
            raise errors.UsageError("cannot allocate tty if pyrunc will detach without setting console socket")
        if self.opts.console_socket and not (detached and terminal):
            raise errors.UsageError("cannot use console socket if pyrunc will not detach or allocate tty")

    def catch_signals(self) -> Interrupts:
        """Note the signals that would end us, until the session is over."""
        return Interrupts()

    def open_store(self) -> state.Store:
        """The containers under our state root."""
        return state.Store(state.root_dir(self.opts.root))

    # -- the process -------------------------------------------------------------------------------------

    def spawn(self) -> None:
        """Start init from its sealed memfd, with the handshake socket and nothing else of ours."""
        self.listen_fds = self.activated()
        preserved = self.listen_fds + self.opts.preserve_fds
        check_preserved(preserved)
        self.open_stdio()
        if self.streams is None:
            self.channel.fd, self.enter_pid = spawn_init([], preserved)
            return
        self.undo.push(self.close_streams)
        try:
            self.channel.fd, self.enter_pid = spawn_init(self.streams.theirs, preserved)
        finally:
            self.streams.close_theirs()

    def open_stdio(self) -> None:
        """In the foreground stdio are pipes: the caller's terminal, or a file of the host, stays the caller's."""
        piped = [fd for fd in (0, 1, 2) if not is_null(fd)] if self.foreground() else []
        if piped:
            from pyrunc.launch import streams

            self.streams = streams.Streams(piped)

    def activated(self) -> int:
        """How many sockets a service manager gave us for the container."""
        return listen_fds()

    def foreground(self) -> bool:
        """Whether we stay until the program has ended."""
        return False

    def own_streams(self, config: Config, process: Process) -> None:
        """Give the pipes to the program's user, who could not open /dev/stdout again otherwise.

        init cannot do it if that user belongs to the container's user namespace: it is in there too early.
        """
        linux = config.get("linux", {})
        if self.streams is not None and linux.get("uidMappings"):
            from pyrunc.spec.mappings import host_id

            user = process.get("user", {})
            uid = host_id(linux["uidMappings"], user.get("uid") or 0)
            self.streams.own(uid, host_id(linux.get("gidMappings") or [], user.get("gid") or 0))

    def close_streams(self) -> None:
        """Close the pipes: a program with a terminal does not use them."""
        if self.streams is not None:
            self.streams.close()
            self.streams = None

    def attach_terminal(self) -> None:
        """Receive the terminal of a program in the foreground, which init is about to execute.

        The program's first line must already meet a terminal in the right mode.
        """
        if self.console >= 0:
            from pyrunc.launch import console

            self.relay = console.Relay(console.receive_master(self.console))
            self.undo.push(self.relay.close)

    def kill_children(self) -> None:
        """Kill and reap enter and init.  One that does not end is left behind and reported."""
        known = [pid for pid in (self.init_pid, self.enter_pid) if pid]
        for pid in known:
            self.kill_child(pid)
        self.init_pid = self.enter_pid = 0
        for _ in range(2):  # of the two clones of a plan, one may have cloned before it was killed
            for pid in self.stray_children():
                if pid not in known:
                    self.kill_child(pid)

    def stray_children(self) -> list[int]:
        """Clones whose pid was not reported before their parent was killed."""
        return unknown_children()

    def kill_child(self, pid: int) -> None:
        """Kill and reap a process of ours."""
        try:
            posix.kill(pid, SIGKILL)
            reap(pid)
        except PyruncError as error:
            self.stuck = str(error)
        except OSError:
            pass  # gone already, or reaped

    def reap_enter(self) -> None:
        """Reap enter, which has sent its last record.  Raises PyruncError if it does not end."""
        reap(self.enter_pid, self.interrupts)
        self.enter_pid = 0

    # -- the handshake -----------------------------------------------------------------------------------

    def converse(self, interrupts: Interrupts) -> None:
        """Drive the handshake until init waits for start, or was replaced by the program."""
        timeout, handlers = self.step_limit(), self.handlers()
        while self.protocol.state != handshake.DONE:
            if self.protocol.deferred:
                self.await_enter()
            elif self.protocol.state in (handshake.ENTERING, handshake.JOINED):
                self.await_clone(timeout, interrupts)
            record = self.receive(0 if self.protocol.deferred else timeout, interrupts)
            if record is None:
                if self.protocol.state == handshake.CLONED:  # there is no start to wait for
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
        """Why a handler failed: because of init's own failure, if that came first.

        init continues while a handler is at work.  When it fails, systemd removes its empty cgroup immediately, and
        what the handler then does to the cgroup fails for no reason of its own.
        """
        if self.protocol.state in (handshake.DONE, handshake.FAILED):
            return error  # init waits for `start`, or this is its failure
        for record in self.channel.queued(_PENDING + len(self.plan.steps)):  # STAMPS are among them
            if record is None:
                return self.premature_end()
            if record.type == handshake.FAIL:
                try:
                    self.on_fail(record)
                except PyruncError as own:
                    return own
        return error  # init is at work, or waits for our answer

    def await_enter(self) -> None:
        """Wait for the end of enter, which only writes the pid of init; it may also be killed before it does.

        Then init waits for a GO to a record that waits for the pid, and neither side would ever send again.
        """
        await_end(self.enter_pid, self.interrupts)

    def await_clone(self, timeout: int, interrupts: Interrupts) -> None:
        """ENTERING, JOINED: wait for a record of enter, which may be about to clone, to report the pid and to exit.

        If it is killed before the report, its clone waits for our GO and keeps the socket open: neither side would
        ever send again.  Raises PyruncError then, and after ``timeout`` ms.
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
        """EOF in place of the program's start: raises the error if it was init's death, not its execve."""
        if procfs.never_executed(self.init_pid):
            raise self.premature_end()

    def step_limit(self) -> int:
        """How long init may take between two records, in ms."""
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
        """The error of a step that takes too long."""
        process = where(self.init_pid or self.enter_pid)
        return PyruncError(f"container init did not answer within {STEP_TIMEOUT_MS // 1000} s: {process}")

    def send(self, kind: int, value: int = 0, fds: list[int] | None = None) -> None:
        """Send a record, with descriptors attached."""
        if not self.channel.send(kind, value, fds or []):
            raise self.premature_end()

    def on_send_plan(self, record: handshake.Record) -> None:
        """HELLO: compare builds, hand over the plan and its descriptors."""
        from pyrunc.plan import ops

        if record.value != ops.ABI:
            raise PyruncError(f"init is of another build: ABI {record.value:#x}, expected {ops.ABI:#x}")
        self.fill_filter()
        blob = self.plan.encode()
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
        """PLACED: the spawned process continued as its clone in the cgroup, which is enter from now on."""
        before, self.enter_pid = self.enter_pid, record.value
        reap(before, self.interrupts)
        self.send(handshake.GO)

    def fill_filter(self) -> None:
        """Compile the seccomp profile; here, because init is starting up on another core meanwhile."""
        if self.plan.seccomp is not None:
            from pyrunc import seccomp

            self.plan.set_filter(*seccomp.compile_filter(self.plan.seccomp, cache_dir=seccomp.cache_dir()))

    def open_slot(self, kind: str, value: str, origin: str) -> int:
        """Open one descriptor that the plan needs.  Raises SysError with the field it came from."""
        if kind == "cgroup":
            return posix.dup(self.cgroup_fd)
        if kind == "console":
            return self.open_console()
        return procfs.open_namespace(value, origin + "/path")

    def open_console(self) -> int:
        """The socket that receives the pty's master: the caller's, or one end of a pair whose other end we keep."""
        if self.opts.console_socket:
            return connect("--console-socket", self.opts.console_socket)
        try:
            self.console, theirs = sockets.socketpair()
        except OSError as error:
            raise of_init(error) from error
        self.undo.push(posix.close, self.console)
        return theirs

    def on_ready(self, record: handshake.Record) -> None:
        """READY: set rlimits from here; init may have lost CAP_SYS_RESOURCE, and needed descriptors until now."""
        self.set_limits(self.init_pid)
        self.send(handshake.GO)

    def set_limits(self, pid: int, put_off: int = -1) -> None:
        """Set the plan's rlimits; ``put_off``, which init sets itself, is only raised.  Raises SysError."""
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

    # -- what init reports -------------------------------------------------------------------------------

    def on_warn(self, record: handshake.Record) -> None:
        """WARN: init continues.  Bounded, because the container may have taken over this process."""
        self.warnings += 1
        if self.warnings > len(self.plan.steps) + _WARNINGS:
            raise PyruncError("container init sends warnings without end")
        self.log.warning(str(self.step_error(record)))

    def on_fail(self, record: handshake.Record) -> None:
        """FAIL: init has ended."""
        error = self.step_error(record)
        if self.plan.cgroup_path and self.driver.oom_kills(self.plan.cgroup_path):
            raise PyruncError(f"{error}; container init was OOM-killed (memory limit too low?)")
        raise error

    def step_error(self, record: handshake.Record) -> PyruncError:
        """A FAIL or WARN record in the words of config.json."""
        from pyrunc.plan import faults

        return faults.error(self.plan, record, self.explain)

    def explain(self, name: str, number: int) -> str:
        """Why a program could not be executed.  Raises OSError, PyruncError."""
        from pyrunc import explain

        return explain.program(self.setting(), name, number)

    def setting(self) -> Setting:
        """Where and as whom the program was to run, for the explanation of a failure."""
        raise NotImplementedError

    def premature_end(self) -> PyruncError:
        """The error for EOF without FAIL: init was killed.  Says by which signal, if that can be known."""
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
            return PyruncError(f"{text}; {error}")  # it closed the socket, or lost it, and is still alive
        except OSError:
            pass
        self.init_pid = 0 if pid == self.init_pid else self.init_pid
        return PyruncError(text)

    def killer(self, number: int) -> str:
        """A signal by its name, and what sends it while a program is started."""
        from pyrunc import signals

        text = signals.described(number)
        if number == signals.SIGSYS:
            from pyrunc import explain

            text += f": {explain.killed(self.setting().linux)}"
        return text

    def muted(self, status: int) -> str:
        """Whether the profile kept init from reporting an error: it ends by a trap where it may not exit."""
        if self.plan.seccomp is None or not (posix.WIFEXITED(status) or posix.WTERMSIG(status) in _TRAPS):
            return ""
        return "; /linux/seccomp has to allow read, write, execve and exit_group: init ended without a word"


# -- helpers --------------------------------------------------------------------------------------------------


def as_sys_error(error: OSError) -> SysError:
    """An OSError of our own file work, with the path it was about."""
    name = error.filename
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    return SysError(str(name or "pyrunc"), "", error.errno or ESRCH)


def describe(record: handshake.Record) -> str:
    """A record for the debug log; steps are numbered as in the listing of `pyrunc plan`."""
    name = handshake.NAMES[record.type]
    return name if record.step == handshake.NO_STEP else f"{name} at step {record.step + 1}"


def write_pid_file(path: str, pid: int) -> None:
    """Decimal digits without a newline: go-runc uses Atoi on the raw bytes.  Atomic.  Raises SysError."""
    try:
        fs.replace_file(path, str(pid).encode(), 0o644)
    except OSError as error:
        raise SysError("--pid-file", "open", error.errno or 0, value=path) from error
