"""Create a container: from a bundle to a process that waits for `start`.

    load, validate -> host facts -> compile -> reserve the id -> cgroup -> handshake -> commit

The order makes a killed pyrunc recoverable: the intent (id, cgroup path, our pid) is in the state
directory before the first side effect, so `delete --force ID` knows what to remove (runc #4534).
"""

from __future__ import annotations

import posix
from errno import EACCES, EPERM, EROFS
from posix import O_CLOEXEC, O_NOFOLLOW, O_RDWR

from pyrunc import cgroup, fs, handshake, host, procfs, state
from pyrunc.errors import SysError
from pyrunc.launch.ending import Interrupts
from pyrunc.launch.session import InitSession, SessionOptions, write_pid_file
from pyrunc.plan import AHEAD
from pyrunc.plan import create as compiler
from pyrunc.plan.context import Options
from pyrunc.plan.ops import OP_PLACE, OP_UNSHARE_USER
from pyrunc.signals import SIGKILL
from pyrunc.spec import load, older, validate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Literal

    from pyrunc.explain import Setting
    from pyrunc.launch.session import Handlers
    from pyrunc.log import Log
    from pyrunc.plan import Plan
    from pyrunc.spec.types import Config, Linux, Resources
    from pyrunc.state.document import Status


class CreateOptions(SessionOptions):
    """Options of `create`; paths are as given on the command line."""

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

    detach = True  # the command exits after the create

    def __init__(self, id: str, log: Log) -> None:
        super().__init__(id, log)
        self.bundle = "."
        self.config = "config.json"
        self.no_pivot = self.no_new_keyring = self.seccomp_log = False
        self.cgroup_manager = "cgroupfs"
        self.rootless = "auto"  # or "true", "false"
        self.image_bundle = ""  # the bundle unpacked from an image; removed with the container
        self.overlay: list[str] = []  # mount options of the overlay that is the root filesystem


def compile_only(opts: CreateOptions) -> tuple[Config, host.HostFacts, Plan]:
    """Load, validate and compile without side effects, for `pyrunc plan`.  Raises ConfigError."""
    session = Create(opts)
    session.prepare(for_show=True)
    return session.config, session.facts, session.plan


def create(opts: CreateOptions) -> None:
    """Create a container that waits for `start`.

    Raises PyruncError after everything has been undone.
    """
    session = Create(opts)
    session.execute()
    session.finish()


