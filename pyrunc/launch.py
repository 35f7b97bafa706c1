"""Create, run and start a container: the one flow, from a bundle to a process.

    load, validate -> host facts -> compile -> reserve the id -> cgroup -> spawn init, handshake -> commit

The order is what makes a killed pyrunc recoverable: the intent (id, cgroup path, who we are) is in the state
directory before the first side effect, so that `delete --force ID` knows what to remove (runc #4534).
"""

from __future__ import annotations

import posix
from errno import ECONNRESET, EINTR, EPIPE, ESRCH, ETIMEDOUT
from posix import O_CLOEXEC, O_NOFOLLOW, O_RDWR

from pyrunc import cgroup, errors, fs, handshake, host, runtime, state
from pyrunc.errors import PyruncError, StateError, SysError
from pyrunc.plan import compile as compiler
from pyrunc.spec import load, validate
from pyrunc.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cgroup import Driver
    from pyrunc.console import Relay
    from pyrunc.log import Log
    from pyrunc.notify import Proxy
    from pyrunc.plan import Plan

# A step of init that takes longer than this is hung (a dead network filesystem, say).  Hooks inside the container have
# their own limits or none, so a plan with hooks waits without one.
STEP_TIMEOUT_MS = 120_000
WAIT_FOREVER = -1


class CreateOptions:
    """What `create` and `run` were asked for; paths as given on the command line."""

    __slots__ = (
        "bundle",
        "cgroup_manager",
        "config",
        "console_socket",
        "detach",
        "id",
        "keep",
        "log",
        "no_new_keyring",
        "no_pivot",
        "no_subreaper",
        "pid_file",
        "pidfd_socket",
        "preserve_fds",
        "root",
    )

    def __init__(self, id: str, log: Log) -> None:
        self.id = id
        self.log = log
        self.bundle = "."
        self.config = "config.json"
        self.root = ""
        self.pid_file = self.console_socket = self.pidfd_socket = ""
        self.no_pivot = self.no_new_keyring = self.no_subreaper = False
        self.detach = self.keep = False
        self.preserve_fds = 0
        self.cgroup_manager = "cgroupfs"


def compile_only(opts: CreateOptions) -> tuple[dict[str, Any], host.HostFacts, Plan]:
    """Load, validate and compile, touching nothing: what `pyrunc plan` prints.  Raises ConfigError."""
    job = Job(opts, "fifo")
    job.prepare(for_show=True)
    return job.config, job.facts, job.plan


def create(opts: CreateOptions) -> None:
    """Create a container that waits for `start`.  Raises PyruncError; then nothing is left behind."""
    job = Job(opts, "fifo")
    job.execute()
    job.finish()


def run(opts: CreateOptions) -> int:
    """Create and start; in the foreground wait, delete, and return the program's exit code (128 + n for signal n)."""
    job = Job(opts, "socket")
    job.execute()
    watch = None
    try:
        proxy = job.notify_proxy()
        if not opts.detach:
            # Blocked from here on and kept: one that comes while the program starts must reach it.
            job.signal_fd = checked("signalfd", runtime.shim()[1].pr_signalfd())
        job.go()
        if not opts.detach:
            from pyrunc import foreground

            # While init is at its execve.  Its terminal was set up before: see Job.go.
            watch = foreground.Watch(job)
        job.await_program()
        if proxy is not None and watch is None:
            proxy.wait(job.pidfd, job.init_pid)
    except BaseException:
        restore = watch or job.relay
        if restore is not None:
            restore.close()
        job.undo.forget()
        from pyrunc import lifecycle

        lifecycle.remove(job.container, opts.log)
        raise
    job.finish()
    return watch.wait(proxy) if watch is not None else 0


