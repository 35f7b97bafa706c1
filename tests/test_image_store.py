"""pyrunc.image: the store, the unpacked bundle, and `run --image` up to the bundle. What changes
namespaces runs in a fork."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pickle
import re
import stat
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from image_support import Layout, entry, hard_link, link, tar
from pyrunc.errors import PyruncError, SysError, UsageError
from pyrunc.image import launch, locate, manifest, reference, store, unpack
from pyrunc.image.errors import ImageError
from pyrunc.image.progress import Progress

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
LOWER = [entry("bin/"), entry("bin/sh", b"#!", mode=0o755), entry("gone", b"x"), entry("etc/"),
         entry("etc/passwd", b"joe:x:7:8::/home/joe:/bin/sh\n"), entry("data/", mode=0o750, uid=7, gid=8)]  # fmt: skip
UPPER = [entry(".wh.gone"), link("bin/ash", "sh"), hard_link("bin/bash", "bin/sh"), entry("data/x", b"y")]


def apart(work: Callable[[], Any]) -> Any:
    """The result of a function that runs in a fork."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            data = pickle.dumps(work())
        except BaseException:
            data = pickle.dumps(("failed", traceback.format_exc()))
        os.write(writer, data)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        found = pickle.loads(file.read())  # noqa: S301  # from our own child
    os.waitpid(pid, 0)
    assert not (isinstance(found, tuple) and found[:1] == ("failed",)), found[1]
    return found


def image(path: Path, layers: list[bytes], config: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """A source, and its only image."""
    layout = Layout(path)
    layout.tag(layout.image(layers, config or {"Cmd": ["sh"]}))
    source = reference.open_local(f"oci:{path}")
    return source, manifest.resolve(source, manifest.parse_platform("linux/amd64"))


def content(top: Path) -> dict[str, str]:
    """What a directory holds."""
    out = {}
    for path in sorted(top.rglob("*")):
        found = path.lstat()
        kind = stat.S_IFMT(found.st_mode)
        what = os.readlink(path) if kind == stat.S_IFLNK else path.read_text() if kind == stat.S_IFREG else ""
        out[str(path.relative_to(top))] = f"{stat.filemode(found.st_mode)} {found.st_uid}:{found.st_gid} {what}"
    return out


# -- the store -------------------------------------------------------------------------------------


@root_only
def test_an_image_in_the_store(tmp_path: Path) -> None:
    source, found = image(tmp_path / "a", [tar(LOWER), tar(UPPER)], {"Cmd": ["sh"], "User": "joe"})
    lower, upper = (layer.chain_id for layer in found.layers)
    place = tmp_path / "store"
    name = f"oci:{tmp_path}/a"
    prefetched: list[int] = []
    source.prefetch = lambda wanted: prefetched.append(len(wanted))

    def pull() -> Any:
        mine = os.readlink("/proc/self/ns/mnt")
        kept = store.Store(str(place))
        advanced: list[int] = []
        progress: Any = SimpleNamespace(advance=advanced.append)
        warnings = [kept.pull(source, found, name, unpack.Options(), progress).lines() for _ in range(2)]
        left = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(place) in line]
        return warnings, advanced, prefetched, os.readlink("/proc/self/ns/mnt") != mine, left, kept.list()

    warnings, advanced, prefetched, private, left, listed = apart(pull)
    sizes = [layer.blob.size for layer in found.layers]
    assert warnings == [[], []] and advanced == sizes * 2 and prefetched == [2, 0] and private and left == []
    assert {path.name: oct(path.stat().st_mode & 0o7777) for path in place.iterdir()} == {
        **dict.fromkeys(store.SUBDIRECTORIES, "0o700"), "lock": "0o600",
    }  # fmt: skip
    names = {chain: f"sha256-{chain[7:]}" for chain in (lower, upper)}
    assert sorted(os.listdir(place / "layers")) == sorted(names.values())
    assert os.listdir(place / "layers" / names[upper]) == ["diff"]
    assert {path.name: os.readlink(path) for path in (place / "l").iterdir()} == {
        chain[7:27]: f"../layers/{names[chain]}/diff" for chain in (lower, upper)
    }  # fmt: skip
    assert (
        content(place / "layers" / names[lower] / "diff")["etc/passwd"]
        == "-rw-r--r-- 0:0 joe:x:7:8::/home/joe:/bin/sh\n"
    )
    above = content(place / "layers" / names[upper] / "diff")
    assert above["gone"].startswith("c") and above["bin/ash"] == "lrwxrwxrwx 0:0 sh" and "bin/bash" in above
    assert above["data"] == "drwxr-x--- 7:8 " and "etc/passwd" not in above
    document = json.loads((place / "images" / f"sha256-{found.manifest.digest[7:]}.json").read_text())
    user = document.pop("config")["process"]["user"]
    assert (user["uid"], user["gid"]) == (7, 8)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", document.pop("created"))
    assert document == {"digest": found.manifest.digest, "chains": [lower, upper], "size": sum(sizes)}
    refs = json.loads((place / "refs" / locate.encode_reference(name)).read_text())
    index = (tmp_path / "a/index.json").stat()
    assert refs == {
        "reference": name, "digest": found.manifest.digest,
        "validator": [index.st_ino, index.st_mtime_ns, index.st_size],
    }  # fmt: skip
    assert [{**row, "created": ""} for row in listed] == [
        {"references": [name], "digest": found.manifest.digest, "layers": 2, "size": sum(sizes), "created": ""}
    ]
    check_lookup(place, name, found)


