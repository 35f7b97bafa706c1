"""The cgroupfs driver: mkdir, write, rmdir in the unified hierarchy.

Limits whose controller is not there are errors that name the controller: on a hybrid host most controllers are bound to v1
hierarchies, and a limit that is silently absent is worse than a container that does not start.
"""

from __future__ import annotations

import posix
import time
from errno import EBUSY, EINVAL, ENOENT, ENOTEMPTY, EOPNOTSUPP, EPERM
from posix import O_CLOEXEC, O_DIRECTORY, O_PATH

from pyrunc import fs
from pyrunc.errors import ConfigError, Problem, PyruncError, SysError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.cgroup.resources import Write
    from pyrunc.host import HostFacts

REMOVE_TIMEOUT = 10.0  # seconds
FREEZE_TIMEOUT = 5.0
THREADED = frozenset(("cpu", "cpuset", "perf_event", "pids"))  # what a threaded cgroup can have (cgroups(7))
SIGKILL = 9


class Fs2:
    """cgroup v2 through its file system.  Paths are inside the hierarchy."""

    __slots__ = ("facts",)

    def __init__(self, facts: HostFacts) -> None:
        self.facts = facts

    def dir(self, path: str) -> str:
        """The directory of a cgroup."""
        return self.facts.cgroup_dir(path)

    # -- make --------------------------------------------------------------------------------------------------

    def missing(self, path: str) -> list[str]:
        """The cgroups on the way to ``path``, and itself, that do not exist; outermost first."""
        out: list[str] = []
        while path and path != "/" and not fs.exists(self.dir(path)):
            out.append(path)
            path = path.rpartition("/")[0]
        return out[::-1]

    def create(self, path: str, resources: dict[str, Any], ptr: str = "/linux/resources") -> int:
        """Make the cgroup and its ancestors and enable controllers; returns an O_PATH descriptor of its directory.

        Nothing is made when a limit's controller is not available.  Raises ConfigError, SysError, PyruncError (the cgroup
        is in use).
        """
        limits = any(resources.get(key) for key in resources if key != "devices")
        if limits:
            self.check_available(path, resources, ptr)
        ancestors = path.strip("/").split("/")
        above = "/"
        for name in ancestors:
            self.enable_all(above)
            below = f"{above.rstrip('/')}/{name}"
            last = below == path
            try:
                posix.mkdir(self.dir(below), 0o755)
            except FileExistsError:
                if last:
                    self.check_unused(path)
            except OSError as error:
                raise SysError("/linux/cgroupsPath", "mkdir", error.errno or 0, value=below) from error
            above = below
        if limits and len(ancestors) > 1:
            self.make_threaded(path, resources, ptr)
        return posix.open(self.dir(path), O_PATH | O_DIRECTORY | O_CLOEXEC)

    def check_available(self, path: str, resources: dict[str, Any], ptr: str) -> None:
        """Raises ConfigError when a controller that the limits need is not offered where the cgroup will be."""
        from pyrunc.cgroup import resources as convert

        writes = [w for w in convert.convert(resources, ptr) if w.controller and not w.flags & convert.OPTIONAL]
        if not writes:
            return
        parent = path
        while parent not in ("", "/"):
            parent = parent.rpartition("/")[0]
            if fs.exists(self.dir(parent or "/")):
                break
        offered = self.words(parent or "/", "cgroup.controllers")
        problems = []
        for write in writes:
            if write.controller not in offered and write.controller in _KNOWN:
                found = f"{show(write.value_of)}, but cgroup {parent or '/'} offers only: {' '.join(offered) or 'none'}"
                problems.append(
                    Problem(write.pointer, f"the {write.controller} controller to be available for it", found)
                )
        if problems:
            raise ConfigError(problems)

    def enable_all(self, path: str) -> None:
        """Offer every controller of a cgroup to its children, so that limits and statistics work in them.

        Best effort: a cgroup with processes of its own cannot (EBUSY), and a controller that a limit needs has been
        checked for.  What does not work together is tried one by one.
        """
        offered, enabled = self.words(path, "cgroup.controllers"), self.words(path, "cgroup.subtree_control")
        wanted = [name for name in offered if name not in enabled]
        if not wanted:
            return
        control = self.dir(path) + "/cgroup.subtree_control"
        try:
            fs.write_file(control, " ".join("+" + name for name in wanted).encode())
        except OSError:
            for name in wanted:
                fs.ignore(fs.write_file, control, b"+" + name.encode())

    def check_unused(self, path: str) -> None:
        """An existing cgroup may be used when nobody else uses it.  Raises PyruncError."""
        events = self.pairs(path, "cgroup.events")
        if events.get("populated"):
            pids = self.pids(path)
            raise PyruncError(
                f'/linux/cgroupsPath "{path}": the cgroup is in use by process {pids[0] if pids else "?"};'
                " two containers cannot share one"
            )
        if self.frozen(path):
            raise PyruncError(f'/linux/cgroupsPath "{path}": the cgroup is frozen, nothing started in it would run')

    def make_threaded(self, path: str, resources: dict[str, Any], ptr: str) -> None:
        """Below a threaded cgroup a new one is "domain invalid" and takes no process until it is threaded, too."""
        if self.words(path, "cgroup.type") != ["domain", "invalid"]:
            return
        from pyrunc.cgroup import resources as convert

        needed = {w.controller for w in convert.convert(resources, ptr) if w.controller}
        if needed - THREADED:
            found = f"limits of {', '.join(sorted(needed - THREADED))}"
            raise ConfigError([Problem("/linux/cgroupsPath", "no limit that a threaded cgroup cannot have", found)])
        fs.write_file(self.dir(path) + "/cgroup.type", b"threaded")

    # -- limits ------------------------------------------------------------------------------------------------

    def apply(self, path: str, resources: dict[str, Any], ptr: str = "/linux/resources") -> None:
        """Write every limit.  Raises SysError naming field, value and file, ConfigError."""
        from pyrunc.cgroup import resources as convert

        directory = self.dir(path)
        for write in convert.convert(resources, ptr):
            file, _, other = write.file.partition("|")
            text, _, other_text = write.text.partition("|")
            if other and not fs.exists(f"{directory}/{file}"):
                file, text = other, other_text
            try:
                fs.write_file(f"{directory}/{file}", text.encode("utf-8", "surrogateescape"))
            except OSError as error:
                if error.errno == ENOENT and write.flags & convert.OPTIONAL:
                    continue
                raise self.explain(path, write, file, text, error.errno or 0) from error

    def explain(self, path: str, write: Write, file: str, text: str, number: int) -> SysError:
        """The error of a failed write, with what can be known about its cause."""
        detail = ""
        if number == ENOENT:
            controllers = " ".join(self.words(path, "cgroup.controllers")) or "none"
            detail = f"the {write.controller} controller of cgroup {path} has no such file (controllers: {controllers})"
        elif number in (EPERM, EOPNOTSUPP, EINVAL):
            detail = f"the kernel does not take {show(text)}"
        return SysError(write.pointer, "write", number, value=str(write.value_of), context=file, detail=detail)

    def devices(
        self, cgroup_fd: int, rules: list[dict[str, Any]] | None, ptr: str = "/linux/resources/devices"
    ) -> None:
        """Attach the device program; without one every device would be open to the container's root.

        As a user without CAP_BPF there is no way to attach one, and none is needed: such a user cannot make device nodes.
        Raises SysError.
        """
        from pyrunc import runtime
        from pyrunc.cgroup import devices

        if devices.allows_everything(rules):
            return
        ffi, lib = runtime.shim()
        code = devices.program(rules)
        log = ffi.new("char[4096]")
        program = lib.pr_bpf_prog_load_device(code, len(code) // 8, log, 4096)
        if program < 0:
            if -program == EPERM and self.facts.euid != 0:
                return
            raise SysError(ptr, "bpf(PROG_LOAD)", -program, detail=ffi.string(log).decode("ascii", "replace")[-200:])
        try:
            flags = 2  # BPF_F_ALLOW_MULTI: the programs of the cgroups above stay in force
            # The descriptor that create() returns is O_PATH, which bpf(2) does not take.
            target = posix.open(f"/proc/self/fd/{cgroup_fd}", posix.O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            try:
                attached = lib.pr_bpf_prog_attach(target, program, flags, -1)
            finally:
                posix.close(target)
            if attached < 0 and not (-attached == EPERM and self.facts.euid != 0):
                raise SysError(ptr, "bpf(PROG_ATTACH)", -attached)
        finally:
            posix.close(program)

    # -- watch -------------------------------------------------------------------------------------------------

    def words(self, path: str, file: str) -> list[str]:
        """A file of blank-separated words; [] when it is not there."""
        try:
            return fs.read_file(f"{self.dir(path)}/{file}", 65536).decode("ascii", "replace").split()
        except OSError:
            return []

    def pairs(self, path: str, file: str) -> dict[str, int]:
        """A flat-keyed file (cgroup.events, memory.events) as numbers; {} when it is not there."""
        words = self.words(path, file)
        return {key: int(value) for key, value in zip(words[::2], words[1::2], strict=False) if value.isdigit()}

    def children(self, path: str) -> list[str]:
        """The cgroups directly below."""
        try:
            with posix.scandir(self.dir(path)) as found:
                return [f"{path}/{entry.name}" for entry in found if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return []

    def pids(self, path: str) -> list[int]:
        """The processes of a cgroup and of all below."""
        out = [int(word) for word in self.words(path, "cgroup.procs") if word.isdigit()]
        for child in self.children(path):
            out += self.pids(child)
        return out

    def oom_kills(self, path: str) -> int:
        """How often the OOM killer struck in the cgroup; 0 where memory is not controlled."""
        return self.pairs(path, "memory.events").get("oom_kill", 0)

    def frozen(self, path: str) -> bool:
        """Whether the cgroup or one above it is frozen."""
        return self.pairs(path, "cgroup.events").get("frozen", 0) == 1

    def freeze(self, path: str, on: bool = True) -> None:
        """Freeze or thaw, and wait until it is so.  Raises SysError, PyruncError after FREEZE_TIMEOUT seconds."""
        try:
            fs.write_file(self.dir(path) + "/cgroup.freeze", b"1" if on else b"0")
        except OSError as error:
            raise SysError(path, "write", error.errno or 0, context="cgroup.freeze") from error
        deadline, pause = time.monotonic() + FREEZE_TIMEOUT, 0.001
        while self.frozen(path) != on:
            if time.monotonic() > deadline:
                raise PyruncError(f"cgroup {path} did not {'freeze' if on else 'thaw'} within {FREEZE_TIMEOUT:g} s")
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

    # -- end ---------------------------------------------------------------------------------------------------

    def kill(self, path: str, signal: int) -> None:
        """Signal every process of the cgroup and below; nothing when there is none, or no cgroup.

        SIGKILL through cgroup.kill (Linux 5.14), which no fork can escape; else process by process, a bounded number
        of rounds, because a fork may come between reading and killing.
        """
        directory = self.dir(path)
        if signal == SIGKILL:
            try:
                fs.write_file(directory + "/cgroup.kill", b"1")
                return
            except OSError as error:
                if not fs.exists(directory):
                    return
                if error.errno != ENOENT:
                    raise SysError(path, "write", error.errno or 0, context="cgroup.kill") from error
        for _ in range(10 if signal == SIGKILL else 1):
            pids = self.pids(path)
            for pid in pids:
                fs.ignore(posix.kill, pid, signal)
            if not pids:
                break

    def remove(self, path: str, timeout: float = REMOVE_TIMEOUT, made: list[str] | None = None) -> None:
        """Remove the cgroup and all below, then those of its ancestors that create made and nobody uses.

        rmdir answers EBUSY until the last process is reaped, so it is repeated with growing pauses for ``timeout`` seconds
        (containerd's 150 ms are too short under load).  Idempotent.  Raises PyruncError naming a surviving process.
        """
        deadline, pause = time.monotonic() + timeout, 0.0005
        while not self.remove_tree(path):
            if time.monotonic() > deadline:
                raise self.survivor(path, timeout)
            time.sleep(pause)
            pause = min(pause * 2, 0.1)
        for ancestor in reversed(made or ()):
            if ancestor != path and path.startswith(ancestor + "/"):
                fs.ignore(posix.rmdir, self.dir(ancestor))

    def remove_tree(self, path: str) -> bool:
        """One attempt, children first; False when something is still in use.  Raises SysError."""
        try:
            posix.rmdir(self.dir(path))
            return True
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno not in (EBUSY, ENOTEMPTY):
                raise SysError(path, "rmdir", error.errno or 0, context="cgroup") from error
        children = self.children(path)
        return bool(children) and all([self.remove_tree(child) for child in children]) and self.remove_tree_again(path)

    def remove_tree_again(self, path: str) -> bool:
        """The cgroup itself, once its children are gone."""
        try:
            posix.rmdir(self.dir(path))
        except FileNotFoundError:
            pass
        except OSError:
            return False
        return True

    def survivor(self, path: str, timeout: float) -> PyruncError:
        """Why a cgroup cannot be removed."""
        pids = self.pids(path)
        if not pids:
            return PyruncError(f"cgroup {path} stays busy after {timeout:g} s, without a process that could be seen")
        try:
            where = fs.read_file(f"/proc/{pids[0]}/wchan", 256).decode("ascii", "replace") or "?"
        except OSError:
            where = "?"
        return PyruncError(f"cgroup {path} still holds process {pids[0]} after {timeout:g} s; it waits in {where}")


# Prefixes of the controllers' files.  A unified key of another prefix may be a file of a kernel that is newer than this list:
# it is written, and the kernel answers.
_KNOWN = frozenset(("cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc", "dmem"))
