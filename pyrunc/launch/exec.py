"""Add a process to an existing container, with a plan that joins its namespaces.

    check the state -> open the namespaces -> compile -> handshake -> pid file -> foreground: wait

`exec` does not write the container's state and does not lock it.  Several execs can run at the same
time, and `kill` and `delete` do not wait for them.
"""

from __future__ import annotations

import posix
from errno import ENODEV, ENOENT
from posix import O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_PATH, W_OK

from pyrunc import fs, handshake, host
from pyrunc.errors import PyruncError, StateError, SysError, UsageError, show
from pyrunc.launch import joined
from pyrunc.launch.session import WAIT_FOREVER, InitSession, SessionOptions, write_pid_file
from pyrunc.native import files, processes
from pyrunc.plan import AHEAD, exec
from pyrunc.plan.context import Options
from pyrunc.plan.ops import OP_PLACE
from pyrunc.plan.process import RLIMIT_NPROC
from pyrunc.spec import exec_process, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyrunc import state
    from pyrunc.explain import Setting
    from pyrunc.launch.ending import Interrupts
    from pyrunc.launch.session import Handlers
    from pyrunc.log import Log
    from pyrunc.plan import Plan
    from pyrunc.spec.types import Config, Process

_CGROUP2_MAGIC = 0x63677270
_MAX_PROCESS = 16 << 20  # bytes of a process.json


class ExecOptions(SessionOptions):
    """Options of `exec`; ``flags`` are the command-line options that change the process."""

    __slots__ = ("args", "cgroup", "detach", "flags", "ignore_paused", "process", "tools")

    def __init__(self, id: str, log: Log) -> None:
        super().__init__(id, log)
        self.args: list[str] = []
        self.process = ""  # path of a process.json, which replaces ``args`` and ``flags``
        self.tools = ""  # absolute path of a directory with programs for this process alone
        self.flags: Mapping[str, object] = {}
        self.cgroup: list[str] = []
        self.detach = self.ignore_paused = False


def execute(opts: ExecOptions) -> int:
    """Run a process in a container.

    Returns its exit code (128 + n for signal n); with ``detach``, returns 0 as soon as it runs.
    Raises PyruncError if the program could not be executed, after everything has been undone.
    """
    session = Exec(opts)
    session.execute()
    if opts.detach:
        session.close()
        return 0
    from pyrunc.launch import foreground

    watch = foreground.Watch(session)
    code = watch.wait(None)
    watch.drain()
    session.close()
    return code


def compile_only(config: Config, facts: host.HostFacts, id: str, path: str, cgroup: str) -> Plan:
    """The plan of `exec --process` in a container of ``config``, for `pyrunc plan`.

    Raises ConfigError.
    """
    source, process = read_process(path, config.get("process") or {"cwd": "/"})
    exec_process.check(process, facts, source)
    options = Options(id)
    kinds = {entry["type"] for entry in config.get("linux", {}).get("namespaces", ())}
    options.joined = [(kind, f"/proc/PID/ns/{name}") for kind, name in exec.NAMESPACES.items() if kind in kinds]
    options.cgroup = facts.cgroup_dir(cgroup) if cgroup else ""
    options.rootfs = "" if "mount" in kinds else config["root"]["path"]
    return exec.compile_exec(config, process, facts, options)


def read_process(path: str, container: Process) -> tuple[str, Process]:
    """The name of a process.json, and its process with defaults from ``container``.

    Raises ConfigError, SysError.
    """
    source = path.rpartition("/")[2]
    try:
        data = fs.read_file(path, _MAX_PROCESS)
    except OSError as error:
        raise SysError("--process", "open", error.errno or 0, value=path) from error
    return source, exec_process.inherit(exec_process.parse(data, source), container)


