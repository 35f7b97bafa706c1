"""`run --image` and `create --image`: from an image in the store to a bundle, in a millisecond.

A hot module: it imports only what the hot verbs import. Another process (`images pull`) unpacks
missing images, so that no module or mount of the pull remains in the process that creates the
container.
"""

from __future__ import annotations

import posix

from pyrunc import fs, host, jsontext
from pyrunc.errors import PyruncError, SysError, UsageError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.image.descriptor import Document

PAGE = 4095  # bytes of mount options that mount(2) accepts


def store_path(option: str) -> str:
    """--store, or this user's default. Raises PyruncError."""
    if option:
        return fs.abspath(option)
    if posix.geteuid() == 0:
        return "/var/lib/pyrunc/images"
    data, home = fs.getenv("XDG_DATA_HOME"), fs.getenv("HOME")
    if not data and not home:
        raise PyruncError("neither XDG_DATA_HOME nor HOME is set: choose a directory for images with --store DIR")
    return f"{fs.abspath(data) if data else home + '/.local/share'}/pyrunc/images"


def check(path: str, found: posix.stat_result) -> None:
    """Write access to the store controls what containers execute, so check it. Raises
    PyruncError."""
    if found.st_uid != posix.geteuid() or found.st_mode & 0o022:
        raise PyruncError(
            f"--store {show(path)}: must belong to uid {posix.geteuid()} and be writable by nobody else"
            f" (owner {found.st_uid}, mode {found.st_mode & 0o7777:04o})"
        )


def encode_digest(digest: str) -> str:
    """A digest as a file name."""
    return digest.replace(":", "-", 1)


def short(chain_id: str) -> str:
    """The short name of a layer: 80 bits of a hash that an attacker cannot choose."""
    return chain_id.partition(":")[2][:20]


def encode_reference(reference: str) -> str:
    """A reference as a file name; special characters become hexadecimal bytes."""
    out = []
    for char in reference:
        plain = char.isascii() and (char.isalnum() or char in "-_")
        out.append(char if plain else "".join(f"%{byte:02x}" for byte in fs.encode(char)))
    name = "".join(out)
    if len(name) > 240:
        # Too long for a file name: keep the tail, which differs; the document contains the whole
        # reference.
        name = f"{name[:100]}~{name[-130:]}"
    return name + ".json"


def absolute(image: str, platform: str) -> str:
    """The reference under which an image is stored: paths become absolute, and each platform is
    a separate image."""
    scheme, colon, rest = image.partition(":")
    if colon and scheme in ("oci", "oci-archive", "docker-archive"):
        image = f"{scheme}:{fs.abspath(rest)}"
    elif not image.startswith("docker://"):
        image = fs.abspath(image)
    return f"{image}#{platform}" if platform else image


def validator(reference: str) -> list[int]:
    """Changes together with a local image: inode, time and size of its index; [] for a
    registry's."""
    if reference.startswith("docker://"):
        return []
    path = reference.partition("#")[0]
    for scheme in ("oci:", "oci-archive:", "docker-archive:"):
        path = path.removeprefix(scheme)
    while path:
        for name in (f"{path}/index.json", path):
            try:
                found = posix.stat(name)
            except OSError:
                continue
            return [found.st_ino, found.st_mtime_ns, found.st_size]
        path = path.rpartition(":")[0]
    return []


def find(store: str, reference: str) -> Document | None:
    """The image for a reference; None if it must be pulled (again). Raises SysError,
    PyruncError."""
    try:
        check(store, posix.stat(store))
        link = jsontext.loads(fs.read_file(f"{store}/refs/{encode_reference(reference)}"))
        if link["reference"] != reference or link["validator"] != validator(reference):
            return None
        image: Document = jsontext.loads(fs.read_file(f"{store}/images/{encode_digest(link['digest'])}.json"))
        for chain in image["chains"]:
            posix.stat(f"{store}/l/{short(chain)}")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return None  # damaged: another pull rewrites it
    except OSError as error:
        raise SysError("--store", "open", error.errno or 0, value=store) from error
    return image


def overlay_options(chains: list[str], upper: str, work: str, prefix: str) -> list[str]:
    """Mount options for an overlay of layers, the lowest first in ``chains``. Raises
    PyruncError."""
    lower = ":".join(prefix + short(chain) for chain in reversed(chains))
    data = [f"lowerdir={lower}"]
    if upper:
        data += [f"upperdir={upper}", f"workdir={work}"]
    if posix.geteuid() != 0 or not host.initial_userns():
        data.append("userxattr")  # trusted.* needs the host's CAP_SYS_ADMIN (kernel: overlayfs.rst)
    if len(",".join(data)) > PAGE:
        raise PyruncError(f"--store: {len(chains)} layers do not fit into the mount options of one overlay")
    return data


def chains_of(bundle: str) -> list[str]:
    """The layers that a container's bundle uses; [] if it cannot be read."""
    try:
        found = jsontext.loads(fs.read_file(f"{bundle}/image.json"))
        return list(found["chains"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def is_used(bundle: str) -> bool:
    """Whether the container of a bundle still exists. Raises OSError if that is unknown."""
    try:
        found = jsontext.loads(fs.read_file(f"{bundle}/image.json"))
        return fs.exists(f"{found['root']}/{found['id']}")
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def make_bundle(store: str, image: Document, owner: tuple[str, str], args: list[str], *, terminal: bool) -> str:
    """Create a bundle for a container of an image: an overlay with a private writable layer.
    Returns its path.

    Raises SysError, and then leaves nothing behind.
    """
    config = image["config"]
    process = config["process"]
    process["args"] = args or process["args"]
    if not process["args"]:
        raise UsageError("the image has neither Entrypoint nor Cmd: name a command after ID")
    process["terminal"] = terminal
    root, id = owner
    bundle = f"{store}/containers/{id[:128]}-{posix.getrandom(8).hex()}"
    note = {"chains": image["chains"], "root": root, "id": id}
    try:
        posix.mkdir(bundle, 0o700)
        try:
            for name in ("rootfs", "upper", "work"):
                posix.mkdir(f"{bundle}/{name}", 0o755)
            for name, document in (("image.json", note), ("config.json", config)):
                fs.write_new(f"{bundle}/{name}", jsontext.dumps(document).encode("ascii"))
        except BaseException:
            remove_bundle(bundle)
            raise
    except OSError as error:
        raise SysError("--store", "mkdir", error.errno or 0, value=bundle) from error
    return bundle


def remove_bundle(bundle: str) -> None:
    """Remove the bundle of a container, including the container's changes. Raises SysError.

    For a user with subordinate ids this happens in a user namespace, because the files belong to
    other ids.
    """
    parent, _, name = bundle.rpartition("/")
    try:
        fd = posix.open(parent, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            try:
                fs.remove_tree(name, fd)
            except PermissionError:
                if posix.geteuid() == 0:
                    raise
                from pyrunc import interpreter

                interpreter.complete()
                from pyrunc.image import identity

                identity.enter(False)
                fs.remove_tree(name, fd)
        finally:
            posix.close(fd)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SysError("--store", "unlink", error.errno or 0, value=bundle) from error
