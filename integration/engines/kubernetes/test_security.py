"""Security contexts and namespaces."""

from __future__ import annotations

import json
import os

import pytest

from integration.engines.conftest import Seen
from integration.engines.kubernetes.cluster import Cluster, Json, Refused
from integration.engines.kubernetes.pods import Pods, container

LABEL = Cluster.label
STATUS = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr '\\t' ' '"
SPACES = "for n in net ipc uts pid user cgroup mnt; do echo $n $(readlink /proc/self/ns/$n); done"


def test_user_and_groups(pods: Pods, seen: Seen) -> None:
    context = {"runAsUser": 1000, "runAsGroup": 1234, "supplementalGroups": [5], "fsGroup": 4000}
    main = "id -u; id -G; touch /v/mine; stat -c '%u %g %a' /v /v/mine"
    mounts: Json = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    volumes = [{"name": "v", "emptyDir": {}}]
    pod = pods.create(container(main, **mounts), securityContext=context, volumes=volumes).ended()
    seen(log=pod.log())
    assert pod.log() == ["1000", "1234 5 4000", "0 4000 2777", "1000 4000 644"]


def test_strict_supplemental_groups(pods: Pods, seen: Seen) -> None:
    context = {"runAsUser": 1000, "runAsGroup": 1000, "supplementalGroups": [5], "supplementalGroupsPolicy": "Strict"}
    lines = pods.output("id -G", securityContext=context)
    seen(log=lines)
    assert lines == ["1000 5"]


def test_run_as_non_root_is_refused(pods: Pods, seen: Seen) -> None:
    pod = pods.create(securityContext={"runAsNonRoot": True})
    reason = pod.wait(
        lambda: pod.status().get("state", {}).get("waiting", {}).get("reason") not in (None, "ContainerCreating"),
        "a reason",
    )
    seen(refused=reason, why=pod.status()["state"]["waiting"]["reason"])
    assert pod.status()["state"]["waiting"]["reason"] == "CreateContainerConfigError"


def test_default_capabilities_and_seccomp(pods: Pods, seen: Seen) -> None:
    lines = pods.output(STATUS)
    seen(log=lines)
    assert "Seccomp: 0" in lines and "NoNewPrivs: 0" in lines and "CapEff: 00000000a80425fb" in lines


def test_restricted(pods: Pods, seen: Seen) -> None:
    context = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsUser": 1000,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    lines = pods.output(STATUS + "; touch /x; unshare -m true", context, "Failed")
    seen(log=lines)
    assert "NoNewPrivs: 1" in lines and "Seccomp: 2" in lines and "CapBnd: 0000000000000000" in lines
    assert any("Read-only" in line for line in lines) and any("not permitted" in line for line in lines), lines


def test_added_capability(pods: Pods, seen: Seen) -> None:
    lines = pods.output(STATUS, {"capabilities": {"add": ["NET_ADMIN"], "drop": ["CHOWN"]}})
    seen(log=lines)
    assert "CapEff: 00000000a80435fa" in lines


def test_seccomp_profile_of_the_node(pods: Pods, seen: Seen, engine: Cluster) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}],
    }
    folder = engine.path / "node/var/lib/kubelet/seccomp"
    folder.mkdir(exist_ok=True)
    (folder / "no-chmod.json").write_text(json.dumps(profile))
    context = {"seccompProfile": {"type": "Localhost", "localhostProfile": "no-chmod.json"}}
    lines = pods.output("chmod 700 /tmp", context, restartPolicy="Never", expect="Failed")
    seen(log=lines)
    assert "Permission denied" in lines[0]


def test_masked_and_read_only_paths(pods: Pods, seen: Seen) -> None:
    main = "for f in /proc/kcore /proc/keys /proc/timer_list; do [ -s $f ] && echo open $f; done; "
    main += "echo x 2>/dev/null >/proc/sys/kernel/domainname && echo writable; "
    main += "awk '$5 ~ \"^/proc/\" && $6 ~ /^ro/ {print $5}' /proc/self/mountinfo | sort | "
    main += "while read -r place; do [ ! -d $place ] || echo $place; done"
    lines = pods.output(main)
    seen(read_only=lines)
    assert {"/proc/sys", "/proc/irq", "/proc/bus"} <= set(lines) and not [x for x in lines if x[0] != "/"], lines


def test_user_namespace(pods: Pods, seen: Seen) -> None:
    main = (
        "id -u; awk '{print $1, ($2 > 0), $3}' /proc/self/uid_map; touch /v/file; stat -c '%u %g' /v/file /bin/busybox"
    )
    mounts: Json = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    volumes = [{"name": "v", "emptyDir": {}}]
    pod = pods.create(container(main, **mounts), hostUsers=False, volumes=volumes).ended()
    seen(log=pod.log())
    assert pod.log() == ["0", "0 1 65536", "0 0", "0 0"]


