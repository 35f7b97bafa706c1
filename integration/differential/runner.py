"""Run one case on one runtime in the sandbox, and record everything observable."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from integration.differential import bundle, calls, model, sandbox
from integration.differential.calls import LIMIT, Console, Done, Reader, Streams
from integration.harness import SLOW

CGROUPS = Path("/sys/fs/cgroup")
_FILES = ("out", "err", "hook", "process", "pid")  # ours, below /w
SETTLE = 1.0 * SLOW  # seconds until killed processes have exited
PATIENCE = 15 * SLOW  # seconds until the sandbox is given up if they have not


class Peer(NamedTuple):
    """A runtime: the name in the report, the executable."""

    name: str
    path: str


class Baseline(NamedTuple):
    """The state of the sandbox before a case."""

    mounts: list[str]
    sources: dict[str, str]
    outside: dict[str, str]


@cache
def baseline() -> Baseline:
    """Record the baseline once per worker; each case restores it."""
    return Baseline(_mounts(), bundle.tree(model.SOURCES, everywhere=True), _outside())


def _mounts() -> list[str]:
    """Mount points and what is mounted on them, without the numbers that change with each mount."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        words = left.split(" ")
        found.append(f"{words[4]} {words[3]} {words[5]} {right.split(' ')[0]}")
    return sorted(found)


def _outside() -> dict[str, str]:
    """Directories in which runtimes may leave files."""
    found = {}
    for top in ("/run", "/tmp", "/var", "/root", "/dev", "/w"):
        for path, text in bundle.tree(top).items():
            if not f"{top}/{path}".startswith(
                (f"{model.SOURCES}/", f"{model.BUNDLE}/", f"{model.STATE}/", "/dev/pts/")
            ):
                found[f"{top}/{path}"] = text
    return found


