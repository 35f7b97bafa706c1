"""Locations of images: id ranges, the store, bundles, references to files; and the progress of a
download."""

from __future__ import annotations

import errno
import json
import os
import posix
import pwd
import tarfile
import time
from pathlib import Path

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from pyrunc import fs
from pyrunc.errors import PyruncError, UsageError
from pyrunc.image import descriptor, identity, locate, reference, unpack
from pyrunc.image.progress import Progress
from pyrunc.image.sources import DockerArchive, LayoutArchive, LayoutDirectory

# -- ids -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("other:1:2\nNAME:100000:65536\nNAME:1:1\n", (100000, 65536)),
        ("UID:7:9\n", (7, 9)),
        ("other:100000:65536\n", None),
        ("NAME:100000\n", None),
        ("NAME:100000:65536:1\n", None),
        ("NAME:x:65536\nNAME:5:6\n", (5, 6)),
        ("NAME:5:-6\nNAME:5:x\n", None),
        ("NAME:0:5\n", None),
        ("NAME:1:0\nNAME:1:1\n", (1, 1)),
        ("NAME:1:4294967294\n", (1, 4294967294)),
        ("NAME:2:4294967294\n", None),
        ("  NAME:5:6  \n", (5, 6)),
        ("\xff\xfe\nNAME:5:6", (5, 6)),
        ("", None),
    ],
)
def test_subordinate_ids(tmp_path: Path, text: str, found: tuple[int, int] | None) -> None:
    uid = os.geteuid()
    text = text.replace("NAME", pwd.getpwuid(uid).pw_name).replace("UID", str(uid))
    (tmp_path / "subuid").write_bytes(text.encode("latin-1"))
    assert identity.subordinate(str(tmp_path / "subuid")) == found


def test_subordinate_ids_of_a_user_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 3_000_000_001)
    (tmp_path / "subuid").write_text("3000000001:5:6\n")
    assert identity.subordinate(str(tmp_path / "subuid")) == (5, 6)
    assert identity.subordinate(str(tmp_path / "none")) is None


# -- the store -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uid", "env", "path"),
    [
        (0, {"XDG_DATA_HOME": "/data", "HOME": "/home/a"}, "/var/lib/pyrunc/images"),
        (5, {"XDG_DATA_HOME": "/data", "HOME": "/home/a"}, "/data/pyrunc/images"),
        (5, {"XDG_DATA_HOME": "data"}, "CWD/data/pyrunc/images"),
        (5, {"HOME": "/home/a"}, "/home/a/.local/share/pyrunc/images"),
        (5, {}, "neither XDG_DATA_HOME nor HOME is set: choose a directory for images with --store DIR"),
    ],
)
def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch, uid: int, env: dict[str, str], path: str) -> None:
    monkeypatch.setattr(posix, "geteuid", lambda: uid)
    monkeypatch.setattr(fs, "getenv", lambda name: env.get(name, ""))
    path = path.replace("CWD", os.getcwd())
    assert locate.store_path("/x/../y") == "/y" and locate.store_path("z") == f"{os.getcwd()}/z"
    if path.startswith("/"):
        assert locate.store_path("") == path
    else:
        with pytest.raises(PyruncError) as caught:
            locate.store_path("")
        assert str(caught.value) == path


@pytest.mark.parametrize(("mode", "good"), [(0o755, True), (0o700, True), (0o775, False), (0o757, False)])
def test_a_store_that_others_can_write_to(tmp_path: Path, mode: int, good: bool) -> None:
    os.chmod(tmp_path, mode)
    if good:
        locate.check("/s", os.stat(tmp_path))
        return
    with pytest.raises(PyruncError) as caught:
        locate.check("/s", os.stat(tmp_path))
    me = os.geteuid()
    assert str(caught.value) == (
        f'--store "/s": must belong to uid {me} and be writable by nobody else (owner {me}, mode {mode:04o})'
    )


def test_a_store_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.stat(tmp_path)
    monkeypatch.setattr(posix, "geteuid", lambda: found.st_uid + 1)
    with pytest.raises(PyruncError, match="must belong to uid"):
        locate.check("/s", found)


