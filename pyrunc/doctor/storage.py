"""Storage: the state root, and CRIU for checkpoints."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from shlex import quote

from pyrunc import state
from pyrunc.doctor.findings import Area
from pyrunc.doctor.machine import Machine
from pyrunc.doctor.users import user_name
from pyrunc.errors import PyruncError

CRIU_OLDEST = (3, 16)  # lsm_profile for restore
CRIU_SECONDS = 0.2
FEW_BYTES, FEW_INODES = 16 << 20, 1000
_VERSION = re.compile(r"^Version: (\d+)\.(\d+)", re.MULTILINE)


def check(machine: Machine) -> list[Area]:
    """State root and CRIU."""
    area = Area("storage")
    root = root_of(machine, area)
    if root:
        state_root(machine, area, root)
    criu(machine, area)
    return [area]


def root_of(machine: Machine, area: Area) -> str:
    """The state root, or "" if there is none."""
    try:
        return state.root_dir(machine.root_option)
    except PyruncError as error:
        mend = "export XDG_RUNTIME_DIR=/run/user/$(id -u)" if "XDG_RUNTIME_DIR" in str(error) else ""
        area.problem("state-root", str(error), "no container can be created or found", mend)
        return ""


def state_root(machine: Machine, area: Area, root: str) -> None:
    """Owner, mode, type and free space of the root; or whether it can be created."""
    try:
        found = os.lstat(machine.place(root))
    except (OSError, ValueError):
        missing_root(machine, area, root)
        return
    if not stat.S_ISDIR(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a directory"
        area.problem("state-root", f"{root} is {kind}", "every command fails", f"rm {quote(root)}")
        return
    if found.st_uid != machine.euid or found.st_mode & 0o022:
        seen = f"{root} belongs to uid {found.st_uid}, mode {found.st_mode & 0o7777:04o}"
        means = "every command refuses it: write access to it controls which processes are killed"
        area.problem("state-root", seen, means, f"chown {machine.euid} {quote(root)} && chmod 0700 {quote(root)}")
        return
    if not machine.access(root, os.W_OK):
        area.problem("state-root", f"{root} is not writable", "no container can be created", mount_of(machine, root))
        return
    area.ok("state-root", root)
    room(machine, area, root)
    lingering(machine, area, root)


def missing_root(machine: Machine, area: Area, root: str) -> None:
    """The nearest existing parent must be writable."""
    above = root
    while above not in ("", "/") and not machine.exists(above):
        above = above.rpartition("/")[0]
    if machine.access(above or "/", os.W_OK):
        area.ok("state-root", f"{root} will be created by the first create")
        lingering(machine, area, root)
    else:
        means = "it cannot be created, and neither can containers"
        area.problem(
            "state-root",
            f"{root} does not exist, and {above or '/'} is not writable",
            means,
            f"mkdir -m 0700 {quote(root)}",
        )


def mount_of(machine: Machine, path: str) -> str:
    """The command that remounts a path's mount writable."""
    best = "/"
    for fields in machine.mounts():
        if (path + "/").startswith(fields[4].rstrip("/") + "/"):
            best = max(best, fields[4], key=len)
    return f"mount -o remount,rw {quote(best)}"


def room(machine: Machine, area: Area, root: str) -> None:
    """Free bytes and inodes: a state takes a few KiB and half a dozen inodes."""
    try:
        found = os.statvfs(machine.place(root))
    except OSError:
        return
    if found.f_bavail * found.f_frsize < FEW_BYTES or (found.f_files and found.f_favail < FEW_INODES):
        seen = f"{found.f_bavail * found.f_frsize >> 20} MiB and {found.f_favail} inodes are free below {root}"
        area.note("room", seen, "create fails with ENOSPC when none are left", f"df {quote(root)}; df -i {quote(root)}")
    else:
        area.ok("room", f"{found.f_bavail * found.f_frsize >> 20} MiB are free below {root}")


def lingering(machine: Machine, area: Area, root: str) -> None:
    """systemd-logind removes /run/user/UID at the end of the last session of a user who does not
    linger."""
    if not root.startswith(f"/run/user/{machine.uid}/") or not machine.exists("/run/systemd/system"):
        return
    name = user_name(machine.uid)
    if not machine.exists(f"/var/lib/systemd/linger/{name}"):
        means = "the last session removes the state of containers, and systemd ends their processes"
        area.note("linger", f"{name} does not linger", means, f"loginctl enable-linger {quote(name)}")


# -- CRIU ------------------------------------------------------------------------------------------


def criu(machine: Machine, area: Area) -> None:
    """Whether CRIU is installed and new enough. Only `criu check`, which takes longer, tests
    this kernel."""
    path = machine.find("criu")
    if not path:
        area.ok("criu", "not installed: containers cannot be checkpointed")
        return
    try:
        version = criu_version(machine.place(path))
    except subprocess.TimeoutExpired:
        means = "this host is busy, or criu hangs"
        area.note("criu", f"{path} --version did not end within {CRIU_SECONDS} s", means, f"{path} --version")
        return
    if version is None:
        means = "containers cannot be checkpointed"
        area.problem("criu", f"{path} --version fails", means, f"{path} --version")
    elif version < CRIU_OLDEST:
        means = "checkpoints need 3.16 or later"
        area.note("criu", f"{path} is {version[0]}.{version[1]}", means, "apt-get install -t stable-backports criu")
    elif not machine.privileged:
        area.ok("criu", f"{path}, {version[0]}.{version[1]}; checkpoints need root")
    else:
        area.ok("criu", f"{path}, {version[0]}.{version[1]}; `criu check` tests it on this kernel")


def criu_version(path: str) -> tuple[int, int] | None:
    """The version that criu prints; None if it cannot be executed or prints something else.
    Raises TimeoutExpired."""
    try:
        done = subprocess.run(  # noqa: S603  # nosec B603  an absolute path in a directory of the system
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=CRIU_SECONDS,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            check=False,
        )
    except OSError:
        return None
    found = _VERSION.search(done.stdout[:4096].decode("ascii", "replace"))
    return (int(found[1]), int(found[2])) if found else None
