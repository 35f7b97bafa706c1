"""pyrunc.seccomp_tools.trace, .listener and .contained without a container: the loop that answers
calls, the processes around it, and the output."""

from __future__ import annotations

import errno
import json
import os
import posix
import re
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from select import POLLIN, poll
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from pyrunc import seccomp
from pyrunc.container import lifecycle
from pyrunc.errors import PyruncError, SysError
from pyrunc.log import Log
from pyrunc.seccomp_tools import calls, contained, trace
from pyrunc.seccomp_tools.listener import Listener, Notification
from pyrunc.seccomp_tools.profile import Verdict

NATIVE = calls.native()
OPTS: Any = SimpleNamespace(id="c1", root="/nowhere", log=Log())


def notification(number: int, *args: int, pid: int = 0, audit: int = NATIVE.audit) -> Notification:
    values = (*args, *[0] * (6 - len(args)))
    return Notification(struct.pack("QIIIIQ6Q", 77, pid or os.getpid(), 0, number, audit, 0xBAD, *values))


def number_of(name: str) -> int:
    found = NATIVE.number(name)
    assert found is not None
    return found


# -- a notification --------------------------------------------------------------------------------


def test_fields_of_a_notification() -> None:
    call = notification(5, 1, 2, 3, 4, 5, 6, pid=9, audit=7)
    assert (call.id, call.pid, call.number, call.audit, call.args) == (77, 9, 5, 7, (1, 2, 3, 4, 5, 6))


@pytest.mark.parametrize(
    ("number", "received"), [(errno.ENOENT, None), (errno.EINTR, None), (errno.EBADF, OSError), (errno.EPERM, OSError)]
)
def test_errors_of_the_descriptor(monkeypatch: pytest.MonkeyPatch, number: int, received: type[OSError] | None) -> None:
    def fails(*args: object) -> int:
        raise OSError(number, "")

    monkeypatch.setattr("pyrunc.seccomp_tools.listener.ioctl", fails)
    one = Listener(3)
    if received is None:
        assert one.receive() is None
    else:
        with pytest.raises(received):
            one.receive()
    if number == errno.ENOENT:
        one.go_on(notification(1))  # its process has ended
    else:
        with pytest.raises(OSError):
            one.go_on(notification(1))
    assert one.waits(notification(1)) is False


def test_requests_of_the_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """seccomp_unotify(2): the numbers, and the answer that lets the kernel execute the call."""
    seen: list[tuple[int, int, object]] = []

    def ioctl(fd: int, request: int, data: object) -> int:
        seen.append((fd, request, bytes(data) if isinstance(data, bytearray) else data))
        return 0

    monkeypatch.setattr("pyrunc.seccomp_tools.listener.ioctl", ioctl)
    one, call = Listener(7), notification(1)
    assert one.receive() is not None and one.waits(call)
    one.go_on(call)
    assert seen == [
        (7, 0x40082104, 1), (7, 0xC0502100, bytes(80)), (7, 0x40082102, struct.pack("Q", 77)),
        (7, 0xC0182101, struct.pack("QqiI", 77, 0, 0, 1)),
    ]  # fmt: skip


def test_a_listener_closes_its_descriptor() -> None:
    reader, writer = os.pipe()
    one = Listener(reader)  # no seccomp descriptor: it does not know the flag either
    one.close()
    with pytest.raises(OSError):
        os.fstat(reader)
    os.close(writer)


# -- the tracer ------------------------------------------------------------------------------------


PIPES: list[Piped] = []  # of the running test


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    for one in PIPES:
        for fd in (one.fd, one.writer):
            if fd >= 0:
                os.close(fd)
    PIPES.clear()


class Piped:
    """A listener with a byte in a pipe for each waiting call; ``n`` is an interrupted call."""

    def __init__(self, text: bytes) -> None:
        self.fd, self.writer = os.pipe()
        os.write(self.writer, text)
        self.went_on: list[Notification] = []
        PIPES.append(self)
        self.closed = 0

    def receive(self) -> Notification | None:
        return None if os.read(self.fd, 1) == b"n" else notification(1)

    def go_on(self, call: Notification) -> None:
        self.went_on.append(call)

    def close(self) -> None:
        self.closed += 1

    def end(self) -> None:
        os.close(self.writer)
        self.writer = -1


