"""Binds, remounts, propagation and tmpcopyup on a real mount table."""

from __future__ import annotations

import errno
import os
import pathlib
import socket
import stat
from typing import Any

import pytest

from integration.native_fs import (
    ATIME,
    CHR,
    MS_SHARED,
    MS_UNBINDABLE,
    NOATIME,
    NODEV,
    NOEXEC,
    NOSUID,
    NOSYMFOLLOW,
    PRIVATE,
    RDONLY,
    REC,
    SHARED,
    SLAVE,
    STRICTATIME,
    UNBINDABLE,
    Script,
    below,
    failure,
    skip_marks,
)
from pyrunc.plan import ops

pytest_plugins = ["integration.native_fs"]
pytestmark = skip_marks


# --- binds ----------------------------------------------------------------------------------------


def test_bind_with_flags(begun: Script, root: pathlib.Path, source: pathlib.Path) -> None:
    begun.op("mount", policy=ops.P_MOUNT_BIND, source=str(source), dest="/d", attr_set=RDONLY | NOSUID | NOEXEC)
    begun.op(
        "mount", policy=ops.P_MOUNT_BIND, source=str(source / "file"), dest="/new/f", attr_set=NOATIME, attr_clr=ATIME
    )
    info, text, write = begun.ask("mountinfo"), begun.ask("cat", root / "new/f"), begun.ask("write", root / "d/x", "x")
    answers = begun.run()
    found = below(answers[info], root)
    assert {"ro", "nosuid", "noexec"} <= set(found["/d"].options)
    assert "noatime" in found["/new/f"].options and "rw" in found["/new/f"].options
    assert answers[text] == "content"
    assert answers[write] == "EROFS"
    assert (
        stat.S_IMODE((root / "new/f").stat().st_mode) == 0o644 and stat.S_IMODE((root / "new").stat().st_mode) == 0o755
    )


def test_bind_that_cannot_be(begun: Script, root: pathlib.Path, source: pathlib.Path) -> None:
    (root / "dir").mkdir()
    (root / "file").touch()
    missing = begun.refused("mount", policy=ops.P_MOUNT_BIND, source="/no/such", dest="/x")
    on_dir = begun.refused("mount", policy=ops.P_MOUNT_BIND, source=str(source / "file"), dest="/dir")
    on_file = begun.refused("mount", policy=ops.P_MOUNT_BIND, source=str(source), dest="/file")
    answers = begun.run()
    assert failure(answers[missing])[:3] == ("ENOENT", "open_tree", 1)
    assert failure(answers[on_dir]) == (
        "EISDIR",
        "openat2",
        2,
        0,
        "the source is not a directory, but the destination is one",
    )
    assert failure(answers[on_file])[:3] == ("ENOTDIR", "openat2", 2)
    assert not (root / "x").exists()


def test_recursive_binds(begun: Script, root: pathlib.Path, source: pathlib.Path) -> None:
    begun.ask("mount", "t", source / "sub", "tmpfs", 0, "")
    both = ops.P_MOUNT_BIND | ops.P_MOUNT_RECURSIVE
    begun.op("mount", policy=ops.P_MOUNT_BIND, source=str(source), dest="/flat")
    begun.op("mount", policy=both, source=str(source), dest="/top", attr_set=RDONLY)
    begun.op("mount", policy=both, source=str(source), dest="/all", rec_set=RDONLY | NOSUID)
    begun.op("mount", policy=both, source=str(source), dest="/mixed", rec_set=RDONLY, rec_clr=ATIME)
    info = begun.ask("mountinfo")
    found = below(begun.run()[info], root)
    assert "/flat/sub" not in found
    assert "ro" in found["/top"].options and "rw" in found["/top/sub"].options
    for path in ("/all", "/all/sub"):
        assert {"ro", "nosuid"} <= set(found[path].options)
    assert "relatime" in found["/mixed/sub"].options


