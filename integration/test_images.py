"""Images end to end: unpacking compared with umoci, containers started from images, a registry, and
killed processes."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.harness import REPO, SLOW, Box, Result

sys.path.insert(0, str(REPO / "tests"))
from image_support import Layout, entry, hard_link, link, tar

pytestmark = pytest.mark.pyrunc_only("images are the business of engines elsewhere")
Entries = list[tuple[tarfile.TarInfo, bytes]]
Images = Callable[..., Result]
HIDDEN = ".pyrunc-unpack-"


def busybox_layer(template: Path) -> bytes:
    """The tests' root filesystem as an image layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(template, ".")
    return out.getvalue()


ODD = [
    entry("odd/", mode=0o1770, uid=1000, gid=1000),
    entry("odd/suid", b"#!/bin/sh\n", mode=0o6755, uid=1000, gid=5),
    entry("odd/xattr", b"x", pax_headers={"SCHILY.xattr.user.name": "value", "mtime": "1500000000.25"}),
    hard_link("odd/hard", "odd/suid"),
    link("odd/link", "/etc/passwd"),
    link("odd/dangling", "../../../nowhere"),
    entry("odd/fifo", type=tarfile.FIFOTYPE, mode=0o600),
    entry("odd/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
    entry('odd/caf\u00e9 \\ "quoted"', b"name"),
    entry("lower/"),  # without this entry its time would be the time of unpacking
    entry("lower/a", b"a"),
    entry("lower/b", b"b"),
    entry("lower/sub/"),
    entry("lower/sub/c", b"c"),
    entry("gone", b""),
]
CHANGES = [
    entry(".wh.gone", b""),
    entry("lower/.wh..wh..opq", b""),
    entry("lower/new", b"new"),
    entry("odd/link/", mode=0o700),
    entry("odd/suid", b"changed", mode=0o755),
    entry("odd/.wh.fifo", b""),
]


@pytest.fixture
def layout(box: Box, rootfs: Path) -> Layout:
    made = Layout(box.path / "layout")
    layers = [busybox_layer(rootfs), tar(ODD), tar(CHANGES)]
    config = {"Cmd": ["sh", "-c", "echo default $GREETING"], "Env": ["PATH=/bin", "GREETING=hello"], "User": "user"}
    return made.tag(made.image(layers, config, compress="gzip"), "busy")


@pytest.fixture
def images(box: Box) -> Images:
    """Call the runtime with the test's image store."""

    def call(verb: str, *args: str, **options: Any) -> Result:
        store = [] if verb == "unpack" else ["--store", str(box.path / "store")]
        return box.runtime.call("--root", str(box.root), verb, *store, *args, timeout=60 * SLOW, **options)

    return call


def described(root: Path) -> dict[str, tuple[Any, ...]]:
    """All metadata and content of every file except its inode."""
    found = {}
    links: dict[tuple[int, int], str] = {}
    for directory, names, files in os.walk(root):
        for name in sorted([*names, *files]):
            path = os.path.join(directory, name)
            info = os.lstat(path)
            inner = os.path.relpath(path, root)
            first = links.setdefault((info.st_dev, info.st_ino), inner)
            content: object = None
            if stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(info.st_mode):
                content = Path(path).read_bytes()
            xattrs = {
                key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
            }
            found[inner] = (
                info.st_mode,
                info.st_uid,
                info.st_gid,
                info.st_rdev,
                info.st_mtime_ns,
                first,
                content,
                xattrs,
            )
    return found


def unpacked(images: Images, layout: Layout, bundle: Path, *options: str) -> Path:
    result = images("unpack", *options, f"{layout.path}:busy", str(bundle))
    assert result.rc == 0, result
    return bundle


@pytest.mark.needs_program("umoci")
def test_the_same_tree_as_umoci(box: Box, images: Images, layout: Layout) -> None:
    ours = described(unpacked(images, layout, box.path / "ours") / "rootfs")
    subprocess.run(
        ["umoci", "unpack", "--image", f"{layout.path}:busy", str(box.path / "theirs")], check=True, capture_output=True
    )
    theirs = described(box.path / "theirs/rootfs")
    assert len(ours) > 60 and ours.keys() == theirs.keys()
    assert {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]} == {}


def test_unpack_and_run(box: Box, images: Images, layout: Layout) -> None:
    bundle = unpacked(images, layout, box.path / "bundle")
    assert os.stat(bundle).st_mode & 0o7777 == 0o700  # its set-user-ID files must not be reachable
    assert sorted(path.name for path in bundle.iterdir()) == ["config.json", "rootfs"]
    result = box.runtime.call("--root", str(box.root), "run", "-b", str(bundle), f"{box.prefix}a", timeout=20 * SLOW)
    assert (result.rc, result.out) == (0, "default hello\n"), result


