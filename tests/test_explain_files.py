"""pyrunc.explain: paths, rights and ELF headers, each one step from another explanation."""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyrunc import explain
from pyrunc.plan.environment import DEFAULT_PATH


def setting(root: Path, process: Any = None, **config: Any) -> explain.Setting:
    document: Any = config
    given: Any = process or {}
    return explain.Setting(document, given, str(root))


def test_what_a_setting_leaves_out(tmp_path: Path) -> None:
    one = setting(tmp_path)
    assert (one.ids(), one.additional_gids(), one.linux, one.mounts) == ((0, 0), [], {}, [])
    maps = [{"containerID": 5, "hostID": 1000, "size": 3}]
    process = {"user": {"uid": 6, "gid": 7, "additionalGids": [5, 6]}}
    assert setting(tmp_path, process, linux={"uidMappings": maps}).ids() == (1001, 7)
    assert setting(tmp_path, process, linux={"gidMappings": maps}).ids() == (6, 1002)
    assert setting(tmp_path, process, linux={"gidMappings": maps}).additional_gids() == [1000, 1001]
    both = setting(tmp_path, linux={"uidMappings": maps, "gidMappings": maps})
    owners = {(1000, 1002): True, (999, 1000): False, (1000, 1003): False, (1002, 1000): True}
    for (uid, gid), owned in owners.items():
        assert both.owns(SimpleNamespace(st_uid=uid, st_gid=gid)) is owned  # type: ignore[arg-type]


def test_candidates() -> None:
    def of(name: str, **process: Any) -> list[str]:
        given: Any = process
        return explain.candidates(given, name)

    assert of("a/b", cwd="/w") == ["/w/a/b"] and of("/a") == ["/a"] and of("./a") == ["/./a"]
    assert of("a", cwd="/w", env=["X=1", "PATH=/b:c::", "XPATH=/d"]) == ["/b/a", "/w/c/a", "/w/a", "/w/a"]
    assert of("a") == [f"{place}/a" for place in DEFAULT_PATH.split(":")]
    assert len(of("a", env=["PATH=" + ":".join("/x" for _ in range(70))])) == 64


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "root"
    (top / "a/b").mkdir(parents=True)
    (top / "a/b/f").write_bytes(b"0123456789")
    for name, target in (("up", "../../a"), ("abs", "/a/b"), ("rel", "a/./b"), ("dots", "a/../a/b"), ("loop", "loop"),
                         ("gone", "none")):  # fmt: skip
        (top / name).symlink_to(target)
    for number in range(41):
        (top / f"l{number}").symlink_to(f"l{number + 1}" if number < 40 else "a")
    return top


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/a/b/f", "/a/b/f"),
        ("a//b/./f", "/a/b/f"),
        ("/", "/"),
        ("/..", "/"),
        ("/a/../a/b", "/a/b"),
        ("/up/b", "/a/b"),
        ("/abs/f", "/a/b/f"),
        ("/rel/f", "/a/b/f"),
        ("/dots/f", "/a/b/f"),
        ("/a/b/../../abs", "/a/b"),
        ("/l1", "/a"),
        ("/l0", ""),
        ("/loop", ""),
        ("/gone", ""),
        ("/none", ""),
        ("/a/b/f/x", ""),
        ("/../../etc/passwd", ""),
    ],
)
def test_paths_in_a_root_filesystem(root: Path, path: str, found: str) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with explain.Tree(setting(root)) as tree:
        tree.find("/a")
        assert tree.find(path) is bool(found)
        assert (tree.path == found and tree.fd >= 0) if found else tree.fd == -1
        if found == "/a/b/f":
            assert (tree.read(0, 3), tree.read(2, 3), tree.read(9, 5), tree.read(10, 5)) == (b"012", b"234", b"9", b"")
        elif found:
            assert tree.read(0, 3) == b""
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_the_first_directory_that_denies(root: Path) -> None:
    (root / "a").chmod(0o770)
    (root / "a/b").chmod(0o700)
    root.chmod(0o755)
    with explain.Tree(setting(root, {"user": {"uid": 77, "gid": 78}})) as tree:
        owner = f"{os.geteuid()}:{os.getegid()}"
        assert tree.find("/a/b/f")
        assert tree.denied == f'"/a" has mode 0770 and belongs to {owner}: 77:78 may not search it'
        assert tree.find("/a") and tree.denied == ""
        root.chmod(0o2700)
        assert tree.find("/a")
        assert tree.denied == f'"/" has mode 2700 and belongs to {owner}: 77:78 may not search it'


