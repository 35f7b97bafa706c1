"""Mounts in a user namespace: devices, proc, binds and cgroups."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.harness import Box, errno_of
from integration.machine import parse_mountinfo
from integration.test_userns import CGROUP, HOST, KINDS, SIZE, Make, Pod, Refused, edits, mapped, pod

__all__ = ["mapped", "pod"]  # fixtures


def test_devices_are_the_hosts(mapped: Make, box: Box) -> None:
    one = mapped("report", "--", "write", "/dev/null", "x", "--", "open", "/dev/full", "w")
    result = one.run()
    seen = result.report["devices"]
    assert {(seen[f"/dev/{name}"]["major"], seen[f"/dev/{name}"]["minor"]) for name in ("null", "zero", "tty")} == {
        (1, 3), (1, 5), (5, 0),
    }  # fmt: skip
    assert [item["errno"] for item in result.objects[1:]] == [0, 0]
    for mount in parse_mountinfo(result.report["mountinfo"]):
        if mount.dest in seen and mount.root != "/" and box.runtime.name != "runc":  # as on the host
            assert {"nosuid", "noexec"} <= set(mount.options), mount
            assert mount.shared == "", mount
    assert not stat.S_ISREG(os.stat("/dev/null").st_mode)


def node(path: str, minor: int = 3, **more: Any) -> dict[str, Any]:
    return {"path": path, "type": "c", "major": 1, "minor": minor, **more}


@pytest.mark.parametrize(
    ("entry", "want"),
    [
        (node("/dev/kmsg", 11, fileMode=0o640, uid=5, gid=6), ("c", 0o640, 5, 6)),
        (node("/dev/full", 7, fileMode=0o600, uid=3, gid=4), ("c", 0o600, 3, 4)),
        (node("/dev/no-such-device", fileMode=0o666, uid=0, gid=0), ("c", 0o666, 0, 0)),
        (node("/else/where", fileMode=0o622, uid=9, gid=9), ("c", 0o622, 9, 9)),
        ({"path": "/dev/disk", "type": "b", "major": 7, "minor": 0, "fileMode": 0o60660}, ("b", 0o660, 0, 0)),
        ({"path": "/dev/a-fifo", "type": "p", "fileMode": 0o600, "uid": 7}, ("p", 0o600, 7, 0)),
    ],
    ids=lambda value: str(value.get("path")) if isinstance(value, dict) else "",
)
def test_configured_devices(mapped: Make, box: Box, entry: dict[str, Any], want: tuple[str, int, int, int]) -> None:
    """config-linux.md, Devices: uid and gid are the container's. The host's node does not
    change."""
    if box.runtime.name == "runc":
        pytest.skip("runc binds the host's node, whatever the entry says about it")
    if box.runtime.name == "crun" and entry["path"] == "/dev/full":
        pytest.skip("crun puts the default node over it")
    before = os.stat("/dev/full")
    one = mapped("stat", entry["path"], "--", "read", "/proc/self/mountinfo", more={"/linux/devices": [entry]})
    seen, mounts = one.run().objects
    assert (seen["type"], seen["mode"], seen["uid"], seen["gid"]) == want
    assert entry["type"] == "p" or (seen["major"], seen["minor"]) == (entry["major"], entry["minor"])
    found = parse_mountinfo(mounts["text"])
    assert [m.dest for m in found if m.dest == "/"] == ["/"], "what holds the nodes is not in the way"
    if box.runtime.is_pyrunc and entry["type"] != "p":
        flags = next(m.options for m in found if m.dest == entry["path"])
        assert {"nosuid", "noexec"} <= set(flags) and "nodev" not in flags
    after = os.stat("/dev/full")
    assert (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)


def test_many_devices_and_one_that_works(mapped: Make, box: Box) -> None:
    if box.runtime.name == "runc":
        pytest.skip("runc binds the host's nodes only")
    entries = [node(f"/dev/many/{minor}", minor, fileMode=0o666, uid=0, gid=0) for minor in (3, 5, 7, 8, 9, 11)]
    one = mapped("stat", "/dev/many/8", "--", "open", "/dev/many/5", "r", "--", "write", "/dev/many/7", "x",
                 more={"/linux/devices": entries})  # fmt: skip
    seen, zero, full = one.run().objects
    assert (seen["minor"], zero["errno"], errno_of(full)) == (8, 0, "ENOSPC")


def test_devices_in_a_user_namespace_that_is_joined(mapped: Make, pod: Callable[..., Pod], box: Box) -> None:
    if not box.runtime.is_pyrunc:
        pytest.skip("runc binds the host's node; crun makes none of its own here")
    entry = node("/dev/mine", fileMode=0o640, uid=5, gid=6)
    one = mapped("stat", "/dev/mine", more={"/linux/devices": [entry]}, user=pod().path("user"))
    seen = one.run().objects[0]
    assert (seen["mode"], seen["uid"], seen["gid"]) == (0o640, 5, 6)


@pytest.mark.pyrunc_only("the peers ignore what they cannot do")
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (node("/dev/no-such-device"), "no node of the host"),
        (node("/dev/full", 5), "a different device"),
        (node("/dev/full", 7, fileMode=0o600), "its mode differs"),
        (node("/dev/full", 7, uid=0), "another user owns it"),
        (node("/dev/full", 7, fileMode=0o666, gid=7), "it belongs to another group"),
    ],
)
def test_a_node_that_can_only_be_the_hosts(
    mapped: Make, pod: Callable[..., Pod], refused: Refused, entry: dict[str, Any], words: str
) -> None:
    """The namespace is joined without mappings, so the owner's id on the host is unknown."""
    more = {"/linux/devices": [entry]}
    one = mapped("stat", "/dev/full", more=more, user=pod().path("user"))
    for field in ("uidMappings", "gidMappings"):
        del one.bundle.config["linux"][field]
    refused(one.create(check=False), "/linux/devices/0", words)