def test_source_link_is_followed(begun: Script, root: pathlib.Path, source: pathlib.Path) -> None:
    (source / "link").symlink_to("file")
    begun.op("mount", policy=ops.P_MOUNT_BIND, source=str(source / "link"), dest="/followed")
    info = begun.ask("mountinfo")
    found = below(begun.run()[info], root)
    assert found["/followed"].root.endswith("/source/file")


def test_tree_that_came_with_the_plan(begun: Script, root: pathlib.Path, source: pathlib.Path) -> None:
    begun.ask("slot", 7, source)
    policy = ops.P_MOUNT_BIND | ops.P_MOUNT_SOURCE_FD
    begun.op("mount", policy=policy, tree=7, source="(seven)", dest="/d", attr_set=RDONLY)
    bad = [begun.refused("mount", policy=policy, tree=slot, dest="/x") for slot in (7, 0, 250, 0xFFFFFFFF)]
    info = begun.ask("mountinfo")
    answers = begun.run()
    assert "ro" in below(answers[info], root)["/d"].options
    for index in bad:
        assert failure(answers[index])[:3] == ("EBADF", "move_mount", 1)


def test_a_stand_in_is_only_for_a_source_that_cannot_be_cloned(
    begun: Script, root: pathlib.Path, source: pathlib.Path
) -> None:
    """A clone from outside lacks the locked flags of the host's mounts."""
    (source / "locked").mkdir()
    begun.ask("mount", "t", source / "locked", "tmpfs", 0, "")
    begun.ask("mount", "", source / "locked", "", MS_UNBINDABLE, "")
    begun.ask("slot", 7, source / "sub")
    args: dict[str, Any] = {"policy": ops.P_MOUNT_BIND, "tree": 7}
    begun.op("mount", **args, source=str(source), dest="/reached")
    missing = begun.refused("mount", **args, source=str(source / "absent"), dest="/x")
    begun.op("mount", **args, source=str(source / "locked"), dest="/replaced")
    gone = begun.refused("mount", **args, source=str(source / "locked"), dest="/x")
    info = begun.ask("mountinfo")
    answers = begun.run()
    found = below(answers[info], root)
    assert {path: mount.root.rpartition("/")[2] for path, mount in found.items()} == {
        "/reached": "source",
        "/replaced": "sub",
    }
    assert failure(answers[missing])[:3] == ("ENOENT", "open_tree", 1)
    assert failure(answers[gone])[:3] == ("EINVAL", "open_tree", 1)


def test_tree_cloned_before(begun: Script, root: pathlib.Path, source: pathlib.Path) -> None:
    """OPEN_TREE clones a source while it is reachable; a failure is reported by the MOUNT that
    needs the clone."""
    begun.ask("mount", "t", source / "sub", "tmpfs", 0, "")
    begun.op("open_tree", slot=7, propagation=PRIVATE | REC, path=str(source))
    begun.op("open_tree", policy=ops.P_OPEN_TREE_RECURSIVE, slot=8, propagation=PRIVATE | REC, path=str(source))
    begun.op("open_tree", slot=9, propagation=PRIVATE, path=str(source / "absent"))
    taken = begun.refused("open_tree", slot=7, propagation=PRIVATE, path=str(source))
    beyond = begun.refused("open_tree", slot=250, propagation=PRIVATE, path=str(source))
    policy = ops.P_MOUNT_BIND | ops.P_MOUNT_SOURCE_FD
    begun.op("mount", policy=policy, tree=7, source="(seven)", dest="/flat")
    begun.op("mount", policy=policy, tree=8, source="(eight)", dest="/deep")
    absent = begun.refused("mount", policy=policy, tree=9, source="(nine)", dest="/x")
    info = begun.ask("mountinfo")
    answers = begun.run()
    found = below(answers[info], root)
    assert {"/flat", "/deep", "/deep/sub"} <= set(found) and "/flat/sub" not in found
    assert not found["/flat"].tags and not found["/deep"].tags
    assert failure(answers[taken])[:2] == failure(answers[beyond])[:2] == ("EINVAL", "open_tree")
    assert failure(answers[absent])[:2] == ("EBADF", "move_mount")


