"""Start processes and measure their wall time; find the runtimes and build the bundle.

Times are in milliseconds. Nothing here evaluates them; see compare.py.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
ENVIRONMENT = {"PATH": f"{REPO}/build/criu/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
LIMIT = 60.0  # one process, seconds

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args: Any) -> None:
    if getattr(_libc, name)(*args) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def become_subreaper() -> None:
    """A container's init becomes our child when the runtime exits, so that we can wait for its
    end."""
    _call("prctl", 36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def die_with_parent() -> None:
    """End with the process that forked us, however it ends."""
    _call("prctl", 1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG


def enter_private_namespace() -> None:
    """Enter a mount namespace with cgroup2 at /sys/fs/cgroup, the only place where peers look."""
    _call("unshare", 0x00020000)  # CLONE_NEWNS
    _call("mount", None, b"/", None, 0x4000 | (1 << 18), None)  # MS_REC|MS_PRIVATE
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup2 ") and left.split()[4] == "/sys/fs/cgroup":
            return
    _call("mount", b"none", b"/sys/fs/cgroup", b"cgroup2", 0, None)


@contextmanager
def tmpfs(path: Path) -> Iterator[Path]:
    """A new directory with a tmpfs on it, for the state of the runtimes. The caller is in a private
    mount namespace."""
    path.mkdir()
    _call("mount", b"none", bytes(path), b"tmpfs", 0, b"mode=711")
    try:
        yield path
    finally:
        _call("umount2", bytes(path), 2)  # MNT_DETACH


class Worker:
    """A process that starts others on request, in the caller's mount namespace or in a private
    one."""

    def __init__(self, private: bool) -> None:
        ours, theirs = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(ours[0])
            os.close(theirs[1])
            self._serve(theirs[0], ours[1], private)
        os.close(ours[1])
        os.close(theirs[0])
        self.answers = os.fdopen(ours[0])
        self.requests = os.fdopen(theirs[1], "w")
        self.ask({"ready": 1})

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its answer. RuntimeError if the worker is gone."""
        self.requests.write(json.dumps(request) + "\n")
        self.requests.flush()
        line = self.answers.readline()
        if not line:
            raise RuntimeError("the measuring process ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, argv: Sequence[str], expect: int | None = 0, out: str = "/dev/null") -> float:
        """Milliseconds from the start of `argv` to its end; RuntimeError if its exit status is
        not `expect`."""
        return float(self.usage(argv, expect, out)["ms"])

    def usage(
        self,
        argv: Sequence[str],
        expect: int | None = 0,
        out: str = "/dev/null",
        limit: float = LIMIT,
        *,
        pid_file: str = "",
    ) -> dict[str, Any]:
        """The same with "cpu_ms" and "peak_kib".

        The CPU time covers the whole tree: `argv`, its children, the orphans that it leaves, and
        the process in `pid_file`, as far as earlier calls did not count it. The peak covers `argv`
        and its children; it is at least the worker's.
        """
        answer = self.ask({"argv": list(argv), "out": out, "limit": limit, "pid_file": pid_file})
        if expect is not None and answer["rc"] != expect:
            raise RuntimeError(f"{' '.join(argv)}: exit code {answer['rc']}: {answer['err'].strip()}")
        return answer

    def storm(self, argv: Sequence[str], count: int, at_once: int) -> dict[str, Any]:
        """Run `argv` `count` times, `at_once` at a time, with the number in place of {}: see
        `_storm`."""
        return self.ask({"storm": list(argv), "count": count, "at_once": at_once})

    def peak(self, argv: Sequence[str]) -> int:
        """The peak resident KiB of the process `argv` alone. Raises RuntimeError if it fails."""
        answer = self.ask({"peak": list(argv)})
        if answer["rc"]:
            raise RuntimeError(f"{' '.join(argv)}: status {answer['rc']:#x}: {answer['err'].strip()}")
        return int(answer["peak_kib"])

    def reap(self, pid: int = 0) -> float:
        """Wait for the end of a killed container, by the pid of its first process, or of every
        orphan. Returns the CPU milliseconds that no earlier call counted."""
        return float(self.ask({"reap": pid})["cpu_ms"])

    def close(self) -> None:
        self.ask({"quit": 1})  # EOF on the pipe is unreliable: a later worker has a copy of our end
        self.requests.close()
        os.waitpid(self.pid, 0)

    @staticmethod
    def _serve(requests: int, answers: int, private: bool) -> None:
        """The worker's main function; never returns."""
        status = 1
        try:
            become_subreaper()
            die_with_parent()
            if private:
                enter_private_namespace()
            counted: dict[int, int] = {}
            with os.fdopen(requests) as source, os.fdopen(answers, "w") as sink:
                for line in source:
                    request = json.loads(line)
                    answer: dict[str, Any] = {}
                    if "reap" in request:
                        answer["cpu_ms"] = _reap(counted, request["reap"])
                    elif "storm" in request:
                        answer |= _storm(request["storm"], request["count"], request["at_once"])
                    elif "argv" in request:
                        answer |= _timed(request["argv"], request["out"], request["limit"])
                        answer["cpu_ms"] += _orphans(counted) + _container(counted, request["pid_file"])
                    elif "peak" in request:
                        answer |= _traced(request["peak"])
                    sink.write(json.dumps(answer) + "\n")
                    sink.flush()
                    if "quit" in request:
                        break
            status = 0
        finally:
            os._exit(status)


# CPU nanoseconds of living processes that were counted already, by pid.
Counted = dict[int, int]


def _spent(used: resource.struct_rusage) -> int:
    """CPU nanoseconds."""
    return round((used.ru_utime + used.ru_stime) * 1e9)


def _orphans(counted: Counted) -> float:
    """CPU milliseconds of the orphans that have ended."""
    total = 0
    while True:
        try:
            pid, _, used = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return total / 1e6
        if pid == 0:
            return total / 1e6
        total += _spent(used) - counted.pop(pid, 0)


def _container(counted: Counted, pid_file: str) -> float:
    """CPU milliseconds that the process in `pid_file` has used since it was counted last."""
    try:
        with open(pid_file) as file:
            pid = int(file.read())
        # The clock of another process is (~pid << 3) | CPUCLOCK_SCHED:
        # include/linux/posix-timers.h.
        now = time.clock_gettime_ns((~pid << 3) | 2)
    except (OSError, ValueError):
        return 0.0
    before = counted.get(pid, 0)
    counted[pid] = now
    return (now - before) / 1e6


def _reap(counted: Counted, wanted: int) -> float:
    """Wait for one orphan, or for all if `wanted` is 0; returns the CPU milliseconds of those that
    have ended."""
    limit = time.monotonic() + LIMIT
    total = 0
    # `_orphans` may have reaped it.
    while time.monotonic() < limit and (not wanted or os.path.exists(f"/proc/{wanted}")):
        try:
            pid, _, used = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            time.sleep(0.0002)
        else:
            total += _spent(used) - counted.pop(pid, 0)
    return total / 1e6


def _timed(argv: list[str], out: str, limit: float) -> dict[str, Any]:
    """From posix_spawn to wait4, with the error text of a failure. It is killed after `limit`
    seconds."""
    start = time.perf_counter_ns()
    pid, errors = _spawn(argv, out)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.alarm(int(limit))
    _, status, used = os.wait4(pid, 0)
    signal.alarm(0)
    elapsed = time.perf_counter_ns() - start
    text = os.pread(errors, 4096, 0).decode(errors="replace")
    if elapsed > limit * 1e9:
        text = f"killed after {limit:g} s"
    os.close(errors)
    return {
        "ms": elapsed / 1e6,
        "cpu_ms": _spent(used) / 1e6,
        "peak_kib": used.ru_maxrss,
        "rc": os.waitstatus_to_exitcode(status),
        "err": text,
    }


def _traced(argv: list[str]) -> dict[str, Any]:
    """The peak resident KiB of a process, read when it is about to exit.

    wait4's ru_maxrss includes the memory of the process that spawned it; VmHWM begins at the
    execve.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(LIMIT))
    # Stopped, or it might end before it is traced. The execve discards the shell's memory.
    pid, errors = _spawn(["/bin/sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *argv])
    os.waitpid(pid, os.WUNTRACED)
    _ptrace(0x4206, pid, 0x40)  # PTRACE_SEIZE, PTRACE_O_TRACEEXIT
    os.kill(pid, signal.SIGCONT)
    peak = 0
    while True:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            break
        event = status >> 16
        if event == 6:  # PTRACE_EVENT_EXIT
            peak = _peak(pid)
        _ptrace(7, pid, 0 if event else os.WSTOPSIG(status))  # PTRACE_CONT, with the signal that it was to get
    signal.alarm(0)
    text = os.pread(errors, 4096, 0).decode(errors="replace")
    os.close(errors)
    return {"peak_kib": peak, "rc": status, "err": text}


def _ptrace(request: int, pid: int, data: int) -> None:
    _call("ptrace", ctypes.c_long(request), ctypes.c_long(pid), None, ctypes.c_void_p(data))


def _storm(template: list[str], count: int, at_once: int) -> dict[str, Any]:
    """Seconds for all, CPU seconds of all with their orphans, and the number of failures with the
    first message."""
    running: dict[int, int] = {}  # pid: descriptor of its stderr
    started = failed = spent = 0
    text = ""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(LIMIT * 5))
    begin = time.perf_counter()
    while started < count or running:
        while started < count and len(running) < at_once:
            pid, errors = _spawn([word.replace("{}", str(started)) for word in template])
            running[pid] = errors
            started += 1
        pid, status, used = os.wait4(-1, 0)
        spent += _spent(used)
        if pid in running:
            errors = running.pop(pid)
            if status:
                failed += 1
                text = text or os.pread(errors, 4096, 0).decode(errors="replace").strip()
            os.close(errors)
    seconds = time.perf_counter() - begin
    signal.alarm(0)
    return {"seconds": seconds, "cpu_seconds": spent / 1e9, "failed": failed, "text": text}


def _peak(pid: int) -> int:
    """The peak resident memory of one of our processes, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^VmHWM:\s+(\d+)", status, re.MULTILINE)[0])


def _spawn(argv: list[str], out: str = "/dev/null") -> tuple[int, int]:
    """Start a process; returns its pid and a descriptor of its stderr."""
    errors = os.memfd_create("stderr", os.MFD_CLOEXEC)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, out, os.O_WRONLY | os.O_CREAT, 0o600),
        (os.POSIX_SPAWN_DUP2, errors, 2),
    ]
    return os.posix_spawn(argv[0], argv, ENVIRONMENT, file_actions=actions), errors


