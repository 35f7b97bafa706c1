"""containerd and its client ctr in a sandbox."""

from __future__ import annotations

import re
from pathlib import Path

from integration.engines.host import Done, Host
from integration.engines.image import REFERENCE

CONFIG = """\
version = {version}
root = "{path}/root"
state = "{path}/state"
disabled_plugins = [{disabled}]
[grpc]
address = "{path}/c.sock"
[debug]
level = "{level}"
"""
OFF = [f"io.containerd.snapshotter.v1.{name}" for name in ("btrfs", "zfs", "devmapper", "aufs", "blockfile", "erofs")]
OFF_2 = [f"io.containerd.{name}" for name in ("cri.v1.images", "cri.v1.runtime", "nri.v1.nri")]  # of 2.x
# The default is below /opt of the machine.
OPT = """
[plugins."io.containerd.internal.v1.opt"]
path = "{path}/opt"
"""
KEEP = 'pidfile=$1; shift; while :; do "$@" & echo $! >$pidfile; wait $!; sleep 0.2; done'
SPIN = 'trap "exit 9" TERM; trap "echo usr1" USR1; echo started; while :; do sleep 0.1; done'


class Containerd:
    """A containerd; `runtime` is the path of the OCI runtime that its client requests."""

    label = "containerd 1.x with ctr"
    level = "debug"  # of the daemon's log
    criu = ""  # an annotation for containers to be checkpointed

    def __init__(
        self,
        host: Host,
        runtime: str,
        extra: str = "",
        off: list[str] | None = None,
        folder: str = "",
        keep: bool = False,
    ) -> None:
        self.host, self.runtime, self.folder = host, runtime, folder
        disabled = ", ".join(f'"{name}"' for name in [*OFF, *(off or [])])
        config = host.path / "containerd.toml"
        if folder:
            self.label = "containerd 2.x with ctr"
            extra += OPT.format(path=host.path)
        version = 3 if folder else 2
        config.write_text(CONFIG.format(path=host.path, disabled=disabled, version=version, level=self.level) + extra)
        self.argv = [f"{folder}containerd", "-c", str(config)]
        if keep:  # as systemd does
            self.argv = ["/bin/sh", "-c", KEEP, "sh", f"{host.path}/containerd.pid", *self.argv]
        self.start()
        text = host.call(f"{folder}containerd", "--version").out
        found = re.search(r"\b(\d+\.\d+\.\d+)", text)
        self.version = found[1] if found else text
        self.versions = {"containerd": self.version}

    def start(self) -> None:
        """Start or restart the daemon, and wait until it answers."""
        self.daemon = self.host.start(*self.argv, log="containerd.log")
        self.host.wait_ready("containerd", lambda: self.ctr("version").rc == 0, "containerd.log")

    def ctr(self, *args: str, stdin: str | None = None) -> Done:
        """Call ctr."""
        return self.host.call(*self.words(*args), stdin=stdin)

    def words(self, *args: str) -> list[str]:
        """The command line of one call."""
        return [f"{self.folder}ctr", "-a", f"{self.host.path}/c.sock", *args]

    def load(self, archive: Path) -> None:
        """Import an OCI archive."""
        # The 2.x daemon unpacks only for the snapshotters in its configuration.
        words = ["--local"] if self.folder else []
        done = self.ctr("images", "import", *words, "--snapshotter", "native", str(archive))
        assert done.rc == 0, done

    def run_args(self, *flags: str, id: str, args: tuple[str, ...]) -> list[str]:
        """Arguments of ``ctr run`` without the client's default of 1024 cpu shares, because the cpu
        controller may be missing."""
        fixed = ["--snapshotter", "native", "--cpu-shares", "0", "--runc-binary", self.runtime]
        return ["run", *fixed, "--cgroup", f"{self.host.cgroup}/{id}", *flags, REFERENCE, id, *args]

    def run(self, *args: str, flags: tuple[str, ...] = (), id: str = "c1") -> Done:
        """Run a container in the foreground and remove it."""
        return self.ctr(*self.run_args("--rm", *flags, id=id, args=args))

    def detached(self, id: str, *args: str, flags: tuple[str, ...] = ()) -> Done:
        """Run a container in the background."""
        return self.ctr(*self.run_args("-d", *flags, id=id, args=args or ("/bin/sh", "-c", SPIN)))

    def exec(self, id: str, *args: str, flags: tuple[str, ...] = ()) -> Done:
        """Run a process in a container."""
        return self.ctr("task", "exec", "--exec-id", "e", *flags, id, *args)

    def status(self, id: str) -> str:
        """RUNNING, PAUSED, STOPPED, or '' without a task."""
        for line in self.ctr("task", "ls").out.splitlines():
            words = line.split()
            if words[:1] == [id]:
                return words[2]
        return ""

    def remove(self, id: str) -> Done:
        """Kill and remove a container."""
        self.ctr("task", "delete", "-f", id)
        return self.ctr("container", "delete", id)
