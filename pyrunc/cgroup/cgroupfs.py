"""The cgroupfs driver: mkdir, write, rmdir in the unified hierarchy.

A limit whose controller is missing is an error that names the controller. On a hybrid host most
controllers are bound to v1 hierarchies, and a silently missing limit is worse than a container that
does not start.
"""

from __future__ import annotations

import posix
import time
from errno import EACCES, EBUSY, EINVAL, ENODEV, ENOENT, ENOTDIR, ENOTEMPTY, EOPNOTSUPP, EPERM, ESRCH, ETIMEDOUT
from posix import O_CLOEXEC, O_DIRECTORY, O_PATH

from pyrunc import fs, host
from pyrunc.errors import PyruncError, SysError, errno_text, show
from pyrunc.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cgroup import ScopeRequest
    from pyrunc.cgroup.resources import Write
    from pyrunc.host import HostFacts
    from pyrunc.spec.types import DeviceRule, Resources

REMOVE_TIMEOUT = 10.0  # seconds
FREEZE_TIMEOUT = 5.0
KILL_TIMEOUT = 5.0
WALK_TIMEOUT = 10.0
PAUSE_FIRST, PAUSE_MOST = 0.0002, 0.05
ATTEMPTS = 8
THREADED = frozenset(("cpu", "cpuset", "perf_event", "pids"))  # what a threaded cgroup can have (cgroups(7))
# The controllers that files are named after. A unified key with another prefix may belong to a
# newer kernel than this list knows: it is written, and the kernel decides (runtime-spec: unknown
# keys too).
_KNOWN = frozenset(("cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc", "dmem"))