def test_root_as_working_directory(begun: Script, root: pathlib.Path) -> None:
    """ENTER_ROOT; integration/test_userns.py covers its effect on unshare(2)."""
    begun.op("enter_root", path=str(root))
    where = begun.ask("cwd")
    gone = begun.refused("enter_root", path=str(root / "absent"))
    answers = begun.run()
    assert answers[where] == str(root)
    assert failure(answers[gone])[:3] == ("ENOENT", "chdir", 0)


def test_locked_flags(begun: Script, root: pathlib.Path, source: pathlib.Path) -> None:
    """In a user namespace, flags that the owner of a mount set are kept if they are not named, and
    cannot be cleared."""
    both = ops.P_MOUNT_BIND | ops.P_MOUNT_RECURSIVE
    begun.op("mount", policy=both, source=str(source / "sub"), dest="/keeps", attr_set=NOEXEC)
    cleared = begun.refused("mount", policy=both, source=str(source / "sub"), dest="/clears", attr_clr=RDONLY)
    flat = begun.refused("mount", policy=ops.P_MOUNT_BIND, source=str(source), dest="/flat")
    info = begun.ask("mountinfo")
    answers = begun.run("-u", before=f"mount -t tmpfs -o ro,nosuid t {source / 'sub'}")
    found = below(answers[info], root)
    assert {"ro", "nosuid", "noexec"} <= set(found["/keeps"].options)
    why = "a flag that an outer user namespace locked cannot be cleared"
    assert failure(answers[cleared]) == ("EPERM", "mount_setattr", -1, 0, why)
    assert failure(answers[flat])[:3] == ("EINVAL", "open_tree", 1) and "rbind" in failure(answers[flat])[4]
    assert list(found) == ["/keeps"]


def test_implied_flags(begun: Script, root: pathlib.Path, source: pathlib.Path) -> None:
    """They are cleared because the options omit them, unlike the others, which no option
    mentions."""
    policy = ops.P_MOUNT_BIND
    begun.op("mount", policy=policy, source=str(source / "sub"), dest="/rw", attr_clr=RDONLY, implied=NOSUID | NODEV)
    begun.op("mount", policy=policy, source=str(source / "sub"), dest="/ro", attr_set=RDONLY, implied=ATIME)
    info = begun.ask("mountinfo")
    options = "ro,nosuid,nodev,noexec,noatime"
    found = below(begun.run(before=f"mount -t tmpfs -o {options} t {source / 'sub'}")[info], root)
    assert set(found["/rw"].options) == {"rw", "noexec", "noatime"}
    assert set(found["/ro"].options) == {"ro", "nosuid", "nodev", "noexec", "relatime"}


def test_locked_flags_that_are_only_implied(begun: Script, root: pathlib.Path, source: pathlib.Path) -> None:
    """Locked flags stay and the others are cleared; an explicitly cleared locked flag is still an
    error."""
    sub, policy = str(source / "sub"), ops.P_MOUNT_BIND
    every = RDONLY | NOSUID | NODEV | NOEXEC | ATIME | NOSYMFOLLOW
    begun.op("mount", policy=policy, source=sub, dest="/one", attr_set=NOEXEC | NOSYMFOLLOW)
    begun.op("mount", policy=policy, source=str(root / "one"), dest="/two", attr_set=NODEV, implied=every)
    refused = begun.refused("mount", policy=policy, source=sub, dest="/x", attr_clr=NOSUID, implied=every & ~NOSUID)
    info = begun.ask("mountinfo")
    answers = begun.run("-u", before=f"mount -t tmpfs -o ro,nosuid,noatime t {sub}")
    found = below(answers[info], root)
    assert set(found["/one"].options) == {"ro", "nosuid", "noexec", "noatime", "nosymfollow"}
    assert set(found["/two"].options) == {"ro", "nosuid", "nodev", "noatime"}
    assert failure(answers[refused])[:2] == ("EPERM", "mount_setattr")


