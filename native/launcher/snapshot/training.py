"""The verbs that decide what is where in a snapshot, run inside the process that makes it.

snapshot.py compiles this file and sends it to the launcher, which calls the functions (`call` in
snapshot.c).  The verbs are real, but a forked process takes the part of init, and cgroups are
directories in PLACE: they need no privilege, and have no effect outside it.  Whatever they leave in
memory would be part of the snapshot.
"""

from __future__ import annotations

import posix
import select
import sys
from _struct import pack, unpack

from pyrunc import __main__, fs, handshake, host
from pyrunc.launch import exec
from pyrunc.native import bpf, files, signals, sockets
from pyrunc.native.binding import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PLACE = "/"  # snapshot.py assigns a directory with a bundle
SHELL = "/bin/sh"
STARTED = "kill -STOP $$"  # what a container runs
SIGCHLD = 17
ROUNDS = 12  # CPython 3.11 specializes a function at its ninth call


def answer(spawner: Spawner, sock: int, stdio: tuple[int, ...]) -> None:
    """Play init in a forked process, from its PID record on.  Never returns."""
    try:
        for fd, end in enumerate(stdio):
            if end >= 0:
                posix.dup2(end, fd)
        first = 3
        for fd in sorted({sock, *spawner.gate}):
            posix.closerange(first, fd)
            first = fd + 1
        posix.closerange(first, 1024)
        for _ in range(4 if spawner.joins else 2):  # the plan; GO of PLACED, READY and PID, or of READY
            sockets.receive(sock, 256, 10_000)
        if spawner.fifos:
            fds = [posix.open(f"{PLACE}/root/id/{name}", posix.O_RDWR | posix.O_CLOEXEC) for name in ("start", "error")]
        if not spawner.joins:
            posix.write(sock, handshake.encode(handshake.CREATED))
        if spawner.fifos:
            poller = select.poll()
            poller.register(fds[0], select.POLLIN)
            poller.poll(10_000)
        elif not spawner.joins:
            sockets.receive(sock, 256, 10_000)
        posix.execv(SHELL, [SHELL, "-c", spawner.program()])
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
    """Starts processes that do not execute the memfd.  Their records wait in the socket."""

    def __init__(self, *kinds: int, joins: bool = False, fifos: bool = False) -> None:
        self.kinds, self.joins, self.fifos = kinds, joins, fifos
        self.init = 0
        self.gate: tuple[int, ...] = ()  # where the program sends SIGCHLD, and where it then waits

    def spawn(self, exe: int, sock: int, preserved: int, joins: int, stdio: bytes | None) -> int:
        """Take the place of `pr_spawn_init_ahead`."""
        enter = ended()
        self.init = posix.fork()
        if self.init == 0:
            answer(self, sock, unpack("3i", stdio) if stdio else ())
        value = {handshake.PID: self.init}
        if handshake.PLACED in self.kinds:
            value[handshake.PLACED] = ended()
        for kind in self.kinds:
            posix.write(sock, handshake.encode(kind, value.get(kind, 0)))
        return enter

    def program(self) -> str:
        """The program of the container."""
        if self.fifos:
            return STARTED
        if not self.gate:
            return ":"
        for fd in self.gate:
            posix.set_inheritable(fd, True)
        return "printf '\\{:o}' >/dev/fd/{}; read x </dev/fd/{}; echo".format(SIGCHLD, *self.gate)


CREATE = (handshake.PID,)
SPAWNERS = {
    "create": Spawner(*CREATE, fifos=True),
    "run": Spawner(*CREATE),
    "exec": Spawner(handshake.PLACED, handshake.PID, joins=True),
}


def snapshot() -> host.HostFacts:
    """The facts of a host with cgroups in PLACE."""
    facts = real_snapshot()
    facts.euid, facts.rootless = 0, False
    facts.cgroup2_mount, facts.cgroup2_root, facts.own_cgroup = PLACE + "/cgroup", "/", "/"
    return facts


def stat(path: Any, **options: Any) -> posix.stat_result:
    """The namespaces of the container are ours, but not those that `exec` joins."""
    own = isinstance(path, str) and path.startswith("/proc/thread-self/ns/") and path[-4:] not in ("user", "time")
    return real_stat("/" if own else path, **options)


