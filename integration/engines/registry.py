"""A read-only image registry on loopback, from OCI archives: ``registry.py PORT NAME:TAG=FILE
...``.

If the current directory has cert.pem and its key.pem, the registry uses TLS.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import ssl
import sys
import tarfile

BLOBS: dict[str, bytes] = {}
TAGS: dict[str, str] = {}  # name:tag to digest of the manifest


def load(reference: str, archive: str) -> None:
    """Serve an archive's image as `reference`."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            file = tar.extractfile(member)
            if file is None:
                continue
            data = file.read()
            BLOBS["sha256:" + hashlib.sha256(data).hexdigest()] = data
            if member.name == "index.json":
                TAGS[reference] = json.loads(data)["manifests"][0]["digest"]


class Handler(http.server.BaseHTTPRequestHandler):
    """GET and HEAD of manifests (by tag or digest) and blobs."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Log nothing: the caller's stderr is for errors."""

    def find(self) -> tuple[bytes | None, str]:
        """The body and the content type for the path."""
        path = self.path.partition("?")[0]
        if path.rstrip("/") == "/v2":
            return b"{}", "application/json"
        if "/manifests/" in path:
            name, _, reference = path.removeprefix("/v2/").partition("/manifests/")
            body = BLOBS.get(reference if reference.startswith("sha256:") else TAGS.get(f"{name}:{reference}", ""))
            return body, json.loads(body)["mediaType"] if body else ""
        return BLOBS.get(path.rpartition("/")[2]), "application/octet-stream"

    def do_GET(self) -> None:
        """Answer a request; HEAD is the same without the body."""
        body, kind = self.find()
        self.send_response(404 if body is None else 200)
        body = body or b""
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Content-Digest", "sha256:" + hashlib.sha256(body).hexdigest())
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET


if __name__ == "__main__":
    for argument in sys.argv[2:]:
        load(*argument.split("=", 1))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    if os.path.exists("cert.pem"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain("cert.pem", "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print("ready", flush=True)
    server.serve_forever()
