"""The system calls of init with their arguments, in order: native/tests/init-calls.txt.

Many arguments have no visible effect: a flag that matters only in a race, the size of a mask, a
descriptor that is closed too late. After an intended change: PYRUNC_UPDATE_GOLDEN=1, then read the
diff. integration/test_native_flags.py does the same for the ops on filesystems.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import pathlib
import resource
import struct
from collections.abc import Callable

import pytest

import init_parent
import test_init_faults as faults
from init_parent import Parent, finish, needs_root
from integration.faults import points
from pyrunc import handshake
from pyrunc.plan import TRACE, Plan, ops

init_exe, injector = init_parent.init_exe, faults.injector
SLEEP = "/bin/sleep"
GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "native" / "tests" / "init-calls.txt"
pytestmark = [
    needs_root,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the calls are those of x86_64"),
]

# The arguments of each call: d a signed number, x a number in hexadecimal, s a string, bN the N
# bytes that it points to, wN the words of N bytes, r what is written, - nothing.
WORDS = {
    "capget": "b8", "capset": "b8 w24", "chdir": "s", "clock_gettime": "d", "clone": "x", "clone3": "w88 d",
    "close": "d", "close_range": "x x x", "dup2": "d d", "execve": "s", "exit": "d", "exit_group": "d",
    "faccessat2": "d s x x", "fchdir": "d", "fchmod": "d x", "fcntl": "d d x", "fstat": "d", "fstatfs": "d",
    "getcwd": "- d", "getpid": "", "getsid": "d", "ioctl": "d x b18", "ioprio_set": "d d x", "keyctl": "d - x",
    "kill": "- d", "lseek": "d d d", "madvise": "- x d", "memfd_create": "s x", "mmap": "- x x x d x",
    "newfstatat": "d s - x", "open": "s x x", "openat": "d s x x", "openat2": "d s w24 d", "personality": "x",
    "poll": "w8 d d", "prctl": "d x", "pread64": "d - d d", "prlimit64": "d d w16 -", "read": "d - d",
    "recvmsg": "d - x", "rt_sigaction": "- - - d", "rt_sigprocmask": "d b8 - d", "rt_sigtimedwait": "b8 - w16 d",
    "sched_setaffinity": "d d b8", "sched_setattr": "d w56 d", "seccomp": "x x b2", "sendmsg": "d - x",
    "set_mempolicy": "x b8 d", "setgroups": "d b4", "setns": "d x", "setpgid": "d d", "setresgid": "d d d",
    "setresuid": "d d d", "setsid": "", "socket": "d x d", "stat": "s", "statx": "d s x x", "umask": "x",
    "unshare": "x", "wait4": "- - d", "write": "d r",
}  # fmt: skip
# A hook may have ended before init looks for it.
WAITING = {"wait4", "poll", "rt_sigtimedwait"}
# Of the C library: the heap, and the exit of threads.
NOT_OURS = {"brk", "munmap", "set_tid_address", "arch_prctl"}

Scene = Callable[[Plan], tuple[int, ...]]
SCENES: dict[str, Scene] = dict(faults.SCENES)


def scene(function: Scene) -> Scene:
    """A function that fills a plan and returns the descriptors that it needs."""
    SCENES[function.__name__] = function
    return function


@scene
def hook(plan: Plan) -> tuple[int, ...]:
    plan.hook("/hooks/createContainer/0", path=SLEEP, args=["sleep", "0.03"],
              env=["A=1", "B=2", "C=3"], state=['{"pid":', "}"])  # fmt: skip
    return ()


@scene
def hook_in_the_container(plan: Plan) -> tuple[int, ...]:
    policy = ops.P_HOOK_IN_CONTAINER | ops.P_HOOK_SET_HOME
    plan.root("/root/path", policy=ops.P_ROOT_NO_BIND, path="/")
    plan.hook("/hooks/startContainer/0", policy=policy, path=SLEEP, args=["sleep", "0.03"], state=["{}"])
    return ()


@scene
def hook_with_a_limit(plan: Plan) -> tuple[int, ...]:
    plan.root("/root/path", policy=ops.P_ROOT_NO_BIND, path="/tmp")
    plan.hook("/hooks/createContainer/0", path=SLEEP, args=["sleep", "0.03"], state=["{}"], timeout_ms=60_000)
    return ()


@scene
def hook_under_a_filter(plan: Plan) -> tuple[int, ...]:
    plan.no_new_privs("/process/noNewPrivileges")
    ops.Builder.seccomp(plan, "/linux/seccomp", flags=0, filter=faults.ALLOW)
    plan.hook("/hooks/startContainer/0", path=SLEEP, args=["sleep", "0.03"], state=["{}"])
    return ()


@scene
def placed(plan: Plan) -> tuple[int, ...]:
    mounts = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
    root = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), None)
    if root is None:
        pytest.skip("no cgroup2 hierarchy here")
    own = next(line[3:] for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::")
    cgroup = plan.fd("cgroup", "", "")
    plan.place("/linux/cgroupsPath", cgroup_fd=cgroup)
    plan.time_offsets("/linux/timeOffsets", offsets=[])
    plan.clone_init("(default)", policy=ops.P_CLONE_INIT_IN_CGROUP, cgroup_fd=plan.fd("cgroup", "", ""))
    return tuple(os.open(root + own, os.O_PATH | os.O_DIRECTORY) for _ in range(2))


@scene
def realtime(plan: Plan) -> tuple[int, ...]:
    policy = ops.P_SCHEDULER_RESET_ON_FORK | ops.P_SCHEDULER_KEEP_PARAMS
    plan.scheduler("/process/scheduler", policy=policy, kind=1, level=6, runtime=1 << 33, deadline=2 << 33,
                   period=3 << 33)  # fmt: skip
    return ()


@scene
def nodes(plan: Plan) -> tuple[int, ...]:
    policy = ops.P_MEMORY_POLICY_STATIC_NODES
    plan.memory_policy("/linux/memoryPolicy", policy=policy, mode=2, nodes=b"\x01" + bytes(7))
    plan.cpu_final("/process/execCPUAffinity", cpus=b"")
    plan.rlimit("/process/rlimits/0", resource=resource.RLIMIT_CORE, soft=5, hard=1 << 40)
    return ()


@scene
def keys_of_others(plan: Plan) -> tuple[int, ...]:
    plan.keyring("(default)", policy=ops.P_KEYRING_OTHER_SEARCH, name="_ses.pyrunc-others")
    return ()


@scene
def hidden_identity(plan: Plan) -> tuple[int, ...]:
    plan.dumpable("(default)", value=0)
    plan.set_ids("/process/user", uid=1234, gid=1235)
    plan.caps("/process/capabilities", effective=0, permitted=0, inheritable=0, ambient=0)
    return ()


@scene
def capability_for_the_filter(plan: Plan) -> tuple[int, ...]:
    plan.caps("/process/capabilities", policy=ops.P_CAPS_FOR_FILTER, effective=1, permitted=1)
    ops.Builder.seccomp(plan, "/linux/seccomp", flags=0, filter=faults.ALLOW)
    plan.drop_admin("(default)")
    return ()


@scene
def clone_of_a_joiner(plan: Plan) -> tuple[int, ...]:
    fd = plan.fd("ns", "uts", "")
    plan.join_ns("/linux/namespaces/0", fd=fd, nstype=faults.CLONE_NEWUTS, path="uts")
    plan.clone_init("(default)", policy=ops.P_CLONE_INIT_COMPLETE, cgroup_fd=0xFFFFFFFF)
    return (os.open("/proc/self/ns/uts", os.O_RDONLY),)


@scene
def descriptors(plan: Plan) -> tuple[int, ...]:
    """All that the plan brings is closed before another process may see it."""
    for _ in range(3):
        plan.fd("ns", "", "")
    plan.root("/root/path", policy=ops.P_ROOT_NO_BIND, path="/")
    plan.chdir("/process/cwd", cwd="/")
    return tuple(os.open("/", os.O_PATH) for _ in range(3))


def number(value: int, bits: int = 64) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def shown(kind: str, text: str, size: int) -> str:
    """One argument as the golden file has it."""
    value, data = int(text.partition(":")[0], 16), bytes.fromhex(text.partition(":")[2])
    if data and kind in "dx":
        return "*"
    if kind == "d":
        return str(number(value & 0xFFFFFFFF, 32) if value >> 32 in (0, 0xFFFFFFFF) else number(value))
    if kind == "x":
        return hex(value & 0xFFFFFFFF)
    if not data:
        return "NULL" if value == 0 else hex(value)
    if kind == "s":
        return data.partition(b"\0")[0].decode()
    if kind == "r":
        if size == handshake.RECORD_SIZE:
            return " ".join(["record", *map(str, record(data))])
        return "NUMBER" if data[:size].isdigit() else repr(data[:size])[1:]
    length = int(kind[1:])
    if kind[0] == "w":
        return f"{{{' '.join(hex(word) for (word,) in struct.iter_unpack('=I', data[:length]))}}}"
    return data[:length].hex()


@scene
def traced(plan: Plan) -> tuple[int, ...]:
    """The times of more steps than a record holds, and of one after which another process works."""
    plan.flags = TRACE
    for mask in range(30):
        plan.umask("/process/user/umask", mask=mask)
    plan.sync_mounted("(default)")
    plan.umask("/process/user/umask", mask=0o22)
    return ()


def record(data: bytes) -> tuple[int, ...]:
    """The kind of a record of the handshake, its step, errno and value, unless that varies."""
    kind, step, err, value = struct.unpack("=IiiI", data[:16])
    varies = kind in (handshake.PID, handshake.PLACED)
    return (kind, step, err) if varies else (kind, step, err, value)


def line_of(text: str) -> tuple[int, int, str]:
    """Thread, index and the readable call of one line of the tracer."""
    thread, index, code, _, *arguments = text.split(" ")
    name = points.names()[int(code)]
    if name in NOT_OURS:
        return int(thread), int(index), ""
    kinds = WORDS[name].split()
    if name == "fcntl" and arguments[1] == f"{fcntl.F_GETFD:x}":
        kinds = kinds[:2]  # it takes no value
    if name == "mmap" and not arguments[4].startswith("ffffffff"):
        kinds[1] = "-"  # of the plan, whose size is different in each scene
    size = int(arguments[2].partition(":")[0], 16)
    words = [shown(kind, text, size) for kind, text in zip(kinds, arguments, strict=False) if kind != "-"]
    return int(thread), int(index), " ".join([name, *words])


def calls_of(init_exe: str, injector: str, out: pathlib.Path, name: str) -> list[str]:
    """The calls of each thread up to its execve; repeated calls are one line."""
    plan = Plan()
    fds = SCENES[name](plan)
    finish(plan, ["/bin/true"], ["A=1", "B=2"])
    parent = Parent(injector, wrap=["inject", str(out), "trace-arguments", "0", "0", "0", "0", init_exe])
    try:
        also = {"placed": (handshake.PLACED,), "clone_of_a_joiner": (handshake.PID,)}
        assert faults.talk(parent, plan, fds, also.get(name, ())) == "ok"
    finally:
        for fd in fds:
            os.close(fd)
        parent.close()
    threads: dict[int, list[str]] = {}
    over = set()
    for text in out.read_text().splitlines():
        thread = int(text.split(" ")[0])
        if thread in over:
            continue
        _, index, call = line_of(text)
        if call and index >= 0:  # not the execve of init itself
            threads.setdefault(thread, []).append(call)
            if call.split(" ")[0] == "execve":
                over.add(thread)
    first = next(position for position, call in enumerate(threads[0]) if call.startswith("close_range"))
    threads[0] = threads[0][first:]  # earlier calls belong to the C library
    return [f"{thread} {call}" for thread in threads for call in unrepeated(threads[thread])]


def unrepeated(calls: list[str]) -> list[str]:
    """Calls without repetitions; how often init looks for the end of a hook depends on the time."""
    found: list[str] = []
    for call, _ in itertools.groupby(calls):
        if not (call in found and call.split(" ")[0] in WAITING):
            found.append(call)
    return found


def waits(line: str) -> bool:
    """Whether a line of the golden file is about a call that waits for a hook."""
    return line.split(" ")[2] in WAITING


@pytest.fixture(scope="module")
def prelude(init_exe: str, injector: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The calls before the first step of a plan, and those of its end."""
    return calls_of(init_exe, injector, tmp_path_factory.mktemp("calls") / "start", "start")


