"""Devices, masked and read-only paths, and the ways to change the root, on a real mount table."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest

from integration.native_fs import (
    BLK,
    CHR,
    FIFO,
    MS_BIND,
    MS_SHARED,
    NODEV,
    NOEXEC,
    NOSUID,
    PRIVATE,
    REC,
    SHARED,
    SLAVE,
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


# --- devices --------------------------------------------------------------------------------------


def test_device_nodes(begun: Script, root: pathlib.Path) -> None:
    begun.ask("umask", "077")
    begun.op("dev_node", kind=CHR, mode=0o666, major=1, minor=3, path="/dev/null")
    begun.op("dev_node", kind=BLK, mode=0o660, major=7, minor=0, uid=3, gid=4, path="/dev/sub/loop")
    begun.op("dev_node", kind=FIFO, mode=0o622, major=9, minor=9, path="/pipe")
    umask = begun.ask("umask", "022")
    begun.op("dev_node", kind=FIFO, mode=0o600, path="/pipe")  # a second time, with another mode
    begun.op(
        "dev_node",
        kind=CHR,
        mode=0o600,
        major=1,
        minor=3,
        uid=1,
        gid=1,
        policy=ops.P_DEV_NODE_DEFAULT,
        path="/dev/null",
    )
    answers = begun.run()
    assert answers[umask] == "077"
    null, loop, pipe = ((root / name).lstat() for name in ("dev/null", "dev/sub/loop", "pipe"))
    assert (null.st_mode, null.st_rdev, null.st_uid) == (CHR | 0o666, os.makedev(1, 3), 0)
    assert (loop.st_mode, loop.st_rdev, loop.st_uid, loop.st_gid) == (BLK | 0o660, os.makedev(7, 0), 3, 4)
    assert pipe.st_mode == FIFO | 0o600


def test_existing_node_gets_the_configured_mode_and_owner(begun: Script, root: pathlib.Path) -> None:
    (root / "dev").mkdir()
    os.mknod(root / "dev/null", CHR | 0o600, os.makedev(1, 3))
    begun.op("dev_node", kind=CHR, mode=0o4666, major=1, minor=3, uid=11, gid=12, path="/dev/null")
    begun.run()
    st = (root / "dev/null").lstat()
    assert (st.st_mode, st.st_uid, st.st_gid) == (CHR | 0o4666, 11, 12)


@pytest.mark.parametrize("policy", [0, ops.P_DEV_NODE_DEFAULT])
@pytest.mark.parametrize("what", ["file", "other", "block", "link", "dir"])
def test_existing_other_thing_is_an_error(begun: Script, root: pathlib.Path, what: str, policy: int) -> None:
    (root / "dev").mkdir()
    path = root / "dev/null"
    if what == "file":
        path.write_text("x")
    elif what == "link":
        path.symlink_to("/dev/zero")
    elif what == "dir":
        path.mkdir()
    else:
        os.mknod(path, (BLK if what == "block" else CHR) | 0o666, os.makedev(1, 3 if what == "block" else 5))
    bad = begun.refused("dev_node", policy=policy, kind=CHR, mode=0o666, major=1, minor=3, path="/dev/null")
    before = path.lstat()
    answer = failure(begun.run()[bad])
    assert (answer[0], answer[2], answer[4]) == ("EEXIST", 0, "already exists and is a different device")
    assert path.lstat().st_mode == before.st_mode and path.lstat().st_rdev == before.st_rdev


@pytest.mark.parametrize("bind", [False, True])
def test_node_that_is_replaced_is_not_given_away(begun: Script, root: pathlib.Path, bind: bool) -> None:
    """Between the creation and the open of a node, a container that shares the directory replaces
    it."""
    (root / "dev").mkdir()
    (root / "theirs").write_text("theirs")
    call, policy = ("openat", ops.P_DEV_NODE_BIND_HOST) if bind else ("mknodat", 0)
    begun.ask("trap", "after", call, 0, "rename", root / "theirs", root / "dev/null")
    owner = {} if bind else {"uid": 5, "gid": 6}
    bad = begun.refused("dev_node", policy=policy, kind=CHR, mode=0o666, major=1, minor=3, path="/dev/null", **owner)
    info = begun.ask("mountinfo")
    answers = begun.run()
    assert failure(answers[bad])[::4] == ("EEXIST", "already exists and is a different device")
    st = (root / "dev/null").lstat()
    assert (st.st_uid, st.st_gid, (root / "dev/null").read_text()) == (0, 0, "theirs")
    assert below(answers[info], root) == {}


@pytest.mark.parametrize("link", ["{outside}", "../outside", "chain"])
@pytest.mark.parametrize("tmpfs", [False, True])
def test_dev_is_a_link_to_the_host(
    begun: Script, root: pathlib.Path, outside: pathlib.Path, link: str, tmpfs: bool
) -> None:
    """T12 (CVE-2026-41579, CVE-2026-47766): ``outside`` must be empty afterwards."""
    (root / "dev").symlink_to(link.format(outside=outside))
    (root / "chain").symlink_to(outside)
    if tmpfs:
        begun.op("mount", fstype="tmpfs", source="t", dest="/dev")
        begun.op("mount", fstype="devpts", source="d", dest="/dev/pts", data=["newinstance"])
        begun.op("mount", fstype="tmpfs", source="t", dest="/dev/shm")
    begun.op("dev_node", kind=CHR, mode=0o666, major=1, minor=3, path="/dev/null")
    begun.op("dev_link", target="/proc/self/fd", path="/dev/fd")
    begun.op("dev_link", target="pts/ptmx", path="/dev/ptmx")
    inside = root / "outside" if link == "../outside" else root / str(outside)[1:]
    node, fd = begun.ask("stat", inside / "null"), begun.ask("link", inside / "fd")
    answers = begun.run()
    assert answers[node].split()[2] == "1:3"
    assert answers[fd] == "/proc/self/fd"


def test_dev_links(begun: Script, root: pathlib.Path) -> None:
    (root / "dev").mkdir()
    (root / "dev/stdin").write_text("own")
    begun.op("dev_link", target="/proc/self/fd/0", path="/dev/stdin")
    begun.op("dev_link", target="/proc/self/fd/1", path="/dev/stdout")
    begun.op("dev_link", target="/proc/self/fd/1", path="/dev/stdout")
    begun.op("dev_link", policy=ops.P_DEV_LINK_IF_TARGET, target="/no/such/target", path="/dev/core")
    begun.op("dev_link", policy=ops.P_DEV_LINK_IF_TARGET, target="/proc/self/status", path="/dev/status")
    bad = begun.refused("dev_link", target="x", path="/dev/stdin/x")
    answers = begun.run()
    assert (root / "dev/stdin").read_text() == "own"
    assert os.readlink(root / "dev/stdout") == "/proc/self/fd/1"
    assert not (root / "dev/core").is_symlink() and (root / "dev/status").is_symlink()
    assert failure(answers[bad])[:3] == ("ENOTDIR", "openat2", 1)


def test_devices_in_a_user_namespace_are_the_hosts(begun: Script, root: pathlib.Path) -> None:
    begun.op("mount", fstype="tmpfs", source="t", dest="/dev", data=["mode=755"])
    begun.op("dev_node", kind=CHR, mode=0o666, major=1, minor=3, path="/dev/null")  # EPERM: falls back
    default = ops.P_DEV_NODE_BIND_HOST | ops.P_DEV_NODE_DEFAULT
    begun.op("dev_node", policy=default, kind=CHR, mode=0o666, major=1, minor=5, path="/dev/zero")
    begun.op("dev_node", policy=default, kind=CHR, mode=0o666, major=1, minor=5, path="/dev/zero")
    wrong = begun.refused("dev_node", kind=CHR, mode=0o666, major=1, minor=9, path="/dev/full")
    missing = begun.refused("dev_node", kind=CHR, mode=0o666, major=1, minor=9, path="/dev/no-such-node")
    begun.op("dev_node", kind=FIFO, mode=0o622, path="/dev/pipe")
    begun.ask("write", root / "dev/random", "text")
    taken = begun.refused(
        "dev_node", policy=ops.P_DEV_NODE_BIND_HOST, kind=CHR, mode=0o666, major=1, minor=8, path="/dev/random"
    )
    asked = {"kind": CHR, "major": 1, "minor": 9, "path": "/dev/urandom"}
    mode = begun.refused("dev_node", policy=ops.P_DEV_NODE_BIND_HOST, mode=0o600, **asked)
    uid = begun.refused("dev_node", policy=ops.P_DEV_NODE_BIND_HOST, mode=0o666, uid=7, **asked)
    gid = begun.refused("dev_node", policy=ops.P_DEV_NODE_BIND_HOST, mode=0o666, gid=7, **asked)
    anything = ops.P_DEV_NODE_ANY_MODE | ops.P_DEV_NODE_ANY_UID | ops.P_DEV_NODE_ANY_GID
    begun.op("dev_node", policy=ops.P_DEV_NODE_BIND_HOST | anything, mode=1, uid=7, gid=7, **asked)
    info, null, zero = (
        begun.ask("mountinfo"),
        begun.ask("stat", root / "dev/null"),
        begun.ask("stat", root / "dev/zero"),
    )
    write = begun.ask("write", root / "dev/null", "x")
    answers = begun.run("-u")
    found = below(answers[info], root)
    assert found["/dev/null"].root.endswith("/null") and found["/dev/zero"].root.endswith("/zero")
    assert sum(m.point.endswith("/dev/zero") for m in mounts(answers[info]) if m.point.startswith(str(root))) == 1
    assert (answers[null].split()[2], answers[zero].split()[2], answers[write]) == ("1:3", "1:5", "ok")
    assert failure(answers[wrong])[0] == "ENXIO"
    assert failure(answers[taken])[0] == "EEXIST"
    assert failure(answers[missing])[:2] == ("ENOENT", "open_tree")
    whys = [failure(answers[index]) for index in (mode, uid, gid)]
    assert [why[:3] for why in whys] == [("EPERM", "open_tree", 0)] * 3
    assert [why[4].rpartition(" ")[2] for why in whys] == ["differs", "it", "group"]
    assert {"nosuid", "noexec"} <= set(found["/dev/urandom"].options) and not found["/dev/urandom"].tags


@pytest.mark.parametrize("number", [0, 1, 9])
def test_a_node_that_exists(begun: Script, root: pathlib.Path, number: int) -> None:
    """MAKE_NODE keeps nodes on a filesystem that is mounted nowhere visible, before and after a
    DEV_NODE takes one."""
    before = begun.ask("fds")
    begun.ask("umask", "077")
    for index, mode in enumerate((0o640, 0o602)):
        begun.op("make_node", number=index, kind=CHR, mode=mode, major=1, minor=3 + index, uid=5, gid=6)
    hidden = begun.ask("mountinfo")
    policy = ops.P_DEV_NODE_BIND_HOST | ops.P_DEV_NODE_MADE
    args = {"number": number, "kind": CHR, "major": 1, "minor": 3 + number, "path": "/deep/node"}
    if number == 9:
        refused = begun.refused("dev_node", policy=policy, **args)
    else:
        begun.op("dev_node", policy=policy, **args)
        node = begun.ask("stat", root / "deep/node")
    info, after, umask = begun.ask("mountinfo"), begun.ask("fds"), begun.ask("umask", "022")
    answers = begun.run()
    assert not below(answers[hidden], root)
    assert answers[umask] == "077"
    found = below(answers[info], root)
    if number == 9:
        assert failure(answers[refused])[:2] == ("ENOENT", "open_tree") and not found
    else:
        assert list(found) == ["/deep/node"]
        shown = ("020640", "020602")[number]
        assert answers[node].split()[:3] == [shown, "5:6", f"1:{3 + number}"]
        assert {"nosuid", "noexec"} <= set(found["/deep/node"].options)
        assert "nodev" not in found["/deep/node"].options and not found["/deep/node"].tags
    assert answers[after] == answers[before]


@pytest.mark.parametrize("other", ["made", "node", "step", "nothing"])
def test_nodes_are_kept_while_a_step_needs_them(begun: Script, root: pathlib.Path, other: str) -> None:
    """MAKE_NODE precedes some devices only, and the steps of those follow one another."""
    made = ops.P_DEV_NODE_BIND_HOST | ops.P_DEV_NODE_MADE
    node: dict[str, Any] = {"kind": CHR, "major": 1, "minor": 3}
    before = begun.ask("fds")
    for number in range(2):
        begun.op("make_node", number=number, mode=0o640 + number, **node)
    begun.op("dev_node", policy=made, number=0, path="/first", **node)
    if other == "made":
        begun.op("dev_node", policy=made, number=1, path="/dev/null", **node)
    elif other == "node":
        begun.op("dev_node", policy=ops.P_DEV_NODE_BIND_HOST | ops.P_DEV_NODE_DEFAULT, path="/dev/null", **node)
    elif other == "step":
        begun.refused("dev_link", policy=made, target="x", path="/")
    after = begun.ask("fds")
    first, second = begun.ask("stat", root / "first"), begun.ask("stat", root / "dev/null")
    answers = begun.run()
    assert answers[first].startswith("020640 ")
    assert answers[second].startswith({"made": "020641 ", "node": "020"}.get(other, "ENOENT"))
    assert answers[after] == answers[before]


# --- masked and read-only paths -------------------------------------------------------------------


def test_masked_paths(begun: Script, root: pathlib.Path) -> None:
    for name in ("one", "two"):
        (root / name).write_text("secret")
        (root / f"{name}.d").mkdir()
        (root / f"{name}.d" / "inner").write_text("secret")
    (root / "link").symlink_to("/three")
    (root / "three").write_text("secret")
    begun.op("pivot")
    for path in ("/one", "/two", "/one.d", "/two.d", "/link", "/missing", "/one/below-a-file"):
        begun.op("mask_path", path=path)
    cats = [begun.ask("cat", path) for path in ("/one", "/two", "/three")]
    kinds = [begun.ask("stat", path) for path in ("/one", "/two", "/three")]
    names = [begun.ask("ls", path) for path in ("/one.d", "/two.d")]
    writes = [begun.ask("write", "/one.d/x", "x"), begun.ask("write", "/two.d/x", "x")]
    info = begun.ask("mountinfo")
    dirs = [begun.ask("stat", path) for path in ("/one.d", "/two.d")]
    bad = begun.refused("mask_path", path="/")
    answers = begun.run()
    assert [answers[i] for i in cats] == ["", "", ""]
    assert [answers[i].split()[2] for i in kinds] == ["1:3"] * 3
    assert [answers[i].strip() for i in names] == ["", ""]
    assert [answers[i] for i in writes] == ["EROFS", "EROFS"]
    assert [answers[i].split()[0] for i in dirs] == ["040555", "040555"]
    found = {m.point: m for m in mounts(answers[info])}
    for path in ("/one.d", "/two.d"):
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(found[path].options)
        assert found[path].super.split(",")[0] == "ro"
    assert failure(answers[bad])[0] == "EINVAL"


@pytest.mark.parametrize("op", ["mask_path", "readonly_path"])
def test_path_that_cannot_be_looked_up_is_not_left_open(begun: Script, root: pathlib.Path, op: str) -> None:
    """Only a missing path needs no mask; any other error must not leave it visible."""
    (root / "loop").symlink_to("loop")
    (root / "long").symlink_to("x" * 300)
    begun.op("pivot")
    bad = [begun.refused(op, path=path) for path in ("/loop", "/long", "/loop/x")]
    answers = begun.run()
    assert [failure(answers[i])[:3] for i in bad] == [(e, "openat2", 0) for e in ("ELOOP", "ENAMETOOLONG", "ELOOP")]


def test_masks_share_what_they_can(begun: Script, root: pathlib.Path) -> None:
    """Consecutive masked directories share one tmpfs, which does not stay open."""
    for name in ("one", "two", "three"):
        (root / name).mkdir()
        (root / f"{name}.txt").touch()
    begun.op("pivot")
    before = begun.ask("fds")
    for name in ("/one", "/one.txt", "/two", "/two.txt", "/three", "/three.txt"):
        begun.op("mask_path", path=name)
    after, info = begun.ask("fds"), begun.ask("mountinfo")
    answers = begun.run()
    assert answers[before] == answers[after]
    found = {m.point: m for m in mounts(answers[info])}
    assert len(found) == len(mounts(answers[info])) == 7
    assert len({found[name].dev for name in ("/one", "/two", "/three")}) == 1


@pytest.mark.parametrize("trap", ["link", "file", "zero", "missing"])
def test_dev_null_of_the_image_is_never_used_for_masking(begun: Script, root: pathlib.Path, trap: str) -> None:
    """T09 (CVE-2025-31133, CVE-2025-62161): the image has no /dev mount, and its null is a trap."""
    (root / "dev").mkdir()
    (root / "secret").write_text("secret")
    (root / "trap").write_text("trap")
    if trap == "link":
        (root / "dev/null").symlink_to("/trap")
    elif trap == "file":
        (root / "dev/null").write_text("trap")
    elif trap == "zero":
        os.mknod(root / "dev/null", CHR | 0o666, os.makedev(1, 5))
    begun.op("pivot")
    begun.op("mask_path", path="/secret")
    kind, write = begun.ask("stat", "/secret"), begun.ask("write", "/secret", "x")
    answers = begun.run()
    assert answers[kind].split()[2] == "1:3" and answers[write] == "ok"
    assert (root / "secret").read_text() == "secret" and (root / "trap").read_text() == "trap"


@pytest.mark.parametrize("other", ["/dev/zero", "/dev", "/etc/passwd"])
def test_source_of_a_mask_is_checked_again(begun: Script, root: pathlib.Path, other: str) -> None:
    """The host's /dev/null is mounted only if it is the device 1:3."""
    (root / "secret").write_text("secret")
    begun.ask("nullfd", other)
    begun.op("pivot")
    bad = begun.refused("mask_path", path="/secret")
    info = begun.ask("mountinfo")
    answers = begun.run()
    assert failure(answers[bad])[0] == "ENODEV"
    assert [m.point for m in mounts(answers[info])] == ["/"]


