"""Idmapped mounts: the owner of a file depends on the mount through which it is accessed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.config import DELETE
from integration.harness import Box, Container
from integration.machine import kernel, parse_mountinfo
from integration.test_userns import HOST, KINDS, MAPS, SIZE, Pod, edits, own

Make = Callable[..., Container]
Refused = Callable[..., None]
pytestmark = pytest.mark.pyrunc_only("runc 1.1.5 has no idmapped mounts")


@pytest.fixture
def volume(box: Box) -> Iterator[Path]:
    """A mount with a file of root and a file of user 1000, and another mount in `below`."""
    path = box.path / "volume"
    for place in (path, path / "below"):
        place.mkdir()
        # tmpfs cannot be idmapped before Linux 6.3; disk filesystems can.
        how = ["-t", "tmpfs", "tmpfs"] if kernel() >= (6, 3) else ["--bind", str(place)]
        subprocess.run(["mount", *how, str(place)], check=True)
        (place / "roots").write_text("r")
        (place / "users").write_text("u")
        os.chown(place / "users", 1000, 1000)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-R", str(path)], check=True)


def bind(source: Path | str, *options: str, **more: Any) -> dict[str, Any]:
    return {"destination": "/mnt", "type": "bind", "source": str(source), "options": list(options), **more}


def mapping(inside: int, outside: int, size: int = 1) -> dict[str, Any]:
    one = [{"containerID": inside, "hostID": outside, "size": size}]
    return {"uidMappings": one, "gidMappings": one}


STATS = ("stat", "/mnt/roots", "--", "stat", "/mnt/users", "--", "stat", "/mnt/below/roots")


def owners(one: Container) -> list[int]:
    return [item["uid"] for item in one.run().objects]


@pytest.mark.parametrize(
    ("options", "below"), [(("rbind", "idmap"), 65534), (("rbind", "ridmap"), 0), (("rbind", "ridmap", "ro"), 0)]
)
def test_mapping_of_the_container(container: Make, volume: Path, options: tuple[str, ...], below: int) -> None:
    one = own(container(*STATS, edits=edits({"/mounts/-": bind(volume, *options)})))
    assert owners(one) == [0, 1000, below]
    assert (volume / "roots").stat().st_uid == 0


def test_files_created_inside_belong_to_root_outside(container: Make, volume: Path) -> None:
    more = {"/mounts/-": bind(volume, "rbind", "idmap")}
    own(container("mkdir", "/mnt/made", edits=edits(more))).run()
    assert (volume / "made").stat().st_uid == 0


def test_mapping_of_the_mount(container: Make, volume: Path) -> None:
    """The mount's own mappings apply in a container with others; no option is needed."""
    more = {"/mounts/-": bind(volume, "rbind", **mapping(1000, HOST + 7))}
    one = own(container(*STATS, edits=edits(more)))
    assert owners(one) == [65534, 7, 65534]


def test_mapping_of_the_mount_without_a_user_namespace(container: Make, volume: Path) -> None:
    one = container(*STATS, edits={"/mounts/-": bind(volume, "rbind", "idmap", **mapping(0, 5000, 2000))})
    assert owners(one) == [5000, 6000, 0]


def test_an_idmapped_mount_is_private(container: Make, volume: Path) -> None:
    """Host mounts that propagate below it would show the owners that they have on the host."""
    mapped = bind(volume, "rbind", "idmap", **mapping(0, 5000, 2000))
    shown = parse_mountinfo(container(edits={"/mounts/-": mapped}).run().report["mountinfo"])
    assert {one.dest: one.shared for one in shown if one.dest.startswith("/mnt")} == {"/mnt": "", "/mnt/below": ""}
    mapped["options"].append("rslave")
    shown = parse_mountinfo(container(edits={"/mounts/-": mapped}).run().report["mountinfo"])
    assert [one.shared[:6] for one in shown if one.dest.startswith("/mnt")] == ["master"] * 2


def test_relative_source_and_a_file(container: Make) -> None:
    one = own(
        container("stat", "/file", edits=edits({"/mounts/-": bind("data", "bind", "idmap", destination="/file")}))
    )
    (one.bundle.path / "data").write_text("x")
    assert owners(one) == [0]


