"""The input of the compiler: the configuration, facts of the host, options of the command."""

from __future__ import annotations

from pyrunc.errors import ConfigError
from pyrunc.plan import Plan
from pyrunc.plan.environment import environment
from pyrunc.plan.mount_options import Mount
from pyrunc.spec.names import CLONE_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.host import HostFacts
    from pyrunc.spec.types import Config, Hooks, Linux, Process, User


class Options:
    """What the command line and the state directory add to config.json; paths are host paths."""

    __slots__ = (
        "bundle",
        "cgroup",
        "cgroup_origin",
        "cgroup_path",
        "console",
        "create_state",
        "id",
        "joined",
        "listen_fds",
        "no_new_keyring",
        "no_pivot",
        "notify",
        "overlay",
        "preserve_fds",
        "rootfs",
        "start_state",
        "tools",
        "wait",
    )

    def __init__(self, id: str, bundle: str = "") -> None:
        self.id = id
        self.console = True  # there is a socket for slot "console"
        self.no_new_keyring = False
        self.preserve_fds = self.listen_fds = 0  # how many; the listen ones come first, from 3 on
        # Of `create` and `run`
        self.bundle = bundle  # relative paths of config.json start here
        self.cgroup_path = ""  # absolute inside the v2 hierarchy; "": no cgroup of its own
        self.no_pivot = False
        self.notify = ""  # directory to bind at /run/notify; "": none
        self.overlay: list[str] = []  # mount options of one over the root directory; []: none
        self.wait = "fifo"  # how init waits for start: "fifo" (create) or "socket" (run)
        # The state JSON before and after the pid, for the hooks inside the container: they see a
        # different pid.
        self.create_state: tuple[str, str] = ("", "")
        self.start_state: tuple[str, str] = ("", "")
        # Of `exec`
        self.joined: list[tuple[str, str]] = []  # (type, path), in setns order
        self.cgroup = ""  # directory of the cgroup to be born in; "": the caller's
        self.cgroup_origin = "/linux/cgroupsPath"  # or the option that names the cgroup
        self.tools = ""  # directory of --tools; "": none
        self.rootfs = ""  # host path, for a container without a mount namespace of its own; else ""


class Namespaces:
    """linux.namespaces, sorted into new and joined ones."""

    __slots__ = ("joined", "new", "pointers")

    def __init__(self, linux: Linux) -> None:
        self.new = 0  # CLONE_NEW* of the namespaces to create
        self.joined: list[tuple[str, str]] = []  # (type, path) in config order
        self.pointers: dict[str, str] = {}  # type -> JSON pointer of its entry
        for index, entry in enumerate(linux.get("namespaces", ())):
            kind, path = entry["type"], entry.get("path")
            self.pointers[kind] = f"/linux/namespaces/{index}"
            if path:
                self.joined.append((kind, path))
            else:
                self.new |= CLONE_FLAGS[kind]

    def has(self, kind: str) -> bool:
        """Whether the container has a namespace of this type, new or joined."""
        return kind in self.pointers

    def is_new(self, kind: str) -> bool:
        """Whether the container gets a new namespace of this type."""
        return bool(self.new & CLONE_FLAGS[kind])


class Context:
    """The input of every step, and the plan that the steps are added to.

    Steps only read it. What a step determines for later ones is assigned in plan/create.py, where
    the order is.
    """

    __slots__ = (
        "config",
        "env",
        "facts",
        "fills_dev",
        "hooks",
        "linux",
        "mounts",
        "namespaces",
        "nodes",
        "options",
        "plan",
        "process",
        "read_only",
        "trees",
        "user",
    )

    def __init__(self, config: Config, process: Process, facts: HostFacts, options: Options) -> None:
        """``config`` and ``process`` are valid; an empty ``process``: there is no program."""
        self.plan = plan = Plan()
        plan.npreserve = options.listen_fds + options.preserve_fds
        self.config = config
        self.linux: Linux = config.get("linux", {})
        self.hooks: Hooks = config.get("hooks", {})
        self.process = process
        self.user: User = process.get("user", {})
        self.facts = facts
        self.options = options
        self.namespaces = Namespaces(self.linux)
        self.env = environment(self.process, options.listen_fds, bool(options.notify))
        self.mounts: list[Mount] = []
        self.fills_dev = True  # /dev is the container's own: nothing of the host is bound there
        self.trees: dict[str, int] = {}  # origin of a bind mount -> slot of its OPEN_TREE
        self.nodes: set[int] = set()  # indexes of linux.devices that MAKE_NODE creates
        self.read_only: list[Mount] = []  # mounts to make read-only when they have been filled

    def read_mounts(self, at: str = "/mounts") -> None:
        """Take the entries of `mounts` apart; ``at`` is the pointer of the array."""
        for index, entry in enumerate(self.config.get("mounts", ())):
            mount = Mount(f"{at}/{index}", entry)
            self.mounts.append(mount)
            if mount.at == "/dev" and mount.is_new_bind():
                self.fills_dev = False

    def compiled(self) -> Plan:
        """The finished plan. Raises ConfigError with all problems that the compiler found."""
        if self.plan.problems:
            raise ConfigError(self.plan.problems)
        return self.plan
