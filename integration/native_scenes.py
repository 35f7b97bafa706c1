"""The ops of init on filesystems, each prepared and executed once by fs_driver: what
test_native_flags.py and test_native_faults.py look at.
"""

from __future__ import annotations

from collections.abc import Callable

from integration.native_fs import (
    BLK,
    CHR,
    FIFO,
    NODEV,
    NOEXEC,
    NOSUID,
    PRIVATE,
    RDONLY,
    REC,
    SHARED,
    SLAVE,
    Script,
)
from pyrunc.plan import ops

LONG = "s" * 256  # more than fsconfig accepts
Scene = Callable[[Script], object]
SCENES: dict[str, tuple[Scene, tuple[str, ...]]] = {}


def scene(*flags: str) -> Callable[[Scene], Scene]:
    """A function that prepares something and executes one op in the last line of its script."""

    def add(function: Scene) -> Scene:
        SCENES[function.__name__] = (function, flags)
        return function

    return add


def begun(script: Script) -> None:
    """A new root filesystem for every run: a tmpfs with a few files."""
    root = script.root
    script.ask("mount", "t", root, "tmpfs", 0, "")
    for name in ("dir", "etc", "dev", "old"):
        script.ask("mkdir", root / name)
    script.ask("write", root / "file", "content")
    script.op("propagation", propagation=SLAVE | REC)
    script.op("root", path=str(root))


def with_terminal(script: Script) -> None:
    begun(script)
    script.op("mount", fstype="devpts", source="d", dest="/dev/pts", data=["newinstance", "ptmxmode=0666"])
    script.op("dev_link", target="pts/ptmx", path="/dev/ptmx")
    script.op("pivot")


def pivoted(script: Script) -> None:
    begun(script)
    script.op("pivot")


# --- the root -------------------------------------------------------------------------------------


@scene()
def propagation(script: Script) -> None:
    script.op("propagation", propagation=SLAVE | REC | SHARED << 4)


@scene()
def root(script: Script) -> None:
    script.ask("mount", "t", script.root, "tmpfs", 0, "")
    script.op("propagation", propagation=SLAVE | REC)
    script.op("root", path=str(script.root))


@scene()
def root_in_a_mount(script: Script) -> None:
    script.ask("mount", "t", script.root, "tmpfs", 0, "")
    script.ask("mkdir", script.root / "above")
    script.ask("mkdir", script.root / "above/in")
    script.op("propagation", propagation=SLAVE | REC)
    script.op("root", path=str(script.root / "above/in"))


@scene()
def root_without_a_bind(script: Script) -> None:
    script.op("root", policy=ops.P_ROOT_NO_BIND, path=str(script.root))


@scene()
def pivot(script: Script) -> None:
    begun(script)
    script.op("pivot")


@scene()
def pivot_by_moving(script: Script) -> None:
    begun(script)
    script.op("pivot", policy=ops.P_PIVOT_MOVE)


@scene("-u")
def pivot_by_moving_in_a_user_namespace(script: Script) -> None:
    begun(script)
    script.op("pivot", policy=ops.P_PIVOT_MOVE)


@scene()
def pivot_by_chroot(script: Script) -> None:
    script.op("root", policy=ops.P_ROOT_NO_BIND, path=str(script.root))
    script.op("pivot", policy=ops.P_PIVOT_CHROOT)


@scene()
def mount_that_is_built(script: Script) -> None:
    begun(script)
    script.op("mount", policy=ops.P_MOUNT_BUILD, fstype="tmpfs", source="t", dest="/dir", tree=5)


@scene()
def mount_that_is_attached(script: Script) -> None:
    begun(script)
    script.op("mount", policy=ops.P_MOUNT_BUILD, fstype="tmpfs", source="t", dest="/dir", tree=5)
    script.op("mount", policy=ops.P_MOUNT_ATTACH | ops.P_MOUNT_INHERIT_MODE, fstype="tmpfs", dest="/dir", tree=5)


@scene()
def mount_that_is_reported(script: Script) -> None:
    begun(script)
    script.ask("parent", "reads")
    policy = ops.P_MOUNT_BUILD | ops.P_MOUNT_REPORT
    script.op("mount", policy=policy, fstype="tmpfs", source="t", dest="/dir", tree=5)


@scene()
def mount_that_is_built_of_long_options(script: Script) -> None:
    begun(script)
    script.op("mount", policy=ops.P_MOUNT_BUILD, fstype="tmpfs", source=LONG, dest="/dir", tree=5)


