"""`restore`: a container from a bundle whose processes come from a checkpoint.

images, config.json, host facts -> reserve the id -> cgroup -> criu in it -> mount points -> CRIU ->
commit

A restore is a `run` in which CRIU replaces init. When the processes are complete and still stopped,
CRIU sends "post-restore"; at that point a created container would wait for `start`.
"""

from __future__ import annotations

import posix
from posix import O_CLOEXEC, O_RDWR

from pyrunc import fs, procfs, state
from pyrunc.checkpoint import messages, options
from pyrunc.checkpoint.criu import EXTRA, Criu, CriuError
from pyrunc.checkpoint.dump import EXTERNAL, key_of
from pyrunc.checkpoint.images import Images
from pyrunc.checkpoint.mounts import Mounts
from pyrunc.checkpoint.nest import Nest
from pyrunc.errors import PyruncError, SysError, UsageError, show
from pyrunc.launch.run import Run, run
from pyrunc.launch.spawn import connect
from pyrunc.native import sockets
from pyrunc.spec.mappings import host_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.checkpoint.protobuf import Fields
    from pyrunc.command import Values
    from pyrunc.launch.ending import Interrupts
    from pyrunc.launch.run import RunOptions

# Namespaces with a path that CRIU joins itself: kind in config.json -> CRIU's name
_JOINED = {"user": "user", "uts": "uts", "ipc": "ipc", "mount": "mnt", "time": "time"}
_LSM = ("apparmor", "selinux")
_PROFILES = "/sys/kernel/security/apparmor/profiles"
_COMPLETE = "post-restore"
_STAGE = "criu"  # a directory in the state directory: see nest.py


def restored(opts: RunOptions, values: Values) -> int:
    """Restore a container; in the foreground, wait, delete it and return the program's exit code.
    Raises PyruncError."""
    options.refuse_rootless()
    return run(opts, Restore(opts, values))


def refuse_unloaded(profile: str) -> None:
    """Raises PyruncError for a profile of AppArmor that is not loaded: CRIU 4.2 would wait forever
    for the process that could not get it."""
    kind, _, name = profile.partition(":")
    if kind != "apparmor" or name in ("", "unconfined"):
        return
    try:
        lines = fs.read_file(_PROFILES).split(b"\n")
    except OSError:  # AppArmor is off, or securityfs is not mounted
        return
    if fs.encode(name) not in [line.rpartition(b" (")[0] for line in lines]:
        raise PyruncError(f"AppArmor profile {name}: not loaded; load it with apparmor_parser first")


