"""Documents and names of images, as tables of inputs, results and calls.
golden/image_tables.txt has the tables.
"""

from __future__ import annotations

import errno
import importlib
import io
import json
import subprocess
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc.fs import salted
from pyrunc.image import convert, credentials, descriptor, errors, manifest, reference, registry, sources
from pyrunc.image.descriptor import Descriptor, Platform
from pyrunc.image.errors import ImageError, Within
from spies import Answers, By, alone
from test_results import Call, results
from test_session_steps import Row
from test_steps import Tables, World, calls_of, failed, rows

OCI, DOCKER = descriptor.OCI, descriptor.DOCKER
A, B = "sha256:" + "a" * 64, "sha512:" + "b" * 128
HELLO = descriptor.digest_of(b"hello")
AMD, ARM = {"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64"}


def described(kind: str = OCI + "layer.v1.tar", digest: str = A, size: int = 5, **more: Any) -> Descriptor:
    """A descriptor."""
    return Descriptor(kind, digest, size, **more)


def entry(kind: str = OCI + "layer.v1.tar", digest: str = A, size: int = 5, **more: Any) -> dict[str, Any]:
    """A descriptor in a document."""
    return {"mediaType": kind, "digest": digest, "size": size, **more}


def tagged(tag: str, digest: str = A) -> Descriptor:
    """An entry of an index with a tag."""
    return described(digest=digest, annotations={"org.opencontainers.image.ref.name": tag} if tag else {})


# -- descriptors and manifests ---------------------------------------------------------------------

CONFIG = entry(descriptor.CONFIGS[0])
PLAIN: dict[str, Any] = {"schemaVersion": 2, "config": CONFIG, "layers": [entry()]}
ROOTFS = {"type": "layers", "diff_ids": [A]}
IDS: list[Any] = [[], [A, A], {}, "x", ["x"], None]
PLAIN_TAR = OCI + "layer.v1.tar"


def pairs(kinds: list[str], config: Any) -> list[str]:
    """Layers of blobs of these types, a line each."""
    found = manifest.pair_layers([described(kind) for kind in kinds], config)
    return [f"{one.diff_id[:9]} {one.chain_id[:9]} {one.compression!r}" for one in found]


def parsed(changes: Any) -> str:
    """A manifest with these changes, of which ... removes: the types of its configuration and layers."""
    document = {name: value for name, value in (PLAIN | changes).items() if value is not ...}
    config, layers = manifest.parse_manifest(document, described(descriptor.MANIFESTS[0]))
    return f"{config.media_type} {len(layers)} {layers[0].media_type if layers else ''}"


def selected(tags: str, tag: str) -> str:
    """The entries for a tag; each is TAG@ and the letter of its digest."""
    listed = [
        tagged(name, {"a": A, "b": B}[letter]) for name, _, letter in (one.partition("@") for one in tags.split())
    ]
    return " ".join(f"{one.tag}@{one.digest[-1]}" for one in manifest._select(listed, tag))


class Index:
    """A source with nested documents by digest."""

    name, tag = "image", ""

    def __init__(self, **documents: bytes) -> None:
        self.documents = documents

    def open(self, wanted: Descriptor) -> Any:
        return io.BytesIO(self.documents[wanted.digest[-1]])


def nested(kinds: list[tuple[str, dict[str, str]]], documents: dict[str, bytes], platform: str = "linux/amd64") -> str:
    """The manifest that is chosen of entries of these kinds and platforms; documents by the digest's last
    character."""
    listed = []
    for number, (kind, said) in enumerate(kinds):
        content = documents.get(str(number), b"")
        listed.append(described(kind, descriptor.digest_of(content), len(content), platform=said, data=content))
    found = manifest._choose_manifest(source(), listed, manifest.parse_platform(platform), ())
    return f"entry {listed.index(found)}" if found in listed else found.media_type


def source(**documents: bytes) -> Any:
    """A source with these documents."""
    return Index(**documents)


def index_of(*entries: dict[str, Any], **more: Any) -> bytes:
    """An index as text."""
    return json.dumps({"schemaVersion": 2, "manifests": list(entries), **more}).encode()


