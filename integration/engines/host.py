"""A sandbox for one engine: its own mount, pid and network namespaces, a directory and a cgroup
prefix.

The tests never talk to the machine's own daemons. The namespaces have loopback, a fresh /run and
/dev/shm, where engines and runtimes keep what they would otherwise share, and cgroup v2 at
/sys/fs/cgroup, the only place where engines look for it. When the first process of the pid
namespace exits, the kernel kills everything in it, so no test leaves processes behind.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from integration import harness, machine

TIMEOUT = 40 * harness.SLOW  # seconds, for one call of an engine
SETUP = """
mount -t tmpfs -o mode=755 none /run && mount -t tmpfs -o mode=1777 none /dev/shm &&
{ [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ] || mount -t cgroup2 none /sys/fs/cgroup; } &&
ip link set lo up && echo ready && cat >/dev/null
:
"""  # the last line keeps the shell, which reaps orphans, from replacing itself with cat
# Parents of containers' cgroups that engines create at the root when the caller names none.
PARENTS = ("buildah-", "buildkit", "containerd", "default", "docker", "k8s.io", "libpod_parent", "moby", "testing")
# A missing directory is created in a copy of the nearest one that exists.
PROVIDE = """
set -e
parent=$1
until [ -d "$parent" ]; do parent=$(dirname "$parent"); done
mkdir "$2" "$2/upper" "$2/work"
chmod --reference="$parent" "$2/upper"
mount -t overlay -o "lowerdir=$parent,upperdir=$2/upper,workdir=$2/work" none "$parent"
mkdir -p "$1"
"""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Done(NamedTuple):
    """The result of a call: exit code, standard output, standard error (joined into `out` for calls
    on a terminal)."""

    rc: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Both outputs."""
        return self.out + self.err


