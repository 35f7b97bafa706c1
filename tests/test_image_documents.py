"""pyrunc.image: platforms, descriptors, manifests, tags, limits and progress at their boundaries."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import pytest

from image_support import digest
from pyrunc.image import descriptor, limits, manifest, progress
from pyrunc.image.descriptor import Descriptor, Platform
from pyrunc.image.errors import ImageError, Within, chain
from pyrunc.image.limits import Limits

HEX = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("ours", "found", "good"),
    [
        (("linux", "amd64"), {"os": "linux", "architecture": "amd64"}, True),
        (("linux", "amd64"), {"os": "windows", "architecture": "amd64"}, False),
        (("linux", "amd64"), {"os": "linux", "architecture": "arm64"}, False),
        (("linux", "amd64"), {"os": "linux", "architecture": "amd64", "variant": "v2"}, False),
        (("linux", "amd64", "v2"), {"os": "linux", "architecture": "amd64"}, True),
        (("linux", "arm64"), {"os": "linux", "architecture": "arm64", "variant": "v8"}, True),
        (("linux", "arm64", "v8"), {"os": "linux", "architecture": "arm64"}, True),
        (("linux", "arm64", "v9"), {"os": "linux", "architecture": "arm64"}, False),
        (("linux", "arm", "v7"), {"os": "linux", "architecture": "arm", "variant": "v6"}, False),
        (("linux", "arm", "v7"), {"os": "linux", "architecture": "arm", "variant": None}, True),
    ],
)
def test_platforms(ours: Any, found: Any, good: bool) -> None:
    assert Platform(*ours).accepts(found) is good and str(Platform(*ours)) == "/".join(ours)


GOOD: dict[str, Any] = {"mediaType": "a/b", "digest": HEX, "size": 0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"size": -1}, "/p/size: expected a number of bytes, found -1"),
        ({"size": True}, "/p/size: expected"),
        ({"size": "1"}, "/p/size: expected"),
        ({"platform": []}, ""),
        ({"platform": [1]}, "/p/platform: expected an object"),
        ({"platform": {"os": "l"}}, "/p/platform/architecture: expected a string, found null"),
        ({"platform": {"os": 1, "architecture": "a"}}, "/p/platform/os: expected a string, found 1"),
        ({"platform": {"os": "l", "architecture": "a"}}, ""),
        ({"annotations": {"a": "b"}}, ""),
        ({"annotations": {"a": 1}}, "/p/annotations: expected an object of strings"),
        ({"annotations": [1]}, "/p/annotations:"),
        ({"artifactType": "x"}, "/p/artifactType: expected a media type"),
        ({"artifactType": "x/y"}, ""),
        ({"data": "YQ=="}, ""),
        ({"data": "YQ"}, "/p/data: expected base64"),
        ({"data": 1}, "/p/data: expected base64"),
        ({"mediaType": 1}, "/p/mediaType: expected a media type"),
        ({"digest": None}, "/p/digest: expected"),
    ],
)
def test_descriptors(change: Any, words: str) -> None:
    if words:
        with pytest.raises(ImageError) as caught:
            descriptor.parse({**GOOD, **change}, "/p")
        assert str(caught.value).startswith(words)
        return
    found = descriptor.parse({**GOOD, **change}, "/p")
    assert (found.media_type, found.digest, found.size) == ("a/b", HEX, 0)
    assert found.platform == (change.get("platform") or {}) and found.annotations == change.get("annotations", {})
    assert found.artifact_type == change.get("artifactType", "") and found.data == (b"a" if "data" in change else None)
    assert found.short == "sha256:" + "a" * 12 and found.tag == ""


def test_verifying() -> None:
    found = Descriptor("a/b", digest(b"x"), 1)
    assert descriptor.verify(b"x", found) == b"x" and descriptor.digest_of(b"x") == digest(b"x")
    with pytest.raises(ImageError, match=r"expected 1 bytes, found 2$"):
        descriptor.verify(b"xx", found)
    with pytest.raises(ImageError, match=rf"the content has the digest {digest(b'y')}$"):
        descriptor.verify(b"y", found)
    assert descriptor.digest_of(b"", "sha512").startswith("sha512:cf83e1")
    tagged = Descriptor("a/b", HEX, 1, annotations={"org.opencontainers.image.ref.name": "t"})
    assert tagged.tag == "t"


def test_pairs_of_layers() -> None:
    one, two = (Descriptor("application/vnd.oci.image.layer.v1.tar" + end, HEX, 1) for end in ("", "+gzip"))
    ids = [digest(b"1"), digest(b"2")]
    found = manifest.pair_layers([one, two], {"rootfs": {"type": "layers", "diff_ids": ids}})
    assert [(layer.diff_id, layer.compression) for layer in found] == [(ids[0], ""), (ids[1], "gzip")]
    assert [layer.chain_id for layer in found] == [ids[0], digest(f"{ids[0]} {ids[1]}".encode())]
    assert manifest.pair_layers([], {"rootfs": {"type": "layers"}}) == []
    for config, words in (
        ([], "/rootfs/type: expected"),
        ({}, "/rootfs/type: expected"),
        ({"rootfs": {"type": "x"}}, "/rootfs/type: expected"),
        (
            {"rootfs": {"type": "layers", "diff_ids": ids}},
            "/rootfs/diff_ids: expected 1, one for each layer of the manifest, found 2",
        ),
        ({"rootfs": {"type": "layers", "diff_ids": {"a": 1}}}, "/rootfs/diff_ids: expected 1"),
        ({"rootfs": {"type": "layers", "diff_ids": ["x"]}}, "/rootfs/diff_ids/0: "),
    ):
        given: Any = config
        with pytest.raises(ImageError) as caught:
            manifest.pair_layers([one], given)
        assert str(caught.value).startswith(words)
    with pytest.raises(ImageError, match=r'^layer sha256:a{12}: unsupported media type "x/y"$'):
        manifest.pair_layers([Descriptor("x/y", HEX, 1)], {"rootfs": {"type": "layers", "diff_ids": ids[:1]}})


def test_tags() -> None:
    def of(*tags: str, same: bool = False) -> list[Descriptor]:
        return [
            Descriptor(
                "a/b", HEX if same else digest(tag.encode()), 1, annotations={"org.opencontainers.image.ref.name": tag}
            )
            for tag in tags
        ]

    def chosen(listed: list[Descriptor], tag: str) -> list[str]:
        return [found.tag for found in manifest._select(listed, tag)]

    assert chosen(of("a", "b"), "a") == ["a"] and chosen(of("r/x:a", "b"), "a") == ["r/x:a"]
    assert chosen(of("x:a", "a"), "a") == ["a"] and chosen(of("x:a", "y:a"), "a") == ["x:a", "y:a"]
    assert chosen(of("a"), "") == ["a"] and chosen(of("a", "b", same=True), "") == ["a", "b"]
    assert chosen([*of("")[:1], Descriptor("a/b", HEX, 2)], "") == ["", ""]  # one image for several platforms
    with pytest.raises(ImageError, match=r'^no image "c"; tags: a, b$'):
        manifest._select(of("a", "", "b"), "c")
    with pytest.raises(ImageError, match=r'^no image "c"; tags: none$'):
        manifest._select([], "c")
    with pytest.raises(ImageError, match=r"^several images; name one of the tags a, b$"):
        manifest._select(of("a", "b"), "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("linux/amd64", ""),
        ("linux/arm64/v8", ""),
        ("linux", "--platform"),
        ("a/b/c/d", "--platform"),
        ("a//c", "--platform"),
        ("/b", "--platform"),
    ],
)
def test_names_of_platforms(text: str, words: str) -> None:
    if words:
        with pytest.raises(ImageError, match=r"^--platform .*: expected OS/ARCHITECTURE\[/VARIANT\]"):
            manifest.parse_platform(text)
    else:
        assert str(manifest.parse_platform(text)) == text


def test_places_of_errors() -> None:
    error = ImageError("text", entry="e")
    with pytest.raises(ImageError) as caught, Within("image"), Within("layer"):
        raise error
    assert caught.value is error and str(error) == 'image: layer: entry "e": text' and str(ImageError("t")) == "t"
    with pytest.raises(KeyError), Within("x"):
        raise KeyError
    root = OSError("root")
    middle, top = ValueError("middle"), KeyError("top")
    middle.__context__, top.__cause__ = root, middle
    root.reason = LookupError("reason")  # type: ignore[attr-defined]
    assert [type(one) for one in chain(top)] == [KeyError, ValueError, OSError, LookupError] and list(chain(None)) == []
    root.reason = top  # type: ignore[attr-defined]
    assert len(list(chain(top))) == 16


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("bytes=5", 5),
        ("bytes=2k", 2048),
        ("bytes=2M", 2 << 20),
        ("bytes=2g", 2 << 30),
        ("bytes=0", 0),
        ("bytes=" + "9" * 15, 10**15 - 1),
    ],
)
def test_limits(text: str, value: int) -> None:
    assert limits.parse([text]).bytes == value and limits.parse([]) == Limits()


@pytest.mark.parametrize(
    "text", ["bytes", "bytes=", "bytes=k", "bytes=1kk", "bytes=-1", "x=1", "bytes=" + "9" * 16, "bytes=\u0663"]
)
def test_limits_that_are_refused(text: str) -> None:
    with pytest.raises(
        Exception, match=r"--limit .*: expected NAME=NUMBER, NAME one of bytes, entries, ratio, depth, name, header"
    ):
        limits.parse([text])


def test_progress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 2)
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((50, 20)))
    one = progress.Progress("x", 2_000_000)
    one.advance(500_000)
    assert capsys.readouterr().err == f"\rx [{'#' * 6:<25}] 0.5 of 2.0 MB"
    now = 100.1
    one.advance(500_000)  # too soon
    assert capsys.readouterr().err == ""
    one.advance(3_000_000)
    assert capsys.readouterr().err == f"\rx [{'#' * 25}] 4.0 of 2.0 MB"
    one.end()
    assert capsys.readouterr().err == "\r\x1b[K"
    for label, total, quiet in (("x", 0, False), ("x", 5, True)):
        two = progress.Progress(label, total, quiet=quiet)
        two.advance(9)
        two.end()
        assert not two.enabled and two.done == 9
    progress.Progress("x", 5).end()
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((500, 20)))
    three = progress.Progress("x", 4)
    three.advance(4)
    assert capsys.readouterr().err == f"\rx [{'#' * 40}] 0.0 of 0.0 MB"
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((1, 20)))
    four = progress.Progress("x", 4)
    four.advance(4)
    assert capsys.readouterr().err == f"\rx [{'#' * 10}] 0.0 of 0.0 MB" and sys.stderr is not None