MANIFEST, INDEX = descriptor.MANIFESTS[0], descriptor.INDEXES[0]
INNER = index_of(entry(MANIFEST, platform=ARM), entry(MANIFEST))
DOCUMENTS: dict[str, tuple[Call, list[Any]]] = {
    "descriptor.verify": (
        lambda data, size, digest: descriptor.verify(data, described(size=size, digest=digest)),
        [(b"hello", 5, HELLO), (b"hello", 4, HELLO), (b"hellO", 5, HELLO), (b"hello", 5, B),
         (b"hello", 5, descriptor.digest_of(b"hello", "sha512"))],
    ),
    "descriptor.short": (lambda digest: described(digest=digest).short, [A, B]),
    "descriptor.tag": (lambda tag: tagged(tag).tag, ["", "t"]),
    "descriptor.embedded": (
        lambda data: descriptor._embedded(data, "/p"), [None, "", "aGk=", "aGk", "aG k=", 5, "a-_=", b"aGk="]
    ),
    "descriptor.accepts": (
        lambda ours, found: Platform(*ours.split("/")).accepts(found),
        [(ours, {"os": system, "architecture": arch, "variant": variant})
         for ours in ("linux/amd64", "linux/arm64", "linux/arm64/v8", "linux/arm/v7")
         for system, arch in (("linux", "amd64"), ("linux", "arm64"), ("linux", "arm"), ("windows", "amd64"))
         for variant in ("", "v8", "v7", None)],
    ),
    "descriptor.Platform": (lambda *parts: str(Platform(*parts)), [("a", "b"), ("a", "b", "c"), ("a", "")]),
    "manifest.parse_platform": (
        lambda text: str(manifest.parse_platform(text)), ["a/b", "a/b/c", "a", "", "a/", "/b", "a//c", "a/b/c/d"]
    ),
    "manifest.select": (
        selected,
        [(tags, tag) for tags in ("", "@a", "a@a b@a", "a@a b@b", "a@a a@b", "@a @b", "h/r:a@a a@a", "h/r:a@a x@b",
                                     "@a b@b")
         for tag in ("", "a", "h/r:a", "none")],
    ),
    "manifest.choose": (
        nested,
        [([], {}), ([(MANIFEST, {})], {}), ([(MANIFEST, ARM), (MANIFEST, AMD)], {}), ([(MANIFEST, ARM)], {}),
         ([("a/b", {}), (MANIFEST, {})], {}), ([("a/b", {})], {}), ([(INDEX, {})], {"0": INNER}),
         ([(INDEX, ARM), (MANIFEST, {})], {"0": INNER}),
         ([(INDEX, {})], {"0": index_of(entry(MANIFEST, platform=ARM))}),
         ([(INDEX, {}), (MANIFEST, {})], {"0": index_of(entry("x/y"))}), ([(INDEX, {})], {"0": b"[]"}),
         ([(INDEX, {})], {"0": index_of(mediaType=descriptor.INDEXES[1])}),
         ([(INDEX, {})], {"0": index_of(entry(MANIFEST), mediaType=INDEX)}), ([(INDEX, {})], {"0": b"x"}),
         ([(f"a/{chr(97 + n)}", {}) for n in range(20)], {}), ([(MANIFEST, {"os": "x", "architecture": "y"})], {})],
    ),
    "manifest.trail": (
        lambda trail: manifest._choose_manifest(
            source(), [described(INDEX, descriptor.digest_of(b"[]"), 2, data=b"[]")], Platform("a", "b"), trail),
        [(trail,) for trail in ((), ("x",) * 7, ("x",) * 8, ("x",) * 9, (descriptor.digest_of(b"[]"),))],
    ),
    "manifest.check_media_type": (
        lambda document: manifest._check_media_type(document, described("a/b"), "what"),
        [{}, {"mediaType": "a/b"}, {"mediaType": "a/c"}, {"mediaType": None}, {"mediaType": ""}, [], None, "x"],
    ),
    "manifest.parse_manifest": (
        parsed,
        [{}, *({name: ...} for name in PLAIN), {"schemaVersion": 1}, {"manifests": []}, {"subject": None},
         {"subject": 5},
         {"subject": entry()}, {"layers": []}, {"layers": {}}, {"layers": [entry()] * 512}, {"layers": [entry()] * 513},
         {"layers": [entry(), 5]}, {"artifactType": "a/b"}, {"artifactType": ""}, {"config": entry(descriptor.EMPTY)},
         {"config": entry(descriptor.CONFIGS[1])}, {"mediaType": "a/b"}],
    ),
    "manifest.pair_layers": (
        pairs,
        [([PLAIN_TAR], config) for config in (
            {"rootfs": ROOTFS}, {}, [], {"rootfs": []}, {"rootfs": {"type": "layer", "diff_ids": [A]}},
            *({"rootfs": {"type": "layers", "diff_ids": ids}} for ids in IDS))]
        + [([kind], {"rootfs": ROOTFS}) for kind in (*descriptor.LAYERS, "a/b")]
        + [([], {"rootfs": {"type": "layers"}}),
           ([PLAIN_TAR] * 3, {"rootfs": {"type": "layers", "diff_ids": [A, B, A]}})],
    ),
    "manifest.check_platform": (
        manifest.check_platform,
        [(config, Platform("linux", "amd64"), force) for force in (True, False)
         for config in (AMD, ARM, {}, AMD | {"os": 5}, AMD | {"architecture": None}, AMD | {"variant": "v2"})],
    ),
    "manifest.read_blob": (
        lambda size, data, content: manifest.read_blob(
            source(a=content), described(digest=HELLO[:-1] + "a" if content == b"x" else HELLO, size=size, data=data)),
        [(5, b"hello", b""), (5, b"hellO", b""), (4 << 20, b"", b""), ((4 << 20) + 1, b"", b"")],
    ),
    "manifest.chain_id": (
        lambda chains: manifest.Image(
            described(), {}, [manifest.Layer(described(), A, chain, "") for chain in chains]).chain_id,
        [([],), (["x"],), (["x", "y"],)],
    ),
    "sources.check_layout": (
        sources.check_layout, [{"imageLayoutVersion": text} for text in ("1.0.0", "1.0.1", None)] + [{}, [], None]
    ),
    "sources.parse_index": (
        lambda document: [one.media_type for one in sources.parse_index(document, "what")],
        [{"schemaVersion": 2, "manifests": [entry()]}, {"schemaVersion": 2, "manifests": []}, {"schemaVersion": 2}, [],
         {"manifests": []}, {"schemaVersion": 1, "manifests": []}, {"schemaVersion": 2, "manifests": {}},
         {"schemaVersion": 2, "manifests": [], "layers": []}, {"schemaVersion": 2, "manifests": [], "config": {}},
         {"schemaVersion": 2, "manifests": [entry(), 5]}, {"schemaVersion": 2, "manifests": [], "subject": 5},
         {"schemaVersion": 2, "manifests": [], "subject": None}],
    ),
    "sources.read_json": (
        lambda data, limit: sources.read_json(io.BytesIO(data), "what", limit),
        [(b"[1]", 3), (b"[1]", 2), (b"[1]", 1 << 21), (b"x", 9), (b"", 0), (b" " * (1 << 20) + b"1", 1 << 20)],
    ),
    "registry.is_loopback": (
        registry.is_loopback,
        ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5", "[::2]", "a.localhost", "", "::1",
         "8.8.8.8"],
    ),
    "registry.repository": (
        registry._repository,
        [(host, name) for host in ("docker.io", "registry-1.docker.io", "index.docker.io", "a.b")
         for name in ("r", "o/r")],
    ),
    "credentials.basic": (lambda *given: credentials.Credentials(*given).basic(), [("u", "p"), ("\u00e4", ""), ()]),
    "reference.Registry": (
        lambda *given: (str(reference.Registry(*given)), reference.Registry(*given).by_digest),
        [("h", "r", "tag"), ("h:5", "o/r", A)],
    ),
    "errors": (
        lambda text, entry, *places: told(ImageError(text, entry=entry), places),
        [("t", None), ("t", "e"), ("t", "", "a"), ("t", None, "a", "b"), ("t\n", "\x1b", "p\x07")],
    ),
    "errors.Within": (lambda error: inside(error), [ImageError("t"), ValueError("v"), None]),
    "errors.chain": (
        lambda kind: [str(one) for one in errors.chain(linked(kind))], ["", "cause", "reason", "text", "long"]
    ),
    "convert.environment": (
        lambda env, home: convert._environment(env, SimpleNamespace(home=home)),  # type: ignore[arg-type]
        [(env, home) for env in ([], ["PATH=/x"], ["TERM"], ["HOME=/h", "A=b"], ["PATHS=1", "HOMER=2"])
         for home in ("/root", "", "root")],
    ),
    "convert.annotations": (
        lambda config, source: convert._annotations(SimpleNamespace(config=config), source),  # type: ignore[arg-type]
        [({}, {}), (dict.fromkeys(("os", "architecture", "variant", "os.version", "author", "created"), "v"), {}),
         ({"os.features": ["a", "b"]}, {"StopSignal": "9", "ExposedPorts": {"2/tcp": {}, "1": {}}}),
         ({"os": "x"}, {"Labels": {"a": "b", "org.opencontainers.image.os": "mine"}}), ({}, {"Labels": {"a": 5}}),
         ({}, {"Labels": []}), ({}, {"ExposedPorts": []}), ({}, {"StopSignal": 9}), ({"author": 5}, {})],
    ),
    "convert.with_command": (
        lambda args, command: convert.with_command(running(args), command)["process"],
        [(args, command) for args in ([], ["a"]) for command in ([], ["b", "c"])],
    ),
}  # fmt: skip


