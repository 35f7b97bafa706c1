"""Streams through the API server and kubelet into a container: logs, exec, attach, port-forward,
cp."""

from __future__ import annotations

import json
import subprocess

from integration import harness
from integration.engines.conftest import Seen
from integration.engines.kubernetes.cluster import Cluster
from integration.engines.kubernetes.pods import Pods, container

LABEL = Cluster.label


def test_logs(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container("for i in 1 2 3 4; do echo line $i; done")).ended()
    tail = pod.cluster.kubectl("logs", "--tail=1", pod.name).out.splitlines()
    count = len(pods.create(container("seq 20000")).ended().log())
    follow = pods.create(container("for i in 1 2 3; do echo $i; sleep 0.3; done"))
    follow.wait(lambda: follow.phase != "Pending", "to be started")
    followed = pod.cluster.kubectl("logs", "-f", follow.name).out.split()
    seen(lines=len(pod.log()), tail=tail, of_20000=count, followed=followed)
    assert (len(pod.log()), tail, count, followed) == (4, ["line 4"], 20000, ["1", "2", "3"])


def test_logs_of_the_previous_container(pods: Pods, seen: Seen) -> None:
    main = "echo run $(wc -l </v/log); echo x >>/v/log; [ $(wc -l </v/log) = 1 ] && exit 1; exec sleep 600"
    pod = pods.create(
        container("touch /v/log; " + main, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        restartPolicy="OnFailure",
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    pod.wait(lambda: pod.status().get("restartCount") == 1 and pod.is_ready(), "to run again")
    pod.wait(lambda: pod.log() == ["run 1"], "the second log")
    seen(previous=pod.log(previous=True), now=pod.log())
    assert pod.log(previous=True) == ["run 0"]


def test_exec(pods: Pods, seen: Seen) -> None:
    pod = pods.create().ready()
    done = pod.exec("/bin/sh", "-c", "echo out; echo err >&2; exit 5")
    fed, missing = pod.exec("cat", stdin="fed\n" * 5000), pod.exec("/nonexistent")
    seen(exit_code=done.rc, out=done.out.strip(), fed=len(fed.out), missing=missing.rc)
    assert (done.rc, done.out) == (5, "out\n") and done.err.startswith("err\n"), done
    assert fed.out == "fed\n" * 5000
    assert missing.rc != 0 and "no such file or directory" in missing.err, missing


def test_exec_on_a_terminal(pods: Pods, seen: Seen) -> None:
    pod = pods.create().ready()
    words = pod.cluster.kubectl_words(
        "exec", "-it", pod.name, "--", "/bin/sh", "-c", "tty; read x; echo got $x; exit 6"
    )
    done = pod.cluster.host.call_on_terminal(*words, send=b"hello\n")
    seen(exit_code=done.rc, terminal="/dev/pts/" in done.out, answered="got hello" in done.out)
    assert done.rc == 6 and "/dev/pts/" in done.out and "got hello" in done.out, done


def test_many_execs_at_once(pods: Pods, seen: Seen) -> None:
    pod = pods.create().ready()
    words = pod.cluster.host.enter + pod.cluster.kubectl_words(
        "exec", pod.name, "--", "/bin/sh", "-c", "sleep 1; echo $$"
    )
    env = pod.cluster.host.env
    children = [subprocess.Popen(words, stdout=subprocess.PIPE, env=env) for _ in range(10)]
    outputs = [child.communicate(timeout=60 * harness.SLOW)[0] for child in children]
    codes = {child.returncode for child in children}
    seen(exit_codes=list(codes), different_processes=len(set(outputs)))
    assert codes == {0} and len(set(outputs)) == 10, outputs


def test_exec_ends_with_the_container(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container("sleep 3")).ready()
    done = pod.exec("sleep", "60")
    seen(exit_code=done.rc)
    assert done.rc == 137, done


def test_attach(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container("read x; echo got $x; exit 4", stdin=True, stdinOnce=True)).ready()
    done = pod.cluster.kubectl("attach", "-i", pod.name, stdin="hello\n")
    code = pod.terminated()["exitCode"]
    seen(out=done.out.strip(), log=pod.log(), exit_code=code)
    assert (pod.log(), code) == (["got hello"], 4), done


def test_port_forward(pods: Pods, seen: Seen) -> None:
    pod = pods.create(container("mkdir /w; echo served >/w/index.html; exec httpd -f -p 127.0.0.1:8080 -h /w")).ready()
    cluster = pod.cluster
    forward = cluster.host.start(*cluster.kubectl_words("port-forward", pod.name, "9090:8080"), log="forward.log")
    fetch = ["/bin/busybox", "wget", "-q", "-O-", "http://127.0.0.1:9090/"]
    answer = harness.wait_until(lambda: cluster.host.call(*fetch).out.strip(), "the forwarded port", 20, 0.2)
    cluster.host.end(forward)
    seen(answer=answer)
    assert answer == "served"


def test_copy_a_directory(pods: Pods, seen: Seen) -> None:
    pod = pods.create().ready()
    folder = pods.folder()
    (folder / "file").write_text("content\n")
    up = pod.cluster.kubectl("cp", str(folder), f"{pod.name}:/tmp/there")
    down = pod.cluster.kubectl("cp", f"{pod.name}:/tmp/there", str(folder / "back"))
    text = (folder / "back/file").read_text() if (folder / "back/file").exists() else ""
    seen(up=up.rc, down=down.rc, content=text.strip())
    assert text == "content\n", (up, down)


def test_stats(pods: Pods, seen: Seen) -> None:
    pod = pods.create().ready()
    path = "/api/v1/nodes/node1/proxy/stats/summary?only_cpu_and_memory=true"

    def find() -> list[str]:
        found = pod.cluster.api("GET", path)
        found = json.loads(found) if isinstance(found, str) else found
        pods_of = [one for one in found["pods"] if one["podRef"]["name"] == pod.name]
        return [one["name"] for one in pods_of[0]["containers"]] if pods_of else []

    names = pod.wait(find, "statistics")
    seen(containers=names)
    assert names == ["c"]
