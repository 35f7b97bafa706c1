"""Concurrent commands (R4-R6, R13), damaged state (R8), exhausted resources (R9), and interference
with a container.

python -m integration.faults.floods [--full] [--only NAME,NAME] [--seconds S]

``--full`` uses the target counts; ``--seconds`` limits each flood. Results replace those of the
same names in ``build/faults/floods-RUNTIME.json``. The exit status is 1 if there is a problem.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from integration import harness
from integration.faults import exhaustion, pressure, sweep
from integration.faults.damage import corrupt
from integration.faults.fleet import Light, Tally, judge_end, together
from integration.faults.scenes import LIMIT, Sandbox
from integration.harness import SLOW, Container

WIDTH = 8
KILLED = "the runtime was killed"
MEMORY = 256 << 20  # bytes for the runtimes of a soak; the page cache always fills the rest


def one_winner(sandbox: Sandbox, rounds: int, seconds: float, width: int = 16) -> Tally:
    """R4: many `create` of one id. One succeeds, all others report the same error, and nothing
    remains."""
    tally = Tally()
    one = Light(sandbox, "winner").container()
    argv = sandbox.runtime.argv("--root", str(sandbox.root), "create", "--bundle", str(one.bundle.path), one.id)
    for _ in tally.rounds(rounds, seconds):
        ends = together([argv] * width, sandbox)
        winners = sum(end.rc == 0 for end in ends)
        texts = {end.err for end in ends if end.rc}
        problems = [] if winners == 1 else [f"{winners} winners"]
        problems += [f"losers say {len(texts)} things: {texts}"] if len(texts) > 1 and sandbox.runtime.is_pyrunc else []
        tally.note(problems + [text for end in ends for text in end.problems] + judge_end(sandbox, one))
    return tally


def deletes(sandbox: Sandbox, rounds: int, seconds: float, width: int = 10) -> Tally:
    """R5: many `delete --force` of one container, concurrent with start, kill, state and list. Each
    delete exits with 0."""
    tally = Tally()
    one = Light(sandbox, "deleted", "fork", "1", "--", "signals", "60").container()
    base = sandbox.runtime.argv("--root", str(sandbox.root))
    others = [[], ["start", one.id], ["kill", one.id, "KILL"], ["state", one.id], ["list"]]
    for number in tally.rounds(rounds, seconds):
        one.create(save=False)
        other = others[number % len(others)]
        if other[:1] != ["start"]:
            one.start()
        argvs = [[*base, "delete", "--force", one.id]] * width
        for _ in range(4 if other else 0):
            argvs.insert(random.randrange(len(argvs)), [*base, *other])
        ends = together(argvs, sandbox)
        problems = [text for end in ends for text in end.problems]
        for argv, end in zip(argvs, ends, strict=True):
            if end.rc and ("delete" in argv or "list" in argv):
                problems.append(f"{argv[-3:]} says {end.rc}: {end.err}")
        tally.note(problems + judge_end(sandbox, one))
    return tally


def lifecycle(one: Container) -> list[str]:
    """Run create, state, start, kill and delete; returns the commands that fail."""
    for verb in ("create", "state", "start", "kill", "delete"):
        if verb == "create":
            result = one.create(check=False, save=False, timeout=LIMIT)
        else:
            flags = ["--force"] if verb == "delete" else []
            result = one.call(verb, *flags, one.id, *(["KILL"] if verb == "kill" else []), check=False, timeout=LIMIT)
        if result.rc != 0:
            return [KILLED] if result.rc == -signal.SIGKILL else [f"{verb}: {result!r}"]
    return []


def delete_at_last(one: Container) -> list[str]:
    """Run `delete --force` after a runtime was killed from outside; repeat it once if it is killed
    as well."""
    for _ in range(10):
        result = one.delete("--force", check=False, timeout=LIMIT)
        if result.rc != -signal.SIGKILL:
            return [f"delete --force: {result!r}"] if result.rc else []
    return ["delete --force was killed ten times"]


def fleet(sandbox: Sandbox, work: Callable[[int], object], count: int, until: float) -> int:
    """Call ``work`` with 0, 1, ... in WIDTH threads until the deadline; returns the number of
    calls."""
    numbers = iter(range(count))
    lock, done = threading.Lock(), [0]

    def go() -> None:
        while time.monotonic() < until:
            with lock:
                number = next(numbers, -1)
                done[0] += number >= 0
            if number < 0:
                return
            work(number)

    threads = [threading.Thread(target=go) for _ in range(WIDTH)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done[0]


def lifecycles(sandbox: Sandbox, rounds: int, seconds: float, jitter: bool = False) -> Tally:
    """R6: complete lifecycles, eight at a time."""
    tally = Tally()
    local = threading.local()
    names = iter(range(WIDTH * 2))
    running: list[int] = []
    killed: list[str] = []

    def live(_: int) -> None:
        if not hasattr(local, "one"):
            local.one = Light(sandbox, f"life{next(names)}").container()
        try:
            problems = lifecycle(local.one)
        except AssertionError as error:
            problems = [str(error)]
        if problems == [KILLED] and jitter:  # by the OOM killer; nothing may remain even then
            killed.append(local.one.id)
            problems = delete_at_last(local.one)
        elif problems:
            with suppress(AssertionError):
                local.one.delete("--force", check=False, timeout=LIMIT)
        tally.note(problems)
        if local.one.pid:  # our child after create ends; an hour's inits would fill the process table
            with suppress(ChildProcessError):
                os.waitpid(local.one.pid, os.WNOHANG)
            local.one.pid = 0

    stop = threading.Event()
    shaker = threading.Thread(target=shake, args=(sandbox, stop, running)) if jitter else None
    if shaker:
        shaker.start()
    fleet(sandbox, live, rounds, time.monotonic() + seconds)
    stop.set()
    if shaker:
        shaker.join()
        tally.figures |= {"stopped processes": len(running), "killed for memory": len(killed)}
    tally.wrong += [f"at the end: {text}" for text in sandbox.leftovers(settle=5)]
    return tally


def shake(sandbox: Sandbox, stop: threading.Event, shaken: list[int]) -> None:
    """Send SIGSTOP, and shortly afterwards SIGCONT, to one of our running processes."""
    while not stop.wait(0.003):
        found = []
        for task in os.listdir("/proc/self/task"):
            with suppress(OSError):
                found += Path(f"/proc/self/task/{task}/children").read_text().split()
        if not found:
            continue
        pid = int(random.choice(found))
        with suppress(OSError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(random.random() * 0.02)
            os.kill(pid, signal.SIGCONT)
            shaken.append(pid)


def soak(sandbox: Sandbox, rounds: int, seconds: float) -> Tally:
    """R13: eight lifecycles at a time, while processes are stopped at random moments and memory is
    short."""
    with pressure.reclaiming(sandbox, MEMORY, seconds) as hits:
        tally = lifecycles(sandbox, rounds, seconds, jitter=True)
        tally.figures |= {"minutes": round(seconds / 60, 1), "memory limit hit": hits()}
    return tally


def at_once(sandbox: Sandbox, rounds: int, seconds: float) -> Tally:
    """R6: many containers at a time, and the duration of `list` then."""
    tally = Tally()
    made: dict[int, Container] = {}

    def create(number: int) -> None:
        one = Light(sandbox, f"c{number}").container()
        result = one.create(check=False, save=False, timeout=LIMIT)
        tally.note([f"create: {result!r}"] if result.rc else [])
        made[number] = one

    until = time.monotonic() + seconds
    fleet(sandbox, create, rounds, until)
    times = []
    for _ in range(5):
        listed = sandbox.runtime.call("--root", str(sandbox.root), "list", "-q", timeout=LIMIT)
        times.append(listed.seconds)
    there = len(listed.out.split())
    if there != len(made):
        tally.wrong.append(f"list shows {there} of {len(made)}")
    table = [sandbox.runtime.call("--root", str(sandbox.root), "list", timeout=LIMIT).seconds for _ in range(5)]
    tally.figures |= {"list -q ms": round(min(times) * 1000), "list ms": round(min(table) * 1000)}

    def delete(number: int) -> None:
        result = made[number].delete("--force", check=False, timeout=LIMIT)
        if result.rc:
            tally.wrong.append(f"delete: {result!r}")

    fleet(sandbox, delete, len(made), time.monotonic() + 600 * SLOW)
    tally.wrong += [f"at the end: {text}" for text in sandbox.leftovers(settle=5)]
    return tally


FLOODS: dict[str, tuple[Callable[[Sandbox, int, float], Tally], int, int]] = {
    "one-winner": (one_winner, 4, 500),
    "deletes": (deletes, 5, 200),
    "lifecycles": (lifecycles, 24, 1000),
    "at-once": (at_once, 24, 1000),
    "corrupt": (corrupt, 100, 100),
    "exhaustion": (exhaustion.exhaustion, 100, 100),
    "others": (exhaustion.others, 100, 100),
    "soak": (soak, 24, 100000),
}


def run(name: str, runtime: harness.Runtime, template: Path, base: Path, *, full: bool, seconds: float) -> Tally:
    """Run one flood in its own sandbox."""
    function, small, large = FLOODS[name]
    sandbox = Sandbox(runtime, template, base, f"f{os.getpid():x}{name.replace('-', '')}")
    try:
        return function(sandbox, large if full else small, seconds)
    finally:
        sandbox.sweep_up()
        shutil.rmtree(sandbox.path, ignore_errors=True)


def save(path: Path, name: str, tally: Tally, build: str) -> None:
    """Save one result to the results file."""
    rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    row = {"build": build, "done": tally.done, "bad": tally.bad, "wrong": tally.wrong[:20], "figures": tally.figures}
    rows[name] = row
    path.write_text(json.dumps(rows, indent=1) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", default=",".join(FLOODS))
    parser.add_argument("--seconds", type=float, default=300, help="for each flood")
    options = parser.parse_args(argv)
    sweep.RESULTS.mkdir(parents=True, exist_ok=True)
    path = harness.Runtime.find()
    assert path, "the runtime under test is not there (make build)"
    runtime = harness.Runtime(path)
    for controller in ("memory", "pids"):
        pressure.hierarchy(controller)  # while it is still visible
    sweep.settle(runtime)
    base = Path(tempfile.mkdtemp(prefix="pyf"))
    base.chmod(0o755)
    failed = 0
    try:
        harness.build_probe(base / "probe")
        template = harness.build_template(base, base / "probe")
        for name in options.only.split(","):
            start = time.monotonic()
            tally = run(name, runtime, template, base, full=options.full, seconds=options.seconds)
            save(sweep.RESULTS / f"floods-{runtime.name}.json", name, tally, sweep.identity(runtime.path))
            failed += bool(tally.wrong)
            seconds = time.monotonic() - start
            print(f"{name}: {tally.done} done, {tally.bad} bad, {tally.figures}, {seconds:.0f} s", flush=True)
            for text in tally.wrong[:20]:
                print("  " + text[:400], flush=True)
    finally:
        subprocess.run(["rm", "-rf", str(base)], check=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
