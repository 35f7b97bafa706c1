"""Which requests the registry client sends to which host, and how often. A table of answers
replaces the network."""

from __future__ import annotations

import base64
import io
import json
import os
import ssl
import stat
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from image_support import INDEX, MANIFEST, digest

pytest.importorskip("urllib3")

import urllib3

from pyrunc.errors import PyruncError
from pyrunc.image import credentials, reference, registry
from pyrunc.image.descriptor import Descriptor
from pyrunc.image.errors import ImageError

HOST = "registry.example"
PATH = f"https://{HOST}/v2/a/b/manifests/1"
ME = base64.b64encode(b"me:secret").decode()
BEARER = 'Bearer realm="https://auth.example/token",service="s",scope="repository:a/b:pull"'


class Answer:
    """One answer of a server."""

    def __init__(self, body: bytes | BaseException = b"", status: int = 200, **headers: str) -> None:
        self.body, self.status = body, status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Net:
    """Answer requests from a table, and record them. An answer that is a list is given item by
    item."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.table = table
        self.seen: list[tuple[str, str, dict[str, str], Any]] = []

    def request(self, _pool: Any, method: str, url: str, *, headers: dict[str, str], body: Any, **more: Any) -> Any:
        assert more == {"redirect": False, "preload_content": False}
        self.seen.append((method, url, dict(headers), body))
        found = self.table[url]
        answer = found.pop(0) if isinstance(found, list) else found
        if callable(answer):
            answer = answer(headers)
        if isinstance(answer, BaseException):
            raise answer
        content = answer.body
        response = urllib3.HTTPResponse(
            io.BytesIO(b"" if isinstance(content, BaseException) else content), answer.headers, answer.status,
            preload_content=False,
        )  # fmt: skip
        if isinstance(content, BaseException):

            def fails(*_: object, **__: object) -> bytes:
                raise content

            response.read = fails  # type: ignore[method-assign]
        return response

    @property
    def urls(self) -> list[str]:
        return [url for _, url, _, _ in self.seen]

    @property
    def sent(self) -> list[str]:
        return [headers.get("Authorization", "") for _, _, headers, _ in self.seen]


@pytest.fixture
def auth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty file of credentials."""
    path = tmp_path / "auth.json"
    path.write_text("{}")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(path))
    # The system's roots are not needed here, and take longer to read than everything else.
    monkeypatch.setattr(ssl, "create_default_context", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    return path


def connect(
    monkeypatch: pytest.MonkeyPatch, table: dict[str, Any], host: str = HOST, **options: Any
) -> tuple[registry.Connection, Net]:
    net = Net(table)
    monkeypatch.setattr(urllib3.PoolManager, "request", lambda pool, *a, **k: net.request(pool, *a, **k))
    return registry.Connection(host, "a/b", options), net


def logged_in(path: Path, host: str = HOST, **row: str) -> None:
    path.write_text(json.dumps({"auths": {host: row or {"auth": ME}}}))


def test_without_urllib3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pyrunc.image.registry")
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(PyruncError, match=r"^registries need urllib3 \(pip install 'pyrunc\[image\]'\): import"):
        __import__("pyrunc.image.registry")


def test_sent_messages(monkeypatch: pytest.MonkeyPatch, auth: Path) -> None:
    connection, net = connect(monkeypatch, {PATH: Answer(b"x")})
    assert connection.body(connection.get("manifests/1", "text/plain"), 10) == b"x"
    ((method, _, headers, body),) = net.seen
    assert (method, body) == ("GET", None)
    assert headers.pop("User-Agent").startswith("pyrunc/")
    assert headers == {"Accept": "text/plain", "Accept-Encoding": "identity"}
    connection.get("manifests/1", offset=1)
    assert net.seen[-1][2]["Range"] == "bytes=1-" and net.seen[-1][2]["Accept"] == "*/*"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_stay_with_the_registry(monkeypatch: pytest.MonkeyPatch, auth: Path, status: int) -> None:
    """The storage to which a registry redirects is a third party."""
    logged_in(auth)
    table = {
        PATH: lambda headers: (
            Answer(status=status, Location="/same")
            if "Authorization" in headers
            else Answer(status=401, WWW_Authenticate="Basic realm=x")
        ),
        f"https://{HOST}/same": Answer(status=status, Location="https://cdn.example/blob"),
        "https://cdn.example/blob": Answer(status=status, Location=f"https://{HOST}:444/blob"),
        f"https://{HOST}:444/blob": Answer(b"data"),
    }
    connection, net = connect(monkeypatch, table)
    assert connection.get("manifests/1").read() == b"data"
    assert net.sent == ["", f"Basic {ME}", f"Basic {ME}", "", ""]


@pytest.mark.parametrize(
    ("target", "refused"), [("http://cdn.example/x", True), ("ftp://cdn.example/x", True), ("//cdn.example/x", False)]
)
def test_no_way_from_https_to_less(monkeypatch: pytest.MonkeyPatch, auth: Path, target: str, refused: bool) -> None:
    table = {PATH: Answer(status=307, Location=target), "https://cdn.example/x": Answer(b"data")}
    connection, net = connect(monkeypatch, table)
    if refused:
        with pytest.raises(ImageError, match=f'^{HOST}: refusing the redirect to "{target}": not https$'):
            connection.get("manifests/1")
        assert net.urls == [PATH]
    else:
        assert connection.get("manifests/1").read() == b"data"


def test_http_goes_to_http_and_to_https(monkeypatch: pytest.MonkeyPatch, auth: Path) -> None:
    at = "http://localhost:5000/v2/a/b/manifests/1"
    table: dict[str, Any] = {
        "https://localhost:5000/v2/": urllib3.exceptions.HTTPError("no TLS here"),
        at: Answer(status=302, Location="http://other.example/1"),
        "http://other.example/1": Answer(status=302, Location="https://other.example/2"),
        "https://other.example/2": Answer(status=302, Location="http://other.example/3"),
    }
    connection, net = connect(monkeypatch, table, host="localhost:5000")
    with pytest.raises(ImageError, match=r"http://other\.example/3"):
        connection.get("manifests/1")
    assert net.urls == list(table)
    connection.url("x")
    assert len(net.seen) == 4, "the scheme is asked for once"


def test_how_many_redirects(monkeypatch: pytest.MonkeyPatch, auth: Path) -> None:
    hops = [Answer(status=302, Location=PATH)] * 5
    connection, net = connect(monkeypatch, {PATH: [*hops, Answer(b"x"), *hops, hops[0]]})
    assert connection.get("manifests/1").read() == b"x" and len(net.seen) == 6
    with pytest.raises(ImageError, match=f"^{HOST}: more than 5 redirects$"):
        connection.get("manifests/1")
    assert len(net.seen) == 12


def test_a_certificate_that_nobody_vouches_for(monkeypatch: pytest.MonkeyPatch, auth: Path) -> None:
    """The failure must not make the client fall back to plain HTTP."""
    bad = urllib3.exceptions.SSLError("handshake")
    bad.__cause__ = ssl.SSLCertVerificationError("self-signed")
    connection, _ = connect(monkeypatch, {"https://localhost/v2/": bad}, host="localhost")
    with pytest.raises(ImageError, match="self-signed"):
        connection.url("x")
    connection, _ = connect(monkeypatch, {"https://localhost/v2/": Answer(status=401)}, host="localhost")
    assert connection.url("x") == "https://localhost/v2/a/b/x"


@pytest.mark.parametrize(
    ("host", "options", "url"),
    [
        (HOST, {}, f"https://{HOST}/v2/a/b/x"),
        (HOST, {"plain-http": True}, f"http://{HOST}/v2/a/b/x"),
        ("docker.io", {}, "https://registry-1.docker.io/v2/a/b/x"),
    ],
)
def test_addresses(monkeypatch: pytest.MonkeyPatch, auth: Path, host: str, options: dict[str, bool], url: str) -> None:
    down = urllib3.exceptions.HTTPError("down")
    connection, net = connect(monkeypatch, {f"https://{host}/v2/": down}, host=host, **options)
    assert connection.url("x") == url
    assert len(net.seen) == bool(options), "only who allows HTTP asks whether there is TLS"


def test_one_answer_to_a_challenge(monkeypatch: pytest.MonkeyPatch, auth: Path) -> None:
    no = Answer(b'{"errors": [{"code": "UNAUTHORIZED", "message": "no"}]}', 401, WWW_Authenticate="BASIC realm=x")
    connection, net = connect(monkeypatch, {PATH: no})
    words = rf"^{HOST}: manifests/1: HTTP status 401 \(UNAUTHORIZED: no\); `docker login`, `podman login` or --authfile"
    with pytest.raises(registry.Refused, match=words) as caught:
        connection.get("manifests/1")
    assert caught.value.status == 401 and net.sent == [""], "there is nothing to say"
    logged_in(auth)
    with pytest.raises(registry.Refused, match=words):
        connection.get("manifests/1")
    assert net.sent == ["", "", f"Basic {ME}"], "once, not for ever"
    no.headers["WWW-Authenticate"] = "Digest realm=x"
    with pytest.raises(registry.Refused):
        registry.Connection(HOST, "a/b", {}).get("manifests/1")
    assert net.sent[3:] == [""]


def bearer(wanted: str) -> Any:
    """An answer that requires a certain token."""
    return lambda headers: (
        Answer(b"data")
        if headers.get("Authorization") == f"Bearer {wanted}"
        else Answer(status=401, WWW_Authenticate=BEARER)
    )


def test_tokens_are_renewed(monkeypatch: pytest.MonkeyPatch, auth: Path) -> None:
    """A token is valid for minutes, and a pull may take longer."""
    server = "https://auth.example/token?service=s&scope=repository%3Aa%2Fb%3Apull"
    names = iter(("old", "new", "newer", "newer"))
    table = {server: lambda _: Answer(json.dumps({"token": next(names)}).encode()), PATH: bearer("old")}
    connection, net = connect(monkeypatch, table)
    assert connection.get("manifests/1").read() == b"data"
    assert net.sent == ["", "", "Bearer old"]
    table[PATH] = bearer("new")
    assert connection.get("manifests/1").read() == b"data"
    assert net.sent[3:] == ["Bearer old", "", "Bearer new"]
    table[PATH] = bearer("never")
    with pytest.raises(registry.Refused):
        connection.get("manifests/1")
    assert net.urls[6:] == [PATH, server, PATH, server], "the same token again would not help"
    names = iter("123")
    with pytest.raises(registry.Refused):
        connection.get("manifests/1")
    assert net.urls[10:] == [PATH, server, PATH, server, PATH], "nor a third one"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer(b"[]"), "the token server sent no token"),
        (Answer(b"{}"), "the token server sent no token"),
        (Answer(b'{"token": 5}'), "the token server sent no token"),
        (Answer('{"token": "é"}'.encode()), "the token server sent no token"),
        (Answer(b'{"token": "a\\r\\nX: y"}'), "the token server sent no token"),
        (Answer(b"{"), "the token server's answer"),
        (Answer(b" " * (1 << 20) + b"{}"), "an answer of more than 1 MiB"),
        (Answer(b"no", 403), "token: HTTP status 403; `docker login`"),
        (Answer(b'{"token": "t"}', 201), "token: HTTP status 201$"),
        (urllib3.exceptions.HTTPError("unplugged"), "unplugged"),
    ],
)
def test_token_servers(monkeypatch: pytest.MonkeyPatch, auth: Path, answer: Any, text: str) -> None:
    table = {
        PATH: Answer(status=401, WWW_Authenticate='bearer realm="https://auth.example/?a=1"'),
        "https://auth.example/?a=1&service=&scope=repository%3Aa%2Fb%3Apull": answer,
    }
    connection, net = connect(monkeypatch, table)
    with pytest.raises(ImageError, match=text):
        connection.get("manifests/1")
    assert net.seen[-1][2]["Accept"] == "application/json"


