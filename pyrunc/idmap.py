"""The host side of id mappings: the maps of a user namespace, and idmapped mounts.

Only imported for a container that has one of these.
"""

from __future__ import annotations

import posix
from errno import EINVAL, ENOSPC, ENOSYS, EPERM
from posix import O_CLOEXEC, O_WRONLY

from pyrunc import fs, mountinfo, procfs
from pyrunc.errors import ConfigError, Problem, PyruncError, SysError
from pyrunc.native import mounts, namespaces
from pyrunc.spec import mappings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrunc.host import HostFacts
    from pyrunc.spec.types import Config, IdMapping, Linux, Mount

# The directories of the setuid helpers. PATH is not searched: the caller controls it (as in
# CVE-2018-6556).
HELPER_DIRS = ("/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin")
HELPER_ENV = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
HELPER_TIMEOUT = 10  # seconds; the helpers query NSS

_STAGES = {1: "clone", 2: "write", 3: "write", 4: "open"}
_MS_FLAGS = {1: 1 << 20, 2: 1 << 19, 3: 1 << 18, 4: 1 << 17}  # MS_* of a propagation nibble (plan.mounts)


# -- the container's user namespace ----------------------------------------------------------------


def write_maps(pid: int, linux: Linux, facts: HostFacts) -> None:
    """Write setgroups, gid_map and uid_map of a process that has just created its user namespace.

    Root writes them directly. For a user who maps more than a single id, newuidmap and newgidmap
    do, which check /etc/subuid and /etc/subgid. Raises SysError, and PyruncError if the helper is
    missing or refuses; both name the field.
    """
    for kind, wanted in (("gid", linux["gidMappings"]), ("uid", linux["uidMappings"])):
        pointer = f"/linux/{kind}Mappings"
        if facts.euid == 0 or is_self(wanted, posix.geteuid() if kind == "uid" else posix.getegid()):
            if kind == "gid" and facts.euid != 0:
                # Dropping a group could grant access that membership denies, so the kernel requires
                # this before an unprivileged gid_map (CVE-2014-8989).
                _write(pid, "setgroups", "deny", pointer)
            _write(pid, f"{kind}_map", mappings.text(wanted), pointer)
        else:
            _call_helper(f"new{kind}map", pid, wanted, pointer)


def is_self(wanted: Sequence[IdMapping], own: int) -> bool:
    """Whether a user may write the map without a helper: it maps the user's id and no other."""
    return mappings.is_single(wanted) and wanted[0]["hostID"] == own


def _write(pid: int, file: str, text: str, pointer: str) -> None:
    path = f"/proc/{pid}/{file}"
    try:
        fd = posix.open(path, O_WRONLY | O_CLOEXEC)
        try:
            posix.write(fd, text.encode("ascii"))
        finally:
            posix.close(fd)
    except OSError as error:
        hint = ""
        if error.errno == EPERM:
            hint = "the ids must be mapped in the user namespace that pyrunc itself runs in (/proc/self/uid_map)"
        value = text.strip().replace("\n", ", ")
        raise SysError(pointer, "write", error.errno or 0, value=value, hint=hint).within(file) from error


def _call_helper(name: str, pid: int, wanted: Sequence[IdMapping], pointer: str) -> None:
    path = next((f"{place}/{name}" for place in HELPER_DIRS if fs.exists(f"{place}/{name}")), "")
    if not path:
        raise PyruncError(
            f"{pointer}: mapping more than your own id needs {name}, which is not in {', '.join(HELPER_DIRS)};"
            " install the package uidmap (or shadow-utils)"
        )
    words = [path, str(pid)]
    for entry in wanted:
        words += [str(entry["containerID"]), str(entry["hostID"]), str(entry["size"])]
    from pyrunc import hooks

    try:
        hooks.run_program(pointer, {"path": path, "args": words, "env": HELPER_ENV, "timeout": HELPER_TIMEOUT})
    except hooks.HookError as error:
        file = "/etc/subuid" if name == "newuidmap" else "/etc/subgid"
        raise PyruncError(f"{error}; {file} must have a line that gives uid {posix.geteuid()} these ids") from error


def map_of(pid: int, kind: str) -> list[IdMapping]:
    """The ``uid`` or ``gid`` mappings of the user namespace of a process.  Raises SysError."""
    path = f"/proc/{pid}/{kind}_map"
    try:
        content = fs.read_file(path, 65536)
    except OSError as error:
        raise SysError("/linux/namespaces", "open", error.errno or 0, value=path) from error
    return mappings.parse(content.decode("ascii"))


