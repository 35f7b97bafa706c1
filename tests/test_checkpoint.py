"""Checkpoint and restore without CRIU: the wire format, command lines, the image directory and
paths."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from json_type import Json
from pyrunc import cli, command
from pyrunc.checkpoint import messages, mounts, options, protobuf, restore, rootfs
from pyrunc.checkpoint.criu import Criu, find
from pyrunc.checkpoint.images import Images
from pyrunc.errors import PyruncError, UsageError
from pyrunc.log import Log
from pyrunc.native import sockets
from pyrunc.verbs import checkpoint as checkpoint_verb
from pyrunc.verbs import restore as restore_verb

# -- protocol buffers ------------------------------------------------------------------------------

# Computed by hand from https://protobuf.dev/programming-guides/encoding/
VECTORS: list[tuple[dict[str, Any], str]] = [
    ({"type": messages.VERSION, "keep_open": True}, "080a2001"),
    ({"type": messages.NOTIFY, "notify_success": True}, "08061801"),
    ({"type": messages.DUMP, "opts": {"images_dir_fd": 5, "pid": 300}}, "08011205080510ac02"),
    ({"type": messages.DUMP, "opts": {"images_dir_fd": -1}}, "0801120b08ffffffffffffffffff01"),
    (
        {"type": messages.RESTORE, "opts": {"ext_mnt": [{"key": "/a", "val": "b"}], "external": ["x", "y"]}},
        "08021212ba01070a022f61120162aa020178aa020179",
    ),
    ({"type": messages.FEATURE_CHECK, "features": {"mem_track": True}}, "08092a020801"),
]


@pytest.mark.parametrize(("values", "text"), VECTORS)
def test_encode(values: dict[str, Any], text: str) -> None:
    data = protobuf.encode(messages.REQUEST, values)
    assert data.hex() == text
    assert protobuf.decode(messages.REQUEST, data) == values


def test_none_is_left_out() -> None:
    assert protobuf.encode(messages.OPTIONS, {"root": None, "pid": 1}) == b"\x10\x01"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("08", "ends within a number"),
        ("08" + "ff" * 10, "more than ten bytes"),
        ("1205" + "00", "ends within a field"),
        ("12ffffffffffffffffff01", "ends within a field"),
        ("0b", "wire type 3"),
        ("0e", "wire type 6"),
        ("00", "field number 0"),
        ("0a00", "type has wire type 2"),
        ("1001", "opts has wire type 0"),
        ("0d", "ends within a field"),
    ],
)
def test_decode_refuses(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        protobuf.decode(messages.REQUEST, bytes.fromhex(text))


def test_unknown_fields_are_skipped() -> None:
    unknown = "a00601" + "a2060378797a" + "a506" + "00" * 4 + "a106" + "00" * 8
    assert protobuf.decode(messages.REQUEST, bytes.fromhex("0801" + unknown + "1801")) == {
        "type": 1,
        "notify_success": True,
    }


def test_the_last_value_wins() -> None:
    assert protobuf.decode(messages.REQUEST, bytes.fromhex("08010802")) == {"type": 2}


def test_random_bytes() -> None:
    chance, read = random.Random(1), 0
    for _ in range(20000):
        try:
            protobuf.decode(messages.RESPONSE, chance.randbytes(chance.randrange(12)))
            read += 1
        except ValueError:
            pass
    assert 100 < read < 20000


# -- command lines of callers ----------------------------------------------------------------------

CHECKPOINTS = [
    "--image-path /I --work-path /W --parent-path ../p --tcp-established --ext-unix-sk --shell-job --file-locks"
    " --empty-ns network --leave-running c",
    "--image-path /I --work-path /B --leave-running --leave-running --pre-dump c",
    "--page-server 1.2.3.4:27 --lazy-pages --status-fd 3 --manage-cgroups-mode soft c",
    "-image-path=/I -network-lock nftables -tcp-skip-in-flight -link-remap -auto-dedup c",
]
RESTORES = [
    "--image-path /I --work-path /W --parent-path p --detach --pid-file /F --console-socket /S --no-pivot"
    " -no-subreaper --bundle /B c",
    "--bundle /B --pid-file /F --no-pivot --no-new-keyring --detach --image-path /I --work-path /B --tcp-established"
    " --tcp-close --file-locks --lsm-mount-context=L --lsm-profile=selinux:L --preserve-fds 2 --console-socket /S c",
    "-b /B -d --network-lock skip --manage-cgroups-mode ignore --lazy-pages --auto-dedup --empty-ns network c",
]


@pytest.mark.parametrize("line", CHECKPOINTS)
def test_command_lines_of_checkpoint(line: str) -> None:
    values, args = command.parse(line.split(), checkpoint_verb.FLAGS, stop_at_first=False)
    assert args == ["c"] and options.common(values, {})["orphan_pts_master"] is True


@pytest.mark.parametrize("line", RESTORES)
def test_command_lines_of_restore(line: str) -> None:
    values, args = command.parse(line.split(), restore_verb.FLAGS, stop_at_first=False)
    assert args == ["c"] and options.common(values, {})["notify_scripts"] is True


def test_the_probe_of_podman(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["checkpoint", "--help"]) == 0
    assert cli.main(["restore", "--lsm-mount-context"]) == 1
    assert "flag needs an argument" in capfd.readouterr().err


def test_the_fields_of_options() -> None:
    given = {"tcp-established": True, "shell-job": False, "network-lock": "skip", "manage-cgroups-mode": "full"}
    found = options.common(given, {"org.criu.config": ""})
    assert found["tcp_established"] is True and "shell_job" not in found
    assert (found["network_lock"], found["manage_cgroups_mode"], found["config_file"]) == (3, 4, None)
    assert options.common({}, {})["manage_cgroups_mode"] == 0
    assert options.config_file({"org.criu.config": "/c"}) == "/c"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"manage-cgroups-mode": "x"}, "expected ignore, soft, full, strict"),
        ({"empty-ns": ["pid"]}, "expected network"),
        ({"network-lock": "x"}, "expected iptables, nftables, skip"),
    ],
)
def test_refused_options(values: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        options.common(values, {})


def test_page_server() -> None:
    assert options.page_server("[::1]:80") == {"address": "::1", "port": 80}
    for text in ("", "a", "a:", ":1", "a:0", "a:65536", "a:x", "a:" + "9" * 5000):
        with pytest.raises(UsageError, match="expected ADDRESS:PORT"):
            options.page_server(text)


def test_status_fd() -> None:
    read, write = os.pipe()
    try:
        assert options.status_fd(write) == write
        with pytest.raises(UsageError, match="not writable"):
            options.status_fd(read)
    finally:
        os.close(read)
        os.close(write)
    with pytest.raises(UsageError, match="not open"):
        options.status_fd(write)


# -- the directory of images -----------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Images:
    (tmp_path / "i").mkdir()
    (tmp_path / "i/inventory.img").touch()
    (tmp_path / "i/descriptors.json").write_text('["/dev/null","pipe:[1]",""]')
    return Images({"image-path": str(tmp_path / "i")}, "restore.log")


def test_descriptors(images: Images) -> None:
    images.open(make=False)
    assert images.read_descriptors() == ["/dev/null", "pipe:[1]", ""]
    images.write_descriptors(["a", "b", "c"])
    assert images.read_descriptors() == ["a", "b", "c"]
    images.close()


@pytest.mark.parametrize("content", ["", "{}", "[]", '["a","b"]', '["a","b",3]', "[" * 5000, '["a","b","c","d"]'])
def test_damaged_descriptors(images: Images, content: str) -> None:
    Path(images.path, "descriptors.json").write_text(content)
    images.open(make=False)
    with pytest.raises(PyruncError, match=r"descriptors\.json"):
        images.read_descriptors()
    images.close()


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "large"])
def test_descriptors_that_are_something_else(images: Images, kind: str, tmp_path: Path) -> None:
    path = Path(images.path, "descriptors.json")
    path.unlink()
    if kind == "link":
        (tmp_path / "target").write_text('["a","b","c"]')
        path.symlink_to(tmp_path / "target")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_text(json.dumps(["a" * 70000, "b", "c"]))
    images.open(make=False)
    with pytest.raises(PyruncError, match=r"descriptors\.json"):
        images.read_descriptors()
    images.close()


@pytest.mark.parametrize(("message", "module"), [("0802 3001", 1), ("0802 3002", 2), ("0802 3000", 0), ("0802", 0)])
def test_the_security_module_of_the_images(images: Images, message: str, module: int) -> None:
    body = bytes.fromhex(message)
    Path(images.path, "inventory.img").write_bytes(b"\x16\x31\x31\x58" + len(body).to_bytes(4, "little") + body)
    images.open(make=False)
    assert images.security_module() == module
    images.close()


def test_a_damaged_inventory(images: Images, tmp_path: Path) -> None:
    path = Path(images.path, "inventory.img")
    images.open(make=False)
    path.write_bytes(b"magi\x02\0\0\0\x30")
    with pytest.raises(PyruncError, match=r"inventory\.img: it ends within a number"):
        images.security_module()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(PyruncError, match=r"inventory\.img: not a regular file"):
        images.security_module()
    path.unlink()
    path.symlink_to(tmp_path)
    with pytest.raises(PyruncError, match=r"inventory\.img"):
        images.security_module()
    images.close()


@pytest.mark.parametrize("name", ["inventory.img", "descriptors.json"])
def test_directories_that_are_not_checkpoints(images: Images, name: str) -> None:
    Path(images.path, name).unlink()
    images.open(make=False)
    with pytest.raises(PyruncError, match=f"not a checkpoint: {name} is missing"):
        images.read_descriptors()
    images.close()


@pytest.mark.parametrize("name", ["restore.log", "stats-restore"])
def test_a_link_in_place_of_a_log(images: Images, name: str, tmp_path: Path) -> None:
    """CRIU would follow it."""
    Path(images.path, name).symlink_to(tmp_path / "outside")
    with pytest.raises(PyruncError, match=name):
        images.open(make=False)
    images.close()
    Path(images.path, name).unlink()
    (tmp_path / "other").touch()
    os.link(tmp_path / "other", Path(images.path, name))
    with pytest.raises(PyruncError, match=name):
        images.open(make=False)
    images.close()
    Path(images.path, name).unlink()
    Path(images.path, name).touch()  # CRI-O creates it, with a label
    images.open(make=False)
    images.close()


def test_parent_path(images: Images, tmp_path: Path) -> None:
    for parent, text in (("/abs", "must be relative"), ("missing", "invalid --parent-path"), ("file", "parent-path")):
        images.parent = parent
        (Path(images.path) / "file").touch()
        with pytest.raises(PyruncError, match=text):
            images.open(make=True)
        images.close()
    (tmp_path / "pre").mkdir()
    images.parent = "../pre"
    images.open(make=True)
    images.close()


def test_directories_are_created(tmp_path: Path) -> None:
    made = Images({"image-path": str(tmp_path / "a/b"), "work-path": str(tmp_path / "w")}, "dump.log")
    made.open(make=True)
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700 and (tmp_path / "w").is_dir()
    made.close()


def test_the_last_error_of_a_log(images: Images) -> None:
    log = Path(images.path, "restore.log")
    assert "see " + str(log) in str(images.failure("restore", "criu: EPERM"))
    log.write_text(
        "(00.1) Error (criu/util.c:1): rlimit: Can't setup\n(00.2) Warn  (criu/x.c:2): Error no\n"
        "(00.2) Error (criu/files.c:9): Can't lookup mount=27 for fd=2\n"
        "(00.3) Error (criu/cr-dump.c:2): Dump files (pid: 3) failed with -1\n"
        "(00.4) Error (criu/cr-dump.c:3): Dumping FAILED.\n"
    )
    hint = "; a file that was opened outside of the container cannot be dumped: use pipes or /dev/null"
    assert str(images.failure("dump", "")) == f"criu dump: Can't lookup mount=27 for fd=2; see {log}{hint}"
    assert str(images.failure("dump", "criu was killed", logged=False)) == f"criu dump: criu was killed; see {log}"
    with log.open("a") as file:
        file.write("(00.5) Error (criu/bf")
    assert "Can't lookup mount=27 for fd=2; see" in str(images.failure("dump", ""))
    log.write_text(
        "(1)      1: Error (criu/files-reg.c:2): Can't open file bin/sh: No such file or directory\n"
        "(1)      1: Error (criu/mem.c:1): `- Can't open vma\n(1) Error (criu/cr-restore.c:9): 15 exited, status=1\n"
        "(2) Error (criu/cr-restore.c:2331): Restoring FAILED.\n"
        "(2) Error (criu/cgroup.c:2055): cg: cgroupd: recv req error: No such file or directory\n"
    )
    found = str(images.failure("restore", ""))
    assert found == f"criu restore: Can't open file bin/sh: No such file or directory; see {log}"
    log.write_bytes(b"\xff Error (\x1b[31m): \x1b[2Jx\n")
    assert str(images.failure("dump", "")).isprintable()


def test_a_full_disk(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CRIU's log, on the same disk, may not say so."""
    images.open(make=True)
    room = {"f_bavail": 1, "f_files": 9, "f_favail": 1}

    def fstatvfs(fd: int) -> SimpleNamespace:
        assert fd == images.fd
        return SimpleNamespace(**room)

    monkeypatch.setattr("posix.fstatvfs", fstatvfs)
    for change, full in (({}, False), ({"f_bavail": 0}, True), ({"f_favail": 0}, True), ({"f_files": 0}, False)):
        room |= {"f_bavail": 1} | change
        text = str(images.failure("dump", ""))
        assert text == f"criu dump: failed; see {images.log}" + ("; no space is left there" if full else "")
    images.close()
    assert images.failure("dump", "x").args == (f"criu dump: x; see {images.log}",)