class Exec(InitSession):
    """The session of one `exec`."""

    __slots__ = ("ahead", "config", "container", "filtered", "listener", "ns_fds", "opts", "wanted")

    transitions = handshake.JOIN
    joins = True
    opts: ExecOptions

    def __init__(self, opts: ExecOptions) -> None:
        super().__init__(opts.log)
        self.opts = opts
        self.filtered = False
        self.ahead = False  # `enter` does not report READY
        self.listener = -1  # the seccomp notify descriptor, until the pid for its agent is known
        self.ns_fds: dict[str, int] = {}  # path -> descriptor
        self.config: Config
        self.wanted: Process
        self.container: state.Container

    def handlers(self) -> Handlers:
        """The method that handles each action of ``transitions``."""
        return {**super().handlers(), "pid": self.on_pid, "seccomp": self.on_seccomp}

    # -- the flow ----------------------------------------------------------------------------------

    def steps(self, interrupts: Interrupts) -> None:
        """Go from the command line to a running program."""
        self.spawn()  # init starts on another core while we read the state
        self.prepare()
        self.converse(interrupts)
        self.channel.close()
        if self.opts.pid_file:
            write_pid_file(self.opts.pid_file, self.init_pid)

    def close(self) -> None:
        """Close the descriptors of the session."""
        for fd in (*self.ns_fds.values(), self.cgroup_fd, self.pidfd, self.listener):
            if fd >= 0:
                fs.ignore(posix.close, fd)
        self.ns_fds = {}
        self.cgroup_fd = self.pidfd = self.listener = -1

    def foreground(self) -> bool:
        """Whether the command waits: without --detach."""
        return not self.opts.detach

    # -- read-only ---------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Read the container's state, build the process, and compile the plan."""
        opts = self.opts
        self.container = container = self.open_store().open(opts.id)
        self.check_status()
        # Not validated again: create has validated it, and only we write to this directory.
        self.config, _ = load.load_config(container.dir + "/config.json")
        if container.data.get("seccomp_log"):
            from pyrunc.launch import seccomp_log

            seccomp_log.add(self.config)
        facts = host.HostFacts()
        facts.euid = posix.geteuid()
        process = self.wanted = self.process(facts)
        options = Options(opts.id)
        options.joined = self.open_namespaces()
        if opts.tools:
            from pyrunc.launch import tools

            process = self.wanted = tools.prepare(opts.tools, self.config, process, options)
        options.cgroup = self.open_cgroup()
        if opts.cgroup:
            options.cgroup_origin = f"--cgroup {show(opts.cgroup[0])}"
        if options.cgroup and container.data.get("cgroup_manager") == "systemd":
            self.move_into_scope(options.cgroup, facts)
        kinds = [entry["type"] for entry in self.config.get("linux", {}).get("namespaces", ())]
        options.rootfs = "" if "mount" in kinds else container.data.get("rootfs", "")
        options.no_new_keyring = bool(container.data.get("no_new_keyring"))
        options.preserve_fds, options.listen_fds = opts.preserve_fds, self.listen_fds
        self.plan = exec.compile_exec(self.config, process, facts, options)
        self.log.warnings(self.plan.warnings, "config.json")

    def check_status(self) -> None:
        """Raises StateError if the status does not allow exec."""
        status = self.container.status()
        if status == "paused" and not self.opts.ignore_paused:
            raise StateError("cannot exec in a paused container (use --ignore-paused to override)")
        if status in ("stopped", "creating"):
            # callers search for "stopped"
            raise StateError(f"cannot exec in a {status} container")

    def process(self, facts: host.HostFacts) -> Process:
        """Build and validate the process to run.  Raises ConfigError, UsageError."""
        opts = self.opts
        own: Process = self.config.get("process") or {"cwd": "/"}
        if opts.process:
            source, process = self.read_process(own)
        else:
            source = "exec"
            process = exec_process.build(own, opts.args, opts.flags)
        self.log.warnings(exec_process.check(process, facts, source), source)
        terminal = bool(process.get("terminal"))
        self.check_terminal(terminal, self.opts.detach)
        if terminal:
            self.close_streams()
        self.own_streams(self.config, process, self.container.data["pid"])
        return process

    def read_process(self, own: Process) -> tuple[str, Process]:
        """The name of the --process file, and its process.  Raises ConfigError, SysError."""
        return read_process(self.opts.process, own)

    def open_namespaces(self) -> list[tuple[str, str]]:
        """Open the namespaces of init that differ from ours.  Raises StateError if init has
        ended."""
        return joined.open_namespaces(self.container, self.ns_fds, "exec")

    # -- the cgroup --------------------------------------------------------------------------------

    def open_cgroup(self) -> str:
        """Open the cgroup in which the process is created.

        Returns its directory, or "" if the container has no cgroup of its own.  Without --cgroup,
        init's current cgroup is used if the container's cgroup is removed or cannot contain
        processes: a service manager in the container moves itself.
        """
        base = self.container.cgroup_directory()
        sub = sub_cgroup(self.opts.cgroup)
        if not base:
            if self.opts.cgroup:
                raise UsageError("--cgroup: the container has no cgroup of its own")
            return ""
        directory = f"{base}/{sub}" if sub else base
        flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
        try:
            if not self.opts.cgroup and not takes_processes(base):
                directory = self.init_cgroup(base)
            self.cgroup_fd = posix.open(directory, flags)
        except OSError as error:
            where = "--cgroup" if self.opts.cgroup else f"cgroup {self.container.data.get('cgroup')}"
            if error.errno not in (ENOENT, ENODEV):
                raise SysError(where, "open", error.errno or 0, value=sub or None) from error
            what = "no such cgroup in the container's" if sub else "the container's cgroup is gone"
            raise SysError(where, "open", error.errno or 0, value=sub or None, detail=what) from error
        if files.filesystem_type(self.cgroup_fd) != _CGROUP2_MAGIC:
            raise PyruncError(f"{show(directory)} is not in a cgroup v2 hierarchy")
        return directory

    def init_cgroup(self, base: str) -> str:
        """The directory of init's current cgroup, which may be outside the container's.

        Raises OSError.
        """
        path = host.own_cgroup(fs.read_file(f"/proc/{self.container.data['pid']}/cgroup"))
        top = self.container.data["cgroup"]
        if path == top or path.startswith(top.rstrip("/") + "/"):
            return base + path[len(top) :]
        return host.snapshot().cgroup_dir(path)

    def move_into_scope(self, directory: str, facts: host.HostFacts) -> None:
        """Ask the user's systemd to move `enter` to its scope if we lack the permission.

        The kernel requires write access to the common ancestor of both cgroups (cgroups(7),
        "Delegation containment").  For a user in a login session, root owns this ancestor.
        Raises PyruncError.
        """
        base, path = self.container.cgroup_directory(), self.container.data["cgroup"]
        ours, theirs = host.own_cgroup(host.read("/proc/self/cgroup")).split("/"), path.split("/")
        common = 0
        while common < min(len(ours), len(theirs)) and ours[common] == theirs[common]:
            common += 1
        above = base.rsplit("/", len(theirs) - common)[0]
        if not posix.access(above + "/cgroup.procs", W_OK):
            from pyrunc.cgroup import systemd

            systemd.move_into_scope(path, directory[len(base) :], self.enter_pid, facts)

    # -- the handshake -----------------------------------------------------------------------------

    def step_limit(self) -> int:
        """No limit with --ignore-paused: a process in a frozen cgroup answers after the thaw."""
        return WAIT_FOREVER if self.opts.ignore_paused else super().step_limit()

    def open_slot(self, kind: str, value: str, origin: str) -> int:
        """Also pass on the namespaces, which are already open."""
        if kind == "ns":
            return self.ns_fds.pop(value)
        if kind == "tools":
            from pyrunc.launch import tools

            return tools.open_tree(value, f"/proc/{self.container.data['pid']}/ns/user")
        return super().open_slot(kind, value, origin)

    def send_plan(self) -> None:
        """Send the plan; also the GOs to PLACED and READY, if nothing has to be done then.

        READY is not reported in this case: on busy cores each record for us would cost `enter` a
        time slice.
        """
        self.ahead = not self.container.data.get("rdt") and self.harmless_limits()
        if self.ahead:
            self.set_limits(self.enter_pid)  # before it has the plan: the clone of PLACE inherits them
            self.plan.flags |= AHEAD
            placed = self.plan.has(OP_PLACE)
            self.protocol = (
                handshake.Protocol(handshake.PLACE_AHEAD, handshake.PLACING)
                if placed
                else handshake.Protocol(handshake.JOIN_AHEAD, handshake.JOINED)
            )
        super().send_plan()
        if self.ahead:
            self.send(handshake.GO)
            if placed:
                self.send(handshake.GO)

    def on_placed(self, record: handshake.Record) -> None:
        """PLACED: the clone may already have its GO."""
        self.follow_clone(record.value)
        if not self.ahead:
            self.send(handshake.GO)

    def on_ready(self, record: handshake.Record) -> None:
        """READY: set the RDT class and rlimits of `enter` before it drops its privileges."""
        if self.container.data.get("rdt"):
            from pyrunc.cgroup import rdt

            rdt.join(self.container.data["rdt"], self.enter_pid)
        self.set_limits(self.enter_pid, put_off=RLIMIT_NPROC)
        self.send(handshake.GO)

    def on_seccomp(self, record: handshake.Record) -> None:
        """SECCOMP: take the notify descriptor; send it once the program's pid is known."""
        from pyrunc import seccomp

        if self.filtered:
            raise PyruncError("init reports a second listener")
        self.filtered = True
        pidfd = self.pidfd if self.init_pid else posix.pidfd_open(self.enter_pid)
        try:
            self.listener = seccomp.take_listener(pidfd, record.value, self.plan.seccomp or seccomp.NO_PROFILE)
        finally:
            if pidfd != self.pidfd:
                posix.close(pidfd)
        if self.init_pid:
            self.hand_over_listener()
        self.send(handshake.GO)

    def hand_over_listener(self) -> None:
        """Send the notify descriptor to the seccomp agent."""
        from pyrunc import seccomp

        status = self.container.oci_state(self.container.status())
        seccomp.hand_over(self.listener, self.plan.seccomp or seccomp.NO_PROFILE, self.init_pid, status)
        posix.close(self.listener)
        self.listener = -1

    def on_pid(self, record: handshake.Record) -> None:
        """PID: the process waits for GO, and only executes the program after it."""
        self.init_pid = record.value
        self.pidfd = posix.pidfd_open(self.init_pid)
        if self.plan.sched_attr:
            self.set_scheduler()
        if self.listener >= 0:
            self.hand_over_listener()
        self.send_pidfd()
        if self.foreground():
            self.channel.block_signals()
        self.attach_terminal()
        self.send(handshake.GO)
        self.reap_enter()  # by now it has exited

    def set_scheduler(self) -> None:
        """Set process.scheduler, for which the process itself no longer has the capability.

        Raises SysError.
        """
        try:
            processes.sched_setattr(self.init_pid, self.plan.sched_attr)
        except OSError as error:
            from pyrunc import hints

            hint = hints.find("SCHEDULER", error.errno or 0)
            raise SysError("/process/scheduler", "sched_setattr", error.errno or 0, hint=hint) from error

    def setting(self) -> Setting:
        """The root, process and config that explain a failed execve."""
        from pyrunc import explain

        return explain.Setting(self.config, self.wanted, f"/proc/{self.container.data['pid']}/root")

    def explain(self, name: str, number: int) -> str:
        """Why a program could not be executed.  Raises OSError, PyruncError."""
        from pyrunc import explain

        return explain.bounded(self.setting(), name, number)

    def on_fail(self, record: handshake.Record) -> None:
        """FAIL: raise the error of the step, or StateError if the container has ended."""
        self.check_alive()
        raise self.step_error(record)

    def premature_end(self) -> PyruncError:
        """The error for EOF without FAIL.  Raises StateError if the container has ended."""
        self.check_alive()
        return super().premature_end()

    def check_alive(self) -> None:
        """Raises StateError if the container has ended."""
        if not self.container.init_alive():
            raise StateError("cannot exec in a stopped container: its first process has just ended")


