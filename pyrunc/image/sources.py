"""Sources of images: an image layout, a tar of one, the output of `docker save` (registries:
registry.py).

A source lists the descriptors of its index and opens blobs by descriptor. It verifies nothing;
`manifest` and `blobs` compare the size and digest of everything they read.
"""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
from abc import ABC, abstractmethod
from typing import IO, Any, cast

from pyrunc.errors import ConfigError, errno_text, show
from pyrunc.fs import salted
from pyrunc.image import descriptor
from pyrunc.image.descriptor import Descriptor, digest_of
from pyrunc.image.errors import ImageError, Within
from pyrunc.spec import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.image.descriptor import Document

LAYOUT_VERSION = "1.0.0"  # image-layout.md, "oci-layout file"
MAX_LAYERS = 512  # overlayfs and all engines have lower limits


class Source(ABC):
    """An image, or several under one name."""

    name = ""  # the user's spelling, for messages
    tag = ""  # selects one of several images; "" if the user named none

    @abstractmethod
    def index(self) -> list[Descriptor]:
        """The descriptors to choose from, in index order. Raises ImageError."""

    @abstractmethod
    def open(self, wanted: Descriptor) -> IO[bytes]:
        """The content of a blob as an unverified stream. Raises ImageError if it is missing."""

    def prefetch(self, wanted: list[Descriptor]) -> None:  # noqa: B027  # most sources have everything at hand
        """The order in which blobs will be opened."""

    def close(self) -> None:  # noqa: B027  # most sources hold nothing open
        """Release descriptors and connections."""


def read_json(stream: IO[bytes], what: str, limit: int = descriptor.MAX_DOCUMENT) -> Any:  # as load.parse_json
    """A JSON document of bounded size.  Raises ImageError."""
    data = stream.read(limit + 1)
    if len(data) > limit:
        raise ImageError(f"{what}: larger than {limit >> 20} MiB")
    return parse_json(data, what)


def parse_json(data: bytes, what: str) -> Any:  # as load.parse_json
    """Parse strict JSON, as for config.json: two parsers that disagree about a document would run
    different images.

    Raises ImageError.
    """
    try:
        return load.parse_json(data, what)
    except ConfigError as error:
        raise ImageError(str(error)) from error


def check_layout(document: Document) -> None:
    """Check that the oci-layout file names the only existing version. Raises ImageError."""
    version = document.get("imageLayoutVersion") if isinstance(document, dict) else None
    if version != LAYOUT_VERSION:
        raise ImageError(f"oci-layout: expected imageLayoutVersion {show(LAYOUT_VERSION)}, found {show(version)}")


def parse_index(document: Document, what: str) -> list[Descriptor]:
    """The manifests of an image index.  Raises ImageError.

    An index that also has ``layers`` or ``config`` could be read as a manifest (CVE-2021-41190).
    """
    if not isinstance(document, dict) or document.get("schemaVersion") != 2:
        raise ImageError(f"{what}: expected an image index with schemaVersion 2")
    if "layers" in document or "config" in document:
        raise ImageError(f"{what}: an image index must not have layers or config (CVE-2021-41190)")
    listed = document.get("manifests")
    if not isinstance(listed, list):
        raise ImageError(f"{what}: /manifests: expected an array, found {show(listed)}")
    with Within(what):
        if document.get("subject") is not None:
            descriptor.parse(document["subject"], "/subject")
        return [descriptor.parse(entry, f"/manifests/{number}") for number, entry in enumerate(listed)]