def check_lookup(place: Path, name: str, found: Any) -> None:
    """Whatever is missing or damaged is pulled again."""
    assert locate.find(str(place), name)["digest"] == found.manifest.digest  # type: ignore[index]
    assert locate.find(str(place), f"{name}x") is None and locate.find(str(place / "none"), name) is None
    ref = place / "refs" / locate.encode_reference(name)
    kept = ref.read_text()
    for text in ("", "[]", "{}", kept.replace(name, f"{name}y"), json.dumps({**json.loads(kept), "validator": []})):
        ref.write_text(text)
        assert locate.find(str(place), name) is None
    ref.write_text(kept)
    short = place / "l" / locate.short(found.chain_id)
    short.unlink()
    assert locate.find(str(place), name) is None
    ref.unlink()
    ref.mkdir()
    with pytest.raises(SysError, match=r"^--store \".*\": open: EISDIR"):
        locate.find(str(place), name)


@root_only
def test_layers_that_fail_leave_nothing(tmp_path: Path) -> None:
    source, found = image(tmp_path / "a", [tar(LOWER), tar([hard_link("y", "none")])])
    place = tmp_path / "store"

    def pull() -> str:
        with pytest.raises(PyruncError) as caught:
            store.Store(str(place)).pull(source, found, "r", unpack.Options(), Progress("", 0, quiet=True))
        return str(caught.value)

    assert "layer 2 of 2 (" in apart(pull)
    assert os.listdir(place / "layers") == [f"sha256-{found.layers[0].chain_id[7:]}"]
    assert os.listdir(place / "images") == os.listdir(place / "refs") == []


@root_only
def test_an_image_without_layers(tmp_path: Path) -> None:
    source, found = image(tmp_path / "a", [])

    def pull() -> Any:
        kept = store.Store(str(tmp_path / "store"))
        kept.pull(source, found, "docker://r", unpack.Options(), Progress("", 0, quiet=True))
        return kept.list()[0]["layers"]

    assert apart(pull) == 0
    link_ = json.loads((tmp_path / "store/refs" / locate.encode_reference("docker://r")).read_text())
    assert link_["validator"] == []


