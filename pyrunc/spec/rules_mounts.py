"""Rules for `mounts`."""

from __future__ import annotations

from pyrunc.fs import normpath
from pyrunc.spec.mappings import is_idmapped
from pyrunc.spec.names import PATH_MAX
from pyrunc.spec.report import NOTHING, numbered
from pyrunc.spec.rules_process import short

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.report import Report
    from pyrunc.spec.types import Config, Mount

# The files of /proc that lxcfs and similar programs cover. A mount on any other could fake security
# labels, sysctls or masks (CVE-2019-16884, CVE-2025-52881).
PROC_FILES = (
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
)


def check(config: Config, report: Report, at: str = "/mounts") -> None:
    """All rules of `mounts`; ``at`` is the pointer of the array."""
    mounts = config.get("mounts")
    for pointer, mount in numbered(mounts, at):
        options = mount.get("options", ())
        bind = "bind" in options or "rbind" in options
        destination(mount, pointer, bind, report)
        source(mount, pointer, bind, report)
        if is_idmapped(mount):
            report.mapped = True
        for here, option in numbered(options, f"{pointer}/options"):
            if option.partition("=")[0] in ("idmap", "ridmap") and "=" in option:
                # crun's syntax; the specification has fields for it.
                report.bad(here, "uidMappings and gidMappings of the mount for its mapping", option)


def destination(mount: Mount, pointer: str, bind: bool, report: Report) -> None:
    """Not the root, and on /proc only a procfs and the files listed above."""
    path = mount.get("destination")
    if path is None:
        return
    pointer += "/destination"
    if not path:
        report.bad(pointer, "a path", path)
        return
    if not short(path, pointer, report):
        return
    if not path.startswith("/"):
        report.warn(pointer, "an absolute path", path, "deprecated; taken from /")
    clean = normpath("/" + path)
    if clean == "/":
        report.bad(pointer, "a path below /", path)
    elif clean == "/proc":
        options = mount.get("options", ())
        # init checks that the source is a procfs, on the descriptor that it mounts.
        procfs = normpath((mount.get("source") or "")[:PATH_MAX]) == "/proc" if bind else mount.get("type") == "proc"
        if not procfs and "remount" not in options:
            found = mount.get("source", NOTHING) if bind else mount.get("type", NOTHING)
            report.bad(pointer, "only a procfs on /proc (type proc, or a bind of /proc)", found)
    elif clean.startswith("/proc/") and clean not in PROC_FILES:
        report.bad(pointer, "nothing mounted under /proc", path, "except " + ", ".join(PROC_FILES))


def is_at_proc(mount: Mount) -> bool:
    """Whether the destination is /proc."""
    return normpath("/" + mount.get("destination", "")[:PATH_MAX]) == "/proc"


def source(mount: Mount, pointer: str, bind: bool, report: Report) -> None:
    """A bind mount needs a source, any other mount the type of a filesystem."""
    if bind:
        if not mount.get("source"):
            report.bad(f"{pointer}/source", "the path to bind", mount.get("source", NOTHING))
        short(mount.get("source"), f"{pointer}/source", report)
    elif "remount" not in (mount.get("options", ())):
        kind = mount.get("type", NOTHING)
        if kind is NOTHING or kind in ("", "none", "bind"):
            # config.md: the option makes a bind mount, the type is ignored.
            report.bad(f"{pointer}/type", "a filesystem type", kind, "a bind mount needs the option bind or rbind")
