"""The mounts of a container that CRIU must not dump, and their replacements at a restore.

CRIU identifies such a mount by a name. The names are those of crun: the destination, for masked
files as well. `restore` also accepts runc's name for all masked files, "/dev/null", and crun's name
for all masked directories.

At a restore CRIU binds a bind mount of the source that already has the flags ("staged"), not the
source itself. CRIU 4.1 does not set the flags of a mount if another mount of the same filesystem
has the same ones: one of two read-only binds of a filesystem became writable.
"""

from __future__ import annotations

import posix
from bisect import bisect_left, bisect_right
from errno import EINVAL

from pyrunc import fs, mountinfo
from pyrunc.checkpoint import rootfs
from pyrunc.errors import PyruncError, SysError
from pyrunc.native import mounts as native
from pyrunc.plan.devices import DEFAULTS
from pyrunc.plan.mount_options import IMPLIED, NODEV, NOEXEC, NOSUID, NOSYMFOLLOW, RDONLY, Flags, clean
from pyrunc.spec.mappings import is_idmapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.host import HostFacts
    from pyrunc.spec.types import Config, Linux, Mount

_MS_BIND, _MS_REC, _MS_REMOUNT = 0x1000, 0x4000, 0x20
_MNT_DETACH = 2
_NULL = "/dev/null"
_NOTIFY = "/run/notify"
_EMPTY = ".empty-directory"  # in crun's state root; crun masks directories with it


class External:
    """``ext_mnt`` of a request: the last value for each name.

    The names are salted, because they come from the configuration and from the mounts of the
    container (docs/adr/0014-json-reader.md).
    """

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, str]] = {}

    def __setitem__(self, name: str, value: str) -> None:
        self.entries[fs.salted(name)] = {"key": name, "val": value}

    def drop(self, name: str) -> None:
        """Remove a name if it is there."""
        self.entries.pop(fs.salted(name), None)

    def request(self) -> list[dict[str, str]]:
        """The field of the request."""
        return list(self.entries.values())