def check_joined(pid: int, linux: Linux) -> None:
    """Check mappings in a config that joins a user namespace by path: they must be the namespace's.

    CRI engines send them. ``pid`` is a process in the namespace. Raises ConfigError, SysError.
    """
    problems = []
    for kind, wanted in (("uid", linux.get("uidMappings")), ("gid", linux.get("gidMappings"))):
        if not wanted:
            continue
        found = map_of(pid, kind)
        if mappings.merged(found) != mappings.merged(wanted):
            expected = f"the mappings of the user namespace that is joined ({_in_a_line(found) or 'none'})"
            problems.append(Problem(f"/linux/{kind}Mappings", expected, _in_a_line(wanted)))
    if problems:
        raise ConfigError(problems)


def _in_a_line(entries: Sequence[IdMapping]) -> str:
    return mappings.text(entries).strip().replace("\n", ", ")


# -- idmapped mounts -------------------------------------------------------------------------------


def open_mount(config: Config, source: str, origin: str) -> int:
    """A detached, idmapped clone of the source of a bind mount; ``origin`` is its JSON pointer.

    The mappings are the mount's, or else the container's, which come from config.json or from the
    user namespace that it joins. Raises SysError, which names the field.
    """
    mount = config["mounts"][int(origin.rpartition("/")[2])]
    linux: Linux = config.get("linux", {})
    holder = mount if mount.get("uidMappings") else linux
    options = mount.get("options", ())
    try:
        tree = mounts.open_tree(fs.encode(source), "rbind" in options)
    except OSError as error:
        raise SysError(f"{origin}/source", "open_tree", error.errno or 0, value=source) from error
    try:
        _propagate(tree, linux, origin)
        if holder.get("uidMappings"):
            userns = _namespace(holder, origin if holder is mount else "/linux")
        else:
            userns = _joined(linux)
        try:
            mounts.map_ids(tree, "ridmap" in options, userns)
        except OSError as error:
            raise _refused(origin, source, error.errno or 0, mount) from error
        finally:
            posix.close(userns)
    except BaseException:
        posix.close(tree)
        raise
    return tree


def _propagate(tree: int, linux: Linux, origin: str) -> None:
    """Set the propagation of the clone: later mounts in the container must not reach the host."""
    from pyrunc.plan import userns

    nibbles = userns.clone_propagation(linux.get("rootfsPropagation", ""))
    while nibbles:
        try:
            mounts.set_propagation(tree, _MS_FLAGS[nibbles & 7])
        except OSError as error:
            raise SysError(origin, "mount_setattr", error.errno or 0).within("propagation") from error
        nibbles >>= 4


def _namespace(holder: Linux | Mount, pointer: str) -> int:
    """A user namespace with the mappings of a mount or of the container, for mount_setattr(2)."""
    texts = [mappings.text(holder[field]).encode("ascii") for field in ("uidMappings", "gidMappings")]
    try:
        return namespaces.user_namespace(texts[0], texts[1])
    except OSError as error:
        stage, number = str(error.strerror), error.errno or 0
        field = {"uid_map": "/uidMappings", "gid_map": "/gidMappings"}.get(stage, "")
        call = "write" if field else stage
        hint = "/proc/sys/user/max_user_namespaces is reached" if number == ENOSPC else ""
        context = "user namespace for the mapping"
        raise SysError(pointer + field, call, number, hint=hint).within(context) from error


def _joined(linux: Linux) -> int:
    """The user namespace that the container joins. mount_setattr(2) refuses any other file."""
    for index, entry in enumerate(linux.get("namespaces", ())):
        if entry["type"] == "user":
            return procfs.open_namespace(entry["path"], f"/linux/namespaces/{index}/path")
    raise PyruncError("an idmapped mount without a mapping")  # refused by spec.rules_userns


def _refused(origin: str, source: str, number: int, mount: Mount) -> SysError:
    """The error of a mount that could not be idmapped: its destination, the filesystem, and why."""
    detail = hint = ""
    if number == EINVAL:
        detail = "this filesystem does not support idmapped mounts on this kernel"
    elif number == EPERM:
        detail = "an idmapped mount needs CAP_SYS_ADMIN in the user namespace that mounted the filesystem,"
        detail += " and a mount that is not idmapped already"
    elif number == ENOSYS:
        hint = "idmapped mounts need Linux 5.12"
    error = SysError(origin, "mount_setattr", number, value=source, detail=detail, hint=hint)
    return error.within(f"{mount['destination']}, filesystem {_filesystem(source)}")


def _filesystem(path: str) -> str:
    """The type of the filesystem of a path, "?" if unknown."""
    try:
        fd = posix.open(path, posix.O_PATH | O_CLOEXEC)
        try:
            wanted = fs.mount_id(fd)
        finally:
            posix.close(fd)
        return next((mount.type for mount in mountinfo.read() if mount.id == wanted), "?")
    except OSError:
        return "?"
