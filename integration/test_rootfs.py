"""root: read-only, propagation, --no-pivot, masked and read-only paths. No part of the host's tree
stays reachable."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from integration.harness import Box, Container, errno_of
from integration.machine import parse_mountinfo

Make = Callable[..., Container]
Refused = Callable[..., None]


def test_root_is_the_bundles(container: Make) -> None:
    one = container("ls", "/", "--", "stat", "/", "--", "stat", "/..")
    names, root, above = one.run().objects
    assert {"probe", "bin", "etc", "proc"} <= set(names["names"])
    assert root["ino"] == above["ino"] == one.bundle.rootfs.stat().st_ino


def test_readonly_root(container: Make) -> None:
    one = container(
        "write", "/x", "y", "--", "write", "/dev/shm/x", "y", "--", "report", edits={"/root/readonly": True}
    )
    result = one.run()
    assert [errno_of(item) for item in result.objects[:2]] == ["EROFS", ""]
    root = next(m for m in parse_mountinfo(result.report["mountinfo"]) if m.dest == "/")
    assert "ro" in root.options


def test_readonly_root_gets_its_mount_points_first(container: Make) -> None:
    entry = {"destination": "/made/here", "type": "tmpfs", "source": "tmpfs", "options": []}
    one = container(
        "stat", "/made/here", edits={"/root/readonly": True, "/mounts/-": entry, "/process/cwd": "/work/dir"}
    )
    assert one.run().objects[0]["type"] == "d"
    assert (one.bundle.rootfs / "work/dir").is_dir()


def test_old_root_is_gone(container: Make, box: Box) -> None:
    result = container("report", "--", "stat", str(box.path)).run()
    assert errno_of(result.objects[1]) == "ENOENT"
    sources = {m.root for m in parse_mountinfo(result.report["mountinfo"]) if m.dest == "/"}
    assert len(sources) == 1


def test_no_pivot(container: Make, box: Box) -> None:
    one = container("report", "--", "ls", "/", "--", "stat", str(box.path))
    result = one.run("--no-pivot")
    assert "probe" in result.objects[1]["names"]
    assert errno_of(result.objects[2]) == "ENOENT"


def test_no_pivot_hides_full_proc(container: Make, box: Box) -> None:
    """With MS_MOVE the old mounts are only covered; a container that may mount must not find an
    unmasked procfs."""
    result = container("report").run("--no-pivot")
    procs = [m.dest for m in parse_mountinfo(result.report["mountinfo"]) if m.fstype == "proc" and m.root == "/"]
    assert procs == ["/proc"]


@pytest.mark.parametrize(
    ("value", "word"),
    [(None, ""), ("", ""), ("private", ""), ("rprivate", ""), ("slave", "master:"), ("rslave", "master:")],
)
def test_propagation(container: Make, box: Box, value: str | None, word: str) -> None:
    edits = {"/linux/rootfsPropagation": value} if value is not None else {}
    result = container("report", edits=edits).run()
    root = next(m for m in parse_mountinfo(result.report["mountinfo"]) if m.dest == "/")
    assert word in root.shared if word else root.shared == "", root


@pytest.mark.pyrunc_only("runc 1.1.5 fails with EINVAL, and leaves a shared root private")
@pytest.mark.parametrize("value", ["unbindable", "runbindable", "shared", "rshared"])
def test_newer_propagation(container: Make, value: str) -> None:
    result = container("report", edits={"/linux/rootfsPropagation": value}).run()
    root = next(m for m in parse_mountinfo(result.report["mountinfo"]) if m.dest == "/")
    assert value.removeprefix("r") in root.shared


def test_bad_propagation(container: Make, refused: Refused) -> None:
    refused(container(edits={"/linux/rootfsPropagation": "foo"}).create(check=False), "/linux/rootfsPropagation", "foo")


def test_root_that_is_a_link(container: Make, refused: Refused) -> None:
    one = container()
    (one.bundle.path / "link").symlink_to("rootfs")
    one.bundle.config["root"]["path"] = "link"
    result = one.create(check=False)
    if result.rc == 0:  # resolving it once is also correct if the container starts in the right place
        assert one.state()["rootfs"] in (str(one.bundle.rootfs), str(one.bundle.path / "link"))
    else:
        refused(result, "/root/path")


def test_root_that_is_the_hosts(container: Make, refused: Refused) -> None:
    one = container(edits={"/root/path": "/"})
    refused(one.create(check=False), "/root/path" if one.box.runtime.is_pyrunc else "")


# --- masked and read-only paths -------------------------------------------------------------------


def _tree(one: Container) -> None:
    (one.bundle.rootfs / "m").mkdir()
    (one.bundle.rootfs / "m/dir").mkdir()
    (one.bundle.rootfs / "m/dir/inner").write_text("secret")
    (one.bundle.rootfs / "m/file").write_text("secret")


def test_masked(container: Make) -> None:
    one = container(
        *("read", "/m/file", "--", "stat", "/m/file", "--", "ls", "/m/dir", "--", "write", "/m/dir/x", "y"),
        edits={"/linux/maskedPaths": ["/m/file", "/m/dir", "/m/not-there", "/m/file", "/m/not/there"]},
    )
    _tree(one)
    read, stat, names, write = one.run().objects
    assert read["text"] == ""
    assert (stat["type"], stat["major"], stat["minor"]) == ("c", 1, 3)
    assert names["names"] == []
    assert errno_of(write) == "EROFS"
    assert (one.bundle.rootfs / "m/file").read_text() == "secret"


def test_masked_default_paths(container: Make) -> None:
    keys = container("read", "/proc/keys").run().objects[0]
    assert (keys["errno"], keys["text"]) == (0, "")


def test_the_mask_of_a_file_cannot_be_changed(container: Make, box: Box) -> None:
    """The mask's node is the host's /dev/null, here a copy of it: its owner and mode must not
    change."""
    copy = box.path / "null"
    os.mknod(copy, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    copy.chmod(0o666)
    subprocess.run(["mount", "--bind", copy, "/dev/null"], check=True)
    try:
        one = container(
            *("open", "/m/file", "w", "--", "chown", "/m/file", "41", "42", "--", "chmod", "/m/file", "0600"),
            edits={
                "/linux/maskedPaths": ["/m/file"],
                **{
                    f"/process/capabilities/{kind}": ["CAP_CHOWN", "CAP_FOWNER"]
                    for kind in ("bounding", "effective", "permitted")
                },
            },
        )
        _tree(one)
        written, chown, chmod = one.run().objects
        assert errno_of(written) == ""
        if one.box.runtime.name != "runc":  # it masks with the container's own node
            assert (errno_of(chown), errno_of(chmod)) == ("EROFS", "EROFS")
        now = copy.stat()
        assert (now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode)) == (0, 0, 0o666)
    finally:
        subprocess.run(["umount", "/dev/null"], check=True)


def test_masked_through_a_link(container: Make, box: Box) -> None:
    """The mask of a path that contains a link hides the target inside the root filesystem, and
    nothing outside."""
    canary = box.path / "canary"
    canary.write_text("untouched")
    one = container("read", "/m/file", edits={"/linux/maskedPaths": ["/alias/file", f"/out/{canary.name}"]})
    _tree(one)
    (one.bundle.rootfs / "alias").symlink_to("/m")
    (one.bundle.rootfs / "out").symlink_to(box.path)
    one.run(check=False)
    assert canary.read_text() == "untouched"


def test_readonly_paths(container: Make) -> None:
    one = container(
        *("write", "/m/file", "y", "--", "write", "/m/dir/x", "y", "--", "write", "/m/y", "y", "--", "read", "/m/file"),
        edits={"/linux/readonlyPaths": ["/m/file", "/m/dir", "/m/not-there"]},
    )
    _tree(one)
    file, inner, beside, read = one.run().objects
    assert [errno_of(file), errno_of(inner), errno_of(beside)] == ["EROFS", "EROFS", ""]
    assert read["text"] == "secret"


def test_the_root_as_a_readonly_path(container: Make) -> None:
    """Like root.readonly: mounts below it stay writable."""
    one = container(
        *("write", "/x", "y", "--", "write", "/tmp/x", "y", "--", "mkdir", "/dev/shm/x", "--", "report"),
        edits={"/linux/readonlyPaths": ["/", "/proc/sys", "/proc/.."]},
    )
    root, inner, below, report = one.run().objects
    assert [errno_of(root), errno_of(inner), errno_of(below)] == ["EROFS", "EROFS", ""]
    assert "ro" in next(m.options for m in parse_mountinfo(report["mountinfo"]) if m.dest == "/")


@pytest.mark.pyrunc_only("runc mounts something that / never shows, crun fails after it has hidden /dev/null")
def test_the_root_as_a_masked_path(container: Make, refused: Refused) -> None:
    result = container(edits={"/linux/maskedPaths": ["/"]}).create(check=False)
    refused(result, "/linux/maskedPaths/0", "not possible for the root itself")


def test_readonly_paths_keep_other_flags(container: Make) -> None:
    seen = parse_mountinfo(container().run().report["mountinfo"])
    sysctl = next(m for m in seen if m.dest == "/proc/sys")
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(sysctl.options)


@pytest.mark.pyrunc_only("runc 1.1.5 accepts relative paths")
@pytest.mark.parametrize("field", ["maskedPaths", "readonlyPaths"])
def test_relative_paths(container: Make, refused: Refused, field: str) -> None:
    refused(container(edits={f"/linux/{field}": ["/fine", "not/fine"]}).create(check=False), f"/linux/{field}/1")


def test_annotations_are_free(container: Make) -> None:
    edits: dict[str, Any] = {"/annotations": {"a": "", "with space": "x\ny", "org.example": "z" * 5000}}
    one = container("exit", "0", edits=edits)
    one.create()
    assert one.state()["annotations"] == edits["/annotations"]


def test_bundle_directory_is_left_alone(container: Make) -> None:
    one = container("exit", "0")
    one.bundle.save()
    before = sorted(os.listdir(one.bundle.path))
    one.run()
    assert sorted(os.listdir(one.bundle.path)) == before
