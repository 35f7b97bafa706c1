"""Kubernetes' interface: containerd's CRI plugin (Debian's 1.x or a current one) in a sandbox.

A registry on the sandbox's loopback serves the images. The distribution's CNI plugins provide the
network.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from integration import harness, machine
from integration.engines import image
from integration.engines.containerd import Containerd
from integration.engines.contrib import drop_in
from integration.engines.host import Done, Host

REGISTRY = "localhost:5000"
BUSYBOX, PAUSE = f"{REGISTRY}/bb:1", f"{REGISTRY}/pause:1"

NETWORK = {
    "cniVersion": "0.4.0",
    "name": "test",
    "plugins": [
        {
            "type": "ptp",
            "ipMasq": False,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}

# Cgroup controllers and security modules may be missing here, and so may the right to lower
# oom_score_adj.
FIRST = """
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
disable_cgroup = {no_cgroup}
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{path}/cni"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{path}/certs.d"
"""
# The files of containerd 2 that a sandbox needs to start containers.
RUNTIME = """\
[plugins."io.containerd.cri.v1.runtime"]
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "{path}/cni"
"""
SECOND = (
    """
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "{path}/certs.d"
"""
    + RUNTIME
)
STRIP = """#!/usr/bin/python3 -IS
# Kubernetes' engines set cpu shares on everything, and this host has no such controller: take the limits out of the
# configuration, then become the runtime.
import json, os, sys
words = sys.argv[1:]
if "create" in words:
    bundle = words[words.index("--bundle") + 1]
    with open(bundle + "/config.json") as file:
        config = json.load(file)
    for name in ("cpu", "memory", "pids", "hugepageLimits", "blockIO", "unified"):
        config["linux"].get("resources", {{}}).pop(name, None)
    with open(bundle + "/config.json", "w") as file:
        json.dump(config, file)
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        os.set_inheritable(fd, True)
    except OSError:
        pass
os.execv({runtime!r}, [{runtime!r}, *words])
"""


def prepare(host: Host, folder: Path) -> None:
    """Write the configuration of the network, and start a registry that serves the images."""
    (host.path / "cni").mkdir()
    (host.path / "cni/10-test.conflist").write_text(json.dumps(NETWORK))
    certs = host.path / f"certs.d/{REGISTRY}"
    certs.mkdir(parents=True)
    (certs / "hosts.toml").write_text(f'server = "http://{REGISTRY}"\n')
    words = []
    for name, config in {"bb": {}, "pause": {"Cmd": ["/bin/sleep", "36000"]}}.items():
        made = folder / name
        if not made.exists():
            image.build(made, f"{REGISTRY}/{name}:1", config)
        words.append(f"{name}:1={made}/oci.tar")
    host.start(sys.executable, str(Path(__file__).with_name("registry.py")), "5000", *words, log="registry.log")
    host.wait_ready("registry", lambda: "ready" in (host.path / "registry.log").read_text(), "registry.log")


class Cri:
    """A containerd as kubelet uses it, with `runtime` as the default runtime, driven by crictl from
    `bins`."""

    def __init__(self, host: Host, runtime: str, current: bool, bins: Path, images: Path) -> None:
        self.host, self.bins, self.current = host, bins, current
        self.label = f"CRI: containerd {'2' if current else '1'}.x with crictl"
        self.limits = {"cpu", "memory", "pids"} <= set(machine.controllers())
        if current and not self.limits:
            wrapper = host.path / "without-limits"
            wrapper.write_text(STRIP.format(runtime=runtime))
            wrapper.chmod(0o755)
            runtime = str(wrapper)
        if current:
            host.env["PATH"] = f"{bins}:{host.env['PATH']}"  # for the shim of the same version
        prepare(host, images)
        text = (SECOND if current else FIRST).format(
            pause=PAUSE, path=host.path, no_cgroup="false" if self.limits else "true"
        )
        text += drop_in(f"containerd/containerd-{2 if current else 1}.toml", runtime)
        self.endpoint = f"unix://{host.path}/c.sock"
        endpoints = f"runtime-endpoint: {self.endpoint}\nimage-endpoint: {self.endpoint}\ntimeout: 30\n"
        (host.path / "crictl.yaml").write_text(endpoints)
        self.containerd = Containerd(host, runtime, text, folder=f"{bins}/" if current else "")
        host.wait_ready("CRI", lambda: self.crictl("version").rc == 0, "containerd.log")
        crictl = (bins.parent / "built/crictl").read_text().strip()  # crictl itself reports "unknown"
        self.versions = self.containerd.versions | {"crictl": crictl}

    def argv(self, *args: str) -> list[str]:
        """The command line of one call."""
        return [f"{self.bins}/crictl", "--config", f"{self.host.path}/crictl.yaml", *args]

    def crictl(self, *args: str) -> Done:
        """Call crictl."""
        return self.host.call(*self.argv(*args))

    def must(self, *args: str) -> str:
        """Call crictl, which must succeed; return its output without the newline."""
        done = self.crictl(*args)
        assert done.rc == 0, done
        return done.out.strip()

    def file(self, name: str, content: dict[str, Any]) -> str:
        """Write a JSON file for crictl."""
        path = self.host.path / name
        path.write_text(json.dumps(content))
        return str(path)

    def pod(self, name: str = "p", network: int = 0, **context: Any) -> str:
        """Run a pod sandbox and return its id. `network` 2 is the host's."""
        self.logs = Path(tempfile.mkdtemp(prefix="logs", dir=self.host.path))
        spaces = {"network": network, "pid": 1, "ipc": 0}
        self.sandbox = {
            "metadata": {"name": name, "uid": f"u-{name}", "namespace": "default", "attempt": 0},
            "log_directory": str(self.logs),
            "hostname": "" if network == 2 else "pod",
            "linux": {"cgroup_parent": self.host.cgroup, "security_context": {"namespace_options": spaces} | context},
        }
        return self.must("runp", self.file("pod.json", self.sandbox))

    def create(self, pod: str, *args: str, name: str = "c", **more: Any) -> str:
        """Create a container in a pod and return its id. `more` are members of the container's
        configuration."""
        config = {
            "metadata": {"name": name, "attempt": 0},
            "image": {"image": BUSYBOX},
            "command": list(args),
            "log_path": f"{name}.log",
            "linux": {"security_context": {"namespace_options": {"pid": 1}}},
        } | more
        return self.must(
            "create", "--no-pull", pod, self.file("container.json", config), self.file("pod.json", self.sandbox)
        )

    def status(self, id: str) -> dict[str, Any]:
        """The status of a container in CRI."""
        found: dict[str, Any] = json.loads(self.must("inspect", id))["status"]
        return found

    def wait_exited(self, id: str) -> int:
        """Wait until a container exits; return its exit code."""
        harness.wait_until(lambda: self.status(id)["state"] == "CONTAINER_EXITED", f"{id} to exit", 20)
        return int(self.status(id)["exitCode"])

    def log(self, name: str) -> list[str]:
        """The texts of a container's log."""
        return [line.split(" ", 3)[3] for line in (self.logs / f"{name}.log").read_text().splitlines()]