def takes_processes(directory: str) -> bool:
    """Whether a cgroup exists and can contain processes: it delegates no controllers.

    Raises OSError.
    """
    try:
        return not fs.read_file(directory + "/cgroup.subtree_control", 4096).strip()
    except FileNotFoundError:
        return False


def sub_cgroup(given: list[str]) -> str:
    """The path of --cgroup below the container's cgroup.  Raises UsageError.

    cgroup v2 has one hierarchy: controllers before a colon, a v1 syntax of runc, select nothing,
    but all paths must be equal.
    """
    found = ""
    for text in given:
        controllers, colon, path = text.rpartition(":")
        if colon and not all(controllers.split(",")):
            raise UsageError(f"--cgroup {show(text)}: an empty controller name before the colon")
        # cgroupfs has no symbolic links, so refusing ".." keeps the path below the container's
        # cgroup (crun 1.28 had an escape here).
        if ".." in path.split("/"):
            raise UsageError(f'--cgroup {show(text)}: bad sub cgroup path: expected one without ".."')
        if "\0" in path or "\n" in path:
            raise UsageError(f"--cgroup {show(text)}: expected a path without NUL bytes and newlines")
        path = fs.normpath("/" + path)[1:]
        if found and path != found:
            raise UsageError("--cgroup: cgroup v2 has one hierarchy, so only one path can be given")
        found = path
    return found