def running(args: list[str]) -> Any:
    """A configuration with a command line."""
    return {"process": {"args": args}}


def told(error: ImageError, places: tuple[str, ...]) -> str:
    """An error in these places."""
    for place in places:
        assert error.within(place) is error
    return f"{error} | {error.text!r} {error.places}"


def inside(error: Exception | None) -> str:
    """What an error is after it has left a place."""
    try:
        with Within("place"):
            if error is not None:
                raise error.with_traceback(None)
    except Exception as found:
        return f"{type(found).__name__}: {found}"
    return "nothing"


def linked(kind: str) -> BaseException | None:
    """An error with a cause of this kind."""
    if not kind:
        return None
    outer: Any = ValueError("outer")
    if kind == "cause":
        outer.__cause__, outer.__context__ = ValueError("cause"), ValueError("context")
    elif kind in ("reason", "text"):
        outer.reason = ValueError("reason") if kind == "reason" else "text"
    else:
        outer.__cause__ = outer
    return outer  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_results(name: str) -> None:
    call, cases = DOCUMENTS[name]
    transcript.compare("image_tables", name, results(call, cases))


# -- calls -----------------------------------------------------------------------------------------

PATHS = By({"/d": True, "/f:a": True, "/f": True, "oci": False, None: False})
LOCAL: dict[str, Any] = {
    "os.path.lexists": False, "os.path.isdir": False, "_is_layout": False, "split_tag": ("/p", "t"), "os.stat": None,
}  # fmt: skip


