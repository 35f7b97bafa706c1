"""Convert the configuration of an image to config.json (image-spec: conversion.md)."""

from __future__ import annotations

from pyrunc.errors import UsageError, show
from pyrunc.image import accounts
from pyrunc.image.accounts import User
from pyrunc.image.errors import ImageError
from pyrunc.image.identity import Identity
from pyrunc.image.layer import Warnings
from pyrunc.image.manifest import Image
from pyrunc.image.tree import Tree
from pyrunc.spec import default

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.image.descriptor import Document
    from pyrunc.spec.types import Config, Mount

PREFIX = "org.opencontainers.image."
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
VOLUME_KINDS = ("tmpfs", "bind", "none")


def _strings(config: Document, name: str) -> list[str]:
    """An optional array of strings. Raises ImageError."""
    found = config.get(name) or []
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ImageError(f"/config/{name}: expected an array of strings, found {show(found)}")
    return found


def _string(config: Document, name: str, where: str) -> str:
    found = config.get(name) or ""
    if not isinstance(found, str):
        raise ImageError(f"{where}/{name}: expected a string, found {show(found)}")
    return found


def _object(config: Document, name: str, where: str) -> Document:
    found = config.get(name) or {}
    if not isinstance(found, dict):
        raise ImageError(f"{where}/{name}: expected an object, found {show(found)}")
    return found


def convert(image: Image, tree: Tree, *, volumes: str, ids: Identity, warnings: Warnings) -> Config:
    """A config.json for an unpacked image.

    ``tree`` is its root filesystem, used to look up users by name. ``volumes``: tmpfs, bind or
    none. ``ids``: the identity that wrote the files. Raises ImageError naming the field of the
    image's configuration.
    """
    source = _object(image.config, "config", "")
    config = default.config()
    if ids.mappings is not None:
        config = default.rootless(config, ids.mappings)
    user = accounts.find(_string(source, "User", "/config"), tree)
    if ids.mappings is not None and not ids.owners and (user.uid, user.gid) != (0, 0):
        warnings.add(
            f"the program runs as root of its user namespace, not as {user.uid}:{user.gid}, which is not mapped"
        )
        user = User(home=user.home)
    process = config["process"]
    process["terminal"] = False
    process["args"] = _strings(source, "Entrypoint") + _strings(source, "Cmd")
    process["cwd"] = _string(source, "WorkingDir", "/config") or "/"
    process["env"] = _environment(_strings(source, "Env"), user)
    process["user"] = {"uid": user.uid, "gid": user.gid}
    if user.additional_gids and ids.owners:
        process["user"]["additionalGids"] = user.additional_gids
    config["root"] = {"path": "rootfs", "readonly": False}
    config["annotations"] = _annotations(image, source)
    config["mounts"] += _volumes(_object(source, "Volumes", "/config"), volumes)
    return config


def _environment(env: list[str], user: User) -> list[str]:
    """Env verbatim, plus PATH, TERM and HOME unless the image sets them."""
    names = [name for entry in env if (name := entry.partition("=")[0]) in ("PATH", "TERM", "HOME")]
    added = [PATH, "TERM=xterm"]
    if user.home.startswith("/"):
        added.append(f"HOME={user.home}")
    return env + [entry for entry in added if entry.partition("=")[0] not in names]


def _annotations(image: Image, source: Document) -> dict[str, str]:
    """conversion.md, "Annotation Fields": labels take precedence."""
    found = {
        "os": _string(image.config, "os", ""),
        "architecture": _string(image.config, "architecture", ""),
        "variant": _string(image.config, "variant", ""),
        "os.version": _string(image.config, "os.version", ""),
        "os.features": ",".join(_features(image.config)),
        "author": _string(image.config, "author", ""),
        "created": _string(image.config, "created", ""),
        "stopSignal": _string(source, "StopSignal", "/config"),
        "exposedPorts": ",".join(sorted(_object(source, "ExposedPorts", "/config"))),
    }
    annotations = {PREFIX + name: text for name, text in found.items() if text}
    labels = _object(source, "Labels", "/config")
    if not all(isinstance(value, str) for value in labels.values()):
        raise ImageError("/config/Labels: expected an object of strings")
    return annotations | labels


def _features(config: Document) -> list[str]:
    found = config.get("os.features") or []
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ImageError(f"/os.features: expected an array of strings, found {show(found)}")
    return found


def _volumes(volumes: Document, kind: str) -> list[Mount]:
    """A mount for each volume (conversion.md, "Volumes": implementations should offer them)."""
    if kind not in VOLUME_KINDS:
        raise UsageError(f"--volumes {show(kind)}: expected {', '.join(VOLUME_KINDS[:-1])} or {VOLUME_KINDS[-1]}")
    mounts = []
    for number, path in enumerate(sorted(volumes)):
        if not path.startswith("/") or "\0" in path:
            raise ImageError(f"/config/Volumes: expected absolute paths, found {show(path)}")
        if kind == "tmpfs":
            options = ("rw", "nosuid", "nodev", "noexec", "relatime")
            mounts.append(default.mount(path, "tmpfs", "tmpfs", *options))
        elif kind == "bind":
            mounts.append(default.mount(path, "bind", f"volumes/{number}", "bind", "rw", "nosuid", "nodev"))
    return mounts


def with_command(config: Config, command: list[str]) -> Config:
    """The configuration with another command line, which replaces Cmd and keeps Entrypoint's
    environment."""
    if command:
        config["process"]["args"] = command
    if not config["process"]["args"]:
        raise UsageError("the image has neither Entrypoint nor Cmd: name a command")
    return config