def test_a_failure_beside_a_locked_flag(begun: Script, root: pathlib.Path, source: pathlib.Path) -> None:
    """Only the kernel's EPERM for one flag is tolerated."""
    (root / "d").mkdir()
    every = RDONLY | NOSUID | NODEV | NOEXEC | ATIME | NOSYMFOLLOW
    args = {"policy": ops.P_MOUNT_BIND, "source": str(source / "sub"), "dest": "/d"}
    begun.op("mount", **args, attr_set=NODEV, attr_clr=NOATIME, implied=every)
    answers = begun.run("-u", "-F", str(errno.EIO), before=f"mount -t tmpfs -o nosuid,relatime t {source / 'sub'}")
    fields = [answer.split("\t", 4) for answer in answers]
    calls = [call for _, _, call, *_ in fields if call in ("mount_setattr", "fstatfs")]
    assert (calls.count("mount_setattr"), calls.count("fstatfs")) == (7, 2)
    assert {failure(answer)[0] for _, _, call, _, answer in fields if call in calls} == {"EIO"}


@pytest.mark.parametrize(("taken", "good"), [(NOATIME, True), (STRICTATIME, True), (NOSUID, False)])
def test_an_access_time_beside_a_locked_flag(
    begun: Script, root: pathlib.Path, source: pathlib.Path, taken: int, good: bool
) -> None:
    """The retry omits the locked flag; part of the access time's field is still not a valid
    value."""
    sub, policy = str(source / "sub"), ops.P_MOUNT_BIND
    ask = begun.op if good else begun.refused
    number = ask("mount", policy=policy, source=sub, dest="/d", attr_clr=taken, implied=NOSUID | NODEV)
    info = begun.ask("mountinfo")
    answers = begun.run("-u", before=f"mount -t tmpfs -o nosuid,relatime t {sub}")
    if good:
        assert set(below(answers[info], root)["/d"].options) == {"rw", "nosuid", "relatime"}
    else:
        assert failure(answers[number])[:2] == ("EPERM", "mount_setattr")


@pytest.mark.parametrize(
    ("mode", "taken", "want"),
    [
        ("noatime", NOATIME, {"relatime"}),
        ("noatime", STRICTATIME, {"noatime"}),
        ("noatime", NOATIME | STRICTATIME, {"relatime"}),
        ("strictatime", NOATIME, set()),
        ("strictatime", STRICTATIME, {"relatime"}),
        ("relatime", NOATIME | STRICTATIME, {"relatime"}),
    ],
)
def test_an_access_time_that_is_taken_back(
    begun: Script, root: pathlib.Path, source: pathlib.Path, mode: str, taken: int, want: set[str]
) -> None:
    """Part of the field: only if the mount has that mode (mount_setattr(2) would answer EINVAL)."""
    begun.op("mount", policy=ops.P_MOUNT_BIND, source=str(source / "sub"), dest="/d", attr_clr=taken)
    info = begun.ask("mountinfo")
    found = below(begun.run(before=f"mount -t tmpfs -o {mode} t {source / 'sub'}")[info], root)
    assert set(found["/d"].options) == {"rw", *want}


