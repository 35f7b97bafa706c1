"""Registry credentials from the files of docker and podman (docker's config.json, credential
helpers)."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from dataclasses import dataclass

from pyrunc.errors import errno_text, show
from pyrunc.image import sources
from pyrunc.image.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.image.descriptor import Document

HELPER_SECONDS = 30.0
DOCKER_HUB = "https://index.docker.io/v1/"  # docker login's name for docker.io
_HELPER = re.compile(r"[a-zA-Z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and a password, or an identity token (OAuth 2.0 refresh token)."""

    user: str = ""
    password: str = ""
    token: str = ""

    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")


def auth_files(chosen: str) -> list[str]:
    """The files to search, in order; only the user's choice if there is one."""
    chosen = chosen or os.environ.get("REGISTRY_AUTH_FILE", "")
    if chosen:
        return [chosen]
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
    home = os.environ.get("HOME") or "/"
    docker = os.environ.get("DOCKER_CONFIG") or f"{home}/.docker"
    config = os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    return [f"{runtime_dir}/containers/auth.json", f"{config}/containers/auth.json", f"{docker}/config.json"]


def find(host: str, repository: str, chosen: str = "") -> Credentials | None:
    """The credentials for a repository; None for anonymous access. Raises ImageError."""
    for path in auth_files(chosen):
        try:
            with open(path, "rb") as stream:
                document = sources.read_json(stream, path)
        except FileNotFoundError:
            if chosen:
                raise ImageError(f"--authfile {show(path)}: there is no such file") from None
            continue
        except OSError as error:
            raise ImageError(f"{show(path)}: {errno_text(error.errno or 0)}") from error
        found = _in_file(document if isinstance(document, dict) else {}, host, repository, path)
        if found is not None:
            return found
    return None


def _in_file(document: Document, host: str, repository: str, path: str) -> Credentials | None:
    """containers-auth.json(5): the most specific key first: HOST/a/b, HOST/a, HOST."""
    parts = [host, *repository.split("/")]
    keys = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    if host in ("docker.io", "registry-1.docker.io", "index.docker.io"):
        keys += ["docker.io", DOCKER_HUB]
    keys += [f"https://{host}", f"https://{host}/v1/", f"https://{host}/v2/"]
    helpers = document.get("credHelpers")
    for key in keys:
        helper = helpers.get(key) if isinstance(helpers, dict) else None
        if isinstance(helper, str):
            return _ask(helper, key)
    auths = document.get("auths")
    for key in keys:
        row = auths.get(key) if isinstance(auths, dict) else None
        if isinstance(row, dict) and row:
            return _row(row, path, key)
    store = document.get("credsStore")
    if isinstance(store, str) and store:
        return _ask(store, host)
    return None


def _row(row: Document, path: str, key: str) -> Credentials:
    token = row.get("identitytoken") or ""
    text = "".join(str(row.get("auth") or "").splitlines())  # as in Docker, whose decoder skips them
    try:
        user, _, password = base64.b64decode(text, validate=True).decode("utf-8").partition(":")
    except ValueError:  # binascii.Error and UnicodeDecodeError are ValueErrors
        raise ImageError(f"{show(path)}: the auth of {show(key)} is not base64 of USER:PASSWORD") from None
    return Credentials(user or str(row.get("username") or ""), password or str(row.get("password") or ""), str(token))


def _ask(helper: str, server: str) -> Credentials | None:
    """docker-credential-helpers: ``docker-credential-NAME get`` reads the server's name and
    prints JSON."""
    if not _HELPER.fullmatch(helper):
        raise ImageError(f"credential helper {show(helper)}: not a name")
    program = f"docker-credential-{helper}"
    try:
        # The user's own configuration names the program, and the name contains no slash.
        done = subprocess.run(  # noqa: S603  # nosec B603
            [program, "get"], input=server.encode(), capture_output=True, timeout=HELPER_SECONDS, check=False
        )
    except FileNotFoundError:
        raise ImageError(f"{program}: not found in PATH") from None
    except OSError as error:
        raise ImageError(f"{program}: {errno_text(error.errno or 0)}") from error
    except subprocess.TimeoutExpired:
        raise ImageError(f"{program}: no answer in {HELPER_SECONDS:.0f} s") from None
    if done.returncode:
        if b"credentials not found" in done.stdout + done.stderr:
            return None
        text = (done.stdout + done.stderr).decode("utf-8", "replace").strip()[:200]
        raise ImageError(f"{program} failed for {show(server)}: {text}")
    answer = sources.parse_json(done.stdout[:65536] or b"{}", program)
    if not isinstance(answer, dict):
        raise ImageError(f"{program}: expected an object, found {show(answer)}")
    user, secret = str(answer.get("Username") or ""), str(answer.get("Secret") or "")
    return Credentials(token=secret) if user == "<token>" else Credentials(user, secret)
