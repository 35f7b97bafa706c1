"""R9: `create` when a resource of any kind is exhausted, and containers whose cgroup other
processes have changed."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from integration.config import DELETE
from integration.faults import pressure
from integration.faults.fleet import Light, Tally, judge_end
from integration.faults.scenes import LIMIT, NOISE, Sandbox
from integration.harness import SLOW, Container
from integration.machine import cgroup2_mount

MIB = 1 << 20
UID = 43210
ENOUGH_AS = 256 * MIB  # address space with which `create` must work


def _limit(which: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(which, (value, value))


def _close(*fds: int) -> Callable[[], None]:
    def close() -> None:
        for fd in fds:
            os.close(fd)

    return close


def limits() -> Iterator[tuple[str, Callable[[], None], bool]]:
    """The name, the function that the child calls before it executes the runtime, and whether
    `create` must then work."""
    for files in (3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 32, 48, 64):
        yield f"NOFILE={files}", _limit(resource.RLIMIT_NOFILE, files), files >= 64
    for size in (0, 1, 100, 4096):
        yield f"FSIZE={size}", _limit(resource.RLIMIT_FSIZE, size), False
    # With less, the kernel or the loader cannot map the executable: SIGSEGV before our code runs.
    for space in (24, 32, 48, 64, 96, 128, 256, 512):
        yield f"AS={space}M", _limit(resource.RLIMIT_AS, space * MIB), space * MIB >= ENOUGH_AS
    for data in (16, 64):
        yield f"DATA={data}M", _limit(resource.RLIMIT_DATA, data * MIB), False
    for stack in (64, 256):
        yield f"STACK={stack}K", _limit(resource.RLIMIT_STACK, stack * 1024), False
    yield "MEMLOCK=0", _limit(resource.RLIMIT_MEMLOCK, 0), False
    yield "SIGPENDING=0", _limit(resource.RLIMIT_SIGPENDING, 0), False
    yield "MSGQUEUE=0", _limit(resource.RLIMIT_MSGQUEUE, 0), False
    for count in (1, 2, 3):
        for fds in itertools.combinations((0, 1, 2), count):
            yield f"closed {fds}", _close(*fds), True


def said(one: Container, result: Any, must: bool) -> list[str]:
    """The problems of a result, apart from leftovers."""
    problems = [f"said {word!r}" for word in NOISE if word in result.err]
    if result.rc < 0:
        problems.append(f"killed by signal {-result.rc}")
    elif result.rc and not result.err and not must:
        problems.append("failed without a message")
    elif result.rc and must:
        problems.append(f"should work: {result!r}")
    return problems


def exhaustion(sandbox: Sandbox, rounds: int, seconds: float) -> Tally:
    """Try limits, closed descriptors, a removed working directory and full disks."""
    tally = Tally()
    one = Light(sandbox, "scarce").container()
    sandbox.root.mkdir(mode=0o700)
    for name, before, must in limits():
        problems = attempt(sandbox, one, must, preexec=before)
        if name.startswith("FSIZE"):  # stderr is a file, and cannot hold a message either
            problems = [text for text in problems if text != "failed without a message"]
        tally.note(problems, name)
    tally.note(attempt(sandbox, one, True, preexec=_lost(sandbox)), "deleted working directory")
    for options in [*(f"nr_inodes={n},size=1m" for n in range(3, 13)), *(f"size={n}k" for n in (4, 8, 12, 16, 20, 24))]:
        tally.note(on_disk(sandbox, one, options), options)
    tally.note(on_disk(sandbox, one, "size=4k", full=True), "full disk")
    tally.note(on_disk(sandbox, one, "ro"), "read-only root")
    for controller, limit, must in CALLERS:
        if pressure.hierarchy(controller):
            tally.note(in_cgroup(sandbox, one, controller, limit, must), f"caller's cgroup: {controller}={limit}")
    for processes in (0, 1, 2, 3, 4, 8):
        tally.note(as_user(sandbox, processes), f"NPROC={processes} as a user")
    return tally


# Limits of the caller's own cgroup, and whether `create` must work with them.
CALLERS = [
    *(("memory", mib * MIB, mib >= 32) for mib in (1, 2, 4, 6, 8, 12, 16, 32)),
    *(("pids", count, count >= 8) for count in (1, 2, 3, 4, 8)),
]


def in_cgroup(sandbox: Sandbox, one: Container, controller: str, limit: int, must: bool) -> list[str]:
    """Create a container from a caller with little memory. If the kernel kills the caller,
    something may remain, but not after `delete --force`."""
    tight = pressure.LimitedGroup(controller, f"{sandbox.prefix}tight", limit)
    try:
        problems = attempt(sandbox, one, must, preexec=tight.enter)
    finally:
        tight.remove()
    if controller == "memory" and not must and "killed by signal 9" in problems:
        return [text for text in problems if text.startswith(("hang", "after delete", "delete"))]
    return problems


def as_user(sandbox: Sandbox, processes: int) -> list[str]:
    """Create a container as a user with a process limit, which does not apply to root. At the
    limit, `create` must fail."""
    namespaces = [{"type": kind} for kind in ("user", "pid", "mount", "ipc", "uts")]
    mapping = [{"containerID": 0, "hostID": UID, "size": 1}]
    edits = {"/linux/namespaces": namespaces, "/linux/uidMappings": mapping, "/linux/gidMappings": mapping}
    edits |= {"/linux/resources": DELETE, "/linux/cgroupsPath": DELETE, "/mounts/2": DELETE, "/mounts/4": DELETE}
    one = Light(sandbox, f"user{processes}", edits=edits).container()
    root, sandbox.root = sandbox.root, sandbox.path / f"user{processes}"
    os.chown(sandbox.path, UID, UID)
    sandbox.root.mkdir(mode=0o700)
    os.chown(sandbox.root, UID, UID)

    def become(limit: int) -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)

    try:
        result = one.create(check=False, save=False, timeout=LIMIT, preexec=lambda: become(processes))
        problems = said(one, result, processes >= 8)
        if result.rc:
            problems += [f"left by the failed command: {text}" for text in sandbox.leftovers()]
        result = one.delete("--force", check=False, timeout=LIMIT, preexec=lambda: become(100))
        problems += [f"delete --force: {result!r}"] if result.rc else []
        return problems + [f"after delete --force: {text}" for text in sandbox.leftovers()]
    except AssertionError as error:
        return [f"hang: {error}"]
    finally:
        sandbox.sweep_up()
        sandbox.root = root
        os.chown(sandbox.path, 0, 0)


def _lost(sandbox: Sandbox) -> Callable[[], None]:
    def go() -> None:
        path = sandbox.path / "lost"
        path.mkdir()
        os.chdir(path)
        path.rmdir()

    return go


def attempt(sandbox: Sandbox, one: Container, must: bool, **how: Any) -> list[str]:
    """Run one `create`, and check for leftovers before and after `delete --force`."""
    try:
        result = one.create(check=False, save=False, timeout=LIMIT, **how)
    except AssertionError as error:
        return [f"hang: {error}", *judge_end(sandbox, one)]
    problems = said(one, result, must)
    if result.rc:
        problems += [f"left by the failed command: {text}" for text in sandbox.leftovers()]
    return problems + judge_end(sandbox, one)


def on_disk(sandbox: Sandbox, one: Container, options: str, full: bool = False) -> list[str]:
    """Run `create` with its state root on a small filesystem."""
    disk, root, before = sandbox.path / "disk", sandbox.root, sandbox.mounts
    disk.mkdir(exist_ok=True)
    read_only = options == "ro"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "rw" if read_only else options, "none", str(disk)], check=True)
    try:
        sandbox.root, sandbox.mounts = disk / "root", sandbox._mounts()
        sandbox.root.mkdir(mode=0o700)
        if full:
            subprocess.run(["dd", "if=/dev/zero", f"of={disk}/filler"], capture_output=True, check=False)
        if read_only:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        return attempt(sandbox, one, False)
    finally:
        sandbox.root, sandbox.mounts = root, before
        subprocess.run(["umount", str(disk)], check=True)


# -- interference ----------------------------------------------------------------------------------


def others(sandbox: Sandbox, rounds: int, seconds: float) -> Tally:
    """Try frozen, occupied and shared cgroups, and paused containers."""
    tally = Tally()
    for name, case in {
        "create in a frozen cgroup": in_frozen,
        "create in a cgroup with a process": in_occupied,
        "delete of a paused container": paused,
        "kill of a paused container": paused_kill,
        "delete with a foreign process in the cgroup": foreign,
        "delete with a cgroup below": nested,
        "delete after the cgroup was removed": removed,
    }.items():
        tally.note(case(sandbox), name)
        sandbox.own_cgroups.clear()
        sandbox.sweep_up()
    return tally


def _group(sandbox: Sandbox, name: str) -> Path:
    root = cgroup2_mount()
    assert root
    path = root / f"{sandbox.prefix}{name}"
    path.mkdir()
    sandbox.own_cgroups.add(path)
    return path


def _refused(sandbox: Sandbox, one: Container) -> list[str]:
    try:
        result = one.create(check=False, save=False, timeout=LIMIT)
    except AssertionError as error:
        return [f"hang: {error}"]
    if result.rc == 0:
        return ["was accepted", *judge_end(sandbox, one)]
    return said(one, result, False) + [f"left: {text}" for text in sandbox.leftovers()]


def in_frozen(sandbox: Sandbox) -> list[str]:
    """`create` must refuse a frozen cgroup, where no process would run."""
    group = _group(sandbox, "frozen")
    (group / "cgroup.freeze").write_text("1")
    problems = _refused(sandbox, Light(sandbox, "frozen").container())
    (group / "cgroup.freeze").write_text("0")
    return problems


def in_occupied(sandbox: Sandbox) -> list[str]:
    """`create` must refuse an occupied cgroup: the end of the first container would kill the
    second."""
    group = _group(sandbox, "occupied")
    sleeper = subprocess.Popen(["/bin/sleep", "60"], stdin=subprocess.DEVNULL)
    sandbox.helpers.add(sleeper.pid)
    (group / "cgroup.procs").write_text(str(sleeper.pid))
    problems = _refused(sandbox, Light(sandbox, "occupied").container())
    alive = sleeper.poll() is None
    sleeper.kill()
    sleeper.wait()
    return problems if alive else [*problems, "the process that was there was killed"]


def _running(sandbox: Sandbox, name: str) -> Container:
    one = Light(sandbox, name, "fork", "1", "--", "signals", "600").container()
    one.create(save=False)
    one.start()
    return one


def paused(sandbox: Sandbox) -> list[str]:
    """`delete --force` kills frozen processes."""
    one = _running(sandbox, "paused")
    one.call("pause", one.id)
    return judge_end(sandbox, one)


def paused_kill(sandbox: Sandbox) -> list[str]:
    """SIGKILL ends a paused container."""
    one = _running(sandbox, "pausedkill")
    one.call("pause", one.id)
    result = one.kill("KILL", check=False)
    problems = [f"kill: {result!r}"] if result.rc else []
    limit = time.monotonic() + 5 * SLOW
    while one.status != "stopped" and time.monotonic() < limit:
        time.sleep(0.01)
    return problems + ([] if one.status == "stopped" else ["goes on"]) + judge_end(sandbox, one)


def foreign(sandbox: Sandbox) -> list[str]:
    """`delete` either fails and names the foreign process, or removes the cgroup and the
    process."""
    one = _running(sandbox, "foreign")
    sleeper = subprocess.Popen(["/bin/sleep", "60"], stdin=subprocess.DEVNULL)
    sandbox.helpers.add(sleeper.pid)
    (one.cgroup / "cgroup.procs").write_text(str(sleeper.pid))
    result = one.delete("--force", check=False, timeout=2 * LIMIT)
    problems = ["exit 0, but the cgroup is left"] if result.rc == 0 and one.cgroup.exists() else []
    sleeper.kill()
    sleeper.wait()
    return problems + judge_end(sandbox, one)


def nested(sandbox: Sandbox) -> list[str]:
    """`delete` removes cgroups that a container created below its own."""
    one = _running(sandbox, "nested")
    (one.cgroup / "a").mkdir()
    (one.cgroup / "a/b").mkdir()
    (one.cgroup / "a/b/cgroup.procs").write_text(str(one.pid))
    return judge_end(sandbox, one)


def removed(sandbox: Sandbox) -> list[str]:
    """`delete` works after another process has killed everything and removed the cgroup."""
    one = _running(sandbox, "removed")
    (one.cgroup / "cgroup.kill").write_text("1")
    limit = time.monotonic() + 5 * SLOW
    while one.cgroup.exists() and time.monotonic() < limit:
        try:
            one.cgroup.rmdir()
        except OSError:
            time.sleep(0.01)
    return judge_end(sandbox, one)
