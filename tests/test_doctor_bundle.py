"""pyrunc.doctor.bundle and .files: requirements of a config that this host meets or lacks."""

from __future__ import annotations

import errno
import json
import os
import resource
import socket
import struct
from pathlib import Path

import pytest

from json_type import Json
from pyrunc.spec.types import IdMapping, Mount, SyscallRule

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import doctor_support
import work
from doctor_support import ALL_CAPS, STATUS, fails, flat, made, only, statuses, works
from pyrunc import command, explain
from pyrunc.doctor import bundle, kernel, privileges, users
from pyrunc.doctor.findings import MOST, Area, Finding
from pyrunc.launch import create
from pyrunc.spec import default, load
from pyrunc.spec.names import CLONE_FLAGS

complete = doctor_support.complete

ELF = b"\x7fELF\2\1\1" + bytes(11)


class Bundle:
    """A bundle with the default config and its program on a healthy host whose /proc, /sys, /etc
    and /run are made up."""

    def __init__(self, top: Path) -> None:
        self.path, self.host = top / "b", top / "host"
        self.rootfs = self.path / "rootfs"
        self.program("/bin/sh")
        self.config = default.config()
        self.machine = made(self.host)
        self.machine.prefixed = ("/proc/", "/sys/", "/etc/", "/run/")
        self.machine.facts.cgroup2_mount = f"{self.host}/sys/fs/cgroup"

    def program(self, path: str, machine: int = 62, mode: int = 0o755, content: bytes = b"") -> None:
        target = Path(f"{self.rootfs}{path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content or ELF + struct.pack("<H", machine))
        target.chmod(mode)

    def look(self, **options: str) -> list[Finding]:
        (self.path / "config.json").write_text(json.dumps(self.config))
        context = command.Context(options)
        opts = command.create_options(context, "c1", {"bundle": str(self.path)})
        return flat(bundle.check(self.machine, opts))

    def only(self, check: str) -> Finding:
        return only(self.look(), check)


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setattr(kernel, "map_ids", lambda path: 0)
    return Bundle(tmp_path)


def test_nothing_is_wrong(one: Bundle) -> None:
    found = one.look()
    assert set(statuses(found).values()) == {"ok"}, found
    assert {"config", "rlimits", "cgroup", "capabilities", "namespaces", "root", "program", "mounts"} <= set(
        statuses(found)
    )


def test_every_problem_of_a_config(one: Bundle) -> None:
    one.config["process"]["cwd"] = "relative"
    one.config["process"]["env"] = ["x"] * 500
    wrong: Json = {"destination": 1}
    one.config["mounts"] = [wrong]
    found = one.look()
    assert {finding.check for finding in found} == {"config"} and len(found) <= MOST + 1
    assert found[0].status == "problem" and "/process/cwd" in " ".join(finding.seen for finding in found)


def test_not_json(one: Bundle) -> None:
    one.look()
    (one.path / "config.json").write_text("{")
    context = command.Context({})
    opts = command.create_options(context, "c1", {"bundle": str(one.path)})
    assert only(flat(bundle.check(one.machine, opts)), "config").status == "problem"
    (one.path / "config.json").unlink()
    with pytest.raises(load.Unreadable):
        bundle.check(one.machine, opts)


def test_warnings_of_create(one: Bundle) -> None:
    one.config["process"]["capabilities"]["bounding"].append("CAP_UNHEARD_OF")
    found = one.only("config")
    assert found.status == "note" and "CAP_UNHEARD_OF" in found.seen


# -- limits ----------------------------------------------------------------------------------------


def caps(*missing: str) -> str:
    mask = ALL_CAPS
    for name in missing:
        mask &= ~privileges.bit(name)
    return STATUS.format(caps=mask, nnp=0, seccomp=0)


def test_a_hard_limit_that_the_caller_cannot_give(one: Bundle) -> None:
    one.machine.limits = {resource.RLIMIT_NOFILE: (512, 512)}
    assert one.only("rlimits").status == "ok"  # with CAP_SYS_RESOURCE
    (one.host / "proc/self/status").write_text(caps("CAP_SYS_RESOURCE"))
    found = one.only("rlimits")
    assert found.status == "problem"
    assert found.seen == "/process/rlimits/0: RLIMIT_NOFILE 1024, the caller's hard limit is 512"
    assert found.mend == "set /process/rlimits/0/hard to 512, or LimitNOFILE= in the unit that starts pyrunc"


def test_a_hard_limit_above_the_kernels(one: Bundle) -> None:
    (one.host / "proc/sys/fs/nr_open").write_text("1023\n")
    assert one.only("rlimits").mend == "sysctl -w fs.nr_open=1024"


def test_a_score_that_the_caller_cannot_give(one: Bundle) -> None:
    one.config["process"]["oomScoreAdj"] = -5
    assert "oom-score" not in statuses(one.look())
    (one.host / "proc/self/status").write_text(caps("CAP_SYS_RESOURCE"))
    assert one.only("oom-score").status == "problem"
    (one.host / "proc/self/oom_score_adj").write_text("-5\n")
    assert "oom-score" not in statuses(one.look())


def test_limits_without_a_controller(one: Bundle) -> None:
    one.config["linux"]["resources"] = {"memory": {"limit": 1 << 20}, "pids": {"limit": 5}}
    assert one.only("cgroup").seen.endswith(", with memory pids")
    for directory in (one.host / "sys/fs/cgroup").rglob("cgroup.controllers"):
        directory.write_text("cpu\n")
    (one.host / "sys/fs/cgroup/cgroup.controllers").write_text("cpu\n")
    (one.host / "proc/cgroups").write_text("#\nmemory 5 1 1\npids 6 1 1\n")
    found = one.only("cgroup")
    assert found.status == "problem" and "/linux/resources/memory/limit" in found.seen
    assert found.mend.startswith("boot with cgroup_no_v1=memory,pids ")


def test_a_cgroup_that_is_in_use(one: Bundle) -> None:
    one.config["linux"]["cgroupsPath"] = "/pods/c1"
    place = one.host / "sys/fs/cgroup/pods/c1"
    place.mkdir(parents=True)
    (place / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    assert "is not empty" in one.only("cgroup").seen
    (place / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    assert one.only("cgroup").status == "ok"


def test_limits_without_a_cgroup(one: Bundle) -> None:
    one.config["linux"]["resources"] = {"pids": {"limit": 5}}
    found = only(one.look(**{"cgroup-manager": "disabled"}), "cgroup")
    assert found.status == "problem" and "/linux/resources/pids" in found.means


# -- privileges ------------------------------------------------------------------------------------


def test_capabilities_that_the_caller_lacks(one: Bundle) -> None:
    (one.host / "proc/self/status").write_text(caps("CAP_KILL"))
    assert "CAP_KILL" in one.only("capabilities").seen
    one.config["linux"]["namespaces"].append({"type": "user"})
    one.config["linux"]["uidMappings"] = one.config["linux"]["gidMappings"] = [
        {"containerID": 0, "hostID": 100000, "size": 65536}
    ]
    assert "capabilities" not in statuses(one.look())  # all of them exist there


def test_a_scheduler_that_the_caller_may_not_use(one: Bundle) -> None:
    one.config["process"]["scheduler"] = {"policy": "SCHED_FIFO", "priority": 5}
    assert "scheduler" not in statuses(one.look())
    (one.host / "proc/self/status").write_text(caps("CAP_SYS_NICE"))
    assert one.only("scheduler").status == "problem"


def test_namespaces(one: Bundle) -> None:
    one.config["linux"]["namespaces"].append({"type": "time"})
    assert one.only("namespaces").status == "ok"
    one.machine.probe = fails(errno.EINVAL, mask=CLONE_FLAGS["time"])
    assert one.only("namespaces").seen.endswith(": time: EINVAL")
    one.machine.probe = works
    one.config["linux"]["namespaces"] = [{"type": "mount"}, {"type": "pid", "path": "/nowhere"}, {"type": "uts"}]
    assert one.only("namespaces").seen == '/linux/namespaces/1/path "/nowhere" does not exist'


def test_ids_of_a_user(one: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "user_name", lambda uid: "joe")
    one.config["linux"]["namespaces"].append({"type": "user"})
    one.config["linux"]["uidMappings"] = one.config["linux"]["gidMappings"] = [
        {"containerID": 0, "hostID": 1000, "size": 1},
        {"containerID": 1, "hostID": 100000, "size": 1000},
    ]
    assert "id-maps" not in statuses(one.look())  # root may map any id
    one.machine.become(1000)
    bad = [found for found in one.look() if found.check == "id-maps"]
    assert [found.mend for found in bad] == [
        "usermod --add-subuids 100000-100999 joe",
        "usermod --add-subgids 100000-100999 joe",
    ]
    for name in ("subuid", "subgid"):
        (one.host / "etc").mkdir(exist_ok=True)
        (one.host / "etc" / name).write_text("joe:100000:65536\n")
    assert statuses(one.look())["id-maps"] == "ok"
    (one.host / "etc/subuid").write_text("")
    one.machine.ids = [(100000, 65536)]
    assert statuses(one.look())["id-maps"] == "ok"


def test_seccomp(one: Bundle) -> None:
    rule: SyscallRule = {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}
    one.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{**rule, "action": "SCMP_ACT_KILL"}],
    }
    assert one.only("seccomp").status == "ok"
    path = one.path / "agent"
    one.config["linux"]["seccomp"] |= {"syscalls": [rule], "listenerPath": str(path)}
    assert "is not a socket" in one.only("seccomp").seen
    short = f"/tmp/doctor-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(short)
        try:
            one.config["linux"]["seccomp"]["listenerPath"] = short
            assert one.only("seccomp").status == "ok"
        finally:
            os.unlink(short)


def test_apparmor(one: Bundle) -> None:
    area = Area("bundle")
    one.machine.facts.apparmor = True
    config: Json = {"process": {"apparmorProfile": "mine"}}
    wanted = bundle.Wanted("", config, one.machine.facts, compiled(one).plan)
    profiles = one.host / "sys/kernel/security/apparmor/profiles"
    profiles.parent.mkdir(parents=True)
    for text, status in (("mine2 (enforce)\n", "problem"), ("x (complain)\nmine (enforce)\n", "ok")):
        profiles.write_text(text)
        area = Area("bundle")
        bundle.labels(one.machine, area, wanted)
        assert only(area.done(), "apparmor").status == status


def compiled(one: Bundle) -> bundle.Wanted:
    one.look()
    opts = command.create_options(command.Context({}), "c1", {"bundle": str(one.path)})
    return bundle.Wanted(str(one.path), *create.compile_only(opts))


def test_devices_and_parameters(one: Bundle) -> None:
    one.config["linux"]["netDevices"] = {"eth9": {}, "eth1": {}}
    one.config["linux"]["sysctl"] = {
        "net.ipv4.ip_forward": "1",
        "net.ipv4.conf.eth1.rp_filter": "1",
        "net.core.gone": "1",
    }
    (one.host / "sys/class/net/eth1").mkdir(parents=True)
    assert one.only("net-devices").seen == 'no device "eth9"'
    assert "net.core.gone" in one.only("sysctl").seen


# -- files -----------------------------------------------------------------------------------------


def test_no_root(one: Bundle) -> None:
    one.config["root"]["path"] = "gone"
    assert one.only("root").status == "problem"
    (one.path / "gone").write_text("")
    assert one.only("root").seen.endswith("is not a directory")


@pytest.mark.parametrize(
    ("flag", "status", "option"),
    [(os.ST_NOEXEC, "problem", "exec"), (os.ST_RDONLY, "note", "rw"), (os.ST_NOSUID, "note", "suid")],
)
def test_flags_of_the_mount_of_the_root(
    flag: int, status: str, option: str, one: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.config["root"]["readonly"] = False
    real = os.statvfs(one.path)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((*real[:8], flag, real[9])))
    found = one.only("root")
    assert (found.status, found.mend) == (status, f"mount -o remount,{option} /")


@pytest.mark.parametrize(
    ("content", "mode", "status", "words"),
    [
        (ELF + struct.pack("<H", 62), 0o755, "ok", "/bin/sh"),
        (ELF + struct.pack("<H", 3), 0o755, "ok", "/bin/sh"),
        (ELF + struct.pack("<H", 183), 0o755, "problem", "is for aarch64"),
        (ELF + struct.pack("<H", 9999), 0o755, "problem", "machine 9999"),
        (ELF[:5] + b"\2" + ELF[6:] + struct.pack(">H", 22), 0o755, "problem", "is for s390"),
        (ELF + struct.pack("<H", 62), 0o644, "problem", "mode 0644"),
        (b"#!/bin/other\n", 0o755, "problem", '"/bin/other" does not exist'),
        (b"#!/bin/sh\n", 0o755, "ok", "/bin/sh"),
        (b"#!", 0o755, "problem", '"" does not exist'),
        (b"PK", 0o755, "problem", "neither"),
    ],
)
def test_programs(content: bytes, mode: int, status: str, words: str, one: Bundle) -> None:
    one.program("/bin/sh", mode=mode, content=content)
    found = one.only("program")
    assert found.status == status and words in found.seen


def test_an_emulator_is_registered(one: Bundle) -> None:
    one.program("/bin/sh", 183)
    place = one.host / "proc/sys/fs/binfmt_misc"
    place.mkdir()
    (place / "qemu-aarch64").touch()
    assert one.only("program").status == "ok"


def test_where_programs_are_looked_for(one: Bundle) -> None:
    args = one.config["process"]["args"]
    for name, status in (("sh", "ok"), ("/bin/sh", "ok"), ("bin/sh", "ok"), ("gone", "problem"), ("/bin", "problem")):
        args[0] = name
        assert one.only("program").status == status, name
    args[0] = "sh"
    one.config["process"]["env"] = ["PATH=/opt"]
    assert one.only("program").status == "problem"
    one.config["mounts"].append({"destination": "/opt", "type": "tmpfs", "source": "x"})
    assert "program" not in statuses(one.look())  # the mount's content is unknown


@pytest.mark.parametrize(
    ("link", "status"),
    [
        ("/usr/bin/sh", "ok"),
        ("../../../../usr/bin/sh", "ok"),
        ("/etc/../../usr/bin/./sh", "ok"),
        ("sh2", "problem"),
        ("sh", "problem"),
        ("/etc/hostname", "problem"),
        ("x" * 4000, "problem"),
    ],
)
def test_links_stay_inside(link: str, status: str, one: Bundle) -> None:
    """Links of the root filesystem are resolved inside it: none leads to a file of the host."""
    one.program("/usr/bin/sh")
    (one.rootfs / "etc").mkdir()
    (one.rootfs / "bin/sh").unlink()
    os.symlink(link, one.rootfs / "bin/sh")
    one.config["process"]["args"] = ["/bin/sh"]
    assert one.only("program").status == status


def test_a_chain_of_links_ends(one: Bundle) -> None:
    for number in range(100):
        os.symlink(f"l{number + 1}", one.rootfs / f"l{number}")
    with explain.Tree(explain.Setting(one.config, one.config["process"], str(one.rootfs))) as tree:
        assert not tree.find("/l0")
        assert not tree.find("/l80/x")


def test_mounts(one: Bundle) -> None:
    mounts = one.config["mounts"]
    mounts.append({"destination": "/a", "type": "bind", "source": "src dir", "options": ["bind"]})
    found = one.only("mounts")
    assert found.status == "problem" and found.mend == f"mkdir -p '{one.path}/src dir'"
    (one.path / "src dir").mkdir()
    assert one.only("mounts").status == "ok"
    mounts.append({"destination": "/c", "type": "fs;reboot", "source": "none"})
    found = one.only("mounts")
    assert found.status == "note" and found.mend == "modprobe 'fs;reboot'"


def test_idmapped_mounts(one: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    ids: list[IdMapping] = [{"containerID": 0, "hostID": 5, "size": 1}]
    mount: Mount = {"destination": "/a", "source": ".", "options": ["bind"], "uidMappings": ids, "gidMappings": ids}
    one.config["mounts"].append(mount)
    assert set(statuses(one.look()).values()) == {"ok"}
    monkeypatch.setattr(kernel, "map_ids", lambda path: -errno.EINVAL)
    one.config["mounts"] += [{**mount, "destination": f"/a{number}"} for number in range(50)]
    assert [found.status for found in one.look() if found.check == "mounts" and "EINVAL" in found.seen] == ["note"]


def test_hooks(one: Bundle) -> None:
    one.config["hooks"] = {"createRuntime": [{"path": "/nowhere"}], "startContainer": [{"path": "/inside"}]}
    found = one.only("hooks")
    assert found.status == "problem" and found.seen.startswith("/hooks/createRuntime/0/path")
    hook = one.path / "hook"
    one.config["hooks"]["createRuntime"][0]["path"] = str(hook)
    hook.write_text("#!/bin/sh\n")
    assert one.only("hooks").mend == f"chmod +x {hook}"
    hook.chmod(0o755)
    assert one.only("hooks").status == "ok"


def test_thousands_of_everything(one: Bundle) -> None:
    """Output is bounded, and time is linear."""
    one.config["mounts"] += [
        {"destination": f"/m{number}", "type": "bind", "source": f"/nowhere/{number}", "options": ["bind"]}
        for number in range(5000)
    ]
    one.config["hooks"] = {"prestart": [{"path": f"/nowhere/{number}"} for number in range(5000)]}
    with work.at_most(5):
        found = one.look()
    assert len(found) < 3 * (MOST + 10)


@pytest.mark.parametrize(
    "gone",
    [
        "mounts", "linux", "hostname", "process/rlimits", "process/capabilities", "process/user", "process/env",
        "linux/namespaces", "linux/resources", "linux/maskedPaths", "linux/readonlyPaths", "linux/devices",
        "root/readonly",
    ],
)  # fmt: skip
def test_a_config_without_a_field(gone: str, tmp_path: Path) -> None:
    """What a config does not have is not looked for."""
    host = Bundle(tmp_path)
    *path, last = gone.split("/")
    whole: Json = host.config
    at = whole[path[0]] if path else whole
    at.pop(last, None)
    host.machine.facts.apparmor = True
    assert host.look()


@pytest.mark.parametrize("name", ["", "unconfined", "one", "two", "one (enforce)"])
@pytest.mark.parametrize("loaded", ["", "one (enforce)\ntwo words (complain)\n", "one\n"])
@pytest.mark.parametrize("apparmor", [False, True])
def test_profiles_of_apparmor(name: str, loaded: str, apparmor: bool, one: Bundle) -> None:
    one.machine.facts.apparmor = apparmor
    config: Json = {"process": {"apparmorProfile": name} if name else {}}
    profiles = one.host / "sys/kernel/security/apparmor/profiles"
    profiles.parent.mkdir(parents=True)
    profiles.write_text(loaded)
    area = Area("bundle")
    bundle.labels(one.machine, area, bundle.Wanted("", config, one.machine.facts, compiled(one).plan))
    found = [finding.status for finding in area.done()]
    expected = ["ok" if name == "one" and "one (" in loaded else "problem"]
    assert found == (expected if apparmor and loaded and name not in ("", "unconfined") else [])