@scene()
def bind_that_is_built(script: Script) -> None:
    begun(script)
    policy = ops.P_MOUNT_BUILD | ops.P_MOUNT_BIND
    script.op("mount", policy=policy, source=str(script.root / "dir"), dest="/dir", tree=5, attr_set=NOSUID)


def reported(script: Script) -> None:
    begun(script)
    script.ask("parent", "reads")
    script.op("mount", fstype="tmpfs", source="t", dest="/dir")
    script.ask("ids", script.root / "dir")


@scene()
def unmount(script: Script) -> None:
    reported(script)
    script.ask("op", "UNMOUNT", 0, "id", "/dir")


@scene()
def unmount_of_something_else(script: Script) -> None:
    reported(script)
    script.ask("op", "UNMOUNT", ops.P_UNMOUNT_UNIQUE, "id", "/dir")


@scene()
def root_read_only(script: Script) -> None:
    pivoted(script)
    script.op("root_ro")


@scene()
def root_propagation(script: Script) -> None:
    pivoted(script)
    script.op("root_propagation", propagation=SHARED | REC)


# --- mounts ---------------------------------------------------------------------------------------


@scene()
def mount(script: Script) -> None:
    begun(script)
    script.op("mount", fstype="tmpfs", source="t", dest="/new/sub", data=["mode=755", "size=4k"], attr_set=NOSUID,
              rec_set=NODEV, propagation=PRIVATE)  # fmt: skip


@scene()
def mount_through_parents(script: Script) -> None:
    begun(script)
    script.op("mount", fstype="tmpfs", source="t", dest="/new/sub/../../other/./deep")


@scene()
def mount_through_links(script: Script) -> None:
    begun(script)
    script.ask("symlink", "/gone/../etc/sub", script.root / "link")
    script.op("mount", fstype="tmpfs", source="t", dest="/link/deep")


@scene()
def mount_with_the_mode_of_its_directory(script: Script) -> None:
    begun(script)
    script.op("mount", policy=ops.P_MOUNT_INHERIT_MODE, fstype="tmpfs", source="t", dest="/dir")


@scene()
def mount_that_copies_up(script: Script) -> None:
    begun(script)
    root = script.root
    script.ask("mkdir", root / "dir/sub")
    script.ask("write", root / "dir/sub/file", "content")
    script.ask("setxattr", root / "dir/sub/file", "trusted.mark", "kept")
    script.ask("symlink", "file", root / "dir/link")
    script.op("dev_node", kind=FIFO, mode=0o622, path="/dir/pipe")
    script.op("mount", policy=ops.P_MOUNT_COPY_UP, fstype="tmpfs", source="t", dest="/dir", attr_set=RDONLY)


@scene()
def mount_of_proc(script: Script) -> None:
    begun(script)
    script.op("mount", policy=ops.P_MOUNT_PLAIN_DIR, fstype="proc", source="proc", dest="/proc")


@scene()
def mount_in_proc(script: Script) -> None:
    begun(script)
    script.op("mount", policy=ops.P_MOUNT_PLAIN_DIR, fstype="proc", source="proc", dest="/proc")
    policy = ops.P_MOUNT_PLAIN_DIR | ops.P_MOUNT_IN_PROC
    script.op("mount", policy=policy, fstype="sysfs", source="sysfs", dest="/proc/fs")


@scene()
def mount_with_long_options(script: Script) -> None:
    begun(script)
    root = script.root
    for number in range(9):
        script.ask("mkdir", root / f"old/{'l' * 60}{number}")
    lower = ":".join(f"{root}/old/{'l' * 60}{number}" for number in range(9))
    script.op("mount", fstype="overlay", source="overlay", dest="/dir", data=[f"lowerdir={lower}"], attr_set=NOEXEC)


@scene()
def mount_of_a_new_root_with_long_options(script: Script) -> None:
    begun(script)
    root = script.root
    for number in range(9):
        script.ask("mkdir", root / f"old/{'l' * 60}{number}")
    lower = ":".join(f"{root}/old/{'l' * 60}{number}" for number in range(9))
    new = ops.P_MOUNT_NEW_ROOT
    script.op("mount", policy=new, fstype="overlay", source="overlay", dest="/", data=[f"lowerdir={lower}"])


@scene()
def mount_that_copies_up_with_a_long_source(script: Script) -> None:
    begun(script)
    script.op("mount", policy=ops.P_MOUNT_COPY_UP, fstype="tmpfs", source=LONG, dest="/dir")


