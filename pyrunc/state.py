"""The state directory: who owns an id, what was made for it, and what the container is doing now.

``ROOT/ID/`` holds ``state.json`` (ours), ``config.json`` (the bytes that were used), the fifos ``start`` and ``error``,
``notify/`` and ``intent.json`` (an older copy of state.json: what `delete --force` goes by when state.json is damaged).
The exclusive mkdir of ``ROOT/ID`` is the ownership of the id, a flock on it orders the verbs.  A status is worked out
from the process each time; the file alone is never believed (a reboot, a SIGKILL and pid reuse all make it lie).
"""

from __future__ import annotations

import posix
import time
from errno import EFBIG, ELOOP, ENXIO, ESRCH, EWOULDBLOCK
from fcntl import LOCK_EX, LOCK_NB, flock
from posix import O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY

from pyrunc import SPEC_VERSION, fs, host, interpreter
from pyrunc.errors import PyruncError, StateError, SysError, show
from pyrunc.procfs import alive, boot_id, first_in_namespace, kill_headless, open_process, process_stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

VERSION = 1  # of state.json
SIGKILL = 9
LOCK_TIMEOUT = 10.0  # seconds that a verb waits for another one to finish with the container
FRESH = 2.0  # seconds for which an empty directory may be that of a `create` that has just begun
_ID_CHARS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-"
_DIR_FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
_FILE_FLAGS = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC
_MAX_STATE = 64 << 20
_TYPE, _REGULAR = 0o170000, 0o100000  # of st_mode (inode(7))
_MAX_PID = 1 << 31

# What the verbs rely on when it is there (an older version may have left it out): a damaged file is told once, and not
# by whoever meets it first.
_TYPES = (
    ("starttime", int), ("bootid", str), ("bundle", str), ("rootfs", str), ("annotations", dict), ("cgroup", str),
    ("cgroup_dir", str), ("cgroup_manager", str), ("runtime", dict), ("hooks", dict), ("late", list),
    ("created", str), ("ociVersion", str), ("resources", dict), ("owner", int), ("notify", str), ("cgroup_made", list),
    ("root_below", int), ("root_mount", int),
)  # fmt: skip

PID_MARK = "\0"  # cannot come out of `dumps`, and in the state the pid stands before all free text


class NotFound(StateError):
    """There is no such container."""

    def __init__(self, id: str) -> None:
        super().__init__(f"container does not exist: {id}")  # containerd and CRI-O look for the first words


class Damaged(StateError):
    """What is there is not the state of a container: not JSON, or JSON that is not ours.

    Nothing else is damage.  Out of memory or of descriptors, an input/output error: these say nothing about the
    state, and whoever took them for damage would forget a container that runs.
    """


class Busy(StateError):
    """Another pyrunc works on the container."""


# -- JSON -----------------------------------------------------------------------------------------------------


def quote(text: str) -> str:
    """``text`` as a JSON string, in ASCII; a byte that was not UTF-8 (surrogateescape) stays a lone surrogate."""
    return interpreter.json_writer()(text)


def dumps(value: object, indent: str = "") -> str:
    """A JSON document of dicts, lists, strings, numbers, booleans and None; compact without ``indent``.

    ``indent`` is the text of one level.  Raises TypeError for anything else.
    """
    return interpreter.json_writer()(value, indent)


def loads(data: bytes) -> Any:
    """Parse what `dumps` wrote.  Raises ValueError, without details: a damaged file is a damaged file."""
    try:
        return interpreter.json_reader()(data, True)
    except ValueError:
        raise ValueError("not JSON") from None


def now() -> str:
    """RFC 3339 in UTC with nanoseconds, as callers parse ``created``."""
    ns = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 1_000_000_000)) + f".{ns % 1_000_000_000:09d}Z"


def oci_state(id: str, status: str, pid: int | str, bundle: str, annotations: dict[str, str]) -> str:
    """The state of runtime.md as one line of JSON, as hooks and seccomp agents get it; ``pid`` may be PID_MARK."""
    text = f'{{"ociVersion":"{SPEC_VERSION}","id":{quote(id)},"status":"{status}","pid":{pid},"bundle":{quote(bundle)}'
    return text + (f',"annotations":{dumps(annotations)}}}' if annotations else "}")