class Create(InitSession):
    """The session of one `create`."""

    __slots__ = (
        "ahead", "config", "container", "facts", "linux", "notify", "options", "opts", "raw", "reached_pid", "released",
    )  # fmt: skip

    transitions = handshake.CREATE
    WAIT: ClassVar = "fifo"  # what init waits on for `start`
    STATUS: ClassVar[Literal["created", "running"]] = "created"  # from CREATED on
    opts: CreateOptions

    def __init__(self, opts: CreateOptions) -> None:
        super().__init__(opts.log)
        self.opts = opts
        self.notify = ""  # the directory of the container's notify socket
        self.reached_pid = False  # the container has had a process
        self.ahead = False  # init does not report MOUNTED and READY
        self.released = False  # the GO to READY follows the plan
        self.config: Config
        self.linux: Linux  # /linux of the config
        self.raw: bytes
        self.facts: host.HostFacts
        self.options: Options
        self.container: state.Container

    def handlers(self) -> Handlers:
        """The method that handles each action of ``transitions``."""
        return {
            **super().handlers(),
            "map_ids": self.on_map_ids,
            "pid": self.on_pid,
            "mounted": self.on_mounted,
            "seccomp": self.on_seccomp,
            "created": self.on_created,
        }

    # -- pure and read-only ------------------------------------------------------------------------

    def prepare(self, *, for_show: bool = False) -> None:
        """Do everything that has no side effects.  ``for_show``: the plan is only printed."""
        opts = self.opts
        bundle = fs.abspath(opts.bundle)
        self.config, self.raw = self.read_config(fs.join(bundle, opts.config))
        self.facts = host.snapshot()
        if opts.rootless != "auto":
            self.facts.rootless = opts.rootless == "true"
        if for_show and not has_userns(self.config):
            self.facts.euid = 0  # only root can execute this plan
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
        if for_show:  # `pyrunc plan` prints the warnings
            self.plan.warnings[:0] = map(str, warnings)
            self.plan.warnings.more += warnings.more
        else:
            self.log.warnings(self.plan.warnings, "config.json")

    def read_config(self, path: str) -> tuple[Config, bytes]:
        """The parsed configuration, and its bytes for the state directory.  Raises ConfigError."""
        return load.load_config(path)

    def has_notify_socket(self) -> bool:
        """Whether a service manager expects sd_notify(3) messages."""
        return bool(fs.getenv("NOTIFY_SOCKET"))

    # -- side effects ------------------------------------------------------------------------------

    def steps(self, interrupts: Interrupts) -> None:
        """Go from the bundle to an init that waits for `start`."""
        # init starts on another core while we read the configuration.  Until it gets a plan, it has
        # no side effects and exits when its socket closes.
        self.spawn()
        self.prepare()
        self.reserve()
        self.make_cgroup()
        self.converse(interrupts)

    def abandon(self) -> None:
        """Undo everything, then run the poststop hooks, as runtime.md requires after a failure."""
        # Kill first: a cgroup with processes cannot be removed.
        self.channel.close()
        try:
            self.kill_children()
            if self.stuck and self.undo.holds(self.remove_cgroup) and self.plan.cgroup_path:
                # Keep the state, so that `delete --force` can find and remove the cgroup later.
                self.undo.keep(self.remove_cgroup, self.forget)
                self.undo.push(self.container.unlock)
                self.stuck += f"; `delete --force {self.opts.id}` removes the rest once it has ended"
        finally:
            problems = self.undo.run()
        for problem in problems:
            self.log.debug(f"undo: {problem}")
        if self.reached_pid:
            self.host_hooks("poststop", "stopped", fatal=False)

    def reserve(self) -> None:
        """Reserve the id and write the intent."""
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
            container.data["no_new_keyring"] = True  # for `exec`, which would join a keyring
        if self.opts.seccomp_log:
            container.data["seccomp_log"] = True  # for `exec`, which uses the same filter
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
        """Reserve the id.  Raises StateError if it is in use, SysError."""
        self.container.reserve()

    def watch_root(self) -> None:
        """Record the mount at the root filesystem before init mounts in our own mount namespace."""
        from pyrunc import rootmount

        data = self.container.data
        data["root_below"] = rootmount.mount_id(data["rootfs"])
        self.undo.push(self.remove_root)

    def remove_root(self) -> None:
        """Undo ROOT in our mount namespace."""
        from pyrunc import rootmount

        rootmount.remove(self.container.data["rootfs"], self.container.data["root_below"], 0)

    def forget(self) -> None:
        """Undo `reserve`; keep the state if an earlier undo failed, for `delete --force`."""
        if self.undo.problems:
            self.container.unlock()
        else:
            self.container.destroy()

    def make_cgroup(self) -> None:
        """Create the cgroup.

        Limits are set at MOUNTED, so that they do not apply to init's setup.
        """
        path = self.plan.cgroup_path
        resources = self.resources()
        if not path:
            self.driver.create(path, resources)  # raises if limits are set
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
                # init copies data of the image to tmpfs; the memory limit must already apply.
                self.driver.apply(path, {"memory": resources["memory"]})

    def do_without_cgroup(self, error: SysError) -> None:
        """Leave the container in our own cgroup, because this user has no delegated cgroup.

        Raises PyruncError if the configuration requires a cgroup.
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
        """Undo `make_cgroup`; a cgroup that existed before is kept."""
        path, made = self.plan.cgroup_path, self.driver.made
        if path in made:
            self.driver.kill(path, SIGKILL)
        if made:
            self.driver.remove(path, made=made)

    def resources(self) -> Resources:
        """linux.resources, {} by default."""
        return self.linux.get("resources", {})

    # -- the handshake -----------------------------------------------------------------------------

    def open_slot(self, kind: str, value: str, origin: str) -> int:
        """Also open the fifos of the start channel and the namespaces of idmapped mounts."""
        if kind in ("start", "error"):
            path = self.container.fifo(kind)
            posix.mkfifo(path, 0o600)
            return posix.open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW)
        if kind == "idmap":
            from pyrunc import idmap

            return idmap.open_mount(self.config, value, origin)
        return super().open_slot(kind, value, origin)

    def setting(self) -> Setting:
        """The root, process and config that explain a failed execve."""
        from pyrunc import explain

        root = fs.join(fs.abspath(self.opts.bundle), self.config["root"]["path"])
        return explain.Setting(self.config, self.config.get("process") or {"cwd": "/"}, root)

    def on_map_ids(self, record: handshake.Record) -> None:
        """MAP: write the id maps of the user namespace that `enter` has created."""
        from pyrunc import idmap

        idmap.write_maps(self.enter_pid, self.config["linux"], self.facts)
        self.send(handshake.GO)

    def on_pid(self, record: handshake.Record) -> None:
        """PID: record the process in the state first, so that it can be killed."""
        self.init_pid, self.reached_pid = record.value, True
        self.pidfd = posix.pidfd_open(self.init_pid)
        self.container.set_init(self.init_pid)
        self.container.data["descriptors"] = procfs.stdio(self.init_pid)  # for `checkpoint`
        self.container.save()
        linux = self.linux
        if linux.get("uidMappings") and not self.plan.new_userns:
            from pyrunc import idmap

            idmap.check_joined(self.init_pid, linux)
        if self.plan.has(OP_PLACE):
            self.limit_devices()
        if self.ahead and not self.released:
            self.send(handshake.GO)

    def send_plan(self) -> None:
        """Send the plan; if possible, one that does not report MOUNTED and READY.

        On busy cores each record for us would cost init a time slice.  The GO to READY waits for
        the pid in the state, unless init waits for us later as well.  It never precedes another
        GO: init would continue without a cgroup or without id maps.
        """
        self.ahead, placed = self.only_waits(), self.plan.has(OP_PLACE)
        if self.ahead:
            self.set_limits(self.enter_pid)  # before it has the plan: its clones inherit them
            self.plan.flags |= AHEAD
            earlier = placed or self.plan.has(OP_UNSHARE_USER)  # wait for a GO as well
            self.released = self.WAIT == "socket" and not earlier
            self.protocol = handshake.Protocol(handshake.RUN_AHEAD if self.released else handshake.CREATE_AHEAD)
        super().send_plan()
        if self.released:
            self.send(handshake.GO)
        if not placed:  # otherwise `enter` makes the devices of a user namespace in the cgroup
            self.limit_devices()

    def limit_devices(self) -> None:
        """Attach the device program while init does its set-up.

        The default device rules allow the devices that init uses (mknod, /dev/null, ptys).
        """
        if self.plan.cgroup_path:
            self.driver.devices(self.cgroup_fd, self.resources().get("devices"), "/linux/resources/devices")

    def only_waits(self) -> bool:
        """Whether there is nothing to do at MOUNTED and READY that init has to wait for."""
        linux = self.linux
        return self.harmless_limits() and not (
            any(name != "devices" for name in self.resources())
            or self.plan.cgroup_owner >= 0
            or "intelRdt" in linux
            or linux.get("netDevices")
            or self.plan.has_hooks()  # those in the container would get the limits of the program
            or "root_below" in self.container.data
        )

    def on_mounted(self, record: handshake.Record) -> None:
        """MOUNTED: set limits, then run the hooks of the runtime's namespaces."""
        if "root_below" in self.container.data:
            from pyrunc import rootmount

            self.container.data["root_mount"] = rootmount.mount_id(self.container.data["rootfs"])
        self.set_resources()
        if self.plan.cgroup_owner >= 0:
            from pyrunc.cgroup import delegate

            delegate.give(self.facts.cgroup_dir(self.plan.cgroup_path), self.plan.cgroup_owner)
        self.join_rdt()
        devices = self.linux.get("netDevices")
        if devices:
            # Before the hooks, which may configure the devices, and before sysctls that name them.
            from pyrunc.launch import netdev

            self.undo.push(netdev.move(devices, self.init_pid, self.log).restore)
        self.create_hooks()
        self.send(handshake.GO)

    def on_ready(self, record: handshake.Record) -> None:
        """READY: `enter` has exited by now, without our waiting for it; set rlimits."""
        self.reap_enter()
        super().on_ready(record)

    def set_resources(self) -> None:
        """Set the limits of the cgroup."""
        resources = self.resources()
        if self.plan.cgroup_path and resources:
            self.driver.apply(self.plan.cgroup_path, resources)

    def join_rdt(self) -> None:
        """Move the first process to its RDT class."""
        if "intelRdt" in self.linux:
            from pyrunc.cgroup import rdt

            classes = self.container.data["rdt"]
            self.undo.push(rdt.undo, classes)
            rdt.apply(self.linux["intelRdt"], classes, self.init_pid)

    def create_hooks(self) -> None:
        """Run the hooks of `create` in the runtime's namespaces."""
        # prestart hooks get the status "created", as in crun and the conformance suite: runtime.md
        # runs them after the "creating" step.
        self.host_hooks("prestart", "created", fatal=True)
        self.host_hooks("createRuntime", "creating", fatal=True)

    def on_seccomp(self, record: handshake.Record) -> None:
        """SECCOMP: send init's notify descriptor to the agent at listenerPath."""
        from pyrunc import seccomp

        status = state.oci_state(
            self.opts.id, "creating", self.init_pid, self.container.data["bundle"], self.config.get("annotations", {})
        )
        seccomp.send_listener(self.pidfd, record.value, self.plan.seccomp or seccomp.NO_PROFILE, self.init_pid, status)
        self.send(handshake.GO)

    def on_created(self, record: handshake.Record) -> None:
        """CREATED: init waits for `start`.  Save the state before the command reports success."""
        if self.enter_pid:  # without READY
            self.reap_enter()
        self.send_pidfd()
        self.commit(self.STATUS)

    def commit(self, status: Literal["created", "running"]) -> None:
        """Write the pid file and save the state, before the caller learns of the container."""
        if self.opts.pid_file:
            write_pid_file(self.opts.pid_file, self.init_pid)
            self.undo.push(fs.ignore, posix.unlink, self.opts.pid_file)
        self.container.data["status"] = status
        self.container.save()

    # -- after CREATED -----------------------------------------------------------------------------

    def host_hooks(self, kind: str, status: Status, *, fatal: bool) -> None:
        """Run the hooks of a kind in the runtime's namespaces."""
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
        """Keep the container and close our descriptors."""
        self.undo.forget()
        self.channel.close()
        if self.cgroup_fd >= 0:
            fs.close(self.cgroup_fd)
            self.cgroup_fd = -1
        self.container.unlock()


# -- helpers ---------------------------------------------------------------------------------------


def has_userns(config: Config) -> bool:
    """Whether a config, not yet validated, has a user namespace."""
    linux = config.get("linux") if type(config) is dict else None
    spaces = linux.get("namespaces") if type(linux) is dict else None
    return type(spaces) is list and any(type(entry) is dict and entry.get("type") == "user" for entry in spaces)
