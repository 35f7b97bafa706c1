"""User namespaces: ids inside and outside, and everything else that differs there."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.harness import DELETE, Box, Container, errno_of, parse_mountinfo, wait_until
from integration.test_terminal import Console, read_all

Make = Callable[..., Container]
Refused = Callable[..., None]

HOST, SIZE = 100000, 65536
KINDS = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
MAPS = [{"containerID": 0, "hostID": HOST, "size": SIZE}]
CGROUP = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec"]}


def edits(more: dict[str, Any] | None = None, kinds: list[str] | None = None, **joined: str) -> dict[str, Any]:
    """A new user namespace with MAPS, the namespaces `kinds`, and those joined by path."""
    spaces = [{"type": kind} for kind in [*(KINDS if kinds is None else kinds), "user"] if kind not in joined]
    spaces += [{"type": kind, "path": path} for kind, path in joined.items()]
    return {"/linux/namespaces": spaces, "/linux/uidMappings": MAPS, "/linux/gidMappings": MAPS, **(more or {})}


def own(one: Container, uid: int = HOST) -> Container:
    """Give the directories of a root filesystem (its files are shared with other tests) to the
    container's root."""
    for at, _, _ in os.walk(one.bundle.rootfs):
        os.chown(at, uid, uid)
    return one


@pytest.fixture
def mapped(container: Make) -> Make:
    """``mapped(*actions, more=edits, kinds=..., TYPE=PATH)``: a container in a new user namespace."""

    def make(*actions: str, more: dict[str, Any] | None = None, **kwargs: Any) -> Container:
        return own(container(*actions, edits=edits(more, **kwargs)))

    return make


class Pod:
    """A process in a user namespace with MAPS and in the other namespaces of a pod, like a sandbox
    container."""

    def __init__(self, box: Box, *flags: str) -> None:
        command = ["/usr/bin/unshare", "-U", *flags, "--fork", "--kill-child", "/bin/sleep", "600"]
        self.parent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        box.helpers.add(self.parent.pid)
        host = os.readlink("/proc/self/ns/user")
        wait_until(lambda: os.readlink(f"/proc/{self.parent.pid}/ns/user") != host, "a new user namespace")
        for kind in ("uid", "gid"):
            Path(f"/proc/{self.parent.pid}/{kind}_map").write_text(f"0 {HOST} {SIZE}\n")
        children = Path(f"/proc/{self.parent.pid}/task/{self.parent.pid}/children")
        self.pid = int(wait_until(lambda: children.read_text().split(), "the pod's process")[0])

    def path(self, name: str) -> str:
        return f"/proc/{self.pid}/ns/{name}"

    def close(self) -> None:
        self.parent.kill()
        self.parent.wait()


@pytest.fixture
def pod(box: Box) -> Iterator[Callable[..., Pod]]:
    """``pod("-n", "-i")``: flags of unshare(1) besides -U."""
    made: list[Pod] = []

    def make(*flags: str) -> Pod:
        made.append(Pod(box, *flags))
        return made[-1]

    yield make
    for one in made:
        one.close()


# --- who is who ----------------------------------------------------------------------------------------------------


def test_root_inside_is_another_user_outside(mapped: Make) -> None:
    one = mapped("report", "--", "read", "/proc/self/uid_map", "--", "read", "/proc/self/gid_map")
    one.create()
    assert Path(f"/proc/{one.pid}").stat().st_uid == HOST
    one.start()
    assert one.wait() == 0, one.err
    seen = one.report
    assert seen["uid"] == seen["gid"] == [0, 0, 0]
    assert [item["text"].split() for item in one.objects[1:]] == [["0", str(HOST), str(SIZE)]] * 2
    one.delete()


def test_several_mappings(mapped: Make) -> None:
    maps = [
        {"containerID": 0, "hostID": 100000, "size": 1000},
        {"containerID": 1000, "hostID": 7, "size": 1},
        {"containerID": 5000, "hostID": 200000, "size": 10},
    ]
    more = {"/linux/uidMappings": maps, "/linux/gidMappings": maps[:1], "/process/user": {"uid": 1000, "gid": 500}}
    one = mapped("report", "--", "read", "/proc/self/uid_map", more=more)
    one.create()
    assert Path(f"/proc/{one.pid}").stat().st_uid == 7
    assert Path(f"/proc/{one.pid}").stat().st_gid == 100500
    one.start()
    assert one.wait() == 0, one.err
    assert one.report["uid"] == [1000] * 3
    rows = [line.split() for line in one.objects[1]["text"].splitlines()]
    assert rows == [["0", "100000", "1000"], ["1000", "7", "1"], ["5000", "200000", "10"]]


