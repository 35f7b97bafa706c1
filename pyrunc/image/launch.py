"""`run --image` and `create --image`.  A hot module: see locate.py."""

from __future__ import annotations

import posix
import sys
from errno import ENOENT
from fcntl import LOCK_SH, flock

from pyrunc import fs, interpreter, state
from pyrunc.errors import SysError, UsageError
from pyrunc.image import locate
from pyrunc.native import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from pyrunc.command import Context, Values
    from pyrunc.launch.create import CreateOptions

    _Options = TypeVar("_Options", bound=CreateOptions)

PULL_POLICIES = ("missing", "always", "never")
_PASSED_ON = ("platform", "authfile", "cert-dir")


def launched(
    context: Context,
    values: Values,
    opts: _Options,
    command: list[str],
    do: Callable[[_Options], int],
) -> int:
    """Create or run the container of --image, as ``do`` does. Returns the exit status."""
    status = prepare(context, values, opts, command)
    if not status:
        with _Bundle(opts):
            status = do(opts)
    return status


class _Bundle:
    """Context manager: remove the bundle unless the container was created."""

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


def prepare(context: Context, values: Values, opts: CreateOptions, command: list[str]) -> int:
    """Create the bundle of a container of --image, and point ``opts`` to it. Returns 0, or the
    status of a failed pull.

    Raises PyruncError, and then leaves nothing behind.
    """
    if values.get("bundle") or values.get("config"):
        raise UsageError("--image creates its own bundle; --bundle and --config cannot be used with it")
    policy = values.get("pull") or "missing"
    if policy not in PULL_POLICIES:
        raise UsageError(f"--pull {policy}: expected {', '.join(PULL_POLICIES)}")
    state.check_id(opts.id)  # the id becomes part of a path
    store = locate.store_path(values.get("store", ""))
    reference = locate.absolute(values["image"], values.get("platform", ""))
    if policy != "always":
        if _make_bundle(store, reference, values, opts, command):
            return 0
        if policy == "never":
            raise UsageError(f"--image {reference}: not in the store {store}, and --pull is never")
    status = pull(context, values, store)
    if not status and not _make_bundle(store, reference, values, opts, command):
        raise SysError("--image", "open", ENOENT, value=reference, detail="it disappeared after the pull")
    return status


def _make_bundle(store: str, reference: str, values: Values, opts: CreateOptions, command: list[str]) -> bool:
    """The bundle of an image in the store; False if the image is missing."""
    try:
        lock = posix.open(f"{store}/lock", posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        flock(lock, LOCK_SH)  # `images prune` must not remove a layer between the lookup and the record of its use
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
    # volatile: an unmount must not flush all of the host's filesystem (kernel: ovl_sync_fs). The
    # container's changes outlive neither the container nor the host, because its state is in /run.
    opts.overlay = [*locate.overlay_options(image["chains"], upper, work, prefix=f"{store}/l/"), "volatile"]
    return True


def pull(context: Context, values: Values, store: str) -> int:
    """Run `images pull` and wait for it; its messages go to our stderr. Returns its exit status."""
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
    argv = [fs.encode(word) for word in [*words, values["image"]]]
    envp = [name + b"=" + value for name, value in posix.environ.items()]
    try:
        pid = processes.spawn_hook(argv[0], argv, envp, out=2)
    except OSError as error:
        raise SysError("--image", "execve", error.errno or 0, value=words[0]) from error
    status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    return status if status >= 0 else 128 - status


def own_command() -> list[str]:
    """The command that runs this program."""
    if interpreter.FROZEN:
        return [posix.readlink("/proc/self/exe")]
    return [sys.executable, "-m", "pyrunc"]
