"""host.snapshot with made-up /proc and /sys trees."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pyrunc import fs, host
from work import calls

V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec - tmpfs tmpfs ro,mode=755
32 31 0:29 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
33 31 0:30 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory"""
ROOT = "23 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw"


def tree(
    top: Path, mountinfo: str, visible: list[str], cgroup: str = "0::/\n", files: dict[str, str] | None = None
) -> str:
    """A root directory whose cgroup2 mounts in ``visible`` contain their files."""
    contents = {"/proc/self/mountinfo": f"{ROOT}\n{mountinfo}\n", "/proc/self/cgroup": cgroup, **(files or {})}
    contents |= {f"{mount}/cgroup.controllers": "cpu\n" for mount in visible}
    for name, text in contents.items():
        path = top / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(top)


def test_unified(tmp_path: Path) -> None:
    cgroup = "1:name=systemd:/x\n0::/user.slice/session-1.scope\n"
    facts = host.snapshot(tree(tmp_path, V2, ["/sys/fs/cgroup"], cgroup))
    assert (facts.cgroup2_mount, facts.cgroup2_root, facts.hybrid) == ("/sys/fs/cgroup", "/", False)
    assert facts.own_cgroup == "/user.slice/session-1.scope"
    assert facts.cgroup_dir("/a/b") == "/sys/fs/cgroup/a/b" and facts.cgroup_dir("/") == "/sys/fs/cgroup"


def test_hybrid(tmp_path: Path) -> None:
    facts = host.snapshot(tree(tmp_path, HYBRID, ["/sys/fs/cgroup/unified"]))
    assert (facts.cgroup2_mount, facts.hybrid) == ("/sys/fs/cgroup/unified", True)


def test_a_unified_mount_over_a_hybrid_tree_wins(tmp_path: Path) -> None:
    """Later in the list and at the usual place; the one below it is still listed, but hidden."""
    facts = host.snapshot(tree(tmp_path, f"{HYBRID}\n{V2}", ["/sys/fs/cgroup"]))
    assert (facts.cgroup2_mount, facts.hybrid) == ("/sys/fs/cgroup", False)


def test_a_covered_mount_does_not_count(tmp_path: Path) -> None:
    elsewhere = "40 23 0:28 / /mnt/cg rw - cgroup2 none rw"
    facts = host.snapshot(tree(tmp_path, f"{V2}\n{elsewhere}", ["/mnt/cg"]))
    assert facts.cgroup2_mount == "/mnt/cg"


def test_no_cgroup2(tmp_path: Path) -> None:
    facts = host.snapshot(tree(tmp_path, HYBRID.replace("cgroup2", "cgroup"), []))
    assert (facts.cgroup2_mount, facts.cgroup2_root, facts.own_cgroup, facts.hybrid) == ("", "/", "/", False)


def test_octal_escapes(tmp_path: Path) -> None:
    line = r"40 23 0:28 /a\134b /mnt/my\040cgroups\011x rw - cgroup2 none rw"
    facts = host.snapshot(tree(tmp_path, line, ["/mnt/my cgroups\tx"]))
    assert (facts.cgroup2_mount, facts.cgroup2_root) == ("/mnt/my cgroups\tx", "/a\\b")


def test_a_mount_of_a_part(tmp_path: Path) -> None:
    facts = host.snapshot(tree(tmp_path, V2.replace(" / ", " /docker/c1 ", 1), ["/sys/fs/cgroup"], "0::/docker/c1\n"))
    assert (facts.cgroup2_root, facts.own_cgroup) == ("/docker/c1", "/docker/c1")
    assert facts.cgroup_dir("/docker/c1/x") == "/sys/fs/cgroup/x"
    assert facts.cgroup_dir("/docker/c1") == "/sys/fs/cgroup"


@pytest.mark.parametrize(("root", "own"), [("/..", "/"), ("/", "/../other"), ("/../..", "/../x")])
def test_a_path_outside_our_cgroup_namespace_becomes_the_top(tmp_path: Path, root: str, own: str) -> None:
    facts = host.snapshot(tree(tmp_path, V2.replace(" / ", f" {root} ", 1), ["/sys/fs/cgroup"], f"0::{own}\n"))
    assert (facts.cgroup2_root, facts.own_cgroup) == ("/", "/")