def test_user_and_groups(mapped: Make) -> None:
    more = {"/process/user": {"uid": 1000, "gid": 1000, "additionalGids": [5, 70]}}
    one = mapped(more=more)
    one.create()
    groups = next(
        line for line in Path(f"/proc/{one.pid}/status").read_text().splitlines() if line.startswith("Groups")
    )
    assert groups.split()[1:] == [str(HOST + 5), str(HOST + 70)]
    one.start()
    assert one.wait() == 0
    seen = one.report
    assert (seen["uid"], sorted(seen["groups"])) == ([1000] * 3, [5, 70])


def test_setgroups_stays_allowed_for_root(mapped: Make) -> None:
    assert mapped("read", "/proc/self/setgroups").run().objects[0]["text"] == "allow\n"


def test_capabilities_are_those_of_the_namespace(mapped: Make, box: Box) -> None:
    names = ["CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_NET_ADMIN", "CAP_CHOWN"]
    sets = dict.fromkeys(("bounding", "effective", "permitted"), names)
    more = {"/process/capabilities": sets}
    one = mapped(
        "mknod", "/dev/new", "c", "1", "3", "--", "open", "/proc/sys/kernel/core_pattern", "w", "--", "sethostname",
        "n", more={**more, "/linux/readonlyPaths": DELETE},
    )  # fmt: skip
    node, core, name = one.run().objects
    assert errno_of(node) == "EPERM", node
    assert errno_of(core) in ("EACCES", "EPERM"), core
    assert not errno_of(name)


# --- what is mounted ------------------------------------------------------------------------------------------------


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
    """config-linux.md, Devices: uid and gid are the container's. The host's node does not change."""
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
        (node("/dev/full", 5), "another device"),
        (node("/dev/full", 7, fileMode=0o600), "it has another mode"),
        (node("/dev/full", 7, uid=0), "another user owns it"),
        (node("/dev/full", 7, fileMode=0o666, gid=7), "it is another group's"),
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
    """A new sysfs fails with EPERM there: it is the host's, like the network namespace."""
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
    """config-linux.md, "Cgroup ownership": the directory and the files of /sys/kernel/cgroup/delegate."""
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


# --- the rest of the container --------------------------------------------------------------------------------------


def test_sysctls(mapped: Make) -> None:
    wanted = {"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "user.max_user_namespaces": "17"}
    host = Path("/proc/sys/user/max_user_namespaces").read_text()
    one = mapped("report", *wanted, more={"/linux/sysctl": wanted})
    if not one.box.runtime.is_pyrunc:
        del one.bundle.config["linux"]["sysctl"]["user.max_user_namespaces"]
    seen = one.run().report["sysctl"]
    assert seen["net.ipv4.ip_forward"] == seen["kernel.shm_rmid_forced"] == "1\n"
    assert not one.box.runtime.is_pyrunc or seen["user.max_user_namespaces"] == "17\n"
    assert Path("/proc/sys/user/max_user_namespaces").read_text() == host


def test_rlimits_and_oom_score(mapped: Make) -> None:
    score = int(Path("/proc/self/oom_score_adj").read_text()) + 11
    limits = [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}, {"type": "RLIMIT_NPROC", "soft": 50, "hard": 60}]
    seen = mapped(more={"/process/rlimits": limits, "/process/oomScoreAdj": score}).run().report
    assert seen["rlimits"]["RLIMIT_NOFILE"] == [64, 128]
    assert seen["oom_score_adj"] == f"{score}\n"


def test_session_keyring_is_found_by_users_of_the_namespace(mapped: Make) -> None:
    kind, _, _, permissions, name = mapped().run().report["keyring"].split(";")
    assert (kind, int(permissions, 16) & 0x8) == ("keyring", 0x8), name


