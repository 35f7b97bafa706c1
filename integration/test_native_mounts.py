"""MOUNT on a real mount table: new filesystems, and destinations in hostile root filesystems."""

from __future__ import annotations

import ctypes
import os
import pathlib
import threading
from typing import Any

import pytest

from integration.native_fs import (
    CHR,
    NOATIME,
    NODEV,
    NOEXEC,
    NOSUID,
    PRIVATE,
    RDONLY,
    SHARED,
    Script,
    below,
    failure,
    lines,
    mounts,
    skip_marks,
)
from pyrunc.plan import ops

pytest_plugins = ["integration.native_fs"]
pytestmark = skip_marks


# --- new filesystems ------------------------------------------------------------------------------


def test_tmpfs_with_flags_and_options(begun: Script, root: pathlib.Path) -> None:
    begun.op(
        "mount",
        fstype="tmpfs",
        source="named",
        dest="/a/b",
        data=["mode=751", "size=64k"],
        attr_set=NOSUID | NODEV | NOATIME,
    )
    info = begun.ask("mountinfo")
    mount = below(begun.run()[info], root)["/a/b"]
    assert mount.type == "tmpfs" and mount.source == "named"
    assert {"nosuid", "nodev", "noatime", "rw"} <= set(mount.options)
    assert {"mode=751", "size=64k"} <= set(mount.super.split(","))


def test_kernel_text_of_an_unknown_option(begun: Script) -> None:
    bad = begun.refused("mount", fstype="tmpfs", source="t", dest="/t", data=["mode=755", "bogus=1"])
    flag = begun.refused("mount", fstype="tmpfs", source="t", dest="/t", data=["nosuchflag"])
    value = begun.refused("mount", fstype="tmpfs", source="t", dest="/t", data=["size=1k", "mode=9"])
    answers = begun.run()
    assert failure(answers[bad]) == ("EINVAL", "fsconfig", 3, 1, "tmpfs: Unknown parameter 'bogus'")
    assert failure(answers[flag]) == ("EINVAL", "fsconfig", 3, 0, "tmpfs: Unknown parameter 'nosuchflag'")
    assert failure(answers[value])[:4] == ("EINVAL", "fsconfig", 3, 1) and "'mode'" in failure(answers[value])[4]


def test_unknown_filesystem_type(begun: Script) -> None:
    bad = begun.refused("mount", fstype="nosuchfs", source="x", dest="/t")
    assert failure(begun.run()[bad]) == ("ENODEV", "fsopen", 0, 0, "filesystem type unknown to this kernel")


def test_failed_mount_leaves_no_mount_and_no_descriptor(begun: Script) -> None:
    before, fds = begun.ask("mountinfo"), begun.ask("fds")
    begun.refused("mount", fstype="tmpfs", source="t", dest="/t", data=["bogus"])
    begun.refused("mount", policy=ops.P_MOUNT_BIND, source="/no/such", dest="/t")
    begun.refused("mount", policy=ops.P_MOUNT_BIND, source="/etc/passwd", dest="/proc-not-there")
    begun.refused("mount", fstype="tmpfs", source="t", dest="/")
    begun.refused("mount", policy=ops.P_MOUNT_REMOUNT, dest="/t")
    begun.refused("dev_node", kind=CHR, major=1, minor=3, path="/t")
    begun.refused("mask_path", path="/")
    after, fds_after = begun.ask("mountinfo"), begun.ask("fds")
    answers = begun.run()
    assert answers[fds] == answers[fds_after]
    assert len(lines(answers[after])) == len(lines(answers[before])) + 1  # the bind of a file


def test_tmpfs_inherits_the_mode_of_an_existing_directory(begun: Script, root: pathlib.Path) -> None:
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1733)
    for name in ("tmp", "new"):
        begun.op("mount", policy=ops.P_MOUNT_INHERIT_MODE, fstype="tmpfs", source="t", dest=f"/{name}")
    old, new = begun.ask("stat", root / "tmp"), begun.ask("stat", root / "new")
    answers = begun.run()
    assert answers[old].startswith("041733 ")
    assert answers[new].startswith("041777 ")


def test_long_options_may_name_what_is_in_the_root(begun: Script, root: pathlib.Path) -> None:
    """They behave like short names: the mount must not hide the files that they name."""
    layers = [root / ("layer" * 30 + str(i)) for i in range(3)]
    for layer in layers:
        layer.mkdir()
        (layer / layer.name[-3:]).write_text("x")
    lower = ":".join(map(str, [root / "place", *layers]))
    (root / "place").mkdir()
    begun.op("mount", fstype="overlay", source="overlay", dest="/place", data=[f"lowerdir={lower}"])
    names = begun.ask("ls", root / "place")
    answers = begun.run()
    assert sorted(answers[names].split()) == sorted(layer.name[-3:] for layer in layers)


