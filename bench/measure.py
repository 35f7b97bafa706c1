"""Start processes and measure their wall time; find the runtimes and build the bundle.

Times are in milliseconds. Nothing here evaluates them; see compare.py.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
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


def enter_private_namespace() -> bool:
    """If cgroup2 is not at /sys/fs/cgroup (the only place where peers look), enter a mount
    namespace where it is.

    Returns False if nothing had to be done.
    """
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup2 ") and left.split()[4] == "/sys/fs/cgroup":
            return False
    _call("unshare", 0x00020000)  # CLONE_NEWNS
    _call("mount", None, b"/", None, 0x4000 | (1 << 18), None)  # MS_REC|MS_PRIVATE
    _call("mount", b"none", b"/sys/fs/cgroup", b"cgroup2", 0, None)
    return True


class Worker:
    """A process that starts others on request, in the host's mount namespace or in the private one.

    Two of them alternate, so that the series of both places are interleaved as well.
    """

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
        self.moved = bool(self.ask({"ready": 1})["moved"])

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
        self, argv: Sequence[str], expect: int | None = 0, out: str = "/dev/null", limit: float = LIMIT
    ) -> dict[str, Any]:
        """The same with "cpu_ms" and "peak_kib" of `argv` and its children; the peak is at least
        the worker's."""
        answer = self.ask({"argv": list(argv), "out": out, "limit": limit})
        if expect is not None and answer["rc"] != expect:
            raise RuntimeError(f"{' '.join(argv)}: exit code {answer['rc']}: {answer['err'].strip()}")
        return answer

    def storm(self, argv: Sequence[str], count: int, at_once: int) -> dict[str, Any]:
        """Run `argv` `count` times, `at_once` at a time, with the number in place of {}: see
        `_storm`."""
        return self.ask({"storm": list(argv), "count": count, "at_once": at_once})

    def reap(self) -> None:
        """Wait for the end of every orphan, which is a killed container."""
        self.ask({"reap": 1})

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
            _call("prctl", 1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG: no worker outlives the benchmark
            moved = enter_private_namespace() if private else False
            with os.fdopen(requests) as source, os.fdopen(answers, "w") as sink:
                for line in source:
                    request = json.loads(line)
                    answer = {"moved": moved}
                    if "reap" in request:
                        _reap()
                    elif "storm" in request:
                        answer |= _storm(request["storm"], request["count"], request["at_once"])
                    elif "argv" in request:
                        answer |= _timed(request["argv"], request["out"], request["limit"])
                    sink.write(json.dumps(answer) + "\n")
                    sink.flush()
                    if "quit" in request:
                        break
            status = 0
        finally:
            os._exit(status)


def _reap() -> None:
    limit = time.monotonic() + LIMIT
    while time.monotonic() < limit:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.0002)
        except ChildProcessError:
            return


def _timed(argv: list[str], out: str, limit: float) -> dict[str, Any]:
    """From posix_spawn to wait4, with the error text of a failure."""
    signal.alarm(int(limit))
    start = time.perf_counter_ns()
    pid, errors = _spawn(argv, out)
    _, status, used = os.wait4(pid, 0)
    elapsed = time.perf_counter_ns() - start
    signal.alarm(0)
    text = os.pread(errors, 4096, 0).decode(errors="replace")
    os.close(errors)
    return {
        "ms": elapsed / 1e6,
        "cpu_ms": (used.ru_utime + used.ru_stime) * 1e3,
        "peak_kib": used.ru_maxrss,
        "rc": os.waitstatus_to_exitcode(status),
        "err": text,
    }


def _storm(template: list[str], count: int, at_once: int) -> dict[str, Any]:
    """Seconds for all, the number of failures with the first message, and the peak resident memory
    of one in KiB.

    The peak is read from /proc every millisecond (VmHWM), because wait4's ru_maxrss is at least the
    spawner's.
    """
    running: dict[int, int] = {}  # pid: descriptor of its stderr
    started = failed = peak = 0
    text = ""
    begin = time.perf_counter()
    while (started < count or running) and time.perf_counter() - begin < LIMIT * 5:
        while started < count and len(running) < at_once:
            pid, errors = _spawn([word.replace("{}", str(started)) for word in template])
            running[pid] = errors
            started += 1
        for pid in list(running):
            peak = max(peak, _peak(pid))
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                errors = running.pop(pid)
                if status:
                    failed += 1
                    text = text or os.pread(errors, 4096, 0).decode(errors="replace").strip()
                os.close(errors)
        time.sleep(0.001)
    seconds = time.perf_counter() - begin
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    return {"seconds": seconds, "failed": failed + len(running), "peak_kib": peak, "text": text}


def _peak(pid: int) -> int:
    """The peak resident memory of one of our processes, in KiB; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+)", status, re.MULTILINE)
    return int(found[1]) if found else 0


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
    """The path of a runtime: $PYRUNC, $RUNC or $CRUN, build/peers (bench/peers.sh), the virtual environment, PATH."""
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
    for directory in ("proc", "sys", "dev", "tmp"):
        (rootfs / directory).mkdir()
    subprocess.run([pyrunc, "spec", "--bundle", str(bundle)], check=True, timeout=LIMIT)
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    config["process"] |= {"terminal": False, "args": args}
    config |= changes
    path.write_text(json.dumps(config, indent=2))
    return bundle