@pytest.mark.parametrize("overrides", [False, True])
@pytest.mark.parametrize("bit", [1, 4])
def test_rights(root: Path, overrides: bool, bit: int) -> None:
    capabilities = {"effective": ["CAP_DAC_OVERRIDE"]} if overrides else {"permitted": ["CAP_DAC_OVERRIDE"]}
    process = {"user": {"uid": 7, "gid": 8, "additionalGids": [9]}, "capabilities": capabilities}
    with explain.Tree(setting(root, process)) as tree:
        for uid, gid, shift in ((7, 8, 6), (7, 1, 6), (1, 8, 3), (1, 9, 3), (1, 1, 0)):
            for mode in (0o777, 0, bit << shift, 0o777 & ~(bit << shift)):
                found: Any = SimpleNamespace(st_mode=stat.S_IFREG | mode, st_uid=uid, st_gid=gid)
                assert tree.may(found, bit) is (overrides or bool(mode & bit << shift))


@pytest.mark.parametrize(
    ("name", "process", "words"),
    [
        ("x", {}, f'looked for in "{DEFAULT_PATH}"'), ("x", {"env": ["PATH=/q"]}, 'looked for in "/q"'),
        ("/a/n/m/x", {}, '"/a/n" does not exist in the root filesystem'),
        ("n/x", {"cwd": "/a"}, '"/a/n" does not exist in the root filesystem'), ("/a/b/none-of-it", {}, ""),
        ("/etc/passwd", {}, '"/etc" does not exist in the root filesystem'),
        ("/a/passwd", {}, ""),
    ],
)  # fmt: skip
def test_programs_that_are_missing(root: Path, name: str, process: Any, words: str) -> None:
    assert explain.program(setting(root, process), name, errno.ENOENT) == words


def test_programs_that_only_the_host_has(root: Path) -> None:
    (root / "etc").mkdir()
    found = explain.program(setting(root), "/etc/passwd", errno.ENOENT)
    assert found == "it exists on the host, and not in the root filesystem"
    assert explain.program(setting(root), "/etc/passwd", errno.EIO) == ""


@pytest.mark.parametrize(
    ("mounts", "path", "words"),
    [
        ([("/a", ["noexec"])], "/a/b/x", "/mounts/0 has the option noexec"),
        ([("/a", [])], "/a/b/x", ""),
        ([("/a/", ["ro", "noexec"])], "/a", "/mounts/0 has the option noexec"),
        ([("/a", ["noexec"])], "/ab", ""),
        ([("/a", ["noexec"]), ("/a/b", [])], "/a/b/x", ""),
        ([("/a/b", []), ("/a", ["noexec"])], "/a/b/x", "/mounts/1 has"),
        ([("/", ["noexec"])], "/x", "/mounts/0 has the option noexec"),
        ([], "/x", ""),
    ],
)
def test_mounts_with_noexec(root: Path, mounts: Any, path: str, words: str) -> None:
    entries: Any = [{"destination": place, "options": options} for place, options in mounts]
    assert explain._noexec(entries, path).startswith(words) and bool(explain._noexec(entries, path)) is bool(words)
    plain: Any = [{"destination": "/x"}]
    assert explain._noexec(plain, "/x") == ""
    assert explain.program(setting(root, mounts=entries), "/none/x", errno.EACCES) == explain._noexec(
        entries, "/none/x"
    )


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "the file is empty"), (b"x", "it is neither an ELF file nor a script that starts with #!"),
        (b"#!", "its #! line names no interpreter"), (b"#! \n/a", "its #! line names no interpreter"),
        (b"#!/a/b/f\n", ""), (b"#! /a/b/f -x\n", ""), (b"#!/a/b/f", ""),
        (b"#!/none y\n", 'the interpreter "/none" of its #! line does not exist in the root filesystem'),
        (b"#!/a/b/f\r\n", "its #! line ends with a carriage return: the file has the line ends of DOS"),
        (b"#!/a/b/f\nx\r\n", ""), (b"\x7fELF" + bytes(47), "it is an ELF file without its header"),
        (b"\x7fEL", "it is neither an ELF file nor a script that starts with #!"),
    ],
)  # fmt: skip
def test_formats(root: Path, head: bytes, words: str) -> None:
    (root / "x").write_bytes(head)
    assert explain.program(setting(root), "/x", errno.ENOEXEC) == words


