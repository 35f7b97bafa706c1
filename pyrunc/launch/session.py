"""A process of ours inside a container: start init, drive the handshake with it, phrase what goes wrong.

`launch` makes a container this way, `exec` adds a process to one.  What differs between the two is the plan and what is
done at the sync points: those methods are the subclass's.
"""

from __future__ import annotations

import posix
from errno import ESRCH

from pyrunc import errors, fs, handshake, interpreter, procfs, state
from pyrunc.errors import PyruncError, SysError
from pyrunc.launch.undo import Undo
from pyrunc.native import files, processes, signals, sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cgroup import Driver
    from pyrunc.explain import Setting
    from pyrunc.launch.streams import Streams
    from pyrunc.log import Log
    from pyrunc.plan import Plan
    from pyrunc.spec.types import Config, Process

# A step of init that takes longer than this is hung (a dead network filesystem, say).  Hooks inside the container have
# their own limits or none, so a plan with hooks waits without one.
STEP_TIMEOUT_MS = 120_000
WAIT_FOREVER = -1
_PENDING = 64  # records of init that can be waiting to be read: warnings, and the one that it waits for an answer to
_LOOK_MS = 500  # between two looks whether a process that should speak is still there
# For a process that was killed, or is about to exit.  One that takes longer is stuck in the kernel
# (waiting for a FUSE server, say), where no signal reaches it.
END_TIMEOUT_MS = 5_000
# A signal that arrives while the program starts is forwarded to it, unless the start takes longer.
START_TIMEOUT_MS = 1_000
_WARNINGS = 64  # a step warns once, CAPS once for each capability
_INFINITY = 0xFFFFFFFFFFFFFFFF
_TRAPS = frozenset((4, 5))  # SIGILL, SIGTRAP: __builtin_trap of x86_64 and of arm64
_ENDING = frozenset((1, 2, 3, 15))  # SIGHUP, SIGINT, SIGQUIT, SIGTERM


class Options:
    """What every command that starts a process was asked for; paths as given on the command line."""

    __slots__ = ("console_socket", "id", "log", "pid_file", "pidfd_socket", "preserve_fds", "root")

    def __init__(self, id: str, log: Log) -> None:
        self.id = id
        self.log = log
        self.root = ""
        self.pid_file = self.console_socket = self.pidfd_socket = ""
        self.preserve_fds = 0


