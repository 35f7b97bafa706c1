"""Rules for `process`: command line, environment, limits, user, capabilities, labels."""

from __future__ import annotations

from pyrunc.spec.names import CAPABILITIES, PATH_MAX
from pyrunc.spec.report import numbered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from pyrunc.spec.report import Report
    from pyrunc.spec.types import Process, Rlimit

# execve(2), fs/exec.c: the limit of one string with its NUL (MAX_ARG_STRLEN), and of all strings
# with their pointers: a quarter of the stack limit, between 128 KiB and three quarters of 8 MiB.
STRING_MAX = 131072
TOTAL_MAX = 6 << 20
TOTAL_MIN = 131072

CAP_BITS = {name: bit for bit, name in enumerate(CAPABILITIES)}
GROUPS_MAX = 65536  # NGROUPS_MAX
WINDOW_MAX = 0xFFFF  # struct winsize


def check(process: Process, report: Report) -> None:
    """All rules of `process`."""
    absolute(process.get("cwd"), "/process/cwd", report)
    command(process, report)
    environment(process.get("env"), "/process/env", report)
    size(process, report)
    terminal(process, report)
    rlimits(process.get("rlimits"), report)
    capabilities(process, report)
    labels(process, report)
    groups = process.get("user", {}).get("additionalGids")
    if groups and len(groups) > GROUPS_MAX:
        report.bad("/process/user/additionalGids", f"at most {GROUPS_MAX} groups", groups)
    if "scheduler" in process or "execCPUAffinity" in process:
        from pyrunc.spec import rules_scheduling

        rules_scheduling.process(process, report)


def absolute(path: str | None, pointer: str, report: Report) -> None:
    """A path must begin with "/". None, absent or of a wrong type, is reported already."""
    if path is not None and not path.startswith("/"):
        report.bad(pointer, "an absolute path", path)
    else:
        short(path, pointer, report)


def short(path: str | None, pointer: str, report: Report) -> bool:
    """Whether the kernel can look up a path; a longer one is reported and not parsed."""
    if path is None or len(path) < PATH_MAX:
        return True
    report.bad(pointer, f"less than {PATH_MAX} bytes", f"{path[:20]}...", f"{len(path)} characters")
    return False


def command(process: Process, report: Report) -> None:
    """At least one argument; the first names a program."""
    args = process.get("args")
    if args is None:
        report.bad("/process/args", "an array with at least one string")
    elif not args:
        report.bad("/process/args", "at least one string", args)
    elif args[0] == "":
        report.bad("/process/args/0", "the name of a program", args[0])


def environment(env: list[str] | None, pointer: str, report: Report) -> None:
    """NAME=VALUE with a name, as in environ(7)."""
    for index, entry in enumerate(env or ()):
        if entry is not None and entry.find("=") < 1:
            report.bad_item(pointer, index, "NAME=VALUE", entry)


def size(process: Process, report: Report) -> None:
    """Sizes for which execve(2) would fail with E2BIG in the created container."""
    total = 0
    field: Literal["args", "env"]
    for field in ("args", "env"):
        for index, text in enumerate(process.get(field, ())):
            if text is None:
                continue
            length = (len(text) if text.isascii() else len(text.encode("utf-8"))) + 1
            total += length + 8
            if length > STRING_MAX:
                hint = f"{length - 1} bytes"
                report.bad_item(f"/process/{field}", index, f"less than {STRING_MAX} bytes", f"{text[:20]}...", hint)
    limit = TOTAL_MAX
    for rlimit in process.get("rlimits", ()):
        if rlimit and rlimit.get("type") == "RLIMIT_STACK" and "soft" in rlimit:
            limit = max(TOTAL_MIN, min(TOTAL_MAX, rlimit["soft"] // 4))
    if total > limit:
        report.bad("/process/args", f"arguments and environment of at most {limit} bytes in total", total)


def terminal(process: Process, report: Report) -> None:
    """consoleSize is ignored without a terminal (config.md)."""
    if process.get("terminal"):
        console = process.get("consoleSize", {})
        name: Literal["height", "width"]
        for name in ("height", "width"):
            value = console.get(name, 0)
            if value > WINDOW_MAX:
                report.bad(f"/process/consoleSize/{name}", f"integer from 0 to {WINDOW_MAX}", value)


def rlimits(items: list[Rlimit] | None, report: Report) -> None:
    """Each type at most once, soft <= hard."""
    seen: set[str] = set()
    for pointer, rlimit in numbered(items, "/process/rlimits"):
        kind = rlimit.get("type")
        if kind in seen:
            report.bad(f"{pointer}/type", "each type once", kind)
        elif kind is not None:
            seen.add(kind)
        soft, hard = rlimit.get("soft"), rlimit.get("hard")
        if soft is not None and hard is not None and soft > hard:
            report.bad(f"{pointer}/soft", f"at most the hard limit {hard}", soft)


def capabilities(process: Process, report: Report) -> None:
    """An unknown capability is a warning: the container starts without it (config.md)."""
    last = report.facts.cap_last if report.facts is not None else len(CAPABILITIES)
    sets = process.get("capabilities", {})
    kind: Literal["bounding", "effective", "inheritable", "permitted", "ambient"]
    for kind in ("bounding", "effective", "inheritable", "permitted", "ambient"):
        for pointer, name in numbered(sets.get(kind), f"/process/capabilities/{kind}"):
            if name not in CAP_BITS:
                report.warn(pointer, "a capability", name, "unknown, ignored")
            elif CAP_BITS[name] > last:
                report.warn(pointer, "a capability of this kernel", name, "ignored")


def labels(process: Process, report: Report) -> None:
    """A label that cannot be applied is an error: without it the program would be unconfined."""
    facts = report.facts
    if facts is None:
        return
    profile = process.get("apparmorProfile")
    if profile and profile != "unconfined" and not facts.apparmor:
        report.bad("/process/apparmorProfile", "no profile on a host without AppArmor", profile)
    if process.get("selinuxLabel") and not facts.selinux:
        report.bad("/process/selinuxLabel", "no label on a host without SELinux", process["selinuxLabel"])