@scene("-u", "-N")
def mount_of_a_cgroup_with_a_long_source(script: Script) -> None:
    """It is only for the bind that replaces the mount."""
    begun(script)
    name = script.root / LONG[:128] / LONG[:128]
    script.ask("mkdir", name.parent)
    script.ask("mkdir", name)
    script.op("mount", policy=ops.P_MOUNT_CGROUP, fstype="cgroup", source=str(name), dest="/cg")


@scene("-u", "-N")
def mount_of_a_cgroup_with_a_long_source_that_is_built(script: Script) -> None:
    begun(script)
    name = script.root / LONG[:128] / LONG[:128]
    script.ask("mkdir", name.parent)
    script.ask("mkdir", name)
    policy = ops.P_MOUNT_CGROUP | ops.P_MOUNT_BUILD
    script.op("mount", policy=policy, fstype="cgroup", source=str(name), dest="/cg", tree=5)


@scene("-u", "-N")
def mount_of_the_hosts_sysfs(script: Script) -> None:
    begun(script)
    script.op("mount", policy=ops.P_MOUNT_HOST_BIND, fstype="sysfs", source="/sys", dest="/sys", attr_set=RDONLY)


@scene("-u", "-N")
def mount_of_a_cgroup(script: Script) -> None:
    begun(script)
    script.op("mount", policy=ops.P_MOUNT_CGROUP, fstype="cgroup", source=str(script.root / "dir"), dest="/cg",
              attr_set=RDONLY)  # fmt: skip


@scene()
def bind(script: Script) -> None:
    begun(script)
    policy = ops.P_MOUNT_BIND | ops.P_MOUNT_RECURSIVE
    script.op("mount", policy=policy, source=str(script.root / "dir"), dest="/bound", attr_set=RDONLY, rec_set=NOEXEC,
              propagation=SLAVE | REC)  # fmt: skip


@scene()
def bind_of_a_file(script: Script) -> None:
    begun(script)
    script.op("mount", policy=ops.P_MOUNT_BIND, source=str(script.root / "file"), dest="/etc/file")


@scene()
def bind_of_a_file_through_a_link(script: Script) -> None:
    begun(script)
    script.ask("symlink", "../fresh", script.root / "etc/link")
    script.op("mount", policy=ops.P_MOUNT_BIND, source=str(script.root / "file"), dest="/etc/link")


@scene()
def bind_of_a_descriptor(script: Script) -> None:
    begun(script)
    script.ask("slot", 2, script.root / "dir")
    script.op("mount", policy=ops.P_MOUNT_BIND | ops.P_MOUNT_SOURCE_FD, tree=2, dest="/bound")


@scene()
def remount(script: Script) -> None:
    begun(script)
    script.op("mount", fstype="tmpfs", source="t", dest="/dir")
    script.op("mount", policy=ops.P_MOUNT_REMOUNT, fstype="tmpfs", dest="/dir", data=["size=8k"], attr_set=NOSUID,
              propagation=SHARED)  # fmt: skip


@scene()
def remount_of_a_bind(script: Script) -> None:
    begun(script)
    script.op("mount", fstype="tmpfs", source="t", dest="/dir")
    script.op("mount", policy=ops.P_MOUNT_REMOUNT | ops.P_MOUNT_BIND, dest="/dir", attr_set=RDONLY)


@scene()
def remount_read_only(script: Script) -> None:
    begun(script)
    script.op("mount", fstype="tmpfs", source="t", dest="/dir")
    script.op("pivot")
    script.op("remount_ro", dest="/dir", attr_set=NOSUID)


@scene()
def open_tree(script: Script) -> None:
    script.op("open_tree", policy=ops.P_OPEN_TREE_RECURSIVE, slot=200, propagation=SLAVE | REC, path=str(script.root))


@scene()
def enter_root(script: Script) -> None:
    script.op("enter_root", path=str(script.root))


# --- devices --------------------------------------------------------------------------------------

NULL = {"kind": CHR, "mode": 0o666, "major": 1, "minor": 3, "path": "/dev/null"}


@scene()
def device(script: Script) -> None:
    begun(script)
    script.op("dev_node", policy=ops.P_DEV_NODE_DEFAULT, **NULL)


@scene()
def device_with_an_owner(script: Script) -> None:
    begun(script)
    script.op("dev_node", kind=BLK, mode=0o660, major=7, minor=0, uid=3, gid=4, path="/dev/sub/loop")


@scene()
def device_that_is_there(script: Script) -> None:
    begun(script)
    script.op("dev_node", **NULL)
    script.op("dev_node", uid=3, **{**NULL, "mode": 0o600})


