"""Sessions inside another program: what `create` and `exec` must not touch there.

A verb has a process for one session. It catches signals, kills every child that looks like its own,
treats a service manager's environment as meant for it, and leaves open descriptors to the kernel.
Here all of these belong to the calling program, which may have other threads, other children and
other containers (docs/adr/0026-python-api.md).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pyrunc import fs, jsontext, log, state
from pyrunc.api.stdio import Stdio, Stream
from pyrunc.errors import SysError, UsageError
from pyrunc.launch import added_mounts as mounts
from pyrunc.launch import create, ending, session
from pyrunc.launch import exec as execution
from pyrunc.spec import exec_process, load

if TYPE_CHECKING:
    from pyrunc.handshake import Record
    from pyrunc.spec.types import Config, Process

_logger = logging.getLogger("pyrunc")
_logger.addHandler(logging.NullHandler())  # otherwise warnings would appear on the calling program's stderr
_WARNINGS = 100  # warnings kept per operation

# A forked process that does not exec has copies of our descriptors. It must not be forked while a
# descriptor is open whose EOF has a meaning, and it closes the locks and sockets of other threads'
# sessions.
_spawning = threading.Lock()
_sessions: set[Library] = set()
_locked: set[state.Container] = set()
_streams: weakref.WeakSet[Stdio] = weakref.WeakSet()
_reported: set[int] = set()  # pids of containers' first processes that are our children and therefore not strays


def _forked() -> None:
    """Run in the child of a fork."""
    for job in list(_sessions):
        job.release()
    for container in list(_locked):
        container.unlock()
    for stdio in list(_streams):
        stdio.close_theirs()
    _sessions.clear()
    _locked.clear()
    _reported.clear()
    _spawning.release()


os.register_at_fork(before=_spawning.acquire, after_in_parent=_spawning.release, after_in_child=_forked)


class Messages(log.Log):
    """Messages of one operation: they go to the logger "pyrunc", and warnings are kept."""

    def __init__(self, on_warning: Callable[[str], object] | None = None) -> None:
        super().__init__()
        self.found: list[str] = []
        self.on_warning = on_warning

    def debug(self, text: str) -> None:
        """A step of the handshake, or a failure during an undo."""
        _logger.debug("%s", text)

    def info(self, text: str) -> None:
        """An informational message."""
        _logger.info("%s", text)

    def warning(self, text: str, *, aloud: bool = False) -> None:
        """Something has no effect, or only part of it."""
        if len(self.found) < _WARNINGS:
            self.found.append(text)
        _logger.warning("%s", text)
        if self.on_warning is not None:
            self.on_warning(text)

    def error(self, text: str) -> None:
        """An error that is not raised."""
        _logger.error("%s", text)


class _NoSignals(ending.Interrupts):
    """Signals belong to the calling program; a KeyboardInterrupt in its main thread undoes the
    session."""

    __slots__ = ()
    caught = 0

    def __init__(self) -> None:
        pass

    def check(self) -> None:
        """No signal is caught."""

    def restore(self) -> None:
        """Nothing was changed."""


class Library(session.InitSession):
    """Differences of `create` and `exec` in a library."""

    __slots__ = ()

    def execute(self) -> None:
        """Run the session. On PyruncError everything is undone, and every descriptor is closed."""
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
            raise UsageError(
                "SIGCHLD is ignored in this process, so the exit status of its children is lost;"
                " signal.signal(signal.SIGCHLD, signal.SIG_DFL) restores it"
            )
        _sessions.add(self)
        try:
            super().execute()
            self.settle()
        except BaseException:
            self.release()
            raise
        finally:
            _sessions.discard(self)

    def settle(self) -> None:
        """The session succeeded."""

    def release(self) -> None:
        """Close every descriptor of ours except those that were taken over."""
        self.channel.close()
        for name in ("pidfd", "cgroup_fd"):
            fd = getattr(self, name)
            if fd >= 0:
                fs.close(fd)
                setattr(self, name, -1)
        container: state.Container | None = getattr(self, "container", None)
        if container is not None:
            container.unlock()
            container.root.close()

    def catch_signals(self) -> ending.Interrupts:
        """None."""
        return _NoSignals()

    def activated(self) -> int:
        """Sockets that the calling program was started with belong to it."""
        return 0

    def stray_children(self) -> list[int]:
        """Children of this thread that no session has reported; children of other threads are
        excluded."""
        return [pid for pid in super().stray_children() if pid not in _reported]

    def spawn(self) -> None:
        """Start init while no other process is forked that would keep its socket end open."""
        with _spawning:
            super().spawn()

    def send_opened(self, blob: bytes) -> None:
        """Send the plan while no other process is forked that would keep the error fifo open:
        `start` waits for its end."""
        with _spawning:
            super().send_opened(blob)

    def adopted(self, pid: int) -> None:
        """Register a child that stays."""
        _reported.add(pid)


def reaped(pid: int) -> None:
    """A child is gone; another process may get its pid."""
    _reported.discard(pid)


@contextmanager
def opened(root: str) -> Iterator[state.Store]:
    """Open a state root for one operation. In the body, errors of the kernel become SysError."""
    store = state.Store(state.root_dir(root))
    try:
        yield store
    except OSError as error:
        raise as_error(error) from error
    finally:
        store.close()


@contextmanager
def locked(container: state.Container) -> Iterator[state.Container]:
    """Lock a container against other operations. Raises StateError."""
    _locked.add(container)
    try:
        with container:
            yield container
    finally:
        _locked.discard(container)


class Creation(create.CreateOptions):
    """The arguments of a create."""

    def __init__(self, id: str, messages: Messages, stdio: Stdio) -> None:
        super().__init__(id, messages)
        self.messages, self.stdio = messages, stdio
        self.document: Mapping[str, object] | None = None  # replaces config.json


class Create(Library, create.Create):
    """One `create` session."""

    opts: Creation

    def open_stdio(self) -> None:
        """The caller's request."""
        self.streams = self.opts.stdio

    def read_config(self, path: str) -> tuple[Config, bytes]:
        """The bundle's config.json, or the caller's replacement."""
        if self.opts.document is None:
            return super().read_config(path)
        return parse_config(self.opts.document)

    def has_notify_socket(self) -> bool:
        """The service manager's messages are for the calling program."""
        return False

    def settle(self) -> None:
        """The result stays."""
        self.finish()

    def take_id(self) -> None:
        """Mark the container as a library's: a forced `delete` must not signal the calling
        program."""
        super().take_id()
        self.container.data["runtime"]["library"] = True

    def on_pid(self, record: Record) -> None:
        """It is our child from now on."""
        self.adopted(record.value)
        super().on_pid(record)