def located(name: str, *args: Any) -> Callable[[World], Any]:
    """A call of a function of `reference`; os.path is a spy as well."""

    def call(w: World) -> Any:
        path = w.spy("os.path")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reference, "os", w.spy("os", path=path))
            return alone(reference, name, *args)(w)

    return call


def tables_of_reference() -> dict[str, Row]:
    """The places of an image."""
    texts = ["oci:/p:t", "oci-archive:/p", "docker-archive:/p", "docker:/p", "/p", "oci", "host.name/image", "./image"]
    return {
        "split_tag": (located("split_tag", "$text"), [
            {"WITH": {"text": text}, "os.path.lexists": PATHS}
            for text in ("/d", "/d:t", "/f:a", "/f:a:t", "/x", "/x:t", "/f:b:c", "", ":t", "/x:a:b:c")
        ]),
        "open_local": (located("open_local", "$text"), [
            {"WITH": {"text": text}, "os.path.isdir": directory, "_is_layout": layout, "os.path.lexists": there}
            for text in texts for directory, layout, there in (
                (True, False, False), (False, True, False), (False, False, False), (True, True, True))
        ] + [{"WITH": {"text": text}, "os.stat": failed(errno.ENOENT)} for text in (
            *texts, "../x.y", "a/b.c", "host.name")]),
    }  # fmt: skip


AUTH: dict[str, Any] = {
    "_ask": "ASKED", "_row": "ROW", "os.environ": {}, "os.getuid": 7, "sources.parse_json":
        {"Username": "u", "Secret": "s"},
}  # fmt: skip


def done(status: int = 0, out: bytes = b"", err: bytes = b"") -> Any:
    """A helper that has ended."""
    return SimpleNamespace(returncode=status, stdout=out, stderr=err)


HOSTS = ("a.b", "docker.io", "index.docker.io", "registry-1.docker.io")
KEYS = (
    "{h}/o/r",
    "{h}/o",
    "{h}",
    "docker.io",
    credentials.DOCKER_HUB,
    "https://{h}",
    "https://{h}/v1/",
    "https://{h}/v2/",
)


def kept(host: str) -> list[dict[str, Any]]:
    """Files with one key."""
    return [{part: {key.format(h=host): value}} for key in KEYS
            for part, value in (("auths", {"auth": "x"}), ("credHelpers", "h"))]  # fmt: skip