class Seen:
    def __init__(self) -> None:
        self.calls: list[Notification] = []

    def seen(self, call: Notification) -> None:
        self.calls.append(call)


def tracer(listener: Piped | None = None) -> tuple[trace.Tracer, Seen, Any]:
    sink = Seen()
    one = trace.Tracer(OPTS, ["a"], sink)
    poller = poll()
    if listener is not None:
        one.listener = listener  # type: ignore[assignment]
        poller.register(listener.fd, POLLIN)
    return one, sink, poller


def test_every_waiting_call_is_answered_after_it_was_seen() -> None:
    listener = Piped(b"cncc")
    one, sink, poller = tracer(listener)
    one.answer(listener, poller)  # type: ignore[arg-type]
    assert len(sink.calls) == 3 and listener.went_on == sink.calls
    assert one.listener is not None and not listener.closed, "there may be more"
    listener.end()
    one.answer(listener, poller)  # type: ignore[arg-type]
    assert one.listener is None and listener.closed == 1, "no process has the filter any more"
    with pytest.raises(KeyError):
        poller.unregister(listener.fd)


def test_other_events_are_looked_at_between_calls() -> None:
    listener = Piped(b"c" * 100)
    one, sink, poller = tracer(listener)
    one.answer(listener, poller)  # type: ignore[arg-type]
    assert len(sink.calls) == 64
    one.answer(listener, poller)  # type: ignore[arg-type]
    assert len(sink.calls) == 100


def test_messages_of_the_containers_process() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader, writer = os.pipe()
    one, _, poller = tracer()
    one.control = ours.fileno()
    poller.register(one.control, POLLIN)
    socket.send_fds(theirs, [contained.LISTENER], [reader])
    one.take(poller)
    assert one.listener is not None and os.path.sameopenfile(one.listener.fd, reader) and one.error == ""
    poller.unregister(one.listener.fd)  # it was registered
    one.listener.close()
    one.listener = None
    os.close(reader)
    os.close(writer)
    theirs.send(contained.LISTENER)  # without a descriptor
    one.take(poller)
    assert one.listener is None
    theirs.send(contained.ERROR + "a b\u00e4".encode() + b"\xff")
    one.take(poller)
    assert one.error == "a b\u00e4\ufffd" and one.listener is None
    theirs.send(b"?")
    one.take(poller)
    poller.modify(one.control, POLLIN)  # still exists
    theirs.close()
    one.take(poller)
    with pytest.raises(KeyError):
        poller.unregister(one.control)
    ours.close()
    assert one.error == "a b\u00e4\ufffd"


def child(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(99)
    return pid


def test_the_status_of_the_containers_process(monkeypatch: pytest.MonkeyPatch) -> None:
    deleted: list[str] = []
    monkeypatch.setattr(lifecycle, "delete_by_force", lambda store, id, log: deleted.append(id))
    one, _, _ = tracer()
    one.container = child(lambda: os._exit(7))
    assert one.reap() == 7 and one.container == 0 and not deleted
    one.container = child(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(PyruncError, match=r"the process that runs the container was killed by signal 9$"):
        one.reap()
    assert one.container == 0 and deleted == ["c1"], "it could not remove its container"


@pytest.mark.parametrize(("result", "status"), [(5, 5), (None, 0), (0, 0)])
def test_a_fork_ends_with_the_result_of_its_work(result: int | None, status: int) -> None:
    pid = child(lambda: trace.leave(lambda: result))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status


def test_a_fork_ends_when_its_work_fails() -> None:
    def work() -> int:
        raise ValueError

    pid = child(lambda: trace.leave(work))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


@pytest.mark.parametrize("killed", [True, False])
def test_the_guard_deletes_what_a_killed_tracer_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    def delete(store: Any, id: str, log: Log) -> None:
        links = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)}
        others = [fd for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and os.path.exists(f"/proc/self/fd/{fd}")]
        said = [id, os.getsid(0) == os.getpid(), log.debugging, log.json, log.to_file, links, others, watched]
        (tmp_path / "said").write_text(json.dumps(said))

    monkeypatch.setattr(lifecycle, "delete_by_force", delete)
    other = os.open("/dev/zero", os.O_RDONLY)
    watched, leash = os.pipe()
    above = os.open("/dev/zero", os.O_RDONLY)
    pid = child(lambda: trace.leave(lambda: trace.guard(watched, OPTS)))
    for fd in (watched, other, above):
        os.close(fd)
    if not killed:
        os.write(leash, b".")
    os.close(leash)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    if killed:
        id, leader, debugging, as_json, to_file, links, others, pipe = json.loads((tmp_path / "said").read_text())
        assert (id, leader, debugging, as_json, to_file) == ("c1", True, False, False, False)
        assert set(links.values()) == {"/dev/null"}
        assert others == [str(pipe)], "nothing else keeps a terminal, a pipe or a file open"
    else:
        assert not (tmp_path / "said").exists()


