"""From a source to one image: index, platform, manifest and configuration, each verified before
use."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pyrunc.errors import show
from pyrunc.image import descriptor, sources
from pyrunc.image.descriptor import Descriptor, Platform
from pyrunc.image.errors import ImageError, Within
from pyrunc.image.sources import MAX_LAYERS, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.image.descriptor import Document

MAX_NESTING = 8  # nesting of indexes; image-index.md allows nesting and sets no limit

_MACHINES = {"x86_64": ("amd64", ""), "aarch64": ("arm64", "v8")}


def host_platform() -> Platform:
    """The platform of this machine."""
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


def parse_platform(text: str) -> Platform:
    """``OS/ARCHITECTURE[/VARIANT]``.  Raises ImageError."""
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise ImageError(f"--platform {show(text)}: expected OS/ARCHITECTURE[/VARIANT], for example linux/arm64/v8")
    return Platform(*parts)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer: its blob, the digest of the uncompressed tar, and the chain id (config.md, "Layer
    ChainID")."""

    blob: Descriptor
    diff_id: str
    chain_id: str
    compression: str


@dataclass(frozen=True, slots=True)
class Image:
    """A verified manifest and configuration. The layers are verified when they are read."""

    manifest: Descriptor
    config: Document
    layers: list[Layer]

    @property
    def chain_id(self) -> str:
        """Identifies the root filesystem; "" without layers."""
        return self.layers[-1].chain_id if self.layers else ""


def read_blob(source: Source, wanted: Descriptor) -> bytes:
    """Read and verify a small document. Raises ImageError."""
    if wanted.size > descriptor.MAX_DOCUMENT:
        raise ImageError(f"{wanted.digest}: {wanted.size} bytes; expected a document of at most 4 MiB")
    if wanted.data is not None:
        return descriptor.verify(wanted.data, wanted)
    with source.open(wanted) as stream:
        return descriptor.verify(stream.read(wanted.size + 1), wanted)


def resolve(source: Source, platform: Platform, *, force: bool = False) -> Image:
    """The image of a source for a platform. ``force`` accepts another platform.

    Raises ImageError naming the image and the faulty blob.
    """
    with Within(source.name):
        found = _choose_manifest(source, _select(source.index(), source.tag), platform, ())
        with Within(f"manifest {found.short}"):
            return _image(source, found, platform, force)


def _select(listed: list[Descriptor], tag: str) -> list[Descriptor]:
    """The entries of a layout's index for a tag; without a tag, the only image."""
    tags = [entry.tag for entry in listed]
    if tag:
        chosen = [entry for entry in listed if tag in (entry.tag, entry.tag.rpartition(":")[2])]
        if not chosen:
            raise ImageError(f"no image {show(tag)}; tags: {', '.join(filter(None, tags)) or 'none'}")
        exact = [entry for entry in chosen if entry.tag == tag]
        return exact or chosen
    if len({entry.digest for entry in listed}) > 1 and len(set(tags)) > 1:
        raise ImageError(f"several images; name one of the tags {', '.join(filter(None, tags))}")
    return listed


def _choose_manifest(
    source: Source, listed: list[Descriptor], platform: Platform, trail: tuple[str, ...]
) -> Descriptor:
    """The first manifest for the platform (image-index.md: use the first match).

    Unknown media types must not be an error, so they are skipped.
    """
    offered = []
    for entry in listed:
        if entry.platform and not platform.accepts(entry.platform):
            offered.append("/".join(str(entry.platform.get(k)) for k in ("os", "architecture")))
            continue
        if entry.media_type in descriptor.MANIFESTS:
            return entry
        if entry.media_type in descriptor.INDEXES:
            if entry.digest in trail or len(trail) >= MAX_NESTING:
                raise ImageError(
                    f"index {entry.short}: indexes are nested more than {MAX_NESTING} deep, or in a circle"
                )
            what = f"index {entry.short}"
            document = sources.parse_json(read_blob(source, entry), what)
            _check_media_type(document, entry, what)
            try:
                return _choose_manifest(source, sources.parse_index(document, what), platform, (*trail, entry.digest))
            except _NoPlatform as error:
                offered += error.offered
            continue
        offered.append(entry.media_type)
    raise _NoPlatform(platform, offered)


