"""Sessions in a program that is somebody else's: what `create` and `exec` must leave alone there.

A verb's process is there for one session.  It catches signals, kills every child that looks like its own, takes the
environment of a service manager for a message to itself, and lets the kernel close what it has opened.  Here
all of that belongs to the calling program, which has other threads, other children and perhaps other containers at
work (docs/adr/0026-python-api.md).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from pyrunc import fs, jsontext, log, state
from pyrunc.api.stdio import Stdio, Stream
from pyrunc.errors import SysError, UsageError
from pyrunc.launch import create, session
from pyrunc.launch import exec as execution
from pyrunc.spec import exec_process, load

_logger = logging.getLogger("pyrunc")
_logger.addHandler(logging.NullHandler())  # else warnings would appear on the calling program's stderr
_WARNINGS = 100  # of one operation, that are kept

# A process that is forked, and executes nothing, has copies of our descriptors.  It must not be born while one is open
# whose end of file means something, and gives up locks and sockets of sessions that other threads have at work.
_spawning = threading.Lock()
_sessions: set[Library] = set()
_locked: set[state.Container] = set()
_streams: weakref.WeakSet[Stdio] = weakref.WeakSet()
_reported: set[int] = set()  # pids of containers' first processes that are our children: not strays


def _forked() -> None:
    """In the child of a fork."""
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
    """Messages of one operation: they go to the logger "pyrunc", and the warnings are kept."""

    def __init__(self, on_warning: Callable[[str], object] | None = None) -> None:
        super().__init__()
        self.found: list[str] = []
        self.on_warning = on_warning

    def debug(self, text: str) -> None:
        """Steps of the handshake, and what an undo met."""
        _logger.debug("%s", text)

    def info(self, text: str) -> None:
        """Worth knowing."""
        _logger.info("%s", text)

    def warning(self, text: str, *, aloud: bool = False) -> None:
        """Something has no effect, or not all of it."""
        if len(self.found) < _WARNINGS:
            self.found.append(text)
        _logger.warning("%s", text)
        if self.on_warning is not None:
            self.on_warning(text)

    def error(self, text: str) -> None:
        """What is not raised."""
        _logger.error("%s", text)


class _NoSignals(session.Interrupts):
    """Signals are the calling program's; a KeyboardInterrupt of its main thread undoes what a session has done."""

    __slots__ = ()
    caught = 0

    def __init__(self) -> None:
        pass

    def check(self) -> None:
        """None is caught."""

    def restore(self) -> None:
        """Nothing was changed."""


