"""mounts[]: every option, binds, recursion, tmpcopyup, propagation, and destinations that try to
leave the rootfs."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from integration import machine
from integration.harness import Box, Container
from integration.machine import Mount, parse_mountinfo

Make = Callable[..., Container]
Refused = Callable[..., None]


def mount(destination: str, source: str, *options: str, fstype: str = "bind") -> dict[str, Any]:
    return {"destination": destination, "type": fstype, "source": source, "options": list(options)}


def tmpfs(destination: str, *options: str) -> dict[str, Any]:
    return mount(destination, "tmpfs", *options, fstype="tmpfs")


def mounts_of(report: dict[str, Any]) -> dict[str, Mount]:
    """The topmost mount at each destination."""
    return {one.dest: one for one in parse_mountinfo(report["mountinfo"])}


def last_of(report: dict[str, Any], dest: str) -> Mount:
    return mounts_of(report)[dest]


@contextmanager
def mounted(path: Path, *, options: str = "") -> Iterator[Path]:
    """A tmpfs of the host at `path` while the block runs."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", *(["-o", options] if options else []), "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-R", str(path)], check=True)


@pytest.mark.parametrize(
    ("options", "there", "absent"),
    [
        (["ro"], ["ro"], ["rw"]),
        (["rw"], ["rw"], ["ro"]),
        (["ro", "rw"], ["rw"], ["ro"]),
        (["nosuid"], ["nosuid"], []),
        (["nosuid", "suid"], [], ["nosuid"]),
        (["nodev"], ["nodev"], []),
        (["nodev", "dev"], [], ["nodev"]),
        (["noexec"], ["noexec"], []),
        (["noexec", "exec"], [], ["noexec"]),
        (["noatime"], ["noatime"], ["relatime"]),
        (["noatime", "atime"], ["relatime"], ["noatime"]),
        (["relatime"], ["relatime"], ["noatime"]),
        (["strictatime"], [], ["noatime", "relatime"]),
        (["nodiratime"], ["nodiratime"], []),
        (["nodiratime", "diratime"], [], ["nodiratime"]),
        (["noatime", "nodiratime"], ["noatime", "nodiratime"], []),
        (["ro", "nosuid", "nodev", "noexec"], ["ro", "nosuid", "nodev", "noexec"], []),
    ],
    ids=lambda value: ",".join(value),
)
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_flags(container: Make, box: Box, kind: str, options: list[str], there: list[str], absent: list[str]) -> None:
    source = box.path / "source"
    source.mkdir()
    one = tmpfs("/mnt", *options) if kind == "tmpfs" else mount("/mnt", str(source), "bind", *options)
    seen = last_of(container(edits={"/mounts/-": one}).run().report, "/mnt")
    assert set(there) <= set(seen.options), seen
    assert not set(absent) & set(seen.options), seen


@pytest.mark.parametrize(
    "option", ["sync", "dirsync", "lazytime", "iversion", "async", "loud", "silent", "noiversion", "nolazytime"]
)
def test_superblock_flags_are_accepted(container: Make, option: str) -> None:
    seen = last_of(container(edits={"/mounts/-": tmpfs("/mnt", option)}).run().report, "/mnt")
    if option in ("sync", "dirsync", "lazytime"):
        assert option in seen.super + seen.options, seen


@pytest.mark.pyrunc_only("runc 1.1.5 does not know these options, or hands them to the file system")
@pytest.mark.parametrize(
    "option", ["nosymfollow", "symfollow", "mand", "nomand", "norelatime", "nostrictatime", "defaults"]
)
def test_newer_options(container: Make, option: str) -> None:
    seen = last_of(container(edits={"/mounts/-": tmpfs("/mnt", option)}).run().report, "/mnt")
    assert ("nosymfollow" in seen.options) == (option == "nosymfollow")