class Job:
    """One create or run at work."""

    __slots__ = (
        "cgroup_fd",
        "config",
        "console",
        "container",
        "driver",
        "enter_pid",
        "facts",
        "init_pid",
        "interrupts",
        "listen_fds",
        "log",
        "notify",
        "opts",
        "pidfd",
        "plan",
        "protocol",
        "raw",
        "relay",
        "signal_fd",
        "sock",
        "undo",
        "wait",
    )

    def __init__(self, opts: CreateOptions, wait: str) -> None:
        self.opts, self.wait, self.log = opts, wait, opts.log
        self.undo = Undo()
        self.protocol = handshake.Protocol()
        self.sock = self.pidfd = self.cgroup_fd = -1
        self.enter_pid = self.init_pid = 0
        self.interrupts: Interrupts | None = None
        self.console = -1  # our end of the console socket of a foreground terminal
        self.listen_fds = 0
        self.notify = ""
        self.relay: Relay | None = None  # of a foreground terminal
        self.signal_fd = -1
        self.config: dict[str, Any]
        self.raw: bytes
        self.facts: host.HostFacts
        self.plan: Plan
        self.container: state.Container
        self.driver: Driver

    # -- pure and read-only ------------------------------------------------------------------------------

    def prepare(self, *, for_show: bool = False) -> None:
        """Everything that can fail without having touched anything; ``for_show``: nothing will follow."""
        opts = self.opts
        bundle = fs.abspath(opts.bundle)
        self.config, self.raw = load.load_config(fs.join(bundle, opts.config))
        self.facts = host.snapshot()
        warnings = validate.check(self.config, facts=self.facts)
        for problem in warnings:
            self.log.warning(f"config.json: {problem}")
        if not for_show:
            self.check_terminal()
        linux = self.config.get("linux", {})
        options = compiler.Options(opts.id, bundle)
        options.cgroup_path = cgroup.path_for(linux.get("cgroupsPath", ""), opts.id, self.facts, opts.cgroup_manager)
        options.console = bool(self.config.get("process", {}).get("terminal"))
        options.no_pivot, options.no_new_keyring = opts.no_pivot, opts.no_new_keyring
        options.preserve_fds, options.listen_fds = opts.preserve_fds, self.listen_fds
        options.wait = self.wait
        if fs.getenv("NOTIFY_SOCKET"):
            self.notify = options.notify = f"{state.root_dir(opts.root)}/{opts.id}/notify"
        annotations = self.config.get("annotations") or {}
        if any((self.config.get("hooks") or {}).values()):
            options.create_state = state.split_state(opts.id, "creating", bundle, annotations)
            options.start_state = state.split_state(opts.id, "created", bundle, annotations)
        self.plan = compiler.compile_create(self.config, self.facts, options)
        for text in self.plan.warnings:
            self.log.warning(text)

    def check_terminal(self) -> None:
        """The terminal matrix of features.md 1.2, with runc's words.  Raises UsageError."""
        terminal = bool(self.config.get("process", {}).get("terminal"))
        detached = self.wait == "fifo" or self.opts.detach
        if detached and terminal and not self.opts.console_socket:
            raise errors.UsageError("cannot allocate tty if pyrunc will detach without setting console socket")
        if self.opts.console_socket and not (detached and terminal):
            raise errors.UsageError("cannot use console socket if pyrunc will not detach or allocate tty")

    # -- side effects ------------------------------------------------------------------------------------

    def execute(self) -> None:
        """From the bundle to an init that waits for start.  Raises PyruncError with everything undone."""
        interrupts = self.interrupts = Interrupts()
        try:
            try:
                # First of all, because it can start up on another core while the configuration is read here.  Until it
                # has a plan it is an idle process that ends with its socket: nothing is touched yet.
                self.spawn()
                self.prepare()
                self.reserve()
                self.make_cgroup()
                self.converse(interrupts)
            except OSError as error:
                raise as_sys_error(error) from error
        except BaseException as error:
            self.abandon()
            raise_interrupted(interrupts, error)
            raise
        finally:
            self.interrupts = None
            interrupts.restore()

    def abandon(self) -> None:
        """Run the undo stack; poststop hooks run as the runtime-spec asks when a create fails half-way."""
        reached_hooks = self.init_pid > 0
        # Before everything else: a cgroup with processes cannot be removed.
        self.close_socket()
        self.kill_children()
        for problem in self.undo.run():
            self.log.debug(f"undo: {problem}")
        if reached_hooks:
            self.host_hooks("poststop", "stopped", fatal=False)

    def reserve(self) -> None:
        """Take the id and write the intent."""
        self.driver = cgroup.open_driver(
            self.opts.cgroup_manager if self.facts.cgroup2_mount else "disabled", self.facts
        )
        store = state.Store(state.root_dir(self.opts.root))
        self.container = container = store.reserve(self.opts.id)
        self.undo.push(container.destroy)
        container.describe_intent(
            config=self.config,
            bundle=fs.abspath(self.opts.bundle),
            cgroup=self.plan.cgroup_path,
            cgroup_dir=self.facts.cgroup_dir(self.plan.cgroup_path) if self.plan.cgroup_path else "",
            cgroup_manager=self.opts.cgroup_manager if self.plan.cgroup_path else "disabled",
            late=self.plan.late_origins(),
        )
        if self.notify:
            from pyrunc import notify

            container.data["notify"] = self.notify
            notify.prepare(self.notify)
        if self.plan.cgroup_path:
            container.data["cgroup_made"] = self.driver.missing(self.plan.cgroup_path)
        container.save()
        write_new(f"{container.dir}/config.json", self.raw)

    def make_cgroup(self) -> None:
        """Create the cgroup; limits come at MOUNTED, when init's own set-up no longer counts against them."""
        path = self.plan.cgroup_path
        resources = self.resources()
        if path:
            self.cgroup_fd = self.driver.create(path, resources)
            self.undo.push(self.remove_cgroup)
        else:
            self.driver.create(path, resources)  # refuses limits

    def remove_cgroup(self) -> None:
        """Undo of `make_cgroup`; only what did not exist before, so that a cgroup in use stays."""
        if self.driver.made:
            self.driver.kill(self.plan.cgroup_path, 9)
            self.driver.remove(self.plan.cgroup_path, made=self.driver.made)

    def resources(self) -> dict[str, Any]:
        """linux.resources, {} without any."""
        return (self.config.get("linux") or {}).get("resources") or {}

    def spawn(self) -> None:
        """Start init from its sealed memfd, with the handshake socket and nothing else of ours."""
        self.listen_fds = listen_fds()
        npreserve = self.listen_fds + self.opts.preserve_fds
        check_preserved(npreserve)
        ffi, lib = runtime.shim()
        image = runtime.init_image()
        memfd = checked("memfd_create", lib.pr_memfd_sealed(b"pyrunc-init", ffi.from_buffer(image), len(image), 1))
        pair = ffi.new("int[2]")
        checked("socketpair", lib.pr_socketpair(pair, 4 + npreserve))
        self.sock = pair[0]
        try:
            self.enter_pid = checked("posix_spawn", lib.pr_spawn_init(memfd, pair[1], npreserve))
        finally:
            posix.close(pair[1])
            posix.close(memfd)

    def close_socket(self) -> None:
        """EOF on the socket is what makes an init that is still setting up go away."""
        if self.sock >= 0:
            posix.close(self.sock)
            self.sock = -1

    def kill_children(self) -> None:
        """End enter and init, and reap them."""
        for pid in (self.init_pid, self.enter_pid):
            if pid:
                try:
                    posix.kill(pid, 9)
                    posix.waitpid(pid, 0)
                except OSError:
                    pass  # gone already, or reaped
        self.init_pid = self.enter_pid = 0

    # -- the handshake -----------------------------------------------------------------------------------

    def converse(self, interrupts: Interrupts) -> None:
        """Drive the handshake until init waits for start."""
        timeout = WAIT_FOREVER if self.plan.has_hooks() else STEP_TIMEOUT_MS
        while self.protocol.state != handshake.DONE:
            record = self.receive(timeout, interrupts)
            if record is None:
                raise self.premature_end()
            try:
                actions = self.protocol.feed(record)
            except handshake.ProtocolError as error:
                raise PyruncError(str(error)) from error
            for action, what in actions:
                self.log.debug(f"init: {handshake.NAMES[what.type]} at step {what.step}")
                getattr(self, "on_" + action)(what)
            interrupts.check()

    def receive(self, timeout: int, interrupts: Interrupts | None) -> handshake.Record | None:
        """The next record; None at EOF.  Raises PyruncError when init says nothing for ``timeout`` ms."""
        ffi, lib = runtime.shim()
        buffer = ffi.new("char[256]")
        while True:
            got = lib.pr_recv(self.sock, buffer, handshake.RECORD_SIZE, timeout)
            if got == -EINTR:
                if interrupts is not None:
                    interrupts.check()
                continue
            if got == -ETIMEDOUT:
                raise PyruncError(f"container init did not answer within {timeout // 1000} s")
            if got in (0, -ECONNRESET):  # reset: init died with a record of ours unread
                return None
            checked("recv", got)
            return handshake.Record(ffi.buffer(buffer, got)[:])

    def send(self, kind: int, value: int = 0, fds: list[int] | None = None) -> None:
        """Send a record, with descriptors attached."""
        ffi, lib = runtime.shim()
        numbers = ffi.new("int[]", fds or [0])
        sent = lib.pr_send(self.sock, handshake.encode(kind, value), 256, numbers, len(fds or ()))
        if sent in (-EPIPE, -ECONNRESET):
            raise self.premature_end()
        checked("send", sent)

    def on_send_plan(self, record: handshake.Record) -> None:
        """HELLO: compare builds, hand over the plan and its descriptors."""
        from pyrunc.plan import ops

        if record.value != ops.ABI:
            raise PyruncError(f"init is of another build: ABI {record.value:#x}, expected {ops.ABI:#x}")
        _, lib = runtime.shim()
        self.fill_filter()
        blob = self.plan.encode()
        opened: list[int] = []
        try:
            opened.append(checked("memfd_create", lib.pr_memfd_sealed(b"pyrunc-plan", blob, len(blob), 0)))
            for kind, value, origin in self.plan.fds:
                opened.append(self.open_slot(kind, value, origin))
            self.send(handshake.PLAN, len(blob), opened)
        finally:
            for fd in opened:
                posix.close(fd)

    def fill_filter(self) -> None:
        """Compile the seccomp profile; here, because init is starting up on the other core meanwhile."""
        if self.plan.seccomp is not None:
            from pyrunc import seccomp

            self.plan.set_filter(*seccomp.compile_filter(self.plan.seccomp, cache_dir=seccomp.cache_dir()))

    def open_slot(self, kind: str, value: str, origin: str) -> int:
        """Open one descriptor that the plan needs.  Raises SysError with the field it came from."""
        if kind == "cgroup":
            return posix.dup(self.cgroup_fd)
        if kind in ("start", "error"):
            path = self.container.fifo(kind)
            posix.mkfifo(path, 0o600)
            return posix.open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW)
        if kind == "console":
            return self.open_console()
        try:
            return posix.open(value, posix.O_RDONLY | O_CLOEXEC)
        except OSError as error:
            raise SysError(origin + "/path", "open", error.errno or 0, value=value) from error

    def open_console(self) -> int:
        """The socket that the pty's master goes to: the caller's, or one end of a pair that `run` keeps."""
        ffi, lib = runtime.shim()
        if self.opts.console_socket:
            fd = lib.pr_connect_unix(fs.encode(self.opts.console_socket))
            if fd < 0:
                raise SysError("--console-socket", "connect", -fd, value=self.opts.console_socket)
            return int(fd)
        pair = ffi.new("int[2]")
        checked("socketpair", lib.pr_socketpair(pair, 0))
        self.console = pair[0]
        self.undo.push(posix.close, self.console)
        return int(pair[1])

    def on_map_ids(self, record: handshake.Record) -> None:
        """MAP comes only from UNSHARE_USER, which no plan of this version holds."""
        raise PyruncError("init asked for id mappings that the plan does not have")

    def on_pid(self, record: handshake.Record) -> None:
        """PID: from now on there is a process to kill; say so in the state before anything else."""
        self.init_pid = record.value
        self.pidfd = posix.pidfd_open(self.init_pid)
        posix.waitpid(self.enter_pid, 0)
        self.enter_pid = 0
        self.container.set_init(self.init_pid)
        self.container.save()
        resources = self.resources()
        if self.plan.cgroup_path:
            # Overlaps init's mounts.  The default device rules allow what init does meanwhile (mknod, /dev/null, ptys).
            self.driver.devices(self.cgroup_fd, resources.get("devices"), "/linux/resources/devices")

    def on_mounted(self, record: handshake.Record) -> None:
        """MOUNTED: limits, then the hooks that run in the runtime's namespaces."""
        resources = self.resources()
        if self.plan.cgroup_path and resources:
            self.driver.apply(self.plan.cgroup_path, resources)
        self.host_hooks("prestart", "creating", fatal=True)
        self.host_hooks("createRuntime", "creating", fatal=True)
        self.send(handshake.GO)

    def on_ready(self, record: handshake.Record) -> None:
        """READY: rlimits from here, because init may have lost CAP_SYS_RESOURCE and needs descriptors until now."""
        _, lib = runtime.shim()
        for resource, soft, hard, origin in self.plan.rlimits:
            failed = lib.pr_prlimit(self.init_pid, resource, soft, hard)
            if failed < 0:
                from pyrunc import hints

                raise SysError(origin, "prlimit", -failed, hint=hints.find("RLIMIT", -failed))
        self.send(handshake.GO)

    def on_seccomp(self, record: handshake.Record) -> None:
        """SECCOMP: fetch the notify descriptor out of init and hand it to the agent at listenerPath."""
        from pyrunc import seccomp

        status = state.oci_state(
            self.opts.id, "creating", self.init_pid, self.container.data["bundle"], self.config.get("annotations") or {}
        )
        seccomp.send_listener(self.pidfd, record.value, self.plan.seccomp or {}, self.init_pid, status)
        self.send(handshake.GO)

    def on_created(self, record: handshake.Record) -> None:
        """CREATED: init waits.  The state is committed before the caller hears of it."""
        self.send_pidfd()
        if self.opts.pid_file:
            write_pid_file(self.opts.pid_file, self.init_pid)
            self.undo.push(fs.ignore, posix.unlink, self.opts.pid_file)
        self.container.data["status"] = "created"
        self.container.save()

    def send_pidfd(self) -> None:
        """--pidfd-socket: one SCM_RIGHTS message with init's pidfd, as runc sends it."""
        path = self.opts.pidfd_socket
        if not path:
            return
        _, lib = runtime.shim()
        fd = lib.pr_connect_unix(fs.encode(path))
        if fd < 0:
            raise SysError("--pidfd-socket", "connect", -fd, value=path)
        try:
            checked("sendmsg", lib.pr_send_fd(fd, b"pidfd", 5, self.pidfd))
        finally:
            posix.close(fd)

    def on_warn(self, record: handshake.Record) -> None:
        """WARN: init goes on."""
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

        return faults.error(self.plan, record)

    def premature_end(self) -> PyruncError:
        """EOF without FAIL: init was killed.  Says by what, where it can be known."""
        if self.plan.cgroup_path and self.driver.oom_kills(self.plan.cgroup_path):
            return PyruncError("/linux/resources/memory/limit: container init was OOM-killed (memory limit too low?)")
        text = f"container init ended unexpectedly in state {self.protocol.state}"
        pid = self.init_pid or self.enter_pid
        try:
            _, status = posix.waitpid(pid, 0)
            if posix.WIFSIGNALED(status):
                text += f": killed by signal {posix.WTERMSIG(status)}"
        except OSError:
            pass
        self.init_pid = 0 if pid == self.init_pid else self.init_pid
        return PyruncError(text)

    # -- after CREATED -----------------------------------------------------------------------------------

    def host_hooks(self, kind: str, status: str, *, fatal: bool) -> None:
        """Run the hooks of one kind in the runtime's namespaces."""
        listed = self.plan.hooks.get(kind)
        if listed:
            pid = 0 if status == "stopped" else self.init_pid
            text = state.oci_state(
                self.opts.id, status, pid, self.container.data["bundle"], self.config.get("annotations") or {}
            )
            annotations = self.config.get("annotations") or {}
            from pyrunc import hooks

            hooks.run_hooks(
                kind,
                listed,
                text,
                bundle=self.container.data["bundle"],
                log=self.log,
                fatal=fatal,
                annotations=annotations,
                check=self.interrupts.check if self.interrupts is not None else None,
            )

    def notify_proxy(self) -> Proxy | None:
        """The sd_notify proxy, when the caller of `run` is a service manager."""
        if not self.notify:
            return None
        from pyrunc import notify

        return notify.Proxy(self.notify, fs.getenv("NOTIFY_SOCKET"))

    def go(self) -> None:
        """`run`: let init go on to the program.  Raises StateError when there is none."""
        if "process" not in self.config:
            raise StateError("cannot start: /process is missing in config.json")
        if self.console >= 0:
            from pyrunc import console

            # The program's first line must already meet a terminal in the right mode.
            self.relay = console.Relay(console.receive_master(self.console))
        self.send(handshake.GO)

    def await_program(self) -> None:
        """`run`: EOF on the socket is a successful execve.  Raises the failing step's error."""
        record = self.receive(WAIT_FOREVER, None)
        if record is not None:
            raise self.step_error(record)
        self.close_socket()
        self.container.data["status"] = "running"
        self.container.save()
        self.host_hooks("poststart", "running", fatal=True)

    def finish(self) -> None:
        """Success: what was made stays; only our own descriptors go."""
        self.undo.forget()
        self.close_socket()
        if self.cgroup_fd >= 0:
            posix.close(self.cgroup_fd)
            self.cgroup_fd = -1
        self.container.unlock()