class Mounts:
    """The external mounts of one configuration."""

    __slots__ = ("bundle", "config", "linux", "tmpfs")

    def __init__(self, config: Config, bundle: str) -> None:
        self.config, self.bundle = config, bundle
        self.linux: Linux = config.get("linux", {})
        mounts = config.get("mounts") or ()
        tmpfs = [mount["destination"] for mount in mounts if mount.get("type") == "tmpfs"]
        self.tmpfs = outermost([clean(destination) for destination in tmpfs])

    def namespace(self, kind: str) -> bool:
        """Whether the container has a namespace of this kind, new or joined by path."""
        return any(entry.get("type") == kind for entry in self.linux.get("namespaces") or ())

    def binds(self) -> list[tuple[int, str, str, Flags]]:
        """(index, destination, source, options) of each bind mount."""
        out = []
        for index, mount in enumerate(self.config.get("mounts") or ()):
            flags = Flags(options(mount))
            if is_bind(mount) and not flags.remount:
                source = mount["source"]
                source = source if source.startswith("/") else f"{self.bundle}/{source}"
                out.append((index, clean(mount["destination"]), source, flags))
        return out

    def hierarchies(self) -> list[str]:
        """Destinations at which the cgroup hierarchy is bound (docs/adr/0008-cgroup2-bind.md)."""
        if self.namespace("cgroup"):
            return []
        mounts = self.config.get("mounts") or ()
        return [clean(mount["destination"]) for mount in mounts if mount.get("type") in ("cgroup", "cgroup2")]

    def nodes(self) -> list[str]:
        """Device nodes that may be bind mounts: in a user namespace all are, because mknod(2) is
        refused."""
        listed = [clean(entry["path"]) for entry in self.linux.get("devices") or ()]
        if self.namespace("user"):
            listed += [path for path, _, _ in DEFAULTS if path not in listed]
        return listed

    def dumped(self, root: int, pid: int) -> list[dict[str, str]]:
        """ext_mnt for a dump; ``root`` is the root of the running container, and ``pid`` its first
        process.

        Raises SysError.
        """
        out = External()
        recursive: list[str] = []
        try:
            for _, destination, _, flags in self.binds():
                at = rootfs.resolved(root, destination)
                out[at] = at
                if flags.recursive:
                    recursive.append(at)
            tops = outermost(recursive)
            for mounted in mountinfo.read(pid):
                if below(mounted.point, tops):
                    out[mounted.point] = mounted.point
            for mount in self.config.get("mounts") or ():  # mounts inside a bind that are not the host's
                if not is_bind(mount):
                    out.drop(clean(mount["destination"]))
            for path in (*self.hierarchies(), *self.nodes(), _NOTIFY):
                out[path] = path
            for path in self.linux.get("maskedPaths") or ():
                if rootfs.kind(root, path) == "file":
                    at = rootfs.resolved(root, path)
                    out[at] = at
        except OSError as error:
            raise SysError("/mounts", "open", error.errno or 0) from error
        return out.request()

    def restored(self, root: int, stage: str, facts: HostFacts, notify: str) -> list[dict[str, str]]:
        """ext_mnt for a restore, after `make_places`, in our private mount namespace. Raises
        SysError.

        ``stage`` is a directory for the binds that CRIU binds from; ``notify`` is the directory of
        the container's sd_notify socket.
        """
        out = External()
        null = staged(stage, "null", _NULL, "/linux/maskedPaths", 0)
        remount(null, RDONLY | NOSUID | NOEXEC)
        out[_NULL], out[_NOTIFY] = null, staged(stage, "notify", notify, "(NOTIFY_SOCKET)", 0)
        empty = f"{stage}/empty"
        posix.mkdir(empty, 0o555)
        mount_empty(empty)
        for place in ("/run/crun", stage.rpartition("/")[0].rpartition("/")[0]):
            out[f"{place}/{_EMPTY}"] = empty
        for path in self.nodes():
            out[path] = path
        for path in self.linux.get("maskedPaths") or ():
            out[rootfs.resolved(root, path)] = null
        for path in self.hierarchies():
            out[path] = facts.cgroup2_mount
        try:
            self.stage_binds(root, stage, facts, out)
        except OSError as error:
            raise SysError("/proc/self/mountinfo", "read", error.errno or 0) from error
        return out.request()

    def stage_binds(self, root: int, stage: str, facts: HostFacts, out: External) -> None:
        """Stage the bind mounts, and add them to ``out`` in their order. Raises SysError, OSError.

        The table of mounts is read once before them and once after, however many they are.
        """
        host_mounts = None if self.namespace("user") else HostMounts()
        found: list[tuple[str, str, str, bool]] = []
        for index, destination, source, flags in self.binds():
            try:
                at = rootfs.resolved(root, destination)
            except OSError as error:
                raise SysError(f"/mounts/{index}/destination", "open", error.errno or 0, value=destination) from error
            pointer = f"/mounts/{index}/source"
            place = within = ""
            if host_mounts is not None:
                place, within = surrounded(host_mounts, f"{stage}/{index}", source, pointer)
            if not place:
                place = staged(stage, str(index), source, pointer, _MS_REC if flags.recursive else 0)
            found.append((at, place, within, flags.recursive and not within))
            flags.change(facts, replace=False)
            if flags.named:
                remount(place, flags.set & IMPLIED | attributes(place) & IMPLIED & ~(flags.clr | flags.implied))
        deeper = submounts(stage) if any(recursive for _, _, _, recursive in found) else {}
        for at, place, within, recursive in found:
            out[at] = place + within
            for path in deeper.get(place, ()) if recursive else ():
                out[at.rstrip("/") + path] = place + path

    # -- restore: places to mount on ---------------------------------------------------------------

    def make_places(self, root: int, scratch: str) -> None:
        """Create the missing mount points below the root filesystem, as `create` does. Raises
        PyruncError, OSError.

        Bind mounts are set up on the way, because a later destination may be inside one. This
        happens in a private mount namespace and in a copy of the root filesystem's mount at
        ``scratch``, a new directory. The copy is detached afterwards with everything in it, because
        CRIU creates its own mounts.
        """
        posix.mkdir(scratch, 0o700)
        bind("/root/path", f"/proc/self/fd/{root}", fs.encode(scratch), _MS_REC)
        try:
            top = rootfs.open_root(scratch)
            try:
                self.make_each_place(top)
            finally:
                fs.close(top)
        finally:
            fs.ignore(native.unmount, fs.encode(scratch), _MNT_DETACH)
            fs.ignore(posix.rmdir, scratch)

    def make_each_place(self, root: int) -> None:
        """`make_places` in the copy, which ``root`` is the root of."""
        binds = {index: source for index, _, source, _ in self.binds()}
        for index, mount in enumerate(self.config.get("mounts") or ()):
            destination = clean(mount["destination"])
            if index not in binds and (mount.get("type") in ("cgroup", "cgroup2") or Flags(options(mount)).remount):
                continue
            if not self.below_tmpfs(destination):  # CRIU restores its content
                self.make_place(root, index, destination, binds.get(index, ""))

    def make_place(self, root: int, index: int, destination: str, source: str) -> None:
        """Create one mount point; with ``source``, bind it there."""
        pointer = f"/mounts/{index}"
        try:
            make = "file" if source and not is_directory(source) else "dir"
        except OSError as error:
            raise SysError(f"{pointer}/source", "stat", error.errno or 0, value=source) from error
        try:
            with rootfs.Walk(root, make) as walk:
                walk.go(destination)
                if source:
                    bind(f"{pointer}/source", source, fs.encode(f"/proc/self/fd/{walk.fd}"), _MS_REC)
        except OSError as error:
            raise SysError(f"{pointer}/destination", "open", error.errno or EINVAL, value=destination) from error

    def below_tmpfs(self, path: str) -> bool:
        """Whether a path is inside a tmpfs from the configuration."""
        return below(path, self.tmpfs)

    # -- refusals ----------------------------------------------------------------------------------

    def refuse(self) -> None:
        """Raises PyruncError for mounts that CRIU cannot restore unchanged."""
        for index, mount in enumerate(self.config.get("mounts") or ()):
            if is_idmapped(mount):
                raise PyruncError(f"/mounts/{index}: CRIU cannot restore an id-mapped mount")
        if not self.namespace("mount"):
            raise PyruncError("/linux/namespaces: CRIU needs a mount namespace of the container's own")
        namespaces = self.linux.get("namespaces") or ()
        for index, entry in enumerate(namespaces):
            if entry.get("type") == "cgroup" and entry.get("path"):
                raise PyruncError(f"/linux/namespaces/{index}: CRIU cannot restore into an existing cgroup namespace")
        own_network = any(entry.get("type") == "network" and not entry.get("path") for entry in namespaces)
        if self.linux.get("netDevices") and own_network:
            raise PyruncError(
                "/linux/netDevices: CRIU cannot restore a device that was moved into the container's own network"
                " namespace; use a namespace by path"
            )
        from pyrunc.plan.security import notifies

        profile = self.linux.get("seccomp")
        if profile and notifies(profile):
            raise PyruncError("/linux/seccomp: CRIU cannot restore a filter that asks an agent (SCMP_ACT_NOTIFY)")