def test_bundles_of_images(tmp_path: Path) -> None:
    bundle = tmp_path / "b"
    assert locate.chains_of(str(bundle)) == [] and locate.is_used(str(bundle)) is False
    bundle.mkdir()
    (tmp_path / "root").mkdir()
    for text in ("", "[]", "{}", '{"chains": 5, "root": "/"}'):
        (bundle / "image.json").write_text(text)
        assert locate.chains_of(str(bundle)) == [] and locate.is_used(str(bundle)) is False
    known = {"chains": ["a", "b"], "root": str(tmp_path / "root"), "id": "c1"}
    (bundle / "image.json").write_text(json.dumps(known))
    assert locate.chains_of(str(bundle)) == ["a", "b"] and locate.is_used(str(bundle)) is False
    (tmp_path / "root/c1").mkdir()
    assert locate.is_used(str(bundle)) is True


def test_whether_a_bundle_is_used_may_be_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: str) -> bytes:
        raise OSError(errno.EMFILE, "")

    monkeypatch.setattr(fs, "read_file", fails)
    with pytest.raises(OSError):
        locate.is_used(str(tmp_path))
    assert locate.chains_of(str(tmp_path)) == []


# -- references to files ---------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An OCI layout, a docker archive, and an archive of a layout."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "layout").mkdir()
    (tmp_path / "layout/oci-layout").write_text("{}")
    (tmp_path / "with:colon").mkdir()
    for name, entry in (("docker.tar", "manifest.json"), ("layout.tar", "./oci-layout")):
        (tmp_path / "entry").write_text("{}")
        with tarfile.open(tmp_path / name, "w") as tar:
            tar.add(tmp_path / "entry", entry)
    (tmp_path / "text").write_text("no archive")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "kind", "tag"),
    [
        ("layout", LayoutDirectory, ""), ("layout:v1", LayoutDirectory, "v1"), ("oci:layout:v1", LayoutDirectory, "v1"),
        ("oci:layout", LayoutDirectory, ""), ("docker.tar", DockerArchive, ""),
        ("docker.tar:a/b:v1", DockerArchive, "a/b:v1"), ("docker-archive:layout.tar", DockerArchive, ""),
        ("layout.tar:v2", LayoutArchive, "v2"), ("oci-archive:layout.tar:v2", LayoutArchive, "v2"),
        ("oci-archive:docker.tar", LayoutArchive, ""), ("with:colon", LayoutDirectory, ""),
        ("with:colon:v3", LayoutDirectory, "v3"), ("./layout:", LayoutDirectory, ""), ("text", DockerArchive, ""),
    ],
)  # fmt: skip
def test_files_by_name(images: Path, text: str, kind: type, tag: str) -> None:
    try:
        found = reference.open_local(text)
    except PyruncError:
        assert text in ("text", "docker-archive:layout.tar", "oci-archive:docker.tar")
        return
    assert type(found) is kind and getattr(found, "tag", tag) == tag
    close = getattr(found, "close", None)
    if close is not None:
        close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("oci:docker.tar", 'image "oci:docker.tar": expected a directory'),
        ("docker-archive:layout", 'image "docker-archive:layout": expected a tar archive, found a directory'),
        ("oci-archive:layout", 'image "oci-archive:layout": expected a tar archive, found a directory'),
        ("none", "ENOENT"),
        ("none/x", "ENOENT"),
        ("docker.io/a/b", "; an image in a registry is named docker://docker.io/a/b"),
    ],
)
def test_files_that_are_not_of_that_kind(images: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        reference.open_local(text)
    assert words in str(caught.value) and str(caught.value).startswith(f'image "{text}": ')
    assert ("docker://" in str(caught.value)) == ("docker.io" in text)


# -- directories in preparation --------------------------------------------------------------------


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    stale = tmp_path / f"{unpack.PARTIAL}0123"
    (stale / "rootfs").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / f"{unpack.PARTIAL}file").touch()
    busy = unpack.Partial(str(tmp_path), "busy")
    busy.make()
    one = unpack.Partial(str(tmp_path), "one")
    one.make()
    left = sorted(os.listdir(tmp_path))
    assert left == sorted([one.temporary, busy.temporary, "other", f"{unpack.PARTIAL}file"])
    assert (tmp_path / one.temporary).stat().st_mode & 0o7777 == 0o700
    one.commit()
    assert (tmp_path / "one").is_dir()
    one.discard()
    one.close()
    assert (tmp_path / "one").is_dir(), "it is in its place"
    busy.discard()
    busy.close()
    assert sorted(os.listdir(tmp_path)) == sorted(["one", "other", f"{unpack.PARTIAL}file"])
    assert busy.fd == busy.parent_fd == -1
    fd = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / f"{unpack.PARTIAL}1").mkdir()
    (tmp_path / f"{unpack.PARTIAL}2").mkdir()
    assert unpack.sweep(fd) == 2 and unpack.sweep(fd) == 0
    os.close(fd)


