"""contrib/kubernetes: the DaemonSet installs pyrunc on the node, pods run on it, and removal leaves
nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import harness
from integration.engines import conftest as engines
from integration.engines.kubernetes.cluster import NODE, Cluster
from integration.engines.kubernetes.conftest import BINS, runc
from integration.engines.kubernetes.pods import Pods
from integration.harness import REPO

CONTRIB = REPO / "contrib"
IMAGE = "docker.io/library/pyrunc-installer:1"
INSTALLED = Path("usr/local/bin/pyrunc")


@pytest.fixture
def bare() -> Iterator[Cluster]:
    """A cluster without pyrunc but with the installer's image."""
    newest, ours = runc(), engines.find("pyrunc")
    if os.geteuid() != 0 or newest is None or ours is None:
        pytest.skip("root, pyrunc and runc are needed")
    with engines.sandbox("installer") as host:
        made = Cluster(host, Path(BINS), {"pyrunc": ours, "runc": newest}, bare=True)
        files = {
            "bin/kubectl": Path(BINS) / "kubectl",
            "pyrunc/pyrunc": Path(made.runtimes["pyrunc"]),  # removes limits if the machine has no controllers
            "pyrunc/install.sh": CONTRIB / "kubernetes/installer/install.sh",
            "pyrunc/containerd-1.toml": CONTRIB / "containerd/containerd-1.toml",
            "pyrunc/containerd-2.toml": CONTRIB / "containerd/containerd-2.toml",
            "pyrunc/crio.conf": CONTRIB / "crio/10-pyrunc.conf",
        }
        made.load_image(IMAGE, {"Entrypoint": ["/pyrunc/install.sh"], "Cmd": ["run"]}, files)
        yield made


def label(cluster: Cluster) -> str:
    """The label that the installer sets on the node."""
    return str(cluster.node()["metadata"]["labels"].get("pyrunc/runtime", ""))


def explain(cluster: Cluster) -> str:
    """The output of the installer's pods."""
    done = cluster.kubectl("-n", "pyrunc", "logs", "-l", "app=pyrunc-installer", "--tail=20")
    return done.said + cluster.kubectl("-n", "pyrunc", "get", "events").out


def must(cluster: Cluster, *args: str) -> None:
    """Call kubectl, which must succeed."""
    done = cluster.kubectl(*args)
    assert done.rc == 0, (done, explain(cluster))


def test_installer(bare: Cluster) -> None:
    config = bare.path / "containerd.toml"
    before = config.read_text()
    wait = f"{BINS}/ctr -a {bare.path}/c.sock version >/dev/null 2>&1"
    restart = f"kill $(cat {bare.path}/containerd.pid); sleep 0.5; until {wait}; do sleep 0.2; done"
    must(bare, "apply", "-f", str(CONTRIB / "kubernetes/daemonset.yaml"))
    env = ["ENGINE=containerd", f"CONFIG={config}", f"CONTAINERD={BINS}/containerd", f"RESTART={restart}"]
    must(bare, "-n", "pyrunc", "set", "env", "daemonset/installer", *env)
    must(bare, "label", "node", NODE, "pyrunc/install=true")
    try:
        harness.wait_until(lambda: label(bare) == "ready", "the node's label", 60, 0.5)
    except AssertionError as error:
        raise AssertionError(f"{error}: {explain(bare)}") from None
    there = (bare.path / "node" / INSTALLED).exists()
    pods = Pods(bare, "pyrunc", "installed")
    pod = pods.create().ready()
    task = f"{bare.path}/state/io.containerd.runtime.v2.task/k8s.io/" + pod.status()["containerID"].partition("://")[2]
    runs_on_it = "/usr/local/bin/pyrunc" in bare.must("cat", f"{task}/options.json")
    answer = pod.run("echo here")
    pods.remove()
    must(bare, "label", "node", NODE, "pyrunc/install-")
    harness.wait_until(lambda: not label(bare), "the label to go", 60, 0.5)
    harness.wait_until(lambda: config.read_text() == before, "the configuration to be as before", 30, 0.2)
    harness.wait_until(lambda: not (bare.path / "node" / INSTALLED).exists(), "the executable to go", 30, 0.2)
    assert there and runs_on_it and answer == "here"
