"""The report of init for each of its system calls that fails: native/tests/init-failures.txt, one
line for each.

The program runs unchanged; integration/faults/inject.c makes its calls fail. Ops on filesystems are
in integration/test_native_faults.py, hooks in native/tests/test_hook.c. After an intended change:
PYRUNC_UPDATE_GOLDEN=1, then read the diff.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import struct
import subprocess
from collections.abc import Callable, Iterator

import pytest

import init_parent
from init_parent import SHELL, Parent, finish, needs_root
from integration.faults import points
from pyrunc import handshake
from pyrunc.plan import AHEAD, Plan, ops

init_exe = init_parent.init_exe

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "native" / "tests" / "init-failures.txt"
pytestmark = [
    needs_root,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the calls are those of x86_64"),
]
CLONE_NEWUTS, CLONE_NEWNET = 0x4000000, 0x40000000
CAP_NET_RAW = 13
SILENT = {"exit_group", "exit", "brk", "munmap", "set_tid_address", "arch_prctl", "futex", "umask", "getpid", "getsid"}
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)

Scene = Callable[[Plan], tuple[int, ...]]
SCENES: dict[str, Scene] = {}


def scene(function: Scene) -> Scene:
    """A function that fills a plan and returns the descriptors that it needs."""
    SCENES[function.__name__] = function
    return function


@scene
def start(plan: Plan) -> tuple[int, ...]:
    """Only the calls before the first step and those at the end."""
    return ()


@scene
def score(plan: Plan) -> tuple[int, ...]:
    plan.oom_score("/process/oomScoreAdj", value=987)
    return ()


@scene
def score_if_possible(plan: Plan) -> tuple[int, ...]:
    plan.oom_score("/process/oomScoreAdj", policy=ops.P_OOM_SCORE_BEST_EFFORT, value=987)
    return ()


@scene
def dumpable(plan: Plan) -> tuple[int, ...]:
    plan.dumpable("(default)", value=0)
    return ()


@scene
def join(plan: Plan) -> tuple[int, ...]:
    plan.join_ns("/linux/namespaces/0", fd=plan.fd("ns", "uts", ""), nstype=CLONE_NEWUTS, path="uts")
    return (os.open("/proc/self/ns/uts", os.O_RDONLY),)


@scene
def namespaces(plan: Plan) -> tuple[int, ...]:
    plan.unshare("/linux/namespaces", flags=CLONE_NEWUTS | CLONE_NEWNET)
    plan.lo_up("(default)")
    plan.unshare_cgroup("(default)")
    return ()


@scene
def user_namespace(plan: Plan) -> tuple[int, ...]:
    plan.dumpable("(default)", value=0)
    plan.unshare_user("/linux/namespaces/0", policy=ops.P_UNSHARE_USER_DUMPABLE)
    return ()


@scene
def clocks(plan: Plan) -> tuple[int, ...]:
    plan.unshare("/linux/namespaces", flags=0x80)
    plan.time_offsets("/linux/timeOffsets", offsets=["monotonic 5 0", "boottime 7 0"])
    return ()


@scene
def clone(plan: Plan) -> tuple[int, ...]:
    plan.clone_init("(default)")
    return ()


@scene
def session(plan: Plan) -> tuple[int, ...]:
    plan.setsid("(default)")
    plan.keyring("(default)", name="_ses.pyrunc-test")
    return ()


@scene
def waits(plan: Plan) -> tuple[int, ...]:
    plan.sync_mounted("(default)")
    plan.sync_ready("(default)")
    return ()


@scene
def waits_less(plan: Plan) -> tuple[int, ...]:
    plan.flags = AHEAD
    plan.sync_mounted("(default)")
    plan.sync_ready("(default)")
    return ()


@scene
def cpus(plan: Plan) -> tuple[int, ...]:
    plan.cpu_initial("/process/execCPUAffinity", cpus=b"\x01" + bytes(7))
    plan.cpu_final("/process/execCPUAffinity", cpus=b"\x01" + bytes(7))
    return ()


@scene
def scheduling(plan: Plan) -> tuple[int, ...]:
    plan.scheduler("/process/scheduler", kind=3, level=5, runtime=0, deadline=0, period=0)
    plan.io_priority("/process/ioPriority", kind=2, level=4)
    plan.memory_policy("/linux/memoryPolicy", mode=0, nodes=b"")
    return ()


@scene
def surroundings(plan: Plan) -> tuple[int, ...]:
    plan.personality("/linux/personality", persona=0)
    plan.umask("/process/user/umask", mask=0o27)
    plan.no_new_privs("/process/noNewPrivileges")
    plan.joinable("(default)")
    return ()


@scene
def home(plan: Plan) -> tuple[int, ...]:
    plan.find_home("/process/user/uid", uid=0)
    return ()


@scene
def directory(plan: Plan) -> tuple[int, ...]:
    plan.make_cwd("/process/cwd", cwd="/tmp")
    plan.chdir("/process/cwd", cwd="/tmp")
    return ()


@scene
def identity(plan: Plan) -> tuple[int, ...]:
    plan.groups("/process/user/additionalGids", gids=struct.pack("=I", 7))
    plan.set_ids("/process/user", uid=1234, gid=1234)
    caps = 1 << CAP_NET_RAW
    plan.caps("/process/capabilities", effective=caps, permitted=caps, inheritable=caps, ambient=caps)
    plan.chdir("/process/cwd", cwd="/")
    return ()


@scene
def bounding(plan: Plan) -> tuple[int, ...]:
    """A capability that every machine has, so that the lines are the same everywhere."""
    plan.cap_bound("/process/capabilities/bounding", mask=~(1 << CAP_NET_RAW) & (1 << 64) - 1)
    return ()


@scene
def program(plan: Plan) -> tuple[int, ...]:
    plan.find_exe("/process/args/0", file="true", path="/nowhere:/usr/bin:/bin")
    return ()


@scene
def filter(plan: Plan) -> tuple[int, ...]:
    plan.no_new_privs("/process/noNewPrivileges")
    ops.Builder.seccomp(plan, "/linux/seccomp", flags=0, filter=ALLOW)
    return ()


@scene
def listener(plan: Plan) -> tuple[int, ...]:
    plan.no_new_privs("/process/noNewPrivileges")
    ops.Builder.seccomp(plan, "/linux/seccomp", policy=ops.P_SECCOMP_LISTENER, flags=1, filter=ALLOW)
    return ()


# Errors that these steps explain, work around or treat as an answer, besides EIO.
ANSWERS = {
    "start": [errno.EINTR, errno.ENOENT, errno.EACCES, errno.ENOSYS, errno.EPERM],
    "score": [errno.EACCES, errno.EPERM],
    "score_if_possible": [errno.EACCES, errno.EPERM],
    "join": [errno.EINVAL, errno.EPERM],
    "namespaces": [errno.EINVAL, errno.EPERM, errno.ENOSPC],
    "user_namespace": [errno.EPERM, errno.EINVAL],
    "clocks": [errno.ENOENT, errno.ERANGE],
    "clone": [errno.EAGAIN, errno.EPERM],
    "session": [errno.ENOSYS, errno.EPERM, errno.EDQUOT],
    "cpus": [errno.EINVAL, errno.EPERM],
    "scheduling": [errno.EINVAL, errno.EPERM, errno.EBUSY, errno.ENOSYS],
    "surroundings": [errno.EINVAL],
    "home": [errno.ENOENT, errno.EACCES, errno.ENOMEM],
    "directory": [errno.ENOENT, errno.EACCES, errno.ERANGE, errno.ENAMETOOLONG, errno.EPERM, errno.ENOTDIR],
    "identity": [errno.EPERM, errno.EINVAL, errno.EACCES],
    "bounding": [errno.EPERM, errno.EINVAL],
    "program": [errno.ENOENT, errno.EACCES, errno.EPERM],
    "filter": [errno.EINVAL, errno.EACCES, errno.EPERM],
    "listener": [errno.EINVAL, errno.EBUSY],
}

# Every plan ends with these; "start" has them.
COMMON = {
    "stat: fail EIO stat 1 0", "faccessat2: fail EIO stat 1 0", "write: exit status 1", "read: exit status 1",
    "close_range: fail EIO close_range 0 0", "close: ok",
}  # fmt: skip
# The lookup of the program, with which every plan ends, has its own answers to these; "start" has
# them.
COMMON_ANSWERS = {
    (call, number)
    for call in ("stat", "faccessat2")
    for number in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOSYS)
}


# --- the other end --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def injector(tmp_path_factory: pytest.TempPathFactory) -> str:
    return points.build(str(tmp_path_factory.mktemp("inject")))


def test_a_failing_close_releases_the_descriptor(injector: str, tmp_path: pathlib.Path) -> None:
    """As the kernel does it: otherwise a process that ignores the error would keep a pipe open."""
    out, close = tmp_path / "calls", points.numbers()["close"]
    command = [SHELL, "-c", "exec 9</dev/null; exec 9<&-; test -e /proc/$$/fd/9"]
    subprocess.run([injector, out, "trace-arguments", "0", "0", "0", "0", *command], check=False)
    calls = [line.split() for line in out.read_text().splitlines()]
    (index,) = [call[1] for call in calls if call[0] == "0" and call[2] == str(close) and call[4] == "9"]
    fault = ["error", "0", index, str(close), str(errno.EIO)]
    done = subprocess.run([injector, out, *fault, *command], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
    assert out.read_text() == f"0 {index} {close} 1\n"


@pytest.fixture
def run(init_exe: str, injector: str, tmp_path: pathlib.Path) -> Iterator[Callable[..., tuple[str, str]]]:
    """``run(scene, *words)``: the outcome, and the injector's own output."""

    def go(name: str, *words: str) -> tuple[str, str]:
        out = tmp_path / "calls"
        plan = Plan()
        fds = SCENES[name](plan)
        finish(plan, [SHELL, "-c", "exit 0"])
        parent = Parent(injector, wrap=["inject", str(out), *words, init_exe])
        try:
            return talk(parent, plan, fds), out.read_text()
        finally:
            for fd in fds:
                os.close(fd)
            parent.close()

    yield go