class Execution(execution.ExecOptions):
    """The arguments of an exec."""

    def __init__(self, id: str, messages: Messages, stdio: Stdio) -> None:
        super().__init__(id, messages)
        self.stdio = stdio
        self.document: Mapping[str, object] | None = None  # replaces process.json
        self.detach = True


class Execute(Library, execution.Exec):
    """One `exec` session."""

    opts: Execution

    def open_stdio(self) -> None:
        """The caller's request."""
        self.streams = self.opts.stdio

    def open_store(self) -> state.Store:
        """A store that is closed if the container is not found."""
        return _ClosingStore(state.root_dir(self.opts.root))

    def read_process(self, own: Process) -> tuple[str, Process]:
        """The caller's process, completed with the container's own."""
        data = to_json(self.opts.document or {}, "process")
        return "process", exec_process.inherit(exec_process.parse(data, "process"), own)

    def on_pid(self, record: Record) -> None:
        """It is our child from now on."""
        self.adopted(record.value)
        super().on_pid(record)


class AddMounts(Library, mounts.Add):
    """One session that adds mounts."""


class RemoveMounts(Library, mounts.Remove):
    """One session that removes mounts."""


class Mounts(mounts.Mounts):
    """The mounts of a container."""

    adding = AddMounts
    removing = RemoveMounts


class _ClosingStore(state.Store):
    """A state root that is closed if `open` fails."""

    def open(self, id: str) -> state.Container:
        """An existing container."""
        try:
            return super().open(id)
        except BaseException:
            self.close()
            raise


def as_error(error: OSError) -> SysError:
    """Convert an error of the kernel to one of pyrunc."""
    return session.as_sys_error(error)


def check_options(call: str, options: Mapping[str, object], known: type) -> None:
    """Refuse what is not an option of a call, as Python does for parameters. Raises TypeError."""
    for name in options:
        if name not in known.__annotations__:
            raise TypeError(f"{call}() got an unexpected keyword argument {name!r}")


def open_stdio(stdin: Stream, stdout: Stream, stderr: Stream) -> Stdio:
    """The streams that the caller requested. Raises UsageError, SysError."""
    try:
        with _spawning:  # a process forked before they are in the set would keep the pipes open
            made = Stdio(stdin, stdout, stderr)
            _streams.add(made)
        return made
    except OSError as error:
        raise SysError("stdin, stdout, stderr", "open", error.errno or 0) from error


def to_json(document: Mapping[str, object] | list[Mapping[str, object]], what: str) -> bytes:
    """Encode dicts, lists, strings, numbers, booleans and None as JSON. Raises UsageError."""
    with suppress(TypeError, ValueError, RecursionError):
        return jsontext.dumps(document).encode("ascii")
    kind = "list" if isinstance(document, list) else "dict"
    raise UsageError(f"{what}: expected a {kind} of JSON values: dicts, lists, strings, numbers, booleans and None")


def parse_config(document: Mapping[str, object]) -> tuple[Config, bytes]:
    """Parse a configuration given as a dict as strictly as a file; also returns its bytes.
    Raises ConfigError."""
    data = to_json(document, "config")
    config: Config = load.parse_json(data, "config.json")
    return config, data