def elf(machine: int, *, wide: bool, big: bool, kinds: tuple[int, ...], at: int, name: bytes, entry: int = 0) -> bytes:
    """An ELF file with one program header of each kind, and a name at an offset."""
    order = ">" if big else "<"
    ident = b"\x7fELF" + bytes([2 if wide else 1, 2 if big else 1, 1]) + bytes(9)
    size = entry or (56 if wide else 32)
    if wide:
        head = struct.pack(order + "HHIQQQIHHHHHH", 3, machine, 1, 9, 64, 9, 9, 64, size, len(kinds), 9, 9, 9)
        rows = [struct.pack(order + "IIQQQQQQ", kind, 9, at, 9, 9, len(name), 9, 9) for kind in kinds]
    else:
        head = struct.pack(order + "HHIIIIIHHHHHH", 3, machine, 1, 9, 52, 9, 9, 52, size, len(kinds), 9, 9, 9)
        rows = [struct.pack(order + "IIIIIIII", kind, at, 9, 9, len(name), 9, 9, 9) for kind in kinds]
    body = ident + head + b"".join(row.ljust(size, b"\0") for row in rows)
    return body.ljust(at, b"\0") + name


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("big", [False, True])
def test_loaders(root: Path, wide: bool, big: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "NATIVE", {})

    def of(name: bytes, *kinds: int, at: int = 1000, entry: int = 0) -> str:
        made = elf(1, wide=wide, big=big, kinds=kinds, at=at, name=name, entry=entry)
        (root / "x").write_bytes(made)
        return explain.program(setting(root), "/x", errno.ENOENT)

    missing = 'its ELF loader "/none" does not exist in the root filesystem'
    assert of(b"/none\0", 3) == of(b"/none", 1, 3) == of(b"/none\0", 1, 1, 3, 1) == missing
    assert of(b"/none\0", 1, 3, entry=64) == missing  # a larger entry
    assert of(b"/none\0", 1, 2, 4, 6) == of(b"\0", 3) == of(b"/a/b/f\0", 3) == of(b"/none\0") == ""
    assert of(b"/none\0", *[1] * 71, 3, at=9000) == (missing if not wide or 64 + 71 * 56 <= 4096 - 56 else "")
    assert of(b"/" + b"y" * 5000, 3).count("y") < 4097


@pytest.mark.parametrize(
    ("ours", "machine", "words"),
    [
        ("x86_64", 62, ""),
        ("x86_64", 3, ""),
        ("x86_64", 183, "it is an ELF file for aarch64, and this host is x86_64"),
        ("aarch64", 183, ""),
        ("aarch64", 40, ""),
        ("aarch64", 62, "it is an ELF file for x86_64, and this host is aarch64"),
        ("x86_64", 243, "it is an ELF file for riscv64, and this host is x86_64"),
        ("riscv64", 62, ""),
        ("x86_64", 999, "it is an ELF file for machine 999, and this host is x86_64"),
    ],
)
@pytest.mark.parametrize("big", [False, True])
def test_machines(root: Path, ours: str, machine: int, words: str, big: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain.posix, "uname", lambda: SimpleNamespace(machine=ours))  # type: ignore[attr-defined]
    data = elf(machine, wide=True, big=big, kinds=(1,), at=200, name=b"")
    (root / "x").write_bytes(data)
    assert explain.machine_of(data) == machine
    assert explain.program(setting(root), "/x", errno.ENOEXEC) == words


