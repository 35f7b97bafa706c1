"""The pull side of the distribution specification, with a server that misbehaves on request."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from image_support import CONFIG, INDEX, LAYER, MANIFEST, digest, entry, tar

pytest.importorskip("urllib3")

from pyrunc.image import credentials, manifest, reference, registry
from pyrunc.image.descriptor import Descriptor, Platform
from pyrunc.image.errors import ImageError

LAYER_DATA = tar([entry("big", bytes(range(256)) * 4096)])
CONFIG_DATA = json.dumps(
    {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [digest(LAYER_DATA)]}}
).encode()
MANIFEST_DATA = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest(CONFIG_DATA), "size": len(CONFIG_DATA)},
        "layers": [{"mediaType": LAYER, "digest": digest(LAYER_DATA), "size": len(LAYER_DATA)}],
    }
).encode()
REFERRER = {"mediaType": MANIFEST, "digest": digest(b"s"), "size": 1, "artifactType": "application/x-signature"}


class Handler(http.server.BaseHTTPRequestHandler):
    """A registry server; ``server.mode`` selects its fault."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization", ""), self.headers.get("Range", "")))
        mode, at = self.server.mode, urlsplit(self.path)
        if at.path == "/token":
            self.server.query = parse_qs(at.query)
            self.answer(200, json.dumps({"token": "issued"}).encode())
        elif mode == "token" and self.headers.get("Authorization") != "Bearer issued":
            challenge = f'Bearer realm="http://{self.server.host}/token",service="test",scope="repository:x:pull"'
            self.answer(401, b"{}", WWW_Authenticate=challenge)
        elif mode == "foreign-realm":
            self.answer(401, b"{}", WWW_Authenticate='Bearer realm="ftp://example.org/token"')
        elif mode == "redirects":
            self.answer(307, b"", Location=self.path)
        elif mode == "words":
            self.answer(429, json.dumps({"errors": [{"code": "TOOMANY", "message": "slow\u001b[31m down"}]}).encode())
        elif "/manifests/" in at.path or "/referrers/" in at.path:
            self.document(at.path, mode)
        else:
            self.blob(at.path, mode)

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.query = parse_qs(self.rfile.read(length).decode())
        self.answer(200, json.dumps({"access_token": "issued"}).encode())

    def document(self, path: str, mode: str) -> None:
        if path.endswith(digest(MANIFEST_DATA).replace(":", "-")) or (mode == "referrers" and "/referrers/" in path):
            page = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [REFERRER]}
            self.answer(200, json.dumps(page).encode(), Content_Type=INDEX)
        elif "/referrers/" in path:
            self.answer(404, b"{}")
        elif mode == "other-content":
            self.answer(200, MANIFEST_DATA + b" ", Docker_Content_Digest=digest(MANIFEST_DATA), Content_Type=MANIFEST)
        elif mode == "endless":
            self.answer(200, bytes(5 << 20), Content_Type=MANIFEST)
        else:
            self.answer(200, MANIFEST_DATA, Content_Type=MANIFEST + "; charset=utf-8")

    def blob(self, path: str, mode: str) -> None:
        data = {digest(LAYER_DATA): LAYER_DATA, digest(CONFIG_DATA): CONFIG_DATA}[path.rpartition("/")[2]]
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if mode == "breaks" and data is LAYER_DATA:
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start : start + 300_000])
            self.close_connection = True
        elif mode == "no-ranges" and data is LAYER_DATA and len(self.server.seen) < 4:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:500_000])
            self.close_connection = True
        elif mode == "longer" and data is LAYER_DATA:
            self.answer(200, data + b"more")
        elif mode == "shorter" and data is LAYER_DATA:
            self.answer(200, data[:-1] if not start else b"")
        else:
            self.answer(206 if start and mode != "no-ranges" else 200, data if mode == "no-ranges" else data[start:])


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # closing the server waits for its connections

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mode = ""
        self.seen: list[tuple[str, str, str]] = []
        self.query: dict[str, list[str]] = {}
        self.host = f"127.0.0.1:{self.server_port}"

    def handle_error(self, *args: object) -> None:
        pass  # some of the tests disconnect on purpose


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    (tmp_path / "auth.json").write_text("{}")
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def pulled(server: Server, mode: str = "", **options: Any) -> bytes:
    """The layer of the image, read through a source."""
    server.mode = mode
    source = registry.open_registry(reference.parse_registry(f"docker://{server.host}/x:1"), options)
    try:
        image = manifest.resolve(source, Platform("linux", "amd64"))
        source.prefetch([layer.blob for layer in image.layers])
        with source.open(image.layers[0].blob) as stream:
            return stream.read()
    finally:
        source.close()


def test_plain(server: Server) -> None:
    assert pulled(server) == LAYER_DATA
    assert server.seen[0][0] == "/v2/x/manifests/1"