def test_user_namespace_with_exec_and_probe(pods: Pods, seen: Seen) -> None:
    probe = {"exec": {"command": ["test", "-e", "/bin/busybox"]}, "periodSeconds": 1}
    pod = pods.create(container(readinessProbe=probe), hostUsers=False).ready()
    inside, outside = pod.run("readlink /proc/self/ns/user"), os.readlink("/proc/self/ns/user")
    seen(user=pod.run("id -u"), own_namespace=inside != outside)
    assert inside != outside


def test_unmasked_proc_in_a_user_namespace(pods: Pods, seen: Seen) -> None:
    lines = pods.output(
        "grep -c ' /proc/' /proc/self/mountinfo", {"procMount": "Unmasked"}, hostUsers=False, expect="Failed"
    )
    seen(mounts_over_proc=lines)
    assert lines == ["0"]


def test_own_namespaces(pods: Pods, seen: Seen) -> None:
    found = compare(pods.output(SPACES))
    seen(**found)
    assert found == {"shared_with_node": ["user"]}


def test_namespaces_of_the_host(pods: Pods, seen: Seen) -> None:
    found = compare(pods.output(SPACES, hostNetwork=True, hostPID=True, hostIPC=True), pods.cluster)
    seen(**found)
    assert found == {"shared_with_node": ["net", "ipc", "uts", "pid", "user"]}


def compare(lines: list[str], cluster: Cluster | None = None) -> dict[str, list[str]]:
    """The namespaces that belong to the node."""
    pid = cluster.host.pid if cluster else os.getpid()
    same = [name for name, link in map(str.split, lines) if os.readlink(f"/proc/{pid}/ns/{name}") == link]
    return {"shared_with_node": same}


def test_shared_process_namespace(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container(name="a"), container(name="b"), shareProcessNamespace=True).ready()
    lines = pod.run("ps -o pid,args | grep -c '[e]cho started'; cat /proc/1/comm; " + SPACES, "a").splitlines()
    other = pod.run(SPACES, "b").splitlines()
    shared = [line.split()[0] for line in lines[2:] if line in other]
    seen(visible=lines[0], first=lines[1], shared=shared)
    assert (lines[0], shared) == ("2", ["net", "ipc", "uts", "pid", "user"]), lines


def test_sysctls(pods: Pods, seen: Seen) -> None:
    wanted = [
        {"name": "net.ipv4.ip_local_port_range", "value": "2000 3000"},
        {"name": "kernel.shm_rmid_forced", "value": "1"},
    ]
    main = "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced | tr '\\t' ' '"
    lines = pods.output(main, securityContext={"sysctls": wanted})
    seen(log=lines)
    assert lines == ["2000 3000", "1"]


def test_unsafe_sysctl_is_refused(pods: Pods, seen: Seen) -> None:
    pod = pods.create(securityContext={"sysctls": [{"name": "net.core.somaxconn", "value": "100"}]})
    pod.wait(lambda: pod.phase == "Failed", "to be refused")
    seen(reason=pod.read()["status"]["reason"])
    assert pod.read()["status"]["reason"] == "SysctlForbidden"


def test_names_and_hosts(pods: Pods, seen: Seen) -> None:
    dns = {"nameservers": ["192.0.2.1"], "searches": ["test.example"]}
    aliases = [{"ip": "192.0.2.7", "hostnames": ["seven"]}]
    main = "hostname; grep seven /etc/hosts | tr '\\t' ' '; cat /etc/resolv.conf"
    lines = pods.output(main, hostname="box", hostAliases=aliases, dnsPolicy="None", dnsConfig=dns)
    seen(log=lines)
    assert lines == ["box", "192.0.2.7 seven", "search test.example", "nameserver 192.0.2.1"]


@pytest.mark.needs_cap("SYS_RESOURCE")
def test_privileged(pods: Pods, seen: Seen) -> None:
    lines = pods.output(
        "mount -t tmpfs none /mnt 2>/dev/null || mount -t tmpfs none /tmp; echo $?; ls /dev | grep -c null",
        {"privileged": True},
    )
    seen(log=lines)
    assert lines == ["0", "1"]


def test_unknown_handler(pods: Pods, seen: Seen, oci: str, engine: Cluster) -> None:
    try:
        engine.runtime_class("absent")
    except Refused as error:
        assert ": 409: " in str(error), error
    pod = pods.create(runtimeClassName="absent")
    pod.wait(lambda: 'no runtime for "absent" is configured' in pod.explain(), "an event about the handler")
    seen(phase=pod.phase)
    assert pod.phase == "Pending"


def test_overhead_of_the_class(pods: Pods, seen: Seen) -> None:
    pod = pods.create().ready()
    overhead = pod.read()["spec"]["overhead"]
    seen(overhead=[f"{name} {value}" for name, value in sorted(overhead.items())])
    assert overhead == {"cpu": "10m", "memory": "8Mi"}


def test_open_descriptors(pods: Pods, seen: Seen) -> None:
    lines = pods.output("ls /proc/self/fd; ulimit -n >/dev/null && echo limits")
    seen(log=lines)
    assert lines == ["0", "1", "2", "3", "limits"]
