"""Reasons and fallbacks of pyrunc.doctor that neither a healthy nor a broken host shows
completely."""

from __future__ import annotations

import errno
import os
from errno import EACCES, EINVAL, ENOENT, ENOSPC, ENOSYS, EPERM
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from doctor_support import STATUS, flat, made, only, program_at
from pyrunc import interpreter
from pyrunc.doctor import bundle, cgroups, engines, kernel, limits, machine, privileges, users
from pyrunc.doctor.findings import Area
from pyrunc.doctor.machine import Machine, system_error
from pyrunc.errors import PyruncError
from pyrunc.launch import create
from pyrunc.spec.names import CLONE_FLAGS

USER, MOUNT = CLONE_FLAGS["user"], CLONE_FLAGS["mount"]


@pytest.mark.parametrize(
    ("number", "version", "seccomp", "words"),
    [
        (ENOSPC, (6, 12), 0, "; a limit in /proc/sys/user is reached"),
        (EPERM, (6, 12), 0, "; the caller lacks the privileges for it"),
        (EPERM, (6, 12), 2, f"; {kernel._SECCOMP}"),
        (ENOSYS, (5, 0), 2, "; it needs Linux 5.12"),
        (ENOSYS, (5, 12), 0, "; this kernel was built or booted without it"),
        (ENOSYS, (5, 12), 2, f"; {kernel._SECCOMP}"),
        (EINVAL, (6, 12), 2, "; this kernel was built or booted without it"),
        (EINVAL, (4, 18), 0, "; it needs Linux 5.12"),
        (EACCES, (4, 18), 2, ""),
        (ENOENT, (6, 12), 0, ""),
    ],
)
def test_why_a_probe_failed(tmp_path: Path, number: int, version: tuple[int, int], seccomp: int, words: str) -> None:
    host = made(tmp_path, {"/proc/self/status": STATUS.format(caps=0, nnp=0, seccomp=seccomp)})
    host.facts.kernel = version
    found = kernel.why(host, -number, "5.12")
    assert found == (words if number in (*kernel.ABSENT, EPERM, ENOSPC) else "")


@pytest.mark.parametrize(
    ("first", "flags", "second", "result", "asked"),
    [
        (0, 0, 0, (0, False), 1), (7, 0, 0, (7, False), 1), (-EPERM, 0, 0, (0, True), 2),
        (-EPERM, 0, -EINVAL, (-EPERM, False), 2), (-EINVAL, 0, 0, (-EINVAL, False), 1),
        (-EPERM, USER, 0, (-EPERM, False), 1), (-EINVAL, USER, 0, (-EINVAL, False), 1),
        (-EPERM, MOUNT, 3, (3, True), 2),
    ],
)  # fmt: skip
def test_probes_in_a_user_namespace(
    tmp_path: Path, first: int, flags: int, second: int, result: tuple[int, bool], asked: int
) -> None:
    seen: list[tuple[str, int]] = []

    def probe(what: str, given: int) -> int:
        seen.append((what, given))
        return first if len(seen) == 1 else second

    host = made(tmp_path, probe=probe)
    assert host.works("X", flags) == result
    assert seen == [("X", flags), ("X", flags | USER | MOUNT)][:asked]


def test_a_machine_as_it_is() -> None:
    one = Machine(probe=lambda what, flags: 0)
    assert (one.prefix, one.root_option, one.manager) == ("", "", "cgroupfs")
    assert (one.euid, one.egid, one.uid) == (os.geteuid(), os.getegid(), os.getuid()) and one.env is os.environ
    assert system_error(-EPERM) == "EPERM"


def test_probes_of_user_namespaces(tmp_path: Path) -> None:
    asked: list[int] = []

    def probe(what: str, flags: int) -> int:
        asked.append(flags)
        return 0

    host = made(tmp_path, probe=probe)
    host.become(1000)
    area = Area("users")
    users.user_namespace(host, area)
    assert asked == [USER, USER | MOUNT]
    asked.clear()
    users.user_namespace(made(tmp_path, probe=probe), area)
    assert asked == [USER]


@pytest.mark.parametrize("value", [b"caps", b"", None])
def test_file_capabilities(monkeypatch: pytest.MonkeyPatch, value: bytes | None) -> None:
    def getxattr(path: str, name: str) -> bytes:
        if path != "/x" or name != "security.capability" or value is None:
            raise OSError(errno.ENODATA, "")
        return value

    monkeypatch.setattr(os, "getxattr", getxattr)
    assert users.has_capabilities("/x") is bool(value)


