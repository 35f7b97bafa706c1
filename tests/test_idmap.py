"""Id mappings on the host's side, without a user namespace: the files that are written, and the
helpers that are called."""

from __future__ import annotations

import errno
import os
import posix
from pathlib import Path
from typing import Any

import pytest

import transcript
from json_type import Json
from pyrunc import errors, fs, hooks, host, idmap, log, state
from pyrunc.cgroup import delegate
from pyrunc.host import HostFacts
from pyrunc.launch import rootless
from pyrunc.native import mounts
from pyrunc.spec import mappings
from pyrunc.spec.types import IdMapping, Linux

kept = transcript.follow(leave=("test_namespace_for_a_mapping",))

SELF: list[IdMapping] = [{"containerID": 0, "hostID": 1000, "size": 1}]
MANY: list[IdMapping] = [*SELF, {"containerID": 1, "hostID": 100000, "size": 65535}]
LINUX: Linux = {"uidMappings": MANY, "gidMappings": SELF}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    made: list[tuple[str, ...]] = []
    monkeypatch.setattr(idmap, "_write", lambda pid, file, text, pointer: made.append((file, text, pointer)))
    monkeypatch.setattr(idmap, "_call_helper", lambda name, pid, wanted, pointer: made.append((name, pointer)))
    monkeypatch.setattr(posix, "geteuid", lambda: 1000)
    monkeypatch.setattr(posix, "getegid", lambda: 1000)
    return made


def facts(euid: int) -> HostFacts:
    made = HostFacts()
    made.euid = euid
    return made


def test_root_writes_all(calls: list[tuple[str, ...]]) -> None:
    idmap.write_maps(7, LINUX, facts(0))
    assert calls == [
        ("gid_map", "0 1000 1\n", "/linux/gidMappings"),
        ("uid_map", "0 1000 1\n1 100000 65535\n", "/linux/uidMappings"),
    ]


def test_a_user_writes_the_own_id_and_denies_setgroups(calls: list[tuple[str, ...]]) -> None:
    """T18 (CVE-2014-8989). Larger mappings are written by the helper."""
    idmap.write_maps(7, LINUX, facts(1000))
    assert calls == [
        ("setgroups", "deny", "/linux/gidMappings"),
        ("gid_map", "0 1000 1\n", "/linux/gidMappings"),
        ("newuidmap", "/linux/uidMappings"),
    ]


def test_a_foreign_id_needs_the_helper(calls: list[tuple[str, ...]]) -> None:
    other: list[IdMapping] = [{"containerID": 0, "hostID": 0, "size": 1}]
    idmap.write_maps(7, {"uidMappings": other, "gidMappings": other}, facts(1000))
    assert [call[0] for call in calls] == ["newgidmap", "newuidmap"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EINVAL, "this filesystem does not support idmapped mounts"),
        (errno.EPERM, "needs CAP_SYS_ADMIN in the user namespace that mounted the filesystem"),
        (errno.ENOSYS, "idmapped mounts need Linux 5.12"),
        (errno.EIO, "mount_setattr"),
    ],
)
def test_why_a_mount_was_not_idmapped(number: int, words: str) -> None:
    error = idmap._refused("/mounts/0", "/proc", number, {"destination": "/data"})
    assert words in str(error) and error.errno == number
    assert str(error).startswith('/mounts/0 "/proc" (/data, filesystem proc): mount_setattr: ')