class Session:
    """One init at work, from its spawn to its wait for start.

    What a process may do that is only there for this one session is in methods of their own, which `pyrunc.api`
    replaces: `catch_signals`, `open_stdio`, `activated`, `stray_children`, `open_store`.
    """

    __slots__ = (
        "cgroup_fd",
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
        "signal_fd",
        "sock",
        "streams",
        "stuck",
        "undo",
        "warnings",
    )

    opts: Options
    driver: Driver
    plan: Plan

    def __init__(self, log: Log) -> None:
        self.log = log
        self.undo = Undo()
        self.protocol = handshake.Protocol()
        self.sock = self.pidfd = self.cgroup_fd = -1
        self.enter_pid = self.init_pid = 0
        self.interrupts: Interrupts | None = None
        self.console = -1  # our end of the console socket of a foreground terminal
        self.listen_fds = 0
        self.streams: Streams | None = None  # pipes in place of our stdio, for a program in the foreground
        self.signal_fd = -1  # all our signals, once they are forwarded to a program in the foreground
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
        """From the command line to a process that waits, or runs.  Raises PyruncError, OSError."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Undo what `steps` has done so far."""
        raise NotImplementedError

    def check_terminal(self, terminal: bool, detached: bool) -> None:
        """The terminal matrix of docs/callers.md, with runc's words.  Raises UsageError."""
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
        npreserve = self.listen_fds + self.opts.preserve_fds
        check_preserved(npreserve)
        self.open_stdio()
        stdio = []
        if self.streams is not None:
            self.undo.push(self.close_streams)
            stdio = self.streams.theirs
        image = interpreter.init_image()
        memfd = theirs = -1
        try:
            memfd = files.memfd_sealed(b"pyrunc-init", image, executable=True)
            self.sock, theirs = sockets.socketpair(4 + npreserve)
            self.enter_pid = processes.spawn_init(memfd, theirs, npreserve, stdio)
        except OSError as error:
            raise of_init(error) from error
        finally:
            fs.close(theirs)
            fs.close(memfd)
            if self.streams is not None:
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
        """The pipes belong to the program's user, who could not open /dev/stdout again otherwise.

        Where that user is of the container's user namespace, init is in there too late to give them away.
        """
        linux = config.get("linux") or {}
        if self.streams is not None and linux.get("uidMappings"):
            from pyrunc.spec.mappings import host_id

            user = process.get("user") or {}
            uid = host_id(linux["uidMappings"], user.get("uid") or 0)
            self.streams.own(uid, host_id(linux.get("gidMappings") or [], user.get("gid") or 0))

    def close_streams(self) -> None:
        """Without pipes from here on: a program with a terminal does not use them."""
        if self.streams is not None:
            self.streams.close()
            self.streams = None

    def close_socket(self) -> None:
        """EOF on the socket is what makes an init that is still setting up go away."""
        if self.sock >= 0:
            fs.close(self.sock)
            self.sock = -1

    def kill_children(self) -> None:
        """Kill and reap enter and init.  One that does not end is left behind and reported."""
        known = [pid for pid in (self.init_pid, self.enter_pid) if pid]
        for pid in known:
            self.kill_child(pid)
        self.init_pid = self.enter_pid = 0
        for _ in range(2):  # of the two clones of a plan one may have cloned before it was killed
            for pid in self.stray_children():
                if pid not in known:
                    self.kill_child(pid)

    def stray_children(self) -> list[int]:
        """Clones whose pid was not reported before their parent was killed."""
        return unknown_children()

    def kill_child(self, pid: int) -> None:
        """Kill and reap a process of ours."""
        try:
            posix.kill(pid, 9)
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
        timeout = self.step_limit()
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
                    getattr(self, "on_" + action)(what)
                except (PyruncError, OSError) as error:
                    raise self.reason(error) from error
            interrupts.check()

    def reason(self, error: PyruncError | OSError) -> PyruncError | OSError:
        """What an action failed for: init's own failure, if that came first.

        init goes on while an action is at work.  When it fails, systemd removes its empty cgroup at
        once, and what the action then does to the cgroup fails too, for no reason of its own.
        """
        if self.protocol.state in (handshake.DONE, handshake.FAILED):
            return error  # init waits for `start`, or this is its failure
        for _ in range(_PENDING + len(self.plan.steps)):  # STAMPS too
            try:
                data = sockets.receive(self.sock, handshake.RECORD_SIZE, 0)
            except ConnectionResetError:
                data = b""
            except OSError:
                break  # init is at work, or waits for our answer
            if not data:
                return self.premature_end()
            record = handshake.Record(data)
            if record.type == handshake.FAIL:
                try:
                    self.on_fail(record)
                except PyruncError as own:
                    return own
        return error

    def await_enter(self) -> None:
        """init has spoken, so enter only writes its pid and ends; it may also end without that, killed.

        Then init waits for a GO to a record that waits for the pid: nobody would ever speak again.
        """
        await_end(self.enter_pid, self.interrupts)

    def await_clone(self, timeout: int, interrupts: Interrupts) -> None:
        """ENTERING, JOINED: wait for a record of enter, which may be about to clone, to report the pid and to end.

        If it ends without that, killed, then its clone waits for our GO and keeps the socket open: nobody would ever
        speak again.  Raises PyruncError then, and after ``timeout`` ms.
        """
        from select import POLLIN, poll

        poller = poll()
        poller.register(self.sock, POLLIN)
        waited = 0
        while not poller.poll(_LOOK_MS):
            interrupts.check()
            waited += _LOOK_MS
            if has_ended(self.enter_pid) and not poller.poll(0):
                raise self.premature_end()
            if 0 <= timeout <= waited:
                raise self.no_answer()

    def check_executed(self) -> None:
        """EOF in place of the program's start: raises the error when it was init's death, not its execve."""
        from pyrunc import procfs

        if procfs.never_executed(self.init_pid):
            raise self.premature_end()

    def step_limit(self) -> int:
        """How long init may take between two records, in ms."""
        return WAIT_FOREVER if self.plan.has_hooks() else STEP_TIMEOUT_MS

    def receive(self, timeout: int, interrupts: Interrupts | None) -> handshake.Record | None:
        """The next record; None at EOF.  Raises PyruncError when init says nothing for ``timeout`` ms."""
        if self.signal_fd >= 0 and timeout and not self.await_record(timeout):
            raise self.no_answer()
        while True:
            try:
                data = sockets.receive(self.sock, handshake.RECORD_SIZE, timeout)
            except InterruptedError:
                if interrupts is not None:
                    interrupts.check()
            except TimeoutError:
                raise self.premature_end() if timeout == 0 else self.no_answer() from None
            except ConnectionResetError:  # init died with a record of ours unread
                return None
            except OSError as error:
                raise of_init(error) from error
            else:
                return handshake.Record(data) if data else None

    def no_answer(self) -> PyruncError:
        """The error of a step that takes too long."""
        process = where(self.init_pid or self.enter_pid)
        return PyruncError(f"container init did not answer within {STEP_TIMEOUT_MS // 1000} s: {process}")

    def await_record(self, timeout: int) -> bool:
        """Wait for a record or EOF while our signals are blocked; False on timeout (< 0: none).

        Raises PyruncError for a signal if the program does not start soon after it.
        """
        from select import POLLIN, poll

        poller = poll()
        poller.register(self.sock, POLLIN)
        poller.register(self.signal_fd, POLLIN)
        while ready := poller.poll(None if timeout < 0 else timeout):
            if any(fd == self.sock for fd, _ in ready):
                return True
            poller.unregister(self.signal_fd)
            if poller.poll(START_TIMEOUT_MS):
                return True  # the signal stays pending, for the foreground loop to forward
            for number in signals.read(self.signal_fd):
                if number in _ENDING:
                    raise PyruncError(f"interrupted by signal {number}: {where(self.init_pid)}")
            poller.register(self.signal_fd, POLLIN)
        return False

    def send(self, kind: int, value: int = 0, fds: list[int] | None = None) -> None:
        """Send a record, with descriptors attached."""
        try:
            sockets.send(self.sock, handshake.encode(kind, value), fds or ())
        except (BrokenPipeError, ConnectionResetError):
            raise self.premature_end() from None
        except OSError as error:
            raise of_init(error) from error

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
        """PLACED: the spawned process went on as another one, in the cgroup; that one is enter from now on."""
        before, self.enter_pid = self.enter_pid, record.value
        reap(before, self.interrupts)
        self.send(handshake.GO)

    def fill_filter(self) -> None:
        """Compile the seccomp profile; here, because init is starting up on the other core meanwhile."""
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
        """The socket that the pty's master goes to: the caller's, or one end of a pair that `run` keeps."""
        if self.opts.console_socket:
            return connect("--console-socket", self.opts.console_socket)
        try:
            self.console, theirs = sockets.socketpair()
        except OSError as error:
            raise of_init(error) from error
        self.undo.push(posix.close, self.console)
        return theirs

    def on_ready(self, record: handshake.Record) -> None:
        """READY: rlimits from here, because init may have lost CAP_SYS_RESOURCE and needs descriptors until now."""
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
        """--pidfd-socket: one SCM_RIGHTS message with init's pidfd, as runc sends it."""
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

    def on_warn(self, record: handshake.Record) -> None:
        """WARN: init goes on.  Bounded: the container may have taken over this process."""
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
        """EOF without FAIL: init was killed.  Says by what, where it can be known."""
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
            return PyruncError(f"{text}; {error}")  # it closed the socket, or lost it, and lives on
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
        """A profile that keeps init from reporting an error: it ends by a trap where it may not exit."""
        if self.plan.seccomp is None or not (posix.WIFEXITED(status) or posix.WTERMSIG(status) in _TRAPS):
            return ""
        return "; /linux/seccomp has to allow read, write, execve and exit_group: init ended without a word"