def test_signals_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only signals sent to us alone are forwarded: a terminal sends its own to all, as
    SI_KERNEL."""
    waiting = [
        SimpleNamespace(si_signo=signal.SIGTERM, si_code=0), SimpleNamespace(si_signo=signal.SIGINT, si_code=0x80),
        SimpleNamespace(si_signo=signal.SIGCHLD, si_code=0), SimpleNamespace(si_signo=signal.SIGWINCH, si_code=0),
        SimpleNamespace(si_signo=signal.SIGUSR1, si_code=-1),
    ]  # fmt: skip
    sent: list[tuple[int, int]] = []
    timeouts: list[float] = []

    def next_one(known: set[int], timeout: float) -> Any:
        assert signal.SIGTERM in known
        timeouts.append(timeout)
        return waiting.pop(0) if waiting else None

    monkeypatch.setattr(signal, "sigtimedwait", next_one)
    monkeypatch.setattr(posix, "kill", lambda pid, number: sent.append((pid, number)))
    one, _, _ = tracer()
    one.container = 4711
    one.pass_on()
    assert sent == [(4711, signal.SIGTERM), (4711, signal.SIGUSR1)] and set(timeouts) == {0}

    def gone(pid: int, number: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(posix, "kill", gone)
    waiting += [SimpleNamespace(si_signo=signal.SIGTERM, si_code=0)] * 2
    one.pass_on()
    assert len(waiting) == 1, "no one is there for the others"


def test_closing_releases_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, leash = os.pipe()
    control, signals = os.pipe()
    listener = Piped(b"")
    one, _, _ = tracer(listener)

    def work() -> None:
        os._exit(0 if os.read(watched, 1) == b"." else 3)

    one.guard, one.leash, one.control, one.signals = child(work), leash, control, signals
    pid = one.guard
    one.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    assert listener.closed == 1
    for fd in (leash, control, signals):
        with pytest.raises(OSError):
            os.fstat(fd)
    os.close(watched)
    trace.Tracer(OPTS, [], Seen()).close()  # before anything was opened


def test_after_an_error_the_container_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(lifecycle, "delete_by_force", lambda store, id, log: done.append(id))
    listener = Piped(b"")
    one, _, _ = tracer(listener)
    one.container = child(lambda: os._exit(0))
    pid = one.container
    one.delete()
    assert listener.closed == 1 and one.listener is None and one.container == 0 and done == ["c1", "c1"]
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    one.delete()
    assert done == ["c1", "c1"], "there is no container any more"


def test_a_containers_process_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "delete_by_force", lambda store, id, log: None)
    monkeypatch.setattr(trace, "_SETTLE_MS", 20)
    one, _, _ = tracer()
    pid = one.container = child(signal.pause)
    one.delete()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def step_of(name: str, done: list[str]) -> Callable[[object], int]:
    def step(self: object) -> int:
        done.append(name)
        return 0

    return step


@pytest.mark.parametrize("step", ["fork", "serve"])
def test_whatever_fails_nothing_is_left(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    done: list[str] = []

    def fails(self: object) -> int:
        raise OSError(errno.EMFILE, "")

    for name in ("fork", "serve", "delete", "close"):
        monkeypatch.setattr(trace.Tracer, name, step_of(name, done))
    one, _, _ = tracer()
    assert one.run() == 0 and done == ["fork", "serve", "close"]
    one.error = "what went wrong"
    with pytest.raises(PyruncError, match="what went wrong"):
        one.run()
    done.clear()
    monkeypatch.setattr(trace.Tracer, step, fails)
    with pytest.raises(OSError):
        one.run()
    assert done[-2:] == ["delete", "close"]


# -- the container's process -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PyruncError("it is wrong"), "it is wrong"),
        (OSError(errno.ENOENT, "x", "/etc/\udcff"), r"/etc/\udcff: ENOENT"),
        (MemoryError(), "out of memory"),
        (ValueError("v"), "internal error: ValueError: v"),
        (PyruncError("x" * 9000), "x" * 4000),
    ],
)
def test_errors_go_to_the_tracer(monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    def fails(*args: object) -> int:
        raise error

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setattr(contained, "TracedRun", lambda *args: None)
    monkeypatch.setattr("pyrunc.launch.run.run", fails)
    assert contained.run(OPTS, theirs.fileno(), []) == 1
    data = ours.recv(9000)
    assert data[:1] == contained.ERROR and data[1:].decode("utf-8", "surrogateescape").startswith(words)
    assert len(data) <= 4001
    ours.close()
    assert contained.run(OPTS, theirs.fileno(), []) == 1, "the tracer may be gone"
    monkeypatch.setattr("pyrunc.launch.run.run", lambda *args: 9)
    assert contained.run(OPTS, theirs.fileno(), []) == 9
    theirs.close()


def test_a_link_that_is_gone() -> None:
    assert contained.link("/proc/self/fd/99999") == "" and contained.link("/proc/self/cwd") == os.getcwd()


def test_the_plans_profile_cannot_be_joined() -> None:
    assert contained.profile() == {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}],
        "listenerPath": "/traced/by/pyrunc/seccomp",
    }
    assert struct.unpack("HBBI", contained.ASK) == (6, 0, 0, 0x7FC00000), "BPF_RET, SECCOMP_RET_USER_NOTIF"


# -- output ----------------------------------------------------------------------------------------


class Deciding:
    """A filter with one verdict for each number."""

    def __init__(self, **verdicts: Verdict) -> None:
        self.verdicts = {number_of(name): verdict for name, verdict in verdicts.items()}
        self.asked: list[tuple[int, int, tuple[int, ...]]] = []

    def decide(self, audit: int, number: int, args: tuple[int, ...]) -> Verdict:
        self.asked.append((audit, number, args))
        return self.verdicts[number]


ALLOWED = Verdict(seccomp.ACTIONS["SCMP_ACT_ALLOW"], "/defaultAction")
DENIED = Verdict(seccomp.ACTIONS["SCMP_ACT_ERRNO"] | 1, "/syscalls/3")


def printed(printer_of: Callable[[int], trace.Printer], *seen: Notification) -> tuple[list[str], trace.Printer]:
    reader, writer = os.pipe()
    printer = printer_of(writer)
    for call in seen:
        printer.seen(call)
    os.close(writer)
    with open(reader) as text:
        return text.read().splitlines(), printer


def test_lines() -> None:
    filter: Any = Deciding(kill=DENIED, umask=ALLOWED)
    make = lambda fd: trace.Printer(filter, fd, as_json=False, denied=False)  # noqa: E731
    comm = Path("/proc/self/comm").read_text().strip()
    lines, printer = printed(make, notification(number_of("kill"), 1, 9), notification(number_of("umask"), 0o22))
    head = rf" *\d+\.\d{{6}} {os.getpid()} {re.escape(comm)}: "
    assert re.fullmatch(head + r"kill\(1, SIGKILL\)  SCMP_ACT_ERRNO EPERM  /syscalls/3", lines[0])
    assert re.fullmatch(head + r"umask\(022\)  SCMP_ACT_ALLOW  /defaultAction", lines[1])
    assert float(lines[0].split()[0]) < 5.0
    assert (printer.total, printer.stopped) == (2, 1)
    assert printer.summary() == "2 calls, 1 of which the profile would deny"
    assert filter.asked[0] == (NATIVE.audit, number_of("kill"), (1, 9, 0, 0, 0, 0))


def test_only_what_is_denied() -> None:
    filter: Any = Deciding(kill=DENIED, umask=ALLOWED)
    make = lambda fd: trace.Printer(filter, fd, as_json=False, denied=True)  # noqa: E731
    lines, printer = printed(make, notification(number_of("umask")), notification(number_of("kill")))
    assert len(lines) == 1 and "kill(0, 0)" in lines[0] and (printer.total, printer.stopped) == (2, 1)
    without = lambda fd: trace.Printer(None, fd, as_json=False, denied=True)  # noqa: E731
    lines, printer = printed(without, notification(number_of("umask")))
    assert lines == [] and (printer.total, printer.stopped) == (1, 0)


def test_without_a_profile() -> None:
    make = lambda fd: trace.Printer(None, fd, as_json=False, denied=False)  # noqa: E731
    lines, printer = printed(make, notification(number_of("umask"), 0o22))
    assert lines[0].endswith(": umask(022)")
    assert printer.summary() == "1 calls; the bundle has no seccomp profile"


def test_calls_of_other_architectures() -> None:
    make = lambda fd: trace.Printer(None, fd, as_json=False, denied=False)  # noqa: E731
    other = next(arch for arch in calls.all_arches().values() if arch.bits == 32 and arch.audit != NATIVE.audit)
    number = other.number("close")
    assert number is not None
    lines, _ = printed(make, notification(number, 3, audit=other.audit), notification(4, 5, audit=0x1234))
    assert lines[0].endswith(f": close(3) [{other.name.removeprefix('SCMP_ARCH_').lower()}]")
    assert lines[1].endswith(": syscall_4(0x5) [0x1234]")
    lines, _ = printed(make, notification(9999, 1))
    assert lines[0].endswith(": syscall_9999(0x1)"), "it is of this machine, though it has no name"


def test_rows_of_json() -> None:
    filter: Any = Deciding(kill=DENIED)
    comm = Path("/proc/self/comm").read_text().strip()
    call = notification(number_of("kill"), 1, 9)
    (line,), _ = printed(lambda fd: trace.Printer(filter, fd, as_json=True, denied=False), call)
    row = json.loads(line)
    assert 0 <= row.pop("time") < 5
    common = {
        "pid": os.getpid(), "comm": comm, "arch": NATIVE.name, "number": number_of("kill"), "name": "kill",
        "args": [1, 9, 0, 0, 0, 0], "text": "kill(1, SIGKILL)",
    }  # fmt: skip
    assert row == {**common, "action": "SCMP_ACT_ERRNO", "errno": 1, "rule": "/syscalls/3", "why": ""}
    (line,), _ = printed(lambda fd: trace.Printer(None, fd, as_json=True, denied=False), call)
    row = json.loads(line)
    del row["time"]
    assert row == {**common, "action": None, "errno": None, "rule": "", "why": ""}


@pytest.mark.parametrize(
    ("name", "forgotten"), [("execve", True), ("execveat", True), ("prctl", True), ("kill", False)]
)
def test_the_name_of_a_process_is_asked_for_once(name: str, forgotten: bool) -> None:
    printer = trace.Printer(None, os.open("/dev/null", os.O_WRONLY), as_json=False, denied=False)
    printer.names[os.getpid()] = "before"
    printer.seen(notification(number_of(name)))
    assert (os.getpid() not in printer.names) == forgotten
    assert forgotten or printer.process(os.getpid()) == "before"
    assert printer.process(4_000_000) == "?" and printer.names[4_000_000] == "?"
    printer.names = dict.fromkeys(range(-4096, 0), "x")
    printer.process(os.getpid())
    assert len(printer.names) == 4097
    printer.process(4_000_001)
    assert len(printer.names) == 1, "they are not kept without end"
    os.close(printer.fd)


def test_where_a_trace_is_written(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text("old")
    old = os.umask(0o022)
    try:
        for _ in range(2):
            fd = trace.create(str(path))
            assert not os.get_inheritable(fd)
            trace.write(fd, "a\udcff\n")
            os.lseek(fd, 0, os.SEEK_SET)
            trace.write(fd, "b\n")
            os.close(fd)
            assert path.read_bytes() == b"a\xff\nb\n", "it begins anew, and each line goes to the end"
        os.close(trace.create(str(tmp_path / "new")))
    finally:
        os.umask(old)
    assert (tmp_path / "new").stat().st_mode & 0o7777 == 0o644
    with pytest.raises(SysError) as caught:
        trace.create(str(tmp_path / "no/trace"))
    assert str(caught.value).startswith("--output") and "/no/trace" in str(caught.value)
    assert caught.value.errno == errno.ENOENT
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(SysError, match=r"^--output: write: EPIPE") as caught:
        trace.write(writer, "x")
    assert caught.value.errno == errno.EPIPE
    os.close(writer)