def beyond(found: list[str], prelude: list[str]) -> list[str]:
    """What a plan does differently from the simplest one before its first step, and all calls
    after that; a minus marks a call that is missing."""
    last = "0 open /dev/null"
    end, own_end = (next(at for at, call in enumerate(of) if call.startswith(last)) for of in (prelude, found))
    missing = [f"- {call}" for call in prelude[:end] if call not in found[:own_end]]
    return [*missing, *(call for call in found[:own_end] if call not in prelude[:end]), *found[own_end + 2 :]]


@pytest.mark.parametrize("name", SCENES)
def test_calls(init_exe: str, injector: str, prelude: list[str], tmp_path: pathlib.Path, name: str) -> None:
    calls = calls_of(init_exe, injector, tmp_path / "calls", name)
    found = [f"{name}: {call}" for call in (calls if name == "start" else beyond(calls, prelude))]
    lines = GOLDEN.read_text().splitlines() if GOLDEN.exists() else []
    if os.environ.get("PYRUNC_UPDATE_GOLDEN"):
        kept = {one: [line for line in lines if line.startswith(f"{one}: ")] for one in SCENES}
        kept[name] = found
        GOLDEN.write_text("".join(line + "\n" for of_scene in kept.values() for line in of_scene))
        return
    wanted = [line for line in lines if line.startswith(f"{name}: ")]
    assert [line for line in found if not waits(line)] == [line for line in wanted if not waits(line)]
    assert set(found) <= set(wanted)
