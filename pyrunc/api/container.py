"""A container: the verbs as methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, TypedDict, Unpack, cast

from pyrunc import signals, state
from pyrunc.api import children, library
from pyrunc.api.programs import Completed, Process, Program, ProgramFailed
from pyrunc.api.stdio import DEVNULL, PIPE, Stdio, Stream
from pyrunc.api.types import Event, Resources, State, Stats
from pyrunc.container import events as happenings
from pyrunc.container import lifecycle, processes
from pyrunc.container import update as updates
from pyrunc.errors import StateError, UsageError
from pyrunc.spec import added_mounts

if TYPE_CHECKING:
    import builtins

    from pyrunc.api.children import Child
    from pyrunc.api.runtime import Runtime


class ExecOptions(TypedDict, total=False):
    """Options of `Container.exec`, all optional. Defaults are those of the container's first
    program.

    ``env`` is added to the container's environment. ``user`` is ``"UID[:GID]"``, numbers only (a
    name would be looked up in a file that the container can write); ``groups`` are supplementary
    ones. ``capabilities`` (``"CAP_NET_RAW"``) are added to the bounding, effective and permitted
    sets. ``cgroup`` is a path below the container's cgroup, which must exist. ``tools`` is the
    absolute path of a directory on the host that only this process sees, read-only; its ``bin`` is
    the first directory in PATH. ``process`` is a
    complete ``process`` object of config.md that replaces the arguments and the options above.

    ``stdin``, ``stdout`` and ``stderr``: a descriptor, a file, `PIPE`, `STDOUT` (stderr only),
    `DEVNULL` (the default) or `INHERIT`. ``tty`` gives the process a terminal, whose master is sent
    to the unix socket ``console_socket``.
    """

    cwd: str
    env: Mapping[str, str]
    user: str
    groups: Sequence[int]
    capabilities: Sequence[str]
    no_new_privileges: bool
    apparmor: str
    selinux_label: str
    cgroup: str
    ignore_paused: bool
    tools: str
    process: Mapping[str, object]
    stdin: Stream
    stdout: Stream
    stderr: Stream
    tty: bool
    console_socket: str
    pid_file: str


# Option of ExecOptions -> option of the command line.
_FLAGS = {
    "cwd": "cwd", "user": "user", "apparmor": "apparmor", "selinux_label": "process-label",
    "no_new_privileges": "no-new-privs", "tty": "tty",
}  # fmt: skip


class Container(Program):
    """A container of a `Runtime`. Every method reads the state directory, so it agrees with the
    command line.

    As a context manager it deletes the container by force on exit. Methods raise `NotFound` if the
    container does not exist, `Busy` if another pyrunc locks it for more than 10 seconds, `Damaged`
    if its state is unusable.
    """

    def __init__(self, runtime: Runtime, id: str, child: Child | None = None, stdio: Stdio | None = None) -> None:
        super().__init__(stdio)
        self.runtime = runtime
        self.id = id
        self.warnings: builtins.list[str] = []
        """Warnings of `create` about the configuration, at most 100 texts."""
        self._child = child

    def __repr__(self) -> str:
        return f"<Container {self.id!r} root={self.runtime.root!r}>"

    @contextmanager
    def _opened(self) -> Iterator[state.Container]:
        with library.opened(self.runtime.root) as store:
            yield store.open(self.id)

    @contextmanager
    def _locked(self) -> Iterator[state.Container]:
        with self._opened() as found, library.locked(found):
            yield found

    # -- state and statistics
    # ----------------------------------------------------------------------------------

    def state(self) -> State:
        """The state of the container. Raises NotFound, Damaged, SysError."""
        with self._opened() as found:
            report = found.report()
        return State(
            oci_version=report["ociVersion"],
            id=report["id"],
            status=report["status"],
            pid=report["pid"],
            bundle=report["bundle"],
            annotations=report.get("annotations") or {},
            rootfs=report["rootfs"],
            created=report["created"],
        )

    @property
    def pid(self) -> int:
        """The container's first process in the caller's pid namespace; 0 once it has ended."""
        return self.state().pid

    def processes(self) -> builtins.list[int]:
        """The pids of all processes of the container, in the caller's pid namespace. Raises
        SysError."""
        with self._opened() as found:
            return processes.pids(found)[0]

    def stats(self) -> Stats:
        """The container's current usage. Raises StateError if it has stopped, PyruncError
        without a cgroup."""
        with self._opened() as found:
            return cast("Stats", happenings.measure(found)["data"])

    def events(self, interval: float = 5.0) -> Iterator[Event]:
        """OOM kills as they happen, and statistics every ``interval`` seconds, until the container
        stops.

        Close the iterator (``.close()``) to release its descriptors earlier. Raises StateError if
        the container has already stopped, UsageError.
        """
        if interval <= 0:
            raise UsageError(f"interval={interval}: expected more than 0 seconds")
        with self._opened() as found:
            for event in happenings.watch([found], interval, self.runtime._messages()):
                yield Event(event["type"], event["id"], event.get("data"))

    # -- lifecycle
    # ---------------------------------------------------------------------------------------------

    def start(self) -> Container:
        """Execute the program of a created container (runtime.md, "Start"); returns when it has
        been executed.

        Raises StateError in any other state, and SysError if the program cannot be executed. The
        container has then stopped.
        """
        with self._locked() as found:
            lifecycle.start(found, self.runtime._messages(), notify=False)
        return self

    def exec(self, args: Sequence[str] = (), **options: Unpack[ExecOptions]) -> Process:
        """Start another process in the container; returns when its program has been executed.

        Raises StateError if the container has stopped or is paused, ConfigError, SysError,
        UsageError. An exception leaves nothing behind.
        """
        library.check_options("exec", options, ExecOptions)
        if bool(args) == ("process" in options):
            raise UsageError("exec: expected arguments, or the option process")
        if isinstance(args, str):
            raise UsageError("exec: expected a list of arguments, not a string")
        stdio = library.open_stdio(
            options.get("stdin", DEVNULL), options.get("stdout", DEVNULL), options.get("stderr", DEVNULL)
        )
        try:
            opts = self._execution([*args], options, stdio)
            job = library.Execute(opts)
            job.execute()
            pidfd, job.pidfd = job.pidfd, -1
            job.close()
            job.release()
            return Process(tuple(job.wanted.get("args", ())), children.Child(job.init_pid, pidfd), stdio)
        except OSError as error:
            raise library.as_error(error) from error
        finally:
            stdio.close()

    def _execution(self, args: builtins.list[str], options: ExecOptions, stdio: Stdio) -> library.Execution:
        children.reap_forgotten()
        opts = library.Execution(self.id, self.runtime._messages(), stdio)
        opts.root, opts.args = self.runtime.root, args
        opts.flags = {flag: options[name] for name, flag in _FLAGS.items() if name in options}  # type: ignore[literal-required]
        opts.flags["env"] = [f"{name}={value}" for name, value in options.get("env", {}).items()]
        opts.flags["cap"] = [*options.get("capabilities", ())]
        opts.flags["additional-gids"] = [str(gid) for gid in options.get("groups", ())]
        if "process" in options:
            opts.process, opts.document = "process", options["process"]
        opts.cgroup = [options["cgroup"]] if options.get("cgroup") else []
        opts.ignore_paused = options.get("ignore_paused", False)
        opts.tools = options.get("tools", "")
        if "tools" in options and not opts.tools.startswith("/"):
            raise UsageError(f"tools={opts.tools!r}: expected the absolute path of a directory")
        opts.console_socket, opts.pid_file = options.get("console_socket", ""), options.get("pid_file", "")
        return opts

    def call(
        self,
        args: Sequence[str],
        *,
        input: bytes = b"",
        timeout: float | None = None,
        check: bool = False,
        **options: Unpack[ExecOptions],
    ) -> Completed:
        """Run a program in the container; returns its status and its output (which must fit in
        memory).

        ``input`` goes to its stdin. After ``timeout`` seconds the program is killed and
        TimeoutError is raised. ``check``: raise ProgramFailed for a status other than 0. Otherwise
        like `exec`.
        """
        options.setdefault("stdin", PIPE if input else DEVNULL)
        options.setdefault("stdout", PIPE)
        options.setdefault("stderr", PIPE)
        with self.exec(args, **options) as process:
            completed = process.complete(input, timeout)
        if check and completed.returncode:
            raise ProgramFailed(completed)
        return completed

    def kill(self, signal: int | str = "TERM", *, all: bool = False) -> None:
        """Send a signal (runtime.md, "Kill"), by number or name, to the first process or to ``all``
        processes.

        KILL always reaches all of them. Raises StateError if there is no process, unless ``all`` is
        set.
        """
        number = signals.number(str(int(signal)) if isinstance(signal, int) else signal)
        with self._opened() as found:
            lifecycle.kill(found, number, everyone=all)

    def pause(self) -> None:
        """Freeze all processes of the container. Raises StateError unless it is created or
        running."""
        with self._locked() as found:
            lifecycle.pause(found)

    def resume(self) -> None:
        """Thaw a paused container. Raises StateError if it is not paused."""
        with self._locked() as found:
            lifecycle.resume(found)

    def update(self, resources: Resources | Mapping[str, object]) -> None:
        """Change the limits, all of them or none (``linux.resources`` of config-linux.md).

        Raises StateError if the container has stopped, ConfigError with pointers into
        ``resources``, SysError.
        """
        wanted = updates.parse(library.to_json(resources, updates.SOURCE))
        with self._locked() as found:
            updates.update(found, wanted, self.runtime._messages())

    def add_mounts(self, mounts: Sequence[Mapping[str, object]]) -> None:
        """Add mounts to a created, running or paused container: all of them or none.

        ``mounts`` are objects like those in ``mounts`` of config.md. Raises StateError if the
        container has stopped or has no mount namespace of its own, ConfigError with pointers into
        ``mounts``, SysError.
        """
        entries = added_mounts.parse(library.to_json(list(mounts), added_mounts.SOURCE))
        with self._locked() as found:
            library.Mounts(found, self.runtime._messages()).add(entries)

    def remove_mounts(self, mounts: Sequence[Mapping[str, object]]) -> None:
        """Remove mounts that `add_mounts` made, by their ``destination``: all of them or none.

        Of several at one destination, the newest is removed. Raises StateError if the container has
        stopped, ConfigError for a destination without such a mount, SysError.
        """
        entries = added_mounts.parse(library.to_json(list(mounts), added_mounts.SOURCE))
        with self._locked() as found:
            library.Mounts(found, self.runtime._messages()).remove(entries)

    def delete(self, *, force: bool = False) -> None:
        """Remove a container that has stopped or was never started (runtime.md, "Delete"); with
        ``force``, any container.

        ``force`` kills it first, and ignores a container that does not exist. Raises StateError
        without ``force`` if it is running, and PyruncError if a part of it survives; the call can
        then be repeated.
        """
        self._find_child()
        try:
            with library.opened(self.runtime.root) as store:
                messages = self.runtime._messages()
                if force:
                    lifecycle.delete_by_force(store, self.id, messages)
                else:
                    lifecycle.delete(store.open(self.id), messages)
        finally:
            if self._child is not None and self._child.poll():
                self._child.close()

    # -- end
    # ----------------------------------------------------------------------------------------------

    def _find_child(self) -> None:
        """Watch the first process, so that its end is visible after the state is gone."""
        with suppress(StateError):  # damaged or missing
            self._watched()

    @property
    def returncode(self) -> int | None:
        """The return code of the first program: 0 to 255, 128 + n after signal n.

        None while it is running, and if it is not a child of the calling program, which is true
        only in its creator.
        """
        if self._child is None:
            return None
        self._child.poll()
        return self._child.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end of the first program; returns its `returncode`.

        Raises TimeoutError after ``timeout`` seconds, NotFound.
        """
        child = self._watched()
        if child is None:
            return None
        if not child.wait(timeout):
            raise TimeoutError(f"container {self.id} has not stopped within {timeout} s")
        return child.returncode

    def _watched(self) -> Child | None:
        """The first process; None if it has ended and other code has reaped it. Raises NotFound."""
        if self._child is None:
            with self._opened() as found:
                self._child = children.known(found.data["pid"], found.data.get("starttime", 0))
        return self._child

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close_streams()
        self.delete(force=True)

    @classmethod
    def list(cls, runtime: Runtime | None = None) -> builtins.list[Container]:
        """The containers of ``runtime``, by default ``Runtime()``: see `Runtime.list`."""
        from pyrunc.api.runtime import Runtime

        return (runtime or Runtime()).list()
