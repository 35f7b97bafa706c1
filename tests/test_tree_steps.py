"""What the walk in an image's root filesystem asks of the system, and requests to a registry, as in
test_steps.py. golden/tree_steps.txt has the tables.
"""

from __future__ import annotations

import errno
import itertools
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")
pytest.importorskip("urllib3")

import spies
import transcript
from pyrunc.fs import salted
from pyrunc.image import registry, tree
from pyrunc.image.credentials import Credentials
from pyrunc.image.descriptor import INDEXES, MANIFESTS, Descriptor
from pyrunc.image.errors import ImageError
from spies import Answers
from test_session_steps import Row
from test_steps import Tables, World, calls_of, failed, rows

# -- the tree --------------------------------------------------------------------------------------


class Short(tree.Directory):
    """A directory that is short in a table: its keys are different in each run."""

    called = "directory"


DIRECTORY, OTHER, REGULAR, LINK = (
    SimpleNamespace(st_mode=mode, st_dev=dev, st_atime_ns=5, st_mtime_ns=6)
    for mode, dev in ((0o040755, 1), (0o040755, 2), (0o100644, 1), (0o120777, 1))
)
FILES: dict[str, Any] = {
    "os.fstat": DIRECTORY, "os.stat": DIRECTORY, "os.open": Answers(list(range(60, 90))), "os.readlink": "/x",
        "os.listdir":
        ["new", "old", "both"],
}  # fmt: skip


def made(w: World) -> Any:
    """A tree of three directories: a, a/b and c."""
    one = tree.Tree(50, w.extra.get("depth", 9))
    a, c = Short("a", one.root), Short("c", one.root)
    a.children[salted("b")] = Short("b", a)
    one.root.children |= {salted("a"): a, salted("c"): c}
    one.max_open = w.extra.get("open", one.max_open)
    return one


def after(one: Any, result: Any) -> Any:
    """A result, and the tree: paths with their times and new names, and what is open."""
    pending, found = [one.root], list[str]()
    while pending:
        at = pending.pop()
        names = sorted(name for name in NAMES if salted(name) in at.made)
        found.append(f"{at.path()} {at.depth()} {at.mtime} {names}")
        pending += at.children.values()
    path = result.path() if isinstance(result, tree.Directory) else result
    return path, sorted(found), [(at.path(), fd) for at, fd in one.fds.items()]


NAMES = ("a", "b", "c", "new", "old", "both", "x", "y", "z")


def walked(name: str, *args: Any, **more: Any) -> Callable[[World], Any]:
    """A call of a method; "/path" is a directory of the tree."""

    def call(w: World) -> Any:
        one = made(w)
        given = [w.extra.get(arg[1:], "") if isinstance(arg, str) and arg[:1] == "$" else arg for arg in args]
        given = [directory(one, arg) if isinstance(arg, str) and arg[:1] == "/" else arg for arg in given]
        if w.extra.get("opened"):
            for path in w.extra["opened"]:
                one.fd(directory(one, path))
        return after(one, getattr(one, name)(*given, **{key: w.extra[key] for key in more}))

    return call


def directory(one: Any, path: str) -> Any:
    """A directory of the tree."""
    at = one.root
    for part in path.strip("/").split("/"):
        at = at.children[salted(part)] if part else at
    return at