def test_a_node_of_the_host_that_is_as_asked(mapped: Make, pod: Callable[..., Pod], box: Box) -> None:
    entry = node("/dev/full", 7, fileMode=0o666)
    one = mapped("stat", "/dev/full", more={"/linux/devices": [entry]}, user=pod().path("user"))
    for field in ("uidMappings", "gidMappings"):
        del one.bundle.config["linux"][field]
    seen = one.run().objects[0]
    assert (seen["mode"], seen["minor"], seen["uid"]) == (0o666, 7, 65534)


@pytest.mark.parametrize("field", ["uid", "gid"])
def test_an_owner_that_is_not_mapped(mapped: Make, box: Box, refused: Refused, field: str) -> None:
    if box.runtime.name == "crun":
        pytest.skip("crun gives it to the overflow id")
    entry = node("/dev/mine", fileMode=0o666, **{field: SIZE})
    refused(mapped(more={"/linux/devices": [entry]}).create(check=False), f"/linux/devices/0/{field}", str(SIZE))


def test_masked_and_readonly_paths(mapped: Make) -> None:
    more = {"/linux/maskedPaths": ["/proc/kcore", "/sys/firmware", "/etc/passwd"]}
    one = mapped("read", "/etc/passwd", "--", "ls", "/sys/firmware", "--", "read", "/proc/self/mountinfo", more=more)
    file, directory, mounts = one.run().objects
    assert file["text"] == ""
    assert directory["names"] == []
    seen = {mount.dest: mount.options for mount in parse_mountinfo(mounts["text"])}
    assert "ro" in seen["/proc/sys"] and "ro" not in seen["/proc"]
    assert "ro" in seen["/sys/firmware"]


def test_sysfs_without_a_network_namespace(mapped: Make, box: Box) -> None:
    """A new sysfs fails with EPERM because the network namespace is the host's, so the host's sysfs
    is bound."""
    kinds = [kind for kind in KINDS if kind != "network"]
    one = mapped("ls", "/sys/class/net", "--", "mkdir", "/sys/x", kinds=kinds)
    if not box.runtime.is_pyrunc:
        pytest.skip("runc has no such fallback")
    names, made = one.run().objects
    assert sorted(names["names"]) == sorted(os.listdir("/sys/class/net"))
    assert errno_of(made) == "EROFS"


@pytest.mark.pyrunc_only("runc has no such fallback")
def test_proc_without_a_pid_namespace(mapped: Make) -> None:
    one = mapped("ls", "/proc", "--", "report", kinds=[kind for kind in KINDS if kind != "pid"])
    result = one.run()
    assert str(os.getpid()) in result.objects[0]["names"]