def test_modes_of_programs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = {"user": {"uid": 77, "gid": 78}}
    for path in (root, root / "a", root / "a/b"):
        path.chmod(0o755)
    owner = f"{os.geteuid()}:{os.getegid()}"
    security = "its mode permits it: an ACL or a security module (AppArmor, SELinux) may not"
    for mode, words in (
        (0o644, "its mode is 0644: `chmod +x` makes it executable"), (0o755, security), (0o001, security),
        (0o744, f"its mode is 0744 and it belongs to {owner}: 77:78 may not execute it"),
        (0o710, f"its mode is 0710 and it belongs to {owner}: 77:78 may not execute it"),
    ):  # fmt: skip
        (root / "a/b/f").chmod(mode)
        assert explain.program(setting(root, process), "/a/b/f", errno.EACCES) == words
    assert (
        explain.program(setting(root, process), "/a/b", errno.EACCES) == "the first of /process/args must be a program"
    )
    (root / "a/b/f").chmod(0o755)
    mounted = setting(root, process, mounts=[{"destination": "/a", "options": ["noexec"]}])
    assert explain.program(mounted, "/a/b/f", errno.EACCES) == "/mounts/0 has the option noexec"
    monkeypatch.setattr(explain.posix, "fstatvfs", lambda fd: SimpleNamespace(f_flag=os.ST_NOEXEC | os.ST_NOSUID))  # type: ignore[attr-defined]
    found = explain.program(setting(root, process), "/a/b/f", errno.EACCES)
    assert found == "the root filesystem is on a mount with the option noexec"
    assert explain.program(setting(root, process), "/none/x", errno.EACCES) == ""


def test_filters_that_kill() -> None:
    def of(*rules: dict[str, Any]) -> str:
        linux: Any = {"seccomp": {"syscalls": list(rules)}}
        return explain.killed(linux)

    other = "/linux/seccomp kills a system call that the start of a program needs"
    kill = {"names": ["a", "execve"], "action": "SCMP_ACT_KILL"}
    assert of({"names": ["execve"], "action": "SCMP_ACT_ALLOW"}, kill) == "/linux/seccomp/syscalls/1 kills execve"
    assert of({"names": ["execveat"], "action": "SCMP_ACT_KILL"}) == of() == other
    none: Any = {"seccomp": {}}
    assert explain.killed(none) == other


def test_filters_that_refuse() -> None:
    def of(error: int, *rules: dict[str, Any], **profile: Any) -> str:
        given: Any = {"syscalls": list(rules), **profile}
        return explain._seccomp(given, error)

    rule = {"names": ["execve"], "action": "SCMP_ACT_ERRNO"}
    assert of(errno.EPERM, rule) == "/linux/seccomp/syscalls/0 fails execve with this error"
    assert of(errno.EPERM, {**rule, "errnoRet": errno.EIO}, rule) == ""  # the first rule decides
    assert of(errno.EPERM, {**rule, "errnoRet": errno.EIO, "args": [1]}, rule).startswith("/linux/seccomp/syscalls/1 ")
    assert of(errno.EPERM, {**rule, "action": "SCMP_ACT_TRAP"}) == of(errno.EPERM, {**rule, "names": ["x"]}) == ""
    assert of(errno.EIO, defaultAction="SCMP_ACT_ERRNO") == of(errno.EPERM, defaultAction="SCMP_ACT_KILL") == ""
    assert of(errno.EPERM, defaultAction="SCMP_ACT_ERRNO").startswith("/linux/seccomp/defaultAction fails")