class _NoPlatform(ImageError):
    """The error for an index without a matching manifest."""

    def __init__(self, platform: Platform, offered: list[str]) -> None:
        self.offered = offered
        seen = ", ".join(sorted(set(offered))[:16]) or "nothing"
        super().__init__(f"no image for {platform} (offered: {seen}); --platform chooses another one")


def _check_media_type(document: Document, wanted: Descriptor, what: str) -> None:
    """CVE-2021-41190: a document's own media type, if present, must match its descriptor."""
    if not isinstance(document, dict):
        raise ImageError(f"{what}: expected an object")
    said = document.get("mediaType")
    if said is not None and said != wanted.media_type:
        raise ImageError(f"{what}: mediaType is {show(said)}, and its descriptor says {show(wanted.media_type)}")


def _image(source: Source, found: Descriptor, platform: Platform, force: bool) -> Image:
    config_blob, blobs = parse_manifest(sources.parse_json(read_blob(source, found), "manifest"), found)
    with Within(f"config {config_blob.short}"):
        config = sources.parse_json(read_blob(source, config_blob), "configuration")
        layers = pair_layers(blobs, config)
        check_platform(config, platform, force)
    return Image(found, config, layers)


def parse_manifest(document: Document, found: Descriptor) -> tuple[Descriptor, list[Descriptor]]:
    """The configuration and the layers of an image manifest with the descriptor ``found``.

    Raises ImageError, also for the manifest of another kind of artifact.
    """
    _check_media_type(document, found, "manifest")
    if document.get("schemaVersion") != 2:
        raise ImageError(f"/schemaVersion: expected 2, found {show(document.get('schemaVersion'))}")
    if "manifests" in document:
        raise ImageError("a manifest must not have manifests (CVE-2021-41190)")
    if document.get("subject") is not None:
        descriptor.parse(document["subject"], "/subject")
    config_blob = descriptor.parse(document.get("config"), "/config")
    if document.get("artifactType") or config_blob.media_type not in descriptor.CONFIGS:
        kind = document.get("artifactType") or config_blob.media_type
        raise ImageError(f"an artifact of the type {show(kind)}, not an image that can run")
    listed = document.get("layers")
    if not isinstance(listed, list) or len(listed) > MAX_LAYERS:
        raise ImageError(f"/layers: expected an array of at most {MAX_LAYERS} descriptors")
    return config_blob, [descriptor.parse(entry, f"/layers/{number}") for number, entry in enumerate(listed)]


def pair_layers(blobs: list[Descriptor], config: Document) -> list[Layer]:
    """Pair the blobs with the configuration's diff_ids, and chain them.  Raises ImageError."""
    rootfs = config.get("rootfs") if isinstance(config, dict) else None
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
        raise ImageError('/rootfs/type: expected "layers"')
    ids = rootfs.get("diff_ids") or []
    if not isinstance(ids, list) or len(ids) != len(blobs):
        count = len(ids) if isinstance(ids, list) else show(ids)
        raise ImageError(f"/rootfs/diff_ids: expected {len(blobs)}, one for each layer of the manifest, found {count}")
    layers: list[Layer] = []
    for number, (blob, diff_id) in enumerate(zip(blobs, ids, strict=True)):
        descriptor.check_digest(diff_id, f"/rootfs/diff_ids/{number}")
        compression = descriptor.LAYERS.get(blob.media_type)
        if compression is None:
            raise ImageError(f"layer {blob.short}: unsupported media type {show(blob.media_type)}")
        chain = diff_id
        if layers:
            chain = descriptor.digest_of(f"{layers[-1].chain_id} {diff_id}".encode())
        layers.append(Layer(blob, diff_id, chain, compression))
    return layers


def check_platform(config: Document, platform: Platform, force: bool) -> None:
    """Check that an image is for a platform; ``force`` checks only the types. Raises ImageError."""
    said = {key: config.get(key) for key in ("os", "architecture", "variant")}
    for key in ("os", "architecture"):
        if not isinstance(said[key], str):
            raise ImageError(f"/{key}: expected a string, found {show(said[key])}")
    if not force and not platform.accepts(said):
        raise ImageError(f"an image for {said['os']}/{said['architecture']}, not for {platform} (--force unpacks it)")
