"""pyrunc.doctor on hosts that are one step from a finding: every boundary and every operand, the
complete findings compared with a transcript."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import doctor_support
from doctor_support import ALL_CAPS, EINVAL, ENOSPC, ENOSYS, EPERM, HEALTHY, MOUNTINFO, STATUS, Made, fails, flat, made
from pyrunc.doctor import cgroups, kernel, limits, privileges, storage, users
from pyrunc.doctor.findings import Area
from pyrunc.spec.names import CAPABILITIES, CLONE_FLAGS

complete = doctor_support.complete

SYS = "/proc/sys/"
OWN = "/sys/fs/cgroup/system.slice/a.service"
ETIME, E2BIG = errno.ETIME, errno.E2BIG


def user(machine: Made) -> None:
    machine.become(1000)


def inside(machine: Made) -> None:
    """Root of a user namespace."""
    machine.facts.rootless = True
    path = Path(machine.prefix, "proc/self/uid_map")
    path.write_text("         0       1000          1\n")


def no_machine(machine: Made) -> None:
    """No change."""


Change = Callable[[Made], None]
Case = tuple[dict[str, str | None], Change]


def all_of(*changes: Change) -> Change:
    def change(machine: Made) -> None:
        for one in changes:
            one(machine)

    return change


def has(**values: Any) -> Change:
    """Attributes of the machine."""
    return lambda machine: machine.__dict__.update(values)


def facts(**values: Any) -> Change:
    def change(machine: Made) -> None:
        for name, value in values.items():
            setattr(machine.facts, name, value)

    return change


def denied(path: str) -> Change:
    return lambda machine: machine.denied.add(path)


# -- limits ----------------------------------------------------------------------------------------

LIMITS: dict[str, Case] = {
    "namespaces": (
        {
            f"{SYS}user/max_{kind}_namespaces": "0\n"
            for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time")
        },
        no_machine,
    ),
    "one-namespace": ({SYS + "user/max_user_namespaces": "1\n"}, no_machine),
    "memfd-1": ({SYS + "vm/memfd_noexec": "1\n"}, user),
    "memfd-3": ({SYS + "vm/memfd_noexec": "3\n"}, user),
    "memfd-missing": ({SYS + "vm/memfd_noexec": None}, user),
    "forwarding-missing": ({SYS + "net/ipv4/ip_forward": None}, no_machine),
    "loadavg-short": ({"/proc/loadavg": "0 0 0\n"}, no_machine),
    "loadavg-words": ({"/proc/loadavg": "0 0 0 1/x 1\n"}, no_machine),
    "loadavg-at-nine-tenths": ({"/proc/loadavg": "0 0 0 1/90 1\n", SYS + "kernel/pid_max": "100\n"}, no_machine),
    "loadavg-below": ({"/proc/loadavg": "0 0 0 1/89 1\n", SYS + "kernel/pid_max": "100\n"}, no_machine),
    "threads-max": ({"/proc/loadavg": "0 0 0 1/100 1\n", SYS + "kernel/threads-max": "100\n"}, no_machine),
    "only-threads-max": (
        {"/proc/loadavg": "0 0 0 1/9 1\n", SYS + "kernel/threads-max": "10\n", SYS + "kernel/pid_max": None},
        no_machine,
    ),
    "no-process-limits": ({SYS + "kernel/threads-max": None, SYS + "kernel/pid_max": "0\n"}, no_machine),
    "files-full": ({SYS + "fs/file-nr": "10 0 10\n"}, no_machine),
    "files-short": ({SYS + "fs/file-nr": "10 0\n"}, no_machine),
    "files-words": ({SYS + "fs/file-nr": "10 x 10\n"}, no_machine),
    "mounts-near": (
        {SYS + "fs/mount-max": "4\n", "/proc/self/mountinfo": MOUNTINFO + "40 23 0:9 / /x rw - tmpfs tmpfs rw\n"},
        no_machine,
    ),
    "mounts-missing": ({SYS + "fs/mount-max": None}, no_machine),
    "keys-of-a-user": (
        {
            "/proc/key-users": "    0:    10 9/9 9/1000 1/2\n 1000:  10 9/9 195/200 1/2\n",
            SYS + "kernel/keys/maxkeys": "200\n",
        },
        user,
    ),
    "keys-of-another": (
        {"/proc/key-users": "   10:    10 9/9 200/200 1/2\n", SYS + "kernel/keys/maxkeys": "200\n"},
        user,
    ),
    "keys-words": ({"/proc/key-users": "    0:    10 9/9 x/9 1/2\n"}, no_machine),
    "keys-short": ({"/proc/key-users": "    0:    10 9/9\n"}, no_machine),
    "keys-three-fields": ({"/proc/key-users": "    0:    10 9/9 999999/9\n"}, no_machine),
    "keys-without-limit": ({SYS + "kernel/keys/root_maxkeys": None}, no_machine),
    "terminals-near": ({SYS + "kernel/pty/nr": "9\n", SYS + "kernel/pty/max": "10\n"}, no_machine),
    "terminals-none": ({SYS + "kernel/pty/nr": "0\n", SYS + "kernel/pty/max": "10\n"}, no_machine),
    "terminals-missing": ({SYS + "kernel/pty/nr": None}, no_machine),
    "inotify-129": ({SYS + "fs/inotify/max_user_instances": "129\n"}, no_machine),
    "inotify-missing": ({SYS + "fs/inotify/max_user_instances": None}, no_machine),
    "own-cgroup": (
        {
            f"{OWN}/pids.max": "10\n",
            f"{OWN}/pids.current": "9\n",
            f"{OWN}/memory.max": "10\n",
            f"{OWN}/memory.current": "8\n",
        },
        no_machine,
    ),
    "own-cgroup-full": (
        {
            f"{OWN}/pids.max": "0\n",
            f"{OWN}/pids.current": "0\n",
            f"{OWN}/memory.max": "10\n",
            f"{OWN}/memory.current": "10\n",
        },
        no_machine,
    ),
    "own-cgroup-part": (
        {f"{OWN}/pids.max": "10\n", f"{OWN}/memory.max": "max\n", f"{OWN}/memory.current": "10\n"},
        no_machine,
    ),
    "no-cgroup2": (
        {
            "/proc/self/mountinfo": MOUNTINFO.replace("cgroup2", "cgroup"),
            f"{OWN}/pids.max": "10\n",
            f"{OWN}/pids.current": "9\n",
        },
        no_machine,
    ),
    "hidepid": ({"/proc/self/mountinfo": MOUNTINFO.replace("/proc rw -", "/proc rw,hidepid=2 -")}, user),
    "hidepid-0": ({"/proc/self/mountinfo": MOUNTINFO.replace("proc proc rw", "proc proc rw,hidepid=0")}, user),
    "hidepid-off": ({"/proc/self/mountinfo": MOUNTINFO.replace("proc proc rw", "proc proc rw,hidepid=off")}, user),
    "covered": (
        {
            "/proc/self/mountinfo": MOUNTINFO
            + "".join(f"{40 + n} 24 0:9 / /proc/{n} rw - tmpfs tmpfs rw\n" for n in range(6))
        },
        user,
    ),
    "covered-for-root": (
        {"/proc/self/mountinfo": MOUNTINFO + "40 24 0:9 / /proc/kcore rw - tmpfs tmpfs rw\n"},
        no_machine,
    ),
    "binfmt": (
        {
            "/proc/self/mountinfo": MOUNTINFO
            + "40 24 0:9 / /proc/sys/fs/binfmt_misc rw - x x rw\n41 24 0:9 / /process rw - x x rw\n"
        },
        user,
    ),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits(name: str, tmp_path: Path) -> None:
    files, change = LIMITS[name]
    machine = made(tmp_path, files)
    change(machine)
    assert flat(limits.check(machine))


@pytest.mark.parametrize(
    ("soft", "hard"), [(1023, 1023), (1024, 1024), (0, 0), (1, 1025), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)]
)
def test_resource_limits(soft: int, hard: int, tmp_path: Path) -> None:
    machine = made(tmp_path)
    machine.limits = {resource.RLIMIT_NOFILE: (soft, hard), resource.RLIMIT_NPROC: (soft, hard)}
    assert flat(limits.check(machine))


# -- cgroups ---------------------------------------------------------------------------------------

ROOT_ONLY: dict[str, str | None] = {
    "/proc/self/cgroup": "0::/\n",
    "/sys/fs/cgroup/cgroup.procs": "",
    "/sys/fs/cgroup/cgroup.subtree_control": "",
}
CGROUPS: dict[str, Case] = {
    "none": ({"/proc/self/mountinfo": MOUNTINFO.replace("cgroup2", "tmpfs")}, no_machine),
    "read-only": ({"/proc/self/mountinfo": MOUNTINFO.replace("cgroup rw,nosuid", "cgroup ro,nosuid")}, no_machine),
    "hybrid": (
        {
            "/proc/self/mountinfo": MOUNTINFO + "50 23 0:50 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n",
            "/proc/cgroups": "#x\ncpu\t3\t1\t1\nblkio\t4\t1\t1\nrow\n\npids\t0\t1\t1\n",
            "/sys/fs/cgroup/cgroup.controllers": "memory hugetlb\n",
        },
        no_machine,
    ),
    "no-controllers": ({"/sys/fs/cgroup/cgroup.controllers": "\n", "/sys/fs/cgroup/cgroup.events": ""}, no_machine),
    "no-controllers-at-the-top": ({"/sys/fs/cgroup/cgroup.controllers": "cpu cpuset io memory\n"}, no_machine),
    "only-expected": ({"/sys/fs/cgroup/cgroup.controllers": "cpu cpuset io memory pids\n"}, no_machine),
    "delegated": ({}, user),
    "delegated-part": ({"/sys/fs/cgroup/system.slice/cgroup.controllers": "memory cpuset\n"}, user),
    "delegated-nothing": ({"/sys/fs/cgroup/system.slice/cgroup.controllers": "\n"}, user),
    "denied": ({}, denied("/sys/fs/cgroup/system.slice/cgroup.procs")),
    "denied-control": ({}, denied("/sys/fs/cgroup/system.slice/cgroup.subtree_control")),
    "denied-user": ({}, all_of(user, denied("/sys/fs/cgroup/system.slice"))),
    "at-the-top": (ROOT_ONLY, no_machine),
    "at-the-top-with-child": (
        {**ROOT_ONLY, "/sys/fs/cgroup/system.slice/cgroup.events": "", "/sys/fs/cgroup/b/x": ""},
        no_machine,
    ),
    "one-level": (
        {
            "/proc/self/cgroup": "0::/a\n",
            "/sys/fs/cgroup/a/cgroup.kill": "",
            "/sys/fs/cgroup/cgroup.procs": "",
            "/sys/fs/cgroup/cgroup.subtree_control": "",
        },
        no_machine,
    ),
    "no-kill": ({f"{OWN}/cgroup.kill": None}, no_machine),
    "no-swap": ({f"{OWN}/memory.swap.max": None}, no_machine),
    "no-memory": ({f"{OWN}/memory.max": None}, no_machine),
    "memory-not-offered": ({f"{OWN}/cgroup.controllers": "cpu\n"}, no_machine),
    "systemd-wanted": ({}, has(manager="systemd")),
    "systemd": ({"/run/systemd/system/x": ""}, no_machine),
    "systemd-user": ({"/run/systemd/system/x": ""}, user),
    "systemd-wanted-without-library": ({"/run/systemd/system/x": ""}, has(manager="systemd")),
    **{
        f"library{place.replace('/', '-')}": ({"/run/systemd/system/x": "", f"{place}/libsystemd.so.0": ""}, no_machine)
        for place in (
            "/usr/lib/x86_64-linux-gnu",
            "/lib/x86_64-linux-gnu",
            "/usr/lib64",
            "/lib64",
            "/usr/lib",
            "/lib",
            "/usr/lib/aarch64-linux-gnu",
        )
    },
    "library-arm": ({"/run/systemd/system/x": "", "/lib/aarch64-linux-gnu/libsystemd.so.0": ""}, facts(arch="aarch64")),
}


@pytest.mark.parametrize("name", CGROUPS)
def test_cgroups(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    files, change = CGROUPS[name]
    machine = made(tmp_path, files)
    change(machine)
    assert flat(cgroups.check(machine))


def test_a_bus_that_answers(tmp_path: Path) -> None:
    machine = made(tmp_path, {"/run/systemd/system/x": "", "/run/systemd/private": None})
    (tmp_path / "run/dbus").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        top = os.open(tmp_path, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{top}/run/dbus/system_bus_socket")
        os.close(top)
        server.listen()
        assert flat(cgroups.check(machine))
    assert cgroups.connect("/nowhere/socket") == "No such file or directory"
    assert "too long" in cgroups.connect("/" + "x" * 200)


# -- kernel ----------------------------------------------------------------------------------------


def seccomp(value: int) -> dict[str, str | None]:
    return {"/proc/self/status": STATUS.format(caps=ALL_CAPS, nnp=0, seccomp=value)}


ALL = tuple(dict.fromkeys(feature.probe for feature in kernel.FEATURES))
KERNELS: dict[str, tuple[dict[str, str | None], Any, Change]] = {
    "too-old": ({}, fails(0), facts(kernel=(kernel.FLOOR[0], kernel.FLOOR[1] - 1))),
    "oldest": ({SYS + "kernel/osrelease": None}, fails(0), facts(kernel=kernel.FLOOR)),
    "architecture": ({}, fails(0), facts(arch="riscv64")),
    "arm64": ({}, fails(0), facts(arch="aarch64")),
    "absent": ({}, fails(ENOSYS, *ALL), no_machine),
    "absent-in-a-sandbox": (seccomp(2), fails(ENOSYS, *ALL), no_machine),
    "absent-when-old": ({}, fails(ENOSYS, *ALL), facts(kernel=(5, 13))),
    "unknown-flags": (seccomp(2), fails(EINVAL, *ALL), no_machine),
    "refused": ({}, fails(EPERM, *ALL), no_machine),
    "refused-in-a-sandbox": (seccomp(2), fails(EPERM, *ALL), no_machine),
    "limited": ({}, fails(ENOSPC, *ALL), no_machine),
    "odd": ({}, fails(E2BIG, *ALL), no_machine),
    "user": ({}, lambda what, flags: -EPERM if not flags & CLONE_FLAGS["user"] else 7, user),
    "filesystems": ({"/proc/filesystems": "nodev\ttmpfs\n\text4\n"}, fails(0), no_machine),
    "no-overlay": (
        {"/proc/filesystems": (HEALTHY["/proc/filesystems"] or "").replace("overlay", "over")},
        fails(0),
        no_machine,
    ),
    **{
        f"no-{kind}": ({}, fails(number, mask=flag), no_machine)
        for number, (kind, flag) in zip(
            (ENOSPC, EPERM, EINVAL, ENOSYS, ENOSPC, ENOSPC, EPERM, EPERM), CLONE_FLAGS.items(), strict=False
        )
    },
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, probe, change = KERNELS[name]
    monkeypatch.setattr(kernel, "map_ids", lambda path: 0)
    monkeypatch.setattr(kernel, "load_device_program", lambda: 0)
    machine = made(tmp_path, files, probe)
    change(machine)
    assert flat(kernel.check(machine))


@pytest.mark.parametrize("result", [0, 1, -EPERM, -EINVAL, -ENOSYS, -E2BIG])
@pytest.mark.parametrize("change", [no_machine, user], ids=["root", "user"])
def test_maps_and_programs(result: int, change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "map_ids", lambda path: result)
    monkeypatch.setattr(kernel, "load_device_program", lambda: result)
    machine = made(tmp_path)
    change(machine)
    assert flat(kernel.check(machine))


def test_filesystems_of_paths(tmp_path: Path) -> None:
    text = (
        MOUNTINFO
        + "40 23 0:9 / /a rw - xfs x rw\n41 40 0:9 / /a rw opt:1 opt:2 - btrfs x rw\n42 40 0:9 / /a/b rw - zfs x rw\n"
    )
    machine = made(tmp_path, {"/proc/self/mountinfo": text})
    found = {path: kernel.filesystem_at(machine, path) for path in ("/", "/x", "/a", "/a/c", "/ab", "/a/b", "/a/b/c")}
    assert found == {
        "/": "ext4", "/x": "ext4", "/a": "btrfs", "/a/c": "btrfs", "/ab": "ext4", "/a/b": "zfs", "/a/b/c": "zfs",
    }  # fmt: skip
    assert kernel.filesystem_at(made(tmp_path, {"/proc/self/mountinfo": ""}), "/x") == "?"


def test_errors_of_maps_and_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(os.listdir("/proc/self/fd"))

    def refuses(*args: object) -> int:
        raise OSError(EPERM, "")

    assert kernel.map_ids("/nowhere/x") == -errno.ENOENT
    monkeypatch.setattr(kernel.mounts, "open_tree", lambda path, recursive: os.open("/", os.O_PATH))  # type: ignore[attr-defined]
    monkeypatch.setattr(kernel, "user_namespace", refuses)
    assert kernel.map_ids("/") == -EPERM
    monkeypatch.setattr(kernel.bpf, "load_device", refuses)  # type: ignore[attr-defined]
    assert kernel.load_device_program() == -EPERM
    monkeypatch.setattr(kernel.bpf, "load_device", lambda program: os.open("/", os.O_PATH))  # type: ignore[attr-defined]
    assert kernel.load_device_program() == 0 and sorted(os.listdir("/proc/self/fd")) == before


# -- privileges ------------------------------------------------------------------------------------


def caps(effective: int, bounding: int = ALL_CAPS, nnp: int = 0) -> dict[str, str | None]:
    text = STATUS.format(caps=effective, nnp=nnp, seccomp=0)
    return {"/proc/self/status": text.replace(f"CapBnd:\t{effective:016x}", f"CapBnd:\t{bounding:016x}")}


def without(*names: str) -> int:
    return ALL_CAPS & ~sum(privileges.bit(name) for name in names)


PRIVILEGES: dict[str, Case] = {
    **{name.lower(): (caps(without(name)), no_machine) for name in (*privileges.NEEDED, *privileges.USEFUL)},
    "none": (caps(0), no_machine),
    "no-bpf-no-admin": (caps(without("CAP_BPF", "CAP_SYS_ADMIN")), no_machine),
    "damaged": ({"/proc/self/status": "CapEff:\tx\nCapBnd:\t\n"}, no_machine),
    "user": (caps(0, nnp=1), user),
    "root-of-a-namespace": ({**caps(0), "/proc/self/uid_map": "0 1000 1\n"}, inside),
    "no-new-privileges": (caps(ALL_CAPS, nnp=1), no_machine),
    "bounding": (caps(ALL_CAPS, without("CAP_SYS_TIME", "CAP_CHOWN")), no_machine),
    "bounding-of-an-old-kernel": (caps(ALL_CAPS, ALL_CAPS >> 2), facts(cap_last=len(CAPABILITIES) - 3)),
    "bounding-last": (caps(ALL_CAPS, ALL_CAPS >> 1), facts(cap_last=len(CAPABILITIES) - 1)),
    **{f"securebits-{bits}": ({}, has(bits=bits)) for bits in (1, 2, 3, 4, 12, 16, 48, 64, 192, 255)},
    "securebits-user": ({}, all_of(user, has(bits=3))),
    "securebits-unknown": ({}, has(bits=None)),
    "no-securityfs": ({"/sys/kernel/security/lsm": None}, no_machine),
    "no-securityfs-both": ({"/sys/kernel/security/lsm": None}, facts(apparmor=True, selinux=True)),
    "no-securityfs-selinux": ({"/sys/kernel/security/lsm": None}, facts(selinux=True)),
    "apparmor-confined": ({"/proc/self/attr/apparmor/current": "docker-default (enforce)\n"}, facts(apparmor=True)),
    "apparmor-old-file": ({"/proc/self/attr/current": "a b\0\n"}, facts(apparmor=True)),
    "apparmor-unconfined": ({"/proc/self/attr/current": "unconfined\n"}, facts(apparmor=True)),
    **{
        f"selinux-{value}": ({"/sys/fs/selinux/enforce": value}, facts(selinux=True))
        for value in ("0\n", "1\n", "2\n", "x\n")
    },
    "selinux-missing": ({}, facts(selinux=True)),
    "lockdown": ({"/sys/kernel/security/lockdown": "none [integrity] confidentiality\n"}, no_machine),
    "lockdown-odd": ({"/sys/kernel/security/lockdown": "none\n"}, no_machine),
    **{
        f"yama-{value}": ({SYS + "kernel/yama/ptrace_scope": value}, no_machine)
        for value in ("0\n", "2\n", "3\n", "4\n", None)
    },
}


@pytest.mark.parametrize("name", PRIVILEGES)
def test_privileges(name: str, tmp_path: Path) -> None:
    files, change = PRIVILEGES[name]
    machine = made(tmp_path, files)
    change(machine)
    assert flat(privileges.check(machine))


@pytest.mark.parametrize("enforcing", ["0\n", "1\n", None])
@pytest.mark.parametrize(
    "label", ["system_u:object_r:container_runtime_exec_t:s0", "system_u:object_r:bin_t:s0", "short", ""]
)
def test_labels(label: str, enforcing: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def getxattr(path: str, name: str) -> bytes:
        asked.append((path, name))
        if not label:
            raise OSError(errno.ENODATA, "")
        return label.encode() + b"\0"

    monkeypatch.setattr(os, "getxattr", getxattr)
    machine = made(tmp_path, {"/sys/fs/selinux/enforce": enforcing})
    machine.facts.selinux = True
    assert flat(privileges.check(machine)) and asked == [(f"{tmp_path}/usr/local/bin/pyrunc", "security.selinux")]
    label = "\udcff"
    monkeypatch.setattr(os, "getxattr", lambda path, name: b"\xff\0")
    assert privileges.file_label("/x") == "\ufffd"


# -- users -----------------------------------------------------------------------------------------

SUB = "1000:100000:65536\n"
NO_USER = fails(EPERM, mask=CLONE_FLAGS["user"])
USERS: dict[str, tuple[dict[str, str | None], Any, Change]] = {
    "root": ({}, fails(0), no_machine),
    "root-refused": ({}, NO_USER, no_machine),
    "user-refused": ({}, NO_USER, user),
    "user-limited": ({}, fails(ENOSPC, mask=CLONE_FLAGS["user"]), user),
    "user-old": ({}, fails(EINVAL, mask=CLONE_FLAGS["user"]), user),
    "debian": ({SYS + "kernel/unprivileged_userns_clone": "0\n"}, NO_USER, user),
    "debian-on": ({SYS + "kernel/unprivileged_userns_clone": "1\n"}, NO_USER, user),
    "ubuntu": ({SYS + "kernel/apparmor_restrict_unprivileged_userns": "1\n"}, NO_USER, user),
    "restricted": (
        {SYS + "kernel/apparmor_restrict_unprivileged_userns": "1\n"},
        lambda what, flags: -EPERM if flags & CLONE_FLAGS["mount"] and flags & CLONE_FLAGS["user"] else 0,
        user,
    ),
    "limit-of-mounts-only": ({}, lambda what, flags: -EPERM if flags == CLONE_FLAGS["mount"] else 0, user),
    "sub": ({"/etc/subuid": SUB, "/etc/subgid": SUB}, fails(0), user),
    "sub-few": (
        {"/etc/subuid": "1000:100000:65535\n", "/etc/subgid": "1000:100000:32768\n1000:200000:32768\n"},
        fails(0),
        user,
    ),
    "sub-of-others": ({"/etc/subuid": "1001:100000:65536\n", "/etc/subgid": ""}, fails(0), user),
    "sub-damaged": (
        {
            "/etc/subuid": f"1000:100000\n1000:x:65536\n1000:1:y\n1000:1:2:3\n{'0' * 200}1000:1:70000\n#\n",
            "/etc/subgid": SUB,
        },
        fails(0),
        user,
    ),
    "sub-long": (
        {"/etc/subuid": f"1000:{'1' * 130}:{'6' * 63}\n1000:{'1' * 130}:{'6' * 64}\n", "/etc/subgid": SUB},
        fails(0),
        user,
    ),
    "overlap-before": ({"/etc/subuid": SUB + "bob:99990:10\n", "/etc/subgid": SUB + "bob:99990:11\n"}, fails(0), user),
    "overlap-after": ({"/etc/subuid": SUB + "bob:165536:10\n", "/etc/subgid": SUB + "bob:165535:1\n"}, fails(0), user),
    "overlap-many": (
        {
            "/etc/subuid": "".join(f"1000:{n * 10}:10\n" for n in range(18)) + "bob:155:1\nbob:165:1\n",
            "/etc/subgid": SUB,
        },
        fails(0),
        user,
    ),
    "nss": ({"/etc/nsswitch.conf": "# x\nsubid: sss files # y\n"}, fails(0), all_of(user, has(ids=[(5, 70000)]))),
    "nss-comment": (
        {"/etc/nsswitch.conf": "#subid: sss\nsubid:\n", "/etc/subuid": SUB, "/etc/subgid": SUB},
        fails(0),
        user,
    ),
    "nss-silent": ({"/etc/nsswitch.conf": "subid: sss\n"}, fails(0), all_of(user, has(ids=None))),
    "nss-nothing": ({"/etc/nsswitch.conf": "subid: sss\n", "/etc/subuid": SUB}, fails(0), all_of(user, has(ids=[]))),
    "no-library": ({}, fails(0), all_of(user, has(ids=None))),
    "mapped-1": ({"/proc/self/uid_map": "0 1000 1\n"}, fails(0), inside),
}


@pytest.mark.parametrize("name", USERS)
def test_users(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "user_name", str)
    files, probe, change = USERS[name]
    machine = made(tmp_path, files, probe)
    change(machine)
    assert flat(users.check(machine))


@pytest.mark.parametrize("text", ["0 1000 1\n1 100000 1\n", "0 1000 1\nx\n0 0 y\n", "0 1000 2\n", ""])
def test_mapped_ids(text: str, tmp_path: Path) -> None:
    machine = made(tmp_path)
    (tmp_path / "proc/self/uid_map").write_text(text)
    area = Area("users")
    users.mapped(machine, area)
    assert flat([area])


@pytest.mark.parametrize("mode", [0o755, 0o4755, 0o2755])
@pytest.mark.parametrize("capable", [True, False])
def test_helpers(mode: int, capable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def getxattr(path: str, name: str) -> bytes:
        assert name == "security.capability"
        if not capable:
            raise OSError(errno.ENODATA, "")
        return b"x"

    monkeypatch.setattr(os, "getxattr", getxattr)
    machine = made(tmp_path)
    doctor_support.program_at(tmp_path, "/usr/bin/newuidmap")
    (tmp_path / "usr/bin/newuidmap").chmod(mode)
    user(machine)
    area = Area("users")
    users.helpers(machine, area)
    assert flat([area])


def test_names_of_users() -> None:
    assert users.user_name(0) == "root" and users.user_name(3999999999) == "3999999999"


# -- storage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bytes_", "inodes", "all_inodes"),
    [(16 << 20, 1000, 5000), ((16 << 20) - 4096, 1000, 5000), (16 << 20, 999, 5000), (16 << 20, 0, 0)],
)
def test_free_space(bytes_: int, inodes: int, all_inodes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = made(tmp_path)
    found = os.statvfs_result((4096, 4096, 1 << 30, 1 << 30, bytes_ >> 12, all_inodes, 1 << 20, inodes, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: found)
    area = Area("room")
    storage.room(machine, area, "/run/a b")
    assert flat([area])


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o720, 0o702, 0o1777])
def test_modes_of_the_state_root(mode: int, tmp_path: Path) -> None:
    machine = made(tmp_path)
    (tmp_path / "run/a b").mkdir(parents=True)
    (tmp_path / "run/a b").chmod(mode)
    for uid in (os.geteuid(), os.geteuid() + 1):
        machine.euid = uid
        area = Area("root")
        storage.state_root(machine, area, "/run/a b")
        found = [one for one in area.done() if one.check == "state-root"]
        assert [one.status for one in found] == ["ok" if uid == os.geteuid() and not mode & 0o022 else "problem"]
        if found[0].status == "problem":
            assert found[0].seen == f"/run/a b belongs to uid {os.geteuid()}, mode {mode:04o}"
            assert found[0].mend == f"chown {uid} '/run/a b' && chmod 0700 '/run/a b'"


def test_the_mount_of_the_state_root(tmp_path: Path) -> None:
    text = MOUNTINFO + "40 23 0:9 / /run rw - tmpfs x rw\n41 40 0:9 / /run/a rw - tmpfs x rw\n"
    machine = made(tmp_path, {"/proc/self/mountinfo": text})
    for path, place in (("/run/a/b", "/run/a"), ("/run/ab", "/run"), ("/run/a", "/run/a"), ("/var", "/")):
        assert storage.mount_of(machine, path) == f"mount -o remount,rw {place}"
