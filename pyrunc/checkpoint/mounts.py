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
from errno import EINVAL

from pyrunc import fs, host
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
_MOUNTINFO = 64 << 20  # its largest size
_NULL = "/dev/null"
_NOTIFY = "/run/notify"
_EMPTY = ".empty-directory"  # in crun's state root; crun masks directories with it


class Mounts:
    """The external mounts of one configuration."""

    __slots__ = ("bundle", "config", "linux")

    def __init__(self, config: Config, bundle: str) -> None:
        self.config, self.bundle = config, bundle
        self.linux: Linux = config.get("linux", {})

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

    def dumped(self, root: int, mountinfo: str) -> list[dict[str, str]]:
        """ext_mnt for a dump; ``root`` is the root of the running container, and the file lists its
        mounts.

        Raises SysError.
        """
        out: dict[str, str] = {}
        try:
            points = mount_points(mountinfo)
            for _, destination, _, flags in self.binds():
                at = rootfs.resolved(root, destination)
                out[at] = at
                if flags.recursive:
                    out |= {point: point for point in points if point.startswith(at.rstrip("/") + "/")}
            for mount in self.config.get("mounts") or ():  # mounts inside a bind that are not the host's
                if not is_bind(mount):
                    out.pop(clean(mount["destination"]), None)
            for path in (*self.hierarchies(), *self.nodes(), _NOTIFY):
                out[path] = path
            for path in self.linux.get("maskedPaths") or ():
                if rootfs.kind(root, path) == "file":
                    at = rootfs.resolved(root, path)
                    out[at] = at
        except OSError as error:
            raise SysError("/mounts", "open", error.errno or 0) from error
        return [{"key": key, "val": value} for key, value in out.items()]

    def restored(self, root: int, stage: str, facts: HostFacts, notify: str) -> list[dict[str, str]]:
        """ext_mnt for a restore, after `make_places`, in our private mount namespace. Raises
        SysError.

        ``stage`` is a directory for the binds that CRIU binds from; ``notify`` is the directory of
        the container's sd_notify socket.
        """
        null = staged(stage, "null", _NULL, "/linux/maskedPaths", 0)
        remount(null, RDONLY | NOSUID | NOEXEC)
        out = {_NULL: null, _NOTIFY: staged(stage, "notify", notify, "(NOTIFY_SOCKET)", 0)}
        empty = f"{stage}/empty"
        posix.mkdir(empty, 0o555)
        bind("/linux/maskedPaths", empty, fs.encode(empty), 0)
        remount(empty, RDONLY | NOSUID | NODEV | NOEXEC)
        out |= {f"{place}/{_EMPTY}": empty for place in ("/run/crun", stage.rpartition("/")[0].rpartition("/")[0])}
        out |= {path: path for path in self.nodes()}
        out |= {rootfs.resolved(root, path): null for path in self.linux.get("maskedPaths") or ()}
        for path in self.hierarchies():
            out[path] = facts.cgroup2_mount
        for index, destination, source, flags in self.binds():
            try:
                at = rootfs.resolved(root, destination)
            except OSError as error:
                raise SysError(f"/mounts/{index}/destination", "open", error.errno or 0, value=destination) from error
            pointer = f"/mounts/{index}/source"
            place, within = ("", "") if self.namespace("user") else surrounded(stage, str(index), source, pointer)
            if not place:
                place = staged(stage, str(index), source, pointer, _MS_REC if flags.recursive else 0)
            out[at] = place + within
            if flags.recursive and not within:
                points = mount_points("/proc/self/mountinfo")
                below = [point[len(place) :] for point in points if point.startswith(place + "/")]
                out |= {at.rstrip("/") + path: place + path for path in below}
            flags.change(facts, replace=False)
            if flags.named:
                remount(place, flags.set & IMPLIED | attributes(place) & IMPLIED & ~(flags.clr | flags.implied))
        return [{"key": key, "val": value} for key, value in out.items()]

    # -- restore: places to mount on ---------------------------------------------------------------

    def make_places(self, root: int) -> None:
        """Create the missing mount points below the root filesystem, as `create` does. Raises
        PyruncError.

        Bind mounts are set up on the way, because a later destination may be inside one. This
        happens in a private mount namespace. They are removed afterwards, because CRIU creates its
        own.
        """
        made: list[int] = []
        binds = {index: source for index, _, source, _ in self.binds()}
        try:
            for index, mount in enumerate(self.config.get("mounts") or ()):
                destination = clean(mount["destination"])
                if index not in binds and (mount.get("type") in ("cgroup", "cgroup2") or Flags(options(mount)).remount):
                    continue
                if self.below_tmpfs(destination):
                    continue  # CRIU restores its content
                made += self.make_place(root, index, destination, binds.get(index, ""))
        finally:
            while made:
                fd = made.pop()
                fs.ignore(native.unmount, fs.encode(f"/proc/self/fd/{fd}"), _MNT_DETACH)
                fs.close(fd)

    def make_place(self, root: int, index: int, destination: str, source: str) -> list[int]:
        """Create one mount point; with ``source``, bind it there and return the descriptor of the
        mount point."""
        pointer = f"/mounts/{index}"
        try:
            make = "file" if source and not is_directory(source) else "dir"
        except OSError as error:
            raise SysError(f"{pointer}/source", "stat", error.errno or 0, value=source) from error
        try:
            with rootfs.Walk(root, make) as walk:
                walk.go(destination)
                if not source:
                    return []
                place = fs.encode(f"/proc/self/fd/{walk.fd}")
                bind(f"{pointer}/source", source, place, _MS_REC)
            with rootfs.Walk(root) as walk:
                return [posix.dup(walk.go(destination).fd)]
        except OSError as error:
            raise SysError(f"{pointer}/destination", "open", error.errno or EINVAL, value=destination) from error

    def below_tmpfs(self, path: str) -> bool:
        """Whether a path is inside a tmpfs from the configuration."""
        mounts = self.config.get("mounts") or ()
        return any(
            mount.get("type") == "tmpfs" and path.startswith(clean(mount["destination"]).rstrip("/") + "/")
            for mount in mounts
        )

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