def test_options_too_long_for_fsconfig(begun: Script, root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """overlay with a lowerdir of more than 255 bytes: fsconfig(2) answers EINVAL, so mount(2) on
    the descriptor is used."""
    layers = [tmp_path / ("layer" * 30 + str(i)) for i in range(3)]
    for layer in layers:
        layer.mkdir()
        (layer / layer.name[-3:]).write_text("x")
    (root / "link").symlink_to("/place")
    data = ["lowerdir=" + ":".join(map(str, layers))]
    mount = begun.refused(
        "mount",
        fstype="overlay",
        source="overlay",
        dest="/link",
        data=data,
        attr_set=RDONLY | NOEXEC,
        propagation=SHARED,
    )
    cwd, info, names = begun.ask("cwd"), begun.ask("mountinfo"), begun.ask("ls", root / "place")
    bad = begun.refused("mount", fstype="tmpfs", source="t", dest="/t", data=["size=" + "1" * 300, "x" * 4000])
    answers = begun.run()
    if answers[mount].startswith("fail\tENODEV"):
        pytest.skip("this kernel has no overlay")
    assert answers[mount] == "ok"
    found = below(answers[info], root)["/place"]
    assert found.type == "overlay" and {"ro", "noexec"} <= set(found.options) and found.kinds() == ["shared"]
    assert sorted(answers[names].split()) == sorted(layer.name[-3:] for layer in layers)
    assert [m.point for m in mounts(answers[info]) if m.point.startswith(str(root))] == [str(root), f"{root}/place"]
    assert answers[cwd] == os.getcwd()
    assert failure(answers[bad])[:4] == ("E2BIG", "mount", 3, 1)


def test_a_destination_that_is_replaced_while_mount_is_called(
    begun: Script, root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Mounts use descriptors, not paths: replacing the destination has no effect, and no mount is
    visible without its flags."""
    layers = [tmp_path / ("layer" * 30 + str(i)) for i in range(2)]
    for made in (*layers, root / "place", root / "theirs"):
        made.mkdir()
    data = ["lowerdir=" + ":".join(map(str, layers))]
    begun.ask("trap", "before", "mount_setattr", 0, "rename", root / "theirs", root / "place")
    refused = begun.refused("mount", fstype="overlay", source="overlay", dest="/place", data=data, attr_set=NOSUID)
    info = begun.ask("mountinfo")
    answers = begun.run()
    if answers[refused].startswith("fail\tENODEV"):
        pytest.skip("this kernel has no overlay")
    assert failure(answers[refused])[:2] == ("ENOENT", "move_mount")
    assert below(answers[info], root) == {}


def test_cgroup2(begun: Script, root: pathlib.Path) -> None:
    begun.op(
        "mount",
        policy=ops.P_MOUNT_CGROUP,
        fstype="cgroup",
        source="/sys",
        dest="/sys/fs/cgroup",
        attr_set=RDONLY | NOSUID,
    )
    bad = begun.refused("mount", policy=ops.P_MOUNT_CGROUP, fstype="cgroup", source="/sys", dest="/cg", data=["bogus"])
    info = begun.ask("mountinfo")
    answers = begun.run()
    mount = below(answers[info], root)["/sys/fs/cgroup"]
    assert mount.type == "cgroup2" and {"ro", "nosuid"} <= set(mount.options)
    assert failure(answers[bad])[:4] == ("EINVAL", "fsconfig", 3, 0), "a wrong option is no reason for the fallback"


def test_fallbacks_in_a_user_namespace(begun: Script, root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Neither cgroup2 nor sysfs can be mounted if its namespace belongs to another user
    namespace."""
    own = tmp_path / "own-cgroup"
    own.mkdir()
    (own / "cgroup.marker").touch()
    bare = begun.refused("mount", fstype="sysfs", source="sysfs", dest="/bare")
    nowhere = begun.refused("mount", policy=ops.P_MOUNT_CGROUP, fstype="cgroup", source="/no/such", dest="/nowhere")
    begun.op("mount", policy=ops.P_MOUNT_HOST_BIND, fstype="sysfs", source="/sys", dest="/sys", attr_set=RDONLY)
    begun.op("mount", policy=ops.P_MOUNT_CGROUP, fstype="cgroup", source=str(own), dest="/cg", attr_set=RDONLY | NOEXEC)
    info, names = begun.ask("mountinfo"), begun.ask("ls", root / "cg")
    answers = begun.run("-u", "-N")
    assert failure(answers[bare])[0] == "EPERM"
    assert failure(answers[nowhere])[:2] == ("EPERM", "fsconfig")
    found = below(answers[info], root)
    assert found["/sys"].type == "sysfs"
    assert "ro" in found["/sys"].options
    assert [path for path, m in found.items() if path.startswith("/sys") and "ro" not in m.options] == []
    assert answers[names].split() == ["cgroup.marker"] and {"ro", "noexec"} <= set(found["/cg"].options)


# --- destinations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dest", ["/", "//", "/.", "/a/..", "/back", "../.."])
@pytest.mark.parametrize("bind", [False, True])
def test_not_over_the_root(begun: Script, root: pathlib.Path, dest: str, bind: bool) -> None:
    (root / "a").mkdir()
    (root / "back").symlink_to("/")
    args = {"policy": ops.P_MOUNT_BIND, "source": "/etc"} if bind else {"fstype": "tmpfs", "source": "t"}
    bad = begun.refused("mount", dest=dest, **args)
    assert failure(begun.run()[bad]) == ("EINVAL", "move_mount", 2, 0, "mounting over / is not possible")


@pytest.mark.parametrize("link", ["{outside}", "../outside", "../../../../../../../../../{outside}", "hop"])
@pytest.mark.parametrize("tail", ["", "/sub/dir"])
def test_links_in_destinations_stay_inside(
    begun: Script, root: pathlib.Path, outside: pathlib.Path, link: str, tail: str
) -> None:
    """T08 (CVE-2019-18837): the destination stays inside, even if its target does not exist
    there."""
    (root / "evil").symlink_to(link.format(outside=outside))
    (root / "hop").symlink_to(outside)
    begun.op("mount", fstype="tmpfs", source="t", dest="/evil" + tail)
    begun.op("mount", policy=ops.P_MOUNT_BIND, source="/etc/hostname", dest=f"/evil{tail}/name")
    info = begun.ask("mountinfo")
    points = [m.point for m in mounts(begun.run()[info])]
    assert sum(point.startswith(f"{root}/") for point in points) == 2
    assert not any(point.startswith(str(outside)) for point in points)


@pytest.mark.parametrize("kind", ["bind", "tmpfs", "file"])
def test_destination_exchanged_while_mounting(
    begun: Script, root: pathlib.Path, outside: pathlib.Path, kind: str
) -> None:
    """T06, T07 (CVE-2021-30465, CVE-2024-45310): a directory continuously becomes a link to the
    host and back."""
    (root / "a" / "dir").mkdir(parents=True)
    (root / "a" / "link").symlink_to(outside)
    (root / str(outside)[1:]).mkdir(parents=True)
    args: dict[str, Any] = {
        "tmpfs": {"fstype": "tmpfs", "source": "t"},
        "bind": {"policy": ops.P_MOUNT_BIND, "source": "/etc"},
        "file": {"policy": ops.P_MOUNT_BIND, "source": "/etc/hostname"},
    }
    tries = [begun.refused("mount", dest=f"/a/dir/m{i}", **args[kind]) for i in range(300)]
    info = begun.ask("mountinfo")
    answers: list[str] = []
    with swapping(root / "a" / "dir", root / "a" / "link"):
        answers = begun.run()
    good = [answers[i] for i in tries if answers[i] == "ok"]
    assert len(good) > 50, "the race was lost too often to mean anything"
    points = [m.point for m in mounts(answers[info])]
    assert not any(point.startswith(str(outside)) for point in points)


class swapping:  # used like a statement
    """Exchange two names continuously and atomically while the block runs (renameat2,
    RENAME_EXCHANGE)."""

    def __init__(self, one: pathlib.Path, two: pathlib.Path) -> None:
        self.names = os.fsencode(one), os.fsencode(two)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.loop)

    def loop(self) -> None:
        libc = ctypes.CDLL(None)
        while not self.stop.is_set():
            libc.renameat2(-100, self.names[0], -100, self.names[1], 2)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *exc: object) -> None:
        self.stop.set()
        self.thread.join()