@pytest.mark.parametrize("realm", ["http://auth.example/t", "ftp://auth.example/t", ""])
def test_secrets_go_through_tls_alone(monkeypatch: pytest.MonkeyPatch, auth: Path, realm: str) -> None:
    logged_in(auth)
    connection, net = connect(monkeypatch, {PATH: Answer(status=401, WWW_Authenticate=f'Bearer realm="{realm}"')})
    with pytest.raises(ImageError, match=f'^{HOST}: refusing the token server "{realm}": not https$'):
        connection.get("manifests/1")
    assert net.urls == [PATH]


def test_identity_tokens(monkeypatch: pytest.MonkeyPatch, auth: Path) -> None:
    logged_in(auth, identitytoken="refresh", auth=ME)
    table = {
        PATH: lambda headers: bearer("t")(headers),
        "https://auth.example/token": Answer(b'{"access_token": "t"}'),
    }
    connection, net = connect(monkeypatch, table)
    assert connection.get("manifests/1").read() == b"data"
    method, _, headers, body = net.seen[1]
    assert method == "POST" and headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert "Authorization" not in headers
    assert parse_qs(body.decode(), strict_parsing=True) == {
        "grant_type": ["refresh_token"], "refresh_token": ["refresh"], "client_id": ["pyrunc"], "service": ["s"],
        "scope": ["repository:a/b:pull"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>", ""),
        (b"[]", ""),
        (b'{"errors": {}}', ""),
        (b'{"errors": [1]}', ""),
        (b'{"errors": null}', ""),
        (json.dumps({"errors": [{"code": str(n), "message": "m"} for n in range(5)]}).encode(), " (0: m; 1: m; 2: m)"),
        (json.dumps({"errors": [{"code": "c", "message": "m" * 400}]}).encode(), f" (c: {'m' * 297})"),
        (urllib3.exceptions.ProtocolError("cut"), ""),
    ],
)
def test_errors_of_a_registry(monkeypatch: pytest.MonkeyPatch, auth: Path, body: Any, words: str) -> None:
    connection, _ = connect(monkeypatch, {PATH: Answer(body, 500)})
    with pytest.raises(registry.Refused) as caught:
        connection.get("manifests/1")
    assert (caught.value.status, str(caught.value)) == (500, f"{HOST}: manifests/1: HTTP status 500{words}")


