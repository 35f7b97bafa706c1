"""pyrunc.checkpoint.mounts: what CRIU must not dump, what replaces it, and where it is mounted. The
mounts themselves are recorded, not made."""

from __future__ import annotations

import os
import posix
from errno import EACCES, EINVAL
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import work
from pyrunc import mountinfo
from pyrunc.checkpoint import mounts, rootfs
from pyrunc.checkpoint.mounts import Mounts
from pyrunc.errors import PyruncError, SysError
from pyrunc.native import mounts as native
from pyrunc.plan import mount_options
from pyrunc.plan.devices import DEFAULTS

BIND, REC, REMOUNT = 0x1000, 0x4000, 0x20
RDONLY, NOSUID, NODEV, NOEXEC, NOSYMFOLLOW = 1, 2, 4, 8, 0x100


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of mount(2) and umount2(2), which do nothing, in a namespace whose mounts are
    private, also where an init such as systemd has made the machine's shared."""
    table = [mountinfo.Mount(one.id, one.parent, one.root, one.point) for one in mountinfo.read()]
    monkeypatch.setattr(mountinfo, "read", lambda: table)
    calls: list[Any] = []

    def mount(source: bytes, target: bytes, kind: bytes, flags: int, data: bytes) -> None:
        where = target.decode()
        if where.startswith("/proc/self/fd/"):
            where = os.readlink(where)
        calls.append((source.decode(), where, flags))

    def unmount(target: bytes, flags: int) -> None:
        calls.append(("-", target.decode(), flags))

    monkeypatch.setattr(native, "mount", mount)
    monkeypatch.setattr(native, "unmount", unmount)
    return calls


@pytest.fixture
def root(tmp_path: Path) -> Any:
    (tmp_path / "root/real").mkdir(parents=True)
    (tmp_path / "root/real/file").touch()
    (tmp_path / "root/link").symlink_to("/real")
    (tmp_path / "bundle/dir").mkdir(parents=True)
    (tmp_path / "bundle/file").touch()
    (tmp_path / "root/loop").symlink_to("loop")
    fd = rootfs.open_root(str(tmp_path / "root"))
    yield fd
    os.close(fd)


def of(tmp_path: Path, *entries: dict[str, Any], **linux: Any) -> Mounts:
    linux.setdefault("namespaces", [{"type": "mount"}, {"type": "cgroup"}])
    config: Any = {"mounts": list(entries), "linux": linux}
    return Mounts(config, str(tmp_path / "bundle"))


def bind(destination: str, source: str = "dir", *options: str) -> dict[str, Any]:
    return {"destination": destination, "source": source, "type": "bind", "options": list(options)}


def pairs(found: list[dict[str, str]]) -> dict[str, str]:
    assert [sorted(entry) for entry in found] == [["key", "val"]] * len(found)
    return {entry["key"]: entry["val"] for entry in found}


# -- the configuration -----------------------------------------------------------------------------


def test_an_empty_configuration() -> None:
    none = Mounts({}, "/b")  # type: ignore[typeddict-item]
    assert (none.binds(), none.hierarchies(), none.nodes(), none.namespace("user")) == ([], [], [], False)
    nulls = Mounts({"mounts": None, "linux": {"namespaces": None, "devices": None}}, "/b")  # type: ignore[typeddict-item]
    assert (nulls.binds(), nulls.hierarchies(), nulls.nodes(), nulls.namespace("user")) == ([], [], [], False)
    assert not nulls.below_tmpfs("/a")


def test_bind_mounts_of_a_configuration(tmp_path: Path) -> None:
    found = of(
        tmp_path,
        {"destination": "/proc", "type": "proc"},
        {"destination": "/a/../b/", "source": "x/y", "options": ["rbind", "ro"]},
        bind("/c", "/abs"),
        {"destination": "/again", "type": "bind", "source": "/s", "options": ["bind", "remount", "ro"]},
    )
    binds = [(index, at, source, flags.recursive) for index, at, source, flags in found.binds()]
    assert binds == [(1, "/b", f"{tmp_path}/bundle/x/y", True), (2, "/c", "/abs", False)]


def test_hierarchies_are_bound_without_a_cgroup_namespace(tmp_path: Path) -> None:
    entries = [{"destination": f"/{kind}/", "type": kind} for kind in ("cgroup", "cgroup2", "tmpfs")]
    assert of(tmp_path, *entries).hierarchies() == []
    assert of(tmp_path, *entries, namespaces=[{"type": "mount"}]).hierarchies() == ["/cgroup", "/cgroup2"]