@pytest.mark.parametrize("place", ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"])
def test_where_a_helper_may_be(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """The helper is never looked up in the caller's PATH."""
    ran: list[str] = []
    monkeypatch.setattr(fs, "exists", lambda path: path == f"{place}/newuidmap")
    monkeypatch.setattr(hooks, "run_program", lambda pointer, hook: ran.append(hook["path"]))
    idmap._call_helper("newuidmap", 1, MANY, "/linux/uidMappings")
    assert ran == [f"{place}/newuidmap"]


def test_the_helper_is_called_by_its_path_with_a_fixed_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """T36."""
    (tmp_path / "bin").mkdir()
    helper = tmp_path / "bin/newuidmap"
    helper.write_text(
        f'#!/bin/sh\necho "$0 $*" > {tmp_path}/said; env >> {tmp_path}/said\nexit $(cat {tmp_path}/code)\n'
    )
    helper.chmod(0o755)
    monkeypatch.setattr(idmap, "HELPER_DIRS", (str(tmp_path / "none"), str(tmp_path / "bin")))
    monkeypatch.setenv("LD_PRELOAD", "")
    (tmp_path / "code").write_text("0")
    idmap._call_helper("newuidmap", 4711, MANY, "/linux/uidMappings")
    said = (tmp_path / "said").read_text().splitlines()
    assert said[0] == f"{helper} 4711 0 1000 1 1 100000 65535"
    assert {line.split("=")[0] for line in said[1:]} <= {"PATH", "PWD", "SHLVL", "_", "OLDPWD"}
    (tmp_path / "code").write_text("3")
    with pytest.raises(errors.PyruncError, match=r"/linux/uidMappings .*exit status 3.*/etc/subuid must have a line"):
        idmap._call_helper("newuidmap", 4711, MANY, "/linux/uidMappings")
    with pytest.raises(errors.PyruncError, match=r"newgidmap, which is not in .*package uidmap"):
        idmap._call_helper("newgidmap", 4711, MANY, "/linux/gidMappings")


def test_a_map_that_the_kernel_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.SysError) as caught:
        idmap._write(os.getpid(), "uid_map", mappings.text(MANY), "/linux/uidMappings")  # our map is already written
    assert str(caught.value).startswith('/linux/uidMappings "0 1000 1, 1 100000 65535" (uid_map): write: E')


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (MANY, list(reversed(MANY)), True),
        (SELF, MANY, False),
        ([{"containerID": 0, "hostID": 5, "size": 10}],
         [{"containerID": 4, "hostID": 9, "size": 6}, {"containerID": 0, "hostID": 5, "size": 4}], True),
        ([{"containerID": 0, "hostID": 5, "size": 10}], [{"containerID": 0, "hostID": 6, "size": 10}], False),
        ([{"containerID": 0, "hostID": 5, "size": 1}, {"containerID": 1, "hostID": 7, "size": 1}],
         [{"containerID": 0, "hostID": 5, "size": 2}], False),
    ],
)  # fmt: skip
def test_equal_mappings(left: Any, right: Any, same: bool) -> None:
    assert (mappings.merged(left) == mappings.merged(right)) == same
    assert mappings.merged(mappings.parse(mappings.text(left))) == mappings.merged(left)


@pytest.mark.parametrize(("inside", "outside"), [(0, 1000), (1, 100000), (65535, 165534), (65536, -1), (-1, -1)])
def test_map_id(inside: int, outside: int) -> None:
    assert mappings.map_id(MANY, inside) == outside


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_namespace_for_a_mapping() -> None:
    before = set(Path("/proc/self/task").iterdir())
    fd = idmap._namespace({"uidMappings": MANY, "gidMappings": SELF}, "/mounts/0")
    try:
        assert os.readlink(f"/proc/self/fd/{fd}") != os.readlink("/proc/self/ns/user")
    finally:
        os.close(fd)
    assert set(Path("/proc/self/task").iterdir()) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    bad: list[IdMapping] = [{"containerID": 0, "hostID": 1, "size": 0}]
    with pytest.raises(errors.SysError, match=r"/mounts/0/gidMappings .*: write: EINVAL"):
        idmap._namespace({"uidMappings": MANY, "gidMappings": bad}, "/mounts/0")


def test_tree_of_a_missing_path() -> None:
    with pytest.raises(FileNotFoundError, match="open_tree"):
        mounts.open_tree(b"/no/such/path", False)
    with pytest.raises(OSError, match="mount_setattr"):
        mounts.map_ids(-1, False, -1)
    with pytest.raises(OSError, match="mount_setattr"):
        mounts.set_propagation(-1, 1 << 19)


# --- rootless -------------------------------------------------------------------------------------