def test_stores_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SysError, match=r"^--store \".*/file\": mkdir: EEXIST"):
        store.Store(str(tmp_path / "file"))
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(PyruncError, match="must belong to uid"):
        store.Store(str(tmp_path / "open")).close()
    for fd in (int(name) for name in os.listdir("/proc/self/fd")):
        try:
            if os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path / "open"):
                os.close(fd)
        except OSError:
            continue


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A store with two images of one layer each, a layer that nobody needs, and damaged files."""
    one = store.Store(str(tmp_path / "store"))
    one.close()
    top = tmp_path / "store"
    for number in (1, 2, 3):
        (top / f"layers/sha256-{number}/diff").mkdir(parents=True)
        (top / f"l/{number}").symlink_to(f"../layers/sha256-{number}/diff")
    for number in (1, 2):
        document = {"digest": f"sha256:i{number}", "chains": [f"sha256:{number}"], "size": number, "created": "now"}
        (top / f"images/sha256-i{number}.json").write_text(json.dumps(document))
        (top / f"refs/{number}.json").write_text(json.dumps({"reference": f"r{number}", "digest": f"sha256:i{number}"}))
    for name in ("images/damaged.json", "images/.hidden.json", "images/list.json", "images/other", "refs/list.json"):
        (top / name).write_text({"list": "[]", "amaged": "{"}.get(name.split("/")[1][:4], "{"))
    return top


def test_the_list(place: Path) -> None:
    (place / "refs/3.json").write_text(json.dumps({"reference": "r3", "digest": "sha256:i1"}))
    (place / "refs/1.json").unlink()
    (place / "refs/2.json").unlink()
    one = store.Store(str(place))
    assert one.list() == [
        {"references": ["r3"], "digest": "sha256:i1", "layers": 1, "size": 1, "created": "now"},
        {"references": [], "digest": "sha256:i2", "layers": 1, "size": 2, "created": "now"},
    ]
    one.close()


def pruned(place: Path, *, everything: bool) -> dict[str, int]:
    def work() -> dict[str, int]:
        return store.Store(str(place)).prune(everything=everything)

    found: dict[str, int] = apart(work)
    return found


def bundle(place: Path, token: str, *, chain: str, root: Path, old: bool) -> None:
    (place / f"containers/{token}").mkdir()
    note = {"chains": [chain], "root": str(root), "id": token}
    (place / f"containers/{token}/image.json").write_text(json.dumps(note))
    if old:
        os.utime(place / f"containers/{token}", (time.time() - 61, time.time() - 61))


@root_only
@pytest.mark.parametrize("everything", [False, True])
def test_pruning(place: Path, tmp_path: Path, everything: bool) -> None:
    (tmp_path / "root/used").mkdir(parents=True)
    (place / "layers/.pyrunc-unpack-1").mkdir()
    (place / "layers/.kept").mkdir()
    bundle(place, "used", chain="sha256:1", root=tmp_path / "root", old=True)
    bundle(place, "gone", chain="sha256:2", root=tmp_path / "root", old=True)
    assert pruned(place, everything=everything) == {
        "containers": 1, "images": 3 if everything else 0, "layers": 2 if everything else 1, "leftovers": 1,
    } or everything  # fmt: skip
    layers = {".kept", "sha256-1"} | (set() if everything else {"sha256-2"})
    assert set(os.listdir(place / "layers")) == layers and os.listdir(place / "containers") == ["used"]
    assert set(os.listdir(place / "l")) == {name[-1] for name in layers if name[0] != "."}
    refs = sorted(name for name in os.listdir(place / "refs"))
    assert refs == (["list.json"] if everything else ["1.json", "2.json", "list.json"])
    assert (place / "images/sha256-i1.json").exists() and (place / "images/sha256-i2.json").exists() is not everything


@root_only
def test_a_recent_bundle_is_kept(place: Path, tmp_path: Path) -> None:
    """It may belong to a `run` that has just started."""
    bundle(place, "new", chain="sha256:3", root=tmp_path / "root", old=False)
    assert pruned(place, everything=False) == {"containers": 0, "images": 0, "layers": 0, "leftovers": 0}
    assert pruned(place, everything=True) == {"containers": 0, "images": 2, "layers": 2, "leftovers": 0}
    assert os.listdir(place / "layers") == ["sha256-3"]


@root_only
def test_pruning_waits_for_those_who_use_the_store(place: Path) -> None:
    one = store.Store(str(place))
    with one.locked(exclusive=False), one.locked(exclusive=False):
        pass
    with one.locked(exclusive=True):
        fd = os.open(place / "lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.close(fd)
    one.close()


def test_what_cannot_be_removed_is_not_counted(place: Path) -> None:
    one = store.Store(str(place))
    assert one._remove("layers", "none") == 0 and one._remove("layers", "sha256-3") == 1
    assert sorted(os.listdir(place / "layers")) == ["sha256-1", "sha256-2"]
    one.close()


# -- names -----------------------------------------------------------------------------------------


def test_names_in_the_store() -> None:
    assert (
        locate.encode_digest("sha256:a:b") == "sha256-a:b"
        and locate.short("sha256:" + "0123456789" * 5) == "0123456789" * 2
    )
    cases = {
        "aZ0-_": "aZ0-_.json",
        "a/b:c#d.e": "a%2fb%3ac%23d%2ee.json",
        "é": "%c3%a9.json",
        "x" * 240: "x" * 240 + ".json",
    }
    assert {name: locate.encode_reference(name) for name in cases} == cases
    long = "a" * 150 + "b" * 91
    assert locate.encode_reference(long) == "a" * 100 + "~" + "a" * 39 + "b" * 91 + ".json"


def test_absolute_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given, platform, wanted in (
        ("oci:a", "", f"oci:{tmp_path}/a"), ("oci-archive:/b/../c", "p", "oci-archive:/c#p"),
        ("docker-archive:d:t", "", f"docker-archive:{tmp_path}/d:t"), ("docker://x", "linux/arm64", "docker://x#linux/arm64"),
        ("e", "", f"{tmp_path}/e"), ("other:f", "", f"{tmp_path}/other:f"), ("oci", "", f"{tmp_path}/oci"),
    ):  # fmt: skip
        assert locate.absolute(given, platform) == wanted


def test_validators(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/index.json").write_text("x")
    (tmp_path / "f").write_text("yy")

    def of(path: str) -> list[int]:
        found = (tmp_path / path).stat()
        return [found.st_ino, found.st_mtime_ns, found.st_size]

    for text, wanted in (
        (f"oci:{tmp_path}/d", of("d/index.json")), (f"oci:{tmp_path}/d:tag#p", of("d/index.json")),
        (f"oci-archive:{tmp_path}/f:a:b", of("f")), (f"docker-archive:{tmp_path}/f", of("f")),
        (f"{tmp_path}/f", of("f")),
        ("docker://x", []), ("oci:none", []), ("", []),
    ):  # fmt: skip
        assert locate.validator(text) == wanted


def test_options_of_an_overlay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate.posix, "geteuid", lambda: 0)  # type: ignore[attr-defined]
    monkeypatch.setattr(locate.host, "initial_userns", lambda: True)  # type: ignore[attr-defined]
    chains = ["sha256:" + letter * 64 for letter in "abc"]
    lower = "lowerdir=" + ":".join("l/" + letter * 20 for letter in "cba")
    assert locate.overlay_options(chains, "", "", "l/") == [lower]
    assert locate.overlay_options(chains, "/u", "/w", "l/") == [lower, "upperdir=/u", "workdir=/w"]
    most = (4095 - len("lowerdir=")) // 21
    exact = [*["sha256:" + "a" * 64] * (most - 1), "sha256:" + "b" * (4095 - len("lowerdir=") - (most - 1) * 21)]
    assert len(locate.overlay_options(exact, "", "", "")[0]) <= 4095
    with pytest.raises(PyruncError, match=rf"^--store: {most + 1} layers do not fit into the mount options"):
        locate.overlay_options(["sha256:" + "a" * 64] * (most + 1), "", "", "")
    monkeypatch.setattr(locate.host, "initial_userns", lambda: False)  # type: ignore[attr-defined]
    assert locate.overlay_options(chains, "", "", "l/") == [lower, "userxattr"]
    monkeypatch.setattr(locate.host, "initial_userns", lambda: True)  # type: ignore[attr-defined]
    monkeypatch.setattr(locate.posix, "geteuid", lambda: 1)  # type: ignore[attr-defined]
    assert locate.overlay_options(chains, "", "", "l/") == [lower, "userxattr"]


def test_a_bundle_of_a_container(place: Path) -> None:
    document: Any = {"chains": ["sha256:1"], "config": {"process": {"args": ["sh"]}}}
    made = Path(locate.make_bundle(str(place), document, ("/root", "x" * 200), [], terminal=True))
    assert re.fullmatch("x{128}-[0-9a-f]{16}", made.name) and made.parent == place / "containers"
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in made.iterdir()}
    assert modes == {
        **dict.fromkeys(("rootfs", "upper", "work"), "0o755"),
        "image.json": "0o600",
        "config.json": "0o600",
    }
    assert json.loads((made / "image.json").read_text()) == {"chains": ["sha256:1"], "root": "/root", "id": "x" * 200}
    assert json.loads((made / "config.json").read_text()) == {"process": {"args": ["sh"], "terminal": True}}
    assert made.stat().st_mode & 0o7777 == 0o700
    locate.remove_bundle(str(made))
    locate.remove_bundle(str(made))
    locate.remove_bundle(str(place / "none/x"))
    assert os.listdir(place / "containers") == []
    other = Path(locate.make_bundle(str(place), document, ("/root", "c"), ["a", "b"], terminal=False))
    assert json.loads((other / "config.json").read_text()) == {"process": {"args": ["a", "b"], "terminal": False}}
    document["config"]["process"]["args"] = []
    with pytest.raises(UsageError, match="neither Entrypoint nor Cmd"):
        locate.make_bundle(str(place), document, ("/root", "c"), [], terminal=False)
    document["config"]["process"]["args"] = ["sh"]
    before = os.listdir(place / "containers")
    document["chains"] = object()
    with pytest.raises((TypeError, ValueError)):
        locate.make_bundle(str(place), document, ("/root", "c"), [], terminal=False)
    assert os.listdir(place / "containers") == before
    with pytest.raises(SysError, match=r"^--store \"/none/containers/c-.*\": mkdir: ENOENT"):
        locate.make_bundle("/none", document, ("/root", "c"), ["x"], terminal=False)


def test_a_bundle_that_cannot_be_removed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, word in ((errno.EIO, "EIO"), (errno.EACCES, "EACCES")):

        def fails(name: str, fd: int, number: int = number) -> None:
            raise OSError(number, "")

        monkeypatch.setattr(locate.fs, "remove_tree", fails)  # type: ignore[attr-defined]
        monkeypatch.setattr(locate.posix, "geteuid", lambda: 0)  # type: ignore[attr-defined]
        with pytest.raises(SysError, match=rf"^--store \"{place}/containers/x\": unlink: {word}"):
            locate.remove_bundle(str(place / "containers/x"))


# -- unpack ----------------------------------------------------------------------------------------


@root_only
@pytest.mark.parametrize("volumes", ["tmpfs", "bind"])
def test_an_unpacked_bundle(tmp_path: Path, volumes: str) -> None:
    config = {"Cmd": ["sh"], "Volumes": {"/data": {}}}
    source, found = image(tmp_path / "a", [tar(LOWER), tar(UPPER)], config)
    result = unpack.unpack(
        source, found, str(tmp_path / "b"), unpack.Options(volumes=volumes), Progress("", 0, quiet=True)
    )
    assert {key: result[key] for key in ("digest", "chainID", "warnings")} == {
        "digest": found.manifest.digest, "chainID": found.chain_id, "warnings": [],
    }  # fmt: skip
    assert json.loads((tmp_path / "b/config.json").read_text()) == result["config"]
    assert (tmp_path / "b/config.json").read_text().startswith('{\n\t"ociVersion"')
    files = content(tmp_path / "b/rootfs")
    assert "gone" not in files and files["bin/bash"].endswith("#!") and files["data"] == "drwxr-x--- 7:8 "
    modes = [oct((tmp_path / "b" / name).stat().st_mode & 0o7777) for name in ("", "rootfs", "config.json")]
    assert modes == ["0o700", "0o755", "0o644"]
    if volumes == "bind":
        assert "data/x" not in files and content(tmp_path / "b/volumes")["0"] == "drwxr-x--- 7:8 "
        assert (tmp_path / "b/volumes/0/x").read_text() == "y"
        assert (tmp_path / "b/volumes").stat().st_mode & 0o7777 == 0o755
    else:
        assert "data/x" in files and not (tmp_path / "b/volumes").exists()
    with pytest.raises(ImageError, match="is not empty: name a new directory"):
        unpack.unpack(source, found, str(tmp_path / "b"), unpack.Options(), Progress("", 0, quiet=True))
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_bundle_that_fails(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    source, found = image(tmp_path / "a", [tar([entry("x", b"1")]), tar([hard_link("y", "none")])])
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(PyruncError, match=r"layer 2 of 2 \("):
        unpack.unpack(source, found, str(tmp_path / "b"), unpack.Options(), Progress("", 0, quiet=True))
    assert sorted(os.listdir(tmp_path)) == ["a", "b"] and os.listdir(tmp_path / "b") == []
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_an_empty_image(tmp_path: Path) -> None:
    source, found = image(tmp_path / "a", [], {"Env": []})
    result = unpack.unpack(source, found, str(tmp_path / "b"), unpack.Options(), Progress("", 0, quiet=True))
    assert result["config"]["process"]["args"] == [] and (tmp_path / "b/rootfs").stat().st_mtime == 0


def test_leftovers_are_swept(tmp_path: Path) -> None:
    for name in (".pyrunc-unpack-1", ".pyrunc-unpack-2", "other"):
        (tmp_path / name / "x").mkdir(parents=True)
    (tmp_path / ".pyrunc-unpack-file").touch()
    held = os.open(tmp_path / ".pyrunc-unpack-2", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    top = os.open(tmp_path, os.O_RDONLY)
    assert unpack.sweep(top) == 1
    assert sorted(os.listdir(tmp_path)) == [".pyrunc-unpack-2", ".pyrunc-unpack-file", "other"]
    os.close(held)
    partial = unpack.Partial(str(tmp_path), "new")
    partial.make()
    assert unpack.sweep(top) == 0 and partial.made and os.fstat(partial.fd).st_mode & 0o7777 == 0o700
    (tmp_path / "new/full").mkdir(parents=True)
    with pytest.raises(SysError, match=r"^BUNDLE \".*/new\": rename: ENOTEMPTY"):
        partial.commit()
    partial.discard()
    partial.discard()
    partial.close()
    assert (partial.fd, partial.parent_fd) == (-1, -1) and sorted(os.listdir(tmp_path))[-2:] == ["new", "other"]
    with pytest.raises(SysError, match=r"^BUNDLE \"/none/x\": mkdir: ENOENT"):
        unpack.Partial("/none", "x").make()
    os.close(top)


# -- run --image -----------------------------------------------------------------------------------


def options(**more: Any) -> Any:
    given = {
        "id": "c1",
        "root": "/run/x",
        "console_socket": "",
        "detach": True,
        "bundle": ".",
        "image_bundle": "",
        **more,
    }
    return SimpleNamespace(overlay=[], log=SimpleNamespace(warning=lambda text: None), **given)


@pytest.fixture
def ready(place: Path, tmp_path: Path) -> str:
    """The reference of an image that is in the store."""
    (tmp_path / "img").write_text("x")
    name = f"{tmp_path}/img"
    document = {"digest": "sha256:i9", "chains": ["sha256:1"], "config": {"process": {"args": ["sh"]}}}
    (place / "images/sha256-i9.json").write_text(json.dumps(document))
    link_ = {"reference": name, "digest": "sha256:i9", "validator": locate.validator(name)}
    (place / "refs" / locate.encode_reference(name)).write_text(json.dumps(link_))
    (place / "lock").touch()
    return name


@pytest.mark.parametrize(
    ("values", "opts", "terminal"),
    [
        ({}, {}, False), ({"tty": True}, {}, True), ({"tty": False}, {"detach": False}, False),
        ({}, {"console_socket": "/s"}, True), ({}, {"detach": False, "console_socket": "/s"}, True),
        ({}, {"detach": False}, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ttys", [(0, 1), (0,), (1,), ()])
def test_the_terminal_of_an_image(
    place: Path, ready: str, monkeypatch: pytest.MonkeyPatch, values: Any, opts: Any, terminal: bool | None, ttys: Any
) -> None:
    """Without -t, the container gets a terminal if the caller has one."""
    monkeypatch.setattr(launch.posix, "isatty", lambda fd: fd in ttys)  # type: ignore[attr-defined]
    one = options(**opts)
    assert launch.prepare(SimpleNamespace(root=""), {"image": ready, "store": str(place), **values}, one, []) == 0  # type: ignore[arg-type]
    config = json.loads(Path(one.bundle, "config.json").read_text())
    assert config["process"]["terminal"] is (ttys == (0, 1) if terminal is None else terminal)
    assert one.bundle == one.image_bundle and Path(one.bundle).parent == place / "containers"
    assert one.overlay[0] == f"lowerdir={place}/l/1" and one.overlay[-1] == "volatile"
    assert one.overlay[1:3] == [f"upperdir={one.bundle}/upper", f"workdir={one.bundle}/work"]


def test_when_an_image_is_pulled(place: Path, ready: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pulled: list[str] = []
    status = 0

    def pull(context: Any, values: Any, store_: str) -> int:
        pulled.append(store_)
        return status

    monkeypatch.setattr(launch, "pull", pull)

    def prepare(**values: Any) -> int:
        pulled.clear()
        given = {"image": ready, "store": str(place), **values}
        return launch.prepare(SimpleNamespace(root=""), given, options(), ["a"])  # type: ignore[arg-type]

    assert prepare() == 0 and pulled == []
    assert prepare(pull="never") == 0 and pulled == []
    assert prepare(pull="always") == 0 and pulled == [str(place)]
    with pytest.raises(UsageError, match=rf"^--image /none: not in the store {place}, and --pull is never"):
        prepare(image="/none", pull="never")
    assert pulled == []
    with pytest.raises(SysError, match=r"^--image \"/none\": .*it disappeared after the pull"):
        prepare(image="/none")
    status = 5
    assert prepare(image="/none") == 5 and pulled == [str(place)]
    for wrong in ({"bundle": "b"}, {"config": "c"}):
        with pytest.raises(UsageError, match="--bundle and --config cannot be used"):
            prepare(**wrong)
    with pytest.raises(UsageError, match="expected missing, always, never"):
        prepare(pull="x")
    (place / "lock").unlink()
    assert prepare() == 5


def test_the_bundle_of_a_failed_create(place: Path, ready: str, monkeypatch: pytest.MonkeyPatch) -> None:
    context: Any = SimpleNamespace(root="")
    values: Any = {"image": ready, "store": str(place)}
    one = options()
    assert launch.launched(context, values, one, [], lambda opts: 3) == 3 and Path(one.bundle).is_dir()

    def fails(opts: Any) -> int:
        raise PyruncError("no")

    two = options()
    with pytest.raises(PyruncError, match=r"^no$"):
        launch.launched(context, values, two, [], fails)
    assert not Path(two.bundle).exists()
    said: list[str] = []
    three = options()
    three.log = SimpleNamespace(warning=said.append)

    def stuck(bundle: str) -> None:
        raise SysError("--store", "unlink", errno.EIO, value=bundle)

    monkeypatch.setattr(locate, "remove_bundle", stuck)
    with pytest.raises(PyruncError, match=r"^no$"):
        launch.launched(context, values, three, [], fails)
    assert len(said) == 1 and "unlink: EIO" in said[0]
    monkeypatch.setattr(launch, "prepare", lambda *args: 6)
    assert launch.launched(context, values, options(), [], fails) == 6
