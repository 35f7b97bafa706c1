"""pyrunc.doctor on made-up hosts: kernel and cgroups, each finding present and absent."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import doctor_support
from doctor_support import (
    ALL_CAPS,
    EINVAL,
    ENOSPC,
    ENOSYS,
    EPERM,
    FILESYSTEMS,
    MOUNTINFO,
    STATUS,
    fails,
    flat,
    made,
    only,
    statuses,
)
from pyrunc.doctor import cgroups, kernel
from pyrunc.spec.names import CLONE_FLAGS

complete = doctor_support.complete

V1 = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t5\t1\t1\nblkio\t6\t1\t1\n"
HYBRID = MOUNTINFO.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
OWN = "/sys/fs/cgroup/system.slice/a.service"


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The results of all probes, without running one."""
    results = {"map_ids": 0, "load_device_program": 0}
    monkeypatch.setattr(kernel, "map_ids", lambda path: results["map_ids"])
    monkeypatch.setattr(kernel, "load_device_program", lambda: results["load_device_program"])
    return results


@pytest.mark.parametrize("module", [kernel, cgroups])
def test_nothing_is_wrong_with_a_healthy_host(module: object, tmp_path: Path) -> None:
    (tmp_path / "run/pyrunc").mkdir(parents=True, mode=0o700)
    found = flat(module.check(made(tmp_path)))  # type: ignore[attr-defined]
    assert set(statuses(found).values()) == {"ok"}, found
    assert {one.means + one.mend for one in found} == {""}


# -- kernel ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "what", "number", "status", "reason"),
    [
        ("mount-api", "MOUNT_API", ENOSYS, "problem", "built or booted without it"),
        ("openat2", "OPENAT2", ENOSYS, "note", "built or booted without it"),
        ("clone-into-cgroup", "CLONE_INTO_CGROUP", EINVAL, "problem", "built or booted without it"),
        ("seccomp-notify", "SECCOMP_NOTIFY", EINVAL, "note", "built or booted without it"),
        ("landlock", "LANDLOCK", errno.EOPNOTSUPP, "note", "built or booted without it"),
        ("mount-api", "MOUNT_API", EPERM, "problem", "lacks the privileges"),
    ],
)
def test_a_feature_is_missing(check: str, what: str, number: int, status: str, reason: str, tmp_path: Path) -> None:
    found = only(flat(kernel.check(made(tmp_path, probe=fails(number, what)))), check)
    assert (found.status, found.seen) == (status, errno.errorcode[number])
    assert reason in found.means


def test_an_old_kernel(tmp_path: Path) -> None:
    machine = made(tmp_path, probe=fails(ENOSYS, "MOUNT_API", mask=CLONE_FLAGS["time"]))
    machine.facts.kernel = (5, 4)
    found = flat(kernel.check(machine))
    assert only(found, "version").status == "problem" and "5.12" in only(found, "version").means
    assert "it needs Linux 5.6" in only(found, "time-namespace").means


def test_another_machine(tmp_path: Path) -> None:
    machine = made(tmp_path)
    machine.facts.arch = "riscv64"
    assert only(flat(kernel.check(machine)), "version").status == "problem"


def test_a_filter_denies_the_mount_api(tmp_path: Path) -> None:
    """In an engine's container the kernel is not to blame."""
    status = {"/proc/self/status": STATUS.format(caps=ALL_CAPS, nnp=0, seccomp=2)}
    for number in (EPERM, ENOSYS):
        found = only(flat(kernel.check(made(tmp_path, status, fails(number, "MOUNT_API")))), "mount-api")
        assert "seccomp filter" in found.means


def test_a_feature_works_in_a_user_namespace_only(tmp_path: Path) -> None:
    def probe(what: str, flags: int) -> int:
        return 0 if what != "MOUNT_API" or flags & CLONE_FLAGS["user"] else -EPERM

    found = only(flat(kernel.check(made(tmp_path, probe=probe))), "mount-api")
    assert (found.status, found.seen) == ("ok", "works, in a user namespace")


def test_namespaces(tmp_path: Path) -> None:
    found = only(flat(kernel.check(made(tmp_path, probe=fails(ENOSPC, mask=CLONE_FLAGS["network"])))), "namespaces")
    assert (found.status, found.seen) == ("problem", "network: ENOSPC")
    assert found.mend == "sysctl -w user.max_net_namespaces=10000"


@pytest.mark.parametrize(("number", "words"), [(EINVAL, "cannot map"), (EPERM, "may not"), (ENOSYS, "without it")])
def test_idmapped_mounts(number: int, words: str, calls: dict[str, int], tmp_path: Path) -> None:
    calls["map_ids"] = -number
    found = only(flat(kernel.check(made(tmp_path))), "idmapped-mounts")
    assert found.status == "note" and words in found.means and "ext4" in found.seen


def test_device_programs(calls: dict[str, int], tmp_path: Path) -> None:
    calls["load_device_program"] = -EPERM
    machine = made(tmp_path)
    assert only(flat(kernel.check(machine)), "device-programs").status == "problem"
    machine.become(1000)
    assert only(flat(kernel.check(machine)), "device-programs").status == "note"