def test_a_connection_that_breaks_is_resumed(server: Server) -> None:
    assert pulled(server, "breaks") == LAYER_DATA
    offsets = [int(seen[6:-1]) for _, _, seen in server.seen if seen]
    assert len(offsets) >= 3 and offsets == sorted(offsets) and offsets[0] > 0


def test_a_registry_without_ranges(server: Server) -> None:
    assert pulled(server, "no-ranges") == LAYER_DATA


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("longer", "more than the"),
        ("shorter", "its descriptor says"),
        ("other-content", "the content has the digest"),
        ("endless", "more than 4 MiB"),
        ("redirects", "more than 5 redirects"),
        ("words", r"HTTP status 429 \(TOOMANY: slow\\u001b\[31m down\)"),
        ("foreign-realm", "refusing the token server"),
    ],
)
def test_refusals(server: Server, mode: str, text: str) -> None:
    with pytest.raises(ImageError, match=text) as caught:
        pulled(server, mode)
    assert str(caught.value).isprintable()


def test_tokens(server: Server, tmp_path: Path) -> None:
    assert pulled(server, "token") == LAYER_DATA
    assert server.query == {"service": ["test"], "scope": ["repository:x:pull"]}
    auth = {"auths": {server.host: {"auth": base64.b64encode(b"me:secret").decode()}}}
    (tmp_path / "auth.json").write_text(json.dumps(auth))
    server.seen.clear()
    assert pulled(server, "token") == LAYER_DATA
    assert ("/token?service=test&scope=repository%3Ax%3Apull", "Basic bWU6c2VjcmV0", "") in server.seen
    # An identity token goes in the body of a POST (OAuth 2.0), never in an address.
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {server.host: {"identitytoken": "refresh"}}}))
    assert pulled(server, "token") == LAYER_DATA
    assert server.query["refresh_token"] == ["refresh"]


def test_referrers(server: Server) -> None:
    for mode in ("referrers", "referrers-by-tag"):
        server.mode = mode
        source = registry.open_registry(reference.parse_registry(f"docker://{server.host}/x:1"), {})
        found = source.referrers(digest(MANIFEST_DATA))
        source.close()
        assert [row.artifact_type for row in found] == ["application/x-signature"]


def test_by_digest(server: Server) -> None:
    name = f"docker://{server.host}/x@{digest(MANIFEST_DATA)}"
    source = registry.open_registry(reference.parse_registry(name), {})
    assert source.index()[0].digest == digest(MANIFEST_DATA)
    server.mode = "other-content"
    with pytest.raises(ImageError, match="the content has the digest"):
        source.index()
    source.close()


def test_several_blobs_at_a_time(server: Server) -> None:
    source = registry.open_registry(reference.parse_registry(f"docker://{server.host}/x:1"), {})
    wanted = [
        Descriptor(LAYER, digest(LAYER_DATA), len(LAYER_DATA)),
        Descriptor(CONFIG, digest(CONFIG_DATA), len(CONFIG_DATA)),
    ]
    source.prefetch(wanted)
    with source.open(wanted[0]) as first:
        first.read(1)
        source.downloads[wanted[1].digest].thread.join(10)
        assert sum("/blobs/" in path for path, _, _ in server.seen) == 2
    source.close()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True), ("localhost:5000", True), ("127.0.0.1:1", True), ("127.9.9.9", True), ("[::1]:5000", True),
        ("10.0.0.1", False), ("example.org", False), ("localhost.example.org", False), ("127.0.0.1.example.org", False),
    ],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert registry.is_loopback(host) == loopback


def test_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path / "none"))

    def auth(text: str) -> dict[str, str]:
        return {"auth": base64.b64encode(text.encode()).decode()}

    path.write_text(
        json.dumps({"auths": {"h/a/b": auth("deep:1"), "h": auth("host:2"), credentials.DOCKER_HUB: auth("hub:3")}})
    )
    for host, repository, user in (
        ("h", "a/b/c", "deep"),
        ("h", "x", "host"),
        ("docker.io", "x", "hub"),
        ("other", "x", None),
    ):
        found = credentials.find(host, repository)
        assert (found.user if found else None) == user
    path.write_text(json.dumps({"auths": {"h": {"username": "u", "password": "p"}, "i": {"identitytoken": "t"}}}))
    for host, wanted in (("h", ("u", "p", "")), ("i", ("", "", "t"))):
        found = credentials.find(host, "x")
        assert found and (found.user, found.password, found.token) == wanted
    path.write_text(json.dumps({"auths": {"h": {"auth": "not base64!"}}}))
    with pytest.raises(ImageError, match="is not base64"):
        credentials.find("h", "x")
    path.write_text(json.dumps({"credsStore": "../../bin/sh"}))
    with pytest.raises(ImageError, match="not a name"):
        credentials.find("h", "x")
    with pytest.raises(ImageError, match="no such file"):
        credentials.find("h", "x", str(tmp_path / "missing"))
