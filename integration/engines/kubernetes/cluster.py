"""A cluster of one node in a sandbox: etcd, API server, scheduler, kubelet and a current
containerd.

Only the controllers that a DaemonSet needs run. kubectl proxy serves the API on a unix socket, so
the tests reach it without entering the sandbox's network namespace.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any

from integration import harness, machine
from integration.engines import image
from integration.engines.containerd import Containerd
from integration.engines.contrib import drop_in
from integration.engines.cri import NETWORK, RUNTIME, STRIP
from integration.engines.host import Done, Host

Json = dict[str, Any]

BUSYBOX, PAUSE = "registry.test/bb:1", "registry.test/pause:1"
NODE, ADDRESS, TOKEN = "node1", "10.99.0.1", "operator-token"
# The first address of the services is the API server itself, so nothing has to forward it.
SERVICES, API_ADDRESS = "10.96.0.0/24", "10.96.0.1"
API = f"https://{API_ADDRESS}:443"
# Paths that are compiled into programs, or that kubelet passes to the runtime by name.
PRIVATE = (
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/cni/net.d",
    "/opt/cni/bin",
)
INSTALLED = "/usr/local/bin"  # where contrib/kubernetes puts the executable
CONTAINERD = (
    """
[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"
"""
    + RUNTIME
    + """\
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{runc}"
SystemdCgroup = false
"""
)
# A sandbox without limits needs the wrapper's interpreter only for create.
QUICK = """#!/bin/sh
case " $* " in *" create "*) exec {strip} "$@" ;; esac
exec {runtime} "$@"
"""
PIDS = 512  # kubelet's limit for each pod
GATES = "--feature-gates=ContainerStopSignals=true"
CONTROLLERS = ",".join(
    f"{name}-controller" for name in ("daemonset", "serviceaccount", "root-ca-certificate-publisher", "namespace")
)
# Whether kubelet can limit pods here. Both kinds of cluster have their own results.
LIMITS = {"cpu", "memory", "pids"} <= set(machine.controllers())


class Unix(http.client.HTTPConnection):
    """An HTTP connection over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20 * harness.SLOW)
        self.path = path

    def connect(self) -> None:
        """Connect to the path instead of a host and a port."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Refused(Exception):
    """The API server returned an error."""


class Cluster:
    """The cluster. `runtimes` maps the names of the runtime classes to paths.

    A `bare` cluster has only runc and nothing in INSTALLED, and its containerd is restarted
    whenever it exits.
    """

    label = "Kubernetes on containerd 2.x" + (", with limits" if LIMITS else "")

    def __init__(self, host: Host, bins: Path, runtimes: dict[str, str], bare: bool = False) -> None:
        self.host, self.bins, self.path, self.bare = host, bins, host.path, bare
        self.limits = LIMITS
        host.env["PATH"] = f"{bins}:{host.env['PATH']}"
        self.runtimes = {name: self.wrap(name, path) for name, path in runtimes.items()}
        self.prepare_node()
        self.start_containerd()
        self.load_images()
        self.start_control_plane()
        self.start_kubelet()
        self.wait_ready()
        self.versions = self.read_versions(runtimes["runc"])
        for name in ["runc"] if bare else runtimes:
            self.runtime_class(name)

    def read_versions(self, runc: str) -> dict[str, str]:
        """The versions that the results belong to."""
        versions = {
            "containerd": self.containerd.version,
            "etcd": (self.bins.parent / "built/etcd").read_text().strip(),
        }
        versions["kubernetes"] = self.node()["status"]["nodeInfo"]["kubeletVersion"].removeprefix("v")
        versions["runc"] = subprocess.run([runc, "--version"], capture_output=True, text=True).stdout.split()[2]
        return versions

    # -- the node ----------------------------------------------------------------------------------

    def wrap(self, name: str, path: str) -> str:
        """The runtime, or, without controllers, a program that first removes limits from the
        configuration."""
        if self.limits:
            return path
        strip, quick = self.path / f"strip-{name}", self.path / f"{name}-without-limits"
        strip.write_text(STRIP.format(runtime=path))
        quick.write_text(QUICK.format(strip=strip, runtime=path))
        for file in (strip, quick):
            file.chmod(0o755)
        return str(quick)

    def must(self, *argv: str) -> str:
        """Run a command in the sandbox, which must succeed; return its output."""
        done = self.host.call(*argv)
        assert done.rc == 0, done
        return done.out

    def prepare_node(self) -> None:
        """Create private directories, a non-loopback address, the network configuration and the
        cgroup."""
        script = ["set -e", "mount --make-rshared /", f"ip addr add {ADDRESS}/24 dev lo"]
        script.append(f"ip addr add {API_ADDRESS}/32 dev lo")
        for place in (*PRIVATE, INSTALLED) if self.bare else PRIVATE:
            ours = self.path / ("node" + place)
            ours.mkdir(parents=True)
            if place.startswith("/var/"):
                self.host.provide(place)
            if self.host.call("test", "-d", place).rc == 0:
                script.append(f"mount --bind {ours} {place} && mount --make-rshared {place}")
        self.must("/bin/sh", "-c", "\n".join(script))
        (self.path / "cni").mkdir()
        (self.path / "cni/10-test.conflist").write_text(json.dumps(NETWORK))
        self.cgroup = Path(f"{machine.cgroup2_mount()}{self.host.cgroup}")
        self.cgroup.mkdir()

    def start_containerd(self) -> None:
        """Start containerd with both runtimes; the section for pyrunc is contrib's drop-in."""
        text = CONTAINERD.format(path=self.path, pause=PAUSE, runc=self.runtimes["runc"])
        if machine.has_cap("SYS_RESOURCE"):
            text = text.replace("restrict_oom_score_adj = true", "restrict_oom_score_adj = false")
        if not self.bare:
            text += drop_in("containerd/containerd-2.toml", self.runtimes["pyrunc"])
        self.containerd = Containerd(self.host, "", text, folder=f"{self.bins}/", keep=self.bare)

    def load_images(self) -> None:
        """Import the images; kubelet never pulls them."""
        self.load_image(BUSYBOX, {})
        self.load_image(PAUSE, {"Cmd": ["/bin/sleep", "36000"]})

    def load_image(self, name: str, config: Json, files: dict[str, Path] | None = None) -> None:
        """Import an image with busybox, a process and further `files`."""
        folder = self.path / re.sub("[:/]", "-", name)
        for place, source in (files or {}).items():
            (folder / "rootfs" / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / "rootfs" / place)
        archive, _ = image.build(folder, name, config)
        done = self.containerd.ctr("-n", "k8s.io", "images", "import", str(archive))
        assert done.rc == 0, done
        shutil.rmtree(folder)

    def start_kubelet(self, **changes: Any) -> None:
        """Start or restart kubelet; `changes` replaces members of its configuration."""
        config: Json = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "address": ADDRESS,
            "containerRuntimeEndpoint": f"unix://{self.path}/c.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.host.cgroup,
            "cgroupsPerQOS": self.limits,
            "enforceNodeAllocatable": ["pods"] if self.limits else [],
            "failSwapOn": False,
            "memorySwap": {"swapBehavior": "LimitedSwap"} if self.limits else {},
            "memoryReservationPolicy": "TieredReservation" if self.limits else "None",
            "memoryThrottlingFactor": 0.9,
            "podPidsLimit": PIDS if self.limits else -1,
            "resolvConf": "",
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            # Without it cAdvisor does not measure filesystems, and each round of eviction fails.
            "localStorageCapacityIsolation": self.limits,
            "makeIPTablesUtilChains": False,
            "oomScoreAdj": 0,
            "podLogsDir": "/var/log/pods",
            "syncFrequency": "10s",
            "nodeStatusUpdateFrequency": "5s",
            "cpuManagerPolicy": "none",
        }
        file = self.path / "kubelet.json"
        file.write_text(json.dumps(config | changes))
        words = [f"--config={file}", f"--kubeconfig={self.kubeconfig}", f"--hostname-override={NODE}", GATES]
        argv = [f"{self.bins}/kubelet", *words, f"--node-ip={ADDRESS}"]
        self.kubelet = self.host.start(*argv, log="kubelet.log")

        def answers() -> bool:
            # It ends if containerd is still recovering its pods; systemd would start it again.
            if self.kubelet.poll() is not None:
                self.host.daemons.remove(self.kubelet)
                self.kubelet = self.host.start(*argv, log="kubelet.log")
            try:
                return bool(self.api("GET", f"/api/v1/nodes/{NODE}/proxy/healthz"))
            except Refused:
                return False

        harness.wait_until(answers, "kubelet to answer", 60, 0.2)

    def stop_node(self) -> None:
        """Kill kubelet and containerd, as in a crash."""
        for daemon in (self.kubelet, self.containerd.daemon):
            self.host.end(daemon)

    # -- the control plane -------------------------------------------------------------------------

    def start_control_plane(self) -> None:
        """Start etcd, the API server, the scheduler and the proxy that the tests use."""
        path = self.path
        url, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
        words = [f"--data-dir={path}/etcd", f"--listen-client-urls={url}", f"--advertise-client-urls={url}"]
        words += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        words += [f"--initial-cluster=default={peer}", "--unsafe-no-fsync"]
        self.host.start(f"{self.bins}/etcd", *words, log="etcd.log")
        self.must("openssl", "genrsa", "-out", f"{path}/account.key", "2048")
        (path / "tokens.csv").write_text(f'{TOKEN},operator,1,"system:masters"\n')
        key = f"{path}/account.key"
        words = [f"--etcd-servers={url}", f"--service-cluster-ip-range={SERVICES}", f"--cert-dir={path}/certificates"]
        words += ["--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={key}"]
        words += [f"--service-account-signing-key-file={key}", "--authorization-mode=RBAC", "--secure-port=443"]
        words += [f"--token-auth-file={path}/tokens.csv", "--bind-address=0.0.0.0", f"--advertise-address={ADDRESS}"]
        words += ["--endpoint-reconciler-type=none", "--kubelet-preferred-address-types=InternalIP"]
        words += ["--allow-privileged", "--enable-priority-and-fairness=false", GATES]
        self.host.start(f"{self.bins}/kube-apiserver", *words, log="kube-apiserver.log")
        self.kubeconfig = path / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(KUBECONFIG))
        proxy = path / "api.sock"
        self.host.wait_ready(
            "kube-apiserver", lambda: self.kubectl("get", "--raw", "/readyz").rc == 0, "kube-apiserver.log"
        )
        words = ["proxy", f"--kubeconfig={self.kubeconfig}", f"--unix-socket={proxy}"]
        self.host.start(f"{self.bins}/kubectl", *words, log="proxy.log")
        self.host.wait_ready("kubectl proxy", proxy.exists, "proxy.log")
        words = [f"--kubeconfig={self.kubeconfig}", "--leader-elect=false"]
        self.host.start(f"{self.bins}/kube-scheduler", *words, f"--cert-dir={path}/scheduler", log="kube-scheduler.log")
        words += [f"--controllers={CONTROLLERS}", f"--root-ca-file={path}/certificates/apiserver.crt"]
        words += [f"--service-account-private-key-file={key}", f"--cert-dir={path}/controllers"]
        self.host.start(f"{self.bins}/kube-controller-manager", *words, log="kube-controller-manager.log")

    def kubectl(self, *args: str, stdin: str | None = None) -> Done:
        """Call kubectl."""
        return self.host.call(*self.kubectl_words(*args), stdin=stdin)

    def kubectl_words(self, *args: str) -> list[str]:
        """The command line of one call."""
        return [f"{self.bins}/kubectl", f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.path}/cache", *args]

    def api(
        self, method: str, path: str, body: Json | None = None, kind: str = "application/json", **query: str
    ) -> Any:
        """Send a request to the API server; return a decoded object, or text. Raises Refused."""
        connection = Unix(self.path / "api.sock")
        try:
            headers = {"Content-Type": kind, "Accept": "application/json, */*"}
            target = path + ("?" + urllib.parse.urlencode(query) if query else "")
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            data = answer.read().decode(errors="replace")
            if answer.status >= 400:
                raise Refused(f"{method} {path}: {answer.status}: {data}")
            return json.loads(data) if answer.headers.get_content_type() == "application/json" else data
        finally:
            connection.close()

    def node(self) -> Json:
        """The node as the API server reports it."""
        found: Json = self.api("GET", f"/api/v1/nodes/{NODE}")
        return found

    def summary(self) -> Json:
        """Kubelet's statistics of the node and of its pods."""
        found = self.api("GET", f"/api/v1/nodes/{NODE}/proxy/stats/summary?only_cpu_and_memory=true")
        decoded: Json = json.loads(found) if isinstance(found, str) else found
        return decoded

    def under_pressure(self) -> bool:
        """Whether the node reports that it lacks memory."""
        conditions = self.node()["status"]["conditions"]
        return any(one["type"] == "MemoryPressure" and one["status"] == "True" for one in conditions)

    def node_is_ready(self) -> bool:
        """Whether kubelet reports that pods can run."""
        try:
            conditions = self.node()["status"].get("conditions", [])
        except Refused:
            return False
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def has_account(self) -> bool:
        """Whether the service account exists that pods use by default."""
        try:
            self.api("GET", "/api/v1/namespaces/default/serviceaccounts/default")
        except Refused:
            return False
        return True

    def wait_ready(self) -> None:
        """Wait for the node and for the pods' default service account."""
        self.host.wait_ready("kubelet", self.node_is_ready, "kubelet.log")
        self.host.wait_ready("the controllers", self.has_account, "kube-controller-manager.log")

    def runtime_class(self, name: str, handler: str = "") -> None:
        """Create a RuntimeClass; its pods have the overhead that it declares."""
        overhead = {"podFixed": {"cpu": "10m", "memory": "8Mi"}}
        body = {"metadata": {"name": name}, "handler": handler or name, "overhead": overhead}
        self.api("POST", "/apis/node.k8s.io/v1/runtimeclasses", body)


KUBECONFIG: Json = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "c", "cluster": {"server": API, "insecure-skip-tls-verify": True}}],
    "users": [{"name": "u", "user": {"token": TOKEN}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "current-context": "c",
}
