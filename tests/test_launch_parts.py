"""Helpers of create, exec and the lifecycle whose decisions matter only in rare cases."""

from __future__ import annotations

import asyncio
import errno
import os
import posix
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from pyrunc import command, fs, host, procfs
from pyrunc.api import aio, library
from pyrunc.api.container import Container
from pyrunc.cgroup import resources
from pyrunc.container import events, lifecycle
from pyrunc.errors import PyruncError, StateError, SysError, UsageError
from pyrunc.image import launch as image_launch
from pyrunc.launch import create, ending, exec, session
from pyrunc.log import Log
from pyrunc.native import processes, signals
from pyrunc.state import Busy
from pyrunc.verbs import ps

# -- create and exec -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"linux": {"namespaces": [{"type": "pid"}, {"type": "user"}]}}, True),
        ({"linux": {"namespaces": [5, {"type": "user"}]}}, True),
        ({"linux": {"namespaces": [{"type": "pid"}]}}, False),
        ({"linux": {"namespaces": [{}, "user"]}}, False),
        ({"linux": {"namespaces": {"type": "user"}}}, False),
        ({"linux": {"namespaces": "user"}}, False),
        ({"linux": []}, False),
        ({}, False),
        ([], False),
        (None, False),
    ],
)
def test_a_user_namespace_before_validation(config: Any, found: bool) -> None:
    assert create.has_userns(config) is found


@pytest.mark.parametrize(("text", "takes"), [("", True), ("\n", True), ("cpu\n", False), ("cpu memory\n", False)])
def test_a_cgroup_that_delegates_takes_no_process(tmp_path: Path, text: str, takes: bool) -> None:
    (tmp_path / "cgroup.subtree_control").write_text(text)
    assert exec.takes_processes(str(tmp_path)) is takes
    assert exec.takes_processes(str(tmp_path / "gone")) is False


@pytest.mark.parametrize(
    ("path", "top", "found"),
    [
        ("/a/b", "/a/b", "BASE"),
        ("/a/b/init", "/a/b", "BASE/init"),
        ("/a/bc", "/a/b", "HOST/a/bc"),
        ("/other", "/a/b", "HOST/other"),
        ("/x", "/", "BASEx"),
    ],
)
def test_where_init_has_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, top: str, found: str) -> None:
    one = exec.Exec(exec.ExecOptions("c1", Log()))
    one.container = SimpleNamespace(data={"pid": 4711, "cgroup": top})  # type: ignore[assignment]
    asked: list[str] = []

    def read(name: str) -> bytes:
        asked.append(name)
        return f"3:cpu:/v1\n0::{path}\n".encode()

    monkeypatch.setattr(fs, "read_file", read)
    monkeypatch.setattr(host, "snapshot", lambda: SimpleNamespace(cgroup_dir=lambda path: "HOST" + path))
    assert one.init_cgroup("BASE") == found and asked == ["/proc/4711/cgroup"]


@pytest.mark.parametrize(
    ("status", "ignore", "words"),
    [
        ("running", False, ""), ("created", False, ""), ("paused", True, ""),
        ("paused", False, "cannot exec in a paused container (use --ignore-paused to override)"),
        ("stopped", True, "cannot exec in a stopped container"), ("creating", False, "cannot exec in a creating"),
    ],
)  # fmt: skip
def test_which_containers_can_be_joined(status: str, ignore: bool, words: str) -> None:
    one = exec.Exec(exec.ExecOptions("c1", Log()))
    one.opts.ignore_paused = ignore
    one.container = SimpleNamespace(status=lambda: status)  # type: ignore[assignment]
    if not words:
        one.check_status()
        return
    with pytest.raises(StateError) as caught:
        one.check_status()
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("terminal", "detached", "socket", "words"),
    [
        (False, False, "", ""), (True, False, "", ""), (False, True, "", ""), (True, True, "/s", ""),
        (True, True, "", "cannot allocate tty if pyrunc will detach without setting console socket"),
        (False, True, "/s", "cannot use console socket if pyrunc will not detach or allocate tty"),
        (True, False, "/s", "cannot use console socket if pyrunc will not detach or allocate tty"),
        (False, False, "/s", "cannot use console socket if pyrunc will not detach or allocate tty"),
    ],
)  # fmt: skip
def test_terminals_and_console_sockets(terminal: bool, detached: bool, socket: str, words: str) -> None:
    one = exec.Exec(exec.ExecOptions("c1", Log()))
    one.opts.console_socket = socket
    if not words:
        one.check_terminal(terminal, detached)
        return
    with pytest.raises(UsageError) as caught:
        one.check_terminal(terminal, detached)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOENT, "x", "/a"), "/a: ENOENT"),
        (OSError(errno.ENOENT, "x", b"/a\xff"), "/a\ufffd: ENOENT"),
        (OSError(errno.EMFILE, "x"), "pyrunc: EMFILE"),
        (OSError(), "pyrunc: ESRCH"),
    ],
)
def test_errors_of_our_own_calls(error: OSError, words: str) -> None:
    assert str(session.as_sys_error(error)).startswith(words)


