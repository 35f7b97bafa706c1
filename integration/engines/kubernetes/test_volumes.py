"""Volumes and their mount options."""

from __future__ import annotations

from pathlib import Path

from integration.engines.conftest import Seen
from integration.engines.kubernetes.cluster import BUSYBOX, Cluster, Json, Refused
from integration.engines.kubernetes.pods import Pods, container

LABEL = Cluster.label
OBJECTS = "/api/v1/namespaces/default"


def put(cluster: Cluster, kind: str, body: Json) -> None:
    """Create or replace a ConfigMap or a Secret."""
    try:
        cluster.api("POST", f"{OBJECTS}/{kind}", body)
    except Refused:
        cluster.api("PUT", f"{OBJECTS}/{kind}/{body['metadata']['name']}", body)


def mount(path: str, name: str = "v", **more: object) -> Json:
    """A volumeMounts entry."""
    return {"name": name, "mountPath": path} | more


def test_empty_dir_shared_by_containers(pods: Pods, seen: Seen) -> None:
    share: Json = {"volumeMounts": [mount("/v")]}
    pod = pods.create(
        container("echo from a >/v/file", "a", **share),
        container("until [ -s /v/file ]; do sleep 0.1; done; cat /v/file", "b", **share),
        volumes=[{"name": "v", "emptyDir": {}}],
    ).ended()
    seen(log=pod.log("b"))
    assert pod.log("b") == ["from a"]


def test_empty_dir_in_memory(pods: Pods, seen: Seen) -> None:
    main = "grep ' /v ' /proc/mounts | cut -d' ' -f3; stat -c %a /v; df -m /v | awk 'NR == 2 { print $2 }'"
    volume = {"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}
    pod = pods.create(container(main, volumeMounts=[mount("/v")]), volumes=[volume]).ended()
    seen(log=pod.log())
    assert pod.log() == ["tmpfs", "1777", "16"]


def test_config_map(pods: Pods, seen: Seen, engine: Cluster) -> None:
    put(engine, "configmaps", {"metadata": {"name": "map"}, "data": {"a": "1", "b.conf": "text\n"}})
    one = {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "a"}}}
    mounts = [mount("/v"), mount("/etc/one.conf", subPath="b.conf")]
    main = "echo $A; ls /v; cat /v/b.conf /etc/one.conf; touch /v/x 2>/dev/null || echo read-only"
    volume = {"name": "v", "configMap": {"name": "map", "defaultMode": 0o440}}
    pod = pods.create(container(main, env=[one], volumeMounts=mounts), volumes=[volume]).ended()
    seen(log=pod.log())
    assert pod.log() == ["1", "a", "b.conf", "text", "text", "read-only"]


def test_config_map_that_changes(pods: Pods, seen: Seen, engine: Cluster) -> None:
    put(engine, "configmaps", {"metadata": {"name": "changing"}, "data": {"a": "old"}})
    volume = {"name": "v", "configMap": {"name": "changing"}}
    pod = pods.create(container(volumeMounts=[mount("/v")]), volumes=[volume]).ready()
    first = pod.run("cat /v/a")
    put(engine, "configmaps", {"metadata": {"name": "changing"}, "data": {"a": "new"}})
    pod.wait(lambda: pod.run("cat /v/a") == "new", "the new content", 60)
    seen(first=first, then=pod.run("cat /v/a"))
    assert first == "old"


def test_secret(pods: Pods, seen: Seen, engine: Cluster) -> None:
    put(engine, "secrets", {"metadata": {"name": "secret"}, "stringData": {"key": "hidden"}})
    main = "echo $KEY; cat /v/key; stat -L -c '%a' /v/key; grep ' /v ' /proc/mounts | cut -d' ' -f3"
    env = [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "key"}}}]
    volume = {"name": "v", "secret": {"secretName": "secret", "defaultMode": 0o400}}
    pod = pods.create(container(main, env=env, volumeMounts=[mount("/v")]), volumes=[volume]).ended()
    seen(log=pod.log())
    assert pod.log() == ["hidden", "hidden400", "tmpfs"]