class LayoutDirectory(Source):
    """An image layout in a directory (image-layout.md)."""

    def __init__(self, path: str, tag: str) -> None:
        self.name, self.tag = path + (f":{tag}" if tag else ""), tag
        self.path = os.path.abspath(path)  # the working directory changes while a layer is unpacked into the store

    def _open(self, name: str) -> IO[bytes]:
        try:
            # Without O_NONBLOCK, a fifo in a layout would block us forever.
            fd = os.open(os.path.join(self.path, name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ImageError(f"{show(name)}: {errno_text(error.errno or 0)}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ImageError(f"{show(name)}: not a regular file")
        return open(fd, "rb")

    def index(self) -> list[Descriptor]:
        with self._open("oci-layout") as stream:
            check_layout(read_json(stream, "oci-layout"))
        with self._open("index.json") as stream:
            return parse_index(read_json(stream, "index.json"), "index.json")

    def open(self, wanted: Descriptor) -> IO[bytes]:
        algorithm, _, encoded = descriptor.check_digest(wanted.digest).partition(":")
        return self._open(f"blobs/{algorithm}/{encoded}")


class _Archive(Source):
    """Members of an uncompressed tar file by name; only regular files count."""

    def __init__(self, path: str, tag: str) -> None:
        self.name, self.path, self.tag = path + (f":{tag}" if tag else ""), path, tag
        self.members: dict[str, tarfile.TarInfo] = {}  # by salted name
        try:
            self.tar = tarfile.open(path, "r:", errorlevel=2)  # noqa: SIM115  # closed by close()
            self._scan()
        except (OSError, tarfile.TarError, EOFError) as error:
            number = error.errno if isinstance(error, OSError) else None
            text = errno_text(number) if number else str(error) or "truncated"
            raise ImageError(f"not a readable tar archive: {text}").within(self.name) from error

    def _scan(self) -> None:
        for count, entry in enumerate(self.tar):
            if count > 100_000:
                raise ImageError("more than 100,000 entries").within(self.name)
            if entry.isreg() or entry.issym() or entry.islnk():
                self.members[salted(os.path.normpath(entry.name).lstrip("/"))] = entry
            self.tar.members = []  # type: ignore[attr-defined]  # the list would hold every entry a second time

    def stream(self, name: str) -> IO[bytes]:
        """The content of a member; old versions of `docker save` use links between layers."""
        for _ in range(8):
            entry = self.members.get(salted(os.path.normpath(name)))
            if entry is None:
                raise ImageError(f"no {show(name)} in the archive")
            if entry.isreg():
                return cast("IO[bytes]", self.tar.extractfile(entry))  # every regular file has content
            name = entry.linkname if entry.islnk() else os.path.join(os.path.dirname(entry.name), entry.linkname)
        raise ImageError(f"{show(name)}: too many links in the archive")

    def close(self) -> None:
        self.tar.close()


class LayoutArchive(_Archive):
    """An image layout in a tar file."""

    def index(self) -> list[Descriptor]:
        check_layout(read_json(self.stream("oci-layout"), "oci-layout"))
        return parse_index(read_json(self.stream("index.json"), "index.json"), "index.json")

    def open(self, wanted: Descriptor) -> IO[bytes]:
        algorithm, _, encoded = descriptor.check_digest(wanted.digest).partition(":")
        return self.stream(f"blobs/{algorithm}/{encoded}")


class DockerArchive(_Archive):
    """The output of `docker save` without an image layout: manifest.json, a configuration and layer
    tars.

    The format has no digests of layers, so the manifest is built here. Layers are still verified,
    because the configuration's diff_ids are digests of the uncompressed layers.
    """

    def __init__(self, path: str, tag: str) -> None:
        super().__init__(path, tag)
        self.blobs: dict[str, tuple[str, bytes | None]] = {}  # digest -> (member, content)

    def index(self) -> list[Descriptor]:
        listed = read_json(self.stream("manifest.json"), "manifest.json")
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise ImageError("manifest.json: expected an array of objects")
        found: list[Descriptor] = []
        for number, entry in enumerate(listed):
            with Within(f"manifest.json: /{number}"):
                manifest = self._manifest(entry)
            for tag in entry.get("RepoTags") or [""]:
                found.append(self._descriptor(manifest, str(tag)))
        return found

    def _manifest(self, entry: Document) -> bytes:
        config, layers = entry.get("Config"), entry.get("Layers")
        if not isinstance(config, str) or not isinstance(layers, list) or len(layers) > MAX_LAYERS:
            raise ImageError(f"expected a Config and at most {MAX_LAYERS} Layers")
        data = self.stream(config).read(descriptor.MAX_DOCUMENT + 1)
        document = parse_json(data, config)
        ids = (document.get("rootfs") or {}).get("diff_ids") if isinstance(document, dict) else None
        if not isinstance(ids, list) or len(ids) != len(layers):
            raise ImageError(f"{show(config)}: expected {len(layers)} rootfs.diff_ids, one for each layer")
        self.blobs[digest_of(data)] = (config, data)
        described = []
        for name, diff_id in zip(layers, ids, strict=True):
            digest = descriptor.check_digest(diff_id, "diff_ids")
            if not isinstance(name, str):
                raise ImageError(f"Layers: expected names, found {show(name)}")
            member = self.members.get(salted(os.path.normpath(name)))
            self.blobs[digest] = (name, None)
            described.append(
                {
                    "mediaType": descriptor.DOCKER + "image.rootfs.diff.tar",
                    "digest": digest,
                    "size": member.size if member is not None and member.isreg() else -1,
                }
            )
            if described[-1]["size"] == -1:
                with self.stream(name) as stream:
                    described[-1]["size"] = stream.seek(0, os.SEEK_END)
        manifest = {
            "schemaVersion": 2,
            "mediaType": descriptor.MANIFESTS[1],
            "config": {"mediaType": descriptor.CONFIGS[1], "digest": digest_of(data), "size": len(data)},
            "layers": described,
        }
        return json.dumps(manifest).encode()

    def _descriptor(self, manifest: bytes, tag: str) -> Descriptor:
        digest = digest_of(manifest)
        self.blobs[digest] = ("manifest", manifest)
        annotations = {"org.opencontainers.image.ref.name": tag} if tag else {}
        return Descriptor(descriptor.MANIFESTS[1], digest, len(manifest), manifest, annotations=annotations)

    def open(self, wanted: Descriptor) -> IO[bytes]:
        name, content = self.blobs.get(wanted.digest, ("", None))
        if content is not None:
            return io.BytesIO(content)
        if not name:
            raise ImageError(f"{wanted.digest}: not in the archive")
        return self.stream(name)