@pytest.mark.pyrunc_only("runc has no such fallback")
def test_mqueue_without_an_ipc_namespace(mapped: Make) -> None:
    if not os.path.ismount("/dev/mqueue"):
        pytest.skip("no mqueue on this host to bind")
    one = mapped("read", "/proc/self/mountinfo", kinds=[kind for kind in KINDS if kind != "ipc"])
    seen = {mount.dest: mount.fstype for mount in parse_mountinfo(one.run().objects[0]["text"])}
    assert seen["/dev/mqueue"] == "mqueue"


def test_proc_of_a_joined_pid_namespace_is_not_the_hosts(
    mapped: Make, holder: Callable[..., Any], refused: Refused
) -> None:
    """A new user namespace does not own it, so a procfs cannot be mounted; the host's would show
    other processes."""
    one = mapped("ls", "/proc", pid=holder("pid").path("pid"))
    refused(one.create(check=False), "/mounts/0", "EPERM")


def test_time_offsets(mapped: Make, box: Box) -> None:
    if not os.path.exists("/proc/self/timens_offsets") or not box.runtime.is_pyrunc:
        pytest.skip("no time namespaces in this kernel or runtime")
    more = {"/linux/timeOffsets": {"boottime": {"secs": 86400 * 1000}}}
    one = mapped("read", "/proc/uptime", more=more, kinds=[*KINDS, "time"])
    seen = float(one.run().objects[0]["text"].split()[0])
    assert seen - float(Path("/proc/uptime").read_text().split()[0]) > 86400 * 999


def test_tmpfs_and_mqueue_belong_to_root_inside(mapped: Make) -> None:
    one = mapped("stat", "/dev/shm", "--", "stat", "/dev/mqueue", "--", "stat", "/dev/pts/ptmx")
    assert [item["uid"] for item in one.run().objects] == [0, 0, 0]


@pytest.mark.parametrize("below", ["", "deeper/and/deeper/"])
def test_bind_from_a_directory_that_only_the_host_may_enter(mapped: Make, box: Box, below: str) -> None:
    """Engines keep volumes below directories with mode 0700."""
    if below and not box.runtime.is_pyrunc:
        pytest.skip("once is enough")
    secret = box.path / "secret"
    source = secret / below / "volume"
    source.mkdir(parents=True)
    (source / "file").write_text("reached")
    secret.chmod(0o700)
    entry = {"destination": "/mnt", "type": "bind", "source": str(source), "options": ["rbind", "ro"]}
    single = {"destination": "/one", "type": "bind", "source": str(source / "file"), "options": ["bind"]}
    one = mapped(
        "read", "/mnt/file", "--", "mkdir", "/mnt/x", "--", "read", "/one",
        more={"/mounts/-": entry, "/process/noNewPrivileges": True},
    )  # fmt: skip
    one.bundle.config["mounts"].append(single)
    first, made, second = one.run().objects
    assert first["text"] == second["text"] == "reached"
    assert errno_of(made) == "EROFS"


def test_mounts_below_such_a_source_stay_inside(mapped: Make, box: Box) -> None:
    """The source is replaced by a clone of a host mount: mounts below it must not propagate to the
    host."""
    secret = box.path / "secret"
    (secret / "volume/sub").mkdir(parents=True)
    secret.chmod(0o700)
    entry = {"destination": "/mnt", "type": "bind", "source": str(secret / "volume"), "options": ["rbind"]}
    inner = {"destination": "/mnt/sub", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]}
    one = mapped("report", more={"/mounts/-": entry})
    one.bundle.config["mounts"].append(inner)
    os.chown(secret / "volume", HOST, HOST)
    one.create()
    assert not [m for m in parse_mountinfo(Path("/proc/self/mountinfo").read_text()) if str(secret) in m.dest]
    one.delete("--force")


def test_root_filesystem_below_a_directory_that_only_the_host_may_enter(mapped: Make) -> None:
    one = mapped("report", "--", "ls", "/")
    one.bundle.path.chmod(0o700)
    if not one.box.runtime.is_pyrunc:
        pytest.skip("runc wants every directory on the way to be searchable")
    assert "probe" in one.run().objects[1]["names"]


