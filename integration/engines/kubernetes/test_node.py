"""The node as a whole: many pods, restarts of the daemons, and leftovers at the end."""

from __future__ import annotations

import time

from integration import harness
from integration.engines.conftest import Seen
from integration.engines.kubernetes.cluster import Cluster
from integration.engines.kubernetes.pods import Pods, container

LABEL = Cluster.label
MANY = 30


def test_many_pods_at_once(pods: Pods, seen: Seen) -> None:
    began = time.monotonic()
    made = [pods.create() for _ in range(MANY)]
    for pod in made:
        pod.wait(pod.is_ready, "to be ready", 150)
    ready = time.monotonic() - began
    logs = {tuple(pod.log()) for pod in made}
    began = time.monotonic()
    for pod in made:
        pod.delete(1)
    for pod in made:
        pod.wait_gone(150)
    print(f"{pods.runtime_class}: {MANY} pods ready after {ready:.1f} s, gone after {time.monotonic() - began:.1f} s")
    seen(pods=len(made), logs=[" ".join(lines) for lines in logs])
    assert logs == {("started",)}


def test_restart_of_the_node(pods: Pods, seen: Seen, engine: Cluster) -> None:
    counter = "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.1; done"
    lasting = pods.create(container(counter), restartPolicy="Always").ready()
    folder = pods.folder()
    ending = pods.create(
        container("until [ -e /v/go ]; do sleep 0.1; done; exit 3", volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        volumes=[{"name": "v", "hostPath": {"path": str(folder)}}],
    ).ready()
    before = lasting.status()["containerID"], len(lasting.log())
    engine.stop_node()
    (folder / "go").touch()
    time.sleep(1)
    engine.containerd.start()
    engine.start_kubelet()
    code = ending.ended("Failed").terminated()["exitCode"]
    lasting.wait(lambda: len(lasting.log()) > before[1] + 10, "the log to go on")
    same = lasting.status()["containerID"] == before[0]
    answer = lasting.run("echo alive")
    seen(same_container=same, restarts=lasting.status()["restartCount"], exec=answer, ended_meanwhile=code)
    # containerd removes a shim without processes before it asks the shim for the exit code.
    assert (same, lasting.status()["restartCount"], answer, code) == (True, 0, "alive", 255)


def test_restart_of_containerd_alone(pods: Pods, seen: Seen, engine: Cluster) -> None:
    pod = pods.create(restartPolicy="Always").ready()
    before = pod.status()["containerID"]
    engine.host.end(engine.containerd.daemon)
    engine.containerd.start()
    answer = harness.wait_until(lambda: pod.exec("echo", "alive").out.strip(), "an exec", 40, 0.5)
    seen(same_container=pod.status()["containerID"] == before, exec=answer)
    assert pod.status()["containerID"] == before and answer == "alive"


def test_killed_from_outside(pods: Pods, seen: Seen, engine: Cluster) -> None:
    pod = pods.create(restartPolicy="Always").ready()
    id = pod.status()["containerID"].removeprefix("containerd://")
    done = engine.containerd.ctr("-n", "k8s.io", "task", "kill", "-s", "SIGKILL", id)
    assert done.rc == 0, done
    pod.wait(lambda: pod.status()["restartCount"] == 1 and pod.is_ready(), "to run again")
    last = pod.status()["lastState"]["terminated"]
    seen(exit_code=last["exitCode"], restarts=pod.status()["restartCount"])
    assert last["exitCode"] == 137


def test_nothing_left(pods: Pods, seen: Seen, engine: Cluster) -> None:
    pods.remove()

    def left() -> list[str]:
        found = [args for args in engine.host.processes() if "containerd-shim" in args or "echo started" in args]
        found += engine.host.listdir("/run/containerd/runc/k8s.io")
        found += engine.host.listdir("/run/containerd/io.containerd.runtime.v2.task/k8s.io")
        return found + [line for line in engine.must("cat", "/proc/mounts").splitlines() if "/rootfs " in line]

    harness.wait_until(lambda: not left(), "shims, states and mounts to go", 60, 0.5)
    groups = [str(path) for path in engine.host.cgroups() if "/pod" in str(path) or len(path.name) == 64]
    seen(left=left(), cgroups=groups)
    assert not groups
