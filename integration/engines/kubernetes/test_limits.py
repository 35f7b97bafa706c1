"""Resources, where controllers exist: quality of service, in-place resize, memory protection, swap,
out of memory."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from integration.engines.conftest import Seen
from integration.engines.kubernetes.cluster import PIDS, Cluster, Json
from integration.engines.kubernetes.pods import MIB, PODS, Pod, Pods, container, resources

LABEL = Cluster.label
pytestmark = pytest.mark.needs_controller("cpu", "memory", "pids")


def group(pod: Pod, name: str = "c") -> Path:
    """The cgroup of a container."""
    id = pod.status(name)["containerID"].removeprefix("containerd://")
    return next(path for path in pod.cluster.host.cgroups() if path.name == id)


def values(folder: Path, *names: str) -> list[str]:
    """The contents of a cgroup's files."""
    return [f"{name} {(folder / name).read_text().strip()}" for name in names]


def number(folder: Path, name: str, key: str = "") -> int:
    """The number in a cgroup's file, or the one behind `key`."""
    text = (folder / name).read_text()
    return int(re.findall(rf"^{key} (\d+)$", text, re.MULTILINE)[0]) if key else int(text)


MEMORY = ("memory.min", "memory.low", "memory.high", "memory.max", "memory.oom.group")
FILES = ("cpu.max", "cpu.weight", *MEMORY, "pids.max")
FILL = "x=a; while :; do x=$x$x; done"  # doubles its memory until the kernel ends it


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
    assert "memory.min 67108864" in found and "memory.high max" in found


def test_burstable(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container(**resources("100m 32Mi", "- 64Mi"))).ready()
    folder = group(pod)
    found = values(folder, *FILES)
    seen(qos=pod.read()["status"]["qosClass"], where=shape(folder), container=found)
    assert "memory.max 67108864" in found and "burstable" in shape(folder)[0]
    # The request, and nine tenths of the way from there to the limit in whole pages.
    assert "memory.low 33554432" in found and "memory.high 63750144" in found


def test_best_effort(pods: Pods, seen: Seen) -> None:
    pod = pods.create().ready()
    folder = group(pod)
    seen(qos=pod.read()["status"]["qosClass"], where=shape(folder), container=values(folder, "cpu.max", "memory.max"))
    assert "memory.max max" in values(folder, "memory.max") and "besteffort" in shape(folder)[0]


def test_pod_level_resources(pods: Pods, seen: Seen) -> None:
    limits = {"cpu": "300m", "memory": "96Mi"}
    pod = pods.create(resources={"limits": limits, "requests": limits}).ready()
    folder = group(pod)
    seen(pod=values(folder.parent, "cpu.max", "memory.max"), container=values(folder, *FILES))
    assert "memory.max 109051904" in values(folder.parent, "memory.max")


def resize(pod: Pod, requests: str, limits: str) -> None:
    """Request other resources for a running container."""
    change = {"spec": {"containers": [{"name": "c"} | resources(requests, limits)]}}
    pod.cluster.api("PATCH", f"{PODS}/{pod.name}/resize", change, "application/strategic-merge-patch+json")


def test_resize_in_place(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container(**resources("100m 64Mi", "100m 64Mi"))).ready()
    id, folder = pod.status()["containerID"], group(pod)
    resize(pod, "300m 128Mi", "300m 128Mi")
    pod.wait(lambda: "memory.max 134217728" in values(folder, "memory.max"), "the new limit")
    pod.wait(lambda: "cpu.max 30000 100000" in values(folder, "cpu.max"), "the new quota")
    pod.wait(lambda: "memory.min 134217728" in values(folder, "memory.min"), "the new protection")
    same = pod.status()["containerID"] == id
    seen(container=values(folder, *FILES), same_container=same, restarts=pod.status()["restartCount"])
    assert same


def test_resize_of_a_burstable_pod(pods: Pods, seen: Seen) -> None:
    """Kubelet changes no memory of a container that may swap."""
    pod = pods.create(container(**resources("100m 32Mi", "200m 64Mi"))).ready()
    id, folder = pod.status()["containerID"], group(pod)
    before = values(folder, *MEMORY)
    resize(pod, "150m 32Mi", "300m 64Mi")
    pod.wait(lambda: "cpu.max 30000 100000" in values(folder, "cpu.max"), "the new quota")
    kept = values(folder, *MEMORY) == before
    same = pod.status()["containerID"] == id
    seen(quota=values(folder, "cpu.max", "cpu.weight"), memory_kept=kept, same_container=same)
    assert same and kept


