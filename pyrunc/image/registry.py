"""An image in a registry (OCI distribution-spec, pull side), over urllib3.

Nothing from a registry is trusted. A manifest is compared with the requested digest or hashed here,
and blobs are verified while they are unpacked.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import threading
from typing import IO
from urllib.parse import urlencode, urljoin, urlsplit

try:
    import ssl
except ImportError as error:
    from pyrunc.errors import PyruncError

    raise PyruncError(f"registries need OpenSSL: {error}") from error
try:
    import urllib3
except ImportError as error:
    from pyrunc.errors import PyruncError

    raise PyruncError(f"registries need urllib3 (pip install 'pyrunc[image]'): {error}") from error

from pyrunc import VERSION
from pyrunc.errors import show
from pyrunc.image import credentials, descriptor, sources
from pyrunc.image.descriptor import Descriptor
from pyrunc.image.download import Download
from pyrunc.image.errors import ImageError, chain
from pyrunc.image.reference import Registry
from pyrunc.image.sources import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.image.descriptor import Document

CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
MAX_REDIRECTS = 5
MAX_PAGES = 32  # of referrers
PARALLEL = 3  # blobs at a time, as in docker
_PARAMETER = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ACCEPT = ", ".join((*descriptor.MANIFESTS, *descriptor.INDEXES))
_USER_AGENT = f"pyrunc/{VERSION}"


class Refused(ImageError):
    """A registry's answer other than success; ``status`` is the HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


