"""pyrunc.doctor on made-up hosts: limits and storage, each finding present and absent."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import doctor_support
from doctor_support import (
    MOUNTINFO,
    Made,
    flat,
    made,
    only,
    program_at,
    statuses,
)
from pyrunc.doctor import limits, storage
from pyrunc.doctor.findings import Finding
from pyrunc.doctor.users import user_name

complete = doctor_support.complete

MEND = "sysctl -w fs.inotify.max_user_instances=8192"
SYS = "/proc/sys/"
OWN = "/sys/fs/cgroup/system.slice/a.service"


@pytest.mark.parametrize("module", [limits, storage])
def test_nothing_is_wrong_with_a_healthy_host(module: object, tmp_path: Path) -> None:
    (tmp_path / "run/pyrunc").mkdir(parents=True, mode=0o700)
    found = flat(module.check(made(tmp_path)))  # type: ignore[attr-defined]
    assert set(statuses(found).values()) == {"ok"}, found
    assert {one.means + one.mend for one in found} == {""}


# -- limits ----------------------------------------------------------------------------------------


def own(kind: str, limit: int, used: int) -> dict[str, str]:
    return {f"{OWN}/{kind}.max": f"{limit}\n", f"{OWN}/{kind}.current": f"{used}\n"}


@pytest.mark.parametrize(
    ("files", "check", "status", "mend"),
    [
        ({SYS + "user/max_net_namespaces": "0"}, "namespaces", "problem", "sysctl -w user.max_net_namespaces=10000"),
        ({SYS + "net/ipv4/ip_forward": "0\n"}, "forwarding", "note", "sysctl -w net.ipv4.ip_forward=1"),
        ({"/proc/loadavg": "0 0 0 1/30000 1\n"}, "processes", "note", "sysctl -w kernel.pid_max=131072"),
        ({"/proc/loadavg": "0 0 0 1/32768 1\n"}, "processes", "problem", "sysctl -w kernel.pid_max=131072"),
        ({"/proc/sys/fs/file-nr": "9500 0 10000\n"}, "files", "note", "sysctl -w fs.file-max=20000"),
        ({"/proc/sys/fs/mount-max": "3\n"}, "mounts", "problem", "sysctl -w fs.mount-max=6"),
        ({SYS + "kernel/keys/root_maxkeys": "9"}, "keys", "problem", "sysctl -w kernel.keys.root_maxkeys=90"),
        ({SYS + "kernel/pty/max": "1"}, "terminals", "problem", "sysctl -w kernel.pty.max=2"),
        ({SYS + "fs/inotify/max_user_instances": "128"}, "inotify", "note", MEND),
        (own("pids", 10, 10), "cgroup-pids", "problem", f"echo max > {OWN}/pids.max"),
        (own("memory", 10, 9), "cgroup-memory", "note", f"echo max > {OWN}/memory.max"),
    ],
)  # fmt: skip
def test_a_limit_bites(files: dict[str, str | None], check: str, status: str, mend: str, tmp_path: Path) -> None:
    found = only(flat(limits.check(made(tmp_path, files))), check)
    assert (found.status, found.mend) == (status, mend)


def test_memfds(tmp_path: Path) -> None:
    machine = made(tmp_path, {"/proc/sys/vm/memfd_noexec": "2\n"})
    assert only(flat(limits.check(machine)), "memfd").status == "ok"
    machine.become(1000)
    assert only(flat(limits.check(machine)), "memfd").status == "problem"


def test_rlimits(tmp_path: Path) -> None:
    machine = made(tmp_path)
    machine.limits = {resource.RLIMIT_NOFILE: (256, 512), resource.RLIMIT_NPROC: (10, 10)}
    found = flat(limits.check(machine))
    assert only(found, "rlimit-nofile").mend == "ulimit -Hn 16384; or in a unit: LimitNOFILE="
    assert only(found, "rlimit-nproc").mend == "ulimit -Hu 16384; or in a unit: LimitNPROC="


def test_proc(tmp_path: Path) -> None:
    text = (
        MOUNTINFO.replace("proc proc rw", "proc proc rw,hidepid=invisible")
        + "40 24 0:9 / /proc/kcore rw - tmpfs tmpfs rw\n"
    )
    machine = made(tmp_path, {"/proc/self/mountinfo": text})
    assert "proc" not in statuses(flat(limits.check(machine)))
    machine.become(1000)
    found = [one for one in flat(limits.check(machine)) if one.check == "proc"]
    assert [one.status for one in found] == ["note", "problem"] and "/proc/kcore" in found[1].seen


# -- storage ---------------------------------------------------------------------------------------


def storage_of(machine: Made) -> list[Finding]:
    return flat(storage.check(machine))


def test_state_root(tmp_path: Path) -> None:
    machine = made(tmp_path)
    machine.euid = os.geteuid()
    root = tmp_path / "run/pyrunc"
    (tmp_path / "run").mkdir()
    machine.root_option = "/run/pyrunc"
    assert only(storage_of(machine), "state-root").seen == "/run/pyrunc will be created by the first create"
    machine.denied.add("/run")
    assert only(storage_of(machine), "state-root").mend == "mkdir -m 0700 /run/pyrunc"
    root.symlink_to("/tmp")
    assert only(storage_of(machine), "state-root").seen == "/run/pyrunc is a symbolic link"
    root.unlink()
    root.write_text("")
    assert only(storage_of(machine), "state-root").seen == "/run/pyrunc is not a directory"
    root.unlink()
    root.mkdir(mode=0o700)
    assert only(storage_of(machine), "state-root").status == "ok"
    root.chmod(0o777)
    assert only(storage_of(machine), "state-root").status == "problem"
    root.chmod(0o700)
    machine.denied.add("/run/pyrunc")
    assert only(storage_of(machine), "state-root").mend == "mount -o remount,rw /"


def test_no_state_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = made(tmp_path)
    machine.root_option = "/"
    assert only(storage_of(machine), "state-root").status == "problem"


def test_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = made(tmp_path)
    (tmp_path / "run/pyrunc").mkdir(parents=True, mode=0o700)
    machine.euid, machine.root_option = os.geteuid(), "/run/pyrunc"
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((*real[:4], 1, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    assert only(storage_of(machine), "room").status == "note"


def test_linger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = made(tmp_path, {"/run/systemd/system/x": ""})
    uid = machine.uid = os.geteuid()
    machine.euid = uid
    (tmp_path / f"run/user/{uid}/pyrunc").mkdir(parents=True, mode=0o700)
    machine.root_option = f"/run/user/{uid}/pyrunc"
    assert only(storage_of(machine), "linger").mend.startswith("loginctl enable-linger ")
    linger = tmp_path / "var/lib/systemd/linger" / user_name(uid)
    linger.parent.mkdir(parents=True)
    linger.touch()
    assert "linger" not in statuses(storage_of(machine))


@pytest.mark.parametrize(
    ("script", "status", "seen"),
    [
        ("echo Version: 4.2", "ok", "/usr/sbin/criu, 4.2"),
        ("echo Version: 3.15", "note", "/usr/sbin/criu is 3.15"),
        ("exit 1", "problem", "/usr/sbin/criu --version fails"),
        ("exec sleep 5", "note", "/usr/sbin/criu --version did not end"),
        ("head -c 1000000 /dev/zero", "problem", "/usr/sbin/criu --version fails"),
    ],
)
def test_criu(script: str, status: str, seen: str, tmp_path: Path) -> None:
    machine = made(tmp_path)
    program_at(tmp_path, "/usr/sbin/criu")
    (tmp_path / "usr/sbin/criu").write_text(f"#!/bin/sh\n{script}\n")
    found = only(storage_of(machine), "criu")
    assert found.status == status and found.seen.startswith(seen)