def talk(parent: Parent, plan: Plan, fds: tuple[int, ...], waits: tuple[int, ...] = ()) -> str:
    """Answer init until it sends nothing more; return the record of its failure, "ok", or how it
    ended. ``waits``: records after which this plan also waits."""
    said = []
    with contextlib.suppress(BrokenPipeError):  # it may have ended
        parent.send_plan(plan.encode(), fds)
        if plan.flags & AHEAD:
            parent.go()
    while (record := next_record(parent)) is not None:
        if record.type == handshake.MAP:
            write_maps(parent.pid)
            go(parent)
        elif record.type in (handshake.MOUNTED, handshake.READY, handshake.SECCOMP, handshake.CREATED, *waits):
            go(parent)
        elif record.type in (handshake.WARN, handshake.FAIL):
            text = f"{errno.errorcode.get(record.err, str(record.err))} {record.call} {record.arg} {record.item}"
            said.append(f"{handshake.NAMES[record.type].lower()} {text} {record.detail}".rstrip())
    status = parent.wait(parent.pid)
    return ", ".join(said) if said else "ok" if status == 0 else f"exit status {status}"


def go(parent: Parent) -> None:
    """Send GO to an init that may have ended."""
    with contextlib.suppress(BrokenPipeError):
        parent.go()