def test_terminal(mapped: Make, box: Box) -> None:
    console = Console(box.path / "pty.sock")
    try:
        one = mapped(more={"/process/terminal": True, "/process/user": {"uid": 1000, "gid": 1000}})
        one.create("--console-socket", str(console.path))
        master = console.receive()
        one.start()
        text = read_all(master)
        one.wait()
    finally:
        console.close()
    assert '"isatty":1' in text.replace(" ", "")


def test_stdio_is_given_to_the_user(mapped: Make) -> None:
    """As far as possible: files of the host's root do not change."""
    one = mapped(more={"/process/user": {"uid": 1000, "gid": 1000}})
    one.create()
    assert one.out_file.stat().st_uid in (0, HOST + 1000)
    one.start()
    assert one.wait() == 0


@pytest.mark.parametrize("uid", [0, 1000])
def test_pipes_of_the_foreground_are_the_users(mapped: Make, uid: int) -> None:
    more = {
        "/process/args": ["/bin/sh", "-c", "echo again > /proc/self/fd/1"],
        "/process/user": {"uid": uid, "gid": uid},
    }
    assert mapped(more=more).run().out == "again\n"
    one = mapped("sleep", "600", more={"/process/user": {"uid": uid, "gid": uid}})
    one.create()
    assert one.call("exec", one.id, "/bin/sh", "-c", "echo again > /proc/self/fd/1").out == "again\n"


def test_hooks_see_the_hosts_pid_outside(mapped: Make, box: Box) -> None:
    out = box.path / "state"
    script = box.path / "hook.sh"
    script.write_text(f"#!/bin/sh\ncat > {out}; id -u >> {out}\n")
    script.chmod(0o755)
    one = mapped(more={"/hooks": {"createRuntime": [{"path": str(script), "env": ["PATH=/usr/bin:/bin"]}]}})
    one.create()
    text = out.read_text()
    assert f'"pid":{one.pid}' in text and text.endswith("}0\n"), text
    assert one.state()["pid"] == one.pid


def test_kill_and_delete(mapped: Make) -> None:
    one = mapped("signals", "30", more={"/mounts/-": CGROUP})
    one.create()
    one.start()
    one.wait_output('"ready"')
    one.kill("USR1")
    one.wait_output(f'"number":{int(signal.SIGUSR1)}')
    one.kill("KILL")
    assert one.wait() == 137
    one.delete()


def test_exec_joins_the_user_namespace(mapped: Make, box: Box) -> None:
    one = mapped("signals", "30", more={"/process/user": {"uid": 1000, "gid": 1000}})
    one.create()
    one.start()
    one.wait_output('"ready"')
    result = one.call("exec", one.id, "/probe", "report", "--", "read", "/proc/self/uid_map")
    seen = result.report
    assert seen["uid"] == [1000] * 3
    assert seen["ns"]["user"] == os.readlink(f"/proc/{one.pid}/ns/user")
    assert result.objects[1]["text"].split() == ["0", str(HOST), str(SIZE)]
    assert seen["cgroup"].splitlines()[-1] == "0::/"
    assert "_ses." in seen["keyring"]
    result = one.call("exec", "--user", "0", one.id, "/probe", "report")
    assert result.report["uid"] == [0] * 3
    one.kill("KILL")
    one.wait()


def test_no_mount_namespace_but_a_user_namespace(mapped: Make, box: Box) -> None:
    if not box.runtime.is_pyrunc:
        pytest.skip("runc masks paths by default and refuses")
    more = {"/mounts": [], "/linux/maskedPaths": DELETE, "/linux/readonlyPaths": DELETE, "/linux/devices": DELETE}
    one = mapped("report", more=more, kinds=[kind for kind in KINDS if kind != "mount"])
    result = one.run(check=False)
    assert result.rc != 0 and "/" in result.err, result


@pytest.mark.pyrunc_only("runc keeps no state before its init is ready")
def test_a_killed_runtime_leaves_nothing_that_delete_cannot_remove(mapped: Make, box: Box) -> None:
    hook = [{"path": "/bin/sleep", "args": ["sleep", "30"]}]
    one = mapped(more={"/hooks": {"createRuntime": hook}})
    one.bundle.save()
    argv = box.runtime.argv("--root", str(box.root), "create", "--bundle", str(one.bundle.path), one.id)
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: (box.root / one.id / "state.json").exists() and '"pid": 0' not in
               (box.root / one.id / "state.json").read_text().replace('":0', '": 0'), "an init")  # fmt: skip
    child.kill()
    child.wait()
    one.delete("--force")
    for pid in box.children():
        os.kill(pid, signal.SIGKILL)  # the hook, which is ours
    assert not [left for left in box.leftovers() if "process" not in left]