# -- paths -----------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "real/conf").mkdir(parents=True)
    (root / "real/file").touch()
    links = {"link": "/real/conf", "up": "../../../../real", "loop": "loop", "out": str(tmp_path)}
    for name, target in (links | {"rel": "real/../real/conf"}).items():
        (root / name).symlink_to(target)
    return root


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/link", "/real/conf"), ("/up/conf", "/real/conf"), ("/rel", "/real/conf"), ("/../../real", "/real"),
        ("/", "/"), ("/missing/x", "/missing/x"), ("/real/file/x", "/real/file/x"), ("/out", "/out"),
    ],
)  # fmt: skip
def test_resolved(tree: Path, path: str, found: str) -> None:
    root = rootfs.open_root(str(tree))
    assert rootfs.resolved(root, path) == found
    os.close(root)


def test_kinds(tree: Path) -> None:
    root = rootfs.open_root(str(tree))
    assert [rootfs.kind(root, path) for path in ("/real/file", "/link", "/missing")] == ["file", "dir", ""]
    with pytest.raises(OSError, match="Errno 40"):
        rootfs.resolved(root, "/loop")
    os.close(root)


def test_created_files_stay_inside(tree: Path, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    root = rootfs.open_root(str(tree))
    for path, make in (("/up/../new/dir", "dir"), ("/link/file", "file"), ("/out/evil", "dir")):
        with rootfs.Walk(root, make) as walk:
            walk.go(path)
    os.close(root)
    assert (tree / "new/dir").is_dir() and (tree / "real/conf/file").is_file()
    assert sorted(os.listdir(tmp_path)) == ["root"]
    assert (tree / str(tmp_path).lstrip("/") / "evil").is_dir()
    assert len(os.listdir("/proc/self/fd")) == before


# -- mounts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"mounts": [{"destination": "/a", "uidMappings": [{}]}]}, "/mounts/0: CRIU cannot restore an id-mapped"),
        ({"mounts": [{"destination": "/a", "options": ["ridmap"]}]}, "/mounts/0"),
        ({}, "/linux/namespaces: CRIU needs a mount namespace"),
        ({"linux": {"namespaces": [{"type": "cgroup", "path": "/p"}]}}, "/linux/namespaces/0: CRIU cannot"),
        ({"linux": {"seccomp": {"syscalls": [{"action": "SCMP_ACT_NOTIFY"}]}}}, "/linux/seccomp: CRIU cannot"),
        ({"linux": {"netDevices": {"eth0": {}}, "namespaces": [{"type": "network"}]}}, "/linux/netDevices: CRIU"),
    ],
)
def test_refused_configurations(config: Json, text: str) -> None:
    if config:
        config.setdefault("linux", {}).setdefault("namespaces", []).append({"type": "mount"})
    with pytest.raises(PyruncError, match=text):
        mounts.Mounts(config, "/b").refuse()