@pytest.mark.pyrunc_only("only pyrunc names the field")
def test_root_filesystem_that_is_not_the_containers(container: Make, refused: Refused) -> None:
    one = container(edits=edits())
    one.bundle.rootfs.chmod(0o700)
    refused(one.create(check=False), "/root/path", "EACCES")


def test_readonly_flags_of_the_host_cannot_be_cleared(mapped: Make, box: Box) -> None:
    source = box.path / "ro-volume"
    source.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(source)], check=True)
    try:
        entry = {"destination": "/mnt", "type": "bind", "source": str(source), "options": ["bind", "rw"]}
        one = mapped("mkdir", "/mnt/x", more={"/mounts/-": entry})
        result = one.run(check=False)
        # It is refused or stays read-only, but is never writable.
        assert result.rc != 0 or errno_of(result.objects[0]) == "EROFS", result
    finally:
        subprocess.run(["umount", str(source)], check=True)


def test_without_a_cgroup_namespace_the_hierarchy_is_read_only(mapped: Make, box: Box) -> None:
    """CVE-2023-25809."""
    one = mapped(
        "mkdir", "/sys/fs/cgroup/escape", "--", "read", "/sys/fs/cgroup/cgroup.controllers",
        more={"/mounts/-": CGROUP}, kinds=[kind for kind in KINDS if kind != "cgroup"],
    )  # fmt: skip
    made, read = one.run().objects
    assert errno_of(made) in (("EROFS",) if box.runtime.is_pyrunc else ("EROFS", "EACCES"))
    assert not errno_of(read)


DELEGATED = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")


@pytest.mark.pyrunc_only("runc 1.1.5 changes owners with the systemd driver only")
@pytest.mark.parametrize("uid", [0, 1000])
def test_a_writable_cgroup_is_the_users(mapped: Make, uid: int) -> None:
    """config-linux.md, "Cgroup ownership": the directory and the files of
    /sys/kernel/cgroup/delegate."""
    more = {"/mounts/-": CGROUP, "/process/user": {"uid": uid, "gid": 0}}
    one = mapped("mkdir", "/sys/fs/cgroup/below", "--", "stat", "/sys/fs/cgroup/cgroup.procs", more=more)
    one.create()
    assert one.cgroup.stat().st_uid == HOST + uid
    owners = {path.name: path.stat().st_uid for path in one.cgroup.iterdir() if path.is_file()}
    assert {owners[name] for name in DELEGATED} == {HOST + uid}
    listed = set(Path("/sys/kernel/cgroup/delegate").read_text().split())
    assert {name for name, owner in owners.items() if owner} == listed & set(owners)
    one.start()
    assert one.wait() == 0, one.err
    made, file = one.objects
    assert (made["errno"], file["uid"]) == (0, uid)
    one.delete()
    assert not one.cgroup.exists()


@pytest.mark.pyrunc_only("runc 1.1.5 changes owners with the systemd driver only")
@pytest.mark.parametrize("case", ["read-only", "host's namespace", "not mounted"])
def test_other_cgroups_stay_roots(mapped: Make, case: str) -> None:
    kinds = [kind for kind in KINDS if kind != "cgroup"] if case == "host's namespace" else KINDS
    entry = {**CGROUP, "options": [*CGROUP["options"], "ro"]} if case == "read-only" else CGROUP
    one = mapped(more={} if case == "not mounted" else {"/mounts/-": entry}, kinds=kinds)
    one.create()
    assert one.cgroup.stat().st_uid == 0
    one.delete("--force")


@pytest.mark.pyrunc_only("runc 1.1.5 changes owners with the systemd driver only")
def test_the_cgroup_of_a_user_without_a_user_namespace(container: Make) -> None:
    one = container(edits={"/mounts/-": CGROUP, "/process/user": {"uid": 1234, "gid": 0}})
    one.create()
    assert (one.cgroup / "cgroup.procs").stat().st_uid == 1234
    one.delete("--force")


def test_mount_data_with_ids(mapped: Make, refused: Refused, box: Box) -> None:
    entry = {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["uid=1000", "gid=5", "mode=700"]}
    seen = mapped("stat", "/t", more={"/mounts/-": entry}).run().objects[0]
    assert (seen["uid"], seen["gid"]) == (1000, 5)
    entry["options"] = ["uid=70000"]
    refused(mapped(more={"/mounts/-": entry}).create(check=False), "/mounts/6/options/0", "uid=70000")
