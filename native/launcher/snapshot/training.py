"""The verbs that decide what is where in a snapshot, run inside the process that makes it.

snapshot.py compiles this file and sends it to the launcher, which calls the functions (`warm_up` in
snapshot.c).  The verbs are real, but a forked process takes the part of init, and cgroups are
directories in PLACE: they need no privilege, and have no effect outside it.  Whatever they leave in
memory would be part of the snapshot.
"""

from __future__ import annotations

import posix
import select
import sys

from pyrunc import __main__, fs, handshake, host
from pyrunc.launch import exec, spawn
from pyrunc.native import bpf, files, processes, signals, sockets
from pyrunc.native.binding import calls
from pyrunc.plan import ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PLACE = "/"  # snapshot.py assigns a directory with a bundle
SHELL = "/bin/sh"
STARTED = "kill -STOP $$"  # what a container runs
ROUNDS = 12  # CPython 3.11 specializes a function at its ninth call


def answer(sock: int, joins: bool, fifos: bool) -> None:
    """Play init in a forked process, from its PID record on.  Never returns."""
    try:
        posix.closerange(3, sock)
        posix.closerange(sock + 1, 1024)
        for _ in range(4 if joins else 2):  # the plan; GO of PLACED, READY and PID, or of READY
            sockets.receive(sock, 256, 10_000)
        if fifos:
            fds = [posix.open(f"{PLACE}/root/id/{name}", posix.O_RDWR | posix.O_CLOEXEC) for name in ("start", "error")]
        if not joins:
            posix.write(sock, handshake.encode(handshake.CREATED))
        if fifos:
            poller = select.poll()
            poller.register(fds[0], select.POLLIN)
            poller.poll(10_000)
        elif not joins:
            sockets.receive(sock, 256, 10_000)
        posix.execv(SHELL, [SHELL, "-c", STARTED if fifos else ":"])
    finally:
        posix._exit(1)


def ended() -> int:
    """The pid of a child that has ended, so that no run waits for it."""
    pid = posix.fork()
    if pid == 0:
        posix._exit(0)
    posix.waitid(posix.P_PID, pid, posix.WEXITED | posix.WNOWAIT)
    return pid


class Spawner:
    """`pyrunc.native.processes` with processes that do not execute the memfd.  Their records wait
    in the socket."""

    def __init__(self, *kinds: int, joins: bool = False, fifos: bool = False) -> None:
        self.kinds, self.joins, self.fifos = kinds, joins, fifos

    def spawn_init(self, exe: int, sock: int, preserved: int, stdio: list[int], *, ahead: bool) -> int:
        enter = ended()
        init = posix.fork()
        if init == 0:
            answer(sock, self.joins, self.fifos)
        value = {handshake.HELLO: ops.ABI, handshake.PID: init}
        if handshake.PLACED in self.kinds:
            value[handshake.PLACED] = ended()
        for kind in self.kinds:
            posix.write(sock, handshake.encode(kind, value.get(kind, 0)))
        return enter

    def __getattr__(self, name: str) -> Any:
        return getattr(processes, name)