class Peer:
    """A runtime: its path and its name."""

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path = name, path
        text = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=LIMIT, check=True).stdout
        self.version = text.splitlines()[0].split()[2]


def find(name: str) -> str | None:
    """The path of a runtime: $PYRUNC, $RUNC or $CRUN, build/peers (bench/peers.sh), the virtual
    environment, PATH."""
    given = os.environ.get(name.upper().replace("-", "_"))
    if given:
        return given
    for place in (REPO / "build/peers/bin" / name, REPO / ".venv/bin" / name):
        if os.access(place, os.X_OK):
            return str(place)
    return shutil.which(name, path=ENVIRONMENT["PATH"])


def interpreter() -> str:
    """The interpreter that pyrunc was built with: the base of the virtual environment."""
    python = REPO / ".venv/bin/python"
    return os.path.realpath(python if python.exists() else sys.executable)


def make_bundle(place: Path, pyrunc: str, name: str, args: list[str], **changes: Any) -> Path:
    """The default `spec` bundle with a static busybox, no terminal, and `args` as its program."""
    bundle = place / name
    rootfs = bundle / "rootfs"
    (rootfs / "bin").mkdir(parents=True)
    busybox = shutil.which("busybox")
    if busybox is None:
        raise RuntimeError("busybox-static is not installed")
    shutil.copy(busybox, rootfs / "bin/busybox")
    for applet in ("true", "sleep", "sh"):
        (rootfs / "bin" / applet).symlink_to("busybox")
    for directory in ("proc", "sys", "dev", "tmp", "mnt"):
        (rootfs / directory).mkdir()
    subprocess.run([pyrunc, "spec", "--bundle", str(bundle)], check=True, timeout=LIMIT)
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    config["process"] |= {"terminal": False, "args": args}
    config |= changes
    path.write_text(json.dumps(config, indent=2))
    return bundle
