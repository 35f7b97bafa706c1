"""Create a container: the one flow, from a bundle to a process that waits for `start`.

    load, validate -> host facts -> compile -> reserve the id -> cgroup -> spawn init, handshake -> commit

The order is what makes a killed pyrunc recoverable: the intent (id, cgroup path, who we are) is in the state
directory before the first side effect, so that `delete --force ID` knows what to remove (runc #4534).
"""

from __future__ import annotations

import posix
from errno import EACCES, EPERM, EROFS
from posix import O_CLOEXEC, O_NOFOLLOW, O_RDWR

from pyrunc import cgroup, fs, handshake, host, procfs, state
from pyrunc.errors import SysError
from pyrunc.launch.ending import Interrupts
from pyrunc.launch.session import InitSession, SessionOptions, write_pid_file
from pyrunc.plan import create as compiler
from pyrunc.plan.context import Options
from pyrunc.signals import SIGKILL
from pyrunc.spec import load, older, validate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from pyrunc.explain import Setting
    from pyrunc.launch.session import Handlers
    from pyrunc.log import Log
    from pyrunc.plan import Plan
    from pyrunc.spec.types import Config, Linux, Resources
    from pyrunc.state.document import Status


class CreateOptions(SessionOptions):
    """The options of `create`; paths are as on the command line."""

    __slots__ = (
        "bundle",
        "cgroup_manager",
        "config",
        "image_bundle",
        "no_new_keyring",
        "no_pivot",
        "overlay",
        "rootless",
        "seccomp_log",
    )

    detach = True  # nobody stays with the container

    def __init__(self, id: str, log: Log) -> None:
        super().__init__(id, log)
        self.bundle = "."
        self.config = "config.json"
        self.no_pivot = self.no_new_keyring = self.seccomp_log = False
        self.cgroup_manager = "cgroupfs"
        self.rootless = "auto"  # or "true", "false"
        self.image_bundle = ""  # of a container of an image; removed with it
        self.overlay: list[str] = []  # mount options of the overlay that is its root


def compile_only(opts: CreateOptions) -> tuple[Config, host.HostFacts, Plan]:
    """Load, validate and compile, touching nothing: what `pyrunc plan` prints.  Raises ConfigError."""
    session = Create(opts)
    session.prepare(for_show=True)
    return session.config, session.facts, session.plan


def create(opts: CreateOptions) -> None:
    """Create a container that waits for `start`.  Raises PyruncError; then nothing is left behind."""
    session = Create(opts)
    session.execute()
    session.finish()