def test_json_answer(box: Box, images: Images, layout: Layout) -> None:
    result = images("unpack", "--json", str(layout.path), str(box.path / "bundle"))
    answer = json.loads(result.out)
    assert answer["digest"] == layout.manifests[0]["digest"] and answer["chainID"].startswith("sha256:")
    assert answer["config"] == json.loads((box.path / "bundle/config.json").read_text())


def test_bind_volumes_have_the_content_of_the_image(box: Box, images: Images, rootfs: Path) -> None:
    layout = Layout(box.path / "layout")
    layers = [busybox_layer(rootfs), tar([entry("data/", mode=0o755, uid=7), entry("data/file", b"content")])]
    layout.tag(layout.image(layers, {"Cmd": ["cat", "/data/file"], "Volumes": {"/data": {}}}), "busy")
    bundle = unpacked(images, layout, box.path / "bundle", "--volumes", "bind")
    assert (bundle / "volumes/0/file").read_bytes() == b"content" and os.stat(bundle / "volumes/0").st_uid == 7
    result = box.runtime.call("--root", str(box.root), "run", "-b", str(bundle), f"{box.prefix}a", timeout=20 * SLOW)
    assert (result.rc, result.out) == (0, "content"), result


@pytest.mark.parametrize("there", [["file"], []])
def test_the_bundle_must_be_new_or_empty(box: Box, images: Images, layout: Layout, there: list[str]) -> None:
    bundle = box.path / "bundle"
    bundle.mkdir()
    for name in there:
        (bundle / name).write_text("")
    result = images("unpack", str(layout.path), str(bundle))
    assert (result.rc != 0) == bool(there), result
    assert ("is not empty" in result.err) == bool(there)


def leftovers(box: Box) -> list[str]:
    return [path.name for path in box.path.iterdir() if path.name.startswith((HIDDEN, "bundle"))]


def test_a_failing_unpack_leaves_nothing(box: Box, images: Images, layout: Layout) -> None:
    blobs = [path.read_bytes() for path in (layout.path / "blobs/sha256").iterdir()]
    found = [json.loads(data) for data in blobs if data.startswith(b"{")]
    layers = next(document["layers"] for document in found if "layers" in document)
    blob = layout.path / "blobs/sha256" / layers[-1]["digest"][7:]
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    result = images("unpack", str(layout.path), str(box.path / "bundle"))
    assert result.rc == 1 and len(result.err.splitlines()) == 1, result
    assert f"{layout.path}: manifest sha256:" in result.err and "layer 3 of 3" in result.err
    assert leftovers(box) == []


def test_a_killed_unpack_leaves_what_the_next_one_removes(box: Box, images: Images, layout: Layout) -> None:
    layout.tag(layout.image([tar([entry(f"file{number}", bytes(8 << 20)) for number in range(32)])]), "large")
    child = subprocess.Popen([box.runtime.path, "unpack", f"{layout.path}:large", str(box.path / "bundle")])
    limit = time.monotonic() + 20 * SLOW
    while not leftovers(box) and time.monotonic() < limit:
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    assert [name for name in leftovers(box) if name.startswith(HIDDEN)] == leftovers(box) != []
    unpacked(images, layout, box.path / "bundle")
    assert leftovers(box) == ["bundle"]


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_a_layout_of_other_things_than_files(box: Box, images: Images, layout: Layout, kind: str) -> None:
    index = layout.path / "index.json"
    index.unlink()
    os.mkfifo(index) if kind == "fifo" else index.mkdir()
    result = images("unpack", str(layout.path), str(box.path / "bundle"))
    assert result.rc == 1 and ("not a regular file" in result.err or "EISDIR" in result.err), result


# -- containers of images --------------------------------------------------------------------------


def test_run_image(box: Box, images: Images, layout: Layout) -> None:
    image = f"{layout.path}:busy"
    first = images("run", "--image", image, f"{box.prefix}a")
    assert (first.rc, first.out) == (0, "default hello\n"), first
    script = "touch /tmp/new && ls /lower /odd && id -u && grep -c overlay /proc/mounts; exit 7"
    second = images("run", "--pull", "never", "--image", image, f"{box.prefix}b", "sh", "-c", script)
    assert second.rc == 7 and "new" in second.out and "fifo" not in second.out, second
    # The first container's changes are gone, and neither container leaves anything behind.
    third = images("run", "--image", image, f"{box.prefix}c", "ls", "/tmp")
    assert third.out == "", third
    assert list((box.path / "store/containers").iterdir()) == []
    listed = json.loads(images("images", "--json").out)
    assert [row["references"] for row in listed] == [[image]] and listed[0]["layers"] == 3