def test_who_is_rootless(monkeypatch: pytest.MonkeyPatch) -> None:
    for euid, initial, expected in ((0, True, False), (0, False, True), (1000, True, True), (1000, False, True)):
        monkeypatch.setattr(host, "initial_userns", lambda prefix, initial=initial: initial)
        assert facts(euid).rootless == expected
    said = facts(0)
    said.rootless = True
    assert said.rootless


def test_the_initial_user_namespace_is_known_by_its_inode(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """systemd (PrivateUsers=full) maps all ids in others as well."""
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    (tmp_path / "proc/self/uid_map").write_text("0 0 4294967295\n")
    prefix, file = str(tmp_path), tmp_path / "proc/self/ns/user"
    assert host.initial_userns(prefix), "a kernel without user namespaces"
    file.touch()
    assert not host.initial_userns(prefix)
    monkeypatch.setattr(host, "INITIAL_USERNS", file.stat().st_ino)
    assert host.initial_userns(prefix)

    def no_memory(path: str) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(posix, "stat", no_memory)
    with pytest.raises(OSError, match="allocate"):
        host.initial_userns(prefix)


@pytest.mark.parametrize(
    ("linux", "said"),
    [
        ({"namespaces": [{"type": "pid"}]}, "level=info"),  # not on the stderr of every `run`
        ({"namespaces": [{"type": "pid"}]}, "without a cgroup of its own"),
        ({"namespaces": []}, "level=warning"),
        ({"namespaces": []}, "without a pid namespace"),
        ({"resources": {"pids": {"limit": -1}}, "namespaces": []}, "without a pid namespace"),
        (
            {"resources": {"devices": [{"allow": False}]}, "namespaces": [{"type": "pid"}]},
            "without a cgroup of its own",
        ),
        ({"cgroupsPath": "/x"}, "or remove /linux/cgroupsPath"),
        ({"resources": {"pids": {"limit": 1}}}, "or remove /linux/resources/pids"),
    ],
)
def test_without_a_cgroup(tmp_path: Path, linux: Linux, said: str) -> None:
    file = tmp_path / "log"
    error = errors.SysError("/linux/cgroupsPath", "mkdir", 13, value="/c1")
    config: Json = {"linux": linux}
    try:
        rootless.check_no_cgroup(config, error, log.Log(str(file), "text", False))
        text = file.read_text()
    except errors.PyruncError as refused:
        text = str(refused)
        assert "Delegate=yes" in text
    assert said in text and "EACCES" in text


def test_root_of_a_user_namespace_keeps_state_where_users_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "geteuid", lambda: 0)
    monkeypatch.setattr(host, "initial_userns", lambda: False)
    values = {"XDG_RUNTIME_DIR": "/run/user/7", "USER": ""}
    monkeypatch.setattr(fs, "getenv", lambda name: values.get(name, ""))
    assert state.root_dir("") == "/run/user/7/pyrunc"
    values["USER"] = "root"
    assert state.root_dir("") == "/run/pyrunc"
    values |= {"USER": "", "XDG_RUNTIME_DIR": ""}
    assert state.root_dir("") == "/run/pyrunc"
    monkeypatch.setattr(host, "initial_userns", lambda: True)
    values["XDG_RUNTIME_DIR"] = "/run/user/0"
    assert state.root_dir("") == "/run/pyrunc"


def test_delegation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[str] = []
    present = {"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "memory.oom.group"}

    def chown(path: str, uid: int, gid: int) -> None:
        assert (uid, gid) == (100000, -1)
        name = path.removeprefix("/cg").lstrip("/")
        if name not in present:
            raise FileNotFoundError(2, "no such file", path)
        given.append(name)

    monkeypatch.setattr(posix, "chown", chown)
    monkeypatch.setattr(delegate, "DELEGATE", str(tmp_path / "delegate"))
    delegate.give("/cg", 100000)  # an older kernel without the list
    assert given == ["", *delegate.FALLBACK]
    given.clear()
    (tmp_path / "delegate").write_text("cgroup.procs\nmemory.oom.group\nmemory.new\n../escape\n")
    delegate.give("/cg", 100000)
    assert given == ["", "cgroup.procs", "memory.oom.group"]
    present.clear()
    with pytest.raises(errors.SysError, match="/linux/cgroupsPath"):
        delegate.give("/cg", 100000)
