"""Memory becomes scarce on the node."""

from __future__ import annotations

import time

import pytest

from integration import harness
from integration.engines.conftest import Seen
from integration.engines.kubernetes.cluster import Cluster
from integration.engines.kubernetes.pods import MIB, Pods, container, resources

LABEL = Cluster.label
VOLUME = {"name": "v", "mountPath": "/v"}
pytestmark = pytest.mark.needs_controller("cpu", "memory", "pids")


def free_memory(engine: Cluster) -> int:
    """The node's free memory, measured from now on: kubelet also answers with older figures."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def measure() -> int:
        memory = engine.summary()["node"].get("memory", {})
        return int(memory["availableBytes"]) if memory.get("time", "") > now and "availableBytes" in memory else 0

    found: int = harness.wait_until(measure, "the free memory", 60, 1)
    return found


def test_eviction(pods: Pods, seen: Seen, engine: Cluster) -> None:
    """Kubelet ends the pod that uses most beyond its request."""
    kept = pods.create(container(**resources("100m 32Mi", "100m 32Mi"))).ready()
    available = free_memory(engine)
    engine.host.end(engine.kubelet)
    hard = {"memory.available": str(available - 150 * MIB), "nodefs.available": "0%", "imagefs.available": "0%"}
    engine.start_kubelet(evictionHard=hard, evictionPressureTransitionPeriod="5s")
    try:
        harness.wait_until(lambda: not engine.under_pressure() and kept.is_ready(), "the node", 60, 1)
        # Files in a tmpfs count for the pod and cannot be reclaimed.
        greedy = pods.create(
            container("dd if=/dev/zero of=/v/f bs=1M count=400 && exec sleep 1000", volumeMounts=[VOLUME]),
            volumes=[{"name": "v", "emptyDir": {"medium": "Memory"}}],
        )
        greedy.wait(lambda: greedy.read()["status"].get("reason") == "Evicted", "to be evicted")
        end = greedy.terminated()
        survived = kept.is_ready() and kept.run("echo alive")
        seen(phase=greedy.phase, exit_code=end["exitCode"], guaranteed=survived)
        assert (greedy.phase, end["exitCode"], survived) == ("Failed", 137, "alive")
    finally:
        engine.host.end(engine.kubelet)
        engine.start_kubelet()
    harness.wait_until(lambda: not engine.under_pressure(), "the pressure to end", 60, 1)
