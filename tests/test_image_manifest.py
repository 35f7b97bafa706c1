"""Finding an image: layouts, archives, indexes, manifests, and ambiguous documents."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

import transcript
from image_support import CONFIG, INDEX, LAYER, MANIFEST, Layout, digest, entry, tar
from pyrunc.errors import UsageError
from pyrunc.image import manifest, reference
from pyrunc.image.descriptor import Platform
from pyrunc.image.errors import ImageError
from pyrunc.image.manifest import Image

kept = transcript.follow(
    "pyrunc.image.manifest",
    "pyrunc.image.descriptor",
    "pyrunc.image.reference",
    "pyrunc.image.sources",
    "pyrunc.image.locate",
    leave=("test_layout_archive", "test_docker_archive", "test_archives_that_are_none"),
)

AMD64 = Platform("linux", "amd64")
LAYERS = [tar([entry("a", b"1")]), tar([entry("b", b"2")])]


def resolve(path: str | Path, platform: Platform = AMD64, *, force: bool = False) -> Image:
    source = reference.open_local(str(path))
    try:
        return manifest.resolve(source, platform, force=force)
    finally:
        source.close()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "image")


def test_chain_ids(layout: Layout) -> None:
    layout.tag(layout.image(LAYERS), "latest")
    image = resolve(layout.path)
    first, second = (digest(layer) for layer in LAYERS)
    # config.md: ChainID(L0|...|Ln) = Digest(ChainID(L0|...|Ln-1) + " " + DiffID(Ln))
    assert [layer.chain_id for layer in image.layers] == [first, digest(f"{first} {second}".encode())]
    assert image.chain_id == image.layers[-1].chain_id


def test_tags(layout: Layout) -> None:
    one, two = layout.image(LAYERS[:1]), layout.image(LAYERS)
    layout.tag(one, "one").tag(two, "example.org/x:two")
    assert len(resolve(f"{layout.path}:one").layers) == 1
    assert len(resolve(f"{layout.path}:two").layers) == len(resolve(f"{layout.path}:example.org/x:two").layers) == 2
    with pytest.raises(ImageError, match=r"several images; name one of the tags one, example.org/x:two"):
        resolve(layout.path)
    with pytest.raises(ImageError, match=r'no image "three"; tags: one'):
        resolve(f"{layout.path}:three")


def test_a_path_with_a_colon(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "with:colon")
    layout.tag(layout.image(LAYERS), "x")
    assert resolve(layout.path).layers and resolve(f"{layout.path}:x").layers and resolve(f"oci:{layout.path}:x").layers


@pytest.mark.parametrize(
    ("platform", "architecture"),
    [
        (AMD64, "amd64"),
        (Platform("linux", "arm64", "v8"), "arm64"),
        (Platform("linux", "arm64"), "arm64"),
        (Platform("linux", "s390x"), None),
    ],
)
def test_index_and_platform(layout: Layout, platform: Platform, architecture: str | None) -> None:
    entries = []
    for name in ("amd64", "arm64"):
        found = layout.image(LAYERS, architecture=name)
        entries.append({**found, "platform": {"os": "linux", "architecture": name}})
    entries.insert(0, {"mediaType": "application/x-unknown", "digest": digest(b""), "size": 0})
    inner = layout.json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, INDEX)
    layout.tag(layout.json({"schemaVersion": 2, "manifests": [inner]}, INDEX))
    if architecture is None:
        with pytest.raises(ImageError, match=r"no image for linux/s390x \(offered: .*linux/amd64, linux/arm64"):
            resolve(layout.path, platform)
    else:
        assert resolve(layout.path, platform).config["architecture"] == architecture


def test_another_platform_without_an_index(layout: Layout) -> None:
    layout.tag(layout.image(LAYERS, architecture="riscv64"))
    with pytest.raises(ImageError, match=r"an image for linux/riscv64, not for linux/amd64 \(--force unpacks it\)"):
        resolve(layout.path)
    assert resolve(layout.path, force=True).layers


def test_nesting_is_bounded(layout: Layout) -> None:
    found = layout.image(LAYERS)
    for _ in range(12):
        found = layout.json({"schemaVersion": 2, "manifests": [found]}, INDEX)
    layout.tag(found)
    with pytest.raises(ImageError, match="nested more than 8 deep, or in a circle"):
        resolve(layout.path)


def test_embedded_data(layout: Layout) -> None:
    found = layout.image(LAYERS)
    path = layout.path / "blobs/sha256" / found["digest"][7:]
    data = path.read_bytes()
    path.unlink()
    layout.tag({**found, "data": base64.b64encode(data).decode()})
    assert resolve(layout.path).layers
    layout.manifests.clear()
    layout.tag({**found, "data": base64.b64encode(data[:-1] + b" ").decode()})
    with pytest.raises(ImageError, match="the content has the digest"):
        resolve(layout.path)


# -- documents that are refused --------------------------------------------------------------------


def written(layout: Layout, change: dict[str, Any], media_type: str = MANIFEST) -> None:
    """An image with a changed manifest."""
    found = layout.image(LAYERS)
    document = json.loads((layout.path / "blobs/sha256" / found["digest"][7:]).read_text())
    for key, value in change.items():
        if value is None:
            del document[key]
        else:
            document[key] = value
    layout.tag(layout.json(document, media_type))


EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"schemaVersion": 1}, "/schemaVersion: expected 2, found 1"),
        ({"mediaType": INDEX}, "mediaType is"),
        ({"manifests": []}, "CVE-2021-41190"),
        ({"config": None}, "/config: expected a descriptor"),
        ({"config": EMPTY}, "not an image that can run"),
        ({"artifactType": "application/x-signature"}, 'an artifact of the type "application/x-signature"'),
        ({"layers": {}}, "/layers: expected an array"),
        ({"layers": []}, "expected 0, one for each layer of the manifest, found 2"),
        ({"layers": [{"mediaType": "x", "digest": digest(b""), "size": 0}] * 2}, "expected a media type"),
        ({"layers": [{"mediaType": "x/y", "digest": digest(b""), "size": 0}] * 2}, 'unsupported media type "x/y"'),
        ({"layers": [{"mediaType": LAYER, "digest": digest(b""), "size": -1}] * 2}, "/layers/0/size"),
        ({"layers": [{"mediaType": LAYER, "digest": "sha256:../../etc", "size": 1}] * 2}, "/layers/0/digest"),
        ({"layers": [{"mediaType": LAYER, "digest": "md5:" + "0" * 32, "size": 1}] * 2}, 'unsupported algorithm "md5"'),
        ({"layers": [{"mediaType": LAYER, "digest": "sha256:" + "A" * 64, "size": 1}] * 2}, "lower-case hexadecimal"),
    ],
)
def test_manifests_that_are_refused(layout: Layout, change: dict[str, Any], text: str) -> None:
    written(layout, change)
    with pytest.raises(ImageError) as caught:
        resolve(layout.path)
    assert text in str(caught.value) and str(layout.path) in str(caught.value)


def test_an_index_that_is_a_manifest_as_well(layout: Layout) -> None:
    found = layout.image(LAYERS)
    both = json.loads((layout.path / "blobs/sha256" / found["digest"][7:]).read_text())
    del both["mediaType"]
    both["manifests"] = [found]
    layout.tag(layout.json(both, INDEX))
    with pytest.raises(ImageError, match="CVE-2021-41190"):
        resolve(layout.path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rootfs": {"type": "layers"}}, "expected 2, one for each layer"),
        ({"rootfs": {"type": "other", "diff_ids": []}}, '/rootfs/type: expected "layers"'),
        ({"rootfs": None}, '/rootfs/type: expected "layers"'),
        ({"rootfs": {"type": "layers", "diff_ids": ["sha256:x", "y"]}}, "/rootfs/diff_ids/0"),
        ({"architecture": None}, "/architecture: expected a string"),
    ],
)
def test_configurations_that_are_refused(layout: Layout, change: dict[str, Any], text: str) -> None:
    layout.tag(layout.image(LAYERS, **change))
    with pytest.raises(ImageError, match=text.replace("/", "/")):
        resolve(layout.path)


def test_a_blob_that_was_changed(layout: Layout) -> None:
    found = layout.image(LAYERS)
    layout.tag(found)
    path = layout.path / "blobs/sha256" / found["digest"][7:]
    data = path.read_bytes()
    for changed in (data + b" ", data[:-1], data.replace(b"2", b"3", 1)):
        path.write_bytes(changed)
        with pytest.raises(ImageError, match=found["digest"]):
            resolve(layout.path)


def test_duplicate_keys(layout: Layout) -> None:
    layout.tag(layout.image(LAYERS))
    index = layout.path / "index.json"
    index.write_text(index.read_text().replace('"schemaVersion": 2', '"schemaVersion": 2, "schemaVersion": 2'))
    with pytest.raises(ImageError, match="duplicate"):
        resolve(layout.path)


def test_layouts_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="oci-layout"):
        resolve(tmp_path / "empty")
    layout = Layout(tmp_path / "other")
    (layout.path / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(ImageError, match="expected imageLayoutVersion"):
        resolve(layout.path)
    with pytest.raises(UsageError, match="ENOENT"):
        resolve(tmp_path / "missing")
    with pytest.raises(UsageError, match=r"named docker://example.org/x"):
        resolve("example.org/x:1")


# -- archives --------------------------------------------------------------------------------------


def test_layout_archive(layout: Layout, tmp_path: Path) -> None:
    layout.tag(layout.image(LAYERS), "x")
    path = tmp_path / "image.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(layout.path, ".")
    for name in (path, f"{path}:x", f"oci-archive:{path}"):
        assert [layer.diff_id for layer in resolve(name).layers] == [digest(layer) for layer in LAYERS]


def docker_archive(path: Path, *, linked: bool = False) -> None:
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [digest(LAYERS[0])] * 2 if linked else [digest(x) for x in LAYERS]},
    }
    names = ["0/layer.tar", "1/layer.tar"]
    rows = [{"Config": "config.json", "RepoTags": ["example/x:1", "example/x:2"], "Layers": names}]
    files = [("manifest.json", json.dumps(rows).encode()), ("config.json", json.dumps(config).encode())]
    with tarfile.open(path, "w") as archive:
        for name, data in [*files, (names[0], LAYERS[0]), *([] if linked else [(names[1], LAYERS[1])])]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if linked:
            archive.addfile(entry(names[1], type=tarfile.SYMTYPE, linkname="../0/layer.tar")[0])


@pytest.mark.parametrize("linked", [False, True])
def test_docker_archive(tmp_path: Path, linked: bool) -> None:
    path = tmp_path / "saved.tar"
    docker_archive(path, linked=linked)
    for name in (path, f"{path}:1", f"docker-archive:{path}:example/x:2"):
        image = resolve(name)
        assert [layer.blob.size for layer in image.layers] == [len(LAYERS[0]), len(LAYERS[0 if linked else 1])]


@pytest.mark.parametrize("data", [b"", b"x" * 100, bytes(10240)])
def test_archives_that_are_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.tar"
    path.write_bytes(data)
    with pytest.raises(ImageError):
        resolve(path)


def test_docker_media_type_of_a_config(layout: Layout) -> None:
    docker = "application/vnd.docker.container.image.v1+json"
    found = layout.image(LAYERS)
    text = (layout.path / "blobs/sha256" / found["digest"][7:]).read_text().replace(CONFIG, docker)
    text = text.replace(MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
    text = text.replace(LAYER, "application/vnd.docker.image.rootfs.diff.tar")
    layout.tag(layout.blob(text.encode(), "application/vnd.docker.distribution.manifest.v2+json"))
    assert len(resolve(layout.path).layers) == 2


# -- references ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "repository", "version"),
    [
        ("docker://example.org/a", "example.org", "a", "latest"),
        ("docker://localhost:5000/a/b-c/d_e:1.2", "localhost:5000", "a/b-c/d_e", "1.2"),
        ("docker://[::1]:5000/a:x", "[::1]:5000", "a", "x"),
        (f"docker://example.org/a@{digest(b'')}", "example.org", "a", digest(b"")),
        (f"docker://example.org/a:tag@{digest(b'')}", "example.org", "a", digest(b"")),
    ],
)
def test_registry_references(text: str, host: str, repository: str, version: str) -> None:
    found = reference.parse_registry(text)
    assert (found.host, found.repository, found.version) == (host, repository, version)


@pytest.mark.parametrize(
    "text",
    [
        "docker://", "docker://host", "docker://host/", "docker:///a", "docker://host/A", "docker://host/a:", "docker://host/a:b:c",
        "docker://host/../a", "docker://host/a@sha256:0", "docker://ho st/a", "docker://host/a:" + "t" * 129, "docker://u@host/a",
        "docker://host/" + "a" * 300,
    ],
)  # fmt: skip
def test_registry_references_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        reference.parse_registry(text)