class Library(session.Session):
    """What `create` and `exec` do differently in a library."""

    __slots__ = ()

    def execute(self) -> None:
        """Carry the session out.  Raises PyruncError with everything undone, and every descriptor closed."""
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
            raise UsageError(
                "SIGCHLD is ignored in this process, so that the exit status of its children is lost;"
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
        """All went well."""

    def release(self) -> None:
        """Close every descriptor of ours but those that were taken over."""
        self.close_socket()
        for name in ("pidfd", "cgroup_fd"):
            fd = getattr(self, name)
            if fd >= 0:
                fs.close(fd)
                setattr(self, name, -1)
        container: state.Container | None = getattr(self, "container", None)
        if container is not None:
            container.unlock()
            container.root.close()

    def catch_signals(self) -> session.Interrupts:
        """None."""
        return _NoSignals()

    def activated(self) -> int:
        """Sockets that the calling program was started with are its own."""
        return 0

    def stray_children(self) -> list[int]:
        """Those of this thread that no session has reported: the children of other threads are not listed."""
        return [pid for pid in super().stray_children() if pid not in _reported]

    def spawn(self) -> None:
        """Start init, while no other process is forked that would keep its end of the socket open."""
        with _spawning:
            super().spawn()

    def adopted(self, pid: int) -> None:
        """Remember a child that stays."""
        _reported.add(pid)


def reaped(pid: int) -> None:
    """A child has gone: its number may be somebody else's from now on."""
    _reported.discard(pid)


@contextmanager
def opened(root: str) -> Iterator[state.Store]:
    """A state root, for one operation.  What the kernel refuses is a SysError in the body."""
    store = state.Store(state.root_dir(root))
    try:
        yield store
    except OSError as error:
        raise as_error(error) from error
    finally:
        store.close()


@contextmanager
def locked(container: state.Container) -> Iterator[state.Container]:
    """A container that no other operation changes meanwhile.  Raises StateError."""
    _locked.add(container)
    try:
        with container:
            yield container
    finally:
        _locked.discard(container)


class Creation(create.CreateOptions):
    """What a container is created with."""

    def __init__(self, id: str, messages: Messages, stdio: Stdio) -> None:
        super().__init__(id, messages)
        self.messages, self.stdio = messages, stdio
        self.document: Mapping[str, Any] | None = None  # in place of config.json
        self.detach = True


class Create(Library, create.Job):
    """One `create`."""

    opts: Creation

    def open_stdio(self) -> None:
        """What the caller asked for."""
        self.streams = self.opts.stdio

    def read_config(self, path: str) -> tuple[dict[str, Any], bytes]:
        """The bundle's config.json, or what the caller gave instead."""
        if self.opts.document is None:
            return super().read_config(path)
        return parse_config(self.opts.document)

    def notifies(self) -> bool:
        """The service manager's messages are for the calling program."""
        return False

    def settle(self) -> None:
        """What was made stays."""
        self.finish()

    def take_id(self) -> None:
        """Mark the container as a library's: a forced `delete` must not signal the calling program."""
        super().take_id()
        self.container.data["runtime"]["library"] = True

    def on_pid(self, record: Any) -> None:
        """Our child from now on."""
        self.adopted(record.value)
        super().on_pid(record)


class Execution(execution.ExecOptions):
    """What a process is executed with."""

    def __init__(self, id: str, messages: Messages, stdio: Stdio) -> None:
        super().__init__(id, messages)
        self.stdio = stdio
        self.document: Mapping[str, Any] | None = None  # in place of process.json
        self.detach = True


class Execute(Library, execution.Exec):
    """One `exec`."""

    opts: Execution

    def open_stdio(self) -> None:
        """What the caller asked for."""
        self.streams = self.opts.stdio

    def open_store(self) -> state.Store:
        """A store that is closed when there is no container to be found."""
        return _ClosingStore(state.root_dir(self.opts.root))

    def read_process(self, own: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """What the caller gave, completed by the container's own process."""
        data = to_json(self.opts.document or {}, "process")
        return "process", exec_process.inherit(exec_process.parse(data, "process"), own)

    def on_pid(self, record: Any) -> None:
        """Our child from now on."""
        self.adopted(record.value)
        super().on_pid(record)


class _ClosingStore(state.Store):
    """A state root that is closed when `open` fails."""

    def open(self, id: str) -> state.Container:
        """An existing container."""
        try:
            return super().open(id)
        except BaseException:
            self.close()
            raise


def as_error(error: OSError) -> SysError:
    """What the kernel refused, as an error of pyrunc."""
    return session.as_sys_error(error)


def open_stdio(stdin: Stream, stdout: Stream, stderr: Stream) -> Stdio:
    """The streams that the caller asked for.  Raises UsageError, SysError."""
    try:
        made = Stdio(stdin, stdout, stderr)
        _streams.add(made)
        return made
    except OSError as error:
        raise SysError("stdin, stdout, stderr", "open", error.errno or 0) from error


def to_json(document: Mapping[str, Any], what: str) -> bytes:
    """A document of dicts, lists, strings, numbers, booleans and None as JSON.  Raises UsageError."""
    with suppress(TypeError, ValueError, RecursionError):
        return jsontext.dumps(document).encode("ascii")
    raise UsageError(f"{what}: expected a dict of what JSON has: dicts, lists, strings, numbers, booleans and None")


def parse_config(document: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """A configuration that was given as a dict, read as strictly as a file, and its bytes.  Raises ConfigError."""
    data = to_json(document, "config")
    config: dict[str, Any] = load.parse_json(data, "config.json")
    return config, data