# -- helpers --------------------------------------------------------------------------------------------------


class Interrupts:
    """SIGINT, SIGTERM, SIGHUP, SIGQUIT during set-up: noted, acted on between two steps, never in mid-rollback."""

    __slots__ = ()

    def __init__(self) -> None:
        signals.catch()

    @property
    def caught(self) -> int:
        """The signal that came, 0 without one."""
        return signals.caught()

    def check(self) -> None:
        """Raises PyruncError when a signal came."""
        if self.caught:
            raise PyruncError(f"interrupted by signal {self.caught}")

    def restore(self) -> None:
        """Put the former dispositions back."""
        signals.restore()


def unknown_children() -> list[int]:
    """Children of this thread that are init by name.

    One may be frozen in its cgroup, and a zombie in the container's pid namespace keeps that from ending.  A caller
    may have left us other children (`sh -c 'job & exec pyrunc ...'`), which are not ours to touch.
    """
    from pyrunc import host

    listed = host.read("/proc/thread-self/children").split()  # empty without CONFIG_PROC_CHILDREN
    return [int(pid) for pid in listed if host.read(f"/proc/{int(pid)}/comm") == b"pyrunc-init\n"]


def where(pid: int) -> str:
    """``process 4711 (pyrunc-init) waits in request_wait_answer``; for messages."""
    from pyrunc import host

    name = host.read(f"/proc/{pid}/comm").decode("utf-8", "replace").strip() or "?"
    return f"process {pid} ({name}) waits in {host.waits_in(pid)}"