def test_a_relative_path(box: Box, images: Images, layout: Layout) -> None:
    result = images("run", "--image", "layout:busy", f"{box.prefix}a", cwd=box.path)
    assert (result.rc, result.out) == (0, "default hello\n"), result
    assert images("run", "--pull", "never", "--image", str(layout.path) + ":busy", f"{box.prefix}b").rc == 0


def test_create_image_start_delete(box: Box, images: Images, layout: Layout) -> None:
    id = f"{box.prefix}a"
    assert images("create", "--image", str(layout.path), id, "sh", "-c", "mkdir -p /deep/er; sleep 100").rc == 0
    bundle = next((box.path / "store/containers").iterdir())
    call = box.runtime.call
    root = ("--root", str(box.root))
    assert json.loads(call(*root, "state", id).out)["bundle"] == str(bundle)
    assert call(*root, "start", id).rc == 0
    result = images("images", "prune", "--all", "--json")
    assert json.loads(result.out)["containers"] == 0 and bundle.exists()
    assert call(*root, "exec", id, "ls", "/bin/busybox").rc == 0  # the layers still exist
    assert call(*root, "delete", "-f", id).rc == 0
    assert not bundle.exists()
    counts = json.loads(images("images", "prune", "--all", "--json").out)
    assert counts["layers"] + counts["images"] > 0
    assert list((box.path / "store/layers").iterdir()) == list((box.path / "store/l").iterdir()) == []


def test_a_container_that_cannot_be_started_leaves_no_bundle(box: Box, images: Images, layout: Layout) -> None:
    result = images("run", "--image", str(layout.path), f"{box.prefix}a", "/no/such/program")
    assert result.rc != 0 and "no such file or directory" in result.err, result
    assert list((box.path / "store/containers").iterdir()) == []


def test_a_changed_layout_is_pulled_again(box: Box, images: Images, layout: Layout, rootfs: Path) -> None:
    image = str(layout.path)
    assert images("run", "--image", image, f"{box.prefix}a").out == "default hello\n"
    layout.manifests.clear()
    layout.tag(layout.image([busybox_layer(rootfs)], {"Cmd": ["echo", "other"]}), "busy")
    assert images("run", "--image", image, f"{box.prefix}b").out == "other\n"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--image", "LAYOUT", "--bundle", "/x", "ID"], "creates its own bundle"),
        (["--image", "LAYOUT", "--pull", "sometimes", "ID"], "expected missing, always, never"),
        (["--image", "LAYOUT", "--pull", "never", "ID"], "not in the store"),
        (["--image", "/nowhere", "ID"], "ENOENT"),
        (["--image", "LAYOUT", "../x"], "invalid container"),
    ],
)
def test_usage(box: Box, images: Images, layout: Layout, args: list[str], text: str) -> None:
    words = [{"LAYOUT": str(layout.path), "ID": f"{box.prefix}a"}.get(word, word) for word in args]
    result = images("run", *words)
    assert result.rc != 0 and text in result.err and len(result.err.splitlines()) == 1, result


def test_a_store_that_others_may_write_is_refused(box: Box, images: Images, layout: Layout) -> None:
    assert images("images", "pull", str(layout.path)).rc == 0
    (box.path / "store").chmod(0o777)
    for verb in (("run", "--image", str(layout.path), f"{box.prefix}a"), ("images", "list")):
        result = images(*verb)
        assert result.rc != 0 and "writable by nobody else" in result.err, result


# -- a registry ------------------------------------------------------------------------------------


class Registry:
    """Debian's docker-registry on loopback, optionally with TLS and a password."""

    def __init__(self, path: Path, *, secure: bool = False) -> None:
        self.path, self.secure = path, secure
        path.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"accesslog": {"disabled": True}, "level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(path / "data")}},
            "http": {"addr": f"127.0.0.1:{self.port}"},
        }
        if secure:
            subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
            key, certificate = str(path / "key"), str(path / "ca.crt")
            command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
            subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
            config["http"]["tls"] = {"certificate": certificate, "key": key}
            done = subprocess.run(["htpasswd", "-Bbn", "me", "secret"], check=True, capture_output=True, text=True)
            (path / "htpasswd").write_text(done.stdout)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(path / "htpasswd")}}
        (path / "config.yml").write_text(json.dumps(config))
        log = open(path / "log", "wb")  # noqa: SIM115
        self.process = subprocess.Popen(["docker-registry", "serve", str(path / "config.yml")], stdout=log, stderr=log)
        limit = time.monotonic() + 20 * SLOW
        while time.monotonic() < limit:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("the registry does not listen")

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def push(self, source: str, name: str, *options: str) -> None:
        """The archive is written by another program."""
        words = ["skopeo", "copy", "--dest-tls-verify=false", *options]
        if self.secure:
            words += ["--dest-creds", "me:secret"]
        subprocess.run([*words, source, f"docker://{self.host}/{name}"], check=True, capture_output=True)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