# -- platforms -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "accepted"),
    [
        (("linux", "amd64"), ("linux", "amd64"), True),
        (("linux", "amd64"), ("linux", "arm64"), False),
        (("linux", "amd64"), ("windows", "amd64"), False),
        (("linux", "amd64"), ("linux", "amd64", "v2"), False),
        (("linux", "amd64", "v2"), ("linux", "amd64"), True),
        (("linux", "amd64", "v2"), ("linux", "amd64", "v2"), True),
        (("linux", "amd64", "v2"), ("linux", "amd64", "v3"), False),
        (("linux", "arm64"), ("linux", "arm64"), True),
        (("linux", "arm64"), ("linux", "arm64", "v8"), True),
        (("linux", "arm64", "v8"), ("linux", "arm64"), True),
        (("linux", "arm64", "v9"), ("linux", "arm64"), False),
        (("linux", "arm64"), ("linux", "arm64", "v9"), False),
        (("linux", "arm", "v7"), ("linux", "arm", None), True),
    ],
)
def test_platforms(ours: tuple[str, ...], theirs: tuple[str | None, ...], accepted: bool) -> None:
    found = dict(zip(("os", "architecture", "variant"), theirs, strict=False))
    platform = descriptor.Platform(*ours)
    assert platform.accepts(found) is accepted and str(platform) == "/".join(ours)


# -- progress --------------------------------------------------------------------------------------


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 2)
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((50 + fd, 20)))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    one = Progress("label", 10_000_000)
    one.advance(2_500_000)
    assert capsys.readouterr().err == f"\rlabel [{'#' * 5}{' ' * 18}] 2.5 of 10.0 MB"
    now[0] += 0.05
    one.advance(1)
    assert capsys.readouterr().err == "", "not more often than ten times a second"
    now[0] += 0.06
    one.advance(2_499_999)
    assert capsys.readouterr().err == f"\rlabel [{'#' * 11}{' ' * 12}] 5.0 of 10.0 MB"
    one.advance(5_000_000)
    assert capsys.readouterr().err == f"\rlabel [{'#' * 23}] 10.0 of 10.0 MB", "the end is drawn at once"
    one.advance(5_000_000)
    assert capsys.readouterr().err == f"\rlabel [{'#' * 23}] 15.0 of 10.0 MB"
    one.end()
    assert capsys.readouterr().err == "\r\x1b[K"


@pytest.mark.parametrize(("columns", "width"), [(10, 10), (400, 40), (60, 31)])
def test_the_width_of_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int, width: int
) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((columns, 20)))
    Progress("label", 1).advance(1)
    assert f"[{'#' * width}]" in capsys.readouterr().err


@pytest.mark.parametrize(("quiet", "total", "terminal"), [(True, 1, True), (False, 0, True), (False, 1, False)])
def test_no_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quiet: bool, total: int, terminal: bool
) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: terminal)
    one = Progress("label", total, quiet=quiet)
    one.advance(5)
    one.end()
    assert capsys.readouterr().err == "" and one.done == 5
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    Progress("label", 5).end()
    assert capsys.readouterr().err == "", "nothing was drawn"