FOUND: list[dict[str, Any]] = [
    {}, {"auths": []}, {"credHelpers": []}, {"auths": {"a.b": {}}}, {"auths": {"a.b": "x"}}, {"credsStore": "s"},
    {"credsStore": ""}, {"credsStore": 5}, {"credHelpers": {"a.b": 5}, "auths": {"a.b": {"auth": "x"}}},
    {"credHelpers": {"a.b": "h"}, "auths": {"a.b/o/r": {"auth": "x"}}, "credsStore": "s"},
    {"auths": {"a.b": {"auth": "x"}}, "credsStore": "s"}, {"auths": {"a.b/o": {"1": 1}, "a.b": {"2": 2}}},
]  # fmt: skip
VARIABLES = ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "HOME", "DOCKER_CONFIG", "XDG_CONFIG_HOME")


def searched(w: World) -> Any:
    """find() with files that are there or not."""
    w.answers["open"] = Answers([*w.extra["files"]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(credentials, "open", spies.noting("open", w.notes, w.answers), raising=False)
        return alone(credentials, "find", "a.b", "o/r", w.extra.get("chosen", ""))(w)


STREAM, MISSING = spies.Spy("stream", [], {}), failed(errno.ENOENT)
CREDENTIALS: dict[str, Row] = {
    "auth_files": (alone(credentials, "auth_files", "$chosen"), [
        {"WITH": {"chosen": chosen}, "os.environ": environ}
        for chosen in ("", "/chosen") for environ in ({}, *({name: f"/{name}"} for name in VARIABLES), {"HOME": ""})
    ]),
    "find": (searched, [
        {"WITH": {"files": files, "chosen": chosen}, "auth_files": ["/1", "/2"],
         "sources.read_json": Answers(documents), "_in_file": found}
        for files, chosen, documents, found in (
            ([STREAM, STREAM], "", [{"a": 1}, []], "FOUND"), ([STREAM, STREAM], "", [[], {"a": 1}], None),
            ([MISSING, STREAM], "", [{"a": 1}], "FOUND"), ([MISSING, MISSING], "", [{}], None),
            ([MISSING, STREAM], "/c", [{}], "FOUND"), ([failed(errno.EACCES)], "", [{}], "FOUND"),
            ([OSError("none")], "", [{}], "FOUND"), ([STREAM], "", [ImageError("no JSON")], "FOUND"))
    ]),
    "in_file": (alone(credentials, "_in_file", "$document", "$host", "o/r", "/file"), [
        {"WITH": {"document": document, "host": host}} for host in HOSTS for document in kept(host)
    ] + [
        {"WITH": {"document": document, "host": "a.b"}} for document in FOUND
    ]),
    "ask": (alone(credentials, "_ask", "$helper", "server"), [
        {"WITH": {"helper": "h"}, "subprocess.run": found, "sources.parse_json": answer}
        for found, answer in (
            (done(), {"Username": "u", "Secret": "s"}), (done(out=b"{}"), {}), (done(), {"Username": "<token>",
                "Secret": "s"}),
            (done(), []), (done(out=b"x" * 65537), {"Username": None, "Secret": None}),
            (done(1, b"credentials not found"), {}), (done(1, b"", b"credentials not found in x"), {}),
            (done(1, b" out ", b"err" * 99), {}), (done(1, b"\xff"), {}), (failed(errno.ENOENT), {}),
            (failed(errno.EACCES), {}),
            (subprocess.TimeoutExpired("h", 30), {}))
    ] + [{"WITH": {"helper": helper}} for helper in ("", "a/b", "a b", "../x")]),
}  # fmt: skip
BAR: dict[str, Any] = {
    "os.isatty": True, "time.monotonic": Answers([1.0, 1.05, 1.11, 1.3]), "os.get_terminal_size":
        SimpleNamespace(columns=80),
}  # fmt: skip


def drawn(w: World) -> Any:
    """A bar that advances."""
    module = importlib.import_module("pyrunc.image.progress")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "sys", SimpleNamespace(stderr=w.spy("stderr")))
        one = module.Progress("label", w.extra.get("total", 1000), quiet=w.extra.get("quiet", False))
        for count in w.extra.get("counts", (100, 200, 300, 400)):
            one.advance(count)
        one.end()
    return one.enabled, one.done, one.drawn


PROGRESS: dict[str, Row] = {
    "bar": (drawn, [
        {}, {"WITH": {"quiet": True}}, {"WITH": {"total": 0}}, {"WITH": {"total": 1}}, {"os.isatty": False},
        {"WITH": {"counts": ()}}, {"WITH": {"total": 5_000_000, "counts": (2_500_000, 9_000_000)}},
        *({"os.get_terminal_size": SimpleNamespace(columns=columns)} for columns in (
            20, 38, 39, 40, 50, 68, 69, 70, 200)),
        {"WITH": {"counts": (1, 1)}, "time.monotonic": Answers([0.1, 0.1])},
    ]),
}  # fmt: skip


def member(kind: str = "file", link: str = "", size: int = 5) -> Any:
    """A member of an archive."""
    return SimpleNamespace(name="dir/name", linkname=link, size=size, isreg=lambda: kind == "file",
                           islnk=lambda: kind == "link", issym=lambda: kind == "symlink")  # fmt: skip


def archived(name: str, *args: Any) -> Callable[[World], Any]:
    """A call of a method of an archive with these members."""

    def call(w: World) -> Any:
        members = {salted(name): one for name, one in w.extra.get("members", {}).items()}
        one = w.made(sources.DockerArchive, name, members=members, tar=w.spy("tar"), blobs={})
        given = [w.extra[arg[1:]] for arg in args]
        return getattr(one, name)(*given), {key[:12]: value[0] for key, value in one.blobs.items()}

    return call


IMAGE = b'{"rootfs": {"diff_ids": ["%s", "%s"]}}' % (A.encode(), HELLO.encode())
SAVED: dict[str, Row] = {
    "stream": (archived("stream", "$name"), [
        {"WITH": {"name": name, "members": members}}
        for name, members in (
            ("a", {"a": member()}), ("./a", {"a": member()}), ("a", {}),
            ("a", {"a": member("link", "b"), "b": member()}),
            ("a", {"a": member("symlink", "../b"), "b": member()}), ("a", {"a": member("link", "a")}),
            ("a", {"a": member("symlink", "b"), "dir/b": member()}), ("a", {"a": member("link", "b")}),
            *(("m0", {f"m{n}": member("link", f"m{n + 1}") for n in range(count)} | {f"m{count}": member()})
              for count in (6, 7, 8)))
    ]),
    "manifest": (archived("_manifest", "$entry"), [
        {"WITH": {"entry": entry_, "members": {"l1": member(), "l2": member("symlink")}}, "stream": content}
        for entry_, content in (
            ({"Config": "c", "Layers": ["l1", "./l2"]}, IMAGE), ({"Config": 5, "Layers": []}, IMAGE),
            ({"Config": "c", "Layers": {}}, IMAGE), ({"Config": "c", "Layers": ["l"] * 513}, IMAGE),
            ({"Config": "c", "Layers": ["l"] * 512}, IMAGE), ({"Config": "c", "Layers": ["l1"]}, IMAGE),
            ({"Config": "c", "Layers": ["l1", 5]}, IMAGE), ({"Config": "c", "Layers": []}, b"[]"),
            ({"Config": "c", "Layers": []}, b'{"rootfs": null}'), ({"Config": "c", "Layers": []}, b"x"),
            ({"Config": "c", "Layers": ["l1"]}, b'{"rootfs": {"diff_ids": ["x"]}}'), ({}, IMAGE))
    ]),
}  # fmt: skip


def content_of(w: World, name: str) -> Any:
    """A method of a saved image whose members have the content that the case gives."""
    call = SAVED[name][0]
    text = w.answers.get("stream")
    if isinstance(text, bytes):
        w.answers["stream"] = Content(text)
    return call(w)


class Content(By):
    """A new stream for each call."""

    def __init__(self, text: bytes) -> None:
        super().__init__()
        self.text = text

    def of(self, args: tuple[Any, ...]) -> Any:
        return io.BytesIO(self.text)


TABLES: Tables = [
    ("pyrunc.image.reference", tables_of_reference(), LOCAL, ("LayoutDirectory", "LayoutArchive", "DockerArchive")),
    ("pyrunc.image.credentials", CREDENTIALS, AUTH, ()),
    ("pyrunc.image.progress", PROGRESS, BAR, ()),
]


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("image_tables", f"{module.rpartition('.')[2]}.{name}", calls_of(module, name, TABLES))


@pytest.mark.parametrize("name", SAVED)
def test_the_members_of_a_saved_image(name: str) -> None:
    lines = []
    for case in SAVED[name][1]:
        w = World(dict(case))
        lines += [f"case {spies.told(case, 6)[:120]}", *spies.record(content_of, (w, name), w.notes)]
    transcript.compare("image_tables", f"sources.{name}", lines)