def test_nosymfollow_has_effect(container: Make, box: Box) -> None:
    if not box.runtime.is_pyrunc:
        pytest.skip("runc 1.1.5 does not know nosymfollow")
    source = box.path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    (source / "link").symlink_to("file")
    one = container("open", "/mnt/file", "r", "--", "open", "/mnt/link", "r")
    one.bundle.config["mounts"].append(mount("/mnt", str(source), "bind", "nosymfollow"))
    plain, link = one.run().objects
    assert (plain["errno"], link["errno"]) == (0, 40)  # ELOOP


def test_data_options(container: Make) -> None:
    one = container(
        "report", "--", "stat", "/new", edits={"/mounts/-": tmpfs("/new", "mode=0711", "size=123k", "uid=12", "gid=34")}
    )
    result = one.run()
    seen = last_of(result.report, "/new")
    assert "size=124k" in seen.super  # rounded up to pages
    stat = result.objects[1]
    assert (stat["uid"], stat["gid"]) == (12, 34)


@pytest.mark.pyrunc_only("runc 1.1.5 sets the mode of the covered directory afterwards")
def test_the_mode_option_wins_over_the_directory(container: Make) -> None:
    one = container("stat", "/mnt", edits={"/mounts/-": tmpfs("/mnt", "mode=0711")})
    assert one.run().objects[0]["mode"] == 0o711


def test_tmpfs_keeps_the_mode_of_the_directory_it_covers(container: Make) -> None:
    one = container("stat", "/covered", edits={"/mounts/-": tmpfs("/covered")})
    (one.bundle.rootfs / "covered").mkdir()
    (one.bundle.rootfs / "covered").chmod(0o1750)
    assert one.run().objects[0]["mode"] == 0o1750


def test_missing_destinations_are_created(container: Make, box: Box) -> None:
    file = box.path / "file"
    file.write_text("content")
    one = container("stat", "/new/dir", "--", "read", "/new/file")
    one.bundle.config["mounts"] += [tmpfs("/new/dir"), mount("/new/file", str(file), "bind")]
    stat, read = one.run().objects
    assert stat["type"] == "d"
    assert read["text"] == "content"
    assert (one.bundle.rootfs / "new").stat().st_mode & 0o7777 == 0o755
    assert (one.bundle.rootfs / "new/dir").stat().st_mode & 0o7777 == 0o755
    if box.runtime.is_pyrunc:  # runc 1.1.5 makes it executable
        assert (one.bundle.rootfs / "new/file").stat().st_mode & 0o7777 == 0o644
    assert (one.bundle.rootfs / "new/file").read_text() == ""


def test_bind_source_relative_to_the_bundle(container: Make) -> None:
    one = container("read", "/mnt/file", edits={"/mounts/-": mount("/mnt", "beside", "bind")})
    (one.bundle.path / "beside").mkdir()
    (one.bundle.path / "beside/file").write_text("beside")
    assert one.run(cwd="/").objects[0]["text"] == "beside"


def test_bind_type_needs_no_bind_option_name(container: Make, box: Box) -> None:
    """The option makes it a bind mount; the type is then ignored."""
    source = box.path / "source"
    source.mkdir()
    (source / "here").touch()
    one = container("ls", "/mnt", edits={"/mounts/-": mount("/mnt", str(source), "rbind", fstype="ignored")})
    assert one.run().objects[0]["names"] == ["here"]


def test_read_only_bind_cannot_be_written(container: Make, box: Box) -> None:
    source = box.path / "source"
    source.mkdir()
    one = container("write", "/mnt/x", "y", edits={"/mounts/-": mount("/mnt", str(source), "bind", "ro")})
    assert one.run().objects[0]["errno"] == 30
    assert not list(source.iterdir())


