"""Pods of one RuntimeClass: create them, wait for them, inspect them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from integration import harness
from integration.engines.host import Done
from integration.engines.kubernetes.cluster import BUSYBOX, Cluster, Json, Refused

PODS = "/api/v1/namespaces/default/pods"
WAIT = 40  # seconds
MIB = 1 << 20
# Exits at once on SIGTERM.
SLEEP = 'trap "exit 0" TERM; echo started; while :; do sleep 0.1; done'


def container(script: str = SLEEP, name: str = "c", **more: Any) -> Json:
    """A container that runs a script."""
    made = {"name": name, "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["/bin/sh", "-c", script]}
    return made | more


def resources(requests: str, limits: str) -> Json:
    """A container's resources from texts like "100m 64Mi": cpu and memory, "-" for none."""
    both = {"requests": requests.split(), "limits": limits.split()}
    return {
        "resources": {
            kind: {name: one for name, one in zip(("cpu", "memory"), words, strict=True) if one != "-"}
            for kind, words in both.items()
        }
    }


class Pod:
    """One pod of the cluster."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name

    def read(self) -> Json:
        """Read the pod's object."""
        found: Json = self.cluster.api("GET", f"{PODS}/{self.name}")
        return found

    @property
    def phase(self) -> str:
        """The phase: Pending, Running, Succeeded or Failed."""
        return str(self.read()["status"].get("phase"))

    def status(self, name: str = "c", kind: str = "containerStatuses") -> Json:
        """The status of one container, {} before it has one."""
        for one in self.read()["status"].get(kind, []):
            if one["name"] == name:
                return dict(one)
        return {}

    def is_ready(self) -> bool:
        """Whether all containers run and pass their probes."""
        conditions = self.read()["status"].get("conditions", [])
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def explain(self) -> str:
        """The pod's status and events, for an error message."""
        events = self.cluster.api(
            "GET", "/api/v1/namespaces/default/events", fieldSelector=f"involvedObject.name={self.name}"
        )
        texts = [f"{one['reason']}: {one['message']}" for one in events["items"]]
        return f"{self.name}: {self.read()['status']}\n" + "\n".join(texts)

    def wait(self, condition: Any, what: str, timeout: float = WAIT) -> Any:
        """Wait until `condition` is true; return its value."""
        try:
            return harness.wait_until(condition, f"{self.name}: {what}", timeout, 0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.explain()}") from None

    def ready(self) -> Pod:
        """Wait for `is_ready`."""
        self.wait(self.is_ready, "to be ready")
        return self

    def ended(self, phase: str = "Succeeded") -> Pod:
        """Wait until all containers have terminated."""
        self.wait(lambda: self.phase in ("Succeeded", "Failed"), f"to be {phase}")
        assert self.phase == phase, self.explain()
        return self

    def terminated(self, name: str = "c", kind: str = "containerStatuses") -> Json:
        """Wait until one container has terminated; return its exit code, reason and message."""
        found: Json = self.wait(lambda: self.status(name, kind).get("state", {}).get("terminated"), f"{name} to end")
        return found

    def log(self, name: str = "c", previous: bool = False) -> list[str]:
        """The lines of the log of a container or of its previous instance."""
        path = f"{PODS}/{self.name}/log"
        return str(self.cluster.api("GET", path, container=name, previous=str(previous).lower())).splitlines()

    def exec(self, *args: str, name: str = "c", stdin: str | None = None) -> Done:
        """Run a process with kubectl exec."""
        flags = ["-i"] if stdin is not None else []
        return self.cluster.kubectl("exec", *flags, self.name, "-c", name, "--", *args, stdin=stdin)

    def run(self, script: str, name: str = "c") -> str:
        """Run a script with kubectl exec, which must succeed; return its output."""
        done = self.exec("/bin/sh", "-c", script, name=name)
        assert done.rc == 0, (done, self.explain())
        return done.out.strip()

    def delete(self, grace: int = 1) -> None:
        """Request the deletion."""
        try:
            self.cluster.api("DELETE", f"{PODS}/{self.name}", {"gracePeriodSeconds": grace})
        except Refused as error:
            assert ": 404: " in str(error), error

    def is_gone(self) -> bool:
        """Whether the API server has removed the object."""
        try:
            self.read()
        except Refused:
            return True
        return False

    def wait_gone(self, timeout: float = WAIT) -> None:
        """Wait until kubelet has removed everything."""
        harness.wait_until(self.is_gone, f"{self.name} to be removed", timeout, 0.1)


class Pods:
    """Create pods of one RuntimeClass, and remove them."""

    def __init__(self, cluster: Cluster, runtime_class: str, prefix: str) -> None:
        self.cluster, self.runtime_class, self.prefix = cluster, runtime_class, prefix
        self.made: list[Pod] = []

    def body(self, name: str, containers: list[Json], **spec: Any) -> Json:
        """The object of a pod; `spec` are further members."""
        fixed: Json = {
            "runtimeClassName": self.runtime_class,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": containers,
        }
        return {"metadata": {"name": name, "labels": {"class": self.runtime_class}}, "spec": fixed | spec}

    def create(self, *containers: Json, metadata: Json | None = None, **spec: Any) -> Pod:
        """Create a pod; without containers it sleeps."""
        name = f"{self.prefix}-{len(self.made)}"
        body = self.body(name, list(containers) or [container()], **spec)
        body["metadata"] |= metadata or {}
        self.cluster.api("POST", PODS, body)
        self.made.append(Pod(self.cluster, name))
        return self.made[-1]

    def folder(self) -> Path:
        """Create a directory on the node that pods can mount."""
        made = Path(tempfile.mkdtemp(prefix="shared", dir=self.cluster.path))
        made.chmod(0o777)
        return made

    def output(self, script: str, context: Json | None = None, expect: str = "Succeeded", **spec: Any) -> list[str]:
        """Run a script in its own pod and return its output; `context` is the container's
        securityContext."""
        pod = self.create(container("exec 2>&1\n" + script, securityContext=context or {}), **spec)
        return pod.ended(expect).log()

    def remove(self) -> None:
        """Remove all pods."""
        for pod in self.made:
            pod.delete(0)
        for pod in self.made:
            pod.wait_gone()