class Create(InitSession):
    """One create at work."""

    __slots__ = ("config", "container", "facts", "linux", "notify", "options", "opts", "raw", "reached_pid")

    transitions = handshake.CREATE
    WAIT: ClassVar = "fifo"  # where init waits for its start
    opts: CreateOptions

    def __init__(self, opts: CreateOptions) -> None:
        super().__init__(opts.log)
        self.opts = opts
        self.notify = ""  # the directory of the container's notify socket
        self.reached_pid = False  # there has been a process of the container
        self.config: Config
        self.linux: Linux  # of the config
        self.raw: bytes
        self.facts: host.HostFacts
        self.options: Options
        self.container: state.Container

    def handlers(self) -> Handlers:
        """What answers each action of ``transitions``."""
        return {
            **super().handlers(),
            "map_ids": self.on_map_ids,
            "pid": self.on_pid,
            "mounted": self.on_mounted,
            "seccomp": self.on_seccomp,
            "created": self.on_created,
        }

    # -- pure and read-only ------------------------------------------------------------------------------

    def prepare(self, *, for_show: bool = False) -> None:
        """Everything that can fail without having touched anything; ``for_show``: nothing will follow."""
        opts = self.opts
        bundle = fs.abspath(opts.bundle)
        self.config, self.raw = self.read_config(fs.join(bundle, opts.config))
        self.facts = host.snapshot()
        if opts.rootless != "auto":
            self.facts.rootless = opts.rootless == "true"
        if for_show and not has_userns(self.config):
            self.facts.euid = 0  # the plan of the one user who could carry it out
        warnings = validate.check(self.config, facts=self.facts)
        older.adapt(self.config)
        if not for_show:
            self.log.warnings(warnings, "config.json")
            terminal = bool(self.config.get("process", {}).get("terminal"))
            self.check_terminal(terminal, not self.foreground())
        linux = self.linux = self.config.get("linux", {})
        options = self.options = Options(opts.id, bundle)
        annotations = self.config.get("annotations", {})
        if opts.seccomp_log or "org.pyrunc.seccomp_log" in annotations:
            from pyrunc.launch import seccomp_log

            opts.seccomp_log = seccomp_log.wanted(self.config, opts.seccomp_log, None if for_show else self.log)
            if opts.seccomp_log:
                seccomp_log.add(self.config)
        options.cgroup_path = cgroup.path_for(
            linux.get("cgroupsPath", ""), opts.id, self.facts, opts.cgroup_manager, annotations
        )
        options.console = bool(self.config.get("process", {}).get("terminal"))
        options.no_pivot, options.no_new_keyring = opts.no_pivot, opts.no_new_keyring
        options.preserve_fds, options.listen_fds = opts.preserve_fds, self.listen_fds
        options.wait, options.overlay = self.WAIT, opts.overlay
        if self.has_notify_socket():
            self.notify = options.notify = f"{state.root_dir(opts.root)}/{opts.id}/notify"
        if any(self.config.get("hooks", {}).values()):
            options.create_state = state.split_state(opts.id, "creating", bundle, annotations)
            options.start_state = state.split_state(opts.id, "created", bundle, annotations)
        if options.console:
            self.close_streams()
        self.own_streams(self.config, self.config.get("process") or {"cwd": "/"})
        self.plan = compiler.compile_create(self.config, self.facts, options)
        if for_show:  # `plan` prints them
            self.plan.warnings[:0] = map(str, warnings)
            self.plan.warnings.more += warnings.more
        else:
            self.log.warnings(self.plan.warnings, "config.json")

    def read_config(self, path: str) -> tuple[Config, bytes]:
        """The configuration, and the bytes to keep of it.  Raises ConfigError."""
        return load.load_config(path)

    def has_notify_socket(self) -> bool:
        """Whether the container's service reports to our service manager (sd_notify(3))."""
        return bool(fs.getenv("NOTIFY_SOCKET"))

    # -- side effects ------------------------------------------------------------------------------------

    def steps(self, interrupts: Interrupts) -> None:
        """From the bundle to an init that waits for start."""
        # First, because init can start up on another core while the configuration is read here.  Without a plan
        # it is an idle process that exits with its socket: nothing has been touched.
        self.spawn()
        self.prepare()
        self.reserve()
        self.make_cgroup()
        self.converse(interrupts)

    def abandon(self) -> None:
        """Run the undo stack; then the poststop hooks, which the runtime-spec requires when a create fails half-way."""
        # Before everything else: a cgroup with processes cannot be removed.
        self.channel.close()
        self.kill_children()
        if self.stuck and self.undo.holds(self.remove_cgroup) and self.plan.cgroup_path:
            # The cgroup cannot be removed, and `delete --force` finds it through the state.
            self.undo.keep(self.remove_cgroup, self.forget)
            self.undo.push(self.container.unlock)
            self.stuck += f"; `delete --force {self.opts.id}` removes the rest once it has ended"
        for problem in self.undo.run():
            self.log.debug(f"undo: {problem}")
        if self.reached_pid:
            self.host_hooks("poststop", "stopped", fatal=False)

    def reserve(self) -> None:
        """Take the id and write the intent."""
        self.driver = cgroup.open_driver(
            self.opts.cgroup_manager if self.facts.cgroup2_mount else "disabled", self.facts
        )
        self.container = container = state.Container(self.open_store(), self.opts.id)
        self.undo.push(self.forget)
        self.take_id()
        container.describe_intent(
            config=self.config,
            bundle=fs.abspath(self.opts.bundle),
            cgroup=self.plan.cgroup_path,
            cgroup_dir=self.facts.cgroup_dir(self.plan.cgroup_path) if self.plan.cgroup_path else "",
            cgroup_manager=self.opts.cgroup_manager if self.plan.cgroup_path else "disabled",
            late=self.plan.late_origins(),
        )
        if self.opts.image_bundle:
            container.data["image_bundle"] = self.opts.image_bundle
        if self.plan.callers_mounts:
            self.watch_root()
        if self.opts.no_new_keyring:
            container.data["no_new_keyring"] = True  # for `exec`, which would join it
        if self.opts.seccomp_log:
            container.data["seccomp_log"] = True  # for `exec`, whose filter is the same
        if self.notify:
            from pyrunc import notify

            container.data["notify"] = self.notify
            notify.prepare(self.notify)
        if self.plan.cgroup_path:
            container.data["cgroup_made"] = self.driver.missing(self.plan.cgroup_path)
        if "intelRdt" in self.linux:
            from pyrunc.cgroup import rdt

            container.data["rdt"] = rdt.plan(self.linux["intelRdt"], self.opts.id, self.facts.resctrl)
        container.save()
        fs.write_new(f"{container.dir}/config.json", self.raw)

    def take_id(self) -> None:
        """Reserve the id.  Raises StateError when it is taken, SysError."""
        self.container.reserve()

    def watch_root(self) -> None:
        """Note what is at the root filesystem before init mounts in our own mount namespace."""
        from pyrunc import rootmount

        data = self.container.data
        data["root_below"] = rootmount.mount_id(data["rootfs"])
        self.undo.push(self.remove_root)

    def remove_root(self) -> None:
        """Undo of ROOT in our mount namespace."""
        from pyrunc import rootmount

        rootmount.remove(self.container.data["rootfs"], self.container.data["root_below"], 0)

    def forget(self) -> None:
        """Undo of `reserve`, the last: `delete --force` must find what could not be undone."""
        if self.undo.problems:
            self.container.unlock()
        else:
            self.container.destroy()

    def make_cgroup(self) -> None:
        """Create the cgroup.  The limits are set at MOUNTED, after init's own set-up, which must not count."""
        path = self.plan.cgroup_path
        resources = self.resources()
        if not path:
            self.driver.create(path, resources)  # refuses limits
            return
        self.undo.push(self.remove_cgroup)
        try:
            request = cgroup.ScopeRequest(self.opts.id, self.enter_pid, self.config.get("annotations", {}))
            self.cgroup_fd = self.driver.create(path, resources, request=request)
        except SysError as error:
            if error.errno not in (EACCES, EPERM, EROFS) or not self.facts.rootless:
                raise
            self.do_without_cgroup(error)
        else:
            if "memory" in resources and self.plan.copies_up():
                # init copies data of the image: the memory limit must bound it.
                self.driver.apply(path, {"memory": resources["memory"]})

    def do_without_cgroup(self, error: SysError) -> None:
        """Leave the container in our own cgroup, which is all a user has to whom none is delegated.

        Raises PyruncError when the configuration asks for more.
        """
        from pyrunc.launch import rootless

        rootless.check_no_cgroup(self.config, error, self.log)
        self.options.cgroup_path = ""
        self.plan = compiler.compile_create(self.config, self.facts, self.options)
        self.driver = cgroup.open_driver("disabled", self.facts)
        self.container.data |= {"cgroup": "", "cgroup_dir": "", "cgroup_manager": "disabled", "cgroup_made": []}
        self.container.data["late"] = self.plan.late_origins()
        self.container.save()

    def remove_cgroup(self) -> None:
        """Undo of `make_cgroup`: remove only what did not exist before, so that a cgroup in use stays."""
        path, made = self.plan.cgroup_path, self.driver.made
        if path in made:
            self.driver.kill(path, SIGKILL)
        if made:
            self.driver.remove(path, made=made)

    def resources(self) -> Resources:
        """linux.resources, {} without any."""
        return self.linux.get("resources", {})

    # -- the handshake -----------------------------------------------------------------------------------

    def open_slot(self, kind: str, value: str, origin: str) -> int:
        """The fifos of the start channel, besides what every session opens."""
        if kind in ("start", "error"):
            path = self.container.fifo(kind)
            posix.mkfifo(path, 0o600)
            return posix.open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW)
        if kind == "idmap":
            from pyrunc import idmap

            return idmap.open_mount(self.config, value, origin)
        return super().open_slot(kind, value, origin)

    def setting(self) -> Setting:
        """Where and as whom the program was to run."""
        from pyrunc import explain

        root = fs.join(fs.abspath(self.opts.bundle), self.config["root"]["path"])
        return explain.Setting(self.config, self.config.get("process") or {"cwd": "/"}, root)

    def on_map_ids(self, record: handshake.Record) -> None:
        """MAP: the process that enter is by now has a new user namespace, and is nobody in it."""
        from pyrunc import idmap

        idmap.write_maps(self.enter_pid, self.config["linux"], self.facts)
        self.send(handshake.GO)

    def on_pid(self, record: handshake.Record) -> None:
        """PID: from now on there is a process to kill; record it in the state before anything else."""
        self.init_pid, self.reached_pid = record.value, True
        self.pidfd = posix.pidfd_open(self.init_pid)
        self.reap_enter()
        self.container.set_init(self.init_pid)
        self.container.data["descriptors"] = procfs.stdio(self.init_pid)  # for `checkpoint`
        self.container.save()
        resources = self.resources()
        linux = self.linux
        if linux.get("uidMappings") and not self.plan.new_userns:
            from pyrunc import idmap

            idmap.check_joined(self.init_pid, linux)
        if self.plan.cgroup_path:
            # Overlaps init's mounts.  The default device rules allow what init does meanwhile (mknod, /dev/null, ptys).
            self.driver.devices(self.cgroup_fd, resources.get("devices"), "/linux/resources/devices")

    def on_mounted(self, record: handshake.Record) -> None:
        """MOUNTED: limits, then the hooks that run in the runtime's namespaces."""
        if "root_below" in self.container.data:
            from pyrunc import rootmount

            self.container.data["root_mount"] = rootmount.mount_id(self.container.data["rootfs"])
        resources = self.resources()
        if self.plan.cgroup_path and resources:
            self.driver.apply(self.plan.cgroup_path, resources)
        if self.plan.cgroup_owner >= 0:
            from pyrunc.cgroup import delegate

            delegate.give(self.facts.cgroup_dir(self.plan.cgroup_path), self.plan.cgroup_owner)
        if "intelRdt" in self.linux:
            from pyrunc.cgroup import rdt

            classes = self.container.data["rdt"]
            self.undo.push(rdt.undo, classes)
            rdt.apply(self.linux["intelRdt"], classes, self.init_pid)
        devices = self.linux.get("netDevices")
        if devices:
            # Before the hooks, which may want to configure them, and before init's sysctls, which may name them.
            from pyrunc.launch import netdev

            self.undo.push(netdev.move(devices, self.init_pid, self.log).restore)
        # runtime.md has prestart after the step that "creating" stands for; crun and the conformance suite agree.
        self.host_hooks("prestart", "created", fatal=True)
        self.host_hooks("createRuntime", "creating", fatal=True)
        self.send(handshake.GO)

    def on_seccomp(self, record: handshake.Record) -> None:
        """SECCOMP: fetch the notify descriptor out of init and hand it to the agent at listenerPath."""
        from pyrunc import seccomp

        status = state.oci_state(
            self.opts.id, "creating", self.init_pid, self.container.data["bundle"], self.config.get("annotations", {})
        )
        seccomp.send_listener(self.pidfd, record.value, self.plan.seccomp or seccomp.NO_PROFILE, self.init_pid, status)
        self.send(handshake.GO)

    def on_created(self, record: handshake.Record) -> None:
        """CREATED: init waits.  The state is committed before the caller learns of it."""
        self.send_pidfd()
        if self.opts.pid_file:
            write_pid_file(self.opts.pid_file, self.init_pid)
            self.undo.push(fs.ignore, posix.unlink, self.opts.pid_file)
        self.container.data["status"] = "created"
        self.container.save()

    # -- after CREATED -----------------------------------------------------------------------------------

    def host_hooks(self, kind: str, status: Status, *, fatal: bool) -> None:
        """Run the hooks of one kind in the runtime's namespaces."""
        listed = self.plan.hooks.get(kind)
        if listed:
            pid = 0 if status == "stopped" else self.init_pid
            text = state.oci_state(
                self.opts.id, status, pid, self.container.data["bundle"], self.config.get("annotations", {})
            )
            from pyrunc import hooks

            around = hooks.Surroundings(self.container.data["bundle"], self.log, self.config.get("annotations"))
            around.check = self.interrupts.check if self.interrupts is not None else None
            hooks.run_hooks(kind, listed, text, around, fatal=fatal)

    def finish(self) -> None:
        """Success: the result stays, and only our own descriptors are closed."""
        self.undo.forget()
        self.channel.close()
        if self.cgroup_fd >= 0:
            fs.close(self.cgroup_fd)
            self.cgroup_fd = -1
        self.container.unlock()


# -- helpers --------------------------------------------------------------------------------------------------


def has_userns(config: Config) -> bool:
    """Whether a config, not yet validated, asks for a user namespace."""
    linux = config.get("linux") if type(config) is dict else None
    spaces = linux.get("namespaces") if type(linux) is dict else None
    return type(spaces) is list and any(type(entry) is dict and entry.get("type") == "user" for entry in spaces)