@pytest.mark.parametrize("recursive", [True, False])
def test_recursive_and_plain_bind(container: Make, box: Box, recursive: bool) -> None:
    source = box.path / "source"
    with mounted(source), mounted(source / "inner"):
        edits = {"/mounts/-": mount("/mnt", str(source), "rbind" if recursive else "bind")}
        seen = mounts_of(container(edits=edits).run().report)
    assert "/mnt" in seen
    assert ("/mnt/inner" in seen) == recursive


@pytest.mark.parametrize(
    ("option", "inside", "outer"),
    [
        ("rro", "ro", True),
        ("rnosuid", "nosuid", True),
        ("rnodev", "nodev", True),
        ("rnoexec", "noexec", True),
        ("rnoatime", "noatime", True),
        ("rnodiratime", "nodiratime", True),
    ],
)
def test_recursive_attributes(container: Make, box: Box, option: str, inside: str, outer: bool) -> None:
    source = box.path / "source"
    with mounted(source), mounted(source / "inner"):
        seen = mounts_of(container(edits={"/mounts/-": mount("/mnt", str(source), "rbind", option)}).run().report)
        host = {m.dest: m for m in parse_mountinfo(Path("/proc/self/mountinfo").read_text())}[str(source)]
    assert inside in seen["/mnt/inner"].options
    assert (inside in seen["/mnt"].options) == outer
    assert inside not in host.options


@pytest.mark.parametrize(
    ("option", "flag"),
    [("rrw", "ro"), ("rsuid", "nosuid"), ("rdev", "nodev"), ("rexec", "noexec"), ("rrelatime", "noatime")],
)
def test_recursive_clearing_attributes(container: Make, box: Box, option: str, flag: str) -> None:
    source = box.path / "source"
    with mounted(source, options=f"{flag}" if flag != "ro" else ""):
        seen = mounts_of(container(edits={"/mounts/-": mount("/mnt", str(source), "rbind", flag, option)}).run().report)
    assert flag not in seen["/mnt"].options


def test_plain_ro_leaves_submounts_writable(container: Make, box: Box) -> None:
    source = box.path / "source"
    with mounted(source), mounted(source / "inner"):
        seen = mounts_of(container(edits={"/mounts/-": mount("/mnt", str(source), "rbind", "ro")}).run().report)
    assert "ro" in seen["/mnt"].options
    assert "rw" in seen["/mnt/inner"].options


def test_a_bind_keeps_the_flags_of_its_source(container: Make, box: Box) -> None:
    """A flag that is not named is not cleared: a nosuid,nodev filesystem keeps both."""
    source = box.path / "source"
    with mounted(source, options="nosuid,nodev,noexec"):
        seen = mounts_of(container(edits={"/mounts/-": mount("/mnt", str(source), "bind")}).run().report)
    assert {"nosuid", "nodev", "noexec"} <= set(seen["/mnt"].options)


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("rprivate", ""),
        ("private", ""),
        ("rslave", "master:"),
        ("slave", "master:"),
        ("rshared", "shared:"),
        ("shared", "shared:"),
    ],
)
def test_propagation(container: Make, box: Box, option: str, word: str) -> None:
    source = box.path / "source"
    with mounted(source):
        edits = {"/mounts/-": mount("/mnt", str(source), "rbind", option), "/linux/rootfsPropagation": "rslave"}
        seen = mounts_of(container(edits=edits).run().report)["/mnt"]
    assert seen.shared.startswith(word) if word else seen.shared == "", seen


def test_unbindable(container: Make) -> None:
    seen = mounts_of(container(edits={"/mounts/-": tmpfs("/mnt", "unbindable")}).run().report)["/mnt"]
    assert "unbindable" in seen.shared


def test_slave_mounts_follow_the_host(container: Make, box: Box) -> None:
    """rslave volumes exist for this: later mounts on the host appear in the container."""
    source = box.path / "source"
    with mounted(source):
        (source / "later").mkdir()
        edits = {"/mounts/-": mount("/mnt", str(source), "rbind", "rslave"), "/linux/rootfsPropagation": "rslave"}
        one = container("line", "--", "report", edits=edits)
        read, write = os.pipe()
        try:
            one.create(stdin=read)
            one.start()
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(source / "later")], check=True)
            os.write(write, b"go\n")
            one.wait()
        finally:
            os.close(read)
            os.close(write)
        assert "/mnt/later" in mounts_of(one.report)