def test_device_nodes_in_a_user_namespace(tmp_path: Path) -> None:
    devices = [{"path": "/dev//fuse"}, {"path": "/dev/null"}]
    assert of(tmp_path, devices=devices).nodes() == ["/dev/fuse", "/dev/null"]
    inside = of(tmp_path, devices=devices, namespaces=[{"type": "user"}]).nodes()
    assert inside == ["/dev/fuse", "/dev/null", *(path for path, _, _ in DEFAULTS if path != "/dev/null")]


@pytest.mark.parametrize(
    ("path", "below"), [("/t/a", True), ("/t", False), ("/tmp", False), ("/t/a/b", True), ("/other/x", False)]
)
def test_places_below_a_tmpfs(tmp_path: Path, path: str, below: bool) -> None:
    entries = [{"destination": "/other", "type": "proc"}, {"destination": "/t/", "type": "tmpfs"}]
    assert of(tmp_path, *entries).below_tmpfs(path) is below


def test_places_below_many_tmpfs(tmp_path: Path) -> None:
    one = of(tmp_path, *({"destination": f"/{n}", "type": "tmpfs"} for n in range(8000)))
    with work.at_most(2):
        assert [n for n in range(16_000) if one.below_tmpfs(f"/{n}/x")] == list(range(8000))


# -- dump ------------------------------------------------------------------------------------------

MOUNTINFO = """\
1 0 0:1 / / rw - ext4 /dev/x rw
2 1 0:2 / /real rw - ext4 /dev/x rw
3 2 0:3 / /real/in\\040side rw - tmpfs tmpfs rw
4 1 0:4 / /realm rw - tmpfs tmpfs rw
5 2 0:5 / /real/proc rw - proc proc rw
short line
"""


def listed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let the process 5 have these mounts."""
    found = mountinfo.parse(text.encode())
    monkeypatch.setattr(mountinfo, "read", lambda pid: {5: found}[pid])


def test_what_is_external_in_a_dump(tmp_path: Path, root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(monkeypatch, MOUNTINFO)
    proc = {"destination": "/real/proc/", "type": "proc"}
    found = of(tmp_path, bind("/link", "dir", "rbind"), proc, {"destination": "/none", "type": "tmpfs"},
               maskedPaths=["/real/file", "/link", "/missing"], devices=[{"path": "/dev/fuse"}])  # fmt: skip
    external = ["/real", "/real/in side", "/dev/fuse", "/run/notify", "/real/file"]
    assert pairs(found.dumped(root, 5)) == {path: path for path in external}
    plain = of(tmp_path, bind("/link"), proc, namespaces=[])
    assert list(pairs(plain.dumped(root, 5))) == ["/real", "/run/notify"]
    whole = of(tmp_path, bind("/", "dir", "rbind"))
    assert "/realm" in pairs(whole.dumped(root, 5))


def test_a_dump_of_many_recursive_binds(tmp_path: Path, root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is linear in the number of binds and of mounts below them, also if they are nested."""
    lines = [f"{n} 1 0:9 / /real/{'n/' * (n % 100)}{n} rw - tmpfs t rw" for n in range(20_000)]
    listed(monkeypatch, "\n".join(lines))
    binds = [bind(f"/real/{'n/' * (n % 100)}x{n}", "dir", "rbind") for n in range(2000)]
    one = of(tmp_path, *binds, bind("/real", "dir", "rbind"))
    with work.at_most(2):
        found = one.dumped(root, 5)
    assert len(found) == 2000 + 20_000 + 2 and found[0] == {"key": "/real/x0", "val": "/real/x0"}


def test_errors_of_a_dump(tmp_path: Path, root: int) -> None:
    with pytest.raises(SysError, match=r"^/mounts: open: ENOENT") as caught:
        of(tmp_path).dumped(root, 0)
    assert caught.value.errno == 2


# -- restore ---------------------------------------------------------------------------------------


def facts(kernel: tuple[int, int] = (6, 8)) -> Any:
    return SimpleNamespace(cgroup2_mount="/sys/fs/cgroup", kernel=kernel)


def later(monkeypatch: pytest.MonkeyPatch, points: list[str]) -> None:
    """Let these be the mounts when everything is staged."""
    tables = iter([mountinfo.read(), [mountinfo.Mount(number, 0, "/", point) for number, point in enumerate(points)]])
    monkeypatch.setattr(mountinfo, "read", lambda: next(tables))