def options(mount: Mount) -> list[str]:
    """The options of a mount entry."""
    return mount.get("options", [])


def is_bind(mount: Mount) -> bool:
    """Whether an entry of /mounts is a bind mount."""
    return mount.get("type") == "bind" or Flags(options(mount)).bind


def submounts(stage: str) -> dict[str, list[str]]:
    """The mounts below each staged bind, relative to it.  Raises OSError."""
    found: dict[str, list[str]] = {}
    for point in (mount.point for mount in mountinfo.read()):
        if point.startswith(stage + "/"):
            name, slash, path = point[len(stage) + 1 :].partition("/")
            if slash:
                found.setdefault(f"{stage}/{name}", []).append(slash + path)
    return found


def outermost(paths: list[str]) -> list[str]:
    """Sorted prefixes of what is below the paths, without those inside another one: for `below`."""
    out: list[str] = []
    for prefix in sorted(path.rstrip("/") + "/" for path in paths):
        if not out or not prefix.startswith(out[-1]):
            out.append(prefix)
    return out


def below(path: str, prefixes: list[str]) -> bool:
    """Whether a path is below one of the paths of `outermost`."""
    index = bisect_right(prefixes, path)
    return index > 0 and path.startswith(prefixes[index - 1])


class HostMounts:
    """The mounts of our namespace, as they were before anything was staged.  Raises OSError."""

    __slots__ = ("by_id", "points")

    def __init__(self) -> None:
        self.by_id = {mount.id: mount for mount in mountinfo.read()}
        self.points = sorted(mount.point for mount in self.by_id.values())

    def any_below(self, path: str) -> bool:
        """Whether there is a mount below a path."""
        index = bisect_left(self.points, path + "/")
        return index < len(self.points) and self.points[index].startswith(path + "/")