@pytest.mark.parametrize(
    ("nibbles", "kinds"),
    [(0, ["shared"]), (SHARED, ["shared"]), (SLAVE, ["master"]), (PRIVATE, []), (UNBINDABLE, ["unbindable"]),
     (SLAVE | SHARED << 4, ["shared", "master"]), ((PRIVATE | REC) | (SHARED | REC) << 4, ["shared"])],
)  # fmt: skip
def test_propagation_in_the_given_order(
    begun: Script, root: pathlib.Path, source: pathlib.Path, nibbles: int, kinds: list[str]
) -> None:
    begun.ask("mount", "t", source, "tmpfs", 0, "")
    begun.ask("mount", "", source, "", MS_SHARED, "")
    begun.ask("mkdir", source / "sub")
    begun.ask("mount", "t", source / "sub", "tmpfs", 0, "")
    policy = ops.P_MOUNT_BIND | ops.P_MOUNT_RECURSIVE
    begun.op("mount", policy=policy, source=str(source), dest="/d", propagation=nibbles)
    info = begun.ask("mountinfo")
    found = below(begun.run()[info], root)
    assert found["/d"].kinds() == kinds
    if nibbles & REC:
        assert found["/d/sub"].kinds() == kinds


def test_remount(begun: Script, root: pathlib.Path) -> None:
    begun.op("mount", fstype="tmpfs", source="t", dest="/t", data=["size=64k"], attr_set=NOSUID)
    begun.op("mount", policy=ops.P_MOUNT_REMOUNT | ops.P_MOUNT_BIND, dest="/t", attr_set=RDONLY, attr_clr=NOSUID)
    one = begun.ask("mountinfo")
    begun.op("mount", policy=ops.P_MOUNT_REMOUNT, dest="/t", attr_clr=RDONLY, data=["size=128k"], propagation=SHARED)
    two = begun.ask("mountinfo")
    begun.op("remount_ro", dest="/t", attr_set=NOEXEC)
    three = begun.ask("mountinfo")
    (root / "plain").mkdir()
    bad = begun.refused("mount", policy=ops.P_MOUNT_REMOUNT | ops.P_MOUNT_BIND, dest="/plain", attr_set=RDONLY)
    bad2 = begun.refused("mount", policy=ops.P_MOUNT_REMOUNT, dest="/plain")
    bad3 = begun.refused("remount_ro", dest="/plain")
    gone = begun.refused("remount_ro", dest="/gone")
    option = begun.refused("mount", policy=ops.P_MOUNT_REMOUNT, dest="/t", data=["bogus"])
    answers = begun.run()
    states = [below(answers[i], root)["/t"] for i in (one, two, three)]
    assert "ro" in states[0].options and "nosuid" not in states[0].options
    assert "rw" in states[1].options and "size=128k" in states[1].super and states[1].kinds() == ["shared"]
    assert {"ro", "noexec"} <= set(states[2].options)
    assert failure(answers[bad])[:2] == ("EINVAL", "mount_setattr")
    assert failure(answers[bad2])[1] == "fspick"
    assert failure(answers[bad3])[4] == "not a mount point"
    assert failure(answers[gone])[:3] == ("ENOENT", "openat2", 0)
    assert failure(answers[option])[4] == "tmpfs: Unknown parameter 'bogus'"


# --- copying up -----------------------------------------------------------------------------------


def fill(base: pathlib.Path) -> None:
    """Create one object of each kind."""
    (base / "dir" / "deep").mkdir(parents=True)
    (base / "dir").chmod(0o2750)
    os.chown(base / "dir", 5, 6)
    (base / "dir" / "deep" / "big").write_bytes(b"0123456789" * 20000)
    (base / "suid").write_text("s")
    os.chown(base / "suid", 7, 8)
    (base / "suid").chmod(0o4711)
    os.utime(base / "suid", (1000, 2000))
    (base / "link").symlink_to("/etc/passwd")
    os.lchown(base / "link", 9, 10)
    os.mkfifo(base / "fifo")
    (base / "fifo").chmod(0o666)
    os.mknod(base / "null", CHR | 0o602, os.makedev(1, 3))
    (base / ".hidden").write_text("h")
    with socket.socket(socket.AF_UNIX) as sock:
        here = os.getcwd()
        os.chdir(base)
        try:
            sock.bind("sock")
        finally:
            os.chdir(here)