def test_cpu_quota(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container("while :; do :; done", **resources("50m 32Mi", "50m 32Mi"))).ready()
    folder = group(pod)
    pod.wait(lambda: number(folder, "cpu.stat", "nr_throttled") > 5, "to be throttled")
    before = number(folder, "cpu.stat", "usage_usec"), time.monotonic()
    time.sleep(4)
    used = (number(folder, "cpu.stat", "usage_usec") - before[0]) / 1e6 / (time.monotonic() - before[1])
    seen(throttled=True, within_the_limit=used < 0.06)
    assert 0.02 < used < 0.06


def test_swap(pods: Pods, seen: Seen) -> None:
    if len(Path("/proc/swaps").read_text().splitlines()) < 2:
        pytest.skip("the node has no swap")
    script = "dd if=/dev/zero of=/dev/shm/f bs=1M count=52 2>/dev/null && echo filled; exec sleep 1000"
    pod = pods.create(container(script, **resources("100m 40Mi", "- 48Mi"))).ready()
    never = pods.create(container(**resources("100m 32Mi", "100m 32Mi"))).ready()
    folder, other = group(pod), group(never)
    pod.wait(lambda: pod.log() == ["filled"], "52 MiB in the limit of 48 MiB")
    limit, used = number(folder, "memory.swap.max"), number(folder, "memory.swap.current")
    seen(burstable=0 < limit < 48 * MIB, swapped=used > 0, guaranteed=values(other, "memory.swap.max"))
    assert 3 * MIB < used <= limit < 48 * MIB and number(other, "memory.swap.max") == 0


def test_score_for_the_killer(pods: Pods, seen: Seen) -> None:
    made = {
        "guaranteed": pods.create(container(**resources("100m 32Mi", "100m 32Mi"))),
        "best_effort": pods.create(),
    }
    scores = {}
    for name, pod in made.items():
        pid = (group(pod.ready()) / "cgroup.procs").read_text().split()[0]
        scores[name] = int(Path(f"/proc/{pid}/oom_score_adj").read_text())
    seen(**scores)
    assert scores == {"guaranteed": -997, "best_effort": 1000}


def test_out_of_memory(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container(f"sleep 1; {FILL}", **resources("100m 32Mi", "1 32Mi"))).ended("Failed")
    end = pod.terminated()
    seen(exit_code=end["exitCode"], reason=end["reason"])
    assert (end["exitCode"], end["reason"]) == (137, "OOMKilled")


def test_out_of_memory_in_a_child(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container(f"sh -c '{FILL}'; sleep 1000", **resources("100m 32Mi", "1 32Mi"))).ended("Failed")
    end = pod.terminated()
    seen(exit_code=end["exitCode"], reason=end["reason"])
    assert (end["exitCode"], end["reason"]) == (137, "OOMKilled")  # memory.oom.group


def test_out_of_memory_in_an_exec(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container(**resources("100m 32Mi", "1 32Mi")), restartPolicy="Always").ready()
    done = pod.exec("/bin/sh", "-c", FILL)
    pod.wait(lambda: pod.status()["restartCount"] == 1 and pod.is_ready(), "to run again")
    last = pod.status()["lastState"]["terminated"]
    seen(exec=done.rc, exit_code=last["exitCode"], reason=last["reason"])
    assert (done.rc, last["exitCode"], last["reason"]) == (137, 137, "OOMKilled")


def test_process_limit(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container(f"(for i in $(seq {PIDS + 10}); do sleep 1000 & done); sleep 1000")).ready()
    folder = group(pod).parent
    pod.wait(lambda: number(folder, "pids.events", "max") > 0, "a fork to fail")
    seen(pod=values(folder, "pids.max"))
    assert number(folder, "pids.max") == PIDS


def test_memory_in_the_summary(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container(**resources("100m 32Mi", "200m 64Mi"))).ready()

    def find() -> Json:
        mine = [one for one in pod.cluster.summary()["pods"] if one["podRef"]["name"] == pod.name]
        usage: Json = mine[0]["containers"][0].get("memory", {}) if mine and mine[0]["containers"] else {}
        return usage

    used = pod.wait(lambda: find().get("workingSetBytes"), "the memory in use")
    seen(reported=used > 0)
