"""The host as the checks see it: files below a prefix, facts, the environment, probes. Tests use
fake ones."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Callable, Mapping
from errno import ETIMEDOUT

from pyrunc import fs, host, interpreter
from pyrunc.errors import errno_name
from pyrunc.native import probe
from pyrunc.spec.names import CLONE_FLAGS

PROGRAM_DIRS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
FILE_MOST = 4 << 20  # bytes of a file; the tables in /proc are the largest

Probe = Callable[[str, int], int]


def try_out(what: str, flags: int) -> int:
    """Run a probe of the shim by name, in new namespaces; returns its value, or ``-errno``."""
    try:
        return probe.probe(what, flags)
    except OSError as error:
        return -(error.errno or 0)


class Machine:
    """This host, as seen by pyrunc's caller.

    ``prefix`` is prepended to every path. Nothing here changes anything.
    """

    def __init__(self, prefix: str = "", env: Mapping[str, str] | None = None, probe: Probe = try_out) -> None:
        self.prefix = prefix
        self.env: Mapping[str, str] = os.environ if env is None else env
        self.probe = probe
        self.facts = host.snapshot(prefix)
        self.euid, self.egid, self.uid = os.geteuid(), os.getegid(), os.getuid()
        self.root_option = ""
        self.manager = "cgroupfs"
        self.program = own_program()
        self._mounts: list[list[str]] | None = None
        self._nss_hangs = False

    @property
    def initial_userns(self) -> bool:
        """Whether the caller's root has its full privileges over the host."""
        return host.initial_userns(self.prefix)

    @property
    def privileged(self) -> bool:
        """Whether the caller is the host's root."""
        return self.euid == 0 and self.initial_userns

    def place(self, path: str) -> str:
        """The real location of a host path."""
        return self.prefix + path

    # -- files -------------------------------------------------------------------------------------

    def text(self, path: str, most: int = FILE_MOST) -> str:
        """The first bytes of a file, or "" if it is unreadable; never blocks."""
        try:
            fd = os.open(self.place(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except (OSError, ValueError):
            return ""
        chunks, left = [], most
        try:
            while left > 0 and (chunk := os.read(fd, min(left, 65536))):
                chunks.append(chunk)
                left -= len(chunk)
        except OSError:
            pass
        finally:
            os.close(fd)
        return b"".join(chunks).decode("utf-8", "surrogateescape")

    def number(self, path: str) -> int | None:
        """The number in a file; None if the file is missing or contains something else."""
        words = self.text(path, 64).split()
        try:
            return int(words[0]) if words else None
        except ValueError:
            return None

    def exists(self, path: str) -> bool:
        """Whether a path exists."""
        return self.stat(path) is not None

    def stat(self, path: str) -> os.stat_result | None:
        """stat(2) of a path, or None if that fails."""
        try:
            return os.stat(self.place(path))
        except (OSError, ValueError):
            return None

    def access(self, path: str, mode: int) -> bool:
        """Whether the caller could open a file (os.R_OK, os.W_OK, os.X_OK)."""
        try:
            return os.access(self.place(path), mode, effective_ids=True)
        except (OSError, ValueError):
            return False

    def names(self, path: str, most: int = 10_000) -> list[str]:
        """The first names in a directory, sorted; [] if it is unreadable."""
        found: list[str] = []
        try:
            with os.scandir(self.place(path)) as entries:
                for entry in entries:
                    found.append(entry.name)
                    if len(found) == most:
                        break
        except (OSError, ValueError):
            return []
        return sorted(found)

    def is_program(self, path: str) -> bool:
        """Whether a path leads to an executable regular file."""
        found = self.stat(path)
        return found is not None and stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o111)

    def find(self, program: str, *more: str) -> str:
        """The path of a program, or ""; ``more`` are additional directories."""
        for place in (*PROGRAM_DIRS, *more):
            if self.is_program(f"{place}/{program}"):
                return f"{place}/{program}"
        return ""

    def mounts(self) -> list[list[str]]:
        """The lines of mountinfo, split at blanks; paths keep the kernel's escapes (proc(5)).

        Read once: printing thousands of mounts takes milliseconds.
        """
        if self._mounts is None:
            lines = (line.split(" ") for line in self.text("/proc/self/mountinfo").split("\n"))
            self._mounts = [fields for fields in lines if len(fields) > 6 and "-" in fields]
        return self._mounts

    # -- the caller
    # --------------------------------------------------------------------------------------------

    def status(self, name: str) -> str:
        """A field of /proc/self/status, or ""."""
        for line in self.text("/proc/self/status").split("\n"):
            key, _, value = line.partition(":")
            if key == name:
                return value.strip()
        return ""

    def capabilities(self, which: str = "CapEff") -> int:
        """A capability set of the caller: CapEff, CapPrm, CapInh, CapBnd or CapAmb."""
        try:
            return int(self.status(which) or "0", 16)
        except ValueError:
            return 0

    def securebits(self) -> int | None:
        """prctl(PR_GET_SECUREBITS), or None without python-prctl, an optional extra."""
        interpreter.look_beside()
        try:
            import prctl
        except ImportError:
            return None
        return int(prctl.get_securebits())

    def rlimit(self, number: int) -> tuple[int, int]:
        """Soft and hard limit of the caller (resource.RLIMIT_*)."""
        return resource.getrlimit(number)

    def subordinate_ids(self, owner: str, groups: bool) -> list[tuple[int, int]] | None:
        """libsubid's ranges of a user, including NSS: (first id, number). None if it is missing or
        does not answer.

        A server that does not answer is asked only once.
        """
        if self._nss_hangs:
            return None
        try:
            lines = probe.subordinate_ids(fs.encode(owner), groups).decode("ascii").splitlines()
        except OSError as error:
            self._nss_hangs = error.errno == ETIMEDOUT
            return None
        return [(int(first), int(number)) for first, number in (line.split() for line in lines if line.count(" ") == 1)]

    def works(self, what: str, flags: int = 0) -> tuple[int, bool]:
        """Run a probe as the caller or, if not permitted, in a new user namespace: (result,
        whether in one)."""
        result = self.probe(what, flags)
        if result >= 0 or errno_name(-result) != "EPERM" or flags & CLONE_FLAGS["user"]:
            return result, False
        inside = self.probe(what, flags | CLONE_FLAGS["user"] | CLONE_FLAGS["mount"])
        return (inside, True) if inside >= 0 else (result, False)


def own_program() -> str:
    """The path of this executable, for the suggested commands."""
    if interpreter.FROZEN:
        try:
            return os.readlink("/proc/self/exe")
        except OSError:
            pass
    return "/usr/local/bin/pyrunc"


def system_error(result: int) -> str:
    """The name of ``-errno``, such as EPERM."""
    return errno_name(-result)