def test_pid_files(tmp_path: Path) -> None:
    session.write_pid_file(str(tmp_path / "pid"), 4711)
    assert (tmp_path / "pid").read_bytes() == b"4711" and os.listdir(tmp_path) == ["pid"]
    assert (tmp_path / "pid").stat().st_mode & 0o7777 == 0o644 & ~fs_umask()
    with pytest.raises(SysError, match=r"^--pid-file .*/no/pid"):
        session.write_pid_file(str(tmp_path / "no/pid"), 1)


def fs_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class Step(session.InitSession):
    """A session with given work that records what it does about signals."""

    def __init__(self, error: BaseException | None, caught: int = 0) -> None:
        super().__init__(Log())
        self.error = error
        self.done: list[str] = []
        self.signals = SimpleNamespace(caught=caught, restore=lambda: self.done.append("restore"))

    def catch_signals(self) -> Any:
        return self.signals

    def steps(self, interrupts: Any) -> None:
        assert self.interrupts is interrupts is self.signals
        if self.error is not None:
            raise self.error

    def abandon(self) -> None:
        self.done.append("abandon")


@pytest.mark.parametrize(
    ("error", "caught", "stuck", "kind", "words"),
    [
        (None, 0, "", None, ""),
        (PyruncError("a"), 0, "", PyruncError, "a"),
        (PyruncError("a"), 15, "", PyruncError, "a"),
        (PyruncError("a"), 0, "b", PyruncError, "a; b"),
        (OSError(errno.EMFILE, "x"), 0, "", SysError, "pyrunc: EMFILE"),
        (ValueError("v"), 0, "b", ValueError, "v"),
        (ValueError("v"), 15, "", PyruncError, "interrupted by signal 15"),
        (KeyboardInterrupt("k"), 0, "", KeyboardInterrupt, "k"),
    ],
)
def test_a_session_gives_the_signals_back(
    error: BaseException | None, caught: int, stuck: str, kind: type[BaseException] | None, words: str
) -> None:
    one = Step(error, caught)
    one.stuck = stuck
    if kind is None:
        one.execute()
        assert one.done == ["restore"]
    else:
        with pytest.raises(kind) as raised:
            one.execute()
        assert str(raised.value).startswith(words) and one.done == ["abandon", "restore"]
    assert one.interrupts is None


