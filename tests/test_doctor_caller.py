"""pyrunc.doctor on made-up hosts: users and privileges, each finding present and absent."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import doctor_support
from doctor_support import (
    ALL_CAPS,
    ENOSPC,
    EPERM,
    STATUS,
    Made,
    fails,
    flat,
    made,
    only,
    program_at,
    statuses,
)
from pyrunc.doctor import privileges, users
from pyrunc.doctor.machine import Machine
from pyrunc.native import probe
from pyrunc.spec.names import CLONE_FLAGS

complete = doctor_support.complete


@pytest.mark.parametrize("module", [users, privileges])
def test_nothing_is_wrong_with_a_healthy_host(module: object, tmp_path: Path) -> None:
    (tmp_path / "run/pyrunc").mkdir(parents=True, mode=0o700)
    found = flat(module.check(made(tmp_path)))  # type: ignore[attr-defined]
    assert set(statuses(found).values()) == {"ok"}, found
    assert {one.means + one.mend for one in found} == {""}


# -- users -----------------------------------------------------------------------------------------


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """uid 1000 with all requirements met."""
    ids = {"/etc/subuid": "joe:100000:65536\n", "/etc/subgid": "joe:100000:65536\n"}
    machine = made(tmp_path, ids)
    machine.become(1000)
    monkeypatch.setattr(users, "user_name", lambda uid: "joe")
    program_at(tmp_path, "/usr/bin/newuidmap", "/usr/bin/newgidmap")
    for name in ("newuidmap", "newgidmap"):
        (tmp_path / "usr/bin" / name).chmod(0o4755)
    return machine


def test_a_user_has_what_it_needs(user: Made) -> None:
    assert set(statuses(flat(users.check(user))).values()) == {"ok"}


@pytest.mark.parametrize("setting", users.SETTINGS)
def test_a_user_may_not_make_user_namespaces(setting: tuple[str, int], user: Made) -> None:
    name, value = setting
    path = Path(user.prefix, "proc/sys", name.replace(".", "/"))
    path.write_text(f"{value}\n")
    user.probe = fails(EPERM, mask=CLONE_FLAGS["user"])
    found = only(flat(users.check(user)), "user-namespaces")
    assert (found.status, found.mend) == ("problem", f"sysctl -w {name}={1 - value}")


def test_user_namespaces_without_capabilities(user: Made) -> None:
    user.probe = fails(EPERM, mask=CLONE_FLAGS["mount"])
    assert "give no capabilities" in only(flat(users.check(user)), "user-namespaces").seen


def test_root_without_user_namespaces(tmp_path: Path) -> None:
    found = only(flat(users.check(made(tmp_path, probe=fails(ENOSPC, mask=CLONE_FLAGS["user"])))), "user-namespaces")
    assert (found.status, found.mend) == ("note", "sysctl -w user.max_user_namespaces=10000")


def test_helpers(user: Made) -> None:
    program = Path(user.prefix, "usr/bin/newuidmap")
    program.chmod(0o755)
    found = only(flat(users.check(user)), "helpers")
    assert (found.status, found.mend) == ("problem", "chmod u+s /usr/bin/newuidmap")
    program.unlink()
    assert only(flat(users.check(user)), "helpers").status == "note"


def test_subordinate_ids(user: Made) -> None:
    file = Path(user.prefix, "etc/subuid")
    file.write_text("# nobody\njoe:100000:10\njoe:x:y\nother:1:2\n")
    found = only(flat(users.check(user)), "subordinate-ids")
    assert found.seen == "joe has 10 subordinate uids (/etc/subuid)"
    file.write_text("")
    found = only(flat(users.check(user)), "subordinate-ids")
    assert (found.status, found.mend) == ("note", "usermod --add-subuids 100000-165535 joe")


def test_subordinate_ids_of_nss(user: Made) -> None:
    """sssd serves the ranges: the file is empty, but libsubid returns them."""
    Path(user.prefix, "etc/nsswitch.conf").write_text("passwd: files\nsubid:\tsss files # comment\n")
    assert users.nss_source(user) == "sss"
    for name in ("subuid", "subgid"):
        Path(user.prefix, "etc", name).write_text("")
    user.ids = [(200000, 65536)]
    seen = {one.seen for one in flat(users.check(user))}
    assert "joe has 65536 subordinate uids (libsubid (sss))" in seen
    user.ids = None
    assert "the ids that sss serves are not seen" in {one.means for one in flat(users.check(user))}


def test_overlapping_ids(user: Made) -> None:
    Path(user.prefix, "etc/subuid").write_text("joe:100000:65536\nann:165535:65536\n")
    found = only(flat(users.check(user)), "overlapping-ids")
    assert found.status == "problem" and "of ann" in found.seen


def test_root_of_a_user_namespace(tmp_path: Path) -> None:
    machine = made(tmp_path, {"/proc/self/ns/user": "", "/proc/self/uid_map": "0 1000 1\n"})
    assert only(flat(users.check(machine)), "mapped-ids").status == "note"
    (tmp_path / "proc/self/uid_map").write_text("0 1000 1\n1 100000 65536\n")
    assert only(flat(users.check(machine)), "mapped-ids").status == "ok"


# -- privileges ------------------------------------------------------------------------------------


def without(*names: str) -> dict[str, str | None]:
    caps = ALL_CAPS
    for name in names:
        caps &= ~privileges.bit(name)
    return {"/proc/self/status": STATUS.format(caps=caps, nnp=0, seccomp=0)}


def test_capabilities(tmp_path: Path) -> None:
    found = flat(privileges.check(made(tmp_path, without("CAP_SYS_ADMIN"))))
    assert only(found, "capabilities").status == "problem"
    found = flat(privileges.check(made(tmp_path, without("CAP_SYS_RESOURCE"))))
    assert only(found, "capabilities").status == "note" and only(found, "bounding-set").status == "note"
    assert only(flat(privileges.check(made(tmp_path, without("CAP_BPF")))), "capabilities").status == "ok"
    machine = made(tmp_path, without("CAP_SYS_ADMIN"))
    machine.become(1000)
    assert only(flat(privileges.check(machine)), "capabilities").status == "ok"


def test_no_new_privileges(tmp_path: Path) -> None:
    machine = made(tmp_path, {"/proc/self/status": STATUS.format(caps=ALL_CAPS, nnp=1, seccomp=0)})
    assert only(flat(privileges.check(machine)), "no-new-privileges").status == "note"


@pytest.mark.parametrize(
    ("bits", "status", "seen"),
    [
        (0, "ok", "none is set"),
        (0b11, "problem", "noroot is set and locked"),
        (1 << 2, "note", "no_setuid_fixup is set"),
        (1 << 6, "note", "no_cap_ambient_raise is set"),
        (None, "note", "python-prctl is not installed"),
    ],
)
def test_securebits(bits: int | None, status: str, seen: str, tmp_path: Path) -> None:
    machine = made(tmp_path)
    machine.bits = bits
    found = only(flat(privileges.check(machine)), "securebits")
    assert (found.status, found.seen) == (status, seen)


def test_apparmor(tmp_path: Path) -> None:
    files = {"/sys/module/apparmor/parameters/enabled": "Y\n", "/proc/self/attr/current": "docker-default (enforce)\n"}
    machine = made(tmp_path, files)
    found = [one.seen for one in flat(privileges.check(machine)) if one.check == "apparmor" and one.status == "note"]
    assert found == ["apparmor_parser is not installed", "pyrunc is confined by docker-default (enforce)"]
    program_at(tmp_path, "/usr/sbin/apparmor_parser")
    (tmp_path / "proc/self/attr/current").write_text("unconfined\n")
    assert only(flat(privileges.check(machine)), "apparmor").seen == "enabled"


@pytest.mark.parametrize(("enforce", "status"), [("1", "problem"), ("0", "note")])
def test_selinux(enforce: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = made(tmp_path, {"/sys/fs/selinux/enforce": enforce})
    monkeypatch.setattr(privileges, "file_label", lambda path: "system_u:object_r:bin_t:s0")
    found = only(flat(privileges.check(machine)), "selinux")
    assert (found.status, found.mend) == (status, "chcon -t container_runtime_exec_t /usr/local/bin/pyrunc")
    monkeypatch.setattr(privileges, "file_label", lambda path: "system_u:object_r:container_runtime_exec_t:s0")
    assert only(flat(privileges.check(machine)), "selinux").status == "ok"


def test_yama_and_lockdown(tmp_path: Path) -> None:
    files = {"/proc/sys/kernel/yama/ptrace_scope": "3\n", "/sys/kernel/security/lockdown": "none [integrity] x\n"}
    found = flat(privileges.check(made(tmp_path, files)))
    assert only(found, "yama").status == "note" and only(found, "lockdown").seen == "integrity"


def test_a_server_that_hangs_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def subordinate_ids(owner: bytes, groups: bool) -> bytes:
        asked.append(owner)
        raise TimeoutError(errno.ETIMEDOUT, "subids")

    monkeypatch.setattr(probe, "subordinate_ids", subordinate_ids)
    machine = Machine()
    assert machine.subordinate_ids("joe", False) is machine.subordinate_ids("joe", True) is None
    assert asked == [b"joe"]