def test_mounts_of_the_container_stay_inside(container: Make, box: Box) -> None:
    """All mounts are in the container's namespace; the host's are shared here, so that a mistake
    would be visible."""
    before = Path("/proc/self/mountinfo").read_text()
    one = container("signals", "60", edits={"/mounts/-": tmpfs("/mnt")})
    one.create()
    assert Path("/proc/self/mountinfo").read_text() == before
    one.start()
    one.wait_output("ready")
    assert Path("/proc/self/mountinfo").read_text() == before


def test_tmpcopyup(container: Make) -> None:
    one = container(
        "read", "/full/file", "--", "lstat", "/full/link", "--", "stat", "/full/dir/deep", "--", "stat", "/full"
    )
    one.bundle.config["mounts"].append(tmpfs("/full", "tmpcopyup"))
    full = one.bundle.rootfs / "full"
    (full / "dir").mkdir(parents=True)
    (full / "file").write_text("copied")
    (full / "link").symlink_to("file")
    (full / "dir/deep").write_text("x")
    (full / "dir/deep").chmod(0o640)
    os.chown(full / "dir/deep", 5, 6)
    full.chmod(0o751)
    file, link, deep, top = one.run().objects
    assert file["text"] == "copied"
    assert link["target"] == "file"
    assert (deep["mode"], deep["uid"], deep["gid"]) == (0o640, 5, 6)
    assert top["mode"] == 0o751


@pytest.mark.pyrunc_only("runc writes the holes out, 3 GB of memory")
def test_tmpcopyup_leaves_holes(container: Make) -> None:
    script = "cd /full; du -k sparse hole; stat -c %s sparse hole tail; tail -c 4 tail; dd if=sparse bs=4 count=1"
    one = container(edits={"/process/args": ["/bin/sh", "-c", script + " skip=262144 2>&-"]})
    one.bundle.config["mounts"].append(tmpfs("/full", "tmpcopyup"))
    full = one.bundle.rootfs / "full"
    full.mkdir()
    with open(full / "sparse", "wb") as file:  # data at 1 MiB and at the end of 3 GiB
        os.pwrite(file.fileno(), b"data" * 1024, 1 << 20)
        os.pwrite(file.fileno(), b"end", (3 << 30) - 3)
    with open(full / "hole", "wb") as file:
        file.truncate(1 << 30)
    (full / "tail").write_bytes(b"x" * 100_000 + b"tail")
    lines = one.run(timeout=20).out.split()
    used = {lines[1]: int(lines[0]), lines[3]: int(lines[2])}
    assert used["sparse"] <= 64 and used["hole"] == 0, used
    assert lines[4:7] == [str(3 << 30), str(1 << 30), "100004"]
    assert lines[7] == "taildata"


def test_tmpcopyup_read_only(container: Make) -> None:
    one = container("read", "/full/file", "--", "write", "/full/new", "x")
    one.bundle.config["mounts"].append(tmpfs("/full", "tmpcopyup", "ro"))
    (one.bundle.rootfs / "full").mkdir()
    (one.bundle.rootfs / "full/file").write_text("copied")
    file, new = one.run().objects
    assert (file["text"], new["errno"]) == ("copied", 30)


def test_order_is_list_order(container: Make) -> None:
    edits = {"/mounts/-": tmpfs("/mnt", "size=64k")}
    one = container("write", "/mnt/sub/x", "y", "--", "report", edits=edits)
    one.bundle.config["mounts"] += [tmpfs("/mnt/sub", "size=32k"), tmpfs("/mnt", "size=16k")]
    result = one.run(check=False)
    seen = parse_mountinfo(result.report["mountinfo"])
    assert [m.dest for m in seen if m.dest.startswith("/mnt")] == ["/mnt", "/mnt/sub", "/mnt"]
    assert result.objects[0]["errno"] == 2, "the last tmpfs covers the others"


