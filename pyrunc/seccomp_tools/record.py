"""`seccomp record`: the smallest profile that allows the recorded calls."""

from __future__ import annotations

from pyrunc import build, fs
from pyrunc.errors import ConfigError, Problem, SysError, show
from pyrunc.seccomp_tools import calls, profile
from pyrunc.spec import load
from pyrunc.spec.schema import SECCOMP_ARCHES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.log import Log
    from pyrunc.seccomp_tools.calls import Arch
    from pyrunc.seccomp_tools.listener import Notification
    from pyrunc.spec.types import Seccomp

_FIELDS = ("defaultAction", "defaultErrnoRet", "architectures", "syscalls")
# Calls that `start` needs from an init that `create` left behind this filter, and that `run` may
# not show.
_START = ("close", "execve", "read", "write")
_IN_PARTS = (102, 117)  # socketcall(2) and ipc(2) on x86
_NAMELESS = 100  # limit of reported calls without a name


class Recorder:
    """The calls of all processes, by architecture."""

    __slots__ = ("before", "counts", "known", "nameless", "names")

    def __init__(self, before: Seccomp | None) -> None:
        """``before``: the profile of earlier runs, or None."""
        self.before = before
        self.known = list(calls.all_arches().values())
        self.names: dict[tuple[int, int, int], tuple[str, str]] = {}  # AUDIT_ARCH_*, number, part -> SCMP_ARCH_*, name
        self.counts: dict[tuple[str, str], int] = {}
        self.nameless: set[tuple[int, int]] = set()

    def seen(self, call: Notification) -> None:
        """Count a call."""
        # The function requested from socketcall(2) or ipc(2).
        part = call.args[0] & 0xFFFF if call.audit == calls.X86 and call.number in _IN_PARTS else 0
        key = (call.audit, call.number, part)
        found = self.names.get(key)
        if found is None:
            arch = calls.arch_of(self.known, call.audit, call.number)
            names = arch.names_of(call.number, part) if arch else ()
            if arch is None or not names:
                if len(self.nameless) < _NAMELESS:
                    self.nameless.add((call.audit, call.number))
                return
            # A rule for the function covers both the separate call and socketcall(2) with this
            # argument.
            found = self.names[key] = (arch.name, names[-1])
        self.counts[found] = self.counts.get(found, 0) + 1

    def calls(self) -> dict[str, dict[str, int]]:
        """Architecture -> name -> count, sorted."""
        found: dict[str, dict[str, int]] = {}
        for (arch, name), count in sorted(self.counts.items(), key=lambda item: (_place(item[0][0]), item[0][1])):
            found.setdefault(arch, {})[name] = count
        return found

    def profile(self) -> Seccomp:
        """The profile of this run and earlier ones; the same calls produce the same bytes."""
        found = self.calls()
        native: Arch = calls.native()
        arches, names = {native.name, *found}, set[str]()
        if self.before is not None:
            arches.update(self.before.get("architectures", ()))
            names = {name for rule in self.before.get("syscalls", ()) for name in rule["names"]}
        names |= {name for listed in found.values() for name in listed} | set(_START)
        return {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "architectures": sorted(arches, key=_place),  # type: ignore[arg-type]  # names that `_place` knows
            "syscalls": [{"names": sorted(names), "action": "SCMP_ACT_ALLOW"}],
        }

    def warn(self, log: Log) -> None:
        """Calls that a profile cannot contain."""
        for audit, number in sorted(self.nameless):
            version = build.libseccomp()
            text = f"system call {number} of {audit:#x} has no name in libseccomp {version}: the profile denies it"
            log.warning(text, aloud=True)


def _place(arch: str) -> int:
    """The order of architectures."""
    return SECCOMP_ARCHES.index(arch)


def earlier(path: str) -> Seccomp | None:
    """The profile that an earlier `record` wrote to a file; None if there is none. Raises
    ConfigError."""
    if not path or not fs.exists(path):
        return None
    found, _ = load.load_config(fs.abspath(path))
    source = path.rpartition("/")[2]
    document = profile.valid(found, "", source)
    rules = document.get("syscalls", [])
    expected = "what `seccomp record` writes: one rule, SCMP_ACT_ALLOW, without conditions"
    if list(document) != list(_FIELDS):
        raise ConfigError([Problem("", expected, f"the members {show(list(document))}")], source)
    if len(rules) != 1 or rules[0]["action"] != "SCMP_ACT_ALLOW" or rules[0].get("args"):
        raise ConfigError([Problem("/syscalls", expected, "other rules")], source)
    if document["defaultAction"] != "SCMP_ACT_ERRNO" or document["defaultErrnoRet"] != 1:
        raise ConfigError([Problem("/defaultAction", expected, show(document["defaultAction"]))], source)
    return document


def save(path: str, text: str) -> None:
    """Write a profile atomically. Raises SysError."""
    try:
        fs.replace_file(path, text.encode("utf-8"), 0o644)
    except OSError as error:
        raise SysError("--output", "open", error.errno or 0, value=path) from error
