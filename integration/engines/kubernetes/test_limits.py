"""Resources, where controllers exist: quality of service, in-place resize, out of memory,
eviction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from integration.engines.conftest import Seen
from integration.engines.kubernetes.cluster import Cluster, Json
from integration.engines.kubernetes.pods import PODS, Pod, Pods, container

LABEL = Cluster.label
pytestmark = pytest.mark.needs_controller("cpu", "memory", "pids")


def resources(requests: str, limits: str) -> Json:
    """A container's resources from texts like "100m 64Mi": cpu and memory, "-" for none."""
    both = {"requests": requests.split(), "limits": limits.split()}
    return {
        "resources": {
            kind: {name: one for name, one in zip(("cpu", "memory"), words, strict=True) if one != "-"}
            for kind, words in both.items()
        }
    }


def group(pod: Pod, name: str = "c") -> Path:
    """The cgroup of a container."""
    id = pod.status(name)["containerID"].removeprefix("containerd://")
    return next(path for path in pod.cluster.host.cgroups() if path.name == id)


def values(folder: Path, *names: str) -> list[str]:
    """The contents of a cgroup's files."""
    return [f"{name} {(folder / name).read_text().strip()}" for name in names]


FILES = ("cpu.max", "cpu.weight", "memory.max", "memory.low", "memory.high", "memory.swap.max", "pids.max")


def shape(folder: Path) -> list[str]:
    """The cgroups from the cluster's downwards, without ids."""
    parts = [part for part in folder.parts if part.startswith(("kubepods", "besteffort", "burstable"))]
    return ["/".join(parts)]


def test_guaranteed(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container(**resources("200m 64Mi", "200m 64Mi"))).ready()
    folder = group(pod)
    found, above = values(folder, *FILES), values(folder.parent, "cpu.max", "memory.max")
    seen(qos=pod.read()["status"]["qosClass"], where=shape(folder), container=found, pod=above)
    assert "cpu.max 20000 100000" in found and "memory.max 67108864" in found
    assert "memory.max 75497472" in above, above  # the overhead of the class is 8 MiB


def test_burstable(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container(**resources("100m 32Mi", "- 64Mi"))).ready()
    folder = group(pod)
    seen(qos=pod.read()["status"]["qosClass"], where=shape(folder), container=values(folder, *FILES))
    assert "memory.max 67108864" in values(folder, "memory.max") and "burstable" in shape(folder)[0]


def test_best_effort(pods: Pods, seen: Seen) -> None:
    pod = pods.create().ready()
    folder = group(pod)
    seen(qos=pod.read()["status"]["qosClass"], where=shape(folder), container=values(folder, *FILES))
    assert "memory.max max" in values(folder, "memory.max") and "besteffort" in shape(folder)[0]


def test_pod_level_resources(pods: Pods, seen: Seen) -> None:
    limits = {"cpu": "300m", "memory": "96Mi"}
    pod = pods.create(resources={"limits": limits, "requests": limits}).ready()
    folder = group(pod)
    seen(pod=values(folder.parent, "cpu.max", "memory.max"), container=values(folder, *FILES))
    assert "memory.max 109051904" in values(folder.parent, "memory.max")


def test_resize_in_place(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container(**resources("100m 64Mi", "200m 64Mi"))).ready()
    id, folder = pod.status()["containerID"], group(pod)
    change = {"spec": {"containers": [{"name": "c"} | resources("150m 96Mi", "300m 128Mi")]}}
    pod.cluster.api("PATCH", f"{PODS}/{pod.name}/resize", change, "application/strategic-merge-patch+json")
    pod.wait(lambda: "memory.max 134217728" in values(folder, "memory.max"), "the new limit")
    pod.wait(lambda: "cpu.max 30000 100000" in values(folder, "cpu.max"), "the new quota")
    same = pod.status()["containerID"] == id
    seen(container=values(folder, *FILES), same_container=same, restarts=pod.status()["restartCount"])
    assert same


def test_out_of_memory(pods: Pods, seen: Seen) -> None:
    main = "sleep 1; x=a; while :; do x=$x$x; done"
    pod = pods.create(container(main, **resources("100m 32Mi", "1 32Mi"))).ended("Failed")
    end = pod.terminated()
    seen(exit_code=end["exitCode"], reason=end["reason"])
    assert (end["exitCode"], end["reason"]) == (137, "OOMKilled")


def test_process_limit(pods: Pods, seen: Seen) -> None:
    pod = pods.create().ready()
    seen(pod=values(group(pod).parent, "pids.max"))


def test_memory_in_the_summary(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container(**resources("100m 32Mi", "200m 64Mi"))).ready()

    def find() -> Json:
        found = pod.cluster.api("GET", "/api/v1/nodes/node1/proxy/stats/summary?only_cpu_and_memory=true")
        found = json.loads(found) if isinstance(found, str) else found
        mine = [one for one in found["pods"] if one["podRef"]["name"] == pod.name]
        usage: Json = mine[0]["containers"][0].get("memory", {}) if mine and mine[0]["containers"] else {}
        return usage

    used = pod.wait(lambda: find().get("workingSetBytes"), "the memory in use")
    seen(reported=used > 0)
