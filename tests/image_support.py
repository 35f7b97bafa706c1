"""Image layouts for tests, built from entries without any pyrunc code, so that the two do not share
mistakes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def entry(name: str, content: bytes | None = None, **attributes: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A tar entry: a regular file with ``content``, a directory if the name ends in /, or
    ``type``."""
    info = tarfile.TarInfo(name.rstrip("/") or name)
    info.mtime = 1_000_000_000
    if name.endswith("/"):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    for key, value in attributes.items():
        setattr(info, key, value)
    data = content or b""
    if info.type == tarfile.REGTYPE:
        info.size = len(data)
    return info, data


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


def tar(entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Layout:
    """An image layout in a directory, written step by step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.manifests: list[dict[str, Any]] = []

    def blob(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Store a blob; returns its descriptor."""
        (self.path / "blobs" / "sha256" / digest(data)[7:]).write_bytes(data)
        return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}

    def json(self, document: Any, media_type: str, **more: Any) -> dict[str, Any]:
        return self.blob(json.dumps(document).encode(), media_type, **more)

    def image(
        self, layers: list[bytes], config: dict[str, Any] | None = None, *, compress: str = "", **top: Any
    ) -> dict[str, Any]:
        """Store an image of uncompressed layer tars; returns its manifest's descriptor."""
        document = {
            "os": "linux",
            "architecture": "amd64",
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
            **top,
        }
        if compress == "gzip":
            blobs = [self.blob(gzip.compress(layer, 6, mtime=0), LAYER + "+gzip") for layer in layers]
        elif compress == "zstd":
            zstd = pytest.importorskip("backports.zstd")
            blobs = [self.blob(zstd.compress(layer), LAYER + "+zstd") for layer in layers]
        else:
            blobs = [self.blob(layer, LAYER) for layer in layers]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": self.json(document, CONFIG), "layers": blobs}
        return self.json(manifest, MANIFEST)

    def tag(self, descriptor: dict[str, Any], name: str = "") -> Layout:
        """Add a manifest to index.json."""
        if name:
            descriptor = {**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}}
        self.manifests.append(descriptor)
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests}
        (self.path / "index.json").write_text(json.dumps(index))
        return self