class Host:
    """The sandbox. `name` is a prefix for cgroups and files. `folder` is an existing directory with
    a short path."""

    where = ""  # appended to the names of engines that come from another root filesystem

    def __init__(self, folder: Path, name: str, env: dict[str, str] | None = None) -> None:
        self.path, self.name = folder, name
        self.cgroup = f"/pyt-{os.getpid():x}-{name}"
        self.env = {"PATH": PATH, "HOME": str(folder)} | (env or {})
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.there = parents()
        flags = ["-m", "-n", "-p", "--fork", "--kill-child", "--propagation", "private", "--mount-proc"]
        with (folder / "holder.log").open("wb") as log:
            self.holder = subprocess.Popen(
                ["unshare", *flags, "/bin/sh", "-c", *self.setup()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.holder.stdout
        if self.holder.stdout.readline() != b"ready\n":
            raise AssertionError(f"cannot set up namespaces for {name}: {(folder / 'holder.log').read_text()}")
        self.pid = machine.children(self.holder.pid)[0]  # first process of the pid namespace, as seen from outside
        self.enter = ["nsenter", "-t", str(self.pid), "-m", "-n", "-p", "--"]

    def setup(self) -> list[str]:
        """A shell script that sets up the namespaces, and its arguments."""
        return [SETUP]

    def call(
        self,
        *argv: str,
        stdin: str | None = None,
        env: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        timeout: float = TIMEOUT,
    ) -> Done:
        """Run a command in the namespaces and wait for it, at most `timeout` seconds."""
        with subprocess.Popen(
            [*self.enter, *argv],
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env | (env or {}),
            pass_fds=tuple(pass_fds),
        ) as child:
            try:
                out, err = child.communicate(None if stdin is None else stdin.encode(), timeout=timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                raise AssertionError(f"no end within {timeout} s: {' '.join(argv)}") from None
        return Done(child.returncode, out.decode(errors="replace"), err.decode(errors="replace"))

    def call_on_terminal(self, *argv: str, send: bytes = b"", timeout: float = TIMEOUT) -> Done:
        """Run a command whose stdio is a new terminal; type `send` as soon as the command has
        written something."""
        ours, theirs = pty.openpty()
        child = subprocess.Popen(
            ["setsid", "-c", "-w", *self.enter, *argv], stdin=theirs, stdout=theirs, stderr=theirs, env=self.env
        )
        os.close(theirs)
        out, limit = b"", time.monotonic() + timeout
        try:
            while time.monotonic() < limit:
                if select.select([ours], [], [], 0.2)[0]:
                    try:
                        piece = os.read(ours, 4096)
                    except OSError:  # EIO: the last open descriptor of the terminal is closed
                        break
                    out += piece
                    if send:
                        os.write(ours, send)
                        send = b""
                elif child.poll() is not None:
                    break
            else:
                raise AssertionError(f"no end within {timeout} s: {' '.join(argv)}: {out!r}")
            return Done(child.wait(10 * harness.SLOW), out.decode(errors="replace").replace("\r\n", "\n"), "")
        finally:
            child.kill()
            child.wait()
            os.close(ours)

    def provide(self, place: str) -> None:
        """Make sure that a directory exists in the namespaces; the machine's own stay as they
        are."""
        if self.call("test", "-d", place).rc:
            copy = self.path / f"copy{len(list(self.path.glob('copy*')))}"
            done = self.call("/bin/sh", "-c", PROVIDE, "sh", place, str(copy))
            assert done.rc == 0, done

    def cover(self, place: str, source: Path) -> None:
        """Bind-mount `source` over a path; a missing directory is created first."""
        if source.is_dir():
            self.provide(place)
        done = self.call("mount", "--bind", str(source), place)
        assert done.rc == 0, done

    def start(self, *argv: str, log: str = "daemon.log") -> subprocess.Popen[bytes]:
        """Start a daemon in the namespaces; its output goes to `log` in the directory."""
        with (self.path / log).open("ab") as file:
            daemon = subprocess.Popen(
                [*self.enter, *argv], stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=self.env
            )
        self.daemons.append(daemon)
        return daemon

    def end(self, daemon: subprocess.Popen[bytes], by: signal.Signals = signal.SIGKILL) -> None:
        """Kill a daemon with a signal; it is no longer required to run."""
        self.daemons.remove(daemon)
        for pid in machine.children(daemon.pid):  # nsenter waits for the daemon
            os.kill(pid, by)
        daemon.wait(10 * harness.SLOW)

    def wait_ready(self, what: str, ready: Callable[[], bool], log: str = "daemon.log") -> None:
        """Wait until a daemon answers; otherwise raise an error with the end of its log."""
        limit = time.monotonic() + TIMEOUT
        while not ready():
            dead = [daemon.returncode for daemon in self.daemons if daemon.poll() is not None]
            if dead or time.monotonic() > limit:
                text = (self.path / log).read_text(errors="replace")[-2000:]
                raise AssertionError(f"{what} did not start ({dead}): {text}")
            time.sleep(0.05)

    def listdir(self, path: str) -> list[str]:
        """Names in a directory of the namespaces; empty if it is missing."""
        try:
            return sorted(os.listdir(f"/proc/{self.pid}/root{path}"))
        except FileNotFoundError:
            return []

    def processes(self) -> list[str]:
        """Command lines of the processes in the pid namespace, without the first one."""
        found = []
        for line in self.call("ps", "-e", "-o", "pid=,args=").out.splitlines():
            pid, _, args = line.strip().partition(" ")
            if pid != "1" and not args.startswith(("ps -e", "cat", "[")):
                found.append(args)
        return found

    def wait_gone(self, *words: str) -> list[str]:
        """Wait until no process has one of `words` in its command line; return those left after 20
        s.

        Monitors exit on their own shortly after the engine has reported the container's removal.
        """

        def left() -> list[str]:
            return [args for args in self.processes() if any(word in args for word in words)]

        limit = time.monotonic() + 20 * harness.SLOW
        while left() and time.monotonic() < limit:
            time.sleep(0.05)
        return left()

    def cgroups(self) -> list[Path]:
        """The sandbox's cgroups, deepest first."""
        root = machine.cgroup2_mount()
        top = Path(f"{root}{self.cgroup}")
        found = [Path(at) for at, _, _ in os.walk(top)]
        return sorted(found, key=lambda path: -len(path.parts))

    def close(self) -> None:
        """Kill everything in the namespaces and remove the cgroups."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        for child in [*self.daemons, self.holder]:
            try:
                child.wait(10 * harness.SLOW)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for group in self.cgroups():
            harness.wait_until(partial(remove, group), f"{group} to be empty")
        for parent in parents() - self.there:
            for at, _, _ in os.walk(parent, topdown=False):
                remove(Path(at))


def parents() -> set[Path]:
    """The existing cgroups among those that engines create by themselves."""
    top = machine.cgroup2_mount()
    return {path for name in PARENTS for path in Path(top).glob(f"{name}*")} if top else set()


def remove(group: Path) -> bool:
    """Remove a cgroup; return whether that succeeded."""
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