def test_what_replaces_external_mounts(
    tmp_path: Path, root: int, made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = tmp_path / "top/c1/criu"
    (tmp_path / "notify").mkdir()
    stage.mkdir(parents=True)
    later(monkeypatch, ["/", f"{stage}/1", f"{stage}/1/below", f"{stage}/10/not"])
    found = of(
        tmp_path,
        {"destination": "/cg", "type": "cgroup"},
        bind("/link", "dir", "rbind"),
        bind("/real/file", "file", "ro", "nosymfollow"),
        namespaces=[{"type": "mount"}],
        maskedPaths=["/link/file", "/missing"],
        devices=[{"path": "/dev/fuse"}],
    )
    monkeypatch.setattr(mounts, "attributes", lambda path: mount_options.NODEV if path == f"{stage}/2" else 0)
    null, empty = f"{stage}/null", f"{stage}/empty"
    out = pairs(found.restored(root, str(stage), facts(), str(tmp_path / "notify")))
    assert out == {
        "/dev/null": null, "/run/notify": f"{stage}/notify",
        "/run/crun/.empty-directory": empty, f"{tmp_path}/top/.empty-directory": empty,
        "/dev/fuse": "/dev/fuse", "/missing": null, "/cg": "/sys/fs/cgroup",
        "/real": f"{stage}/1", "/real/below": f"{stage}/1/below", "/real/file": f"{stage}/2",
    }  # fmt: skip
    kept = [("none" if call[0] == "none" else call[0], call[1], call[2]) for call in made]
    assert kept == [
        ("/dev/null", null, BIND), ("none", null, BIND | REMOUNT | RDONLY | NOSUID | NOEXEC),
        (f"{tmp_path}/notify", f"{stage}/notify", BIND),
        ("none", empty, RDONLY | NOSUID | NODEV | NOEXEC),
        (f"{tmp_path}/bundle/dir", f"{stage}/1", BIND | REC),
        (f"{tmp_path}/bundle/file", f"{stage}/2", BIND),
        ("none", f"{stage}/2", BIND | REMOUNT | RDONLY | NOSYMFOLLOW),
    ]  # fmt: skip
    modes = {path.name: (path.is_dir(), oct(path.stat().st_mode & 0o777)) for path in stage.iterdir()}
    assert modes == {
        "null": (False, "0o600"), "notify": (True, "0o700"), "empty": (True, "0o555"), "1": (True, "0o700"),
        "2": (False, "0o600"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "before", "kernel", "after"),
    [
        (("ro",), NOSUID, (6, 8), RDONLY), (("rw",), RDONLY | NOSUID, (6, 8), 0),
        (("nosuid", "nodev"), NOEXEC, (6, 8), NOSUID | NODEV), (("suid", "ro"), NOSUID, (6, 8), RDONLY),
        # Linux 5.13 does not clear this one.
        (("ro",), mount_options.NOSYMFOLLOW | NOSUID, (5, 13), RDONLY | NOSYMFOLLOW),
        (("symfollow",), mount_options.NOSYMFOLLOW, (5, 13), 0),
    ],
)  # fmt: skip
def test_flags_of_a_staged_bind(
    tmp_path: Path, root: int, made: list[Any], monkeypatch: pytest.MonkeyPatch, options: Any, before: int,
    kernel: Any, after: int,
) -> None:  # fmt: skip
    """As `create` would leave them: named flags replace all others."""
    (tmp_path / "stage").mkdir()
    monkeypatch.setattr(mounts, "attributes", lambda path: before)
    of(tmp_path, bind("/real", "dir", *options)).restored(root, str(tmp_path / "stage"), facts(kernel), "/tmp")
    assert made[-1] == ("none", f"{tmp_path}/stage/0", BIND | REMOUNT | after)


@pytest.mark.parametrize("count", [200, 400])
def test_the_table_of_mounts_is_read_twice(
    tmp_path: Path, root: int, made: list[Any], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Once before binds are staged and once after, however many there are."""
    (tmp_path / "stage").mkdir()
    reads: list[str] = []
    table = mountinfo.read()

    def read() -> list[mountinfo.Mount]:
        reads.append("read")
        return table

    monkeypatch.setattr(mountinfo, "read", read)
    binds = [bind(f"/m{number}", "dir", "rbind" if number % 2 else "bind") for number in range(count)]
    found = of(tmp_path, *binds).restored(root, str(tmp_path / "stage"), facts(), "/tmp")
    assert len(reads) == 2 and len(made) == count + 4
    assert [entry["val"] for entry in found[-count:]] == [f"{tmp_path}/stage/{number}" for number in range(count)]


def test_a_later_bind_replaces_a_mount_below_an_earlier_one(
    tmp_path: Path, root: int, made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = tmp_path / "stage"
    stage.mkdir()
    later(monkeypatch, [f"{stage}/0/file", f"{stage}/0/kept", f"{stage}/1/x"])
    found = of(tmp_path, bind("/real", "dir", "rbind"), bind("/real/file", "file", "bind"))
    out = pairs(found.restored(root, str(stage), facts(), "/tmp"))
    assert {name: out[name] for name in out if name.startswith("/real")} == {
        "/real": f"{stage}/0", "/real/file": f"{stage}/1", "/real/kept": f"{stage}/0/kept",
    }  # fmt: skip


def test_a_table_of_mounts_that_cannot_be_read(
    tmp_path: Path, root: int, made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise OSError(EACCES, "")

    (tmp_path / "stage").mkdir()
    monkeypatch.setattr(mountinfo, "read", fails)
    with pytest.raises(SysError, match=r"^/proc/self/mountinfo: read: EACCES"):
        of(tmp_path).restored(root, str(tmp_path / "stage"), facts(), "/tmp")


def test_mounts_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def below(points: list[str], paths: tuple[str, ...]) -> list[str]:
        listed = [mountinfo.Mount(number, 0, "/", point) for number, point in enumerate(points)]
        monkeypatch.setattr(mountinfo, "read", lambda: listed)
        return [path for path in paths if mounts.HostMounts().any_below(path)]

    assert below(["/", "/a b", "/a-c"], ("/", "/a", "/a b", "/a-", "/x", "")) == [""]
    assert below(["/a/b/c"], ("/a/b", "/a/b/c", "/a", "/a/", "/b")) == ["/a/b", "/a"]


def test_a_bind_without_flags_is_left_alone(tmp_path: Path, root: int, made: list[Any]) -> None:
    (tmp_path / "stage").mkdir()
    of(tmp_path, bind("/real")).restored(root, str(tmp_path / "stage"), facts(), "/tmp")
    assert made[-1] == (f"{tmp_path}/bundle/dir", f"{tmp_path}/stage/0", BIND)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (bind("/loop"), '/mounts/0/destination "/loop": open: ELOOP'),
        (bind("/real", "none"), '/mounts/0/source "BUNDLE/none": stat: ENOENT'),
    ],
)
def test_errors_of_a_restore(tmp_path: Path, root: int, made: list[Any], entry: Any, words: str) -> None:
    (tmp_path / "stage").mkdir()
    with pytest.raises(SysError) as caught:
        of(tmp_path, entry).restored(root, str(tmp_path / "stage"), facts(), "/tmp")
    assert str(caught.value).startswith(words.replace("BUNDLE", str(tmp_path / "bundle")))


def test_mounts_that_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*args: object) -> None:
        raise OSError(EACCES, "")

    monkeypatch.setattr(native, "mount", fails)
    with pytest.raises(SysError) as caught:
        mounts.bind("/mounts/3/source", "/from", b"/to", 0)
    assert str(caught.value).startswith('/mounts/3/source "/from": mount: EACCES') and caught.value.errno == EACCES
    with pytest.raises(SysError, match=r"^/to: mount: EACCES"):
        mounts.remount("/to", 0)
    with pytest.raises(SysError, match=r'^/p "/missing": stat: ENOENT'):
        mounts.staged(str(tmp_path), "x", "/missing", "/p", 0)


def test_attributes_of_a_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    """statvfs(3) has other bits too, such as ST_RELATIME."""
    for found, wanted in ((0x1000 | 0x400, 0), (15, 15), (0x2000 | 2, mount_options.NOSYMFOLLOW | 2), (0x2010, NOSYM)):
        monkeypatch.setattr(posix, "statvfs", lambda path, found=found: SimpleNamespace(f_flag=found))
        assert mounts.attributes("/x") == wanted
    monkeypatch.undo()
    assert mounts.attributes("/proc") == os.statvfs("/proc").f_flag & 15


NOSYM = mount_options.NOSYMFOLLOW


# -- mount points ----------------------------------------------------------------------------------


def test_missing_mount_points_are_made(tmp_path: Path, root: int, made: list[Any]) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    of(
        tmp_path,
        {"destination": "/proc", "type": "proc"},
        bind("/link/new/dir", "dir"),
        bind("/link/new/file", "file"),
        {"destination": "/tmpfs", "type": "tmpfs"},
        bind("/tmpfs/inside", "dir"),
        {"destination": "/cg", "type": "cgroup"},
        {"destination": "/cg2", "type": "cgroup2"},
        {"destination": "/again", "type": "proc", "options": ["remount"]},
        bind("/cg3", "dir"),
    ).make_each_place(root)
    top = tmp_path / "root"
    found = {str(path.relative_to(top)): path.is_dir() for path in top.rglob("*") if not path.is_symlink()}
    assert found == {
        "real": True, "real/file": False, "proc": True, "real/new": True, "real/new/dir": True,
        "real/new/file": False, "tmpfs": True, "cg3": True,
    }  # fmt: skip
    places = [(f"{tmp_path}/bundle/{name}", f"{top}/{at}") for name, at in
              (("dir", "real/new/dir"), ("file", "real/new/file"), ("dir", "cg3"))]  # fmt: skip
    assert made == [(source, at, BIND | REC) for source, at in places]
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_mount_points_are_made_in_a_copy(tmp_path: Path, root: int, made: list[Any]) -> None:
    """Everything that is mounted on the way is detached with it."""
    scratch = tmp_path / "scratch"
    of(tmp_path, bind("/real"), bind("/other")).make_places(root, str(scratch))
    assert made == [
        (f"/proc/self/fd/{root}", str(scratch), BIND | REC),
        (f"{tmp_path}/bundle/dir", f"{scratch}/real", BIND | REC),
        (f"{tmp_path}/bundle/dir", f"{scratch}/other", BIND | REC),
        ("-", str(scratch), 2),
    ]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (bind("/a", "none"), '/mounts/1/source "BUNDLE/none": stat: ENOENT'),
        (bind("/loop"), '/mounts/1/destination "/loop": open: ELOOP'),
        ({"destination": "/real/file/x", "type": "proc"}, '/mounts/1/destination "/real/file/x": open: ENOTDIR'),
    ],
)
def test_mount_points_that_cannot_be_made(tmp_path: Path, root: int, made: list[Any], entry: Any, words: str) -> None:
    """What was mounted before is detached."""
    before, scratch = sorted(os.listdir("/proc/self/fd")), tmp_path / "scratch"
    with pytest.raises(SysError) as caught:
        of(tmp_path, bind("/real"), entry).make_each_place(root)
    assert str(caught.value).startswith(words.replace("BUNDLE", str(tmp_path / "bundle")))
    with pytest.raises(SysError):
        of(tmp_path, bind("/real"), bind("/a", "none")).make_places(root, str(scratch))
    assert made[-1] == ("-", str(scratch), 2) and sorted(os.listdir("/proc/self/fd")) == before


def test_an_error_without_a_number(tmp_path: Path, root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: object, path: str) -> None:
        raise OSError

    monkeypatch.setattr(rootfs.Walk, "go", fails)
    with pytest.raises(SysError) as caught:
        of(tmp_path).make_place(root, 0, "/a", "")
    assert caught.value.errno == EINVAL


@pytest.mark.parametrize(
    ("linux", "words"),
    [
        ({"namespaces": [{"type": "mount"}, {"type": "cgroup", "path": "/p"}]}, "/linux/namespaces/1: CRIU cannot"),
        ({"namespaces": [{"type": "mount"}, {"type": "cgroup"}]}, ""),
        ({"namespaces": [{"type": "mount"}, {"type": "pid", "path": "/p"}]}, ""),
        ({"namespaces": [{"type": "mount"}], "netDevices": {"a": {}}}, ""),
        ({"namespaces": [{"type": "mount"}, {"type": "network"}], "netDevices": {"a": {}}}, "/linux/netDevices: CRIU"),
        ({"namespaces": [{"type": "mount"}, {"type": "network"}], "netDevices": {}}, ""),
        ({"namespaces": [{"type": "mount"}], "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}, ""),
    ],
)
def test_what_cannot_be_restored(tmp_path: Path, linux: Any, words: str) -> None:
    one = of(tmp_path, bind("/a"), **linux)
    if not words:
        one.refuse()
        return
    with pytest.raises(PyruncError) as caught:
        one.refuse()
    assert str(caught.value).startswith(words)