# --- joined namespaces ----------------------------------------------------------------------------------------------


def test_pod_of_a_cri_engine(container: Make, pod: Callable[..., Pod]) -> None:
    """The sandbox's user, network, ipc and uts namespaces by path, together with the mappings."""
    held = pod("-n", "-i", "-u")
    names = {"user": "user", "network": "net", "ipc": "ipc", "uts": "uts"}
    joined = {kind: held.path(name) for kind, name in names.items()}
    changed = edits({"/hostname": DELETE}, None, **joined)
    one = own(container("report", "--", "read", "/proc/self/uid_map", edits=changed))
    result = one.run()
    seen = result.report["ns"]
    for name in names.values():
        assert seen[name] == os.readlink(held.path(name)), name
    assert result.report["uid"] == [0, 0, 0]
    assert result.objects[1]["text"].split() == ["0", str(HOST), str(SIZE)]


@pytest.mark.pyrunc_only("runc 1.1.5 demands mappings and then refuses them")
def test_joined_user_namespace_without_mappings_in_the_config(container: Make, pod: Callable[..., Pod]) -> None:
    held = pod()
    more = {"/linux/uidMappings": DELETE, "/linux/gidMappings": DELETE}
    one = own(container(edits=edits(more, user=held.path("user"))))
    seen = one.run().report
    assert (seen["uid"], seen["ns"]["user"]) == ([0, 0, 0], os.readlink(held.path("user")))


@pytest.mark.pyrunc_only("runc 1.1.5 does not compare")
def test_joined_user_namespace_with_other_mappings(container: Make, pod: Callable[..., Pod], refused: Refused) -> None:
    held = pod()
    other = [{"containerID": 0, "hostID": HOST + 1, "size": SIZE}]
    one = own(container(edits=edits({"/linux/uidMappings": other}, user=held.path("user"))))
    refused(one.create(check=False), "/linux/uidMappings", f"0 {HOST} {SIZE}", f"0 {HOST + 1} {SIZE}")


@pytest.mark.pyrunc_only("runc 1.1.5 does not compare")
def test_joined_user_namespace_with_the_same_mappings_in_pieces(container: Make, pod: Callable[..., Pod]) -> None:
    held = pod()
    pieces = [
        {"containerID": 1000, "hostID": HOST + 1000, "size": SIZE - 1000},
        {"containerID": 0, "hostID": HOST, "size": 1000},
    ]
    one = own(container(edits=edits({"/linux/uidMappings": pieces}, user=held.path("user"))))
    assert one.run().report["uid"] == [0, 0, 0]


def test_network_of_the_host_owner_joined_by_a_new_user_namespace(mapped: Make, holder: Callable[..., Any]) -> None:
    """Namespaces that the caller owns must be joined before the new user namespace is created."""
    held = holder("network", "uts")
    joined = {kind: held.path(kind) for kind in ("network", "uts")}
    one = mapped("report", more={"/hostname": DELETE, "/mounts/5": DELETE}, **joined)
    seen = one.run().report["ns"]
    assert (seen["net"], seen["uts"]) == (held.ident("network"), held.ident("uts"))


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "pointer", "words"),
    [
        ({"/linux/uidMappings": DELETE}, "/linux/uidMappings", "at least one mapping"),
        ({"/linux/gidMappings": []}, "/linux/gidMappings", "at least one mapping"),
        ({"/process/user/uid": SIZE}, "/process/user/uid", "uidMappings"),
        ({"/process/user/gid": SIZE}, "/process/user/gid", "gidMappings"),
    ],
)
def test_mappings_that_cannot_work(
    mapped: Make, refused: Refused, more: dict[str, Any], pointer: str, words: str
) -> None:
    refused(mapped(more=more).create(check=False), pointer, words)


@pytest.mark.pyrunc_only("runc 1.1.5 does not look")
def test_mappings_without_a_user_namespace(container: Make, refused: Refused) -> None:
    refused(container(edits={"/linux/uidMappings": MAPS}).create(check=False), "/linux/uidMappings", "user namespace")