def mount_table(mountinfo: str) -> list[list[bytes]]:
    """The fields of each line of a mountinfo file (proc_pid_mountinfo(5)).  Raises OSError."""
    lines = fs.read_file(mountinfo, _MOUNTINFO).split(b"\n")
    return [fields for line in lines if len(fields := line.split(b" ")) > 5]


def mount_points(mountinfo: str) -> list[str]:
    """The mount points of a mountinfo file.  Raises OSError."""
    return [host.unescape(fields[4]) for fields in mount_table(mountinfo)]


def bind(pointer: str, source: str, target: bytes, flags: int) -> None:
    """Create a bind mount. Raises SysError."""
    try:
        native.mount(fs.encode(source), target, b"", _MS_BIND | flags, b"")
    except OSError as error:
        raise SysError(pointer, "mount", error.errno or 0, value=source) from error


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


def surrounded(stage: str, name: str, source: str, pointer: str) -> tuple[str, str]:
    """Bind the mount that contains ``source``; returns the bind, and the path of the source in it.

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
        known = b"%d" % fs.mount_id(fd)
        path, found = posix.readlink(f"/proc/self/fd/{fd}"), posix.fstat(fd)
        table = mount_table("/proc/self/mountinfo")
        fields = next((fields for fields in table if fields[0] == known), [])
        point = host.unescape(fields[4]).rstrip("/") if fields else path
        below = any(host.unescape(other[4]).startswith(path + "/") for other in table)
        if fields[6:7] in ([], [b"-"]) or not path.startswith(point + "/") or below:
            return "", ""
        place, within = f"{stage}/{name}", path[len(point) :]
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