def test_signals_are_caught_and_restored() -> None:
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        mine = signal.getsignal(signal.SIGTERM)
        caught = ending.Interrupts()
        caught.check()
        os.kill(os.getpid(), signal.SIGTERM)
        assert caught.caught == signal.SIGTERM
        with pytest.raises(PyruncError, match="interrupted by signal 15"):
            caught.check()
        with pytest.raises(PyruncError, match="interrupted by signal 15"):
            ending.raise_interrupted(caught, ValueError())
        ending.raise_interrupted(caught, PyruncError("a"))
        caught.restore()
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_dispositions_that_cannot_be_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The container exists by then: an error would report it as failed."""

    refused = []

    def refuse() -> int:
        refused.append(errno.ENOMEM)
        raise OSError(errno.ENOMEM, "sigaction")

    caught = ending.Interrupts()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(signals, "restore", refuse)
            caught.restore()
        assert refused == [errno.ENOMEM]
    finally:
        caught.restore()


def test_a_library_catches_nothing() -> None:
    none = library._NoSignals()
    assert none.caught == 0
    none.check()
    none.restore()
    ending.raise_interrupted(none, ValueError())


# -- children --------------------------------------------------------------------------------------


def test_reaping() -> None:
    others = ending.unknown_children()
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})
    ending.await_end(pid)
    assert ending.has_ended(pid), "it is still there, as a zombie"
    assert ending.reap(pid) == 3 << 8
    assert ending.reap(pid) == 0 and not ending.has_ended(pid), "another one has reaped it"
    assert ending.unknown_children() == others


def test_a_child_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    try:
        monkeypatch.setattr(ending, "END_TIMEOUT_MS", 10)
        assert not ending.has_ended(pid)
        with pytest.raises(PyruncError, match=rf"^a child process did not exit: process {pid} \(sleep\) waits in "):
            ending.await_end(pid)
        start = time.monotonic()
        lifecycle.reap(pid)
        assert time.monotonic() - start < 5, "it is not waited for"
    finally:
        os.kill(pid, signal.SIGKILL)
        ending.reap(pid)
    assert ending.where(4_000_000).startswith("process 4000000 (?) waits in ")


def test_our_own_child_is_reaped() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    ending.await_end(pid)
    lifecycle.reap(pid)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    lifecycle.reap(pid)


@pytest.mark.parametrize(("busy", "stopped"), [(0, []), (1, [15]), (2, [15, 9]), (3, None)])
def test_a_creator_is_stopped_if_it_keeps_the_lock(
    monkeypatch: pytest.MonkeyPatch, busy: int, stopped: list[int] | None
) -> None:
    waits: list[float] = []
    signals: list[int] = []

    def acquire(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) <= busy:
            raise Busy("c1")

    monkeypatch.setattr(lifecycle, "stop_maker", lambda container, number: signals.append(number))
    one: Any = SimpleNamespace(acquire=acquire)
    if stopped is None:
        with pytest.raises(Busy):
            lifecycle.take(one)
        assert signals == [15, 9]
    else:
        lifecycle.take(one)
        assert signals == stopped
    assert waits == list(lifecycle.PATIENCE)[: busy + 1] and sum(lifecycle.PATIENCE) == 10


def test_stages_of_a_hook_that_cannot_be_started() -> None:
    with pytest.raises(OSError) as caught:
        processes.spawn_hook(b"/no/such/program", [b"a"], [])
    assert caught.value.errno == errno.ENOENT and caught.value.strerror == "execve"
    with pytest.raises(OSError) as caught:
        processes.spawn_hook(b"/bin/true", [b"a"], [], out=99999)
    assert caught.value.errno == errno.EBADF and caught.value.strerror == "dup2"


@pytest.mark.parametrize(("body", "status"), [("exit 3", 3), ("kill -TERM $$", 143), ("exit 0", 0)])
def test_the_status_of_a_pull(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, status: int) -> None:
    monkeypatch.setattr(
        image_launch, "own_command", lambda: ["/bin/sh", "-c", f'echo "$@" > {tmp_path}/args; {body}', "x"]
    )
    context: Any = SimpleNamespace(root="/r")
    values: Any = {"image": "docker://a/b", "mirror": ["h1", "h2"], "plain-http": True}
    assert image_launch.pull(context, values, "/s") == status
    words = (tmp_path / "args").read_text().split()
    assert words == [
        *("--root", "/r", "images", "pull", "--store", "/s"),
        *("--mirror", "h1", "--mirror", "h2", "--plain-http", "docker://a/b"),
    ]


# -- ps --------------------------------------------------------------------------------------------


def test_ps_reports_what_ps_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ps").write_text('#!/bin/sh\necho; echo "  bad $1" >&2; exit 7\n')
    (tmp_path / "ps").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(posix, "environ", {b"PATH": os.fsencode(os.environ["PATH"])})
    with pytest.raises(PyruncError) as caught:
        ps.run_ps(["-x", "y"])
    assert str(caught.value) == "ps -x y failed with status 7: bad -x"
    (tmp_path / "ps").write_text("#!/bin/sh\necho a; echo b >&2\n")
    assert ps.run_ps([]) == "a\nb\n"
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(PyruncError, match=r"^cannot execute ps: ENOENT.*; install procps, or use --format json$"):
        ps.run_ps([])


def test_ps_may_be_killed_by_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python ignores SIGPIPE; ps must not."""
    (tmp_path / "ps").write_text("#!/bin/sh\ngrep SigIgn /proc/self/status\n")
    (tmp_path / "ps").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        ignored = int(ps.run_ps([]).split()[1], 16)
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert not ignored >> 12 & 1


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("  PID TTY\n    5 a\n   55 b\n    6 c", "  PID TTY\n    5 a\n    6 c\n"),
        (
            "UID        PID  CMD\nroot         5  x 6\na b          6  y",
            "UID        PID  CMD\nroot         5  x 6\na b          6  y\n",
        ),
        ("PID\n7\nx\n\n5", "PID\n5\n"),
    ],
)  # fmt: skip
def test_lines_of_ps(text: str, kept: str) -> None:
    assert ps.table(text, {5, 6}) == kept


