"""Unpack an image into a bundle; everything is verified before it becomes visible under its
name."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from dataclasses import dataclass, field

from pyrunc import fs
from pyrunc.errors import ConfigError, SysError, show
from pyrunc.image import convert, identity
from pyrunc.image.blobs import LayerStream
from pyrunc.image.errors import ImageError, Within
from pyrunc.image.layer import Applier, Totals, Warnings, write_all
from pyrunc.image.limits import Limits
from pyrunc.image.manifest import Image
from pyrunc.image.progress import Progress
from pyrunc.image.sources import Source
from pyrunc.image.tree import Tree
from pyrunc.jsontext import dumps
from pyrunc.spec import validate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.image.descriptor import Document
    from pyrunc.spec.types import Config

PARTIAL = ".pyrunc-unpack-"  # next to the bundle, until everything in it is verified
_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class Options:
    """The options for unpacking."""

    limits: Limits = field(default_factory=Limits)
    volumes: str = "tmpfs"
    rootless: bool = False  # use only the caller's own ids even if there are more


def unpack_layers(source: Source, image: Image, tree: Tree, applier: Applier, progress: Progress) -> None:
    """Apply all layers to one tree. A layer's stream starts while the previous layer is still being
    written.

    Raises ImageError naming the layer.
    """
    streams: list[LayerStream] = []
    source.prefetch([layer.blob for layer in image.layers])
    try:
        for number, layer in enumerate(image.layers):
            if not streams:
                streams.append(_open(source, image, number, applier.limits))
            stream = streams.pop()
            try:
                if number + 1 < len(image.layers):
                    streams.append(_open(source, image, number + 1, applier.limits))
                with Within(f"layer {number + 1} of {len(image.layers)} ({layer.blob.short})"):
                    applier.apply(stream)
                progress.advance(layer.blob.size)
            finally:
                stream.close()
    finally:
        for stream in streams:
            stream.close()


def _open(source: Source, image: Image, number: int, limits: Limits) -> LayerStream:
    layer = image.layers[number]
    with Within(f"layer {number + 1} of {len(image.layers)} ({layer.blob.short})"):
        return LayerStream(layer, source.open(layer.blob), limits)


def unpack(source: Source, image: Image, bundle: str, options: Options, progress: Progress) -> Document:
    """Write ``bundle``/rootfs and ``bundle``/config.json. Returns the output of `unpack`.

    The bundle must not exist, or must be an empty directory. Raises PyruncError, and then leaves
    nothing behind.
    """
    parent, name = os.path.split(os.path.abspath(bundle))
    partial = Partial(parent, name)
    try:
        ids = identity.enter(options.rootless)
        partial.make()
        with Within(source.name), Within(f"manifest {image.manifest.short}"):
            config, warnings = _fill(partial, source, image, ids, options, progress)
        partial.commit()
    except BaseException:
        partial.discard()
        raise
    finally:
        partial.close()
    return {
        "digest": image.manifest.digest,
        "chainID": image.chain_id,
        "config": config,
        "warnings": warnings.lines(),
    }


def _fill(
    partial: Partial, source: Source, image: Image, ids: identity.Identity, options: Options, progress: Progress
) -> tuple[Config, Warnings]:
    """Write the content of the bundle, under the partial name."""
    os.mkdir("rootfs", 0o755, dir_fd=partial.fd)
    root = os.open("rootfs", _DIR, dir_fd=partial.fd)
    warnings = Warnings()
    tree = Tree(root, options.limits.depth)
    try:
        os.fchmod(root, 0o755)  # for whatever user the program is  # nosec B103
        applier = Applier(tree, Totals(options.limits), warnings, owners=ids.owners, devices=ids.devices)
        unpack_layers(source, image, tree, applier, progress)
        if not image.layers:
            os.utime(root, (0, 0))
        config = convert.convert(image, tree, volumes=options.volumes, ids=ids, warnings=warnings)
        seed_volumes(tree, partial.fd, config)
    finally:
        tree.close()
        fs.close(root)
    check(config)
    fd = os.open("config.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=partial.fd)
    try:
        write_all(fd, (dumps(config, "\t") + "\n").encode("ascii"))
    finally:
        os.close(fd)
    return config, warnings


def check(config: Config) -> None:
    """Check that `create` accepts the config of `unpack`. Raises ImageError.

    It uses no facts of this host, because the bundle may run on another, and no program, which may
    be added later.
    """
    try:
        checked = json.loads(dumps(config))
        if not checked["process"]["args"]:
            checked["process"]["args"] = ["sh"]
        validate.check(checked)
    except ConfigError as error:
        raise ImageError(f"its configuration cannot be run: {error}") from error


def seed_volumes(tree: Tree, bundle_fd: int, config: Config) -> None:
    """Volumes that are directories of the bundle: the image's directory moves there, with its
    content.

    An empty one with the same owner and mode replaces it in the root filesystem.
    """
    binds = [entry for entry in config["mounts"] if entry["source"].startswith("volumes/")]
    if not binds:
        return
    os.mkdir("volumes", 0o755, dir_fd=bundle_fd)
    above = os.open("volumes", _DIR, dir_fd=bundle_fd)
    try:
        for entry in binds:
            number = entry["source"].rpartition("/")[2]
            parts = [part for part in entry["destination"].split("/") if part]
            directory = tree.lookup(parts)
            if directory.parent is None:
                raise ImageError(f"/config/Volumes: {show(entry['destination'])} is the root")
            found = os.stat(tree.fd(directory))
            parent_fd = tree.fd(directory.parent)
            name, parent = directory.name, directory.parent
            tree.forget(parent, name)
            os.rename(name, number, src_dir_fd=parent_fd, dst_dir_fd=above)
            os.mkdir(name, 0o700, dir_fd=parent_fd)
            os.chown(name, found.st_uid, found.st_gid, dir_fd=parent_fd, follow_symlinks=False)
            os.chmod(name, found.st_mode & 0o7777, dir_fd=parent_fd)
    finally:
        fs.close(above)


class Partial:
    """A directory in preparation: created next to its final place, locked, renamed at the end.

    The lock marks a directory in use; `sweep` removes those that a killed process left unlocked.
    """

    def __init__(self, parent: str, name: str) -> None:
        self.parent, self.name = parent, name
        self.temporary = f"{PARTIAL}{secrets.token_hex(8)}"
        self.fd = self.parent_fd = -1
        self.made = False

    def make(self) -> None:
        """Create the directory with mode 0700, because it may contain set-user-ID files. Raises
        SysError."""
        try:
            self.parent_fd = os.open(self.parent, _DIR)
            sweep(self.parent_fd)
            self._check_target()
            os.mkdir(self.temporary, 0o700, dir_fd=self.parent_fd)
            self.made = True
            self.fd = os.open(self.temporary, _DIR, dir_fd=self.parent_fd)
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SysError("BUNDLE", "mkdir", error.errno or 0, value=f"{self.parent}/{self.name}") from error

    def _check_target(self) -> None:
        try:
            fd = os.open(self.name, _DIR, dir_fd=self.parent_fd)
        except FileNotFoundError:
            return
        try:
            if os.listdir(fd):
                raise ImageError(f"{show(f'{self.parent}/{self.name}')} is not empty: name a new directory")
        finally:
            fs.close(fd)

    def commit(self) -> None:
        """Rename it into place. Raises SysError if the name has been taken meanwhile."""
        try:
            os.fsync(self.fd)
            os.rename(self.temporary, self.name, src_dir_fd=self.parent_fd, dst_dir_fd=self.parent_fd)
            self.made = False
        except OSError as error:
            raise SysError("BUNDLE", "rename", error.errno or 0, value=f"{self.parent}/{self.name}") from error

    def discard(self) -> None:
        """Remove the directory and its content."""
        if self.made:
            try:
                fs.remove_tree(self.temporary, self.parent_fd)
            except OSError:
                pass  # report the first error; the next sweep tries again
            self.made = False

    def close(self) -> None:
        """Release the descriptors, and with them the lock."""
        for fd in (self.fd, self.parent_fd):
            if fd >= 0:
                fs.close(fd)
        self.fd = self.parent_fd = -1


def sweep(parent_fd: int) -> int:
    """Remove directories that killed processes left; returns their number."""
    count = 0
    for name in os.listdir(parent_fd):
        if not name.startswith(PARTIAL):
            continue
        try:
            fd = os.open(name, _DIR, dir_fd=parent_fd)
        except OSError:
            continue  # gone, or not ours
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fs.remove_tree(name, parent_fd)
            count += 1
        except OSError:
            pass  # in use, or another user's
        finally:
            fs.close(fd)
    return count