@scene()
def device_that_must_be_there(script: Script) -> None:
    begun(script)
    script.op("dev_node", **NULL)
    script.op("dev_node", policy=ops.P_DEV_NODE_THERE, **NULL)


@scene()
def device_that_must_be_there_and_is_not(script: Script) -> None:
    begun(script)
    script.op("dev_node", policy=ops.P_DEV_NODE_THERE, **NULL)


@scene()
def device_of_the_host(script: Script) -> None:
    begun(script)
    script.op("dev_node", policy=ops.P_DEV_NODE_BIND_HOST | ops.P_DEV_NODE_DEFAULT, **NULL)


@scene("-u")
def device_in_a_user_namespace(script: Script) -> None:
    begun(script)
    script.op("dev_node", policy=ops.P_DEV_NODE_DEFAULT, **NULL)


@scene()
def device_made_ahead(script: Script) -> None:
    null = {**NULL, "mode": 0o600, "uid": 5, "gid": 6, "number": 1}
    script.op("make_node", label="", **null)


@scene()
def device_that_was_made_ahead(script: Script) -> None:
    begun(script)
    null = {**NULL, "number": 1}
    script.op("make_node", label="", **null)
    script.op("dev_node", policy=ops.P_DEV_NODE_BIND_HOST | ops.P_DEV_NODE_MADE, **null)


@scene()
def device_link(script: Script) -> None:
    begun(script)
    script.op("dev_link", policy=ops.P_DEV_LINK_IF_TARGET, target="/proc/self/fd", path="/dev/fd")


# --- what is hidden -------------------------------------------------------------------------------


@scene()
def mask_of_a_file(script: Script) -> None:
    pivoted(script)
    script.op("mask_path", path="/file")


@scene()
def mask_of_a_directory(script: Script) -> None:
    pivoted(script)
    script.op("mask_path", path="/dir")


@scene()
def mask_of_a_second_directory(script: Script) -> None:
    pivoted(script)
    script.op("mask_path", path="/etc")
    script.op("mask_path", path="/dir")


@scene()
def read_only_path(script: Script) -> None:
    pivoted(script)
    script.op("readonly_path", path="/dir")


# --- stdio, names, labels -------------------------------------------------------------------------


@scene()
def console(script: Script) -> None:
    with_terminal(script)
    script.op("console", policy=ops.P_CONSOLE_MOUNT_CONSOLE, fd=1, rows=33, cols=77, uid=21, gid=22)


@scene()
def console_that_controls_nothing(script: Script) -> None:
    with_terminal(script)
    script.op("console", policy=ops.P_CONSOLE_NOT_CONTROLLING, fd=1)


@scene()
def null_of_the_container(script: Script) -> None:
    begun(script)
    script.op("dev_node", **NULL)
    script.ask("stdio", 0, "/dev/null")
    script.op("pivot")
    script.op("reopen_null")


def stdio_is_a_file(script: Script) -> None:
    begun(script)
    for fd in range(3):
        script.ask("stdio", fd, script.root / "file")


@scene()
def owner_of_stdio(script: Script) -> None:
    stdio_is_a_file(script)
    script.op("stdio_owner", uid=41, gid=42)


@scene()
def owner_of_stdio_that_is_right(script: Script) -> None:
    stdio_is_a_file(script)
    script.op("stdio_owner", uid=0, gid=0)


@scene()
def user_of_stdio_that_is_right(script: Script) -> None:
    stdio_is_a_file(script)
    script.op("stdio_owner", uid=0, gid=0xFFFFFFFF)


@scene()
def host_name(script: Script) -> None:
    script.op("hostname", name="box")


@scene()
def domain_name(script: Script) -> None:
    script.op("domainname", name="box")


@scene()
def sysctl(script: Script) -> None:
    script.op("sysctl", key="kernel/domainname", value="x")


@scene()
def label_of_a_mount(script: Script) -> None:
    begun(script)
    script.op("mount", fstype="tmpfs", source="t", dest="/dir")
    script.op("mount_label", dest="/dir", label="u:r:t:s0")


@scene()
def label_of_keys(script: Script) -> None:
    script.op("key_label", label="u:r:t:s0")


@scene()
def profile(script: Script) -> None:
    script.op("apparmor", profile="p")


@scene()
def label(script: Script) -> None:
    script.op("selinux", label="u:r:t:s0")


# What they write depends on the security module that is on.
LABELS = {"label_of_a_mount", "label_of_keys", "profile", "label"}