# -- helpers --------------------------------------------------------------------------------------------------


class Interrupts:
    """SIGINT, SIGTERM, SIGHUP, SIGQUIT during set-up: noted, acted on between two steps, never in mid-rollback."""

    __slots__ = ("lib",)

    def __init__(self) -> None:
        self.lib = runtime.shim()[1]
        self.lib.pr_signals_catch()

    @property
    def caught(self) -> int:
        """The signal that came, 0 without one."""
        return int(self.lib.pr_signals_caught())

    def check(self) -> None:
        """Raises PyruncError when a signal came."""
        if self.caught:
            raise PyruncError(f"interrupted by signal {self.caught}")

    def restore(self) -> None:
        """Put the former dispositions back."""
        self.lib.pr_signals_restore()


def raise_interrupted(interrupts: Interrupts, error: BaseException) -> None:
    """An error that a signal caused is reported as the interruption."""
    if interrupts.caught and not isinstance(error, PyruncError):
        raise PyruncError(f"interrupted by signal {interrupts.caught}") from error


def checked(call: str, result: int) -> int:
    """A shim result: the value, or SysError for -errno."""
    if result < 0:
        raise SysError("pyrunc", call, -result)
    return int(result)


def as_sys_error(error: OSError) -> SysError:
    """An OSError of our own file work, with the path it was about."""
    name = error.filename
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    return SysError(str(name or "pyrunc"), "", error.errno or ESRCH)


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


def write_new(path: str, data: bytes) -> None:
    """A file in a directory that is only ours: no need to be atomic.  Raises OSError."""
    fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
    try:
        fs.write_all(fd, data)
    finally:
        posix.close(fd)


def write_pid_file(path: str, pid: int) -> None:
    """Decimal digits without a newline: go-runc uses Atoi on the raw bytes.  Atomic.  Raises SysError."""
    try:
        fs.replace_file(path, str(pid).encode(), 0o644)
    except OSError as error:
        raise SysError("--pid-file", "open", error.errno or 0, value=path) from error