def await_end(pid: int, interrupts: Interrupts | None = None) -> None:
    """Wait for the end of a child that is about to end, without reaping it.  Raises PyruncError, OSError."""
    while True:
        try:
            processes.await_end(pid, END_TIMEOUT_MS)
        except InterruptedError:
            if interrupts is not None:
                interrupts.check()
        except TimeoutError:
            raise PyruncError(f"a process of ours does not end: {where(pid)}") from None
        except ChildProcessError:
            return  # somebody else in this process has reaped it
        else:
            return


def has_ended(pid: int) -> bool:
    """Whether a child that nobody has reaped has ended."""
    try:
        processes.await_end(pid, 0)
    except OSError:
        return False
    return True


def signal_descriptor() -> int:
    """Block our signals; the descriptor that reports them.  Raises SysError."""
    try:
        return signals.signalfd()
    except OSError as error:
        raise of_init(error) from error


def connect(option: str, path: str) -> int:
    """A connection to the socket that an option names.  Raises SysError."""
    try:
        return sockets.connect(fs.encode(path))
    except OSError as error:
        raise SysError(option, "connect", error.errno or 0, value=path) from error


def reap(pid: int, interrupts: Interrupts | None = None) -> int:
    """The wait status of a child that is about to end, 0 when somebody else has reaped it.

    Raises PyruncError when it does not end, OSError.
    """
    await_end(pid, interrupts)
    try:
        return posix.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0


def raise_interrupted(interrupts: Interrupts, error: BaseException) -> None:
    """An error that a signal caused is reported as the interruption."""
    if interrupts.caught and not isinstance(error, PyruncError):
        raise PyruncError(f"interrupted by signal {interrupts.caught}") from error


def of_init(error: OSError) -> SysError:
    """The error of a system call that starts init or talks to it."""
    from pyrunc import hints

    call, number = str(error.strerror), error.errno or 0
    return SysError("init", call, number, hint=hints.find(call, number))


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


def is_null(fd: int) -> bool:
    """Whether a descriptor is /dev/null, through which nothing can be reached."""
    found = posix.fstat(fd)
    return found.st_rdev == 0x103 and found.st_mode & 0o170000 == 0o020000


def listen_fds() -> int:
    """LISTEN_FDS of socket activation, when LISTEN_PID says it is meant for us (sd_listen_fds(3))."""
    count, pid = fs.getenv("LISTEN_FDS"), fs.getenv("LISTEN_PID")
    if count.isdigit() and pid == str(posix.getpid()):
        return int(count)
    return 0


def check_preserved(count: int) -> None:
    """Every descriptor that is to be passed on must be open; asked before any of ours is.  Raises UsageError."""
    for fd in range(3, 3 + count):
        try:
            posix.fstat(fd)
        except OSError:
            raise errors.UsageError(f"--preserve-fds: descriptor {fd} is not open") from None


def write_pid_file(path: str, pid: int) -> None:
    """Decimal digits without a newline: go-runc uses Atoi on the raw bytes.  Atomic.  Raises SysError."""
    try:
        fs.replace_file(path, str(pid).encode(), 0o644)
    except OSError as error:
        raise SysError("--pid-file", "open", error.errno or 0, value=path) from error
