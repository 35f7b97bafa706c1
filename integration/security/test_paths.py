"""Paths chosen by the image: every mount, directory and node stays inside the root (T05-T08, T12,
T25)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from integration.harness import Box, errno_of
from integration.machine import parse_mountinfo
from integration.security.support import (
    ROUNDS,
    Make,
    Refused,
    bind,
    mountinfo,
    swapping,
    tmpfs,
    tree,
    without_mounts,
)


@pytest.mark.row("T05")
@pytest.mark.parametrize(
    ("name", "target"),
    [("proc", "/bar"), ("sys", "/bar"), ("proc", "../proc2"), ("sys", "tmp"), ("proc", "OUTSIDE")],
)
def test_proc_and_sys_are_ordinary_directories(
    container: Make, box: Box, refused: Refused, name: str, target: str
) -> None:
    """CVE-2019-19921, CVE-2023-27561, CVE-2025-54867: masks and labels followed the mount
    elsewhere."""
    outside = box.path / "outside"
    outside.mkdir()
    one = container()
    (one.bundle.rootfs / "bar").mkdir()
    (one.bundle.path / "proc2").mkdir()
    (one.bundle.rootfs / name).rmdir()
    (one.bundle.rootfs / name).symlink_to(target.replace("OUTSIDE", str(outside)))
    index = next(i for i, m in enumerate(one.bundle.config["mounts"]) if m["destination"] == f"/{name}")
    # runc's conformance test expects these words
    refused(one.create(check=False), f"/mounts/{index}/destination", "must be mounted on ordinary directory")


@pytest.mark.row("T06")
@pytest.mark.pyrunc_only("runc 1.1.5 is open to this race")
def test_destination_that_changes_is_never_followed_out(container: Make, box: Box) -> None:
    """CVE-2021-30465: a directory on the path becomes a link to / between the look-up and the
    mount."""
    canary = box.path / "canary"
    (canary / "sub").mkdir(parents=True)
    source = box.path / "source"
    source.mkdir()
    one = container("report", edits={"/mounts/-": bind("/a/b/sub", source)})
    (one.bundle.rootfs / "a/b/sub").mkdir(parents=True)
    (one.bundle.rootfs / "a/link").symlink_to(canary)
    before = mountinfo()
    won = 0
    with swapping(one.bundle.rootfs / "a/b", one.bundle.rootfs / "a/link"):
        for _ in range(60 * ROUNDS):
            result = one.run(check=False)
            if result.rc == 0:
                won += 1
                inside = [m for m in parse_mountinfo(result.report["mountinfo"]) if m.dest.endswith("/sub")]
                assert len(inside) == 1, "what was mounted is not inside the root"
            else:  # losing the race is an error, never a mount elsewhere
                one.delete("--force")
            assert os.listdir(canary) == ["sub"]
            assert os.listdir(canary / "sub") == []
    assert mountinfo() == before, "a mount escaped"
    assert won, "no container started at all: nothing was tested"


@pytest.mark.row("T07")
@pytest.mark.pyrunc_only("runc 1.1.5 makes missing directories by path")
@pytest.mark.parametrize("kind", ["directory", "file"])
def test_missing_destination_is_created_inside(container: Make, box: Box, kind: str) -> None:
    """CVE-2024-45310: the missing mount point was created at the target of the exchanged link."""
    canary = box.path / "canary"
    canary.mkdir()
    source = box.path / "source"
    if kind == "directory":
        source.mkdir()
    else:
        source.touch()
    one = container("exit", "0", edits={"/mounts/-": bind("/a/b/new/deep/name", source)})
    (one.bundle.rootfs / "a/b").mkdir(parents=True)
    (one.bundle.rootfs / "a/link").symlink_to(canary)
    won = 0
    with swapping(one.bundle.rootfs / "a/b", one.bundle.rootfs / "a/link"):
        for _ in range(40 * ROUNDS):
            result = one.run(check=False)
            won += result.rc == 0
            if result.rc != 0:
                one.delete("--force")
            assert not tree(canary), "a mount point was made outside"
            for place in ("a/b/new", "a/link/new"):  # so that it is missing the next time
                _remove(one.bundle.rootfs / place)
    assert won, "no container started at all: nothing was tested"


def _remove(top: Path) -> None:
    """Remove what the mounts left behind, wherever the exchange has currently put it."""
    for path in (top / "deep/name", top / "deep", top):
        try:
            path.rmdir() if path.is_dir() else path.unlink()
        except OSError:
            pass


@pytest.mark.row("T08")
@pytest.mark.parametrize("target", ["ABSOLUTE", "../../../../../../..OUTSIDE", "chain"])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_links_in_a_destination_count_from_the_root(container: Make, box: Box, target: str, depth: int) -> None:
    """CVE-2019-18837: a link in each component of a destination is resolved as the container
    would."""
    outside = box.path / "outside"
    (outside / "two/three/here").mkdir(parents=True)  # the requested file exists outside
    (outside / "three/here").mkdir(parents=True)
    (outside / "here").mkdir()
    before = tree(outside)
    one = container("lstat", "/one/two/three/here", edits={"/mounts/-": tmpfs("/one/two/three/here")})
    parts = ["one", "two", "three"]
    at = one.bundle.rootfs.joinpath(*parts[:depth])
    at.mkdir(parents=True, exist_ok=True)
    link = at / parts[depth]
    if target == "chain":
        link.symlink_to("/first")
        (one.bundle.rootfs / "first").symlink_to("second/../second")
        (one.bundle.rootfs / "second").symlink_to(outside)
    else:
        link.symlink_to(target.replace("ABSOLUTE", str(outside)).replace("OUTSIDE", str(outside)))
    (seen,) = one.run().objects
    assert errno_of(seen) == "", "the mount is not where the container sees it"
    assert seen["type"] == "d"
    assert tree(outside) == before


@pytest.mark.row("T25")
@pytest.mark.parametrize("loop", [False, True])
def test_target_that_is_a_link(container: Make, box: Box, refused: Refused, loop: bool) -> None:
    """CVE-2015-1335: the last component is itself a link that leads outside; the bind must not
    cover a file of the host."""
    outside = box.path / "outside"
    outside.write_text("untouched")
    source = box.path / "source"
    source.write_text("bound")
    one = container("read", "/here", edits={"/mounts/-": bind("/here", source)})
    here = one.bundle.rootfs / "here"
    if loop:
        here.symlink_to("there")
        (one.bundle.rootfs / "there").symlink_to("here")
        refused(one.create(check=False), f"/mounts/{len(one.bundle.config['mounts']) - 1}/destination", "ELOOP")
        return
    here.symlink_to(outside)
    before = mountinfo()
    assert one.run().objects[0]["text"] == "bound"
    assert outside.read_text() == "untouched"
    assert mountinfo() == before


DEV_LINKS = ["ABSOLUTE", "../../outside", "chain"]


@pytest.mark.row("T12")
@pytest.mark.pyrunc_only("runc 1.1.5 puts links, crun 1.27 a dozen names into the directory outside")
@pytest.mark.parametrize("target", DEV_LINKS)
@pytest.mark.parametrize("mounted", [False, True])
def test_dev_that_is_a_link(container: Make, box: Box, target: str, mounted: bool) -> None:
    """CVE-2026-41579, CVE-2026-47766: a /dev that is a link redirected device nodes and links to
    the host."""
    outside = box.path / "outside"
    outside.mkdir()
    one = container("exit", "0")
    dev = one.bundle.rootfs / "dev"
    dev.rmdir()
    if target == "chain":
        dev.symlink_to("devices")
        (one.bundle.rootfs / "devices").symlink_to("../../outside")
    else:
        dev.symlink_to(target.replace("ABSOLUTE", str(outside)))
    if not mounted:
        without_mounts(one, "/dev")
    before = mountinfo()
    result = one.run(check=False)
    assert not tree(outside)
    assert mountinfo() == before
    if not mounted:
        assert result.rc != 0, "the image's /dev is a link: nothing good comes of filling it"


@pytest.mark.row("T12")
@pytest.mark.parametrize("name", ["pts", "shm", "mqueue", "fd"])
def test_names_in_dev_that_are_links(container: Make, box: Box, name: str) -> None:
    outside = box.path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    before = tree(outside)
    one = container("ls", f"/dev/{name}/")
    without_mounts(one, "/dev")
    one.bundle.config["mounts"].append(tmpfs(f"/dev/{name}"))
    (one.bundle.rootfs / "dev" / name).symlink_to(outside)
    result = one.run(check=False)
    assert tree(outside) == before
    if result.rc == 0:
        (listed,) = result.objects
        assert "secret" not in listed["names"] or errno_of(listed)
