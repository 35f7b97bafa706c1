"""Why a program could not be executed: bounds, and cases that no container of the integration tests
has."""

from __future__ import annotations

import errno
import os
import struct
import time
from pathlib import Path
from typing import Any

import pytest

import transcript
import work
from json_type import Json
from pyrunc import explain
from pyrunc.spec.types import Process

kept = transcript.follow("pyrunc.explain")

PROCESS: Process = {
    "user": {"uid": 1000, "gid": 100, "additionalGids": [7]},
    "cwd": "/work",
    "env": ["PATH=/a:/b", "PATH=/c:/d"],
}


def setting(root: Path, **config: Any) -> explain.Setting:
    document: Json = config
    return explain.Setting(document, PROCESS, str(root))


def test_one_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may have mounted its own filesystem whose server does not answer."""
    monkeypatch.setattr(explain, "program", lambda *args: time.sleep(60))
    monkeypatch.setattr(explain, "_PATIENCE_MS", 1000)  # also for its end, which takes long on a busy machine
    begun, children = time.monotonic(), work.children()
    assert explain.bounded(setting(tmp_path), "/x", errno.ENOENT) == ""
    assert time.monotonic() - begun < 30
    assert work.children() == children


def test_one_that_fails_says_nothing(tmp_path: Path) -> None:
    assert explain.bounded(setting(tmp_path / "gone"), "/x", errno.ENOENT) == ""


def test_long_answers_arrive(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"#!/" + b"i" * 3000 + b"\n")
    found = explain.bounded(setting(tmp_path), "/x", errno.ENOENT)
    assert found.startswith('the interpreter "/iii') and found.endswith("does not exist in the root filesystem")


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("prog", errno.ENOENT, 'looked for in "/c:/d"'),
        ("sub/prog", errno.ENOENT, '"/work" does not exist in the root filesystem'),
        ("/empty", errno.ENOEXEC, "the file is empty"),
        ("/fifo", errno.EACCES, "it is not a regular file"),
        ("/fifo", errno.ENOEXEC, ""),
        ("/none", errno.ENOEXEC, "its #! line names no interpreter"),
        ("/group", errno.EACCES, "its mode permits it: an ACL or a security module (AppArmor, SELinux) may not"),
        ("/others", errno.EACCES, "its mode is 0701 and it belongs to 0:7: 1000:100 may not execute it"),
        ("/loop", errno.EACCES, ""),
        ("/short", errno.ENOEXEC, "it is an ELF file without its header"),
        ("/up", errno.EACCES, "its mode is 0644: `chmod +x` makes it executable"),
    ],
)
@pytest.mark.root
def test_program(tmp_path: Path, name: str, error: int, text: str) -> None:
    for file, content, mode, group in (
        ("empty", b"", 0o755, 0),
        ("none", b"#!  \n", 0o755, 0),
        ("group", b"#!/x\n", 0o710, 7),
        ("others", b"#!/x\n", 0o701, 7),
        ("short", b"\x7fELF", 0o755, 0),
        ("outside", b"x", 0o644, 0),
    ):
        (tmp_path / file).write_bytes(content)
        (tmp_path / file).chmod(mode)
        os.chown(tmp_path / file, 0, group)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "up").symlink_to("../../outside")
    tmp_path.chmod(0o755)
    assert explain.program(setting(tmp_path), name, error) == text


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_loader(tmp_path: Path, wide: bool, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PT_INTERP of each class and byte order, after a segment of another type."""
    monkeypatch.setattr(explain, "NATIVE", {})
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    loader = b"/lib/ld.so\0"
    if wide:
        head = struct.pack(order + "HHIQQQIHHHHHH", 3, 1, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
        segments = [struct.pack(order + "IIQQQQQQ", kind, 4, 300, 0, 0, len(loader), 0, 1) for kind in (6, 3)]
    else:
        head = struct.pack(order + "HHIIIIIHHHHHH", 3, 1, 1, 0, 52, 0, 0, 52, 32, 2, 0, 0, 0)
        segments = [struct.pack(order + "IIIIIIII", kind, 300, 0, 0, len(loader), 0, 4, 1) for kind in (6, 3)]
    (tmp_path / "prog").write_bytes((ident + head + b"".join(segments)).ljust(300, b"\0") + loader)
    asked = explain.program(setting(tmp_path), "/prog", errno.ENOENT)
    assert asked == 'its ELF loader "/lib/ld.so" does not exist in the root filesystem'
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/ld.so").write_text("")
    assert explain.program(setting(tmp_path), "/prog", errno.ENOENT) == ""


def test_ids_are_those_of_the_host(tmp_path: Path) -> None:
    """A directory of the host's uid 1000 does not belong to the container's uid 1000."""
    (tmp_path / "own").mkdir(0o700)
    (tmp_path / "own/x").write_text("")
    os.chown(tmp_path / "own", 101_000, 0)
    tmp_path.chmod(0o755)
    mapped = setting(tmp_path, linux={"uidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65536}]})
    assert "may not search it" in explain.program(setting(tmp_path), "/own/x", errno.EACCES)
    assert "chmod +x" in explain.program(mapped, "/own/x", errno.EACCES)


MAPPED = {
    "uidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65536}],
    "gidMappings": [{"containerID": 0, "hostID": 200_000, "size": 65536}],
}


@pytest.mark.parametrize(("gid", "linux", "denied"), [(7, {}, False), (200_007, MAPPED, False), (7, MAPPED, True)])
def test_additional_gids_are_mapped(tmp_path: Path, gid: int, linux: dict[str, object], denied: bool) -> None:
    """additionalGids are ids of the container: its group 7 is another group on the host."""
    (tmp_path / "own").mkdir(0o710)
    (tmp_path / "own/x").write_text("")
    os.chown(tmp_path / "own", 0, gid)
    tmp_path.chmod(0o755)
    found = explain.program(setting(tmp_path, linux=linux), "/own/x", errno.EACCES)
    assert ("may not search it" in found) == denied


@pytest.mark.parametrize(
    ("owner", "linux", "denied"), [(0, {}, False), (0, MAPPED, True), (100_000, MAPPED, True), (-1, MAPPED, False)]
)
def test_capabilities_apply_to_mapped_owners(
    tmp_path: Path, owner: int, linux: dict[str, object], denied: bool
) -> None:
    """CAP_DAC_OVERRIDE in a user namespace needs both ids of a file there; -1: both are mapped."""
    (tmp_path / "own").mkdir(0o700)
    (tmp_path / "own/x").write_text("")
    os.chown(tmp_path / "own", *((100_000, 200_000) if owner < 0 else (owner, 0)))
    tmp_path.chmod(0o755)
    process: Any = {**PROCESS, "capabilities": {"effective": ["CAP_DAC_OVERRIDE"]}}
    config: Any = {"linux": linux}
    found = explain.program(explain.Setting(config, process, str(tmp_path)), "/own/x", errno.EACCES)
    assert ("may not search it" in found) == denied


REFUSES = {"names": ["execve"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}
DEFAULT = "/linux/seccomp/defaultAction fails execve with this error"


@pytest.mark.parametrize(
    ("profile", "error", "text"),
    [
        ({}, errno.EPERM, ""),
        ({"defaultAction": "SCMP_ACT_ERRNO"}, errno.EPERM, DEFAULT),
        ({"defaultAction": "SCMP_ACT_ERRNO"}, errno.ENOSYS, ""),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno.ENOSYS}, errno.ENOSYS, DEFAULT),
        (
            {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ALLOW"}]},
            errno.EPERM,
            "",
        ),
        (
            {"syscalls": [{"names": ["a"]}, REFUSES]},
            errno.ENOSYS,
            "/linux/seccomp/syscalls/1 fails execve with this error",
        ),
        ({"syscalls": [{"names": ["a"]}, REFUSES]}, errno.EPERM, ""),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{**REFUSES, "args": [{"index": 0}]}]}, errno.EPERM, DEFAULT),
    ],
)
def test_seccomp(tmp_path: Path, profile: dict[str, object], error: int, text: str) -> None:
    assert explain.program(setting(tmp_path, linux={"seccomp": profile}), "/x", error) == text


def test_killed_by_seccomp() -> None:
    kill = {"names": ["execve"], "action": "SCMP_ACT_KILL_PROCESS"}
    linux: Json = {"seccomp": {"syscalls": [kill]}}
    assert explain.killed(linux) == "/linux/seccomp/syscalls/0 kills execve"
    linux = {"seccomp": {"syscalls": []}}
    assert explain.killed(linux).startswith("/linux/seccomp kills a system call")
    assert explain.killed({}) == ""