def test_filesystems(tmp_path: Path) -> None:
    known = FILESYSTEMS.replace("nodev\tmqueue\n", "").replace("nodev\toverlay\n", "")
    found = [
        one for one in flat(kernel.check(made(tmp_path, {"/proc/filesystems": known}))) if one.check == "filesystems"
    ]
    assert [(one.status, one.seen.split()[0]) for one in found] == [("problem", "mqueue"), ("note", "overlay")]


# -- cgroups ---------------------------------------------------------------------------------------


def test_no_hierarchy(tmp_path: Path) -> None:
    found = flat(cgroups.check(made(tmp_path, {"/proc/self/mountinfo": MOUNTINFO.partition("31 ")[0]})))
    assert only(found, "hierarchy").status == "problem"
    assert only(found, "hierarchy").mend.startswith("mount -t cgroup2 ")


def test_a_hybrid_host(tmp_path: Path) -> None:
    files = {
        "/proc/self/mountinfo": HYBRID,
        "/sys/fs/cgroup/unified/cgroup.controllers": "hugetlb\n",
        "/proc/self/cgroup": "0::/\n",
        "/proc/cgroups": V1,
    }
    found = flat(cgroups.check(made(tmp_path, files)))
    assert only(found, "hierarchy").status == "note" and "hybrid" in only(found, "hierarchy").seen
    missing = only(found, "controllers")
    assert missing.status == "note" and "cgroup v1 has io memory" in missing.means
    assert missing.mend.startswith("boot with cgroup_no_v1=io,memory ")


def test_a_read_only_hierarchy(tmp_path: Path) -> None:
    """As in an engine's container."""
    machine = made(tmp_path, {"/proc/self/mountinfo": MOUNTINFO.replace("cgroup rw", "cgroup ro")})
    assert only(flat(cgroups.check(machine)), "hierarchy").status == "problem"


def test_controllers_that_a_cgroup_above_keeps(tmp_path: Path) -> None:
    files = {
        "/proc/self/cgroup": "0::/\n",
        "/sys/fs/cgroup/cgroup.controllers": "cpu memory pids\n",
        "/sys/fs/cgroup/cgroup.events": "populated 1\n",
    }
    found = only(flat(cgroups.check(made(tmp_path, files))), "controllers")
    assert "+cpuset +io > cgroup.subtree_control" in found.mend


def test_delegation(tmp_path: Path) -> None:
    machine = made(tmp_path)
    machine.denied.add("/sys/fs/cgroup/system.slice")
    found = only(flat(cgroups.check(machine)), "delegation")
    assert found.status == "problem" and found.mend == "mount -o remount,rw /sys/fs/cgroup"
    machine.become(1000)
    found = only(flat(cgroups.check(machine)), "delegation")
    assert found.status == "note" and "Delegate=yes" in found.mend


def test_delegation_to_a_user(tmp_path: Path) -> None:
    machine = made(tmp_path)
    machine.become(1000)
    assert only(flat(cgroups.check(machine)), "delegation").status == "ok"
    (tmp_path / "sys/fs/cgroup/system.slice/cgroup.controllers").write_text("pids\n")
    found = only(flat(cgroups.check(machine)), "delegation")
    assert found.status == "note" and found.means == "limits for cpu memory are refused"


@pytest.mark.parametrize(("file", "check"), [("cgroup.kill", "cgroup-kill"), ("memory.swap.max", "swap")])
def test_files_of_a_cgroup(file: str, check: str, tmp_path: Path) -> None:
    found = only(flat(cgroups.check(made(tmp_path, {f"{OWN}/{file}": None}))), check)
    assert found.status == "note"


def test_systemd_is_asked_for_and_not_there(tmp_path: Path) -> None:
    machine = made(tmp_path)
    machine.manager = "systemd"
    assert only(flat(cgroups.check(machine)), "manager").status == "problem"


def test_the_bus_of_systemd(tmp_path: Path) -> None:
    files = {"/run/systemd/system/x": "", "/usr/lib/x86_64-linux-gnu/libsystemd.so.0": ""}
    machine = made(tmp_path, files)
    found = flat(cgroups.check(machine))
    assert statuses(found)["library"] == "ok" and only(found, "bus").status == "note"
    machine.manager = "systemd"
    assert only(flat(cgroups.check(machine)), "bus").status == "problem"
    (tmp_path / "usr/lib/x86_64-linux-gnu/libsystemd.so.0").unlink()
    assert only(flat(cgroups.check(machine)), "library").status == "problem"
    short = f"/tmp/doctor-{os.getpid()}"  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        os.symlink(tmp_path, short)
        try:
            server.bind(f"{short}/run/systemd/private")
            server.listen(1)
            machine.prefix = short
            found = flat(cgroups.check(machine))
        finally:
            os.unlink(short)
    assert only(found, "bus").seen == "/run/systemd/private answers"
