"""The docker engine (dockerd with its client) in a sandbox, on a containerd of the sandbox."""

from __future__ import annotations

import json
import time
from pathlib import Path

from integration import harness
from integration.engines.builds import Builder
from integration.engines.containerd import OFF_2, Containerd
from integration.engines.contrib import drop_in
from integration.engines.host import Done, Host
from integration.engines.image import LoadsImages


class Docker(LoadsImages, Builder):
    """A dockerd with the default runtime `name`; `folder`, ending in a slash, has another dockerd
    and its containerd 2."""

    label = "docker"
    exec_missing = 126  # docker's status before 29; the runtime says "no such file or directory" for both
    init = "docker-init"
    health_interval = "100ms"

    def __init__(self, host: Host, name: str, path: str, folder: str = "") -> None:
        self.host = host
        self.label = Docker.label + host.where
        host.env["DOCKER_BUILDKIT_RUNC_COMMAND"] = path  # builds do not use the default runtime
        if folder:
            host.env["PATH"] = f"{folder}:{host.env['PATH']}"  # for containerd's shim
        self.containerd = Containerd(host, path, off=OFF_2 if folder else ["io.containerd.grpc.v1.cri"], folder=folder)
        config = json.loads(drop_in("docker/daemon.json", path))
        config["runtimes"] = {"pyrunc": config["runtimes"]["pyrunc"]}
        config |= {
            "default-runtime": name,
            "data-root": f"{host.path}/data",
            "exec-root": f"{host.path}/exec",
            "pidfile": f"{host.path}/docker.pid",
            "hosts": [f"unix://{host.path}/d.sock"],
            "containerd": f"{host.path}/c.sock",
            "containerd-namespace": "moby",
            "cgroup-parent": host.cgroup,
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "storage-driver": "overlayfs" if folder else "vfs",
            "bridge": "none",
            "iptables": False,
            "ip6tables": False,
        }
        file = host.path / "daemon.json"
        file.write_text(json.dumps(config))
        host.start(f"{folder}dockerd", "--config-file", str(file), log="dockerd.log")
        host.wait_ready("dockerd", lambda: self.call("version").rc == 0, "dockerd.log")
        self.version = self.call("version", "--format", "{{.Server.Version}}").out.strip()
        self.versions = self.containerd.versions | {"docker": self.version.partition("+")[0]}

    def argv(self, *args: str) -> list[str]:
        """The command line of one call."""
        return ["docker", "-H", f"unix://{self.host.path}/d.sock", *args]

    def call(self, *args: str, stdin: str | None = None) -> Done:
        """Call the client."""
        return self.host.call(*self.argv(*args), stdin=stdin)

    def build_words(self, folder: Path, *flags: str) -> list[str]:
        """The command line of one build, with the client's plugin."""
        return self.argv("build", "--progress=plain", "--network=none", *flags, str(folder))

    def run_flags(self) -> list[str]:
        """Flags of every run."""
        return ["--network", "none"]

    def settled_health(self, name: str) -> str:
        """The health that the daemon's own checks have found: healthy or unhealthy."""
        limit = time.monotonic() + 20 * harness.SLOW
        while time.monotonic() < limit:
            found = self.call("inspect", name, "--format", "{{.State.Health.Status}}").out.strip()
            if found != "starting":
                return found
            time.sleep(0.1)
        return "starting"