def takes_processes(directory: str) -> bool:
    """The same for a directory without files of the kernel.  Otherwise `exec` would look for the
    cgroup of the building process in PLACE."""
    return real_takes_processes(PLACE)


real_takes_processes = exec.takes_processes
real_snapshot, real_stat = host.snapshot, posix.stat
# Functions are replaced in the modules that contain them.  Then the callers' inline caches also fit
# the real ones.
PATCHES: list[tuple[Any, str, Any]] = [
    (fs, "_salt", fs._salt),  # each process chooses one
    (host, "snapshot", snapshot),
    (posix, "stat", stat),
    (calls, "bpf_prog_load_device", lambda *rest: posix.dup(0)),
    (bpf, "attach", lambda *rest: None),
    (files, "filesystem_type", lambda fd: exec._CGROUP2_MAGIC),
    (exec, "takes_processes", takes_processes),
    (signals, "signalfd", lambda: posix.pipe2(posix.O_NONBLOCK | posix.O_CLOEXEC)[0]),  # blocks nothing
]


def verb(*args: str, root: str = PLACE + "/root", more: tuple[tuple[Any, str, Any], ...] = ()) -> None:
    """Run a verb as `main` does, without output."""
    patches = [
        *PATCHES,
        (calls, "spawn_init_ahead", SPAWNERS[args[0]].spawn if args[0] in SPAWNERS else None),
        *more,
    ]
    saved = [(module, name, getattr(module, name)) for module, name, _ in patches]
    kept = [posix.dup(fd) for fd in range(3)]
    null = posix.open("/dev/null", posix.O_RDWR)
    stdio = [posix.pipe()[fd > 0] if more else null for fd in range(3)]
    try:
        for module, name, value in patches:
            setattr(module, name, value)
        for fd, end in enumerate(stdio):
            posix.dup2(end, fd)
        status = __main__.run(["--root", root, "--log", PLACE + "/log", *args])
    finally:
        for fd in range(3):
            posix.dup2(kept[fd], fd)
            posix.close(kept[fd])
        posix.closerange(null, 1024)  # the log, for example: a process closes it when it exits
        for module, name, value in reversed(saved):
            setattr(module, name, value)
    if status:
        raise RuntimeError(f"{' '.join(args)}: {fs.read_file(PLACE + '/log').decode()}")


def piped(*args: str, root: str = PLACE + "/root") -> None:
    """Run a verb in the foreground with pipes as its stdio.  The program writes to them and ends,
    and the verb finds both, and SIGCHLD, in the same order each time."""
    arrived, arrives = posix.pipe2(posix.O_NONBLOCK | posix.O_CLOEXEC)
    waits, goes_on = posix.pipe()
    spawner = SPAWNERS[args[0]]

    def signalfd_read(fd: int) -> int:
        number = posix.read(fd, 1)[0]
        posix.write(goes_on, b"\n")
        posix.waitid(posix.P_PID, spawner.init, posix.WEXITED | posix.WNOWAIT)
        return number

    spawner.gate = (arrives, waits)
    patches = ((signals, "signalfd", lambda: arrived), (calls, "signalfd_read", signalfd_read))
    verb(*args, root=root, more=patches)
    spawner.gate = ()
    for fd in (arrives, waits, goes_on):
        posix.close(fd)


def prepare() -> None:
    """Fill the caches of C modules, so that their blocks are among those whose use is noted."""
    posix.close(posix.open("/", posix.O_RDONLY, dir_fd=None))
    posix.stat("/", dir_fd=None)
    sorted((), reverse=False)
    for call in (posix.mkdir, posix.rmdir, posix.unlink):
        fs.ignore(lambda call: call("", dir_fd=None), call)
    for two_paths in (posix.link, posix.rename):
        fs.ignore(lambda call: call("", "", src_dir_fd=None), two_paths)
    fs.ignore(posix.pidfd_open, 0)
    pack("=0I")
    for count in range(13):  # more than fit the first table of the cache
        pack(f"{count}i", *[0] * count)


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


def other() -> None:
    """What becomes HEAP_LONG or HEAP_READ as well, but is not in the snapshot: its inline caches
    would depend on time."""
    piped("run", "--bundle", PLACE + "/bundle", "id", root=PLACE + "/new/root")
    create()
    start()
    piped("exec", "id", "true")
    verb("kill", "id", "KILL")
    posix.waitpid(-1, 0)
    verb("delete", "id")


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