PARTS = (["a", "b"], ["", ".", "a", "..", "..", "c"], ["x"], ["a", "x", "y"], ["x", "..", "z"])
TREE: dict[str, Row] = {
    "init": (lambda w: (lambda one: (one.root_fd, one.device, one.max_depth, one.max_open))(tree.Tree(50, 9)), [{}]),
    "close": (walked("close"), [{"WITH": {"opened": opened}} for opened in ([], ["/a", "/a/b"])]),
    "fd": (walked("fd", "$path"), [
        {"WITH": {"path": path, "opened": opened, "open": most}}
        for path, opened, most in (("/", [], 9), ("/a", [], 9), ("/a/b", [], 9), ("/a", ["/a"], 9), ("/c", ["/a",
            "/a/b"], 2),
                                   ("/c", ["/a/b", "/a"], 2), ("/c", ["/a"], 2), ("/a/b", ["/c"], 2))
    ]),
    "forget": (walked("forget", "/", "$name"), [
        {"WITH": {"name": name, "opened": opened}} for name in ("a", "c", "x") for opened in ([], ["/a", "/a/b",
            "/c"], ["/a"])
    ]),
    "lookup": (walked("lookup", "$parts", make=True), [
        {"WITH": {"parts": parts, "make": make, "depth": depth}, "os.stat": found}
        for parts in PARTS for make in (True, False) for depth in (1, 9)
        for found in (DIRECTORY, FileNotFoundError(), REGULAR, OTHER)
    ] + [{"WITH": {"parts": ["x", "y"], "make": True}, "os.stat": Answers([LINK, DIRECTORY]), "os.readlink": target}
         for target in ("/c", "a/b", "..", "", "/")]
      + [{"WITH": {"parts": ["x"], "make": False}, "os.stat": Answers([*[LINK] * count, DIRECTORY]), "os.readlink": "x"}
         for count in (39, 40, 41)]),
    "mkdir": (walked("mkdir", "/a/b", "new"), [{}, {"os.mkdir": failed(errno.EEXIST)}]),
    "child": (walked("child", "/", "$name"), [
        {"WITH": {"name": name}, "os.stat": found} for name in ("a", "x") for found in (DIRECTORY, REGULAR, LINK)
    ]),
    "touch": (lambda w: after(one := made(w), [one.touch(one.root), one.touch(one.root)]), [{}]),
    "remove": (walked("remove", "/", "$name"), [
        {"WITH": {"name": name, "opened": ["/a", "/a/b"]}, "os.stat": found}
        for name in ("a", "x") for found in (DIRECTORY, REGULAR, failed(errno.ENOENT), failed(errno.EACCES))
    ]),
    "mark": (lambda w: after(one := made(w), one.mark(directory(one, w.extra["path"]), "new")), [
        {"WITH": {"path": path}} for path in ("/", "/a", "/a/b")
    ]),
}  # fmt: skip


def cleared(w: World) -> Any:
    """clear_lower() of a directory with what this layer made."""
    one = made(w)
    for path, name in (("/", "new"), ("/", "a"), ("/a", "both"), ("/a", "b")):
        directory(one, path).made.add(salted(name))
    return after(one, one.clear_lower(one.root))


def ended(w: World) -> Any:
    """end_layer(), with times of two directories."""
    one = made(w)
    directory(one, "/a").mtime, directory(one, "/a/b").mtime = (1, 2), (3, 4)
    one.mark(directory(one, "/a/b"), "new")
    return after(one, one.end_layer())


LISTS: list[list[list[str]]] = [[["a", "new", "old"], ["b", "both"], ["x"]], [["new"]], [[]]]
TREE |= {
    "clear_lower": (cleared, [{"os.listdir": Answers(found), "os.stat": stat} for found in LISTS
                              for stat in (REGULAR, DIRECTORY)]),
    "end_layer": (ended, [{}]),
}  # fmt: skip

# -- a registry ------------------------------------------------------------------------------------


class Answer:
    """A response."""

    called = "answer"

    def __init__(self, notes: list[str], status: int = 200, body: bytes = b"", **headers: str) -> None:
        self.notes, self.status, self.content = notes, status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def read(self, *args: Any, **more: Any) -> bytes:
        self.notes.append(f"read {args} {more}")
        return self.content

    def close(self) -> None:
        self.notes.append("close")

    def drain_conn(self) -> None:
        self.notes.append("drain")

    def release_conn(self) -> None:
        self.notes.append("release")


def connection(w: World, own: str) -> Any:
    """A connection; its lock is noted."""
    values = {"host": "h.example", "repository": "a/b", "scheme": "https", "plain": False, "authfile": "/auth",
              "authorization": "", "probing": w.spy("probing"), "pool": w.spy("pool")}  # fmt: skip
    return w.made(registry.Connection, own, **(values | w.extra.get("self", {})))


def answers(w: World, *given: Any) -> Answers:
    """Responses, from (status, headers) or (status, headers, body)."""
    return Answers(
        [one if isinstance(one, BaseException) else Answer(w.notes, one[0], *one[2:], **one[1]) for one in given]
    )


def got(w: World) -> Any:
    """get() of a path."""
    w.answers["_follow"] = answers(w, *w.extra["given"])
    one = connection(w, "get")
    return one.get("manifests/1", "type", w.extra.get("offset", 0)).status


def followed(w: World) -> Any:
    """_follow() of an address."""
    w.answers["_request"] = answers(w, *w.extra["given"])
    return connection(w, "_follow")._follow(w.extra.get("url", "https://h.example/v2/x"), {"Accept": "a"}).status


