"""Apply a layer to a root filesystem (image-spec: layer.md, "Applying Changesets").

tarfile reads the archive and never extracts: its filters were bypassed repeatedly (CVE-2025-4517,
-4138, -4330), and they refuse devices, set-user-ID files and absolute links, which images need.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
import tarfile
from errno import EINVAL, ENODATA, ENOTSUP, EPERM
from typing import IO, cast

from pyrunc.errors import errno_text, show
from pyrunc.fs import salted
from pyrunc.image.blobs import LayerStream
from pyrunc.image.errors import ImageError
from pyrunc.image.limits import Limits
from pyrunc.image.tree import Directory, Tree

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
_BUFFER = 1 << 20
_SLACK = 2 * _BUFFER + 65536  # tarfile's stream may read this far beyond the requested headers
_SCHILY, _LIBARCHIVE = "SCHILY.xattr.", "LIBARCHIVE.xattr."

# Attributes that belong to a host or a mount, never to an image: a label belongs to the policy, an
# NFS ACL to the server, and overlayfs would interpret its own attributes as whiteouts and
# redirects.
_FOREIGN_XATTRS = (
    "security.selinux",
    "system.nfs4_acl",
    "trusted.overlay.",
    "user.overlay.",
    "security.ima",
    "security.evm",
)


class Warnings:
    """Requests of the image that could not be fulfilled; each kind is reported once, with its
    count."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add(self, text: str) -> None:
        """Count another warning of a kind."""
        self.counts[text] = self.counts.get(text, 0) + 1

    def lines(self) -> list[str]:
        """One line per kind."""
        return [f"{text} ({count} {'file' if count == 1 else 'files'})" for text, count in self.counts.items()]