def test_host_without_dev_null_cannot_mask_a_file(script: Script, root: pathlib.Path) -> None:
    (root / "secret").write_text("secret")
    (root / "dir").mkdir()
    script.ask("mount", "/dev/zero", "/dev/null", "none", MS_BIND, "")
    script.start().op("pivot")
    bad = script.refused("mask_path", path="/secret")
    script.op("mask_path", path="/dir")
    answer = failure(script.run()[bad])
    assert (answer[0], answer[4]) == ("ENODEV", "the host has no usable /dev/null")


def test_readonly_paths(begun: Script, root: pathlib.Path) -> None:
    (root / "ro" / "mnt").mkdir(parents=True)
    (root / "file").write_text("x")
    (root / "rw").mkdir()
    begun.op("mount", fstype="tmpfs", source="t", dest="/ro/mnt")
    begun.op("mount", fstype="tmpfs", source="t", dest="/flags", attr_set=NOSUID | NODEV | NOEXEC)
    begun.op("pivot")
    for path in ("/ro", "/file", "/flags", "/missing", "/file/x"):
        begun.op("readonly_path", path=path)
    writes = [begun.ask("write", path, "x") for path in ("/ro/x", "/file", "/flags/x", "/ro/mnt/x", "/rw/x")]
    info = begun.ask("mountinfo")
    answers = begun.run()
    assert [answers[i] for i in writes] == ["EROFS", "EROFS", "EROFS", "ok", "ok"]
    last = {m.point: m for m in mounts(answers[info])}["/flags"]
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(last.options)


