"""Workers that run cases, each in its own sandbox; a worker that dies or hangs is replaced."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from integration.differential import sandbox
from integration.differential.model import Case
from integration.differential.observe import Facts
from integration.harness import REPO, SLOW, compile_static

LIMIT = 240 * SLOW  # seconds, for one case on all runtimes
_counter = itertools.count()


def runtimes() -> dict[str, str]:
    """Names and executables of pyrunc and its peers: the newest runc, or else the system's, and
    crun."""
    found = {"pyrunc": os.environ.get("PYRUNC_UNDER_TEST") or str(REPO / ".venv/bin/pyrunc")}
    peers = REPO / "build/peers/bin"
    for name, paths in (
        ("runc", (peers / "runc-new", shutil.which("runc"))),
        ("crun", (peers / "crun", shutil.which("crun"))),
    ):
        path = next((str(path) for path in paths if path and os.access(path, os.X_OK)), None)
        if path:
            found[name] = os.path.realpath(path)
    return found


def build_program(folder: Path) -> Path:
    """Compile inside.c."""
    folder.mkdir(parents=True, exist_ok=True)
    target, fresh = folder / "inside", folder / f"inside.{os.getpid()}"
    compile_static(REPO / "integration/differential/inside.c", fresh)
    fresh.rename(target)  # another run may be copying it
    return target


class Worker:
    """One worker process."""

    def __init__(self, program: Path, peers: dict[str, str]) -> None:
        self.argv = [sys.executable, "-m", "integration.differential.worker"]
        self.program, self.peers = program, peers
        self.process: subprocess.Popen[str] | None = None
        self.name = ""

    def _start(self) -> subprocess.Popen[str]:
        self.name = f"{os.getpid():x}-{next(_counter)}"
        argv = [*self.argv, self.name, str(self.program), *(f"{peer}={path}" for peer, path in self.peers.items())]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPO)
        return self.process

    def ask(self, case: Case) -> dict[str, Any]:
        """The answer to a case: facts and messages by runtime, or {"error": text}."""
        process = self.process or self._start()
        assert process.stdin and process.stdout
        try:
            process.stdin.write(case.dump() + "\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], LIMIT)
            line = process.stdout.readline() if ready else ""
        except OSError as error:
            line = ""
            ready = [error]  # type: ignore[list-item]  # for display only
        if line:
            answer = json.loads(line)
            assert isinstance(answer, dict)
            if "error" in answer:
                self.close()
            return answer
        self.close(kill=True)
        return {"error": "the worker died" if ready else f"no answer in {LIMIT} s"}

    def facts(self, case: Case) -> dict[str, Facts]:
        """Only the facts; empty after an error."""
        answer = self.ask(case)
        found = answer.get("facts", {})
        assert isinstance(found, dict)
        return found

    def close(self, *, kill: bool = False) -> None:
        """Close the worker's input, at which it exits and removes its cgroup."""
        process, self.process = self.process, None
        if process is None:
            return
        assert process.stdin and process.stdout
        with contextlib.suppress(OSError):
            process.stdin.close()
        if kill:
            for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                with contextlib.suppress(OSError):
                    os.kill(int(pid), 9)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            sandbox.leave(sandbox.cgroup_of(self.name))
        process.stdout.close()


def answers(
    cases: Iterable[Case], program: Path, peers: dict[str, str], jobs: int
) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Every case with its answer, in order of arrival."""
    todo: queue.Queue[Case | None] = queue.Queue(maxsize=4 * jobs)
    done: queue.Queue[tuple[Case, dict[str, Any]] | None] = queue.Queue()

    def work() -> None:
        worker = Worker(program, peers)
        try:
            while (case := todo.get()) is not None:
                done.put((case, worker.ask(case)))
        finally:
            worker.close()
            done.put(None)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for case in cases:
        todo.put(case)
        while not done.empty():
            item = done.get()
            if item:
                yield item
    for _ in threads:
        todo.put(None)
    running = len(threads)
    while running:
        item = done.get()
        if item is None:
            running -= 1
        else:
            yield item
    for thread in threads:
        thread.join()