def token(w: World) -> Any:
    """_token() of a challenge."""
    w.answers["_request"] = answers(w, w.extra.get("answer", (200, {})))
    w.answers["body"] = text = w.extra.get("body", b'{"token": "t"}')
    w.answers["sources.parse_json"] = ImageError("no JSON") if text == b"x" else json.loads(text)
    return connection(w, "_token")._token(w.extra["parameters"], w.extra.get("found"))


def authenticated(w: World) -> Any:
    """_authenticate(), and the header after it."""
    one = connection(w, "_authenticate")
    return one._authenticate(w.extra["challenge"]), one.authorization


ME = Credentials("me", "secret", "")
IDENTITY = Credentials("", "", "identity")
REALM = {"realm": "https://auth.example/t", "service": "s", "scope": "repository:x:pull"}
FOUND: list[Any] = [(302, {"Location": "https://other.example/x"}), (200, {})]
TOKENS: list[Any] = [
            *((REALM, found, {}) for found in (None, ME, IDENTITY, Credentials("", "p", ""))), ({}, None, {}),
            ({"realm": "http://auth/t"}, None, {}), ({"realm": "http://auth/t"}, None, {"self": {"scheme": "http"}}),
            ({"realm": "https://auth/t?x=1"}, ME, {}), (REALM | {"scope": ""}, None, {}), (REALM, None,
                {"answer": (401, {})}),
            *((REALM, None, {"body": body}) for body in (b'{"access_token": "a"}',
                b'{"token": "", "access_token": "b"}',
              b"{}", b"[]", b'{"token": 5}', '{"token": "\u00e9"}'.encode(), b'{"token": "a\\nb"}', b"x")),
]  # fmt: skip
CONNECTION: dict[str, Row] = {
    "url": (lambda w: (lambda one: (one.url("p"), one.scheme))(connection(w, "url")), [
        {"WITH": {"self": {"host": host, "scheme": scheme}}, "_probe": "http"}
        for host in ("docker.io", "h.example", "x.docker.io") for scheme in ("", "https", "http")
    ]),
    "probe": (lambda w: connection(w, "_probe")._probe("h"), [{}, {"_request": ImageError("refused")}]),
    "get": (got, [
        {"WITH": {"given": given, "offset": offset}, "_authenticate": asked}
        for given, offset, asked in (
            ([(200, {})], 0, True), ([(206, {})], 5, True), ([(404, {})], 0, True), ([(204, {})], 0, True),
            ([(401, {"WWW_Authenticate": "Basic x"}), (200, {})], 0, True), ([(401, {})], 0, False), ([(401, {})],
                0, True),
            ([(401, {}), (401, {}), (200, {})], 0, True), ([(401, {})], 0, ImageError("no token")), ([(403, {})], 0,
                True),
        )
    ]),
    "follow": (followed, [
        {"WITH": {"given": given, "self": {"authorization": "Bearer t"}} | more}
        for given, more in (
            ([(200, {})], {}), (FOUND, {}), *(([(status, {"Location": "/y"}), (200, {})], {})
              for status in (300, 301, 302, 303, 304, 307, 308)),
            ([(302, {"Location": "http://h.example/x"}), (200, {})], {}), ([(302, {}), (200, {})], {}),
            ([(302, {"Location": "ftp://h/x"})], {}), ([(302, {"Location": "/y"})], {}),
            ([(302, {"Location": "http://h.example/x"}), (302, {"Location": "https://h.example/x"}), (200, {})],
             {"url": "http://h.example/v2/x"}),
            ([*[(302, {"Location": "/y"})] * 5, (200, {})], {}), ([*[(302, {"Location": "/y"})] * 6, (200, {})], {}),
            ([(302, {"Location": "https://h.example:444/x"}), (200, {})], {}),
        )
    ]),
    "authenticate": (authenticated, [
        {"WITH": {"challenge": challenge, "self": {"authorization": before}}, "credentials.find": found, "_token": "t"}
        for challenge in ("", "Basic realm=x", "basic", "Digest x", 'Bearer realm="r",service="s"',
            'bearer a="\\"q"', "Bearer ")
        for before, found in (("", None), ("", ME), (ME.basic(), ME), ("Bearer t", ME))
    ]),
    "token": (token, [
        {"WITH": {"parameters": parameters, "found": found} | more} for parameters, found, more in TOKENS
    ]),
}  # fmt: skip
BLOBS = [Descriptor("layer", f"sha256:{n}", n) for n in range(6)]
SOURCE: dict[str, Row] = {
    "refused": (lambda w: (lambda error: (error.status, str(error)))(
        connection(w, "_refused")._refused(Answer(w.notes, w.extra["status"], w.extra["body"]), "what")), [
        {"WITH": {"status": status, "body": body}}
        for status in (400, 401, 403, 404)
        for body in (b"", b"x", b"[]", b"{}", b'{"errors": null}', b'{"errors": [5]}', b'{"errors": 5}',
                     b'{"errors": [{"code": "C", "message": "m"}]}', b'{"errors": [{}, {}, {}, {"code": "late"}]}',
                     b'{"errors": [{"code": "' + b"c" * 400 + b'"}]}')
    ]),
    "body": (lambda w: connection(w, "body").body(Answer(w.notes, 200, b"b" * w.extra["size"]), 1 << 20), [
        {"WITH": {"size": size}} for size in (0, 5, 1 << 20, (1 << 20) + 1)
    ]),
    "get": (lambda w: source(w, "_get")._get("p", "t", 5), [
        {"second.get": "S", "first.get": found} for found in ("F", ImageError("down"), ValueError("v"))
    ] + [{"first.get": ImageError("down"), "second.get": ImageError("down too")}]),
    "open": (lambda w: opened(w), [
        {"WITH": {"kind": kind, "order": order}}
        for kind in (MANIFESTS[0], INDEXES[0], "layer") for order in (0, 1, 2, 3, 5)
    ]),
    "stream": (lambda w: source(w, "_stream")._stream("p", "t").read(), [{"_get": (spies.Spy("c", [],
        {"c.body": b"x"}), 5)}]),
    "blob": (lambda w: source(w, "_blob")._blob(BLOBS[0], 7), [{"_get": (5, 6)}]),
    "close": (lambda w: source(w, "close").close(), [{}]),
    "referrers": (lambda w: source(w, "referrers").referrers("sha256:ab:c"), [
        {"_referrers": Answers(found)}
        for found in (["one"], [registry.Refused(404, "none"), "two"], [registry.Refused(404, "n")],
            [registry.Refused(500, "e")],
                      [registry.Refused(404, "n"), registry.Refused(403, "e")], [ImageError("down")])
    ]),
}  # fmt: skip