class Restore(Run):
    """One restore in progress."""

    __slots__ = ("criu", "images", "master", "mounts", "request", "shared", "stdio", "targets", "values")

    def __init__(self, opts: RunOptions, values: Values) -> None:
        super().__init__(opts)
        self.values = values
        self.images = Images(values, "restore.log")
        self.mounts: Mounts
        self.criu = Criu(opts.log, self.check)
        self.request: Fields = {}
        self.targets: list[str] = []  # what stdio was at `create`
        self.stdio = [0, 1, 2]  # what replaces it
        self.master = -1  # of the terminal
        self.shared: posix.stat_result | None = None  # the directory of images before it was shared

    # -- before anything is touched ----------------------------------------------------------------

    def steps(self, interrupts: Interrupts) -> None:
        """Take the bundle to processes that are complete and stopped."""
        self.undo.push(self.images.close)
        self.images.open(make=False)
        self.targets = self.images.read_descriptors()
        self.open_stdio()
        if self.streams is not None:
            self.undo.push(self.close_streams)
        self.prepare()
        if self.streams is not None:  # None with a terminal
            self.stdio = list(self.streams.theirs)
        self.mounts = Mounts(self.config, fs.abspath(self.opts.bundle))
        self.mounts.refuse()
        self.fill()
        self.reserve()
        self.container.data["descriptors"] = [
            posix.readlink(f"/proc/self/fd/{fd}") if target.startswith("pipe:") else target
            for target, fd in zip(self.targets, self.stdio, strict=True)
        ]
        self.ask()
        if self.foreground():  # there is no READY to wait for: the service was ready before the dump
            self.channel.block_signals()
            interrupts.check()
        self.release(interrupts)

    def check(self) -> None:
        """Raises PyruncError if a signal arrived."""
        if self.interrupts is not None:
            self.interrupts.check()

    def has_notify_socket(self) -> bool:
        """Always true: the checkpoint may have the socket's directory, and then CRIU must find
        it."""
        return True

    def fill(self) -> None:
        """Fill in the parts of the request that need no new object. Raises PyruncError."""
        profile = self.values.get("lsm-profile")
        if profile and (profile.partition(":")[0] not in _LSM or not profile.partition(":")[2]):
            raise UsageError(f"--lsm-profile {profile}: expected apparmor:NAME or selinux:LABEL")
        refuse_unloaded(profile or f"apparmor:{self.config['process'].get('apparmorProfile') or ''}")
        if not profile:
            self.refuse_unlabelled()
        self.request = options.common(self.values, self.config.get("annotations") or {}) | {
            "log_file": "restore.log",
            "evasive_devices": True,
            "rst_sibling": True,  # the first process becomes our child, not criu's
            # Otherwise CRIU opens a new terminal, and does not use the caller's with --shell-job.
            "orphan_pts_master": self.config["process"].get("terminal", False),
            "lsm_profile": profile or None,
            "lsm_mount_context": self.values.get("lsm-mount-context") or None,
            "parent_img": self.images.parent or None,
        }

    def refuse_unlabelled(self) -> None:
        """Raises PyruncError if the processes would lose their SELinux label. A CRIU built without
        SELinux neither dumps labels nor says so; it refuses --lsm-profile itself."""
        label = self.config["process"].get("selinuxLabel")
        if label and self.facts.selinux and self.images.security_module() != messages.SELINUX:
            raise PyruncError(
                f"/process/selinuxLabel: the checkpoint has no SELinux labels, so {show(label)} would be lost; "
                "checkpoint with a CRIU that is built with SELinux, or remove the label to restore without it"
            )

    def share_images(self) -> None:
        """Let root of the container's user namespace search the directory of images while CRIU
        restores.

        CRIU opens images as root of the host, as which a process enters a new user namespace, and
        then as root inside it. One of them is the owner of the directory; the other gets access
        through its group.
        """
        maps = self.linux.get("gidMappings")
        if not maps:
            return
        fd, group = self.images.fd, host_id(maps, 0)
        found = posix.fstat(fd)
        if group < 0 or found.st_mode & 0o001:
            return
        self.shared = found
        self.undo.push(self.unshare_images)
        try:
            posix.fchown(fd, -1, group)
            posix.fchmod(fd, found.st_mode & 0o7777 | 0o010)
        except OSError as error:  # a read-only filesystem; CRIU reports what it cannot open
            self.log.debug(f"--image-path: {error}")

    def unshare_images(self) -> None:
        """Restore the mode and the group of the directory of images, which is open; idempotent."""
        if self.shared is not None:
            fs.ignore(posix.fchmod, self.images.fd, self.shared.st_mode & 0o7777)
            fs.ignore(posix.fchown, self.images.fd, -1, self.shared.st_gid)
            self.shared = None

    # -- CRIU --------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Start criu in the container's cgroup and request the restore."""
        stage = f"{self.container.dir}/{_STAGE}"
        posix.mkdir(stage, 0o700)
        nest = Nest(
            self.container.data["rootfs"],
            stage,
            self.container.dir.rpartition("/")[0],
            cgroup_namespace=self.own_cgroup_namespace(),
        )
        self.undo.push(nest.close)
        extra = self.namespaces()
        null = posix.open("/dev/null", O_RDWR | O_CLOEXEC)
        try:
            # criu's output is not the container's. A shell job gets the terminal that criu has.
            stdio = self.stdio if self.values.get("shell-job") else [null] * 3
            inherited = self.inherit_stdio(EXTRA + len(extra))
            nest.directories = ((self.images.path, self.images.fd), (self.images.work, self.images.work_fd))
            number = EXTRA + len(extra) + len(inherited)
            self.request |= {"images_dir_fd": number, "work_dir_fd": number + 1}
            nest.named = (self.request["config_file"] or "", *(entry["ns_file"] for entry in self.request["join_ns"]))
            nest.fork(stdio, (*extra, *(fd for _, fd in inherited)), self.look)
        finally:
            for fd in (null, *extra):
                fs.close(fd)
        self.enter_pid = self.criu.pid = nest.pid
        self.make_cgroup()
        self.join_cgroup()
        found, self.criu.sock = nest.go()
        self.request["ext_mnt"] = [entry | {"val": nest.final(entry["val"])} for entry in found]
        if self.streams is not None:
            self.streams.close_theirs()
        self.request["root"] = nest.root
        self.share_images()
        try:
            self.criu.prepare()
            self.criu.ask({"type": messages.RESTORE, "opts": self.request}, self.notified, _COMPLETE)
        except PyruncError as error:
            raise self.explained(error) from error
        self.container.data["created"] = state.now()
        self.commit("running")

    def own_cgroup_namespace(self) -> bool:
        """Whether criu must run in the container's cgroup namespace: it creates one only if it
        manages cgroups."""
        return self.mounts.namespace("cgroup") and not self.request["manage_cgroups_mode"]

    def look(self, root: int) -> list[dict[str, str]]:
        """In the child: create the mount points and name the external mounts."""
        stage = f"{self.container.dir}/{_STAGE}"
        self.mounts.make_places(root, f"{stage}/places")
        return self.mounts.restored(root, stage, self.facts, self.notify)

    def namespaces(self) -> list[int]:
        """Descriptors of the namespaces that criu inherits; it joins the others by path. Raises
        SysError."""
        opened: list[int] = []
        inherited, joined = [], []
        for index, entry in enumerate(self.mounts.linux.get("namespaces") or ()):
            path, name = entry.get("path"), EXTERNAL.get(entry["type"])
            if not path:
                continue
            if name:
                opened.append(procfs.open_namespace(path, f"/linux/namespaces/{index}/path"))
                inherited.append({"key": key_of(name), "fd": EXTRA + len(opened) - 1})
            else:
                joined.append({"ns": _JOINED[entry["type"]], "ns_file": path})
        self.request["inherit_fd"], self.request["join_ns"] = inherited, joined
        return opened

    def inherit_stdio(self, number: int) -> list[tuple[str, int]]:
        """(old name, descriptor) of each pipe that stdio was; ``number`` is the first descriptor in
        criu."""
        seen: dict[str, int] = {}
        for target, fd in zip(self.targets, self.stdio, strict=True):
            if target.startswith("pipe:"):
                seen.setdefault(target, fd)
        for offset, target in enumerate(seen):
            self.request["inherit_fd"].append({"key": target, "fd": number + offset})
        return list(seen.items())

    def join_cgroup(self) -> None:
        """Move criu, and so everything it restores, to the container's cgroup; device rules apply
        from here on."""
        path = self.plan.cgroup_path
        if not path:
            return
        fs.write_file(f"{self.facts.cgroup_dir(path)}/cgroup.procs", b"%d" % self.enter_pid)
        self.driver.devices(self.cgroup_fd, self.resources().get("devices"), "/linux/resources/devices")
        if self.request["manage_cgroups_mode"]:
            lines = fs.read_file(f"/proc/{self.enter_pid}/cgroup", 65536).decode("utf-8", "surrogateescape").split("\n")
            parts = [line.split(":", 2) for line in lines if line]
            self.request["cg_root"] = [{"ctrl": controllers, "path": at} for _, controllers, at in parts]

    def explained(self, error: PyruncError) -> PyruncError:
        """A failure of CRIU in the words of its log; any other error unchanged."""
        self.check()
        if not isinstance(error, CriuError):
            return error
        return self.images.failure("restore", str(error), logged=not error.ended)

    def notified(self, script: str, pid: int, fd: int) -> None:
        """Handle a notification from CRIU."""
        if script == "setup-namespaces":
            self.on_namespaces(pid)
        elif script == "orphan-pts-master" and fd >= 0:
            self.on_terminal(fd)
        elif script == _COMPLETE:
            self.on_complete(pid)

    def on_namespaces(self, pid: int) -> None:
        """The first process is alone in its namespaces: do what `create` does before init
        continues."""
        self.init_pid, self.reached_pid = pid, True
        self.pidfd = posix.pidfd_open(pid)
        self.container.set_init(pid)
        self.container.save()
        self.join_rdt()
        self.create_hooks()

    def on_terminal(self, master: int) -> None:
        """Take over the master of the terminal, which had no owner when it was dumped."""
        if not self.opts.console_socket:
            self.master = posix.dup(master)
            return
        sock = connect("--console-socket", self.opts.console_socket)
        try:
            sockets.send_descriptor(sock, b"orphan-pts-master", master)
        except OSError as error:
            raise SysError("--console-socket", "sendmsg", error.errno or 0) from error
        finally:
            fs.close(sock)

    def on_complete(self, pid: int) -> None:
        """All processes exist and are stopped. The limits are set now, because criu's own memory is
        freed soon."""
        if pid != self.init_pid:
            raise PyruncError(f"criu: the first process was {self.init_pid}, and is {pid}")
        self.set_resources()

    # -- as `run` continues ------------------------------------------------------------------------

    def go(self) -> None:
        """Set up the terminal before the program writes its first line."""
        if self.master >= 0:
            from pyrunc.launch import console

            self.relay = console.Relay(self.master)
            self.undo.push(self.relay.close)
        self.undo.push(self.end_program)

    def await_program(self, interrupts: Interrupts) -> None:
        """Resume the processes. Raises PyruncError."""
        try:
            self.criu.go_on(messages.RESTORE, self.notified)
        except PyruncError as error:
            problem = self.explained(error)
            # While criu traces the processes, we could not reap them.
            self.criu.kill()
            self.enter_pid = 0
            raise problem from error
        self.criu.finish()
        self.enter_pid = 0
        self.unshare_images()
        self.images.close()
        fs.ignore(posix.rmdir, f"{self.container.dir}/{_STAGE}")

    def kill_children(self) -> None:
        """Kill criu and the first process."""
        super().kill_children()
        self.criu.pid = 0
        self.criu.finish()

    def stray_children(self) -> list[int]:
        """None: everything that a killed criu created is in the cgroup."""
        return []