@pytest.mark.parametrize("what", ["/bar", "../outside", "/proc2", "missing"])
@pytest.mark.parametrize("fstype", ["proc", "sysfs"])
def test_proc_and_sysfs_want_an_ordinary_directory(
    begun: Script, root: pathlib.Path, outside: pathlib.Path, what: str, fstype: str
) -> None:
    """T05 (CVE-2019-19921, CVE-2023-27561)."""
    (root / "bar").mkdir()
    (root / "proc").symlink_to(what)
    bad = begun.refused("mount", policy=ops.P_MOUNT_PLAIN_DIR, fstype=fstype, source=fstype, dest="/proc")
    below_it = begun.refused("mount", policy=ops.P_MOUNT_PLAIN_DIR, fstype=fstype, source=fstype, dest="/proc/x")
    answers = begun.run()
    for index in (bad, below_it):
        assert failure(answers[index]) == ("ENOTDIR", "openat2", 2, 0, "must be mounted on ordinary directory")


def test_proc_on_a_file_is_refused_and_a_missing_directory_is_created(begun: Script, root: pathlib.Path) -> None:
    (root / "file").touch()
    bad = begun.refused("mount", policy=ops.P_MOUNT_PLAIN_DIR, fstype="proc", source="proc", dest="/file")
    begun.proc()
    info = begun.ask("mountinfo")
    answers = begun.run()
    assert failure(answers[bad])[0] == "ENOTDIR"
    assert below(answers[info], root)["/proc"].type == "proc"


