"""CRI as kubelet uses it: the plugins of containerd 1.x and of a current 2.x, driven by crictl
(`make test-cri`)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration import harness
from integration.engines import image
from integration.engines.cases import SPIN
from integration.engines.conftest import Seen, sandbox
from integration.engines.cri import BUSYBOX, Cri

BINS = os.environ.get("PYRUNC_ENGINES_BIN", "")
pytestmark = [
    pytest.mark.needs_program("containerd"),
    pytest.mark.skipif(not BINS, reason="make test-cri builds what this needs"),
]


@pytest.fixture(scope="module", params=[1, 2])
def engine(request: pytest.FixtureRequest, oci: str, oci_path: str, images: tuple[Path, Path]) -> Iterator[Cri]:
    with sandbox(f"cri{request.param}-{oci}") as host:
        made = Cri(host, oci_path, request.param == 2, Path(BINS), images[0].parent)
        made.must("pull", BUSYBOX)
        yield made


@pytest.fixture
def pod(engine: Cri) -> Iterator[str]:
    """A pod with its own network, removed with its containers."""
    made = engine.pod()
    yield made
    engine.must("stopp", made)
    engine.must("rmp", made)


def start(engine: Cri, pod: str, *args: str, **more: Any) -> str:
    """Create and start a container."""
    id = engine.create(pod, *(args or ("/bin/sh", "-c", SPIN)), **more)
    engine.must("start", id)
    return id


def test_life(engine: Cri, pod: str, seen: Seen) -> None:
    id = engine.create(pod, "/bin/sh", "-c", "echo out; echo err >&2; exit 7")
    created = engine.status(id)["state"]
    engine.must("start", id)
    code = engine.wait_exited(id)
    seen(created=created, exit_code=code, log=sorted(engine.log("c")), reason=engine.status(id)["reason"])
    assert (created, code, sorted(engine.log("c"))) == ("CONTAINER_CREATED", 7, ["err", "out"])
    engine.must("rm", id)


def test_stop(engine: Cri, pod: str, seen: Seen) -> None:
    id = start(engine, pod)
    harness.wait_until(lambda: "started" in engine.log("c"), "the container to be ready", 20)
    engine.must("stop", "-t", "10", id)
    seen(exit_code=engine.status(id)["exitCode"])
    assert engine.status(id)["exitCode"] == 9
    engine.must("rm", id)


def test_stop_of_a_container_that_does_not_end(engine: Cri, pod: str, seen: Seen) -> None:
    id = start(engine, pod, "/bin/sh", "-c", 'trap "" TERM; while :; do sleep 0.1; done')
    engine.must("stop", "-t", "1", id)
    seen(exit_code=engine.status(id)["exitCode"])
    assert engine.status(id)["exitCode"] == 137


def test_exec(engine: Cri, pod: str, seen: Seen) -> None:
    id = start(engine, pod)
    sync = engine.crictl("exec", "--sync", id, "/bin/sh", "-c", "echo out >&2; exit 5")
    slow = engine.crictl("exec", "--sync", "--timeout", "1", id, "/bin/sleep", "30")
    missing = engine.crictl("exec", "--sync", id, "/nonexistent")
    stream = engine.crictl("exec", id, "/bin/sh", "-c", "echo out; echo err >&2")
    seen(failing=sync.rc, slow=slow.rc, missing=missing.rc, streamed=stream.out.strip())
    assert sync.rc == 1 and "exited with 5" in sync.err, sync
    assert slow.rc == 1 and re.search("deadline.exceeded|timed out", slow.err, re.IGNORECASE), slow
    assert missing.rc == 1 and "no such file or directory" in missing.err, missing
    assert (stream.rc, stream.out, stream.err) == (0, "out\n", "err\n"), stream


def test_exec_on_a_terminal(engine: Cri, pod: str, seen: Seen) -> None:
    id = start(engine, pod)
    words = engine.argv("exec", "-it", id, "/bin/sh", "-c", "tty; read x; echo got $x")
    done = engine.host.call_on_terminal(*words, send=b"hello\n")
    seen(exit_code=done.rc, terminal="/dev/pts/" in done.out)
    assert done.rc == 0 and "/dev/pts/" in done.out and "got hello" in done.out, done


def test_restart(engine: Cri, pod: str, seen: Seen) -> None:
    first = start(engine, pod, "/bin/sh", "-c", "exit 1")
    codes = [engine.wait_exited(first)]
    engine.must("rm", first)
    second = start(engine, pod, metadata={"name": "c", "attempt": 1})
    seen(first=codes, second=engine.status(second)["state"])
    assert codes == [1] and engine.status(second)["state"] == "CONTAINER_RUNNING"


def test_remove_by_force(engine: Cri, pod: str, seen: Seen) -> None:
    id = start(engine, pod)
    refused, done = engine.crictl("rm", id), engine.crictl("rm", "-f", id)
    seen(plain="fails" if refused.rc else "works", by_force=done.rc)
    assert refused.rc != 0 and done.rc == 0


def test_shared_namespaces(engine: Cri, pod: str, seen: Seen) -> None:
    ids = [start(engine, pod, name=name) for name in ("a", "b")]
    found = []
    for kind in ("net", "ipc", "uts", "pid"):
        links = {engine.must("exec", "--sync", id, "/bin/readlink", f"/proc/self/ns/{kind}") for id in ids}
        found.append(f"{kind} {'shared' if len(links) == 1 else 'own'}")
    seen(namespaces=found, hostname=engine.must("exec", "--sync", ids[0], "/bin/hostname"))
    assert found == ["net shared", "ipc shared", "uts shared", "pid own"]


def test_stats(engine: Cri, pod: str, seen: Seen) -> None:
    id = start(engine, pod)
    done = engine.crictl("stats", "-a", "-o", "json")
    seen(exit_code=done.rc, listed=id in done.out)
    assert done.rc == 0 and id in done.out, done


def test_user_read_only_and_volume(engine: Cri, pod: str, seen: Seen) -> None:
    folder = engine.host.path / "volume"
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text("content\n")
    context = {"run_as_user": {"value": 1000}, "supplemental_groups": [1234], "readonly_rootfs": True}
    more = {
        "linux": {"security_context": context | {"namespace_options": {"pid": 1}}},
        "mounts": [{"container_path": "/data", "host_path": str(folder), "readonly": True}],
    }
    id = start(
        engine, pod, "/bin/sh", "-c", "exec 2>&1; id -u; id -G; cat /data/file; touch /data/x; touch /tmp/x", **more
    )
    engine.wait_exited(id)
    lines = engine.log("c")
    seen(user=lines[0], groups=lines[1], read=lines[2], failures=len([x for x in lines if "Read-only" in x]))
    assert lines[0] == "1000" and "1234" in lines[1] and lines[2] == "content"
    assert len([line for line in lines if "Read-only file system" in line]) == 2, lines


def test_seccomp_profile(engine: Cri, pod: str, seen: Seen) -> None:
    profile = image.make_profile(engine.host.path / "seccomp.json")
    context = {"seccomp": {"profile_type": 2, "localhost_ref": str(profile)}, "namespace_options": {"pid": 1}}
    script = "chmod 700 /tmp; echo $?; grep Seccomp: /proc/self/status"
    id = start(engine, pod, "/bin/sh", "-c", script, linux={"security_context": context})
    engine.wait_exited(id)
    lines = [" ".join(line.split()) for line in engine.log("c") if "chmod" not in line]
    seen(log=lines)
    assert lines == ["1", "Seccomp: 2"]


def test_failing_start(engine: Cri, pod: str, seen: Seen) -> None:
    id = engine.create(pod, "/nonexistent")
    done = engine.crictl("start", id)
    state = engine.status(id)
    seen(exit_code=done.rc, state=state["state"], of_the_container=state["exitCode"], reason=state["reason"])
    assert done.rc == 1 and "no such file or directory" in done.err, done
    assert state["exitCode"] in (127, 128), state


def test_update(engine: Cri, pod: str, seen: Seen) -> None:
    if not engine.limits:
        pytest.skip("no cpu controller on this machine's cgroup v2")
    id = start(engine, pod)
    done = engine.crictl("update", "--cpu-share", "512", id)
    seen(exit_code=done.rc)
    assert done.rc == 0, done


def test_pod_on_the_network_of_the_host(engine: Cri, seen: Seen) -> None:
    pod = engine.pod("hostnet", network=2)
    id = engine.create(
        pod, "/bin/sh", "-c", SPIN, linux={"security_context": {"namespace_options": {"network": 2, "pid": 1}}}
    )
    engine.must("start", id)
    inside = engine.must("exec", "--sync", id, "/bin/readlink", "/proc/self/ns/net")
    outside = engine.host.call("readlink", "/proc/self/ns/net").out.strip()
    engine.must("rmp", "-f", pod)
    seen(same_network=inside == outside)
    assert inside == outside


def test_nothing_left(engine: Cri, seen: Seen) -> None:
    left = engine.host.listdir("/run/containerd/runc/k8s.io")
    harness.wait_until(lambda: not [a for a in engine.host.processes() if "shim" in a], "the shims to end", 20)
    groups = [path.name for path in engine.host.cgroups() if not path.name.startswith("pyt-")]
    seen(containers=left, cgroups=groups)
    assert not left and not groups
