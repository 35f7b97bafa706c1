"""Images on disk, good and bad: what each kind of source lists, opens and refuses, and the config.json
of an image. golden/image_sources.txt has the tables.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import transcript
from pyrunc.errors import PyruncError
from pyrunc.image import accounts, convert, descriptor, sources
from pyrunc.image.accounts import User
from pyrunc.image.errors import ImageError
from pyrunc.image.layer import Warnings
from test_results import results

LAYER = b"a layer" * 3
CONFIG = json.dumps({"rootfs": {"diff_ids": [descriptor.digest_of(LAYER)]}}).encode()
OTHER = descriptor.digest_of(b"nothing")
Files = dict[str, bytes | str]  # path -> content, or "-> target" of a symbolic link, "= target" of a hard one


def document(value: Any) -> bytes:
    """JSON."""
    return json.dumps(value).encode()


def layout(**changes: Any) -> Files:
    """An image layout with changes; None removes a file."""
    digest = descriptor.digest_of(LAYER)
    listed = [{"mediaType": descriptor.MANIFESTS[0], "digest": digest, "size": len(LAYER)}]
    files: dict[str, Any] = {
        "oci-layout": document({"imageLayoutVersion": "1.0.0"}),
        "index.json": document({"schemaVersion": 2, "manifests": listed}),
        f"blobs/sha256/{digest[7:]}": LAYER,
    }  # fmt: skip
    files |= {{"layout": "oci-layout", "index": "index.json"}[name]: value for name, value in changes.items()}
    return {name: value for name, value in files.items() if value is not None}


def saved(entries: Any = ..., **files: bytes | str) -> Files:
    """The output of `docker save`; ``files`` are more members, or others."""
    entry = {"Config": "c.json", "RepoTags": ["r:1", "r:2"], "Layers": ["l/layer.tar"]}
    listed = [entry] if entries is ... else entries
    return {"manifest.json": document(listed), "c.json": CONFIG, "l/layer.tar": LAYER, **files}


LAYOUTS: dict[str, Files] = {
    "good": layout(), "another version": layout(layout=document({"imageLayoutVersion": "2"})),
    "no oci-layout": layout(layout=None), "no index": layout(index=None),
    "an index that is a list": layout(index=b"[]"),
    "no JSON": layout(layout=b"x"), "an index with an odd entry": layout(index=document({"schemaVersion": 2,
        "manifests": [5]})),
}  # fmt: skip
ENTRY = {"Config": "c.json", "Layers": ["l/layer.tar"]}
ARCHIVES: dict[str, Files] = {
    "good": saved(), "no tags": saved([ENTRY]), "tags are null": saved([ENTRY | {"RepoTags": None}]),
    "two images": saved([ENTRY, ENTRY | {"RepoTags": ["x"]}]), "an object": saved({}), "numbers": saved([5]),
    "none": saved([]), "a missing configuration": saved([ENTRY | {"Config": "none"}]),
    "a missing layer": saved([ENTRY | {"Layers": ["none"]}]), "no layers": saved([ENTRY | {"Layers": []}]),
    "a link": saved([ENTRY | {"Layers": ["m/layer.tar"]}], **{"m/layer.tar": "-> ../l/layer.tar"}),
    "a hard link": saved([ENTRY | {"Layers": ["m"]}], m="= l/layer.tar"),
    "the second entry": saved([ENTRY, {"Config": 5}]),
}  # fmt: skip


def put(top: Path, files: Files) -> str:
    """Files in a directory."""
    for name, content in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(top)


def pack(path: Path, files: Files, prefix: str = "") -> str:
    """A tar of files."""
    with tarfile.open(path, "w") as tar:
        directory = tarfile.TarInfo(f"{prefix}blobs")
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        for name, content in files.items():
            entry = tarfile.TarInfo(prefix + name)
            if isinstance(content, str):
                kind, _, entry.linkname = content.partition(" ")
                entry.type = tarfile.SYMTYPE if kind == "->" else tarfile.LNKTYPE
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return str(path)


def seen(source: sources.Source, *more: str) -> list[str]:
    """The name of a source, its entries, and what it opens."""
    lines = [f"{source.name!r} {source.tag!r}"]
    wanted = source.index()
    for one in wanted:
        lines.append(f"{one.media_type} {one.short} {one.size} {one.tag!r}")
        with source.open(one) as stream:
            content = stream.read()
        lines.append(f"  {content[:400].decode()}")
        if one.media_type == descriptor.MANIFESTS[1]:
            inside = json.loads(content)
            for entry in (inside["config"], *inside["layers"]):
                found = descriptor.parse(entry, "")
                with source.open(found) as stream:
                    lines.append(f"  {found.short} {stream.read().decode()}")
    source.close()
    return lines


def compared(case: str, top: Path, call: Callable[..., list[str]], names: Any) -> None:
    """Compare what sources are, without the path of the test."""
    assert names

    def without_top(*args: Any) -> list[str]:  # before a long text is cut
        return [line.replace(str(top), "TOP") for line in call(*args)]

    lines = [line.replace(str(top), "TOP") for line in results(without_top, names)]
    transcript.compare("image_sources", case, lines)


def test_layouts_in_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def call(name: str, tag: str) -> list[str]:
        put(tmp_path / name, LAYOUTS[name])
        source = sources.LayoutDirectory(name, tag)  # a relative path: the working directory changes later
        with monkeypatch.context() as patch:
            patch.chdir("/")
            return seen(source)

    transcript.compare(
        "image_sources", "directories", results(call, [(name, tag) for name in LAYOUTS for tag in ("", "t")][:-1])
    )


def test_blobs_that_are_no_files(tmp_path: Path) -> None:
    source = sources.LayoutDirectory(put(tmp_path / "l", layout()), "")
    (tmp_path / "l/blobs/sha256" / OTHER[7:]).mkdir()
    wanted = descriptor.Descriptor(descriptor.MANIFESTS[0], OTHER, 5)
    before = len(os.listdir("/proc/self/fd"))
    for kind in ("directory", "fifo", "nothing"):
        with pytest.raises(ImageError) as caught:
            source.open(wanted)
        words = "path not found" if kind == "nothing" else "not a regular file"
        assert str(caught.value).startswith(f'"blobs/sha256/{OTHER[7:]}": ') and words in str(caught.value)
        path = tmp_path / "l/blobs/sha256" / OTHER[7:]
        if kind == "directory":
            path.rmdir()
            os.mkfifo(path)
        elif kind == "fifo":
            path.unlink()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ImageError, match="digest: expected ALGORITHM:ENCODED"):
        source.open(descriptor.Descriptor("a/b", "../x", 5))


def test_layouts_in_archives(tmp_path: Path) -> None:
    def call(name: str, prefix: str) -> list[str]:
        return seen(sources.LayoutArchive(pack(tmp_path / "a.tar", LAYOUTS[name], prefix), "t"))

    compared("archives", tmp_path, call, [(name, prefix) for name in LAYOUTS for prefix in ("", "./", "/")])


def test_saved_images(tmp_path: Path) -> None:
    def call(name: str) -> list[str]:
        return seen(sources.DockerArchive(pack(tmp_path / "a.tar", ARCHIVES[name]), ""))

    compared("saved", tmp_path, call, list(ARCHIVES))


def test_what_is_not_in_a_saved_image(tmp_path: Path) -> None:
    source = sources.DockerArchive(pack(tmp_path / "a.tar", saved()), "tag")
    assert (source.name, source.path, source.tag) == (f"{tmp_path}/a.tar:tag", f"{tmp_path}/a.tar", "tag")
    with pytest.raises(ImageError, match=rf"^{OTHER}: not in the archive$"):
        source.open(descriptor.Descriptor("a/b", OTHER, 5))
    with pytest.raises(ImageError, match=r'^no "blobs" in the archive$'):
        source.stream("blobs")
    source.close()
    with pytest.raises(OSError, match="TarFile is closed"):
        source.tar.getnames()


def test_archives_that_cannot_be_read(tmp_path: Path) -> None:
    whole = Path(pack(tmp_path / "whole.tar", saved())).read_bytes()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_bytes(b"no archive" * 100)
    (tmp_path / "cut").write_bytes(whole[: 512 * 2 + 100])
    (tmp_path / "short").write_bytes(whole[:100])

    def call(name: str, tag: str) -> list[str]:
        return [type(sources.DockerArchive(f"{tmp_path}/{name}", tag)).__name__]

    names = [(name, tag) for name in ("empty", "text", "short", "none", "whole.tar") for tag in ("", "t")]
    compared("unreadable", tmp_path, call, names)


# -- the configuration of an image -----------------------------------------------------------------

BOTH = {"Entrypoint": ["/e"], "Cmd": ["a", "b"], "Env": ["PATH=/x", "A=b"], "WorkingDir": "/w", "User": "5:6",
        "Volumes": {"/v": {}, "/a": {}}, "Labels": {"l": "m"}, "StopSignal": "9"}  # fmt: skip


CONFIGS: dict[str, dict[str, Any]] = {"empty": {}, "full": BOTH, "wrong": {"User": 5}}


def converted(config: dict[str, Any], volumes: str, mapped: bool, owners: bool) -> dict[str, Any]:
    """What differs from the default."""
    warnings = Warnings()
    mapping = [{"containerID": 0, "hostID": 7, "size": 1}]
    mappings: Any = dict.fromkeys(("uidMappings", "gidMappings"), mapping) if mapped else None
    ids: Any = SimpleNamespace(mappings=mappings, owners=owners)
    image: Any = SimpleNamespace(config={"os": "linux", "config": config})
    tree: Any = SimpleNamespace()
    found: dict[str, Any] = dict(convert.convert(image, tree, volumes=volumes, ids=ids, warnings=warnings))
    process = found["process"]
    return {
        "process": {name: process[name] for name in ("terminal", "args", "cwd", "env", "user")}, "root": found["root"],
        "annotations": found["annotations"], "warnings": warnings.lines(),
        "mounts": [one for one in found["mounts"] if one["destination"] in ("/v", "/a")],
        "namespaces": [one["type"] for one in found["linux"]["namespaces"]],
    }  # fmt: skip


def test_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(text: str, tree: object) -> User:
        return User(5, 6, additional_gids=[7], home="/h") if text == "5:6" else User(home="/root")

    monkeypatch.setattr(accounts, "find", find)

    def call(name: str, *more: Any) -> dict[str, Any]:
        return converted(CONFIGS[name], *more)

    cases = [(name, volumes, mapped, owners) for name in ("full",) for volumes in ("tmpfs", "bind", "none")
             for mapped in (False, True) for owners in (False, True)]  # fmt: skip
    cases += [("empty", "tmpfs", False, True), ("wrong", "none", False, True), ("full", "other", False, True)]
    lines = [f"{key}: {value}" for case in cases for key, value in told(call, case)]
    transcript.compare("image_sources", "config.json", lines, cut=True)


def told(call: Callable[..., dict[str, Any]], case: tuple[Any, ...]) -> list[tuple[str, Any]]:
    """A result, a line for each member, or the error."""
    try:
        return [("case", case), *call(*case).items()]
    except PyruncError as error:
        return [("case", case), ("error", error)]