def test_bodies_are_bounded(monkeypatch: pytest.MonkeyPatch, auth: Path) -> None:
    size = 1 << 20
    broken = Answer(urllib3.exceptions.ProtocolError("outer", ConnectionResetError("cut off")))
    connection, _ = connect(monkeypatch, {PATH: [Answer(bytes(size)), Answer(bytes(size + 1)), broken]})
    assert len(connection.body(connection.get("manifests/1"), size)) == size
    with pytest.raises(ImageError, match=f"^{HOST}: an answer of more than 1 MiB$"):
        connection.body(connection.get("manifests/1"), size)
    with pytest.raises(ImageError, match=f"^{HOST}: .*cut off"):
        connection.body(connection.get("manifests/1"), size)


# --- a repository ---------------------------------------------------------------------------------

DATA = b'{"schemaVersion": 2}'
OTHER = "a" * 64


def opened(
    monkeypatch: pytest.MonkeyPatch, table: dict[str, Any], name: str = f"docker://{HOST}/a/b:1", **options: Any
) -> tuple[registry.RegistrySource, Net]:
    _, net = connect(monkeypatch, table)
    source = registry.open_registry(reference.parse_registry(name), options)
    assert isinstance(source, registry.RegistrySource)
    return source, net


def test_mirrors_are_asked_first(monkeypatch: pytest.MonkeyPatch, auth: Path) -> None:
    answer = Answer(DATA, Content_Type=f"{MANIFEST} ; charset=utf-8")
    mirrors = ["one.example", "two.example"]
    table: dict[str, Any] = {f"https://{host}/v2/a/b/manifests/1": Answer(status=404) for host in mirrors} | {
        PATH: answer
    }
    source, net = opened(monkeypatch, table, mirror=mirrors)
    (found,) = source.index()
    assert (found.media_type, found.digest, found.size, found.data) == (MANIFEST, digest(DATA), len(DATA), DATA)
    assert net.urls == list(table)
    table["https://one.example/v2/a/b/manifests/1"] = urllib3.exceptions.HTTPError("down")
    table["https://two.example/v2/a/b/manifests/1"] = answer
    source.index()
    assert net.urls[3:] == list(table)[:2]
    source.close()


