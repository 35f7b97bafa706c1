"""The steps of `mounts add` and `mounts remove`, and options that only mount(2) accepts, on a real
mount table."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest

from integration.native_fs import (
    NODEV,
    NOEXEC,
    NOSUID,
    PRIVATE,
    RDONLY,
    REC,
    SHARED,
    SLAVE,
    UNBINDABLE,
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

BUILD, ATTACH, REPORT, BIND = ops.P_MOUNT_BUILD, ops.P_MOUNT_ATTACH, ops.P_MOUNT_REPORT, ops.P_MOUNT_BIND
MAX_FDS = 250  # of init.h
PAGE = 4096


def build(script: Script, slot: int = 5, policy: int = 0, **args: Any) -> int:
    args = {"fstype": "tmpfs", "source": "t", "dest": "/dir", **args}
    return script.op("mount", policy=BUILD | policy, tree=slot, **args)


def attach(script: Script, dest: str = "/dir", slot: int = 5, policy: int = 0, **args: Any) -> int:
    return script.op("mount", policy=ATTACH | policy, fstype="tmpfs", dest=dest, tree=slot, **args)


def unmount(script: Script, dest: str, name: str = "unique", policy: int = ops.P_UNMOUNT_UNIQUE) -> int:
    """An UNMOUNT of the mount of the last `ids`."""
    return script.ask("op", "UNMOUNT", policy, name, dest)


@pytest.fixture
def both(begun: Script, root: pathlib.Path) -> Script:
    """A root filesystem with a directory, and a parent that reads the reports."""
    (root / "dir").mkdir()
    begun.ask("parent", "reads")
    return begun


def unique_ids(answer: str) -> tuple[str, str]:
    if answer.endswith(":"):
        pytest.skip("Linux before 6.8 reuses the ids of mounts")
    plain, _, unique = answer.partition(":")
    return plain, unique


# --- MOUNT with BUILD and ATTACH ------------------------------------------------------------------


def test_a_mount_is_built_and_attached(both: Script, root: pathlib.Path) -> None:
    """It is nowhere until it is attached, and then has every flag."""
    fds = both.ask("fds")
    build(both, attr_set=NOSUID | RDONLY, data=["mode=751"])
    hidden, open_ = both.ask("mountinfo"), both.ask("fds")
    attach(both, "/new/place", propagation=SHARED)
    info, mode, still = both.ask("mountinfo"), both.ask("stat", root / "new/place"), both.ask("fds")
    answers = both.run()
    assert below(answers[hidden], root) == {}
    found = below(answers[info], root)
    assert list(found) == ["/new/place"]
    assert {"ro", "nosuid"} <= set(found["/new/place"].options) and found["/new/place"].kinds() == ["shared"]
    assert answers[mode].startswith("040751 ")
    assert int(answers[open_]) == int(answers[still]) == int(answers[fds]) + 1  # the slot


def test_a_report_has_the_ids_of_the_mount(both: Script, root: pathlib.Path) -> None:
    build(both, policy=REPORT)
    build(both, slot=6)
    reports = both.ask("reports")
    attach(both)
    ids = both.ask("ids", root / "dir")
    info = both.ask("mountinfo")
    answers = both.run()
    plain, unique = unique_ids(answers[ids])
    assert answers[reports] == f"2:{plain}:{unique} "  # PROPAGATION and ROOT come first
    listed = [line.split()[0] for line in lines(answers[info]) if line.split()[4] == str(root / "dir")]
    assert listed == [plain]


@pytest.mark.parametrize(("slot", "good"), [(0, False), (1, True), (MAX_FDS - 1, True), (MAX_FDS, False)])
def test_a_slot_that_does_not_exist(both: Script, slot: int, good: bool) -> None:
    """The new mount does not stay open without one."""
    before = both.ask("fds")
    ask = both.op if good else both.refused
    built = ask("mount", policy=BUILD, fstype="tmpfs", source="t", dest="/dir", tree=slot)
    after = both.ask("fds")
    answers = both.run()
    if good:
        # Slot 1 has the console socket of the driver, which is replaced.
        assert int(answers[after]) == int(answers[before]) + (slot != 1)
    else:
        assert failure(answers[built]) == ("EINVAL", "open_tree", -1, 0, "the plan has no slot for the mount")
        assert answers[after] == answers[before]


def test_a_replacement_that_was_not_needed_is_closed(both: Script, root: pathlib.Path) -> None:
    both.ask("slot", 5, root)
    before = both.ask("fds")
    build(both)
    after = both.ask("fds")
    attach(both)
    info = both.ask("mountinfo")
    answers = both.run()
    assert answers[after] == answers[before]
    assert below(answers[info], root)["/dir"].type == "tmpfs"


@pytest.mark.parametrize("slot", [0, 7, MAX_FDS])
def test_no_mount_to_attach(both: Script, slot: int) -> None:
    bad = both.refused("mount", policy=ATTACH, fstype="tmpfs", dest="/dir", tree=slot)
    assert failure(both.run()[bad]) == ("EBADF", "move_mount", -1, 0, "the plan names no mount")


def test_the_mode_of_the_directory(both: Script, root: pathlib.Path) -> None:
    """A tmpfs takes all bits of an existing directory, and nothing of one that is created."""
    (root / "dir").chmod(0o5713)
    for slot, (name, policy) in enumerate([("dir", ops.P_MOUNT_INHERIT_MODE), ("new", ops.P_MOUNT_INHERIT_MODE)], 5):
        build(both, slot=slot, data=["mode=700"])
        attach(both, f"/{name}", slot, policy)
    old, new = both.ask("stat", root / "dir"), both.ask("stat", root / "new")
    build(both, slot=9, data=["mode=700"])
    attach(both, "/dir", 9)
    plain = both.ask("stat", root / "dir")
    answers = both.run()
    assert answers[old].startswith("045713 ")
    assert answers[new].startswith("040700 ") and answers[plain].startswith("040700 ")


def test_a_file_is_attached_to_a_file(both: Script, root: pathlib.Path, source: pathlib.Path) -> None:
    build(both, policy=BIND, fstype="", source=str(source / "file"), attr_set=NOEXEC)
    attach(both, "/etc/made")
    build(both, slot=6, policy=BIND, fstype="", source=str(source / "file"))
    bad = both.refused("mount", policy=ATTACH, dest="/dir", tree=6)
    text, info = both.ask("cat", root / "etc/made"), both.ask("mountinfo")
    answers = both.run()
    assert answers[text] == "content"
    assert failure(answers[bad])[:4] == ("EISDIR", "openat2", 2, 0)
    assert list(below(answers[info], root)) == ["/etc/made"]
    assert (root / "etc/made").is_file()


def test_the_checks_of_a_destination(both: Script, root: pathlib.Path) -> None:
    """As in `create`: not over /, and not over a part of /proc."""
    both.proc()
    build(both)
    build(both, slot=6, fstype="proc", source="proc")
    over_root = both.refused("mount", policy=ATTACH, fstype="tmpfs", dest="/", tree=5)
    part = both.refused("mount", policy=ATTACH, fstype="tmpfs", dest="/proc/fs", tree=5)
    whole = both.refused("mount", policy=ATTACH, fstype="tmpfs", dest="/proc", tree=5)
    info = both.ask("mountinfo")
    attach(both, "/proc", 6)
    attach(both, "/proc/fs", 5, ops.P_MOUNT_IN_PROC)
    after = both.ask("mountinfo")
    answers = both.run()
    assert failure(answers[over_root])[4] == "mounting over / is not possible"
    assert failure(answers[part])[4] == failure(answers[whole])[4] == "would cover part of /proc"
    assert list(below(answers[info], root)) == ["/proc"]
    points = sorted(m.point for m in mounts(answers[after]) if m.point.startswith(f"{root}/"))
    assert points == [f"{root}/proc", f"{root}/proc", f"{root}/proc/fs"]


def test_a_mount_without_its_propagation_is_detached(both: Script, root: pathlib.Path) -> None:
    build(both)
    bad = both.refused("mount", policy=ATTACH, fstype="tmpfs", dest="/dir", tree=5, propagation=UNBINDABLE | 5 << 4)
    info, cwd = both.ask("mountinfo"), both.ask("cwd")
    answers = both.run()
    assert failure(answers[bad])[:2] == ("EINVAL", "mount_setattr")
    assert below(answers[info], root) == {}
    assert answers[cwd] == os.getcwd()


def test_a_failure_detaches_what_was_attached(both: Script, root: pathlib.Path, source: pathlib.Path) -> None:
    """Directories and files, also if one is inside another; nothing else."""
    both.op("mount", fstype="tmpfs", source="config", dest="/kept")
    nothing = both.ask("undo", "plain")
    build(both)
    build(both, slot=6)
    build(both, slot=7, policy=BIND, fstype="", source=str(source / "file"))
    build(both, slot=8)
    attach(both)
    attach(both, "/dir/inner", 6)
    attach(both, "/dir/inner/file", 7)
    attach(both, "/kept/other", 8)
    before, fds = both.ask("mountinfo"), both.ask("fds")
    undone = both.ask("undo", "plain")
    after, fds_after, cwd = both.ask("mountinfo"), both.ask("fds"), both.ask("cwd")
    answers = both.run()
    assert (answers[nothing], answers[undone]) == ("nothing", "undone")
    assert list(below(answers[before], root)) == ["/kept", "/dir", "/dir/inner", "/dir/inner/file", "/kept/other"]
    assert list(below(answers[after], root)) == ["/kept"]
    assert answers[fds] == answers[fds_after] and answers[cwd] == os.getcwd()


def test_nothing_is_undone_under_a_filter(both: Script, root: pathlib.Path) -> None:
    """The mount namespace of `exec --tools` ends with its init, and the filter may forbid the
    calls."""
    build(both)
    attach(both)
    both.ask("undo", "filtered")
    info = both.ask("mountinfo")
    assert list(below(both.run()[info], root)) == ["/dir"]


# --- UNMOUNT and LEAVE ----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "policy"), [("unique", ops.P_UNMOUNT_UNIQUE), ("id", 0)])
def test_unmount_by_id(both: Script, root: pathlib.Path, name: str, policy: int) -> None:
    both.op("mount", fstype="tmpfs", source="t", dest="/dir")
    ids = both.ask("ids", root / "dir")
    fds = both.ask("fds")
    unmount(both, "/dir", name, policy)
    reports, info, fds_after, cwd = both.ask("reports"), both.ask("mountinfo"), both.ask("fds"), both.ask("cwd")
    answers = both.run()
    unique_ids(answers[ids])
    assert answers[reports] == "3:1: "
    assert below(answers[info], root) == {}
    assert answers[fds] == answers[fds_after] and answers[cwd] == os.getcwd()


@pytest.mark.parametrize(("name", "policy"), [("unique", ops.P_UNMOUNT_UNIQUE), ("id", 0)])
def test_an_older_kernel_does_not_know_an_id(both: Script, root: pathlib.Path, name: str, policy: int) -> None:
    """Then nothing is unmounted, and the unique id is not reported."""
    both.ask("trap", "after", "statx", 1, "unknown", "", "")
    build(both, policy=REPORT)
    attach(both)
    reports, _ = both.ask("reports"), both.ask("ids", root / "dir")
    both.ask("trap", "after", "statx", 0, "unknown", "", "")
    unmount(both, "/dir", name, policy)
    unmounted, info = both.ask("reports"), both.ask("mountinfo")
    answers = both.run()
    assert answers[reports].split(":")[2].strip() == "" and answers[reports].split(":")[1] != "0"
    assert answers[unmounted].split(":")[1] == "0"
    assert list(below(answers[info], root)) == ["/dir"]


def test_unmount_of_a_file(both: Script, root: pathlib.Path, source: pathlib.Path) -> None:
    both.op("mount", policy=BIND, source=str(source / "file"), dest="/etc/file")
    both.ask("ids", root / "etc/file")
    unmount(both, "/etc/file", "id", 0)
    reports, info = both.ask("reports"), both.ask("mountinfo")
    answers = both.run()
    assert answers[reports].endswith(":1: ") and below(answers[info], root) == {}


def test_unmount_of_a_directory_that_is_in_use(both: Script, root: pathlib.Path) -> None:
    """A mount inside it goes with it, and an open file does not keep it."""
    both.op("mount", fstype="tmpfs", source="t", dest="/dir")
    both.op("mount", fstype="tmpfs", source="t", dest="/dir/inner")
    both.ask("ids", root / "dir")
    unmount(both, "/dir", "id", 0)
    info = both.ask("mountinfo")
    assert below(both.run()[info], root) == {}


@pytest.mark.parametrize(
    "dest", ["/missing", "/file", "/file/below", "/link", "/link/below", "/other", "/dir/sub", "/dir", "/"]
)
def test_unmount_leaves_whatever_else_is_there(both: Script, root: pathlib.Path, dest: str) -> None:
    """Nothing, another mount, a directory inside the mount, or a mount that covers it."""
    (root / "file").touch()
    (root / "link").symlink_to("dir")
    both.op("mount", fstype="tmpfs", source="t", dest="/dir")
    both.ask("mkdir", root / "dir/sub")
    both.op("mount", fstype="tmpfs", source="t", dest="/other")
    ids = both.ask("ids", root / "dir")
    if dest == "/dir":
        both.op("mount", fstype="tmpfs", source="cover", dest="/dir")
    before = both.ask("mountinfo")
    unmount(both, dest)
    unmount(both, dest, "id", 0)
    reports, after = both.ask("reports"), both.ask("mountinfo")
    answers = both.run()
    unique_ids(answers[ids])
    assert [report.split(":", 1)[1] for report in answers[reports].split()] == ["0:", "0:"]
    assert answers[after] == answers[before]


def test_an_id_is_compared_as_a_whole(both: Script, root: pathlib.Path) -> None:
    """The ids that the kernel does not reuse are larger than 32 bits; the others may be the same."""
    both.op("mount", fstype="tmpfs", source="t", dest="/dir")
    ids = both.ask("ids", root / "dir")
    unmount(both, "/dir", "id")  # the reused id is taken for the other kind
    unmount(both, "/dir", "unique", 0)
    reports, info = both.ask("reports"), both.ask("mountinfo")
    answers = both.run()
    unique_ids(answers[ids])
    assert [report.split(":")[1] for report in answers[reports].split()] == ["0", "0"]
    assert list(below(answers[info], root)) == ["/dir"]


def test_leave(both: Script) -> None:
    left = both.op("leave")
    assert both.run()[left] == "left 0"


def test_without_a_parent_a_report_is_the_end(begun: Script, root: pathlib.Path) -> None:
    begun.ask("parent", "gone")
    built = build(begun, policy=REPORT)
    unmounted = unmount(begun, "/missing", "id", 0)
    info = begun.ask("mountinfo")
    answers = begun.run()
    assert [answers[built], answers[unmounted]] == ["left 1", "left 1"]
    assert below(answers[info], root) == {}


# --- options that only mount(2) accepts -----------------------------------------------------------


def padded(path: pathlib.Path, size: int) -> str:
    """The same path in `size` bytes."""
    return "/" * (size - len(str(path))) + str(path)


@pytest.mark.parametrize("size", [255, 256, 1000])
@pytest.mark.parametrize("built", [False, True])
def test_a_long_option(both: Script, root: pathlib.Path, tmp_path: pathlib.Path, size: int, built: bool) -> None:
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer/file").touch()
    args: dict[str, Any] = {"fstype": "overlay", "source": "overlay"}
    args |= {"data": [f"lowerdir={padded(tmp_path / 'layer', size)}:{tmp_path}"]}
    args["data"] = [args["data"][0][: len("lowerdir=") + size]]
    args["data"] += [f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work"]
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    fds = both.ask("fds")
    if built:
        build(both, attr_set=NOEXEC | NODEV, **args)
        attach(both, propagation=SHARED)
    else:
        both.op("mount", dest="/dir", attr_set=NOEXEC | NODEV, propagation=SHARED, **args)
    info, names, fds_after = both.ask("mountinfo"), both.ask("ls", root / "dir"), both.ask("fds")
    answers = both.run()
    found = below(answers[info], root)["/dir"]
    assert found.type == "overlay" and {"noexec", "nodev"} <= set(found.options) and found.kinds() == ["shared"]
    assert answers[names].split() == ["file"]
    assert int(answers[fds_after]) == int(answers[fds]) + built
    assert [m.point for m in mounts(answers[info]) if m.point.startswith(str(root))] == [str(root), f"{root}/dir"]


@pytest.mark.parametrize("size", [255, 256])
def test_a_long_source(both: Script, root: pathlib.Path, size: int) -> None:
    both.op("mount", fstype="tmpfs", source="s" * size, dest="/dir", data=["mode=751"])
    info, mode = both.ask("mountinfo"), both.ask("stat", root / "dir")
    answers = both.run()
    assert below(answers[info], root)["/dir"].source == "s" * size
    assert answers[mode].startswith("040751 ")


@pytest.mark.parametrize("size", [255, 256])
def test_a_long_option_without_a_value(both: Script, size: int) -> None:
    """It is never passed to mount(2), whose error would not name it."""
    bad = both.refused("mount", fstype="tmpfs", source="t", dest="/dir", data=["mode=751", "f" * size])
    found = failure(both.run()[bad])
    assert found[:4] == ("EINVAL", "fsconfig", 3, 1)
    assert found[4].startswith("tmpfs: Unknown parameter 'fff" if size == 255 else "")


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("more", [0, 1])
def test_a_page_of_options(both: Script, root: pathlib.Path, built: bool, more: int) -> None:
    first, last = "uid=7", "gid=9"
    zeros = PAGE - 1 + more - len(f"{first},mode=751,{last}")
    args: dict[str, Any] = {"fstype": "tmpfs", "source": "t", "dest": "/dir"}
    args |= {"data": [first, "mode=" + "0" * zeros + "751", last]}
    ask = both.refused if more else both.op
    number = ask("mount", **args, **({"policy": BUILD, "tree": 5} if built else {}))
    if built and not more:
        attach(both)
    mode = both.ask("stat", root / "dir")
    answers = both.run()
    if more:
        assert failure(answers[number]) == ("E2BIG", "mount", 3, 2, "more than a page of options")
    else:
        assert answers[mode].startswith("040751 7:9 ")


def test_one_option_of_a_page(both: Script) -> None:
    """Room for a comma is kept even here."""
    for more in (0, 1):
        ask = both.refused if more else both.op
        zeros = "0" * (PAGE - 2 + more - len("mode=751"))
        number = ask("mount", fstype="tmpfs", source="t", dest="/dir", data=[f"mode={zeros}751"])
    assert failure(both.run()[number])[:4] == ("E2BIG", "mount", 3, 0)


@pytest.mark.parametrize("built", [False, True])
def test_an_unknown_filesystem_with_long_options(both: Script, built: bool) -> None:
    args = {"policy": BUILD, "tree": 5} if built else {}
    data = ["option=" + "x" * 300]
    bad = both.refused("mount", fstype="nosuchfs", source="t", dest="/dir", data=data, **args)
    wrong = both.refused("mount", fstype="tmpfs", source="t", dest="/dir", data=data, **args)
    answers = both.run()
    assert failure(answers[bad]) == ("ENODEV", "mount", 0, 0, "")
    assert failure(answers[wrong]) == ("EINVAL", "mount", -1, 0, "")


def test_the_root_is_never_taken_for_the_mount(both: Script, root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Something unmounts the new filesystem before it is opened."""
    both.ask("trap", "after", "mount", 1, "umount", "/..", "")
    bad = both.refused("mount", fstype="tmpfs", source="s" * 300, dest="/dir")
    info, fds = both.ask("mountinfo"), both.ask("fds")
    before = len(both.lines)
    answers = both.run()
    assert failure(answers[bad])[:2] == ("EXDEV", "open_tree")
    assert below(answers[info], root) == {} and len(answers) == before and int(answers[fds]) <= 9