# --- changing the root ----------------------------------------------------------------------------


def check_new_root(script: Script, pivot: int, *flags: str) -> list[str]:
    root = script.root
    (root / "marker").write_text("here")
    script.op("mount", fstype="tmpfs", source="t", dest="/t")
    script.op("pivot", policy=pivot)
    cwd, text, host = script.ask("cwd"), script.ask("cat", "/marker"), script.ask("stat", root)
    up, info = script.ask("cat", "/../../marker"), script.ask("mountinfo")
    fds = script.ask("fds")
    script.op("mount", fstype="tmpfs", source="t", dest="/later")  # rootfd still leads to the root
    later = script.ask("mountinfo")
    script.op("root_ro")
    write, write_t = script.ask("write", "/x", "x"), script.ask("write", "/t/x", "x")
    answers = script.run(*flags)
    assert (answers[cwd], answers[text], answers[up], answers[host]) == ("/", "here", "here", "ENOENT")
    assert [m.point for m in mounts(answers[info])] == ["/", "/t"]
    assert [m.point for m in mounts(answers[later])] == ["/", "/t", "/later"]
    assert (answers[write], answers[write_t]) == ("EROFS", "ok")
    assert int(answers[fds]) <= 7
    return answers


def test_pivot(begun: Script) -> None:
    all_mounts = len(begun.lines)
    begun.ask("parentinfo")
    answers = check_new_root(begun, 0)
    assert len(lines(answers[all_mounts])) > 3