def test_relative_destination_counts_from_the_root(container: Make) -> None:
    seen = mounts_of(container(edits={"/mounts/-": tmpfs("mnt")}).run().report)
    assert "/mnt" in seen


@pytest.mark.parametrize("target", ["/inside", "../../../../inside", "inside", "/../inside"])
def test_symlinked_destination_stays_inside(container: Make, box: Box, target: str) -> None:
    outside = Path("/inside")
    assert not outside.exists()
    one = container("write", "/inside/x", "y", "--", "report", edits={"/mounts/-": tmpfs("/link")})
    (one.bundle.rootfs / "inside").mkdir()
    (one.bundle.rootfs / "link").symlink_to(target)
    assert "/inside" in mounts_of(one.run().report)
    assert not outside.exists()


@pytest.mark.parametrize("target", ["OUT", "../../OUT-name"])
def test_symlinked_parent_stays_inside(container: Make, box: Box, target: str) -> None:
    """The target exists on the host under the same name: only a runtime that follows links would go
    there."""
    canary = box.path / "canary"
    canary.mkdir()
    one = container("report")
    link = str(canary) if target == "OUT" else f"../../{canary.name}"
    (one.bundle.rootfs / "link").symlink_to(link)
    file = box.path / "file"
    file.write_text("x")
    one.bundle.config["mounts"] += [tmpfs("/link/dir"), mount("/link/file", str(file), "bind")]
    one.run(check=False)
    assert not list(canary.iterdir())


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("target", ["/bar", "../bar", "bar"])
def test_proc_and_sysfs_want_real_directories(container: Make, refused: Refused, name: str, target: str) -> None:
    """CVE-2019-19921, CVE-2023-27561: a link there moved the mounts that the masks rely on."""
    one = container()
    (one.bundle.rootfs / name).rmdir()
    (one.bundle.rootfs / name).symlink_to(target)
    (one.bundle.rootfs / "bar").mkdir()
    refused(
        one.create(check=False), f"/mounts/{'0' if name == 'proc' else '5'}", "must be mounted on ordinary directory"
    )


@pytest.mark.parametrize("dest", ["/proc", "/proc/self", "/proc/1", "/proc/self/attr", "/proc/sys", "/proc/nothing"])
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
@pytest.mark.pyrunc_only("runc 1.1.5 accepts /proc/self/attr and /proc/sys, and fails on others only by luck")
def test_nothing_is_mounted_over_proc(container: Make, box: Box, refused: Refused, kind: str, dest: str) -> None:
    """CVE-2019-16884: labels and checks are written through /proc."""
    source = box.path / "source"
    source.mkdir()
    one = container()
    one.bundle.config["mounts"].append(tmpfs(dest) if kind == "tmpfs" else mount(dest, str(source), "bind"))
    refused(one.create(check=False), "/mounts/6", dest)


def test_files_of_lxcfs_may_cover_proc_files(container: Make, box: Box) -> None:
    file = box.path / "uptime"
    file.write_text("1.00 1.00\n")
    one = container("read", "/proc/uptime", edits={"/mounts/-": mount("/proc/uptime", str(file), "bind")})
    assert one.run().objects[0]["text"] == "1.00 1.00\n"


def test_missing_bind_source(container: Make, refused: Refused) -> None:
    edits = {"/mounts/-": mount("/mnt", "/no/such/source", "bind")}
    result = container(edits=edits).create(check=False)
    refused(result, "/mounts/6/source", "/no/such/source", "/mnt")


