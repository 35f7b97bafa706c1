"""`create`: everything up to, but not including, the execve of the user's program."""

from __future__ import annotations

from pyrunc import command
from pyrunc.launch import create

USAGE = "create [OPTIONS] ID | create [OPTIONS] --image IMAGE ID [COMMAND [ARG...]]"
SUMMARY = "create a container; its program waits for start"
ARGS = (1, 1)
STOP_AT_FIRST = "image"  # a command line follows
FLAGS: tuple[command.Flag, ...] = (
    ("bundle", "b", "DIR", "str", "directory of config.json (default: the working directory)"),
    ("config", "f", "FILE", "str", "use FILE, relative to the working directory, instead of the bundle's config.json"),
    ("console-socket", "", "PATH", "str", "unix socket that receives the terminal"),
    ("pidfd-socket", "", "PATH", "str", "unix socket that receives a pidfd of the container's first process"),
    ("pid-file", "", "FILE", "str", "write the pid of the container's first process to FILE"),
    ("no-pivot", "", "", "bool", "move the root instead of pivot_root(2), for a root filesystem on a ramdisk"),
    ("no-new-keyring", "", "", "bool", "keep the caller's session keyring"),
    ("seccomp-log", "", "", "bool", "log calls that the seccomp filter denies (see `pyrunc help seccomp`)"),
    ("preserve-fds", "", "N", "int", "pass N more descriptors, starting at 3, to the container"),
    (
        "image",
        "",
        "IMAGE",
        "str",
        "create the bundle from an image: DIR[:TAG], FILE.tar[:TAG] or docker://HOST/REPO[:TAG]",
    ),
    ("pull", "", "WHEN", "str", "unpack the image if the store lacks it (default), always, or never"),
    ("store", "", "DIR", "str", "the store of images (see `pyrunc help images`)"),
    ("tty", "t", "", "bool", "with --image: give the program a terminal"),
    ("platform", "", "OS/ARCH", "str", "with --image: see `pyrunc help unpack`, as for the options below"),
    ("authfile", "", "FILE", "str", "credentials for registries"),
    ("plain-http", "", "", "bool", "use HTTP for a registry on another machine"),
    ("cert-dir", "", "DIR", "str", "directory with ca.crt, client.cert and client.key for the registry"),
    ("mirror", "", "HOST", "multi", "try this registry first"),
)


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Create the container."""
    opts = command.create_options(context, args[0], values)
    if "image" not in values:
        return created(opts)
    from pyrunc.image import launch as from_image

    return from_image.launched(context, values, opts, args[1:], created)


def created(opts: create.CreateOptions) -> int:
    """Call `launch.create` and return an exit status."""
    create.create(opts)
    return 0