def next_record(parent: Parent) -> handshake.Record | None:
    """The next record, even after the error of a socket whose peer ended with an answer unread."""
    for _ in range(2):
        try:
            data = parent.sock.recv(handshake.RECORD_SIZE)
            return handshake.Record(data) if data else None
        except ConnectionResetError:
            continue
    return None


def write_maps(pid: int) -> None:
    """Write the maps of init, which is the injector's child and may have ended."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        with contextlib.suppress(OSError):
            for kind in ("gid", "uid"):
                pathlib.Path(f"/proc/{child}/{kind}_map").write_text("0 0 1")


def calls_of(run: Callable[..., tuple[str, str]], name: str) -> list[tuple[int, str]]:
    """Index and name of the spawned process's calls, from its start to its execve of the program or
    its end."""
    outcome, text = run(name, "trace", "0", "0", "0", "0")
    assert outcome == "ok"
    found = []
    for line in text.splitlines():
        thread, index, number, _ = map(int, line.split())
        call = points.names().get(number, "?")
        if thread == 0 and index > 0:
            if call in ("execve", "exit_group"):
                break
            found.append((index, call))
    ours = [call for _, call in found].index("close_range")  # earlier calls belong to the C library
    return found[ours:]


@pytest.fixture(scope="module")
def shared() -> dict[str, int]:
    """The number of calls before the first step of a plan; computed once."""
    return {}


def prelude(run: Callable[..., tuple[str, str]], shared: dict[str, int]) -> int:
    """The simplest plan only looks up its program, after a check of the host's /dev/null."""
    if not shared:
        calls = calls_of(run, "start")
        shared["start"] = max(index for index, call in calls if call == "fstat")
    return shared["start"]