@pytest.mark.parametrize("said", [digest(DATA), "", f"sha256:{OTHER}", "sha256:no"])
def test_digests_of_an_index(monkeypatch: pytest.MonkeyPatch, auth: Path, said: str) -> None:
    source, _ = opened(monkeypatch, {PATH: Answer(DATA, Docker_Content_Digest=said) if said else Answer(DATA)})
    if said in (digest(DATA), ""):
        assert source.index()[0].digest == digest(DATA)
    else:
        with pytest.raises(ImageError):
            source.index()
    wanted = f"https://{HOST}/v2/a/b/manifests/{digest(DATA)}"
    source, _ = opened(
        monkeypatch,
        {wanted: Answer(DATA, Docker_Content_Digest=f"sha256:{OTHER}")},
        f"docker://{HOST}/a/b@{digest(DATA)}",
    )
    assert source.index()[0].digest == digest(DATA), "what was asked for counts, not what is said"
    source.close()


def row(name: str) -> dict[str, Any]:
    return {"mediaType": MANIFEST, "digest": digest(name.encode()), "size": 1}


def page(*names: str, link: str = "") -> Answer:
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [row(name) for name in names]}).encode()
    return Answer(body, Link=link) if link else Answer(body)


def test_referrers(monkeypatch: pytest.MonkeyPatch, auth: Path) -> None:
    base = f"https://{HOST}/v2/a/b"
    table: dict[str, Any] = {
        f"{base}/referrers/sha256:x": page("1", link='</v2/a/b/referrers/sha256:x?n=2>; rel="next"'),
        f"{base}/referrers/sha256:x?n=2": page("2", link='</v2/a/b/next>;rel="next"'),
        f"{base}/next": page("3", link='</v2/other/referrers>; rel="next"'),
    }
    source, net = opened(monkeypatch, table)
    assert [found.digest for found in source.referrers("sha256:x")] == [digest(b"1"), digest(b"2"), digest(b"3")]
    assert net.urls == list(table)
    assert {headers["Accept"] for _, _, headers, _ in net.seen} == {INDEX}
    table[f"{base}/next"] = page("3", link='</v2/a/b/more>; rel="last"')
    assert len(source.referrers("sha256:x")) == 3
    # A registry without the API keeps them under a tag, and one without that has none.
    table[f"{base}/referrers/sha256:x"] = Answer(status=404)
    table[f"{base}/manifests/sha256-x"] = page("4")
    assert [found.digest for found in source.referrers("sha256:x")] == [digest(b"4")]
    table[f"{base}/manifests/sha256-x"] = Answer(status=404)
    assert source.referrers("sha256:x") == []
    for path in ("manifests/sha256-x", "referrers/sha256:x"):
        table[f"{base}/{path}"] = Answer(status=500)
        with pytest.raises(registry.Refused, match=f"{path}: HTTP status 500"):
            source.referrers("sha256:x")
    source.close()