def bind(pointer: str, source: str, target: bytes, flags: int) -> None:
    """Create a bind mount. Raises SysError."""
    try:
        native.mount(fs.encode(source), target, b"", _MS_BIND | flags, b"")
    except OSError as error:
        raise SysError(pointer, "mount", error.errno or 0, value=source) from error


def mount_empty(path: str) -> None:
    """Mount an empty filesystem on a directory: the one that the directory is in is unbindable
    (nest.py). Raises SysError."""
    try:
        native.mount(b"none", fs.encode(path), b"tmpfs", RDONLY | NOSUID | NODEV | NOEXEC, b"mode=0555")
    except OSError as error:
        raise SysError("/linux/maskedPaths", "mount", error.errno or 0, value=path) from error


def staged(stage: str, name: str, source: str, pointer: str, flags: int) -> str:
    """Bind ``source`` in the staging directory; returns the path. Raises SysError."""
    path = f"{stage}/{name}"
    try:
        if is_directory(source):
            posix.mkdir(path, 0o700)
        else:
            fs.write_new(path, b"")
    except OSError as error:
        raise SysError(pointer, "stat", error.errno or 0, value=source) from error
    bind(pointer, source, fs.encode(path), flags)
    return path


def surrounded(host_mounts: HostMounts, place: str, source: str, pointer: str) -> tuple[str, str]:
    """Bind the mount that contains ``source`` at ``place``; returns that, and the path of the
    source in it.

    CRIU copies the master of all slave mounts of a peer group from the mount that contains the
    source of one of them. The root of this mount must contain theirs (kernel: do_set_group).
    Returns empty strings if that does not matter: the mount is private, the source is all of it, or
    there are other mounts below. Raises SysError.
    """
    try:
        fd = posix.open(source, posix.O_PATH | posix.O_CLOEXEC)
    except OSError:
        return "", ""  # `staged` fails with the reason
    try:
        path, found = posix.readlink(f"/proc/self/fd/{fd}"), posix.fstat(fd)
        mount = host_mounts.by_id.get(fs.mount_id(fd))
        point = mount.point.rstrip("/") if mount else path
        if mount is None or mount.private or not path.startswith(point + "/") or host_mounts.any_below(path):
            return "", ""
        within = path[len(point) :]
        posix.mkdir(place, 0o700)
        bind(pointer, point or "/", fs.encode(place), 0)
        again = posix.stat(place + within)
        if (again.st_dev, again.st_ino) == (found.st_dev, found.st_ino):
            return place, within
        native.unmount(fs.encode(place), _MNT_DETACH)  # another mount hides this one
        posix.rmdir(place)
        return "", ""
    except OSError as error:
        raise SysError(pointer, "open", error.errno or 0, value=source) from error
    finally:
        fs.close(fd)


# mount_setattr(2) -> mount(2) and statvfs(3); the first four have the same value in each
_PLAIN = RDONLY | NOSUID | NODEV | NOEXEC
_MS_NOSYMFOLLOW, _ST_NOSYMFOLLOW = 0x100, 0x2000


def remount(path: str, attributes: int) -> None:
    """Give a mount these attributes and no others.  Raises SysError."""
    flags = attributes & _PLAIN | (_MS_NOSYMFOLLOW if attributes & NOSYMFOLLOW else 0)
    try:
        native.mount(b"none", fs.encode(path), b"", _MS_BIND | _MS_REMOUNT | flags, b"")
    except OSError as error:
        raise SysError(path, "mount", error.errno or 0) from error


def attributes(path: str) -> int:
    """The attributes of a mount.  Raises OSError."""
    found = posix.statvfs(path).f_flag
    return found & _PLAIN | (NOSYMFOLLOW if found & _ST_NOSYMFOLLOW else 0)


def is_directory(path: str) -> bool:
    """Whether a path is a directory.  Raises OSError."""
    return posix.stat(path).st_mode & 0o170000 == 0o040000