@pytest.mark.parametrize("text", ["", "NAME\n5", "PIDS\n5"])
def test_ps_without_pids(text: str) -> None:
    with pytest.raises(PyruncError, match="the output of ps has no PID column"):
        ps.table(text, {5})


# -- the command line, durations, limits -----------------------------------------------------------


def test_values_that_are_not_given() -> None:
    one = command.Context({})
    assert (one.root, one.rootless, one.debug, one.cgroup_manager) == ("", "auto", False, "cgroupfs")
    assert (one.log.json, one.log.debugging, one.log.to_file) == (False, False, False)
    given: Any = {"root": "/r", "rootless": "true", "debug": True, "cgroup-manager": "disabled", "log-format": "json"}
    two = command.Context(given)
    assert (two.root, two.rootless, two.debug, two.cgroup_manager) == ("/r", "true", True, "disabled")
    assert two.log.json and two.log.debugging
    scope: Any = {"systemd-cgroup": True, "cgroup-manager": "disabled"}
    assert command.Context(scope).cgroup_manager == "systemd"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"log-format": "xml"}, '--log-format "xml": expected text or json'),
        ({"rootless": "maybe"}, '--rootless "maybe": expected true, false or auto'),
        ({"cgroup-manager": "v1"}, '--cgroup-manager "v1": expected cgroupfs, systemd or disabled'),
    ],
)
def test_values_that_are_refused(values: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        command.Context(values)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5), ("1m30s", 90), ("1.5h", 5400), ("250ms", 0.25), ("1us", 1e-6),
        ("1\u00b5s", 1e-6), ("1\u03bcs", 1e-6),
        ("1ns", 1e-9), ("0", 0), ("+0", 0), ("+2s", 2), (".5s", 0.5), ("5.s", 5), ("1h1m1s", 3661), ("0s", 0),
        ("", None), ("+", None), ("5", None), ("s", None), (".s", None), ("1..5s", None), ("1.5.5s", None),
        ("5x", None),
        ("-5s", None), ("5 s", None), ("1s5", None), ("1" * 19 + "s", None), ("1" * 18 + "ns", 111111111.111111111),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float | None) -> None:
    found = events.duration(text)
    assert found == (None if seconds is None else pytest.approx(seconds, rel=1e-12))


def test_limits_that_need_a_cgroup() -> None:
    given: Any = {
        "devices": [{"allow": False}], "memory": {}, "pids": {"limit": 5}, "cpu": {"shares": 10}, "blockIO": {},
        "hugepageLimits": [],
    }  # fmt: skip
    assert resources.limiting(given) == ["pids", "cpu"]
    assert resources.limiting({}) == []


# -- /proc -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "first"),
    [
        ("Name:\tx\nNSpid:\t77\t1\nA:\t5\n", True),
        ("NSpid:\t77\t12\n", False),
        ("NSpid:\t1\n", True),
        ("Name:\tx\n", True),
    ],
)
def test_the_first_process_of_a_namespace(monkeypatch: pytest.MonkeyPatch, status: str, first: bool) -> None:
    monkeypatch.setattr(fs, "read_file", lambda name, size: status.encode())
    assert procfs.first_in_namespace(77) is first


