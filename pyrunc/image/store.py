"""The store of unpacked images: one directory per layer, by chain id, with overlayfs' own
whiteouts.

    STORE/layers/SHA256-HEX/diff     a layer, as an upper directory of overlayfs
    STORE/l/SHORT                    a link to it: many layers must fit into one page of mount options
    STORE/images/SHA256-HEX.json     a manifest: configuration and layers, written last
    STORE/refs/NAME.json             the user's reference, and a check that it is current (`run --image`)
    STORE/containers/TOKEN/          bundle of a container: config.json, rootfs, upper, work

A layer is unpacked onto a mounted overlay of the lower layers, so that the kernel creates the
whiteouts. Everything is renamed into place when it is complete and verified. The next process
removes what a killed one left.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pyrunc import fs, jsontext, state
from pyrunc.errors import SysError
from pyrunc.image import convert, identity, locate, unpack
from pyrunc.image.errors import Within
from pyrunc.image.layer import Applier, Totals, Warnings
from pyrunc.image.manifest import Image, Layer
from pyrunc.image.progress import Progress
from pyrunc.image.sources import Source
from pyrunc.image.tree import Tree
from pyrunc.native import mounts, namespaces
from pyrunc.spec.names import CLONE_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.image.descriptor import Document
    from pyrunc.spec.types import Config

_MS_REC_SLAVE = 1 << 14 | 1 << 19
_MNT_DETACH = 2
_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
SUBDIRECTORIES = ("layers", "l", "images", "refs", "containers")


class Store:
    """The store of one user, opened for changes. Raises SysError, PyruncError."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            os.makedirs(path, 0o700, exist_ok=True)
            self.fd = os.open(path, _DIR)
            for name in SUBDIRECTORIES:
                try:
                    os.mkdir(name, 0o700, dir_fd=self.fd)
                except FileExistsError:
                    pass
        except OSError as error:
            raise SysError("--store", "mkdir", error.errno or 0, value=path) from error
        locate.check(path, os.fstat(self.fd))

    @contextmanager
    def locked(self, *, exclusive: bool) -> Iterator[None]:
        """Prevent removals by holding the lock shared. Raises SysError."""
        fd = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            fs.close(fd)

    # -- layers ------------------------------------------------------------------------------------

    def pull(
        self, source: Source, image: Image, reference: str, options: unpack.Options, progress: Progress
    ) -> Warnings:
        """Unpack the missing layers, and register the image under a reference. Raises
        ImageError, SysError."""
        warnings = Warnings()
        ids = identity.enter(options.rootless, mounts=True)
        with self.locked(exclusive=False):
            self._private_mounts()
            missing = [layer for layer in image.layers if not self._has(layer)]
            source.prefetch([layer.blob for layer in missing])
            totals = Totals(options.limits)
            with Within(source.name), Within(f"manifest {image.manifest.short}"):
                for number, layer in enumerate(image.layers):
                    if layer in missing:
                        with Within(f"layer {number + 1} of {len(image.layers)} ({layer.blob.short})"):
                            self._unpack(source, image.layers[:number], layer, (totals, warnings, ids))
                    progress.advance(layer.blob.size)
                config = self._configuration(image, options, ids, warnings)
                unpack.check(config)
            self._register(image, config, reference)
        return warnings

    def _has(self, layer: Layer) -> bool:
        return fs.exists(f"{self.path}/layers/{locate.encode_digest(layer.chain_id)}/diff")

    def _private_mounts(self) -> None:
        """A private mount namespace, so that the overlays end with this process in any case."""
        try:
            namespaces.unshare(CLONE_FLAGS["mount"])
            mounts.mount(b"none", b"/", b"", _MS_REC_SLAVE, b"")
        except OSError as error:
            context = "a mount namespace to unpack layers in"
            raise SysError("--store", str(error.strerror), error.errno or 0).within(context) from error
        os.chdir(self.path)  # from here on, layers are named by their short links

    def _unpack(
        self, source: Source, lower: list[Layer], layer: Layer, work: tuple[Totals, Warnings, identity.Identity]
    ) -> None:
        """Unpack one layer on top of the lower ones. Raises ImageError, SysError, and then
        leaves nothing of it."""
        from pyrunc.image.blobs import LayerStream

        totals, warnings, ids = work
        partial = unpack.Partial(f"{self.path}/layers", locate.encode_digest(layer.chain_id))
        try:
            partial.make()
            os.mkdir("diff", 0o755, dir_fd=partial.fd)
            with self._mounted(partial, lower) as root:
                tree = Tree(root, totals.limits.depth)
                stream = LayerStream(layer, source.open(layer.blob), totals.limits)
                try:
                    Applier(tree, totals, warnings, owners=ids.owners, devices=ids.devices).apply(stream)
                finally:
                    stream.close()
                    tree.close()
            for leftover in ("work", "root"):
                if fs.exists(f"/proc/self/fd/{partial.fd}/{leftover}"):
                    fs.remove_tree(leftover, partial.fd)
            self._link(layer)
            self._commit(partial)
        except BaseException:
            partial.discard()
            raise
        finally:
            partial.close()

    def _commit(self, partial: unpack.Partial) -> None:
        """Rename the layer into place; another process may have created it first."""
        try:
            partial.commit()
        except SysError:
            if not fs.exists(f"{self.path}/layers/{partial.name}/diff"):
                raise
            partial.discard()

    @contextmanager
    def _mounted(self, partial: unpack.Partial, lower: list[Layer]) -> Iterator[int]:
        """A descriptor of the root for applying a layer: its own directory, above the lower
        layers."""
        if not lower:
            root = os.open("diff", _DIR, dir_fd=partial.fd)
            try:
                yield root
            finally:
                fs.close(root)
            return
        for name in ("work", "root"):
            os.mkdir(name, 0o700, dir_fd=partial.fd)
        base = f"layers/{partial.temporary}"
        data = locate.overlay_options([layer.chain_id for layer in lower], f"{base}/diff", f"{base}/work", prefix="l/")
        text = ",".join([*data, "redirect_dir=off", "metacopy=off"] if "userxattr" not in data else data)
        self._mount_overlay(f"{base}/root", text)
        try:
            root = os.open("root", _DIR, dir_fd=partial.fd)
            try:
                yield root
            finally:
                fs.close(root)
        finally:
            fs.ignore(mounts.unmount, fs.encode(f"{base}/root"), _MNT_DETACH)

    def _mount_overlay(self, place: str, options: str) -> None:
        """Mount an overlay of layers.  Raises SysError."""
        try:
            mounts.mount(b"overlay", fs.encode(place), b"overlay", 0, fs.encode(options))
        except OSError as error:
            number, context = error.errno or 0, "an overlay of the layers"
            raise SysError("--store", "mount", number, value=self.path).within(context) from error

    def _link(self, layer: Layer) -> None:
        """The short name of a layer."""
        target = f"../layers/{locate.encode_digest(layer.chain_id)}/diff"
        try:
            os.symlink(target, f"l/{locate.short(layer.chain_id)}", dir_fd=self.fd)
        except FileExistsError:
            pass

    # -- images ------------------------------------------------------------------------------------

    def _configuration(
        self, image: Image, options: unpack.Options, ids: identity.Identity, warnings: Warnings
    ) -> Config:
        """config.json for a container of the image; users by name come from all layers together."""
        root, mounted = f"{self.path}/l", False
        if len(image.layers) == 1:
            root = f"{self.path}/layers/{locate.encode_digest(image.chain_id)}/diff"
        elif image.layers:
            root, mounted = f"{self.path}/containers", True
            data = locate.overlay_options([layer.chain_id for layer in image.layers], "", "", prefix="l/")
            self._mount_overlay(root, ",".join(data))
        fd = os.open(root, _DIR)
        tree = Tree(fd, options.limits.depth)
        try:
            return convert.convert(image, tree, volumes=options.volumes, ids=ids, warnings=warnings)
        finally:
            tree.close()
            fs.close(fd)
            if mounted:
                fs.ignore(mounts.unmount, fs.encode(root), _MNT_DETACH)

    def _register(self, image: Image, config: Config, reference: str) -> None:
        """Write the image, then the reference to it."""
        name = f"{locate.encode_digest(image.manifest.digest)}.json"
        document = {
            "digest": image.manifest.digest,
            "chains": [layer.chain_id for layer in image.layers],
            "size": sum(layer.blob.size for layer in image.layers),
            "created": state.now(),
            "config": config,
        }
        fs.replace_file(f"{self.path}/images/{name}", jsontext.dumps(document).encode("ascii"))
        link = {"reference": reference, "digest": image.manifest.digest, "validator": locate.validator(reference)}
        fs.replace_file(f"{self.path}/refs/{locate.encode_reference(reference)}", jsontext.dumps(link).encode("ascii"))

    def documents(self, kind: str) -> Iterator[tuple[str, Document]]:
        """(file name, document) of all readable images or refs."""
        for name in sorted(os.listdir(f"{self.path}/{kind}")):
            if name.endswith(".json") and not name.startswith("."):
                try:
                    document = jsontext.loads(fs.read_file(f"{self.path}/{kind}/{name}"))
                except (OSError, ValueError):
                    continue
                if isinstance(document, dict):
                    yield name, document

    def list(self) -> list[Document]:
        """The images with their references, for `images list`."""
        names: dict[str, list[str]] = {}
        for _, ref in self.documents("refs"):
            names.setdefault(ref.get("digest", ""), []).append(ref.get("reference", ""))
        return [
            {
                "references": names.get(image["digest"], []),
                "digest": image["digest"],
                "layers": len(image["chains"]),
                "size": image["size"],
                "created": image["created"],
            }
            for _, image in self.documents("images")
        ]

    # -- pruning -----------------------------------------------------------------------------------

    def prune(self, *, everything: bool) -> dict[str, int]:
        """Remove bundles of deleted containers, leftovers, and layers that no image needs.

        ``everything``: also images that no container uses. Returns counts of removed objects.
        """
        counts = {"containers": 0, "images": 0, "layers": 0, "leftovers": 0}
        identity.enter(False, mounts=True)
        with self.locked(exclusive=True):
            needed: set[str] = set()
            for token in os.listdir(f"{self.path}/containers"):
                bundle = f"{self.path}/containers/{token}"
                if locate.is_used(bundle) or time.time() - os.stat(bundle).st_mtime < 60:
                    needed |= set(locate.chains_of(bundle))  # a recent one may belong to a `run` that has just started
                else:
                    counts["containers"] += self._remove("containers", token)
            if everything:
                for kind in ("refs", "images"):
                    for name, document in list(self.documents(kind)):
                        if kind == "images" and set(document.get("chains", [])) <= needed and document.get("chains"):
                            continue
                        os.unlink(f"{self.path}/{kind}/{name}")
                        counts["images"] += kind == "images"
            for _, document in self.documents("images"):
                needed |= set(document.get("chains", []))
            layers = os.open("layers", _DIR, dir_fd=self.fd)
            try:
                counts["leftovers"] = unpack.sweep(layers)
            finally:
                fs.close(layers)
            kept = {locate.encode_digest(chain) for chain in needed}
            for name in os.listdir(f"{self.path}/layers"):
                if name not in kept and not name.startswith("."):
                    counts["layers"] += self._remove("layers", name)
            for name in os.listdir(f"{self.path}/l"):
                if not fs.exists(f"{self.path}/l/{name}"):
                    os.unlink(f"{self.path}/l/{name}")
        return counts

    def _remove(self, kind: str, name: str) -> int:
        """Rename one directory away, then remove it."""
        above = os.open(kind, _DIR, dir_fd=self.fd)
        try:
            hidden = f"{unpack.PARTIAL}{name[-16:]}"
            os.rename(name, hidden, src_dir_fd=above, dst_dir_fd=above)
            fs.remove_tree(hidden, above)
            return 1
        except OSError:
            return 0
        finally:
            fs.close(above)

    def close(self) -> None:
        """Release the descriptor."""
        fs.close(self.fd)