class Run:
    """A case on a runtime. `program` is the built inside.c."""

    def __init__(self, peer: Peer, case: model.Case, program: Path) -> None:
        self.peer, self.case, self.program = peer, case, program
        self.config = case.config()
        self.caller = case.caller
        self.reader = Reader()
        self.console: Console | None = None
        self.pids: list[int] = []  # pids of the inits, in the order of their creation
        self.ended: dict[int, int] = {}  # wait statuses of children
        self.terminals: list[int] = []  # the reader's numbers for the terminals
        self.steps: list[dict[str, Any]] = []
        self.texts: list[dict[str, Any]] = []  # what the programs wrote
        self.joined: dict[str, str] = {}
        self.messages: list[str] = []
        self.starts = 0
        self.read = 0  # number of characters of the container's stderr already read
        arguments = self.config["process"].get("args") or []
        self.lasting = len(arguments) > 1 and arguments[1].startswith("wait")

    def outcome(self) -> dict[str, Any]:
        """Prepare, run all commands, record what is left, and clean up."""
        before = baseline()
        try:
            self._prepare()
            start = bundle.tree(model.ROOTFS)
            for command in self.case.commands:
                self._step(command)
            result: dict[str, Any] = {"steps": self.steps, "force": self._force()}
            result["hooks"] = self._hooks()
            result["texts"] = self.texts + self._written()
            result["rootfs"] = bundle.changes(start, bundle.tree(model.ROOTFS))
            result["left"] = self._left(before)
            result["joined"] = self.joined
            result["pids"] = self.pids
            return result
        finally:
            self._clear(before)

    # ---- before and after ------------------------------------------------------------------------

    def _prepare(self) -> None:
        for path in (model.BUNDLE, model.STATE):
            Path(path).mkdir()
        (CGROUPS / model.CGROUP.lstrip("/")).parent.mkdir(exist_ok=True)
        log = Path(model.LOG) / "hooks"
        log.touch()
        log.chmod(0o666)  # hooks in the container run as the container's user
        hooks = Path(model.WORK) / "hook"
        hooks.mkdir()
        first = hooks / f"hook-{model.HOOKS[0]}-0"
        shutil.copy(self.program, first)
        for name in (f"hook-{kind}-{number}" for kind in model.HOOKS for number in (0, 1)):
            if not (hooks / name).exists():
                os.link(first, hooks / name)
        for kind in self.caller.get("namespaces", ()):
            self.joined[kind] = sandbox.new_namespace(kind)
        bundle.build(self.case, self.program, self.config)

    def _force(self) -> int:
        """Delete the container by force at the end if it still exists, and return the status."""
        if model.ID not in os.listdir(model.STATE):
            return 0
        done = self.call("delete", "--force", model.ID)
        self._reap(SETTLE)
        return done.rc

    def _hooks(self) -> list[Any]:
        log = Path(model.LOG) / "hooks"
        found = []
        for line in log.read_text(errors="replace").splitlines() if log.exists() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"damaged": line})
        return found

    def _written(self) -> list[dict[str, Any]]:
        texts = [{"of": "out", "text": _text(f"{model.WORK}/out")}]
        return texts + [{"of": "terminal", "text": self.reader.finish(one)} for one in self.terminals]

    def _left(self, before: Baseline) -> dict[str, Any]:
        end = time.monotonic() + SETTLE
        while (alive := _processes()) and time.monotonic() < end:
            self._reap(0.02)
        mounts = _mounts()
        own = [model.BUNDLE, model.STATE, model.LOG, model.NAMESPACES, model.CONSOLE]
        hidden = (*own, *(f"{model.WORK}/{name}" for name in _FILES))
        return {
            "processes": sorted(alive.values()),
            "mounts": [line for line in mounts if line not in before.mounts and not line.startswith(model.NAMESPACES)],
            "lost": [line for line in before.mounts if line not in mounts],
            "cgroups": sorted(path for path in _cgroups() if path not in ("host", "box", "elsewhere")),
            "state": sorted(os.listdir(model.STATE)),
            "sources": bundle.changes(before.sources, bundle.tree(model.SOURCES, everywhere=True)),
            "files": {p: t for p, t in bundle.changes(before.outside, _outside()).items() if not p.startswith(hidden)},
        }

    def _clear(self, before: Baseline) -> None:
        """Restore the baseline, whatever a runtime has left."""
        self.reader.close()
        if self.console:
            self.console.close()
        for pid in _processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + PATIENCE
        while _processes() and time.monotonic() < end:
            self._reap(0.02)
        for line in reversed(_mounts()):
            if line not in before.mounts:
                with suppress(OSError):
                    sandbox.umount(line.split(" ")[0].replace("\\040", " "))
        sandbox.drop_namespaces()
        if not (CGROUPS / "host").exists():  # crun unmounts the host's cgroup2 in some cases
            sandbox.mount_cgroups()
        while _cgroups() != ["host"]:  # a dying process holds its cgroup
            for name in os.listdir(CGROUPS):
                if (CGROUPS / name).is_dir() and name != "host":
                    sandbox.remove_cgroups(CGROUPS / name)
            assert time.monotonic() < end, f"cgroups cannot be removed: {_cgroups()}"
            self._reap(0.02)
        for path in (model.BUNDLE, model.STATE):
            shutil.rmtree(path, ignore_errors=True)
        for path in bundle.changes(before.outside, _outside()):
            with suppress(OSError):
                os.unlink(path) if os.path.islink(path) or not os.path.isdir(path) else shutil.rmtree(path)
        for top in ("upper", "workdir"):  # created anew, because overlay leaves attributes on them
            shutil.rmtree(f"{model.SOURCES}/{top}")
            os.mkdir(f"{model.SOURCES}/{top}")
        self._put_back(before.sources)
        assert _mounts() == before.mounts, "the sandbox's mounts cannot be restored"

    @staticmethod
    def _put_back(sources: dict[str, str]) -> None:
        """Restore the sources: remove what was created there."""
        changed = bundle.changes(sources, bundle.tree(model.SOURCES, everywhere=True))
        if not changed:
            return
        with sandbox.writable_sources():
            for path in changed.keys() - sources.keys():
                bundle.remove(f"{model.SOURCES}/{path}")
        assert not bundle.changes(sources, bundle.tree(model.SOURCES, everywhere=True)), (
            f"cannot be put back: {changed}"
        )

    # ---- calls -----------------------------------------------------------------------------------

    def call(self, *args: str, streams: Streams | None = None, plain: bool = False) -> Done:
        """Run the runtime and wait. Without `streams` its output is read. `plain` drops the
        caller's settings."""
        own = streams is None
        if streams is None:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            out, err = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
            numbers = self.reader.add(out[0]), self.reader.add(err[0])
            streams = Streams((null, out[1], err[1]), (null, out[1], err[1]))
        argv = [self.peer.path, "--root", model.STATE, *args]
        pid = calls.spawn(argv, streams, {} if plain else self.caller)
        raw = self.reader.wait(pid, LIMIT)
        if raw is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        rc = -1 if raw is None else calls.status_of(raw)
        if not own:
            return Done(rc, "", "")
        done = Done(rc, self.reader.finish(numbers[0]), self.reader.finish(numbers[1], 0.5))
        self.messages.append(done.err)
        return done

    def _said(self) -> str:
        """What was written to stderr since the last step."""
        text = _text(f"{model.WORK}/err")
        new, self.read = text[self.read :], len(text)
        self.messages.append(new)
        said = "".join(self.messages)[-1000:]
        self.messages.clear()
        return said

    def _program_streams(self) -> Streams:
        """Open the files that become the program's stdin, stdout and stderr."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fds = [
            os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC),
            os.open(f"{model.WORK}/out", flags, 0o644),
            os.open(f"{model.WORK}/err", flags, 0o644),
        ]
        return Streams((fds[0], fds[1], fds[2]), fds)

    def _terminal_streams(self) -> Streams:
        master, slave = pty.openpty()
        os.set_inheritable(master, False)
        os.set_inheritable(slave, False)
        self.terminals.append(self.reader.add(master))
        return Streams((slave, slave, slave), [slave])

    def _with_console(self, args: Sequence[str]) -> list[str]:
        if "--console-socket" in args and self.console is None:
            self.console = Console()
        return list(args)

    def _take_console(self, args: Sequence[str]) -> bool:
        """Receive the terminal that the runtime sent, and return whether there was one."""
        if not self.console or "--console-socket" not in args:
            return False
        master = self.console.receive()
        if master is None:
            return False
        self.texts.append({"of": "window", "text": json.dumps(calls.window(master))})
        self.terminals.append(self.reader.add(master))
        return True

    # ---- commands --------------------------------------------------------------------------------

    def _step(self, command: Sequence[Any]) -> None:
        name, *args = command
        action: Callable[..., int] = getattr(self, f"do_{name.replace('-', '_')}")
        rc = action(*args)
        self.steps.append({"do": name, "rc": rc, "said": self._said()} | self._now())

    def _started(self) -> None:
        """Wait until the program reports that it waits for signals, or else until it has exited."""
        end = time.monotonic() + 2 * SLOW
        self.starts += 1
        if not self.lasting and self.pids:
            self._reap(5 * SLOW, self.pids[-1])
        while self.lasting and _text(f"{model.WORK}/out").count('"ready"') < self.starts and time.monotonic() < end:
            if _status(self.pids[-1] if self.pids else 0) != "alive":
                return
            if any(b'"ready"' in self.reader.texts[number] for number in self.terminals):
                return
            self._reap(0.003)

    def _now(self) -> dict[str, Any]:
        """The container after a command, as the runtime reports it and as the host sees it."""
        self._reap(0)
        done = self.call("state", model.ID, plain=True)
        try:
            state = json.loads(done.out) if done.rc == 0 else None
        except ValueError:
            state = {"damaged": done.out}
        init = self.pids[-1] if self.pids else 0
        group = CGROUPS / model.CGROUP.lstrip("/")
        return {
            "state_rc": done.rc,
            "state": state,
            "init": _status(init),
            "cgroup": _init_cgroup(init),
            "ns": _namespaces(init),
            "group": {name: _text(group / name).strip() for name in ("cgroup.freeze", "cgroup.type")}
            if group.exists()
            else None,
            "owner": bundle.describe(str(group)) if group.exists() else None,
        }

    def _new_pid(self) -> None:
        with suppress(OSError, ValueError):
            self.pids.append(int(_text(model.PID_FILE)))
        with suppress(OSError):
            os.unlink(model.PID_FILE)

    def do_create(self, args: Sequence[str] = ()) -> int:
        given = ["--bundle", model.BUNDLE, "--pid-file", model.PID_FILE, *self._with_console(args), model.ID]
        rc = self.call("create", *given, streams=self._program_streams()).rc
        self._new_pid()
        self._take_console(args)
        return rc

    def do_run(self, args: Sequence[str] = ()) -> int:
        detached = "--detach" in args
        terminal = self.config["process"].get("terminal") and not detached
        given = ["--bundle", model.BUNDLE, *self._with_console(args), model.ID]
        if detached:
            given = ["--pid-file", model.PID_FILE, *given]
        streams = self._terminal_streams() if terminal else self._program_streams()
        rc = self.call("run", *given, streams=streams).rc
        self._new_pid()
        self._take_console(args)
        if rc == 0 and detached:
            self._started()
        return rc

    def do_start(self) -> int:
        rc = self.call("start", model.ID).rc
        if rc == 0:
            self._started()
        return rc

    def do_exec(self, args: Sequence[str], argv: Sequence[str] = (), process: dict[str, Any] | None = None) -> int:
        """Pass `process` to --process, and record the program's answer as "exec"."""
        given = self._with_console(args)
        if process is not None:
            Path(f"{model.WORK}/process").write_text(json.dumps(process))
            given += ["--process", f"{model.WORK}/process"]
        streams = self._terminal_streams() if "--tty" in args and "--console-socket" not in args else None
        done = self.call("exec", *given, model.ID, *argv, streams=streams)
        if self._take_console(args):
            self.reader.finish(self.terminals[-1])
        self.texts.append({"of": "exec", "text": done.out})
        with suppress(OSError):
            os.unlink(model.PID_FILE)  # left by --detach
        return done.rc

    def do_kill(self, *args: str) -> int:
        """Send a signal and wait for its effect: init exits, or reports the signal."""
        before = len(_text(f"{model.WORK}/out"))
        flags = [arg for arg in args if arg.startswith("-")]
        rc = self.call("kill", *flags, model.ID, *(arg for arg in args if arg not in flags)).rc
        names = {name.removeprefix("SIG") for name in args if name not in flags} or {"TERM"}
        deadly = bool(names & {"KILL", "9"})
        end = time.monotonic() + (SETTLE if deadly else 0.3 * SLOW)
        ends = deadly or bool(names & {"TERM", "term"})  # the program reports the signal and exits
        while rc == 0 and self.pids and time.monotonic() < end:
            self._reap(0.01, self.pids[-1])
            if _status(self.pids[-1]) == "gone" or (not ends and len(_text(f"{model.WORK}/out")) > before):
                break
        return rc

    def do_delete(self, *args: str) -> int:
        rc = self.call("delete", *args, model.ID).rc
        self._reap(0)
        return rc

    def do_pause(self) -> int:
        return self.call("pause", model.ID).rc

    def do_resume(self) -> int:
        """Resume; signals sent during the pause are delivered now."""
        rc = self.call("resume", model.ID).rc
        if rc == 0 and self.pids:
            self._reap(0.3 * SLOW, self.pids[-1])
        return rc

    def do_update(self, *args: Any) -> int:
        """Pass flags, or the content of the file for --resources."""
        if args and isinstance(args[0], dict):
            Path(f"{model.WORK}/process").write_text(json.dumps(args[0]))
            args = ("--resources", f"{model.WORK}/process")
        return self.call("update", *args, model.ID).rc

    def do_ps(self) -> int:
        """Return the number of processes, -1 if the command is refused."""
        done = self.call("ps", "--format", "json", model.ID)
        try:
            return len(json.loads(done.out) or []) if done.rc == 0 else -1
        except ValueError:
            return -2

    def do_list(self) -> int:
        """Return the number of containers."""
        done = self.call("list", "--format", "json")
        try:
            return len(json.loads(done.out) or []) if done.rc == 0 else -1
        except ValueError:
            return -2

    def do_wait(self) -> int:
        """Wait until init has exited and return its exit status; -1 if it still runs, -2 without an
        init."""
        if not self.pids:
            return -2
        self._reap((0.3 if self.lasting else 5) * SLOW, self.pids[-1])
        return self.ended.get(self.pids[-1], -1)

    def do_init_dies(self) -> int:
        """Send SIGKILL from outside the container, as the OOM killer does."""
        if not self.pids:
            return -2
        with suppress(ProcessLookupError):
            os.kill(self.pids[-1], signal.SIGKILL)
        self._reap(SETTLE, self.pids[-1])
        return self.ended.get(self.pids[-1], -1)

    def do_cgroup_gone(self) -> int:
        """Move the container's processes away and remove its cgroup, as systemd in a container
        does."""
        group = CGROUPS / model.CGROUP.lstrip("/")
        if not group.exists():
            return -2
        elsewhere = CGROUPS / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        for at, _, _ in sorted(os.walk(group), key=lambda entry: -len(entry[0])):
            for pid in _text(f"{at}/cgroup.procs").split():
                with suppress(OSError):
                    (elsewhere / "cgroup.procs").write_text(pid)
            with suppress(OSError):
                os.rmdir(at)
        if self.pids:
            self._reap(0.3 * SLOW, self.pids[-1])  # it is thawed now
        return int(group.exists())

    def _reap(self, limit: float, wanted: int = 0) -> None:
        """Reap children that have exited, for `limit` seconds or until `wanted` has exited."""
        end = time.monotonic() + limit
        while True:
            with suppress(ChildProcessError):
                while (found := os.waitpid(-1, os.WNOHANG))[0]:
                    self.ended[found[0]] = calls.status_of(found[1])
            for number in list(self.reader.open):
                self.reader.read(number)
            if time.monotonic() >= end or (wanted and (wanted in self.ended or _status(wanted) == "gone")):
                return
            if not wanted and not _processes():
                return
            time.sleep(0.004)


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _status(pid: int) -> str:
    """The state of a process as one of a few words."""
    words = _text(f"/proc/{pid}/stat").rpartition(")")[2].split() if pid else []
    if not words or words[0] == "X":
        return "gone"
    threads = int(words[17])
    return "zombie" if words[0] == "Z" and threads < 2 else "alive"  # a filter can kill only the first thread


def _namespaces(init: int) -> list[str]:
    """The namespaces of a process, such as "net:[4026531840]"."""
    found = []
    with suppress(OSError):
        for name in os.listdir(f"/proc/{init}/ns"):
            found.append(os.readlink(f"/proc/{init}/ns/{name}"))
    return sorted(found)


def _init_cgroup(pid: int) -> str:
    for line in _text(f"/proc/{pid}/cgroup").splitlines() if pid else ():
        if line.startswith("0::"):
            return line[3:]
    return ""


def _cgroups() -> list[str]:
    return [os.path.relpath(at, CGROUPS) for at, _, _ in os.walk(CGROUPS) if at != str(CGROUPS)]


def _processes() -> dict[int, str]:
    """Names of the sandbox's processes by pid, without this one, the namespace holders and
    zombies."""
    found = {}
    ours = {os.getpid(), *sandbox.holders}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in ours and _status(int(entry)) == "alive":
            found[int(entry)] = _text(f"/proc/{entry}/comm").strip()
    return found