def source(w: World, own: str) -> Any:
    """The source of an image, with a mirror."""
    reference = SimpleNamespace(version="1", by_digest=False)
    return w.made(registry.RegistrySource, own, reference=reference, connections=[w.spy("first"), w.spy("second")],
                  downloads={"sha256:old": w.spy("download")}, order=[])  # fmt: skip


def opened(w: World) -> Any:
    """open() of a blob at a place in the order."""
    one = source(w, "open")
    one.order = BLOBS[: w.extra["order"]]
    wanted = Descriptor(w.extra["kind"], "sha256:1", 1)
    return one.open(wanted), sorted(one.downloads)


TABLES: Tables = [
    ("pyrunc.image.tree", TREE, FILES, ()),
    ("pyrunc.image.registry", CONNECTION | {f"source.{name}": row for name, row in SOURCE.items()},
     {"descriptor.MANIFESTS": MANIFESTS, "descriptor.INDEXES": INDEXES, "_refused": ImageError("the refusal")},
     ("Download",)),
]  # fmt: skip


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    lines = calls_of(module, name, TABLES)
    transcript.compare("tree_steps", f"{module.removeprefix('pyrunc.image.')}.{name}", lines)


def test_addresses() -> None:
    hosts = [
        "localhost",
        "localhost:5",
        "127.0.0.1",
        "127.9.9.9:80",
        "[::1]:5",
        "::1",
        "h.example",
        "10.0.0.1",
        "",
        "local",
    ]
    lines = [f"{host}: {registry.is_loopback(host)}" for host in hosts]
    lines += [
        f"{host} {repository}: {registry._repository(host, repository)}"
        for host, repository in itertools.product(("docker.io", "registry-1.docker.io", "h"), ("x", "a/x"))
    ]
    for error in (ValueError(), ValueError("v")):
        try:
            raise ImageError("outer") from error
        except ImageError as outer:
            lines.append(f"{registry._reason(outer)} {registry._reason(error)}")
    transcript.compare("tree_steps", "addresses", lines)