def test_the_mount_exists_only_where_nobody_sees_it(both: Script, root: pathlib.Path) -> None:
    """The mount namespace in which mount(2) is called has private propagation, and ends at once."""
    before = both.ask("mountinfo")
    bad = both.refused("mount", fstype="tmpfs", source="s" * 300, dest="/dir", data=["bogus=1"])
    after = both.ask("mountinfo")
    build(both, source="s" * 300)
    hidden = both.ask("mountinfo")
    answers = both.run(before="mount --make-rshared /")
    assert failure(answers[bad])[:2] == ("EINVAL", "mount")
    assert answers[before] == answers[after] == answers[hidden]


def test_a_procfs_is_bound_only_as_a_whole(both: Script) -> None:
    """Also if it is built for a running container."""
    policy = BIND | ops.P_MOUNT_RECURSIVE | BUILD
    bad = both.refused("mount", policy=policy, fstype="proc", source="/proc/sys", dest="/proc", tree=5)
    fds = both.ask("fds")
    both.op("mount", policy=policy, fstype="proc", source="/proc", dest="/proc", tree=5)
    more = both.ask("fds")
    answers = both.run()
    assert failure(answers[bad])[4] == "only a procfs may be mounted on /proc"
    assert int(answers[more]) == int(answers[fds]) + 1


def test_flags_of_built_mounts(both: Script, root: pathlib.Path, source: pathlib.Path) -> None:
    """Binds get all flags after they are cloned, filesystems only the recursive ones."""
    build(both, policy=BIND, fstype="", source=str(source), attr_set=RDONLY, rec_set=NOSUID)
    build(both, slot=6, attr_set=RDONLY, rec_set=NODEV)
    attach(both, "/one", 5, propagation=SLAVE | REC)
    attach(both, "/two", 6, propagation=PRIVATE)
    info = both.ask("mountinfo")
    found = below(both.run(before="mount --make-rshared /")[info], root)
    assert {"ro", "nosuid"} <= set(found["/one"].options) and {"ro", "nodev"} <= set(found["/two"].options)
    assert "nosuid" not in found["/two"].options and not found["/two"].tags
