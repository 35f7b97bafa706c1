"""podman (with conmon) in a sandbox."""

from __future__ import annotations

from integration.engines.contrib import drop_in
from integration.engines.host import Done, Host
from integration.engines.image import LoadsImages

# podman's defaults that need a capability or a controller are switched off, because it may be
# missing.
CONTAINERS = """\
[containers]
apparmor_profile = ""
default_sysctls = []
pids_limit = 0
default_ulimits = ["nofile=1024:4096", "nproc=1024:4096"]
log_driver = "k8s-file"
netns = "none"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
STORAGE = """\
[storage]
driver = "vfs"
graphroot = "{path}/graph"
runroot = "{path}/run"
"""
POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}\n'


class Podman(LoadsImages):
    """podman as root; `runtime` is the argument of --runtime: a name from containers.conf, or a
    path."""

    label = "podman with conmon"
    exec_missing = 127
    init = "podman-init"
    criu = ""  # an annotation for containers to be checkpointed
    health_interval = "disable"  # without systemd no timer can run the checks

    def __init__(self, host: Host, runtime: str, path: str) -> None:
        self.host, self.runtime = host, runtime
        self.label = Podman.label + host.where
        etc = host.path / "etc"
        (etc / "containers.conf.d").mkdir(parents=True)
        (etc / "containers.conf").write_text(CONTAINERS)
        (etc / "containers.conf.d/pyrunc.conf").write_text(drop_in("podman/pyrunc.conf", path))
        (etc / "storage.conf").write_text(STORAGE.format(path=host.path))
        (etc / "policy.json").write_text(POLICY)
        (etc / "registries.conf").write_text("unqualified-search-registries = ['docker.io']\n")
        for name in ("containers", "cni"):
            (host.path / "var" / name).mkdir(parents=True)
            host.cover(f"/var/lib/{name}", host.path / "var" / name)
        host.cover("/etc/containers", etc)
        self.version = host.call("podman", "--version").out.split()[-1]
        conmon = host.call("conmon", "--version").out.split()[2]
        self.versions = {"podman": self.version, "conmon": conmon}

    def argv(self, *args: str) -> list[str]:
        """The command line of one call."""
        return ["podman", "--runtime", self.runtime, "--cgroup-manager", "cgroupfs", *args]

    def call(self, *args: str, stdin: str | None = None, pass_fds: tuple[int, ...] = ()) -> Done:
        """Call podman."""
        return self.host.call(*self.argv(*args), stdin=stdin, pass_fds=pass_fds)

    def run_flags(self) -> list[str]:
        """Flags of every run."""
        return ["--network", "none", "--cgroup-parent", self.host.cgroup]

    def settled_health(self, name: str) -> str:
        """Run a health check and return the resulting health: healthy or unhealthy."""
        self.call("healthcheck", "run", name)
        return self.call("inspect", name, "--format", "{{.State.Health.Status}}").out.strip()