def is_loopback(host: str) -> bool:
    """Whether HOST[:PORT] is this machine."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


class Connection:
    """One registry: scheme, TLS, tokens. Raises ImageError for every failure."""

    def __init__(self, host: str, repository: str, options: Document) -> None:
        self.host, self.repository = host, repository
        self.plain = is_loopback(host) or bool(options.get("plain-http"))  # HTTP is acceptable without TLS
        self.scheme = "" if self.plain else "https"  # "": not known yet
        self.probing = threading.Lock()
        self.authfile: str = options.get("authfile", "")
        self.pool = urllib3.PoolManager(
            num_pools=8,
            maxsize=PARALLEL,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            ssl_context=tls_context(options.get("cert-dir", "")),
            headers={"User-Agent": _USER_AGENT},
        )
        self.authorization = ""

    def url(self, path: str) -> str:
        """The URL of a path of the API."""
        host = "registry-1.docker.io" if self.host == "docker.io" else self.host
        with self.probing:
            if not self.scheme:
                self.scheme = self._probe(host)
        return f"{self.scheme}://{host}/v2/{self.repository}/{path}"

    def _probe(self, host: str) -> str:
        """https, or http if the server does not speak TLS. An untrusted certificate does not
        cause a fallback."""
        try:
            self._request("GET", f"https://{host}/v2/", {}).release_conn()
        except ImageError as error:
            if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in chain(error)):
                raise
            return "http"
        return "https"

    def get(self, path: str, accept: str = "*/*", offset: int = 0) -> urllib3.BaseHTTPResponse:
        """GET below /v2/REPOSITORY/, without reading the body. Authenticates on request."""
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        for last in (False, False, True):
            response = self._follow(self.url(path), headers)
            if response.status != 401 or last:
                break
            try:
                answered = self._authenticate(response.headers.get("WWW-Authenticate", ""))
            except ImageError:
                response.close()
                raise
            if not answered:
                break  # the body has the registry's words
            response.drain_conn()
        if response.status not in (200, 206):
            raise self._refused(response, path)
        return response

    def _follow(self, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """GET with redirects: credentials go only to the registry, and https never becomes http."""
        origin = urlsplit(url)
        for _ in range(MAX_REDIRECTS + 1):
            sent = dict(headers)
            at = urlsplit(url)
            if self.authorization and (at.scheme, at.netloc) == (origin.scheme, origin.netloc):
                sent["Authorization"] = self.authorization
            response = self._request("GET", url, sent)
            if response.status not in (301, 302, 303, 307, 308):
                return response
            target = urljoin(url, response.headers.get("Location", ""))
            response.drain_conn()
            response.close()
            scheme = urlsplit(target).scheme
            if scheme != "https" and not (scheme == "http" and at.scheme == "http"):
                raise ImageError(f"{self.host}: refusing the redirect to {show(target)}: not https")
            url = target
        raise ImageError(f"{self.host}: more than {MAX_REDIRECTS} redirects")

    def _request(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None = None
    ) -> urllib3.BaseHTTPResponse:
        try:
            return self.pool.request(
                method,
                url,
                headers={"User-Agent": _USER_AGENT, **headers},
                body=body,
                redirect=False,
                preload_content=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise ImageError(f"{self.host}: {_reason(error)}") from error

    # -- authentication ----------------------------------------------------------------------------

    def _authenticate(self, challenge: str) -> bool:
        """Answer a WWW-Authenticate header; False if there is no (further) answer."""
        kind, _, rest = challenge.partition(" ")
        found = credentials.find(self.host, self.repository, self.authfile)
        if kind.lower() == "basic":
            if found is None or self.authorization == found.basic():
                return False
            self.authorization = found.basic()
            return True
        if kind.lower() != "bearer":
            return False
        parameters = dict(_PARAMETER.findall(rest[:4096]))
        before, self.authorization = self.authorization, ""
        self.authorization = "Bearer " + self._token(parameters, found)
        return self.authorization != before

    def _token(self, parameters: dict[str, str], found: credentials.Credentials | None) -> str:
        """Query the token server that a registry names (distribution: "Token Authentication")."""
        realm = parameters.get("realm", "")
        scheme = urlsplit(realm).scheme
        if scheme != "https" and not (scheme == "http" and self.scheme == "http"):
            raise ImageError(f"{self.host}: refusing the token server {show(realm)}: not https")
        scope = parameters.get("scope") or f"repository:{self.repository}:pull"
        query = {"service": parameters.get("service", ""), "scope": scope}
        headers = {"Accept": "application/json"}
        if found is not None and found.token:
            form = {"grant_type": "refresh_token", "refresh_token": found.token, "client_id": "pyrunc", **query}
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            response = self._request("POST", realm, headers, urlencode(form).encode())
        else:
            if found is not None and found.user:
                headers["Authorization"] = found.basic()
            response = self._request("GET", f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}", headers)
        if response.status != 200:
            raise self._refused(response, "token")
        answer = sources.parse_json(self.body(response, 1 << 20), "the token server's answer")
        token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ImageError(f"{self.host}: the token server sent no token")
        return token

    def _refused(self, response: urllib3.BaseHTTPResponse, what: str) -> Refused:
        """An error with the registry's own message (distribution-spec: "Error Codes")."""
        text = ""
        try:
            answer = json.loads(response.read(65536, decode_content=True))
            rows = answer.get("errors") or []
            text = "; ".join(f"{row.get('code')}: {row.get('message')}" for row in rows[:3])
        except (ValueError, AttributeError, TypeError, urllib3.exceptions.HTTPError):
            pass
        finally:
            response.close()
        hint = (
            ""
            if response.status not in (401, 403)
            else "; `docker login`, `podman login` or --authfile give credentials"
        )
        words = f" ({text[:300]})" if text else ""
        return Refused(response.status, f"{self.host}: {what}: HTTP status {response.status}{words}{hint}")

    def body(self, response: urllib3.BaseHTTPResponse, limit: int) -> bytes:
        """A body of bounded size."""
        try:
            data = response.read(limit + 1)
        except urllib3.exceptions.HTTPError as error:
            raise ImageError(f"{self.host}: {_reason(error)}") from error
        finally:
            response.close()
        if len(data) > limit:
            raise ImageError(f"{self.host}: an answer of more than {limit >> 20} MiB")
        return bytes(data)

    def close(self) -> None:
        """Close all connections."""
        # clear() alone leaves closing to the garbage collector.
        for key in self.pool.pools.keys():  # noqa: SIM118  # a container that cannot be iterated over
            self.pool.pools[key].close()
        self.pool.clear()


def _reason(error: BaseException) -> str:
    """The innermost cause, which has the message."""
    words = [str(cause) for cause in chain(error) if str(cause)]
    return words[-1] if words else type(error).__name__


def tls_context(directory: str) -> ssl.SSLContext:
    """TLS with the system's roots, plus those of a directory in the format of
    containers-certs.d(5). Raises ImageError."""
    context = ssl.create_default_context()
    if not directory:
        return context
    try:
        for name in sorted(os.listdir(directory)):
            path = os.path.join(directory, name)
            if name.endswith(".crt"):
                context.load_verify_locations(path)
            elif name.endswith(".cert"):
                context.load_cert_chain(path, path.removesuffix(".cert") + ".key")
    except (OSError, ssl.SSLError) as error:
        raise ImageError(f"--cert-dir {show(directory)}: {error}") from error
    return context