def test_the_usual_place_wins_over_an_earlier_one(tmp_path: Path) -> None:
    elsewhere = "25 23 0:28 / /mnt/cg rw - cgroup2 none rw"
    facts = host.snapshot(tree(tmp_path, f"{elsewhere}\n{V2}", ["/mnt/cg", "/sys/fs/cgroup"]))
    assert (facts.cgroup2_mount, facts.hybrid) == ("/sys/fs/cgroup", False)


@pytest.mark.parametrize("cut", [1, 20, 40, len(V2) - 1, len(V2)])
def test_long_mountinfo_is_read_in_pieces(tmp_path: Path, cut: int) -> None:
    """A line cut by the end of a read is put together again."""
    head = "24 23 8:1 / /mnt/"
    tail = " rw - ext4 /dev/sda1 rw"
    before = head + "x" * (65536 - cut - len(head) - len(tail) - len(ROOT) - 2) + tail
    facts = host.snapshot(tree(tmp_path, f"{before}\n{V2}", ["/sys/fs/cgroup"]))
    assert facts.cgroup2_mount == "/sys/fs/cgroup"


def test_nothing_there(tmp_path: Path) -> None:
    facts = host.snapshot(str(tmp_path))
    assert (facts.cgroup2_mount, facts.own_cgroup) == ("", "/")
    assert (facts.cap_last, facts.apparmor, facts.selinux) == (host.CAP_LAST, False, False)


@pytest.mark.parametrize(
    ("files", "apparmor", "selinux"),
    [
        ({"/sys/module/apparmor/parameters/enabled": "Y\n"}, True, False),
        ({"/sys/module/apparmor/parameters/enabled": "N\n"}, False, False),
        ({"/sys/fs/selinux/enforce": "0"}, False, True),
        ({"/proc/filesystems": "nodev\tsysfs\nnodev\tselinuxfs\n"}, False, True),
        ({"/proc/filesystems": "nodev\tsysfs\nnodev\tnotselinuxfs\n"}, False, False),
    ],
)
def test_security_modules(tmp_path: Path, files: dict[str, str], apparmor: bool, selinux: bool) -> None:
    facts = host.snapshot(tree(tmp_path, V2, [], files=files))
    assert (facts.apparmor, facts.selinux) == (apparmor, selinux)


@pytest.mark.parametrize(("text", "last"), [("39\n", 39), ("x", host.CAP_LAST)])
def test_cap_last(tmp_path: Path, text: str, last: int) -> None:
    facts = host.snapshot(tree(tmp_path, V2, [], files={"/proc/sys/kernel/cap_last_cap": text}))
    assert facts.cap_last == last


def test_facts_can_be_replaced() -> None:
    facts = host.HostFacts()
    facts.cap_last, facts.apparmor, facts.selinux = 3, True, True
    assert (facts.cap_last, facts.apparmor, facts.selinux) == (3, True, True)


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.1.0-13-amd64", (6, 1)),
        ("5.12", (5, 12)),
        ("6.18.44-fc-v669", (6, 18)),
        ("7.0-rc1", (7, 0)),
        ("6", (6, 0)),
        ("x.y", (0, 0)),
    ],
)
def test_kernel_version(release: str, version: tuple[int, int]) -> None:
    assert host.kernel_version(release) == version


def test_files_that_cannot_be_read_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """In strict mode, only a missing file counts as empty."""
    assert host.read("/proc/self/none") == host.read("/proc/self/none", strict=True) == b""

    def full(*_: object) -> bytes:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(fs, "read_file", full)
    assert host.read("/proc/self/stat") == b""
    with pytest.raises(OSError, match="too many open files"):
        host.read("/proc/self/stat", strict=True)


def test_this_host() -> None:
    facts = host.snapshot()
    assert calls(host.snapshot) < 200
    assert facts.kernel > (3, 0) and facts.cap_last >= 37 and facts.arch


def test_own_namespaces_by_any_name(tmp_path: Path) -> None:
    facts = host.snapshot()
    link = tmp_path / "link"
    link.symlink_to("/proc/self/ns/net")
    for path in ("/proc/self/ns/net", "/proc/thread-self/ns/net", str(link)):
        assert facts.own_namespace("network", path)
    assert not facts.own_namespace("ipc", "/proc/self/ns/net")
    assert not facts.own_namespace("network", str(tmp_path / "none"))
    assert not facts.own_namespace("network", "nul\0")