def test_nothing_covers_part_of_proc(begun: Script, root: pathlib.Path) -> None:
    """T04 (CVE-2019-16884): the type of the destination decides, not its name."""
    (root / "p").symlink_to("/proc/sys")
    begun.proc()
    bad = [
        begun.refused("mount", fstype="tmpfs", source="t", dest=dest)
        for dest in ("/proc", "/proc/sys", "/p", "/proc/self")
    ]
    bad += [
        begun.refused("mount", policy=ops.P_MOUNT_BIND, source="/etc", dest=dest) for dest in ("/proc", "/p/kernel")
    ]
    bad.append(begun.refused("mount", policy=ops.P_MOUNT_BIND, source="/etc/hostname", dest="/proc/uptime"))
    bad.append(begun.refused("mount", policy=ops.P_MOUNT_BIND, source="/proc/sys", dest="/proc"))
    bad.append(begun.refused("mount", fstype="proc", source="proc", dest="/proc/sys"))
    begun.op("mount", policy=ops.P_MOUNT_BIND | ops.P_MOUNT_IN_PROC, source="/etc/hostname", dest="/proc/uptime")
    begun.proc()
    begun.op("mount", policy=ops.P_MOUNT_BIND | ops.P_MOUNT_RECURSIVE, source="/proc", dest="/proc")
    answers = begun.run()
    for index in bad:
        assert failure(answers[index]) == ("EPERM", "move_mount", 2, 0, "would cover part of /proc")


def test_only_a_procfs_is_bound_to_proc(begun: Script, root: pathlib.Path) -> None:
    """T04: the source is checked even if no procfs is mounted yet that it could cover."""
    policy = ops.P_MOUNT_BIND | ops.P_MOUNT_PLAIN_DIR
    bad = [
        begun.refused("mount", policy=policy, fstype="proc", source=source, dest="/proc")
        for source in ("/etc", "/proc/sys", "/proc/uptime")
    ]
    begun.op("mount", policy=policy, fstype="proc", source="/proc", dest="/proc")
    info = begun.ask("mountinfo")
    answers = begun.run()
    for index in bad:
        assert failure(answers[index])[:3] == ("EPERM", "open_tree", 1)
    assert below(answers[info], root)["/proc"].type == "proc"


@pytest.mark.parametrize("fstype", ["proc", "sysfs", "mqueue", "tmpfs", "devpts"])
def test_read_only_from_the_start(begun: Script, root: pathlib.Path, fstype: str) -> None:
    """As with mount(2): the superblock is read-only as well, unless others use it read-write
    already."""
    begun.op("mount", fstype=fstype, source=fstype, dest="/m", attr_set=RDONLY, data=["ro"])
    info = begun.ask("mountinfo")
    assert "ro" in below(begun.run("-N")[info], root)["/m"].options


def test_mounts_leave_no_descriptor_open(begun: Script, root: pathlib.Path) -> None:
    before = begun.ask("fds")
    begun.proc()
    begun.dev()
    begun.op(
        "mount",
        policy=ops.P_MOUNT_BIND,
        source="/etc/hostname",
        dest="/deep/er/name",
        attr_set=RDONLY,
        propagation=PRIVATE,
    )
    begun.op("dev_node", kind=CHR, mode=0o666, major=1, minor=3, path="/dev/null")
    begun.op("dev_node", kind=CHR, mode=0o666, major=1, minor=3, path="/dev/null")
    begun.op("dev_link", target="/proc/self/fd", path="/dev/fd")
    begun.op("mount", policy=ops.P_MOUNT_REMOUNT | ops.P_MOUNT_BIND, dest="/dev", attr_set=NOEXEC)
    begun.op("remount_ro", dest="/dev")
    begun.op("pivot")
    begun.op("readonly_path", path="/proc/sys")
    begun.op("mask_path", path="/proc/kcore")
    begun.op("mask_path", path="/proc/irq")
    begun.ask("fds")
    answers = begun.run()
    assert answers[-1] == answers[before]