def test_after_pivot_nothing_of_the_host_is_mounted(begun: Script, root: pathlib.Path) -> None:
    begun.op("pivot")
    info = begun.ask("parentinfo")
    # the parent had the old root as its root: pivot_root(2) moves it as well
    assert [m.point for m in mounts(begun.run()[info])] == ["/"]


def test_move_instead_of_pivot(begun: Script, root: pathlib.Path) -> None:
    before, after = begun.ask("parentinfo"), 0
    check = Script(begun.driver, root)
    check.lines = list(begun.lines)
    check_new_root(check, ops.P_PIVOT_MOVE)
    begun.op("pivot", policy=ops.P_PIVOT_MOVE)
    after = begun.ask("parentinfo")
    answers = begun.run()
    assert {m.type for m in mounts(answers[before])} >= FULL
    assert whole(answers[after]) == []


FULL = {"proc", "sysfs"}


def whole(answer: str) -> list[str]:
    """The mount points of complete procfs and sysfs mounts."""
    return [m.point for m in mounts(answer) if m.type in FULL and m.root == "/"]


def test_move_hides_what_is_beside_the_root(begun: Script, root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Every complete procfs of the host, even if its path begins like the root's or needs
    escapes."""
    names = ["rootfs2", "roo", "with space", "back\\slash"]
    for name in names:
        (tmp_path / name).mkdir()
        begun.ask("mount", "proc", tmp_path / name, "proc", 0, "")
    (tmp_path / "part").mkdir()
    begun.ask("mount", tmp_path / "roo" / "sys", tmp_path / "part", "none", MS_BIND, "")
    (root / "in").mkdir()
    begun.op("mount", fstype="sysfs", source="s", dest="/in")
    before = begun.ask("parentinfo")
    begun.op("pivot", policy=ops.P_PIVOT_MOVE)
    after, inside = begun.ask("parentinfo"), begun.ask("mountinfo")
    answers = begun.run()
    escaped = [name.replace("\\", "\\134").replace(" ", "\\040") for name in names]
    assert {str(tmp_path / name) for name in escaped} <= set(whole(answers[before]))
    assert whole(answers[after]) == ["/in"]
    assert whole(answers[inside]) == ["/in"]
    assert [m.point for m in mounts(answers[after]) if m.type == "proc"] == [str(tmp_path / "part")]


def test_move_covers_what_is_locked(script: Script, root: pathlib.Path) -> None:
    """In a user namespace the host's procfs cannot be unmounted, so it is covered."""
    script.start()
    script.op("pivot", policy=ops.P_PIVOT_MOVE)
    info = script.ask("parentinfo")
    last = {m.point: m for m in mounts(script.run("-u")[info])}
    assert last["/proc"].type == "tmpfs" and "ro" in last["/proc"].options


def test_move_keeps_the_proc_of_the_container(begun: Script) -> None:
    begun.proc()
    begun.op("pivot", policy=ops.P_PIVOT_MOVE)
    info, status = begun.ask("mountinfo"), begun.ask("cat", "/proc/self/status")
    answers = begun.run()
    assert [(m.point, m.type) for m in mounts(answers[info])][1:] == [("/proc", "proc")]
    assert "Name:" in answers[status]


def test_only_chroot(script: Script, root: pathlib.Path) -> None:
    (root / "marker").write_text("here")
    before = script.ask("mountinfo")
    script.op("root", policy=ops.P_ROOT_NO_BIND, path=str(root))
    after = script.ask("mountinfo")
    script.op("pivot", policy=ops.P_PIVOT_CHROOT)
    cwd, text = script.ask("cwd"), script.ask("cat", "/marker")
    answers = script.run()
    assert answers[before] == answers[after]
    assert (answers[cwd], answers[text]) == ("/", "here")


def test_missing_root(script: Script, root: pathlib.Path) -> None:
    bad = script.refused("root", path=str(root / "missing"))
    (root / "file").touch()
    file = script.refused("root", path=str(root / "file"))
    pivot = script.refused("pivot")
    answers = script.run()
    assert failure(answers[bad])[:3] == ("ENOENT", "open", 0)
    assert failure(answers[file])[:3] == ("ENOTDIR", "open", 0)
    assert failure(answers[pivot])[0] == "EBADF"


@pytest.mark.parametrize("on_mount", [False, True])
def test_shared_root_propagation(script: Script, root: pathlib.Path, on_mount: bool) -> None:
    """With / shared as well, pivot_root(2) requires a private parent of the root; so do the peers
    of the host's mounts."""
    if on_mount:
        script.ask("mount", "t", root, "tmpfs", 0, "")
        script.ask("mount", "", root, "", MS_SHARED, "")
    script.op("propagation", propagation=SHARED | REC)
    script.op("root", path=str(root))
    script.op("mount", fstype="tmpfs", source="t", dest="/t")
    before = script.ask("mountinfo")
    script.op("pivot")
    script.op("root_propagation", propagation=SHARED | REC)
    after = script.ask("mountinfo")
    answers = script.run()
    at_root = [m for m in mounts(answers[before]) if m.point == str(root)]
    assert at_root and all("shared" not in m.kinds() for m in at_root)
    assert {m.point: m.kinds() for m in mounts(answers[after])} == {"/": ["shared"], "/t": ["shared"]}


@pytest.mark.parametrize("recursive", [0, REC])
@pytest.mark.parametrize(
    ("kind", "policy", "tags"),
    [(SLAVE, ops.P_ROOT_SLAVE, ["master"]), (SLAVE, 0, []), (PRIVATE, 0, []), (SHARED, 0, [])],
)
def test_propagation_of_the_container_root(
    script: Script, root: pathlib.Path, kind: int, policy: int, tags: list[str], recursive: int
) -> None:
    """On a mount that the host shares, a slave sees later mounts of the host, and nothing
    propagates back.

    Without the policy bit the root is private, whatever the propagation of the copied mounts around
    it.
    """
    (root / "late").mkdir()
    script.op("propagation", propagation=kind | recursive)
    script.op("root", policy=policy, path=str(root))
    script.op("mount", fstype="tmpfs", source="t", dest="/t")
    script.op("pivot")
    info = script.ask("mountinfo")
    shared = f"mount -t tmpfs t {root} && mount --make-shared {root}"
    found = {m.point: m.kinds() for m in mounts(script.run("-S", before=shared)[info])}
    assert found == {"/": tags, "/t": []}


def test_unknown_propagation_is_an_error(script: Script) -> None:
    answers = [script.refused("propagation", propagation=value) for value in (5, 7, SLAVE | 6 << 4)]
    got = script.run()
    assert [failure(got[i])[:2] for i in answers] == [("EINVAL", "mount_setattr")] * 3
