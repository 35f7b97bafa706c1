"""`unpack`: turn an OCI image into a bundle."""

from __future__ import annotations

from pyrunc import command, interpreter, jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.image.descriptor import Platform
    from pyrunc.image.sources import Source

USAGE = "unpack [OPTIONS] IMAGE BUNDLE"
SUMMARY = "unpack an OCI image into a new bundle: rootfs and config.json"
ARGS = (2, 2)
SOURCE_FLAGS: tuple[command.Flag, ...] = (
    ("platform", "", "OS/ARCH", "str", "select OS/ARCH[/VARIANT] from an index (default: this machine's)"),
    ("force", "", "", "bool", "accept an image for another platform"),
    ("limit", "", "NAME=N", "multi", "change a limit: bytes, entries, ratio, depth, name or header"),
    ("authfile", "", "FILE", "str", "credentials for registries (default: $REGISTRY_AUTH_FILE, docker's config.json)"),
    ("plain-http", "", "", "bool", "use HTTP for a registry on another machine"),
    ("cert-dir", "", "DIR", "str", "directory with ca.crt, client.cert and client.key for the registry"),
    ("mirror", "", "HOST", "multi", "try this registry first"),
    ("quiet", "q", "", "bool", "no progress bar"),
)
FLAGS: tuple[command.Flag, ...] = (
    *SOURCE_FLAGS,
    ("volumes", "", "KIND", "str", "mount the volumes of the image as tmpfs (default), bind, or none"),
    ("rootless", "", "", "bool", "use only the caller's own id, not subordinate ids"),
    ("json", "", "", "bool", "print digest, chainID and configuration"),
)


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Unpack the image."""
    interpreter.complete()
    from pyrunc.image import limits, manifest, unpack
    from pyrunc.image.progress import Progress

    image, bundle = args
    volumes = values.get("volumes", "tmpfs")
    options = unpack.Options(limits.parse(values.get("limit", [])), volumes, values.get("rootless", False))
    source = open_source(image, values)
    try:
        found = manifest.resolve(source, platform(values), force=values.get("force", False))
        size = sum(layer.blob.size for layer in found.layers)
        progress = Progress("unpacking", size, quiet=values.get("quiet", False))
        try:
            result = unpack.unpack(source, found, bundle, options, progress)
        finally:
            progress.end()
    finally:
        source.close()
    for text in result.pop("warnings"):
        context.log.warning(text)
    return command.out(jsontext.dumps(result) + "\n") if values.get("json") else 0


def open_source(image: str, values: command.Values) -> Source:
    """The source that IMAGE names.  Raises UsageError, ImageError."""
    from pyrunc.image import reference

    if not image.startswith("docker://"):
        return reference.open_local(image)
    from pyrunc.image import registry

    return registry.open_registry(reference.parse_registry(image), values)


def platform(values: command.Values) -> Platform:
    """--platform, or this machine's."""
    from pyrunc.image import manifest

    text = values.get("platform", "")
    return manifest.parse_platform(text) if text else manifest.host_platform()