def test_pages_end(monkeypatch: pytest.MonkeyPatch, auth: Path) -> None:
    at = f"https://{HOST}/v2/a/b/referrers/x"
    source, net = opened(monkeypatch, {at: page("1", link='</v2/a/b/referrers/x>; rel="next"')})
    assert len(source.referrers("x")) == 32 == len(net.seen)


def test_blobs_ahead(monkeypatch: pytest.MonkeyPatch, auth: Path) -> None:
    """Announced layers are fetched three at a time; other layers and documents are fetched at
    once."""
    names = [f"blob {number}".encode() for number in range(5)]
    table: dict[str, Any] = {f"https://{HOST}/v2/a/b/blobs/{digest(name)}": Answer(name) for name in names}
    table[f"https://{HOST}/v2/a/b/manifests/{digest(DATA)}"] = Answer(DATA)
    source, net = opened(monkeypatch, table)
    wanted = [Descriptor("x/y", digest(name), len(name)) for name in names]
    assert source.open(wanted[4]).read() == names[4]
    assert source.open(Descriptor(MANIFEST, digest(DATA), len(DATA))).read() == DATA
    assert net.seen[-1][2]["Accept"] == source_accept()
    source.prefetch(wanted)
    assert len(net.seen) == 2
    with source.open(wanted[0]) as stream:
        assert stream.read() == names[0]
    for one in list(source.downloads.values()):
        one.thread.join(10)
    assert list(source.downloads) == [one.digest for one in wanted[:3]] and len(net.seen) == 5
    with source.open(wanted[1]) as stream:
        assert stream.read() == names[1]
    assert list(source.downloads) == [one.digest for one in wanted[:4]]
    source.close()


def source_accept() -> str:
    docker = "application/vnd.docker.distribution.manifest"
    return ", ".join((MANIFEST, f"{docker}.v2+json", INDEX, f"{docker}.list.v2+json"))


def test_a_directory_of_certificates(tmp_path: Path) -> None:
    registry.tls_context("")
    for bad, words in ((tmp_path / "missing", "No such file"), (tmp_path, "")):
        (tmp_path / "ca.crt").write_text("no certificate")
        with pytest.raises(ImageError, match=f'^--cert-dir "{bad}": .*{words}'):
            registry.tls_context(str(bad))
    (tmp_path / "ca.crt").rename(tmp_path / "ca.txt")
    registry.tls_context(str(tmp_path))
    (tmp_path / "client.cert").write_text("no certificate")
    with pytest.raises(ImageError, match="--cert-dir"):
        registry.tls_context(str(tmp_path))


# --- credentials ----------------------------------------------------------------------------------


