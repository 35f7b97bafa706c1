"""Where containers are kept and how they are created: the entry point of the API."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from pyrunc import fs, state
from pyrunc.api import children, documents, library
from pyrunc.api.container import Container
from pyrunc.api.stdio import DEVNULL, Stdio, Stream
from pyrunc.api.types import Path
from pyrunc.errors import PyruncError, UsageError, show

if TYPE_CHECKING:
    import builtins

CgroupManager = Literal["cgroupfs", "systemd", "disabled"]
Rootless = Literal["auto", "true", "false"]


class CreateOptions(TypedDict, total=False):
    """Options of `Runtime.create` and `Runtime.run`, all optional.

    ``config`` is a dict that replaces the bundle's config.json, or the path of another file.

    ``stdin``, ``stdout`` and ``stderr``: a descriptor, a file, `PIPE`, `STDOUT` (stderr only),
    `DEVNULL` (the default) or `INHERIT`. With ``process.terminal`` the terminal's master is sent to
    the unix socket ``console_socket`` instead.

    ``pidfd_socket`` is a unix socket that receives a pidfd of the first process, ``pid_file`` a
    file for its pid. ``no_pivot`` moves the root instead of using pivot_root(2), ``no_new_keyring``
    keeps the caller's session keyring.
    """

    config: Mapping[str, object] | Path
    stdin: Stream
    stdout: Stream
    stderr: Stream
    console_socket: str
    pidfd_socket: str
    pid_file: str
    no_pivot: bool
    no_new_keyring: bool


class RuntimeOptions(TypedDict, total=False):
    """Options of `Runtime` and `AsyncRuntime` beside ``root``, all optional."""

    cgroup_manager: CgroupManager
    rootless: Rootless
    on_warning: Callable[[str], object] | None


class Runtime:
    """Containers under one state root. Several instances, and several threads, may be used
    concurrently.

    ``root`` is the state directory, by default /run/pyrunc, for users $XDG_RUNTIME_DIR/pyrunc (from
    the environment at interpreter start: `os.environ` is ignored, also for hooks without ``env``).
    ``cgroup_manager`` is ``"cgroupfs"``, ``"systemd"`` or ``"disabled"``; ``rootless`` selects
    whether to avoid cgroup operations that need root. ``on_warning`` is called with each warning,
    in the thread of the operation; all warnings also go to the logger ``"pyrunc"`` of `logging`.
    Nothing is printed.

    Raises UsageError for any other value.
    """

    def __init__(
        self,
        root: Path = "",
        cgroup_manager: CgroupManager = "cgroupfs",
        rootless: Rootless = "auto",
        on_warning: Callable[[str], object] | None = None,
    ) -> None:
        if cgroup_manager not in ("cgroupfs", "systemd", "disabled"):
            raise UsageError(f"cgroup_manager={show(cgroup_manager)}: expected cgroupfs, systemd or disabled")
        if rootless not in ("auto", "true", "false"):
            raise UsageError(f"rootless={show(rootless)}: expected auto, true or false")
        given = os.fspath(root)
        # Resolved now: the calling program may change its working directory.
        self.root: str = fs.abspath(given) if given else ""
        self.cgroup_manager = cgroup_manager
        self.rootless = rootless
        self.on_warning = on_warning

    def __repr__(self) -> str:
        return f"<Runtime root={self.root!r} cgroup_manager={self.cgroup_manager!r}>"

    def _messages(self) -> library.Messages:
        """The destination of one operation's messages."""
        return library.Messages(self.on_warning)

    def create(self, bundle: Path, id: str, **options: Unpack[CreateOptions]) -> Container:
        """Create a container (runtime.md, "Create") that waits for `Container.start`.

        ``bundle`` is a directory with a config.json (bundle.md); ``id`` has at most 242 letters,
        digits and ``_+.-``.

        Raises ConfigError with every problem of the configuration, StateError if the id is taken,
        SysError with the field that the kernel refused, UsageError. An exception, including
        KeyboardInterrupt, leaves nothing behind.
        """
        library.check_options("create", options, CreateOptions)
        children.reap_forgotten()
        state.check_id(id)
        stdio = library.open_stdio(
            options.get("stdin", DEVNULL), options.get("stdout", DEVNULL), options.get("stderr", DEVNULL)
        )
        try:
            opts = self._creation(bundle, id, options, stdio)
            job = library.Create(opts)
            job.execute()
            pidfd, job.pidfd = job.pidfd, -1
            data = job.container.data
            job.release()
            container = Container(self, id, children.known(data["pid"], data["starttime"], pidfd), stdio)
            container.warnings = opts.messages.found
            return container
        except OSError as error:
            raise library.as_error(error) from error
        finally:
            stdio.close()

    def _creation(self, bundle: Path, id: str, options: CreateOptions, stdio: Stdio) -> library.Creation:
        opts = library.Creation(id, self._messages(), stdio)
        opts.root, opts.cgroup_manager, opts.rootless = self.root, self.cgroup_manager, self.rootless
        opts.bundle = os.fspath(bundle)
        config = options.get("config")
        if isinstance(config, Mapping):
            opts.document = config
        elif config is not None:
            opts.config = fs.abspath(os.fspath(config))
        opts.console_socket, opts.pid_file = options.get("console_socket", ""), options.get("pid_file", "")
        opts.pidfd_socket = options.get("pidfd_socket", "")
        opts.no_pivot, opts.no_new_keyring = options.get("no_pivot", False), options.get("no_new_keyring", False)
        return opts

    def run(self, bundle: Path, id: str, **options: Unpack[CreateOptions]) -> Container:
        """`create` and `Container.start`. If the start fails, the container is deleted."""
        container = self.create(bundle, id, **options)
        try:
            return container.start()
        except BaseException:
            container.delete(force=True)
            raise

    def get(self, id: str) -> Container:
        """An existing container, created by any program. Raises NotFound, Damaged, SysError."""
        container = Container(self, id)
        container.state()
        return container

    def list(self) -> builtins.list[Container]:
        """The containers under the root, by id; a root that does not exist has none.

        A damaged state is a warning. Raises SysError if a state cannot be read at the moment.
        """
        messages = self._messages()

        def broken(error: PyruncError) -> None:
            if not isinstance(error, state.Damaged):
                raise error
            messages.warning(str(error))

        with library.opened(self.root) as store:
            return [Container(self, found.id) for found in store.list(broken)]

    def plan(self, bundle: Path = ".", *, config: Mapping[str, object] | Path | None = None) -> documents.Plan:
        """The steps of a `create` with a bundle. Nothing is changed, and no privilege is needed.

        Raises ConfigError.
        """
        options: CreateOptions = {} if config is None else {"config": config}
        stdio = library.open_stdio(DEVNULL, DEVNULL, DEVNULL)
        try:
            return documents.compiled(library.Create(self._creation(bundle, "ID", options, stdio)))
        except OSError as error:
            raise library.as_error(error) from error
        finally:
            stdio.close()
