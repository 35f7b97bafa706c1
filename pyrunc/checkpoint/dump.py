"""`checkpoint`: have CRIU write the processes of a container to files, then delete it or leave it
running."""

from __future__ import annotations

import posix

from pyrunc import fs
from pyrunc.checkpoint import messages, options, rootfs
from pyrunc.checkpoint.criu import Criu, CriuError
from pyrunc.checkpoint.guard import Guard
from pyrunc.checkpoint.images import Images
from pyrunc.checkpoint.mounts import Mounts
from pyrunc.container import lifecycle
from pyrunc.errors import PyruncError, StateError, SysError
from pyrunc.launch.ending import Interrupts
from pyrunc.spec import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.command import Values
    from pyrunc.log import Log
    from pyrunc.state import Container

# kind in config.json -> name in /proc/PID/ns; a restore joins the other kinds itself
EXTERNAL = {"network": "net", "pid": "pid"}
UNKNOWN = ["/dev/null"] * 3  # for a container that was created before its stdio was recorded


def key_of(name: str) -> str:
    """CRIU's name of an external namespace: extRootNetNS, as in runc and crun."""
    return f"extRoot{name.capitalize()}NS"


def checkpoint(container: Container, values: Values, log: Log) -> None:
    """Checkpoint a locked container. Raises PyruncError; the container then continues as before."""
    options.refuse_rootless()
    dump = Dump(container, values, log)
    dump.refuse()
    interrupts = Interrupts()
    try:
        dump.run(interrupts)
    finally:
        interrupts.restore()
    if not (values.get("leave-running") or values.get("pre-dump")):
        try:
            lifecycle.remove(container, log)
        except (OSError, PyruncError) as error:  # the checkpoint is complete: as in runc, this is only a warning
            log.warning(f"container {container.id}: checkpointed, but not deleted: {error}")


class Dump:
    """One dump or pre-dump."""

    __slots__ = ("config", "container", "log", "mounts", "request", "status_fd", "values")

    def __init__(self, container: Container, values: Values, log: Log) -> None:
        self.container, self.values, self.log = container, values, log
        self.config, _ = load.load_config(container.dir + "/config.json")
        self.mounts = Mounts(self.config, container.data["bundle"])
        self.request = options.common(values, container.data.get("annotations") or {})
        if values.get("page-server"):
            self.request["ps"] = options.page_server(values["page-server"])
        self.status_fd = options.status_fd(values["status-fd"]) if "status-fd" in values else -1

    def refuse(self) -> None:
        """Raises StateError or PyruncError for an unsupported container before anything is
        changed."""
        status = self.container.status()
        if status not in ("running", "paused"):
            raise StateError(f"container cannot be checkpointed in {status} state")
        if self.container.data.get("image_bundle") and not self.values.get("leave-running"):
            raise PyruncError(
                "a container created with --image takes its files with it and could not be restored;"
                " use --leave-running, or create a bundle with `unpack`"
            )
        if self.container.data.get("mounts"):
            raise PyruncError(
                "the container has mounts that `mounts add` made, which a restore from config.json would lack;"
                " take them away with `mounts remove`"
            )
        self.mounts.refuse()

    def run(self, interrupts: Interrupts) -> None:
        """Drive CRIU.  Raises PyruncError."""
        images = Images(self.values, "dump.log")
        criu = Criu(self.log, interrupts.check)
        null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
        paused, guard = self.container.frozen(), Guard()
        try:
            images.open(make=True)
            criu.spawn((null, null, null))
            criu.prepare(self.features())
            self.fill(images)
            pre = self.values.get("pre-dump")
            if not pre:
                images.write_descriptors(self.container.data.get("descriptors") or UNKNOWN)
            kind = messages.SINGLE_PRE_DUMP if pre else messages.DUMP
            if not (pre or paused):  # a pre-dump writes the memory while the processes run
                self.freeze(criu.pid, guard)
            try:
                criu.ask({"type": kind, "opts": self.request}, self.notified)
            except CriuError as error:
                interrupts.check()
                text = f"{error}; the processes may have ended with it" if error.ended else str(error)
                raise images.failure("dump", text, logged=not error.ended) from error
        finally:
            fs.close(null)
            images.close()
            try:
                self.end(criu, resume=not paused)
            finally:
                guard.dismiss()

    def freeze(self, criu: int, guard: Guard) -> None:
        """Freeze the container before CRIU does, which takes longer. Raises PyruncError."""
        directory = self.container.cgroup_directory()
        if not directory:
            return
        try:
            guard.start(criu, directory)
        except OSError as error:
            self.log.debug(f"criu: freezes the cgroup itself: {error}")
            return
        lifecycle.driver_of(self.container).freeze(self.container.data["cgroup"])

    def end(self, criu: Criu, *, resume: bool) -> None:
        """Let CRIU end: after a failure it takes its code out of the processes. Then thaw them, if
        there are any: CRIU leaves the cgroup as it was, and one that had to be killed does not thaw
        it."""
        try:
            criu.finish()
        except PyruncError:
            criu.kill()
        finally:
            if resume and self.container.init_alive() and self.container.frozen():
                lifecycle.driver_of(self.container).thaw(self.container.data["cgroup"])

    def features(self) -> list[str]:
        """The features that the kernel must have."""
        found = ["mem_track"] if self.values.get("pre-dump") or self.values.get("parent-path") else []
        return [*found, "lazy_pages"] if self.values.get("lazy-pages") else found

    def fill(self, images: Images) -> None:
        """Fill in the rest of the request. Raises SysError."""
        data = self.container.data
        self.request |= {
            "images_dir_fd": images.fd,
            "work_dir_fd": images.work_fd,
            "log_file": "dump.log",
            "pid": data["pid"],
            "root": data["rootfs"],
            "external": self.namespaces(),
            "freeze_cgroup": self.container.cgroup_directory() or None,
        }
        if images.parent:
            self.request |= {"parent_img": images.parent, "track_mem": True}
        if self.values.get("pre-dump"):
            self.request["track_mem"] = True
            return
        try:
            root = rootfs.open_root(f"/proc/{data['pid']}/root")
        except OSError as error:
            raise SysError("/root", "open", error.errno or 0) from error
        try:
            self.request["ext_mnt"] = self.mounts.dumped(root, data["pid"])
        finally:
            fs.close(root)

    def namespaces(self) -> list[str]:
        """``external``: the namespaces with a path, which CRIU must not dump. Raises SysError."""
        out = []
        for index, entry in enumerate(self.mounts.linux.get("namespaces") or ()):
            name = EXTERNAL.get(entry["type"])
            if name and entry.get("path"):
                try:
                    inode = posix.stat(entry["path"]).st_ino
                except OSError as error:
                    where = f"/linux/namespaces/{index}/path"
                    raise SysError(where, "stat", error.errno or 0, value=entry["path"]) from error
                out.append(f"{name}[{inode}]:{key_of(name)}")
        return out

    def notified(self, script: str, pid: int, fd: int) -> None:
        """Handle a notification. The engine locks its networks itself, and no hook runs."""
        if script == "status-ready" and self.status_fd >= 0:
            fs.ignore(posix.write, self.status_fd, b"\0")
            fs.close(self.status_fd)
            self.status_fd = -1
