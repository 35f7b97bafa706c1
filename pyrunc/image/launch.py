"""`run --image` and `create --image`.  A hot module: see locate.py."""

from __future__ import annotations

import posix
import sys
from errno import ENOENT
from fcntl import LOCK_SH, flock

from pyrunc import fs, interpreter, state
from pyrunc.errors import SysError, UsageError
from pyrunc.image import locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrunc.command import Context
    from pyrunc.launch.create import CreateOptions

PULL_POLICIES = ("missing", "always", "never")
_PASSED_ON = ("platform", "authfile", "cert-dir")


def launched(
    context: Context,
    values: dict[str, Any],
    opts: CreateOptions,
    command: list[str],
    do: Callable[[CreateOptions], int],
) -> int:
    """Do something with the bundle of a container of --image: launch.run, launch.create.  Returns the exit status."""
    status = prepare(context, values, opts, command)
    if not status:
        with _Bundle(opts):
            status = do(opts)
    return status


class _Bundle:
    """Context manager: the bundle goes when the container has not come to be."""

    def __init__(self, opts: CreateOptions) -> None:
        self.opts = opts

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            try:
                locate.remove_bundle(self.opts.image_bundle)
            except SysError as failed:
                self.opts.log.warning(str(failed))


def prepare(context: Context, values: dict[str, Any], opts: CreateOptions, command: list[str]) -> int:
    """Make the bundle of a container of --image, and point ``opts`` to it.  Returns 0, or the status of a failed pull.

    Raises PyruncError; then nothing is left behind.
    """
    if values.get("bundle") or values.get("config"):
        raise UsageError("--image makes a bundle of its own: --bundle and --config have no use with it")
    policy = values.get("pull") or "missing"
    if policy not in PULL_POLICIES:
        raise UsageError(f"--pull {policy}: expected {', '.join(PULL_POLICIES)}")
    state.check_id(opts.id)  # it becomes part of a path
    store = locate.store_path(values.get("store", ""))
    reference = locate.absolute(values["image"], values.get("platform", ""))
    if policy != "always":
        if _make_bundle(store, reference, values, opts, command):
            return 0
        if policy == "never":
            raise UsageError(f"--image {reference}: not in the store {store}, and --pull is never")
    status = pull(context, values, store)
    if not status and not _make_bundle(store, reference, values, opts, command):
        raise SysError("--image", "open", ENOENT, value=reference, detail="it was pulled and is gone again")
    return status


def _make_bundle(store: str, reference: str, values: dict[str, Any], opts: CreateOptions, command: list[str]) -> bool:
    """The bundle of an image that is in the store; False if it is not there."""
    try:
        lock = posix.open(f"{store}/lock", posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        flock(lock, LOCK_SH)  # `images prune` must not remove a layer between the look and the note that it is used
        image = locate.find(store, reference)
        if image is None:
            return False
        terminal = bool(values.get("tty")) or bool(opts.console_socket)
        if not opts.detach and not opts.console_socket and "tty" not in values:
            terminal = posix.isatty(0) and posix.isatty(1)
        owner = (state.root_dir(opts.root), opts.id)
        opts.bundle = opts.image_bundle = locate.make_bundle(store, image, owner, command, terminal=terminal)
    finally:
        posix.close(lock)
    upper, work = f"{opts.bundle}/upper", f"{opts.bundle}/work"
    # volatile: an unmount must not write out all of the host's filesystem (kernel: ovl_sync_fs).  What a container
    # wrote outlives neither the container nor, its state being in /run, the host.
    opts.overlay = [*locate.overlay_options(image["chains"], upper, work, prefix=f"{store}/l/"), "volatile"]
    return True


def pull(context: Context, values: dict[str, Any], store: str) -> int:
    """Run `images pull` and wait for it; what it says goes to our stderr.  Returns its exit status."""
    words = own_command()
    if context.root:
        words += ["--root", context.root]
    words += ["images", "pull", "--store", store]
    for name in _PASSED_ON:
        if values.get(name):
            words += [f"--{name}", values[name]]
    for host in values.get("mirror") or ():
        words += ["--mirror", host]
    if values.get("plain-http"):
        words.append("--plain-http")
    ffi, lib = interpreter.quick()
    argv = [fs.encode(word) for word in [*words, values["image"]]]
    envp = [name + b"=" + value for name, value in posix.environ.items()]
    stage = ffi.new("int *")
    pid = lib.pr_spawn_hook(argv[0], interpreter.texts(argv), interpreter.texts(envp), ffi.NULL, -1, 2, stage)
    if pid < 0:
        raise SysError("--image", "execve", -pid, value=words[0])
    status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    return status if status >= 0 else 128 - status


def own_command() -> list[str]:
    """How this very program is called."""
    if interpreter.FROZEN:
        return [posix.readlink("/proc/self/exe")]
    return [sys.executable, "-m", "pyrunc"]