class Totals:
    """How much of the limits all layers of an image have used."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.entries = 0
        self.bytes = 0

    def entry(self, size: int) -> None:
        """Count an entry with this many bytes of content. Raises ImageError."""
        self.entries += 1
        self.bytes += size
        if self.entries > self.limits.entries:
            raise ImageError(f"more than {self.limits.entries} entries (--limit entries=...)")
        if self.bytes > self.limits.bytes:
            raise ImageError(f"more than {self.limits.bytes} bytes of files (--limit bytes=...)")


class Applier:
    """Applies the layers of one image to one tree, in order. ``privileged``: may create devices
    and change owners."""

    def __init__(self, tree: Tree, totals: Totals, warnings: Warnings, *, owners: bool, devices: bool) -> None:
        self.tree, self.totals, self.warnings = tree, totals, warnings
        self.owners, self.devices = owners, devices
        self.limits = totals.limits

    def apply(self, stream: LayerStream) -> None:
        """Apply a layer and verify it. Raises ImageError naming the entry; the tree is then
        unusable."""
        stream.allowance = self.limits.header + _SLACK
        try:
            tar = tarfile.open(  # noqa: SIM115
                fileobj=cast("IO[bytes]", stream),
                mode="r|",
                bufsize=_BUFFER,
                errorlevel=2,
                encoding="utf-8",
                errors="surrogateescape",
            )
            with tar:
                self._entries(tar, stream)
        except tarfile.ReadError as error:
            if stream.delivered or str(error) != "empty file":
                raise ImageError(f"not a readable tar archive: {error}") from error
        except (tarfile.TarError, EOFError, UnicodeError, ValueError, OverflowError) as error:
            raise ImageError(f"not a readable tar archive: {error}") from error
        stream.finish()
        self.tree.end_layer()

    def _entries(self, tar: tarfile.TarFile, stream: LayerStream) -> None:
        while (entry := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every entry it has read
            name = entry.name
            try:
                stream.allowance = -1
                self._entry(tar, entry)
            except OSError as error:
                raise ImageError(errno_text(error.errno or 0), entry=name) from error
            except ImageError as error:
                raise error.within(f"entry {show(name)}") from error
            except tarfile.TarError as error:
                raise ImageError(f"not a readable tar archive: {error}", entry=name) from error
            # Skip the unread content of this entry; only headers may follow.
            rest = max(entry.size, 0) if not entry.isreg() else 0
            stream.allowance = stream.delivered + rest + self.limits.header + _SLACK

    def _entry(self, tar: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        self.totals.entry(entry.size if entry.isreg() else 0)
        parts = split(entry.name, self.limits)
        if not parts:
            if not entry.isdir():
                raise ImageError("the root of the image must be a directory")
            self._attributes(self.tree.root, ".", entry)
            self.tree.root.mtime = _times(entry)
            return
        name = parts[-1]
        if name.startswith(WHITEOUT):
            self._whiteout(parts)
            return
        parent = self.tree.lookup(parts[:-1])
        if entry.isdir():
            self._directory(parent, name, entry)
        elif entry.islnk():
            self._hard_link(parent, name, entry)
        else:
            self._other(tar, parent, name, entry)
        self.tree.mark(parent, name)

    # -- whiteouts ---------------------------------------------------------------------------------

    def _whiteout(self, parts: list[str]) -> None:
        """Remove entries of lower layers, but nothing that this layer created, in any order of
        entries."""
        name = parts[-1]
        if name == WHITEOUT:
            raise ImageError("a whiteout without a name")
        try:
            parent = self.tree.lookup(parts[:-1], make=False)
        except (FileNotFoundError, NotADirectoryError):
            return  # nothing to hide
        if name == OPAQUE:
            self.tree.clear_lower(parent)
            return
        hidden = name[len(WHITEOUT) :]
        if hidden in (".", ".."):
            raise ImageError("a whiteout of a directory by itself")
        if hidden.startswith(WHITEOUT):
            return  # aufs' own names (.wh..wh.plnk, .wh..wh.orph)
        if salted(hidden) not in parent.made:
            self.tree.remove(parent, hidden)
            return
        child = self.tree.child(parent, hidden)
        if child is not None:
            self.tree.clear_lower(child)

    # -- entry types
    # --------------------------------------------------------------------------------------

    def _directory(self, parent: Directory, name: str, entry: tarfile.TarInfo) -> None:
        """An existing directory keeps its content and gets new attributes; anything else is
        replaced."""
        fd = self.tree.fd(parent)
        child = parent.children.get(salted(name))
        if child is None:
            try:
                is_directory = stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
            except FileNotFoundError:
                is_directory = False
                self.tree.touch(parent)
            else:
                if not is_directory:
                    self.tree.remove(parent, name)
            if not is_directory:
                os.mkdir(name, 0o700, dir_fd=self.tree.fd(parent))
            child = parent.children[salted(name)] = Directory(name, parent)
            if child.depth() > self.tree.max_depth:
                raise ImageError(f"more than {self.tree.max_depth} nested directories (--limit depth=...)")
        self._attributes(parent, name, entry)
        child.mtime = _times(entry)

    def _hard_link(self, parent: Directory, name: str, entry: tarfile.TarInfo) -> None:
        """Another name for a file of this or a lower layer; the last component of its target is
        not followed."""
        target = split(entry.linkname, self.limits)
        if not target:
            raise ImageError("a hard link to the root")
        try:
            source = self.tree.lookup(target[:-1], make=False)
            source_fd = self.tree.fd(source)
            found = os.stat(target[-1], dir_fd=source_fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            raise ImageError(f"a hard link to {show(entry.linkname)}, which does not exist") from None
        if stat.S_ISDIR(found.st_mode):
            raise ImageError(f"a hard link to {show(entry.linkname)}, which is a directory")
        try:
            there = os.stat(name, dir_fd=self.tree.fd(parent), follow_symlinks=False)
        except FileNotFoundError:
            self.tree.touch(parent)
        else:
            if (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino):
                return  # it already exists, perhaps as the target itself
            self.tree.remove(parent, name)
        fd = self.tree.fd(parent)
        os.link(target[-1], name, src_dir_fd=self.tree.fd(source), dst_dir_fd=fd, follow_symlinks=False)

    def _other(self, tar: tarfile.TarFile, parent: Directory, name: str, entry: tarfile.TarInfo) -> None:
        """Everything except directories and hard links replaces an existing entry."""
        if not self.tree.remove(parent, name):
            self.tree.touch(parent)
        fd = self.tree.fd(parent)
        if entry.isreg():
            self._file(tar, parent, name, entry)
            return
        if entry.issym():
            if not entry.linkname or "\0" in entry.linkname:
                raise ImageError("a symbolic link without a target")
            os.symlink(entry.linkname, name, dir_fd=fd)
        elif entry.isfifo():
            os.mkfifo(name, 0o600, dir_fd=fd)
        elif entry.ischr() or entry.isblk():
            kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
            if not self.devices:
                # As in umoci: a placeholder that marks the place of a device and is unusable.
                self.warnings.add("device nodes are empty files of mode 0000: creating devices requires root")
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0, dir_fd=fd))
                return
            os.mknod(name, kind | 0o600, os.makedev(entry.devmajor, entry.devminor), dir_fd=fd)
        else:
            raise ImageError(f"unknown type {show(entry.type.decode('ascii', 'replace'))}")
        self._attributes(parent, name, entry)
        os.utime(name, ns=_times(entry), dir_fd=fd, follow_symlinks=False)

    def _file(self, tar: tarfile.TarFile, parent: Directory, name: str, entry: tarfile.TarInfo) -> None:
        """A regular file; a sparse one keeps its holes."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=self.tree.fd(parent))
        try:
            content = cast("IO[bytes]", tar.extractfile(entry))  # every regular file has content
            size = 0
            sparse = getattr(entry, "sparse", None) is not None
            while data := content.read(_BUFFER):
                if sparse and not data.strip(b"\0"):
                    os.lseek(fd, len(data), os.SEEK_CUR)
                else:
                    write_all(fd, data)
                size += len(data)
            if size != entry.size:
                raise ImageError(f"the archive ends after {size} of {entry.size} bytes")
            if sparse:
                os.ftruncate(fd, size)
            self._owner_and_mode(fd, entry)
            self._xattrs(fd, entry, clear=False)
            os.utime(fd, ns=_times(entry))
        finally:
            os.close(fd)

    # -- attributes --------------------------------------------------------------------------------

    def _owner_and_mode(self, fd: int, entry: tarfile.TarInfo) -> None:
        """chmod after chown, because chown(2) clears set-user-ID."""
        if self.owners:
            _check_ids(entry)
            os.fchown(fd, entry.uid, entry.gid)
        elif (entry.uid, entry.gid) != (0, 0):
            self.warnings.add("files of other users are owned by root: no subordinate ids")
        os.fchmod(fd, entry.mode & 0o7777)

    def _attributes(self, parent: Directory, name: str, entry: tarfile.TarInfo) -> None:
        """Owner, mode and extended attributes of anything but a regular file."""
        at = self.tree.fd(parent)
        if entry.isdir():
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            try:
                self._owner_and_mode(fd, entry)
                self._xattrs(fd, entry, clear=True)
            finally:
                os.close(fd)
            return
        if self.owners:
            _check_ids(entry)
            os.chown(name, entry.uid, entry.gid, dir_fd=at, follow_symlinks=False)
        elif (entry.uid, entry.gid) != (0, 0):
            self.warnings.add("files of other users are owned by root: no subordinate ids")
        if not entry.issym():
            os.chmod(name, entry.mode & 0o7777, dir_fd=at)  # just created: not a link, and only visible to us
        if xattrs(entry):
            # There is no *at form before Linux 6.13; an O_PATH descriptor of the file itself is
            # equivalent.
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            try:
                self._set_xattrs(f"/proc/self/fd/{fd}", entry)
            finally:
                os.close(fd)

    def _xattrs(self, fd: int, entry: tarfile.TarInfo, *, clear: bool) -> None:
        """Set the extended attributes of an entry; an existing directory loses those of the
        lower layers."""
        if clear:
            for name in os.listxattr(fd):
                if not name.startswith(_FOREIGN_XATTRS):
                    try:
                        os.removexattr(fd, name)
                    except OSError as error:
                        if error.errno not in (EPERM, ENODATA, ENOTSUP):
                            raise
        self._set_xattrs(fd, entry)

    def _set_xattrs(self, where: int | str, entry: tarfile.TarInfo) -> None:
        for name, value in xattrs(entry).items():
            if name.startswith(_FOREIGN_XATTRS):
                continue
            try:
                os.setxattr(where, name, value)
            except OSError as error:
                if error.errno not in (EPERM, ENOTSUP, EINVAL):
                    raise
                self.warnings.add(f"the extended attribute {show(name)} could not be set: {errno_text(error.errno)}")