def test_the_kernels_own_words(container: Make, box: Box, refused: Refused) -> None:
    result = container(edits={"/mounts/-": tmpfs("/mnt", "bogus=1")}).create(check=False)
    refused(result, "/mounts/6/options", '"bogus=1"', "(/mnt)", "EINVAL", "Unknown parameter 'bogus'")


def test_unknown_filesystem(container: Make, refused: Refused) -> None:
    edits = {"/mounts/-": mount("/mnt", "x", fstype="no-such-fs")}
    refused(container(edits=edits).create(check=False), "/mounts/6/type", "no-such-fs", "ENODEV")


def test_destination_that_is_a_file(container: Make, refused: Refused) -> None:
    refused(container(edits={"/mounts/-": tmpfs("/etc/passwd")}).create(check=False), "/mounts/6", "/etc/passwd")


def test_destination_below_a_file(container: Make, refused: Refused) -> None:
    refused(
        container(edits={"/mounts/-": tmpfs("/etc/passwd/x")}).create(check=False),
        "/mounts/6/destination",
        "/etc/passwd/x",
    )


def test_root_as_destination(container: Make, refused: Refused) -> None:
    refused(container(edits={"/mounts/-": tmpfs("/")}).create(check=False), "/mounts/6/destination")


def test_cgroup_mount(container: Make) -> None:
    one = container("ls", "/sys/fs/cgroup", "--", "report")
    options = ["ro", "nosuid", "noexec", "nodev", "relatime"]
    one.bundle.config["mounts"].append(mount("/sys/fs/cgroup", "cgroup", *options, fstype="cgroup"))
    result = one.run()
    assert "cgroup.procs" in result.objects[0]["names"]
    seen = last_of(result.report, "/sys/fs/cgroup")
    assert seen.fstype == "cgroup2"
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(seen.options)


def test_cgroup_mount_without_a_cgroup_namespace(container: Make) -> None:
    """It is private like a new mount, although it is a bind of a host mount."""
    one = container()
    one.bundle.config["mounts"].append(mount("/sys/fs/cgroup", "cgroup", "ro", fstype="cgroup"))
    one.bundle.config["linux"]["namespaces"] = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]
    seen = last_of(one.run().report, "/sys/fs/cgroup")
    assert (seen.fstype, seen.shared) == ("cgroup2", "")


def test_devpts_is_a_new_instance(container: Make) -> None:
    one = container("ls", "/dev/pts", "--", "stat", "/dev/pts/ptmx")
    names, ptmx = one.run().objects
    assert names["names"] == ["ptmx"]
    assert ptmx["mode"] == 0o666


def test_ro_dev_is_filled_first(container: Make) -> None:
    one = container("stat", "/dev/null", "--", "write", "/dev/x", "y")
    one.bundle.config["mounts"][1]["options"].append("ro")
    null, write = one.run().objects
    assert (null["major"], null["minor"]) == (1, 3)
    assert write["errno"] == 30


def test_dev_of_the_host_bound_gets_no_devices(container: Make, box: Box) -> None:
    """If /dev is a bind, the caller is responsible for its content."""
    source = box.path / "dev"
    source.mkdir()
    os.mknod(source / "null", 0o20666, os.makedev(1, 3))
    one = container("exit", "0")
    one.bundle.config["mounts"] = [one.bundle.config["mounts"][0], mount("/dev", str(source), "bind")]
    one.run()
    assert [path.name for path in source.iterdir()] == ["null"]


@pytest.mark.pyrunc_only("runc 1.1.5 writes into the directory outside (CVE-2026-41579)")
@pytest.mark.parametrize("target", ["ABS", "REL"])
def test_dev_that_leads_outside(container: Make, box: Box, target: str) -> None:
    outside = box.path / "outside"
    outside.mkdir()
    one = container("exit", "0")
    (one.bundle.rootfs / "dev").rmdir()
    (one.bundle.rootfs / "dev").symlink_to(str(outside) if target == "ABS" else "../../outside")
    mounts = one.bundle.config["mounts"]
    one.bundle.config["mounts"] = [m for m in mounts if not m["destination"].startswith("/dev")]
    assert one.run(check=False).rc != 0
    assert not list(outside.iterdir())