class RegistrySource(Source):
    """One image of a repository; mirrors are tried first, the registry itself last."""

    def __init__(self, reference: Registry, options: Document) -> None:
        self.reference = reference
        self.name = str(reference)
        hosts = [*options.get("mirror", []), reference.host]
        self.connections = [Connection(host, _repository(host, reference.repository), options) for host in hosts]
        self.downloads: dict[str, Download] = {}
        self.order: list[Descriptor] = []

    def _get(self, path: str, accept: str = "*/*", offset: int = 0) -> tuple[Connection, urllib3.BaseHTTPResponse]:
        for connection in self.connections[:-1]:
            try:
                return connection, connection.get(path, accept, offset)
            except ImageError:
                continue  # a mirror that is down or lacks the image
        last = self.connections[-1]
        return last, last.get(path, accept, offset)

    def index(self) -> list[Descriptor]:
        connection, response = self._get(f"manifests/{self.reference.version}", _ACCEPT)
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        said = response.headers.get("Docker-Content-Digest", "")
        data = connection.body(response, descriptor.MAX_DOCUMENT)
        wanted = self.reference.version if self.reference.by_digest else said
        if wanted:
            descriptor.verify(data, Descriptor(media_type, descriptor.check_digest(wanted), len(data)))
        digest = self.reference.version if self.reference.by_digest else descriptor.digest_of(data)
        return [Descriptor(media_type, digest, len(data), data)]

    def prefetch(self, wanted: list[Descriptor]) -> None:
        """The order in which blobs will be opened, so that the next few can be downloaded ahead."""
        self.order = list(wanted)

    def open(self, wanted: Descriptor) -> IO[bytes]:
        if wanted.media_type in (*descriptor.MANIFESTS, *descriptor.INDEXES):
            return self._stream(f"manifests/{wanted.digest}", _ACCEPT)
        if wanted not in self.order:
            return self._stream(f"blobs/{wanted.digest}", "*/*")
        place = self.order.index(wanted)
        for ahead in self.order[place : place + PARALLEL]:
            if ahead.digest not in self.downloads:
                self.downloads[ahead.digest] = Download(ahead, self._blob)
        return self.downloads[wanted.digest].open()

    def _blob(self, wanted: Descriptor, offset: int) -> urllib3.BaseHTTPResponse:
        return self._get(f"blobs/{wanted.digest}", offset=offset)[1]

    def _stream(self, path: str, accept: str) -> IO[bytes]:
        import io

        connection, response = self._get(path, accept)
        return io.BytesIO(connection.body(response, descriptor.MAX_DOCUMENT))

    def referrers(self, digest: str) -> list[Descriptor]:
        """The referrers of a manifest: signatures, SBOMs (distribution-spec: "Listing
        Referrers"). Raises ImageError."""
        try:
            return self._referrers(f"referrers/{digest}")
        except Refused as error:
            if error.status != 404:
                raise
        try:
            # A registry without the API: the fallback is an index under a tag.
            return self._referrers(f"manifests/{digest.replace(':', '-', 1)}")
        except Refused as error:
            if error.status != 404:
                raise
            return []

    def _referrers(self, path: str) -> list[Descriptor]:
        found: list[Descriptor] = []
        for _ in range(MAX_PAGES):
            connection, response = self._get(path, descriptor.INDEXES[0])
            link = response.headers.get("Link", "")
            document = sources.parse_json(connection.body(response, descriptor.MAX_DOCUMENT), "referrers")
            found += sources.parse_index(document, "referrers")
            match = re.match(r'<([^>]*)>;\s*rel="next"', link)
            if match is None:
                break
            target = urlsplit(match.group(1))
            prefix = f"/v2/{connection.repository}/"
            if not target.path.startswith(prefix):
                break
            path = target.path[len(prefix) :] + (f"?{target.query}" if target.query else "")
        return found

    def close(self) -> None:
        for download in self.downloads.values():
            download.close()
        for connection in self.connections:
            connection.close()


def _repository(host: str, repository: str) -> str:
    """On Docker Hub, a name without a slash is an official image."""
    if host in ("docker.io", "registry-1.docker.io") and "/" not in repository:
        return f"library/{repository}"
    return repository


def open_registry(reference: Registry, options: Document) -> RegistrySource:
    """The source for a reference; it sends no request yet."""
    return RegistrySource(reference, options)