needs_registry = pytest.mark.needs_program("docker-registry", "skopeo", "htpasswd", "openssl")


@pytest.fixture
def registry(box: Box) -> Iterator[Callable[..., Registry]]:
    made: list[Registry] = []

    def start(*, secure: bool = False) -> Registry:
        made.append(Registry(box.path / f"registry{len(made)}", secure=secure))
        return made[-1]

    yield start
    for one in made:
        one.close()


@needs_registry
@pytest.mark.parametrize("options", [(), ("--dest-compress-format", "zstd"), ("--format", "v2s2")])
def test_pull_from_a_registry(
    box: Box, images: Images, layout: Layout, registry: Callable[..., Registry], options: tuple[str, ...]
) -> None:
    server = registry()
    server.push(f"oci:{layout.path}:busy", "team/busy:1", *options)
    result = images("unpack", f"docker://{server.host}/team/busy:1", str(box.path / "pulled"))
    assert result.rc == 0, result
    assert described(box.path / "pulled/rootfs") == described(unpacked(images, layout, box.path / "local") / "rootfs")
    run = images("run", "--image", f"docker://{server.host}/team/busy:1", f"{box.prefix}a")
    assert (run.rc, run.out) == (0, "default hello\n"), run
    missing = images("unpack", f"docker://{server.host}/team/busy:2", str(box.path / "missing"))
    assert missing.rc == 1 and "HTTP status 404 (MANIFEST_UNKNOWN" in missing.err, missing


@needs_registry
def test_tls_and_password(box: Box, images: Images, layout: Layout, registry: Callable[..., Registry]) -> None:
    server = registry(secure=True)
    server.push(f"oci:{layout.path}:busy", "busy:1")
    image = f"docker://{server.host}/busy:1"
    certificates = box.path / "certificates"
    certificates.mkdir()
    shutil.copy(server.path / "ca.crt", certificates)
    auth = box.path / "auth.json"
    auth.write_text(json.dumps({"auths": {server.host: {"auth": "bWU6c2VjcmV0"}}}))
    right = ["--cert-dir", str(certificates), "--authfile", str(auth)]
    untrusted = images("unpack", image, str(box.path / "x"))
    assert untrusted.rc == 1, untrusted
    anonymous = images("unpack", *right[:2], image, str(box.path / "x"))
    assert anonymous.rc == 1 and "HTTP status 401" in anonymous.err and "--authfile" in anonymous.err, anonymous
    assert images("unpack", *right, image, str(box.path / "x")).rc == 0
    auth.write_text(json.dumps({"auths": {server.host: {"auth": "bWU6d3Jvbmc="}}}))
    assert "HTTP status 401" in images("unpack", *right, image, str(box.path / "y")).err
    helper = box.path / "bin"
    helper.mkdir()
    (helper / "docker-credential-test").write_text(
        '#!/bin/sh\nread x; echo "{\\"Username\\":\\"me\\",\\"Secret\\":\\"secret\\"}"\n'
    )
    (helper / "docker-credential-test").chmod(0o755)
    auth.write_text(json.dumps({"credHelpers": {server.host: "test"}}))
    env = {"PATH": f"{helper}:{os.environ['PATH']}"}
    assert images("unpack", *right, image, str(box.path / "z"), env=env).rc == 0


@needs_registry
def test_mirror(box: Box, images: Images, layout: Layout, registry: Callable[..., Registry]) -> None:
    server = registry()
    server.push(f"oci:{layout.path}:busy", "busy:1")
    image = "docker://127.0.0.1:1/busy:1"  # no server listens there
    assert images("unpack", image, str(box.path / "x")).rc == 1
    assert images("unpack", "--mirror", server.host, image, str(box.path / "x")).rc == 0


def test_another_machine_needs_tls(images: Images, box: Box) -> None:
    result = images("unpack", "docker://registry.invalid/x:1", str(box.path / "x"))
    assert result.rc == 1 and "registry.invalid" in result.err and len(result.err.splitlines()) == 1, result