def test_two_thousand_binds_with_few_descriptors(container: Make, box: Box) -> None:
    source = box.path / "source"
    source.mkdir()
    one = container("report")
    for number in range(2000):
        one.bundle.config["mounts"].append(mount(f"/mnt/{number}", str(source), "bind", "ro"))

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))

    result = one.run(preexec=few, timeout=60)
    assert sum(m.dest.startswith("/mnt/") for m in parse_mountinfo(result.report["mountinfo"])) == 2000


class Swapper:
    """Exchange two names continuously (renameat2), as a process of the image could do with a
    mount's destination."""

    def __init__(self, one: Path, two: Path) -> None:
        self.names = (os.fsencode(one), os.fsencode(two))
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._swap, daemon=True)
        self.thread.start()

    def _swap(self) -> None:
        while not self.stop.is_set():
            machine.libc("renameat2", -100, self.names[0], -100, self.names[1], 2)  # AT_FDCWD, RENAME_EXCHANGE

    def close(self) -> None:
        self.stop.set()
        self.thread.join(5)


@pytest.mark.pyrunc_only("runc 1.1.5 makes missing directories by path (CVE-2024-45310)")
@pytest.mark.parametrize("missing", [False, True])
def test_destination_that_is_swapped_for_a_link(container: Make, box: Box, missing: bool) -> None:
    """CVE-2021-30465: between look-up and mount, a directory on the path becomes a link to the
    host."""
    canary = box.path / "canary"
    (canary / "sub").mkdir(parents=True)
    one = container("exit", "0", edits={"/mounts/-": tmpfs("/a/b/new/dir" if missing else "/a/b/sub")})
    (one.bundle.rootfs / "a/b/sub").mkdir(parents=True)
    (one.bundle.rootfs / "a/link").symlink_to(canary)
    before = Path("/proc/self/mountinfo").read_text()
    swapper = Swapper(one.bundle.rootfs / "a/b", one.bundle.rootfs / "a/link")
    try:
        for _ in range(30):
            if one.run(check=False).rc != 0:  # a lost race is an error, never a mount elsewhere
                one.delete("--force")
            assert os.listdir(canary) == ["sub"]
            assert os.listdir(canary / "sub") == []
    finally:
        swapper.close()
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.pyrunc_only("runc 1.1.5 lists options that it passes on to the file system")
def test_every_option_of_features_is_taken(container: Make, box: Box) -> None:
    """A container mounts with each option that `features` lists; an unlisted option is rejected."""
    listed = json.loads(box.runtime.call("features").out)["mountOptions"]
    source = box.path / "source"
    source.mkdir()
    edits: dict[str, Any] = {}
    for number, option in enumerate(listed):
        if option in ("idmap", "ridmap"):
            continue  # they need mappings: integration/test_userns.py
        mount = {"destination": f"/m{number}", "type": "tmpfs", "source": "tmpfs", "options": [option]}
        if option in ("bind", "rbind"):
            mount |= {"type": "none", "source": str(source)}
        elif option == "remount":
            mount |= {"destination": "/dev/shm", "options": ["remount", "size=1m"]}
        edits[f"/mounts/{6 + number}"] = mount
    config_mounts = [mount for _, mount in sorted(edits.items(), key=lambda item: int(item[0].rpartition("/")[2]))]
    made = container("report")
    made.bundle.config["mounts"] += config_mounts
    points = {line.split()[4] for line in made.run().report["mountinfo"].splitlines()}
    assert points >= {mount["destination"] for mount in config_mounts}
    made.bundle.config["mounts"] = [{**config_mounts[0], "options": ["notlisted"]}]
    assert made.run(check=False).rc != 0