@pytest.mark.parametrize(("value", "label"), [(b"a:b:c_t:s0\0", "a:b:c_t:s0"), (b"\xff\0", "\ufffd"), (None, "")])
def test_labels_of_files(monkeypatch: pytest.MonkeyPatch, value: bytes | None, label: str) -> None:
    def getxattr(path: str, name: str) -> bytes:
        if name != "security.selinux" or value is None:
            raise OSError(errno.ENODATA, "")
        return value

    monkeypatch.setattr(os, "getxattr", getxattr)
    assert privileges.file_label("/x") == label


@pytest.mark.parametrize("kind", ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"])
def test_namespaces_that_are_forbidden(tmp_path: Path, kind: str) -> None:
    found = flat(limits.check(made(tmp_path, {f"/proc/sys/user/max_{kind}_namespaces": "0\n"})))
    one = only(found, "namespaces")
    assert (one.status, one.seen) == ("problem", f"user.max_{kind}_namespaces is 0")
    assert one.mend == f"sysctl -w user.max_{kind}_namespaces=10000"


@pytest.mark.parametrize(
    ("profile", "apparmor", "loaded", "status"),
    [
        ("mine", True, "mine (enforce)\nother (complain)\n", "ok"), ("mine", True, "other (enforce)\n", "problem"),
        ("mine", True, "", None), ("mine", False, "other (enforce)\n", None), ("", True, "other (enforce)\n", None),
        ("unconfined", True, "other (enforce)\n", None),
    ],
)  # fmt: skip
def test_profiles_of_apparmor(tmp_path: Path, profile: str, apparmor: bool, loaded: str, status: str | None) -> None:
    host = made(tmp_path, {"/sys/kernel/security/apparmor/profiles": loaded})
    host.facts.apparmor = apparmor
    area, wanted = Area("bundle"), type("Wanted", (), {"process": {"apparmorProfile": profile}})
    given: Any = wanted
    bundle.labels(host, area, given)
    assert [one.status for one in area.done()] == ([status] if status else [])


@pytest.mark.parametrize(
    ("first", "size", "ranges", "good"),
    [
        (100, 10, [(100, 10)], True), (100, 11, [(100, 10)], False), (99, 5, [(100, 10)], False),
        (109, 1, [(100, 10)], True),
        (110, 1, [(100, 10)], False), (5, 1, [(100, 10), (5, 1)], True), (5, 1, [], False),
    ],
)  # fmt: skip
def test_ids_within_ranges(first: int, size: int, ranges: list[tuple[int, int]], good: bool) -> None:
    assert bundle.covered(first, size, ranges) is good


def test_controllers_of_the_first_version(tmp_path: Path) -> None:
    text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t1\t1\nmemory\t0\t1\t1\nblkio\t5\t1\t1\n\nodd\n"
    assert cgroups.bound_to_v1(made(tmp_path, {"/proc/cgroups": text})) == {"cpu", "io"}


@pytest.mark.parametrize("frozen", [True, False])
def test_the_program_in_suggestions(monkeypatch: pytest.MonkeyPatch, frozen: bool) -> None:
    monkeypatch.setattr(interpreter, "FROZEN", frozen)
    monkeypatch.setattr(os, "readlink", lambda path: "/a/pyrunc" if path == "/proc/self/exe" else "")
    assert machine.own_program() == ("/a/pyrunc" if frozen else "/usr/local/bin/pyrunc")

    def fails(path: str) -> str:
        raise OSError(errno.EACCES, "")

    monkeypatch.setattr(os, "readlink", fails)
    assert machine.own_program() == "/usr/local/bin/pyrunc"


def test_a_bundle_that_cannot_be_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(opts: object) -> Any:
        raise PyruncError("no plan")

    monkeypatch.setattr(create, "compile_only", fails)
    opts: Any = type("Options", (), {"bundle": str(tmp_path)})
    (area,) = bundle.check(made(tmp_path), opts)
    (found,) = area.done()
    assert (found.area, found.check, found.status, found.seen) == ("bundle", "config", "problem", "no plan")
    assert found.means == "create fails"


@pytest.mark.parametrize(
    ("path", "status"), [("", "problem"), ("none", "problem"), ("/usr/local/bin/none", "problem"), ("other", "note"),
                         ("/usr/local/bin/pyrunc", "ok"), ("pyrunc", "ok")],
)  # fmt: skip
def test_programs_of_engines(tmp_path: Path, path: str, status: str) -> None:
    host = made(tmp_path)
    program_at(tmp_path, "/usr/local/bin/pyrunc", "/usr/local/bin/other")
    host.env = {"PATH": "/usr/local/bin"}
    area = Area("engines")
    assert engines.program(host, area, "docker", "/etc/d", path) is (status != "problem")
    (found,) = area.done()
    assert (found.check, found.status) == ("docker", status) and found.seen.startswith("/etc/d: ")