def helper(directory: Path, text: str, status: int = 0) -> None:
    """A credential helper that answers with a text, and records its requests."""
    path = directory / "docker-credential-test"
    path.write_text(
        f"#!/bin/sh\n[ \"$*\" = get ] || exit 9\ncat >{directory}/asked\nprintf '%s' '{text}'\nexit {status}\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("text", "status", "wanted"),
    [
        ('{"Username": "u", "Secret": "s"}', 0, credentials.Credentials("u", "s")),
        ('{"Username": "<token>", "Secret": "s"}', 0, credentials.Credentials("", "", "s")),
        ("", 0, credentials.Credentials()),
        ("credentials not found in native keychain", 1, None),
        ("locked\n", 2, 'docker-credential-test failed for "h": locked'),
        ("[]", 0, "docker-credential-test: expected an object, found []"),
        ("{", 0, "docker-credential-test: "),
    ],
)
@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_helpers(
    monkeypatch: pytest.MonkeyPatch, auth: Path, tmp_path: Path, text: str, status: int, wanted: Any, key: str
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    helper(tmp_path, text, status)
    auth.write_text(json.dumps({key: "test" if key == "credsStore" else {"h": "test"}}))
    if isinstance(wanted, str):
        with pytest.raises(ImageError) as caught:
            credentials.find("h", "x")
        assert str(caught.value).startswith(wanted)
    else:
        assert credentials.find("h", "x") == wanted
    assert (tmp_path / "asked").read_text() == "h"


def test_helpers_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch, auth: Path, tmp_path: Path) -> None:
    auth.write_text('{"credsStore": "test"}')
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match=r"^docker-credential-test: not found in PATH$"):
        credentials.find("h", "x")
    (tmp_path / "docker-credential-test").write_text("#!/bin/sh\nexec /bin/sleep 9\n")
    (tmp_path / "docker-credential-test").chmod(0o755)
    monkeypatch.setattr(credentials, "HELPER_SECONDS", 0.05)
    with pytest.raises(ImageError, match=r"^docker-credential-test: no answer in 0 s$"):
        credentials.find("h", "x")
    for name in ("a/b", "a b", "é"):
        auth.write_text(json.dumps({"credsStore": name}))
        with pytest.raises(ImageError, match="not a name"):
            credentials.find("h", "x")


@pytest.mark.parametrize(
    ("environ", "files"),
    [
        (
            {"HOME": "/h"},
            ["/run/containers/{uid}/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"],
        ),
        (
            {"XDG_RUNTIME_DIR": "/r", "XDG_CONFIG_HOME": "/c", "DOCKER_CONFIG": "/d"},
            ["/r/containers/auth.json", "/c/containers/auth.json", "/d/config.json"],
        ),
        (
            {},
            ["/run/containers/{uid}/containers/auth.json", "//.config/containers/auth.json", "//.docker/config.json"],
        ),
        ({"REGISTRY_AUTH_FILE": "/a", "HOME": "/h"}, ["/a"]),
    ],
)
def test_files_of_credentials(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], files: list[str]) -> None:
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert credentials.auth_files("") == [path.format(uid=os.getuid()) for path in files]
    assert credentials.auth_files("/chosen") == ["/chosen"]


@pytest.mark.parametrize(
    "key", ["docker.io", "https://index.docker.io/v1/", "https://{host}", "https://{host}/v1/", "https://{host}/v2/"]
)
@pytest.mark.parametrize("host", ["docker.io", "registry-1.docker.io", "index.docker.io", "other.example"])
def test_names_of_registries(auth: Path, key: str, host: str) -> None:
    logged_in(auth, key.format(host=host))
    hub = host != "other.example" or "docker.io" not in key
    assert (credentials.find(host, "x") is not None) == hub


def test_files_that_do_not_count(monkeypatch: pytest.MonkeyPatch, auth: Path, tmp_path: Path) -> None:
    monkeypatch.delenv("REGISTRY_AUTH_FILE")
    for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "XDG_CONFIG_HOME/containers").mkdir(parents=True)
    (tmp_path / "DOCKER_CONFIG").mkdir()
    first = tmp_path / "XDG_CONFIG_HOME/containers/auth.json"
    logged_in(tmp_path / "DOCKER_CONFIG/config.json", "h")
    for text in (
        "[]",
        "{}",
        '{"auths": {"h": {}}}',
        '{"auths": [], "credHelpers": []}',
        '{"credHelpers": {"h": 1}, "credsStore": ""}',
    ):
        first.write_text(text)
        assert credentials.find("h", "x") == credentials.Credentials("me", "secret"), text
    first.unlink()
    first.mkdir()
    with pytest.raises(ImageError, match=r'auth\.json": '):
        credentials.find("h", "x")
