"""Content descriptors and digests (image-spec: descriptor.md, media-types.md)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from pyrunc.errors import show
from pyrunc.image.errors import ImageError

Document = dict[str, Any]  # JSON from outside: whoever reads a member checks its type

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."
INDEXES = (OCI + "index.v1+json", DOCKER + "distribution.manifest.list.v2+json")
MANIFESTS = (OCI + "manifest.v1+json", DOCKER + "distribution.manifest.v2+json")
CONFIGS = (OCI + "config.v1+json", DOCKER + "container.image.v1+json")
EMPTY = "application/vnd.oci.empty.v1+json"

# Media type of a layer -> compression.
LAYERS = {
    OCI + "layer.v1.tar": "",
    OCI + "layer.v1.tar+gzip": "gzip",
    OCI + "layer.v1.tar+zstd": "zstd",
    OCI + "layer.nondistributable.v1.tar": "",
    OCI + "layer.nondistributable.v1.tar+gzip": "gzip",
    OCI + "layer.nondistributable.v1.tar+zstd": "zstd",
    DOCKER + "image.rootfs.diff.tar": "",
    DOCKER + "image.rootfs.diff.tar.gzip": "gzip",
    DOCKER + "image.rootfs.diff.tar.zstd": "zstd",
    DOCKER + "image.rootfs.foreign.diff.tar.gzip": "gzip",
}

# descriptor.md, "Digests": the grammar, and the registered algorithms with their encoded lengths.
_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_ALGORITHMS = {"sha256": 64, "sha512": 128}
# RFC 6838, section 4.2.
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MEDIA_TYPE = re.compile(f"{_NAME}/{_NAME}")
_HEX = re.compile(r"[0-9a-f]+")

MAX_DOCUMENT = 4 << 20  # bytes of a manifest, an index or a configuration; registries accept no more (distribution)


def check_digest(text: object, what: str = "digest") -> str:
    """Check a digest before it becomes part of a path. Raises ImageError if it is malformed or
    its algorithm unknown."""
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise ImageError(f"{what}: expected ALGORITHM:ENCODED, found {show(text)}")
    algorithm, _, encoded = text.partition(":")
    length = _ALGORITHMS.get(algorithm)
    if length is None:
        raise ImageError(f"{what}: unsupported algorithm {show(algorithm)} (supported: {', '.join(_ALGORITHMS)})")
    if len(encoded) != length or not _HEX.fullmatch(encoded):
        raise ImageError(
            f"{what}: expected {length} lower-case hexadecimal digits after {algorithm}:, found {show(text)}"
        )
    return text


def check_media_type(text: object, what: str) -> str:
    """Check that ``text`` is TYPE/SUBTYPE. Raises ImageError."""
    if not isinstance(text, str) or not _MEDIA_TYPE.fullmatch(text):
        raise ImageError(f"{what}: expected a media type, found {show(text)}")
    return text


def hasher(digest: str) -> hashlib._Hash:
    """A hashlib object for the algorithm of a checked digest."""
    return hashlib.new(digest.partition(":")[0])


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """The digest of some bytes, ``sha256:...``."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Platform:
    """The platform of an image, in GOOS and GOARCH names."""

    os: str
    architecture: str
    variant: str = ""

    def accepts(self, found: Document) -> bool:
        """Whether an image for a descriptor's platform object can run here.

        arm64 without a variant is v8 (image-index.md, "Platform Variants").
        """
        if found.get("os") != self.os or found.get("architecture") != self.architecture:
            return False
        theirs, ours = found.get("variant") or "", self.variant
        if self.architecture == "arm64":
            theirs, ours = theirs or "v8", ours or "v8"
        return theirs == ours or not theirs

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A typed, sized and hashed reference to a blob."""

    media_type: str
    digest: str
    size: int
    data: bytes | None = None  # embedded content, verified when read
    platform: Document = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    artifact_type: str = ""

    @property
    def tag(self) -> str:
        """org.opencontainers.image.ref.name, defined only in an image layout's index.json."""
        return self.annotations.get("org.opencontainers.image.ref.name", "")

    @property
    def short(self) -> str:
        """The digest, shortened for messages."""
        return self.digest[: self.digest.index(":") + 13]


def parse(entry: object, pointer: str) -> Descriptor:
    """Read a descriptor from a parsed JSON document; ``pointer`` is its position. Raises
    ImageError."""
    if not isinstance(entry, dict):
        raise ImageError(f"{pointer}: expected a descriptor, found {show(entry)}")
    media_type, size = check_media_type(entry.get("mediaType"), f"{pointer}/mediaType"), entry.get("size")
    digest = check_digest(entry.get("digest"), f"{pointer}/digest")
    if type(size) is not int or size < 0:
        raise ImageError(f"{pointer}/size: expected a number of bytes, found {show(size)}")
    platform, annotations = entry.get("platform") or {}, entry.get("annotations") or {}
    if not isinstance(platform, dict):
        raise ImageError(f"{pointer}/platform: expected an object, found {show(platform)}")
    for key in ("os", "architecture") if platform else ():
        if not isinstance(platform.get(key), str):
            raise ImageError(f"{pointer}/platform/{key}: expected a string, found {show(platform.get(key))}")
    if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
        raise ImageError(f"{pointer}/annotations: expected an object of strings")
    artifact_type = entry.get("artifactType") or ""
    if artifact_type:
        check_media_type(artifact_type, f"{pointer}/artifactType")
    return Descriptor(
        media_type, digest, size, _embedded(entry.get("data"), pointer), platform, annotations, artifact_type
    )


def _embedded(text: object, pointer: str) -> bytes | None:
    if text is None:
        return None
    try:
        if not isinstance(text, str):
            raise ValueError
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise ImageError(f"{pointer}/data: expected base64 (RFC 4648)") from None


def verify(data: bytes, descriptor: Descriptor) -> bytes:
    """Return ``data`` if its size and digest match its descriptor. Raises ImageError."""
    if len(data) != descriptor.size:
        raise ImageError(f"{descriptor.digest}: expected {descriptor.size} bytes, found {len(data)}")
    check = hasher(descriptor.digest)
    check.update(data)
    found = f"{descriptor.digest.partition(':')[0]}:{check.hexdigest()}"
    if found != descriptor.digest:
        raise ImageError(f"{descriptor.digest}: the content has the digest {found}")
    return data