class Cgroupfs:
    """cgroup v2 through its file system.  Paths are inside the hierarchy.

    ``made`` lists the cgroups that this object's `create` made, outermost first.
    """

    __slots__ = ("facts", "made")

    def __init__(self, facts: HostFacts) -> None:
        self.facts = facts
        self.made: list[str] = []

    def dir(self, path: str) -> str:
        """The directory of a cgroup."""
        return self.facts.cgroup_dir(path)

    def above(self, path: str) -> str:
        """The parent cgroup; a cgroup directly below the top has the top of the hierarchy, as
        mounted."""
        return path.rpartition("/")[0] or "/"

    def top(self) -> str:
        """The outermost cgroup that the mount shows."""
        return self.facts.cgroup2_root or "/"

    # -- make --------------------------------------------------------------------------------------

    def missing(self, path: str) -> list[str]:
        """The cgroups that do not exist among ``path`` and its ancestors, outermost first."""
        out: list[str] = []
        while path != "/" and not fs.exists(self.dir(path)):
            out.append(path)
            path = self.above(path)
        return out[::-1]

    def create(
        self, path: str, resources: Resources, ptr: str = "/linux/resources", request: ScopeRequest | None = None
    ) -> int:
        """Create the cgroup and its ancestors and enable controllers; returns an O_PATH descriptor
        of its directory.

        Nothing is created if a limit's controller is unavailable, and a failure leaves nothing
        behind. Raises ConfigError, SysError, PyruncError (a controller is missing, the cgroup is in
        use or frozen).
        """
        needed = self.needed(resources, ptr)
        if needed:
            self.check_available(path, needed)
        # Recorded first: if a later step fails, the caller can remove the cgroup.
        made = self.made = []
        try:
            fresh = self.make(path, made)
            nested = self.above(path) != self.top()
            if not fresh or nested:  # directly below the top, a new one is empty, and nothing above it can be frozen
                self.check_usable(path)
            if nested:
                self.make_threaded(path, needed)
            self.enable(path, needed)
            fd = posix.open(self.dir(path), O_PATH | O_DIRECTORY | O_CLOEXEC)
        except OSError as error:
            self.unmake(made)
            raise SysError("/linux/cgroupsPath", "", error.errno or 0, value=path) from error
        except BaseException:
            self.unmake(made)
            raise
        return fd

    def needed(self, resources: Resources, ptr: str) -> dict[str, Write]:
        """The controllers that the limits need, each with the first limit that needs it. Raises
        ConfigError."""
        if not any(value for key, value in resources.items() if key != "devices"):
            return {}
        from pyrunc.cgroup import resources as conversion

        out: dict[str, Write] = {}
        for write in conversion.convert(resources, ptr):
            if not write.flags & conversion.OPTIONAL and write.controller in _KNOWN:
                out.setdefault(write.controller, write)
        return out

    def check_available(self, path: str, needed: dict[str, Write]) -> None:
        """Raises PyruncError if the nearest existing ancestor does not offer a controller."""
        parent = self.above(path)
        while parent != "/" and not fs.exists(self.dir(parent)):
            parent = self.above(parent)
        offered = self.words(parent, "cgroup.controllers")
        lacking = [write for name, write in needed.items() if name not in offered]
        if lacking:
            raise self.unavailable(lacking, parent, offered, "")

    def unavailable(self, lacking: list[Write], where: str, offered: list[str], why: str) -> PyruncError:
        """The error for limits whose controller is missing."""
        texts = [
            f"{write.pointer} {show(str(write.value))}: the {write.controller} controller is not available"
            f" in cgroup {where} (available: {' '.join(offered) or 'none'})"
            for write in lacking
        ]
        if not why and self.facts.hybrid:
            why = "this host has controllers bound to cgroup v1; boot it with cgroup_no_v1=all"
        return PyruncError("; ".join([*texts, why] if why else texts))

    def make(self, path: str, made: list[str]) -> bool:
        """Create the cgroup and its ancestors; created directories are appended to ``made``. False
        if the cgroup existed.

        Retries, because another container's `delete` may remove an ancestor between two calls.
        Raises SysError.
        """
        for _ in range(ATTEMPTS):
            try:
                return self.mkdir(path, made)
            except FileNotFoundError:
                pass
            try:
                for above in self.missing(self.above(path)):
                    self.mkdir(above, made)
            except FileNotFoundError:
                pass
        raise PyruncError(f"/linux/cgroupsPath {show(path)}: the parent cgroups are removed repeatedly")

    def mkdir(self, path: str, made: list[str]) -> bool:
        """Create one cgroup and append it to ``made``; False if it exists.

        Raises FileNotFoundError without a parent, SysError.
        """
        directory = self.dir(path)
        made.append(path)  # recorded first: after the mkdir there may be no memory for it
        try:
            posix.mkdir(directory, 0o755)
        except BaseException as error:
            made.pop()
            if isinstance(error, FileExistsError):
                return False
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                from pyrunc import hints

                number = error.errno or 0
                hint = hints.find("CGROUP", number)
                raise SysError("/linux/cgroupsPath", "mkdir", number, value=path, hint=hint) from error
            raise
        return True

    def unmake(self, made: list[str]) -> None:
        """Remove what a failed `create` made; what cannot be removed stays in the list."""
        for path in made[::-1]:
            try:
                posix.rmdir(self.dir(path))
            except FileNotFoundError:
                pass
            except OSError:
                continue
            made.remove(path)

    def check_usable(self, path: str) -> None:
        """Raises PyruncError unless the cgroup is empty and neither it nor an ancestor is
        frozen."""
        events = self.pairs(path, "cgroup.events")
        if events.get("populated"):
            pids = self.pids(path)
            raise PyruncError(
                f'/linux/cgroupsPath "{path}": container\'s cgroup is not empty: process {pids[0] if pids else "?"}'
                " is in it; two containers cannot share one"
            )
        if events.get("frozen"):
            raise PyruncError(
                f'/linux/cgroupsPath "{path}": container\'s cgroup unexpectedly frozen; nothing started in it would run'
            )

    def make_threaded(self, path: str, needed: dict[str, Write]) -> None:
        """Make the cgroup threaded: below a threaded cgroup a new one is "domain invalid" and
        accepts no process until it is threaded as well."""
        kind = " ".join(self.words(path, "cgroup.type"))
        if kind in ("domain", ""):
            return
        domain = [write for name, write in needed.items() if name not in THREADED]
        if domain:
            raise self.unavailable(domain, path, sorted(THREADED), f'the cgroup is "{kind}" (cgroup.type)')
        if kind == "domain invalid":
            fs.write_file(self.dir(path) + "/cgroup.type", b"threaded")

    def enable(self, path: str, needed: dict[str, Write]) -> None:
        """Enable every controller on the path, so that limits and statistics work in the
        container's cgroup.

        Best effort: EBUSY for a cgroup that has processes of its own. Only a controller that a
        limit needs is an error.
        """
        wanted = self.words(self.top(), "cgroup.controllers")
        if wanted == self.words(path, "cgroup.controllers"):
            return
        chain: list[str] = []
        parent = path
        while parent not in (self.top(), "/"):
            parent = self.above(parent)
            chain.append(parent)
        why = ""
        for parent in reversed(chain):
            why = self.enable_all(parent) or why
        offered = self.words(path, "cgroup.controllers")
        lacking = [write for name, write in needed.items() if name not in offered]
        if lacking:
            raise self.unavailable(lacking, path, offered, why)

    def enable_all(self, path: str) -> str:
        """Enable all of a cgroup's controllers for its children; returns the reason for a failure,
        "" on success."""
        enabled = self.words(path, "cgroup.subtree_control")
        wanted = [name for name in self.words(path, "cgroup.controllers") if name not in enabled]
        if not wanted:
            return ""
        control = self.dir(path) + "/cgroup.subtree_control"
        try:
            fs.write_file(control, " ".join("+" + name for name in wanted).encode())
            return ""
        except OSError:
            pass  # one controller that cannot be enabled fails the whole write: retry one by one
        why = ""
        for name in wanted:
            try:
                fs.write_file(control, b"+" + name.encode())
            except OSError as error:
                why = f"enabling {name} in cgroup.subtree_control of {path}: {errno_text(error.errno or 0)}"
                if error.errno == EBUSY:
                    why += "; a cgroup with processes of its own cannot offer controllers"
        return why

    # -- limits ------------------------------------------------------------------------------------

    def apply(self, path: str, resources: Resources, ptr: str = "/linux/resources") -> None:
        """Write every limit.  Raises SysError naming field, value and file, ConfigError."""
        if not any(value for key, value in resources.items() if key != "devices"):
            return
        from pyrunc.cgroup import resources as conversion

        directory = self.dir(path)
        later: list[Write] = []
        for write in conversion.convert(resources, ptr):
            try:
                self.write(directory, write)
            except OSError as error:
                if error.errno == ENOENT and write.flags & conversion.OPTIONAL:
                    continue
                if error.errno == EINVAL and write.flags & conversion.LATER:
                    later.append(write)
                    continue
                raise self.explain(path, write, error.errno or 0) from error
        for write in later:
            try:
                self.write(directory, write)
            except OSError as error:
                raise self.explain(path, write, error.errno or 0) from error

    def values(self, path: str, resources: Resources, ptr: str = "/linux/resources") -> list[tuple[str, str]]:
        """Read the current content of the files that these limits change, for `restore`.

        Raises as `apply` does if a file is missing; nothing has been changed then.
        """
        from pyrunc.cgroup import resources as conversion

        out: dict[tuple[str, str], None] = {}
        for write in conversion.convert(resources, ptr):
            for file, text in (write.file, write.text), write.other or ("", ""):
                try:
                    held = fs.read_file(f"{self.dir(path)}/{file}", 65536).decode("utf-8", "surrogateescape")
                except OSError as error:
                    if error.errno == ENOENT and write.other and file == write.file:
                        continue
                    if error.errno == ENOENT and not write.flags & conversion.OPTIONAL:
                        raise self.explain(path, write, ENOENT) from error
                else:
                    out[file, conversion.before(file, text, held)] = None
                break
        return list(out)

    def restore(self, path: str, values: list[tuple[str, str]]) -> list[str]:
        """Write back what `values` read; returns the files that refuse it."""
        left = values[::-1]
        for _ in range(2):  # one value may contradict another that follows (a burst and its quota)
            again = []
            for file, text in left:
                try:
                    fs.write_file(f"{self.dir(path)}/{file}", text.encode("utf-8", "surrogateescape") or b"\n")
                except OSError:
                    again.append((file, text))
            left = again
        return [file for file, _ in left]

    def write(self, directory: str, write: Write) -> None:
        """Write one limit. Raises OSError."""
        try:
            data = write.text.encode("utf-8", "surrogateescape") or b"\n"  # write(2) of nothing does nothing
            fs.write_file(f"{directory}/{write.file}", data)
        except FileNotFoundError:
            if write.other is None:
                raise
            file, text = write.other
            fs.write_file(f"{directory}/{file}", text.encode())

    def explain(self, path: str, write: Write, number: int) -> PyruncError:
        """The error for a failed write, with what is known about the cause."""
        detail = ""
        if number == ENOENT:
            offered = self.words(path, "cgroup.controllers")
            if write.controller in _KNOWN and write.controller not in offered:
                return self.unavailable([write], path, offered, "")
            detail = f"cgroup {path} has no file of this name"
        elif number == EINVAL:
            detail = f"the kernel does not take {show(write.text)}"
        return SysError(write.pointer, "write", number, value=str(write.value), detail=detail).within(write.file)

    def devices(
        self,
        cgroup_fd: int,
        rules: list[DeviceRule] | None,
        ptr: str = "/linux/resources/devices",
        *,
        replace: bool = False,
    ) -> None:
        """Attach the device program; without one every device is open to the container's root.

        ``replace`` replaces the attached programs (`devices.attach`). Raises SysError, ConfigError.
        """
        from pyrunc.cgroup import devices

        try:
            devices.attach(cgroup_fd, rules, ptr, replace=replace)
        except SysError as error:
            # Without CAP_BPF a new container gets no program, but its user cannot create device
            # nodes either. A change of the rules must take effect.
            if replace or error.errno not in (EPERM, EACCES) or not self.facts.rootless:
                raise

    # -- watch -------------------------------------------------------------------------------------

    def words(self, path: str, file: str) -> list[str]:
        """The words of a blank-separated file; [] if it is missing.

        Raises SysError for any other error: running out of memory must not look like "empty" or
        "not frozen".
        """
        try:
            return fs.read_file(f"{self.dir(path)}/{file}", 65536).decode("ascii", "replace").split()
        except OSError as error:
            if error.errno in (ENOENT, ENODEV, ENOTDIR):
                return []
            raise SysError(f"cgroup {path}", "read", error.errno or 0).within(file) from error

    def pairs(self, path: str, file: str) -> dict[str, int]:
        """A flat-keyed file (cgroup.events, memory.events) as numbers; {} if it is missing.
        Raises SysError."""
        words = self.words(path, file)
        return {key: int(value) for key, value in zip(words[::2], words[1::2], strict=False) if value.isdigit()}

    def pids(self, path: str) -> list[int]:
        """The processes of a cgroup and its descendants; [] if the cgroup does not exist. Raises
        SysError."""
        from pyrunc.cgroup import tree

        try:
            return tree.members(self.dir(path), WALK_TIMEOUT)
        except OSError as error:
            raise SysError(path, "read", error.errno or 0).within("cgroup.procs") from error

    def oom_kills(self, path: str) -> int:
        """The number of OOM kills in the cgroup and below; 0 without the memory controller.

        Never raises, because it only adds detail to another error.
        """
        try:
            return self.pairs(path, "memory.events").get("oom_kill", 0)
        except SysError:
            return 0

    def frozen(self, path: str) -> bool:
        """Whether the cgroup or an ancestor is frozen, with all its processes."""
        return self.pairs(path, "cgroup.events").get("frozen", 0) == 1

    def freeze(self, path: str) -> None:
        """Freeze, and wait until every process is frozen. Raises SysError, PyruncError after
        FREEZE_TIMEOUT seconds.

        A process that the kernel cannot stop (state D) must not leave the others frozen: any
        failure thaws all.
        """
        try:
            self.set_freeze(path, b"1", "freeze")
            stands = self.wait_event(path, "frozen", 1, FREEZE_TIMEOUT)
        except BaseException:
            fs.ignore(self.write_freeze, path, b"0")
            raise
        if not stands:
            fs.ignore(self.write_freeze, path, b"0")
            raise PyruncError(f"cgroup {path} did not freeze within {FREEZE_TIMEOUT:g} s{self.survivors(path)}")

    def thaw(self, path: str) -> None:
        """Thaw, and wait until every process runs again. Raises SysError, PyruncError after
        FREEZE_TIMEOUT seconds."""
        self.set_freeze(path, b"0", "thaw")
        if not self.wait_event(path, "frozen", 0, FREEZE_TIMEOUT):
            raise PyruncError(f"cgroup {path} did not thaw within {FREEZE_TIMEOUT:g} s: a cgroup above it is frozen")

    def set_freeze(self, path: str, value: bytes, verb: str) -> None:
        """Write cgroup.freeze.  Raises SysError."""
        try:
            self.write_freeze(path, value)
        except OSError as error:
            raise SysError(f"cannot {verb} cgroup {path}", "write", error.errno or 0).within("cgroup.freeze") from error

    def write_freeze(self, path: str, value: bytes) -> None:
        """Write cgroup.freeze.  Raises OSError."""
        fs.write_file(self.dir(path) + "/cgroup.freeze", value)

    def wait_event(self, path: str, key: str, value: int, timeout: float) -> bool:
        """Wait for a value in cgroup.events; False after ``timeout`` seconds. A removed cgroup
        counts as 0 for every key."""
        deadline, pause = time.monotonic() + timeout, PAUSE_FIRST
        while self.pairs(path, "cgroup.events").get(key, 0) != value:
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, PAUSE_MOST)
        return True

    # -- end ---------------------------------------------------------------------------------------

    def kill(self, path: str, signal: int, *, stays: bool = False) -> None:
        """Signal every process of the cgroup and below; does nothing if there is none.

        SIGKILL goes through cgroup.kill (Linux 5.14), which no fork can escape. Other signals are
        sent to each process while the cgroup is frozen, so that none forks or ends (and frees its
        pid) meanwhile. With ``stays`` this applies to SIGKILL as well: since kernel commit
        b69bb476dee9 (Linux 6.14 and stable kernels before it) everything that is cloned into a
        cgroup with CLONE_INTO_CGROUP is killed if its cgroup.kill has ever been written. Raises
        SysError if a process cannot be signalled.
        """
        if signal == SIGKILL and not stays:
            try:
                fs.write_file(self.dir(path) + "/cgroup.kill", b"1")
                return
            except OSError as error:
                # ENOENT: no such cgroup, or an older kernel; EOPNOTSUPP: a threaded cgroup; ENODEV:
                # just removed
                if error.errno not in (ENOENT, ENODEV, EOPNOTSUPP):
                    raise SysError(path, "write", error.errno or 0).within("cgroup.kill") from error
        self.kill_each(path, signal)

    def kill_each(self, path: str, signal: int) -> None:
        """Freeze, signal, thaw; repeat while new processes appear, because freezing may be
        impossible."""
        if not self.pids(path):
            return
        was_frozen = self.frozen(path)
        seen: set[int] = set()
        failed = 0
        deadline = time.monotonic() + KILL_TIMEOUT
        try:
            if not was_frozen:
                fs.ignore(self.write_freeze, path, b"1")
                self.wait_event(path, "frozen", 1, 0.5)
            while time.monotonic() < deadline:
                new = [pid for pid in self.pids(path) if pid not in seen]
                if not new:
                    break
                for pid in new:
                    try:
                        posix.kill(pid, signal)
                    except OSError as error:
                        failed = failed if error.errno == ESRCH else error.errno or 0
                seen.update(new)
        finally:
            if not was_frozen:
                fs.ignore(self.write_freeze, path, b"0")
        if failed:
            raise SysError(path, "kill", failed).within("cgroup")

    def remove(self, path: str, timeout: float = REMOVE_TIMEOUT, made: list[str] | None = None) -> None:
        """Remove the cgroup and its descendants, then the unused ancestors that `create` made.

        ``made`` is what `create` made (None: only the cgroup itself); an older cgroup is emptied
        and kept. rmdir(2) fails with EBUSY until the last process has ended, so it is retried with
        growing pauses for ``timeout`` seconds (containerd's 150 ms are too short under load, crun's
        loop has no end). Idempotent. Raises SysError, and PyruncError that names a surviving
        process.
        """
        own = made is None or path in made
        deadline, pause = time.monotonic() + timeout, PAUSE_FIRST
        while not (self.rmdir(path) if own else self.remove_below(path, deadline) and self.is_empty(path)):
            if own and self.remove_below(path, deadline) and self.rmdir(path):
                break
            if time.monotonic() > deadline:
                raise PyruncError(f"cgroup {path} is still in use after {timeout:g} s{self.survivors(path)}")
            from pyrunc import procfs

            procfs.kill_headless(self.pids(path))
            time.sleep(pause)
            pause = min(pause * 2, PAUSE_MOST)
        for ancestor in reversed(made or ()):
            if path.startswith(ancestor + "/") and not self.rmdir(ancestor):
                break  # this cgroup, and so each of its ancestors, is in use by others

    def is_empty(self, path: str) -> bool:
        """Whether no process is in the cgroup or below it; zombies do not count.  Raises
        SysError."""
        return not self.pairs(path, "cgroup.events").get("populated")

    def rmdir(self, path: str) -> bool:
        """Try once to remove a cgroup; False if it is in use or has children. Raises SysError."""
        try:
            posix.rmdir(self.dir(path))
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (EBUSY, ENOTEMPTY):
                return False
            raise SysError(path, "rmdir", error.errno or 0).within("cgroup") from error
        return True

    def remove_below(self, path: str, deadline: float) -> bool:
        """Try once to remove all descendants; False if one is in use or the deadline has passed.
        Raises SysError."""
        from pyrunc.cgroup import tree

        busy: list[str] = []

        def leave(parent: int, name: str) -> None:
            try:
                posix.rmdir(name, dir_fd=parent)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in (EBUSY, ENOTEMPTY):
                    raise
                busy.append(name)

        try:
            tree.walk(self.dir(path), None, leave, deadline)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno == ETIMEDOUT:
                return False
            raise SysError(path, "rmdir", error.errno or 0).within("below the cgroup") from error
        return not busy

    def survivors(self, path: str) -> str:
        """The end of a sentence that names the processes left in a cgroup and what the first one
        waits for."""
        pids = self.pids(path)
        if not pids:
            return ", without a process that can be seen"
        name = host.read(f"/proc/{pids[0]}/comm").decode("utf-8", "replace").strip() or "?"
        more = f" and {len(pids) - 1} more" if len(pids) > 1 else ""
        return f": process {pids[0]} ({name}), which waits in {host.waits_in(pids[0])}{more}"