class Calls:
    """The native calls, without the one that needs privilege."""

    def bpf_prog_load_device(self, *rest: object) -> int:
        return posix.dup(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(calls, name)


CREATE = (handshake.HELLO, handshake.PID)
SPAWNERS = {
    "create": Spawner(*CREATE, fifos=True),
    "run": Spawner(*CREATE),
    "exec": Spawner(handshake.HELLO, handshake.PLACED, handshake.PID, joins=True),
}


class Files:
    """pyrunc.native.files for a cgroup that is a directory."""

    def filesystem_type(self, fd: int) -> int:
        return exec._CGROUP2_MAGIC

    def __getattr__(self, name: str) -> Any:
        return getattr(files, name)


def snapshot() -> host.HostFacts:
    """The facts of a host with cgroups in PLACE."""
    facts = real_snapshot()
    facts.euid, facts.rootless = 0, False
    facts.cgroup2_mount, facts.cgroup2_root, facts.own_cgroup = PLACE + "/cgroup", "/", "/"
    return facts


real_snapshot = host.snapshot
PATCHES: list[tuple[Any, str, Any]] = [
    (host, "snapshot", snapshot),
    (bpf, "calls", Calls()),
    (bpf, "attach", lambda *rest: None),
    (exec, "files", Files()),
    (signals, "signalfd", lambda: posix.pipe2(posix.O_NONBLOCK | posix.O_CLOEXEC)[0]),  # blocks nothing
]


def verb(*args: str) -> None:
    """Run a verb as `main` does, without output."""
    patches = [*PATCHES, (spawn, "processes", SPAWNERS.get(args[0], processes))]
    saved = [(module, name, getattr(module, name)) for module, name, _ in patches]
    kept = [posix.dup(fd) for fd in range(3)]
    null = posix.open("/dev/null", posix.O_RDWR)
    try:
        for module, name, value in patches:
            setattr(module, name, value)
        for fd in range(3):
            posix.dup2(null, fd)
        status = __main__.run(["--root", PLACE + "/root", "--log", PLACE + "/log", *args])
    finally:
        for fd in range(3):
            posix.dup2(kept[fd], fd)
            posix.close(kept[fd])
        posix.closerange(null, 1024)  # the log, for example: a process closes it when it exits
        for module, name, value in saved:
            setattr(module, name, value)
    if status:
        raise RuntimeError(f"{' '.join(args)}: {fs.read_file(PLACE + '/log').decode()}")


def create() -> None:
    verb("create", "--bundle", PLACE + "/bundle", "id")


def start() -> None:
    verb("start", "id")
    posix.waitid(posix.P_ALL, 0, posix.WSTOPPED | posix.WNOWAIT)  # until then its status may still be "created"


def short() -> None:
    """What becomes HEAP_SHORT (heap.h).  The container exists."""
    verb("state", "id")
    start()
    verb("state", "id")
    verb("kill", "id", "KILL")
    posix.waitpid(-1, 0)
    verb("state", "id")
    verb("delete", "id")


def long() -> None:
    """What becomes HEAP_LONG, unless `short` has written to it."""
    create()
    start()
    verb("exec", "id", "true")
    verb("kill", "id", "KILL")
    posix.waitpid(-1, 0)
    verb("delete", "id")
    verb("run", "--bundle", PLACE + "/bundle", "id")


def globals_of_modules() -> dict[str, dict[str, Any]]:
    """The variables of pyrunc's modules."""
    return {name: dict(vars(module)) for name, module in sys.modules.items() if name.partition(".")[0] == "pyrunc"}


def forget(before: dict[str, dict[str, Any]], sizes: dict[tuple[str, str], int]) -> None:
    """Give the variables of modules their values from before, such as the salt of hashes in fs.py.

    Raises RuntimeError for a module or a cache that is new.
    """
    after = globals_of_modules()
    if after.keys() != before.keys():
        raise RuntimeError(f"imported by a verb: {sorted(after.keys() - before.keys())}")
    for name, variables in after.items():
        module = vars(sys.modules[name])
        for key, value in variables.items():
            if key not in before[name]:
                del module[key]
            elif value is not before[name][key]:
                module[key] = before[name][key]
    if sizes != sizes_of(before):
        raise RuntimeError(f"a verb fills a cache: {set(sizes_of(before).items()) ^ set(sizes.items())}")


def sizes_of(variables: dict[str, dict[str, Any]]) -> dict[tuple[str, str], int]:
    """The sizes of all containers among the variables."""
    return {
        (module, name): len(value)
        for module, found in variables.items()
        for name, value in found.items()
        if type(value) in (dict, list, set, bytearray)
    }


def warm() -> None:
    """Let the interpreter specialize its byte code, and leave nothing else in memory."""
    before = globals_of_modules()
    sizes = sizes_of(before)
    for _ in range(ROUNDS):
        create()
        short()
        long()
    forget(before, sizes)
