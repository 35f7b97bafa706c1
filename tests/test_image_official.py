"""image-spec's own examples and the samples of its schemas: which ones are accepted and which are
rejected."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema
import pytest
import referencing

from official import find
from pyrunc.image import convert, descriptor, manifest, sources
from pyrunc.image.descriptor import Descriptor
from pyrunc.image.errors import ImageError
from pyrunc.image.identity import Identity
from pyrunc.image.layer import Warnings
from pyrunc.image.tree import Tree

SPEC, MISSING = find("github.com/opencontainers/image-spec@v1.1.1", "h1:y0fUlFfIZhPF1W537XOLg0/fcx6zcHCJwooC2xJA040=")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "-")

LAYOUT, DESCRIPTOR = "application/vnd.oci.layout.header.v1+json", "application/vnd.oci.descriptor.v1+json"
INDEX, MANIFEST, CONFIG = descriptor.INDEXES[0], descriptor.MANIFESTS[0], descriptor.CONFIGS[0]
SCHEMAS = {
    LAYOUT: "image-layout-schema.json",
    DESCRIPTOR: "content-descriptor.json",
    INDEX: "image-index-schema.json",
    MANIFEST: "image-manifest-schema.json",
    CONFIG: "config-schema.json",
}
# sample file -> media type; one file has Docker's documents, and the name of the field
# distinguishes them.
SAMPLES = {
    "imagelayout_test.go": LAYOUT,
    "descriptor_test.go": DESCRIPTOR,
    "imageindex_test.go": INDEX,
    "manifest_test.go": MANIFEST,
    "config_test.go": CONFIG,
    "backwards_compatibility_test.go": "",
}
# Documents that the schemas accept but that are not images, and the words of the error.
STRICTER = {
    "descriptor-14": "expected 64 lower-case hexadecimal digits",  # descriptor.md, "SHA-256"
    **{f"descriptor-{number}": "unsupported algorithm" for number in (20, 21, 22, 23, 24, 26, 27)},
    "descriptor-28": "expected base64",  # the schema has no pattern for it
    "manifest-6": "unsupported algorithm",
    **{f"manifest-{number}": "an artifact of the type" for number in (10, 11)},
    "backwards_compatibility-1": "an artifact of the type",
}
# manifest.md, "layers": at least one is a SHOULD, for portability.
LOOSER = {"manifest-5"}
DOCKER = {"imageIndex": INDEX, "manifest": MANIFEST, "config": CONFIG}
_SAMPLE = re.compile(r"(\w+):\s*`([^`]*)`,")
_EXAMPLE = re.compile(r"```json,title=([^&\n]*)&mediatype=(\S+)\n(.*?)```", re.DOTALL)


def examples() -> Iterator[Any]:
    for page in sorted(SPEC.glob("*.md")):
        for number, (title, kind, text) in enumerate(_EXAMPLE.findall(page.read_text())):
            yield pytest.param(unquote(kind), text, id=f"{page.name}-{number}-{unquote(title)}")


def samples() -> Iterator[Any]:
    for name, kind in SAMPLES.items():
        path = SPEC / "schema" / name
        for number, (field, text) in enumerate(_SAMPLE.findall(path.read_text()) if path.exists() else ()):
            here = f"{name[:-8]}-{number}"
            yield pytest.param(here, kind or DOCKER[field], text, id=here)


ROOT = Identity(owners=True, devices=True)


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Any]:
    """Read a document as `unpack` does. Raises ImageError."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("alice:x:1000:1000::/home/alice:/bin/sh\n")
    (tmp_path / "etc/group").write_text("")
    tree = Tree(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY), 256)

    def call(kind: str, text: str) -> None:
        document = sources.parse_json(text.encode(), "sample")
        said = document.get("mediaType", kind) if isinstance(document, dict) else kind
        found = Descriptor(said, descriptor.digest_of(text.encode()), len(text))
        if kind == LAYOUT:
            sources.check_layout(document)
        elif kind == DESCRIPTOR:
            descriptor.parse(document, "")
        elif kind == INDEX:
            if found.media_type not in descriptor.INDEXES:
                raise ImageError("not the media type of an index")  # `resolve` looks for an index by it
            sources.parse_index(document, "index")
        elif kind == MANIFEST:
            if found.media_type not in descriptor.MANIFESTS:
                raise ImageError("not the media type of a manifest")
            manifest.parse_manifest(document, found)
        else:
            ids = (document.get("rootfs") or {}).get("diff_ids") or []
            blob = Descriptor(next(iter(descriptor.LAYERS)), found.digest, 0)
            layers = manifest.pair_layers([blob] * len(ids), document)
            manifest.check_platform(document, manifest.host_platform(), True)
            image = manifest.Image(found, document, layers)
            convert.convert(image, tree, volumes="tmpfs", ids=ROOT, warnings=Warnings())

    yield call
    tree.close()
    os.close(tree.root_fd)


def schema(name: str) -> dict[str, Any]:
    def stripped(node: Any) -> Any:
        """Schemas without their ids, to which the references are not relative."""
        if isinstance(node, list):
            return [stripped(item) for item in node]
        if not isinstance(node, dict):
            return node
        return {key: stripped(value) for key, value in node.items() if key != "id" or not isinstance(value, str)}

    return dict(stripped(json.loads((SPEC / "schema" / name).read_text())))


@pytest.fixture(scope="module")
def official() -> Any:
    """Whether the official schema of a media type accepts a text."""
    names = [path.name for path in (SPEC / "schema").glob("*.json")]
    registry = referencing.Registry().with_resources(
        (name, referencing.jsonschema.DRAFT4.create_resource(schema(name))) for name in names
    )

    def takes(kind: str, text: str) -> bool:
        try:
            document = json.loads(text)
        except ValueError:
            return False
        return bool(jsonschema.Draft4Validator({"$ref": SCHEMAS[kind]}, registry=registry).is_valid(document))

    return takes


def test_there_are_some() -> None:
    assert len(list(examples())) >= 12 and len(list(samples())) >= 60


@pytest.mark.parametrize(("kind", "text"), list(examples()))
def test_examples(kind: str, text: str, read: Any) -> None:
    artifact = kind == MANIFEST and "artifact" in text
    with nullcontext() if not artifact else pytest.raises(ImageError, match="an artifact of the type"):
        read(kind, text)


@pytest.mark.parametrize(("name", "kind", "text"), list(samples()))
def test_samples(name: str, kind: str, text: str, read: Any, official: Any) -> None:
    taken = official(kind, text)
    if name in STRICTER:
        assert taken
        with pytest.raises(ImageError, match=STRICTER[name]):
            read(kind, text)
    elif name in LOOSER:
        assert not taken
        read(kind, text)
    elif taken:
        read(kind, text)
    else:
        with pytest.raises(ImageError):
            read(kind, text)