def test_joined_user_namespace(container: Make, volume: Path, box: Box) -> None:
    held = Pod(box)
    try:
        more = {"/mounts/-": bind(volume, "rbind", "idmap")}
        assert owners(own(container(*STATS, edits=edits(more, user=held.path("user"))))) == [0, 1000, 65534]
    finally:
        held.close()


@pytest.mark.parametrize(("option", "below"), [("idmap", 65534), ("ridmap", 0)])
def test_joined_user_namespace_whose_mapping_is_not_repeated(
    container: Make, volume: Path, box: Box, option: str, below: int
) -> None:
    held = Pod(box)
    try:
        changes = edits({"/mounts/-": bind(volume, "rbind", option)}, user=held.path("user"))
        changes |= {"/linux/uidMappings": DELETE, "/linux/gidMappings": DELETE}
        assert owners(own(container(*STATS, edits=changes))) == [0, 1000, below]
    finally:
        held.close()


def test_the_runtimes_own_user_namespace_has_no_mapping_for_it(container: Make, volume: Path, box: Box) -> None:
    spaces = [{"type": kind} for kind in KINDS] + [{"type": "user", "path": "/proc/self/ns/user"}]
    changes = {"/mounts/-": bind(volume, "rbind", "idmap"), "/linux/namespaces": spaces}
    result = container(edits=changes).create(check=False)
    assert result.rc != 0 and (not box.runtime.is_pyrunc or "/mounts/6/options" in result.err), result


def test_source_that_only_the_host_may_enter(container: Make, volume: Path) -> None:
    volume.parent.joinpath("volume").chmod(0o700)
    one = own(container(*STATS, edits=edits({"/mounts/-": bind(volume / "below", "bind", "idmap")})))
    one.bundle.config["process"]["args"] = ["/probe", "stat", "/mnt/users"]
    assert owners(one) == [1000]


def test_mounts_created_inside_stay_inside(container: Make, volume: Path) -> None:
    subprocess.run(["mount", "--make-rshared", str(volume)], check=True)
    inner = {"destination": "/mnt/below", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]}
    one = own(container("report", edits=edits({"/mounts/-": bind(volume, "rbind", "idmap")})))
    one.bundle.config["mounts"].append(inner)
    one.create()
    assert (volume / "below/roots").exists()
    one.delete("--force")


def test_no_helper_is_left(container: Make, volume: Path, box: Box) -> None:
    one = own(container(*STATS, edits=edits({"/mounts/-": bind(volume, "rbind", "idmap")})))
    one.create()
    assert list(box.children()) == [one.pid]
    one.delete("--force")


@pytest.mark.parametrize("kind", ["proc", "sysfs"])
def test_filesystem_that_cannot_be_idmapped(container: Make, refused: Refused, kind: str) -> None:
    source = {"proc": "/proc/sys", "sysfs": "/sys/kernel"}[kind]
    one = own(container(edits=edits({"/mounts/-": bind(source, "rbind", "idmap")})))
    refused(one.create(check=False), "/mounts/6", source, "/mnt", f"filesystem {kind}", "does not support idmapped")


def test_missing_source(container: Make, refused: Refused) -> None:
    one = own(container(edits=edits({"/mounts/-": bind("/no/such", "rbind", "idmap")})))
    refused(one.create(check=False), "/mounts/6/source", "/no/such", "ENOENT")


@pytest.mark.parametrize(
    ("mount", "pointer", "words"),
    [
        (bind("/tmp", "rbind", "idmap"), "/mounts/6/options", "mappings for it"),
        (bind("/tmp", "rbind", uidMappings=MAPS), "/mounts/6/gidMappings", "uidMappings"),
        (
            {"destination": "/mnt", "type": "tmpfs", "source": "t", **mapping(0, 1)},
            "/mounts/6/uidMappings",
            "bind mount",
        ),
        (bind("/tmp", "rbind", **mapping(0, SIZE, 0)), "/mounts/6/uidMappings/0/size", "at least 1"),
    ],
)
def test_ids_that_cannot_be_mapped(
    container: Make, refused: Refused, mount: dict[str, Any], pointer: str, words: str
) -> None:
    refused(container(edits={"/mounts/-": mount}).create(check=False), pointer, words)
