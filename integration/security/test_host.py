"""What the runtime trusts and changes on the host: state root, devices, cgroup paths, hooks,
lengths, its own privileges (T20, T21, T27, T29-T31, T34, T35, T38, T39)."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from integration.config import DELETE
from integration.harness import Box, errno_of
from integration.machine import cgroup2_mount, libc
from integration.security.support import ROUNDS, Make, Refused, bind, mountinfo, repeating, tmpfs, tree

# --- T20 ------------------------------------------------------------------------------------------


@pytest.mark.row("T20")
@pytest.mark.needs_cap("MKNOD")
@pytest.mark.parametrize(
    "rules",
    [
        [],
        None,
        [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
        [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
    ],
    ids=["none", "absent", "allow only", "deny, allow"],
)
def test_devices_are_denied_by_default(container: Make, rules: list[dict[str, Any]] | None) -> None:
    """GHSA-g54h-m393-cpwq: a list of allow rules was applied as if everything else were already
    allowed."""
    one = container(
        *("mknod", "/disk", "b", "8", "0", "--", "mknod", "/mem", "c", "1", "1"),
        *("--", "open", "/disk", "r", "--", "open", "/mem", "r", "--", "open", "/dev/null", "rw"),
        edits={"/linux/resources/devices": DELETE if rules is None else rules},
    )
    *_, disk, memory, null = one.run().objects
    assert (errno_of(disk), errno_of(memory), errno_of(null)) == ("EPERM", "EPERM", "")


@pytest.mark.row("T20")
def test_device_program_is_there_before_created(container: Make) -> None:
    one = container("exit", "0", edits={"/linux/resources/devices": []})
    one.create()
    shutil_which = shutil.which("bpftool")
    if one.box.runtime.is_pyrunc and shutil_which is None:
        assert _attached_device_programs(one.cgroup) >= 1


def _attached_device_programs(group: Path) -> int:
    """The number of CGROUP_DEVICE programs on a cgroup: bpf(BPF_PROG_QUERY), linux/bpf.h."""
    import ctypes
    import platform

    number = {"x86_64": 321, "aarch64": 280}.get(platform.machine())
    if number is None:
        pytest.skip("the number of bpf(2) is not known for this machine")
    fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    ids = (ctypes.c_uint32 * 64)()
    attr = bytearray(128)
    attr[0:4] = fd.to_bytes(4, "little")
    attr[4:8] = (6).to_bytes(4, "little")  # BPF_CGROUP_DEVICE
    attr[16:24] = ctypes.addressof(ids).to_bytes(8, "little")
    attr[24:28] = (64).to_bytes(4, "little")
    try:
        buffer = (ctypes.c_char * len(attr)).from_buffer(attr)
        libc("syscall", number, 16, buffer, len(attr))  # BPF_PROG_QUERY
        return int.from_bytes(bytes(buffer)[24:28], "little")
    finally:
        os.close(fd)


# --- T21 ------------------------------------------------------------------------------------------


@pytest.mark.row("T21")
def test_lengths_beyond_sixteen_bits(container: Make) -> None:
    """CVE-2021-43784: a length above 64 KiB was truncated to 16 bits, and the rest was parsed as
    something else."""
    one = container("report", edits={"/annotations": {"long": "a" * 100_000}})
    process = one.bundle.config["process"]
    process["env"] = ["BIG=" + "b" * 100_000, *(f"V{number}={number}" for number in range(70_000))]
    process["args"] += ["c" * 100_000, "--", "say", "end"]
    one.create()
    assert one.state()["annotations"] == {"long": "a" * 100_000}
    one.start()
    one.wait(30)
    seen = one.report
    assert len(seen["env"]) == 70_002  # HOME comes from /etc/passwd
    assert seen["env"][0] == "BIG=" + "b" * 100_000
    assert seen["env"][70_000] == "V69999=69999"
    assert seen["argv"][2] == "c" * 100_000
    assert one.out.endswith("end\n")


@pytest.mark.row("T21")
@pytest.mark.pyrunc_only("runc 1.1.5 finds out after start")
@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/process/env/-", "A=" + "x" * (1 << 20)),
        ("/process/args/-", "x" * (1 << 20)),
        ("/linux/cgroupsPath", "/" + "x" * 70_000),
        ("/linux/cgroupsPath", "/" + "x/" * 35_000),
        ("/process/cwd", "/" + "x" * 70_000),
        ("/mounts/0/destination", "/" + "x" * 70_000),
        ("/root/path", "x" * 70_000),
    ],
    ids=lambda value: value[:20],
)
def test_lengths_that_nothing_takes(container: Make, refused: Refused, pointer: str, value: str) -> None:
    refused(container(edits={pointer: value}).create(check=False), pointer.removesuffix("/-"))


# --- T27 ------------------------------------------------------------------------------------------


@pytest.mark.row("T27")
@pytest.mark.pyrunc_only("runc 1.1.5 takes any directory")
@pytest.mark.parametrize("kind", ["link", "dangling link", "group", "world", "sticky", "owner", "file"])
@pytest.mark.parametrize("verb", ["create", "state", "list", "kill", "delete"])
def test_state_root_that_others_may_change(container: Make, box: Box, kind: str, verb: str) -> None:
    """CVE-2015-1331: a user who can write there decides what is killed and removed."""
    one = container("exit", "0")
    one.bundle.save()
    real = box.path / "real"
    real.mkdir(mode=0o700)
    if kind.endswith("link"):
        box.root.symlink_to(real if kind == "link" else box.path / "nowhere")
    elif kind == "file":
        box.root.write_text("")
    else:
        box.root.mkdir()
        box.root.chmod({"group": 0o770, "world": 0o777, "sticky": 0o1777}.get(kind, 0o700))
        if kind == "owner":
            os.chown(box.root, 1000, 1000)
    arguments = {"create": ["--bundle", str(one.bundle.path), one.id], "list": []}.get(verb, [one.id])
    result = box.runtime.call("--root", str(box.root), verb, *arguments)
    assert result.rc != 0, result
    assert "--root" in result.err and len(result.err.splitlines()) == 1
    assert not list(real.iterdir()) and not (box.path / "nowhere").exists()
    if box.root.is_symlink() or box.root.is_file():
        box.root.unlink()
    else:
        assert not list(box.root.iterdir())
        shutil.rmtree(box.root)


@pytest.mark.row("T27")
def test_state_is_the_owners_alone(container: Make, box: Box) -> None:
    old = os.umask(0)
    try:
        one = container("exit", "0")
        one.create()
    finally:
        os.umask(old)
    for path in [box.root, *box.root.rglob("*")]:
        info = path.lstat()
        if not box.runtime.is_pyrunc and path != box.root:
            continue
        if path.name == "notify" or "notify" in path.parts:
            continue
        assert info.st_uid == 0 and not stat.S_IMODE(info.st_mode) & 0o077, f"{path}: {stat.filemode(info.st_mode)}"


@pytest.mark.row("T27")
@pytest.mark.pyrunc_only("runc 1.1.5 follows it")
def test_state_directory_that_is_a_link(container: Make, box: Box) -> None:
    elsewhere = box.path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "state.json").write_text("{}")
    box.root.mkdir(mode=0o700)
    one = container("exit", "0")
    (box.root / one.id).symlink_to(elsewhere)
    before = tree(elsewhere)
    for verb in (["create", "--bundle", str(one.bundle.path)], ["state"], ["kill"], ["delete", "--force"]):
        box.runtime.call("--root", str(box.root), *verb, one.id)
        assert tree(elsewhere) == before
    (box.root / one.id).unlink(missing_ok=True)


# --- T29 ------------------------------------------------------------------------------------------


@pytest.mark.row("T29")
def test_nothing_is_installed_with_more_rights(box: Box) -> None:
    """CVE-2016-8659, CVE-2020-5291: the setup of a set-user-ID program could be traced."""
    launcher = Path(os.path.realpath(box.runtime.path))
    files = [launcher, *(path for path in launcher.parent.parent.glob("lib/**/pyrunc/*") if path.is_file())]
    installed = box.runtime.is_pyrunc and (launcher.parent.parent / "lib").is_dir()
    assert len(files) > 10 or not installed
    assert [path for path in files if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)] == []
    assert [path for path in files if "security.capability" in os.listxattr(path)] == []


@pytest.mark.row("T29")
@pytest.mark.pyrunc_only("runc has no such check")
@pytest.mark.parametrize("bit", [stat.S_ISUID, stat.S_ISGID])
def test_a_set_user_id_copy_refuses_to_run(box: Box, bit: int) -> None:
    copy = box.path / "pyrunc"
    shutil.copy(os.path.realpath(box.runtime.path), copy)
    os.chown(copy, 1000, 1000)
    copy.chmod(0o755 | bit)
    plain = box.path / "plain"
    shutil.copy(copy, plain)
    done = subprocess.run([str(copy), "--version"], capture_output=True, text=True, timeout=20, check=False)
    if os.statvfs(copy).f_flag & os.ST_NOSUID:
        pytest.skip("the temporary directory is mounted nosuid")
    assert done.returncode == 1
    assert "set-user-ID" in done.stderr and not done.stdout
    fine = subprocess.run([str(plain), "--help"], capture_output=True, text=True, timeout=20, check=False)
    assert "set-user-ID" not in fine.stderr


# --- T30 ------------------------------------------------------------------------------------------


@pytest.mark.row("T30")
def test_nothing_is_written_into_the_image(container: Make, box: Box) -> None:
    """CVE-2025-24965: the runtime wrote a file into the root, and a link of the image redirected
    it."""
    outside = box.path / "outside"
    outside.mkdir()
    one = container("exit", "0", edits={"/mounts/-": tmpfs("/made/by/us"), "/process/cwd": "/also/made"})
    root = one.bundle.rootfs
    shutil.rmtree(root / "run")
    for name in ("run", ".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab", "krun_config.json"):
        (root / name).symlink_to(outside)
    before = tree(root)
    one.run()
    after = tree(root)
    assert not tree(outside)
    made = {name for name in after if name not in before}
    assert made == {"made", "made/by", "made/by/us", "also", "also/made"}
    assert {name: after[name] for name in before} == before
    assert not [name for name in made if not stat.S_ISDIR(after[name][0])]


# --- T31 ------------------------------------------------------------------------------------------


@pytest.mark.row("T31")
@pytest.mark.pyrunc_only("runc 1.1.5 makes /x of ../../../x")
@pytest.mark.parametrize("path", ["/../../x", "a/../../x", "../x", "..", "/a/..", "x/../../../../tmp/evil"])
def test_cgroup_path_never_climbs(container: Make, refused: Refused, path: str) -> None:
    """crun 1.28, 1.29: a path with ".." left the delegated part of the hierarchy."""
    root = cgroup2_mount()
    assert root
    neighbour = root / f"beside-{os.getpid()}"
    neighbour.mkdir()
    try:
        refused(container(edits={"/linux/cgroupsPath": path}).create(check=False), "/linux/cgroupsPath", "..")
        assert neighbour.exists()
    finally:
        neighbour.rmdir()
    assert not (root / "x").exists() and not Path("/tmp/evil").exists()


# --- T34 ------------------------------------------------------------------------------------------

KINDS = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]


@pytest.mark.row("T34")
def test_hooks_of_the_host_get_nothing_of_the_image(container: Make, box: Box) -> None:
    """CVE-2025-23266: a program of the host ran with LD_PRELOAD from the image and a working
    directory in it."""
    record = box.path / "record"
    record.mkdir()
    one = container("exit", "0")
    one.bundle.config["process"]["env"] += ["LD_PRELOAD=/x.so", "LD_LIBRARY_PATH=/lib", "PYTHONPATH=/x", "SECRET=image"]
    script = "/bin/cat /proc/self/environ >{0}/{1}.env; /bin/pwd >{0}/{1}.cwd"
    one.bundle.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", script.format(record, kind)]}] for kind in KINDS
    }
    caller = {"PATH": os.environ["PATH"], "SECRET": "caller"}
    one.create(env=caller)
    one.start(env=caller)
    one.wait()
    one.delete(env=caller)
    for kind in KINDS:
        environment = (record / f"{kind}.env").read_text()
        assert not [word for word in ("LD_", "PYTHON", "image") if word in environment], (kind, environment)
        assert ("SECRET=caller" in environment) is (kind != "createContainer"), (kind, environment)
        if kind != "createContainer":  # runtime.md: it runs in the container's namespaces
            assert (record / f"{kind}.cwd").read_text().strip() == str(one.bundle.path), kind


# --- T35 ------------------------------------------------------------------------------------------

# moby's oci/defaults.go; devices missing on this machine are also missing in the container
MASKED = [
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/sys/devices/virtual/powercap", "/sys/firmware"),
]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


@pytest.mark.row("T35")
@pytest.mark.pyrunc_only("runc 1.1.5's list is older")
def test_default_masks(container: Make, box: Box) -> None:
    """CVE-2015-3627 to 3631, CVE-2020-8694: information about the host stays hidden by default."""
    home = box.path / "spec"
    home.mkdir()
    box.runtime.call("spec", "--bundle", str(home))
    linux = json.loads((home / "config.json").read_text())["linux"]
    assert set(MASKED) <= set(linux["maskedPaths"])
    assert set(READONLY) <= set(linux["readonlyPaths"])
    actions: list[str] = []
    for path in MASKED:
        actions += ["stat", path, "--", "read", path, "--", "ls", path, "--"]
    for path in READONLY:
        actions += ["open", path, "w", "--", "mkdir", path + "/x", "--"]
    one = container(*actions[:-1])
    one.bundle.config["linux"].update({key: linux[key] for key in ("maskedPaths", "readonlyPaths")})
    answers = one.run().objects
    there = 0
    for number, path in enumerate(MASKED):
        info, read, listed = answers[3 * number : 3 * number + 3]
        if info["errno"]:
            continue
        there += 1
        assert info["type"] in "cd", path
        assert info["type"] == "d" or (info["major"], info["minor"], read["text"]) == (1, 3, ""), path
        assert info["type"] == "c" or listed["names"] == [], path
    assert there >= 3
    for item in answers[3 * len(MASKED) :]:
        assert errno_of(item) in ("EROFS", "EISDIR", "ENOTDIR", "ENOENT", "EACCES"), item


# --- T38 ------------------------------------------------------------------------------------------


@pytest.mark.row("T38")
def test_no_mount_reaches_the_host(container: Make, box: Box) -> None:
    """A leak fixed in runc 1.2: no mount of ours may appear below a busy shared mount."""
    one = container("exit", "0", edits={"/mounts/-": tmpfs("/volume/inside")})
    volume = one.bundle.rootfs / "volume"
    volume.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(volume)], check=True)
    subprocess.run(["mount", "--make-rshared", str(volume)], check=True)
    (volume / "inside").mkdir()
    (volume / "churn").mkdir()
    place = os.fsencode(volume / "churn")
    one.bundle.config["mounts"].append(bind("/again", volume / "inside"))
    before = mountinfo()

    def churn() -> None:
        for _ in range(10):
            libc("mount", b"churn", place, b"tmpfs", 0, None)
        for _ in range(10):
            libc("umount2", place, 2)  # MNT_DETACH

    try:
        with repeating(churn):
            for _ in range(30 * ROUNDS):
                one.run()
                ours = [line for line in mountinfo().splitlines() if "/volume/" in line and "/volume/churn" not in line]
                assert not ours, "a mount of the container"
        assert mountinfo() == before
    finally:
        while os.path.ismount(volume):
            subprocess.run(["umount", "-l", str(volume)], check=True)


# --- T39 ------------------------------------------------------------------------------------------

SET_UP = ["close_range", "setgroups", "capset", "prctl", "setresuid", "setresgid", "mount", "openat2", "capget", "dup3"]


def _deny(names: list[str]) -> dict[str, Any]:
    rule = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}


@pytest.mark.row("T39")
@pytest.mark.parametrize("name", SET_UP)
def test_filter_that_forbids_what_set_up_does(container: Make, name: str) -> None:
    """With no_new_privs the filter is loaded last, so it need not allow calls that only the runtime
    makes."""
    one = container("say", "fine", edits={"/linux/seccomp": _deny([name])})
    assert one.run().out == "fine\n"


@pytest.mark.row("T39")
@pytest.mark.pyrunc_only("runc loads it before it changes ids")
def test_early_filter_need_not_allow_what_comes_before(container: Make) -> None:
    """Only capset(2) follows the filter, to drop the CAP_SYS_ADMIN that loading it requires."""
    names = ["setgroups", "setresuid", "setresgid", "prctl", "chdir", "getcwd", "faccessat2", "faccessat"]
    user = {"uid": 1000, "gid": 1000, "additionalGids": [5]}
    edits = {"/process/noNewPrivileges": False, "/process/user": user, "/process/cwd": "/tmp"}
    one = container("setuid", "0", edits={**edits, "/linux/seccomp": _deny(names)})
    assert one.run().objects[0]["errno"] != 0


@pytest.mark.row("T39")
@pytest.mark.parametrize("names", [["close_range"], ["mount", "pivot_root"], ["openat2"]])
def test_early_filter(container: Make, names: list[str]) -> None:
    """Without no_new_privs the filter is loaded while CAP_SYS_ADMIN is still held, and it is in
    force as well."""
    edits = {"/process/noNewPrivileges": False, "/linux/seccomp": _deny([*names, "chroot"])}
    one = container("chroot", "/", "--", "report", edits=edits)
    result = one.run()
    assert errno_of(result.objects[0]) == "EPERM"
    assert result.report["no_new_privs"] == 0
    assert "Seccomp:\t2" in result.report["status"]