def test_devices_in_a_network_by_path_stay_there() -> None:
    namespaces = [{"type": "mount"}, {"type": "network", "path": "/run/netns/x"}]
    config: Json = {"linux": {"netDevices": {"eth0": {}}, "namespaces": namespaces}}
    mounts.Mounts(config, "/b").refuse()


def test_external_mounts(tree: Path) -> None:
    config: Json = {
        "mounts": [
            {"destination": "/link", "source": "src", "options": ["bind"]},
            {"destination": "/proc", "type": "proc"},
            {"destination": "/sys/fs/cgroup", "type": "cgroup2"},
        ],
        "linux": {"namespaces": [{"type": "mount"}], "maskedPaths": ["/real/file", "/real/conf", "/none"]},
    }
    found = mounts.Mounts(config, "/b")
    assert [bind[:3] for bind in found.binds()] == [(0, "/link", "/b/src")]
    root = rootfs.open_root(str(tree))
    keys = {entry["key"] for entry in found.dumped(root, os.getpid())}
    os.close(root)
    assert keys == {"/real/conf", "/sys/fs/cgroup", "/run/notify", "/real/file"}


# -- the program -----------------------------------------------------------------------------------


def test_find(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}/a:{tmp_path}/b")
    monkeypatch.setitem(__import__("posix").environ, b"PATH", f"{tmp_path}/a:{tmp_path}/b".encode())
    (tmp_path / "a/criu").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    with pytest.raises(PyruncError, match="not found in"):
        find()
    (tmp_path / "b/criu").touch(0o755)
    assert find() == f"{tmp_path}/b/criu"


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.ECONNRESET])
def test_a_socket_that_fails(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed receive is the error at once, and not the end of a criu that waits for an answer."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:
        criu = Criu(Log(), lambda: None)
        criu.pid = child.pid

        def fails(*_: object) -> None:
            if number == errno.ECONNRESET:  # criu closes its end before it has ended
                child.terminate()
            raise OSError(number, "")

        monkeypatch.setattr(sockets, "receive_descriptor", fails)
        text = "criu was killed by SIGTERM" if number == errno.ECONNRESET else "criu: receive: ENOMEM"
        with pytest.raises(PyruncError, match=text):
            criu.receive()
        assert child.stdin
        child.stdin.close()


@pytest.mark.parametrize("end", ["kill -9 $$", "exit 0", "sleep 60"])
def test_a_criu_that_ends_takes_its_children_along(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CRIU probes the kernel with children that are stopped, and does not kill them if it is killed
    itself."""
    program, file = tmp_path / "criu", tmp_path / "child"
    program.write_text(f"#!/bin/sh\nsleep 50 <&- 3<&- & echo $! >{file}.tmp; mv {file}.tmp {file}; {end}\n")
    program.chmod(0o755)
    monkeypatch.setattr("pyrunc.checkpoint.criu.find", lambda: str(program))
    criu = Criu(Log(), lambda: None)
    criu.spawn((0, 1, 2))
    while not file.exists():
        time.sleep(0.01)
    if end == "sleep 60":
        criu.kill()
    else:
        with pytest.raises(PyruncError, match="killed by SIGKILL" if "kill" in end else "exit status 0"):
            criu.receive()
        criu.finish()
    child = Path("/proc", file.read_text().strip(), "stat")
    limit = time.monotonic() + 5
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] not in "ZX":
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.parametrize("profile", ["apparmor:other", "apparmor:a", "apparmor:a b (enforce)"])
def test_a_profile_that_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    (tmp_path / "profiles").write_text("a b (enforce)\nc//d (complain)\n")
    monkeypatch.setattr(restore, "_PROFILES", str(tmp_path / "profiles"))
    with pytest.raises(PyruncError, match="not loaded"):
        restore.refuse_unloaded(profile)
    for good in ("apparmor:a b", "apparmor:c//d", "apparmor:unconfined", "apparmor:", "selinux:a"):
        restore.refuse_unloaded(good)
    monkeypatch.setattr(restore, "_PROFILES", str(tmp_path / "none"))
    restore.refuse_unloaded(profile)