@pytest.mark.parametrize("halves", [False, True])
def test_copy_up(begun: Script, root: pathlib.Path, halves: bool) -> None:
    """The kernel may read and write less than asked."""
    (root / "data").mkdir(mode=0o751)
    (root / "data").chmod(0o751)
    fill(root / "data")
    os.setxattr(root / "data" / "suid", "trusted.mark", b"kept")
    os.setxattr(root / "data" / "dir", "trusted.mark", b"dirs")
    (root / "data" / "mounted").mkdir()
    begun.ask("umask", "077")
    begun.ask("mount", "t", root / "data/mounted", "tmpfs", 0, "")
    if halves:
        begun.ask("halves")
    fds = begun.ask("fds")
    begun.op(
        "mount",
        policy=ops.P_MOUNT_COPY_UP | ops.P_MOUNT_INHERIT_MODE,
        fstype="tmpfs",
        source="t",
        dest="/data",
        attr_set=RDONLY | NOSUID,
    )
    fds_after = begun.ask("fds")
    top, info, names = begun.ask("stat", root / "data"), begun.ask("mountinfo"), begun.ask("ls", root / "data")
    paths = ["dir", "dir/deep/big", "suid", "link", "fifo", "null"]
    want = {name: f"{(root / 'data' / name).lstat().st_mode:06o}" for name in paths}
    stats = {name: begun.ask("stat", root / "data" / name) for name in paths}
    link, hidden = begun.ask("link", root / "data/link"), begun.ask("cat", root / "data/.hidden")
    big, mark = begun.ask("cat", root / "data/dir/deep/big"), begun.ask("xattr", root / "data/suid", "trusted.mark")
    dirs = begun.ask("xattr", root / "data/dir", "trusted.mark")
    write = begun.ask("write", root / "data/x", "x")
    answers = begun.run()
    assert answers[top].startswith("040751 ")
    assert {"ro", "nosuid"} <= set(below(answers[info], root)["/data"].options) and answers[write] == "EROFS"
    assert sorted(answers[names].split()) == ["dir", "fifo", "link", "null", "suid"]
    got = {name: answers[i].split()[:3] for name, i in stats.items()}
    assert {name: fields[0] for name, fields in got.items()} == want
    assert (got["dir"][1], got["suid"][1], got["link"][1], got["null"][2]) == ("5:6", "7:8", "9:10", "1:3")
    assert answers[link] == "/etc/passwd"
    assert answers[big] == "0123456789" * 20000
    assert (answers[hidden], answers[mark], answers[dirs]) == ("h", "kept", "dirs")
    assert answers[fds] == answers[fds_after]


def test_copy_up_that_does_not_fit(begun: Script, root: pathlib.Path) -> None:
    (root / "data").mkdir()
    (root / "data" / "big").write_bytes(b"x" * 200000)
    deep = root / "deep"
    for _ in range(70):
        deep = deep / "d"
    deep.mkdir(parents=True)
    small = begun.refused(
        "mount", policy=ops.P_MOUNT_COPY_UP, fstype="tmpfs", source="t", dest="/data", data=["size=64k"]
    )
    levels = begun.refused("mount", policy=ops.P_MOUNT_COPY_UP, fstype="tmpfs", source="t", dest="/deep")
    info = begun.ask("mountinfo")
    answers = begun.run()
    assert failure(answers[small]) == ("ENOSPC", "write", 2, 0, "copying up big")
    assert failure(answers[levels])[0] == "ELOOP" and "64 levels" in failure(answers[levels])[4]
    assert below(answers[info], root) == {}


def test_copy_up_of_a_directory_that_is_missing(begun: Script, root: pathlib.Path) -> None:
    begun.op("mount", policy=ops.P_MOUNT_COPY_UP | ops.P_MOUNT_INHERIT_MODE, fstype="tmpfs", source="t", dest="/new")
    names = begun.ask("ls", root / "new")
    assert begun.run()[names].strip() == ""