def split_state(id: str, status: str, bundle: str, annotations: dict[str, str]) -> tuple[str, str]:
    """The state around the pid, for hooks that init runs: only the container knows the pid it has inside."""
    head, _, tail = oci_state(id, status, PID_MARK, bundle, annotations).partition(PID_MARK)
    return head, tail


# -- the directory --------------------------------------------------------------------------------------------


def root_dir(option: str) -> str:
    """The state root: ``--root``, else /run/pyrunc for root, else $XDG_RUNTIME_DIR/pyrunc.  Raises PyruncError.

    Root of a user namespace is a user in this, too, unless it says that it is root ($USER): runc's rule.
    """
    if option:
        root = fs.abspath(option)
        if root == "/":
            raise PyruncError('--root "/": the root directory itself cannot hold state')
        return root
    # conmon sets it to an empty string as root: empty is unset (docs/callers.md).
    runtime_dir = fs.getenv("XDG_RUNTIME_DIR")
    if posix.geteuid() == 0 and not (runtime_dir and fs.getenv("USER") != "root" and not host.initial_userns()):
        return "/run/pyrunc"
    if not runtime_dir:
        raise PyruncError("XDG_RUNTIME_DIR is not set: say where to keep state with --root DIR")
    return fs.abspath(runtime_dir) + "/pyrunc"


def check_id(id: str) -> None:
    """Raises StateError unless ``id`` can be a container id; the rule is that of `pyrunc.spec.names.valid_id`."""
    if not id.strip(_ID_CHARS) and len(id) <= 242 and id[:1] not in ("", ".", "-"):
        return
    if not id:
        raise StateError("container id cannot be empty")
    from pyrunc.spec import names

    reason = (names.valid_id(id) or "").removeprefix("invalid container id").lstrip(": ")
    raise StateError(f"invalid container ID format: {reason}")


class Store:
    """All containers under one state root; the directory is opened when it is first needed."""

    __slots__ = ("fd", "root")

    def __init__(self, root: str) -> None:
        self.root = root
        self.fd = -1

    def open_root(self, make: bool = False) -> bool:
        """Open the root; False when it does not exist.  Raises PyruncError when others could tamper with it."""
        if self.fd >= 0:
            return True
        try:
            fd = posix.open(self.root, _DIR_FLAGS)
        except FileNotFoundError:
            if not make:
                return False
            fd = self._make()
        except OSError as error:
            hint = "the state root must be a directory and no symbolic link"
            raise SysError("--root", "open", error.errno or 0, value=self.root, hint=hint) from error
        try:
            found = posix.fstat(fd)
        except BaseException:
            fs.close(fd)
            raise
        # Whoever can write here decides which pid `kill` hits and what `delete` removes (CVE-2015-1331).
        if found.st_uid != posix.geteuid() or found.st_mode & 0o022:
            posix.close(fd)
            raise PyruncError(
                f"--root {show(self.root)}: must belong to uid {posix.geteuid()} and be writable by nobody else"
                f" (owner {found.st_uid}, mode {found.st_mode & 0o7777:04o})"
            )
        self.fd = fd
        return True

    def _make(self) -> int:
        """Create the root, 0700; parents as usual.  Sticky below XDG_RUNTIME_DIR, where old files are pruned."""
        try:
            at = self.root.find("/", 1)
            while at > 0:
                if not fs.exists(self.root[:at]):
                    _mkdir(self.root[:at], 0o755)
                at = self.root.find("/", at + 1)
            _mkdir(self.root, 0o700)
            fd = posix.open(self.root, _DIR_FLAGS)
            try:
                posix.fchmod(fd, 0o1700 if posix.geteuid() else 0o700)  # whatever the umask
            except BaseException:
                fs.close(fd)
                raise
            return fd
        except OSError as error:
            raise SysError("--root", "mkdir", error.errno or 0, value=self.root) from error

    def close(self) -> None:
        """Close the root; it is opened again when it is needed."""
        if self.fd >= 0:
            fs.close(self.fd)
            self.fd = -1

    def exists(self) -> bool:
        """Whether the root is there.  Raises PyruncError when others could tamper with it."""
        return self.open_root()

    def reserve(self, id: str) -> Container:
        """A new, locked container.  Raises as `Container.reserve` does."""
        container = Container(self, id)
        container.reserve()
        return container

    def open(self, id: str) -> Container:
        """An existing container.  Raises NotFound, and what `Container.load` raises."""
        container = self.find(id)
        container.load()
        return container

    def find(self, id: str) -> Container:
        """An existing container whose state is not read yet (`delete --force`).  Raises StateError."""
        check_id(id)
        container = Container(self, id)
        if not self.open_root() or not fs.exists(container.dir):
            raise NotFound(id)
        return container

    def list(
        self, broken: Callable[[PyruncError], object] | None = None, *, content: bool = True
    ) -> Iterator[Container]:
        """The containers with readable state, by id; ``broken`` gets the error of each other one.

        Without ``content`` their state is not parsed: it may be large, and only the id is wanted.
        Stray files, and what another pyrunc is making or removing at this moment, are not containers.  Raises
        SysError without ``broken`` when a state cannot be read now, OSError, MemoryError.
        """
        if not self.open_root():
            return
        for id in sorted(posix.listdir(self.fd)):
            container = Container(self, id)
            try:
                check_id(id)
                if content or not container.looks_whole():
                    container.load()
            except StateError as error:
                if broken is not None and container.abandoned():
                    broken(error)
            except SysError as error:
                if broken is None:
                    raise
                broken(error)
            else:
                yield container


