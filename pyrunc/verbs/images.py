"""`images`: the store of unpacked images that `run --image` and `create --image` use."""

from __future__ import annotations

from pyrunc import command, interpreter, jsontext
from pyrunc.errors import UsageError, show
from pyrunc.verbs.unpack import SOURCE_FLAGS, open_source, platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.image.store import Store

USAGE = "images [OPTIONS] [list | pull IMAGE | prune]"
SUMMARY = "list the images in the store, add one, or remove those that no container needs"
ARGS = (0, 2)
FLAGS: tuple[command.Flag, ...] = (
    (
        "store",
        "",
        "DIR",
        "str",
        "directory of the store (default /var/lib/pyrunc/images; ~/.local/share/pyrunc/images)",
    ),
    ("all", "a", "", "bool", "prune: also remove images that no container uses"),
    ("referrers", "", "IMAGE", "str", "list the referrers of an image in a registry: signatures, SBOMs"),
    ("json", "", "", "bool", "print JSON"),
    *SOURCE_FLAGS,
)


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Dispatch."""
    interpreter.complete()
    from pyrunc.image import locate, store

    if values.get("referrers"):
        return referrers(values["referrers"], values)
    verb = args[0] if args else "list"
    if verb not in ("list", "pull", "prune") or len(args) != (2 if verb == "pull" else min(len(args), 1)):
        raise UsageError(f"{show(' '.join(args))}: expected list, pull IMAGE or prune")
    opened = store.Store(locate.store_path(values.get("store", "")))
    try:
        if verb == "list":
            return list_images(opened, values)
        if verb == "prune":
            return prune(context, opened, values)
        return pull(context, opened, values, args[1])
    finally:
        opened.close()


def list_images(opened: Store, values: command.Values) -> int:
    """`images list`."""
    rows = opened.list()
    if values.get("json"):
        return command.out(jsontext.dumps(rows) + "\n")
    lines = [f"{'DIGEST':20} {'LAYERS':>6} {'MB':>8}  REFERENCES"]
    for row in rows:
        short = row["digest"][:19]
        lines.append(f"{short:20} {row['layers']:6} {row['size'] / 1e6:8.1f}  {' '.join(sorted(row['references']))}")
    return command.out("\n".join(lines) + "\n")


def pull(context: command.Context, opened: Store, values: command.Values, image: str) -> int:
    """`images pull`: unpack an image into the store."""
    from pyrunc.image import limits, locate, manifest, unpack
    from pyrunc.image.progress import Progress

    options = unpack.Options(limits.parse(values.get("limit", [])))
    reference_name = locate.absolute(image, values.get("platform", ""))
    source = open_source(image, values)
    try:
        found = manifest.resolve(source, platform(values), force=values.get("force", False))
        size = sum(layer.blob.size for layer in found.layers)
        progress = Progress("pulling", size, quiet=values.get("quiet", False))
        try:
            warnings = opened.pull(source, found, reference_name, options, progress)
        finally:
            progress.end()
    finally:
        source.close()
    for text in warnings.lines():
        context.log.warning(text)
    if values.get("json"):
        return command.out(jsontext.dumps({"digest": found.manifest.digest, "chainID": found.chain_id}) + "\n")
    return 0


def prune(context: command.Context, opened: Store, values: command.Values) -> int:
    """`images prune`: existing containers name the bundles they use in their state."""
    counts = opened.prune(everything=values.get("all", False))
    if values.get("json"):
        return command.out(jsontext.dumps(counts) + "\n")
    removed = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "nothing"
    return command.out(f"removed: {removed}\n")


def referrers(image: str, values: command.Values) -> int:
    """`images --referrers`."""
    if not image.startswith("docker://"):
        raise UsageError(f"--referrers {show(image)}: expected an image in a registry, docker://...")
    from pyrunc.image import reference, registry

    source = registry.open_registry(reference.parse_registry(image), values)
    try:
        found = source.referrers(source.index()[0].digest)
    finally:
        source.close()
    if values.get("json"):
        rows = [{"digest": row.digest, "artifactType": row.artifact_type, "size": row.size} for row in found]
        return command.out(jsontext.dumps(rows) + "\n")
    return command.out("".join(f"{row.digest}  {row.artifact_type or row.media_type}\n" for row in found))