def split(name: str, limits: Limits) -> list[str]:
    """The components of an entry's name, lexically clean; ``..`` stays inside the root. Raises
    ImageError."""
    if "\0" in name:
        raise ImageError("a name with a NUL byte")
    if len(name) > limits.name:
        raise ImageError(f"a name of more than {limits.name} bytes (--limit name=...)", entry=name[:64])
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if len(parts) > limits.depth:
        raise ImageError(f"more than {limits.depth} nested directories (--limit depth=...)")
    return parts


def xattrs(entry: tarfile.TarInfo) -> dict[str, bytes]:
    """The extended attributes in an entry's pax headers. Raises ImageError for invalid base64."""
    found = {}
    for key, text in entry.pax_headers.items():
        if key.startswith(_SCHILY):
            found[key[len(_SCHILY) :]] = text.encode("utf-8", "surrogateescape")
        elif key.startswith(_LIBARCHIVE):
            try:
                found.setdefault(
                    key[len(_LIBARCHIVE) :], base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
                )
            except (ValueError, binascii.Error):
                raise ImageError(f"the pax header {show(key)} is not base64") from None
    return found


def _times(entry: tarfile.TarInfo) -> tuple[int, int]:
    """(atime, mtime) in nanoseconds; the modification time replaces a missing access time.

    Parsed from the text of the pax header: a float lacks precision.
    """
    mtime = _nanoseconds(entry.pax_headers.get("mtime"), entry.mtime)
    return _nanoseconds(entry.pax_headers.get("atime"), mtime / 10**9) if "atime" in entry.pax_headers else mtime, mtime


def _nanoseconds(text: str | None, default: float) -> int:
    if text is not None:
        whole, _, fraction = text.partition(".")
        digits = whole.removeprefix("-")
        if digits.isascii() and digits.isdigit() and (not fraction or (fraction.isascii() and fraction.isdigit())):
            if len(digits) > 12:
                raise ImageError(f"a time of {show(text[:64])} seconds")
            part = int((fraction + "000000000")[:9])
            value = int(digits) * 10**9
            return -(value + part) if whole.startswith("-") else value + part
    if not -(2**40) < default < 2**40:
        raise ImageError(f"a time of {default} seconds")
    return int(default * 10**9)


def _check_ids(entry: tarfile.TarInfo) -> None:
    """chown(2) interprets -1 as "unchanged"."""
    if not (0 <= entry.uid < 0xFFFFFFFF and 0 <= entry.gid < 0xFFFFFFFF):
        raise ImageError(f"an owner of {entry.uid}:{entry.gid}")


def write_all(fd: int, data: bytes) -> None:
    """Write all of the data. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