@pytest.mark.parametrize(("number", "known"), [(errno.ENOENT, True), (errno.ESRCH, True), (errno.EMFILE, False)])
def test_a_status_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, number: int, known: bool) -> None:
    def fails(*args: object) -> bytes:
        raise OSError(number, "")

    monkeypatch.setattr(fs, "read_file", fails)
    monkeypatch.setattr(posix, "readlink", fails)
    if known:
        assert procfs.first_in_namespace(77) is True and procfs.pid_namespace(77) == ""
    else:
        for look in (procfs.first_in_namespace, procfs.pid_namespace):
            with pytest.raises(OSError):
                look(77)
    assert procfs.stdio(77) == ["", "", ""]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("network", "net"), ("mount", "mnt"), ("pid", "pid"), ("ipc", "ipc"), ("uts", "uts"), ("user", "user"),
        ("cgroup", "cgroup"),
    ],
)  # fmt: skip
def test_own_namespaces_of_every_kind(kind: str, name: str) -> None:
    facts = host.HostFacts()
    assert facts.own_namespace(kind, f"/proc/self/ns/{name}")
    assert not facts.own_namespace(kind, "/proc/self/ns/none") and not facts.own_namespace(kind, "\0")
    other = "uts" if name != "uts" else "ipc"
    assert not facts.own_namespace(kind, f"/proc/self/ns/{other}")


def test_paths_of_mountinfo() -> None:
    assert host.unescape(rb"/a\040b\134c") == "/a b\\c" and host.unescape(b"/\xff") == "/\udcff"
    assert host.unescape(rb"\011\012x") == "\t\nx" and host.unescape(b"/plain") == "/plain"


def test_no_more_mounts_are_read_than_needed(tmp_path: Path) -> None:
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").touch()
    line = "31 23 0:28 {} {} rw - cgroup2 cgroup2 rw\n"
    text = line.format("/", host.DEFAULT_MOUNT) + "1 1 0:1 / /x rw - tmpfs tmpfs rw\n" * 9000
    (tmp_path / "mountinfo").write_text(text + line.format("/late", host.DEFAULT_MOUNT))
    facts = host.HostFacts()
    facts.prefix = str(tmp_path)
    facts.cgroup2_mount = ""
    fd = os.open(tmp_path / "mountinfo", os.O_RDONLY)
    host.find_cgroup2(facts, fd)
    assert os.lseek(fd, 0, os.SEEK_CUR) == 65536 and (facts.cgroup2_mount, facts.cgroup2_root) == (
        host.DEFAULT_MOUNT,
        "/",
    )
    os.close(fd)


# -- the API ---------------------------------------------------------------------------------------


def test_waiting_for_the_end_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    child = SimpleNamespace(wait=lambda timeout: timeout is None, returncode=5)
    found: list[Any] = [None, child, child]
    monkeypatch.setattr(Container, "_watched", lambda self: found.pop(0))
    one = Container.__new__(Container)
    one.id = "c1"
    assert one.wait() is None, "other code has reaped it"
    assert one.wait() == 5
    with pytest.raises(TimeoutError, match=r"^container c1 has not stopped within 3 s$"):
        one.wait(3)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("undone", [False, True])
def test_a_cancelled_call_is_finished_and_undone(fails: bool, undone: bool) -> None:
    done: list[object] = []
    begun, go_on = threading.Event(), threading.Event()

    def call() -> int:
        begun.set()
        go_on.wait(10)
        done.append("call")
        if fails:
            raise ValueError
        return 7

    async def main() -> None:
        task = asyncio.create_task(aio._finished(call, done.append if undone else None))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done(), "the call still runs"
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert done == (["call", 7] if undone and not fails else ["call"])


def test_a_call_that_is_not_cancelled() -> None:
    done: list[object] = []
    assert asyncio.run(aio._finished(lambda: 7, done.append)) == 7 and done == []