def test_downward_and_projected(pods: Pods, seen: Seen, engine: Cluster) -> None:
    put(engine, "configmaps", {"metadata": {"name": "map"}, "data": {"a": "1", "b.conf": "text\n"}})
    down = {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels['class']"}}]}
    sources = [{"downwardAPI": down}, {"configMap": {"name": "map", "items": [{"key": "a", "path": "sub/a"}]}}]
    volume = {"name": "v", "projected": {"sources": sources}}
    main = "cat /v/labels; echo; cat /v/sub/a"
    pod = pods.create(container(main, volumeMounts=[mount("/v")]), volumes=[volume]).ended()
    seen(label_is_the_class=pod.log()[0] == pods.runtime_class, file=pod.log()[1])
    assert pod.log() == [pods.runtime_class, "1"]


def test_sub_path(pods: Pods, seen: Seen) -> None:
    mounts = [mount("/v"), mount("/one", subPath="dir/deep"), mount("/env", subPathExpr="$(NAME)")]
    main = "echo a >/one/file; echo b >/env/file; find /v -type f | sort"
    pod = pods.create(
        container(main, env=[{"name": "NAME", "value": "other"}], volumeMounts=mounts),
        volumes=[{"name": "v", "emptyDir": {}}],
    ).ended()
    seen(log=pod.log())
    assert pod.log() == ["/v/dir/deep/file", "/v/other/file"]


def test_host_path(pods: Pods, seen: Seen) -> None:
    folder = pods.folder()
    (folder / "file").write_text("node\n")
    main = "cat /v/file; echo pod >/v/made; touch /r/x 2>/dev/null || echo read-only; cat /f"
    mounts = [mount("/v"), mount("/r", readOnly=True), mount("/f", "f")]
    volumes = [
        {"name": "v", "hostPath": {"path": str(folder), "type": "Directory"}},
        {"name": "f", "hostPath": {"path": f"{folder}/file", "type": "File"}},
    ]
    pod = pods.create(container(main, volumeMounts=mounts), volumes=volumes).ended()
    seen(log=pod.log(), made=(folder / "made").read_text().strip())
    assert pod.log() == ["node", "read-only", "node"]


def test_device_of_the_host(pods: Pods, seen: Seen) -> None:
    volume = {"name": "v", "hostPath": {"path": "/dev/zero", "type": "CharDevice"}}
    pod = pods.create(container("head -c 3 /d | od -An -tx1", volumeMounts=[mount("/d")]), volumes=[volume])
    pod.wait(lambda: pod.phase in ("Succeeded", "Failed"), "to end")
    seen(phase=pod.phase, log=[" ".join(line.split()) for line in pod.log()])


def with_submount(pods: Pods) -> Path:
    """Create a directory on the node with a tmpfs inside."""
    folder = pods.folder()
    (folder / "sub").mkdir()
    pods.cluster.must("mount", "-t", "tmpfs", "none", str(folder / "sub"))
    return folder


def test_recursive_read_only(pods: Pods, seen: Seen) -> None:
    folder = with_submount(pods)
    main = "for d in /plain /plain/sub /all /all/sub; do touch $d/x 2>/dev/null && echo writable $d; done; echo end"
    mounts = [mount("/plain", readOnly=True), mount("/all", readOnly=True, recursiveReadOnly="Enabled")]
    volumes = [{"name": "v", "hostPath": {"path": str(folder)}}]
    pod = pods.create(container(main, volumeMounts=mounts), volumes=volumes).ended()
    status = [one.get("recursiveReadOnly") for one in pod.status()["volumeMounts"]]
    pods.cluster.must("umount", str(folder / "sub"))
    seen(log=pod.log(), status=[str(one) for one in status])
    assert pod.log() == ["writable /plain/sub", "end"]


def test_mount_propagation(pods: Pods, seen: Seen) -> None:
    folder = pods.folder()
    (folder / "sub").mkdir()
    mounts = [mount("/v", mountPropagation="HostToContainer"), mount("/private")]
    volumes = [{"name": "v", "hostPath": {"path": str(folder)}}]
    pod = pods.create(container(volumeMounts=mounts), volumes=volumes).ready()
    pods.cluster.must("mount", "-t", "tmpfs", "none", str(folder / "sub"))
    inside = pod.run('for d in /v /private; do grep -q " $d/sub " /proc/mounts && echo $d; done; true').split()
    pods.cluster.must("umount", str(folder / "sub"))
    after = pod.run("grep -c /sub /proc/mounts || true")
    seen(arrives_in=inside, after_the_unmount=after)
    assert (inside, after) == (["/v"], "0")


def test_volume_of_an_image(pods: Pods, seen: Seen) -> None:
    volume = {"name": "v", "image": {"reference": BUSYBOX, "pullPolicy": "Never"}}
    main = "ls /v/bin/busybox; touch /v/x 2>/dev/null || echo read-only"
    pod = pods.create(container(main, volumeMounts=[mount("/v")]), volumes=[volume]).ended()
    seen(log=pod.log())
    assert pod.log() == ["/v/bin/busybox", "read-only"]


def test_volumes_in_a_user_namespace(pods: Pods, seen: Seen, engine: Cluster) -> None:
    put(engine, "configmaps", {"metadata": {"name": "map"}, "data": {"a": "1", "b.conf": "text\n"}})
    folder = pods.folder()
    (folder / "file").write_text("node\n")
    volumes = [
        {"name": "v", "hostPath": {"path": str(folder)}},
        {"name": "m", "configMap": {"name": "map"}},
        {"name": "t", "emptyDir": {"medium": "Memory"}},
    ]
    main = "stat -c '%n %u %g' /v/file /t; cat /m/a; echo; echo made >/v/made; touch /t/x; stat -c '%u' /t/x"
    pod = pods.create(
        container(main, volumeMounts=[mount("/v"), mount("/m", "m"), mount("/t", "t")]),
        hostUsers=False,
        volumes=volumes,
    ).ended()
    seen(log=pod.log(), owner_on_the_node=(folder / "made").stat().st_uid)
    assert pod.log() == ["/v/file 0 0", "/t 0 0", "1", "0"] and (folder / "made").stat().st_uid == 0