@pytest.mark.parametrize("name", SCENES)
def test_failures(run: Callable[..., tuple[str, str]], shared: dict[str, int], name: str) -> None:
    begin = 0 if name == "start" else prelude(run, shared)
    found = []
    for index, call in calls_of(run, name):
        if index <= begin or call in SILENT:
            continue
        plain = ""
        for number in (errno.EIO, *ANSWERS.get(name, ())):
            outcome, hit = run(name, "error", "0", str(index), str(points.numbers()[call]), str(number))
            assert hit, (index, call)
            code = errno.errorcode[number]
            if number == errno.EIO:
                plain = outcome
                if f"{call}: {outcome}" not in COMMON or name == "start":
                    found.append(f"{name}: {call}: {outcome}")
            elif outcome != plain.replace("EIO", code) and (name == "start" or (call, number) not in COMMON_ANSWERS):
                found.append(f"{name}: {call}={code}: {outcome}")
    found = list(dict.fromkeys(found))
    if os.environ.get("PYRUNC_UPDATE_GOLDEN"):
        lines = GOLDEN.read_text().splitlines() if GOLDEN.exists() else []
        order = {scene: position for position, scene in enumerate(SCENES)}
        rest = [line for line in lines if line.split(":")[0] in order and not line.startswith(f"{name}: ")]
        GOLDEN.write_text("\n".join(sorted([*rest, *found], key=lambda line: order[line.split(":")[0]])) + "\n")
    assert found == [line for line in GOLDEN.read_text().splitlines() if line.startswith(f"{name}: ")]


def test_a_warning_without_a_reader_ends_init(
    run: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can start the container then."""

    def warns(plan: Plan) -> tuple[int, ...]:
        plan.caps("/process/capabilities", effective=0, permitted=0, inheritable=0, ambient=1 << CAP_NET_RAW)
        return ()

    monkeypatch.setitem(SCENES, "warns", warns)
    outcome, text = run("warns", "trace", "0", "0", "0", "0")
    assert outcome.startswith("warn EPERM ")
    write = str(points.numbers()["write"])
    _, index, _ = next(line.split()[:3] for line in text.splitlines() if line.split()[2] == write)
    outcome, text = run("warns", "error", "0", index, write, str(errno.EPIPE))
    assert (outcome, text.split()[2]) == ("exit status 1", write)


TOLERATED = {
    # of SIGKILL and SIGSTOP, which cannot be handled
    "start: rt_sigaction",
    # musl's open(2) sets close-on-exec again with fcntl(2)
    "start: fcntl", "home: fcntl", "directory: fcntl",
    # the name of the process
    "start: prctl",
    "start: close",
    # first tried with root's rights; the user tries again
    "identity: chdir", "identity: getcwd",
    # the next directory of PATH also has the program
    "program: stat", "program: faccessat2",
    # advice
    "filter: madvise", "listener: madvise",
}  # fmt: skip


def test_few_failures_are_tolerated() -> None:
    """Each of these failures was reviewed."""
    tolerated = [line for line in GOLDEN.read_text().splitlines() if line.endswith(": ok") and "=" not in line]
    assert {line.removesuffix(": ok") for line in tolerated} == TOLERATED
