"""The directory of one container: its lock, its files, and the status of its first process from
/proc and the cgroup."""

from __future__ import annotations

import posix
import time
from errno import EFBIG, ELOOP, ENXIO, EWOULDBLOCK
from fcntl import LOCK_EX, LOCK_NB, flock
from posix import O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY

from pyrunc import SPEC_VERSION, fs
from pyrunc.errors import Busy, Damaged, NotFound, StateError, SysError
from pyrunc.jsontext import dumps
from pyrunc.native import processes
from pyrunc.procfs import alive, boot_id, first_in_namespace, kill_headless, open_process, process_stat
from pyrunc.signals import SIGKILL
from pyrunc.state import document
from pyrunc.state.document import VERSION, check_id
from pyrunc.state.root import DIR_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.types import Config
    from pyrunc.state.document import AfterStart, Document, Report, Status
    from pyrunc.state.root import Root

LOCK_TIMEOUT = 10.0  # seconds that a verb waits for another one to release the container
FRESH = 2.0  # seconds for which an empty directory may belong to a `create` that has just begun
_FILE_FLAGS = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC
_MAX_STATE = 64 << 20
_TYPE, _REGULAR = 0o170000, 0o100000  # of st_mode (inode(7))


class Container:
    """One container's directory and the content of its state.json (``data``)."""

    __slots__ = ("backed_up", "data", "dir", "fd", "id", "root")

    def __init__(self, root: Root, id: str) -> None:
        self.root = root
        self.id = id
        self.dir = f"{root.root}/{id}"
        self.data: Document = {}  # type: ignore[typeddict-item]  # until `load`, `reserve` or salvage.recover
        self.fd = -1  # descriptor of the locked directory
        self.backed_up = False  # intent.json is linked

    def reserve(self) -> None:
        """Take the id and lock the container. The caller describes and saves it before any other
        side effect.

        One of several concurrent callers succeeds; the others get StateError. Raises SysError
        (ENOSPC ...).
        """
        check_id(self.id)
        self.root.open_root(make=True)
        self.data = {
            "version": VERSION,
            "id": self.id,
            "ociVersion": SPEC_VERSION,
            "created": document.now(),
            "status": "creating",
            "pid": 0,
            "starttime": 0,
            "cgroup": "",
            "bootid": boot_id(),
            "runtime": {"pid": posix.getpid(), "starttime": process_stat("self")[1]},
        }
        try:
            posix.mkdir(self.id, 0o700, dir_fd=self.root.fd)
        except FileExistsError:
            raise StateError(f"container with given ID already exists: {self.id}") from None
        except OSError as error:
            raise SysError(self.dir, "mkdir", error.errno or 0) from error
        try:
            self.acquire(LOCK_TIMEOUT)  # `list` may hold the lock to see whether the directory is abandoned
            taken = self.has("state.json")
        except StateError:  # a concurrent `delete --force` removed it, and another caller may have created it again
            raise StateError(f"container with given ID already exists: {self.id}") from None
        except BaseException:
            fs.ignore(_rmdir_at, self.root.fd, self.id)
            self.unlock()
            raise
        if taken:
            self.unlock()
            raise StateError(f"container with given ID already exists: {self.id}")

    # -- lock --------------------------------------------------------------------------------------

    def acquire(self, timeout: float) -> None:
        """Lock the directory within ``timeout`` seconds. Raises NotFound, or Busy if it is still
        locked."""
        if self.fd >= 0:
            return
        try:
            fd = posix.open(self.id, DIR_FLAGS, dir_fd=self.root.fd)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(self.id) from None
        try:
            self._wait_for(fd, timeout)
        except BaseException:
            fs.close(fd)
            raise
        self.fd = fd

    def _wait_for(self, fd: int, timeout: float) -> None:
        """Lock an open directory.  Raises NotFound if our name no longer refers to it."""
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
        # The previous holder may have been `delete`: the lock must be on the directory that the
        # name refers to now.
        try:
            same = posix.stat(self.id, dir_fd=self.root.fd, follow_symlinks=False).st_ino == posix.fstat(fd).st_ino
        except FileNotFoundError:
            same = False
        if not same:
            raise NotFound(self.id)

    def lock(self, timeout: float = LOCK_TIMEOUT) -> None:
        """Lock, then read the state again: it may have changed in the meantime.  Raises
        StateError."""
        self.acquire(timeout)
        self.load()

    def __enter__(self) -> Container:
        """``with container:`` holds the lock."""
        try:
            self.lock()
        except BaseException:
            self.unlock()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.unlock()

    def unlock(self) -> None:
        """Release the lock by closing the descriptor."""
        if self.fd >= 0:
            fs.close(self.fd)
            self.fd = -1

    def abandoned(self) -> bool:
        """Whether no pyrunc works on this directory: a killed one left it, or it is damaged.

        Raises OSError if that cannot be determined (EMFILE).
        """
        try:
            check_id(self.id)
            self.acquire(0.0)
            # Created but not yet locked: a `create` between its first two calls.
            fresh = not posix.listdir(self.fd) and time.time() - posix.fstat(self.fd).st_mtime < FRESH
        except StateError:
            return False
        except OSError as error:
            if fs.is_inconclusive(error):
                raise
            return False  # a symbolic link
        finally:
            self.unlock()
        return not fresh

    # -- content -----------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether the container's directory has a file. Raises OSError if that cannot be
        determined."""
        try:
            posix.stat(f"{self.id}/{name}", dir_fd=self.root.fd, follow_symlinks=False)
        except OSError as error:
            if fs.is_inconclusive(error):
                raise
            return False
        return True

    def load(self) -> None:
        """Read state.json.

        Raises NotFound, Damaged, and SysError or MemoryError if it cannot be read now.
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
        """Whether state.json begins and ends as `save` writes it; if not, `load` decides."""
        head = f'{{"version":{VERSION},"id":"{self.id}",'.encode()
        try:
            fd = posix.open(f"{self.id}/state.json", _FILE_FLAGS, dir_fd=self.root.fd)
        except OSError:
            return False
        try:
            size = posix.fstat(fd).st_size
            return size > len(head) and posix.pread(fd, len(head), 0) == head and posix.pread(fd, 1, size - 1) == b"}"
        except OSError:  # a fifo
            return False
        finally:
            fs.close(fd)

    def read(self, name: str) -> Document:
        """One of our JSON files. Raises ValueError if it is not ours, OSError, MemoryError if it
        cannot be read."""
        return document.parse(self.read_bytes(name), self.id)

    def read_bytes(self, name: str) -> bytes:
        """Read one of our files.

        Raises OSError, and ValueError if it is not a regular file; symbolic links are not followed,
        fifos not waited for.
        """
        try:
            fd = posix.open(f"{self.id}/{name}", _FILE_FLAGS, dir_fd=self.root.fd)
        except OSError as error:
            if error.errno in (ELOOP, ENXIO):  # a symbolic link, a socket
                raise ValueError("not a regular file") from error
            raise
        try:
            if posix.fstat(fd).st_mode & _TYPE != _REGULAR:
                raise ValueError("not a regular file")
            return fs.read_fd(fd, _MAX_STATE)
        except OSError as error:
            if error.errno == EFBIG:  # `save` never writes that much
                raise ValueError("too large") from error
            raise
        finally:
            fs.close(fd)

    def describe_intent(
        self,
        *,
        config: Config,
        bundle: str,
        cgroup: str,
        cgroup_dir: str,
        cgroup_manager: str,
        late: list[list[object]],
    ) -> None:
        """Describe the side effects to come.

        ``cgroup`` is the path inside the hierarchy, ``cgroup_dir`` the path in the file system.
        """
        hooks = config.get("hooks", {})
        after: AfterStart = {}
        if hooks.get("poststart"):
            after["poststart"] = hooks["poststart"]
        if hooks.get("poststop"):
            after["poststop"] = hooks["poststop"]
        self.data |= {
            "bundle": bundle,
            "rootfs": fs.normpath(fs.join(bundle, config["root"]["path"])) if config.get("root") else "",
            "annotations": config.get("annotations", {}),
            "owner": posix.geteuid(),
            "cgroup": cgroup,
            "cgroup_dir": cgroup_dir,
            "cgroup_manager": cgroup_manager,
            "process": "process" in config,
            "hooks": after,
            "late": late,
        }

    def set_init(self, pid: int) -> None:
        """Record the container's first process."""
        self.data["pid"] = pid
        self.data["starttime"] = process_stat(pid)[1]

    def save(self) -> None:
        """Write state.json atomically. Raises SysError (ENOSPC), and StateError if it would be too
        large to read."""
        data = dumps(self.data).encode("ascii")
        if len(data) > _MAX_STATE:
            raise StateError(f"the state of container {self.id} would be larger than {_MAX_STATE >> 20} MiB")
        try:
            fs.replace_file("state.json", data, 0o600, dir_fd=self.fd)
            if self.data["pid"] and not self.backed_up:
                self.backed_up = True
                # Every save gives state.json a new inode, so a second name keeps this content for
                # one linkat(2).
                posix.link("state.json", "intent.json", src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False)
        except FileExistsError:
            pass  # an earlier verb linked it
        except OSError as error:
            raise SysError(f"{self.dir}/state.json", "write", error.errno or 0) from error

    def fifo(self, kind: str) -> str:
        """Path of the ``start`` or the ``error`` fifo."""
        return f"{self.dir}/{kind}"

    def destroy(self) -> None:
        """Remove the directory and unlock. state.json goes last, so that a killed `delete` can be
        repeated.

        Idempotent.  Raises SysError.
        """
        if self.fd < 0:
            return
        try:
            _empty(self.fd, 3)
            for name in ("intent.json", "state.json"):
                _remove(self.fd, name, 2)
            posix.rmdir(self.id, dir_fd=self.root.fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise SysError(self.dir, "rmdir", error.errno or 0) from error
        self.unlock()

    # -- status ------------------------------------------------------------------------------------

    def creating(self) -> bool:
        """Whether the pyrunc that creates this container is still running."""
        creator = self.data.get("runtime")
        if self.data["status"] != "creating" or not creator:
            return False
        return alive(creator.get("pid"), creator.get("starttime"))

    def init_alive(self) -> bool:
        """Whether the container's first process is alive."""
        if not alive(self.data["pid"], self.data.get("starttime")):
            return False
        return self.this_boot()

    def this_boot(self) -> bool:
        """Whether the container was created since the last boot; otherwise its pid and cgroup are
        meaningless."""
        recorded = self.data.get("bootid")
        return not recorded or recorded == boot_id()

    def status(self) -> Status:
        """``creating``, ``created``, ``running``, ``paused`` or ``stopped``.

        A container whose `create` was killed is stopped. The start fifo distinguishes created from
        running: init holds its read end until it executes the program.
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
                if fs.is_inconclusive(error):
                    raise
                # ENXIO: no reader; ENOENT: started, or created by `run`
        return "running"

    def frozen(self) -> bool:
        """Whether the container's cgroup is frozen."""
        directory = self.cgroup_directory()
        if not directory:
            return False
        try:
            return fs.read_file(directory + "/cgroup.freeze", 16)[:1] == b"1"
        except OSError as error:
            if fs.is_inconclusive(error):
                raise
            return False

    def cgroup_directory(self) -> str:
        """The directory of the container's cgroup, "" if it has none; it may not exist.

        Our mount namespace may have the hierarchy at another mount point than `create`'s.
        """
        directory: str = self.data.get("cgroup_dir", "")
        if directory and not fs.exists(directory):
            from pyrunc import host

            facts = host.snapshot()
            path = self.data.get("cgroup")  # may have been damaged by hand
            directory = facts.cgroup_dir(path) if path and facts.cgroup2_mount else ""
        return directory

    def report(self, owner: str = "") -> Report:
        """The output of `state` and `list`, with keys in runc's order."""
        data, status = self.data, self.status()
        out: Report = {
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
        if data.get("mounts"):
            added = [mount["entry"] for mount in data["mounts"] if not mount["pending"]]
            if added:
                out["annotations"] = {**out.get("annotations", {}), document.ADDED_MOUNTS: dumps(added)}
        out["owner"] = owner
        return out

    def oci_state(self, status: Status) -> str:
        """The state for host-side hooks; the pid is 0 after the container has stopped."""
        pid = 0 if status == "stopped" else self.data["pid"]
        return document.oci_state(self.id, status, pid, self.data.get("bundle", ""), self.data.get("annotations", {}))

    # -- signals -----------------------------------------------------------------------------------

    def kill_init(self, number: int) -> bool:
        """Signal the first process; False if it has ended.  Raises OSError.

        SIGKILL reaches every process of the container. Unless init is pid 1 of its own pid
        namespace, the other processes survive it, so the whole cgroup is killed (runtime-spec
        leaves it open; runc and crun do the same).
        """
        fd = self.open_init() if self.this_boot() else -1
        if fd < 0:
            return False
        try:
            killed = number == SIGKILL and not first_in_namespace(self.data["pid"]) and self.kill_cgroup(number)
            try:
                processes.pidfd_send_signal(fd, number)
            except ProcessLookupError:
                return killed  # the engine's shim may have reaped it already
            except OSError as error:
                raise SysError(self.id, "pidfd_send_signal", error.errno or 0) from error
        finally:
            fs.close(fd)
        return True

    def open_init(self) -> int:
        """A pidfd of the first process, -1 if it has ended."""
        return open_process(self.data["pid"], self.data.get("starttime"))

    def kill_cgroup(self, number: int) -> bool:
        """Signal every process of the container's cgroup; False if there is none. Raises OSError,
        PyruncError."""
        path = self.data.get("cgroup")
        if not path or not self.this_boot():
            return False
        from pyrunc import cgroup, host

        driver = cgroup.open_driver(self.data.get("cgroup_manager", "cgroupfs"), host.snapshot())
        if not driver.pids(path):
            return False
        driver.kill(path, number, stays=self.keeps_cgroup())
        if number == SIGKILL:
            kill_headless(driver.pids(path))
        return True

    def keeps_cgroup(self) -> bool:
        """Whether the container's cgroup existed before the container and outlives it."""
        made = self.data.get("cgroup_made")
        return made is not None and self.data.get("cgroup") not in made


def _rmdir_at(dir_fd: int, name: str) -> None:
    posix.rmdir(name, dir_fd=dir_fd)


def _empty(fd: int, depth: int) -> None:
    """Remove the content of a directory, except state.json and intent.json at the top. Follows no
    links."""
    for name in posix.listdir(fd):
        if depth < 3 or name not in ("state.json", "intent.json"):
            _remove(fd, name, depth)


def _remove(fd: int, name: str, depth: int) -> None:
    """Remove a file, or a directory with its content, at most ``depth`` levels deep. Raises
    OSError."""
    try:
        posix.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        if depth == 0:
            raise
        inner = posix.open(name, DIR_FLAGS, dir_fd=fd)
        try:
            _empty(inner, depth - 1)
        finally:
            posix.close(inner)
        posix.rmdir(name, dir_fd=fd)