class Container:
    """One container's directory and the content of its state.json (``data``)."""

    __slots__ = ("backed_up", "data", "dir", "fd", "id", "store")

    def __init__(self, store: Store, id: str) -> None:
        self.store = store
        self.id = id
        self.dir = f"{store.root}/{id}"
        self.data: dict[str, Any] = {}
        self.fd = -1  # of the locked directory
        self.backed_up = False  # intent.json was linked

    def reserve(self) -> None:
        """Take the id and lock the container, to be described and saved before anything else is touched.

        Of any number of concurrent callers one wins; the others get StateError.  Raises SysError (ENOSPC ...).
        """
        check_id(self.id)
        self.store.open_root(make=True)
        self.data = {
            "version": VERSION,
            "id": self.id,
            "ociVersion": SPEC_VERSION,
            "created": now(),
            "status": "creating",
            "pid": 0,
            "starttime": 0,
            "cgroup": "",
            "bootid": boot_id(),
            "runtime": {"pid": posix.getpid(), "starttime": process_stat("self")[1]},
        }
        try:
            posix.mkdir(self.id, 0o700, dir_fd=self.store.fd)
        except FileExistsError:
            raise StateError(f"container with given ID already exists: {self.id}") from None
        except OSError as error:
            raise SysError(self.dir, "mkdir", error.errno or 0) from error
        try:
            self.acquire(LOCK_TIMEOUT)  # `list` may look just now whether the directory is an abandoned one
            taken = self.has("state.json")
        except StateError:  # a concurrent `delete --force` took it away, and perhaps a third one made it again
            raise StateError(f"container with given ID already exists: {self.id}") from None
        except BaseException:
            fs.ignore(_rmdir_at, self.store.fd, self.id)
            self.unlock()
            raise
        if taken:
            self.unlock()
            raise StateError(f"container with given ID already exists: {self.id}")

    # -- lock ------------------------------------------------------------------------------------------------

    def acquire(self, timeout: float) -> None:
        """Lock the directory, waiting at most ``timeout`` seconds.  Raises StateError: gone, or still locked."""
        if self.fd >= 0:
            return
        try:
            fd = posix.open(self.id, _DIR_FLAGS, dir_fd=self.store.fd)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(self.id) from None
        try:
            self._wait_for(fd, timeout)
        except BaseException:
            fs.close(fd)
            raise
        self.fd = fd

    def _wait_for(self, fd: int, timeout: float) -> None:
        """Lock an open directory that still has our name."""
        deadline, pause = time.monotonic() + timeout, 0.001
        while True:
            try:
                flock(fd, LOCK_EX | LOCK_NB)
                break
            except OSError as error:
                if error.errno != EWOULDBLOCK:
                    raise
                if time.monotonic() >= deadline:
                    raise Busy(f"container {self.id} is in use by another pyrunc") from None
                time.sleep(pause)
                pause = min(pause * 2, 0.03)
        # The holder before us may have been `delete`: the lock must be on what the name means now.
        try:
            same = posix.stat(self.id, dir_fd=self.store.fd, follow_symlinks=False).st_ino == posix.fstat(fd).st_ino
        except FileNotFoundError:
            same = False
        if not same:
            raise NotFound(self.id)

    def lock(self, timeout: float = LOCK_TIMEOUT) -> None:
        """Lock, then read the state again: it may have changed while we waited.  Raises StateError."""
        self.acquire(timeout)
        self.load()

    def __enter__(self) -> Container:
        """``with container:`` is with it locked."""
        try:
            self.lock()
        except BaseException:
            self.unlock()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.unlock()

    def unlock(self) -> None:
        """Release the lock; closing the descriptor does it."""
        if self.fd >= 0:
            fs.close(self.fd)
            self.fd = -1

    def abandoned(self) -> bool:
        """Whether this is a directory that no pyrunc works on: what a killed one left, or damaged.

        Raises OSError when that cannot be known (EMFILE).
        """
        try:
            check_id(self.id)
            self.acquire(0.0)
            # Made, and not yet locked: a `create` between its first two calls.
            fresh = not posix.listdir(self.fd) and time.time() - posix.fstat(self.fd).st_mtime < FRESH
        except StateError:
            return False
        except OSError as error:
            if fs.unknown(error):
                raise
            return False  # a symbolic link
        finally:
            self.unlock()
        return not fresh

    # -- content ---------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether a file is in the container's directory.  Raises OSError when it cannot be known."""
        try:
            posix.stat(f"{self.id}/{name}", dir_fd=self.store.fd, follow_symlinks=False)
        except OSError as error:
            if fs.unknown(error):
                raise
            return False
        return True

    def load(self) -> None:
        """Read state.json.

        Raises NotFound, Damaged, and SysError, MemoryError when it cannot be known now what is in it.
        """
        try:
            self.data = self.read("state.json")
        except ValueError as error:
            text = f"state.json of container {self.id} is damaged ({error}); remove it with delete --force"
            raise Damaged(text) from error
        except FileNotFoundError:
            if fs.exists(self.dir):
                raise Damaged(f"container {self.id} has no state.json; remove it with delete --force") from None
            raise NotFound(self.id) from None
        except NotADirectoryError:
            raise NotFound(self.id) from None
        except OSError as error:
            raise SysError(f"{self.dir}/state.json", "read", error.errno or 0) from error

    def looks_whole(self) -> bool:
        """Whether state.json begins and ends as `save` writes it; False for anything that `load` should look at."""
        head = f'{{"version":{VERSION},"id":"{self.id}",'.encode()
        try:
            fd = posix.open(f"{self.id}/state.json", _FILE_FLAGS, dir_fd=self.store.fd)
        except OSError:
            return False
        try:
            size = posix.fstat(fd).st_size
            return size > len(head) and posix.pread(fd, len(head), 0) == head and posix.pread(fd, 1, size - 1) == b"}"
        except OSError:  # a fifo
            return False
        finally:
            fs.close(fd)

    def read(self, name: str) -> dict[str, Any]:
        """One of our JSON files.  Raises ValueError when it is not ours; OSError, MemoryError when that is unknown."""
        data = loads(self.read_bytes(name))
        if type(data) is not dict or data.get("id") != self.id:
            raise ValueError("not the state of this container")
        pid = data.get("pid")
        if type(pid) is not int or not 0 <= pid < _MAX_PID:
            raise ValueError("pid is not a process id")
        if data.get("status") not in ("creating", "created", "running"):
            raise ValueError("unknown status")
        # Without the cgroup `delete` would leave it, without the start time init.
        if "cgroup" not in data or (pid and "starttime" not in data):
            raise ValueError("incomplete")
        for key, kind in _TYPES:
            if key in data and type(data[key]) is not kind:
                raise ValueError(f"{key} is not of type {kind.__name__}")
            # Neither can be in a path; a ValueError, too, for a lone surrogate.
            if kind is str and b"\0" in fs.encode(data.get(key, "")):
                raise ValueError(f"{key} contains a NUL")
        return data

    def read_bytes(self, name: str) -> bytes:
        """A file of ours as it is.

        Raises ValueError when there is something else (nothing is followed, waited for or changed), OSError.
        """
        try:
            fd = posix.open(f"{self.id}/{name}", _FILE_FLAGS, dir_fd=self.store.fd)
        except OSError as error:
            if error.errno in (ELOOP, ENXIO):  # a symbolic link, a socket
                raise ValueError("not a regular file") from error
            raise
        try:
            if posix.fstat(fd).st_mode & _TYPE != _REGULAR:
                raise ValueError("not a regular file")
            return fs.read_fd(fd, _MAX_STATE)
        except OSError as error:
            if error.errno == EFBIG:  # no state of ours is that large: see `save`
                raise ValueError("too large") from error
            raise
        finally:
            fs.close(fd)

    def describe_intent(
        self, *, config: dict[str, Any], bundle: str, cgroup: str, cgroup_dir: str, cgroup_manager: str, late: list[Any]
    ) -> None:
        """What is about to be made.  ``cgroup`` is the path inside the hierarchy, ``cgroup_dir`` in the file system."""
        hooks = config.get("hooks") or {}
        self.data |= {
            "bundle": bundle,
            "rootfs": fs.normpath(fs.join(bundle, config["root"]["path"])) if config.get("root") else "",
            "annotations": config.get("annotations") or {},
            "owner": posix.geteuid(),
            "cgroup": cgroup,
            "cgroup_dir": cgroup_dir,
            "cgroup_manager": cgroup_manager,
            "process": config.get("process") is not None,
            "hooks": {kind: hooks[kind] for kind in ("poststart", "poststop") if hooks.get(kind)},
            "late": late,
        }

    def set_init(self, pid: int) -> None:
        """Record the container's first process."""
        self.data["pid"] = pid
        self.data["starttime"] = process_stat(pid)[1]

    def save(self) -> None:
        """Write state.json atomically.  Raises SysError (ENOSPC), StateError when it could not be read again."""
        data = dumps(self.data).encode("ascii")
        if len(data) > _MAX_STATE:
            raise StateError(f"the state of container {self.id} would be larger than {_MAX_STATE >> 20} MiB")
        try:
            fs.replace_file("state.json", data, 0o600, dir_fd=self.fd)
            if self.data["pid"] and not self.backed_up:
                self.backed_up = True
                # Every save gives state.json a new inode: the second name keeps this content for one linkat(2).
                posix.link("state.json", "intent.json", src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False)
        except FileExistsError:
            pass  # an earlier verb has linked it
        except OSError as error:
            raise SysError(f"{self.dir}/state.json", "write", error.errno or 0) from error

    def fifo(self, kind: str) -> str:
        """Path of the ``start`` or the ``error`` fifo."""
        return f"{self.dir}/{kind}"

    def destroy(self) -> None:
        """Remove the directory and unlock.  state.json goes last: until then a killed `delete` can be repeated.

        Idempotent.  Raises SysError.
        """
        if self.fd < 0:
            return
        try:
            _empty(self.fd, 3)
            for name in ("intent.json", "state.json"):
                _remove(self.fd, name, 2)
            posix.rmdir(self.id, dir_fd=self.store.fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise SysError(self.dir, "rmdir", error.errno or 0) from error
        self.unlock()

    # -- what it is doing --------------------------------------------------------------------------------------

    def creating(self) -> bool:
        """Whether the runtime that makes this container is still at work."""
        maker = self.data.get("runtime") or {}
        return self.data["status"] == "creating" and alive(maker.get("pid"), maker.get("starttime"))

    def init_alive(self) -> bool:
        """Whether the container's first process is there."""
        if not alive(self.data["pid"], self.data.get("starttime")):
            return False
        return self.this_boot()

    def this_boot(self) -> bool:
        """Whether the machine was not restarted since the container was made: its pid and cgroup mean something."""
        recorded = self.data.get("bootid")
        return not recorded or recorded == boot_id()

    def status(self) -> str:
        """``creating``, ``created``, ``running``, ``paused`` or ``stopped``.

        A create that was killed half-way is stopped.  The start fifo decides between created and running: init
        holds its reading end until it executes the program.
        """
        if self.data["status"] == "creating":
            return "creating" if self.creating() else "stopped"
        if not self.init_alive():
            return "stopped"
        if self.frozen():
            return "paused"
        if self.data["status"] != "running":
            try:
                posix.close(posix.open(self.fifo("start"), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW))
                return "created"
            except OSError as error:
                if fs.unknown(error):
                    raise
                # ENXIO: nobody reads; ENOENT: started, or made by `run`
        return "running"

    def frozen(self) -> bool:
        """Whether the container's cgroup is frozen."""
        directory = self.cgroup_directory()
        if not directory:
            return False
        try:
            return fs.read_file(directory + "/cgroup.freeze", 16)[:1] == b"1"
        except OSError as error:
            if fs.unknown(error):
                raise
            return False

    def cgroup_directory(self) -> str:
        """Where the container's cgroup is now, "" when it has none; whether it exists is another question.

        The hierarchy may be mounted somewhere else in our mount namespace than it was in that of `create`.
        """
        directory: str = self.data.get("cgroup_dir") or ""
        if directory and not fs.exists(directory):
            from pyrunc import host

            facts = host.snapshot()
            path = self.data.get("cgroup")  # damaged by hand, perhaps
            directory = facts.cgroup_dir(path) if path and facts.cgroup2_mount else ""
        return directory

    def report(self, owner: str = "") -> dict[str, Any]:
        """What `state` and `list` show, in runc's key order."""
        data, status = self.data, self.status()
        out: dict[str, Any] = {
            "ociVersion": data.get("ociVersion", SPEC_VERSION),
            "id": self.id,
            "pid": 0 if status == "stopped" else data["pid"],
            "status": status,
            "bundle": data.get("bundle", ""),
            "rootfs": data.get("rootfs", ""),
            "created": data.get("created", ""),
        }
        if data.get("annotations"):
            out["annotations"] = data["annotations"]
        out["owner"] = owner
        return out

    def oci_state(self, status: str) -> str:
        """The state for host-side hooks; the pid is 0 once it is stopped."""
        pid = 0 if status == "stopped" else self.data["pid"]
        return oci_state(self.id, status, pid, self.data.get("bundle", ""), self.data.get("annotations") or {})

    # -- signals -----------------------------------------------------------------------------------------------

    def kill_init(self, number: int) -> bool:
        """Signal the first process; False when it has ended.  Raises OSError.

        SIGKILL reaches every process of the container: where init is not pid 1 of a pid namespace of its own, its
        end ends nobody else, so the whole cgroup is killed (runtime-spec leaves it open; runc and crun do).
        """
        fd = self.open_init() if self.this_boot() else -1
        if fd < 0:
            return False
        try:
            if number == SIGKILL and not first_in_namespace(self.data["pid"]):
                self.kill_cgroup(number)
            sent = interpreter.quick()[1].pr_pidfd_send_signal(fd, number)
        finally:
            fs.close(fd)
        if sent < 0 and sent != -ESRCH:
            raise SysError(self.id, "pidfd_send_signal", -sent)
        return bool(sent == 0)

    def open_init(self) -> int:
        """A pidfd of the first process, -1 when it has ended."""
        return open_process(self.data["pid"], self.data.get("starttime"))

    def kill_cgroup(self, number: int) -> bool:
        """Signal every process of the container's cgroup; False when there was none.  Raises OSError, PyruncError."""
        path = self.data.get("cgroup")
        if not path or not self.this_boot():
            return False
        from pyrunc import cgroup, host

        driver = cgroup.open_driver(self.data.get("cgroup_manager") or "cgroupfs", host.snapshot())
        if not driver.pids(path):
            return False
        driver.kill(path, number, stays=self.keeps_cgroup())
        if number == SIGKILL:
            kill_headless(driver.pids(path))
        return True

    def keeps_cgroup(self) -> bool:
        """Whether the container's cgroup was there before it, and outlives it."""
        made = self.data.get("cgroup_made")
        return made is not None and self.data.get("cgroup") not in made


def _rmdir_at(dir_fd: int, name: str) -> None:
    posix.rmdir(name, dir_fd=dir_fd)


def _mkdir(path: str, mode: int) -> None:
    try:
        posix.mkdir(path, mode)
    except FileExistsError:
        pass


def _empty(fd: int, depth: int) -> None:
    """Remove what is in a directory, except state.json and intent.json at the top.  Never follows a link."""
    for name in posix.listdir(fd):
        if depth < 3 or name not in ("state.json", "intent.json"):
            _remove(fd, name, depth)


def _remove(fd: int, name: str, depth: int) -> None:
    """Remove a file, or a directory with what is in it, at most ``depth`` deep.  Raises OSError."""
    try:
        posix.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        if depth == 0:
            raise
        inner = posix.open(name, _DIR_FLAGS, dir_fd=fd)
        try:
            _empty(inner, depth - 1)
        finally:
            posix.close(inner)
        posix.rmdir(name, dir_fd=fd)
