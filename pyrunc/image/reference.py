"""The IMAGE argument: ``DIR[:TAG]``, ``FILE.tar[:TAG]``, or
``docker://HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]``."""

from __future__ import annotations

import os
import re
import tarfile
from dataclasses import dataclass

from pyrunc.errors import UsageError, errno_text, show
from pyrunc.image import descriptor
from pyrunc.image.errors import ImageError
from pyrunc.image.sources import DockerArchive, LayoutArchive, LayoutDirectory, Source

# distribution-spec: "Pulling manifests".
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_HOST = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?)(?::[0-9]{1,5})?")
_SCHEMES = ("oci", "oci-archive", "docker-archive")


@dataclass(frozen=True, slots=True)
class Registry:
    """A reference to an image in a registry; ``version`` is a tag or a digest."""

    host: str
    repository: str
    version: str

    @property
    def by_digest(self) -> bool:
        """Whether the version is a digest, which always names the same content."""
        return ":" in self.version

    def __str__(self) -> str:
        return f"docker://{self.host}/{self.repository}{'@' if self.by_digest else ':'}{self.version}"


def parse_registry(text: str) -> Registry:
    """``docker://HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]``; the tag defaults to latest. Raises
    UsageError."""
    rest = text.removeprefix("docker://")
    host, _, path = rest.partition("/")
    path, at, digest = path.partition("@")
    colon = tag = ""
    if ":" in path.rpartition("/")[2]:
        path, colon, tag = path.rpartition(":")
    expected = "expected docker://HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]"
    if not _HOST.fullmatch(host) or not _REPOSITORY.fullmatch(path) or len(path) > 255:
        raise UsageError(f"image {show(text)}: {expected}")
    if not at:
        if colon and not _TAG.fullmatch(tag):
            raise UsageError(f"image {show(text)}: {show(tag)} is not a tag")
        return Registry(host, path, tag or "latest")
    try:
        return Registry(host, path, descriptor.check_digest(digest))
    except ImageError as error:
        raise UsageError(f"image {show(text)}: {error}") from error


def split_tag(text: str) -> tuple[str, str]:
    """Parse ``PATH[:TAG]``; an existing path has no tag, even if its name contains colons."""
    if os.path.lexists(text):
        return text, ""
    path, colon, tag = text.partition(":")
    while colon and not os.path.lexists(path):
        more, colon, rest = tag.partition(":")
        path, tag = f"{path}:{more}", rest
    return (path, tag) if colon else (text, "")


def open_local(text: str) -> Source:
    """The source for a path. Raises UsageError, ImageError."""
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in _SCHEMES or os.path.lexists(text):
        scheme, rest = "", text
    path, tag = split_tag(rest)
    try:
        directory = os.path.isdir(path)
        if not directory:
            os.stat(path)
    except OSError as error:
        hint = ""
        host, slash, _ = text.partition("/")
        if slash and "." in host.strip("."):
            hint = f"; an image in a registry is named docker://{text}"
        raise UsageError(f"image {show(text)}: {errno_text(error.errno or 0)}{hint}") from error
    if directory:
        if scheme not in ("", "oci"):
            raise UsageError(f"image {show(text)}: expected a tar archive, found a directory")
        return LayoutDirectory(path, tag)
    if scheme == "oci":
        raise UsageError(f"image {show(text)}: expected a directory")
    if scheme == "docker-archive" or (not scheme and not _is_layout(path)):
        return DockerArchive(path, tag)
    return LayoutArchive(path, tag)


def _is_layout(path: str) -> bool:
    """Whether an archive is an image layout; current versions of `docker save` write both
    formats to one file."""
    try:
        with tarfile.open(path, "r:") as tar:
            for count, entry in enumerate(tar):
                if os.path.normpath(entry.name) == "oci-layout":
                    return True
                if count > 100_000:
                    break
                tar.members = []  # type: ignore[attr-defined]
    except (OSError, tarfile.TarError, EOFError):
        pass  # the next open reports the error
    return False
